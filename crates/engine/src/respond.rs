//! From a decision to bytes: conditional requests, filters, ranges, the head, then the body by the pump.

use crate::core::values::IfModifiedSince;
use crate::driver::Driver;
use crate::exchange::Ending;
use crate::flow::{Chunk, FileRange, Reply, Source, Transform};
use crate::head::Outgoing;
use crate::{Request, pump};
use http::{Method, Status, Version};

/// Sends an answer.
pub async fn respond(request: &mut Request<'_>, driver: &mut Driver, reply: Reply) -> Ending {
    let Reply { status, mut source } = reply;
    request.response.status = match request.status_override.take() {
        // An error page answers with the status it stands for.
        Some(kept) => {
            request.response.status_line.clear();
            kept
        }
        None => status,
    };
    if let Some(replaced) = conditional(request, &mut source) {
        source = replaced;
    }
    let mut transforms: Vec<Box<dyn Transform>> = Vec::new();
    for filter in &request.plan.filters {
        transforms.extend(filter.head(request));
    }
    if transforms.iter().all(|transform| transform.keeps_positions()) {
        ranges(request, &mut source);
    } else {
        // A transformed body has another length and other bytes than its file.
        request.response.content_length = None;
        request.response.ranges_allowed = false;
    }
    let bodiless = is_bodiless(request);
    let framing = framing(request, bodiless, &source);
    settle_head(request, driver);
    request.response.sent = true;
    driver.send_head(request, framing);
    if bodiless {
        pump::abandon(request, source);
        return pump::finish(request, driver).await;
    }
    pump::pump(request, driver, source, transforms).await
}

/// Answers to HEAD and those whose status has no body.
fn is_bodiless(request: &Request<'_>) -> bool {
    let status = request.response.status;
    request.method == Method::Head || status.is_bodiless() && !request.response.upgraded
}

/// What is left to say of the head once the status is known.
fn settle_head(request: &mut Request<'_>, driver: &mut Driver) {
    let response = &mut request.response;
    match response.status {
        Status::NO_CONTENT => {
            response.content_type.clear();
            response.last_modified = None;
        }
        Status::OK | Status::PARTIAL_CONTENT | Status::NOT_MODIFIED => {}
        _ => response.last_modified = None,
    }
    // A body that nobody has asked for is read and dropped. When the answer refuses the request, nobody knows whether
    // the client will send its body at all: then the connection ends.
    if driver.continue_is_owed() && (!driver.body_is_done() || request.response.status.0 < 300) {
        if request.response.status.0 < 300 {
            driver.send_continue();
        } else {
            request.keep_alive = false;
        }
    }
    let core = &request.plan.core;
    let stopping = request.thread.is_stopping() && core.keepalive_min_timeout.0 == 0;
    if stopping || core.keepalive_timeout.milliseconds == 0 {
        request.keep_alive = false;
    }
}

fn framing(request: &mut Request<'_>, bodiless: bool, source: &Source) -> Outgoing {
    if request.response.upgraded {
        request.response.content_length = None;
        return Outgoing::Upgraded;
    }
    let status = request.response.status;
    if status.is_bodiless() {
        // RFC 9110 section 8.6: 204 and 1xx carry no length; 304 may.
        if status != Status::NOT_MODIFIED {
            request.response.content_length = None;
        }
        if status == Status::NO_CONTENT {
            request.response.content_type.clear();
            request.response.last_modified = None;
        }
        return Outgoing::Length;
    }
    let may_chunk = request.head.version >= Version::HTTP_11 && request.plan.core.chunked_transfer_encoding.0;
    if request.response.expects_trailers && may_chunk && !bodiless {
        request.response.content_length = None;
        return Outgoing::Chunked;
    }
    if matches!(source, Source::Empty) && request.response.content_length.is_none() && !bodiless {
        request.response.content_length = Some(0);
    }
    if request.response.content_length.is_some() || bodiless {
        return Outgoing::Length;
    }
    if may_chunk {
        return Outgoing::Chunked;
    }
    request.keep_alive = false;
    Outgoing::Close
}

/// RFC 9110 section 13: a client that has the current version gets 304, one that expects another 412.
fn conditional(request: &mut Request<'_>, source: &mut Source) -> Option<Source> {
    if request.response.status != Status::OK
        || request.subrequest
        // As in nginx, an upstream is trusted to have looked at the conditions itself.
        || matches!(source, Source::Upstream(_))
        || request.response.last_modified.is_none() && !request.response.fields.contains(b"ETag")
    {
        return None;
    }
    let mode = match *request.plan.core.if_modified_since {
        IfModifiedSince::Off => http::conditional::ModifiedSince::Off,
        IfModifiedSince::Exact => http::conditional::ModifiedSince::Exact,
        IfModifiedSince::Before => http::conditional::ModifiedSince::Before,
    };
    let etag = request.response.fields.get(b"ETag");
    let verdict =
        http::conditional::evaluate(&request.head.fields, request.response.last_modified, etag, mode);
    match verdict {
        http::conditional::Verdict::Proceed => None,
        http::conditional::Verdict::NotModified => {
            let response = &mut request.response;
            response.status = Status::NOT_MODIFIED;
            response.status_line.clear();
            response.content_type.clear();
            response.content_length = None;
            response.fields.remove(b"Accept-Ranges");
            pump::abandon(request, std::mem::replace(source, Source::Empty));
            Some(Source::Empty)
        }
        http::conditional::Verdict::PreconditionFailed => {
            pump::abandon(request, std::mem::replace(source, Source::Empty));
            let reply = crate::error_page::built_in(request, Status::PRECONDITION_FAILED);
            request.response.status = Status::PRECONDITION_FAILED;
            request.status_override = None;
            request.response.fields.remove(b"Accept-Ranges");
            Some(reply.source)
        }
    }
}

/// RFC 9110 section 14: the parts that were asked for.
fn ranges(request: &mut Request<'_>, source: &mut Source) {
    let response = &request.response;
    if !response.ranges_allowed || response.status != Status::OK || request.subrequest {
        return;
    }
    let (Some(length), true) = (response.content_length, request.head.version >= Version::HTTP_10) else {
        return;
    };
    let mut max = request.plan.core.max_ranges.map_or(usize::MAX, |number| number.0);
    if max == 0 {
        return;
    }
    // A body that passes by once cannot be sent in several parts.
    if matches!(source, Source::Upstream(_)) {
        max = 1;
    }
    let wanted = request.head.fields.get(b"Range").filter(|_| {
        let etag = response.fields.get(b"ETag");
        http::conditional::if_range_holds(&request.head.fields, response.last_modified, etag)
    });
    let parsed = wanted.map(|text| http::range::parse(text, length, max));
    match parsed {
        None | Some(http::range::Ranges::Whole) => {
            request.response.fields.replace(b"Accept-Ranges", b"bytes")
        }
        Some(http::range::Ranges::Unsatisfiable) => {
            let text = format!("bytes */{length}");
            request.response.fields.push(b"Content-Range", text.as_bytes());
            let reply = crate::error_page::built_in(request, Status::RANGE_NOT_SATISFIABLE);
            request.response.status = Status::RANGE_NOT_SATISFIABLE;
            request.status_override = None;
            pump::abandon(request, std::mem::replace(source, reply.source));
        }
        Some(http::range::Ranges::Parts(parts)) => partial(request, source, &parts, length),
    }
}

fn partial(request: &mut Request<'_>, source: &mut Source, parts: &[http::range::Part], length: u64) {
    if let (Source::Upstream(body), [part]) = (&mut *source, parts) {
        body.window = Some((part.start, part.end - part.start));
        one_part(request, part, length);
        return;
    }
    let piece = |part: &http::range::Part, source: &Source| match source {
        Source::Bytes(bytes) => {
            bytes.get(part.start as usize..part.end as usize).map(|bytes| Chunk::Bytes(bytes.to_vec()))
        }
        Source::File(file) => Some(Chunk::File(FileRange {
            file: file.file.clone(),
            offset: file.offset + part.start,
            length: part.end - part.start,
        })),
        _ => None,
    };
    let pieces: Vec<Chunk> = parts.iter().filter_map(|part| piece(part, source)).collect();
    if pieces.len() != parts.len() {
        return;
    }
    if let [part] = parts {
        one_part(request, part, length);
        *source = Source::Pieces(pieces);
        return;
    }
    let response = &mut request.response;
    response.status = Status::PARTIAL_CONTENT;
    response.status_line.clear();
    let mut content_type = Vec::new();
    crate::variables::content_type(response, &mut content_type);
    let boundary = http::range::Boundary::new(net::random::next_u64());
    let mut all = Vec::with_capacity(pieces.len() * 2 + 1);
    let mut total = 0;
    for (part, piece) in parts.iter().zip(pieces) {
        let mut header = Vec::new();
        boundary.part_header(&content_type, part, length, &mut header);
        total += header.len() as u64 + (part.end - part.start);
        all.push(Chunk::Bytes(header));
        all.push(piece);
    }
    let mut end = Vec::new();
    boundary.end(&mut end);
    total += end.len() as u64;
    all.push(Chunk::Bytes(end));
    response.content_length = Some(total);
    response.charset.clear();
    response.content_type = boundary.content_type();
    *source = Source::Pieces(all);
}

/// The head of an answer that holds one part.
fn one_part(request: &mut Request<'_>, part: &http::range::Part, length: u64) {
    let response = &mut request.response;
    response.status = Status::PARTIAL_CONTENT;
    response.status_line.clear();
    response.content_length = Some(part.end - part.start);
    let mut text = Vec::new();
    http::range::content_range(part, length, &mut text);
    response.fields.push(b"Content-Range", &text);
}
