//! A Rust file as the rules look at it: the code alone, with comments and the insides of strings blanked out.

/// A Rust file.
#[derive(Debug)]
pub struct Source {
    /// From the root of the workspace.
    pub path: String,
    /// As it is.
    pub text: String,
    /// The same length and lines, comments and the insides of literals replaced by blanks.
    pub code: String,
    /// The line on which the tests begin, from 1; past the end when there are none.
    pub tests_from: usize,
}

impl Source {
    /// Prepares a file.
    pub fn new(path: String, text: String) -> Self {
        let code = blank(&text);
        let aside = ["/tests/", "/benches/", "/examples/", "/tests.rs"];
        let all_tests = aside.iter().any(|part| path.contains(part));
        let marker = code.lines().position(|line| line.trim() == "#[cfg(test)]");
        let tests_from = if all_tests { 1 } else { marker.map_or(usize::MAX, |index| index + 1) };
        Self { path, text, code, tests_from }
    }

    /// The crate it belongs to: the name of its folder in `crates/`, or `xtask`.
    pub fn crate_name(&self) -> &str {
        let path = self.path.strip_prefix("crates/").unwrap_or(&self.path);
        path.split('/').next().unwrap_or_default()
    }

    /// The lines of the code outside tests, with their numbers.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines()).take_while(|(number, _)| *number < self.tests_from)
    }

    /// A line as it was written, from 1.
    pub fn written(&self, line: usize) -> &str {
        self.text.lines().nth(line.saturating_sub(1)).unwrap_or_default()
    }
}

/// Where the scanner is.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Code,
    LineComment,
    BlockComment(usize),
    /// A string; raw ones with their number of hashes.
    Text(Option<usize>),
}

fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut state = State::Code;
    let mut at = 0;
    while at < chars.len() {
        let (next, taken, kept) = step(state, &chars, at);
        for c in &chars[at..(at + taken).min(chars.len())] {
            out.push(if kept || *c == '\n' { *c } else { ' ' });
        }
        state = next;
        at += taken;
    }
    out
}

/// The next state, how many characters that took and whether they are code.
fn step(state: State, chars: &[char], at: usize) -> (State, usize, bool) {
    let c = chars[at];
    let next = chars.get(at + 1).copied().unwrap_or(' ');
    match state {
        State::Code => match (c, next) {
            ('/', '/') => (State::LineComment, 2, false),
            ('/', '*') => (State::BlockComment(1), 2, false),
            ('"', _) => (State::Text(None), 1, true),
            ('r', '"' | '#') if !follows_word(chars, at) => {
                let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
                let quoted = chars.get(at + 1 + hashes) == Some(&'"');
                if quoted { (State::Text(Some(hashes)), 2 + hashes, true) } else { (State::Code, 1, true) }
            }
            ('\'', _) => {
                let length = character(chars, at);
                (State::Code, length, length == 1)
            }
            _ => (State::Code, 1, true),
        },
        State::LineComment => (if c == '\n' { State::Code } else { state }, 1, false),
        State::BlockComment(depth) => match (c, next) {
            ('*', '/') if depth == 1 => (State::Code, 2, false),
            ('*', '/') => (State::BlockComment(depth - 1), 2, false),
            ('/', '*') => (State::BlockComment(depth + 1), 2, false),
            _ => (state, 1, false),
        },
        State::Text(None) => match c {
            '\\' => (state, 2, false),
            '"' => (State::Code, 1, true),
            _ => (state, 1, false),
        },
        State::Text(Some(hashes)) => {
            let ends =
                c == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
            if ends { (State::Code, 1 + hashes, true) } else { (state, 1, false) }
        }
    }
}

/// An `r` that ends a word, as in `for"`, begins no raw string; `br"` does.
fn follows_word(chars: &[char], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).and_then(|i| chars.get(i)).copied().unwrap_or(' ');
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    in_word(before(1)) && (before(1) != 'b' || in_word(before(2)))
}

/// The length of a character literal, or 1 for the quote of a lifetime.
fn character(chars: &[char], at: usize) -> usize {
    if chars.get(at + 1) == Some(&'\\') {
        let rest = chars[at + 3..].iter().position(|c| *c == '\'');
        return rest.map_or(1, |length| length + 4);
    }
    if chars.get(at + 2) == Some(&'\'') { 3 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_left() {
        for (text, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ */ d", "a                 d"),
            ("f(\"x \\\" y\") g", "f(\"      \") g"),
            ("r#\"a\"b\"# c", "r#\"   \"# c"),
            ("br\"{\" c", "br\" \" c"),
            ("'{' 'a '\\'' '\\u{1}' x", "     a              x"),
            ("for r in x", "for r in x"),
        ] {
            let got = blank(text);
            assert_eq!(got.len(), text.len());
            assert_eq!(got.replace('\'', " "), code.replace('\'', " "), "{text}");
        }
    }

    #[test]
    fn tests_are_known() {
        let source = Source::new("crates/http/src/a.rs".into(), "a\n#[cfg(test)]\nmod tests {}\n".into());
        assert_eq!((source.crate_name(), source.lines().count()), ("http", 1));
        assert_eq!(Source::new("crates/http/tests/a.rs".into(), "a\n".into()).lines().count(), 0);
    }
}
