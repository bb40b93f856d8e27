//! Named state that outlives a reload.
//!
//! Configuration never changes once it is compiled; what does change at run time is a zone. A configuration holds the
//! zones it names; the next one finds them by name ([`Zones`]) as long as anything holds them. Every zone is bounded
//! in bytes ([`Lru`]). Nothing here reads a clock: `now` is an argument.

#![forbid(unsafe_code)]

pub mod counters;
pub mod leaky_bucket;
pub mod lru;

pub use counters::{Counters, Refused};
pub use leaky_bucket::{Asked, LeakyBuckets};
pub use lru::{Full, Lru};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// All zones of one kind in a process, by name. Does not keep them alive: that is up to the configurations.
#[derive(Debug)]
pub struct Zones<T> {
    by_name: Mutex<BTreeMap<Vec<u8>, Weak<T>>>,
}

impl<T> Zones<T> {
    /// None yet.
    pub const fn new() -> Zones<T> {
        Zones { by_name: Mutex::new(BTreeMap::new()) }
    }

    /// The zone of that name if it is there and `fits` (another size, say, makes it another zone), else a new one.
    pub fn open(&self, name: &[u8], fits: impl FnOnce(&T) -> bool, make: impl FnOnce() -> T) -> Arc<T> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_name.get(name).and_then(Weak::upgrade)
            && fits(&known)
        {
            return known;
        }
        let made = Arc::new(make());
        by_name.retain(|_, zone| zone.strong_count() > 0);
        by_name.insert(name.to_vec(), Arc::downgrade(&made));
        made
    }
}

impl<T> Default for Zones<T> {
    fn default() -> Self {
        Zones::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_lives_as_long_as_somebody_holds_it() {
        let zones = Zones::<u32>::new();
        let first = zones.open(b"one", |_| true, || 1);
        let second = zones.open(b"one", |_| true, || 2);
        assert!(Arc::ptr_eq(&first, &second));
        let other = zones.open(b"two", |_| true, || 3);
        assert_eq!(*other, 3);
        let resized = zones.open(b"one", |value| *value == 9, || 9);
        assert_eq!((*first, *resized), (1, 9));
        drop((first, second, resized));
        assert_eq!(*zones.open(b"one", |_| true, || 4), 4);
    }
}
