//! The client of a request on an HTTP/2 stream.

use super::{Shared, head};
use crate::Request;
use crate::driver::BodyError;
use crate::flow::FileRange;
use http::Fields;
use http::h2::{BodyState, Malformed};
use net::errno::Errno;
use net::stream::StreamError;
use net::timer::{Deadline, Timer};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// A stream as a request sees it.
pub struct H2 {
    shared: Rc<Shared>,
    stream: u32,
    /// `http2_chunk_size`.
    frame_bytes_max: usize,
    timer: Timer,
}

/// What a request gets to hear whose stream is over.
const GONE: StreamError = StreamError::Os(Errno::CONNRESET);

impl H2 {
    pub(super) fn new(shared: Rc<Shared>, stream: u32) -> H2 {
        H2 { shared, stream, frame_bytes_max: 1, timer: Timer::new() }
    }

    fn is_gone(&self) -> bool {
        self.shared.gone.get() || self.shared.codec.borrow().is_reset(self.stream)
    }

    /// Was the request's body read to its end?
    pub fn body_is_done(&self) -> bool {
        self.shared.codec.borrow().body_is_read(self.stream)
    }

    /// As [`crate::driver::Driver::poll_read_body`].
    pub fn poll_read_body(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) -> Poll<Result<usize, BodyError>> {
        match self.take_body(out)? {
            Some(count) => Poll::Ready(Ok(count)),
            None => {
                self.shared.watch(self.stream, cx);
                Poll::Pending
            }
        }
    }

    /// Appends what has come of the body; 0 at its end, none when more must come first.
    pub fn take_body(&mut self, out: &mut Vec<u8>) -> Result<Option<usize>, BodyError> {
        if self.shared.gone.get() {
            return Err(BodyError::Closed);
        }
        let mut codec = self.shared.codec.borrow_mut();
        let state = codec.read_body(self.stream, out);
        let says_something = !codec.output.is_empty();
        let malformed = codec.malformed(self.stream);
        drop(codec);
        if says_something {
            // Windows were opened.
            self.shared.nudge();
        }
        match state {
            BodyState::Read(count) => Ok(Some(count)),
            BodyState::Waiting => Ok(None),
            BodyState::Ended => Ok(Some(0)),
            BodyState::Reset => Err(BodyError::Closed),
            BodyState::Malformed => Err(match malformed {
                Some(Malformed::TooLong) => BodyError::LongerThanDeclared,
                Some(Malformed::TooShort { received, announced }) => {
                    BodyError::ShorterThanDeclared { received, declared: announced }
                }
                _ => BodyError::Malformed,
            }),
        }
    }

    /// The fields behind the request's body, once it was read to its end.
    pub fn request_trailers(&self) -> Fields {
        self.shared.codec.borrow().request_trailers(self.stream).cloned().unwrap_or_default()
    }

    /// As [`crate::driver::Driver::read_body`].
    pub async fn read_body(&mut self, out: &mut Vec<u8>, deadline: Deadline) -> Result<usize, BodyError> {
        poll_fn(|cx| match self.poll_read_body(cx, out) {
            Poll::Pending => self.timer.poll_expired(cx, deadline).map(|()| Err(BodyError::TimedOut)),
            ready => ready,
        })
        .await
    }

    /// Sends the response's head.
    pub fn send_head(&mut self, request: &mut Request<'_>) {
        if self.is_gone() {
            return;
        }
        self.frame_bytes_max = request.plan.core.http2_chunk_size.0;
        let length = head::encode(request, &mut self.shared.codec.borrow_mut(), self.stream) as u64;
        request.sent_head_bytes += length;
        request.sent_bytes += length;
        self.shared.nudge();
    }

    /// Sends an interim response, given in HTTP/1's form.
    pub fn send_interim(&mut self, text: &[u8]) {
        if !self.is_gone() {
            head::encode_interim(text, &mut self.shared.codec.borrow_mut(), self.stream);
            self.shared.nudge();
        }
    }

    /// Sends a small piece of the body if all of it may be sent now.
    pub fn join(&mut self, bytes: &[u8]) -> Option<u64> {
        let mut codec = self.shared.codec.borrow_mut();
        if self.shared.gone.get() || codec.room(self.stream) < bytes.len() {
            return None;
        }
        let before = codec.output.len();
        codec.send(self.stream, bytes, self.frame_bytes_max);
        let length = codec.output.len() - before;
        drop(codec);
        self.shared.nudge();
        Some(length as u64)
    }

    /// As [`crate::driver::Driver::poll_send`].
    pub fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<(usize, u64), Errno>> {
        if self.is_gone() {
            return Poll::Ready(Err(Errno::CONNRESET));
        }
        let mut codec = self.shared.codec.borrow_mut();
        if codec.room(self.stream) == 0 {
            self.shared.watch(self.stream, cx);
            return Poll::Pending;
        }
        let before = codec.output.len();
        let count = codec.send(self.stream, bytes, self.frame_bytes_max);
        let wire_bytes = (codec.output.len() - before) as u64;
        drop(codec);
        self.shared.nudge();
        Poll::Ready(Ok((count, wire_bytes)))
    }

    /// Sends a piece of the body; waits for the client's windows.
    pub async fn send(&mut self, bytes: &[u8], deadline: Deadline) -> Result<u64, StreamError> {
        let mut sent = 0;
        let mut rest = bytes;
        let mut deadline = deadline;
        while !rest.is_empty() {
            self.wait_for_room(deadline).await?;
            let mut codec = self.shared.codec.borrow_mut();
            let before = codec.output.len();
            let count = codec.send(self.stream, rest, self.frame_bytes_max);
            sent += (codec.output.len() - before) as u64;
            drop(codec);
            rest = rest.get(count..).unwrap_or_default();
            self.shared.nudge();
            deadline.progressed();
        }
        Ok(sent)
    }

    /// Sends a run of a file, read straight into the connection's output.
    pub async fn send_file(&mut self, range: &FileRange, deadline: Deadline) -> Result<u64, StreamError> {
        let mut sent = 0;
        let mut offset = range.offset;
        let mut left = range.length;
        let mut deadline = deadline;
        while left > 0 {
            self.wait_for_room(deadline).await?;
            let mut codec = self.shared.codec.borrow_mut();
            let most = codec.room(self.stream).min(self.frame_bytes_max).min(codec.frame_bytes_max());
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(most);
            let piece = FileRange { file: range.file.clone(), offset, length: length as u64 };
            let before = codec.output.len();
            codec.send_with(self.stream, length, |out| crate::driver::read_range(&piece, out))?;
            sent += (codec.output.len() - before) as u64;
            drop(codec);
            self.shared.nudge();
            offset += length as u64;
            left -= length as u64;
            deadline.progressed();
        }
        Ok(sent)
    }

    async fn wait_for_room(&mut self, deadline: Deadline) -> Result<(), StreamError> {
        poll_fn(|cx| {
            if self.is_gone() {
                return Poll::Ready(Err(GONE));
            }
            if self.shared.codec.borrow().room(self.stream) > 0 {
                return Poll::Ready(Ok(()));
            }
            self.shared.watch(self.stream, cx);
            ready!(self.timer.poll_expired(cx, deadline));
            Poll::Ready(Err(StreamError::TimedOut))
        })
        .await
    }

    /// Ends the stream.
    pub fn finish(&mut self, trailers: &Fields) -> Result<u64, StreamError> {
        if self.is_gone() {
            return Err(GONE);
        }
        let length = self.shared.codec.borrow_mut().finish(self.stream, trailers);
        self.shared.nudge();
        Ok(length as u64)
    }

    /// Is there still somebody to send to? What was sent is on its way by itself.
    pub fn flush(&mut self) -> Result<(), Errno> {
        if self.is_gone() { Err(Errno::CONNRESET) } else { Ok(()) }
    }

    /// The timer of waits on this stream.
    pub fn timer(&mut self) -> &mut Timer {
        &mut self.timer
    }

    /// Ready when the client gave the stream up or is gone.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_gone() {
            return Poll::Ready(());
        }
        self.shared.watch(self.stream, cx);
        Poll::Pending
    }
}
