//! The half of the parser that reads what follows a backslash, and bracketed classes.

use super::parse::{Fault, NO_SUCH_GROUP, Parser, RECURSION};
use super::syntax::{ByteSet, Node};

const INVALID_RANGE: &str = "invalid range in character class";
const UNTERMINATED_CLASS: &str = "missing terminating ] for character class";
const POSIX_OUTSIDE: &str = "POSIX named classes are supported only within a class";
const POSIX_COLLATING: &str = "POSIX collating elements are not supported";
const UNRECOGNIZED: &str = "unrecognized character follows \\";
const PERL_ONLY: &str = "PCRE2 does not support \\F, \\L, \\l, \\N{name}, \\U, or \\u";

fn word() -> ByteSet {
    ByteSet::matching(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `\d`, `\W` and their like: the same inside brackets and outside.
fn shorthand(letter: u8) -> Option<ByteSet> {
    let set = match letter.to_ascii_lowercase() {
        b'd' => ByteSet::range(b'0', b'9'),
        b'w' => word(),
        b's' => ByteSet::of(b"\t\n\x0b\x0c\r "),
        b'h' => ByteSet::of(b"\t \xa0"),
        b'v' => ByteSet::of(b"\n\x0b\x0c\r\x85"),
        _ => return None,
    };
    Some(if letter.is_ascii_uppercase() { set.complement() } else { set })
}

/// A named class of POSIX, in the C locale.
fn posix(name: &[u8]) -> Option<ByteSet> {
    Some(match name {
        b"alpha" => ByteSet::matching(|byte| byte.is_ascii_alphabetic()),
        b"lower" => ByteSet::range(b'a', b'z'),
        b"upper" => ByteSet::range(b'A', b'Z'),
        b"alnum" => ByteSet::matching(|byte| byte.is_ascii_alphanumeric()),
        b"ascii" => ByteSet::range(0, 127),
        b"blank" => ByteSet::of(b" \t"),
        b"cntrl" => ByteSet::matching(|byte| byte.is_ascii_control()),
        b"digit" => ByteSet::range(b'0', b'9'),
        b"graph" => ByteSet::matching(|byte| byte.is_ascii_graphic()),
        b"print" => ByteSet::range(b' ', b'~'),
        b"punct" => ByteSet::matching(|byte| byte.is_ascii_punctuation()),
        b"space" => ByteSet::of(b"\t\n\x0b\x0c\r "),
        b"word" => word(),
        b"xdigit" => ByteSet::matching(|byte| byte.is_ascii_hexdigit()),
        _ => return None,
    })
}

/// What one place inside brackets stands for.
enum Member {
    Byte(u8),
    Set(ByteSet),
    /// `\E`.
    Nothing,
}

impl Parser<'_> {
    /// What follows a backslash outside brackets, and whether a quantifier may follow it.
    pub fn escape(&mut self) -> Result<(Node, bool), Fault> {
        let start = self.at;
        let Some(letter) = self.peek() else { return Err(self.fault("\\ at end of pattern")) };
        if let Some(set) = shorthand(letter) {
            self.at += 1;
            return Ok((Node::Set(set), true));
        }
        self.at += 1;
        let node = match letter {
            b'A' | b'G' => return Ok((Node::Start, false)),
            b'z' => return Ok((Node::End, false)),
            b'Z' => return Ok((Node::EndOrFinalNewline, false)),
            b'b' => return Ok((Node::WordBoundary, false)),
            b'B' => return Ok((Node::NotWordBoundary, false)),
            // Where the match begins is asked for nowhere: a server reads numbered groups only.
            b'K' => return Ok((Node::Empty, false)),
            b'C' => Node::Set(ByteSet::ANY),
            b'N' if self.peek() == Some(b'{') => {
                let named = self.rest().starts_with(b"{U+");
                let message =
                    if named { "\\N{U+dddd} is supported only in Unicode (UTF) mode" } else { PERL_ONLY };
                return Err(self.fault(message));
            }
            b'N' => Node::Set(ByteSet::of(b"\n").complement()),
            b'R' => {
                let pair = Node::Concat(vec![Node::Set(ByteSet::of(b"\r")), Node::Set(ByteSet::of(b"\n"))]);
                let single = Node::Set(ByteSet::of(b"\n\x0b\x0c\r\x85"));
                Node::Atomic(Box::new(Node::Alternate(vec![pair, single])))
            }
            b'X' => return self.unsupported("\\X is not supported here"),
            b'p' | b'P' => Node::Set(self.property(letter == b'P')?),
            b'k' => {
                let terminator = match self.peek() {
                    Some(b'{') => b'}',
                    Some(b'<') => b'>',
                    Some(b'\'') => b'\'',
                    _ => {
                        return Err(
                            self.fault("\\k is not followed by a braced, angle-bracketed, or quoted name")
                        );
                    }
                };
                self.at += 1;
                let group = self.name_reference(terminator)?;
                Node::BackReference { group, caseless: self.options.caseless }
            }
            b'g' => self.numbered_reference()?,
            b'1'..=b'9' => match self.digits_reference(start) {
                Some(node) => node,
                None => {
                    self.at = start;
                    let byte = self.octal(3)?;
                    self.literal(byte)
                }
            },
            _ => {
                self.at = start;
                let byte = self.escaped_byte()?;
                self.literal(byte)
            }
        };
        Ok((node, true))
    }

    /// `\1`, or nothing where the digits at `start` are an octal number: ten or more, and no such group so far.
    fn digits_reference(&mut self, start: usize) -> Option<Node> {
        let digits = &self.pattern[start..];
        let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let group =
            digits[..length.min(6)].iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
        if group >= 10 && digits[0] < b'8' && group > self.groups {
            return None;
        }
        self.at = start + length;
        self.references.push((group, self.at - 1));
        Some(Node::BackReference { group, caseless: self.options.caseless })
    }

    /// `\g1`, `\g{1}`, `\g{-1}`, `\g{name}`.
    fn numbered_reference(&mut self) -> Result<Node, Fault> {
        const EXPECTED: &str =
            "\\g is not followed by a braced, angle-bracketed, or quoted name/number or by a plain number";
        if matches!(self.peek(), Some(b'<' | b'\'')) {
            return self.unsupported(RECURSION);
        }
        let caseless = self.options.caseless;
        let braced = self.take(b"{");
        let sign = self.peek().filter(|byte| matches!(byte, b'+' | b'-'));
        let digits_start = self.at + usize::from(sign.is_some());
        let digits = self.pattern[digits_start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            if braced && sign.is_none() {
                return Ok(Node::BackReference { group: self.name_reference(b'}')?, caseless });
            }
            return Err(self.fault(EXPECTED));
        }
        let number = self.pattern[digits_start..digits_start + digits.min(6)]
            .iter()
            .fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
        self.at = digits_start + digits;
        let group = match sign {
            None => Some(number),
            Some(b'+') => self.groups.checked_add(number),
            // The last group opened is -1.
            Some(_) => (self.groups + 1).checked_sub(number).filter(|group| *group > 0),
        };
        let Some(group) = group.filter(|_| number > 0) else { return Err(self.fault(NO_SUCH_GROUP)) };
        if braced && !self.take(b"}") {
            return Err(self.fault(EXPECTED));
        }
        self.references.push((group, self.at - 1));
        Ok(Node::BackReference { group, caseless })
    }

    /// An escape that stands for one byte, inside brackets or outside.
    fn escaped_byte(&mut self) -> Result<u8, Fault> {
        let start = self.at;
        let Some(letter) = self.peek() else { return Err(self.fault("\\ at end of pattern")) };
        self.at += 1;
        Ok(match letter {
            b'a' => 0x07,
            b'e' => 0x1b,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'0' => {
                self.at = start;
                self.octal(3)?
            }
            b'o' => {
                if !self.take(b"{") {
                    return self.fault_at(start, "missing opening brace after \\o");
                }
                self.braced_number(8, "non-octal character in \\o{} (closing brace missing?)")?
            }
            b'x' if self.take(b"{") => {
                self.braced_number(16, "non-hex character in \\x{} (closing brace missing?)")?
            }
            b'x' => {
                let mut byte = 0;
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|byte| char::from(byte).to_digit(16)) else {
                        break;
                    };
                    byte = byte * 16 + digit as u8;
                    self.at += 1;
                }
                byte
            }
            b'c' => {
                let Some(byte) = self.peek() else { return Err(self.fault("\\c at end of pattern")) };
                if !(32..=126).contains(&byte) {
                    return Err(self.fault("\\c must be followed by a printable ASCII character"));
                }
                self.at += 1;
                byte.to_ascii_uppercase() ^ 0x40
            }
            b'F' | b'L' | b'l' | b'U' | b'u' => return Err(self.fault(PERL_ONLY)),
            letter if letter.is_ascii_alphanumeric() => return self.fault_at(start, UNRECOGNIZED),
            byte => byte,
        })
    }

    /// Up to `digits_max` octal digits.
    fn octal(&mut self, digits_max: usize) -> Result<u8, Fault> {
        let mut number = 0u32;
        for _ in 0..digits_max {
            let Some(digit @ b'0'..=b'7') = self.peek() else { break };
            number = number * 8 + u32::from(digit - b'0');
            self.at += 1;
        }
        number.try_into().map_err(|_| self.fault("octal value is greater than \\377 in 8-bit non-UTF-8 mode"))
    }

    /// The number of `\x{}` and `\o{}`; the opening brace is read.
    fn braced_number(&mut self, base: u32, not_a_digit: &'static str) -> Result<u8, Fault> {
        let digits = self.rest().iter().take_while(|byte| char::from(**byte).is_digit(base)).count();
        let number = self.rest()[..digits].iter().fold(0u32, |number, byte| {
            number.saturating_mul(base).saturating_add(char::from(*byte).to_digit(base).unwrap_or(0))
        });
        self.at += digits;
        match self.peek() {
            None | Some(b'}') if digits == 0 => {
                Err(self.fault("digits missing in \\x{} or \\o{} or \\N{U+}"))
            }
            _ if number > 255 => Err(self.fault("character code point value in \\x{} or \\o{} is too large")),
            Some(b'}') => {
                self.at += 1;
                Ok(number as u8)
            }
            _ => Err(self.fault(not_a_digit)),
        }
    }

    /// A bracketed class; its opening bracket, at `start`, is read.
    pub fn class(&mut self, start: usize) -> Result<ByteSet, Fault> {
        if let Some(terminator) = self.posix_terminator(self.at) {
            let message = if terminator == b':' { POSIX_OUTSIDE } else { POSIX_COLLATING };
            return self.fault_at(start, message);
        }
        if self.rest().starts_with(b"[:<:]]") || self.rest().starts_with(b"[:>:]]") {
            return self.fault_at(start, "[[:<:]] and [[:>:]] are not supported here");
        }
        let negative = self.take(b"^");
        let mut set = ByteSet::EMPTY;
        // A closing bracket that comes first is a member; `\E` in front of it does not count.
        let mut first = true;
        loop {
            match self.peek() {
                None => return Err(self.fault(UNTERMINATED_CLASS)),
                Some(b']') if !first => break,
                Some(b' ' | b'\t') if self.options.extended_more => self.at += 1,
                Some(_) if self.take(b"\\Q") => {
                    let rest = self.rest();
                    let length = rest.windows(2).position(|pair| pair == b"\\E").unwrap_or(rest.len());
                    set = set.union(&ByteSet::of(&rest[..length]));
                    self.at = (self.at + length + 2).min(self.pattern.len());
                }
                Some(_) if self.take(b"\\E") => continue,
                Some(_) => set = set.union(&self.member_or_range()?),
            }
            first = false;
        }
        self.at += 1;
        let above_ascii = set.ranges().last().is_some_and(|(_, last)| *last > 127);
        if self.utf && above_ascii && set.complement() != ByteSet::EMPTY {
            return self.fault_at(start, "characters above 127 in classes are not supported here");
        }
        let set = if self.options.caseless { set.folded() } else { set };
        Ok(if negative { set.complement() } else { set })
    }

    fn member_or_range(&mut self) -> Result<ByteSet, Fault> {
        let low = self.member()?;
        let hyphen = self.at;
        let range = self.peek() == Some(b'-') && !matches!(self.pattern.get(self.at + 1), None | Some(b']'));
        let low = match low {
            Member::Nothing => return Ok(ByteSet::EMPTY),
            Member::Set(_) if range => return self.fault_at(hyphen, INVALID_RANGE),
            Member::Set(set) => return Ok(set),
            Member::Byte(byte) if !range => return Ok(ByteSet::of(&[byte])),
            Member::Byte(byte) => byte,
        };
        self.at += 1;
        match self.member()? {
            Member::Byte(high) if high < low => {
                self.fault_at(self.at - 1, "range out of order in character class")
            }
            Member::Byte(high) => Ok(ByteSet::range(low, high)),
            Member::Set(_) => Err(self.fault(INVALID_RANGE)),
            Member::Nothing => Ok(ByteSet::of(&[low, b'-'])),
        }
    }

    fn member(&mut self) -> Result<Member, Fault> {
        let start = self.at;
        let Some(byte) = self.peek() else { return Err(self.fault(UNTERMINATED_CLASS)) };
        self.at += 1;
        if byte == b'[' {
            return match self.posix_terminator(self.at) {
                Some(b':') => self.posix_class(),
                Some(_) => self.fault_at(start, POSIX_COLLATING),
                None => Ok(Member::Byte(b'[')),
            };
        }
        if byte != b'\\' {
            return Ok(Member::Byte(byte));
        }
        let Some(letter) = self.peek() else { return Err(self.fault("\\ at end of pattern")) };
        if let Some(set) = shorthand(letter) {
            self.at += 1;
            return Ok(Member::Set(set));
        }
        match letter {
            b'E' => {
                self.at += 1;
                Ok(Member::Nothing)
            }
            b'b' => {
                self.at += 1;
                Ok(Member::Byte(0x08))
            }
            b'1'..=b'7' => self.octal(3).map(Member::Byte),
            b'8' | b'9' => {
                self.at += 1;
                Ok(Member::Byte(letter))
            }
            b'N' => self.fault_at(self.at + 1, "\\N is not supported in a class"),
            b'p' | b'P' => {
                self.at += 1;
                self.property(letter == b'P').map(Member::Set)
            }
            b'A' | b'B' | b'C' | b'G' | b'K' | b'R' | b'X' | b'Z' | b'g' | b'k' | b'z' => {
                Err(self.fault("escape sequence is invalid in character class"))
            }
            _ => self.escaped_byte().map(Member::Byte),
        }
    }

    /// What follows `\p` or `\P`: a Unicode property, of the first 256 characters as PCRE takes bytes for.
    fn property(&mut self, negative: bool) -> Result<ByteSet, Fault> {
        let name = match self.rest() {
            [b'{', ..] => match self.rest().iter().position(|byte| *byte == b'}') {
                Some(end) => &self.rest()[1..end],
                None => return Err(self.fault("malformed \\P or \\p sequence")),
            },
            [letter, ..] => std::slice::from_ref(letter),
            [] => return Err(self.fault("malformed \\P or \\p sequence")),
        };
        let length = if self.rest().starts_with(b"{") { name.len() + 2 } else { 1 };
        let (inverted, name) = name.strip_prefix(b"^").map_or((false, name), |rest| (true, rest));
        let known = name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_& ".contains(byte));
        let pattern = String::from_utf8_lossy(name).replace("L&", "LC");
        let property = ::regex::Regex::new(&format!("^\\p{{{pattern}}}$")).ok().filter(|_| known);
        self.at += length;
        let Some(property) = property else {
            return Err(self.fault("unknown property after \\P or \\p"));
        };
        let set = ByteSet::matching(|byte| property.is_match(char::from(byte).encode_utf8(&mut [0; 2])));
        Ok(if negative != inverted { set.complement() } else { set })
    }

    /// `:`, `.` or `=` where `[:...:]` or its like starts at `at`, just after a bracket.
    fn posix_terminator(&self, at: usize) -> Option<u8> {
        let terminator = *self.pattern.get(at).filter(|byte| matches!(byte, b':' | b'.' | b'='))?;
        let mut rest = &self.pattern[at + 1..];
        while let [first, second, ..] = rest {
            match (*first, *second) {
                (b'\\', b']' | b'\\') => rest = &rest[1..],
                (b'[', next) if next == terminator => return None,
                (b']', _) => return None,
                (byte, b']') if byte == terminator => return Some(terminator),
                _ => {}
            }
            rest = &rest[1..];
        }
        None
    }

    /// `[:name:]` from its colon on.
    fn posix_class(&mut self) -> Result<Member, Fault> {
        self.at += 1;
        let negative = self.take(b"^");
        let length = self.rest().iter().take_while(|byte| **byte != b':').count();
        let Some(mut set) = posix(&self.rest()[..length]) else {
            return Err(self.fault("unknown POSIX class name"));
        };
        self.at += length + 2;
        if self.options.caseless {
            set = set.folded();
        }
        Ok(Member::Set(if negative { set.complement() } else { set }))
    }
}
