//! The servers that are compared: what they are, how their configuration is made, how they are started and ended.

use super::process::{self, bound_to_us};
use super::workload::{self, Conf, Load, Workload};
use crate::spec::{build_gapura_release, find_in_path, find_nginx, root};
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Display;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use testkit::Binary;
use testkit::ports::free_port;

/// How long a server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a server that starts or ends is looked at.
const LOOK: Duration = Duration::from_micros(500);

/// Which configuration a server reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `nginx.conf`: Gapura and nginx.
    Nginx,
    /// HAProxy's own.
    Haproxy,
}

/// A server to measure.
#[derive(Debug)]
pub struct Peer {
    /// Its name and version, unique in a run.
    pub label: String,
    /// Where the program is.
    pub path: PathBuf,
    /// What it reads.
    pub kind: Kind,
}

impl Peer {
    /// The server of `NAME[=PATH]` on the command line.
    pub fn named(argument: &str) -> Result<Self, String> {
        let (name, path) = argument.split_once('=').unwrap_or((argument, ""));
        let path = match (name, path) {
            ("gapura", "") => build_gapura_release()?,
            ("nginx", "") => find_nginx().ok_or("no nginx found: --peer nginx=PATH")?,
            ("haproxy", "") => find_in_path("haproxy").ok_or("no haproxy found: --peer haproxy=PATH")?,
            (_, "") => {
                return Err(format!("no peer is called \"{name}\": they are nginx, haproxy and gapura"));
            }
            (_, path) => path.into(),
        };
        let wrong = |why: &dyn Display| format!("{} is no {name} to measure: {why}", path.display());
        let path = path.canonicalize().map_err(|e| wrong(&e))?;
        if name == "haproxy" {
            let output = Command::new(&path).arg("-v").output().map_err(|e| wrong(&e))?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let version =
                said.strip_prefix("HAProxy version ").and_then(|rest| rest.split(['-', '+', ' ']).next());
            let version = version.ok_or_else(|| wrong(&"-v tells no version"))?;
            return Ok(Self { label: format!("haproxy {version}"), path, kind: Kind::Haproxy });
        }
        let binary = Binary::inspect(&path, false).map_err(|e| wrong(&e))?;
        Ok(Self { label: format!("{} {}", binary.name, binary.version), path, kind: Kind::Nginx })
    }

    /// Whether this server can take part: HAProxy serves no files and has no configuration for the generated ones.
    pub fn takes_part(&self, workload: &Workload) -> bool {
        match (self.kind, workload.conf) {
            (Kind::Nginx, _) => true,
            (Kind::Haproxy, Conf::File(name)) => root().join(format!("bench/workloads/{name}.cfg")).is_file(),
            (Kind::Haproxy, _) => false,
        }
    }

    /// Writes the configuration into a folder.
    pub fn configure(&self, workload: &Workload, places: &Places, generation: u32) -> Result<(), String> {
        let write = |name: &str, text: String| {
            fs::write(places.run.join(name), text).map_err(|e| format!("{}: {e}", places.run.display()))
        };
        let read = |path: &Path| fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
        let (ending, frame) = match self.kind {
            Kind::Nginx => ("conf", "nginx.conf"),
            Kind::Haproxy => ("cfg", "haproxy.cfg"),
        };
        let workers = workload.workers.to_string();
        let conf = match workload.conf {
            Conf::File(name) => format!("{name}.{ending}"),
            Conf::Locations | Conf::Servers => "generated.conf".to_owned(),
        };
        let more = [("workers", workers.as_str()), ("workload", conf.as_str())];
        match workload.conf {
            Conf::Locations => write(&conf, workload::locations(&places.listen))?,
            Conf::Servers => write(&conf, workload::servers(&places.listen, &places.origin, generation))?,
            // A workload may include another one, so that all of them are there.
            Conf::File(_) => {
                for entry in fs::read_dir(root().join("bench/workloads")).map_err(|e| e.to_string())? {
                    let path = entry.map_err(|e| e.to_string())?.path();
                    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    write(&name, fill(&read(&path)?, places, &more))?;
                }
            }
        }
        write(frame, fill(&read(&root().join("bench").join(frame))?, places, &more))
    }
}

/// Where everything of a server is.
#[derive(Debug, Clone)]
pub struct Places {
    /// The server's folder.
    pub run: PathBuf,
    /// The files that are served.
    pub files: PathBuf,
    /// A certificate and its key.
    pub certificate: PathBuf,
    /// The server.
    pub listen: String,
    /// The two fast back ends.
    pub origin: String,
    /// The second of them.
    pub origin2: String,
    /// The back end that swallows and echoes.
    pub sink: String,
    /// The back end that takes its time.
    pub slow: String,
}

impl Places {
    /// Free ports and a folder for the back ends.
    pub fn new(run: PathBuf) -> Self {
        let place = || format!("127.0.0.1:{}", free_port());
        let files = run.join("files");
        let certificate = run.join("certificate.pem");
        Self {
            run,
            files,
            certificate,
            listen: place(),
            origin: place(),
            origin2: place(),
            sink: place(),
            slow: place(),
        }
    }

    /// The same back ends with a folder and a port for one server.
    pub fn of_server(&self, name: &str) -> Result<Self, String> {
        let run = self.run.join(name);
        fs::create_dir_all(&run).map_err(|e| format!("{}: {e}", run.display()))?;
        Ok(Self { run, listen: format!("127.0.0.1:{}", free_port()), ..self.clone() })
    }
}

/// Puts places into the text of a configuration.
pub fn fill(text: &str, places: &Places, more: &[(&str, &str)]) -> String {
    let run = places.run.display().to_string();
    let files = places.files.display().to_string();
    let certificate = places.certificate.display().to_string();
    let known = [
        ("run", run.as_str()),
        ("files", &files),
        ("certificate", &certificate),
        ("listen", &places.listen),
        ("origin", &places.origin),
        ("origin2", &places.origin2),
        ("sink", &places.sink),
        ("slow", &places.slow),
    ];
    let all = known.iter().chain(more);
    all.fold(text.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value))
}

/// A running server; it is ended when this is dropped.
pub struct Running {
    child: Child,
    /// Its places.
    pub places: Places,
    /// How long it took from the start of the process to the first connection.
    pub started_in: Duration,
}

impl Running {
    /// Starts a server whose configuration is written, on a core of its own when `pinned`.
    pub fn start(peer: &Peer, workload: &Workload, places: &Places, pinned: bool) -> Result<Self, String> {
        let said_path = places.run.join("out");
        let said = File::create(&said_path).map_err(|e| e.to_string())?;
        let cores = if pinned { "0" } else { "0-1023" };
        let mut command = match workload.load {
            // Each program more on the way would lengthen the time that is measured.
            Load::Start => Command::new("taskset"),
            _ => bound_to_us("taskset", "TERM"),
        };
        command.args(["-c", cores]).arg(&peer.path).current_dir(&places.run).stdin(Stdio::null());
        match peer.kind {
            Kind::Nginx => command
                .arg("-p")
                .arg(&places.run)
                .args(["-e", "error.log", "-c"])
                .arg(places.run.join("nginx.conf")),
            Kind::Haproxy => {
                let Conf::File(name) = workload.conf else { return Err("no such configuration".to_owned()) };
                command.args(["-db", "-f", "haproxy.cfg", "-f", &format!("{name}.cfg")])
            }
        };
        command.stdout(said.try_clone().map_err(|e| e.to_string())?).stderr(said);
        let begin = Instant::now();
        let child = command.spawn().map_err(|e| format!("{}: {e}", command.get_program().display()))?;
        let mut running = Self { child, places: places.clone(), started_in: Duration::ZERO };
        let gone = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        while !is_open(&places.listen) {
            if gone(&mut running.child) || begin.elapsed() > PATIENCE {
                return Err(first_complaint(&said_path, &places.run.join("error.log")));
            }
            std::thread::sleep(LOOK);
        }
        running.started_in = begin.elapsed();
        Ok(running)
    }

    /// Its processes.
    pub fn processes(&self) -> Vec<u32> {
        process::tree(self.child.id())
    }

    /// Asks it to read its configuration again.
    pub fn reload(&self) -> Result<(), String> {
        kill_process(Pid::from_child(&self.child), Signal::HUP).map_err(|e| format!("cannot send HUP: {e}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends a process of ours and what it started: first kindly, then not.
pub fn end(child: &mut Child) {
    let tree = process::tree(child.id());
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    let deadline = Instant::now() + Duration::from_secs(5);
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > deadline {
            for pid in tree.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
                let _ = kill_process(pid, Signal::KILL);
            }
            let _ = child.wait();
            return;
        }
        std::thread::sleep(LOOK);
    }
}

/// Waits until something listens at a place.
pub fn wait_for(address: &str, said: PathBuf) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while !is_open(address) {
        if Instant::now() > deadline {
            return Err(format!("nothing listens at {address}: {}", first_complaint(&said, &said)));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn is_open(address: &str) -> bool {
    let Ok(address) = address.parse::<SocketAddr>() else { return false };
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// The first line of what a server said when it did not start.
fn first_complaint(said: &Path, log: &Path) -> String {
    let texts = [said, log].map(|path| fs::read_to_string(path).unwrap_or_default());
    let line = texts.iter().flat_map(|text| text.lines()).find(|line| !line.trim().is_empty());
    line.unwrap_or("it said nothing").to_owned()
}
