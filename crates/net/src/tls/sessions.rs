//! Sessions that resume: a bounded cache that all threads share and that a reload keeps, and tickets under keys that
//! are made here and change with time, or come from files.

use super::notes;
use crate::clock;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, hkdf};
use rustls::server::{ProducesTickets, StoresServerSessions};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zone::{Lru, Zones};

/// What one session costs in a cache besides its key, bytes: nginx holds some 4,000 sessions in a megabyte.
const SESSION_FIXED_BYTES: usize = 200;
/// A session larger than this is not kept, bytes: client certificates make them large.
const SESSION_BYTES_MAX: usize = 4096;
/// What the cache of servers that name none holds, bytes: some 16,000 sessions.
const OF_PROCESS_BYTES: usize = 4 * 1024 * 1024;
/// How many keys for tickets are remembered: the one in use and the one before it.
const TICKET_KEYS_MAX: usize = 2;
/// What a ticket holds is padded to a multiple of this, bytes: its size tells nobody what kind of session it is.
const TICKET_STEP_BYTES: usize = 128;
/// Bytes of a key's name in front of its tickets.
const KEY_NAME_BYTES: usize = 16;

/// All caches of the process.
static CACHES: Zones<SessionCache> = Zones::new();
/// The process's own keys for tickets, by the lifetime they are for, seconds.
static TICKET_KEYS: Mutex<BTreeMap<u32, Arc<Ring>>> = Mutex::new(BTreeMap::new());

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sessions by identifier, the least recently used forgotten first (`ssl_session_cache`).
pub struct SessionCache {
    bytes_max: usize,
    sessions: Mutex<Lru<Kept>>,
}

/// One session.
#[derive(Default)]
struct Kept {
    value: Vec<u8>,
    context: [u8; 32],
    until_ms: u64,
}

impl SessionCache {
    /// The cache of that name and size, kept over reloads.
    pub fn shared(name: &[u8], bytes_max: usize) -> Arc<SessionCache> {
        let make = || SessionCache::new(bytes_max);
        CACHES.open(name, |known| known.bytes_max == bytes_max, make)
    }

    /// The cache of servers that must keep sessions and name no cache.
    pub fn of_process() -> Arc<SessionCache> {
        // No configuration can write this name.
        SessionCache::shared(b"\0", OF_PROCESS_BYTES)
    }

    /// A cache of its own.
    pub fn new(bytes_max: usize) -> SessionCache {
        SessionCache { bytes_max, sessions: Mutex::new(Lru::new(bytes_max, SESSION_FIXED_BYTES)) }
    }
}

impl fmt::Debug for SessionCache {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SessionCache({} bytes)", self.bytes_max)
    }
}

/// One server's view of a cache: sessions of servers with other certificates do not resume here.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) cache: Arc<SessionCache>,
    pub(crate) context: [u8; 32],
    pub(crate) lifetime_seconds: u32,
}

impl StoresServerSessions for Storage {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        if value.len() > SESSION_BYTES_MAX {
            return false;
        }
        let until_ms = clock::now_ms() + u64::from(self.lifetime_seconds) * 1000;
        let mut sessions = locked(&self.cache.sessions);
        sessions.remove(&key);
        while sessions.insert(&key, Kept::default()).is_err() {
            if sessions.is_empty() {
                return false;
            }
            sessions.remove_oldest();
        }
        if let Some(kept) = sessions.peek_mut(&key) {
            *kept = Kept { value, context: self.context, until_ms };
        }
        note_session(&key);
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let mut sessions = locked(&self.cache.sessions);
        let kept = sessions.touch(key)?;
        let found = kept.context == self.context && kept.until_ms > clock::now_ms();
        let value = found.then(|| kept.value.clone());
        if found {
            note_session(key);
        }
        value
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.get(key);
        locked(&self.cache.sessions).remove(key);
        value
    }

    fn can_cache(&self) -> bool {
        true
    }
}

/// Notes a session under its identifier: its key in the cache, or a digest of its ticket.
fn note_session(key: &[u8]) {
    notes::session(match key.try_into() {
        Ok(key) => key,
        Err(_) => digest_of(&[key]),
    });
}

/// A digest over parts whose lengths count.
pub(crate) fn digest_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

/// A key for tickets.
struct TicketKey {
    name: [u8; KEY_NAME_BYTES],
    key: LessSafeKey,
    made_ms: u64,
}

impl TicketKey {
    /// A key that everything follows from; the name is shown to clients.
    fn from_secret(name: [u8; KEY_NAME_BYTES], secret: &[u8]) -> Option<TicketKey> {
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, b"gapura session tickets").extract(secret);
        let info: [&[u8]; 1] = [&name];
        let key = UnboundKey::from(derived.expand(&info, &AES_256_GCM).ok()?);
        Some(TicketKey { name, key: LessSafeKey::new(key), made_ms: clock::now_ms() })
    }

    fn random() -> Option<TicketKey> {
        let mut bytes = [0; KEY_NAME_BYTES + 32];
        aws_lc_rs::rand::fill(&mut bytes).ok()?;
        let (name, secret) = bytes.split_first_chunk()?;
        TicketKey::from_secret(*name, secret)
    }
}

/// Keys for tickets: the first makes them, all open them.
#[derive(Clone)]
pub struct TicketKeys(Keys);

#[derive(Clone)]
enum Keys {
    /// Out of files.
    Given(Arc<[TicketKey]>),
    /// Made here, and made anew after a while; kept over reloads.
    Own(Arc<Ring>),
}

/// Keys that change.
struct Ring {
    keys: Mutex<Vec<Arc<TicketKey>>>,
    lifetime_seconds: u32,
}

impl TicketKeys {
    /// The process's own keys for tickets that live this long.
    pub fn own(lifetime_seconds: u32) -> TicketKeys {
        let make = || Arc::new(Ring { keys: Mutex::default(), lifetime_seconds });
        TicketKeys(Keys::Own(locked(&TICKET_KEYS).entry(lifetime_seconds).or_insert_with(make).clone()))
    }

    /// Keys out of files (`ssl_session_ticket_key`), each of 48 or 80 bytes, the first 16 the key's name. `None` where
    /// one has another size.
    pub fn given(files: &[Vec<u8>]) -> Option<TicketKeys> {
        let key = |file: &Vec<u8>| {
            let (name, secret) = file.split_first_chunk()?;
            matches!(file.len(), 48 | 80).then(|| TicketKey::from_secret(*name, secret)).flatten()
        };
        let keys: Option<Vec<TicketKey>> = files.iter().map(key).collect();
        Some(TicketKeys(Keys::Given(keys?.into())))
    }
}

impl Ring {
    /// The key in use, a new one when it is old.
    fn newest(&self) -> Option<Arc<TicketKey>> {
        let mut keys = locked(&self.keys);
        let oldest_ms = clock::now_ms().saturating_sub(u64::from(self.lifetime_seconds) * 1000);
        match keys.first() {
            Some(key) if key.made_ms >= oldest_ms => {}
            _ => {
                keys.insert(0, Arc::new(TicketKey::random()?));
                keys.truncate(TICKET_KEYS_MAX);
            }
        }
        keys.first().cloned()
    }
}

/// One server's tickets: those of servers with other certificates do not resume here.
pub(crate) struct Tickets {
    pub(crate) keys: TicketKeys,
    pub(crate) context: [u8; 32],
    pub(crate) lifetime_seconds: u32,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Tickets({} s)", self.lifetime_seconds)
    }
}

impl Tickets {
    fn seal(&self, key: &TicketKey, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let mut sealed = clock::wall().seconds.to_be_bytes().to_vec();
        sealed.extend_from_slice(&u16::try_from(plain.len()).ok()?.to_be_bytes());
        sealed.extend_from_slice(plain);
        sealed.resize(sealed.len().next_multiple_of(TICKET_STEP_BYTES), 0);
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        key.key.seal_in_place_append_tag(nonce_used, Aad::from(self.context), &mut sealed).ok()?;
        Some([&key.name[..], &nonce, &sealed].concat())
    }

    fn open(&self, key: &TicketKey, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.get(KEY_NAME_BYTES..)?.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = key.key.open_in_place(nonce, Aad::from(self.context), &mut sealed).ok()?;
        let (made, rest) = plain.split_first_chunk()?;
        let (length, padded) = rest.split_first_chunk()?;
        let value = padded.get(..usize::from(u16::from_be_bytes(*length)))?;
        let age = clock::wall().seconds.saturating_sub(i64::from_be_bytes(*made));
        (0..=i64::from(self.lifetime_seconds)).contains(&age).then(|| value.to_vec())
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.lifetime_seconds
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let ticket = match &self.keys.0 {
            Keys::Given(keys) => self.seal(keys.first()?, plain)?,
            Keys::Own(ring) => self.seal(&*ring.newest()?, plain)?,
        };
        note_session(&ticket);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let name = ticket.get(..KEY_NAME_BYTES)?;
        let value = match &self.keys.0 {
            Keys::Given(keys) => self.open(keys.iter().find(|key| key.name == name)?, ticket),
            Keys::Own(ring) => {
                let keys = locked(&ring.keys).clone();
                self.open(keys.iter().find(|key| key.name == name)?, ticket)
            }
        }?;
        note_session(ticket);
        Some(value)
    }
}
