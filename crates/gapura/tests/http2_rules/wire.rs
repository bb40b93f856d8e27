//! A client that sends frames as they are and writes down what comes back.

use crate::frames::{error_name, frame, settings, settings_ack};
use crate::support::server::{PATIENCE, Server};
use http::h2::PREFACE;
use http::h2::frame::{FrameHeader, flag, kind};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// The PING that shows that all before it was looked at.
const LAST: &[u8; 8] = b"all seen";

/// How the gateway is reached.
#[derive(Clone, Copy)]
pub enum Transport<'c> {
    /// By a client that knows that the server speaks HTTP/2.
    Plain,
    /// By ALPN; the certificate to expect.
    Tls(&'c [u8]),
}

impl Transport<'_> {
    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Plain => "plain",
            Transport::Tls(_) => "TLS",
        }
    }
}

/// Writes the certificate that the configuration names; returns it for clients.
pub fn write_certificate(server: &Server) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(server.path("own.crt"), made.cert.pem()).unwrap();
    fs::write(server.path("own.key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().to_vec()
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A connection.
pub struct Wire {
    stream: Box<dyn Stream>,
    input: Vec<u8>,
    closed: bool,
    /// What came, but for what belongs to the beginning of a connection.
    frames: Vec<(FrameHeader, Vec<u8>)>,
}

impl Wire {
    /// Connects; nothing has been said.
    pub fn bare(server: &Server, transport: Transport<'_>) -> Wire {
        let port = match transport {
            Transport::Plain => 8080,
            Transport::Tls(_) => 8443,
        };
        Wire::bare_on(server, port, transport)
    }

    /// The same on another port.
    pub fn bare_on(server: &Server, port: u16, transport: Transport<'_>) -> Wire {
        let socket = TcpStream::connect(server.address(port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let stream: Box<dyn Stream> = match transport {
            Transport::Plain => Box::new(socket),
            Transport::Tls(certificate) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from(certificate.to_vec())).unwrap();
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let builder = ClientConfig::builder_with_provider(provider);
                let builder = builder.with_safe_default_protocol_versions().unwrap();
                let mut config = builder.with_root_certificates(roots).with_no_client_auth();
                config.alpn_protocols = vec![b"h2".to_vec()];
                let name = ServerName::try_from("localhost").unwrap();
                Box::new(StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket))
            }
        };
        Wire { stream, input: Vec::new(), closed: false, frames: Vec::new() }
    }

    /// Connects and exchanges SETTINGS.
    pub fn open(server: &Server, transport: Transport<'_>) -> Wire {
        let wire = Wire::bare(server, transport);
        wire.opened()
    }

    /// As [`Wire::open`], on another port.
    pub fn open_on(server: &Server, port: u16, transport: Transport<'_>) -> Wire {
        Wire::bare_on(server, port, transport).opened()
    }

    fn opened(mut self) -> Wire {
        self.send(&[&PREFACE[..], &settings(&[])].concat());
        self.until("our SETTINGS acknowledged", |header, _| {
            header.kind == kind::SETTINGS && header.has(flag::ACK)
        });
        self.send(&settings_ack());
        self.frames.clear();
        self
    }

    /// Sends bytes. The server may have closed already.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    /// Sends frames one by one; where one completes a request, its answer is awaited.
    pub fn send_each(&mut self, mut bytes: &[u8]) {
        let mut open_block = None;
        while !bytes.is_empty() && !self.closed {
            let header = FrameHeader::parse(bytes).unwrap_or(FrameHeader {
                length: 0,
                kind: 255,
                flags: 0,
                stream: 0,
            });
            let (sent, rest) = bytes.split_at((9 + header.length).min(bytes.len()));
            self.send(sent);
            bytes = rest;
            let ends = header.has(flag::END_STREAM) && header.kind <= kind::HEADERS;
            let block_ends = header.has(flag::END_HEADERS);
            let complete = match header.kind {
                kind::DATA => ends,
                kind::HEADERS if !block_ends => {
                    open_block = Some(ends);
                    false
                }
                kind::HEADERS => ends,
                kind::CONTINUATION if block_ends => open_block.take().unwrap_or(false),
                _ => false,
            };
            while complete && !self.is_over(header.stream) && self.next().is_some() {}
        }
    }

    /// Is there nothing more to expect for the stream?
    fn is_over(&self, stream: u32) -> bool {
        self.frames.iter().any(|(header, _)| {
            let of_it = header.stream == stream;
            header.kind == kind::GOAWAY
                || of_it && header.kind == kind::RST_STREAM
                || of_it && header.kind <= kind::HEADERS && header.has(flag::END_STREAM)
        })
    }

    /// The next frame; none when the server has closed.
    pub fn next(&mut self) -> Option<(FrameHeader, Vec<u8>)> {
        loop {
            if let Some(header) = FrameHeader::parse(&self.input)
                && self.input.len() >= 9 + header.length
            {
                let payload = self.input[9..9 + header.length].to_vec();
                self.input.drain(..9 + header.length);
                self.frames.push((header, payload.clone()));
                return Some((header, payload));
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Reads; false at the end.
    fn fill(&mut self) -> bool {
        let mut piece = [0; 16_384];
        match self.stream.read(&mut piece) {
            Ok(0) => self.closed = true,
            Ok(count) => self.input.extend_from_slice(&piece[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                self.closed = true;
            }
            Err(error) => panic!("{error}; so far {:?}", self.errors()),
        }
        !self.closed
    }

    /// The first frame from here on that is wanted.
    pub fn until(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(FrameHeader, &[u8]) -> bool,
    ) -> (FrameHeader, Vec<u8>) {
        loop {
            let (header, payload) =
                self.next().unwrap_or_else(|| panic!("closed before: {what}; {}", self.errors()));
            if wanted(header, &payload) {
                return (header, payload);
            }
        }
    }

    /// Reads until the server closes; what is left that is no frame.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.next().is_some() {}
        std::mem::take(&mut self.input)
    }

    /// What the client was told in the end. The connection goes on unless it was told otherwise, and then it closes.
    /// Errors of streams that are expected may come later than the proof of the former.
    pub fn verdict(&mut self, expected: &str) -> String {
        self.send(&frame(kind::PING, 0, 0, LAST));
        let mut alive = false;
        let streams = |text: &str| text.matches("stream ").count();
        while !alive || streams(&self.errors()) < streams(expected) {
            let Some((header, payload)) = self.next() else { break };
            alive |= header.kind == kind::PING && payload == LAST;
        }
        self.errors()
    }

    /// Errors of the connection and of streams so far; `fine` when there was none.
    pub fn errors(&self) -> String {
        let mut found = Vec::new();
        for (header, payload) in &self.frames {
            let code = |at: usize| error_name(u32::from_be_bytes(payload[at..at + 4].try_into().unwrap()));
            match header.kind {
                kind::GOAWAY => found.push(format!("connection {}", code(4))),
                kind::RST_STREAM => found.push(format!("stream {} {}", header.stream, code(0))),
                _ => {}
            }
        }
        match found.is_empty() {
            true if self.closed => "closed without a word".into(),
            true => "fine".into(),
            false => found.join(", "),
        }
    }

    /// The streams whose answers came whole, in order of number.
    pub fn ended(&self) -> Vec<u32> {
        let is_end = |header: &FrameHeader| header.kind <= kind::HEADERS && header.has(flag::END_STREAM);
        let mut ended: Vec<u32> = self
            .frames
            .iter()
            .filter(|(header, _)| is_end(header))
            .map(|(header, _)| header.stream)
            .collect();
        ended.sort_unstable();
        ended
    }
}
