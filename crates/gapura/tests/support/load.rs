//! Load from many keep-alive connections, one thread each, with a count of everything a user would notice.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, thread};

use super::client::Connection;

/// What to ask, from how many connections.
#[derive(Clone)]
pub struct Plan {
    /// Where the server listens.
    pub address: SocketAddr,
    /// The `Host` of every request.
    pub host: &'static str,
    /// The path of every request.
    pub path: &'static str,
    /// Connections kept open at a time.
    pub connections: usize,
    /// Time between an answer and the next request of the same connection.
    pub pause: Duration,
    /// How long one request may take before it counts as failed.
    pub patience: Duration,
    /// The load ends by itself after this time, whatever happens.
    pub time_max: Duration,
}

/// What came of it.
#[derive(Default, Clone)]
pub struct Outcome {
    /// Answered with 200.
    pub answered: u64,
    /// Answered, but with another status.
    pub other_status: u64,
    /// The connection ended in the middle of a request or an answer, or while idle without notice.
    pub broken: u64,
    /// No answer in time.
    pub late: u64,
    /// The connection could not be made.
    pub refused: u64,
    /// Connections ended by the server with `Connection: close` on a complete answer. No loss.
    pub closed: u64,
    /// Answers by the name of the application that made them.
    pub servers: BTreeMap<String, u64>,
    /// The slowest answers, longest first, at most `SLOWEST_MAX`.
    pub slowest: Vec<Duration>,
    /// The first failures in words, at most `NOTES_MAX`.
    pub notes: Vec<String>,
}

const SLOWEST_MAX: usize = 12;
const NOTES_MAX: usize = 6;

impl Outcome {
    /// Requests that got no 200.
    pub fn lost(&self) -> u64 {
        self.other_status + self.broken + self.late + self.refused
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(note);
        }
    }

    fn took(&mut self, duration: Duration) {
        self.slowest.push(duration);
        if self.slowest.len() > 4 * SLOWEST_MAX {
            self.keep_slowest();
        }
    }

    fn keep_slowest(&mut self) {
        self.slowest.sort_by(|a, b| b.cmp(a));
        self.slowest.truncate(SLOWEST_MAX);
    }

    fn add(&mut self, other: Outcome) {
        self.answered += other.answered;
        self.other_status += other.other_status;
        self.broken += other.broken;
        self.late += other.late;
        self.refused += other.refused;
        self.closed += other.closed;
        for (server, count) in other.servers {
            *self.servers.entry(server).or_default() += count;
        }
        self.slowest.extend(other.slowest);
        self.keep_slowest();
        other.notes.into_iter().for_each(|note| self.note(note));
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} answered {:?}, {} with another status, {} broken, {} late, {} refused; {} closed politely; slowest",
            self.answered, self.servers, self.other_status, self.broken, self.late, self.refused, self.closed
        )?;
        self.slowest.iter().try_for_each(|time| write!(f, " {:.3}", time.as_secs_f64()))?;
        self.notes.iter().try_for_each(|note| write!(f, "\n  {note}"))
    }
}

/// Load that is running.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Outcome>>,
}

impl Load {
    /// Opens the connections and starts to ask.
    pub fn start(plan: &Plan) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..plan.connections)
            .map(|_| {
                let (plan, stop) = (plan.clone(), stop.clone());
                thread::spawn(move || ask(&plan, &stop))
            })
            .collect();
        Load { stop, threads }
    }

    /// No connection asks anything new; what was asked goes on.
    pub fn stop_asking(self) -> Load {
        self.stop.store(true, Ordering::Relaxed);
        self
    }

    /// Lets every connection finish its request and adds up.
    pub fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Outcome::default();
        for thread in self.threads {
            total.add(thread.join().expect("a load thread does not panic"));
        }
        total
    }
}

/// One connection's share: ask, wait, ask, and open another connection when this one is gone.
fn ask(plan: &Plan, stop: &AtomicBool) -> Outcome {
    let mut outcome = Outcome::default();
    let started = Instant::now();
    let mut kept: Option<Connection> = None;
    while !stop.load(Ordering::Relaxed) && started.elapsed() < plan.time_max {
        let asked = Instant::now();
        let at = asked - started;
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => match Connection::open(plan.address, plan.patience) {
                Ok(connection) => connection,
                Err(error) => {
                    outcome.refused += 1;
                    outcome.note(format!("at {at:.1?}: connect: {error}"));
                    thread::sleep(Duration::from_millis(20));
                    continue;
                }
            },
        };
        match connection.get(plan.host, plan.path) {
            Ok(answer) => {
                outcome.took(asked.elapsed());
                if answer.status == 200 {
                    outcome.answered += 1;
                    *outcome.servers.entry(answer.served_by().to_owned()).or_default() += 1;
                } else {
                    outcome.other_status += 1;
                    outcome.note(format!("at {at:.1?}: {}", answer.head.lines().next().unwrap_or("")));
                }
                if answer.keeps_alive {
                    kept = Some(connection);
                } else {
                    outcome.closed += 1;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                outcome.late += 1;
                outcome.note(format!("at {at:.1?}: no answer in {:?}", asked.elapsed()));
            }
            Err(error) => {
                outcome.broken += 1;
                outcome.note(format!("at {at:.1?}: {error}"));
            }
        }
        thread::sleep(plan.pause);
    }
    outcome
}
