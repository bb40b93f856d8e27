//! Listening sockets: which ones a set of `listen` directives needs, opening them with their options, keeping those
//! that are open already, taking over those of another program.
//!
//! Messages are nginx's. What happens around a failure is, too: an address in use is tried five times in two
//! seconds, any other failure at once is the end, and an option that cannot be set is logged and ignored.

mod inherited;

pub use inherited::inherit;

use crate::address::Address;
use crate::errno::{Errno, ErrnoMessage};
use crate::log::syslog::Severity;
use crate::sockopt::{set_deferred_accept, set_fastopen};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// nginx's `NGX_LISTEN_BACKLOG` on Linux.
pub const BACKLOG_DEFAULT: i32 = 511;
/// How often an address in use is tried.
const TRIES: u32 = 5;
/// How long is waited between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Connections or datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP, or a stream over a unix socket.
    #[default]
    Stream,
    /// UDP (`listen ... udp`, `quic`), or datagrams over a unix socket.
    Datagram,
}

/// What a `listen` directive asks for, as far as sockets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Where.
    pub address: Address,
    /// For what.
    pub transport: Transport,
    /// `bind`, or any option that implies it: a socket of its own even where a wildcard address of the same port
    /// would cover it.
    pub bind: bool,
    /// `backlog=`: connections that may wait to be accepted.
    pub backlog: i32,
    /// `reuseport`.
    pub reuseport: bool,
    /// `deferred`: accept when data came.
    pub deferred: bool,
    /// `fastopen=`.
    pub fastopen: Option<i32>,
    /// `so_keepalive=`.
    pub keepalive: Option<Keepalive>,
    /// `rcvbuf=`.
    pub receive_buffer_bytes: Option<usize>,
    /// `sndbuf=`.
    pub send_buffer_bytes: Option<usize>,
    /// `ipv6only=`; on by default.
    pub ipv6only: bool,
    /// `multipath`: Multipath TCP (RFC 8684).
    pub multipath: bool,
}

/// `so_keepalive=on|off|[idle]:[interval]:[probes]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// Probe idle connections at all.
    pub on: bool,
    /// After this long without traffic.
    pub idle: Option<Duration>,
    /// Then at this interval.
    pub interval: Option<Duration>,
    /// This many times.
    pub probes: Option<u32>,
}

impl ListenOptions {
    /// An address with nginx's defaults.
    pub fn new(address: Address) -> ListenOptions {
        ListenOptions {
            address,
            transport: Transport::Stream,
            bind: false,
            backlog: BACKLOG_DEFAULT,
            reuseport: false,
            deferred: false,
            fastopen: None,
            keepalive: None,
            receive_buffer_bytes: None,
            send_buffer_bytes: None,
            ipv6only: true,
            multipath: false,
        }
    }

    fn same_place(&self, other: &ListenOptions) -> bool {
        self.address == other.address && self.transport == other.transport
    }

    /// True where the kernel would not let both listen because one is a wildcard address over the other.
    fn overlaps(&self, other: &ListenOptions) -> bool {
        let (Some(one), Some(two)) = (self.address.ip(), other.address.ip()) else { return false };
        let spans_both = |options: &ListenOptions| options.address.is_wildcard() && !options.ipv6only;
        let same_family = one.is_ipv4() == two.is_ipv4();
        let wildcard = self.address.is_wildcard() || other.address.is_wildcard();
        let comparable =
            same_family || (one.is_ipv6() && spans_both(self)) || (two.is_ipv6() && spans_both(other));
        self.address.port() == other.address.port()
            && self.transport == other.transport
            && wildcard
            && comparable
    }
}

/// Which of the addresses need a socket of their own. As in nginx, one that names an address without further
/// options is served through the wildcard address of its port, where there is one. Repetitions need one socket.
pub fn needs_socket(wanted: &[ListenOptions]) -> Vec<bool> {
    let family = |address: &Address| address.ip().as_ref().map(IpAddr::is_ipv4);
    let covers = |wildcard: &ListenOptions, one: &ListenOptions| {
        wildcard.address.is_wildcard()
            && family(&wildcard.address) == family(&one.address)
            && wildcard.address.port() == one.address.port()
            && wildcard.transport == one.transport
    };
    let needs = |(index, one): (usize, &ListenOptions)| {
        let is_repeated = wanted.iter().take(index).any(|earlier| earlier.same_place(one));
        let is_covered =
            !one.bind && !one.address.is_wildcard() && wanted.iter().any(|other| covers(other, one));
        !is_repeated && !is_covered
    };
    wanted.iter().enumerate().map(needs).collect()
}

/// An open listening socket.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What it was opened with.
    pub options: ListenOptions,
    /// The socket: non-blocking, closed on exec.
    pub socket: Arc<OwnedFd>,
    /// It came from another program, which may still use it.
    pub is_inherited: bool,
}

/// A call that failed on a socket; prints as nginx logs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenError {
    /// The call and the address: `bind() to 0.0.0.0:80`.
    pub call: String,
    /// Why.
    pub errno: Errno,
    /// The server goes on without what was asked for.
    pub is_ignored: bool,
}

impl fmt::Display for ListenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ignored = if self.is_ignored { ", ignored" } else { "" };
        write!(out, "{} failed{ignored} ({})", self.call, ErrnoMessage(self.errno))
    }
}

/// Why a set of sockets could not be opened. It has been logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotListening;

/// Takes messages with their severity.
pub type Report<'a> = &'a mut dyn FnMut(Severity, &str);

/// Opens the sockets for `wanted`, keeping those of `open` that are at the same place. Every entry of `wanted` gets a
/// socket: pick with [`needs_socket`] first. After an error nothing of what was opened stays open, and nothing
/// that was open has changed but for SO_REUSEPORT.
pub fn open(
    wanted: &[ListenOptions],
    open: &[Listener],
    report: Report<'_>,
) -> Result<Vec<Listener>, NotListening> {
    let mut opened: Vec<Option<Listener>> = wanted.iter().map(|options| kept(options, open)).collect();
    let is_kept: Vec<bool> = opened.iter().map(Option::is_some).collect();
    for tries_left in (0..TRIES).rev() {
        for (options, slot) in wanted.iter().zip(&mut opened) {
            if slot.is_some() {
                continue;
            }
            match open_beside(options, open) {
                Ok(socket) => {
                    let socket = Arc::new(socket);
                    *slot = Some(Listener { options: options.clone(), socket, is_inherited: false });
                }
                Err(error) => {
                    report(Severity::Emerg, &error.to_string());
                    if error.errno != Errno::ADDRINUSE {
                        return give_up(opened, &is_kept);
                    }
                }
            }
        }
        if opened.iter().all(Option::is_some) {
            break;
        }
        report(Severity::Notice, "try again to bind() after 500ms");
        std::thread::sleep(PAUSE);
        if tries_left == 0 {
            report(Severity::Emerg, "still could not bind()");
            return give_up(opened, &is_kept);
        }
    }
    let listeners: Vec<Listener> = opened.into_iter().flatten().collect();
    for listener in &listeners {
        let before = open.iter().find(|other| Arc::ptr_eq(&other.socket, &listener.socket));
        configure(listener, before.map(|before| &before.options), report);
    }
    Ok(listeners)
}

/// What `-t` does: binds what is not open yet, and closes it again. An address in use is no error.
pub fn test(wanted: &[ListenOptions], report: Report<'_>) -> Result<(), NotListening> {
    for options in wanted {
        let plain = ListenOptions { reuseport: false, ..options.clone() };
        match open_socket(&plain, false) {
            Ok(_) => remove_socket_file(&options.address, report),
            Err(error) if error.errno == Errno::ADDRINUSE => {}
            Err(error) => {
                report(Severity::Emerg, &error.to_string());
                return Err(NotListening);
            }
        }
    }
    Ok(())
}

/// Removes the file of a unix socket that is no longer listened on.
pub fn remove_socket_file(address: &Address, report: Report<'_>) {
    let Some(path) = socket_file(address) else { return };
    if let Err(errno) = rustix::fs::unlink(path) {
        let message = format!("unlink() {} failed ({})", bstr::BStr::new(path), ErrnoMessage(errno));
        report(Severity::Emerg, &message);
    }
}

/// The open socket at the same place, if there is one that can serve.
fn kept(options: &ListenOptions, open: &[Listener]) -> Option<Listener> {
    let serves = |listener: &&Listener| {
        listener.options.same_place(options)
            && (listener.is_inherited || listener.options.multipath == options.multipath)
    };
    let listener = open.iter().find(serves)?;
    Some(Listener { options: options.clone(), ..listener.clone() })
}

/// Opens a socket where one of ours may be in the way, which is about to be closed: a wildcard address in place of
/// a special one, or another protocol. Both share the port with SO_REUSEPORT meanwhile.
fn open_beside(options: &ListenOptions, open: &[Listener]) -> Result<OwnedFd, ListenError> {
    let in_the_way = |listener: &&Listener| {
        listener.options.same_place(options) && options.address.inet().is_some()
            || listener.options.overlaps(options)
    };
    let mut shares = false;
    for listener in open.iter().filter(in_the_way) {
        shares |= sockopt::set_socket_reuseport(&listener.socket, true).is_ok();
    }
    let socket = open_socket(options, shares)?;
    if shares && !options.reuseport {
        // It stays shareable then, which does no harm.
        let _ = sockopt::set_socket_reuseport(&socket, false);
    }
    Ok(socket)
}

fn open_socket(options: &ListenOptions, shares_port: bool) -> Result<OwnedFd, ListenError> {
    let address = &options.address;
    let failed = |call: String| move |errno| ListenError { call, errno, is_ignored: false };
    let family = match address.ip() {
        Some(IpAddr::V4(_)) => AddressFamily::INET,
        Some(IpAddr::V6(_)) => AddressFamily::INET6,
        None => AddressFamily::UNIX,
    };
    let kind = match options.transport {
        Transport::Stream => SocketType::STREAM,
        Transport::Datagram => SocketType::DGRAM,
    };
    let protocol = options.multipath.then_some(rustix::net::ipproto::MPTCP);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, protocol)
        .map_err(failed(format!("socket() {address}")))?;
    sockopt::set_socket_reuseaddr(&socket, true)
        .map_err(failed(format!("setsockopt(SO_REUSEADDR) {address}")))?;
    if (options.reuseport || shares_port) && family != AddressFamily::UNIX {
        sockopt::set_socket_reuseport(&socket, true)
            .map_err(failed(format!("setsockopt(SO_REUSEPORT) {address}")))?;
    }
    if family == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&socket, options.ipv6only)
            .map_err(failed(format!("setsockopt(IPV6_V6ONLY) {address}")))?;
    }
    let bind_failed = || failed(format!("bind() to {address}"));
    let system_address = address.to_any().map_err(bind_failed())?;
    rustix::net::bind(&socket, &system_address).map_err(bind_failed())?;
    if let Some(path) = socket_file(address) {
        let everyone = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
        rustix::fs::chmod(path, everyone)
            .map_err(failed(format!("chmod() \"{}\"", bstr::BStr::new(path))))?;
    }
    if options.transport == Transport::Stream {
        let call = format!("listen() to {address}, backlog {}", options.backlog);
        rustix::net::listen(&socket, options.backlog).map_err(failed(call))?;
    }
    Ok(socket)
}

/// Sets what may change while a socket is open. `before`: what it was opened with, if it was open.
fn configure(listener: &Listener, before: Option<&ListenOptions>, report: Report<'_>) {
    let (options, socket) = (&listener.options, &*listener.socket);
    let address = &options.address;
    let mut tried = |call: String, result: Result<(), Errno>| {
        if let Err(errno) = result {
            let error = ListenError { call: format!("{call} {address}"), errno, is_ignored: true };
            report(Severity::Alert, &error.to_string());
        }
    };
    if let Some(bytes) = options.receive_buffer_bytes {
        let set = sockopt::set_socket_recv_buffer_size(socket, bytes);
        tried(format!("setsockopt(SO_RCVBUF, {bytes})"), set);
    }
    if let Some(bytes) = options.send_buffer_bytes {
        let set = sockopt::set_socket_send_buffer_size(socket, bytes);
        tried(format!("setsockopt(SO_SNDBUF, {bytes})"), set);
    }
    if let Some(Keepalive { on, idle, interval, probes }) = options.keepalive {
        tried(
            format!("setsockopt(SO_KEEPALIVE, {})", u8::from(on)),
            sockopt::set_socket_keepalive(socket, on),
        );
        if let Some(idle) = idle {
            let set = sockopt::set_tcp_keepidle(socket, idle);
            tried(format!("setsockopt(TCP_KEEPIDLE, {})", idle.as_secs()), set);
        }
        if let Some(interval) = interval {
            let set = sockopt::set_tcp_keepintvl(socket, interval);
            tried(format!("setsockopt(TCP_KEEPINTVL, {})", interval.as_secs()), set);
        }
        if let Some(probes) = probes {
            tried(format!("setsockopt(TCP_KEEPCNT, {probes})"), sockopt::set_tcp_keepcnt(socket, probes));
        }
    }
    if let Some(connections) = options.fastopen {
        let set = set_fastopen(socket.as_fd(), connections);
        tried(format!("setsockopt(TCP_FASTOPEN, {connections})"), set);
    }
    if before.is_some_and(|before| before.backlog != options.backlog)
        && options.transport == Transport::Stream
    {
        let mut call = format!("listen() to {address}, backlog {}", options.backlog);
        if let Err(errno) = rustix::net::listen(socket, options.backlog) {
            call.push_str(" failed, ignored");
            report(Severity::Alert, &format!("{call} ({})", ErrnoMessage(errno)));
        }
    }
    // How long a connection waited cannot be known, hence one second, as in nginx.
    if options.deferred || before.is_some_and(|before| before.deferred) {
        let seconds = i32::from(options.deferred);
        if let Err(errno) = set_deferred_accept(socket.as_fd(), seconds) {
            let call = format!("setsockopt(TCP_DEFER_ACCEPT, {seconds}) for {address}");
            report(Severity::Alert, &ListenError { call, errno, is_ignored: true }.to_string());
        }
    }
}

/// Closes what was opened, and removes the files that came with it.
fn give_up(opened: Vec<Option<Listener>>, is_kept: &[bool]) -> Result<Vec<Listener>, NotListening> {
    for (listener, is_kept) in opened.into_iter().zip(is_kept) {
        if let (Some(listener), false) = (listener, is_kept) {
            remove_socket_file(&listener.options.address, &mut |_, _| {});
        }
    }
    Err(NotListening)
}

/// The file of a unix socket; none for an internet address and in Linux's abstract space.
fn socket_file(address: &Address) -> Option<&[u8]> {
    match address {
        Address::Unix(path) if path.first().is_some_and(|&byte| byte != 0) => Some(path),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn inet(text: &str) -> ListenOptions {
        ListenOptions::new(Address::Inet(text.parse().expect("an address")))
    }

    /// A free port of 127.0.0.1, held by a listener of its own.
    fn busy() -> (std::net::TcpListener, ListenOptions) {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = Address::Inet(holder.local_addr().expect("it has an address"));
        (holder, ListenOptions::new(address))
    }

    /// Opens and returns what was reported as well.
    fn opened(
        wanted: &[ListenOptions],
        before: &[Listener],
    ) -> (Result<Vec<Listener>, NotListening>, Vec<String>) {
        let mut reports = Vec::new();
        let result =
            open(wanted, before, &mut |severity, text| reports.push(format!("{severity:?}: {text}")));
        (result, reports)
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("listen-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
        folder
    }

    #[test]
    fn a_wildcard_covers_what_does_not_insist() {
        let bound = |text| ListenOptions { bind: true, ..inet(text) };
        let unix = ListenOptions::new(Address::unix(b"/run/a"));
        let cases: [(&[ListenOptions], &[bool]); 8] = [
            (&[inet("0.0.0.0:80"), inet("127.0.0.1:80")], &[true, false]),
            (&[inet("127.0.0.1:80"), inet("0.0.0.0:80")], &[false, true]),
            (&[bound("127.0.0.1:80"), inet("0.0.0.0:80")], &[true, true]),
            (&[inet("127.0.0.1:80"), inet("0.0.0.0:81")], &[true, true]),
            (&[inet("127.0.0.1:80"), inet("[::]:80")], &[true, true]),
            (&[inet("[::1]:80"), inet("[::]:80")], &[false, true]),
            (&[inet("127.0.0.1:80"), inet("127.0.0.1:80")], &[true, false]),
            (&[unix.clone(), inet("0.0.0.0:80"), unix], &[true, true, false]),
        ];
        for (wanted, expected) in cases {
            assert_eq!(needs_socket(wanted), expected, "{wanted:?}");
        }
    }

    #[test]
    fn an_address_in_use_is_tried_five_times() {
        let (_holder, options) = busy();
        let started = std::time::Instant::now();
        let (result, reports) = opened(&[inet("127.0.0.1:0"), options.clone()], &[]);
        assert!(result.is_err());
        assert!(started.elapsed() >= PAUSE * (TRIES - 1));
        let failed = format!("Emerg: bind() to {} failed (98: Address already in use)", options.address);
        let again = "Notice: try again to bind() after 500ms".to_owned();
        let mut expected: Vec<String> = std::iter::repeat_n([failed, again], 5).flatten().collect();
        expected.push("Emerg: still could not bind()".to_owned());
        assert_eq!(reports, expected);
        // A test of the configuration does not mind.
        assert_eq!(test(&[options], &mut |_, text| panic!("{text}")), Ok(()));
    }

    #[test]
    fn any_other_failure_is_the_end_at_once_and_closes_the_rest() {
        let folder = folder("failure");
        let path = folder.join("a.sock");
        let unix = ListenOptions::new(Address::unix(path.as_os_str().as_encoded_bytes()));
        // An address that is not ours (RFC 5737).
        let foreign = inet("192.0.2.1:80");
        let (result, reports) = opened(&[unix, foreign.clone()], &[]);
        assert!(result.is_err());
        let message = "bind() to 192.0.2.1:80 failed (99: Cannot assign requested address)";
        assert_eq!(reports, [format!("Emerg: {message}")]);
        assert!(!path.exists(), "what was opened before is gone");
        let mut tested = Vec::new();
        assert_eq!(test(&[foreign], &mut |_, text| tested.push(text.to_owned())), Err(NotListening));
        assert_eq!(tested, [message]);
        std::fs::remove_dir_all(folder).expect("it is ours");
    }

    #[test]
    fn sockets_at_the_same_place_are_kept_and_reconfigured() {
        let (holder, options) = busy();
        drop(holder);
        let (first, reports) = opened(std::slice::from_ref(&options), &[]);
        let first = first.expect("the port is free again");
        assert_eq!(reports, [""; 0]);
        let changed = ListenOptions { backlog: 7, deferred: true, fastopen: Some(3), ..options.clone() };
        let (second, reports) = opened(&[inet("127.0.0.1:0"), changed], &first);
        let second = second.expect("it is open");
        assert_eq!(reports, [""; 0]);
        assert!(Arc::ptr_eq(&first[0].socket, &second[1].socket));
        assert_eq!(second[1].options.backlog, 7);
        // The wildcard address takes the port of the special one over while that is still open.
        let wildcard = ListenOptions::new(Address::Inet(([0, 0, 0, 0], options.address.port()).into()));
        let (third, reports) = opened(&[wildcard], &second);
        assert!(third.is_ok(), "{reports:?}");
    }

    #[test]
    fn options_reach_the_socket() {
        let keepalive = Keepalive {
            on: true,
            idle: Some(Duration::from_secs(11)),
            interval: Some(Duration::from_secs(12)),
            probes: Some(13),
        };
        let options = ListenOptions {
            reuseport: true,
            keepalive: Some(keepalive),
            receive_buffer_bytes: Some(8192),
            ..inet("127.0.0.1:0")
        };
        let (listeners, reports) = opened(&[options], &[]);
        let socket = &listeners.expect("a free port")[0].socket;
        assert_eq!(reports, [""; 0]);
        assert_eq!(sockopt::socket_reuseport(socket), Ok(true));
        assert_eq!(sockopt::socket_keepalive(socket), Ok(true));
        assert_eq!(sockopt::tcp_keepidle(socket), Ok(Duration::from_secs(11)));
        assert_eq!(sockopt::tcp_keepintvl(socket), Ok(Duration::from_secs(12)));
        assert_eq!(sockopt::tcp_keepcnt(socket), Ok(13));
        // The kernel doubles it for its own needs.
        assert_eq!(sockopt::socket_recv_buffer_size(socket), Ok(16384));
        let flags = rustix::io::fcntl_getfd(socket).expect("it is open");
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn an_option_that_does_not_fit_is_reported_and_ignored() {
        let folder = folder("ignored");
        let path = folder.join("a.sock");
        let unix = ListenOptions {
            fastopen: Some(3),
            deferred: true,
            ..ListenOptions::new(Address::unix(path.as_os_str().as_encoded_bytes()))
        };
        let (listeners, reports) = opened(std::slice::from_ref(&unix), &[]);
        assert!(listeners.is_ok());
        let address = &unix.address;
        let fastopen = format!(
            "Alert: setsockopt(TCP_FASTOPEN, 3) {address} failed, ignored (95: Operation not supported)"
        );
        let deferred = format!(
            "Alert: setsockopt(TCP_DEFER_ACCEPT, 1) for {address} failed, ignored (95: Operation not supported)"
        );
        assert_eq!(reports, [fastopen, deferred]);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&path.metadata().expect("it is there").permissions());
        assert_eq!(mode & 0o777, 0o666);
        remove_socket_file(&unix.address, &mut |_, text| panic!("{text}"));
        assert!(!path.exists());
        assert_eq!(test(&[unix], &mut |_, text| panic!("{text}")), Ok(()));
        assert!(!path.exists(), "a test leaves nothing behind");
        std::fs::remove_dir_all(folder).expect("it is ours");
    }
}
