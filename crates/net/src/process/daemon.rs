//! Leaving the terminal (`daemon on`), and telling who waits there how it went.

use crate::errno::{Errno, errno_of};
use rustix::fs::Mode;
use rustix::pipe::PipeFlags;
use std::ffi::c_int;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

unsafe extern "C" {
    fn fork() -> c_int;
}

/// Which side of [`detach`] one is on.
#[derive(Debug)]
pub enum Detached {
    /// The process that was started: it waits for the news and ends.
    Starter(Starter),
    /// The daemon, in a session of its own.
    Daemon(News),
}

/// The starter's end: hears from the daemon.
#[derive(Debug)]
pub struct Starter(File);

/// The daemon's end: says once how the start went.
#[derive(Debug)]
pub struct News(File);

/// Splits off a process that outlives the terminal: a new session, no file mode mask, standard input and output on
/// `/dev/null`. The standard error stays for [`release_terminal`], as in nginx.
///
/// To be called with one thread: the other ones would be missing in the daemon. Where there are several it fails
/// with `EBUSY`.
pub fn detach() -> Result<Detached, Errno> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(Errno::BUSY);
    }
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: the process has one thread (checked above), so no lock can be held by a thread that the child
    // lacks, and the child is a full copy that may go on with anything.
    let child = unsafe { fork() };
    match child {
        -1 => Err(errno_of(&std::io::Error::last_os_error())),
        0 => {
            drop(reader);
            rustix::process::setsid()?;
            rustix::process::umask(Mode::empty());
            let null: OwnedFd = dev_null()?;
            rustix::stdio::dup2_stdin(&null)?;
            rustix::stdio::dup2_stdout(&null)?;
            Ok(Detached::Daemon(News(File::from(writer))))
        }
        _ => {
            drop(writer);
            Ok(Detached::Starter(Starter(File::from(reader))))
        }
    }
}

impl Starter {
    /// Waits until the daemon says that it serves, or ends. True where it serves.
    pub fn wait(mut self) -> bool {
        let mut word = [0];
        matches!(self.0.read(&mut word), Ok(1))
    }
}

impl News {
    /// Tells the starter that all is well. Dropping it instead tells that the start failed.
    pub fn good(mut self) {
        // The starter may have been killed meanwhile; that is no reason to stop.
        let _ = self.0.write_all(b"+");
    }
}

/// Puts the standard error on another descriptor: an error log, or `/dev/null`.
pub fn release_terminal(target: Option<&OwnedFd>) -> Result<(), Errno> {
    match target {
        Some(target) => rustix::stdio::dup2_stderr(target),
        None => rustix::stdio::dup2_stderr(dev_null()?),
    }
}

/// `/dev/null`, for reading and writing.
pub(crate) fn dev_null() -> Result<OwnedFd, Errno> {
    let file = File::options().read(true).write(true).open("/dev/null").map_err(|error| errno_of(&error))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_other_threads_there_is_no_daemon() {
        assert!(matches!(detach(), Err(Errno::BUSY)));
    }

    #[test]
    fn the_starter_hears_good_news_or_the_end() {
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).expect("the system gives a pipe");
        let (reader, writer) = pipe();
        News(File::from(writer)).good();
        assert!(Starter(File::from(reader)).wait());
        let (reader, writer) = pipe();
        drop(News(File::from(writer)));
        assert!(!Starter(File::from(reader)).wait());
    }
}
