//! Any bytes as a request head and as an upstream's answer, whole and cut in two: both must agree, and nothing may
//! panic: `cargo +nightly fuzz run http_heads`.
#![no_main]

use http::{
    HeadOptions, Parse, RequestHead, ResponseHead, ResponseOptions, ResponseParse, parse_request_head,
    parse_response_head,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&cut, input)) = data.split_first() else { return };
    let cut = usize::from(cut) % (input.len() + 1);
    let small = HeadOptions {
        first_buffer_bytes: 32,
        header_line_bytes_max: 64,
        large_buffers_max: 2,
        ..HeadOptions::default()
    };
    for options in [HeadOptions::default(), small] {
        let (mut whole, mut pieces) = (RequestHead::default(), RequestHead::default());
        let expected = parse_request_head(input, &options, &mut whole);
        let mut found = parse_request_head(&input[..cut], &options, &mut pieces);
        if found == Parse::Incomplete {
            found = parse_request_head(input, &options, &mut pieces);
        }
        assert_eq!(found, expected);
        if let Parse::Complete { consumed } = found {
            assert!(consumed <= input.len() && consumed <= options.header_bytes_max());
            assert_eq!(pieces.fields, whole.fields);
            assert_eq!((&pieces.path, pieces.framing()), (&whole.path, whole.framing()));
            assert!(whole.path.first() == Some(&b'/'));
        }
        whole.request_line();
        whole.args();
        whole.ignored_lines().count();
    }
    for status_line in [true, false] {
        let options = ResponseOptions { header_bytes_max: 256, status_line };
        let (mut whole, mut pieces) = (ResponseHead::default(), ResponseHead::default());
        let expected = parse_response_head(input, &options, &mut whole);
        let mut found = parse_response_head(&input[..cut], &options, &mut pieces);
        if found == ResponseParse::Incomplete {
            found = parse_response_head(input, &options, &mut pieces);
        }
        assert_eq!(found, expected);
        assert_eq!(pieces.status, whole.status);
        whole.status_text();
    }
});
