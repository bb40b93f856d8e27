//! Proofs that issuers look for while an order is under way. Every thread answers from here: requests by a step of the
//! `acme` module, handshakes in [`crate::tls`]. Where gateways share a folder, a page that is not here may be another's:
//! it is looked for there.

use net::tls::{Identity, ServerOptions, ServerSettings};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// More proofs than are under way at a time.
const PROOFS_MAX: usize = 1024;
/// Most plain text in one record of a handshake that carries none, bytes.
const RECORD_BYTES: usize = 16 * 1024;

/// How many proofs of other gateways are looked for at a time; more requests for such are not held up.
const WANTED_MAX: usize = 64;
/// How long it is remembered that there is no such proof, milliseconds.
const MISSING_MS: u64 = 2000;
/// No token is longer that is looked for, bytes.
const TOKEN_BYTES_MAX: usize = 128;

/// The protocol by which issuers ask over TLS (RFC 8737 section 6.2).
pub const PROTOCOL: &[u8] = b"acme-tls/1";

/// All proofs of the process.
static BOARD: Board = Board {
    count: AtomicUsize::new(0),
    pages: Mutex::new(BTreeMap::new()),
    handshakes: Mutex::new(BTreeMap::new()),
};

struct Board {
    /// How many there are; nearly always none, which costs no lock to know.
    count: AtomicUsize,
    /// What the page of a token says.
    pages: Mutex<BTreeMap<String, String>>,
    /// What a handshake for a name shows.
    handshakes: Mutex<BTreeMap<String, ServerSettings>>,
}

/// Proofs that were asked for here and may be another gateway's, which shares a folder with this one.
static OTHERS: Others = Others {
    looked_for: AtomicUsize::new(0),
    tokens: Mutex::new(BTreeMap::new()),
    changed: Notify::const_new(),
};

struct Others {
    /// How many look for such proofs: none where no folder is shared.
    looked_for: AtomicUsize,
    tokens: Mutex<BTreeMap<String, Other>>,
    changed: Notify,
}

/// What is known of another gateway's proof.
#[derive(Clone, Copy)]
enum Other {
    /// To be looked for.
    Wanted,
    /// Being looked for.
    Sought,
    /// Not there; believed until then, monotonic milliseconds.
    Missing(u64),
}

/// What there is for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// The page says this.
    Shown(String),
    /// It is looked for where other gateways leave theirs.
    Sought,
    /// There is none.
    None,
}

/// A proof is shown as long as this is held.
pub struct Proof {
    key: String,
    is_page: bool,
}

impl Drop for Proof {
    fn drop(&mut self) {
        let removed = match self.is_page {
            true => locked(&BOARD.pages).remove(&self.key).is_some(),
            false => locked(&BOARD.handshakes).remove(&self.key).is_some(),
        };
        BOARD.count.fetch_sub(usize::from(removed), Ordering::Release);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows a page under a token; `None` where there is no place for it.
pub fn show_page(token: &str, text: String) -> Option<Proof> {
    let mut pages = locked(&BOARD.pages);
    if pages.len() >= PROOFS_MAX {
        return None;
    }
    let is_new = pages.insert(token.to_owned(), text).is_none();
    BOARD.count.fetch_add(usize::from(is_new), Ordering::Release);
    Some(Proof { key: token.to_owned(), is_page: true })
}

/// Shows a certificate in handshakes for a name.
///
/// # Errors
/// The certificate cannot be shown, or there is no place for it; in words.
pub fn show_handshake(name: &str, certificate: &str, key: &str) -> Result<Proof, String> {
    let identity = Identity::read(certificate.as_bytes(), key.as_bytes(), &[])
        .map_err(|_| "the certificate of the challenge cannot be read".to_owned())?;
    let settings = ServerSettings::new(&ServerOptions {
        identities: vec![identity],
        tls12: true,
        tls13: true,
        record_bytes_max: RECORD_BYTES,
        alpn: vec![PROTOCOL.to_vec()],
        ..ServerOptions::default()
    })?;
    let mut handshakes = locked(&BOARD.handshakes);
    if handshakes.len() >= PROOFS_MAX {
        return Err("too many challenges are under way".to_owned());
    }
    let is_new = handshakes.insert(name.to_owned(), settings).is_none();
    BOARD.count.fetch_add(usize::from(is_new), Ordering::Release);
    Ok(Proof { key: name.to_owned(), is_page: false })
}

/// What the page of a token says. Where it is sought, ask again in a moment.
pub fn page(token: &[u8]) -> Page {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let Ok(token) = std::str::from_utf8(token) else { return Page::None };
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.as_bytes().iter().all(is_plain) {
        return Page::None;
    }
    if BOARD.count.load(Ordering::Acquire) > 0
        && let Some(text) = locked(&BOARD.pages).get(token)
    {
        return Page::Shown(text.clone());
    }
    if OTHERS.looked_for.load(Ordering::Acquire) == 0 {
        return Page::None;
    }
    let now_ms = net::clock::now_ms();
    let mut tokens = locked(&OTHERS.tokens);
    match tokens.get(token) {
        Some(Other::Wanted | Other::Sought) => return Page::Sought,
        Some(Other::Missing(until_ms)) if now_ms < *until_ms => return Page::None,
        _ => {}
    }
    if tokens.len() >= WANTED_MAX {
        tokens.retain(|_, other| !matches!(other, Other::Missing(until_ms) if *until_ms <= now_ms));
    }
    if tokens.len() >= WANTED_MAX {
        return Page::None;
    }
    tokens.insert(token.to_owned(), Other::Wanted);
    OTHERS.changed.notify_one();
    Page::Sought
}

/// As long as this is held, proofs are sought that may be another gateway's.
pub(super) struct Seeker(());

impl Seeker {
    /// Seeks from now on.
    pub(super) fn new() -> Seeker {
        OTHERS.looked_for.fetch_add(1, Ordering::Release);
        Seeker(())
    }

    /// The tokens to look for; waits until there are some. Each must be answered.
    pub(super) async fn wanted(&self) -> Vec<String> {
        loop {
            let taken: Vec<String> = {
                let mut tokens = locked(&OTHERS.tokens);
                let wanted = tokens.iter_mut().filter(|(_, other)| matches!(other, Other::Wanted));
                wanted
                    .map(|(token, other)| {
                        *other = Other::Sought;
                        token.clone()
                    })
                    .collect()
            };
            if !taken.is_empty() {
                return taken;
            }
            OTHERS.changed.notified().await;
        }
    }

    /// Says what was found: a page, which is to be shown already, or nothing.
    pub(super) fn answer(&self, token: &str, is_shown: bool) {
        let mut tokens = locked(&OTHERS.tokens);
        match is_shown {
            true => _ = tokens.remove(token),
            false => {
                _ = tokens.insert(token.to_owned(), Other::Missing(net::clock::now_ms() + MISSING_MS));
            }
        }
    }
}

impl Drop for Seeker {
    fn drop(&mut self) {
        OTHERS.looked_for.fetch_sub(1, Ordering::Release);
        // What it has not answered is nobody's to answer.
        locked(&OTHERS.tokens).clear();
    }
}

/// What a handshake for a name shows.
pub fn handshake(name: &str) -> Option<ServerSettings> {
    if BOARD.count.load(Ordering::Acquire) == 0 {
        return None;
    }
    locked(&BOARD.handshakes).get(name).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_are_there_as_long_as_they_are_held() {
        let held = show_page("token", "token.print".to_owned()).expect("there is a place");
        assert_eq!(page(b"token"), Page::Shown("token.print".to_owned()));
        assert_eq!(page(b"other"), Page::None);
        assert_eq!(page(b"\xff"), Page::None);
        drop(held);
        assert_eq!(page(b"token"), Page::None);
        // Where a folder is shared, others may have it.
        let seeker = Seeker::new();
        assert_eq!(page(b"other"), Page::Sought);
        assert_eq!(page(b"../other"), Page::None);
        net::thread::run(async {
            assert_eq!(seeker.wanted().await, ["other"]);
        });
        assert_eq!(page(b"other"), Page::Sought);
        seeker.answer("other", false);
        assert_eq!(page(b"other"), Page::None);
        for number in 0..WANTED_MAX {
            page(number.to_string().as_bytes());
        }
        assert_eq!(page(b"one-too-many"), Page::None);
        drop(seeker);
        assert_eq!(page(b"0"), Page::None);
        let identifier = acme::Identifier::Dns("proof.test".to_owned());
        let (certificate, key) = acme::challenge_certificate(&identifier, "token.print").expect("it is made");
        let held = show_handshake("proof.test", &certificate, &key).expect("it is shown");
        assert!(handshake("proof.test").is_some() && handshake("other.test").is_none());
        drop(held);
        assert!(handshake("proof.test").is_none());
    }
}
