//! Requests for certificates (RFC 2986), the certificate that proves a name over TLS (RFC 8737), and the name under which
//! renewal information is asked for (RFC 9773).

use crate::{Identifier, KeyKind, base64url};
use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair};

/// A certificate request with a key made for it: the key as PEM, the request as DER.
///
/// # Errors
/// A name that no certificate can carry, in the library's words.
pub fn certificate_request(
    identifiers: &[Identifier],
    key: KeyKind,
    has_common_name: bool,
) -> Result<(String, Vec<u8>), String> {
    let pair = key.make()?;
    let mut parameters = parameters(identifiers)?;
    let dns = identifiers.iter().find(|identifier| matches!(identifier, Identifier::Dns(_)));
    if let Some(name) = dns.or(identifiers.first()).filter(|_| has_common_name) {
        parameters.distinguished_name.push(DnType::CommonName, name.value());
    }
    let request = parameters.serialize_request(&pair).map_err(|error| error.to_string())?;
    Ok((pair.serialize_pem(), request.der().to_vec()))
}

/// The certificate that answers a `tls-alpn-01` challenge, and its key, as PEM (RFC 8737 section 3).
///
/// # Errors
/// As [`certificate_request`].
pub fn challenge_certificate(
    identifier: &Identifier,
    key_authorization: &str,
) -> Result<(String, String), String> {
    let pair = KeyPair::generate().map_err(|error| error.to_string())?;
    let mut parameters = parameters(std::slice::from_ref(identifier))?;
    let hash = digest(&SHA256, key_authorization.as_bytes());
    // The library makes it critical, as it must be.
    parameters.custom_extensions.push(CustomExtension::new_acme_identifier(hash.as_ref()));
    let certificate = parameters.self_signed(&pair).map_err(|error| error.to_string())?;
    Ok((certificate.pem(), pair.serialize_pem()))
}

fn parameters(identifiers: &[Identifier]) -> Result<CertificateParams, String> {
    let names: Vec<String> = identifiers.iter().map(|identifier| identifier.value().to_owned()).collect();
    let mut parameters = CertificateParams::new(names).map_err(|error| error.to_string())?;
    parameters.distinguished_name = DistinguishedName::new();
    Ok(parameters)
}

/// How renewal information names a certificate (RFC 9773 section 4.1): by its issuer's key and its serial number, the
/// content of the INTEGER.
pub fn renewal_name(authority_key: &[u8], serial: &[u8]) -> String {
    format!("{}.{}", base64url(authority_key), base64url(serial))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 9773 section 4.1.
    #[test]
    fn renewal_names() {
        let authority_key = [
            0x69, 0x88, 0x5b, 0x6b, 0x87, 0x46, 0x40, 0x41, 0xe1, 0xb3, 0x7b, 0x84, 0x7b, 0xa0, 0xae, 0x2c,
            0xde, 0x01, 0xc8, 0xd4,
        ];
        let serial = [0x00, 0x87, 0x65, 0x43, 0x21];
        assert_eq!(renewal_name(&authority_key, &serial), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
    }

    #[test]
    fn names_that_no_certificate_carries_are_refused() {
        let name = [Identifier::Dns("b\u{fc}cher.test".to_owned())];
        assert!(certificate_request(&name, KeyKind::default(), false).is_err());
    }
}
