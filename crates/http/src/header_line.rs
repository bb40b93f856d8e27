//! One header line at a time, from any piece of it: shared by requests, upstream answers and trailers.
//!
//! What is let through is what nginx lets through: a name may hold any byte above the space, a value any byte but
//! NUL, CR and LF; only the space counts as white space; a lone LF ends a line, a lone CR ends nothing. Names that
//! are not made of letters, digits and `-` (and `_`, where the caller allows it) are reported as invalid, and the
//! caller decides whether that matters. RFC 9112, section 5 asks for the refusals: a space before the colon, a line
//! that starts with white space (obs-fold), NUL.

use crate::fields::Span;

/// Where in a line the scan stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    Name,
    BeforeValue,
    Value,
    IgnoredLine,
    AlmostDone,
    HeadAlmostDone,
}

/// The scan of the line under way. Offsets count from the start of the input, which only grows between calls.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LineScan {
    state: State,
    name_start: usize,
    name_end: usize,
    value_start: usize,
    /// The end of the line's content: of the value, or the byte that made the line invalid.
    end: usize,
    /// The name holds a byte that is neither a letter, a digit nor `-`.
    unusual_name: bool,
}

/// What a step of the scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// The input ends before the line does.
    Incomplete,
    /// A header line.
    Field,
    /// The empty line that ends the head.
    End,
    /// A byte that may not stand where it stands; [`LineScan::end`] is its place.
    Refused,
}

/// Rules that depend on who speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineRules {
    /// `_` is as good as `-`.
    pub underscores: bool,
    /// A line that starts with `HTTP/` is skipped: some servers repeat their status line.
    pub status_lines_skipped: bool,
}

/// What a byte means inside a name.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Class {
    Usual,
    Underscore,
    Colon,
    LineEnd,
    Forbidden,
    Unusual,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Unusual; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => Class::Usual,
            b'_' => Class::Underscore,
            b':' => Class::Colon,
            b'\r' | b'\n' => Class::LineEnd,
            0..=0x20 | 0x7f => Class::Forbidden,
            _ => Class::Unusual,
        };
        byte += 1;
    }
    classes
};

/// Where a value ends: at the first CR, LF or NUL. Values are short, so that eight bytes at a time in a register beat a
/// vector search with its preparations.
fn value_end(text: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        // The high bit of each byte below 16, exact up to the first one.
        let low = word.wrapping_sub(ONES * 16) & !word & HIGHS;
        if low != 0 {
            at += low.trailing_zeros() as usize / 8;
            // A tab or another control character is part of the value.
            if matches!(text.get(at), Some(b'\r' | b'\n' | 0)) {
                return Some(at);
            }
            at += 1;
        } else {
            at += 8;
        }
    }
    let rest = text.get(at..).unwrap_or_default();
    rest.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0)).map(|found| at + found)
}

impl LineScan {
    /// Goes on at `*position` and stops after a line, before an offence, or at the end of `input`.
    pub fn advance(&mut self, input: &[u8], position: &mut usize, rules: LineRules) -> Line {
        if self.state == State::Start && self.usual(input, position) {
            return Line::Field;
        }
        while let Some(&byte) = input.get(*position) {
            match self.state {
                State::Start => {
                    self.begin(*position);
                    match byte {
                        b'\r' => self.state = State::HeadAlmostDone,
                        b'\n' => return self.finish(position, Line::End),
                        b':' => return Line::Refused,
                        _ if CLASSES[byte as usize] == Class::Forbidden => return Line::Refused,
                        _ => {
                            self.state = State::Name;
                            continue;
                        }
                    }
                }
                State::Name => {
                    if let Some(found) = self.name(input, position, rules) {
                        return found;
                    }
                    continue;
                }
                State::BeforeValue if byte == b' ' => {}
                State::BeforeValue => {
                    self.value_start = *position;
                    self.state = State::Value;
                    continue;
                }
                State::Value => {
                    if let Some(found) = self.value(input, position) {
                        return found;
                    }
                    continue;
                }
                State::IgnoredLine => {
                    if byte == b'\n' {
                        self.state = State::Start;
                    }
                }
                State::AlmostDone => match byte {
                    b'\n' => return self.finish(position, Line::Field),
                    b'\r' => {}
                    _ => return Line::Refused,
                },
                State::HeadAlmostDone => match byte {
                    b'\n' => return self.finish(position, Line::End),
                    _ => return Line::Refused,
                },
            }
            *position += 1;
        }
        Line::Incomplete
    }

    /// Takes a line in the form nearly all have, whole: usual letters, a colon, a space, a value, CR LF. False, and
    /// nothing taken: it is another.
    fn usual(&mut self, input: &[u8], position: &mut usize) -> bool {
        let line = input.get(*position..).unwrap_or_default();
        let is_usual = |byte: &u8| CLASSES[usize::from(*byte)] == Class::Usual;
        let Some(length @ 1..) = line.iter().position(|byte| !is_usual(byte)) else { return false };
        let Some([b':', b' ', value @ ..]) = line.get(length..) else { return false };
        let Some(end) = value_end(value) else { return false };
        let has_spaces_around = matches!(value, [b' ', ..]) || end > 0 && value[end - 1] == b' ';
        if has_spaces_around || !matches!(value.get(end..), Some([b'\r', b'\n', ..])) {
            return false;
        }
        let start = *position;
        self.name_start = start;
        self.name_end = start + length;
        self.value_start = start + length + 2;
        self.end = self.value_start + end;
        self.unusual_name = false;
        *position = self.end + 2;
        true
    }

    fn begin(&mut self, position: usize) {
        self.name_start = position;
        self.name_end = position;
        self.value_start = position;
        self.end = position;
        self.unusual_name = false;
    }

    fn finish(&mut self, position: &mut usize, found: Line) -> Line {
        *position += 1;
        self.state = State::Start;
        found
    }

    /// Scans the name up to its colon. `None`: go on in another state, or the input ended.
    fn name(&mut self, input: &[u8], position: &mut usize, rules: LineRules) -> Option<Line> {
        loop {
            let rest = input.get(*position..).unwrap_or_default();
            let Some(length) = rest.iter().position(|&byte| CLASSES[byte as usize] != Class::Usual) else {
                *position = input.len();
                return None;
            };
            *position += length;
            let byte = rest.get(length).copied().unwrap_or_default();
            match CLASSES[byte as usize] {
                Class::Usual => {}
                Class::Underscore => self.unusual_name |= !rules.underscores,
                Class::Colon => {
                    self.name_end = *position;
                    *position += 1;
                    self.state = State::BeforeValue;
                    return None;
                }
                Class::LineEnd => {
                    self.name_end = *position;
                    self.value_start = *position;
                    self.end = *position;
                    if byte == b'\n' {
                        return Some(self.finish(position, Line::Field));
                    }
                    self.state = State::AlmostDone;
                    *position += 1;
                    return None;
                }
                Class::Forbidden => {
                    self.end = *position;
                    return Some(Line::Refused);
                }
                Class::Unusual => {
                    if byte == b'/'
                        && rules.status_lines_skipped
                        && input.get(self.name_start..*position) == Some(b"HTTP".as_slice())
                    {
                        self.state = State::IgnoredLine;
                        return None;
                    }
                    self.unusual_name = true;
                }
            }
            *position += 1;
        }
    }

    /// Scans the value up to the end of its line. `None`: as for [`LineScan::name`].
    fn value(&mut self, input: &[u8], position: &mut usize) -> Option<Line> {
        let rest = input.get(*position..).unwrap_or_default();
        let Some(length) = value_end(rest) else {
            *position = input.len();
            return None;
        };
        *position += length;
        let value = input.get(self.value_start..*position).unwrap_or_default();
        let trailing = value.iter().rev().take_while(|&&byte| byte == b' ').count();
        self.end = *position - trailing;
        match rest.get(length) {
            Some(b'\n') => Some(self.finish(position, Line::Field)),
            Some(b'\r') if rest.get(length + 1) == Some(&b'\n') => {
                *position += 1;
                Some(self.finish(position, Line::Field))
            }
            Some(b'\r') => {
                self.state = State::AlmostDone;
                *position += 1;
                None
            }
            _ => {
                self.end = *position;
                Some(Line::Refused)
            }
        }
    }

    /// Where the line starts.
    pub fn start(&self) -> usize {
        self.name_start
    }

    /// Is the scan between two lines?
    pub fn is_between_lines(&self) -> bool {
        self.state == State::Start
    }

    /// The name of the line that was found.
    pub fn name_span(&self) -> Span {
        Span::new(self.name_start, self.name_end)
    }

    /// The value of the line that was found, without the spaces around it.
    pub fn value_span(&self) -> Span {
        Span::new(self.value_start, self.end)
    }

    /// The line from its first byte to the end of its value, or to the offending byte.
    pub fn content(&self) -> Span {
        Span::new(self.name_start, self.end)
    }

    /// Is the name one that `ignore_invalid_headers` drops?
    pub fn has_unusual_name(&self) -> bool {
        self.unusual_name
    }

    /// How nginx shows a refused line: what came before the offending byte, then that byte in hexadecimal.
    pub fn refusal_message(&self, prefix: &str, input: &[u8]) -> Vec<u8> {
        let mut message = Vec::from(prefix.as_bytes());
        message.push(b'"');
        message.extend_from_slice(self.content().of(input));
        let byte = input.get(self.end).copied().unwrap_or_default();
        message.extend_from_slice(format!("\\x{byte:02x}...\"").as_bytes());
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn values_end_where_a_plain_search_says(text in proptest::collection::vec(0_u8..40, 0..40)) {
            let plain = text.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0));
            proptest::prop_assert_eq!(value_end(&text), plain);
        }
    }

    const STRICT: LineRules = LineRules { underscores: false, status_lines_skipped: false };
    const UPSTREAM: LineRules = LineRules { underscores: true, status_lines_skipped: true };

    /// Feeds `input` cut at `cut` and prints every line found.
    fn scan(input: &[u8], cut: usize, rules: LineRules) -> String {
        let mut scan = LineScan::default();
        let mut position = 0;
        let mut found = String::new();
        for piece in [&input[..cut], input] {
            loop {
                match scan.advance(piece, &mut position, rules) {
                    Line::Incomplete => break,
                    Line::Field => found.push_str(&format!(
                        "[{}={}{}]",
                        String::from_utf8_lossy(scan.name_span().of(piece)),
                        String::from_utf8_lossy(scan.value_span().of(piece)),
                        if scan.has_unusual_name() { " ?" } else { "" }
                    )),
                    Line::End => return found + "." + &(input.len() - position).to_string(),
                    Line::Refused => {
                        return found + &String::from_utf8_lossy(&scan.refusal_message("!", input));
                    }
                }
            }
        }
        found + "~"
    }

    #[test]
    fn lines_as_nginx_takes_them() {
        let cases: &[(&str, &str)] = &[
            ("A: b\r\n\r\nrest", "[A=b].4"),
            ("A:  b c  \r\nB:x\n\n", "[A=b c][B=x].0"),
            ("A:\r\n\r\n", "[A=].0"),
            ("A:   \r\n\r\n", "[A=].0"),
            ("A\r\n\r\n", "[A=].0"),
            ("A: b\r\r\n\r\n", "[A=b].0"),
            ("A:\tb\t\r\n\r\n", "[A=\tb\t].0"),
            ("a_b: 1\r\n\r\n", "[a_b=1 ?].0"),
            ("a@b: 1\r\n\r\n", "[a@b=1 ?].0"),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", "!\"HTTP/1.1\\x20...\""),
            ("A : b\r\n\r\n", "!\"A\\x20...\""),
            (" A: b\r\n\r\n", "!\"\\x20...\""),
            (": b\r\n\r\n", "!\"\\x3a...\""),
            ("A: b\rc\r\n\r\n", "!\"A: b\\x0d...\""),
            ("A: b \rc\r\n\r\n", "!\"A: b\\x20...\""),
            ("A: b\0c\r\n\r\n", "!\"A: b\\x00...\""),
            ("A: b\r\n\rx", "[A=b]!\"\\x0d...\""),
            ("A: b\r\n c\r\n\r\n", "[A=b]!\"\\x20...\""),
            ("A: b", "~"),
        ];
        for (input, expected) in cases {
            for cut in 0..=input.len() {
                assert_eq!(scan(input.as_bytes(), cut, STRICT), *expected, "{input:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_repeated_status_line_is_skipped_upstream() {
        let input = b"HTTP/1.1 200 OK\r\na_b: c\r\n\r\n";
        for cut in 0..=input.len() {
            assert_eq!(scan(input, cut, UPSTREAM), "[a_b=c].0");
        }
    }
}
