//! Numbers, times and bytes as text. Log lines hold several of each, and the library's formatting takes ten times as long.

/// As many digits as the largest number has.
const DIGITS_MAX: usize = 20;

/// The smallest number with more than so many digits.
static BOUNDS: [u64; DIGITS_MAX] = bounds();

const fn bounds() -> [u64; DIGITS_MAX] {
    let mut bounds = [1; DIGITS_MAX];
    let mut count = 1;
    while count < DIGITS_MAX {
        bounds[count] = bounds[count - 1] * 10;
        count += 1;
    }
    bounds
}

/// Appends a number in decimal, with zeros before it up to `digits_min`, at least one, and says "found". One copy of the
/// code for all callers stays in the cache.
#[inline(never)]
pub(crate) fn number(out: &mut Vec<u8>, value: u64, digits_min: usize) -> bool {
    let mut count = digits_min;
    while BOUNDS.get(count).is_some_and(|bound| value >= *bound) {
        count += 1;
    }
    let start = out.len();
    // Bytes of a fixed number are written without a call.
    out.extend_from_slice(&[b'0'; DIGITS_MAX]);
    out.truncate(start + count);
    let mut rest = value;
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
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
