//! What is read of a certificate (RFC 5280): for the variables that show it, for the keys and names in it, and for
//! judging chains.

use super::der::{Der, Value, small_number, tag, time, whole_bits};
use std::fmt::Write;

/// A certificate's parts, borrowed from its DER.
#[derive(Clone, Debug)]
pub(crate) struct Certificate<'a> {
    /// All of it.
    pub(crate) der: &'a [u8],
    /// What is signed.
    pub(crate) signed: &'a [u8],
    /// The signature's algorithm: the content of the AlgorithmIdentifier.
    pub(crate) signature_algorithm: &'a [u8],
    /// The signature.
    pub(crate) signature: &'a [u8],
    /// The serial number, as a big-endian integer.
    pub(crate) serial: &'a [u8],
    /// The issuer's name: the content of the Name.
    pub(crate) issuer: &'a [u8],
    /// The subject's name.
    pub(crate) subject: &'a [u8],
    /// The subject's name with its tag and length.
    pub(crate) subject_whole: &'a [u8],
    /// Seconds since 1970.
    pub(crate) not_before: i64,
    /// Seconds since 1970.
    pub(crate) not_after: i64,
    /// The two times as written, tag and text.
    pub(crate) validity: [Value<'a>; 2],
    /// The SubjectPublicKeyInfo, whole.
    pub(crate) public_key: &'a [u8],
    /// What the extensions say.
    pub(crate) extensions: Extensions<'a>,
}

/// The extensions that are looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extensions<'a> {
    /// `cA` of BasicConstraints; none where the extension is missing.
    pub(crate) is_authority: Option<bool>,
    /// `pathLenConstraint`.
    pub(crate) path_length_max: Option<u64>,
    /// Bits of KeyUsage, the first (`digitalSignature`) highest.
    pub(crate) key_usage: Option<u16>,
    /// Purposes of ExtKeyUsage, as the contents of the OIDs.
    pub(crate) purposes: Option<Vec<&'a [u8]>>,
    /// What NameConstraints says an authority may speak for.
    pub(crate) name_constraints: Option<&'a [u8]>,
    /// GeneralNames of SubjectAltName.
    pub(crate) names: Option<&'a [u8]>,
    /// `keyIdentifier` of AuthorityKeyIdentifier.
    pub(crate) authority_key: Option<&'a [u8]>,
    /// The responders of AuthorityInfoAccess that answer OCSP.
    pub(crate) ocsp_responders: Vec<&'a [u8]>,
    /// Where AuthorityInfoAccess says that the issuer's own certificate is.
    pub(crate) issuer_places: Vec<&'a [u8]>,
    /// A critical extension that is not understood.
    pub(crate) has_unknown_critical: bool,
}

/// `keyCertSign` and `cRLSign` of KeyUsage.
pub(crate) const KEY_CERT_SIGN: u16 = 1 << 10;

impl<'a> Certificate<'a> {
    /// Reads a certificate; `None` where it is none.
    pub(crate) fn parse(der: &'a [u8]) -> Option<Certificate<'a>> {
        let mut outer = Der(der).inside(tag::SEQUENCE)?;
        let signed = outer.optional(tag::SEQUENCE)?;
        let signature_algorithm = outer.expect(tag::SEQUENCE)?;
        let signature = whole_bits(outer.expect(tag::BIT_STRING)?)?;
        let mut parts = Der(signed.content);
        let _version = parts.optional(tag::context(0));
        let serial = parts.expect(tag::INTEGER)?;
        parts.expect(tag::SEQUENCE)?;
        let issuer = parts.expect(tag::SEQUENCE)?;
        let mut validity = parts.inside(tag::SEQUENCE)?;
        let validity = [validity.any()?, validity.any()?];
        let subject = parts.optional(tag::SEQUENCE)?;
        let public_key = parts.optional(tag::SEQUENCE)?.whole;
        let _issuer_id = parts.optional(tag::implicit(1));
        let _subject_id = parts.optional(tag::implicit(2));
        let extensions = match parts.inside(tag::context(3)) {
            Some(mut list) => Extensions::parse(list.inside(tag::SEQUENCE)?)?,
            None => Extensions::default(),
        };
        Some(Certificate {
            der,
            signed: signed.whole,
            signature_algorithm,
            signature,
            serial,
            issuer,
            subject: subject.content,
            subject_whole: subject.whole,
            not_before: time(validity[0])?,
            not_after: time(validity[1])?,
            validity,
            public_key,
            extensions,
        })
    }

    /// Is it signed by itself, going by the names?
    pub(crate) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// The last common name of the subject.
    pub(crate) fn common_name(&self) -> Option<&'a [u8]> {
        common_names(self.subject).last()
    }

    /// The common names of the issuer.
    pub(crate) fn issuer_common_names(&self) -> impl Iterator<Item = &'a [u8]> {
        common_names(self.issuer)
    }
}

impl<'a> Extensions<'a> {
    fn parse(list: Der<'a>) -> Option<Extensions<'a>> {
        let mut all = Extensions::default();
        for extension in list {
            let mut parts = Der(extension.content);
            let oid = parts.expect(tag::OID)?;
            let critical = parts.expect(tag::BOOLEAN).is_some_and(|content| content != [0]);
            let mut value = parts.inside(tag::OCTET_STRING)?;
            match oid {
                // basicConstraints
                [0x55, 0x1d, 19] => {
                    let mut parts = value.inside(tag::SEQUENCE)?;
                    all.is_authority = Some(parts.expect(tag::BOOLEAN).is_some_and(|content| content != [0]));
                    all.path_length_max = parts.expect(tag::INTEGER).and_then(small_number);
                }
                // keyUsage
                [0x55, 0x1d, 15] => {
                    let (_unused, bits) = value.expect(tag::BIT_STRING)?.split_first()?;
                    let byte = |n: usize| u16::from(bits.get(n).copied().unwrap_or_default());
                    all.key_usage = Some(byte(0) << 8 | byte(1));
                }
                // extKeyUsage
                [0x55, 0x1d, 37] => {
                    all.purposes =
                        Some(value.inside(tag::SEQUENCE)?.map(|purpose| purpose.content).collect());
                }
                // authorityKeyIdentifier
                [0x55, 0x1d, 35] => {
                    let key = value.inside(tag::SEQUENCE)?.find(|part| part.tag == tag::implicit(0));
                    all.authority_key = key.map(|key| key.content);
                }
                // nameConstraints
                [0x55, 0x1d, 30] => all.name_constraints = Some(value.expect(tag::SEQUENCE)?),
                // subjectAltName
                [0x55, 0x1d, 17] => all.names = Some(value.expect(tag::SEQUENCE)?),
                // authorityInfoAccess
                [0x2b, 6, 1, 5, 5, 7, 1, 1] => {
                    for access in value.inside(tag::SEQUENCE)? {
                        let mut parts = Der(access.content);
                        let places = match parts.expect(tag::OID) {
                            Some([0x2b, 6, 1, 5, 5, 7, 0x30, 1]) => &mut all.ocsp_responders,
                            Some([0x2b, 6, 1, 5, 5, 7, 0x30, 2]) => &mut all.issuer_places,
                            _ => continue,
                        };
                        places.extend(parts.expect(tag::implicit(6)));
                    }
                }
                // certificatePolicies and its kin restrict nothing that is decided here.
                [0x55, 0x1d, 32 | 36 | 54 | 33] => {}
                _ => all.has_unknown_critical |= critical,
            }
        }
        Some(all)
    }
}

fn common_names(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    const COMMON_NAME: &[u8] = &[0x55, 4, 3];
    attributes(name).filter(|(oid, _)| *oid == COMMON_NAME).map(|(_, value)| value.content)
}

/// The attributes of a name: OID and value, in the order they stand.
fn attributes(name: &[u8]) -> impl Iterator<Item = (&[u8], Value<'_>)> {
    Der(name).flat_map(|set| Der(set.content)).filter_map(|attribute| {
        let mut parts = Der(attribute.content);
        Some((parts.expect(tag::OID)?, parts.any()?))
    })
}

/// The email addresses in a name.
pub(crate) fn email_addresses(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    const EMAIL_ADDRESS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1];
    attributes(name).filter(|(oid, _)| *oid == EMAIL_ADDRESS).map(|(_, value)| value.content)
}

/// A name as nginx's `$ssl_client_s_dn` shows it (RFC 2253: the last attribute first).
pub(crate) fn name_rfc2253(name: &[u8]) -> String {
    let sets: Vec<String> = Der(name)
        .map(|set| {
            let whole = [set];
            let each = whole.iter().flat_map(|set| Der(set.content)).filter_map(|attribute| {
                let mut parts = Der(attribute.content);
                let (oid, value) = (parts.expect(tag::OID)?, parts.any()?);
                let mut text = short_name(oid).map_or_else(|| dotted(oid), str::to_owned);
                text.push('=');
                escape_rfc2253(&text_of(value), &mut text);
                Some(text)
            });
            each.collect::<Vec<_>>().join("+")
        })
        .collect();
    sets.into_iter().rev().collect::<Vec<_>>().join(",")
}

/// A name as `$ssl_client_s_dn_legacy` shows it: `/C=US/CN=x`.
pub(crate) fn name_legacy(name: &[u8]) -> String {
    let mut text = String::new();
    for (oid, value) in attributes(name) {
        let _ = write!(text, "/{}=", short_name(oid).map_or_else(|| dotted(oid), str::to_owned));
        for byte in value.content {
            match byte {
                b' '..=b'~' => text.push(char::from(*byte)),
                _ => _ = write!(text, "\\x{byte:02X}"),
            }
        }
    }
    text
}

/// The text of a value as UTF-8: a BMPString has two bytes a character, the others are taken as they are.
fn text_of(value: Value<'_>) -> Vec<u8> {
    const BMP_STRING: u8 = 0x1e;
    const T61_STRING: u8 = 0x14;
    match value.tag {
        BMP_STRING => {
            let units = value.content.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).map(|c| c.unwrap_or('\u{fffd}')).collect::<String>().into_bytes()
        }
        T61_STRING => value.content.iter().map(|byte| char::from(*byte)).collect::<String>().into_bytes(),
        _ => value.content.to_vec(),
    }
}

/// RFC 2253 section 2.4 as OpenSSL's `XN_FLAG_RFC2253` does it: what is no ASCII is written as `\XX`.
fn escape_rfc2253(value: &[u8], text: &mut String) {
    for (at, byte) in value.iter().enumerate() {
        let at_end = at == 0 || at + 1 == value.len();
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                text.push('\\');
                text.push(char::from(*byte));
            }
            b'#' if at == 0 => text.push_str("\\#"),
            b' ' if at_end => text.push_str("\\ "),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => _ = write!(text, "\\{byte:02X}"),
        }
    }
}

fn short_name(oid: &[u8]) -> Option<&'static str> {
    Some(match oid {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 4] => "SN",
        [0x55, 4, 5] => "serialNumber",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "street",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x55, 4, 12] => "title",
        [0x55, 4, 13] => "description",
        [0x55, 4, 15] => "businessCategory",
        [0x55, 4, 17] => "postalCode",
        [0x55, 4, 41] => "name",
        [0x55, 4, 42] => "GN",
        [0x55, 4, 43] => "initials",
        [0x55, 4, 44] => "generationQualifier",
        [0x55, 4, 46] => "dnQualifier",
        [0x55, 4, 65] => "pseudonym",
        [0x55, 4, 97] => "organizationIdentifier",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1] => "emailAddress",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        _ => return None,
    })
}

/// An OID as numbers and dots.
pub(crate) fn dotted(oid: &[u8]) -> String {
    let mut text = String::new();
    let mut number = 0u64;
    for byte in oid {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            match text.is_empty() {
                true => _ = write!(text, "{}.{}", (number / 40).min(2), number - 40 * (number / 40).min(2)),
                false => _ = write!(text, ".{number}"),
            }
            number = 0;
        }
    }
    text
}

/// A time as OpenSSL prints it: `Nov 26 11:30:43 2026 GMT`.
pub(crate) fn time_text(value: Value<'_>) -> Option<String> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    time(value)?;
    let text = std::str::from_utf8(value.content).ok()?;
    let (year, rest) = match value.tag {
        tag::UTC_TIME => {
            let century = if text.get(..2)? >= "50" { "19" } else { "20" };
            (format!("{century}{}", text.get(..2)?), text.get(2..)?)
        }
        _ => (text.get(..4)?.to_owned(), text.get(4..)?),
    };
    let month = MONTHS[rest.get(..2)?.parse::<usize>().ok()?.checked_sub(1)?];
    let day: u8 = rest.get(2..4)?.parse().ok()?;
    let second = rest.get(8..10).unwrap_or("00");
    Some(format!("{month} {day:2} {}:{}:{second} {year} GMT", rest.get(4..6)?, rest.get(6..8)?))
}
