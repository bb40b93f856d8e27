//! The parser's messages: nginx's words, and what we add to them.

use crate::diagnostic::{Diagnostic, Level};
use crate::files::FileError;
use crate::source::Span;
use crate::tree::{Node, Word};
use bstr::{BStr, BString};

/// EISDIR: a folder can be opened, but not read.
const IS_A_DIRECTORY: i32 = 21;

/// `before "middle" after`, where the middle need not be text. A NUL ends it, as in C.
fn quoting(before: &str, middle: &[u8], after: &str) -> BString {
    let middle = middle.split(|byte| *byte == 0).next().unwrap_or_default();
    quoting_all(before, middle, after)
}

fn quoting_all(before: &str, middle: &[u8], after: &str) -> BString {
    BString::from([before.as_bytes(), b"\"", middle, b"\"", after.as_bytes()].concat())
}

fn unexpected(id: &'static str, byte: u8, at: Span) -> Diagnostic {
    Diagnostic::emerg(id, quoting_all("unexpected ", &[byte], "")).at(at)
}

/// `;` without a directive.
pub(crate) fn empty_directive(at: Span) -> Diagnostic {
    unexpected("unexpected-semicolon", b';', at).help("no directive ends here: remove it")
}

/// `{` without a directive.
pub(crate) fn nameless_block(at: Span) -> Diagnostic {
    unexpected("unexpected-open", b'{', at).help("a block needs a name before its \"{\"")
}

/// `}` after words.
pub(crate) fn missing_semicolon(words: &[Word], at: Span) -> Diagnostic {
    let diagnostic = unexpected("missing-semicolon", b'}', at);
    match words {
        [.., last] => diagnostic.label(after(last.span), "a \";\" is missing here"),
        [] => diagnostic,
    }
}

/// `}` without a block. `suspect` is a block that ends with such a brace deeper than it begins.
pub(crate) fn superfluous_close(at: Span, suspect: Option<(Span, Span)>) -> Diagnostic {
    let diagnostic = unexpected("unexpected-close", b'}', at).help("no block is open here any more");
    match suspect {
        Some((open, close)) => diagnostic
            .label(open, "this block ...")
            .label(close, "... ends here, at a \"}\" that is indented deeper"),
        None => diagnostic,
    }
}

/// Something glued to a closing quote.
pub(crate) fn after_quote(byte: u8, word: Span, at: Span) -> Diagnostic {
    unexpected("text-after-quote", byte, at)
        .label(word, "this word ends at its closing quote")
        .help("a closing quote is followed by a space, \";\", \"{\" or \")\"; is a quote missing further up?")
}

/// The end of the text after words.
pub(crate) fn unexpected_end(command_line: bool, words: &[Word], at: Span) -> Diagnostic {
    let diagnostic = end(command_line, at);
    match words {
        [.., last] => diagnostic.label(after(last.span), "a \";\" is missing here"),
        [] => diagnostic,
    }
}

/// The end of the text within a word.
pub(crate) fn end_in_word(command_line: bool, quote: Option<Span>, at: Span) -> Diagnostic {
    match quote {
        Some(quote) => end(command_line, at).label(quote, "this quote is never closed"),
        None => end(command_line, at).label(at, "a \";\" is missing here"),
    }
}

fn end(command_line: bool, at: Span) -> Diagnostic {
    let message = if command_line {
        "unexpected end of parameter, expecting \";\""
    } else {
        "unexpected end of file, expecting \";\" or \"}\""
    };
    Diagnostic::emerg("unexpected-end", message).at(at)
}

/// The end of the text within a block. `suspect` is a block that ends with a brace less deep than it begins.
pub(crate) fn missing_close(open: Span, at: Span, suspect: Option<(Span, Span)>) -> Diagnostic {
    let diagnostic = Diagnostic::emerg("missing-close", "unexpected end of file, expecting \"}\"").at(at);
    match suspect {
        Some((open, close)) => diagnostic
            .label(open, "this block ...")
            .label(close, "... ends here, at a \"}\" that is indented less"),
        None => diagnostic.label(open, "this block is never closed"),
    }
}

/// A block in the `-g` text.
pub(crate) fn command_line_block(at: Span) -> Diagnostic {
    Diagnostic::emerg("command-line-block", "block directives are not supported in -g option").at(at)
}

/// A word that does not fit into nginx's buffer.
pub(crate) fn too_long(quote: Option<u8>, start: &[u8], at: Span) -> Diagnostic {
    match quote {
        Some(quote) => {
            let message =
                quoting_all("too long parameter, probably missing terminating ", &[quote], " character");
            Diagnostic::emerg("unclosed-quote", message).at(at).label(at, "is this quote ever closed?")
        }
        None => {
            let message = [b"too long parameter \"", start, b"...\" started"].concat();
            Diagnostic::emerg("too-long-word", message)
                .at(at)
                .help("words and comments have at most 4095 bytes")
        }
    }
}

/// Braces within braces within braces.
pub(crate) fn too_deep(depth_max: usize, at: Span) -> Diagnostic {
    Diagnostic::emerg("block-depth", format!("blocks are nested deeper than {depth_max}")).at(at)
}

/// The main file cannot be read.
pub(crate) fn cannot_read(path: &BStr, error: FileError) -> Diagnostic {
    if error.errno == IS_A_DIRECTORY {
        return Diagnostic::new("read-file", Level::Crit, quoting("pread() ", path, " failed"))
            .os_error(error);
    }
    Diagnostic::emerg("open-file", quoting("open() ", path, " failed")).os_error(error)
}

/// An included file cannot be read.
pub(crate) fn cannot_include(path: &BStr, node: &Node, error: FileError) -> Diagnostic {
    let directory = error.errno == IS_A_DIRECTORY;
    let diagnostic = cannot_read(path, error).at(argument(node)).line(node.end);
    if directory {
        diagnostic.bare().help("to include all files of a folder, end the path in \"/*.conf\"")
    } else {
        diagnostic
    }
}

/// A pattern cannot be looked up.
pub(crate) fn cannot_glob(path: &BStr, node: &Node, error: FileError) -> Diagnostic {
    Diagnostic::emerg("glob", quoting("glob() ", path, " failed"))
        .os_error(error)
        .at(argument(node))
        .line(node.end)
}

/// A file that includes itself, maybe by way of others; nginx runs out of descriptors over it.
pub(crate) fn include_loop(path: &BStr, node: &Node, certain: bool) -> Diagnostic {
    let error = FileError { errno: 24, message: "Too many open files".to_owned() };
    let help = if certain {
        "this file includes itself, directly or through others"
    } else {
        "includes are nested too deep"
    };
    cannot_include(path, node, error).help(help)
}

/// More files than anybody has.
pub(crate) fn too_many_files(node: &Node, files_max: usize, bytes_max: usize) -> Diagnostic {
    let message = format!("more than {files_max} files or {bytes_max} bytes are included");
    Diagnostic::emerg("include-bound", message).at(argument(node)).line(node.end)
}

fn argument(node: &Node) -> Span {
    node.args.first().map_or(node.name.span, |word| word.span)
}

/// The empty span behind another one.
fn after(span: Span) -> Span {
    Span { start: span.end, ..span }
}
