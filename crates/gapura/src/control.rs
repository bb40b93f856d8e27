//! How `-s reload` learns whether the new configuration was accepted: over a unix socket beside the pid file.
//!
//! The signal stays nginx's HUP, so that everything else about a reload is the same whoever asks for it. The one
//! who asks connects first, is told that it was heard, sends the signal, and then waits for the verdict.
//! Where the socket is missing (a real nginx, a pid file that others own) the signal has to do.

use crate::wire::Verdict;
use net::errno::Errno;
use net::process::channel::{Channel, wait_readable};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Who asks must speak within this, and the master must answer.
const HEARING_PATIENCE: Duration = Duration::from_secs(2);
/// How long a verdict may take: as long as the master waits for its worker, and some more.
const VERDICT_PATIENCE: Duration = Duration::from_secs(90);
/// More than ever ask at once.
const WAITING_MAX: usize = 32;

/// The path of the socket that belongs to a pid file.
pub fn path_beside(pid: &[u8]) -> Vec<u8> {
    [pid, b".sock"].concat()
}

/// The master's end.
#[derive(Debug)]
pub struct Control {
    path: Vec<u8>,
    /// Inode number and device of the file, to remove no other's.
    identity: Option<(u64, u64)>,
    socket: OwnedFd,
    waiting: Vec<Channel>,
}

impl Control {
    /// Opens the socket beside the pid file; one that is there already belongs to nobody who lives, or to the
    /// program that this one is about to replace.
    pub fn open(pid: &[u8]) -> Result<Control, Errno> {
        let path = path_beside(pid);
        let address = SocketAddrUnix::new(&path[..])?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // What is bound takes its mode from here: for the master's user alone.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        match rustix::fs::unlink(&path[..]) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, 8)?;
        let identity = identity_of(&path);
        Ok(Control { path, identity, socket, waiting: Vec::new() })
    }

    /// True while the file at the path is this one's.
    pub fn is_in_place(&self) -> bool {
        self.identity.is_some() && identity_of(&self.path) == self.identity
    }

    /// Hears everyone who has connected.
    pub fn hear(&mut self) {
        while let Ok(socket) = rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC) {
            let channel = Channel::from_socket(socket);
            let heard = channel.set_patience(Some(HEARING_PATIENCE)).is_ok()
                && matches!(channel.receive_message(), Ok(Some(word)) if word == b"reload")
                && channel.send(b"heard", &[]).is_ok();
            if heard && self.waiting.len() < WAITING_MAX {
                self.waiting.push(channel);
            }
        }
    }

    /// Tells everyone who waits.
    pub fn tell(&mut self, verdict: &Verdict) {
        for channel in self.waiting.drain(..) {
            // Who does not wait any more misses nothing.
            let _ = channel.send(&verdict.encode(), &[]);
        }
    }

    /// Removes the file, if it is still this one's.
    pub fn close(self) {
        if self.is_in_place() {
            // It is gone already, or the folder is: all the same.
            let _ = rustix::fs::unlink(&self.path[..]);
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn identity_of(path: &[u8]) -> Option<(u64, u64)> {
    let stat = rustix::fs::lstat(path).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// The end of the one who asks.
#[derive(Debug)]
pub struct Asker(Channel);

impl Asker {
    /// Asks the master of a pid file to tell how its next reload goes. `None` where it cannot be asked.
    pub fn new(pid: &[u8]) -> Option<Asker> {
        let channel = Channel::from_socket(net::process::channel::connect(&path_beside(pid)).ok()?);
        channel.set_patience(Some(HEARING_PATIENCE)).ok()?;
        channel.send(b"reload", &[]).ok()?;
        let heard = channel.receive_message().ok()??;
        (heard == b"heard").then_some(Asker(channel))
    }

    /// Waits for the verdict. `None` where none comes.
    pub fn verdict(self) -> Option<Verdict> {
        let readable = wait_readable(&[self.0.as_fd()], Some(VERDICT_PATIENCE)).ok()?;
        if readable != [true] {
            return None;
        }
        Verdict::decode(&self.0.receive_message().ok()??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn whoever_asks_is_told_and_strangers_are_not() {
        let pid = std::env::temp_dir().join(format!("gapura-control-{}.pid", std::process::id()));
        let pid = pid.into_os_string().into_vec();
        assert!(Asker::new(&pid).is_none());
        let mut control = Control::open(&pid).expect("the temporary folder is writable");
        let mode = rustix::fs::lstat(&path_beside(&pid)[..]).expect("it is there").st_mode;
        assert_eq!(mode & 0o777, 0o600);
        let asking = {
            let pid = pid.clone();
            std::thread::spawn(move || Asker::new(&pid).and_then(Asker::verdict))
        };
        while control.waiting.is_empty() {
            wait_readable(&[control.as_fd()], None).expect("it can be polled");
            control.hear();
        }
        let verdict = Verdict::Refused("[emerg] no\n".to_owned());
        control.tell(&verdict);
        assert_eq!(asking.join().expect("no panic"), Some(verdict));
        // The next program takes the place over; the old one leaves it alone.
        let next = Control::open(&pid).expect("as before");
        assert!(!control.is_in_place());
        control.close();
        assert!(next.is_in_place());
        next.close();
        assert!(!crate::identity::exists(crate::identity::path_of(&path_beside(&pid))));
    }
}
