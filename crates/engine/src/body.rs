//! The request's body read whole: to memory, or to a temporary file when it is larger than the buffer.

use crate::Request;
use crate::core::values::BodyInFile;
use crate::driver::{BodyError, Driver};
use conf::Level;
use net::errno::ErrnoMessage;
use net::file::temporary::Keep;
use net::timer::Deadline;
use std::io::IoSlice;
use std::rc::Rc;
use std::time::Duration;

/// How much of a body that goes to a file is read at once, if it has come, bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// Is there nothing to read of the body, because all of it is here or there is none? Then it counts as read.
pub fn is_over(request: &mut Request<'_>, driver: &Driver) -> bool {
    request.body.read |= request.body.length.is_some() && driver.body_is_done() && !driver.continue_is_owed();
    request.body.read
}

/// Reads the whole body, once.
///
/// # Errors
/// The client's fault, or no place to store it.
pub async fn read_whole(request: &mut Request<'_>, driver: &mut Driver) -> Result<(), BodyError> {
    if request.body.read {
        return Ok(());
    }
    let result = read(request, driver).await;
    if let Err(error) = result {
        explain(request, error);
        request.keep_alive = false;
    }
    result
}

async fn read(request: &mut Request<'_>, driver: &mut Driver) -> Result<(), BodyError> {
    let core = request.plan.core.clone();
    let pause = Duration::from_millis(core.client_body_timeout.0);
    let mut buffer_bytes = core.client_body_buffer_size.0;
    // A body that is only a little larger than the buffer gets one of its own size.
    if let Some(length) = request.body.length.and_then(|length| usize::try_from(length).ok())
        && length < buffer_bytes.saturating_add(buffer_bytes / 4)
        && request.head.version < http::Version::HTTP_2
    {
        buffer_bytes = buffer_bytes.max(length);
    }
    if request.body.length.is_some_and(|length| length > buffer_bytes as u64) {
        // Fewer, larger pieces go to the file. Of what the client is slow to fill, the system gives no memory.
        request.thread.spare.make_room(&mut request.body.memory, PIECE_BYTES);
    }
    let always_file = *core.client_body_in_file_only != BodyInFile::Off;
    loop {
        let count = driver.read_body(&mut request.body.memory, Deadline::after(pause)).await?;
        if count == 0 {
            break;
        }
        request.body.received += count as u64;
        request.received_bytes += count as u64;
        check_size(request, core.client_max_body_size.0, count as u64)?;
        if request.body.memory.len() > buffer_bytes || always_file {
            spill(request, &core)?;
        }
    }
    // A body of unknown length gets its file even when nothing came.
    let empty = always_file && request.body.length.is_none() && request.body.file.is_none();
    if empty || request.body.file.is_some() && !request.body.memory.is_empty() {
        spill(request, &core)?;
        request.thread.spare.keep_buffer(std::mem::take(&mut request.body.memory));
    }
    request.body.read = true;
    Ok(())
}

/// Is what came still within `client_max_body_size`? `new_bytes` of it came last. Bodies with a length were
/// checked before.
///
/// # Errors
/// It is not.
pub fn check_size(request: &Request<'_>, limit: u64, new_bytes: u64) -> Result<(), BodyError> {
    if limit > 0 && request.body.received > limit {
        let before = request.body.received - new_bytes;
        request.log_error(
            Level::Error,
            format_args!("client intended to send too large chunked body: {before}+{new_bytes} bytes"),
        );
        return Err(BodyError::TooLarge);
    }
    Ok(())
}

/// Moves what is in memory to the temporary file.
fn spill(request: &mut Request<'_>, core: &crate::core::Core) -> Result<(), BodyError> {
    let file = match &request.body.file {
        Some(file) => file.clone(),
        None => {
            let place = &core.client_body_temp_path;
            let keep = match *core.client_body_in_file_only {
                BodyInFile::On => Keep::Yes,
                BodyInFile::Clean => Keep::UntilDropped,
                BodyInFile::Off => Keep::No,
            };
            let made = place.folder().create(keep).map_err(|error| {
                request.log_error(Level::Crit, format_args!("{error}"));
                BodyError::Storage
            })?;
            let path = bstr::BStr::new(made.path()).to_owned();
            let level = if keep == Keep::No { Level::Warn } else { Level::Notice };
            request.log_error(
                level,
                format_args!("a client request body is buffered to a temporary file {path}"),
            );
            let made = Rc::new(made);
            request.body.file = Some(made.clone());
            made
        }
    };
    let memory = std::mem::take(&mut request.body.memory);
    let offset = request.body.stored_bytes;
    let written = file.write_at(&mut [IoSlice::new(&memory)], offset);
    request.body.memory = memory;
    request.body.memory.clear();
    request.body.stored_bytes = offset + *written.as_ref().unwrap_or(&0);
    written.map(drop).map_err(|error| {
        let (call, path, message) = (error.call, bstr::BStr::new(file.path()), ErrnoMessage(error.errno));
        request.log_error(Level::Crit, format_args!("{call} \"{path}\" failed ({message})"));
        BodyError::Storage
    })
}

/// Logs why a body could not be read.
pub fn explain(request: &mut Request<'_>, error: BodyError) {
    match error {
        BodyError::Closed => {
            request.client_gone = true;
            request.log_error(Level::Info, format_args!("client prematurely closed connection"));
        }
        BodyError::TimedOut => {
            request.timed_out = true;
            request.log_error(Level::Info, format_args!("client timed out (110: Connection timed out)"));
        }
        BodyError::Malformed => {
            request.log_error(Level::Error, format_args!("client sent invalid chunked body"));
        }
        BodyError::LongerThanDeclared => request.log_error(
            Level::Info,
            format_args!("client intended to send body data larger than declared"),
        ),
        BodyError::ShorterThanDeclared { received, declared } => request.log_error(
            Level::Info,
            format_args!(
                "client prematurely closed stream: only {received} out of {declared} bytes of request body received"
            ),
        ),
        BodyError::TooLarge | BodyError::Storage => {}
    }
}
