//! Reading files and patterns through a trait, so that this crate needs no file system; and an implementation that
//! holds everything in memory.

use crate::glob::{glob_matches, is_glob};
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
    /// The whole content of a file; shared, since some are large.
    fn read(&self, path: &BStr) -> Result<Arc<[u8]>, FileError>;

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
    fn read(&self, path: &BStr) -> Result<Arc<[u8]>, FileError> {
        if let Some(text) = self.files.get(path) {
            return Ok(text.clone());
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
