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
    pub fn new(first: Vec<u8>, settings: &Settings) -> Hold {
        Hold {
            memory: first,
            memory_bytes_max: settings.held_bytes_max(),
            file: None,
            file_start: 0,
            file_end: 0,
            file_bytes_max: settings.file_bytes_max(),
            overflow: Vec::new(),
            scratch: Vec::new(),
            event: None,
        }
    }

    /// Is nothing held?
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.file_start >= self.file_end && self.overflow.is_empty()
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
            if self.overflow.is_empty() {
                return Ok(false);
            }
            std::mem::swap(out, &mut self.overflow);
            return Ok(true);
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
        folder: &dyn Fn() -> TemporaryFolder,
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
                    self.store(&scratch, folder);
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

    /// Its buffer, to be used again.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.memory)
    }

    /// Is there no room, so that the upstream is not to blame for its silence?
    pub fn is_full(&self, busy_bytes: usize) -> bool {
        self.memory.len() + busy_bytes >= self.memory_bytes_max && self.file_end >= self.file_bytes_max
    }

    /// Puts bytes behind those in the file. What the file does not take stays in memory, and nothing more is read
    /// until the client has caught up.
    fn store(&mut self, bytes: &[u8], folder: &dyn Fn() -> TemporaryFolder) {
        if let Err(error) = self.write(bytes, folder) {
            let path = self.file.as_ref().map(|file| file.path().to_vec()).unwrap_or_default();
            self.event = Some(HoldEvent::Failed(path, error));
            // From here on the upstream waits for the client.
            self.file_bytes_max = 0;
            self.overflow.extend_from_slice(bytes);
        }
    }

    fn write(&mut self, bytes: &[u8], folder: &dyn Fn() -> TemporaryFolder) -> Result<(), FileError> {
        if self.file.is_none() {
            let made = folder().create(Keep::No)?;
            self.event = Some(HoldEvent::Spilled(made.path().to_vec()));
            self.file = Some(made);
        }
        let Some(file) = &self.file else { return Ok(()) };
        file.write_at(&mut [IoSlice::new(bytes)], self.file_end)?;
        self.file_end += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(first: &[u8], file_bytes_max: u64) -> Hold {
        Hold {
            memory: first.to_vec(),
            memory_bytes_max: 8,
            file: None,
            file_start: 0,
            file_end: 0,
            file_bytes_max,
            overflow: Vec::new(),
            scratch: Vec::new(),
            event: None,
        }
    }

    fn folder(name: &str) -> TemporaryFolder {
        let path = std::env::temp_dir().join(format!("gapura-hold-{}-{name}", std::process::id()));
        TemporaryFolder { path: path.into_os_string().into_encoded_bytes(), levels: [0; 3] }
    }

    fn taken(hold: &mut Hold) -> Vec<u8> {
        let (mut all, mut piece) = (Vec::new(), Vec::new());
        while hold.take(&mut piece).expect("the file can be read") {
            all.extend_from_slice(&piece);
        }
        all
    }

    #[test]
    fn bytes_come_back_in_order() {
        let place = folder("order");
        let mut held = hold(b"first ", 1024);
        held.store(b"second ", &|| place.clone());
        held.store(b"third", &|| place.clone());
        assert!(matches!(held.event, Some(HoldEvent::Spilled(_))), "the file is told of");
        assert_eq!(taken(&mut held), b"first second third");
        assert_eq!((held.file_start, held.file_end), (0, 0), "the file is used again from its beginning");
        held.store(b"again", &|| place.clone());
        assert_eq!(taken(&mut held), b"again");
        let _ = std::fs::remove_dir_all(std::str::from_utf8(&place.path).expect("a path"));
    }

    #[test]
    fn a_file_that_cannot_be_made_loses_nothing() {
        let nowhere = TemporaryFolder { path: b"/proc/none/here".to_vec(), levels: [1, 2, 0] };
        let mut held = hold(b"first ", 1024);
        held.store(b"second", &|| nowhere.clone());
        assert!(matches!(held.event, Some(HoldEvent::Failed(..))), "the failure is told of");
        assert!(held.is_full(8), "nothing more is read until the client has caught up");
        assert_eq!(taken(&mut held), b"first second");
    }
}
