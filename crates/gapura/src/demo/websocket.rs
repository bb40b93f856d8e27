//! As much of WebSocket as an echo needs: the answer to the opening handshake, and frames (RFC 6455).

/// The largest payload of one frame that is echoed.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (section 4.2.2).
pub fn accept(key: &[u8]) -> String {
    let mut text = key.to_vec();
    text.extend_from_slice(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64(&sha1(&text))
}

/// What the bytes received so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Echo {
    /// No whole frame yet.
    Wait,
    /// One frame, this many bytes long, to be answered with these.
    Answer { frame_bytes: usize, answer: Vec<u8>, last: bool },
    /// Not a frame that a client may send, or too long.
    Refuse,
}

/// Answers the frame at the start of `received`: data and close frames come back as they are, a ping as a pong. A
/// message in pieces comes back in the same pieces, since the FIN bit and the opcode are kept.
pub fn echo(received: &[u8]) -> Echo {
    let &[first, second, ref rest @ ..] = received else { return Echo::Wait };
    let (length, rest) = match (second & 0x7f, rest) {
        (126, &[a, b, ref rest @ ..]) => (usize::from(u16::from_be_bytes([a, b])), rest),
        (127, &[0, 0, 0, 0, a, b, c, d, ref rest @ ..]) => (u32::from_be_bytes([a, b, c, d]) as usize, rest),
        (127, rest) if rest.len() >= 8 => return Echo::Refuse,
        (126 | 127, _) => return Echo::Wait,
        (length, rest) => (usize::from(length), rest),
    };
    if second & 0x80 == 0 || length > PAYLOAD_BYTES_MAX {
        return Echo::Refuse; // section 5.1: a client masks its frames
    }
    let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Echo::Wait };
    let Some(masked) = rest.get(..length) else { return Echo::Wait };
    let frame_bytes = received.len() - rest.len() + length;
    let opcode = first & 0x0f;
    let mut answer = Vec::new();
    if opcode != PONG {
        let first = if opcode == PING { first & 0xf0 | PONG } else { first };
        head(&mut answer, first, length);
        answer.extend(masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
    Echo::Answer { frame_bytes, answer, last: opcode == CLOSE }
}

fn head(answer: &mut Vec<u8>, first: u8, length: usize) {
    answer.push(first);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..126), _) => answer.push(length),
        (_, Ok(length)) => {
            answer.push(126);
            answer.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            answer.push(127);
            answer.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// SHA-1 (RFC 3174), which the handshake uses as a checksum and not for secrecy.
fn sha1(text: &[u8]) -> [u8; 20] {
    let mut padded = text.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - text.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let at = padded.len() - 8;
    padded[at..].copy_from_slice(&(text.len() as u64 * 8).to_be_bytes());

    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in padded.chunks_exact(64) {
        let mut words = [0u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = bytes.iter().fold(0, |word, &byte| word << 8 | u32::from(byte));
        }
        for i in 16..80 {
            words[i] = (words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (i, word) in words.iter().enumerate() {
            let (mixed, constant) = match i / 20 {
                0 => (b & c | !b & d, 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(mixed)
                .wrapping_add(e)
                .wrapping_add(constant)
                .wrapping_add(*word);
            (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
        }
        for (total, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *total = total.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let value = (0..3).fold(0, |value, i| value << 8 | u32::from(*group.get(i).unwrap_or(&0)));
        for i in 0..4 {
            let sextet = value >> (18 - 6 * i) & 0x3f;
            text.push(if i <= group.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshake_of_the_rfc() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn digests_at_every_padding() {
        for (text, digest) in [
            ("", "2jmj7l5rSw0yVb/vlWAYkK/YBwk="),
            ("abc", "qZk+NkcGgWq6PiVxeFDCbJzQ2J0="),
            ("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "hJg+RBw70m66rkqh+VEp5eVGcPE="),
        ] {
            assert_eq!(base64(&sha1(text.as_bytes())), digest, "{text}");
        }
    }

    #[test]
    fn frames() {
        let masked = |first, payload: &[u8]| {
            let mut frame = Vec::new();
            head(&mut frame, first, payload.len());
            frame[1] |= 0x80;
            frame.extend_from_slice(&[1, 2, 3, 4]);
            frame.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
            frame
        };
        for (first, answer_first, payload, last) in [
            (0x81, 0x81, &b"hello"[..], false),
            (0x01, 0x01, b"a piece", false),
            (0x82, 0x82, &[7; 300], false),
            (0x82, 0x82, &[9; PAYLOAD_BYTES_MAX], false),
            (0x89, 0x8a, b"ping", false),
            (0x88, 0x88, &[3, 232], true),
        ] {
            let frame = masked(first, payload);
            for split in [0, 1, 2, 5, frame.len() - 1] {
                assert_eq!(echo(&frame[..split]), Echo::Wait, "{first:#x} split at {split}");
            }
            let mut answer = Vec::new();
            head(&mut answer, answer_first, payload.len());
            answer.extend_from_slice(payload);
            let followed = [&frame[..], b"more"].concat();
            assert_eq!(echo(&followed), Echo::Answer { frame_bytes: frame.len(), answer, last });
        }
        assert_eq!(echo(&[0x81, 2, b'h', b'i']), Echo::Refuse, "not masked");
        assert_eq!(echo(&masked(0x82, &[0; PAYLOAD_BYTES_MAX + 1])), Echo::Refuse);
        assert_eq!(echo(&[0x82, 0xff, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Echo::Refuse);
    }
}
