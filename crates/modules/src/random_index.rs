//! `random_index`: any file of a folder stands for it (nginx's manual, ngx_http_random_index_module).

use crate::files;
use conf::Level;
use engine::module::{Install, cells, finish_nothing};
use engine::{Answer, Ask, Flow, Installer, Module, Phase, Request, Step, Target};
use http::{Method, Status};
use schema::{Directive, Flag, Inherit, Problem, field};

#[derive(Default)]
struct Conf {
    on: Inherit<Flag>,
}

struct RandomIndex;

impl Step for RandomIndex {
    fn run(&self, request: &mut Request) -> Flow {
        if !request.uri.ends_with(b"/") || !(files::reads(request.method) || request.method == Method::Post) {
            return Flow::Next;
        }
        match folder(request) {
            Ok(path) => Flow::Ask(Ask::Directory(path)),
            Err(status) => Flow::Deny(status),
        }
    }

    fn resume(&self, request: &mut Request, answer: Answer) -> Flow {
        let Answer::Directory(found) = answer else { return Flow::Next };
        let entries = match found {
            Ok(entries) => entries,
            Err(error) => return Flow::Deny(refused(request, &error)),
        };
        let is_file = |entry: &net::file::DirectoryEntry| entry.info.is_ok_and(|info| info.is_file);
        let names: Vec<Vec<u8>> = entries.into_iter().filter(is_file).map(|entry| entry.name).collect();
        let Ok(count @ 1..) = u32::try_from(names.len()) else { return Flow::Next };
        let Some(name) = names.get(net::random::below(count) as usize) else { return Flow::Next };
        let mut uri = request.uri.clone();
        uri.extend_from_slice(name);
        Flow::Redirect(Target::Uri { uri, args: request.args.clone() })
    }
}

/// The folder of a URI that ends in a slash, without that slash.
///
/// # Errors
/// As [`Request::map_uri`].
pub fn folder(request: &mut Request) -> Result<Vec<u8>, Status> {
    let mut path = request.map_uri()?.path;
    if path.len() > 1 {
        path.pop();
    }
    Ok(path)
}

/// The status for a folder that cannot be read; says so in the log.
pub fn refused(request: &mut Request, error: &net::file::FileError) -> Status {
    let path = folder(request).unwrap_or_default();
    let (status, level) = files::verdict(error);
    // Nothing forbids links here, so that too many of them are a failure of the system's.
    let (status, level) = match files::is_refused_link(error) {
        true => (Status::INTERNAL_SERVER_ERROR, Level::Crit),
        false => (status, level),
    };
    files::log_failure(request, level, &path, error);
    status
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    if installer.conf::<Conf>().on.0 {
        installer.step(Phase::Content, RandomIndex);
    }
    Ok(())
}

/// The module.
pub static MODULE: Module = Module {
    name: "random_index",
    directives: &[Directive {
        name: "random_index",
        default: "off",
        set: field!(Conf.on),
        doc: "Whether any file of a folder stands for it.",
    }],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};
