//! The values of the core module's directives that are more than a flag, a number or a word.

use super::location::Core;
use bstr::{BString, ByteSlice};
use conf::Node;
use http::h2::frame::{PAYLOAD_BYTES_LIMIT, WINDOW_BYTES_MAX};
use net::file::Symlinks;
use net::resolver::{ResolverSettings, Servers};
use schema::value::{Bits, argument, invalid_value, milliseconds, number, seconds, size};
use schema::{Problem, Services, Value, words};
use std::net::{SocketAddr, ToSocketAddrs};
use template::Template;

words!(Satisfy { "all" => All, "any" => Any });
/// How verdicts of the access phase combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Satisfy {
    /// Every module must agree.
    All,
    /// One is enough.
    Any,
}

words!(LingeringClose { "off" => Off, "on" => On, "always" => Always });
/// Whether to read on before closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LingeringClose {
    /// Never.
    Off,
    /// When more data may be coming.
    On,
    /// Always.
    Always,
}

words!(ServerTokens { "on" => On, "off" => Off, "build" => Build });
/// What `Server` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerTokens {
    /// Name and version.
    On,
    /// The name.
    Off,
    /// Name, version and build.
    Build,
}

words!(IfModifiedSince { "off" => Off, "exact" => Exact, "before" => Before });
/// How `If-Modified-Since` compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfModifiedSince {
    /// Ignored.
    Off,
    /// Equal.
    Exact,
    /// Not later.
    Before,
}

words!(BodyInFile { "off" => Off, "on" => On, "clean" => Clean });
/// Whether every body is kept in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyInFile {
    /// Only large ones.
    Off,
    /// All, and the file stays.
    On,
    /// All, and the file goes.
    Clean,
}

/// The words of `keepalive_disable`.
#[derive(Debug)]
pub struct KeepaliveDisable;

impl KeepaliveDisable {
    /// No browser.
    pub const NONE: u32 = 1;
    /// Old MSIE, behind a POST.
    pub const MSIE6: u32 = 2;
    /// Safari on a Mac.
    pub const SAFARI: u32 = 4;
}

impl Bits for KeepaliveDisable {
    const BITS: &'static [(&'static str, u32)] =
        &[("none", Self::NONE), ("msie6", Self::MSIE6), ("safari", Self::SAFARI)];
}

/// `keepalive_timeout timeout [header]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepaliveTimeout {
    /// How long an idle connection is kept; 0 closes at once.
    pub milliseconds: u64,
    /// `Keep-Alive: timeout=`, 0 sends none.
    pub header_seconds: u64,
}

impl Value for KeepaliveTimeout {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        let milliseconds = milliseconds(&word.text).ok_or_else(|| invalid_value(node, word))?;
        let header_seconds = match node.args.get(1) {
            None => 0,
            Some(word) => seconds(&word.text).ok_or_else(|| invalid_value(node, word))?,
        };
        Ok(KeepaliveTimeout { milliseconds, header_seconds })
    }
}

/// A folder for temporary files: `path [level1 [level2 [level3]]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TempPath {
    /// Absolute.
    pub path: BString,
    /// Digits of each level of subfolders; 0 ends the list.
    pub levels: [u8; 3],
}

impl TempPath {
    /// The folder, for making files in it.
    pub fn folder(&self) -> net::file::temporary::TemporaryFolder {
        net::file::temporary::TemporaryFolder { path: self.path.to_vec(), levels: self.levels }
    }
}

impl Value for TempPath {
    fn parse(node: &Node, services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        let mut path = word.text.clone();
        if !path.starts_with(b"/") {
            let mut full = services.prefix().to_owned();
            full.extend_from_slice(&path);
            path = full;
        }
        let level = |word: &conf::Word| {
            number(&word.text)
                .filter(|n| (1..=3).contains(n))
                .map(|n| n as u8)
                .ok_or_else(|| Problem::directive(&node.name, "invalid value").on(word))
        };
        let mut levels = [0; 3];
        for (slot, word) in levels.iter_mut().zip(&node.args[1..]) {
            *slot = level(word)?;
        }
        let made = TempPath { path, levels };
        if let Some(build) = services.any().downcast_mut::<crate::Build>() {
            // The text of a default is parsed as a line of the directive `default`.
            build.keep_folder(&made, node.name.text != "default");
        }
        Ok(made)
    }
}

/// `disable_symlinks off | on | if_not_owner [from=part]`.
#[derive(Clone)]
pub struct DisableSymlinks {
    /// Which links are refused.
    pub mode: Symlinks,
    /// The part of a path that is trusted.
    pub from: Option<Template>,
}

impl Value for DisableSymlinks {
    fn parse(node: &Node, services: &mut dyn Services) -> Result<Self, Problem> {
        let (mut mode, mut from) = (None, None);
        for word in &node.args {
            match &word.text[..] {
                b"off" => mode = Some(Symlinks::Follow),
                b"on" => mode = Some(Symlinks::Refuse { from_bytes: 0 }),
                b"if_not_owner" => mode = Some(Symlinks::SameOwner { from_bytes: 0 }),
                text => match text.strip_prefix(b"from=") {
                    Some(folder) if !folder.is_empty() => {
                        let template = Template::compile(folder.as_bstr(), services.names());
                        from = Some(template.map_err(|e| Problem::new(e.to_string()).on(word))?);
                    }
                    _ => return Err(Problem::new(format!("invalid parameter \"{}\"", word.text)).on(word)),
                },
            }
        }
        let Some(mode) = mode else {
            let wanted = "must have \"off\", \"on\" or \"if_not_owner\" parameter";
            return Err(Problem::new(format!("\"{}\" {wanted}", node.name.text)));
        };
        if let (None, [one, other]) = (&from, &node.args[..]) {
            return Err(
                Problem::new(format!("duplicate parameters \"{} {}\"", one.text, other.text)).on(other)
            );
        }
        if from.is_some() && mode == Symlinks::Follow {
            return Err(Problem::new("\"from=\" cannot be used with \"off\" parameter"));
        }
        Ok(DisableSymlinks { mode, from })
    }
}

/// `open_file_cache off | max=N [inactive=time]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFileCache {
    /// How many files; 0 is off.
    pub files_max: usize,
    /// How long an unused file stays.
    pub inactive_seconds: u64,
}

impl Value for OpenFileCache {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let mut made = OpenFileCache { files_max: 0, inactive_seconds: 60 };
        for word in &node.args {
            let invalid =
                || Problem::new(format!("invalid \"open_file_cache\" parameter \"{}\"", word.text)).on(word);
            match word.text.split_once_str("=") {
                Some((b"max", n)) => made.files_max = number(n).filter(|n| *n > 0).ok_or_else(invalid)?,
                Some((b"inactive", time)) => made.inactive_seconds = seconds(time).ok_or_else(invalid)?,
                None if word.text == "off" => return Ok(OpenFileCache { files_max: 0, ..made }),
                _ => return Err(invalid()),
            }
        }
        if made.files_max == 0 {
            return Err(Problem::new("\"open_file_cache\" must have the \"max\" parameter"));
        }
        Ok(made)
    }
}

/// `resolver address... [valid=time] [ipv4=off] [ipv6=off]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverLine {
    /// Name servers.
    pub servers: Vec<SocketAddr>,
    /// Overrides the TTL of answers.
    pub valid_seconds: Option<u64>,
    /// Look up IPv4 addresses.
    pub ipv4: bool,
    /// Look up IPv6 addresses.
    pub ipv6: bool,
}

impl Value for ResolverLine {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let mut made = ResolverLine { servers: Vec::new(), valid_seconds: None, ipv4: true, ipv6: true };
        for word in &node.args {
            let invalid = || Problem::new(format!("invalid parameter: {}", word.text)).on(word);
            match word.text.split_once_str("=") {
                Some((b"valid", time)) => made.valid_seconds = Some(seconds(time).ok_or_else(invalid)?),
                Some((b"ipv4", b"on")) => made.ipv4 = true,
                Some((b"ipv4", b"off")) => made.ipv4 = false,
                Some((b"ipv6", b"on")) => made.ipv6 = true,
                Some((b"ipv6", b"off")) => made.ipv6 = false,
                Some((b"ipv4" | b"ipv6", _)) => return Err(invalid()),
                _ => made.servers.extend(name_servers(word)?),
            }
        }
        if !made.ipv4 && !made.ipv6 {
            return Err(Problem::new("\"ipv4\" and \"ipv6\" cannot both be \"off\""));
        }
        if made.servers.is_empty() {
            return Err(Problem::new("no name servers defined"));
        }
        Ok(made)
    }
}

impl Core {
    /// How names are resolved here.
    pub fn resolver_settings(&self) -> ResolverSettings {
        let mut settings = ResolverSettings::system();
        settings.timeout = std::time::Duration::from_millis(self.resolver_timeout.0);
        if let Some(line) = &*self.resolver {
            settings.servers = Servers::Listed(line.servers.clone());
            settings.valid = line.valid_seconds.map(std::time::Duration::from_secs);
            settings.ipv4 = line.ipv4;
            settings.ipv6 = line.ipv6;
        }
        settings
    }
}

/// The addresses of a name server, port 53 unless given. A name is looked up once, by the system, as nginx does.
fn name_servers(word: &conf::Word) -> Result<Vec<SocketAddr>, Problem> {
    let problem = |why: &str| Problem::new(format!("{why} in resolver \"{}\"", word.text)).on(word);
    if word.text.starts_with(b"/") || word.text.starts_with(b"?") {
        return Err(problem("invalid host"));
    }
    let url = crate::upstream::url::parse(&word.text).map_err(problem)?;
    if !url.uri.is_empty() || url.host.starts_with(b"unix:") {
        return Err(problem("invalid host"));
    }
    let port = url.port.unwrap_or(53);
    let host = url.host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")).unwrap_or(&url.host);
    if let Some(ip) = http::network::ip(host) {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let host = host.to_str().map_err(|_| problem("invalid host"))?;
    let found = (host, port).to_socket_addrs().map_err(|_| problem("host not found"))?;
    Ok(found.collect())
}

/// Several templates of one directive.
impl Value for Templates {
    fn parse(node: &Node, services: &mut dyn Services) -> Result<Self, Problem> {
        let compile = |word: &conf::Word| {
            Template::compile(word.text.as_ref(), services.names())
                .map_err(|e| Problem::new(e.to_string()).on(word))
        };
        node.args.iter().map(compile).collect::<Result<_, _>>().map(Templates)
    }
}

/// Several templates of one directive.
#[derive(Clone, Default)]
pub struct Templates(pub Vec<Template>);

/// `http2_chunk_size`: how much of a body one frame carries, bytes; more than 0, and no more than a frame can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSize(pub usize);

impl Value for ChunkSize {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        match size(&word.text) {
            None => Err(invalid_value(node, word)),
            Some(0) => Err(Problem::new("the http2 chunk size cannot be zero").on(word)),
            Some(bytes) => Ok(ChunkSize(bytes.min(PAYLOAD_BYTES_LIMIT))),
        }
    }
}

/// `http2_body_preread_size`: the window that a stream begins with, bytes; no larger than a window can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrereadSize(pub u32);

impl Value for PrereadSize {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        let bytes = size(&word.text).ok_or_else(|| invalid_value(node, word))?;
        let most = WINDOW_BYTES_MAX as u32;
        u32::try_from(bytes)
            .ok()
            .filter(|bytes| *bytes <= most)
            .map(PrereadSize)
            .ok_or_else(|| Problem::new(format!("the maximum body preread buffer size is {most}")).on(word))
    }
}
