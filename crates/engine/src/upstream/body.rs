//! The body of an upstream's answer: taken out of its framing, and delivered to the client.

use super::Settings;
use super::keepalive::{Connection, Keepalive, Owner};
use crate::Request;
use crate::driver::Driver;
use crate::flow::{Chunk, Transform};
use crate::pump::{self, Broken};
use balance::{Attempt, Outcome, Timings};
use conf::Level;
use http::{ChunkedDecoder, Method, ResponseFraming, ResponseHead};
use net::address::Address;
use net::errno::ErrnoMessage;
use net::stream::StreamError;
use net::timer::Deadline;
use std::sync::Arc;
use std::time::Duration;

/// How much is read at once, at first and at most, bytes. It grows while the client keeps up.
const READ_BYTES_MIN: usize = 16 * 1024;
/// See [`READ_BYTES_MIN`].
const READ_BYTES_MAX: usize = 256 * 1024;
/// The most a response's trailers may take, bytes.
const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// How much of an unwanted body is read so that its connection can be kept, bytes.
const DISCARD_BYTES_MAX: usize = 64 * 1024;

/// Where the connection goes when the body is over.
pub struct Keeper {
    /// Whose pool.
    pub owner: Owner,
    /// The peer.
    pub address: Address,
    /// The limits.
    pub settings: Keepalive,
}

/// The rest of an upstream's answer.
pub struct UpstreamBody {
    connection: Connection,
    /// Read and not yet delivered, still in its framing.
    input: Vec<u8>,
    framing: Framing,
    keep: bool,
    keeper: Keeper,
    settings: Arc<Settings>,
    /// Gives the peer back when the body is over or dropped.
    pub attempt: Option<Attempt>,
    /// Take it off the upstream as fast as it comes.
    pub buffering: bool,
    asked_ms: u64,
    header_ms: u64,
}

enum Framing {
    Done,
    Length(u64),
    Chunked(ChunkedDecoder),
    Close,
}

impl UpstreamBody {
    /// The body behind a head; `input` is what was read beyond it.
    pub fn new(
        connection: Connection,
        input: Vec<u8>,
        head: &ResponseHead,
        method: Method,
        keeper: Keeper,
        settings: Arc<Settings>,
        asked_ms: u64,
    ) -> UpstreamBody {
        let framing = match head.framing(method) {
            ResponseFraming::None => Framing::Done,
            ResponseFraming::Length(length) => Framing::Length(length),
            ResponseFraming::Chunked => Framing::Chunked(ChunkedDecoder::keeping_trailers(TRAILER_BYTES_MAX)),
            ResponseFraming::UntilClose => Framing::Close,
        };
        let buffering = settings.buffering.0;
        let keep = head.keep_alive(method);
        let header_ms = net::clock::now_ms().saturating_sub(asked_ms);
        UpstreamBody {
            connection,
            input,
            framing,
            keep,
            keeper,
            settings,
            attempt: None,
            buffering,
            asked_ms,
            header_ms,
        }
    }

    /// Lets go of a body that nobody gets to see.
    pub fn abandon(mut self, request: &mut Request<'_>) {
        self.finish_quickly(request);
    }

    /// Takes what is there of an unwanted body; if that is all of it, the connection is kept.
    pub fn finish_quickly(&mut self, request: &mut Request<'_>) {
        let mut piece = Vec::new();
        while !matches!(self.framing, Framing::Done) && piece.len() < DISCARD_BYTES_MAX {
            match self.take(&mut piece) {
                Ok(true) => {}
                _ => break,
            }
        }
        self.settle(request, Outcome::Success);
    }

    /// Moves decoded bytes from `input` to `out`; false when more must be read first.
    fn take(&mut self, out: &mut Vec<u8>) -> Result<bool, ()> {
        let mut at = 0;
        let mut moved = false;
        loop {
            let rest = &self.input[at..];
            match &mut self.framing {
                Framing::Done => break,
                _ if rest.is_empty() => break,
                Framing::Close => {
                    out.extend_from_slice(rest);
                    at = self.input.len();
                    moved = true;
                }
                Framing::Length(left) => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    out.extend_from_slice(&rest[..count]);
                    at += count;
                    *left -= count as u64;
                    moved = true;
                    if *left == 0 {
                        self.framing = Framing::Done;
                    }
                }
                Framing::Chunked(decoder) => match decoder.next_piece(rest).map_err(drop)? {
                    http::Chunk::NeedMore => at = self.input.len(),
                    http::Chunk::Data(range) => {
                        out.extend_from_slice(&rest[range.clone()]);
                        at += range.end;
                        moved = true;
                    }
                    http::Chunk::End { consumed } => {
                        at += consumed;
                        self.framing = Framing::Done;
                    }
                },
            }
        }
        self.input.drain(..at);
        Ok(moved || matches!(self.framing, Framing::Done))
    }

    /// The body is over or given up: the peer is given back, the connection kept if it can be.
    fn settle(&mut self, request: &mut Request<'_>, outcome: Outcome) {
        let now_ms = net::clock::now_ms();
        let response_ms = now_ms.saturating_sub(self.asked_ms);
        if let Some(attempted) = request.attempts.last_mut() {
            attempted.response_ms = Some(response_ms);
        }
        if let Some(mut attempt) = self.attempt.take() {
            attempt.release(outcome, now_ms, Timings { header_ms: Some(self.header_ms), response_ms });
        }
    }

    /// Keeps the connection for another request, if the body ended where it should.
    fn keep_connection(self, request: &Request<'_>) {
        let whole = matches!(self.framing, Framing::Done) && self.input.is_empty();
        if self.keep && whole {
            request.thread.pools.put(
                self.keeper.owner,
                self.keeper.address,
                self.connection,
                &self.keeper.settings,
            );
        }
    }
}

/// Sends the body to the client, through transforms.
///
/// # Errors
/// Either side ended early.
pub async fn deliver(
    request: &mut Request<'_>,
    driver: &mut Driver,
    mut body: UpstreamBody,
    mut transforms: Vec<Box<dyn Transform>>,
) -> Result<(), Broken> {
    if request.response.upgraded {
        body.settle(request, Outcome::Success);
        let silence = Duration::from_millis(body.settings.read_timeout.0);
        return crate::upgrade::tunnel(request, driver, body.connection.stream, body.input, silence).await;
    }
    let result = flow(request, driver, &mut body, &mut transforms).await;
    let outcome = match &result {
        Err(Broken::Source) => Outcome::Failure,
        _ => Outcome::Success,
    };
    body.settle(request, outcome);
    if result.is_ok() {
        if let Framing::Chunked(decoder) = &body.framing {
            request.upstream_trailers.extend_from(decoder.trailers());
        }
        body.keep_connection(request);
    }
    result
}

async fn flow(
    request: &mut Request<'_>,
    driver: &mut Driver,
    body: &mut UpstreamBody,
    transforms: &mut [Box<dyn Transform>],
) -> Result<(), Broken> {
    let mut piece = Vec::new();
    let mut read_bytes = READ_BYTES_MIN;
    loop {
        piece.clear();
        let taken = body.take(&mut piece);
        if taken.is_err() {
            request.action = "reading upstream";
            request.log_error(Level::Error, format_args!("upstream sent invalid chunked response"));
            request.action = "";
            return Err(Broken::Source);
        }
        if !piece.is_empty() {
            if let Some(attempted) = request.attempts.last_mut() {
                attempted.response_bytes += piece.len() as u64;
            }
            send(request, driver, transforms, std::mem::take(&mut piece), body.buffering).await?;
        }
        if matches!(body.framing, Framing::Done) {
            break;
        }
        let count = read(request, body, read_bytes).await?;
        if count == 0 {
            break;
        }
        if count == read_bytes {
            read_bytes = (read_bytes * 2).min(READ_BYTES_MAX);
        }
    }
    if transforms.is_empty() { Ok(()) } else { pump::transform(request, driver, transforms, None).await }
}

async fn send(
    request: &mut Request<'_>,
    driver: &mut Driver,
    transforms: &mut [Box<dyn Transform>],
    piece: Vec<u8>,
    buffering: bool,
) -> Result<(), Broken> {
    if transforms.is_empty() {
        pump::send_bytes(request, driver, &piece).await?;
    } else {
        pump::transform(request, driver, transforms, Some(Chunk::Bytes(piece))).await?;
    }
    if buffering {
        return Ok(());
    }
    driver.flush(pump::send_deadline(request)).await.map_err(Broken::Client)
}

/// Reads more; 0 at an end that is one.
async fn read(request: &mut Request<'_>, body: &mut UpstreamBody, bytes_max: usize) -> Result<usize, Broken> {
    let deadline = Deadline::after(Duration::from_millis(body.settings.read_timeout.0));
    let read = body.connection.stream.read_into(&mut body.input, bytes_max, deadline).await;
    request.action = "reading upstream";
    let result = match read {
        Ok(0) if matches!(body.framing, Framing::Close) => {
            body.framing = Framing::Done;
            body.keep = false;
            Ok(0)
        }
        Ok(0) => {
            request.log_error(Level::Error, format_args!("upstream prematurely closed connection"));
            Err(Broken::Source)
        }
        Ok(count) => {
            if let Some(attempted) = request.attempts.last_mut() {
                attempted.received_bytes += count as u64;
            }
            Ok(count)
        }
        Err(StreamError::TimedOut) => {
            request.log_error(Level::Error, format_args!("upstream timed out (110: Connection timed out)"));
            Err(Broken::Source)
        }
        Err(error) => {
            request.log_error(Level::Error, format_args!("recv() failed ({})", ErrnoMessage(error.errno())));
            Err(Broken::Source)
        }
    };
    request.action = "";
    result
}
