//! The peers of one `upstream` and the method that chooses among them.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::attempt::Attempt;
use crate::hash::Ring;
use crate::peer::{Peer, PeerState};

/// The place of a peer in [`Group::peers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerIndex(pub u32);

impl PeerIndex {
    /// The same, for slices.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// How a group chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Method {
    /// No directive: smooth weighted round robin.
    #[default]
    RoundRobin,
    /// `least_conn`
    LeastConn,
    /// `ip_hash`
    IpHash,
    /// `hash key`
    Hash,
    /// `hash key consistent`
    ConsistentHash,
    /// `random`
    Random,
    /// `random two [least_conn]`
    RandomTwo,
    /// `least_time header|last_byte [inflight]`
    LeastTime {
        /// Count to the last byte instead of to the header.
        last_byte: bool,
        /// Count unfinished requests too.
        inflight: bool,
    },
}

impl Method {
    /// Whether `backup` and `slow_start` may stand on a `server` line: nginx refuses them with the methods that find a
    /// peer by a key or by chance (`balancing method does not support parameter "..."`).
    pub fn takes_backup(self) -> bool {
        matches!(self, Method::RoundRobin | Method::LeastConn | Method::LeastTime { .. })
    }
}

/// What a request is told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'k> {
    /// Nothing: the method asks for none.
    None,
    /// The value of the `hash` directive's key.
    Text(&'k [u8]),
    /// The client's address for `ip_hash`; nothing for one on a unix socket.
    Client(Option<IpAddr>),
}

/// The weights smooth round robin moves, in thousandths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    pub current: i64,
    /// The configured weight, less what failures took. In whole units, as nginx counts.
    pub effective: i64,
}

/// The peers of one `upstream`: primary ones first, then backups. Immutable but for their states.
///
/// All choices of a group go through one lock, held for one pass over its peers: smooth round robin is exact only
/// where all weights move together, and with one process for all threads that is cheaper than to repair races. What
/// single requests report afterwards are atomics, except failures, which lower a weight.
#[derive(Debug)]
pub struct Group {
    peers: Box<[Peer]>,
    states: Box<[Arc<PeerState>]>,
    primary_count: usize,
    pub(crate) method: Method,
    weights: Mutex<Box<[Weights]>>,
    pub(crate) ring: Option<Ring>,
    /// The sum of the weights of all primary peers.
    pub(crate) total_weight: u64,
}

impl Group {
    /// A group that starts from nothing.
    pub fn new(peers: Vec<Peer>, method: Method) -> Arc<Group> {
        Group::carry(peers, method, None)
    }

    /// A group in which every address that `old` has too goes on where it stands there: after a reload, or after a
    /// name resolved to something else.
    pub fn carry_from(peers: Vec<Peer>, method: Method, old: &Group) -> Arc<Group> {
        Group::carry(peers, method, Some(old))
    }

    fn carry(mut peers: Vec<Peer>, method: Method, old: Option<&Group>) -> Arc<Group> {
        peers.sort_by_key(|peer| peer.backup);
        let primary_count = peers.iter().filter(|peer| !peer.backup).count();
        let old_weights = old.map(|old| old.lock().clone());
        let mut taken = vec![false; old.map_or(0, |old| old.peers.len())];
        let mut states = Vec::with_capacity(peers.len());
        let mut weights = Vec::with_capacity(peers.len());
        for peer in &mut peers {
            peer.weight = peer.weight.max(1);
            let fresh = Weights { current: 0, effective: i64::from(peer.weight) };
            let known = old.and_then(|old| {
                let index = old.position(peer, &taken)?;
                taken[index] = true;
                let same = old.peers[index].weight == peer.weight && old.peers[index].backup == peer.backup;
                let weights = old_weights.as_ref().and_then(|weights| weights.get(index).copied());
                Some((old.states[index].clone(), weights.filter(|_| same).unwrap_or(fresh)))
            });
            let (state, weight) = known.unwrap_or_else(|| (Arc::new(PeerState::default()), fresh));
            states.push(state);
            weights.push(weight);
        }
        let primaries = &peers[..primary_count];
        Arc::new(Group {
            primary_count,
            method,
            weights: Mutex::new(weights.into()),
            ring: (method == Method::ConsistentHash).then(|| Ring::new(primaries)),
            total_weight: primaries.iter().map(|peer| u64::from(peer.weight)).sum(),
            peers: peers.into(),
            states: states.into(),
        })
    }

    /// Where `peer`'s address is, the same `server` line's first.
    fn position(&self, peer: &Peer, taken: &[bool]) -> Option<usize> {
        let free = |index: &usize| !taken[*index] && self.peers[*index].address == peer.address;
        let mut candidates = (0..self.peers.len()).filter(free);
        candidates
            .clone()
            .find(|index| self.peers[*index].server == peer.server)
            .or_else(|| candidates.next())
    }

    /// The peers, primary ones first.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// What happened to them, in the same order.
    pub fn states(&self) -> &[Arc<PeerState>] {
        &self.states
    }

    /// The peers without the backups.
    pub fn primary_count(&self) -> usize {
        self.primary_count
    }

    /// How many peers a request may be passed to: those that are not `down` or `drain`.
    pub fn tries(&self) -> u32 {
        self.peers.iter().filter(|peer| !peer.down && !peer.drain).count() as u32
    }

    /// Whether there is one peer and no more, whose failures count for nothing.
    pub fn is_single(&self) -> bool {
        self.peers.len() == 1 && self.primary_count == 1
    }

    /// Begins a request. `key` is what the method asks for.
    pub fn begin(self: &Arc<Self>, key: Key<'_>) -> Attempt {
        Attempt::new(self.clone(), key)
    }

    /// The verdict of a health check.
    pub fn set_unhealthy(&self, index: PeerIndex, unhealthy: bool, now_ms: u64) {
        if let (Some(peer), Some(state)) = (self.peers.get(index.index()), self.states.get(index.index())) {
            state.set_unhealthy(peer, unhealthy, now_ms);
        }
    }

    /// Requests that are at all its peers now.
    pub fn active(&self) -> u64 {
        self.states.iter().map(|state| u64::from(state.active.load(Relaxed))).sum()
    }

    pub(crate) fn range(&self, backups: bool) -> Range<usize> {
        if backups { self.primary_count..self.peers.len() } else { 0..self.primary_count }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Box<[Weights]>> {
        // Nothing that runs under the lock can panic halfway through weights that belong together.
        self.weights.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn peer(&self, index: usize) -> (&Peer, &PeerState) {
        (&self.peers[index], &self.states[index])
    }
}
