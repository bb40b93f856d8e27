//! One row for each rule about frames, streams and settings: what the client sends, and what it is told.

use super::frames::*;
use super::peer::{Server, summary};
use super::rows::{self, Row};
use http::HeadOptions;
use http::h2::frame::{kind, setting};
use http::h2::{Limits, PREFACE};

fn check(rows: Vec<Row>) {
    let mut wrong = Vec::new();
    for Row { section, rule, frames, verdict } in rows {
        let mut server = Server::new(Limits::default());
        server.feed(&frames.concat());
        let found = server.verdict();
        if found != verdict {
            wrong.push(format!("{section} {rule}: {found}, not {verdict}; {:?}", server.log));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn preface() {
    let first = settings(&[]);
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a preface and SETTINGS", [&PREFACE[..], &first].concat(), "fine"),
        ("SETTINGS that only acknowledge", [&PREFACE[..], &settings_ack(), &get(1)].concat(), "fine"),
        ("another preface", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(), "connection PROTOCOL_ERROR"),
        ("HTTP/1", b"GET / HTTP/1.1\r\n\r\n".to_vec(), "connection PROTOCOL_ERROR"),
        ("the first wrong byte is enough", b"PRI * HTTP/1".to_vec(), "connection PROTOCOL_ERROR"),
        ("no SETTINGS", [&PREFACE[..], &get(1)].concat(), "connection PROTOCOL_ERROR"),
        ("a PING first", [&PREFACE[..], &ping(0)].concat(), "connection PROTOCOL_ERROR"),
    ];
    for (rule, bytes, expected) in rows {
        let mut server = Server::bare(Limits::default(), HeadOptions::default());
        server.feed(&bytes);
        assert_eq!(server.verdict(), expected, "3.4 {rule}");
    }
}

#[test]
fn frame_format() {
    check(rows::frame_format());
}

#[test]
fn header_blocks() {
    check(rows::header_blocks());
}

#[test]
fn stream_states() {
    check(rows::stream_states());
}

#[test]
fn half_closed_streams() {
    let rows: [(&str, Vec<u8>, &str); 5] = [
        ("DATA", data(1, END_STREAM, b"x"), "stream 1 STREAM_CLOSED"),
        ("HEADERS", headers(1, WHOLE, "a: b"), "stream 1 STREAM_CLOSED"),
        ("WINDOW_UPDATE", window_update(1, 1), "fine"),
        ("PRIORITY", priority(1, 3), "fine"),
        ("RST_STREAM", rst_stream(1), "fine"),
    ];
    for (rule, bytes, expected) in rows {
        let mut server = Server::new(Limits::default());
        server.answers = false;
        server.feed(&[get(1), bytes].concat());
        assert_eq!(server.verdict(), expected, "5.1 half-closed (remote): {rule}");
    }
}

#[test]
fn frames_of_each_type() {
    check(rows::frames_of_each_type());
}

#[test]
fn header_compression() {
    check(super::message_rows::compression());
}

#[test]
fn what_is_asked_for_is_answered() {
    let mut server = Server::new(Limits::default());
    server.feed(
        &[settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)]), ping(0), ping(ACK), settings_ack()].concat(),
    );
    let frames = super::peer::written(&server.written);
    let kinds: Vec<_> = frames.iter().map(|(header, _)| (header.kind, header.flags)).collect();
    assert_eq!(kinds, [(kind::SETTINGS, ACK), (kind::PING, ACK)], "acknowledgements are not acknowledged");
    assert_eq!(frames[1].1, b"12345678");
}

#[test]
fn too_many_streams_are_refused() {
    let mut server = Server::new(Limits { streams_max: 2, ..Limits::default() });
    server.answers = false;
    server.feed(&[get(1), get(3), get(5)].concat());
    assert_eq!(server.verdict(), "stream 5 REFUSED_STREAM", "5.1.2");
    server.answer(1, 200);
    server.feed(&get(7));
    assert_eq!(server.log.last().unwrap(), "7 GET / HTTP/2.0");
}

#[test]
fn streams_behind_our_goaway_are_not_looked_at() {
    let mut server = Server::new(Limits::default());
    server.answers = false;
    server.feed(&post(1));
    server.connection.go_away();
    server.feed(&[post(3), data(3, END_STREAM, b"x"), data(1, END_STREAM, b"y")].concat());
    assert_eq!(server.verdict(), "connection NO_ERROR", "6.8: nothing but our GOAWAY");
    assert_eq!(server.log, ["1 POST / HTTP/2.0"]);
    server.answer(1, 200);
    assert_eq!(server.connection.streams(), 0);
}

#[test]
fn a_head_that_does_not_come_whole_is_given_up() {
    let mut server = Server::new(Limits::default());
    let whole = get(1);
    assert!(server.connection.give_up_frame(&whole[..20]));
    server.feed(&whole);
    assert_eq!(server.log, [""; 0], "the rest of it is no request any more");
    server.feed(&headers(3, END_STREAM, GET));
    assert!(server.connection.give_up_frame(b""), "nor one whose CONTINUATION does not come");
    server.feed(&continuation(3, END_HEADERS, "x: y"));
    assert_eq!(summary(&server.written), ["RST_STREAM 1", "RST_STREAM 3"]);
    server.feed(&post(5));
    assert!(server.connection.give_up_frame(&data(5, PADDED, &[0])[..9]), "a body has a limit of its own");
    server.feed(&data(5, 0, b"abc")[..10]);
    assert!(server.connection.is_amid_frame());
    server.feed(b"bc");
    assert!(!server.connection.is_amid_frame());
    assert!(!server.connection.give_up_frame(&ping(0)[..12]));
    assert!(!server.connection.give_up_frame(&get(7)[..5]), "nobody knows what this is");
}

/// What is written down about errors of streams, in nginx's words.
#[test]
fn errors_of_streams_say_why() {
    let rows: Vec<(Vec<u8>, &str)> = vec![
        (window_update(1, 0), "client sent WINDOW_UPDATE frame with incorrect window increment 0"),
        (
            window_update(1, (1 << 31) - 1),
            "client violated flow control for stream 1: received WINDOW_UPDATE frame with window increment 2147483647 not allowed for window 65535",
        ),
        (
            [data(1, 0, &[0; 16_384]).repeat(4), data(1, 0, b"x")].concat(),
            "client violated flow control for stream 1: received DATA frame length 1, available window 0",
        ),
        (priority(1, 1), "client sent PRIORITY frame for stream 1 with incorrect dependency"),
        (frame(kind::PRIORITY, 0, 1, &[0; 4]), "client sent PRIORITY frame with incorrect length 4"),
        (headers(1, END_HEADERS, "a: b"), "client sent invalid trailer for stream 1"),
        (
            [data(1, END_STREAM, b""), data(1, 0, b"x")].concat(),
            "client sent DATA frame for half-closed stream 1",
        ),
        (
            [data(1, END_STREAM, b""), headers(1, WHOLE, "a: b")].concat(),
            "client sent HEADERS frame for half-closed stream 1",
        ),
    ];
    for (bytes, message) in rows {
        let mut server = Server::new(Limits::default());
        server.answers = false;
        server.feed(&[post(1), bytes].concat());
        let last = server.log.last().map(String::as_str).unwrap_or_default();
        assert!(last.starts_with("1 reset ") && last.ends_with(message), "{last}, not {message}");
    }
}
