//! Names of protocols, ciphers, curves and signature algorithms: those that configurations write, which are OpenSSL's,
//! and what this library has for them.

use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::{
    CipherSuite, NamedGroup, ProtocolVersion, SignatureAlgorithm, SignatureScheme, SupportedCipherSuite,
};

/// The TLS 1.2 ciphers that exist here, by OpenSSL's names, in OpenSSL's order of preference, with the words that name
/// groups of them.
const CIPHERS: [(&str, CipherSuite, &[&str]); 6] = [
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        &["ECDSA", "aECDSA", "AES", "AES256", "AESGCM"],
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        &["aRSA", "AES", "AES256", "AESGCM"],
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        &["ECDSA", "aECDSA", "CHACHA20"],
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        &["aRSA", "CHACHA20"],
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        &["ECDSA", "aECDSA", "AES", "AES128", "AESGCM"],
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        &["aRSA", "AES", "AES128", "AESGCM"],
    ),
];

/// Words that name all of [`CIPHERS`].
const ALL_CIPHERS: [&str; 11] =
    ["ALL", "DEFAULT", "HIGH", "ECDHE", "EECDH", "kECDHE", "kEECDH", "ECDH", "TLSv1.2", "FIPS", "AEAD"];

/// Words that name groups of which nothing exists here: not worth a warning, since lists mostly exclude them.
const NO_CIPHERS: [&str; 46] = [
    "COMPLEMENTOFALL",
    "COMPLEMENTOFDEFAULT",
    "MEDIUM",
    "LOW",
    "EXP",
    "EXPORT",
    "EXPORT40",
    "EXPORT56",
    "eNULL",
    "NULL",
    "aNULL",
    "kRSA",
    "RSA",
    "kDHE",
    "kEDH",
    "DHE",
    "EDH",
    "DH",
    "ADH",
    "AECDH",
    "DSS",
    "aDSS",
    "aDH",
    "SSLv2",
    "SSLv3",
    "TLSv1",
    "TLSv1.0",
    "AESCCM",
    "AESCCM8",
    "ARIA",
    "ARIA128",
    "ARIA256",
    "CAMELLIA",
    "CAMELLIA128",
    "CAMELLIA256",
    "3DES",
    "DES",
    "RC4",
    "RC2",
    "IDEA",
    "SEED",
    "MD5",
    "SHA",
    "SHA1",
    "PSK",
    "SRP",
];

const TLS13_CIPHERS: [(&str, CipherSuite); 3] = [
    ("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    ("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
];

/// What a list of names stands for.
#[derive(Debug, PartialEq, Eq)]
pub struct Selected<T> {
    /// What exists, in order.
    pub found: Vec<T>,
    /// Names of which nothing exists here.
    pub missing: Vec<String>,
}

/// Reads a cipher list as OpenSSL does (openssl-ciphers(1)): words with `+` between, `!`, `-` and `+` before.
pub fn select_ciphers(list: &str) -> Selected<CipherSuite> {
    let mut selected = Selected { found: Vec::new(), missing: Vec::new() };
    let mut banned: Vec<CipherSuite> = Vec::new();
    for word in list.split([':', ',', ' ', ';']).filter(|word| !word.is_empty() && !word.starts_with('@')) {
        let (operator, name) = match word.as_bytes()[0] {
            operator @ (b'!' | b'-' | b'+') => (operator, &word[1..]),
            _ => (b' ', word),
        };
        let meant = match ciphers_of(name) {
            Some(meant) => meant,
            None => {
                if operator == b' ' && !selected.missing.iter().any(|known| known == name) {
                    selected.missing.push(name.to_owned());
                }
                continue;
            }
        };
        match operator {
            b' ' => {
                let new = meant.into_iter().filter(|suite| !banned.contains(suite));
                let new: Vec<_> = new.filter(|suite| !selected.found.contains(suite)).collect();
                selected.found.extend(new);
            }
            b'+' => {
                let (moved, kept) = selected.found.iter().partition(|suite| meant.contains(suite));
                selected.found = kept;
                selected.found.extend::<Vec<_>>(moved);
            }
            operator => {
                selected.found.retain(|suite| !meant.contains(suite));
                if operator == b'!' {
                    banned.extend(meant);
                }
            }
        }
    }
    selected
}

/// What one word of a list names; `None` where nobody here knows it.
fn ciphers_of(name: &str) -> Option<Vec<CipherSuite>> {
    let mut found: Vec<&(&str, CipherSuite, &[&str])> = CIPHERS.iter().collect();
    for word in name.split('+') {
        let known = ALL_CIPHERS.contains(&word)
            || NO_CIPHERS.contains(&word)
            || CIPHERS.iter().any(|(name, _, words)| *name == word || words.contains(&word));
        if !known {
            return None;
        }
        found
            .retain(|(name, _, words)| ALL_CIPHERS.contains(&word) || *name == word || words.contains(&word));
    }
    Some(found.into_iter().map(|(_, suite, _)| *suite).collect())
}

/// Reads a list of TLS 1.3 ciphers (`ssl_conf_command Ciphersuites`).
pub fn select_tls13_ciphers(list: &str) -> Selected<CipherSuite> {
    let mut selected = Selected { found: Vec::new(), missing: Vec::new() };
    for name in list.split(':').filter(|name| !name.is_empty()) {
        match TLS13_CIPHERS.iter().find(|(known, _)| *known == name) {
            Some((_, suite)) => selected.found.push(*suite),
            None => selected.missing.push(name.to_owned()),
        }
    }
    selected
}

/// The library's suite.
pub(crate) fn suite(suite: CipherSuite) -> Option<SupportedCipherSuite> {
    aws_lc_rs::ALL_CIPHER_SUITES.iter().find(|known| known.suite() == suite).copied()
}

/// The suites a configuration begins with: all, TLS 1.3 first.
pub(crate) fn all_suites() -> Vec<CipherSuite> {
    let newer = TLS13_CIPHERS.iter().map(|(_, suite)| *suite);
    newer.chain(CIPHERS.iter().map(|(_, suite, _)| *suite)).collect()
}

/// Is it a cipher of TLS 1.3?
pub(crate) fn is_tls13(suite: CipherSuite) -> bool {
    TLS13_CIPHERS.iter().any(|(_, known)| *known == suite)
}

/// Is it a cipher of TLS 1.2 that goes with keys of this kind?
pub(crate) fn goes_with(suite: CipherSuite, algorithm: SignatureAlgorithm) -> bool {
    let words = CIPHERS.iter().find(|(_, known, _)| *known == suite).map(|(_, _, words)| *words);
    let wanted = if algorithm == SignatureAlgorithm::RSA { "aRSA" } else { "aECDSA" };
    words.is_some_and(|words| words.contains(&wanted))
}

/// The suites of a configuration: those of TLS 1.3 first, all of a kind where none are given.
pub(crate) fn suites(tls12: Option<&[CipherSuite]>, tls13: Option<&[CipherSuite]>) -> Vec<CipherSuite> {
    let all = all_suites();
    let (newer, older): (Vec<CipherSuite>, Vec<CipherSuite>) =
        all.into_iter().partition(|suite| is_tls13(*suite));
    [tls13.unwrap_or(&newer), tls12.unwrap_or(&older)].concat()
}

/// OpenSSL's name of a suite, as `$ssl_cipher` shows it.
pub fn cipher_name(suite: CipherSuite) -> Option<&'static str> {
    let newer = TLS13_CIPHERS.iter().find(|(_, known)| *known == suite).map(|(name, _)| *name);
    newer.or_else(|| CIPHERS.iter().find(|(_, known, _)| *known == suite).map(|(name, _, _)| *name))
}

/// Curves and other key exchanges by OpenSSL's names; those without a group do not exist here.
const GROUPS: [(&[&str], NamedGroup); 19] = [
    (&["X25519", "x25519"], NamedGroup::X25519),
    (&["prime256v1", "P-256", "secp256r1"], NamedGroup::secp256r1),
    (&["secp384r1", "P-384"], NamedGroup::secp384r1),
    (&["X25519MLKEM768"], NamedGroup::X25519MLKEM768),
    (&["SecP256r1MLKEM768"], NamedGroup::secp256r1MLKEM768),
    (&["MLKEM768"], NamedGroup::MLKEM768),
    (&["secp521r1", "P-521"], NamedGroup::secp521r1),
    (&["X448", "x448"], NamedGroup::X448),
    (&["ffdhe2048"], NamedGroup::FFDHE2048),
    (&["ffdhe3072"], NamedGroup::FFDHE3072),
    (&["ffdhe4096"], NamedGroup::FFDHE4096),
    (&["ffdhe6144"], NamedGroup::FFDHE6144),
    (&["ffdhe8192"], NamedGroup::FFDHE8192),
    (&["SecP384r1MLKEM1024"], NamedGroup::Unknown(0x11ed)),
    (&["secp224r1", "P-224"], NamedGroup::Unknown(21)),
    (&["secp256k1"], NamedGroup::Unknown(22)),
    (&["brainpoolP256r1"], NamedGroup::Unknown(26)),
    (&["brainpoolP384r1"], NamedGroup::Unknown(27)),
    (&["brainpoolP512r1"], NamedGroup::Unknown(28)),
];

/// Reads `ssl_ecdh_curve`.
///
/// # Errors
/// A name in it that means nothing, for which OpenSSL would refuse the list.
pub fn select_groups(list: &str) -> Result<Selected<NamedGroup>, &str> {
    let mut selected = Selected { found: Vec::new(), missing: Vec::new() };
    for name in list.split(':') {
        let (_, group) = GROUPS.iter().find(|(names, _)| names.contains(&name)).ok_or(name)?;
        match aws_lc_rs::ALL_KX_GROUPS.iter().any(|known| known.name() == *group) {
            true => selected.found.push(*group),
            false => selected.missing.push(name.to_owned()),
        }
    }
    Ok(selected)
}

/// The library's key exchange for a group.
pub(crate) fn key_exchange(group: NamedGroup) -> Option<&'static dyn SupportedKxGroup> {
    aws_lc_rs::ALL_KX_GROUPS.iter().find(|known| known.name() == group).copied()
}

/// A group's name as `$ssl_curve` shows it; a number for one nobody knows.
pub fn group_name(group: NamedGroup) -> String {
    let known = GROUPS.iter().find(|(_, known)| *known == group);
    // nginx shows OpenSSL's short names.
    match known {
        Some((names, _)) => names[0].to_owned(),
        None => format!("0x{:04x}", u16::from(group)),
    }
}

/// A protocol's name as `$ssl_protocol` shows it.
pub fn protocol_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        _ => "",
    }
}

/// A signature algorithm's name as `$ssl_sigalg` shows it.
pub fn signature_name(scheme: SignatureScheme) -> String {
    let name = match scheme {
        SignatureScheme::RSA_PKCS1_SHA1 => "rsa_pkcs1_sha1",
        SignatureScheme::ECDSA_SHA1_Legacy => "ecdsa_sha1",
        SignatureScheme::RSA_PKCS1_SHA256 => "rsa_pkcs1_sha256",
        SignatureScheme::RSA_PKCS1_SHA384 => "rsa_pkcs1_sha384",
        SignatureScheme::RSA_PKCS1_SHA512 => "rsa_pkcs1_sha512",
        SignatureScheme::ECDSA_NISTP256_SHA256 => "ecdsa_secp256r1_sha256",
        SignatureScheme::ECDSA_NISTP384_SHA384 => "ecdsa_secp384r1_sha384",
        SignatureScheme::ECDSA_NISTP521_SHA512 => "ecdsa_secp521r1_sha512",
        SignatureScheme::RSA_PSS_SHA256 => "rsa_pss_rsae_sha256",
        SignatureScheme::RSA_PSS_SHA384 => "rsa_pss_rsae_sha384",
        SignatureScheme::RSA_PSS_SHA512 => "rsa_pss_rsae_sha512",
        SignatureScheme::ED25519 => "ed25519",
        SignatureScheme::ED448 => "ed448",
        other => return format!("0x{:04x}", u16::from(other)),
    };
    name.to_owned()
}

/// What a configuration allows, in the library's terms.
pub(crate) fn provider(suites: &[CipherSuite], groups: Option<&[NamedGroup]>) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = suites.iter().filter_map(|wanted| suite(*wanted)).collect();
    if let Some(groups) = groups {
        provider.kx_groups = groups.iter().filter_map(|group| key_exchange(*group)).collect();
    }
    provider
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> (Vec<&'static str>, Vec<String>) {
        let selected = select_ciphers(list);
        (selected.found.into_iter().filter_map(cipher_name).collect(), selected.missing)
    }

    #[test]
    fn lists_as_people_write_them() {
        let all: Vec<&str> = CIPHERS.iter().map(|(name, _, _)| *name).collect();
        for list in ["HIGH:!aNULL:!MD5", "DEFAULT", "EECDH+AESGCM:EECDH+CHACHA20", "ALL:!RC4@STRENGTH"] {
            let (mut found, missing) = names(list);
            found.sort_by_key(|name| all.iter().position(|known| known == name));
            assert_eq!((found, missing), (all.clone(), vec![]), "{list}");
        }
        let cases: [(&str, &[&str], &[&str]); 6] = [
            (
                "ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256",
                &["ECDHE-RSA-AES128-GCM-SHA256"],
                &["DHE-RSA-AES128-GCM-SHA256"],
            ),
            ("ECDHE+AES256+aRSA", &["ECDHE-RSA-AES256-GCM-SHA384"], &[]),
            ("!ECDSA:AES128", &["ECDHE-RSA-AES128-GCM-SHA256"], &[]),
            (
                "CHACHA20:-aRSA:aRSA+CHACHA20",
                &["ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"],
                &[],
            ),
            ("kRSA+AES", &[], &[]),
            ("AES128-SHA:AES128-SHA:!NOBODY", &[], &["AES128-SHA"]),
        ];
        for (list, found, missing) in cases {
            let missing: Vec<String> = missing.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(names(list), (found.to_vec(), missing), "{list}");
        }
        let moved = names("CHACHA20+aRSA:AES128+aRSA:+CHACHA20").0;
        assert_eq!(moved, ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305"]);
    }

    #[test]
    fn curves() {
        assert_eq!(select_groups("X25519:nothing"), Err("nothing"));
        let selected = select_groups("secp521r1:prime256v1:X25519MLKEM768").expect("the names are known");
        assert_eq!(selected.found, [NamedGroup::secp256r1, NamedGroup::X25519MLKEM768]);
        assert_eq!(selected.missing, ["secp521r1"]);
    }

    #[test]
    fn every_cipher_named_is_there() {
        for suite_of in all_suites() {
            assert!(suite(suite_of).is_some(), "{suite_of:?}");
        }
    }
}
