//! Socket options that the safe wrappers do not offer.

use crate::connect::Probes;
use crate::errno::{Errno, errno_of};
use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};

/// What nginx's `$tcpinfo_*` variables show of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// `$tcpinfo_rtt`: smoothed round-trip time in microseconds.
    pub rtt_us: u32,
    /// `$tcpinfo_rttvar`: its variation in microseconds.
    pub rttvar_us: u32,
    /// `$tcpinfo_snd_cwnd`: the congestion window in segments.
    pub snd_cwnd: u32,
    /// `$tcpinfo_rcv_space`: the receive window the kernel aims at, in bytes.
    pub rcv_space_bytes: u32,
    /// How long ago the peer's machine last acknowledged anything, milliseconds.
    pub last_acknowledged_ms: u32,
}

const IPPROTO_IP: c_int = 0;
const IPPROTO_TCP: c_int = 6;
const TCP_INFO: c_int = 11;
const IP_BIND_ADDRESS_NO_PORT: c_int = 24;

/// The first 104 bytes of the kernel's `struct tcp_info`, which it has had since Linux 2.6: eight small fields,
/// then twenty-four words.
#[repr(C)]
#[derive(Default)]
struct KernelTcpInfo {
    small: [u8; 8],
    words: [u32; 24],
}

/// Where the fields stand among the words.
const LAST_ACK_RECV: usize = 12;
const RTT: usize = 15;
const RTTVAR: usize = 16;
const SND_CWND: usize = 18;
const RCV_SPACE: usize = 22;

unsafe extern "C" {
    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut u32) -> c_int;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, length: u32) -> c_int;
}

/// Asks the kernel about a TCP connection; `None` where it is not TCP.
pub fn tcp_info(fd: BorrowedFd<'_>) -> Option<TcpInfo> {
    let mut info = KernelTcpInfo::default();
    let mut length = size_of::<KernelTcpInfo>() as u32;
    // SAFETY: the pointers are to live values of ours, and `length` says how many bytes the kernel may write,
    // all of which may hold any value.
    let result =
        unsafe { getsockopt(fd.as_raw_fd(), IPPROTO_TCP, TCP_INFO, (&raw mut info).cast(), &raw mut length) };
    (result == 0).then(|| TcpInfo {
        rtt_us: info.words[RTT],
        rttvar_us: info.words[RTTVAR],
        snd_cwnd: info.words[SND_CWND],
        rcv_space_bytes: info.words[RCV_SPACE],
        last_acknowledged_ms: info.words[LAST_ACK_RECV],
    })
}

/// `SO_KEEPALIVE`: while nothing is under way, the kernel asks the peer's machine for a sign of life, at this rhythm where
/// one is given. Fails where it is not TCP.
pub fn set_probes(fd: BorrowedFd<'_>, on: bool, rhythm: Option<Probes>) -> Result<(), Errno> {
    use rustix::net::sockopt;
    if let Some(probes) = rhythm {
        sockopt::set_tcp_keepidle(fd, probes.idle)?;
        sockopt::set_tcp_keepintvl(fd, probes.interval)?;
        sockopt::set_tcp_keepcnt(fd, probes.count)?;
    }
    sockopt::set_socket_keepalive(fd, on)
}

/// Lets `bind()` to an address without a port leave the choice of the port to `connect()`, so that outgoing
/// connections from one address are not limited to the number of ports. Best effort: old kernels refuse.
pub fn set_bind_address_no_port(fd: BorrowedFd<'_>) {
    let on: c_int = 1;
    // SAFETY: the kernel reads `size_of::<c_int>()` bytes from a live value.
    unsafe {
        setsockopt(
            fd.as_raw_fd(),
            IPPROTO_IP,
            IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<c_int>() as u32,
        );
    }
}

const TCP_DEFER_ACCEPT: c_int = 9;
const TCP_FASTOPEN: c_int = 23;

/// `listen ... fastopen=N`: how many connections may wait that sent data with their first packet (RFC 7413).
pub fn set_fastopen(fd: BorrowedFd<'_>, connections: c_int) -> Result<(), Errno> {
    set_tcp_integer(fd, TCP_FASTOPEN, connections)
}

/// `listen ... deferred`: connections are accepted when data came, or after that many seconds; 0 turns it off.
pub fn set_deferred_accept(fd: BorrowedFd<'_>, seconds: c_int) -> Result<(), Errno> {
    set_tcp_integer(fd, TCP_DEFER_ACCEPT, seconds)
}

fn set_tcp_integer(fd: BorrowedFd<'_>, name: c_int, value: c_int) -> Result<(), Errno> {
    // SAFETY: the kernel reads `size_of::<c_int>()` bytes from a live value.
    let failed = unsafe {
        let pointer = (&raw const value).cast();
        setsockopt(fd.as_raw_fd(), IPPROTO_TCP, name, pointer, size_of::<c_int>() as u32)
    };
    if failed == 0 { Ok(()) } else { Err(errno_of(&std::io::Error::last_os_error())) }
}
