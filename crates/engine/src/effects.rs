//! The effects a step may ask for, carried out: sleeping, files, request bodies, subrequests.

use crate::driver::{BodyError, Driver};
use crate::flow::{Answer, Ask, FileQuery, Flow, SmallFile, Target};
use crate::request::Subresponse;
use crate::{Request, background, body};
use conf::Level;
use http::Status;
use net::file::cache::CacheUse;
use net::file::{FileError, Opened};
use net::timer::Deadline;
use std::rc::Rc;
use std::time::Duration;

/// The most that an included subrequest may put in, bytes.
const INCLUDE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a step asked for that takes time.
pub enum Wait {
    /// See [`Ask::Sleep`].
    Sleep(u64),
    /// See [`Ask::Body`].
    Body,
    /// See [`Ask::Subrequest`].
    Subrequest(Target),
}

/// Does what a step asked for where nothing is waited for.
///
/// # Errors
/// It takes time: [`wait`] does it.
pub fn at_once(request: &mut Request<'_>, ask: Ask) -> Result<Answer, Wait> {
    match ask {
        Ask::File(query) => {
            let opened = open(request, &query);
            request.thread.spare.keep_buffer(query.path);
            Ok(Answer::File(opened))
        }
        Ask::Directory(path) => Ok(Answer::Directory(net::file::list_directory(&path))),
        Ask::Read(file) => Ok(Answer::Read(read(&file))),
        Ask::Background(target) => {
            background::begin(request, target);
            Ok(Answer::Begun)
        }
        Ask::Sleep(milliseconds) => Err(Wait::Sleep(milliseconds)),
        Ask::Body => Err(Wait::Body),
        Ask::Subrequest(target) => Err(Wait::Subrequest(target)),
    }
}

/// Does what takes time; none: the client went away meanwhile.
pub async fn wait(request: &mut Request<'_>, driver: &mut Driver, wait: Wait) -> Option<Answer> {
    match wait {
        Wait::Sleep(milliseconds) => {
            let deadline = Deadline::after(Duration::from_millis(milliseconds));
            if !driver.sleep_unless_closed(deadline).await {
                request.log_error(Level::Info, format_args!("client prematurely closed connection"));
                return None;
            }
            Some(Answer::Slept)
        }
        Wait::Body => Some(Answer::Body(body::read_whole(request, driver).await.map_err(BodyError::status))),
        // The one recursion: a request within a request.
        Wait::Subrequest(target) => Some(Box::pin(subrequest(request, target)).await),
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
        return files
            .open(&query.path, symlinks, &rules, probably_directory)
            .map(|opened| request.thread.spare.file(opened));
    }
    let opened = if query.test_only {
        net::file::file_info(&query.path, symlinks).map(|info| Opened { file: None, info })
    } else if probably_directory {
        net::file::open_unless_directory(&query.path, symlinks)
    } else {
        net::file::open_file(&query.path, symlinks)
    };
    opened.map(|opened| request.thread.spare.file(opened))
}

/// Runs a request for another URI of the same server, throws its body away and tells its status.
async fn subrequest(request: &mut Request<'_>, target: Target) -> Answer {
    let mut driver = Driver::discarding();
    Answer::Subrequest(run(request, target, &mut driver).await)
}

/// The body of a subrequest, to be put in the place of an include.
pub async fn included(request: &mut Request<'_>, target: Target) -> Vec<u8> {
    let mut driver = Driver::collecting(INCLUDE_BYTES_MAX);
    run(request, target, &mut driver).await;
    match driver {
        Driver::Memory(memory) => memory.body,
        Driver::H1(_) | Driver::H2(_) => Vec::new(),
    }
}

/// Runs a request for another URI. Set variables and lasting notes belong to both.
async fn run(request: &mut Request<'_>, target: Target, driver: &mut Driver) -> Status {
    let (uri, args, first) = match target {
        Target::Uri { uri, args } => (uri, args, None),
        Target::Named(name) => {
            (request.uri.clone(), request.args.clone(), Some(Flow::Redirect(Target::Named(name))))
        }
    };
    let mut inner = request.subrequest_for(uri, args);
    inner.stored = std::mem::take(&mut request.stored);
    inner.lasting = std::mem::take(&mut request.lasting);
    crate::exchange::exchange(&mut inner, driver, first).await;
    request.stored = std::mem::take(&mut inner.stored);
    request.lasting = std::mem::take(&mut inner.lasting);
    let status = inner.response.status;
    request.subresponse = Some(Box::new(Subresponse {
        response: inner.response,
        attempts: inner.attempts,
        upstream_fields: inner.upstream_fields,
        upstream_trailers: inner.upstream_trailers,
        uri: inner.uri,
        args: inner.args,
    }));
    status
}

fn read(wanted: &SmallFile) -> Result<Vec<u8>, FileError> {
    let opened = net::file::open_file(&wanted.path, net::file::Symlinks::Follow)?;
    let mut bytes = Vec::new();
    if let Some(file) = &opened.file {
        let length = wanted.bytes_max.min(usize::try_from(opened.info.size).unwrap_or(usize::MAX));
        net::file::read_range(file, 0, length, &mut bytes)?;
    }
    Ok(bytes)
}
