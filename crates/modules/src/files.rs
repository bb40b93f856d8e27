//! What the modules that serve files have in common: how failures are told, and the answer that is a file.

use bstr::ByteSlice;
use conf::Level;
use engine::flow::FileRange;
use engine::{Flow, Reply, Request, Source};
use http::{Method, Status};
use net::errno::{Errno, ErrnoMessage};
use net::file::{FileError, Opened};
use std::rc::Rc;

/// Is it a method that folders are looked into for?
pub fn reads(method: Method) -> bool {
    matches!(method, Method::Get | Method::Head)
}

/// Logs why a file could not be used, e.g. `open() "/srv/x" failed (2: No such file or directory)`.
pub fn log_failure(request: &Request, level: Level, path: &[u8], error: &FileError) {
    let (call, path, message) = (error.call, path.as_bstr(), ErrnoMessage(error.errno));
    request.log_error(level, format_args!("{call} \"{path}\" failed ({message})"));
}

/// Is there no such file?
pub fn is_missing(error: &FileError) -> bool {
    matches!(error.errno, Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG)
}

/// Was a symbolic link refused?
pub fn is_refused_link(error: &FileError) -> bool {
    matches!(error.errno, Errno::MLINK | Errno::LOOP)
}

/// The status for a file that could not be opened, and the level of the message about it.
pub fn verdict(error: &FileError) -> (Status, Level) {
    match error.errno {
        _ if is_missing(error) => (Status::NOT_FOUND, Level::Error),
        Errno::ACCESS => (Status::FORBIDDEN, Level::Error),
        _ if is_refused_link(error) => (Status::FORBIDDEN, Level::Error),
        _ => (Status::INTERNAL_SERVER_ERROR, Level::Crit),
    }
}

/// Answers with a file whole; ranges and conditions come later.
pub fn reply(request: &mut Request, file: Rc<Opened>) -> Flow {
    let info = file.info;
    request.action = "sending response to client";
    request.response.content_length = Some(info.size);
    request.response.last_modified = Some(info.mtime);
    if request.plan.core.etag.0 {
        let append = |out: &mut Vec<u8>| http::conditional::append_etag(info.mtime, info.size, out);
        request.response.fields.push_with(b"ETag", append);
    }
    request.content_type_by_extension();
    request.response.ranges_allowed = true;
    let source = Source::File(FileRange { file, offset: 0, length: info.size });
    Flow::Reply(Reply { status: Status::OK, source })
}

/// Where `/dir` leads that is a folder: `/dir/`, with the arguments.
pub fn with_slash(request: &Request) -> Vec<u8> {
    let mut location = Vec::with_capacity(request.uri.len() + request.args.len() + 2);
    http::escape::escape_uri(http::escape::Escape::Uri, &request.uri, &mut location);
    location.push(b'/');
    if !request.args.is_empty() {
        location.push(b'?');
        location.extend_from_slice(&request.args);
    }
    location
}
