//! Request targets: from what a client sent to the path that locations and files are looked up by.

use crate::fields::Span;

pub use crate::escape::{Escape, Unescape, escape_html, escape_uri, has_escapes, split_given_uri, unescape};

/// What [`normalise`] found beside the path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UriParts {
    /// What follows the first `?`, without a fragment, as a range of the target; empty: none.
    pub args: Span,
    /// The extension of the path's last segment, without its dot, as a range of the path; empty: none.
    pub exten: Span,
    /// The path holds a `%XX`.
    pub quoted: bool,
    /// The path holds a `+`.
    pub plus: bool,
    /// The target has no path (`?args` after an absolute target's host): it cannot be passed on as it came.
    pub empty_path: bool,
}

/// A target that nginx answers with 400: a broken or zero `%XX`, or `..` above the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UriError;

/// Decodes and simplifies the path of `target` into `path`, which is cleared first: `%XX` becomes its byte, `/./`
/// and `/../` are resolved, `//` becomes `/` when `merge_slashes` says so, a fragment is dropped. An encoded slash,
/// dot or plus counts as if it had been written plainly; an encoded `?`, `#` or `%` is only a character.
///
/// # Errors
/// [`UriError`] where nginx says `client sent invalid request`.
pub fn normalise(target: &[u8], merge_slashes: bool, path: &mut Vec<u8>) -> Result<UriParts, UriError> {
    path.clear();
    match plain(target) {
        Some((length, mut parts)) => {
            path.extend_from_slice(target.get(..length).unwrap_or_default());
            if length < target.len() {
                parts.args = args_from(target, length + 1);
            }
            Ok(parts)
        }
        None => Normaliser { path, exten: None, parts: UriParts::default() }.run(target, merge_slashes),
    }
}

/// The length of the path if it may be taken as it is.
fn plain(target: &[u8]) -> Option<(usize, UriParts)> {
    let mut parts = UriParts::default();
    let mut exten = None;
    let mut previous = 0;
    if target.first() != Some(&b'/') {
        return None;
    }
    let mut length = target.len();
    for (index, &byte) in target.iter().enumerate() {
        if IS_PLAIN[usize::from(byte)] {
            previous = byte;
            continue;
        }
        match byte {
            b'/' if previous == b'/' => return None,
            b'/' => exten = None,
            b'.' if previous == b'/' => return None,
            b'.' => exten = Some(index + 1),
            // The byte after a slash decides, so that a plus there hides nothing.
            b'+' => parts.plus = true,
            b'?' => {
                length = index;
                break;
            }
            _ => return None,
        }
        previous = byte;
    }
    if let Some(start) = exten {
        parts.exten = Span::new(start, length);
    }
    Some((length, parts))
}

/// Every byte but `% # ? . + /`.
const IS_PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let special = b"%#?.+/";
    let mut index = 0;
    while index < special.len() {
        plain[special[index] as usize] = false;
        index += 1;
    }
    plain
};

fn args_from(target: &[u8], start: usize) -> Span {
    let args = target.get(start..).unwrap_or_default();
    Span::new(start, start + memchr::memchr(b'#', args).unwrap_or(args.len()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Usual,
    Slash,
    Dot,
    DotDot,
}

/// The full treatment, a byte at a time.
struct Normaliser<'a> {
    path: &'a mut Vec<u8>,
    exten: Option<usize>,
    parts: UriParts,
}

impl Normaliser<'_> {
    fn run(mut self, target: &[u8], merge_slashes: bool) -> Result<UriParts, UriError> {
        let mut state = State::Usual;
        let mut index = 0;
        if target.first().is_none_or(|&byte| byte == b'?') {
            self.path.push(b'/');
            self.parts.empty_path = true;
        }
        while let Some(&byte) = target.get(index) {
            index += 1;
            match byte {
                b'%' => {
                    let decoded = decode(target.get(index..).unwrap_or_default())?;
                    index += 2;
                    self.parts.quoted = true;
                    state = match decoded {
                        b'%' | b'#' | b'?' => {
                            self.path.push(decoded);
                            State::Usual
                        }
                        _ => self.byte(state, decoded, merge_slashes)?,
                    };
                }
                b'?' => {
                    self.end_of_path(state)?;
                    self.parts.args = args_from(target, index);
                    return Ok(self.finish());
                }
                b'#' => break,
                _ => state = self.byte(state, byte, merge_slashes)?,
            }
        }
        self.end_of_path(state)?;
        Ok(self.finish())
    }

    /// Takes one byte of the path, decoded if it had to be.
    fn byte(&mut self, state: State, byte: u8, merge_slashes: bool) -> Result<State, UriError> {
        if byte == b'+' {
            self.parts.plus = true;
        }
        Ok(match (state, byte) {
            (State::Usual, b'/') => {
                self.exten = None;
                self.path.push(byte);
                State::Slash
            }
            (State::Usual, b'.') => {
                self.path.push(byte);
                self.exten = Some(self.path.len());
                State::Usual
            }
            (State::Slash, b'/') => {
                if !merge_slashes {
                    self.path.push(byte);
                }
                State::Slash
            }
            (State::Slash, b'.') => {
                self.path.push(byte);
                State::Dot
            }
            (State::Dot, b'.') => {
                self.path.push(byte);
                State::DotDot
            }
            (State::Dot | State::DotDot, b'/') => {
                self.end_of_path(state)?;
                State::Slash
            }
            _ => {
                self.path.push(byte);
                State::Usual
            }
        })
    }

    /// Resolves a `.` or `..` that turned out to be a whole segment.
    fn end_of_path(&mut self, state: State) -> Result<(), UriError> {
        match state {
            State::Usual | State::Slash => {}
            State::Dot => {
                self.path.pop();
            }
            State::DotDot => {
                // "/..": what is before this slash loses its last segment.
                let parent = self.path.len().checked_sub(3).ok_or(UriError)?;
                let before = self.path.get(..parent).unwrap_or_default();
                let slash = memchr::memrchr(b'/', before).ok_or(UriError)?;
                self.path.truncate(slash + 1);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> UriParts {
        if let Some(start) = self.exten {
            self.parts.exten = Span::new(start, self.path.len());
        }
        self.parts
    }
}

/// The byte that two hexadecimal digits stand for; NUL is refused.
fn decode(digits: &[u8]) -> Result<u8, UriError> {
    match digits {
        [high, low, ..] => match (hex(*high), hex(*low)) {
            (Some(high), Some(low)) if high | low != 0 => Ok(high << 4 | low),
            _ => Err(UriError),
        },
        _ => Err(UriError),
    }
}

/// The value of a hexadecimal digit.
pub(crate) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(target: &str, merge_slashes: bool) -> Option<(String, String, String)> {
        let mut path = Vec::new();
        let parts = normalise(target.as_bytes(), merge_slashes, &mut path).ok()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some((text(&path), text(parts.args.of(target.as_bytes())), text(parts.exten.of(&path))))
    }

    #[test]
    fn targets_as_nginx_takes_them() {
        type Found = Option<(&'static str, &'static str, &'static str)>;
        let cases: &[(&str, Found)] = &[
            ("/", Some(("/", "", ""))),
            ("/a.b/c.html?x=1", Some(("/a.b/c.html", "x=1", "html"))),
            ("/a?b#c", Some(("/a", "b", ""))),
            ("/a?b?c=/../%00", Some(("/a", "b?c=/../%00", ""))),
            ("/a#b?c", Some(("/a", "", ""))),
            ("/a?", Some(("/a", "", ""))),
            ("/a//b", Some(("/a/b", "", ""))),
            ("//a", Some(("/a", "", ""))),
            ("/a/./b/.", Some(("/a/b/", "", ""))),
            ("/a/b/../c", Some(("/a/c", "", ""))),
            ("/a/b/..", Some(("/a/", "", ""))),
            ("/a/b/..?x", Some(("/a/", "x", ""))),
            ("/a/..", Some(("/", "", ""))),
            ("/..", None),
            ("/../a", None),
            ("/a/../../b", None),
            ("/a/...", Some(("/a/...", "", ""))),
            ("/..a.b", Some(("/..a.b", "", "b"))),
            ("/.htaccess", Some(("/.htaccess", "", ""))),
            ("/a.b/", Some(("/a.b/", "", ""))),
            ("/%41%62", Some(("/Ab", "", ""))),
            ("/a%2Fb%2e%2e", Some(("/a/b..", "", ""))),
            ("/a/%2E%2e/b", Some(("/b", "", ""))),
            ("/a%2f..%2fb", Some(("/b", "", ""))),
            ("/a%3Fb", Some(("/a?b", "", ""))),
            ("/a%23b%25c", Some(("/a#b%c", "", ""))),
            ("/a%2", None),
            ("/a%", None),
            ("/a%zz", None),
            ("/a%00", None),
            ("/a%2f%2f%2fb.%63", Some(("/a/b.c", "", "c"))),
            ("/+a+.b", Some(("/+a+.b", "", "b"))),
            ("?x", Some(("/", "x", ""))),
            ("", Some(("/", "", ""))),
        ];
        for (target, expected) in cases {
            let expected = expected.map(|(a, b, c)| (a.to_string(), b.to_string(), c.to_string()));
            assert_eq!(check(target, true), expected, "{target}");
        }
        assert_eq!(check("//a///b/..//.", false).map(|found| found.0).as_deref(), Some("//a////"));
    }

    proptest::proptest! {
        #[test]
        fn the_short_way_is_the_long_way(target in "/[a-c./+?#]{0,12}", merge in proptest::bool::ANY) {
            let mut short = Vec::new();
            let mut long = Vec::new();
            let ours = normalise(target.as_bytes(), merge, &mut short);
            let theirs = Normaliser { path: &mut long, exten: None, parts: UriParts::default() }
                .run(target.as_bytes(), merge);
            proptest::prop_assert_eq!(ours, theirs);
            if ours.is_ok() {
                proptest::prop_assert_eq!(short, long);
            }
        }

        #[test]
        fn a_path_is_rooted_and_without_dots(target in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            let mut path = Vec::new();
            let mut rooted = vec![b'/'];
            rooted.extend_from_slice(&target);
            if normalise(&rooted, true, &mut path).is_ok() {
                proptest::prop_assert_eq!(path.first(), Some(&b'/'));
                for segment in path.split(|&byte| byte == b'/') {
                    proptest::prop_assert!(segment != b".." && segment != b".");
                }
            }
        }
    }
}
