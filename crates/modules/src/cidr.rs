//! Networks as `allow`, `set_real_ip_from` and their like write them: `10.0.0.0/8`, `2001:db8::/32`, one address.

use bstr::BString;
use conf::{Node, Word};
use net::address::Address;
use schema::{Problem, Services};
use std::net::IpAddr;

/// A network, or all unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4: address and mask.
    V4(u32, u32),
    /// IPv6: address and mask.
    V6(u128, u128),
    /// `unix:`.
    Unix,
}

/// A text that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotANetwork;

impl Network {
    /// Reads a network; true when address bits behind the mask were dropped.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &[u8]) -> Result<(Network, bool), NotANetwork> {
        let slash = text.iter().position(|byte| *byte == b'/');
        let address = &text[..slash.unwrap_or(text.len())];
        let bits = match slash {
            None => None,
            Some(slash) => Some(schema::value::number(&text[slash + 1..]).ok_or(NotANetwork)?),
        };
        let address = http::network::ip(address);
        match address.ok_or(NotANetwork)? {
            IpAddr::V4(ip) => {
                let bits = bits.unwrap_or(32);
                let mask =
                    if bits == 0 { 0 } else { u32::MAX << 32usize.checked_sub(bits).ok_or(NotANetwork)? };
                let ip = u32::from(ip);
                Ok((Network::V4(ip & mask, mask), ip & mask != ip))
            }
            IpAddr::V6(ip) => {
                let bits = bits.unwrap_or(128);
                let mask =
                    if bits == 0 { 0 } else { u128::MAX << 128usize.checked_sub(bits).ok_or(NotANetwork)? };
                let ip = u128::from(ip);
                Ok((Network::V6(ip & mask, mask), ip & mask != ip))
            }
        }
    }

    /// Reads a word, with nginx's warning about bits that mean nothing. None: it is no network.
    pub fn of_word(word: &Word, node: &Node, services: &mut dyn Services) -> Option<Network> {
        let (network, dropped) = Network::parse(&word.text).ok()?;
        if dropped {
            let text = format!("low address bits of {} are meaningless", word.text);
            services.warn(Problem::new(text).on(word), node);
        }
        Some(network)
    }

    /// The network of one address.
    pub fn of(address: IpAddr) -> Network {
        match address {
            IpAddr::V4(ip) => Network::V4(ip.into(), u32::MAX),
            IpAddr::V6(ip) => Network::V6(ip.into(), u128::MAX),
        }
    }

    /// Is the address in it? IPv4 mapped into IPv6 is IPv4.
    pub fn contains(self, address: &Address) -> bool {
        match (self, address.ip().map(|ip| ip.to_canonical())) {
            (Network::Unix, None) => true,
            (Network::V4(network, mask), Some(IpAddr::V4(ip))) => u32::from(ip) & mask == network,
            (Network::V6(network, mask), Some(IpAddr::V6(ip))) => u128::from(ip) & mask == network,
            _ => false,
        }
    }
}

/// `invalid parameter "..."`, pointing at the word.
pub fn invalid_parameter(word: &Word) -> Problem {
    let text: &BString = &word.text;
    Problem::new(format!("invalid parameter \"{text}\"")).on(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_as_nginx_reads_them() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.1.2.3", "11.0.0.0"),
            ("10.1.2.3/8", "10.200.0.1", "9.0.0.0"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
            ("127.0.0.1", "::ffff:127.0.0.1", "127.0.0.2"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::"),
            ("::/0", "::1", "1.2.3.4"),
            ("::1", "::1", "::2"),
        ] {
            let (network, _) = Network::parse(text.as_bytes()).expect(text);
            let address = |text: &str| Address::Inet((text.parse::<IpAddr>().expect(text), 1).into());
            assert!(network.contains(&address(inside)), "{text} {inside}");
            assert!(!network.contains(&address(outside)), "{text} {outside}");
            assert!(!network.contains(&Address::unix(b"/s")), "{text}");
        }
        assert_eq!(Network::parse(b"10.1.0.0/8").map(|(_, dropped)| dropped), Ok(true));
        for text in ["", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0/8", "::/129", "localhost", "10.0.0.0/-1"] {
            assert_eq!(Network::parse(text.as_bytes()), Err(NotANetwork), "{text}");
        }
    }
}
