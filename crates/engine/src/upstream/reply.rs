//! The head of an upstream's answer becomes the head of ours: hidden headers, `X-Accel-*`, redirects to handle
//! here, errors to show with `error_page`.

use super::settings::IgnoreHeaders;
use super::{Call, UpstreamBody};
use crate::Request;
use crate::flow::{Flow, Reply, Source, Target};
use http::{ResponseHead, Status, Version};

/// Headers that never go on: they are about the connection, or ours to say.
const HOP_HEADERS: [&[u8]; 4] = [b"connection", b"keep-alive", b"transfer-encoding", b"upgrade"];

/// What an answer with `X-Accel-Redirect` still says about the answer that takes its place.
const KEPT_IN_REDIRECTS: [&[u8]; 6] =
    [b"Content-Type", b"Set-Cookie", b"Content-Disposition", b"Cache-Control", b"Expires", b"Accept-Ranges"];

/// Takes over the answer.
pub fn settle(request: &mut Request<'_>, mut head: Box<ResponseHead>, body: Box<UpstreamBody>) -> Flow {
    if request.snapshot.variables.wants_upstream_fields {
        request.upstream_fields.clear();
        request.upstream_fields.extend_from(&head.fields);
    }
    let flow = take_over(request, &head, body);
    // Whoever asks later finds the fields here; nothing was copied for that.
    std::mem::swap(&mut request.upstream_fields, &mut head.fields);
    request.thread.spare.keep_head(head);
    flow
}

fn take_over(request: &mut Request<'_>, head: &ResponseHead, mut body: Box<UpstreamBody>) -> Flow {
    let call = body.call();
    let ignored = call.settings.ignore_headers.bits;
    let redirect = head.fields.get(b"X-Accel-Redirect").filter(|_| ignored & IgnoreHeaders::REDIRECT == 0);
    let intercepted = call.settings.intercept_errors.0
        && head.status.0 >= 300
        && request.error_status.is_none()
        && request.plan.error_pages.iter().any(|page| page.status == head.status.0);
    if let Some(target) = redirect {
        return accel_redirect(request, head, target, body);
    }
    if intercepted {
        if head.status == Status::UNAUTHORIZED {
            for value in head.fields.all(b"WWW-Authenticate") {
                request.response.fields.push(b"WWW-Authenticate", value);
            }
        }
        body.finish_quickly(request);
        return Flow::Deny(head.status);
    }
    accel(request, head, ignored, &mut body);
    copy_head(request, body.call(), head);
    Flow::Reply(Reply { status: head.status, source: Source::Upstream(body) })
}

/// The upstream names another resource of ours to answer with.
fn accel_redirect(
    request: &mut Request<'_>,
    head: &ResponseHead,
    target: &[u8],
    mut body: Box<UpstreamBody>,
) -> Flow {
    let Some(parsed) = redirect_target(target) else {
        let uri = bstr::BStr::new(target);
        request.log_error(conf::Level::Error, format_args!("unsafe URI \"{uri}\" was detected"));
        body.finish_quickly(request);
        return Flow::Deny(Status::NOT_FOUND);
    };
    let ignored = body.call().settings.ignore_headers.bits;
    accel(request, head, ignored, &mut body);
    body.finish_quickly(request);
    for (name, value) in head.fields.iter() {
        if KEPT_IN_REDIRECTS.iter().any(|kept| kept.eq_ignore_ascii_case(name)) {
            copy_header(request, body.call(), name, value);
        }
    }
    if request.method != http::Method::Head {
        request.method = http::Method::Get;
    }
    Flow::Redirect(parsed)
}

/// `X-Accel-Redirect`: a URI of this server, escaped, or a named location.
fn redirect_target(text: &[u8]) -> Option<Target> {
    if text.starts_with(b"@") {
        return Some(Target::Named(text.to_vec()));
    }
    let (path, args) = http::escape::split_given_uri(text)?;
    Some(Target::Uri { uri: path.into_owned(), args: args.to_vec() })
}

/// `X-Accel-Limit-Rate`, `-Buffering`, `-Charset`.
fn accel(request: &mut Request<'_>, head: &ResponseHead, ignored: u32, body: &mut UpstreamBody) {
    let wanted = |bit: u32, name: &[u8]| head.fields.get(name).filter(|_| ignored & bit == 0);
    if let Some(rate) = wanted(IgnoreHeaders::LIMIT_RATE, b"X-Accel-Limit-Rate")
        && let Some(rate) = schema::value::number(rate)
    {
        request.limit_rate = Some(rate as u64);
    }
    match wanted(IgnoreHeaders::BUFFERING, b"X-Accel-Buffering") {
        Some(text) if text.eq_ignore_ascii_case(b"no") => body.buffering = false,
        Some(text) if text.eq_ignore_ascii_case(b"yes") => body.buffering = true,
        _ => {}
    }
    if let Some(charset) = wanted(IgnoreHeaders::CHARSET, b"X-Accel-Charset") {
        request.response.charset.clear();
        request.response.charset.extend_from_slice(charset);
    }
}

fn copy_head(request: &mut Request<'_>, call: &Call, head: &ResponseHead) {
    request.response.status_line.clear();
    request.response.status_line.extend_from_slice(head.status_text());
    // An upgrade that the client has not asked for is none: the head is passed on, and nothing behind it.
    let is_upgrade = head.status == Status::SWITCHING_PROTOCOLS;
    request.response.upgraded = is_upgrade && request.head.fields.contains(b"upgrade");
    request.keep_alive &= !is_upgrade || request.response.upgraded;
    request.response.content_length = head.content_length;
    for (name, value) in head.fields.iter() {
        copy_header(request, call, name, value);
    }
    if call.settings.force_ranges.0 || head.version < Version::HTTP_10 {
        request.response.ranges_allowed = call.settings.force_ranges.0;
    }
}

fn copy_header(request: &mut Request<'_>, call: &Call, name: &[u8], value: &[u8]) {
    let mut lower = [0u8; 64];
    let lower = match lower.get_mut(..name.len()) {
        Some(slot) => {
            slot.copy_from_slice(name);
            // All of it, a fixed number of bytes, which takes less than fewer.
            lower.make_ascii_lowercase();
            &lower[..name.len()]
        }
        // No header with a meaning here is that long.
        None => name,
    };
    let response = &mut request.response;
    match lower {
        b"content-length" => return,
        b"upgrade" if response.upgraded => {
            response.fields.push(name, value);
            return;
        }
        _ if HOP_HEADERS.contains(&lower) || call.protocol.hides(lower) => return,
        b"content-type" => {
            response.content_type.clear();
            response.content_type.extend_from_slice(value);
            return;
        }
        // Ranges are ours to offer then.
        b"accept-ranges" if call.settings.force_ranges.0 => return,
        b"server" => response.server_given = true,
        b"date" => response.date_given = true,
        b"last-modified" => {
            // Kept as a time for conditional requests; sent in the same form either way when it parses.
            if let Some(seconds) = http::date::parse_http(value) {
                response.last_modified = Some(seconds);
                return;
            }
        }
        _ => {}
    }
    if !call.protocol.response_header(request, name, value) {
        request.response.fields.push(name, value);
    }
}
