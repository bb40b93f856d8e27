//! Has the peer of a connection that was just accepted spoken already?
//!
//! Where it has, reading at once saves the watch over the socket; where it has not, the read is made in vain. Which of both
//! is usual depends on how busy the machine is and how far away its clients are, so each thread goes by what it has seen
//! last, and tries now and then what it believes to be in vain.

use std::cell::Cell;

/// So many misses more than hits end the trying, and so many hits more keep it up the longest.
const MEMORY: i8 = 8;
/// One of so many connections is tried all the same.
const TRIED: u8 = 32;

thread_local! {
    /// Hits less misses.
    static BALANCE: Cell<i8> = const { Cell::new(0) };
    /// Connections not tried since the last that was.
    static PASSED_OVER: Cell<u8> = const { Cell::new(0) };
}

/// Is it worth trying to read from a new connection?
pub(super) fn has_spoken() -> bool {
    let passed_over = PASSED_OVER.get() + 1;
    let worth = BALANCE.get() >= 0 || passed_over >= TRIED;
    PASSED_OVER.set(if worth { 0 } else { passed_over });
    worth
}

/// What came of it.
pub(super) fn tell(had_spoken: bool) {
    let step = if had_spoken { 1 } else { -1 };
    BALANCE.set((BALANCE.get() + step).clamp(-MEMORY, MEMORY));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a hundred new connections are tried where the peers have spoken, or have not.
    fn tried(had_spoken: bool) -> usize {
        (0..100).filter(|_| has_spoken()).inspect(|_| tell(had_spoken)).count()
    }

    #[test]
    fn goes_by_what_was_usual_last() {
        assert_eq!(tried(true), 100);
        // The good memory fades, then one in 32 is tried.
        assert!((10..14).contains(&tried(false)));
        assert!((2..5).contains(&tried(false)));
        // And as soon as that one succeeds often enough, all are.
        let until_all = (0..10).position(|_| tried(true) == 100);
        assert!(until_all.is_some_and(|rounds| rounds <= 4), "{until_all:?}");
    }
}
