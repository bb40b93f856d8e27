//! Reading DER (X.690), as far as certificates, keys and revocation lists need it. Nothing is copied, and nothing that
//! a peer sends can do more than be refused.

/// Tags of the values that are read.
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const SEQUENCE: u8 = 0x30;
    /// `[n]`, constructed.
    pub(crate) const fn context(number: u8) -> u8 {
        0xa0 | number
    }
    /// `[n]`, primitive.
    pub(crate) const fn implicit(number: u8) -> u8 {
        0x80 | number
    }
}

/// One value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value<'a> {
    pub(crate) tag: u8,
    /// Its content.
    pub(crate) content: &'a [u8],
    /// All of it, with tag and length.
    pub(crate) whole: &'a [u8],
}

/// What is left to read of a sequence of values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Der<'a>(pub(crate) &'a [u8]);

impl<'a> Der<'a> {
    /// Is nothing left?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next value, whatever it is.
    pub(crate) fn any(&mut self) -> Option<Value<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        // Tags of several bytes occur in nothing that is read here.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0usize, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some(Value { tag, content, whole })
    }

    /// The next value if it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Option<Value<'a>> {
        (self.0.first() == Some(&tag)).then(|| self.any()).flatten()
    }

    /// The content of the next value, which must have this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.optional(tag).map(|value| value.content)
    }

    /// The values of the next value, which must have this tag.
    pub(crate) fn inside(&mut self, tag: u8) -> Option<Der<'a>> {
        self.expect(tag).map(Der)
    }
}

impl<'a> Iterator for Der<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.any()
    }
}

/// The bits of a BIT STRING that fills whole bytes.
pub(crate) fn whole_bits(content: &[u8]) -> Option<&[u8]> {
    match content.split_first()? {
        (0, bits) => Some(bits),
        _ => None,
    }
}

/// A small whole number.
pub(crate) fn small_number(content: &[u8]) -> Option<u64> {
    let (first, _) = content.split_first()?;
    if first & 0x80 != 0 || content.len() > 8 {
        return None;
    }
    Some(content.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// A UTCTime or GeneralizedTime (RFC 5280 section 4.1.2.5) in seconds since 1970.
pub(crate) fn time(value: Value<'_>) -> Option<i64> {
    let text = value.content.strip_suffix(b"Z")?;
    let (year, rest) = match value.tag {
        tag::UTC_TIME => {
            let year = decimal(text.get(..2)?)?;
            (if year >= 50 { 1900 + year } else { 2000 + year }, text.get(2..)?)
        }
        tag::GENERALIZED_TIME => (decimal(text.get(..4)?)?, text.get(4..)?),
        _ => return None,
    };
    let mut parts = rest.chunks(2).map(decimal);
    let mut part = || parts.next().flatten();
    let (month, day, hour, minute) = (part()?, part()?, part()?, part()?);
    let second = if rest.len() > 8 { part()? } else { 0 };
    if !(1..=12).contains(&month) || rest.len() > 10 {
        return None;
    }
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

fn decimal(text: &[u8]) -> Option<i64> {
    let digits = text.iter().all(u8::is_ascii_digit) && !text.is_empty();
    digits.then(|| text.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

/// Days from 1970 to a date of the Gregorian calendar (years begin in March, so that leap days end them).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_tags() {
        let cases = [
            (&b"\x02\x01\x05"[..], Some((2, 1))),
            (b"\x30\x81\x02ab", Some((0x30, 2))),
            (b"\x30\x82\x00\x01a", Some((0x30, 1))),
            (b"\x30\x80", None),
            (b"\x30\x05abc", None),
            (b"\x1f\x01a", None),
            (b"\x30\x85\x00\x00\x00\x00\x01a", None),
            (b"", None),
        ];
        for (bytes, expected) in cases {
            let found = Der(bytes).any().map(|value| (value.tag, value.content.len()));
            assert_eq!(found, expected, "{bytes:?}");
        }
    }

    #[test]
    fn times() {
        let time_of = |tag, text: &'static str| time(Value { tag, content: text.as_bytes(), whole: b"" });
        for (tag, text, expected) in [
            (tag::UTC_TIME, "700101000000Z", Some(0)),
            (tag::UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (tag::UTC_TIME, "000229000000Z", Some(951_782_400)),
            (tag::GENERALIZED_TIME, "20261126113043Z", Some(1_795_692_643)),
            (tag::UTC_TIME, "701301000000Z", None),
            (tag::UTC_TIME, "7001010000+1", None),
            (tag::INTEGER, "700101000000Z", None),
        ] {
            assert_eq!(time_of(tag, text), expected, "{text}");
        }
    }
}
