//! Starting processes: a worker, which is this program again, and another binary that takes over.

use super::channel::Channel;
use crate::errno::{Errno, errno_of};
use rustix::process::{Pid, WaitOptions};
use std::ffi::{OsStr, OsString};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Titles may grow to this without the memory of the environment.
const TITLE_BYTES: usize = 64;

/// The variable that tells a starting process that it is a worker and its standard input a [`Channel`].
pub const WORKER_VARIABLE: &str = "GAPURA_WORKER";

/// Starts this program again as a worker with that title, with no environment but the given one, and returns its
/// number and this side of the channel to it.
///
/// The program is executed through `/proc/self/exe`, so a worker is always of the same build as its master, even
/// after the file was replaced.
pub fn worker(title: &str, environment: &[(OsString, OsString)]) -> Result<(Pid, Channel), Errno> {
    let (ours, theirs) = Channel::pair()?;
    let child = Command::new("/proc/self/exe")
        .arg0(format!("{title:TITLE_BYTES$}"))
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .env(WORKER_VARIABLE, "1")
        .stdin(Stdio::from(theirs.into_socket()))
        .spawn()
        .map_err(|error| errno_of(&error))?;
    Ok((pid_of(&child), ours))
}

/// Executes another binary with the given arguments (the first is its name) and environment. The descriptors in
/// `inherited` stay open in it under their numbers; nothing else does but the standard ones.
///
/// To be called with one thread: another one could start a process that inherits them, too.
pub fn binary(
    path: &[u8],
    arguments: &[OsString],
    environment: &[(OsString, OsString)],
    inherited: &[BorrowedFd<'_>],
) -> Result<Pid, Errno> {
    use rustix::io::{FdFlags, fcntl_setfd};
    let mut command = Command::new(OsStr::from_bytes(path));
    if let Some((name, rest)) = arguments.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    for fd in inherited {
        fcntl_setfd(fd, FdFlags::empty())?;
    }
    let child = command.spawn();
    for fd in inherited {
        fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    }
    child.map(|child| pid_of(&child)).map_err(|error| errno_of(&error))
}

/// Takes over a descriptor that the program which executed this one left open; from now on it is closed on exec.
/// `EBADF` for a number that is not open, a standard one, and one that belongs to this program already.
pub fn inherited_descriptor(number: RawFd) -> Result<OwnedFd, Errno> {
    use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
    if number <= 2 {
        return Err(Errno::BADF);
    }
    // SAFETY: the borrow is only used, within these two lines, to ask for the flags: harmless whoever owns the
    // number, and an error where nobody does.
    let flags = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) })?;
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(Errno::BADF);
    }
    // SAFETY: the number is open (asked above) and nobody here owns it: whatever this program opens is closed on
    // exec from the start, as everything of Rust's library is, and so is what was taken over here before.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&owned, FdFlags::CLOEXEC)?;
    Ok(owned)
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with that code.
    Code(i32),
    /// By a signal, and whether it left a core file.
    Signal(i32, bool),
}

/// The next child that has ended, if any; never blocks.
pub fn reap() -> Option<(Pid, Exit)> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                // WCOREDUMP of wait(2).
                let dumped = status.as_raw() & 0x80 != 0;
                return match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Some((pid, Exit::Code(code))),
                    (None, Some(signal)) => Some((pid, Exit::Signal(signal, dumped))),
                    (None, None) => continue,
                };
            }
            Err(Errno::INTR) => {}
            _ => return None,
        }
    }
}

fn pid_of(child: &std::process::Child) -> Pid {
    Pid::from_child(child)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn only_what_is_left_open_by_another_program_is_taken_over() {
        let own = super::super::daemon::dev_null().expect("there is a /dev/null");
        for number in [-1, 0, 2, 1_000_000, own.as_raw_fd()] {
            assert_eq!(inherited_descriptor(number).map(|_| ()), Err(Errno::BADF), "{number}");
        }
    }
}
