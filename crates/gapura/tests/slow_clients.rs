//! Large bodies for clients that take them slowly, or not to the end, over HTTP/1.1 and HTTP/2: all arrives as it was sent,
//! what nobody takes stays with the back end or goes to a file as the location says, and the gateway holds little.

mod support;

use http::h2::{BodyState, Connection, Event, Heads, Limits};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use support::raw::Before;
use support::server::{PATIENCE, Server, status_line};
use support::wait_for;

/// The body.
const BODY_BYTES: usize = 48 << 20;
/// What may have left the back end for a client that takes nothing, bytes: the buffers of two connections in the kernel, and
/// those that the configuration gives.
const AHEAD_BYTES_MAX: usize = 20 << 20;
/// By how much the worker may grow, kilobytes.
const GROWTH_KB_MAX: u64 = 16 << 10;
/// What a client takes before it stops.
const BEGUN_BYTES: usize = 50_000;

fn byte_at(place: usize) -> u8 {
    (place / 7 % 251) as u8
}

/// A back end that sends the body and counts what has left.
fn back_end(sent: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sent = sent.clone();
            thread::spawn(move || answer(stream, &sent));
        }
    });
    address
}

fn answer(mut stream: TcpStream, sent: &AtomicUsize) -> Option<()> {
    socket_buffers(&stream);
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    sent.store(0, Ordering::Relaxed);
    stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n").as_bytes()).ok()?;
    let mut at = 0;
    while at < BODY_BYTES {
        let piece: Vec<u8> = (at..BODY_BYTES.min(at + 65_536)).map(byte_at).collect();
        stream.write_all(&piece).ok()?;
        at += piece.len();
        sent.store(at, Ordering::Relaxed);
    }
    Some(())
}

/// Small ones, so that what nobody takes does not hide in the kernel.
fn socket_buffers(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_send_buffer_size(stream, 65_536).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(stream, 65_536).unwrap();
}

/// A client of either version.
trait Client {
    /// Takes what comes next of the body, at least a byte; empty at its end.
    fn take(&mut self) -> Vec<u8>;
}

struct Http1(TcpStream);

impl Http1 {
    fn ask(address: SocketAddr, path: &str) -> Box<dyn Client> {
        let mut stream = TcpStream::connect(address).unwrap();
        socket_buffers(&stream);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
        Box::new(Http1(stream))
    }
}

impl Client for Http1 {
    fn take(&mut self) -> Vec<u8> {
        let mut piece = vec![0; 65_536];
        let count = self.0.read(&mut piece).unwrap();
        piece.truncate(count);
        piece
    }
}

struct Http2 {
    stream: TcpStream,
    codec: Connection,
    heads: Heads,
    input: Vec<u8>,
    id: u32,
}

impl Http2 {
    fn ask(address: SocketAddr, path: &str) -> Box<dyn Client> {
        let stream = TcpStream::connect(address).unwrap();
        socket_buffers(&stream);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut codec = Connection::client(Limits::default());
        let id = codec.open(false).unwrap();
        let mut head = codec.begin_head(id);
        for (name, value) in
            [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "test")]
        {
            head.field(name.as_bytes(), value.as_bytes());
        }
        head.finish(true);
        codec.finish(id, &http::Fields::new());
        Box::new(Http2 { stream, codec, heads: Heads::default(), input: Vec::new(), id })
    }
}

impl Client for Http2 {
    fn take(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            match self.codec.read_body(self.id, &mut body) {
                BodyState::Read(_) => return body,
                BodyState::Ended => return body,
                BodyState::Waiting => {}
                state => panic!("{state:?}"),
            }
            self.stream.write_all(&self.codec.output).unwrap();
            self.codec.output_written();
            let Some((count, event)) = self.codec.receive(&self.input, 0, &mut self.heads).unwrap() else {
                let mut piece = [0; 65_536];
                let count = self.stream.read(&mut piece).unwrap();
                assert!(count > 0, "the connection goes on");
                self.input.extend_from_slice(&piece[..count]);
                continue;
            };
            self.input.drain(..count);
            if let Event::Head { .. } = event {
                assert_eq!(self.heads.response.status.0, 200);
                self.heads.response.clear();
            }
        }
    }
}

fn gateway(back_end: SocketAddr) -> Server {
    let conf = format!(
        "error_log error.log info; pid nginx.pid; worker_processes 1;\nevents {{ }}\n\
         http {{ access_log access.log; proxy_temp_path proxy; server {{ listen %HOST%:8080; http2 on;\n\
         location = / {{ return 200 a; }}\n\
         location /piped {{ proxy_pass http://{back_end}; proxy_buffering off; }}\n\
         location /memory {{ proxy_pass http://{back_end}; proxy_max_temp_file_size 0; }}\n\
         location /file {{ proxy_pass http://{back_end}; }}\n}} }}\n"
    );
    let server = Server::started("nginx", &conf);
    assert_eq!(server.body(8080), "a");
    server
}

/// The worker's memory, kilobytes.
fn memory(worker: u32) -> u64 {
    status_line(worker, "VmRSS").split(' ').next().unwrap().parse().unwrap()
}

/// What has left the back end once it stands still.
fn standing(sent: &AtomicUsize) -> usize {
    let (mut last, mut same) = (0, 0);
    wait_for("the back end stands still", PATIENCE, || {
        let now = sent.load(Ordering::Relaxed);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same >= 20).then_some(now)
    })
}

type Ask = fn(SocketAddr, &str) -> Box<dyn Client>;

/// Takes the beginning and stops.
fn begin(ask: Ask, server: &Server, path: &str) -> (Box<dyn Client>, usize) {
    let mut client = ask(server.address(8080), path);
    let mut taken = 0;
    while taken < BEGUN_BYTES {
        taken += check(&client.take(), taken);
    }
    (client, taken)
}

/// Is this the piece of the body there?
fn check(piece: &[u8], at: usize) -> usize {
    assert!(!piece.is_empty(), "ended at {at}");
    let wrong = piece.iter().enumerate().find(|(n, byte)| **byte != byte_at(at + n));
    assert_eq!(wrong, None, "behind {at}");
    piece.len()
}

fn slow_clients(ask: Ask) {
    let sent = Arc::new(AtomicUsize::new(0));
    let server = gateway(back_end(sent.clone()));
    let before = Before::of(&server);
    for path in ["/piped", "/memory", "/file"] {
        let memory_before = memory(before.worker);
        let (mut client, mut taken) = begin(ask, &server, path);
        if path == "/file" {
            let all = || (sent.load(Ordering::Relaxed) == BODY_BYTES).then_some(());
            wait_for("the back end is done with it", PATIENCE, all);
        } else {
            let ahead = standing(&sent);
            assert!(ahead < AHEAD_BYTES_MAX, "{path}: {ahead} bytes have left the back end");
        }
        let growth = memory(before.worker).saturating_sub(memory_before);
        assert!(growth < GROWTH_KB_MAX, "{path}: {growth} KB more");
        while taken < BODY_BYTES {
            taken += check(&client.take(), taken);
        }
        assert_eq!(client.take(), b"", "{path}: nothing behind it");
    }
    // And those that go away.
    for path in ["/piped", "/memory", "/file"] {
        let (client, _) = begin(ask, &server, path);
        drop(client);
    }
    before.is_after(&server);
}

#[test]
fn slow_clients_of_http_1() {
    slow_clients(Http1::ask);
}

#[test]
fn slow_clients_of_http_2() {
    slow_clients(Http2::ask);
}
