//! Free ports on the loopback addresses, below the range the system hands out by itself.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 10_000;
const COUNT: u16 = 22_000;

/// A TCP port that nothing listens on now and that this process hands out once.
///
/// # Panics
/// When no port is free, which no test can go on from.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static BEGIN: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    for _ in 0..COUNT {
        // Processes that run at the same time begin at different places.
        let step = u64::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + u16::try_from(BEGIN.wrapping_add(step) % u64::from(COUNT)).unwrap_or(0);
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_different() {
        let (one, other) = (free_port(), free_port());
        assert_ne!(one, other);
        assert!(TcpListener::bind(("127.0.0.1", one)).is_ok());
    }
}
