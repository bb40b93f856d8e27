//! Certificates and keys that are read while connections come, because variables name them, and the cache that spares
//! reading them each time (`ssl_certificate_cache`).

use super::identity::{Identity, chain, explain, load_key, open_failed};
use super::{key, pem};
use crate::clock;
use crate::errno::ErrnoMessage;
use crate::file::{self, FileInfo, Symlinks};
use rustls::pki_types::CertificateDer;
use rustls::sign::SigningKey;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A certificate or key is not larger, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Certificates and keys that were read, the least recently used forgotten first.
pub struct IdentityCache {
    entries_max: usize,
    inactive_ms: u64,
    valid_ms: u64,
    entries: Mutex<HashMap<(Kind, Vec<u8>), Entry>>,
}

/// What something was read as.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Chain,
    Key,
}

#[derive(Clone)]
enum Object {
    Chain(Arc<Vec<CertificateDer<'static>>>),
    Key(Arc<dyn SigningKey>),
}

struct Entry {
    object: Object,
    read_ms: u64,
    used_ms: u64,
    /// Tells a change of the file: when it was written, and which file it was.
    mark: Option<(i64, u64)>,
}

impl fmt::Debug for IdentityCache {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "IdentityCache({} entries)", self.entries_max)
    }
}

/// What was read, and whether it may be kept: encrypted keys are not.
type Read = Result<(Object, bool), String>;

impl IdentityCache {
    /// A cache of so many certificates and keys; one that is not used for `inactive_ms` is dropped, one older than
    /// `valid_ms` is read again if its file has changed.
    pub fn new(entries_max: usize, inactive_ms: u64, valid_ms: u64) -> IdentityCache {
        IdentityCache { entries_max, inactive_ms, valid_ms, entries: Mutex::default() }
    }

    /// The object of that name, read where it is not known or, with `anew`, in any case.
    fn fetch(
        &self,
        kind: Kind,
        name: &[u8],
        anew: bool,
        read: impl FnOnce() -> Read,
    ) -> Result<Object, String> {
        let now_ms = clock::now_ms();
        let id = (kind, name.to_vec());
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(&id) {
            entry.used_ms = now_ms;
            let young = now_ms.saturating_sub(entry.read_ms) <= self.valid_ms;
            if !anew && (young || entry.mark.is_some() && entry.mark == mark_of(name)) {
                if !young {
                    entry.read_ms = now_ms;
                }
                return Ok(entry.object.clone());
            }
        }
        // What cannot be had, or not be kept, is not known from here on.
        entries.remove(&id);
        let (object, may_be_kept) = read()?;
        if may_be_kept {
            entries.retain(|_, entry| now_ms.saturating_sub(entry.used_ms) <= self.inactive_ms);
            while entries.len() >= self.entries_max.max(1) {
                let oldest = entries.iter().min_by_key(|(_, entry)| entry.used_ms).map(|(id, _)| id.clone());
                oldest.and_then(|id| entries.remove(&id));
            }
            let entry =
                Entry { object: object.clone(), read_ms: now_ms, used_ms: now_ms, mark: mark_of(name) };
            entries.insert(id, entry);
        }
        Ok(object)
    }
}

fn mark_of(name: &[u8]) -> Option<(i64, u64)> {
    let FileInfo { mtime, unique, .. } = file::file_info(path_of(name), Symlinks::Follow).ok()?;
    Some((mtime, unique))
}

/// The path behind `store:file:`, the one kind of store there is here, or the name itself.
fn path_of(name: &[u8]) -> &[u8] {
    name.strip_prefix(b"store:file:").unwrap_or(name)
}

impl Identity {
    /// Reads certificate and key by their names: full paths, or `data:` with the text behind.
    ///
    /// # Errors
    /// As nginx words them.
    pub fn load(
        certificate: &[u8],
        key: &[u8],
        passwords: &[Vec<u8>],
        cache: Option<&IdentityCache>,
    ) -> Result<Identity, String> {
        match Identity::load_once(certificate, key, passwords, cache, false) {
            // One of the two may have been renewed and the other not yet.
            Ok(None) if cache.is_some() => {
                let again = Identity::load_once(certificate, key, passwords, cache, true)?;
                again.ok_or_else(|| mismatch(key))
            }
            Ok(identity) => identity.ok_or_else(|| mismatch(key)),
            Err(error) => Err(error),
        }
    }

    /// None: they do not belong together.
    fn load_once(
        certificate: &[u8],
        key: &[u8],
        passwords: &[Vec<u8>],
        cache: Option<&IdentityCache>,
        anew: bool,
    ) -> Result<Option<Identity>, String> {
        let fetch = |kind, name: &[u8], read: &dyn Fn() -> Read| match cache {
            Some(cache) => cache.fetch(kind, name, anew, read),
            None => read().map(|(object, _)| object),
        };
        let said = |what: &str, name: &[u8], why: String| {
            format!("cannot load {what} \"{}\": {why}", String::from_utf8_lossy(name))
        };
        let chain = fetch(Kind::Chain, certificate, &|| read_chain(certificate))
            .map_err(|why| said("certificate", certificate, why))?;
        let signer = fetch(Kind::Key, key, &|| read_key(key, passwords))
            .map_err(|why| said("certificate key", key, why))?;
        match (chain, signer) {
            (Object::Chain(chain), Object::Key(signer)) => Ok(Identity::join(chain.to_vec(), signer)),
            // Kinds are part of what is looked for.
            _ => Ok(None),
        }
    }
}

fn mismatch(key: &[u8]) -> String {
    let key = String::from_utf8_lossy(key);
    format!(
        "SSL_use_PrivateKey(\"{key}\") failed (SSL: error:05800074:x509 certificate routines::key values mismatch)"
    )
}

fn read_chain(name: &[u8]) -> Read {
    let chain = chain(&text_of(name)?)?;
    Ok((Object::Chain(Arc::new(chain)), true))
}

fn read_key(name: &[u8], passwords: &[Vec<u8>]) -> Read {
    let sections = pem::sections(&text_of(name)?);
    let signer = load_key(&sections, passwords).map_err(|error| explain(error).0)?;
    Ok((Object::Key(signer), !key::is_encrypted(&sections)))
}

fn text_of(name: &[u8]) -> Result<Vec<u8>, String> {
    if let Some(data) = name.strip_prefix(b"data:") {
        return Ok(data.to_vec());
    }
    let path = path_of(name);
    let failed = |errno| {
        let message = ErrnoMessage(errno).to_string();
        let (_, words) = message.split_once(": ").unwrap_or(("", &message));
        open_failed(path, errno.raw_os_error(), words)
    };
    let opened = file::open_file(path, Symlinks::Follow).map_err(|error| failed(error.errno))?;
    let mut text = Vec::new();
    if let Some(open) = opened.file {
        let bytes = usize::try_from(opened.info.size.min(FILE_BYTES_MAX)).unwrap_or_default();
        file::read_range(&open, 0, bytes, &mut text).map_err(|error| failed(error.errno))?;
    }
    Ok(text)
}
