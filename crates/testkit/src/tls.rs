//! TLS of the specs' clients: any certificate is taken, since what a server shows is a matter of its own check.

use crate::client::Connection;
use crate::document::Block;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::compress::{CertDecompressor, DecompressionFailed, ZLIB_DECOMPRESSOR};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateCompressionAlgorithm, ClientConfig, ClientConnection, DigitallySignedStruct, Error,
    SignatureScheme, version,
};
use std::cell::Cell;
use std::io::Write;
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
fn settings_of(block: &Block, folder: &Path) -> Result<Arc<ClientConfig>, String> {
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
    config.cert_decompressors = match block.has("compress") || block.value("compress").is_some() {
        true => vec![&Unpacks],
        false => Vec::new(),
    };
    config.cert_compressors = Vec::new();
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
fn connection(block: &Block, config: Arc<ClientConfig>) -> Result<ClientConnection, String> {
    let name = match block.value("tls") {
        Some(name) => ServerName::try_from(name.to_owned()).map_err(|_| format!("\"{name}\" is no name"))?,
        None => ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    };
    ClientConnection::new(config, name).map_err(|error| error.to_string())
}

/// The TLS clients of a scenario.
#[derive(Default)]
pub struct Clients {
    /// What the last one knows, its sessions too.
    settings: Option<Arc<ClientConfig>>,
}

impl Clients {
    /// Begins TLS, with what is known of the session before where the block says so; `early` sends the request's bytes
    /// ahead.
    ///
    /// # Errors
    /// In words: there was no handshake, or not the one that the block speaks of.
    pub fn secure(
        &mut self,
        request: &Block,
        bytes: &[u8],
        folder: &Path,
        to: &mut Connection,
    ) -> Result<(), String> {
        let mut settings = match self.settings.take().filter(|_| request.has("resume")) {
            Some(settings) => settings,
            None => settings_of(request, folder)?,
        };
        Arc::make_mut(&mut settings).enable_early_data = request.has("early");
        self.settings = Some(settings.clone());
        let mut client = connection(request, settings)?;
        if request.has("early") {
            let early = client.early_data().ok_or("the session before does not allow early data")?;
            { early }.write_all(bytes).map_err(|error| format!("early data: {error}"))?;
        }
        was_compressed();
        match request.has("early") {
            true => to.secure_late(client)?,
            false => to.secure(client)?,
        }
        if request.has("early") && !to.took_early_data() {
            return Err("the server did not take early data".to_owned());
        }
        let offers = request.has("compress") || request.value("compress").is_some();
        if offers && was_compressed() != request.has("compress") {
            return Err("the certificate came compressed or plain, and should not have".to_owned());
        }
        let Some(name) = request.value("sees") else { return Ok(()) };
        let expected = certificates(&folder.join(format!("{name}.crt")))?;
        match to.shown_certificate() == expected.first().map(|der| &der[..]) {
            true => Ok(()),
            false => Err(format!("the server shows another certificate than {name}")),
        }
    }
}

/// Did the certificate of the handshake that this thread made last come compressed? Asked once.
fn was_compressed() -> bool {
    UNPACKED.take()
}

thread_local! {
    static UNPACKED: Cell<bool> = const { Cell::new(false) };
}

/// Unpacks certificates (RFC 8879) and notes it.
#[derive(Debug)]
struct Unpacks;

impl CertDecompressor for Unpacks {
    fn decompress(&self, input: &[u8], output: &mut [u8]) -> Result<(), DecompressionFailed> {
        UNPACKED.set(true);
        ZLIB_DECOMPRESSOR.decompress(input, output)
    }

    fn algorithm(&self) -> CertificateCompressionAlgorithm {
        CertificateCompressionAlgorithm::Zlib
    }
}

/// The certificates of a file.
///
/// # Errors
/// In words: it cannot be read.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
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
