//! A connection: reading, writing, `sendfile`, watching for an early close, and the ways to end it.
//!
//! Built so that the usual exchange costs the fewest system calls:
//!
//! - a write is tried before waiting for writability, and so is the first read of an accepted connection; the event loop
//!   watches a socket from the first wait on ([`readiness`]);
//! - a read that returns less than asked for is not tried again until the kernel reports readiness (the usual
//!   second `read` that only says `EAGAIN` is not made); what the kernel reported about the end of the stream is
//!   kept, so that data and end arriving together are both seen;
//! - time limits share one lazily moved timer ([`crate::timer`]).
//!
//! All operations take the stream mutably: a connection belongs to one task. To do two things at once, use the
//! `poll_` functions from one `poll_fn`.

mod ending;
mod foresight;
mod readiness;
pub(crate) mod socket;

use crate::address::Address;
use crate::errno::{Errno, ErrnoMessage};
use crate::event_loop::watch::Direction;
use crate::sockopt::{self, TcpInfo};
use crate::thread;
use crate::timer::{Deadline, Timer};
use crate::tls::session::Session;
use socket::Socket;
use std::fmt;
use std::fs::File;
use std::future::poll_fn;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

/// Why an operation on a stream ended without success. The end of the peer's data is not an error: reads
/// return 0 then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// The deadline passed; nginx prints `110: Connection timed out` for it.
    TimedOut,
    /// The system refused.
    Os(Errno),
}

/// Why a read failed.
pub type ReadError = StreamError;
/// Why a write failed.
pub type WriteError = StreamError;

impl StreamError {
    /// The error number; `ETIMEDOUT` for a deadline, as nginx logs it.
    pub fn errno(&self) -> Errno {
        match self {
            StreamError::TimedOut => Errno::TIMEDOUT,
            StreamError::Os(errno) => *errno,
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        ErrnoMessage(self.errno()).fmt(out)
    }
}

impl From<Errno> for StreamError {
    fn from(errno: Errno) -> StreamError {
        StreamError::Os(errno)
    }
}

/// How [`Stream::poll_closed`] learned that the peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The peer ended its side in order.
    Ended,
    /// The connection broke.
    Broken(Errno),
}

/// A connection on this thread's event loop. Dropping it closes it.
pub struct Stream {
    pub(crate) socket: Socket,
    pub(crate) layer: Layer,
    timer: Timer,
}

/// What stands between the application's bytes and the socket. The operations that match on it are the ones that
/// move bytes or speak of bytes that are there; the rest is the socket's alone.
pub(crate) enum Layer {
    /// Nothing.
    Plain,
    /// TLS. Boxed, so that plain connections do not carry its size.
    Tls(Box<Session>),
}

impl Stream {
    /// Takes a connected, non-blocking stream socket into this thread's event loop, which watches it from the first wait
    /// on. The stream does not keep the peer's address: whoever needs it, has it.
    pub fn from_fd(fd: OwnedFd, peer: &Address) -> Stream {
        Stream { socket: Socket::new(fd, peer.inet().is_some()), layer: Layer::Plain, timer: Timer::new() }
    }

    /// The connection was just accepted: where its peer is likely to have spoken already, the first read is tried without
    /// waiting.
    pub fn expect_data(&mut self) {
        self.socket.read_at_once = foresight::has_spoken();
        self.socket.read_is_guess = self.socket.read_at_once;
    }

    /// Waits for the outcome of a `connect()` that is under way.
    pub(crate) async fn connected(&mut self, deadline: Deadline) -> Result<(), StreamError> {
        poll_fn(|cx| {
            // The kernel reports writability when the attempt has ended, one way or the other.
            let ended = match self.socket.poll_ready_to_write(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(errno)) => Poll::Ready(Err(StreamError::Os(errno))),
                Poll::Ready(Ok(())) => {
                    let outcome =
                        rustix::net::sockopt::socket_error(&self.socket.fd).and_then(|outcome| outcome);
                    Poll::Ready(outcome.map_err(StreamError::Os))
                }
            };
            self.or_timed_out(cx, deadline, ended)
        })
        .await
    }

    /// Reads at least one byte into the buffer, or returns 0 at the end of the peer's data. The buffer must not
    /// be empty.
    pub async fn read(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<usize, ReadError> {
        poll_fn(|cx| {
            let read = self.poll_read(cx, buffer).map_err(StreamError::Os);
            self.or_timed_out(cx, deadline, read)
        })
        .await
    }

    /// Reads up to `bytes_max` bytes behind what the buffer holds; returns how many, 0 at the end of the peer's
    /// data. Room is reserved as needed, none is initialised first.
    pub async fn read_into(
        &mut self,
        buffer: &mut Vec<u8>,
        bytes_max: usize,
        deadline: Deadline,
    ) -> Result<usize, ReadError> {
        poll_fn(|cx| self.poll_read_until(cx, buffer, bytes_max, deadline)).await
    }

    /// Writes all parts, with as few `writev` calls as the socket allows.
    pub async fn write_all(
        &mut self,
        parts: &mut [IoSlice<'_>],
        mut deadline: Deadline,
    ) -> Result<(), WriteError> {
        let mut parts = parts;
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let written = self.write_some(parts, deadline).await?;
            IoSlice::advance_slices(&mut parts, written);
            if !parts.is_empty() {
                deadline.progressed();
                thread::consume_budget().await;
            }
        }
        Ok(())
    }

    /// Writes what the socket takes at once, at least one byte; waits for room where there is none.
    pub async fn write_some(
        &mut self,
        parts: &[IoSlice<'_>],
        deadline: Deadline,
    ) -> Result<usize, WriteError> {
        poll_fn(|cx| {
            let written = self.poll_writev(cx, parts).map_err(StreamError::Os);
            self.or_timed_out(cx, deadline, written)
        })
        .await
    }

    /// Writes what the socket takes without waiting; `None` when it takes nothing now.
    pub fn try_writev(&mut self, parts: &[IoSlice<'_>]) -> Result<Option<usize>, WriteError> {
        if self.socket.write_is_full && !self.socket.is_ready(Direction::Write) {
            return Ok(None);
        }
        match &mut self.layer {
            Layer::Plain => Ok(self.socket.writev_once(parts)?),
            Layer::Tls(session) => Ok(session.try_writev(&mut self.socket, parts)?),
        }
    }

    /// As [`Stream::try_writev`] for bytes that a file follows at once: over plain TCP both share packets.
    pub fn try_write_ahead(&mut self, bytes: &[u8]) -> Result<Option<usize>, WriteError> {
        match self.layer {
            Layer::Plain if !self.socket.write_is_full => {
                Ok(self.socket.send_ahead_once(&[IoSlice::new(bytes)])?)
            }
            _ => self.try_writev(&[IoSlice::new(bytes)]),
        }
    }

    /// As [`Stream::try_writev`] for the last bytes of a connection that ends now: over plain TCP the end travels in the
    /// packet that holds them, and they wait for it in the kernel.
    pub fn try_write_last(&mut self, bytes: &[u8]) -> Result<Option<usize>, WriteError> {
        let taken = self.try_write_ahead(bytes)?;
        self.socket.holds_last = self.is_plain() && taken == Some(bytes.len());
        Ok(taken)
    }

    /// Reads what is there without waiting; `None` when there is nothing. After a short read it says `None`
    /// without asking the system until the event loop has reported readiness.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, ReadError> {
        if !self.has_data_or_news() {
            return Ok(None);
        }
        // SAFETY: initialised bytes are valid where uninitialised are allowed, and only what `read` filled is
        // written.
        let buffer = unsafe { &mut *(buffer as *mut [u8] as *mut [MaybeUninit<u8>]) };
        match &mut self.layer {
            Layer::Plain => Ok(self.socket.read_once(buffer)?),
            Layer::Tls(session) => Ok(session.try_read(&mut self.socket, buffer)?),
        }
    }

    /// Appends to the buffer what is there without waiting, at most `bytes_max` bytes, as [`Stream::try_read`] does.
    pub fn try_read_into(
        &mut self,
        buffer: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<Option<usize>, ReadError> {
        if !self.has_data_or_news() {
            return Ok(None);
        }
        Ok(self.read_once_into(buffer, bytes_max)?)
    }

    /// One read behind what the buffer holds; `None` where nothing is there.
    fn read_once_into(&mut self, buffer: &mut Vec<u8>, bytes_max: usize) -> Result<Option<usize>, Errno> {
        let room = room_in(buffer, bytes_max);
        let read = match &mut self.layer {
            Layer::Plain => self.socket.read_once(room)?,
            Layer::Tls(session) => session.try_read(&mut self.socket, room)?,
        };
        // SAFETY: reading filled the first bytes of the spare capacity, as many as it says, which are no more than
        // its length.
        unsafe { buffer.set_len(buffer.len() + read.unwrap_or(0)) };
        Ok(read)
    }

    /// Sends `len` bytes of a file from `offset`, in calls of at most `chunk_bytes_max` (nginx's
    /// `sendfile_max_chunk`; other connections are served between two chunks). Returns how many were sent: less
    /// than `len` only where the file ended early.
    pub async fn sendfile(
        &mut self,
        file: &File,
        offset: u64,
        len: u64,
        chunk_bytes_max: usize,
        mut deadline: Deadline,
    ) -> Result<u64, WriteError> {
        let mut sent = 0;
        while sent < len {
            let chunk = usize::try_from(len - sent).unwrap_or(usize::MAX).min(chunk_bytes_max.max(1));
            let count = poll_fn(|cx| {
                let count = self.poll_sendfile(cx, file, offset + sent, chunk).map_err(StreamError::Os);
                self.or_timed_out(cx, deadline, count)
            })
            .await?;
            if count == 0 {
                break;
            }
            sent += count as u64;
            deadline.progressed();
            if count == chunk && sent < len {
                thread::yield_now().await;
            } else {
                thread::consume_budget().await;
            }
        }
        Ok(sent)
    }

    /// Ready with the number of bytes read, 0 at the end. See [`Stream::read`].
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, Errno>> {
        // SAFETY: as in `try_read`.
        let buffer = unsafe { &mut *(buffer as *mut [u8] as *mut [MaybeUninit<u8>]) };
        self.poll_read_uninit(cx, buffer)
    }

    /// Ready with the number of bytes appended to the buffer, 0 at the end. See [`Stream::read_into`].
    pub fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Poll<Result<usize, Errno>> {
        if let Layer::Plain = self.layer {
            loop {
                // No room is made before something comes: many connections wait, each with a buffer of its own.
                ready!(self.socket.poll_readable_maybe(cx))?;
                if let Some(count) = self.read_once_into(buffer, bytes_max)? {
                    return Poll::Ready(Ok(count));
                }
            }
        }
        let room = room_in(buffer, bytes_max);
        let count = ready!(self.poll_read_uninit(cx, room))?;
        // SAFETY: `poll_read_uninit` filled the first `count` bytes of the spare capacity, and `count` is no
        // more than its length.
        unsafe { buffer.set_len(buffer.len() + count) };
        Poll::Ready(Ok(count))
    }

    /// Ready with the number of bytes the socket took, at least one unless the parts are empty.
    pub fn poll_writev(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<Result<usize, Errno>> {
        match &mut self.layer {
            Layer::Plain => self.socket.poll_writev(cx, parts),
            Layer::Tls(session) => session.poll_writev(cx, &mut self.socket, parts),
        }
    }

    /// Ready with the number of bytes sent from the file, 0 where the file has ended. One `sendfile` call.
    pub fn poll_sendfile(
        &mut self,
        cx: &mut Context<'_>,
        file: &File,
        offset: u64,
        len: usize,
    ) -> Poll<Result<usize, Errno>> {
        match &mut self.layer {
            Layer::Plain => self.socket.poll_sendfile(cx, file, offset, len),
            Layer::Tls(session) => session.poll_send_file(cx, &mut self.socket, file, offset, len),
        }
    }

    /// Ready once the deadline has passed; shares the connection's one timer.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>, deadline: Deadline) -> Poll<()> {
        self.timer.poll_expired(cx, deadline)
    }

    /// Ready once the peer has closed or broken the connection; bytes it sent before stay unread. For watching
    /// a client while its request is worked on (nginx answers such a close with status 499). What happens in the first
    /// hundredths of a second may be reported a little later.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        self.socket.poll_closed(cx)
    }

    /// Waits until the peer closes or breaks the connection.
    pub async fn closed(&mut self) -> Closed {
        poll_fn(|cx| self.poll_closed(cx)).await
    }

    /// Asks the system, without waiting, whether an idle connection can still be used: false when the peer has
    /// closed it or has sent something nobody asked for. For connections kept open to a back end.
    pub fn is_idle_and_open(&mut self) -> bool {
        match &mut self.layer {
            Layer::Plain => {
                let nothing = matches!(self.socket.peek(), Err(Errno::AGAIN));
                if nothing {
                    self.socket.now_empty();
                }
                nothing
            }
            Layer::Tls(session) => session.is_idle_and_open(&mut self.socket),
        }
    }

    /// As [`Stream::is_idle_and_open`], from what the event loop has reported so far: asks the system only where
    /// something has happened on a connection whose last read emptied it.
    pub fn seems_idle_and_open(&mut self) -> bool {
        !self.has_data_or_news() || self.is_idle_and_open()
    }

    /// Is there data already, or has the event loop reported that there may be?
    pub fn has_data_or_news(&self) -> bool {
        self.has_data() || self.socket.read_at_once || self.socket.is_ready(Direction::Read)
    }

    /// Is there data that the socket has given up already?
    fn has_data(&self) -> bool {
        matches!(&self.layer, Layer::Tls(session) if session.has_data())
    }

    /// Ready once there may be something to read: there is data already, or the event loop reports it. Asks the
    /// system nothing: what follows is a read, which waits on where the report was early.
    pub fn poll_stirred(&mut self, cx: &mut Context<'_>, deadline: Deadline) -> Poll<Result<(), ReadError>> {
        let ready = if self.has_data() { Poll::Ready(Ok(())) } else { self.socket.poll_readable_maybe(cx) };
        self.or_timed_out(cx, deadline, ready.map_err(StreamError::Os))
    }

    /// As [`Stream::read_into`].
    pub fn poll_read_until(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        bytes_max: usize,
        deadline: Deadline,
    ) -> Poll<Result<usize, ReadError>> {
        let read = self.poll_read_into(cx, buffer, bytes_max).map_err(StreamError::Os);
        self.or_timed_out(cx, deadline, read)
    }

    /// Why a read failed, as nginx says it. `None`: over TLS a connection that broke counts as one that ended.
    #[cold]
    pub fn read_failure(&self, errno: Errno) -> Option<String> {
        match &self.layer {
            Layer::Plain => Some(format!("recv() failed ({})", ErrnoMessage(errno))),
            Layer::Tls(session) => {
                session.failure().map(|words| format!("SSL_read() failed (SSL: error:{words})"))
            }
        }
    }

    /// Our end's address, as the system knows it.
    pub fn local_address(&self) -> Address {
        rustix::net::getsockname(&self.socket.fd).map_or(Address::unix(b""), Address::from_any)
    }

    /// What nginx's `$tcpinfo_*` variables show; `None` for unix sockets.
    pub fn tcp_info(&self) -> Option<TcpInfo> {
        if self.socket.is_tcp { sockopt::tcp_info(self.as_fd()) } else { None }
    }

    /// The timer, for waits that are not I/O on this stream.
    pub fn timer(&mut self) -> &mut Timer {
        &mut self.timer
    }

    fn poll_read_uninit(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Poll<Result<usize, Errno>> {
        match &mut self.layer {
            Layer::Plain => self.socket.poll_read_uninit(cx, buffer),
            Layer::Tls(session) => session.poll_read(cx, &mut self.socket, buffer),
        }
    }

    /// The socket, where nothing stands between it and the application's bytes: for moving bytes past us.
    pub(crate) fn plain_socket(&mut self) -> Option<&mut Socket> {
        match self.layer {
            Layer::Plain => Some(&mut self.socket),
            Layer::Tls(_) => None,
        }
    }

    /// Does nothing stand between the socket and the application's bytes?
    pub fn is_plain(&self) -> bool {
        matches!(self.layer, Layer::Plain)
    }

    pub(crate) fn or_timed_out<T>(
        &mut self,
        cx: &mut Context<'_>,
        deadline: Deadline,
        progress: Poll<Result<T, StreamError>>,
    ) -> Poll<Result<T, StreamError>> {
        if progress.is_ready() {
            return progress;
        }
        self.timer.poll_expired(cx, deadline).map(|()| Err(StreamError::TimedOut))
    }
}

/// Room for so many bytes behind what the buffer holds.
fn room_in(buffer: &mut Vec<u8>, bytes_max: usize) -> &mut [MaybeUninit<u8>] {
    buffer.reserve(bytes_max.max(1));
    &mut buffer.spare_capacity_mut()[..bytes_max.max(1)]
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.fd.as_fd()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Stream({:?})", self.socket.fd)
    }
}
