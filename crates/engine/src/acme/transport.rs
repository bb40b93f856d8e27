//! HTTP to issuers: one connection a request, over TLS, with bounds on everything that comes back.

use super::Issuer;
use acme::Url;
use acme::answer::retry_after_seconds;
use http::response::{ResponseFraming, ResponseOptions, ResponseParse, parse_response_head};
use http::{Fields, ResponseHead};
use net::connect::{ConnectOptions, connect};
use net::resolver::Resolver;
use net::timer::Deadline;
use net::{Address, Stream, StreamError};
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long an address may take to answer before the next is tried.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a request may take in all, once connected.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);
/// How many addresses of an issuer are tried.
const ADDRESSES_MAX: usize = 4;
/// How large a head may be, bytes.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// How large a body may be, bytes.
const BODY_BYTES_MAX: usize = 256 << 10;
/// How much is read at once, bytes.
const READ_BYTES: usize = 16 << 10;
/// What requests say they carry (RFC 8555 section 6.2).
const CONTENT_TYPE: &str = "application/jose+json";

/// What issuers are asked through.
pub(super) struct Transport {
    pub(super) resolver: Resolver,
    /// Who we are (RFC 8555 section 6.1).
    pub(super) product: &'static str,
}

/// What came back.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) fields: Fields,
    pub(super) body: Vec<u8>,
}

impl Response {
    pub(super) fn is_success(&self) -> bool {
        self.status / 100 == 2
    }

    /// A field as text.
    pub(super) fn field(&self, name: &[u8]) -> Option<&str> {
        std::str::from_utf8(self.fields.get(name)?).ok()
    }

    /// How long the issuer wants us to wait.
    pub(super) fn retry_after_seconds(&self) -> Option<u64> {
        retry_after_seconds(self.fields.get(b"Retry-After")?, net::clock::wall().seconds)
    }
}

impl Transport {
    /// Sends one request; without a body it is a GET.
    ///
    /// # Errors
    /// In words: which step failed, and how.
    pub(super) async fn ask(
        &self,
        issuer: &Issuer,
        url: &Url,
        body: Option<&str>,
    ) -> Result<Response, String> {
        let mut stream = self.connect(url).await?;
        let deadline = Deadline::after(REQUEST_TIME_MAX);
        if url.is_https {
            let established = stream
                .connect_tls(&issuer.tls, &url.host, deadline)
                .await
                .map_err(|error| format!("{error} while SSL handshaking to {}", url.authority()))?;
            issuer
                .tls
                .judge(&established, &url.host, net::clock::wall().seconds)
                .map_err(|why| format!("{why} ({})", url.authority()))?;
        }
        let head = self.head(url, body);
        let mut parts = [IoSlice::new(head.as_bytes()), IoSlice::new(body.unwrap_or_default().as_bytes())];
        let failed = |error: StreamError| format!("request to {} failed ({error})", url.authority());
        stream.write_all(&mut parts, deadline).await.map_err(failed)?;
        receive(&mut stream, url, deadline).await
    }

    fn head(&self, url: &Url, body: Option<&str>) -> String {
        let (target, authority, product) = (&url.target, url.authority(), self.product);
        let common = format!(
            "Host: {authority}\r\nUser-Agent: {product}\r\nAccept-Language: en\r\nConnection: close\r\n"
        );
        match body {
            None => format!("GET {target} HTTP/1.1\r\n{common}\r\n"),
            Some(body) => format!(
                "POST {target} HTTP/1.1\r\n{common}Content-Type: {CONTENT_TYPE}\r\nContent-Length: {}\r\n\r\n",
                body.len()
            ),
        }
    }

    async fn connect(&self, url: &Url) -> Result<Stream, String> {
        let addresses: Vec<IpAddr> = match url.host.parse() {
            Ok(address) => vec![address],
            Err(_) => match self.resolver.lookup(url.host.as_bytes()).await {
                Ok(answer) => answer.addresses.to_vec(),
                Err(error) => return Err(format!("{} could not be resolved ({error})", url.host)),
            },
        };
        let mut why = format!("{} has no address", url.host);
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            let address = Address::Inet(SocketAddr::new(address, url.port));
            let options = ConnectOptions { nodelay: true, ..ConnectOptions::default() };
            match connect(&address, &options, Deadline::after(CONNECT_TIME_MAX)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => why = format!("{error} while connecting to {} ({address})", url.authority()),
            }
        }
        Err(why)
    }
}

async fn receive(stream: &mut Stream, url: &Url, deadline: Deadline) -> Result<Response, String> {
    let from = url.authority();
    let failed = |why: &str| format!("{why} while reading the response of {from}");
    let options = ResponseOptions { header_bytes_max: HEAD_BYTES_MAX, ..ResponseOptions::default() };
    let mut head = ResponseHead::default();
    let mut input = Vec::new();
    let consumed = loop {
        if read(stream, &mut input, deadline).await.map_err(|error| failed(&error.to_string()))? == 0 {
            return Err(failed("the connection was closed"));
        }
        match parse_response_head(&input, &options, &mut head) {
            ResponseParse::Complete { consumed } => break consumed,
            ResponseParse::Incomplete => {}
            _ => return Err(failed("a malformed head was found")),
        }
    };
    let mut input = input.split_off(consumed.min(input.len()));
    let framing = head.framing(http::Method::Post);
    let mut body = Vec::new();
    let mut decoder = http::chunked::Decoder::new();
    loop {
        let is_whole = match framing {
            ResponseFraming::None => true,
            ResponseFraming::Length(length) => {
                body.append(&mut input);
                body.len() as u64 >= length
            }
            ResponseFraming::UntilClose => {
                body.append(&mut input);
                false
            }
            ResponseFraming::Chunked => {
                let decoded = decoder.decode(&input, &mut body, &mut Fields::default());
                input.clear();
                decoded.map_err(|_| failed("malformed chunks were found"))?.finished
            }
        };
        if body.len() > BODY_BYTES_MAX {
            return Err(failed("too much came"));
        }
        if is_whole {
            break;
        }
        match read(stream, &mut input, deadline).await {
            Ok(0) if framing == ResponseFraming::UntilClose => break,
            Ok(0) => return Err(failed("the connection was closed")),
            Ok(_) => {}
            Err(error) => return Err(failed(&error.to_string())),
        }
    }
    if let ResponseFraming::Length(length) = framing {
        body.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    }
    Ok(Response { status: head.status.0, fields: head.fields, body })
}

async fn read(stream: &mut Stream, into: &mut Vec<u8>, deadline: Deadline) -> Result<usize, StreamError> {
    stream.read_into(into, READ_BYTES, deadline).await
}
