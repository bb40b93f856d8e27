//! Encoding field lists. A field whose value was the same the last time goes into the table and costs one byte from
//! then on; values that change every time never get there, and secrets never do.

use super::{STATIC, TABLE_BYTES_DEFAULT, Table, huffman};

/// How many names are remembered with their last value.
const SLOTS: usize = 64;
/// Fields larger than this are not kept in the table, bytes.
const KEPT_BYTES_MAX: usize = 512;

const SET_COOKIE: &[u8] = b"set-cookie";

/// The last value of a name.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u32,
    /// The number of its entry in the table; 0: none.
    entry: u64,
}

/// Encodes the header blocks of one direction of a connection.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    slots: Box<[Slot; SLOTS]>,
    /// Sizes the table has to announce with the next block: the smallest meanwhile, and the last.
    owed_sizes: Option<(usize, usize)>,
    name: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder {
            table: Table::new(TABLE_BYTES_DEFAULT),
            slots: Box::new([Slot::default(); SLOTS]),
            owed_sizes: None,
            name: Vec::new(),
        }
    }
}

impl Encoder {
    /// The peer allows a table of that many bytes. No more than [`TABLE_BYTES_DEFAULT`] are used.
    pub fn set_table_bytes_max(&mut self, bytes: usize) {
        let bytes = bytes.min(TABLE_BYTES_DEFAULT);
        let (smallest, _) = self.owed_sizes.unwrap_or((bytes, 0));
        if self.owed_sizes.is_some() || bytes != self.table.bytes_max() {
            self.owed_sizes = Some((smallest.min(bytes), bytes));
        }
        self.table.set_bytes_max(bytes);
    }

    /// Begins a block.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        let Some((smallest, last)) = self.owed_sizes.take() else { return };
        if smallest < last {
            integer(smallest, 5, 0x20, out);
        }
        integer(last, 5, 0x20, out);
    }

    /// Appends a `:status`.
    pub fn status(&mut self, status: u16, out: &mut Vec<u8>) {
        let index = match status {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                let digits = [status / 100 % 10, status / 10 % 10, status % 10];
                let digits = digits.map(|digit| b'0' + digit as u8);
                return self.field(b":status", &digits, out);
            }
        };
        out.push(0x80 | index);
    }

    /// Appends a field. The name may be written in any case; it goes out in lowercase.
    pub fn field(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let index = static_name(name);
        if let Some(at) = index
            && STATIC.get(at - 1).is_some_and(|(_, usual)| !usual.is_empty())
            && let Some(whole) = static_field(at, value)
        {
            out.push(0x80 | whole as u8);
            return;
        }
        if is_secret(name) {
            integer(index.unwrap_or(0), 4, 0x10, out);
            return self.rest(index.is_none(), name, value, out);
        }
        if name.len() == SET_COOKIE.len() && name.eq_ignore_ascii_case(SET_COOKIE) {
            // Not for the table either, but it may go on to the browser in any form.
            integer(index.unwrap_or(0), 4, 0, out);
            return self.rest(index.is_none(), name, value, out);
        }
        let name_hash = hash(name, 0x20);
        let place = name_hash as usize % SLOTS;
        let mut slot = self.slots[place];
        let whole_hash = hash(value, 0) ^ name_hash.rotate_left(16);
        if slot.hash == whole_hash {
            if let Some(at) = self.table.index_of(slot.entry)
                && self
                    .table
                    .at(at)
                    .is_some_and(|(kept_name, kept)| kept == value && kept_name.eq_ignore_ascii_case(name))
            {
                return integer(at, 7, 0x80, out);
            }
            if name.len() + value.len() <= KEPT_BYTES_MAX.min(self.table.bytes_max() / 4) {
                self.lower(name);
                self.table.insert(&self.name, value);
                slot.entry = self.table.inserted();
                self.slots[place] = slot;
                integer(index.unwrap_or(0), 6, 0x40, out);
                return self.rest(index.is_none(), name, value, out);
            }
        }
        self.slots[place] = Slot { hash: whole_hash, entry: 0 };
        integer(index.unwrap_or(0), 4, 0, out);
        self.rest(index.is_none(), name, value, out);
    }

    fn rest(&mut self, with_name: bool, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        if with_name {
            self.lower(name);
            string(&self.name, out);
        }
        string(value, out);
    }

    fn lower(&mut self, name: &[u8]) {
        self.name.clear();
        self.name.extend(name.iter().map(u8::to_ascii_lowercase));
    }
}

/// Values that no compression may tell about (RFC 7541, section 7.1.3).
fn is_secret(name: &[u8]) -> bool {
    const SECRETS: [&[u8]; 3] = [b"authorization", b"proxy-authorization", b"cookie"];
    matches!(name.len(), 6 | 13 | 19) && SECRETS.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

/// The index of a name in the static table, whatever its case.
fn static_name(name: &[u8]) -> Option<usize> {
    let range = match name.first()?.to_ascii_lowercase() {
        b':' => 1..=8,
        b'a' => 15..=23,
        b'c' => 24..=32,
        b'd' => 33..=33,
        b'e' => 34..=36,
        b'f' => 37..=37,
        b'h' => 38..=38,
        b'i' => 39..=43,
        b'l' => 44..=46,
        b'm' => 47..=47,
        b'p' => 48..=49,
        b'r' => 50..=53,
        b's' => 54..=56,
        b't' => 57..=57,
        b'u' => 58..=58,
        b'v' => 59..=60,
        b'w' => 61..=61,
        _ => return None,
    };
    range.into_iter().find(|&index| {
        STATIC
            .get(index - 1)
            .is_some_and(|(known, _)| known.len() == name.len() && known.eq_ignore_ascii_case(name))
    })
}

/// The static entry with this name, the first of which is at `first`, and value.
fn static_field(first: usize, value: &[u8]) -> Option<usize> {
    let (name, _) = STATIC.get(first - 1)?;
    let same = STATIC.iter().skip(first - 1).take_while(|(other, _)| other == name);
    same.enumerate().find(|(_, (_, known))| *known == value).map(|(offset, _)| first + offset)
}

fn hash(text: &[u8], case_bit: u8) -> u32 {
    let case = u64::from_le_bytes([case_bit; 8]);
    let mut state = text.len() as u64;
    let (words, tail) = text.as_chunks::<8>();
    let mut mix = |word: u64| {
        state = (state ^ (word | case)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state ^= state >> 29;
    };
    words.iter().for_each(|word| mix(u64::from_le_bytes(*word)));
    mix(tail.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)));
    (state >> 32) as u32 | 1
}

/// Appends an integer behind the bits of a field's form (section 5.1).
fn integer(number: usize, prefix_bits: u32, form: u8, out: &mut Vec<u8>) {
    let mask = (1usize << prefix_bits) - 1;
    if number < mask {
        return out.push(form | number as u8);
    }
    out.push(form | mask as u8);
    let mut rest = number - mask;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a string in its shorter form.
fn string(text: &[u8], out: &mut Vec<u8>) {
    let encoded = huffman::encoded_length(text);
    if encoded < text.len() {
        integer(encoded, 7, 0x80, out);
        huffman::encode(text, out);
    } else {
        integer(text.len(), 7, 0, out);
        out.extend_from_slice(text);
    }
}
