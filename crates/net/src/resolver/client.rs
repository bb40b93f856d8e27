//! Asks name servers: over UDP from a port of its own for each question, over TCP where an answer does not fit. Who is
//! silent, cannot be reached or does not understand is passed over for the next, in turn.

use super::ResolveError;
use super::datagrams::Datagrams;
use super::message::{self, Kind, Response};
use crate::address::Address;
use crate::connect::{ConnectOptions, connect};
use crate::random;
use crate::stream::Stream;
use crate::timer::{Deadline, Timer};
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

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
                let end = Deadline::after(self.patience);
                let asked = ask_one(server, &question, kind, end);
                let answered = Timer::new().with_deadline(end, asked).await;
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
                    Ok(Err(_)) if at + 1 == self.servers.len() => Timer::new().sleep(end).await,
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

async fn ask_one(
    server: SocketAddr,
    question: &[u8],
    kind: Kind,
    deadline: Deadline,
) -> io::Result<Response> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = Datagrams::bind(any)?;
    // From here on the system drops what others send.
    socket.connect(server)?;
    socket.send(question)?;
    let mut buffer = vec![0; UDP_BYTES_MAX];
    loop {
        let (count, _) = socket.receive(&mut buffer).await?;
        match message::answer(&buffer[..count], question, kind) {
            Some(response) if response.truncated => {
                return ask_whole(server, question, kind, deadline).await;
            }
            Some(response) => return Ok(response),
            None => {}
        }
    }
}

/// Over TCP: each message has its length before it (RFC 1035 section 4.2.2).
async fn ask_whole(
    server: SocketAddr,
    question: &[u8],
    kind: Kind,
    deadline: Deadline,
) -> io::Result<Response> {
    let connected = connect(&Address::Inet(server), &ConnectOptions::default(), deadline).await;
    let mut stream = connected.map_err(|error| error.errno)?;
    let length = u16::try_from(question.len()).map_err(|_| io::ErrorKind::InvalidInput)?.to_be_bytes();
    let mut parts = [IoSlice::new(&length), IoSlice::new(question)];
    stream.write_all(&mut parts, deadline).await.map_err(|error| error.errno())?;
    loop {
        let mut length = [0; 2];
        read_exact(&mut stream, &mut length, deadline).await?;
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        read_exact(&mut stream, &mut bytes, deadline).await?;
        match message::answer(&bytes, question, kind) {
            Some(response) if !response.truncated => return Ok(response),
            _ => {}
        }
    }
}

async fn read_exact(stream: &mut Stream, bytes: &mut [u8], deadline: Deadline) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        match stream.read(&mut bytes[filled..], deadline).await.map_err(|error| error.errno())? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    Ok(())
}
