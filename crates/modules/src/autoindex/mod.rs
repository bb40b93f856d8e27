//! `autoindex`: the list of a folder's files (nginx's manual, ngx_http_autoindex_module).

mod page;

use crate::files;
use crate::random_index::{folder, refused};
use bstr::ByteSlice;
use conf::Level;
use engine::module::{Install, cells, finish_nothing};
use engine::{Answer, Ask, Flow, Installer, Module, Phase, Reply, Request, Source, Step};
use http::Status;
use net::file::DirectoryEntry;
use page::{Entry, Look};
use schema::{Directive, Flag, Inherit, Problem, field, words};

#[derive(Default)]
struct Conf {
    on: Inherit<Flag>,
    format: Inherit<Format>,
    localtime: Inherit<Flag>,
    exact_size: Inherit<Flag>,
}

words!(Format { "html" => Html, "json" => Json, "jsonp" => Jsonp, "xml" => Xml });
/// How the list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Html,
    Json,
    Jsonp,
    Xml,
}

struct Autoindex {
    format: Format,
    localtime: bool,
    exact_size: bool,
}

/// The longest name of a function that a client may ask for with `callback=`, bytes.
const CALLBACK_BYTES_MAX: usize = 128;

impl Step for Autoindex {
    fn run(&self, request: &mut Request) -> Flow {
        if !request.uri.ends_with(b"/") || !files::reads(request.method) {
            return Flow::Next;
        }
        let path = match folder(request) {
            Ok(path) => path,
            Err(status) => return Flow::Deny(status),
        };
        if self.format == Format::Jsonp && !callback_is_valid(request) {
            return Flow::Deny(Status::BAD_REQUEST);
        }
        Flow::Ask(Ask::Directory(path))
    }

    fn resume(&self, request: &mut Request, answer: Answer) -> Flow {
        let Answer::Directory(found) = answer else { return Flow::Next };
        let entries = match found {
            Ok(entries) => entries,
            Err(error) => return Flow::Deny(refused(request, &error)),
        };
        let mut listed: Vec<Entry> = entries.into_iter().filter_map(|entry| known(request, entry)).collect();
        listed.sort_by(|a, b| b.is_directory.cmp(&a.is_directory).then_with(|| a.name.cmp(&b.name)));
        let callback = http::args::find(&request.args, b"callback").filter(|name| !name.is_empty());
        let mut body = Vec::with_capacity(256 + listed.len() * 160);
        let kind: &[u8] = match self.format {
            Format::Html => {
                let look = self.look(request);
                page::html(&request.uri, &listed, &look, &mut body);
                b"text/html"
            }
            Format::Xml => {
                page::xml(&listed, &mut body);
                b"text/xml; charset=utf-8"
            }
            Format::Jsonp if callback.is_some() => {
                page::json(&listed, callback, &mut body);
                b"application/javascript"
            }
            Format::Json | Format::Jsonp => {
                page::json(&listed, None, &mut body);
                b"application/json"
            }
        };
        request.response.content_type = kind.to_vec();
        Flow::Reply(Reply { status: Status::OK, source: Source::Bytes(body) })
    }
}

impl Autoindex {
    fn look(&self, request: &mut Request) -> Look {
        let utf8 =
            crate::charset::of_html(request).is_some_and(|charset| charset.eq_ignore_ascii_case(b"utf-8"));
        let offset =
            if self.localtime { net::clock::local_offset_seconds(net::clock::wall().seconds) } else { 0 };
        Look { offset_seconds: i64::from(offset), exact_size: self.exact_size, utf8 }
    }
}

/// What is listed of a name; one that cannot be looked at is left out, and said so in the log.
fn known(request: &mut Request, entry: DirectoryEntry) -> Option<Entry> {
    match entry.info {
        Ok(info) => Some(Entry {
            name: entry.name,
            is_directory: info.is_directory,
            is_file: info.is_file,
            modified: info.mtime,
            size: info.size,
        }),
        Err(error) => {
            let mut path = request.file_path();
            path.extend_from_slice(&entry.name);
            files::log_failure(request, Level::Crit, &path, &error);
            None
        }
    }
}

fn callback_is_valid(request: &Request) -> bool {
    let Some(name) = http::args::find(&request.args, b"callback") else { return true };
    let complaint = if name.len() > CALLBACK_BYTES_MAX {
        "too long"
    } else if name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')) {
        return true;
    } else {
        "invalid"
    };
    request.log_error(
        Level::Info,
        format_args!("client sent {complaint} callback name: \"{}\"", name.as_bstr()),
    );
    false
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let conf = installer.conf::<Conf>();
    if conf.on.0 {
        let (localtime, exact_size) = (conf.localtime.0, conf.exact_size.0);
        installer.step(Phase::Content, Autoindex { format: *conf.format, localtime, exact_size });
    }
    Ok(())
}

/// The module.
pub static MODULE: Module = Module {
    name: "autoindex",
    directives: &[
        Directive {
            name: "autoindex",
            default: "off",
            set: field!(Conf.on),
            doc: "Whether folders without an index file are listed.",
        },
        Directive {
            name: "autoindex_format",
            default: "html",
            set: field!(Conf.format),
            doc: "How a listing is written: html, xml, json or jsonp.",
        },
        Directive {
            name: "autoindex_localtime",
            default: "off",
            set: field!(Conf.localtime),
            doc: "Whether times of HTML listings are local ones.",
        },
        Directive {
            name: "autoindex_exact_size",
            default: "on",
            set: field!(Conf.exact_size),
            doc: "Whether sizes of HTML listings are exact, or rounded to K, M and G.",
        },
    ],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};
