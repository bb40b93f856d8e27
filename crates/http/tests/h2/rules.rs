//! One row for each rule about frames, streams and settings: what the client sends, and what it is told.

use super::frames::*;
use super::peer::{Server, summary};
use http::HeadOptions;
use http::h2::frame::{FrameHeader, kind, setting};
use http::h2::{Limits, PREFACE};

/// Section of RFC 9113, the rule, frames behind preface and SETTINGS, verdict.
type Row = (&'static str, &'static str, Vec<Vec<u8>>, &'static str);

fn check(rows: Vec<Row>) {
    let mut wrong = Vec::new();
    for (section, rule, frames, expected) in rows {
        let mut server = Server::new(Limits::default());
        server.feed(&frames.concat());
        let found = server.verdict();
        if found != expected {
            wrong.push(format!("{section} {rule}: {found}, not {expected}; {:?}", server.log));
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
    let large = vec![0; 16_385];
    let head_of = |kind, flags, stream, length| {
        let mut out = Vec::new();
        FrameHeader { length, kind, flags, stream }.write(&mut out);
        out
    };
    check(vec![
        ("4.1", "types nobody knows are ignored", vec![frame(0x16, 0xff, 0, b"xyz"), get(1)], "fine"),
        (
            "4.1",
            "types nobody knows, on a stream",
            vec![post(1), frame(0x16, 0, 1, b""), data(1, END_STREAM, b"x")],
            "fine",
        ),
        ("4.1", "flags without a meaning are ignored", vec![headers(1, 0x52 | WHOLE, GET)], "fine"),
        ("4.1", "flags of PING", vec![frame(kind::PING, 0x16, 0, b"12345678")], "fine"),
        ("4.1", "flags of SETTINGS", vec![frame(kind::SETTINGS, 0x30, 0, b"")], "fine"),
        ("4.1", "flags of WINDOW_UPDATE", vec![frame(kind::WINDOW_UPDATE, 0xff, 0, &[0, 0, 0, 1])], "fine"),
        (
            "4.1",
            "flags of RST_STREAM",
            vec![post(1), frame(kind::RST_STREAM, 0xff, 1, &[0, 0, 0, 8])],
            "fine",
        ),
        ("4.1", "flags of GOAWAY", vec![frame(kind::GOAWAY, 0xff, 0, &[0; 8])], "fine"),
        ("4.1", "flags of PRIORITY", vec![frame(kind::PRIORITY, 0xff, 1, &[0, 0, 0, 0, 1])], "fine"),
        ("4.1", "the reserved bit is ignored", vec![frame(kind::PING, 0, 1 << 31, b"12345678")], "fine"),
        (
            "4.2",
            "DATA beyond the least that has to be taken",
            vec![post(1), data(1, END_STREAM, &large)],
            "fine",
        ),
        (
            "4.2",
            "DATA beyond the window",
            vec![post(1), data(1, END_STREAM, &vec![0; 65_537]), get(3)],
            "stream 1 FLOW_CONTROL_ERROR",
        ),
        (
            "4.2, 10.5",
            "HEADERS larger than any field list we take",
            vec![head_of(kind::HEADERS, WHOLE, 1, 1 << 20)],
            "connection ENHANCE_YOUR_CALM",
        ),
        (
            "4.2, 10.5",
            "CONTINUATION larger than that",
            vec![headers(1, END_STREAM, GET), head_of(kind::CONTINUATION, 0, 1, 1 << 20)],
            "connection ENHANCE_YOUR_CALM",
        ),
        (
            "4.2, 10.5",
            "SETTINGS without an end",
            vec![head_of(kind::SETTINGS, 0, 0, 18_000)],
            "connection ENHANCE_YOUR_CALM",
        ),
        ("4.2", "GOAWAY with much to say", vec![frame(kind::GOAWAY, 0, 0, &large), get(1)], "fine"),
        (
            "4.2",
            "PING of the largest size",
            vec![head_of(kind::PING, 0, 0, (1 << 24) - 1), vec![0; 8]],
            "connection FRAME_SIZE_ERROR",
        ),
        (
            "4.2",
            "PRIORITY of many bytes",
            vec![post(1), frame(kind::PRIORITY, 0, 1, &large), data(1, END_STREAM, b"")],
            "stream 1 FRAME_SIZE_ERROR",
        ),
        ("4.1, 4.2", "a large one of a type nobody knows", vec![frame(0x20, 0, 0, &large), get(1)], "fine"),
    ]);
}

#[test]
fn header_blocks() {
    check(vec![
        (
            "4.3",
            "a block that ends within a field",
            vec![frame(kind::HEADERS, WHOLE, 1, &[0x40, 5, b'a'])],
            "connection COMPRESSION_ERROR",
        ),
        (
            "4.3",
            "an index behind the tables",
            vec![frame(kind::HEADERS, WHOLE, 1, &[0xff, 0x10])],
            "connection COMPRESSION_ERROR",
        ),
        (
            "4.3",
            "a broken block on a stream that is over",
            vec![get(1), rst_stream(1), post(3), rst_stream(3), frame(kind::HEADERS, WHOLE, 3, &[0x80])],
            "connection COMPRESSION_ERROR",
        ),
        (
            "4.3",
            "CONTINUATION",
            vec![headers(1, END_STREAM, GET), continuation(1, END_HEADERS, "x: y")],
            "fine",
        ),
        (
            "4.3",
            "several, also empty ones",
            vec![
                headers(1, END_STREAM, GET),
                continuation(1, 0, ""),
                continuation(1, 0, "x: y"),
                continuation(1, END_HEADERS, ""),
            ],
            "fine",
        ),
        (
            "4.3",
            "an empty HEADERS before it",
            vec![headers(1, END_STREAM, ""), continuation(1, END_HEADERS, GET)],
            "fine",
        ),
        (
            "6.10",
            "another frame in between",
            vec![headers(1, END_STREAM, GET), ping(0)],
            "connection PROTOCOL_ERROR",
        ),
        (
            "6.10",
            "DATA of the same stream in between",
            vec![headers(1, 0, GET), data(1, END_STREAM, b"")],
            "connection PROTOCOL_ERROR",
        ),
        (
            "6.10",
            "HEADERS of another stream in between",
            vec![headers(1, END_STREAM, GET), get(3)],
            "connection PROTOCOL_ERROR",
        ),
        (
            "6.10",
            "CONTINUATION of another stream",
            vec![headers(1, END_STREAM, GET), continuation(3, END_HEADERS, "x: y")],
            "connection PROTOCOL_ERROR",
        ),
        (
            "6.10",
            "CONTINUATION of stream 0",
            vec![headers(1, END_STREAM, GET), continuation(0, END_HEADERS, "x: y")],
            "connection PROTOCOL_ERROR",
        ),
        (
            "6.10",
            "behind END_HEADERS",
            vec![get(1), continuation(1, END_HEADERS, "x: y")],
            "connection PROTOCOL_ERROR",
        ),
        (
            "6.10",
            "behind DATA",
            vec![post(1), data(1, 0, b"x"), continuation(1, END_HEADERS, "x: y")],
            "connection PROTOCOL_ERROR",
        ),
        ("6.10", "without any HEADERS", vec![continuation(1, END_HEADERS, GET)], "connection PROTOCOL_ERROR"),
    ]);
}

#[test]
fn stream_states() {
    check(vec![
        ("5.1", "idle: DATA", vec![data(1, END_STREAM, b"x")], "connection PROTOCOL_ERROR"),
        ("5.1", "idle: RST_STREAM", vec![rst_stream(1)], "connection PROTOCOL_ERROR"),
        ("5.1", "idle: WINDOW_UPDATE", vec![window_update(1, 100)], "connection PROTOCOL_ERROR"),
        ("5.1", "idle: PRIORITY", vec![priority(3, 1), get(1)], "fine"),
        (
            "5.1",
            "closed by END_STREAM: DATA",
            vec![get(1), data(1, END_STREAM, b"x")],
            "connection STREAM_CLOSED",
        ),
        ("5.1", "closed by END_STREAM: HEADERS", vec![get(1), get(1)], "connection STREAM_CLOSED"),
        ("5.1", "closed by END_STREAM: WINDOW_UPDATE", vec![get(1), window_update(1, 1)], "fine"),
        ("5.1", "closed by END_STREAM: RST_STREAM", vec![get(1), rst_stream(1)], "fine"),
        ("5.1", "closed by END_STREAM: PRIORITY", vec![get(1), priority(1, 3)], "fine"),
        (
            "5.1",
            "closed by RST_STREAM: DATA",
            vec![post(1), rst_stream(1), data(1, END_STREAM, b"x")],
            "stream 1 STREAM_CLOSED",
        ),
        (
            "5.1",
            "closed by RST_STREAM: HEADERS",
            vec![post(1), rst_stream(1), get(1)],
            "stream 1 STREAM_CLOSED",
        ),
        (
            "5.1",
            "closed by us: late frames are ignored",
            vec![
                post(1),
                window_update(1, 0),
                data(1, 0, b"x"),
                headers(1, WHOLE, "a: b"),
                window_update(1, 9),
                rst_stream(1),
            ],
            "stream 1 PROTOCOL_ERROR",
        ),
        (
            "5.1",
            "closed by us, then by RST_STREAM: HEADERS",
            vec![post(1), window_update(1, 0), rst_stream(1), headers(1, WHOLE, "a: b")],
            "stream 1 PROTOCOL_ERROR, stream 1 STREAM_CLOSED",
        ),
        ("5.1.1", "an even stream", vec![get(2)], "connection PROTOCOL_ERROR"),
        ("5.1.1", "stream 0", vec![get(0)], "connection PROTOCOL_ERROR"),
        ("5.1.1", "a stream below the last", vec![get(5), get(3)], "connection PROTOCOL_ERROR"),
        ("5.1.1", "gaps", vec![get(3), get(101)], "fine"),
        ("5.1.1", "DATA on an even stream", vec![data(2, 0, b"x")], "connection PROTOCOL_ERROR"),
        (
            "5.3.1",
            "HEADERS that depend on themselves",
            vec![frame(kind::HEADERS, WHOLE | PRIORITY, 1, &[&[0, 0, 0, 1, 5][..], &fields(GET)].concat())],
            "stream 1 PROTOCOL_ERROR",
        ),
        (
            "5.3.1",
            "PRIORITY that depends on itself",
            vec![post(1), priority(1, 1)],
            "stream 1 PROTOCOL_ERROR",
        ),
        ("5.3.1", "the same on an idle stream", vec![priority(3, 3)], "connection PROTOCOL_ERROR"),
    ]);
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
    let padded = |padding: u8, rest: &[u8]| [&[padding][..], rest].concat();
    check(vec![
        ("6.1", "DATA on stream 0", vec![data(0, 0, b"x")], "connection PROTOCOL_ERROR"),
        ("6.1", "padding", vec![post(1), data(1, END_STREAM | PADDED, &padded(2, b"abc\0\0"))], "fine"),
        ("6.1", "padding only", vec![post(1), data(1, END_STREAM | PADDED, &padded(3, b"\0\0\0"))], "fine"),
        (
            "6.1",
            "padding of the payload's length",
            vec![post(1), data(1, END_STREAM | PADDED, &padded(4, b"abc"))],
            "connection PROTOCOL_ERROR",
        ),
        (
            "6.1",
            "padded and empty",
            vec![post(1), data(1, END_STREAM | PADDED, b"")],
            "connection PROTOCOL_ERROR",
        ),
        (
            "6.2",
            "padded HEADERS",
            vec![frame(kind::HEADERS, WHOLE | PADDED, 1, &padded(1, &[&fields(GET)[..], &[0]].concat()))],
            "fine",
        ),
        (
            "6.2",
            "HEADERS with too much padding",
            vec![frame(kind::HEADERS, WHOLE | PADDED, 1, &padded(200, &fields(GET)))],
            "connection PROTOCOL_ERROR",
        ),
        (
            "6.2",
            "HEADERS with priority",
            vec![frame(
                kind::HEADERS,
                WHOLE | PRIORITY,
                1,
                &[&[0x80, 0, 0, 0, 5][..], &fields(GET)].concat(),
            )],
            "fine",
        ),
        (
            "6.2",
            "HEADERS too short for it",
            vec![frame(kind::HEADERS, WHOLE | PRIORITY, 1, &[0; 4])],
            "connection FRAME_SIZE_ERROR",
        ),
        ("6.3", "PRIORITY on stream 0", vec![priority(0, 1)], "connection PROTOCOL_ERROR"),
        (
            "6.3",
            "PRIORITY of 4 bytes",
            vec![post(1), frame(kind::PRIORITY, 0, 1, &[0; 4])],
            "stream 1 FRAME_SIZE_ERROR",
        ),
        ("6.4", "RST_STREAM on stream 0", vec![rst_stream(0)], "connection PROTOCOL_ERROR"),
        (
            "6.4",
            "RST_STREAM of 3 bytes",
            vec![post(1), frame(kind::RST_STREAM, 0, 1, &[0; 3])],
            "connection FRAME_SIZE_ERROR",
        ),
        (
            "6.4",
            "RST_STREAM of 5 bytes",
            vec![post(1), frame(kind::RST_STREAM, 0, 1, &[0; 5])],
            "connection FRAME_SIZE_ERROR",
        ),
        ("6.5", "SETTINGS on a stream", vec![frame(kind::SETTINGS, 0, 1, b"")], "connection PROTOCOL_ERROR"),
        (
            "6.5",
            "an acknowledgement with a payload",
            vec![frame(kind::SETTINGS, ACK, 0, &[0; 6])],
            "connection FRAME_SIZE_ERROR",
        ),
        (
            "6.5",
            "SETTINGS of 3 bytes",
            vec![frame(kind::SETTINGS, 0, 0, &[0; 3])],
            "connection FRAME_SIZE_ERROR",
        ),
        (
            "6.5.2",
            "ENABLE_PUSH 0 and 1",
            vec![settings(&[(setting::ENABLE_PUSH, 0), (setting::ENABLE_PUSH, 1)])],
            "fine",
        ),
        ("6.5.2", "ENABLE_PUSH 2", vec![settings(&[(setting::ENABLE_PUSH, 2)])], "connection PROTOCOL_ERROR"),
        (
            "6.5.2",
            "INITIAL_WINDOW_SIZE 2^31",
            vec![settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)])],
            "connection FLOW_CONTROL_ERROR",
        ),
        (
            "6.5.2",
            "MAX_FRAME_SIZE 16383",
            vec![settings(&[(setting::MAX_FRAME_SIZE, 16_383)])],
            "connection PROTOCOL_ERROR",
        ),
        (
            "6.5.2",
            "MAX_FRAME_SIZE 2^24",
            vec![settings(&[(setting::MAX_FRAME_SIZE, 1 << 24)])],
            "connection PROTOCOL_ERROR",
        ),
        (
            "6.5.2",
            "MAX_FRAME_SIZE 2^24-1",
            vec![settings(&[(setting::MAX_FRAME_SIZE, (1 << 24) - 1)])],
            "fine",
        ),
        ("6.5.2", "settings nobody knows", vec![settings(&[(0xff, 1), (0, 9)]), get(1)], "fine"),
        (
            "RFC 8441, 3",
            "ENABLE_CONNECT_PROTOCOL 2",
            vec![settings(&[(setting::ENABLE_CONNECT_PROTOCOL, 2)])],
            "connection PROTOCOL_ERROR",
        ),
        (
            "6.6",
            "PUSH_PROMISE",
            vec![frame(kind::PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])],
            "connection PROTOCOL_ERROR",
        ),
        ("6.7", "PING on a stream", vec![frame(kind::PING, 0, 1, &[0; 8])], "connection PROTOCOL_ERROR"),
        ("6.7", "PING of 6 bytes", vec![frame(kind::PING, 0, 0, &[0; 6])], "connection FRAME_SIZE_ERROR"),
        ("6.8", "GOAWAY on a stream", vec![goaway(1)], "connection PROTOCOL_ERROR"),
        ("6.8", "GOAWAY of 4 bytes", vec![frame(kind::GOAWAY, 0, 0, &[0; 4])], "connection FRAME_SIZE_ERROR"),
        ("6.8", "GOAWAY", vec![goaway(0), get(1)], "fine"),
        (
            "6.9",
            "WINDOW_UPDATE of 3 bytes",
            vec![frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 1])],
            "connection FRAME_SIZE_ERROR",
        ),
        ("6.9", "WINDOW_UPDATE by 0", vec![window_update(0, 0)], "connection PROTOCOL_ERROR"),
        (
            "6.9",
            "WINDOW_UPDATE by 0 on a stream",
            vec![post(1), window_update(1, 0)],
            "stream 1 PROTOCOL_ERROR",
        ),
        (
            "6.9.1",
            "a window beyond 2^31-1",
            vec![window_update(0, (1 << 31) - 1)],
            "connection FLOW_CONTROL_ERROR",
        ),
        (
            "6.9.1",
            "a stream's window beyond it",
            vec![post(1), window_update(1, (1 << 31) - 1)],
            "stream 1 FLOW_CONTROL_ERROR",
        ),
        (
            "6.9.2",
            "by INITIAL_WINDOW_SIZE",
            vec![
                post(1),
                window_update(1, (1 << 31) - 65_536),
                settings(&[(setting::INITIAL_WINDOW_SIZE, 65_537)]),
            ],
            "connection FLOW_CONTROL_ERROR",
        ),
    ]);
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
