//! One call, peer after peer until one answers.

use super::keepalive::{Connection, Owner};
use super::patience::Patience;
use super::settings::{NextUpstream, local_address};
use super::{Attempted, BodyFraming, Call, Peers, Upstream, UpstreamBody, reply};
use crate::driver::Driver;
use crate::flow::Flow;
use crate::race::{First, race};
use crate::{Request, body};
use balance::{Attempt, Key, Outcome, PeerIndex, Timings};
use bstr::ByteSlice;
use conf::Level;
use http::{Method, ResponseHead, ResponseOptions, ResponseParse, Status, Version};
use net::address::Address;
use net::connect::ConnectOptions;
use net::errno::{Errno, ErrnoMessage};
use net::stream::{Stream, StreamError};
use net::timer::Deadline;
use std::future::poll_fn;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

/// How much of a response is read at once while its head comes, bytes.
const HEAD_READ_BYTES: usize = 16 * 1024;
/// How much of a stored request body is sent at once, bytes.
const BODY_SEND_BYTES: usize = 64 * 1024;

/// Passes a request on and says how it goes on: with the upstream's answer or with an error.
pub async fn call(request: &mut Request<'_>, driver: &mut Driver, call: Box<Call>) -> Flow {
    let streaming = !call.settings.request_buffering.0 && !driver.body_is_done();
    if call.settings.pass_request_body.0
        && !streaming
        && let Err(error) = body::read_whole(request, driver).await
    {
        return Flow::Deny(error.status());
    }
    let ignore_abort = call.settings.ignore_client_abort.0 || streaming || request.subrequest;
    let flow = if ignore_abort {
        ask_peers(request, driver, &call, streaming).await
    } else {
        ask_while_client_waits(request, driver, &call).await
    };
    request.action = "";
    flow
}

/// Stops asking when the client goes away.
async fn ask_while_client_waits(request: &mut Request<'_>, driver: &mut Driver, call: &Call) -> Flow {
    // The body was read, so that the client's side is only watched while peers are asked.
    let mut nobody = Driver::discarding();
    let asked =
        race(ask_peers(request, &mut nobody, call, false), poll_fn(|cx| driver.poll_closed(cx))).await;
    match asked {
        First::Left(flow) => flow,
        First::Right(()) => {
            request.log_error(
                Level::Info,
                format_args!("client prematurely closed connection, so upstream connection is closed too"),
            );
            request.action = "";
            Flow::Deny(Status::CLIENT_CLOSED_REQUEST)
        }
    }
}

/// What every attempt of a call shares.
pub(super) struct Asking<'a> {
    pub(super) call: &'a Call,
    upstream: Arc<Upstream>,
    peers: Arc<Peers>,
    started_ms: u64,
    pub(super) streaming: bool,
}

async fn ask_peers(request: &mut Request<'_>, driver: &mut Driver, call: &Call, streaming: bool) -> Flow {
    let upstream = match super::names::upstream_of(request, call).await {
        Ok(upstream) => upstream,
        Err(status) => return Flow::Deny(status),
    };
    let peers = upstream.peers();
    let mut attempt = begin(request, &upstream, &peers);
    let limit = call.settings.next_upstream_tries.0;
    if limit > 0 {
        attempt.limit_tries(u32::try_from(limit).unwrap_or(u32::MAX));
    }
    let asking = Asking { call, upstream, peers, started_ms: net::clock::now_ms(), streaming };
    let mut first = true;
    loop {
        let Some(peer) = attempt.choose(net::clock::now_ms(), &mut net::random::next_u32) else {
            return no_live_upstreams(request, &asking, first);
        };
        let asked = ask(request, driver, &asking, attempt, peer, first).await;
        match asked {
            Ok(flow) => return flow,
            Err((back, failure)) => {
                attempt = back;
                if let Some(flow) = give_up(request, &asking, &mut attempt, failure) {
                    return flow;
                }
            }
        }
        first = false;
    }
}

/// What the peer is chosen by: the text of `hash`, or the client's address for `ip_hash`.
fn begin(request: &mut Request<'_>, upstream: &Upstream, peers: &Peers) -> Attempt {
    match &upstream.hash_key {
        Some(template) => {
            let text = request.render(template);
            peers.group.begin(Key::Text(&text))
        }
        None => peers.group.begin(Key::Client(request.client_address().ip())),
    }
}

fn no_live_upstreams(request: &mut Request<'_>, asking: &Asking<'_>, first: bool) -> Flow {
    request.attempts.push(Attempted {
        address: asking.upstream.name.to_vec(),
        status: Status::BAD_GATEWAY.0,
        response_ms: Some(0),
        new_call: first,
        ..Attempted::default()
    });
    request.upstream_uri.clone_from(&asking.call.url);
    request.action = "connecting to upstream";
    request.log_error(Level::Error, format_args!("no live upstreams"));
    Flow::Deny(Status::BAD_GATEWAY)
}

/// Why one peer did not answer.
struct Failure {
    /// The bit of `next_upstream`.
    reason: u32,
    /// What the client gets if it was the last.
    status: Status,
    /// Was anything of the request sent?
    request_sent: bool,
    /// Was it a connection kept from before? Its end says nothing about the peer.
    reused: bool,
    /// What it says about the peer.
    outcome: Outcome,
}

impl Failure {
    fn of(reason: u32, status: Status, outcome: Outcome, request_sent: bool) -> Failure {
        Failure { reason, status, request_sent, reused: false, outcome }
    }

    /// The answer is no answer.
    fn invalid() -> Failure {
        Failure::of(NextUpstream::INVALID_HEADER, Status::BAD_GATEWAY, Outcome::Failure, true)
    }
}

/// Settles a failed attempt; none: the next peer is asked.
fn give_up(
    request: &mut Request<'_>,
    asking: &Asking<'_>,
    attempt: &mut Attempt,
    failure: Failure,
) -> Option<Flow> {
    let now_ms = net::clock::now_ms();
    let elapsed_ms = now_ms.saturating_sub(asking.started_ms);
    note(request, |attempted| {
        attempted.status = failure.status.0;
        attempted.response_ms.get_or_insert(elapsed_ms);
    });
    let released =
        attempt.release(failure.outcome, now_ms, Timings { header_ms: None, response_ms: elapsed_ms });
    if released.disabled {
        request.log_error(Level::Warn, format_args!("upstream server temporarily disabled"));
    }
    if failure.reused {
        // The peer itself was not tried: a connection of before had ended.
        attempt.pardon();
    }
    let mut reason = failure.reason;
    if failure.request_sent && !is_repeatable(request.method) {
        reason |= NextUpstream::NON_IDEMPOTENT;
    }
    let settings = &asking.call.settings;
    let wanted =
        settings.next_upstream.bits & reason == reason && !settings.next_upstream.has(NextUpstream::OFF);
    let timeout = settings.next_upstream_timeout.0;
    let late = timeout > 0 && elapsed_ms >= timeout;
    let lost = failure.request_sent && asking.streaming;
    if wanted && attempt.tries_left() > 0 && !late && !lost {
        return None;
    }
    Some(Flow::Deny(failure.status))
}

/// Whether a request may be sent twice without a word from the configuration (RFC 9110 section 9.2.2, as nginx has it).
pub(super) fn is_repeatable(method: Method) -> bool {
    !matches!(method, Method::Post | Method::Lock | Method::Patch)
}

/// Asks one peer.
async fn ask(
    request: &mut Request<'_>,
    driver: &mut Driver,
    asking: &Asking<'_>,
    attempt: Attempt,
    peer: PeerIndex,
    first: bool,
) -> Result<Flow, (Attempt, Failure)> {
    let call = asking.call;
    let Some(address) = asking.peers.addresses.get(peer.index()).cloned() else {
        return Err((
            attempt,
            Failure::of(NextUpstream::ERROR, Status::BAD_GATEWAY, Outcome::NotCounted, false),
        ));
    };
    request.upstream_uri.clear();
    request.upstream_uri.extend_from_slice(b"http://");
    request.upstream_uri.extend_from_slice(&asking.peers.names[peer.index()]);
    request.upstream_uri.extend_from_slice(&call.target);
    let asked_ms = net::clock::now_ms();
    let name = asking.peers.names[peer.index()].clone();
    request.attempts.push(Attempted { address: name, new_call: first, ..Attempted::default() });
    match exchange(request, driver, asking, &attempt, address, asked_ms).await {
        Ok((head, mut body)) => {
            body.attempt = Some(attempt);
            Ok(reply::settle(request, call, head, body))
        }
        Err(failure) => Err((attempt, failure)),
    }
}

/// Connects, sends, and reads the head of the answer.
async fn exchange(
    request: &mut Request<'_>,
    driver: &mut Driver,
    asking: &Asking<'_>,
    attempt: &Attempt,
    address: Address,
    asked_ms: u64,
) -> Result<(ResponseHead, UpstreamBody), Failure> {
    let call = asking.call;
    request.action = "connecting to upstream";
    let owner = owner(request, &asking.upstream);
    let pooled = request.thread.pools.take(&owner, &address, &asking.upstream.keepalive);
    let reused = pooled.is_some();
    let mut patience = Patience::of(request, asking, attempt);
    let mut connection = match pooled {
        Some(connection) => connection,
        None => connect(request, call, &address, &patience).await?,
    };
    note(request, |attempted| attempted.connect_ms = Some(net::clock::now_ms().saturating_sub(asked_ms)));
    connection.requests += 1;

    let failed =
        |failure: Failure| Failure { reused: reused && failure.reason == NextUpstream::ERROR, ..failure };
    send(request, driver, asking, &mut connection.stream).await.map_err(failed)?;
    request.action = "reading response header from upstream";
    let mut input = Vec::new();
    let stream = &mut connection.stream;
    let head = read_head(request, driver, call, stream, &mut input, &mut patience).await.map_err(failed)?;
    let status = head.status;
    note(request, |attempted| {
        attempted.header_ms = Some(net::clock::now_ms().saturating_sub(asked_ms));
        attempted.status = status.0;
    });
    let reason = NextUpstream::of_status(status.0);
    if reason != 0 && attempt.tries_left() > 0 && call.settings.next_upstream.has(reason) {
        // 403 and 404 are answers, not failures of the peer.
        let outcome = if matches!(status.0, 403 | 404) { Outcome::Next } else { Outcome::Failure };
        return Err(Failure::of(reason, status, outcome, true));
    }
    let keeper = super::body::Keeper { owner, address, settings: asking.upstream.keepalive.clone() };
    let body =
        UpstreamBody::new(connection, input, &head, request.method, keeper, call.settings.clone(), asked_ms);
    Ok((head, body))
}

fn note(request: &mut Request<'_>, change: impl FnOnce(&mut Attempted)) {
    if let Some(attempted) = request.attempts.last_mut() {
        change(attempted);
    }
}

fn owner(request: &Request<'_>, upstream: &Upstream) -> Owner {
    let location = upstream.keepalive.local.then(|| request.plan.name.to_vec());
    Owner { upstream: upstream.name.to_vec(), location }
}

async fn connect(
    request: &mut Request<'_>,
    call: &Call,
    address: &Address,
    patience: &Patience<'_>,
) -> Result<Connection, Failure> {
    let mut options: ConnectOptions = call.settings.connect_options();
    if let Some(bind) = &*call.settings.bind
        && let Some(template) = &bind.address
    {
        let text = request.render(template);
        options.bind = local_address(&text);
        options.transparent = bind.transparent;
    }
    let deadline = patience.to_connect(Duration::from_millis(call.settings.connect_timeout.0));
    match net::connect::connect(address, &options, deadline).await {
        Ok(stream) => Ok(Connection { stream, requests: 0, made_ms: net::clock::now_ms() }),
        Err(error) => {
            request.log_error(Level::Error, format_args!("{error}"));
            let timed_out = error.errno == Errno::TIMEDOUT;
            let (reason, status) = if timed_out {
                (NextUpstream::TIMEOUT, Status::GATEWAY_TIME_OUT)
            } else {
                (NextUpstream::ERROR, Status::BAD_GATEWAY)
            };
            let outcome = if error.is_peer_fault() { Outcome::Failure } else { Outcome::NotCounted };
            Err(Failure::of(reason, status, outcome, false))
        }
    }
}

/// Sends head and body.
async fn send(
    request: &mut Request<'_>,
    driver: &mut Driver,
    asking: &Asking<'_>,
    stream: &mut Stream,
) -> Result<(), Failure> {
    let call = asking.call;
    request.action = "sending request to upstream";
    let mut head = Vec::with_capacity(1024);
    let framing = call.protocol.request(request, call, &mut head).map_err(client_failure)?;
    let pause = Duration::from_millis(call.settings.send_timeout.0);
    let replaced = call.protocol.body(request);
    let memory: &[u8] = match (&replaced, framing) {
        (Some(body), _) => body,
        (None, BodyFraming::None) => b"",
        (None, _) if asking.streaming => b"",
        (None, _) => &request.body.memory,
    };
    let sent = head.len() + memory.len();
    let mut parts = [IoSlice::new(&head), IoSlice::new(memory)];
    let written = stream.write_all(&mut parts, Deadline::between(pause)).await;
    note(request, |attempted| attempted.sent_bytes += sent as u64);
    let mut result = written;
    if result.is_ok() && replaced.is_none() && framing != BodyFraming::None {
        result = if asking.streaming {
            return stream_body(request, driver, stream, framing, pause).await;
        } else {
            send_file(request, stream, pause).await
        };
    }
    match result {
        Ok(()) => Ok(()),
        // An upstream may answer (413, say) and close before it has read everything: look for its answer.
        Err(error) if error.errno() == Errno::PIPE || error.errno() == Errno::CONNRESET => {
            if stream.is_idle_and_open() { Ok(()) } else { Err(sending_failed(request, &error)) }
        }
        Err(error) => Err(sending_failed(request, &error)),
    }
}

fn sending_failed(request: &Request<'_>, error: &StreamError) -> Failure {
    stream_failure(request, error, "send() failed", true)
}

/// A failure of a stream, logged in nginx's words.
fn stream_failure(request: &Request<'_>, error: &StreamError, what: &str, request_sent: bool) -> Failure {
    if matches!(error, StreamError::TimedOut) {
        request.log_error(Level::Error, format_args!("upstream timed out (110: Connection timed out)"));
        return Failure::of(NextUpstream::TIMEOUT, Status::GATEWAY_TIME_OUT, Outcome::Failure, request_sent);
    }
    request.log_error(Level::Error, format_args!("{what} ({})", ErrnoMessage(error.errno())));
    if matches!(error.errno(), Errno::TIMEDOUT | Errno::HOSTUNREACH) {
        // The host is gone, which is worse than a kept connection that had ended.
        return Failure::of(NextUpstream::TIMEOUT, Status::GATEWAY_TIME_OUT, Outcome::Failure, request_sent);
    }
    Failure::of(NextUpstream::ERROR, Status::BAD_GATEWAY, Outcome::Failure, request_sent)
}

/// The part of the body that is in a temporary file.
async fn send_file(
    request: &mut Request<'_>,
    stream: &mut Stream,
    pause: Duration,
) -> Result<(), StreamError> {
    let Some(file) = request.body.file.clone() else { return Ok(()) };
    let mut sent = 0;
    let total = request.body.stored_bytes;
    while sent < total {
        let count = stream
            .sendfile(file.file(), sent, total - sent, BODY_SEND_BYTES * 8, Deadline::between(pause))
            .await?;
        if count == 0 {
            return Err(StreamError::Os(Errno::IO));
        }
        sent += count;
    }
    note(request, |attempted| attempted.sent_bytes += sent);
    Ok(())
}

/// Passes the body on as it comes from the client.
async fn stream_body(
    request: &mut Request<'_>,
    driver: &mut Driver,
    stream: &mut Stream,
    framing: BodyFraming,
    pause: Duration,
) -> Result<(), Failure> {
    let client_pause = Duration::from_millis(request.plan.core.client_body_timeout.0);
    let limit = request.plan.core.client_max_body_size.0;
    let mut piece = Vec::new();
    let mut framed = Vec::new();
    loop {
        piece.clear();
        let read = driver.read_body(&mut piece, Deadline::after(client_pause)).await;
        let count = match read {
            Ok(count) => count,
            Err(error) => return Err(client_failure(error.status())),
        };
        request.body.received += count as u64;
        request.received_bytes += count as u64;
        if let Err(error) = body::check_size(request, limit) {
            return Err(client_failure(error.status()));
        }
        framed.clear();
        if framing == BodyFraming::Chunked {
            http::chunked::chunk_header(count, &mut framed);
        }
        let end: &[u8] = if framing == BodyFraming::Chunked { b"\r\n" } else { b"" };
        let mut parts = [IoSlice::new(&framed), IoSlice::new(&piece), IoSlice::new(end)];
        if let Err(error) = stream.write_all(&mut parts, Deadline::between(pause)).await {
            return Err(sending_failed(request, &error));
        }
        note(request, |attempted| attempted.sent_bytes += (framed.len() + piece.len() + end.len()) as u64);
        if count == 0 {
            request.body.read = true;
            return Ok(());
        }
    }
}

fn client_failure(status: Status) -> Failure {
    Failure::of(NextUpstream::OFF, status, Outcome::NotCounted, true)
}

/// Reads until the response's head is whole; what came behind it stays in `input`.
async fn read_head(
    request: &mut Request<'_>,
    driver: &mut Driver,
    call: &Call,
    stream: &mut Stream,
    input: &mut Vec<u8>,
    patience: &mut Patience<'_>,
) -> Result<ResponseHead, Failure> {
    let pause = Duration::from_millis(call.settings.read_timeout.0);
    let options = ResponseOptions { header_bytes_max: call.settings.buffer_size.0, status_line: true };
    let mut head = ResponseHead::default();
    loop {
        if !input.is_empty() {
            match http::parse_response_head(input, &options, &mut head) {
                ResponseParse::Complete { consumed } => {
                    input.drain(..consumed);
                    for warning in &head.warnings {
                        request.log_error(Level::Warn, format_args!("{}", warning.as_bstr()));
                    }
                    if !head.status.is_interim() {
                        return Ok(head);
                    }
                    interim(request, driver, &head).await;
                    head.clear();
                    continue;
                }
                ResponseParse::Refused(message) => {
                    request.log_error(Level::Error, format_args!("{}", message.as_bstr()));
                    return Err(Failure::invalid());
                }
                ResponseParse::Headless => {
                    request.log_error(Level::Error, format_args!("upstream sent no valid HTTP/1.0 header"));
                    head.clear();
                    head.version = Version::HTTP_09;
                    head.status = Status::OK;
                    return Ok(head);
                }
                ResponseParse::Incomplete => {}
            }
        }
        match patience.read_into(stream, input, HEAD_READ_BYTES, pause).await {
            Ok(0) => {
                request.log_error(Level::Error, format_args!("upstream prematurely closed connection"));
                return Err(Failure::of(NextUpstream::ERROR, Status::BAD_GATEWAY, Outcome::Failure, true));
            }
            Ok(count) => note(request, |attempted| attempted.received_bytes += count as u64),
            Err(error) => return Err(stream_failure(request, &error, "recv() failed", true)),
        }
    }
}

/// An interim response: 103 goes on to clients that may have it, others end here.
async fn interim(request: &mut Request<'_>, driver: &mut Driver, head: &ResponseHead) {
    if head.status != Status(103) {
        return;
    }
    let plan = request.plan;
    if !plan.core.early_hints.iter().any(|template| request.is_true(template)) {
        return;
    }
    let mut text = b"HTTP/1.1 103 Early Hints\r\n".to_vec();
    for (name, value) in head.fields.iter() {
        text.extend_from_slice(name);
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    // A client that is gone is noticed when the answer is sent.
    let _ = driver.send_interim(&text, crate::pump::send_deadline(request)).await;
}
