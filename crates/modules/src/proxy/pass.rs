//! The step that passes requests on, and the request it writes.

use super::rewrites::{Rewrite, cookie};
use super::{Conf, HttpVersion, RedirectLine};
use crate::passing::{Hidden, SetHeaders, Target, write_pseudo_fields, write_uri};
use bstr::{BStr, BString, ByteSlice};
use engine::Request;
use engine::flow::{Flow, Step};
use engine::module::Build;
use engine::upstream::tls::UpstreamTls;
use engine::upstream::{BodyFraming, Call, Protocol, Settings};
use http::response::{encode_field, encode_number};
use http::{Fields, Status};
use schema::hash::QuickMap;
use std::sync::Arc;
use template::Template;

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
    hidden: Hidden,
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
        default_redirect: Arc<[Rewrite]>,
        location: BString,
    ) -> Pass {
        let sets = |name: &str| conf.set_header.sets(name);
        Pass {
            method: (*conf.method).clone(),
            version: *conf.http_version,
            headers: Arc::clone(&conf.set_header),
            upgrades: !sets("upgrade") && !sets("connection") && *conf.http_version == HttpVersion::Http11,
            own_length: sets("content-length"),
            own_encoding: sets("transfer-encoding"),
            body: (*conf.set_body).clone(),
            hidden: Hidden::new(&settings),
            redirects: redirects(&conf.redirect, default_redirect),
            cookie_domains: conf.cookie_domain.to_vec(),
            cookie_paths: conf.cookie_path.to_vec(),
            cookie_flags: conf.cookie_flags.to_vec(),
            target,
            settings,
            tls,
            location,
        }
    }
}

/// What `proxy_redirect default` does: one list for all locations that lead to the same place.
pub fn default_redirect(target: &Target, text: &BStr, location: &BStr, build: &mut Build) -> Arc<[Rewrite]> {
    match target {
        Target::Variable(..) => Arc::from([]),
        Target::Constant { place, .. } if place.uri.is_empty() => {
            let known = &mut build.shared::<Known>().0;
            let made = known
                .entry(text.to_owned())
                .or_insert_with(|| Arc::from([Rewrite::prefix(&[text.as_bytes(), b"/"].concat(), b"/")]));
            made.clone()
        }
        Target::Constant { .. } => Arc::from([Rewrite::prefix(text, location)]),
    }
}

/// Default redirects by the text of their `proxy_pass`.
#[derive(Default)]
struct Known(QuickMap<BString, Arc<[Rewrite]>>);

fn redirects(lines: &[RedirectLine], default: Arc<[Rewrite]>) -> Arc<[Rewrite]> {
    if lines.is_empty() {
        return default;
    }
    let mut made = Vec::new();
    for line in lines {
        match line {
            RedirectLine::Off => {}
            RedirectLine::Default => made.extend_from_slice(&default),
            RedirectLine::Rewrite(rewrite) => made.push(rewrite.clone()),
        }
    }
    made.into()
}

impl Step for ProxyStep {
    fn run(&self, request: &mut Request) -> Flow {
        let found = match self.0.target.find(request) {
            Ok(found) => found,
            Err(status) => return Flow::Deny(status),
        };
        let mut target = request.thread.spare.buffer();
        if found.variable && !found.place.uri.is_empty() {
            target.extend_from_slice(&found.place.uri);
        } else {
            write_uri(request, &found.place.uri, self.0.location.len(), &mut target);
        }
        if target.is_empty() {
            request.log_error(conf::Level::Error, format_args!("zero length URI to proxy"));
            return Flow::Deny(Status::INTERNAL_SERVER_ERROR);
        }
        if target.starts_with(b"?") {
            target.insert(0, b'/');
        }
        found.forward(self.0.clone(), self.0.settings.clone(), self.0.tls.as_ref(), target)
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
                if self.headers.drops(name) {
                    continue;
                }
                encode_field(name, value, out);
            }
        }
        out.extend_from_slice(b"\r\n");
        Ok(framing)
    }

    fn http2(&self) -> bool {
        self.version == HttpVersion::Http2
    }

    fn request_fields(
        &self,
        request: &mut Request,
        call: &Call,
        out: &mut Fields,
    ) -> Result<BodyFraming, Status> {
        let method = self.method.as_ref().map(|method| request.render(method));
        let framing = self.framing(request);
        let length = self.length(request, framing).filter(|_| !self.own_length);
        write_pseudo_fields(request, call, method, self.headers.host.as_ref(), out);
        self.headers.write_fields(request, out);
        if let Some(length) = length {
            out.push_with(b"content-length", |out| encode_number(length, 1, out));
        }
        if self.settings.pass_request_headers.0 {
            self.headers.pass_fields(request, out);
        }
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
        self.hidden.hides(name, &["x-pad"])
    }
}

impl Pass {
    fn method_line(&self, request: &mut Request, call: &Call, out: &mut Vec<u8>) {
        match &self.method {
            Some(method) => request.render_into(method, out),
            None => out.extend_from_slice(request.method.name(&request.head)),
        }
        out.push(b' ');
        out.extend_from_slice(&call.target);
        out.extend_from_slice(match self.version {
            HttpVersion::Http10 => b" HTTP/1.0\r\n",
            HttpVersion::Http11 | HttpVersion::Http2 => b" HTTP/1.1\r\n",
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

    /// The length that the upstream is told.
    fn length(&self, request: &mut Request, framing: BodyFraming) -> Option<u64> {
        match (framing, &self.body) {
            (_, Some(body)) => Some(request.render(body).len() as u64),
            (BodyFraming::Chunked, None) => None,
            (_, None) if request.body.read && request.body.length.is_none() => Some(request.body.received),
            (_, None) => request.head.fields.get(b"Content-Length").and(request.body.length),
        }
    }

    fn length_lines(&self, request: &mut Request, framing: BodyFraming, out: &mut Vec<u8>) {
        let length = self.length(request, framing);
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
