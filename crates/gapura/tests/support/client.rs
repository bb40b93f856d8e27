//! A small HTTP/1.1 client on blocking sockets: one connection, one request at a time, everything bounded in time and size.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

const ANSWER_BYTES_MAX: usize = 1 << 20;

/// One connection to a server.
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// One response.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The head, status line included, without the empty line.
    pub head: String,
    /// The body, chunks joined.
    pub body: Vec<u8>,
    /// Whether the server will take another request on this connection.
    pub keeps_alive: bool,
}

impl Answer {
    /// The value of the first header field of that name, any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Which of the example's applications made it.
    pub fn served_by(&self) -> &str {
        self.header("x-served-by").unwrap_or("-")
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Connection {
    /// Connects; neither connecting nor any later read or write waits longer than `patience`.
    pub fn open(address: SocketAddr, patience: Duration) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, received: Vec::new() })
    }

    /// Sends `GET path` for `host` and reads the whole answer.
    pub fn get(&mut self, host: &str, path: &str) -> io::Result<Answer> {
        // At once: pieces of it may be read one by one.
        self.stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
        self.answer()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads one response to a GET.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let head_bytes = loop {
            if let Some(at) = find(&self.received, b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more()?;
        };
        let head: Vec<u8> = self.received.drain(..head_bytes).collect();
        let head = String::from_utf8_lossy(&head[..head_bytes - 4]).into_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status: u16 = status.ok_or_else(|| invalid("no status in the response"))?;
        let mut answer = Answer { status, head, body: Vec::new(), keeps_alive: true };
        let closes = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        answer.keeps_alive = !closes && answer.head.starts_with("HTTP/1.1");
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().map_err(|_| invalid("a bad Content-Length"))?;
            answer.body = self.exactly(length)?;
        } else if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = self.chunks()?;
        } else if status >= 200 && status != 204 && status != 304 {
            answer.keeps_alive = false;
            self.stream.read_to_end(&mut self.received)?;
            answer.body = std::mem::take(&mut self.received);
        }
        Ok(answer)
    }

    /// The next `count` bytes of the connection.
    pub fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < count {
            self.read_more()?;
        }
        Ok(self.received.drain(..count).collect())
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(|_| invalid("a bad chunk size"))?;
            let chunk = self.exactly(size + 2)?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.received, b"\r\n") {
                let line = self.exactly(at + 2)?;
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.read_more()?;
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        let count = self.stream.read(&mut chunk)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.received.len() > ANSWER_BYTES_MAX {
            return Err(invalid("the response is too long"));
        }
        self.received.extend_from_slice(&chunk[..count]);
        Ok(())
    }
}

/// One GET on a connection of its own, the name looked up as any program does.
pub fn get(host: &str, port: u16, path: &str, patience: Duration) -> io::Result<Answer> {
    let mut addresses = (host, port).to_socket_addrs()?;
    let address = addresses.next().ok_or_else(|| invalid("the name has no address"))?;
    Connection::open(address, patience)?.get(host, path)
}

fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    text.windows(pattern.len()).position(|window| window == pattern)
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
