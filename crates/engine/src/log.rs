//! Error logs: the directive, the levels, and the line that nginx's tools parse.

use crate::module::Build;
use crate::{Request, thread};
use bstr::{BStr, BString, ByteSlice};
use conf::{Level, Node};
use net::address::Address;
use net::file::FileError;
use net::log::file::LogFiles;
use net::log::syslog::{Parameters, Severity, Syslog};
use net::log::{Buffering, Log, Sink};
use schema::Problem;
use std::io::Write as _;
use std::net::{SocketAddr, ToSocketAddrs};

/// Where syslog servers listen unless told otherwise.
const SYSLOG_PORT: u16 = 514;
/// nginx's limit of one message, bytes.
const LINE_BYTES_MAX: usize = 2048;

/// Where a log goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A file, by its absolute path.
    File(BString),
    /// Standard error.
    Stderr,
    /// A syslog server.
    Syslog(Box<Parameters>),
}

/// A log of the configuration: its target and how lines are held back.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSpec {
    /// Where it goes.
    pub target: Target,
    /// `buffer=`, `flush=`, `gzip=`.
    pub buffering: Option<Buffering>,
}

/// The logs of a configuration, each once.
#[derive(Clone, Default, Debug)]
pub struct Logs {
    /// What each one is.
    pub specs: Vec<LogSpec>,
}

/// Which log of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogId(pub u32);

impl Logs {
    /// The number of a target, new or known.
    pub fn add(&mut self, target: Target, buffering: Option<Buffering>) -> LogId {
        let spec = LogSpec { target, buffering };
        let at = self.specs.iter().position(|known| *known == spec).unwrap_or_else(|| {
            self.specs.push(spec);
            self.specs.len() - 1
        });
        LogId(at as u32)
    }

    /// Opens them all.
    ///
    /// # Errors
    /// The first that cannot be opened: its path or server, and why.
    pub fn open(&self, files: &LogFiles) -> Result<Vec<Log>, (BString, FileError)> {
        let open = |spec: &LogSpec| {
            let sink = match &spec.target {
                Target::Stderr => Sink::Stderr,
                Target::File(path) => Sink::File(files.open(path).map_err(|error| (path.clone(), error))?),
                Target::Syslog(parameters) => Sink::Syslog(syslog(parameters)),
            };
            Ok(Log::new(sink, spec.buffering))
        };
        self.specs.iter().map(open).collect()
    }
}

/// One `error_log` line.
#[derive(Clone, Copy, Debug)]
pub struct ErrorLog {
    /// Where lines go.
    pub log: LogId,
    /// The least severe level that is written.
    pub level: Level,
}

/// The levels as configuration writes them.
pub const LEVELS: [(&str, Level); 8] = [
    ("emerg", Level::Emerg),
    ("alert", Level::Alert),
    ("crit", Level::Crit),
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("notice", Level::Notice),
    ("info", Level::Info),
    ("debug", Level::Debug),
];

/// Subsystems whose debug messages nginx can select; here they all mean `debug`.
const DEBUG_PARTS: [&str; 7] =
    ["debug_core", "debug_alloc", "debug_mutex", "debug_event", "debug_http", "debug_mail", "debug_stream"];

impl ErrorLog {
    /// Reads `error_log file [level...]`.
    ///
    /// # Errors
    /// As nginx.
    pub fn parse(node: &Node, build: &mut Build) -> Result<ErrorLog, Problem> {
        let word = schema::value::argument(node, 0)?;
        let target = target(&word.text, build).map_err(|problem| problem.on(word))?;
        let mut level: Option<Level> = None;
        for word in &node.args[1..] {
            let known = LEVELS.iter().find(|(name, _)| *name == word.text).map(|(_, level)| *level);
            if known.is_some() && level.is_some() {
                return Err(Problem::new(format!("duplicate log level \"{}\"", word.text)).on(word));
            }
            let debug_part = DEBUG_PARTS.iter().any(|name| *name == word.text);
            if known.is_none() && (!debug_part || level.is_some_and(|level| level != Level::Debug)) {
                return Err(Problem::new(format!("invalid log level \"{}\"", word.text)).on(word));
            }
            level = known.or(Some(Level::Debug));
        }
        Ok(ErrorLog { log: build.logs.add(target, None), level: level.unwrap_or(Level::Error) })
    }
}

/// Where a log goes: `stderr`, `syslog:...`, or a file.
///
/// # Errors
/// `syslog:` parameters in nginx's words.
pub fn target(text: &BString, build: &mut Build) -> Result<Target, Problem> {
    // As in nginx, no name at all is the standard error.
    if text == "stderr" || text.is_empty() {
        return Ok(Target::Stderr);
    }
    if let Some(parameters) = text.strip_prefix(b"syslog:") {
        return Ok(Target::Syslog(Box::new(syslog_parameters(parameters)?)));
    }
    if text.starts_with(b"memory:") {
        return Err(Problem::new("nginx was built without debug support"));
    }
    Ok(Target::File(build.full_path(text.as_ref())))
}

/// What follows `syslog:`, with a server that can be sent to.
///
/// # Errors
/// In nginx's words.
pub fn syslog_parameters(text: &[u8]) -> Result<Parameters, Problem> {
    let parameters = Parameters::parse(text).map_err(Problem::new)?;
    let server = BStr::new(&parameters.server);
    syslog_address(server).map_err(|why| Problem::new(format!("{why} in syslog server \"{server}\"")))?;
    Ok(parameters)
}

/// The name of a level in a log line.
pub fn level_name(level: Level) -> &'static str {
    LEVELS.iter().find(|(_, known)| *known == level).map_or("error", |(name, _)| name)
}

impl Request<'_> {
    /// Writes a message about this request, with nginx's tail of client, server, request, upstream, host.
    #[cold]
    pub fn log_error(&self, level: Level, message: std::fmt::Arguments<'_>) {
        // Without an `error_log` around it, a location writes to the main one.
        let own = &self.plan.core.error_log;
        let logs = if own.is_empty() { &self.snapshot.error_log } else { &**own };
        if !thread::wanted(logs, level) {
            return;
        }
        let mut line = Vec::with_capacity(256);
        start_line(&mut line, level, Some(self.connection.number));
        let _ = line.write_fmt(message);
        if !self.action.is_empty() {
            let _ = write!(line, " while {}", self.action);
        }
        self.tail(&mut line);
        thread::write(self.snapshot, logs, level, &mut line);
    }

    fn tail(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(b", client: ");
        self.client_address().write_host(line);
        line.extend_from_slice(b", server: ");
        line.extend_from_slice(&self.site.name);
        let request_line = self.head.request_line();
        if !request_line.is_empty() {
            line.extend_from_slice(b", request: \"");
            line.extend_from_slice(request_line);
            line.push(b'"');
        }
        if self.subrequest {
            line.extend_from_slice(b", subrequest: \"");
            line.extend_from_slice(&self.uri);
            line.push(b'"');
        }
        if !self.upstream_uri.is_empty() {
            line.extend_from_slice(b", upstream: \"");
            line.extend_from_slice(&self.upstream_uri);
            line.push(b'"');
        }
        for (name, label) in [(&b"Host"[..], &b", host: \""[..]), (b"Referer", b", referrer: \"")] {
            if let Some(value) = self.head.fields.get(name) {
                line.extend_from_slice(label);
                line.extend_from_slice(value);
                line.push(b'"');
            }
        }
    }
}

/// `2026/11/22 10:00:00 [error] 12#12: *34 `, the start of every line.
pub fn start_line(line: &mut Vec<u8>, level: Level, connection: Option<u64>) {
    line.extend_from_slice(&net::clock::error_log_time());
    let process = std::process::id();
    let _ = write!(line, " [{}] {process}#{process}: ", level_name(level));
    if let Some(number) = connection {
        let _ = write!(line, "*{number} ");
    }
}

/// Cuts a line to nginx's limit, its line feed included.
pub fn cut_line(line: &mut Vec<u8>) {
    line.truncate(LINE_BYTES_MAX - 1);
}

/// The severity syslog knows for a level.
pub fn severity(level: Level) -> Severity {
    match level {
        Level::Emerg => Severity::Emerg,
        Level::Alert => Severity::Alert,
        Level::Crit => Severity::Crit,
        Level::Error => Severity::Error,
        Level::Warn => Severity::Warn,
        Level::Notice => Severity::Notice,
        Level::Info => Severity::Info,
        Level::Debug => Severity::Debug,
    }
}

/// A syslog server, ready to be sent to. One whose name has lost its address since the configuration was read is looked
/// for on this machine.
pub fn syslog(parameters: &Parameters) -> Syslog {
    let here = || Address::Inet(SocketAddr::from(([127, 0, 0, 1], SYSLOG_PORT)));
    Syslog::new(syslog_address(&parameters.server).unwrap_or_else(|_| here()), parameters.clone())
}

/// The address of a syslog server: `unix:/path`, or a host with a port where it is not the usual one.
fn syslog_address(server: &[u8]) -> Result<Address, &'static str> {
    if server.is_empty() {
        return Err("no host");
    }
    let url = crate::upstream::url::parse(server)?;
    if let Some(path) = url.host.strip_prefix(b"unix:") {
        return Ok(Address::unix(path));
    }
    let port = url.port.unwrap_or(SYSLOG_PORT);
    let host = url.host.to_str().map_err(|_| "invalid host")?;
    if let Some(ip) = crate::upstream::url::literal(host) {
        return Ok(Address::Inet(SocketAddr::new(ip, port)));
    }
    let mut found = (host, port).to_socket_addrs().map_err(|_| "host not found")?;
    found.next().map(Address::Inet).ok_or("host not found")
}
