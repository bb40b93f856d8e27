//! Who may get compressed answers: `gzip_vary`, `gzip_http_version`, `gzip_proxied`, `gzip_disable` (nginx's manual,
//! ngx_http_gzip_module). `gzip` and `gzip_static` ask the same question.

use bstr::ByteSlice;
use conf::Node;
use engine::module::{Install, cells, finish_nothing};
use engine::{Build, Declare, Installer, Module, Request};
use http::{Fields, Version};
use schema::value::Bits;
use schema::{Bitmask, Directive, Flag, Inherit, Problem, field, words};
use std::sync::Arc;
use template::Regex;

#[derive(Default)]
struct Conf {
    vary: Inherit<Flag>,
    http_version: Inherit<HttpVersion>,
    proxied: Inherit<Bitmask<Proxied>>,
    disable: Inherit<Disabled>,
}

words!(HttpVersion { "1.0" => Http10, "1.1" => Http11 });
/// The lowest version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HttpVersion {
    Http10,
    Http11,
}

/// The words of `gzip_proxied`.
#[derive(Debug)]
struct Proxied;

impl Proxied {
    const EXPIRED: u32 = 1 << 1;
    const NO_CACHE: u32 = 1 << 2;
    const NO_STORE: u32 = 1 << 3;
    const PRIVATE: u32 = 1 << 4;
    const NO_LAST_MODIFIED: u32 = 1 << 5;
    const NO_ETAG: u32 = 1 << 6;
    const AUTH: u32 = 1 << 7;
    const ANY: u32 = 1 << 8;
}

impl Bits for Proxied {
    const BITS: &'static [(&'static str, u32)] = &[
        ("off", 1),
        ("expired", Self::EXPIRED),
        ("no-cache", Self::NO_CACHE),
        ("no-store", Self::NO_STORE),
        ("private", Self::PRIVATE),
        ("no_last_modified", Self::NO_LAST_MODIFIED),
        ("no_etag", Self::NO_ETAG),
        ("auth", Self::AUTH),
        ("any", Self::ANY),
    ];
}

/// `gzip_disable`.
#[derive(Clone, Default)]
struct Disabled {
    agents: Vec<Arc<Regex>>,
    msie6: bool,
}

/// What the settings of a location say, kept for its plan where they are not the defaults.
struct Accept {
    /// Answers say that they depend on `Accept-Encoding`.
    vary: bool,
    version_min: Version,
    proxied: u32,
    disabled: Disabled,
}

/// What the defaults of the rows come to.
static DEFAULT: Accept = Accept {
    vary: false,
    version_min: Version::HTTP_11,
    proxied: 0,
    disabled: Disabled { agents: Vec::new(), msie6: false },
};

/// May this request be answered with gzip? Looks at the answer's head too, for requests that came through a proxy.
pub fn is_accepted(request: &Request) -> bool {
    let accept = Accept::of(request);
    let fields = &request.head.fields;
    if request.subrequest || !fields.get(b"Accept-Encoding").is_some_and(takes_gzip) {
        return false;
    }
    let agent = fields.get(b"User-Agent");
    if request.head.version < accept.version_min
        || accept.disabled.msie6 && agent.is_some_and(is_msie6)
        || fields.contains(b"Via") && !accept.accepts_proxied(request)
    {
        return false;
    }
    !agent.is_some_and(|agent| accept.disabled.agents.iter().any(|regex| regex.is_match(agent)))
}

/// The answer was said to depend on `Accept-Encoding`.
#[derive(Default)]
struct Said(bool);

/// Do answers say that they depend on `Accept-Encoding`?
pub fn varies(request: &Request) -> bool {
    Accept::of(request).vary
}

/// The answer depends on `Accept-Encoding`: says so once, where that is wanted.
pub fn vary(request: &mut Request) {
    if varies(request) && !std::mem::replace(&mut request.note::<Said>().0, true) {
        request.response.fields.push(b"Vary", b"Accept-Encoding");
    }
}

impl Accept {
    fn of<'a>(request: &'a Request) -> &'a Accept {
        request.plan.kept::<Accept>().unwrap_or(&DEFAULT)
    }

    fn is_default(&self) -> bool {
        let Disabled { agents, msie6 } = &self.disabled;
        let of_requests = (self.vary, self.version_min, self.proxied);
        of_requests == (DEFAULT.vary, DEFAULT.version_min, DEFAULT.proxied) && agents.is_empty() && !msie6
    }

    fn accepts_proxied(&self, request: &Request) -> bool {
        let wants = |bit: u32| self.proxied & bit != 0;
        if self.proxied & 1 != 0 || self.proxied == 0 {
            return false;
        }
        if wants(Proxied::ANY) || wants(Proxied::AUTH) && request.head.fields.contains(b"Authorization") {
            return true;
        }
        let response = &request.response;
        if let Some(expires) = response.fields.get(b"Expires") {
            let now = match response.fields.get(b"Date") {
                Some(date) => http::date::parse_http(date),
                None => Some(net::clock::wall().seconds),
            };
            let expires = http::date::parse_http(expires);
            return wants(Proxied::EXPIRED) && expires.zip(now).is_some_and(|(expires, now)| expires < now);
        }
        if response.fields.contains(b"Cache-Control") {
            let words = [
                (Proxied::NO_CACHE, &b"no-cache"[..]),
                (Proxied::NO_STORE, b"no-store"),
                (Proxied::PRIVATE, b"private"),
            ];
            return words.iter().any(|(bit, word)| wants(*bit) && controls(&response.fields, word));
        }
        !(wants(Proxied::NO_LAST_MODIFIED) && response.last_modified.is_some()
            || wants(Proxied::NO_ETAG) && response.fields.contains(b"ETag"))
    }
}

/// Is this word among those of `Cache-Control`?
fn controls(fields: &Fields, word: &[u8]) -> bool {
    let mut words = fields.all(b"Cache-Control").flat_map(|value| value.split(|byte| *byte == b','));
    words.any(|found| {
        let name = found.split(|byte| *byte == b'=').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(word)
    })
}

/// Does `Accept-Encoding` (RFC 9110 section 12.5.3) name gzip, with another weight than 0? Read as nginx reads it.
fn takes_gzip(value: &[u8]) -> bool {
    let lower = value.to_ascii_lowercase();
    let begins = |at: &usize| *at == 0 || matches!(lower[*at - 1], b',' | b' ');
    let Some(at) = lower.find_iter("gzip").find(begins) else { return false };
    let rest = lower[at + 4..].trim_start_with(|c| c == ' ');
    match rest.split_first() {
        None | Some((b',', _)) => true,
        Some((b';', parameter)) => match parameter.trim_start_with(|c| c == ' ') {
            b"" => true,
            parameter => parameter.strip_prefix(b"q=").is_some_and(is_weight),
        },
        Some(_) => false,
    }
}

/// A weight from 0.001 to 1 with at most three digits behind the point.
fn is_weight(text: &[u8]) -> bool {
    let text = text.split(|byte| matches!(byte, b',' | b' ')).next().unwrap_or_default();
    let (whole, fraction) = text.split_once_str(".").unwrap_or((text, b""));
    let digits = fraction.len() <= 3 && fraction.iter().all(u8::is_ascii_digit);
    let is_zero = fraction.iter().all(|byte| *byte == b'0');
    digits && (whole == b"0" && !is_zero || whole == b"1" && is_zero)
}

/// MSIE 4 to 6 without the service pack that mended it, as nginx tells them.
fn is_msie6(agent: &[u8]) -> bool {
    if agent.contains_str("Opera") {
        return false;
    }
    let Some(at) = agent.find("MSIE ") else { return false };
    match agent.get(at + 5..at + 8) {
        Some([b'4' | b'5', b'.', _]) => true,
        Some([b'6', b'.', _]) => !agent.contains_str("SV1"),
        _ => false,
    }
}

fn disable(conf: &mut Conf, node: &Node, _build: &mut Build) -> Result<(), Problem> {
    let disabled = conf.disable.fill(node.name.span, Disabled::default);
    for word in &node.args {
        if word.text == "msie6" {
            disabled.msie6 = true;
            continue;
        }
        let regex = Regex::new(&word.text, true).map_err(|error| Problem::new(error.to_string()).on(word))?;
        disabled.agents.push(Arc::new(regex));
    }
    Ok(())
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let accept = installer.once(|conf: &Conf, _| Accept {
        vary: conf.vary.0,
        version_min: match *conf.http_version {
            HttpVersion::Http10 => Version::HTTP_10,
            HttpVersion::Http11 => Version::HTTP_11,
        },
        proxied: conf.proxied.bits,
        disabled: (*conf.disable).clone(),
    });
    if !accept.is_default() {
        installer.keep_shared(accept);
    }
    Ok(())
}

/// The module.
pub static MODULE: Module = Module {
    name: "gzip_accept",
    directives: &[
        Directive {
            name: "gzip_vary",
            default: "off",
            set: field!(Conf.vary),
            doc: "Whether answers that could be compressed say Vary: Accept-Encoding.",
        },
        Directive {
            name: "gzip_http_version",
            default: "1.1",
            set: field!(Conf.http_version),
            doc: "The lowest version of a request that gets compressed answers.",
        },
        Directive {
            name: "gzip_proxied",
            default: "",
            set: field!(Conf.proxied),
            doc: "Which answers to requests that came through a proxy are compressed.",
        },
        Directive {
            name: "gzip_disable",
            default: "",
            set: &Declare::<Conf> {
                read: disable,
                nested: None,
                inherit: Some(|outer, inner| inner.disable.inherit_from(&outer.disable)),
                settle: Some(|conf| conf.disable.settle()),
            },
            doc: "Browsers that get nothing compressed.",
        },
    ],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_as_nginx_reads_them() {
        for (value, expected) in [
            ("gzip", true),
            ("gzip, deflate", true),
            ("deflate, GZIP", true),
            ("deflate,gzip;q=0.5", true),
            ("gzip; q=1.000", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000", false),
            ("gzip;q=1.001", false),
            ("gzip;q=0.1234", false),
            ("gzip;x=1", false),
            ("gzip;", true),
            ("xgzip", false),
            ("xgzip, gzip", true),
            ("gzipx", false),
            ("*", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn old_browsers() {
        for (agent, expected) in [
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)", true),
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)", false),
            ("Mozilla/4.0 (compatible; MSIE 5.5; Windows 98)", true),
            ("Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 5.1)", false),
            ("Mozilla/4.0 (compatible; MSIE 6.0; X11) Opera 9", false),
        ] {
            assert_eq!(is_msie6(agent.as_bytes()), expected, "{agent}");
        }
    }
}
