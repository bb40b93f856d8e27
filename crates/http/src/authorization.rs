//! Basic authentication: the user and the password a client sends (RFC 7617).

use crate::fields::Fields;
use bstr::BString;

/// What an `Authorization` field says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basic {
    /// The user, never empty.
    pub user: BString,
    /// The password, may be empty.
    pub password: BString,
}

/// The user and password of `Authorization: Basic ...`. `None` when there is none, when it does not decode, or when
/// it has no user or no colon.
pub fn basic(fields: &Fields) -> Option<Basic> {
    basic_in(fields.get(b"Authorization")?)
}

/// As [`basic`], of one header value: `Proxy-Authorization` has the same form.
pub fn basic_in(value: &[u8]) -> Option<Basic> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let spaces = rest.iter().take_while(|&&byte| byte == b' ').count();
    let mut text = decode_base64(rest.get(spaces..)?, Base64::Plain)?;
    let colon = memchr::memchr(b':', &text).filter(|&colon| colon > 0)?;
    let password = text.split_off(colon + 1);
    text.truncate(colon);
    Some(Basic { user: text.into(), password: password.into() })
}

/// Which alphabet stands for 62 and 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base64 {
    /// `+` and `/`.
    Plain,
    /// `-` and `_`.
    Url,
}

/// Decodes base64 as leniently as nginx: everything from the first `=` is ignored, padding may be missing.
/// `None` for any other byte outside the alphabet, and for a length that nothing encodes to.
pub fn decode_base64(text: &[u8], alphabet: Base64) -> Option<Vec<u8>> {
    let text = text.split(|&byte| byte == b'=').next().unwrap_or_default();
    if text.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits: u32 = 0;
        for &byte in group {
            bits = bits << 6 | u32::from(sextet(byte, alphabet)?);
        }
        bits <<= 6 * (4 - group.len());
        let [_, bytes @ ..] = bits.to_be_bytes();
        out.extend_from_slice(bytes.get(..group.len() - 1).unwrap_or_default());
    }
    Some(out)
}

fn sextet(byte: u8, alphabet: Base64) -> Option<u8> {
    Some(match (byte, alphabet) {
        (b'A'..=b'Z', _) => byte - b'A',
        (b'a'..=b'z', _) => byte - b'a' + 26,
        (b'0'..=b'9', _) => byte - b'0' + 52,
        (b'+', Base64::Plain) | (b'-', Base64::Url) => 62,
        (b'/', Base64::Plain) | (b'_', Base64::Url) => 63,
        _ => return None,
    })
}

/// Appends `bytes` in base64 with padding.
pub fn encode_base64(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for index in 0..4 {
            out.push(if index > group.len() {
                b'='
            } else {
                DIGITS[(bits >> (18 - 6 * index) & 63) as usize]
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_as_nginx_reads_them() {
        let cases: &[(&str, Option<(&str, &str)>)] = &[
            ("Basic dXNlcjpwYTpzcw==", Some(("user", "pa:ss"))),
            ("basic   dXNlcjo", Some(("user", ""))),
            ("Basic dXNlcjo=junk!", Some(("user", ""))),
            ("Basic dXNlcg==", None),
            ("Basic OnBhc3M=", None),
            ("Basic dXNl!g==", None),
            ("Basic d", None),
            ("Basic ", None),
            ("Bearer dXNlcjo=", None),
        ];
        for (value, expected) in cases {
            let expected =
                expected.map(|(user, password)| Basic { user: user.into(), password: password.into() });
            assert_eq!(basic_in(value.as_bytes()), expected, "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_encoded_is_decoded(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            let mut text = Vec::new();
            encode_base64(&bytes, &mut text);
            proptest::prop_assert_eq!(text.len() % 4, 0);
            proptest::prop_assert_eq!(decode_base64(&text, Base64::Plain), Some(bytes));
        }
    }
}
