//! `proxy_pass` and its family: what a request to an HTTP upstream looks like, and what its answer's headers become.

mod pass;
mod rewrites;

use crate::passing::{Schemes, SetHeaders, Target, has_uri};
use bstr::{BString, ByteSlice};
use conf::{Node, Span};
use engine::Request;
use engine::core::Matcher;
use engine::module::{Build, Declare, Install, Installer, Module, Variable, cells, finish_nothing};
use engine::own;
use engine::upstream::settings::{Settings, family};
use pass::{Pass, ProxyStep};
use rewrites::{CookieFlags, Rewrite};
use schema::value::argument;
use schema::{Directive, Idle, Inherit, Places, Problem, field, words};
use std::sync::Arc;
use template::Template;

/// What a location says about passing requests on.
#[derive(Default, Clone)]
pub struct Conf {
    /// `proxy_pass`: belongs to its block; only `if` and `limit_except` take it from around.
    pass: Option<PassLine>,
    method: Inherit<Option<Template>>,
    set_header: Inherit<Arc<SetHeaders>>,
    set_body: Inherit<Option<Template>>,
    http_version: Inherit<HttpVersion>,
    redirect: Inherit<Vec<RedirectLine>>,
    cookie_domain: Inherit<Vec<Option<Rewrite>>>,
    cookie_path: Inherit<Vec<Option<Rewrite>>>,
    cookie_flags: Inherit<Vec<CookieFlags>>,
}

/// `proxy_pass`, read.
#[derive(Clone)]
struct PassLine {
    text: BString,
    template: Template,
    /// The address, and the directive's end.
    places: (Span, Span),
}

/// One line of `proxy_redirect`.
#[derive(Clone)]
pub enum RedirectLine {
    /// `off`.
    Off,
    /// `default`.
    Default,
    /// Two arguments.
    Rewrite(Rewrite),
}

words!(HttpVersion { "1.0" => Http10, "1.1" => Http11, "2" => Http2 });
/// `proxy_http_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// 1.0.
    Http10,
    /// 1.1.
    Http11,
    /// 2, known beforehand or agreed on by ALPN.
    Http2,
}

fn proxy_pass(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    if conf.pass.is_some() {
        return Err(Problem::directive(&node.name, "is duplicate"));
    }
    let word = argument(node, 0)?;
    let template = build.template(word.text.as_ref()).map_err(|problem| problem.on(word))?;
    if template.is_constant().is_some() {
        let outer = build.matcher_around();
        let nameless = outer.is_none_or(Matcher::is_nameless);
        if has_uri(&word.text, Schemes::Http, build).map_err(|problem| problem.on(word))? && nameless {
            return Err(Problem::new(
                "\"proxy_pass\" cannot have URI part in location given by regular expression, or inside named location, \
                 or inside \"if\" statement, or inside \"limit_except\" block",
            )
            .on(word));
        }
    }
    conf.pass = Some(PassLine { text: word.text.clone(), template, places: (word.span, node.end) });
    Ok(())
}

fn set_header(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    SetHeaders::read(&mut conf.set_header, node, build)
}

fn redirect(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let lines = conf.redirect.fill(node.name.span, Vec::new);
    if lines.iter().any(|line| matches!(line, RedirectLine::Off)) {
        return Err(Problem::directive(&node.name, "is duplicate"));
    }
    let word = argument(node, 0)?;
    let line = match (&word.text[..], node.args.get(1)) {
        (b"off", None) if lines.is_empty() => RedirectLine::Off,
        (b"off", None) => return Err(Problem::directive(&node.name, "is duplicate")),
        (b"default", None) => {
            let Some(pass) = &conf.pass else {
                let text = "\"proxy_redirect default\" should be placed after the \"proxy_pass\" directive";
                return Err(Problem::new(text));
            };
            if pass.template.is_constant().is_none() {
                let text =
                    "\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive with variables";
                return Err(Problem::new(text));
            }
            RedirectLine::Default
        }
        (_, None) => return Err(Problem::new(format!("invalid parameter \"{}\"", word.text)).on(word)),
        (_, Some(to)) => RedirectLine::Rewrite(Rewrite::parse(word, to, build)?),
    };
    lines.push(line);
    Ok(())
}

fn cookie_domain(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let line = rewrites::cookie_line(node, build, Rewrite::parse_domain)?;
    conf.cookie_domain.fill(node.name.span, Vec::new).push(line);
    Ok(())
}

fn cookie_path(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let line = rewrites::cookie_line(node, build, Rewrite::parse)?;
    conf.cookie_path.fill(node.name.span, Vec::new).push(line);
    Ok(())
}

fn cookie_flags(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let line = CookieFlags::parse(node, build)?;
    conf.cookie_flags.fill(node.name.span, Vec::new).push(line);
    Ok(())
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let conf: &Conf = installer.conf();
    let Some((pass, location)) = pass_in_force(installer) else { return Ok(()) };
    let settings: Arc<Settings> = installer.family_shared(0);
    settings.check("proxy_")?;
    if installer.plan.name.ends_with(b"/") {
        installer.plan.auto_redirect = true;
    }
    let target = match pass.template.is_constant() {
        None => Target::Variable(pass.template.clone(), Schemes::Http),
        Some(text) => Target::constant(text.as_bstr(), Schemes::Http, installer.build)
            .map_err(|problem| Problem { span: Some(pass.places.0), ..problem }.at(pass.places.1))?,
    };
    let http2 = *conf.http_version == HttpVersion::Http2;
    let tls = match target.may_be_secure() {
        true => crate::ssl::upstream::make(installer.family(1), "proxy_ssl_", http2, installer.build),
        false => None,
    };
    let redirect = pass::default_redirect(&target, pass.text.as_ref(), location.as_ref(), installer.build);
    let made = Pass::new(conf, settings, tls, target, redirect, location);
    installer.handler(ProxyStep(Arc::new(made)));
    Ok(())
}

/// The `proxy_pass` that holds in a block, and the location whose prefix its URI replaces. An `if` and a
/// `limit_except` without one of their own go on with that of the location around them.
fn pass_in_force<'c>(installer: &Installer<'c>) -> Option<(&'c PassLine, BString)> {
    let location = installer.plan.name.clone();
    // A block without directives of ours shares the cells around it; `proxy_pass` itself is not inherited.
    if let Some(pass) = installer.own::<Conf>().and_then(|conf| conf.pass.as_ref()) {
        let location = if installer.plan.nameless { BString::default() } else { location };
        return Some((pass, location));
    }
    if !matches!(installer.place, Places::LOCATION_IF | Places::LIMIT_EXCEPT) {
        return None;
    }
    let outer: &Conf = installer.outer?.module(installer.index)?;
    outer.pass.as_ref().map(|pass| (pass, location))
}

fn proxy_host(request: &mut Request, out: &mut Vec<u8>) -> bool {
    let Some(named) = &request.passed_to else { return false };
    let host = &named.host;
    out.extend_from_slice(host);
    !host.is_empty()
}

fn proxy_port(request: &mut Request, out: &mut Vec<u8>) -> bool {
    let Some(named) = &request.passed_to else { return false };
    let port = &named.port;
    out.extend_from_slice(port);
    !port.is_empty()
}

fn forwarded_for(request: &mut Request, out: &mut Vec<u8>) -> bool {
    for value in request.head.fields.all(b"X-Forwarded-For") {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
    request.client_address().write_host(out);
    true
}

/// See the file's own words.
pub static MODULE: Module = Module {
    name: "proxy",
    directives: &[
        Directive {
            name: "proxy_pass",
            default: "",
            set: &Declare::new(proxy_pass),
            doc: "The server, or group of servers, that requests are passed to.",
        },
        Directive {
            name: "proxy_method",
            default: "",
            set: field!(Conf.method),
            doc: "The method towards the upstream.",
        },
        Directive {
            name: "proxy_set_header",
            default: "",
            set: own!(Conf, set_header, set_header),
            doc: "A header of the request towards the upstream.",
        },
        Directive {
            name: "proxy_set_body",
            default: "",
            set: field!(Conf.set_body),
            doc: "A body in place of the client's.",
        },
        Directive {
            name: "proxy_http_version",
            default: "1.1",
            set: field!(Conf.http_version),
            doc: "The version of HTTP towards the upstream.",
        },
        Directive {
            name: "proxy_redirect",
            default: "",
            set: own!(Conf, redirect, redirect),
            doc: "What becomes of the Location and Refresh headers.",
        },
        Directive {
            name: "proxy_cookie_domain",
            default: "",
            set: own!(Conf, cookie_domain, cookie_domain),
            doc: "What becomes of the domain of cookies.",
        },
        Directive {
            name: "proxy_cookie_path",
            default: "",
            set: own!(Conf, cookie_path, cookie_path),
            doc: "What becomes of the path of cookies.",
        },
        Directive {
            name: "proxy_cookie_flags",
            default: "",
            set: own!(Conf, cookie_flags, cookie_flags),
            doc: "Flags added to cookies or taken away.",
        },
        Directive {
            name: "proxy_headers_hash_max_size",
            default: "",
            set: &Idle,
            doc: "Tables size themselves.",
        },
        Directive {
            name: "proxy_headers_hash_bucket_size",
            default: "",
            set: &Idle,
            doc: "Tables size themselves.",
        },
    ],
    families: &[family("proxy_"), crate::ssl::upstream::family("proxy_ssl_")],
    variables: &[
        Variable::plain("proxy_host", proxy_host, "Host and port of proxy_pass."),
        Variable::plain("proxy_port", proxy_port, "The port of proxy_pass."),
        Variable::plain(
            "proxy_add_x_forwarded_for",
            forwarded_for,
            "X-Forwarded-For with the client's address added.",
        ),
    ],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};
