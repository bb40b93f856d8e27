//! Heads of answers: what upstreams send, read as nginx reads it, and what we send, written.

mod from_fields;

pub(crate) use from_fields::ResponseFields;

use crate::fields::{Fields, Span};
use crate::header_line::{Line, LineRules, LineScan};
use crate::method::Method;
use crate::request::{contains_ignoring_case, parse_length};
use crate::request_line::Version;
use crate::status::Status;
use bstr::{BStr, BString};
use std::borrow::Cow;

/// What [`parse_response_head`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseParse {
    /// More bytes are needed. Call again with the same bytes and more behind them.
    Incomplete,
    /// The head is whole. An interim one ([`Status::is_interim`]) is followed by another.
    Complete {
        /// How many bytes of the input it took.
        consumed: usize,
    },
    /// There is no status line. nginx logs `upstream sent no valid HTTP/1.0 header` and takes everything as the body
    /// of an HTTP/0.9 answer, status 200, which ends with the connection.
    Headless,
    /// The head is refused: nginx's message, for the error log at level `error`.
    Refused(Cow<'static, BStr>),
}

/// How the end of an answer's body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// There is no body.
    None,
    /// That many bytes, at least one.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Everything until the connection closes.
    UntilClose,
}

/// How an answer's head is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseOptions {
    /// `proxy_buffer_size`: the head must fit, in bytes.
    pub header_bytes_max: usize,
    /// Does it start with a status line? FastCGI, uwsgi and SCGI answers say `Status:` instead.
    pub status_line: bool,
}

impl Default for ResponseOptions {
    fn default() -> ResponseOptions {
        ResponseOptions { header_bytes_max: 4096, status_line: true }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// How many bytes of `HTTP/` have come.
    #[default]
    Begin,
    Protocol(u8),
    MajorStart,
    Major,
    MinorStart,
    Minor,
    /// How many digits of the status have come.
    Code(u8),
    AfterCode,
    Reason,
    AlmostDone,
    Fields,
}

/// The head of an upstream's answer. One value serves a whole connection: [`ResponseHead::clear`] keeps its memory.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// The version.
    pub version: Version,
    /// The status; 0 in a head without a status line.
    pub status: Status,
    /// The header fields, names as they were written, without the ones that were dropped as duplicates.
    pub fields: Fields,
    /// What nginx warns about, for the error log at level `warn`: duplicates that were dropped.
    pub warnings: Vec<Vec<u8>>,
    /// `Content-Length`; `None` beside chunks.
    pub content_length: Option<u64>,
    /// Does the body come in chunks?
    pub chunked: bool,
    /// Does the upstream close the connection after this answer?
    pub connection_close: bool,
    status_text: Span,
    state: State,
    position: usize,
    line: LineScan,
    major: u16,
    minor: u16,
    length_place: Option<usize>,
    encoding_place: Option<usize>,
}

/// Fields of which only the first counts; the rest is dropped with a warning. By the length of their names, which tells
/// almost every other name apart.
const SINGLE: [&[&[u8]]; 19] = [
    &[],
    &[],
    &[],
    &[],
    &[b"etag", b"date"],
    &[],
    &[b"status", b"server"],
    &[b"refresh", b"expires"],
    &[b"location"],
    &[],
    &[],
    &[],
    &[b"content-type"],
    &[b"last-modified"],
    &[],
    &[b"x-accel-expires", b"x-accel-charset"],
    &[b"x-accel-redirect"],
    &[b"x-accel-buffering"],
    &[b"x-accel-limit-rate"],
];

/// How many warnings a head can raise; more duplicates are dropped in silence.
const WARNINGS_MAX: usize = 8;

/// Reads the head of an upstream's answer from `input`, which holds everything that came since the last head: when
/// more comes, call again with the whole. `out` must be clear before the first call for a head.
pub fn parse_response_head(input: &[u8], options: &ResponseOptions, out: &mut ResponseHead) -> ResponseParse {
    // What does not fit the buffer is not looked at, so that the pieces a head comes in make no difference.
    let seen = input.get(..options.header_bytes_max).unwrap_or(input);
    match out.advance(seen, options) {
        Ok(true) => {
            out.fields.settle(seen.get(..out.position).unwrap_or(seen));
            ResponseParse::Complete { consumed: out.position }
        }
        Ok(false) if seen.len() >= options.header_bytes_max => {
            ResponseParse::Refused(Cow::Borrowed(BStr::new("upstream sent too big header")))
        }
        Ok(false) => ResponseParse::Incomplete,
        Err(Fault::Headless) => ResponseParse::Headless,
        Err(Fault::Refused(message)) => ResponseParse::Refused(message),
    }
}

enum Fault {
    Headless,
    Refused(Cow<'static, BStr>),
}

impl From<Vec<u8>> for Fault {
    fn from(message: Vec<u8>) -> Fault {
        Fault::Refused(Cow::Owned(BString::from(message)))
    }
}

impl From<&'static str> for Fault {
    fn from(message: &'static str) -> Fault {
        Fault::Refused(Cow::Borrowed(BStr::new(message)))
    }
}

impl ResponseHead {
    /// Makes it as new, keeping its buffers.
    pub fn clear(&mut self) {
        let ResponseHead {
            version,
            status,
            fields,
            warnings,
            content_length,
            chunked,
            connection_close,
            status_text,
            state,
            position,
            line,
            major,
            minor,
            length_place,
            encoding_place,
        } = self;
        fields.clear();
        warnings.clear();
        (*version, *status, *status_text) = (Version::default(), Status::default(), Span::default());
        (*content_length, *chunked, *connection_close) = (None, false, false);
        (*state, *position, *line, *major, *minor) = (State::default(), 0, LineScan::default(), 0, 0);
        (*length_place, *encoding_place) = (None, None);
    }

    /// The status line without the version, `200 OK`, as it came; empty without a status line.
    pub fn status_text(&self) -> &[u8] {
        self.status_text.of(self.fields.text())
    }

    /// The words after the status, without the space before them.
    pub fn reason(&self) -> &[u8] {
        self.status_text().get(4..).unwrap_or_default()
    }

    /// How the end of the body is found, given the method of the request (RFC 9112, section 6.3).
    pub fn framing(&self, method: Method) -> ResponseFraming {
        if method == Method::Head || self.status.is_bodiless() {
            return ResponseFraming::None;
        }
        match (self.chunked, self.content_length) {
            (true, _) => ResponseFraming::Chunked,
            (false, Some(0)) => ResponseFraming::None,
            (false, Some(length)) => ResponseFraming::Length(length),
            (false, None) => ResponseFraming::UntilClose,
        }
    }

    /// May the connection be used again once the body is over?
    pub fn keep_alive(&self, method: Method) -> bool {
        !self.connection_close
            && self.status != Status::SWITCHING_PROTOCOLS
            && self.framing(method) != ResponseFraming::UntilClose
    }

    fn advance(&mut self, input: &[u8], options: &ResponseOptions) -> Result<bool, Fault> {
        if !options.status_line {
            self.state = State::Fields;
        }
        if self.state == State::Begin {
            self.usual_status_line(input);
        }
        while self.state != State::Fields {
            let Some(&byte) = input.get(self.position) else { return Ok(false) };
            if self.state == State::Reason {
                let rest = input.get(self.position..).unwrap_or_default();
                match memchr::memchr2(b'\r', b'\n', rest) {
                    Some(0) => {}
                    skipped => {
                        self.position += skipped.unwrap_or(rest.len());
                        continue;
                    }
                }
            }
            self.status_line_byte(byte)?;
            self.position += 1;
            if self.state == State::Fields {
                self.version = Version(self.major.saturating_mul(1000).saturating_add(self.minor));
                self.connection_close = self.version < Version::HTTP_11;
                if self.connection_close && self.status == Status::EARLY_HINTS {
                    return Err("upstream sent HTTP/1.0 response with early hints".into());
                }
            }
        }
        let rules = LineRules { underscores: true, status_lines_skipped: true };
        loop {
            match self.line.advance(input, &mut self.position, rules) {
                Line::Incomplete => return Ok(false),
                Line::Field => self.field(input)?,
                Line::End => {
                    if self.chunked {
                        self.content_length = None;
                    }
                    return Ok(true);
                }
                Line::Refused => {
                    return Err(self.line.refusal_message("upstream sent invalid header: ", input).into());
                }
            }
        }
    }

    /// Steps over the beginning of a status line of HTTP/1.0 or 1.1 in the usual form, up to the code.
    fn usual_status_line(&mut self, input: &[u8]) {
        let Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1'), b' ', code @ ..]) =
            input.first_chunk::<12>()
        else {
            return;
        };
        if code.iter().all(u8::is_ascii_digit) {
            (self.major, self.minor) = (1, u16::from(minor - b'0'));
            self.status = Status(code.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0')));
            self.status_text.start = 9;
            self.position = 12;
            self.state = State::AfterCode;
        }
    }

    /// Takes one byte of the status line.
    fn status_line_byte(&mut self, byte: u8) -> Result<(), Fault> {
        let digit = u16::from(byte.wrapping_sub(b'0'));
        self.state = match (self.state, byte) {
            (State::Begin, b'H') => State::Protocol(1),
            (State::Protocol(4), b'/') => State::MajorStart,
            (State::Protocol(matched), _) if b"HTTP".get(usize::from(matched)) == Some(&byte) => {
                State::Protocol(matched + 1)
            }
            (State::MajorStart, b'1'..=b'9') => {
                self.major = digit;
                State::Major
            }
            (State::Major, b'.') => State::MinorStart,
            (State::Major, b'0'..=b'9') if self.major <= 99 => {
                self.major = self.major * 10 + digit;
                State::Major
            }
            (State::MinorStart, b'0'..=b'9') => {
                self.minor = digit;
                State::Minor
            }
            (State::Minor, b' ') => State::Code(0),
            (State::Minor, b'0'..=b'9') if self.minor <= 99 => {
                self.minor = self.minor * 10 + digit;
                State::Minor
            }
            (State::Code(_), b' ') => self.state,
            (State::Code(count), b'0'..=b'9') => {
                self.status = Status(self.status.0 * 10 + digit);
                if count == 2 {
                    self.status_text.start = self.position.saturating_sub(2) as u32;
                    State::AfterCode
                } else {
                    State::Code(count + 1)
                }
            }
            (State::AfterCode, b' ' | b'.') => State::Reason,
            (State::AfterCode | State::Reason, b'\r') => {
                self.status_text.end = self.position as u32;
                State::AlmostDone
            }
            (State::AfterCode | State::Reason, b'\n') => {
                self.status_text.end = self.position as u32;
                State::Fields
            }
            (State::Reason, _) => State::Reason,
            (State::AlmostDone, b'\n') => State::Fields,
            _ => return Err(Fault::Headless),
        };
        Ok(())
    }

    /// One header line has come.
    fn field(&mut self, input: &[u8]) -> Result<(), Fault> {
        let (name_span, value_span) = (self.line.name_span(), self.line.value_span());
        let (name, value) = (name_span.of(input), value_span.of(input));
        let index = self.fields.len();
        if self.status == Status::EARLY_HINTS {
            self.fields.push_spans(input, name_span, value_span);
            return Ok(());
        }
        if !matches!(name.len(), 10 | 14 | 17) && self.earlier(input, name).is_none() {
            // Neither about the connection nor about the body, and not there before.
        } else if name.eq_ignore_ascii_case(b"content-length") {
            if let Some(previous) = self.length_place {
                return Err(self.duplicate(input, previous).into());
            }
            if self.encoding_place.is_some() {
                return Err(BOTH_LENGTHS.into());
            }
            self.length_place = Some(index);
            self.content_length = parse_length(value);
            if self.content_length.is_none() {
                let message =
                    [b"upstream sent invalid \"Content-Length\" header: \"", name, b": ", value, b"\""];
                return Err(message.concat().into());
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if let Some(previous) = self.encoding_place {
                return Err(self.duplicate(input, previous).into());
            }
            if self.length_place.is_some() {
                return Err(BOTH_LENGTHS.into());
            }
            self.encoding_place = Some(index);
            if !value.eq_ignore_ascii_case(b"chunked") {
                let message =
                    [&b"upstream sent unknown \"Transfer-Encoding\": \""[..], value, b"\""].concat();
                return Err(message.into());
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"connection") {
            self.connection_close |= value != b"keep-alive" && contains_ignoring_case(value, b"close");
        } else if let Some(previous) = self.earlier(input, name) {
            if self.warnings.len() < WARNINGS_MAX {
                let mut message = self.duplicate(input, previous);
                message.extend_from_slice(b", ignored");
                self.warnings.push(message);
            }
            return Ok(());
        }
        self.fields.push_spans(input, name_span, value_span);
        Ok(())
    }

    /// The place of an earlier field of this name, if the name may come once only.
    fn earlier(&self, input: &[u8], name: &[u8]) -> Option<usize> {
        if !self.fields.may_have(name) {
            return None;
        }
        let candidates = SINGLE.get(name.len()).copied().unwrap_or_default();
        if !candidates.iter().any(|single| name.eq_ignore_ascii_case(single)) {
            return None;
        }
        (0..self.fields.len()).find(|&index| {
            self.fields.spans_at(index).is_some_and(|(other, _)| other.of(input).eq_ignore_ascii_case(name))
        })
    }

    fn duplicate(&self, input: &[u8], previous: usize) -> Vec<u8> {
        let mut message = b"upstream sent duplicate header line: \"".to_vec();
        let earlier = self.fields.spans_at(previous).unwrap_or_default();
        for piece in [
            self.line.name_span().of(input),
            b": ",
            self.line.value_span().of(input),
            b"\", previous value: \"",
            earlier.0.of(input),
            b": ",
            earlier.1.of(input),
            b"\"",
        ] {
            message.extend_from_slice(piece);
        }
        message
    }
}

const BOTH_LENGTHS: &str =
    "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time";

/// Appends a status line, as nginx writes it: `HTTP/1.1 302 Moved Temporarily`, and `HTTP/1.1 418 ` where there are
/// no words. The version is always 1.1.
pub fn encode_status_line(status: Status, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    encode_number(u64::from(status.0), 3, out);
    out.push(b' ');
    out.extend_from_slice(status.reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends a status line with the text an upstream sent after the version ([`ResponseHead::status_text`]).
pub fn encode_status_text(status_text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status_text);
    out.extend_from_slice(b"\r\n");
}

/// Appends a request line.
pub fn encode_request_line(method: &[u8], target: &[u8], version: Version, out: &mut Vec<u8>) {
    for piece in [method, b" ", target, b" ", version.name(), b"\r\n"] {
        out.extend_from_slice(piece);
    }
}

/// Appends one header line. Neither name nor value is checked.
pub fn encode_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends every field as a header line. The empty line that ends a head is the caller's.
pub fn encode_fields(fields: &Fields, out: &mut Vec<u8>) {
    for (name, value) in fields.iter() {
        encode_field(name, value, out);
    }
}

/// As many digits as the largest number has.
const DIGITS_MAX: usize = 20;

/// The smallest number with more than so many digits.
static BOUNDS: [u64; DIGITS_MAX] = bounds();

const fn bounds() -> [u64; DIGITS_MAX] {
    let mut bounds = [1; DIGITS_MAX];
    let mut count = 1;
    while count < DIGITS_MAX {
        bounds[count] = bounds[count - 1] * 10;
        count += 1;
    }
    bounds
}

/// Appends a decimal number of at least `digits_min` digits (1 to 20), without going through a formatter. One copy of the
/// code for all callers stays in the processor's cache.
#[inline(never)]
pub fn encode_number(mut number: u64, digits_min: usize, out: &mut Vec<u8>) {
    let mut count = digits_min;
    while BOUNDS.get(count).is_some_and(|bound| number >= *bound) {
        count += 1;
    }
    let start = out.len();
    // Bytes of a fixed number are written without a call.
    out.extend_from_slice(&[b'0'; DIGITS_MAX]);
    out.truncate(start + count);
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}
