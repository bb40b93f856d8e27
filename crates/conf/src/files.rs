//! Reading files and patterns through a trait, so that this crate needs no file system; and an implementation that
//! holds everything in memory.

use crate::tree::Tree;
use bstr::{BStr, BString, ByteSlice};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A failure of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The number, 2 for a missing file.
    pub errno: i32,
    /// The system's words for it, `No such file or directory`.
    pub message: String,
}

impl FileError {
    /// ENOENT.
    pub fn missing() -> FileError {
        FileError { errno: 2, message: "No such file or directory".to_owned() }
    }
}

/// What the parser asks of a file system.
pub trait Files {
    /// The whole content of a file.
    fn read(&self, path: &BStr) -> Result<Vec<u8>, FileError>;

    /// The paths that match a pattern as in glob(3), sorted by their bytes. No match is an empty list, not an error.
    fn glob(&self, pattern: &BStr) -> Result<Vec<BString>, FileError>;
}

/// Files held in memory: for tests, and for a process that parses again what another one has read.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles {
    files: BTreeMap<BString, Arc<[u8]>>,
    globs: HashMap<BString, Vec<BString>>,
}

impl MemoryFiles {
    /// No files at all.
    pub fn new() -> MemoryFiles {
        MemoryFiles::default()
    }

    /// Adds a file, or replaces it.
    pub fn insert(&mut self, path: impl Into<BString>, text: impl Into<Arc<[u8]>>) {
        self.files.insert(path.into(), text.into());
    }

    /// Fixes the answer to one pattern. Patterns without such an answer are matched against the names held.
    pub fn insert_glob(&mut self, pattern: impl Into<BString>, paths: Vec<BString>) {
        self.globs.insert(pattern.into(), paths);
    }

    /// Everything a tree was made of, so that parsing again gives the same tree.
    pub fn from_tree(tree: &Tree) -> MemoryFiles {
        let mut memory = MemoryFiles::new();
        for file in &tree.sources.files {
            memory.insert(file.name.clone(), file.text.clone());
        }
        for include in &tree.includes {
            if is_glob(include.path.as_bstr()) {
                memory.insert_glob(include.path.clone(), include.paths.clone());
            }
        }
        memory
    }
}

impl Files for MemoryFiles {
    fn read(&self, path: &BStr) -> Result<Vec<u8>, FileError> {
        if let Some(text) = self.files.get(path) {
            return Ok(text.to_vec());
        }
        let folder = BString::from([path.as_bytes().trim_end_with(|c| c == '/'), b"/"].concat());
        match self.files.range(folder.clone()..).next() {
            Some((name, _)) if name.starts_with(&folder) => {
                Err(FileError { errno: 21, message: "Is a directory".to_owned() })
            }
            _ => Err(FileError::missing()),
        }
    }

    fn glob(&self, pattern: &BStr) -> Result<Vec<BString>, FileError> {
        if let Some(paths) = self.globs.get(pattern) {
            return Ok(paths.clone());
        }
        Ok(self.files.keys().filter(|path| glob_matches(pattern, path.as_bstr())).cloned().collect())
    }
}

/// Whether `include` treats a path as a pattern.
pub fn is_glob(path: &BStr) -> bool {
    path.find_byteset(b"*?[").is_some()
}

/// Whether a path matches a pattern of glob(3) without flags: `*`, `?` and `[...]` match neither `/` nor a dot at
/// the start of a component, and a backslash takes the meaning from what follows.
pub fn glob_matches(pattern: &BStr, path: &BStr) -> bool {
    let mut patterns = pattern.split_str("/");
    let mut names = path.split_str("/");
    loop {
        match (patterns.next(), names.next()) {
            (None, None) => return true,
            (Some(pattern), Some(name)) if component_matches(pattern, name) => {}
            _ => return false,
        }
    }
}

/// One component. Going back to the last `*` only keeps this linear in the product of the lengths.
fn component_matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') && !pattern.starts_with(b"\\.") {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, n));
            p += 1;
            continue;
        }
        if let Some(length) = unit_matches(&pattern[p..], name[n]) {
            p += length;
            n += 1;
            continue;
        }
        let Some((after, from)) = star else { return false };
        p = after;
        n = from + 1;
        star = Some((after, n));
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Whether the first unit of a pattern (not `*`) matches a byte, and how long that unit is.
fn unit_matches(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', rest @ ..] => match set_matches(rest, byte) {
            Some((length, true)) => Some(1 + length),
            Some((_, false)) => None,
            // Without a closing bracket the opening one stands for itself.
            None => (byte == b'[').then_some(1),
        },
        [literal, ..] => (*literal == byte).then_some(1),
    }
}

/// The part of `[...]` behind the opening bracket: its length with the closing bracket, and whether it matches.
fn set_matches(set: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(set.first(), Some(b'!' | b'^'));
    let first = usize::from(negated);
    let mut at = first;
    let mut found = false;
    loop {
        let mut low = *set.get(at)?;
        if low == b']' && at > first {
            return Some((at + 1, found != negated));
        }
        if low == b'\\' {
            at += 1;
            low = *set.get(at)?;
        }
        at += 1;
        let mut high = low;
        if set.get(at) == Some(&b'-') && set.get(at + 1).is_some_and(|end| *end != b']') {
            at += 1;
            if set.get(at) == Some(&b'\\') {
                at += 1;
            }
            high = *set.get(at)?;
            at += 1;
        }
        found |= (low..=high).contains(&byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_glob() {
        let table = [
            ("/etc/nginx/conf.d/*.conf", "/etc/nginx/conf.d/a.conf", true),
            ("/etc/nginx/conf.d/*.conf", "/etc/nginx/conf.d/.conf", false),
            ("/etc/nginx/conf.d/*.conf", "/etc/nginx/conf.d/a/b.conf", false),
            ("/etc/*/a", "/etc/x/a", true),
            ("/etc/*/a", "/etc//a", true),
            ("/a/*", "/a/.hidden", false),
            ("/a/.*", "/a/.hidden", true),
            ("/a/?", "/a/b", true),
            ("/a/?", "/a/bc", false),
            ("/a/[a-c]x", "/a/bx", true),
            ("/a/[!a-c]x", "/a/bx", false),
            ("/a/[^a-c]x", "/a/dx", true),
            ("/a/[]]x", "/a/]x", true),
            ("/a/[ax", "/a/[ax", true),
            ("/a/\\*", "/a/*", true),
            ("/a/\\*", "/a/b", false),
            ("/a/*b*c", "/a/xbybc", true),
            ("/a/*b*c", "/a/xbyb", false),
            ("/a/[a\\-c]", "/a/-", true),
            ("/a/[a\\-c]", "/a/b", false),
        ];
        for (pattern, path, expected) in table {
            assert_eq!(glob_matches(pattern.into(), path.into()), expected, "{pattern} {path}");
        }
    }
}
