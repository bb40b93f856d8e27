//! As [`super::rows`]: requests (RFC 9113, section 8) and what their fields look like on the wire (RFC 7541).

use super::frames::*;
use super::rows::{Row, row};
use http::h2::frame::kind;

/// Malformed: answered with 400, then reset.
pub const MALFORMED: &str = "stream 1 PROTOCOL_ERROR";

/// Section, what the head is, its fields, what is logged (empty: it is a good one).
pub const HEADS: &[(&str, &str, &str, &str)] = &[
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
    ("8.2.1", "spaces within a value", ":method: GET\n:scheme: http\n:path: /\n:authority: a\nx: a \t b", ""),
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

/// Sections 8.1 and 8.1.1.
pub fn bodies() -> Vec<Row> {
    let sized = |length: u32| headers(1, END_HEADERS, &format!("{POST}content-length: {length}"));
    let with_trailers = |flags, text| vec![post(1), data(1, 0, b"x"), headers(1, flags, text)];
    vec![
        row("8.1", "a body", vec![post(1), data(1, END_STREAM, b"ab")], "fine"),
        row(
            "8.1",
            "a body in pieces",
            vec![post(1), data(1, 0, b"a"), data(1, 0, b""), data(1, END_STREAM, b"b")],
            "fine",
        ),
        row(
            "8.1.1",
            "as long as announced",
            vec![sized(5), data(1, 0, b"ab"), data(1, END_STREAM, b"cde")],
            "fine",
        ),
        row("8.1.1", "an empty end", vec![sized(2), data(1, 0, b"ab"), data(1, END_STREAM, b"")], "fine"),
        row("8.1.1", "shorter", vec![sized(5), data(1, END_STREAM, b"ab")], MALFORMED),
        row(
            "8.1.1",
            "shorter, in pieces",
            vec![sized(5), data(1, 0, b"a"), data(1, END_STREAM, b"b")],
            MALFORMED,
        ),
        row("8.1.1", "longer", vec![sized(1), data(1, END_STREAM, b"ab")], MALFORMED),
        row(
            "8.1.1",
            "longer, in pieces",
            vec![sized(2), data(1, 0, b"ab"), data(1, END_STREAM, b"c")],
            MALFORMED,
        ),
        row("8.1.1", "longer, and more to come", vec![sized(1), data(1, 0, b"ab")], MALFORMED),
        row(
            "8.1.1",
            "shorter, with trailers",
            vec![sized(5), data(1, 0, b"ab"), headers(1, WHOLE, "a: b")],
            MALFORMED,
        ),
        row("8.1", "trailers", with_trailers(WHOLE, "a: b"), "fine"),
        row("8.1", "trailers without the end of the stream", with_trailers(END_HEADERS, "a: b"), MALFORMED),
        row("8.1", "trailers with a pseudo-header field", with_trailers(WHOLE, ":path: /"), MALFORMED),
        row("8.2.1", "trailers with an uppercase name", with_trailers(WHOLE, "A: b"), MALFORMED),
    ]
}

/// RFC 7541: every representation there is, and all that must be refused.
pub fn compression() -> Vec<Row> {
    // `GET`, `http`, `/` of the static table, and an authority that is kept as entry 62.
    const HEAD: [u8; 6] = [0x82, 0x86, 0x84, 0x41, 1, b'a'];
    let with = |block: &[u8]| vec![frame(kind::HEADERS, WHOLE, 1, &[&HEAD, block].concat())];
    let behind =
        |block: &[u8]| vec![frame(kind::HEADERS, WHOLE, 1, &[block, &HEAD].concat()), with_kept(3, &[])];
    let again = |block: &[u8]| with_kept(3, block);
    let broken = "connection COMPRESSION_ERROR";
    // "user-agent" is 58 in the static table; Huffman: "a" is 1f, "x" is f3, "test" is 49 50 9f.
    vec![
        row("RFC 7541, 6.1", "indexed", with(&[0x90]), "fine"),
        row("RFC 7541, 6.1", "index 0", with(&[0x80]), broken),
        row("RFC 7541, 2.3.3", "an index behind both tables", with(&[0xc6]), broken),
        row("RFC 7541, 2.3.3", "a name behind both tables", with(&[0x7f, 0x10, 1, b'a']), broken),
        row("RFC 7541, 6.2.1", "kept, indexed name", with(&[0x7a, 4, b't', b'e', b's', b't']), "fine"),
        row("RFC 7541, 6.2.1", "kept, indexed name, Huffman", with(&[0x7a, 0x83, 0x49, 0x50, 0x9f]), "fine"),
        row("RFC 7541, 6.2.1", "kept, new name", with(&[0x40, 1, b'x', 1, b'y']), "fine"),
        row(
            "RFC 7541, 6.2.1",
            "kept, new name, Huffman",
            with(&[0x40, 0x81, 0xf3, 0x83, 0x49, 0x50, 0x9f]),
            "fine",
        ),
        row(
            "RFC 7541, 6.2.2",
            "not kept, indexed name",
            with(&[0x0f, 0x2b, 4, b't', b'e', b's', b't']),
            "fine",
        ),
        row(
            "RFC 7541, 6.2.2",
            "not kept, indexed name, Huffman",
            with(&[0x0f, 0x2b, 0x83, 0x49, 0x50, 0x9f]),
            "fine",
        ),
        row("RFC 7541, 6.2.2", "not kept, new name", with(&[0, 1, b'x', 1, b'y']), "fine"),
        row(
            "RFC 7541, 6.2.2",
            "not kept, new name, Huffman",
            with(&[0, 0x81, 0xf3, 0x83, 0x49, 0x50, 0x9f]),
            "fine",
        ),
        row(
            "RFC 7541, 6.2.3",
            "never kept, indexed name",
            with(&[0x1f, 0x2b, 4, b't', b'e', b's', b't']),
            "fine",
        ),
        row(
            "RFC 7541, 6.2.3",
            "never kept, indexed name, Huffman",
            with(&[0x1f, 0x2b, 0x83, 0x49, 0x50, 0x9f]),
            "fine",
        ),
        row("RFC 7541, 6.2.3", "never kept, new name", with(&[0x10, 1, b'x', 1, b'y']), "fine"),
        row(
            "RFC 7541, 6.2.3",
            "never kept, new name, Huffman",
            with(&[0x10, 0x81, 0xf3, 0x83, 0x49, 0x50, 0x9f]),
            "fine",
        ),
        row("RFC 7541, 2.3.2", "what was kept is asked for", vec![with(&[]).remove(0), again(&[])], "fine"),
        row("RFC 7541, 5.1", "an integer that never ends", with(&[0xff; 12]), broken),
        row("RFC 7541, 5.1", "an integer that is cut off", with(&[0xff, 0x80]), broken),
        row("RFC 7541, 5.2", "a string that is cut off", with(&[0x40, 10, b'x']), broken),
        row("RFC 7541, 5.2", "Huffman padding of 8 bits", with(&[0x40, 1, b'x', 0x82, 0x1f, 0xff]), broken),
        row("RFC 7541, 5.2", "Huffman padding of zeros", with(&[0x40, 1, b'x', 0x81, 0x18]), broken),
        row("RFC 7541, 5.2", "EOS in a string", with(&[0x40, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]), broken),
        row("RFC 7541, 6.3", "a smaller table", behind(&[0x3f, 0x45]), "fine"),
        row("RFC 7541, 6.3", "two sizes", behind(&[0x20, 0x3f, 0xe1, 0x1f]), "fine"),
        row("RFC 7541, 6.3", "a table larger than announced", behind(&[0x3f, 0xe2, 0x1f]), broken),
        row("RFC 7541, 4.2", "a size behind a field", with(&[0x20, 0x90]), broken),
        row("RFC 7541, 4.2", "a size at the end", with(&[0x3f, 0xe1, 0x1f]), broken),
        row(
            "RFC 7541, 4.4",
            "what was kept is gone with the table",
            vec![with(&[]).remove(0), again(&[0x20, 0x3f, 0xe1, 0x1f])],
            broken,
        ),
    ]
}

/// A request whose authority is the entry that was kept last.
fn with_kept(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, WHOLE, stream, &[block, &[0x82, 0x86, 0x84, 0xbe]].concat())
}
