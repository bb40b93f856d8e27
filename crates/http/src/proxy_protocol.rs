//! The PROXY protocol, versions 1 and 2: who a client really is, told by a proxy before the first byte of the
//! connection's own protocol (haproxy's `doc/proxy-protocol.txt`; nginx's manual, `listen ... proxy_protocol`).

use bstr::{BStr, BString};
use std::borrow::Cow;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, in bytes.
pub const V1_BYTES_MAX: usize = 107;

/// The longest header that is read, in bytes, as in nginx.
pub const HEADER_BYTES_MAX: usize = 4096;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// One end of the connection that was proxied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    host: BString,
    port: u16,
}

impl Endpoint {
    /// The address as text: in version 1 as the proxy wrote it, where only its letters were checked.
    pub fn host(&self) -> &BStr {
        self.host.as_ref()
    }

    /// Appends [`Endpoint::host`].
    pub fn write_host(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.host);
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, unless the proxy wrote something else.
    pub fn address(&self) -> Option<SocketAddr> {
        let host: IpAddr = std::str::from_utf8(&self.host).ok()?.parse().ok()?;
        Some(SocketAddr::new(host, self.port))
    }
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Did the proxy name the two ends? `PROXY UNKNOWN`, the LOCAL command and what is neither TCP over IPv4 nor over
    /// IPv6 do not: then the rest is empty and the connection speaks for itself.
    pub known: bool,
    /// The client.
    pub source: Endpoint,
    /// The address the client connected to.
    pub destination: Endpoint,
    tlvs: BString,
}

impl Header {
    const UNKNOWN: Header = Header {
        known: false,
        source: Endpoint { host: BString::new(Vec::new()), port: 0 },
        destination: Endpoint { host: BString::new(Vec::new()), port: 0 },
        tlvs: BString::new(Vec::new()),
    };

    /// The value of `$proxy_protocol_tlv_name`: by name (`alpn`, `authority`, `unique_id`, `ssl`, `netns`), by number
    /// (`0x20`), and `ssl_` with `verify`, `version`, `cn`, `cipher`, `sig_alg`, `key_alg` or a number.
    pub fn tlv(&self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        const NAMES: [(&[u8], u8); 5] =
            [(b"alpn", 0x01), (b"authority", 0x02), (b"unique_id", 0x05), (b"ssl", SSL), (b"netns", 0x30)];
        const SSL_NAMES: [(&[u8], u8); 5] =
            [(b"version", 0x21), (b"cn", 0x22), (b"cipher", 0x23), (b"sig_alg", 0x24), (b"key_alg", 0x25)];
        let Some(inner) = name.strip_prefix(b"ssl_") else {
            return find_tlv(&self.tlvs, number_of(name, &NAMES)?).map(Cow::Borrowed);
        };
        // One byte of flags, four of the verification's result, then TLVs again.
        let (head, rest) = find_tlv(&self.tlvs, SSL)?.split_at_checked(5)?;
        if inner == b"verify" {
            let [_, verify @ ..] = <[u8; 5]>::try_from(head).ok()?;
            return Some(Cow::Owned(u32::from_be_bytes(verify).to_string().into_bytes()));
        }
        find_tlv(rest, number_of(inner, &SSL_NAMES)?).map(Cow::Borrowed)
    }
}

const SSL: u8 = 0x20;

/// The number of a TLV, by its name or written as `0x..`.
fn number_of(name: &[u8], names: &[(&[u8], u8)]) -> Option<u8> {
    match name.strip_prefix(b"0x") {
        Some(digits) => u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok(),
        None => names.iter().find(|(known, _)| *known == name).map(|&(_, number)| number),
    }
}

fn find_tlv(mut tlvs: &[u8], wanted: u8) -> Option<&[u8]> {
    while let Some((&[number, high, low], rest)) = tlvs.split_first_chunk::<3>() {
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        if number == wanted {
            return Some(value);
        }
        tlvs = rest;
    }
    None
}

/// A header that nginx would refuse; the connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyProtocolError {
    /// `broken header: "..."`, with what came up to the first line end.
    Broken(BString),
    /// `unknown PROXY protocol version: N`.
    Version(u8),
    /// `header is too large`.
    TooLarge,
    /// Version 2, and shorter than the addresses it announces; nginx says nothing.
    Short,
}

impl std::fmt::Display for ProxyProtocolError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ProxyProtocolError::Broken(text) => write!(f, "broken header: \"{text}\""),
            ProxyProtocolError::Version(version) => write!(f, "unknown PROXY protocol version: {version}"),
            ProxyProtocolError::TooLarge => f.write_str("header is too large"),
            ProxyProtocolError::Short => f.write_str("broken header"),
        }
    }
}

impl std::error::Error for ProxyProtocolError {}

/// Reads a header from the start of `input`: the header and how many bytes it took, or `None` when more must come.
///
/// # Errors
/// [`ProxyProtocolError`] for anything that is not, and cannot become, a header.
pub fn parse(input: &[u8]) -> Result<Option<(Header, usize)>, ProxyProtocolError> {
    let common = input.len().min(SIGNATURE.len());
    if !input.is_empty() && input.get(..common) == SIGNATURE.get(..common) {
        return parse_v2(input);
    }
    let prefix = b"PROXY ";
    let common = input.len().min(prefix.len());
    if input.get(..common) != prefix.get(..common) {
        return Err(broken(input));
    }
    let line_end = input.iter().take(V1_BYTES_MAX).position(|&byte| byte == b'\n');
    match line_end {
        Some(end) => {
            let line =
                input.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or_else(|| broken(input))?;
            let header = parse_v1(line).ok_or_else(|| broken(input))?;
            Ok(Some((header, end + 1)))
        }
        None if input.len() >= V1_BYTES_MAX => Err(broken(input)),
        None => Ok(None),
    }
}

fn broken(input: &[u8]) -> ProxyProtocolError {
    let end = memchr::memchr2(b'\r', b'\n', input).unwrap_or(input.len());
    ProxyProtocolError::Broken(BString::from(input.get(..end).unwrap_or_default()))
}

/// A line of version 1 without its line end.
fn parse_v1(line: &[u8]) -> Option<Header> {
    let rest = line.strip_prefix(b"PROXY ")?;
    if rest.starts_with(b"UNKNOWN") {
        return Some(Header::UNKNOWN);
    }
    let rest = rest.strip_prefix(b"TCP4 ").or_else(|| rest.strip_prefix(b"TCP6 "))?;
    let mut words = rest.split(|&byte| byte == b' ');
    let mut address = || {
        let word = words.next()?;
        let valid = word.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
        valid.then(|| BString::from(word))
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || {
        let word = words.next()?;
        let digits = !word.is_empty() && word.iter().all(u8::is_ascii_digit);
        digits.then(|| std::str::from_utf8(word).ok()?.parse().ok())?
    };
    let header = Header {
        known: true,
        source: Endpoint { host: source, port: port()? },
        destination: Endpoint { host: destination, port: port()? },
        tlvs: BString::default(),
    };
    words.next().is_none().then_some(header)
}

fn parse_v2(input: &[u8]) -> Result<Option<(Header, usize)>, ProxyProtocolError> {
    let Some((head, rest)) = input.split_first_chunk::<16>() else { return Ok(None) };
    let [.., version_command, family_transport, high, low] = *head;
    if version_command >> 4 != 2 {
        return Err(ProxyProtocolError::Version(version_command >> 4));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length + 16 > HEADER_BYTES_MAX {
        return Err(ProxyProtocolError::TooLarge);
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    // Only the PROXY command about a stream over IP says anything.
    let header = match (version_command & 15, family_transport) {
        (1, 0x11) => {
            let (addresses, tlvs) = body.split_first_chunk::<12>().ok_or(ProxyProtocolError::Short)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *addresses;
            header_v2(Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into(), ports, tlvs)
        }
        (1, 0x21) => {
            let (source, rest) = body.split_first_chunk::<16>().ok_or(ProxyProtocolError::Short)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(ProxyProtocolError::Short)?;
            let (ports, tlvs) = rest.split_first_chunk::<4>().ok_or(ProxyProtocolError::Short)?;
            header_v2(Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), *ports, tlvs)
        }
        _ => Header::UNKNOWN,
    };
    Ok(Some((header, length + 16)))
}

fn header_v2(source: IpAddr, destination: IpAddr, ports: [u8; 4], tlvs: &[u8]) -> Header {
    let [a, b, c, d] = ports;
    let endpoint = |address: IpAddr, port| Endpoint { host: address.to_string().into(), port };
    Header {
        known: true,
        source: endpoint(source, u16::from_be_bytes([a, b])),
        destination: endpoint(destination, u16::from_be_bytes([c, d])),
        tlvs: BString::from(tlvs),
    }
}

/// Appends a header of version 1 for a connection from `source` to `destination`. `None` for either (a UNIX-domain
/// socket) makes it `PROXY UNKNOWN`.
pub fn write_v1(source: Option<SocketAddr>, destination: Option<SocketAddr>, out: &mut Vec<u8>) {
    let (Some(source), Some(destination)) = (source, destination) else {
        out.extend_from_slice(b"PROXY UNKNOWN\r\n");
        return;
    };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    // Writing to a vector cannot fail.
    let _ = write!(out, "PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
}

/// Appends a header of version 2, with a checksum as nginx 1.31 writes it. `tlvs` are (number, value) pairs; a value
/// longer than 65535 bytes, or one that makes the header too long, is left out. `None` for either end makes it a
/// LOCAL header; `datagram` is for UDP.
pub fn write_v2(
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
    datagram: bool,
    tlvs: &[(u8, &[u8])],
    out: &mut Vec<u8>,
) {
    let start = out.len();
    out.extend_from_slice(SIGNATURE);
    let transport = if datagram { 2 } else { 1 };
    match (source, destination) {
        (Some(source), Some(destination)) => {
            let (from, to) = same_family(source.ip(), destination.ip());
            out.extend_from_slice(&[0x21, if from.is_ipv4() { 0x10 } else { 0x20 } | transport, 0, 0]);
            for address in [from, to] {
                match address {
                    IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
                    IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
                }
            }
            out.extend_from_slice(&source.port().to_be_bytes());
            out.extend_from_slice(&destination.port().to_be_bytes());
        }
        _ => out.extend_from_slice(&[0x20, 0, 0, 0]),
    }
    for (number, value) in tlvs {
        let fits = out.len() - start + value.len() + 3 + CHECKSUM_BYTES <= HEADER_BYTES_MAX;
        if let (true, Ok(length)) = (fits, u16::try_from(value.len())) {
            out.push(*number);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(value);
        }
    }
    let length = (out.len() - start - 16 + CHECKSUM_BYTES) as u16;
    if let Some(place) = out.get_mut(start + 14..start + 16) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    out.extend_from_slice(&[CRC32C, 0, 4, 0, 0, 0, 0]);
    let checksum = crc32c(out.get(start..).unwrap_or_default());
    let end = out.len();
    if let Some(place) = out.get_mut(end - 4..) {
        place.copy_from_slice(&checksum.to_be_bytes());
    }
}

const CRC32C: u8 = 0x03;
/// Of the TLV that holds the checksum.
const CHECKSUM_BYTES: usize = 7;

/// Both addresses in one family: IPv4 when both are, mapped ones included; otherwise IPv6.
fn same_family(from: IpAddr, to: IpAddr) -> (IpAddr, IpAddr) {
    let wide = |address| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => (from, to),
        (IpAddr::V6(a), IpAddr::V6(b)) => match (a.to_ipv4_mapped(), b.to_ipv4_mapped()) {
            (Some(a), Some(b)) => (a.into(), b.into()),
            _ => (from, to),
        },
        _ => (wide(from).into(), wide(to).into()),
    }
}

/// The Castagnoli checksum of `bytes` (RFC 3720, appendix B.4), bit by bit: headers are short.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| sum >> 1 ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn describe(input: &[u8]) -> String {
        match parse(input) {
            Ok(None) => "more".to_string(),
            Ok(Some((header, taken))) if header.known => format!(
                "{} {} -> {} {} took {taken}",
                header.source.host(),
                header.source.port(),
                header.destination.host(),
                header.destination.port()
            ),
            Ok(Some((_, taken))) => format!("unknown took {taken}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn version_1_as_nginx_reads_it() {
        let cases: &[(&str, &str)] = &[
            ("PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nGET", "1.2.3.4 9 -> 5.6.7.8 10 took 33"),
            ("PROXY TCP6 ::1 fe80::A 65535 0\r\n", "::1 65535 -> fe80::A 0 took 32"),
            ("PROXY UNKNOWN\r\n", "unknown took 15"),
            ("PROXY UNKNOWN ff 1\r\nx", "unknown took 20"),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 9 10\n", "broken header: \"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\""),
            (
                "PROXY TCP4 1.2.3.4 5.6.7.8 9 65536\r\n",
                "broken header: \"PROXY TCP4 1.2.3.4 5.6.7.8 9 65536\"",
            ),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 9\r\n", "broken header: \"PROXY TCP4 1.2.3.4 5.6.7.8 9\""),
            ("PROXY TCP4 1.2.3.x 5.6.7.8 9 1\r\n", "broken header: \"PROXY TCP4 1.2.3.x 5.6.7.8 9 1\""),
            ("PROXY TCP5 1.2.3.4 5.6.7.8 9 1\r\n", "broken header: \"PROXY TCP5 1.2.3.4 5.6.7.8 9 1\""),
            ("GET / HTTP/1.1\r\n", "broken header: \"GET / HTTP/1.1\""),
            ("PROXY TCP4 1", "more"),
            ("PRO", "more"),
            ("", "more"),
        ];
        for (input, expected) in cases {
            assert_eq!(describe(input.as_bytes()), *expected, "{input}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(V1_BYTES_MAX));
        assert!(describe(long.as_bytes()).starts_with("broken header"));
    }

    #[test]
    fn version_2_and_its_tlvs() {
        let (from, to): (SocketAddr, SocketAddr) =
            ("1.2.3.4:5".parse().expect("an address"), "6.7.8.9:10".parse().expect("an address"));
        let ssl = [&[1, 0, 0, 0, 7, 0x21, 0, 3][..], b"TLS"].concat();
        let mut wire = Vec::new();
        write_v2(Some(from), Some(to), false, &[(0x02, b"name"), (SSL, &ssl), (0x30, b"")], &mut wire);
        wire.extend_from_slice(b"rest");
        assert_eq!(describe(&wire), format!("1.2.3.4 5 -> 6.7.8.9 10 took {}", wire.len() - 4));
        let (header, length) = parse(&wire).expect("a header").expect("a whole one");
        let tlv = |name: &str| {
            header.tlv(name.as_bytes()).map(|value| String::from_utf8_lossy(&value).into_owned())
        };
        assert_eq!(tlv("authority").as_deref(), Some("name"));
        assert_eq!(tlv("0x2").as_deref(), Some("name"));
        assert_eq!(tlv("ssl_verify").as_deref(), Some("7"));
        assert_eq!(tlv("ssl_version").as_deref(), Some("TLS"));
        assert_eq!(tlv("ssl_0x21").as_deref(), Some("TLS"));
        assert_eq!(tlv("netns").as_deref(), Some(""));
        for none in ["alpn", "ssl_cn", "0xzz", "0x100", "other", ""] {
            assert_eq!(tlv(none), None, "{none}");
        }
        // The checksum is that of the header with zeros in its place.
        let mut zeroed = wire.get(..length).expect("the header").to_vec();
        zeroed[length - 4..].fill(0);
        assert_eq!(crc32c(&zeroed).to_be_bytes(), wire[length - 4..length]);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        for cut in 0..length {
            assert_eq!(describe(&wire[..cut]), "more", "cut at {cut}");
        }
    }

    #[test]
    fn version_2_with_nothing_to_say() {
        let head = |command: u8, family: u8, length: u16| {
            let mut wire = SIGNATURE.to_vec();
            wire.extend_from_slice(&[command, family]);
            wire.extend_from_slice(&length.to_be_bytes());
            wire.extend(std::iter::repeat_n(0, usize::from(length.min(64))));
            wire
        };
        assert_eq!(describe(&head(0x20, 0x00, 0)), "unknown took 16");
        assert_eq!(describe(&head(0x21, 0x12, 12)), "unknown took 28");
        assert_eq!(describe(&head(0x21, 0x31, 3)), "unknown took 19");
        assert_eq!(describe(&head(0x21, 0x11, 11)), "broken header");
        assert_eq!(describe(&head(0x21, 0x21, 35)), "broken header");
        assert_eq!(describe(&head(0x11, 0x11, 12)), "unknown PROXY protocol version: 1");
        assert_eq!(describe(&head(0x21, 0x11, 4090)), "header is too large");
        let mut wire = Vec::new();
        write_v2(None, None, false, &[], &mut wire);
        assert_eq!(describe(&wire), "unknown took 23");
        wire.clear();
        write_v1(None, None, &mut wire);
        assert_eq!(describe(&wire), "unknown took 15");
    }

    fn addresses() -> impl Strategy<Value = SocketAddr> {
        (any::<bool>(), any::<u128>(), any::<u16>()).prop_map(|(four, bits, port)| {
            let host = if four {
                IpAddr::from((bits as u32).to_be_bytes())
            } else {
                IpAddr::from(bits.to_be_bytes())
            };
            SocketAddr::new(host, port)
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(from in addresses(), to in addresses()) {
            let mut wire = Vec::new();
            write_v2(Some(from), Some(to), false, &[(0x01, b"h2")], &mut wire);
            let (header, length) = parse(&wire).expect("a header").expect("a whole one");
            prop_assert_eq!(length, wire.len());
            let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
            prop_assert_eq!(header.source.address().map(canonical), Some(canonical(from)));
            prop_assert_eq!(header.destination.address().map(canonical), Some(canonical(to)));
            if from.is_ipv4() == to.is_ipv4() {
                wire.clear();
                write_v1(Some(from), Some(to), &mut wire);
                prop_assert!(wire.len() <= V1_BYTES_MAX);
                let (header, _) = parse(&wire).expect("a header").expect("a whole one");
                prop_assert_eq!((header.source.address(), header.destination.address()), (Some(from), Some(to)));
            }
        }

        #[test]
        fn any_bytes_are_survived(signed in any::<bool>(), tail in prop::collection::vec(any::<u8>(), 0..80)) {
            let start: &[u8] = if signed { SIGNATURE } else { b"PROXY TCP4 " };
            if let Ok(Some((header, taken))) = parse(&[start, &tail].concat()) {
                prop_assert!(taken <= start.len() + tail.len());
                header.tlv(b"ssl_cn");
                header.tlv(b"alpn");
            }
        }
    }
}
