//! The allocator of the program: mimalloc.

use libmimalloc_sys as mimalloc;
use std::alloc::{GlobalAlloc, Layout};

/// What allocates.
#[derive(Clone, Copy, Debug)]
pub struct Allocator;

/// The one of the program.
pub const ALLOCATOR: Allocator = Allocator;

/// Blocks are whole words, so that what wants no more than that is aligned wherever it lies.
const NATURAL_ALIGN: usize = size_of::<usize>();

/// Can the plain calls be used? Those that take an alignment are slower, and add room for it to every block whose size
/// is no power of two.
const fn is_natural(layout: Layout) -> bool {
    layout.align() <= NATURAL_ALIGN
}

// SAFETY: the calls are those of mimalloc, which gives blocks that nobody else has, of the size and the alignment that
// were asked for, or a null pointer, and does not unwind. Blocks of either kind of call may be given to the others.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and any power of two may be asked for.
        let block = unsafe {
            match is_natural(layout) {
                true => mimalloc::mi_malloc(layout.size()),
                false => mimalloc::mi_malloc_aligned(layout.size(), layout.align()),
            }
        };
        block.cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        let block = unsafe {
            match is_natural(layout) {
                true => mimalloc::mi_zalloc(layout.size()),
                false => mimalloc::mi_zalloc_aligned(layout.size(), layout.align()),
            }
        };
        block.cast()
    }

    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: the caller says that the block is one of ours and not given back yet.
        unsafe { mimalloc::mi_free(block.cast()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as for `alloc` and `dealloc`; after a null pointer the block stays as it is.
        let block = unsafe {
            match is_natural(layout) {
                true => mimalloc::mi_realloc(block.cast(), size),
                false => mimalloc::mi_realloc_aligned(block.cast(), size, layout.align()),
            }
        };
        block.cast()
    }
}

/// The option for how long what is free is kept before it is given back, in milliseconds; below 0: for ever.
const PURGE_DELAY: mimalloc::mi_option_t = mimalloc::mi_option_use_numa_nodes - 1;

/// Keeps what is freed from here on for what is allocated later: a process that does the same work from time to time
/// is spared getting the same memory anew, page by page, which takes the system a third of the time of that work.
pub fn keep_freed() {
    // SAFETY: setting an option takes nothing that could be wrong.
    unsafe { mimalloc::mi_option_set(PURGE_DELAY, -1) };
}

/// Gives the system back what this thread has freed and keeps for later, which the allocator does of itself only while
/// more is allocated. Takes up to a few milliseconds where much is kept.
pub fn give_back() {
    // SAFETY: the call takes nothing that could be wrong, any thread may make it at any time, and it leaves alone what is
    // in use. Where another allocator is in use it finds nothing.
    unsafe { mimalloc::mi_collect(true) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: reading an option takes nothing that could be wrong.
        let delay = || unsafe { mimalloc::mi_option_get(PURGE_DELAY) };
        // The delay is the one option with this default.
        assert_eq!(delay(), 1000);
        keep_freed();
        assert_eq!(delay(), -1);
    }

    #[test]
    fn blocks_are_aligned_and_keep_what_they_hold() {
        for align in [1, 2, 4, 8, 16, 64, 128, 4096] {
            for size in [1, 7, 8, 24, 40, 136, 1000, 70_000] {
                let layout = Layout::from_size_align(size, align).expect("a power of two");
                let larger = Layout::from_size_align(size * 3, align).expect("a power of two");
                // SAFETY: blocks are asked for with a size, checked, written within their bounds and given back with the
                // layout they have.
                unsafe {
                    let block = ALLOCATOR.alloc(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align), "{layout:?}");
                    block.write_bytes(7, size);
                    let block = ALLOCATOR.realloc(block, layout, larger.size());
                    assert!(!block.is_null() && block.addr().is_multiple_of(align), "{larger:?}");
                    assert!((0..size).all(|at| *block.add(at) == 7), "{larger:?}");
                    ALLOCATOR.dealloc(block, larger);
                    let zeroed = ALLOCATOR.alloc_zeroed(layout);
                    assert!(!zeroed.is_null() && zeroed.addr().is_multiple_of(align), "{layout:?}");
                    assert!((0..size).all(|at| *zeroed.add(at) == 0), "{layout:?}");
                    ALLOCATOR.dealloc(zeroed, layout);
                }
            }
        }
    }
}
