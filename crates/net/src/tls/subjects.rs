//! Whom a certificate is for: the hosts in it, and the names that its issuers may speak for (RFC 5280 section 4.2.1.10).

use super::der::{Der, Value, tag};
use super::verify::Failure;
use super::x509::{Certificate, email_addresses};
use std::net::IpAddr;

/// Kinds of a GeneralName.
const EMAIL: u8 = tag::implicit(1);
const DNS_NAME: u8 = tag::implicit(2);
const DIRECTORY_NAME: u8 = tag::context(4);
const URI: u8 = tag::implicit(6);
const IP_ADDRESS: u8 = tag::implicit(7);

const NOT_PERMITTED: Failure = Failure { number: 47, words: "permitted subtree violation" };
const EXCLUDED: Failure = Failure { number: 48, words: "excluded subtree violation" };
const UNKNOWN_KIND: Failure = Failure { number: 51, words: "unsupported name constraint type" };
const MALFORMED: Failure = Failure { number: 53, words: "unsupported or invalid name syntax" };

/// More comparisons than any real chain needs are refused (OpenSSL's `NAME_CHECK_MAX`).
const COMPARISONS_MAX: usize = 1 << 20;

/// Is a certificate for this host? Its alternative names say so; the common name only where there are none of DNS
/// (X509_check_host(3)). An address is looked for among the addresses.
pub(crate) fn is_for_host(der: &[u8], name: &str) -> bool {
    let Some(certificate) = Certificate::parse(der) else { return false };
    let names = || certificate.extensions.names.map(Der).into_iter().flatten();
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if let Ok(address) = bare.parse::<IpAddr>() {
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        return names().any(|value| value.tag == IP_ADDRESS && value.content == bytes);
    }
    let mut dns = names().filter(|value| value.tag == DNS_NAME).peekable();
    if dns.peek().is_some() {
        return dns.any(|value| pattern_matches(value.content, name.as_bytes()));
    }
    certificate.common_name().is_some_and(|common| pattern_matches(common, name.as_bytes()))
}

/// A name or `*.name`; the star stands for one label (RFC 6125 section 6.4.3).
fn pattern_matches(pattern: &[u8], name: &[u8]) -> bool {
    let name = name.strip_suffix(b".").unwrap_or(name);
    match pattern.strip_prefix(b"*.") {
        None => !name.is_empty() && pattern.eq_ignore_ascii_case(name),
        Some(rest) => {
            let Some(dot) = name.iter().position(|byte| *byte == b'.') else { return false };
            dot > 0 && rest.contains(&b'.') && name[dot + 1..].eq_ignore_ascii_case(rest)
        }
    }
}

/// Checks the names of every certificate of a path, the leaf first, against what those above it may speak for.
pub(crate) fn check_constraints(path: &[Certificate<'_>]) -> Result<(), Failure> {
    for (place, certificate) in path.iter().enumerate() {
        // Authorities that issue to themselves (a new key, say) are not bound by it, leaves are.
        if place > 0 && certificate.is_self_issued() {
            continue;
        }
        for issuer in path[place + 1..].iter().filter_map(|above| above.extensions.name_constraints) {
            Constraints::parse(issuer).ok_or(MALFORMED)?.check(certificate, place == 0)?;
        }
    }
    Ok(())
}

/// Subtrees of names: those that are permitted, where any of their kind are, and those that are excluded.
#[derive(Default)]
struct Constraints<'a> {
    permitted: Vec<Value<'a>>,
    excluded: Vec<Value<'a>>,
}

impl<'a> Constraints<'a> {
    fn parse(content: &'a [u8]) -> Option<Constraints<'a>> {
        let mut parts = Der(content);
        let mut subtrees = |number: u8| -> Option<Vec<Value<'a>>> {
            let list = parts.inside(tag::context(number)).into_iter().flatten();
            list.map(|subtree| {
                let mut fields = Der(subtree.content);
                let base = fields.any()?;
                // `minimum` and `maximum` are not used (RFC 5280).
                fields.is_empty().then_some(base)
            })
            .collect()
        };
        Some(Constraints { permitted: subtrees(0)?, excluded: subtrees(1)? })
    }

    fn check(&self, certificate: &Certificate<'_>, is_leaf: bool) -> Result<(), Failure> {
        let alternatives: Vec<Value<'_>> =
            certificate.extensions.names.map(Der).into_iter().flatten().collect();
        let mut names = alternatives.clone();
        if !certificate.subject.is_empty() {
            let whole = certificate.subject_whole;
            names.push(Value { tag: DIRECTORY_NAME, content: whole, whole });
        }
        names.extend(email_addresses(certificate.subject).map(|content| Value {
            tag: EMAIL,
            content,
            whole: content,
        }));
        let has_dns = alternatives.iter().any(|name| name.tag == DNS_NAME);
        if is_leaf && !has_dns {
            // Without other names the common name stands for the host.
            let common = certificate.common_name().filter(|name| is_host_name(name));
            names.extend(common.map(|content| Value { tag: DNS_NAME, content, whole: content }));
        }
        if names.len().saturating_mul(self.permitted.len() + self.excluded.len()) > COMPARISONS_MAX {
            return Err(MALFORMED);
        }
        names.iter().try_for_each(|name| self.check_name(name))
    }

    fn check_name(&self, name: &Value<'_>) -> Result<(), Failure> {
        let mut permitted = self.permitted.iter().filter(|base| base.tag == name.tag).peekable();
        if permitted.peek().is_some() {
            let mut allowed = false;
            for base in permitted {
                allowed |= is_below(name, base).ok_or(UNKNOWN_KIND)?;
            }
            if !allowed {
                return Err(NOT_PERMITTED);
            }
        }
        for base in self.excluded.iter().filter(|base| base.tag == name.tag) {
            if is_below(name, base).ok_or(UNKNOWN_KIND)? {
                return Err(EXCLUDED);
            }
        }
        Ok(())
    }
}

/// Is a name below a base of its kind? None: nobody knows what that means for this kind.
fn is_below(name: &Value<'_>, base: &Value<'_>) -> Option<bool> {
    let (text, base_text) = (name.content, base.content);
    Some(match name.tag {
        DNS_NAME => is_domain_below(text, base_text),
        EMAIL => {
            let host = text.rsplit(|byte| *byte == b'@').next().unwrap_or_default();
            match base_text.contains(&b'@') {
                // The part before the at sign keeps its case.
                true => text == base_text,
                false if base_text.first() == Some(&b'.') => is_domain_below(host, base_text),
                false => host.eq_ignore_ascii_case(base_text),
            }
        }
        URI => {
            let host = host_of_uri(text);
            match base_text.first() {
                Some(b'.') => is_domain_below(host, base_text),
                _ => host.eq_ignore_ascii_case(base_text),
            }
        }
        IP_ADDRESS => {
            let (address, mask) = base_text.split_at(base_text.len() / 2);
            let bits = || text.iter().zip(address).zip(mask);
            text.len() == address.len() && bits().all(|((own, base), mask)| own & mask == base & mask)
        }
        DIRECTORY_NAME => {
            let sets = |whole| Der(whole).expect(tag::SEQUENCE);
            sets(text)?.starts_with(sets(base_text)?)
        }
        _ => return None,
    })
}

fn is_domain_below(name: &[u8], base: &[u8]) -> bool {
    let Some(rest) = name.len().checked_sub(base.len()) else { return false };
    let (before, end) = name.split_at(rest);
    end.eq_ignore_ascii_case(base)
        && (base.is_empty() || before.is_empty() || base[0] == b'.' || before.ends_with(b"."))
}

fn host_of_uri(uri: &[u8]) -> &[u8] {
    let Some(start) = uri.windows(3).position(|bytes| bytes == b"://") else { return b"" };
    let rest = &uri[start + 3..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let authority = rest[..end].rsplit(|byte| *byte == b'@').next().unwrap_or_default();
    authority.split(|byte| *byte == b':').next().unwrap_or_default()
}

/// Could a common name be a host's name?
fn is_host_name(name: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'*');
    name.contains(&b'.') && name.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_one_label() {
        for (pattern, name, expected) in [
            ("a.example", "A.Example", true),
            ("a.example", "a.example.", true),
            ("*.example.org", "a.example.org", true),
            ("*.example.org", "a.b.example.org", false),
            ("*.example.org", "example.org", false),
            ("*.org", "example.org", false),
            ("a*.example.org", "ab.example.org", false),
            ("", "", false),
        ] {
            assert_eq!(pattern_matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn names_below_others() {
        for (kind, name, base, expected) in [
            (DNS_NAME, &b"a.example.org"[..], &b"example.org"[..], true),
            (DNS_NAME, b"Example.org", b"example.ORG", true),
            (DNS_NAME, b"badexample.org", b"example.org", false),
            (DNS_NAME, b"a.example.org", b".example.org", true),
            (DNS_NAME, b"org", b"example.org", false),
            (DNS_NAME, b"anything", b"", true),
            (EMAIL, b"me@example.org", b"example.org", true),
            (EMAIL, b"me@a.example.org", b"example.org", false),
            (EMAIL, b"me@a.example.org", b".example.org", true),
            (EMAIL, b"me@example.org", b"you@example.org", false),
            (URI, b"https://user@example.org:444/a", b"example.org", true),
            (URI, b"https://a.example.org/", b".example.org", true),
            (URI, b"https://a.example.org/", b"example.org", false),
            (IP_ADDRESS, &[10, 1, 2, 3], &[10, 1, 0, 0, 255, 255, 0, 0], true),
            (IP_ADDRESS, &[10, 2, 2, 3], &[10, 1, 0, 0, 255, 255, 0, 0], false),
            (IP_ADDRESS, &[0; 16], &[10, 1, 0, 0, 255, 255, 0, 0], false),
        ] {
            let value = |content| Value { tag: kind, content, whole: content };
            assert_eq!(is_below(&value(name), &value(base)), Some(expected), "{kind} {name:?} {base:?}");
        }
    }
}
