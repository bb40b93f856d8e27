//! Questions and answers of the domain name system as bytes (RFC 1035 section 4), as far as a server needs them to find
//! its upstreams: addresses, services, and other names for both. As in nginx a name may be a little longer than the RFC's
//! 255 bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Addresses of IPv4.
    A,
    /// Addresses of IPv6 (RFC 3596).
    Aaaa,
    /// Servers of a service (RFC 2782).
    Srv,
}

const CNAME: u16 = 5;
const CLASS_IN: u16 = 1;
/// Head of a message, bytes.
const HEAD_BYTES: usize = 12;
/// The longest label, bytes; what is longer would read as a pointer.
const LABEL_BYTES_MAX: usize = 63;
/// The longest name, dots included, bytes.
const NAME_BYTES_MAX: usize = 255;
/// How many pointers one name may go through.
const POINTERS_MAX: usize = 128;

impl Kind {
    fn number(self) -> u16 {
        match self {
            Kind::A => 1,
            Kind::Aaaa => 28,
            Kind::Srv => 33,
        }
    }
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// It did not fit and is to be asked for again over TCP.
    pub truncated: bool,
    /// 0, or why there is no answer (RFC 1035 section 4.1.1, RCODE).
    pub code: u8,
    /// The addresses, in their order.
    pub addresses: Vec<IpAddr>,
    /// The last other name that the name stands for.
    pub alias: Option<Vec<u8>>,
    /// Servers of a service.
    pub services: Vec<Service>,
    /// How long all of it may be believed, seconds; `u32::MAX` where it holds nothing.
    pub ttl_seconds: u32,
}

/// One SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Lower is tried first.
    pub priority: u16,
    /// Its share among those of its priority.
    pub weight: u16,
    /// Where it listens.
    pub port: u16,
    /// Its name; empty where the service is not there.
    pub target: Vec<u8>,
}

/// A question; none where the name cannot be asked for.
pub fn question(id: u16, name: &[u8], kind: Kind) -> Option<Vec<u8>> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut out = id.to_be_bytes().to_vec();
    // Recursion is desired; one question and nothing else.
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split(|byte| *byte == b'.') {
        if label.is_empty() || label.len() > LABEL_BYTES_MAX {
            return None;
        }
        out.push(label.len() as u8);
        out.extend_from_slice(label);
    }
    out.push(0);
    out.extend_from_slice(&kind.number().to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    Some(out)
}

/// Reads the answer to a question; none where it is no answer, or one to another question.
pub fn answer(bytes: &[u8], question: &[u8], kind: Kind) -> Option<Response> {
    let mut input = Input { bytes, at: 0 };
    let (id, flags) = (input.number()?, input.number()?);
    let (questions, answers) = (input.number()?, input.number()?);
    // A response to a standard query, with this number.
    if id.to_be_bytes() != question.get(..2)? || flags & 0xf870 != 0x8000 {
        return None;
    }
    input.at = HEAD_BYTES;
    let mut response = Response {
        truncated: flags & 0x0200 != 0,
        code: (flags & 0xf) as u8,
        ttl_seconds: u32::MAX,
        ..Response::default()
    };
    // A server that could not read the question may not repeat it.
    if response.code != 0 && questions == 0 {
        return Some(response);
    }
    let repeated = bytes.get(HEAD_BYTES..question.len())?;
    if questions != 1 || !repeated.eq_ignore_ascii_case(&question[HEAD_BYTES..]) {
        return None;
    }
    input.at = question.len();
    if response.code != 0 || response.truncated {
        return Some(response);
    }
    for _ in 0..answers {
        record(&mut input, kind, &mut response)?;
    }
    Some(response)
}

fn record(input: &mut Input<'_>, kind: Kind, response: &mut Response) -> Option<()> {
    input.name()?;
    let (number, class) = (input.number()?, input.number()?);
    let ttl = u32::from(input.number()?) << 16 | u32::from(input.number()?);
    let length = usize::from(input.number()?);
    let end = input.at.checked_add(length).filter(|end| *end <= input.bytes.len())?;
    let data = &input.bytes[input.at..end];
    if class != CLASS_IN {
        return None;
    }
    // RFC 2181 section 8: a negative one is none.
    response.ttl_seconds = response.ttl_seconds.min(if ttl > i32::MAX as u32 { 0 } else { ttl });
    match number {
        CNAME => response.alias = Some(input.name()?),
        _ if number == kind.number() => match kind {
            Kind::A => {
                let octets: [u8; 4] = data.try_into().ok()?;
                response.addresses.push(IpAddr::V4(Ipv4Addr::from(octets)));
            }
            Kind::Aaaa => {
                let octets: [u8; 16] = data.try_into().ok()?;
                response.addresses.push(IpAddr::V6(Ipv6Addr::from(octets)));
            }
            Kind::Srv => {
                let (priority, weight, port) = (input.number()?, input.number()?, input.number()?);
                response.services.push(Service { priority, weight, port, target: input.name()? });
            }
        },
        // An address of the other family was not asked for.
        1 | 28 => return None,
        _ => {}
    }
    input.at = end;
    Some(())
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Input<'_> {
    fn number(&mut self) -> Option<u16> {
        let bytes = self.bytes.get(self.at..self.at + 2)?;
        self.at += 2;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Reads a name, which may go on elsewhere; goes on behind it.
    fn name(&mut self) -> Option<Vec<u8>> {
        let (mut at, mut behind, mut pointers) = (self.at, None, 0);
        let mut name = Vec::new();
        loop {
            let length = *self.bytes.get(at)?;
            at += 1;
            match length {
                0 => break,
                1..=63 => {
                    let label = self.bytes.get(at..at + usize::from(length))?;
                    if !name.is_empty() {
                        name.push(b'.');
                    }
                    name.extend(label.iter().map(u8::to_ascii_lowercase));
                    at += usize::from(length);
                    if name.len() > NAME_BYTES_MAX {
                        return None;
                    }
                }
                0xc0.. => {
                    let low = *self.bytes.get(at)?;
                    behind.get_or_insert(at + 1);
                    pointers += 1;
                    if pointers > POINTERS_MAX {
                        return None;
                    }
                    at = usize::from(length & 0x3f) << 8 | usize::from(low);
                }
                _ => return None,
            }
        }
        self.at = behind.unwrap_or(at);
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with these records: number, TTL, data. Their names point at the question's.
    fn made(question: &[u8], flags: u16, records: &[(u16, u32, &[u8])]) -> Vec<u8> {
        let mut out = question[..2].to_vec();
        out.extend_from_slice(&flags.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
        out.extend_from_slice(&question[HEAD_BYTES..]);
        for (number, ttl, data) in records {
            out.extend_from_slice(&[0xc0, 12]);
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(&CLASS_IN.to_be_bytes());
            out.extend_from_slice(&ttl.to_be_bytes());
            out.extend_from_slice(&(data.len() as u16).to_be_bytes());
            out.extend_from_slice(data);
        }
        out
    }

    #[test]
    fn names_that_can_be_asked_for() {
        let long = [&[b'a'; 63][..]; 4].join(&b"."[..]);
        for (name, can) in [
            (&b"app.example"[..], true),
            (b"app.example.", true),
            (&long, true),
            (b"", false),
            (b".", false),
            (b"a..b", false),
            (&[b'a'; 64], false),
            (&[&long[..], b"b"].concat(), false),
        ] {
            assert_eq!(question(1, name, Kind::A).is_some(), can, "{}", name.escape_ascii());
        }
        let bytes = question(0x1234, b"a.bc", Kind::Aaaa).expect("it can");
        assert_eq!(bytes, b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x1c\0\x01");
    }

    #[test]
    fn answers_are_read() {
        let asked = question(7, b"App.example", Kind::A).expect("it can");
        let records = [(CNAME, 9, &b"\x01b\xc0\x10"[..]), (1, 60, &[10, 0, 0, 1]), (39, 60, b"x")];
        let response = answer(&made(&asked, 0x8180, &records), &asked, Kind::A).expect("it is one");
        assert_eq!(response.addresses, [IpAddr::from([10, 0, 0, 1])]);
        assert_eq!((response.alias, response.ttl_seconds), (Some(b"b.example".to_vec()), 9));
        let asked = question(7, b"_http._tcp.app", Kind::Srv).expect("it can");
        let data = [&[0, 1, 0, 2, 0, 80][..], b"\x01a\0"].concat();
        let response =
            answer(&made(&asked, 0x8180, &[(33, 5, &data)]), &asked, Kind::Srv).expect("it is one");
        let expected = Service { priority: 1, weight: 2, port: 80, target: b"a".to_vec() };
        assert_eq!(response.services, [expected]);
        let asked = question(7, b"app", Kind::A).expect("it can");
        for (flags, code, truncated) in [(0x8183, 3, false), (0x8380, 0, true), (0x8182, 2, false)] {
            let response = answer(&made(&asked, flags, &[]), &asked, Kind::A).expect("it is one");
            assert_eq!((response.code, response.truncated), (code, truncated), "{flags:x}");
        }
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let asked = question(7, b"app", Kind::A).expect("it can");
        let good = made(&asked, 0x8180, &[(1, 60, &[10, 0, 0, 1])]);
        assert!(answer(&good, &asked, Kind::A).is_some());
        for length in 0..good.len() {
            assert_eq!(answer(&good[..length], &asked, Kind::A), None, "cut at {length}");
        }
        // Whatever a byte becomes, reading it ends.
        for at in 0..good.len() {
            for byte in [0, 1, 0x3f, 0x80, 0xc0, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = byte;
                let _ = answer(&bytes, &asked, Kind::A);
            }
        }
        let other = question(8, b"app", Kind::A).expect("it can");
        assert_eq!(answer(&good, &other, Kind::A), None, "another number");
        let other = question(7, b"apq", Kind::A).expect("it can");
        assert_eq!(answer(&good, &other, Kind::A), None, "another name");
        assert_eq!(answer(&made(&asked, 0x0180, &[]), &asked, Kind::A), None, "a question");
        for (number, data) in
            [(1, &[1, 2, 3][..]), (28, &[0; 16]), (CNAME, b"\xc0\x21"), (CNAME, b"\x80"), (CNAME, b"\x05ab")]
        {
            let bytes = made(&asked, 0x8180, &[(number, 60, data)]);
            assert_eq!(answer(&bytes, &asked, Kind::A), None, "{number} {data:?}");
        }
    }
}
