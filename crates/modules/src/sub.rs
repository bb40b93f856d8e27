//! `sub_filter`: replaces texts in answers, whatever their case (nginx's manual, ngx_http_sub_module).

use crate::addition::weaken_etag;
use crate::mime::MimeTypes;
use conf::Node;
use engine::flow::{Chunk, Chunks};
use engine::module::{Declare, Install, cells, finish_nothing};
use engine::{Build, Filter, Installer, Module, Request, Transform};
use schema::value::argument;
use schema::{Directive, Flag, Inherit, Problem, field};
use template::Template;

/// nginx's limit of patterns in one place.
const PATTERNS_MAX: usize = 255;

#[derive(Default)]
struct Conf {
    pairs: Inherit<Vec<Pair>>,
    types: Inherit<MimeTypes>,
    once: Inherit<Flag>,
    last_modified: Inherit<Flag>,
}

#[derive(Clone)]
struct Pair {
    pattern: Template,
    replacement: Template,
}

pub static MODULE: Module = Module {
    name: "sub",
    directives: &[
        Directive {
            name: "sub_filter",
            default: "",
            set: &Declare {
                inherit: Some(|outer: &Conf, inner: &mut Conf| inner.pairs.inherit_from(&outer.pairs)),
                ..Declare::new(add)
            },
            doc: "A text to replace and what stands in its place.",
        },
        Directive {
            name: "sub_filter_types",
            default: "",
            set: field!(Conf.types),
            doc: "Types of answers that are searched, besides text/html.",
        },
        Directive {
            name: "sub_filter_once",
            default: "on",
            set: field!(Conf.once),
            doc: "Replace only the first occurrence of each text.",
        },
        Directive {
            name: "sub_filter_last_modified",
            default: "off",
            set: field!(Conf.last_modified),
            doc: "Keep Last-Modified.",
        },
    ],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};

fn add(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let (pattern, replacement) = (argument(node, 0)?, argument(node, 1)?);
    if pattern.text.is_empty() {
        return Err(Problem::new("empty search pattern").on(pattern));
    }
    let pairs = conf.pairs.fill(node.name.span, Vec::new);
    if pairs.len() == PATTERNS_MAX {
        return Err(Problem::new("number of search patterns exceeds 255"));
    }
    let pattern = build.template(pattern.text.as_ref()).map_err(|problem| problem.on(pattern))?;
    let replacement = build.template(replacement.text.as_ref()).map_err(|problem| problem.on(replacement))?;
    pairs.push(Pair { pattern, replacement });
    Ok(())
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    if let Some(pairs) = installer.conf::<Conf>().pairs.value() {
        let substitution = installer.once(|conf: &Conf, _| Substitution {
            pairs: pairs.clone(),
            types: (*conf.types).clone(),
            once: conf.once.0,
            last_modified: conf.last_modified.0,
        });
        installer.shared_filter(substitution);
    }
    Ok(())
}

struct Substitution {
    pairs: Vec<Pair>,
    types: MimeTypes,
    once: bool,
    last_modified: bool,
}

impl Filter for Substitution {
    fn head(&self, request: &mut Request) -> Option<Box<dyn Transform>> {
        if request.response.content_length == Some(0) || !self.types.contain(&request.response.content_type) {
            return None;
        }
        let render = |pair: &Pair| {
            let pattern = request.render(&pair.pattern).to_ascii_lowercase();
            (pattern, request.render(&pair.replacement))
        };
        let pairs = self.pairs.iter().map(render).collect::<Vec<_>>();
        let search = Search::new(pairs, self.once)?;
        if !request.subrequest && !self.last_modified {
            request.response.last_modified = None;
            request.response.fields.remove(b"Last-Modified");
            request.response.fields.remove(b"ETag");
        } else if !request.subrequest {
            weaken_etag(request);
        }
        Some(Box::new(search))
    }
}

/// The search through one body.
struct Search {
    /// Lower-cased patterns and what stands in their place; a pattern that was used up is empty.
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    once: bool,
    /// May a pattern begin with this byte?
    begins: [bool; 256],
    /// The end of what came so far, which may be the beginning of a pattern.
    held: Vec<u8>,
}

/// What is at one place of the text.
enum Found {
    Nothing,
    /// The end of what came so far may be the beginning of a pattern.
    Perhaps,
    /// The pattern of this number.
    Pattern(usize),
}

impl Search {
    /// None: there is nothing to look for.
    fn new(mut pairs: Vec<(Vec<u8>, Vec<u8>)>, once: bool) -> Option<Search> {
        pairs.retain(|(pattern, _)| !pattern.is_empty());
        if pairs.is_empty() {
            return None;
        }
        let mut search = Search { pairs, once, begins: [false; 256], held: Vec::new() };
        search.note_beginnings();
        Some(search)
    }

    fn note_beginnings(&mut self) {
        self.begins = [false; 256];
        for first in self.pairs.iter().filter_map(|(pattern, _)| pattern.first()) {
            self.begins[usize::from(*first)] = true;
            self.begins[usize::from(first.to_ascii_uppercase())] = true;
        }
    }

    /// The first pattern that stands at the beginning of the text.
    fn at(&self, text: &[u8], last: bool) -> Found {
        for (n, (pattern, _)) in self.pairs.iter().enumerate() {
            if pattern.is_empty() {
                continue;
            }
            let length = pattern.len().min(text.len());
            if !text[..length].eq_ignore_ascii_case(&pattern[..length]) {
                continue;
            }
            if length == pattern.len() {
                return Found::Pattern(n);
            }
            if !last {
                return Found::Perhaps;
            }
        }
        Found::Nothing
    }

    /// Searches what was held and what came; holds again what may be the beginning of a pattern.
    fn search(&mut self, came: &[u8], last: bool) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(came);
        let mut result = Vec::with_capacity(text.len());
        let mut at = 0;
        loop {
            let skip = text[at..].iter().position(|byte| self.begins[usize::from(*byte)]);
            let Some(skip) = skip else {
                result.extend_from_slice(&text[at..]);
                return result;
            };
            result.extend_from_slice(&text[at..at + skip]);
            at += skip;
            match self.at(&text[at..], last) {
                Found::Nothing => {
                    result.push(text[at]);
                    at += 1;
                }
                Found::Perhaps => {
                    self.held.extend_from_slice(&text[at..]);
                    return result;
                }
                Found::Pattern(n) => {
                    let (pattern, replacement) = &mut self.pairs[n];
                    at += pattern.len();
                    result.extend_from_slice(replacement);
                    if self.once {
                        pattern.clear();
                        self.note_beginnings();
                    }
                }
            }
        }
    }
}

impl Transform for Search {
    fn push(&mut self, chunk: Chunk, out: &mut Chunks) {
        let result = match &chunk {
            Chunk::Bytes(bytes) => self.search(bytes, false),
            Chunk::Flush => Vec::new(),
            // What is put in between ends whatever had begun.
            Chunk::Include(_) | Chunk::File(_) => self.search(b"", true),
        };
        if !result.is_empty() {
            out.push(Chunk::Bytes(result));
        }
        if !matches!(chunk, Chunk::Bytes(_)) {
            out.push(chunk);
        }
    }

    fn finish(&mut self, out: &mut Chunks) {
        let result = self.search(b"", true);
        if !result.is_empty() {
            out.push(Chunk::Bytes(result));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(pairs: &[(&str, &str)], once: bool, pieces: &[&str]) -> String {
        let pairs =
            pairs.iter().map(|(pattern, text)| (pattern.as_bytes().to_vec(), text.as_bytes().to_vec()));
        let mut search = Search::new(pairs.collect(), once).expect("there are patterns");
        let mut out = Chunks::new();
        for piece in pieces {
            search.push(Chunk::Bytes(piece.as_bytes().to_vec()), &mut out);
        }
        search.finish(&mut out);
        let bytes =
            out.into_iter().map(|chunk| if let Chunk::Bytes(bytes) = chunk { bytes } else { Vec::new() });
        String::from_utf8(bytes.collect::<Vec<_>>().concat()).expect("text")
    }

    #[test]
    fn texts_are_replaced_wherever_the_body_is_cut() {
        for (pairs, once, text, expected) in [
            (&[("foo", "bar")][..], true, "a FOO foo", "a bar foo"),
            (&[("foo", "bar")], false, "a FOO foofoo", "a bar barbar"),
            (&[("aab", "X")], false, "aaab aa", "aX aa"),
            (&[("abcd", "1"), ("bc", "2")], false, "abcx abcd bc", "a2x 1 2"),
            (&[("a", "1"), ("b", "2")], true, "abab", "12ab"),
            (&[("foo", "")], false, "xfoox", "xx"),
            (&[("ab", "1"), ("abc", "2")], false, "abc", "1c"),
        ] {
            assert_eq!(replaced(pairs, once, &[text]), expected, "{text}");
            for cut in 0..text.len() {
                assert_eq!(replaced(pairs, once, &[&text[..cut], &text[cut..]]), expected, "{text} at {cut}");
            }
            let bytes: Vec<&str> = (0..text.len()).map(|n| &text[n..n + 1]).collect();
            assert_eq!(replaced(pairs, once, &bytes), expected, "{text} bytewise");
        }
    }
}
