//! Lists of MIME types that a filter works on: `sub_filter_types`, `addition_types` and their like.

use bstr::BString;
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
    /// Is a `Content-Type`, parameters and all, in the list?
    pub fn contain(&self, content_type: &[u8]) -> bool {
        let bare = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is = |kind: &[u8]| kind.eq_ignore_ascii_case(bare);
        self.all || is(HTML) || self.others.iter().any(|kind| is(kind))
    }
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
    fn parameters_and_case_do_not_count() {
        let some = MimeTypes { all: false, others: vec!["text/css".into()] };
        let all = MimeTypes { all: true, others: Vec::new() };
        for (kind, in_some, in_all) in [
            ("text/html", true, true),
            ("Text/HTML; charset=utf-8", true, true),
            ("text/css ;x", true, true),
            ("text/plain", false, true),
            ("", false, true),
        ] {
            assert_eq!(some.contain(kind.as_bytes()), in_some, "{kind}");
            assert_eq!(all.contain(kind.as_bytes()), in_all, "{kind}");
        }
    }
}
