//! What a client gets instead of what it asked for: `error_page`, or nginx's built-in pages.

use crate::Request;
use crate::core::error_page::{ErrorPage, Overwrite};
use crate::core::values::ServerTokens;
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
    Failure::Reply(built_in(request, status))
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
    request.response.location_as_is = true;
    Failure::Reply(built_in(request, status))
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
    if !http::error_page::body(status, &server_name(*request.plan.core.server_tokens), padding, &mut page) {
        request.response.content_length = (!status.is_bodiless()).then_some(0);
        return Reply { status: shown, source: Source::Empty };
    }
    request.response.content_type.extend_from_slice(b"text/html");
    request.response.content_length = Some(page.len() as u64);
    request.response.last_modified = None;
    request.response.ranges_allowed = false;
    Reply { status: shown, source: Source::Bytes(page) }
}

/// What the `Server` header and the foot of error pages say.
pub fn server_name(tokens: ServerTokens) -> String {
    match tokens {
        ServerTokens::On => format!("gapura/{}", crate::VERSION),
        ServerTokens::Build => format!("gapura/{}", crate::VERSION),
        ServerTokens::Off => "gapura".to_owned(),
    }
}

/// Old browsers show their own page instead of a short one.
fn pads(request: &Request, status: Status) -> bool {
    let agent = request.head.fields.get(b"User-Agent").unwrap_or_default();
    let old =
        memchr::memmem::find(agent, b"MSIE ").is_some() && memchr::memmem::find(agent, b"Opera").is_none();
    let chrome = memchr::memmem::find(agent, b"Chrome/").is_some();
    status.0 >= 400 && (old || chrome) && request.head.version >= http::Version::HTTP_10
}
