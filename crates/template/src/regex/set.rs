//! An ordered list of patterns of which the first that matches wins: regex locations, `map`, server names.

use super::{Captures, Regex, linear};
use std::sync::Arc;

/// So many patterns are tried one after the other; more of them share an automaton that says whether any can match.
const LEAF_PATTERNS_MAX: usize = 4;

/// Patterns in the order of the configuration. Long lists are a binary tree whose nodes each hold one linear pattern
/// for all below: a subject that nothing matches is refused in one pass, and the first match is found in a few,
/// without any allocation.
pub struct LocationSet {
    regexes: Vec<Arc<Regex>>,
    root: Option<Branch>,
}

/// Patterns `first..end`.
struct Branch {
    first: usize,
    end: usize,
    /// Matches at least what any of them matches; absent where it grew too large.
    any: Option<::regex::bytes::Regex>,
    halves: Option<Box<(Branch, Branch)>>,
}

impl LocationSet {
    /// Takes the patterns in order.
    pub fn new(regexes: Vec<Arc<Regex>>) -> LocationSet {
        let loose: Vec<String> = regexes.iter().map(|regex| regex.loose_text()).collect();
        let root = (regexes.len() > LEAF_PATTERNS_MAX).then(|| Branch::new(&loose, 0, loose.len()));
        LocationSet { regexes, root }
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
        self.search(subject, &mut |regex| regex.is_match(subject))
    }

    /// The index of the first pattern that matches, with its groups in `found`.
    pub fn captures(&self, subject: &[u8], found: &mut Captures) -> Option<usize> {
        self.search(subject, &mut |regex| regex.captures(subject, found))
    }

    fn search(&self, subject: &[u8], matches: &mut dyn FnMut(&Regex) -> bool) -> Option<usize> {
        match &self.root {
            None => self.regexes.iter().position(|regex| matches(regex)),
            Some(root) => root.search(&self.regexes, subject, matches),
        }
    }
}

impl Branch {
    fn new(loose: &[String], first: usize, end: usize) -> Branch {
        let any = linear(&format!("(?:{})", loose[first..end].join(")|(?:"))).ok();
        let middle = first + (end - first) / 2;
        let halves = (end - first > LEAF_PATTERNS_MAX)
            .then(|| Box::new((Branch::new(loose, first, middle), Branch::new(loose, middle, end))));
        Branch { first, end, any, halves }
    }

    fn search(
        &self,
        regexes: &[Arc<Regex>],
        subject: &[u8],
        matches: &mut dyn FnMut(&Regex) -> bool,
    ) -> Option<usize> {
        if self.any.as_ref().is_some_and(|any| !any.is_match(subject)) {
            return None;
        }
        match &self.halves {
            Some(halves) => halves
                .0
                .search(regexes, subject, matches)
                .or_else(|| halves.1.search(regexes, subject, matches)),
            None => {
                let index = regexes.get(self.first..self.end)?.iter().position(|regex| matches(regex))?;
                Some(self.first + index)
            }
        }
    }
}
