//! HTTP/1 on one connection: bytes read ahead, the request's body out of its framing, the response's bytes on their
//! way.

use super::{BodyError, read_range};
use crate::flow::FileRange;
use crate::upstream::Spare;
use http::{Chunk, ChunkedDecoder, Framing};
use net::stream::{Stream, StreamError};
use net::timer::Deadline;
use std::future::poll_fn;
use std::io::IoSlice;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How much is read from a client at once while a body comes, bytes; more where there is a buffer with room for it.
const BODY_READ_BYTES: usize = 64 * 1024;
/// Bodies up to this size are copied behind the head and leave in one write, bytes.
const JOIN_BYTES_MAX: usize = 16 * 1024;

/// HTTP/1: one connection with what was read ahead and what is still to be written.
pub struct H1 {
    /// The connection.
    pub stream: Stream,
    /// What was read; [`H1::consumed`] bytes of it are done with.
    pub input: Vec<u8>,
    /// See [`H1::input`].
    pub consumed: usize,
    /// What is to be written.
    pub(super) output: Vec<u8>,
    pub(super) body: Incoming,
    /// Does the response's body go out in chunks?
    pub(super) chunked: bool,
    /// Is a `100 Continue` owed when the body is first asked for?
    pub(super) continue_owed: bool,
    /// When the head under way began, monotonic milliseconds: as its first byte was read or, where that came with what
    /// went before, as that was done with.
    started_ms: u64,
}

/// The body being read.
pub(super) enum Incoming {
    Done,
    Length(u64),
    Chunked(ChunkedDecoder),
}

impl H1 {
    /// A connection of which `ahead` was read already. Its buffers are the thread's, lent until [`H1::part`].
    pub fn new(stream: Stream, ahead: Option<Vec<u8>>, spare: &Spare) -> H1 {
        H1 {
            stream,
            input: ahead.unwrap_or_else(|| spare.buffer()),
            consumed: 0,
            output: spare.buffer(),
            body: Incoming::Done,
            chunked: false,
            continue_owed: false,
            started_ms: 0,
        }
    }

    /// Gives the buffers back; what is left is the connection.
    pub fn part(self, spare: &Spare) -> Stream {
        spare.keep_buffer(self.input);
        spare.keep_buffer(self.output);
        self.stream
    }

    /// Are bytes of the next head there already? Then its time begins now.
    pub fn begins_at_once(&mut self) -> bool {
        let ahead = !self.pending().is_empty();
        if ahead {
            self.started_ms = net::clock::now_ms();
        }
        ahead
    }

    /// What was read and not yet used.
    pub fn pending(&self) -> &[u8] {
        &self.input[self.consumed..]
    }

    /// Gets ready for a request whose head has been read.
    pub fn begin(&mut self, framing: Framing, expects_continue: bool) {
        self.body = match framing {
            Framing::None | Framing::Length(0) => Incoming::Done,
            Framing::Length(length) => Incoming::Length(length),
            Framing::Chunked => Incoming::Chunked(ChunkedDecoder::new()),
        };
        self.chunked = false;
        // A client that expects to be told gets told, even where it sends no body at all.
        self.continue_owed = expects_continue;
    }

    /// Is a `100 Continue` still owed, so that the client may not have sent its body?
    pub fn continue_is_owed(&self) -> bool {
        self.continue_owed
    }

    /// Reads more of what the client sends.
    ///
    /// # Errors
    /// The connection broke or the deadline passed.
    pub async fn fill(&mut self, bytes_max: usize, deadline: Deadline) -> Result<usize, StreamError> {
        poll_fn(|cx| self.poll_fill(cx, bytes_max, deadline)).await
    }

    /// As [`H1::fill`].
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        bytes_max: usize,
        deadline: Deadline,
    ) -> Poll<Result<usize, StreamError>> {
        self.make_room(bytes_max);
        let fresh = self.input.is_empty();
        let count = ready!(self.stream.poll_read_until(cx, &mut self.input, bytes_max, deadline))?;
        if fresh {
            self.started_ms = net::clock::now_ms();
        }
        Poll::Ready(Ok(count))
    }

    /// Reads more of what the client has sent already; none: nothing.
    ///
    /// # Errors
    /// The connection broke.
    pub fn try_fill(&mut self, bytes_max: usize) -> Result<Option<usize>, StreamError> {
        self.make_room(bytes_max);
        let fresh = self.input.is_empty();
        let count = self.stream.try_read_into(&mut self.input, bytes_max)?;
        if fresh && count.is_some() {
            self.started_ms = net::clock::now_ms();
        }
        Ok(count)
    }

    /// Forgets what was used, where that makes room for more.
    fn make_room(&mut self, bytes_max: usize) {
        if self.consumed == self.input.len() {
            self.input.clear();
            self.consumed = 0;
        } else if self.consumed > 0 && self.input.len() + bytes_max > self.input.capacity() {
            self.input.drain(..self.consumed);
            self.consumed = 0;
        }
    }

    /// When the head under way began, monotonic milliseconds.
    pub fn head_started_ms(&self) -> u64 {
        self.started_ms
    }

    pub(super) async fn read_body(
        &mut self,
        out: &mut Vec<u8>,
        deadline: Deadline,
    ) -> Result<usize, BodyError> {
        poll_fn(|cx| match self.poll_read_body(cx, out) {
            Poll::Pending => self.stream.poll_expired(cx, deadline).map(|()| Err(BodyError::TimedOut)),
            ready => ready,
        })
        .await
    }

    pub(super) fn poll_read_body(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) -> Poll<Result<usize, BodyError>> {
        if std::mem::take(&mut self.continue_owed) && self.pending().is_empty() {
            self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if !self.output.is_empty() {
            ready!(self.poll_flush(cx)).map_err(|_| BodyError::Closed)?;
        }
        loop {
            if let Some(count) = self.take_body(out)? {
                return Poll::Ready(Ok(count));
            }
            // What is body for certain goes where it is wanted.
            if let Incoming::Length(left) = &mut self.body {
                let room = out.capacity().saturating_sub(out.len()).max(BODY_READ_BYTES);
                let wanted = usize::try_from(*left).unwrap_or(usize::MAX).min(room);
                let Ok(count @ 1..) = ready!(self.stream.poll_read_into(cx, out, wanted)) else {
                    return Poll::Ready(Err(BodyError::Closed));
                };
                *left = left.saturating_sub(count as u64);
                if *left == 0 {
                    self.body = Incoming::Done;
                }
                return Poll::Ready(Ok(count));
            }
            self.make_room(BODY_READ_BYTES);
            let read = ready!(self.stream.poll_read_into(cx, &mut self.input, BODY_READ_BYTES));
            if !matches!(read, Ok(1..)) {
                return Poll::Ready(Err(BodyError::Closed));
            }
        }
    }

    /// Takes body bytes out of what was read; none when more must be read first.
    pub(super) fn take_body(&mut self, out: &mut Vec<u8>) -> Result<Option<usize>, BodyError> {
        let pending = &self.input[self.consumed..];
        match &mut self.body {
            Incoming::Done => Ok(Some(0)),
            _ if pending.is_empty() => Ok(None),
            Incoming::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(pending.len());
                out.extend_from_slice(&pending[..count]);
                self.consumed += count;
                *left -= count as u64;
                if *left == 0 {
                    self.body = Incoming::Done;
                }
                Ok(Some(count))
            }
            Incoming::Chunked(decoder) => {
                match decoder.next_piece(pending).map_err(|_| BodyError::Malformed)? {
                    Chunk::NeedMore => {
                        self.consumed = self.input.len();
                        Ok(None)
                    }
                    Chunk::Data(range) => {
                        out.extend_from_slice(&pending[range.clone()]);
                        self.consumed += range.end;
                        Ok(Some(range.len()))
                    }
                    Chunk::End { consumed } => {
                        self.consumed += consumed;
                        self.body = Incoming::Done;
                        Ok(Some(0))
                    }
                }
            }
        }
    }

    /// Puts a small piece of the body behind what waits to be sent; none where it is too large for that. Returns how
    /// many bytes it takes with its framing.
    pub(super) fn join(&mut self, bytes: &[u8]) -> Option<u64> {
        if self.output.len() + bytes.len() > JOIN_BYTES_MAX {
            return None;
        }
        let before = self.output.len();
        if !bytes.is_empty() {
            self.open_chunk(bytes.len());
            self.output.extend_from_slice(bytes);
            self.output.extend_from_slice(self.chunk_end());
        }
        Some((self.output.len() - before) as u64)
    }

    /// As [`super::Driver::poll_send`].
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<(usize, u64), net::errno::Errno>> {
        if self.output.len() >= JOIN_BYTES_MAX {
            ready!(self.poll_flush(cx))?;
        }
        let count = bytes.len().min(JOIN_BYTES_MAX - self.output.len());
        let wire_bytes = self.join(bytes.get(..count).unwrap_or_default()).unwrap_or(0);
        // What does not leave now leaves with what follows.
        if let Poll::Ready(Err(errno)) = self.poll_flush(cx) {
            return Poll::Ready(Err(errno));
        }
        Poll::Ready(Ok((count, wire_bytes)))
    }

    fn open_chunk(&mut self, length: usize) {
        if self.chunked {
            http::chunked::chunk_header(length, &mut self.output);
        }
    }

    fn chunk_end(&self) -> &'static [u8] {
        if self.chunked { b"\r\n" } else { b"" }
    }

    pub(super) async fn send(&mut self, bytes: &[u8], deadline: Deadline) -> Result<u64, StreamError> {
        if let Some(count) = self.join(bytes) {
            return Ok(count);
        }
        let before = self.output.len();
        self.open_chunk(bytes.len());
        let end = self.chunk_end();
        let framing = (self.output.len() - before + end.len()) as u64;
        let mut parts = [IoSlice::new(&self.output), IoSlice::new(bytes), IoSlice::new(end)];
        self.stream.write_all(&mut parts, deadline).await?;
        self.output.clear();
        Ok(bytes.len() as u64 + framing)
    }

    pub(super) async fn send_file(
        &mut self,
        range: &FileRange,
        chunk_bytes_max: usize,
        deadline: Deadline,
    ) -> Result<u64, StreamError> {
        let mut sent = 0;
        if self.chunked {
            http::chunked::chunk_header(range.length as usize, &mut self.output);
        }
        // A small file leaves in one write with its head.
        if range.length <= (JOIN_BYTES_MAX - self.output.len().min(JOIN_BYTES_MAX)) as u64 {
            read_range(range, &mut self.output)?;
            sent += range.length;
        } else {
            if !self.output.is_empty() {
                let taken = self.stream.try_write_ahead(&self.output);
                self.flush_rest(taken, deadline).await?;
            }
            let Some(file) = &range.file.file else { return Err(StreamError::Os(net::errno::Errno::ISDIR)) };
            let count =
                self.stream.sendfile(file, range.offset, range.length, chunk_bytes_max, deadline).await?;
            sent += count;
            if count < range.length {
                return Err(StreamError::Os(net::errno::Errno::IO));
            }
        }
        if self.chunked {
            self.output.extend_from_slice(b"\r\n");
        }
        Ok(sent)
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// The connection broke or the deadline passed.
    pub async fn flush(&mut self, deadline: Deadline) -> Result<(), StreamError> {
        if self.output.is_empty() {
            return Ok(());
        }
        let taken = self.stream.try_writev(&[IoSlice::new(&self.output)]);
        self.flush_rest(taken, deadline).await
    }

    /// As [`H1::flush`], where nothing follows and the connection ends now.
    ///
    /// # Errors
    /// As [`H1::flush`].
    pub(super) async fn flush_last(&mut self, deadline: Deadline) -> Result<(), StreamError> {
        if self.output.is_empty() {
            return Ok(());
        }
        let taken = self.stream.try_write_last(&self.output);
        self.flush_rest(taken, deadline).await
    }

    /// Writes what a first try has left of what waits.
    async fn flush_rest(
        &mut self,
        taken: Result<Option<usize>, StreamError>,
        deadline: Deadline,
    ) -> Result<(), StreamError> {
        let rest = match taken {
            Ok(taken) => self.output.get(taken.unwrap_or(0)..).unwrap_or_default(),
            Err(_) => b"",
        };
        let written = match taken {
            Err(error) => Err(error),
            Ok(_) if rest.is_empty() => Ok(()),
            // A client that does not keep up is worth a box of its own.
            Ok(_) => Box::pin(self.stream.write_all(&mut [IoSlice::new(rest)], deadline)).await,
        };
        self.output.clear();
        written
    }

    pub(super) async fn flush_part(
        &mut self,
        bytes_max: u64,
        deadline: Deadline,
    ) -> Result<u64, StreamError> {
        let count = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(self.output.len());
        self.stream.write_all(&mut [IoSlice::new(&self.output[..count])], deadline).await?;
        self.output.drain(..count);
        Ok(self.output.len() as u64)
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), net::errno::Errno>> {
        while !self.output.is_empty() {
            let written = ready!(self.stream.poll_writev(cx, &[IoSlice::new(&self.output)]));
            match written {
                Ok(count) => drop(self.output.drain(..count)),
                Err(errno) => {
                    self.output.clear();
                    return Poll::Ready(Err(errno));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and drops the rest of the request's body, so that the next request can be found behind it.
    /// False when that cannot be done within the limits: the connection ends then.
    pub async fn discard_body(&mut self, bytes_max: u64, time: Duration, pause: Duration) -> bool {
        let mut dropped = Vec::new();
        let mut total = 0u64;
        let end = Deadline::after(time);
        while !matches!(self.body, Incoming::Done) {
            if self.continue_owed && self.pending().is_empty() {
                return false;
            }
            self.continue_owed = false;
            dropped.clear();
            match self.read_body(&mut dropped, Deadline::after(pause).min(end)).await {
                Ok(0) => {}
                Ok(count) => total += count as u64,
                Err(_) => return false,
            }
            if total > bytes_max {
                return false;
            }
        }
        true
    }
}
