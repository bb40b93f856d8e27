//! Outgoing connections: to a back end, a resolver's server, a log collector.

use crate::address::Address;
use crate::errno::{Errno, ErrnoMessage, errno_of};
use crate::sockopt;
use crate::stream::{Stream, StreamError};
use crate::timer::Deadline;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// What to set on the socket before it connects.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// The local address (nginx's `proxy_bind`); port 0 lets the system choose one. Ignored where the peer is of
    /// another family, as nginx does.
    pub bind: Option<SocketAddr>,
    /// `proxy_bind ... transparent`: the local address may be one that is not ours. Needs `CAP_NET_RAW`.
    pub transparent: bool,
    /// `SO_KEEPALIVE` (`proxy_socket_keepalive`).
    pub keepalive: bool,
    /// How keep-alive probes are sent, where they are; the system's own rhythm is hours.
    pub probes: Option<Probes>,
    /// `TCP_USER_TIMEOUT`: how long sent bytes, or the attempt to connect, may stay without any sign of life from
    /// the peer's machine. A slow application never runs into it: its machine acknowledges.
    pub user_timeout: Option<Duration>,
    /// `TCP_NODELAY` from the start.
    pub nodelay: bool,
    /// `SO_RCVBUF` in bytes.
    pub receive_buffer_bytes: Option<usize>,
    /// `SO_SNDBUF` in bytes (`proxy_send_lowat` has no counterpart on Linux).
    pub send_buffer_bytes: Option<usize>,
}

/// The rhythm of keep-alive probes, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probes {
    /// Silence before the first probe (`TCP_KEEPIDLE`).
    pub idle: Duration,
    /// Between two probes (`TCP_KEEPINTVL`).
    pub interval: Duration,
    /// Unanswered probes after which the connection is broken (`TCP_KEEPCNT`).
    pub count: u32,
}

/// Why no connection was made. Displayed as nginx logs it: `connect() failed (111: Connection refused)`,
/// `upstream timed out (110: Connection timed out)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectError {
    /// Which step failed.
    pub step: ConnectStep,
    /// The error number; `ETIMEDOUT` where the deadline passed.
    pub errno: Errno,
}

/// A step of making a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectStep {
    /// `socket()`: usually out of descriptors; not the peer's fault.
    Socket,
    /// Setting an option, named.
    Option(&'static str),
    /// `bind()` to the local address.
    Bind,
    /// `connect()`: the peer's or the network's answer.
    Connect,
    /// The deadline passed without an answer.
    Wait,
}

impl ConnectError {
    /// True when the peer or the way to it is to blame, so that another peer may do better; false when this
    /// machine could not even try.
    pub fn is_peer_fault(&self) -> bool {
        matches!(self.step, ConnectStep::Connect | ConnectStep::Wait)
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            ConnectStep::Socket => "socket() failed",
            ConnectStep::Option(name) => {
                return write!(out, "setsockopt({name}) failed ({})", ErrnoMessage(self.errno));
            }
            ConnectStep::Bind => "bind() failed",
            ConnectStep::Connect => "connect() failed",
            ConnectStep::Wait => "upstream timed out",
        };
        write!(out, "{step} ({})", ErrnoMessage(self.errno))
    }
}

/// Connects without blocking the thread.
pub async fn connect(
    address: &Address,
    options: &ConnectOptions,
    deadline: Deadline,
) -> Result<Stream, ConnectError> {
    let fd = open(address)?;
    configure(&fd, address, options)?;
    let target = address.to_any().map_err(|errno| failed(ConnectStep::Connect, errno))?;
    let in_progress = match rustix::net::connect(&fd, &target) {
        Ok(()) => false,
        Err(Errno::INPROGRESS | Errno::INTR) => true,
        Err(errno) => return Err(failed(ConnectStep::Connect, errno)),
    };
    let mut stream = Stream::from_fd(fd, address);
    if in_progress {
        stream.connected(deadline).await.map_err(|error| match error {
            StreamError::TimedOut => failed(ConnectStep::Wait, Errno::TIMEDOUT),
            StreamError::Os(errno) => failed(ConnectStep::Connect, errno),
        })?;
    }
    Ok(stream)
}

#[cold]
fn failed(step: ConnectStep, errno: Errno) -> ConnectError {
    ConnectError { step, errno }
}

fn open(address: &Address) -> Result<OwnedFd, ConnectError> {
    let family = match address {
        Address::Inet(SocketAddr::V4(_)) => AddressFamily::INET,
        Address::Inet(SocketAddr::V6(_)) => AddressFamily::INET6,
        Address::Unix(_) => AddressFamily::UNIX,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    rustix::net::socket_with(family, SocketType::STREAM, flags, None)
        .map_err(|errno| failed(ConnectStep::Socket, errno))
}

fn configure(fd: &OwnedFd, address: &Address, options: &ConnectOptions) -> Result<(), ConnectError> {
    use rustix::net::sockopt;
    let option = |name| move |errno| failed(ConnectStep::Option(name), errno);
    if let Some(bytes) = options.receive_buffer_bytes {
        sockopt::set_socket_recv_buffer_size(fd, bytes).map_err(option("SO_RCVBUF"))?;
    }
    if let Some(bytes) = options.send_buffer_bytes {
        sockopt::set_socket_send_buffer_size(fd, bytes).map_err(option("SO_SNDBUF"))?;
    }
    let Address::Inet(peer) = address else { return Ok(()) };
    if options.keepalive {
        sockopt::set_socket_keepalive(fd, true).map_err(option("SO_KEEPALIVE"))?;
    }
    if let Some(probes) = options.probes {
        sockopt::set_tcp_keepidle(fd, probes.idle).map_err(option("TCP_KEEPIDLE"))?;
        sockopt::set_tcp_keepintvl(fd, probes.interval).map_err(option("TCP_KEEPINTVL"))?;
        sockopt::set_tcp_keepcnt(fd, probes.count).map_err(option("TCP_KEEPCNT"))?;
    }
    if let Some(timeout) = options.user_timeout {
        let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(fd, millis).map_err(option("TCP_USER_TIMEOUT"))?;
    }
    if options.nodelay {
        sockopt::set_tcp_nodelay(fd, true).map_err(option("TCP_NODELAY"))?;
    }
    bind_local(fd, peer, options)
}

fn bind_local(fd: &OwnedFd, peer: &SocketAddr, options: &ConnectOptions) -> Result<(), ConnectError> {
    let Some(local) = options.bind.filter(|local| local.is_ipv4() == peer.is_ipv4()) else { return Ok(()) };
    if options.transparent {
        let socket = socket2::SockRef::from(fd);
        let (set, name) = match local {
            SocketAddr::V4(_) => (socket.set_ip_transparent_v4(true), "IP_TRANSPARENT"),
            SocketAddr::V6(_) => (socket.set_ip_transparent_v6(true), "IPV6_TRANSPARENT"),
        };
        set.map_err(|error| failed(ConnectStep::Option(name), errno_of(&error)))?;
    }
    if local.port() == 0 {
        sockopt::set_bind_address_no_port(fd.as_fd());
    }
    rustix::net::bind(fd, &local).map_err(|errno| failed(ConnectStep::Bind, errno))
}
