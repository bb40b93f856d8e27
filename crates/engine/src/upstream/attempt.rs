//! One call, peer after peer until one answers.

use super::converse::converse;
use super::http2::{Session, Upload};
use super::incoming::Incoming;
use super::keepalive::{Connection, Owner};
use super::patience::Patience;
use super::settings::{NextUpstream, local_address};
use super::{Attempted, Call, Destination, Peers, Upstream, UpstreamBody, reply};
use crate::driver::{BodyError, Driver};
use crate::flow::Flow;
use crate::race::{First, race};
use crate::{Request, body};
use balance::{Attempt, Key, Outcome, PeerIndex, Timings};
use conf::Level;
use http::{Method, ResponseFraming, ResponseHead, Status};
use net::address::Address;
use net::connect::{ConnectOptions, ConnectStep};
use net::errno::Errno;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Passes a request on and says how it goes on: with the upstream's answer or with an error.
pub async fn call(request: &mut Request<'_>, driver: &mut Driver, call: Box<Call>) -> Flow {
    let begun = match begin_at_once(request, driver, &call) {
        Some(begun) => begun,
        // In boxes: what is rare does not make every request larger.
        None => match Box::pin(begin_slowly(request, driver, &call)).await {
            Ok(begun) => begun,
            Err(status) => return Flow::Deny(status),
        },
    };
    let mut asking = Asking::new(call, begun);
    let mut attempt = asking.attempt(request);
    let mut first = true;
    loop {
        let Some(peer) = attempt.choose(net::clock::now_ms(), &mut net::random::next_u32) else {
            no_live_upstreams(request, &asking, first);
            return fail(request, asking, Status::BAD_GATEWAY);
        };
        asking.peer = peer;
        let failure = match exchange(request, driver, &asking, &attempt, first).await {
            Ok(answer) => return answered(request, asking, attempt, answer),
            Err(failure) => failure,
        };
        if let Some(status) = give_up(request, &asking, &mut attempt, failure) {
            return fail(request, asking, status);
        }
        first = false;
    }
}

/// No peer has answered.
#[cold]
fn fail(request: &mut Request<'_>, asking: Asking, status: Status) -> Flow {
    request.thread.spare.keep_buffer(asking.call.target);
    request.action = "";
    Flow::Deny(status)
}

/// What must be known before a peer is chosen: the group, and whether the body goes on as it comes from the client.
type Begun = (Arc<Upstream>, bool);

/// Begins a call where nothing has to be waited for: no body to read, no name to look up.
fn begin_at_once(request: &mut Request<'_>, driver: &Driver, call: &Call) -> Option<Begun> {
    let read = request.body.read || !call.settings.pass_request_body.0 || body::is_over(request, driver);
    if !read {
        return None;
    }
    Some((super::names::known_upstream(request, call)?, false))
}

async fn begin_slowly(request: &mut Request<'_>, driver: &mut Driver, call: &Call) -> Result<Begun, Status> {
    let streaming = prepare_body(request, driver, call).await.map_err(BodyError::status)?;
    let upstream = match (super::names::known_upstream(request, call), &call.destination) {
        (None, Destination::Host { host, port }) => super::names::make_upstream(request, host, *port).await?,
        (Some(upstream), _) => upstream,
        (None, Destination::Group(upstream)) => upstream.clone(),
    };
    Ok((upstream, streaming))
}

/// Reads the request's body, unless it is to go on as it comes: true then. A body that has come whole with the head
/// is treated like one that was read, as in nginx, so that it can be sent again.
async fn prepare_body(
    request: &mut Request<'_>,
    driver: &mut Driver,
    call: &Call,
) -> Result<bool, BodyError> {
    if !call.settings.pass_request_body.0 || request.body.read {
        return Ok(false);
    }
    if call.settings.request_buffering.0 || driver.body_is_done() {
        return body::read_whole(request, driver).await.map(|()| false);
    }
    let before = request.body.memory.len();
    driver.take_body_at_hand(&mut request.body.memory).inspect_err(|error| body::explain(request, *error))?;
    let count = (request.body.memory.len() - before) as u64;
    request.body.received += count;
    request.received_bytes += count;
    body::check_size(request, request.plan.core.client_max_body_size.0, count)?;
    request.body.read = driver.body_is_done();
    Ok(!request.body.read)
}

/// One call on its way: what is asked, and of whom.
pub(super) struct Asking {
    pub(super) call: Box<Call>,
    pub(super) upstream: Arc<Upstream>,
    peers: Arc<Peers>,
    /// The peer that is asked now, once one was chosen.
    peer: PeerIndex,
    /// When the call began, monotonic milliseconds.
    started_ms: u64,
    /// The body goes on as it comes from the client.
    pub(super) streaming: bool,
}

impl Asking {
    fn new(call: Box<Call>, (upstream, streaming): Begun) -> Asking {
        let peers = upstream.peers();
        let started_ms = net::clock::now_ms();
        Asking { call, upstream, peers, peer: PeerIndex(0), started_ms, streaming }
    }

    /// The way through the group. A peer is chosen by the text of `hash`, or by the client's address for `ip_hash`.
    fn attempt(&self, request: &mut Request<'_>) -> Attempt {
        let group = &self.peers.group;
        let mut attempt = match &self.upstream.hash_key {
            Some(template) => group.begin(Key::Text(&request.render(template))),
            None => group.begin(Key::Client(request.client_address().ip())),
        };
        let limit = self.call.settings.next_upstream_tries.0;
        if limit > 0 {
            attempt.limit_tries(u32::try_from(limit).unwrap_or(u32::MAX));
        }
        attempt
    }

    /// Where the peer is; none only where the group has no such peer.
    pub(super) fn address(&self) -> Option<&Address> {
        self.peers.addresses.get(self.peer.index())
    }

    /// Whose kept connections may be used.
    pub(super) fn owner(&self, request: &mut Request<'_>) -> Owner {
        let location = self.upstream.keepalive.local.then_some(&request.plan.name[..]);
        let owner = Owner::of(&self.upstream.name, location);
        let owner = if self.call.protocol.http2() { owner.over_http2() } else { owner };
        match &self.call.tls {
            Some(tls) => owner.through_tls(tls.number, &tls.kind_for(request)),
            None => owner,
        }
    }

    /// May another peer be asked after this, given what is left of tries and time? `reason` are the bits of
    /// `next_upstream` that must all be allowed.
    fn may_go_on(&self, request: &Request<'_>, mut reason: u32, request_sent: bool, tries_left: u32) -> bool {
        if request_sent && !is_repeatable(request.method) {
            reason |= NextUpstream::NON_IDEMPOTENT;
        }
        let settings = &self.call.settings;
        let wanted =
            settings.next_upstream.bits & reason == reason && !settings.next_upstream.has(NextUpstream::OFF);
        let limit_ms = settings.next_upstream_timeout.0;
        let late = limit_ms > 0 && net::clock::now_ms().saturating_sub(self.started_ms) >= limit_ms;
        let lost = request_sent && self.streaming;
        wanted && tries_left > 0 && !late && !lost
    }
}

fn no_live_upstreams(request: &mut Request<'_>, asking: &Asking, first: bool) {
    request.attempts.push(Attempted {
        address: Some(Arc::from(&asking.upstream.name[..])),
        status: Status::BAD_GATEWAY.0,
        response_ms: Some(0),
        new_call: first,
        ..Attempted::default()
    });
    name_upstream(request, &asking.upstream.name, &asking.call);
    request.action = "connecting to upstream";
    request.log_error(Level::Error, format_args!("no live upstreams"));
}

/// Why one peer did not answer.
pub(super) struct Failure {
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
    pub(super) fn of(reason: u32, status: Status, outcome: Outcome, request_sent: bool) -> Failure {
        Failure { reason, status, request_sent, reused: false, outcome }
    }

    /// The answer is no answer.
    pub(super) fn invalid() -> Failure {
        Failure::of(NextUpstream::INVALID_HEADER, Status::BAD_GATEWAY, Outcome::Failure, true)
    }

    /// It is not the peer's fault, and no other peer can help.
    pub(super) fn client(status: Status) -> Failure {
        Failure::of(NextUpstream::OFF, status, Outcome::NotCounted, true)
    }
}

/// Settles a failed attempt; the status to end with, or none: the next peer is asked.
fn give_up(
    request: &mut Request<'_>,
    asking: &Asking,
    attempt: &mut Attempt,
    failure: Failure,
) -> Option<Status> {
    let now_ms = net::clock::now_ms();
    let elapsed_ms = now_ms.saturating_sub(asking.started_ms);
    note(request, |attempted| {
        if failure.reason != NextUpstream::OFF {
            attempted.status = failure.status.0;
        }
        attempted.response_ms.get_or_insert(elapsed_ms);
    });
    // A connection of before had ended: that says nothing about the peer, and another one is tried.
    let outcome = if failure.reused { Outcome::NotCounted } else { failure.outcome };
    let released = attempt.release(outcome, now_ms, Timings { header_ms: None, response_ms: elapsed_ms });
    if released.disabled {
        request.log_error(Level::Warn, format_args!("upstream server temporarily disabled"));
    }
    if failure.reused {
        attempt.pardon();
    }
    if asking.may_go_on(request, failure.reason, failure.request_sent, attempt.tries_left()) {
        return None;
    }
    Some(failure.status)
}

/// What messages name as the upstream.
fn name_upstream(request: &mut Request<'_>, peer: &[u8], call: &Call) {
    let target = &call.target;
    request.upstream_uri.clear();
    request.upstream_uri.extend_from_slice(call.scheme.as_bytes());
    request.upstream_uri.extend_from_slice(peer);
    if peer.starts_with(b"unix:") {
        request.upstream_uri.push(b':');
    }
    // As in nginx, HTTP/2 leaves the target out.
    if !call.protocol.http2() {
        request.upstream_uri.extend_from_slice(target);
    }
}

/// Whether a request may be sent twice without a word from the configuration (RFC 9110 section 9.2.2, as nginx has it).
pub(super) fn is_repeatable(method: Method) -> bool {
    !matches!(method, Method::Post | Method::Lock | Method::Patch)
}

/// An answer whose head is here.
struct Answer {
    head: Box<ResponseHead>,
    /// Its body.
    incoming: Incoming,
    /// What was read beyond the head.
    beyond: Vec<u8>,
    /// When the peer was asked, monotonic milliseconds.
    asked_ms: u64,
}

/// Takes the answer over.
fn answered(request: &mut Request<'_>, asking: Asking, mut attempt: Attempt, answer: Answer) -> Flow {
    let now_ms = net::clock::now_ms();
    attempt.header(now_ms.saturating_sub(answer.asked_ms), now_ms);
    let owner = asking.owner(request);
    let body = UpstreamBody::new(answer.incoming, answer.beyond, asking, owner, attempt, answer.asked_ms);
    let flow = reply::settle(request, answer.head, body);
    request.action = "";
    flow
}

/// Asks one peer: connects, sends, and reads the head of the answer.
async fn exchange(
    request: &mut Request<'_>,
    driver: &mut Driver,
    asking: &Asking,
    attempt: &Attempt,
    first: bool,
) -> Result<Answer, Failure> {
    let asked_ms = net::clock::now_ms();
    let Some(address) = asking.address() else {
        return Err(Failure::of(NextUpstream::ERROR, Status::BAD_GATEWAY, Outcome::NotCounted, false));
    };
    let name = &asking.peers.names[asking.peer.index()];
    name_upstream(request, name, &asking.call);
    request.attempts.push(Attempted { address: Some(name.clone()), new_call: first, ..Attempted::default() });
    request.action = "connecting to upstream";
    let owner = asking.owner(request);
    let pooled = request.thread.pools.take(&owner, address, &asking.upstream.keepalive);
    let reused = pooled.is_some();
    let mut patience = Patience::of(request, asking, attempt);
    let mut connection = match pooled {
        Some(connection) => connection,
        None => Box::pin(connect(request, driver, &asking.call, address, &patience)).await?,
    };
    note(request, |attempted| attempted.connect_ms = Some(net::clock::now_ms().saturating_sub(asked_ms)));
    connection.requests += 1;
    let spoken = speak(request, driver, asking, &mut connection, &mut patience).await;
    let Spoken { head, beyond, rest } = spoken
        .map_err(|failure| Failure { reused: reused && failure.reason == NextUpstream::ERROR, ..failure })?;
    let status = head.status;
    note(request, |attempted| {
        attempted.header_ms = Some(net::clock::now_ms().saturating_sub(asked_ms));
        attempted.status = status.0;
    });
    let reason = NextUpstream::of_status(status.0);
    if reason != 0 && asking.may_go_on(request, reason, true, attempt.tries_left()) {
        // 403 and 404 are answers, not failures of the peer.
        let outcome = if matches!(status.0, 403 | 404) { Outcome::Next } else { Outcome::Failure };
        return Err(Failure::of(reason, status, outcome, true));
    }
    let incoming = match rest {
        Sent::Upload(upload) => Incoming::http2(connection, upload),
        Sent::Whole(whole) => {
            let keep = head.keep_alive(request.method) && whole;
            // After an upgrade everything is the other protocol's.
            let framing = match status {
                Status::SWITCHING_PROTOCOLS => ResponseFraming::UntilClose,
                _ => head.framing(request.method),
            };
            Incoming::new(connection, framing, keep)
        }
    };
    Ok(Answer { head, incoming, beyond, asked_ms })
}

/// What came of a request on a connection, in any protocol.
struct Spoken {
    head: Box<ResponseHead>,
    beyond: Vec<u8>,
    rest: Sent,
}

/// What of a request went out before its answer came.
enum Sent {
    /// All of it, or what an upstream that has answered takes of it: the connection then serves no other.
    Whole(bool),
    /// Its body still goes out.
    Upload(Box<Upload>),
}

/// Sends the request and reads the head of the answer, in the protocol's form.
async fn speak(
    request: &mut Request<'_>,
    driver: &mut Driver,
    asking: &Asking,
    connection: &mut Connection,
    patience: &mut Patience<'_>,
) -> Result<Spoken, Failure> {
    let Connection { stream, http2, .. } = connection;
    if asking.call.protocol.http2() {
        let session =
            http2.get_or_insert_with(|| Session::new(asking.call.protocol.header_bytes_max(&asking.call)));
        let talk = Box::pin(super::http2::converse(request, driver, asking, (session, stream), patience));
        let answered = talk.await?;
        let rest = Sent::Upload(Box::new(answered.upload));
        return Ok(Spoken { head: answered.head, beyond: Vec::new(), rest });
    }
    let answered = converse(request, driver, asking, stream, patience).await?;
    Ok(Spoken { head: answered.head, beyond: answered.beyond, rest: Sent::Whole(answered.request_sent) })
}

fn note(request: &mut Request<'_>, change: impl FnOnce(&mut Attempted)) {
    if let Some(attempted) = request.attempts.last_mut() {
        change(attempted);
    }
}

async fn connect(
    request: &mut Request<'_>,
    driver: &mut Driver,
    call: &Call,
    address: &Address,
    patience: &Patience<'_>,
) -> Result<Box<Connection>, Failure> {
    let mut options: ConnectOptions = call.settings.connect_options();
    if let Some(bind) = &*call.settings.bind
        && let Some(template) = &bind.address
    {
        let text = request.render(template);
        options.bind = local_address(&text);
        options.transparent = bind.transparent;
    }
    let place = request.thread.place_upstream().map_err(|most| {
        request.log_error(Level::Alert, format_args!("{most} worker_connections are not enough"));
        Failure::client(Status::INTERNAL_SERVER_ERROR)
    })?;
    let deadline = patience.to_connect(Duration::from_millis(call.settings.connect_timeout.0));
    let watched = !call.settings.ignore_client_abort.0;
    let gone = poll_fn(|cx| if watched { driver.poll_closed(cx) } else { Poll::Pending });
    let connected = match race(net::connect::connect(address, &options, deadline), gone).await {
        First::Left(connected) => connected,
        First::Right(()) => {
            super::client_is_gone(request);
            return Err(Failure::client(Status::CLIENT_CLOSED_REQUEST));
        }
    };
    match connected {
        Ok(mut stream) => {
            if let Some(tls) = &call.tls {
                super::tls::secure(request, tls, &mut stream, deadline).await?;
            }
            Ok(Box::new(Connection {
                stream,
                place,
                http2: None,
                requests: 0,
                made_ms: net::clock::now_ms(),
            }))
        }
        // This machine could not even try: no other peer would do better.
        Err(error) if !error.is_peer_fault() => {
            let level = if error.step == ConnectStep::Bind { Level::Crit } else { Level::Alert };
            request.log_error(level, format_args!("{error}"));
            Err(Failure::client(Status::INTERNAL_SERVER_ERROR))
        }
        Err(error) => {
            request.log_error(Level::Error, format_args!("{error}"));
            let timed_out = error.errno == Errno::TIMEDOUT;
            let (reason, status) = if timed_out {
                (NextUpstream::TIMEOUT, Status::GATEWAY_TIME_OUT)
            } else {
                (NextUpstream::ERROR, Status::BAD_GATEWAY)
            };
            Err(Failure::of(reason, status, Outcome::Failure, false))
        }
    }
}
