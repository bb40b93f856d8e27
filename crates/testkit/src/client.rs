//! Connections of the specs, on either side: raw bytes out, HTTP messages in, all within a bounded time.

use crate::http2::Http2;
use crate::message::{Message, split_field};
use crate::text::show;
use bstr::ByteSlice;
use rustls::ClientConnection;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::{Duration, Instant};

/// How long anything may take that a spec waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long more than the expected responses is waited for, where the server does not close.
const AFTERMATH: Duration = Duration::from_millis(100);

/// How long an origin keeps a connection on which nothing comes; the end of the scenario closes it before that.
const IDLE: Duration = Duration::from_secs(60);

/// What one response may hold, so that a server gone wild fails a spec and not the machine.
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// A connection to the server under test.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    buffer: Vec<u8>,
    ended: bool,
    http2: Option<Box<Http2>>,
    tls: Option<Box<ClientConnection>>,
    /// The alert with which the server ended the handshake.
    alert: Option<u8>,
}

/// What came of waiting for a response.
#[derive(Debug)]
pub enum Answer {
    /// A message.
    Message(Message),
    /// The connection ended without a byte.
    Closed,
}

impl Connection {
    /// Connects to `address:port` or `unix:path`, from a source address where one is given.
    ///
    /// # Errors
    /// In words: the address cannot be read, nobody listens there.
    pub fn open(to: &str, from: Option<&str>) -> Result<Self, String> {
        let fail = |error: std::io::Error| format!("cannot connect to {to}: {error}");
        let socket = if let Some(path) = to.strip_prefix("unix:") {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(fail)?;
            socket.connect(&SockAddr::unix(path).map_err(fail)?).map_err(fail)?;
            socket
        } else {
            let address: SocketAddr = to.parse().map_err(|_| format!("\"{to}\" is no address"))?;
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).map_err(fail)?;
            if let Some(from) = from {
                let from: IpAddr = from.parse().map_err(|_| format!("\"{from}\" is no address"))?;
                socket.bind(&SocketAddr::new(from, 0).into()).map_err(fail)?;
            }
            socket.connect_timeout(&address.into(), PATIENCE).map_err(fail)?;
            socket.set_tcp_nodelay(true).map_err(fail)?;
            socket
        };
        socket.set_write_timeout(Some(PATIENCE)).map_err(fail)?;
        Ok(Self::over(socket))
    }

    fn over(socket: Socket) -> Self {
        Self { socket, buffer: Vec::new(), ended: false, http2: None, tls: None, alert: None }
    }

    /// Begins TLS. An alert of the server's is an answer, see [`Connection::alert`].
    ///
    /// # Errors
    /// In words: there was no handshake, and not because the server said so.
    pub fn secure(&mut self, mut tls: ClientConnection) -> Result<(), String> {
        self.socket.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
        while tls.is_handshaking() {
            let Err(error) = tls.complete_io(&mut self.socket) else { continue };
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
            let Some(rustls::Error::AlertReceived(alert)) = inner else {
                return Err(format!("the handshake failed: {error}"));
            };
            self.alert = Some(u8::from(*alert));
            self.ended = true;
            return Ok(());
        }
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    /// The same with what the client sends ahead: it goes on with its handshake when an answer begins to come.
    ///
    /// # Errors
    /// In words: there was no handshake, or no answer before its end.
    pub fn secure_late(&mut self, mut tls: ClientConnection) -> Result<(), String> {
        self.socket.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
        let failed = |error: std::io::Error| format!("the handshake failed: {error}");
        while tls.wants_write() {
            tls.write_tls(&mut self.socket).map_err(failed)?;
        }
        loop {
            if tls.read_tls(&mut self.socket).map_err(failed)? == 0 {
                return Err("the server went away".to_owned());
            }
            let state = tls.process_new_packets().map_err(|error| error.to_string())?;
            if state.plaintext_bytes_to_read() > 0 {
                return self.secure(tls);
            }
        }
    }

    /// Did the server take what was sent ahead of the end of the handshake?
    pub(crate) fn took_early_data(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_early_data_accepted())
    }

    /// The number of the alert with which the server ended the handshake.
    pub fn alert(&self) -> Option<u8> {
        self.alert
    }

    /// The certificate that the server showed.
    pub fn shown_certificate(&self) -> Option<&[u8]> {
        self.tls.as_ref()?.peer_certificates()?.first().map(|der| &der[..])
    }

    /// Does it speak TLS?
    pub(crate) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    fn write_all(&mut self, piece: &[u8]) -> std::io::Result<()> {
        match &mut self.tls {
            Some(tls) => {
                let mut stream = rustls::Stream::new(&mut **tls, &mut self.socket);
                stream.write_all(piece).and_then(|()| stream.flush())
            }
            None => self.socket.write_all(piece),
        }
    }

    fn read(&mut self, piece: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.socket).read(piece),
            None => self.socket.read(piece),
        }
    }

    /// A connection that an origin accepted.
    pub fn accepted(socket: Socket) -> Self {
        // Without these the origin is slower, not wrong.
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_write_timeout(Some(PATIENCE));
        Self::over(socket)
    }

    /// Sends; with `split` every byte by itself. A server that closes early is not an error here: what it answered
    /// is what counts.
    ///
    /// # Errors
    /// The server did not read for too long.
    pub fn send(&mut self, bytes: &[u8], split: bool) -> Result<(), String> {
        let pieces = if split { 1 } else { bytes.len().max(1) };
        for piece in bytes.chunks(pieces) {
            match self.write_all(piece) {
                Ok(()) => {}
                Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                    return Ok(());
                }
                Err(e) => return Err(format!("sending failed: {e}")),
            }
        }
        Ok(())
    }

    /// Sends a request over HTTP/2 and waits for its answer; [`Connection::response`] finds it as if it had come over
    /// HTTP/1.
    ///
    /// # Errors
    /// In words: the answer did not come.
    pub fn exchange_http2(&mut self, request: &[u8]) -> Result<(), String> {
        let mut http2 = self.http2.take().unwrap_or_default();
        let answer = http2.exchange(self, request);
        self.http2 = Some(http2);
        let answer = answer?;
        // A stream that was reset without an answer reads as the end of the connection.
        self.ended |= answer.is_empty();
        self.buffer.extend_from_slice(&answer);
        Ok(())
    }

    /// Reads more into another buffer; false at the end of the connection.
    pub(crate) fn fill_into(&mut self, input: &mut Vec<u8>, deadline: Instant) -> Result<bool, String> {
        std::mem::swap(&mut self.buffer, input);
        let filled = self.fill(deadline);
        std::mem::swap(&mut self.buffer, input);
        filled
    }

    /// Says that no more will be sent.
    pub fn shutdown(&mut self) {
        // The peer may be gone already; the response tells.
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls.write_tls(&mut self.socket);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Waits for the next response. `head_only`: it answers HEAD, so that no body follows whatever the head says.
    ///
    /// # Errors
    /// In words: nothing came in time, or what came is no HTTP message.
    pub fn response(&mut self, head_only: bool, bare: bool) -> Result<Answer, String> {
        let deadline = Instant::now() + PATIENCE;
        if bare {
            while self.fill(deadline)? {}
            let body = std::mem::take(&mut self.buffer);
            return Ok(Answer::Message(Message { body, ..Message::default() }));
        }
        let head_end = loop {
            if let Some(end) = self.buffer.find("\r\n\r\n") {
                break end;
            }
            if !self.fill(deadline)? {
                if self.buffer.is_empty() {
                    return Ok(Answer::Closed);
                }
                return Err(format!("the connection ended within the head:\n{}", show(&self.buffer)));
            }
        };
        let mut message = Message::parse_head(&self.buffer[..head_end]);
        if !message.start.starts_with(b"HTTP/") {
            return Err(format!("this is no response:\n{}", show(&self.buffer)));
        }
        self.buffer.drain(..head_end + 4);
        let status = message.start.split_str(" ").nth(1).unwrap_or_default().to_vec();
        if head_only || status.starts_with(b"1") || status == b"204" || status == b"304" {
            return Ok(Answer::Message(message));
        }
        let partial = |e: String, m: &Message| format!("{e}; the head was:\n{}", m.shown());
        if message.lists("transfer-encoding", "chunked") {
            self.chunks(&mut message, deadline).map_err(|e| partial(e, &message))?;
        } else if let Some(length) = message.value("content-length") {
            let length = length.to_str().ok().and_then(|v| v.parse().ok()).ok_or("wrong Content-Length")?;
            message.body = self.take(length, deadline).map_err(|e| partial(e, &message))?;
        } else {
            while self.fill(deadline).map_err(|e| partial(e, &message))? {}
            message.body = std::mem::take(&mut self.buffer);
        }
        Ok(Answer::Message(message))
    }

    /// Waits for the next request; none at the end of the connection.
    ///
    /// # Errors
    /// In words: what came is not a whole request.
    pub fn request(&mut self) -> Result<Option<Message>, String> {
        let mut deadline = Instant::now() + IDLE;
        let head_end = loop {
            if let Some(end) = self.buffer.find("\r\n\r\n") {
                break end;
            }
            if !self.fill(deadline)? {
                return Ok(None);
            }
        };
        deadline = Instant::now() + PATIENCE;
        let mut message = Message::parse_head(&self.buffer[..head_end]);
        self.buffer.drain(..head_end + 4);
        if message.lists("transfer-encoding", "chunked") {
            self.chunks(&mut message, deadline)?;
        } else if let Some(length) = message.value("content-length") {
            let length = length.to_str().ok().and_then(|v| v.parse().ok()).ok_or("wrong Content-Length")?;
            message.body = self.take(length, deadline)?;
        }
        Ok(Some(message))
    }

    /// The address of the other side, without its port; empty for a Unix socket.
    pub fn peer(&self) -> String {
        let address = self.socket.peer_addr().ok().and_then(|a| a.as_socket());
        address.map_or(String::new(), |address| address.ip().to_string())
    }

    /// Waits for exactly this many bytes, whatever they are.
    ///
    /// # Errors
    /// In words: they did not come in time.
    pub fn bytes(&mut self, count: usize) -> Result<Vec<u8>, String> {
        self.take(count, Instant::now() + PATIENCE)
    }

    /// Has the connection end with a reset when it is dropped.
    pub fn reset(&self) {
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }

    /// Waits for the end of the connection.
    ///
    /// # Errors
    /// In words: more bytes came, or it stayed open.
    pub fn expect_end(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while self.buffer.is_empty() {
            match self.fill(deadline) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(_) => return Err("the connection was not closed".to_owned()),
            }
        }
        Err(format!("more bytes came than expected:\n{}", show(&self.buffer)))
    }

    /// Says that no more will be sent, and gives the bytes that come before the end and that no response block took.
    /// A server that keeps its side open is not waited for.
    pub fn surplus(&mut self) -> Option<String> {
        self.shutdown();
        if self.http2.is_some() {
            // What comes now are frames about the connection.
            return (!self.buffer.is_empty()).then(|| show(&self.buffer));
        }
        let deadline = Instant::now() + AFTERMATH;
        while self.buffer.len() < RESPONSE_BYTES_MAX && matches!(self.fill(deadline), Ok(true)) {}
        (!self.buffer.is_empty()).then(|| show(&self.buffer))
    }

    fn chunks(&mut self, message: &mut Message, deadline: Instant) -> Result<(), String> {
        loop {
            let line = self.line(deadline)?;
            let digits = line.split_str(";").next().unwrap_or_default().trim();
            let size = digits.to_str().ok().and_then(|d| usize::from_str_radix(d, 16).ok());
            let size = size.ok_or_else(|| format!("wrong chunk size \"{}\"", show(&line)))?;
            if size == 0 {
                break;
            }
            message.body.extend(self.take(size, deadline)?);
            if !self.line(deadline)?.is_empty() {
                return Err("no line end behind a chunk".to_owned());
            }
        }
        loop {
            let line = self.line(deadline)?;
            if line.is_empty() {
                return Ok(());
            }
            message.fields.push(split_field(&line));
        }
    }

    fn line(&mut self, deadline: Instant) -> Result<Vec<u8>, String> {
        loop {
            if let Some(end) = self.buffer.find("\r\n") {
                let line = self.buffer[..end].to_vec();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            if !self.fill(deadline)? {
                return Err("the connection ended within a chunked body".to_owned());
            }
        }
    }

    fn take(&mut self, length: usize, deadline: Instant) -> Result<Vec<u8>, String> {
        while self.buffer.len() < length {
            if !self.fill(deadline)? {
                let came = self.buffer.len();
                return Err(format!("the connection ended after {came} of {length} bytes of the body"));
            }
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Reads more; false at the end of the connection.
    fn fill(&mut self, deadline: Instant) -> Result<bool, String> {
        if self.ended {
            return Ok(false);
        }
        if self.buffer.len() > RESPONSE_BYTES_MAX {
            return Err("the response does not end".to_owned());
        }
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(left)).map_err(|e| e.to_string())?;
        let mut piece = [0; 16 << 10];
        match self.read(&mut piece) {
            Ok(0) => self.ended = true,
            Ok(count) => self.buffer.extend_from_slice(&piece[..count]),
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                self.ended = true;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let came = if self.buffer.is_empty() { "nothing".to_owned() } else { show(&self.buffer) };
                return Err(format!("no complete response within {} s; came:\n{came}", PATIENCE.as_secs()));
            }
            Err(e) => return Err(format!("reading failed: {e}")),
        }
        Ok(!self.ended)
    }
}
