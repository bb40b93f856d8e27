//! A map from byte strings to values, bounded in bytes, that knows which entry was used least recently.

use std::collections::HashMap;
use std::sync::Arc;

/// There is no room for another entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// No entry.
const NONE: usize = usize::MAX;

/// The map. An entry costs what nginx's slab allocator would take for it: its fixed part and its key, rounded up to
/// a power of two; so that a zone of a given size holds as many entries here as there.
#[derive(Debug)]
pub struct Lru<V> {
    places: HashMap<Arc<[u8]>, usize>,
    entries: Vec<Entry<V>>,
    /// Places in `entries` that are free.
    free: Vec<usize>,
    newest: usize,
    oldest: usize,
    used_bytes: usize,
    bytes_max: usize,
    fixed_bytes: usize,
}

#[derive(Debug)]
struct Entry<V> {
    key: Arc<[u8]>,
    value: V,
    newer: usize,
    older: usize,
}

impl<V: Default> Lru<V> {
    /// An empty map of at most `bytes_max`, whose entries take `fixed_bytes` besides their keys.
    pub fn new(bytes_max: usize, fixed_bytes: usize) -> Lru<V> {
        Lru {
            places: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            used_bytes: 0,
            bytes_max,
            fixed_bytes,
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The entry of a key, without counting as a use.
    pub fn peek_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        let place = *self.places.get(key)?;
        self.entries.get_mut(place).map(|entry| &mut entry.value)
    }

    /// The entry of a key, which becomes the most recently used.
    pub fn touch(&mut self, key: &[u8]) -> Option<&mut V> {
        let place = *self.places.get(key)?;
        if place != self.newest {
            self.unlink(place);
            self.link(place);
        }
        self.entries.get_mut(place).map(|entry| &mut entry.value)
    }

    /// Adds an entry, the most recently used; the key must not be there.
    ///
    /// # Errors
    /// It does not fit.
    pub fn insert(&mut self, key: &[u8], value: V) -> Result<&mut V, Full> {
        let cost = self.cost(key);
        if self.used_bytes + cost > self.bytes_max {
            return Err(Full);
        }
        self.used_bytes += cost;
        let key: Arc<[u8]> = key.into();
        let entry = Entry { key: key.clone(), value, newer: NONE, older: NONE };
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.places.insert(key, place);
        self.link(place);
        Ok(&mut self.entries[place].value)
    }

    /// The least recently used entry.
    pub fn oldest(&self) -> Option<&V> {
        self.entries.get(self.oldest).map(|entry| &entry.value)
    }

    /// Removes the least recently used entry.
    pub fn remove_oldest(&mut self) {
        if let Some(entry) = self.entries.get(self.oldest) {
            let key = entry.key.clone();
            self.remove(&key);
        }
    }

    /// Removes the entry of a key.
    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        let place = self.places.remove(key)?;
        self.used_bytes -= self.cost(key);
        self.unlink(place);
        self.free.push(place);
        Some(std::mem::take(&mut self.entries[place].value))
    }

    fn cost(&self, key: &[u8]) -> usize {
        (self.fixed_bytes + key.len()).next_power_of_two()
    }

    fn link(&mut self, place: usize) {
        let older = std::mem::replace(&mut self.newest, place);
        let entry = &mut self.entries[place];
        entry.newer = NONE;
        entry.older = older;
        match self.entries.get_mut(older) {
            Some(entry) => entry.newer = place,
            None => self.oldest = place,
        }
    }

    fn unlink(&mut self, place: usize) {
        let (newer, older) = (self.entries[place].newer, self.entries[place].older);
        match self.entries.get_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_age_and_leave_in_the_order_of_use() {
        // Entries of 64 bytes: three fit.
        let mut map = Lru::new(200, 60);
        for (key, value) in [(b"a", 1), (b"b", 2), (b"c", 3)] {
            *map.insert(key, 0).expect("there is room") = value;
        }
        assert_eq!(map.insert(b"d", 4), Err(Full));
        assert_eq!(map.touch(b"a"), Some(&mut 1));
        assert_eq!(map.touch(b"a"), Some(&mut 1));
        assert_eq!(map.oldest(), Some(&2));
        assert_eq!(map.peek_mut(b"b"), Some(&mut 2));
        map.remove_oldest();
        assert_eq!((map.oldest(), map.len()), (Some(&3), 2));
        assert_eq!(map.insert(b"d", 4), Ok(&mut 4));
        assert_eq!(map.remove(b"a"), Some(1));
        assert_eq!(map.remove(b"a"), None);
        for expected in [3, 4] {
            assert_eq!(map.oldest(), Some(&expected));
            map.remove_oldest();
        }
        assert!(map.is_empty());
        map.remove_oldest();
        assert_eq!(map.oldest(), None);
        assert_eq!(map.insert(&[0; 500], 1), Err(Full));
    }
}
