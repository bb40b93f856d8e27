//! `xtask/ratchet.tsv`: file, rule, number. A number may shrink and never grow; a line that reaches nothing goes.

use std::collections::BTreeMap;
use std::path::Path;

/// A file and a rule.
pub type Key = (String, String);

/// What is allowed although it breaks a rule.
#[derive(Debug, Default, PartialEq)]
pub struct Ratchet(BTreeMap<Key, usize>);

impl Ratchet {
    /// Reads the file; without one nothing is allowed.
    pub fn read(file: &Path) -> Result<Self, String> {
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(format!("{}: {e}", file.display())),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut allowed = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let mut words = line.split('\t');
            let (Some(path), Some(rule), Some(Ok(number))) =
                (words.next(), words.next(), words.next().map(str::parse))
            else {
                return Err(format!("xtask/ratchet.tsv: not file, rule and number: {line}"));
            };
            allowed.insert((path.to_owned(), rule.to_owned()), number);
        }
        Ok(Self(allowed))
    }

    /// How much of this is allowed.
    pub fn allowed(&self, key: &Key) -> usize {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// Whether something is better than the file says.
    pub fn can_shrink(&self, sums: &BTreeMap<Key, usize>) -> bool {
        self.0.iter().any(|(key, allowed)| sums.get(key).copied().unwrap_or(0) < *allowed)
    }

    /// Lowers what is better now; tells how many lines that were.
    pub fn lower(&mut self, sums: &BTreeMap<Key, usize>) -> usize {
        let mut count = 0;
        for (key, allowed) in &mut self.0 {
            let now = sums.get(key).copied().unwrap_or(0);
            if now < *allowed {
                *allowed = now;
                count += 1;
            }
        }
        self.0.retain(|_, allowed| *allowed > 0);
        count
    }

    /// Writes the file.
    pub fn write(&self, file: &Path) -> Result<(), String> {
        let mut text = String::from(
            "# What breaks a rule of `cargo xtask tidy` today: file, rule, number. It only shrinks.\n",
        );
        for ((path, rule), number) in &self.0 {
            text += &format!("{path}\t{rule}\t{number}\n");
        }
        std::fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_only_shrink() {
        let mut ratchet = Ratchet::parse("# x\na\tr\t5\nb\tr\t2\n").unwrap();
        let key = |path: &str| (path.to_owned(), "r".to_owned());
        let sums = BTreeMap::from([(key("a"), 3), (key("c"), 9)]);
        assert!(ratchet.can_shrink(&sums));
        assert_eq!(ratchet.lower(&sums), 2);
        assert_eq!(["a", "b", "c"].map(|path| ratchet.allowed(&key(path))), [3, 0, 0]);
        assert_eq!(ratchet.lower(&BTreeMap::from([(key("a"), 8)])), 0);
        assert!(Ratchet::parse("a b 3\n").is_err());
    }
}
