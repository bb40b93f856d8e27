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

/// Serves a connection until it ends.
pub async fn serve(thread: Rc<Thread>, mut stream: Stream, listen: Address) {
    let _counted = thread.count_connection();
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
            None => {
                thread.log(
                    &snapshot,
                    Level::Error,
                    Some(facts.number),
                    format_args!("broken header while reading PROXY protocol, client: {}", facts.peer),
                );
                return;
            }
        }
    }
    drop(snapshot);
    requests(&thread, &facts, h1).await;
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
    KeepAlive(Duration),
    Close(Closing),
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
    let mut idle: Option<Duration> = None;
    loop {
        if let Some(keep) = idle
            && !wait_for_request(thread, &mut driver, keep).await
        {
            return close(driver, Closing::Now).await;
        }
        // The newest configuration serves each request, on connections of any age.
        let snapshot = thread.snapshot();
        let after = match request(thread, facts, &snapshot, &mut driver, &mut parts, idle.is_none()).await {
            Some(after) => after,
            None => return,
        };
        match after {
            After::KeepAlive(keep) => idle = Some(keep),
            After::Close(closing) => return close(driver, closing).await,
        }
    }
}

/// Waits for the first byte of another request; false when it does not come or the server stops.
async fn wait_for_request(thread: &Thread, driver: &mut Driver, keep: Duration) -> bool {
    let Driver::H1(h1) = driver else { return false };
    if !h1.pending().is_empty() {
        return true;
    }
    if thread.is_stopping() {
        return false;
    }
    let _idle = thread.count_idle();
    let end = Deadline::after(keep);
    // Busy clients come back at once; the buffers of the others are given back.
    let soon = Deadline::after(keep.min(BUSY_PAUSE));
    match race(h1.stream.stirred(soon), thread.stopped()).await {
        First::Left(Ok(())) => return true,
        First::Left(Err(StreamError::TimedOut)) => h1.rest(),
        First::Left(Err(_)) | First::Right(()) => return false,
    }
    matches!(race(h1.stream.stirred(end), thread.stopped()).await, First::Left(Ok(())))
}

async fn close(driver: Driver, closing: Closing) {
    let Driver::H1(h1) = driver else { return };
    match closing {
        Closing::Now => {}
        Closing::Lingering { time, pause } => h1.stream.linger(pause, time).await,
        Closing::Reset => h1.stream.reset(),
    }
}

/// Reads and serves one request. None: the connection is done with.
async fn request(
    thread: &Rc<Thread>,
    facts: &Facts,
    snapshot: &Arc<Snapshot>,
    driver: &mut Driver,
    parts: &mut Parts,
    first: bool,
) -> Option<After> {
    // A listener that the new configuration lacks: its connections end after the request under way.
    let listener = snapshot.listen_for(&facts.local, &facts.listen)?;
    let Driver::H1(h1) = driver else { return None };
    let default_site = snapshot.site(listener.default_site);
    facts.pipelined.set(!first && !h1.pending().is_empty());
    let mut head = std::mem::take(&mut parts.head);
    let read = read_head(h1, &mut head, default_site, first).await;
    facts.requests.set(facts.requests.get() + 1);
    let started_ms = h1.head_started_ms();
    let (refusal, length) = match read {
        Head::Complete(length) => (None, length),
        Head::Refused(refusal) => (Some(refusal), h1.pending().len()),
        Head::TimedOut { sent_some } => {
            thread.log(snapshot, Level::Info, Some(facts.number), format_args!("client timed out (110: Connection timed out) while waiting for request, client: {}, server: {}", facts.peer, facts.listen));
            parts.head = head;
            if !sent_some || first && h1.pending().is_empty() {
                return None;
            }
            let reset = snapshot.plan(default_site.plan).core.reset_timedout_connection.0;
            return Some(After::Close(if reset { Closing::Reset } else { Closing::Now }));
        }
        Head::Gone => return None,
    };
    if snapshot.variables.wants_tcp_info {
        facts.tcp_info.set(h1.stream.tcp_info());
    }
    let site = site_for(snapshot, listener, &head);
    let framing = head.framing();
    let mut request = Request::new(thread, snapshot, facts, site, head, std::mem::take(parts));
    request.started_ms = started_ms;
    request.received_bytes = length as u64;
    thread.count_request();
    let first_flow = match refusal {
        Some(refusal) => Some(refused(&mut request, h1, refusal)),
        None => {
            h1.begin(framing, request.head.expects_continue());
            prepare(&mut request, listener).map(Flow::Deny)
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
    /// It did not come in time.
    TimedOut { sent_some: bool },
    /// The client went away.
    Gone,
}

async fn read_head(h1: &mut H1, head: &mut RequestHead, site: &Site, first: bool) -> Head {
    let core = &site.core;
    let buffers = *core.large_client_header_buffers;
    let options = HeadOptions {
        ignore_invalid_headers: core.ignore_invalid_headers.0,
        underscores_in_headers: core.underscores_in_headers.0,
        merge_slashes: core.merge_slashes.0,
        header_line_bytes_max: buffers.size_bytes,
        large_buffers_max: buffers.count,
        fields_max: core.max_headers.0,
        ..HeadOptions::default()
    };
    head.clear();
    let deadline = Deadline::after(Duration::from_millis(core.client_header_timeout.0));
    loop {
        if !h1.pending().is_empty() {
            match http::parse_request_head(h1.pending(), &options, head) {
                Parse::Complete { consumed } => {
                    h1.consumed += consumed;
                    return Head::Complete(consumed);
                }
                Parse::Refused(refusal) => return Head::Refused(refusal),
                Parse::Incomplete => {}
            }
        }
        match h1.fill(HEAD_READ_BYTES, deadline).await {
            Ok(0) => return Head::Gone,
            Ok(_) => {}
            Err(StreamError::TimedOut) => {
                return Head::TimedOut { sent_some: !first || !h1.pending().is_empty() };
            }
            Err(_) => return Head::Gone,
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
fn prepare(request: &mut Request<'_>, listener: &Listen) -> Option<Status> {
    let host = request.head.host().unwrap_or_default().to_vec();
    if !listener.regexes.is_empty() && listener.names.find_name(&host).is_none() {
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
    request.settle_keep_alive();
    if request.method == http::Method::Trace {
        request.log_error(
            Level::Info,
            format_args!("client sent TRACE method while reading client request headers"),
        );
        return Some(Status::NOT_ALLOWED);
    }
    None
}

/// A head that cannot be served: logged, answered, and the connection ends.
fn refused(request: &mut Request<'_>, h1: &mut H1, refusal: Refusal) -> Flow {
    request.log_error(Level::Info, format_args!("{}", refusal.message));
    request.keep_alive = false;
    h1.consumed = h1.input.len();
    Flow::Deny(refusal.status)
}

/// Decides what becomes of the connection.
async fn after(request: &mut Request<'_>, driver: &mut Driver, ending: Ending) -> Option<After> {
    let core = &request.plan.core;
    if ending != Ending::Complete {
        let reset = ending == Ending::Broken && core.reset_timedout_connection.0;
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
        let keep_for = if request.thread.is_stopping() {
            core.keepalive_min_timeout.0
        } else {
            core.keepalive_timeout.milliseconds
        };
        return Some(After::KeepAlive(Duration::from_millis(keep_for)));
    }
    let unread = !driver.body_is_done() || matches!(driver, Driver::H1(h1) if !h1.pending().is_empty());
    let linger = match *core.lingering_close {
        LingeringClose::Off => false,
        LingeringClose::Always => true,
        LingeringClose::On => unread || request.body.length.is_some_and(|length| length > 0),
    };
    Some(After::Close(if linger { Closing::Lingering { time, pause } } else { Closing::Now }))
}
