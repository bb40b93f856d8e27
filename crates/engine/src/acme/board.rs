//! Proofs that issuers look for while an order is under way. Every thread answers from here: requests by a step of the
//! `acme` module, handshakes in [`crate::tls`].

use net::tls::{Identity, ServerOptions, ServerSettings};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// More proofs than are under way at a time.
const PROOFS_MAX: usize = 1024;
/// Most plain text in one record of a handshake that carries none, bytes.
const RECORD_BYTES: usize = 16 * 1024;

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

/// What the page of a token says.
pub fn page(token: &[u8]) -> Option<String> {
    if BOARD.count.load(Ordering::Acquire) == 0 {
        return None;
    }
    locked(&BOARD.pages).get(std::str::from_utf8(token).ok()?).cloned()
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
        assert_eq!(page(b"token").as_deref(), Some("token.print"));
        assert_eq!(page(b"other"), None);
        assert_eq!(page(b"\xff"), None);
        drop(held);
        assert_eq!(page(b"token"), None);
        let identifier = acme::Identifier::Dns("proof.test".to_owned());
        let (certificate, key) = acme::challenge_certificate(&identifier, "token.print").expect("it is made");
        let held = show_handshake("proof.test", &certificate, &key).expect("it is shown");
        assert!(handshake("proof.test").is_some() && handshake("other.test").is_none());
        drop(held);
        assert!(handshake("proof.test").is_none());
    }
}
