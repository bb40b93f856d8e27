//! Words and punctuation of one text, cut exactly where nginx cuts them (`ngx_conf_read_token`).
//!
//! nginx reads a file through a window of 4096 bytes that must hold a word (or a comment) from its start up to the
//! byte after its end; the limit is part of the language, since longer ones are refused.

use crate::source::{FileId, Span};
use crate::tree::{Comment, Word};
use bstr::{BString, ByteSlice};

/// Most bytes of a word or a comment in a file. The `-g` text has no such limit.
pub const WORD_BYTES_MAX: usize = 4096;

/// What the lexer found.
pub(crate) enum Token {
    /// A word, which was put behind those before it.
    Word,
    /// `;`
    Semicolon(Span),
    /// `{`
    Open(Span),
    /// `}`
    Close(Span),
    End(Span),
}

/// Why the lexer could not go on where it was. It can be asked for further tokens nevertheless.
pub(crate) enum LexError {
    /// The text ends inside a word. For a quoted word with the span of the opening quote.
    EndInWord { at: Span, quote: Option<Span> },
    /// A word or comment is longer than the window; the span is its first bytes, or its opening quote.
    TooLong { start: Span, quote: Option<u8> },
    /// A quoted word is followed by something other than space, `;`, `{` or `)`.
    AfterQuote { at: Span, byte: u8, word: Span },
}

/// A comment and where it stood.
pub(crate) struct FoundComment {
    pub comment: Comment,
    /// Something stands before it on its line.
    pub trailing: bool,
}

/// The state of one text.
pub(crate) struct Lexer<'a> {
    text: &'a [u8],
    file: FileId,
    position: usize,
    /// Where nginx's window has to start: at the current word, behind its opening quote.
    window: usize,
    window_limited: bool,
    /// The word just read, if it was quoted: what may follow is restricted.
    after_quote: Option<Span>,
    /// Nothing was read since the last word.
    after_word: bool,
    quote: Option<Span>,
    newlines: u32,
    /// Comments met since the last time they were taken.
    pub comments: Vec<FoundComment>,
    /// An empty line stands before the last token.
    pub blank_before: bool,
}

/// What stands before a token on its line.
pub(crate) struct Indentation<'a> {
    /// The spaces and tabs the line begins with.
    pub white: &'a [u8],
    /// There is nothing else before the token.
    pub alone: bool,
}

/// The next byte is not to be had.
enum Stop {
    End,
    TooLong,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a [u8], file: FileId, window_limited: bool) -> Lexer<'a> {
        Lexer {
            text,
            file,
            position: 0,
            window: 0,
            window_limited,
            after_quote: None,
            after_word: false,
            quote: None,
            newlines: 1,
            comments: Vec::new(),
            blank_before: false,
        }
    }

    /// The next token. A word is added to `words`.
    pub fn token(&mut self, words: &mut Vec<Word>) -> Result<Token, LexError> {
        if let Some(word) = self.after_quote.take()
            && let Some(&byte) = self.text.get(self.position)
        {
            // A `}` is left to the caller, who says the same about it.
            if !is_space(byte) && !matches!(byte, b';' | b'{' | b')' | b'}') {
                let at = self.span(self.position, self.position + 1);
                return Err(LexError::AfterQuote { at, byte, word });
            }
        }
        self.skip_blank().map_err(|stop| self.error(stop))?;
        self.blank_before = self.newlines > 1;
        let Some(&byte) = self.text.get(self.position) else {
            return Ok(Token::End(self.span(self.position, self.position)));
        };
        self.newlines = 0;
        self.after_word = false;
        self.window = self.position;
        let single = self.span(self.position, self.position + 1);
        match byte {
            b';' | b'{' | b'}' => self.position += 1,
            _ => {
                return match self.word(byte) {
                    Ok(word) => {
                        words.push(word);
                        Ok(Token::Word)
                    }
                    Err(stop) => Err(self.error(stop)),
                };
            }
        }
        Ok(match byte {
            b';' => Token::Semicolon(single),
            b'{' => Token::Open(single),
            _ => Token::Close(single),
        })
    }

    /// Gives a token back: the next one starts at this span again.
    pub fn back_to(&mut self, token: Span) {
        self.position = token.start as usize;
        self.window = self.position;
    }

    /// The end of the text.
    pub fn end(&self) -> Span {
        self.span(self.text.len(), self.text.len())
    }

    /// How the line of a token is indented.
    pub fn indentation(&self, token: Span) -> Indentation<'a> {
        let text = &self.text[..(token.start as usize).min(self.text.len())];
        let line = &text[text.rfind_byte(b'\n').map_or(0, |at| at + 1)..];
        let width = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        Indentation { white: &line[..width], alone: width == line.len() }
    }

    /// Skips white space and comments, keeping the latter.
    fn skip_blank(&mut self) -> Result<(), Stop> {
        loop {
            match self.peek() {
                Ok(byte) if is_space(byte) => {
                    self.newlines += u32::from(byte == b'\n');
                    // nginx reads the byte that ends a word as part of it: the window moves on with the next one.
                    if !std::mem::take(&mut self.after_word) {
                        self.window = self.position;
                    }
                    self.position += 1;
                    self.skip_spaces();
                }
                Ok(b'#') => self.comment()?,
                Ok(_) | Err(Stop::End) => return Ok(()),
                Err(Stop::TooLong) => return Err(Stop::TooLong),
            }
        }
    }

    /// The rest of a run of white space, with which the window moves on.
    fn skip_spaces(&mut self) {
        while let Some(&byte) = self.text.get(self.position)
            && is_space(byte)
        {
            self.newlines += u32::from(byte == b'\n');
            self.window = self.position;
            self.position += 1;
        }
    }

    fn comment(&mut self) -> Result<(), Stop> {
        self.window = self.position;
        let rest = &self.text[self.position..];
        let length = rest.find_byte(b'\n').unwrap_or(rest.len());
        // The line feed has to fit into the window too, unless the file ends before it.
        if self.window_limited && length >= WORD_BYTES_MAX && rest.len() > WORD_BYTES_MAX {
            return Err(Stop::TooLong);
        }
        let text = BString::from(rest[..length].trim_end());
        let comment = Comment { text, blank_before: self.newlines > 1 };
        self.comments.push(FoundComment { comment, trailing: self.newlines == 0 });
        self.newlines = 0;
        self.position += length;
        Ok(())
    }

    /// Reads a word whose first byte was seen and is not punctuation.
    fn word(&mut self, first: u8) -> Result<Word, Stop> {
        let start = self.position;
        self.position += 1;
        let mut variable = false;
        let mut escaped = first == b'\\';
        self.quote = None;
        match first {
            b'"' | b'\'' => {
                self.window = self.position;
                self.quote = Some(self.span(start, start + 1));
            }
            b'\\' => self.skip_escaped()?,
            b'$' => variable = true,
            _ => {}
        }
        let content = self.window;
        let end = loop {
            if !variable {
                self.skip_plain();
            }
            let byte = self.peek()?;
            self.position += 1;
            if byte == b'{' && variable {
                continue;
            }
            variable = false;
            match byte {
                b'\\' => {
                    escaped = true;
                    self.skip_escaped()?;
                }
                b'$' => variable = true,
                _ if self.quote.is_some() && byte == first => break self.position - 1,
                _ if self.quote.is_some() => {}
                b';' | b'{' => {
                    self.position -= 1;
                    break self.position;
                }
                _ if is_space(byte) => {
                    self.position -= 1;
                    break self.position;
                }
                _ => {}
            }
        };
        let span = self.span(start, self.position);
        let quoted = self.quote.take().is_some();
        self.after_word = true;
        if quoted {
            self.after_quote = Some(span);
        }
        let raw = &self.text[content..end];
        Ok(Word { text: if escaped { unescape(raw) } else { raw.into() }, span, quoted })
    }

    /// Bytes of a word that mean nothing but themselves, as far as nginx could read them.
    fn skip_plain(&mut self) {
        let limit = if self.window_limited { self.window + WORD_BYTES_MAX } else { usize::MAX };
        let end = self.text.len().min(limit).max(self.position);
        let rest = &self.text[self.position..end];
        self.position += rest.iter().position(|byte| !PLAIN[usize::from(*byte)]).unwrap_or(rest.len());
    }

    /// The byte after a backslash belongs to the word, whatever it is.
    fn skip_escaped(&mut self) -> Result<(), Stop> {
        self.peek()?;
        self.position += 1;
        Ok(())
    }

    /// The next byte, if nginx could read it.
    fn peek(&mut self) -> Result<u8, Stop> {
        let byte = *self.text.get(self.position).ok_or(Stop::End)?;
        if self.window_limited && self.position - self.window >= WORD_BYTES_MAX {
            return Err(Stop::TooLong);
        }
        Ok(byte)
    }

    /// Turns a stop into an error, and gets over it: what is too long may then be as long as it likes.
    fn error(&mut self, stop: Stop) -> LexError {
        let quote = self.quote.take();
        match stop {
            Stop::End => LexError::EndInWord { at: self.end(), quote },
            Stop::TooLong => {
                self.window_limited = false;
                let start = quote.unwrap_or(self.span(self.window, (self.window + 10).min(self.text.len())));
                LexError::TooLong {
                    start,
                    quote: quote.and_then(|span| self.text.get(span.start as usize).copied()),
                }
            }
        }
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span { file: self.file, start: start as u32, end: end as u32 }
    }
}

/// Bytes that mean nothing but themselves anywhere in a word.
static PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let special = b" \t\r\n;{\\$\"'";
    let mut at = 0;
    while at < special.len() {
        plain[special[at] as usize] = false;
        at += 1;
    }
    plain
};

/// What nginx takes for white space.
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Resolves the five escapes; a backslash before anything else stays.
fn unescape(raw: &[u8]) -> BString {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, after @ ..] = rest {
        let (byte, length) = match (first, after.first()) {
            (b'\\', Some(byte @ (b'"' | b'\'' | b'\\'))) => (*byte, 2),
            (b'\\', Some(b't')) => (b'\t', 2),
            (b'\\', Some(b'r')) => (b'\r', 2),
            (b'\\', Some(b'n')) => (b'\n', 2),
            _ => (*first, 1),
        };
        out.push(byte);
        rest = &rest[length..];
    }
    BString::from(out)
}
