//! A table from host names to values with nginx's wildcards: virtual hosts, `map` with `hostnames`, `valid_referers`.
//!
//! The order of search is the manual's (Server names): the exact name; the longest `*.example.com`; the longest
//! `www.example.*`; the first regular expression in the order of the configuration. `.example.com` is both
//! `example.com` and `*.example.com`.

use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use bstr::BString;

use crate::hash::ConfigTable;
use crate::regex::{Captures, LocationSet, Regex};

type Table<V> = ConfigTable<BString, V>;

/// Why a name was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostNameError {
    /// More than one asterisk, one in the wrong place, two dots in a row or a NUL byte: nginx's
    /// `invalid server name or wildcard "..."` and `invalid hostname or wildcard "..."`.
    Invalid,
    /// The name is there already, with the value of this number (values are numbered in the order they came); the
    /// earlier one stays. nginx's `conflicting server name "..." on ..., ignored`.
    Conflict(usize),
}

impl fmt::Display for HostNameError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            HostNameError::Invalid => "invalid hostname or wildcard",
            HostNameError::Conflict(_) => "conflicting hostname",
        })
    }
}

impl std::error::Error for HostNameError {}

/// A table in the making.
pub struct HostTableBuilder<T> {
    values: Vec<T>,
    exact: Table<u32>,
    leading: Table<u32>,
    trailing: Table<u32>,
    regexes: Vec<Regex>,
    regex_values: Vec<u32>,
}

impl<T> Default for HostTableBuilder<T> {
    fn default() -> Self {
        HostTableBuilder {
            values: Vec::new(),
            exact: Table::default(),
            leading: Table::default(),
            trailing: Table::default(),
            regexes: Vec::new(),
            regex_values: Vec::new(),
        }
    }
}

impl<T> HostTableBuilder<T> {
    /// An empty table.
    pub fn new() -> HostTableBuilder<T> {
        HostTableBuilder::default()
    }

    /// The value of a number that [`HostNameError::Conflict`] told.
    pub fn value(&self, number: usize) -> Option<&T> {
        self.values.get(number)
    }

    /// Adds a name as written in the configuration, in any letter case: exact, `*.x`, `.x` or `x.*`.
    pub fn insert(&mut self, name: &[u8], value: T) -> Result<(), HostNameError> {
        let name: BString = name.to_ascii_lowercase().into();
        let asterisks = name.iter().filter(|byte| **byte == b'*').count();
        if asterisks > 1 || name.contains(&0) || name.windows(2).any(|pair| pair == b"..") {
            return Err(HostNameError::Invalid);
        }
        if name.len() > 1 && name[0] == b'.' {
            let bare: BString = name[1..].into();
            if let Some(earlier) = self.exact.get(&bare).or_else(|| self.leading.get(&bare)) {
                return Err(HostNameError::Conflict(*earlier as usize));
            }
            let number = self.push(value);
            self.exact.insert(bare.clone(), number);
            self.leading.insert(bare, number);
            return Ok(());
        }
        if name.len() > 2 && name.starts_with(b"*.") {
            return self.insert_in(|table| &mut table.leading, name[2..].into(), value);
        }
        if name.len() > 2 && name.ends_with(b".*") {
            return self.insert_in(|table| &mut table.trailing, name[..name.len() - 2].into(), value);
        }
        if asterisks > 0 {
            return Err(HostNameError::Invalid);
        }
        self.insert_in(|table| &mut table.exact, name, value)
    }

    /// Adds a name that is only itself, without the meaning of dots and asterisks: `map` without `hostnames`.
    pub fn insert_exact(&mut self, name: &[u8], value: T) -> Result<(), HostNameError> {
        self.insert_in(|table| &mut table.exact, name.to_ascii_lowercase().into(), value)
    }

    /// Adds a pattern behind those added before.
    pub fn insert_regex(&mut self, regex: Regex, value: T) {
        self.regexes.push(regex);
        let number = self.push(value);
        self.regex_values.push(number);
    }

    /// The table, to be read only.
    pub fn build(self) -> HostTable<T> {
        HostTable {
            values: self.values,
            exact: self.exact,
            leading: self.leading,
            trailing: self.trailing,
            regexes: LocationSet::new(self.regexes.into_iter().map(Arc::new).collect()),
            regex_values: self.regex_values,
        }
    }

    fn push(&mut self, value: T) -> u32 {
        self.values.push(value);
        (self.values.len() - 1) as u32
    }

    fn insert_in(
        &mut self,
        table: impl Fn(&mut Self) -> &mut Table<u32>,
        key: BString,
        value: T,
    ) -> Result<(), HostNameError> {
        let number = self.values.len() as u32;
        match table(self).entry(key) {
            Entry::Occupied(earlier) => return Err(HostNameError::Conflict(*earlier.get() as usize)),
            Entry::Vacant(place) => place.insert(number),
        };
        self.push(value);
        Ok(())
    }
}

/// From host names to values.
pub struct HostTable<T> {
    values: Vec<T>,
    exact: Table<u32>,
    leading: Table<u32>,
    trailing: Table<u32>,
    regexes: LocationSet,
    regex_values: Vec<u32>,
}

/// What was found.
#[derive(Debug)]
pub struct HostMatch<'t, T> {
    /// The value.
    pub value: &'t T,
    /// The pattern that matched, where one did: its named groups become variables.
    pub regex: Option<&'t Regex>,
}

impl<T> HostTable<T> {
    /// Finds `host`, which must be in lower case (see [`crate::lower`]) and without a final dot. Where a pattern
    /// matched, `found` holds its groups; otherwise it stays as it was.
    pub fn find(&self, host: &[u8], found: &mut Captures) -> Option<HostMatch<'_, T>> {
        if let Some(value) = self.find_name(host) {
            return Some(HostMatch { value, regex: None });
        }
        self.find_regex(host, found)
    }

    /// Finds `host` among exact names and wildcards.
    pub fn find_name(&self, host: &[u8]) -> Option<&T> {
        let number =
            self.find_exact(host).or_else(|| self.find_leading(host)).or_else(|| self.find_trailing(host))?;
        self.values.get(number as usize)
    }

    /// Finds the first pattern that `host` matches. The empty name matches none, as in nginx.
    pub fn find_regex(&self, host: &[u8], found: &mut Captures) -> Option<HostMatch<'_, T>> {
        if host.is_empty() || self.regexes.is_empty() {
            return None;
        }
        let index = self.regexes.captures(host, found)?;
        let value = self.values.get(*self.regex_values.get(index)? as usize)?;
        Some(HostMatch { value, regex: self.regexes.regexes().get(index).map(|regex| &**regex) })
    }

    /// The patterns, in order.
    pub fn regexes(&self) -> &[Arc<Regex>] {
        self.regexes.regexes()
    }

    /// Every value, in the order they came.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    fn find_exact(&self, host: &[u8]) -> Option<u32> {
        self.exact.get(bstr::BStr::new(host)).copied()
    }

    /// The longest suffix behind a dot.
    fn find_leading(&self, host: &[u8]) -> Option<u32> {
        if self.leading.is_empty() {
            return None;
        }
        memchr::memchr_iter(b'.', host)
            .find_map(|dot| self.leading.get(bstr::BStr::new(&host[dot + 1..])).copied())
    }

    /// The longest prefix in front of a dot.
    fn find_trailing(&self, host: &[u8]) -> Option<u32> {
        if self.trailing.is_empty() {
            return None;
        }
        memchr::memrchr_iter(b'.', host)
            .find_map(|dot| self.trailing.get(bstr::BStr::new(&host[..dot])).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[&'static str]) -> HostTable<&'static str> {
        let mut builder = HostTableBuilder::new();
        for name in names {
            match name.strip_prefix('~') {
                Some(pattern) => builder.insert_regex(Regex::new(pattern.as_bytes(), true).unwrap(), *name),
                None => builder.insert(name.as_bytes(), *name).unwrap(),
            }
        }
        builder.build()
    }

    /// Recorded from nginx 1.31 with `server { server_name NAME; return 200 NAME; }` for each name.
    #[test]
    fn hosts_are_found_in_the_order_of_nginx() {
        let table = table(&[
            "~^www\\d+\\.",
            "~example",
            "example.com",
            "*.example.com",
            "*.a.b.example.com",
            ".dotted.net",
            "www.example.*",
            "www.*",
            "mail.example.*",
            "*.org",
            "",
        ]);
        let rows: &[(&str, Option<&str>)] = &[
            ("example.com", Some("example.com")),
            ("x.example.com", Some("*.example.com")),
            ("x.y.example.com", Some("*.example.com")),
            ("b.example.com", Some("*.example.com")),
            ("x.b.example.com", Some("*.example.com")),
            ("a.b.example.com", Some("*.example.com")),
            ("x.a.b.example.com", Some("*.a.b.example.com")),
            ("www.example.com", Some("*.example.com")),
            ("www.example.net", Some("www.example.*")),
            ("www.example.co.uk", Some("www.example.*")),
            ("www.other.net", Some("www.*")),
            ("www.example.org", Some("*.org")),
            ("mail.example.net", Some("mail.example.*")),
            ("dotted.net", Some(".dotted.net")),
            ("x.dotted.net", Some(".dotted.net")),
            ("xdotted.net", None),
            ("www1.net", Some("~^www\\d+\\.")),
            ("www1.example.net", Some("~^www\\d+\\.")),
            ("my.example.net", Some("~example")),
            ("www", None),
            ("org", None),
            ("", Some("")),
            ("nothing", None),
        ];
        let mut found = Captures::new();
        for (host, expected) in rows {
            let got = table.find(host.as_bytes(), &mut found).map(|matched| *matched.value);
            assert_eq!(got, *expected, "{host}");
        }
    }

    #[test]
    fn the_earlier_of_two_equal_names_stays() {
        let mut builder = HostTableBuilder::new();
        assert_eq!(builder.insert(b"a.com", 0), Ok(()));
        assert_eq!(builder.insert(b"A.com", 1), Err(HostNameError::Conflict(0)));
        assert_eq!(builder.insert(b".a.com", 2), Err(HostNameError::Conflict(0)));
        assert_eq!(builder.insert(b"*.a.com", 3), Ok(()));
        assert_eq!(builder.insert(b"*.A.com", 4), Err(HostNameError::Conflict(1)));
        assert_eq!(builder.insert(b".b.com", 5), Ok(()));
        assert_eq!(builder.insert(b"*.b.com", 6), Err(HostNameError::Conflict(2)));
        assert_eq!(builder.insert(b"b.com", 7), Err(HostNameError::Conflict(2)));
        assert_eq!(builder.insert(b"a.*", 8), Ok(()));
        assert_eq!(builder.insert(b"a.*", 9), Err(HostNameError::Conflict(3)));
        assert_eq!(builder.value(2), Some(&5));
        assert_eq!(builder.build().values(), [0, 3, 5, 8]);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in
            ["*", "*.", "a*", "*a.com", "a.*.com", "*.a.*", "**.a", "a..com", "*..com", "a\0b", "a*.com"]
        {
            let mut builder = HostTableBuilder::new();
            assert_eq!(builder.insert(name.as_bytes(), ()), Err(HostNameError::Invalid), "{name}");
            assert_eq!(builder.insert_exact(name.as_bytes(), ()), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_pattern_tells_its_groups() {
        let table = table(&["~^(?<user>[a-z]+)\\.home$"]);
        let mut found = Captures::new();
        let matched = table.find(b"eve.home", &mut found).unwrap();
        assert_eq!(matched.regex.unwrap().names(), [("user".into(), 1)]);
        assert_eq!(found.bytes(1, b"eve.home"), b"eve");
    }
}
