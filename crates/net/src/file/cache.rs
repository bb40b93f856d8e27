//! nginx's `open_file_cache`: descriptors, answers about directories and, if wanted, errors, kept per thread.
//!
//! An entry answers for `valid` seconds without asking the system; then the path is asked again, and an
//! unchanged file keeps its descriptor. Entries not used for `inactive` seconds go, the least recently used
//! first, one or two at each use of the cache so that no request pays for all. A file used fewer than
//! `min_uses` times stays known but is closed when its user is done.

use super::{FileError, FileHandle, FileInfo, Opened, Symlinks, file_info, open_file, open_unless_directory};
use crate::clock;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::ops::Deref;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// How a location uses the cache (`open_file_cache_valid`, `_min_uses`, `_errors`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheUse {
    /// How long an answer is good; nginx's default is 60 s.
    pub valid: Duration,
    /// From how many uses on a file stays open; nginx's default is 1.
    pub uses_min: u32,
    /// Failures are kept as well.
    pub keep_errors: bool,
}

/// One thread's cache. Copies share it.
#[derive(Clone)]
pub struct FileCache {
    shared: Rc<RefCell<Entries>>,
}

struct Entries {
    by_path: HashMap<Rc<[u8]>, Entry>,
    /// Paths by their last use; the first is the next to go.
    by_use: BTreeMap<u64, Rc<[u8]>>,
    next_use: u64,
    entries_max: usize,
    inactive_ms: u64,
}

struct Entry {
    known: Known,
    symlinks: Symlinks,
    uses: u32,
    created_ms: u64,
    used_ms: u64,
    used_as: u64,
}

enum Known {
    Directory(FileInfo),
    /// Without a descriptor when it was not used often enough.
    File(Option<Rc<File>>, FileInfo),
    Error(FileError),
}

/// A file of the cache, in use. Dropping it ends the use.
#[derive(Debug)]
pub struct CachedFile {
    file: Rc<File>,
    path: Rc<[u8]>,
    uses_min: u32,
    cache: Weak<RefCell<Entries>>,
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Entries({})", self.by_path.len())
    }
}

impl Deref for CachedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl FileCache {
    /// A cache of at most `entries_max` paths, each forgotten after `inactive` without use.
    pub fn new(entries_max: usize, inactive: Duration) -> FileCache {
        let entries = Entries {
            by_path: HashMap::new(),
            by_use: BTreeMap::new(),
            next_use: 0,
            entries_max: entries_max.max(1),
            inactive_ms: millis(inactive),
        };
        FileCache { shared: Rc::new(RefCell::new(entries)) }
    }

    /// As [`super::open_file`], or as [`super::open_unless_directory`] where `probably_directory`, from the
    /// cache where it knows.
    pub fn open(
        &self,
        path: &[u8],
        symlinks: Symlinks,
        rules: &CacheUse,
        probably_directory: bool,
    ) -> Result<Opened, FileError> {
        let now_ms = clock::now_ms();
        let mut entries = self.shared.borrow_mut();
        entries.expire(now_ms, false);
        let Some((key, entry)) = entries.by_path.get_key_value(path) else {
            let known = ask(path, symlinks, probably_directory);
            return self.keep(&mut entries, path.into(), known, symlinks, rules, 1, now_ms);
        };
        let key = key.clone();
        let uses = entry.uses.saturating_add(1);
        let is_fresh = now_ms.saturating_sub(entry.created_ms) < millis(rules.valid)
            && entry.symlinks == symlinks
            && !matches!(entry.known, Known::File(None, _));
        if is_fresh {
            let answer = self.answer(&entry.known, &key, rules);
            entries.touch(&key, now_ms, uses);
            return answer;
        }
        let known = match &entry.known {
            Known::File(Some(file), info) => ask_again(path, symlinks, file, info),
            Known::Directory(_) => ask(path, symlinks, true),
            _ => ask(path, symlinks, probably_directory),
        };
        self.keep(&mut entries, key, known, symlinks, rules, uses, now_ms)
    }

    /// What is at a path, by way of [`FileCache::open`]: nginx opens files for mere questions too once there is
    /// a cache.
    pub fn info(&self, path: &[u8], symlinks: Symlinks, rules: &CacheUse) -> Result<FileInfo, FileError> {
        self.open(path, symlinks, rules, false).map(|opened| opened.info)
    }

    /// How many paths it knows.
    pub fn len(&self) -> usize {
        self.shared.borrow().by_path.len()
    }

    /// True when it knows none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[allow(clippy::too_many_arguments)] // one caller's state, not a public way in
    fn keep(
        &self,
        entries: &mut Entries,
        path: Rc<[u8]>,
        known: Known,
        symlinks: Symlinks,
        rules: &CacheUse,
        uses: u32,
        now_ms: u64,
    ) -> Result<Opened, FileError> {
        entries.remove(&path);
        if let Known::Error(error) = known
            && !rules.keep_errors
        {
            return Err(error);
        }
        if entries.by_path.len() >= entries.entries_max {
            entries.expire(now_ms, true);
        }
        let used_as = entries.next_use;
        entries.next_use += 1;
        let answer = self.answer(&known, &path, rules);
        let entry = Entry { known, symlinks, uses, created_ms: now_ms, used_ms: now_ms, used_as };
        entries.by_use.insert(used_as, path.clone());
        entries.by_path.insert(path, entry);
        answer
    }

    fn answer(&self, known: &Known, path: &Rc<[u8]>, rules: &CacheUse) -> Result<Opened, FileError> {
        match known {
            Known::Error(error) => Err(*error),
            Known::Directory(info) => Ok(Opened { file: None, info: *info }),
            Known::File(None, info) => Ok(Opened { file: None, info: *info }),
            Known::File(Some(file), info) => {
                let cached = CachedFile {
                    file: file.clone(),
                    path: path.clone(),
                    uses_min: rules.uses_min,
                    cache: Rc::downgrade(&self.shared),
                };
                Ok(Opened { file: Some(FileHandle::Cached(cached)), info: *info })
            }
        }
    }
}

fn ask(path: &[u8], symlinks: Symlinks, probably_directory: bool) -> Known {
    let opened = match probably_directory {
        true => open_unless_directory(path, symlinks),
        false => open_file(path, symlinks),
    };
    match opened {
        Err(error) => Known::Error(error),
        Ok(Opened { file: Some(FileHandle::Own(file)), info }) => Known::File(Some(Rc::new(file)), info),
        Ok(Opened { file: _, info }) => Known::Directory(info),
    }
}

/// An unchanged file costs one question and keeps its descriptor.
fn ask_again(path: &[u8], symlinks: Symlinks, file: &Rc<File>, before: &FileInfo) -> Known {
    match file_info(path, symlinks) {
        Err(error) => Known::Error(error),
        Ok(info) if info.unique == before.unique => Known::File(Some(file.clone()), info),
        Ok(_) => ask(path, symlinks, false),
    }
}

impl Entries {
    fn touch(&mut self, path: &Rc<[u8]>, now_ms: u64, uses: u32) {
        let used_as = self.next_use;
        self.next_use += 1;
        let Some(entry) = self.by_path.get_mut(path) else { return };
        self.by_use.remove(&entry.used_as);
        self.by_use.insert(used_as, path.clone());
        entry.used_as = used_as;
        entry.used_ms = now_ms;
        entry.uses = uses;
    }

    fn remove(&mut self, path: &[u8]) {
        if let Some(entry) = self.by_path.remove(path) {
            self.by_use.remove(&entry.used_as);
        }
    }

    /// Forgets one or two entries out of use, and before them the least recently used one if `by_force`.
    fn expire(&mut self, now_ms: u64, by_force: bool) {
        for round in usize::from(!by_force)..3 {
            let Some((_, path)) = self.by_use.first_key_value() else { return };
            let path = path.clone();
            let used_ms = self.by_path.get(&path).map_or(0, |entry| entry.used_ms);
            if round != 0 && now_ms.saturating_sub(used_ms) <= self.inactive_ms {
                return;
            }
            self.remove(&path);
        }
    }
}

impl Drop for CachedFile {
    fn drop(&mut self) {
        let Some(cache) = self.cache.upgrade() else { return };
        // A drop while the cache is at work would be one of its own; then it is being forgotten anyway.
        let Ok(mut entries) = cache.try_borrow_mut() else { return };
        let now_ms = clock::now_ms();
        if let Some(uses) = entries.by_path.get(&self.path).map(|entry| entry.uses) {
            entries.touch(&self.path, now_ms, uses);
        }
        if let Some(entry) = entries.by_path.get_mut(&self.path)
            && entry.uses < self.uses_min
            && let Known::File(file, _) = &mut entry.known
            // The entry's and this one: nobody else uses it.
            && file.as_ref().is_some_and(|file| Rc::ptr_eq(file, &self.file) && Rc::strong_count(file) == 2)
        {
            *file = None;
        }
        entries.expire(now_ms, false);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errno::Errno;
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    use std::path::{Path, PathBuf};

    const ALWAYS: CacheUse = CacheUse { valid: Duration::from_secs(600), uses_min: 1, keep_errors: true };
    const NEVER: CacheUse = CacheUse { valid: Duration::ZERO, ..ALWAYS };

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("gapura-net-cache-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the temporary folder is writable");
        path
    }

    fn open(cache: &FileCache, path: &Path, rules: &CacheUse) -> Result<Opened, Errno> {
        let path = path.as_os_str().as_bytes();
        cache.open(path, Symlinks::Follow, rules, false).map_err(|error| error.errno)
    }

    fn number(opened: &Opened) -> i32 {
        opened.file.as_ref().expect("it is a file").as_raw_fd()
    }

    #[test]
    fn answers_stay_for_their_time_and_unchanged_files_keep_their_descriptor() {
        let folder = folder("valid");
        let path = folder.join("a");
        std::fs::write(&path, b"one").expect("it is writable");
        let cache = FileCache::new(10, Duration::from_secs(60));
        let first = open(&cache, &path, &ALWAYS).expect("it is there");
        let second = open(&cache, &path, &ALWAYS).expect("it is there");
        assert_eq!(number(&first), number(&second));
        std::fs::write(&path, b"longer").expect("it is writable");
        assert_eq!(open(&cache, &path, &ALWAYS).expect("known").info.size, 3, "still the old answer");
        let again = open(&cache, &path, &NEVER).expect("it is there");
        assert_eq!((again.info.size, number(&again)), (6, number(&first)), "asked again, same file");

        let other = folder.join("b");
        std::fs::write(&other, b"replaced").expect("it is writable");
        std::fs::rename(&other, &path).expect("it is ours");
        let replaced = open(&cache, &path, &NEVER).expect("it is there");
        assert_ne!(number(&replaced), number(&first), "another file under the name");
        std::fs::remove_dir_all(folder).expect("it is ours");
        assert_eq!(open(&cache, &path, &NEVER).expect_err("gone"), Errno::NOENT);
    }

    #[test]
    fn errors_are_kept_only_where_wanted() {
        let folder = folder("errors");
        let path = folder.join("late");
        let cache = FileCache::new(10, Duration::from_secs(60));
        let forgetful = CacheUse { keep_errors: false, ..ALWAYS };
        assert_eq!(open(&cache, &path, &forgetful).expect_err("missing"), Errno::NOENT);
        assert!(cache.is_empty());
        assert_eq!(open(&cache, &path, &ALWAYS).expect_err("missing"), Errno::NOENT);
        std::fs::write(&path, b"x").expect("it is writable");
        assert_eq!(open(&cache, &path, &ALWAYS).expect_err("still kept"), Errno::NOENT);
        assert!(open(&cache, &path, &NEVER).is_ok());
        std::fs::remove_dir_all(folder).expect("it is ours");
    }

    #[test]
    fn the_least_recently_used_goes_when_it_is_full_or_out_of_use() {
        let folder = folder("full");
        let cache = FileCache::new(2, Duration::from_secs(60));
        for name in ["a", "b", "c"] {
            std::fs::write(folder.join(name), b"x").expect("it is writable");
        }
        let known = |cache: &FileCache, name: &str| {
            cache.shared.borrow().by_path.contains_key(folder.join(name).as_os_str().as_bytes())
        };
        let mut held = Vec::new();
        for name in ["a", "b", "a", "c"] {
            held.push(open(&cache, &folder.join(name), &ALWAYS).expect("it is there"));
        }
        assert_eq!((known(&cache, "a"), known(&cache, "b"), known(&cache, "c")), (true, false, true));
        let mut bytes = Vec::new();
        let file = held[1].file.as_ref().expect("a file");
        assert_eq!(super::super::read_range(file, 0, 9, &mut bytes), Ok(1), "a held file outlives its entry");
        drop(held);
        cache.shared.borrow_mut().expire(clock::now_ms() + 61_000, false);
        assert!(cache.is_empty());
        std::fs::remove_dir_all(folder).expect("it is ours");
    }

    #[test]
    fn rarely_used_files_are_closed_after_use_but_stay_known() {
        let folder = folder("uses");
        let path = folder.join("a");
        std::fs::write(&path, b"x").expect("it is writable");
        let cache = FileCache::new(2, Duration::from_secs(60));
        let twice = CacheUse { uses_min: 2, ..ALWAYS };
        let is_open = |cache: &FileCache| {
            let entries = cache.shared.borrow();
            matches!(entries.by_path[path.as_os_str().as_bytes()].known, Known::File(Some(_), _))
        };
        drop(open(&cache, &path, &twice).expect("it is there"));
        assert!(!is_open(&cache));
        drop(open(&cache, &path, &twice).expect("it is there"));
        assert!(is_open(&cache), "the second use keeps it");
        let directory = open(&cache, &folder, &ALWAYS).expect("it is there");
        assert!(directory.file.is_none() && directory.info.is_directory);
        std::fs::remove_dir_all(folder).expect("it is ours");
    }
}
