//! Reads PCRE syntax into a tree, without UTF mode: a byte is a character. Messages and the places they point at are
//! PCRE2's own, because nginx prints both (see pcre2pattern(3) for the syntax).

use bstr::BString;

use super::syntax::{ByteSet, Condition, Greed, Node};

/// PCRE2's own limit on nested parentheses.
const NESTED_GROUPS_MAX: u32 = 250;
/// PCRE2's own limit on the numbers of a `{}` quantifier.
const REPETITIONS_MAX: u32 = 65535;
/// PCRE2's own limit on the name of a group.
const NAME_BYTES_MAX: usize = 32;

/// What is wrong, and the offset PCRE2 reports for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub message: &'static str,
    pub at: usize,
}

/// A pattern understood.
pub struct Parsed {
    pub node: Node,
    /// Capturing groups, the whole match not counted.
    pub groups: u32,
    /// Names with the groups they stand for, in order of groups.
    pub names: Vec<(BString, u32)>,
}

/// Parses `pattern`; `caseless` is what `~*` asks for.
pub fn parse(pattern: &[u8], caseless: bool) -> Result<Parsed, Fault> {
    let mut parser = Parser {
        pattern,
        at: 0,
        options: Options { caseless, ..Options::default() },
        groups: 0,
        names: Vec::new(),
        references: Vec::new(),
        depth: 0,
        utf: false,
    };
    parser.leading_verbs();
    let node = parser.alternation()?;
    if parser.peek().is_some() {
        return Err(parser.fault("unmatched closing parenthesis"));
    }
    if let Some((_, at)) = parser.references.iter().find(|(group, _)| *group > parser.groups) {
        return Err(Fault { message: NO_SUCH_GROUP, at: *at });
    }
    Ok(Parsed { node, groups: parser.groups, names: parser.names })
}

pub(super) const NO_SUCH_GROUP: &str = "reference to non-existent subpattern";
const UNCLOSED: &str = "missing closing parenthesis";
const NOT_REPEATABLE: &str = "quantifier does not follow a repeatable item";

/// The option letters of `(?imsxnUJ)`.
#[derive(Clone, Copy, Default)]
pub(super) struct Options {
    pub caseless: bool,
    multi_line: bool,
    dot_all: bool,
    pub extended: bool,
    pub extended_more: bool,
    ungreedy: bool,
    no_auto_capture: bool,
    duplicate_names: bool,
}

pub(super) struct Parser<'p> {
    pub pattern: &'p [u8],
    pub at: usize,
    pub options: Options,
    pub groups: u32,
    names: Vec<(BString, u32)>,
    /// Groups asked for by number, with the offset to blame where there is no such group in the end.
    pub references: Vec<(u32, usize)>,
    depth: u32,
    /// `(*UTF)` stood in front: bytes above 127 then belong to characters.
    pub utf: bool,
}

impl Parser<'_> {
    pub fn peek(&self) -> Option<u8> {
        self.pattern.get(self.at).copied()
    }

    pub fn rest(&self) -> &[u8] {
        self.pattern.get(self.at..).unwrap_or_default()
    }

    pub fn take(&mut self, text: &[u8]) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    pub fn fault(&self, message: &'static str) -> Fault {
        Fault { message, at: self.at.min(self.pattern.len()) }
    }

    pub fn fault_at<T>(&self, at: usize, message: &'static str) -> Result<T, Fault> {
        Err(Fault { message, at })
    }

    /// `(*UTF8)`, `(*NO_JIT)` and their like, which only count at the very start.
    fn leading_verbs(&mut self) {
        const HARMLESS: &[&[u8]] = &[
            b"(*UCP)",
            b"(*NO_JIT)",
            b"(*NO_START_OPT)",
            b"(*NO_AUTO_POSSESS)",
            b"(*NO_DOTSTAR_ANCHOR)",
            b"(*NOTEMPTY)",
            b"(*LF)",
            b"(*BSR_UNICODE)",
        ];
        loop {
            if self.take(b"(*UTF8)") || self.take(b"(*UTF)") {
                self.utf = true;
            } else if !HARMLESS.iter().any(|verb| self.take(verb)) {
                return;
            }
        }
    }

    fn alternation(&mut self) -> Result<Node, Fault> {
        let mut branches = vec![self.branch()?];
        while self.take(b"|") {
            branches.push(self.branch()?);
        }
        Ok(match branches.len() {
            1 => branches.remove(0),
            _ => Node::Alternate(branches),
        })
    }

    fn branch(&mut self) -> Result<Node, Fault> {
        let mut items: Vec<Node> = Vec::new();
        let mut repeatable = false;
        loop {
            self.skip_ignored();
            match self.peek() {
                None | Some(b'|' | b')') => break,
                Some(byte) if self.is_quantifier(byte) => {
                    let (min, max) = self.quantifier(byte)?;
                    let node = match items.pop() {
                        Some(node) if repeatable => node,
                        _ => return self.fault_at(self.at - 1, NOT_REPEATABLE),
                    };
                    let greed = self.greed();
                    items.push(Node::Repeat { node: Box::new(node), min, max, greed });
                    repeatable = false;
                }
                Some(byte) => {
                    if let Some(literal) = self.quoted()? {
                        repeatable |= !literal.is_empty();
                        items.extend(literal);
                    } else {
                        let before = self.at;
                        let item = self.item(byte)?;
                        let comment = self.pattern[before..].starts_with(b"(?#");
                        if !comment {
                            repeatable = item.as_ref().is_some_and(|(_, repeatable)| *repeatable);
                        }
                        items.extend(item.map(|(node, _)| node));
                    }
                }
            }
        }
        Ok(match items.len() {
            0 => Node::Empty,
            1 => items.remove(0),
            _ => Node::Concat(items),
        })
    }

    /// White space and comments, in extended mode.
    fn skip_ignored(&mut self) {
        while self.options.extended {
            match self.peek() {
                Some(b' ' | b'\t'..=b'\r') => self.at += 1,
                Some(b'#') => {
                    let length = self.rest().iter().position(|byte| *byte == b'\n');
                    self.at = length.map_or(self.pattern.len(), |length| self.at + length + 1);
                }
                _ => return,
            }
        }
    }

    /// `\Q...\E` as literals; `Some(vec![])` for a stray `\E` too.
    fn quoted(&mut self) -> Result<Option<Vec<Node>>, Fault> {
        if self.take(b"\\E") {
            return Ok(Some(Vec::new()));
        }
        if !self.take(b"\\Q") {
            return Ok(None);
        }
        let rest = self.rest();
        let length = rest.windows(2).position(|pair| pair == b"\\E").unwrap_or(rest.len());
        let literal = rest[..length].iter().map(|byte| self.literal(*byte)).collect();
        self.at = (self.at + length + 2).min(self.pattern.len());
        Ok(Some(literal))
    }

    /// One item and whether a quantifier may follow it; nothing for option settings and comments.
    fn item(&mut self, byte: u8) -> Result<Option<(Node, bool)>, Fault> {
        let start = self.at;
        self.at += 1;
        let set = |set: ByteSet| Ok(Some((Node::Set(set), true)));
        match byte {
            b'.' if self.options.dot_all => set(ByteSet::ANY),
            b'.' => set(ByteSet::of(b"\n").complement()),
            b'^' if self.options.multi_line => Ok(Some((Node::LineStart, false))),
            b'^' => Ok(Some((Node::Start, false))),
            b'$' if self.options.multi_line => Ok(Some((Node::LineEnd, false))),
            b'$' => Ok(Some((Node::EndOrFinalNewline, false))),
            b'[' => {
                let class = self.class(start)?;
                set(class)
            }
            b'(' => {
                self.depth += 1;
                if self.depth > NESTED_GROUPS_MAX {
                    return self.fault_at(self.at, "parentheses are too deeply nested");
                }
                let group = self.group(start);
                self.depth -= 1;
                Ok(group?.map(|node| (node, true)))
            }
            b'\\' => self.escape().map(Some),
            byte => Ok(Some((self.literal(byte), true))),
        }
    }

    pub fn literal(&self, byte: u8) -> Node {
        let set = ByteSet::of(&[byte]);
        Node::Set(if self.options.caseless { set.folded() } else { set })
    }

    /// Whether `byte`, the next one, starts a quantifier: a brace does only in front of numbers.
    fn is_quantifier(&self, byte: u8) -> bool {
        match byte {
            b'*' | b'+' | b'?' => true,
            b'{' => {
                let inside = self.rest()[1..].split(|byte| *byte == b'}').next().unwrap_or_default();
                let closed = self.rest().len() > inside.len() + 1;
                let mut numbers = inside.split(|byte| *byte == b',');
                let digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
                let first = numbers.next().is_some_and(|text| !text.is_empty() && digits(text));
                closed && first && numbers.next().is_none_or(digits) && numbers.next().is_none()
            }
            _ => false,
        }
    }

    /// The bounds of the quantifier that starts here. [`Parser::is_quantifier`] holds.
    fn quantifier(&mut self, byte: u8) -> Result<(u32, Option<u32>), Fault> {
        self.at += 1;
        match byte {
            b'*' => return Ok((0, None)),
            b'+' => return Ok((1, None)),
            b'?' => return Ok((0, Some(1))),
            _ => {}
        }
        let min = self.repetitions()?;
        let max = match self.take(b",") {
            false => Some(min),
            true if self.peek() == Some(b'}') => None,
            true => Some(self.repetitions()?),
        };
        if max.is_some_and(|max| max < min) {
            return Err(self.fault("numbers out of order in {} quantifier"));
        }
        self.at += 1;
        Ok((min, max))
    }

    fn repetitions(&mut self) -> Result<u32, Fault> {
        let mut number = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            number = number * 10 + u32::from(digit - b'0');
            self.at += 1;
            if number > REPETITIONS_MAX {
                return Err(self.fault("number too big in {} quantifier"));
            }
        }
        Ok(number)
    }

    /// What follows a quantifier: `?`, `+` or nothing.
    fn greed(&mut self) -> Greed {
        if self.take(b"+") {
            return Greed::Possessive;
        }
        if self.take(b"?") != self.options.ungreedy { Greed::Lazy } else { Greed::Greedy }
    }

    /// What follows `(`, which stood at `start`, to its closing parenthesis.
    fn group(&mut self, start: usize) -> Result<Option<Node>, Fault> {
        if self.rest().starts_with(b"*") {
            match self.pattern.get(self.at + 1) {
                Some(b'A'..=b'Z' | b':') => {
                    return Err(self.fault("backtracking control verbs are not supported here"));
                }
                Some(b'a'..=b'z') => {
                    let name = self.rest()[1..].iter().take_while(|byte| byte.is_ascii_lowercase()).count();
                    return self.fault_at(self.at + 1 + name, "(*alpha_assertion) not recognized");
                }
                _ => {}
            }
        }
        if !self.take(b"?") {
            if self.options.no_auto_capture {
                return self.body().map(Some);
            }
            self.groups += 1;
            let number = self.groups;
            return Ok(Some(Node::Group(number, Box::new(self.body()?))));
        }
        let Some(kind) = self.peek() else { return Err(self.fault(UNCLOSED)) };
        self.at += 1;
        match kind {
            b'#' => match self.rest().iter().position(|byte| *byte == b')') {
                Some(length) => {
                    self.at += length + 1;
                    Ok(None)
                }
                None => self.fault_at(self.pattern.len(), "missing ) after (?# comment"),
            },
            b':' => self.body().map(Some),
            b'>' => Ok(Some(Node::Atomic(Box::new(self.body()?)))),
            b'=' => self.look(start, false, false),
            b'!' => self.look(start, false, true),
            b'<' if self.take(b"=") => self.look(start, true, false),
            b'<' if self.take(b"!") => self.look(start, true, true),
            b'<' => self.named(b'>'),
            b'\'' => self.named(b'\''),
            b'P' => self.python_group(),
            b'(' => self.conditional(start),
            b'|' => self.unsupported("branch reset groups are not supported here"),
            b'C' => self.unsupported("callouts are not supported here"),
            b'R' | b'0'..=b'9' | b'+' | b'&' => self.unsupported(RECURSION),
            b'-' if self.peek().is_some_and(|byte| byte.is_ascii_digit()) => self.unsupported(RECURSION),
            _ => {
                self.at -= 1;
                self.settings()
            }
        }
    }

    pub fn unsupported<T>(&self, message: &'static str) -> Result<T, Fault> {
        self.fault_at(self.at - 1, message)
    }

    fn python_group(&mut self) -> Result<Option<Node>, Fault> {
        match self.peek() {
            None => Err(self.fault(UNCLOSED)),
            Some(b'<') => {
                self.at += 1;
                self.named(b'>')
            }
            Some(b'=') => {
                self.at += 1;
                let group = self.name_reference(b')')?;
                Ok(Some(Node::BackReference { group, caseless: self.options.caseless }))
            }
            Some(b'>') => self.unsupported(RECURSION),
            Some(_) => Err(self.fault("unrecognized character after (?P")),
        }
    }

    /// The rest of a group, with its closing parenthesis. Options set inside end with it.
    fn body(&mut self) -> Result<Node, Fault> {
        let outer = self.options;
        let node = self.alternation()?;
        self.options = outer;
        if !self.take(b")") {
            return Err(self.fault(UNCLOSED));
        }
        Ok(node)
    }

    fn look(&mut self, start: usize, behind: bool, negative: bool) -> Result<Option<Node>, Fault> {
        let node = Box::new(self.body()?);
        // Only the outermost alternatives of a look-behind may differ in length.
        let fixed = match &*node {
            Node::Alternate(branches) => branches.iter().all(|branch| branch.fixed_bytes().is_some()),
            node => node.fixed_bytes().is_some(),
        };
        if behind && !fixed {
            return self.fault_at(start, "lookbehind assertion is not fixed length");
        }
        Ok(Some(Node::Look { behind, negative, node }))
    }

    fn named(&mut self, terminator: u8) -> Result<Option<Node>, Fault> {
        let name: BString = self.name(terminator)?.into();
        if !self.options.duplicate_names && self.names.iter().any(|(known, _)| *known == name) {
            return Err(self.fault("two named subpatterns have the same name (PCRE2_DUPNAMES not set)"));
        }
        self.groups += 1;
        let number = self.groups;
        self.names.push((name, number));
        Ok(Some(Node::Group(number, Box::new(self.body()?))))
    }

    /// A group's name and its terminator.
    fn name(&mut self, terminator: u8) -> Result<&[u8], Fault> {
        let start = self.at;
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let length = self.rest().iter().take_while(|byte| is_name(byte)).count();
        if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.fault("subpattern name must start with a non-digit"));
        }
        if length == 0 {
            return Err(self.fault("subpattern name expected"));
        }
        self.at += length;
        if length > NAME_BYTES_MAX {
            return Err(self.fault("subpattern name is too long (maximum 32 code units)"));
        }
        if !self.take(&[terminator]) {
            return Err(self.fault("syntax error in subpattern name (missing terminator?)"));
        }
        Ok(&self.pattern[start..start + length])
    }

    /// The number of a group named before this place.
    pub fn name_reference(&mut self, terminator: u8) -> Result<u32, Fault> {
        let start = self.at;
        let name: BString = self.name(terminator)?.into();
        match self.names.iter().find(|(known, _)| *known == name) {
            Some((_, group)) => Ok(*group),
            None => self.fault_at(start, NO_SUCH_GROUP),
        }
    }

    /// `(?(condition)yes|no)`; the condition's opening parenthesis is read.
    fn conditional(&mut self, start: usize) -> Result<Option<Node>, Fault> {
        let condition_start = self.at - 1;
        let condition = match self.peek() {
            Some(b'?') => match self.group(condition_start)? {
                Some(look @ Node::Look { .. }) => Condition::Look(Box::new(look)),
                _ => return self.fault_at(self.at, "assertion expected after (?( or (?(?C)"),
            },
            Some(b'0'..=b'9') => {
                let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
                let number = self.rest()[..digits.min(5)]
                    .iter()
                    .fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
                self.at += digits;
                if !self.take(b")") {
                    return Err(self.fault("missing closing parenthesis for condition"));
                }
                self.references.push((if number == 0 { u32::MAX } else { number }, condition_start));
                Condition::Group(number)
            }
            Some(b'R') | Some(b'D') | Some(b'V') => return self.unsupported(RECURSION),
            Some(quote @ (b'<' | b'\'')) => {
                self.at += 1;
                let number = self.name_reference(if quote == b'<' { b'>' } else { quote })?;
                if !self.take(b")") {
                    return Err(self.fault("missing closing parenthesis for condition"));
                }
                Condition::Group(number)
            }
            None => return Err(self.fault(UNCLOSED)),
            _ => Condition::Group(self.name_reference(b')')?),
        };
        let (yes, no) = match self.body()? {
            Node::Alternate(branches) if branches.len() > 2 => {
                return self.fault_at(start, "conditional subpattern contains more than two branches");
            }
            Node::Alternate(mut branches) => {
                let no = branches.pop().unwrap_or(Node::Empty);
                (branches.pop().unwrap_or(Node::Empty), no)
            }
            node => (node, Node::Empty),
        };
        Ok(Some(Node::Conditional { condition, yes: Box::new(yes), no: Box::new(no) }))
    }

    /// `(?i)`, `(?i-m:...)`, `(?^x)`.
    fn settings(&mut self) -> Result<Option<Node>, Fault> {
        let outer = self.options;
        let mut options = outer;
        let mut on = true;
        if self.take(b"^") {
            options = Options { duplicate_names: outer.duplicate_names, ..Options::default() };
        }
        loop {
            let Some(letter) = self.peek() else { return Err(self.fault(UNCLOSED)) };
            self.at += 1;
            match letter {
                b'-' if on => on = false,
                b'i' => options.caseless = on,
                b'm' => options.multi_line = on,
                b's' => options.dot_all = on,
                b'n' => options.no_auto_capture = on,
                b'U' => options.ungreedy = on,
                b'J' => options.duplicate_names = on,
                b'x' => {
                    options.extended = on;
                    options.extended_more = on && self.take(b"x");
                }
                b')' => {
                    self.options = options;
                    return Ok(None);
                }
                b':' => {
                    self.options = options;
                    let node = self.body();
                    self.options = outer;
                    return node.map(Some);
                }
                _ => return self.fault_at(self.at - 1, "unrecognized character after (? or (?-"),
            }
        }
    }
}

pub(super) const RECURSION: &str = "recursion and subroutine calls are not supported here";
