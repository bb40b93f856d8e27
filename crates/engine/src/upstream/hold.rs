//! What an upstream has sent and the client has not taken yet: in memory first, then in a temporary file.
//!
//! ```text
//!   upstream -> [ file, while memory is full ] -> [ memory ] -> client
//! ```
//!
//! Older bytes are in memory, newer ones in the file; while the file holds anything, new bytes go behind it.
//! A file that cannot be made or written is no reason to give up: the upstream then waits for the client.

use super::Settings;
use super::incoming::{Cut, Incoming};
use net::file::FileError;
use net::file::temporary::{Keep, TemporaryFile, TemporaryFolder};
use std::io::IoSlice;
use std::task::{Context, Poll, ready};

/// How much goes to the file, and comes back from it, at once, bytes.
const FILE_PIECE_BYTES: usize = 64 * 1024;
/// After so many reads in a row others have their turn.
const READS_MAX: usize = 8;

/// See the module's text.
pub(super) struct Hold {
    memory: Vec<u8>,
    memory_bytes_max: usize,
    file: Option<TemporaryFile>,
    /// What of the file is to be sent still.
    file_start: u64,
    file_end: u64,
    file_bytes_max: u64,
    folder: TemporaryFolder,
    /// What a full disk did not take: behind the file's bytes.
    overflow: Vec<u8>,
    scratch: Vec<u8>,
    /// Something to be logged.
    pub event: Option<HoldEvent>,
}

/// What happened to the temporary file.
pub(super) enum HoldEvent {
    /// It was made.
    Spilled(Vec<u8>),
    /// It could not be made or written; its path where it has one.
    Failed(Vec<u8>, FileError),
}

impl Hold {
    /// Holds what came with the head.
    pub fn new(first: Vec<u8>, settings: &Settings, folder: TemporaryFolder) -> Hold {
        Hold {
            memory: first,
            memory_bytes_max: settings.held_bytes_max(),
            file: None,
            file_start: 0,
            file_end: 0,
            file_bytes_max: settings.file_bytes_max(),
            folder,
            overflow: Vec::new(),
            scratch: Vec::new(),
            event: None,
        }
    }

    /// The oldest bytes held, in exchange for an empty buffer; false when nothing is held.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub fn take(&mut self, out: &mut Vec<u8>) -> Result<bool, FileError> {
        out.clear();
        if !self.memory.is_empty() {
            std::mem::swap(out, &mut self.memory);
            return Ok(true);
        }
        let Some(file) = self.file.as_ref().filter(|_| self.file_start < self.file_end) else {
            std::mem::swap(out, &mut self.overflow);
            return Ok(!out.is_empty());
        };
        let length = (self.file_end - self.file_start).min(FILE_PIECE_BYTES as u64) as usize;
        out.resize(length, 0);
        let count = file.read_at(out, self.file_start)?;
        out.truncate(count);
        self.file_start += count as u64;
        if self.file_start >= self.file_end {
            (self.file_start, self.file_end) = (0, 0);
        }
        Ok(count > 0)
    }

    /// Takes up to about `bytes_max` of what comes from the upstream while the client is busy with `busy_bytes`; ready at
    /// the end of the body.
    /// Pending when nothing comes, and when there is no room: the client's progress is the reason to ask again.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        incoming: &mut Incoming,
        busy_bytes: usize,
        bytes_max: usize,
    ) -> Poll<Result<(), Cut>> {
        let end = incoming.body_bytes.saturating_add(bytes_max as u64);
        for _ in 0..READS_MAX {
            if incoming.is_over() {
                return Poll::Ready(Ok(()));
            }
            let allowed = usize::try_from(end - incoming.body_bytes.min(end)).unwrap_or(usize::MAX);
            if allowed == 0 {
                return Poll::Pending;
            }
            let room = self.memory_bytes_max.saturating_sub(busy_bytes + self.memory.len());
            if self.file_end == 0 && self.overflow.is_empty() && room > 0 {
                ready!(incoming.poll_read(cx, &mut self.memory, room.min(allowed)))?;
            } else if self.file_end < self.file_bytes_max {
                let mut scratch = std::mem::take(&mut self.scratch);
                let read = incoming.poll_read(cx, &mut scratch, FILE_PIECE_BYTES.min(allowed));
                if !scratch.is_empty() {
                    self.store(&scratch);
                }
                scratch.clear();
                self.scratch = scratch;
                ready!(read)?;
            } else {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Is there no room, so that the upstream is not to blame for its silence?
    pub fn is_full(&self, busy_bytes: usize) -> bool {
        self.memory.len() + busy_bytes >= self.memory_bytes_max && self.file_end >= self.file_bytes_max
    }

    /// Puts bytes behind those in the file. What the file does not take stays in memory, and nothing more is read
    /// until the client has caught up.
    fn store(&mut self, bytes: &[u8]) {
        if let Err(error) = self.write(bytes) {
            let path = self.file.as_ref().map(|file| file.path().to_vec()).unwrap_or_default();
            self.event = Some(HoldEvent::Failed(path, error));
            // From here on the upstream waits for the client.
            self.file_bytes_max = 0;
            self.overflow.extend_from_slice(bytes);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        if self.file.is_none() {
            let made = self.folder.create(Keep::No)?;
            self.event = Some(HoldEvent::Spilled(made.path().to_vec()));
            self.file = Some(made);
        }
        let Some(file) = &self.file else { return Ok(()) };
        file.write_at(&mut [IoSlice::new(bytes)], self.file_end)?;
        self.file_end += bytes.len() as u64;
        Ok(())
    }
}
