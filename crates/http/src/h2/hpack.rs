//! Header compression (RFC 7541): what a field list looks like on the wire, in both directions.
//!
//! Nothing is allocated per field once the buffers have grown: table entries live in one buffer that is compacted now
//! and then, decoded strings in two that are used again.

use super::huffman;
use std::collections::VecDeque;

mod encoder;
mod table;

pub use encoder::Encoder;
use table::{STATIC, Table};

/// What the dynamic table may take unless a SETTINGS frame says otherwise, bytes (RFC 7541, section 4.2).
pub const TABLE_BYTES_DEFAULT: usize = 4096;
/// What a table entry costs beside its bytes (RFC 7541, section 4.1).
const ENTRY_OVERHEAD_BYTES: usize = 32;

/// Why a header block cannot be decoded. All but the last two are COMPRESSION_ERROR (RFC 9113, section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpackError {
    /// The block ends within a field.
    Truncated,
    /// An index of 0 or behind the end of the table (section 2.3.3).
    Index,
    /// An integer that is too large, or longer than it has to be by more than is of use (section 5.1).
    Integer,
    /// A string whose Huffman code is broken (section 5.2).
    Huffman,
    /// A table size above the announced one, or not at the start of a block (sections 4.2 and 6.3).
    TableSize,
    /// After the acknowledgement of a smaller table the block does not begin with its size (section 4.2).
    TableSizeMissing,
    /// A name or value takes more bytes, as it is encoded, than the caller allows.
    StringTooLarge,
    /// The fields together are larger than the caller allows.
    ListTooLarge,
}

/// How large the fields of a block may be.
#[derive(Clone, Copy, Debug)]
pub struct FieldBounds {
    /// A name or a value, as it is encoded, bytes.
    pub string_bytes_max: usize,
    /// All names and values together, bytes.
    pub list_bytes_max: usize,
}

/// Decodes the header blocks of one direction of a connection.
#[derive(Clone, Debug)]
pub struct Decoder {
    table: Table,
    /// What the peer may set the table to: our SETTINGS_HEADER_TABLE_SIZE, bytes.
    table_bytes_max: usize,
    /// The peer has to begin its next block with a size of at most [`Decoder::table_bytes_max`].
    size_is_owed: bool,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new(TABLE_BYTES_DEFAULT)
    }
}

/// What the first bits of a field say (RFC 7541, section 6).
enum Form {
    Indexed,
    Literal { keep: bool },
    TableSize,
}

impl Decoder {
    /// A decoder whose table may grow to that many bytes.
    pub fn new(table_bytes_max: usize) -> Decoder {
        Decoder {
            table: Table::new(table_bytes_max),
            table_bytes_max,
            size_is_owed: false,
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// The peer has acknowledged a new size for the table, bytes.
    pub fn set_table_bytes_max(&mut self, bytes: usize) {
        self.size_is_owed = bytes < self.table.bytes_max();
        self.table_bytes_max = bytes;
    }

    /// Decodes a whole block and gives each field to `field`.
    ///
    /// # Errors
    /// See [`HpackError`]. The connection cannot go on after one.
    pub fn decode(
        &mut self,
        block: &[u8],
        bounds: FieldBounds,
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), HpackError> {
        let mut input = block;
        let mut left = bounds.list_bytes_max;
        let mut at_start = true;
        let mut take = |name: &[u8], value: &[u8]| {
            left = left.checked_sub(name.len() + value.len()).ok_or(HpackError::ListTooLarge)?;
            field(name, value);
            Ok(())
        };
        while let Some(&first) = input.first() {
            let (form, prefix_bits) = match first {
                0x80.. => (Form::Indexed, 7),
                0x40..=0x7f => (Form::Literal { keep: true }, 6),
                0x20..=0x3f => (Form::TableSize, 5),
                _ => (Form::Literal { keep: false }, 4),
            };
            let number = integer(&mut input, prefix_bits)?;
            match form {
                Form::TableSize if at_start && number <= self.table_bytes_max => {
                    self.table.set_bytes_max(number);
                    self.size_is_owed = false;
                    continue;
                }
                Form::TableSize => return Err(HpackError::TableSize),
                _ if std::mem::take(&mut self.size_is_owed) => return Err(HpackError::TableSizeMissing),
                Form::Indexed => {
                    let (name, value) = self.table.at(number).ok_or(HpackError::Index)?;
                    take(name, value)?;
                }
                Form::Literal { keep } => {
                    if number == 0 {
                        string(&mut input, bounds, &mut self.name)?;
                    } else {
                        let (name, _) = self.table.at(number).ok_or(HpackError::Index)?;
                        self.name.clear();
                        self.name.extend_from_slice(name);
                    }
                    string(&mut input, bounds, &mut self.value)?;
                    take(&self.name, &self.value)?;
                    if keep {
                        self.table.insert(&self.name, &self.value);
                    }
                }
            }
            at_start = false;
        }
        Ok(())
    }
}

/// Reads an integer (section 5.1). More than four bytes behind the prefix are of no use and refused.
fn integer(input: &mut &[u8], prefix_bits: u32) -> Result<usize, HpackError> {
    const BYTES_MAX: u32 = 4;
    let (&first, mut rest) = input.split_first().ok_or(HpackError::Truncated)?;
    let mask = (1usize << prefix_bits) - 1;
    let mut number = usize::from(first) & mask;
    if number == mask {
        let mut count = 0;
        loop {
            let (&byte, behind) = rest.split_first().ok_or(HpackError::Truncated)?;
            rest = behind;
            number += usize::from(byte & 0x7f) << (7 * count);
            count += 1;
            if byte < 0x80 {
                break;
            }
            if count == BYTES_MAX {
                return Err(HpackError::Integer);
            }
        }
    }
    *input = rest;
    Ok(number)
}

/// Reads a string (section 5.2) into `out`.
fn string(input: &mut &[u8], bounds: FieldBounds, out: &mut Vec<u8>) -> Result<(), HpackError> {
    out.clear();
    let is_huffman = input.first().ok_or(HpackError::Truncated)? & 0x80 != 0;
    let length = integer(input, 7)?;
    if length > bounds.string_bytes_max {
        return Err(HpackError::StringTooLarge);
    }
    let text = input.get(..length).ok_or(HpackError::Truncated)?;
    *input = input.get(length..).unwrap_or_default();
    let bytes_max = bounds.list_bytes_max;
    // The shortest code has 5 bits: what cannot fit is not decoded.
    if !is_huffman && length > bytes_max {
        return Err(HpackError::ListTooLarge);
    }
    if is_huffman {
        huffman::decode(text, bytes_max, out)
            .map_err(|_| if out.len() >= bytes_max { HpackError::ListTooLarge } else { HpackError::Huffman })
    } else {
        out.extend_from_slice(text);
        Ok(())
    }
}
