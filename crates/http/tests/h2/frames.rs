//! Frames as a test writes them.

use http::h2::ErrorCode;
use http::h2::frame::{FrameHeader, flag, kind};

pub const END_STREAM: u8 = flag::END_STREAM;
pub const END_HEADERS: u8 = flag::END_HEADERS;
pub const PADDED: u8 = flag::PADDED;
pub const PRIORITY: u8 = flag::PRIORITY;
pub const ACK: u8 = flag::ACK;
/// The flags of a request without a body.
pub const WHOLE: u8 = END_STREAM | END_HEADERS;

/// Any frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    FrameHeader { length: payload.len(), kind, flags, stream }.write(&mut out);
    out.extend_from_slice(payload);
    out
}

/// A field list without compression: `name: value` on each line.
pub fn fields(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for line in text.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
        let at = line.get(1..).and_then(|rest| rest.find(": ")).expect("name: value") + 1;
        let line = line.as_bytes();
        literal(0, &line[..at], &line[at + 2..], &mut out);
    }
    out
}

/// A literal field with a new name; `form` 0: not indexed, 0x40: indexed, 0x10: never indexed.
pub fn literal(form: u8, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(form);
    for text in [name, value] {
        if text.len() < 127 {
            out.push(text.len() as u8);
        } else {
            out.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                out.push(128 | (rest % 128) as u8);
                rest /= 128;
            }
            out.push(rest as u8);
        }
        out.extend_from_slice(text);
    }
}

/// What every request has.
pub const GET: &str = ":method: GET\n:scheme: http\n:path: /\n:authority: a\n";
pub const POST: &str = ":method: POST\n:scheme: http\n:path: /\n:authority: a\n";

pub fn headers(stream: u32, flags: u8, text: &str) -> Vec<u8> {
    frame(kind::HEADERS, flags, stream, &fields(text))
}

/// `GET /` without a body.
pub fn get(stream: u32) -> Vec<u8> {
    headers(stream, WHOLE, GET)
}

/// `POST /` whose body follows.
pub fn post(stream: u32) -> Vec<u8> {
    headers(stream, END_HEADERS, POST)
}

pub fn continuation(stream: u32, flags: u8, text: &str) -> Vec<u8> {
    frame(kind::CONTINUATION, flags, stream, &fields(text))
}

pub fn data(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flags, stream, bytes)
}

pub fn settings(list: &[(u16, u32)]) -> Vec<u8> {
    let mut out = Vec::new();
    http::h2::frame::write_settings(list, &mut out);
    out
}

pub fn settings_ack() -> Vec<u8> {
    frame(kind::SETTINGS, ACK, 0, b"")
}

pub fn ping(flags: u8) -> Vec<u8> {
    frame(kind::PING, flags, 0, b"12345678")
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub fn rst_stream(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

pub fn priority(stream: u32, dependency: u32) -> Vec<u8> {
    frame(kind::PRIORITY, 0, stream, &[&dependency.to_be_bytes()[..], &[15]].concat())
}

pub fn goaway(stream: u32) -> Vec<u8> {
    frame(kind::GOAWAY, 0, stream, &[0; 8])
}

/// The name of an error code (RFC 9113, section 7).
pub fn error_name(code: u32) -> &'static str {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    assert_eq!(ErrorCode(13), ErrorCode::HTTP_1_1_REQUIRED);
    NAMES[code as usize]
}
