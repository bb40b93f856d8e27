//! A server of the shortest kind around the codec: it answers 200 to every request once it has its body, 400 to
//! refused and malformed ones.

use crate::frames::error_name;
use http::h2::frame::{FrameHeader, flag, kind};
use http::h2::{BodyState, Connection, ConnectionError, Event, Heads, Limits, PREFACE};
use http::{Fields, HeadOptions};

pub struct Server {
    pub connection: Connection,
    pub heads: Heads,
    /// What happened, a line each.
    pub log: Vec<String>,
    pub error: Option<ConnectionError>,
    /// Answer at once? Otherwise streams stay under way.
    pub answers: bool,
    pub now_ms: u64,
    /// Everything written.
    pub written: Vec<u8>,
    input: Vec<u8>,
}

impl Server {
    /// A server that has seen the preface but no SETTINGS.
    pub fn bare(limits: Limits, options: HeadOptions) -> Server {
        Server {
            connection: Connection::server(limits, options),
            heads: Heads::default(),
            log: Vec::new(),
            error: None,
            answers: true,
            now_ms: 0,
            written: Vec::new(),
            input: Vec::new(),
        }
    }

    /// A server that is past the preface and both SETTINGS; what it wrote for that is forgotten.
    pub fn new(limits: Limits) -> Server {
        let options = HeadOptions { allow_extended_connect: true, ..HeadOptions::default() };
        let mut server = Server::bare(limits, options);
        server.feed(&[&PREFACE[..], &super::frames::settings(&[]), &super::frames::settings_ack()].concat());
        assert_eq!(server.error, None);
        server.written.clear();
        server
    }

    /// Takes bytes and works on what they mean.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        loop {
            let input = std::mem::take(&mut self.input);
            let received = self.connection.receive(&input, self.now_ms, &mut self.heads);
            self.input = input;
            match received {
                Ok(Some((consumed, event))) => {
                    self.input.drain(..consumed);
                    self.event(event);
                }
                Ok(None) => break,
                Err(error) => {
                    self.log.push(format!("error {}", error.message));
                    self.error = Some(error);
                    break;
                }
            }
        }
        self.written.extend_from_slice(&self.connection.output);
        self.connection.output_written();
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Head { stream, ended, refusal } => {
                let head = &self.heads.request;
                let line = String::from_utf8_lossy(head.request_line()).into_owned();
                let refused = refusal.as_ref().map(|refusal| format!(" ({})", refusal.message));
                self.log.push(format!("{stream} {line}{}", refused.unwrap_or_default()));
                self.heads.request.clear();
                if !self.answers {
                } else if let Some(refusal) = refusal {
                    self.answer(stream, refusal.status.0);
                } else if ended {
                    self.answer(stream, 200);
                }
            }
            Event::Data { stream } | Event::Trailers { stream } if self.answers => self.read(stream),
            Event::Reset { stream, code, fault } => {
                self.log.push(format!(
                    "{stream} reset {} {}",
                    code.0,
                    fault.as_deref().unwrap_or("by the peer")
                ));
                if self.answers {
                    self.connection.release(stream);
                }
            }
            _ => {}
        }
    }

    fn read(&mut self, stream: u32) {
        let mut body = Vec::new();
        loop {
            match self.connection.read_body(stream, &mut body) {
                BodyState::Read(_) => {}
                BodyState::Waiting => break,
                BodyState::Ended => {
                    self.log.push(format!("{stream} body {}", body.len()));
                    return self.answer(stream, 200);
                }
                BodyState::Malformed => return self.answer(stream, 400),
                BodyState::Reset => return self.connection.release(stream),
            }
        }
    }

    /// Answers without a body and is done with the stream.
    pub fn answer(&mut self, stream: u32, status: u16) {
        let mut head = self.connection.begin_head(stream);
        head.status(status);
        head.finish(true);
        self.connection.finish(stream, &Fields::new());
        self.connection.release(stream);
    }

    /// What the peer was told: connection and stream errors, in order; `fine` when there was none.
    pub fn verdict(&self) -> String {
        let mut found = Vec::new();
        for (header, payload) in written(&self.written) {
            let code = |at: usize| error_name(u32::from_be_bytes(payload[at..at + 4].try_into().unwrap()));
            match header.kind {
                kind::GOAWAY => found.push(format!("connection {}", code(4))),
                kind::RST_STREAM => found.push(format!("stream {} {}", header.stream, code(0))),
                _ => {}
            }
        }
        if found.is_empty() { "fine".into() } else { found.join(", ") }
    }
}

/// The frames in what was written.
pub fn written(mut bytes: &[u8]) -> Vec<(FrameHeader, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(header) = FrameHeader::parse(bytes) {
        frames.push((header, bytes[9..9 + header.length].to_vec()));
        bytes = &bytes[9 + header.length..];
    }
    assert!(bytes.is_empty(), "what is written is whole frames");
    frames
}

/// Frames in short: `HEADERS 1 end`.
pub fn summary(bytes: &[u8]) -> Vec<String> {
    const NAMES: [&str; 10] = [
        "DATA",
        "HEADERS",
        "PRIORITY",
        "RST_STREAM",
        "SETTINGS",
        "PUSH_PROMISE",
        "PING",
        "GOAWAY",
        "WINDOW_UPDATE",
        "CONTINUATION",
    ];
    let line = |(header, payload): (FrameHeader, Vec<u8>)| {
        let end = header.has(flag::END_STREAM) && header.kind <= kind::HEADERS;
        let more = match header.kind {
            kind::DATA => format!(" {}", payload.len()),
            kind::WINDOW_UPDATE => format!(" {}", u32::from_be_bytes(payload[..4].try_into().unwrap())),
            _ => String::new(),
        };
        let end = if end { " end" } else { "" };
        format!("{} {}{more}{end}", NAMES[header.kind as usize], header.stream)
    };
    written(bytes).into_iter().map(line).collect()
}
