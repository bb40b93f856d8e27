//! One client connection: heads one after the other, keep-alive, pipelining, and how it ends.

use crate::core::values::LingeringClose;
use crate::driver::{Driver, H1};
use crate::exchange::{self, Ending};
use crate::flow::Flow;
use crate::plan::{Listen, Site, Snapshot};
use crate::race::{First, race};
use crate::request::Parts;
use crate::thread::Thread;
use crate::{Request, upgrade};
use conf::Level;
use http::proxy_protocol::Header as ProxyProtocol;
use http::{HeadOptions, Parse, Refusal, RequestHead, Status};
use net::address::Address;
use net::stream::{Stream, StreamError};
use net::timer::Deadline;
use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The least that is read at once while a head comes, bytes.
const HEAD_READ_BYTES: usize = 2048;
/// The most a PROXY protocol header may take, bytes (nginx's `NGX_PROXY_PROTOCOL_MAX_HEADER`).
const PROXY_PROTOCOL_BYTES_MAX: usize = 4096;
/// How long a connection keeps its buffers while nothing comes.
const BUSY_PAUSE: Duration = Duration::from_millis(500);
/// How much of an unread request body is dropped to keep a connection, bytes.
const DISCARD_BYTES_MAX: u64 = 1 << 30;

/// What is known of a connection; the same for all its requests.
pub struct Facts {
    /// Its number in this process.
    pub number: u64,
    /// The other end.
    pub peer: Address,
    local: Address,
    /// The address of the listener that took it.
    pub listen: Address,
    /// Does it speak TLS?
    pub tls: bool,
    /// When it began, monotonic milliseconds.
    pub started_ms: u64,
    /// Requests so far.
    pub requests: Cell<u64>,
    /// Did the request under way come before the last answer went out?
    pub pipelined: Cell<bool>,
    /// What the PROXY protocol said.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The kernel's view of the connection when the request began, for `$tcpinfo_*`.
    pub tcp_info: Cell<Option<net::sockopt::TcpInfo>>,
}

impl Facts {
    /// This end.
    pub fn local_address(&self) -> &Address {
        &self.local
    }

    /// The same connection for a request that goes on beside it.
    pub fn copy(&self) -> Facts {
        Facts {
            number: self.number,
            peer: self.peer.clone(),
            local: self.local.clone(),
            listen: self.listen.clone(),
            tls: self.tls,
            started_ms: self.started_ms,
            requests: self.requests.clone(),
            pipelined: self.pipelined.clone(),
            proxy_protocol: self.proxy_protocol.clone(),
            tcp_info: self.tcp_info.clone(),
        }
    }

    /// The connection of a request that came on none (subrequests in tests).
    pub fn new(number: u64, peer: Address, local: Address, listen: Address) -> Facts {
        Facts {
            number,
            peer,
            local,
            listen,
            tls: false,
            started_ms: net::clock::now_ms(),
            requests: Cell::new(0),
            pipelined: Cell::new(false),
            proxy_protocol: None,
            tcp_info: Cell::new(None),
        }
    }
}

/// Serves a connection until it ends. It counts as one of the thread's from the call on.
pub fn serve(thread: Rc<Thread>, stream: Stream, listen: Address) -> impl Future<Output = ()> {
    let counted = thread.count_connection();
    async move {
        let _counted = counted;
        connection(thread, stream, listen).await;
    }
}

async fn connection(thread: Rc<Thread>, mut stream: Stream, listen: Address) {
    let local = stream.local_address().clone();
    let mut facts = Facts::new(thread.next_connection(), stream.peer_address().clone(), local, listen);
    let mut h1 = H1::new(stream);
    let snapshot = thread.snapshot();
    let Some(listener) = snapshot.listen_for(&facts.local, &facts.listen) else { return };
    if listener.proxy_protocol {
        let core = &snapshot.site(listener.default_site).core;
        let deadline = Deadline::after(Duration::from_millis(core.client_header_timeout.0));
        match read_proxy_protocol(&mut h1, deadline).await {
            Some(header) => facts.proxy_protocol = Some(header),
            None => return broken_proxy_protocol(&thread, &snapshot, &facts, h1.pending()),
        }
    }
    drop(snapshot);
    requests(&thread, &facts, h1).await;
}

/// Writes down that a connection ends because its PROXY protocol header is wrong; one that sent nothing is silent.
fn broken_proxy_protocol(thread: &Thread, snapshot: &Snapshot, facts: &Facts, sent: &[u8]) {
    if sent.is_empty() {
        return;
    }
    let end = memchr::memchr2(b'\r', b'\n', sent).unwrap_or(sent.len());
    let line = bstr::BStr::new(&sent[..end]);
    let (peer, listen) = (&facts.peer, &facts.listen);
    let text = format_args!(
        "broken header: \"{line}\" while reading PROXY protocol, client: {peer}, server: {listen}"
    );
    thread.log(snapshot, Level::Error, Some(facts.number), text);
}

async fn read_proxy_protocol(h1: &mut H1, deadline: Deadline) -> Option<ProxyProtocol> {
    loop {
        match http::proxy_protocol::parse(h1.pending()) {
            Ok(Some((header, length))) => {
                h1.consumed += length;
                return Some(header);
            }
            Ok(None) if h1.pending().len() < PROXY_PROTOCOL_BYTES_MAX => {
                if h1.fill(HEAD_READ_BYTES, deadline).await.ok()? == 0 {
                    return None;
                }
            }
            _ => return None,
        }
    }
}

/// What becomes of the connection after one request.
enum After {
    KeepAlive(Keep),
    Close(Closing),
}

/// How long a connection may idle.
#[derive(Clone, Copy)]
struct Keep {
    /// At least, also when the server stops or runs out of connections: `keepalive_min_timeout`.
    least: Duration,
    /// After that.
    rest: Duration,
}

/// How a connection ends.
enum Closing {
    /// At once.
    Now,
    /// After the client's last bytes were read.
    Lingering { time: Duration, pause: Duration },
    /// With a reset.
    Reset,
}

async fn requests(thread: &Rc<Thread>, facts: &Facts, h1: H1) {
    let mut driver = Driver::H1(Box::new(h1));
    let mut parts = Parts::default();
    let mut idle: Option<Keep> = None;
    loop {
        let first = match idle {
            None => Some(wait_for_first_request(thread, facts, &mut driver).await),
            Some(keep) if wait_for_request(thread, &mut driver, keep).await => None,
            Some(_) => return close(driver, Closing::Now).await,
        };
        // The newest configuration serves each request, on connections of any age.
        let snapshot = thread.snapshot();
        // In a box of its own, so that a connection that waits does not carry what serving a request takes.
        let after = match Box::pin(request(thread, facts, &snapshot, &mut driver, &mut parts, first)).await {
            Some(after) => after,
            None => return,
        };
        match after {
            After::KeepAlive(keep) => idle = Some(keep),
            After::Close(closing) => return close(driver, closing).await,
        }
    }
}

/// Waits for the first byte of a new connection; how that went shows when the head is read, for which the rest of
/// the time is left. No configuration is held meanwhile: the one that serves is the one of the first byte.
async fn wait_for_first_request(thread: &Thread, facts: &Facts, driver: &mut Driver) -> Deadline {
    let milliseconds = {
        let snapshot = thread.snapshot();
        let listener = snapshot.listen_for(&facts.local, &facts.listen);
        listener.map_or(0, |listener| snapshot.site(listener.default_site).core.client_header_timeout.0)
    };
    let deadline = Deadline::after(Duration::from_millis(milliseconds));
    if let Driver::H1(h1) = driver
        && h1.pending().is_empty()
    {
        let _idle = thread.count_idle();
        let _ = h1.stream.stirred(deadline).await;
    }
    deadline
}

/// Waits for the first byte of another request; false when it does not come, the server stops or the connection's
/// place is needed.
async fn wait_for_request(thread: &Thread, driver: &mut Driver, keep: Keep) -> bool {
    let Driver::H1(h1) = driver else { return false };
    if !h1.pending().is_empty() {
        return true;
    }
    let _idle = thread.count_idle();
    if !keep.least.is_zero() {
        match h1.stream.readable(Deadline::after(keep.least)).await {
            Ok(()) => return true,
            Err(StreamError::TimedOut) if !keep.rest.is_zero() => {}
            Err(_) => return false,
        }
    }
    if thread.is_stopping() {
        return false;
    }
    let end = Deadline::after(keep.rest);
    // Busy clients come back at once; the buffers of the others are given back.
    let soon = Deadline::after(keep.rest.min(BUSY_PAUSE));
    match race(h1.stream.stirred(soon), thread.dismissed()).await {
        First::Left(Ok(())) => return true,
        First::Left(Err(StreamError::TimedOut)) => h1.rest(),
        First::Left(Err(_)) | First::Right(()) => return false,
    }
    matches!(race(h1.stream.stirred(end), thread.dismissed()).await, First::Left(Ok(())))
}

async fn close(driver: Driver, closing: Closing) {
    let Driver::H1(h1) = driver else { return };
    // Whoever sees the end of the connection finds the request in the log, as with nginx.
    net::log::turn_ended();
    match closing {
        Closing::Now => {}
        Closing::Lingering { time, pause } => h1.stream.linger(pause, time).await,
        Closing::Reset => h1.stream.reset(),
    }
}

/// Reads and serves one request; `first` is the end of the time for the head of a connection's first one. None: the
/// connection is done with.
async fn request(
    thread: &Rc<Thread>,
    facts: &Facts,
    snapshot: &Arc<Snapshot>,
    driver: &mut Driver,
    parts: &mut Parts,
    first: Option<Deadline>,
) -> Option<After> {
    // A listener that the new configuration lacks: its connections end after the request under way.
    let listener = snapshot.listen_for(&facts.local, &facts.listen)?;
    let Driver::H1(h1) = driver else { return None };
    let default_site = snapshot.site(listener.default_site);
    facts.pipelined.set(first.is_none() && !h1.pending().is_empty());
    let mut head = std::mem::take(&mut parts.head);
    let read = read_head(h1, &mut head, default_site, thread, first).await;
    if let Head::Unfinished(_) = read
        && h1.pending().is_empty()
    {
        explain_silence(thread, snapshot, facts, &read, first.is_some());
        return None;
    }
    facts.requests.set(facts.requests.get() + 1);
    let started_ms = h1.head_started_ms();
    let length = match read {
        Head::Complete(length) => length,
        _ => h1.pending().len(),
    };
    if snapshot.variables.wants_tcp_info {
        facts.tcp_info.set(h1.stream.tcp_info());
    }
    if let Head::Unfinished(_) = read {
        head.settle(h1.pending());
    }
    let site = site_for(snapshot, listener, &head);
    let framing = head.framing();
    let mut request = Request::new(thread, snapshot, facts, site, head, std::mem::take(parts));
    request.started_ms = started_ms;
    request.received_bytes = length as u64;
    thread.count_request();
    let refusal = match read {
        Head::Complete(_) => None,
        Head::Refused(refusal) => Some(refusal),
        Head::Unfinished(why) => {
            unfinished(&mut request, why);
            let reset = request.timed_out && request.plan.core.reset_timedout_connection.0;
            *parts = request.into_parts();
            return Some(After::Close(if reset { Closing::Reset } else { Closing::Now }));
        }
    };
    let first_flow = match refusal {
        Some(refusal) => Some(refused(&mut request, h1, refusal)),
        None => {
            h1.begin(framing, request.head.expects_continue());
            prepare(&mut request, listener);
            None
        }
    };
    let ending = exchange::exchange(&mut request, driver, first_flow).await;
    let after = after(&mut request, driver, ending).await;
    *parts = request.into_parts();
    after
}

/// What came of reading a head.
enum Head {
    /// It is whole; its length in bytes.
    Complete(usize),
    /// It is wrong.
    Refused(Refusal),
    /// It did not come in time, or the client went away.
    Unfinished(Unfinished),
}

/// Why a head never became whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unfinished {
    /// It did not come in time.
    TimedOut,
    /// The client closed the connection.
    Closed,
    /// The connection broke.
    Broken(net::errno::Errno),
}

/// Writes down why nothing came on a connection.
fn explain_silence(thread: &Thread, snapshot: &Snapshot, facts: &Facts, read: &Head, first: bool) {
    let (peer, listen) = (&facts.peer, &facts.listen);
    let log =
        |message: std::fmt::Arguments<'_>| thread.log(snapshot, Level::Info, Some(facts.number), message);
    match read {
        Head::Unfinished(Unfinished::TimedOut) if first => {
            log(format_args!(
                "client timed out (110: Connection timed out) while waiting for request, client: {peer}, server: {listen}"
            ));
        }
        Head::Unfinished(Unfinished::Closed) if first => {
            log(format_args!(
                "client closed connection while waiting for request, client: {peer}, server: {listen}"
            ));
        }
        Head::Unfinished(Unfinished::Closed) => {
            log(format_args!("client {peer} closed keepalive connection"))
        }
        _ => {}
    }
}

/// A head that will never be whole: logged with a status, not answered.
fn unfinished(request: &mut Request<'_>, why: Unfinished) {
    request.action = "reading client request headers";
    let status = match why {
        Unfinished::TimedOut => {
            request.timed_out = true;
            request.log_error(Level::Info, format_args!("client timed out (110: Connection timed out)"));
            Status::REQUEST_TIME_OUT
        }
        Unfinished::Closed => {
            request.log_error(Level::Info, format_args!("client prematurely closed connection"));
            Status::BAD_REQUEST
        }
        Unfinished::Broken(errno) => {
            request
                .log_error(Level::Info, format_args!("recv() failed ({})", net::errno::ErrnoMessage(errno)));
            Status::BAD_REQUEST
        }
    };
    request.action = "";
    exchange::abandon(request, status);
}

/// Reads a head, until `end` where that is given. A connection counts as reading when its first bytes are not all.
async fn read_head(
    h1: &mut H1,
    head: &mut RequestHead,
    site: &Site,
    thread: &Thread,
    end: Option<Deadline>,
) -> Head {
    let core = &site.core;
    let buffers = *core.large_client_header_buffers;
    let options = HeadOptions {
        ignore_invalid_headers: core.ignore_invalid_headers.0,
        underscores_in_headers: core.underscores_in_headers.0,
        merge_slashes: core.merge_slashes.0,
        header_line_bytes_max: buffers.size_bytes,
        large_buffers_max: buffers.count,
        fields_max: core.max_headers.0,
        first_buffer_bytes: core.client_header_buffer_size.0,
        allow_connect: false,
        allow_extended_connect: false,
    };
    head.clear();
    let deadline =
        end.unwrap_or_else(|| Deadline::after(Duration::from_millis(core.client_header_timeout.0)));
    let mut reading = None;
    loop {
        if !h1.pending().is_empty() {
            match http::parse_request_head(h1.pending(), &options, head) {
                Parse::Complete { consumed } => {
                    h1.consumed += consumed;
                    return Head::Complete(consumed);
                }
                Parse::Refused(refusal) => return Head::Refused(refusal),
                Parse::Incomplete => _ = reading.get_or_insert_with(|| thread.count_reading()),
            }
        }
        match h1.fill(HEAD_READ_BYTES, deadline).await {
            Ok(0) => return Head::Unfinished(Unfinished::Closed),
            Ok(_) => {}
            Err(StreamError::TimedOut) => return Head::Unfinished(Unfinished::TimedOut),
            Err(error) => return Head::Unfinished(Unfinished::Broken(error.errno())),
        }
    }
}

/// The server for a host: exact, wildcards, regular expressions, then the address's default.
fn site_for<'s>(snapshot: &'s Snapshot, listener: &Listen, head: &RequestHead) -> &'s Site {
    let host = head.host().unwrap_or_default();
    let found = listener.names.find_name(host).copied();
    snapshot.site(found.unwrap_or(listener.default_site))
}

/// Looks at what only needs the head: the server by regular expression, the URI, the method.
fn prepare(request: &mut Request<'_>, listener: &Listen) {
    let host = request.head.host().unwrap_or_default();
    if !listener.regexes.is_empty() && listener.names.find_name(host).is_none() {
        let host = host.to_vec();
        let found = listener.regexes.iter().find(|(regex, _)| request.matches(regex, &host));
        if let Some((_, site)) = found {
            request.site = request.snapshot.site(*site);
            request.plan = request.snapshot.plan(request.site.plan);
        }
    }
    request.uri.extend_from_slice(&request.head.path);
    request.args.extend_from_slice(request.head.args());
    for line in request.head.ignored_lines() {
        let line = bstr::BStr::new(line);
        request.log_error(
            Level::Info,
            format_args!("client sent invalid header line: \"{line}\" while reading client request headers"),
        );
    }
    // The location may end it; the server's own settings only hold where no location is found.
    request.keep_alive = request.head.keep_alive();
}

/// A head that cannot be served: logged, answered, and the connection ends.
fn refused(request: &mut Request<'_>, h1: &mut H1, refusal: Refusal) -> Flow {
    request.action = "reading client request line";
    if request.head.is_past_request_line() {
        request.action = "reading client request headers";
    }
    request.log_error(Level::Info, format_args!("{}", refusal.message));
    request.action = "";
    request.keep_alive = false;
    // A client that is still sending would lose the answer to a reset.
    request.linger = refusal.lingering || !h1.pending().ends_with(b"\n\r\n");
    h1.consumed = h1.input.len();
    Flow::Deny(refusal.status)
}

/// Decides what becomes of the connection.
async fn after(request: &mut Request<'_>, driver: &mut Driver, ending: Ending) -> Option<After> {
    let core = &request.plan.core;
    if ending != Ending::Complete {
        let reset = request.timed_out && core.reset_timedout_connection.0;
        return Some(After::Close(if reset { Closing::Reset } else { Closing::Now }));
    }
    if request.response.upgraded {
        upgrade::ended(request);
        return Some(After::Close(Closing::Now));
    }
    let (time, pause) =
        (Duration::from_millis(core.lingering_time.0), Duration::from_millis(core.lingering_timeout.0));
    let Driver::H1(h1) = driver else { return None };
    let mut keep = request.keep_alive;
    if keep {
        keep = h1.discard_body(DISCARD_BYTES_MAX, time, pause).await;
    }
    if keep {
        let whole = core.keepalive_timeout.milliseconds;
        let least = core.keepalive_min_timeout.0;
        let rest = Duration::from_millis(whole.saturating_sub(least));
        return Some(After::KeepAlive(Keep { least: Duration::from_millis(least), rest }));
    }
    let unread = !driver.body_is_done() || matches!(driver, Driver::H1(h1) if !h1.pending().is_empty());
    let linger = match *core.lingering_close {
        LingeringClose::Off => false,
        LingeringClose::Always => true,
        LingeringClose::On => request.linger || unread,
    };
    Some(After::Close(if linger { Closing::Lingering { time, pause } } else { Closing::Now }))
}
