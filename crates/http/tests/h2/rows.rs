//! What clients send and what they are told, a row for each rule that a server must enforce: RFC 9113 on frames, streams
//! and settings. The tests of the codec feed these to it; those of the program send them to a gateway, with and without TLS.

use super::frames::*;
use http::h2::frame::{FrameHeader, kind, setting};

const TOO_LARGE: &str = "connection FRAME_SIZE_ERROR";

/// A rule.
pub struct Row {
    /// Where it stands: the section of RFC 9113 unless another is named.
    pub section: &'static str,
    /// What the client does.
    pub rule: &'static str,
    /// Frames behind preface and SETTINGS.
    pub frames: Vec<Vec<u8>>,
    /// The errors that the client is told of, in order: `connection CODE`, `stream N CODE`; `fine` if none.
    pub verdict: &'static str,
}

/// A row.
pub fn row(section: &'static str, rule: &'static str, frames: Vec<Vec<u8>>, verdict: &'static str) -> Row {
    Row { section, rule, frames, verdict }
}

/// Sections 4.1 and 4.2.
pub fn frame_format() -> Vec<Row> {
    let large = vec![0; 16_385];
    let header_alone = |kind, length| {
        let mut out = Vec::new();
        FrameHeader { length, kind, flags: 0, stream: 1 }.write(&mut out);
        out
    };
    vec![
        row("4.1", "types nobody knows are ignored", vec![frame(0x16, 0xff, 0, b"xyz"), get(1)], "fine"),
        row(
            "4.1",
            "types nobody knows, on a stream",
            vec![post(1), frame(0x16, 0, 1, b""), data(1, END_STREAM, b"x")],
            "fine",
        ),
        row("4.1", "flags without a meaning are ignored", vec![headers(1, 0x52 | WHOLE, GET)], "fine"),
        row("4.1", "flags of PING", vec![frame(kind::PING, 0x16, 0, b"12345678")], "fine"),
        row("4.1", "flags of SETTINGS", vec![frame(kind::SETTINGS, 0x30, 0, b"")], "fine"),
        row(
            "4.1",
            "flags of WINDOW_UPDATE",
            vec![frame(kind::WINDOW_UPDATE, 0xff, 0, &[0, 0, 0, 1])],
            "fine",
        ),
        row(
            "4.1",
            "flags of RST_STREAM",
            vec![post(1), frame(kind::RST_STREAM, 0xff, 1, &[0, 0, 0, 8])],
            "fine",
        ),
        row("4.1", "flags of GOAWAY", vec![frame(kind::GOAWAY, 0xff, 0, &[0; 8])], "fine"),
        row("4.1", "flags of PRIORITY", vec![frame(kind::PRIORITY, 0xff, 1, &[0, 0, 0, 0, 1])], "fine"),
        row("4.1", "the reserved bit is ignored", vec![frame(kind::PING, 0, 1 << 31, b"12345678")], "fine"),
        row("4.2", "DATA of the largest size", vec![post(1), data(1, END_STREAM, &large[..16_384])], "fine"),
        row("4.2", "DATA beyond it", vec![post(1), data(1, END_STREAM, &large)], TOO_LARGE),
        row("4.2", "HEADERS beyond it", vec![frame(kind::HEADERS, WHOLE, 1, &large)], TOO_LARGE),
        row("4.2", "SETTINGS beyond it", vec![frame(kind::SETTINGS, 0, 0, &vec![0; 18_000])], TOO_LARGE),
        row("4.2", "a type nobody knows beyond it", vec![frame(0x20, 0, 0, &large)], TOO_LARGE),
        row("4.2", "the largest that can be said", vec![header_alone(kind::DATA, (1 << 24) - 1)], TOO_LARGE),
        row("4.2", "PING, far too large", vec![frame(kind::PING, 0, 0, &large[..16_384])], TOO_LARGE),
        row(
            "4.2",
            "PRIORITY, far too large",
            vec![post(1), frame(kind::PRIORITY, 0, 1, &large[..16_384]), data(1, END_STREAM, b"")],
            "stream 1 FRAME_SIZE_ERROR",
        ),
        row(
            "4.1",
            "GOAWAY with much to say",
            vec![frame(kind::GOAWAY, 0, 0, &large[..16_384]), get(1)],
            "fine",
        ),
        row(
            "4.1",
            "a large one of a type nobody knows",
            vec![frame(0x20, 0, 0, &large[..16_384]), get(1)],
            "fine",
        ),
    ]
}

/// Sections 4.3 and 6.10.
pub fn header_blocks() -> Vec<Row> {
    vec![
        row(
            "4.3",
            "a block that ends within a field",
            vec![frame(kind::HEADERS, WHOLE, 1, &[0x40, 5, b'a'])],
            "connection COMPRESSION_ERROR",
        ),
        row(
            "4.3",
            "an index behind the tables",
            vec![frame(kind::HEADERS, WHOLE, 1, &[0xff, 0x10])],
            "connection COMPRESSION_ERROR",
        ),
        row(
            "4.3",
            "a broken block on a stream that is over",
            vec![get(1), rst_stream(1), post(3), rst_stream(3), frame(kind::HEADERS, WHOLE, 3, &[0x80])],
            "connection COMPRESSION_ERROR",
        ),
        row(
            "4.3",
            "CONTINUATION",
            vec![headers(1, END_STREAM, GET), continuation(1, END_HEADERS, "x: y")],
            "fine",
        ),
        row(
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
        row(
            "4.3",
            "an empty HEADERS before it",
            vec![headers(1, END_STREAM, ""), continuation(1, END_HEADERS, GET)],
            "fine",
        ),
        row(
            "4.3",
            "PRIORITY in between",
            vec![headers(1, END_STREAM, GET), priority(1, 3)],
            "connection PROTOCOL_ERROR",
        ),
        row(
            "5.5",
            "a type nobody knows in between",
            vec![headers(1, END_STREAM, GET), frame(0x16, 0, 1, b"")],
            "connection PROTOCOL_ERROR",
        ),
        row(
            "6.10",
            "behind a CONTINUATION with END_HEADERS",
            vec![
                headers(1, END_STREAM, GET),
                continuation(1, END_HEADERS, "x: y"),
                continuation(1, END_HEADERS, "x: y"),
            ],
            "connection PROTOCOL_ERROR",
        ),
        row(
            "6.10",
            "another frame in between",
            vec![headers(1, END_STREAM, GET), ping(0)],
            "connection PROTOCOL_ERROR",
        ),
        row(
            "6.10",
            "DATA of the same stream in between",
            vec![headers(1, 0, GET), data(1, END_STREAM, b"")],
            "connection PROTOCOL_ERROR",
        ),
        row(
            "6.10",
            "HEADERS of another stream in between",
            vec![headers(1, END_STREAM, GET), get(3)],
            "connection PROTOCOL_ERROR",
        ),
        row(
            "6.10",
            "CONTINUATION of another stream",
            vec![headers(1, END_STREAM, GET), continuation(3, END_HEADERS, "x: y")],
            "connection PROTOCOL_ERROR",
        ),
        row(
            "6.10",
            "CONTINUATION of stream 0",
            vec![headers(1, END_STREAM, GET), continuation(0, END_HEADERS, "x: y")],
            "connection PROTOCOL_ERROR",
        ),
        row(
            "6.10",
            "behind END_HEADERS",
            vec![get(1), continuation(1, END_HEADERS, "x: y")],
            "connection PROTOCOL_ERROR",
        ),
        row(
            "6.10",
            "behind DATA",
            vec![post(1), data(1, 0, b"x"), continuation(1, END_HEADERS, "x: y")],
            "connection PROTOCOL_ERROR",
        ),
        row(
            "6.10",
            "without any HEADERS",
            vec![continuation(1, END_HEADERS, GET)],
            "connection PROTOCOL_ERROR",
        ),
    ]
}

/// Sections 5.1 and 5.3.
pub fn stream_states() -> Vec<Row> {
    let weight = |stream, weight| frame(kind::PRIORITY, 0, stream, &[0, 0, 0, 0, weight]);
    vec![
        row("5.1", "idle: DATA", vec![data(1, END_STREAM, b"x")], "connection PROTOCOL_ERROR"),
        row("5.1", "idle: RST_STREAM", vec![rst_stream(1)], "connection PROTOCOL_ERROR"),
        row("5.1", "idle: WINDOW_UPDATE", vec![window_update(1, 100)], "connection PROTOCOL_ERROR"),
        row("5.1", "idle: PRIORITY", vec![priority(3, 1), get(1)], "fine"),
        row(
            "5.1",
            "closed by END_STREAM: DATA",
            vec![get(1), data(1, END_STREAM, b"x")],
            "connection STREAM_CLOSED",
        ),
        row("5.1", "closed by END_STREAM: HEADERS", vec![get(1), get(1)], "connection STREAM_CLOSED"),
        row("5.1", "closed by END_STREAM: WINDOW_UPDATE", vec![get(1), window_update(1, 1)], "fine"),
        row("5.1", "closed by END_STREAM: RST_STREAM", vec![get(1), rst_stream(1)], "fine"),
        row("5.1", "closed by END_STREAM: PRIORITY", vec![get(1), priority(1, 3)], "fine"),
        row(
            "5.1",
            "closed by RST_STREAM: DATA",
            vec![post(1), rst_stream(1), data(1, END_STREAM, b"x")],
            "stream 1 STREAM_CLOSED",
        ),
        row(
            "5.1",
            "closed by RST_STREAM: HEADERS",
            vec![post(1), rst_stream(1), get(1)],
            "stream 1 STREAM_CLOSED",
        ),
        row(
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
        row(
            "5.1",
            "closed by us, then by RST_STREAM: HEADERS",
            vec![post(1), window_update(1, 0), rst_stream(1), headers(1, WHOLE, "a: b")],
            "stream 1 PROTOCOL_ERROR, stream 1 STREAM_CLOSED",
        ),
        row(
            "5.1",
            "closed by RST_STREAM: CONTINUATION",
            vec![post(1), rst_stream(1), continuation(1, END_HEADERS, "x: y")],
            "connection PROTOCOL_ERROR",
        ),
        row("5.3", "an exclusive dependency", vec![priority(3, 1 << 31 | 1), get(3)], "fine"),
        row("5.3", "PRIORITY, then a lower stream", vec![priority(7, 0), get(3)], "fine"),
        row("5.3", "the least and the most weight", vec![weight(1, 0), weight(1, 255), get(1)], "fine"),
        row("5.1.1", "an even stream", vec![get(2)], "connection PROTOCOL_ERROR"),
        row("5.1.1", "stream 0", vec![get(0)], "connection PROTOCOL_ERROR"),
        row("5.1.1", "a stream below the last", vec![get(5), get(3)], "connection PROTOCOL_ERROR"),
        row("5.1.1", "gaps", vec![get(3), get(101)], "fine"),
        row("5.1.1", "DATA on an even stream", vec![data(2, 0, b"x")], "connection PROTOCOL_ERROR"),
        row(
            "5.3.1",
            "HEADERS that depend on themselves",
            vec![frame(kind::HEADERS, WHOLE | PRIORITY, 1, &[&[0, 0, 0, 1, 5][..], &fields(GET)].concat())],
            "stream 1 PROTOCOL_ERROR",
        ),
        row(
            "5.3.1",
            "PRIORITY that depends on itself",
            vec![post(1), priority(1, 1)],
            "stream 1 PROTOCOL_ERROR",
        ),
        row("5.3.1", "the same on an idle stream", vec![priority(3, 3)], "connection PROTOCOL_ERROR"),
    ]
}

/// Sections 6.1 to 6.9.
pub fn frames_of_each_type() -> Vec<Row> {
    let padded = |padding: u8, rest: &[u8]| [&[padding][..], rest].concat();
    vec![
        row("6.1", "DATA on stream 0", vec![data(0, 0, b"x")], "connection PROTOCOL_ERROR"),
        row("6.1", "padding", vec![post(1), data(1, END_STREAM | PADDED, &padded(2, b"abc\0\0"))], "fine"),
        row(
            "6.1",
            "padding only",
            vec![post(1), data(1, END_STREAM | PADDED, &padded(3, b"\0\0\0"))],
            "fine",
        ),
        row(
            "6.1",
            "padding of the payload's length",
            vec![post(1), data(1, END_STREAM | PADDED, &padded(4, b"abc"))],
            "connection PROTOCOL_ERROR",
        ),
        row(
            "6.1",
            "padded and empty",
            vec![post(1), data(1, END_STREAM | PADDED, b"")],
            "connection PROTOCOL_ERROR",
        ),
        row(
            "6.2",
            "padded HEADERS",
            vec![frame(kind::HEADERS, WHOLE | PADDED, 1, &padded(1, &[&fields(GET)[..], &[0]].concat()))],
            "fine",
        ),
        row(
            "6.2",
            "HEADERS with too much padding",
            vec![frame(kind::HEADERS, WHOLE | PADDED, 1, &padded(200, &fields(GET)))],
            "connection PROTOCOL_ERROR",
        ),
        row(
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
        row(
            "6.2",
            "HEADERS too short for it",
            vec![frame(kind::HEADERS, WHOLE | PRIORITY, 1, &[0; 4])],
            "connection FRAME_SIZE_ERROR",
        ),
        row("6.3", "PRIORITY on stream 0", vec![priority(0, 1)], "connection PROTOCOL_ERROR"),
        row(
            "6.3",
            "PRIORITY of 4 bytes",
            vec![post(1), frame(kind::PRIORITY, 0, 1, &[0; 4])],
            "stream 1 FRAME_SIZE_ERROR",
        ),
        row("6.4", "RST_STREAM on stream 0", vec![rst_stream(0)], "connection PROTOCOL_ERROR"),
        row(
            "6.4",
            "RST_STREAM of 3 bytes",
            vec![post(1), frame(kind::RST_STREAM, 0, 1, &[0; 3])],
            "connection FRAME_SIZE_ERROR",
        ),
        row(
            "6.4",
            "RST_STREAM of 5 bytes",
            vec![post(1), frame(kind::RST_STREAM, 0, 1, &[0; 5])],
            "connection FRAME_SIZE_ERROR",
        ),
        row(
            "6.5",
            "SETTINGS on a stream",
            vec![frame(kind::SETTINGS, 0, 1, b"")],
            "connection PROTOCOL_ERROR",
        ),
        row(
            "6.5",
            "an acknowledgement with a payload",
            vec![frame(kind::SETTINGS, ACK, 0, &[0; 6])],
            "connection FRAME_SIZE_ERROR",
        ),
        row(
            "6.5",
            "SETTINGS of 3 bytes",
            vec![frame(kind::SETTINGS, 0, 0, &[0; 3])],
            "connection FRAME_SIZE_ERROR",
        ),
        row(
            "6.5.2",
            "ENABLE_PUSH 0 and 1",
            vec![settings(&[(setting::ENABLE_PUSH, 0), (setting::ENABLE_PUSH, 1)])],
            "fine",
        ),
        row(
            "6.5.2",
            "ENABLE_PUSH 2",
            vec![settings(&[(setting::ENABLE_PUSH, 2)])],
            "connection PROTOCOL_ERROR",
        ),
        row(
            "6.5.2",
            "INITIAL_WINDOW_SIZE 2^31",
            vec![settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)])],
            "connection FLOW_CONTROL_ERROR",
        ),
        row(
            "6.5.2",
            "MAX_FRAME_SIZE 16383",
            vec![settings(&[(setting::MAX_FRAME_SIZE, 16_383)])],
            "connection PROTOCOL_ERROR",
        ),
        row(
            "6.5.2",
            "MAX_FRAME_SIZE 2^24",
            vec![settings(&[(setting::MAX_FRAME_SIZE, 1 << 24)])],
            "connection PROTOCOL_ERROR",
        ),
        row(
            "6.5.2",
            "MAX_FRAME_SIZE 2^24-1",
            vec![settings(&[(setting::MAX_FRAME_SIZE, (1 << 24) - 1)])],
            "fine",
        ),
        row("6.5.2", "settings nobody knows", vec![settings(&[(0xff, 1), (0, 9)]), get(1)], "fine"),
        row(
            "RFC 8441, 3",
            "ENABLE_CONNECT_PROTOCOL 2",
            vec![settings(&[(setting::ENABLE_CONNECT_PROTOCOL, 2)])],
            "connection PROTOCOL_ERROR",
        ),
        row(
            "6.6",
            "PUSH_PROMISE",
            vec![frame(kind::PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])],
            "connection PROTOCOL_ERROR",
        ),
        row("6.7", "PING on a stream", vec![frame(kind::PING, 0, 1, &[0; 8])], "connection PROTOCOL_ERROR"),
        row("6.7", "PING of 6 bytes", vec![frame(kind::PING, 0, 0, &[0; 6])], "connection FRAME_SIZE_ERROR"),
        row(
            "7",
            "RST_STREAM for a reason nobody knows",
            vec![post(1), frame(kind::RST_STREAM, 0, 1, &[0xff; 4])],
            "fine",
        ),
        row(
            "7",
            "GOAWAY for a reason nobody knows",
            vec![frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff]), get(1)],
            "fine",
        ),
        row("6.8", "GOAWAY on a stream", vec![goaway(1)], "connection PROTOCOL_ERROR"),
        row(
            "6.8",
            "GOAWAY of 4 bytes",
            vec![frame(kind::GOAWAY, 0, 0, &[0; 4])],
            "connection FRAME_SIZE_ERROR",
        ),
        row("6.8", "GOAWAY", vec![goaway(0), get(1)], "fine"),
        row(
            "6.9",
            "WINDOW_UPDATE of 3 bytes",
            vec![frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 1])],
            "connection FRAME_SIZE_ERROR",
        ),
        row("6.9", "WINDOW_UPDATE by 0", vec![window_update(0, 0)], "connection PROTOCOL_ERROR"),
        row(
            "6.9",
            "WINDOW_UPDATE by 0 on a stream",
            vec![post(1), window_update(1, 0)],
            "stream 1 PROTOCOL_ERROR",
        ),
        row(
            "6.9.1",
            "a window beyond 2^31-1",
            vec![window_update(0, (1 << 31) - 1)],
            "connection FLOW_CONTROL_ERROR",
        ),
        row(
            "6.9.1",
            "a stream's window beyond it",
            vec![post(1), window_update(1, (1 << 31) - 1)],
            "stream 1 FLOW_CONTROL_ERROR",
        ),
        row(
            "6.9.2",
            "by INITIAL_WINDOW_SIZE",
            vec![
                post(1),
                window_update(1, (1 << 31) - 65_536),
                settings(&[(setting::INITIAL_WINDOW_SIZE, 65_537)]),
            ],
            "connection FLOW_CONTROL_ERROR",
        ),
    ]
}
