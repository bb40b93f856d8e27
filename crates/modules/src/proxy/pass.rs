//! The step that passes requests on, and the request it writes.

use super::rewrites::{Rewrite, cookie};
use super::{Conf, HttpVersion, RedirectLine, SetHeaders};
use bstr::{BStr, BString, ByteSlice};
use engine::Request;
use engine::flow::{Flow, Step};
use engine::module::Build;
use engine::upstream::keepalive::Keepalive;
use engine::upstream::tls::UpstreamTls;
use engine::upstream::url::{self, UpstreamUrl};
use engine::upstream::{BodyFraming, Call, Destination, Named, Protocol, Settings, Upstream};
use http::Status;
use http::escape::{Escape, escape_uri};
use http::response::{encode_field, encode_number};
use schema::Problem;
use schema::hash::QuickMap;
use std::sync::Arc;
use template::Template;

/// Headers that are about the client's connection, or written anew.
const DEFAULT_HEADERS: [&str; 9] = [
    "host",
    "connection",
    "proxy-connection",
    "content-length",
    "transfer-encoding",
    "te",
    "keep-alive",
    "expect",
    "upgrade",
];

/// Headers of the response that are not passed on unless `proxy_pass_header` names them.
const HIDDEN_HEADERS: [&str; 8] = [
    "date",
    "server",
    "x-pad",
    "x-accel-expires",
    "x-accel-redirect",
    "x-accel-limit-rate",
    "x-accel-buffering",
    "x-accel-charset",
];

/// Where a `proxy_pass` leads.
#[derive(Clone)]
pub enum Target {
    /// Known when the configuration is read.
    Constant {
        /// The group.
        upstream: Arc<Upstream>,
        /// Its name and URI.
        place: Arc<Place>,
        /// What `proxy_redirect default` does, where the location has no part in it.
        redirect: Option<Arc<[Rewrite]>>,
        /// How it is spoken to.
        scheme: Scheme,
    },
    /// Known when the request comes.
    Variable(Template),
}

/// Host, port and URI of a target.
#[derive(Default)]
pub struct Place {
    /// What `Host` says and `$proxy_host` is, and `$proxy_port`.
    named: Arc<Named>,
    /// What replaces the location's prefix; empty: the URI goes on as it came.
    uri: Vec<u8>,
}

/// How an upstream is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// As it is.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The port where none is written.
    fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// `http://` and the rest.
///
/// # Errors
/// As nginx.
pub fn split_scheme(text: &[u8]) -> Result<(&[u8], Scheme), Problem> {
    if text.len() >= 7 && text[..7].eq_ignore_ascii_case(b"http://") {
        return Ok((&text[7..], Scheme::Http));
    }
    if text.len() >= 8 && text[..8].eq_ignore_ascii_case(b"https://") {
        return Ok((&text[8..], Scheme::Https));
    }
    Err(Problem::new("invalid URL prefix").help("an upstream's address starts with http:// or https://"))
}

fn parsed(text: &[u8]) -> Result<(UpstreamUrl, Scheme), Problem> {
    let (rest, scheme) = split_scheme(text)?;
    url::parse(rest)
        .map(|url| (url, scheme))
        .map_err(|why| Problem::new(format!("{why} in upstream \"{}\"", rest.as_bstr())))
}

/// Checks the address of a `proxy_pass` without variables. Where the location's name cannot be replaced (`nameless`)
/// it has no URI part.
///
/// # Errors
/// As nginx.
pub fn check(text: &BString, nameless: bool, build: &mut Build) -> Result<(), Problem> {
    let known = build.shared::<Known>().has_uri.get(text).copied();
    let has_uri = match known {
        Some(has_uri) => has_uri,
        None => {
            let has_uri = !parsed(text)?.0.uri.is_empty();
            build.shared::<Known>().has_uri.insert(text.clone(), has_uri);
            has_uri
        }
    };
    if nameless && has_uri {
        return Err(Problem::new(
            "\"proxy_pass\" cannot have URI part in location given by regular expression, or inside named location, \
             or inside \"if\" statement, or inside \"limit_except\" block",
        ));
    }
    Ok(())
}

impl Target {
    /// May it be spoken to over TLS?
    pub fn may_be_https(&self) -> bool {
        !matches!(self, Target::Constant { scheme: Scheme::Http, .. })
    }

    /// The target of a constant `proxy_pass`; a host that no `upstream` block has becomes a group of its own.
    ///
    /// # Errors
    /// As nginx.
    pub fn constant(text: &BStr, build: &mut Build) -> Result<Target, Problem> {
        if let Some(known) = build.shared::<Known>().targets.get(text) {
            return Ok(known.clone());
        }
        let (parsed, scheme) = parsed(text)?;
        let place = Arc::new(Place::of(&parsed, scheme));
        let known = build.upstream(&parsed.host).filter(|upstream| !upstream.implicit);
        let upstream = match known {
            Some(upstream) => {
                if let Some(port) = parsed.port {
                    return Err(Problem::new(format!(
                        "upstream \"{}\" may not have port {port}",
                        parsed.host
                    )));
                }
                upstream
            }
            None => implicit(&parsed, scheme, build),
        };
        let redirect = || Arc::from([Rewrite::prefix(&[text.as_bytes(), b"/"].concat(), b"/")]);
        let redirect = place.uri.is_empty().then(redirect);
        let made = Target::Constant { upstream, place, redirect, scheme };
        build.shared::<Known>().targets.insert(text.to_owned(), made.clone());
        Ok(made)
    }
}

/// What is known of addresses without variables by their text: a large configuration has few different ones.
#[derive(Default)]
struct Known {
    /// Those that are right, and whether they have a URI part.
    has_uri: QuickMap<BString, bool>,
    targets: QuickMap<BString, Target>,
}

/// The group of one server that stands for an address without an `upstream` block.
fn implicit(parsed: &UpstreamUrl, scheme: Scheme, build: &mut Build) -> Arc<Upstream> {
    let port = parsed.port.unwrap_or(scheme.port());
    let name: BString = if parsed.host.starts_with(b"unix:") {
        parsed.host.clone()
    } else {
        format!("{}:{port}", parsed.host).into()
    };
    if let Some(known) = build.upstream(&name) {
        return known;
    }
    let server = crate::upstream::server_at(parsed, scheme.port(), balance::Peer::new(name.clone()), false);
    let made = Upstream::new(name, vec![server], Default::default(), Keepalive::default(), None, true);
    let made = Arc::new(made);
    build.upstreams.push(made.clone());
    made
}

impl Place {
    fn of(parsed: &UpstreamUrl, scheme: Scheme) -> Place {
        let unix = parsed.host.starts_with(b"unix:");
        let host = if unix { b"localhost".to_vec() } else { parsed.authority.to_vec() };
        let port =
            if unix { Vec::new() } else { parsed.port.unwrap_or(scheme.port()).to_string().into_bytes() };
        Place { named: Arc::new(Named { host, port }), uri: uri_of(&parsed.uri) }
    }
}

/// A URI part starts with a slash, also when only arguments were given.
fn uri_of(uri: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(uri.len() + 1);
    if uri.starts_with(b"?") {
        whole.push(b'/');
    }
    whole.extend_from_slice(uri);
    whole
}

/// A location's way of passing requests on.
pub struct Pass {
    target: Target,
    settings: Arc<Settings>,
    /// How TLS is spoken, where it is.
    tls: Option<Arc<UpstreamTls>>,
    /// The prefix that the target's URI replaces.
    location: BString,
    method: Option<Template>,
    version: HttpVersion,
    /// `proxy_set_header`.
    headers: Arc<SetHeaders>,
    /// Does the configuration leave upgrades alone, so that they just work?
    upgrades: bool,
    /// Does the configuration set `Content-Length`, `Transfer-Encoding`?
    own_length: bool,
    own_encoding: bool,
    body: Option<Template>,
    /// Headers of the response that are not passed on, in lower case, besides those that never are.
    hidden: Box<[Vec<u8>]>,
    /// Those that are passed on though they never are, in lower case.
    passed: Box<[Vec<u8>]>,
    redirects: Arc<[Rewrite]>,
    cookie_domains: Vec<Option<Rewrite>>,
    cookie_paths: Vec<Option<Rewrite>>,
    cookie_flags: Vec<super::CookieFlags>,
}

/// The step; shares what it knows with the calls it makes.
pub struct ProxyStep(pub Arc<Pass>);

impl Pass {
    /// Prepares what can be prepared.
    pub fn new(
        conf: &Conf,
        settings: Arc<Settings>,
        tls: Option<Arc<UpstreamTls>>,
        target: Target,
        text: &BStr,
        location: BString,
    ) -> Pass {
        let sets = |name: &str| {
            conf.set_header.others.iter().any(|(set, _)| set.eq_ignore_ascii_case(name.as_bytes()))
        };
        let lower = |names: &[BString]| -> Vec<Vec<u8>> {
            names.iter().map(|name| name.to_ascii_lowercase()).collect()
        };
        let passed = lower(&settings.pass_header);
        let hidden = lower(&settings.hide_header).into_iter().filter(|name| !passed.contains(name)).collect();
        let redirects = redirects(&conf.redirect, &target, text, location.as_ref());
        Pass {
            method: (*conf.method).clone(),
            version: *conf.http_version,
            headers: Arc::clone(&conf.set_header),
            upgrades: !sets("upgrade") && !sets("connection") && *conf.http_version == HttpVersion::Http11,
            own_length: sets("content-length"),
            own_encoding: sets("transfer-encoding"),
            body: (*conf.set_body).clone(),
            hidden,
            passed: passed.into(),
            redirects,
            cookie_domains: conf.cookie_domain.to_vec(),
            cookie_paths: conf.cookie_path.to_vec(),
            cookie_flags: conf.cookie_flags.to_vec(),
            target,
            settings,
            tls,
            location,
        }
    }

    /// Where this request goes; with variables, the host is only known now.
    fn place(&self, request: &mut Request) -> Result<(Destination, Arc<Place>, bool, Scheme), Status> {
        let template = match &self.target {
            Target::Constant { upstream, place, scheme, .. } => {
                return Ok((Destination::Group(upstream.clone()), place.clone(), false, *scheme));
            }
            Target::Variable(template) => template,
        };
        let text = request.render(template);
        let split = split_scheme(&text).ok();
        let parsed = split.and_then(|(rest, scheme)| Some((url::parse(rest).ok()?, scheme)));
        let Some((parsed, scheme)) = parsed else {
            let text = text.as_bstr();
            request.log_error(conf::Level::Error, format_args!("invalid URL prefix in \"{text}\""));
            return Err(Status::INTERNAL_SERVER_ERROR);
        };
        let place = Arc::new(Place::of(&parsed, scheme));
        let group = request.snapshot.upstreams.named(&parsed.host).filter(|upstream| !upstream.implicit);
        let destination = match group {
            Some(upstream) if parsed.port.is_none() => Destination::Group(upstream.clone()),
            _ => Destination::Host { host: parsed.host, port: parsed.port.unwrap_or(scheme.port()) },
        };
        Ok((destination, place, true, scheme))
    }

    /// The request target for the upstream (`ngx_http_proxy_create_request`).
    fn uri(&self, request: &Request, place_uri: &[u8], variable: bool, out: &mut Vec<u8>) {
        if variable && !place_uri.is_empty() {
            out.extend_from_slice(place_uri);
            return;
        }
        if place_uri.is_empty() && request.uri_as_sent {
            out.extend_from_slice(request.head.target());
            return;
        }
        let replaces = request.prefix_valid && !place_uri.is_empty();
        let skip = if replaces { self.location.len().min(request.uri.len()) } else { 0 };
        if replaces {
            out.extend_from_slice(place_uri);
        }
        let rest = &request.uri[skip..];
        if request.internal || request.head.parts.quoted || !request.uri_as_sent {
            escape_uri(Escape::Uri, rest, out);
        } else {
            out.extend_from_slice(rest);
        }
        if !request.args.is_empty() {
            out.push(b'?');
            out.extend_from_slice(&request.args);
        }
    }
}

fn redirects(lines: &[RedirectLine], target: &Target, text: &BStr, location: &BStr) -> Arc<[Rewrite]> {
    let default = || match target {
        Target::Variable(_) => Arc::from([]),
        Target::Constant { redirect: Some(redirect), .. } => redirect.clone(),
        Target::Constant { .. } => Arc::from([Rewrite::prefix(text, location)]),
    };
    if lines.is_empty() {
        return default();
    }
    let mut made = Vec::new();
    for line in lines {
        match line {
            RedirectLine::Off => {}
            RedirectLine::Default => made.extend_from_slice(&default()),
            RedirectLine::Rewrite(rewrite) => made.push(rewrite.clone()),
        }
    }
    made.into()
}

impl Step for ProxyStep {
    fn run(&self, request: &mut Request) -> Flow {
        let (destination, place, variable, scheme) = match self.0.place(request) {
            Ok(found) => found,
            Err(status) => return Flow::Deny(status),
        };
        request.passed_to = Some(place.named.clone());
        let mut target = request.thread.spare.buffer();
        self.0.uri(request, &place.uri, variable, &mut target);
        if target.is_empty() {
            request.log_error(conf::Level::Error, format_args!("zero length URI to proxy"));
            return Flow::Deny(Status::INTERNAL_SERVER_ERROR);
        }
        if target.starts_with(b"?") {
            target.insert(0, b'/');
        }
        Flow::Forward(Box::new(Call {
            destination,
            settings: self.0.settings.clone(),
            protocol: self.0.clone(),
            target,
            tls: self.0.tls.clone().filter(|_| scheme == Scheme::Https),
        }))
    }
}

impl Protocol for Pass {
    fn request(&self, request: &mut Request, call: &Call, out: &mut Vec<u8>) -> Result<BodyFraming, Status> {
        self.method_line(request, call, out);
        self.host_line(request, out);
        let framing = self.framing(request);
        for (name, template) in &self.headers.others {
            let before = out.len();
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            let value = out.len();
            request.render_into(template, out);
            if out.len() == value {
                out.truncate(before);
                continue;
            }
            out.extend_from_slice(b"\r\n");
        }
        self.length_lines(request, framing, out);
        self.upgrade_lines(request, out);
        if self.settings.pass_request_headers.0 {
            for (name, value) in request.head.fields.iter() {
                if self.drops(name) {
                    continue;
                }
                encode_field(name, value, out);
            }
        }
        out.extend_from_slice(b"\r\n");
        Ok(framing)
    }

    fn body(&self, request: &mut Request) -> Option<Vec<u8>> {
        self.body.as_ref().map(|body| request.render(body))
    }

    fn response_header(&self, request: &mut Request, name: &[u8], value: &[u8]) -> bool {
        if name.eq_ignore_ascii_case(b"location") {
            let replaced = self.redirects.iter().find_map(|rewrite| rewrite.apply_to_prefix(request, value));
            request.response.location = replaced.unwrap_or_else(|| value.to_vec());
            return true;
        }
        if name.eq_ignore_ascii_case(b"refresh") {
            let at = value.find(b"url=").or_else(|| value.find(b"URL=")).map(|at| at + 4);
            let replaced = at.and_then(|at| {
                let tail = self
                    .redirects
                    .iter()
                    .find_map(|rewrite| rewrite.apply_to_prefix(request, &value[at..]))?;
                Some([&value[..at], &tail].concat())
            });
            request.response.fields.push(name, replaced.as_deref().unwrap_or(value));
            return true;
        }
        let rewrites =
            !self.cookie_domains.is_empty() || !self.cookie_paths.is_empty() || !self.cookie_flags.is_empty();
        if rewrites && name.eq_ignore_ascii_case(b"set-cookie") {
            let made = cookie(request, value, &self.cookie_domains, &self.cookie_paths, &self.cookie_flags);
            request.response.fields.push(name, made.as_deref().unwrap_or(value));
            return true;
        }
        false
    }

    fn temporary_folder(&self) -> &'static str {
        "proxy_temp"
    }

    fn hides(&self, name: &[u8]) -> bool {
        let is = |known: &&str| known.as_bytes() == name;
        self.hidden.iter().any(|hidden| hidden == name)
            || HIDDEN_HEADERS.iter().any(is) && !self.passed.iter().any(|passed| passed == name)
    }
}

impl Pass {
    /// Is this header of the client not passed on?
    fn drops(&self, name: &[u8]) -> bool {
        DEFAULT_HEADERS.iter().any(|dropped| dropped.as_bytes().eq_ignore_ascii_case(name))
            || self.headers.others.iter().any(|(set, _)| set.eq_ignore_ascii_case(name))
    }

    fn method_line(&self, request: &mut Request, call: &Call, out: &mut Vec<u8>) {
        match &self.method {
            Some(method) => request.render_into(method, out),
            None => out.extend_from_slice(request.method.name(&request.head)),
        }
        out.push(b' ');
        out.extend_from_slice(&call.target);
        out.extend_from_slice(match self.version {
            HttpVersion::Http10 => b" HTTP/1.0\r\n",
            HttpVersion::Http11 => b" HTTP/1.1\r\n",
        });
    }

    fn host_line(&self, request: &mut Request, out: &mut Vec<u8>) {
        let before = out.len();
        out.extend_from_slice(b"Host: ");
        let value = out.len();
        if let Some(template) = &self.headers.host {
            request.render_into(template, out);
        }
        // HTTP/1.1 needs a Host: an empty one set for it falls back to the upstream's name.
        if out.len() == value && (self.headers.host.is_none() || self.version == HttpVersion::Http11) {
            out.extend_from_slice(request.passed_to.as_ref().map_or(&b""[..], |named| &named.host));
        }
        if out.len() == value {
            out.truncate(before);
        } else {
            out.extend_from_slice(b"\r\n");
        }
    }

    fn framing(&self, request: &Request) -> BodyFraming {
        if !self.settings.pass_request_body.0 && self.body.is_none() {
            return BodyFraming::None;
        }
        if self.body.is_some() {
            return BodyFraming::Length;
        }
        match (request.body.read, request.body.length) {
            (true, Some(0)) => BodyFraming::None,
            (true, _) => {
                if request.body.received > 0 {
                    BodyFraming::Length
                } else {
                    BodyFraming::None
                }
            }
            (false, Some(0)) => BodyFraming::None,
            (false, Some(_)) => BodyFraming::Length,
            (false, None) => BodyFraming::Chunked,
        }
    }

    fn length_lines(&self, request: &mut Request, framing: BodyFraming, out: &mut Vec<u8>) {
        let length = match (framing, &self.body) {
            (_, Some(body)) => Some(request.render(body).len() as u64),
            (BodyFraming::Chunked, None) => None,
            (_, None) if request.body.read && request.body.length.is_none() => Some(request.body.received),
            (_, None) => request.head.fields.get(b"Content-Length").and(request.body.length),
        };
        if let Some(length) = length.filter(|_| !self.own_length) {
            out.extend_from_slice(b"Content-Length: ");
            encode_number(length, 1, out);
            out.extend_from_slice(b"\r\n");
        }
        if framing == BodyFraming::Chunked && !self.own_encoding {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
    }

    /// A client's wish to upgrade goes on when the configuration says nothing about it.
    fn upgrade_lines(&self, request: &Request, out: &mut Vec<u8>) {
        let Some(protocol) = request.head.fields.get(b"Upgrade").filter(|_| self.upgrades) else { return };
        let connection = request.head.fields.get(b"Connection").unwrap_or_default();
        let asks =
            connection.split(|byte| *byte == b',').any(|word| word.trim().eq_ignore_ascii_case(b"upgrade"));
        if asks {
            encode_field(b"Upgrade", protocol, out);
            out.extend_from_slice(b"Connection: upgrade\r\n");
        }
    }
}
