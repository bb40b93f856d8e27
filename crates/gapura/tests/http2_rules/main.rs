//! Every rule of RFC 9113 and RFC 7541 that a server must enforce, on a whole gateway, without and with TLS: the rows of
//! `crates/http/tests/h2`, which its codec keeps there, go to a location that is passed on, one connection each. What
//! needs more than frames and an error code stands in tests of its own.
//!
//! `GATEWAY=/usr/sbin/nginx` shows which of them another server keeps.

#[path = "../../../http/tests/h2/frames.rs"]
mod frames;
#[path = "../../../http/tests/h2/message_rows.rs"]
mod message_rows;
#[path = "../../../http/tests/h2/rows.rs"]
mod rows;
#[path = "../support/mod.rs"]
mod support;
mod wire;

use frames::*;
use http::h2::PREFACE;
use http::h2::frame::{flag, kind, setting};
use message_rows::{HEADS, MALFORMED};
use rows::{Row, row};
use support::server::Server;
use wire::{Transport, Wire};

const CONFIGURATION: &str = "
error_log error.log info;
pid nginx.pid;
worker_processes 1;
events { }
http {
    access_log off;
    keepalive_timeout 20s;
    upstream behind { server %HOST%:8081; keepalive 4; }
    server {
        listen %HOST%:8080;
        listen %HOST%:8443 ssl;
        http2 on;
        ssl_certificate own.crt;
        ssl_certificate_key own.key;
        location / { proxy_pass http://behind; }
        location = /hello { return 200 hello; }
    }
    server { listen %HOST%:8081; location / { return 200 answered; } }
    server { listen %HOST%:8083; http2 on; http2_max_concurrent_streams 3; location / { proxy_pass http://behind; } }
    server {
        listen %HOST%:8084;
        http2 on;
        http2_body_preread_size 1k;
        http2_chunk_size 2;
        keepalive_min_timeout 10s;
        location = /hello { return 200 hello; }
        location = /larger { http2_chunk_size 4; return 200 hello; }
    }
    server { listen %HOST%:8082; http2 on; keepalive_timeout 2s; client_header_timeout 2s; }
    server { listen %HOST%:8086; http2 on; client_header_timeout 3s; location / { return 200 a; } }
    server { listen %HOST%:8085; http2 on; keepalive_timeout 0; location / { return 200 a; } }
}
";

/// The gateway, and the certificate it shows.
fn gateway() -> (Server, Vec<u8>) {
    let server = Server::new("nginx", CONFIGURATION);
    let certificate = wire::write_certificate(&server);
    server.start();
    (server, certificate)
}

/// Both ways to the gateway.
fn transports(certificate: &[u8]) -> [Transport<'_>; 2] {
    [Transport::Plain, Transport::Tls(certificate)]
}

fn check(rows: Vec<Row>) {
    let (server, certificate) = gateway();
    let mut wrong = Vec::new();
    for transport in transports(&certificate) {
        for Row { section, rule, frames, verdict } in &rows {
            let mut wire = Wire::open(&server, transport);
            wire.send_each(&frames.concat());
            let found = wire.verdict(verdict);
            if found != *verdict {
                wrong.push(format!("{section} {rule} ({}): {found}, not {verdict}", transport.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), server.log());
    for word in ["panicked", "[alert]", "[emerg]"] {
        assert!(!server.log().contains(word), "{}", server.log());
    }
}

#[test]
fn frames_and_their_sizes() {
    check(rows::frame_format());
}

#[test]
fn field_blocks() {
    check(rows::header_blocks());
}

#[test]
fn stream_states() {
    check(rows::stream_states());
}

#[test]
fn frames_of_each_type() {
    check(rows::frames_of_each_type());
}

#[test]
fn heads() {
    let verdict = |message: &str| if message.is_empty() { "fine" } else { MALFORMED };
    let head = |&(section, rule, text, message): &(&'static str, &'static str, &str, &str)| {
        row(section, rule, vec![headers(1, WHOLE, text)], verdict(message))
    };
    check(HEADS.iter().map(head).collect());
}

#[test]
fn bodies_and_trailers() {
    check(message_rows::bodies());
}

#[test]
fn header_compression() {
    check(message_rows::compression());
}

/// Section 3.4: what does not begin as it should is no HTTP/2. Without TLS the port speaks HTTP/1, too, and says so.
#[test]
fn the_preface() {
    let (server, certificate) = gateway();
    let secure = Transport::Tls(&certificate);
    let first = settings(&[]);
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("another preface", b"INVALID CONNECTION PREFACE\r\n\r\n".to_vec()),
        ("one that goes wrong late", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX".to_vec()),
        ("no SETTINGS", [&PREFACE[..], &get(1)].concat()),
        ("a PING first", [&PREFACE[..], &ping(0), &first].concat()),
    ];
    for (rule, bytes) in rows {
        let mut wire = Wire::bare(&server, secure);
        wire.send(&bytes);
        let expected = "connection PROTOCOL_ERROR";
        assert_eq!(wire.verdict(expected), expected, "3.4 {rule}");
    }
    let mut wire = Wire::bare(&server, Transport::Plain);
    wire.send(b"INVALID CONNECTION PREFACE\r\n\r\n");
    let answer = String::from_utf8(wire.rest()).unwrap();
    assert!(answer.contains("400 Bad Request") && !answer.contains("HTTP/2"), "{answer}");
}

/// Sections 3.4 and 6.5: SETTINGS come first, ours and the acknowledgement of theirs, also when they repeat themselves.
#[test]
fn settings_are_exchanged() {
    let (server, certificate) = gateway();
    for transport in transports(&certificate) {
        let mut wire = Wire::bare(&server, transport);
        wire.send(PREFACE);
        let (first, payload) = wire.next().expect("SETTINGS");
        assert_eq!((first.kind, first.flags, first.stream), (kind::SETTINGS, 0, 0));
        let ours: Vec<_> = http::h2::frame::settings(&payload).collect();
        assert!(ours.contains(&(setting::MAX_CONCURRENT_STREAMS, 128)), "{ours:?}");
        wire.send(&settings(&[(setting::INITIAL_WINDOW_SIZE, 100), (setting::INITIAL_WINDOW_SIZE, 1)]));
        wire.until("6.5.3 an acknowledgement", |header, _| {
            header.kind == kind::SETTINGS && header.has(flag::ACK)
        });
        wire.send(&headers(1, WHOLE, ":method: GET\n:scheme: http\n:path: /hello\n:authority: a"));
        let (_, data) = wire.until("6.9.2 the last value counts", |header, _| header.kind == kind::DATA);
        assert_eq!(data, b"h");
    }
}

/// Section 6.7: with the same payload, and nothing for an answer to ours.
#[test]
fn pings_are_answered() {
    let (server, certificate) = gateway();
    for transport in transports(&certificate) {
        let mut wire = Wire::open(&server, transport);
        wire.send(&[frame(kind::PING, ACK, 0, b"unwanted"), frame(kind::PING, 0, 0, b"h2 gate!")].concat());
        let (header, payload) = wire.until("PING", |header, _| header.kind == kind::PING);
        assert_eq!((header.flags, &payload[..]), (ACK, &b"h2 gate!"[..]));
    }
}

/// Sections 6.9.1 and 6.9.2: no more comes than the client takes, windows may become negative, and open again.
#[test]
fn answers_keep_to_the_windows() {
    let (server, certificate) = gateway();
    let hello = |stream| headers(stream, WHOLE, ":method: GET\n:scheme: http\n:path: /hello\n:authority: a");
    for transport in transports(&certificate) {
        let mut wire = Wire::open(&server, transport);
        wire.send(&[settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]), hello(1)].concat());
        wire.until("a head", |header, _| header.kind == kind::HEADERS);
        wire.send(&settings(&[(setting::INITIAL_WINDOW_SIZE, 1)]));
        let (_, data) = wire.until("a larger initial window", |header, _| header.kind == kind::DATA);
        assert_eq!(data, b"h");
        wire.send(&[settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]), window_update(1, 1)].concat());
        // The window was -1 and is 0: a PING is answered, and no DATA comes.
        wire.send(&frame(kind::PING, 0, 0, b"in order"));
        wire.until("PING", |header, _| {
            assert_ne!(header.kind, kind::DATA, "6.9.2 the window is empty");
            header.kind == kind::PING
        });
        wire.send(&window_update(1, 3));
        let (_, data) = wire.until("the window opens", |header, _| header.kind == kind::DATA);
        assert_eq!(data, b"ell");
        wire.send(&window_update(1, 1));
        let (header, data) = wire.until("the end", |header, _| header.kind == kind::DATA);
        assert_eq!((&data[..], header.has(flag::END_STREAM)), (&b"o"[..], true));
    }
}

/// Section 5.1.2: the stream beyond the announced number is refused, the others go on.
#[test]
fn one_stream_too_many() {
    let (server, _) = gateway();
    let mut wire = Wire::open_on(&server, 8083, Transport::Plain);
    // Requests whose bodies do not come stay under way.
    wire.send(&[post(1), post(3), post(5), get(7)].concat());
    wire.send(&[data(1, END_STREAM, b"x"), data(3, END_STREAM, b"x"), data(5, END_STREAM, b"x")].concat());
    wire.verdict("stream 7 REFUSED_STREAM");
    while wire.ended().len() < 3 && wire.next().is_some() {}
    assert_eq!((wire.errors().as_str(), &wire.ended()[..]), ("stream 7 REFUSED_STREAM", &[1, 3, 5][..]));
}

/// Section 6.8: a stop tells which streams count; they go on, later ones do not begin.
#[test]
fn a_stop_says_goaway() {
    let (server, certificate) = gateway();
    let mut wire = Wire::open(&server, Transport::Tls(&certificate));
    wire.send(&post(1));
    wire.send(&frame(kind::PING, 0, 0, b"in order"));
    wire.until("PING", |header, _| header.kind == kind::PING);
    server.signal(rustix::process::Signal::QUIT);
    let (_, payload) = wire.until("GOAWAY", |header, _| header.kind == kind::GOAWAY);
    assert_eq!(payload[..8], [0, 0, 0, 1, 0, 0, 0, 0]);
    wire.send(&[get(3), data(1, END_STREAM, b"x")].concat());
    wire.rest();
    assert_eq!(wire.ended(), [1]);
}

/// A client that asks for nothing, and one that stops within a frame, are not waited for without an end.
#[test]
fn silent_connections_end() {
    let (server, _) = gateway();
    let rows: [(&str, Vec<u8>, &str); 5] = [
        ("no request", Vec::new(), "connection NO_ERROR"),
        ("half a header", ping(0)[..5].to_vec(), "connection PROTOCOL_ERROR"),
        ("half a PING", ping(0)[..12].to_vec(), "connection PROTOCOL_ERROR"),
        (
            "half of what is passed over",
            frame(0x55, 0, 0, &[0; 9])[..12].to_vec(),
            "connection PROTOCOL_ERROR",
        ),
        ("half a head", get(1)[..20].to_vec(), "stream 1 PROTOCOL_ERROR, connection NO_ERROR"),
    ];
    for (what, bytes, expected) in rows {
        let mut wire = Wire::open_on(&server, 8082, Transport::Plain);
        wire.send(&bytes);
        wire.rest();
        assert_eq!(wire.errors(), expected, "{what}");
    }
}

/// Without keep-alive a connection carries one request, whenever it comes.
#[test]
fn the_only_request_may_come_late() {
    let (server, _) = gateway();
    let mut wire = Wire::open_on(&server, 8085, Transport::Plain);
    for _ in 0..3 {
        wire.send(&ping(0));
        wire.until("PING", |header, _| header.kind == kind::PING);
    }
    wire.send(&get(1));
    wire.rest();
    assert_eq!((wire.errors().as_str(), &wire.ended()[..]), ("connection NO_ERROR", &[1][..]));
}

/// `http2_body_preread_size` is the window that is announced, `http2_chunk_size` how a body is cut.
#[test]
fn directives_show_on_the_wire() {
    let (server, _) = gateway();
    let mut wire = Wire::bare_on(&server, 8084, Transport::Plain);
    wire.send(&[&PREFACE[..], &settings(&[])].concat());
    let (_, payload) = wire.until("SETTINGS", |header, _| header.kind == kind::SETTINGS);
    let ours: Vec<_> = http::h2::frame::settings(&payload).collect();
    assert!(ours.contains(&(setting::INITIAL_WINDOW_SIZE, 1024)), "{ours:?}");
    for (stream, path, pieces) in
        [(1, "/hello", [&b"he"[..], b"ll", b"o"].to_vec()), (3, "/larger", [&b"hell"[..], b"o"].to_vec())]
    {
        wire.send(&headers(
            stream,
            WHOLE,
            &format!(":method: GET\n:scheme: http\n:path: {path}\n:authority: a"),
        ));
        for piece in pieces {
            let (_, data) = wire.until("DATA", |header, _| header.kind == kind::DATA);
            assert_eq!(data, piece, "{path}");
        }
    }
}

/// `keepalive_min_timeout`: a connection whose last answer is younger goes on while the server stops.
#[test]
fn young_connections_outlive_a_stop() {
    let (server, _) = gateway();
    let hello = |stream| headers(stream, WHOLE, ":method: GET\n:scheme: http\n:path: /hello\n:authority: a");
    let mut other = Wire::open_on(&server, 8083, Transport::Plain);
    let mut young = Wire::open_on(&server, 8084, Transport::Plain);
    young.send_each(&hello(1));
    server.signal(rustix::process::Signal::QUIT);
    other.rest();
    assert_eq!(other.errors(), "connection NO_ERROR", "one without it ends at once");
    young.send_each(&hello(3));
    assert_eq!((young.errors().as_str(), &young.ended()[..]), ("fine", &[1, 3][..]));
    young.rest();
    assert_eq!(young.errors(), "connection NO_ERROR", "and then it ends, too");
}

/// A head whose rest does not come costs its stream; the connection goes on to the next request.
#[test]
fn half_a_head_costs_a_stream() {
    let (server, _) = gateway();
    let mut wire = Wire::open_on(&server, 8086, Transport::Plain);
    let (begun, rest) = (&get(1)[..20], &get(1)[20..]);
    wire.send(begun);
    wire.until("RST_STREAM", |header, _| header.kind == kind::RST_STREAM);
    wire.send(rest);
    wire.send_each(&get(3));
    assert_eq!(wire.verdict("stream 1 PROTOCOL_ERROR"), "stream 1 PROTOCOL_ERROR");
    assert_eq!(wire.ended(), [3]);
}
