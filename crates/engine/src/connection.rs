//! One client connection: heads one after the other, keep-alive, pipelining, and how it ends.

mod beginning;
mod desk;

pub use desk::Desks;

use crate::core::ServerCore;
use crate::core::values::LingeringClose;
use crate::driver::{Driver, H1};
use crate::exchange::{self, Ending};
use crate::flow::Flow;
use crate::plan::{Listen, Site, Snapshot};
use crate::thread::Thread;
use crate::{Request, h2, tls, upgrade};
use beginning::{Manners, Spoken};
use conf::Level;
use desk::Sitting;
use http::proxy_protocol::Header as ProxyProtocol;
use http::{HeadOptions, Parse, Refusal, RequestHead, Status};
use net::accept::Ends;
use net::address::Address;
use net::errno::{Errno, ErrnoMessage};
use net::stream::{Stream, StreamError};
use net::timer::Deadline;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The least that is read at once while a head comes, bytes.
const HEAD_READ_BYTES: usize = 2048;
/// How long a connection that was answered stays at its desk while nothing comes. Longer costs memory, shorter costs those
/// who come back soon a few hundred instructions.
const STAY: Duration = Duration::from_millis(8);
/// How much of an unread request body is dropped to keep a connection, bytes.
const DISCARD_BYTES_MAX: u64 = 1 << 30;

/// What is known of a connection; the same for all its requests.
pub struct Facts {
    /// Its number in this process.
    pub number: u64,
    /// The other end.
    pub peer: Address,
    /// Where it is another one than the listener's: a wildcard takes connections for all of a machine's addresses.
    local: Option<Box<Address>>,
    /// The address of the listener that took it.
    pub listen: Arc<Address>,
    /// Does it speak TLS?
    pub tls: bool,
    /// What is known of its TLS.
    pub session: Option<Rc<tls::Session>>,
    /// When it began, monotonic milliseconds.
    pub started_ms: u64,
    /// Requests so far.
    pub requests: Cell<u64>,
    /// Did the request under way come before the last answer went out?
    pub pipelined: Cell<bool>,
    /// What the PROXY protocol said.
    pub proxy_protocol: Option<Box<ProxyProtocol>>,
    /// The kernel's view of the connection when the request began, for `$tcpinfo_*`.
    pub tcp_info: Cell<Option<Box<net::sockopt::TcpInfo>>>,
}

impl Facts {
    /// This end.
    pub fn local_address(&self) -> &Address {
        self.local.as_deref().unwrap_or(&self.listen)
    }

    /// The same connection with what is known of its TLS.
    pub fn with_session(&self, session: tls::Session) -> Facts {
        Facts { tls: true, session: Some(Rc::new(session)), ..self.clone() }
    }

    /// The connection of a request that came on none (subrequests in tests).
    pub fn new(number: u64, peer: Address, local: Address, listen: Arc<Address>) -> Facts {
        let local = (local != *listen).then(|| Box::new(local));
        Facts {
            number,
            peer,
            local,
            listen,
            tls: false,
            session: None,
            started_ms: net::clock::now_ms(),
            requests: Cell::new(0),
            pipelined: Cell::new(false),
            proxy_protocol: None,
            tcp_info: Cell::new(None),
        }
    }
}

impl Clone for Facts {
    /// The same connection for a request that goes on beside it.
    fn clone(&self) -> Facts {
        Facts {
            number: self.number,
            peer: self.peer.clone(),
            local: self.local.clone(),
            listen: self.listen.clone(),
            tls: self.tls,
            session: self.session.clone(),
            started_ms: self.started_ms,
            requests: self.requests.clone(),
            pipelined: self.pipelined.clone(),
            proxy_protocol: self.proxy_protocol.clone(),
            tcp_info: Cell::new(None),
        }
    }
}

/// Serves a connection until it ends; it counts as one of the thread's from the call on. `held` is kept until then.
///
/// It rests, and is at a desk while requests of it are served ([`Desks`]), so that a thousand connections that wait cost
/// little more than their sockets. For the same reason all it keeps is made before the future, which would hold the
/// arguments of a function twice.
pub fn serve(
    thread: Rc<Thread>,
    mut stream: Stream,
    ends: Ends,
    listen: Arc<Address>,
    held: impl Sized + 'static,
) -> impl Future<Output = ()> {
    let counted = thread.count_connection();
    let mut facts = Rc::new(Facts::new(thread.next_connection(), ends.peer, ends.local, listen));
    let Manners { needs_beginning, may_be_http2, end } = beginning::manners(&thread, &facts);
    let mut keep = Keep { undisturbed: end, end };
    stream.expect_data();
    // What was read ahead, in a box for it is nearly always nothing.
    let mut ahead: Option<Box<Vec<u8>>> = None;
    async move {
        let _until_the_end = (&counted, &held);
        if needs_beginning {
            let begun =
                beginning::begin(&thread, Rc::make_mut(&mut facts), &mut stream, &mut ahead, keep.end);
            match Box::pin(begun).await {
                Some(Spoken::Http1) => {}
                Some(Spoken::Http2) => {
                    return Box::pin(h2::serve(&thread, facts, stream, Vec::new())).await;
                }
                None => return,
            }
        }
        loop {
            if ahead.is_none() {
                match wait(&thread, &keep, |cx, end| stream.poll_stirred(cx, end)).await {
                    Some(Ok(())) => {}
                    Some(Err(error)) => return explain_silence(&thread, &facts, &stream, &Err(error)),
                    None => return,
                }
            }
            if may_be_http2 && facts.requests.get() == 0 && !facts.tls {
                let spoken = h2::is_spoken(&mut stream, ahead.get_or_insert_default(), keep.end);
                if Box::pin(spoken).await == Ok(true) {
                    return Box::pin(h2::serve(&thread, facts, stream, *ahead.unwrap_or_default())).await;
                }
            }
            let ahead = ahead.take().map(|ahead| *ahead);
            let counted = thread.burst.join();
            let rested = Desks::serve(&thread, Sitting { facts: facts.clone(), stream, ahead, keep }).await;
            counted.rest();
            match rested {
                Some(resting) => (stream, keep) = resting,
                None => return,
            }
        }
    }
}

/// What becomes of the connection after one request.
enum After {
    KeepAlive(Keep),
    Close(Closing),
}

/// How long a connection may wait for a request.
#[derive(Clone, Copy)]
struct Keep {
    /// Until then also when the server stops or runs out of connections: `keepalive_min_timeout`, and all of the time
    /// before the first request.
    undisturbed: Deadline,
    /// At most.
    end: Deadline,
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

/// Serves a request that has begun to come, and those that have come behind it.
async fn sit(request: &mut Request<'_>, sitting: Sitting) -> End {
    let Sitting { facts, stream, ahead, mut keep } = sitting;
    let (thread, snapshot) = (request.thread, request.snapshot);
    let Some(listener) = snapshot.listen_for(facts.local_address(), &facts.listen) else {
        return End::Left(None);
    };
    let mut driver = Driver::H1(H1::new(stream, ahead, &thread.spare));
    let mut stays = false;
    let came = loop {
        let Driver::H1(h1) = &mut driver else { return End::Left(None) };
        match first_bytes(thread, &facts, h1, &keep, stays).await {
            Came::Bytes if thread.serves(snapshot) => {}
            other => break other,
        }
        let after = serve_request(request, &mut driver, &facts, listener, &keep).await;
        request.renew();
        match after {
            Some(After::KeepAlive(next)) => (keep, stays) = (next, true),
            Some(After::Close(closing)) => break Came::End(closing),
            None => return End::Left(None),
        }
    };
    let Driver::H1(h1) = driver else { return End::Left(None) };
    match came {
        Came::Bytes => {
            let ahead = Some(h1.pending().to_vec());
            End::Reloaded(Sitting { facts, stream: h1.part(&thread.spare), ahead, keep })
        }
        Came::Nothing => End::Left(Some((h1.part(&thread.spare), keep))),
        Came::End(closing) => {
            close(h1.part(&thread.spare), closing).await;
            End::Left(None)
        }
    }
}

/// Why requests of a connection are not served on.
enum End {
    /// There is a new configuration.
    Reloaded(Sitting),
    /// Nothing more has come yet: what is left of the connection; none: it has ended.
    Left(Option<(Stream, Keep)>),
}

/// What has come of a request.
enum Came {
    /// Its first bytes.
    Bytes,
    /// Nothing yet.
    Nothing,
    /// There will be none: the connection ends.
    End(Closing),
}

/// Reads the first bytes of a request, where some have come; a connection that `stays` is waited on for a moment.
async fn first_bytes(thread: &Thread, facts: &Facts, h1: &mut H1, keep: &Keep, stays: bool) -> Came {
    let ahead = h1.begins_at_once();
    facts.pipelined.set(ahead && facts.requests.get() > 0);
    if ahead {
        return Came::Bytes;
    }
    let read = if stays {
        let pause = Deadline::after(STAY);
        let soon = Keep { undisturbed: keep.undisturbed.min(pause), end: keep.end.min(pause) };
        match wait(thread, &soon, |cx, end| h1.poll_fill(cx, HEAD_READ_BYTES, end)).await {
            Some(Err(StreamError::TimedOut)) if !keep.end.has_passed() => Ok(None),
            Some(read) => read.map(Some),
            None => return Came::End(Closing::Now),
        }
    } else {
        h1.try_fill(HEAD_READ_BYTES)
    };
    match read {
        Ok(Some(1..)) => Came::Bytes,
        Ok(None) => Came::Nothing,
        end => {
            explain_silence(thread, facts, &h1.stream, &end.map(|count| count.unwrap_or(0)));
            Came::End(Closing::Now)
        }
    }
}

/// Waits for something of a request; none: the server stops, or the connection's place is
/// needed. (A function that returns its future holds its arguments once, an asynchronous one twice.)
#[expect(clippy::manual_async_fn)]
fn wait<T>(
    thread: &Thread,
    keep: &Keep,
    mut poll: impl FnMut(&mut Context<'_>, Deadline) -> Poll<Result<T, StreamError>>,
) -> impl Future<Output = Option<Result<T, StreamError>>> {
    async move {
        let _idle = thread.count_idle();
        let mut dismissed = thread.dismissed();
        poll_fn(|cx| {
            if !keep.undisturbed.has_passed() {
                match poll(cx, keep.undisturbed) {
                    Poll::Ready(Err(StreamError::TimedOut))
                        if keep.undisturbed.has_passed() && !keep.end.has_passed() => {}
                    polled => return polled.map(Some),
                }
            }
            match poll(cx, keep.end) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending if thread.is_stopping() => Poll::Ready(None),
                Poll::Pending => dismissed.poll(cx).map(|()| None),
            }
        })
        .await
    }
}

async fn close(stream: Stream, closing: Closing) {
    // Whoever sees the end of the connection finds the request in the log, as with nginx.
    net::log::turn_ended();
    match closing {
        Closing::Now => {}
        Closing::Lingering { time, pause } => stream.linger(pause, time).await,
        Closing::Reset => stream.reset(),
    }
}

/// Reads and serves one request, whose first bytes are there. None: the connection is done with.
async fn serve_request(
    request: &mut Request<'_>,
    driver: &mut Driver,
    facts: &Facts,
    listener: &Listen,
    keep: &Keep,
) -> Option<After> {
    let Driver::H1(h1) = &mut *driver else { return None };
    let (thread, snapshot) = (request.thread, request.snapshot);
    let default_site = snapshot.site(listener.default_site);
    // The time for the first head runs from the connection's beginning.
    let end = if facts.requests.get() == 0 {
        keep.end
    } else {
        after_ms(default_site.core.client_header_timeout.0)
    };
    let read = read_head(h1, &mut request.head, default_site, thread, end).await;
    facts.requests.set(facts.requests.get() + 1);
    let length = match read {
        Head::Complete(length) => length,
        _ => h1.pending().len(),
    };
    if snapshot.variables.wants_tcp_info {
        facts.tcp_info.set(h1.stream.tcp_info().map(Box::new));
    }
    if let Head::Unfinished(_) = read {
        request.head.settle(h1.pending());
    }
    request.begin(site_for(snapshot, listener, facts, &request.head));
    request.started_ms = h1.head_started_ms();
    request.received_bytes = length as u64;
    thread.count_request();
    let first_flow = match read {
        Head::Complete(_) => {
            h1.begin(request.head.framing(), request.head.expects_continue());
            prepare(request, listener);
            tls::refusal(request, listener)
        }
        Head::Refused(refusal) => Some(refused(request, h1, refusal)),
        Head::Unfinished(why) => {
            unfinished(request, why);
            let reset = request.timed_out && request.plan.core.reset_timedout_connection.0;
            return Some(After::Close(if reset { Closing::Reset } else { Closing::Now }));
        }
    };
    let ending = exchange::exchange(request, driver, first_flow).await;
    after(request, driver, ending).await
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
#[derive(Debug, PartialEq, Eq)]
enum Unfinished {
    /// It did not come in time.
    TimedOut,
    /// The client closed the connection.
    Closed,
    /// The connection broke, as nginx says it.
    Broken(String),
}

/// Writes down why no request came.
#[cold]
fn explain_silence(thread: &Thread, facts: &Facts, stream: &Stream, end: &Result<usize, StreamError>) {
    let (peer, listen) = (facts.peer.host(), &facts.listen);
    let snapshot = thread.snapshot();
    let log =
        |message: std::fmt::Arguments<'_>| thread.log(&snapshot, Level::Info, Some(facts.number), message);
    let first = facts.requests.get() == 0;
    let action = if first { "waiting for request" } else { "keepalive" };
    let told = |what: &str| log(format_args!("{what} while {action}, client: {peer}, server: {listen}"));
    match end {
        Err(StreamError::TimedOut) if first => told("client timed out (110: Connection timed out)"),
        Err(StreamError::TimedOut) => {}
        Ok(_) if first => told("client closed connection"),
        Ok(_) => log(format_args!("client {peer} closed keepalive connection")),
        Err(StreamError::Os(errno @ Errno::CONNRESET)) if !first => {
            log(format_args!("client {peer} closed keepalive connection ({})", ErrnoMessage(*errno)));
        }
        Err(StreamError::Os(errno)) => {
            told(stream.read_failure(*errno).as_deref().unwrap_or("client closed connection"));
        }
    }
}

/// A head that will never be whole: logged with a status, not answered.
#[cold]
fn unfinished(request: &mut Request<'_>, why: Unfinished) {
    request.action = reading(&request.head);
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
        Unfinished::Broken(failure) => {
            request.log_error(Level::Info, format_args!("{failure}"));
            Status::BAD_REQUEST
        }
    };
    request.action = "";
    exchange::abandon(request, status);
}

/// How heads are read, by the settings of the address's default server.
pub(crate) fn head_options(core: &ServerCore) -> HeadOptions {
    let buffers = *core.large_client_header_buffers;
    HeadOptions {
        ignore_invalid_headers: core.ignore_invalid_headers.0,
        underscores_in_headers: core.underscores_in_headers.0,
        merge_slashes: core.merge_slashes.0,
        header_line_bytes_max: buffers.size_bytes,
        large_buffers_max: buffers.count,
        fields_max: core.max_headers.0,
        first_buffer_bytes: core.client_header_buffer_size.0,
        allow_connect: false,
        allow_extended_connect: false,
    }
}

/// Reads a head whose first bytes are there. The connection counts as reading when they are not all.
async fn read_head(
    h1: &mut H1,
    head: &mut RequestHead,
    site: &Site,
    thread: &Thread,
    deadline: Deadline,
) -> Head {
    let options = head_options(&site.core);
    let mut reading = None;
    loop {
        match http::parse_request_head(h1.pending(), &options, head) {
            Parse::Complete { consumed } => {
                h1.consumed += consumed;
                return Head::Complete(consumed);
            }
            Parse::Refused(refusal) => return Head::Refused(refusal),
            Parse::Incomplete => _ = reading.get_or_insert_with(|| thread.count_reading()),
        }
        match h1.fill(HEAD_READ_BYTES, deadline).await {
            Ok(0) => return Head::Unfinished(Unfinished::Closed),
            Ok(_) => {}
            Err(StreamError::TimedOut) => return Head::Unfinished(Unfinished::TimedOut),
            Err(error) => {
                let failure = h1.stream.read_failure(error.errno());
                return Head::Unfinished(failure.map_or(Unfinished::Closed, Unfinished::Broken));
            }
        }
    }
}

/// The server for a host: exact, wildcards, regular expressions, then the address's default. A request that names no
/// host is for the server whose name began the connection's TLS.
pub(crate) fn site_for<'s>(
    snapshot: &'s Snapshot,
    listener: &Listen,
    facts: &Facts,
    head: &RequestHead,
) -> &'s Site {
    let found = match (head.host(), &facts.session) {
        (None, Some(session)) => {
            let name = session.server_name.as_ref();
            name.and_then(|name| tls::site_named(snapshot, listener, name.as_bytes()))
        }
        (host, _) => listener.names.find_name(host.unwrap_or_default()).map(|id| snapshot.site(*id)),
    };
    found.unwrap_or(snapshot.site(listener.default_site))
}

/// Looks at what only needs the head: the server by regular expression, the URI, the method.
pub(crate) fn prepare(request: &mut Request<'_>, listener: &Listen) {
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
        if request.head.version >= http::Version::HTTP_2 {
            request.log_error(Level::Info, format_args!("client sent invalid header: \"{line}\""));
            continue;
        }
        request.log_error(
            Level::Info,
            format_args!("client sent invalid header line: \"{line}\" while reading client request headers"),
        );
    }
    // The location may end it; the server's own settings only hold where no location is found.
    request.keep_alive = request.head.keep_alive();
}

/// What is being read of a head that is not whole.
fn reading(head: &RequestHead) -> &'static str {
    match head.is_past_request_line() {
        true => "reading client request headers",
        false => "reading client request line",
    }
}

/// A head that cannot be served: logged, answered, and the connection ends.
#[cold]
fn refused(request: &mut Request<'_>, h1: &mut H1, refusal: Refusal) -> Flow {
    request.action = reading(&request.head);
    request.log_error(Level::Info, format_args!("{}", refusal.message));
    request.action = "";
    request.keep_alive = false;
    // A client that is still sending would lose the answer to a reset.
    request.linger = refusal.lingering || !h1.pending().ends_with(b"\n\r\n");
    h1.consumed = h1.input.len();
    Flow::Deny(refusal.status)
}

fn after_ms(milliseconds: u64) -> Deadline {
    Deadline::after(Duration::from_millis(milliseconds))
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
        let least = core.keepalive_min_timeout.0;
        let undisturbed = if least > 0 { after_ms(least) } else { Deadline::PASSED };
        let end = after_ms(core.keepalive_timeout.milliseconds.max(least));
        return Some(After::KeepAlive(Keep { undisturbed, end }));
    }
    let unread = !driver.body_is_done() || matches!(driver, Driver::H1(h1) if !h1.pending().is_empty());
    let linger = match *core.lingering_close {
        LingeringClose::Off => false,
        LingeringClose::Always => true,
        LingeringClose::On => request.linger || unread,
    };
    Some(After::Close(if linger { Closing::Lingering { time, pause } } else { Closing::Now }))
}
