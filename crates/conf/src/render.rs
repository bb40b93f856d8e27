//! Diagnostics as text: the line nginx would print, and a snippet of the file for people.

use crate::diagnostic::{Diagnostic, Level};
use crate::source::{FileId, SourceMap, Span};
use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Renderer, Snippet};
use bstr::{BString, ByteSlice};
use std::collections::BTreeMap;
use std::ops::Range;

/// nginx cuts a message here, in bytes, before it adds file and line.
pub const MESSAGE_BYTES_MAX: usize = 1024;
/// What nginx keeps free for the error number, in bytes.
const OS_ERROR_BYTES: usize = 50;
/// Most bytes of a line that a snippet shows before and behind what it marks.
const LINE_BYTES_MAX: usize = 4096;
/// Marks further apart than this get snippets of their own.
const SNIPPET_BYTES_MAX: usize = 64 << 10;

/// nginx's line without its prefix `nginx: `: `[emerg] unexpected "}" in /etc/nginx/nginx.conf:3`.
pub fn render_nginx(diagnostic: &Diagnostic, sources: &SourceMap) -> BString {
    let mut message = diagnostic.message.to_vec();
    message.truncate(MESSAGE_BYTES_MAX);
    if let Some(error) = &diagnostic.os_error {
        if message.len() > MESSAGE_BYTES_MAX - OS_ERROR_BYTES {
            message.truncate(MESSAGE_BYTES_MAX - OS_ERROR_BYTES);
            message.extend_from_slice(b"...");
        }
        message.extend_from_slice(format!(" ({}: {})", error.errno, error.message).as_bytes());
        message.truncate(MESSAGE_BYTES_MAX);
    }
    let mut line = format!("[{}] ", diagnostic.level.name()).into_bytes();
    line.append(&mut message);
    if let Some(place) = diagnostic.reported_at().filter(|_| !diagnostic.bare) {
        let (name, number, _) = sources.location(place);
        line.extend_from_slice(b" in ");
        line.extend_from_slice(name.split(|byte| *byte == 0).next().unwrap_or_default());
        if !sources.is_command_line(place.file) {
            line.extend_from_slice(format!(":{number}").as_bytes());
        }
    }
    BString::from(line)
}

/// The marked lines of the file with carets, remarks and help, to be shown below nginx's line on a terminal. Empty
/// when there is nothing to show; otherwise it ends in a line feed.
pub fn render_snippet(diagnostic: &Diagnostic, sources: &SourceMap, color: bool) -> String {
    let mut marks: BTreeMap<u32, Vec<Mark>> = BTreeMap::new();
    if let Some(span) = diagnostic.span {
        marks.entry(span.file.0).or_default().push(Mark { span, primary: true, label: None });
    }
    for (span, label) in &diagnostic.labels {
        let in_file = marks.entry(span.file.0).or_default();
        match in_file.iter_mut().find(|mark| mark.span == *span && mark.label.is_none()) {
            Some(mark) => mark.label = Some(label),
            None => in_file.push(Mark { span: *span, primary: false, label: Some(label) }),
        }
    }
    let level = match diagnostic.level {
        Level::Warn => annotate_snippets::Level::WARNING,
        Level::Notice | Level::Info => annotate_snippets::Level::NOTE,
        _ => annotate_snippets::Level::ERROR,
    };
    let mut group = Group::with_level(level);
    // The file of the main mark first, whatever its number is.
    let first = diagnostic.span.map(|span| span.file.0);
    let mut files: Vec<_> = marks.into_iter().collect();
    files.sort_by_key(|(file, _)| Some(*file) != first);
    for (_, marks) in &files {
        for snippet in snippets(marks, sources) {
            group = group.element(snippet);
        }
    }
    for help in &diagnostic.help {
        group = group.element(annotate_snippets::Level::HELP.message(help.as_str()));
    }
    if group.is_empty() {
        return String::new();
    }
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut text = renderer.decor_style(DecorStyle::Ascii).render(&[group]);
    text.push('\n');
    text
}

struct Mark<'a> {
    span: Span,
    primary: bool,
    label: Option<&'a str>,
}

/// One snippet for all marks in a file that are not too far from each other.
fn snippets<'a>(
    marks: &[Mark<'a>],
    sources: &'a SourceMap,
) -> Vec<Snippet<'a, annotate_snippets::Annotation<'a>>> {
    let Some(file) = marks.first().and_then(|mark| sources.file(mark.span.file)) else { return Vec::new() };
    let mut sorted: Vec<(Range<usize>, &Mark)> =
        marks.iter().map(|mark| (visible(&file.text, mark.span), mark)).collect();
    sorted.sort_by_key(|(range, _)| range.start);
    let mut out = Vec::new();
    let mut rest = &sorted[..];
    while let [(first, _), ..] = rest {
        let count =
            rest.iter().take_while(|(range, _)| range.end - first.start <= SNIPPET_BYTES_MAX).count().max(1);
        let (near, far) = rest.split_at(count);
        rest = far;
        let last = near.iter().map(|(range, _)| range.end).max().unwrap_or(first.end);
        let excerpt = Excerpt::new(&file.text, first.start, last);
        let line = sources.line_of(FileId(marks[0].span.file.0), excerpt.start as u32) as usize;
        let mut snippet =
            Snippet::source(excerpt.text.clone()).line_start(line).path(file.name.to_str_lossy());
        for (range, mark) in near {
            let kind = if mark.primary { AnnotationKind::Primary } else { AnnotationKind::Context };
            snippet = snippet.annotation(kind.span(excerpt.map(range)).label(mark.label));
        }
        out.push(snippet);
    }
    out
}

/// The bytes of a span that are worth marking: on one line, and for the end of the text behind its last letter.
fn visible(text: &[u8], span: Span) -> Range<usize> {
    let length = text.len();
    let (mut start, mut end) = ((span.start as usize).min(length), (span.end as usize).min(length));
    if start == length {
        start = text.trim_ascii_end().len();
        end = start;
    }
    let line_end = text[start..].find_byteset(b"\r\n").map_or(length, |at| start + at);
    start..end.clamp(start, line_end.min(start + LINE_BYTES_MAX))
}

/// Some lines of a text as a string, and where its bytes have gone.
struct Excerpt {
    text: String,
    start: usize,
    /// For each byte of the source from `start` on, its place in `text`.
    places: Vec<usize>,
}

impl Excerpt {
    /// The lines from that of the byte `first` to that of the byte `last`, very long ones cut.
    fn new(source: &[u8], first: usize, last: usize) -> Excerpt {
        let line_start = source[..first].rfind_byte(b'\n').map_or(0, |at| at + 1);
        let line_end = source[last..].find_byte(b'\n').map_or(source.len(), |at| last + at);
        let start = line_start.max(first.saturating_sub(LINE_BYTES_MAX));
        let end = line_end.min(last + LINE_BYTES_MAX);
        let mut excerpt = Excerpt { text: String::new(), start, places: Vec::with_capacity(end - start + 1) };
        for chunk in source[start..end].utf8_chunks() {
            for character in chunk.valid().chars() {
                excerpt.places.extend(std::iter::repeat_n(excerpt.text.len(), character.len_utf8()));
                if character != '\r' {
                    excerpt.text.push(character);
                }
            }
            for _ in chunk.invalid() {
                excerpt.places.push(excerpt.text.len());
                excerpt.text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        excerpt.places.push(excerpt.text.len());
        excerpt
    }

    fn map(&self, range: &Range<usize>) -> Range<usize> {
        let place =
            |at: usize| self.places.get(at.saturating_sub(self.start)).copied().unwrap_or(self.text.len());
        place(range.start)..place(range.end)
    }
}
