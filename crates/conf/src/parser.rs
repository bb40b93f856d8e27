//! From files to one tree. Never fails: what is wrong becomes a diagnostic, and reading goes on where that makes sense.
//!
//! nginx stops at its first error; this parser has to find the same one first, and then as many true ones as it can.
//! Hence after an error it prefers silence to a guess: a quote that is never closed ends its file, and one missing
//! brace is reported once.

use crate::diagnostic::{Diagnostic, in_reading_order};
use crate::files::{FileError, Files, MemoryFiles};
use crate::lexer::{FoundComment, LexError, Lexer, Token};
use crate::source::{COMMAND_LINE, FileId, Origin, SourceFile, Span};
use crate::syntax;
use crate::tree::{Block, BlockComments, Node, Tree, Word};
use bstr::{BStr, BString, ByteSlice};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Deepest nesting of braces, over all files.
pub const BLOCK_DEPTH_MAX: usize = 128;
/// Deepest nesting of included files.
pub const INCLUDE_DEPTH_MAX: usize = 64;
/// Most files a configuration may read, each inclusion counted.
pub const INCLUDED_FILES_MAX: usize = 65_536;
/// Most bytes of one file.
pub const FILE_BYTES_MAX: usize = 512 << 20;
/// Most bytes of all files, each inclusion counted.
pub const TEXT_BYTES_MAX: usize = 1 << 30;
/// Most syntax errors that are reported.
pub const SYNTAX_ERRORS_MAX: usize = 100;

/// What came out of [`parse`].
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// Everything that could be understood.
    pub tree: Tree,
    /// What is wrong, in the order in which nginx would have met it.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads the main file (an absolute path) and all it includes. The `-g` text comes first, as in nginx.
pub fn parse(main: &BStr, command_line: Option<&BStr>, files: &dyn Files) -> Parsed {
    let folder = main.rfind_byte(b'/').map_or(&b""[..], |slash| &main[..=slash]);
    let mut parser = Parser::new(files, Some(folder.into()));
    let mut root = Block::default();
    if let Some(text) = command_line.filter(|text| !text.is_empty()) {
        let id = parser.add(COMMAND_LINE.into(), text.as_bytes().into(), Origin::CommandLine);
        root.nodes = parser.file(id).nodes;
    }
    let opened = parser.read(main);
    let text = opened.clone().unwrap_or_default();
    let id = parser.add(main.into(), text, Origin::Main);
    match opened {
        Ok(_) => {
            let block = parser.file(id);
            root.nodes.extend(block.nodes);
            root.close = block.close;
            root.comments = block.comments;
        }
        Err(error) => {
            root.close.file = id;
            parser.diagnostics.push(syntax::cannot_read(main, error));
        }
    }
    parser.finish(root)
}

/// Reads one text by itself. `include` directives stay in the tree like any other: this is for formatters, editors and
/// tests.
pub fn parse_text(name: &BStr, text: &[u8]) -> Parsed {
    let nothing = MemoryFiles::new();
    let mut parser = Parser::new(&nothing, None);
    let id = parser.add(name.into(), text.into(), Origin::Main);
    let root = parser.file(id);
    parser.finish(root)
}

/// The state of one run over a set of files; `include` adds to it.
pub(crate) struct Parser<'a> {
    pub(crate) files: &'a dyn Files,
    /// The folder of the main file with its slash; without it includes are not followed.
    pub(crate) folder: Option<BString>,
    pub(crate) tree: Tree,
    pub(crate) diagnostics: Vec<Diagnostic>,
    texts: HashMap<BString, Arc<[u8]>>,
    names_read: HashSet<BString>,
    words: Vec<Word>,
    /// The directives of the blocks that are being read, those of the innermost last: a list is made of them once it is
    /// known how many there are.
    pub(crate) nodes: Vec<Node>,
    pub(crate) text_bytes: usize,
    blocks_open: usize,
    /// The files being read, the main one first.
    pub(crate) open: Vec<FileId>,
    /// A bound was reached: nothing further is opened.
    pub(crate) full: bool,
}

/// One text and what has been said about it.
pub(crate) struct Reader<'a> {
    lexer: Lexer<'a>,
    command_line: bool,
    /// Errors are not worth reporting: the same file was read before, or there is foreign text in it.
    muted: bool,
    /// A missing or a superfluous brace was reported: another one would be its echo.
    brace_reported: bool,
    /// Nothing that follows in this text can be trusted.
    abandoned: bool,
    /// The first block that ends on a line indented less, or more, than the line it begins on.
    indented_less: Option<(Span, Span)>,
    indented_more: Option<(Span, Span)>,
}

impl Reader<'_> {
    fn abandon(&mut self) {
        self.abandoned = true;
        self.brace_reported = true;
    }

    /// Remembers a block whose braces do not look like a pair: when there is a brace too few or too many in the end,
    /// that is where to look for it.
    fn compare_indentation(&mut self, open: Span, close: Span) {
        let (begin, end) = (self.lexer.indentation(open), self.lexer.indentation(close));
        if !end.alone || begin.white == end.white {
            return;
        }
        if begin.white.starts_with(end.white) {
            self.indented_less.get_or_insert((open, close));
        } else if end.white.starts_with(begin.white) {
            self.indented_more.get_or_insert((open, close));
        }
    }
}

/// The words up to a `;`, `{` or what came instead.
struct Statement {
    name: Option<Word>,
    args: Vec<Word>,
    /// The comments before the first word.
    leading: Vec<FoundComment>,
    /// The comments between the words.
    inner: Vec<FoundComment>,
    blank_before: bool,
    broken: bool,
    end: StatementEnd,
}

#[derive(Clone, Copy)]
enum StatementEnd {
    Semicolon(Span),
    Open(Span),
    /// The place of a `}` or of the end of the text, before which a `;` was missed.
    Missed(Span),
    /// `}`, without words before it.
    Close(Span),
    /// The end of the text, without words before it.
    End(Span),
}

/// What a comment on the same line would belong to.
#[derive(Clone, Copy, PartialEq)]
enum Previous {
    Open,
    Node,
    Other,
}

impl<'a> Parser<'a> {
    fn new(files: &'a dyn Files, folder: Option<BString>) -> Parser<'a> {
        Parser {
            files,
            folder,
            tree: Tree::default(),
            diagnostics: Vec::new(),
            texts: HashMap::new(),
            names_read: HashSet::new(),
            words: Vec::new(),
            nodes: Vec::new(),
            text_bytes: 0,
            blocks_open: 0,
            open: Vec::new(),
            full: false,
        }
    }

    fn finish(mut self, root: Block) -> Parsed {
        self.tree.root = root;
        let diagnostics = in_reading_order(self.diagnostics, &self.tree.sources);
        Parsed { tree: self.tree, diagnostics }
    }

    pub(crate) fn add(&mut self, name: BString, text: Arc<[u8]>, origin: Origin) -> FileId {
        let id = FileId(self.tree.sources.files.len() as u32);
        self.text_bytes += text.len();
        self.tree.sources.files.push(SourceFile { name, text, origin });
        id
    }

    pub(crate) fn read(&mut self, path: &BStr) -> Result<Arc<[u8]>, FileError> {
        if let Some(text) = self.texts.get(path) {
            return Ok(text.clone());
        }
        let text = self.files.read(path)?;
        if text.len() > FILE_BYTES_MAX {
            return Err(FileError { errno: 27, message: "File too large".to_owned() });
        }
        self.texts.insert(path.into(), text.clone());
        Ok(text)
    }

    /// Parses a text that was added.
    pub(crate) fn file(&mut self, id: FileId) -> Block {
        let sources = &self.tree.sources.files;
        let Some(file) = sources.get(id.0 as usize) else { return Block::default() };
        let text = file.text.clone();
        let command_line = file.origin == Origin::CommandLine;
        let mut reader = Reader {
            lexer: Lexer::new(&text, id, !command_line),
            command_line,
            muted: !self.names_read.insert(file.name.clone()),
            brace_reported: false,
            abandoned: false,
            indented_less: None,
            indented_more: None,
        };
        self.open.push(id);
        let block = self.block(&mut reader, None);
        self.open.pop();
        block
    }

    pub(crate) fn report(&mut self, reader: &Reader, diagnostic: Diagnostic) {
        if !reader.muted && self.diagnostics.len() < SYNTAX_ERRORS_MAX {
            self.diagnostics.push(diagnostic);
        }
    }

    /// Parses up to the brace that closes `open`, or to the end of the text.
    fn block(&mut self, reader: &mut Reader, open: Option<Span>) -> Block {
        let mut block = Block::default();
        let first = self.nodes.len();
        let mut comments = BlockComments::default();
        let mut previous = if open.is_some() { Previous::Open } else { Previous::Other };
        loop {
            let statement = self.statement(reader);
            for found in &statement.leading {
                let text = || found.comment.text.clone();
                match self.nodes[first..].last_mut() {
                    Some(node) if found.trailing && previous == Previous::Node => {
                        node.comments_mut().after = Some(text())
                    }
                    _ if found.trailing && previous == Previous::Open => comments.after_open = Some(text()),
                    _ => comments.at_end.push(found.comment.clone()),
                }
                previous = Previous::Other;
            }
            match statement.end {
                StatementEnd::Close(at) if open.is_none() => {
                    if !std::mem::replace(&mut reader.brace_reported, true) {
                        self.report(reader, syntax::superfluous_close(at, reader.indented_more));
                    }
                    continue;
                }
                StatementEnd::Close(at) => {
                    block.close = at;
                    open.into_iter().for_each(|open| reader.compare_indentation(open, at));
                    break;
                }
                StatementEnd::End(at) => {
                    block.close = at;
                    if let Some(open) = open
                        && !std::mem::replace(&mut reader.brace_reported, true)
                    {
                        self.report(reader, syntax::missing_close(open, at, reader.indented_less));
                    }
                    break;
                }
                StatementEnd::Semicolon(_) | StatementEnd::Open(_) | StatementEnd::Missed(_) => {}
            }
            previous = Previous::Other;
            comments.at_end.extend(statement.inner.iter().map(|found| found.comment.clone()));
            let Some(mut node) = self.node(reader, statement) else { continue };
            if self.follows(&node) {
                self.include(reader, node);
                continue;
            }
            // What looked like the end of the block so far stands before this directive.
            if !comments.at_end.is_empty() {
                node.comments_mut().before = std::mem::take(&mut comments.at_end);
            }
            self.nodes.push(node);
            previous = Previous::Node;
        }
        block.nodes = self.nodes.drain(first..).collect();
        if comments != BlockComments::default() {
            block.comments = Some(Box::new(comments));
        }
        block
    }

    /// Makes a directive of a statement, reading its block if it has one. Braces without a name give nothing.
    fn node(&mut self, reader: &mut Reader, statement: Statement) -> Option<Node> {
        let (name, args) = (statement.name, statement.args);
        let mut broken = statement.broken;
        let (end, block) = match statement.end {
            StatementEnd::Open(open) => {
                if name.is_none() {
                    self.report(reader, syntax::nameless_block(open));
                } else if reader.command_line {
                    self.report(reader, syntax::command_line_block(open));
                    broken = true;
                }
                // What Lua looks like, read as nginx's language, is anybody's guess; so is what follows it.
                reader.muted |= name.as_ref().is_some_and(|name| name.text.ends_with(b"_by_lua_block"));
                let block = self.nested(reader, open);
                (open, Some(block))
            }
            StatementEnd::Semicolon(at) | StatementEnd::Missed(at) => (at, None),
            StatementEnd::Close(at) | StatementEnd::End(at) => {
                // nginx stops here before it looks at the words; what it would say of them comes too late.
                broken = true;
                (at, None)
            }
        };
        let blank_before = statement.blank_before;
        Some(Node { name: name?, args, block, end, broken, blank_before, comments: None })
    }

    /// The block behind a brace, unless there are too many around it already.
    fn nested(&mut self, reader: &mut Reader, open: Span) -> Block {
        if self.blocks_open >= BLOCK_DEPTH_MAX {
            self.report(reader, syntax::too_deep(BLOCK_DEPTH_MAX, open));
            reader.abandon();
            return Block { close: open, ..Block::default() };
        }
        self.blocks_open += 1;
        let block = self.block(reader, Some(open));
        self.blocks_open -= 1;
        block
    }

    /// Reads words up to what ends them.
    fn statement(&mut self, reader: &mut Reader) -> Statement {
        // Used again for every statement, so that what is kept is as large as it has to be.
        let mut words = std::mem::take(&mut self.words);
        let mut statement = Statement {
            name: None,
            args: Vec::new(),
            leading: Vec::new(),
            inner: Vec::new(),
            blank_before: false,
            broken: false,
            end: StatementEnd::End(reader.lexer.end()),
        };
        while !reader.abandoned {
            let is_first = words.is_empty();
            let token = reader.lexer.token(&mut words);
            if is_first {
                statement.blank_before = reader.lexer.blank_before;
            }
            if !reader.lexer.comments.is_empty() {
                let into = if is_first { &mut statement.leading } else { &mut statement.inner };
                into.append(&mut reader.lexer.comments);
            }
            let end = match token {
                Ok(token) => self.token(reader, &words, token),
                Err(error) => self.lex_error(reader, &mut statement, &words, error),
            };
            if let Some(end) = end {
                statement.end = end;
                break;
            }
        }
        if reader.abandoned {
            // The words before the accident are as suspicious as what follows.
            words.clear();
            statement.end = StatementEnd::End(reader.lexer.end());
        }
        let mut all = words.drain(..);
        statement.name = all.next();
        statement.args = all.collect();
        self.words = words;
        statement
    }

    /// Adds a token to the words so far, or says how they end.
    fn token(&mut self, reader: &mut Reader, words: &[Word], token: Token) -> Option<StatementEnd> {
        let empty = words.is_empty();
        match token {
            Token::Word => None,
            Token::Semicolon(at) if empty => {
                self.report(reader, syntax::empty_directive(at));
                None
            }
            Token::Semicolon(at) => Some(StatementEnd::Semicolon(at)),
            Token::Open(at) => Some(StatementEnd::Open(at)),
            Token::Close(at) if empty => Some(StatementEnd::Close(at)),
            Token::Close(at) => {
                reader.lexer.back_to(at);
                self.report(reader, syntax::missing_semicolon(words, at));
                Some(StatementEnd::Missed(at))
            }
            Token::End(at) if empty => Some(StatementEnd::End(at)),
            Token::End(at) => {
                reader.brace_reported = true;
                self.report(reader, syntax::unexpected_end(reader.command_line, words, at));
                Some(StatementEnd::Missed(at))
            }
        }
    }

    fn lex_error(
        &mut self,
        reader: &mut Reader,
        statement: &mut Statement,
        words: &[Word],
        error: LexError,
    ) -> Option<StatementEnd> {
        match error {
            LexError::EndInWord { at, quote } => {
                statement.broken = true;
                reader.brace_reported = true;
                reader.abandoned = quote.is_some();
                self.report(reader, syntax::end_in_word(reader.command_line, quote, at));
                Some(StatementEnd::Missed(at))
            }
            LexError::TooLong { start, quote } => {
                let text = self.tree.sources.slice(start);
                statement.broken |= !words.is_empty() || text.first() != Some(&b'#');
                let diagnostic = syntax::too_long(quote, text, start);
                self.report(reader, diagnostic);
                if quote.is_some() {
                    reader.abandon();
                }
                None
            }
            LexError::AfterQuote { at, byte, word } => {
                statement.broken = true;
                self.report(reader, syntax::after_quote(byte, word, at));
                None
            }
        }
    }
}
