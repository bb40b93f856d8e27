//! Keys: of accounts, which sign requests (RFC 7515, RFC 7518), and of certificates.

use crate::base64url;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use std::fmt;

/// Kinds of keys that are made, by what `account_key` and `key=` call them. The order is that of nginx-acme, whose names
/// of orders depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// `ecdsa:256`, `ecdsa:384`, `ecdsa:521`.
    Ecdsa(u32),
    /// `rsa:2048`, `rsa:3072`, `rsa:4096`.
    Rsa(u32),
}

impl Default for KeyKind {
    fn default() -> Self {
        KeyKind::Ecdsa(256)
    }
}

/// Why there is no such kind, in nginx-acme's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKindError {
    /// Of a size that is not made.
    Size,
    /// On a curve that is not known.
    Curve,
}

impl fmt::Display for KeyKindError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            KeyKindError::Size => "unsupported key size",
            KeyKindError::Curve => "unsupported curve",
        })
    }
}

impl KeyKind {
    /// Reads `algorithm[:size]`; none for what is no algorithm: a file's name, perhaps.
    ///
    /// # Errors
    /// The algorithm has no such size.
    pub fn parse(text: &[u8]) -> Result<Option<KeyKind>, KeyKindError> {
        let (name, size) = match text.iter().position(|byte| *byte == b':') {
            Some(colon) => (&text[..colon], Some(&text[colon + 1..])),
            None => (text, None),
        };
        Ok(Some(match (name, size) {
            (b"ecdsa", None | Some(b"256")) => KeyKind::Ecdsa(256),
            (b"ecdsa", Some(b"384")) => KeyKind::Ecdsa(384),
            (b"ecdsa", Some(b"521")) => KeyKind::Ecdsa(521),
            (b"ecdsa", _) => return Err(KeyKindError::Curve),
            (b"rsa", None | Some(b"2048")) => KeyKind::Rsa(2048),
            (b"rsa", Some(b"3072")) => KeyKind::Rsa(3072),
            (b"rsa", Some(b"4096")) => KeyKind::Rsa(4096),
            (b"rsa", _) => return Err(KeyKindError::Size),
            _ => return Ok(None),
        }))
    }

    /// Makes a key. Those of RSA take a while.
    ///
    /// # Errors
    /// What the library has against it.
    pub(crate) fn make(self) -> Result<rcgen::KeyPair, String> {
        let made = match self {
            KeyKind::Ecdsa(384) => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            KeyKind::Ecdsa(521) => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
            KeyKind::Ecdsa(_) => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyKind::Rsa(size) => {
                let size = match size {
                    4096 => rcgen::RsaKeySize::_4096,
                    3072 => rcgen::RsaKeySize::_3072,
                    _ => rcgen::RsaKeySize::_2048,
                };
                rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size)
            }
        };
        made.map_err(|error| error.to_string())
    }

    /// Makes a key, as PEM.
    ///
    /// # Errors
    /// What the library has against it.
    pub fn make_pem(self) -> Result<String, String> {
        self.make().map(|key| key.serialize_pem())
    }
}

/// An account's key.
pub struct Key {
    pair: Pair,
    random: SystemRandom,
}

enum Pair {
    /// The bits of the curve, and the pair.
    Ecdsa(u32, EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl Key {
    /// Reads a key out of DER: PKCS#8, SEC1 or PKCS#1.
    ///
    /// # Errors
    /// It is of no kind that signs requests.
    pub fn read(der: &[u8]) -> Result<Key, String> {
        let curves = [
            (256, &ECDSA_P256_SHA256_FIXED_SIGNING),
            (384, &ECDSA_P384_SHA384_FIXED_SIGNING),
            (521, &ECDSA_P521_SHA512_FIXED_SIGNING),
        ];
        let random = SystemRandom::new();
        for (bits, curve) in curves {
            if let Ok(pair) = EcdsaKeyPair::from_private_key_der(curve, der) {
                return Ok(Key { pair: Pair::Ecdsa(bits, pair), random });
            }
        }
        let rsa = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der));
        match rsa {
            Ok(pair) => Ok(Key { pair: Pair::Rsa(Box::new(pair)), random }),
            Err(_) => Err("neither an ECDSA key (P-256, P-384, P-521) nor an RSA key".to_owned()),
        }
    }

    /// The name of its signatures (RFC 7518 section 3.1).
    pub(crate) fn algorithm(&self) -> &'static str {
        match &self.pair {
            Pair::Ecdsa(384, _) => "ES384",
            Pair::Ecdsa(521, _) => "ES512",
            Pair::Ecdsa(..) => "ES256",
            Pair::Rsa(_) => "RS256",
        }
    }

    /// The public key as JSON, its members in the order of their names as RFC 7638 section 3 wants them.
    pub fn public(&self) -> String {
        match &self.pair {
            Pair::Ecdsa(bits, pair) => {
                // An uncompressed point: 4, then both coordinates.
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                let (x, y) = (base64url(x), base64url(y));
                format!(r#"{{"crv":"P-{bits}","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
            Pair::Rsa(pair) => {
                // RSAPublicKey (RFC 8017 appendix A.1.1): a sequence of both numbers.
                let numbers = pair.public_key().as_ref();
                let (numbers, _) = der_value(numbers).unwrap_or_default();
                let (modulus, rest) = der_value(numbers).unwrap_or_default();
                let (exponent, _) = der_value(rest).unwrap_or_default();
                let (modulus, exponent) = (unsigned(modulus), unsigned(exponent));
                format!(r#"{{"e":"{exponent}","kty":"RSA","n":"{modulus}"}}"#)
            }
        }
    }

    /// What proofs carry (RFC 8555 section 8.1): the token and the thumbprint of the key (RFC 7638).
    pub fn authorization(&self, token: &str) -> String {
        let thumbprint = digest(&SHA256, self.public().as_bytes());
        format!("{token}.{}", base64url(thumbprint.as_ref()))
    }

    /// Signs.
    ///
    /// # Errors
    /// What the library has against it.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        match &self.pair {
            Pair::Ecdsa(_, pair) => {
                let signature = pair.sign(&self.random, message);
                signature.map(|signature| signature.as_ref().to_vec()).map_err(|error| error.to_string())
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, &self.random, message, &mut signature);
                signed.map(|()| signature).map_err(|error| error.to_string())
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Key({})", self.algorithm())
    }
}

/// The content of a value of DER, and what stands behind it.
fn der_value(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = der.get(1..)?.split_first()?;
    match length {
        0..=0x7f => rest.split_at_checked(usize::from(length)),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            rest.split_at_checked(length.iter().fold(0, |all, byte| all << 8 | usize::from(*byte)))
        }
        _ => None,
    }
}

/// A number without the zero that keeps it from being negative (RFC 7518 section 2).
fn unsigned(number: &[u8]) -> String {
    base64url(number.strip_prefix(&[0]).unwrap_or(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (text, expected) in [
            ("ecdsa", Ok(Some(KeyKind::Ecdsa(256)))),
            ("ecdsa:521", Ok(Some(KeyKind::Ecdsa(521)))),
            ("rsa", Ok(Some(KeyKind::Rsa(2048)))),
            ("rsa:4096", Ok(Some(KeyKind::Rsa(4096)))),
            ("ecdsa:234", Err(KeyKindError::Curve)),
            ("rsa:1024", Err(KeyKindError::Size)),
            ("account.key", Ok(None)),
        ] {
            assert_eq!(KeyKind::parse(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn every_kind_is_made_and_read_and_signs() {
        for (kind, algorithm, signature_bytes) in [
            (KeyKind::Ecdsa(256), "ES256", 64),
            (KeyKind::Ecdsa(384), "ES384", 96),
            (KeyKind::Ecdsa(521), "ES512", 132),
            (KeyKind::Rsa(2048), "RS256", 256),
        ] {
            let made = kind.make().expect("the library makes such keys");
            let key = Key::read(made.serialized_der()).expect("what it makes is read");
            assert_eq!(key.algorithm(), algorithm);
            assert_eq!(key.sign(b"x").map(|signature| signature.len()), Ok(signature_bytes));
        }
        assert!(Key::read(b"no key").is_err());
    }

    #[test]
    fn public_keys_have_their_members_in_order_and_nothing_else() {
        for (kind, members) in
            [(KeyKind::Ecdsa(256), &["crv", "kty", "x", "y"][..]), (KeyKind::Rsa(2048), &["e", "kty", "n"])]
        {
            let key = kind.make().and_then(|made| Key::read(made.serialized_der()));
            let public = key.expect("it is made and read").public();
            let places: Vec<_> = members.iter().map(|name| public.find(&format!("\"{name}\":"))).collect();
            assert!(places.is_sorted() && places[0] == Some(1), "{public}");
            assert!(!public.contains(' '));
        }
        let key = KeyKind::Rsa(2048).make().and_then(|made| Key::read(made.serialized_der()));
        let public = key.expect("it is made and read").public();
        assert!(public.starts_with(r#"{"e":"AQAB","#), "{public}");
        // 256 bytes in base64url.
        assert_eq!(public.len(), r#"{"e":"AQAB","kty":"RSA","n":""}"#.len() + 342, "{public}");
    }
}
