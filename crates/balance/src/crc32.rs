//! The CRC-32 of Ethernet and zlib, on which nginx's hash methods rest, and of two strings joined.

const POLYNOMIAL: u32 = 0xedb8_8320;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
};

/// The checksum of `bytes`.
pub fn crc32(bytes: &[u8]) -> u32 {
    !update(u32::MAX, bytes)
}

/// Goes on with a checksum that is not finished: it begins as all ones and ends inverted.
pub(crate) fn update(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

/// The checksum of two strings joined, from theirs and the length of the second: a request need not keep its key.
pub(crate) fn joined(first: u32, second: u32, second_bytes: u64) -> u32 {
    multiply(power_of_256(second_bytes), first) ^ second
}

/// x to the power of eight times `exponent`, modulo the polynomial; bit 31 is x to the power of 0.
fn power_of_256(mut exponent: u64) -> u32 {
    let mut square = 1 << 23;
    let mut power = 1 << 31;
    while exponent > 0 {
        if exponent & 1 == 1 {
            power = multiply(square, power);
        }
        square = multiply(square, square);
        exponent >>= 1;
    }
    power
}

/// The product of two polynomials over GF(2), modulo the polynomial.
fn multiply(left: u32, mut right: u32) -> u32 {
    (0..32).rev().fold(0, |product, bit| {
        let product = if left >> bit & 1 == 1 { product ^ right } else { product };
        right = if right & 1 == 1 { right >> 1 ^ POLYNOMIAL } else { right >> 1 };
        product
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_checksums() {
        assert_eq!(crc32(b""), 0);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b"The quick brown fox jumps over the lazy dog"), 0x414f_a339);
    }

    proptest! {
        #[test]
        fn joining_checksums_is_joining_strings(first: Vec<u8>, second: Vec<u8>) {
            let both = [first.clone(), second.clone()].concat();
            prop_assert_eq!(joined(crc32(&first), crc32(&second), second.len() as u64), crc32(&both));
        }
    }
}
