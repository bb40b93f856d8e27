//! Numbers, times and bytes as text. Log lines hold several of each, and the library's formatting takes ten times as long.

/// As many digits as the largest number has.
const DIGITS_MAX: usize = 20;

/// Appends a number in decimal, with zeros before it up to `digits_min`, and says "found".
pub(crate) fn number(out: &mut Vec<u8>, value: u64, digits_min: usize) -> bool {
    let count = (value.checked_ilog10().unwrap_or(0) as usize + 1).max(digits_min).min(DIGITS_MAX);
    let mut digits = [b'0'; DIGITS_MAX];
    let mut rest = value;
    for digit in digits[..count].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    // Bytes of a fixed number are copied without a call.
    let start = out.len();
    out.extend_from_slice(&digits);
    out.truncate(start + count);
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
        for value in [0, 7, 10, 99, 100, 999, 1000, 4096, u64::from(u32::MAX), u64::MAX] {
            let (mut short, mut long, mut time) = (Vec::new(), Vec::new(), b"before ".to_vec());
            assert!(number(&mut short, value, 1) && number(&mut long, value, 3) && seconds(&mut time, value));
            assert_eq!(short, format!("{value}").into_bytes());
            assert_eq!(long, format!("{value:03}").into_bytes());
            assert_eq!(time, format!("before {}.{:03}", value / 1000, value % 1000).into_bytes());
        }
        let mut text = Vec::new();
        hexadecimal(&mut text, &[0, 9, 0x1f, 0xa0, 0xff]);
        assert_eq!(text, b"00091fa0ff");
    }
}
