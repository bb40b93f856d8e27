//! Judging certificates as OpenSSL does, with its numbers and words, because configurations and programs behind the
//! gateway read them: `$ssl_client_verify`, `upstream SSL certificate verify error: (20:unable to get ...)`.
//!
//! The handshake itself only makes sure that the peer has the key of the certificate it shows. Whether the certificate
//! is to be believed is decided behind it: a server answers a bad one with a status, not with silence.

use super::der::{Der, tag, whole_bits};
use super::notes;
use super::revocation::RevocationList;
use super::subjects::check_constraints;
use super::x509::{Certificate, KEY_CERT_SIGN};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureScheme,
};

/// Takes any client certificate whose key the client has.
#[derive(Debug)]
pub(crate) struct AnyClient {
    authorities: Vec<DistinguishedName>,
}

impl AnyClient {
    /// Names these authorities (DER) to clients.
    pub(crate) fn new(authorities: &[Vec<u8>]) -> AnyClient {
        AnyClient { authorities: authorities.iter().cloned().map(DistinguishedName::from).collect() }
    }
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.authorities
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(message, certificate, signed, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(message, certificate, signed, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// The signature algorithms that exist here.
pub(crate) fn algorithms() -> WebPkiSupportedAlgorithms {
    aws_lc_rs::default_provider().signature_verification_algorithms
}

/// Has the peer the key of its certificate (RFC 8446 section 4.4.3, RFC 5246 section 7.4.8)?
pub(crate) fn check_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    tls13: bool,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = algorithms();
    let (_, candidates) = algorithms
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == signed.scheme && (!tls13 || is_for_tls13(*scheme)))
        .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    let parsed = Certificate::parse(certificate).ok_or(CertificateError::BadEncoding)?;
    let (algorithm, key) = public_key(parsed.public_key).ok_or(CertificateError::BadEncoding)?;
    let fitting = candidates.iter().filter(|candidate| candidate.public_key_alg_id().as_ref() == algorithm);
    // A scheme of TLS 1.3 names the curve as well, and so one algorithm.
    for candidate in fitting.take(if tls13 { 1 } else { usize::MAX }) {
        if candidate.verify_signature(key, message, signed.signature()).is_ok() {
            notes::peer_signature(signed.scheme);
            return Ok(HandshakeSignatureValid::assertion());
        }
    }
    Err(CertificateError::BadSignature.into())
}

fn is_for_tls13(scheme: SignatureScheme) -> bool {
    !matches!(
        scheme,
        SignatureScheme::RSA_PKCS1_SHA1
            | SignatureScheme::RSA_PKCS1_SHA256
            | SignatureScheme::RSA_PKCS1_SHA384
            | SignatureScheme::RSA_PKCS1_SHA512
            | SignatureScheme::ECDSA_SHA1_Legacy
    )
}

/// A SubjectPublicKeyInfo in two: the content of its algorithm, and the key's bits.
pub(crate) fn public_key(whole: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = Der(whole).inside(tag::SEQUENCE)?;
    Some((parts.expect(tag::SEQUENCE)?, whole_bits(parts.expect(tag::BIT_STRING)?)?))
}

/// Certificates that are believed, and those that were taken back.
#[derive(Debug, Default)]
pub struct Trust {
    /// Authorities, as DER.
    authorities: Vec<Vec<u8>>,
    /// Revocation lists; where there are any, every certificate's issuer must have one.
    lists: Vec<RevocationList>,
    /// How many certificates may stand between a leaf and an authority's own.
    depth_max: usize,
}

/// What is thought of a peer's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// It showed none.
    NoCertificate,
    /// It is believed.
    Trusted,
    /// It is not.
    Failed(Failure),
    /// It would be, but its issuers do not vouch for it now (OCSP): nginx's words.
    NotVouchedFor(&'static str),
}

/// Why a certificate is not believed: OpenSSL's number and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// OpenSSL's `X509_V_ERR_` number.
    pub number: u8,
    /// OpenSSL's words.
    pub words: &'static str,
}

impl Failure {
    /// Is it only that nobody known stands behind the certificate (`optional_no_ca` lets those pass)?
    pub fn is_about_trust(&self) -> bool {
        matches!(self.number, 18 | 19 | 20 | 21 | 27)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}:{}", self.number, self.words)
    }
}

const NO_CRL: Failure = Failure { number: 3, words: "unable to get certificate CRL" };
const NOT_YET_VALID: Failure = Failure { number: 9, words: "certificate is not yet valid" };
const EXPIRED: Failure = Failure { number: 10, words: "certificate has expired" };
const CRL_EXPIRED: Failure = Failure { number: 12, words: "CRL has expired" };
const SELF_SIGNED: Failure = Failure { number: 18, words: "self-signed certificate" };
const SELF_SIGNED_CHAIN: Failure =
    Failure { number: 19, words: "self-signed certificate in certificate chain" };
const NO_ISSUER: Failure = Failure { number: 20, words: "unable to get local issuer certificate" };
const NO_LEAF_ISSUER: Failure = Failure { number: 21, words: "unable to verify the first certificate" };
const REVOKED: Failure = Failure { number: 23, words: "certificate revoked" };
const NO_AUTHORITY: Failure = Failure { number: 79, words: "invalid CA certificate" };
const PATH_TOO_LONG: Failure = Failure { number: 25, words: "path length constraint exceeded" };
const PURPOSE: Failure = Failure { number: 26, words: "unsuitable certificate purpose" };
const CRITICAL: Failure = Failure { number: 34, words: "unhandled critical extension" };
const MALFORMED: Failure = Failure { number: 1, words: "unspecified certificate verification error" };

/// ExtKeyUsage for servers and clients (RFC 5280 section 4.2.1.12), and for everything.
const FOR_SERVERS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const FOR_CLIENTS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
const FOR_ANYTHING: &[u8] = &[0x55, 0x1d, 0x25, 0];

/// The most certificates that are looked at in one chain: what a peer sends costs work.
const CHAIN_MAX: usize = 16;

impl Trust {
    /// Trust in the authorities the system trusts.
    pub fn of_system(depth_max: usize) -> Trust {
        let found = rustls_native_certs::load_native_certs();
        let authorities = found.certs.into_iter().map(|der| der.to_vec()).collect();
        Trust { authorities, depth_max, ..Trust::default() }
    }

    /// Trust in nobody: `optional_no_ca` without authorities.
    pub fn in_nobody(depth_max: usize) -> Trust {
        Trust { depth_max, ..Trust::default() }
    }

    /// Adds the certificates of a text.
    ///
    /// # Errors
    /// In OpenSSL's words: there is none in it.
    pub fn add(&mut self, text: &[u8]) -> Result<(), String> {
        self.authorities.extend(super::identity::chain(text)?.into_iter().map(|der| der.to_vec()));
        Ok(())
    }

    /// Takes back what the revocation lists of a text take back.
    ///
    /// # Errors
    /// In OpenSSL's words: there is no list in it.
    pub fn revoke(&mut self, text: &[u8]) -> Result<(), String> {
        self.lists.extend(RevocationList::read_all(text)?);
        Ok(())
    }

    /// The certificates of a text, as DER.
    pub fn certificates(text: &[u8]) -> Vec<Vec<u8>> {
        let chain = super::identity::chain(text).unwrap_or_default();
        chain.into_iter().map(|der| der.to_vec()).collect()
    }

    /// The subjects of the certificates of a text, as DER names, each once: what clients are told.
    pub fn subjects(text: &[u8]) -> Vec<Vec<u8>> {
        let chain = super::identity::chain(text).unwrap_or_default();
        let mut names: Vec<Vec<u8>> = Vec::new();
        for der in &chain {
            match Certificate::parse(der) {
                Some(parsed) if !names.iter().any(|known| known == parsed.subject_whole) => {
                    names.push(parsed.subject_whole.to_vec());
                }
                _ => {}
            }
        }
        names
    }

    /// Judges what a client showed, its own certificate first. The chain of a certificate that is believed comes with
    /// it: the leaf first, the authority at its end last, as DER.
    pub fn judge_client<'a>(&'a self, shown: &'a [Vec<u8>], now_seconds: i64) -> (Verified, Vec<&'a [u8]>) {
        self.judge(shown, FOR_CLIENTS, now_seconds)
    }

    /// Judges what a server showed.
    pub fn judge_server(&self, shown: &[Vec<u8>], now_seconds: i64) -> Verified {
        self.judge(shown, FOR_SERVERS, now_seconds).0
    }

    fn judge<'a>(
        &'a self,
        shown: &'a [Vec<u8>],
        purpose: &[u8],
        now_seconds: i64,
    ) -> (Verified, Vec<&'a [u8]>) {
        let Some(leaf) = shown.first() else { return (Verified::NoCertificate, Vec::new()) };
        let Some(leaf) = Certificate::parse(leaf) else { return (Verified::Failed(MALFORMED), Vec::new()) };
        let others: Vec<Certificate<'_>> =
            shown[1..].iter().take(CHAIN_MAX).filter_map(|der| Certificate::parse(der)).collect();
        match self.find_path(leaf, &others, purpose, now_seconds) {
            Ok(path) => (Verified::Trusted, path.iter().map(|certificate| certificate.der).collect()),
            Err(failure) => (Verified::Failed(failure), Vec::new()),
        }
    }

    /// Was a certificate taken back by the list of its issuer, where lists are kept?
    pub(crate) fn takes_back(&self, certificate: &Certificate<'_>, issuer: &Certificate<'_>) -> bool {
        self.lists.iter().any(|list| list.is_of(issuer) && list.names(certificate))
    }

    /// Builds the path from the leaf to an authority that is trusted, and checks every step of it. A trusted issuer
    /// goes before one that was shown; of several with one name, the one whose key fits. All is looked at, and the
    /// last failure counts, as with nginx, which lets OpenSSL go on behind each.
    fn find_path<'a>(
        &'a self,
        leaf: Certificate<'a>,
        others: &[Certificate<'a>],
        purpose: &[u8],
        now_seconds: i64,
    ) -> Result<Vec<Certificate<'a>>, Failure> {
        let trusted: Vec<Certificate<'a>> =
            self.authorities.iter().filter_map(|der| Certificate::parse(der)).collect();
        let mut path = vec![leaf];
        let mut last_failure = None;
        loop {
            let last = &path[path.len() - 1];
            // One that is trusted itself ends the path.
            let is_trusted = trusted.iter().any(|known| known.der == last.der);
            if is_trusted && last.is_self_issued() {
                break;
            }
            let issues = |candidate: &&Certificate<'_>| {
                candidate.subject == last.issuer && is_signed_by(last, candidate)
            };
            if let Some(issuer) = trusted.iter().find(issues) {
                path.push(issuer.clone());
                if issuer.is_self_issued() {
                    break;
                }
            } else if last.is_self_issued() && is_signed_by(last, last) {
                last_failure = Some(if path.len() == 1 { SELF_SIGNED } else { SELF_SIGNED_CHAIN });
                break;
            } else if let Some(issuer) = others.iter().find(issues) {
                path.push(issuer.clone());
            } else {
                last_failure = Some(if path.len() == 1 { NO_LEAF_ISSUER } else { NO_ISSUER });
                break;
            }
            if path.len() > self.depth_max.saturating_add(2).min(CHAIN_MAX) {
                break;
            }
        }
        // Intermediates are those between the leaf and the authority at the end; what is behind too many of them is
        // not looked at.
        if path.len().saturating_sub(2) > self.depth_max {
            last_failure = Some(NO_ISSUER);
        }
        self.check_path(&path, purpose, now_seconds, &mut last_failure);
        match last_failure {
            Some(failure) => Err(failure),
            None => Ok(path),
        }
    }

    /// Checks the certificates of a path whose signatures are right, in OpenSSL's order: what they are for, whether
    /// they were taken back, their times, and whom their issuers may speak for.
    fn check_path(
        &self,
        path: &[Certificate<'_>],
        purpose: &[u8],
        now_seconds: i64,
        last_failure: &mut Option<Failure>,
    ) {
        // Authorities below the leaf and not issued by themselves count against `pathLenConstraint`.
        let mut below = 0;
        for (place, certificate) in path.iter().enumerate() {
            if let Err(failure) = check_extensions(certificate, place, below, purpose) {
                *last_failure = Some(failure);
            }
            below += u64::from(place > 0 && !certificate.is_self_issued());
        }
        for (place, certificate) in path.iter().enumerate().filter(|_| !self.lists.is_empty()) {
            let issuer = path.get(place + 1).unwrap_or(certificate);
            if let Err(failure) = self.check_revocation(certificate, issuer, now_seconds) {
                *last_failure = Some(failure);
            }
        }
        for certificate in path.iter().rev() {
            if certificate.not_before > now_seconds {
                *last_failure = Some(NOT_YET_VALID);
            }
            if certificate.not_after < now_seconds {
                *last_failure = Some(EXPIRED);
            }
        }
        if let Err(failure) = check_constraints(path) {
            *last_failure = Some(failure);
        }
    }

    fn check_revocation(
        &self,
        certificate: &Certificate<'_>,
        issuer: &Certificate<'_>,
        now_seconds: i64,
    ) -> Result<(), Failure> {
        let list = self.lists.iter().find(|list| list.is_of(issuer)).ok_or(NO_CRL)?;
        if list.names(certificate) {
            return Err(REVOKED);
        }
        match list.next_update.is_some_and(|due| due < now_seconds) {
            true => Err(CRL_EXPIRED),
            false => Ok(()),
        }
    }
}

/// Checks what a certificate says about itself; `place` counts from the leaf, `below` the authorities under it.
fn check_extensions(
    certificate: &Certificate<'_>,
    place: usize,
    below: u64,
    purpose: &[u8],
) -> Result<(), Failure> {
    let extensions = &certificate.extensions;
    if extensions.has_unknown_critical {
        return Err(CRITICAL);
    }
    if place > 0 {
        let may_sign = extensions.key_usage.is_none_or(|bits| bits & KEY_CERT_SIGN != 0);
        // A root of the first version says nothing about itself.
        let is_authority = extensions.is_authority.unwrap_or(certificate.is_self_issued());
        if !is_authority || !may_sign {
            return Err(NO_AUTHORITY);
        }
        if extensions.path_length_max.is_some_and(|most| below > most) {
            return Err(PATH_TOO_LONG);
        }
    }
    let allows =
        |purposes: &Vec<&[u8]>| purposes.iter().any(|known| *known == purpose || *known == FOR_ANYTHING);
    match extensions.purposes.as_ref().is_none_or(allows) {
        true => Ok(()),
        false => Err(PURPOSE),
    }
}

/// Is the signature on a certificate that of this issuer's key?
pub(crate) fn is_signed_by(certificate: &Certificate<'_>, issuer: &Certificate<'_>) -> bool {
    signature_fits(certificate.signed, certificate.signature_algorithm, certificate.signature, issuer)
}

pub(crate) fn signature_fits(
    signed: &[u8],
    algorithm: &[u8],
    signature: &[u8],
    issuer: &Certificate<'_>,
) -> bool {
    let Some((key_algorithm, key)) = public_key(issuer.public_key) else { return false };
    algorithms().all.iter().any(|candidate| {
        candidate.signature_alg_id().as_ref() == algorithm
            && candidate.public_key_alg_id().as_ref() == key_algorithm
            && candidate.verify_signature(key, signed, signature).is_ok()
    })
}
