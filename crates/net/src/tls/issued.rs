//! A certificate that is not there when its server starts, or is replaced while it runs: whoever obtains it puts it here,
//! and the next handshake shows it.

use super::identity::Identity;
use std::fmt;
use std::sync::{PoisonError, RwLock};

/// The place of such a certificate.
pub struct Issued {
    name: Vec<u8>,
    current: RwLock<Option<Identity>>,
}

impl Issued {
    /// An empty place; handshakes that need it fail. Sessions go by the name, which tells it from others.
    pub fn new(name: &[u8]) -> Issued {
        Issued { name: name.to_vec(), current: RwLock::new(None) }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Shows this certificate from now on.
    pub fn put(&self, identity: Identity) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(identity);
    }

    /// Shows this certificate from now on if it holds longer than the one that is there. Tells whether it does.
    pub fn put_if_newer(&self, identity: Identity) -> bool {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let until = |identity: &Identity| identity.validity().map(|(_, until)| until);
        let is_newer = current.as_ref().is_none_or(|current| until(current) < until(&identity));
        if is_newer {
            *current = Some(identity);
        }
        is_newer
    }

    /// The certificate that is shown.
    pub fn current(&self) -> Option<Identity> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Issued({})", String::from_utf8_lossy(&self.name))
    }
}
