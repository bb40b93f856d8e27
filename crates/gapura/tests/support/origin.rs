//! A back end that says exactly what a test wants: garbage, half answers, nothing.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How long one connection may take, reading and writing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most of a request that is kept, bytes.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The connection is kept for further requests.
    KeepAlive,
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
    /// Nothing more comes until the other side goes.
    Silence,
}

/// One answer: these bytes, then this end.
#[derive(Clone)]
pub struct Reply {
    bytes: Arc<[u8]>,
    end: End,
}

/// The back end. It answers `/N` (or `/anything/N`) with the reply of that number once the head of a request has come,
/// and ends with the test's process.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    replies: Arc<Mutex<Vec<Reply>>>,
}

impl Origin {
    /// Starts it.
    pub fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let replies: Arc<Mutex<Vec<Reply>>> = Arc::default();
        let known = replies.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let known = known.clone();
                thread::spawn(move || answer(stream, &known));
            }
        });
        Origin { address, replies }
    }

    /// Adds an answer and returns its number.
    pub fn reply(&self, bytes: impl AsRef<[u8]>, end: End) -> usize {
        let mut replies = self.replies.lock().unwrap();
        replies.push(Reply { bytes: bytes.as_ref().into(), end });
        replies.len() - 1
    }

    /// The number that the next answer will have.
    pub fn replies_so_far(&self) -> usize {
        self.replies.lock().unwrap().len()
    }
}

/// What goes wrong here is the test's intention or the server's doing; the test looks at the server.
fn answer(mut stream: TcpStream, replies: &Mutex<Vec<Reply>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    while exchange(&mut stream, replies)? == End::KeepAlive {}
    Some(())
}

/// One request and its answer.
fn exchange(stream: &mut TcpStream, replies: &Mutex<Vec<Reply>>) -> Option<End> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    let mut request = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        request.extend_from_slice(&chunk[..count]);
    }
    let line = String::from_utf8_lossy(&request);
    let number: usize = line.split([' ', '?']).nth(1)?.rsplit('/').next()?.parse().ok()?;
    let reply = replies.lock().unwrap().get(number).cloned()?;
    stream.write_all(&reply.bytes).ok()?;
    match reply.end {
        End::KeepAlive => {}
        End::Close => {
            // What the client still sends is taken, so that the end is no reset.
            stream.shutdown(Shutdown::Write).ok()?;
            while stream.read(&mut chunk).ok().filter(|count| *count > 0).is_some() {}
        }
        End::Reset => {
            rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO)).ok()?;
        }
        End::Silence => while stream.read(&mut chunk).ok().filter(|count| *count > 0).is_some() {},
    }
    Some(reply.end)
}
