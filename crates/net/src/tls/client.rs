//! What we say in handshakes with upstreams, made once from the configuration.

use super::handshake::{Established, HandshakeError};
use super::identity::Identity;
use super::notes::Notes;
use super::verify::{self, Trust, Verified};
use super::{names, subjects};
use crate::stream::Stream;
use crate::timer::Deadline;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionMemoryCache, ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, Connection, DigitallySignedStruct, Error, NamedGroup,
    SignatureScheme, SupportedProtocolVersion, version,
};
use std::net::IpAddr;
use std::sync::Arc;

/// How many upstreams' sessions are remembered.
const SESSIONS_MAX: usize = 256;

/// What a configuration says about TLS to upstreams.
#[derive(Default)]
pub struct ClientOptions {
    /// Who we are, where upstreams ask.
    pub identity: Option<Identity>,
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
    /// Go on with earlier sessions.
    pub session_reuse: bool,
    /// Tell the name we mean (SNI).
    pub server_name: bool,
    /// Propose HTTP/2, and nothing else.
    pub http2: bool,
    /// Whom we believe; none: everybody.
    pub trust: Option<Arc<Trust>>,
}

/// What we say in handshakes.
#[derive(Clone)]
pub struct ClientSettings {
    config: Arc<ClientConfig>,
    trust: Option<Arc<Trust>>,
}

impl ClientSettings {
    /// Makes settings.
    ///
    /// # Errors
    /// What the library has against them.
    pub fn new(options: &ClientOptions) -> Result<ClientSettings, String> {
        let suites = names::suites(options.ciphers.as_deref(), options.tls13_ciphers.as_deref());
        let versions: &[&SupportedProtocolVersion] = match (options.tls12, options.tls13) {
            (true, true) => &[&version::TLS13, &version::TLS12],
            (true, false) => &[&version::TLS12],
            (false, true) => &[&version::TLS13],
            (false, false) => return Err("no protocol is left".to_owned()),
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(names::provider(
            &suites,
            options.groups.as_deref(),
        )));
        let builder = builder.with_protocol_versions(versions).map_err(|error| error.to_string())?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer));
        let mut config = match &options.identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(Own(identity.certified()))),
            None => builder.with_no_client_auth(),
        };
        if options.http2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        config.enable_sni = options.server_name;
        // Certificates come as they are, as nginx has it.
        config.cert_decompressors = Vec::new();
        config.cert_compressors = Vec::new();
        config.resumption = match options.session_reuse {
            true => Resumption::store(Arc::new(ClientSessionMemoryCache::new(SESSIONS_MAX))),
            false => Resumption::disabled(),
        };
        Ok(ClientSettings { config: Arc::new(config), trust: options.trust.clone() })
    }

    /// The same for one connection that has its own certificate.
    pub fn with_identity(&self, identity: &Identity) -> ClientSettings {
        let mut config = ClientConfig::clone(&self.config);
        config.client_auth_cert_resolver = Arc::new(Own(identity.certified()));
        ClientSettings { config: Arc::new(config), trust: self.trust.clone() }
    }

    /// Judges the upstream's certificate, as far as that is asked for.
    ///
    /// # Errors
    /// What is wrong with it, as nginx logs it.
    pub fn judge(&self, established: &Established, name: &str, now_seconds: i64) -> Result<(), String> {
        let Some(trust) = &self.trust else { return Ok(()) };
        match trust.judge_server(&established.peer_certificates, now_seconds) {
            Verified::Failed(failure) => {
                return Err(format!("upstream SSL certificate verify error: ({failure})"));
            }
            Verified::NoCertificate => return Err("upstream sent no SSL certificate".to_owned()),
            Verified::Trusted | Verified::NotVouchedFor(_) => {}
        }
        let leaf = established.peer_certificates.first();
        match leaf.is_some_and(|leaf| subjects::is_for_host(leaf, name)) {
            true => Ok(()),
            false => Err(format!("upstream SSL certificate does not match \"{name}\"")),
        }
    }
}

impl Stream {
    /// Begins TLS with a server; from then on the stream's bytes travel encrypted. A name that is none (an address of
    /// a unix socket, say) is not told.
    ///
    /// # Errors
    /// No agreement, or the server went away.
    pub async fn connect_tls(
        &mut self,
        settings: &ClientSettings,
        name: &str,
        deadline: Deadline,
    ) -> Result<Established, HandshakeError> {
        // The address stands for a name that cannot be told: it is not sent.
        let nameless = || ServerName::from(IpAddr::from([0, 0, 0, 0]));
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let name = ServerName::try_from(bare.to_owned()).unwrap_or_else(|_| nameless());
        Notes::default().take();
        let connection = ClientConnection::new(settings.config.clone(), name);
        let connection = connection.map_err(|error| HandshakeError::Failed(Box::new(error)))?;
        self.shake_hands(Connection::Client(connection), deadline).await
    }
}

/// Our certificate, whatever the server asks for.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl ResolvesClientCert for Own {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).is_some().then(|| self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes any server whose certificate's key it has; who it is, is judged behind the handshake.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify::check_signature(message, certificate, signed, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify::check_signature(message, certificate, signed, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        verify::algorithms().supported_schemes()
    }
}
