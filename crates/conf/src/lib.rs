//! nginx.conf text to tree and back: lexer, parser, includes, printer, diagnostics. Knows no directive.
//!
//! [`parse`] reads a main file and everything it includes and never fails: it returns a [`Tree`] together with all
//! [`Diagnostic`]s. Every word keeps its [`Span`], so that later stages can point into the right file.
//! [`render_nginx`] and [`render_snippet`] are the only code of the whole program that turns a diagnostic into text.

mod diagnostic;
mod files;
mod glob;
mod include;
mod lexer;
mod nearest;
mod parser;
mod print;
mod render;
mod source;
mod syntax;
mod tree;

pub use diagnostic::{Diagnostic, Level, in_reading_order};
pub use files::{FileError, Files, MemoryFiles};
pub use glob::{Folders, GLOB_PATHS_MAX, expand_glob, glob_matches, is_glob};
pub use lexer::WORD_BYTES_MAX;
pub use nearest::nearest;
pub use parser::{
    BLOCK_DEPTH_MAX, FILE_BYTES_MAX, INCLUDE_DEPTH_MAX, INCLUDED_FILES_MAX, Parsed, SYNTAX_ERRORS_MAX,
    TEXT_BYTES_MAX, parse, parse_text,
};
pub use print::{print, print_block, quote};
pub use render::{MESSAGE_BYTES_MAX, render_nginx, render_snippet};
pub use source::{FileId, Origin, SourceFile, SourceMap, Span, dump};
pub use tree::{Block, BlockComments, Comment, Comments, Include, Node, Tree, Word};
