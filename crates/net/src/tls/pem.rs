//! PEM (RFC 7468, and the older form with header lines): sections of base64 with a label.

/// One section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    /// What stands between `-----BEGIN ` and `-----`.
    pub(crate) label: String,
    /// `DEK-Info` of an encrypted section of the older form.
    pub(crate) encryption: Option<String>,
    /// What the base64 stands for; `None` where it is damaged.
    pub(crate) der: Option<Vec<u8>>,
}

/// All sections of a text; what is around them is passed over.
pub(crate) fn sections(text: &[u8]) -> Vec<Section> {
    let mut found = Vec::new();
    let mut lines = text.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii);
    while let Some(line) = lines.next() {
        let Some(label) = label_of(line, b"-----BEGIN ") else { continue };
        let mut section = Section { label, encryption: None, der: None };
        let mut base64 = Vec::new();
        for line in lines.by_ref() {
            if let Some(label) = label_of(line, b"-----END ") {
                section.der = (label == section.label).then(|| decode(&base64)).flatten();
                break;
            }
            match line.iter().position(|byte| *byte == b':') {
                Some(_) if line.starts_with(b"DEK-Info:") => {
                    let value = line["DEK-Info:".len()..].trim_ascii();
                    section.encryption = Some(String::from_utf8_lossy(value).into_owned());
                }
                Some(_) => {}
                None => base64.extend_from_slice(line),
            }
        }
        found.push(section);
    }
    found
}

fn label_of(line: &[u8], start: &[u8]) -> Option<String> {
    let label = line.strip_prefix(start)?.strip_suffix(b"-----")?;
    Some(String::from_utf8_lossy(label).into_owned())
}

/// A section's text.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut base64 = String::with_capacity(der.len() / 3 * 4 + 4);
    for chunk in der.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = bits >> (18 - 6 * place) & 63;
            base64.push(if place <= chunk.len() { char::from(ALPHABET[index as usize]) } else { '=' });
        }
    }
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in base64.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

fn decode(base64: &[u8]) -> Option<Vec<u8>> {
    let end = base64.iter().position(|byte| *byte == b'=').unwrap_or(base64.len());
    let (digits, padding) = base64.split_at(end);
    if padding.len() > 2 || padding.iter().any(|byte| *byte != b'=') || !base64.len().is_multiple_of(4) {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 3);
    for chunk in digits.chunks(4) {
        let mut bits = 0u32;
        for digit in chunk {
            bits = bits << 6 | value_of(*digit)?;
        }
        bits <<= 6 * (4 - chunk.len());
        let bytes = bits.to_be_bytes();
        out.extend_from_slice(&bytes[1..chunk.len()]);
    }
    Some(out)
}

fn value_of(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for length in 0..200usize {
            let der: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
            let text = format!("noise\n{}more", encode("CERTIFICATE", &der));
            let expected = Section { label: "CERTIFICATE".into(), encryption: None, der: Some(der) };
            assert_eq!(sections(text.as_bytes()), [expected]);
        }
    }

    #[test]
    fn damaged_sections_are_there_without_content() {
        for (text, expected) in [
            ("-----BEGIN A-----\nAAA\n-----END A-----", None),
            ("-----BEGIN A-----\nAA*A\n-----END A-----", None),
            ("-----BEGIN A-----\nAAAA\n-----END B-----", None),
            ("-----BEGIN A-----\nAAAA\n", None),
            ("-----BEGIN A-----\r\nAAAA\r\n-----END A-----\r\n", Some(vec![0, 0, 0])),
            ("-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n\nAA==\n-----END A-----", Some(vec![0])),
        ] {
            let found = sections(text.as_bytes());
            assert_eq!(found.len(), 1, "{text}");
            assert_eq!(found[0].der, expected, "{text}");
        }
        assert!(sections(b"nothing").is_empty());
    }
}
