//! What modules that pass requests on have in common: where a pass leads, which headers of the request are set or
//! dropped, and which of the response are hidden.

use bstr::{BStr, BString, ByteSlice};
use conf::Node;
use engine::Request;
use engine::flow::Flow;
use engine::module::Build;
use engine::upstream::keepalive::Keepalive;
use engine::upstream::tls::UpstreamTls;
use engine::upstream::url::{self, UpstreamUrl};
use engine::upstream::{Call, Destination, Named, Protocol, Settings, Upstream};
use http::escape::{Escape, escape_uri};
use http::{Fields, Status};
use schema::hash::QuickMap;
use schema::value::argument;
use schema::{Inherit, Problem};
use std::sync::Arc;
use template::Template;

/// Headers that are about the client's connection, or written anew.
const DROPPED_HEADERS: [&str; 9] = [
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

/// Headers of the response that are not passed on unless the configuration says so.
const HIDDEN_HEADERS: [&str; 7] = [
    "date",
    "server",
    "x-accel-expires",
    "x-accel-redirect",
    "x-accel-limit-rate",
    "x-accel-buffering",
    "x-accel-charset",
];

/// How an upstream is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP as it is.
    Http,
    /// HTTP over TLS.
    Https,
    /// gRPC as it is.
    Grpc,
    /// gRPC over TLS.
    Grpcs,
}

impl Scheme {
    /// The port where none is written; 0: there must be one.
    fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
            Scheme::Grpc | Scheme::Grpcs => 0,
        }
    }

    /// As it is written before an address.
    pub fn text(self) -> &'static str {
        match self {
            Scheme::Http => "http://",
            Scheme::Https => "https://",
            Scheme::Grpc => "grpc://",
            Scheme::Grpcs => "grpcs://",
        }
    }

    /// Over TLS?
    pub fn is_secure(self) -> bool {
        matches!(self, Scheme::Https | Scheme::Grpcs)
    }
}

/// The schemes that a directive takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schemes {
    /// `http://` and `https://`, one of which must be there.
    Http,
    /// `grpc://`, which may be left out, and `grpcs://`.
    Grpc,
}

impl Schemes {
    /// Takes the scheme off an address.
    fn split(self, text: &[u8]) -> Result<(&[u8], Scheme), Problem> {
        let candidates = match self {
            Schemes::Http => [Scheme::Http, Scheme::Https],
            Schemes::Grpc => [Scheme::Grpc, Scheme::Grpcs],
        };
        for scheme in candidates {
            let prefix = scheme.text().as_bytes();
            if let Some((start, rest)) = text.split_at_checked(prefix.len())
                && start.eq_ignore_ascii_case(prefix)
            {
                return Ok((rest, scheme));
            }
        }
        match self {
            Schemes::Grpc => Ok((text, Scheme::Grpc)),
            Schemes::Http => Err(Problem::new("invalid URL prefix")
                .help("an upstream's address starts with http:// or https://")),
        }
    }

    fn parse(self, text: &[u8]) -> Result<(UpstreamUrl, Scheme), Problem> {
        let (rest, scheme) = self.split(text)?;
        let parsed = match url::parse(rest) {
            // There is no URI to replace a location's prefix with.
            Ok(parsed) if self == Schemes::Grpc && !parsed.uri.is_empty() => Err("invalid host"),
            parsed => parsed,
        };
        parsed
            .map(|url| (url, scheme))
            .map_err(|why| Problem::new(format!("{why} in upstream \"{}\"", rest.as_bstr())))
    }
}

/// Where a pass leads.
#[derive(Clone)]
pub enum Target {
    /// Known when the configuration is read.
    Constant {
        /// The group.
        upstream: Arc<Upstream>,
        /// Its name and URI.
        place: Arc<Place>,
        /// How it is spoken to.
        scheme: Scheme,
    },
    /// Known when the request comes.
    Variable(Template, Schemes),
}

/// Host, port and URI of a target.
#[derive(Default)]
pub struct Place {
    /// What `Host` says and `$proxy_host` is, and `$proxy_port`.
    pub named: Arc<Named>,
    /// What replaces the location's prefix; empty: the URI goes on as it came.
    pub uri: Vec<u8>,
}

/// Where one request goes.
pub struct Found {
    /// To whom.
    pub destination: Destination,
    /// Under which name.
    pub place: Arc<Place>,
    /// Did variables say so?
    pub variable: bool,
    /// How it is spoken to.
    pub scheme: Scheme,
}

impl Found {
    /// Passes a request on to there, in this way, for this target.
    pub fn forward(
        self,
        protocol: Arc<dyn Protocol>,
        settings: Arc<Settings>,
        tls: Option<&Arc<UpstreamTls>>,
        target: Vec<u8>,
    ) -> Flow {
        Flow::Forward(Box::new(Call {
            destination: self.destination,
            settings,
            protocol,
            target,
            scheme: self.scheme.text(),
            tls: tls.filter(|_| self.scheme.is_secure()).cloned(),
        }))
    }
}

/// What is known of addresses without variables by their text: a large configuration has few different ones.
#[derive(Default)]
struct Known {
    /// Those that are right, and whether they have a URI part.
    has_uri: QuickMap<BString, bool>,
    targets: QuickMap<BString, Target>,
}

/// Has the address of a pass without variables a URI part?
///
/// # Errors
/// The address is wrong, in nginx's words.
pub fn has_uri(text: &BString, schemes: Schemes, build: &mut Build) -> Result<bool, Problem> {
    if let Some(known) = build.shared::<Known>().has_uri.get(text) {
        return Ok(*known);
    }
    let has_uri = !schemes.parse(text)?.0.uri.is_empty();
    build.shared::<Known>().has_uri.insert(text.clone(), has_uri);
    Ok(has_uri)
}

impl Target {
    /// May it be spoken to over TLS?
    pub fn may_be_secure(&self) -> bool {
        match self {
            Target::Constant { scheme, .. } => scheme.is_secure(),
            Target::Variable(..) => true,
        }
    }

    /// The target of a constant pass; a host that no `upstream` block has becomes a group of its own.
    ///
    /// # Errors
    /// As nginx.
    pub fn constant(text: &BStr, schemes: Schemes, build: &mut Build) -> Result<Target, Problem> {
        if let Some(known) = build.shared::<Known>().targets.get(text) {
            return Ok(known.clone());
        }
        let (parsed, scheme) = schemes.parse(text)?;
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
            None => implicit(&parsed, scheme, build)?,
        };
        let made = Target::Constant { upstream, place, scheme };
        build.shared::<Known>().targets.insert(text.to_owned(), made.clone());
        Ok(made)
    }

    /// Where this request goes, which variables show from now on.
    ///
    /// # Errors
    /// The status to end with where variables name no address.
    pub fn find(&self, request: &mut Request) -> Result<Found, Status> {
        let found = self.look_up(request)?;
        request.passed_to = Some(found.place.named.clone());
        Ok(found)
    }

    /// With variables, the host is only known now.
    fn look_up(&self, request: &mut Request) -> Result<Found, Status> {
        let (template, schemes) = match self {
            Target::Constant { upstream, place, scheme } => {
                let destination = Destination::Group(upstream.clone());
                return Ok(Found { destination, place: place.clone(), variable: false, scheme: *scheme });
            }
            Target::Variable(template, schemes) => (template, *schemes),
        };
        let text = request.render(template);
        let Ok((parsed, scheme)) = schemes.parse(&text) else {
            let text = text.as_bstr();
            request.log_error(conf::Level::Error, format_args!("invalid URL prefix in \"{text}\""));
            return Err(Status::INTERNAL_SERVER_ERROR);
        };
        let place = Arc::new(Place::of(&parsed, scheme));
        let group = request.snapshot.upstreams.named(&parsed.host).filter(|upstream| !upstream.implicit);
        let destination = match group {
            Some(upstream) if parsed.port.is_none() => Destination::Group(upstream.clone()),
            _ => {
                let port = parsed.port.unwrap_or(scheme.port());
                if port == 0 && !parsed.host.starts_with(b"unix:") {
                    let host = &parsed.host;
                    request.log_error(conf::Level::Error, format_args!("no port in upstream \"{host}\""));
                    return Err(Status::INTERNAL_SERVER_ERROR);
                }
                Destination::Host { host: parsed.host, port }
            }
        };
        Ok(Found { destination, place, variable: true, scheme })
    }
}

/// The group of one server that stands for an address without an `upstream` block.
fn implicit(parsed: &UpstreamUrl, scheme: Scheme, build: &mut Build) -> Result<Arc<Upstream>, Problem> {
    let port = parsed.port.unwrap_or(scheme.port());
    let name: BString = if parsed.host.starts_with(b"unix:") {
        parsed.host.clone()
    } else if port == 0 {
        return Err(Problem::new(format!("no port in upstream \"{}\"", parsed.host)));
    } else {
        format!("{}:{port}", parsed.host).into()
    };
    if let Some(known) = build.upstream(&name) {
        return Ok(known);
    }
    let server = crate::upstream::server_at(parsed, scheme.port(), balance::Peer::new(name.clone()), false);
    let made = Upstream::new(name, vec![server], Default::default(), Keepalive::default(), None, true);
    let made = Arc::new(made);
    build.upstreams.push(made.clone());
    Ok(made)
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

/// The lines of `proxy_set_header`, or its kin, that hold in a block.
#[derive(Clone, Default)]
pub struct SetHeaders {
    /// What `Host` becomes.
    pub host: Option<Template>,
    /// The other headers, in order.
    pub others: Vec<(BString, Template)>,
}

impl SetHeaders {
    /// Reads one line.
    ///
    /// # Errors
    /// The value is no text with variables.
    pub fn read(cell: &mut Inherit<Arc<SetHeaders>>, node: &Node, build: &mut Build) -> Result<(), Problem> {
        let (name, value) = (argument(node, 0)?, argument(node, 1)?);
        let template = build.template(value.text.as_ref()).map_err(|problem| problem.on(value))?;
        let headers = Arc::make_mut(cell.fill(node.name.span, Arc::default));
        if name.text.eq_ignore_ascii_case(b"host") {
            headers.host.get_or_insert(template);
        } else {
            headers.others.reserve_exact(1);
            headers.others.push((name.text.clone(), template));
        }
        Ok(())
    }

    /// Is the header of that name set?
    pub fn sets(&self, name: &str) -> bool {
        self.others.iter().any(|(set, _)| set.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// Appends the headers set to what an upstream of HTTP/2 gets; those without a value are left out.
    pub fn write_fields(&self, request: &mut Request, out: &mut Fields) {
        for (name, template) in &self.others {
            let value = request.render(template);
            if !value.is_empty() {
                out.push(name, &value);
            }
        }
    }

    /// Appends the client's headers that go on to an upstream of HTTP/2.
    pub fn pass_fields(&self, request: &Request, out: &mut Fields) {
        for (name, value) in request.head.fields.iter().filter(|(name, _)| !self.drops(name)) {
            out.push(name, value);
        }
    }

    /// Is this header of the client not passed on?
    pub fn drops(&self, name: &[u8]) -> bool {
        DROPPED_HEADERS.iter().any(|dropped| dropped.as_bytes().eq_ignore_ascii_case(name))
            || self.others.iter().any(|(set, _)| set.eq_ignore_ascii_case(name))
    }
}

/// Appends the pseudo-header fields of a request to an upstream of HTTP/2. `host` is what the configuration sets for `Host`.
pub fn write_pseudo_fields(
    request: &mut Request,
    call: &Call,
    method: Option<Vec<u8>>,
    host: Option<&Template>,
    out: &mut Fields,
) {
    match &method {
        Some(method) => out.push(b":method", method),
        None => out.push(b":method", request.method.name(&request.head)),
    }
    out.push(b":scheme", if call.tls.is_some() { b"https" } else { b"http" });
    out.push(b":path", &call.target);
    let host = host.map(|template| request.render(template)).filter(|host| !host.is_empty());
    match (&host, &request.passed_to) {
        (Some(host), _) => out.push(b":authority", host),
        (None, Some(named)) => out.push(b":authority", &named.host),
        (None, None) => {}
    }
}

/// Appends the request target for the upstream: the URI as the client sent it where nothing changed it; with
/// `place_uri` in place of the location's name, so many bytes, where a pass has a URI part.
pub fn write_uri(request: &Request, place_uri: &[u8], location_bytes: usize, out: &mut Vec<u8>) {
    if place_uri.is_empty() && request.uri_as_sent {
        out.extend_from_slice(request.head.target());
        return;
    }
    let replaces = request.prefix_valid && !place_uri.is_empty();
    let skip = if replaces { location_bytes.min(request.uri.len()) } else { 0 };
    if replaces {
        out.extend_from_slice(place_uri);
    }
    let rest = request.uri.get(skip..).unwrap_or_default();
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

/// Headers of the response that are not passed on.
pub struct Hidden {
    /// In lower case, besides those that never are.
    hidden: Box<[Vec<u8>]>,
    /// Those that are passed on though they never are, in lower case.
    passed: Box<[Vec<u8>]>,
}

impl Hidden {
    /// What a location says.
    pub fn new(settings: &Settings) -> Hidden {
        let lower = |names: &[BString]| -> Vec<Vec<u8>> {
            names.iter().map(|name| name.to_ascii_lowercase()).collect()
        };
        let passed = lower(&settings.pass_header);
        let hidden = lower(&settings.hide_header).into_iter().filter(|name| !passed.contains(name)).collect();
        Hidden { hidden, passed: passed.into() }
    }

    /// Is this header, in lower case, hidden, where `more` are besides those of all?
    pub fn hides(&self, name: &[u8], more: &[&str]) -> bool {
        let is = |known: &&str| known.as_bytes() == name;
        let usually = || HIDDEN_HEADERS.iter().any(is) || more.iter().any(is);
        self.hidden.iter().any(|hidden| hidden == name)
            || usually() && !self.passed.iter().any(|passed| passed == name)
    }
}
