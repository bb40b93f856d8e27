//! Clients that want to wear the server out, each stopped by a bound.

use super::frames::*;
use super::peer::{Server, summary};
use http::Fields;
use http::h2::frame::{kind, setting};
use http::h2::{
    BROKEN_STREAMS_MAX, CONTINUATION_FRAMES_MAX, IDLE_FRAMES_MAX, IDLE_FRAMES_PER_SECOND_MAX, Limits,
};

/// A name, and the frames of one round.
type Way = (&'static str, Box<dyn Fn(u32) -> Vec<u8>>);

const CALM: &str = "connection ENHANCE_YOUR_CALM";

/// Feeds what `frame` makes of 0, 1, 2 ... until the connection ends; how many that took.
fn until_the_end(server: &mut Server, count_max: u32, frame: impl Fn(u32) -> Vec<u8>) -> u32 {
    for n in 0..count_max {
        server.feed(&frame(n));
        if server.error.is_some() {
            assert!(server.verdict().ends_with(CALM), "{}", server.verdict());
            return n;
        }
    }
    count_max
}

#[test]
fn floods_of_frames_that_bring_nothing() {
    let floods: Vec<Way> = vec![
        ("PING", Box::new(|_| ping(0))),
        ("PING acknowledgements", Box::new(|_| ping(ACK))),
        ("SETTINGS", Box::new(|_| settings(&[(setting::INITIAL_WINDOW_SIZE, 1000)]))),
        ("SETTINGS acknowledgements", Box::new(|_| settings_ack())),
        ("PRIORITY churn", Box::new(|n| priority(2 * n + 3, 1))),
        ("unknown types", Box::new(|_| frame(0x42, 0, 0, b"x"))),
        ("empty DATA", Box::new(|_| data(1, 0, b""))),
        ("padding without data", Box::new(|_| data(1, PADDED, &[4, 0, 0, 0, 0]))),
        ("window updates by 1", Box::new(|_| window_update(0, 1))),
        ("window updates of a stream", Box::new(|_| window_update(1, 1))),
        ("GOAWAY", Box::new(|_| goaway(0))),
    ];
    for (what, flood) in floods {
        let mut server = Server::new(Limits::default());
        server.feed(&post(1));
        let taken = until_the_end(&mut server, 2 * IDLE_FRAMES_MAX, flood);
        assert!((IDLE_FRAMES_MAX - 2..=IDLE_FRAMES_MAX).contains(&taken), "{what}: {taken}");
    }
}

#[test]
fn a_steady_trickle_of_pings_is_no_flood() {
    let mut server = Server::new(Limits::default());
    for _ in 0..10 * IDLE_FRAMES_MAX {
        server.now_ms += u64::from(1000 / IDLE_FRAMES_PER_SECOND_MAX);
        server.feed(&ping(0));
    }
    assert_eq!(server.verdict(), "fine");
}

/// CVE-2023-44487: streams that are opened and cancelled.
#[test]
fn rapid_reset() {
    let mut server = Server::new(Limits::default());
    let taken = until_the_end(&mut server, 10_000, |n| [post(2 * n + 1), rst_stream(2 * n + 1)].concat());
    assert_eq!(taken, BROKEN_STREAMS_MAX);
}

/// The same while the work goes on: what is cancelled counts until it is worked off.
#[test]
fn rapid_reset_does_not_make_room_for_more_work() {
    let mut server = Server::new(Limits { streams_max: 10, ..Limits::default() });
    server.answers = false;
    for n in 0..30 {
        server.feed(&[get(2 * n + 1), rst_stream(2 * n + 1)].concat());
    }
    assert_eq!(server.connection.streams(), 10);
    assert_eq!(server.verdict().matches("REFUSED_STREAM").count(), 20);
}

/// CVE-2025-8671: the client makes the server reset its streams.
#[test]
fn made_you_reset() {
    let ways: Vec<Way> = vec![
        ("an empty window update", Box::new(|id| window_update(id, 0))),
        ("a window beyond 2^31-1", Box::new(|id| window_update(id, (1 << 31) - 1))),
        ("trailers without an end", Box::new(|id| headers(id, END_HEADERS, "a: b"))),
        ("PRIORITY of 4 bytes", Box::new(|id| frame(kind::PRIORITY, 0, id, &[0; 4]))),
        ("DATA behind a reset", Box::new(|id| [rst_stream(id), data(id, 0, b"x")].concat())),
    ];
    for (what, way) in ways {
        let mut server = Server::new(Limits::default());
        let taken = until_the_end(&mut server, 2000, |n| [post(2 * n + 1), way(2 * n + 1)].concat());
        assert!(taken <= BROKEN_STREAMS_MAX, "{what}: {taken}");
    }
}

#[test]
fn malformed_requests_in_a_row() {
    let mut server = Server::new(Limits::default());
    for n in 0..2 * BROKEN_STREAMS_MAX {
        server.feed(&headers(2 * n + 1, WHOLE, ":method: GET"));
    }
    server.feed(&rst_stream(1));
    // The next cancelled stream is the one too many.
    server.feed(&[post(9001), rst_stream(9001)].concat());
    assert!(server.verdict().ends_with(CALM));
}

#[test]
fn streams_that_are_refused_in_a_row() {
    let mut server = Server::new(Limits { streams_max: 1, ..Limits::default() });
    server.answers = false;
    server.feed(&get(1));
    let taken = until_the_end(&mut server, 2000, |n| get(2 * n + 3));
    assert_eq!(taken, BROKEN_STREAMS_MAX);
}

#[test]
fn answers_pay_for_cancelled_streams() {
    let mut server = Server::new(Limits::default());
    for n in 0..4 * BROKEN_STREAMS_MAX {
        server.feed(&[get(4 * n + 1), post(4 * n + 3), rst_stream(4 * n + 3)].concat());
    }
    assert_eq!(server.verdict(), "fine");
}

/// CVE-2024-27316 and its kin.
#[test]
fn continuation_floods() {
    let mut server = Server::new(Limits::default());
    server.feed(&headers(1, END_STREAM, GET));
    assert_eq!(until_the_end(&mut server, 1000, |_| continuation(1, 0, "")), CONTINUATION_FRAMES_MAX);
    let mut server = Server::new(Limits::default());
    server.feed(&headers(1, END_STREAM, GET));
    let line = format!("x: {}", "y".repeat(8000));
    assert!(until_the_end(&mut server, 1000, |_| continuation(1, 0, &line)) < 5);
}

/// A large entry in the table, asked for again and again at one byte each.
#[test]
fn header_bomb() {
    let mut server = Server::new(Limits::default());
    let mut block = fields(GET);
    literal(0x40, b"x", &[b'y'; 4000], &mut block);
    block.extend(std::iter::repeat_n(0x80 | 62, 12_000));
    server.feed(&frame(kind::HEADERS, WHOLE, 1, &block));
    assert_eq!(server.verdict(), CALM);
}

/// A Huffman string decodes to more than its length; it stops at the bound.
#[test]
fn huffman_bomb() {
    let mut server = Server::new(Limits { header_list_bytes_max: 1000, ..Limits::default() });
    let mut block = fields(GET);
    // "0" has five bits.
    block.extend_from_slice(&[0, 1, b'x', 0xff, 0x81, 0x06]);
    block.extend_from_slice(&[0; 896]);
    server.feed(&frame(kind::HEADERS, WHOLE, 1, &block));
    assert_eq!(server.verdict(), CALM);
}

#[test]
fn more_data_than_the_windows_allow() {
    let limits =
        Limits { stream_window_bytes: 70_000, connection_window_bytes: 100_000, ..Limits::default() };
    let mut server = Server::new(limits);
    server.answers = false;
    server.feed(&post(1));
    let piece = [0; 16_000];
    for _ in 0..4 {
        server.feed(&data(1, 0, &piece));
    }
    assert_eq!(server.verdict(), "fine");
    server.feed(&data(1, 0, &piece));
    assert_eq!(server.verdict(), "stream 1 FLOW_CONTROL_ERROR", "6.9.1: the stream's window");
    let mut server = Server::new(limits);
    server.answers = false;
    server.feed(&[post(1), post(3), post(5)].concat());
    for id in [1, 3, 5, 1, 3, 5] {
        server.feed(&data(id, 0, &piece));
    }
    assert_eq!(server.verdict(), "fine");
    server.feed(&data(1, 0, &piece));
    assert_eq!(server.verdict(), "connection FLOW_CONTROL_ERROR", "6.9.1: the connection's window");
}

/// A client that asks and never opens its window: nothing is written, nothing piles up.
#[test]
fn windows_that_stay_shut() {
    let mut server = Server::new(Limits::default());
    server.answers = false;
    server.feed(&[settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]), get(1)].concat());
    server.written.clear();
    let mut head = server.connection.begin_head(1);
    head.status(200);
    head.finish(true);
    assert_eq!(server.connection.send(1, &[0; 100_000], 16_384), 0);
    // Opened byte by byte: bytes go out one by one, and the client soon runs out of credit.
    let mut sent = 0;
    for _ in 0..2 * IDLE_FRAMES_MAX {
        server.feed(&window_update(1, 1));
        if server.error.is_some() {
            break;
        }
        sent += server.connection.send(1, &[0; 10], 16_384);
    }
    assert!(server.verdict().ends_with(CALM));
    assert!((IDLE_FRAMES_MAX as usize - 2..IDLE_FRAMES_MAX as usize + 10).contains(&sent), "{sent}");
}

/// Whatever waits to be written is bounded; beyond that nothing is taken from the caller.
#[test]
fn output_is_bounded() {
    let limits = Limits { output_bytes_max: 10_000, ..Limits::default() };
    let mut server = Server::new(limits);
    server.answers = false;
    server.feed(
        &[window_update(0, 1 << 30), settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 30)]), get(1)].concat(),
    );
    let mut sent = 0;
    for _ in 0..100 {
        sent += server.connection.send(1, &[0; 5000], 4096);
    }
    assert!(sent <= 10_000 && !server.connection.has_output_room(), "{sent}");
    server.connection.finish(1, &Fields::new());
    let frames = summary(&server.connection.output);
    assert!(frames.last().unwrap().ends_with(" end"), "the end is set on the last frame: {frames:?}");
}
