//! What the caller has to say: heads, bodies, their ends, and the reading of bodies.

use super::{Connection, Role};
use crate::Fields;
use crate::h2::frame::{self, ErrorCode, FrameHeader, flag, kind};
use crate::h2::limits::{PAID_WINDOW_BYTES, READING_WINDOW_BYTES};
use crate::h2::stream::{ClosedBy, Malformed, Stream};

/// What there is to read of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyState {
    /// So many bytes were appended.
    Read(usize),
    /// Nothing has come since the last call.
    Waiting,
    /// It was read whole.
    Ended,
    /// It is malformed ([`Connection::malformed`]).
    Malformed,
    /// The stream is over.
    Reset,
}

/// A head being written. [`HeadWriter::finish`] sends it.
pub struct HeadWriter<'c> {
    connection: &'c mut Connection,
    stream: u32,
    start: usize,
}

impl HeadWriter<'_> {
    /// `:status`.
    pub fn status(&mut self, status: u16) {
        self.connection.encoder.status(status, &mut self.connection.output);
    }

    /// A field; its name goes out in lowercase.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        self.connection.encoder.field(name, value, &mut self.connection.output);
    }

    /// The head is whole. Returns how many bytes it takes. With `last` the END_STREAM flag can still be set by
    /// [`Connection::finish`].
    pub fn finish(self, last: bool) -> usize {
        let HeadWriter { connection, stream, start } = self;
        let written = connection.output.len() - start;
        connection.close_head(stream, start);
        let at = connection.output_base + start as u64;
        if let Some(stream) = connection.stream(stream) {
            stream.last_frame = last.then_some(at);
        }
        written
    }
}

impl Connection {
    /// Opens a stream of the client's; none when the peer wants no more. Its head must follow at once.
    pub fn open(&mut self, bodiless: bool) -> Option<u32> {
        if self.role != Role::Client
            || self.going_away
            || self.streams.len() >= self.peer.streams_max as usize
        {
            return None;
        }
        let id = self.next_stream;
        self.next_stream = id.checked_add(2).filter(|next| *next < 1 << 31)?;
        let window = i64::from(self.limits.stream_window_bytes);
        let mut stream = Stream::new(id, self.peer.window_bytes, window);
        stream.bodiless = bodiless;
        self.streams.push(stream);
        Some(id)
    }

    /// Begins a head, interim answer or trailers.
    pub fn begin_head(&mut self, stream: u32) -> HeadWriter<'_> {
        let start = self.output.len();
        FrameHeader { length: 0, kind: kind::HEADERS, flags: flag::END_HEADERS, stream }
            .write(&mut self.output);
        self.encoder.begin(&mut self.output);
        HeadWriter { connection: self, stream, start }
    }

    /// Writes the lengths of a head's frames, and cuts it into several where it is too long for one.
    fn close_head(&mut self, stream: u32, start: usize) {
        let max = self.peer.frame_bytes_max;
        let mut at = start;
        loop {
            let length = (self.output.len() - at).saturating_sub(frame::HEADER_BYTES);
            let piece = length.min(max);
            let flags = if piece < length { 0 } else { flag::END_HEADERS };
            let kind = if at == start { kind::HEADERS } else { kind::CONTINUATION };
            let mut header = Vec::with_capacity(frame::HEADER_BYTES);
            if at == start && piece == length {
                // The usual case: only the length is not written yet.
                let [_, a, b, c] = (length as u32).to_be_bytes();
                if let Some(place) = self.output.get_mut(at..at + 3) {
                    place.copy_from_slice(&[a, b, c]);
                }
                return;
            }
            FrameHeader { length: piece, kind, flags, stream }.write(&mut header);
            if let Some(place) = self.output.get_mut(at..at + frame::HEADER_BYTES) {
                place.copy_from_slice(&header);
            }
            if piece == length {
                return;
            }
            at += frame::HEADER_BYTES + piece;
            self.output.splice(at..at, [0; frame::HEADER_BYTES]);
        }
    }

    /// How much of a body may be sent on a stream now, bytes.
    pub fn room(&self, id: u32) -> usize {
        let Some(stream) = self.place(id).and_then(|place| self.streams.get(place)) else { return 0 };
        if stream.closed.is_some() || stream.local_ended {
            return 0;
        }
        let output = self.limits.output_bytes_max.saturating_sub(self.output.len());
        let window = stream.send_window.min(self.send_window).max(0);
        usize::try_from(window).unwrap_or(0).min(output)
    }

    /// Sends as much of a body as may be sent now, in frames of at most `frame_bytes_max`; returns how much that is.
    pub fn send(&mut self, id: u32, bytes: &[u8], frame_bytes_max: usize) -> usize {
        let count = self.room(id).min(bytes.len());
        let frame_bytes_max = frame_bytes_max.clamp(1, self.peer.frame_bytes_max);
        let joined = self.join(id, bytes.get(..count).unwrap_or_default(), frame_bytes_max);
        for piece in bytes.get(joined..count).unwrap_or_default().chunks(frame_bytes_max) {
            self.data_header(id, piece.len());
            self.output.extend_from_slice(piece);
        }
        count
    }

    /// Makes the frame longer that the output ends with, if it is one of this body; returns by how much.
    fn join(&mut self, id: u32, bytes: &[u8], frame_bytes_max: usize) -> usize {
        let last_frame = self.stream(id).and_then(|stream| stream.last_frame);
        let Some(at) = last_frame.and_then(|at| self.changeable(at)) else { return 0 };
        let Some(header) = self.output.get(at..).and_then(FrameHeader::parse) else { return 0 };
        if header.kind != kind::DATA || at + frame::HEADER_BYTES + header.length != self.output.len() {
            return 0;
        }
        let count = frame_bytes_max.saturating_sub(header.length).min(bytes.len());
        let [_, a, b, c] = ((header.length + count) as u32).to_be_bytes();
        if let Some(place) = self.output.get_mut(at..at + 3) {
            place.copy_from_slice(&[a, b, c]);
        }
        self.output.extend_from_slice(bytes.get(..count).unwrap_or_default());
        self.take_windows(id, count);
        count
    }

    /// Sends one frame of a body whose bytes `write` appends: exactly `length`, which must be within
    /// [`Connection::room`] and the peer's frame size. When it fails or appends another number, the stream ends.
    pub fn send_with<E>(
        &mut self,
        id: u32,
        length: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.output.len();
        self.data_header(id, length);
        let begun = self.output.len();
        let written = write(&mut self.output);
        if written.is_err() || self.output.len() - begun != length {
            self.output.truncate(start);
            self.reset(id, ErrorCode::INTERNAL_ERROR);
        }
        written
    }

    /// The most a frame may carry to the peer, bytes.
    pub fn frame_bytes_max(&self) -> usize {
        self.peer.frame_bytes_max
    }

    fn data_header(&mut self, id: u32, length: usize) {
        let at = self.output_base + self.output.len() as u64;
        FrameHeader { length, kind: kind::DATA, flags: 0, stream: id }.write(&mut self.output);
        self.take_windows(id, length);
        if let Some(stream) = self.stream(id) {
            stream.last_frame = Some(at);
        }
    }

    /// Counts body bytes against both windows.
    fn take_windows(&mut self, id: u32, length: usize) {
        self.send_window -= length as i64;
        self.unpaid_bytes += length;
        self.paid_updates += self.unpaid_bytes / PAID_WINDOW_BYTES;
        self.unpaid_bytes %= PAID_WINDOW_BYTES;
        if let Some(stream) = self.stream(id) {
            stream.send_window -= length as i64;
        }
    }

    /// Ends our side of a stream, with trailers if there are any. The stream of a malformed request is reset behind
    /// its answer (RFC 9113, section 8.1.1): clients that look at answers see the page, the others why there is none.
    /// Returns how many bytes that takes.
    pub fn finish(&mut self, id: u32, trailers: &Fields) -> usize {
        let before = self.output.len();
        let Some(stream) = self.stream(id).filter(|stream| stream.closed.is_none()) else { return 0 };
        let malformed = stream.malformed.is_some();
        stream.local_ended = true;
        let last_frame = stream.last_frame.take();
        let changeable = last_frame.and_then(|at| self.changeable(at));
        if !trailers.is_empty() {
            let start = self.output.len();
            let mut head = self.begin_head(id);
            for (name, value) in trailers.iter() {
                head.field(name, value);
            }
            head.finish(false);
            self.set_end_stream(start);
        } else if let Some(at) = changeable {
            self.set_end_stream(at);
        } else {
            FrameHeader { length: 0, kind: kind::DATA, flags: flag::END_STREAM, stream: id }
                .write(&mut self.output);
        }
        if malformed {
            let _ = self.count_broken_stream();
            self.reset(id, ErrorCode::PROTOCOL_ERROR);
        }
        self.output.len() - before
    }

    fn set_end_stream(&mut self, frame_start: usize) {
        const FLAGS_OFFSET: usize = 4;
        if let Some(flags) = self.output.get_mut(frame_start + FLAGS_OFFSET) {
            *flags |= flag::END_STREAM;
        }
    }

    /// Ends a stream before its end.
    pub fn reset(&mut self, id: u32, code: ErrorCode) {
        if let Some(stream) = self.stream(id).filter(|stream| stream.closed.is_none()) {
            stream.closed = Some((ClosedBy::Us, code));
            self.write_reset(id, code);
        }
    }

    /// Appends what has come of a body and opens the windows again.
    pub fn read_body(&mut self, id: u32, out: &mut Vec<u8>) -> BodyState {
        let window_bytes = i64::from(self.limits.stream_window_bytes).max(READING_WINDOW_BYTES);
        let Some(stream) = self.stream(id) else { return BodyState::Reset };
        // Somebody reads: from now on the peer may keep the pipe full.
        let wanted = window_bytes - stream.receive_window;
        if wanted >= window_bytes / 2 && !stream.remote_ended && stream.closed.is_none() {
            stream.receive_window += wanted;
            frame::write_number(kind::WINDOW_UPDATE, id, wanted as u32, &mut self.output);
        }
        let Some(stream) = self.stream(id) else { return BodyState::Reset };
        let unread = stream.unread();
        if unread == 0 {
            return match (stream.malformed, stream.closed) {
                // What follows a head that is wrong is dropped: whoever answers finds no body.
                (Some(Malformed::Head), _) => BodyState::Ended,
                (Some(_), _) => BodyState::Malformed,
                (None, Some(_)) => BodyState::Reset,
                (None, None) if stream.remote_ended => BodyState::Ended,
                (None, None) => BodyState::Waiting,
            };
        }
        if out.is_empty() && stream.read_bytes == 0 {
            std::mem::swap(out, &mut stream.inbox);
        } else {
            out.extend_from_slice(stream.inbox.get(stream.read_bytes..).unwrap_or_default());
            stream.inbox.clear();
        }
        stream.read_bytes = 0;
        self.give_back(unread);
        BodyState::Read(unread)
    }

    /// Was all of the body received and read, and nothing wrong with it?
    pub fn body_is_read(&self, id: u32) -> bool {
        match self.place(id).and_then(|place| self.streams.get(place)) {
            Some(stream) if stream.malformed == Some(Malformed::Head) => true,
            Some(stream) => stream.remote_ended && stream.unread() == 0 && stream.malformed.is_none(),
            None => true,
        }
    }
}
