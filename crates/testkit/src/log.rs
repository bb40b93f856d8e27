//! Log lines: what a document writes of them and how they are compared.

use crate::text::{Pattern, Places};
use bstr::ByteSlice;

/// A line that a log must hold, or must not.
#[derive(Debug)]
pub struct LogRule {
    /// The line of the document.
    pub line: usize,
    /// Whether the line must be absent.
    pub absent: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Begins(Vec<u8>),
    Is(Pattern),
}

impl LogRule {
    /// Reads `text`, `text ...`, `~regex`, each with `!` before it for a line that must be absent.
    ///
    /// # Errors
    /// A wrong regular expression.
    pub fn parse(line: usize, text: &str, places: &Places) -> Result<Self, (usize, String)> {
        let (absent, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let kind = if let Some(regex) = text.strip_prefix('~') {
            Kind::Is(Pattern::regex(regex.trim_start(), places).map_err(|e| (line, e))?)
        } else if let Some(begin) = text.strip_suffix(" ...") {
            Kind::Begins(places.fill(begin).into_bytes())
        } else {
            Kind::Is(Pattern::Exact(places.fill(text).into_bytes()))
        };
        Ok(Self { line, absent, kind })
    }

    fn matches(&self, line: &[u8]) -> bool {
        match &self.kind {
            Kind::Begins(begin) => line.starts_with(begin),
            Kind::Is(pattern) => pattern.matches(line),
        }
    }
}

/// Holds rules against lines: the wanted ones must come in this order, others may stand between them. Gives the number
/// of lines up to the last one that matched, or the rule that failed.
///
/// # Errors
/// The rule that is not kept.
pub fn compare<'r>(rules: &'r [LogRule], lines: &[Vec<u8>]) -> Result<usize, &'r LogRule> {
    let mut at = 0;
    for rule in rules.iter().filter(|rule| !rule.absent) {
        at += 1 + lines[at..].iter().position(|line| rule.matches(line)).ok_or(rule)?;
    }
    match rules.iter().find(|rule| rule.absent && lines.iter().any(|line| rule.matches(line))) {
        Some(rule) => Err(rule),
        None => Ok(at),
    }
}

/// The lines of a log; those of an error log without date, process and connection numbers: `[error] message`.
pub fn lines(text: &[u8]) -> Vec<Vec<u8>> {
    text.lines().map(|line| shorten(line).to_vec()).collect()
}

fn shorten(line: &[u8]) -> Vec<u8> {
    let Some((level, rest)) =
        line.get(20..).filter(|_| line.get(4) == Some(&b'/')).and_then(|l| l.split_once_str("] "))
    else {
        return line.to_vec();
    };
    let Some((numbers, message)) = rest.split_once_str(": ").filter(|(n, _)| n.contains(&b'#')) else {
        return line.to_vec();
    };
    debug_assert!(!numbers.is_empty());
    let message = match message.strip_prefix(b"*").and_then(|m| m.split_once_str(" ")) {
        Some((number, message)) if number.iter().all(u8::is_ascii_digit) => message,
        _ => message,
    };
    [level, b"] ", message].concat()
}

/// A line of standard error without the program's name before it.
pub fn without_program(line: &[u8]) -> &[u8] {
    match line.split_once_str(": ") {
        Some((name, rest)) if !name.is_empty() && name.iter().all(u8::is_ascii_lowercase) => rest,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_log_lines_lose_what_changes() {
        for (line, short) in [
            ("2026/11/23 10:00:00 [error] 12#12: *3 open() failed: x", "[error] open() failed: x"),
            ("2026/11/23 10:00:00 [notice] 12#12: start", "[notice] start"),
            ("127.0.0.1 - - [23/Nov] \"GET / HTTP/1.1\"", "127.0.0.1 - - [23/Nov] \"GET / HTTP/1.1\""),
            ("", ""),
        ] {
            assert_eq!(shorten(line.as_bytes()).as_bstr(), short);
        }
        assert_eq!(without_program(b"nginx: [emerg] x: y"), b"[emerg] x: y");
        assert_eq!(without_program(b"[emerg] x: y"), b"[emerg] x: y");
    }

    #[test]
    fn rules_are_kept_in_order() {
        let lines = [b"a 1".to_vec(), b"b".to_vec(), b"c".to_vec()];
        for (rules, kept) in [
            (&["b"][..], Ok(2)),
            (&["a ...", "c"], Ok(3)),
            (&["c", "b"], Err(2)),
            (&["~^. 1$", "!x"], Ok(1)),
            (&["b", "!a 1"], Err(2)),
        ] {
            let parsed: Vec<_> =
                (1..).zip(rules).map(|(i, r)| LogRule::parse(i, r, &Places::default()).unwrap()).collect();
            assert_eq!(compare(&parsed, &lines).map_err(|r| r.line), kept, "{rules:?}");
        }
    }
}
