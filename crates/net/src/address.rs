//! Where a socket is bound or connected: an internet address with its port, or a path.
//!
//! Printed as nginx prints them: `127.0.0.1:80`, `[::1]:80`, `unix:/run/app.sock`, and `unix:` for a peer that
//! has no path.

use rustix::net::{SocketAddrAny, SocketAddrUnix};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The address of one end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// IPv4 or IPv6 with a port.
    Inet(SocketAddr),
    /// The path of a unix socket, without nginx's `unix:` prefix; empty for an unnamed one. A path that starts
    /// with a NUL byte is in Linux's abstract space.
    Unix(Box<[u8]>),
}

impl Address {
    /// The address of a unix socket by its path (no `unix:` in front).
    pub fn unix(path: &[u8]) -> Address {
        Address::Unix(path.into())
    }

    /// The internet address, if it is one.
    pub fn inet(&self) -> Option<SocketAddr> {
        match self {
            Address::Inet(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }

    /// The IP address without the port, if it is an internet address.
    pub fn ip(&self) -> Option<IpAddr> {
        self.inet().map(|address| address.ip())
    }

    /// The port; 0 for a unix socket, as nginx's `$server_port` and `$remote_port` derive it.
    pub fn port(&self) -> u16 {
        self.inet().map_or(0, |address| address.port())
    }

    /// True for `0.0.0.0` and `[::]`, where an accepted connection must be asked for its own local address.
    pub fn is_wildcard(&self) -> bool {
        self.inet().is_some_and(|address| address.ip().is_unspecified())
    }

    /// To be shown without the port.
    pub fn host(&self) -> Host<'_> {
        Host(self)
    }

    /// Appends the text without the port, as in nginx's `client: 127.0.0.1` and `$remote_addr`; `unix:` and the
    /// path for a unix socket.
    pub fn write_host(&self, out: &mut Vec<u8>) {
        use std::io::Write;
        match self {
            Address::Inet(SocketAddr::V4(address)) => write_ipv4(address.ip().octets(), out),
            Address::Inet(SocketAddr::V6(address)) => {
                // Writing into a Vec cannot fail.
                let _ = write!(out, "{}", address.ip());
            }
            Address::Unix(path) => {
                out.extend_from_slice(b"unix:");
                out.extend_from_slice(path);
            }
        }
    }

    pub(crate) fn from_any(any: SocketAddrAny) -> Address {
        if let Ok(address) = SocketAddr::try_from(any.clone()) {
            return Address::Inet(address);
        }
        let Ok(unix) = SocketAddrUnix::try_from(any) else { return Address::unix(b"") };
        if let Some(path) = unix.path() {
            return Address::unix(path.to_bytes());
        }
        match unix.abstract_name() {
            // An unnamed peer comes back as an abstract one without a name.
            None | Some([]) => Address::unix(b""),
            Some(name) => Address::Unix([&[0], name].concat().into()),
        }
    }

    /// The form the system calls want.
    pub(crate) fn to_any(&self) -> rustix::io::Result<SocketAddrAny> {
        Ok(match self {
            Address::Inet(address) => SocketAddrAny::from(*address),
            Address::Unix(path) => match path.split_first() {
                Some((0, name)) => SocketAddrUnix::new_abstract_name(name)?.into(),
                _ => SocketAddrUnix::new(&path[..])?.into(),
            },
        })
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Inet(address)
    }
}

/// An address without its port, as logs name clients.
pub struct Host<'a>(&'a Address);

/// What most addresses are, several times for each request: without a check of room for each digit.
fn write_ipv4(octets: [u8; 4], out: &mut Vec<u8>) {
    let start = out.len();
    // Bytes of a fixed number are written without a call.
    out.extend_from_slice(&[0; IPV4_BYTES_MAX]);
    let mut end = start;
    for octet in octets {
        let (digits, count) = OCTETS[usize::from(octet)];
        out[end..end + digits.len()].copy_from_slice(&digits);
        end += usize::from(count);
    }
    // No dot follows the last one.
    out.truncate(end - 1);
}

/// Four octets of three digits with a dot behind each.
const IPV4_BYTES_MAX: usize = 16;

/// The digits of every octet with a dot behind them, and how many bytes that is.
static OCTETS: [([u8; 4], u8); 256] = octets();

const fn octets() -> [([u8; 4], u8); 256] {
    let mut table = [([0; 4], 0); 256];
    let mut octet = 0;
    while octet < table.len() {
        let digits = [octet / 100, octet / 10 % 10, octet % 10];
        let count = if octet >= 100 {
            3
        } else if octet >= 10 {
            2
        } else {
            1
        };
        let mut at = 0;
        while at < count {
            table[octet].0[at] = b'0' + digits[3 - count + at] as u8;
            at += 1;
        }
        table[octet].0[count] = b'.';
        table[octet].1 = count as u8 + 1;
        octet += 1;
    }
    table
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.0.write_host(&mut text);
        out.write_str(&String::from_utf8_lossy(&text))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => address.fmt(out),
            Address::Unix(path) => write!(out, "unix:{}", bstr::BStr::new(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_nginx_forms_and_survive_the_system_form() {
        let inet = |text: &str| Address::Inet(text.parse().expect("an address"));
        for (address, text, host) in [
            (inet("127.0.0.1:80"), "127.0.0.1:80", "127.0.0.1"),
            (inet("0.10.99.100:1"), "0.10.99.100:1", "0.10.99.100"),
            (inet("255.255.255.255:1"), "255.255.255.255:1", "255.255.255.255"),
            (inet("[::1]:8080"), "[::1]:8080", "::1"),
            (inet("[::ffff:10.0.0.1]:1"), "[::ffff:10.0.0.1]:1", "::ffff:10.0.0.1"),
            (Address::unix(b"/run/a.sock"), "unix:/run/a.sock", "unix:/run/a.sock"),
            (Address::unix(b""), "unix:", "unix:"),
            (Address::unix(b"\0name"), "unix:\0name", "unix:\0name"),
        ] {
            assert_eq!(address.to_string(), text);
            let mut written = Vec::new();
            address.write_host(&mut written);
            assert_eq!(written, host.as_bytes());
            if text != "unix:" {
                assert_eq!(Address::from_any(address.to_any().expect("fits")), address);
            }
        }
    }
}
