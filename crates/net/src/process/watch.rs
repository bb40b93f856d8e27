//! Waiting on an event loop for a descriptor that somebody else owns and reads.

use super::channel::wait_readable;
use crate::errno::Errno;
use crate::event_loop::watch::{self, Direction};
use std::future::poll_fn;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Watches a descriptor from this thread's event loop. What the descriptor is for stays open until the watch is
/// dropped.
pub struct Watch {
    descriptor: OwnedFd,
    watch: watch::Watch,
}

impl Watch {
    /// Watches a copy of the descriptor.
    ///
    /// # Errors
    /// The system's; `EBADF` on a thread without an event loop.
    pub fn new(watched: impl AsFd) -> Result<Watch, Errno> {
        let descriptor = rustix::io::fcntl_dupfd_cloexec(watched, 3)?;
        let watch = watch::Watch::begin_reading(&descriptor)?;
        Ok(Watch { descriptor, watch })
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
            poll_fn(|cx| self.watch.poll_ready(cx, Direction::Read)).await;
            self.watch.clear(Direction::Read);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The original stays open.
        self.watch.end(&self.descriptor);
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
