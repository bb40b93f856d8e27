//! WebSockets over HTTP/2 (RFC 8441) to a back end that speaks HTTP/1: the handshake is translated, the bytes behind it
//! are not.

mod support;

use http::h2::{BodyState, Connection, ErrorCode, Event, Heads, Limits};
use http::{Fields, ResponseHead};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use support::server::{PATIENCE, Server};

const CONFIGURATION: &str = "
error_log error.log info;
pid nginx.pid;
events { }
http {
    log_format way '$request_method $uri $status $http_upgrade $server_protocol';
    access_log access.log way;
    server {
        listen %HOST%:8080;
        http2 on;
        location / { proxy_pass http://%BACKEND%; }
        location /explicit {
            proxy_pass http://%BACKEND%;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
        }
        location /page { return 200 page; }
    }
}
";

/// A back end that shakes hands, tells the request's target, and echoes in capitals; `/no` is refused. A line `bye` ends it.
fn backend() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().expect("a copy")).lines();
    let head: Vec<String> =
        lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let has = |name: &str| head.iter().any(|line| line.to_ascii_lowercase().starts_with(name));
    let target = head.first().map(String::as_str).unwrap_or_default().to_owned();
    let whole = has("upgrade: websocket") && has("connection: upgrade") && has("sec-websocket-version: 13");
    let key = head.iter().find(|line| line.to_ascii_lowercase().starts_with("sec-websocket-key: "));
    if target.contains("/no") || !whole || key.is_none_or(|key| key.len() != 43) {
        let _ = stream.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno");
        return;
    }
    let accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
    let _ = stream.write_all(format!("{accepted}{target}\n").as_bytes());
    for line in lines.map_while(Result::ok).take_while(|line| line != "bye") {
        let _ = stream.write_all(format!("{}\n", line.to_ascii_uppercase()).as_bytes());
    }
}

/// A client of HTTP/2 with one stream.
struct Client {
    socket: TcpStream,
    codec: Connection,
    heads: Heads,
    input: Vec<u8>,
    stream: u32,
    received: Vec<u8>,
    head: Option<(u16, Vec<(String, String)>)>,
    ended: bool,
}

impl Client {
    fn connect(server: &Server) -> Client {
        let socket = TcpStream::connect((server.host.as_str(), 8080)).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let codec = Connection::client(Limits::default());
        let (heads, input, received) = (Heads::default(), Vec::new(), Vec::new());
        let mut client =
            Client { socket, codec, heads, input, stream: 0, received, head: None, ended: false };
        client.flush();
        while !client.codec.has_settings() {
            client.turn();
        }
        client
    }

    fn ask(&mut self, fields: &[(&str, &str)]) {
        self.stream = self.codec.open(false).expect("a stream");
        (self.head, self.ended) = (None, false);
        self.received.clear();
        let mut head = self.codec.begin_head(self.stream);
        for (name, value) in fields {
            head.field(name.as_bytes(), value.as_bytes());
        }
        head.finish(false);
        self.flush();
    }

    fn open(&mut self, path: &str, protocol: &str) -> u16 {
        self.ask(&[
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat"),
        ]);
        while self.head.is_none() {
            self.turn();
        }
        self.head.as_ref().map_or(0, |(status, _)| *status)
    }

    fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let count = self.codec.send(self.stream, bytes, 16_384);
            bytes = &bytes[count..];
            self.flush();
            if count == 0 {
                self.turn();
            }
        }
    }

    fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line = self.received.drain(..=end).collect();
                return String::from_utf8(line).expect("text").trim_end().to_owned();
            }
            assert!(!self.ended, "the stream has ended");
            self.turn();
        }
    }

    fn flush(&mut self) {
        self.socket.write_all(&self.codec.output).expect("it is taken");
        self.codec.output_written();
    }

    /// Waits for one event.
    fn turn(&mut self) {
        loop {
            let told = self.codec.receive(&self.input, 0, &mut self.heads).expect("the rules are kept");
            if let Some((count, event)) = told {
                self.input.drain(..count);
                self.event(event);
                self.flush();
                return;
            }
            let mut bytes = [0; 16_384];
            let count = self.socket.read(&mut bytes).expect("something comes");
            assert!(count > 0, "the server has closed the connection");
            self.input.extend_from_slice(&bytes[..count]);
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Head { ended, .. } => {
                let head: ResponseHead = std::mem::take(&mut self.heads.response);
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let fields = head.fields.iter().map(|(name, value)| (text(name), text(value))).collect();
                self.head = Some((head.status.0, fields));
                self.ended |= ended;
            }
            // A request that was answered before its end came: the rest of it is not wanted (RFC 9113, section 8.1).
            Event::Reset { stream, code: ErrorCode::NO_ERROR, .. } if stream != self.stream => {}
            Event::Reset { code, .. } => panic!("the stream was reset: {code:?}"),
            _ => {}
        }
        while let BodyState::Read(_) = self.codec.read_body(self.stream, &mut self.received) {}
        self.ended |= self.codec.has_ended(self.stream);
    }
}

fn server() -> Server {
    let server = Server::new("nginx", "");
    server.write(&CONFIGURATION.replace("%BACKEND%", &backend()));
    server.start();
    server
}

#[test]
fn a_websocket_gets_through_beside_requests() {
    let server = server();
    let mut client = Client::connect(&server);
    assert!(client.codec.peer_takes_connect_protocol(), "RFC 8441, section 3");
    assert_eq!(client.open("/socket?x=y", "websocket"), 200);
    let (_, fields) = client.head.clone().expect("a head");
    let value = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!(value("sec-websocket-protocol"), Some("chat"));
    for name in ["upgrade", "connection", "sec-websocket-accept"] {
        assert_eq!(value(name), None, "{name} is HTTP/1's");
    }
    assert_eq!(client.line(), "GET /socket?x=y HTTP/1.1");
    client.send(b"hello\n");
    assert_eq!(client.line(), "HELLO");
    let long = "a".repeat(300_000);
    client.send(format!("{long}\n").as_bytes());
    assert_eq!(client.line(), long.to_ascii_uppercase());
    // Another request on the same connection, meanwhile.
    let socket = client.stream;
    client.ask(&[(":method", "GET"), (":scheme", "http"), (":path", "/page"), (":authority", "localhost")]);
    client.codec.finish(client.stream, &Fields::new());
    client.flush();
    while !client.ended {
        client.turn();
    }
    assert_eq!((client.head.as_ref().map(|head| head.0), &client.received[..]), (Some(200), &b"page"[..]));
    (client.stream, client.ended) = (socket, false);
    client.received.clear();
    client.send(b"again\n");
    assert_eq!(client.line(), "AGAIN");
    client.send(b"bye\n");
    while !client.ended {
        client.turn();
    }
    support::wait_for("both log lines", PATIENCE, || {
        let log = support::text_of(&server.path("access.log"));
        (log.contains("GET /socket 101 websocket HTTP/2.0") && log.contains("GET /page 200 - HTTP/2.0"))
            .then_some(())
    });
}

#[test]
fn a_client_may_end_it() {
    let server = server();
    let mut client = Client::connect(&server);
    assert_eq!(client.open("/explicit", "websocket"), 200);
    assert_eq!(client.line(), "GET /explicit HTTP/1.1");
    client.codec.finish(client.stream, &Fields::new());
    client.flush();
    while !client.ended {
        client.turn();
    }
}

#[test]
fn what_is_no_websocket_gets_an_answer() {
    let server = server();
    let mut client = Client::connect(&server);
    assert_eq!(client.open("/no", "websocket"), 403, "the back end's own answer");
    client.codec.release(client.stream);
    assert_eq!(client.open("/socket", "connect-udp"), 501);
    client.codec.release(client.stream);
    assert_eq!(client.open("/page", "websocket"), 501, "nothing else may look like a success");
}
