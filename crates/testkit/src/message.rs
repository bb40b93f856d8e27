//! HTTP messages as documents write them: requests and replies to send, and expectations to hold against what came.

use crate::document::Block;
use crate::text::{Pattern, Places, difference, show, unescape};
use bstr::ByteSlice;

/// A message that was received.
#[derive(Debug, Default, Clone)]
pub struct Message {
    /// The request line or status line; empty for an HTTP/0.9 answer.
    pub start: Vec<u8>,
    /// The fields in order, trailers behind the others.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body, chunked coding removed.
    pub body: Vec<u8>,
}

impl Message {
    /// Reads the head of a message, without the empty line.
    pub fn parse_head(head: &[u8]) -> Self {
        let mut lines = head.lines();
        let start = lines.next().unwrap_or_default().to_vec();
        let fields = lines.map(split_field).collect();
        Self { start, fields, body: Vec::new() }
    }

    /// All values of a field.
    pub fn values<'m>(&'m self, name: &'m [u8]) -> impl Iterator<Item = &'m [u8]> {
        self.fields.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_slice())
    }

    /// The first value of a field.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v.as_slice())
    }

    /// Whether a list field names this word.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        self.values(name.as_bytes())
            .flat_map(|v| v.split_str(","))
            .any(|w| w.trim().eq_ignore_ascii_case(word.as_bytes()))
    }

    /// The whole message for a person.
    pub fn shown(&self) -> String {
        let mut out = show(&self.start);
        for (name, value) in &self.fields {
            out += &format!("\n{}: {}", show(name), show(value));
        }
        out + "\n\n" + &show(&self.body)
    }
}

/// A header line as name and value.
pub fn split_field(line: &[u8]) -> (Vec<u8>, Vec<u8>) {
    match line.split_once_str(":") {
        Some((name, value)) => (name.to_vec(), value.trim().to_vec()),
        None => (line.to_vec(), Vec::new()),
    }
}

/// What a document says of a message that must come.
#[derive(Debug)]
pub struct Expected {
    start: Option<(usize, Start)>,
    fields: Vec<(usize, String, Option<Pattern>)>,
    body: Option<(usize, Pattern)>,
}

/// How a start line is compared.
#[derive(Debug)]
enum Start {
    /// `200`: the status alone.
    Status(String),
    /// `GET /path`: all but the protocol version.
    Begins(String),
    /// The line, exact or by regular expression.
    Line(Pattern),
}

impl Expected {
    /// Reads the lines of an expectation: start line, fields (`Name: value`, `Name: ~regex`, `!Name`), and behind an
    /// empty line the body. With `bare` there is a body alone; with `crlf` the lines of the body end in CR LF.
    ///
    /// # Errors
    /// With the line of the document: a field without a colon, a wrong escape or regular expression.
    pub fn parse<'b>(
        lines: impl Iterator<Item = (usize, &'b str)>,
        places: &Places,
        bare: bool,
        crlf: bool,
    ) -> Result<Self, (usize, String)> {
        let mut expected = Self { start: None, fields: Vec::new(), body: None };
        let mut lines = lines.peekable();
        let first_line = lines.peek().map_or(0, |(line, _)| *line);
        if !bare {
            let (line, text) = lines.next().unwrap_or((first_line, ""));
            expected.start = Some((line, Start::parse(text, places).map_err(|e| (line, e))?));
            loop {
                let Some((line, text)) = lines.next() else { return Ok(expected) };
                if text.is_empty() {
                    break;
                }
                expected
                    .fields
                    .push(parse_field(text, places).map(|(n, p)| (line, n, p)).map_err(|e| (line, e))?);
            }
        }
        let line = lines.peek().map_or(first_line, |(line, _)| *line);
        let body: Vec<&str> = lines.map(|(_, text)| text).collect();
        let pattern = match body.first().and_then(|first| first.strip_prefix('~')) {
            Some(_) => Pattern::regex(body.join("\n").trim_start_matches('~').trim_start(), places),
            None if crlf => unescape(&places.fill(&format!("{}\n", body.join("\n"))))
                .map(|b| Pattern::Exact(b.replace("\n", "\r\n"))),
            None => Pattern::parse(&body.join("\n"), places),
        };
        expected.body = Some((line, pattern.map_err(|e| (line, e))?));
        Ok(expected)
    }

    /// What is not as expected: line of the document and words.
    pub fn compare(&self, got: &Message) -> Vec<(usize, String)> {
        let mut failures = Vec::new();
        if let Some((line, start)) = &self.start
            && !start.matches(&got.start)
        {
            failures.push((*line, format!("expected: {start}\ngot:      {}", show(&got.start))));
        }
        let mut seen: Vec<&str> = Vec::new();
        for (line, name, _) in &self.fields {
            if seen.iter().any(|s| s.eq_ignore_ascii_case(name)) {
                continue;
            }
            seen.push(name);
            failures.extend(self.compare_field(name, got).map(|message| (*line, message)));
        }
        if let Some((line, body)) = &self.body
            && !body.matches(&got.body)
        {
            let message = match body {
                Pattern::Exact(exact) => difference(exact, &got.body),
                Pattern::Regex(_) => format!("expected: {body}\n--- got\n{}\n---", show(&got.body)),
            };
            failures.push((*line, format!("body: {message}")));
        }
        failures
    }

    /// All values of a field against all that are listed for it.
    fn compare_field(&self, name: &str, got: &Message) -> Option<String> {
        let listed: Vec<&Pattern> = self
            .fields
            .iter()
            .filter(|(_, n, _)| n.eq_ignore_ascii_case(name))
            .filter_map(|(_, _, p)| p.as_ref())
            .collect();
        let values: Vec<&[u8]> = got.values(name.as_bytes()).collect();
        let same = listed.len() == values.len() && listed.iter().zip(&values).all(|(p, v)| p.matches(v));
        let shown = |values: Vec<String>| match values.is_empty() {
            true => "(absent)".to_owned(),
            false => values.join("\n          "),
        };
        (!same).then(|| {
            format!(
                "{name}:\nexpected: {}\ngot:      {}",
                shown(listed.iter().map(ToString::to_string).collect()),
                shown(values.iter().map(|v| show(v)).collect())
            )
        })
    }
}

/// `Name: value`, `Name: ~regex` or `!Name`.
fn parse_field(text: &str, places: &Places) -> Result<(String, Option<Pattern>), String> {
    if let Some(name) = text.strip_prefix('!') {
        return Ok((name.trim().to_owned(), None));
    }
    let (name, value) = text.split_once(':').ok_or_else(|| format!("no colon in the field \"{text}\""))?;
    Ok((name.to_owned(), Some(Pattern::parse(value.trim(), places)?)))
}

impl Start {
    fn parse(text: &str, places: &Places) -> Result<Self, String> {
        if text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self::Status(text.to_owned()));
        }
        let words = text.split(' ').count();
        if words == 2 && !text.starts_with('~') && !text.starts_with("HTTP/") {
            return Ok(Self::Begins(places.fill(text)));
        }
        Pattern::parse(text, places).map(Self::Line)
    }

    fn matches(&self, got: &[u8]) -> bool {
        match self {
            Self::Status(status) => got.split_str(" ").nth(1) == Some(status.as_bytes()),
            Self::Begins(begin) => {
                got.strip_prefix(begin.as_bytes()).is_some_and(|rest| rest.starts_with(b" HTTP/"))
            }
            Self::Line(pattern) => pattern.matches(got),
        }
    }
}

impl std::fmt::Display for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(text) | Self::Begins(text) => f.write_str(text),
            Self::Line(pattern) => pattern.fmt(f),
        }
    }
}

/// Makes bytes of the lines of a message as documents write them.
///
/// The lines of a head end in CR LF, and the empty line behind the last head may be left out. The lines of a body are
/// joined by LF, without one at the end; those of a chunked body all end in CR LF. In requests, a line that looks like
/// a request line begins the next request. `\` at the end of a line leaves its line end out.
#[derive(Debug)]
pub struct Composer<'p> {
    places: &'p Places,
    requests: bool,
    raw: bool,
    out: Vec<u8>,
    head: bool,
    chunked: bool,
    /// The line end that is still owed: what follows decides whether it comes.
    owed: &'static [u8],
    /// The methods of the requests so far.
    pub methods: Vec<Vec<u8>>,
}

impl<'p> Composer<'p> {
    /// For requests (or replies); `raw`: the lines are joined by CR LF and nothing is added.
    pub fn new(places: &'p Places, requests: bool, raw: bool) -> Self {
        let methods = Vec::new();
        Self { places, requests, raw, out: Vec::new(), head: true, chunked: false, owed: b"", methods }
    }

    /// Adds a line.
    ///
    /// # Errors
    /// A wrong escape.
    pub fn push(&mut self, text: &str) -> Result<(), String> {
        let filled = self.places.fill(text);
        let (text, joined) = match filled.strip_suffix('\\') {
            Some(begin) if !begin.ends_with('\\') => (begin, true),
            _ => (filled.as_str(), false),
        };
        let line = unescape(text)?;
        let begins = self.requests && !self.raw && is_request_line(&line);
        if begins && !self.head {
            (self.head, self.chunked) = (true, false);
            self.owed = if self.owed == b"\n" { b"" } else { self.owed };
        }
        if begins {
            self.methods.push(line.split_str(" ").next().unwrap_or_default().to_vec());
        }
        self.out.extend_from_slice(self.owed);
        self.out.extend_from_slice(&line);
        self.owed = b"";
        let in_head = self.head && !self.raw;
        if in_head && line.is_empty() {
            self.out.extend_from_slice(b"\r\n");
            self.head = false;
            return Ok(());
        }
        if in_head {
            let (name, value) = split_field(&line);
            self.chunked |=
                name.eq_ignore_ascii_case(b"transfer-encoding") && value.eq_ignore_ascii_case(b"chunked");
        }
        if !joined {
            self.owed = if self.raw || self.head || self.chunked { b"\r\n" } else { b"\n" };
        }
        Ok(())
    }

    /// The bytes so far, cut off here: nothing is added but the line end of a head or chunk.
    pub fn cut(&mut self) -> Vec<u8> {
        if self.owed == b"\r\n" && !self.raw {
            self.out.extend_from_slice(self.owed);
        }
        self.owed = b"";
        std::mem::take(&mut self.out)
    }

    /// The bytes of the complete message.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = self.cut();
        if self.head && !self.raw {
            out.extend_from_slice(b"\r\n");
        }
        out
    }
}

/// Requests, ready to be sent.
#[derive(Debug)]
pub struct Composed {
    /// What goes over the connection.
    pub bytes: Vec<u8>,
    /// The method of each request: HEAD decides how its response is read.
    pub methods: Vec<Vec<u8>>,
}

/// The bytes of an `http` block and the methods of the requests in it.
///
/// # Errors
/// A wrong escape, with its line.
pub fn compose_block(block: &Block, places: &Places) -> Result<Composed, (usize, String)> {
    let mut composer = Composer::new(places, true, block.has("raw"));
    for (line, text) in block.lines() {
        composer.push(text).map_err(|e| (line, e))?;
    }
    let bytes = composer.finish();
    Ok(Composed { bytes, methods: composer.methods })
}

fn is_request_line(line: &[u8]) -> bool {
    let method = line.split_str(" ").next().unwrap_or_default();
    !method.is_empty()
        && method.iter().all(u8::is_ascii_uppercase)
        && (line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn composed(text: &str, raw: bool) -> String {
        let places = Places::default();
        let mut composer = Composer::new(&places, true, raw);
        text.split('\n').for_each(|line| composer.push(line).unwrap());
        String::from_utf8(composer.finish()).unwrap()
    }

    #[test]
    fn requests_become_bytes() {
        for (text, expected) in [
            ("GET / HTTP/1.0", "GET / HTTP/1.0\r\n\r\n"),
            ("GET / HTTP/1.1\nHost: x", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
            ("GET / HTTP/1.1\nHost: x\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
            (
                "POST / HTTP/1.0\nContent-Length: 3\n\na\nb",
                "POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\na\nb",
            ),
            (
                "POST / HTTP/1.1\nTransfer-Encoding: chunked\n\n1\na\n0\n",
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            ),
            ("GET /a HTTP/1.1\n\nGET /b HTTP/1.1", "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n"),
            ("PUT /a HTTP/1.0\n\nx\nGET /b HTTP/1.0", "PUT /a HTTP/1.0\r\n\r\nxGET /b HTTP/1.0\r\n\r\n"),
            ("GET / HTTP/1.1\\n\\\nHost: x", "GET / HTTP/1.1\nHost: x\r\n\r\n"),
        ] {
            assert_eq!(composed(text, false), expected, "{text}");
        }
        assert_eq!(composed("a\nb", true), "a\r\nb");
        assert_eq!(composed("a\n", true), "a\r\n");
    }

    #[test]
    fn methods_of_pipelined_requests_are_known() {
        let places = Places::default();
        let mut composer = Composer::new(&places, true, false);
        "HEAD / HTTP/1.1\n\nGET / HTTP/1.1".split('\n').for_each(|line| composer.push(line).unwrap());
        assert_eq!(composer.methods, [b"HEAD".to_vec(), b"GET".to_vec()]);
    }

    #[test]
    fn replies_are_cut_where_the_script_says() {
        let places = Places::default();
        let mut composer = Composer::new(&places, false, false);
        "HTTP/1.1 200 OK\n\nab\ncd".split('\n').for_each(|line| composer.push(line).unwrap());
        assert_eq!(composer.cut(), b"HTTP/1.1 200 OK\r\n\r\nab\ncd");
        composer.push("ef").unwrap();
        assert_eq!(composer.finish(), b"ef");
        let mut composer = Composer::new(&places, false, false);
        composer.push("HTTP/1.1 200 OK").unwrap();
        assert_eq!(composer.cut(), b"HTTP/1.1 200 OK\r\n");
    }

    #[test]
    fn expectations_are_compared_by_name() {
        let mut got = Message::parse_head(b"HTTP/1.1 200 OK\r\nServer: x\r\nSet-Cookie: a\r\nSet-Cookie: b");
        got.body = b"hi\n".to_vec();
        for (text, failures) in [
            ("HTTP/1.1 200 OK", 0),
            ("200", 0),
            ("404", 1),
            ("~ 200 ", 0),
            ("200\nserver: x\n!Location", 0),
            ("200\nServer: ~^y\n!Server", 1),
            ("200\nSet-Cookie: a", 1),
            ("200\nSet-Cookie: a\nSet-Cookie: b", 0),
            ("200\nSet-Cookie: b\nSet-Cookie: a", 1),
            ("200\n\nhi\n", 0),
            ("200\n\nhi", 1),
            ("200\n", 1),
            ("200\n\n~^h.\\s$", 0),
        ] {
            let expected =
                Expected::parse((1..).zip(text.split('\n')), &Places::default(), false, false).unwrap();
            assert_eq!(expected.compare(&got).len(), failures, "{text}: {:?}", expected.compare(&got));
        }
    }

    #[test]
    fn request_lines_may_leave_out_the_version() {
        let got = Message::parse_head(b"GET /a HTTP/1.1");
        for (text, failures) in [("GET /a", 0), ("GET /", 1), ("GET /a HTTP/1.1", 0), ("GET /a HTTP/1.0", 1)]
        {
            let expected =
                Expected::parse([(1, text)].into_iter(), &Places::default(), false, false).unwrap();
            assert_eq!(expected.compare(&got).len(), failures, "{text}");
        }
    }
}
