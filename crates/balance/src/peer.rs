//! One address of a group: what the configuration says of it, and what happened to it so far.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use bstr::BString;

/// What the configuration says of one address (ngx_http_upstream_module, `server`). A name that resolves to several
/// addresses is as many peers with the same `server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address, as logs and `$upstream_addr` show it: `10.0.0.1:80`, `[::1]:80`, `unix:/run/app`.
    pub address: BString,
    /// The name on the `server` line, which consistent hashing puts on its ring.
    pub server: BString,
    /// Share of the requests; at least 1.
    pub weight: u32,
    /// So many failures within `fail_timeout_ms` make the peer unavailable; 0 for never.
    pub max_fails: u32,
    /// The time failures are counted in, and the time an unavailable peer is left alone.
    pub fail_timeout_ms: u64,
    /// Requests at the same time; 0 for no limit.
    pub max_conns: u32,
    /// The time a recovered peer takes to come back to its full weight; 0 for none.
    pub slow_start_ms: u64,
    /// Never chosen.
    pub down: bool,
    /// Chosen only for requests that are bound to it.
    pub drain: bool,
    /// Chosen only where no primary peer can be.
    pub backup: bool,
}

impl Peer {
    /// A peer with the defaults of a `server` line, of the same name and address.
    pub fn new(address: impl Into<BString>) -> Peer {
        let address = address.into();
        Peer {
            server: address.clone(),
            address,
            weight: 1,
            max_fails: 1,
            fail_timeout_ms: 10_000,
            max_conns: 0,
            slow_start_ms: 0,
            down: false,
            drain: false,
            backup: false,
        }
    }
}

/// What happened to one address so far. Shared by all groups that name the address, so that a reload forgets neither
/// failures nor open connections. Every field stands for itself, so atomics do, and statistics read them any time;
/// what must be seen together (the weights of a group) is under the group's lock.
#[derive(Debug, Default)]
pub struct PeerState {
    /// Requests that are at the peer now.
    pub(crate) active: AtomicU32,
    /// Failures since the last success that counted.
    pub(crate) fails: AtomicU32,
    /// When the last failure happened.
    pub(crate) accessed_ms: AtomicU64,
    /// When the peer was last given a chance, or failed.
    pub(crate) checked_ms: AtomicU64,
    /// When slow start began; 0 where none is under way.
    pub(crate) slow_start_from_ms: AtomicU64,
    /// A health check found it ill.
    pub(crate) unhealthy: AtomicBool,
    /// Moving average of the time to the response header.
    pub(crate) header_ms: AtomicU64,
    /// Moving average of the time to the last byte.
    pub(crate) response_ms: AtomicU64,
    /// Moving average of the time unfinished requests have taken.
    pub(crate) inflight_ms: AtomicU64,
    /// Time the unfinished requests had spent, all together, when their number last changed.
    pub(crate) inflight_spent_ms: AtomicU64,
    /// When the number of unfinished requests last changed.
    pub(crate) inflight_changed_ms: AtomicU64,
    /// Unfinished requests, where they count.
    pub(crate) inflight: AtomicU32,
    /// For statistics.
    pub counters: Counters,
}

/// Running totals of one peer.
#[derive(Debug, Default)]
pub struct Counters {
    /// Times it was chosen.
    pub requests: AtomicU64,
    /// Responses by class: index 0 is 1xx, 4 is 5xx.
    pub responses: [AtomicU64; 5],
    /// Attempts that failed.
    pub fails: AtomicU64,
    /// Times it became unavailable through failures.
    pub unavailable: AtomicU64,
    /// Bytes sent to it.
    pub sent_bytes: AtomicU64,
    /// Bytes received from it.
    pub received_bytes: AtomicU64,
}

impl Counters {
    /// Counts a response with status `status`; anything outside 100..=599 is not counted.
    pub fn response(&self, status: u16) {
        let class = usize::from(status / 100).wrapping_sub(1);
        if let Some(counter) = self.responses.get(class) {
            counter.fetch_add(1, Relaxed);
        }
    }
}

/// A weight without slow start, in thousandths.
pub(crate) const FULL_RAMP: i64 = 1000;

impl PeerState {
    /// Requests that are at the peer now.
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Failures since the last success that counted.
    pub fn fails(&self) -> u32 {
        self.fails.load(Relaxed)
    }

    /// Average time to the response header in milliseconds; 0 where there was none.
    pub fn header_ms(&self) -> u64 {
        self.header_ms.load(Relaxed)
    }

    /// Average time to the last byte in milliseconds; 0 where there was none.
    pub fn response_ms(&self) -> u64 {
        self.response_ms.load(Relaxed)
    }

    /// Whether a health check found it ill.
    pub fn is_unhealthy(&self) -> bool {
        self.unhealthy.load(Relaxed)
    }

    /// Whether failures keep it from being chosen at `now_ms`.
    pub fn is_failed(&self, peer: &Peer, now_ms: u64) -> bool {
        peer.max_fails > 0
            && self.fails() >= peer.max_fails
            && now_ms.saturating_sub(self.checked_ms.load(Relaxed)) <= peer.fail_timeout_ms
    }

    /// Whether it may be chosen at `now_ms`, by a request that is bound to it or by any.
    pub(crate) fn is_available(&self, peer: &Peer, now_ms: u64, bound: bool) -> bool {
        !peer.down
            && (bound || !peer.drain)
            && !self.is_unhealthy()
            && !self.is_failed(peer, now_ms)
            && !self.is_full(peer)
    }

    pub(crate) fn is_full(&self, peer: &Peer) -> bool {
        peer.max_conns > 0 && self.active() >= peer.max_conns
    }

    /// The part of its weight a peer has in slow start, in thousandths: never nothing, or it would stay unknown.
    pub(crate) fn ramp(&self, peer: &Peer, now_ms: u64) -> i64 {
        let from_ms = self.slow_start_from_ms.load(Relaxed);
        if from_ms == 0 || peer.slow_start_ms == 0 {
            return FULL_RAMP;
        }
        let elapsed_ms = now_ms.saturating_sub(from_ms);
        if elapsed_ms >= peer.slow_start_ms {
            self.slow_start_from_ms.store(0, Relaxed);
            return FULL_RAMP;
        }
        let part = u128::from(elapsed_ms) * FULL_RAMP as u128 / u128::from(peer.slow_start_ms);
        (part as i64).max(1)
    }

    pub(crate) fn begin_slow_start(&self, peer: &Peer, now_ms: u64) {
        if peer.slow_start_ms > 0 {
            self.slow_start_from_ms.store(now_ms.max(1), Relaxed);
        }
    }

    /// The verdict of a health check. A peer that recovers begins slowly.
    pub fn set_unhealthy(&self, peer: &Peer, unhealthy: bool, now_ms: u64) {
        if self.unhealthy.swap(unhealthy, Relaxed) && !unhealthy {
            self.begin_slow_start(peer, now_ms);
        }
    }

    /// Takes note of being chosen. Once in `fail_timeout_ms` that is a chance to show that it is well again.
    pub(crate) fn chosen(&self, peer: &Peer, now_ms: u64) {
        if now_ms.saturating_sub(self.checked_ms.load(Relaxed)) > peer.fail_timeout_ms {
            self.checked_ms.store(now_ms, Relaxed);
        }
        self.active.fetch_add(1, Relaxed);
        self.counters.requests.fetch_add(1, Relaxed);
    }

    pub(crate) fn left(&self) {
        // Never below zero, whatever a caller does twice.
        _ = self.active.fetch_update(Relaxed, Relaxed, |active| active.checked_sub(1));
    }

    /// Takes note of a failure; true where it made the peer unavailable.
    pub(crate) fn failed(&self, peer: &Peer, now_ms: u64) -> bool {
        let fails = self.fails.fetch_add(1, Relaxed) + 1;
        self.accessed_ms.store(now_ms, Relaxed);
        self.checked_ms.store(now_ms, Relaxed);
        self.counters.fails.fetch_add(1, Relaxed);
        let disabled = peer.max_fails > 0 && fails >= peer.max_fails;
        if disabled {
            self.counters.unavailable.fetch_add(1, Relaxed);
        }
        disabled
    }

    /// Takes note of a success, which counts where the peer had been given a chance since its last failure.
    pub(crate) fn succeeded(&self, peer: &Peer, now_ms: u64) {
        if self.accessed_ms.load(Relaxed) >= self.checked_ms.load(Relaxed) {
            return;
        }
        let fails = self.fails.swap(0, Relaxed);
        if peer.max_fails > 0 && fails >= peer.max_fails {
            self.begin_slow_start(peer, now_ms);
        }
    }
}

/// Moves an average a twentieth of the way to `value_ms`; the first value is the average.
pub(crate) fn move_average(average_ms: &AtomicU64, value_ms: u64) {
    let old = average_ms.load(Relaxed);
    let new = if old == 0 { value_ms } else { (0.5 + value_ms as f64 * 0.05 + old as f64 * 0.95) as u64 };
    average_ms.store(new, Relaxed);
}
