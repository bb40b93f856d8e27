//! Tables of `charset_map` and the recoding of bodies by them.

use bstr::BString;
use conf::Node;
use engine::Transform;
use engine::flow::{Chunk, Chunks};
use schema::Problem;
use std::collections::HashMap;
use std::sync::Arc;

/// The longest UTF-8 form a table may give, bytes.
const UTF8_BYTES_MAX: usize = 4;

/// How the characters of one charset are written in another.
#[derive(Debug)]
pub struct Table {
    from: BString,
    to: BString,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Both charsets have bytes for characters.
    Bytes { forth: Box<[u8; 256]>, back: Box<[u8; 256]> },
    /// The second is UTF-8.
    Utf8 { forth: Vec<Vec<u8>>, back: HashMap<u32, u8> },
}

/// Which way a table is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From its first to its second charset.
    Forth,
    /// From its second to its first.
    Back,
}

impl Table {
    /// A table that knows ASCII and writes `?` for everything else.
    pub fn new(from: BString, to: BString) -> Table {
        let ascii = |byte: u8| if byte < 0x80 { byte } else { b'?' };
        let kind = if to.eq_ignore_ascii_case(b"utf-8") {
            let forth = (0..=255).map(|byte| vec![ascii(byte)]).collect();
            Kind::Utf8 { forth, back: (0..0x80).map(|byte| (u32::from(byte), byte)).collect() }
        } else {
            let all = std::array::from_fn(|byte| ascii(byte as u8));
            Kind::Bytes { forth: Box::new(all), back: Box::new(all) }
        };
        Table { from, to, kind }
    }

    /// Is this one of its charsets?
    pub fn is_of(&self, charset: &[u8]) -> bool {
        self.from.eq_ignore_ascii_case(charset) || self.to.eq_ignore_ascii_case(charset)
    }

    /// The way from one charset to another, if it is between the two.
    pub fn direction(&self, from: &[u8], to: &[u8]) -> Option<Direction> {
        if self.from.eq_ignore_ascii_case(from) && self.to.eq_ignore_ascii_case(to) {
            Some(Direction::Forth)
        } else if self.from.eq_ignore_ascii_case(to) && self.to.eq_ignore_ascii_case(from) {
            Some(Direction::Back)
        } else {
            None
        }
    }

    /// Reads a line of the block: two hexadecimal codes, the second may be UTF-8.
    ///
    /// # Errors
    /// As nginx.
    pub fn add_line(&mut self, line: &Node) -> Result<(), Problem> {
        let [word] = &line.args[..] else { return Err(Problem::new("invalid parameters number")) };
        let invalid = |text: &BString| Problem::new(format!("invalid value \"{text}\""));
        let from = hexadecimal(&line.name.text).ok_or_else(|| invalid(&line.name.text))?;
        match &mut self.kind {
            Kind::Bytes { forth, back } => {
                let to = hexadecimal(&word.text).ok_or_else(|| invalid(&word.text))?;
                forth[usize::from(from)] = to;
                back[usize::from(to)] = from;
            }
            Kind::Utf8 { forth, back } => {
                let bytes = word.text.chunks(2).map(hexadecimal).collect::<Option<Vec<u8>>>();
                let bytes =
                    bytes.filter(|bytes| bytes.len() < UTF8_BYTES_MAX).ok_or_else(|| invalid(&word.text))?;
                let character = match decode(&bytes) {
                    Decoded::Character(character, _) if character <= 0xffff => character,
                    _ => return Err(invalid(&word.text)),
                };
                back.insert(character, from);
                forth[usize::from(from)] = bytes;
            }
        }
        Ok(())
    }
}

/// One byte in hexadecimal.
fn hexadecimal(text: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?;
    u8::from_str_radix(text, 16).ok()
}

/// A body on its way from one charset to another.
pub struct Recode {
    table: Arc<Table>,
    direction: Direction,
    /// The beginning of a UTF-8 character whose end has not come.
    begun: Vec<u8>,
}

impl Recode {
    /// A body at its beginning.
    pub fn new(table: Arc<Table>, direction: Direction) -> Recode {
        Recode { table, direction, begun: Vec::new() }
    }

    fn recode(&mut self, bytes: &[u8]) -> Vec<u8> {
        match (&self.table.kind, self.direction) {
            (Kind::Bytes { forth, .. }, Direction::Forth) => {
                bytes.iter().map(|byte| forth[usize::from(*byte)]).collect()
            }
            (Kind::Bytes { back, .. }, Direction::Back) => {
                bytes.iter().map(|byte| back[usize::from(*byte)]).collect()
            }
            (Kind::Utf8 { forth, .. }, Direction::Forth) => {
                bytes.iter().flat_map(|byte| &forth[usize::from(*byte)]).copied().collect()
            }
            (Kind::Utf8 { back, .. }, Direction::Back) => {
                let mut text = std::mem::take(&mut self.begun);
                text.extend_from_slice(bytes);
                let (out, rest) = from_utf8(&text, back);
                self.begun = text.split_off(text.len() - rest);
                out
            }
        }
    }
}

impl Transform for Recode {
    fn push(&mut self, chunk: Chunk, out: &mut Chunks) {
        match chunk {
            Chunk::Bytes(bytes) => {
                let recoded = self.recode(&bytes);
                if !recoded.is_empty() {
                    out.push(Chunk::Bytes(recoded));
                }
            }
            other => out.push(other),
        }
    }

    /// A character that was only begun is dropped, as in nginx.
    fn finish(&mut self, _out: &mut Chunks) {}

    /// From one charset of single bytes to another, a byte stays a byte.
    fn keeps_positions(&self) -> bool {
        matches!(self.table.kind, Kind::Bytes { .. })
    }
}

/// Recodes UTF-8, and says how many bytes at the end are but the beginning of a character. A character that has no
/// byte becomes an HTML entity, what is no UTF-8 a question mark.
fn from_utf8(text: &[u8], back: &HashMap<u32, u8>) -> (Vec<u8>, usize) {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.first() {
        if *first < 0x80 {
            out.push(*first);
            rest = &rest[1..];
            continue;
        }
        match decode(rest) {
            Decoded::Unfinished => break,
            Decoded::Invalid(bytes) => {
                out.push(b'?');
                rest = &rest[bytes..];
            }
            Decoded::Character(character, bytes) => {
                match back.get(&character) {
                    Some(byte) => out.push(*byte),
                    None if character > 0x10ffff => out.push(b'?'),
                    None => out.extend_from_slice(format!("&#{character};").as_bytes()),
                }
                rest = &rest[bytes..];
            }
        }
    }
    (out, rest.len())
}

/// What stands at the beginning of a UTF-8 text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decoded {
    /// A character and its length in bytes.
    Character(u32, usize),
    /// So many bytes that are none.
    Invalid(usize),
    /// The end of a character is missing.
    Unfinished,
}

fn decode(text: &[u8]) -> Decoded {
    let Some((first, rest)) = text.split_first() else { return Decoded::Unfinished };
    let (bits, least, more) = match first {
        0..0x80 => return Decoded::Character(u32::from(*first), 1),
        0xc2..0xe0 => (first & 0x1f, 0x80, 1),
        0xe0..0xf0 => (first & 0x0f, 0x800, 2),
        0xf0..0xf8 => (first & 0x07, 0x1_0000, 3),
        _ => return Decoded::Invalid(1),
    };
    let Some(following) = rest.get(..more) else { return Decoded::Unfinished };
    let mut character = u32::from(bits);
    for (n, byte) in following.iter().enumerate() {
        if *byte < 0x80 {
            return Decoded::Invalid(n + 2);
        }
        character = character << 6 | u32::from(byte & 0x3f);
    }
    if character < least { Decoded::Invalid(more + 1) } else { Decoded::Character(character, more + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn koi8() -> Arc<Table> {
        let text = b"80 D18E; 81 D0B0; 82 E282AC;";
        let parsed = conf::parse(b"map".into(), Some(text[..].into()), &conf::MemoryFiles::default());
        let mut table = Table::new("koi8-r".into(), "UTF-8".into());
        for line in &parsed.tree.root.nodes {
            table.add_line(line).expect("the line is good");
        }
        Arc::new(table)
    }

    fn recoded(table: &Arc<Table>, direction: Direction, text: &[u8], cut: usize) -> Vec<u8> {
        let mut body = Recode::new(table.clone(), direction);
        let (start, end) = text.split_at(cut);
        [body.recode(start), body.recode(end)].concat()
    }

    #[test]
    fn bodies_are_recoded_wherever_they_are_cut() {
        let table = koi8();
        for (direction, text, expected) in [
            (Direction::Forth, &b"a\x80\x81\x82\x83"[..], "aюа€?".as_bytes()),
            (Direction::Back, "aюа€".as_bytes(), b"a\x80\x81\x82"),
            (Direction::Back, "яx\u{1f600}".as_bytes(), b"&#1103;x&#128512;"),
            (Direction::Back, b"\xffa\xc0a\xd1", b"?a?a"),
        ] {
            for cut in 0..=text.len() {
                assert_eq!(recoded(&table, direction, text, cut), expected, "{text:?} at {cut}");
            }
        }
    }

    #[test]
    fn lines_that_are_wrong_are_refused() {
        for (line, expected) in [
            ("80;", "invalid parameters number"),
            ("100 D18E;", "invalid value \"100\""),
            ("80 XX;", "invalid value \"XX\""),
            ("80 D1;", "invalid value \"D1\""),
            ("80 F09F9880;", "invalid value \"F09F9880\""),
        ] {
            let parsed =
                conf::parse(b"map".into(), Some(line.as_bytes().into()), &conf::MemoryFiles::default());
            let mut table = Table::new("koi8-r".into(), "utf-8".into());
            let problem = table.add_line(&parsed.tree.root.nodes[0]).expect_err(line);
            assert_eq!(problem.message, expected);
        }
    }
}
