//! Private keys as files hold them: PKCS#8, PKCS#1 and SEC1, plain or encrypted (PKCS#8 with PBES2, and the older PEM
//! form with `DEK-Info`).

use super::der::{Der, small_number, tag};
use super::pem::Section;
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2;
use md5::{Digest, Md5};
use rustls::pki_types::PrivateKeyDer;
use std::num::NonZeroU32;

/// More rounds than anybody uses would only hold up the start.
const ROUNDS_MAX: u64 = 10_000_000;

/// Why a key cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyError {
    /// There is no key in the text.
    NoKey,
    /// The text is damaged or in a form nobody knows.
    Malformed,
    /// It is encrypted and no password was given.
    NoPassword,
    /// None of the passwords is right.
    WrongPassword,
    /// It is encrypted in a way that is not supported.
    Cipher(String),
}

/// The first key among the sections.
pub(crate) fn read(sections: &[Section], passwords: &[Vec<u8>]) -> Result<PrivateKeyDer<'static>, KeyError> {
    let section = sections.iter().find(|section| section.label.ends_with("PRIVATE KEY"));
    let section = section.ok_or(KeyError::NoKey)?;
    let der = section.der.as_deref().ok_or(KeyError::Malformed)?;
    let plain = match (&section.encryption, &section.label[..]) {
        (Some(encryption), _) => unlock(passwords, |password| open_older(encryption, der, password))?,
        (None, "ENCRYPTED PRIVATE KEY") => unlock(passwords, |password| open_pkcs8(der, password))?,
        (None, _) => der.to_vec(),
    };
    match &section.label[..] {
        "PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" => Ok(PrivateKeyDer::Pkcs8(plain.into())),
        "RSA PRIVATE KEY" => Ok(PrivateKeyDer::Pkcs1(plain.into())),
        "EC PRIVATE KEY" => Ok(PrivateKeyDer::Sec1(plain.into())),
        _ => Err(KeyError::Malformed),
    }
}

/// Is the first key among the sections encrypted?
pub(crate) fn is_encrypted(sections: &[Section]) -> bool {
    let section = sections.iter().find(|section| section.label.ends_with("PRIVATE KEY"));
    section.is_some_and(|section| section.encryption.is_some() || section.label == "ENCRYPTED PRIVATE KEY")
}

/// Tries passwords, one after the other.
fn unlock(
    passwords: &[Vec<u8>],
    open: impl Fn(&[u8]) -> Result<Vec<u8>, KeyError>,
) -> Result<Vec<u8>, KeyError> {
    let mut last = KeyError::NoPassword;
    for password in passwords {
        match open(password) {
            Ok(plain) => return Ok(plain),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `DEK-Info: AES-128-CBC,<initial vector in hexadecimal>` (OpenSSL's PEM_read_bio_PrivateKey(3)).
fn open_older(encryption: &str, der: &[u8], password: &[u8]) -> Result<Vec<u8>, KeyError> {
    let (name, vector) = encryption.split_once(',').ok_or(KeyError::Malformed)?;
    let algorithm = match name {
        "AES-128-CBC" => &AES_128,
        "AES-192-CBC" => &AES_192,
        "AES-256-CBC" => &AES_256,
        other => return Err(KeyError::Cipher(other.to_owned())),
    };
    let vector = hexadecimal(vector.trim()).filter(|vector| vector.len() == 16).ok_or(KeyError::Malformed)?;
    let mut key = Vec::new();
    let mut block = Vec::new();
    while key.len() < key_bytes(algorithm) {
        let hash = Md5::new().chain_update(&block).chain_update(password).chain_update(&vector[..8]);
        block = hash.finalize().to_vec();
        key.extend_from_slice(&block);
    }
    key.truncate(key_bytes(algorithm));
    decrypt(algorithm, &key, &vector, der)
}

/// EncryptedPrivateKeyInfo with PBES2 (RFC 8018).
fn open_pkcs8(der: &[u8], password: &[u8]) -> Result<Vec<u8>, KeyError> {
    const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 13];
    const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 12];
    let parts = || {
        let mut outer = Der(der).inside(tag::SEQUENCE)?;
        let mut algorithm = outer.inside(tag::SEQUENCE)?;
        Some((
            algorithm.expect(tag::OID)?,
            algorithm.inside(tag::SEQUENCE)?,
            outer.expect(tag::OCTET_STRING)?,
        ))
    };
    let (scheme, mut parameters, content) = parts().ok_or(KeyError::Malformed)?;
    if scheme != PBES2 {
        return Err(KeyError::Cipher(super::x509::dotted(scheme)));
    }
    let mut both = || Some((parameters.inside(tag::SEQUENCE)?, parameters.inside(tag::SEQUENCE)?));
    let (mut derivation, mut cipher) = both().ok_or(KeyError::Malformed)?;
    let derivation_name = derivation.expect(tag::OID).ok_or(KeyError::Malformed)?;
    if derivation_name != PBKDF2 {
        return Err(KeyError::Cipher(super::x509::dotted(derivation_name)));
    }
    let cipher_name = cipher.expect(tag::OID).ok_or(KeyError::Malformed)?;
    let algorithm = match cipher_name {
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 2] => &AES_128,
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 22] => &AES_192,
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 42] => &AES_256,
        other => return Err(KeyError::Cipher(super::x509::dotted(other))),
    };
    let vector = cipher.expect(tag::OCTET_STRING).filter(|v| v.len() == 16).ok_or(KeyError::Malformed)?;
    let key =
        derive(derivation.inside(tag::SEQUENCE).ok_or(KeyError::Malformed)?, key_bytes(algorithm), password)?;
    decrypt(algorithm, &key, vector, content)
}

/// PBKDF2 with the parameters of a file.
fn derive(mut parameters: Der<'_>, bytes: usize, password: &[u8]) -> Result<Vec<u8>, KeyError> {
    let salt = parameters.expect(tag::OCTET_STRING).ok_or(KeyError::Malformed)?;
    let rounds =
        parameters.expect(tag::INTEGER).and_then(small_number).filter(|rounds| *rounds <= ROUNDS_MAX);
    let rounds = rounds.and_then(|rounds| NonZeroU32::new(rounds as u32)).ok_or(KeyError::Malformed)?;
    let _key_length = parameters.optional(tag::INTEGER);
    let function = match parameters.inside(tag::SEQUENCE).and_then(|mut function| function.expect(tag::OID)) {
        None | Some([.., 2, 7]) => pbkdf2::PBKDF2_HMAC_SHA1,
        Some([.., 2, 9]) => pbkdf2::PBKDF2_HMAC_SHA256,
        Some([.., 2, 10]) => pbkdf2::PBKDF2_HMAC_SHA384,
        Some([.., 2, 11]) => pbkdf2::PBKDF2_HMAC_SHA512,
        Some(other) => return Err(KeyError::Cipher(super::x509::dotted(other))),
    };
    let mut key = vec![0; bytes];
    pbkdf2::derive(function, rounds, salt, password, &mut key);
    Ok(key)
}

fn key_bytes(algorithm: &'static Algorithm) -> usize {
    match () {
        () if algorithm == &AES_128 => 16,
        () if algorithm == &AES_192 => 24,
        () => 32,
    }
}

fn decrypt(
    algorithm: &'static Algorithm,
    key: &[u8],
    vector: &[u8],
    content: &[u8],
) -> Result<Vec<u8>, KeyError> {
    let key = UnboundCipherKey::new(algorithm, key).map_err(|_| KeyError::Malformed)?;
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_| KeyError::Malformed)?;
    let vector: [u8; 16] = vector.try_into().map_err(|_| KeyError::Malformed)?;
    let mut content = content.to_vec();
    let context = DecryptionContext::Iv128(FixedLength::from(&vector));
    let plain = key.decrypt(&mut content, context).map_err(|_| KeyError::WrongPassword)?;
    // Padding may be right by chance; a key is a sequence that fills the whole.
    let mut rest = Der(plain);
    match rest.expect(tag::SEQUENCE) {
        Some(_) if rest.is_empty() => Ok(plain.to_vec()),
        _ => Err(KeyError::WrongPassword),
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
