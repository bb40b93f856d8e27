//! Temporary files for bodies that do not fit in memory (`client_body_temp_path`, `proxy_temp_path` ...).
//!
//! A file is made under a number that no other has, in folders named by the last digits of it (`levels`, so
//! that no folder grows too large), with mode 0600, and its name is removed at once: whatever happens to the
//! process, nothing stays on the disk.
//!
//! A file without a name is lent again when it is not too large: to write over what is in memory already costs a fifth
//! of what the system takes for finding new room and giving it back. What an earlier body has left in it, nobody reads:
//! whoever has a file knows how much was written to it.

use super::FileError;
use crate::errno::Errno;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{pread, pwritev};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The number of the next file, process-wide. It need not be unpredictable: `O_EXCL` decides.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// How far the number jumps when a file with it exists already, as after a restart of a process that kept its
/// files: far beyond those that are there.
const JUMP: u32 = 123_456;

/// How many numbers are tried before giving up.
const ATTEMPTS_MAX: u32 = 1000;

/// The most files without a name that a thread keeps for the next body.
const SPARE_FILES_MAX: usize = 4;

/// A file that has become larger than this is not kept, bytes.
const SPARE_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

thread_local! {
    static SPARE: RefCell<Vec<Spare>> = const { RefCell::new(Vec::new()) };
}

/// A file that waits for the next body.
struct Spare {
    file: Rc<File>,
    /// The folder in which it had its name.
    folder: Vec<u8>,
}

/// A folder for temporary files, with the lengths of the digits that name its sub-folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemporaryFolder {
    /// Where, without a slash at the end.
    pub path: Vec<u8>,
    /// Digits per level, outermost first; 0 ends the list. nginx's `1 2` is `[1, 2, 0]`.
    pub levels: [u8; 3],
}

/// A temporary file, open for reading and writing.
#[derive(Debug)]
pub struct TemporaryFile {
    file: Rc<File>,
    path: Vec<u8>,
    /// How much of the path names the folder, bytes.
    folder_bytes: usize,
    keep: Keep,
    /// The furthest that was written, bytes.
    end: Cell<u64>,
}

/// What happens to the name of a temporary file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Removed at once.
    No,
    /// Removed when the file is dropped (`client_body_in_file_only clean`).
    UntilDropped,
    /// Stays (`client_body_in_file_only on`).
    Yes,
}

impl TemporaryFolder {
    /// Makes the folder itself, mode 0700, if it is not there; with an owner for when the process starts as
    /// root and works as somebody else.
    pub fn prepare(&self, owner: Option<u32>) -> Result<(), FileError> {
        match rustix::fs::mkdir(&self.path[..], Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(FileError { call: "mkdir()", errno }),
        }
        let Some(owner) = owner else { return Ok(()) };
        let stat = rustix::fs::stat(&self.path[..]).map_err(FileError::of("stat()"))?;
        if stat.st_uid != owner {
            let owner = rustix::fs::Uid::from_raw(owner);
            rustix::fs::chown(&self.path[..], Some(owner), None).map_err(FileError::of("chown()"))?;
        }
        Ok(())
    }

    /// Makes a file. `No space left on device` and the like come back as they are.
    pub fn create(&self, keep: Keep) -> Result<TemporaryFile, FileError> {
        let made = |file: Rc<File>, path: Vec<u8>| TemporaryFile {
            file,
            path,
            folder_bytes: self.path.len(),
            keep,
            end: Cell::new(0),
        };
        if keep == Keep::No
            && let Some(file) = self.spare()
        {
            // A name of its own, although it never had it: messages tell bodies apart by it.
            return Ok(made(file, self.path_of(NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(1))));
        }
        let mut step = 1;
        for _ in 0..ATTEMPTS_MAX {
            let number = NEXT.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
            let path = self.path_of(number);
            match self.open_new(&path) {
                Ok(file) => {
                    if keep == Keep::No {
                        // Where it cannot be removed it stays; the body matters more.
                        let _ = rustix::fs::unlink(&path[..]);
                    }
                    return Ok(made(Rc::new(file), path));
                }
                Err(FileError { errno: Errno::EXIST, .. }) => step = JUMP,
                Err(error) => return Err(error),
            }
        }
        Err(FileError { call: "open()", errno: Errno::EXIST })
    }

    /// A file of this folder that another body is done with.
    fn spare(&self) -> Option<Rc<File>> {
        SPARE.with_borrow_mut(|spare| {
            let place = spare.iter().rposition(|spare| spare.folder == self.path)?;
            Some(spare.swap_remove(place).file)
        })
    }

    /// `PATH/4/23/0000001234` for levels `1 2`: each level takes digits from the end.
    fn path_of(&self, number: u32) -> Vec<u8> {
        let name = format!("{number:010}");
        let digits = name.as_bytes();
        let mut path = self.path.clone();
        let mut end = digits.len();
        for level in self.levels.iter().take_while(|level| **level > 0) {
            let start = end.saturating_sub(usize::from(*level));
            path.push(b'/');
            path.extend_from_slice(&digits[start..end]);
            end = start;
        }
        path.push(b'/');
        path.extend_from_slice(digits);
        path
    }

    fn open_new(&self, path: &[u8]) -> Result<File, FileError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let open = || openat(CWD, path, flags, Mode::RUSR | Mode::WUSR).map(File::from);
        match open() {
            Err(Errno::NOENT) => {
                self.prepare(None)?;
                self.make_levels(path)?;
                open().map_err(FileError::of("open()"))
            }
            result => result.map_err(FileError::of("open()")),
        }
    }

    fn make_levels(&self, path: &[u8]) -> Result<(), FileError> {
        let mut end = self.path.len();
        for level in self.levels.iter().take_while(|level| **level > 0) {
            end += usize::from(*level) + 1;
            match rustix::fs::mkdir(&path[..end], Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(FileError { call: "mkdir()", errno }),
            }
        }
        Ok(())
    }
}

impl TemporaryFile {
    /// The file, for `sendfile`.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The name it has or had, for messages and `$request_body_file`.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Writes all parts from `offset` on. A full disk is `pwrite() failed (28: No space left on device)`; what
    /// was written before it is undefined then.
    pub fn write_at(&self, parts: &mut [IoSlice<'_>], offset: u64) -> Result<u64, FileError> {
        let mut parts = parts;
        let mut written = 0;
        IoSlice::advance_slices(&mut parts, 0);
        // A file that a write has failed on serves nobody else.
        let end = self.end.replace(u64::MAX);
        let call = if parts.len() > 1 { "pwritev()" } else { "pwrite()" };
        while !parts.is_empty() {
            match pwritev(&self.file, &parts[..parts.len().min(1024)], offset + written) {
                // A file never takes nothing; said so that the loop ends whatever the file system does.
                Ok(0) => return Err(FileError { call, errno: Errno::IO }),
                Ok(count) => {
                    written += count as u64;
                    IoSlice::advance_slices(&mut parts, count);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(FileError { call, errno }),
            }
        }
        self.end.set(end.max(offset.saturating_add(written)));
        Ok(written)
    }

    /// Reads into the buffer from `offset`; returns how many bytes, 0 at the end.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, FileError> {
        loop {
            match pread(&self.file, &mut *buffer, offset) {
                Ok(count) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(FileError { call: "pread()", errno }),
            }
        }
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        match self.keep {
            Keep::Yes => {}
            Keep::UntilDropped => drop(rustix::fs::unlink(&self.path[..])),
            Keep::No if self.end.get() > SPARE_FILE_BYTES_MAX => {}
            // A thread that ends keeps nothing.
            Keep::No => drop(SPARE.try_with(|spare| {
                let mut spare = spare.borrow_mut();
                if spare.len() < SPARE_FILES_MAX {
                    let folder = self.path[..self.folder_bytes].to_vec();
                    spare.push(Spare { file: self.file.clone(), folder });
                }
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    fn folder(name: &str, levels: [u8; 3]) -> TemporaryFolder {
        let path = std::env::temp_dir().join(format!("gapura-net-temp-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        TemporaryFolder { path: path.as_os_str().as_bytes().to_vec(), levels }
    }

    #[test]
    fn names_take_their_levels_from_the_last_digits() {
        for (levels, number, expected) in [
            ([0, 0, 0], 7, "/t/0000000007"),
            ([1, 2, 0], 1234, "/t/4/23/0000001234"),
            ([3, 0, 0], 4_294_967_295, "/t/295/4294967295"),
            ([1, 1, 1], 987, "/t/7/8/9/0000000987"),
        ] {
            let folder = TemporaryFolder { path: b"/t".to_vec(), levels };
            assert_eq!(folder.path_of(number), expected.as_bytes());
        }
    }

    #[test]
    fn a_body_goes_out_and_comes_back_and_leaves_no_name() {
        let folder = folder("body", [1, 2, 0]);
        folder.prepare(None).expect("it can be made");
        folder.prepare(None).expect("making it again changes nothing");
        let file = folder.create(Keep::No).expect("there is room");
        let parts = &mut [IoSlice::new(b""), IoSlice::new(b"hello "), IoSlice::new(b"world")];
        assert_eq!(file.write_at(parts, 3), Ok(11));
        let mut buffer = [0; 32];
        assert_eq!(file.read_at(&mut buffer, 9), Ok(5));
        assert_eq!(&buffer[..5], b"world");
        assert_eq!(file.read_at(&mut buffer, 14), Ok(0));
        assert!(rustix::fs::stat(file.path()).is_err(), "the name is gone at once");

        let kept = folder.create(Keep::UntilDropped).expect("there is room");
        let path = kept.path().to_vec();
        let mode = rustix::fs::stat(&path[..]).expect("the name is there").st_mode;
        assert_eq!(mode & 0o777, 0o600);
        drop(kept);
        assert!(rustix::fs::stat(&path[..]).is_err());
        std::fs::remove_dir_all(std::str::from_utf8(&folder.path).expect("ASCII")).expect("it is ours");
    }

    #[test]
    fn a_file_without_a_name_is_lent_again_under_another() {
        let folder = folder("again", [1, 0, 0]);
        folder.prepare(None).expect("it can be made");
        let inode = |file: &TemporaryFile| rustix::fs::fstat(file.file()).expect("it is open").st_ino;
        let first = folder.create(Keep::No).expect("there is room");
        let beside = folder.create(Keep::No).expect("there is room");
        assert_ne!(inode(&first), inode(&beside), "one body, one file");
        assert_eq!(first.write_at(&mut [IoSlice::new(b"a secret")], 0), Ok(8));
        let (first_inode, first_path) = (inode(&first), first.path().to_vec());
        drop(first);
        let second = folder.create(Keep::No).expect("there is room");
        assert_eq!(inode(&second), first_inode);
        assert_ne!(second.path(), first_path);
        let elsewhere = TemporaryFolder { levels: [0; 3], ..folder.clone() };
        drop(second);
        let named = elsewhere.create(Keep::UntilDropped).expect("there is room");
        assert_ne!(inode(&named), first_inode, "a file that has a name is a new one");
        let large = folder.create(Keep::No).expect("there is room");
        assert_eq!(large.write_at(&mut [IoSlice::new(b"far")], SPARE_FILE_BYTES_MAX), Ok(3));
        drop((large, beside, named));
        let after = folder.create(Keep::No).expect("there is room");
        assert_ne!(inode(&after), first_inode, "a large file is not kept");
        std::fs::remove_dir_all(std::str::from_utf8(&folder.path).expect("ASCII")).expect("it is ours");
    }

    #[test]
    fn what_the_system_refuses_is_said() {
        let mut folder = folder("missing", [1, 0, 0]);
        folder.path.extend_from_slice(b"/deeper");
        let error = folder.create(Keep::No).expect_err("what the folder stands in was never made");
        assert_eq!(error.to_string(), "mkdir() failed (2: No such file or directory)");
        let full = File::options().read(true).write(true).open("/dev/full").expect("Linux has it");
        let (file, path, end) = (Rc::new(full), Vec::new(), Cell::new(0));
        let file = TemporaryFile { file, path, folder_bytes: 0, keep: Keep::No, end };
        let error = file.write_at(&mut [IoSlice::new(b"x")], 0).expect_err("it is always full");
        assert_eq!(error.to_string(), "pwrite() failed (28: No space left on device)");
    }
}
