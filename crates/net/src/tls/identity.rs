//! Who we are: a certificate with its chain and its key, out of what files hold. Failures read as OpenSSL words them.

use super::der::{Der, tag};
use super::key::{self, KeyError};
use super::{notes, pem, subjects, x509};
use crate::clock;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use std::sync::{Arc, PoisonError, RwLock};

/// A certificate with its chain and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    staple: Option<Arc<Staple>>,
}

/// An answer about a certificate that goes out with it (OCSP stapling); others put it here while handshakes go on.
#[derive(Debug, Default)]
pub struct Staple {
    /// The same certificate with the answer, and until when that holds, seconds since 1970.
    current: RwLock<Option<(Arc<CertifiedKey>, i64)>>,
}

impl Staple {
    /// Puts an answer (DER) to this certificate, which holds until then, seconds since 1970.
    pub fn put(&self, identity: &Identity, answer: Vec<u8>, until_seconds: i64) {
        let mut certified = CertifiedKey::clone(&identity.certified);
        certified.ocsp = Some(answer);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Some((Arc::new(certified), until_seconds));
    }
}

/// Why one cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// It is the certificate: what failed, in OpenSSL's words.
    Certificate(String),
    /// It is the key: what failed, in OpenSSL's words, and what to do about it.
    Key(String, Option<String>),
    /// They do not belong together. The certificate of the file that the key belongs to, the first being 1, where
    /// there is one.
    Mismatch(Option<usize>),
    /// The key is of another kind than the certificate's (RSA, ECDSA ...). OpenSSL takes both, and uses neither.
    OtherKind,
}

/// What is worth a word to whoever wrote the configuration, though the certificate can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// It ended, at this time.
    Expired(String),
    /// It begins only then.
    NotYetValid(String),
    /// A certificate in the file, the first being 1, did not issue the one before it.
    WrongOrder(usize),
    /// It stands alone, though somebody else issued it who tells clients where to find the certificate that they
    /// need besides: the issuer, and where.
    Incomplete(String, String),
}

impl Identity {
    /// Makes an identity of the texts of two files.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(certificate: &[u8], key: &[u8], passwords: &[Vec<u8>]) -> Result<Identity, IdentityError> {
        let chain = chain(certificate).map_err(IdentityError::Certificate)?;
        let unreadable = |error| {
            let (what, help) = explain(error);
            IdentityError::Key(what, help)
        };
        let signer = load_key(&pem::sections(key), passwords).map_err(unreadable)?;
        match chain.iter().position(|der| belong_together(der, &*signer)) {
            Some(0) => Ok(Identity::new(chain, signer)),
            None if chain.first().is_some_and(|first| kinds_differ(first, &*signer)) => {
                Err(IdentityError::OtherKind)
            }
            other => Err(IdentityError::Mismatch(other.map(|at| at + 1))),
        }
    }

    /// Puts a certificate, the first of a chain, and its key together; none: they do not belong together.
    pub(crate) fn join(chain: Vec<CertificateDer<'static>>, signer: Arc<dyn SigningKey>) -> Option<Identity> {
        belong_together(chain.first()?, &*signer).then(|| Identity::new(chain, signer))
    }

    fn new(chain: Vec<CertificateDer<'static>>, signer: Arc<dyn SigningKey>) -> Identity {
        Identity { certified: Arc::new(CertifiedKey::new(chain, signer)), staple: None }
    }

    /// What goes into a handshake, with an answer to be stapled where there is one that holds.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        let stapled = self.staple.as_ref().and_then(|staple| {
            let current = staple.current.read().unwrap_or_else(PoisonError::into_inner);
            let (certified, until_seconds) = current.as_ref()?;
            (*until_seconds >= clock::wall().seconds).then(|| certified.clone())
        });
        stapled.unwrap_or_else(|| self.certified.clone())
    }

    /// Its key.
    pub(crate) fn key(&self) -> &dyn SigningKey {
        &*self.certified.key
    }

    /// The same with a place for an answer, and that place.
    pub fn with_staple(mut self) -> (Identity, Arc<Staple>) {
        let staple = self.staple.get_or_insert_default().clone();
        (self, staple)
    }

    /// The kind of its key.
    pub(crate) fn algorithm(&self) -> SignatureAlgorithm {
        self.certified.key.algorithm()
    }

    /// Are the two keys of one kind?
    pub fn has_key_like(&self, other: &Identity) -> bool {
        self.algorithm() == other.algorithm()
    }

    /// What is odd about it at this time (seconds since 1970).
    pub fn oddities(&self, now_seconds: i64) -> Vec<Oddity> {
        let mut odd = Vec::new();
        let chain: Vec<_> =
            self.certified.cert.iter().filter_map(|der| x509::Certificate::parse(der)).collect();
        if let Some(first) = chain.first() {
            if first.not_after < now_seconds {
                odd.extend(x509::time_text(first.validity[1]).map(Oddity::Expired));
            }
            if first.not_before > now_seconds {
                odd.extend(x509::time_text(first.validity[0]).map(Oddity::NotYetValid));
            }
        }
        if let Some(at) = chain.windows(2).position(|pair| pair[0].issuer != pair[1].subject) {
            odd.push(Oddity::WrongOrder(at + 2));
        }
        // Public authorities never issue such with the key that clients know.
        if let [alone] = &chain[..]
            && !alone.is_self_issued()
            && let Some(place) =
                alone.extensions.issuer_places.iter().find(|place| place.starts_with(b"http"))
        {
            let place = String::from_utf8_lossy(place).into_owned();
            odd.push(Oddity::Incomplete(x509::name_rfc2253(alone.issuer), place));
        }
        odd
    }

    /// When it is valid, seconds since 1970: the first and the last.
    pub fn validity(&self) -> Option<(i64, i64)> {
        let leaf = x509::Certificate::parse(self.certified.cert.first()?)?;
        Some((leaf.not_before, leaf.not_after))
    }

    /// Is it for this name, `*.name` or address?
    pub fn is_for(&self, name: &str) -> bool {
        self.certified.cert.first().is_some_and(|der| subjects::is_for_host(der, name))
    }

    /// The identifier of its issuer's key and its serial number (the content of the INTEGER), which name it where its
    /// issuer is asked about it (RFC 9773 section 4.1).
    pub fn issuer_key_and_serial(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let leaf = x509::Certificate::parse(self.certified.cert.first()?)?;
        Some((leaf.extensions.authority_key?.to_vec(), leaf.serial.to_vec()))
    }

    /// Was the topmost certificate of its chain issued by somebody with this common name?
    pub fn is_rooted_in(&self, common_name: &[u8]) -> bool {
        let top = self.certified.cert.last().and_then(|der| x509::Certificate::parse(der));
        top.is_some_and(|top| top.issuer_common_names().any(|name| name == common_name))
    }

    /// The certificates, the leaf first, as DER.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.certified.cert.iter().map(|der| &der[..])
    }
}

/// Is the key that of the certificate? A key that does not show its public half is believed.
fn belong_together(der: &[u8], signer: &dyn SigningKey) -> bool {
    let Some(certificate) = x509::Certificate::parse(der) else { return false };
    signer.public_key().is_none_or(|of_key| key_bits(&of_key) == key_bits(certificate.public_key))
}

/// Are certificate and key of different kinds?
fn kinds_differ(der: &[u8], signer: &dyn SigningKey) -> bool {
    let kind = |public_key: &[u8]| {
        let mut parts = Der(public_key).inside(tag::SEQUENCE)?;
        Some(parts.inside(tag::SEQUENCE)?.expect(tag::OID)?.to_vec())
    };
    let Some(certificate) = x509::Certificate::parse(der) else { return false };
    signer.public_key().is_some_and(|of_key| kind(&of_key) != kind(certificate.public_key))
}

/// A private key out of PEM, not encrypted, as DER: PKCS#8, PKCS#1 or SEC1.
///
/// # Errors
/// In OpenSSL's words.
pub fn private_key_der(text: &[u8]) -> Result<Vec<u8>, String> {
    let key = key::read(&pem::sections(text), &[]);
    key.map(|key| key.secret_der().to_vec()).map_err(|error| explain(error).0)
}

/// A key that notes what it signs with.
#[derive(Debug)]
struct NotedKey(Arc<dyn SigningKey>);

impl SigningKey for NotedKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(NotedSigner(self.0.choose_scheme(offered)?)))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

#[derive(Debug)]
struct NotedSigner(Box<dyn Signer>);

impl Signer for NotedSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        notes::signature(self.0.scheme());
        self.0.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        self.0.scheme()
    }
}

/// The bits of a public key, whatever is said about their algorithm.
fn key_bits(public_key: &[u8]) -> Option<&[u8]> {
    let mut parts = Der(public_key).inside(tag::SEQUENCE)?;
    parts.expect(tag::SEQUENCE)?;
    parts.expect(tag::BIT_STRING)
}

/// All certificates of a text, at least one.
///
/// # Errors
/// In OpenSSL's words.
pub(crate) fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut chain = Vec::new();
    for section in pem::sections(text) {
        if !matches!(&section.label[..], "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE") {
            continue;
        }
        let call = if chain.is_empty() { "PEM_read_bio_X509_AUX" } else { "PEM_read_bio_X509" };
        let mut der = section.der.ok_or_else(|| {
            format!("{call}() failed (SSL: error:04800064:PEM routines::bad base64 decode)")
        })?;
        // Behind a trusted certificate stands what OpenSSL trusts it with.
        if section.label == "TRUSTED CERTIFICATE" {
            let own_bytes = Der(&der).any().map_or(0, |certificate| certificate.whole.len());
            der.truncate(own_bytes);
        }
        if x509::Certificate::parse(&der).is_none() {
            return Err(format!(
                "{call}() failed (SSL: error:0688010A:asn1 encoding routines::nested asn1 error)"
            ));
        }
        chain.push(CertificateDer::from(der));
    }
    match chain.is_empty() {
        true => {
            Err("PEM_read_bio_X509_AUX() failed (SSL: error:0480006C:PEM routines::no start line:Expecting: \
                     TRUSTED CERTIFICATE)"
                .to_owned())
        }
        false => Ok(chain),
    }
}

/// The first key of a text's sections, ready to sign.
pub(crate) fn load_key(
    sections: &[pem::Section],
    passwords: &[Vec<u8>],
) -> Result<Arc<dyn SigningKey>, KeyError> {
    let key = key::read(sections, passwords)?;
    let signer = aws_lc_rs::default_provider().key_provider.load_private_key(key);
    Ok(Arc::new(NotedKey(signer.map_err(|_| KeyError::Malformed)?)))
}

/// That a file cannot be opened, in OpenSSL's words.
pub fn open_failed(path: &[u8], errno: i32, message: &str) -> String {
    /// "No such file" (`ENOENT`).
    const NO_ENTRY: i32 = 2;
    let reason = if errno == NO_ENTRY {
        "10000080:BIO routines::no such file"
    } else {
        "10080002:BIO routines::system lib"
    };
    let path = String::from_utf8_lossy(path);
    format!(
        "BIO_new_file() failed (SSL: error:{:08X}:system library::{message}:calling fopen({path}, r) error:{reason})",
        0x8000_0000_u32 | errno.unsigned_abs()
    )
}

/// A key's trouble in OpenSSL's words, and what to do.
pub(crate) fn explain(error: KeyError) -> (String, Option<String>) {
    let failed = |code: &str| format!("PEM_read_bio_PrivateKey() failed (SSL: error:{code})");
    match error {
        KeyError::NoKey => (
            failed("1E08010C:DECODER routines::unsupported:No supported data to decode. Input type: PEM"),
            Some("the file holds no private key; is it the certificate's file?".to_owned()),
        ),
        KeyError::Malformed => (failed("1E08010C:DECODER routines::unsupported"), None),
        KeyError::NoPassword => (
            failed("0480006D:PEM routines::problems getting password"),
            Some("the key is encrypted: name a file with its password in \"ssl_password_file\"".to_owned()),
        ),
        KeyError::WrongPassword => (
            failed("1C800064:Provider routines::bad decrypt error:04800065:PEM routines::bad decrypt"),
            Some("none of the lines of \"ssl_password_file\" is the key's password".to_owned()),
        ),
        KeyError::Cipher(name) => (
            failed("1E08010C:DECODER routines::unsupported"),
            Some(format!(
                "the key is encrypted with {name}, which is not supported; \
                 write it anew with \"openssl pkcs8 -topk8 -v2 aes256\""
            )),
        ),
    }
}
