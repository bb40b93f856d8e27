//! Bodies in both directions, and both sides of the codec against each other.

use super::frames::*;
use super::peer::{Server, summary, written};
use http::Fields;
use http::h2::frame::{kind, setting};
use http::h2::{BodyState, Connection, Event, Heads, Limits, PREFACE};

fn respond(connection: &mut Connection, stream: u32) {
    let mut head = connection.begin_head(stream);
    head.status(200);
    head.finish(true);
}

#[test]
fn small_answers_are_two_frames() {
    let mut server = Server::new(Limits::default());
    server.answers = false;
    server.feed(&get(1));
    respond(&mut server.connection, 1);
    assert_eq!(server.connection.send(1, b"hello", 8192), 5);
    server.connection.finish(1, &Fields::new());
    assert_eq!(summary(&server.connection.output), ["HEADERS 1", "DATA 1 5 end"]);
    server.connection.release(1);
    assert_eq!(server.connection.streams(), 0);
}

#[test]
fn an_end_behind_what_was_written_is_a_frame_of_its_own() {
    let mut server = Server::new(Limits::default());
    server.answers = false;
    server.feed(&get(1));
    respond(&mut server.connection, 1);
    server.connection.send(1, b"hello", 8192);
    server.connection.output_written();
    server.connection.finish(1, &Fields::new());
    assert_eq!(summary(&server.connection.output), ["DATA 1 0 end"]);
}

/// Some of it may have left, its frames' headers with it.
#[test]
fn what_is_being_written_stays_as_it_is() {
    let mut server = Server::new(Limits::default());
    server.answers = false;
    server.feed(&get(1));
    let connection = &mut server.connection;
    respond(connection, 1);
    connection.send(1, b"hel", 8192);
    // Not yet.
    connection.send(1, b"lo", 8192);
    connection.output_offered();
    let offered = connection.output.clone();
    connection.send(1, b" world", 8192);
    connection.send(1, b"!", 8192);
    assert_eq!(connection.output[..offered.len()], offered);
    assert_eq!(summary(&connection.output), ["HEADERS 1", "DATA 1 5", "DATA 1 7"]);
    connection.output_offered();
    let offered = connection.output.clone();
    connection.finish(1, &Fields::new());
    assert_eq!(connection.output[..offered.len()], offered);
    assert_eq!(summary(&connection.output), ["HEADERS 1", "DATA 1 5", "DATA 1 7", "DATA 1 0 end"]);
    // What comes behind all that was written can be changed again.
    connection.output_written();
    server.feed(&get(3));
    let connection = &mut server.connection;
    respond(connection, 3);
    connection.send(3, b"a", 8192);
    connection.send(3, b"b", 8192);
    connection.finish(3, &Fields::new());
    assert_eq!(summary(&connection.output), ["HEADERS 3", "DATA 3 2 end"]);
}

#[test]
fn trailers_end_a_stream() {
    let mut server = Server::new(Limits::default());
    server.answers = false;
    server.feed(&get(1));
    respond(&mut server.connection, 1);
    server.connection.send(1, b"hello", 8192);
    let trailers: Fields = [(&b"grpc-status"[..], &b"0"[..])].into_iter().collect();
    server.connection.finish(1, &trailers);
    assert_eq!(summary(&server.connection.output), ["HEADERS 1", "DATA 1 5", "HEADERS 1 end"]);
}

#[test]
fn answers_wait_for_windows() {
    let mut server = Server::new(Limits::default());
    server.answers = false;
    server.feed(&[settings(&[(setting::INITIAL_WINDOW_SIZE, 10)]), get(1)].concat());
    respond(&mut server.connection, 1);
    assert_eq!(server.connection.send(1, &[0; 25], 4), 10);
    assert_eq!(server.connection.send(1, &[0; 15], 4), 0);
    server.feed(&window_update(1, 5));
    assert_eq!(server.connection.send(1, &[0; 15], 4), 5);
    // A smaller initial window makes the stream's negative (section 6.9.2).
    server.feed(&settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]));
    server.feed(&window_update(1, 10));
    assert_eq!(server.connection.room(1), 0);
    server.feed(&window_update(1, 3));
    assert_eq!(server.connection.room(1), 3);
    assert_eq!(summary(&server.written)[1..4], ["HEADERS 1", "DATA 1 4", "DATA 1 4"]);
}

#[test]
fn long_heads_are_cut_into_frames() {
    let mut server = Server::new(Limits::default());
    server.answers = false;
    server.feed(&get(1));
    let mut head = server.connection.begin_head(1);
    head.status(200);
    let value: String = (0..20_000u32).map(|n| char::from(33 + (n * n % 90) as u8)).collect();
    head.field(b"x", value.as_bytes());
    head.field(b"y", value.as_bytes());
    head.finish(true);
    server.connection.finish(1, &Fields::new());
    let output = server.connection.output.clone();
    assert_eq!(summary(&output), ["HEADERS 1 end", "CONTINUATION 1", "CONTINUATION 1"]);
    let mut client = Connection::client(Limits {
        header_string_bytes_max: 1 << 20,
        header_list_bytes_max: 1 << 20,
        ..Limits::default()
    });
    client.open(false);
    let mut heads = Heads::default();
    let input = [settings(&[]), output].concat();
    let mut at = 0;
    while let Some((count, _)) = client.receive(&input[at..], 0, &mut heads).unwrap() {
        at += count;
    }
    assert_eq!(heads.response.fields.get(b"y"), Some(value.as_bytes()));
}

#[test]
fn a_body_that_nobody_wants_is_cut_off() {
    let mut server = Server::new(Limits::default());
    server.answers = false;
    server.feed(&[post(1), data(1, 0, b"abc")].concat());
    server.answer(1, 413);
    assert_eq!(summary(&server.connection.output), ["HEADERS 1 end", "RST_STREAM 1"], "8.1: NO_ERROR");
    server.feed(&[data(1, 0, &[0; 10_000]), data(1, END_STREAM, b"")].concat());
    assert_eq!(server.verdict(), "stream 1 NO_ERROR");
}

/// A frame as large as the window is read while it comes (section 4.2): nobody holds it whole.
#[test]
fn large_frames_are_read_as_they_come() {
    let limits = Limits { frame_bytes_max: 1 << 20, connection_window_bytes: 1 << 20, ..Limits::default() };
    let mut server = Server::new(limits);
    server.answers = false;
    let body: Vec<u8> = (0..60_000u32).map(|n| (n / 7) as u8).collect();
    let sent = data(1, END_STREAM | PADDED, &[&[200][..], &body, &[0; 200]].concat());
    server.feed(&post(1));
    let mut read = Vec::new();
    for piece in sent.chunks(7000) {
        server.feed(piece);
        let before = read.len();
        let state = server.connection.read_body(1, &mut read);
        assert!(read.len() - before <= 7000, "a piece at a time: {state:?}");
    }
    assert!(read == body && server.connection.body_is_read(1));
    server.feed(&get(3));
    assert_eq!(server.log.last().unwrap(), "3 GET / HTTP/2.0", "the padding is passed over");
    assert!(!server.connection.is_amid_frame());
}

/// The rest of a frame whose stream has been answered meanwhile is passed over, and the connection has its window back.
#[test]
fn the_rest_of_a_frame_of_an_answered_stream() {
    let limits = Limits { frame_bytes_max: 1 << 20, connection_window_bytes: 100_000, ..Limits::default() };
    let mut server = Server::new(limits);
    server.answers = false;
    for id in [1, 3, 5] {
        let sent = data(id, END_STREAM, &[0; 60_000]);
        server.feed(&post(id));
        server.feed(&sent[..1000]);
        server.answer(id, 413);
        server.feed(&sent[1000..]);
    }
    assert_eq!(server.verdict(), "stream 1 NO_ERROR, stream 3 NO_ERROR, stream 5 NO_ERROR");
}

/// What is not read as it comes has bounds of its own, however large frames may be.
#[test]
fn large_frames_that_would_be_held() {
    let large = |kind, flags, stream| frame(kind, flags, stream, &[0; 50_000])[..100].to_vec();
    let rows = [
        ("HEADERS", large(kind::HEADERS, WHOLE, 1), "connection ENHANCE_YOUR_CALM"),
        (
            "CONTINUATION",
            [headers(1, END_STREAM, GET), large(kind::CONTINUATION, 0, 1)].concat(),
            "connection ENHANCE_YOUR_CALM",
        ),
        ("SETTINGS", large(kind::SETTINGS, 0, 0), "connection ENHANCE_YOUR_CALM"),
        ("PING", large(kind::PING, 0, 0), "connection FRAME_SIZE_ERROR"),
        (
            "DATA beyond the window",
            [post(1), frame(kind::DATA, 0, 1, &[0; 70_000])].concat(),
            "stream 1 FLOW_CONTROL_ERROR",
        ),
    ];
    for (what, bytes, expected) in rows {
        let mut server = Server::new(Limits { frame_bytes_max: 1 << 20, ..Limits::default() });
        server.feed(&bytes);
        assert_eq!(server.verdict(), expected, "10.5 {what}");
    }
}

#[test]
fn a_body_too_long_is_known_from_the_frame_header() {
    let mut server = Server::new(Limits::default());
    server.answers = false;
    let head = format!("{POST}content-length: 5\n");
    server.feed(
        &[headers(1, END_HEADERS, &head), data(1, 0, b"abc"), data(1, END_STREAM, b"def")[..10].to_vec()]
            .concat(),
    );
    let mut read = Vec::new();
    assert_eq!(server.connection.read_body(1, &mut read), BodyState::Read(3), "what was right is read");
    assert_eq!(server.connection.read_body(1, &mut read), BodyState::Malformed);
}

#[test]
fn early_bodies_get_the_default_window_until_settings_are_acknowledged() {
    let limits = Limits { stream_window_bytes: 10, ..Limits::default() };
    let mut server = Server::bare(limits, http::HeadOptions::default());
    server.answers = false;
    server.feed(&[&PREFACE[..], &settings(&[]), &post(1), &data(1, 0, &[0; 1000])].concat());
    assert_eq!(server.verdict(), "fine");
    server.feed(&[settings_ack(), data(1, 0, &[0; 10])].concat());
    assert_eq!(server.verdict(), "stream 1 FLOW_CONTROL_ERROR");
}

/// A client and an echo server with a wire between them that carries `piece` bytes at a time.
struct Talk {
    client: Connection,
    server: Connection,
    to_server: Vec<u8>,
    /// What arrived and is no whole frame yet.
    at_server: Vec<u8>,
    to_client: Vec<u8>,
    server_heads: Heads,
    client_heads: Heads,
    /// What the server owes the client, by stream, and whether more will come.
    echo: Vec<(u32, Vec<u8>, bool)>,
    received: Vec<u8>,
    /// The client has seen the end of its stream.
    ended: bool,
    piece: usize,
}

impl Talk {
    /// One turn. False when nothing moved.
    fn turn(&mut self) -> bool {
        let mut moved = false;
        for (from, wire) in [(&mut self.client, &mut self.to_server), (&mut self.server, &mut self.to_client)]
        {
            moved |= !from.output.is_empty();
            wire.extend_from_slice(&from.output);
            from.output_written();
        }
        let count = self.piece.min(self.to_server.len());
        moved |= count > 0;
        let mut offered = std::mem::take(&mut self.at_server);
        offered.extend(self.to_server.drain(..count));
        while let Some((count, event)) =
            self.server.receive(&offered, 0, &mut self.server_heads).expect("no errors")
        {
            offered.drain(..count);
            moved = true;
            self.server_event(event);
        }
        self.at_server = offered;
        for (stream, body, more) in &mut self.echo {
            let count = self.server.send(*stream, body, 16_384);
            body.drain(..count);
            if body.is_empty() && !*more {
                self.server.finish(*stream, &Fields::new());
                self.server.release(*stream);
            }
        }
        self.echo.retain(|(_, body, more)| *more || !body.is_empty());
        let mut offered = std::mem::take(&mut self.to_client);
        while let Some((count, event)) =
            self.client.receive(&offered, 0, &mut self.client_heads).expect("no errors")
        {
            offered.drain(..count);
            moved = true;
            self.client_event(event);
        }
        self.to_client = offered;
        moved
    }

    fn server_event(&mut self, event: Event) {
        match event {
            Event::Head { stream, ended, refusal } => {
                assert_eq!(
                    (refusal, self.server_heads.request.request_line()),
                    (None, &b"POST /x HTTP/2.0"[..])
                );
                self.server_heads.request.clear();
                respond(&mut self.server, stream);
                self.echo.push((stream, Vec::new(), !ended));
            }
            Event::Data { stream } => {
                let entry = self.echo.iter_mut().find(|(id, _, _)| *id == stream).expect("a known stream");
                let mut body = Vec::new();
                while let BodyState::Read(_) = self.server.read_body(stream, &mut body) {}
                entry.1.extend_from_slice(&body);
                entry.2 = !self.server.body_is_read(stream);
            }
            _ => {}
        }
    }

    fn client_event(&mut self, event: Event) {
        match event {
            Event::Head { .. } => {
                assert_eq!(self.client_heads.response.status.0, 200);
                self.client_heads.response.clear();
            }
            Event::Data { stream } => {
                while let BodyState::Read(_) = self.client.read_body(stream, &mut self.received) {}
                self.ended = self.client.body_is_read(stream);
            }
            _ => {}
        }
    }
}

#[test]
fn both_sides_understand_each_other() {
    for piece in [5000, 100_000] {
        let mut talk = Talk {
            client: Connection::client(Limits::default()),
            server: Connection::server(Limits::default(), http::HeadOptions::default()),
            to_server: Vec::new(),
            at_server: Vec::new(),
            to_client: Vec::new(),
            server_heads: Heads::default(),
            client_heads: Heads::default(),
            echo: Vec::new(),
            received: Vec::new(),
            ended: false,
            piece,
        };
        let body: Vec<u8> = (0..300_000u32).map(|n| (n / 7) as u8).collect();
        let stream = talk.client.open(false).unwrap();
        let mut head = talk.client.begin_head(stream);
        for (name, value) in [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "a")]
        {
            head.field(name.as_bytes(), value.as_bytes());
        }
        head.finish(false);
        let mut sent = 0;
        while !talk.ended {
            let count = talk.client.send(stream, &body[sent..], 16_384);
            sent += count;
            if sent == body.len() && count > 0 {
                talk.client.finish(stream, &Fields::new());
            }
            assert!(talk.turn(), "stuck at {} bytes", talk.received.len());
        }
        assert!(talk.received == body);
        talk.client.release(stream);
        assert_eq!((talk.client.streams(), talk.server.streams()), (0, 0));
    }
}

proptest::proptest! {
    /// However the bytes come, the same things happen.
    #[test]
    fn any_split_gives_the_same_events(cuts in proptest::collection::vec(1usize..60, 1..40)) {
        let input = [
            &PREFACE[..], &settings(&[(setting::INITIAL_WINDOW_SIZE, 100)]), &settings_ack(), &get(1), &post(3),
            &data(3, 0, b"abc"), &headers(5, END_STREAM, GET), &continuation(5, END_HEADERS, "x: y"), &ping(0),
            &data(3, PADDED, &[1, b'x', 0]), &data(3, 0, &[7; 2000]), &frame(0x20, 0, 0, &[0; 300]), &headers(3, WHOLE, "trailer: x"), &window_update(0, 5),
            &headers(7, WHOLE, ":method: GET"), &rst_stream(7), &frame(0x55, 0, 0, b"zzz"), &data(9, 0, b"idle"),
        ].concat();
        let run = |cuts: &[usize]| {
            let mut server = Server::bare(Limits::default(), http::HeadOptions::default());
            let mut rest = &input[..];
            for &cut in cuts.iter().cycle() {
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                server.feed(piece);
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            // Windows are opened by what was read, which is not the same for whole frames and for pieces of them.
            let said = written(&server.written).into_iter().filter(|(header, _)| header.kind != kind::WINDOW_UPDATE);
            (server.log, said.collect::<Vec<_>>())
        };
        proptest::prop_assert_eq!(run(&cuts), run(&[usize::MAX]));
    }

    #[test]
    fn no_bytes_make_a_server_panic(frames in proptest::collection::vec((0u8..12, 0u8..64, 0u32..8, proptest::collection::vec(0u8..=255, 0..40)), 0..20)) {
        let mut server = Server::new(Limits { streams_max: 3, ..Limits::default() });
        for (kind, flags, stream, payload) in frames {
            server.feed(&frame(kind, flags, stream, &payload));
        }
    }
}
