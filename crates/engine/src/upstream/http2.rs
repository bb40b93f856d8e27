//! HTTP/2 towards upstreams: one request at a time on a connection, whose body goes out while the answer comes in.
//!
//! [`Session`] stays with its connection from request to request; [`Upload`] is a request's body on its way. The answer's
//! head is awaited in [`converse`], its body comes through [`super::incoming::Incoming`].

use super::attempt::{Asking, Failure};
use super::converse::{Interims, Waited, client_pause, interim, judge, note};
use super::patience::Patience;
use super::{BodyFraming, Call};
use crate::Request;
use crate::body::check_size;
use crate::driver::{BodyError, Driver};
use conf::Level;
use http::h2::frame::PAYLOAD_BYTES_MAX;
use http::h2::{Connection, ErrorCode, Event, Heads, Limits};
use http::{Fields, Method, ResponseHead};
use net::errno::Errno;
use net::file::temporary::TemporaryFile;
use net::stream::Stream;
use net::timer::Deadline;
use std::borrow::Cow;
use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

/// How much is read at once, bytes.
const READ_BYTES: usize = 16 * 1024 + 512;
/// How much of requests may wait to be written, bytes.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// With this much to be written, most of it about the connection, nothing more is read.
const OWED_BYTES_MAX: usize = 2 * OUTPUT_BYTES_MAX;
/// What an upstream may send that nobody has taken yet, bytes; control frames get past a body that nobody takes.
const WINDOW_BYTES: u32 = 256 * 1024;
/// The most the frames of a request carry, bytes.
const FRAME_BYTES_MAX: usize = 16 * 1024;
/// After so many events in a row a connection that should be idle is none.
const IDLE_EVENTS_MAX: usize = 64;

/// HTTP/2's side of a connection to an upstream.
pub struct Session {
    pub(super) codec: Connection,
    /// What was read; `used` bytes of it are done with.
    input: Vec<u8>,
    used: usize,
    /// The input may hold a whole frame.
    fresh: bool,
    /// How much of the output was written.
    written: usize,
    pub(super) heads: Heads,
    /// Read from the connection for the request under way, bytes.
    pub(super) received_bytes: u64,
    /// Written to it for the request under way, bytes.
    pub(super) sent_bytes: u64,
}

/// Why nothing more comes.
#[derive(Debug)]
pub(super) enum Fault {
    /// The upstream closed the connection.
    Closed,
    /// The connection broke.
    Failed(Errno),
    /// The upstream broke a rule, or ended the stream.
    Said(Cow<'static, str>),
}

impl Session {
    /// For a connection just made. `header_bytes_max` bounds the head of an answer.
    pub fn new(header_bytes_max: usize) -> Box<Session> {
        let limits = Limits {
            streams_max: 1,
            frame_bytes_max: PAYLOAD_BYTES_MAX,
            stream_window_bytes: WINDOW_BYTES,
            connection_window_bytes: 2 * WINDOW_BYTES,
            header_string_bytes_max: header_bytes_max,
            header_list_bytes_max: header_bytes_max,
            output_bytes_max: OUTPUT_BYTES_MAX,
        };
        Box::new(Session {
            codec: Connection::client(limits),
            input: Vec::new(),
            used: 0,
            fresh: false,
            written: 0,
            heads: Heads::default(),
            received_bytes: 0,
            sent_bytes: 0,
        })
    }

    /// Looks at what came while no request was under way: may another one go?
    pub fn is_fit(&mut self, stream: &mut Stream) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..IDLE_EVENTS_MAX {
            if self.codec.is_going_away() {
                return false;
            }
            match self.poll_event(&mut cx, stream) {
                Poll::Pending => {
                    // What is owed leaves with the next request at the latest.
                    let _ = self.poll_write(&mut cx, stream);
                    self.input.drain(..std::mem::take(&mut self.used));
                    return true;
                }
                Poll::Ready(Ok(Event::Nothing | Event::Window { .. } | Event::GoAway { .. })) => {}
                Poll::Ready(_) => return false,
            }
        }
        false
    }

    /// Writes what waits; pending while something is left.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<Result<(), Errno>> {
        self.codec.output_offered();
        while let Some(rest) = self.codec.output.get(self.written..).filter(|rest| !rest.is_empty()) {
            let count = ready!(stream.poll_writev(cx, &[IoSlice::new(rest)]))?;
            self.written += count;
            self.sent_bytes += count as u64;
        }
        if self.written > 0 {
            self.written = 0;
            self.codec.output_written();
        }
        Poll::Ready(Ok(()))
    }

    /// The next thing that the upstream says.
    pub(super) fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<Result<Event, Fault>> {
        loop {
            if self.fresh {
                let now_ms = net::clock::now_ms();
                let input = self.input.get(self.used..).unwrap_or_default();
                match self.codec.receive(input, now_ms, &mut self.heads) {
                    Ok(Some((count, event))) => {
                        self.used += count;
                        return Poll::Ready(self.sorted(event));
                    }
                    Ok(None) => self.fresh = false,
                    Err(error) => return Poll::Ready(Err(Fault::Said(error.message))),
                }
            }
            if self.codec.output.len() >= OWED_BYTES_MAX {
                ready!(self.poll_write(cx, stream)).map_err(Fault::Failed)?;
            }
            self.input.drain(..std::mem::take(&mut self.used));
            match ready!(stream.poll_read_into(cx, &mut self.input, READ_BYTES)) {
                Ok(0) => return Poll::Ready(Err(Fault::Closed)),
                Ok(count) => {
                    self.received_bytes += count as u64;
                    self.fresh = true;
                }
                Err(errno) => return Poll::Ready(Err(Fault::Failed(errno))),
            }
        }
    }

    /// Looks at what was read already behind the end of an answer: does it say that the answer is none?
    pub(super) fn heard_at_hand(&mut self) -> Option<Fault> {
        while self.fresh {
            let input = self.input.get(self.used..).unwrap_or_default();
            match self.codec.receive(input, net::clock::now_ms(), &mut self.heads) {
                Ok(Some((count, event))) => {
                    self.used += count;
                    match self.sorted(event) {
                        Err(fault) => return Some(fault),
                        Ok(Event::Reset { code, .. }) if code != ErrorCode::NO_ERROR => {
                            return Some(Fault::Said(
                                format!("upstream rejected request with error {}", code.0).into(),
                            ));
                        }
                        Ok(_) => {}
                    }
                }
                Ok(None) => self.fresh = false,
                Err(error) => return Some(Fault::Said(error.message)),
            }
        }
        None
    }

    /// Tells what ends the request from what does not.
    fn sorted(&self, event: Event) -> Result<Event, Fault> {
        match event {
            Event::GoAway { last_stream, code } if self.codec.is_beyond(last_stream) => {
                Err(Fault::Said(format!("upstream sent goaway with error {}", code.0).into()))
            }
            Event::Reset { fault: Some(message), .. } => Err(Fault::Said(message)),
            event => Ok(event),
        }
    }
}

/// A request's body on its way out.
pub(super) struct Upload {
    pub(super) stream: u32,
    rest: Rest,
    /// All of the body is in the output.
    ended: bool,
    /// Is the client to be waited for, not the upstream?
    pub(super) starved: bool,
    /// Until when the upstream may take nothing.
    pub(super) deadline: Deadline,
    /// Until when the client may send nothing.
    pub(super) client_deadline: Deadline,
}

/// What is left of a body.
enum Rest {
    /// In memory: in place of the client's or, if there is none, as the client sent it; behind it what a file holds.
    Stored { replaced: Option<Vec<u8>>, at: usize, file: Option<(Rc<TemporaryFile>, u64, u64)> },
    /// As the client sends it.
    Client { piece: Vec<u8>, at: usize },
}

/// Why sending ended.
pub(super) enum SendFault {
    /// The upstream takes no more.
    Upstream(Errno),
    /// The client's body cannot be read on.
    Client(BodyError),
}

impl Upload {
    /// Opens a stream and puts the request's head into the output.
    fn begin(
        request: &mut Request<'_>,
        driver: &Driver,
        asking: &Asking,
        session: &mut Session,
    ) -> Result<Upload, Failure> {
        let call = &*asking.call;
        let mut fields = Fields::new();
        let framing = call.protocol.request_fields(request, call, &mut fields).map_err(Failure::client)?;
        let replaced = call.protocol.body(request);
        let bodiless =
            fields.get(b":method").is_some_and(|method| method == b"HEAD") || request.method == Method::Head;
        let Some(stream) = session.codec.open(bodiless) else {
            request.log_error(Level::Error, format_args!("upstream takes no more streams"));
            return Err(Failure::invalid());
        };
        let mut head = session.codec.begin_head(stream);
        for (name, value) in fields.iter() {
            head.field(name, value);
        }
        head.finish(true);
        let rest = if asking.streaming && replaced.is_none() {
            Rest::Client { piece: request.body.memory.clone(), at: 0 }
        } else {
            let stored = request.body.stored_bytes;
            let file = request.body.file.clone().filter(|_| replaced.is_none()).map(|file| (file, 0, stored));
            Rest::Stored { replaced, at: 0, file }
        };
        let mut upload = Upload {
            stream,
            rest,
            ended: false,
            starved: false,
            deadline: send_pause(call),
            client_deadline: client_pause(request),
        };
        if framing == BodyFraming::None {
            upload.end(driver, call, session);
        }
        Ok(upload)
    }

    /// Is all of the body in the output?
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Gives the rest up: the upstream takes no more.
    pub(super) fn give_up(&mut self) {
        self.ended = true;
    }

    /// What of the fields behind the client's body goes on (`proxy_pass_trailers`; gRPC's always do): not those that say
    /// where a message ends or belongs (RFC 9110 section 6.5.1), and none behind another body.
    fn passed_trailers(&self, driver: &Driver, call: &Call) -> Fields {
        const FOR_HEADS: [&[u8]; 4] = [b"content-length", b"host", b"te", b"trailer"];
        let is_replaced = matches!(&self.rest, Rest::Stored { replaced: Some(_), .. });
        if is_replaced || !call.settings.pass_trailers.0 {
            return Fields::new();
        }
        let trailers = driver.request_trailers();
        trailers.iter().filter(|(name, _)| !FOR_HEADS.contains(name)).collect()
    }

    fn end(&mut self, driver: &Driver, call: &Call, session: &mut Session) {
        self.ended = true;
        self.starved = false;
        session.codec.finish(self.stream, &self.passed_trailers(driver, call));
    }

    /// Sends on; ready when the whole body has left.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Request<'_>,
        driver: &mut Driver,
        call: &Call,
        (session, stream): (&mut Session, &mut Stream),
    ) -> Poll<Result<(), SendFault>> {
        loop {
            let before = session.sent_bytes;
            let filled = self.poll_fill(cx, request, driver, call, session).map_err(SendFault::Client)?;
            let written = session.poll_write(cx, stream).map_err(SendFault::Upstream)?;
            if session.sent_bytes != before || self.starved {
                self.deadline = send_pause(call);
            }
            match (filled, written) {
                (Poll::Ready(()), Poll::Ready(())) if self.ended => return Poll::Ready(Ok(())),
                (Poll::Ready(()), Poll::Ready(())) => {}
                _ => return Poll::Pending,
            }
        }
    }

    /// Puts more of the body into the output; pending when the client must send more, or the upstream take more.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Request<'_>,
        driver: &mut Driver,
        call: &Call,
        session: &mut Session,
    ) -> Poll<Result<(), BodyError>> {
        self.starved = false;
        while !self.ended {
            // The end goes with the last byte.
            if self.is_at_end(request) {
                self.end(driver, call, session);
                break;
            }
            let room = session.codec.room(self.stream);
            let stream = self.stream;
            match &mut self.rest {
                Rest::Client { piece, at } if *at < piece.len() => {
                    *at += session.codec.send(stream, piece.get(*at..).unwrap_or_default(), FRAME_BYTES_MAX);
                }
                Rest::Client { .. } => {
                    self.starved = true;
                    ready!(self.poll_take_piece(cx, request, driver))?;
                    self.starved = false;
                    continue;
                }
                Rest::Stored { replaced, at, file } => {
                    let memory = replaced.as_deref().unwrap_or(&request.body.memory);
                    if *at < memory.len() {
                        *at += session.codec.send(
                            stream,
                            memory.get(*at..).unwrap_or_default(),
                            FRAME_BYTES_MAX,
                        );
                    } else if let Some((file, offset, total)) =
                        file.as_mut().filter(|(_, offset, total)| offset < total)
                    {
                        let length = usize::try_from(*total - *offset)
                            .unwrap_or(usize::MAX)
                            .min(room)
                            .min(FRAME_BYTES_MAX);
                        if length > 0 {
                            let read = |out: &mut Vec<u8>| read_file(file, *offset, length, out);
                            session.codec.send_with(stream, length, read).map_err(|()| BodyError::Storage)?;
                            *offset += length as u64;
                        }
                    }
                }
            }
            if room == 0 {
                // Either the output is full, or the upstream's window is closed.
                return if session.codec.output.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Has the last byte gone?
    fn is_at_end(&self, request: &Request<'_>) -> bool {
        match &self.rest {
            Rest::Client { piece, at } => *at >= piece.len() && request.body.read,
            Rest::Stored { replaced, at, file } => {
                let memory = replaced.as_deref().unwrap_or(&request.body.memory);
                *at >= memory.len() && file.as_ref().is_none_or(|(_, offset, total)| offset >= total)
            }
        }
    }

    /// Takes what has come from the client.
    fn poll_take_piece(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Request<'_>,
        driver: &mut Driver,
    ) -> Poll<Result<(), BodyError>> {
        let Rest::Client { piece, at } = &mut self.rest else { return Poll::Ready(Ok(())) };
        piece.clear();
        *at = 0;
        if driver.body_is_done() {
            request.body.read = true;
            return Poll::Ready(Ok(()));
        }
        let mut count = ready!(driver.poll_read_body(cx, piece))?;
        if count > 0 {
            count += driver.take_body_at_hand(piece)?;
        }
        request.body.received += count as u64;
        request.received_bytes += count as u64;
        check_size(request, request.plan.core.client_max_body_size.0, count as u64)?;
        request.body.read = driver.body_is_done();
        self.client_deadline = client_pause(request);
        Poll::Ready(Ok(()))
    }
}

fn read_file(file: &TemporaryFile, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<(), ()> {
    let start = out.len();
    out.resize(start + length, 0);
    match file.read_at(out.get_mut(start..).unwrap_or_default(), offset) {
        Ok(count) if count == length => Ok(()),
        _ => Err(()),
    }
}

fn send_pause(call: &Call) -> Deadline {
    Deadline::after(Duration::from_millis(call.settings.send_timeout.0))
}

/// An answer whose head has come.
pub(super) struct Answered {
    pub head: Box<ResponseHead>,
    /// What is left to send of the request's body.
    pub upload: Upload,
}

/// Sends a request and reads the head of the answer.
pub(super) async fn converse(
    request: &mut Request<'_>,
    driver: &mut Driver,
    asking: &Asking,
    (session, stream): (&mut Session, &mut Stream),
    patience: &mut Patience<'_>,
) -> Result<Answered, Failure> {
    request.action = "sending request to upstream";
    (session.sent_bytes, session.received_bytes) = (0, 0);
    let upload = Upload::begin(request, driver, asking, session)?;
    let mut talk = Talk { upload, refused: None, interims: Interims::default() };
    let read = loop {
        let end = talk.wait(request, driver, asking, (&mut *session, &mut *stream), patience).await;
        let event = match end {
            Waited::Event(event) => event,
            end => break Err(judge(request, end, talk.refused)),
        };
        match talk.event(request, session, event) {
            Ok(Heard::Nothing) => {}
            Ok(Heard::Interim) => {
                let mut head = std::mem::take(&mut session.heads.response);
                let bytes = head.fields.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
                let passed =
                    Box::pin(interim(request, driver, asking, &head, &mut talk.interims, bytes)).await;
                head.clear();
                session.heads.response = head;
                if let Err(failure) = passed {
                    break Err(failure);
                }
            }
            Ok(Heard::Head) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    patience.stop_probing(stream);
    let (sent_bytes, received_bytes) = (session.sent_bytes, std::mem::take(&mut session.received_bytes));
    note(request, |attempted| {
        attempted.sent_bytes += sent_bytes;
        attempted.received_bytes += received_bytes;
    });
    read?;
    session.sent_bytes = 0;
    let mut head = request.thread.spare.head();
    std::mem::swap(&mut *head, &mut session.heads.response);
    Ok(Answered { head, upload: talk.upload })
}

/// A request whose answer is awaited.
struct Talk {
    upload: Upload,
    /// The upstream takes no more; its answer, if there is one, counts.
    refused: Option<Errno>,
    interims: Interims,
}

enum Heard {
    Nothing,
    Interim,
    Head,
}

impl Talk {
    /// Goes on sending until the upstream says something.
    async fn wait(
        &mut self,
        request: &mut Request<'_>,
        driver: &mut Driver,
        asking: &Asking,
        (session, stream): (&mut Session, &mut Stream),
        patience: &mut Patience<'_>,
    ) -> Waited {
        let settings = &asking.call.settings;
        let read_pause = Duration::from_millis(settings.read_timeout.0);
        let watched = !settings.ignore_client_abort.0;
        let mut sent = self.upload.has_ended() && session.codec.output.is_empty() || self.refused.is_some();
        let mut deadline = Deadline::after(read_pause);
        poll_fn(|cx| {
            if !sent {
                match self.upload.poll_send(cx, request, driver, &asking.call, (&mut *session, &mut *stream))
                {
                    Poll::Pending => {}
                    Poll::Ready(Err(SendFault::Client(error))) => return Poll::Ready(Waited::BadBody(error)),
                    Poll::Ready(result) => {
                        if let Err(SendFault::Upstream(errno)) = result {
                            self.refused = Some(errno);
                            self.upload.give_up();
                        }
                        sent = true;
                        request.action = "reading response header from upstream";
                        deadline = Deadline::after(read_pause);
                        patience.begin_waiting();
                    }
                }
            }
            match session.poll_event(cx, stream) {
                Poll::Pending => {}
                Poll::Ready(Ok(event)) => return Poll::Ready(Waited::Event(event)),
                Poll::Ready(Err(Fault::Closed)) => return Poll::Ready(Waited::Read(Ok(0))),
                Poll::Ready(Err(Fault::Failed(errno))) => return Poll::Ready(Waited::Read(Err(errno))),
                Poll::Ready(Err(Fault::Said(message))) => return Poll::Ready(Waited::Said(message)),
            }
            let starved = !sent && self.upload.starved;
            if watched && !starved && driver.poll_closed(cx).is_ready() {
                return Poll::Ready(Waited::ClientGone);
            }
            if starved {
                let late = driver.poll_expired(cx, self.upload.client_deadline);
                return late.map(|()| Waited::BadBody(BodyError::TimedOut));
            }
            let limit = if sent { deadline } else { self.upload.deadline };
            patience.poll_exhausted(cx, stream, limit).map(|()| Waited::TimedOut)
        })
        .await
    }

    fn event(
        &mut self,
        request: &mut Request<'_>,
        session: &mut Session,
        event: Event,
    ) -> Result<Heard, Failure> {
        match event {
            Event::Head { .. } => {
                request.action = "reading response header from upstream";
                let interim = session.heads.response.status.is_interim();
                Ok(if interim { Heard::Interim } else { Heard::Head })
            }
            Event::Reset { code: ErrorCode(code), .. } => {
                request.action = "reading response header from upstream";
                request.log_error(Level::Error, format_args!("upstream rejected request with error {code}"));
                Err(Failure::invalid())
            }
            _ => Ok(Heard::Nothing),
        }
    }
}
