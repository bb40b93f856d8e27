//! A `log_format` and the lines it makes.
//!
//! What stands between two values and how each value is read are found once for a format, in pieces that lie side by
//! side. Values are escaped where they were written; most have nothing to escape, which is seen eight bytes at a time.

use bstr::BString;
use engine::Request;
use engine::variables::{Definitions, Reader};
use std::sync::{Arc, OnceLock};
use template::{Part, Scope};

/// A `log_format`.
pub struct Format {
    pub name: BString,
    parts: Vec<Part>,
    escape: Escape,
    /// Made of the parts with the first line, when every variable has its definition.
    pieces: OnceLock<Box<[Piece]>>,
}

/// A text of the format and the value behind it. Texts that do not fit take several pieces.
struct Piece {
    text: [u8; PIECE_BYTES_MAX],
    text_bytes: u8,
    behind: Behind,
    /// Of the value; none where it never has anything to escape.
    escape: Escape,
}

/// Most texts between two values have a few bytes. All of them are copied, which takes less than copying fewer.
const PIECE_BYTES_MAX: usize = 16;

enum Behind {
    None,
    Capture(u8),
    Variable(Reader),
}

/// How values are made safe for a line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    Default,
    Json,
    None,
}

impl Format {
    pub fn new(name: BString, parts: Vec<Part>, escape: Escape) -> Arc<Format> {
        Arc::new(Format { name, parts, escape, pieces: OnceLock::new() })
    }

    /// Appends the line of a request. One copy of the code for all callers stays in the cache.
    #[inline(never)]
    pub fn render(&self, request: &mut Request, line: &mut Vec<u8>) {
        for piece in self.pieces.get_or_init(|| self.prepare(&request.snapshot.variables)) {
            let end = line.len() + usize::from(piece.text_bytes);
            line.extend_from_slice(&piece.text);
            line.truncate(end);
            match &piece.behind {
                Behind::None => {}
                Behind::Capture(group) => request.capture(*group, line),
                Behind::Variable(reader) => {
                    let start = line.len();
                    if !reader.read(request, line) && self.escape == Escape::Default {
                        line.truncate(start);
                        line.push(b'-');
                        continue;
                    }
                    match piece.escape {
                        Escape::Default => escape_from(line, start, needs_default, escape_default),
                        Escape::Json => escape_from(line, start, needs_json, escape_json),
                        Escape::None => {}
                    }
                }
            }
        }
    }

    fn prepare(&self, variables: &Definitions) -> Box<[Piece]> {
        let mut pieces = Vec::new();
        let mut text = Vec::new();
        for part in &self.parts {
            let (behind, escape) = match part {
                Part::Text(more) => {
                    text.extend_from_slice(more);
                    continue;
                }
                Part::Variable(id) => match variables.reader(*id) {
                    reader @ Reader::Printable(_) => (Behind::Variable(reader), Escape::None),
                    reader => (Behind::Variable(reader), self.escape),
                },
                Part::Capture(group) => (Behind::Capture(*group), Escape::None),
            };
            push(&mut pieces, &text, behind, escape);
            text.clear();
        }
        push(&mut pieces, &text, Behind::None, Escape::None);
        pieces.into()
    }
}

fn push(pieces: &mut Vec<Piece>, text: &[u8], behind: Behind, escape: Escape) {
    let (front, last) = text.split_at(text.len().saturating_sub(PIECE_BYTES_MAX));
    pieces.extend(front.chunks(PIECE_BYTES_MAX).map(|text| Piece::new(text, Behind::None, Escape::None)));
    pieces.push(Piece::new(last, behind, escape));
}

impl Piece {
    /// `text` fits.
    fn new(text: &[u8], behind: Behind, escape: Escape) -> Piece {
        let mut piece = Piece { text: [0; PIECE_BYTES_MAX], text_bytes: text.len() as u8, behind, escape };
        piece.text[..text.len()].copy_from_slice(text);
        piece
    }
}

/// Escapes what stands behind `start`. Almost always there is nothing to escape, which is seen eight bytes at a time.
fn escape_from(
    line: &mut Vec<u8>,
    start: usize,
    needs: impl Fn(Bytes) -> Bytes,
    escape: impl Fn(u8, &mut Vec<u8>),
) {
    if !any(&line[start..], &needs) {
        return;
    }
    for byte in line.split_off(start) {
        if needs(Bytes::of(byte)).is_any() {
            escape(byte, line);
        } else {
            line.push(byte);
        }
    }
}

fn any(text: &[u8], needs: impl Fn(Bytes) -> Bytes) -> bool {
    let is_found = |bytes: [u8; 8]| needs(Bytes(u64::from_le_bytes(bytes))).is_any();
    let (chunks, rest) = text.as_chunks();
    if chunks.iter().any(|bytes| is_found(*bytes)) {
        return true;
    }
    let last = text.last_chunk().copied().unwrap_or_else(|| {
        let mut padded = [b' '; 8];
        padded[..rest.len()].copy_from_slice(rest);
        padded
    });
    !rest.is_empty() && is_found(last)
}

/// Eight bytes of a text, or the answers to a question about them: the highest bit of a byte is set where the answer is
/// yes. Behind a byte that is it may be set in vain.
#[derive(Clone, Copy)]
struct Bytes(u64);

impl Bytes {
    const HIGHEST: u64 = Bytes::of(0x80).0;

    const fn of(byte: u8) -> Bytes {
        Bytes(u64::from_le_bytes([byte; 8]))
    }

    /// `bound` is at most 128.
    fn below(self, bound: u8) -> Bytes {
        Bytes(self.0.wrapping_sub(Bytes::of(bound).0) & !self.0)
    }

    fn equal(self, byte: u8) -> Bytes {
        Bytes(self.0 ^ Bytes::of(byte).0).below(1)
    }

    /// Above 126.
    fn above_ascii(self) -> Bytes {
        Bytes(self.0.wrapping_add(Bytes::of(1).0) | self.0)
    }

    fn or(self, other: Bytes) -> Bytes {
        Bytes(self.0 | other.0)
    }

    fn is_any(self) -> bool {
        self.0 & Bytes::HIGHEST != 0
    }
}

fn needs_default(bytes: Bytes) -> Bytes {
    needs_json(bytes).or(bytes.above_ascii())
}

fn escape_default(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'\\', b'x', hex(byte >> 4), hex(byte & 15)]);
}

fn needs_json(bytes: Bytes) -> Bytes {
    bytes.below(0x20).or(bytes.equal(b'"')).or(bytes.equal(b'\\'))
}

fn escape_json(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => return out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]),
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// An upper-case hexadecimal digit.
fn hex(digit: u8) -> u8 {
    if digit < 10 { b'0' + digit } else { b'A' + digit - 10 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bstr::ByteSlice;

    #[test]
    fn what_is_to_be_escaped_is_found_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            let default = !(0x20..0x7f).contains(&byte) || byte == b'"' || byte == b'\\';
            let json = byte < 0x20 || byte == b'"' || byte == b'\\';
            for (length, at) in (1..20).flat_map(|length| (0..length).map(move |at| (length, at))) {
                let mut text = vec![b'!'; length];
                text[at] = byte;
                assert_eq!(any(&text, needs_default), default, "{byte} at {at} of {length}");
                assert_eq!(any(&text, needs_json), json, "{byte} at {at} of {length}");
            }
        }
        assert!(!any(b"", needs_default));
    }

    #[test]
    fn texts_of_any_length_are_kept_whole() {
        for length in 0..50 {
            let text: Vec<u8> = (b'A'..).take(length).collect();
            let mut pieces = Vec::new();
            push(&mut pieces, &text, Behind::Capture(1), Escape::None);
            let together = pieces.iter().flat_map(|piece| &piece.text[..usize::from(piece.text_bytes)]);
            assert_eq!(together.copied().collect::<Vec<u8>>(), text);
            assert!(matches!(pieces.last(), Some(Piece { behind: Behind::Capture(1), .. })));
        }
    }

    #[test]
    fn values_are_escaped_as_nginx_escapes_them() {
        for (value, default, json) in [
            (&b"plain ~"[..], "plain ~", "plain ~"),
            (b"a\"b\\c", "a\\x22b\\x5Cc", "a\\\"b\\\\c"),
            (
                b"\n\r\t\x08\x0c\x00\x1f",
                "\\x0A\\x0D\\x09\\x08\\x0C\\x00\\x1F",
                "\\n\\r\\t\\b\\f\\u0000\\u001F",
            ),
            (b"\x7f", "\\x7F", "\x7f"),
            ("\u{e9}".as_bytes(), "\\xC3\\xA9", "\u{e9}"),
        ] {
            let mut line = b"[\"".to_vec();
            line.extend_from_slice(value);
            let mut other = line.clone();
            escape_from(&mut line, 2, needs_default, escape_default);
            assert_eq!(line.as_bstr(), format!("[\"{default}").as_str());
            escape_from(&mut other, 2, needs_json, escape_json);
            assert_eq!(other.as_bstr(), format!("[\"{json}").as_str());
        }
    }
}
