//! What the program itself has to say: into the error log, and to the terminal while it starts.
//!
//! The form is nginx's: `2026/11/22 10:00:00 [notice] 12#12: start worker processes`, and on a terminal
//! `nginx: [emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)`.

use crate::identity::{Identity, Layout};
use crate::site::Essentials;
use bstr::BString;
use net::errno::{Errno, ErrnoMessage};
use net::log::file::LogFile;
use net::log::syslog::Severity;
use net::log::{Log, Sink};
use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;

/// nginx's `NGX_MAX_ERROR_STR`: what a line may hold.
const LINE_BYTES_MAX: usize = 2048;

/// The error logs of the process, and the terminal.
pub struct Journal {
    identity: Identity,
    sinks: Vec<JournalSink>,
    /// Whoever waits at the terminal is told warnings and worse as well.
    terminal: Option<File>,
    /// What a waiting `-s reload` will be told.
    captured: RefCell<Option<String>>,
}

/// One thing to say about a configuration.
pub struct Rendered {
    /// How bad it is.
    pub severity: Severity,
    /// nginx's line.
    pub line: BString,
    /// The configuration's own lines with marks, and what helps, for a terminal.
    pub snippet: String,
    /// What helps, a sentence each.
    pub help: Vec<String>,
}

/// One log and the least severe message it takes.
pub struct JournalSink {
    /// Where.
    pub log: Log,
    /// From here up.
    pub least: Severity,
    /// It writes to the standard error, so that nothing need be said there again.
    pub is_stderr: bool,
}

impl Journal {
    /// The log in use until the configuration has been read. Where it cannot be opened this is said, and the
    /// standard error takes its place.
    pub fn built_in(identity: Identity, layout: &Layout, least: Severity) -> Journal {
        let mut journal =
            Journal { identity, sinks: Vec::new(), terminal: standard_error(), captured: RefCell::default() };
        let mut sink = JournalSink { log: Log::new(Sink::Stderr, None), least, is_stderr: true };
        if !layout.error_log.is_empty() {
            match LogFile::open(&layout.error_log) {
                Ok(file) => {
                    sink.log = Log::to_file(Arc::new(file));
                    sink.is_stderr = false;
                }
                Err(error) => {
                    let name = bstr::BStr::new(&layout.error_log);
                    let why = ErrnoMessage(error.errno);
                    say(&format!(
                        "{}: [alert] could not open error log file: open() \"{name}\" failed ({why})\n",
                        identity.name()
                    ));
                }
            }
        }
        journal.sinks.push(sink);
        journal
    }

    /// Uses the logs of the configuration from now on.
    pub fn replace(&mut self, sinks: Vec<JournalSink>) {
        self.sinks = sinks;
    }

    /// Stops telling the terminal: the start is over.
    pub fn leave_terminal(&mut self) {
        self.terminal = None;
    }

    /// The name in front of what is said to the terminal.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Writes a message.
    pub fn write(&self, severity: Severity, message: impl AsRef<[u8]>) {
        let message = message.as_ref();
        let line = self.line(severity, message);
        let mut told_stderr = false;
        for sink in self.sinks.iter().filter(|sink| severity <= sink.least) {
            sink.log.append_with_severity(&line, severity);
            told_stderr |= sink.is_stderr;
        }
        // The master has no event loop that would do it.
        net::log::flush_thread();
        if severity > Severity::Warn {
            return;
        }
        let short = format!("[{}] {}\n", severity_name(severity), bstr::BStr::new(message));
        if let Some(mut terminal) = self.terminal.as_ref().filter(|_| !told_stderr) {
            // A closed one is nobody's loss.
            let _ = write!(terminal, "{}: {short}", self.identity.name());
        }
        if let Some(captured) = &mut *self.captured.borrow_mut() {
            captured.push_str(&short);
        }
    }

    /// Writes a message about a call that failed: `MESSAGE (2: No such file or directory)`.
    pub fn write_errno(&self, severity: Severity, message: impl AsRef<[u8]>, errno: Errno) {
        let mut message = message.as_ref().to_vec();
        // Writing into a Vec cannot fail.
        let _ = write!(message, " ({})", ErrnoMessage(errno));
        self.write(severity, message);
    }

    /// Writes what there is to say about a configuration: nginx's line, and to the logs what helps. A terminal is shown
    /// that beside the lines of the configuration.
    pub fn write_rendered(&self, rendered: &Rendered) {
        let (severity, line) = (rendered.severity, &rendered.line);
        let message = line.iter().position(|&byte| byte == b' ').map(|space| &line[space + 1..]);
        self.write(severity, message.unwrap_or(line));
        for help in &rendered.help {
            let line = self.line(severity, format!("help: {help}").as_bytes());
            for sink in self.sinks.iter().filter(|sink| severity <= sink.least && !sink.is_stderr) {
                sink.log.append_with_severity(&line, severity);
            }
            if let Some(captured) = &mut *self.captured.borrow_mut() {
                captured.push_str(&format!("[{}] help: {help}\n", severity_name(severity)));
            }
        }
        net::log::flush_thread();
    }

    /// A message as a line of a log.
    fn line(&self, severity: Severity, message: &[u8]) -> Vec<u8> {
        net::clock::refresh();
        let pid = std::process::id();
        let mut line = net::clock::error_log_time().to_vec();
        // Writing into a Vec cannot fail.
        let _ = write!(line, " [{}] {pid}#{pid}: ", severity_name(severity));
        line.extend_from_slice(message);
        line.truncate(LINE_BYTES_MAX - 1);
        line
    }

    /// Keeps a copy of warnings and worse until [`Journal::end_capture`].
    pub fn begin_capture(&self) {
        self.captured.replace(Some(String::new()));
    }

    /// What was written since [`Journal::begin_capture`], a line each.
    pub fn end_capture(&self) -> String {
        self.captured.take().unwrap_or_default()
    }

    /// For functions that report: writes as it is.
    pub fn reporter(&self) -> impl FnMut(Severity, &str) + '_ {
        |severity, message| self.write(severity, message)
    }
}

/// The standard error of now: the journal keeps it when that becomes the error log.
fn standard_error() -> Option<File> {
    std::io::stderr().as_fd().try_clone_to_owned().ok().map(File::from)
}

/// Puts the standard error into the first log file, so that what others write there (a panic, for one) is kept.
/// Left alone where a log is to go to the standard error itself.
pub fn redirect_stderr(journal: &Journal, essentials: &Essentials) {
    if essentials.uses_stderr {
        return;
    }
    let Some(file) = journal.sinks.iter().find_map(|sink| sink.log.file()) else { return };
    if let Err(errno) = file.duplicate().and_then(|fd| net::process::daemon::release_terminal(Some(&fd))) {
        journal.write_errno(Severity::Alert, "dup2(STDERR) failed", errno);
    }
}

/// The level's name as nginx writes it.
pub fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Emerg => "emerg",
        Severity::Alert => "alert",
        Severity::Crit => "crit",
        Severity::Error => "error",
        Severity::Warn => "warn",
        Severity::Notice => "notice",
        Severity::Info => "info",
        Severity::Debug => "debug",
    }
}

/// The severity of a finding about the configuration.
pub fn severity_of(level: conf::Level) -> Severity {
    match level {
        conf::Level::Emerg => Severity::Emerg,
        conf::Level::Alert => Severity::Alert,
        conf::Level::Crit => Severity::Crit,
        conf::Level::Error => Severity::Error,
        conf::Level::Warn => Severity::Warn,
        conf::Level::Notice => Severity::Notice,
        _ => Severity::Info,
    }
}

/// Writes to the standard error, where nginx says everything. A closed one is nobody's loss.
pub fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
