//! The Huffman code of HPACK (RFC 7541, section 5.2 and appendix B).
//!
//! The code is canonical: the lengths of the symbols' codes tell everything, codes of one length count upwards in the
//! order of the symbols. The tables below are made from the lengths when the program is compiled.

/// How many bits each symbol takes; the last is EOS (RFC 7541, appendix B).
#[rustfmt::skip]
const BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The longest code, bits.
const BITS_MAX: usize = 30;
/// The end-of-string symbol, which no string may hold.
const EOS: u16 = 256;
/// How many bits the fast table looks at: all common symbols have shorter codes.
const FAST_BITS: u32 = 10;

/// Symbols in the order of their codes, and where the codes of each length begin.
struct Canonical {
    /// Symbols by length of code, then by number.
    symbols: [u16; 257],
    /// For each length: the first code of that length that is too large, left-aligned in 32 bits.
    limits: [u64; BITS_MAX + 1],
    /// For each length: what to add to a code to get its place in [`Canonical::symbols`].
    offsets: [i64; BITS_MAX + 1],
}

const CODES: [u32; 257] = {
    let canonical = &CANONICAL;
    let mut codes = [0; 257];
    let mut place = 0;
    while place < 257 {
        let symbol = canonical.symbols[place] as usize;
        codes[symbol] = (place as i64 - canonical.offsets[BITS[symbol] as usize]) as u32;
        place += 1;
    }
    codes
};

static CANONICAL: Canonical = {
    let mut made = Canonical { symbols: [0; 257], limits: [0; BITS_MAX + 1], offsets: [0; BITS_MAX + 1] };
    let mut place = 0;
    let mut code: u64 = 0;
    let mut bits = 1;
    while bits <= BITS_MAX {
        code <<= 1;
        made.offsets[bits] = place as i64 - code as i64;
        let mut symbol = 0;
        while symbol < 257 {
            if BITS[symbol] as usize == bits {
                made.symbols[place] = symbol as u16;
                place += 1;
                code += 1;
            }
            symbol += 1;
        }
        made.limits[bits] = code << (32 - bits);
        bits += 1;
    }
    made
};

/// Symbol and length by the next [`FAST_BITS`] bits; length 0: the code is longer.
static FAST: [(u8, u8); 1 << FAST_BITS] = {
    let mut table = [(0, 0); 1 << FAST_BITS];
    let mut symbol = 0;
    while symbol < 256 {
        let bits = BITS[symbol] as u32;
        if bits <= FAST_BITS {
            let first = (CODES[symbol] << (FAST_BITS - bits)) as usize;
            let mut index = first;
            while index < first + (1 << (FAST_BITS - bits)) {
                table[index] = (symbol as u8, bits as u8);
                index += 1;
            }
        }
        symbol += 1;
    }
    table
};

/// A string that is no Huffman code: it holds EOS, or ends in more than 7 bits or in others than ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HuffmanError;

/// Appends the decoded string, at most `bytes_max` bytes.
///
/// # Errors
/// [`HuffmanError`], also where the string is longer.
pub fn decode(input: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), HuffmanError> {
    let end = out.len().saturating_add(bytes_max);
    let mut window: u64 = 0;
    let mut count: u32 = 0;
    let mut rest = input.iter();
    loop {
        while count <= 56 {
            let Some(&byte) = rest.next() else { break };
            window |= u64::from(byte) << (56 - count);
            count += 8;
        }
        if count == 0 {
            return Ok(());
        }
        let (symbol, bits) = FAST[(window >> (64 - FAST_BITS)) as usize];
        let (symbol, bits) =
            if bits > 0 { (u16::from(symbol), u32::from(bits)) } else { long_symbol((window >> 32) as u32) };
        if bits > count {
            // Less than a symbol is left: padding, the first bits of EOS (RFC 7541, section 5.2).
            let ones = window >> (64 - count) == (1 << count) - 1;
            return if count < 8 && ones { Ok(()) } else { Err(HuffmanError) };
        }
        if symbol == EOS || out.len() >= end {
            return Err(HuffmanError);
        }
        out.push(symbol as u8);
        window <<= bits;
        count -= bits;
    }
}

/// The symbol whose code is longer than the fast table's, and its length.
fn long_symbol(window: u32) -> (u16, u32) {
    let mut bits = FAST_BITS as usize + 1;
    while bits < BITS_MAX && u64::from(window) >= CANONICAL.limits[bits] {
        bits += 1;
    }
    let code = i64::from(window >> (32 - bits));
    let place = (code + CANONICAL.offsets[bits]) as usize;
    (CANONICAL.symbols.get(place).copied().unwrap_or(EOS), bits as u32)
}

/// How many bytes the string takes when it is encoded.
pub fn encoded_length(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|&byte| usize::from(BITS[usize::from(byte)])).sum();
    bits.div_ceil(8)
}

/// Appends the encoded string.
pub fn encode(text: &[u8], out: &mut Vec<u8>) {
    let mut window: u64 = 0;
    let mut count: u32 = 0;
    for &byte in text {
        let bits = u32::from(BITS[usize::from(byte)]);
        window = window << bits | u64::from(CODES[usize::from(byte)]);
        count += bits;
        while count >= 8 {
            count -= 8;
            out.push((window >> count) as u8);
        }
    }
    if count > 0 {
        out.push((window << (8 - count)) as u8 | 0xff >> count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(input: &[u8]) -> Result<Vec<u8>, HuffmanError> {
        let mut out = Vec::new();
        decode(input, 1 << 20, &mut out).map(|()| out)
    }

    /// The examples of RFC 7541, appendix C.4 and C.6.
    #[test]
    fn strings_of_the_appendix() {
        let cases: &[(&str, &[u8])] = &[
            ("www.example.com", &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]),
            ("no-cache", &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
            ("custom-key", &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f]),
            ("302", &[0x64, 0x02]),
            ("private", &[0xae, 0xc3, 0x77, 0x1a, 0x4b]),
            ("", &[]),
        ];
        for (text, bytes) in cases {
            let mut out = Vec::new();
            encode(text.as_bytes(), &mut out);
            assert_eq!(out, *bytes, "{text}");
            assert_eq!(encoded_length(text.as_bytes()), bytes.len());
            assert_eq!(decoded(bytes).as_deref(), Ok(text.as_bytes()));
        }
    }

    #[test]
    fn padding_is_less_than_a_byte_of_ones() {
        // "0" is 00000; what follows is padding.
        assert_eq!(decoded(&[0b0000_0111]), Ok(b"0".to_vec()));
        assert_eq!(decoded(&[0b0000_0110]), Err(HuffmanError), "padded with a zero");
        assert_eq!(decoded(&[0b0000_0111, 0xff]), Err(HuffmanError), "11 bits of padding");
        assert_eq!(decoded(&[0xff]), Err(HuffmanError), "8 bits of padding");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), Err(HuffmanError), "EOS");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xfc, 0xff]), Err(HuffmanError), "EOS and more");
    }

    #[test]
    fn long_strings_end_at_the_bound() {
        let mut out = b"kept".to_vec();
        assert_eq!(decode(&[0, 0, 0, 0, 0], 7, &mut out), Err(HuffmanError));
        assert_eq!(out.len(), 4 + 7);
    }

    proptest::proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text: Vec<u8>) {
            let mut bytes = Vec::new();
            encode(&text, &mut bytes);
            proptest::prop_assert_eq!(bytes.len(), encoded_length(&text));
            proptest::prop_assert_eq!(decoded(&bytes), Ok(text));
        }

        /// There is one code for each string: whatever decodes encodes to the same bytes.
        #[test]
        fn what_is_decoded_was_the_only_code(bytes: Vec<u8>) {
            if let Ok(text) = decoded(&bytes) {
                let mut again = Vec::new();
                encode(&text, &mut again);
                proptest::prop_assert_eq!(again, bytes);
            }
        }
    }
}
