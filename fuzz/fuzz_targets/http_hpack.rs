//! Any bytes as header blocks of one connection; what decodes is encoded again and must decode to the same:
//! `cargo +nightly fuzz run http_hpack`.
#![no_main]

use http::Fields;
use http::h2::hpack::{Decoder, Encoder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|blocks: Vec<&[u8]>| {
    let (mut decoder, mut encoder, mut other) = (Decoder::new(300), Encoder::default(), Decoder::default());
    for block in blocks {
        let mut fields = Fields::new();
        if decoder.decode(block, 10_000, |name, value| fields.push(name, value)).is_err() {
            return;
        }
        let mut again = Vec::new();
        encoder.begin(&mut again);
        for (name, value) in fields.iter() {
            encoder.field(name, value, &mut again);
        }
        let mut found = Fields::new();
        other.decode(&again, usize::MAX, |name, value| found.push(name, value)).expect("our own block");
        assert_eq!(found, fields);
    }
});
