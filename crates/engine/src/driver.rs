//! The client's side of a request: reads the body's bytes, writes head and body, in the protocol's form.
//!
//! One variant for each protocol, matched once per operation. `Memory` is the client of a subrequest.

mod h1;

pub use h1::H1;

use crate::Request;
use crate::flow::FileRange;
use crate::h2::H2;
use crate::head;
use h1::Incoming;
use http::{Fields, Status};
use net::stream::{Stream, StreamError};
use net::timer::{Deadline, Timer};
use std::task::{Context, Poll};

/// The client of one request.
// Nearly all are HTTP/1, and none is moved once there is one.
#[expect(clippy::large_enum_variant)]
pub enum Driver {
    /// HTTP/1 on a connection.
    H1(H1),
    /// A stream of HTTP/2.
    H2(Box<H2>),
    /// A subrequest: the body is kept or dropped.
    Memory(Memory),
}

/// The client of a subrequest.
#[derive(Default)]
pub struct Memory {
    /// What came so far, when it is kept.
    pub body: Vec<u8>,
    /// Keep the body?
    pub keep: bool,
    /// The most that is kept, bytes.
    pub body_bytes_max: usize,
}

impl Memory {
    fn keep(&mut self, bytes: &[u8]) {
        if self.keep && self.body.len() + bytes.len() <= self.body_bytes_max {
            self.body.extend_from_slice(bytes);
        }
    }
}

/// Why a request body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The client went away.
    Closed,
    /// It paused for too long.
    TimedOut,
    /// Its chunks are malformed.
    Malformed,
    /// It is larger than allowed.
    TooLarge,
    /// It is longer than its length.
    LongerThanDeclared,
    /// It ended before its length.
    ShorterThanDeclared {
        /// What came, bytes.
        received: u64,
        /// What was announced, bytes.
        declared: u64,
    },
    /// It could not be stored.
    Storage,
}

impl BodyError {
    /// The status the request ends with.
    pub fn status(self) -> Status {
        match self {
            BodyError::Closed => Status::BAD_REQUEST,
            BodyError::TimedOut => Status::REQUEST_TIME_OUT,
            BodyError::Malformed | BodyError::LongerThanDeclared | BodyError::ShorterThanDeclared { .. } => {
                Status::BAD_REQUEST
            }
            BodyError::TooLarge => Status::REQUEST_ENTITY_TOO_LARGE,
            BodyError::Storage => Status::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Driver {
    /// The client of a subrequest whose body nobody wants.
    pub fn discarding() -> Driver {
        Driver::Memory(Memory::default())
    }

    /// The client of a subrequest whose body is kept, up to a limit.
    pub fn collecting(body_bytes_max: usize) -> Driver {
        Driver::Memory(Memory { keep: true, body_bytes_max, ..Memory::default() })
    }

    /// Was the request's body read to its end?
    pub fn body_is_done(&self) -> bool {
        match self {
            Driver::H1(h1) => matches!(h1.body, Incoming::Done),
            Driver::H2(h2) => h2.body_is_done(),
            Driver::Memory(_) => true,
        }
    }

    /// The fields that came behind the request's body, which was read to its end. Those of HTTP/1 are skipped, as in
    /// nginx.
    pub fn request_trailers(&self) -> Fields {
        match self {
            Driver::H2(h2) => h2.request_trailers(),
            Driver::H1(_) | Driver::Memory(_) => Fields::default(),
        }
    }

    /// Does the client wait for a `100 Continue` that it has not been sent?
    pub fn continue_is_owed(&self) -> bool {
        matches!(self, Driver::H1(h1) if h1.continue_is_owed() && h1.pending().is_empty())
    }

    /// Looks at what has come of a chunked body that nobody wants.
    ///
    /// # Errors
    /// Its chunks are malformed.
    pub fn check_unwanted_body(&mut self) -> Result<(), BodyError> {
        let Driver::H1(h1) = self else { return Ok(()) };
        let mut dropped = Vec::new();
        while matches!(h1.body, Incoming::Chunked(_)) && !h1.pending().is_empty() {
            dropped.clear();
            h1.take_body(&mut dropped)?;
        }
        Ok(())
    }

    /// Tells a client that waits for it to send its body; leaves with the head or [`Driver::flush`].
    pub fn send_continue(&mut self) {
        if let Driver::H1(h1) = self
            && std::mem::take(&mut h1.continue_owed)
        {
            h1.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    /// Appends the next bytes of the request's body; 0 at its end.
    ///
    /// # Errors
    /// The client's fault, or the deadline passed.
    pub async fn read_body(&mut self, out: &mut Vec<u8>, deadline: Deadline) -> Result<usize, BodyError> {
        match self {
            Driver::H1(h1) => h1.read_body(out, deadline).await,
            Driver::H2(h2) => h2.read_body(out, deadline).await,
            Driver::Memory(_) => Ok(0),
        }
    }

    /// Ready with the bytes of the request's body that were appended, 0 at its end.
    pub fn poll_read_body(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) -> Poll<Result<usize, BodyError>> {
        match self {
            Driver::H1(h1) => h1.poll_read_body(cx, out),
            Driver::H2(h2) => h2.poll_read_body(cx, out),
            Driver::Memory(_) => Poll::Ready(Ok(0)),
        }
    }

    /// Appends what has been read of the request's body already, without waiting; returns how many bytes that is.
    ///
    /// # Errors
    /// The body is malformed.
    pub fn take_body_at_hand(&mut self, out: &mut Vec<u8>) -> Result<usize, BodyError> {
        let h1 = match self {
            Driver::H1(h1) => h1,
            Driver::H2(h2) => return Ok(h2.take_body(out)?.unwrap_or(0)),
            Driver::Memory(_) => return Ok(0),
        };
        let before = out.len();
        while !matches!(h1.body, Incoming::Done) && h1.take_body(out)?.is_some() {}
        Ok(out.len() - before)
    }

    /// Encodes the response's head; it leaves with the first bytes of the body or with [`Driver::flush`].
    pub fn send_head(&mut self, request: &mut Request<'_>, framing: head::Outgoing) {
        if let Driver::H2(h2) = self {
            h2.send_head(request);
        }
        if let Driver::H1(h1) = self {
            h1.chunked = framing == head::Outgoing::Chunked;
            let before = h1.output.len();
            head::encode(request, framing, &mut h1.output);
            let length = (h1.output.len() - before) as u64;
            request.sent_head_bytes += length;
            request.sent_bytes += length;
        }
    }

    /// Sends an interim response (100, 103) at once.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn send_interim(&mut self, text: &[u8], deadline: Deadline) -> Result<(), StreamError> {
        match self {
            Driver::H1(h1) => {
                h1.output.extend_from_slice(text);
                h1.flush(deadline).await
            }
            Driver::H2(h2) => {
                h2.send_interim(text);
                Ok(())
            }
            Driver::Memory(_) => Ok(()),
        }
    }

    /// Sends a piece of the response's body, behind whatever waits. Returns bytes put on the wire's way.
    ///
    /// # Errors
    /// The client is gone or does not read.
    pub async fn send(&mut self, bytes: &[u8], deadline: Deadline) -> Result<u64, StreamError> {
        match self {
            Driver::H1(h1) => h1.send(bytes, deadline).await,
            Driver::H2(h2) => h2.send(bytes, deadline).await,
            Driver::Memory(memory) => {
                memory.keep(bytes);
                Ok(bytes.len() as u64)
            }
        }
    }

    /// Sends of a piece of the response's body what the client takes now: how much of it that is, and how much with its
    /// framing, bytes.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<(usize, u64), net::errno::Errno>> {
        match self {
            Driver::H1(h1) => h1.poll_send(cx, bytes),
            Driver::H2(h2) => h2.poll_send(cx, bytes),
            Driver::Memory(memory) => {
                memory.keep(bytes);
                Poll::Ready(Ok((bytes.len(), bytes.len() as u64)))
            }
        }
    }

    /// `tcp_nodelay`: what is about to be sent in several pieces is not held back.
    pub fn be_prompt(&mut self) {
        match self {
            Driver::H1(h1) => h1.stream.be_prompt(),
            // One connection for many requests has been told at its beginning.
            Driver::H2(_) | Driver::Memory(_) => {}
        }
    }

    /// Puts a small piece of the body behind what waits to be sent, without waiting; none where that cannot be done.
    pub fn join(&mut self, bytes: &[u8]) -> Option<u64> {
        match self {
            Driver::H1(h1) => h1.join(bytes),
            Driver::H2(h2) => h2.join(bytes),
            Driver::Memory(_) => None,
        }
    }

    /// The client's connection, where bytes of the body may go into it as they are, with what waits to be sent before
    /// them.
    pub fn bare_stream(&mut self) -> Option<(&mut Vec<u8>, &mut Stream)> {
        match self {
            Driver::H1(h1) if !h1.chunked && h1.stream.is_plain() => Some((&mut h1.output, &mut h1.stream)),
            _ => None,
        }
    }

    /// Sends a run of a file. Returns the bytes sent.
    ///
    /// # Errors
    /// The client is gone or does not read, or the file ended early.
    pub async fn send_file(
        &mut self,
        range: &FileRange,
        chunk_bytes_max: usize,
        deadline: Deadline,
    ) -> Result<u64, StreamError> {
        match self {
            Driver::H1(h1) => h1.send_file(range, chunk_bytes_max, deadline).await,
            Driver::H2(h2) => h2.send_file(range, deadline).await,
            Driver::Memory(memory) => {
                if memory.keep && memory.body.len() as u64 + range.length <= memory.body_bytes_max as u64 {
                    read_range(range, &mut memory.body)?;
                }
                Ok(range.length)
            }
        }
    }

    /// Ends the body and sends what is left; `trailers` go behind the last chunk. Where the connection ends with it
    /// (`is_last`), both may leave together.
    ///
    /// # Errors
    /// The client is gone or does not read.
    pub async fn finish(
        &mut self,
        trailers: &Fields,
        is_last: bool,
        deadline: Deadline,
    ) -> Result<u64, StreamError> {
        let h1 = match self {
            Driver::H1(h1) => h1,
            Driver::H2(h2) => return h2.finish(trailers),
            Driver::Memory(_) => return Ok(0),
        };
        let before = h1.output.len();
        if h1.chunked {
            http::chunked::last_chunk(trailers, &mut h1.output);
        }
        let length = (h1.output.len() - before) as u64;
        match is_last {
            true => h1.flush_last(deadline).await?,
            false => h1.flush(deadline).await?,
        }
        Ok(length)
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// The client is gone or does not read.
    pub async fn flush(&mut self, deadline: Deadline) -> Result<(), StreamError> {
        match self {
            Driver::H1(h1) => h1.flush(deadline).await,
            Driver::H2(h2) => h2.flush().map_err(StreamError::Os),
            Driver::Memory(_) => Ok(()),
        }
    }

    /// Sends at most so many bytes of what waits; returns how many are left.
    ///
    /// # Errors
    /// The client is gone or does not read.
    pub async fn flush_part(&mut self, bytes_max: u64, deadline: Deadline) -> Result<u64, StreamError> {
        match self {
            Driver::H1(h1) => h1.flush_part(bytes_max, deadline).await,
            Driver::H2(_) | Driver::Memory(_) => Ok(0),
        }
    }

    /// Ready when nothing waits to be sent any more.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), net::errno::Errno>> {
        match self {
            Driver::H1(h1) => h1.poll_flush(cx),
            Driver::H2(h2) => Poll::Ready(h2.flush()),
            Driver::Memory(_) => Poll::Ready(Ok(())),
        }
    }

    /// Ready once the deadline has passed; never for a subrequest, which waits for nobody.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>, deadline: Deadline) -> Poll<()> {
        match self {
            Driver::H1(h1) => h1.stream.poll_expired(cx, deadline),
            Driver::H2(h2) => h2.timer().poll_expired(cx, deadline),
            Driver::Memory(_) => Poll::Pending,
        }
    }

    /// Waits until the deadline.
    pub async fn sleep(&mut self, deadline: Deadline) {
        match self {
            Driver::H1(h1) => h1.stream.timer().sleep(deadline).await,
            Driver::H2(h2) => h2.timer().sleep(deadline).await,
            Driver::Memory(_) => Timer::new().sleep(deadline).await,
        }
    }

    /// Waits until the deadline; false when the client went away meanwhile.
    pub async fn sleep_unless_closed(&mut self, deadline: Deadline) -> bool {
        let mut timer = Timer::new();
        let closed = std::future::poll_fn(|cx| self.poll_closed(cx));
        matches!(crate::race::race(timer.sleep(deadline), closed).await, crate::race::First::Left(()))
    }

    /// Ready when the client closed its side or the connection broke.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            // Bytes read ahead mean the client is there: it sent its next request already.
            Driver::H1(h1) if h1.consumed < h1.input.len() => Poll::Pending,
            Driver::H1(h1) => h1.stream.poll_closed(cx).map(drop),
            Driver::H2(h2) => h2.poll_closed(cx),
            Driver::Memory(_) => Poll::Pending,
        }
    }
}

/// Appends a run of a file; one that became shorter is an error.
pub(crate) fn read_range(range: &FileRange, out: &mut Vec<u8>) -> Result<(), StreamError> {
    let Some(file) = &range.file.file else { return Err(StreamError::Os(net::errno::Errno::ISDIR)) };
    let count = net::file::read_range(file, range.offset, range.length as usize, out);
    match count {
        Ok(count) if count as u64 == range.length => Ok(()),
        Ok(_) => Err(StreamError::Os(net::errno::Errno::IO)),
        Err(error) => Err(StreamError::Os(error.errno)),
    }
}
