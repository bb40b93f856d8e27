//! Every directive of nginx 1.31: name, module, places, arguments. The one table behind arity and place checks.

use crate::hash::QuickMap;
use crate::{Buffers, Flag, Milliseconds, Number, Offset, Places, Problem, Seconds, Services, Size, Value};
use conf::Node;
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
    /// Its place among all entries, from 0.
    pub number: usize,
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

    /// The smallest number that is right.
    pub fn least(self) -> usize {
        match self {
            Arguments::Flag => 1,
            Arguments::AtLeast(least) => least,
            Arguments::Counts(bits) => bits.trailing_zeros() as usize,
        }
    }

    /// As a sentence says it, e.g. `one argument`, `1 or 2 arguments`.
    pub fn described(self) -> String {
        let plural = |text: String, last: usize| match last {
            0 => "no arguments".to_owned(),
            1 if text == "1" => "one argument".to_owned(),
            _ => format!("{text} arguments"),
        };
        match self {
            Arguments::Flag => "one argument, \"on\" or \"off\"".to_owned(),
            Arguments::AtLeast(1) => "at least one argument".to_owned(),
            Arguments::AtLeast(least) => format!("at least {least} arguments"),
            Arguments::Counts(bits) => {
                let counts: Vec<usize> = (0..16).filter(|count| bits & (1 << count) != 0).collect();
                let last = counts.last().copied().unwrap_or_default();
                let text = match &counts[..] {
                    [] => String::new(),
                    [one] => one.to_string(),
                    [first, .., last] if counts.len() > 2 && last - first + 1 == counts.len() => {
                        format!("{first} to {last}")
                    }
                    [some @ .., last] => {
                        let some: Vec<String> = some.iter().map(usize::to_string).collect();
                        format!("{} or {last}", some.join(", "))
                    }
                };
                plural(text, last)
            }
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
    /// One word, taken as it stands.
    Text,
    /// One of some words, or any mix of them.
    Words,
    /// Anything else.
    Own,
}

impl Kind {
    /// Checks a value that is kept nowhere.
    ///
    /// # Errors
    /// As nginx's slot of that kind.
    pub fn check(self, node: &Node, services: &mut dyn Services) -> Result<(), Problem> {
        match self {
            Kind::Flag => drop(Flag::parse(node, services)?),
            Kind::Number => drop(Number::parse(node, services)?),
            Kind::Size => drop(Size::parse(node, services)?),
            Kind::Offset => drop(Offset::parse(node, services)?),
            Kind::Milliseconds => drop(Milliseconds::parse(node, services)?),
            Kind::Seconds => drop(Seconds::parse(node, services)?),
            Kind::Buffers => drop(Buffers::parse(node, services)?),
            Kind::Text | Kind::Words | Kind::Own => {}
        }
        Ok(())
    }

    /// Must a directive of this kind stand only once in a block? Those with parsers of their own decide themselves.
    pub fn is_single(self) -> bool {
        self != Kind::Own
    }

    fn parse(text: &str) -> Kind {
        match text {
            "flag" => Kind::Flag,
            "num" => Kind::Number,
            "size" => Kind::Size,
            "off" => Kind::Offset,
            "msec" => Kind::Milliseconds,
            "sec" => Kind::Seconds,
            "bufs" => Kind::Buffers,
            "str" => Kind::Text,
            "enum" => Kind::Words,
            _ => Kind::Own,
        }
    }
}

impl Known {
    /// The place that the directive's block is, when the block holds directives. The other blocks (`map`, `types` ...)
    /// hold lines of their own.
    pub fn opens(&self, place: Places) -> Option<Places> {
        let at = |inner, of| if of == place { Some(inner) } else { None };
        match (self.name, self.module) {
            ("events", _) => Some(Places::EVENTS),
            ("http", _) => Some(Places::HTTP),
            ("stream", _) => Some(Places::STREAM),
            ("mail", _) => Some(Places::MAIL),
            ("server", "ngx_http_core_module") => Some(Places::SERVER),
            ("server", "ngx_stream_core_module") => Some(Places::STREAM_SERVER),
            ("server", "ngx_mail_core_module") => Some(Places::MAIL_SERVER),
            ("upstream", "ngx_http_upstream_module") => Some(Places::UPSTREAM),
            ("upstream", "ngx_stream_upstream_module") => Some(Places::STREAM_UPSTREAM),
            ("acme_issuer", _) => Some(Places::ACME_ISSUER),
            ("location", _) => Some(Places::LOCATION),
            ("limit_except", _) => Some(Places::LIMIT_EXCEPT),
            ("if", _) => at(Places::SERVER_IF, Places::SERVER).or(Some(Places::LOCATION_IF)),
            _ => None,
        }
    }
}

/// All entries of that name; empty when nginx has no such directive.
pub fn known(name: &[u8]) -> &'static [Known] {
    table().get(name).map_or(&[], Vec::as_slice)
}

/// Every entry of the table, by name.
pub fn all() -> impl Iterator<Item = &'static Known> {
    let mut names: Vec<&str> = names().collect();
    names.sort_unstable();
    names.into_iter().flat_map(|name| known(name.as_bytes()))
}

/// Every name, for "did you mean".
pub fn names() -> impl Iterator<Item = &'static str> {
    table().values().filter_map(|entries| entries.first()).map(|entry| entry.name)
}

/// Does nginx have a variable of this name (without the dollar), as one name or in a family such as `arg_`?
pub fn is_variable(name: &[u8]) -> bool {
    let of_nginx = include_str!("variables.tsv").lines().filter(|line| !line.starts_with('#'));
    of_nginx.map(str::as_bytes).any(|known| match known {
        [.., b'_'] => name.starts_with(known),
        known => known == name,
    })
}

/// How many entries there are.
pub fn count() -> usize {
    table().values().map(Vec::len).sum()
}

fn table() -> &'static QuickMap<&'static [u8], Vec<Known>> {
    static TABLE: OnceLock<QuickMap<&'static [u8], Vec<Known>>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table: QuickMap<&'static [u8], Vec<Known>> = QuickMap::default();
        let lines = include_str!("directives.tsv").lines().chain(include_str!("borrowed.tsv").lines());
        let mut number = 0;
        for line in lines {
            if let Some(entry) = entry(line, number) {
                table.entry(entry.name.as_bytes()).or_default().push(entry);
                number += 1;
            }
        }
        table
    })
}

fn entry(line: &'static str, number: usize) -> Option<Known> {
    let mut columns = line.split('\t');
    let name = columns.next().filter(|name| !name.starts_with('#'))?;
    Some(Known {
        name,
        module: columns.next()?,
        places: Places::parse(columns.next()?)?,
        arguments: Arguments::parse(columns.next()?)?,
        block: columns.next()? == "yes",
        number,
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
