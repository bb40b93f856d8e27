//! `mirror`: copies of requests, whose answers nobody waits for (nginx's manual, ngx_http_mirror_module).

use bstr::BString;
use conf::Node;
use engine::module::{Declare, Install, cells, finish_nothing};
use engine::{Answer, Ask, Build, Flow, Installer, Module, Phase, Request, Step, Target};
use schema::value::argument;
use schema::{Directive, Flag, Inherit, Problem, field};

#[derive(Default)]
struct Conf {
    /// Empty after `off`.
    uris: Inherit<Vec<BString>>,
    request_body: Inherit<Flag>,
}

pub static MODULE: Module = Module {
    name: "mirror",
    directives: &[
        Directive {
            name: "mirror",
            default: "",
            set: &Declare {
                inherit: Some(|outer: &Conf, inner: &mut Conf| inner.uris.inherit_from(&outer.uris)),
                ..Declare::new(add)
            },
            doc: "Where a copy of each request goes.",
        },
        Directive {
            name: "mirror_request_body",
            default: "on",
            set: field!(Conf.request_body),
            doc: "Whether copies have the request's body.",
        },
    ],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};

fn add(conf: &mut Conf, node: &Node, _build: &mut Build) -> Result<(), Problem> {
    let word = argument(node, 0)?;
    let is_off = word.text == "off";
    let duplicate = conf.uris.value().is_some_and(|uris| is_off || uris.is_empty());
    if duplicate {
        return Err(Problem::directive(&node.name, "is duplicate"));
    }
    let uris = conf.uris.fill(node.name.span, Vec::new);
    if !is_off {
        uris.push(word.text.clone());
    }
    Ok(())
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let step = installer.once(|conf: &Conf, _| Mirror {
        uris: conf.uris.value().cloned().unwrap_or_default(),
        request_body: conf.request_body.0,
    });
    if !step.uris.is_empty() {
        installer.shared_step(Phase::Precontent, step);
    }
    Ok(())
}

struct Mirror {
    uris: Vec<BString>,
    request_body: bool,
}

/// How many copies are on their way.
#[derive(Default)]
struct Begun(usize);

impl Step for Mirror {
    fn run(&self, request: &mut Request) -> Flow {
        if request.subrequest {
            return Flow::Next;
        }
        if self.request_body { Flow::Ask(Ask::Body) } else { self.next(request) }
    }

    fn resume(&self, request: &mut Request, answer: Answer) -> Flow {
        match answer {
            Answer::Body(Err(status)) => Flow::Deny(status),
            _ => self.next(request),
        }
    }
}

impl Mirror {
    fn next(&self, request: &mut Request) -> Flow {
        let begun = request.note::<Begun>();
        let Some(uri) = self.uris.get(begun.0) else { return Flow::Next };
        begun.0 += 1;
        Flow::Ask(Ask::Background(Target::Uri { uri: uri.to_vec(), args: request.args.clone() }))
    }
}
