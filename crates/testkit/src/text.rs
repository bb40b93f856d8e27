//! The small notations shared by all blocks of a document: placeholders (`%PORT%`), escapes (`\x00`) and values that
//! are either exact or, with a leading `~`, a regular expression.

use bstr::ByteSlice;
use regex::bytes::Regex;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// How often `%x*COUNT%` may repeat.
const REPEATS_MAX: usize = 1 << 20;

/// What the placeholders of a document stand for in one scenario: name without the percent signs -> value.
#[derive(Debug, Clone, Default)]
pub struct Places(BTreeMap<String, String>);

impl Places {
    /// Gives a placeholder its value; a later value replaces an earlier one.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    /// The text with every known `%NAME%` replaced. Unknown names stay: `%2F` and the like are ordinary text.
    pub fn fill(&self, text: &str) -> String {
        self.fill_with(text, |value| value.to_owned())
    }

    /// As [`Places::fill`], for a text that is a regular expression: the values stand for themselves in it.
    pub fn fill_regex(&self, text: &str) -> String {
        self.fill_with(text, regex::escape)
    }

    /// What a name stands for; `x*600` is 600 times x.
    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some((text, count)) = name.split_once('*') {
            let count: usize = count.parse().ok().filter(|count| *count <= REPEATS_MAX)?;
            return Some(Cow::Owned(text.repeat(count)));
        }
        self.0.get(name).map(|value| Cow::Borrowed(value.as_str()))
    }

    fn fill_with(&self, text: &str, shape: impl Fn(&str) -> String) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find('%') {
            out.push_str(&rest[..start]);
            let after = &rest[start + 1..];
            match after.find('%').and_then(|end| Some((end, self.value(&after[..end])?))) {
                Some((end, value)) => {
                    out.push_str(&shape(&value));
                    rest = &after[end + 1..];
                }
                None => {
                    out.push('%');
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        out
    }
}

/// The bytes a text with escapes stands for: `\r \n \t \0 \\ \xHH`.
///
/// # Errors
/// An escape that does not exist, in words for the author of the document.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'r') => out.push(b'\r'),
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'0') => out.push(0),
            Some(b'\\') => out.push(b'\\'),
            Some(b'x') => {
                let pair = [bytes.next().unwrap_or(b'?'), bytes.next().unwrap_or(b'?')];
                let value = std::str::from_utf8(&pair).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                out.push(value.ok_or_else(|| format!("\\x needs two hexadecimal digits in \"{text}\""))?);
            }
            other => {
                let shown = other.map_or("the end of the line".to_owned(), |b| format!("\"{}\"", b as char));
                return Err(format!("a backslash before {shown} in \"{text}\"; write \\\\ for a backslash"));
            }
        }
    }
    Ok(out)
}

/// A value a document expects: exact, or a regular expression that must be found in it.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// These bytes and nothing else.
    Exact(Vec<u8>),
    /// Found anywhere; anchor it with `^` and `$` for the whole.
    Regex(Regex),
}

impl Pattern {
    /// Reads `~regex` or an exact text with escapes, placeholders filled.
    ///
    /// # Errors
    /// A wrong escape or a wrong regular expression.
    pub fn parse(text: &str, places: &Places) -> Result<Self, String> {
        match text.strip_prefix('~') {
            Some(regex) => Self::regex(regex.trim_start(), places),
            None => Ok(Self::Exact(unescape(&places.fill(text))?)),
        }
    }

    /// A regular expression; `.` matches a line end too.
    ///
    /// # Errors
    /// What the regular expression library says.
    pub fn regex(text: &str, places: &Places) -> Result<Self, String> {
        let filled = format!("(?s){}", places.fill_regex(text));
        Regex::new(&filled).map(Self::Regex).map_err(|error| error.to_string())
    }

    /// Whether `value` is what was expected.
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(exact) => f.write_str(&show(exact)),
            Self::Regex(regex) => write!(f, "~{}", regex.as_str().trim_start_matches("(?s)")),
        }
    }
}

/// Bytes for a person: line ends stay, other control bytes and what is not UTF-8 become escapes.
pub fn show(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push('\n'),
                '\r' => out.push_str("\\r"),
                c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// The first difference of two texts, marked for a person.
pub fn difference(expected: &[u8], got: &[u8]) -> String {
    let at = expected.iter().zip(got).take_while(|(a, b)| a == b).count();
    let line = 1 + expected[..at].find_iter(b"\n").count();
    format!(
        "first difference at byte {at} (line {line}); expected {} bytes, got {}\n--- expected\n{}\n--- got\n{}\n---",
        expected.len(),
        got.len(),
        show(expected),
        show(got)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_percent_escapes_stay() {
        let mut places = Places::default();
        places.set("PORT", "8080");
        for (text, filled) in [
            ("listen %PORT%;", "listen 8080;"),
            ("/a%20b%PORT%", "/a%20b8080"),
            ("%PORT2%", "%PORT2%"),
            ("100%", "100%"),
            ("<%ab*3%>", "<ababab>"),
            ("%a*b%", "%a*b%"),
            ("%%PORT%%", "%8080%"),
        ] {
            assert_eq!(places.fill(text), filled);
        }
        places.set("SERVER", "nginx/1.2");
        assert_eq!(places.fill_regex("^%SERVER%$"), "^nginx/1\\.2$");
    }

    #[test]
    fn escapes_become_bytes() {
        for (text, bytes) in
            [("a\\r\\n", &b"a\r\n"[..]), ("\\x00\\xfF", b"\0\xff"), ("\\\\", b"\\"), ("é", b"\xc3\xa9")]
        {
            assert_eq!(unescape(text).unwrap(), bytes);
        }
        for wrong in ["\\q", "\\x4", "\\"] {
            assert!(unescape(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn patterns_match_exactly_or_by_regex() {
        let places = Places::default();
        for (pattern, value, matches) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("~^a", "ab", true),
            ("~ ^b", "ab", false),
            ("a\\x62", "ab", true),
        ] {
            assert_eq!(
                Pattern::parse(pattern, &places).unwrap().matches(value.as_bytes()),
                matches,
                "{pattern} {value}"
            );
        }
    }
}
