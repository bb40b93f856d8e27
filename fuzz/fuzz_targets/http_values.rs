//! Any bytes as a target, a host, a date, a range, a list of entity tags, a cookie, credentials and a PROXY protocol
//! header: `cargo +nightly fuzz run http_values`.
#![no_main]

use http::conditional::{ModifiedSince, evaluate, if_range_holds};
use http::range::{Ranges, UNLIMITED};
use http::uri::{Escape, Unescape};
use http::{Fields, uri};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut out = Vec::new();
    for merge_slashes in [true, false] {
        let target = [b"/", data].concat();
        if let Ok(parts) = uri::normalise(&target, merge_slashes, &mut out) {
            assert!(
                out.starts_with(b"/") && !out.split(|&byte| byte == b'/').any(|segment| segment == b"..")
            );
            parts.args.of(&target);
            parts.exten.of(&out);
        }
    }
    let _ = http::normalise_host(data, &mut out);
    let (mut escaped, mut back) = (Vec::new(), Vec::new());
    uri::escape_uri(Escape::UriComponent, data, &mut escaped);
    assert_eq!(uri::unescape(Unescape::All, &escaped, &mut back), escaped.len());
    assert_eq!(back, data);
    uri::unescape(Unescape::Redirect, data, &mut back);
    uri::split_given_uri(data);

    http::date::parse_http(data);
    if let Ranges::Parts(parts) = http::range::parse(data, 1000, UNLIMITED) {
        assert!(parts.iter().all(|part| part.start < part.end && part.end <= 1000));
    }
    let names: [&[u8]; 6] =
        [b"If-None-Match", b"If-Match", b"If-Range", b"If-Modified-Since", b"Cookie", b"Authorization"];
    for name in names {
        let fields: Fields = [(name, data)].into_iter().collect();
        evaluate(&fields, Some(7), Some(b"W/\"a\""), ModifiedSince::Before);
        if_range_holds(&fields, Some(7), Some(b"\"a\""));
        http::cookie::find(&fields, b"a");
        http::authorization::basic(&fields);
    }
    http::args::find(data, b"a");
    for start in [&b""[..], b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n!\x11\0\x20"] {
        let input = [start, data].concat();
        if let Ok(Some((header, taken))) = http::proxy_protocol::parse(&input) {
            assert!(taken <= input.len());
            header.tlv(b"ssl_cn");
            header.source.address();
        }
    }
});
