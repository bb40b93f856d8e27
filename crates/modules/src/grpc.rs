//! `grpc_pass` and its family: calls of gRPC passed on over HTTP/2, both directions as they come (nginx's manual,
//! ngx_http_grpc_module).

use crate::passing::{Hidden, Schemes, SetHeaders, Target, has_uri, write_pseudo_fields, write_uri};
use bstr::ByteSlice;
use conf::{Node, Span};
use engine::Request;
use engine::flow::{Flow, Step};
use engine::module::{Build, Declare, Install, Installer, Module, cells, finish_nothing};
use engine::own;
use engine::upstream::settings::{Settings, family};
use engine::upstream::tls::UpstreamTls;
use engine::upstream::{BodyFraming, Call, Protocol};
use http::{Fields, Status};
use schema::value::argument;
use schema::{Directive, Flag, Inherit, Places, Problem};
use std::sync::Arc;
use template::Template;

/// The least that the head of an answer may take, bytes: nginx bounds its fields alone.
const HEADER_BYTES_MIN: usize = 64 * 1024;

/// What a location says about passing calls on.
#[derive(Default, Clone)]
struct Conf {
    /// `grpc_pass`: belongs to its block; only `if` and `limit_except` take it from around.
    pass: Option<PassLine>,
    set_header: Inherit<Arc<SetHeaders>>,
}

/// `grpc_pass`, read.
#[derive(Clone)]
struct PassLine {
    template: Template,
    /// The address, and the directive's end.
    places: (Span, Span),
}

fn grpc_pass(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    if conf.pass.is_some() {
        return Err(Problem::directive(&node.name, "is duplicate"));
    }
    let word = argument(node, 0)?;
    let template = build.template(word.text.as_ref()).map_err(|problem| problem.on(word))?;
    if template.is_constant().is_some() {
        has_uri(&word.text, Schemes::Grpc, build).map_err(|problem| problem.on(word))?;
    }
    conf.pass = Some(PassLine { template, places: (word.span, node.end) });
    Ok(())
}

fn set_header(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    SetHeaders::read(&mut conf.set_header, node, build)
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let Some(pass) = pass_in_force(installer) else { return Ok(()) };
    let conf: &Conf = installer.conf();
    if installer.plan.name.ends_with(b"/") {
        installer.plan.auto_redirect = true;
    }
    let target = match pass.template.is_constant() {
        None => Target::Variable(pass.template.clone(), Schemes::Grpc),
        Some(text) => Target::constant(text.as_bstr(), Schemes::Grpc, installer.build)
            .map_err(|problem| Problem { span: Some(pass.places.0), ..problem }.at(pass.places.1))?,
    };
    let tls = match target.may_be_secure() {
        true => crate::ssl::upstream::make(installer.family(1), "grpc_ssl_", true, installer.build),
        false => None,
    };
    let settings = streaming(installer.family(0));
    let hidden = Hidden::new(&settings);
    let headers = Arc::clone(&conf.set_header);
    installer.handler(GrpcStep(Arc::new(Pass {
        target,
        settings: Arc::new(settings),
        tls,
        headers,
        hidden,
    })));
    Ok(())
}

/// The `grpc_pass` that holds in a block: an `if` and a `limit_except` without one of their own go on with that of the
/// location around them.
fn pass_in_force<'c>(installer: &Installer<'c>) -> Option<&'c PassLine> {
    if let Some(pass) = installer.own::<Conf>().and_then(|conf| conf.pass.as_ref()) {
        return Some(pass);
    }
    if !matches!(installer.place, Places::LOCATION_IF | Places::LIMIT_EXCEPT) {
        return None;
    }
    let outer: &Conf = installer.outer?.module(installer.index)?;
    outer.pass.as_ref()
}

/// What is no choice of a configuration here: nothing is buffered in either direction, and trailers go on.
fn streaming(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.buffering.put(Flag(false), None);
    settings.request_buffering.put(Flag(false), None);
    settings.pass_trailers.put(Flag(true), None);
    settings
}

/// A location's way of passing calls on.
struct Pass {
    target: Target,
    settings: Arc<Settings>,
    /// How TLS is spoken, where it is.
    tls: Option<Arc<UpstreamTls>>,
    /// `grpc_set_header`.
    headers: Arc<SetHeaders>,
    hidden: Hidden,
}

/// The step; shares what it knows with the calls it makes.
struct GrpcStep(Arc<Pass>);

impl Step for GrpcStep {
    fn run(&self, request: &mut Request) -> Flow {
        let found = match self.0.target.find(request) {
            Ok(found) => found,
            Err(status) => return Flow::Deny(status),
        };
        let mut target = request.thread.spare.buffer();
        write_uri(request, b"", 0, &mut target);
        found.forward(self.0.clone(), self.0.settings.clone(), self.0.tls.as_ref(), target)
    }
}

impl Protocol for Pass {
    fn request(
        &self,
        _request: &mut Request,
        _call: &Call,
        _out: &mut Vec<u8>,
    ) -> Result<BodyFraming, Status> {
        // There is no gRPC over HTTP/1.
        Err(Status::INTERNAL_SERVER_ERROR)
    }

    fn http2(&self) -> bool {
        true
    }

    fn header_bytes_max(&self, call: &Call) -> usize {
        call.settings.buffer_size.0.max(HEADER_BYTES_MIN)
    }

    fn request_fields(
        &self,
        request: &mut Request,
        call: &Call,
        out: &mut Fields,
    ) -> Result<BodyFraming, Status> {
        write_pseudo_fields(request, call, None, self.headers.host.as_ref(), out);
        let length =
            request.head.fields.get(b"content-length").filter(|_| !self.headers.sets("content-length"));
        if let Some(length) = length {
            out.push(b"content-length", length);
        }
        let te = request.head.fields.get(b"te").unwrap_or_default();
        if !self.headers.sets("te") && te.to_ascii_lowercase().contains_str("trailers") {
            out.push(b"te", b"trailers");
        }
        self.headers.write_fields(request, out);
        self.headers.pass_fields(request, out);
        let body = request.body.length != Some(0) && !(request.body.read && request.body.received == 0);
        Ok(if body { BodyFraming::Length } else { BodyFraming::None })
    }

    fn temporary_folder(&self) -> &'static str {
        "grpc_temp"
    }

    fn hides(&self, name: &[u8]) -> bool {
        self.hidden.hides(name, &[])
    }
}

/// See the file's own words.
pub static MODULE: Module = Module {
    name: "grpc",
    directives: &[
        Directive {
            name: "grpc_pass",
            default: "",
            set: &Declare::new(grpc_pass),
            doc: "The server, or group of servers, that calls of gRPC are passed to.",
        },
        Directive {
            name: "grpc_set_header",
            default: "",
            set: own!(Conf, set_header, set_header),
            doc: "A header of the request towards the upstream.",
        },
    ],
    families: &[family("grpc_"), crate::ssl::upstream::family("grpc_ssl_")],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};
