//! Networks as configuration writes them (`10.0.0.0/8`, `::1`, `unix:`), and the address of a client behind proxies
//! that are trusted to tell it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The addresses that share a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl Network {
    /// Reads `address` or `address/bits`. The flag says that bits beyond the prefix were set: nginx drops them and warns
    /// that `low address bits of ... are meaningless`. `None` is nginx's `invalid network` or `invalid parameter`.
    pub fn parse(text: &[u8]) -> Option<(Network, bool)> {
        let (address, bits) = match memchr::memchr(b'/', text) {
            Some(slash) => (&text[..slash], Some(&text[slash + 1..])),
            None => (text, None),
        };
        let address = ip(address)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match bits {
            None => width,
            Some(bits) => {
                std::str::from_utf8(bits).ok()?.parse().ok().filter(|bits| *bits <= width && *bits < 129)?
            }
        };
        let network = Network { address: masked(address, prefix_bits), prefix_bits };
        Some((network, network.address != address))
    }

    /// One address and no other.
    pub fn single(address: IpAddr) -> Network {
        Network { address, prefix_bits: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// The first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits of an address count.
    pub fn prefix_bits(&self) -> u8 {
        self.prefix_bits
    }

    /// Does the address lie in it? An IPv4 address in IPv6 clothes is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = match address {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        };
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix_bits) == self.address
    }
}

/// An address as nginx's `ngx_inet_addr` reads it: decimal parts may start with zeros.
pub fn ip(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let mut parts = text.split('.').map(|part| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u8>().ok().filter(|_| digits)
    });
    let octets = [parts.next()??, parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(IpAddr::V4(Ipv4Addr::from(octets)))
}

fn masked(address: IpAddr, prefix_bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix_bits.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix_bits.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

/// An address with or without a port: `10.0.0.1`, `10.0.0.1:80`, `::1`, `[::1]`, `[::1]:80`. Port 0 where none is given.
pub fn address_and_port(text: &[u8]) -> Option<SocketAddr> {
    if let Some(address) = ip(text) {
        return Some(SocketAddr::new(address, 0));
    }
    if let Some(inside) = text.strip_prefix(b"[") {
        let end = memchr::memchr(b']', inside)?;
        let address = ip(&inside[..end]).filter(IpAddr::is_ipv6)?;
        return match &inside[end + 1..] {
            b"" => Some(SocketAddr::new(address, 0)),
            rest => Some(SocketAddr::new(address, port(rest.strip_prefix(b":")?)?)),
        };
    }
    let colon = memchr::memrchr(b':', text)?;
    Some(SocketAddr::new(ip(&text[..colon]).filter(IpAddr::is_ipv4)?, port(&text[colon + 1..])?))
}

fn port(text: &[u8]) -> Option<u16> {
    std::str::from_utf8(text).ok()?.parse().ok().filter(|port| *port > 0)
}

/// The client's address behind proxies: while `from` is trusted, the last address of the lists in `fields` (the values
/// of `X-Forwarded-For` or its like, in the order they came) takes its place. Without `recursive` only once.
/// `None` where `from` is not trusted or tells nothing that is an address.
pub fn forwarded(
    from: IpAddr,
    fields: &[&[u8]],
    is_trusted: impl Fn(IpAddr) -> bool,
    recursive: bool,
) -> Option<SocketAddr> {
    let mut found = None;
    let mut current = from;
    let addresses = fields.iter().rev().flat_map(|field| {
        let parts = field.rsplit(|byte| matches!(byte, b' ' | b','));
        parts.filter(|part| !part.is_empty())
    });
    for text in addresses {
        if !is_trusted(current) {
            break;
        }
        let Some(address) = address_and_port(text) else { break };
        found = Some(address);
        current = address.ip();
        if !recursive {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_as_nginx_reads_them() {
        type Case = (&'static str, Option<(&'static str, u8, bool)>);
        let cases: &[Case] = &[
            ("10.0.0.0/8", Some(("10.0.0.0", 8, false))),
            ("10.1.2.3/8", Some(("10.0.0.0", 8, true))),
            ("127.0.0.1", Some(("127.0.0.1", 32, false))),
            ("0.0.0.0/0", Some(("0.0.0.0", 0, false))),
            ("192.168.001.0/24", Some(("192.168.1.0", 24, false))),
            ("2001:db8::/32", Some(("2001:db8::", 32, false))),
            ("::1", Some(("::1", 128, false))),
            ("10.0.0.0/33", None),
            ("10.0.0/8", None),
            ("10.0.0.0/", None),
            ("+1.0.0.0", None),
            ("localhost", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let found = Network::parse(text.as_bytes());
            let expected = expected.map(|(address, bits, low)| {
                (Network { address: address.parse().expect("an address"), prefix_bits: bits }, low)
            });
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn addresses_lie_in_networks() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::/33", "2001:db8:8000::1", false),
        ] {
            let (parsed, _) = Network::parse(network.as_bytes()).expect("a network");
            assert_eq!(
                parsed.contains(address.parse().expect("an address")),
                expected,
                "{address} in {network}"
            );
        }
    }

    #[test]
    fn forwarded_addresses() {
        let trusted = |address: IpAddr| address.is_loopback();
        for (fields, recursive, expected) in [
            (&["1.2.3.4"][..], false, Some("1.2.3.4:0")),
            (&["1.2.3.4, 127.0.0.2"], false, Some("127.0.0.2:0")),
            (&["1.2.3.4, 127.0.0.2"], true, Some("1.2.3.4:0")),
            (&["5.6.7.8, 1.2.3.4,127.0.0.2 , "], true, Some("1.2.3.4:0")),
            (&["1.2.3.4", "127.0.0.3:81"], true, Some("1.2.3.4:0")),
            (&["x, 127.0.0.3"], true, Some("127.0.0.3:0")),
            (&["[2001:db8::1]:80"], false, Some("[2001:db8::1]:80")),
            (&["unknown"], false, None),
            (&[], true, None),
        ] {
            let fields: Vec<&[u8]> = fields.iter().map(|field| field.as_bytes()).collect();
            let found = forwarded(Ipv4Addr::LOCALHOST.into(), &fields, trusted, recursive);
            assert_eq!(found, expected.map(|text| text.parse().expect("an address")), "{fields:?}");
        }
        assert_eq!(forwarded(Ipv4Addr::BROADCAST.into(), &[b"1.2.3.4"], trusted, true), None);
    }
}
