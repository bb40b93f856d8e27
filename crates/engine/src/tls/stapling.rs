//! Answers about our certificates (OCSP), asked for in the background and stapled to handshakes. One thread asks for
//! all, one certificate after the other; handshakes never wait for it.

use super::server_tls;
use crate::plan::Snapshot;
use crate::thread::Thread;
use crate::upstream::url;
use bstr::{BString, ByteSlice};
use conf::Level;
use http::escape::{Escape, escape_uri};
use http::{ResponseHead, ResponseOptions, ResponseParse};
use net::address::Address;
use net::connect::{ConnectOptions, connect};
use net::resolver::Resolver;
use net::timer::{Deadline, Timer};
use net::tls::ocsp::Question;
use net::tls::{Identity, Staple};
use std::io::IoSlice;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer is not longer, bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How much is read at once, bytes.
const READ_BYTES: usize = 4096;
/// An answer is renewed this long before it ends, and a question repeated this long after a failure, seconds (nginx's).
const MARGIN_SECONDS: i64 = 300;
/// An answer is renewed after this at the latest, seconds (nginx's).
const AGAIN_SECONDS_MAX: i64 = 3600;

/// A certificate and who answers for it.
pub struct Stapling {
    /// The certificate.
    pub identity: Identity,
    /// Where the answer goes.
    pub staple: Arc<Staple>,
    /// What is asked.
    pub question: Question,
    /// Who is asked: `http://` URLs come without that.
    pub responder: Responder,
    /// `ssl_stapling_verify`
    pub verify: bool,
    /// The certificate's file, for the log.
    pub name: BString,
}

/// Who answers.
pub struct Responder {
    host: BString,
    port: u16,
    path: BString,
}

impl Responder {
    /// Takes a URL apart; none: it is not one of HTTP.
    pub fn parse(text: &[u8]) -> Option<Responder> {
        let rest = text.get(7..).filter(|_| text[..7].eq_ignore_ascii_case(b"http://"))?;
        let parsed = url::parse(rest).ok()?;
        let mut path = parsed.uri;
        if !path.ends_with(b"/") {
            path.push(b'/');
        }
        Some(Responder { host: parsed.host, port: parsed.port.unwrap_or(80), path })
    }
}

/// Keeps the answers for a snapshot's certificates fresh until another snapshot takes its place.
pub fn keep_fresh_in_background(thread: &Rc<Thread>, snapshot: &Arc<Snapshot>) {
    let all = snapshot.sites.iter().filter_map(|site| server_tls(snapshot, site));
    let all: Vec<Arc<Stapling>> = all.flat_map(|tls| tls.staplings.iter().cloned()).collect();
    if all.is_empty() {
        return;
    }
    let keeper = Keeper {
        thread: Rc::downgrade(thread),
        generation: snapshot.generation,
        resolver: Resolver::new(snapshot.resolver.clone()),
        all: all.into_iter().map(|stapling| (0, stapling)).collect(),
    };
    net::thread::spawn_local(keeper.keep_on());
}

/// Asks again and again.
struct Keeper {
    thread: Weak<Thread>,
    generation: u64,
    resolver: Resolver,
    /// When each is due, seconds since 1970.
    all: Vec<(i64, Arc<Stapling>)>,
}

impl Keeper {
    async fn keep_on(mut self) {
        let mut timer = Timer::new();
        loop {
            for at in 0..self.all.len() {
                let (due, stapling) = &self.all[at];
                if *due <= net::clock::wall().seconds {
                    self.all[at].0 = self.renew(&stapling.clone()).await;
                }
                if !self.is_in_force() {
                    return;
                }
            }
            let next = self.all.iter().map(|(due, _)| *due).min().unwrap_or_default();
            let pause = u64::try_from(next - net::clock::wall().seconds).unwrap_or(0).max(1);
            timer.sleep(Deadline::after(Duration::from_secs(pause))).await;
            if !self.is_in_force() {
                return;
            }
        }
    }

    fn is_in_force(&self) -> bool {
        self.thread.upgrade().is_some_and(|thread| thread.snapshot().generation == self.generation)
    }

    /// Asks once; returns when to ask again, seconds since 1970.
    async fn renew(&self, stapling: &Stapling) -> i64 {
        let asked = Deadline::after(PATIENCE);
        let answer = self.ask(stapling, asked).await;
        let now_seconds = net::clock::wall().seconds;
        let good = answer.and_then(|answer| {
            let good = stapling.question.read(&answer, stapling.verify, now_seconds)?;
            Ok((good, answer))
        });
        match good {
            Ok((good, answer)) => {
                let until_seconds = good.next_update.unwrap_or(i64::MAX);
                stapling.staple.put(&stapling.identity, answer, until_seconds);
                let early = until_seconds.saturating_sub(MARGIN_SECONDS);
                early.min(now_seconds + AGAIN_SECONDS_MAX).max(now_seconds + MARGIN_SECONDS)
            }
            Err(problem) => {
                if let Some(thread) = self.thread.upgrade() {
                    let (host, name) = (&stapling.responder.host, &stapling.name);
                    let text = format_args!(
                        "{problem} while requesting certificate status, responder: {host}, certificate: \"{name}\""
                    );
                    thread.log(&thread.snapshot(), Level::Error, None, text);
                }
                now_seconds + MARGIN_SECONDS
            }
        }
    }

    async fn ask(&self, stapling: &Stapling, deadline: Deadline) -> Result<Vec<u8>, String> {
        let responder = &stapling.responder;
        let host = &responder.host;
        let address = match host.to_str().ok().and_then(url::literal) {
            Some(address) => address,
            None => {
                let failed = |why: String| format!("{host} could not be resolved ({why})");
                let answer = self.resolver.lookup(host).await.map_err(|error| failed(error.to_string()))?;
                answer.addresses.first().copied().ok_or_else(|| failed("no address".to_owned()))?
            }
        };
        let address = Address::Inet(SocketAddr::new(address, responder.port));
        let connected = connect(&address, &ConnectOptions::default(), deadline).await;
        let mut stream = connected.map_err(|error| error.to_string())?;
        let question = stapling.question.encode().ok_or("no question can be asked about the certificate")?;
        let request = request(responder, &question);
        let sent = stream.write_all(&mut [IoSlice::new(&request)], deadline).await;
        sent.map_err(|error| format!("send() failed ({error})"))?;
        let mut input = Vec::new();
        loop {
            if let Some(answer) = answer_in(&input, false)? {
                return Ok(answer);
            }
            let read = stream.read_into(&mut input, READ_BYTES, deadline).await;
            if read.map_err(|error| format!("recv() failed ({error})"))? == 0 {
                let answer = answer_in(&input, true)?;
                return answer.ok_or_else(|| "OCSP responder prematurely closed connection".to_owned());
            }
        }
    }
}

/// The question as a request (RFC 6960 appendix A.1).
fn request(responder: &Responder, question: &[u8]) -> Vec<u8> {
    let mut base64 = Vec::new();
    http::authorization::encode_base64(question, &mut base64);
    let mut request = [b"GET ", &responder.path[..]].concat();
    escape_uri(Escape::UriComponent, &base64, &mut request);
    request.extend_from_slice(b" HTTP/1.0\r\nHost: ");
    request.extend_from_slice(&responder.host);
    request.extend_from_slice(b"\r\n\r\n");
    request
}

/// The answer in what came of the response; none: it is not whole yet.
fn answer_in(input: &[u8], ended: bool) -> Result<Option<Vec<u8>>, String> {
    if input.len() > ANSWER_BYTES_MAX {
        return Err("OCSP responder sent too long response".to_owned());
    }
    let mut head = ResponseHead::default();
    let consumed = match http::parse_response_head(input, &ResponseOptions::default(), &mut head) {
        ResponseParse::Complete { consumed } => consumed,
        ResponseParse::Incomplete => return Ok(None),
        _ => return Err("OCSP responder sent invalid response".to_owned()),
    };
    if head.status != http::Status::OK {
        return Err(format!("OCSP responder sent invalid response: {}", head.status));
    }
    let kind = head.fields.get(b"content-type").unwrap_or_default();
    if !kind.eq_ignore_ascii_case(b"application/ocsp-response") {
        let kind = kind.as_bstr();
        return Err(format!("OCSP responder sent invalid \"Content-Type\" header: \"{kind}\""));
    }
    let body = &input[consumed..];
    Ok(match head.content_length.and_then(|length| usize::try_from(length).ok()) {
        Some(length) => body.get(..length).map(<[u8]>::to_vec),
        None => ended.then(|| body.to_vec()),
    })
}
