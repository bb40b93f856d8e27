//! A hash for tables whose keys come from the configuration alone.
//!
//! Clients only look things up in such tables; nobody but the author of the configuration can choose keys that collide.
//! So the hash needs no secret, one start is like any other, and a short name costs a few multiplications where the
//! standard library's costs two hundred instructions.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table that the configuration fills and requests read.
pub type ConfigTable<K, V> = HashMap<K, V, BuildHasherDefault<ConfigHasher>>;

/// See the module's text.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConfigHasher(u64);

/// Odd, with bits all over: the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl ConfigHasher {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    }
}

impl Hasher for ConfigHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            self.add(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.add(number.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.add(number as u64);
    }

    /// Tables take places from the low bits and marks from the high ones; a product is best in its high ones.
    fn finish(&self) -> u64 {
        self.0 ^ self.0.rotate_left(32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    #[test]
    fn names_spread_over_all_places() {
        let hash = BuildHasherDefault::<ConfigHasher>::default();
        let names: Vec<String> = (0..4096).map(|number| format!("www{number}.example.com")).collect();
        for shift in [0, 57] {
            let mut counts = [0; 128];
            for name in &names {
                counts[(hash.hash_one(name.as_bytes()) >> shift) as usize & 127] += 1;
            }
            // 32 each on average; chance alone leaves this range once in millions.
            assert!(counts.iter().all(|count| (5..=80).contains(count)), "{shift}: {counts:?}");
        }
        let all: HashSet<u64> = names.iter().map(|name| hash.hash_one(name.as_bytes())).collect();
        assert_eq!(all.len(), names.len());
        assert_ne!(hash.hash_one(&b"a"[..]), hash.hash_one(&b"a\0"[..]));
        assert_ne!(hash.hash_one(&b""[..]), hash.hash_one(&b"\0"[..]));
    }
}
