//! The files a configuration is made of, and the addresses of its names: asked for once by the master, and answered
//! from memory in the worker, which so parses the very same bytes without the right to read them itself.

use bstr::{BStr, BString, ByteSlice};
use conf::FileError;
use engine::compile::{Names, SystemNames};
use net::errno::{Errno, errno_of, errno_text};
use net::resolver::startup::StartupError;
use std::collections::BTreeMap;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::{Arc, Mutex, PoisonError};

/// What was asked of the file system, and what it said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Contents by path.
    pub reads: BTreeMap<BString, Result<Arc<[u8]>, FileError>>,
    /// Paths by pattern.
    pub globs: BTreeMap<BString, Result<Vec<BString>, FileError>>,
    /// Addresses by name.
    pub names: BTreeMap<String, Result<Vec<IpAddr>, StartupError>>,
}

/// Files that remember what they answered.
#[derive(Debug)]
pub struct RecordedFiles {
    asks_system: bool,
    record: Mutex<Record>,
}

impl RecordedFiles {
    /// Asks the file system, each thing once.
    pub fn of_system() -> RecordedFiles {
        RecordedFiles { asks_system: true, record: Mutex::default() }
    }

    /// Answers what was answered before, and knows nothing else.
    pub fn of_record(record: Record) -> RecordedFiles {
        RecordedFiles { asks_system: false, record: Mutex::new(record) }
    }

    /// Everything asked so far.
    pub fn record(&self) -> Record {
        self.locked().clone()
    }

    /// Answers like this from now on when asked for that file: it was written.
    pub fn put(&self, path: &[u8], content: Result<Arc<[u8]>, FileError>) {
        self.locked().reads.insert(path.into(), content);
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl conf::Files for RecordedFiles {
    fn read(&self, path: &BStr) -> Result<Arc<[u8]>, FileError> {
        let mut record = self.locked();
        if let Some(known) = record.reads.get(path) {
            return known.clone();
        }
        if !self.asks_system {
            return Err(FileError::missing());
        }
        let answer = read_file(path);
        record.reads.insert(path.to_owned(), answer.clone());
        answer
    }

    fn glob(&self, pattern: &BStr) -> Result<Vec<BString>, FileError> {
        let mut record = self.locked();
        if let Some(known) = record.globs.get(pattern) {
            return known.clone();
        }
        if !self.asks_system {
            return Ok(Vec::new());
        }
        let answer = Ok(glob(pattern));
        record.globs.insert(pattern.to_owned(), answer.clone());
        answer
    }
}

impl Names for RecordedFiles {
    fn look_up(&self, names: &[String]) -> Vec<Result<Vec<IpAddr>, StartupError>> {
        let mut record = self.locked();
        if self.asks_system {
            let unknown = |name: &&String| !record.names.contains_key(*name);
            let unknown: Vec<String> = names.iter().filter(unknown).cloned().collect();
            let found = SystemNames.look_up(&unknown);
            record.names.extend(unknown.into_iter().zip(found));
        }
        let answer = |name| record.names.get(name).cloned().unwrap_or(Err(StartupError::HostNotFound));
        names.iter().map(answer).collect()
    }
}

/// A failure of the system in `conf`'s form.
pub fn file_error(errno: Errno) -> FileError {
    let number = errno.raw_os_error();
    FileError { errno: number, message: errno_text(number).to_owned() }
}

fn read_file(path: &[u8]) -> Result<Arc<[u8]>, FileError> {
    let read = || {
        let file = std::fs::File::open(crate::identity::path_of(path))?;
        // One byte beyond the bound lets the parser see that it was passed.
        let bytes_max = conf::FILE_BYTES_MAX + 1;
        // A file of a known size is read at once; what the system says of others is nothing.
        let known = file.metadata().map_or(0, |metadata| metadata.len());
        let known = usize::try_from(known).unwrap_or(bytes_max).min(bytes_max);
        let mut bytes = Vec::with_capacity(known + 1);
        file.take(bytes_max as u64).read_to_end(&mut bytes)?;
        Ok(bytes.into())
    };
    read().map_err(|error: std::io::Error| file_error(errno_of(&error)))
}

/// glob(3): what exists and matches, sorted by bytes. Folders that cannot be read match nothing.
fn glob(pattern: &BStr) -> Vec<BString> {
    let absolute = pattern.starts_with(b"/");
    let mut found: Vec<BString> = vec![if absolute { "/".into() } else { "".into() }];
    let parts: Vec<&[u8]> = pattern.split_str("/").filter(|part| !part.is_empty()).collect();
    for (index, part) in parts.iter().enumerate() {
        let is_last = index + 1 == parts.len();
        let mut next = Vec::new();
        for folder in found {
            let candidates = if conf::is_glob(part.as_bstr()) {
                matching_entries(&folder, part)
            } else {
                vec![part.to_vec()]
            };
            for name in candidates {
                let mut path = folder.to_vec();
                path.extend_from_slice(&name);
                if !crate::identity::exists(crate::identity::path_of(&path)) {
                    continue;
                }
                if !is_last {
                    path.push(b'/');
                }
                next.push(BString::from(path));
            }
        }
        found = next;
    }
    found.sort();
    found
}

fn matching_entries(folder: &[u8], part: &[u8]) -> Vec<Vec<u8>> {
    let folder = if folder.is_empty() { b"." } else { folder };
    let Ok(entries) = std::fs::read_dir(std::ffi::OsStr::from_bytes(folder)) else { return Vec::new() };
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().into_vec()));
    names.filter(|name| conf::glob_matches(part.as_bstr(), name.as_bstr())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use conf::Files;

    #[test]
    fn what_the_system_said_is_said_again() {
        let folder = std::env::temp_dir().join(format!("gapura-files-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("sub")).expect("the temporary folder is writable");
        for name in ["b.conf", "a.conf", ".hidden.conf", "c.txt", "sub/d.conf"] {
            std::fs::write(folder.join(name), name).expect("it is writable");
        }
        let at = |name: &str| BString::from(folder.join(name).into_os_string().into_vec());
        let system = RecordedFiles::of_system();
        let cases = [
            ("*.conf", vec![at("a.conf"), at("b.conf")]),
            ("*/*.conf", vec![at("sub/d.conf")]),
            ("[c-z]*", vec![at("c.txt"), at("sub")]),
            ("none*", vec![]),
            ("nowhere/*", vec![]),
        ];
        for (pattern, expected) in &cases {
            assert_eq!(system.glob(at(pattern).as_bstr()), Ok(expected.clone()), "{pattern}");
        }
        assert_eq!(system.read(at("a.conf").as_bstr()), Ok((*b"a.conf").into()));
        assert_eq!(system.read(at("missing").as_bstr()), Err(FileError::missing()));
        let names = ["127.0.0.1".to_owned(), "::1".to_owned()];
        let addresses = system.look_up(&names);
        assert!(addresses.iter().all(Result::is_ok), "{addresses:?}");
        let recorded = RecordedFiles::of_record(system.record());
        assert_eq!(recorded.look_up(&names), addresses);
        assert_eq!(recorded.look_up(&["127.0.0.2".to_owned()]), [Err(StartupError::HostNotFound)]);
        std::fs::remove_dir_all(&folder).expect("it is ours");
        for (pattern, expected) in &cases {
            assert_eq!(recorded.glob(at(pattern).as_bstr()), Ok(expected.clone()), "{pattern}");
        }
        assert_eq!(recorded.read(at("a.conf").as_bstr()), Ok((*b"a.conf").into()));
        assert_eq!(recorded.read(at("missing").as_bstr()), Err(FileError::missing()));
        assert_eq!(recorded.read(at("never asked").as_bstr()), Err(FileError::missing()));
    }
}
