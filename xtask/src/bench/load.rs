//! What is done to a running server, and the figures that come of it.

use super::peer::{Peer, Places, Running};
use super::process::{CpuTime, cpu_time, memory_kib, watched};
use super::turns::Generator;
use super::workload::{Figure, Load, Workload};
use super::{Sample, h2load, websocket, wrk};
use std::fs::OpenOptions;
use std::io::{Error, ErrorKind, Read, Result as IoResult, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long an answer may take before it counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read at most.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// After how long a server that has nothing to do has given back what it gives back.
const REST: Duration = Duration::from_millis(1500);

/// Measures one round.
pub fn measure(peer: &Peer, workload: &Workload, running: &Running, seconds: u32) -> Result<Sample, String> {
    let pids = running.processes();
    let listen = &running.places.listen;
    let before = Spent::until_now(running);
    let mut sample = match workload.load {
        Load::Wrk { .. } | Load::H2 { .. } | Load::WebSocket { .. } => {
            begin(workload, listen, seconds)?.ok_or("no such load")?.finish()?
        }
        Load::Idle { connections } => idle(listen, connections, &pids)?,
        Load::Reload => reload(peer, workload, running)?,
        Load::Start => first_answer(running)?,
        Load::Balance { connections } => balance(listen, connections, workload.workers, &pids)?,
    };
    before.add_cost(&mut sample, running)?;
    add_memory(&mut sample, running);
    Ok(sample)
}

/// Begins the load of a workload that goes on without a pause; none when its load is another kind.
pub fn begin(workload: &Workload, listen: &str, seconds: u32) -> Result<Option<Box<dyn Generator>>, String> {
    Ok(match workload.load {
        Load::Wrk { connections, path, close, script } => {
            let url = format!("{}://{listen}{path}", workload.scheme());
            Some(Box::new(wrk::begin(&url, connections, close, script, seconds)?))
        }
        Load::H2 { connections, streams, path } => {
            Some(Box::new(h2load::begin(&format!("http://{listen}{path}"), connections, streams, seconds)?))
        }
        Load::WebSocket { connections } => Some(Box::new(websocket::begin(listen, connections, seconds))),
        Load::Idle { .. } | Load::Reload | Load::Start | Load::Balance { .. } => None,
    })
}

/// What the processes of a server spent until a moment.
pub struct Spent {
    processes: Vec<u32>,
    time: CpuTime,
}

impl Spent {
    /// Of a server that runs.
    pub fn until_now(running: &Running) -> Self {
        let processes = running.processes();
        Self { time: cpu_time(&processes), processes }
    }

    /// What it spent since then, for each of the requests.
    pub fn add_cost(&self, sample: &mut Sample, running: &Running) -> Result<(), String> {
        let Some(requests) = sample.get(&Figure::Requests).copied() else { return Ok(()) };
        let now = running.processes();
        if self.processes.iter().any(|pid| !now.contains(pid)) {
            return Err("a process of the server ended, and nobody knows what it spent".to_owned());
        }
        let spent = cpu_time(&self.processes).since(self.time);
        let cpu = spent.total_ns as f64 / 1e3 / requests;
        sample.insert(Figure::Cpu, cpu);
        sample.insert(Figure::User, cpu * spent.user_share());
        Ok(())
    }
}

/// The memory of a server, where nothing more exact is known.
pub fn add_memory(sample: &mut Sample, running: &Running) {
    sample.entry(Figure::Memory).or_insert_with(|| memory_kib(&running.processes()) as f64);
}

fn in_words(error: Error) -> String {
    error.to_string()
}

/// A connection that breaks when nothing comes.
pub fn connect(listen: &str) -> IoResult<TcpStream> {
    let stream = TcpStream::connect(listen)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream, path: &str) -> IoResult<()> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").as_bytes())
}

/// The head and the body of a whole answer with a `Content-Length`.
fn answer(stream: &mut TcpStream) -> IoResult<String> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while text.len() < ANSWER_BYTES_MAX {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        text.extend_from_slice(&buffer[..read]);
        if let Some(head_end) = text.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&text[..head_end]).to_ascii_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if text.len() >= head_end + 4 + length.unwrap_or(0_usize) {
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
        }
    }
    Err(Error::other("the answer is too large"))
}

/// A good answer on a connection.
fn good_answer(stream: &mut TcpStream) -> IoResult<String> {
    let answer = answer(stream)?;
    if answer.starts_with("HTTP/1.1 200") {
        return Ok(answer);
    }
    Err(Error::other(format!("answered {}", answer.lines().next().unwrap_or_default())))
}

/// So many of a hundred sorted times, in nanoseconds, are no longer than this, in microseconds.
pub fn percentile(times: &[u64], part: usize) -> f64 {
    let at = (times.len() * part / 100).min(times.len().saturating_sub(1));
    times.get(at).map_or(0.0, |ns| *ns as f64 / 1e3)
}

/// Opens connections that get one answer each and then wait.
fn idle(listen: &str, wanted: u32, pids: &[u32]) -> Result<Sample, String> {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let connections = u64::from(wanted).min(descriptors.unwrap_or(u64::MAX).saturating_sub(256));
    // The first connections make the server get what it needs once.
    let mut first = connect(listen).map_err(in_words)?;
    for _ in 0..100 {
        ask(&mut first, "/small").and_then(|()| good_answer(&mut first)).map_err(in_words)?;
    }
    let base = memory_kib(pids);
    let mut streams = Vec::new();
    for number in 0..connections {
        let mut stream = connect(listen).map_err(|e| format!("connection {number}: {e}"))?;
        ask(&mut stream, "/small")
            .and_then(|()| good_answer(&mut stream))
            .map_err(|e| format!("connection {number}: {e}"))?;
        streams.push(stream);
    }
    std::thread::sleep(REST);
    let more = memory_kib(pids).saturating_sub(base);
    Ok(Sample::from([
        (Figure::Idle, more as f64 * 1024.0 / streams.len() as f64),
        (Figure::Requests, streams.len() as f64),
        (Figure::Memory, base as f64),
        (Figure::Failed, 0.0),
    ]))
}

/// Changes the configuration under light load.
fn reload(peer: &Peer, workload: &Workload, running: &Running) -> Result<Sample, String> {
    let listen = &running.places.listen;
    let generation = || -> IoResult<String> {
        let mut stream = connect(listen)?;
        ask(&mut stream, "/generation")?;
        Ok(good_answer(&mut stream)?.rsplit("\r\n").next().unwrap_or_default().to_owned())
    };
    if generation().map_err(in_words)? != "1" {
        return Err("the first generation does not answer".to_owned());
    }
    peer.configure(workload, &running.places, 2)?;
    let done = AtomicBool::new(false);
    let (time, mut times, failed) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let (mut times, mut failed) = (Vec::new(), 0_u32);
            while !done.load(Ordering::Relaxed) {
                let begin = Instant::now();
                failed += u32::from(generation().is_err());
                times.push(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
                std::thread::sleep(Duration::from_millis(2));
            }
            (times, failed)
        });
        let begin = Instant::now();
        let time = running.reload().and_then(|()| {
            while generation().ok().as_deref() != Some("2") {
                if begin.elapsed() > PATIENCE {
                    return Err("the second generation does not answer".to_owned());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(begin.elapsed())
        });
        std::thread::sleep(REST);
        done.store(true, Ordering::Relaxed);
        let (times, failed) = load.join().map_err(|_| "the load broke".to_owned())?;
        Ok::<_, String>((time?, times, failed))
    })?;
    times.sort_unstable();
    Ok(Sample::from([
        (Figure::Reload, time.as_secs_f64() * 1e3),
        (Figure::Half, percentile(&times, 50)),
        (Figure::Tail, percentile(&times, 99)),
        (Figure::Longest, percentile(&times, 100)),
        (Figure::Memory, memory_kib(&running.processes()) as f64),
        (Figure::Failed, failed.into()),
    ]))
}

/// The time to the first answer.
fn first_answer(running: &Running) -> Result<Sample, String> {
    let begin = Instant::now();
    let mut stream = connect(&running.places.listen).map_err(in_words)?;
    ask(&mut stream, "/small").and_then(|()| good_answer(&mut stream)).map_err(in_words)?;
    let time = running.started_in + begin.elapsed();
    Ok(Sample::from([(Figure::Start, time.as_secs_f64() * 1e3), (Figure::Failed, 0.0)]))
}

/// Opens connections at once and looks at the event queues of the workers.
fn balance(listen: &str, connections: u32, workers: u32, pids: &[u32]) -> Result<Sample, String> {
    let before = watched(pids);
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push(connect(listen).map_err(in_words)?);
    }
    for stream in &mut streams {
        ask(stream, "/small").map_err(in_words)?;
    }
    for stream in &mut streams {
        good_answer(stream).map_err(in_words)?;
    }
    let after = watched(pids);
    let gains = after.iter().map(|(queue, count)| count.saturating_sub(*before.get(queue).unwrap_or(&0)));
    let fullest = gains.max().unwrap_or(0);
    Ok(Sample::from([
        (Figure::Balance, fullest as f64 * f64::from(workers) / f64::from(connections)),
        (Figure::Requests, f64::from(connections)),
        (Figure::Failed, 0.0),
    ]))
}

/// The files of the static workloads and of the back ends.
pub fn make_files(places: &Places) -> Result<(), String> {
    std::fs::create_dir_all(&places.files).map_err(in_words)?;
    for (name, bytes) in [("1k", 1 << 10), ("100k", 100 << 10), ("64k", 64 << 10), ("1m", 1 << 20)] {
        let line = b"What is served here is not worth reading, but it is text all the same.\n";
        let text: Vec<u8> = line.iter().copied().cycle().take(bytes).collect();
        std::fs::write(places.files.join(name), text).map_err(in_words)?;
    }
    make_certificate(&places.certificate)
}

/// A certificate with its key in one file: ECDSA on P-256, which is what most servers have by now.
fn make_certificate(path: &Path) -> Result<(), String> {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    command.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    command.arg("-keyout").arg(path).arg("-out").arg("-");
    let output = command.output().map_err(|e| format!("openssl: {e}"))?;
    if !output.status.success() {
        return Err(format!("openssl said: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let mut file = OpenOptions::new().append(true).open(path).map_err(in_words)?;
    file.write_all(&output.stdout).map_err(in_words)
}
