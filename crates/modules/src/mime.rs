//! Lists of MIME types that a filter works on: `sub_filter_types`, `addition_types` and their like.

use bstr::{BString, ByteSlice};
use conf::Node;
use schema::{Problem, Services, Value};

/// What is in every list.
const HTML: &[u8] = b"text/html";

/// MIME types, lower-cased; `text/html` is always among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MimeTypes {
    /// `*`: all of them.
    all: bool,
    others: Vec<BString>,
}

impl MimeTypes {
    /// `text/html` and these.
    pub fn of(others: &[&str]) -> MimeTypes {
        MimeTypes { all: false, others: others.iter().map(|kind| BString::from(*kind)).collect() }
    }

    /// Is the type of a `Content-Type` in the list? Its charset does not count, other parameters do, as in nginx.
    pub fn contain(&self, content_type: &[u8]) -> bool {
        let (kind, _) = split_charset(content_type);
        let is = |known: &[u8]| known.eq_ignore_ascii_case(kind);
        self.all || is(HTML) || self.others.iter().any(|known| is(known))
    }
}

/// A `Content-Type` without its charset, and the charset.
pub fn split_charset(content_type: &[u8]) -> (&[u8], Option<&[u8]>) {
    for (at, _) in content_type.iter().enumerate().filter(|(_, byte)| **byte == b';') {
        let parameter = content_type[at + 1..].trim_start_with(|found| found == ' ');
        let Some((name, value)) = parameter.split_at_checked(8) else { continue };
        if name.eq_ignore_ascii_case(b"charset=") {
            let value = value.strip_prefix(b"\"").unwrap_or(value);
            return (&content_type[..at], Some(value.strip_suffix(b"\"").unwrap_or(value)));
        }
    }
    (content_type, None)
}

impl Value for MimeTypes {
    fn parse(node: &Node, services: &mut dyn Services) -> Result<Self, Problem> {
        let mut made = MimeTypes::default();
        for word in &node.args {
            if word.text == "*" {
                made.all = true;
                continue;
            }
            let kind: BString = word.text.to_ascii_lowercase().into();
            if kind == HTML || made.others.contains(&kind) {
                services.warn(Problem::new(format!("duplicate MIME type \"{}\"", word.text)).on(word), node);
                continue;
            }
            made.others.push(kind);
        }
        Ok(made)
    }

    fn unset() -> Option<Self> {
        Some(MimeTypes::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charset_and_case_do_not_count() {
        let some = MimeTypes::of(&["text/css"]);
        let all = MimeTypes { all: true, others: Vec::new() };
        for (kind, in_some, in_all) in [
            ("text/html", true, true),
            ("Text/HTML; charset=utf-8", true, true),
            ("text/css;CHARSET=\"utf-8\"", true, true),
            ("text/html; level=1", false, true),
            ("text/plain", false, true),
            ("", false, true),
        ] {
            assert_eq!(some.contain(kind.as_bytes()), in_some, "{kind}");
            assert_eq!(all.contain(kind.as_bytes()), in_all, "{kind}");
        }
    }

    #[test]
    fn charsets_of_types() {
        for (text, kind, charset) in [
            ("text/html", "text/html", None),
            ("text/html; charset=utf-8", "text/html", Some("utf-8")),
            ("text/html;  Charset=\"utf-8\"", "text/html", Some("utf-8")),
            ("text/html; a=b; charset=x", "text/html; a=b", Some("x")),
            ("text/html;", "text/html;", None),
            ("text/html; charset", "text/html; charset", None),
        ] {
            assert_eq!(
                split_charset(text.as_bytes()),
                (kind.as_bytes(), charset.map(str::as_bytes)),
                "{text}"
            );
        }
    }
}
