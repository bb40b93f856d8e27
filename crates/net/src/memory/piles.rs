//! What a thread has freed last, on piles: one for each size.

use super::mimalloc::{Mimalloc, NATURAL_ALIGN};
use std::alloc::Layout;
use std::cell::Cell;
use std::ptr::{NonNull, null_mut};

/// Blocks larger than this are mimalloc's alone, bytes.
const BLOCK_BYTES_MAX: usize = 8192;
/// Up to this size there is a pile every [`FINE_BYTES`], above it every [`COARSE_BYTES`].
const FINE_BYTES_MAX: usize = 1024;
const FINE_BYTES: usize = 16;
const COARSE_BYTES: usize = 512;
/// The most that lies on one pile, bytes.
const PILE_BYTES_MAX: usize = 32 * 1024;

const FINE: usize = FINE_BYTES_MAX / FINE_BYTES;
const COARSE: usize = (BLOCK_BYTES_MAX - FINE_BYTES_MAX) / COARSE_BYTES;

thread_local! {
    pub(super) static PILES: Piles = const { Piles::new() };
}

/// What a thread has freed.
pub(super) struct Piles {
    /// Does the thread keep anything?
    pub(super) keeps: Cell<bool>,
    piles: [Pile; FINE + COARSE],
}

/// Free blocks of one size, the last one first. The first word of each says where the next is.
struct Pile {
    top: Cell<*mut u8>,
    bytes: Cell<usize>,
}

/// The pile of a layout, and the layout that all blocks on it have.
pub(super) struct Kind {
    pub(super) pile: usize,
    pub(super) block: Layout,
}

impl Kind {
    /// None for what is mimalloc's alone.
    #[inline]
    pub(super) fn of(layout: Layout) -> Option<Kind> {
        let size = layout.size();
        let (pile, bytes) = if size > BLOCK_BYTES_MAX || size == 0 || layout.align() > NATURAL_ALIGN {
            return None;
        } else if size <= FINE_BYTES_MAX {
            let steps = size.div_ceil(FINE_BYTES);
            (steps - 1, steps * FINE_BYTES)
        } else {
            let steps = (size - FINE_BYTES_MAX).div_ceil(COARSE_BYTES);
            (FINE + steps - 1, FINE_BYTES_MAX + steps * COARSE_BYTES)
        };
        Layout::from_size_align(bytes, NATURAL_ALIGN).ok().map(|block| Kind { pile, block })
    }
}

impl Piles {
    const fn new() -> Piles {
        Piles {
            keeps: Cell::new(false),
            piles: [const { Pile { top: Cell::new(null_mut()), bytes: Cell::new(0) } }; FINE + COARSE],
        }
    }

    /// The block on top of a pile.
    #[inline]
    pub(super) fn take(&self, kind: &Kind) -> Option<NonNull<u8>> {
        let pile = &self.piles[kind.pile];
        let top = NonNull::new(pile.top.get())?;
        // SAFETY: what lies on a pile is a free block of at least a word, aligned for one, whose first word `keep` has
        // written; this thread alone knows it.
        pile.top.set(unsafe { top.cast::<*mut u8>().read() });
        pile.bytes.set(pile.bytes.get() - kind.block.size());
        Some(top)
    }

    /// Puts a free block on top of its pile; false: it has no place there.
    ///
    /// # Safety
    /// The block is one of this kind that mimalloc has allocated, and nobody uses it any more.
    #[inline]
    pub(super) unsafe fn keep(&self, kind: &Kind, block: *mut u8) -> bool {
        let pile = &self.piles[kind.pile];
        let bytes = pile.bytes.get() + kind.block.size();
        if !self.keeps.get() || bytes > PILE_BYTES_MAX {
            return false;
        }
        // SAFETY: the block is nobody's, at least a word long and aligned for one: every kind is.
        unsafe { block.cast::<*mut u8>().write(pile.top.get()) };
        pile.top.set(block);
        pile.bytes.set(bytes);
        true
    }

    /// Gives mimalloc back what lies on the piles.
    pub(super) fn clear(&self) {
        for pile in &self.piles {
            pile.bytes.set(0);
            let mut top = pile.top.replace(null_mut());
            while let Some(block) = NonNull::new(top) {
                // SAFETY: as in `take`; off the pile the block is nobody's, and it is mimalloc's.
                unsafe {
                    top = block.cast::<*mut u8>().read();
                    Mimalloc::free(block.as_ptr());
                }
            }
        }
    }
}
