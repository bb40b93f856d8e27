//! The forms of a stored password: `{PLAIN}`, `{SHA}`, `{SSHA}` and Apache's `$apr1$` as nginx knows them itself, and
//! those it leaves to the C library: traditional DES, `$1$`, `$5$`, `$6$` and bcrypt (`crypt(5)` describes them).

use super::des;
use http::authorization::{Base64, decode_base64};
use md5::Md5;
use sha1::Sha1;
use sha2::digest::{Digest, Output};
use sha2::{Sha256, Sha512};

/// The digits of crypt's base 64.
pub(super) const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// SHA-crypt's bounds on rounds and what it takes when none are given.
const ROUNDS: (usize, usize, usize) = (1000, 999_999_999, 5000);
/// SHA-crypt's longest salt, bytes.
const SHA_SALT_BYTES_MAX: usize = 16;
/// MD5-crypt's longest salt, bytes.
const MD5_SALT_BYTES_MAX: usize = 8;

/// Is this the password that was stored? A form that is not known matches nothing.
pub fn matches(password: &[u8], stored: &[u8]) -> bool {
    if let Some(plain) = stored.strip_prefix(b"{PLAIN}") {
        return equal(password, plain);
    }
    if let Some(text) = stored.strip_prefix(b"{SHA}") {
        return decode_base64(text, Base64::Plain).is_some_and(|sum| equal(&Sha1::digest(password), &sum));
    }
    if let Some(text) = stored.strip_prefix(b"{SSHA}") {
        let decoded = decode_base64(text, Base64::Plain).unwrap_or_default();
        let Some((sum, salt)) = decoded.split_at_checked(20) else { return false };
        return equal(&Sha1::new().chain_update(password).chain_update(salt).finalize(), sum);
    }
    let made = if stored.starts_with(b"$apr1$") {
        md5_crypt(password, stored, b"$apr1$")
    } else if stored.starts_with(b"$1$") {
        md5_crypt(password, stored, b"$1$")
    } else if stored.starts_with(b"$5$") {
        sha256_crypt(password, stored)
    } else if stored.starts_with(b"$6$") {
        sha512_crypt(password, stored)
    } else if stored.starts_with(b"$2") {
        let text = std::str::from_utf8(stored).unwrap_or_default();
        return bcrypt::verify(password, text).unwrap_or(false);
    } else {
        match des::crypt(password, stored) {
            Some(made) => made,
            None => return false,
        }
    };
    equal(&made, stored)
}

/// Compares in a time that does not tell where the first difference is.
fn equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// Appends the lowest `count` digits of a number, the lowest first.
fn push_digits(out: &mut Vec<u8>, mut value: u32, count: usize) {
    for _ in 0..count {
        out.push(DIGITS[(value & 63) as usize]);
        value >>= 6;
    }
}

/// Three bytes as one number, the first the highest.
fn join(bytes: [u8; 3]) -> u32 {
    let [high, middle, low] = bytes;
    u32::from_be_bytes([0, high, middle, low])
}

/// The salt behind a prefix: up to a dollar sign.
fn salt(text: &[u8], bytes_max: usize) -> &[u8] {
    let salt = text.split(|byte| *byte == b'$').next().unwrap_or_default();
    &salt[..salt.len().min(bytes_max)]
}

/// Poul-Henning Kamp's MD5-crypt.
fn md5_crypt(password: &[u8], stored: &[u8], magic: &[u8]) -> Vec<u8> {
    let salt = salt(stored.strip_prefix(magic).unwrap_or_default(), MD5_SALT_BYTES_MAX);
    let mut sum = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut first = Md5::new().chain_update(password).chain_update(magic).chain_update(salt);
    for piece in password.chunks(16) {
        first.update(&sum[..piece.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        // The second byte is the password's first, where there is one: bits are only left when there is.
        first.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    sum = first.finalize();
    for round in 0..1000 {
        sum = mixed_round::<Md5>(round, &sum, password, salt, password);
    }
    let mut made = [magic, salt, b"$"].concat();
    for [a, b, c] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        push_digits(&mut made, join([sum[a], sum[b], sum[c]]), 4);
    }
    push_digits(&mut made, u32::from(sum[11]), 2);
    made
}

/// The step that MD5-crypt and SHA-crypt repeat.
fn mixed_round<D: Digest>(
    round: usize,
    sum: &[u8],
    password: &[u8],
    salt: &[u8],
    second: &[u8],
) -> Output<D> {
    let odd = round % 2 == 1;
    let mut next = D::new();
    next.update(if odd { password } else { sum });
    if !round.is_multiple_of(3) {
        next.update(salt);
    }
    if !round.is_multiple_of(7) {
        next.update(second);
    }
    next.update(if odd { sum } else { password });
    next.finalize()
}

/// What both SHA-crypts do: the prefix of the result and the sum to encode.
fn sha_crypt<D: Digest>(password: &[u8], stored: &[u8], magic: &[u8]) -> (Vec<u8>, Output<D>) {
    let rest = stored.strip_prefix(magic).unwrap_or_default();
    let (rounds, rest) = given_rounds(rest);
    let salt = salt(rest, SHA_SALT_BYTES_MAX);
    let size = <D as Digest>::output_size();

    let other = D::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut first = D::new().chain_update(password).chain_update(salt);
    for piece in password.chunks(size) {
        first.update(&other[..piece.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        first.update(if bits & 1 == 1 { &other[..] } else { password });
        bits >>= 1;
    }
    let mut sum = first.finalize();

    let repeated = |what: &[u8], times: usize| {
        let mut digest = D::new();
        (0..times).for_each(|_| digest.update(what));
        digest.finalize()
    };
    let stretched = |sum: &[u8], length: usize| sum.iter().copied().cycle().take(length).collect::<Vec<u8>>();
    let password_bytes = stretched(&repeated(password, password.len()), password.len());
    let salt_bytes = stretched(&repeated(salt, 16 + usize::from(sum[0])), salt.len());
    for round in 0..rounds.unwrap_or(ROUNDS.2) {
        sum = mixed_round::<D>(round, &sum, &password_bytes, &salt_bytes, &password_bytes);
    }
    let rounds = rounds.map(|rounds| format!("rounds={rounds}$")).unwrap_or_default();
    ([magic, rounds.as_bytes(), salt, b"$"].concat(), sum)
}

/// `rounds=N$` and what follows.
fn given_rounds(rest: &[u8]) -> (Option<usize>, &[u8]) {
    let given = rest.strip_prefix(b"rounds=").and_then(|given| {
        let end = given.iter().position(|byte| *byte == b'$')?;
        Some((schema::value::number(&given[..end])?.clamp(ROUNDS.0, ROUNDS.1), &given[end + 1..]))
    });
    given.map_or((None, rest), |(rounds, rest)| (Some(rounds), rest))
}

fn sha256_crypt(password: &[u8], stored: &[u8]) -> Vec<u8> {
    let (mut made, sum) = sha_crypt::<Sha256>(password, stored, b"$5$");
    let (mut a, mut b, mut c) = (0, 10, 20);
    for _ in 0..10 {
        push_digits(&mut made, join([sum[a], sum[b], sum[c]]), 4);
        (a, b, c) = (c + 1, a + 1, b + 1);
    }
    push_digits(&mut made, join([0, sum[31], sum[30]]), 3);
    made
}

fn sha512_crypt(password: &[u8], stored: &[u8]) -> Vec<u8> {
    let (mut made, sum) = sha_crypt::<Sha512>(password, stored, b"$6$");
    let (mut a, mut b, mut c) = (0, 21, 42);
    for _ in 0..21 {
        push_digits(&mut made, join([sum[a], sum[b], sum[c]]), 4);
        (a, b, c) = (b + 1, c + 1, a + 1);
    }
    push_digits(&mut made, u32::from(sum[63]), 2);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Perl's crypt(), openssl passwd and htpasswd.
    const STORED: &[(&str, &str)] = &[
        ("secret", "{PLAIN}secret"),
        ("secret", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="),
        ("secret", "abNANd1rDfiNc"),
        ("secret", "./17m29LFAflg"),
        ("secret", "ZzU3r240Q6iws"),
        ("secret", "$1$saltsalt$9xy1btjgzLYfb7hivXtC//"),
        ("secret", "$1$x$0AXOYAuOs.uNCmG2qRI8W."),
        ("secret", "$5$saltstring$C3o4O1TC6aRHF4FI.QSZMXtHbaj2gSXr4sUc/3NcUi."),
        ("secret", "$5$rounds=1400$anotherlongsalts$hA9phAhHgeqcKTycY/LRKamQM18d5P2uD0VRrWGWMX6"),
        (
            "secret",
            "$6$saltstring$AIsRs/Ee56G/tC8MEHhvReZTfx8u3rXXMl6eYrjCG9ibix19DxoMBLogdTET5Ukw9Sf7eZTITsuk0Ry5qulYz.",
        ),
        (
            "secret",
            "$6$rounds=1000$abcdefghijklmnop$/ySzNKkDy6wawo9hTH6WxjPbiNMjvDjUNjja1ca1Iw8M6hvIP5521AJRYCq2LKFri/5fZ6KSUYfs/3ZzFVhh./",
        ),
        ("secret", "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"),
        ("secret", "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"),
        ("a much longer password than sixteen bytes, and more of it", "$1$saltsalt$rTbeWE8vZB3dEz5Gocr/w."),
        ("a much longer password than sixteen bytes, and more of it", "$1$x$AQx9r8yh1WTNX2cJoi2sB1"),
        (
            "a much longer password than sixteen bytes, and more of it",
            "$5$saltstring$bkKPFjADQuN09ZlJufZDbCdksKDTbN6.QMZrdOgfjRD",
        ),
        (
            "a much longer password than sixteen bytes, and more of it",
            "$5$rounds=1400$anotherlongsalts$PUwBANN6/J2iw5spDq.A9utLo.BhibCil9maJVsdMH/",
        ),
        (
            "a much longer password than sixteen bytes, and more of it",
            "$6$saltstring$hYIy5NMlNja5AuY76TZF6GhAbGa6.5kETxgs1rvzA2SscygxMVm6EoE34YRjP.yy575bse2UFFwvoypd.nO4U1",
        ),
        (
            "a much longer password than sixteen bytes, and more of it",
            "$6$rounds=1000$abcdefghijklmnop$vY4D/9gp71wNbhXxF3pKTNH/Tnp7hnHHuRG1gaazBmwP4NMZHOd98RCoito75YH.Bvjta5EEpKnftJfyBGZGI0",
        ),
        (
            "a much longer password than sixteen bytes, and more of it",
            "$2b$05$abcdefghijklmnopqrstuu3dmP5L0zaQE7Y2cki.sydeIbuXkXqs6",
        ),
        (
            "a much longer password than sixteen bytes, and more of it",
            "$2y$04$abcdefghijklmnopqrstuu7UyYAJaZ5WbdSdVxIUJpqe9Ph8ss5C.",
        ),
        ("secret", "$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/"),
        ("", "$apr1$ab$S8K6Sgp3W8c9Jb6LxgywZ."),
        ("secret", "{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0"),
    ];

    #[test]
    fn every_form_knows_its_password_and_no_other() {
        for (password, stored) in STORED {
            assert!(matches(password.as_bytes(), stored.as_bytes()), "{stored}");
            for wrong in ["", "secre", "secrets", "Secret"] {
                assert_eq!(
                    matches(wrong.as_bytes(), stored.as_bytes()),
                    wrong == *password,
                    "{wrong} {stored}"
                );
            }
        }
    }

    #[test]
    fn what_has_no_known_form_matches_nothing() {
        for stored in
            ["", "secret", "$9$x$y", "{SSHA}AAAA", "{SHA}", "$2y$05$short", "x", "$5$", "$6$rounds=5$"]
        {
            assert!(!matches(b"secret", stored.as_bytes()), "{stored}");
        }
    }
}
