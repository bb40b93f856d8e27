//! The body of an upstream's answer as it comes: read from the connection and taken out of its framing.

use super::keepalive::Connection;
use http::{ChunkedDecoder, Fields, ResponseFraming};
use net::errno::Errno;
use net::timer::Deadline;
use std::task::{Context, Poll, ready};

/// The most a response's trailers may take, bytes.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// A body on its way from an upstream.
pub(super) struct Incoming {
    /// None once it has been given back.
    connection: Option<Box<Connection>>,
    framing: Framing,
    /// What was read from the connection, framing and all, bytes.
    pub received_bytes: u64,
    /// What of the body has come, bytes.
    pub body_bytes: u64,
    /// More came than belongs to the body.
    pub surplus: bool,
    /// The connection ended with the body, or is not fit for another request.
    spent: bool,
    /// What came behind the last chunk.
    pub trailers: Fields,
}

enum Framing {
    Done,
    Length(u64),
    Chunked(ChunkedDecoder),
    Close,
}

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The upstream closed the connection.
    Closed,
    /// The connection broke.
    Failed(Errno),
    /// The chunks are malformed.
    Malformed,
    /// Nothing came for too long.
    TimedOut,
}

impl Incoming {
    /// The body behind a head. `keep` says whether the connection can serve again afterwards.
    pub fn new(connection: Box<Connection>, framing: ResponseFraming, keep: bool) -> Incoming {
        let framing = match framing {
            ResponseFraming::None => Framing::Done,
            ResponseFraming::Length(length) => Framing::Length(length),
            ResponseFraming::Chunked => Framing::Chunked(ChunkedDecoder::keeping_trailers(TRAILER_BYTES_MAX)),
            ResponseFraming::UntilClose => Framing::Close,
        };
        Incoming {
            connection: Some(connection),
            framing,
            received_bytes: 0,
            body_bytes: 0,
            surplus: false,
            spent: !keep,
            trailers: Fields::default(),
        }
    }

    /// Is the body over?
    pub fn is_over(&self) -> bool {
        matches!(self.framing, Framing::Done)
    }

    /// The connection, if it can serve another request.
    pub fn take_kept(&mut self) -> Option<Box<Connection>> {
        let whole = self.is_over() && !self.surplus && !self.spent;
        self.connection.take().filter(|_| whole)
    }

    /// The connection, whatever is left on it.
    pub fn take_connection(&mut self) -> Option<Box<Connection>> {
        self.connection.take()
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
        while out.len() == start && !self.is_over() {
            let Some(connection) = &mut self.connection else { return Poll::Ready(Err(Cut::Closed)) };
            match ready!(connection.stream.poll_read_into(cx, out, bytes_max)) {
                Ok(0) if matches!(self.framing, Framing::Close) => {
                    self.framing = Framing::Done;
                    self.spent = true;
                }
                Ok(0) => return Poll::Ready(Err(Cut::Closed)),
                Ok(count) => {
                    self.received_bytes += count as u64;
                    self.decode(out, start)?;
                }
                Err(errno) => return Poll::Ready(Err(Cut::Failed(errno))),
            }
        }
        Poll::Ready(Ok(()))
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
                Framing::Close => read..out.len(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(framing: ResponseFraming) -> Incoming {
        let framing = match framing {
            ResponseFraming::None => Framing::Done,
            ResponseFraming::Length(length) => Framing::Length(length),
            ResponseFraming::Chunked => Framing::Chunked(ChunkedDecoder::keeping_trailers(TRAILER_BYTES_MAX)),
            ResponseFraming::UntilClose => Framing::Close,
        };
        Incoming {
            connection: None,
            framing,
            received_bytes: 0,
            body_bytes: 0,
            surplus: false,
            spent: false,
            trailers: Fields::default(),
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
