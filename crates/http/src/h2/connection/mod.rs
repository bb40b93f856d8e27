//! One side of a connection: the state that its streams share.

use super::frame::{self, ErrorCode, FrameHeader, PREFACE, kind, setting};
use super::hpack::{Decoder, Encoder, TABLE_BYTES_DEFAULT};
use super::limits::{
    BROKEN_STREAMS_MAX, BROKEN_STREAMS_PER_SECOND_MAX, Bucket, CLOSED_STREAMS_MAX, IDLE_FRAMES_MAX,
    IDLE_FRAMES_PER_SECOND_MAX, Limits, SETTINGS_BYTES_MAX,
};
use super::stream::{ClosedBy, Malformed, Stream};
use crate::{Fields, HeadOptions, Refusal, RequestHead, ResponseHead};
use std::borrow::Cow;
use std::collections::VecDeque;

mod data;
mod receive;
mod send;

use data::Rest;

pub use send::{BodyState, HeadWriter};

/// Where field lists go. The caller takes what an event speaks of and leaves it clear.
#[derive(Default)]
pub struct Heads {
    /// A request, in the server.
    pub request: RequestHead,
    /// An answer, in the client.
    pub response: ResponseHead,
    /// Fields behind a body.
    pub trailers: Fields,
}

/// What came of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing the caller has to know.
    Nothing,
    /// A request ([`Heads::request`]) or an answer ([`Heads::response`]).
    Head {
        /// Its stream.
        stream: u32,
        /// No body follows.
        ended: bool,
        /// The request is refused. The stream takes an answer all the same.
        refusal: Option<Refusal>,
    },
    /// A piece of a body, for [`Connection::read_body`].
    Data {
        /// Its stream.
        stream: u32,
    },
    /// The fields behind a body: an answer's in [`Heads::trailers`], a request's in [`Connection::request_trailers`].
    Trailers {
        /// Its stream.
        stream: u32,
    },
    /// A stream is over before its end. The caller releases it.
    Reset {
        /// The stream.
        stream: u32,
        /// Why.
        code: ErrorCode,
        /// What was wrong with what came, in nginx's words; none where the peer has ended it.
        fault: Option<Cow<'static, str>>,
    },
    /// More may be sent: on this stream, or (0) on any.
    Window {
        /// The stream.
        stream: u32,
    },
    /// Something was wrong with a stream on which nobody works; what to write down.
    Refused {
        /// nginx's words.
        message: Cow<'static, str>,
    },
    /// The peer wants no more streams; those above `last_stream` were not looked at.
    GoAway {
        /// The last stream it looked at.
        last_stream: u32,
        /// Why.
        code: ErrorCode,
    },
}

/// The peer broke a rule that holds for the whole connection. GOAWAY is in the output; nothing more is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionError {
    /// The code the peer was told.
    pub code: ErrorCode,
    /// What to write down, in nginx's words.
    pub message: Cow<'static, str>,
}

/// Which side this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

/// What is known of the peer.
#[derive(Clone, Copy, Debug)]
struct Peer {
    window_bytes: i64,
    frame_bytes_max: usize,
    streams_max: u32,
    connect_protocol: bool,
}

/// A field list under way.
#[derive(Clone, Copy, Debug)]
struct Block {
    stream: u32,
    ended: bool,
    frames: u32,
    self_dependent: bool,
}

/// One side of a connection.
pub struct Connection {
    /// What is to be written, in order. [`Connection::output_offered`] says when it is.
    pub output: Vec<u8>,
    /// How request heads are read.
    pub options: HeadOptions,
    role: Role,
    limits: Limits,
    decoder: Decoder,
    encoder: Encoder,
    streams: Vec<Stream>,
    closed: VecDeque<(u32, ClosedBy)>,
    /// The highest stream the peer has opened.
    last_peer_stream: u32,
    /// The next stream of ours.
    next_stream: u32,
    preface_seen: bool,
    settings_seen: bool,
    settings_acknowledged: bool,
    going_away: bool,
    /// The last stream that our GOAWAY lets through.
    last_taken_stream: u32,
    failed: bool,
    peer: Peer,
    /// A frame under way whose payload is taken as it comes.
    rest: Option<Rest>,
    block: Option<Block>,
    block_bytes: Vec<u8>,
    send_window: i64,
    receive_window: i64,
    owed_bytes: u32,
    /// How many bytes were written before those in the output.
    output_base: u64,
    /// How many bytes of the output are being written.
    offered_bytes: usize,
    idle_frames: Bucket,
    broken_streams: Bucket,
    /// Window updates that data has paid for.
    paid_updates: usize,
    unpaid_bytes: usize,
    now_ms: u64,
}

impl Connection {
    /// The server's side; its SETTINGS are in the output.
    pub fn server(limits: Limits, options: HeadOptions) -> Connection {
        let mut settings = vec![
            (setting::MAX_CONCURRENT_STREAMS, limits.streams_max),
            (setting::INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
            (setting::MAX_FRAME_SIZE, limits.frame_bytes_max as u32),
        ];
        if options.allow_extended_connect {
            settings.push((setting::ENABLE_CONNECT_PROTOCOL, 1));
        }
        Connection::new(Role::Server, limits, options, &settings)
    }

    /// The client's side; the preface and its SETTINGS are in the output.
    pub fn client(limits: Limits) -> Connection {
        let settings =
            [(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, limits.stream_window_bytes)];
        let limits = Limits { frame_bytes_max: frame::PAYLOAD_BYTES_MAX, ..limits };
        Connection::new(Role::Client, limits, HeadOptions::default(), &settings)
    }

    fn new(role: Role, limits: Limits, options: HeadOptions, settings: &[(u16, u32)]) -> Connection {
        let mut output = Vec::new();
        if role == Role::Client {
            output.extend_from_slice(PREFACE);
        }
        frame::write_settings(settings, &mut output);
        let more = limits.connection_window_bytes.saturating_sub(frame::WINDOW_BYTES_DEFAULT);
        if more > 0 {
            frame::write_number(kind::WINDOW_UPDATE, 0, more, &mut output);
        }
        Connection {
            output,
            options,
            role,
            limits,
            decoder: Decoder::new(TABLE_BYTES_DEFAULT),
            encoder: Encoder::default(),
            streams: Vec::new(),
            closed: VecDeque::new(),
            last_peer_stream: 0,
            next_stream: 1,
            preface_seen: role == Role::Client,
            settings_seen: false,
            settings_acknowledged: false,
            going_away: false,
            last_taken_stream: u32::MAX,
            failed: false,
            peer: Peer {
                window_bytes: i64::from(frame::WINDOW_BYTES_DEFAULT),
                frame_bytes_max: frame::PAYLOAD_BYTES_MAX,
                streams_max: u32::MAX,
                connect_protocol: false,
            },
            rest: None,
            block: None,
            block_bytes: Vec::new(),
            send_window: i64::from(frame::WINDOW_BYTES_DEFAULT),
            receive_window: i64::from(limits.connection_window_bytes.max(frame::WINDOW_BYTES_DEFAULT)),
            owed_bytes: 0,
            output_base: 0,
            offered_bytes: 0,
            idle_frames: Bucket::default(),
            broken_streams: Bucket::default(),
            paid_updates: 0,
            unpaid_bytes: 0,
            now_ms: 0,
        }
    }

    /// Looks at the first frame of `input`, or at the next piece of one that is taken as it comes: how many bytes it takes
    /// and what it means; none while there is nothing to look at. `now_ms` is any clock that only goes forward.
    ///
    /// # Errors
    /// The connection is over; what is in the output should still be written.
    pub fn receive(
        &mut self,
        input: &[u8],
        now_ms: u64,
        heads: &mut Heads,
    ) -> Result<Option<(usize, Event)>, ConnectionError> {
        self.now_ms = now_ms;
        if self.failed {
            return Ok(None);
        }
        let mut received = self.receive_frame(input, heads);
        if let Err(error) = &received {
            self.failed = true;
            self.write_goaway(error.code);
        }
        if self.role == Role::Client {
            match &mut received {
                Err(ConnectionError { message, .. })
                | Ok(Some((_, Event::Reset { fault: Some(message), .. } | Event::Refused { message }))) => {
                    blame_upstream(message);
                }
                _ => {}
            }
        }
        received
    }

    fn receive_frame(
        &mut self,
        input: &[u8],
        heads: &mut Heads,
    ) -> Result<Option<(usize, Event)>, ConnectionError> {
        if !self.preface_seen {
            let length = input.len().min(PREFACE.len());
            if input.get(..length) != PREFACE.get(..length) {
                return fail(ErrorCode::PROTOCOL_ERROR, "invalid connection preface");
            }
            self.preface_seen = length == PREFACE.len();
            return Ok(self.preface_seen.then_some((length, Event::Nothing)));
        }
        if let Some(rest) = self.rest {
            return self.take_rest(rest, input);
        }
        let Some(header) = FrameHeader::parse(input) else { return Ok(None) };
        if header.length > self.limits.frame_bytes_max {
            let message = format!("client sent too large http2 frame: {}", header.length);
            return fail(ErrorCode::FRAME_SIZE_ERROR, message);
        }
        if header.kind == kind::PUSH_PROMISE {
            return fail(ErrorCode::PROTOCOL_ERROR, "client sent PUSH_PROMISE frame");
        }
        if self.block.is_some_and(|block| header.kind != kind::CONTINUATION || block.stream != header.stream)
        {
            let message = "client sent inappropriate frame while CONTINUATION was expected";
            return fail(ErrorCode::PROTOCOL_ERROR, message);
        }
        if !self.settings_seen && header.kind != kind::SETTINGS {
            return fail(ErrorCode::PROTOCOL_ERROR, "client sent no SETTINGS frame behind its preface");
        }
        let behind = input.get(frame::HEADER_BYTES..).unwrap_or_default();
        if header.kind == kind::DATA {
            let taken = self.data(header, behind)?;
            return Ok(taken.map(|(count, event)| (frame::HEADER_BYTES + count, event)));
        }
        let held = self.held_bytes(header)?;
        let Some(payload) = behind.get(..held) else { return Ok(None) };
        if held < header.length {
            self.rest = Some(Rest::Skipped(header.length - held));
        }
        Ok(Some((frame::HEADER_BYTES + held, self.frame(header, payload, heads)?)))
    }

    /// How much of a payload is held until it is looked at, bytes. Only what is taken as it comes may be as large as the
    /// announced size.
    fn held_bytes(&self, header: FrameHeader) -> Result<usize, ConnectionError> {
        let (bytes_max, what) = match header.kind {
            kind::HEADERS | kind::CONTINUATION => {
                (self.limits.block_bytes_max() + frame::HEADERS_FRAMING_BYTES_MAX, "header")
            }
            kind::SETTINGS => (SETTINGS_BYTES_MAX, "SETTINGS frame"),
            // Of others only so much is of use, and nothing of those that nobody knows.
            kind::PRIORITY..=kind::WINDOW_UPDATE => return Ok(header.length.min(8)),
            _ => return Ok(0),
        };
        if header.length > bytes_max {
            return fail(ErrorCode::ENHANCE_YOUR_CALM, format!("client sent too large {what}"));
        }
        Ok(header.length)
    }

    /// The rest of the frame at the start of `input` does not come in time. True: the connection goes on, either because the
    /// frame is one of a body, whose request has a limit of its own, or because the stream that it was to open is reset.
    pub fn give_up_frame(&mut self, input: &[u8]) -> bool {
        let id = match (FrameHeader::parse(input), self.block) {
            (_, Some(block)) => block.stream,
            (Some(header), None) if header.kind == kind::HEADERS => header.stream,
            (Some(header), None) => return header.kind == kind::DATA && self.place(header.stream).is_some(),
            (None, None) => return false,
        };
        let is_new = self.place(id).is_none() && self.closed_by(id).is_none() && id % 2 == 1;
        if self.role == Role::Client || !is_new || self.count_broken_stream().is_err() {
            return false;
        }
        // What comes of it later is only decoded, to keep the tables of both sides equal.
        self.last_peer_stream = self.last_peer_stream.max(id);
        self.remember(id, ClosedBy::Us);
        self.write_reset(id, ErrorCode::PROTOCOL_ERROR);
        true
    }

    /// Is there room for what the next frame may cause? While there is not, nothing should be read.
    pub fn has_output_room(&self) -> bool {
        self.output.len() < self.limits.output_bytes_max
    }

    /// Says that the output up to here is being written: some of it may be on its way. Frames in it are not changed any
    /// more, what follows goes into frames of its own.
    pub fn output_offered(&mut self) {
        self.offered_bytes = self.output.len();
    }

    /// Where in the output a frame is that may still be changed. `at` is its place among all bytes ever written.
    fn changeable(&self, at: u64) -> Option<usize> {
        let at = usize::try_from(at.checked_sub(self.output_base)?).ok()?;
        (at >= self.offered_bytes).then_some(at)
    }

    /// Says that the output up to here was written.
    pub fn output_written(&mut self) {
        self.offered_bytes = 0;
        self.output_base += self.output.len() as u64;
        self.output.clear();
        if self.output.capacity() > 2 * self.limits.output_bytes_max {
            self.output = Vec::new();
        }
    }

    /// How many streams are worked on.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Has either side said that it wants no more streams?
    pub fn is_going_away(&self) -> bool {
        self.going_away
    }

    /// Has a stream of ours been opened beyond this one?
    pub fn is_beyond(&self, last_stream: u32) -> bool {
        self.next_stream > last_stream.saturating_add(2)
    }

    /// Does the peer take an extended CONNECT (RFC 8441)?
    pub fn peer_takes_connect_protocol(&self) -> bool {
        self.peer.connect_protocol
    }

    /// Has a field list begun whose rest is not here?
    pub fn awaits_continuation(&self) -> bool {
        self.block.is_some()
    }

    /// Has a frame begun whose rest nobody has to wait for: a piece of a body, or what is passed over?
    pub fn is_amid_frame(&self) -> bool {
        self.rest.is_some()
    }

    /// May the peer's SETTINGS be relied on?
    pub fn has_settings(&self) -> bool {
        self.settings_seen
    }

    /// Takes no more streams; those under way go on.
    pub fn go_away(&mut self) {
        if !self.going_away {
            self.write_goaway(ErrorCode::NO_ERROR);
        }
    }

    fn write_goaway(&mut self, code: ErrorCode) {
        self.going_away = true;
        self.last_taken_stream = self.last_taken_stream.min(self.last_peer_stream);
        frame::write_goaway(self.last_taken_stream, code, &mut self.output);
    }

    /// Ends the connection for a reason that is not the peer's frame.
    pub fn abort(&mut self, code: ErrorCode) {
        if !std::mem::replace(&mut self.failed, true) {
            self.write_goaway(code);
        }
    }

    fn place(&self, id: u32) -> Option<usize> {
        self.streams.binary_search_by_key(&id, |stream| stream.id).ok()
    }

    fn stream(&mut self, id: u32) -> Option<&mut Stream> {
        let place = self.place(id)?;
        self.streams.get_mut(place)
    }

    /// What is wrong with what came on a stream.
    pub fn malformed(&self, id: u32) -> Option<Malformed> {
        self.streams.get(self.place(id)?)?.malformed
    }

    /// The fields that came behind a request's body, if all of it has come and there were any.
    pub fn request_trailers(&self, id: u32) -> Option<&Fields> {
        self.streams.get(self.place(id)?)?.trailers.as_deref()
    }

    /// Is the stream over for the peer, before its answer?
    pub fn is_reset(&self, id: u32) -> bool {
        match self.place(id).and_then(|place| self.streams.get(place)) {
            Some(stream) => stream.closed.is_some(),
            None => true,
        }
    }

    /// Has the peer sent all it had to say on the stream?
    pub fn has_ended(&self, id: u32) -> bool {
        self.place(id).and_then(|place| self.streams.get(place)).is_some_and(|stream| stream.remote_ended)
    }

    /// Does the stream's work no longer matter? Ends what is left of it.
    pub fn release(&mut self, id: u32) {
        let Some(place) = self.place(id) else { return };
        let stream = self.streams.remove(place);
        let closed_by = match stream.closed {
            Some((by, _)) => by,
            None if !stream.local_ended => {
                self.write_reset(id, ErrorCode::INTERNAL_ERROR);
                ClosedBy::Us
            }
            None if !stream.remote_ended => {
                // The whole answer is out; the rest of the request is not wanted (section 8.1).
                let code = if self.role == Role::Server { ErrorCode::NO_ERROR } else { ErrorCode::CANCEL };
                self.write_reset(id, code);
                ClosedBy::Us
            }
            None => {
                self.broken_streams.pay(1);
                ClosedBy::End
            }
        };
        self.remember(id, closed_by);
        self.give_back(stream.unread());
    }

    /// The peer ends a stream that was over.
    fn closed_by_peer(&mut self, id: u32, code: ErrorCode) {
        if let Some(stream) = self.stream(id) {
            stream.closed = Some((ClosedBy::Peer, code));
        } else if let Some((_, by)) = self.closed.iter_mut().rev().find(|(closed, _)| *closed == id) {
            *by = ClosedBy::Peer;
        }
    }

    fn remember(&mut self, id: u32, by: ClosedBy) {
        if self.closed.len() == CLOSED_STREAMS_MAX {
            self.closed.pop_front();
        }
        self.closed.push_back((id, by));
    }

    fn closed_by(&self, id: u32) -> Option<ClosedBy> {
        self.closed.iter().rev().find(|(closed, _)| *closed == id).map(|(_, by)| *by)
    }

    fn write_reset(&mut self, id: u32, code: ErrorCode) {
        frame::write_number(kind::RST_STREAM, id, code.0, &mut self.output);
    }

    /// The peer may send so many bytes more on the connection.
    fn give_back(&mut self, bytes: usize) {
        self.owed_bytes += bytes as u32;
        if self.owed_bytes >= self.limits.connection_window_bytes / 2 && !self.failed {
            frame::write_number(kind::WINDOW_UPDATE, 0, self.owed_bytes, &mut self.output);
            self.receive_window += i64::from(self.owed_bytes);
            self.owed_bytes = 0;
        }
    }

    /// A stream ends before its answer; too many of them end the connection (CVE-2023-44487, CVE-2025-8671).
    fn count_broken_stream(&mut self) -> Result<(), ConnectionError> {
        let max = BROKEN_STREAMS_MAX.max(self.limits.streams_max);
        if self.broken_streams.add(self.now_ms, BROKEN_STREAMS_PER_SECOND_MAX, max) {
            return Ok(());
        }
        fail(ErrorCode::ENHANCE_YOUR_CALM, "client reset too many streams, http2 flood detected")
    }

    /// A frame has come that brings nothing.
    fn count_idle_frame(&mut self) -> Result<(), ConnectionError> {
        if self.idle_frames.add(self.now_ms, IDLE_FRAMES_PER_SECOND_MAX, IDLE_FRAMES_MAX) {
            return Ok(());
        }
        fail(ErrorCode::ENHANCE_YOUR_CALM, "http2 flood detected")
    }
}

fn fail<T>(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Result<T, ConnectionError> {
    Err(ConnectionError { code, message: message.into() })
}

/// The same words, said of an upstream.
fn blame_upstream(message: &mut Cow<'static, str>) {
    if message == "client sent too large header" {
        *message = "upstream sent too big header".into();
    } else if message.starts_with("client ") {
        *message = message.replacen("client", "upstream", 1).into();
    }
}
