//! What a server offers in handshakes, made once from its configuration.

use super::identity::Identity;
use super::issued::Issued;
use super::sessions::{SessionCache, Storage, TicketKeys, Tickets, digest_of};
use super::{names, verify};
use rustls::compress::ZLIB_COMPRESSOR;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    CipherSuite, NamedGroup, SignatureAlgorithm, SignatureScheme, SupportedProtocolVersion, version,
};
use std::sync::Arc;

/// How much a client may send before its handshake is done, bytes (nginx's `NGX_SSL_BUFSIZE`).
const EARLY_DATA_BYTES_MAX: u32 = 16 * 1024;
/// What a record's head takes of the library's fragment size, bytes.
const RECORD_HEAD_BYTES: usize = 5;
/// The least and the most plain text in one record, bytes.
const RECORD_BYTES: std::ops::RangeInclusive<usize> = 32..=16 * 1024;

/// What a configuration says about the TLS of one server.
#[derive(Default)]
pub struct ServerOptions {
    /// Certificates with their keys; none where they are named by variables, or handshakes are refused.
    pub identities: Vec<Identity>,
    /// Certificates that come and change while the server runs, behind the others.
    pub issued: Vec<Arc<Issued>>,
    /// What certificates are called that come with each connection: sessions resume where the names are the same.
    pub names: Vec<Vec<u8>>,
    /// TLS 1.2.
    pub tls12: bool,
    /// TLS 1.3.
    pub tls13: bool,
    /// Ciphers of TLS 1.2 in order; none given: all.
    pub ciphers: Option<Vec<CipherSuite>>,
    /// Ciphers of TLS 1.3 in order; none given: all.
    pub tls13_ciphers: Option<Vec<CipherSuite>>,
    /// Key exchanges in order; none given: the library's choice.
    pub groups: Option<Vec<NamedGroup>>,
    /// Our order of ciphers counts, not the client's.
    pub prefer_server_ciphers: bool,
    /// The most plain text in one record, bytes.
    pub record_bytes_max: usize,
    /// Ask clients for a certificate, and name these authorities (DER names) to them.
    pub client_authorities: Option<Vec<Vec<u8>>>,
    /// Where sessions are kept.
    pub cache: Option<Arc<SessionCache>>,
    /// Keys for tickets; none: no tickets.
    pub tickets: Option<TicketKeys>,
    /// How many tickets of TLS 1.3 a handshake gives; none given: two.
    pub tickets_each: Option<usize>,
    /// How long sessions live, seconds.
    pub session_seconds: u32,
    /// Compress certificates for clients that can undo it (RFC 8879), with zlib.
    pub compress_certificates: bool,
    /// Take data before the handshake is done. It takes a cache: tickets that clients keep could be used again, and so
    /// could the data.
    pub early_data: bool,
    /// Application protocols in order.
    pub alpn: Vec<Vec<u8>>,
}

/// What a server offers.
#[derive(Clone)]
pub struct ServerSettings {
    pub(crate) config: Arc<ServerConfig>,
    /// TLS 1.3 is among it.
    pub(crate) has_tls13: bool,
}

impl ServerSettings {
    /// Makes settings.
    ///
    /// # Errors
    /// What the library has against them: they leave no cipher to a protocol, say.
    pub fn new(options: &ServerOptions) -> Result<ServerSettings, String> {
        let suites = names::suites(options.ciphers.as_deref(), options.tls13_ciphers.as_deref());
        let provider = Arc::new(names::provider(&suites, options.groups.as_deref()));
        let versions: &[&SupportedProtocolVersion] = match (options.tls12, options.tls13) {
            (true, true) => &[&version::TLS13, &version::TLS12],
            (true, false) => &[&version::TLS12],
            (false, true) => &[&version::TLS13],
            (false, false) => return Err("no protocol is left".to_owned()),
        };
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let builder = builder.map_err(|error| error.to_string())?;
        let verifier = match &options.client_authorities {
            Some(authorities) => Arc::new(verify::AnyClient::new(authorities)),
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let context = context_of(options);
        let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(Resolver {
            identities: options.identities.clone(),
            issued: options.issued.clone(),
        }));
        config.ignore_client_order = options.prefer_server_ciphers;
        let record_bytes =
            options.record_bytes_max.clamp(*RECORD_BYTES.start(), *RECORD_BYTES.end()) + RECORD_HEAD_BYTES;
        config.max_fragment_size = Some(record_bytes);
        config.alpn_protocols.clone_from(&options.alpn);
        config.cert_compressors = match options.compress_certificates {
            true => vec![ZLIB_COMPRESSOR],
            false => Vec::new(),
        };
        // What a client sends is not unpacked: nginx tells them so, too.
        config.cert_decompressors = Vec::new();
        let lifetime_seconds = options.session_seconds;
        config.session_storage = match &options.cache {
            Some(cache) => Arc::new(Storage { cache: cache.clone(), context, lifetime_seconds }),
            None => Arc::new(NoServerSessionStorage {}),
        };
        match &options.tickets {
            // The library gives out a session of the cache once.
            _ if options.early_data => {}
            Some(keys) => {
                config.ticketer = Arc::new(Tickets { keys: keys.clone(), context, lifetime_seconds })
            }
            None => {}
        }
        if let Some(count) = options.tickets_each {
            config.send_tls13_tickets = count;
        }
        if options.cache.is_none() && (options.tickets.is_none() || options.early_data) {
            config.send_tls13_tickets = 0;
        }
        if options.early_data {
            config.max_early_data_size = EARLY_DATA_BYTES_MAX;
            config.send_half_rtt_data = true;
        }
        Ok(ServerSettings { config: Arc::new(config), has_tls13: options.tls13 })
    }

    /// The same for one connection that has its own certificates.
    pub fn with_identities(&self, identities: Vec<Identity>) -> ServerSettings {
        let mut config = ServerConfig::clone(&self.config);
        config.cert_resolver = Arc::new(Resolver { identities, issued: Vec::new() });
        ServerSettings { config: Arc::new(config), has_tls13: self.has_tls13 }
    }

    /// The same with other application protocols, in order.
    pub fn with_protocols(&self, protocols: &[&[u8]]) -> ServerSettings {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        ServerSettings { config: Arc::new(config), has_tls13: self.has_tls13 }
    }
}

/// What a session must agree on to resume: the certificates, and whom clients are asked to be known to.
fn context_of(options: &ServerOptions) -> [u8; 32] {
    let certificates = options.identities.iter().flat_map(Identity::certificates);
    let authorities = options.client_authorities.iter().flatten().map(|name| &name[..]);
    let asks: &[u8] = if options.client_authorities.is_some() { b"asks" } else { b"" };
    // Sessions outlive a renewal: it is the same server.
    let issued = options.issued.iter().map(|issued| issued.name());
    let names = options.names.iter().map(|name| &name[..]);
    let asks = std::iter::once(asks);
    let parts: Vec<&[u8]> = asks.chain(certificates).chain(issued).chain(authorities).chain(names).collect();
    digest_of(&parts)
}

/// Chooses among several certificates by what the client can check.
#[derive(Debug)]
struct Resolver {
    identities: Vec<Identity>,
    issued: Vec<Arc<Issued>>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if self.issued.is_empty() {
            return choose(&self.identities, &hello);
        }
        let issued = self.issued.iter().filter_map(|issued| issued.current());
        choose(&self.identities.iter().cloned().chain(issued).collect::<Vec<_>>(), &hello)
    }
}

fn choose(all: &[Identity], hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
    if let [only] = all {
        return Some(only.certified());
    }
    let newer = hello.cipher_suites().iter().any(|suite| names::is_tls13(*suite));
    let usable = |scheme: SignatureScheme| {
        let algorithm = algorithm_of(scheme)?;
        // A cipher of TLS 1.2 says what kind of key it goes with.
        let fits = newer || hello.cipher_suites().iter().any(|suite| names::goes_with(*suite, algorithm));
        // Of several with keys of one kind the last counts: in OpenSSL it takes the place of those before.
        let mut identities = all.iter().rev().filter(|_| fits);
        identities.find(|identity| {
            identity.algorithm() == algorithm && identity.key().choose_scheme(&[scheme]).is_some()
        })
    };
    let found = hello.signature_schemes().iter().find_map(|scheme| usable(*scheme));
    found.or(all.first()).map(Identity::certified)
}

fn algorithm_of(scheme: SignatureScheme) -> Option<SignatureAlgorithm> {
    Some(match scheme {
        SignatureScheme::RSA_PKCS1_SHA256
        | SignatureScheme::RSA_PKCS1_SHA384
        | SignatureScheme::RSA_PKCS1_SHA512
        | SignatureScheme::RSA_PSS_SHA256
        | SignatureScheme::RSA_PSS_SHA384
        | SignatureScheme::RSA_PSS_SHA512 => SignatureAlgorithm::RSA,
        SignatureScheme::ECDSA_NISTP256_SHA256
        | SignatureScheme::ECDSA_NISTP384_SHA384
        | SignatureScheme::ECDSA_NISTP521_SHA512 => SignatureAlgorithm::ECDSA,
        SignatureScheme::ED25519 => SignatureAlgorithm::ED25519,
        _ => return None,
    })
}
