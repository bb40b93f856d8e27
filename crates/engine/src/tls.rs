//! TLS of client connections: the handshake that chooses its server by name, and what a request on a TLS port must
//! fulfil before it is served. Certificates that variables name are in [`named`], answers that are stapled to
//! certificates in [`stapling`], questions about client certificates in [`vouching`].

pub mod named;
pub mod responder;
pub mod stapling;
pub mod vouching;

use crate::Request;
use crate::acme::board;
use crate::connection::Facts;
use crate::flow::Flow;
use crate::plan::{Listen, Site, Snapshot};
use crate::thread::Thread;
use conf::{Diagnostic, Level, SourceMap};
use http::Status;
use named::NamedCertificates;
use net::stream::{Stream, StreamError};
use net::timer::Deadline;
use net::tls::{
    CipherSuite, Established, HandshakeError, Hello, NamedGroup, ServerSettings, SignatureScheme, Trust,
    Verified,
};
use stapling::Stapling;
use std::sync::Arc;
use vouching::Vouching;

/// How much of a first read decides whether a client speaks TLS, bytes; a usual hello fits.
const HELLO_READ_BYTES: usize = 2048;

/// The TLS of one server, kept in its plan by whoever reads the directives.
#[derive(Default)]
pub struct ServerTls {
    /// What it offers; none: it has no certificate, and the address's default server speaks for it.
    pub settings: Option<ServerSettings>,
    /// The same with HTTP/2 besides.
    pub settings_http2: Option<ServerSettings>,
    /// Its certificates, where variables name them: they come with each connection.
    pub named: Option<NamedCertificates>,
    /// Certificates for which answers are asked for.
    pub staplings: Vec<Arc<Stapling>>,
    /// What it should offer is wrong, which was said.
    pub is_refused: bool,
    /// `ssl_reject_handshake`.
    pub reject_handshake: bool,
    /// `ssl_verify_client`.
    pub verify: VerifyClient,
    /// Whom client certificates must be known to.
    pub trust: Option<Arc<Trust>>,
    /// Whether the issuers of client certificates are asked about them.
    pub vouching: Option<Vouching>,
}

/// `ssl_verify_client`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyClient {
    /// Clients are not asked.
    #[default]
    Off,
    /// They must show a certificate that is known.
    On,
    /// One that they show must be known.
    Optional,
    /// One that they show need not be known.
    OptionalNoCa,
}

schema::words!(VerifyClient {
    "off" => Off,
    "on" => On,
    "optional" => Optional,
    "optional_no_ca" => OptionalNoCa,
});

/// What is known of a connection's TLS; the same for all its requests.
pub struct Session {
    /// What was agreed on.
    pub established: Established,
    /// The name the client asked for (SNI).
    pub server_name: Option<String>,
    /// Did that name choose the server? Then a request may not go to another that asks for certificates.
    pub is_named: bool,
    /// What is thought of the client's certificate.
    pub verified: Verified,
    /// What the client offered, where the configuration shows it.
    pub offer: Option<Offer>,
}

/// What a client offered.
pub struct Offer {
    /// Ciphers.
    pub ciphers: Vec<CipherSuite>,
    /// Key exchanges.
    pub groups: Vec<NamedGroup>,
    /// Signature algorithms.
    pub signatures: Vec<SignatureScheme>,
}

/// What came of looking for a handshake.
pub enum Outcome {
    /// The connection speaks TLS.
    Secure(Box<Session>),
    /// The client speaks plain HTTP; what was read of it.
    Plain(Vec<u8>),
    /// The connection is done with.
    Failed,
}

fn server_tls<'s>(snapshot: &'s Snapshot, site: &Site) -> Option<&'s ServerTls> {
    snapshot.plan(site.plan).kept()
}

/// Does the connection's listener speak TLS?
pub fn is_wanted(thread: &Thread, facts: &Facts) -> bool {
    thread.snapshot().listen_for(facts.local_address(), &facts.listen).is_some_and(|listener| listener.ssl)
}

/// Makes the handshake of a connection to a TLS port. `ahead` is what was read of it already.
pub async fn handshake(
    thread: &Thread,
    facts: &Facts,
    stream: &mut Stream,
    mut ahead: Vec<u8>,
    deadline: Deadline,
) -> Outcome {
    let snapshot = thread.snapshot();
    let log = |level: Level, message: std::fmt::Arguments<'_>| {
        let (peer, listen) = (facts.peer.host(), &facts.listen);
        let text = format_args!("{message} while SSL handshaking, client: {peer}, server: {listen}");
        thread.log(&snapshot, level, Some(facts.number), text);
    };
    if ahead.is_empty() {
        let _waiting = thread.count_idle();
        match stream.read_into(&mut ahead, HELLO_READ_BYTES, deadline).await {
            Ok(1..) => {}
            Ok(0) => {
                log(Level::Info, format_args!("client closed connection"));
                return Outcome::Failed;
            }
            Err(StreamError::TimedOut) => {
                log(Level::Info, format_args!("client timed out (110: Connection timed out)"));
                return Outcome::Failed;
            }
            Err(error) => {
                log(Level::Info, format_args!("recv() failed ({error})"));
                return Outcome::Failed;
            }
        }
    }
    // A handshake record, or the first byte of SSLv2's longer ones, as nginx tells them.
    if !matches!(ahead[..], [0x16 | 0x80.., ..]) {
        return Outcome::Plain(ahead);
    }
    let Some(listener) = snapshot.listen_for(facts.local_address(), &facts.listen) else {
        return Outcome::Failed;
    };
    match shake_hands(thread, facts, (&snapshot, listener), stream, &ahead, deadline).await {
        Ok(session) => return Outcome::Secure(Box::new(session)),
        Err(Failed::Rejected) => log(Level::Info, format_args!("handshake rejected")),
        Err(Failed::Certificate(problem)) => {
            log(Level::Error, format_args!("{problem}"));
            let text = "SSL_do_handshake() failed (SSL: error:0A000179:SSL routines::cert cb error)";
            log(Level::Info, format_args!("{text}"));
        }
        Err(Failed::Handshake(HandshakeError::TimedOut)) => {
            log(Level::Info, format_args!("client timed out (110: Connection timed out)"));
        }
        Err(Failed::Handshake(error)) => {
            let level = if error.is_critical() { Level::Crit } else { Level::Info };
            log(level, format_args!("{error}"));
        }
    }
    Outcome::Failed
}

/// Why there was no handshake.
enum Failed {
    /// We refuse it.
    Rejected,
    /// A certificate that variables name cannot be had.
    Certificate(String),
    /// One side did not like what the other said.
    Handshake(HandshakeError),
}

impl From<HandshakeError> for Failed {
    fn from(error: HandshakeError) -> Failed {
        Failed::Handshake(error)
    }
}

/// The handshake itself.
async fn shake_hands(
    thread: &Thread,
    facts: &Facts,
    (snapshot, listener): (&Snapshot, &Listen),
    stream: &mut Stream,
    ahead: &[u8],
    deadline: Deadline,
) -> Result<Session, Failed> {
    let hello = stream.read_hello(ahead, deadline).await?;
    let server_name = hello.server_name();
    if hello.speaks_only(board::PROTOCOL) {
        let proof = server_name.as_deref().and_then(board::handshake);
        return Err(prove(stream, hello, proof, deadline).await);
    }
    let named = server_name.as_ref().and_then(|name| site_named(snapshot, listener, name.as_bytes()));
    let default = snapshot.site(listener.default_site);
    let tls = server_tls(snapshot, named.unwrap_or(default));
    let refuses = tls.is_some_and(|tls| tls.reject_handshake);
    let http2 = named.unwrap_or(default).core.http2.0 || listener.http2;
    let offered = |site: &Site| {
        let tls = server_tls(snapshot, site)?;
        let settings = if http2 { tls.settings_http2.as_ref() } else { tls.settings.as_ref() };
        Some((settings?, tls.named.as_ref()))
    };
    let own = offered(named.unwrap_or(default)).or_else(|| offered(default));
    let Some((settings, certificates)) = own.filter(|_| !refuses) else {
        stream.reject_hello(hello);
        return Err(Failed::Rejected);
    };
    let offer = snapshot.variables.wants_tls_offer.then(|| {
        let client = hello.client();
        Offer {
            ciphers: client.cipher_suites().to_vec(),
            groups: client.named_groups().unwrap_or_default().to_vec(),
            signatures: client.signature_schemes().to_vec(),
        }
    });
    let mut own_settings = None;
    if let Some(certificates) = certificates {
        let known = Session {
            established: Established::nothing(),
            server_name: server_name.clone(),
            is_named: named.is_some(),
            verified: Verified::NoCertificate,
            offer: None,
        };
        let site = named.unwrap_or(default);
        match certificates.for_connection(thread, snapshot, &facts.with_session(known), site) {
            Ok(identities) => own_settings = Some(settings.with_identities(identities)),
            Err(problem) => {
                stream.fail_hello(hello);
                return Err(Failed::Certificate(problem));
            }
        }
    }
    let settings = own_settings.as_ref().unwrap_or(settings);
    let established = stream.accept_tls(hello, settings, deadline).await?;
    let verified = match tls {
        Some(tls) => {
            let site = named.unwrap_or(default);
            let asking = vouching::Asking { thread, facts, snapshot, site, deadline };
            judge_client(tls, &established, &asking).await?
        }
        None => Verified::NoCertificate,
    };
    Ok(Session { established, is_named: named.is_some(), server_name, verified, offer })
}

/// Judges the client's certificate, as far as that is asked for.
async fn judge_client(
    tls: &ServerTls,
    established: &Established,
    asking: &vouching::Asking<'_>,
) -> Result<Verified, HandshakeError> {
    let Some(trust) = &tls.trust else { return Ok(Verified::NoCertificate) };
    let now_seconds = net::clock::wall().seconds;
    let (verified, chain) = trust.judge_client(&established.peer_certificates, now_seconds);
    match &tls.vouching {
        Some(vouching) if verified == Verified::Trusted => asking.judge(vouching, trust, &chain).await,
        _ => Ok(verified),
    }
}

/// Shows an issuer the proof it looks for. Its connection ends with the handshake (RFC 8737 section 3), so that there is
/// always an error; none is a refusal of ours.
async fn prove(
    stream: &mut Stream,
    hello: Hello,
    proof: Option<ServerSettings>,
    deadline: Deadline,
) -> Failed {
    let Some(settings) = proof else {
        stream.reject_hello(hello);
        return Failed::Rejected;
    };
    match stream.accept_tls(hello, &settings, deadline).await {
        Ok(_) => Failed::Handshake(HandshakeError::Closed),
        Err(error) => Failed::Handshake(error),
    }
}

/// The server of a name on an address, exact, with a wildcard or by regular expression.
pub fn site_named<'s>(snapshot: &'s Snapshot, listener: &Listen, name: &[u8]) -> Option<&'s Site> {
    if let Some(site) = listener.names.find_name(name) {
        return Some(snapshot.site(*site));
    }
    let mut captures = template::Captures::default();
    let found = listener.regexes.iter().find(|(regex, _)| regex.regex.captures(name, &mut captures));
    found.map(|(_, site)| snapshot.site(*site))
}

/// What a request must fulfil before any of its steps runs: on a TLS port it comes over TLS, with the certificate that
/// its server asks for. The answer that is given otherwise.
pub fn refusal(request: &mut Request<'_>, listener: &Listen) -> Option<Flow> {
    if !listener.ssl {
        return None;
    }
    let before = std::mem::replace(&mut request.action, "reading client request headers");
    let refused = refusal_of_tls(request);
    request.action = before;
    refused
}

fn refusal_of_tls(request: &mut Request<'_>) -> Option<Flow> {
    let Some(session) = request.connection.session.clone() else {
        request.log_error(Level::Info, format_args!("client sent plain HTTP request to HTTPS port"));
        return Some(Flow::Deny(Status::TO_HTTPS));
    };
    let tls = server_tls(request.snapshot, request.site)?;
    if tls.verify == VerifyClient::Off {
        return None;
    }
    let host = request.head.host().unwrap_or_default();
    if session.is_named
        && !host.is_empty()
        && session.server_name.as_ref().is_none_or(|name| !name.as_bytes().eq_ignore_ascii_case(host))
    {
        let text = "client attempted to request the server name different from the one that was negotiated";
        request.log_error(Level::Info, format_args!("{text}"));
        return Some(Flow::Deny(Status::MISDIRECTED_REQUEST));
    }
    match &session.verified {
        Verified::Failed(failure)
            if tls.verify != VerifyClient::OptionalNoCa || !failure.is_about_trust() =>
        {
            request.log_error(Level::Info, format_args!("client SSL certificate verify error: ({failure})"));
            Some(Flow::Deny(Status::CERTIFICATE_ERROR))
        }
        Verified::NotVouchedFor(words) => {
            request.log_error(Level::Info, format_args!("client SSL certificate verify error: {words}"));
            Some(Flow::Deny(Status::CERTIFICATE_ERROR))
        }
        Verified::NoCertificate if tls.verify == VerifyClient::On => {
            request.log_error(Level::Info, format_args!("client sent no required SSL certificate"));
            Some(Flow::Deny(Status::NO_CERTIFICATE))
        }
        _ => None,
    }
}

/// Finds addresses that speak TLS and whose servers have no certificate, as nginx words it.
pub fn check(snapshot: &Snapshot, sources: &SourceMap, diagnostics: &mut Vec<Diagnostic>) {
    for listener in snapshot.listens.iter().filter(|listener| listener.ssl) {
        let is_ready = |site: &Site| {
            server_tls(snapshot, site)
                .is_some_and(|tls| tls.settings.is_some() || tls.is_refused || tls.reject_handshake)
        };
        let default = snapshot.site(listener.default_site);
        let bare = match server_tls(snapshot, default) {
            Some(tls) if tls.settings.is_some() || tls.is_refused => None,
            Some(tls) if tls.reject_handshake => {
                listener.sites.iter().map(|id| snapshot.site(*id)).find(|site| !is_ready(site))
            }
            _ => Some(default),
        };
        if let Some(site) = bare {
            let (file, line, _) = sources.location(site.place);
            let text = format!(
                "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive in {file}:{line}"
            );
            let help = "name the certificate's file with \"ssl_certificate\" and its key with \"ssl_certificate_key\"";
            diagnostics.push(Diagnostic::emerg("tls", text).at(site.place).bare().help(help));
        }
    }
}
