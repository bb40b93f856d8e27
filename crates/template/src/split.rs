//! The table behind `split_clients`: a hash of a string, divided by percentages.

use std::fmt;

use bstr::{BStr, BString};

/// Why a `split_clients` block is refused. The text is nginx's, without the place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SplitError {
    /// Not a percentage with at most two digits behind the point, or none at all.
    InvalidPercent(BString),
    /// More than a hundred in all.
    MoreThanWhole,
}

impl fmt::Display for SplitError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SplitError::InvalidPercent(text) => write!(out, "invalid percent value \"{text}\""),
            SplitError::MoreThanWhole => out.write_str("percent total is greater than 100%"),
        }
    }
}

impl std::error::Error for SplitError {}

/// A table in the making: shares in hundredths of a percent, 0 for `*`.
pub struct SplitBuilder<T> {
    shares: Vec<(u32, T)>,
}

impl<T> Default for SplitBuilder<T> {
    fn default() -> Self {
        SplitBuilder { shares: Vec::new() }
    }
}

/// A hundred percent, in hundredths of one.
const WHOLE: u32 = 10000;

impl<T> SplitBuilder<T> {
    /// An empty table.
    pub fn new() -> SplitBuilder<T> {
        SplitBuilder::default()
    }

    /// Adds a line; `share` is `0.5%`, `20%` or `*`.
    pub fn insert(&mut self, share: &BStr, value: T) -> Result<(), SplitError> {
        let hundredths = match &**share {
            b"*" => 0,
            text => text
                .strip_suffix(b"%")
                .and_then(hundredths)
                .filter(|share| *share > 0)
                .ok_or_else(|| SplitError::InvalidPercent(share.into()))?,
        };
        self.shares.push((hundredths, value));
        Ok(())
    }

    /// The table, to be read only.
    pub fn build(self) -> Result<SplitTable<T>, SplitError> {
        let mut sum = 0u32;
        let mut bound = 0u32;
        let mut parts = Vec::new();
        for (share, value) in self.shares {
            // What follows a `*` is more than the whole, unless it is another `*`.
            sum = if share == 0 { WHOLE } else { sum.saturating_add(share) };
            if sum > WHOLE {
                return Err(SplitError::MoreThanWhole);
            }
            bound += (u64::from(share) * u64::from(u32::MAX) / u64::from(WHOLE)) as u32;
            parts.push(((sum < WHOLE).then_some(bound), value));
        }
        Ok(SplitTable { parts: parts.into() })
    }
}

/// `text` times a hundred: digits with at most two behind a point.
fn hundredths(text: &[u8]) -> Option<u32> {
    let mut number = 0u32;
    let mut after_point = None;
    for byte in text {
        match (byte, after_point) {
            (b'.', None) => after_point = Some(0),
            (b'0'..=b'9', None | Some(0..2)) => {
                number = number.checked_mul(10)?.checked_add(u32::from(byte - b'0'))?;
                after_point = after_point.map(|digits| digits + 1);
            }
            _ => return None,
        }
    }
    if text.is_empty() {
        return None;
    }
    number.checked_mul(10u32.pow(2 - after_point.unwrap_or(0)))
}

/// A compiled `split_clients`.
pub struct SplitTable<T> {
    /// Hashes below the bound, or all, with the value they get.
    parts: Box<[(Option<u32>, T)]>,
}

impl<T> SplitTable<T> {
    /// The value for `subject`; nothing where the shares do not add up to the whole and it falls into the rest.
    pub fn find(&self, subject: &[u8]) -> Option<&T> {
        let hash = murmur_hash2(subject);
        self.parts.iter().find(|(bound, _)| bound.is_none_or(|bound| hash < bound)).map(|(_, value)| value)
    }
}

/// Austin Appleby's MurmurHash2 with a seed of zero, as nginx uses it.
pub fn murmur_hash2(data: &[u8]) -> u32 {
    const MULTIPLIER: u32 = 0x5bd1_e995;
    let mut hash = data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(MULTIPLIER);
        word ^= word >> 24;
        hash = hash.wrapping_mul(MULTIPLIER) ^ word.wrapping_mul(MULTIPLIER);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, byte| tail << 8 | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(shares: &[&str]) -> Result<SplitTable<usize>, SplitError> {
        let mut builder = SplitBuilder::new();
        for (index, share) in shares.iter().enumerate() {
            builder.insert(BStr::new(share), index)?;
        }
        builder.build()
    }

    /// Recorded from nginx 1.31: `split_clients $arg_k $part { 10% 0; 20.5% 1; * 2; }`.
    #[test]
    fn clients_are_split_as_by_nginx() {
        let table = split(&["10%", "20.5%", "*"]).unwrap();
        let got: Vec<usize> = (0..40).map(|key| *table.find(format!("k{key}").as_bytes()).unwrap()).collect();
        assert_eq!(got, RECORDED);
    }

    const RECORDED: [usize; 40] = [
        2, 2, 1, 2, 2, 1, 2, 2, 2, 0, 1, 0, 0, 2, 0, 2, 2, 2, 1, 2, 1, 1, 2, 1, 2, 1, 1, 2, 2, 2, 0, 1, 2, 2,
        2, 2, 2, 0, 2, 2,
    ];

    #[test]
    fn the_rest_gets_nothing() {
        let table = split(&["0.01%"]).unwrap();
        assert_eq!((0..1000).filter(|key: &u32| table.find(&key.to_le_bytes()).is_some()).count(), 0);
        let table = split(&["50%", "50%"]).unwrap();
        assert!((0..1000).all(|key: u32| table.find(&key.to_le_bytes()).is_some()));
    }

    #[test]
    fn faults_have_the_words_of_nginx() {
        let fault = |shares: &[&str]| split(shares).err().map(|error| error.to_string());
        for share in ["", "%", "5", "0%", "0.00%", "1.234%", "-1%", "a%", "1.2.3%", "**", "99999999999%"] {
            assert_eq!(fault(&[share]), Some(format!("invalid percent value \"{share}\"")));
        }
        assert_eq!(fault(&["60%", "40.01%"]), Some("percent total is greater than 100%".into()));
        assert_eq!(fault(&["*", "1%"]), Some("percent total is greater than 100%".into()));
        assert_eq!(fault(&["60%", "40%", "*"]), None);
        assert_eq!(fault(&["1.5%", ".5%", "1.%"]), None);
    }
}
