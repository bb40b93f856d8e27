//! Back ends of gRPC that break off, break rules, or say nothing: each time the client gets a status or a reset of its
//! stream, the log says why, nobody else loses anything, and nothing is left behind.

mod support;

#[allow(dead_code)] // the tests of rules use the rest
#[path = "../../http/tests/h2/frames.rs"]
mod frames;

use frames::*;
use http::Fields;
use http::h2::frame::{kind, setting};
use http::h2::{BodyState, Connection, Event, Heads, Limits};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use support::origin::End;
use support::raw::Before;
use support::server::{PATIENCE, Server};

/// A message of gRPC: not compressed, five bytes.
const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";
const ANSWER: &str = ":status: 200\ncontent-type: application/grpc";

/// What the back end does with the next request: these bytes, then this end.
type Script = Arc<Mutex<(Vec<u8>, End)>>;
/// What it saw of requests: a line each.
type Seen = Arc<Mutex<Vec<String>>>;

/// A back end that does as it is told with the first request of each connection. It looks at requests with the codec, which
/// says nothing for it.
fn back_end(script: Script, seen: Seen) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (script, seen) = (script.clone(), seen.clone());
            thread::spawn(move || serve(stream, &script, &seen));
        }
    });
    address
}

/// What goes wrong here is the gateway's doing, or meant to.
fn serve(mut stream: TcpStream, script: &Script, seen: &Seen) -> Option<()> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let limits =
        Limits { stream_window_bytes: 1 << 20, connection_window_bytes: 1 << 21, ..Limits::default() };
    let mut codec = Connection::server(limits, http::HeadOptions::default());
    let (mut heads, mut input, mut body) = (Heads::default(), Vec::new(), Vec::new());
    let mut told = false;
    loop {
        while let Some((count, event)) = codec.receive(&input, 0, &mut heads).ok()? {
            input.drain(..count);
            let mut lines = seen.lock().unwrap();
            match event {
                Event::Head { stream: id, .. } => {
                    lines.push(String::from_utf8_lossy(heads.request.request_line()).into_owned());
                    heads.request.clear();
                    if !std::mem::replace(&mut told, true) {
                        assert_eq!(id, 1, "connections are not used again");
                        let (bytes, end) = script.lock().unwrap().clone();
                        stream.write_all(&bytes).ok()?;
                        match end {
                            End::Close => stream.shutdown(Shutdown::Write).ok()?,
                            End::Reset => {
                                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))
                                    .ok()?;
                                return Some(());
                            }
                            End::Silence | End::KeepAlive => {}
                        }
                    }
                }
                Event::Data { stream: id } => {
                    while let BodyState::Read(count) = codec.read_body(id, &mut body) {
                        lines.push(format!("{count} bytes"));
                        body.clear();
                    }
                }
                Event::Trailers { stream: id } => {
                    let trailers = codec.request_trailers(id);
                    let (name, value) = trailers.and_then(|list| list.iter().next()).unwrap_or_default();
                    lines.push(format!("{}: {}", name.escape_ascii(), value.escape_ascii()));
                }
                _ => {}
            }
        }
        let mut piece = [0; 16_384];
        let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        input.extend_from_slice(&piece[..count]);
    }
}

/// The gateway, patient for a few seconds.
fn gateway(back_end: SocketAddr) -> Server {
    let conf = format!(
        "error_log error.log info; pid nginx.pid; worker_processes 1;\nevents {{ }}\n\
         http {{ access_log access.log; client_body_temp_path body; grpc_read_timeout 3s; grpc_send_timeout 3s;\n\
         server {{ listen %HOST%:8080; http2 on; location = / {{ return 200 a; }}\n\
         location /call {{ grpc_pass {back_end}; }}\n\
         location /stored {{ client_body_buffer_size 1k; proxy_http_version 2; proxy_pass http://{back_end};\n\
         location /stored/on {{ proxy_http_version 2; proxy_pass_trailers on; proxy_pass http://{back_end}; }} }}\n}} }}\n"
    );
    let server = Server::started("nginx", &conf);
    assert_eq!(server.body(8080), "a");
    server
}

/// Calls, and says what came of it: status, body, `grpc-status`, the code of a reset.
fn call(server: &Server, path: &str, body: &[u8], trailers: &Fields) -> String {
    let mut socket = TcpStream::connect(server.address(8080)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut codec = Connection::client(Limits { header_string_bytes_max: 32_768, ..Limits::default() });
    let (mut heads, mut input) = (Heads::default(), Vec::new());
    let stream = codec.open(false).unwrap();
    let mut head = codec.begin_head(stream);
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        head.field(name.as_bytes(), value.as_bytes());
    }
    head.finish(false);
    assert_eq!(codec.send(stream, body, 16_384), body.len());
    codec.finish(stream, trailers);
    let (mut found, mut answer) = (Vec::new(), Vec::new());
    loop {
        socket.write_all(&codec.output).unwrap();
        codec.output_written();
        while let Some((count, event)) = codec.receive(&input, 0, &mut heads).unwrap() {
            input.drain(..count);
            match event {
                Event::Head { .. } => {
                    found.push(heads.response.status.0.to_string());
                    if let Some(status) = heads.response.fields.get(b"grpc-status") {
                        found.push(format!("status {}", String::from_utf8_lossy(status)));
                    }
                    heads.response.clear();
                }
                Event::Data { .. } => while let BodyState::Read(_) = codec.read_body(stream, &mut answer) {},
                Event::Trailers { .. } => {
                    let status = heads.trailers.get(b"grpc-status").unwrap_or(b"none");
                    found.push(format!("status {}", String::from_utf8_lossy(status)));
                }
                Event::Reset { code, .. } => found.push(format!("reset {}", code.0)),
                _ => {}
            }
        }
        if codec.has_ended(stream) || codec.is_reset(stream) {
            break;
        }
        let mut piece = [0; 16_384];
        let count = socket.read(&mut piece).unwrap();
        assert!(count > 0, "the connection goes on: {found:?}");
        input.extend_from_slice(&piece[..count]);
    }
    let messages = answer.len() / MESSAGE.len();
    if messages > 0 && answer == MESSAGE.repeat(messages) {
        found.insert(1, format!("{messages} messages"));
    }
    found.join(", ")
}

/// What the back end begins with.
fn begun() -> Vec<u8> {
    [settings(&[]), settings_ack()].concat()
}

/// The beginning of an answer.
fn answered() -> Vec<u8> {
    [begun(), headers(1, END_HEADERS, ANSWER), data(1, 0, MESSAGE)].concat()
}

fn last() -> Vec<u8> {
    headers(1, WHOLE, "grpc-status: 0")
}

fn going(last_stream: u32, code: u8) -> Vec<u8> {
    frame(kind::GOAWAY, 0, 0, &[&last_stream.to_be_bytes()[..], &[0, 0, 0, code]].concat())
}

/// What happened, what the back end sends and how it ends, what the client sees, what is logged. After a reset it depends on
/// whether something was still to be written which words it is.
fn check(rows: Vec<(&str, Vec<u8>, End, &str, &str)>) {
    let (script, seen) = (Script::new(Mutex::new((Vec::new(), End::Close))), Seen::default());
    let server = gateway(back_end(script.clone(), seen));
    let before = Before::of(&server);
    let mut wrong = Vec::new();
    for (what, bytes, end, expected, logged) in rows {
        *script.lock().unwrap() = (bytes, end);
        let lines = server.log().lines().count();
        let found = call(&server, "/call", MESSAGE, &Fields::new());
        if found != expected {
            wrong.push(format!("{what}: {found}, not {expected}"));
        }
        if !logged.is_empty() {
            let log = || server.log().lines().skip(lines).any(|line| line.contains(logged)).then_some(());
            support::wait_for(&format!("{what}: {logged} in\n{}", server.log()), PATIENCE, log);
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), server.log());
    before.is_after(&server);
}

#[test]
fn back_ends_that_answer() {
    let status = headers(1, WHOLE, ":status: 200\ngrpc-status: 5");
    let unknown = frame(0x55, 0xff, 0, b"zzz");
    check(vec![
        ("in order", [answered(), last()].concat(), End::Close, "200, 1 messages, status 0", ""),
        ("a status alone", [begun(), status].concat(), End::Close, "200, status 5", ""),
        ("no status", [begun(), headers(1, WHOLE, ANSWER)].concat(), End::Close, "200", ""),
        ("no trailers", [answered(), data(1, END_STREAM, b"")].concat(), End::Close, "200, 1 messages", ""),
        (
            "an answer, and no wish for the rest",
            [answered(), data(1, END_STREAM, b""), frame(kind::RST_STREAM, 0, 1, &[0; 4])].concat(),
            End::Close,
            "200, 1 messages",
            "",
        ),
        (
            "GOAWAY before it",
            [begun(), going(1, 0), answered()[begun().len()..].to_vec(), last()].concat(),
            End::Close,
            "200, 1 messages, status 0",
            "",
        ),
        (
            "GOAWAY within it",
            [answered(), going(1, 0), data(1, 0, MESSAGE), last()].concat(),
            End::Close,
            "200, 2 messages, status 0",
            "",
        ),
        (
            "a type nobody knows",
            [begun(), unknown, answered()[begun().len()..].to_vec(), last()].concat(),
            End::Close,
            "200, 1 messages, status 0",
            "",
        ),
    ]);
}

#[test]
fn back_ends_that_give_no_answer() {
    let closed = "upstream prematurely closed connection while reading response header from upstream";
    let http1 = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let reset = |code: u8| [begun(), frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, code])].concat();
    let status = |text: &str| [begun(), headers(1, END_HEADERS, text)].concat();
    let many = "x: y\n".repeat(40_000);
    let large: Vec<u8> = fields(&format!("{ANSWER}\n{many}")).chunks(16_000).enumerate().fold(
        begun(),
        |mut out, (n, piece)| {
            out.extend(frame(if n == 0 { kind::HEADERS } else { kind::CONTINUATION }, 0, 1, piece));
            out
        },
    );
    // What is wrong in the beginning of a field list need not wait for its end, which may never come.
    let begins = |block: Vec<u8>| [begun(), frame(kind::HEADERS, 0, 1, &block)].concat();
    check(vec![
        (
            "begins an invalid field",
            begins(fields(":status: 200\nX-A: b")),
            End::Silence,
            "502",
            "upstream sent invalid header",
        ),
        (
            "begins a status that is none",
            begins(fields(":status: abc")),
            End::Silence,
            "502",
            "upstream sent invalid :status",
        ),
        (
            "begins with an index beyond the tables",
            begins(vec![0x88, 0xff, 0x20]),
            End::Silence,
            "502",
            "upstream sent invalid h",
        ),
        (
            "begins an endless field",
            // A literal whose value has 2,000,000 bytes.
            begins(vec![0x88, 0, 1, b'x', 0x7f, 0x81, 0x88, 0x7a, b'y']),
            End::Silence,
            "502",
            "upstream sent too large h",
        ),
        (
            "begins a field and waits",
            begins(vec![0x88, 0, 1, b'x', 9, b'y']),
            End::Silence,
            "504",
            "upstream timed out (110: Connection timed out) while reading response header",
        ),
        ("closes", Vec::new(), End::Close, "502", closed),
        ("closes behind its SETTINGS", begun(), End::Close, "502", closed),
        (
            "resets the connection",
            Vec::new(),
            End::Reset,
            "502",
            "while reading response header from upstream",
        ),
        ("speaks HTTP/1", http1.to_vec(), End::Close, "502", "upstream sent too large http2 frame: 4740180"),
        (
            "sends garbage",
            vec![0xff; 100],
            End::Close,
            "502",
            "upstream sent too large http2 frame: 16777215",
        ),
        (
            "says nothing",
            begun(),
            End::Silence,
            "504",
            "upstream timed out (110: Connection timed out) while reading response header",
        ),
        ("refuses the stream", reset(7), End::Silence, "502", "upstream rejected request with error 7"),
        ("fails", reset(2), End::Silence, "502", "upstream rejected request with error 2"),
        (
            "goes away",
            [begun(), going(0, 0)].concat(),
            End::Silence,
            "502",
            "upstream sent goaway with error 0",
        ),
        ("goes away and closes", [begun(), going(1, 11)].concat(), End::Close, "502", closed),
        ("a head without a status", status("a: b"), End::Silence, "502", "upstream sent no :status header"),
        (
            "a status that is none",
            status(":status: abc"),
            End::Silence,
            "502",
            "upstream sent invalid :status",
        ),
        (
            "an invalid field",
            status(":status: 200\nX-A: b"),
            End::Silence,
            "502",
            "upstream sent invalid header",
        ),
        ("a head without an end", large, End::Silence, "502", "upstream sent too"),
        (
            "a broken field block",
            [begun(), frame(kind::HEADERS, 4, 1, &[0xff; 9])].concat(),
            End::Silence,
            "502",
            "upstream sent header block with too long length value",
        ),
        (
            "DATA first",
            [begun(), data(1, 0, MESSAGE)].concat(),
            End::Silence,
            "502",
            "upstream sent DATA frame before HEADERS",
        ),
        (
            "a push",
            [begun(), frame(kind::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])].concat(),
            End::Silence,
            "502",
            "upstream sent PUSH_PROMISE frame",
        ),
        (
            "a broken setting",
            settings(&[(setting::MAX_FRAME_SIZE, 1)]),
            End::Silence,
            "502",
            "upstream sent SETTINGS frame with incorrect MAX_FRAME_SIZE value 1",
        ),
        ("a flood", [begun(), ping(0).repeat(5000)].concat(), End::Silence, "502", "http2 flood detected"),
        (
            "a window beyond its end",
            [begun(), window_update(0, (1 << 31) - 1)].concat(),
            End::Silence,
            "502",
            "upstream violated connection flow control",
        ),
    ]);
}

#[test]
fn back_ends_that_break_off() {
    let padding = frame(kind::DATA, PADDED, 1, &[32, b'a', b'b']);
    let lengthy = |length: u32| {
        [
            begun(),
            headers(1, END_HEADERS, &format!("{ANSWER}\ncontent-length: {length}")),
            data(1, END_STREAM, MESSAGE),
        ]
        .concat()
    };
    let more = |bytes: Vec<u8>| [answered(), bytes].concat();
    let closed = "upstream prematurely closed connection while reading upstream";
    check(vec![
        (
            "closes within a frame",
            more(data(1, 0, MESSAGE)[..9].to_vec()),
            End::Close,
            "200, 1 messages, reset 2",
            closed,
        ),
        ("closes between messages", answered(), End::Close, "200, 1 messages, reset 2", closed),
        ("is reset", answered(), End::Reset, "200, 1 messages, reset 2", "while reading upstream"),
        (
            "stops",
            answered(),
            End::Silence,
            "200, 1 messages, reset 2",
            "upstream timed out (110: Connection timed out) while reading upstream",
        ),
        (
            "cancels",
            more(rst_stream(1)),
            End::Silence,
            "200, 1 messages, reset 2",
            "upstream rejected request with error 8",
        ),
        (
            "padding longer than its frame",
            more(padding),
            End::Silence,
            "200, 1 messages, reset 2",
            "upstream sent padded DATA frame with incorrect length: 3",
        ),
        (
            "a frame too large",
            more(frame(kind::DATA, 0, 1, &[0; 20_000])),
            End::Silence,
            "200, 1 messages, reset 2",
            "upstream sent too large http2 frame: 20000",
        ),
        (
            "trailers without an end",
            more(headers(1, END_HEADERS, "grpc-status: 0")),
            End::Silence,
            "200, 1 messages, reset 2",
            "upstream sent invalid trailer",
        ),
        (
            "trailers with a status line",
            more(headers(1, WHOLE, ":status: 200")),
            End::Silence,
            "200, 1 messages, reset 2",
            "upstream sent invalid trailer",
        ),
        (
            "another stream",
            more(data(3, 0, MESSAGE)),
            End::Silence,
            "200, 1 messages, reset 2",
            "upstream sent DATA frame for an idle stream",
        ),
        (
            "a window update by 0",
            more(window_update(1, 0)),
            End::Silence,
            "200, 1 messages, reset 2",
            "upstream sent WINDOW_UPDATE frame with incorrect window increment 0",
        ),
        (
            "less than announced",
            lengthy(20),
            End::Silence,
            "200, reset 2",
            "upstream prematurely closed stream",
        ),
        (
            "more than announced",
            lengthy(2),
            End::Silence,
            "200, reset 2",
            "upstream sent response body larger than indicated content length",
        ),
    ]);
}

/// A back end whose window never opens, and one that is not there.
#[test]
fn back_ends_that_take_nothing() {
    let (script, seen) = (Script::new(Mutex::new((Vec::new(), End::Silence))), Seen::default());
    let server = gateway(back_end(script.clone(), seen.clone()));
    let before = Before::of(&server);
    script.lock().unwrap().0 = [settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]), settings_ack()].concat();
    let body = [0; 60_000];
    let found = call(&server, "/call", &body, &Fields::new());
    assert_eq!(found, "504", "{}", server.log());
    server.wait_for_log("upstream timed out (110: Connection timed out)", 1);
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let other = gateway(dead);
    assert_eq!(call(&other, "/call", MESSAGE, &Fields::new()), "502");
    other.wait_for_log("connect() failed (111: Connection refused) while connecting to upstream", 1);
    before.is_after(&server);
}

/// Trailers of requests go on to gRPC servers, and over HTTP/2 where `proxy_pass_trailers` says so, whether the body is
/// kept or passed on as it comes. (nginx forgets them.)
#[test]
fn trailers_of_requests_go_on() {
    let (script, seen) =
        (Script::new(Mutex::new(([answered(), last()].concat(), End::Close))), Seen::default());
    let server = gateway(back_end(script, seen.clone()));
    let trailers: Fields = [(&b"x-sum"[..], &b"1"[..])].into_iter().collect();
    // Trailers may be all that comes behind a head.
    for (path, body, wanted) in [
        ("/call", MESSAGE, true),
        ("/call", b"", true),
        ("/stored", MESSAGE, false),
        ("/stored/on", MESSAGE, true),
        ("/stored/on", b"", true),
    ] {
        let found = call(&server, path, body, &trailers);
        assert!(found.starts_with("200, 1 messages"), "{path}: {found}\n{}", server.log());
        let mut lines = vec![format!("POST {path} HTTP/2.0")];
        lines.extend((!body.is_empty()).then(|| format!("{} bytes", body.len())));
        lines.extend(wanted.then(|| "x-sum: 1".to_owned()));
        support::wait_for(&format!("{path}: {:?}", seen.lock().unwrap()), PATIENCE, || {
            (*seen.lock().unwrap() == lines).then_some(())
        });
        seen.lock().unwrap().clear();
    }
}
