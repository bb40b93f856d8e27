//! One request on its way through a group: which peers it tried, and which it is at.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::crc32::crc32;
use crate::group::{Group, Key, Method, PeerIndex, Weights};
use crate::hash::Found;
use crate::peer::move_average;
use crate::round_robin;

/// So often the methods that find a peer by a key or by chance look for a peer before round robin does it for them.
const MISSES_MAX: u32 = 20;

/// How it went with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, with anything that does not count as a failure.
    Success,
    /// It answered, but another peer is asked: a 403 or 404 that `proxy_next_upstream` names. No failure, but its
    /// time does not count either.
    Next,
    /// It failed, as `proxy_next_upstream` has it.
    Failure,
    /// Nothing can be said: the client went away, or the request was never sent.
    NotCounted,
}

/// How long it took, in milliseconds from the beginning of the attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// To the response header; nothing where none came.
    pub header_ms: Option<u64>,
    /// To the last byte.
    pub response_ms: u64,
}

/// What became of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// Failures made it unavailable: nginx warns `upstream server temporarily disabled`.
    pub disabled: bool,
}

/// Peers that were tried: bits in a word where 64 are enough.
#[derive(Clone, Debug)]
enum Tried {
    Few(u64),
    Many(Box<[u64]>),
}

impl Tried {
    fn new(count: usize) -> Tried {
        if count <= 64 { Tried::Few(0) } else { Tried::Many(vec![0; count.div_ceil(64)].into()) }
    }

    fn words(&mut self) -> &mut [u64] {
        match self {
            Tried::Few(word) => std::slice::from_mut(word),
            Tried::Many(words) => words,
        }
    }

    fn contains(&self, index: usize) -> bool {
        let words = match self {
            Tried::Few(word) => std::slice::from_ref(word),
            Tried::Many(words) => words,
        };
        words.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    fn insert(&mut self, index: usize) {
        if let Some(word) = self.words().get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    fn clear(&mut self) {
        self.words().fill(0);
    }
}

/// One request in a group. Dropping it gives back the peer it is at, so that no path forgets to.
#[derive(Debug)]
pub struct Attempt {
    group: Arc<Group>,
    tried: Tried,
    /// Primary peers have been given up on.
    backups: bool,
    tries_left: u32,
    /// A peer the request is bound to.
    bound: Option<PeerIndex>,
    current: Option<PeerIndex>,
    /// It counts among the current peer's unfinished requests.
    inflight: bool,
    last_now_ms: u64,
    pub(crate) misses: u32,
    pub(crate) search: Search,
}

/// What the methods with a key remember between choices.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Search {
    None,
    Address { bytes: [u8; 16], length: usize, hash: u32 },
    Text { crc: u32, length: u64, hash: u32, rehash: u32 },
}

impl Search {
    fn new(group: &Group, key: Key<'_>) -> Search {
        match (group.method, key) {
            (Method::IpHash, Key::Client(address)) => {
                let (bytes, length) = match address {
                    Some(IpAddr::V4(address)) => {
                        let mut bytes = [0; 16];
                        bytes[..4].copy_from_slice(&address.octets());
                        (bytes, 3)
                    }
                    Some(IpAddr::V6(address)) => (address.octets(), 16),
                    None => ([0; 16], 3),
                };
                Search::Address { bytes, length, hash: 89 }
            }
            (Method::Hash, Key::Text(text)) if !text.is_empty() => {
                Search::Text { crc: crc32(text), length: text.len() as u64, hash: 0, rehash: 0 }
            }
            (Method::ConsistentHash, Key::Text(text)) if !text.is_empty() => {
                let crc = crc32(text);
                let point = group.ring.as_ref().map_or(0, |ring| ring.find(crc));
                Search::Text { crc, length: text.len() as u64, hash: point, rehash: 0 }
            }
            _ => Search::None,
        }
    }
}

impl Attempt {
    pub(crate) fn new(group: Arc<Group>, key: Key<'_>) -> Attempt {
        Attempt {
            tried: Tried::new(group.peers().len()),
            backups: false,
            tries_left: group.tries(),
            bound: None,
            current: None,
            inflight: false,
            last_now_ms: 0,
            misses: 0,
            search: Search::new(&group, key),
            group,
        }
    }

    /// The group.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// The peer the request is at.
    pub fn current(&self) -> Option<PeerIndex> {
        self.current
    }

    /// How many more peers the request may be passed to. nginx ends with the last answer where that is none.
    pub fn tries_left(&self) -> u32 {
        self.tries_left
    }

    /// Whether the request could be passed to another peer at this moment: one that was not tried and is available.
    pub fn has_alternative(&self, now_ms: u64) -> bool {
        let backups = self.group.range(true);
        self.tries_left > 0
            && self.range().chain(backups).any(|index| {
                let (peer, state) = self.group.peer(index);
                !self.tried.contains(index) && state.is_available(peer, now_ms, false)
            })
    }

    /// Allows no more than `tries` peers from here on (`proxy_next_upstream_tries`).
    pub fn limit_tries(&mut self, tries: u32) {
        self.tries_left = self.tries_left.min(tries);
    }

    /// Binds the request to a peer (`sticky`): it is chosen where it can be, even while it drains.
    pub fn bind(&mut self, index: PeerIndex) {
        self.bound = Some(index);
    }

    /// The last choice was spoiled by a kept connection that the peer had closed meanwhile, which is nobody's
    /// fault: it does not count as a try, and the only peer of a group may be chosen once more.
    pub fn pardon(&mut self) {
        self.tries_left += 1;
        if self.group.is_single() {
            self.tried.clear();
        }
    }

    /// Chooses a peer that was not tried yet, or nothing: nginx's `no live upstreams`. The peer counts as busy until
    /// [`Attempt::release`], the next choice or the end of the attempt.
    pub fn choose(&mut self, now_ms: u64, random: &mut dyn FnMut() -> u32) -> Option<PeerIndex> {
        self.release(Outcome::NotCounted, now_ms, Timings::default());
        self.last_now_ms = now_ms;
        let group = self.group.clone();
        let mut weights = group.lock();
        let index = match group.is_single() {
            true => self.only_one(now_ms),
            false => self.choose_by_method(&mut weights, now_ms, random),
        }?;
        let (peer, state) = group.peer(index);
        state.chosen(peer, now_ms);
        if let Method::LeastTime { inflight: true, .. } = group.method {
            state.inflight_begins(now_ms);
            self.inflight = true;
        }
        drop(weights);
        self.tried.insert(index);
        self.tries_left = self.tries_left.saturating_sub(1);
        self.current = Some(PeerIndex(index as u32));
        self.current
    }

    /// The only peer is never unavailable through failures.
    fn only_one(&self, now_ms: u64) -> Option<usize> {
        let (peer, state) = self.group.peer(0);
        let bound = self.bound.is_some();
        state.ramp(peer, now_ms);
        let refused = peer.down || (peer.drain && !bound) || state.is_unhealthy() || state.is_full(peer);
        (!refused && !self.tried.contains(0)).then_some(0)
    }

    fn choose_by_method(
        &mut self,
        weights: &mut [Weights],
        now_ms: u64,
        random: &mut dyn FnMut() -> u32,
    ) -> Option<usize> {
        if let Some(bound) = self.choose_bound(weights, now_ms) {
            return Some(bound);
        }
        let group = self.group.clone();
        if !self.backups && self.misses <= MISSES_MAX {
            let found = match group.method {
                Method::IpHash => self.by_address(now_ms),
                Method::Hash => self.by_text(now_ms),
                Method::ConsistentHash => self.by_ring(weights, now_ms),
                Method::Random => self.by_chance(now_ms, random),
                Method::RandomTwo => self.by_two_chances(now_ms, random),
                Method::RoundRobin | Method::LeastConn | Method::LeastTime { .. } => Found::NotAsked,
            };
            if let Found::Peer(index) = found {
                return Some(index);
            }
        }
        loop {
            let found = match group.method {
                Method::LeastConn => self.by_least_conn(weights, now_ms),
                Method::LeastTime { last_byte, .. } => self.by_least_time(weights, now_ms, last_byte),
                _ => round_robin::choose(&group, weights, group.range(self.backups), now_ms, |index| {
                    self.is_candidate(index, now_ms)
                }),
            };
            if found.is_some() || self.backups || group.range(true).is_empty() {
                return found;
            }
            // From here on the request stays with the backups.
            self.backups = true;
        }
    }

    /// The peer the request is bound to. In round robin that moves the weights as if it had been its turn, but never
    /// so far that it would have to wait for more than one round afterwards.
    fn choose_bound(&mut self, weights: &mut [Weights], now_ms: u64) -> Option<usize> {
        let index = self.bound?.index();
        let group = &self.group;
        let range = group.range(self.backups);
        if !range.contains(&index) || self.tried.contains(index) {
            return None;
        }
        let (peer, state) = group.peer(index);
        if !state.is_available(peer, now_ms, true) {
            return None;
        }
        if group.method == Method::RoundRobin {
            let candidates = |index| self.is_candidate(index, now_ms);
            round_robin::take(group, weights, range, now_ms, candidates, index);
        }
        Some(index)
    }

    /// Counts a fruitless look; false where that was one too many.
    pub(crate) fn missed(&mut self) -> bool {
        self.misses += 1;
        self.misses <= MISSES_MAX
    }

    /// Whether peer `index` may be chosen now.
    pub(crate) fn is_candidate(&self, index: usize, now_ms: u64) -> bool {
        let (peer, state) = self.group.peer(index);
        !self.tried.contains(index) && state.is_available(peer, now_ms, false)
    }

    pub(crate) fn range(&self) -> std::ops::Range<usize> {
        self.group.range(self.backups)
    }

    /// The header of the response came after `header_ms`. Only `least_time header inflight` wants to know before the
    /// end.
    pub fn header(&mut self, header_ms: u64, now_ms: u64) {
        let Some(index) = self.current else { return };
        let (_, state) = self.group.peer(index.index());
        let by_header = Method::LeastTime { last_byte: false, inflight: true };
        if self.group.method == by_header && self.inflight {
            move_average(&state.header_ms, header_ms);
            state.inflight_ends(header_ms, now_ms);
            self.inflight = false;
        }
    }

    /// Gives the peer back with what there is to say about it. Nothing happens where the request is at none.
    pub fn release(&mut self, outcome: Outcome, now_ms: u64, timings: Timings) -> Released {
        let mut released = Released { disabled: false };
        let Some(index) = self.current.take() else { return released };
        let (peer, state) = self.group.peer(index.index());
        let header_told = matches!(self.group.method, Method::LeastTime { last_byte: false, inflight: true });
        if std::mem::take(&mut self.inflight) {
            state.inflight_ends(timings.response_ms, now_ms);
        }
        if let (Outcome::Success, Some(header_ms)) = (outcome, timings.header_ms) {
            move_average(&state.response_ms, timings.response_ms);
            if !header_told {
                move_average(&state.header_ms, header_ms);
            }
        }
        match outcome {
            _ if self.group.is_single() => {
                if outcome == Outcome::Failure {
                    state.counters.fails.fetch_add(1, Relaxed);
                }
                state.fails.store(0, Relaxed);
            }
            Outcome::Failure => {
                released.disabled = state.failed(peer, now_ms);
                if peer.max_fails > 0
                    && let Some(weights) = self.group.lock().get_mut(index.index())
                {
                    let loss = i64::from(peer.weight / peer.max_fails);
                    weights.effective = (weights.effective - loss).max(0);
                }
            }
            Outcome::Success | Outcome::Next => state.succeeded(peer, now_ms),
            Outcome::NotCounted => {}
        }
        state.left();
        released
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.release(Outcome::NotCounted, self.last_now_ms, Timings::default());
    }
}
