//! Conditional requests (RFC 9110, section 13) as nginx decides them, and entity tags.

use crate::date::parse_http;
use crate::fields::Fields;
use std::io::Write;

/// The `if_modified_since` directive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModifiedSince {
    /// `If-Modified-Since` is ignored: the answer always counts as modified.
    Off,
    /// Only the very same time counts as not modified.
    #[default]
    Exact,
    /// So does any later time.
    Before,
}

/// What becomes of a response with status 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent.
    Proceed,
    /// 304 is sent instead.
    NotModified,
    /// 412 is sent instead.
    PreconditionFailed,
}

/// Weighs the request's conditions against what would be sent, in nginx's order.
pub fn evaluate(
    request: &Fields,
    last_modified: Option<i64>,
    etag: Option<&[u8]>,
    mode: ModifiedSince,
) -> Verdict {
    let unmodified = |text: &[u8]| last_modified.is_some_and(|modified| time(text) >= modified);
    if request.get(b"If-Unmodified-Since").is_some_and(|text| !unmodified(text))
        || request.get(b"If-Match").is_some_and(|list| !matches_any(list, etag, false))
    {
        return Verdict::PreconditionFailed;
    }
    let (since, none_match) = (request.get(b"If-Modified-Since"), request.get(b"If-None-Match"));
    if since.is_none() && none_match.is_none()
        || since.is_some_and(|text| is_modified(text, last_modified, mode))
        || none_match.is_some_and(|list| !matches_any(list, etag, true))
    {
        return Verdict::Proceed;
    }
    Verdict::NotModified
}

/// May ranges be served, as far as `If-Range` is concerned? Without that field, yes.
pub fn if_range_holds(request: &Fields, last_modified: Option<i64>, etag: Option<&[u8]>) -> bool {
    match request.get(b"If-Range") {
        None => true,
        Some(text) if text.len() >= 2 && text.ends_with(b"\"") => etag == Some(text),
        Some(text) => last_modified.is_some_and(|modified| time(text) == modified),
    }
}

/// Appends the entity tag nginx makes for a file: `"5d1c6c54-264"`.
pub fn append_etag(last_modified: i64, length: u64, out: &mut Vec<u8>) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "\"{last_modified:x}-{length:x}\"");
}

/// A date that cannot be read is earlier than all others, as nginx's -1 is.
fn time(text: &[u8]) -> i64 {
    parse_http(text).unwrap_or(-1)
}

fn is_modified(text: &[u8], last_modified: Option<i64>, mode: ModifiedSince) -> bool {
    let Some(modified) = last_modified else { return true };
    let since = time(text);
    match mode {
        ModifiedSince::Off => true,
        ModifiedSince::Exact => since != modified,
        ModifiedSince::Before => since < modified,
    }
}

/// Is the entity tag one of a list, or is the list `*`?
fn matches_any(list: &[u8], etag: Option<&[u8]>, weak: bool) -> bool {
    if list == b"*" {
        return true;
    }
    let Some(etag) = etag else { return false };
    let without_mark =
        |tag: &'_ [u8]| -> usize { if weak && tag.len() > 2 && tag.starts_with(b"W/") { 2 } else { 0 } };
    let etag = etag.get(without_mark(etag)..).unwrap_or_default();
    let mut rest = list;
    while !rest.is_empty() {
        rest = rest.get(without_mark(rest)..).unwrap_or_default();
        if etag.len() > rest.len() {
            return false;
        }
        if let Some(after) = rest.strip_prefix(etag) {
            rest = skip(after, b" \t");
            if rest.is_empty() || rest.starts_with(b",") {
                return true;
            }
        }
        let comma = memchr::memchr(b',', rest).unwrap_or(rest.len());
        rest = skip(rest.get(comma..).unwrap_or_default(), b" \t,");
    }
    false
}

fn skip<'a>(text: &'a [u8], bytes: &[u8]) -> &'a [u8] {
    let count = text.iter().take_while(|byte| bytes.contains(byte)).count();
    text.get(count..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const SECONDS: i64 = 784_111_777;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect()
    }

    #[test]
    fn conditions_as_nginx_weighs_them() {
        use ModifiedSince::{Before, Exact, Off};
        use Verdict::{NotModified, PreconditionFailed, Proceed};
        type Case = (&'static [(&'static str, &'static str)], ModifiedSince, Verdict);
        let cases: &[Case] = &[
            (&[], Exact, Proceed),
            (&[("If-Modified-Since", DATE)], Exact, NotModified),
            (&[("If-Modified-Since", DATE)], Off, Proceed),
            (&[("If-Modified-Since", LATER)], Exact, Proceed),
            (&[("If-Modified-Since", LATER)], Before, NotModified),
            (&[("If-Modified-Since", EARLIER)], Before, Proceed),
            (&[("If-Modified-Since", "x")], Before, Proceed),
            (&[("If-None-Match", "\"a\"")], Exact, NotModified),
            (&[("If-None-Match", "W/\"a\"")], Exact, NotModified),
            (&[("If-None-Match", "\"b\", \"a\" , \"c\"")], Exact, NotModified),
            (&[("If-None-Match", "*")], Exact, NotModified),
            (&[("If-None-Match", "\"ab\"")], Exact, Proceed),
            (&[("If-None-Match", "\"a\"x")], Exact, Proceed),
            (&[("If-None-Match", "\"a\""), ("If-Modified-Since", LATER)], Exact, Proceed),
            (&[("If-None-Match", "\"b\""), ("If-Modified-Since", DATE)], Exact, Proceed),
            (&[("If-Match", "\"a\"")], Exact, Proceed),
            (&[("If-Match", "W/\"a\"")], Exact, PreconditionFailed),
            (&[("If-Match", "*")], Exact, Proceed),
            (&[("If-Unmodified-Since", DATE)], Exact, Proceed),
            (&[("If-Unmodified-Since", EARLIER)], Exact, PreconditionFailed),
            (&[("If-Unmodified-Since", "x")], Exact, PreconditionFailed),
            (&[("If-Unmodified-Since", DATE), ("If-None-Match", "\"a\"")], Exact, NotModified),
        ];
        for (request, mode, expected) in cases {
            let found = evaluate(&fields(request), Some(SECONDS), Some(b"\"a\""), *mode);
            assert_eq!(found, *expected, "{request:?} {mode:?}");
        }
        // A weak tag of ours matches weakly only.
        let none = fields(&[("If-None-Match", "\"a\"")]);
        assert_eq!(evaluate(&none, None, Some(b"W/\"a\""), Exact), NotModified);
        let must = fields(&[("If-Match", "\"a\"")]);
        assert_eq!(evaluate(&must, None, Some(b"W/\"a\""), Exact), PreconditionFailed);
        let since = fields(&[("If-Unmodified-Since", DATE)]);
        assert_eq!(evaluate(&since, None, None, Exact), PreconditionFailed);
    }

    #[test]
    fn if_range() {
        let cases = [
            ("\"a\"", true),
            ("\"b\"", false),
            (DATE, true),
            (LATER, false),
            ("x", false),
            ("W/\"a\"", false),
        ];
        for (text, expected) in cases {
            assert_eq!(
                if_range_holds(&fields(&[("If-Range", text)]), Some(SECONDS), Some(b"\"a\"")),
                expected
            );
        }
        assert!(if_range_holds(&Fields::new(), None, None));
        assert!(!if_range_holds(&fields(&[("If-Range", DATE)]), None, None));
    }

    #[test]
    fn tags() {
        let mut out = Vec::new();
        append_etag(0x5d1c_6c54, 612, &mut out);
        assert_eq!(out, b"\"5d1c6c54-264\"");
    }
}
