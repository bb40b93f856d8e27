//! An ordered list of patterns of which the first that matches wins: regex locations, `map`, server names.

use super::{Captures, NESTING_MAX, Regex};
use ::regex::bytes::{RegexSet, RegexSetBuilder};
use std::sync::{Arc, OnceLock};

/// So many patterns are tried one after the other; more of them share automata that name those which may match.
const LONE_PATTERNS_MAX: usize = 4;
/// How many patterns share one automaton.
const CHUNK_PATTERNS_MAX: usize = 128;
/// How much memory the states of one automaton may take that are made while it reads subjects, bytes.
const AUTOMATON_BYTES_MAX: usize = 1 << 20;

/// Patterns in the order of the configuration. Long lists are cut into chunks, each with one automaton that reads a
/// subject once and names the patterns which may match; it is made when the first subject comes.
pub struct LocationSet {
    regexes: Vec<Arc<Regex>>,
    /// None where it grew too large.
    chunks: Box<[OnceLock<Option<RegexSet>>]>,
}

impl LocationSet {
    /// Takes the patterns in order.
    pub fn new(regexes: Vec<Arc<Regex>>) -> LocationSet {
        let chunks = match regexes.len() > LONE_PATTERNS_MAX {
            true => regexes.len().div_ceil(CHUNK_PATTERNS_MAX),
            false => 0,
        };
        LocationSet { regexes, chunks: (0..chunks).map(|_| OnceLock::new()).collect() }
    }

    /// How many patterns there are.
    pub fn len(&self) -> usize {
        self.regexes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.regexes.is_empty()
    }

    /// The patterns, in order.
    pub fn regexes(&self) -> &[Arc<Regex>] {
        &self.regexes
    }

    /// The index of the first pattern that matches.
    pub fn find(&self, subject: &[u8]) -> Option<usize> {
        self.first(subject, |index| self.regexes[index].is_match(subject))
    }

    /// The index of the first pattern that matches, with its groups in `found`.
    pub fn captures(&self, subject: &[u8], found: &mut Captures) -> Option<usize> {
        self.first(subject, |index| self.regexes[index].captures(subject, found))
    }

    /// The first index for which `matches` is true, asked in order; patterns that `subject` cannot match are left out.
    pub fn first(&self, subject: &[u8], mut matches: impl FnMut(usize) -> bool) -> Option<usize> {
        if self.chunks.is_empty() {
            return (0..self.regexes.len()).find(|index| matches(*index));
        }
        let chunks = self.regexes.chunks(CHUNK_PATTERNS_MAX).zip(&self.chunks);
        for (number, (regexes, automaton)) in chunks.enumerate() {
            let first = number * CHUNK_PATTERNS_MAX;
            let found = match automaton.get_or_init(|| build(regexes)) {
                Some(set) => {
                    let mut likely = set.matches(subject).into_iter().map(|index| first + index);
                    likely.find(|index| matches(*index))
                }
                None => (first..first + regexes.len()).find(|index| matches(*index)),
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

fn build(regexes: &[Arc<Regex>]) -> Option<RegexSet> {
    RegexSetBuilder::new(regexes.iter().map(|regex| regex.loose_text()))
        .unicode(false)
        .nest_limit(NESTING_MAX)
        .dfa_size_limit(AUTOMATON_BYTES_MAX)
        .build()
        .ok()
}
