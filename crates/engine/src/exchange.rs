//! One request from its head to its log line. Start reading here.
//!
//! ```text
//! enter: server's rewrite -> locate -> location's rewrite -> preaccess -> access -> precontent -> content
//!   a step says   Next               go on with the next step
//!                 Reply              respond
//!                 Forward            ask an upstream, then respond
//!                 Deny(status)       error_page: enter again, or the built-in page
//!                 Redirect(target)   enter again
//! respond: conditional, ranges, filters, head, body; then the loggers
//! ```
//!
//! Every way back to "enter" costs one of the request's redirects, so the loop is bounded.

use crate::core::values::Satisfy;
use crate::driver::Driver;
use crate::flow::{Flow, Phase, Reply, Step, Target};
use crate::locate::{Located, locate};
use crate::request::Response;
use crate::{Request, effects, error_page, respond, upstream};
use conf::Level;
use http::Status;
use net::timer::Deadline;
use std::time::Duration;

/// What becomes of the connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The answer went out whole; the connection may be used again if both sides want.
    Complete,
    /// The answer was cut short or the client is gone: the connection ends now.
    Broken,
    /// End without an answer (status 444).
    Silent,
}

/// Where a request enters the phases.
#[derive(Clone, Copy)]
enum Entry {
    /// At the server's own rewrite rules.
    Server,
    /// At the rewrite rules of this location, which is in force already.
    Location,
}

/// Serves one request. `first` is what was decided before any step could run: a head that is refused.
pub async fn exchange(request: &mut Request<'_>, driver: &mut Driver, first: Option<Flow>) -> Ending {
    let ending = answer(request, driver, first).await;
    request.completed = ending == Ending::Complete;
    if !request.plan.core.post_action.is_empty() && !request.subrequest {
        Box::pin(post_actions(request)).await;
    }
    if !request.subrequest || request.plan.core.log_subrequest.0 {
        log(request);
    }
    ending
}

fn log(request: &mut Request<'_>) {
    for logger in &request.plan.loggers {
        logger.log(request);
    }
}

async fn answer(request: &mut Request<'_>, driver: &mut Driver, mut first: Option<Flow>) -> Ending {
    let mut entry = Entry::Server;
    if first.is_none() && has_steps(request, Phase::PostRead) {
        first = match run_phase(request, driver, Phase::PostRead).await {
            Flow::Next => None,
            decided => Some(decided),
        };
    }
    loop {
        let flow = match first.take() {
            Some(flow) => flow,
            None => decide(request, driver, entry).await,
        };
        let flow = match flow {
            Flow::Forward(call) => upstream::call(request, driver, call).await,
            decided => decided,
        };
        let flow = match flow {
            Flow::Reply(_) if driver.check_unwanted_body().is_err() => {
                request.log_error(Level::Error, format_args!("client sent invalid chunked body"));
                Flow::Deny(Status::BAD_REQUEST)
            }
            decided => decided,
        };
        let redirect = match flow {
            Flow::Reply(reply) => return respond::respond(request, driver, reply).await,
            Flow::Deny(status) if is_unanswered(request, status) => return unanswered(request, status),
            Flow::Deny(status) => match error_page::fail(request, status) {
                error_page::Failure::Reply(reply) => return respond::respond(request, driver, reply).await,
                error_page::Failure::Redirect(target) => target,
            },
            Flow::Redirect(target) => target,
            // Content decided nothing: there is nothing to answer with.
            Flow::Next | Flow::Allow | Flow::Forward(_) | Flow::Ask(_) => {
                let reply = error_page::built_in(request, Status::NOT_FOUND);
                return respond::respond(request, driver, reply).await;
            }
        };
        match enter(request, redirect) {
            Ok(next) => entry = next,
            Err(status) => first = Some(Flow::Deny(status)),
        }
    }
}

/// `post_action`: the same request enters again for nobody to see, and again where that leads to a location with one of
/// its own. Variables tell of the answer that went out until there is another; the log tells of both.
async fn post_actions(request: &mut Request<'_>) {
    let (completed, keep_alive, linger) = (request.completed, request.keep_alive, request.linger);
    let (upgraded, timed_out) = (request.response.upgraded, request.timed_out);
    let (sent_bytes, sent_head_bytes) = (request.sent_bytes, request.sent_head_bytes);
    while !request.plan.core.post_action.is_empty() && request.redirects_left > 0 {
        let target = match &request.plan.core.post_action[..] {
            uri @ [b'/', ..] => Target::Uri { uri: uri.to_vec(), args: Vec::new() },
            name => Target::Named(name.into()),
        };
        request.client_gone = false;
        request.limit_rate = Some(0);
        answer(request, &mut Driver::discarding(), Some(Flow::Redirect(target))).await;
        (request.sent_bytes, request.sent_head_bytes) = (sent_bytes, sent_head_bytes);
    }
    (request.completed, request.keep_alive, request.linger) = (completed, keep_alive, linger);
    (request.response.upgraded, request.timed_out) = (upgraded, timed_out);
}

/// Statuses that are only for the log, and any status once the client is gone.
fn is_unanswered(request: &Request<'_>, status: Status) -> bool {
    request.client_gone
        || matches!(status, Status::CLOSE | Status::CLIENT_CLOSED_REQUEST | Status::REQUEST_TIME_OUT)
}

#[cold]
fn unanswered(request: &mut Request<'_>, status: Status) -> Ending {
    request.response.status = status;
    if status == Status::CLOSE {
        request.timed_out = true;
        return Ending::Silent;
    }
    Ending::Broken
}

/// Writes down a request whose head never became whole.
pub fn abandon(request: &mut Request<'_>, status: Status) {
    unanswered(request, status);
    log(request);
}

/// Points the request at a redirect's target.
fn enter(request: &mut Request<'_>, target: Target) -> Result<Entry, Status> {
    request.redirects_left = request.redirects_left.saturating_sub(1);
    if request.redirects_left == 0 {
        let name = match &target {
            Target::Uri { uri, .. } => uri,
            Target::Named(name) => name,
        };
        let kind = if matches!(target, Target::Named(_)) {
            "redirect to named location"
        } else {
            "internally redirecting to"
        };
        let name = bstr::BStr::new(name);
        request.log_error(
            Level::Error,
            format_args!("rewrite or internal redirection cycle while {kind} \"{name}\""),
        );
        return Err(Status::INTERNAL_SERVER_ERROR);
    }
    request.internal = true;
    request.uri_changed = false;
    request.prefix_valid = true;
    request.uri_below_alias = false;
    clear_response(request);
    request.notes.clear();
    request.passed_to = None;
    match target {
        Target::Uri { uri, args } => {
            request.uri = uri;
            request.args = args;
            request.uri_as_sent = false;
            request.plan = request.snapshot.plan(request.site.plan);
            Ok(Entry::Server)
        }
        Target::Named(name) => match request.site.named.get(&name) {
            Some(plan) => {
                request.switch(*plan);
                Ok(Entry::Location)
            }
            None => {
                let name = bstr::BStr::new(&name);
                request.log_error(Level::Error, format_args!("could not find named location \"{name}\""));
                Err(Status::INTERNAL_SERVER_ERROR)
            }
        },
    }
}

/// Forgets the answer prepared so far, but for its header lines: those that a step has set go out with the answer
/// that is found in the end.
fn clear_response(request: &mut Request<'_>) {
    let response = &mut request.response;
    let location = std::mem::take(&mut response.location);
    let content_type = std::mem::take(&mut response.content_type);
    let fields = std::mem::take(&mut response.fields);
    // What was answered stays to be told while a `post_action` runs.
    let status = if response.sent { response.status } else { Status::default() };
    response.clear();
    *response = Response { location, content_type, fields, status, ..std::mem::take(response) };
}

/// Runs the phases until a step decides.
async fn decide(request: &mut Request<'_>, driver: &mut Driver, entry: Entry) -> Flow {
    let mut searching = matches!(entry, Entry::Server);
    if searching && has_steps(request, Phase::Rewrite) {
        match run_phase(request, driver, Phase::Rewrite).await {
            Flow::Next => request.uri_changed = false,
            decided => return decided,
        }
    }
    loop {
        if searching && let Err(flow) = find_location(request) {
            return flow;
        }
        // Where no location was found, the server's own rules have run already.
        if request.plan.id != request.site.plan && has_steps(request, Phase::Rewrite) {
            match run_phase(request, driver, Phase::Rewrite).await {
                Flow::Next => {}
                decided => return decided,
            }
        }
        if !std::mem::take(&mut request.uri_changed) {
            break;
        }
        request.redirects_left = request.redirects_left.saturating_sub(1);
        if request.redirects_left == 0 {
            let uri = bstr::BStr::new(&request.uri);
            request.log_error(
                Level::Error,
                format_args!("rewrite or internal redirection cycle while processing \"{uri}\""),
            );
            return Flow::Deny(Status::INTERNAL_SERVER_ERROR);
        }
        request.plan = request.snapshot.plan(request.site.plan);
        searching = true;
    }
    for phase in [Phase::Preaccess, Phase::Access, Phase::Precontent] {
        if !has_steps(request, phase) {
            continue;
        }
        let decided = match phase {
            Phase::Access => access(request, driver).await,
            _ => run_phase(request, driver, phase).await,
        };
        match decided {
            Flow::Next => {}
            decided => return decided,
        }
    }
    content(request, driver).await
}

/// Finds the location and checks what it demands of every request.
fn find_location(request: &mut Request<'_>) -> Result<(), Flow> {
    if let Located::AddSlash(_) = locate(request) {
        let mut location = request.uri.clone();
        location.push(b'/');
        let mut escaped = Vec::with_capacity(location.len());
        http::escape::escape_uri(http::escape::Escape::Uri, &location, &mut escaped);
        if !request.args.is_empty() {
            escaped.push(b'?');
            escaped.extend_from_slice(&request.args);
        }
        request.response.location = escaped;
        return Err(Flow::Deny(Status::MOVED_PERMANENTLY));
    }
    if request.keep_alive {
        request.settle_keep_alive();
    }
    let core = &request.plan.core;
    if core.internal.0 && !request.internal {
        return Err(Flow::Deny(Status::NOT_FOUND));
    }
    if let Some((spared, plan)) = request.plan.limit_except
        && request.method.bit() & spared == 0
    {
        request.switch(plan);
    }
    let limit = core.client_max_body_size.0;
    if let Some(length) =
        request.body.length.filter(|length| limit > 0 && *length > limit && !request.body.read)
    {
        request
            .log_error(Level::Error, format_args!("client intended to send too large body: {length} bytes"));
        return Err(Flow::Deny(Status::REQUEST_ENTITY_TOO_LARGE));
    }
    Ok(())
}

/// Is there anything to run? Most phases of most locations are empty, and no future is made for those.
fn has_steps(request: &Request<'_>, phase: Phase) -> bool {
    !request.plan.steps[phase as usize].is_empty()
}

/// Steps of one phase, in order, until one decides.
async fn run_phase(request: &mut Request<'_>, driver: &mut Driver, phase: Phase) -> Flow {
    for step in &request.plan.steps[phase as usize] {
        match run(request, driver, &**step).await {
            Flow::Next | Flow::Allow => {}
            decided => return decided,
        }
    }
    Flow::Next
}

/// The access phase: `satisfy all` wants every module's consent, `satisfy any` one's.
async fn access(request: &mut Request<'_>, driver: &mut Driver) -> Flow {
    // Subrequests are judged by their parent.
    if request.subrequest {
        return Flow::Next;
    }
    let any = *request.plan.core.satisfy == Satisfy::Any;
    let mut refusal = None;
    for step in &request.plan.steps[Phase::Access as usize] {
        match run(request, driver, &**step).await {
            Flow::Next => {}
            Flow::Allow if any => {
                request.response.fields.remove(b"WWW-Authenticate");
                return Flow::Next;
            }
            Flow::Allow => {}
            Flow::Deny(status @ (Status::FORBIDDEN | Status::UNAUTHORIZED)) if any => {
                // A demand for credentials tells the client more than a plain refusal.
                if refusal != Some(Status::UNAUTHORIZED) {
                    refusal = Some(status);
                }
            }
            Flow::Deny(status) => return deny(request, driver, status).await,
            decided => return decided,
        }
    }
    match refusal {
        None => Flow::Next,
        Some(status) => {
            if status == Status::FORBIDDEN {
                request.log_error(Level::Error, format_args!("access forbidden by rule"));
            }
            deny(request, driver, status).await
        }
    }
}

/// Refuses; wrong credentials after a while (`auth_delay`), against guessing by the clock or by force.
async fn deny(request: &mut Request<'_>, driver: &mut Driver, status: Status) -> Flow {
    let delay = request.plan.core.auth_delay.0;
    if status == Status::UNAUTHORIZED && delay > 0 {
        request.log_error(Level::Info, format_args!("delaying unauthorized request"));
        Box::pin(driver.sleep(Deadline::after(Duration::from_millis(delay)))).await;
    }
    Flow::Deny(status)
}

/// The location's handler, or the first of index, listing and files that answers.
async fn content(request: &mut Request<'_>, driver: &mut Driver) -> Flow {
    let plan = request.plan;
    if let Some(handler) = &plan.handler {
        return run(request, driver, &**handler).await;
    }
    match run_phase(request, driver, Phase::Content).await {
        Flow::Next => {}
        decided => return decided,
    }
    if request.uri.ends_with(b"/") {
        let path = request.file_path();
        let path = bstr::BStr::new(&path);
        request.log_error(Level::Error, format_args!("directory index of \"{path}\" is forbidden"));
        return Flow::Deny(Status::FORBIDDEN);
    }
    request.log_error(Level::Error, format_args!("no handler found"));
    Flow::Deny(Status::NOT_FOUND)
}

/// Runs one step; what it asks for is done here and told to it.
async fn run(request: &mut Request<'_>, driver: &mut Driver, step: &dyn Step) -> Flow {
    let mut flow = step.run(request);
    while let Flow::Ask(ask) = flow {
        let answer = match effects::at_once(request, ask) {
            Ok(answer) => answer,
            // In a box, so that requests that wait for nothing do not carry what waiting takes.
            Err(wait) => match Box::pin(effects::wait(request, driver, wait)).await {
                Some(answer) => answer,
                None => return Flow::Deny(Status::CLIENT_CLOSED_REQUEST),
            },
        };
        flow = step.resume(request, answer);
    }
    flow
}

/// An answer without a body.
pub fn empty(status: Status) -> Flow {
    Flow::Reply(Reply { status, source: crate::Source::Empty })
}
