//! The workers of a master: starting, hearing, replacing, ending them.

use super::Master;
use crate::wire::{Assignment, Order, Verdict};
use crate::worker::{FATAL, VERDICT_PATIENCE};
use engine::acme::vault;
use net::errno::ErrnoMessage;
use net::listen::Listener;
use net::log::syslog::Severity;
use net::process::channel::{Channel, wait_readable};
use net::process::signals::Signal;
use net::process::spawn::{self, Exit};
use rustix::process::Pid;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

/// A worker that lived no longer than this is not replaced at once, so that one which cannot live does not keep the
/// machine busy.
const LIFE_MIN: Duration = Duration::from_secs(1);
/// How long is waited then.
const RESPAWN_PAUSE: Duration = Duration::from_secs(1);
/// How long workers may take to stop accepting.
const DRAINING_PATIENCE: Duration = Duration::from_secs(1);
/// How long a frame may take to go through.
const FRAME_PATIENCE: Duration = Duration::from_secs(10);

/// A worker did not take a configuration.
pub struct Refusal {
    /// Lines like `[emerg] ...`.
    pub why: String,
    /// It said nothing at all, so that what it serves is not known.
    pub is_silence: bool,
}

/// One worker.
pub struct Worker {
    /// Its number.
    pub pid: Pid,
    /// The way to it; `None` once it has closed its end.
    pub channel: Option<Channel>,
    /// It was told to end: no other one follows it.
    pub is_ending: bool,
    /// It has not said that it accepts nothing more.
    is_accepting: bool,
    started: Instant,
}

impl Master {
    /// Starts a worker with the configuration in force; it has not answered yet. The error is a line like
    /// `[alert] ...`.
    pub(super) fn start_worker(&mut self) -> Result<Worker, String> {
        let generation = &self.generation;
        let environment =
            kept_environment(&self.start.environment, &generation.loaded.essentials.environment);
        let title = format!("{}: worker process", self.journal.identity().name());
        let failed = |call: &str, errno| {
            format!("[alert] {call} failed while spawning \"worker process\" ({})\n", ErrnoMessage(errno))
        };
        let (pid, channel) = spawn::worker(&title, &environment).map_err(|errno| failed("fork()", errno))?;
        self.journal.write(Severity::Notice, format!("start worker process {pid}"));
        let worker = Worker {
            pid,
            channel: Some(channel),
            is_ending: false,
            is_accepting: true,
            started: Instant::now(),
        };
        self.assign(&worker, generation).map_err(|errno| failed("sendmsg()", errno))?;
        Ok(worker)
    }

    /// Hands a worker a configuration.
    pub(super) fn assign(
        &self,
        worker: &Worker,
        generation: &super::Generation,
    ) -> Result<(), net::errno::Errno> {
        let Some(channel) = &worker.channel else { return Err(net::errno::Errno::PIPE) };
        let listeners = &generation.listeners;
        let assignment = Assignment {
            identity: self.journal.identity(),
            layout: self.start.layout.clone(),
            command_line: self.start.command_line.clone(),
            record: generation.loaded.files.record(),
            user: generation.loaded.essentials.user.clone(),
            listeners: listeners
                .iter()
                .map(|listener| (listener.options.address.clone(), listener.options.transport))
                .collect(),
            logs: generation.log_files.iter().map(|file| file.path().to_vec()).collect(),
        };
        let logs: Result<Vec<OwnedFd>, _> =
            generation.log_files.iter().map(|file| file.duplicate()).collect();
        let logs = logs?;
        let sockets = listeners.iter().map(|listener| listener.socket.as_fd());
        let descriptors: Vec<_> = sockets.chain(logs.iter().map(AsFd::as_fd)).collect();
        channel.set_patience(Some(FRAME_PATIENCE))?;
        channel.send(&Order::Serve(Box::new(assignment)).encode(), &descriptors)
    }

    /// Waits for a worker's answer to a configuration.
    pub(super) fn verdict_of(&mut self, worker: &Worker) -> Result<(), Refusal> {
        let pid = worker.pid;
        let refused = |why: String| Refusal { why, is_silence: false };
        let Some(channel) = &worker.channel else {
            return Err(refused(format!("[alert] worker process {pid} is gone\n")));
        };
        let deadline = Instant::now() + VERDICT_PATIENCE;
        let verdict = loop {
            let patience = deadline.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                let seconds = VERDICT_PATIENCE.as_secs();
                let why = format!("[alert] worker process {pid} does not answer for {seconds} seconds\n");
                return Err(Refusal { why, is_silence: true });
            }
            let readable = wait_readable(&[channel.as_fd(), self.signals.as_fd()], Some(patience));
            while let Some(received) = self.signals.take_next() {
                self.pending.push(received);
            }
            if readable.is_ok_and(|readable| readable[0]) {
                match channel.receive_message().ok().flatten().and_then(|message| Verdict::decode(&message)) {
                    Some(Verdict::Keep(number, request)) => self.keep(channel, number, &request),
                    verdict => break verdict,
                }
            }
            if self.pending.iter().any(|one| matches!(one.signal, Signal::Terminate | Signal::Interrupt)) {
                let why = "[error] told to end while the configuration was being taken\n";
                return Err(refused(why.to_owned()));
            }
        };
        match verdict {
            Some(Verdict::Serving) => Ok(()),
            Some(Verdict::Refused(why)) => Err(refused(why)),
            Some(Verdict::Draining) => {
                Err(refused(format!("[error] worker process {pid} is shutting down\n")))
            }
            Some(Verdict::Keep(..)) | None => {
                Err(refused(format!("[alert] worker process {pid} has ended instead of an answer\n")))
            }
        }
    }

    /// Writes the lines of a refusal to the error log.
    pub(super) fn log_refusal(&self, why: &str) {
        for line in why.lines() {
            let (level, message) =
                line.strip_prefix('[').and_then(|line| line.split_once("] ")).unwrap_or(("", line));
            let severity = match level {
                "emerg" => Severity::Emerg,
                "alert" => Severity::Alert,
                "crit" => Severity::Crit,
                "warn" => Severity::Warn,
                _ => Severity::Error,
            };
            self.journal.write(severity, message);
        }
    }

    /// Reads answers that nobody waits for: those of replacements. A refusal is followed by the worker's end.
    pub(super) fn hear_workers(&mut self) {
        let mut refusals = Vec::new();
        let generation = &self.generation;
        for worker in &mut self.workers {
            let Some(channel) = &worker.channel else { continue };
            if !wait_readable(&[channel.as_fd()], Some(Duration::ZERO)).is_ok_and(|readable| readable[0]) {
                continue;
            }
            match channel.receive_message().ok().flatten().and_then(|message| Verdict::decode(&message)) {
                Some(Verdict::Serving) => {}
                Some(Verdict::Draining) => worker.is_accepting = false,
                Some(Verdict::Refused(why)) => refusals.push(why),
                Some(Verdict::Keep(number, request)) => keep(generation, channel, number, &request),
                // The end; its SIGCHLD says more.
                None => worker.channel = None,
            }
        }
        refusals.iter().for_each(|why| self.log_refusal(why));
    }

    /// Does what a worker asks for that is about to answer.
    fn keep(&self, channel: &Channel, number: u32, request: &vault::Request) {
        keep(&self.generation, channel, number, request);
    }

    /// Takes note of children that have ended.
    pub(super) fn reap(&mut self) {
        while let Some((pid, exit)) = spawn::reap() {
            let position = self.workers.iter().position(|worker| worker.pid == pid);
            let name = match position {
                Some(_) => "worker process",
                None if self.new_binary == Some(pid) => "new binary process",
                None => "unknown process",
            };
            let message = match exit {
                Exit::Code(code) => format!("{name} {pid} exited with code {code}"),
                Exit::Signal(number, false) => format!("{name} {pid} exited on signal {number}"),
                Exit::Signal(number, true) => format!("{name} {pid} exited on signal {number} (core dumped)"),
            };
            let severity = if matches!(exit, Exit::Code(_)) { Severity::Notice } else { Severity::Alert };
            self.journal.write(severity, message);
            if let Some(position) = position {
                let worker = self.workers.remove(position);
                self.after(worker, exit);
            } else if self.new_binary == Some(pid) {
                self.after_new_binary();
            }
        }
    }

    /// A worker has ended: another takes its place, unless it was to end.
    fn after(&mut self, worker: Worker, exit: Exit) {
        if worker.is_ending || self.is_quitting || self.terminating.is_some() {
            return;
        }
        if exit == Exit::Code(i32::from(FATAL)) {
            let pid = worker.pid;
            let message =
                format!("worker process {pid} exited with fatal code {FATAL} and cannot be respawned");
            self.journal.write(Severity::Alert, message);
            return;
        }
        if worker.started.elapsed() < LIFE_MIN {
            self.respawn_at = Some(Instant::now() + RESPAWN_PAUSE);
            return;
        }
        self.respawn();
    }

    /// Starts a worker in the place of one that has ended.
    pub(super) fn respawn(&mut self) {
        match self.start_worker() {
            Ok(worker) => self.workers.push(worker),
            Err(why) => {
                self.log_refusal(&why);
                self.journal.write(Severity::Alert, "could not respawn worker process");
                self.respawn_at = Some(Instant::now() + RESPAWN_PAUSE);
            }
        }
    }

    /// Starts a worker after all were told to end.
    pub(super) fn start_anew(&mut self) {
        self.journal.write(Severity::Notice, "start worker processes");
        self.respawn();
    }

    fn after_new_binary(&mut self) {
        self.restore_pid_file("the new binary process exited");
        self.new_binary = None;
        if self.control.as_ref().is_none_or(|control| !control.is_in_place()) {
            self.open_control();
        }
        if std::mem::take(&mut self.is_not_accepting) {
            self.start_anew();
        }
    }

    /// Tells all workers to finish what they serve.
    pub(super) fn drain_workers(&mut self) {
        self.respawn_at = None;
        for worker in self.workers.iter_mut().filter(|worker| !worker.is_ending) {
            worker.is_ending = true;
            // One that is gone is reaped in a moment.
            let _ = rustix::process::kill_process(worker.pid, rustix::process::Signal::QUIT);
        }
    }

    /// Waits until the workers that were told to finish accept nothing more, but not long: one that is stuck does
    /// not accept either.
    pub(super) fn await_draining(&mut self) {
        let deadline = Instant::now() + DRAINING_PATIENCE;
        let generation = &self.generation;
        for worker in self.workers.iter_mut().filter(|worker| worker.is_ending && worker.is_accepting) {
            while let Some(channel) = worker.channel.as_ref().filter(|_| worker.is_accepting) {
                let patience = deadline.saturating_duration_since(Instant::now());
                if !wait_readable(&[channel.as_fd()], Some(patience)).is_ok_and(|readable| readable[0]) {
                    break;
                }
                match channel
                    .receive_message()
                    .map(|message| message.map(|message| Verdict::decode(&message)))
                {
                    Ok(Some(Some(Verdict::Keep(number, request)))) => {
                        keep(generation, channel, number, &request)
                    }
                    Ok(Some(_)) => worker.is_accepting = false,
                    _ => worker.channel = None,
                }
            }
        }
    }

    /// Sends all workers a signal that ends them.
    pub(super) fn signal_workers(&mut self, signal: rustix::process::Signal) {
        self.respawn_at = None;
        for worker in &mut self.workers {
            worker.is_ending = true;
            if let Err(errno) = rustix::process::kill_process(worker.pid, signal) {
                let message = format!("kill({}, {}) failed", worker.pid, signal.as_raw());
                self.journal.write_errno(Severity::Alert, message, errno);
            }
        }
    }

    /// Hands all workers the logs anew.
    pub(super) fn send_logs(&mut self) {
        let paths: Vec<Vec<u8>> = self.generation.log_files.iter().map(|file| file.path().to_vec()).collect();
        let logs: Result<Vec<OwnedFd>, _> =
            self.generation.log_files.iter().map(|file| file.duplicate()).collect();
        let sent = logs.and_then(|logs| {
            let descriptors: Vec<_> = logs.iter().map(AsFd::as_fd).collect();
            let order = Order::Reopen(paths).encode();
            let channels = self.workers.iter().filter_map(|worker| worker.channel.as_ref());
            for channel in channels {
                channel.set_patience(Some(FRAME_PATIENCE))?;
                channel.send(&order, &descriptors)?;
            }
            Ok(())
        });
        if let Err(errno) = sent {
            self.journal.write_errno(Severity::Alert, "could not hand the logs to the worker process", errno);
        }
    }
}

/// Does what a worker asks for with the files of issuers, and answers. What it writes is what the next worker is told.
fn keep(generation: &super::Generation, channel: &Channel, number: u32, request: &vault::Request) {
    let files = &generation.loaded.files;
    let written = |path: Vec<u8>, content: Option<&[u8]>| files.put(&path, crate::vault::recorded(content));
    let folders = &generation.loaded.essentials.state_paths;
    let answer = crate::vault::carry_out(folders, request, net::clock::wall().seconds, written);
    // A worker that is gone needs no answer, and one that is stuck gets none.
    let _ = channel
        .set_patience(Some(FRAME_PATIENCE))
        .and_then(|()| channel.send(&Order::Kept(number, answer).encode(), &[]));
}

/// A socket's place in nginx's variable `NGINX`.
pub(super) fn inherited_entry(listener: &Listener) -> String {
    format!("{};", listener.socket.as_raw_fd())
}

/// The environment a worker gets: what `env` names, and the time zone.
pub(super) fn kept_environment(all: &[(OsString, OsString)], lines: &[Vec<u8>]) -> Vec<(OsString, OsString)> {
    let mut kept = Vec::new();
    let keep = |name: &[u8], kept: &mut Vec<(OsString, OsString)>| {
        let value = all.iter().find(|(known, _)| known.as_bytes() == name);
        kept.extend(value.cloned());
    };
    let is_zone = |entry: &Vec<u8>| entry == b"TZ" || entry.starts_with(b"TZ=");
    if !lines.iter().any(is_zone) {
        keep(b"TZ", &mut kept);
    }
    for entry in lines {
        match entry.iter().position(|&byte| byte == b'=') {
            Some(equals) => {
                let (name, value) = (&entry[..equals], &entry[equals + 1..]);
                kept.push((OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(value).to_owned()));
            }
            None => keep(entry, &mut kept),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_gets_what_env_names_and_the_time_zone() {
        let all: Vec<(OsString, OsString)> = [("TZ", "UTC"), ("HOME", "/root"), ("A", "1")]
            .map(|(name, value)| (name.into(), value.into()))
            .into();
        for (lines, expected) in [
            (&[][..], &[("TZ", "UTC")][..]),
            (&["A", "B"], &[("TZ", "UTC"), ("A", "1")]),
            (&["A=x=y", "HOME"], &[("TZ", "UTC"), ("A", "x=y"), ("HOME", "/root")]),
            (&["TZ=Asia/Makassar"], &[("TZ", "Asia/Makassar")]),
            (&["TZ"], &[("TZ", "UTC")]),
        ] {
            let lines = lines.iter().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>();
            let expected: Vec<(OsString, OsString)> =
                expected.iter().map(|(name, value)| (name.into(), value.into())).collect();
            assert_eq!(kept_environment(&all, &lines), expected, "{lines:?}");
        }
    }
}
