//! WebSockets over HTTP/2 (RFC 8441): an extended CONNECT becomes the upgrade that HTTP/1 has for it, so that locations,
//! modules and back ends see what they know; the stream carries the bytes behind the handshake.
//!
//! ```text
//! CONNECT, :protocol websocket  ->  GET, Upgrade: websocket, Sec-WebSocket-Key made here  ->  back end
//! 200, without the handshake's fields                                                     <-  101
//! ```

use crate::Request;
use crate::flow::Flow;
use conf::Level;
use http::authorization::encode_base64;
use http::{Method, Status};

/// What the back end's handshake proves to a client of HTTP/1; over HTTP/2 there is no key to prove anything of.
pub(super) const ACCEPT: &[u8] = b"sec-websocket-accept";

/// Makes an extended CONNECT an upgrade; says how it ends at once where it asks for something else than a WebSocket.
pub(super) fn begin(request: &mut Request<'_>) -> Option<Flow> {
    let protocol = request.head.connect_protocol();
    if protocol.is_empty() {
        return None;
    }
    if !protocol.eq_ignore_ascii_case(b"websocket") {
        let protocol = bstr::BStr::new(protocol).to_owned();
        request.log_error(Level::Info, format_args!("client asked to connect by \"{protocol}\""));
        return Some(Flow::Deny(Status::NOT_IMPLEMENTED));
    }
    let mut key = Vec::with_capacity(24);
    encode_base64(&net::random::request_id(), &mut key);
    let fields = &mut request.head.fields;
    fields.remove(b"upgrade");
    fields.remove(b"sec-websocket-key");
    fields.push(b"Upgrade", b"websocket");
    fields.push(b"Connection", b"upgrade");
    fields.push(b"Sec-WebSocket-Key", &key);
    request.method = Method::Get;
    // What follows on the stream is the WebSocket's, and no body.
    request.body.length = Some(0);
    request.body.read = true;
    None
}

/// The status that the client is told: an upgrade is a plain success here, and nothing else may look like one
/// (RFC 8441, section 5).
pub(super) fn status(request: &Request<'_>) -> Status {
    let status = request.response.status.as_sent();
    if request.response.upgraded {
        return Status::OK;
    }
    match status.0 {
        200..=299 if !request.head.connect_protocol().is_empty() => Status::NOT_IMPLEMENTED,
        _ => status,
    }
}
