//! TLS between a stream and its socket: what the stream reads and writes while records travel.
//!
//! A write counts as done once its records are the kernel's: until then the stream repeats it with the same bytes,
//! and the session remembers how many of them are in records already. Reads that ask for much take much from the
//! socket in one call; small ones take what the library's own buffer holds. When nothing comes the library keeps
//! only its smallest buffer.

use super::words;
use crate::errno::{Errno, errno_of};
use crate::stream::socket::Socket;
use rustls::{Connection, Error};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// How much plain text waits in records for the socket at most, bytes.
const RECORDS_BYTES_MAX: usize = 128 * 1024;
/// Reads that ask for more than this go through the thread's own buffer, bytes: the library reads no more at once.
const SMALL_READ_BYTES: usize = 4096;
/// The most plain text that one record holds, bytes (RFC 8446 section 5.1).
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// The most that is taken from a socket or a file in one call, bytes.
const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    /// Encrypted bytes on their way in, or a file's on their way out; used within one call, so one does for all.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One TLS connection behind its handshake.
pub(crate) struct Session {
    connection: Connection,
    /// Bytes of the write under way that are in records already.
    accepted: usize,
    /// There is decrypted data that nobody has read yet.
    has_data: bool,
    /// Nothing more is to be said: the end was said, or the connection broke.
    silent: bool,
    /// What came ahead of the end of the handshake, until it is read and the handshake done.
    early: Option<Box<Early>>,
    /// What is wrong with what the peer sent, once something is.
    failure: Option<Box<Error>>,
}

/// Data that a client sent ahead (0-RTT, RFC 8446 section 2.3).
struct Early {
    /// It, which the library bounds; and how much of it was handed out.
    data: Vec<u8>,
    given: usize,
    /// Is the handshake still to be finished?
    unfinished: Rc<Cell<bool>>,
}

impl Early {
    fn rest(&self) -> &[u8] {
        self.data.get(self.given..).unwrap_or_default()
    }
}

/// Moves what a client sent ahead of the end of its handshake to the end of `early`.
pub(super) fn take_early_data(connection: &mut Connection, early: &mut Vec<u8>) {
    if let Connection::Server(server) = connection
        && let Some(mut data) = server.early_data()
    {
        // It is in memory: reading it does not fail.
        let _ = data.read_to_end(early);
    }
}

impl Session {
    /// Goes on with a connection whose handshake is done, or which has sent data ahead of that: `early`.
    pub(crate) fn new(mut connection: Connection, early: Vec<u8>) -> Session {
        connection.set_buffer_limit(Some(RECORDS_BYTES_MAX));
        let unfinished = Rc::new(Cell::new(connection.is_handshaking()));
        let has_data = !early.is_empty() || connection.reader().fill_buf().is_ok_and(|data| !data.is_empty());
        let early = (!early.is_empty()).then(|| Box::new(Early { data: early, given: 0, unfinished }));
        Session { connection, accepted: 0, has_data, silent: false, early, failure: None }
    }

    /// Tells, now and later, whether the handshake is still to be finished; none: it was done first.
    pub(crate) fn unfinished(&self) -> Option<Rc<Cell<bool>>> {
        self.early.as_ref().map(|early| early.unfinished.clone())
    }

    /// What was wrong with what the peer sent, in OpenSSL's words.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.as_deref().map(words::of)
    }

    /// Is there decrypted data that nobody has read yet?
    pub(crate) fn has_data(&self) -> bool {
        self.has_data
    }

    /// Ready with the number of bytes read, 0 at the end of the peer's data.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
        room: &mut [MaybeUninit<u8>],
    ) -> Poll<Result<usize, Errno>> {
        loop {
            if let Some(count) = self.take(room)? {
                return Poll::Ready(Ok(count));
            }
            // What is owed (tickets, an answer to a change of keys) leaves at the latest when we begin to wait.
            if self.connection.wants_write() && !socket.write_is_full {
                self.write_records(socket)?;
            }
            ready!(socket.poll_readable_maybe(cx))?;
            if let Some(count @ 1..) = self.receive(socket, room)? {
                return Poll::Ready(Ok(count));
            }
        }
    }

    /// Reads what is there; `None` where nothing is.
    pub(crate) fn try_read(
        &mut self,
        socket: &mut Socket,
        room: &mut [MaybeUninit<u8>],
    ) -> Result<Option<usize>, Errno> {
        loop {
            if let Some(count) = self.take(room)? {
                return Ok(Some(count));
            }
            match self.receive(socket, room)? {
                None => return Ok(None),
                Some(0) => {}
                count => return Ok(count),
            }
        }
    }

    /// Hands out decrypted data; `None` where there is none yet, 0 at the end.
    fn take(&mut self, room: &mut [MaybeUninit<u8>]) -> Result<Option<usize>, Errno> {
        let mut filled = self.take_early(room);
        let mut reader = self.connection.reader();
        while filled < room.len() {
            let chunk = match reader.fill_buf() {
                Ok([]) => break,
                Ok(chunk) => chunk,
                Err(error) if filled == 0 && error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // An end without goodbye is an end all the same, as nginx has it: lengths tell whether all came.
                Err(_) => break,
            };
            let count = put(chunk, &mut room[filled..]);
            reader.consume(count);
            filled += count;
        }
        let has_early = self.early.as_ref().is_some_and(|early| !early.rest().is_empty());
        self.has_data = has_early || reader.fill_buf().is_ok_and(|data| !data.is_empty());
        Ok(Some(filled))
    }

    /// Hands out what came ahead of the end of the handshake; when that is all and the handshake done, nothing of it
    /// is kept.
    fn take_early(&mut self, room: &mut [MaybeUninit<u8>]) -> usize {
        let Some(early) = &mut self.early else { return 0 };
        let count = put(early.rest(), room);
        early.given += count;
        if early.rest().is_empty() {
            early.data = Vec::new();
            early.given = 0;
            if !early.unfinished.get() {
                self.early = None;
            }
        }
        count
    }

    /// Takes what the socket has and decrypts it. Returns how many bytes of plain text went into the room, which may
    /// be none; `None` where the socket has nothing.
    fn receive(&mut self, socket: &mut Socket, room: &mut [MaybeUninit<u8>]) -> Result<Option<usize>, Errno> {
        // A record that is there in part may add its plain text.
        let wanted = room.len().saturating_sub(RECORD_BYTES_MAX).min(SCRATCH_BYTES);
        if wanted <= SMALL_READ_BYTES {
            return match self.connection.read_tls(&mut Wire(socket)) {
                Ok(_) => self.decrypt(socket).map(|()| Some(0)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(errno_of(&error)),
            };
        }
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            scratch.reserve(SCRATCH_BYTES);
            let Some(count) = socket.read_once(&mut scratch.spare_capacity_mut()[..wanted])? else {
                return Ok(None);
            };
            // SAFETY: `read_once` filled the first `count` bytes of the spare capacity of an empty vector.
            unsafe { scratch.set_len(count) };
            let mut rest = &scratch[..];
            let mut filled = 0;
            loop {
                // Plain text is taken out at once: the library accepts nothing while much of it is unread.
                self.connection.read_tls(&mut rest).map_err(|error| errno_of(&error))?;
                self.decrypt(socket)?;
                if self.has_data {
                    filled += self.take(&mut room[filled..])?.unwrap_or_default();
                }
                if rest.is_empty() {
                    return Ok(Some(filled));
                }
            }
        })
    }

    fn decrypt(&mut self, socket: &mut Socket) -> Result<(), Errno> {
        match self.connection.process_new_packets() {
            Ok(state) => {
                self.has_data = state.plaintext_bytes_to_read() > 0;
                if let Some(early) = &mut self.early {
                    take_early_data(&mut self.connection, &mut early.data);
                    self.has_data |= !early.rest().is_empty();
                    early.unfinished.set(self.connection.is_handshaking());
                }
                Ok(())
            }
            Err(error) => {
                // The alert that says why.
                let _ = self.write_records(socket);
                self.silent = true;
                self.failure = Some(Box::new(error));
                Err(Errno::PROTO)
            }
        }
    }

    /// Ready with the number of bytes whose records the kernel has.
    pub(crate) fn poll_writev(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Errno>> {
        self.encrypt(parts)?;
        ready!(self.poll_flush(cx, socket))?;
        Poll::Ready(Ok(std::mem::take(&mut self.accepted)))
    }

    /// As [`Session::poll_writev`] without waiting.
    pub(crate) fn try_writev(
        &mut self,
        socket: &mut Socket,
        parts: &[IoSlice<'_>],
    ) -> Result<Option<usize>, Errno> {
        self.encrypt(parts)?;
        Ok(self.write_records(socket)?.then(|| std::mem::take(&mut self.accepted)))
    }

    /// As [`Session::poll_writev`], for bytes of a file; 0 where the file has ended.
    pub(crate) fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
        file: &File,
        offset: u64,
        len: usize,
    ) -> Poll<Result<usize, Errno>> {
        if self.accepted == 0 {
            let read = SCRATCH.with_borrow_mut(|scratch| -> Result<usize, Errno> {
                scratch.resize(SCRATCH_BYTES, 0);
                let count = read_at(file, &mut scratch[..len.min(SCRATCH_BYTES)], offset)?;
                self.encrypt(&[IoSlice::new(&scratch[..count])])?;
                Ok(count)
            })?;
            if read == 0 {
                return Poll::Ready(Ok(0));
            }
        }
        ready!(self.poll_flush(cx, socket))?;
        Poll::Ready(Ok(std::mem::take(&mut self.accepted)))
    }

    /// Puts bytes of a new write into records; those of a write that is repeated are in there.
    fn encrypt(&mut self, parts: &[IoSlice<'_>]) -> Result<(), Errno> {
        if self.accepted == 0 {
            self.accepted = self.connection.writer().write_vectored(parts).map_err(|_| Errno::PIPE)?;
        }
        Ok(())
    }

    /// Ready when the kernel has all records.
    pub(crate) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
    ) -> Poll<Result<(), Errno>> {
        loop {
            ready!(socket.poll_room(cx))?;
            if self.write_records(socket)? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Writes records until the socket takes no more; true when all are written.
    pub(crate) fn write_records(&mut self, socket: &mut Socket) -> Result<bool, Errno> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Wire(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => {
                    self.silent = true;
                    return Err(errno_of(&error));
                }
            }
        }
        Ok(true)
    }

    /// Can a connection that nobody uses still be used? Looks at what came: tickets and the like are no reason
    /// against it.
    pub(crate) fn is_idle_and_open(&mut self, socket: &mut Socket) -> bool {
        loop {
            match self.connection.reader().fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return false,
            }
            match self.receive(socket, &mut []) {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Tells the peer, once and without waiting, that our data ends here.
    pub(crate) fn say_goodbye(&mut self, socket: &mut Socket) {
        if std::mem::replace(&mut self.silent, true) {
            return;
        }
        self.connection.send_close_notify();
        let _ = self.write_records(socket);
    }

    /// Says nothing more.
    pub(crate) fn keep_silent(&mut self) {
        self.silent = true;
    }
}

/// Copies as much as there is room for; returns how much.
fn put(bytes: &[u8], room: &mut [MaybeUninit<u8>]) -> usize {
    let count = bytes.len().min(room.len());
    for (place, byte) in room[..count].iter_mut().zip(bytes) {
        place.write(*byte);
    }
    count
}

/// One `pread`.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read.map_err(|error| errno_of(&error)),
        }
    }
}

/// The socket as the library wants it.
pub(crate) struct Wire<'a>(pub(crate) &'a mut Socket);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: initialised bytes are valid where uninitialised are allowed, and only what `read` filled is
        // written.
        let buffer = unsafe { &mut *(buffer as *mut [u8] as *mut [MaybeUninit<u8>]) };
        self.0.read_once(buffer)?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.writev_once(parts)?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
