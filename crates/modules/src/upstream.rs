//! `upstream` blocks: servers, balancing methods, kept connections (nginx's `ngx_http_upstream_module` and the
//! small modules around it).

use balance::{Method, Peer};
use bstr::{BString, ByteSlice};
use conf::{Node, Span, Word};
use engine::module::{Build, Declare, Install, Installer, Module, cells};
use engine::upstream::keepalive::Keepalive;
use engine::upstream::url::{self, UpstreamUrl};
use engine::upstream::{Server, Upstream};
use net::Address;
use net::resolver::Servers;
use schema::value::{argument, milliseconds, number, seconds};
use schema::{Directive, IdleOwn, Inherit, Places, Problem, Services, Set, Value};
use std::any::Any;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use template::Template;

/// nginx's smallest zone, eight pages.
const ZONE_BYTES_MIN: usize = 8 * 4096;

/// What one `upstream` block says.
#[derive(Default)]
struct Conf {
    servers: Inherit<Vec<Server>>,
    method: Inherit<Option<Method>>,
    hash_key: Option<Template>,
    keepalive: Option<(usize, bool)>,
    keepalive_requests: Option<u64>,
    keepalive_time: Option<u64>,
    keepalive_timeout: Option<u64>,
}

/// Names of groups and of servers that configuration has used so far.
#[derive(Default)]
struct Used {
    groups: HashSet<BString>,
    /// Zones of groups, and whether any line gave a size.
    zones: BTreeMap<BString, bool>,
    /// Names to look up: the address as it was written, the word, and the directive's end.
    hosts: HashMap<String, (BString, Span, Span)>,
}

/// Remembers where an address stands whose name is to be looked up, for saying so when it is not found.
pub fn note_host(url: &UpstreamUrl, word: &Word, node: &Node, build: &mut Build) {
    let host = url.host.to_str_lossy().into_owned();
    let address = if url.uri.is_empty() { url.authority.clone() } else { word.text.clone() };
    build.shared::<Used>().hosts.entry(host).or_insert((address, word.span, node.end));
}

/// The setter of `upstream NAME {}`.
struct Group;

impl Set for Group {
    fn set(&self, _cells: &mut dyn Any, node: &Node, services: &mut dyn Services) -> Result<(), Problem> {
        let Some(build) = services.any().downcast_mut::<Build>() else { return Ok(()) };
        let word = argument(node, 0)?;
        if build.shared::<Used>().groups.insert(word.text.to_ascii_lowercase().into()) {
            return Ok(());
        }
        Err(Problem::new(format!("duplicate upstream \"{}\"", word.text)).on(word))
    }

    fn nested(&self, _outer: Places) -> Option<Places> {
        Some(Places::UPSTREAM)
    }

    fn closes(&self, cells: Option<&dyn Any>) -> Result<(), Problem> {
        let conf = cells.map(schema::directive::own::<Conf>);
        if conf.is_some_and(|conf| conf.servers.is_set()) {
            return Ok(());
        }
        Err(Problem::new("no servers are inside upstream"))
    }
}

fn server(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let word = argument(node, 0)?;
    let mut peer = Peer::new(word.text.clone());
    let mut resolve = false;
    for word in &node.args[1..] {
        parameter(&mut peer, &mut resolve, word)?;
    }
    let in_upstream = |why: &str| Problem::new(format!("{why} in upstream \"{}\"", word.text)).on(word);
    // A path has no place here, and nginx sees it before it looks at the port.
    let is_unix = word.text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"unix:"));
    if !is_unix && word.text.iter().any(|byte| matches!(byte, b'/' | b'?')) {
        return Err(in_upstream("invalid host"));
    }
    let url = url::parse(&word.text).map_err(in_upstream)?;
    let server = server_at(&url, 80, peer, resolve);
    note_host(&url, word, node, build);
    conf.servers.fill(node.name.span, Vec::new).push(server);
    Ok(())
}

fn parameter(peer: &mut Peer, resolve: &mut bool, word: &Word) -> Result<(), Problem> {
    let invalid = || Problem::new(format!("invalid parameter \"{}\"", word.text)).on(word);
    let count = |text: &[u8]| number(text).and_then(|n| u32::try_from(n).ok());
    match word.text.split_once_str("=") {
        None => match &word.text[..] {
            b"backup" => peer.backup = true,
            b"down" => peer.down = true,
            b"drain" => peer.drain = true,
            b"resolve" => *resolve = true,
            _ => return Err(invalid()),
        },
        Some((b"weight", n)) => peer.weight = count(n).filter(|n| *n > 0).ok_or_else(invalid)?,
        Some((b"max_conns", n)) => peer.max_conns = count(n).ok_or_else(invalid)?,
        Some((b"max_fails", n)) => peer.max_fails = count(n).ok_or_else(invalid)?,
        Some((b"fail_timeout", time)) => peer.fail_timeout_ms = seconds(time).ok_or_else(invalid)? * 1000,
        Some((b"slow_start", time)) => peer.slow_start_ms = milliseconds(time).ok_or_else(invalid)?,
        Some((b"service" | b"route", _)) => {
            let name = word.text.split_str("=").next().unwrap_or_default().as_bstr();
            return Err(Problem::unbuilt(format_args!("the \"{name}\" parameter")).on(word));
        }
        Some(_) => return Err(invalid()),
    }
    Ok(())
}

/// The server at an address: literal ones are known at once, names when they have been looked up.
pub fn server_at(url: &UpstreamUrl, default_port: u16, peer: Peer, resolve: bool) -> Server {
    let port = url.port.unwrap_or(default_port);
    let mut server = Server { text: url.authority.clone(), name: None, addresses: Vec::new(), peer, resolve };
    if let Some(path) = url.host.strip_prefix(b"unix:") {
        server.addresses.push(Address::unix(path));
        return server;
    }
    let host = url.host.to_str_lossy();
    match url::literal(&host) {
        Some(ip) => server.addresses.push(Address::Inet(SocketAddr::new(ip, port))),
        None => server.name = Some((host.into_owned(), port)),
    }
    server
}

/// Sets the balancing method; a second one wins with a warning, as in nginx.
fn choose(conf: &mut Conf, node: &Node, build: &mut Build, method: Method) -> Result<(), Problem> {
    if matches!(conf.method.value(), Some(Some(_))) {
        build.warn(Problem::new("load balancing method redefined"), node);
    }
    let refused = conf
        .servers
        .value()
        .into_iter()
        .flatten()
        .find(|server| !method.takes_backup() && (server.peer.backup || server.peer.slow_start_ms > 0));
    if let Some(server) = refused {
        let parameter = if server.peer.backup { "backup" } else { "slow_start" };
        let text = format!("balancing method does not support parameter \"{parameter}\"");
        return Err(Problem::new(text));
    }
    conf.method.put(Some(method), Some(node.name.span));
    Ok(())
}

fn least_conn(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    choose(conf, node, build, Method::LeastConn)
}

fn ip_hash(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    choose(conf, node, build, Method::IpHash)
}

fn hash(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let method = match node.args.get(1) {
        None => Method::Hash,
        Some(word) if word.text == "consistent" => Method::ConsistentHash,
        Some(word) => return Err(Problem::new(format!("invalid parameter \"{}\"", word.text)).on(word)),
    };
    conf.hash_key = Some(Template::parse(node, build)?);
    choose(conf, node, build, method)
}

fn random(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let words: Vec<&[u8]> = node.args.iter().map(|word| &word.text[..]).collect();
    let method = match words[..] {
        [] => Method::Random,
        [b"two"] | [b"two", b"least_conn"] => Method::RandomTwo,
        [b"two", ..] | [_, ..] => {
            let word = if words[0] == b"two" { &node.args[1] } else { &node.args[0] };
            return Err(Problem::new(format!("invalid parameter \"{}\"", word.text)).on(word));
        }
    };
    choose(conf, node, build, method)
}

fn least_time(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let inflight = match node.args.get(1) {
        None => false,
        Some(word) if word.text == "inflight" => true,
        Some(word) => return Err(Problem::new(format!("invalid parameter \"{}\"", word.text)).on(word)),
    };
    let word = argument(node, 0)?;
    let last_byte = match &word.text[..] {
        b"header" => false,
        b"last_byte" => true,
        _ => {
            let problem = Problem::new(format!("invalid value \"{}\"", word.text)).on(word);
            return Err(problem.help("it is one of: header, last_byte"));
        }
    };
    choose(conf, node, build, Method::LeastTime { last_byte, inflight })
}

fn keepalive(conf: &mut Conf, node: &Node, _build: &mut Build) -> Result<(), Problem> {
    if conf.keepalive.is_some() {
        return Err(Problem::directive(&node.name, "is duplicate"));
    }
    let word = argument(node, 0)?;
    let invalid = |word: &Word| {
        Problem::new(format!("invalid value \"{}\" in \"keepalive\" directive", word.text)).on(word)
    };
    let connections = number(&word.text).ok_or_else(|| invalid(word))?;
    let local = match node.args.get(1) {
        None => false,
        Some(word) if word.text == "local" => true,
        Some(word) => return Err(Problem::new(format!("invalid parameter \"{}\"", word.text)).on(word)),
    };
    conf.keepalive = Some((connections, local));
    Ok(())
}

fn keepalive_requests(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let value = schema::Number::parse(node, build)?.0 as u64;
    once(&mut conf.keepalive_requests, value, node)
}

fn keepalive_time(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let value = schema::Milliseconds::parse(node, build)?.0;
    once(&mut conf.keepalive_time, value, node)
}

fn keepalive_timeout(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let value = schema::Milliseconds::parse(node, build)?.0;
    once(&mut conf.keepalive_timeout, value, node)
}

fn once<T>(slot: &mut Option<T>, value: T, node: &Node) -> Result<(), Problem> {
    if slot.is_some() {
        return Err(Problem::directive(&node.name, "is duplicate"));
    }
    *slot = Some(value);
    Ok(())
}

/// `zone name [size]`: one process needs no shared memory, so that every group's state is shared already.
fn zone(_conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let name = argument(node, 0)?;
    if name.text.is_empty() {
        return Err(Problem::new(format!("invalid zone name \"{}\"", name.text)).on(name));
    }
    let is_sized = build.shared::<Used>().zones.entry(name.text.clone()).or_default();
    let Some(word) = node.args.get(1) else { return Ok(()) };
    *is_sized = true;
    match schema::value::size(&word.text) {
        Some(bytes) if bytes >= ZONE_BYTES_MIN => Ok(()),
        Some(_) => Err(Problem::new(format!("zone \"{}\" is too small", name.text)).on(word)),
        None => Err(Problem::new(format!("invalid zone size \"{}\"", word.text)).on(word)),
    }
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    if installer.place != Places::UPSTREAM {
        return Ok(());
    }
    let conf: &Conf = installer.conf();
    let name = installer.cells.args.first().map(|word| word.text.clone()).unwrap_or_default();
    let servers = conf.servers.value().cloned().unwrap_or_default();
    let defaults = Keepalive::default();
    let (connections_max, local) = conf.keepalive.unwrap_or((defaults.connections_max, defaults.local));
    let keepalive = Keepalive {
        connections_max,
        local,
        requests_max: conf.keepalive_requests.unwrap_or(defaults.requests_max),
        timeout_ms: conf.keepalive_timeout.unwrap_or(defaults.timeout_ms),
        time_ms: conf.keepalive_time.unwrap_or(defaults.time_ms),
    };
    let method = conf.method.value().copied().flatten().unwrap_or_default();
    let mut made = Upstream::new(name, servers, method, keepalive, conf.hash_key.clone(), false);
    made.resolver = Some(installer.core().resolver_settings());
    installer.build.upstreams.push(Arc::new(made));
    Ok(())
}

/// Looks up all names of all groups at once, bounded in time. A name without an address is warned of and stays
/// down until it has one: it never stops a start or a reload.
fn finish(build: &mut Build) -> Result<(), Problem> {
    let zones = std::mem::take(&mut build.shared::<Used>().zones);
    for (name, _) in zones.into_iter().filter(|(_, is_sized)| !is_sized) {
        let text = format!("zero size shared memory zone \"{name}\"");
        build.diagnostics.push(conf::Diagnostic::emerg("zone", text));
    }
    let mut names: Vec<String> = Vec::new();
    for upstream in build.upstreams.iter() {
        // Name servers of the configuration are asked while the server runs, and nobody else is.
        let listed = upstream.resolver.as_ref().is_some_and(|own| matches!(own.servers, Servers::Listed(_)));
        let servers = upstream.servers().into_iter().filter(|server| !(listed && server.resolve));
        names.extend(servers.filter_map(|server| server.name).map(|(name, _)| name));
    }
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Ok(());
    }
    let found = build.names.clone().look_up(&names);
    for (name, answer) in names.iter().zip(&found) {
        if answer.is_err() {
            let place = build.shared::<Used>().hosts.get(name).cloned();
            let address = place.as_ref().map_or(name.as_bytes().as_bstr(), |(address, ..)| address.as_bstr());
            let text = format!("host not found in upstream \"{address}\"");
            let mut warning = conf::Diagnostic::warn("host-not-found", text);
            if let Some((_, word, end)) = place {
                warning = warning.at(word).line(end);
            }
            build.diagnostics.push(warning.help(
                "the server is taken as down until its name has an address; it is looked up again and again",
            ));
        }
    }
    for upstream in build.upstreams.iter().filter(|upstream| upstream.has_names()) {
        let mut servers = upstream.servers();
        for server in &mut servers {
            let Some((name, port)) = &server.name else { continue };
            let Some(Ok(ips)) = names.iter().position(|known| known == name).map(|at| &found[at]) else {
                continue;
            };
            server.addresses = ips.iter().map(|ip| Address::Inet(SocketAddr::new(*ip, *port))).collect();
        }
        upstream.replace_servers(servers);
    }
    Ok(())
}

const fn row(name: &'static str, set: &'static Declare<Conf>, doc: &'static str) -> Directive {
    Directive { name, default: "", set, doc }
}

const fn idle(name: &'static str) -> Directive {
    let set = &IdleOwn { single: true, check: levels };
    Directive { name, default: "", set, doc: "A folder for temporary files that nothing needs yet." }
}

/// The digits of the folders inside a folder.
fn levels(node: &Node) -> Result<(), Problem> {
    let wrong = node.args[1..].iter().find(|word| number(&word.text).is_none_or(|level| level == 0));
    wrong.map_or(Ok(()), |word| Err(Problem::directive(&node.name, "invalid value").on(word)))
}

/// See the file's own words.
pub static MODULE: Module = Module {
    name: "upstream",
    directives: &[
        Directive { name: "upstream", default: "", set: &Group, doc: "Opens a group of servers." },
        row("server", &Declare::new(server), "A server of the group."),
        row("least_conn", &Declare::new(least_conn), "The server with the fewest connections."),
        row("ip_hash", &Declare::new(ip_hash), "The same server for the same client address."),
        row("hash", &Declare::new(hash), "The same server for the same key."),
        row("random", &Declare::new(random), "A server by chance."),
        row("least_time", &Declare::new(least_time), "The server that answers fastest."),
        row("keepalive", &Declare::new(keepalive), "How many idle connections are kept."),
        row(
            "keepalive_requests",
            &Declare::new(keepalive_requests),
            "How many requests a kept connection serves.",
        ),
        row("keepalive_time", &Declare::new(keepalive_time), "How long a connection may be used."),
        row("keepalive_timeout", &Declare::new(keepalive_timeout), "How long an idle connection is kept."),
        row("zone", &Declare::new(zone), "A name for the group's shared state."),
        // Without their protocols these folders stay empty; configurations name them all the same.
        idle("fastcgi_temp_path"),
        idle("uwsgi_temp_path"),
        idle("scgi_temp_path"),
    ],
    families: &[],
    variables: engine::upstream::variables::VARIABLES,
    cells: cells::<Conf>,
    install: Install::Always(install),
    finish,
};
