//! From configuration files to what the processes need to know of them: the seam between the program and the engine.

mod by_hand;

use crate::files::{RecordedFiles, file_error};
use crate::identity::{ConfSource, Layout};
use bstr::{BStr, BString, ByteSlice};
use conf::{Diagnostic, Node, SourceMap};
use net::listen::ListenOptions;
use net::log::syslog::Severity;
use net::process::user::{User, group_by_name, user_by_name};
use std::sync::Arc;
use std::time::Duration;

/// What the master and the worker's main thread go by.
#[derive(Clone, Debug, PartialEq)]
pub struct Essentials {
    /// `daemon`.
    pub daemon: bool,
    /// `master_process`.
    pub master_process: bool,
    /// `pid`, in full.
    pub pid: Vec<u8>,
    /// `user`; filled in the master alone, and only where it may become somebody else.
    pub user: Option<User>,
    /// `worker_processes`: threads of the one worker.
    pub threads: usize,
    /// `worker_rlimit_nofile`.
    pub open_files_max: Option<u64>,
    /// `worker_rlimit_core`, in bytes.
    pub core_bytes_max: Option<u64>,
    /// `worker_shutdown_timeout`.
    pub shutdown_timeout: Option<Duration>,
    /// `working_directory`.
    pub working_directory: Option<Vec<u8>>,
    /// `env`: names to keep, and `name=value` to set.
    pub environment: Vec<Vec<u8>>,
    /// `error_log` of the main level.
    pub error_logs: Vec<ErrorLog>,
    /// Every address to listen on, also those that a wildcard address covers.
    pub listens: Vec<ListenOptions>,
    /// Every log file, in full.
    pub log_files: Vec<Vec<u8>>,
}

/// One `error_log`.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorLog {
    /// Where.
    pub target: LogTarget,
    /// From here up.
    pub least: Severity,
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq)]
pub enum LogTarget {
    /// A file, in full.
    File(Vec<u8>),
    /// `stderr`.
    Stderr,
    /// `syslog:`; what stands behind the colon.
    Syslog(Vec<u8>),
}

/// A configuration that was read.
pub struct Loaded {
    /// What the processes need of it; defaults where it is wrong.
    pub essentials: Essentials,
    /// Its texts, for messages and `-T`.
    pub sources: SourceMap,
    /// What there is to say about it, in nginx's order.
    pub diagnostics: Vec<Diagnostic>,
    /// The files it was read from.
    pub files: Arc<RecordedFiles>,
    /// What a worker serves by.
    pub plan: by_hand::Plan,
}

impl Loaded {
    /// True where it can be served.
    pub fn is_good(&self) -> bool {
        !self.diagnostics.iter().any(|diagnostic| diagnostic.level.is_error())
    }
}

/// Who reads a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The process that was started: it looks up the user.
    Master,
    /// The worker, which is told who to be.
    Worker,
}

/// Reads a configuration. Never fails: see [`Loaded::is_good`].
pub fn load(layout: &Layout, command_line: Option<&[u8]>, files: Arc<RecordedFiles>, role: Role) -> Loaded {
    let parsed = match &layout.conf {
        ConfSource::File(path) => conf::parse(path.as_bstr(), command_line.map(BStr::new), &*files),
        ConfSource::BuiltIn => {
            let mut built_in = conf::MemoryFiles::new();
            built_in.insert(layout.conf_name(), crate::built_in::text(is_root(), &layout.pid));
            conf::parse(layout.conf_name().as_bstr(), command_line.map(BStr::new), &built_in)
        }
    };
    let mut diagnostics = parsed.diagnostics;
    let user = parsed.tree.root.nodes.iter().rfind(|node| node.name.text == "user").cloned();
    let (mut essentials, plan) = by_hand::read(&parsed.tree, layout, &mut diagnostics);
    if role == Role::Master {
        essentials.user = worker_user(user.as_ref(), &mut diagnostics);
    }
    let diagnostics = conf::in_reading_order(diagnostics, &parsed.tree.sources);
    Loaded { essentials, sources: parsed.tree.sources, diagnostics, files, plan }
}

/// May this process become somebody else, and listen where it wants?
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whom workers run as when nothing is said: the first there is of nginx.org's user, Debian's, and nginx's own
/// default.
const USERS_DEFAULT: [&str; 3] = ["nginx", "www-data", "nobody"];

/// Finds the user of the directive, or the default one. Only root can become another.
fn worker_user(node: Option<&Node>, diagnostics: &mut Vec<Diagnostic>) -> Option<User> {
    if !is_root() {
        if let Some(node) = node {
            let text = "the \"user\" directive makes sense only if the master process runs with super-user \
                        privileges, ignored";
            diagnostics.push(Diagnostic::warn("user-ignored", text).at(node.span()).line(node.end));
        }
        return None;
    }
    let Some(node) = node else {
        let found = USERS_DEFAULT.iter().find_map(|name| user_by_name(name.as_bytes()).ok().flatten());
        if found.is_none() {
            let text = format!("getpwnam(\"{}\") failed", USERS_DEFAULT[2]);
            diagnostics.push(Diagnostic::emerg("unknown-user", text));
        }
        return found;
    };
    let name = node.args.first()?;
    let mut unknown = |call: &str, word: &conf::Word, answer: Result<bool, net::errno::Errno>| {
        let text = format!("{call}(\"{}\") failed", word.text);
        let mut diagnostic = Diagnostic::emerg("unknown-user", text).at(word.span).line(node.end);
        if let Err(errno) = answer {
            diagnostic = diagnostic.os_error(file_error(errno));
        }
        diagnostics.push(diagnostic);
    };
    let mut user = match user_by_name(&name.text) {
        Ok(Some(user)) => user,
        answer => {
            unknown("getpwnam", name, answer.map(|_| false));
            return None;
        }
    };
    // Without a group nginx takes the one with the user's name.
    let group = node.args.get(1).unwrap_or(name);
    match group_by_name(&group.text) {
        Ok(Some(gid)) => user.gid = gid,
        answer => {
            unknown("getgrnam", group, answer.map(|_| false));
            return None;
        }
    }
    Some(user)
}

/// Everything to say about a configuration, each as nginx's line and the snippet for people.
pub fn rendered(loaded: &Loaded, color: bool) -> Vec<(Severity, BString, String)> {
    let render = |diagnostic: &Diagnostic| {
        let line = conf::render_nginx(diagnostic, &loaded.sources);
        let snippet = conf::render_snippet(diagnostic, &loaded.sources, color);
        (crate::journal::severity_of(diagnostic.level), line, snippet)
    };
    loaded.diagnostics.iter().map(render).collect()
}
