//! Numbers, times and bytes as text. Log lines hold several of each, and the library's formatting takes ten times as long.

use http::response::encode_number;

/// Appends a number in decimal, with zeros before it up to `digits_min` (1 to 20), and says "found".
pub(crate) fn number(out: &mut Vec<u8>, value: u64, digits_min: usize) -> bool {
    encode_number(value, digits_min, out);
    true
}

/// Appends seconds with three decimals and says "found".
pub(crate) fn seconds(out: &mut Vec<u8>, milliseconds: u64) -> bool {
    number(out, milliseconds / 1000, 1);
    out.push(b'.');
    number(out, milliseconds % 1000, 3)
}

/// Appends bytes in hexadecimal, small letters, and says "found".
pub(crate) fn hexadecimal(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let digit = |value: u8| b"0123456789abcdef"[usize::from(value & 15)];
    bytes.iter().for_each(|byte| out.extend_from_slice(&[digit(byte >> 4), digit(*byte)]));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_written_as_the_library_writes_them() {
        for value in [0, 7, 999, 1000, 4096, u64::MAX] {
            let mut text = b"before ".to_vec();
            assert!(seconds(&mut text, value));
            assert_eq!(text, format!("before {}.{:03}", value / 1000, value % 1000).into_bytes());
        }
        let mut text = Vec::new();
        assert!(hexadecimal(&mut text, &[0, 9, 0x1f, 0xa0, 0xff]));
        assert_eq!(text, b"00091fa0ff");
    }
}
