//! The body of an upstream's answer as it comes: read from the connection and taken out of its framing.

use super::Call;
use super::http2::{Fault, SendFault, Session, Upload};
use super::keepalive::Connection;
use crate::Request;
use crate::driver::{BodyError, Driver};
use http::h2::{BodyState, Event};
use http::{ChunkedDecoder, Fields, ResponseFraming};
use net::errno::Errno;
use net::splice::{Moved, Pipe, SpliceError};
use net::stream::Stream;
use net::timer::Deadline;
use std::borrow::Cow;
use std::task::{Context, Poll, Waker, ready};

/// The most a response's trailers may take, bytes.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// The least that is worth a pipe, bytes.
const MOVED_BYTES_MIN: u64 = 32 * 1024;

/// A body on its way from an upstream.
pub(super) struct Incoming {
    /// None once it has been given back.
    connection: Option<Box<Connection>>,
    framing: Framing,
    /// What was read from the connection, framing and all, bytes.
    pub received_bytes: u64,
    /// What of the body has come, bytes.
    pub body_bytes: u64,
    /// Does it come in chunks?
    pub is_chunked: bool,
    /// More came than belongs to the body.
    pub surplus: bool,
    /// The connection ended with the body, or is not fit for another request.
    spent: bool,
    /// What came behind the last chunk.
    pub trailers: Fields,
    /// What of the request still goes out while the body comes in.
    upload: Option<Box<Upload>>,
    /// What of it went out meanwhile, bytes.
    pub sent_bytes: u64,
}

enum Framing {
    Done,
    Length(u64),
    Chunked(ChunkedDecoder),
    Close,
    /// A stream of HTTP/2, which is over when it ends.
    Http2(u32),
}

/// Why a body ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The upstream closed the connection.
    Closed,
    /// The connection broke.
    Failed(Errno),
    /// The chunks are malformed.
    Malformed,
    /// Nothing came for too long.
    TimedOut,
    /// The upstream broke a rule of HTTP/2, or ended the stream; what to write down.
    Said(Cow<'static, str>),
}

/// Who paused for too long.
pub(super) enum Late {
    Client,
    Upstream,
}

impl From<Fault> for Cut {
    fn from(fault: Fault) -> Cut {
        match fault {
            Fault::Closed => Cut::Closed,
            Fault::Failed(errno) => Cut::Failed(errno),
            Fault::Said(message) => Cut::Said(message),
        }
    }
}

impl Framing {
    fn of(framing: ResponseFraming) -> Framing {
        match framing {
            ResponseFraming::None => Framing::Done,
            ResponseFraming::Length(length) => Framing::Length(length),
            ResponseFraming::Chunked => Framing::Chunked(ChunkedDecoder::keeping_trailers(TRAILER_BYTES_MAX)),
            ResponseFraming::UntilClose => Framing::Close,
        }
    }
}

impl Incoming {
    /// The body behind a head. `keep` says whether the connection can serve again afterwards.
    pub fn new(connection: Box<Connection>, framing: ResponseFraming, keep: bool) -> Incoming {
        Incoming {
            connection: Some(connection),
            framing: Framing::of(framing),
            received_bytes: 0,
            body_bytes: 0,
            is_chunked: framing == ResponseFraming::Chunked,
            surplus: false,
            spent: !keep,
            trailers: Fields::default(),
            upload: None,
            sent_bytes: 0,
        }
    }

    /// The body behind a head on a stream of HTTP/2, on which the request may still be going out.
    pub fn http2(connection: Box<Connection>, upload: Box<Upload>) -> Incoming {
        let mut incoming = Incoming::new(connection, ResponseFraming::None, true);
        incoming.framing = Framing::Http2(upload.stream);
        incoming.upload = Some(upload).filter(|upload| !upload.has_ended());
        let (mut nothing, mut cx) = (Vec::new(), Context::from_waker(Waker::noop()));
        // An answer without a body is over already.
        if incoming.has_ended() {
            let _ = incoming.poll_read(&mut cx, &mut nothing, 1);
        }
        incoming
    }

    fn has_ended(&self) -> bool {
        let session = self.connection.as_ref().and_then(|connection| connection.http2.as_ref());
        match (&self.framing, session) {
            (Framing::Http2(id), Some(session)) => session.codec.has_ended(*id),
            _ => false,
        }
    }

    /// Is the body over?
    pub fn is_over(&self) -> bool {
        matches!(self.framing, Framing::Done)
    }

    /// The connection, if it can serve another request.
    pub fn take_kept(&mut self) -> Option<Box<Connection>> {
        let sent = self.upload.is_none();
        let whole = self.is_over() && !self.surplus && !self.spent && sent;
        self.connection.take().filter(|_| whole)
    }

    /// The connection, whatever is left on it.
    pub fn take_connection(&mut self) -> Option<Box<Connection>> {
        self.connection.take()
    }

    /// Is the client's body waited for?
    pub fn is_starved(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.starved)
    }

    /// Hears what the upstream says about the connection, and takes of the body what its window allows, for later.
    pub fn poll_listen(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        let Framing::Http2(id) = self.framing else { return Poll::Pending };
        let Some(Connection { stream, http2: Some(session), .. }) = self.connection.as_deref_mut() else {
            return Poll::Pending;
        };
        while !session.codec.has_ended(id) {
            let event = ready!(session.poll_event(cx, stream))?;
            self.received_bytes += std::mem::take(&mut session.received_bytes);
            if let Some(cut) = heard(event, session, &mut self.trailers) {
                return Poll::Ready(Err(cut));
            }
        }
        Poll::Pending
    }

    /// Does the request still go out?
    pub fn is_uploading(&self) -> bool {
        self.upload.is_some()
    }

    /// Sends the request's body on; ready when all of it has left, or the upstream takes no more.
    ///
    /// # Errors
    /// The client's body cannot be read on.
    pub fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Request<'_>,
        driver: &mut Driver,
        call: &Call,
    ) -> Poll<Result<(), BodyError>> {
        let (Some(upload), Some(connection)) = (&mut self.upload, self.connection.as_deref_mut()) else {
            return Poll::Ready(Ok(()));
        };
        let Connection { stream, http2: Some(session), .. } = connection else { return Poll::Ready(Ok(())) };
        let sent = upload.poll_send(cx, request, driver, call, (session, stream));
        self.sent_bytes += std::mem::take(&mut session.sent_bytes);
        match ready!(sent) {
            Ok(()) => self.upload = None,
            Err(SendFault::Upstream(_)) => {
                self.upload = None;
                self.spent = true;
            }
            Err(SendFault::Client(error)) => return Poll::Ready(Err(error)),
        }
        Poll::Ready(Ok(()))
    }

    /// Who has been waited for for too long while the request goes out.
    pub fn poll_upload_expired(&mut self, cx: &mut Context<'_>, driver: &mut Driver) -> Poll<Late> {
        match (&self.upload, &mut self.connection) {
            (Some(upload), _) if upload.starved => {
                driver.poll_expired(cx, upload.client_deadline).map(|()| Late::Client)
            }
            (Some(upload), Some(connection)) => {
                connection.stream.poll_expired(cx, upload.deadline).map(|()| Late::Upstream)
            }
            _ => Poll::Pending,
        }
    }

    /// Ready once the deadline has passed.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>, deadline: Deadline) -> Poll<()> {
        match &mut self.connection {
            Some(connection) => connection.stream.poll_expired(cx, deadline),
            None => Poll::Pending,
        }
    }

    /// Appends body bytes; ready when some came, and at the end of the body.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Poll<Result<(), Cut>> {
        let start = out.len();
        if let Framing::Http2(id) = self.framing {
            return self.poll_read_stream(cx, id, out, bytes_max);
        }
        while out.len() == start && !self.is_over() {
            let bytes_max = self.expected_bytes(bytes_max);
            let Some(connection) = &mut self.connection else { return Poll::Ready(Err(Cut::Closed)) };
            let read = ready!(connection.stream.poll_read_into(cx, out, bytes_max));
            self.came(read.map_err(Cut::Failed)?, out, start)?;
        }
        Poll::Ready(Ok(()))
    }

    /// As [`Incoming::poll_read`], on a stream of HTTP/2.
    fn poll_read_stream(
        &mut self,
        cx: &mut Context<'_>,
        id: u32,
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Poll<Result<(), Cut>> {
        let start = out.len();
        let Some(Connection { stream, http2: Some(session), .. }) = self.connection.as_deref_mut() else {
            return Poll::Ready(Err(Cut::Closed));
        };
        loop {
            match session.codec.read_body(id, out) {
                BodyState::Read(count) => {
                    self.body_bytes += count as u64;
                    if session.codec.body_is_read(id) {
                        continue;
                    }
                }
                BodyState::Waiting => {}
                BodyState::Ended => {
                    // An upstream may take its word back in the same breath.
                    if let Some(cut) = session.heard_at_hand() {
                        self.body_bytes -= (out.len() - start) as u64;
                        out.truncate(start);
                        return Poll::Ready(Err(cut.into()));
                    }
                    self.framing = Framing::Done;
                    self.received_bytes += std::mem::take(&mut session.received_bytes);
                    if self.upload.is_none() {
                        session.codec.release(id);
                    }
                    // What is owed to the connection leaves now, if it may.
                    let _ = session.poll_write(cx, stream);
                    return Poll::Ready(Ok(()));
                }
                BodyState::Malformed | BodyState::Reset => return Poll::Ready(Err(Cut::Closed)),
            }
            if out.len() - start >= bytes_max {
                return Poll::Ready(Ok(()));
            }
            let event = match session.poll_event(cx, stream) {
                Poll::Ready(Ok(event)) => event,
                // What came before is the client's all the same.
                Poll::Ready(Err(fault)) => {
                    self.received_bytes += std::mem::take(&mut session.received_bytes);
                    return Poll::Ready(Err(fault.into()));
                }
                Poll::Pending => {
                    self.received_bytes += std::mem::take(&mut session.received_bytes);
                    let _ = session.poll_write(cx, stream);
                    return if out.len() > start { Poll::Ready(Ok(())) } else { Poll::Pending };
                }
            };
            if let Some(cut) = heard(event, session, &mut self.trailers) {
                return Poll::Ready(Err(cut));
            }
        }
    }

    /// Appends what of the body is there, without waiting; false where nothing is.
    pub fn read_at_hand(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Result<bool, Cut> {
        let Some(connection) = &mut self.connection else { return Ok(false) };
        let start = out.len();
        match connection.stream.try_read_into(out, bytes_max) {
            Ok(None) => Ok(false),
            Ok(Some(count)) => self.came(count, out, start).map(|()| true),
            Err(error) => Err(Cut::Failed(error.errno())),
        }
    }

    /// Moves what of a large body is there to the client's connection behind `lead`, without waiting and without looking
    /// at it; what that does not take is appended to `rest`. None: nothing is there.
    pub fn move_at_hand(
        &mut self,
        pipe: &mut Pipe,
        to: &mut Stream,
        lead: [&[u8]; 2],
        rest: &mut Vec<u8>,
    ) -> Result<Option<Moved>, SpliceError> {
        let bytes_max = self.movable_bytes();
        let (Some(connection), Framing::Length(left)) = (&mut self.connection, &mut self.framing) else {
            return Ok(None);
        };
        let moved = pipe.move_at_hand(&mut connection.stream, to, bytes_max, lead, rest)?;
        let count = moved.map_or(0, |moved| moved.taken as u64);
        *left = left.saturating_sub(count);
        self.received_bytes += count;
        self.body_bytes += count;
        if *left == 0 {
            self.framing = Framing::Done;
            // Nobody has seen whether more came than belongs to the body.
            match connection.stream.try_read(&mut [0]) {
                Ok(None) => {}
                Ok(Some(1..)) => self.surplus = true,
                Ok(Some(0)) | Err(_) => self.spent = true,
            }
        }
        Ok(moved)
    }

    /// How much may go past us in a pipe, bytes; 0 where that is not worth it.
    pub fn movable_bytes(&self) -> usize {
        let plain = self.connection.as_ref().is_some_and(|connection| connection.stream.is_plain());
        match self.framing {
            Framing::Length(left) if plain && left >= MOVED_BYTES_MIN => {
                usize::try_from(left).unwrap_or(usize::MAX)
            }
            _ => 0,
        }
    }

    /// Ready once more of the body may be there.
    pub fn poll_stirred(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(Err(Cut::Closed)) };
        connection.stream.poll_stirred(cx, Deadline::NONE).map_err(|error| Cut::Failed(error.errno()))
    }

    /// May more of the body be there already?
    pub fn may_have_more(&self) -> bool {
        // The frames of HTTP/2 are taken as they come.
        !matches!(self.framing, Framing::Done | Framing::Http2(_))
            && self.connection.as_ref().is_some_and(|connection| connection.stream.has_data_or_news())
    }

    /// How much of that is worth asking for: all that is missing, and a byte more, which shows what does not belong
    /// to the body and that nothing more has come.
    pub fn expected_bytes(&self, bytes_max: usize) -> usize {
        match self.known_bytes() {
            0 => bytes_max,
            known => known.min(bytes_max),
        }
    }

    /// How much is known to be missing still, bytes; 0 where nothing is known.
    pub fn known_bytes(&self) -> usize {
        match self.framing {
            Framing::Length(left) => usize::try_from(left).unwrap_or(usize::MAX).saturating_add(1),
            _ => 0,
        }
    }

    /// A read has appended so many bytes behind `start`; none is the end.
    fn came(&mut self, count: usize, out: &mut Vec<u8>, start: usize) -> Result<(), Cut> {
        if count > 0 {
            self.received_bytes += count as u64;
            return self.decode(out, start);
        }
        if !matches!(self.framing, Framing::Close) {
            return Err(Cut::Closed);
        }
        self.framing = Framing::Done;
        self.spent = true;
        Ok(())
    }

    /// Takes what lies behind `from` out of its framing, in place.
    ///
    /// # Errors
    /// The framing is broken; what came before that place is body.
    pub fn decode(&mut self, out: &mut Vec<u8>, from: usize) -> Result<(), Cut> {
        let (mut read, mut write) = (from, from);
        let mut result = Ok(());
        while read < out.len() {
            let range = match &mut self.framing {
                Framing::Done => {
                    self.surplus = true;
                    break;
                }
                Framing::Close | Framing::Http2(_) => read..out.len(),
                Framing::Length(left) => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(out.len() - read);
                    *left -= count as u64;
                    if *left == 0 {
                        self.framing = Framing::Done;
                    }
                    read..read + count
                }
                Framing::Chunked(decoder) => match decoder.next_piece(&out[read..]) {
                    Err(_) => {
                        result = Err(Cut::Malformed);
                        break;
                    }
                    Ok(http::Chunk::NeedMore) => break,
                    Ok(http::Chunk::Data(range)) => read + range.start..read + range.end,
                    Ok(http::Chunk::End { consumed }) => {
                        self.trailers.extend_from(decoder.trailers());
                        self.framing = Framing::Done;
                        read + consumed..read + consumed
                    }
                },
            };
            read = range.end;
            let count = range.len();
            if range.start != write {
                out.copy_within(range, write);
            }
            write += count;
        }
        out.truncate(write);
        self.body_bytes += (write - from) as u64;
        result
    }
}

/// What an event means for the body: does it end it?
fn heard(event: Event, session: &mut Session, trailers: &mut Fields) -> Option<Cut> {
    match event {
        Event::Trailers { .. } => {
            std::mem::swap(trailers, &mut session.heads.trailers);
            None
        }
        Event::Reset { code, .. } => {
            Some(Cut::Said(format!("upstream rejected request with error {}", code.0).into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(framing: ResponseFraming) -> Incoming {
        Incoming {
            connection: None,
            framing: Framing::of(framing),
            received_bytes: 0,
            body_bytes: 0,
            is_chunked: false,
            surplus: false,
            spent: false,
            trailers: Fields::default(),
            upload: None,
            sent_bytes: 0,
        }
    }

    #[test]
    fn any_split_gives_the_same_body() {
        let chunked = b"5\r\nhello\r\n6; x=y\r\n world\r\n0\r\nA: b\r\n\r\n";
        /// The framing, what comes, the body, is it over, is something left over.
        type Case = (ResponseFraming, &'static [u8], &'static [u8], bool, bool);
        let cases: &[Case] = &[
            (ResponseFraming::Length(5), b"hello", b"hello", true, false),
            (ResponseFraming::Length(5), b"hello!", b"hello", true, true),
            (ResponseFraming::Length(9), b"hello", b"hello", false, false),
            (ResponseFraming::UntilClose, b"hello", b"hello", false, false),
            (ResponseFraming::None, b"", b"", true, false),
            (ResponseFraming::None, b"x", b"", true, true),
            (ResponseFraming::Chunked, chunked, b"hello world", true, false),
            (ResponseFraming::Chunked, b"5\r\nhel", b"hel", false, false),
        ];
        for (framing, input, body, over, surplus) in cases {
            for split in 0..=input.len() {
                let mut incoming = incoming(*framing);
                let mut out = b"before".to_vec();
                for part in [&input[..split], &input[split..]] {
                    let from = out.len();
                    out.extend_from_slice(part);
                    if !part.is_empty() {
                        incoming.decode(&mut out, from).expect("well-formed");
                    }
                }
                assert_eq!(&out[6..], *body, "{framing:?} split at {split}");
                assert_eq!(
                    (incoming.is_over(), incoming.surplus),
                    (*over, *surplus),
                    "{framing:?} at {split}"
                );
                assert_eq!(incoming.body_bytes, body.len() as u64);
            }
        }
    }

    #[test]
    fn malformed_chunks_are_refused_and_trailers_kept() {
        let mut bad = incoming(ResponseFraming::Chunked);
        let mut out = b"5\r\nhello\r\nzz\r\n".to_vec();
        assert_eq!(bad.decode(&mut out, 0), Err(Cut::Malformed));
        assert_eq!(out, b"hello", "nothing of the framing is taken for the body");
        let mut good = incoming(ResponseFraming::Chunked);
        let mut out = b"0\r\nA: b\r\n\r\n".to_vec();
        assert_eq!(good.decode(&mut out, 0), Ok(()));
        assert_eq!(good.trailers.get(b"a"), Some(&b"b"[..]));
    }
}
