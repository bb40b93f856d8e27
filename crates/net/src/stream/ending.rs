//! The ways a connection ends, and the socket options that change how its bytes travel.

use super::{Layer, Stream};
use crate::errno::Errno;
use crate::timer::Deadline;
use rustix::net::Shutdown;
use std::time::Duration;

impl Stream {
    /// Ends our side: the peer sees the end of our data, and may still send.
    pub fn shutdown_write(&mut self) -> Result<(), Errno> {
        if let Layer::Tls(session) = &mut self.layer {
            session.say_goodbye(&mut self.socket);
        }
        self.socket.holds_last = false;
        rustix::net::shutdown(&self.socket.fd, Shutdown::Write)
    }

    /// nginx's lingering close: ends our side, then reads and throws away what the peer still sends, so that the
    /// kernel does not answer it with a reset that destroys our response on its way. Ends when the peer closes,
    /// when it is silent for `timeout` (`lingering_timeout`) or after `time` in all (`lingering_time`).
    pub async fn linger(mut self, timeout: Duration, time: Duration) {
        if self.shutdown_write().is_err() {
            return;
        }
        // What comes now is not even decrypted: TLS has nothing more to say about it.
        self.layer = Layer::Plain;
        let end = Deadline::after(time);
        // Not part of the future, which every connection would carry about for this rare moment.
        let mut waste = vec![0; 4096];
        loop {
            let deadline = Deadline::after(timeout).min(end);
            match self.read(&mut waste, deadline).await {
                Ok(1..) if !end.has_passed() => {}
                _ => return,
            }
        }
    }

    /// Closes with a reset: the peer sees `Connection reset by peer`, and the kernel keeps nothing
    /// (nginx's `reset_timedout_connection`).
    pub fn reset(mut self) {
        if let Layer::Tls(session) = &mut self.layer {
            session.keep_silent();
        }
        self.socket.holds_last = false;
        // Where it fails the connection is closed all the same.
        let _ = rustix::net::sockopt::set_socket_linger(&self.socket.fd, Some(Duration::ZERO));
    }

    /// `TCP_NODELAY`: small writes are sent at once. No effect on unix sockets.
    pub fn set_nodelay(&self, on: bool) -> Result<(), Errno> {
        if self.socket.is_tcp { rustix::net::sockopt::set_tcp_nodelay(&self.socket.fd, on) } else { Ok(()) }
    }

    /// `TCP_NODELAY`, once: from here on the last piece of what is sent does not wait for the peer to acknowledge the
    /// one before, which it may put off for 40 ms.
    pub fn be_prompt(&mut self) {
        if !std::mem::replace(&mut self.socket.is_prompt, true) {
            // Where it cannot be set, bytes go out all the same.
            let _ = self.set_nodelay(true);
        }
    }
}

impl Drop for Stream {
    /// Says goodbye as TLS wants it, so that the peer can tell an end from a cut.
    fn drop(&mut self) {
        if let Layer::Tls(session) = &mut self.layer {
            session.say_goodbye(&mut self.socket);
        }
        // Closing a socket that something unread has come to would be a reset, and what the kernel holds would be lost.
        if self.socket.holds_last {
            let _ = rustix::net::shutdown(&self.socket.fd, Shutdown::Write);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    /// The ends of a connection, the second one ours.
    fn pair() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback exists");
        let peer = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let (ours, address) = listener.accept().expect("a connection waits");
        ours.set_nonblocking(true).expect("any socket can");
        (peer, Stream::from_fd(ours.into(), &Address::Inet(address)))
    }

    #[test]
    fn the_last_bytes_arrive_even_where_something_was_left_unread() {
        crate::thread::run(async {
            for ends_by_hand in [false, true] {
                let (mut peer, mut stream) = pair();
                peer.write_all(b"nobody reads this").expect("there is room");
                assert_eq!(stream.try_write_last(b"answer"), Ok(Some(6)));
                if ends_by_hand {
                    stream.shutdown_write().expect("it is connected");
                }
                drop(stream);
                let mut answer = [0; 16];
                assert_eq!(peer.read(&mut answer).expect("it comes before the reset"), 6);
                assert!(answer.starts_with(b"answer"));
            }
            // And without anything unread the end is one in order.
            let (mut peer, mut stream) = pair();
            assert_eq!(stream.try_write_last(b"answer"), Ok(Some(6)));
            drop(stream);
            let mut answer = String::new();
            assert_eq!(peer.read_to_string(&mut answer).expect("no reset comes"), 6);
        });
    }
}
