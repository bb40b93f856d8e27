//! The methods that ask for the least of something: active requests, or expected time. Ties are round robin's.

use std::sync::atomic::Ordering::Relaxed;

use crate::attempt::Attempt;
use crate::group::Weights;
use crate::peer::{Peer, PeerState, move_average};
use crate::round_robin::gain;

/// Response times above this are all equally bad, so that the number of requests decides.
const RESPONSE_MS_MAX: u64 = 5000;
/// Response times are told apart in steps of this.
const RESPONSE_STEP_MS: u64 = 20;

impl Attempt {
    /// `least_conn`: the least active requests for its weight.
    pub(crate) fn by_least_conn(&self, weights: &mut [Weights], now_ms: u64) -> Option<usize> {
        self.by_least(weights, now_ms, |_, state| u64::from(state.active()))
    }

    /// `least_time`: the least expected time to be done with all active requests, for its weight.
    pub(crate) fn by_least_time(
        &self,
        weights: &mut [Weights],
        now_ms: u64,
        last_byte: bool,
    ) -> Option<usize> {
        for index in self.range().filter(|index| self.is_candidate(*index, now_ms)) {
            self.group().states()[index].inflight_seen(now_ms);
        }
        self.by_least(weights, now_ms, |peer, state| state.expected_ms(peer, now_ms, last_byte))
    }

    fn by_least(
        &self,
        weights: &mut [Weights],
        now_ms: u64,
        cost: impl Fn(&Peer, &PeerState) -> u64,
    ) -> Option<usize> {
        let group = self.group();
        let candidate = |index: &usize| self.is_candidate(*index, now_ms);
        // Fractions are compared crosswise: cost / weight.
        let fraction = |index: usize| {
            let (peer, state) = group.peer(index);
            let weight = i64::from(peer.weight) * state.ramp(peer, now_ms);
            (u128::from(cost(peer, state)), weight.unsigned_abs().max(1))
        };
        let compare = |left: (u128, u64), right: (u128, u64)| {
            (left.0 * u128::from(right.1)).cmp(&(right.0 * u128::from(left.1)))
        };
        let mut best: Option<(usize, (u128, u64))> = None;
        let mut tie = false;
        for index in self.range().filter(candidate) {
            let this = fraction(index);
            match best.map(|(_, least)| compare(this, least)) {
                None | Some(std::cmp::Ordering::Less) => {
                    best = Some((index, this));
                    tie = false;
                }
                Some(std::cmp::Ordering::Equal) => tie = true,
                Some(std::cmp::Ordering::Greater) => {}
            }
        }
        let (first, least) = best?;
        if !tie {
            return Some(first);
        }
        let (best, total) = gain(group, weights, first..self.range().end, now_ms, |index| {
            candidate(&index) && compare(fraction(index), least).is_eq()
        });
        let best = best?;
        weights[best].current -= total;
        Some(best)
    }
}

impl PeerState {
    /// Time to be done with the active requests and one more.
    fn expected_ms(&self, peer: &Peer, now_ms: u64, last_byte: bool) -> u64 {
        let mut time_ms = if last_byte { self.response_ms() } else { self.header_ms() };
        let idle_ms = now_ms.saturating_sub(self.checked_ms.load(Relaxed));
        if idle_ms > peer.fail_timeout_ms {
            // Once in a while a slow peer gets a chance to show that it is faster now.
            let halvings = (idle_ms / 1000) / (peer.fail_timeout_ms / 1000 + 1);
            time_ms = time_ms.checked_shr(halvings.min(64) as u32).unwrap_or(0);
        }
        if self.inflight.load(Relaxed) > 0 {
            // Unfinished requests that take longer than finished ones did are a bad sign.
            time_ms = time_ms.max(self.inflight_ms.load(Relaxed));
        }
        let time_ms = if time_ms > RESPONSE_MS_MAX {
            RESPONSE_MS_MAX
        } else {
            time_ms + RESPONSE_STEP_MS - time_ms % RESPONSE_STEP_MS
        };
        time_ms * (1 + u64::from(self.active()))
    }

    /// Brings the average of unfinished requests up to date.
    fn inflight_seen(&self, now_ms: u64) {
        let inflight = u64::from(self.inflight.load(Relaxed));
        if let Some(mean_ms) = self.inflight_spent_ms.load(Relaxed).checked_div(inflight) {
            let since_ms = now_ms.saturating_sub(self.inflight_changed_ms.load(Relaxed));
            move_average(&self.inflight_ms, mean_ms + since_ms);
        }
    }

    /// One more unfinished request.
    pub(crate) fn inflight_begins(&self, now_ms: u64) {
        let inflight = u64::from(self.inflight.load(Relaxed));
        if inflight > 0 {
            let since_ms = now_ms.saturating_sub(self.inflight_changed_ms.load(Relaxed));
            self.inflight_spent_ms.fetch_add(since_ms * inflight, Relaxed);
        }
        self.inflight_changed_ms.store(now_ms, Relaxed);
        self.inflight.fetch_add(1, Relaxed);
    }

    /// One less, which had taken `spent_ms`.
    pub(crate) fn inflight_ends(&self, spent_ms: u64, now_ms: u64) {
        let inflight = u64::from(self.inflight.load(Relaxed));
        if inflight <= 1 {
            self.inflight_spent_ms.store(0, Relaxed);
        } else {
            let since_ms = now_ms.saturating_sub(self.inflight_changed_ms.load(Relaxed));
            let spent = self.inflight_spent_ms.load(Relaxed) + since_ms * inflight;
            self.inflight_spent_ms.store(spent.saturating_sub(spent_ms), Relaxed);
            self.inflight_changed_ms.store(now_ms, Relaxed);
        }
        _ = self.inflight.fetch_update(Relaxed, Relaxed, |inflight| inflight.checked_sub(1));
    }
}
