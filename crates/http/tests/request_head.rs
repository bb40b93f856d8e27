//! Request heads: what comes out, what is refused and in which words, and that no split of the input matters.

use http::{Connection, Framing, HeadOptions, Parse, RequestHead, parse_request_head};
use proptest::prelude::*;

fn small() -> HeadOptions {
    HeadOptions {
        first_buffer_bytes: 64,
        header_line_bytes_max: 128,
        large_buffers_max: 2,
        ..HeadOptions::default()
    }
}

/// Everything an engine would see of a head, as text.
fn describe(head: &RequestHead, parse: &Parse) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match parse {
        Parse::Incomplete => "incomplete".to_string(),
        Parse::Refused(refusal) => format!(
            "{} {}{}",
            refusal.status.0,
            text(&refusal.message),
            if refusal.lingering { " (lingering)" } else { "" }
        ),
        Parse::Complete { consumed } => {
            let fields: Vec<String> =
                head.fields.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect();
            let ignored: Vec<String> = head.ignored_lines().map(text).collect();
            format!(
                "{} {} {} host={} port={:?} args={} {:?} keep={} continue={} [{}] ignored={:?} length={} left={}",
                text(head.method_text()),
                text(&head.path),
                head.version.0,
                text(head.host().unwrap_or_default()),
                head.port(),
                text(head.args()),
                head.framing(),
                head.keep_alive(),
                head.expects_continue(),
                fields.join("|"),
                ignored,
                head.length,
                consumed,
            )
        }
    }
}

/// Parses `input` as it grows by `pieces` bytes at a time.
fn parse(input: &[u8], cuts: &[usize], options: &HeadOptions, head: &mut RequestHead) -> String {
    head.clear();
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    ends.sort_unstable();
    ends.push(input.len());
    for end in ends {
        let parse = parse_request_head(&input[..end], options, head);
        if parse != Parse::Incomplete {
            return describe(head, &parse);
        }
    }
    "incomplete".to_string()
}

#[track_caller]
fn check(input: &str, expected: &str) {
    let mut head = RequestHead::default();
    for cut in 0..=input.len() {
        let found = parse(input.as_bytes(), &[cut], &HeadOptions::default(), &mut head);
        assert_eq!(found, expected, "{input:?} cut at {cut}");
    }
}

#[test]
fn a_usual_head() {
    let input = "GET /a%20b/../c.html?x=1 HTTP/1.1\r\nHost: Example.COM:8080\r\nUser_Agent: x\r\n\
                 Accept:  */*  \r\nConnection: keep-alive\r\n\r\nbody";
    let mut head = RequestHead::default();
    let Parse::Complete { consumed } =
        parse_request_head(input.as_bytes(), &HeadOptions::default(), &mut head)
    else {
        panic!("the head is whole")
    };
    assert_eq!(&input[consumed..], "body");
    assert_eq!(head.request_line(), b"GET /a%20b/../c.html?x=1 HTTP/1.1");
    assert_eq!(head.target(), b"/a%20b/../c.html?x=1");
    assert_eq!(head.path, b"/c.html");
    assert_eq!(head.exten(), b"html");
    assert_eq!(head.protocol(), b"HTTP/1.1");
    assert_eq!(head.fields.get(b"accept"), Some(&b"*/*"[..]));
    assert_eq!((head.host(), head.port()), (Some(&b"example.com"[..]), Some(8080)));
    assert_eq!(head.connection, Connection::KeepAlive);
    assert_eq!(head.framing(), Framing::None);
    assert_eq!(head.ignored_lines().collect::<Vec<_>>(), [b"User_Agent: x"]);
}

#[test]
fn what_is_answered_and_what_is_refused() {
    let cases: &[(&str, &str)] = &[
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / 1001 host=a port=None args= None keep=true continue=false [Host=a] ignored=[] length=27 left=27",
        ),
        (
            "\r\nPOST http://B:1/?q HTTP/1.1\nhost: a\nContent-Length: 5\nExpect: 100-Continue\n\nhello",
            "POST / 1001 host=b port=Some(1) args=q Length(5) keep=true continue=true \
             [host=a|Content-Length=5|Expect=100-Continue] ignored=[] length=76 left=78",
        ),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\nConnection: x, Close\r\n\r\n",
            "PUT / 1001 host=a port=None args= Chunked keep=false continue=false \
             [Host=a|Transfer-Encoding=CHUNKED|Connection=x, Close] ignored=[] length=77 left=77",
        ),
        (
            "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\nx y: 1\r\n\r\n",
            "400 client sent invalid header line: \"x\\x20...\"",
        ),
        (
            "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\nx@y: 1\r\n\r\n",
            "GET / 1000 host= port=None args= None keep=true continue=false [Connection=Keep-Alive] \
             ignored=[\"x@y: 1\"] length=50 left=50",
        ),
        (
            "GET /\r\nHost: a\r\n\r\n",
            "GET / 9 host= port=None args= None keep=false continue=false [] ignored=[] length=7 left=7",
        ),
        ("GET / HTTP/1.1\r\n\r\n", "400 client sent HTTP/1.1 request without \"Host\" header"),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "400 client sent invalid host header"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400 client sent invalid host header"),
        ("GET http://a..b/ HTTP/1.1\r\nHost: a\r\n\r\n", "400 client sent invalid host in request line"),
        ("GET http://a/ HTTP/1.1\r\nHost: /\r\n\r\n", "400 client sent invalid host header"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
            "400 client sent duplicate host header: \"host: b\", previous value: \"Host: a\"",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-length: 1\r\n\r\n",
            "400 client sent duplicate header line: \"Content-length: 1\", previous value: \"Content-Length: 1\"",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            "400 client sent invalid \"Content-Length\" header",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n",
            "400 client sent invalid \"Content-Length\" header",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400 client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "501 client sent unknown \"Transfer-Encoding\": \"gzip, chunked\"",
        ),
        (
            "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400 client sent HTTP/1.0 request with \"Transfer-Encoding\" header",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", "400 client sent invalid header line: \"\\x20...\""),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400 client sent invalid header line: \"Host\\x20...\""),
        ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", "400 client sent invalid header line: \"Host: a\\x0d...\""),
        ("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", "400 client sent invalid header line: \"Host: a\\x00...\""),
        ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", "400 client sent invalid request"),
        ("GET /../ HTTP/1.1\r\n", "400 client sent invalid request"),
        ("get / HTTP/1.1\r\n", "400 client sent invalid method"),
        ("GET / HTTP/3.0\r\n", "505 client sent invalid version"),
        ("POST /\r\n", "400 client sent invalid method in HTTP/0.9 request"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "405 client sent TRACE method"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "405 client sent CONNECT method"),
    ];
    for (input, expected) in cases {
        check(input, expected);
    }
}

#[test]
fn buffers_are_counted_as_nginx_counts_them() {
    let long = |bytes: usize| "a".repeat(bytes);
    let head = |target: usize, fields: &[usize]| {
        let mut text = format!("GET /{} HTTP/1.1\r\nHost: a\r\n", long(target));
        for bytes in fields {
            text.push_str(&format!("X: {}\r\n", long(bytes - 5)));
        }
        text + "\r\n"
    };
    let cases: &[(String, &str)] = &[
        (head(1, &[]), "GET"),
        // A request line of 128 bytes fills a large buffer; one more is too long.
        (head(128 - 16, &[100]), "GET"),
        (head(129 - 16, &[]), "414 client sent too long URI"),
        (head(1, &[128, 126]), "GET"),
        // Both large buffers are full: the empty line has no room.
        (head(1, &[128, 128]), "494 client sent too long header line: \"X: aaa"),
        (head(1, &[129]), "494 client sent too long header line: \"X: aaa"),
        (head(1, &[128, 128, 1 + 5]), "494 client sent too long header line: \"X: aaa"),
        ("\r\n".repeat(32) + "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET"),
        ("\r\n".repeat(33) + "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "400 client sent invalid request"),
    ];
    for (input, expected) in cases {
        let mut out = RequestHead::default();
        let whole = parse(input.as_bytes(), &[], &small(), &mut out);
        assert!(whole.starts_with(expected), "{input:?}: {whole}");
        let by_byte: Vec<usize> = (0..input.len()).collect();
        assert_eq!(parse(input.as_bytes(), &by_byte, &small(), &mut out), whole, "{input:?}");
    }
    let options = HeadOptions { fields_max: 2, ..HeadOptions::default() };
    let many = "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\nD: e\r\n\r\n";
    let found = parse(many.as_bytes(), &[], &options, &mut RequestHead::default());
    assert_eq!(found, "494 client sent too many header lines (lingering)");
}

/// Text that looks like a head often enough to get far.
fn head_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => prop::sample::select(vec![
            "GET ", "POST ", "CONNECT ", "/", "/a%41/../b?c#d", "http://h:80", " HTTP/1.1", " HTTP/1.0", "\r\n", "\n",
            "Host: a\r\n", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n",
            "x_y: 1\r\n", "Expect: 100-continue\r\n", "A:  b  ", ": ", " ", "\r", "\r\n\r\n", "aaaaaaaaaaaaaaaaaaaaaaaa",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| {
        let mut all = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
        if pieces.len() % 3 == 0 {
            all.clear();
        }
        all.extend(pieces.concat());
        all
    })
}

proptest! {
    #[test]
    fn any_split_gives_the_same(input in head_like(), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
        let mut head = RequestHead::default();
        for options in [HeadOptions::default(), small()] {
            let whole = parse(&input, &[], &options, &mut head);
            prop_assert_eq!(parse(&input, &cuts, &options, &mut head), whole);
        }
    }

    #[test]
    fn any_bytes_are_survived(input in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut head = RequestHead::default();
        let _ = parse(&input, &[3, 17], &HeadOptions::default(), &mut head);
        head.request_line();
        head.args();
    }
}
