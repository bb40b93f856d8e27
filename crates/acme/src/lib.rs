//! ACME (RFC 8555) without input and output: whom certificates are for, keys, signed requests, what issuers answer, and
//! the requests and proofs that certificates take. Who sends it, when, and where results are kept is up to `engine`.

#![forbid(unsafe_code)]

pub mod answer;
mod certificate;
pub mod identifier;
mod key;
mod problem;
pub mod request;
mod url;

pub use certificate::{certificate_request, challenge_certificate, renewal_name};
pub use identifier::{Identifier, NameError, order_name};
pub use key::{Key, KeyKind, KeyKindError};
pub use problem::Problem;
pub use url::Url;

/// base64url without padding (RFC 7515 section 2).
pub fn base64url(bytes: &[u8]) -> String {
    let mut plain = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    http::authorization::encode_base64(bytes, &mut plain);
    let digits = plain.into_iter().take_while(|byte| *byte != b'=').map(|byte| match byte {
        b'+' => '-',
        b'/' => '_',
        other => char::from(other),
    });
    digits.collect()
}

#[cfg(test)]
mod tests {
    use super::base64url;

    #[test]
    fn base64url_has_its_own_alphabet_and_no_padding() {
        for (bytes, text) in [(&b""[..], ""), (b"\xfb\xff", "-_8"), (b"\xff\xfe\xfd", "__79"), (b"a", "YQ")] {
            assert_eq!(base64url(bytes), text);
        }
    }
}
