//! Accepting connections from a listening socket that came from elsewhere (the master, the old program).

use crate::address::Address;
use crate::clock;
use crate::errno::Errno;
use crate::event_loop::watch::{Direction, Watch};
use crate::stream::Stream;
use crate::timer::{Deadline, Timer};
use rustix::net::SocketFlags;
use std::future::poll_fn;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

/// How long accepting rests when the system is out of descriptors or memory, nginx's default
/// `accept_mutex_delay`: connections wait in the kernel's queue meanwhile.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(500);

/// One thread's way to a listening socket. Several threads may hold one each over the same socket; dropping
/// one stops this thread's watch and nothing else: the socket closes when the last holder lets go.
pub struct Acceptor {
    socket: Arc<OwnedFd>,
    watch: Watch,
    /// The local address of accepted connections, where the listener's own says it.
    local: Option<Address>,
    listener_address: Address,
    paused_until: Option<Deadline>,
    timer: Timer,
}

/// A connection not yet tied to a thread: it can be handed to another one first.
#[derive(Debug)]
pub struct Accepted {
    fd: OwnedFd,
    peer: Address,
    local: Option<Address>,
}

/// The addresses of an accepted connection.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Where it came from; an unnamed unix address for unix sockets.
    pub peer: Address,
    /// Where it was accepted.
    pub local: Address,
}

impl Acceptor {
    /// Watches a bound and listening socket from this thread's event loop. The socket is made non-blocking.
    pub fn new(listener: Arc<OwnedFd>) -> Result<Acceptor, Errno> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        let address = Address::from_any(rustix::net::getsockname(&listener)?);
        let watch = Watch::begin_reading(&listener)?;
        let local = (!address.is_wildcard()).then(|| address.clone());
        let timer = Timer::new();
        Ok(Acceptor { socket: listener, watch, local, listener_address: address, paused_until: None, timer })
    }

    /// Waits for a connection.
    ///
    /// An error is for the log (`accept4() failed (24: Too many open files)`); keep calling. After one that says
    /// that the system is exhausted the next call rests for half a second first.
    pub async fn accept(&mut self) -> Result<Accepted, Errno> {
        if let Some(until) = self.paused_until.take() {
            self.timer.sleep(until).await;
        }
        let result = poll_fn(|cx| {
            loop {
                ready!(self.watch.poll_ready(cx, Direction::Read));
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                match rustix::net::acceptfrom_with(&self.socket, flags) {
                    Ok(accepted) => return Poll::Ready(Ok(accepted)),
                    Err(Errno::AGAIN) => self.watch.clear(Direction::Read),
                    Err(Errno::INTR) => {}
                    Err(errno) => return Poll::Ready(Err(errno)),
                }
            }
        })
        .await;
        match result {
            Ok((fd, peer)) => {
                let peer = peer.map_or(Address::unix(b""), Address::from_any);
                Ok(Accepted { fd, peer, local: self.local.clone() })
            }
            Err(errno) => {
                if is_exhausted(errno) {
                    clock::refresh();
                    self.paused_until = Some(Deadline::after(EXHAUSTED_PAUSE));
                }
                Err(errno)
            }
        }
    }

    /// Where the socket listens.
    pub fn address(&self) -> &Address {
        &self.listener_address
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        // Others may hold the socket, and it stays open.
        self.watch.end(&self.socket);
    }
}

/// True for the errors after which accepting at once would only fail again.
fn is_exhausted(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
}

impl Accepted {
    /// Where the connection came from; an unnamed unix address for unix sockets.
    pub fn peer_address(&self) -> &Address {
        &self.peer
    }

    /// Ties the connection to this thread.
    pub fn into_stream(self) -> (Stream, Ends) {
        let stream = Stream::from_fd(self.fd, &self.peer);
        let local = self.local.unwrap_or_else(|| stream.local_address());
        (stream, Ends { peer: self.peer, local })
    }
}

impl AsFd for Accepted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
