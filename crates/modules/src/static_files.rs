//! Files as they lie on the disk: what answers when nothing else does (nginx's ngx_http_static_module, which has no
//! directives of its own).

use crate::files;
use bstr::ByteSlice;
use conf::Level;
use engine::flow::FileQuery;
use engine::module::{Install, cells, finish_nothing};
use engine::{Answer, Ask, Flow, Installer, Module, Phase, Request, Step};
use http::{Method, Status};
use schema::{Places, Problem};

struct Static;

impl Step for Static {
    fn run(&self, request: &mut Request) -> Flow {
        if !matches!(request.method, Method::Get | Method::Head | Method::Post) {
            return Flow::Deny(Status::NOT_ALLOWED);
        }
        if request.uri.ends_with(b"/") {
            return Flow::Next;
        }
        match request.map_uri() {
            Ok(mapped) => Flow::Ask(Ask::File(FileQuery { path: mapped.path, test_only: false })),
            Err(status) => Flow::Deny(status),
        }
    }

    fn resume(&self, request: &mut Request, answer: Answer) -> Flow {
        let Answer::File(found) = answer else { return Flow::Next };
        let opened = match found {
            Ok(opened) => opened,
            Err(error) => {
                let (status, level) = files::verdict(&error);
                if status != Status::NOT_FOUND || request.plan.core.log_not_found.0 {
                    let path = request.file_path();
                    files::log_failure(request, level, &path, &error);
                }
                return Flow::Deny(status);
            }
        };
        if opened.info.is_directory {
            request.response.location = files::with_slash(request);
            return Flow::Deny(Status::MOVED_PERMANENTLY);
        }
        if !opened.info.is_file {
            let path = request.file_path();
            let path = path.as_bstr();
            request.log_error(Level::Crit, format_args!("\"{path}\" is not a regular file"));
            return Flow::Deny(Status::NOT_FOUND);
        }
        if request.method == Method::Post {
            return Flow::Deny(Status::NOT_ALLOWED);
        }
        files::reply(request, opened)
    }
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    if installer.place != Places::SERVER_IF {
        let files = installer.once(|_: &(), _| Static);
        installer.shared_step(Phase::Content, files);
    }
    Ok(())
}

/// The module.
pub static MODULE: Module = Module {
    name: "static",
    directives: &[],
    families: &[],
    variables: &[],
    cells: cells::<()>,
    install: Install::Always(install),
    finish: finish_nothing,
};
