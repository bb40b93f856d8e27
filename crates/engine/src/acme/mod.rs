//! Certificates that issuers give over ACME (RFC 8555): what a configuration says about them, and what is known of them
//! while the program runs. [`agent`] decides when to ask, [`client`] asks, [`vault`] keeps what came of it on disk, and
//! [`board`] shows issuers the proofs they look for.

pub mod agent;
pub mod board;
mod client;
mod transport;
pub mod vault;

use acme::request::ExternalAccount;
use acme::{Identifier, KeyKind, Url};
use net::tls::{ClientSettings, Identity, Issued};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zone::Zones;

/// Whom certificates are asked of (`acme_issuer`).
pub struct Issuer {
    /// Its name in the configuration.
    pub name: String,
    /// What is asked, and how.
    pub settings: IssuerSettings,
    /// How its server is spoken to over TLS.
    pub tls: ClientSettings,
    /// Where keys and certificates are kept; none: nowhere (`state_path off`).
    pub state_path: Option<Vec<u8>>,
    /// What is asked of it.
    pub orders: Vec<Arc<Order>>,
    /// What is known of it.
    pub known: Arc<KnownIssuer>,
}

/// What an issuer is asked, and how: what makes it another one when it changes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IssuerSettings {
    /// Where its directory is.
    pub url: Url,
    /// The account's key.
    pub account_key: AccountKey,
    /// How names are proved.
    pub challenge: ChallengeKind,
    /// Do requests name a common name?
    pub has_common_name: bool,
    /// Whom the issuer can write to.
    pub contacts: Vec<String>,
    /// The account that ours is bound to.
    pub external: Option<ExternalAccount>,
    /// The common name of the root that is wanted.
    pub preferred_chain: Option<String>,
    /// The profile that is wanted.
    pub profile: Option<Profile>,
    /// Are the terms of service agreed to?
    pub agrees_to_terms: bool,
    /// Does anything that the connection is judged by differ? The text of the trusted certificates, or none.
    pub trusted: Option<Vec<u8>>,
}

/// The key of an account.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum AccountKey {
    /// One of this kind is made where there is none.
    Made(KeyKind),
    /// This one, as DER.
    Given(Vec<u8>),
}

/// `profile name [require]`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Without it, no certificate is asked for.
    pub is_required: bool,
}

/// How a name is proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ChallengeKind {
    /// By a page (RFC 8555 section 8.3).
    #[default]
    Http01,
    /// By a handshake (RFC 8737).
    TlsAlpn01,
}

impl ChallengeKind {
    /// How issuers call it.
    pub fn name(self) -> &'static str {
        match self {
            ChallengeKind::Http01 => "http-01",
            ChallengeKind::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

/// One certificate that is wanted (`acme_certificate`).
pub struct Order {
    /// Its name in logs, and of its files.
    pub name: String,
    /// Whom it is for.
    pub identifiers: Vec<Identifier>,
    /// The kind of its key.
    pub key: KeyKind,
    /// What is known of it.
    pub known: Arc<KnownOrder>,
}

/// The certificate of a server, for `$acme_certificate`: kept in the server's plan.
pub struct ServerCertificate(pub Arc<Issued>);

/// What outlives a reload of an issuer.
#[derive(Default)]
pub struct KnownIssuer {
    /// The account's key as PEM, where it is kept nowhere else.
    account_key: Mutex<Option<String>>,
}

/// What outlives a reload of an order.
pub struct KnownOrder {
    /// The certificate, once there is one.
    pub issued: Arc<Issued>,
    schedule: Mutex<Schedule>,
}

/// When something is to be done about an order; seconds since 1970.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    /// Nothing is asked before, whatever is due.
    pub(crate) not_before: i64,
    /// How often it has failed since it last succeeded.
    pub(crate) failures: u32,
    /// When the certificate that is there is to be renewed.
    pub(crate) renewal: Option<i64>,
    /// The window that the issuer suggested for that.
    pub(crate) window: Option<acme::answer::Window>,
    /// When the issuer is asked for the window again; none: it was never asked.
    pub(crate) window_again: Option<i64>,
    /// A certificate and its key, as PEM, that could not be written yet.
    pub(crate) unsaved: Option<(String, String)>,
}

static ISSUERS: Zones<KnownIssuer> = Zones::new();
static ORDERS: Zones<KnownOrder> = Zones::new();

impl IssuerSettings {
    /// Tells issuers apart; the same in all processes of one build.
    fn digest(&self) -> u64 {
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// What is known of this issuer, also from before a reload.
    pub fn known(&self, state_path: Option<&[u8]>) -> Arc<KnownIssuer> {
        ISSUERS.open(&self.key(state_path, ""), |_| true, KnownIssuer::default)
    }

    /// What is known of an order of this issuer, also from before a reload.
    pub fn known_order(&self, state_path: Option<&[u8]>, order: &str) -> Arc<KnownOrder> {
        let key = self.key(state_path, order);
        let make = || KnownOrder { issued: Arc::new(Issued::new(&key)), schedule: Mutex::default() };
        ORDERS.open(&key, |_| true, make)
    }

    fn key(&self, state_path: Option<&[u8]>, order: &str) -> Vec<u8> {
        let digest = self.digest().to_ne_bytes();
        [&digest, order.as_bytes(), b"\0", state_path.unwrap_or_default()].concat()
    }
}

impl KnownIssuer {
    fn account_key(&self) -> MutexGuard<'_, Option<String>> {
        self.account_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KnownOrder {
    pub(crate) fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a certificate that was found on disk, unless a newer one is there.
    ///
    /// # Errors
    /// Certificate and key cannot be read, or do not belong together; in OpenSSL's words.
    pub fn restore(&self, certificate: &[u8], key: &[u8]) -> Result<bool, String> {
        let identity = read_identity(certificate, key)?;
        let is_newer = self.issued.put_if_newer(identity);
        if is_newer {
            let mut schedule = self.schedule();
            (schedule.renewal, schedule.window, schedule.window_again) = (None, None, None);
        }
        Ok(is_newer)
    }

    /// Takes over until when nobody is to ask, as a file says it.
    pub fn restore_pause(&self, text: &[u8], url: &Url) {
        if let Some((not_before, failures)) = vault::read_pause(text, url) {
            let mut schedule = self.schedule();
            if schedule.not_before < not_before {
                (schedule.not_before, schedule.failures) = (not_before, failures);
            }
        }
    }
}

/// A certificate and its key out of PEM.
fn read_identity(certificate: &[u8], key: &[u8]) -> Result<Identity, String> {
    Identity::read(certificate, key, &[]).map_err(|error| match error {
        net::tls::IdentityError::Certificate(why) | net::tls::IdentityError::Key(why, _) => why,
        net::tls::IdentityError::Mismatch(_) | net::tls::IdentityError::OtherKind => {
            "the key is not that of the certificate".to_owned()
        }
    })
}
