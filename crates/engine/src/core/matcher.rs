//! How a location is found: the words behind `location`.

use crate::module::{Build, CompiledRegex};
use bstr::{BStr, BString, ByteSlice};
use schema::Problem;

/// How a location is found.
#[derive(Clone)]
pub enum Matcher {
    /// `= /x`.
    Exact(BString),
    /// `/x`, or `^~ /x` which ends the search before regexes.
    Prefix {
        /// The prefix.
        path: BString,
        /// `^~`.
        final_: bool,
    },
    /// `~ re`, `~* re`.
    Regex {
        /// Compiled.
        regex: CompiledRegex,
        /// As written.
        text: BString,
    },
    /// `@name`.
    Named(BString),
}

impl Matcher {
    /// Is there no prefix of the URI that could be replaced by another?
    pub fn is_nameless(&self) -> bool {
        matches!(self, Matcher::Regex { .. } | Matcher::Named(_))
    }

    /// Reads a location's words: a modifier and a URI, or both glued together.
    ///
    /// # Errors
    /// As nginx.
    pub fn parse(args: &[conf::Word], build: &mut Build) -> Result<Matcher, Problem> {
        let (modifier, uri, word) = match args {
            [modifier, uri] => {
                let known: [&[u8]; 4] = [b"=", b"^~", b"~", b"~*"];
                if !known.contains(&&modifier.text[..]) {
                    let text = format!("invalid location modifier \"{}\"", modifier.text);
                    return Err(Problem::new(text).on(modifier));
                }
                (&modifier.text[..], &uri.text[..], uri)
            }
            [word] => {
                let text = &word.text[..];
                let glued: [&[u8]; 4] = [b"=", b"^~", b"~*", b"~"];
                let found = glued.into_iter().find(|glued| text.starts_with(glued)).unwrap_or(b"");
                (found, &text[found.len()..], word)
            }
            _ => return Err(Problem::new("invalid number of arguments in \"location\" directive")),
        };
        Ok(match modifier {
            b"=" => Matcher::Exact(uri.into()),
            b"^~" => Matcher::Prefix { path: uri.into(), final_: true },
            b"~" | b"~*" => {
                let regex =
                    build.regex(uri.as_bstr(), modifier == b"~*").map_err(|problem| problem.on(word))?;
                Matcher::Regex { regex, text: uri.into() }
            }
            _ if uri.starts_with(b"@") => Matcher::Named(uri.into()),
            _ => Matcher::Prefix { path: uri.into(), final_: false },
        })
    }

    /// The location's name as nginx prints it: without modifier.
    pub fn name(&self) -> &BStr {
        match self {
            Matcher::Exact(name) | Matcher::Named(name) => name.as_ref(),
            Matcher::Prefix { path, .. } => path.as_ref(),
            Matcher::Regex { text, .. } => text.as_ref(),
        }
    }
}
