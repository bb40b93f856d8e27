//! The allocator of the program: mimalloc, with what a thread has freed last on top.
//!
//! mimalloc goes round the blocks of a page before it takes one for the second time. That is good for much memory and bad
//! for little: what each request borrows for a moment comes from another place every time, and half a megabyte later all of
//! it is cold. So a thread that serves connections puts what it frees on piles, one for each size, and takes what lies on
//! top: the memory of the request before. What does not fit on a pile goes to mimalloc, and so does everything of other
//! threads.

mod mimalloc;
mod piles;

use mimalloc::Mimalloc;
use piles::{Kind, PILES, Piles};
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::null_mut;

/// The allocator of the program.
#[derive(Clone, Copy, Debug)]
pub struct Allocator;

// SAFETY: all blocks are mimalloc's, which keeps the contract of `GlobalAlloc`. Those of a kind are allocated with the
// kind's layout, which is at least as large and as aligned as the one asked for, whatever thread asks and whatever thread
// frees, so that each serves any request of its kind. Between `dealloc` and `alloc` one is on a single pile of a single
// thread. No call allocates by this allocator itself, panics or unwinds: the cells of a thread are there without being
// made, have nothing to drop, and are there until it ends.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(kind) = Kind::of(layout) else {
            // SAFETY: as the caller promises.
            return unsafe { Mimalloc.alloc(layout) };
        };
        match PILES.with(|piles| piles.take(&kind)) {
            Some(block) => block.as_ptr(),
            // SAFETY: the layout of a kind has a size.
            None => unsafe { Mimalloc.alloc(kind.block) },
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(kind) = Kind::of(layout) else {
            // SAFETY: blocks of no kind were allocated with the layout that was asked for.
            return unsafe { Mimalloc.dealloc(block, layout) };
        };
        // SAFETY: the caller gives up a block that was allocated for this layout, and so with that of its kind.
        unsafe {
            if !PILES.with(|piles| piles.keep(&kind, block)) {
                Mimalloc.dealloc(block, kind.block);
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Kind::of(layout).is_none() {
            // SAFETY: as the caller promises.
            return unsafe { Mimalloc.alloc_zeroed(layout) };
        }
        // SAFETY: as the caller promises; the block has at least the size that is written.
        unsafe {
            let block = self.alloc(layout);
            if !block.is_null() {
                block.write_bytes(0, layout.size());
            }
            block
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else { return null_mut() };
        match (Kind::of(layout), Kind::of(wanted)) {
            // SAFETY: both are mimalloc's alone, and were allocated with the layouts that were asked for.
            (None, None) => unsafe { Mimalloc.realloc(block, layout, size) },
            (Some(from), Some(to)) if from.pile == to.pile => block,
            // SAFETY: the new block and the old have at least the size that is copied, and are two.
            _ => unsafe {
                let moved = self.alloc(wanted);
                if !moved.is_null() {
                    moved.copy_from_nonoverlapping(block, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                moved
            },
        }
    }
}

/// This thread's piles, kept until dropped.
pub(crate) struct Keeping;

impl Keeping {
    /// From now on this thread keeps what it frees.
    pub(crate) fn begin() -> Keeping {
        PILES.with(|piles| piles.keeps.set(true));
        Keeping
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        PILES.with(|piles| {
            piles.keeps.set(false);
            piles.clear();
        });
    }
}

/// The option for how long what is free is kept before it is given back, in milliseconds; below 0: for ever.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = libmimalloc_sys::mi_option_use_numa_nodes - 1;

/// Keeps what is freed from here on for what is allocated later: a process that does the same work from time to time
/// is spared getting the same memory anew, page by page, which takes the system a third of the time of that work.
pub fn keep_freed() {
    // SAFETY: setting an option takes nothing that could be wrong.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}

/// Gives the system back what this thread has freed and keeps for later, which the allocator does of itself only while
/// more is allocated. Takes up to a few milliseconds where much is kept.
pub fn give_back() {
    PILES.with(Piles::clear);
    // SAFETY: the call takes nothing that could be wrong, any thread may make it at any time, and it leaves alone what is
    // in use. Where another allocator is in use it finds nothing.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: reading an option takes nothing that could be wrong.
        let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
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
                    let block = Allocator.alloc(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align), "{layout:?}");
                    block.write_bytes(7, size);
                    let block = Allocator.realloc(block, layout, larger.size());
                    assert!(!block.is_null() && block.addr().is_multiple_of(align), "{larger:?}");
                    assert!((0..size).all(|at| *block.add(at) == 7), "{larger:?}");
                    Allocator.dealloc(block, larger);
                    let zeroed = Allocator.alloc_zeroed(layout);
                    assert!(!zeroed.is_null() && zeroed.addr().is_multiple_of(align), "{layout:?}");
                    assert!((0..size).all(|at| *zeroed.add(at) == 0), "{layout:?}");
                    Allocator.dealloc(zeroed, layout);
                }
            }
        }
    }
    #[test]
    fn what_was_freed_last_is_taken_first_by_threads_that_keep() {
        let layouts: Vec<Layout> = [(1, 1), (24, 8), (700, 8), (1024, 8), (1025, 8), (3_200, 8), (8_192, 8)]
            .into_iter()
            .map(|(size, align)| Layout::from_size_align(size, align).expect("a power of two"))
            .collect();
        // SAFETY: blocks are given back once, with the layout they were asked for with.
        let twice = |layout: Layout| unsafe {
            let blocks = [Allocator.alloc(layout), Allocator.alloc(layout)];
            blocks.into_iter().for_each(|block| Allocator.dealloc(block, layout));
            let again = [Allocator.alloc(layout), Allocator.alloc(layout)];
            again.into_iter().for_each(|block| Allocator.dealloc(block, layout));
            (blocks, again)
        };
        let keeping = Keeping::begin();
        for layout in &layouts {
            let (blocks, again) = twice(*layout);
            assert_eq!(again, [blocks[1], blocks[0]], "{layout:?}");
        }
        // More than a pile holds is freed and had again all the same, and so is what is larger.
        for (size, count) in [(4096, 64), (100_000, 3)] {
            let layout = Layout::from_size_align(size, 8).expect("a power of two");
            // SAFETY: as above; what is written lies within the blocks.
            unsafe {
                let blocks: Vec<*mut u8> = (0..count).map(|_| Allocator.alloc(layout)).collect();
                for (number, block) in blocks.iter().enumerate() {
                    block.write_bytes(number as u8, size);
                }
                for (number, block) in blocks.iter().enumerate() {
                    assert!((0..size).all(|at| *block.add(at) == number as u8));
                    Allocator.dealloc(*block, layout);
                }
            }
        }
        drop(keeping);
        assert!(PILES.with(|piles| {
            layouts.iter().filter_map(|layout| Kind::of(*layout)).all(|kind| piles.take(&kind).is_none())
        }));
    }
}
