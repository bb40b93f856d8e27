//! Counters by key: `limit_conn` (nginx's manual, ngx_http_limit_conn_module). A key that counts nothing takes no room.

use crate::Lru;

/// What nginx's node of the tree takes without its key, bytes.
const COUNTER_BYTES: usize = 36;

/// The counters of one zone.
#[derive(Debug)]
pub struct Counters {
    counters: Lru<u32>,
}

/// Why nothing was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The limit is reached.
    Limit,
    /// There is no room for another counter.
    Full,
}

impl Counters {
    /// Counters of at most that many bytes.
    pub fn new(bytes_max: usize) -> Counters {
        Counters { counters: Lru::new(bytes_max, COUNTER_BYTES) }
    }

    /// Counts one more under this key.
    ///
    /// # Errors
    /// Why not.
    pub fn take(&mut self, key: &[u8], limit: u32) -> Result<(), Refused> {
        match self.counters.touch(key) {
            Some(count) if *count >= limit => Err(Refused::Limit),
            Some(count) => {
                *count += 1;
                Ok(())
            }
            None => self.counters.insert(key, 1).map(drop).map_err(|_| Refused::Full),
        }
    }

    /// Counts one less.
    pub fn give_back(&mut self, key: &[u8]) {
        let left = self.counters.peek_mut(key).map(|count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == Some(0) {
            self.counters.remove(key);
        }
    }

    /// How many keys count something.
    pub fn len(&self) -> usize {
        self.counters.len()
    }

    /// Does no key count anything?
    pub fn is_empty(&self) -> bool {
        self.counters.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        // One counter of 64 bytes.
        let mut zone = Counters::new(64);
        assert_eq!(zone.take(b"a", 2), Ok(()));
        assert_eq!(zone.take(b"a", 2), Ok(()));
        assert_eq!(zone.take(b"a", 2), Err(Refused::Limit));
        assert_eq!(zone.take(b"b", 2), Err(Refused::Full));
        zone.give_back(b"a");
        assert_eq!(zone.take(b"a", 2), Ok(()));
        zone.give_back(b"a");
        zone.give_back(b"a");
        assert!(zone.is_empty());
        zone.give_back(b"a");
        assert_eq!(zone.take(b"b", 1), Ok(()));
        assert_eq!(zone.len(), 1);
    }
}
