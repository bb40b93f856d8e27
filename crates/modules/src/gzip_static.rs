//! `gzip_static`: sends a file that was compressed beforehand, `x.gz` for `x` (nginx's manual,
//! ngx_http_gzip_static_module).

use crate::files;
use crate::gzip::accept;
use bstr::ByteSlice;
use conf::Level;
use engine::flow::FileQuery;
use engine::module::{Install, cells, finish_nothing};
use engine::{Answer, Ask, Flow, Installer, Module, Phase, Request, Step};
use http::Status;
use schema::{Directive, Inherit, Problem, field, words};

#[derive(Default)]
struct Conf {
    mode: Inherit<Mode>,
}

words!(Mode { "off" => Off, "on" => On, "always" => Always });
/// Who gets the compressed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Off,
    On,
    Always,
}

struct GzipStatic {
    always: bool,
}

impl Step for GzipStatic {
    fn run(&self, request: &mut Request) -> Flow {
        if !files::reads(request.method) || request.uri.ends_with(b"/") {
            return Flow::Next;
        }
        let varies = accept::varies(request);
        // With gzip_vary, whether there is such a file is told to everybody.
        if !self.always && !varies && !accept::is_accepted(request) {
            return Flow::Next;
        }
        match path(request) {
            Ok(path) => Flow::Ask(Ask::File(FileQuery { path, test_only: false })),
            Err(status) => Flow::Deny(status),
        }
    }

    fn resume(&self, request: &mut Request, answer: Answer) -> Flow {
        let Answer::File(found) = answer else { return Flow::Next };
        let opened = match found {
            Ok(opened) => opened,
            Err(error) if files::is_missing(&error) => return Flow::Next,
            Err(error) => {
                let path = path(request).unwrap_or_default();
                files::log_failure(request, files::verdict(&error).1, &path, &error);
                return Flow::Next;
            }
        };
        if !self.always {
            accept::vary(request);
            if !accept::is_accepted(request) {
                return Flow::Next;
            }
        }
        if opened.info.is_directory {
            return Flow::Next;
        }
        if !opened.info.is_file {
            let path = path(request).unwrap_or_default();
            let path = path.as_bstr();
            request.log_error(Level::Crit, format_args!("\"{path}\" is not a regular file"));
            return Flow::Deny(Status::NOT_FOUND);
        }
        request.response.fields.push(b"Content-Encoding", b"gzip");
        files::reply(request, opened)
    }
}

fn path(request: &mut Request) -> Result<Vec<u8>, Status> {
    let mut path = request.map_uri()?.path;
    path.extend_from_slice(b".gz");
    Ok(path)
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    match *installer.conf::<Conf>().mode {
        Mode::Off => {}
        Mode::On => installer.step(Phase::Content, GzipStatic { always: false }),
        Mode::Always => installer.step(Phase::Content, GzipStatic { always: true }),
    }
    Ok(())
}

/// The module.
pub static MODULE: Module = Module {
    name: "gzip_static",
    directives: &[Directive {
        name: "gzip_static",
        default: "off",
        set: field!(Conf.mode),
        doc: "Whether x.gz is sent for x to those who take gzip, or to all.",
    }],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};
