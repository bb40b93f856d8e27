//! `$upstream_*`: what the peers were, said and took (nginx's manual, ngx_http_upstream_module, "Embedded Variables").
//!
//! Values of several peers of one call are joined by commas, those of several calls (after an internal redirect) by
//! colons, so that the n-th value of every variable speaks of the same peer.

use super::Attempted;
use crate::Request;
use crate::module::Variable;
use crate::variables::core::joined;
use crate::variables::text::{number, seconds};

/// The variables.
pub static VARIABLES: &[Variable] = &[
    Variable::plain(
        "upstream_addr",
        |r, o| {
            each(r, o, |attempted, out| {
                out.extend_from_slice(attempted.address.as_deref().unwrap_or_default())
            })
        },
        "The addresses of the peers asked.",
    ),
    Variable::printable(
        "upstream_status",
        |r, o| each(r, o, |attempted, out| number_or_dash(out, u64::from(attempted.status))),
        "Their statuses.",
    ),
    Variable::printable(
        "upstream_connect_time",
        |r, o| each(r, o, |attempted, out| seconds_or_dash(out, attempted.connect_ms)),
        "Seconds until they were connected to.",
    ),
    Variable::printable(
        "upstream_header_time",
        |r, o| each(r, o, |attempted, out| seconds_or_dash(out, attempted.header_ms)),
        "Seconds until the heads of their answers were there.",
    ),
    Variable::printable(
        "upstream_response_time",
        |r, o| each(r, o, |attempted, out| seconds_or_dash(out, attempted.response_ms)),
        "Seconds until their answers were there.",
    ),
    Variable::printable(
        "upstream_response_length",
        |r, o| each(r, o, |attempted, out| _ = number(out, attempted.response_bytes, 1)),
        "Bytes of the bodies of their answers.",
    ),
    Variable::printable(
        "upstream_bytes_received",
        |r, o| each(r, o, |attempted, out| _ = number(out, attempted.received_bytes, 1)),
        "Bytes received from them.",
    ),
    Variable::printable(
        "upstream_bytes_sent",
        |r, o| each(r, o, |attempted, out| _ = number(out, attempted.sent_bytes, 1)),
        "Bytes sent to them.",
    ),
    Variable::prefix(
        "upstream_http_",
        |r, name, o| joined(&r.upstream_fields, name, b", ", o),
        "A header of the upstream's answer.",
    ),
    Variable::prefix(
        "upstream_trailer_",
        |r, name, o| joined(&r.upstream_trailers, name, b", ", o),
        "A trailer of the upstream's answer.",
    ),
    Variable::prefix("upstream_cookie_", cookie, "A cookie that the upstream's answer sets."),
];

/// Writes a value of every attempt; false when nobody was asked.
fn each(request: &Request, out: &mut Vec<u8>, write: fn(&Attempted, &mut Vec<u8>)) -> bool {
    for (n, attempted) in request.attempts.iter().enumerate() {
        match (n, attempted.new_call) {
            (0, _) => {}
            (_, true) => out.extend_from_slice(b" : "),
            (_, false) => out.extend_from_slice(b", "),
        }
        write(attempted, out);
    }
    !request.attempts.is_empty()
}

fn number_or_dash(out: &mut Vec<u8>, value: u64) {
    if value == 0 { out.push(b'-') } else { _ = number(out, value, 1) }
}

fn seconds_or_dash(out: &mut Vec<u8>, milliseconds: Option<u64>) {
    match milliseconds {
        None => out.push(b'-'),
        Some(milliseconds) => _ = seconds(out, milliseconds),
    }
}

fn cookie(request: &mut Request, name: &[u8], out: &mut Vec<u8>) -> bool {
    match http::cookie::find_set(&request.upstream_fields, name) {
        Some(value) => {
            out.extend_from_slice(value);
            true
        }
        None => false,
    }
}
