//! `auth_request`: a subrequest says who may (nginx's manual, ngx_http_auth_request_module).

use bstr::{BStr, BString};
use conf::{Level, Node};
use engine::module::{Declare, Install, cells, finish_nothing};
use engine::{Answer, Ask, Build, Flow, Installer, Module, Phase, Request, Step, Target};
use http::Status;
use schema::value::argument;
use schema::{Directive, Inherit, Problem, Services, Value, field};
use template::{Template, VariableId};

#[derive(Default)]
struct Conf {
    uri: Inherit<Uri>,
    sets: Inherit<Vec<SetVariable>>,
}

/// The URI asked, none is `off`.
#[derive(Clone)]
struct Uri(Option<BString>);

/// `auth_request_set $variable value`
#[derive(Clone)]
struct SetVariable {
    variable: VariableId,
    write: Option<fn(&mut Request, &[u8])>,
    value: Template,
}

pub static MODULE: Module = Module {
    name: "auth_request",
    directives: &[
        Directive {
            name: "auth_request",
            default: "off",
            set: field!(Conf.uri),
            doc: "Where to ask whether a request may pass.",
        },
        Directive {
            name: "auth_request_set",
            default: "",
            set: &Declare {
                inherit: Some(|outer: &Conf, inner: &mut Conf| inner.sets.inherit_from(&outer.sets)),
                ..Declare::new(add_set)
            },
            doc: "Sets a variable from the answer.",
        },
    ],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};

impl Value for Uri {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        Ok(Uri((word.text != "off").then(|| word.text.clone())))
    }
}

fn add_set(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let (name, value) = (argument(node, 0)?, argument(node, 1)?);
    let bare = name.text.strip_prefix(b"$");
    let bare =
        bare.ok_or_else(|| Problem::new(format!("invalid variable name \"{}\"", name.text)).on(name))?;
    let variable = build.variables.set(bare).map_err(|problem| problem.on(name))?;
    let write = build.variables.writer(variable);
    let value = build.template(value.text.as_ref()).map_err(|problem| problem.on(value))?;
    conf.sets.fill(node.name.span, Vec::new).push(SetVariable { variable, write, value });
    Ok(())
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let conf = installer.conf::<Conf>();
    if let Some(uri) = conf.uri.0.clone().filter(|uri| !uri.is_empty()) {
        let sets = |conf: &Conf| conf.sets.value().cloned().unwrap_or_default();
        let step = installer.once(|conf: &Conf, _| AuthRequest { uri, sets: sets(conf) });
        installer.shared_step(Phase::Access, step);
    }
    Ok(())
}

struct AuthRequest {
    uri: BString,
    sets: Vec<SetVariable>,
}

impl Step for AuthRequest {
    fn run(&self, _request: &mut Request) -> Flow {
        Flow::Ask(Ask::Subrequest(Target::Uri { uri: self.uri.to_vec(), args: Vec::new() }))
    }

    fn resume(&self, request: &mut Request, answer: Answer) -> Flow {
        let Answer::Subrequest(status) = answer else { return Flow::Next };
        for set in &self.sets {
            let value = request.as_subrequest(|request| request.render(&set.value));
            match set.write {
                Some(write) => write(request, &value),
                None => request.store(set.variable, value),
            }
        }
        match status.0 {
            200..300 => Flow::Allow,
            403 => Flow::Deny(status),
            401 => {
                pass_demand(request);
                Flow::Deny(status)
            }
            number => {
                // What nginx's log still says it is doing after the answer of an upstream.
                if request.subresponse.as_ref().is_some_and(|inner| !inner.attempts.is_empty()) {
                    request.action = "sending to client";
                }
                request.log_error(Level::Error, format_args!("auth request unexpected status: {number}"));
                request.action = "";
                Flow::Deny(Status::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

/// What the answer demands of the client, it is told.
fn pass_demand(request: &mut Request) {
    let name = BStr::new("WWW-Authenticate");
    let Some(inner) = &request.subresponse else { return };
    let fields =
        if inner.response.fields.contains(name) { &inner.response.fields } else { &inner.upstream_fields };
    for value in fields.all(name) {
        request.response.fields.push(name, value);
    }
}
