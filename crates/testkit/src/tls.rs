//! TLS of the specs' clients: any certificate is taken, since what a server shows is a matter of its own check.

use crate::document::Block;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, version};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

/// Does the block's client speak TLS?
pub fn is_wanted(block: &Block) -> bool {
    block.has("tls") || block.value("tls").is_some()
}

/// What a block's client says in handshakes.
///
/// # Errors
/// In words: its certificate cannot be read.
pub fn settings(block: &Block, folder: &Path) -> Result<Arc<ClientConfig>, String> {
    let versions: &[_] =
        if block.has("tls1.2") { &[&version::TLS12] } else { &[&version::TLS13, &version::TLS12] };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match block.value("cert") {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = certificates(&folder.join(format!("{name}.crt")))?;
            let key = folder.join(format!("{name}.key"));
            let key =
                PrivateKeyDer::from_pem_file(&key).map_err(|error| format!("{}: {error}", key.display()))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
        }
    };
    config.enable_sni = block.value("tls").is_some();
    if block.has("http2") {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    Ok(Arc::new(config))
}

/// A connection of a block's client.
///
/// # Errors
/// In words: the name in the block is none.
pub fn connection(block: &Block, config: Arc<ClientConfig>) -> Result<ClientConnection, String> {
    let name = match block.value("tls") {
        Some(name) => ServerName::try_from(name.to_owned()).map_err(|_| format!("\"{name}\" is no name"))?,
        None => ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    };
    ClientConnection::new(config, name).map_err(|error| error.to_string())
}

/// The certificates of a file.
///
/// # Errors
/// In words: it cannot be read.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let fail = |error| format!("{}: {error}", path.display());
    CertificateDer::pem_file_iter(path).map_err(fail)?.collect::<Result<_, _>>().map_err(fail)
}

/// Takes any server.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
