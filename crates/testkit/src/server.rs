//! The program under test: Gapura, or a real nginx as the oracle, run in the foreground in a folder of its own.

use crate::client::PATIENCE;
use crate::text::show;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start; it is long because a test machine may be busy.
const START: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// A program that specs can be run on.
#[derive(Debug, Clone)]
pub struct Binary {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is a real nginx.
    pub oracle: bool,
    /// Its name in `Server` and in error pages: `nginx` or `gapura`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Everything `-V` says.
    pub built: String,
}

impl Binary {
    /// Asks the program at `path` for its name and version.
    ///
    /// # Errors
    /// In words: it cannot be run, or `-V` does not say `name/version`.
    pub fn inspect(path: &Path, oracle: bool) -> Result<Self, String> {
        let output = Command::new(path).arg("-V").output().map_err(|e| format!("{}: {e}", path.display()))?;
        let built = format!("{}{}", show(&output.stderr), show(&output.stdout));
        let first = built.lines().next().unwrap_or_default();
        let pair = first.split_once(": ").and_then(|(_, rest)| rest.split(' ').next()?.split_once('/'));
        let (name, version) = pair.ok_or_else(|| format!("{} -V said \"{first}\"", path.display()))?;
        let (name, version) = (name.to_owned(), version.to_owned());
        Ok(Self { path: path.to_owned(), oracle, name, version, built })
    }

    /// Whether this version is `wanted` or later, compared number by number.
    pub fn is_since(&self, wanted: &str) -> bool {
        let numbers = |v: &str| v.split('.').map(|n| n.parse().unwrap_or(0)).collect::<Vec<u32>>();
        numbers(&self.version) >= numbers(wanted)
    }

    /// Runs `-t` on `nginx.conf` in a folder: the exit status and standard error.
    ///
    /// # Errors
    /// In words: it cannot be run.
    pub fn verdict(&self, directory: &Path) -> Result<(ExitStatus, Vec<u8>), String> {
        let output = self.command(directory).arg("-t").output().map_err(|e| e.to_string())?;
        Ok((output.status, output.stderr))
    }

    fn command(&self, directory: &Path) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("-p").arg(directory).args(["-c", "nginx.conf", "-e", "error.log"]);
        command.stdin(Stdio::null()).current_dir(directory);
        command
    }
}

/// A running server; it is ended when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    directory: PathBuf,
}

impl Server {
    /// Starts on `nginx.conf` in a folder and waits until the server listens, which its pid file tells.
    ///
    /// # Errors
    /// In words, with what the server said.
    pub fn start(binary: &Binary, directory: &Path) -> Result<Self, String> {
        let out = File::create(directory.join("stdout.log")).map_err(|e| e.to_string())?;
        let errors = File::create(directory.join("stderr.log")).map_err(|e| e.to_string())?;
        let child =
            binary.command(directory).stdout(out).stderr(errors).spawn().map_err(|e| e.to_string())?;
        let mut server = Self { child, directory: directory.to_owned() };
        let deadline = Instant::now() + START;
        let pid_file = directory.join("nginx.pid");
        loop {
            if std::fs::metadata(&pid_file).is_ok_and(|m| m.len() > 0) {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait().map_err(|e| e.to_string())? {
                return Err(format!("the server did not start ({status}):\n{}", server.said()));
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "the server wrote no nginx.pid in {} s:\n{}",
                    START.as_secs(),
                    server.said()
                ));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Sends a signal by its name: `HUP`, `USR1`, `QUIT` ...
    ///
    /// # Errors
    /// In words: there is no such signal, or no such process any more.
    pub fn signal(&self, name: &str) -> Result<(), String> {
        let signal = match name {
            "HUP" => Signal::HUP,
            "USR1" => Signal::USR1,
            "USR2" => Signal::USR2,
            "QUIT" => Signal::QUIT,
            "TERM" => Signal::TERM,
            "INT" => Signal::INT,
            "WINCH" => Signal::WINCH,
            _ => {
                return Err(format!(
                    "no signal \"{name}\"; there are HUP, USR1, USR2, QUIT, TERM, INT and WINCH"
                ));
            }
        };
        kill_process(self.pid(), signal).map_err(|e| format!("cannot send {name}: {e}"))
    }

    /// What the server wrote to standard error.
    pub fn said(&self) -> String {
        show(&std::fs::read(self.directory.join("stderr.log")).unwrap_or_default())
    }

    /// Ends the server.
    ///
    /// # Errors
    /// In words: it did not end by itself in time.
    pub fn stop(&mut self) -> Result<(), String> {
        // It may have ended already, after a signal of the document.
        let _ = kill_process(self.pid(), Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.child.try_wait().map_err(|e| e.to_string())?.is_some() {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|c| Pid::from_raw(c.parse().ok()?)) {
            let _ = kill_process(child, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        Err(format!("the server did not end within {} s of SIGTERM", PATIENCE.as_secs()))
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let (path, built) = (PathBuf::new(), String::new());
        let binary = Binary { path, oracle: true, name: "nginx".into(), version: "1.22.1".into(), built };
        for (wanted, is) in
            [("1.22", true), ("1.9.3", true), ("1.22.1", true), ("1.22.2", false), ("1.31", false)]
        {
            assert_eq!(binary.is_since(wanted), is, "{wanted}");
        }
    }
}
