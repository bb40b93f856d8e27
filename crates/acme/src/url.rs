//! Addresses of an issuer's resources: as much of RFC 3986 as they need.

use std::fmt;

/// Where something is: `https://host:port/path?query`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    /// Does it say `https`? Otherwise `http`.
    pub is_https: bool,
    /// The host, in lower case; an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query, at least `/`.
    pub target: String,
}

/// No address that issuers give is longer, bytes.
const URL_BYTES_MAX: usize = 4096;

impl Url {
    /// Reads an absolute address; `None` for what is none, or has a user, or could break a request's line.
    pub fn parse(text: &str) -> Option<Url> {
        if text.len() > URL_BYTES_MAX || text.bytes().any(|byte| !(0x21..0x7f).contains(&byte)) {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        let is_https = match &*scheme.to_ascii_lowercase() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let rest = rest.split('#').next()?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (host, port) = match authority.strip_prefix('[') {
            Some(address) => {
                let (address, port) = address.split_once(']')?;
                address.parse::<std::net::Ipv6Addr>().ok()?;
                let port = if port.is_empty() { None } else { Some(port.strip_prefix(':')?) };
                (address, port)
            }
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() || host.contains(['@', '[', ']']) {
            return None;
        }
        let standard = if is_https { 443 } else { 80 };
        let port = match port {
            None | Some("") => standard,
            Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        };
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Some(Url { is_https, host: host.to_ascii_lowercase(), port, target })
    }

    /// What a reference means that stands in an answer from here: an absolute address, or a path on the same host.
    pub fn resolve(&self, reference: &str) -> Option<Url> {
        if reference.contains("://") {
            return Url::parse(reference);
        }
        if reference.starts_with("//") {
            let scheme = if self.is_https { "https" } else { "http" };
            return Url::parse(&format!("{scheme}:{reference}"));
        }
        let base = format!("{}{reference}", Url { target: String::new(), ..self.clone() });
        if reference.starts_with('/') { Url::parse(&base) } else { None }
    }

    /// `host` or `host:port`, as a `Host` field has it.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.is_https, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(out, "{scheme}://{}{}", self.authority(), self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("https://acme.test/dir", Some("https://acme.test/dir")),
            ("HTTPS://ACME.test:443", Some("https://acme.test/")),
            ("https://acme.test:14000/a?b=c#d", Some("https://acme.test:14000/a?b=c")),
            ("http://[::1]:80/x", Some("http://[::1]/x")),
            ("https://[2001:db8::1]:8443?x", Some("https://[2001:db8::1]:8443/?x")),
            ("https://", None),
            ("https://user@host/", None),
            ("ftp://host/", None),
            ("https://host:0/", None),
            ("https://host:port/", None),
            ("https://host/a b", None),
            ("https://host/\r\nx", None),
            ("/path", None),
            ("https://[zz]/", None),
        ] {
            assert_eq!(Url::parse(text).map(|url| url.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn references() {
        let base = Url::parse("https://acme.test:14000/dir/list").expect("it is one");
        for (reference, expected) in [
            ("/x?y", Some("https://acme.test:14000/x?y")),
            ("https://other.test/", Some("https://other.test/")),
            ("//other.test/z", Some("https://other.test/z")),
            ("x", None),
        ] {
            assert_eq!(
                base.resolve(reference).map(|url| url.to_string()).as_deref(),
                expected,
                "{reference}"
            );
        }
    }
}
