//! The methods with a key: `ip_hash`, `hash` and `hash consistent`. The arithmetic is nginx's, bit for bit, so that a
//! fleet of both sends a client to the same peer.

use bstr::{BString, ByteSlice};

use crate::attempt::{Attempt, Search};
use crate::crc32::{crc32, joined, update};
use crate::group::Weights;
use crate::peer::Peer;
use crate::round_robin;

/// Points on the ring for each unit of weight.
const POINTS_PER_WEIGHT: u64 = 160;
/// More points are not put on a ring; weights beyond that are all too precise.
const RING_POINTS_MAX: u64 = 1 << 22;

/// What a method with a key came to.
pub(crate) enum Found {
    Peer(usize),
    /// There is no key, or it leads nowhere: round robin decides.
    NotAsked,
}

impl Attempt {
    /// `ip_hash`: three bytes of an IPv4 address, all of an IPv6 address.
    pub(crate) fn by_address(&mut self, now_ms: u64) -> Found {
        let Search::Address { bytes, length, mut hash } = self.search else { return Found::NotAsked };
        let group = self.group().clone();
        if group.primary_count() < 2 {
            return Found::NotAsked;
        }
        loop {
            hash = bytes[..length].iter().fold(hash, |hash, byte| (hash * 113 + u32::from(*byte)) % 6271);
            let index = by_weight(group.peers(), u64::from(hash) % group.total_weight);
            if self.is_candidate(index, now_ms) {
                self.search = Search::Address { bytes, length, hash };
                return Found::Peer(index);
            }
            if !self.missed() {
                return Found::NotAsked;
            }
        }
    }

    /// `hash`: as Cache::Memcached does it, ((crc32(REHASH KEY) >> 16) & 0x7fff) + the hash before, where REHASH is
    /// left out at first.
    pub(crate) fn by_text(&mut self, now_ms: u64) -> Found {
        let Search::Text { crc, length, mut hash, mut rehash } = self.search else { return Found::NotAsked };
        let group = self.group().clone();
        if group.primary_count() < 2 {
            return Found::NotAsked;
        }
        loop {
            let round = match rehash {
                0 => crc,
                number => joined(crc32(number.to_string().as_bytes()), crc, length),
            };
            hash = hash.wrapping_add(round >> 16 & 0x7fff);
            rehash += 1;
            self.search = Search::Text { crc, length, hash, rehash };
            let index = by_weight(group.peers(), u64::from(hash) % group.total_weight);
            if self.is_candidate(index, now_ms) {
                return Found::Peer(index);
            }
            if !self.missed() {
                return Found::NotAsked;
            }
        }
    }

    /// `hash consistent`: the server at the next point of the ring; round robin among its addresses.
    pub(crate) fn by_ring(&mut self, weights: &mut [Weights], now_ms: u64) -> Found {
        let Search::Text { crc, length, mut hash, rehash } = self.search else { return Found::NotAsked };
        let group = self.group().clone();
        let Some(ring) = group.ring.as_ref().filter(|ring| !ring.points.is_empty()) else {
            return Found::NotAsked;
        };
        loop {
            let server = ring.server(hash);
            let found = round_robin::choose(&group, weights, self.range(), now_ms, |index| {
                group.peers()[index].server == *server && self.is_candidate(index, now_ms)
            });
            self.search = Search::Text { crc, length, hash, rehash };
            if let Some(index) = found {
                return Found::Peer(index);
            }
            hash = hash.wrapping_add(1);
            if !self.missed() {
                return Found::NotAsked;
            }
        }
    }
}

/// The peer in whose share of all weights `place` falls.
pub(crate) fn by_weight(peers: &[Peer], mut place: u64) -> usize {
    for (index, peer) in peers.iter().enumerate() {
        match place.checked_sub(u64::from(peer.weight)) {
            Some(rest) => place = rest,
            None => return index,
        }
    }
    0
}

/// The ring of consistent hashing: the same points as nginx and Cache::Memcached::Fast put on theirs.
#[derive(Debug)]
pub(crate) struct Ring {
    servers: Vec<BString>,
    /// Hashes, ascending and all different, with the index of a server.
    points: Vec<(u32, u32)>,
}

impl Ring {
    pub fn new(peers: &[Peer]) -> Ring {
        let total: u64 = peers.iter().map(|peer| u64::from(peer.weight)).sum();
        let all = total.saturating_mul(POINTS_PER_WEIGHT);
        let mut ring = Ring { servers: Vec::new(), points: Vec::new() };
        for peer in peers {
            let wanted = u64::from(peer.weight) * POINTS_PER_WEIGHT;
            let count = if all <= RING_POINTS_MAX {
                wanted
            } else {
                (u128::from(wanted) * u128::from(RING_POINTS_MAX) / u128::from(all)).max(1) as u64
            };
            let known = ring.servers.iter().position(|server| *server == peer.server);
            let server = known.unwrap_or(ring.servers.len()) as u32;
            if known.is_none() {
                ring.servers.push(peer.server.clone());
            }
            let (host, port) = host_and_port(&peer.server);
            let base = update(update(update(u32::MAX, host), &[0]), port);
            let mut previous = 0u32;
            for _ in 0..count {
                previous = !update(base, &previous.to_le_bytes());
                ring.points.push((previous, server));
            }
        }
        ring.points.sort_by_key(|(hash, _)| *hash);
        ring.points.dedup_by_key(|(hash, _)| *hash);
        ring
    }

    /// The place of the first point that is not below `hash`; one beyond the last wraps around.
    pub fn find(&self, hash: u32) -> u32 {
        self.points.partition_point(|(point, _)| *point < hash) as u32
    }

    fn server(&self, place: u32) -> &BString {
        let (_, server) = self.points[place as usize % self.points.len()];
        &self.servers[server as usize]
    }
}

/// The two halves of a server's name that are hashed: `host` and `port`, or a path and nothing.
fn host_and_port(server: &[u8]) -> (&[u8], &[u8]) {
    if server.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"unix:")) {
        return (&server[5..], b"");
    }
    match server.rfind_byte(b':') {
        Some(colon) if server[colon + 1..].iter().all(u8::is_ascii_digit) => {
            (&server[..colon], &server[colon + 1..])
        }
        _ => (server, b""),
    }
}
