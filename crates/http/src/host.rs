//! The name a request is for: what `Host` or an absolute target says, checked and brought to one form.

/// A host that nginx would answer with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHost;

/// Where in the text the check stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Name,
    AddressLiteral,
    AddressEnd,
    Port,
}

/// Checks `text` (`name`, `name:port`, `[address]:port`) as nginx does and leaves the name in `out`: lowercase,
/// without the port and without one trailing dot. Returns the port, 0 where none was given.
///
/// # Errors
/// [`InvalidHost`] for an empty name, two dots in a row, a port above 65535 and bytes that are no part of a
/// registered name (RFC 3986, section 3.2.2).
pub fn normalise_host(text: &[u8], out: &mut Vec<u8>) -> Result<u16, InvalidHost> {
    if is_plain(text) {
        out.clear();
        out.extend_from_slice(text);
        return Ok(0);
    }
    out.clear();
    let mut state = State::Start;
    let mut length = text.len();
    let mut last_dot = None;
    let mut port: u16 = 0;
    for (index, &byte) in text.iter().enumerate() {
        if state == State::Start {
            state = if byte == b'[' { State::AddressLiteral } else { State::Name };
            if byte == b'[' {
                continue;
            }
        }
        match (state, byte) {
            (State::Name, b':') => {
                length = index;
                state = State::Port;
            }
            (State::AddressLiteral, b']') => {
                length = index + 1;
                state = State::AddressEnd;
            }
            (State::AddressLiteral, b':') | (State::Name, b'%') => {}
            (State::Name | State::AddressLiteral, b'.') => {
                if index > 0 && last_dot == Some(index - 1) {
                    return Err(InvalidHost);
                }
                last_dot = Some(index);
            }
            (State::Name | State::AddressLiteral, byte) if is_name_byte(byte) => {}
            (State::AddressEnd, b':') => state = State::Port,
            (State::Port, b'0'..=b'9') => {
                let digit = u16::from(byte - b'0');
                port = port.checked_mul(10).and_then(|port| port.checked_add(digit)).ok_or(InvalidHost)?;
            }
            _ => return Err(InvalidHost),
        }
    }
    if state == State::AddressLiteral {
        return Err(InvalidHost);
    }
    if length > 0 && last_dot == Some(length - 1) {
        length -= 1;
    }
    let name = text.get(..length).unwrap_or_default();
    if name.is_empty() {
        return Err(InvalidHost);
    }
    out.extend(name.iter().map(u8::to_ascii_lowercase));
    Ok(port)
}

/// A name in its final form already, as nearly all are: lowercase letters, digits, `-`, and dots inside that do not
/// follow one another.
fn is_plain(text: &[u8]) -> bool {
    let mut after_dot = true;
    for &byte in text {
        match PLAIN[usize::from(byte)] {
            Plain::Name => after_dot = false,
            Plain::Dot if !after_dot => after_dot = true,
            _ => return false,
        }
    }
    !after_dot
}

/// What a byte means in such a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plain {
    Name,
    Dot,
    Other,
}

const PLAIN: [Plain; 256] = {
    let mut table = [Plain::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' | b'0'..=b'9' | b'-' => Plain::Name,
            b'.' => Plain::Dot,
            _ => Plain::Other,
        };
        byte += 1;
    }
    table
};

/// Letters, digits, the other unreserved bytes and the sub-delimiters of RFC 3986.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_as_nginx_takes_them() {
        let cases: &[(&str, Option<(&str, u16)>)] = &[
            ("Example.COM", Some(("example.com", 0))),
            ("example.com.", Some(("example.com", 0))),
            ("example.com.:80", Some(("example.com", 80))),
            ("a:65535", Some(("a", 65535))),
            ("a:65536", None),
            ("a:", Some(("a", 0))),
            ("a:00080", Some(("a", 80))),
            ("a:8x", None),
            (":80", None),
            ("", None),
            (".", None),
            (".a", Some((".a", 0))),
            ("a..b", None),
            ("..", None),
            ("[::1]", Some(("[::1]", 0))),
            ("[::FFFF:1.2.3.4]:8080", Some(("[::ffff:1.2.3.4]", 8080))),
            ("[::1", None),
            ("[::1]x", None),
            ("a/b", None),
            ("a b", None),
            ("a@b", None),
            ("a_b~!$&'()*+,;=%41", Some(("a_b~!$&'()*+,;=%41", 0))),
            ("\u{e9}", None),
        ];
        let mut out = Vec::new();
        for (text, expected) in cases {
            let found = normalise_host(text.as_bytes(), &mut out);
            match expected {
                Some((name, port)) => {
                    assert_eq!(found, Ok(*port), "{text}");
                    assert_eq!(out, name.as_bytes(), "{text}");
                }
                None => assert_eq!(found, Err(InvalidHost), "{text}"),
            }
        }
    }
}
