//! The table behind `map`: strings without regard to letter case, or host names; patterns in order; a default.

use std::fmt;

use bstr::{BStr, BString};

use std::sync::Arc;

use crate::host_names::{HostMatch, HostNameError, HostTable, HostTableBuilder};
use crate::lower;
use crate::regex::{Captures, Regex, RegexError};

/// Why a line of a `map` block is refused. The text is nginx's, without the place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapError {
    /// A second `default`.
    DuplicateDefault,
    /// Not a name that `hostnames` allows.
    InvalidHostname(BString),
    /// A key that is there already.
    Conflicting(BString),
    /// A pattern that is none.
    Regex(RegexError),
}

impl fmt::Display for MapError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MapError::DuplicateDefault => out.write_str("duplicate default map parameter"),
            MapError::InvalidHostname(key) => write!(out, "invalid hostname or wildcard \"{key}\""),
            MapError::Conflicting(key) => write!(out, "conflicting parameter \"{key}\""),
            MapError::Regex(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for MapError {}

/// A `map` in the making.
pub struct MapBuilder<T> {
    table: HostTableBuilder<T>,
    hostnames: bool,
    default: Option<T>,
}

impl<T> Default for MapBuilder<T> {
    fn default() -> Self {
        MapBuilder { table: HostTableBuilder::new(), hostnames: false, default: None }
    }
}

impl<T> MapBuilder<T> {
    /// An empty map.
    pub fn new() -> MapBuilder<T> {
        MapBuilder::default()
    }

    /// The parameter `hostnames`: keys from here on may be wildcards.
    pub fn hostnames(&mut self) {
        self.hostnames = true;
    }

    /// Adds a line: `key` as written, with its `~`, `~*` or backslash, or `default`. Gives back the names of the
    /// pattern's groups, which the caller makes variables of.
    pub fn insert(&mut self, key: &[u8], value: T) -> Result<Vec<BString>, MapError> {
        if key == b"default" {
            if self.default.is_some() {
                return Err(MapError::DuplicateDefault);
            }
            self.default = Some(value);
            return Ok(Vec::new());
        }
        if let Some(pattern) = key.strip_prefix(b"~") {
            let caseless = pattern.strip_prefix(b"*");
            let regex =
                Regex::new(caseless.unwrap_or(pattern), caseless.is_some()).map_err(MapError::Regex)?;
            let names = regex.names().iter().map(|(name, _)| name.clone()).collect();
            self.table.insert_regex(regex, value);
            return Ok(names);
        }
        let key = key.strip_prefix(b"\\").unwrap_or(key);
        let inserted = match self.hostnames {
            true => self.table.insert(key, value),
            false => self.table.insert_exact(key, value),
        };
        match inserted {
            Ok(()) => Ok(Vec::new()),
            Err(HostNameError::Invalid) => Err(MapError::InvalidHostname(key.into())),
            Err(HostNameError::Conflict(_)) => Err(MapError::Conflicting(key.to_ascii_lowercase().into())),
        }
    }

    /// The table, to be read only.
    pub fn build(self) -> MapTable<T> {
        MapTable { table: self.table.build(), hostnames: self.hostnames, default: self.default }
    }
}

/// A compiled `map`.
pub struct MapTable<T> {
    table: HostTable<T>,
    hostnames: bool,
    default: Option<T>,
}

impl<T> MapTable<T> {
    /// The value for `subject`, or the default's, or nothing: the variable is then empty. Where a pattern matched,
    /// `found` holds its groups, to be read with [`MapTable::subject`].
    pub fn find(&self, subject: &[u8], found: &mut Captures) -> Option<HostMatch<'_, T>> {
        let subject = self.subject(subject);
        let named = lower(subject, |subject| self.table.find_name(subject));
        if let Some(value) = named {
            return Some(HostMatch { value, regex: None });
        }
        // Patterns see the letters as they are.
        self.table
            .find_regex(subject, found)
            .or_else(|| self.default.as_ref().map(|value| HostMatch { value, regex: None }))
    }

    /// What of `subject` counts: a final dot does not where keys are host names.
    pub fn subject<'s>(&self, subject: &'s [u8]) -> &'s BStr {
        let trimmed = if self.hostnames { subject.strip_suffix(b".") } else { None };
        BStr::new(trimmed.unwrap_or(subject))
    }

    /// The value of `default`.
    pub fn default_value(&self) -> Option<&T> {
        self.default.as_ref()
    }

    /// Every value but the default's, in the order they came.
    pub fn values(&self) -> &[T] {
        self.table.values()
    }

    /// The patterns, in order.
    pub fn regexes(&self) -> &[Arc<Regex>] {
        self.table.regexes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[&'static str]) -> Result<MapTable<&'static str>, MapError> {
        let mut builder = MapBuilder::new();
        for line in lines {
            match line.split_once(' ') {
                None => builder.hostnames(),
                Some((key, value)) => _ = builder.insert(key.as_bytes(), value)?,
            }
        }
        Ok(builder.build())
    }

    fn check(lines: &[&'static str], rows: &[(&str, Option<&str>)]) {
        let map = map(lines).unwrap();
        for (subject, expected) in rows {
            let got = map.find(subject.as_bytes(), &mut Captures::new()).map(|matched| *matched.value);
            assert_eq!(got, *expected, "{subject:?}");
        }
    }

    #[test]
    fn strings_are_found_in_any_case_before_patterns() {
        check(
            &[
                "~^/B 1",
                "/b 2",
                "~*^/C 3",
                "default 4",
                "\\default 5",
                "\\~x 6",
                "*.x 7",
                "~^(?!.*x)$ 8",
                " 9",
            ],
            &[
                ("/b", Some("2")),
                ("/B", Some("2")),
                ("/Bc", Some("1")),
                ("/bc", Some("4")),
                ("/cc", Some("3")),
                ("DEFAULT", Some("5")),
                ("~x", Some("6")),
                ("*.X", Some("7")),
                ("a.x", Some("4")),
                ("", Some("9")),
            ],
        );
        check(&["a 1"], &[("a.", None), ("", None)]);
        // The empty string matches no pattern.
        check(&["~^$ 1", "default 2"], &[("", Some("2"))]);
    }

    #[test]
    fn hostnames_have_wildcards() {
        check(
            &["hostnames", "example.com 1", "*.example.com 2", "wap.* 3", ".net 4", "~. 5"],
            &[
                ("Example.Com.", Some("1")),
                ("a.EXAMPLE.com", Some("2")),
                ("wap.org", Some("3")),
                ("wap.example.com", Some("2")),
                ("x.net.", Some("4")),
                ("net", Some("4")),
                ("q", Some("5")),
            ],
        );
    }

    #[test]
    fn faults_have_the_words_of_nginx() {
        let fault = |lines: &[&'static str]| map(lines).err().map(|error| error.to_string());
        assert_eq!(fault(&["default 1", "default 2"]), Some("duplicate default map parameter".into()));
        assert_eq!(fault(&["A 1", "a 2"]), Some("conflicting parameter \"a\"".into()));
        assert_eq!(fault(&["hostnames", "*a 1"]), Some("invalid hostname or wildcard \"*a\"".into()));
        assert_eq!(
            fault(&["~( 1"]),
            Some("pcre2_compile() failed: missing closing parenthesis in \"(\"".into())
        );
        assert_eq!(fault(&["*a 1"]), None);
    }
}
