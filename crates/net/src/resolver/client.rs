//! Asks name servers: over UDP from a port of its own for each question, over TCP where an answer does not fit. Who is
//! silent, cannot be reached or does not understand is passed over for the next, in turn.

use super::ResolveError;
use super::message::{self, Kind, Response};
use crate::random;
use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep_until, timeout_at};

/// The largest answer over UDP, bytes (nginx's `NGX_RESOLVER_UDP_SIZE`).
const UDP_BYTES_MAX: usize = 4096;
/// The RCODE of a server that could not read the question.
const FORMAT_ERROR: u8 = 1;
/// The RCODEs of a server that fails, does not do such questions, or does not answer us.
const FAILURES: [u8; 3] = [2, 4, 5];

/// What becomes of a question that a server does not answer well.
#[derive(Clone, Copy, Debug)]
pub(super) enum Manner {
    /// nginx's, for servers of the configuration: a failure of one is the answer; silence has all of them asked again and
    /// again, for as long as somebody waits.
    Listed,
    /// The C library's, for servers of the system: who fails is passed over, and all are asked so often.
    System { rounds_max: u32 },
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Client {
    /// Whom to ask.
    pub servers: Vec<SocketAddr>,
    /// How long one has to answer before the next is asked.
    pub patience: Duration,
    /// Whose ways to follow.
    pub manner: Manner,
    next: Cell<usize>,
}

impl Client {
    /// Asks the servers in turn.
    pub fn new(servers: Vec<SocketAddr>, patience: Duration, manner: Manner) -> Client {
        Client { servers, patience, manner, next: Cell::new(0) }
    }

    /// The server whose turn it is.
    pub fn turn(&self) -> usize {
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        turn
    }

    /// Asks, first the server whose turn it is.
    pub async fn ask(&self, name: &[u8], kind: Kind, turn: usize) -> Result<Response, ResolveError> {
        let question =
            message::question(random::question_id(), name, kind).ok_or(ResolveError::HostNotFound)?;
        let (mut not_understood, mut failure) = (0, None);
        let rounds_max = match self.manner {
            Manner::Listed => u32::MAX,
            Manner::System { rounds_max } => rounds_max,
        };
        for _ in 0..rounds_max {
            for at in 0..self.servers.len() {
                let server = self.servers[turn.wrapping_add(at) % self.servers.len()];
                let end = tokio::time::Instant::now() + self.patience;
                let answered = timeout_at(end, ask_one(server, &question, kind)).await;
                match answered {
                    Ok(Ok(response)) if response.code == FORMAT_ERROR => not_understood += 1,
                    Ok(Ok(response))
                        if matches!(self.manner, Manner::System { .. })
                            && FAILURES.contains(&response.code) =>
                    {
                        failure = Some(response);
                    }
                    Ok(Ok(response)) => return Ok(response),
                    // Whom nobody can reach now may be there when its turn comes again.
                    Ok(Err(_)) if at + 1 == self.servers.len() => sleep_until(end).await,
                    Ok(Err(_)) | Err(_) => {}
                }
            }
            if not_understood >= self.servers.len() {
                return Err(ResolveError::FormatError);
            }
        }
        failure.ok_or(ResolveError::TimedOut)
    }
}

async fn ask_one(server: SocketAddr, question: &[u8], kind: Kind) -> io::Result<Response> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    // From here on the system drops what others send.
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; UDP_BYTES_MAX];
    loop {
        let count = socket.recv(&mut buffer).await?;
        match message::answer(&buffer[..count], question, kind) {
            Some(response) if response.truncated => return ask_whole(server, question, kind).await,
            Some(response) => return Ok(response),
            None => {}
        }
    }
}

/// Over TCP: each message has its length before it (RFC 1035 section 4.2.2).
async fn ask_whole(server: SocketAddr, question: &[u8], kind: Kind) -> io::Result<Response> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    loop {
        let length = stream.read_u16().await?;
        let mut bytes = vec![0; usize::from(length)];
        stream.read_exact(&mut bytes).await?;
        match message::answer(&bytes, question, kind) {
            Some(response) if !response.truncated => return Ok(response),
            _ => {}
        }
    }
}
