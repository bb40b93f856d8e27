//! Logs whose path has variables in it: the file is known only when the line is.
//!
//! Without `open_log_file_cache` a path stays open until the end of the turn of the event loop in which it was
//! named: lines of one turn share one opening. With it, nginx's rules hold: at most `entries_max` files, each
//! kept while it is used, and asked for anew every `valid` seconds whether the path still means it.

use super::file::LogFile;
use super::{Log, flush_thread};
use crate::clock;
use crate::file::FileError;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// nginx's `open_log_file_cache max= inactive= valid= min_uses=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VariableLogOptions {
    /// How many files stay open.
    pub entries_max: usize,
    /// How long without use, 10 s by default.
    pub inactive: Duration,
    /// How long a path is believed, 60 s by default.
    pub valid: Duration,
    /// From how many uses within `inactive` a file stays open, 1 by default.
    pub uses_min: u32,
}

/// One thread's open logs by path.
#[derive(Default)]
pub struct VariableLogs {
    options: Option<VariableLogOptions>,
    by_path: HashMap<Box<[u8]>, Entry>,
    used: u64,
}

struct Entry {
    /// None: closed again, for it was used too rarely. The entry counts on.
    log: Option<Log>,
    asked_ms: u64,
    used_ms: u64,
    /// When it was last used, in uses of all entries.
    used: u64,
    uses: u32,
    turn: u64,
}

impl VariableLogs {
    /// With `None`, nothing is kept beyond the turn.
    pub fn new(options: Option<VariableLogOptions>) -> VariableLogs {
        VariableLogs { options, by_path: HashMap::new(), used: 0 }
    }

    /// The log of a path, opened if it is not. The error is nginx's `open() "PATH" failed`.
    pub fn open(&mut self, path: &[u8]) -> Result<Log, FileError> {
        let (now_ms, turn) = (clock::now_ms(), clock::turn());
        self.used += 1;
        if let Some(entry) = self.by_path.get_mut(path) {
            entry.used_ms = now_ms;
            entry.used = self.used;
            entry.uses = entry.uses.saturating_add(1);
            if let Some(log) = entry.believed(self.options.as_ref(), now_ms, turn) {
                return Ok(log);
            }
        }
        self.forget(now_ms, turn);
        self.make_room(path);
        let log = Log::to_file(Arc::new(LogFile::open(path)?));
        let uses = self.by_path.get(path).map_or(1, |entry| entry.uses);
        let entry =
            Entry { log: Some(log.clone()), asked_ms: now_ms, used_ms: now_ms, used: self.used, uses, turn };
        self.by_path.insert(path.into(), entry);
        Ok(log)
    }

    /// Writes what this thread holds and closes what it may; for a task that runs now and then, so that files
    /// of paths that are never named again are closed in time.
    pub fn expire(&mut self) {
        flush_thread();
        self.forget(clock::now_ms(), clock::turn());
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.by_path.len()
    }

    /// True when none is.
    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    /// Closes what is out of use.
    fn forget(&mut self, now_ms: u64, turn: u64) {
        let Some(options) = self.options else {
            self.by_path.retain(|_, entry| entry.turn == turn);
            return;
        };
        let inactive_ms = options.inactive.as_millis() as u64;
        self.by_path.retain(|_, entry| now_ms.saturating_sub(entry.used_ms) <= inactive_ms);
        for entry in self.by_path.values_mut() {
            if entry.uses < options.uses_min && entry.turn != turn {
                entry.log = None;
            }
        }
    }

    /// Removes the least recently used path where there is no room for another.
    fn make_room(&mut self, path: &[u8]) {
        let Some(options) = self.options else { return };
        if self.by_path.len() < options.entries_max.max(1) || self.by_path.contains_key(path) {
            return;
        }
        let oldest = self.by_path.iter().min_by_key(|(_, entry)| entry.used);
        if let Some(path) = oldest.map(|(path, _)| path.clone()) {
            self.by_path.remove(&path);
        }
    }
}

impl Entry {
    /// The open file, if it is still what the path means, as far as that must be known.
    fn believed(&mut self, options: Option<&VariableLogOptions>, now_ms: u64, turn: u64) -> Option<Log> {
        let log = self.log.clone()?;
        let Some(options) = options else { return Some(log).filter(|_| self.turn == turn) };
        // It was used too rarely until now: nginx closed it.
        if self.uses <= options.uses_min && self.turn != turn {
            return None;
        }
        if now_ms.saturating_sub(self.asked_ms) < options.valid.as_millis() as u64 {
            return Some(log);
        }
        self.asked_ms = now_ms;
        let file = log.file()?;
        let at_path = rustix::fs::stat(file.path()).ok().map(|stat| (stat.st_dev, stat.st_ino));
        (at_path.is_some() && at_path == file.identity()).then_some(log)
    }
}
