//! `cargo xtask bench`: Gapura beside its peers, on the same configuration, in the same minute.
//!
//! One worker runs on core 0; the load generators and the back ends on core 1. The servers of a round are measured in
//! short turns, or one after the other where that is not possible, so that what disturbs the machine disturbs all of
//! them, and ratios are taken round by round. `bench/README.md` tells how to read the result.

mod h2load;
mod load;
mod look;
mod origin;
mod peer;
mod picture;
mod process;
mod report;
mod turns;
mod websocket;
mod workload;
mod wrk;

use crate::tools;
use origin::Origins;
use peer::{Peer, Places, Running};
use report::{Entry, Report};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use workload::{Figure, Load, WORKLOADS, Workload};

/// What one round yields.
pub type Sample = BTreeMap<Figure, f64>;

/// The longest run that may be asked for.
const ROUNDS_MAX: u32 = 100;
const SECONDS_MAX: u32 = 600;

/// After how long a server that listens is complete.
const SETTLE: Duration = Duration::from_millis(300);

/// What to run.
struct Options {
    workloads: Vec<&'static Workload>,
    peers: Vec<String>,
    binary: Option<PathBuf>,
    rounds: u32,
    seconds: u32,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
    syscalls: bool,
    perf: bool,
}

/// What the command line may say.
const USAGE: &str = "\
usage: cargo xtask bench [WORKLOAD...] [OPTION...]

  --peer NAME[=PATH]  a server to compare with: nginx, haproxy or gapura; may be given several times
  --binary PATH       the Gapura that is measured; without it a release build is made
  --rounds N          rounds of each workload, 5
  --seconds S         seconds of load for each server and round, 3
  --json FILE         writes every figure of every round
  --svg FILE          writes a picture
  --syscalls          counts system calls with strace, after the rounds
  --perf              shows where the time goes with perf, after the rounds

bench/README.md tells how to read the result. Without a name all workloads run:
";

fn usage() -> String {
    let lines = WORKLOADS.iter().map(|workload| format!("  {:<13}  {}", workload.name, workload.about));
    format!("{USAGE}\n{}", lines.collect::<Vec<_>>().join("\n"))
}

/// Reads the command line and runs.
pub fn main(arguments: &[String]) -> Result<(), String> {
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("{}", usage());
        return Ok(());
    }
    let options = read(arguments)?;
    // Better now than when all is measured.
    for path in [&options.json, &options.svg].into_iter().flatten() {
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let haproxy = options.peers.iter().any(|peer| peer == "haproxy");
    tools::install_for_bench(haproxy, options.syscalls, options.perf)?;
    let subject = match &options.binary {
        Some(path) => Peer::named(&format!("gapura={}", path.display()))?,
        None => Peer::named("gapura")?,
    };
    let mut peers = vec![subject];
    for name in &options.peers {
        let mut peer = Peer::named(name)?;
        if peers.iter().any(|other| other.label == peer.label) {
            peer.label += &format!(" ({})", peer.path.display());
        }
        peers.push(peer);
    }
    take_core(1)?;
    let folder = std::env::temp_dir().join(format!("gapura-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let result = run_all(&options, &peers, &Places::new(folder.clone()));
    // What is left there belongs to nobody.
    let _ = std::fs::remove_dir_all(&folder);
    let report = result?;
    println!("{}", report.table());
    for (path, text) in [(&options.json, report.json()), (&options.svg, picture::bars(&report))] {
        if let Some(path) = path {
            std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    Ok(())
}

fn read(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        workloads: Vec::new(),
        peers: Vec::new(),
        binary: None,
        rounds: 5,
        seconds: 3,
        json: None,
        svg: None,
        syscalls: false,
        perf: false,
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().cloned().ok_or_else(|| format!("{argument} needs a value"));
        let number = |text: String, max: u32| {
            let number = text.parse::<u32>().ok().filter(|number| (1..=max).contains(number));
            number.ok_or_else(|| format!("{argument} takes a number from 1 to {max}"))
        };
        match argument.as_str() {
            "--peer" => options.peers.push(value()?),
            "--binary" => options.binary = Some(value()?.into()),
            "--rounds" => options.rounds = number(value()?, ROUNDS_MAX)?,
            "--seconds" => options.seconds = number(value()?, SECONDS_MAX)?,
            "--json" => options.json = Some(value()?.into()),
            "--svg" => options.svg = Some(value()?.into()),
            "--syscalls" => options.syscalls = true,
            "--perf" => options.perf = true,
            name => {
                let found = WORKLOADS.iter().find(|workload| workload.name == name);
                let found =
                    found.ok_or_else(|| format!("no option or workload \"{name}\"\n\n{}", usage()))?;
                options.workloads.push(found);
            }
        }
    }
    if options.workloads.is_empty() {
        options.workloads = WORKLOADS.iter().collect();
    }
    Ok(options)
}

/// Keeps this process, and what it starts, on a core; on a machine with one core nothing is pinned.
fn take_core(core: usize) -> Result<(), String> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    use rustix::thread::{CpuSet, sched_setaffinity};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).map_err(|e| format!("cannot raise the limit of descriptors: {e}"))?;
    if cores() < 2 {
        return Ok(());
    }
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).map_err(|e| format!("cannot pin to core {core}: {e}"))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn run_all(options: &Options, peers: &[Peer], places: &Places) -> Result<Report, String> {
    load::make_files(places)?;
    // The servers of the bench may be started by root and then run as somebody else.
    let _origins = Origins::start(places)?;
    let mut report = Report::new(options.rounds, options.seconds);
    for (number, workload) in options.workloads.iter().enumerate() {
        let step = format!("{}/{} {}", number + 1, options.workloads.len(), workload.name);
        run_workload(options, peers, workload, places, &step, &mut report)?;
    }
    Ok(report)
}

/// Runs the rounds of a workload; a server that cannot take part is noted and left out.
fn run_workload(
    options: &Options,
    peers: &[Peer],
    workload: &'static Workload,
    places: &Places,
    step: &str,
    report: &mut Report,
) -> Result<(), String> {
    let mut entries: Vec<(Entry, Station)> = Vec::new();
    for (number, peer) in peers.iter().enumerate().filter(|(_, peer)| peer.takes_part(workload)) {
        let station = Station::new(peer, workload, places.of_server(&format!("{}-{number}", workload.name))?);
        let entry =
            Entry { label: peer.label.clone(), samples: Vec::new(), failure: None, looks: Vec::new() };
        entries.push((entry, station));
    }
    for round in 1..=options.rounds {
        let step = format!("{step} {round}/{}", options.rounds);
        run_round(workload, &mut entries, options.seconds, &step);
    }
    for (entry, station) in entries.iter_mut().filter(|(entry, _)| entry.failure.is_none()) {
        if options.syscalls {
            entry.looks.push(look::syscalls(station, options.seconds)?);
        }
        if options.perf {
            entry.looks.push(look::perf(station, options.seconds, &entry.label)?);
        }
    }
    report.add(workload, entries.into_iter().map(|(entry, _)| entry).collect());
    Ok(())
}

/// Runs a round of those that still take part.
fn run_round(workload: &Workload, entries: &mut [(Entry, Station<'_>)], seconds: u32, step: &str) {
    let mut ready: Vec<_> = entries.iter_mut().filter(|(entry, _)| entry.failure.is_none()).collect();
    if !workload.has_turns() || ready.len() < 2 {
        for (entry, station) in ready {
            note(workload, entry, station.round(seconds), step);
        }
        return;
    }
    let mut servers = Vec::new();
    let mut to_note = Vec::new();
    for (entry, station) in &mut ready {
        match station.running() {
            Ok(running) => {
                servers.push(running);
                to_note.push(entry);
            }
            Err(message) => note(workload, entry, Err(message), step),
        }
    }
    if servers.len() > 1 {
        progress(&format!("{step}: {} servers in turns", servers.len()));
    }
    for (entry, sample) in to_note.into_iter().zip(turns::round(workload, &servers, seconds)) {
        note(workload, entry, sample, step);
    }
}

/// Keeps the result of a server's round and shows it; a server that failed is left out from now on.
fn note(workload: &Workload, entry: &mut Entry, result: Result<Sample, String>, step: &str) {
    match result {
        Ok(sample) => {
            let value = sample.get(&workload.figure).copied().unwrap_or(f64::NAN);
            progress(&format!("{step}: {} {value:.2} {}", entry.label, workload.figure.title()));
            entry.samples.push(sample);
        }
        Err(message) => {
            progress(&format!("{step}: {} left out: {message}", entry.label));
            entry.failure = Some(message);
        }
    }
}

/// A server that is measured, and its process as long as one lives.
pub struct Station<'a> {
    peer: &'a Peer,
    workload: &'static Workload,
    places: Places,
    running: Option<Running>,
}

impl<'a> Station<'a> {
    fn new(peer: &'a Peer, workload: &'static Workload, places: Places) -> Self {
        Self { peer, workload, places, running: None }
    }

    /// The server, started when it does not run; the first seconds of a server are no measure.
    pub fn running(&mut self) -> Result<&Running, String> {
        if self.running.is_none() {
            self.peer.configure(self.workload, &self.places, 1)?;
            let pinned = self.workload.workers == 1 && cores() > 1;
            let running = Running::start(self.peer, self.workload, &self.places, pinned)?;
            match self.workload.load {
                Load::Start => {}
                // A master listens before its workers are there.
                _ if self.is_fresh_each_round() => std::thread::sleep(SETTLE),
                _ => drop(load::measure(self.peer, self.workload, &running, 1)?),
            }
            // A log that nothing is written to would make a server look cheaper than it is.
            let log = std::fs::metadata(self.places.run.join("access.log"));
            if log.is_ok_and(|log| log.len() == 0) {
                return Err("its access log stays empty".to_owned());
            }
            self.running = Some(running);
        }
        self.running.as_ref().ok_or_else(|| "the server is gone".to_owned())
    }

    /// One round of the load.
    pub fn round(&mut self, seconds: u32) -> Result<Sample, String> {
        if self.is_fresh_each_round() {
            self.running = None;
        }
        let (peer, workload) = (self.peer, self.workload);
        load::measure(peer, workload, self.running()?, seconds)
    }

    /// Memory and time of the start are those of a new process.
    fn is_fresh_each_round(&self) -> bool {
        matches!(self.workload.load, Load::Idle { .. } | Load::Reload | Load::Start | Load::Balance { .. })
    }
}

/// Says what happens; the report itself goes to standard output.
fn progress(message: &str) {
    let mut out = std::io::stderr().lock();
    // Nobody may be listening.
    let _ = writeln!(out, "   {message}");
}
