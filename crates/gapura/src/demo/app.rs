//! The built-in app server: a page that names the server that made it, `/health`, and a WebSocket echo on any path.
//! It speaks enough HTTP/1.1 to stand behind a gateway, on blocking sockets, one thread per connection.
//!
//! It does what `examples/three-servers/app/server.js` does, with the same page, so that the demo needs no Node.js.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::websocket::{self, Echo};

const PAGE: &str = include_str!("../../../../examples/three-servers/app/page.html");

const CONNECTIONS_MAX: usize = 256;
const HEAD_BYTES_MAX: usize = 32 * 1024;
const HEADER_FIELDS_MAX: usize = 100;
const BODY_BYTES_MAX: usize = 1 << 20;
const IDLE_MAX: Duration = Duration::from_secs(75);

/// One app server.
pub struct App {
    /// The name on its page.
    pub name: String,
    /// Pages made.
    pub count: AtomicU64,
}

/// Serves until the process ends.
pub fn serve(listener: &TcpListener, app: App) {
    let app = Arc::new(app);
    let connections = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of descriptors, most likely: let some connections end first.
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        if connections.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            continue;
        }
        connections.fetch_add(1, Ordering::Relaxed);
        let (app, leaving) = (app.clone(), connections.clone());
        let talk = move || {
            // How a connection ends is of no interest to the others.
            let _ = converse(&app, stream);
            leaving.fetch_sub(1, Ordering::Relaxed);
        };
        if thread::Builder::new().spawn(talk).is_err() {
            connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A request head: the request line's parts, and the fields that matter here by their names in lower case.
struct Head {
    method: String,
    path: String,
    fields: BTreeMap<String, String>,
}

impl Head {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

fn converse(app: &App, mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_MAX))?;
    stream.set_write_timeout(Some(IDLE_MAX))?;
    stream.set_nodelay(true)?;
    let mut received = Vec::new();
    loop {
        let Some(head) = read_head(&mut stream, &mut received)? else { return Ok(()) };
        if head.field("upgrade").eq_ignore_ascii_case("websocket") {
            return echo(app, &head, stream, received);
        }
        let body_is_read = skip_body(&head, &mut stream, &mut received)?;
        let keep = body_is_read && !head.field("connection").eq_ignore_ascii_case("close");
        let (kind, text) = match head.path.as_str() {
            "/health" => ("text/plain", "ok\n".to_owned()),
            _ => ("text/html; charset=utf-8", page(app, &head, &stream)),
        };
        let mut response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Served-By: {}\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: X-Served-By\r\n\
             Connection: {}\r\n\r\n",
            text.len(),
            app.name,
            if keep { "keep-alive" } else { "close" },
        );
        if head.method != "HEAD" {
            response += &text;
        }
        stream.write_all(response.as_bytes())?;
        if !keep {
            return Ok(());
        }
    }
}

/// The next request head; none when the client closed the connection between requests.
fn read_head(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Option<Head>> {
    let end = loop {
        if let Some(at) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if received.len() > HEAD_BYTES_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        if read_more(stream, received)? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&received[..end]).into_owned();
    received.drain(..end);
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or("").split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err(ErrorKind::InvalidData.into());
    };
    let fields = lines.take(HEADER_FIELDS_MAX).filter_map(|line| line.split_once(':'));
    let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Ok(Some(Head { method: method.to_owned(), path: path.to_owned(), fields }))
}

/// Reads over a body with a known, small length. False when the connection cannot go on after this request.
fn skip_body(head: &Head, stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<bool> {
    if !head.field("transfer-encoding").is_empty() {
        return Ok(false);
    }
    let length = head.field("content-length").parse().unwrap_or(0);
    if length > BODY_BYTES_MAX {
        return Ok(false);
    }
    while received.len() < length {
        if read_more(stream, received)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    received.drain(..length);
    Ok(true)
}

fn read_more(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; 16 * 1024];
    let count = stream.read(&mut chunk)?;
    received.extend_from_slice(&chunk[..count]);
    Ok(count)
}

fn page(app: &App, head: &Head, stream: &TcpStream) -> String {
    let count = app.count.fetch_add(1, Ordering::Relaxed) + 1;
    let address = stream.local_addr().map_or_else(|_| String::new(), |address| address.to_string());
    fill(&[
        ("name", &app.name),
        ("hue", &hue(&app.name).to_string()),
        ("address", &address),
        ("count", &count.to_string()),
        ("host", head.field("host")),
    ])
}

/// The page with its `{{words}}` replaced, in one pass, so that a value is never taken for a place.
fn fill(values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(PAGE.len() + 64);
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        filled += before;
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        let value = values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value);
        for character in value.chars() {
            match character {
                '&' | '<' | '>' | '"' | '\'' => filled += &format!("&#{};", u32::from(character)),
                _ => filled.push(character),
            }
        }
        rest = after;
    }
    filled + rest
}

/// Every name has a colour of its own, so that a change of server is seen at a glance.
pub fn hue(name: &str) -> u32 {
    name.bytes().map(u32::from).sum::<u32>() * 67 % 360
}

fn echo(app: &App, head: &Head, mut stream: TcpStream, mut received: Vec<u8>) -> io::Result<()> {
    let key = head.field("sec-websocket-key");
    if key.is_empty() {
        return stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    }
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nX-Served-By: {}\r\n\r\n",
        websocket::accept(key.as_bytes()),
        app.name,
    )?;
    loop {
        match websocket::echo(&received) {
            Echo::Wait => {
                if read_more(&mut stream, &mut received)? == 0 {
                    return Ok(());
                }
            }
            Echo::Answer { frame_bytes, answer, last } => {
                stream.write_all(&answer)?;
                received.drain(..frame_bytes);
                if last {
                    return Ok(());
                }
            }
            Echo::Refuse => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || serve(&listener, App { name: "<app>".into(), count: AtomicU64::new(0) }));
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    #[test]
    fn keeps_alive_counts_and_escapes() {
        let body = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz";
        let response = ask(&format!("{body}GET /any HTTP/1.1\r\nHost: b&c\r\nConnection: close\r\n\r\n"));
        assert_eq!(response.matches("HTTP/1.1 200 OK").count(), 2);
        assert!(response.contains("<h1>&#60;app&#62;</h1>"), "{response}");
        assert!(response.contains("<dd>2</dd>"), "{response}");
        assert!(response.contains("<dd>b&#38;c</dd>"), "{response}");
        assert!(!response.contains("{{"), "{response}");
    }

    #[test]
    fn health() {
        let response = ask("GET /health HTTP/1.1\r\nConnection: close\r\n\r\n");
        assert!(response.ends_with("\r\n\r\nok\n"), "{response}");
        let response = ask("HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n");
        assert!(response.ends_with("\r\n\r\n"), "{response}");
    }

    #[test]
    fn answers_a_websocket() {
        let response = ask("GET /echo HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\u{8}\u{0}");
        // The frame above is not masked: refused, and the connection closed, after the handshake.
        assert!(response.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{response}");
    }
}
