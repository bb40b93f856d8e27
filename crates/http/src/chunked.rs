//! The chunked transfer coding (RFC 9112, section 7.1): a decoder that takes any pieces, and an encoder.
//!
//! As strict as nginx 1.31: lines end in CRLF and nothing else, sizes are hexadecimal digits without white space
//! before them. Extensions are skipped. Trailers are skipped or kept, as the owner wants.

use crate::fields::Fields;
use crate::header_line::{Line, LineRules, LineScan};
use crate::uri::hex;
use std::ops::Range;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    SizeStart,
    Size,
    Extension,
    SizeAlmostDone,
    Data,
    AfterData,
    AfterDataAlmostDone,
    LastExtension,
    LastAlmostDone,
    Trailer,
    TrailerLine,
    TrailerLineAlmostDone,
    TrailerAlmostDone,
    KeptTrailers,
    Done,
}

/// What [`Decoder::next_piece`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// The input holds no more body; all of it was taken.
    NeedMore,
    /// These bytes of the input are body, never none. Everything before the range's end was taken.
    Data(Range<usize>),
    /// The body is over.
    End {
        /// How many bytes of the input were taken; what follows belongs to the next message.
        consumed: usize,
    },
}

/// What [`Decoder::decode`] took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// How many bytes of the input.
    pub consumed: usize,
    /// Is the body over?
    pub finished: bool,
}

/// A body that breaks the coding's rules. The connection cannot be used any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkError {
    /// nginx: `client sent invalid chunked body`, `upstream sent invalid chunked response`.
    Invalid,
    /// A refused trailer line as nginx shows it, to come after `upstream sent invalid trailer: `.
    InvalidTrailer(Vec<u8>),
    /// nginx: `upstream sent too big trailers`.
    TrailersTooBig,
}

/// The state between two pieces of a chunked body.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    state: State,
    left: u64,
    /// 0: trailers are skipped.
    trailer_bytes_max: usize,
    trailer_text: Vec<u8>,
    trailer_scan: LineScan,
    trailer_position: usize,
    trailers: Fields,
}

/// The largest size nginx takes.
const SIZE_MAX: u64 = i64::MAX as u64;

impl Decoder {
    /// A decoder that skips trailers.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// A decoder that keeps up to that many bytes of trailers.
    pub fn keeping_trailers(trailer_bytes_max: usize) -> Decoder {
        Decoder { trailer_bytes_max, ..Decoder::default() }
    }

    /// Makes it ready for another body, keeping memory and settings.
    pub fn clear(&mut self) {
        self.state = State::SizeStart;
        self.left = 0;
        self.trailer_text.clear();
        self.trailer_scan = LineScan::default();
        self.trailer_position = 0;
        self.trailers.clear();
    }

    /// The trailers, once the body is over.
    pub fn trailers(&self) -> &Fields {
        &self.trailers
    }

    /// Is the body over?
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How many bytes of the chunk under way are still to come.
    pub fn left(&self) -> u64 {
        if matches!(self.state, State::Data) { self.left } else { 0 }
    }

    /// Takes bytes up to the next piece of body. Call again with what follows it until [`Chunk::NeedMore`] or
    /// [`Chunk::End`].
    ///
    /// # Errors
    /// [`ChunkError`] at the first byte that has no place.
    pub fn next_piece(&mut self, input: &[u8]) -> Result<Chunk, ChunkError> {
        let mut position = 0;
        while let Some(&byte) = input.get(position) {
            match self.state {
                State::Data => {
                    let rest = input.len() - position;
                    let length = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                    self.left -= length as u64;
                    if self.left == 0 {
                        self.state = State::AfterData;
                    }
                    return Ok(Chunk::Data(position..position + length));
                }
                State::KeptTrailers => return self.keep_trailers(input, position),
                State::Done => return Ok(Chunk::End { consumed: position }),
                _ => self.byte(byte)?,
            }
            position += 1;
        }
        Ok(if self.state == State::Done { Chunk::End { consumed: position } } else { Chunk::NeedMore })
    }

    /// Takes the whole input, or up to the end of the body, and copies what is body to `out`. For bodies that are
    /// collected; [`Decoder::next_piece`] copies nothing. Kept trailers are added to `trailers` at the end.
    ///
    /// # Errors
    /// As [`Decoder::next_piece`].
    pub fn decode(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        trailers: &mut Fields,
    ) -> Result<Decoded, ChunkError> {
        let mut consumed = 0;
        loop {
            let rest = input.get(consumed..).unwrap_or_default();
            match self.next_piece(rest)? {
                Chunk::NeedMore => return Ok(Decoded { consumed: input.len(), finished: false }),
                Chunk::Data(range) => {
                    consumed += range.end;
                    out.extend_from_slice(rest.get(range).unwrap_or_default());
                }
                Chunk::End { consumed: last } => {
                    trailers.extend_from(&self.trailers);
                    return Ok(Decoded { consumed: consumed + last, finished: true });
                }
            }
        }
    }

    /// Takes one byte of the framing.
    fn byte(&mut self, byte: u8) -> Result<(), ChunkError> {
        self.state = match (self.state, byte) {
            (State::SizeStart, _) => {
                self.left = u64::from(hex(byte).ok_or(ChunkError::Invalid)?);
                State::Size
            }
            (State::Size, _) => self.size_byte(byte)?,
            (State::Extension, b'\r') => State::SizeAlmostDone,
            (State::LastExtension, b'\r') => State::LastAlmostDone,
            (State::Extension | State::LastExtension | State::TrailerLine, b'\n') => {
                return Err(ChunkError::Invalid);
            }
            (State::Extension | State::LastExtension, _) => self.state,
            (State::SizeAlmostDone, b'\n') => State::Data,
            (State::AfterData, b'\r') => State::AfterDataAlmostDone,
            (State::AfterDataAlmostDone, b'\n') => State::SizeStart,
            (State::LastAlmostDone, b'\n') if self.trailer_bytes_max > 0 => State::KeptTrailers,
            (State::LastAlmostDone | State::TrailerLineAlmostDone, b'\n') => State::Trailer,
            (State::Trailer, b'\r') => State::TrailerAlmostDone,
            (State::TrailerLine, b'\r') => State::TrailerLineAlmostDone,
            (State::Trailer, b'\n') => return Err(ChunkError::Invalid),
            (State::Trailer | State::TrailerLine, _) => State::TrailerLine,
            (State::TrailerAlmostDone, b'\n') => State::Done,
            _ => return Err(ChunkError::Invalid),
        };
        Ok(())
    }

    fn size_byte(&mut self, byte: u8) -> Result<State, ChunkError> {
        // As in nginx the limit is looked at before the next byte, whatever that is.
        if self.left > SIZE_MAX / 16 {
            return Err(ChunkError::Invalid);
        }
        if let Some(digit) = hex(byte) {
            self.left = self.left * 16 + u64::from(digit);
            // nginx wants to count the bytes that must still follow the chunk, too.
            return if self.left > SIZE_MAX - 9 { Err(ChunkError::Invalid) } else { Ok(State::Size) };
        }
        match (byte, self.left) {
            (b'\r', 0) => Ok(State::LastAlmostDone),
            (b'\r', _) => Ok(State::SizeAlmostDone),
            (b';' | b' ' | b'\t', 0) => Ok(State::LastExtension),
            (b';' | b' ' | b'\t', _) => Ok(State::Extension),
            _ => Err(ChunkError::Invalid),
        }
    }

    fn keep_trailers(&mut self, input: &[u8], start: usize) -> Result<Chunk, ChunkError> {
        let rules = LineRules { underscores: true, status_lines_skipped: true };
        let before = self.trailer_text.len();
        let room = self.trailer_bytes_max - before;
        let rest = input.get(start..).unwrap_or_default();
        self.trailer_text.extend_from_slice(rest.get(..room).unwrap_or(rest));
        loop {
            match self.trailer_scan.advance(&self.trailer_text, &mut self.trailer_position, rules) {
                Line::Incomplete if self.trailer_text.len() >= self.trailer_bytes_max => {
                    return Err(ChunkError::TrailersTooBig);
                }
                Line::Incomplete => return Ok(Chunk::NeedMore),
                Line::Field => {
                    let (name, value) = (self.trailer_scan.name_span(), self.trailer_scan.value_span());
                    self.trailers.push_spans(&self.trailer_text, name, value);
                }
                Line::End => {
                    self.trailers.settle(&self.trailer_text);
                    self.state = State::Done;
                    return Ok(Chunk::End { consumed: start + self.trailer_position - before });
                }
                Line::Refused => {
                    return Err(ChunkError::InvalidTrailer(
                        self.trailer_scan.refusal_message("", &self.trailer_text),
                    ));
                }
            }
        }
    }
}

/// Appends the line that opens a chunk of `length` bytes. A chunk of 0 would end the body: use [`last_chunk`].
pub fn chunk_header(length: usize, out: &mut Vec<u8>) {
    let digits = (usize::BITS - (length | 1).leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[length >> (digit * 4) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// What follows the bytes of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// What ends a body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends the end of a body with these trailers, if there are any.
pub fn last_chunk(trailers: &Fields, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    crate::response::encode_fields(trailers, out);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes `input` in the pieces that `cuts` makes of it: the body, how it ended, what was left over.
    fn decode(input: &[u8], cuts: &[usize], mut decoder: Decoder) -> (Vec<u8>, String, usize) {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(input.len());
        let mut body = Vec::new();
        let mut position = 0;
        for end in ends {
            loop {
                match decoder.next_piece(&input[position..end]) {
                    Ok(Chunk::NeedMore) => {
                        position = end;
                        break;
                    }
                    Ok(Chunk::Data(range)) => {
                        assert!(!range.is_empty());
                        body.extend_from_slice(&input[position..end][range.clone()]);
                        position += range.end;
                    }
                    Ok(Chunk::End { consumed }) => {
                        let trailers = format!("end {:?}", decoder.trailers());
                        return (body, trailers, input.len() - position - consumed);
                    }
                    Err(error) => return (body, format!("{error:?}"), 0),
                }
            }
        }
        (body, "more".to_string(), 0)
    }

    #[test]
    fn bodies_as_nginx_takes_them() {
        let cases: &[(&str, &str, &str, usize)] = &[
            ("5\r\nhello\r\n0\r\n\r\nGET", "hello", "end []", 3),
            ("A;x=\"\n", "", "Invalid", 0),
            ("a;x=y\r\n0123456789\r\n00 z\r\n\r\n", "0123456789", "end []", 0),
            ("1 \r\nx\r\n0\t\r\n\r\n", "x", "end []", 0),
            ("1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n", "x", "end []", 0),
            ("1\nx\r\n", "", "Invalid", 0),
            ("1\r\nx\n", "x", "Invalid", 0),
            ("1\r\nxy", "x", "Invalid", 0),
            ("\r\n", "", "Invalid", 0),
            (" 1\r\n", "", "Invalid", 0),
            ("-1\r\n", "", "Invalid", 0),
            ("0x1\r\n", "", "Invalid", 0),
            ("0\r\nA: b\n", "", "Invalid", 0),
            ("0\r\n\n", "", "Invalid", 0),
            ("0\r\n\rx", "", "Invalid", 0),
            ("7fffffffffffffff", "", "Invalid", 0),
            ("7ffffffffffffff6", "", "more", 0),
            ("7ffffffffffffff6\r\n", "", "Invalid", 0),
            ("8000000000000000\r\n", "", "Invalid", 0),
            ("fffffffffffffffff\r\n", "", "Invalid", 0),
            ("0000000000000000000000001\r\nx", "x", "more", 0),
            ("", "", "more", 0),
        ];
        for (input, body, end, left) in cases {
            for cut in 0..=input.len() {
                let found = decode(input.as_bytes(), &[cut], Decoder::new());
                assert_eq!(
                    found,
                    (body.as_bytes().to_vec(), end.to_string(), *left),
                    "{input:?} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn trailers_are_kept_within_their_bound() {
        let cases: &[(&str, &str, usize)] = &[
            ("0\r\nA: b\r\nC_d:\r\n\r\nx", r#"end ["A: b", "C_d: "]"#, 1),
            ("0\r\n\r\n", "end []", 0),
            ("0\r\nA b\r\n\r\n", r#"InvalidTrailer([34, 65, 92, 120, 50, 48, 46, 46, 46, 34])"#, 0),
            ("0\r\nA: bbbbbbbbbbbbbbbbbbbb\r\n\r\n", "TrailersTooBig", 0),
        ];
        for (input, end, left) in cases {
            for cut in 0..=input.len() {
                let found = decode(input.as_bytes(), &[cut], Decoder::keeping_trailers(20));
                assert_eq!((found.1.as_str(), found.2), (*end, *left), "{input:?} cut at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..6),
            cuts in prop::collection::vec(any::<usize>(), 0..8),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                chunk_header(chunk.len(), &mut wire);
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(CHUNK_END);
            }
            let trailers: Fields = [(&b"Digest"[..], &b"x"[..])].into_iter().collect();
            last_chunk(&trailers, &mut wire);
            let (body, end, left) = decode(&wire, &cuts, Decoder::keeping_trailers(100));
            prop_assert_eq!((body, end.as_str(), left), (chunks.concat(), r#"end ["Digest: x"]"#, 0));
            let (mut copy, mut kept) = (Vec::new(), Fields::new());
            let done = Decoder::keeping_trailers(100).decode(&wire, &mut copy, &mut kept);
            prop_assert_eq!(done, Ok(Decoded { consumed: wire.len(), finished: true }));
            prop_assert_eq!((copy, kept), (chunks.concat(), trailers));
        }

        #[test]
        fn sizes_are_plain_hexadecimal(length in any::<usize>()) {
            let mut out = Vec::new();
            chunk_header(length, &mut out);
            prop_assert_eq!(out, format!("{length:x}\r\n").into_bytes());
        }

        #[test]
        fn any_split_gives_the_same(
            input in "[0-3a;\r\n x]{0,24}", cuts in prop::collection::vec(any::<usize>(), 0..6)
        ) {
            for decoder in [Decoder::new(), Decoder::keeping_trailers(8)] {
                prop_assert_eq!(
                    decode(input.as_bytes(), &cuts, decoder.clone()),
                    decode(input.as_bytes(), &[], decoder)
                );
            }
        }
    }
}
