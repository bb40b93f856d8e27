//! The load over WebSockets: threads of ours that send messages, which come back, one at a time on each connection.

use super::Sample;
use super::load::{ANSWER_BYTES_MAX, connect, percentile};
use super::turns::Generator;
use super::workload::Figure;
use std::io::{Error, Read, Result as IoResult, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The bytes in a message.
const MESSAGE_BYTES: u8 = 64;

/// What threads pass as long as it is open.
#[derive(Default)]
struct Gate {
    is_shut: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn shut(&self) {
        *self.is_shut.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    fn open(&self) {
        *self.is_shut.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.opened.notify_all();
    }

    /// Waits while it is shut.
    fn pass(&self) {
        let is_shut = self.is_shut.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.opened.wait_while(is_shut, |is_shut| *is_shut));
    }
}

/// The threads that make the load; each yields the times of its messages in nanoseconds.
struct Echoes {
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<IoResult<Vec<u64>>>>,
    seconds: u32,
}

/// Puts load on a server for some seconds.
pub fn begin(listen: &str, connections: u32, seconds: u32) -> impl Generator + use<> {
    let end = Instant::now() + Duration::from_secs(seconds.into());
    let gate = Arc::new(Gate::default());
    let threads = (0..connections).map(|_| {
        let (gate, listen) = (Arc::clone(&gate), listen.to_owned());
        std::thread::spawn(move || messages(&listen, &gate, end))
    });
    Echoes { threads: threads.collect(), gate, seconds }
}

impl Generator for Echoes {
    fn halt(&mut self) {
        self.gate.shut();
    }

    fn go_on(&mut self) {
        self.gate.open();
    }

    fn finish(mut self: Box<Self>) -> Result<Sample, String> {
        self.go_on();
        let mut times = Vec::new();
        for thread in self.threads.drain(..) {
            times.extend(thread.join().map_err(|_| "a client broke")?.map_err(|e| e.to_string())?);
        }
        if times.is_empty() {
            return Err("no message came back".to_owned());
        }
        times.sort_unstable();
        Ok(Sample::from([
            (Figure::Requests, times.len() as f64),
            (Figure::Rate, times.len() as f64 / f64::from(self.seconds)),
            (Figure::Half, percentile(&times, 50)),
            (Figure::Tail, percentile(&times, 99)),
            (Figure::Failed, 0.0),
        ]))
    }
}

impl Drop for Echoes {
    /// Threads that nobody waits for end with their time, not at a gate that stays shut.
    fn drop(&mut self) {
        self.gate.open();
    }
}

/// Sends messages on a connection of its own until the time is over.
fn messages(listen: &str, gate: &Gate, end: Instant) -> IoResult<Vec<u64>> {
    let mut stream = upgraded(listen)?;
    // A masked text message (RFC 6455 section 5.2); the back end sends it back as it is.
    let mut message = vec![0x81, 0x80 | MESSAGE_BYTES, 1, 2, 3, 4];
    message.extend([b'm'; MESSAGE_BYTES as usize]);
    let mut times = Vec::new();
    let mut back = vec![0; message.len()];
    loop {
        gate.pass();
        let begin = Instant::now();
        if begin >= end {
            return Ok(times);
        }
        stream.write_all(&message)?;
        stream.read_exact(&mut back)?;
        times.push(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
}

/// A connection that carries messages.
fn upgraded(listen: &str) -> IoResult<TcpStream> {
    let mut stream = connect(listen)?;
    stream.write_all(
        b"GET /ws HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < ANSWER_BYTES_MAX {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if !head.starts_with(b"HTTP/1.1 101") {
        return Err(Error::other(format!("answered {}", String::from_utf8_lossy(&head).trim())));
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn a_shut_gate_holds_threads_back_until_it_opens() {
        let order = Mutex::new(Vec::new());
        let note = |what| order.lock().expect("the order").push(what);
        let (gate, all_here) = (Gate::default(), Barrier::new(3));
        gate.pass();
        gate.shut();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    all_here.wait();
                    gate.pass();
                    note("passed");
                });
            }
            all_here.wait();
            // Who does not wait at the gate gets ahead here.
            (0..100).for_each(|_| std::thread::yield_now());
            note("opened");
            gate.open();
        });
        assert_eq!(order.into_inner().expect("the order"), ["opened", "passed", "passed"]);
    }
}
