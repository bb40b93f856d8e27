//! Leaky buckets by key: `limit_req` (nginx's manual, ngx_http_limit_req_module).
//!
//! A bucket holds the excess over the rate, in thousandths of a request; it leaks at the rate. One request may be
//! held by several zones at a time: until the last of them has been asked, an earlier one only notes that it is held,
//! so that a request which is refused in the end costs nowhere.

use crate::Lru;

/// What nginx's node of the tree takes without its key, bytes.
const BUCKET_BYTES: usize = 80;
/// A bucket that nobody asked for this long may go once it has run dry.
const IDLE_MS: u64 = 60_000;

/// The buckets of one zone.
#[derive(Debug)]
pub struct LeakyBuckets {
    buckets: Lru<Bucket>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bucket {
    excess: u64,
    last_ms: u64,
    /// How many requests under way hold it.
    held: u32,
}

/// What a zone says to a request. The excess is in thousandths of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Counted.
    Passed(u64),
    /// The excess would exceed the burst.
    Refused(u64),
    /// Held: to be settled or released.
    Held,
    /// There is no room for another bucket.
    Full,
}

impl LeakyBuckets {
    /// Buckets of at most that many bytes.
    pub fn new(bytes_max: usize) -> LeakyBuckets {
        LeakyBuckets { buckets: Lru::new(bytes_max, BUCKET_BYTES) }
    }

    /// Asks for a request. The rate is in thousandths of a request a second, the burst in thousandths. The last zone
    /// of a request counts it at once, the others hold it.
    pub fn ask(&mut self, key: &[u8], now_ms: u64, rate: u64, burst: u64, last: bool) -> Asked {
        if let Some(bucket) = self.buckets.touch(key) {
            let excess = bucket.excess_with_one_more(now_ms, rate);
            if excess > burst {
                return Asked::Refused(excess);
            }
            if last {
                bucket.count(excess, now_ms);
                return Asked::Passed(excess);
            }
            bucket.held += 1;
            return Asked::Held;
        }
        self.expire(now_ms, rate, false);
        let bucket = Bucket { excess: 0, last_ms: if last { now_ms } else { 0 }, held: u32::from(!last) };
        if self.buckets.insert(key, bucket).is_err() {
            self.expire(now_ms, rate, true);
            if self.buckets.insert(key, bucket).is_err() {
                return Asked::Full;
            }
        }
        if last { Asked::Passed(0) } else { Asked::Held }
    }

    /// Counts a held request; its excess.
    pub fn settle(&mut self, key: &[u8], now_ms: u64, rate: u64) -> u64 {
        let Some(bucket) = self.buckets.peek_mut(key) else { return 0 };
        let excess = bucket.excess_with_one_more(now_ms, rate);
        bucket.count(excess, now_ms);
        bucket.held = bucket.held.saturating_sub(1);
        excess
    }

    /// Lets go of a held request that was refused elsewhere.
    pub fn release(&mut self, key: &[u8]) {
        if let Some(bucket) = self.buckets.peek_mut(key) {
            bucket.held = bucket.held.saturating_sub(1);
        }
    }

    /// Removes one or two buckets that ran dry long ago; before them the oldest whatever its state, by force.
    fn expire(&mut self, now_ms: u64, rate: u64, by_force: bool) {
        for turn in usize::from(!by_force)..3 {
            let Some(oldest) = self.buckets.oldest() else { return };
            // Asking makes a bucket the newest, so that those behind one that is held are younger.
            if oldest.held > 0 {
                return;
            }
            let idle_ms = now_ms.abs_diff(oldest.last_ms);
            if turn > 0 && (idle_ms < IDLE_MS || oldest.excess > leaked(rate, idle_ms)) {
                return;
            }
            self.buckets.remove_oldest();
        }
    }
}

impl Bucket {
    fn excess_with_one_more(&self, now_ms: u64, rate: u64) -> u64 {
        let leaked = leaked(rate, now_ms.saturating_sub(self.last_ms));
        (self.excess + 1000).saturating_sub(leaked)
    }

    fn count(&mut self, excess: u64, now_ms: u64) {
        self.excess = excess;
        self.last_ms = self.last_ms.max(now_ms);
    }
}

fn leaked(rate: u64, milliseconds: u64) -> u64 {
    rate.saturating_mul(milliseconds) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use Asked::*;

    #[test]
    fn one_request_a_second_with_a_burst_of_two() {
        let mut zone = LeakyBuckets::new(1 << 20);
        for (now_ms, expected) in [
            (1000, Passed(0)),
            (1000, Passed(1000)),
            (1000, Passed(2000)),
            (1000, Refused(3000)),
            (1500, Refused(2500)),
            (2000, Passed(2000)),
            (9000, Passed(0)),
            (9001, Passed(999)),
        ] {
            assert_eq!(zone.ask(b"key", now_ms, 1000, 2000, true), expected, "{now_ms}");
        }
        assert_eq!(zone.ask(b"other", 9001, 1000, 2000, true), Passed(0));
    }

    #[test]
    fn a_held_request_counts_once_settled_and_not_when_released() {
        let mut zone = LeakyBuckets::new(1 << 20);
        assert_eq!(zone.ask(b"key", 1_000_000, 1000, 0, false), Held);
        assert_eq!(zone.settle(b"key", 1_000_000, 1000), 0);
        assert_eq!(zone.ask(b"key", 1_000_000, 1000, 0, false), Refused(1000));
        assert_eq!(zone.ask(b"key", 1_001_000, 1000, 0, false), Held);
        zone.release(b"key");
        assert_eq!(zone.ask(b"key", 1_001_000, 1000, 0, true), Passed(0));
    }

    #[test]
    fn a_full_zone_forgets_the_oldest_unless_it_is_held() {
        // Two buckets of 128 bytes.
        let mut zone = LeakyBuckets::new(256);
        assert_eq!(zone.ask(b"a", 1000, 1000, 0, true), Passed(0));
        assert_eq!(zone.ask(b"b", 1000, 1000, 0, true), Passed(0));
        assert_eq!(zone.ask(b"c", 1000, 1000, 0, false), Held);
        assert_eq!(zone.ask(b"b", 1000, 1000, 0, true), Refused(1000));
        assert_eq!(zone.ask(b"d", 1000, 1000, 0, true), Full);
        zone.release(b"c");
        assert_eq!(zone.ask(b"d", 1000, 1000, 0, true), Passed(0));
    }
}
