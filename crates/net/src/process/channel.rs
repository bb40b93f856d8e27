//! Frames with descriptors over a pair of unix sockets: how the master hands a worker its configuration and its
//! sockets, and hears back.
//!
//! On the wire: the length of the body and the number of descriptors (four bytes each), then one byte for every
//! [`DESCRIPTORS_PER_MESSAGE`] descriptors, which carries them, then the body. What a frame means is up to its two
//! ends.

use crate::errno::{Errno, errno_of};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The kernel passes at most 253 in one message.
const DESCRIPTORS_PER_MESSAGE: usize = 128;
/// More than any configuration has files and sockets.
pub const DESCRIPTORS_MAX: usize = 65_536;
/// More than what is wrong with any configuration takes to say.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// More than any configuration's text.
pub const BODY_BYTES_MAX: usize = 256 << 20;

/// One end of a channel.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// What was sent at once.
#[derive(Debug, Default)]
pub struct Frame {
    /// The message.
    pub body: Vec<u8>,
    /// The descriptors that came with it, in the order in which they were sent. Closed on exec.
    pub descriptors: Vec<OwnedFd>,
}

impl Channel {
    /// Two connected ends, closed on exec.
    pub fn pair() -> Result<(Channel, Channel), Errno> {
        let (one, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok((Channel { socket: one }, Channel { socket: other }))
    }

    /// A channel over a connected stream socket of the unix family.
    pub fn from_socket(socket: OwnedFd) -> Channel {
        Channel { socket }
    }

    /// The socket alone.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Takes the channel that [`super::spawn::worker`] put on the standard input, which becomes `/dev/null`.
    pub fn take_standard_input() -> Result<Channel, Errno> {
        let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 3)?;
        rustix::stdio::dup2_stdin(super::daemon::dev_null()?)?;
        Ok(Channel { socket })
    }

    /// How long [`Channel::send`] and [`Channel::receive`] wait for the other end before they fail with `EAGAIN`;
    /// `None`: for ever.
    pub fn set_patience(&self, patience: Option<Duration>) -> Result<(), Errno> {
        use rustix::net::sockopt::{Timeout, set_socket_timeout};
        set_socket_timeout(&self.socket, Timeout::Send, patience)?;
        set_socket_timeout(&self.socket, Timeout::Recv, patience)
    }

    /// Sends a frame. After an error the channel is of no further use.
    pub fn send(&self, body: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let (Ok(body_bytes), Ok(count)) = (u32::try_from(body.len()), u32::try_from(descriptors.len()))
        else {
            return Err(Errno::MSGSIZE);
        };
        if body.len() > BODY_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
            return Err(Errno::MSGSIZE);
        }
        self.send_all(&[body_bytes.to_ne_bytes(), count.to_ne_bytes()].concat())?;
        for batch in descriptors.chunks(DESCRIPTORS_PER_MESSAGE) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(batch)) {
                return Err(Errno::MSGSIZE);
            }
            retry(|| {
                let byte = [IoSlice::new(b"d")];
                rustix::net::sendmsg(&self.socket, &byte, &mut control, SendFlags::NOSIGNAL)
            })?;
        }
        self.send_all(body)
    }

    /// Waits for a frame; `None` where the other end is gone. After an error the channel is of no further use.
    pub fn receive(&self) -> Result<Option<Frame>, Errno> {
        self.receive_frame(BODY_BYTES_MAX, DESCRIPTORS_MAX)
    }

    /// Waits for a short frame without descriptors, from an end that is trusted with no more. A longer one is an
    /// error like any other.
    pub fn receive_message(&self) -> Result<Option<Vec<u8>>, Errno> {
        Ok(self.receive_frame(MESSAGE_BYTES_MAX, 0)?.map(|frame| frame.body))
    }

    fn receive_frame(&self, body_bytes_max: usize, descriptors_max: usize) -> Result<Option<Frame>, Errno> {
        let mut head = [0; 8];
        if !self.receive_all(&mut head)? {
            return Ok(None);
        }
        let [a, b, c, d, e, f, g, h] = head;
        let body_bytes = u32::from_ne_bytes([a, b, c, d]) as usize;
        let count = u32::from_ne_bytes([e, f, g, h]) as usize;
        if body_bytes > body_bytes_max || count > descriptors_max {
            return Err(Errno::MSGSIZE);
        }
        let mut descriptors = Vec::new();
        while descriptors.len() < count {
            let before = descriptors.len();
            self.receive_descriptors(&mut descriptors)?;
            if descriptors.len() == before {
                // The table of descriptors is full, or the other end does not keep to the form.
                return Err(Errno::MFILE);
            }
        }
        let mut body = vec![0; body_bytes];
        if !self.receive_all(&mut body)? {
            return Ok(None);
        }
        Ok(Some(Frame { body, descriptors }))
    }

    fn receive_descriptors(&self, into: &mut Vec<OwnedFd>) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        retry(|| {
            let mut slices = [IoSliceMut::new(&mut byte)];
            rustix::net::recvmsg(&self.socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
        })?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                into.extend(received);
            }
        }
        Ok(())
    }

    fn send_all(&self, mut bytes: &[u8]) -> Result<(), Errno> {
        while !bytes.is_empty() {
            let sent = retry(|| rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL))?;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// Fills the buffer; false where the other end is gone before the first byte or after it.
    fn receive_all(&self, buffer: &mut [u8]) -> Result<bool, Errno> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match retry(|| rustix::net::recv(&self.socket, &mut *rest, RecvFlags::empty())) {
                Ok((0, _)) | Err(Errno::CONNRESET) => return Ok(false),
                Ok((received, _)) => filled += received,
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Repeats what a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Waits until one of the descriptors has something to read (or its other end is gone), for at most `patience`.
/// Returns which; none where the time passed or a signal came.
pub fn wait_readable(descriptors: &[BorrowedFd<'_>], patience: Option<Duration>) -> Result<Vec<bool>, Errno> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled: Vec<PollFd<'_>> = descriptors.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno),
    }
    Ok(polled.iter().map(|one| !one.revents().is_empty()).collect())
}

/// A stream socket connected to the unix socket at `path`, closed on exec.
pub fn connect(path: &[u8]) -> Result<OwnedFd, Errno> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
    let stream = std::os::unix::net::UnixStream::connect(path).map_err(|error| errno_of(&error))?;
    Ok(stream.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn frames_arrive_whole_and_in_order_with_their_descriptors() {
        let (one, other) = Channel::pair().expect("the system gives a pair");
        let null = super::super::daemon::dev_null().expect("there is a /dev/null");
        let sender = std::thread::spawn(move || {
            let many = vec![null.as_fd(); DESCRIPTORS_PER_MESSAGE * 2 + 1];
            one.send(b"", &[])?;
            one.send(b"first", &many[..1])?;
            one.send(&vec![7; 1 << 20], &many)?;
            one.send(b"last", &[])
        });
        let next = || other.receive().expect("no failure").expect("not the end");
        let sizes: Vec<(usize, usize)> = std::iter::repeat_with(next)
            .take(4)
            .map(|frame| {
                for fd in &frame.descriptors {
                    let flags = rustix::io::fcntl_getfd(fd).expect("it is open");
                    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "{}", fd.as_raw_fd());
                }
                (frame.body.len(), frame.descriptors.len())
            })
            .collect();
        assert_eq!(sizes, [(0, 0), (5, 1), (1 << 20, DESCRIPTORS_PER_MESSAGE * 2 + 1), (4, 0)]);
        sender.join().expect("no panic").expect("no failure");
        assert!(other.receive().expect("an end is no failure").is_none());
    }

    #[test]
    fn a_silent_or_lying_end_is_no_trap() {
        let (one, other) = Channel::pair().expect("the system gives a pair");
        other.set_patience(Some(Duration::from_millis(20))).expect("allowed");
        assert_eq!(other.receive().map(|_| ()), Err(Errno::AGAIN));
        one.send_all(&[0xff; 8]).expect("sent");
        assert_eq!(other.receive().map(|_| ()), Err(Errno::MSGSIZE));
        let (one, other) = Channel::pair().expect("the system gives a pair");
        // Says that a descriptor comes, and sends none.
        one.send_all(&[1, 0, 0, 0, 1, 0, 0, 0, b'x', b'y']).expect("sent");
        assert_eq!(other.receive().map(|_| ()), Err(Errno::MFILE));
        let (one, other) = Channel::pair().expect("the system gives a pair");
        one.send(b"short", &[]).expect("sent");
        assert_eq!(other.receive_message(), Ok(Some(b"short".to_vec())));
        one.send(b"with one", &[one.as_fd()]).expect("sent");
        assert_eq!(other.receive_message(), Err(Errno::MSGSIZE));
        let (one, other) = Channel::pair().expect("the system gives a pair");
        let head = (MESSAGE_BYTES_MAX as u32 + 1).to_ne_bytes();
        one.send_all(&[&head[..], &[0; 4]].concat()).expect("sent");
        assert_eq!(other.receive_message(), Err(Errno::MSGSIZE));
        let (one, other) = Channel::pair().expect("the system gives a pair");
        one.send_all(&[9, 0, 0, 0, 0, 0, 0, 0, b'x']).expect("sent");
        drop(one);
        assert!(other.receive().expect("an end is no failure").is_none());
    }

    #[test]
    fn waiting_ends_with_what_is_there_or_with_time() {
        let (one, other) = Channel::pair().expect("the system gives a pair");
        let (quiet, _kept) = Channel::pair().expect("the system gives a pair");
        let both = [quiet.as_fd(), other.as_fd()];
        assert_eq!(wait_readable(&both, Some(Duration::ZERO)), Ok(vec![false, false]));
        one.send(b"x", &[]).expect("sent");
        assert_eq!(wait_readable(&both, None), Ok(vec![false, true]));
    }
}
