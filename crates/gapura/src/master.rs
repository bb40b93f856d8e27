//! The master: one thread, no event loop but `poll`. It owns the sockets, the logs and the pid file, starts workers,
//! and does what signals say.
//!
//! ```text
//!            HUP: read, open what is new, tell the worker, wait, close what is old
//!            USR1: open logs anew     USR2: start the new binary     WINCH: let workers finish
//!   serving ------------------------------------------------------------------------------.
//!      |  a worker dies: start another                                                     |
//!      `-- QUIT: workers finish, sockets close --> no worker left --> exit <-- TERM, INT: workers end
//! ```

mod reload;
mod workers;

pub use reload::open_files;

use crate::control::Control;
use crate::identity::Layout;
use crate::journal::{Journal, redirect_stderr};
use crate::pid_file;
use crate::site::Loaded;
use net::errno::ErrnoMessage;
use net::listen::{Listener, remove_socket_file};
use net::log::file::LogFiles;
use net::log::syslog::Severity;
use net::process::channel::wait_readable;
use net::process::signals::{Received, Signal, Signals};
use net::process::title::Title;
use rustix::process::Pid;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use workers::Worker;

/// How long workers may take to follow TERM before they are killed.
const TERMINATE_PATIENCE: Duration = Duration::from_secs(2);

/// What is in force: a configuration with everything that was opened for it.
pub struct Generation {
    /// The configuration.
    pub loaded: Loaded,
    /// Its listening sockets.
    pub listeners: Vec<Listener>,
    /// Its log files, in the order of the configuration.
    pub log_files: Vec<Arc<net::log::file::LogFile>>,
}

/// How the program was started, which a reload does not change.
pub struct Start {
    /// Where things are.
    pub layout: Layout,
    /// `-g`.
    pub command_line: Option<Vec<u8>>,
    /// All words of the command line, for the title and for a new binary.
    pub arguments: Vec<OsString>,
    /// The environment of the start.
    pub environment: Vec<(OsString, OsString)>,
    /// The parent at the start; while it is still the parent, this is the terminal's process or a new binary.
    pub parent: Option<Pid>,
    /// In the background, or started by an old binary.
    pub is_daemon: bool,
}

/// The master's state.
pub struct Master {
    journal: Journal,
    start: Start,
    title: Title,
    signals: Signals,
    logs: LogFiles,
    generation: Generation,
    workers: Vec<Worker>,
    control: Option<Control>,
    /// Signals that came while something else was waited for.
    pending: Vec<Received>,
    new_binary: Option<Pid>,
    /// A QUIT or a TERM has come; TERM with the moment when patience ends.
    is_quitting: bool,
    terminating: Option<Instant>,
    /// WINCH: workers were told to finish, and none is to follow.
    is_not_accepting: bool,
    /// When a worker that keeps dying is started again.
    respawn_at: Option<Instant>,
}

/// The line about a signal, as nginx writes it.
pub fn signal_line(received: Received, action: &str) -> String {
    let Received { signal, sender } = received;
    let from = sender.map(|pid| format!(" from {pid}")).unwrap_or_default();
    format!("signal {} ({}) received{from}{action}", signal.number(), signal.name())
}

impl Master {
    /// A master with everything open; see [`Master::begin`].
    pub fn new(
        journal: Journal,
        start: Start,
        title: Title,
        signals: Signals,
        logs: LogFiles,
        generation: Generation,
    ) -> Master {
        Master {
            journal,
            start,
            title,
            signals,
            logs,
            generation,
            workers: Vec::new(),
            control: None,
            pending: Vec::new(),
            new_binary: None,
            is_quitting: false,
            terminating: None,
            is_not_accepting: false,
            respawn_at: None,
        }
    }

    /// Starts the first worker and waits until it serves. An error was logged.
    pub fn begin(&mut self) -> Result<(), ()> {
        // The next configuration wants as much memory as this one's reading leaves behind.
        net::memory::keep_freed();
        let mut title = format!("{}: master process", self.journal.identity().name()).into_bytes();
        for argument in &self.start.arguments {
            title.push(b' ');
            title.extend_from_slice(argument.as_encoded_bytes());
        }
        self.title.set(&title);
        self.journal.write(Severity::Notice, "start worker processes");
        let started = self.start_worker().and_then(|worker| {
            let verdict = self.verdict_of(&worker);
            self.workers.push(worker);
            verdict.map_err(|refusal| refusal.why)
        });
        if let Err(why) = started {
            self.log_refusal(&why);
            // One that refused ends by itself; one that is stuck must not stay behind.
            for worker in &self.workers {
                let _ = rustix::process::kill_process(worker.pid, rustix::process::Signal::KILL);
            }
            return Err(());
        }
        self.open_control();
        Ok(())
    }

    /// The log, to tell it that the start is over.
    pub fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// Serves until told to end.
    pub fn run(mut self) -> ExitCode {
        loop {
            for received in std::mem::take(&mut self.pending) {
                self.signal(received);
            }
            if self.workers.is_empty() && (self.terminating.is_some() || self.is_quitting) {
                return self.exit();
            }
            if self.respawn_at.is_some_and(|at| at <= Instant::now()) {
                self.respawn_at = None;
                self.respawn();
            }
            if self.terminating.is_some_and(|at| at <= Instant::now()) {
                self.signal_workers(rustix::process::Signal::KILL);
                self.terminating = Some(Instant::now() + TERMINATE_PATIENCE);
            }
            self.wait();
        }
    }

    /// Waits for a signal, a word of a worker, or somebody who asks for a reload.
    fn wait(&mut self) {
        // What came while something else was waited for is not announced again.
        let at_once = (!self.pending.is_empty()).then(Instant::now);
        let next = [self.respawn_at, self.terminating, at_once].into_iter().flatten().min();
        let patience = next.map(|at| at.saturating_duration_since(Instant::now()));
        let mut polled = vec![self.signals.as_fd()];
        polled.extend(self.control.as_ref().map(AsFd::as_fd));
        let speaking = polled.len();
        polled.extend(self.workers.iter().filter_map(|worker| worker.channel.as_ref()).map(AsFd::as_fd));
        let readable = wait_readable(&polled, patience).unwrap_or_default();
        while let Some(received) = self.signals.take_next() {
            self.pending.push(received);
        }
        if readable.get(1).copied().unwrap_or(false)
            && let Some(control) = &mut self.control
        {
            control.hear();
        }
        if readable.iter().skip(speaking).any(|&speaks| speaks) {
            self.hear_workers();
        }
    }

    fn signal(&mut self, received: Received) {
        let ignores_upgrade = rustix::process::getppid() == self.start.parent || self.new_binary.is_some();
        let action = match received.signal {
            Signal::Quit => ", shutting down",
            Signal::Terminate | Signal::Interrupt => ", exiting",
            Signal::WindowChange if self.start.is_daemon => ", stop accepting connections",
            Signal::Hangup => ", reconfiguring",
            Signal::User1 => ", reopening logs",
            Signal::User2 if ignores_upgrade => ", ignoring",
            Signal::User2 => ", changing binary",
            Signal::WindowChange | Signal::Child => "",
        };
        self.journal.write(Severity::Notice, signal_line(received, action));
        match received.signal {
            Signal::Child => self.reap(),
            Signal::Terminate | Signal::Interrupt => {
                self.terminating.get_or_insert(Instant::now() + TERMINATE_PATIENCE);
                self.signal_workers(rustix::process::Signal::TERM);
            }
            Signal::Quit => {
                self.is_quitting = true;
                self.drain_workers();
                self.close_listeners();
            }
            Signal::Hangup => self.hangup(),
            Signal::User1 => self.reopen(),
            Signal::User2 if ignores_upgrade => {
                let why = "the changing binary signal is ignored: you should shutdown or terminate before either \
                           old or new binary's process";
                self.journal.write(Severity::Crit, why);
            }
            Signal::User2 => self.change_binary(),
            Signal::WindowChange if self.start.is_daemon => {
                self.is_not_accepting = true;
                self.drain_workers();
            }
            Signal::WindowChange => {}
        }
    }

    /// HUP: a reload; while a new binary runs, workers for the old one.
    fn hangup(&mut self) {
        if self.is_quitting || self.terminating.is_some() {
            return;
        }
        if self.new_binary.is_some() {
            self.is_not_accepting = false;
            self.start_anew();
            return;
        }
        self.reload();
    }

    /// USR1: opens all logs again, gives them to the worker's user, and hands them over.
    fn reopen(&mut self) {
        self.journal.write(Severity::Notice, "reopening logs");
        for (file, error) in self.logs.reopen() {
            let path = bstr::BStr::new(file.path());
            self.journal.write_errno(Severity::Emerg, format!("open() \"{path}\" failed"), error.errno);
        }
        if let Some(user) = &self.generation.loaded.essentials.user {
            for file in &self.generation.log_files {
                if let Err((call, errno)) = pid_file::give_to(file.path(), user.uid) {
                    self.journal.write_errno(Severity::Emerg, format!("{call} failed"), errno);
                }
            }
        }
        redirect_stderr(&self.journal, &self.generation.loaded.essentials);
        self.send_logs();
    }

    /// USR2: starts the program again from its file, which may be another one by now, with the same sockets.
    fn change_binary(&mut self) {
        self.journal.write(Severity::Notice, "changing binary");
        let pid = &self.generation.loaded.essentials.pid;
        let old = pid_file::old_name(pid);
        let binary = self.start.arguments.first().cloned().unwrap_or_default();
        let name = bstr::BStr::new(binary.as_encoded_bytes());
        if let Err(errno) = rustix::fs::rename(&pid[..], &old[..]) {
            let (pid, old) = (bstr::BStr::new(pid), bstr::BStr::new(&old));
            let message =
                format!("rename() {pid} to {old} failed before executing new binary process \"{name}\"");
            self.journal.write_errno(Severity::Alert, message, errno);
            return;
        }
        let list: String = self.generation.listeners.iter().map(workers::inherited_entry).collect();
        let mut environment = workers::kept_environment(
            &self.start.environment,
            &self.generation.loaded.essentials.environment,
        );
        environment.push(("NGINX".into(), list.into()));
        // Room for the title of the new process, which nginx's needs just as this one's does.
        environment.push(("SPARE".into(), "X".repeat(300).into()));
        let sockets: Vec<_> =
            self.generation.listeners.iter().map(|listener| listener.socket.as_fd()).collect();
        let started = net::process::spawn::binary(
            binary.as_encoded_bytes(),
            &self.start.arguments,
            &environment,
            &sockets,
        );
        match started {
            Ok(child) => {
                self.journal.write(Severity::Notice, format!("start new binary process {child}"));
                self.new_binary = Some(child);
            }
            Err(errno) => {
                let message = format!("execve() failed while executing new binary process \"{name}\"");
                self.journal.write_errno(Severity::Alert, message, errno);
                self.restore_pid_file("an attempt to execute new binary process");
            }
        }
    }

    /// The new binary has ended, or never began.
    fn restore_pid_file(&mut self, after: &str) {
        let pid = &self.generation.loaded.essentials.pid;
        let old = pid_file::old_name(pid);
        if let Err(errno) = rustix::fs::rename(&old[..], &pid[..]) {
            let (pid, old) = (bstr::BStr::new(pid), bstr::BStr::new(&old));
            let message = format!("rename() {old} back to {pid} failed after {after}");
            self.journal.write_errno(Severity::Alert, message, errno);
        }
    }

    fn open_control(&mut self) {
        match Control::open(&self.generation.loaded.essentials.pid) {
            Ok(control) => self.control = Some(control),
            Err(errno) => {
                let why = "no socket beside the pid file: \"-s reload\" will not wait for the outcome";
                self.journal.write_errno(Severity::Info, why, errno);
            }
        }
    }

    /// Closes all sockets, and removes the files of unix sockets unless another program still listens there.
    fn close_listeners(&mut self) {
        let is_shared = |listener: &Listener| {
            self.new_binary.is_some()
                || (listener.is_inherited && rustix::process::getppid() == self.start.parent)
        };
        for listener in &self.generation.listeners {
            if !is_shared(listener) {
                remove_socket_file(&listener.options.address, &mut self.journal.reporter());
            }
        }
        self.generation.listeners.clear();
    }

    fn exit(mut self) -> ExitCode {
        let pid = &self.generation.loaded.essentials.pid;
        let name = if self.new_binary.is_some() { pid_file::old_name(pid) } else { pid.clone() };
        if let Err(errno) = rustix::fs::unlink(&name[..]) {
            let message = format!("unlink() \"{}\" failed ({})", bstr::BStr::new(&name), ErrnoMessage(errno));
            self.journal.write(Severity::Alert, message);
        }
        if let Some(control) = self.control.take() {
            control.close();
        }
        self.close_listeners();
        self.journal.write(Severity::Notice, "exit");
        ExitCode::SUCCESS
    }
}
