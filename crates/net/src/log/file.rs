//! Log files: opened by path or handed over, shared by all logs that name the path, opened anew on request.

use super::syslog::Severity;
use super::{LogFailure, REPORT_SECONDS, now_seconds};
use crate::errno::Errno;
use crate::file::FileError;
use bstr::BStr;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

/// One file that lines are appended to. The descriptor behind it may be replaced at any time.
#[derive(Debug)]
pub struct LogFile {
    path: Vec<u8>,
    fd: RwLock<OwnedFd>,
    /// The second in which the disk was found full: nothing is tried for the rest of it.
    full_at: AtomicI64,
    /// When a failure was last reported.
    reported_at: AtomicI64,
}

impl LogFile {
    /// Opens the file for appending; makes it, mode 0644, if it is not there.
    pub fn open(path: &[u8]) -> Result<LogFile, FileError> {
        Ok(LogFile::from_fd(path, open_for_append(path)?))
    }

    /// Takes over a descriptor that somebody else opened for appending; the path is for messages and for
    /// [`LogFile::reopen`].
    pub fn from_fd(path: &[u8], fd: OwnedFd) -> LogFile {
        LogFile {
            path: path.to_vec(),
            fd: RwLock::new(fd),
            full_at: AtomicI64::new(i64::MIN),
            // So that the first failure is reported.
            reported_at: AtomicI64::new(i64::MIN / 2),
        }
    }

    /// Opens the path again and uses that from now on, as after a rotation. On failure the old one stays.
    pub fn reopen(&self) -> Result<(), FileError> {
        self.replace(open_for_append(&self.path)?);
        Ok(())
    }

    /// Uses another descriptor from now on; waits for writes that are under way.
    pub fn replace(&self, fd: OwnedFd) {
        *self.fd.write().unwrap_or_else(PoisonError::into_inner) = fd;
    }

    /// A second descriptor for the same open file, to hand to another process.
    pub fn duplicate(&self) -> Result<OwnedFd, Errno> {
        let fd = self.fd.read().unwrap_or_else(PoisonError::into_inner);
        rustix::io::fcntl_dupfd_cloexec(&*fd, 0)
    }

    /// The path.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Inode number and device of what is open, to find out whether the path means something else by now.
    pub(super) fn identity(&self) -> Option<(u64, u64)> {
        let fd = self.fd.read().unwrap_or_else(PoisonError::into_inner);
        let stat = rustix::fs::fstat(&*fd).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }

    /// Writes whole lines at once. An error is returned only when it is to be reported.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), LogFailure> {
        let now = now_seconds();
        if self.full_at.load(Ordering::Relaxed) == now {
            return Ok(());
        }
        let fd = self.fd.read().unwrap_or_else(PoisonError::into_inner);
        let Err(errno) = write_all(&*fd, bytes) else { return Ok(()) };
        drop(fd);
        if errno == Errno::NOSPC {
            self.full_at.store(now, Ordering::Relaxed);
        }
        if now - self.reported_at.swap(now, Ordering::Relaxed) < REPORT_SECONDS {
            return Ok(());
        }
        Err(LogFailure {
            what: format!("write() to \"{}\"", BStr::new(&self.path)),
            errno,
            during: "while logging request".to_owned(),
            severity: Severity::Alert,
        })
    }
}

/// Writes all bytes, in several steps where the system takes a part.
pub(super) fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(&fd, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn open_for_append(path: &[u8]) -> Result<OwnedFd, FileError> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    openat(CWD, path, flags, mode).map_err(|errno| FileError { call: "open()", errno })
}

/// The log files of a process, one per path however many logs name it. Does not keep them open: that is up to
/// the logs.
#[derive(Debug, Default)]
pub struct LogFiles {
    by_path: Mutex<HashMap<Vec<u8>, Weak<LogFile>>>,
}

impl LogFiles {
    /// The file of a path, opened if it is not.
    pub fn open(&self, path: &[u8]) -> Result<Arc<LogFile>, FileError> {
        let mut by_path = self.by_path.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = by_path.get(path).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let file = Arc::new(LogFile::open(path)?);
        by_path.retain(|_, file| file.strong_count() > 0);
        by_path.insert(path.to_vec(), Arc::downgrade(&file));
        Ok(file)
    }

    /// Takes a descriptor for a path that somebody else opened: in place of the one in use, if there is one.
    pub fn adopt(&self, path: &[u8], fd: OwnedFd) -> Arc<LogFile> {
        let mut by_path = self.by_path.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = by_path.get(path).and_then(Weak::upgrade) {
            file.replace(fd);
            return file;
        }
        let file = Arc::new(LogFile::from_fd(path, fd));
        by_path.insert(path.to_vec(), Arc::downgrade(&file));
        file
    }

    /// Opens every file anew (signal USR1); returns those that could not be, which stay as they were.
    pub fn reopen(&self) -> Vec<(Arc<LogFile>, FileError)> {
        let by_path = self.by_path.lock().unwrap_or_else(PoisonError::into_inner);
        let files = by_path.values().filter_map(Weak::upgrade);
        files.filter_map(|file| file.reopen().err().map(|error| (file.clone(), error))).collect()
    }

    /// All files that are in use.
    pub fn all(&self) -> Vec<Arc<LogFile>> {
        let by_path = self.by_path.lock().unwrap_or_else(PoisonError::into_inner);
        by_path.values().filter_map(Weak::upgrade).collect()
    }
}
