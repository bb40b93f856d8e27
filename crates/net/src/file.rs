//! Files as a web server opens them: without hanging on a FIFO, with what must be known about them, and, where
//! asked for, without following other people's symbolic links.
//!
//! [`cache`] keeps descriptors and answers between requests (`open_file_cache`), [`temporary`] makes the files
//! that bodies too large for memory go to.

pub mod cache;
pub mod temporary;

use crate::errno::{Errno, ErrnoMessage};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, openat};
use rustix::io::pread;
use std::fmt;
use std::fs::File;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Why a file could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The system call that failed, as nginx names it in its messages: `open()`, `openat()`, `stat()`.
    pub call: &'static str,
    /// Its error number.
    pub errno: Errno,
}

impl FileError {
    fn of(call: &'static str) -> impl Fn(Errno) -> FileError {
        move |errno| FileError { call, errno }
    }
}

impl fmt::Display for FileError {
    /// `open() failed (2: No such file or directory)`; nginx puts the path between the call and `failed`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} failed ({})", self.call, ErrnoMessage(self.errno))
    }
}

/// What is known about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Length in bytes.
    pub size: u64,
    /// Last modification in seconds since 1970.
    pub mtime: i64,
    /// Tells one file from another under the same name (nginx's `uniq`): the inode's number.
    pub unique: u64,
    /// It is a directory.
    pub is_directory: bool,
    /// It is a regular file; neither this nor a directory means a device, FIFO or socket.
    pub is_file: bool,
    /// Its owner may execute it.
    pub is_executable: bool,
    /// Bytes it occupies on disk, in whole blocks.
    pub disk_bytes: u64,
}

impl FileInfo {
    fn of(stat: &Stat) -> FileInfo {
        let kind = FileType::from_raw_mode(stat.st_mode);
        FileInfo {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: stat.st_mtime,
            unique: stat.st_ino,
            is_directory: kind == FileType::Directory,
            is_file: kind == FileType::RegularFile,
            is_executable: stat.st_mode & 0o100 != 0,
            // The unit of `st_blocks` is 512 bytes whatever the file system's block is.
            disk_bytes: u64::try_from(stat.st_blocks).unwrap_or(0) * 512,
        }
    }
}

/// Which symbolic links may be on the way to a file (nginx's `disable_symlinks`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Symlinks {
    /// Any (`off`).
    #[default]
    Follow,
    /// Those that belong to the owner of what they point to (`if_not_owner`).
    SameOwner {
        /// How many bytes of the path are exempt (`from=`): they end before a slash.
        from_bytes: usize,
    },
    /// None (`on`).
    Refuse {
        /// How many bytes of the path are exempt (`from=`): they end before a slash.
        from_bytes: usize,
    },
}

impl Symlinks {
    /// The rule for one path, given the value of `from=` for this request. The part of a path that `from` names
    /// is not checked; a `from` that is not the beginning of the path is ignored, and one that is the whole path
    /// leaves nothing to check.
    pub fn for_path(self, path: &[u8], from: &[u8]) -> Symlinks {
        if from.is_empty() || !path.starts_with(from) {
            return self;
        }
        if from.len() == path.len() {
            return Symlinks::Follow;
        }
        let exempt = match (path[from.len()], from[from.len() - 1]) {
            (b'/', _) => from.len(),
            (_, b'/') => from.len() - 1,
            // It ends in the middle of a name.
            _ => return self,
        };
        match self {
            Symlinks::Follow => Symlinks::Follow,
            Symlinks::SameOwner { .. } => Symlinks::SameOwner { from_bytes: exempt },
            Symlinks::Refuse { .. } => Symlinks::Refuse { from_bytes: exempt },
        }
    }
}

/// An open file, or a directory that was recognised (nothing stays open of that).
#[derive(Debug)]
pub struct Opened {
    /// `None` for a directory.
    pub file: Option<FileHandle>,
    /// What is known about it.
    pub info: FileInfo,
}

/// An open file of one's own, or one that the cache shares.
#[derive(Debug)]
pub enum FileHandle {
    /// Closed when dropped.
    Own(File),
    /// Goes back to the cache when dropped.
    Cached(cache::CachedFile),
}

impl Deref for FileHandle {
    type Target = File;

    fn deref(&self) -> &File {
        match self {
            FileHandle::Own(file) => file,
            FileHandle::Cached(cached) => cached,
        }
    }
}

/// Opens a file for reading and asks what it is. A directory is recognised and closed again.
pub fn open_file(path: &[u8], symlinks: Symlinks) -> Result<Opened, FileError> {
    let fd = open_at_rule(path, symlinks, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let stat = rustix::fs::fstat(&fd).map_err(FileError::of("fstat()"))?;
    let info = FileInfo::of(&stat);
    let file = (!info.is_directory).then(|| FileHandle::Own(File::from(fd)));
    Ok(Opened { file, info })
}

/// As [`open_file`], for a path that is probably a directory (one that ends with a slash): asks first, and opens
/// only what is not one.
pub fn open_unless_directory(path: &[u8], symlinks: Symlinks) -> Result<Opened, FileError> {
    let info = file_info(path, symlinks)?;
    if info.is_directory {
        return Ok(Opened { file: None, info });
    }
    open_file(path, symlinks)
}

/// Asks what is at a path without keeping it open (`try_files`, `if (-f ...)`).
pub fn file_info(path: &[u8], symlinks: Symlinks) -> Result<FileInfo, FileError> {
    if symlinks == Symlinks::Follow {
        let stat = rustix::fs::stat(path).map_err(FileError::of("stat()"))?;
        return Ok(FileInfo::of(&stat));
    }
    let fd = open_at_rule(path, symlinks, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let stat = rustix::fs::fstat(&fd).map_err(FileError::of("fstat()"))?;
    Ok(FileInfo::of(&stat))
}

/// How many names of a directory are read at most.
const DIRECTORY_NAMES_MAX: usize = 1 << 20;

/// One name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name.
    pub name: Vec<u8>,
    /// What it is; of a symbolic link what it leads to, or the link itself where it leads nowhere.
    pub info: Result<FileInfo, FileError>,
}

/// Lists a directory without the names that begin with a dot, in no order.
pub fn list_directory(path: &[u8]) -> Result<Vec<DirectoryEntry>, FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let folder = openat(CWD, path, flags, Mode::empty()).map_err(FileError::of("opendir()"))?;
    let mut entries = Vec::new();
    for name in
        rustix::fs::Dir::read_from(&folder).map_err(FileError::of("opendir()"))?.take(DIRECTORY_NAMES_MAX)
    {
        let name = name.map_err(FileError::of("readdir()"))?;
        let name = name.file_name();
        if name.to_bytes().starts_with(b".") {
            continue;
        }
        let info = match rustix::fs::statat(&folder, name, AtFlags::empty()) {
            Err(Errno::NOENT | Errno::LOOP) => {
                rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(FileError::of("lstat()"))
            }
            found => found.map_err(FileError::of("stat()")),
        };
        entries.push(DirectoryEntry {
            name: name.to_bytes().to_vec(),
            info: info.map(|stat| FileInfo::of(&stat)),
        });
    }
    Ok(entries)
}

/// Appends up to `len` bytes of the file from `offset` to the buffer; returns how many: less than `len` only at
/// the file's end.
pub fn read_range(file: &File, offset: u64, len: usize, buffer: &mut Vec<u8>) -> Result<usize, FileError> {
    let before = buffer.len();
    buffer.reserve(len);
    loop {
        let done = buffer.len() - before;
        if done >= len {
            return Ok(done);
        }
        let room = &mut buffer.spare_capacity_mut()[..len - done];
        match pread(file, &mut *room, offset + done as u64) {
            Ok((filled, _)) => {
                let count = filled.len();
                if count == 0 {
                    return Ok(done);
                }
                // SAFETY: the kernel has filled the first `count` bytes of the spare capacity, and `count` is no
                // more than was asked for.
                unsafe { buffer.set_len(buffer.len() + count) };
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(FileError { call: "pread()", errno }),
        }
    }
}

/// Opens component by component where links are restricted, as a whole where they are not.
fn open_at_rule(path: &[u8], symlinks: Symlinks, flags: OFlags) -> Result<OwnedFd, FileError> {
    let flags = flags | OFlags::CLOEXEC;
    let (from_bytes, by_owner) = match symlinks {
        Symlinks::Follow => {
            return openat(CWD, path, flags, Mode::empty()).map_err(FileError::of("open()"));
        }
        Symlinks::SameOwner { from_bytes } => (from_bytes, true),
        Symlinks::Refuse { from_bytes } => (from_bytes, false),
    };
    // Components are held without opening them: searching a directory needs less permission than reading it.
    let search = OFlags::PATH | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let (mut folder, mut rest) = start_of_walk(path, from_bytes, search)?;
    while let Some(slash) = memchr::memchr(b'/', rest) {
        let (name, behind) = (&rest[..slash], &rest[slash + 1..]);
        if !name.is_empty() {
            folder = Some(open_component(folder.as_ref(), name, search, by_owner)?);
        }
        rest = behind;
    }
    if rest.is_empty() {
        // The path ends with a slash: what was reached is opened again as what was asked for.
        return openat(at(folder.as_ref()), c".", flags, Mode::empty()).map_err(FileError::of("openat()"));
    }
    open_component(folder.as_ref(), rest, flags, by_owner)
}

/// The folder a walk starts in (none: the current one) and the path left to walk.
fn start_of_walk(
    path: &[u8],
    from_bytes: usize,
    search: OFlags,
) -> Result<(Option<OwnedFd>, &[u8]), FileError> {
    if from_bytes > 0 && from_bytes < path.len() {
        let folder =
            openat(CWD, &path[..from_bytes], search, Mode::empty()).map_err(FileError::of("open()"))?;
        return Ok((Some(folder), &path[from_bytes + 1..]));
    }
    match path.strip_prefix(b"/") {
        Some(rest) => {
            let root = openat(CWD, c"/", search, Mode::empty()).map_err(FileError::of("openat()"))?;
            Ok((Some(root), rest))
        }
        None => Ok((None, path)),
    }
}

fn at(folder: Option<&OwnedFd>) -> BorrowedFd<'_> {
    folder.map_or(CWD, |folder| folder.as_fd())
}

fn open_component(
    folder: Option<&OwnedFd>,
    name: &[u8],
    flags: OFlags,
    by_owner: bool,
) -> Result<OwnedFd, FileError> {
    let failed = FileError::of("openat()");
    if !by_owner {
        let flags = flags | OFlags::NOFOLLOW;
        return openat(at(folder), name, flags, Mode::empty()).map_err(failed);
    }
    let fd = openat(at(folder), name, flags, Mode::empty()).map_err(&failed)?;
    // Between the two calls the name may have been replaced, so that nothing says whether what was opened was a
    // link: the owners are compared even where no link is found.
    let link = rustix::fs::statat(at(folder), name, AtFlags::SYMLINK_NOFOLLOW).map_err(&failed)?;
    let target = rustix::fs::fstat(&fd).map_err(&failed)?;
    if link.st_uid != target.st_uid {
        return Err(failed(Errno::LOOP));
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("gapura-net-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(path.join("real/deep")).expect("the temporary folder is writable");
            std::fs::write(path.join("real/deep/a.txt"), b"0123456789").expect("it is writable");
            symlink("real", path.join("linked")).expect("links can be made");
            symlink("a.txt", path.join("real/deep/link.txt")).expect("links can be made");
            Folder(path)
        }

        fn path(&self, below: &str) -> Vec<u8> {
            self.0.join(below).as_os_str().as_bytes().to_vec()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_there_is_told_apart() {
        let folder = Folder::new("kinds");
        let opened = open_file(&folder.path("real/deep/a.txt"), Symlinks::Follow).expect("it is there");
        assert!(opened.info.is_file && opened.info.size == 10 && !opened.info.is_executable);
        let mut bytes = b"x".to_vec();
        let file = opened.file.expect("a file stays open");
        assert_eq!(read_range(&file, 3, 4, &mut bytes), Ok(4));
        assert_eq!(read_range(&file, 8, 40, &mut bytes), Ok(2));
        assert_eq!(bytes, b"x345689");

        let directory = open_unless_directory(&folder.path("real/"), Symlinks::Follow).expect("it is there");
        assert!(directory.file.is_none() && directory.info.is_directory);
        assert!(open_file(&folder.path("real"), Symlinks::Follow).expect("it is there").file.is_none());

        let missing = open_file(&folder.path("none"), Symlinks::Follow).expect_err("it is not there");
        assert_eq!(missing.to_string(), "open() failed (2: No such file or directory)");
        let missing = file_info(&folder.path("none"), Symlinks::Follow).expect_err("it is not there");
        assert_eq!(missing.to_string(), "stat() failed (2: No such file or directory)");
        let through = open_file(&folder.path("real/deep/a.txt/b"), Symlinks::Follow).expect_err("a file");
        assert_eq!(through.errno, Errno::NOTDIR);
        let nul = open_file(b"/etc/pass\0wd", Symlinks::Follow).expect_err("no such name can exist");
        assert_eq!(nul.errno, Errno::INVAL);
    }

    #[test]
    fn a_fifo_does_not_hang_the_thread() {
        let folder = Folder::new("fifo");
        let path = folder.path("pipe");
        rustix::fs::mknodat(CWD, &path[..], FileType::Fifo, Mode::RUSR, 0).expect("FIFOs can be made");
        let opened = open_file(&path, Symlinks::Follow).expect("it opens without a writer");
        assert!(!opened.info.is_file && !opened.info.is_directory);
    }

    #[test]
    fn links_are_refused_where_they_are_restricted() {
        let folder = Folder::new("links");
        let refuse = Symlinks::Refuse { from_bytes: 0 };
        let owner = Symlinks::SameOwner { from_bytes: 0 };
        for (below, rule, expected) in [
            ("real/deep/a.txt", refuse, Ok(())),
            ("real//deep///a.txt", refuse, Ok(())),
            ("real/deep/", refuse, Ok(())),
            ("real/deep/link.txt", refuse, Err(Errno::LOOP)),
            ("real/deep/link.txt", owner, Ok(())),
            ("linked/deep/a.txt", refuse, Err(Errno::NOTDIR)),
            ("linked/deep/a.txt", owner, Ok(())),
            ("linked/deep/none", owner, Err(Errno::NOENT)),
            ("real/deep/a.txt/", refuse, Err(Errno::NOTDIR)),
        ] {
            let result = open_file(&folder.path(below), rule).map(|_| ()).map_err(|error| error.errno);
            assert_eq!(result, expected, "{below} {rule:?}");
            let result = file_info(&folder.path(below), rule).map(|_| ()).map_err(|error| error.errno);
            assert_eq!(result, expected, "{below} {rule:?}");
        }
        let path = folder.path("linked/deep/a.txt");
        let exempt = refuse.for_path(&path, &folder.path("linked"));
        assert!(open_file(&path, exempt).is_ok(), "what from= names is not checked");
    }

    #[test]
    fn exempt_beginnings_end_at_a_slash() {
        let refuse = Symlinks::Refuse { from_bytes: 0 };
        let from = |from_bytes| Symlinks::Refuse { from_bytes };
        for (path, exempt, expected) in [
            ("/www/a", "", refuse),
            ("/www/a", "/www", from(4)),
            ("/www/a", "/www/", from(4)),
            ("/www/a", "/ww", refuse),
            ("/www/a", "/other", refuse),
            ("/www/a", "/www/a", Symlinks::Follow),
            ("/www/a", "/www/a/longer", refuse),
        ] {
            assert_eq!(refuse.for_path(path.as_bytes(), exempt.as_bytes()), expected, "{path} {exempt}");
        }
    }
}
