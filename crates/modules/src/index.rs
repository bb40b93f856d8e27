//! `index`: the file that stands for a folder (nginx's manual, ngx_http_index_module).
//!
//! The first of the names that is there is redirected to internally, so that it may be answered by another location.

use crate::files;
use bstr::ByteSlice;
use conf::{Level, Node};
use engine::flow::FileQuery;
use engine::module::{Install, cells, finish_nothing};
use engine::{Answer, Ask, Build, Declare, Flow, Installer, Module, Phase, Request, Step, Target};
use http::{Method, Status};
use net::errno::{Errno, ErrnoMessage};
use net::file::{FileError, Opened};
use schema::{Directive, Inherit, Places, Problem, Services};
use std::rc::Rc;
use std::sync::Arc;
use template::Template;

#[derive(Default)]
struct Conf {
    names: Inherit<Arc<Vec<Template>>>,
}

struct Index(Arc<Vec<Template>>);

/// What is remembered while a file is looked at.
#[derive(Default)]
struct Progress {
    /// Which name.
    at: usize,
    /// The name of this request.
    name: Vec<u8>,
    /// The file.
    path: Vec<u8>,
    /// The folder is known to be there.
    folder_tested: bool,
    /// The folder is being looked at, because this befell the file.
    failed: Option<FileError>,
}

impl Step for Index {
    fn run(&self, request: &mut Request) -> Flow {
        if !request.uri.ends_with(b"/") || !(files::reads(request.method) || request.method == Method::Post) {
            return Flow::Next;
        }
        self.next(request, Progress::default())
    }

    fn resume(&self, request: &mut Request, answer: Answer) -> Flow {
        let Answer::File(found) = answer else { return Flow::Next };
        let mut progress = std::mem::take(request.note::<Progress>());
        if let Some(error) = progress.failed.take() {
            if let Err(status) = folder(request, &progress, found) {
                return Flow::Deny(status);
            }
            progress.folder_tested = true;
            return self.after(request, progress, error);
        }
        match found {
            Ok(_) => {
                let mut uri = request.uri.clone();
                uri.extend_from_slice(&progress.name);
                Flow::Redirect(Target::Uri { uri, args: request.args.clone() })
            }
            Err(error) if files::is_refused_link(&error) => Flow::Deny(Status::FORBIDDEN),
            Err(error) if matches!(error.errno, Errno::NOTDIR | Errno::NAMETOOLONG | Errno::ACCESS) => {
                Flow::Deny(refused(request, &progress.path, &error))
            }
            Err(error) if progress.folder_tested => self.after(request, progress, error),
            Err(error) => {
                let path = folder_path(&progress).to_vec();
                progress.failed = Some(error);
                *request.note() = progress;
                Flow::Ask(Ask::File(FileQuery { path, test_only: true }))
            }
        }
    }
}

impl Index {
    /// Asks for the name that `progress` has come to.
    fn next(&self, request: &mut Request, mut progress: Progress) -> Flow {
        let Some(name) = self.0.get(progress.at) else { return Flow::Next };
        progress.name = request.render(name);
        if progress.name.starts_with(b"/") {
            return Flow::Redirect(Target::Uri { uri: progress.name, args: request.args.clone() });
        }
        progress.path = match request.map_uri() {
            Ok(mapped) => mapped.path,
            Err(status) => return Flow::Deny(status),
        };
        progress.path.extend_from_slice(&progress.name);
        let path = progress.path.clone();
        *request.note() = progress;
        Flow::Ask(Ask::File(FileQuery { path, test_only: true }))
    }

    /// Goes on behind a name that is not there in a folder that is.
    fn after(&self, request: &mut Request, mut progress: Progress, error: FileError) -> Flow {
        if error.errno != Errno::NOENT {
            files::log_failure(request, Level::Crit, &progress.path, &error);
            return Flow::Deny(Status::INTERNAL_SERVER_ERROR);
        }
        progress.at += 1;
        self.next(request, progress)
    }
}

/// The folder of a name, without its slash.
fn folder_path(progress: &Progress) -> &[u8] {
    let folder = &progress.path[..progress.path.len().saturating_sub(progress.name.len())];
    match folder {
        [inside @ .., b'/'] if !inside.is_empty() => inside,
        folder => folder,
    }
}

/// What the folder says about a name that is not in it.
fn folder(
    request: &Request,
    progress: &Progress,
    found: Result<Rc<Opened>, FileError>,
) -> Result<(), Status> {
    match found {
        Ok(opened) if opened.info.is_directory => Ok(()),
        Ok(_) => {
            let path = progress.path.as_bstr();
            request.log_error(Level::Alert, format_args!("\"{path}\" is not a directory"));
            Err(Status::INTERNAL_SERVER_ERROR)
        }
        Err(error) if files::is_refused_link(&error) => Err(Status::FORBIDDEN),
        Err(error) if error.errno == Errno::NOENT => Err(refused(request, &progress.path, &error)),
        // Whoever may look for names in a folder may not yet look at the folder.
        Err(error) if error.errno == Errno::ACCESS => Ok(()),
        Err(error) => {
            files::log_failure(request, Level::Crit, folder_path(progress), &error);
            Err(Status::INTERNAL_SERVER_ERROR)
        }
    }
}

fn refused(request: &Request, path: &[u8], error: &FileError) -> Status {
    let (path, message) = (path.as_bstr(), ErrnoMessage(error.errno));
    if error.errno == Errno::ACCESS {
        request.log_error(Level::Error, format_args!("\"{path}\" is forbidden ({message})"));
        return Status::FORBIDDEN;
    }
    if request.plan.core.log_not_found.0 {
        request.log_error(Level::Error, format_args!("\"{path}\" is not found ({message})"));
    }
    Status::NOT_FOUND
}

fn read(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let mut names = conf.names.value().map(|names| names.to_vec()).unwrap_or_default();
    for (n, word) in node.args.iter().enumerate() {
        if word.text.starts_with(b"/") && n + 1 < node.args.len() {
            let text = "only the last index in \"index\" directive should be absolute";
            build.warn(Problem::new(text).on(word), node);
        }
        if word.text.is_empty() {
            return Err(Problem::new("index \"\" in \"index\" directive is invalid").on(word));
        }
        names.push(build.template(word.text.as_ref()).map_err(|problem| problem.on(word))?);
    }
    conf.names.put(Arc::new(names), Some(node.name.span));
    Ok(())
}

fn settle(conf: &mut Conf) {
    if !conf.names.is_set() {
        conf.names.put(Arc::new(vec![Template::constant(b"index.html")]), None);
    }
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    if installer.place != Places::SERVER_IF {
        let index = installer.once(|conf: &Conf, _| Index(Arc::clone(&conf.names)));
        installer.shared_step(Phase::Content, index);
    }
    Ok(())
}

/// The module.
pub static MODULE: Module = Module {
    name: "index",
    directives: &[Directive {
        name: "index",
        default: "index.html",
        set: &Declare::<Conf> {
            read,
            nested: None,
            inherit: Some(|outer, inner| inner.names.inherit_from(&outer.names)),
            settle: Some(settle),
        },
        doc: "Files that stand for a folder; the first that is there.",
    }],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::Always(install),
    finish: finish_nothing,
};
