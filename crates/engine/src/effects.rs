//! The effects a step may ask for, carried out: sleeping, files, request bodies, subrequests.

use crate::driver::{BodyError, Driver};
use crate::flow::{Answer, Ask, FileQuery, Flow, Target};
use crate::{Request, body};
use http::{Fields, Status};
use net::file::cache::CacheUse;
use net::file::{FileError, Opened};
use std::rc::Rc;
use std::time::Duration;

/// The most that an included subrequest may put in, bytes.
const INCLUDE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Does what a step asked for.
pub async fn perform(request: &mut Request<'_>, driver: &mut Driver, ask: Ask) -> Answer {
    match ask {
        Ask::Sleep(milliseconds) => {
            let deadline = net::timer::Deadline::after(Duration::from_millis(milliseconds));
            driver.sleep(deadline).await;
            Answer::Slept
        }
        Ask::File(query) => Answer::File(open(request, &query)),
        Ask::Directory(path) => Answer::Directory(net::file::list_directory(&path)),
        Ask::Body => Answer::Body(body::read_whole(request, driver).await.map_err(BodyError::status)),
        Ask::Subrequest(_) => Answer::Subrequest(http::Status::INTERNAL_SERVER_ERROR),
    }
}

/// Opens or tests a file as the location's settings demand.
fn open(request: &mut Request<'_>, query: &FileQuery) -> Result<Rc<Opened>, FileError> {
    let core = &request.plan.core;
    let symlinks = match &core.disable_symlinks.from {
        None => core.disable_symlinks.mode,
        Some(from) => {
            let trusted = request.render(from);
            core.disable_symlinks.mode.for_path(&query.path, &trusted)
        }
    };
    let probably_directory = query.path.ends_with(b"/");
    let cache = &core.open_file_cache;
    if cache.files_max > 0 {
        let rules = CacheUse {
            valid: Duration::from_secs(core.open_file_cache_valid.0),
            uses_min: u32::try_from(core.open_file_cache_min_uses.0).unwrap_or(u32::MAX),
            keep_errors: core.open_file_cache_errors.0,
        };
        let files = request.thread.open_files(cache.files_max, cache.inactive_seconds);
        return files.open(&query.path, symlinks, &rules, probably_directory).map(Rc::new);
    }
    let opened = if query.test_only {
        net::file::file_info(&query.path, symlinks).map(|info| Opened { file: None, info })
    } else if probably_directory {
        net::file::open_unless_directory(&query.path, symlinks)
    } else {
        net::file::open_file(&query.path, symlinks)
    };
    opened.map(Rc::new)
}

/// Runs a request for another URI of the same server, throws its body away and tells its status.
pub async fn subrequest(request: &mut Request<'_>, target: Target) -> Answer {
    let mut driver = Driver::discarding();
    let (status, fields) = run(request, target, &mut driver).await;
    request.subresponse = fields;
    Answer::Subrequest(status)
}

/// The body of a subrequest, to be put in the place of an include.
pub async fn included(request: &mut Request<'_>, target: Target) -> Vec<u8> {
    let mut driver = Driver::collecting(INCLUDE_BYTES_MAX);
    run(request, target, &mut driver).await;
    match driver {
        Driver::Memory(memory) => memory.body,
        Driver::H1(_) => Vec::new(),
    }
}

async fn run(request: &mut Request<'_>, target: Target, driver: &mut Driver) -> (Status, Fields) {
    let (uri, args, first) = match target {
        Target::Uri { uri, args } => (uri, args, None),
        Target::Named(name) => {
            (request.uri.clone(), request.args.clone(), Some(Flow::Redirect(Target::Named(name))))
        }
    };
    let mut inner = request.subrequest_for(uri, args);
    crate::exchange::exchange(&mut inner, driver, first).await;
    let mut fields = std::mem::take(&mut inner.upstream_fields);
    if fields.is_empty() {
        fields = std::mem::take(&mut inner.response.fields);
    }
    (inner.response.status, fields)
}
