//! Large bodies for clients that take them slowly, or not to the end, over HTTP/1.1 and HTTP/2: all arrives as it was sent,
//! what nobody takes stays with the back end or goes to a file as the location says, and the gateway holds little.

mod support;

use http::h2::{BodyState, Connection, Event, Heads, Limits};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, thread};
use support::raw::Before;
use support::server::{PATIENCE, Server, status_line};
use support::wait_for;

/// The body.
const BODY_BYTES: usize = 48 << 20;
/// What the gateway itself may hold of a body that nobody takes, bytes: the buffers that the configuration gives, the windows
/// of HTTP/2, and pipes.
const HELD_BYTES_MAX: usize = 4 << 20;
/// By how much the worker may grow, kilobytes.
const GROWTH_KB_MAX: u64 = 16 << 10;
/// A body that comes in small pieces.
const TRICKLE_BYTES: usize = 12 << 20;
const TRICKLE_PIECE_BYTES: usize = 5_001;
/// So that the gateway sees most of the pieces one by one.
const TRICKLE_PAUSE: Duration = Duration::from_micros(200);
/// How often somebody stops in the midst of such a body, and how much is taken in between, bytes.
const STOPS: usize = 4;
const BETWEEN_STOPS_BYTES: usize = 1 << 20;
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
    let trickles = head.starts_with(b"GET /trickle");
    let (body_bytes, piece_bytes) =
        if trickles { (TRICKLE_BYTES, TRICKLE_PIECE_BYTES) } else { (BODY_BYTES, 65_536) };
    stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {body_bytes}\r\n\r\n").as_bytes()).ok()?;
    let mut at = 0;
    while at < body_bytes {
        let piece: Vec<u8> = (at..body_bytes.min(at + piece_bytes)).map(byte_at).collect();
        stream.write_all(&piece).ok()?;
        at += piece.len();
        sent.store(at, Ordering::Relaxed);
        if trickles {
            thread::sleep(TRICKLE_PAUSE);
        }
    }
    Some(())
}

/// Small ones, so that what nobody takes does not hide in the kernel.
fn socket_buffers(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_send_buffer_size(stream, 65_536).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(stream, 65_536).unwrap();
}

/// Windows that are never full.
fn wide() -> Limits {
    Limits { stream_window_bytes: 1 << 30, connection_window_bytes: 1 << 30, ..Limits::default() }
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
        // What holds the gateway back is the window, or else the connection.
        let limits = if path == "/trickle" { wide() } else { Limits::default() };
        let mut codec = Connection::client(limits);
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
         location /file {{ proxy_pass http://{back_end}; }}\n\
         location /trickle {{ proxy_pass http://{back_end}; proxy_buffering off; }}\n}} }}\n"
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

/// What waits in the kernel on the way from the back end to the gateway, and from there to the client, bytes: how much the
/// kernel takes is up to the machine.
fn queued(server: &Server, back_end: SocketAddr) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let ours = [back_end, server.address(8080)].map(|address| match address {
        SocketAddr::V4(address) => {
            // As the table has it, in the byte order of the machine.
            format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
        }
        SocketAddr::V6(_) => panic!("{address}"),
    });
    let queues = table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, remote, queues) = (words.next()?, words.next()?, words.nth(1)?);
        let (to_send, received) = queues.split_once(':')?;
        let bytes = |hex| usize::from_str_radix(hex, 16).ok();
        let is_ours = ours.iter().any(|address| address == local || address == remote);
        is_ours.then_some(bytes(to_send)? + bytes(received)?)
    });
    queues.sum()
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
    let back_end = back_end(sent.clone());
    let server = gateway(back_end);
    let before = Before::of(&server);
    for path in ["/piped", "/memory", "/file"] {
        let memory_before = memory(before.worker);
        let (mut client, mut taken) = begin(ask, &server, path);
        if path == "/file" {
            let all = || (sent.load(Ordering::Relaxed) == BODY_BYTES).then_some(());
            wait_for("the back end is done with it", PATIENCE, all);
        } else {
            let (ahead, queued) = (standing(&sent), queued(&server, back_end));
            let held = ahead.saturating_sub(queued + taken);
            assert!(held < HELD_BYTES_MAX, "{path}: {ahead} bytes have left, {queued} are in the kernel");
        }
        let growth = memory(before.worker).saturating_sub(memory_before);
        assert!(growth < GROWTH_KB_MAX, "{path}: {growth} KB more");
        while taken < BODY_BYTES {
            taken += check(&client.take(), taken);
        }
        assert_eq!(client.take(), b"", "{path}: nothing behind it");
    }
    // What comes in small pieces joins what waits, but nothing that is on its way.
    let (mut client, mut taken) = begin(ask, &server, "/trickle");
    for _ in 0..STOPS {
        standing(&sent);
        let end = taken + BETWEEN_STOPS_BYTES;
        while taken < end {
            taken += check(&client.take(), taken);
        }
    }
    while taken < TRICKLE_BYTES {
        taken += check(&client.take(), taken);
    }
    assert_eq!(client.take(), b"", "nothing behind it");
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

/// A back end that speaks HTTP/2, opens its windows wide, and reads a body only as far as `wanted`. It answers with how much
/// came.
fn slow_reader(wanted: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        socket_buffers(&stream);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut codec = Connection::server(wide(), http::HeadOptions::default());
        let (mut heads, mut input, mut body) = (Heads::default(), Vec::new(), Vec::new());
        let (mut read, mut piece) = (0, [0; 65_536]);
        loop {
            while let Some((count, event)) = codec.receive(&input, 0, &mut heads).unwrap() {
                input.drain(..count);
                if matches!(event, Event::Head { .. }) {
                    heads.request.clear();
                }
                while let BodyState::Read(_) = codec.read_body(1, &mut body) {
                    read += check(&body, read);
                    body.clear();
                }
            }
            if read == TRICKLE_BYTES && codec.body_is_read(1) {
                let mut head = codec.begin_head(1);
                head.status(200);
                head.finish(true);
                codec.send(1, std::mem::take(&mut read).to_string().as_bytes(), 16_384);
                codec.finish(1, &http::Fields::new());
            }
            stream.write_all(&codec.output).unwrap();
            codec.output_written();
            wait_for("more is wanted", PATIENCE, || (read <= wanted.load(Ordering::Relaxed)).then_some(()));
            match stream.read(&mut piece).unwrap() {
                0 => return,
                count => input.extend_from_slice(&piece[..count]),
            }
        }
    });
    address
}

#[test]
fn back_ends_that_take_slowly() {
    let (wanted, sent) = (Arc::new(AtomicUsize::new(BEGUN_BYTES)), Arc::new(AtomicUsize::new(0)));
    let conf = format!(
        "error_log error.log info; pid nginx.pid; worker_processes 1;\nevents {{ }}\n\
         http {{ access_log access.log; client_max_body_size 0; server {{ listen %HOST%:8080;\n\
         location / {{ proxy_http_version 2; proxy_request_buffering off; proxy_pass http://{}; }} }} }}\n",
        slow_reader(wanted.clone())
    );
    let server = Server::started("nginx", &conf);
    let mut stream = TcpStream::connect(server.address(8080)).unwrap();
    socket_buffers(&stream);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut uploading = stream.try_clone().unwrap();
    let counted = sent.clone();
    let upload = thread::spawn(move || {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {TRICKLE_BYTES}\r\n\r\n"
        );
        uploading.write_all(head.as_bytes()).unwrap();
        let mut at = 0;
        while at < TRICKLE_BYTES {
            let piece: Vec<u8> = (at..TRICKLE_BYTES.min(at + TRICKLE_PIECE_BYTES)).map(byte_at).collect();
            uploading.write_all(&piece).unwrap();
            at += piece.len();
            counted.store(at, Ordering::Relaxed);
            thread::sleep(TRICKLE_PAUSE);
        }
    });
    for stop in 1..=STOPS {
        standing(&sent);
        wanted.store(BEGUN_BYTES + stop * BETWEEN_STOPS_BYTES, Ordering::Relaxed);
    }
    wanted.store(TRICKLE_BYTES, Ordering::Relaxed);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(&format!("\r\n{TRICKLE_BYTES}\r\n")), "{answer}\n{}", server.log());
    upload.join().unwrap();
}
