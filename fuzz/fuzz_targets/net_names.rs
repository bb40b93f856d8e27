//! Any bytes as the answer to a question for a name: `cargo +nightly fuzz run net_names`.
#![no_main]

use net::resolver::message::{Kind, answer, question};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for kind in [Kind::A, Kind::Aaaa, Kind::Srv] {
        let Some(asked) = question(7, b"app.example", kind) else { unreachable!("the name can be asked for") };
        let _ = answer(data, &asked, kind);
        // A head and a question as they should be, and then any records.
        let mut whole = asked.clone();
        whole[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 3]);
        whole.extend_from_slice(data);
        if let Some(response) = answer(&whole, &asked, kind) {
            assert!(response.addresses.len() + response.services.len() <= 3);
            assert!(response.addresses.iter().all(|address| address.is_ipv6() == (kind == Kind::Aaaa)));
        }
    }
    if let Some(asked) = question(7, data, Kind::A) {
        assert!(asked.len() <= 12 + 257 + 4);
    }
});
