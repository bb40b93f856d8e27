//! Bytes from one connection to another without a copy in between: socket to pipe to socket, inside the kernel.
//!
//! For bodies that nobody looks at. A pipe is borrowed for one turn and empty before and after it: what the second
//! connection does not take at once comes out as ordinary bytes. So one pipe serves all connections of a thread. What is
//! to leave first (the head) leaves once the pipe holds something, so that it may wait in the kernel for what follows.

use crate::errno::Errno;
use crate::stream::{Stream, StreamError};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::io::IoSlice;
use std::os::fd::OwnedFd;

/// How much a pipe should hold; the kernel may give less to processes that have many.
const PIPE_BYTES: usize = 256 * 1024;

/// The way from one connection to another.
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    holds_bytes_max: usize,
}

/// Which side ended a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpliceError {
    /// The side that is read from.
    Read(StreamError),
    /// The side that is written to.
    Write(StreamError),
    /// The pipe.
    Pipe(Errno),
}

/// What a turn has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// What came, bytes; 0 when the peer has ended its side.
    pub taken: usize,
    /// What of it is on its way, bytes. The rest is in the buffer.
    pub passed: usize,
    /// What was to leave before it and did, bytes.
    pub led: usize,
}

impl Pipe {
    /// A new, empty one.
    pub fn new() -> Result<Pipe, Errno> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // What pipes hold by default, where no more is given.
        let holds_bytes_max = fcntl_setpipe_size(&write, PIPE_BYTES).unwrap_or(65_536);
        Ok(Pipe { read, write, holds_bytes_max })
    }

    /// Moves what is there, at most `bytes_max` and one filling of the pipe, without waiting; `None` where nothing is.
    /// `lead` leaves before it and shares packets with it. What the other side does not take of what came is appended to
    /// `rest`. Both must be plain connections, nothing of which was read ahead or is still to be written. After an error
    /// of a side the pipe may not be empty: drop it.
    pub fn move_at_hand(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        bytes_max: usize,
        lead: [&[u8]; 2],
        rest: &mut Vec<u8>,
    ) -> Result<Option<Moved>, SpliceError> {
        let len = bytes_max.min(self.holds_bytes_max);
        let filled = self.fill(from, len).map_err(|errno| SpliceError::Read(StreamError::Os(errno)))?;
        let Some(taken) = filled else { return Ok(None) };
        let mut moved = Moved { taken, passed: 0, led: 0 };
        let refused = |errno| SpliceError::Write(StreamError::Os(errno));
        let lead_bytes = lead[0].len() + lead[1].len();
        if taken > 0 && lead_bytes > 0 {
            let socket = to.plain_socket().ok_or(refused(Errno::INVAL))?;
            let parts = [IoSlice::new(lead[0]), IoSlice::new(lead[1])];
            moved.led = socket.send_ahead_once(&parts).map_err(refused)?.unwrap_or(0);
        }
        while moved.led == lead_bytes && moved.passed < taken {
            match self.drain(to, taken - moved.passed).map_err(refused)? {
                Some(count) => moved.passed += count,
                None => break,
            }
        }
        self.empty(taken - moved.passed, rest).map_err(SpliceError::Pipe)?;
        Ok(Some(moved))
    }

    /// Socket to pipe. The pipe is empty, so that `EAGAIN` speaks of the socket.
    fn fill(&self, from: &mut Stream, len: usize) -> Result<Option<usize>, Errno> {
        let socket = from.plain_socket().ok_or(Errno::INVAL)?;
        loop {
            match splice(&socket.fd, None, &self.write, None, len, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)
            {
                Ok(count) => return Ok(Some(count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    socket.now_empty();
                    return Ok(None);
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Pipe to socket. The pipe is not empty, so that `EAGAIN` speaks of the socket.
    fn drain(&self, to: &mut Stream, len: usize) -> Result<Option<usize>, Errno> {
        let socket = to.plain_socket().ok_or(Errno::INVAL)?;
        loop {
            match splice(&self.read, None, &socket.fd, None, len, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => return Ok(Some(count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    socket.now_full();
                    return Ok(None);
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Takes so many bytes out of the pipe.
    fn empty(&self, bytes: usize, rest: &mut Vec<u8>) -> Result<(), Errno> {
        let start = rest.len();
        rest.resize(start + bytes, 0);
        let mut filled = start;
        while filled < rest.len() {
            match rustix::io::read(&self.read, &mut rest[filled..]) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}
