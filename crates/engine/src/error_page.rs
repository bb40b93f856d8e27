//! What a client gets instead of what it asked for: `error_page`, or nginx's built-in pages.

use crate::Request;
use crate::core::error_page::{ErrorPage, Overwrite};
use crate::flow::{Reply, Source, Target};
use http::Status;

/// How a failure goes on.
pub enum Failure {
    /// With this answer.
    Reply(Reply),
    /// With another location.
    Redirect(Target),
}

/// Decides how the request ends that a step, an upstream or a check refused.
pub fn fail(request: &mut Request, status: Status) -> Failure {
    if status.ends_keep_alive() {
        request.keep_alive = false;
    }
    request.status_override = Some(status);
    request.response.content_type.clear();
    let plan = request.plan;
    // Within an error page, the next one is only shown when `recursive_error_pages` allows.
    if request.error_status.is_none() && !plan.error_pages.is_empty() && request.redirects_left > 0 {
        if !plan.core.recursive_error_pages.0 {
            request.error_status = Some(status);
        }
        if let Some(page) = plan.error_pages.iter().find(|page| page.status == status.0) {
            return show(request, page);
        }
    }
    let moved = matches!(status, Status::MOVED_PERMANENTLY | Status::MOVED_TEMPORARILY);
    Failure::Reply(if moved && refreshes(request) { refresh(request) } else { built_in(request, status) })
}

fn show(request: &mut Request, page: &ErrorPage) -> Failure {
    match page.overwrite {
        Overwrite::Keep => {}
        Overwrite::Page => request.status_override = None,
        Overwrite::Status(status) => request.status_override = Some(Status(status)),
    }
    let uri = request.render(&page.uri);
    if uri.starts_with(b"@") {
        return Failure::Redirect(Target::Named(uri));
    }
    if uri.starts_with(b"/") {
        if request.method != http::Method::Head {
            request.method = http::Method::Get;
        }
        let (uri, args) = match (page.uri.is_constant(), memchr::memchr(b'?', &uri)) {
            (None, Some(at)) => (uri[..at].to_vec(), uri[at + 1..].to_vec()),
            _ => (uri, page.args.clone()),
        };
        return Failure::Redirect(Target::Uri { uri, args });
    }
    // A page elsewhere: a redirect, whose status may only be one of those.
    let status = match page.overwrite {
        Overwrite::Status(status @ (301 | 302 | 303 | 307 | 308)) => Status(status),
        _ => Status::MOVED_TEMPORARILY,
    };
    request.status_override = Some(status);
    request.response.location = uri;
    Failure::Reply(if refreshes(request) { refresh(request) } else { built_in(request, status) })
}

/// `msie_refresh`: does this client get a page that sends it elsewhere instead of a redirect?
fn refreshes(request: &Request) -> bool {
    request.plan.core.msie_refresh.0 && crate::browser::of(&request.head.fields).msie
}

fn refresh(request: &mut Request) -> Reply {
    let mut page = b"<html><head><meta http-equiv=\"Refresh\" content=\"0; URL=".to_vec();
    let location = std::mem::take(&mut request.response.location);
    http::escape::escape_uri(http::escape::Escape::Refresh, &location, &mut page);
    page.extend_from_slice(b"\"></head><body></body></html>\r\n");
    request.status_override = Some(Status::OK);
    Reply { status: Status::OK, source: page_of(request, page) }
}

/// A page of our own as a body, with the head that goes with it.
fn page_of(request: &mut Request, page: Vec<u8>) -> Source {
    let response = &mut request.response;
    response.content_type.clear();
    response.content_type.extend_from_slice(b"text/html");
    response.content_length = Some(page.len() as u64);
    response.last_modified = None;
    response.ranges_allowed = false;
    response.fields.remove(b"ETag");
    response.fields.remove(b"Accept-Ranges");
    Source::Bytes(page)
}

/// nginx's own page for a status; statuses without one have an empty body.
pub fn built_in(request: &mut Request, status: Status) -> Reply {
    if status.ends_keep_alive() {
        request.keep_alive = false;
    }
    let shown = request.status_override.unwrap_or(status);
    let shown = if shown.0 == 0 { status } else { shown.as_sent() };
    request.status_override = Some(shown);
    request.response.content_type.clear();
    let padding = request.plan.core.msie_padding.0 && pads(request, status);
    let mut page = Vec::new();
    let name = request.thread.server_name(*request.plan.core.server_tokens);
    if !http::error_page::body(status, name, padding, &mut page) {
        page_of(request, page);
        request.response.content_type.clear();
        return Reply { status: shown, source: Source::Empty };
    }
    Reply { status: shown, source: page_of(request, page) }
}

/// Old browsers show their own page instead of a short one.
fn pads(request: &Request, status: Status) -> bool {
    if status.0 < 400 || request.head.version < http::Version::HTTP_10 {
        return false;
    }
    let browser = crate::browser::of(&request.head.fields);
    browser.msie || browser.chrome
}
