//! `access_log` and `log_format` (nginx's manual, ngx_http_log_module).
//!
//! A line is put together behind those that the thread holds already: [`net::log`] writes the lines of one turn of the event
//! loop together. Logs with a fixed name are opened before the configuration serves; those with variables
//! in the name when a line for them comes up.

mod format;

use bstr::{BStr, BString, ByteSlice};
use conf::{Level, Node, Word};
use engine::log::{LogId, Target};
use engine::module::{Declare, Install, cells, finish_nothing};
use engine::{Build, Installer, Logger, Module, Request};
use format::{Escape, Format};
use net::errno::ErrnoMessage;
use net::log::Buffering;
use net::log::variable::{VariableLogOptions, VariableLogs};
use schema::value::{argument, milliseconds, number, seconds, size};
use schema::{Directive, Inherit, Problem, Services, Value, field};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;
use template::{Template, TemplateError};

/// The format that needs no `log_format`.
const COMBINED: &str = "$remote_addr - $remote_user [$time_local] \"$request\" \
    $status $body_bytes_sent \"$http_referer\" \"$http_user_agent\"";

/// A compressed log is collected in this many bytes unless `buffer=` says otherwise.
const GZIP_BUFFER_BYTES: usize = 64 * 1024;

#[derive(Default)]
struct Conf {
    logs: Inherit<Lines>,
    cache: Inherit<Cache>,
}

/// What the `access_log` lines of one block say.
#[derive(Clone, Default)]
struct Lines {
    off: bool,
    logs: Vec<AccessLog>,
}

#[derive(Clone)]
struct AccessLog {
    place: Place,
    format: Arc<Format>,
    condition: Option<Template>,
}

#[derive(Clone)]
enum Place {
    Opened(LogId),
    Named(Template),
}

/// The formats declared so far, and how the logs with buffers are buffered.
#[derive(Default)]
struct Declared {
    formats: Vec<Arc<Format>>,
    buffered: Vec<(BString, Buffering)>,
}

pub static MODULE: Module = Module {
    name: "log",
    directives: &[
        Directive {
            name: "log_format",
            default: "",
            set: &Declare::new(declare_format),
            doc: "Names a format of access log lines.",
        },
        Directive {
            name: "access_log",
            default: "",
            set: &Declare {
                inherit: Some(|outer: &Conf, inner: &mut Conf| inner.logs.inherit_from(&outer.logs)),
                ..Declare::new(add_log)
            },
            doc: "A log of requests: its path, format, buffer and condition.",
        },
        Directive {
            name: "open_log_file_cache",
            default: "off",
            set: field!(Conf.cache),
            doc: "Keeps logs open whose names hold variables.",
        },
    ],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::Always(install),
    finish: finish_nothing,
};

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let conf = installer.conf::<Conf>();
    if conf.logs.value().is_some_and(|lines| lines.off) {
        return Ok(());
    }
    let format = combined(installer.build)?;
    let logger = installer.once(|conf: &Conf, build| {
        let logs = match conf.logs.value() {
            Some(lines) => lines.logs.clone(),
            None => {
                let log = build.logs.add(Target::File(build.access_log.clone()), None);
                vec![AccessLog { place: Place::Opened(log), format, condition: None }]
            }
        };
        AccessLogs { logs, cache: conf.cache.0 }
    });
    installer.shared_logger(logger);
    Ok(())
}

/// The logs of one location.
struct AccessLogs {
    logs: Vec<AccessLog>,
    cache: Option<VariableLogOptions>,
}

thread_local! {
    /// Logs with variables in their names, by what `open_log_file_cache` says of them.
    static NAMED: RefCell<Vec<(Option<VariableLogOptions>, VariableLogs)>> = const { RefCell::new(Vec::new()) };
}

impl Logger for AccessLogs {
    fn log(&self, request: &mut Request) {
        for log in &self.logs {
            if log.condition.as_ref().is_some_and(|condition| !request.is_true(condition)) {
                continue;
            }
            match &log.place {
                Place::Opened(id) => {
                    if let Some(opened) = request.snapshot.log(*id) {
                        opened.append(|line| log.format.render(request, line));
                    }
                }
                Place::Named(name) => {
                    if let Some(opened) = self.open_named(name, request) {
                        opened.append(|line| log.format.render(request, line));
                    }
                }
            }
        }
    }
}

impl AccessLogs {
    /// Rare, and out of the way of those that are not.
    #[inline(never)]
    fn open_named(&self, name: &Template, request: &mut Request) -> Option<net::log::Log> {
        if !is_root_there(request) {
            return None;
        }
        let path = request.render(name);
        let opened = NAMED.with_borrow_mut(|named| {
            let at = named.iter().position(|(options, _)| *options == self.cache).unwrap_or_else(|| {
                named.push((self.cache, VariableLogs::new(self.cache)));
                named.len() - 1
            });
            named[at].1.open(&path)
        });
        let report = |error: net::file::FileError| {
            let (call, errno) = (error.call, ErrnoMessage(error.errno));
            request.log_error(Level::Crit, format_args!("{call} \"{}\" failed ({errno})", BStr::new(&path)));
        };
        opened.map_err(report).ok()
    }
}

/// nginx writes no log with a variable name for a location whose root is missing: names made from the host of a
/// request would otherwise let any client make files.
fn is_root_there(request: &mut Request) -> bool {
    let Ok(mapped) = request.map_uri() else { return false };
    let mut path = mapped.path;
    path.truncate(mapped.root_bytes);
    let found = net::file::file_info(&path, net::file::Symlinks::Follow);
    let message = match found {
        Ok(info) if info.is_directory => return true,
        Ok(_) => ErrnoMessage(net::errno::Errno::NOTDIR),
        Err(error) => ErrnoMessage(error.errno),
    };
    let path = BStr::new(&path);
    request.log_error(Level::Error, format_args!("testing \"{path}\" existence failed ({message})"));
    false
}

/// `log_format name [escape=default|json|none] string...`
fn declare_format(_none: &mut (), node: &Node, build: &mut Build) -> Result<(), Problem> {
    combined(build)?;
    let name = argument(node, 0)?;
    if build.shared::<Declared>().formats.iter().any(|format| format.name == name.text) {
        return Err(Problem::new(format!("duplicate \"log_format\" name \"{}\"", name.text)).on(name));
    }
    let mut words = &node.args[1..];
    let mut escape = Escape::Default;
    if let Some(word) = words.first()
        && let Some(kind) = word.text.strip_prefix(b"escape=")
    {
        escape = match kind {
            b"json" => Escape::Json,
            b"none" => Escape::None,
            b"default" => Escape::Default,
            _ => {
                return Err(
                    Problem::new(format!("unknown log format escaping \"{}\"", BStr::new(kind))).on(word)
                );
            }
        };
        words = &words[1..];
    }
    let mut parts = Vec::new();
    for word in words {
        let template =
            Template::compile(word.text.as_ref(), build.names()).map_err(|error| refused(&error, word))?;
        parts.extend_from_slice(template.parts());
    }
    let format = Format::new(name.text.clone(), parts, escape);
    build.shared::<Declared>().formats.push(format);
    Ok(())
}

/// A format names what is wrong its own way.
fn refused(error: &TemplateError, word: &Word) -> Problem {
    let TemplateError::InvalidVariableName = error else { return Problem::new(error.to_string()).on(word) };
    let bare =
        word.text.char_indices().filter(|(_, _, found)| *found == '$').map(|(start, end, _)| (start, end));
    let mut bare = bare.filter(|(_, end)| {
        let next = word.text.get(*end).copied().unwrap_or_default();
        !next.is_ascii_alphanumeric() && next != b'_' && (next != b'{' || word.text.get(end + 1).is_none())
    });
    let start = bare.next().map_or(0, |(start, _)| start);
    Problem::new(format!("invalid parameter \"{}\"", BStr::new(&word.text[start..]))).on(word)
}

/// The built-in format, made when it is first asked for.
fn combined(build: &mut Build) -> Result<Arc<Format>, Problem> {
    if let Some(format) = build.shared::<Declared>().formats.first() {
        return Ok(format.clone());
    }
    let parts = build.template(BStr::new(COMBINED))?.parts().to_vec();
    let format = Format::new("combined".into(), parts, Escape::Default);
    build.shared::<Declared>().formats.push(format.clone());
    Ok(format)
}

/// `access_log path [format [buffer=size] [gzip[=level]] [flush=time] [if=condition]]` or `off`.
fn add_log(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let path = argument(node, 0)?;
    let lines = conf.logs.fill(node.name.span, Lines::default);
    if path.text == "off" {
        lines.off = true;
        return match node.args.get(1) {
            None => Ok(()),
            Some(word) => Err(invalid(word)),
        };
    }
    let has_variables = path.text.contains(&b'$');
    let syslog = path.text.strip_prefix(b"syslog:");
    let syslog =
        syslog.map(engine::log::syslog_parameters).transpose().map_err(|problem| problem.on(path))?;
    let format = match node.args.get(1) {
        None => combined(build)?,
        Some(word) => {
            combined(build)?;
            let formats = &build.shared::<Declared>().formats;
            let found = formats.iter().find(|format| format.name.eq_ignore_ascii_case(&word.text)).cloned();
            found.ok_or_else(|| Problem::new(format!("unknown log format \"{}\"", word.text)).on(word))?
        }
    };
    let options = Options::parse(node, build)?;
    let buffering = options.buffering(path)?;
    let is_syslog = syslog.is_some();
    let target = match syslog {
        Some(found) => Target::Syslog(Box::new(found)),
        // As in nginx, no name at all is the standard error.
        None if path.text.is_empty() => Target::Stderr,
        None => Target::File(build.full_path(path.text.as_ref())),
    };
    let place = match (target, buffering) {
        (_, Some(_)) if has_variables && !is_syslog => {
            return Err(Problem::new("buffered logs cannot have variables in name").on(path));
        }
        (Target::Syslog(_), Some(_)) => {
            return Err(Problem::new("logs to syslog cannot be buffered").on(path));
        }
        (Target::File(full), _) if has_variables => {
            Place::Named(build.template(full.as_ref()).map_err(|problem| problem.on(path))?)
        }
        (target, None) => Place::Opened(build.logs.add(target, None)),
        (target, Some(buffering)) => {
            agree(&target, buffering, path, build)?;
            Place::Opened(build.logs.add(target, Some(buffering)))
        }
    };
    lines.logs.push(AccessLog { place, format, condition: options.condition });
    Ok(())
}

/// One file has one buffer.
fn agree(target: &Target, buffering: Buffering, path: &Word, build: &mut Build) -> Result<(), Problem> {
    let Target::File(file) = target else { return Ok(()) };
    let buffered = &mut build.shared::<Declared>().buffered;
    match buffered.iter().find(|(known, _)| known == file) {
        None => buffered.push((file.clone(), buffering)),
        Some((_, known)) if *known == buffering => {}
        Some(_) => {
            let text = format!("access_log \"{}\" already defined with conflicting parameters", path.text);
            return Err(Problem::new(text).on(path));
        }
    }
    Ok(())
}

/// The words behind the format.
#[derive(Default)]
struct Options {
    bytes_max: usize,
    flush_ms: u64,
    gzip_level: Option<u32>,
    condition: Option<Template>,
}

impl Options {
    fn parse(node: &Node, build: &mut Build) -> Result<Options, Problem> {
        let mut made = Options::default();
        for word in node.args.iter().skip(2) {
            let refuse = |what: &str, value: &[u8]| {
                Problem::new(format!("invalid {what} \"{}\"", BStr::new(value))).on(word)
            };
            if let Some(value) = word.text.strip_prefix(b"buffer=") {
                made.bytes_max =
                    size(value).filter(|n| *n > 0).ok_or_else(|| refuse("buffer size", value))?;
            } else if let Some(value) = word.text.strip_prefix(b"flush=") {
                made.flush_ms =
                    milliseconds(value).filter(|n| *n > 0).ok_or_else(|| refuse("flush time", value))?;
            } else if let Some(value) = word.text.strip_prefix(b"gzip=") {
                let level = number(value)
                    .filter(|n| (1..=9).contains(n))
                    .ok_or_else(|| refuse("compression level", value))?;
                made.gzip_level = Some(level as u32);
            } else if word.text == "gzip" {
                made.gzip_level = Some(1);
            } else if let Some(value) = word.text.strip_prefix(b"if=") {
                made.condition = Some(build.template(value.as_bstr()).map_err(|problem| problem.on(word))?);
            } else {
                return Err(invalid(word));
            }
            if made.gzip_level.is_some() && made.bytes_max == 0 {
                made.bytes_max = GZIP_BUFFER_BYTES;
            }
        }
        Ok(made)
    }

    fn buffering(&self, path: &Word) -> Result<Option<Buffering>, Problem> {
        if self.bytes_max == 0 {
            return match self.flush_ms {
                0 => Ok(None),
                _ => {
                    Err(Problem::new(format!("no buffer is defined for access_log \"{}\"", path.text))
                        .on(path))
                }
            };
        }
        let flush = (self.flush_ms > 0).then(|| Duration::from_millis(self.flush_ms));
        Ok(Some(Buffering { bytes_max: self.bytes_max, flush, gzip_level: self.gzip_level }))
    }
}

fn invalid(word: &Word) -> Problem {
    Problem::new(format!("invalid parameter \"{}\"", word.text)).on(word)
}

/// `open_log_file_cache max=N [inactive=time] [min_uses=N] [valid=time]` or `off`.
#[derive(Clone, Copy, Default)]
struct Cache(Option<VariableLogOptions>);

impl Value for Cache {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let (mut entries_max, mut inactive, mut valid, mut uses_min, mut off) = (0, 10, 60, 1, false);
        for word in &node.args {
            let refused = || {
                Problem::new(format!("invalid \"open_log_file_cache\" parameter \"{}\"", word.text)).on(word)
            };
            match word.text.split_once_str("=") {
                Some((b"max", value)) => entries_max = number(value).ok_or_else(refused)?,
                Some((b"inactive", value)) => inactive = seconds(value).ok_or_else(refused)?,
                Some((b"min_uses", value)) => uses_min = number(value).ok_or_else(refused)?,
                Some((b"valid", value)) => valid = seconds(value).ok_or_else(refused)?,
                None if word.text == "off" => off = true,
                _ => return Err(refused()),
            }
        }
        if off {
            return Ok(Cache(None));
        }
        if entries_max == 0 {
            return Err(Problem::new("\"open_log_file_cache\" must have \"max\" parameter"));
        }
        Ok(Cache(Some(VariableLogOptions {
            entries_max,
            inactive: Duration::from_secs(inactive),
            valid: Duration::from_secs(valid),
            uses_min: u32::try_from(uses_min).unwrap_or(u32::MAX),
        })))
    }
}
