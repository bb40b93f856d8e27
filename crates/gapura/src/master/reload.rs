//! Taking a new configuration while the old one serves.
//!
//! Nothing of the old one is touched before the worker has said that it serves the new one; on any failure what was
//! opened is closed and the old one goes on.

use super::workers::Refusal;
use super::{Generation, Master};
use crate::files::RecordedFiles;
use crate::journal::redirect_stderr;
use crate::pid_file;
use crate::site::{self, Essentials, Loaded, Role};
use crate::wire::Verdict;
use net::listen::{Listener, remove_socket_file};
use net::log::file::{LogFile, LogFiles};
use net::log::syslog::Severity;
use std::sync::Arc;

impl Master {
    /// HUP. Whoever waits is told the outcome.
    pub(super) fn reload(&mut self) {
        self.journal.write(Severity::Notice, "reconfiguring");
        self.journal.begin_capture();
        let outcome = self.try_reload();
        match outcome {
            // nginx tells by its old workers' farewells; here the worker stays.
            Ok(()) => self.journal.write(Severity::Notice, "reconfigured"),
            Err(()) => {
                let message = "the new configuration was refused, the one before it goes on serving";
                self.journal.write(Severity::Error, message);
            }
        }
        let told = self.journal.end_capture();
        let verdict = match outcome {
            Ok(()) => Verdict::Serving,
            Err(()) => Verdict::Refused(told),
        };
        if let Some(control) = &mut self.control {
            control.tell(&verdict);
        }
    }

    /// Errors were logged.
    fn try_reload(&mut self) -> Result<(), ()> {
        let files = Arc::new(RecordedFiles::of_system());
        let mut loaded =
            site::load(&self.start.layout, self.start.command_line.as_deref(), files, Role::Master);
        for rendered in site::rendered(&loaded, false) {
            self.journal.write_rendered(&rendered);
        }
        if !loaded.is_good() {
            return Err(());
        }
        self.journal.write(Severity::Notice, crate::start::EVENT_METHOD);
        let new_pid = self.create_new_pid_file(&loaded.essentials)?;
        let spent = loaded.spent();
        let result = self.open_and_serve(loaded);
        drop(spent);
        match (&result, new_pid) {
            (Ok(old), Some(_)) => {
                // nginx ignores this failure, too.
                let _ = rustix::fs::unlink(&old.loaded.essentials.pid[..]);
                if let Some(control) = self.control.take() {
                    control.close();
                }
                self.open_control();
            }
            (Err(()), Some(new_pid)) => {
                // A file that is left behind does no harm: the next start overwrites it.
                let _ = rustix::fs::unlink(&new_pid[..]);
            }
            (_, None) => {}
        }
        let old = result?;
        self.close_unused(&old);
        Ok(())
    }

    /// Opens what is new, makes a worker serve it, and puts it in force. Returns what was in force.
    fn open_and_serve(&mut self, loaded: Loaded) -> Result<Generation, ()> {
        let log_files = open_files(&loaded.essentials, &self.logs)
            .map_err(|why| self.journal.write(Severity::Emerg, why))?;
        let wanted = loaded.essentials.sockets();
        let open = &self.generation.listeners;
        let listeners = net::listen::open(&wanted, open, &mut self.journal.reporter()).map_err(|_| ())?;
        let needs_new_process = needs_new_process(&self.generation.loaded.essentials, &loaded.essentials)
            || !self.workers.iter().any(|worker| !worker.is_ending && worker.channel.is_some());
        let new = Generation { loaded, listeners, log_files };
        let served =
            if needs_new_process { self.serve_in_new_worker(new) } else { self.serve_in_worker(new) };
        match served {
            Ok(old) => {
                let sinks =
                    crate::worker::open_sinks(&self.generation.loaded.essentials.error_logs, &self.logs);
                self.journal.replace(sinks);
                redirect_stderr(&self.journal, &self.generation.loaded.essentials);
                Ok(old)
            }
            Err(new) => {
                self.close_refused(&new);
                Err(())
            }
        }
    }

    /// The worker that serves takes the new configuration. Returns the old one, or the new one where it failed.
    fn serve_in_worker(&mut self, new: Generation) -> Result<Generation, Box<Generation>> {
        let Some(position) = self.workers.iter().rposition(|worker| !worker.is_ending) else {
            return Err(Box::new(new));
        };
        let worker = self.workers.remove(position);
        let verdict = match self.assign(&worker, &new) {
            Ok(()) => self.verdict_of(&worker),
            Err(errno) => {
                let what = "sendmsg() failed while handing over the configuration";
                let why = format!("[alert] {what} ({})\n", net::errno::ErrnoMessage(errno));
                Err(Refusal { why, is_silence: true })
            }
        };
        self.workers.insert(position, worker);
        match verdict {
            Ok(()) => Ok(std::mem::replace(&mut self.generation, new)),
            Err(refusal) => {
                self.log_refusal(&refusal.why);
                if refusal.is_silence {
                    // Another one serves what is in force for certain; this one may finish what it has.
                    self.drain_workers();
                    self.start_anew();
                }
                Err(Box::new(new))
            }
        }
    }

    /// A new worker takes the new configuration, and the old one finishes.
    fn serve_in_new_worker(&mut self, new: Generation) -> Result<Generation, Box<Generation>> {
        self.journal.write(Severity::Notice, "start worker processes");
        let old = std::mem::replace(&mut self.generation, new);
        let started = self.start_worker().and_then(|worker| match self.verdict_of(&worker) {
            Ok(()) => Ok(worker),
            Err(Refusal { why, .. }) => {
                // It may be stuck; it is nobody's yet, so it goes without a word in the log but its end.
                let _ = rustix::process::kill_process(worker.pid, rustix::process::Signal::KILL);
                Err(why)
            }
        });
        match started {
            Ok(worker) => {
                self.is_not_accepting = false;
                self.drain_workers();
                self.await_draining();
                self.workers.push(worker);
                Ok(old)
            }
            Err(why) => {
                self.log_refusal(&why);
                Err(Box::new(std::mem::replace(&mut self.generation, old)))
            }
        }
    }

    /// A pid file by another name is written before anything else changes. Returns the name.
    fn create_new_pid_file(&self, essentials: &Essentials) -> Result<Option<Vec<u8>>, ()> {
        if essentials.pid == self.generation.loaded.essentials.pid {
            return Ok(None);
        }
        let created = pid_file::create(&essentials.pid, false);
        created.map(|()| Some(essentials.pid.clone())).map_err(|why| self.journal.write(Severity::Emerg, why))
    }

    /// Closes sockets that only a refused configuration wanted.
    fn close_refused(&self, new: &Generation) {
        for listener in &new.listeners {
            if !holds(&self.generation.listeners, listener) {
                remove_socket_file(&listener.options.address, &mut self.journal.reporter());
            }
        }
    }

    /// Removes the files of unix sockets that are no longer listened on; the sockets close with the old generation.
    fn close_unused(&self, old: &Generation) {
        for listener in &old.listeners {
            if holds(&self.generation.listeners, listener) || listener.options.address.inet().is_some() {
                continue;
            }
            let text = listener.options.address.to_string();
            let name = text.strip_prefix("unix:").unwrap_or(&text);
            self.journal.write(Severity::Warn, format!("deleting socket {name}"));
            remove_socket_file(&listener.options.address, &mut self.journal.reporter());
        }
    }
}

fn holds(listeners: &[Listener], one: &Listener) -> bool {
    listeners.iter().any(|other| Arc::ptr_eq(&other.socket, &one.socket))
}

/// Opens all log files of a configuration, and makes its folders for temporary files. The error is nginx's message.
pub fn open_files(essentials: &Essentials, logs: &LogFiles) -> Result<Vec<Arc<LogFile>>, String> {
    make_folders(essentials)?;
    for folder in &essentials.state_paths {
        crate::vault::make_folder(folder)?;
    }
    let open = |path: &Vec<u8>| {
        let why = |error: net::file::FileError| {
            format!("open() \"{}\" failed ({})", bstr::BStr::new(path), net::errno::ErrnoMessage(error.errno))
        };
        logs.open(path).map_err(why)
    };
    essentials.log_files.iter().map(open).collect()
}

/// Makes the folders that the worker writes to. Where nobody asked for one by name it may be missing: what needs it
/// will say so.
fn make_folders(essentials: &Essentials) -> Result<(), String> {
    let owner = essentials.user.as_ref().map(|user| user.uid);
    for (folder, is_named) in &essentials.folders {
        match folder.prepare(owner) {
            Err(error) if *is_named => {
                let (path, errno) = (bstr::BStr::new(&folder.path), net::errno::ErrnoMessage(error.errno));
                return Err(format!("{} \"{path}\" failed ({errno})", error.call));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What a running worker cannot change any more: who it is, its limits, its folder and environment, its threads.
fn needs_new_process(old: &Essentials, new: &Essentials) -> bool {
    old.user != new.user
        || old.threads != new.threads
        || old.open_files_max != new.open_files_max
        || old.core_bytes_max != new.core_bytes_max
        || old.priority != new.priority
        || old.affinity != new.affinity
        || old.working_directory != new.working_directory
        || old.environment != new.environment
}
