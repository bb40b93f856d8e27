//! The response's head in HTTP/1 form, its lines in nginx's order.

use crate::Request;
use crate::core::values::ServerTokens;
use crate::thread::Thread;
use crate::variables::content_type;
use http::Status;
use http::response::{encode_field, encode_number};
use std::cell::RefCell;

/// Room for all lines of a usual head, bytes.
const HEAD_BYTES_USUAL: usize = 512;

/// How the response's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// By `Content-Length`, or there is no body.
    Length,
    /// In chunks.
    Chunked,
    /// By the end of the connection.
    Close,
    /// Not at all: the connection is upgraded.
    Upgraded,
}

/// Writes the head.
pub fn encode(request: &mut Request<'_>, framing: Outgoing, out: &mut Vec<u8>) {
    if request.head.is_http_09() {
        // HTTP/0.9 knows bodies only.
        return;
    }
    // Redirects are completed first: logs show what was sent.
    let completed = complete_location(request);
    let response = &request.response;
    out.reserve(HEAD_BYTES_USUAL);
    status_line(request, out);
    match (response.server_given, response.date_given) {
        (false, false) => {
            request.thread.stamp.write(request.thread, *request.plan.core.server_tokens, out);
        }
        (false, true) => server_line(request.thread, *request.plan.core.server_tokens, out),
        (true, false) => date_line(out),
        (true, true) => {}
    }
    if !response.content_type.is_empty() {
        out.extend_from_slice(b"Content-Type: ");
        content_type(response, out);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(length) = response.content_length {
        out.extend_from_slice(b"Content-Length: ");
        encode_number(length, 1, out);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(seconds) = response.last_modified {
        out.extend_from_slice(b"Last-Modified: ");
        out.extend_from_slice(&net::clock::http_date_of(seconds));
        out.extend_from_slice(b"\r\n");
    }
    if completed {
        encode_field(b"Location", &response.location, out);
    }
    connection_lines(request, framing, out);
    if !completed && !response.location.is_empty() {
        encode_field(b"Location", &response.location, out);
    }
    for (name, value) in response.fields.iter() {
        encode_field(name, value, out);
    }
    out.extend_from_slice(b"\r\n");
}

fn server_line(thread: &Thread, tokens: ServerTokens, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Server: ");
    out.extend_from_slice(thread.server_name(tokens).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn date_line(out: &mut Vec<u8>) {
    out.extend_from_slice(b"Date: ");
    out.extend_from_slice(&net::clock::http_date());
    out.extend_from_slice(b"\r\n");
}

/// The lines that are the same in nearly all heads of a second, ready to be copied.
#[derive(Default)]
pub struct Stamp(RefCell<Option<(i64, ServerTokens, Vec<u8>)>>);

impl Stamp {
    fn write(&self, thread: &Thread, tokens: ServerTokens, out: &mut Vec<u8>) {
        let seconds = net::clock::wall().seconds;
        let mut stamp = self.0.borrow_mut();
        let text = match &mut *stamp {
            Some((at, of, text)) if *at == seconds && *of == tokens => text,
            other => {
                let mut text = Vec::with_capacity(80);
                server_line(thread, tokens, &mut text);
                date_line(&mut text);
                &mut other.insert((seconds, tokens, text)).2
            }
        };
        out.extend_from_slice(text);
    }
}

fn status_line(request: &Request<'_>, out: &mut Vec<u8>) {
    let response = &request.response;
    if response.status == Status::OK && response.status_line.is_empty() {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    if !response.status_line.is_empty() {
        out.extend_from_slice(&response.status_line);
    } else {
        encode_number(response.status.0.into(), 3, out);
        out.push(b' ');
        out.extend_from_slice(response.status.reason().unwrap_or_default().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn connection_lines(request: &Request<'_>, framing: Outgoing, out: &mut Vec<u8>) {
    if framing == Outgoing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if framing == Outgoing::Upgraded {
        out.extend_from_slice(b"Connection: upgrade\r\n");
    } else if request.keep_alive {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
        let seconds = request.plan.core.keepalive_timeout.header_seconds;
        if seconds > 0 {
            out.extend_from_slice(b"Keep-Alive: timeout=");
            encode_number(seconds, 1, out);
            out.extend_from_slice(b"\r\n");
        }
    } else {
        out.extend_from_slice(b"Connection: close\r\n");
    }
}

/// A redirect to a path gets scheme, host and port, as `absolute_redirect` and its friends say. True: it has.
pub(crate) fn complete_location(request: &mut Request<'_>) -> bool {
    let core = &request.plan.core;
    if !request.response.location.starts_with(b"/") || !core.absolute_redirect.0 {
        return false;
    }
    let mut whole = Vec::with_capacity(64 + request.response.location.len());
    whole.extend_from_slice(request.scheme().as_bytes());
    whole.extend_from_slice(b"://");
    let local = request.connection.local_address();
    if core.server_name_in_redirect.0 {
        whole.extend_from_slice(&request.site.name);
    } else {
        match request.head.host() {
            Some(host) if !host.is_empty() => whole.extend_from_slice(host),
            _ => local.write_host(&mut whole),
        }
    }
    let usual = if request.connection.tls { 443 } else { 80 };
    let port = local.port();
    if core.port_in_redirect.0 && port != usual && port != 0 {
        whole.push(b':');
        encode_number(port.into(), 1, &mut whole);
    }
    whole.extend_from_slice(&request.response.location);
    request.response.location = whole;
    true
}
