//! Request heads: from the bytes of a connection to a method, a target, header fields, and the facts nginx draws
//! from them before any module sees the request (host, framing, keep-alive).
//!
//! The scan goes on where it stopped, so that a head which comes in a thousand pieces costs what it costs in one.
//! Nothing is copied until the head is whole; then its bytes go into [`RequestHead::fields`] once, and everything
//! else is a range of them.

mod from_fields;

pub(crate) use from_fields::{FieldsReader, check_field};

use crate::fields::{Fields, Span};
use crate::header_line::{Line, LineRules, LineScan};
use crate::host::normalise_host;
use crate::known::{Known, Seen};
use crate::method::Method;
use crate::request_line::{LineEnd, RequestLine, Version};
use crate::status::Status;
use crate::uri::{UriParts, normalise};
use bstr::{BStr, BString};
use std::borrow::Cow;

/// How a head is to be read: the directives of the default server of the address a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadOptions {
    /// `ignore_invalid_headers`: drop lines with an unusual name, and say so.
    pub ignore_invalid_headers: bool,
    /// `underscores_in_headers`: `_` is not unusual.
    pub underscores_in_headers: bool,
    /// `merge_slashes`: `//` in a path becomes `/`.
    pub merge_slashes: bool,
    /// Is the CONNECT method let through?
    pub allow_connect: bool,
    /// Is the CONNECT method with a protocol let through (RFC 8441)?
    pub allow_extended_connect: bool,
    /// `client_header_buffer_size`, in bytes.
    pub first_buffer_bytes: usize,
    /// `large_client_header_buffers`, size of each: no line may be longer, in bytes.
    pub header_line_bytes_max: usize,
    /// `large_client_header_buffers`, how many.
    pub large_buffers_max: usize,
    /// `max_headers`.
    pub fields_max: usize,
}

impl Default for HeadOptions {
    /// What nginx does when nothing is configured.
    fn default() -> HeadOptions {
        HeadOptions {
            ignore_invalid_headers: true,
            underscores_in_headers: false,
            merge_slashes: true,
            allow_connect: false,
            allow_extended_connect: false,
            first_buffer_bytes: 1024,
            header_line_bytes_max: 8192,
            large_buffers_max: 4,
            fields_max: 1000,
        }
    }
}

impl HeadOptions {
    /// The most bytes a head can have: the caller's buffer never has to be larger.
    pub fn header_bytes_max(&self) -> usize {
        self.first_buffer_bytes
            .saturating_add(self.header_line_bytes_max.saturating_mul(self.large_buffers_max))
    }
}

/// What [`parse_request_head`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parse {
    /// More bytes are needed. Call again with the same bytes and more behind them.
    Incomplete,
    /// The head is whole.
    Complete {
        /// How many bytes of the input it took, empty lines before it included.
        consumed: usize,
    },
    /// The head is refused; the connection must be closed after the answer.
    Refused(Refusal),
}

/// Why a head is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What to answer. 494 is answered as 400 ([`Status::as_sent`]).
    pub status: Status,
    /// nginx's message, for the error log at level `info`.
    pub message: Cow<'static, BStr>,
    /// Must the connection linger before it is closed, because the client is still sending?
    pub lingering: bool,
}

impl Refusal {
    fn new(status: Status, message: &'static str) -> Refusal {
        Refusal { status, message: Cow::Borrowed(BStr::new(message)), lingering: false }
    }

    fn owned(status: Status, message: Vec<u8>) -> Refusal {
        Refusal { status, message: Cow::Owned(BString::from(message)), lingering: false }
    }
}

/// How the end of a request's body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// That many bytes; may be 0.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// What the `Connection` fields ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// Neither.
    #[default]
    Unsaid,
    /// `close`.
    Close,
    /// `keep-alive`.
    KeepAlive,
}

/// A request's head. One value serves a whole connection: [`RequestHead::clear`] keeps its memory.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The version; a minor version above 1 counts as its own number.
    pub version: Version,
    /// The header fields, names as they were written.
    pub fields: Fields,
    /// The decoded, simplified path; see [`crate::uri::normalise`].
    pub path: Vec<u8>,
    /// Details of the target.
    pub parts: UriParts,
    /// What the `Connection` fields ask for.
    pub connection: Connection,
    /// Bytes of the head, without the empty lines before it: where `$request_length` starts.
    pub length: usize,
    host: Vec<u8>,
    port: u16,
    content_length: Option<u64>,
    chunked: bool,
    /// A request of HTTP/0.9, known by its line.
    is_http_09: bool,
    ignored: Vec<Span>,
    /// Pieces of a cookie on their way to one field.
    crumbs: Vec<u8>,
    connect_protocol: Span,
    seen: Seen,
    line: RequestLine,
    scan: Scan,
}

/// How far the scan has come.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    position: usize,
    line: LineScan,
    in_fields: bool,
    /// Room left in the buffer nginx would be reading into, from the start of the line under way.
    room: usize,
    large_buffers: usize,
    has_room: bool,
}

/// How much of a line a message shows, in bytes, as in nginx.
const SHOWN_BYTES_MAX: usize = 2048 - 300;

/// Reads a request head from `input`, which holds everything that came since the last request: when more comes,
/// call again with the whole. `out` must be clear before the first call for a request and is left alone by others.
pub fn parse_request_head(input: &[u8], options: &HeadOptions, out: &mut RequestHead) -> Parse {
    match out.advance(input, options) {
        Ok(true) => {
            out.settle(input.get(..out.scan.position).unwrap_or(input));
            out.length = out.scan.position - out.line.start;
            Parse::Complete { consumed: out.scan.position }
        }
        Ok(false) => Parse::Incomplete,
        Err(refusal) => {
            out.settle(input.get(..options.header_bytes_max()).unwrap_or(input));
            Parse::Refused(refusal)
        }
    }
}

impl RequestHead {
    /// Makes it as new, keeping its buffers.
    pub fn clear(&mut self) {
        let RequestHead {
            method,
            version,
            fields,
            path,
            parts,
            connection,
            length,
            host,
            port,
            content_length,
            chunked,
            is_http_09,
            ignored,
            crumbs,
            connect_protocol,
            seen,
            line,
            scan,
        } = self;
        fields.clear();
        for buffer in [path, host, crumbs] {
            buffer.clear();
        }
        ignored.clear();
        (*method, *version, *connection) = (Method::default(), Version::default(), Connection::default());
        (*parts, *length, *port, *content_length) = (UriParts::default(), 0, 0, None);
        (*chunked, *is_http_09, *connect_protocol) = (false, false, Span::default());
        *seen = Seen::default();
        *line = RequestLine::default();
        *scan = Scan::default();
    }

    /// Keeps what came of a head that will never be whole (the client went away, or was too slow), so that
    /// [`RequestHead::request_line`] can be logged. [`parse_request_head`] does it for complete and refused heads.
    pub fn settle(&mut self, input: &[u8]) {
        self.fields.settle(input);
        if self.line.end == 0 {
            let shown = input.get(self.line.start..).unwrap_or_default();
            self.line.end = self.line.start + memchr::memchr2(b'\r', b'\n', shown).unwrap_or(shown.len());
        }
    }

    /// Has anything but empty lines come? A connection that closes before that is simply idle.
    pub fn is_started(&self) -> bool {
        self.scan.in_fields || !self.line.is_unstarted()
    }

    /// Is it a request of HTTP/0.9, whose answer has no head?
    pub fn is_http_09(&self) -> bool {
        self.is_http_09
    }

    /// Did the request line come whole?
    pub fn is_past_request_line(&self) -> bool {
        self.scan.in_fields
    }

    /// The request line without its line end, `$request`. For a refused line: what came of it.
    pub fn request_line(&self) -> &[u8] {
        Span::new(self.line.start, self.line.end).of(self.fields.text())
    }

    /// The method's text.
    pub fn method_text(&self) -> &[u8] {
        Span::new(self.line.start, self.line.method_end).of(self.fields.text())
    }

    /// The target as it came, `$request_uri`, without the scheme and host of an absolute one.
    pub fn target(&self) -> &[u8] {
        self.line.target.of(self.fields.text())
    }

    /// What follows the `?` of the target, without a fragment.
    pub fn args(&self) -> &[u8] {
        self.parts.args.of(self.target())
    }

    /// The extension of the path's last segment, without its dot.
    pub fn exten(&self) -> &[u8] {
        self.parts.exten.of(&self.path)
    }

    /// The scheme of an absolute target; empty: the target was not absolute.
    pub fn target_scheme(&self) -> &[u8] {
        self.line.scheme.of(self.fields.text())
    }

    /// Host and port of an absolute target, as they came; empty: the target was not absolute.
    pub fn target_host(&self) -> &[u8] {
        self.line.host.of(self.fields.text())
    }

    /// The protocol as it came (`HTTP/1.1`), `$server_protocol`; empty in HTTP/0.9.
    pub fn protocol(&self) -> &[u8] {
        self.line.protocol.of(self.fields.text())
    }

    /// The host the request is for, normalised, without its port: of an absolute target, else of `Host`.
    pub fn host(&self) -> Option<&[u8]> {
        (!self.host.is_empty()).then_some(&self.host)
    }

    /// The port beside that host, unless none (or 0) was given.
    pub fn port(&self) -> Option<u16> {
        (self.port != 0).then_some(self.port)
    }

    /// Lines that were dropped because of their names, for `client sent invalid header line: "..."`.
    pub fn ignored_lines(&self) -> impl Iterator<Item = &[u8]> + '_ {
        self.ignored.iter().map(|line| line.of(self.fields.text()))
    }

    /// How the end of the body is found (RFC 9112, section 6.3). Ambiguous requests were refused before.
    pub fn framing(&self) -> Framing {
        match (self.chunked, self.content_length) {
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::None,
        }
    }

    /// May the connection be used again, as far as the client is concerned?
    pub fn keep_alive(&self) -> bool {
        match self.connection {
            _ if self.method == Method::Connect => false,
            Connection::Unsaid => self.version > Version::HTTP_10,
            Connection::Close => false,
            Connection::KeepAlive => true,
        }
    }

    /// Does the client wait for `100 Continue` before it sends the body?
    pub fn expects_continue(&self) -> bool {
        self.version >= Version::HTTP_11
            && self.fields.get(b"Expect").is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
    }

    /// Goes on with the scan. `true`: the head is whole.
    fn advance(&mut self, input: &[u8], options: &HeadOptions) -> Result<bool, Refusal> {
        if !self.scan.in_fields {
            if !self.request_line_bytes(input, options)? {
                return Ok(false);
            }
            if self.version < Version::HTTP_10 {
                return Ok(true);
            }
        }
        let rules = LineRules { underscores: options.underscores_in_headers, status_lines_skipped: false };
        if self.scan.room == 0 && self.scan.line.start() == 0 {
            self.next_buffer(input, options)?;
        }
        loop {
            let found = self.scan.line.advance(input, &mut self.scan.position, rules);
            if found == Line::Incomplete && self.scan.line.is_between_lines() {
                return Ok(false);
            }
            let bytes = self.scan.position - self.scan.line.start() + usize::from(found == Line::Refused);
            self.take_room(bytes, found != Line::Incomplete, options)
                .map_err(|()| self.too_large(input, self.scan.room))?;
            match found {
                Line::Incomplete => return Ok(false),
                Line::Field => {
                    self.field(input, options)?;
                    if self.scan.room == 0 {
                        self.next_buffer(input, options)?;
                    }
                }
                Line::End => return self.end_of_fields(options).map(|()| true),
                Line::Refused => {
                    let message = self.scan.line.refusal_message("client sent invalid header line: ", input);
                    return Err(Refusal::owned(Status::BAD_REQUEST, message));
                }
            }
        }
    }

    fn request_line_bytes(&mut self, input: &[u8], options: &HeadOptions) -> Result<bool, Refusal> {
        let end = self.line.advance(input, &mut self.scan.position);
        if self.line.start > options.first_buffer_bytes {
            // nginx throws empty lines away for as long as they come; here they may fill one buffer.
            return Err(Refusal::new(Status::BAD_REQUEST, "client sent invalid request"));
        }
        if end == LineEnd::Incomplete && self.line.is_unstarted() {
            return Ok(false);
        }
        if !self.scan.has_room {
            self.scan.has_room = true;
            self.scan.room = options.first_buffer_bytes - self.line.start;
        }
        // A byte that has no place was only seen if it came before the end of the buffer.
        let offence = usize::from(!matches!(end, LineEnd::Incomplete | LineEnd::Complete));
        let bytes = self.scan.position - self.line.start + offence;
        self.take_room(bytes, end != LineEnd::Incomplete, options)
            .map_err(|()| Refusal::new(Status::REQUEST_URI_TOO_LARGE, "client sent too long URI"))?;
        self.is_http_09 = match end {
            LineEnd::Complete => self.line.version() < Version::HTTP_10,
            end => end == LineEnd::InvalidMethodOf09,
        };
        let (status, message) = match end {
            LineEnd::Incomplete => return Ok(false),
            LineEnd::Complete => {
                self.request_line_parsed(input, options)?;
                self.scan.in_fields = true;
                return Ok(true);
            }
            LineEnd::InvalidMethod => (Status::BAD_REQUEST, "client sent invalid method"),
            LineEnd::InvalidRequest => (Status::BAD_REQUEST, "client sent invalid request"),
            LineEnd::InvalidVersion => (Status::VERSION_NOT_SUPPORTED, "client sent invalid version"),
            LineEnd::InvalidMethodOf09 => {
                (Status::BAD_REQUEST, "client sent invalid method in HTTP/0.9 request")
            }
        };
        Err(Refusal::new(status, message))
    }

    fn request_line_parsed(&mut self, input: &[u8], options: &HeadOptions) -> Result<(), Refusal> {
        self.method = self.line.method;
        self.version = self.line.version();
        let target = self.line.target.of(input);
        self.parts = normalise(target, options.merge_slashes, &mut self.path)
            .map_err(|_| Refusal::new(Status::BAD_REQUEST, "client sent invalid request"))?;
        let host = self.line.host.of(input);
        if self.line.host.end > 0 {
            self.port = normalise_host(host, &mut self.host)
                .map_err(|_| Refusal::new(Status::BAD_REQUEST, "client sent invalid host in request line"))?;
        }
        Ok(())
    }

    /// One header line has come.
    fn field(&mut self, input: &[u8], options: &HeadOptions) -> Result<(), Refusal> {
        let line = &self.scan.line;
        if line.has_unusual_name() && options.ignore_invalid_headers {
            if self.ignored.len() < options.fields_max {
                self.ignored.push(line.content());
            }
            return Ok(());
        }
        if self.fields.len() >= options.fields_max {
            return Err(Refusal {
                lingering: true,
                ..Refusal::new(Status::REQUEST_HEADER_TOO_LARGE, "client sent too many header lines")
            });
        }
        let (name, value) = (line.name_span(), line.value_span());
        let index = self.fields.len();
        self.fields.push_spans(input, name, value);
        let Some(known) = Known::of(name.of(input)) else { return Ok(()) };
        if let Some(previous) = self.seen.mark(known, index) {
            return Err(self.duplicate(known, input, previous));
        }
        match known {
            Known::Host => self.host_field(value.of(input)),
            Known::Connection => {
                let value = value.of(input);
                if contains_ignoring_case(value, b"close") {
                    self.connection = Connection::Close;
                } else if contains_ignoring_case(value, b"keep-alive") {
                    self.connection = Connection::KeepAlive;
                }
                Ok(())
            }
            Known::ContentLength => {
                // Judged when the head is whole, as in nginx, so that errors come in its order.
                self.content_length = parse_length(value.of(input));
                Ok(())
            }
            Known::TransferEncoding => {
                let value = value.of(input);
                self.chunked = value.eq_ignore_ascii_case(b"chunked");
                if !self.chunked {
                    self.seen.encoding_message =
                        Some([b"client sent unknown \"Transfer-Encoding\": \"", value, b"\""].concat());
                }
                Ok(())
            }
            _ => Ok(()),
        }
        .map_err(|message: &'static str| Refusal::new(Status::BAD_REQUEST, message))
    }

    fn host_field(&mut self, value: &[u8]) -> Result<(), &'static str> {
        let invalid = |_| "client sent invalid host header";
        if self.host.is_empty() {
            self.port = normalise_host(value, &mut self.host).map_err(invalid)?;
        } else {
            // The host of an absolute target wins (RFC 9112, section 3.2.2), but this one is checked all the same.
            normalise_host(value, &mut Vec::new()).map_err(invalid)?;
        }
        Ok(())
    }

    fn duplicate(&self, known: Known, input: &[u8], previous: usize) -> Refusal {
        let what = if known == Known::Host { "host header" } else { "header line" };
        let mut message = Vec::from(format!("client sent duplicate {what}: "));
        let mut show = |before: &[u8], name: Span, value: Span| {
            for piece in [before, name.of(input), b": ", value.of(input), b"\""] {
                message.extend_from_slice(piece);
            }
        };
        show(b"\"", self.scan.line.name_span(), self.scan.line.value_span());
        if let Some((name, value)) = self.fields.spans_at(previous) {
            show(b", previous value: \"", name, value);
        }
        Refusal::owned(Status::BAD_REQUEST, message)
    }

    /// What can be judged only when every field is known (`ngx_http_process_request_header`'s order).
    fn end_of_fields(&mut self, options: &HeadOptions) -> Result<(), Refusal> {
        let refuse = |status, message| Err(Refusal::new(status, message));
        let has_length = self.seen.has(Known::ContentLength);
        if !self.seen.has(Known::Host) && self.version > Version::HTTP_10 {
            return refuse(Status::BAD_REQUEST, "client sent HTTP/1.1 request without \"Host\" header");
        }
        if has_length && self.content_length.is_none() {
            return refuse(Status::BAD_REQUEST, "client sent invalid \"Content-Length\" header");
        }
        if self.seen.has(Known::TransferEncoding) {
            if self.version < Version::HTTP_11 {
                return refuse(
                    Status::BAD_REQUEST,
                    "client sent HTTP/1.0 request with \"Transfer-Encoding\" header",
                );
            }
            if let Some(message) = self.seen.encoding_message.take() {
                return Err(Refusal::owned(Status::NOT_IMPLEMENTED, message));
            }
            if has_length {
                return refuse(
                    Status::BAD_REQUEST,
                    "client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
                );
            }
        }
        match self.method {
            Method::Connect if self.version != Version::HTTP_11 || !options.allow_connect => {
                refuse(Status::NOT_ALLOWED, "client sent CONNECT method")
            }
            Method::Connect if self.chunked || self.content_length.is_some_and(|length| length > 0) => {
                refuse(Status::BAD_REQUEST, "client sent CONNECT request with body")
            }
            Method::Trace => refuse(Status::NOT_ALLOWED, "client sent TRACE method"),
            _ => Ok(()),
        }
    }

    /// A buffer is full just where a line ends, so that nginx wants the next one at once.
    fn next_buffer(&mut self, input: &[u8], options: &HeadOptions) -> Result<(), Refusal> {
        let line_bytes = self.scan.position - self.scan.line.start();
        self.take_room(0, false, options).map_err(|()| self.too_large(input, line_bytes))
    }

    /// The refusal of a head that fills the buffers, with what they hold of the last line.
    fn too_large(&self, input: &[u8], shown_bytes: usize) -> Refusal {
        let start = self.scan.line.start();
        let message = if start == 0 {
            b"client sent too large request".to_vec()
        } else {
            let shown = input.get(start..).unwrap_or_default();
            let shown = shown.get(..shown_bytes.min(SHOWN_BYTES_MAX)).unwrap_or(shown);
            [b"client sent too long header line: \"", shown, b"...\""].concat()
        };
        Refusal { lingering: true, ..Refusal::owned(Status::REQUEST_HEADER_TOO_LARGE, message) }
    }

    /// Accounts for a line of `bytes` as nginx's buffers would: a line that does not fit the rest of one is moved
    /// to the start of the next large one; a line that fills a large one, or a want of large ones, is too much.
    fn take_room(&mut self, bytes: usize, complete: bool, options: &HeadOptions) -> Result<(), ()> {
        let scan = &mut self.scan;
        while if complete { bytes > scan.room } else { bytes >= scan.room } {
            let too_long = scan.room >= options.header_line_bytes_max && bytes > 0;
            if too_long || scan.large_buffers >= options.large_buffers_max {
                return Err(());
            }
            scan.large_buffers += 1;
            scan.room = options.header_line_bytes_max.max(1);
        }
        if complete {
            scan.room -= bytes;
        }
        Ok(())
    }
}

/// Is `needle` (lowercase) somewhere in `text`?
pub(crate) fn contains_ignoring_case(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle))
}

/// The number in a `Content-Length`: digits only, at most what a signed 64-bit size holds.
pub(crate) fn parse_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut value: u64 = 0;
    for &byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
    }
    (value <= i64::MAX as u64).then_some(value)
}
