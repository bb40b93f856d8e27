//! The calls of mimalloc, the allocator under [`super::Allocator`].

use std::alloc::{GlobalAlloc, Layout};

/// Allocates by mimalloc.
pub(super) struct Mimalloc;

/// Blocks are whole words, so that what wants no more than that is aligned wherever it lies.
pub(super) const NATURAL_ALIGN: usize = size_of::<usize>();

impl Mimalloc {
    /// Gives a block back; what layout it has, mimalloc knows.
    ///
    /// # Safety
    /// The block is one of its blocks, of any layout, and nobody uses it any more.
    pub(super) unsafe fn free(block: *mut u8) {
        // SAFETY: as the caller promises.
        unsafe { libmimalloc_sys::mi_free(block.cast()) }
    }
}

/// Can the plain calls be used? Those that take an alignment are slower, and add room for it to every block whose size
/// is no power of two.
const fn is_natural(layout: Layout) -> bool {
    layout.align() <= NATURAL_ALIGN
}

// SAFETY: the calls are those of mimalloc, which gives blocks that nobody else has, of the size and the alignment that
// were asked for, or a null pointer, and does not unwind. Blocks of either kind of call may be given to the others.
unsafe impl GlobalAlloc for Mimalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and any power of two may be asked for.
        let block = unsafe {
            match is_natural(layout) {
                true => libmimalloc_sys::mi_malloc(layout.size()),
                false => libmimalloc_sys::mi_malloc_aligned(layout.size(), layout.align()),
            }
        };
        block.cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        let block = unsafe {
            match is_natural(layout) {
                true => libmimalloc_sys::mi_zalloc(layout.size()),
                false => libmimalloc_sys::mi_zalloc_aligned(layout.size(), layout.align()),
            }
        };
        block.cast()
    }

    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { Mimalloc::free(block) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as for `alloc` and `dealloc`; after a null pointer the block stays as it is.
        let block = unsafe {
            match is_natural(layout) {
                true => libmimalloc_sys::mi_realloc(block.cast(), size),
                false => libmimalloc_sys::mi_realloc_aligned(block.cast(), size, layout.align()),
            }
        };
        block.cast()
    }
}
