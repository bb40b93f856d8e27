//! Requests: pseudo-header fields, fields, bodies, trailers (RFC 9113, section 8).

use super::frames::*;
use super::message_rows::{self, MALFORMED};
use super::peer::Server;
use super::rows::Row;
use http::h2::Limits;
use http::{HeadOptions, Parse, RequestHead, parse_request_head};

fn verdict(frames: &[Vec<u8>]) -> (String, Vec<String>) {
    let mut server = Server::new(Limits::default());
    server.feed(&frames.concat());
    (server.verdict(), server.log)
}

#[test]
fn heads() {
    let mut wrong = Vec::new();
    for (section, what, text, message) in message_rows::HEADS {
        let (found, log) = verdict(&[headers(1, WHOLE, text)]);
        let expected = if message.is_empty() { "fine" } else { MALFORMED };
        let logged = log
            .first()
            .and_then(|line| line.split_once(" ("))
            .map_or("", |(_, rest)| rest.strip_suffix(')').unwrap_or(rest));
        if found != expected || logged != *message {
            wrong.push(format!("{section} {what}: {found}, {log:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn refusals_that_are_not_the_clients_mistake_end_in_order() {
    for text in [
        ":method: CONNECT\n:authority: a:1",
        ":method: TRACE\n:scheme: http\n:path: /\n:authority: a",
        ":method: GET\n:scheme: http\n:path: /../..\n:authority: a",
    ] {
        assert_eq!(verdict(&[headers(1, WHOLE, text)]).0, "fine", "{text}");
    }
}

#[test]
fn bodies_and_trailers() {
    for Row { section, rule, frames, verdict: expected } in message_rows::bodies() {
        assert_eq!(verdict(&frames).0, expected, "{section} {rule}");
    }
}

/// The same request in HTTP/1 and HTTP/2 makes the same head, but for what the versions differ in.
#[test]
fn heads_look_like_those_of_http_1() {
    let mut server = Server::new(Limits::default());
    server.answers = false;
    let text = ":method: GET\n:scheme: http\n:path: /a%20b/../c.txt?x=1\n:authority: Example.COM:81\ncookie: a=1\nuser-agent: t\ncookie: b=2";
    let options = HeadOptions::default();
    let mut head = RequestHead::default();
    let one = b"GET /a%20b/../c.txt?x=1 HTTP/1.1\r\nHost: Example.COM:81\r\nUser-Agent: t\r\nCookie: a=1; b=2\r\n\r\n";
    assert!(matches!(parse_request_head(one, &options, &mut head), Parse::Complete { .. }));
    let mut two = http::h2::Connection::server(Limits::default(), options);
    let mut heads = http::h2::Heads::default();
    let input = [&http::h2::PREFACE[..], &settings(&[]), &headers(1, WHOLE, text)].concat();
    let mut at = 0;
    while let Some((count, _)) = two.receive(&input[at..], 0, &mut heads).unwrap() {
        at += count;
    }
    let found = &heads.request;
    assert_eq!((found.host(), found.port()), (head.host(), head.port()));
    assert_eq!((&found.path, found.args(), found.exten()), (&head.path, head.args(), head.exten()));
    assert_eq!(found.request_line(), b"GET /a%20b/../c.txt?x=1 HTTP/2.0");
    assert_eq!(
        (found.target(), found.method_text(), found.protocol()),
        (head.target(), &b"GET"[..], &b"HTTP/2.0"[..])
    );
    for name in [&b"host"[..], b"user-agent", b"cookie"] {
        assert_eq!(found.fields.get(name), head.fields.get(name));
    }
    assert_eq!(found.framing(), http::Framing::None);
}

#[test]
fn invalid_names_are_dropped_as_in_http_1() {
    let mut server = Server::new(Limits::default());
    server.answers = false;
    server.feed(&headers(1, WHOLE, &format!("{GET}a_b: 1\na@b: 2\nc: 3")));
    assert_eq!(server.verdict(), "fine");
}
