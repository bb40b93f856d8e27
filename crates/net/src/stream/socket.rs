//! The socket under a stream: system calls, and what is known of its readiness.

use super::readiness::Readiness;
use super::{Closed, foresight};
use crate::errno::Errno;
use crate::event_loop::watch::Direction;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

/// A connected, non-blocking stream socket of this thread's event loop.
pub(crate) struct Socket {
    /// Declared before the descriptor, so that it is dropped first.
    readiness: Readiness,
    pub(crate) fd: OwnedFd,
    /// Not a unix socket.
    pub(crate) is_tcp: bool,
    /// `TCP_NODELAY` was set.
    pub(crate) is_prompt: bool,
    /// The next read is tried without waiting: the connection is new, or data was seen waiting.
    pub(crate) read_at_once: bool,
    /// That read is the first one, and what comes of it is worth remembering.
    pub(crate) read_is_guess: bool,
    /// The last write did not take everything: wait for room before the next.
    pub(crate) write_is_full: bool,
    /// The kernel holds the last bytes until our side ends.
    pub(crate) holds_last: bool,
}

impl Socket {
    /// Nothing is watched before something is waited for.
    pub(crate) fn new(fd: OwnedFd, is_tcp: bool) -> Socket {
        Socket {
            readiness: Readiness::default(),
            fd,
            is_tcp,
            is_prompt: false,
            read_at_once: false,
            read_is_guess: false,
            write_is_full: false,
            holds_last: false,
        }
    }

    pub(crate) fn poll_read_uninit(
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
    pub(crate) fn read_once(&mut self, buffer: &mut [MaybeUninit<u8>]) -> Result<Option<usize>, Errno> {
        let was_at_once = std::mem::take(&mut self.read_at_once);
        let was_guess = std::mem::take(&mut self.read_is_guess);
        loop {
            // `recv` and `send` take a shorter way through the kernel than `read` and `write`.
            match rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::empty()) {
                Ok(((filled, rest), _)) => {
                    let count = filled.len();
                    if was_guess {
                        foresight::tell(true);
                    }
                    // A short read has emptied the socket; the end of the data must stay visible.
                    if count > 0 && !rest.is_empty() {
                        self.clear(Direction::Read);
                    } else if count > 0 {
                        // All of the buffer was filled: more may be there although the event loop, which may
                        // not have run since, does not know.
                        self.read_at_once = was_at_once;
                    }
                    return Ok(Some(count));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if was_guess {
                        foresight::tell(false);
                    }
                    self.clear(Direction::Read);
                    return Ok(None);
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    /// One `writev`; `None` where the socket takes nothing.
    pub(crate) fn writev_once(&mut self, parts: &[IoSlice<'_>]) -> Result<Option<usize>, Errno> {
        /// `IOV_MAX` on Linux; more in one call is an error.
        const PARTS_MAX: usize = 1024;
        let parts = &parts[..parts.len().min(PARTS_MAX)];
        let len = parts.iter().map(|part| part.len()).sum();
        self.write_once(len, |fd| match parts {
            [part] => rustix::net::send(fd, part, SendFlags::NOSIGNAL),
            parts => rustix::io::writev(fd, parts),
        })
    }

    /// One `sendmsg` of bytes that others follow at once: the kernel holds a packet that they do not fill. `None` where
    /// the socket takes nothing.
    pub(crate) fn send_ahead_once(&mut self, parts: &[IoSlice<'_>]) -> Result<Option<usize>, Errno> {
        let flags = SendFlags::NOSIGNAL | SendFlags::MORE;
        let len = parts.iter().map(|part| part.len()).sum();
        self.write_once(len, |fd| match parts {
            [part] => rustix::net::send(fd, part, flags),
            parts => rustix::net::sendmsg(fd, parts, &mut SendAncillaryBuffer::default(), flags),
        })
    }

    fn write_once(
        &mut self,
        len: usize,
        write: impl Fn(&OwnedFd) -> Result<usize, Errno>,
    ) -> Result<Option<usize>, Errno> {
        loop {
            match write(&self.fd) {
                Ok(count) => {
                    if count < len {
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
        self.clear(Direction::Write);
    }

    /// Ready when a write is worth trying.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Errno>> {
        if self.write_is_full {
            ready!(self.poll_ready_to_write(cx))?;
            self.write_is_full = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the event loop has reported room for a write.
    pub(crate) fn poll_ready_to_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Errno>> {
        self.readiness.begin(&self.fd)?.poll_ready(cx, Direction::Write).map(|_| Ok(()))
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
        self.clear(Direction::Read);
    }

    /// Ready when the event loop has reported something to read; true: the end of the peer's data as well.
    pub(crate) fn poll_ready_to_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Errno>> {
        self.readiness.begin(&self.fd)?.poll_ready(cx, Direction::Read).map(Ok)
    }

    pub(crate) fn peek(&self) -> Result<usize, Errno> {
        let mut byte = [0];
        loop {
            match rustix::net::recv(&self.fd, &mut byte[..], RecvFlags::PEEK) {
                Ok((_, count)) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Forgets the readiness the event loop reported, but for the end of the data.
    pub(crate) fn clear(&self, direction: Direction) {
        if let Some(watch) = self.readiness.watch() {
            watch.clear(direction);
        }
    }

    /// Has the event loop reported readiness? Of a socket that it does not watch the system must be asked.
    pub(crate) fn is_ready(&self, direction: Direction) -> bool {
        self.readiness.watch().is_none_or(|watch| watch.is_ready(direction))
    }

    /// Ready with the number of bytes the socket took.
    pub(crate) fn poll_writev(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Errno>> {
        loop {
            ready!(self.poll_room(cx))?;
            if let Some(count) = self.writev_once(parts)? {
                return Poll::Ready(Ok(count));
            }
        }
    }

    /// One `sendfile` call; ready with its count.
    pub(crate) fn poll_sendfile(
        &mut self,
        cx: &mut Context<'_>,
        file: &File,
        offset: u64,
        len: usize,
    ) -> Poll<Result<usize, Errno>> {
        loop {
            ready!(self.poll_room(cx))?;
            let mut position = offset;
            match rustix::fs::sendfile(&self.fd, file, Some(&mut position), len) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.now_full(),
                Err(errno) => return Poll::Ready(Err(errno)),
            }
        }
    }

    /// Ready once the peer has closed or broken the connection.
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        ready!(self.readiness.poll_patient(cx));
        loop {
            let read_closed = match ready!(self.poll_ready_to_read(cx)) {
                Ok(read_closed) => read_closed,
                Err(errno) => return Poll::Ready(Closed::Broken(errno)),
            };
            match self.peek() {
                Ok(0) => return Poll::Ready(Closed::Ended),
                // The end stands behind bytes that nobody has read yet.
                Ok(_) if read_closed => return Poll::Ready(Closed::Ended),
                Ok(_) => {
                    self.read_at_once = true;
                    self.clear(Direction::Read);
                }
                Err(Errno::AGAIN) => self.clear(Direction::Read),
                Err(errno) => return Poll::Ready(Closed::Broken(errno)),
            }
        }
    }
}
