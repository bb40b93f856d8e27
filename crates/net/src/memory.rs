//! The allocator of the program.

/// What allocates.
pub type Allocator = mimalloc::MiMalloc;
/// The one of the program.
pub const ALLOCATOR: Allocator = mimalloc::MiMalloc;

/// Gives the system back what this thread has freed and keeps for later, which the allocator does of itself only while
/// more is allocated. Takes up to a few milliseconds where much is kept.
pub fn give_back() {
    // SAFETY: the call takes nothing that could be wrong, any thread may make it at any time, and it leaves alone what is
    // in use. Where another allocator is in use it finds nothing.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
