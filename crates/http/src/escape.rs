//! Percent-encoding as nginx does it, each purpose with its own set of bytes.

use crate::uri::hex;
use std::borrow::Cow;

/// What the escaped text is for; nginx's `NGX_ESCAPE_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// A path.
    Uri,
    /// A value in arguments.
    Args,
    /// Any part of a URI: everything but letters, digits, `-`, `.`, `_` and `~`.
    UriComponent,
    /// A URI in an attribute of an HTML page.
    Html,
    /// A URI in a `Refresh` element.
    Refresh,
    /// A key of memcached.
    Memcached,
}

const TABLES: [[bool; 256]; 6] = [
    table(Escape::Uri),
    table(Escape::Args),
    table(Escape::UriComponent),
    table(Escape::Html),
    table(Escape::Refresh),
    table(Escape::Memcached),
];

const fn table(kind: Escape) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = needs_escape(kind, byte as u8);
        byte += 1;
    }
    table
}

const fn needs_escape(kind: Escape, byte: u8) -> bool {
    match (kind, byte) {
        (_, 0..=b' ') => true,
        (Escape::Memcached, _) => byte == b'%',
        (_, 0x7f..=0xff) => true,
        (Escape::UriComponent, _) => {
            !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
        }
        (_, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|') => true,
        (Escape::Refresh, b'\'' | b'~') => true,
        (Escape::Refresh, _) => false,
        (_, b'#' | b'%' | b'}') => true,
        (Escape::Html, b'\'') => true,
        (Escape::Uri | Escape::Args, b'?') => true,
        (Escape::Args, b'&' | b'+' | b';') => true,
        _ => false,
    }
}

/// Appends `input` with every byte escaped that `kind` does not allow.
pub fn escape_uri(kind: Escape, input: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let Some(table) = TABLES.get(kind as usize) else { return };
    out.reserve(input.len());
    for &byte in input {
        if table[usize::from(byte)] {
            out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        } else {
            out.push(byte);
        }
    }
}

/// Would [`escape_uri`] change `input`?
pub fn has_escapes(kind: Escape, input: &[u8]) -> bool {
    TABLES.get(kind as usize).is_some_and(|table| input.iter().any(|&byte| table[usize::from(byte)]))
}

/// Where a text to be decoded comes from; nginx's `NGX_UNESCAPE_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unescape {
    /// Anything: every `%XX` is decoded.
    All,
    /// A path with arguments: decoding ends behind the first `?`.
    Uri,
    /// A redirect's target: as `Uri`, and only printable bytes above `%` are decoded.
    Redirect,
}

/// Appends `input` with `%XX` decoded and returns how many bytes of `input` that took: all of them, or up to and with
/// the `?` that ends a path. A broken `%` is dropped, as in nginx.
pub fn unescape(kind: Unescape, input: &[u8], out: &mut Vec<u8>) -> usize {
    let mut index = 0;
    while let Some(&byte) = input.get(index) {
        index += 1;
        if byte != b'%' {
            out.push(byte);
            if byte == b'?' && kind != Unescape::All {
                break;
            }
            continue;
        }
        let Some(&first) = input.get(index) else { break };
        index += 1;
        let Some(high) = hex(first) else {
            out.push(first);
            continue;
        };
        let Some(&second) = input.get(index) else { break };
        index += 1;
        let Some(low) = hex(second) else { continue };
        let decoded = high << 4 | low;
        match kind {
            // Only a "?" written with a letter digit, that is %3f, ends a path; there is no other way to write it.
            Unescape::Uri | Unescape::Redirect if decoded == b'?' => {
                out.push(decoded);
                break;
            }
            Unescape::Redirect if !(0x26..0x7f).contains(&decoded) => {
                out.extend_from_slice(&[b'%', first, second]);
            }
            _ => out.push(decoded),
        }
    }
    index
}

/// Appends `text` with `<`, `>`, `&` and `"` as HTML entities.
pub fn escape_html(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            _ => out.push(byte),
        }
    }
}

/// Splits a URI that an upstream or a configuration gave (`X-Accel-Redirect`, `try_files`, DAV's `Destination`) into a
/// decoded path and arguments. `None`: it is empty, holds NUL or leads out of the root with `..`; nginx then logs
/// `unsafe URI "..." was detected`.
pub fn split_given_uri(uri: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    if uri.is_empty() || uri.starts_with(b"?") || leads_up(uri) {
        return None;
    }
    let (path, args) = match memchr::memchr(b'?', uri) {
        Some(mark) => (uri.get(..mark)?, uri.get(mark + 1..)?),
        None => (uri, &[][..]),
    };
    if !is_safe(path) {
        return None;
    }
    if !path.contains(&b'%') {
        return Some((Cow::Borrowed(path), args));
    }
    let mut decoded = Vec::with_capacity(path.len());
    unescape(Unescape::All, path, &mut decoded);
    (!leads_up(&decoded) && is_safe(&decoded)).then_some((Cow::Owned(decoded), args))
}

/// `..` or `../x`.
fn leads_up(path: &[u8]) -> bool {
    path == b".." || path.starts_with(b"../")
}

/// Neither NUL nor a `..` segment.
fn is_safe(path: &[u8]) -> bool {
    !path.contains(&0)
        && memchr::memmem::find_iter(path, b"/..")
            .all(|place| path.get(place + 3).is_some_and(|&next| next != b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_purpose_has_its_set() {
        let printable: Vec<u8> = (b' '..=0x80).collect();
        let cases = [
            (Escape::Uri, " \"#%<>?\\^`{|}\x7f"),
            (Escape::Args, " \"#%&+;<>?\\^`{|}\x7f"),
            (Escape::UriComponent, " !\"#$%&'()*+,/:;<=>?@[\\]^`{|}\x7f"),
            (Escape::Html, " \"#%'<>\\^`{|}\x7f"),
            (Escape::Refresh, " \"'<>\\^`{|~\x7f"),
            (Escape::Memcached, " %"),
        ];
        for (kind, expected) in cases {
            let escaped: Vec<u8> =
                printable.iter().copied().filter(|&byte| byte < 0x80 && has_escapes(kind, &[byte])).collect();
            assert_eq!(String::from_utf8_lossy(&escaped), expected, "{kind:?}");
            assert_eq!(has_escapes(kind, b"\x80"), kind != Escape::Memcached);
            assert!(has_escapes(kind, b"\x1f"));
        }
        let mut out = Vec::new();
        escape_uri(Escape::Uri, b"/a b\xff", &mut out);
        assert_eq!(out, b"/a%20b%FF");
    }

    #[test]
    fn decoding_as_nginx_does() {
        let cases = [
            (Unescape::All, "a%20b?c%3Fd", "a b?c?d", 11),
            (Unescape::Uri, "a%20b?c%20d", "a b?", 6),
            (Unescape::Uri, "a%3fb", "a?", 4),
            (Unescape::Redirect, "a%20%41%2f%25?x", "a%20A/%25?", 14),
            (Unescape::All, "%zz%1z%4", "zz", 8),
            (Unescape::All, "%", "", 1),
        ];
        for (kind, input, expected, taken) in cases {
            let mut out = Vec::new();
            assert_eq!(unescape(kind, input.as_bytes(), &mut out), taken, "{input}");
            assert_eq!(String::from_utf8_lossy(&out), expected, "{input}");
        }
    }

    #[test]
    fn given_uris_stay_inside() {
        let cases: &[(&str, Option<(&str, &str)>)] = &[
            ("/a/b?c=..", Some(("/a/b", "c=.."))),
            ("/a%20b", Some(("/a b", ""))),
            ("/a/..b", Some(("/a/..b", ""))),
            ("a", Some(("a", ""))),
            ("", None),
            ("?a", None),
            ("..", None),
            ("../a", None),
            ("/a/../b", None),
            ("/a/..", None),
            ("/a/..?b", None),
            ("/%2e%2e/b", None),
            ("/a%00", None),
        ];
        for (uri, expected) in cases {
            let found =
                split_given_uri(uri.as_bytes()).map(|(path, args)| (path.into_owned(), args.to_vec()));
            let expected = expected.map(|(path, args)| (path.as_bytes().to_vec(), args.as_bytes().to_vec()));
            assert_eq!(found, expected, "{uri}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_escaped_comes_back(text in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            for kind in [Escape::Uri, Escape::Args, Escape::UriComponent] {
                let (mut escaped, mut back) = (Vec::new(), Vec::new());
                escape_uri(kind, &text, &mut escaped);
                proptest::prop_assert!(!escaped.contains(&b'?'));
                unescape(Unescape::All, &escaped, &mut back);
                proptest::prop_assert_eq!(&back, &text);
            }
        }
    }
}
