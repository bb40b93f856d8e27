//! The static and the dynamic table (RFC 7541, sections 2.3 and 4, appendix A).

use super::{ENTRY_OVERHEAD_BYTES, VecDeque};

/// How many entries the static table has.
pub(super) const STATIC_COUNT: usize = 61;

/// The static table; index 1 is the first.
#[rustfmt::skip]
pub(super) static STATIC: [(&[u8], &[u8]); STATIC_COUNT] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

/// An entry's place in the text, counted from the first byte ever inserted.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u64,
    name_bytes: u32,
    value_bytes: u32,
}

impl Entry {
    fn cost(self) -> usize {
        self.name_bytes as usize + self.value_bytes as usize + ENTRY_OVERHEAD_BYTES
    }
}

/// The dynamic table behind the static one.
#[derive(Clone, Debug)]
pub(super) struct Table {
    text: Vec<u8>,
    /// How many bytes were cut off the front of the text.
    base: u64,
    /// The newest first.
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
    inserted: u64,
}

impl Table {
    pub fn new(bytes_max: usize) -> Table {
        Table { text: Vec::new(), base: 0, entries: VecDeque::new(), bytes: 0, bytes_max, inserted: 0 }
    }

    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// How many entries were ever inserted: the number of the newest.
    pub fn inserted(&self) -> u64 {
        self.inserted
    }

    /// The index of the entry with this number, while it is there.
    pub fn index_of(&self, number: u64) -> Option<usize> {
        let age = self.inserted.checked_sub(number)? as usize;
        (number > 0 && age < self.entries.len()).then_some(STATIC_COUNT + 1 + age)
    }

    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.evict(0);
    }

    /// The entry at an index of both tables.
    pub fn at(&self, index: usize) -> Option<(&[u8], &[u8])> {
        if index <= STATIC_COUNT {
            return STATIC.get(index.checked_sub(1)?).copied();
        }
        let entry = self.entries.get(index - STATIC_COUNT - 1)?;
        let start = entry.start.checked_sub(self.base)? as usize;
        let middle = start + entry.name_bytes as usize;
        let value = self.text.get(middle..middle + entry.value_bytes as usize)?;
        Some((self.text.get(start..middle)?, value))
    }

    /// Inserts an entry; one that is larger than the table empties it (section 4.4).
    pub fn insert(&mut self, name: &[u8], value: &[u8]) {
        let cost = name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        self.evict(cost);
        if cost > self.bytes_max {
            return;
        }
        if self.text.len() + name.len() + value.len() > 2 * self.bytes_max {
            self.compact();
        }
        self.entries.push_front(Entry {
            start: self.base + self.text.len() as u64,
            name_bytes: name.len() as u32,
            value_bytes: value.len() as u32,
        });
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        self.bytes += cost;
        self.inserted += 1;
    }

    fn evict(&mut self, room: usize) {
        while self.bytes + room > self.bytes_max {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.bytes -= oldest.cost();
        }
    }

    fn compact(&mut self) {
        let live = self.entries.back().map_or(self.base + self.text.len() as u64, |oldest| oldest.start);
        self.text.drain(..(live - self.base) as usize);
        self.base = live;
    }
}
