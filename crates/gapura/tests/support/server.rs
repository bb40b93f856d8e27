//! A server as a service manager sees it: started in the background, known by its pid file, told by signals.
//!
//! It is called `nginx`, or by its own name, through a link in the folder of the test; `GATEWAY=/usr/sbin/nginx` puts
//! another server there.

use super::client::Connection;
use super::gateway::{binary, send};
use super::{Folder, own_network, text_of, try_for};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use std::{fs, thread};

/// How long anything may take: long, because a test machine may be slow and busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One server with a folder and an address of its own.
pub struct Server {
    /// Everything is in here.
    pub folder: Folder,
    /// `127.x.y.z`, nobody else's.
    pub host: String,
    /// The link that is called.
    pub program: PathBuf,
}

static HOSTS: AtomicU8 = AtomicU8::new(0);

impl Server {
    /// A server called by that name, with a configuration. In it `%HOST%` is the address and `%DIR%` the folder.
    pub fn new(name: &str, configuration: &str) -> Server {
        let folder = Folder::new("process");
        let number = 1 + HOSTS.fetch_add(1, Ordering::Relaxed);
        let host = format!("{}.{number}", own_network(128));
        let program = folder.path().join(name);
        symlink(binary(), &program).unwrap();
        fs::create_dir(folder.path().join("logs")).unwrap();
        let server = Server { folder, host, program };
        server.write(configuration);
        server
    }

    /// The same, started.
    pub fn started(name: &str, configuration: &str) -> Server {
        let server = Server::new(name, configuration);
        server.start();
        server
    }

    /// Replaces the configuration.
    pub fn write(&self, configuration: &str) {
        let text =
            configuration.replace("%HOST%", &self.host).replace("%DIR%", &self.path("").to_string_lossy());
        fs::write(self.path("nginx.conf"), text).unwrap();
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program with the options that every call has, and more.
    pub fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-p").arg(self.folder.path()).args(["-c", "nginx.conf", "-e", "error.log"]).args(options);
        command
    }

    /// Calls the program to its end.
    pub fn call(&self, options: &[&str]) -> Output {
        self.command(options).output().unwrap()
    }

    /// Calls the program and expects this exit code; returns its standard error.
    pub fn says(&self, options: &[&str], code: i32) -> String {
        let output = self.call(options);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{options:?}: {text}\n{}", self.log());
        text
    }

    /// Starts it in the background and waits until it has workers.
    pub fn start(&self) {
        // Its standard error stays open in the background: not to be waited for.
        let output = fs::File::create(self.path("output")).unwrap();
        let mut command = self.command(&[]);
        let status = command.stdout(output.try_clone().unwrap()).stderr(output).status().unwrap();
        assert!(status.success(), "{}\n{}", text_of(&self.path("output")), self.log());
        let pid = self.wait_for("a pid file", || self.pid());
        self.wait_for("a worker", || (!children(pid).is_empty() || !self.has_master()).then_some(()));
    }

    fn has_master(&self) -> bool {
        !text_of(&self.path("nginx.conf")).contains("master_process off")
    }

    /// The master's number.
    pub fn pid(&self) -> Option<u32> {
        text_of(&self.path("nginx.pid")).trim_end().parse().ok()
    }

    /// The master's number, which must be there.
    pub fn master(&self) -> u32 {
        self.pid().unwrap_or_else(|| panic!("no pid file\n{}", self.log()))
    }

    /// The only worker.
    pub fn worker(&self) -> u32 {
        let master = self.master();
        self.wait_for("one worker", || match children(master)[..] {
            [one] => Some(one),
            _ => None,
        })
    }

    /// Sends the master a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.master(), signal).unwrap();
    }

    /// The error log.
    pub fn log(&self) -> String {
        log_text(&self.path("error.log"))
    }

    /// Waits for a value; where it does not come, the error log is shown as it is then.
    pub fn wait_for<T>(&self, what: &str, ready: impl FnMut() -> Option<T>) -> T {
        try_for(PATIENCE, ready)
            .unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain: {what}\n{}", self.log()))
    }

    /// Waits until the error log has these words this many times.
    pub fn wait_for_log(&self, words: &str, times: usize) {
        self.wait_for(&format!("{times} times {words:?} in the log"), || {
            (self.log().matches(words).count() >= times).then_some(())
        });
    }

    /// The address on a port.
    pub fn address(&self, port: u16) -> SocketAddr {
        format!("{}:{port}", self.host).parse().unwrap()
    }

    /// A connection to a port.
    pub fn connect(&self, port: u16) -> Connection {
        let connection = Connection::open(self.address(port), PATIENCE);
        connection.unwrap_or_else(|error| panic!("port {port}: {error}\n{}", self.log()))
    }

    /// The body a port answers with.
    pub fn body(&self, port: u16) -> String {
        let answer = self.connect(port).get("test", "/");
        answer.unwrap_or_else(|error| panic!("port {port}: {error}\n{}", self.log())).text()
    }

    /// Waits until a port answers with this body.
    pub fn wait_for_body(&self, port: u16, body: &str) {
        let answers = || {
            let answer = Connection::open(self.address(port), PATIENCE).ok()?.get("test", "/").ok()?;
            (answer.text() == body).then_some(())
        };
        self.wait_for(&format!("port {port} answers {body:?}"), answers);
    }

    /// Waits until a process is gone.
    pub fn wait_for_end(&self, pid: u32) {
        self.wait_for(&format!("the end of {pid}"), || (!is_alive(pid)).then_some(()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for name in ["nginx.pid", "nginx.pid.oldbin"] {
            let Some(pid) = text_of(&self.path(name)).trim_end().parse().ok() else { continue };
            let group: Vec<u32> = children(pid).into_iter().chain([pid]).collect();
            let _ = send(pid, Signal::TERM);
            for _ in 0..1000 {
                if !is_alive(pid) {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
            for pid in group.into_iter().filter(|pid| is_alive(*pid)) {
                let _ = send(pid, Signal::KILL);
            }
        }
    }
}

/// The configuration of a server that answers a body on port 8080.
pub fn answering(body: &str) -> String {
    format!(
        "error_log error.log info; pid nginx.pid;\nevents {{}}\nhttp {{ access_log access.log; server {{ listen %HOST%:8080; return 200 {body}; }} }}\n"
    )
}

/// An error log. An nginx that was built without threads writes 0 in the place of the thread's number.
pub fn log_text(path: &Path) -> String {
    let with_number = |line: &str| match line.split_once("#0: ") {
        Some((before, message)) => {
            let pid = before.rsplit(' ').next().unwrap_or_default();
            format!("{before}#{pid}: {message}\n")
        }
        None => format!("{line}\n"),
    };
    text_of(path).lines().map(with_number).collect()
}

/// Runs, and is no zombie.
pub fn is_alive(pid: u32) -> bool {
    let status = text_of(format!("/proc/{pid}/status").as_ref());
    !status.is_empty() && !status.contains("State:\tZ")
}

/// The children of a process, those that have ended left out.
pub fn children(pid: u32) -> Vec<u32> {
    let list = text_of(format!("/proc/{pid}/task/{pid}/children").as_ref());
    list.split_whitespace().filter_map(|word| word.parse().ok()).filter(|pid| is_alive(*pid)).collect()
}

/// What `ps` shows as the command of a process.
pub fn title(pid: u32) -> String {
    let text = text_of(format!("/proc/{pid}/cmdline").as_ref());
    text.trim_end_matches('\0').replace('\0', " ")
}

/// A line of `/proc/PID/status`.
pub fn status_line(pid: u32, name: &str) -> String {
    let status = text_of(format!("/proc/{pid}/status").as_ref());
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
