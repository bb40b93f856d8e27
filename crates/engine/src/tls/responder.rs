//! Asking a responder about a certificate (OCSP over HTTP, RFC 6960 appendix A): one question, one answer, each of its
//! addresses in turn. What the answer is worth is for whoever asked.

use crate::upstream::url;
use bstr::{BStr, BString, ByteSlice};
use http::escape::{Escape, escape_uri};
use http::{ResponseHead, ResponseOptions, ResponseParse};
use net::address::Address;
use net::connect::{ConnectOptions, connect};
use net::resolver::Resolver;
use net::timer::{Deadline, Timer};
use net::tls::ocsp::Question;
use std::fmt::Arguments;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::Duration;

/// How long one address may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many addresses of a responder are tried.
const ADDRESSES_MAX: usize = 4;
/// An answer is not longer, bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How much is read at once, bytes.
const READ_BYTES: usize = 4096;

/// Who answers.
pub struct Responder {
    /// Its name or address.
    pub host: BString,
    port: u16,
    path: BString,
}

impl Responder {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// It is not one of HTTP; nginx's words, to be followed by where it stands.
    pub fn parse(text: &[u8]) -> Result<Responder, String> {
        const PREFIX: &[u8] = b"http://";
        let rest = match text.split_at_checked(PREFIX.len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) && !rest.is_empty() => rest,
            _ => return Err(format!("invalid URL prefix in OCSP responder \"{}\"", BStr::new(text))),
        };
        let failed = |why: &str| format!("{why} in OCSP responder \"{}\"", BStr::new(rest));
        let parsed = url::parse(rest).map_err(failed)?;
        let mut path = parsed.uri;
        if !path.ends_with(b"/") {
            path.push(b'/');
        }
        Ok(Responder { host: parsed.host, port: parsed.port.unwrap_or(80), path })
    }

    /// Asks; returns the answer and the address that gave it. None: no address did, and why was told to `report` each
    /// time, with the address where there was one.
    pub async fn ask(
        &self,
        question: &Question,
        resolver: &Resolver,
        deadline: Deadline,
        report: impl Fn(Arguments<'_>, Option<&Address>),
    ) -> Option<(Vec<u8>, Address)> {
        let host = &self.host;
        let Some(encoded) = question.encode() else {
            report(format_args!("OCSP_cert_to_id() failed"), None);
            return None;
        };
        let request = self.request(&encoded);
        let addresses = match host.to_str().ok().and_then(url::literal) {
            Some(address) => vec![address],
            None => match Timer::new().with_deadline(deadline, resolver.lookup(host)).await {
                Ok(Ok(answer)) => answer.addresses.to_vec(),
                Ok(Err(error)) => {
                    report(format_args!("{host} could not be resolved ({error})"), None);
                    return None;
                }
                Err(_) => return None,
            },
        };
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            let address = Address::Inet(SocketAddr::new(address, self.port));
            match ask_one(&address, &request, Deadline::after(PATIENCE).min(deadline)).await {
                Ok(answer) => return Some((answer, address)),
                Err(problem) => report(format_args!("{problem}"), Some(&address)),
            }
            if deadline.has_passed() {
                break;
            }
        }
        None
    }

    /// The question as a request (RFC 6960 appendix A.1).
    fn request(&self, question: &[u8]) -> Vec<u8> {
        let mut base64 = Vec::new();
        http::authorization::encode_base64(question, &mut base64);
        let mut request = [b"GET ", &self.path[..]].concat();
        escape_uri(Escape::UriComponent, &base64, &mut request);
        request.extend_from_slice(b" HTTP/1.0\r\nHost: ");
        request.extend_from_slice(&self.host);
        request.extend_from_slice(b"\r\n\r\n");
        request
    }
}

async fn ask_one(address: &Address, request: &[u8], deadline: Deadline) -> Result<Vec<u8>, String> {
    let connected = connect(address, &ConnectOptions::default(), deadline).await;
    let mut stream = connected.map_err(|error| error.to_string())?;
    let sent = stream.write_all(&mut [IoSlice::new(request)], deadline).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let cases = [
            ("http://a", Ok(("a", 80, "/"))),
            ("HTTP://a:81/b", Ok(("a", 81, "/b/"))),
            ("http://[::1]:81/b/", Ok(("[::1]", 81, "/b/"))),
            ("http://", Err("invalid URL prefix in OCSP responder \"http://\"")),
            ("https://a", Err("invalid URL prefix in OCSP responder \"https://a\"")),
            ("http", Err("invalid URL prefix in OCSP responder \"http\"")),
            ("http://:80/", Err("no host in OCSP responder \":80/\"")),
            ("http://a:0/", Err("invalid port in OCSP responder \"a:0/\"")),
        ];
        for (text, expected) in cases {
            let parsed = Responder::parse(text.as_bytes());
            let parsed = parsed.as_ref().map(|found| (&found.host[..], found.port, &found.path[..]));
            let expected = expected.map(|(host, port, path)| (host.as_bytes(), port, path.as_bytes()));
            assert_eq!(parsed.map_err(String::as_str), expected, "{text}");
        }
    }

    #[test]
    fn answers_within_responses() {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\n";
        let invalid = "OCSP responder sent invalid response: 404";
        let kind = "OCSP responder sent invalid \"Content-Type\" header: \"text/plain\"";
        for (text, ended, expected) in [
            (format!("{head}\r\nabc"), false, Ok(None)),
            (format!("{head}\r\nabc"), true, Ok(Some("abc"))),
            (format!("{head}Content-Length: 2\r\n\r\nabc"), false, Ok(Some("ab"))),
            (format!("{head}Content-Length: 4\r\n\r\nabc"), true, Ok(None)),
            ("HTTP/1.1 404 Not Found\r\n\r\n".to_owned(), false, Err(invalid)),
            ("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n".to_owned(), false, Err(kind)),
            ("nonsense\r\n\r\n".to_owned(), false, Err("OCSP responder sent invalid response")),
        ] {
            let found = answer_in(text.as_bytes(), ended);
            let found = found.as_ref().map(|answer| answer.as_deref()).map_err(String::as_str);
            assert_eq!(found, expected.map(|answer| answer.map(str::as_bytes)), "{text}");
        }
    }
}
