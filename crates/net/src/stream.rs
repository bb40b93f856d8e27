//! A connection: reading, writing, `sendfile`, watching for an early close, and the ways to end it.
//!
//! Built so that the usual exchange costs the fewest system calls:
//!
//! - a write is tried before waiting for writability, and so is the first read of an accepted connection;
//! - a read that returns less than asked for is not tried again until the kernel reports readiness (the usual
//!   second `read` that only says `EAGAIN` is not made); what the kernel reported about the end of the stream is
//!   kept, so that data and end arriving together are both seen;
//! - time limits share one lazily moved timer ([`crate::timer`]).
//!
//! All operations take the stream mutably: a connection belongs to one task. To do two things at once, use the
//! `poll_` functions from one `poll_fn`.

mod ending;

use crate::address::Address;
use crate::errno::{Errno, ErrnoMessage, errno_of};
use crate::sockopt::{self, TcpInfo};
use crate::timer::{Deadline, Timer};
use rustix::net::{RecvFlags, SendFlags};
use std::fmt;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

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

/// A connection on this thread's runtime. Dropping it closes it.
pub struct Stream {
    socket: AsyncFd<OwnedFd>,
    layer: Layer,
    /// The next read is tried without waiting: data was seen waiting.
    read_at_once: bool,
    /// The last write did not take everything: wait for room before the next.
    write_is_full: bool,
    timer: Timer,
    peer: Address,
    local: Option<Address>,
}

/// What stands between the application's bytes and the socket. A protocol that transforms them (TLS) becomes a
/// variant that holds its session; the functions that match on it are the `raw_` ones below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Tcp,
    Unix,
}

impl Stream {
    /// Takes a connected, non-blocking stream socket into this thread's runtime. `local` may be left out where
    /// it is not known without asking the system. What waits to be read already, the event loop reports with its next
    /// turn.
    ///
    /// Fails where the runtime cannot watch the descriptor (the system is out of memory or watches).
    pub fn from_fd(fd: OwnedFd, peer: Address, local: Option<Address>) -> Result<Stream, Errno> {
        let layer = match peer {
            Address::Inet(_) => Layer::Tcp,
            Address::Unix(_) => Layer::Unix,
        };
        // SAFETY: the descriptor is owned by the `AsyncFd` from here on, and an `OwnedFd` never changes its
        // number.
        let registered = unsafe { AsyncFd::register(fd) };
        let socket = registered.map_err(|error| errno_of(&error.into_parts().1))?;
        Ok(Stream {
            socket,
            layer,
            read_at_once: false,
            write_is_full: false,
            timer: Timer::new(),
            peer,
            local,
        })
    }

    /// Waits for the outcome of a `connect()` that is under way.
    pub(crate) async fn connected(&mut self, deadline: Deadline) -> Result<(), StreamError> {
        poll_fn(|cx| {
            // The kernel reports writability when the attempt has ended, one way or the other.
            let ended = match self.socket.poll_write_ready(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(error)) => Poll::Ready(Err(StreamError::Os(errno_of(&error)))),
                Poll::Ready(Ok(_)) => {
                    let outcome =
                        rustix::net::sockopt::socket_error(&self.socket).and_then(|outcome| outcome);
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
        poll_fn(|cx| {
            let read = self.poll_read_into(cx, buffer, bytes_max).map_err(StreamError::Os);
            self.or_timed_out(cx, deadline, read)
        })
        .await
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
                tokio::task::consume_budget().await;
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
        if self.write_is_full && !self.is_ready(Interest::WRITABLE) {
            return Ok(None);
        }
        Ok(self.writev_once(parts)?)
    }

    /// Reads what is there without waiting; `None` when there is nothing. After a short read it says `None`
    /// without asking the system until the event loop has reported readiness.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, ReadError> {
        if !self.read_at_once && !self.is_ready(Interest::READABLE) {
            return Ok(None);
        }
        // SAFETY: initialised bytes are valid where uninitialised are allowed, and only what `read` filled is
        // written.
        let buffer = unsafe { &mut *(buffer as *mut [u8] as *mut [MaybeUninit<u8>]) };
        Ok(self.read_once(buffer)?)
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
                tokio::task::yield_now().await;
            } else {
                tokio::task::consume_budget().await;
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
        buffer.reserve(bytes_max.max(1));
        let room = &mut buffer.spare_capacity_mut()[..bytes_max.max(1)];
        let count = ready!(self.poll_read_uninit(cx, room))?;
        // SAFETY: `poll_read_uninit` filled the first `count` bytes of the spare capacity, and `count` is no
        // more than its length.
        unsafe { buffer.set_len(buffer.len() + count) };
        Poll::Ready(Ok(count))
    }

    /// Ready with the number of bytes the socket took, at least one unless the parts are empty.
    pub fn poll_writev(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<Result<usize, Errno>> {
        loop {
            ready!(self.poll_room(cx))?;
            if let Some(count) = self.writev_once(parts)? {
                return Poll::Ready(Ok(count));
            }
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
        loop {
            ready!(self.poll_room(cx))?;
            let mut position = offset;
            match rustix::fs::sendfile(&self.socket, file, Some(&mut position), len) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.now_full(),
                Err(errno) => return Poll::Ready(Err(errno)),
            }
        }
    }

    /// Ready once the deadline has passed; shares the connection's one timer.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>, deadline: Deadline) -> Poll<()> {
        self.timer.poll_expired(cx, deadline)
    }

    /// Ready when there is something to read (or the end of the data, or an error), without reading it.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Errno>> {
        loop {
            if self.read_at_once || ready!(self.poll_ready_to_read(cx))? {
                match self.peek() {
                    Ok(_) => {
                        self.read_at_once = true;
                        return Poll::Ready(Ok(()));
                    }
                    Err(Errno::AGAIN) => self.now_empty(),
                    Err(errno) => return Poll::Ready(Err(errno)),
                }
            }
        }
    }

    /// Waits until there is something to read; reads nothing.
    pub async fn readable(&mut self, deadline: Deadline) -> Result<(), ReadError> {
        poll_fn(|cx| {
            let ready = self.poll_readable(cx).map_err(StreamError::Os);
            self.or_timed_out(cx, deadline, ready)
        })
        .await
    }

    /// Ready once the peer has closed or broken the connection; bytes it sent before stay unread. For watching
    /// a client while its request is worked on (nginx answers such a close with status 499).
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        loop {
            let guard = match ready!(self.socket.poll_read_ready(cx)) {
                Ok(guard) => guard,
                Err(error) => return Poll::Ready(Closed::Broken(errno_of(&error))),
            };
            let read_closed = guard.ready().is_read_closed();
            drop(guard);
            match self.peek() {
                Ok(0) => return Poll::Ready(Closed::Ended),
                // The end stands behind bytes that nobody has read yet.
                Ok(_) if read_closed => return Poll::Ready(Closed::Ended),
                Ok(_) => {
                    self.read_at_once = true;
                    self.clear(Interest::READABLE);
                }
                Err(Errno::AGAIN) => self.clear(Interest::READABLE),
                Err(errno) => return Poll::Ready(Closed::Broken(errno)),
            }
        }
    }

    /// Waits until the peer closes or breaks the connection.
    pub async fn closed(&mut self) -> Closed {
        poll_fn(|cx| self.poll_closed(cx)).await
    }

    /// Asks the system, without waiting, whether an idle connection can still be used: false when the peer has
    /// closed it or has sent something nobody asked for. For connections kept open to a back end.
    pub fn is_idle_and_open(&self) -> bool {
        matches!(self.peek(), Err(Errno::AGAIN))
    }

    /// As [`Stream::is_idle_and_open`], from what the event loop has reported so far: asks the system only where
    /// something has happened on a connection whose last read emptied it.
    pub fn seems_idle_and_open(&self) -> bool {
        let stirred = self.read_at_once || self.is_ready(Interest::READABLE);
        !stirred || self.is_idle_and_open()
    }

    /// Waits until the event loop reports that there may be something to read. Asks the system nothing: what
    /// follows is a read, which waits on where the report was early.
    pub async fn stirred(&mut self, deadline: Deadline) -> Result<(), ReadError> {
        poll_fn(|cx| {
            let ready = self.poll_readable_maybe(cx).map_err(StreamError::Os);
            self.or_timed_out(cx, deadline, ready)
        })
        .await
    }

    /// Where the peer is.
    pub fn peer_address(&self) -> &Address {
        &self.peer
    }

    /// Our end's address; asks the system once where it is not known (a listener on all addresses).
    pub fn local_address(&mut self) -> &Address {
        let socket = &self.socket;
        self.local.get_or_insert_with(|| {
            rustix::net::getsockname(socket).map_or(Address::unix(b""), Address::from_any)
        })
    }

    /// What nginx's `$tcpinfo_*` variables show; `None` for unix sockets.
    pub fn tcp_info(&self) -> Option<TcpInfo> {
        match self.layer {
            Layer::Tcp => sockopt::tcp_info(self.as_fd()),
            Layer::Unix => None,
        }
    }

    /// The timer, for waits that are not I/O on this stream.
    pub fn timer(&mut self) -> &mut Timer {
        &mut self.timer
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

    fn poll_read_uninit(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Poll<Result<usize, Errno>> {
        debug_assert!(!buffer.is_empty(), "an empty buffer would read as the end of the data");
        loop {
            ready!(self.poll_readable_maybe(cx))?;
            if let Some(count) = self.read_once(buffer)? {
                return Poll::Ready(Ok(count));
            }
        }
    }

    /// One `read`; `None` where nothing is there.
    fn read_once(&mut self, buffer: &mut [MaybeUninit<u8>]) -> Result<Option<usize>, Errno> {
        let was_at_once = std::mem::take(&mut self.read_at_once);
        loop {
            // `recv` and `send` take a shorter way through the kernel than `read` and `write`.
            match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok(((filled, rest), _)) => {
                    let count = filled.len();
                    // A short read has emptied the socket; the end of the data must stay visible.
                    if count > 0 && !rest.is_empty() {
                        self.clear(Interest::READABLE);
                    } else if count > 0 {
                        // All of the buffer was filled: more may be there although the event loop, which may
                        // not have run since, does not know.
                        self.read_at_once = was_at_once;
                    }
                    return Ok(Some(count));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.clear(Interest::READABLE);
                    return Ok(None);
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    /// One `writev`; `None` where the socket takes nothing.
    fn writev_once(&mut self, parts: &[IoSlice<'_>]) -> Result<Option<usize>, Errno> {
        /// `IOV_MAX` on Linux; more in one call is an error.
        const PARTS_MAX: usize = 1024;
        let parts = &parts[..parts.len().min(PARTS_MAX)];
        loop {
            let result = match parts {
                [part] => rustix::net::send(&self.socket, part, SendFlags::NOSIGNAL),
                parts => rustix::io::writev(&self.socket, parts),
            };
            match result {
                Ok(count) => {
                    if count < parts.iter().map(|part| part.len()).sum() {
                        self.now_full();
                    }
                    return Ok(Some(count));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.now_full();
                    return Ok(None);
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    pub(crate) fn now_full(&mut self) {
        self.write_is_full = true;
        self.clear(Interest::WRITABLE);
    }

    /// Ready when a write is worth trying.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Errno>> {
        if self.write_is_full {
            let guard = ready!(self.socket.poll_write_ready(cx)).map_err(|error| errno_of(&error))?;
            drop(guard);
            self.write_is_full = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when a read is worth trying.
    pub(crate) fn poll_readable_maybe(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Errno>> {
        if !self.read_at_once {
            ready!(self.poll_ready_to_read(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// A read found nothing.
    pub(crate) fn now_empty(&mut self) {
        self.read_at_once = false;
        self.clear(Interest::READABLE);
    }

    /// Ready (with true) when the event loop has reported something to read.
    fn poll_ready_to_read(&self, cx: &mut Context<'_>) -> Poll<Result<bool, Errno>> {
        // Dropping the guard keeps the readiness.
        self.socket.poll_read_ready(cx).map(|result| match result {
            Ok(_) => Ok(true),
            Err(error) => Err(errno_of(&error)),
        })
    }

    fn peek(&self) -> Result<usize, Errno> {
        let mut byte = [0];
        loop {
            match rustix::net::recv(&self.socket, &mut byte[..], RecvFlags::PEEK) {
                Ok((_, count)) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Forgets the readiness the event loop reported, but for the end of the data: the runtime keeps that.
    /// Correct because nothing on this thread can report newer readiness between a system call and this.
    fn clear(&self, interest: Interest) {
        let _ = self.socket.try_io(interest, |_| -> io::Result<()> { Err(io::ErrorKind::WouldBlock.into()) });
    }

    fn is_ready(&self, interest: Interest) -> bool {
        self.socket.try_io(interest, |_| Ok(())).is_ok()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Stream({})", self.peer)
    }
}
