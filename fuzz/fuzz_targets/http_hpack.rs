//! Any bytes as header blocks of one connection; what decodes is encoded again and must decode to the same:
//! `cargo +nightly fuzz run http_hpack`.
#![no_main]

use http::Fields;
use http::h2::hpack::{Decoder, Encoder, FieldBounds};
use libfuzzer_sys::fuzz_target;

fn bounds(list_bytes_max: usize) -> FieldBounds {
    FieldBounds { string_bytes_max: list_bytes_max, list_bytes_max }
}

fuzz_target!(|blocks: Vec<&[u8]>| {
    let (mut decoder, mut encoder, mut other) = (Decoder::new(300), Encoder::default(), Decoder::default());
    for block in blocks {
        let mut fields = Fields::new();
        if decoder.decode(block, bounds(10_000), |name, value| fields.push(name, value)).is_err() {
            return;
        }
        let mut again = Vec::new();
        encoder.begin(&mut again);
        for (name, value) in fields.iter() {
            encoder.field(name, value, &mut again);
        }
        let mut found = Fields::new();
        other.decode(&again, bounds(usize::MAX), |name, value| found.push(name, value)).expect("our own block");
        assert_eq!(found, fields);
    }
});
