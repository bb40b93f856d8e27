//! Signals as a descriptor to poll (signalfd(2)), so that they arrive in order with everything else a process waits
//! for and no handler ever runs.

use crate::errno::{Errno, errno_of};
use rustix::process::Pid;
use std::ffi::c_int;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// The signals the server knows, by nginx's control page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// HUP: reload.
    Hangup,
    /// INT: end at once.
    Interrupt,
    /// QUIT: finish, then end.
    Quit,
    /// USR1: reopen logs.
    User1,
    /// USR2: change the binary.
    User2,
    /// TERM: end at once.
    Terminate,
    /// CHLD: a child ended.
    Child,
    /// WINCH: stop accepting.
    WindowChange,
}

impl Signal {
    const ALL: [Signal; 8] = [
        Signal::Hangup,
        Signal::Interrupt,
        Signal::Quit,
        Signal::User1,
        Signal::User2,
        Signal::Terminate,
        Signal::Child,
        Signal::WindowChange,
    ];

    /// The system's name and number.
    pub fn system(self) -> rustix::process::Signal {
        use rustix::process::Signal as System;
        match self {
            Signal::Hangup => System::HUP,
            Signal::Interrupt => System::INT,
            Signal::Quit => System::QUIT,
            Signal::User1 => System::USR1,
            Signal::User2 => System::USR2,
            Signal::Terminate => System::TERM,
            Signal::Child => System::CHILD,
            Signal::WindowChange => System::WINCH,
        }
    }

    /// The number.
    pub fn number(self) -> i32 {
        self.system().as_raw()
    }

    /// The name, as nginx logs it.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Hangup => "SIGHUP",
            Signal::Interrupt => "SIGINT",
            Signal::Quit => "SIGQUIT",
            Signal::User1 => "SIGUSR1",
            Signal::User2 => "SIGUSR2",
            Signal::Terminate => "SIGTERM",
            Signal::Child => "SIGCHLD",
            Signal::WindowChange => "SIGWINCH",
        }
    }
}

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Which.
    pub signal: Signal,
    /// Who sent it; `None` for the kernel (Ctrl-C, for one).
    pub sender: Option<Pid>,
}

/// The signals of this process, to poll and read.
#[derive(Debug)]
pub struct Signals {
    file: File,
}

/// The C library's `sigset_t`: 1024 bits on Linux, whatever the library.
#[repr(C)]
struct SignalSet {
    words: [u64; 16],
}

const SIG_BLOCK: c_int = 0;
const SIG_IGN: usize = 1;
const SFD_CLOEXEC: c_int = 0o2000000;
const SFD_NONBLOCK: c_int = 0o4000;
/// The size of `struct signalfd_siginfo` (signalfd(2)).
const RECORD_BYTES: usize = 128;

unsafe extern "C" {
    fn sigemptyset(set: *mut SignalSet) -> c_int;
    fn sigaddset(set: *mut SignalSet, signal: c_int) -> c_int;
    fn pthread_sigmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn signalfd(fd: c_int, set: *const SignalSet, flags: c_int) -> c_int;
    fn signal(signal: c_int, handler: usize) -> usize;
}

impl Signals {
    /// Blocks the signals of [`Signal`] in this thread, and in those it starts from now on, and makes them
    /// readable here instead. SIGPIPE is ignored: a write to a closed connection is an error, not the end.
    ///
    /// To be called before other threads start, which would otherwise still be killed by them.
    pub fn take() -> Result<Signals, Errno> {
        let mut set = SignalSet { words: [0; 16] };
        // SAFETY: the pointer is to a live value at least as large as the library's set.
        unsafe { sigemptyset(&raw mut set) };
        for known in Signal::ALL {
            // SAFETY: as above; the number is a valid signal.
            unsafe { sigaddset(&raw mut set, known.number()) };
        }
        // SAFETY: the set was filled by the library; a null pointer for the old mask is allowed.
        let failed = unsafe { pthread_sigmask(SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if failed != 0 {
            return Err(Errno::from_raw_os_error(failed));
        }
        // SAFETY: ignoring a signal installs no code.
        unsafe { signal(rustix::process::Signal::PIPE.as_raw(), SIG_IGN) };
        // SAFETY: -1 asks for a new descriptor; the set is valid.
        let fd = unsafe { signalfd(-1, &raw const set, SFD_CLOEXEC | SFD_NONBLOCK) };
        if fd < 0 {
            return Err(errno_of(&std::io::Error::last_os_error()));
        }
        // SAFETY: the call returned a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Signals { file: File::from(fd) })
    }

    /// The next signal that waits, if any; never blocks.
    pub fn take_next(&mut self) -> Option<Received> {
        loop {
            let mut record = [0; RECORD_BYTES];
            match self.file.read(&mut record) {
                Ok(RECORD_BYTES) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                _ => return None,
            }
            let field = |at: usize| i32::from_ne_bytes(record[at..at + 4].try_into().unwrap_or_default());
            // signalfd(2): ssi_signo is the first field, ssi_pid the fourth.
            let number = field(0);
            let sender = Pid::from_raw(field(12).max(0));
            if let Some(signal) = Signal::ALL.into_iter().find(|known| known.number() == number) {
                return Some(Received { signal, sender });
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_tells_who_sent_it() {
        // In a thread of its own, whose mask dies with it; the signal goes to that thread alone.
        let thread = std::thread::spawn(|| {
            let mut signals = Signals::take().expect("the system gives a descriptor");
            assert_eq!(signals.take_next(), None);
            unsafe extern "C" {
                fn raise(signal: c_int) -> c_int;
            }
            // SAFETY: the signal is blocked in this thread, to which alone `raise` sends it.
            unsafe { raise(Signal::User1.number()) };
            let received = signals.take_next().expect("the signal waits");
            (received, signals.take_next())
        });
        let (received, rest) = thread.join().expect("no panic");
        assert_eq!(received.signal, Signal::User1);
        assert_eq!(received.sender, Some(rustix::process::getpid()));
        assert_eq!(rest, None);
    }
}
