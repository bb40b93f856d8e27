//! The client's side: what of a server's frames is an answer, and what ends the connection (RFC 9113, section 8.1.1: a
//! malformed answer must not be taken for one).

use super::frames::*;
use http::h2::frame::{kind, setting};
use http::h2::{BodyState, Connection, ErrorCode, Event, Heads, Limits};

const OK: &str = ":status: 200\n";

/// What comes of these frames behind the server's SETTINGS, on the answer to one request.
fn told(method: &str, frames: &[u8]) -> String {
    let mut client = Connection::client(Limits::default());
    let stream = client.open(method == "HEAD").expect("a stream");
    let mut head = client.begin_head(stream);
    head.field(b":method", method.as_bytes());
    head.finish(true);
    client.finish(stream, &http::Fields::new());
    let input = [&settings(&[])[..], frames].concat();
    let (mut heads, mut log, mut at) = (Heads::default(), Vec::new(), 0);
    loop {
        match client.receive(&input[at..], 0, &mut heads) {
            Ok(None) => break,
            Err(error) => {
                log.push(error.message.into_owned());
                return log.join(", ");
            }
            Ok(Some((count, event))) => {
                at += count;
                match event {
                    Event::Head { .. } => {
                        log.push(heads.response.status.0.to_string());
                        heads.response.clear();
                    }
                    Event::Trailers { .. } => log.push("trailers".to_owned()),
                    Event::Reset { code, fault, .. } => {
                        log.push(format!("reset {} {}", code.0, fault.as_deref().unwrap_or("by the peer")))
                    }
                    Event::GoAway { last_stream, .. } => {
                        log.push(format!("goaway {}", client.is_beyond(last_stream)));
                    }
                    _ => {}
                }
                let mut body = Vec::new();
                if let BodyState::Read(_) = client.read_body(stream, &mut body) {
                    log.push(String::from_utf8(body).expect("text"));
                }
            }
        }
    }
    if client.has_ended(stream) {
        log.push("end".to_owned());
    }
    log.join(", ")
}

#[test]
fn what_an_answer_is() {
    let interim = headers(1, END_HEADERS, ":status: 103\nlink: x");
    let cases: &[(&str, &[&[u8]], &str)] = &[
        ("GET", &[&headers(1, WHOLE, OK)], "200, end"),
        (
            "GET",
            &[&headers(1, END_HEADERS, OK), &data(1, 0, b"ab"), &data(1, END_STREAM, b"c")],
            "200, ab, c, end",
        ),
        ("GET", &[&interim, &headers(1, WHOLE, OK)], "103, 200, end"),
        (
            "GET",
            &[&headers(1, END_HEADERS, OK), &data(1, 0, b"a"), &headers(1, WHOLE, "a: b")],
            "200, a, trailers, end",
        ),
        ("GET", &[&headers(1, 0, OK), &continuation(1, END_HEADERS, "a: b")], "200"),
        (
            "GET",
            &[&headers(1, END_HEADERS, ":status: 200\ncontent-length: 1"), &data(1, END_STREAM, b"a")],
            "200, a, end",
        ),
        ("HEAD", &[&headers(1, WHOLE, ":status: 200\ncontent-length: 5")], "200, end"),
        ("GET", &[&headers(1, WHOLE, ":status: 304\ncontent-length: 5")], "304, end"),
        ("GET", &[&data(1, END_STREAM, b"")], "upstream sent DATA frame before HEADERS"),
        ("GET", &[&goaway(0)], "goaway true"),
        ("GET", &[&frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])], "goaway false"),
    ];
    for (method, frames, expected) in cases {
        assert_eq!(told(method, &frames.concat()), *expected, "{frames:?}");
    }
}

#[test]
fn what_no_answer_is() {
    let answer = |text: &str| headers(1, WHOLE, text);
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("8.3.2", answer("a: b"), "upstream sent no :status header"),
        ("8.3.2", answer(":status: 20x"), "upstream sent invalid :status"),
        ("8.3.2", answer(":status: 099"), "upstream sent invalid :status"),
        ("8.3", answer(":status: 200\n:status: 200"), "upstream sent duplicate :status header"),
        ("8.3", answer(":path: /\n:status: 200"), "upstream sent invalid pseudo-header"),
        ("8.3", answer("a: b\n:status: 200"), "upstream sent invalid pseudo-header"),
        ("8.2.1", answer(":status: 200\nUpper: b"), "upstream sent invalid header"),
        ("8.2.1", answer(":status: 200\na b: c"), "upstream sent invalid header"),
        (
            "8.2.2",
            answer(":status: 200\nconnection: close"),
            "upstream sent a field that is about connections",
        ),
        ("8.6", answer(":status: 101"), "upstream sent unexpected :status \"101\""),
        ("8.1", answer(":status: 103"), "upstream prematurely closed stream"),
        ("8.1.1", answer(":status: 200\ncontent-length: 1"), "upstream prematurely closed stream"),
        (
            "8.1.1",
            [headers(1, END_HEADERS, ":status: 200\ncontent-length: 1"), data(1, END_STREAM, b"ab")].concat(),
            "200, upstream sent response body larger than indicated content length",
        ),
        (
            "8.1",
            [headers(1, END_HEADERS, OK), headers(1, END_HEADERS, "a: b")].concat(),
            "200, upstream sent invalid trailer",
        ),
        (
            "8.1",
            [headers(1, END_HEADERS, OK), answer(":a: b")].concat(),
            "200, upstream sent invalid trailer",
        ),
        ("8.4", frame(kind::PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), "upstream sent PUSH_PROMISE frame"),
        ("6.2", headers(3, WHOLE, OK), "upstream sent HEADERS frame for an unknown stream"),
        ("6.1", data(3, 0, b"a"), "upstream sent DATA frame for an idle stream"),
        (
            "6.5",
            settings(&[(setting::ENABLE_PUSH, 1)]),
            "upstream sent SETTINGS frame with incorrect ENABLE_PUSH value 1",
        ),
        ("6.4", rst_stream(1), "reset 8 by the peer, end"),
        (
            "5.1",
            [rst_stream(1), rst_stream(1)].concat(),
            "reset 8 by the peer, upstream sent frame for closed stream 1",
        ),
        (
            "6.9",
            [headers(1, END_HEADERS, OK), window_update(1, u32::MAX >> 1)].concat(),
            "200, reset 3 upstream violated flow control for stream 1: received WINDOW_UPDATE frame with window increment 2147483647 not allowed for window 65535",
        ),
    ];
    for (section, frames, expected) in cases {
        assert_eq!(told("GET", frames), *expected, "section {section}");
    }
}

#[test]
fn a_server_that_wants_no_more_gets_no_more() {
    let mut client = Connection::client(Limits::default());
    let mut heads = Heads::default();
    let input = [
        settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)]),
        frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]),
    ];
    client.receive(&input[0], 0, &mut heads).expect("fine");
    let stream = client.open(false).expect("one stream");
    assert_eq!(client.open(false), None, "the server takes one at a time");
    client.reset(stream, ErrorCode::CANCEL);
    client.release(stream);
    client.receive(&input[1], 0, &mut heads).expect("fine");
    assert_eq!(client.open(false), None, "the server goes away");
}
