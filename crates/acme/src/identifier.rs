//! Whom a certificate is for: names and addresses, as `acme_certificate` and `server_name` write them, and the name
//! under which an order is kept.

use crate::KeyKind;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

/// One identifier of an order (RFC 8555 section 9.7.7, RFC 8738).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identifier {
    /// A name, in lower case.
    Dns(String),
    /// An address, in its canonical form.
    Ip(String),
}

/// Why a text is no identifier. Worded as nginx-acme words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// A byte that no name has.
    Invalid(u8, usize),
    /// A character where it may not stand.
    Unexpected(char, usize),
    /// The last label is empty.
    NotALabel,
}

impl fmt::Display for NameError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Invalid(byte, at) => write!(out, "invalid character {byte:x} at position {at}"),
            NameError::Unexpected(character, at) => {
                write!(out, "unexpected character '{character}' at position {at}")
            }
            NameError::NotALabel => out.write_str("does not end with a label"),
        }
    }
}

impl Identifier {
    /// Reads one word. A leading dot stands for the name with `www.` and without, as in `server_name`.
    ///
    /// # Errors
    /// It is neither an address nor a name.
    pub fn parse(text: &str) -> Result<Vec<Identifier>, NameError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(vec![Identifier::Ip(address.to_string())]);
        }
        check_name(text)?;
        let name = text.to_ascii_lowercase();
        Ok(match name.strip_prefix('.') {
            Some(bare) => vec![Identifier::Dns(format!("www.{bare}")), Identifier::Dns(bare.to_owned())],
            None => vec![Identifier::Dns(name)],
        })
    }

    /// The name or the address.
    pub fn value(&self) -> &str {
        match self {
            Identifier::Dns(value) | Identifier::Ip(value) => value,
        }
    }

    /// How issuers call its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Identifier::Dns(_) => "dns",
            Identifier::Ip(_) => "ip",
        }
    }

    /// The name by which an issuer asks for it over TLS (RFC 8737 section 3, RFC 8738 section 6).
    pub fn tls_name(&self) -> String {
        match self {
            Identifier::Dns(name) => name.clone(),
            Identifier::Ip(text) => match text.parse() {
                Ok(IpAddr::V4(address)) => {
                    let [a, b, c, d] = address.octets();
                    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
                }
                Ok(IpAddr::V6(address)) => {
                    let nibbles = address.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
                    let digits: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
                    format!("{}.ip6.arpa", digits.join("."))
                }
                Err(_) => text.clone(),
            },
        }
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.value())
    }
}

/// Checks a name as nginx-acme does: printable, with at most a leading dot or one leading wildcard label, and a label
/// at its end.
fn check_name(name: &str) -> Result<(), NameError> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Start,
        Label,
        Dot,
        Wildcard,
    }
    let mut state = State::Start;
    for (at, byte) in name.bytes().enumerate() {
        let unexpected = || NameError::Unexpected(char::from(byte), at);
        state = match byte {
            0..=0x20 | 0x7f.. => return Err(NameError::Invalid(byte, at)),
            b'*' if state == State::Start => State::Wildcard,
            b'.' if state != State::Dot => State::Dot,
            _ if state == State::Wildcard => return Err(unexpected()),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' | b'%' => State::Label,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'+' | b',' | b';' | b'=' => State::Label,
            _ => return Err(unexpected()),
        };
    }
    if state == State::Label { Ok(()) } else { Err(NameError::NotALabel) }
}

/// The name of an order in logs and files, the same that nginx-acme gives it, so that what that module has kept is found:
/// the first name, and a hash of all identifiers and the key's kind. Holds no slash and begins with no dot.
pub fn order_name(identifiers: &[Identifier], key: KeyKind) -> String {
    let dns = identifiers.iter().find(|identifier| matches!(identifier, Identifier::Dns(_)));
    let first = dns.or(identifiers.first()).map_or("", Identifier::value);
    let first: String = first.chars().take(FIRST_NAME_BYTES_MAX).collect();
    // SipHash 2-4 with keys of zero, which is what that module takes and what this deprecated hasher will stay.
    #[expect(deprecated)]
    let mut hasher = std::hash::SipHasher::new();
    identifiers.hash(&mut hasher);
    key.hash(&mut hasher);
    format!("{first}-{:x}", hasher.finish())
}

/// How much of a name goes into a file's name, bytes; names of DNS are no longer.
const FIRST_NAME_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let dns = |name: &str| Identifier::Dns(name.to_owned());
        for (text, expected) in [
            ("example", Ok(vec![dns("example")])),
            ("Exam_ple.Test", Ok(vec![dns("exam_ple.test")])),
            (".Example.test", Ok(vec![dns("www.example.test"), dns("example.test")])),
            ("*.example.test", Ok(vec![dns("*.example.test")])),
            ("192.0.2.1", Ok(vec![Identifier::Ip("192.0.2.1".to_owned())])),
            ("2001:DB8:0::1", Ok(vec![Identifier::Ip("2001:db8::1".to_owned())])),
            ("Example.", Err(NameError::NotALabel)),
            ("", Err(NameError::NotALabel)),
            ("*", Err(NameError::NotALabel)),
            ("E\u{10}ample", Err(NameError::Invalid(0x10, 1))),
            ("www.example..test", Err(NameError::Unexpected('.', 12))),
            ("*ww.example.test", Err(NameError::Unexpected('w', 1))),
            ("www.example.*", Err(NameError::Unexpected('*', 12))),
            ("../../etc/passwd", Err(NameError::Unexpected('.', 1))),
            ("a/b", Err(NameError::Unexpected('/', 1))),
        ] {
            assert_eq!(Identifier::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn orders_are_named_as_nginx_acme_names_them() {
        let identifiers =
            [Identifier::Dns("example.test".to_owned()), Identifier::Ip("192.0.2.1".to_owned())];
        // The hash that the hasher of that module gives for the same values.
        assert_eq!(order_name(&identifiers, KeyKind::Ecdsa(256)), "example.test-b6660e55302a4c0b");
        let other = order_name(&identifiers, KeyKind::Rsa(2048));
        assert_ne!(other, order_name(&identifiers, KeyKind::Ecdsa(256)));
        assert!(order_name(&identifiers[1..], KeyKind::Rsa(2048)).starts_with("192.0.2.1-"));
    }

    #[test]
    fn names_over_tls() {
        for (text, expected) in [
            ("example.test", "example.test"),
            ("192.0.2.1", "1.2.0.192.in-addr.arpa"),
            ("2001:db8::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"),
        ] {
            let identifiers = Identifier::parse(text).expect("the text is an identifier");
            assert_eq!(identifiers[0].tls_name(), expected);
        }
    }
}
