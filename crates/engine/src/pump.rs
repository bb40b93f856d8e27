//! Moves a body from its source, through transforms, to the client.

use crate::Request;
use crate::driver::Driver;
use crate::exchange::Ending;
use crate::flow::{Chunk, Chunks, FileRange, Source, Transform};
use conf::Level;
use http::Fields;
use net::errno::ErrnoMessage;
use net::stream::StreamError;
use net::timer::Deadline;
use std::time::Duration;

/// How much of a file goes through transforms at once, bytes.
const FILE_PIECE_BYTES: u64 = 32 * 1024;

/// Sends the body and ends the response.
pub async fn pump(
    request: &mut Request<'_>,
    driver: &mut Driver,
    source: Source,
    transforms: Vec<Box<dyn Transform>>,
) -> Ending {
    if let Some(limit) = rate(request)
        && let Err(broken) = Box::pin(slow_head(request, driver, limit)).await
    {
        abandon(request, source);
        return broken.end(request);
    }
    let sent = match source {
        Source::Upstream(body) => crate::upstream::deliver(request, driver, body, transforms).await,
        source if transforms.is_empty() => local(request, driver, source).await,
        source => Box::pin(transformed(request, driver, source, transforms)).await,
    };
    match sent {
        Ok(()) => finish(request, driver).await,
        Err(broken) => {
            if matches!(broken, Broken::Source) {
                // What came before the source failed is the client's.
                let _ = driver.flush(send_deadline(request)).await;
            }
            broken.end(request)
        }
    }
}

/// Why a body stopped on its way.
#[derive(Debug)]
pub enum Broken {
    /// The client's side.
    Client(StreamError),
    /// The source ended early; what went out is not whole. Already logged.
    Source,
    /// The client went away while the source was waited for. Already logged.
    Gone,
}

impl Broken {
    fn end(self, request: &mut Request<'_>) -> Ending {
        if let Broken::Client(error) = self {
            client_error(request, &error);
        }
        Ending::Broken
    }
}

/// Logs why the client could not be written to.
pub fn client_error(request: &mut Request<'_>, error: &StreamError) {
    request.action = "sending to client";
    match error {
        StreamError::TimedOut => {
            request.timed_out = true;
            request.log_error(Level::Info, format_args!("client timed out (110: Connection timed out)"));
        }
        error => {
            request.log_error(Level::Info, format_args!("writev() failed ({})", ErrnoMessage(error.errno())))
        }
    }
    request.action = "";
}

/// A source at hand, as it is.
async fn local(request: &mut Request<'_>, driver: &mut Driver, source: Source) -> Result<(), Broken> {
    match source {
        Source::Empty | Source::Upstream(_) => Ok(()),
        Source::Bytes(bytes) => {
            let sent = send_bytes(request, driver, &bytes).await;
            request.thread.spare.keep_buffer(bytes);
            sent
        }
        Source::File(range) => send_file(request, driver, range).await,
        Source::Pieces(pieces) => {
            for piece in pieces {
                send(request, driver, piece).await?;
            }
            Ok(())
        }
    }
}

/// A source at hand, through transforms.
async fn transformed(
    request: &mut Request<'_>,
    driver: &mut Driver,
    source: Source,
    mut transforms: Vec<Box<dyn Transform>>,
) -> Result<(), Broken> {
    let chunks = match source {
        Source::Empty | Source::Upstream(_) => Vec::new(),
        Source::Bytes(bytes) => vec![Chunk::Bytes(bytes)],
        Source::File(range) => vec![Chunk::File(range)],
        Source::Pieces(pieces) => pieces,
    };
    for chunk in chunks {
        for piece in pieces(chunk) {
            transform(request, driver, &mut transforms, Some(piece)).await?;
        }
    }
    transform(request, driver, &mut transforms, None).await
}

/// Cuts a file into pieces that transforms can take.
fn pieces(chunk: Chunk) -> Vec<Chunk> {
    let Chunk::File(range) = chunk else { return vec![chunk] };
    let count = range.length.div_ceil(FILE_PIECE_BYTES);
    let piece = |n: u64| FileRange {
        file: range.file.clone(),
        offset: range.offset + n * FILE_PIECE_BYTES,
        length: FILE_PIECE_BYTES.min(range.length - n * FILE_PIECE_BYTES),
    };
    (0..count).map(|n| Chunk::File(piece(n))).collect()
}

/// Passes a piece (none: the end) through all transforms and sends what comes out.
pub async fn transform(
    request: &mut Request<'_>,
    driver: &mut Driver,
    transforms: &mut [Box<dyn Transform>],
    piece: Option<Chunk>,
) -> Result<(), Broken> {
    let ending = piece.is_none();
    let mut flowing: Chunks = piece.map(in_memory).transpose()?.into_iter().collect();
    for transform in transforms {
        let mut out = Chunks::new();
        for chunk in flowing {
            transform.push(in_memory(chunk)?, &mut out);
        }
        if ending {
            transform.finish(&mut out);
        }
        if let Some(failure) = transform.failure() {
            request.log_error(Level::Error, format_args!("{failure}"));
            return Err(Broken::Source);
        }
        flowing = out;
    }
    for chunk in flowing {
        send(request, driver, chunk).await?;
    }
    Ok(())
}

/// Transforms see bytes, never files.
fn in_memory(chunk: Chunk) -> Result<Chunk, Broken> {
    let Chunk::File(range) = chunk else { return Ok(chunk) };
    let mut bytes = Vec::new();
    let Some(file) = &range.file.file else { return Err(Broken::Source) };
    match net::file::read_range(file, range.offset, range.length as usize, &mut bytes) {
        Ok(count) if count as u64 == range.length => Ok(Chunk::Bytes(bytes)),
        _ => Err(Broken::Source),
    }
}

async fn send(request: &mut Request<'_>, driver: &mut Driver, chunk: Chunk) -> Result<(), Broken> {
    match chunk {
        Chunk::Bytes(bytes) => send_bytes(request, driver, &bytes).await,
        Chunk::File(range) => send_file(request, driver, range).await,
        Chunk::Flush => driver.flush(send_deadline(request)).await.map_err(Broken::Client),
        Chunk::Include(target) => Box::pin(include(request, driver, target)).await,
    }
}

/// The body of a subrequest, in place.
async fn include(
    request: &mut Request<'_>,
    driver: &mut Driver,
    target: crate::Target,
) -> Result<(), Broken> {
    let body = crate::effects::included(request, target).await;
    send_bytes(request, driver, &body).await
}

/// How long a client may pause while it reads.
pub fn send_deadline(request: &Request<'_>) -> Deadline {
    Deadline::between(Duration::from_millis(request.plan.core.send_timeout.0))
}

/// Is there no rate to keep?
pub fn is_unlimited(request: &mut Request<'_>) -> bool {
    rate(request).is_none()
}

/// Sends a small piece without waiting; false where it is too large for that, or where there is a rate to keep.
pub fn send_at_once(request: &mut Request<'_>, driver: &mut Driver, bytes: &[u8]) -> bool {
    let joined = if rate(request).is_none() { driver.join(bytes) } else { None };
    request.sent_bytes += joined.unwrap_or(0);
    joined.is_some()
}

/// An answer in one piece leaves at once anyway; those in several are told not to wait for each other.
pub fn be_prompt(request: &Request<'_>, driver: &mut Driver) {
    if request.plan.core.tcp_nodelay.0 {
        driver.be_prompt();
    }
}

/// Sends bytes, as fast as `limit_rate` allows.
pub async fn send_bytes(request: &mut Request<'_>, driver: &mut Driver, bytes: &[u8]) -> Result<(), Broken> {
    if send_at_once(request, driver, bytes) {
        return Ok(());
    }
    let deadline = send_deadline(request);
    be_prompt(request, driver);
    let mut rest = bytes;
    while !rest.is_empty() {
        let allowed = allowance(request, driver).await?;
        let count = usize::try_from(allowed).unwrap_or(usize::MAX).min(rest.len());
        let sent = driver.send(&rest[..count], deadline).await.map_err(Broken::Client)?;
        request.sent_bytes += sent;
        rest = &rest[count..];
    }
    Ok(())
}

async fn send_file(
    request: &mut Request<'_>,
    driver: &mut Driver,
    mut range: FileRange,
) -> Result<(), Broken> {
    let deadline = send_deadline(request);
    be_prompt(request, driver);
    let chunk_bytes_max = request.plan.core.sendfile_max_chunk.0.max(1);
    while range.length > 0 {
        let allowed = allowance(request, driver).await?;
        let part = FileRange { length: allowed.min(range.length), ..range.clone() };
        let sent = driver.send_file(&part, chunk_bytes_max, deadline).await.map_err(Broken::Client)?;
        request.sent_bytes += sent;
        range.offset += part.length;
        range.length -= part.length;
    }
    request.thread.spare.keep_file(range.file);
    Ok(())
}

/// A head that is more than `limit_rate` allows at once goes out in pieces.
async fn slow_head(request: &mut Request<'_>, driver: &mut Driver, limit: Limit) -> Result<(), Broken> {
    if request.sent_bytes <= limit.allowed(request, 0) {
        return Ok(());
    }
    let mut left = request.sent_bytes;
    while left > 0 {
        let sent_bytes = request.sent_bytes - left;
        limit.wait(request, driver, sent_bytes).await?;
        let allowed = limit.allowed(request, sent_bytes);
        left = driver.flush_part(allowed, send_deadline(request)).await.map_err(Broken::Client)?;
    }
    Ok(())
}

/// How many bytes may be sent now under `limit_rate`; waits until there are some.
async fn allowance(request: &mut Request<'_>, driver: &mut Driver) -> Result<u64, Broken> {
    let Some(limit) = rate(request) else { return Ok(u64::MAX) };
    let sent_bytes = request.sent_bytes;
    if limit.allowed(request, sent_bytes) == 0 {
        driver.flush(send_deadline(request)).await.map_err(Broken::Client)?;
        Box::pin(limit.wait(request, driver, sent_bytes)).await?;
    }
    Ok(limit.allowed(request, sent_bytes))
}

/// `limit_rate` in force.
#[derive(Clone, Copy)]
struct Limit {
    /// Bytes a second, more than 0.
    rate: u64,
    /// Bytes before that, from `limit_rate_after`.
    after: u64,
}

impl Limit {
    /// How many more bytes may be sent now.
    fn allowed(self, request: &Request<'_>, sent_bytes: u64) -> u64 {
        let seconds = net::clock::now_ms().saturating_sub(request.started_ms) / 1000 + 1;
        self.rate.saturating_mul(seconds).saturating_add(self.after).saturating_sub(sent_bytes)
    }

    /// Waits until more bytes may be sent.
    async fn wait(
        self,
        request: &mut Request<'_>,
        driver: &mut Driver,
        sent_bytes: u64,
    ) -> Result<(), Broken> {
        while self.allowed(request, sent_bytes) == 0 {
            let seconds = net::clock::now_ms().saturating_sub(request.started_ms) / 1000 + 1;
            let over =
                sent_bytes.saturating_sub(self.rate.saturating_mul(seconds).saturating_add(self.after));
            let wait_ms = over.saturating_mul(1000) / self.rate + 1;
            if !driver.sleep_unless_closed(Deadline::after(Duration::from_millis(wait_ms))).await {
                request.log_error(Level::Info, format_args!("client prematurely closed connection"));
                return Err(Broken::Source);
            }
        }
        Ok(())
    }
}

/// Is there a rate to keep?
pub fn has_rate(request: &mut Request<'_>) -> bool {
    rate(request).is_some()
}

fn rate(request: &mut Request<'_>) -> Option<Limit> {
    let plan = request.plan;
    if request.limit_rate.is_none() {
        let template = plan.core.limit_rate.as_ref()?;
        let text = request.render(template);
        request.limit_rate = Some(schema::value::size(&text).unwrap_or(0) as u64);
    }
    let rate = request.limit_rate.filter(|rate| *rate > 0)?;
    let after = match &*plan.core.limit_rate_after {
        None => 0,
        Some(template) => {
            let text = request.render(template);
            schema::value::size(&text).unwrap_or(0) as u64
        }
    };
    Some(Limit { rate, after })
}

/// Ends the body and sends what waits.
pub async fn finish(request: &mut Request<'_>, driver: &mut Driver) -> Ending {
    if request.response.expects_trailers && request.method != http::Method::Head {
        for filter in &request.plan.filters {
            filter.trailers(request);
        }
    }
    let trailers: Fields = std::mem::take(&mut request.response.trailers);
    let is_last = !request.keep_alive && request.plan.core.post_action.is_empty();
    let sent = driver.finish(&trailers, is_last, send_deadline(request)).await;
    request.response.trailers = trailers;
    match sent {
        Ok(count) => {
            request.sent_bytes += count;
            Ending::Complete
        }
        Err(error) => Broken::Client(error).end(request),
    }
}

/// Lets go of a body that nobody gets to see.
pub fn abandon(request: &mut Request<'_>, source: Source) {
    if let Source::Upstream(body) = source {
        body.abandon(request);
    }
}
