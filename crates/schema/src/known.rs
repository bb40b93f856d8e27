//! Every directive of nginx 1.31: name, module, places, arguments. The one table behind arity and place checks.

use crate::Places;
use std::collections::HashMap;
use std::sync::OnceLock;

/// One directive of one module as nginx knows it. Several modules may share a name (`server`, `listen`).
#[derive(Debug, Clone)]
pub struct Known {
    /// The directive.
    pub name: &'static str,
    /// nginx's module, e.g. `ngx_http_proxy_module`.
    pub module: &'static str,
    /// Where it may stand.
    pub places: Places,
    /// How many arguments it takes.
    pub arguments: Arguments,
    /// Does a `{ }` follow?
    pub block: bool,
    /// What kind of value it takes; lets us check the values of directives that have nothing to tune here.
    pub kind: Kind,
}

/// How many arguments a directive takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arguments {
    /// `on` or `off`.
    Flag,
    /// At least this many.
    AtLeast(usize),
    /// Bit n set: n arguments are right.
    Counts(u16),
}

impl Arguments {
    /// Is this number of arguments right? nginx takes eight words at most, the name among them, unless open.
    pub fn accepts(self, count: usize) -> bool {
        match self {
            Arguments::Flag => count == 1,
            Arguments::AtLeast(least) => count >= least,
            Arguments::Counts(bits) => count < 8 && bits & (1 << count) != 0,
        }
    }

    fn parse(text: &str) -> Option<Arguments> {
        if text == "on|off" {
            return Some(Arguments::Flag);
        }
        if let Some(least) = text.strip_prefix(">=") {
            return least.parse().ok().map(Arguments::AtLeast);
        }
        text.split(',')
            .try_fold(0u16, |bits, part| {
                let (from, to) = part.split_once('-').unwrap_or((part, part));
                let (from, to): (u16, u16) = (from.parse().ok()?, to.parse().ok()?);
                Some((from..=to).fold(bits, |bits, n| bits | 1 << n))
            })
            .map(Arguments::Counts)
    }
}

/// nginx's generic kinds of values; `Own` is anything with a parser of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `on` or `off`.
    Flag,
    /// A number.
    Number,
    /// A size such as `4k`.
    Size,
    /// A size that may be larger than memory.
    Offset,
    /// A time, milliseconds inside.
    Milliseconds,
    /// A time in seconds.
    Seconds,
    /// A count and a size.
    Buffers,
    /// Anything else.
    Own,
}

impl Kind {
    fn parse(text: &str) -> Kind {
        match text {
            "flag" => Kind::Flag,
            "num" => Kind::Number,
            "size" => Kind::Size,
            "off" => Kind::Offset,
            "msec" => Kind::Milliseconds,
            "sec" => Kind::Seconds,
            "bufs" => Kind::Buffers,
            _ => Kind::Own,
        }
    }
}

/// All entries of that name; empty when nginx has no such directive.
pub fn known(name: &[u8]) -> &'static [Known] {
    std::str::from_utf8(name).ok().and_then(|name| table().get(name)).map_or(&[], Vec::as_slice)
}

/// Every name, for "did you mean".
pub fn names() -> impl Iterator<Item = &'static str> {
    table().keys().copied()
}

fn table() -> &'static HashMap<&'static str, Vec<Known>> {
    static TABLE: OnceLock<HashMap<&'static str, Vec<Known>>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table: HashMap<&'static str, Vec<Known>> = HashMap::new();
        let lines = include_str!("directives.tsv").lines().chain(include_str!("borrowed.tsv").lines());
        for line in lines {
            if let Some(entry) = entry(line) {
                table.entry(entry.name).or_default().push(entry);
            }
        }
        table
    })
}

fn entry(line: &'static str) -> Option<Known> {
    let mut columns = line.split('\t');
    let name = columns.next().filter(|name| !name.starts_with('#'))?;
    Some(Known {
        name,
        module: columns.next()?,
        places: Places::parse(columns.next()?)?,
        arguments: Arguments::parse(columns.next()?)?,
        block: columns.next()? == "yes",
        kind: Kind::parse(columns.next()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let lines = |text: &'static str| text.lines().filter(|l| !l.starts_with('#')).count();
        let expected = lines(include_str!("directives.tsv")) + lines(include_str!("borrowed.tsv"));
        assert_eq!(table().values().map(Vec::len).sum::<usize>(), expected);
    }

    #[test]
    fn arities() {
        for (text, right, wrong) in [
            ("on|off", &[1][..], &[0, 2][..]),
            ("0,1-2", &[0, 1, 2], &[3]),
            (">=2", &[2, 30], &[0, 1]),
            ("1-4", &[1, 4], &[0, 5]),
        ] {
            let arguments = Arguments::parse(text).unwrap();
            assert!(right.iter().all(|n| arguments.accepts(*n)), "{text}");
            assert!(!wrong.iter().any(|n| arguments.accepts(*n)), "{text}");
        }
    }
}
