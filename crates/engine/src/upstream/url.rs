//! Where an upstream is, as configuration writes it: `host`, `host:port`, `[::1]:80`, `unix:/path`, and a URI behind.

use bstr::{BString, ByteSlice};
use std::net::{IpAddr, Ipv6Addr};

/// An address without its scheme, taken apart (nginx's `ngx_parse_url`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUrl {
    /// The name, the address, or `unix:/path`.
    pub host: BString,
    /// The port that was given.
    pub port: Option<u16>,
    /// Host and port as written.
    pub authority: BString,
    /// What follows, with its slash or question mark; empty when there is none.
    pub uri: BString,
}

/// Takes an address apart.
///
/// # Errors
/// nginx's words: `no host`, `invalid port`, `invalid host` ...
pub fn parse(text: &[u8]) -> Result<UpstreamUrl, &'static str> {
    if text.starts_with(b"unix:") {
        return unix(text);
    }
    if text.starts_with(b"[") {
        let end = text.find_byte(b']').ok_or("invalid host")?;
        let inner = text[1..end].to_str().map_err(|_| "invalid IPv6 address")?;
        inner.parse::<Ipv6Addr>().map_err(|_| "invalid IPv6 address")?;
        return behind_host(text, end + 1, &text[..end + 1]);
    }
    let end = text.find_byteset(b":/?").unwrap_or(text.len());
    let url = behind_host(text, end, &text[..end])?;
    if end == 0 { Err("no host") } else { Ok(url) }
}

/// `unix:/path[:uri]`.
fn unix(text: &[u8]) -> Result<UpstreamUrl, &'static str> {
    let path = &text[5..];
    if path.is_empty() {
        return Err("no path in the unix domain socket");
    }
    let end = path.find_byte(b':').unwrap_or(path.len());
    let uri = path.get(end + 1..).unwrap_or_default();
    if end >= 108 {
        return Err("too long path in the unix domain socket");
    }
    let host: BString = text[..5 + end].into();
    Ok(UpstreamUrl { authority: host.clone(), host, port: None, uri: uri.into() })
}

fn behind_host(text: &[u8], end: usize, host: &[u8]) -> Result<UpstreamUrl, &'static str> {
    let rest = &text[end..];
    let (port, used) = match rest.strip_prefix(b":") {
        None => (None, 0),
        Some(rest) => {
            let digits = rest.find_byteset(b"/?").unwrap_or(rest.len());
            let port = schema::value::number(&rest[..digits]).and_then(|port| u16::try_from(port).ok());
            (Some(port.filter(|port| *port > 0).ok_or("invalid port")?), 1 + digits)
        }
    };
    let uri = &rest[used..];
    if !uri.is_empty() && !uri.starts_with(b"/") && !uri.starts_with(b"?") {
        return Err("invalid port");
    }
    Ok(UpstreamUrl { host: host.into(), port, authority: text[..end + used].into(), uri: uri.into() })
}

/// A literal address, with or without brackets.
pub fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, expected) in [
            ("127.0.0.1:3000", Ok(("127.0.0.1", Some(3000), ""))),
            ("app", Ok(("app", None, ""))),
            ("app/x?y", Ok(("app", None, "/x?y"))),
            ("app:80/x", Ok(("app", Some(80), "/x"))),
            ("[::1]:81/", Ok(("[::1]", Some(81), "/"))),
            ("unix:/run/a.sock:/x", Ok(("unix:/run/a.sock", None, "/x"))),
            ("app:0", Err("invalid port")),
            ("app:http", Err("invalid port")),
            (":80", Err("no host")),
            ("::1", Err("invalid port")),
            ("", Err("no host")),
            ("[::1", Err("invalid host")),
        ] {
            let got = parse(text.as_bytes());
            let got =
                got.as_ref().map(|url| (url.host.to_str().unwrap(), url.port, url.uri.to_str().unwrap()));
            assert_eq!(got.map_err(|e| *e), expected, "{text}");
        }
    }
}
