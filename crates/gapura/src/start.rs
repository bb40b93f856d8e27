//! What the command line asks for: a test, a signal to a running master, or a server.
//!
//! The order of what happens, and of what is said about it, is nginx's.

use crate::command_line::{MasterSignal, Options};
use crate::control::Asker;
use crate::files::RecordedFiles;
use crate::identity::{ConfSource, Identity, Layout, Places, exists};
use crate::journal::{Journal, redirect_stderr, say};
use crate::master::{Generation, Master, Start};
use crate::pid_file;
use crate::single;
use crate::site::{self, Loaded, Role};
use crate::wire::Verdict;
use crate::worker::open_sinks;
use net::listen::Listener;
use net::log::file::LogFiles;
use net::log::syslog::Severity;
use net::process::daemon::{self, Detached, News};
use net::process::signals::Signals;
use net::process::title::Title;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

/// The variable in which a program names the sockets it leaves to the next one.
const SOCKETS_VARIABLE: &str = "NGINX";

/// Does what the options say.
pub fn run(identity: Identity, options: Options, arguments: Vec<OsString>, title: Title) -> ExitCode {
    let places = Places {
        prefix: options.prefix.as_deref(),
        conf: options.conf.as_deref(),
        error_log: options.error_log.as_deref(),
    };
    let mut layout = Layout::new(identity, places, exists);
    if layout.conf == ConfSource::BuiltIn && !site::is_root() {
        layout.pid = private_pid();
    }
    let least = if options.test { Severity::Info } else { Severity::Notice };
    let journal = Journal::built_in(identity, &layout, least);
    let inherited = match std::env::var(SOCKETS_VARIABLE) {
        Ok(list) if !options.test && options.signal.is_none() => {
            journal.write(Severity::Notice, format!("using inherited sockets from \"{list}\""));
            Some(net::listen::inherit(&list, &mut journal.reporter()))
        }
        _ => None,
    };
    let files = Arc::new(RecordedFiles::of_system());
    let loaded = site::load(&layout, options.directives.as_deref(), files, Role::Master);
    let conf = bstr::BStr::new(layout.conf_name()).to_owned();
    let name = identity.name();
    let says_syntax = loaded.is_syntax_good() && options.test && !options.quiet;
    let say_syntax = || say(&format!("{name}: the configuration file {conf} syntax is ok\n"));
    if says_syntax && !loaded.is_good() {
        say_syntax();
    }
    let is_good = tell(&journal, &loaded, &options);
    if says_syntax && is_good {
        say_syntax();
    }
    if options.test {
        let code = test(&journal, is_good.then_some(&loaded), &options, &conf);
        // The process ends: nothing is gained by taking a large configuration apart first.
        std::mem::forget(loaded);
        return code;
    }
    match (is_good, options.signal) {
        (false, _) => ExitCode::FAILURE,
        (true, Some(signal)) => {
            let code = send_signal(&journal, &loaded, signal);
            std::mem::forget(loaded);
            code
        }
        (true, None) => {
            let start = Start {
                layout,
                command_line: options.directives,
                arguments,
                environment: std::env::vars_os().filter(|(name, _)| name != SOCKETS_VARIABLE).collect(),
                parent: rustix::process::getppid(),
                is_daemon: inherited.is_some(),
            };
            serve(journal, start, loaded, inherited, title).unwrap_or(ExitCode::FAILURE)
        }
    }
}

/// Where somebody who is not root may keep the pid file of a server without configuration.
fn private_pid() -> Vec<u8> {
    let uid = rustix::process::geteuid();
    let folder = std::env::var_os("XDG_RUNTIME_DIR").map(std::path::PathBuf::from);
    let path = match folder.filter(|folder| folder.is_dir()) {
        Some(folder) => folder.join("gapura.pid"),
        None => std::env::temp_dir().join(format!("gapura-{uid}.pid")),
    };
    path.into_os_string().into_encoded_bytes()
}

/// Asks for the lines of the configuration beside each message where the standard error is no terminal, too.
pub const SNIPPETS_VARIABLE: &str = "GAPURA_SNIPPETS";

/// Says what there is to say about a configuration: everything in nginx's form, and on a terminal with the lines
/// themselves. True where it can be served.
fn tell(journal: &Journal, loaded: &Loaded, options: &Options) -> bool {
    let is_terminal = std::io::stderr().is_terminal();
    let color = is_terminal && std::env::var_os("NO_COLOR").is_none();
    let with_snippets = is_terminal || std::env::var_os(SNIPPETS_VARIABLE).is_some();
    for rendered in site::rendered(loaded, color) {
        if rendered.severity <= Severity::Warn || options.test {
            journal.write_rendered(&rendered);
        }
        if with_snippets && rendered.severity <= Severity::Warn {
            say(&rendered.snippet);
        }
    }
    loaded.is_good()
}

/// `-t` and `-T`: opens what a start would open, but leaves nothing behind.
fn test(journal: &Journal, loaded: Option<&Loaded>, options: &Options, conf: &bstr::BString) -> ExitCode {
    let name = journal.identity().name();
    let tested = loaded.filter(|loaded| {
        let essentials = &loaded.essentials;
        let opened = pid_file::create(&essentials.pid, true)
            .and_then(|()| crate::master::open_files(essentials, &LogFiles::default()));
        let sockets = essentials.sockets();
        match opened {
            Ok(_) => net::listen::test(&sockets, &mut journal.reporter()).is_ok(),
            Err(why) => {
                journal.write(Severity::Emerg, why);
                false
            }
        }
    });
    let Some(loaded) = tested else {
        say(&format!("{name}: configuration file {conf} test failed\n"));
        return ExitCode::FAILURE;
    };
    if !options.quiet {
        say(&format!("{name}: configuration file {conf} test is successful\n"));
        // Programs read nginx's two lines; people may be told more.
        let is_read_by_people = journal.identity() == Identity::Gapura || std::io::stderr().is_terminal();
        if is_read_by_people && !loaded.idle.is_empty() {
            let names: Vec<String> = loaded.idle.iter().map(|name| format!("\"{name}\"")).collect();
            say(&format!("{name}: accepted, with nothing to tune here: {}\n", names.join(", ")));
        }
    }
    if options.dump {
        // A closed standard output is nobody's loss.
        let _ = std::io::stdout().write_all(&conf::dump(&loaded.sources));
    }
    ExitCode::SUCCESS
}

/// `-s`: tells a running master, and for a reload waits for its verdict.
fn send_signal(journal: &Journal, loaded: &Loaded, signal: MasterSignal) -> ExitCode {
    journal.write(Severity::Notice, "signal process started");
    let path = &loaded.essentials.pid;
    let pid = match pid_file::read(path) {
        Ok(pid) => pid,
        Err(why) => {
            journal.write(Severity::Error, why);
            return ExitCode::FAILURE;
        }
    };
    let asker = (signal == MasterSignal::Reload).then(|| Asker::new(path)).flatten();
    let number = match signal {
        MasterSignal::Stop => rustix::process::Signal::TERM,
        MasterSignal::Quit => rustix::process::Signal::QUIT,
        MasterSignal::Reopen => rustix::process::Signal::USR1,
        MasterSignal::Reload => rustix::process::Signal::HUP,
    };
    if let Err(errno) = rustix::process::kill_process(pid, number) {
        journal.write_errno(Severity::Alert, format!("kill({pid}, {}) failed", number.as_raw()), errno);
        return ExitCode::FAILURE;
    }
    let Some(asker) = asker else { return ExitCode::SUCCESS };
    let name = journal.identity().name();
    match asker.verdict() {
        Some(Verdict::Serving) => ExitCode::SUCCESS,
        Some(Verdict::Refused(why)) => {
            why.lines().for_each(|line| say(&format!("{name}: {line}\n")));
            ExitCode::FAILURE
        }
        Some(Verdict::Draining | Verdict::Keep(..)) | None => {
            say(&format!("{name}: [error] process {pid} did not say whether it took the configuration\n"));
            ExitCode::FAILURE
        }
    }
}

/// Starts a server. `None`: it failed, and why was said.
fn serve(
    mut journal: Journal,
    mut start: Start,
    loaded: Loaded,
    inherited: Option<Vec<Listener>>,
    title: Title,
) -> Option<ExitCode> {
    let logs = LogFiles::default();
    let opened = crate::master::open_files(&loaded.essentials, &logs);
    let log_files = opened.map_err(|why| journal.write(Severity::Emerg, why)).ok()?;
    let wanted = loaded.essentials.sockets();
    let inherited = inherited.unwrap_or_default();
    let listeners = net::listen::open(&wanted, &inherited, &mut journal.reporter()).ok()?;
    // Sockets of the old program that this configuration does not want close here.
    drop(inherited);
    let generation = Generation { loaded, listeners, log_files };
    let essentials = &generation.loaded.essentials;
    journal.replace(open_sinks(&essentials.error_logs, &logs));
    greet(&journal, &start);
    let mut news = None;
    if essentials.daemon && !start.is_daemon {
        match daemon::detach() {
            Ok(Detached::Starter(starter)) => {
                return Some(if starter.wait() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            Ok(Detached::Daemon(daemon_news)) => news = Some(daemon_news),
            Err(errno) => {
                journal.write_errno(Severity::Emerg, "fork() failed", errno);
                return None;
            }
        }
        start.is_daemon = true;
    }
    let signals =
        Signals::take().map_err(|errno| journal.write_errno(Severity::Emerg, "sigaction() failed", errno));
    let signals = signals.ok()?;
    pid_file::create(&essentials.pid, false).map_err(|why| journal.write(Severity::Emerg, why)).ok()?;
    net::process::title::set_process_name(journal.identity().name());
    let master_process = essentials.master_process;
    redirect_stderr(&journal, essentials);
    let leave_terminal = |journal: &mut Journal, news: Option<News>| {
        journal.leave_terminal();
        if let Some(news) = news {
            news.good();
        }
    };
    if !master_process {
        let pid = essentials.pid.clone();
        return Some(single::run(journal, start, signals, logs, generation, pid, |journal| {
            leave_terminal(journal, news)
        }));
    }
    let pid = essentials.pid.clone();
    let mut generation = generation;
    let spent = generation.loaded.spent();
    let mut master = Master::new(journal, start, title, signals, logs, generation);
    if master.begin().is_err() {
        // The error was said; the file names a process that ends now.
        let _ = rustix::fs::unlink(&pid[..]);
        return None;
    }
    leave_terminal(master.journal(), news);
    drop(spent);
    Some(master.run())
}

/// What nginx says of every configuration it takes.
pub const EVENT_METHOD: &str = "using the \"epoll\" event method";

/// What the log begins with.
fn greet(journal: &Journal, start: &Start) {
    journal.write(Severity::Notice, EVENT_METHOD);
    journal.write(Severity::Notice, journal.identity().product());
    journal.write(Severity::Notice, format!("built by {}", env!("GAPURA_COMPILER")));
    let system = rustix::system::uname();
    let (name, release) = (system.sysname().to_string_lossy(), system.release().to_string_lossy());
    journal.write(Severity::Notice, format!("OS: {name} {release}"));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let shown = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
    let (current, maximum) = (shown(limit.current), shown(limit.maximum));
    journal.write(Severity::Notice, format!("getrlimit(RLIMIT_NOFILE): {current}:{maximum}"));
    if start.layout.conf == ConfSource::BuiltIn {
        let port = crate::built_in::port(site::is_root());
        let place =
            if port == 80 { "http://localhost/".to_owned() } else { format!("http://localhost:{port}/") };
        let name = journal.identity().name();
        say(&format!(
            "{name}: there is no configuration file; {place} says what to do next (Ctrl-C ends the program)\n"
        ));
    }
}
