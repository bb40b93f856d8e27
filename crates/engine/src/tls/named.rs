//! Certificates that variables name: their names are known, and their files read, when a connection comes. It is the
//! worker who reads them then, as in nginx, so that its user must be allowed to.

use crate::Request;
use crate::connection::Facts;
use crate::module::full_path;
use crate::plan::{Site, Snapshot};
use crate::thread::Thread;
use bstr::{BStr, BString, ByteSlice};
use net::tls::{Identity, IdentityCache, Issued};
use std::rc::Rc;
use std::sync::Arc;
use template::Template;

/// The certificates of a server, some of which variables name.
pub struct NamedCertificates {
    /// In the order of the configuration.
    pub certificates: Vec<Certificate>,
    /// How those that are named are read.
    pub reader: Reader,
}

/// One certificate.
pub enum Certificate {
    /// Variables name it or its key.
    Named(Pair),
    /// It was read with the configuration.
    Known(Identity),
    /// It comes and changes while the server runs.
    Issued(Arc<Issued>),
}

/// The names of a certificate and its key.
#[derive(Clone)]
pub struct Pair {
    /// The certificate's.
    pub certificate: Template,
    /// The key's.
    pub key: Template,
}

/// How named certificates are read.
#[derive(Clone)]
pub struct Reader {
    /// Passwords of encrypted keys.
    pub passwords: Vec<Vec<u8>>,
    /// Where they are kept once read.
    pub cache: Option<Arc<IdentityCache>>,
    /// Where relative names begin.
    pub conf_prefix: BString,
}

impl Reader {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// As nginx words them.
    pub fn load(&self, certificate: &[u8], key: &[u8]) -> Result<Identity, String> {
        let path = |name: &[u8]| match name.starts_with(b"data:") || name.starts_with(b"store:") {
            true => BString::from(name),
            false => full_path(self.conf_prefix.as_bstr(), BStr::new(name)),
        };
        Identity::load(&path(certificate), &path(key), &self.passwords, self.cache.as_deref())
    }
}

impl NamedCertificates {
    /// The certificates for a connection, as far as it is known before its handshake.
    pub(super) fn for_connection(
        &self,
        thread: &Thread,
        snapshot: &Snapshot,
        facts: &Facts,
        site: &Site,
    ) -> Result<Vec<Identity>, String> {
        let mut parts = thread.parts.take();
        let mut request = Request::new(thread, snapshot, Rc::new(facts.clone()), site, &mut parts);
        let load = |certificate: &Certificate| match certificate {
            Certificate::Known(identity) => Ok(Some(identity.clone())),
            Certificate::Issued(issued) => Ok(issued.current()),
            Certificate::Named(pair) => {
                let (certificate, key) = (request.render(&pair.certificate), request.render(&pair.key));
                self.reader.load(&certificate, &key).map(Some)
            }
        };
        let identities = self.certificates.iter().map(load).filter_map(Result::transpose).collect();
        thread.parts.keep(&mut request, parts);
        identities
    }
}
