//! Bytes from one connection to another without a copy in between: socket to pipe to socket, inside the kernel.
//!
//! For bodies that nobody looks at. Bytes that are in the pipe are in no buffer of ours: a pipe that is not
//! empty belongs to the two connections until it is.

use crate::errno::Errno;
use crate::stream::{Stream, StreamError};
use crate::timer::Deadline;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

/// How much a pipe should hold; the kernel may give less to processes that have many.
const PIPE_BYTES: usize = 256 * 1024;

/// The way from one connection to another. Reusable once empty.
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held_bytes: usize,
    holds_bytes_max: usize,
}

/// Which side ended a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpliceError {
    /// The side that is read from.
    Read(StreamError),
    /// The side that is written to.
    Write(StreamError),
}

impl Pipe {
    /// A new, empty one.
    pub fn new() -> Result<Pipe, Errno> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // What pipes hold by default, where no more is given.
        let holds_bytes_max = fcntl_setpipe_size(&write, PIPE_BYTES).unwrap_or(65_536);
        Ok(Pipe { read, write, held_bytes: 0, holds_bytes_max })
    }

    /// True when no bytes are under way in it.
    pub fn is_empty(&self) -> bool {
        self.held_bytes == 0
    }

    /// Moves what is there, at most `len` bytes and one filling of the pipe; waits for the first byte, and until
    /// all that was taken is written. Returns how many bytes, 0 when the peer has ended its side.
    pub async fn move_some(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        len: u64,
        read_deadline: Deadline,
        mut write_deadline: Deadline,
    ) -> Result<u64, SpliceError> {
        if self.is_empty() {
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(self.holds_bytes_max);
            self.held_bytes = poll_fn(|cx| {
                let filled = self.poll_fill(cx, from, len).map_err(StreamError::Os);
                from.or_timed_out(cx, read_deadline, filled)
            })
            .await
            .map_err(SpliceError::Read)?;
        }
        let moved = self.held_bytes as u64;
        while self.held_bytes > 0 {
            let count = poll_fn(|cx| {
                let drained = self.poll_drain(cx, to).map_err(StreamError::Os);
                to.or_timed_out(cx, write_deadline, drained)
            })
            .await
            .map_err(SpliceError::Write)?;
            self.held_bytes -= count.min(self.held_bytes);
            write_deadline.progressed();
        }
        tokio::task::consume_budget().await;
        Ok(moved)
    }

    /// Socket to pipe. The pipe is empty, so that `EAGAIN` speaks of the socket.
    fn poll_fill(&self, cx: &mut Context<'_>, from: &mut Stream, len: usize) -> Poll<Result<usize, Errno>> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        loop {
            let socket = from.plain_socket().ok_or(Errno::INVAL)?;
            ready!(socket.poll_readable_maybe(cx))?;
            match splice(&socket.fd, None, &self.write, None, len, flags) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => socket.now_empty(),
                Err(errno) => return Poll::Ready(Err(errno)),
            }
        }
    }

    /// Pipe to socket. The pipe is not empty, so that `EAGAIN` speaks of the socket.
    fn poll_drain(&self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<Result<usize, Errno>> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        loop {
            let socket = to.plain_socket().ok_or(Errno::INVAL)?;
            ready!(socket.poll_room(cx))?;
            match splice(&self.read, None, &socket.fd, None, self.held_bytes, flags) {
                Ok(0) => return Poll::Ready(Err(Errno::IO)),
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => socket.now_full(),
                Err(errno) => return Poll::Ready(Err(errno)),
            }
        }
    }
}
