//! The `listen` directive: an address in any of nginx's forms and the socket's options.

use super::server::ServerCore;
use crate::module::Build;
use crate::plan::{Listen, SiteId};
use bstr::ByteSlice;
use conf::{Diagnostic, Node, Span, Word};
use net::address::Address;
use net::listen::{Keepalive, ListenOptions};
use schema::value::{number, seconds, size};
use schema::{Problem, Services};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use template::{HostNameError, HostTableBuilder};

/// Parameters, for "did you mean".
const PARAMETERS: [&str; 9] = [
    "default_server",
    "ssl",
    "http2",
    "quic",
    "proxy_protocol",
    "bind",
    "deferred",
    "reuseport",
    "multipath",
];

/// One `listen` line.
#[derive(Clone)]
pub struct ListenLine {
    /// The addresses it names: several for a range of ports or a name with several addresses.
    pub addresses: Vec<Address>,
    /// Socket options.
    pub options: ListenOptions,
    /// Were socket options given? Two lines that give options to one address contradict each other.
    pub options_given: bool,
    /// `default_server`.
    pub default_server: bool,
    /// `proxy_protocol`.
    pub proxy_protocol: bool,
    /// `ssl`.
    pub ssl: bool,
    /// `http2`.
    pub http2: bool,
    /// `quic`: datagrams rather than streams.
    pub quic: bool,
    /// Where the line's end stands, for messages about it.
    pub span: Span,
}

/// All addresses of a configuration with the servers behind them, while they are collected.
#[derive(Default)]
pub struct Table {
    listens: Vec<Listen>,
    by_address: HashMap<Address, usize>,
    servers: Vec<Vec<(SiteId, Arc<ServerCore>, Span)>>,
}

impl Table {
    /// Adds a server to the addresses of one of its `listen` lines; what lines may not say together was found by
    /// [`Claims`].
    pub fn add(&mut self, line: &ListenLine, site: SiteId, server: &Arc<ServerCore>) {
        for address in &line.addresses {
            let known = self.by_address.get(address).copied();
            let at = known.unwrap_or_else(|| self.insert(address, line, site));
            let listen = &mut self.listens[at];
            if line.options_given {
                listen.options = ListenOptions { address: address.clone(), ..line.options.clone() };
            }
            if line.default_server {
                listen.default_site = site;
            }
            listen.proxy_protocol |= line.proxy_protocol;
            listen.ssl |= line.ssl;
            listen.http2 |= line.http2;
            listen.sites.push(site);
            self.servers[at].push((site, server.clone(), line.span));
        }
    }

    fn insert(&mut self, address: &Address, line: &ListenLine, site: SiteId) -> usize {
        self.listens.push(Listen {
            address: address.clone(),
            options: ListenOptions { address: address.clone(), ..line.options.clone() },
            proxy_protocol: false,
            ssl: false,
            http2: false,
            default_site: site,
            sites: Vec::new(),
            names: HostTableBuilder::new().build(),
            regexes: Vec::new(),
        });
        self.servers.push(Vec::new());
        self.by_address.insert(address.clone(), self.listens.len() - 1);
        self.listens.len() - 1
    }

    /// The finished tables; names that two servers share are warned of.
    pub fn finish(self, report: &mut Vec<Diagnostic>) -> Vec<Listen> {
        let mut listens = self.listens;
        for (listen, servers) in listens.iter_mut().zip(self.servers) {
            let mut table = HostTableBuilder::new();
            for (site, server, line) in servers {
                if server.server_name.is_empty() {
                    add_name(&mut table, b"", site, listen, line, report);
                }
                for name in &server.server_name {
                    match &name.regex {
                        Some(regex) => listen.regexes.push((regex.clone(), site)),
                        None => add_name(&mut table, &name.text, site, listen, name.span, report),
                    }
                }
            }
            listen.names = table.build();
        }
        listens
    }
}

/// Adds a name to the table of an address.
fn add_name(
    table: &mut HostTableBuilder<SiteId>,
    name: &[u8],
    site: SiteId,
    listen: &Listen,
    place: Span,
    report: &mut Vec<Diagnostic>,
) {
    let (text, address) = (name.as_bstr(), &listen.address);
    match table.insert(name, site) {
        Ok(()) => {}
        Err(HostNameError::Conflict(_)) => {
            let text = format!("conflicting server name \"{text}\" on {address}, ignored");
            report.push(Diagnostic::warn("server-name", text).at(place).bare());
        }
        Err(_) => {
            let text = format!("invalid server name or wildcard \"{text}\" on {address}");
            report.push(Diagnostic::emerg("server-name", text).at(place).bare());
        }
    }
}

/// Who said what about which address while the configuration is read: lines of different servers must agree.
#[derive(Default)]
struct Claims {
    claims: Vec<Claim>,
    /// By address, and whether it is for datagrams.
    known: HashMap<(Address, bool), usize>,
}

struct Claim {
    options_given: bool,
    default_server: bool,
    /// The last server on it, by where its block opens: lines of one server are read one after the other.
    server: Span,
    /// The protocols of all lines together, of the last line, and whether lines differed: see [`Claim::protocols`].
    all: Protocols,
    last: Option<Protocols>,
    changed: bool,
}

/// `proxy_protocol`, `ssl` and `http2` of a line, one bit each.
type Protocols = u8;

impl Build {
    /// Notes a line's addresses.
    fn claim(&mut self, line: &ListenLine, node: &Node) -> Result<(), Problem> {
        let server = self.blocks.last().copied().unwrap_or(node.end);
        for address in &line.addresses {
            let claims = self.shared::<Claims>();
            let warning = claims.add(address, line, server).map_err(Problem::new)?;
            if let Some(text) = warning {
                self.warn(Problem::new(text), node);
            }
        }
        Ok(())
    }
}

impl Claims {
    /// Adds one address of a line; gives a warning. The order of the checks is that of `ngx_http_add_addresses`.
    fn add(&mut self, address: &Address, line: &ListenLine, server: Span) -> Result<Option<String>, String> {
        let protocols = u8::from(line.proxy_protocol) | u8::from(line.ssl) << 1 | u8::from(line.http2) << 2;
        let key = (address.clone(), line.quic);
        let claim = self.known.get(&key).and_then(|at| self.claims.get_mut(*at));
        let Some(claim) = claim else {
            self.known.insert(key, self.claims.len());
            self.claims.push(Claim {
                options_given: line.options_given,
                default_server: line.default_server,
                server,
                all: protocols,
                last: None,
                changed: false,
            });
            return Ok(None);
        };
        if claim.server == server {
            return Err(format!("a duplicate listen {address}"));
        }
        claim.server = server;
        if line.options_given && claim.options_given {
            return Err(format!("duplicate listen options for {address}"));
        }
        if line.default_server && claim.default_server {
            return Err(format!("a duplicate default server for {address}"));
        }
        claim.default_server |= line.default_server;
        let redefined = claim.protocols(protocols, line.options_given);
        claim.options_given |= line.options_given;
        Ok(redefined.then(|| format!("protocol options redefined for {address}")))
    }
}

impl Claim {
    /// Takes the protocols of another line. True where nginx warns: a line adds or removes protocols after others
    /// have done so, or against a line that set socket options.
    fn protocols(&mut self, protocols: Protocols, options_given: bool) -> bool {
        let before = self.all;
        let differs = self.last.is_some_and(|last| last != protocols);
        self.all |= protocols;
        let (kept, redefined) = if protocols & !before != 0 {
            let mixed = before & !protocols != 0;
            (before, self.options_given && !options_given || self.changed || mixed)
        } else if before & !protocols != 0 {
            (protocols, options_given || differs)
        } else {
            self.last = Some(protocols);
            return options_given && self.changed || differs;
        };
        self.last = Some(kept);
        self.changed = true;
        redefined
    }
}

impl ListenLine {
    /// What a server without a `listen` line listens on.
    pub fn default_line(span: Span, port: u16) -> ListenLine {
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        ListenLine {
            addresses: vec![Address::Inet(any)],
            options: ListenOptions::new(Address::Inet(any)),
            options_given: false,
            default_server: false,
            proxy_protocol: false,
            ssl: false,
            http2: false,
            quic: false,
            span,
        }
    }

    /// Reads a `listen` directive.
    ///
    /// # Errors
    /// A bad address or parameter in nginx's words.
    pub fn parse(node: &Node, build: &mut Build) -> Result<ListenLine, Problem> {
        let word = schema::value::argument(node, 0)?;
        let addresses = addresses(&word.text).map_err(|why| {
            Problem::new(format!("{why} in \"{}\" of the \"listen\" directive", word.text)).on(word)
        })?;
        let mut line = ListenLine { addresses, ..ListenLine::default_line(node.end, 80) };
        for parameter in &node.args[1..] {
            line.parameter(parameter, node, build)?;
        }
        if let Some(other) = line.quic.then(|| line.beside_quic(node)).flatten() {
            let text = format!("\"{other}\" parameter is incompatible with \"quic\"");
            return Err(Problem::directive(&node.name, &text).on(word));
        }
        build.claim(&line, node)?;
        Ok(line)
    }

    /// The first parameter, in the order nginx looks for them, that makes no sense for datagrams.
    fn beside_quic(&self, node: &Node) -> Option<&'static str> {
        let given = |name: &str| node.args.iter().any(|word| word.text.starts_with(name.as_bytes()));
        let keepalive = self.options.keepalive.is_some();
        let found = [
            ("fastopen", self.options.fastopen.is_some()),
            ("backlog", given("backlog=")),
            ("deferred", self.options.deferred),
            ("multipath", self.options.multipath),
            ("ssl", self.ssl),
            ("http2", self.http2),
            ("so_keepalive", keepalive),
            ("proxy_protocol", self.proxy_protocol),
        ];
        found.into_iter().find_map(|(name, is_given)| is_given.then_some(name))
    }

    fn parameter(&mut self, word: &Word, node: &Node, build: &mut Build) -> Result<(), Problem> {
        let (name, value) =
            word.text.split_once_str("=").map_or((&word.text[..], None), |(n, v)| (n, Some(v)));
        let invalid = |what: &str| Problem::new(format!("invalid {what} \"{}\"", word.text)).on(word);
        match (name, value) {
            (b"default_server" | b"default", None) => self.default_server = true,
            (b"proxy_protocol", None) => self.proxy_protocol = true,
            (b"ssl", None) => {
                self.ssl = true;
            }
            (b"http2", None) => {
                let text =
                    "the \"listen ... http2\" directive is deprecated, use the \"http2\" directive instead";
                build.warn(Problem::new(text).on(word), node);
                self.http2 = true;
            }
            (b"quic", None) => {
                build.refuse(Problem::unbuilt("the \"quic\" parameter").on(word), node);
                self.quic = true;
            }
            _ => {
                self.socket_option(name, value, word, &invalid)?;
                self.options_given = true;
            }
        }
        Ok(())
    }

    fn socket_option(
        &mut self,
        name: &[u8],
        value: Option<&[u8]>,
        word: &Word,
        invalid: &dyn Fn(&str) -> Problem,
    ) -> Result<(), Problem> {
        let options = &mut self.options;
        match (name, value) {
            (b"bind", None) => options.bind = true,
            (b"backlog", Some(n)) => {
                options.backlog = number(n).filter(|n| *n > 0).ok_or_else(|| invalid("backlog"))? as i32;
            }
            (b"fastopen", Some(n)) => {
                options.fastopen = Some(number(n).ok_or_else(|| invalid("fastopen"))? as i32);
            }
            (b"rcvbuf", Some(n)) => {
                options.receive_buffer_bytes = Some(size(n).ok_or_else(|| invalid("rcvbuf"))?)
            }
            (b"sndbuf", Some(n)) => {
                options.send_buffer_bytes = Some(size(n).ok_or_else(|| invalid("sndbuf"))?)
            }
            (b"setfib", Some(n)) => _ = number(n).ok_or_else(|| invalid("setfib"))?,
            (b"accept_filter", Some(_)) => {}
            (b"deferred", None) => options.deferred = true,
            (b"reuseport", None) => options.reuseport = true,
            (b"multipath", None) => options.multipath = true,
            (b"ipv6only", Some(b"on")) => options.ipv6only = true,
            (b"ipv6only", Some(b"off")) => options.ipv6only = false,
            (b"ipv6only", Some(value)) if value.starts_with(b"o") => {
                let flag = value.as_bstr();
                return Err(Problem::new(format!("invalid ipv6only flags \"={flag}\"")).on(word));
            }
            (b"so_keepalive", Some(value)) => {
                let text = value.as_bstr();
                options.keepalive = Some(keepalive(value).ok_or_else(|| {
                    Problem::new(format!("invalid so_keepalive value: \"{text}\"")).on(word)
                })?);
            }
            _ => {
                let problem = invalid("parameter");
                return Err(match conf::nearest(&word.text, PARAMETERS.into_iter()) {
                    Some(nearest) => problem.help(format!("did you mean \"{nearest}\"?")),
                    None => problem,
                });
            }
        }
        Ok(())
    }
}

/// `on`, `off` or `idle:interval:count`, each of the three may be missing but not all.
fn keepalive(value: &[u8]) -> Option<Keepalive> {
    match value {
        b"on" => return Some(Keepalive { on: true, ..Keepalive::default() }),
        b"off" => return Some(Keepalive::default()),
        _ => {}
    }
    let mut parts = value.splitn(3, |byte| *byte == b':');
    let mut part = || parts.next().filter(|text| !text.is_empty());
    let time = |text: Option<&[u8]>| {
        text.map_or(Some(None), |text| seconds(text).map(Duration::from_secs).map(Some))
    };
    let (idle, interval) = (time(part())?, time(part())?);
    let probes = match part() {
        None => None,
        Some(text) => Some(u32::try_from(number(text)?).ok()?),
    };
    let given = idle.is_some() || interval.is_some() || probes.is_some();
    given.then_some(Keepalive { on: true, idle, interval, probes })
}

/// nginx's `ngx_parse_url` for listening: `*:80`, `80`, `1.2.3.4`, `[::1]:80`, `localhost:80`, `80-89`, `unix:/x`.
fn addresses(text: &[u8]) -> Result<Vec<Address>, &'static str> {
    if let Some(path) = text.strip_prefix(b"unix:") {
        // nginx: sun_path with its closing NUL holds 108 bytes.
        return match path.len() {
            0 => Err("no path in the unix domain socket"),
            1..108 => Ok(vec![Address::unix(path)]),
            _ => Err("too long path in the unix domain socket"),
        };
    }
    let (host, ports) = split_host(text)?;
    let ports = match ports {
        None => 80..=80,
        Some(text) => port_range(text)?,
    };
    let hosts = match host {
        None => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
        Some(host) => hosts(host)?,
    };
    let each =
        hosts.iter().flat_map(|host| ports.clone().map(|port| Address::Inet(SocketAddr::new(*host, port))));
    let mut all: Vec<Address> = Vec::new();
    for address in each {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    Ok(all)
}

/// The text of a host and of a port, as far as they were given.
type HostAndPort<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// Host and port text; a bare number is a port.
fn split_host(text: &[u8]) -> Result<HostAndPort<'_>, &'static str> {
    if let Some(rest) = text.strip_prefix(b"[") {
        let end = rest.find_byte(b']').ok_or("invalid host")?;
        return match &rest[end + 1..] {
            b"" => Ok((Some(&text[..end + 2]), None)),
            [b':', port @ ..] => Ok((Some(&text[..end + 2]), Some(port))),
            _ => Err("invalid port"),
        };
    }
    if text.contains(&b'/') {
        return Err("invalid host");
    }
    match text.split_once_str(":") {
        _ if text.is_empty() => Err("no host"),
        Some((b"", _)) => Err("no host"),
        Some((b"*", port)) => Ok((None, Some(port))),
        Some((host, port)) => Ok((Some(host), Some(port))),
        None if text == b"*" => Ok((None, None)),
        None if text.first().is_some_and(u8::is_ascii_digit)
            && text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-') =>
        {
            Ok((None, Some(text)))
        }
        None => Ok((Some(text), None)),
    }
}

fn port_range(text: &[u8]) -> Result<std::ops::RangeInclusive<u16>, &'static str> {
    let port = |text: &[u8]| {
        number(text).and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0).ok_or("invalid port")
    };
    match text.split_once_str("-") {
        None => port(text).map(|port| port..=port),
        Some((first, last)) => {
            let (first, last) = (port(first)?, port(last).map_err(|_| "invalid port")?);
            if last < first { Err("invalid port range") } else { Ok(first..=last) }
        }
    }
}

fn hosts(text: &[u8]) -> Result<Vec<IpAddr>, &'static str> {
    let text = text.to_str().map_err(|_| "invalid host")?;
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or("invalid host")?;
        return inner.parse::<Ipv6Addr>().map(|ip| vec![IpAddr::V6(ip)]).map_err(|_| "invalid IPv6 address");
    }
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Ok(vec![IpAddr::V4(ip)]);
    }
    // A name is looked up once, by the system, when the configuration is read: as nginx does.
    let found = (text, 0u16).to_socket_addrs().map_err(|_| "host not found")?;
    let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    if found.is_empty() { Err("host not found") } else { Ok(found) }
}
