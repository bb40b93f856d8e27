//! Any bytes as a chunked body, whole and cut in two: `cargo +nightly fuzz run http_chunked`.
#![no_main]

use http::Fields;
use http::chunked::{ChunkError, Decoder};
use libfuzzer_sys::fuzz_target;

/// Body, trailers and what was left over, or the error.
fn decode(
    input: &[u8],
    cut: usize,
    mut decoder: Decoder,
) -> Result<(Vec<u8>, Fields, Option<usize>), ChunkError> {
    let (mut body, mut trailers) = (Vec::new(), Fields::new());
    let first = decoder.decode(&input[..cut], &mut body, &mut trailers)?;
    let mut left = first.finished.then(|| input.len() - first.consumed);
    if !first.finished {
        let second = decoder.decode(&input[cut..], &mut body, &mut trailers)?;
        left = second.finished.then(|| input.len() - cut - second.consumed);
    }
    Ok((body, trailers, left))
}

fuzz_target!(|data: &[u8]| {
    let Some((&cut, input)) = data.split_first() else { return };
    let cut = usize::from(cut) % (input.len() + 1);
    for decoder in [Decoder::new(), Decoder::keeping_trailers(48)] {
        assert_eq!(decode(input, cut, decoder.clone()), decode(input, input.len(), decoder));
    }
});
