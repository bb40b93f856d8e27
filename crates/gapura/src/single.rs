//! `master_process off`: everything in one process, for debuggers and for systems that watch over processes
//! themselves.

use crate::files::RecordedFiles;
use crate::identity::Identity;
use crate::journal::{Journal, redirect_stderr};
use crate::master::{Generation as Opened, Start, open_files, signal_line};
use crate::service::{Generation, News, Service};
use crate::site::{self, Role};
use crate::worker::open_sinks;
use engine::acme::vault;
use engine::race::{First, race};
use net::errno::ErrnoMessage;
use net::listen::{Listener, remove_socket_file};
use net::log::file::LogFiles;
use net::log::syslog::Severity;
use net::process::signals::{Received, Signal, Signals};
use net::process::watch::Watch;
use net::timer::Timer;
use std::process::ExitCode;
use std::sync::Arc;

struct Single {
    journal: Journal,
    start: Start,
    logs: LogFiles,
    service: Service,
    generation: Arc<Generation>,
    listeners: Vec<Listener>,
    is_ending: bool,
}

/// Serves until told to end. `ready` is called once it does.
pub fn run(
    journal: Journal,
    start: Start,
    mut signals: Signals,
    logs: LogFiles,
    opened: Opened,
    pid: Vec<u8>,
    ready: impl FnOnce(&mut Journal),
) -> ExitCode {
    net::thread::run(serve(journal, start, &mut signals, logs, opened, pid, ready))
}

async fn serve(
    journal: Journal,
    start: Start,
    signals: &mut Signals,
    logs: LogFiles,
    opened: Opened,
    pid: Vec<u8>,
    ready: impl FnOnce(&mut Journal),
) -> ExitCode {
    let started = begin(opened, &start, &logs, journal.identity()).await;
    let watch = Watch::new(&*signals).map_err(|errno| format!("could not wait ({})", ErrnoMessage(errno)));
    let (service, generation, listeners, watch) = match started.and_then(|started| Ok((started, watch?))) {
        Ok(((service, generation, listeners), watch)) => (service, generation, listeners, watch),
        Err(why) => {
            journal.write(Severity::Emerg, why);
            // The error was said; the file names a process that ends now.
            let _ = rustix::fs::unlink(&pid[..]);
            return ExitCode::FAILURE;
        }
    };
    let mut single = Single { journal, start, logs, service, generation, listeners, is_ending: false };
    ready(&mut single.journal);
    let code = single.serve(signals, &watch).await;
    if let Err(errno) = rustix::fs::unlink(&pid[..]) {
        let message = format!("unlink() \"{}\" failed", bstr::BStr::new(&pid));
        single.journal.write_errno(Severity::Alert, message, errno);
    }
    for listener in &single.listeners {
        remove_socket_file(&listener.options.address, &mut single.journal.reporter());
    }
    single.journal.write(Severity::Notice, "exit");
    code
}

/// Begins to serve what is open.
async fn begin(
    opened: Opened,
    start: &Start,
    logs: &LogFiles,
    identity: Identity,
) -> Result<(Service, Arc<Generation>, Vec<Listener>), String> {
    let Opened { mut loaded, listeners, log_files } = opened;
    let snapshot = loaded.activate(logs)?;
    let spent = loaded.spent();
    let generation = Arc::new(Generation { loaded, snapshot, log_files });
    let service = Service::start(generation.clone(), &listeners, &start.layout, identity).await?;
    service.drop_aside(spent);
    Ok((service, generation, listeners))
}

impl Single {
    async fn serve(&mut self, signals: &mut Signals, watch: &Watch) -> ExitCode {
        let mut timer = Timer::new();
        while !self.is_ending {
            let next = self.service.forget_old();
            match race(watch.readable(), race(self.service.news(), timer.sleep(next))).await {
                First::Left(_) => {
                    while let Some(received) = signals.take_next() {
                        self.signal(received).await;
                    }
                }
                First::Right(First::Left(News::Call(vault::Call { request, answer }))) => {
                    let folders = &self.generation.loaded.essentials.state_paths;
                    let now = net::clock::wall().seconds;
                    // Whoever asked may have been stopped meanwhile.
                    let _ = answer.send(crate::vault::carry_out(folders, &request, now, |_, _| {}));
                }
                First::Right(First::Left(News::Ended(_))) => {
                    self.journal.write(Severity::Alert, "a thread has panicked");
                    return ExitCode::FAILURE;
                }
                First::Right(First::Right(())) => {}
            }
        }
        self.service.stop().await;
        ExitCode::SUCCESS
    }

    /// nginx's single process ends at once for QUIT, too.
    async fn signal(&mut self, received: Received) {
        let action = match received.signal {
            Signal::Quit => ", shutting down",
            Signal::Terminate | Signal::Interrupt => ", exiting",
            Signal::Hangup => ", reconfiguring",
            Signal::User1 => ", reopening logs",
            Signal::User2 => ", ignoring",
            Signal::WindowChange | Signal::Child => "",
        };
        self.journal.write(Severity::Notice, signal_line(received, action));
        match received.signal {
            Signal::Quit | Signal::Terminate | Signal::Interrupt => self.is_ending = true,
            Signal::Hangup => {
                self.journal.write(Severity::Notice, "reconfiguring");
                if self.reload().await.is_none() {
                    let message = "the new configuration was refused, the one before it goes on serving";
                    self.journal.write(Severity::Error, message);
                }
            }
            Signal::User1 => {
                self.journal.write(Severity::Notice, "reopening logs");
                for (file, error) in self.logs.reopen() {
                    let path = bstr::BStr::new(file.path());
                    self.journal.write_errno(
                        Severity::Emerg,
                        format!("open() \"{path}\" failed"),
                        error.errno,
                    );
                }
                redirect_stderr(&self.journal, &self.generation.loaded.essentials);
            }
            Signal::User2 | Signal::WindowChange | Signal::Child => {}
        }
    }

    /// `None`: refused, and why was said.
    async fn reload(&mut self) -> Option<()> {
        let (layout, command_line) = (self.start.layout.clone(), self.start.command_line.clone());
        let load = move || {
            site::load(&layout, command_line.as_deref(), Arc::new(RecordedFiles::of_system()), Role::Master)
        };
        let mut loaded = self.service.aside(load).await?;
        for rendered in site::rendered(&loaded, false) {
            self.journal.write_rendered(&rendered);
        }
        if !loaded.is_good() {
            return None;
        }
        let emerg = |why: String| self.journal.write(Severity::Emerg, why);
        let log_files = open_files(&loaded.essentials, &self.logs).map_err(emerg).ok()?;
        let wanted = loaded.essentials.sockets();
        let open = &self.listeners;
        let listeners = net::listen::open(&wanted, open, &mut self.journal.reporter()).ok()?;
        let snapshot = loaded.activate(&self.logs).map_err(emerg).ok()?;
        let spent = loaded.spent();
        let new = Arc::new(Generation { loaded, snapshot, log_files });
        let served = self.service.serve(new.clone(), &listeners).await;
        let (kept, dropped) =
            if served.is_ok() { (&listeners, &self.listeners) } else { (&self.listeners, &listeners) };
        for listener in dropped.iter().filter(|one| !holds(kept, one)) {
            remove_socket_file(&listener.options.address, &mut self.journal.reporter());
        }
        served.map_err(emerg).ok()?;
        self.generation = new;
        self.listeners = listeners;
        let sinks = open_sinks(&self.generation.loaded.essentials.error_logs, &self.logs);
        self.journal.replace(sinks);
        redirect_stderr(&self.journal, &self.generation.loaded.essentials);
        self.service.drop_aside(spent);
        Some(())
    }
}

fn holds(listeners: &[Listener], one: &Listener) -> bool {
    listeners.iter().any(|other| Arc::ptr_eq(&other.socket, &one.socket))
}
