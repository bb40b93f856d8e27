//! Idle connections to upstreams, kept for the next request. One pool a thread; nothing is shared.

use super::http2::Session;
use crate::thread::Place;
use net::address::Address;
use net::stream::Stream;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// How the connections of one upstream are kept (nginx's `ngx_http_upstream_keepalive_module`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How many idle connections are kept; 0 keeps none.
    pub connections_max: usize,
    /// How many requests one connection serves.
    pub requests_max: u64,
    /// How long one stays idle, milliseconds.
    pub timeout_ms: u64,
    /// How long one may be used, milliseconds.
    pub time_ms: u64,
    /// Connections are not shared between locations.
    pub local: bool,
}

impl Default for Keepalive {
    /// nginx 1.29.7 and later: `keepalive 32 local`.
    fn default() -> Self {
        Keepalive {
            connections_max: 32,
            requests_max: 1000,
            timeout_ms: 60_000,
            time_ms: 3_600_000,
            local: true,
        }
    }
}

/// Whose connections may be used: the same peer, and for `local` ones the same location. Names are told apart by
/// their hashes; the peer's address is compared besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    upstream: u64,
    location: u64,
}

impl Owner {
    /// The owner for an upstream and, where connections are not shared, a location.
    pub fn of(upstream: &[u8], location: Option<&[u8]>) -> Owner {
        Owner { upstream: fingerprint(upstream), location: location.map_or(0, fingerprint) }
    }

    /// Connections that speak HTTP/2 serve nobody who speaks HTTP/1.
    pub fn over_http2(self) -> Owner {
        Owner { location: self.location ^ fingerprint(b"h2"), ..self }
    }

    /// A connection whose peer was judged by these settings, under this name, serves nobody who judges otherwise.
    pub fn through_tls(self, number: u64, name: &[u8]) -> Owner {
        let settings = fingerprint(&number.to_le_bytes());
        Owner { location: self.location ^ settings ^ fingerprint(name).rotate_left(17), ..self }
    }
}

/// FNV-1a. Names come from the configuration, so that nobody can choose them to collide.
fn fingerprint(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Hash for Owner {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.upstream.rotate_left(32) ^ self.location);
    }
}

/// Takes the one word of an [`Owner`] as it is: it is a hash already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= fingerprint(bytes);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 ^= word;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A connection with its past.
pub struct Connection {
    /// The connection.
    pub stream: Stream,
    /// What HTTP/2 knows of it, where that is spoken.
    pub http2: Option<Box<Session>>,
    /// Its place among the thread's connections.
    pub place: Place,
    /// Requests it has served.
    pub requests: u64,
    /// When it was made, monotonic milliseconds.
    pub made_ms: u64,
}

impl Connection {
    /// May it serve another request? The peer may have closed it, or sent something nobody asked for.
    fn is_fit(&mut self) -> bool {
        match &mut self.http2 {
            Some(session) => session.is_fit(&mut self.stream),
            None => self.stream.seems_idle_and_open(),
        }
    }
}

struct Idle {
    address: Address,
    connection: Box<Connection>,
    since_ms: u64,
}

/// The idle connections of a thread, of each owner the one unused for longest first.
#[derive(Default)]
pub struct Pools {
    idle: RefCell<HashMap<Owner, VecDeque<Idle>, BuildHasherDefault<AsItIs>>>,
}

impl Pools {
    /// The connection to this peer that was used last, if it is still good.
    pub fn take(&self, owner: &Owner, address: &Address, settings: &Keepalive) -> Option<Box<Connection>> {
        let now_ms = net::clock::now_ms();
        let mut pools = self.idle.borrow_mut();
        let pool = pools.get_mut(owner)?;
        let is_old = |idle: &Idle| now_ms.saturating_sub(idle.since_ms) > settings.timeout_ms;
        while pool.front().is_some_and(is_old) {
            pool.pop_front();
        }
        while let Some(at) = pool.iter().rposition(|idle| idle.address == *address) {
            let mut idle = pool.remove(at)?;
            if idle.connection.is_fit() {
                return Some(idle.connection);
            }
        }
        None
    }

    /// Keeps a connection for later, if it may serve again; the one unused for longest makes room.
    pub fn put(
        &self,
        owner: Owner,
        address: &Address,
        mut connection: Box<Connection>,
        settings: &Keepalive,
    ) {
        let now_ms = net::clock::now_ms();
        let worn = connection.requests >= settings.requests_max
            || now_ms.saturating_sub(connection.made_ms) >= settings.time_ms;
        if settings.connections_max == 0 || worn || !connection.is_fit() {
            return;
        }
        let mut pools = self.idle.borrow_mut();
        let pool = pools.entry(owner).or_default();
        if pool.len() >= settings.connections_max {
            pool.pop_front();
        }
        pool.push_back(Idle { address: address.clone(), connection, since_ms: now_ms });
    }

    /// Closes what has been idle for too long; called now and then.
    pub fn expire(&self, idle_ms_max: u64) {
        let now_ms = net::clock::now_ms();
        self.idle.borrow_mut().retain(|_, pool| {
            pool.retain(|idle| now_ms.saturating_sub(idle.since_ms) <= idle_ms_max);
            !pool.is_empty()
        });
    }
}
