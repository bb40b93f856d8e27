//! What nobody should send: half requests, endless ones, back ends that talk nonsense or stop anywhere. Each time the
//! one who did it gets a clear answer or an end, the log says why in nginx's words, nobody else loses anything, and
//! nothing is left behind. `GATEWAY=/usr/sbin/nginx` asks a real nginx.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use support::gateway::is_gapura;
use support::origin::{End, Origin};
use support::raw::{Before, ask, body, get, status};
use support::server::{PATIENCE, Server};
use support::wait_for;

/// One part in so many of all prefixes and splits is tried where trying all would take too long.
const STRIDE: usize = 3;

/// A server with a way to the back end, patient for a few seconds: those who mean to answer do so in less on any machine.
fn gateway(origin: &Origin) -> Server {
    let conf = format!(
        "error_log error.log info; pid nginx.pid; worker_processes 1;\nevents {{}}\n\
         http {{ access_log access.log; client_header_timeout 3s; client_body_timeout 3s; send_timeout 3s;\n\
         proxy_read_timeout 3s; client_body_temp_path body; proxy_temp_path proxy; lingering_timeout 1s;\n\
         server {{ listen %HOST%:8080; root html; client_max_body_size 100k;\n\
         location / {{ return 200 a; }} location /file {{ }}\n\
         location /p/ {{ proxy_pass http://{0}; }}\n\
         location /u/ {{ proxy_pass http://{0}; proxy_buffering off; proxy_request_buffering off; }}\n}} }}\n",
        origin.address
    );
    let server = Server::started("nginx", &conf);
    assert_eq!(server.body(8080), "a");
    server
}

#[test]
fn back_ends_that_talk_nonsense() {
    let origin = Origin::start();
    let server = gateway(&origin);
    let before = Before::of(&server);
    let ok = "HTTP/1.1 200 OK\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = "a".repeat(20_000);
    let many = |line: &str, count| line.repeat(count);
    let closed = "upstream prematurely closed connection while reading response header from upstream";
    let invalid = "upstream sent invalid header";
    let length = "upstream sent invalid \"Content-Length\" header";
    let big = "upstream sent too big header while reading response header from upstream";
    let chunk = "upstream sent invalid chunked response while reading upstream";
    let cases: Vec<(String, End, u16, &str)> = vec![
        (String::new(), End::Close, 502, closed),
        ("H".into(), End::Close, 502, closed),
        (ok.into(), End::Close, 502, closed),
        (
            String::new(),
            End::Reset,
            502,
            "recv() failed (104: Connection reset by peer) while reading response header",
        ),
        (
            String::new(),
            End::Silence,
            504,
            "upstream timed out (110: Connection timed out) while reading response header",
        ),
        (format!("{ok}X: {long}\r\n\r\nx"), End::Close, 502, big),
        (format!("{ok}{}\r\nx", many("X: y\r\n", 3_000)), End::Close, 502, big),
        (format!("{ok}{}", many("X: y\r\n", 300_000)), End::Silence, 502, big),
        (many("HTTP/1.1 100 Continue\r\n\r\n", 10_001), End::Silence, 502, "too many interim responses"),
        (format!("{ok}Content-Length: -5\r\n\r\nhello"), End::Close, 502, length),
        (format!("{ok}Content-Length: +5\r\n\r\nhello"), End::Close, 502, length),
        (format!("{ok}Content-Length: a\r\n\r\nhello"), End::Close, 502, length),
        (format!("{ok}Content-Length: 99999999999999999999\r\n\r\nhello"), End::Close, 502, length),
        (
            format!("{ok}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
            End::Close,
            502,
            "duplicate header line",
        ),
        (
            format!("{ok}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            End::Close,
            502,
            "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
        ),
        (
            format!("{ok}Transfer-Encoding: gzip\r\n\r\nhello"),
            End::Close,
            502,
            "unknown \"Transfer-Encoding\"",
        ),
        (format!("{ok}X: a\0b\r\n\r\nhello"), End::Close, 502, invalid),
        (format!("{ok}\0X: ab\r\n\r\nhello"), End::Close, 502, invalid),
        (format!("{ok}X: y\r\n z\r\n\r\nhello"), End::Close, 502, invalid),
        (format!("{chunked}zz\r\nhello\r\n0\r\n\r\n"), End::Close, 200, chunk),
        (format!("{chunked}-5\r\nhello\r\n0\r\n\r\n"), End::Close, 200, chunk),
        (format!("{chunked}fffffffffffffffff\r\nhello\r\n0\r\n\r\n"), End::Close, 200, chunk),
        (format!("{chunked}5\r\nhelloXX0\r\n\r\n"), End::Close, 200, chunk),
        (
            format!("{chunked}5\r\nhel"),
            End::Close,
            200,
            "upstream prematurely closed connection while reading upstream",
        ),
        (
            format!("{ok}Content-Length: 9\r\n\r\nhello"),
            End::Silence,
            200,
            "upstream timed out (110: Connection timed out)",
        ),
        (
            format!("{ok}Content-Length: 9\r\n\r\nhello"),
            End::Reset,
            200,
            "failed (104: Connection reset by peer)",
        ),
    ];
    let mut seen = server.log().len();
    for (reply, end, expected, words) in cases {
        let shown: String = reply.chars().take(80).collect();
        let number = origin.reply(&reply, end);
        let answer = get(&server, &format!("/p/{number}"));
        // nginx sends nothing at all where the body is broken from the first byte on.
        let is_cut_early = !is_gapura() && expected == 200 && answer.is_empty();
        assert!(status(&answer) == expected || is_cut_early, "{shown:?} {end:?}: {answer}");
        let framing = ["zz", "-5", "fff", "XX0"].iter().any(|part| body(&answer).contains(part));
        assert!(!framing, "{shown:?} comes through: {answer}");
        let logged = || server.log()[seen..].contains(words).then_some(());
        wait_for(&format!("{words:?} after {shown:?}\n{}", &server.log()[seen..]), PATIENCE, logged);
        seen = server.log().len();
    }
    before.is_after(&server);
}

#[test]
fn back_ends_that_say_too_much() {
    // nginx takes a 100 for the answer, and answers nonsense without a head.
    if !is_gapura() {
        return;
    }
    let origin = Origin::start();
    let server = gateway(&origin);
    let before = Before::of(&server);
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    for (reply, expected) in [
        ("HTTP/1.1 100 Continue\r\n\r\n".repeat(2_000) + answer, "hello"),
        ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(2_000) + answer, "hello"),
        (format!("{answer} and then some"), "hello"),
        ("HTTP/1.1 204 No Content\r\n\r\nhello".to_owned(), ""),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello".to_owned(), ""),
        ("nonsense".to_owned(), "8\r\nnonsense\r\n0\r\n\r\n"),
    ] {
        for place in ["p", "u"] {
            let number = origin.reply(&reply, End::Close);
            let answer = get(&server, &format!("/{place}/{number}"));
            assert_eq!(body(&answer), expected, "{:?}: {answer}", &reply[..30.min(reply.len())]);
        }
    }
    before.is_after(&server);
}

#[test]
fn back_ends_that_stop_anywhere() {
    let origin = Origin::start();
    let server = gateway(&origin);
    let before = Before::of(&server);
    let plain = "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n";
    for (whole, place) in [(plain, "p"), (plain, "u"), (chunked, "p"), (chunked, "u")] {
        let head = whole.find("\r\n\r\n").unwrap() + 4;
        for end in [End::Close, End::Reset] {
            for length in (0..whole.len()).step_by(STRIDE) {
                let number = origin.reply(&whole[..length], end);
                let answer = get(&server, &format!("/{place}/{number}"));
                // A reset may overtake what was sent before it.
                if end == End::Close || length < head {
                    let expected = if length < head { 502 } else { 200 };
                    assert_eq!(status(&answer), expected, "{length} of {whole:?}: {answer}");
                }
                // Nobody takes a cut answer for a whole one: the length is not reached, the last chunk is missing.
                if length >= head {
                    assert!(!answer.ends_with("\r\n0\r\n\r\n"), "{length} of {whole:?}: {answer}");
                    assert!(
                        !answer.contains("Content-Length") || body(&answer).len() < 5,
                        "{length}: {answer}"
                    );
                }
            }
        }
        let number = origin.reply(whole, End::Close);
        assert_eq!(status(&get(&server, &format!("/{place}/{number}"))), 200);
    }
    before.is_after(&server);
}

#[test]
fn clients_that_stop_anywhere() {
    let origin = Origin::start();
    let server = gateway(&origin);
    let before = Before::of(&server);
    let number = origin.reply("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", End::Close);
    let big = origin.reply(
        format!("HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n{}", "a".repeat(3_000_000)),
        End::Close,
    );
    let silent = origin.reply("", End::Silence);
    let plain = format!("POST /p/{number} HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello");
    let chunked = format!(
        "POST /u/{number} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n"
    );
    for whole in [&plain, &chunked] {
        for length in 0..whole.len() {
            ask(&server, &whole.as_bytes()[..length], End::Reset);
            if length % STRIDE == 0 {
                let answer = ask(&server, &whole.as_bytes()[..length], End::Close);
                let is_whole_head = whole[..length].contains("\r\n\r\n");
                assert!(is_whole_head || answer.is_empty(), "{length} of {whole:?}: {answer}");
            }
        }
        let whole = whole.replace("Host: test", "Host: test\r\nConnection: close");
        let answer = ask(&server, whole.as_bytes(), End::Silence);
        assert_eq!(status(&answer), 200, "{answer}");
    }
    // Gone while the answer comes, or is waited for.
    for _ in 0..50 {
        for path in [format!("/p/{big}"), format!("/u/{big}"), format!("/p/{silent}"), "/file".to_owned()] {
            ask(&server, format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes(), End::Reset);
        }
        let upload = format!(
            "POST /u/{silent} HTTP/1.1\r\nHost: test\r\nContent-Length: 90000\r\n\r\n{}",
            "a".repeat(50_000)
        );
        ask(&server, upload.as_bytes(), End::Reset);
    }
    before.is_after(&server);
}

#[test]
fn requests_split_anywhere() {
    let origin = Origin::start();
    let server = gateway(&origin);
    let before = Before::of(&server);
    let number = origin.reply("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", End::Close);
    let whole = format!(
        "GET / HTTP/1.1\r\nHost: test\r\nX: y\r\n\r\nPOST /p/{number} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n"
    );
    for at in 1..whole.len() {
        let mut stream = TcpStream::connect(server.address(8080)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&whole.as_bytes()[..at]).unwrap();
        // The second part leaves once the first has been taken off the socket's queue, with luck: both orders must do.
        std::thread::yield_now();
        stream.write_all(&whole.as_bytes()[at..]).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 2, "split at {at}: {answer}");
        assert!(answer.ends_with("\r\n\r\nhello"), "split at {at}: {answer}");
    }
    before.is_after(&server);
}

#[test]
fn requests_that_are_too_much() {
    let origin = Origin::start();
    let server = gateway(&origin);
    let before = Before::of(&server);
    let number = origin.reply("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", End::Close);
    let long = "a".repeat(200_000);
    let head = "GET / HTTP/1.1\r\nHost: test\r\n";
    let post = format!("POST /p/{number} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n");
    let fields = |count: usize| {
        (0..count).map(|number| format!("X-{number}: {}\r\n", "y".repeat(80))).collect::<String>()
    };
    for (request, expected, words) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: test\r\n\r\n"), 414, "client sent too long URI"),
        (
            format!("{} / HTTP/1.1\r\nHost: test\r\n\r\n", long.to_uppercase()),
            414,
            "client sent too long URI",
        ),
        (format!("{head}X: {long}\r\n\r\n"), 400, "client sent too long header line: \"X: aaa"),
        (format!("{head}{long}: x\r\n\r\n"), 400, "client sent too long header line: \"aaa"),
        (format!("{head}{}\r\n", fields(2_000)), 400, "client sent too long header line: \"X-"),
        (
            format!("{post}Content-Length: 99999999\r\n\r\nabc"),
            413,
            "client intended to send too large body: 99999999 bytes",
        ),
        (
            format!("{post}Content-Length: 99999999999999999999\r\n\r\n"),
            400,
            "client sent invalid \"Content-Length\" header",
        ),
        (
            format!("{chunked}30d40\r\n{long}\r\n0\r\n\r\n"),
            413,
            "client intended to send too large chunked body: ",
        ),
        (format!("{chunked}fffffffffffffffff\r\nx"), 400, "client sent invalid chunked body"),
        (format!("{chunked}7fffffffffffffff\r\nx"), 400, "client sent invalid chunked body"),
        (format!("{chunked}xyz\r\nx"), 400, "client sent invalid chunked body"),
        ("\u{16}\u{3}\u{1}\0\u{1}\0\r\n\r\n".to_owned(), 400, "client sent invalid method"),
        ("GET /a%00b HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(), 400, "client sent invalid request"),
        (
            format!("GET /{}etc/passwd HTTP/1.1\r\nHost: test\r\n\r\n", "../".repeat(50)),
            400,
            "client sent invalid request",
        ),
    ] {
        let seen = server.log().len();
        let answer = ask(&server, request.as_bytes(), End::Silence);
        let shown: String = request.chars().take(60).collect();
        // An answer may be lost where the client goes on sending for long; the log tells then.
        assert!(
            status(&answer) == expected || (answer.is_empty() && request.len() > 100_000),
            "{shown:?}: {answer}"
        );
        let logged = || server.log()[seen..].contains(words).then_some(());
        wait_for(&format!("{words:?} after {shown:?}\n{}", &server.log()[seen..]), PATIENCE, logged);
    }
    // Long, and taken all the same: nothing of it is kept.
    for request in [
        format!("{chunked}5;{long}\r\nhello\r\n0\r\n\r\n"),
        format!("{chunked}5\r\nhello\r\n0\r\nX: {}\r\n\r\n", &long[..20_000]),
        format!("GET {} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", "/".repeat(5_000)),
    ] {
        let answer = ask(&server, request.as_bytes(), End::Silence);
        assert_eq!(status(&answer), 200, "{:?}: {answer}", &request[..100]);
    }
    before.is_after(&server);
}

#[test]
fn clients_that_are_slow() {
    let origin = Origin::start();
    let server = gateway(&origin);
    let before = Before::of(&server);
    let number = origin.reply("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", End::Close);
    // All at a time: each ends when its time is over, and nobody else waits for it.
    let starts: Vec<String> = ["GET / HT".into(), "GET / HTTP/1.1\r\nHost: te".into()]
        .into_iter()
        .chain(["p", "u"].map(|place| {
            format!("POST /{place}/{number} HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhe")
        }))
        .collect();
    let slow: Vec<TcpStream> = starts
        .iter()
        .map(|start| {
            let mut stream = TcpStream::connect(server.address(8080)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(start.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert_eq!(server.body(8080), "a");
    for (mut stream, start) in slow.into_iter().zip(starts) {
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{start:?} is waited for longer");
        }
    }
    server.wait_for_log("client timed out (110: Connection timed out) while reading client request", 2);
    before.is_after(&server);
}

/// Bytes that look random and are the same each time (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

#[test]
fn requests_and_answers_with_bytes_changed() {
    let origin = Origin::start();
    let server = gateway(&origin);
    let before = Before::of(&server);
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Accel-Limit-Rate: 0\r\nTrailer: X\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n";
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    for round in 0..300 {
        let mut reply = answer.to_vec();
        let number = origin.replies_so_far();
        let place = ["p", "u"][round % 2];
        let mut request = format!(
            "POST /{place}/{number} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nExpect: 100-continue\r\n\
             Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        )
        .into_bytes();
        for text in [&mut reply, &mut request] {
            for _ in 0..noise.below(4) {
                let at = noise.below(text.len());
                match noise.below(3) {
                    0 => text[at] = noise.below(256) as u8,
                    1 => drop(text.remove(at)),
                    _ => text.insert(at, b"\r\n\0 :;0f"[noise.below(8)]),
                }
            }
        }
        origin.reply(&reply, End::Close);
        ask(&server, &request, End::Close);
    }
    before.is_after(&server);
}
