//! Requests: pseudo-header fields, fields, bodies, trailers (RFC 9113, section 8).

use super::frames::*;
use super::peer::Server;
use http::h2::Limits;
use http::{HeadOptions, Parse, RequestHead, parse_request_head};

/// Malformed: answered with 400, then reset.
const MALFORMED: &str = "stream 1 PROTOCOL_ERROR";

fn verdict(frames: &[Vec<u8>]) -> (String, Vec<String>) {
    let mut server = Server::new(Limits::default());
    server.feed(&frames.concat());
    (server.verdict(), server.log)
}

#[test]
fn heads() {
    // (section, what, fields, what is logged; empty: a good request)
    let rows: &[(&str, &str, &str, &str)] = &[
        ("8.3.1", "a request", GET, ""),
        ("8.3.1", "Host in place of :authority", ":method: GET\n:scheme: http\n:path: /\nhost: a", ""),
        ("8.3.1", "both, the same", ":method: GET\n:scheme: http\n:path: /\n:authority: a\nhost: a", ""),
        (
            "8.3.1",
            "both, differing",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\nhost: b",
            "client sent \":authority\" and \"Host\" headers with different values",
        ),
        (
            "8.3.1",
            "neither",
            ":method: GET\n:scheme: http\n:path: /",
            "client sent neither \":authority\" nor \"Host\" header",
        ),
        ("8.3.1", "no method", ":scheme: http\n:path: /\n:authority: a", "client sent no :method header"),
        ("8.3.1", "no scheme", ":method: GET\n:path: /\n:authority: a", "client sent no :scheme header"),
        ("8.3.1", "no path", ":method: GET\n:scheme: http\n:authority: a", "client sent no :path header"),
        (
            "8.3.1",
            "an empty path",
            ":method: GET\n:scheme: http\n:path: \n:authority: a",
            "client sent empty :path header",
        ),
        (
            "8.3.1",
            "a path without a slash",
            ":method: GET\n:scheme: http\n:path: x\n:authority: a",
            "client sent invalid :path header: \"x\"",
        ),
        (
            "8.3.1",
            "a path with a space",
            ":method: GET\n:scheme: http\n:path: /a b\n:authority: a",
            "client sent invalid :path header: \"/a b\"",
        ),
        (
            "8.3.1",
            "an asterisk for GET",
            ":method: GET\n:scheme: http\n:path: *\n:authority: a",
            "client sent invalid :path header: \"*\"",
        ),
        (
            "8.3.1",
            "a method in lowercase",
            ":method: get\n:scheme: http\n:path: /\n:authority: a",
            "client sent invalid method: \"get\"",
        ),
        (
            "8.3.1",
            "a bad scheme",
            ":method: GET\n:scheme: ht/tp\n:path: /\n:authority: a",
            "client sent invalid :scheme header: \"ht/tp\"",
        ),
        (
            "8.3.1",
            "a bad authority",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a/b",
            "client sent invalid \":authority\" header",
        ),
        (
            "8.3",
            "two methods",
            ":method: GET\n:method: GET\n:scheme: http\n:path: /\n:authority: a",
            "client sent duplicate :method header",
        ),
        (
            "8.3",
            "two schemes",
            ":method: GET\n:scheme: http\n:scheme: http\n:path: /\n:authority: a",
            "client sent duplicate :scheme header",
        ),
        (
            "8.3",
            "two paths",
            ":method: GET\n:scheme: http\n:path: /\n:path: /\n:authority: a",
            "client sent duplicate :path header",
        ),
        (
            "8.3",
            "two authorities",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\n:authority: a",
            "client sent duplicate \":authority\" header",
        ),
        (
            "8.3",
            "one nobody knows",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\n:test: x",
            "client sent unknown pseudo-header \":test\"",
        ),
        (
            "8.3",
            "one of answers",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\n:status: 200",
            "client sent unknown pseudo-header \":status\"",
        ),
        (
            "8.3",
            "one behind the others",
            ":method: GET\n:scheme: http\n:authority: a\nx: y\n:path: /",
            "client sent out of order pseudo-headers",
        ),
        (
            "8.2.1",
            "an uppercase name",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\nX-a: y",
            "client sent invalid header name: \"X-a\"",
        ),
        (
            "8.2.1",
            "a colon in a name",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\nx:a: y",
            "client sent invalid header name: \"x:a\"",
        ),
        (
            "8.2.1",
            "a space in a name",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\nx a: y",
            "client sent invalid header name: \"x a\"",
        ),
        (
            "8.2.1",
            "a name beyond ASCII",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\nx\u{e9}: y",
            "client sent invalid header name: \"x\u{e9}\"",
        ),
        (
            "8.2.1",
            "a CR in a value",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\nx: a\rb",
            "client sent header \"x\" with invalid value: \"a\rb\"",
        ),
        (
            "8.2.1",
            "a NUL in a value",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\nx: a\0b",
            "client sent header \"x\" with invalid value: \"a\0b\"",
        ),
        (
            "8.2.1",
            "a space before a value",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\nx:  a",
            "client sent header \"x\" with invalid value: \" a\"",
        ),
        (
            "8.2.1",
            "a tab behind a value",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\nx: a\t",
            "client sent header \"x\" with invalid value: \"a\t\"",
        ),
        (
            "8.2.1",
            "spaces within a value",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\nx: a \t b",
            "",
        ),
        (
            "8.2.2",
            "Connection",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\nconnection: close",
            "client sent \"Connection\" header",
        ),
        (
            "8.2.2",
            "Keep-Alive",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\nkeep-alive: 1",
            "client sent \"Keep-Alive\" header",
        ),
        (
            "8.2.2",
            "Proxy-Connection",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\nproxy-connection: x",
            "client sent \"Proxy-Connection\" header",
        ),
        (
            "8.2.2",
            "Transfer-Encoding",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\ntransfer-encoding: chunked",
            "client sent \"Transfer-Encoding\" header",
        ),
        (
            "8.2.2",
            "Upgrade",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\nupgrade: x",
            "client sent \"Upgrade\" header",
        ),
        ("8.2.2", "TE of trailers", ":method: GET\n:scheme: http\n:path: /\n:authority: a\nte: trailers", ""),
        (
            "8.2.2",
            "another TE",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\nte: trailers, deflate",
            "client sent invalid \"TE\" header",
        ),
        (
            "8.1.1",
            "a length and no body",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\ncontent-length: 1",
            "client prematurely closed stream",
        ),
        (
            "8.1.1",
            "a length of 0 and no body",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\ncontent-length: 0",
            "",
        ),
        (
            "8.1.1",
            "a length that is none",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\ncontent-length: 1x",
            "client sent invalid \"Content-Length\" header",
        ),
        (
            "8.1.1",
            "two lengths",
            ":method: GET\n:scheme: http\n:path: /\n:authority: a\ncontent-length: 0\ncontent-length: 0",
            "client sent duplicate header line: \"content-length: 0\", previous value: \"content-length: 0\"",
        ),
        (
            "8.5",
            "CONNECT with a path",
            ":method: CONNECT\n:scheme: http\n:path: /\n:authority: a:1",
            "client sent CONNECT method",
        ),
        (
            "8.5",
            "CONNECT without an authority",
            ":method: CONNECT\nx: y",
            "client sent CONNECT request without :authority header",
        ),
        (
            "RFC 8441, 4",
            "an extended CONNECT",
            ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:path: /\n:authority: a",
            "",
        ),
        (
            "RFC 8441, 4",
            "without a path",
            ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:authority: a",
            "client sent no :path header",
        ),
        (
            "RFC 8441, 4",
            ":protocol beside GET",
            ":method: GET\n:protocol: websocket\n:scheme: http\n:path: /\n:authority: a",
            "client sent :protocol header without CONNECT method",
        ),
    ];
    let mut wrong = Vec::new();
    for (section, what, text, message) in rows {
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
fn bodies_and_their_lengths() {
    let sized = |length: u32| headers(1, END_HEADERS, &format!("{POST}content-length: {length}"));
    let rows: Vec<(&str, Vec<Vec<u8>>, &str)> = vec![
        ("as long as announced", vec![sized(5), data(1, 0, b"ab"), data(1, END_STREAM, b"cde")], "fine"),
        ("an empty end", vec![sized(2), data(1, 0, b"ab"), data(1, END_STREAM, b"")], "fine"),
        ("shorter", vec![sized(5), data(1, END_STREAM, b"ab")], MALFORMED),
        ("longer", vec![sized(1), data(1, END_STREAM, b"ab")], MALFORMED),
        ("longer, and more to come", vec![sized(1), data(1, 0, b"ab")], MALFORMED),
        ("shorter, with trailers", vec![sized(5), data(1, 0, b"ab"), headers(1, WHOLE, "a: b")], MALFORMED),
        ("without a length", vec![post(1), data(1, END_STREAM, b"ab")], "fine"),
    ];
    for (what, frames, expected) in rows {
        assert_eq!(verdict(&frames).0, expected, "8.1.1 {what}");
    }
}

#[test]
fn trailers() {
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("trailers", headers(1, WHOLE, "a: b"), "fine"),
        ("without the end of the stream", headers(1, END_HEADERS, "a: b"), MALFORMED),
        ("with a pseudo-header field", headers(1, WHOLE, ":path: /"), MALFORMED),
        ("with an uppercase name", headers(1, WHOLE, "A: b"), MALFORMED),
    ];
    for (what, bytes, expected) in rows {
        assert_eq!(verdict(&[post(1), data(1, 0, b"x"), bytes]).0, expected, "8.1 {what}");
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
