//! A request head out of a field list, as HTTP/2 sends it: pseudo-header fields first, then fields in lowercase.
//!
//! What RFC 9113, section 8 calls malformed is refused in nginx's words; where nginx lets something through that the
//! RFC does not, the RFC wins. The first offence counts, and the rest of the list is not looked at.

use super::{HeadOptions, Refusal, RequestHead, parse_length};
use crate::fields::Span;
use crate::host::normalise_host;
use crate::known::Known;
use crate::method::Method;
use crate::request_line::Version;
use crate::status::Status;
use crate::uri::normalise;

/// Takes the fields of one list, in order.
pub(crate) struct FieldsReader<'h> {
    head: &'h mut RequestHead,
    options: &'h HeadOptions,
    pseudo: Pseudo,
    refusal: Option<Refusal>,
    /// A field that is no pseudo-header field has come.
    in_fields: bool,
    has_te: bool,
    has_crumbs: bool,
    count: usize,
    /// The target is one that only this server does not like.
    strange_target: bool,
    /// A plain CONNECT with a scheme or path (RFC 9113, section 8.5).
    broken_connect: bool,
}

/// Pseudo-header fields as places in the head's text.
#[derive(Default)]
struct Pseudo {
    method: Option<Span>,
    scheme: Option<Span>,
    path: Option<Span>,
    authority: Option<Span>,
    protocol: Option<Span>,
}

impl Refusal {
    fn malformed(message: impl Into<Vec<u8>>) -> Refusal {
        Refusal::owned(Status::BAD_REQUEST, message.into())
    }
}

fn quoted(before: &str, text: &[u8], after: &str) -> Refusal {
    Refusal::malformed([before.as_bytes(), text, after.as_bytes()].concat())
}

impl<'h> FieldsReader<'h> {
    /// Begins a head; `head` must be clear.
    pub fn new(head: &'h mut RequestHead, options: &'h HeadOptions) -> FieldsReader<'h> {
        FieldsReader {
            head,
            options,
            pseudo: Pseudo::default(),
            refusal: None,
            in_fields: false,
            has_te: false,
            has_crumbs: false,
            count: 0,
            strange_target: false,
            broken_connect: false,
        }
    }

    /// Takes one field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        if self.refusal.is_none() {
            self.refusal = self.take(name, value).err();
        }
    }

    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        let unusual = check_field(name, value, self.options.underscores_in_headers)?;
        if let Some(pseudo) = name.strip_prefix(b":") {
            return self.pseudo_field(pseudo, value);
        }
        self.in_fields = true;
        if unusual && self.options.ignore_invalid_headers {
            if self.head.ignored.len() < self.options.fields_max {
                let name = self.head.fields.append_text(name);
                self.head.ignored.push(name);
            }
            return Ok(());
        }
        if name == b"cookie" {
            let separator: &[u8] = if self.has_crumbs { b"; " } else { b"" };
            self.has_crumbs = true;
            self.head.crumbs.extend_from_slice(separator);
            self.head.crumbs.extend_from_slice(value);
            return Ok(());
        }
        if self.count >= self.options.fields_max {
            return Err(Refusal {
                lingering: true,
                ..Refusal::new(Status::REQUEST_HEADER_TOO_LARGE, "client sent too many header lines")
            });
        }
        self.count += 1;
        self.connection_specific(name, value)?;
        let index = self.head.fields.len();
        self.head.fields.push(name, value);
        match Known::of(name) {
            Some(known) => self.known(known, value, index),
            None => Ok(()),
        }
    }

    fn known(&mut self, known: Known, value: &[u8], index: usize) -> Result<(), Refusal> {
        if let Some(previous) = self.head.seen.mark(known, index) {
            let what = if known == Known::Host { "host header" } else { "header line" };
            let mut message = Vec::from(format!("client sent duplicate {what}: \""));
            let shown = [self.head.fields.at(index), self.head.fields.at(previous)];
            for (place, field) in shown.into_iter().enumerate() {
                let (name, value) = field.unwrap_or_default();
                let before: &[u8] = if place == 0 { b"" } else { b"\", previous value: \"" };
                message.extend_from_slice(&[before, name, b": ", value].concat());
            }
            message.push(b'"');
            return Err(Refusal::malformed(message));
        }
        match known {
            Known::Host if self.pseudo.authority.is_none() => {
                self.head.port = normalise_host(value, &mut self.head.host)
                    .map_err(|_| Refusal::malformed("client sent invalid host header"))?;
            }
            Known::ContentLength => {
                self.head.content_length =
                    Some(parse_length(value).ok_or_else(|| {
                        Refusal::malformed("client sent invalid \"Content-Length\" header")
                    })?);
            }
            _ => {}
        }
        Ok(())
    }

    /// Fields that are about an HTTP/1 connection (RFC 9113, section 8.2.2).
    fn connection_specific(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        let shown = match name {
            b"connection" => "Connection",
            b"keep-alive" => "Keep-Alive",
            b"proxy-connection" => "Proxy-Connection",
            b"transfer-encoding" => "Transfer-Encoding",
            b"upgrade" => "Upgrade",
            b"te" => {
                let repeated = std::mem::replace(&mut self.has_te, true);
                if repeated || !value.eq_ignore_ascii_case(b"trailers") {
                    return Err(Refusal::malformed("client sent invalid \"TE\" header"));
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        Err(Refusal::malformed(format!("client sent \"{shown}\" header")))
    }

    fn pseudo_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        if self.in_fields {
            return Err(Refusal::malformed("client sent out of order pseudo-headers"));
        }
        let (slot, shown) = match name {
            b"method" => (&mut self.pseudo.method, ":method"),
            b"scheme" => (&mut self.pseudo.scheme, ":scheme"),
            b"path" => (&mut self.pseudo.path, ":path"),
            b"authority" => (&mut self.pseudo.authority, "\":authority\""),
            b"protocol" if self.options.allow_extended_connect => (&mut self.pseudo.protocol, ":protocol"),
            _ => return Err(quoted("client sent unknown pseudo-header \":", name, "\"")),
        };
        if slot.is_some() {
            return Err(Refusal::malformed(format!("client sent duplicate {shown} header")));
        }
        if value.is_empty() && name != b"authority" {
            return Err(Refusal::malformed(format!("client sent empty {shown} header")));
        }
        *slot = Some(self.head.fields.append_text(value));
        match name {
            b"method" => {
                self.head.method = Method::parse(value);
                let usual = |&byte: &u8| byte.is_ascii_uppercase() || byte == b'_' || byte == b'-';
                if !value.iter().all(usual) {
                    return Err(quoted("client sent invalid method: \"", value, "\""));
                }
            }
            b"scheme" => {
                let usual = |(index, &byte): (usize, &u8)| {
                    byte.is_ascii_alphabetic()
                        || index > 0 && (byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.'))
                };
                if !value.iter().enumerate().all(usual) {
                    return Err(quoted("client sent invalid :scheme header: \"", value, "\""));
                }
            }
            b"path" => {
                let invalid = || quoted("client sent invalid :path header: \"", value, "\"");
                let shape = value.starts_with(b"/") || value == b"*";
                if !shape || value.iter().any(|&byte| byte <= b' ' || byte == 0x7f) {
                    return Err(invalid());
                }
            }
            b"authority" => {
                self.head.port = normalise_host(value, &mut self.head.host)
                    .map_err(|_| Refusal::malformed("client sent invalid \":authority\" header"))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The list is over, and with `ended` the whole message. Returns why the request is refused, and whether that is
    /// because it is malformed (RFC 9113, section 8.1.1).
    pub fn finish(mut self, ended: bool) -> Option<(Refusal, bool)> {
        self.request_line();
        if self.has_crumbs {
            let crumbs = std::mem::take(&mut self.head.crumbs);
            self.head.fields.push(b"cookie", &crumbs);
            self.head.crumbs = crumbs;
        }
        let refusal = self.refusal.take();
        let refusal = refusal.or_else(|| self.judge(ended).err())?;
        let malformed = refusal.status == Status::BAD_REQUEST && !self.strange_target || self.broken_connect;
        Some((refusal, malformed))
    }

    /// The line that HTTP/1 would have had, for `$request`.
    fn request_line(&mut self) {
        let head = &mut *self.head;
        head.version = Version::HTTP_2;
        let place = |span: Option<Span>| span.unwrap_or_default();
        let (method, path) = (place(self.pseudo.method), place(self.pseudo.path));
        if method.is_empty() {
            return;
        }
        let start = head.fields.text().len();
        let written = head.fields.copy_text(method);
        head.fields.append_text(b" ");
        let target = head.fields.copy_text(path);
        head.fields.append_text(b" ");
        let protocol = head.fields.append_text(Version::HTTP_2.name());
        head.line.start = start;
        head.line.method = head.method;
        head.line.method_end = written.end as usize;
        head.line.target = target;
        head.line.protocol = protocol;
        head.line.end = protocol.end as usize;
        head.scan.in_fields = true;
    }

    /// What can be judged only when every field is known (nginx's `ngx_http_v2_run_request`).
    fn judge(&mut self, ended: bool) -> Result<(), Refusal> {
        let head = &mut *self.head;
        let pseudo = &self.pseudo;
        if pseudo.method.is_none() {
            return Err(Refusal::malformed("client sent no :method header"));
        }
        let plain_connect = head.method == Method::Connect && pseudo.protocol.is_none();
        if plain_connect && pseudo.scheme.is_none() && pseudo.path.is_none() {
            if head.host.is_empty() {
                return Err(Refusal::malformed("client sent CONNECT request without :authority header"));
            }
            return Err(Refusal::new(Status::NOT_ALLOWED, "client sent CONNECT method"));
        }
        if plain_connect {
            self.broken_connect = true;
            return Err(Refusal::new(Status::NOT_ALLOWED, "client sent CONNECT method"));
        }
        if pseudo.protocol.is_some() && head.method != Method::Connect {
            return Err(Refusal::malformed("client sent :protocol header without CONNECT method"));
        }
        if pseudo.scheme.is_none() {
            return Err(Refusal::malformed("client sent no :scheme header"));
        }
        let Some(path) = pseudo.path else {
            return Err(Refusal::malformed("client sent no :path header"));
        };
        let target = path.of(head.fields.text());
        if target == b"*" && head.method != Method::Options {
            return Err(quoted("client sent invalid :path header: \"", target, "\""));
        }
        head.parts = match normalise(target, self.options.merge_slashes, &mut head.path) {
            Ok(parts) => parts,
            Err(_) => {
                self.strange_target = true;
                return Err(Refusal::malformed("client sent invalid request"));
            }
        };
        if head.host.is_empty() {
            return Err(Refusal::malformed("client sent neither \":authority\" nor \"Host\" header"));
        }
        self.judge_host()?;
        self.judge_body(ended)
    }

    fn judge_host(&mut self) -> Result<(), Refusal> {
        let head = &mut *self.head;
        let Some(authority) = self.pseudo.authority else { return Ok(()) };
        match head.fields.get(b"host") {
            Some(host) if host != authority.of(head.fields.text()) => Err(Refusal::malformed(
                "client sent \":authority\" and \"Host\" headers with different values",
            )),
            Some(_) => Ok(()),
            None => {
                head.fields.push_copy(b"host", authority);
                Ok(())
            }
        }
    }

    fn judge_body(&mut self, ended: bool) -> Result<(), Refusal> {
        let head = &mut *self.head;
        match head.content_length {
            Some(length) if ended && length > 0 => {
                return Err(Refusal::malformed("client prematurely closed stream"));
            }
            Some(_) => {}
            // The end of the stream ends the body, as the last chunk would.
            None => head.chunked = !ended,
        }
        head.connect_protocol = self.pseudo.protocol.unwrap_or_default();
        match head.method {
            Method::Trace => Err(Refusal::new(Status::NOT_ALLOWED, "client sent TRACE method")),
            _ => Ok(()),
        }
    }
}

/// What RFC 9113, section 8.2.1 demands of every field. True: the name is one that `ignore_invalid_headers` drops.
pub(crate) fn check_field(name: &[u8], value: &[u8], underscores: bool) -> Result<bool, Refusal> {
    let bare = name.strip_prefix(b":").unwrap_or(name);
    let mut unusual = false;
    let mut forbidden = bare.is_empty();
    for &byte in bare {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' => {}
            0..=b' ' | b':' | b'A'..=b'Z' | 0x7f.. => forbidden = true,
            b'_' => unusual |= !underscores,
            _ => unusual = true,
        }
    }
    if forbidden {
        return Err(quoted("client sent invalid header name: \"", name, "\""));
    }
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if memchr::memchr3(b'\r', b'\n', 0, value).is_some() || is_space(value.first()) || is_space(value.last())
    {
        let before = [b"client sent header \"", name, b"\" with invalid value: \""].concat();
        return Err(Refusal::malformed([&before, value, b"\""].concat()));
    }
    Ok(unusual)
}

impl RequestHead {
    /// `:protocol` of an extended CONNECT (RFC 8441); empty: it is none.
    pub fn connect_protocol(&self) -> &[u8] {
        self.connect_protocol.of(self.fields.text())
    }
}
