//! Certificates, and answers about them (OCSP), are read or refused, whatever a peer shows and a responder says:
//! `cargo +nightly fuzz run net_certificates`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use net::tls::ocsp::{Question, Signers};
use net::tls::{Shown, Trust, Verified};

fuzz_target!(|data: &[u8]| {
    let trust = Trust::in_nobody(1);
    let shown = [data.to_vec(), data.to_vec()];
    let (verified, chain) = trust.judge_client(&shown, 0);
    assert!(verified != Verified::Trusted && chain.is_empty(), "nobody is trusted");
    if let Some(certificate) = Shown::read(data) {
        let _ = (certificate.subject(), certificate.issuer_legacy(), certificate.serial(), certificate.ends());
    }
    let _ = Question::responders(data);
    let question = Question::of(data, data);
    let _ = question.encode();
    assert!(question.read(data, Signers::Issuer(&trust), 0).is_err(), "it cannot have signed itself");
    let _ = question.read(data, Signers::Anybody, 0);
});
