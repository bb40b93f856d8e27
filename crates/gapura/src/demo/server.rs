//! The servers of the demo, each a process: app servers, built-in or a command of the user's, and the gateway.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use super::lifeline::FAREWELL;

/// Connecting on the loopback either works at once or not at all.
const KNOCK_MAX: Duration = Duration::from_millis(50);

/// How a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Started; nobody listens on its address yet.
    Starting,
    /// It takes connections.
    Running,
    /// Ended at the user's word.
    Stopped,
    /// Ended by itself.
    Ended(Option<i32>),
}

/// One server: what it is, and its process while there is one.
pub struct Server {
    /// The name that people see.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// How it is doing, as far as was last seen.
    pub state: State,
    process: Option<Process>,
}

struct Process {
    child: Child,
    /// Dropping it tells the process to end.
    lifeline: Option<ChildStdin>,
}

impl Server {
    /// A server that is not started.
    pub fn new(name: String, address: SocketAddr) -> Server {
        Server { name, address, state: State::Stopped, process: None }
    }

    /// Starts an app server: the built-in one, or a command of the user's.
    pub fn start_app(&mut self, command: Option<&OsStr>, logs: &Path) -> io::Result<()> {
        let mut process = ours()?;
        match command {
            None => process.arg("app"),
            Some(command) => process.args(["keep", "sh", "-c"]).arg(command),
        };
        process.env("NAME", &self.name).env("HOST", self.address.ip().to_string());
        process.env("PORT", self.address.port().to_string());
        self.start(process, &logs.join(format!("{}.log", self.name)))
    }

    /// Starts the gateway on the configuration in `folder`.
    pub fn start_gateway(&mut self, folder: &Path) -> io::Result<()> {
        let mut process = ours()?;
        process.arg("keep").arg(env::current_exe()?).arg("-p").arg(folder);
        process.arg("-c").arg(folder.join("nginx.conf")).args(["-g", "daemon off;"]);
        let output = folder.join("logs/gateway.log");
        File::create(&output)?; // what an earlier gateway said is of no use
        self.start(process, &output)
    }

    fn start(&mut self, mut command: Command, output: &Path) -> io::Result<()> {
        let output = File::options().create(true).append(true).open(output)?;
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        // A group of its own, so that Ctrl-C reaches the demo alone, which then ends everything in order.
        let mut child = command.process_group(0).spawn()?;
        let lifeline = child.stdin.take();
        self.process = Some(Process { child, lifeline });
        self.state = State::Starting;
        Ok(())
    }

    /// Looks how the process is doing. True when that has changed.
    pub fn look(&mut self) -> bool {
        let Some(process) = &mut self.process else { return false };
        let before = self.state;
        if let Ok(Some(status)) = process.child.try_wait() {
            self.process = None;
            self.state = State::Ended(status.code());
        } else if before == State::Starting && TcpStream::connect_timeout(&self.address, KNOCK_MAX).is_ok() {
            self.state = State::Running;
        }
        self.state != before
    }

    /// Looks until the server runs, has ended, or `patience` is over.
    pub fn wait(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.state == State::Starting && Instant::now() < deadline {
            if !self.look() {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Asks the process to end. [`Server::finish`] sees that it does.
    pub fn let_go(&mut self) {
        if let Some(process) = &mut self.process {
            process.lifeline = None;
        }
    }

    /// Ends the process and waits until it is gone.
    pub fn finish(&mut self) {
        self.let_go();
        let Some(mut process) = self.process.take() else { return };
        self.state = State::Stopped;
        // A keeper ends its program by force after a while; this is for the keeper.
        let deadline = Instant::now() + FAREWELL + Duration::from_millis(500);
        while matches!(process.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = process.child.kill();
                let _ = process.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Where the app server of that number listens: `127.0.0.2` for the first, all on one port as in the tutorial. Programs of
/// the user's may listen on every address whatever `HOST` says, so that each gets a port of its own.
pub fn app_address(index: usize, first_port: u16, own_port: bool) -> SocketAddr {
    let last = u8::try_from(index + 2).unwrap_or(u8::MAX);
    let port = if own_port { first_port.saturating_add(u16::from(last) - 2) } else { first_port };
    (Ipv4Addr::new(127, 0, 0, last), port).into()
}

/// This program again, as one of the demo's own servers.
fn ours() -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("demo");
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (index, own_port, address) in [
            (0, false, "127.0.0.2:3000"),
            (8, false, "127.0.0.10:3000"),
            (0, true, "127.0.0.2:3000"),
            (8, true, "127.0.0.10:3008"),
        ] {
            assert_eq!(app_address(index, 3000, own_port).to_string(), address);
        }
    }
}
