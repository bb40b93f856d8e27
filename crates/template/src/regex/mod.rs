//! The one regular-expression type: nginx's patterns, which are PCRE over bytes without UTF mode.
//!
//! A pattern is parsed into a tree (with PCRE2's messages) and the tree is handed to an engine: to `regex`, whose
//! time is linear in the subject, wherever a finite automaton can decide it; to `fancy-regex`, which backtracks
//! within a bound, for look-around, back-references, atomic and conditional groups. In front of the latter stands a
//! linear pattern that matches a little more, so that most subjects are refused without any backtracking.
//!
//! Parsing tells whether a pattern is right; automata, which cost a hundred times more to build and to keep, are made
//! when the first subject comes. What an engine might refuse (patterns that grow too large, look-behind) is built at
//! once, because a configuration with a wrong pattern must not be taken.
//!
//! Known differences: what PCRE adds beyond that (recursion, control verbs, branch reset) is
//! refused; a repeated group that can match nothing, as in `(a*)+`, keeps its last match that took bytes; `\K` moves
//! the start of no match, because no directive asks for it.

mod emit;
mod escape;
mod parse;
mod set;
mod syntax;

use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, OnceLock};

use bstr::{BStr, BString, ByteSlice};

use emit::{Dialect, Newline, emit};
use syntax::Node;

pub use set::LocationSet;

/// How far `fancy-regex` may backtrack for one subject. PCRE has such a bound too (`match_limit`).
const BACKTRACK_STEPS_MAX: usize = 500_000;

/// A pattern with no more states than this is certain to be built when it is needed.
const LAZY_STATES_MAX: usize = 10_000;

/// How much memory the states of one automaton may take that are made while it reads subjects, bytes.
const AUTOMATON_BYTES_MAX: usize = 256 << 10;

/// A compiled pattern.
pub struct Regex {
    pattern: BString,
    caseless: bool,
    group_count: usize,
    names: Box<[(BString, usize)]>,
    /// Can a newline at the end of a subject make a difference?
    has_newline_end: bool,
    /// None where the engine refuses it after all.
    program: OnceLock<Option<Program>>,
    /// For subjects that end in a newline, where the pattern has a `$`.
    newline_program: OnceLock<Option<Program>>,
    /// Matches at least what the pattern matches, in linear time; asked only where `program` backtracks.
    filter: OnceLock<Option<::regex::bytes::Regex>>,
}

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegexError {
    /// What is wrong, in PCRE2's words where it is wrong for PCRE2 too.
    pub reason: String,
    /// The pattern.
    pub pattern: BString,
    /// The byte of the pattern the reason is about; its length where it is about its end.
    pub at: usize,
}

impl fmt::Display for RegexError {
    /// nginx's text, without the place in the file.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "pcre2_compile() failed: {} in \"{}\"", self.reason, self.pattern)?;
        match self.pattern.get(self.at..) {
            None | Some([]) => Ok(()),
            Some(rest) => write!(out, " at \"{}\"", BStr::new(rest)),
        }
    }
}

impl std::error::Error for RegexError {}

/// A backtracking pattern was given up on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuchBacktracking;

impl fmt::Display for TooMuchBacktracking {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("match limit exceeded")
    }
}

impl std::error::Error for TooMuchBacktracking {}

/// Where groups matched: storage that is used again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    groups: Vec<Option<(u32, u32)>>,
}

impl Captures {
    /// No group yet.
    pub fn new() -> Captures {
        Captures::default()
    }

    /// Where group `group` matched (0 is the whole match), or nothing where it took no part.
    pub fn get(&self, group: usize) -> Option<Range<usize>> {
        let (start, end) = self.groups.get(group).copied().flatten()?;
        Some(start as usize..end as usize)
    }

    /// The bytes group `group` matched in `subject`, which must be the subject matched; empty where it took no part.
    pub fn bytes<'s>(&self, group: usize, subject: &'s [u8]) -> &'s [u8] {
        self.get(group).and_then(|range| subject.get(range)).unwrap_or_default()
    }

    /// Groups of the pattern matched last, the whole match included.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether nothing was matched yet.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Forgets everything, but keeps the storage.
    pub fn clear(&mut self) {
        self.groups.clear();
    }
}

impl Regex {
    /// Compiles `pattern`; `caseless` is the difference between `~` and `~*`.
    pub fn new(pattern: &[u8], caseless: bool) -> Result<Regex, RegexError> {
        let refuse = |reason: String, at: usize| RegexError { reason, pattern: pattern.into(), at };
        let parsed =
            parse::parse(pattern, caseless).map_err(|fault| refuse(fault.message.into(), fault.at))?;
        let program = OnceLock::new();
        if !parsed.node.is_regular() || parsed.node.states() > LAZY_STATES_MAX {
            let made = Program::new(&parsed.node, false).map_err(|reason| refuse(reason, pattern.len()))?;
            program.get_or_init(|| Some(made));
        }
        let names = parsed.names.into_iter().map(|(name, group)| (name, group as usize));
        Ok(Regex {
            pattern: pattern.into(),
            caseless,
            group_count: parsed.groups as usize,
            names: names.collect(),
            has_newline_end: parsed.node.has_newline_end(),
            program,
            newline_program: OnceLock::new(),
            filter: OnceLock::new(),
        })
    }

    /// The pattern as written.
    pub fn pattern(&self) -> &BStr {
        self.pattern.as_bstr()
    }

    /// Capturing groups, the whole match not counted.
    pub fn group_count(&self) -> usize {
        self.group_count
    }

    /// The names of groups and their numbers.
    pub fn names(&self) -> &[(BString, usize)] {
        &self.names
    }

    /// Whether `subject` matches somewhere; false where that took too much backtracking.
    pub fn is_match(&self, subject: &[u8]) -> bool {
        match self.program_for(subject) {
            Some(Program::Linear(linear)) => linear.regex.is_match(subject),
            Some(Program::Backtracking(regex)) => {
                self.may_match(subject)
                    && with_characters(subject, |text| regex.is_match(text).unwrap_or(false))
            }
            None => false,
        }
    }

    /// Finds the first match in `subject` and stores where its groups are; false where there is none, or where that
    /// took too much backtracking. `found` then stays as it was: in nginx, too, `$1` keeps what an earlier pattern
    /// gave it.
    pub fn captures(&self, subject: &[u8], found: &mut Captures) -> bool {
        self.search(subject, found).unwrap_or(false)
    }

    /// As [`Regex::captures`], but tells too much backtracking from no match. nginx answers 500 then, and whoever
    /// refuses requests by a pattern should do the same.
    pub fn search(&self, subject: &[u8], found: &mut Captures) -> Result<bool, TooMuchBacktracking> {
        let size = self.group_count + 1;
        match self.program_for(subject) {
            Some(Program::Linear(linear)) => Ok(linear.captures(subject, size, found)),
            Some(Program::Backtracking(_)) if !self.may_match(subject) => Ok(false),
            Some(Program::Backtracking(regex)) => with_characters(subject, |text| {
                let matched = regex.captures(text).map_err(|_| TooMuchBacktracking)?;
                let Some(matched) = matched else { return Ok(false) };
                // Where text and subject differ in length, each byte above 127 is a character of two bytes.
                let same = text.len() == subject.len();
                let offset = |end: usize| if same { end } else { text[..end].chars().count() } as u32;
                found.groups.clear();
                found.groups.extend((0..size).map(|group| {
                    let group = matched.get(group)?;
                    Some((offset(group.start()), offset(group.end())))
                }));
                Ok(true)
            }),
            None => Err(TooMuchBacktracking),
        }
    }

    fn may_match(&self, subject: &[u8]) -> bool {
        let filter = self.filter.get_or_init(|| linear(&self.loose_text()).ok());
        filter.as_ref().is_none_or(|filter| filter.is_match(subject))
    }

    fn program_for(&self, subject: &[u8]) -> Option<&Program> {
        let program = self
            .program
            .get_or_init(|| self.node().and_then(|node| Program::new(&node, false).ok()))
            .as_ref();
        // A decoded "%0A" at the end of a URI is what brings a subject here.
        if !self.has_newline_end || subject.last() != Some(&b'\n') {
            return program;
        }
        let newline =
            self.newline_program.get_or_init(|| self.node().and_then(|node| Program::new(&node, true).ok()));
        newline.as_ref().or(program)
    }

    /// The tree again; it is large, and most patterns of a large configuration never see a subject.
    fn node(&self) -> Option<Node> {
        parse::parse(&self.pattern, self.caseless).ok().map(|parsed| parsed.node)
    }

    /// What a set of patterns may use in place of this one: matches at least what this one matches.
    fn loose_text(&self) -> String {
        self.node().map_or(String::new(), |node| emit(&node, Dialect::BytesLoose, Newline::Swallowed).text)
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Regex({:?})", self.pattern)
    }
}

/// What runs a pattern.
enum Program {
    Linear(Linear),
    Backtracking(Box<fancy_regex::Regex>),
}

impl Program {
    fn new(node: &Node, final_newline: bool) -> Result<Program, String> {
        if node.is_regular() {
            let newline = if final_newline { Newline::Captured } else { Newline::Absent };
            let emitted = emit(node, Dialect::Bytes, newline);
            let regex = linear(&emitted.text).map_err(|error| match error {
                ::regex::Error::CompiledTooBig(_) => "regular expression is too large".to_string(),
                error => error.to_string(),
            })?;
            return Ok(Program::Linear(Linear {
                regex,
                groups: emitted.groups,
                idle: Mutex::new(Vec::new()),
            }));
        }
        let newline = if final_newline { Newline::Looked } else { Newline::Absent };
        let emitted = emit(node, Dialect::Characters, newline);
        fancy_regex::RegexBuilder::new(&emitted.text)
            .backtrack_limit(BACKTRACK_STEPS_MAX)
            .build()
            .map(|regex| Program::Backtracking(Box::new(regex)))
            .map_err(|error| error.to_string())
    }
}

/// Groups may be nested 250 deep, and each brings a repetition and a concatenation with it.
const NESTING_MAX: u32 = 1000;

fn linear(text: &str) -> Result<::regex::bytes::Regex, ::regex::Error> {
    ::regex::bytes::RegexBuilder::new(text)
        .unicode(false)
        .nest_limit(NESTING_MAX)
        .dfa_size_limit(AUTOMATON_BYTES_MAX)
        .build()
}

/// A finite automaton.
struct Linear {
    regex: ::regex::bytes::Regex,
    /// See [`emit::Emitted::groups`].
    groups: Vec<u32>,
    /// Storage for offsets, handed out again. Threads that meet here allocate instead of waiting.
    idle: Mutex<Vec<::regex::bytes::CaptureLocations>>,
}

/// How many storages for offsets a pattern keeps at hand.
const IDLE_LOCATIONS_MAX: usize = 4;

impl Linear {
    fn captures(&self, subject: &[u8], size: usize, found: &mut Captures) -> bool {
        if self.groups.is_empty() {
            let Some(matched) = self.regex.find(subject) else { return false };
            found.groups.clear();
            found.groups.push(Some((matched.start() as u32, matched.end() as u32)));
            return true;
        }
        let idle = self.idle.try_lock().ok().and_then(|mut idle| idle.pop());
        let mut locations = idle.unwrap_or_else(|| self.regex.capture_locations());
        let matched = self.regex.captures_read(&mut locations, subject).is_some();
        if matched {
            self.store(&locations, subject.len(), size, found);
        }
        if let Ok(mut idle) = self.idle.try_lock()
            && idle.len() < IDLE_LOCATIONS_MAX
        {
            idle.push(locations);
        }
        matched
    }

    fn store(
        &self,
        locations: &::regex::bytes::CaptureLocations,
        length: usize,
        size: usize,
        found: &mut Captures,
    ) {
        found.groups.clear();
        found.groups.resize(size, None);
        let mut newline_swallowed = false;
        let numbers = std::iter::once(&0).chain(&self.groups).enumerate();
        for (index, number) in numbers {
            let Some((start, end)) = locations.get(index) else { continue };
            if index > 0 && *number == 0 {
                newline_swallowed = true;
            } else if let Some(group) = found.groups.get_mut(*number as usize) {
                *group = Some((start as u32, end as u32));
            }
        }
        if newline_swallowed {
            // What ends behind the newline ended with a `$`, which in PCRE takes no bytes.
            let before = length as u32 - 1;
            for (start, end) in found.groups.iter_mut().flatten() {
                *start = (*start).min(before);
                *end = (*end).min(before);
            }
        }
    }
}

/// Hands `subject` to `run` as text with one character for each byte.
fn with_characters<R>(subject: &[u8], run: impl FnOnce(&str) -> R) -> R {
    match std::str::from_utf8(subject) {
        Ok(text) if text.is_ascii() => run(text),
        _ => run(&subject.iter().map(|byte| char::from(*byte)).collect::<String>()),
    }
}

#[cfg(test)]
mod tests;
