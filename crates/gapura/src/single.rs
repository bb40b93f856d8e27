//! `master_process off`: everything in one process, for debuggers and for systems that watch over processes
//! themselves.

use crate::files::RecordedFiles;
use crate::journal::{Journal, redirect_stderr};
use crate::master::{Generation as Opened, Start, open_files, signal_line, wanted_sockets};
use crate::service::{Generation, Progress, Service};
use crate::site::{self, Role};
use crate::worker::open_sinks;
use net::listen::{Listener, remove_socket_file};
use net::log::file::LogFiles;
use net::log::syslog::Severity;
use net::process::channel::wait_readable;
use net::process::signals::{Received, Signal, Signals};
use std::os::fd::AsFd;
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
    let Opened { mut loaded, listeners, log_files } = opened;
    let started = loaded.activate(&logs).and_then(|snapshot| {
        drop(loaded.spent());
        let generation = Arc::new(Generation { loaded, snapshot, log_files });
        Ok((Service::start(generation.clone(), &listeners, &start.layout, journal.identity())?, generation))
    });
    let (service, generation) = match started {
        Ok(started) => started,
        Err(why) => {
            journal.write(Severity::Emerg, why);
            // The error was said; the file names a process that ends now.
            let _ = rustix::fs::unlink(&pid[..]);
            return ExitCode::FAILURE;
        }
    };
    let mut single = Single { journal, start, logs, service, generation, listeners, is_ending: false };
    ready(&mut single.journal);
    let code = single.serve(&mut signals);
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

impl Single {
    fn serve(&mut self, signals: &mut Signals) -> ExitCode {
        while !self.is_ending {
            // A failure to wait is followed by another look.
            let patience = self.service.forget_old();
            let _ = wait_readable(&[signals.as_fd(), self.service.as_fd()], patience);
            while let Some(received) = signals.take_next() {
                self.signal(received);
            }
            if self.service.progress() == Progress::Broken {
                self.journal.write(Severity::Alert, "a thread has panicked");
                return ExitCode::FAILURE;
            }
        }
        self.service.stop();
        ExitCode::SUCCESS
    }

    /// nginx's single process ends at once for QUIT, too.
    fn signal(&mut self, received: Received) {
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
                if self.reload().is_none() {
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
    fn reload(&mut self) -> Option<()> {
        let files = Arc::new(RecordedFiles::of_system());
        let mut loaded =
            site::load(&self.start.layout, self.start.command_line.as_deref(), files, Role::Master);
        for (severity, line, _) in site::rendered(&loaded, false) {
            self.journal.write_rendered(severity, &line);
        }
        if !loaded.is_good() {
            return None;
        }
        let emerg = |why: String| self.journal.write(Severity::Emerg, why);
        let log_files = open_files(&loaded.essentials, &self.logs).map_err(emerg).ok()?;
        let wanted = wanted_sockets(&loaded.essentials);
        let open = &self.listeners;
        let listeners = net::listen::open(&wanted, open, &mut self.journal.reporter()).ok()?;
        let snapshot = loaded.activate(&self.logs).map_err(emerg).ok()?;
        let spent = loaded.spent();
        let new = Arc::new(Generation { loaded, snapshot, log_files });
        let served = self.service.serve(new.clone(), &listeners);
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
        drop(spent);
        Some(())
    }
}

fn holds(listeners: &[Listener], one: &Listener) -> bool {
    listeners.iter().any(|other| Arc::ptr_eq(&other.socket, &one.socket))
}
