//! From configuration files to what the processes need to know of them: the seam between the program and the engine.

use crate::files::{RecordedFiles, file_error};
use crate::identity::{ConfSource, Layout};
use crate::journal::{Rendered, severity_of};
use bstr::{BStr, BString, ByteSlice};
use conf::{Diagnostic, Node, SourceMap};
use engine::Snapshot;
use engine::compile::{Compiled, Surroundings};
use engine::core::main::WorkerProcesses;
use engine::core::worker::Affinity;
use engine::log;
use net::file::temporary::TemporaryFolder;
use net::listen::ListenOptions;
use net::log::file::LogFiles;
use net::log::syslog::{Parameters, Severity};
use net::process::user::{User, group_by_name, user_by_name};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// More threads than any machine has processors for.
const THREADS_MAX: usize = 1024;

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
    /// `worker_priority`, where it is to change.
    pub priority: Option<i32>,
    /// `worker_cpu_affinity`.
    pub affinity: Option<Affinity>,
    /// `worker_shutdown_timeout`.
    pub shutdown_timeout: Option<Duration>,
    /// `working_directory`.
    pub working_directory: Option<Vec<u8>>,
    /// `env`: names to keep, and `name=value` to set.
    pub environment: Vec<Vec<u8>>,
    /// `error_log` of the main level.
    pub error_logs: Vec<ErrorLog>,
    /// Some log anywhere goes to the standard error, which therefore stays what it was at the start.
    pub uses_stderr: bool,
    /// Every address to listen on, also those that a wildcard address covers.
    pub listens: Vec<ListenOptions>,
    /// Every log file, in full.
    pub log_files: Vec<Vec<u8>>,
    /// Folders for temporary files, and whether the configuration names them itself.
    pub folders: Vec<(TemporaryFolder, bool)>,
    /// Folders where accounts, keys and certificates of issuers are kept.
    pub state_paths: Vec<Vec<u8>>,
}

impl Essentials {
    /// What is to be listened on: without addresses that a wildcard covers.
    pub fn sockets(&self) -> Vec<ListenOptions> {
        let needs = net::listen::needs_socket(&self.listens);
        let wanted = self.listens.iter().zip(needs).filter(|(_, needs)| *needs);
        wanted.map(|(options, _)| options.clone()).collect()
    }
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
    /// `syslog:`.
    Syslog(Box<Parameters>),
}

/// A configuration that was read.
pub struct Loaded {
    /// What the processes need of it; defaults where it is wrong.
    pub essentials: Essentials,
    /// Its texts, for messages and `-T`.
    pub sources: SourceMap,
    /// What there is to say about it, in nginx's order.
    pub diagnostics: Vec<Diagnostic>,
    /// Directives that were accepted though there is nothing to tune here, each once.
    pub idle: Vec<BString>,
    /// The files it was read from.
    pub files: Arc<RecordedFiles>,
    /// What a worker serves by; its snapshot is taken when it begins to.
    compiled: Option<Compiled>,
}

impl Loaded {
    /// Opens what the engine writes to, and gives what it serves by.
    ///
    /// # Errors
    /// In nginx's words; a configuration can be put in force once.
    pub fn activate(&mut self, logs: &LogFiles) -> Result<Arc<Snapshot>, String> {
        self.compiled.as_mut().ok_or("the configuration is in force already")?.activate(logs)
    }

    /// Forgets the texts, and with them what there is to say about them.
    pub fn forget_texts(&mut self) {
        self.sources = SourceMap::default();
        self.diagnostics = Vec::new();
        self.files = Arc::new(RecordedFiles::of_record(Default::default()));
    }

    /// What it was made of, and what it compiled to where another process serves by it. To be dropped when nobody
    /// waits: see [`engine::compile::Spent`].
    pub fn spent(&mut self) -> Option<Compiled> {
        self.compiled.take()
    }

    /// True where it can be served.
    pub fn is_good(&self) -> bool {
        !self.diagnostics.iter().any(|diagnostic| diagnostic.level.is_error())
    }

    /// True where nothing is wrong that can be seen while reading. What nginx checks afterwards has no place in a
    /// file and is no failure of the system.
    pub fn is_syntax_good(&self) -> bool {
        let is_later =
            |diagnostic: &Diagnostic| diagnostic.reported_at().is_none() && diagnostic.os_error.is_none();
        self.diagnostics.iter().all(|diagnostic| !diagnostic.level.is_error() || is_later(diagnostic))
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
    let user = parsed.tree.root.nodes.iter().rfind(|node| node.name.text == "user").cloned();
    let mut compiled = engine::compile::compile(
        parsed,
        modules::MODULES,
        &surroundings(layout, files.clone()),
        files.clone(),
    );
    let mut diagnostics = std::mem::take(&mut compiled.diagnostics);
    let mut essentials = essentials(&compiled, layout);
    if essentials.affinity.as_ref().is_some_and(|affinity| affinity.is_uneven(essentials.threads)) {
        let text = "the number of \"worker_processes\" is not equal to the number of \"worker_cpu_affinity\" \
                    masks, using last mask for remaining worker processes";
        diagnostics.push(Diagnostic::warn("affinity", text));
    }
    diagnostics.extend(too_few_connections(&compiled, &essentials));
    if role == Role::Master {
        essentials.user = worker_user(user.as_ref(), &mut diagnostics);
    }
    let sources = std::mem::take(&mut compiled.sources);
    let diagnostics = conf::in_reading_order(diagnostics, &sources);
    let mut idle = std::mem::take(&mut compiled.idle);
    idle.sort();
    idle.dedup();
    Loaded { essentials, sources, diagnostics, idle, files, compiled: Some(compiled) }
}

/// Each socket that is listened on takes a connection, and nginx one more.
fn too_few_connections(compiled: &Compiled, essentials: &Essentials) -> Option<Diagnostic> {
    let most = compiled.snapshot.as_ref()?.connections_max;
    let sockets = essentials.sockets().len();
    let text = format!("{most} worker_connections are not enough for {sockets} listening sockets");
    (most <= sockets).then(|| Diagnostic::emerg("worker-connections", text))
}

/// Where the engine finds what paths are relative to, and the addresses of names.
fn surroundings(layout: &Layout, names: Arc<RecordedFiles>) -> Surroundings {
    let hostname = rustix::system::uname().nodename().to_bytes().as_bstr().to_owned();
    Surroundings {
        prefix: layout.prefix.clone().into(),
        conf_prefix: layout.conf_prefix.clone().into(),
        hostname,
        default_port: if is_root() { 80 } else { 8000 },
        error_log: match &layout.error_log[..] {
            b"" => log::Target::Stderr,
            path => log::Target::File(path.into()),
        },
        access_log: layout.access_log.clone().into(),
        names,
    }
}

/// What the processes need of a compiled configuration.
fn essentials(compiled: &Compiled, layout: &Layout) -> Essentials {
    let main = &compiled.main;
    let specs = &compiled.logs.specs;
    let target = |target: &log::Target| match target {
        log::Target::File(path) => LogTarget::File(path.to_vec()),
        log::Target::Stderr => LogTarget::Stderr,
        log::Target::Syslog(parameters) => LogTarget::Syslog(parameters.clone()),
    };
    let error_logs = compiled.error_log.iter().filter_map(|log| {
        let spec = specs.get(log.log.0 as usize)?;
        Some(ErrorLog { target: target(&spec.target), least: log::severity(log.level) })
    });
    let mut log_files: Vec<Vec<u8>> = Vec::new();
    for spec in specs {
        if let log::Target::File(path) = &spec.target
            && !log_files.iter().any(|known| known == &**path)
        {
            log_files.push(path.to_vec());
        }
    }
    let pid = main.pid.value().filter(|pid| !pid.is_empty());
    let limit = |limit: Option<Option<u64>>| limit.flatten();
    Essentials {
        daemon: main.daemon.value().is_none_or(|flag| flag.0),
        master_process: main.master_process.value().is_none_or(|flag| flag.0),
        pid: pid.map_or_else(|| layout.pid.clone(), |pid| layout.full_name(pid)),
        user: None,
        threads: match main.worker_processes.value() {
            Some(WorkerProcesses::Auto) => std::thread::available_parallelism().map_or(1, usize::from),
            Some(WorkerProcesses::Count(count)) => (*count).clamp(1, THREADS_MAX),
            None => 1,
        },
        open_files_max: limit(main.worker_rlimit_nofile.value().map(|n| n.map(|n| n.0 as u64))),
        core_bytes_max: limit(main.worker_rlimit_core.value().map(|n| n.map(|n| n.0))),
        priority: main.worker_priority.value().copied().flatten().map(|to| to.0).filter(|to| *to != 0),
        affinity: main.worker_cpu_affinity.value().cloned().flatten(),
        shutdown_timeout: main
            .worker_shutdown_timeout
            .value()
            .copied()
            .flatten()
            .map(|t| Duration::from_millis(t.0)),
        working_directory: main.working_directory.value().cloned().flatten().map(Vec::from),
        environment: main.env.value().into_iter().flatten().map(|text| text.to_vec()).collect(),
        error_logs: error_logs.collect(),
        uses_stderr: specs.iter().any(|spec| spec.target == log::Target::Stderr),
        listens: compiled
            .snapshot
            .iter()
            .flat_map(|snapshot| &snapshot.listens)
            .map(|listen| listen.options.clone())
            .collect(),
        log_files,
        state_paths: state_paths(compiled),
        folders: compiled.folders.iter().map(|(folder, is_named)| (folder.folder(), *is_named)).collect(),
    }
}

/// Where issuers' certificates are kept, each folder once.
fn state_paths(compiled: &Compiled) -> Vec<Vec<u8>> {
    let issuers = compiled.snapshot.iter().flat_map(|snapshot| &snapshot.issuers);
    let mut paths: Vec<Vec<u8>> = issuers.filter_map(|issuer| issuer.state_path.clone()).collect();
    paths.sort();
    paths.dedup();
    paths
}

/// Whether this process began as root. A worker that has given that up must go on reading configurations as its
/// master does: a `server` without `listen` is on port 80 for root, on 8000 for others.
pub fn is_root() -> bool {
    static BEGAN_AS_ROOT: OnceLock<bool> = OnceLock::new();
    *BEGAN_AS_ROOT.get_or_init(|| rustix::process::geteuid().is_root())
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

/// Everything to say about a configuration.
pub fn rendered(loaded: &Loaded, color: bool) -> Vec<Rendered> {
    let render = |diagnostic: &Diagnostic| Rendered {
        severity: severity_of(diagnostic.level),
        line: conf::render_nginx(diagnostic, &loaded.sources),
        snippet: conf::render_snippet(diagnostic, &loaded.sources, color),
        help: diagnostic.help.clone(),
    };
    loaded.diagnostics.iter().map(render).collect()
}
