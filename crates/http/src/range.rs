//! Byte ranges (RFC 9110, section 14) as nginx's range filter serves them.

use crate::response::encode_number;

/// A piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

/// What a `Range` field asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// The whole body, with status 200: the field is not for us, asks for more parts than allowed, or for more bytes
    /// than there are.
    Whole,
    /// These parts, at least one, in the order asked for; status 206.
    Parts(Vec<Part>),
    /// Nothing that exists: status 416 with `Content-Range: bytes */length`.
    Unsatisfiable,
}

/// `max_ranges` when it is not set: as many parts as the client likes, but then their headings must not make the
/// answer much larger than the body.
pub const UNLIMITED: usize = usize::MAX;

const BYTES_MAX: u64 = i64::MAX as u64;

/// The text of a `Range` field, read from the left; beyond its end there are zeros.
struct Reader<'a> {
    text: &'a [u8],
    place: usize,
}

impl Reader<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.place).copied().unwrap_or_default()
    }

    fn skip_spaces(&mut self) {
        while self.peek() == b' ' {
            self.place += 1;
        }
    }

    fn number(&mut self) -> Option<u64> {
        if !self.peek().is_ascii_digit() {
            return None;
        }
        let mut number: u64 = 0;
        while self.peek().is_ascii_digit() {
            number = number.checked_mul(10)?.checked_add(u64::from(self.peek() - b'0'))?;
            self.place += 1;
        }
        (number <= BYTES_MAX).then_some(number)
    }

    /// The next range of a body of `length` bytes; empty when it lies outside. `None`: it cannot be read.
    fn part(&mut self, length: u64) -> Option<Part> {
        self.skip_spaces();
        if self.peek() == b'-' {
            self.place += 1;
            let wanted = self.number()?;
            self.skip_spaces();
            return Some(Part { start: length.saturating_sub(wanted), end: length })
                .filter(|_| self.is_at_end());
        }
        let start = self.number()?;
        self.skip_spaces();
        if self.peek() != b'-' {
            return None;
        }
        self.place += 1;
        self.skip_spaces();
        if self.is_at_end() {
            return Some(Part { start, end: length });
        }
        let last = self.number()?;
        self.skip_spaces();
        Some(Part { start, end: length.min(last.saturating_add(1)) }).filter(|_| self.is_at_end())
    }

    fn is_at_end(&self) -> bool {
        matches!(self.peek(), b',' | 0)
    }
}

/// Reads a `Range` field for a body of `length` bytes; at most `parts_max` parts are served (`max_ranges`,
/// [`UNLIMITED`] when it is not set).
pub fn parse(text: &[u8], length: u64, parts_max: usize) -> Ranges {
    let unit = text.get(..6).unwrap_or_default();
    if text.len() < 7 || !unit.eq_ignore_ascii_case(b"bytes=") || parts_max == 0 {
        return Ranges::Whole;
    }
    let mut reader = Reader { text, place: 6 };
    let mut parts: Vec<Part> = Vec::new();
    let mut bytes: u64 = 0;
    loop {
        let Some(part) = reader.part(length) else { return Ranges::Unsatisfiable };
        if part.start < part.end {
            if parts.len() >= parts_max {
                return Ranges::Whole;
            }
            parts.push(part);
            bytes = bytes.saturating_add(part.end - part.start);
            if bytes > BYTES_MAX {
                return Ranges::Unsatisfiable;
            }
        } else if part.start == 0 {
            return Ranges::Whole;
        }
        if reader.peek() != b',' {
            break;
        }
        reader.place += 1;
    }
    match parts.len() {
        0 => Ranges::Unsatisfiable,
        1 => Ranges::Parts(parts),
        _ if bytes > length => Ranges::Whole,
        count if parts_max == UNLIMITED && bytes + count as u64 * 256 > length.saturating_add(4096) => {
            Ranges::Whole
        }
        _ => Ranges::Parts(parts),
    }
}

/// Appends the value of `Content-Range` for one part: `bytes 0-99/1000`.
pub fn content_range(part: &Part, length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"bytes ");
    part_of(part, length, out);
}

/// Appends the value of `Content-Range` of a 416: `bytes */1000`.
pub fn content_range_unsatisfied(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"bytes */");
    encode_number(length, 1, out);
}

fn part_of(part: &Part, length: u64, out: &mut Vec<u8>) {
    encode_number(part.start, 1, out);
    out.push(b'-');
    encode_number(part.end.saturating_sub(1), 1, out);
    out.push(b'/');
    encode_number(length, 1, out);
}

/// The line between the parts of a `multipart/byteranges` body: twenty digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary([u8; 20]);

impl Boundary {
    /// A boundary from a number that differs from answer to answer.
    pub fn new(number: u64) -> Boundary {
        let mut text = Vec::with_capacity(20);
        encode_number(number, 20, &mut text);
        Boundary(text.try_into().unwrap_or([b'0'; 20]))
    }

    /// The `Content-Type` of the whole answer.
    pub fn content_type(&self) -> Vec<u8> {
        [b"multipart/byteranges; boundary=", &self.0[..]].concat()
    }

    /// Appends what comes before a part's bytes, the line end included that closes the part before. `content_type`
    /// is that of the file with its charset; empty: no such line.
    pub fn part_header(&self, content_type: &[u8], part: &Part, length: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n--");
        out.extend_from_slice(&self.0);
        if !content_type.is_empty() {
            out.extend_from_slice(b"\r\nContent-Type: ");
            out.extend_from_slice(content_type);
        }
        out.extend_from_slice(b"\r\nContent-Range: bytes ");
        part_of(part, length, out);
        out.extend_from_slice(b"\r\n\r\n");
    }

    /// Appends the end of the body.
    pub fn end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n--");
        out.extend_from_slice(&self.0);
        out.extend_from_slice(b"--\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, length: u64, parts_max: usize) -> String {
        match parse(text.as_bytes(), length, parts_max) {
            Ranges::Whole => "whole".to_string(),
            Ranges::Unsatisfiable => "416".to_string(),
            Ranges::Parts(parts) => {
                parts.iter().map(|part| format!("{}-{}", part.start, part.end)).collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn ranges_as_nginx_reads_them() {
        let cases: &[(&str, &str)] = &[
            ("bytes=0-0", "0-1"),
            ("BYTES=0-", "0-100"),
            ("bytes=-1", "99-100"),
            ("bytes=-1000", "0-100"),
            ("bytes=-0", "416"),
            ("bytes=99-1000", "99-100"),
            ("bytes=100-", "416"),
            ("bytes=100-200,0-1", "0-2"),
            ("bytes= 1 - 2 , 4-5", "1-3 4-6"),
            ("bytes=5-3", "416"),
            ("bytes=0-5,2-7", "0-6 2-8"),
            ("bytes=0-,0-", "whole"),
            ("bytes=0-49,50-99", "0-50 50-100"),
            ("bytes=x", "416"),
            ("bytes=1", "416"),
            ("bytes=1-2x", "416"),
            ("bytes=1-2,", "416"),
            ("bytes=--1", "416"),
            ("bytes=9223372036854775808-", "416"),
            ("bytes=0-9223372036854775807", "0-100"),
            ("bytes=", "whole"),
            ("items=0-1", "whole"),
            ("", "whole"),
        ];
        for (text, expected) in cases {
            assert_eq!(check(text, 100, UNLIMITED), *expected, "{text}");
        }
        assert_eq!(check("bytes=0-0,1-1", 100, 1), "whole");
        assert_eq!(check("bytes=0-0,1-1", 100, 2), "0-1 1-2");
        assert_eq!(check("bytes=0-0", 100, 0), "whole");
        assert_eq!(check("bytes=0-0", 0, 1), "whole");
        assert_eq!(check("bytes=-5", 0, 1), "whole");
        let many = format!("bytes={}", "0-0,".repeat(16) + "1-1");
        assert_eq!(check(&many, 100, UNLIMITED), "whole");
        assert_eq!(check(&many, 4096, UNLIMITED).split(' ').count(), 17);
    }

    #[test]
    fn a_multipart_body() {
        let boundary = Boundary::new(42);
        let mut out = boundary.content_type();
        boundary.part_header(b"text/plain", &Part { start: 0, end: 2 }, 10, &mut out);
        boundary.part_header(b"", &Part { start: 9, end: 10 }, 10, &mut out);
        boundary.end(&mut out);
        content_range(&Part { start: 1, end: 3 }, 4, &mut out);
        content_range_unsatisfied(4, &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "multipart/byteranges; boundary=00000000000000000042\r\n--00000000000000000042\r\n\
             Content-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n\r\n--00000000000000000042\r\n\
             Content-Range: bytes 9-9/10\r\n\r\n\r\n--00000000000000000042--\r\nbytes 1-2/4bytes */4"
        );
    }

    proptest::proptest! {
        #[test]
        fn parts_lie_inside(text in "bytes=[0-9 ,x-]{0,30}", length in 0_u64..200, most in 1_usize..9) {
            if let Ranges::Parts(parts) = parse(text.as_bytes(), length, most) {
                proptest::prop_assert!(!parts.is_empty() && parts.len() <= most);
                for part in parts {
                    proptest::prop_assert!(part.start < part.end && part.end <= length);
                }
            }
        }
    }
}
