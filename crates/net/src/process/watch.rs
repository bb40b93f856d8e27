//! Waiting on an event loop for a descriptor that somebody else owns and reads.

use super::channel::wait_readable;
use crate::errno::{Errno, errno_of};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor from this thread's event loop. What the descriptor is for stays open until the watch is
/// dropped.
pub struct Watch {
    descriptor: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Watches a copy of the descriptor.
    ///
    /// # Panics
    /// On a thread without an event loop.
    pub fn new(watched: impl AsFd) -> Result<Watch, Errno> {
        let copy = rustix::io::fcntl_dupfd_cloexec(watched, 3)?;
        // SAFETY: the copy is owned by the `AsyncFd` from here on, and an `OwnedFd` never changes its number.
        let registered = unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) };
        let descriptor = registered.map_err(|error| errno_of(&error.into_parts().1))?;
        Ok(Watch { descriptor })
    }

    /// Waits until there is something to read, or the other end is gone. Nothing is lost where the owner has not read
    /// all that was there.
    pub async fn readable(&self) -> Result<(), Errno> {
        loop {
            if wait_readable(&[self.descriptor.as_fd()], Some(Duration::ZERO))? == [true] {
                return Ok(());
            }
            // The event loop reports what is new. What it reported of what was read since is forgotten, and what came
            // meanwhile is seen by the look that follows.
            let mut report = self.descriptor.readable().await.map_err(|error| errno_of(&error))?;
            report.clear_ready();
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::channel::Channel;
    use super::*;

    #[test]
    fn what_is_left_unread_is_reported_again_and_so_is_the_end() {
        let (one, other) = Channel::pair().expect("the system gives a pair");
        crate::thread::run(async {
            let watch = Watch::new(&other).expect("it can be watched");
            one.send(b"a", &[]).expect("sent");
            one.send(b"b", &[]).expect("sent");
            for body in [b"a", b"b"] {
                watch.readable().await.expect("no failure");
                let frame = other.receive().expect("no failure").expect("not the end");
                assert_eq!(frame.body, body);
            }
            let later = std::thread::spawn(move || one.send(b"c", &[]));
            watch.readable().await.expect("no failure");
            assert_eq!(other.receive().expect("no failure").expect("not the end").body, b"c");
            later.join().expect("no panic").expect("sent");
            watch.readable().await.expect("no failure");
            assert!(other.receive().expect("an end is no failure").is_none());
        });
    }
}
