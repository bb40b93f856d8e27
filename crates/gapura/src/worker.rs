//! The worker: an unprivileged process that serves what the master hands it.
//!
//! Its main thread waits for signals, for the master and for the end of what serves, and serves as well. What takes a
//! while (reading a configuration, taking one apart) is done beside it.

use crate::files::RecordedFiles;
use crate::journal::{Journal, JournalSink, redirect_stderr};
use crate::service::{self, Generation, Progress, Service};
use crate::site::{self, LogTarget, Role};
use crate::wire::{Assignment, Order, Verdict};
use engine::acme::vault;
use engine::compile::Compiled;
use engine::race::{First, race};
use net::errno::ErrnoMessage;
use net::listen::Listener;
use net::log::file::LogFiles;
use net::log::syslog::Severity;
use net::log::{Log, Sink};
use net::process::channel::{Channel, Frame};
use net::process::signals::{Received, Signal, Signals};
use net::process::title::Title;
use net::process::watch::Watch;
use net::timer::{Deadline, Timer};
use rustix::process::{Resource, Rlimit};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The code with which a worker says that another try would fail in the same way.
pub const FATAL: u8 = 2;

/// Serves until told to end.
pub fn run(title: &mut Title) -> ExitCode {
    let Some((channel, mut signals)) = Channel::take_standard_input().ok().zip(Signals::take().ok()) else {
        return ExitCode::from(FATAL);
    };
    let Some((assignment, descriptors)) = next_assignment(&channel) else { return ExitCode::from(FATAL) };
    let identity = assignment.identity;
    title.set(format!("{}: worker process", identity.name()).as_bytes());
    net::process::title::set_process_name(identity.name());
    let journal = Journal::built_in(
        identity,
        &crate::identity::Layout { error_log: Vec::new(), ..assignment.layout.clone() },
        Severity::Warn,
    );
    net::thread::run(serve(&assignment, descriptors, journal, channel, &mut signals, title))
}

/// Serves an assignment, and those that follow it.
async fn serve(
    assignment: &Assignment,
    descriptors: Vec<OwnedFd>,
    journal: Journal,
    channel: Channel,
    signals: &mut Signals,
    title: &mut Title,
) -> ExitCode {
    let logs = Arc::new(LogFiles::default());
    let started = begin(assignment, descriptors, &logs, journal).await;
    let watched = Watch::new(&*signals).and_then(|signals| Ok((signals, Watch::new(&channel)?)));
    let watched = watched.map_err(|errno| format!("[emerg] could not wait ({})\n", ErrnoMessage(errno)));
    let (started, (signals_watch, watch)) = match started.and_then(|started| Ok((started, watched?))) {
        Ok(both) => both,
        Err(why) => {
            // A master that is gone needs no answer.
            let _ = channel.send(&Verdict::Refused(why).encode(), &[]);
            return ExitCode::from(FATAL);
        }
    };
    if channel.send(&Verdict::Serving.encode(), &[]).is_err() {
        return ExitCode::FAILURE;
    }
    let Started { service, generation, listeners, journal, spent } = started;
    service.drop_aside(spent);
    let mut worker = Worker {
        journal,
        logs,
        service,
        generation,
        listeners,
        spent: None,
        master: Some(Master { channel: Arc::new(channel), watch }),
        calls: BTreeMap::new(),
        calls_made: 0,
        deadline: Deadline::NONE,
        is_quitting: false,
        is_terminating: false,
    };
    worker.serve(signals, &signals_watch, title).await
}

struct Worker {
    journal: Journal,
    logs: Arc<LogFiles>,
    service: Service,
    generation: Arc<Generation>,
    /// The sockets it serves on; none once it is to end.
    listeners: Vec<Listener>,
    /// What the configuration in force was made of, until the master knows that it is.
    spent: Option<Compiled>,
    /// None once it is gone.
    master: Option<Master>,
    /// Requests to the master that wait for their answers, by number.
    calls: BTreeMap<u32, oneshot::Sender<vault::Answer>>,
    calls_made: u32,
    /// When connections that are still open are given up (`worker_shutdown_timeout`).
    deadline: Deadline,
    is_quitting: bool,
    is_terminating: bool,
}

/// The way to the master.
struct Master {
    channel: Arc<Channel>,
    watch: Watch,
}

/// What the main thread waits for.
enum News {
    /// There may be signals.
    Signals,
    /// The master speaks, or is gone.
    Order,
    /// What serves has ended.
    Ended(Progress),
    /// Something is to be done with files that only the master may touch.
    Call(vault::Call),
    /// It is time to look around.
    Time,
}

/// A worker that serves.
struct Started {
    service: Service,
    generation: Arc<Generation>,
    listeners: Vec<Listener>,
    journal: Journal,
    spent: Option<Compiled>,
}

/// Takes on the identity and the limits that the configuration asks for, and starts to serve.
async fn begin(
    assignment: &Assignment,
    descriptors: Vec<OwnedFd>,
    logs: &Arc<LogFiles>,
    mut journal: Journal,
) -> Result<Started, String> {
    let Assembled { generation, listeners, spent } = generation_of(assignment, descriptors, logs, &[])?;
    let essentials = &generation.loaded.essentials;
    journal.leave_terminal();
    journal.replace(journal_sinks(&generation, logs));
    // Threads that begin from here on have it, too.
    if let Some(priority) = essentials.priority
        && let Err(errno) = rustix::process::setpriority_process(None, priority)
    {
        journal.write_errno(Severity::Alert, format!("setpriority({priority}) failed"), errno);
    }
    let limits = [
        (Resource::Nofile, "RLIMIT_NOFILE", essentials.open_files_max),
        (Resource::Core, "RLIMIT_CORE", essentials.core_bytes_max),
    ];
    for (resource, name, limit) in limits {
        let Some(limit) = limit else { continue };
        let both = Rlimit { current: Some(limit), maximum: Some(limit) };
        if let Err(errno) = rustix::process::setrlimit(resource, both) {
            journal.write_errno(Severity::Alert, format!("setrlimit({name}, {limit}) failed"), errno);
        }
    }
    if let Some(user) = &assignment.user {
        let became = net::process::user::become_user(user);
        let describe = |error: &net::process::user::BecomeError| format!("{} failed", error.call);
        match became {
            Ok(None) => {}
            Ok(Some(warning)) => journal.write_errno(Severity::Emerg, describe(&warning), warning.errno),
            Err(error) => {
                journal.write_errno(Severity::Emerg, describe(&error), error.errno);
                return Err(format!("[emerg] {} ({})\n", describe(&error), ErrnoMessage(error.errno)));
            }
        }
    }
    // Allows core files after the change of user.
    let dumpable = rustix::process::DumpableBehavior::Dumpable;
    if let Err(errno) = rustix::process::set_dumpable_behavior(dumpable) {
        journal.write_errno(Severity::Alert, "prctl(PR_SET_DUMPABLE) failed", errno);
    }
    if let Some(folder) = &essentials.working_directory
        && let Err(errno) = rustix::process::chdir(&folder[..])
    {
        let message = format!("chdir(\"{}\") failed", bstr::BStr::new(folder));
        journal.write_errno(Severity::Alert, &message, errno);
        return Err(format!("[alert] {message} ({})\n", ErrnoMessage(errno)));
    }
    let service = Service::start(generation.clone(), &listeners, &assignment.layout, assignment.identity)
        .await
        .map_err(|why| format!("[emerg] {why}\n"))?;
    Ok(Started { service, generation, listeners, journal, spent })
}

impl Worker {
    async fn serve(&mut self, signals: &mut Signals, watch: &Watch, title: &mut Title) -> ExitCode {
        let mut timer = Timer::new();
        loop {
            let mut progress = None;
            match self.news(watch, &mut timer).await {
                News::Signals => {
                    while let Some(received) = signals.take_next() {
                        self.signal(received, title).await;
                    }
                }
                News::Order => self.order().await,
                News::Ended(how) => progress = Some(how),
                News::Call(call) => self.pass_on(call),
                News::Time => {}
            }
            if progress == Some(Progress::Broken) {
                self.journal.write(Severity::Alert, "a thread of the worker process has panicked");
                return ExitCode::FAILURE;
            }
            if self.is_terminating || self.deadline.has_passed() || progress == Some(Progress::Ended) {
                self.journal.write(Severity::Notice, "exiting");
                // What threads still hold ends with the process; lines of logs are written first.
                self.service.stop().await;
                self.journal.write(Severity::Notice, "exit");
                return ExitCode::SUCCESS;
            }
        }
    }

    /// Waits until there is something to do.
    async fn news(&mut self, signals: &Watch, timer: &mut Timer) -> News {
        let next = self.service.forget_old().min(self.deadline);
        let master = self.master.as_ref().map(|master| &master.watch);
        let order = async {
            match master {
                // What went wrong shows when it is read.
                Some(watch) => _ = watch.readable().await,
                None => std::future::pending().await,
            }
        };
        let told = race(signals.readable(), order);
        let own = race(self.service.news(), timer.sleep(next));
        match race(told, own).await {
            First::Left(First::Left(_)) => News::Signals,
            First::Left(First::Right(())) => News::Order,
            First::Right(First::Left(service::News::Ended(progress))) => News::Ended(progress),
            First::Right(First::Left(service::News::Call(call))) => News::Call(call),
            First::Right(First::Right(())) => News::Time,
        }
    }

    async fn signal(&mut self, received: Received, title: &mut Title) {
        let action = match received.signal {
            Signal::Terminate | Signal::Interrupt => ", exiting",
            Signal::Quit => ", shutting down",
            Signal::User1 => ", reopening logs",
            Signal::Hangup | Signal::User2 => ", ignoring",
            Signal::Child | Signal::WindowChange => "",
        };
        // nginx's master speaks over the channel, so that its workers tell of others' signals alone.
        if received.sender.is_none() || received.sender != rustix::process::getppid() {
            self.journal.write(Severity::Notice, crate::master::signal_line(received, action));
        }
        match received.signal {
            Signal::Terminate | Signal::Interrupt => self.is_terminating = true,
            Signal::Quit => self.quit(title).await,
            Signal::User1 => self.reopen_by_path(),
            _ => {}
        }
    }

    async fn quit(&mut self, title: &mut Title) {
        if std::mem::replace(&mut self.is_quitting, true) {
            return;
        }
        self.journal.write(Severity::Notice, "gracefully shutting down");
        title.set(format!("{}: worker process is shutting down", self.journal.identity().name()).as_bytes());
        let timeout = self.generation.loaded.essentials.shutdown_timeout;
        self.deadline = timeout.map_or(Deadline::NONE, Deadline::after);
        self.service.quit().await;
        self.listeners.clear();
        self.tell_master(&Verdict::Draining);
    }

    fn tell_master(&self, verdict: &Verdict) {
        if let Some(master) = &self.master {
            // A master that is gone needs no word; the next turn notices.
            let _ = master.channel.send(&verdict.encode(), &[]);
        }
    }

    /// Hands the master a request. Without a master there is no answer.
    fn pass_on(&mut self, vault::Call { request, answer }: vault::Call) {
        let Some(master) = &self.master else { return };
        self.calls_made = self.calls_made.wrapping_add(1);
        if master.channel.send(&Verdict::Keep(self.calls_made, request).encode(), &[]).is_ok() {
            self.calls.insert(self.calls_made, answer);
        }
    }

    /// Follows what the master says. Where it is gone, the worker goes on without it, as nginx's do.
    async fn order(&mut self) {
        let Some(master) = &self.master else { return };
        let (channel, logs, open) = (master.channel.clone(), self.logs.clone(), self.listeners.clone());
        let heard = self.service.aside(move || hear(&channel, &logs, &open)).await;
        let broken = || {
            Heard::Serve(Box::new(Err("[alert] the worker process could not read it: a panic\n".to_owned())))
        };
        match heard.unwrap_or_else(broken) {
            Heard::Reopen(paths, descriptors) => {
                self.journal.write(Severity::Notice, "reopening logs");
                for (path, descriptor) in paths.iter().zip(descriptors) {
                    self.logs.adopt(path, descriptor);
                }
                redirect_stderr(&self.journal, &self.generation.loaded.essentials);
            }
            Heard::Kept(number, answer) => {
                if let Some(waiting) = self.calls.remove(&number) {
                    // Whoever asked may have been stopped meanwhile.
                    let _ = waiting.send(answer);
                }
            }
            Heard::Serve(assembled) => {
                let outcome = match *assembled {
                    Ok(assembled) => self.replace(assembled).await,
                    Err(why) => Err(why),
                };
                self.tell_master(&outcome.map_or_else(Verdict::Refused, |()| Verdict::Serving));
                if let Some(spent) = self.spent.take() {
                    self.service.drop_aside(spent);
                }
            }
            Heard::Nothing => {
                self.journal.write(Severity::Alert, "the master process is gone");
                self.master = None;
                self.calls.clear();
            }
        }
    }

    async fn replace(&mut self, assembled: Assembled) -> Result<(), String> {
        if self.is_quitting {
            return Err("[error] the worker process is shutting down\n".to_owned());
        }
        let Assembled { generation, listeners, spent } = assembled;
        let served = self.service.serve(generation.clone(), &listeners).await;
        served.map_err(|why| format!("[emerg] {why}\n"))?;
        self.journal.replace(journal_sinks(&generation, &self.logs));
        self.generation = generation;
        self.listeners = listeners;
        redirect_stderr(&self.journal, &self.generation.loaded.essentials);
        self.spent = spent;
        Ok(())
    }

    fn reopen_by_path(&self) {
        self.journal.write(Severity::Notice, "reopening logs");
        for (file, error) in self.logs.reopen() {
            let path = bstr::BStr::new(file.path());
            self.journal.write_errno(Severity::Emerg, format!("open() \"{path}\" failed"), error.errno);
        }
        redirect_stderr(&self.journal, &self.generation.loaded.essentials);
    }
}

/// The first frame of the master.
fn next_assignment(channel: &Channel) -> Option<(Box<Assignment>, Vec<OwnedFd>)> {
    let Frame { body, descriptors } = channel.receive().ok()??;
    match Order::decode(&body)? {
        Order::Serve(assignment) => Some((assignment, descriptors)),
        Order::Reopen(_) | Order::Kept(..) => None,
    }
}

/// What the master said, followed as far as that can be done beside serving.
enum Heard {
    /// Logs, opened anew.
    Reopen(Vec<Vec<u8>>, Vec<OwnedFd>),
    /// What came of the request of that number.
    Kept(u32, vault::Answer),
    /// Something is to be served; or why it cannot be.
    Serve(Box<Result<Assembled, String>>),
    /// Nothing any more: it is gone.
    Nothing,
}

/// Waits for what the master says.
fn hear(channel: &Channel, logs: &LogFiles, open: &[Listener]) -> Heard {
    let Ok(Some(Frame { body, descriptors })) = channel.receive() else { return Heard::Nothing };
    let order = Order::decode(&body);
    // The texts of a configuration are large, and were copied out of it.
    drop(body);
    match order {
        Some(Order::Reopen(paths)) => Heard::Reopen(paths, descriptors),
        Some(Order::Kept(number, answer)) => Heard::Kept(number, answer),
        Some(Order::Serve(assignment)) => {
            Heard::Serve(Box::new(generation_of(&assignment, descriptors, logs, open)))
        }
        None => Heard::Nothing,
    }
}

/// A configuration of the master's, ready to be served.
struct Assembled {
    generation: Arc<Generation>,
    listeners: Vec<Listener>,
    spent: Option<Compiled>,
}

/// Reads the configuration of an assignment again and puts it together with its descriptors. Sockets at a place
/// where one is open already stay the ones that are open: the master means the same.
fn generation_of(
    assignment: &Assignment,
    descriptors: Vec<OwnedFd>,
    logs: &LogFiles,
    open: &[Listener],
) -> Result<Assembled, String> {
    let files = Arc::new(RecordedFiles::of_record(assignment.record.clone()));
    let mut loaded = site::load(&assignment.layout, assignment.command_line.as_deref(), files, Role::Worker);
    if !loaded.is_good() {
        let lines = site::rendered(&loaded, false).into_iter().map(|one| format!("{}\n", one.line));
        return Err(lines.collect());
    }
    let mut descriptors = descriptors.into_iter();
    let mut listeners = Vec::new();
    for ((address, transport), descriptor) in assignment.listeners.iter().zip(descriptors.by_ref()) {
        let wanted = loaded.essentials.listens.iter();
        let Some(options) =
            wanted.into_iter().find(|one| one.address == *address && one.transport == *transport)
        else {
            return Err(format!(
                "[alert] the worker process reads no \"listen {address}\" as its master does\n"
            ));
        };
        let same = |one: &&Listener| one.options.address == *address && one.options.transport == *transport;
        let known = open.iter().find(same).filter(|one| is_same_socket(&one.socket, &descriptor));
        let socket = known.map_or_else(|| Arc::new(descriptor), |known| known.socket.clone());
        listeners.push(Listener { options: options.clone(), socket, is_inherited: false });
    }
    let log_files =
        assignment.logs.iter().zip(descriptors).map(|(path, descriptor)| logs.adopt(path, descriptor));
    let log_files = log_files.collect();
    let snapshot = loaded.activate(logs).map_err(|why| format!("[emerg] {why}\n"))?;
    loaded.forget_texts();
    let spent = loaded.spent();
    Ok(Assembled { generation: Arc::new(Generation { loaded, snapshot, log_files }), listeners, spent })
}

/// Two descriptors of one open socket?
fn is_same_socket(one: &OwnedFd, other: &OwnedFd) -> bool {
    let cookie = |fd| rustix::net::sockopt::socket_cookie(fd).ok();
    cookie(one).is_some() && cookie(one) == cookie(other)
}

/// The error logs of the main level, open.
pub fn journal_sinks(generation: &Generation, logs: &LogFiles) -> Vec<JournalSink> {
    open_sinks(&generation.loaded.essentials.error_logs, logs)
}

/// Error logs, open. What cannot be opened is left out: the master has reported it.
pub fn open_sinks(error_logs: &[site::ErrorLog], logs: &LogFiles) -> Vec<JournalSink> {
    let open = |log: &site::ErrorLog| {
        let (sink, is_stderr) = match &log.target {
            LogTarget::Stderr => (Sink::Stderr, true),
            LogTarget::File(path) => (Sink::File(logs.open(path).ok()?), false),
            LogTarget::Syslog(parameters) => (Sink::Syslog(engine::log::syslog(parameters)), false),
        };
        Some(JournalSink { log: Log::new(sink, None), least: log.least, is_stderr })
    };
    error_logs.iter().filter_map(open).collect()
}

/// How long the master waits for a verdict on a configuration.
pub const VERDICT_PATIENCE: Duration = Duration::from_secs(60);
