//! The response's head in HTTP/2 form, its fields in nginx's order.

use super::websocket;
use crate::Request;
use crate::head::complete_location;
use crate::variables::content_type;
use http::h2::Connection;
use http::response::encode_number;
use http::{ResponseHead, ResponseOptions, ResponseParse, parse_response_head};

/// Sends the head; returns how many bytes it takes.
pub(super) fn encode(request: &mut Request<'_>, codec: &mut Connection, stream: u32) -> usize {
    complete_location(request);
    let response = &request.response;
    let mut head = codec.begin_head(stream);
    head.status(websocket::status(request).0);
    if !response.server_given {
        head.field(b"server", request.thread.server_name(*request.plan.core.server_tokens).as_bytes());
    }
    if !response.date_given {
        head.field(b"date", &net::clock::http_date());
    }
    if !response.content_type.is_empty() {
        if response.charset.is_empty() {
            head.field(b"content-type", &response.content_type);
        } else {
            let mut whole = Vec::with_capacity(64);
            content_type(response, &mut whole);
            head.field(b"content-type", &whole);
        }
    }
    if let Some(length) = response.content_length {
        let mut digits = Vec::with_capacity(20);
        encode_number(length, 1, &mut digits);
        head.field(b"content-length", &digits);
    }
    if let Some(seconds) = response.last_modified {
        head.field(b"last-modified", &net::clock::http_date_of(seconds));
    }
    if !response.location.is_empty() {
        head.field(b"location", &response.location);
    }
    for (name, value) in response.fields.iter() {
        let of_handshake = response.upgraded && name.eq_ignore_ascii_case(websocket::ACCEPT);
        if !is_about_connections(name) && !of_handshake {
            head.field(name, value);
        }
    }
    head.finish(true)
}

/// Sends an interim answer that is given in HTTP/1's form.
pub(super) fn encode_interim(text: &[u8], codec: &mut Connection, stream: u32) {
    let mut parsed = ResponseHead::default();
    let options = ResponseOptions { header_bytes_max: text.len() + 1, ..ResponseOptions::default() };
    if !matches!(parse_response_head(text, &options, &mut parsed), ResponseParse::Complete { .. }) {
        return;
    }
    let mut head = codec.begin_head(stream);
    head.status(parsed.status.0);
    for (name, value) in parsed.fields.iter() {
        if !is_about_connections(name) {
            head.field(name, value);
        }
    }
    head.finish(false);
}

/// Fields that HTTP/2 has no place for (RFC 9113, section 8.2.2).
fn is_about_connections(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 5] =
        [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];
    matches!(name.len(), 7 | 10 | 16 | 17) && NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}
