//! Processes under test: the gateway and the applications behind it. Each is ended by its id when dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use rustix::process::{Pid, Signal, kill_process};

/// The server under test: `GATEWAY`, or the binary that cargo built.
pub fn binary() -> PathBuf {
    std::env::var_os("GATEWAY").map_or_else(|| env!("CARGO_BIN_EXE_gapura").into(), PathBuf::from)
}

/// Whether the server under test is ours; some promises are ours alone.
pub fn is_gapura() -> bool {
    std::env::var_os("GATEWAY").is_none()
}

/// A process that ends with its owner.
pub struct Running(Child);

impl Running {
    /// Starts it with its output in a file.
    pub fn start(command: &mut Command, output: &Path) -> Running {
        let output = File::options().create(true).append(true).open(output).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        Running(command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let _ = send(self.0.id(), Signal::TERM);
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // Workers outlive a master that is killed.
                let children = super::server::children(self.0.id());
                let _ = self.0.kill();
                let _ = self.0.wait();
                for child in children {
                    let _ = send(child, Signal::KILL);
                }
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Sends a signal to a process.
pub fn send(id: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(kill_process(pid, signal)?)
}

/// A configuration tree and how to call the server on it. `wrapper` is the start of the command line, for a server
/// that runs on another host: `nsenter --net=...`.
pub struct Gateway {
    /// The prefix (`-p`), with `nginx.conf` in it.
    pub folder: PathBuf,
    /// Goes before the binary in every command.
    pub wrapper: Vec<String>,
}

impl Gateway {
    /// Makes the folder with what a server needs in it.
    pub fn new(folder: PathBuf, wrapper: Vec<String>) -> Gateway {
        fs::create_dir_all(folder.join("logs")).unwrap();
        Gateway { folder, wrapper }
    }

    /// Replaces a file of the configuration.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Starts the server in the foreground.
    pub fn start(&self) -> Running {
        let mut command = self.command();
        command.args(["-g", "daemon off;"]);
        Running::start(&mut command, &self.folder.join("logs/output.log"))
    }

    /// `-t`.
    pub fn test(&self) -> Output {
        self.command().arg("-t").output().unwrap()
    }

    /// `-s reload`.
    pub fn reload(&self) -> Output {
        self.command().args(["-s", "reload"]).output().unwrap()
    }

    /// The process ids of the master's children.
    pub fn workers(&self, master: &Running) -> Vec<u32> {
        let mut workers = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let status = super::text_of(&entry.path().join("status"));
            if status.lines().any(|line| line == format!("PPid:\t{}", master.id())) {
                workers.push(id);
            }
        }
        workers
    }

    /// What the server wrote to its error log and to its output, for a failed test.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for name in ["logs/output.log", "logs/error.log"] {
            let log = super::text_of(&self.folder.join(name));
            let lines: Vec<&str> = log.lines().collect();
            text += &format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
        text
    }

    fn command(&self) -> Command {
        let mut words = self.wrapper.iter().map(Into::into).chain([binary().into_os_string()]);
        let mut command = Command::new(words.next().expect("the binary at least"));
        command.args(words).arg("-p").arg(&self.folder).arg("-c").arg(self.folder.join("nginx.conf"));
        command
    }
}

/// The example's application in Node.js: `wrapper node server.js`.
pub fn application(name: &str, host: &str, port: u16, wrapper: &[String], output: &Path) -> Running {
    let server = super::example().join("app/server.js");
    let mut words = wrapper.iter().map(String::as_str).chain(["node"]);
    let mut command = Command::new(words.next().expect("node at least"));
    command.args(words).arg(server);
    command.env("NAME", name).env("HOST", host).env("PORT", port.to_string());
    Running::start(&mut command, output)
}
