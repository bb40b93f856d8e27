//! Payloads that are taken as they come: those of DATA frames (RFC 9113, section 6.1), which may be as large as the window
//! and are never held whole, and what is passed over.

use super::receive::{Received, fail_response};
use super::{Connection, ConnectionError, Event, Role, fail};
use crate::h2::frame::{ErrorCode, FrameHeader, flag};
use crate::h2::stream::ClosedBy;

/// The rest of a frame whose payload has not come whole.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rest {
    /// A piece of a body.
    Body {
        stream: u32,
        /// What is left without the padding, bytes.
        left: usize,
        /// What follows the data, bytes.
        padding: usize,
        /// The END_STREAM flag.
        ended: bool,
    },
    /// Nothing that anybody wants: so many bytes.
    Skipped(usize),
}

type Taken = Result<Option<(usize, Event)>, ConnectionError>;

impl Connection {
    /// A DATA frame: its header, and what has come of its payload. Says how much of the payload was taken.
    pub(super) fn data(&mut self, header: FrameHeader, input: &[u8]) -> Taken {
        let FrameHeader { length, stream: id, .. } = header;
        if id == 0 {
            return fail(ErrorCode::PROTOCOL_ERROR, "client sent DATA frame with incorrect identifier");
        }
        let (at, padding) = match input.first() {
            _ if !header.has(flag::PADDED) => (0, 0),
            None if length > 0 => return Ok(None),
            padding => (1, padding.map_or(0, |&padding| usize::from(padding))),
        };
        let Some(left) = length.checked_sub(at + padding) else {
            let message = format!("client sent padded DATA frame with incorrect length: {length}");
            return fail(ErrorCode::PROTOCOL_ERROR, message);
        };
        if self.is_idle(id) {
            return fail(ErrorCode::PROTOCOL_ERROR, "client sent DATA frame for an idle stream");
        }
        let available = self.receive_window;
        if available < length as i64 {
            let message = format!(
                "client violated connection flow control: received DATA frame length {length}, available window {available}"
            );
            return fail(ErrorCode::FLOW_CONTROL_ERROR, message);
        }
        self.receive_window -= (at + padding) as i64;
        self.give_back(at + padding);
        let ended = header.has(flag::END_STREAM);
        if left > 0 {
            // Some peers measure the way with a PING for every piece that they get or send.
            self.idle_frames.pay(1);
        } else if !ended {
            self.count_idle_frame()?;
        }
        if let Some(refused) = self.refuse_data(header, at + padding)? {
            self.receive_window -= left as i64;
            self.give_back(left);
            self.rest = Some(Rest::Skipped(length - at));
            return Ok(Some((at, refused)));
        }
        let rest = Rest::Body { stream: id, left, padding, ended };
        self.rest = Some(rest);
        let taken = self.take_rest(rest, input.get(at..).unwrap_or_default())?;
        Ok(Some(taken.map_or((at, Event::Nothing), |(count, event)| (at + count, event))))
    }

    /// May DATA come on this stream? What is said where it may not; `framing` of its bytes are no data.
    fn refuse_data(&mut self, header: FrameHeader, framing: usize) -> Result<Option<Event>, ConnectionError> {
        let FrameHeader { length, stream: id, .. } = header;
        let Some(stream) = self.stream(id) else { return self.late_data(id).map(Some) };
        if let Some((by, _)) = stream.closed {
            return if by == ClosedBy::Us {
                Ok(Some(Event::Nothing))
            } else {
                self.closed_stream_error(id).map(Some)
            };
        }
        if stream.remote_ended {
            let message = format!("client sent DATA frame for half-closed stream {id}");
            return self.stream_error(id, ErrorCode::STREAM_CLOSED, message).map(Some);
        }
        let available = stream.receive_window;
        if available < length as i64 {
            let message = format!(
                "client violated flow control for stream {id}: received DATA frame length {length}, available window {available}"
            );
            return self.stream_error(id, ErrorCode::FLOW_CONTROL_ERROR, message).map(Some);
        }
        if !stream.has_head {
            return fail(ErrorCode::PROTOCOL_ERROR, "upstream sent DATA frame before HEADERS");
        }
        stream.receive_window -= framing as i64;
        stream.expect(length - framing);
        Ok(None)
    }

    /// DATA for a stream that is no more.
    fn late_data(&mut self, id: u32) -> Received {
        match self.closed_by(id) {
            Some(ClosedBy::Us) => Ok(Event::Nothing),
            Some(ClosedBy::Peer) => self.closed_stream_error(id),
            _ => fail(ErrorCode::STREAM_CLOSED, format!("client sent DATA frame for closed stream {id}")),
        }
    }

    /// Takes what has come of the rest of a frame; none where that is nothing.
    pub(super) fn take_rest(&mut self, rest: Rest, input: &[u8]) -> Taken {
        match rest {
            Rest::Body { stream, left, padding, ended } => {
                let piece = input.get(..left).unwrap_or(input);
                let whole = piece.len() == left;
                if piece.is_empty() && !whole {
                    return Ok(None);
                }
                self.rest = match whole {
                    true => (padding > 0).then_some(Rest::Skipped(padding)),
                    false => Some(Rest::Body { stream, left: left - piece.len(), padding, ended }),
                };
                Ok(Some((piece.len(), self.body_piece(stream, piece, ended && whole)?)))
            }
            Rest::Skipped(0) => {
                self.rest = None;
                Ok(Some((0, Event::Nothing)))
            }
            Rest::Skipped(_) if input.is_empty() => Ok(None),
            Rest::Skipped(left) => {
                let count = left.min(input.len());
                self.rest = (count < left).then_some(Rest::Skipped(left - count));
                Ok(Some((count, Event::Nothing)))
            }
        }
    }

    /// Bytes of a body, counted against both windows.
    fn body_piece(&mut self, id: u32, piece: &[u8], ended: bool) -> Received {
        let role = self.role;
        self.receive_window -= piece.len() as i64;
        let Some(stream) = self.stream(id).filter(|stream| stream.closed.is_none()) else {
            // The stream has ended while the frame was on its way.
            self.give_back(piece.len());
            return Ok(Event::Nothing);
        };
        stream.receive_window -= piece.len() as i64;
        let before = stream.inbox.len();
        stream.receive(piece, ended);
        // Bytes nobody will read are the connection's again at once.
        let dropped = piece.len() - (stream.inbox.len() - before);
        let malformed = stream.malformed.filter(|_| role == Role::Client);
        self.give_back(dropped);
        match malformed {
            Some(malformed) => fail_response(malformed),
            None => Ok(Event::Data { stream: id }),
        }
    }
}
