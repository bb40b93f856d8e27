//! `try_files`: the first file that is there, or a way out (nginx's manual, ngx_http_core_module, `try_files`).

use crate::files;
use bstr::ByteSlice;
use conf::{Level, Node};
use engine::flow::FileQuery;
use engine::module::{Install, cells, finish_nothing};
use engine::plan::Alias;
use engine::{Answer, Ask, Build, Declare, Flow, Installer, Module, Phase, Request, Step, Target};
use http::Status;
use schema::value::number;
use schema::{Directive, Problem};
use std::sync::Arc;
use template::Template;

#[derive(Default)]
struct Conf {
    try_files: Option<Arc<TryFiles>>,
}

struct TryFiles {
    files: Vec<Candidate>,
    otherwise: Otherwise,
}

struct Candidate {
    name: Template,
    /// It was written with a slash at its end, and must be a folder.
    is_directory: bool,
}

/// What happens when none of the files is there.
enum Otherwise {
    /// This status.
    Status(Status),
    /// A redirect to a URI or to a named location.
    Redirect(Template),
}

/// What is remembered while a file is looked at.
#[derive(Default)]
struct Progress {
    at: usize,
    name: Vec<u8>,
    path: Vec<u8>,
}

struct TryStep(Arc<TryFiles>);

impl Step for TryStep {
    fn run(&self, request: &mut Request) -> Flow {
        self.next(request, 0)
    }

    fn resume(&self, request: &mut Request, answer: Answer) -> Flow {
        let Answer::File(found) = answer else { return Flow::Next };
        let progress = std::mem::take(request.note::<Progress>());
        let Some(candidate) = self.0.files.get(progress.at) else { return Flow::Next };
        match found {
            Ok(opened) if opened.info.is_directory == candidate.is_directory => {
                use_name(request, progress.name, candidate.is_directory);
                return Flow::Next;
            }
            Ok(_) => {}
            Err(error) if files::is_missing(&error) => {}
            Err(error) => files::log_failure(request, Level::Crit, &progress.path, &error),
        }
        self.next(request, progress.at + 1)
    }
}

impl TryStep {
    fn next(&self, request: &mut Request, at: usize) -> Flow {
        let mut path = match request.map_uri() {
            Ok(mapped) => mapped,
            Err(status) => return Flow::Deny(status),
        };
        let Some(candidate) = self.0.files.get(at) else { return self.otherwise(request) };
        let name = name(request, &candidate.name);
        path.path.truncate(path.root_bytes);
        path.path.extend_from_slice(&name);
        let path = path.path;
        *request.note() = Progress { at, name, path: path.clone() };
        Flow::Ask(Ask::File(FileQuery { path, test_only: true }))
    }

    fn otherwise(&self, request: &mut Request) -> Flow {
        let template = match &self.0.otherwise {
            Otherwise::Status(status) => return Flow::Deny(*status),
            Otherwise::Redirect(template) => template,
        };
        let name = name(request, template);
        if name.starts_with(b"@") {
            return Flow::Redirect(Target::Named(name));
        }
        let (uri, args) = match memchr::memchr(b'?', &name) {
            Some(mark) => (name[..mark].to_vec(), name[mark + 1..].to_vec()),
            None => (name, Vec::new()),
        };
        Flow::Redirect(Target::Uri { uri, args })
    }
}

/// A name as it stands below the root: with `alias`, one that was made of the URI loses the location's name.
fn name(request: &mut Request, template: &Template) -> Vec<u8> {
    let mut name = request.render(template);
    if let Alias::Prefix(bytes) = request.plan.alias
        && template.is_constant().is_none()
        && request.uri.get(..bytes).is_some_and(|prefix| name.starts_with(prefix))
    {
        name.drain(..bytes);
    }
    name
}

/// The name was found: it becomes the URI.
fn use_name(request: &mut Request, name: Vec<u8>, is_directory: bool) {
    match request.plan.alias {
        Alias::None => request.uri = name,
        Alias::Whole => {
            if !is_directory {
                request.uri = name;
                request.uri_below_alias = true;
            }
        }
        Alias::Prefix(bytes) => {
            request.uri.truncate(bytes);
            request.uri.extend_from_slice(&name);
        }
    }
}

fn read(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    if conf.try_files.is_some() {
        return Err(Problem::directive(&node.name, "is duplicate"));
    }
    let Some((last, words)) = node.args.split_last() else {
        return Err(Problem::new("invalid number of arguments in \"try_files\" directive"));
    };
    let mut files = Vec::with_capacity(words.len());
    for word in words {
        let (text, is_directory) = match word.text.strip_suffix(b"/") {
            Some(text) => (text, true),
            None => (&word.text[..], false),
        };
        let name = build.template(text.as_bstr()).map_err(|problem| problem.on(word))?;
        files.push(Candidate { name, is_directory });
    }
    let otherwise = match last.text.strip_prefix(b"=") {
        Some(code) => {
            let code = number(code).filter(|code| *code <= 999);
            let code =
                code.ok_or_else(|| Problem::new(format!("invalid code \"{}\"", last.text)).on(last))?;
            Otherwise::Status(Status(code as u16))
        }
        None => Otherwise::Redirect(build.template(last.text.as_ref()).map_err(|problem| problem.on(last))?),
    };
    conf.try_files = Some(Arc::new(TryFiles { files, otherwise }));
    Ok(())
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    // Not inherited: neither locations nor `if`s have what stands in the block around.
    if let Some(try_files) = installer.own::<Conf>().and_then(|conf| conf.try_files.clone()) {
        installer.step(Phase::Precontent, TryStep(try_files));
    }
    Ok(())
}

/// The module.
pub static MODULE: Module = Module {
    name: "try_files",
    directives: &[Directive {
        name: "try_files",
        default: "",
        set: &Declare::new(read),
        doc: "Serves the first of these files that is there, or goes elsewhere.",
    }],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};
