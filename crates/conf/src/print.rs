//! The tree as text again: one directive a line, four spaces a level, comments and single empty lines kept.

use crate::lexer::{Lexer, Token};
use crate::source::{FileId, SourceMap};
use crate::tree::{Block, Comment, Node, Tree, Word};

/// Formats a tree. Words keep the very spelling they have in their files.
pub fn print(tree: &Tree) -> Vec<u8> {
    Printer { out: Vec::new(), depth: 0, sources: Some(&tree.sources) }.root(&tree.root)
}

/// Formats directives without looking at the files they came from: words are quoted where they need it, or were before.
pub fn print_block(block: &Block) -> Vec<u8> {
    Printer { out: Vec::new(), depth: 0, sources: None }.root(block)
}

/// A spelling of a word that reads back as these bytes: bare where that is possible and quotes are not asked for.
pub fn quote(text: &[u8], quoted: bool) -> Vec<u8> {
    if !quoted {
        let bare = escape(text, None);
        if reads_as(&bare, text, false) {
            return bare;
        }
    }
    let mark = if text.contains(&b'"') && !text.contains(&b'\'') { b'\'' } else { b'"' };
    let mut out = vec![mark];
    out.extend(escape(text, Some(mark)));
    out.push(mark);
    out
}

/// Doubles the backslashes that would otherwise be taken for an escape, and escapes the quote.
fn escape(text: &[u8], mark: Option<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    for (at, byte) in text.iter().enumerate() {
        let special = match byte {
            b'\\' => matches!(text.get(at + 1), None | Some(b'"' | b'\'' | b'\\' | b't' | b'r' | b'n')),
            _ => Some(*byte) == mark,
        };
        if special {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out
}

/// Whether a spelling is exactly one word, and this one.
fn reads_as(spelling: &[u8], text: &[u8], quoted: bool) -> bool {
    let directive = [spelling, b";"].concat();
    let mut lexer = Lexer::new(&directive, FileId(0), false);
    let mut words = Vec::new();
    matches!(lexer.token(&mut words), Ok(Token::Word))
        && matches!(&words[..], [word] if word.text == text && word.quoted == quoted && word.span.start == 0)
        && matches!(lexer.token(&mut words), Ok(Token::Semicolon(at)) if at.end as usize == directive.len())
}

struct Printer<'a> {
    out: Vec<u8>,
    depth: usize,
    sources: Option<&'a SourceMap>,
}

impl Printer<'_> {
    fn root(mut self, block: &Block) -> Vec<u8> {
        self.block(block);
        self.out
    }

    fn block(&mut self, block: &Block) {
        let mut first = true;
        for node in &block.nodes {
            self.node(node, &mut first);
        }
        for comment in block.comments.iter().flat_map(|comments| &comments.at_end) {
            self.comment(comment, &mut first);
        }
    }

    fn node(&mut self, node: &Node, first: &mut bool) {
        for comment in node.comments.iter().flat_map(|comments| &comments.before) {
            self.comment(comment, first);
        }
        self.start_line(node.blank_before, first);
        self.word(&node.name);
        for word in &node.args {
            self.out.push(b' ');
            self.word(word);
        }
        match &node.block {
            None => self.out.push(b';'),
            Some(block) if block.nodes.is_empty() && block.comments.is_none() => {
                self.out.extend_from_slice(b" {}")
            }
            Some(block) => {
                self.out.extend_from_slice(b" {");
                self.trailing(
                    block
                        .comments
                        .as_ref()
                        .and_then(|comments| comments.after_open.as_ref())
                        .map(|text| text.as_slice()),
                );
                self.out.push(b'\n');
                self.depth += 1;
                self.block(block);
                self.depth -= 1;
                self.indent();
                self.out.push(b'}');
            }
        }
        self.trailing(
            node.comments.as_ref().and_then(|comments| comments.after.as_ref()).map(|text| text.as_slice()),
        );
        self.out.push(b'\n');
    }

    fn comment(&mut self, comment: &Comment, first: &mut bool) {
        self.start_line(comment.blank_before, first);
        self.out.extend_from_slice(&comment.text);
        self.out.push(b'\n');
    }

    fn trailing(&mut self, comment: Option<&[u8]>) {
        if let Some(text) = comment {
            self.out.extend_from_slice(b"  ");
            self.out.extend_from_slice(text);
        }
    }

    fn start_line(&mut self, blank_before: bool, first: &mut bool) {
        if blank_before && !*first {
            self.out.push(b'\n');
        }
        *first = false;
        self.indent();
    }

    fn indent(&mut self) {
        self.out.extend(std::iter::repeat_n(b' ', self.depth * 4));
    }

    fn word(&mut self, word: &Word) {
        let written = self.sources.map(|sources| sources.slice(word.span)).unwrap_or_default();
        // A word that was made or changed since it was read is not what its span says.
        if reads_as(written, &word.text, word.quoted) {
            self.out.extend_from_slice(written);
        } else {
            self.out.extend(quote(&word.text, word.quoted));
        }
    }
}
