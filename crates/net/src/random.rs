//! Random numbers: fast ones for choosing, unpredictable ones for naming.

use rustix::rand::{GetRandomFlags, getrandom};
use std::cell::{Cell, RefCell};

/// How many bytes are fetched from the system at once for unpredictable numbers.
const POOL_BYTES: usize = 256;

thread_local! {
    static STATE: Cell<[u64; 4]> = const { Cell::new([0; 4]) };
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL_BYTES], used: POOL_BYTES }) };
}

struct Pool {
    bytes: [u8; POOL_BYTES],
    used: usize,
}

/// A number for choosing a peer, spreading a load, delaying a retry: fast, and not for secrets. Each thread has
/// its own sequence (xoshiro256++), started from the system's randomness.
pub fn next_u64() -> u64 {
    STATE.with(|state| {
        let mut s = state.get();
        if s == [0; 4] {
            s = seed();
        }
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        state.set(s);
        result
    })
}

/// As [`next_u64`], half of it.
pub fn next_u32() -> u32 {
    (next_u64() >> 32) as u32
}

/// A number below `bound`, which must not be 0; the bias is below 2^-32 for any bound of 32 bits.
pub fn below(bound: u32) -> u32 {
    ((u128::from(next_u64()) * u128::from(bound)) >> 64) as u32
}

/// Sixteen bytes nobody can predict, for `$request_id`.
pub fn request_id() -> [u8; 16] {
    unpredictable()
}

/// The number of a question to a name server, which others must not guess (RFC 5452 section 4.3).
pub(crate) fn question_id() -> u16 {
    u16::from_ne_bytes(unpredictable())
}

fn unpredictable<const COUNT: usize>() -> [u8; COUNT] {
    const { assert!(COUNT <= POOL_BYTES) };
    let mut id = [0; COUNT];
    POOL.with_borrow_mut(|pool| {
        if pool.used + id.len() > pool.bytes.len() {
            fill(&mut pool.bytes);
            pool.used = 0;
        }
        let end = pool.used + id.len();
        id.copy_from_slice(&pool.bytes[pool.used..end]);
        // What was given away is not kept.
        pool.bytes[pool.used..end].fill(0);
        pool.used = end;
    });
    id
}

fn seed() -> [u64; 4] {
    let mut bytes = [0; 32];
    fill(&mut bytes);
    let mut words = [0_u64; 4];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    // All zero is the one state that never leaves itself.
    words[0] |= 1;
    words
}

/// # Panics
/// Where the system has no `getrandom`, which Linux has had since 3.17.
fn fill(mut bytes: &mut [u8]) {
    while !bytes.is_empty() {
        match getrandom(&mut *bytes, GetRandomFlags::empty()) {
            Ok(count) => bytes = &mut bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => panic!("the system gives no random bytes: {errno}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_differ_and_stay_below_their_bound() {
        let numbers: HashSet<u64> = (0..1000).map(|_| next_u64()).collect();
        assert_eq!(numbers.len(), 1000);
        let elsewhere = std::thread::spawn(next_u64).join().expect("it does not panic");
        assert!(!numbers.contains(&elsewhere), "threads do not share a sequence");
        for bound in [1, 2, 3, 1000, u32::MAX] {
            assert!((0..100).all(|_| below(bound) < bound));
        }
        let counts = (0..30_000).fold([0_u32; 3], |mut counts, _| {
            counts[below(3) as usize] += 1;
            counts
        });
        // Twenty standard deviations.
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 1700), "{counts:?}");
    }

    #[test]
    fn identifiers_never_repeat() {
        let ids: HashSet<[u8; 16]> = (0..100).map(|_| request_id()).collect();
        assert_eq!(ids.len(), 100);
        assert!(ids.iter().all(|id| *id != [0; 16]));
    }
}
