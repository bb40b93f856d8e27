//! What each frame means (RFC 9113, section 6), with nginx's words for what is wrong with it.

use super::{Block, Connection, ConnectionError, Event, Heads, Role, fail};
use crate::h2::frame::{self, ErrorCode, FrameHeader, flag, kind, setting};
use crate::h2::hpack::HpackError;
use crate::h2::limits::CONTINUATION_FRAMES_MAX;
use crate::h2::stream::{ClosedBy, Malformed, Stream};
use crate::request::{FieldsReader, check_field};
use crate::response::ResponseFields;
use crate::{Fields, Framing, Status};
use std::borrow::Cow;

pub(super) type Received = Result<Event, ConnectionError>;

impl Connection {
    /// A frame that is no DATA. Of those whose payload is of no use, or not of the length it should have, `payload` is only
    /// the start.
    pub(super) fn frame(&mut self, header: FrameHeader, payload: &[u8], heads: &mut Heads) -> Received {
        match header.kind {
            kind::HEADERS => self.headers(header, payload, heads),
            kind::PRIORITY => self.priority(header, payload),
            kind::RST_STREAM => self.rst_stream(header, payload),
            kind::SETTINGS => self.settings(header, payload),
            kind::PING => self.ping(header, payload),
            kind::GOAWAY => self.goaway(header, payload),
            kind::WINDOW_UPDATE => self.window_update(header, payload),
            kind::CONTINUATION => self.continuation(header, payload, heads),
            // Types nobody knows are ignored (section 4.1).
            _ => self.count_idle_frame().map(|()| Event::Nothing),
        }
    }

    /// Ends a stream because of what the peer did on it.
    pub(super) fn stream_error(
        &mut self,
        id: u32,
        code: ErrorCode,
        message: impl Into<Cow<'static, str>>,
    ) -> Received {
        self.count_broken_stream()?;
        self.write_reset(id, code);
        let message = message.into();
        match self.stream(id) {
            Some(stream) => {
                stream.closed = Some((ClosedBy::Us, code));
                Ok(Event::Reset { stream: id, code, fault: Some(message) })
            }
            None => {
                self.remember(id, ClosedBy::Us);
                Ok(Event::Refused { message })
            }
        }
    }

    /// A frame behind the peer's own RST_STREAM (section 5.1).
    pub(super) fn closed_stream_error(&mut self, id: u32) -> Received {
        self.count_broken_stream()?;
        self.write_reset(id, ErrorCode::STREAM_CLOSED);
        Ok(Event::Refused { message: format!("client sent frame for closed stream {id}").into() })
    }

    /// Was the stream never opened?
    pub(super) fn is_idle(&self, id: u32) -> bool {
        let ours = (id % 2 == 1) == (self.role == Role::Client);
        if ours { id >= self.next_stream } else { id > self.last_peer_stream }
    }

    fn headers(&mut self, header: FrameHeader, payload: &[u8], heads: &mut Heads) -> Received {
        let id = header.stream;
        let Some(mut block) = frame::without_padding(header, payload) else {
            let length = payload.len();
            let message = format!("client sent padded HEADERS frame with incorrect length: {length}");
            return fail(ErrorCode::PROTOCOL_ERROR, message);
        };
        let mut self_dependent = false;
        if header.has(flag::PRIORITY) {
            let (Some(dependency), Some(rest)) = (frame::number31(block), block.get(5..)) else {
                let length = payload.len();
                let message = format!("client sent HEADERS frame with incorrect length {length}");
                return fail(ErrorCode::FRAME_SIZE_ERROR, message);
            };
            self_dependent = dependency == id;
            block = rest;
        }
        self.check_headers_stream(id)?;
        let begun = Block { stream: id, ended: header.has(flag::END_STREAM), frames: 0, self_dependent };
        if header.has(flag::END_HEADERS) {
            return self.field_list(begun, block, heads);
        }
        self.block = Some(begun);
        self.block_bytes.clear();
        self.add_to_block(block)?;
        self.judge_beginning(begun, heads)
    }

    /// May HEADERS come on this stream at all?
    fn check_headers_stream(&mut self, id: u32) -> Result<(), ConnectionError> {
        let ours = (id % 2 == 1) == (self.role == Role::Client);
        let known = self.place(id).is_some();
        if self.role == Role::Client {
            if id == 0 || !ours || self.is_idle(id) {
                return fail(ErrorCode::PROTOCOL_ERROR, "upstream sent HEADERS frame for an unknown stream");
            }
            return Ok(());
        }
        if id > self.last_peer_stream && id % 2 == 1 {
            self.last_peer_stream = id;
            return Ok(());
        }
        if known {
            return Ok(());
        }
        match self.closed_by(id) {
            Some(ClosedBy::Us | ClosedBy::Peer) => Ok(()),
            Some(ClosedBy::End) => {
                fail(ErrorCode::STREAM_CLOSED, format!("client sent HEADERS frame for closed stream {id}"))
            }
            None => {
                let last = self.last_peer_stream;
                let message =
                    format!("client sent HEADERS frame with incorrect identifier {id}, the last was {last}");
                fail(ErrorCode::PROTOCOL_ERROR, message)
            }
        }
    }

    fn add_to_block(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        if self.block_bytes.len() + bytes.len() > self.limits.block_bytes_max() {
            return fail(ErrorCode::ENHANCE_YOUR_CALM, "client sent too large header");
        }
        self.block_bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn continuation(&mut self, header: FrameHeader, payload: &[u8], heads: &mut Heads) -> Received {
        let Some(mut block) = self.block.take() else {
            return fail(ErrorCode::PROTOCOL_ERROR, "client sent unexpected CONTINUATION frame");
        };
        block.frames += 1;
        if block.frames > CONTINUATION_FRAMES_MAX {
            return fail(ErrorCode::ENHANCE_YOUR_CALM, "client sent too many CONTINUATION frames");
        }
        self.add_to_block(payload)?;
        if !header.has(flag::END_HEADERS) {
            self.block = Some(block);
            return self.judge_beginning(block, heads);
        }
        let bytes = std::mem::take(&mut self.block_bytes);
        let event = self.field_list(block, &bytes, heads);
        self.block_bytes = bytes;
        self.block_bytes.clear();
        event
    }

    /// Is an answer wrong already in the part of its field list that has come? The rest may never come, and somebody waits.
    /// It is read without a trace: the tables change when the list is whole. [`CONTINUATION_FRAMES_MAX`] and the bound of
    /// the block keep what is read again and again small.
    fn judge_beginning(&self, block: Block, heads: &mut Heads) -> Received {
        if self.role == Role::Server {
            return Ok(Event::Nothing);
        }
        let is_trailers = self
            .place(block.stream)
            .and_then(|place| self.streams.get(place))
            .is_some_and(|stream| stream.has_head);
        let mut reader = ResponseFields::new(&mut heads.response);
        let mut trailers_are_wrong = false;
        let decoded =
            self.decoder.clone().decode(&self.block_bytes, self.limits.field_bounds(), |name, value| {
                match is_trailers {
                    true => trailers_are_wrong |= is_wrong_trailer(name, value),
                    false => reader.field(name, value),
                }
            });
        let fault = reader.fault().or(trailers_are_wrong.then_some(INVALID_TRAILER));
        heads.response.clear();
        match (decoded, fault) {
            (Ok(()) | Err(HpackError::Truncated), None) => Ok(Event::Nothing),
            (Ok(()) | Err(HpackError::Truncated), Some(fault)) => fail(ErrorCode::PROTOCOL_ERROR, fault),
            (Err(error), _) => fail_hpack(error).map(|()| Event::Nothing),
        }
    }

    /// A whole field list: a head, trailers, or one that is only decoded to keep the tables of both sides equal.
    fn field_list(&mut self, block: Block, bytes: &[u8], heads: &mut Heads) -> Received {
        let id = block.stream;
        let known = self.place(id);
        if let Some(stream) = known.and_then(|place| self.streams.get(place)) {
            let (closed, remote_ended, has_head) = (stream.closed, stream.remote_ended, stream.has_head);
            return match closed {
                Some((ClosedBy::Us, _)) => self.decode(bytes, |_, _| {}).map(|()| Event::Nothing),
                Some(_) => {
                    self.decode(bytes, |_, _| {})?;
                    self.closed_stream_error(id)
                }
                None if remote_ended => {
                    self.decode(bytes, |_, _| {})?;
                    let message = format!("client sent HEADERS frame for half-closed stream {id}");
                    self.stream_error(id, ErrorCode::STREAM_CLOSED, message)
                }
                None if has_head => self.trailers(block, bytes, heads),
                None => self.response(block, bytes, heads),
            };
        }
        if self.role == Role::Server && self.closed_by(id).is_none() {
            return self.request(block, bytes, heads);
        }
        self.decode(bytes, |_, _| {})?;
        match self.closed_by(id) {
            Some(ClosedBy::Peer) => self.closed_stream_error(id),
            Some(ClosedBy::End) if self.role == Role::Client => {
                fail(ErrorCode::STREAM_CLOSED, "upstream sent HEADERS frame for closed stream")
            }
            _ => Ok(Event::Nothing),
        }
    }

    fn request(&mut self, block: Block, bytes: &[u8], heads: &mut Heads) -> Received {
        let id = block.stream;
        if id > self.last_taken_stream {
            self.remember(id, ClosedBy::Us);
            return self.decode(bytes, |_, _| {}).map(|()| Event::Nothing);
        }
        if block.self_dependent {
            self.decode(bytes, |_, _| {})?;
            let message = format!("client sent HEADERS frame for stream {id} with incorrect dependency");
            return self.stream_error(id, ErrorCode::PROTOCOL_ERROR, message);
        }
        if self.streams.len() >= self.limits.streams_max as usize {
            self.decode(bytes, |_, _| {})?;
            let message = format!("concurrent streams exceeded {}", self.streams.len());
            return self.stream_error(id, ErrorCode::REFUSED_STREAM, message);
        }
        let options = self.options;
        let mut reader = FieldsReader::new(&mut heads.request, &options);
        let decoded = self.decoder.decode(bytes, self.limits.field_bounds(), |name, value| {
            reader.field(name, value);
        });
        let refusal = reader.finish(block.ended);
        decoded.or_else(fail_hpack)?;
        heads.request.length = bytes.len();
        let window = if self.settings_acknowledged {
            self.limits.stream_window_bytes
        } else {
            self.limits.first_window_bytes()
        };
        let mut stream = Stream::new(id, self.peer.window_bytes, i64::from(window));
        stream.has_head = true;
        stream.remote_ended = block.ended;
        if let Framing::Length(length) = heads.request.framing() {
            stream.announced = Some(length);
        }
        let refusal = refusal.map(|(refusal, malformed)| {
            stream.malformed = malformed.then_some(Malformed::Head);
            refusal
        });
        self.streams.push(stream);
        Ok(Event::Head { stream: id, ended: block.ended, refusal })
    }

    fn response(&mut self, block: Block, bytes: &[u8], heads: &mut Heads) -> Received {
        let id = block.stream;
        let mut reader = ResponseFields::new(&mut heads.response);
        let decoded = self.decoder.decode(bytes, self.limits.field_bounds(), |name, value| {
            reader.field(name, value);
        });
        let fault = reader.finish();
        decoded.or_else(fail_hpack)?;
        if let Some(fault) = fault {
            return fail(ErrorCode::PROTOCOL_ERROR, fault);
        }
        let status = heads.response.status;
        if status == Status::SWITCHING_PROTOCOLS {
            return fail(ErrorCode::PROTOCOL_ERROR, "upstream sent unexpected :status \"101\"");
        }
        if status.is_interim() {
            return match block.ended {
                true => fail(ErrorCode::PROTOCOL_ERROR, "upstream prematurely closed stream"),
                false => Ok(Event::Head { stream: id, ended: false, refusal: None }),
            };
        }
        let announced = heads.response.content_length;
        if let Some(stream) = self.stream(id) {
            stream.has_head = true;
            // Such an answer may tell the length of what another would have had.
            stream.announced = if stream.bodiless || status.is_bodiless() { Some(0) } else { announced };
            stream.receive(b"", block.ended);
            if let Some(malformed) = stream.malformed {
                return fail_response(malformed);
            }
        }
        Ok(Event::Head { stream: id, ended: block.ended, refusal: None })
    }

    fn trailers(&mut self, block: Block, bytes: &[u8], heads: &mut Heads) -> Received {
        let mut malformed = !block.ended;
        heads.trailers.clear();
        let trailers: &mut Fields = &mut heads.trailers;
        self.decode(bytes, |name, value| {
            malformed |= is_wrong_trailer(name, value);
            trailers.push(name, value);
        })?;
        if malformed && self.role == Role::Client {
            return fail(ErrorCode::PROTOCOL_ERROR, INVALID_TRAILER);
        }
        if malformed || block.self_dependent {
            if let Some(stream) = self.stream(block.stream) {
                stream.malformed.get_or_insert(Malformed::Trailers);
            }
            let message = format!("client sent invalid trailer for stream {}", block.stream);
            return self.stream_error(block.stream, ErrorCode::PROTOCOL_ERROR, message);
        }
        let mut malformed = None;
        let of_request = self.role == Role::Server && !heads.trailers.is_empty();
        if let Some(stream) = self.stream(block.stream) {
            stream.receive(b"", true);
            malformed = stream.malformed;
            if of_request {
                stream.trailers = Some(Box::new(std::mem::take(&mut heads.trailers)));
            }
        }
        match malformed {
            Some(malformed) if self.role == Role::Client => fail_response(malformed),
            _ => Ok(Event::Trailers { stream: block.stream }),
        }
    }

    fn decode(&mut self, bytes: &[u8], field: impl FnMut(&[u8], &[u8])) -> Result<(), ConnectionError> {
        let decoded = self.decoder.decode(bytes, self.limits.field_bounds(), field);
        decoded.or_else(fail_hpack)
    }

    fn priority(&mut self, header: FrameHeader, payload: &[u8]) -> Received {
        if header.stream == 0 {
            return fail(ErrorCode::PROTOCOL_ERROR, "client sent PRIORITY frame with incorrect identifier");
        }
        self.count_idle_frame()?;
        let (id, length) = (header.stream, header.length);
        let (code, message) = match frame::number31(payload) {
            _ if length != 5 => (
                ErrorCode::FRAME_SIZE_ERROR,
                format!("client sent PRIORITY frame with incorrect length {length}"),
            ),
            Some(dependency) if dependency == id => (
                ErrorCode::PROTOCOL_ERROR,
                format!("client sent PRIORITY frame for stream {id} with incorrect dependency"),
            ),
            // Priorities are not used (section 5.3.2 allows that).
            _ => return Ok(Event::Nothing),
        };
        if self.is_idle(id) {
            // There is no stream to end.
            return fail(code, message);
        }
        self.stream_error(id, code, message)
    }

    fn rst_stream(&mut self, header: FrameHeader, payload: &[u8]) -> Received {
        let id = header.stream;
        let length = header.length;
        let (4, Some(code)) = (length, frame::number32(payload)) else {
            let message = format!("client sent RST_STREAM frame with incorrect length {length}");
            return fail(ErrorCode::FRAME_SIZE_ERROR, message);
        };
        if id == 0 || self.is_idle(id) {
            return fail(ErrorCode::PROTOCOL_ERROR, "client sent RST_STREAM frame with incorrect identifier");
        }
        let code = ErrorCode(code);
        let client = self.role == Role::Client;
        let Some(stream) = self.stream(id).filter(|stream| stream.closed.is_none()) else {
            if client && self.place(id).is_some() {
                return fail(ErrorCode::STREAM_CLOSED, format!("upstream sent frame for closed stream {id}"));
            }
            self.closed_by_peer(id, code);
            return self.count_idle_frame().map(|()| Event::Nothing);
        };
        let finished = stream.local_ended && stream.remote_ended;
        stream.closed = Some((ClosedBy::Peer, code));
        stream.remote_ended = true;
        if !finished {
            self.count_broken_stream()?;
        }
        Ok(Event::Reset { stream: id, code, fault: None })
    }

    fn settings(&mut self, header: FrameHeader, payload: &[u8]) -> Received {
        if header.stream != 0 {
            return fail(ErrorCode::PROTOCOL_ERROR, "client sent SETTINGS frame with incorrect identifier");
        }
        if header.has(flag::ACK) {
            if !payload.is_empty() {
                let message = "client sent SETTINGS frame with the ACK flag and nonzero length";
                return fail(ErrorCode::FRAME_SIZE_ERROR, message);
            }
            self.count_idle_frame()?;
            // Some clients have nothing to set and begin with this; it is a SETTINGS frame (section 3.4).
            self.settings_seen = true;
            self.acknowledged();
            return Ok(Event::Nothing);
        }
        if !payload.len().is_multiple_of(6) {
            let length = payload.len();
            let message = format!("client sent SETTINGS frame with incorrect length {length}");
            return fail(ErrorCode::FRAME_SIZE_ERROR, message);
        }
        // The first is owed; only more of them are idle talk.
        if std::mem::replace(&mut self.settings_seen, true) {
            self.count_idle_frame()?;
        }
        for (name, value) in frame::settings(payload) {
            self.setting(name, value)?;
        }
        FrameHeader { length: 0, kind: kind::SETTINGS, flags: flag::ACK, stream: 0 }.write(&mut self.output);
        Ok(Event::Window { stream: 0 })
    }

    /// Our SETTINGS are in force: windows were counted from the default until now.
    fn acknowledged(&mut self) {
        if std::mem::replace(&mut self.settings_acknowledged, true) {
            return;
        }
        let change = i64::from(self.limits.first_window_bytes()) - i64::from(self.limits.stream_window_bytes);
        for stream in &mut self.streams {
            stream.receive_window -= change;
        }
    }

    fn setting(&mut self, name: u16, value: u32) -> Result<(), ConnectionError> {
        let wrong = |what: &str, code: ErrorCode| {
            fail(code, format!("client sent SETTINGS frame with incorrect {what} value {value}"))
        };
        match name {
            setting::HEADER_TABLE_SIZE => self.encoder.set_table_bytes_max(value as usize),
            setting::ENABLE_PUSH if value > 1 || value == 1 && self.role == Role::Client => {
                return wrong("ENABLE_PUSH", ErrorCode::PROTOCOL_ERROR);
            }
            setting::MAX_CONCURRENT_STREAMS => self.peer.streams_max = value,
            setting::INITIAL_WINDOW_SIZE => {
                if i64::from(value) > frame::WINDOW_BYTES_MAX {
                    return wrong("INITIAL_WINDOW_SIZE", ErrorCode::FLOW_CONTROL_ERROR);
                }
                let change = i64::from(value) - self.peer.window_bytes;
                self.peer.window_bytes = i64::from(value);
                for stream in &mut self.streams {
                    stream.send_window += change;
                    if stream.send_window > frame::WINDOW_BYTES_MAX {
                        return wrong("INITIAL_WINDOW_SIZE", ErrorCode::FLOW_CONTROL_ERROR);
                    }
                }
            }
            setting::MAX_FRAME_SIZE => {
                if !(frame::PAYLOAD_BYTES_MAX..=frame::PAYLOAD_BYTES_LIMIT).contains(&(value as usize)) {
                    return wrong("MAX_FRAME_SIZE", ErrorCode::PROTOCOL_ERROR);
                }
                self.peer.frame_bytes_max = value as usize;
            }
            setting::ENABLE_CONNECT_PROTOCOL => {
                if value > 1 {
                    return wrong("ENABLE_CONNECT_PROTOCOL", ErrorCode::PROTOCOL_ERROR);
                }
                self.peer.connect_protocol = value == 1;
            }
            // What nobody knows is ignored; the size of field lists is advice (section 6.5.2).
            _ => {}
        }
        Ok(())
    }

    fn ping(&mut self, header: FrameHeader, payload: &[u8]) -> Received {
        let length = header.length;
        if length != 8 {
            let message = format!("client sent PING frame with incorrect length {length}");
            return fail(ErrorCode::FRAME_SIZE_ERROR, message);
        }
        if header.stream != 0 {
            return fail(ErrorCode::PROTOCOL_ERROR, "client sent PING frame with incorrect identifier");
        }
        self.count_idle_frame()?;
        if !header.has(flag::ACK) {
            FrameHeader { length: 8, kind: kind::PING, flags: flag::ACK, stream: 0 }.write(&mut self.output);
            self.output.extend_from_slice(payload);
        }
        Ok(Event::Nothing)
    }

    fn goaway(&mut self, header: FrameHeader, payload: &[u8]) -> Received {
        let (Some(last_stream), Some(code)) =
            (frame::number31(payload), payload.get(4..).and_then(frame::number32))
        else {
            let length = payload.len();
            let message = format!("client sent GOAWAY frame with incorrect length {length}");
            return fail(ErrorCode::FRAME_SIZE_ERROR, message);
        };
        if header.stream != 0 {
            return fail(ErrorCode::PROTOCOL_ERROR, "client sent GOAWAY frame with incorrect identifier");
        }
        self.count_idle_frame()?;
        self.going_away |= self.role == Role::Client;
        Ok(Event::GoAway { last_stream, code: ErrorCode(code) })
    }

    fn window_update(&mut self, header: FrameHeader, payload: &[u8]) -> Received {
        let id = header.stream;
        let length = header.length;
        let (4, Some(increment)) = (length, frame::number31(payload)) else {
            let message = format!("client sent WINDOW_UPDATE frame with incorrect length {length}");
            return fail(ErrorCode::FRAME_SIZE_ERROR, message);
        };
        if id != 0 && self.is_idle(id) {
            return fail(ErrorCode::PROTOCOL_ERROR, "client sent WINDOW_UPDATE frame for an idle stream");
        }
        match self.paid_updates.checked_sub(1) {
            Some(left) => self.paid_updates = left,
            None => self.count_idle_frame()?,
        }
        if increment == 0 {
            let message = "client sent WINDOW_UPDATE frame with incorrect window increment 0";
            return if id == 0 {
                fail(ErrorCode::PROTOCOL_ERROR, message)
            } else if self.is_reset(id) {
                Ok(Event::Nothing)
            } else {
                self.stream_error(id, ErrorCode::PROTOCOL_ERROR, message)
            };
        }
        let increment = i64::from(increment);
        if id == 0 {
            self.send_window += increment;
            if self.send_window > frame::WINDOW_BYTES_MAX {
                let available = self.send_window - increment;
                let message = format!(
                    "client violated connection flow control: received WINDOW_UPDATE frame with window increment {increment} not allowed for window {available}"
                );
                return fail(ErrorCode::FLOW_CONTROL_ERROR, message);
            }
            return Ok(Event::Window { stream: 0 });
        }
        let Some(stream) = self.stream(id).filter(|stream| stream.closed.is_none()) else {
            return Ok(Event::Nothing);
        };
        let available = stream.send_window;
        stream.send_window += increment;
        if stream.send_window > frame::WINDOW_BYTES_MAX {
            let message = format!(
                "client violated flow control for stream {id}: received WINDOW_UPDATE frame with window increment {increment} not allowed for window {available}"
            );
            return self.stream_error(id, ErrorCode::FLOW_CONTROL_ERROR, message);
        }
        Ok(Event::Window { stream: id })
    }
}

/// An answer that breaks its own promises. Its stream is the only one that matters, so the connection ends with it.
pub(super) fn fail_response(malformed: Malformed) -> Received {
    let message = match malformed {
        Malformed::TooLong => "upstream sent response body larger than indicated content length",
        Malformed::TooShort { .. } => "upstream prematurely closed stream",
        Malformed::Head | Malformed::Trailers => "upstream sent invalid header",
    };
    fail(ErrorCode::PROTOCOL_ERROR, message)
}

const INVALID_TRAILER: &str = "upstream sent invalid trailer";

fn is_wrong_trailer(name: &[u8], value: &[u8]) -> bool {
    name.first() == Some(&b':') || check_field(name, value, true).is_err()
}

fn fail_hpack(error: HpackError) -> Result<(), ConnectionError> {
    let (code, message) = match error {
        HpackError::StringTooLarge => (ErrorCode::ENHANCE_YOUR_CALM, "client sent too large header field"),
        HpackError::ListTooLarge => (ErrorCode::ENHANCE_YOUR_CALM, "client sent too large header"),
        HpackError::Truncated => {
            (ErrorCode::COMPRESSION_ERROR, "client sent header block with incorrect length")
        }
        HpackError::Index => (ErrorCode::COMPRESSION_ERROR, "client sent invalid hpack table index"),
        HpackError::Integer => {
            (ErrorCode::COMPRESSION_ERROR, "client sent header block with too long length value")
        }
        HpackError::Huffman => (ErrorCode::COMPRESSION_ERROR, "client sent invalid encoded header field"),
        HpackError::TableSize => (ErrorCode::COMPRESSION_ERROR, "client sent invalid table size update"),
        HpackError::TableSizeMissing => {
            (ErrorCode::COMPRESSION_ERROR, "client sent header block without table size update")
        }
    };
    fail(code, message)
}
