//! Heads of upstream answers: what comes out, what is refused, and that no split of the input matters.

use http::response::{
    ResponseHead, ResponseOptions, ResponseParse, encode_fields, encode_number, encode_status_line,
    encode_status_text, parse_response_head,
};
use http::{Fields, Method, Status};
use proptest::prelude::*;

fn parse(input: &[u8], cuts: &[usize], options: &ResponseOptions, head: &mut ResponseHead) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    head.clear();
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    ends.sort_unstable();
    ends.push(input.len());
    for end in ends {
        match parse_response_head(&input[..end], options, head) {
            ResponseParse::Incomplete => {}
            ResponseParse::Headless => return "headless".to_string(),
            ResponseParse::Refused(message) => return text(&message),
            ResponseParse::Complete { consumed } => {
                let warnings: Vec<String> = head.warnings.iter().map(|warning| text(warning)).collect();
                return format!(
                    "{} {:?} {} {:?} {:?} keep={} {:?} took={consumed}",
                    head.version.0,
                    text(head.status_text()),
                    head.status.0,
                    head.fields,
                    head.framing(Method::Get),
                    head.keep_alive(Method::Get),
                    warnings,
                );
            }
        }
    }
    "incomplete".to_string()
}

#[test]
fn heads_as_nginx_takes_them() {
    let cases: &[(&str, &str)] = &[
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            r#"1001 "200 OK" 200 ["Content-Length: 5"] Length(5) keep=true [] took=38"#,
        ),
        ("HTTP/1.1 200\r\n\r\n", r#"1001 "200" 200 [] UntilClose keep=false [] took=16"#),
        ("HTTP/1.1  403.7 No\n\n", r#"1001 "403.7 No" 403 [] UntilClose keep=false [] took=20"#),
        ("HTTP/1.0 204 \r\n\r\n", r#"1000 "204 " 204 [] None keep=false [] took=17"#),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nX_y: 1\r\n\r\n",
            r#"1001 "200 OK" 200 ["Transfer-Encoding: Chunked", "X_y: 1"] Chunked keep=true [] took=55"#,
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n",
            r#"1001 "200 OK" 200 ["Connection: Close", "Content-Length: 0"] None keep=false [] took=57"#,
        ),
        (
            "HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\n",
            r#"1001 "200 OK" 200 ["A: b"] UntilClose keep=false [] took=42"#,
        ),
        (
            "HTTP/1.1 200 OK\r\nServer: a\r\nserver: b\r\n\r\n",
            "1001 \"200 OK\" 200 [\"Server: a\"] UntilClose keep=false [\"upstream sent duplicate header line: \
             \\\"server: b\\\", previous value: \\\"Server: a\\\", ignored\"] took=41",
        ),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: a\r\nContent-Length: x\r\n\r\n",
            r#"1001 "103 Early Hints" 103 ["Link: a", "Content-Length: x"] None keep=true [] took=56"#,
        ),
        ("HTTP/1.0 103 Early Hints\r\n", "upstream sent HTTP/1.0 response with early hints"),
        ("<html>", "headless"),
        ("HTTP/1.1 20 OK\r\n", "headless"),
        ("HTTP/1.1 2000\r\n", "headless"),
        ("HTTP/1 200 OK\r\n", "headless"),
        ("HTTP/1.1 200 OK\rx", "headless"),
        ("HTTP/1.1 200 OK\r\nA b\r\n\r\n", "upstream sent invalid header: \"A\\x20...\""),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\n",
            "upstream sent duplicate header line: \"content-length: 2\", previous value: \"Content-Length: 1\"",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "upstream sent invalid \"Content-Length\" header: \"Content-Length: -1\"",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "upstream sent unknown \"Transfer-Encoding\": \"gzip\"",
        ),
        ("HTTP/1.1 200 OK\r\nA: b", "incomplete"),
        (
            "HTTP/1.1 200 OK\r\nA: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
            "upstream sent too big header",
        ),
    ];
    let options = ResponseOptions { header_bytes_max: 80, status_line: true };
    let mut head = ResponseHead::default();
    for (input, expected) in cases {
        for cut in 0..=input.len() {
            assert_eq!(
                parse(input.as_bytes(), &[cut], &options, &mut head),
                *expected,
                "{input:?} cut at {cut}"
            );
        }
    }
}

#[test]
fn heads_without_a_status_line() {
    let options = ResponseOptions { status_line: false, ..ResponseOptions::default() };
    let found = parse(b"Status: 404 No\r\nA: b\r\n\r\nx", &[3], &options, &mut ResponseHead::default());
    assert_eq!(found, r#"0 "" 0 ["Status: 404 No", "A: b"] UntilClose keep=false [] took=24"#);
}

#[test]
fn numbers_and_status_lines() {
    let mut out = Vec::new();
    for status in [302, 418, 99] {
        encode_status_line(Status(status), &mut out);
    }
    encode_status_text(b"200 Fine", &mut out);
    assert_eq!(
        String::from_utf8_lossy(&out),
        "HTTP/1.1 302 Moved Temporarily\r\nHTTP/1.1 418 \r\nHTTP/1.1 099 \r\nHTTP/1.1 200 Fine\r\n"
    );
    for number in [0, 7, 9, 10, 99, 100, 999, 1000, u64::from(u32::MAX), u64::MAX / 10, u64::MAX] {
        for digits_min in [1, 2, 3, 20] {
            let mut out = b"=".to_vec();
            encode_number(number, digits_min, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), format!("={number:0digits_min$}"));
        }
    }
}

proptest! {
    #[test]
    fn any_split_gives_the_same(
        tail in "([A-C]: [a-z ]{0,5}\r?\n|Content-Length: [0-9]\r\n|HTTP/|\r|\n|\\PC){0,8}",
        cuts in prop::collection::vec(any::<usize>(), 0..6),
        size in 20_usize..120,
    ) {
        let input = format!("HTTP/1.1 200 OK\r\n{tail}\r\n\r\n");
        let options = ResponseOptions { header_bytes_max: size, status_line: true };
        let mut head = ResponseHead::default();
        let whole = parse(input.as_bytes(), &[], &options, &mut head);
        prop_assert_eq!(parse(input.as_bytes(), &cuts, &options, &mut head), whole);
    }

    #[test]
    fn what_is_encoded_is_decoded(pairs in prop::collection::vec(("[A-Z][a-z-]{0,9}x", "[!-~]{0,9}"), 0..8)) {
        let fields: Fields = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let mut wire = Vec::new();
        encode_status_line(Status(201), &mut wire);
        encode_fields(&fields, &mut wire);
        wire.extend_from_slice(b"\r\n");
        let mut head = ResponseHead::default();
        let parse = parse_response_head(&wire, &ResponseOptions::default(), &mut head);
        prop_assert_eq!(parse, ResponseParse::Complete { consumed: wire.len() });
        prop_assert_eq!(head.status, Status(201));
        prop_assert_eq!(&head.fields, &fields);
    }
}
