//! TLS to upstreams: the handshake behind a connection that was just made, and whether the peer is who it should be.

use super::attempt::Failure;
use super::settings::NextUpstream;
use crate::Request;
use crate::tls::named::{Pair, Reader};
use balance::Outcome;
use conf::Level;
use http::Status;
use net::stream::Stream;
use net::timer::Deadline;
use net::tls::{ClientSettings, HandshakeError};
use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use template::Template;

/// How a location speaks TLS to its upstream.
pub struct UpstreamTls {
    /// What we say.
    pub settings: ClientSettings,
    /// The certificate that we show, where variables name it.
    pub certificate: Option<(Pair, Reader)>,
    /// The name the peer must have; none: the host that the request is passed to.
    pub name: Option<Template>,
    /// Tells these settings from all others that this process has had.
    pub number: u64,
}

impl UpstreamTls {
    /// Settings with a number of their own.
    pub fn new(settings: ClientSettings, name: Option<Template>) -> UpstreamTls {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        UpstreamTls { settings, certificate: None, name, number: NUMBERS.fetch_add(1, Ordering::Relaxed) }
    }

    /// What connections must have in common to serve the same requests: the name that the peer was judged by, and the
    /// certificate that it was shown.
    pub(super) fn kind_for(&self, request: &mut Request<'_>) -> Vec<u8> {
        let mut kind = self.name_for(request);
        if let Some((pair, _)) = &self.certificate {
            for name in [&pair.certificate, &pair.key] {
                kind.push(0);
                request.render_into(name, &mut kind);
            }
        }
        kind
    }

    /// What we say in the handshake for this request; an error is a certificate that cannot be had.
    fn settings_for(&self, request: &mut Request<'_>) -> Result<Cow<'_, ClientSettings>, String> {
        let Some((pair, reader)) = &self.certificate else { return Ok(Cow::Borrowed(&self.settings)) };
        let certificate = request.render(&pair.certificate);
        if certificate.is_empty() {
            return Ok(Cow::Borrowed(&self.settings));
        }
        let key = request.render(&pair.key);
        let identity = reader.load(&certificate, &key)?;
        Ok(Cow::Owned(self.settings.with_identity(&identity)))
    }

    /// The name that the peer must have for this request.
    pub(super) fn name_for(&self, request: &mut Request<'_>) -> Vec<u8> {
        let mut name = match &self.name {
            Some(template) => request.render(template),
            None => request.passed_to.as_ref().map(|named| named.host.clone()).unwrap_or_default(),
        };
        name.truncate(without_port(&name).len());
        name
    }
}

/// Makes the handshake, and judges the peer's certificate where that is asked for.
pub(super) async fn secure(
    request: &mut Request<'_>,
    tls: &UpstreamTls,
    stream: &mut Stream,
    deadline: Deadline,
) -> Result<(), Failure> {
    let name = String::from_utf8_lossy(&tls.name_for(request)).into_owned();
    let settings = match tls.settings_for(request) {
        Ok(settings) => settings,
        Err(problem) => {
            request.log_error(Level::Error, format_args!("{problem}"));
            return Err(Failure::client(Status::INTERNAL_SERVER_ERROR));
        }
    };
    // An abbreviated handshake would wait for acknowledgements otherwise.
    let _ = stream.set_nodelay(true);
    request.action = "SSL handshaking to upstream";
    let problem = match stream.connect_tls(&settings, &name, deadline).await {
        Ok(established) => match tls.settings.judge(&established, &name, net::clock::wall().seconds) {
            Ok(()) => return Ok(()),
            Err(problem) => problem,
        },
        Err(HandshakeError::TimedOut) => {
            request.log_error(Level::Error, format_args!("upstream timed out (110: Connection timed out)"));
            let status = Status::GATEWAY_TIME_OUT;
            return Err(Failure::of(NextUpstream::TIMEOUT, status, Outcome::Failure, false));
        }
        Err(error) => error.to_string(),
    };
    request.log_error(Level::Error, format_args!("{problem}"));
    Err(Failure::of(NextUpstream::ERROR, Status::BAD_GATEWAY, Outcome::Failure, false))
}

/// A host without the port behind it.
fn without_port(name: &[u8]) -> &[u8] {
    let start = if name.starts_with(b"[") { memchr::memchr(b']', name).unwrap_or(0) } else { 0 };
    match memchr::memchr(b':', &name[start..]) {
        Some(at) => &name[..start + at],
        None => name,
    }
}
