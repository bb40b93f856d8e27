//! One request on one connection: it is sent and the answer's head is read, both at once, while the client is
//! watched. An upstream may answer before it has seen the whole request; what is left of it is not sent then.

use super::attempt::{Asking, Failure};
use super::patience::Patience;
use super::settings::NextUpstream;
use super::{Attempted, BodyFraming};
use crate::Request;
use crate::body::check_size;
use crate::driver::{BodyError, Driver};
use balance::Outcome;
use bstr::ByteSlice;
use conf::Level;
use http::{Fields, ResponseHead, ResponseOptions, ResponseParse, Status, Version};
use net::errno::{Errno, ErrnoMessage};
use net::file::temporary::TemporaryFile;
use net::stream::Stream;
use net::timer::Deadline;
use std::borrow::Cow;
use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How much of a response is read at once while its head comes, bytes.
const HEAD_READ_BYTES: usize = 16 * 1024;
/// Room for the head of a request, bytes; more is made when it is needed.
const HEAD_SEND_BYTES: usize = 1024;
/// How much of a stored request body is sent at once, bytes.
const FILE_SEND_BYTES: usize = 512 * 1024;

/// What an upstream answered.
pub(super) struct Answered {
    /// The head.
    pub head: Box<ResponseHead>,
    /// What was read beyond it.
    pub beyond: Vec<u8>,
    /// Did the whole request go out? Otherwise the connection serves no other.
    pub request_sent: bool,
}

/// Sends the request and reads the head of the answer.
pub(super) async fn converse(
    request: &mut Request<'_>,
    driver: &mut Driver,
    asking: &Asking,
    stream: &mut Stream,
    patience: &mut Patience<'_>,
) -> Result<Answered, Failure> {
    request.action = "sending request to upstream";
    let settings = &asking.call.settings;
    let mut sending = Sending::begin(request, asking)?;
    let options = ResponseOptions { header_bytes_max: settings.buffer_size.0, status_line: true };
    let mut head = request.thread.spare.head();
    let mut input = request.thread.spare.buffer();
    let mut interims = Interims::default();
    let end = loop {
        if !input.is_empty() {
            match http::parse_response_head(&input, &options, &mut head) {
                ResponseParse::Complete { consumed } => {
                    input.drain(..consumed);
                    warn(request, &head);
                    if !head.status.is_interim() {
                        break Ok(());
                    }
                    let passed = Box::pin(interim(request, driver, asking, &head, &mut interims, consumed));
                    if let Err(failure) = passed.await {
                        break Err(failure);
                    }
                    head.clear();
                    continue;
                }
                ResponseParse::Refused(message) => {
                    request.action = "reading response header from upstream";
                    request.log_error(Level::Error, format_args!("{}", message.as_bstr()));
                    break Err(Failure::invalid());
                }
                ResponseParse::Headless => {
                    request.action = "reading response header from upstream";
                    request.log_error(Level::Error, format_args!("upstream sent no valid HTTP/1.0 header"));
                    head.clear();
                    head.version = Version::HTTP_09;
                    head.status = Status::OK;
                    head.connection_close = true;
                    break Ok(());
                }
                ResponseParse::Incomplete => {}
            }
        }
        match sending.step(request, driver, asking, stream, &mut input, patience).await {
            Ok(count) => note(request, |attempted| attempted.received_bytes += count as u64),
            Err(failure) => break Err(failure),
        }
    };
    patience.stop_probing(stream);
    note(request, |attempted| attempted.sent_bytes += sending.sent_bytes);
    let request_sent = sending.is_done();
    request.thread.spare.keep_buffer(sending.buffer);
    end?;
    Ok(Answered { head, beyond: input, request_sent })
}

/// A request on its way out.
struct Sending {
    /// What is to be written next: the head, later pieces of a body that comes from the client.
    buffer: Vec<u8>,
    /// A body in place of the client's.
    replaced: Option<Vec<u8>>,
    /// How much of buffer and of the body in memory is written.
    written: usize,
    rest: Rest,
    /// The client's bytes, before they are framed.
    piece: Vec<u8>,
    sent_bytes: u64,
    /// The upstream takes no more; its answer, if there is one, counts.
    refused: Option<Errno>,
    /// Is the client to be waited for, not the upstream?
    starved: bool,
    /// Until when the upstream may pause.
    deadline: Deadline,
    /// Until when the client may.
    client_deadline: Deadline,
}

/// What follows what is being written.
enum Rest {
    /// Nothing.
    Nothing,
    /// The body in memory, in the same write, and its rest in a file.
    Stored(Option<(Rc<TemporaryFile>, u64, u64)>),
    /// The body as the client sends it.
    Client(BodyFraming),
}

/// Why sending ended.
enum Fault {
    Upstream(Errno),
    Client(BodyError),
}

impl Sending {
    fn begin(request: &mut Request<'_>, asking: &Asking) -> Result<Sending, Failure> {
        let call = &*asking.call;
        let mut buffer = request.thread.spare.buffer();
        buffer.reserve(HEAD_SEND_BYTES);
        let framing = call.protocol.request(request, call, &mut buffer).map_err(Failure::client)?;
        let replaced = call.protocol.body(request);
        let rest = match (&replaced, framing) {
            (Some(_), _) => Rest::Stored(None),
            (None, BodyFraming::None) => Rest::Nothing,
            (None, framing) if asking.streaming => {
                // What has come of the body already leaves with the head.
                frame(framing, &request.body.memory, &mut buffer);
                Rest::Client(framing)
            }
            (None, _) => {
                let stored = request.body.stored_bytes;
                Rest::Stored(request.body.file.clone().map(|file| (file, 0, stored)))
            }
        };
        let deadline = Deadline::after(Duration::from_millis(call.settings.send_timeout.0));
        Ok(Sending {
            buffer,
            replaced,
            written: 0,
            rest,
            piece: Vec::new(),
            sent_bytes: 0,
            refused: None,
            starved: false,
            deadline,
            client_deadline: client_pause(request),
        })
    }

    fn is_done(&self) -> bool {
        matches!(self.rest, Rest::Nothing) && self.written == self.buffer.len()
    }

    /// Goes on sending until something of the answer comes; returns how many bytes did.
    async fn step(
        &mut self,
        request: &mut Request<'_>,
        driver: &mut Driver,
        asking: &Asking,
        stream: &mut Stream,
        input: &mut Vec<u8>,
        patience: &mut Patience<'_>,
    ) -> Result<usize, Failure> {
        let settings = &asking.call.settings;
        let read_pause = Duration::from_millis(settings.read_timeout.0);
        let watched = !settings.ignore_client_abort.0;
        let mut sent = self.is_done() || self.refused.is_some();
        if sent {
            self.deadline = Deadline::after(read_pause);
        }
        let end = poll_fn(|cx| {
            if !sent {
                match self.poll_send(cx, request, driver, asking, stream) {
                    Poll::Pending => {}
                    Poll::Ready(Err(Fault::Client(error))) => return Poll::Ready(Waited::BadBody(error)),
                    Poll::Ready(result) => {
                        if let Err(Fault::Upstream(errno)) = result {
                            self.refused = Some(errno);
                        }
                        sent = true;
                        request.action = "reading response header from upstream";
                        self.deadline = Deadline::after(read_pause);
                        patience.begin_waiting();
                    }
                }
            }
            if let Poll::Ready(read) = stream.poll_read_into(cx, input, HEAD_READ_BYTES) {
                return Poll::Ready(Waited::Read(read));
            }
            if watched && !self.starved && driver.poll_closed(cx).is_ready() {
                return Poll::Ready(Waited::ClientGone);
            }
            match self.starved {
                true => driver
                    .poll_expired(cx, self.client_deadline)
                    .map(|()| Waited::BadBody(BodyError::TimedOut)),
                false => patience.poll_exhausted(cx, stream, self.deadline).map(|()| Waited::TimedOut),
            }
        });
        match end.await {
            Waited::Read(Ok(count)) if count > 0 => {
                request.action = "reading response header from upstream";
                Ok(count)
            }
            end => Err(judge(request, end, self.refused)),
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Request<'_>,
        driver: &mut Driver,
        asking: &Asking,
        stream: &mut Stream,
    ) -> Poll<Result<(), Fault>> {
        let pause = Duration::from_millis(asking.call.settings.send_timeout.0);
        loop {
            self.starved = false;
            let before = self.sent_bytes;
            let written = self.poll_write(cx, request, stream).map_err(Fault::Upstream)?;
            if self.sent_bytes != before {
                self.deadline = Deadline::after(pause);
            }
            ready!(written);
            match &mut self.rest {
                Rest::Nothing => return Poll::Ready(Ok(())),
                Rest::Stored(None) => self.rest = Rest::Nothing,
                Rest::Stored(Some((file, offset, total))) => {
                    if offset >= total {
                        self.rest = Rest::Nothing;
                        continue;
                    }
                    let count = usize::try_from(*total - *offset).unwrap_or(usize::MAX).min(FILE_SEND_BYTES);
                    match ready!(stream.poll_sendfile(cx, file.file(), *offset, count)) {
                        Ok(0) => return Poll::Ready(Err(Fault::Upstream(Errno::IO))),
                        Ok(count) => {
                            *offset += count as u64;
                            self.sent_bytes += count as u64;
                            self.deadline = Deadline::after(pause);
                        }
                        Err(errno) => return Poll::Ready(Err(Fault::Upstream(errno))),
                    }
                }
                Rest::Client(_) => {
                    if !self.buffer.is_empty() {
                        self.buffer.clear();
                        self.written = 0;
                        self.client_deadline = client_pause(request);
                    }
                    self.starved = true;
                    ready!(self.poll_take_piece(cx, request, driver))?;
                    self.deadline = Deadline::after(pause);
                }
            }
        }
    }

    /// Writes the buffer, and behind it the body in memory.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        stream: &mut Stream,
    ) -> Poll<Result<(), Errno>> {
        let memory: &[u8] = match (&self.rest, &self.replaced) {
            (Rest::Stored(_), Some(body)) => body,
            (Rest::Stored(_), None) => &request.body.memory,
            _ => b"",
        };
        while self.written < self.buffer.len() + memory.len() {
            let head = self.buffer.get(self.written..).unwrap_or_default();
            let body = &memory[self.written.saturating_sub(self.buffer.len())..];
            let count = match (head, body) {
                (head, []) => ready!(stream.poll_writev(cx, &[IoSlice::new(head)]))?,
                (head, body) => ready!(stream.poll_writev(cx, &[IoSlice::new(head), IoSlice::new(body)]))?,
            };
            self.written += count;
            self.sent_bytes += count as u64;
        }
        Poll::Ready(Ok(()))
    }

    /// Appends what comes from the client to the buffer, framed.
    fn poll_take_piece(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Request<'_>,
        driver: &mut Driver,
    ) -> Poll<Result<(), Fault>> {
        let Rest::Client(framing) = self.rest else { return Poll::Ready(Ok(())) };
        self.piece.clear();
        let mut count = ready!(driver.poll_read_body(cx, &mut self.piece)).map_err(Fault::Client)?;
        if count > 0 {
            // Chunks that came together go on together.
            count += driver.take_body_at_hand(&mut self.piece).map_err(Fault::Client)?;
        }
        request.body.received += count as u64;
        request.received_bytes += count as u64;
        let limit = request.plan.core.client_max_body_size.0;
        check_size(request, limit, count as u64).map_err(Fault::Client)?;
        frame(framing, &self.piece, &mut self.buffer);
        if driver.body_is_done() {
            if framing == BodyFraming::Chunked {
                http::chunked::last_chunk(&Fields::default(), &mut self.buffer);
            }
            request.body.read = true;
            self.rest = Rest::Nothing;
        }
        Poll::Ready(Ok(()))
    }
}

/// Appends a piece of the body as the upstream is to get it.
fn frame(framing: BodyFraming, piece: &[u8], out: &mut Vec<u8>) {
    let chunked = framing == BodyFraming::Chunked && !piece.is_empty();
    if chunked {
        http::chunked::chunk_header(piece.len(), out);
    }
    out.extend_from_slice(piece);
    if chunked {
        out.extend_from_slice(b"\r\n");
    }
}

/// What a wait for an answer's head ends with.
pub(super) enum Waited {
    /// Bytes of the answer, or its end.
    Read(Result<usize, Errno>),
    /// Something that HTTP/2 said.
    Event(http::h2::Event),
    /// The upstream broke a rule; what to write down.
    Said(Cow<'static, str>),
    /// The upstream took too long.
    TimedOut,
    /// The client's body cannot be read on.
    BadBody(BodyError),
    /// Nobody waits for the answer any more.
    ClientGone,
}

/// Why there is no answer. `refused` says why the upstream took no more of the request, if it did not.
pub(super) fn judge(request: &mut Request<'_>, end: Waited, refused: Option<Errno>) -> Failure {
    match end {
        Waited::Read(_) if let Some(errno) = refused => {
            request.action = "sending request to upstream";
            broken(request, "writev() failed", errno)
        }
        Waited::Read(Ok(_)) | Waited::Event(_) => {
            request.log_error(Level::Error, format_args!("upstream prematurely closed connection"));
            Failure::of(NextUpstream::ERROR, Status::BAD_GATEWAY, Outcome::Failure, true)
        }
        Waited::Read(Err(errno)) => {
            request.action = "reading response header from upstream";
            broken(request, "recv() failed", errno)
        }
        Waited::Said(message) => {
            request.action = "reading response header from upstream";
            request.log_error(Level::Error, format_args!("{message}"));
            Failure::invalid()
        }
        Waited::TimedOut => timed_out(request),
        Waited::BadBody(error) => {
            crate::body::explain(request, error);
            request.keep_alive = false;
            Failure::client(error.status())
        }
        Waited::ClientGone => {
            super::client_is_gone(request);
            Failure::client(Status::CLIENT_CLOSED_REQUEST)
        }
    }
}

/// How long the client may pause while its body is awaited.
pub(super) fn client_pause(request: &Request<'_>) -> Deadline {
    Deadline::after(Duration::from_millis(request.plan.core.client_body_timeout.0))
}

pub(super) fn note(request: &mut Request<'_>, change: impl FnOnce(&mut Attempted)) {
    if let Some(attempted) = request.attempts.last_mut() {
        change(attempted);
    }
}

fn timed_out(request: &Request<'_>) -> Failure {
    request.log_error(Level::Error, format_args!("upstream timed out (110: Connection timed out)"));
    Failure::of(NextUpstream::TIMEOUT, Status::GATEWAY_TIME_OUT, Outcome::Failure, true)
}

#[cold]
fn broken(request: &Request<'_>, what: &str, errno: Errno) -> Failure {
    request.log_error(Level::Error, format_args!("{what} ({})", ErrnoMessage(errno)));
    if matches!(errno, Errno::TIMEDOUT | Errno::HOSTUNREACH) {
        // The host is gone, which is worse than a kept connection that had ended.
        return Failure::of(NextUpstream::TIMEOUT, Status::GATEWAY_TIME_OUT, Outcome::Failure, true);
    }
    Failure::of(NextUpstream::ERROR, Status::BAD_GATEWAY, Outcome::Failure, true)
}

fn warn(request: &mut Request<'_>, head: &ResponseHead) {
    for warning in &head.warnings {
        request.log_error(Level::Warn, format_args!("{}", warning.as_bstr()));
    }
}

/// No upstream says more before its answer.
const INTERIMS_MAX: usize = 10_000;

/// The interim responses before an answer.
#[derive(Default)]
pub(super) struct Interims {
    count: usize,
    bytes: usize,
}

/// An interim response of so many bytes: 103 goes on to clients that may have it, others end here.
pub(super) async fn interim(
    request: &mut Request<'_>,
    driver: &mut Driver,
    asking: &Asking,
    head: &ResponseHead,
    interims: &mut Interims,
    bytes: usize,
) -> Result<(), Failure> {
    interims.count += 1;
    interims.bytes += bytes;
    if interims.count > INTERIMS_MAX {
        request.action = "reading response header from upstream";
        request.log_error(Level::Error, format_args!("upstream sent too many interim responses"));
        return Err(Failure::invalid());
    }
    // Clients of HTTP/1.0 know no interim responses (RFC 9110 section 15.2).
    if head.status != Status::EARLY_HINTS || request.subrequest || request.head.version < Version::HTTP_11 {
        return Ok(());
    }
    let plan = request.plan;
    if !plan.core.early_hints.iter().any(|template| request.is_true(template)) {
        return Ok(());
    }
    if interims.bytes > asking.call.settings.buffer_size.0 {
        request.log_error(Level::Info, format_args!("upstream sent too big early hints"));
        return Ok(());
    }
    const LINE: &[u8] = b"HTTP/1.1 103 Early Hints\r\n";
    let mut text = LINE.to_vec();
    for (name, value) in head.fields.iter() {
        if asking.call.protocol.hides(&name.to_ascii_lowercase()) {
            continue;
        }
        text.extend_from_slice(name);
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    }
    if text.len() == LINE.len() {
        return Ok(());
    }
    text.extend_from_slice(b"\r\n");
    // A client that is gone is noticed when the answer is sent.
    let _ = driver.send_interim(&text, crate::pump::send_deadline(request)).await;
    Ok(())
}
