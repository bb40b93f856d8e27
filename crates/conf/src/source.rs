//! Where text came from: files, spans in them, and the order in which nginx would have read them.
//!
//! A file that is included twice is two [`SourceFile`]s which share their text: each inclusion has its own place in
//! the reading order. [`dump`] prints every name once, as `nginx -T` does.

use bstr::{BStr, BString, ByteSlice};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

/// Which entry of [`SourceMap::files`] a span points into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileId(pub u32);

/// A range of bytes in one file, `start` inclusive, `end` exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// Offset of the first byte.
    pub start: u32,
    /// Offset behind the last byte.
    pub end: u32,
}

impl Span {
    /// The span from the start of `self` to the end of `last`. Where the two are in different files, `self`.
    pub fn to(self, last: Span) -> Span {
        if self.file == last.file && last.end >= self.start { Span { end: last.end, ..self } } else { self }
    }
}

/// How a file came to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The text of `-g`; it has no lines.
    CommandLine,
    /// The main configuration file.
    Main,
    /// An `include`; the span is that of the directive.
    Included(Span),
}

/// One text that was read.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// The name as nginx prints it: an absolute path, or `command line`.
    pub name: BString,
    /// The bytes, untouched.
    pub text: Arc<[u8]>,
    /// Who asked for it.
    pub origin: Origin,
}

/// All texts of a configuration, in the order in which they were opened.
#[derive(Clone, Debug, Default)]
pub struct SourceMap {
    /// The files; [`FileId`] is the index.
    pub files: Vec<SourceFile>,
}

/// The name of the `-g` text in [`SourceMap::files`] and in messages.
pub(crate) const COMMAND_LINE: &str = "command line";

impl SourceMap {
    /// The file of an id, if the id belongs to this map.
    pub fn file(&self, id: FileId) -> Option<&SourceFile> {
        self.files.get(id.0 as usize)
    }

    /// The bytes a span covers; empty when the span does not belong to this map.
    pub fn slice(&self, span: Span) -> &[u8] {
        self.file(span.file)
            .and_then(|file| file.text.get(span.start as usize..span.end as usize))
            .unwrap_or_default()
    }

    /// The line of an offset, counted from 1. An offset behind the end counts as the end.
    pub fn line_of(&self, file: FileId, offset: u32) -> u32 {
        let Some(file) = self.file(file) else { return 1 };
        let before = &file.text[..(offset as usize).min(file.text.len())];
        1 + before.iter().filter(|byte| **byte == b'\n').count() as u32
    }

    /// File name, line and column (both from 1, the column in bytes) of a span's start.
    pub fn location(&self, span: Span) -> (&BStr, u32, u32) {
        let Some(file) = self.file(span.file) else { return (BStr::new(""), 1, 1) };
        let before = &file.text[..(span.start as usize).min(file.text.len())];
        let column = before.len() - before.rfind_byte(b'\n').map_or(0, |at| at + 1);
        (file.name.as_bstr(), self.line_of(span.file, span.start), column as u32 + 1)
    }

    /// Whether the file is the `-g` text.
    pub fn is_command_line(&self, file: FileId) -> bool {
        self.file(file).is_some_and(|file| file.origin == Origin::CommandLine)
    }

    /// Which of two places nginx reaches first while it reads the configuration, includes followed in place.
    pub fn reading_order(&self, a: Span, b: Span) -> Ordering {
        self.path_to(a).cmp(&self.path_to(b))
    }

    /// The offsets that lead to a place: in the outermost file first, in the place's own file last.
    /// What was included by a directive comes before what stands behind it, hence the end of the directive's span.
    fn path_to(&self, span: Span) -> Vec<(u32, u32)> {
        let mut path = vec![(span.file.0, span.start)];
        let mut at = span.file;
        while let Some(SourceFile { origin: Origin::Included(by), .. }) = self.file(at) {
            // An included file always has a higher number than the one that includes it, so this ends.
            if by.file >= at {
                break;
            }
            path.push((by.file.0, by.start));
            at = by.file;
        }
        path.reverse();
        path
    }
}

/// What `nginx -T` prints: every file once, in the order of opening, under its name; the `-g` text is left out.
pub fn dump(sources: &SourceMap) -> Vec<u8> {
    let mut out = Vec::new();
    let mut seen = HashSet::new();
    for file in &sources.files {
        if file.origin == Origin::CommandLine || !seen.insert(&file.name) {
            continue;
        }
        out.extend_from_slice(b"# configuration file ");
        out.extend_from_slice(&file.name);
        out.extend_from_slice(b":\n");
        out.extend_from_slice(&file.text);
        out.push(b'\n');
    }
    out
}
