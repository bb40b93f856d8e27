//! What comes before the first request of a connection: a header of the PROXY protocol, TLS, the choice of HTTP/2.

use super::{Facts, HEAD_READ_BYTES};
use crate::thread::Thread;
use crate::tls;
use conf::Level;
use http::proxy_protocol::Header as ProxyProtocol;
use net::stream::Stream;
use net::timer::Deadline;
use std::rc::Rc;

/// The most a PROXY protocol header may take, bytes (nginx's `NGX_PROXY_PROTOCOL_MAX_HEADER`).
const PROXY_PROTOCOL_BYTES_MAX: usize = 4096;

/// What a client speaks.
pub(super) enum Spoken {
    /// HTTP/1, or HTTP/2 without TLS, which its first bytes tell.
    Http1,
    /// HTTP/2, as TLS has agreed.
    Http2,
}

/// How a connection may begin.
pub(super) struct Manners {
    /// Does anything come before the first request?
    pub needs_beginning: bool,
    /// May a client that knows HTTP/2 beforehand speak it, without TLS?
    pub may_be_http2: bool,
    /// When the first request must have come.
    pub end: Deadline,
}

/// Looks at the listener of a new connection.
pub(super) fn manners(thread: &Thread, facts: &Facts) -> Manners {
    let snapshot = thread.snapshot();
    match snapshot.listen_for(facts.local_address(), &facts.listen) {
        Some(listener) => {
            let core = &snapshot.site(listener.default_site).core;
            Manners {
                needs_beginning: listener.proxy_protocol || listener.ssl,
                may_be_http2: (core.http2.0 || listener.http2) && !listener.ssl,
                end: super::after_ms(core.client_header_timeout.0),
            }
        }
        // A reload has taken the listener away meanwhile.
        None => Manners { needs_beginning: false, may_be_http2: false, end: Deadline::PASSED },
    }
}

/// Goes through what comes before the first request; `ahead` is what was read beyond it. None: the connection ends.
// The box is what keeps a connection that waits small.
#[expect(clippy::box_collection)]
pub(super) async fn begin(
    thread: &Rc<Thread>,
    facts: &mut Facts,
    stream: &mut Stream,
    ahead: &mut Option<Box<Vec<u8>>>,
    end: Deadline,
) -> Option<Spoken> {
    let mut beyond = Vec::new();
    if is_proxied(thread, facts) {
        let (header, read) = read_proxy_protocol(thread, facts, stream, end).await?;
        facts.proxy_protocol = Some(Box::new(header));
        beyond = read;
    }
    let mut spoken = Spoken::Http1;
    if tls::is_wanted(thread, facts) {
        match tls::handshake(thread, facts, stream, std::mem::take(&mut beyond), end).await {
            tls::Outcome::Secure(session) => {
                if session.established.alpn.as_deref() == Some(b"h2") {
                    spoken = Spoken::Http2;
                }
                facts.tls = true;
                facts.session = Some(Rc::from(session));
            }
            tls::Outcome::Plain(read) => beyond = read,
            tls::Outcome::Failed => return None,
        }
    }
    *ahead = (!beyond.is_empty()).then(|| Box::new(beyond));
    Some(spoken)
}

/// Does a header of the PROXY protocol come before the first request?
fn is_proxied(thread: &Thread, facts: &Facts) -> bool {
    let snapshot = thread.snapshot();
    let listener = snapshot.listen_for(facts.local_address(), &facts.listen);
    listener.is_some_and(|listener| listener.proxy_protocol)
}

/// Reads the header of the PROXY protocol. Returns it with what was read beyond it; none: the connection ends.
async fn read_proxy_protocol(
    thread: &Thread,
    facts: &Facts,
    stream: &mut Stream,
    deadline: Deadline,
) -> Option<(ProxyProtocol, Vec<u8>)> {
    let mut input = Vec::new();
    loop {
        match http::proxy_protocol::parse(&input) {
            Ok(Some((header, length))) => {
                input.drain(..length);
                return Some((header, input));
            }
            Ok(None) if input.len() < PROXY_PROTOCOL_BYTES_MAX => {
                if !matches!(stream.read_into(&mut input, HEAD_READ_BYTES, deadline).await, Ok(1..)) {
                    break;
                }
            }
            _ => break,
        }
    }
    // One that sent nothing is not worth a word.
    if !input.is_empty() {
        let end = memchr::memchr2(b'\r', b'\n', &input).unwrap_or(input.len());
        let line = bstr::BStr::new(&input[..end]);
        let (peer, listen) = (facts.peer.host(), &facts.listen);
        let text = format_args!(
            "broken header: \"{line}\" while reading PROXY protocol, client: {peer}, server: {listen}"
        );
        thread.log(&thread.snapshot(), Level::Error, Some(facts.number), text);
    }
    None
}
