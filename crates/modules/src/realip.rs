//! `set_real_ip_from`: the client's address as a trusted proxy tells it (nginx's manual, ngx_http_realip_module).

use crate::cidr::Network;
use bstr::{BString, ByteSlice};
use conf::Node;
use engine::module::{Install, Variable, cells, finish_nothing};
use engine::{Build, Flow, Installer, Module, Phase, Request, Step};
use http::Fields;
use net::address::Address;
use schema::value::{argument, number};
use schema::{Directive, Flag, Inherit, Problem, Services, Value, field, list};
use std::net::{IpAddr, SocketAddr};

#[derive(Default)]
struct Conf {
    from: Inherit<Vec<Trusted>>,
    header: Inherit<Header>,
    recursive: Inherit<Flag>,
}

/// What one `set_real_ip_from` stands for.
#[derive(Clone)]
struct Trusted(Vec<Network>);

/// Where the address is told.
#[derive(Clone, PartialEq, Eq)]
enum Header {
    /// A list, the last entry of which the nearest proxy added.
    ForwardedFor,
    /// One address.
    Named(BString),
    /// In front of the connection.
    ProxyProtocol,
}

pub static MODULE: Module = Module {
    name: "realip",
    directives: &[
        Directive {
            name: "set_real_ip_from",
            default: "",
            set: list!(Conf.from),
            doc: "A proxy that is trusted to tell the client's address.",
        },
        Directive {
            name: "real_ip_header",
            default: "X-Real-IP",
            set: field!(Conf.header),
            doc: "Where the address is told.",
        },
        Directive {
            name: "real_ip_recursive",
            default: "off",
            set: field!(Conf.recursive),
            doc: "Skip trusted addresses in a list of several.",
        },
    ],
    families: &[],
    variables: &[
        Variable::plain(
            "realip_remote_addr",
            |request, out| {
                request.connection.peer.write_host(out);
                true
            },
            "The address the connection came from.",
        ),
        Variable::plain(
            "realip_remote_port",
            |request, out| {
                let port = request.connection.peer.port();
                if port > 0 {
                    out.extend_from_slice(port.to_string().as_bytes());
                }
                true
            },
            "The port the connection came from.",
        ),
    ],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};

impl Value for Trusted {
    fn parse(node: &Node, services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        if word.text == "unix:" {
            return Ok(Trusted(vec![Network::Unix]));
        }
        if let Some(network) = Network::of_word(word, node, services) {
            return Ok(Trusted(vec![network]));
        }
        let name = word.text.to_str_lossy().into_owned();
        let found =
            services.any().downcast_mut::<Build>().and_then(|build| build.names.look_up(&[name]).pop());
        match found {
            Some(Ok(addresses)) => Ok(Trusted(addresses.into_iter().map(Network::of).collect())),
            _ => Err(Problem::new(format!("host not found in set_real_ip_from \"{}\"", word.text)).on(word)),
        }
    }
}

impl Value for Header {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        Ok(match &word.text[..] {
            b"X-Forwarded-For" => Header::ForwardedFor,
            b"proxy_protocol" => Header::ProxyProtocol,
            name => Header::Named(name.into()),
        })
    }
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let conf = installer.conf::<Conf>();
    if conf.from.is_empty() {
        return Ok(());
    }
    let step = installer.once(|conf: &Conf, _| RealIp {
        trusted: conf.from.iter().flat_map(|trusted| trusted.0.iter().copied()).collect(),
        header: (*conf.header).clone(),
        recursive: conf.recursive.0,
    });
    // The server's settings count as soon as the head is there, a location's once it is known.
    installer.shared_step(Phase::PostRead, step.clone());
    installer.shared_step(Phase::Preaccess, step);
    Ok(())
}

struct RealIp {
    trusted: Vec<Network>,
    header: Header,
    recursive: bool,
}

impl Step for RealIp {
    fn run(&self, request: &mut Request) -> Flow {
        if request.real_address.is_some() {
            return Flow::Next;
        }
        let peer = &request.connection.peer;
        let found = match &self.header {
            Header::ProxyProtocol => {
                let told = request.connection.proxy_protocol.as_ref().filter(|_| self.trusts(peer));
                told.and_then(|header| with_port(parse_address(header.source.host())?, header.source.port()))
            }
            Header::Named(name) => {
                request.head.fields.get(name).and_then(|value| self.walk(peer, value)).map(|(found, _)| found)
            }
            Header::ForwardedFor => self.walk_all(peer, &request.head.fields),
        };
        if let Some(found) = found {
            request.real_address = Some(found);
        }
        Flow::Next
    }
}

impl RealIp {
    fn trusts(&self, address: &Address) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// Walks all `X-Forwarded-For` lines from the last to the first.
    fn walk_all(&self, peer: &Address, fields: &Fields) -> Option<Address> {
        let lines: Vec<&[u8]> = fields.all(b"X-Forwarded-For").collect();
        let mut found = None;
        for line in lines.into_iter().rev() {
            let Some((address, to_the_end)) = self.walk(found.as_ref().unwrap_or(peer), line) else { break };
            found = Some(address);
            if !self.recursive || !to_the_end {
                break;
            }
        }
        found
    }

    /// Walks a list from its end, as long as what was found so far is trusted. None: it is not, or there is no
    /// address. True: every entry of the list was taken.
    fn walk(&self, from: &Address, list: &[u8]) -> Option<(Address, bool)> {
        let is_separator = |byte: u8| byte == b' ' || byte == b',';
        let mut found: Option<Address> = None;
        let mut rest = list;
        loop {
            if !self.trusts(found.as_ref().unwrap_or(from)) {
                return found.map(|found| (found, false));
            }
            let end = rest.iter().rposition(|byte| !is_separator(*byte)).map_or(0, |last| last + 1);
            rest = &rest[..end];
            let start =
                rest.iter().rposition(|byte| is_separator(*byte)).map_or(0, |separator| separator + 1);
            let Some(address) = parse_address(&rest[start..]) else {
                return found.map(|found| (found, false));
            };
            found = Some(address);
            if !self.recursive || start == 0 {
                return found.map(|found| (found, true));
            }
            rest = &rest[..start - 1];
        }
    }
}

fn with_port(address: Address, port: u16) -> Option<Address> {
    Some(Address::Inet(SocketAddr::new(address.ip()?, port)))
}

/// An address with or without a port: `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]:80`. Without one the port is 0.
fn parse_address(text: &[u8]) -> Option<Address> {
    let whole = std::str::from_utf8(text).ok()?;
    if let Ok(ip) = whole.parse::<IpAddr>() {
        return Some(Address::Inet(SocketAddr::new(ip, 0)));
    }
    let (ip, port) = match whole.strip_prefix('[') {
        Some(rest) => rest.split_once("]:")?,
        None => whole.split_once(':')?,
    };
    let port = number(port.as_bytes()).filter(|port| (1..=65535).contains(port))?;
    Some(Address::Inet(SocketAddr::new(ip.parse().ok()?, port as u16)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[&str], header: &str, recursive: bool) -> String {
        let network = |text: &str| Network::parse(text.as_bytes()).expect(text).0;
        let step = RealIp {
            trusted: vec![network("127.0.0.0/8"), network("10.0.0.0/8")],
            header: Header::Named("X-Real-IP".into()),
            recursive,
        };
        let peer = parse_address(header.as_bytes()).expect(header);
        let fields: Fields = lines.iter().map(|line| (&b"X-Forwarded-For"[..], line.as_bytes())).collect();
        step.walk_all(&peer, &fields).map_or("none".to_owned(), |address| address.to_string())
    }

    #[test]
    fn lists_are_walked_from_the_end_over_trusted_addresses() {
        for (lines, peer, recursive, expected) in [
            (&["1.1.1.1, 2.2.2.2"][..], "127.0.0.1", false, "2.2.2.2:0"),
            (&["1.1.1.1, 10.0.0.1"], "127.0.0.1", true, "1.1.1.1:0"),
            (&["1.1.1.1, 10.0.0.1"], "127.0.0.1", false, "10.0.0.1:0"),
            (&["10.0.0.2,10.0.0.1"], "127.0.0.1", true, "10.0.0.2:0"),
            (&["1.1.1.1, junk, 10.0.0.1"], "127.0.0.1", true, "10.0.0.1:0"),
            (&["1.1.1.1"], "9.9.9.9", true, "none"),
            (&["junk"], "127.0.0.1", true, "none"),
            (&[""], "127.0.0.1", true, "none"),
            (&["1.1.1.1:80 , "], "127.0.0.1", true, "1.1.1.1:80"),
            (&["[::1]:8080"], "127.0.0.1", true, "[::1]:8080"),
            (&["::1"], "127.0.0.1", true, "[::1]:0"),
            (&["1.1.1.1", "10.0.0.1"], "127.0.0.1", true, "1.1.1.1:0"),
            (&["1.1.1.1", "10.0.0.1"], "127.0.0.1", false, "10.0.0.1:0"),
            (&["1.1.1.1", "3.3.3.3, 10.0.0.1"], "127.0.0.1", true, "3.3.3.3:0"),
            (&["1.1.1.1:0"], "127.0.0.1", true, "none"),
        ] {
            assert_eq!(told(lines, peer, recursive), expected, "{lines:?} from {peer}");
        }
    }
}
