//! A UDP socket on a thread's event loop.

use crate::event_loop::watch::{Direction, Watch};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::task::{Poll, ready};

/// See the module's text.
pub(super) struct Datagrams {
    watch: Watch,
    socket: UdpSocket,
}

impl Datagrams {
    /// A socket bound to a local address, watched from this thread's event loop.
    pub(super) fn bind(local: SocketAddr) -> io::Result<Datagrams> {
        let socket = UdpSocket::bind(local)?;
        socket.set_nonblocking(true)?;
        Ok(Datagrams { watch: Watch::begin_reading(&socket)?, socket })
    }

    /// Only what comes from there is received from now on.
    pub(super) fn connect(&self, peer: SocketAddr) -> io::Result<()> {
        self.socket.connect(peer)
    }

    /// Sends to the connected peer. Where the system has no room the datagram is lost, as any may be.
    pub(super) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        match self.socket.send(datagram) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits for a datagram; its length, cut to the buffer's, and who sent it.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        poll_fn(|cx| {
            loop {
                ready!(self.watch.poll_ready(cx, Direction::Read));
                match self.socket.recv_from(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.watch.clear(Direction::Read)
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    received => return Poll::Ready(received),
                }
            }
        })
        .await
    }

    /// Where it is bound.
    #[cfg(test)]
    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Sends to somebody, from a socket that is not connected.
    #[cfg(test)]
    pub(super) fn send_to(&self, datagram: &[u8], peer: SocketAddr) -> io::Result<()> {
        self.socket.send_to(datagram, peer).map(drop)
    }
}
