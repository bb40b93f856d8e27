//! Requests over HTTP/2: a spec writes and reads messages of HTTP/1, this carries them in frames.

use crate::client::{Connection, PATIENCE};
use crate::message::Message;
use bstr::ByteSlice;
use http::Fields;
use http::h2::{BodyState, Event, Heads, Limits};
use std::time::Instant;

/// The client's side of a connection.
pub struct Http2 {
    codec: http::h2::Connection,
    heads: Heads,
    /// What came and is no whole frame yet.
    pub input: Vec<u8>,
}

impl Default for Http2 {
    fn default() -> Http2 {
        let limits =
            Limits { header_string_bytes_max: Limits::default().header_list_bytes_max, ..Limits::default() };
        let codec = http::h2::Connection::client(limits);
        Http2 { codec, heads: Heads::default(), input: Vec::new() }
    }
}

impl std::fmt::Debug for Http2 {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Http2({} streams)", self.codec.streams())
    }
}

impl Http2 {
    /// Sends a request that is written as in HTTP/1 and waits for its answer, which comes back written as in HTTP/1:
    /// in chunks where it has no length, behind which its trailers stand.
    ///
    /// # Errors
    /// In words: the request cannot be sent, the answer does not come, the server breaks a rule.
    pub fn exchange(&mut self, connection: &mut Connection, request: &[u8]) -> Result<Vec<u8>, String> {
        let end = request.find("\r\n\r\n").ok_or("the request has no end of its head")?;
        let head = Message::parse_head(&request[..end]);
        let mut body = &request[end + 4..];
        let scheme: &[u8] = if connection.is_secure() { b"https" } else { b"http" };
        let stream = self.open(&head, scheme)?;
        if body.is_empty() {
            self.codec.finish(stream, &Fields::new());
        }
        let mut answer = Answer::default();
        let deadline = Instant::now() + PATIENCE;
        while !answer.ended {
            if !body.is_empty() {
                let sent = self.codec.send(stream, body, usize::MAX);
                body = &body[sent..];
                if body.is_empty() {
                    self.codec.finish(stream, &Fields::new());
                }
            }
            connection.send(&self.codec.output, false)?;
            self.codec.output_written();
            let received = self.codec.receive(&self.input, 0, &mut self.heads);
            match received.map_err(|error| error.message.into_owned())? {
                Some((count, event)) => {
                    self.input.drain(..count);
                    self.event(event, stream, &mut answer);
                }
                None if !connection.fill_into(&mut self.input, deadline)? => {
                    answer.reset = Some("the connection ended".to_owned());
                    break;
                }
                None => {}
            }
        }
        self.codec.release(stream);
        connection.send(&self.codec.output, false)?;
        self.codec.output_written();
        answer.written()
    }

    /// Sends the head.
    fn open(&mut self, head: &Message, scheme: &[u8]) -> Result<u32, String> {
        let words: Vec<&[u8]> = head.start.split_str(" ").collect();
        let [method, target, _] = words[..] else {
            return Err("the request line has not three words".to_owned());
        };
        let stream = self.codec.open(method == b"HEAD").ok_or("the server takes no more streams")?;
        let mut out = self.codec.begin_head(stream);
        out.field(b":method", method);
        out.field(b":scheme", scheme);
        out.field(b":path", target);
        let host = head.value("host").unwrap_or_default();
        out.field(b":authority", host);
        for (name, value) in &head.fields {
            if !name.eq_ignore_ascii_case(b"host") {
                out.field(name, value);
            }
        }
        out.finish(true);
        Ok(stream)
    }

    fn event(&mut self, event: Event, wanted: u32, answer: &mut Answer) {
        match event {
            Event::Head { stream, ended, .. } if stream == wanted => {
                let status = self.heads.response.status;
                answer.head.extend_from_slice(format!("HTTP/1.1 {status}\r\n").as_bytes());
                for (name, value) in self.heads.response.fields.iter() {
                    answer.head.extend_from_slice(&[name, b": ", value, b"\r\n"].concat());
                }
                answer.has_length = self.heads.response.content_length.is_some();
                answer.bodiless = status.is_bodiless();
                if status.is_interim() {
                    answer.head.extend_from_slice(b"\r\n");
                }
                self.heads.response.clear();
                answer.ended = ended;
            }
            Event::Data { stream } if stream == wanted => {
                while let BodyState::Read(_) = self.codec.read_body(stream, &mut answer.body) {}
                answer.ended = self.codec.body_is_read(stream);
            }
            Event::Trailers { stream } if stream == wanted => {
                for (name, value) in self.heads.trailers.iter() {
                    answer.trailers.extend_from_slice(&[name, b": ", value, b"\r\n"].concat());
                }
                answer.ended = true;
            }
            Event::Reset { stream, code, .. } if stream == wanted && !answer.ended => {
                answer.ended = true;
                answer.reset = Some(format!("the stream was reset with {}", code.0));
            }
            _ => {}
        }
    }
}

/// An answer while it comes.
#[derive(Default)]
struct Answer {
    head: Vec<u8>,
    has_length: bool,
    /// The status says that there is no body.
    bodiless: bool,
    body: Vec<u8>,
    trailers: Vec<u8>,
    ended: bool,
    reset: Option<String>,
}

impl Answer {
    /// In HTTP/1's form; nothing where the stream was reset without a head.
    fn written(self) -> Result<Vec<u8>, String> {
        let mut out = self.head;
        if let Some(reset) = self.reset {
            return if out.is_empty() { Ok(out) } else { Err(reset) };
        }
        if (self.has_length || self.bodiless) && self.trailers.is_empty() {
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(&self.body);
            return Ok(out);
        }
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        if !self.body.is_empty() {
            out.extend_from_slice(format!("{:x}\r\n", self.body.len()).as_bytes());
            out.extend_from_slice(&self.body);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n");
        out.extend_from_slice(&self.trailers);
        out.extend_from_slice(b"\r\n");
        Ok(out)
    }
}
