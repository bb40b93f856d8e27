//! Text to typed value: nginx's generic slots (`ngx_conf_set_*_slot`) with their error words.

use crate::{Problem, Services};
use bstr::BString;
use conf::{Node, Word};

/// How values are written, for those who wrote them otherwise.
const SIZES: &str = "a size is a number of bytes, or one with k or m behind it: 512, 8k, 1m";
const OFFSETS: &str = "a size is a number of bytes, or one with k, m or g behind it: 512, 8k, 1m, 2g";
const TIMES: &str = "a time is a number of seconds, or numbers with units: 30, 500ms, 5m, 1h 30m, 1d";
const SECONDS: &str = "a time is a number of seconds, or numbers with units: 30, 5m, 1h 30m, 1d";

/// A type that a directive's arguments can be read into.
pub trait Value: Clone + Send + Sync + 'static {
    /// Reads the arguments of `node`; their number was checked against the table.
    ///
    /// # Errors
    /// A [`Problem`] in nginx's words.
    fn parse(node: &Node, services: &mut dyn Services) -> Result<Self, Problem>;

    /// May further lines in the same block add to the value? False: the directive may stand there only once.
    fn takes_more() -> bool {
        false
    }

    /// Takes in the value of a further line, where [`Value::takes_more`].
    fn add(&mut self, _more: Self) {}

    /// The value that stands for "never set", for types that have one.
    fn unset() -> Option<Self> {
        None
    }
}

/// The `n`th argument.
///
/// # Errors
/// nginx's arity message; only reachable for rows whose table entry allows fewer arguments.
pub fn argument(node: &Node, n: usize) -> Result<&Word, Problem> {
    node.args.get(n).ok_or_else(|| {
        Problem::new(format!("invalid number of arguments in \"{}\" directive", node.name.text))
    })
}

/// `on` or `off`.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag(pub bool);

/// A number without a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(pub usize);

/// A size in bytes: `512`, `4k`, `1m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub usize);

/// A size in bytes that may go into gigabytes: `1g`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset(pub u64);

/// A time in milliseconds: `500ms`, `1m 30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Milliseconds(pub u64);

/// A time in seconds: `10`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub u64);

/// A number of buffers and the size of one: `8 4k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// How many.
    pub count: usize,
    /// Bytes in one.
    pub size_bytes: usize,
}

impl Value for Flag {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        if word.text.eq_ignore_ascii_case(b"on") {
            Ok(Flag(true))
        } else if word.text.eq_ignore_ascii_case(b"off") {
            Ok(Flag(false))
        } else {
            Err(Problem::new(format!(
                "invalid value \"{}\" in \"{}\" directive, it must be \"on\" or \"off\"",
                word.text, node.name.text
            ))
            .on(word))
        }
    }
}

impl Value for Number {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        let number = number(&word.text);
        number.map(Number).ok_or_else(|| Problem::directive(&node.name, "invalid number").on(word))
    }
}

impl Value for Size {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        size(&word.text).map(Size).ok_or_else(|| invalid_value(node, word).help(SIZES))
    }
}

impl Value for Offset {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        offset(&word.text).map(Offset).ok_or_else(|| invalid_value(node, word).help(OFFSETS))
    }
}

impl Value for Milliseconds {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        milliseconds(&word.text).map(Milliseconds).ok_or_else(|| invalid_value(node, word).help(TIMES))
    }
}

impl Value for Seconds {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        seconds(&word.text).map(Seconds).ok_or_else(|| invalid_value(node, word).help(SECONDS))
    }
}

impl Value for Buffers {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let (count, bytes) = (argument(node, 0)?, argument(node, 1)?);
        let count = number(&count.text).filter(|n| *n > 0).ok_or_else(|| invalid_value(node, count))?;
        let size_bytes = size(&bytes.text).filter(|n| *n > 0).ok_or_else(|| invalid_value(node, bytes))?;
        Ok(Buffers { count, size_bytes })
    }
}

impl Value for template::Template {
    fn parse(node: &Node, services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        template::Template::compile(word.text.as_ref(), services.names())
            .map_err(|error| Problem::new(error.to_string()).on(word))
    }
}

/// A size that may hold variables: what is constant is checked when the configuration is read.
#[derive(Clone)]
pub struct SizeTemplate(template::Template);

impl std::ops::Deref for SizeTemplate {
    type Target = template::Template;

    fn deref(&self) -> &template::Template {
        &self.0
    }
}

impl Value for SizeTemplate {
    fn parse(node: &Node, services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        let template = template::Template::parse(node, services)?;
        match template.is_constant() {
            Some(text) if size(text).is_none() => Err(invalid_value(node, word).help(SIZES)),
            _ => Ok(SizeTemplate(template)),
        }
    }
}

impl Value for BString {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        Ok(argument(node, 0)?.text.clone())
    }

    fn unset() -> Option<Self> {
        Some(BString::default())
    }
}

/// All arguments as they stand.
impl Value for Vec<BString> {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        Ok(node.args.iter().map(|word| word.text.clone()).collect())
    }

    fn unset() -> Option<Self> {
        Some(Vec::new())
    }
}

impl<T: Value> Value for Option<T> {
    fn parse(node: &Node, services: &mut dyn Services) -> Result<Self, Problem> {
        T::parse(node, services).map(Some)
    }

    fn unset() -> Option<Self> {
        Some(None)
    }
}

/// A fixed set of words, one of which is the value. Implement it with [`words!`](crate::words).
pub trait Words: Clone + Copy + Send + Sync + 'static {
    /// The words as the configuration writes them.
    const WORDS: &'static [(&'static str, Self)];

    /// All words, as a sentence lists them.
    fn listed() -> String {
        let words: Vec<&str> = Self::WORDS.iter().map(|(word, _)| *word).collect();
        words.join(", ")
    }

    /// The value of a word, case-insensitively as nginx compares.
    fn from_word(word: &[u8]) -> Option<Self> {
        Self::WORDS
            .iter()
            .find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(word))
            .map(|(_, value)| *value)
    }
}

/// Makes an enum a directive value by listing its words: `words!(Satisfy { "all" => All, "any" => Any });`
#[macro_export]
macro_rules! words {
    ($name:ident { $($word:literal => $variant:ident),+ $(,)? }) => {
        impl $crate::value::Words for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $name::$variant)),+];
        }
        impl $crate::Value for $name {
            fn parse(
                node: &conf::Node,
                _services: &mut dyn $crate::Services,
            ) -> Result<Self, $crate::Problem> {
                let word = $crate::value::argument(node, 0)?;
                <$name as $crate::value::Words>::from_word(&word.text).ok_or_else(|| {
                    let words = <$name as $crate::value::Words>::listed();
                    $crate::Problem::new(format!("invalid value \"{}\"", word.text))
                        .on(word)
                        .help(format!("it is one of: {words}"))
                })
            }
        }
    };
}

/// A set of flags given as words, e.g. `proxy_next_upstream error timeout`. `W` lists the words and their bits.
#[derive(Debug)]
pub struct Bitmask<W> {
    /// The bits of all the words given.
    pub bits: u32,
    words: std::marker::PhantomData<fn() -> W>,
}

/// The words of a [`Bitmask`].
pub trait Bits: 'static {
    /// Each word with its bit.
    const BITS: &'static [(&'static str, u32)];
}

impl<W> Bitmask<W> {
    /// A set with these bits.
    pub const fn new(bits: u32) -> Self {
        Bitmask { bits, words: std::marker::PhantomData }
    }

    /// Is any of these bits set?
    pub const fn has(self, bits: u32) -> bool {
        self.bits & bits != 0
    }
}

impl<W> Clone for Bitmask<W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for Bitmask<W> {}

impl<W: Bits> Value for Bitmask<W> {
    fn takes_more() -> bool {
        true
    }

    fn add(&mut self, more: Self) {
        self.bits |= more.bits;
    }

    fn unset() -> Option<Self> {
        Some(Bitmask::new(0))
    }

    fn parse(node: &Node, services: &mut dyn Services) -> Result<Self, Problem> {
        let mut bits = 0;
        for word in &node.args {
            let bit = W::BITS.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(&word.text));
            let Some((_, bit)) = bit else {
                let words: Vec<&str> = W::BITS.iter().map(|(word, _)| *word).collect();
                return Err(Problem::new(format!("invalid value \"{}\"", word.text))
                    .on(word)
                    .help(format!("it is any of: {}", words.join(", "))));
            };
            if bits & bit != 0 {
                services.warn(Problem::new(format!("duplicate value \"{}\"", word.text)).on(word), node);
            }
            bits |= bit;
        }
        Ok(Bitmask::new(bits))
    }
}

/// `"x" directive invalid value`, pointing at the word.
pub fn invalid_value(node: &Node, word: &Word) -> Problem {
    Problem::directive(&node.name, "invalid value").on(word)
}

/// `ngx_atoi`: digits only, none missing, no overflow.
pub fn number(text: &[u8]) -> Option<usize> {
    offset_digits(text).and_then(|n| usize::try_from(n).ok())
}

fn offset_digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |total, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        total.checked_mul(10)?.checked_add(digit).filter(|n| *n <= i64::MAX as u64)
    })
}

/// `ngx_parse_size`: bytes with `k` or `m`.
pub fn size(text: &[u8]) -> Option<usize> {
    scaled(text, &[(b'k', 1 << 10), (b'm', 1 << 20)]).and_then(|n| usize::try_from(n).ok())
}

/// `ngx_parse_offset`: bytes with `k`, `m` or `g`.
pub fn offset(text: &[u8]) -> Option<u64> {
    scaled(text, &[(b'k', 1 << 10), (b'm', 1 << 20), (b'g', 1 << 30)])
}

fn scaled(text: &[u8], units: &[(u8, u64)]) -> Option<u64> {
    let (last, digits) = text.split_last()?;
    match units.iter().find(|(unit, _)| *unit == last.to_ascii_lowercase()) {
        Some((_, scale)) => offset_digits(digits)?.checked_mul(*scale).filter(|n| *n <= i64::MAX as u64),
        None => offset_digits(text),
    }
}

/// `ngx_parse_time` in milliseconds: `1h 30m`, `500ms`; a bare number is seconds; months and years are refused.
pub fn milliseconds(text: &[u8]) -> Option<u64> {
    time(text, false)
}

/// `ngx_parse_time` in seconds: `10`, `1d 12h`.
pub fn seconds(text: &[u8]) -> Option<u64> {
    time(text, true)
}

/// Units in the only order nginx takes them, with seconds in one; `ms` is apart.
const UNITS: [(u8, u64); 7] = [
    (b'y', 365 * 24 * 60 * 60),
    (b'M', 30 * 24 * 60 * 60),
    (b'w', 7 * 24 * 60 * 60),
    (b'd', 24 * 60 * 60),
    (b'h', 60 * 60),
    (b'm', 60),
    (b's', 1),
];

fn time(text: &[u8], in_seconds: bool) -> Option<u64> {
    let scale_of_second = if in_seconds { 1 } else { 1000 };
    // The step is how far down the list of units the text has come; milliseconds start below months.
    let mut step = if in_seconds { 0 } else { 2 };
    let (mut total, mut value, mut valid, mut at) = (0u64, 0u64, false, 0);
    while let Some(&byte) = text.get(at) {
        at += 1;
        if byte.is_ascii_digit() {
            value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
            valid = true;
            continue;
        }
        let scale = if byte == b'm' && text.get(at) == Some(&b's') {
            if in_seconds || step > 7 {
                return None;
            }
            at += 1;
            step = 8;
            1
        } else if byte == b' ' {
            if step > 6 {
                return None;
            }
            step = 9;
            scale_of_second
        } else {
            let unit = UNITS.iter().position(|(unit, _)| *unit == byte)?;
            if unit < step {
                return None;
            }
            step = unit + 1;
            UNITS[unit].1 * scale_of_second
        };
        total = total.checked_add(value.checked_mul(scale)?).filter(|n| *n <= i64::MAX as u64)?;
        value = 0;
        while text.get(at) == Some(&b' ') {
            at += 1;
        }
    }
    let rest = value.checked_mul(scale_of_second)?;
    valid.then_some(())?;
    total.checked_add(rest).filter(|n| *n <= i64::MAX as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, expected) in [
            ("60s", Some(60_000)),
            ("60", Some(60_000)),
            ("500ms", Some(500)),
            ("1h 30m", Some(5_400_000)),
            ("1h30m", Some(5_400_000)),
            ("1m 500ms", Some(60_500)),
            ("30s 1h", None),
            ("1M", None),
            ("", None),
            ("s", None),
            ("10x", None),
            ("99999999999999999999", None),
        ] {
            let expected = if text == "s" { None } else { expected };
            assert_eq!(milliseconds(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(seconds(b"1y"), Some(31_536_000));
        assert_eq!(seconds(b"500ms"), None);
        assert_eq!(seconds(b"1M 1w"), Some(2_592_000 + 604_800));
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("1", Some(1)),
            ("4k", Some(4096)),
            ("4K", Some(4096)),
            ("1m", Some(1 << 20)),
            ("1g", None),
            ("k", None),
            ("", None),
            ("-1", None),
        ] {
            assert_eq!(size(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(offset(b"2g"), Some(2 << 30));
    }
}
