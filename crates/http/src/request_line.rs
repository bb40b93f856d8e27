//! The request line, as leniently and as strictly as nginx reads it: any number of empty lines before it, spaces in
//! numbers, HTTP/0.9, absolute targets, and a refusal at the very byte that has no place.

use crate::fields::Span;
use crate::method::Method;

/// The version of a request or an answer: 1000 times the major number plus the minor one, so that 9 is HTTP/0.9.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u16);

impl Version {
    /// HTTP/0.9: a request line without a version, an answer without a head.
    pub const HTTP_09: Version = Version(9);
    /// HTTP/1.0.
    pub const HTTP_10: Version = Version(1000);
    /// HTTP/1.1.
    pub const HTTP_11: Version = Version(1001);
    /// HTTP/2.
    pub const HTTP_2: Version = Version(2000);
    /// HTTP/3.
    pub const HTTP_3: Version = Version(3000);

    /// The name `$server_protocol` gives it.
    pub fn name(self) -> &'static [u8] {
        match self.0 {
            0..=999 => b"HTTP/0.9",
            1000 => b"HTTP/1.0",
            1001..=1999 => b"HTTP/1.1",
            2000..=2999 => b"HTTP/2.0",
            _ => b"HTTP/3.0",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    Method,
    BeforeTarget,
    Scheme,
    /// How many of the two slashes after the scheme's colon have come.
    SchemeSlash(u8),
    BeforeHost,
    HostStart,
    Host,
    HostEnd,
    AddressLiteral,
    PortStart,
    Port,
    Target,
    AfterTarget,
    /// How many bytes of `HTTP/` have come.
    Protocol(u8),
    MajorStart,
    Major,
    MinorStart,
    Minor,
    AfterVersion,
    AlmostDone,
}

/// The scan of a request line; offsets count from the start of the input.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestLine {
    state: State,
    /// Where the line starts, after any empty lines.
    pub start: usize,
    pub end: usize,
    pub method: Method,
    pub method_end: usize,
    pub scheme: Span,
    pub host: Span,
    pub target: Span,
    /// `HTTP/1.1` and the spaces after it.
    pub protocol: Span,
    major: u16,
    minor: u16,
    protocol_start: usize,
}

/// What the scan came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineEnd {
    Incomplete,
    Complete,
    InvalidMethod,
    InvalidRequest,
    InvalidVersion,
    InvalidMethodOf09,
}

const PROTOCOL: &[u8; 5] = b"HTTP/";

fn is_method_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'_' || byte == b'-'
}

impl RequestLine {
    /// Goes on at `*position`; on [`LineEnd::Complete`] it stands after the line.
    pub fn advance(&mut self, input: &[u8], position: &mut usize) -> LineEnd {
        while let Some(&byte) = input.get(*position) {
            let here = *position;
            let step = match self.state {
                State::Start | State::Method => self.method_byte(input, position, byte),
                State::Target => self.target_bytes(input, position),
                State::AfterTarget | State::Protocol(_) => self.protocol_byte(byte, here),
                State::MajorStart
                | State::Major
                | State::MinorStart
                | State::Minor
                | State::AfterVersion
                | State::AlmostDone => self.version_byte(byte, here),
                State::BeforeTarget | State::Scheme | State::SchemeSlash(_) => self.scheme_byte(byte, here),
                _ => self.host_byte(byte, here),
            };
            match step {
                Step::On => *position += 1,
                Step::Stay => {}
                Step::Done => {
                    *position += 1;
                    return self.complete(here);
                }
                Step::Refused(why) => return why,
            }
        }
        LineEnd::Incomplete
    }

    /// Have only empty lines come so far?
    pub fn is_unstarted(&self) -> bool {
        self.state == State::Start
    }

    /// The version; 0.9 when none was given.
    pub fn version(&self) -> Version {
        Version(self.major * 1000 + self.minor)
    }

    fn complete(&mut self, line_feed: usize) -> LineEnd {
        if self.state != State::AlmostDone {
            self.end = line_feed;
        }
        if self.protocol_start > 0 {
            self.protocol = Span::new(self.protocol_start, self.end);
        }
        if self.version() == Version::HTTP_09 && self.method != Method::Get {
            return LineEnd::InvalidMethodOf09;
        }
        LineEnd::Complete
    }

    fn method_byte(&mut self, input: &[u8], position: &mut usize, byte: u8) -> Step {
        if self.state == State::Start {
            self.start = *position;
            if byte == b'\r' || byte == b'\n' {
                return Step::On;
            }
            if !is_method_byte(byte) {
                return Step::Refused(LineEnd::InvalidMethod);
            }
            self.state = State::Method;
        }
        let rest = input.get(*position..).unwrap_or_default();
        let Some(length) = rest.iter().position(|&byte| !is_method_byte(byte)) else {
            *position = input.len();
            return Step::Stay;
        };
        *position += length;
        if rest.get(length) != Some(&b' ') {
            return Step::Refused(LineEnd::InvalidMethod);
        }
        self.method_end = *position;
        self.method = Method::parse(input.get(self.start..self.method_end).unwrap_or_default());
        self.state = if self.method == Method::Connect { State::BeforeHost } else { State::BeforeTarget };
        Step::On
    }

    fn scheme_byte(&mut self, byte: u8, here: usize) -> Step {
        match (self.state, byte) {
            (State::BeforeTarget, b' ') => {}
            (State::BeforeTarget, b'/') => {
                self.target.start = here as u32;
                self.state = State::Target;
            }
            (State::BeforeTarget, b'a'..=b'z' | b'A'..=b'Z') => {
                self.scheme.start = here as u32;
                self.state = State::Scheme;
            }
            (State::Scheme, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.') => {}
            (State::Scheme, b':') => {
                self.scheme.end = here as u32;
                self.state = State::SchemeSlash(0);
            }
            (State::SchemeSlash(0), b'/') => self.state = State::SchemeSlash(1),
            (State::SchemeSlash(_), b'/') => self.state = State::HostStart,
            _ => return Step::Refused(LineEnd::InvalidRequest),
        }
        Step::On
    }

    fn host_byte(&mut self, byte: u8, here: usize) -> Step {
        match (self.state, byte) {
            (State::BeforeHost, b' ') => {}
            (State::BeforeHost | State::HostStart, b'[') => {
                self.host.start = here as u32;
                self.state = State::AddressLiteral;
            }
            (State::BeforeHost | State::HostStart, _) => {
                self.host.start = here as u32;
                self.state = State::Host;
                return Step::Stay;
            }
            (State::Host, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-') => {}
            (State::Host | State::HostEnd, b':') => self.state = State::PortStart,
            (State::Host | State::HostEnd, _) => return self.host_end(byte, here, false),
            (State::AddressLiteral, b']') => self.state = State::HostEnd,
            (State::AddressLiteral, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') => {}
            (State::AddressLiteral, byte) if b":-._~!$&'()*+,;=".contains(&byte) => {}
            (State::PortStart, b'0'..=b'9') => self.state = State::Port,
            (State::PortStart, _) if self.method != Method::Connect => {
                return self.host_end(byte, here, true);
            }
            (State::Port, b'0'..=b'9') => {}
            (State::Port, _) => return self.host_end(byte, here, true),
            _ => return Step::Refused(LineEnd::InvalidRequest),
        }
        Step::On
    }

    /// What follows a host, or a host and a port. Without a path the target is a slash taken from nearby text
    /// (`://`, `HTTP/`), so that it is a range like any other.
    fn host_end(&mut self, byte: u8, here: usize, after_port: bool) -> Step {
        self.host.end = here as u32;
        let connect = self.method == Method::Connect;
        match byte {
            b' ' if connect && after_port => self.state = State::AfterTarget,
            b' ' if !connect => {
                let slash = self.scheme.end as usize + 1;
                self.target = Span::new(slash, slash + 1);
                self.state = State::AfterTarget;
            }
            b'/' | b'?' if !connect => {
                self.target.start = here as u32;
                self.state = State::Target;
            }
            _ => return Step::Refused(LineEnd::InvalidRequest),
        }
        Step::On
    }

    fn target_bytes(&mut self, input: &[u8], position: &mut usize) -> Step {
        let rest = input.get(*position..).unwrap_or_default();
        let Some(length) = rest.iter().position(|&byte| byte <= 0x20 || byte == 0x7f) else {
            *position = input.len();
            return Step::Stay;
        };
        *position += length;
        self.target.end = *position as u32;
        match rest.get(length) {
            Some(b' ') if self.usual_version(rest.get(length + 1..).unwrap_or_default(), *position + 1) => {
                // It stands at the line feed now.
                *position += " HTTP/1.1\r".len();
                return Step::Done;
            }
            Some(b' ') => self.state = State::AfterTarget,
            Some(b'\r') => {
                self.version_is_missing();
                self.end = *position;
                self.state = State::AlmostDone;
            }
            Some(b'\n') => {
                self.version_is_missing();
                return Step::Done;
            }
            _ => return Step::Refused(LineEnd::InvalidRequest),
        }
        Step::On
    }

    /// Takes the end of a line in its usual form, `HTTP/1.1` and no more, in one step.
    fn usual_version(&mut self, rest: &[u8], here: usize) -> bool {
        let Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1'), b'\r', b'\n']) =
            rest.first_chunk::<10>()
        else {
            return false;
        };
        self.protocol_start = here;
        (self.major, self.minor) = (1, u16::from(minor - b'0'));
        self.end = here + "HTTP/1.1".len();
        self.state = State::AlmostDone;
        true
    }

    fn version_is_missing(&mut self) {
        self.major = 0;
        self.minor = 9;
    }

    fn protocol_byte(&mut self, byte: u8, here: usize) -> Step {
        match (self.state, byte) {
            (State::AfterTarget, b' ') => {}
            (State::AfterTarget, b'\r') => {
                self.version_is_missing();
                self.end = here;
                self.state = State::AlmostDone;
            }
            (State::AfterTarget, b'\n') => {
                self.version_is_missing();
                return Step::Done;
            }
            (State::AfterTarget, b'H') => {
                self.protocol_start = here;
                self.state = State::Protocol(1);
            }
            (State::Protocol(matched), _) if PROTOCOL.get(usize::from(matched)) == Some(&byte) => {
                if byte == b'/' {
                    if self.method == Method::Connect {
                        self.target = Span::new(here, here + 1);
                    }
                    self.state = State::MajorStart;
                } else {
                    self.state = State::Protocol(matched + 1);
                }
            }
            _ => return Step::Refused(LineEnd::InvalidRequest),
        }
        Step::On
    }

    fn version_byte(&mut self, byte: u8, here: usize) -> Step {
        let digit = u16::from(byte.wrapping_sub(b'0'));
        match (self.state, byte) {
            (State::MajorStart, b'1'..=b'9') => {
                self.major = digit;
                self.state = State::Major;
            }
            (State::Major, b'.') => {
                self.state = State::MinorStart;
                return Step::On;
            }
            (State::Major, b'0'..=b'9') => self.major = self.major * 10 + digit,
            (State::MinorStart, b'0'..=b'9') => {
                self.minor = digit;
                self.state = State::Minor;
            }
            (State::Minor | State::AfterVersion, b' ') => self.state = State::AfterVersion,
            (State::Minor | State::AfterVersion, b'\r') => {
                self.end = here;
                self.state = State::AlmostDone;
            }
            (State::Minor | State::AfterVersion | State::AlmostDone, b'\n') => return Step::Done,
            (State::Minor, b'0'..=b'9') if self.minor <= 99 => self.minor = self.minor * 10 + digit,
            _ => return Step::Refused(LineEnd::InvalidRequest),
        }
        if self.major > 1 {
            return Step::Refused(LineEnd::InvalidVersion);
        }
        Step::On
    }
}

enum Step {
    /// The byte was taken.
    On,
    /// Look again, at the place or in the state that is now set.
    Stay,
    /// The byte ended the line.
    Done,
    Refused(LineEnd),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(input: &[u8], cut: usize) -> String {
        let mut line = RequestLine::default();
        let mut position = 0;
        for piece in [&input[..cut], input] {
            match line.advance(piece, &mut position) {
                LineEnd::Incomplete => {}
                LineEnd::Complete => {
                    let text = |span: Span| String::from_utf8_lossy(span.of(input)).into_owned();
                    return format!(
                        "{} {} {} host={} scheme={} line={:?} left={}",
                        text(Span::new(line.start, line.method_end)),
                        text(line.target),
                        line.version().0,
                        text(line.host),
                        text(line.scheme),
                        text(Span::new(line.start, line.end)),
                        input.len() - position
                    );
                }
                other => return format!("{other:?}"),
            }
        }
        "Incomplete".to_string()
    }

    #[test]
    fn lines_as_nginx_takes_them() {
        let cases: &[(&str, &str)] = &[
            ("GET / HTTP/1.1\r\nx", r#"GET / 1001 host= scheme= line="GET / HTTP/1.1" left=1"#),
            ("\r\n\nGET / HTTP/1.0\n", r#"GET / 1000 host= scheme= line="GET / HTTP/1.0" left=0"#),
            (
                "M-X_  /a?b#c  HTTP/1.07  \r\n",
                r#"M-X_ /a?b#c 1007 host= scheme= line="M-X_  /a?b#c  HTTP/1.07  " left=0"#,
            ),
            ("GET /\r\n", r#"GET / 9 host= scheme= line="GET /" left=0"#),
            ("GET / \n", r#"GET / 9 host= scheme= line="GET / " left=0"#),
            ("POST /\r\n", "InvalidMethodOf09"),
            (
                "GET http://a.b HTTP/1.1\r\n",
                r#"GET / 1001 host=a.b scheme=http line="GET http://a.b HTTP/1.1" left=0"#,
            ),
            (
                "GET h://a:8/x HTTP/1.1\r\n",
                r#"GET /x 1001 host=a:8 scheme=h line="GET h://a:8/x HTTP/1.1" left=0"#,
            ),
            (
                "GET h://[::1]:?x HTTP/1.1\r\n",
                r#"GET ?x 1001 host=[::1]: scheme=h line="GET h://[::1]:?x HTTP/1.1" left=0"#,
            ),
            (
                "CONNECT a:1 HTTP/1.1\r\n",
                r#"CONNECT / 1001 host=a:1 scheme= line="CONNECT a:1 HTTP/1.1" left=0"#,
            ),
            ("CONNECT a HTTP/1.1\r\n", "InvalidRequest"),
            ("CONNECT a: HTTP/1.1\r\n", "InvalidRequest"),
            ("CONNECT / HTTP/1.1\r\n", "InvalidRequest"),
            ("get / HTTP/1.1\r\n", "InvalidMethod"),
            ("\x16\x03\x01", "InvalidMethod"),
            ("GET\t/ HTTP/1.1\r\n", "InvalidMethod"),
            ("GET * HTTP/1.1\r\n", "InvalidRequest"),
            ("GET /a\tb HTTP/1.1\r\n", "InvalidRequest"),
            ("GET /a\x7f HTTP/1.1\r\n", "InvalidRequest"),
            ("GET / http/1.1\r\n", "InvalidRequest"),
            ("GET / HTTP/2.0\r\n", "InvalidVersion"),
            ("GET / HTTP/10.0\r\n", "InvalidVersion"),
            ("GET / HTTP/0.9\r\n", "InvalidRequest"),
            ("GET / HTTP/1.1234\r\n", "InvalidRequest"),
            ("GET / HTTP/1.1\r \n", "InvalidRequest"),
            ("GET / HTTP/1.1 x\r\n", "InvalidRequest"),
            ("GET /\rx", "InvalidRequest"),
            ("GET h:/a HTTP/1.1\r\n", "InvalidRequest"),
            ("GET h://a_b/ HTTP/1.1\r\n", "InvalidRequest"),
            ("GET /", "Incomplete"),
        ];
        for (input, expected) in cases {
            for cut in 0..=input.len() {
                assert_eq!(parse(input.as_bytes(), cut), *expected, "{input:?} cut at {cut}");
            }
        }
    }
}
