//! A request on its way through the server: what came, what was decided, what goes out.

mod parts;

pub use parts::{Parts, SpareParts};

use crate::connection::Facts;
use crate::core::values::KeepaliveDisable;
use crate::module::Read;
use crate::plan::{Plan, PlanId, Site, Snapshot};
use crate::thread::Thread;
use crate::upstream::{Attempted, Named};
use crate::variables::{Definition, NESTED_MAX};
use bstr::BString;
use http::{Fields, RequestHead, Status};
use std::rc::Rc;
use std::sync::Arc;
use template::{Scope, Template, VariableId};

/// How many internal redirects a request may make (nginx's `NGX_HTTP_MAX_URI_CHANGES`).
pub const REDIRECTS_MAX: u8 = 10;

/// One request. Fields are open: any module may read them all, and change what its directive is about.
pub struct Request<'s> {
    /// The configuration this request is served by, from its first byte to its log line.
    pub snapshot: &'s Snapshot,
    /// What belongs to the thread: clock, pools, logs.
    pub thread: &'s Thread,
    /// The connection it came on.
    pub connection: Rc<Facts>,
    /// The server that answers.
    pub site: &'s Site,
    /// The location (or server, `if`, `limit_except`) in force.
    pub plan: &'s Plan,

    /// The head as it came.
    pub head: RequestHead,
    /// The method in force: `error_page` and `X-Accel-Redirect` turn it to GET.
    pub method: http::Method,
    /// The decoded path, `$uri`.
    pub uri: Vec<u8>,
    /// What followed the `?`, `$args`.
    pub args: Vec<u8>,
    /// Is [`Request::uri`] still the client's own, so that it can be passed on as it came?
    pub uri_as_sent: bool,
    /// Does the URI still begin with the location's name? Not behind `rewrite ... break`.
    pub prefix_valid: bool,
    /// `try_files` has put the rest of a path behind an `alias` that takes nothing of the URI into it.
    pub uri_below_alias: bool,
    /// Did a step change the URI, so that the location is looked for again?
    pub uri_changed: bool,
    /// How many internal redirects are left, and one: the redirect that makes it 0 is the one too many.
    pub redirects_left: u8,
    /// Did an internal redirect lead here?
    pub internal: bool,
    /// Did an `error_page` lead here, and with which status?
    pub error_status: Option<Status>,
    /// The status that `error_page` keeps for the answer.
    pub status_override: Option<Status>,
    /// Groups of the regular expression that matched last.
    pub captures: Captures,
    /// Values of variables that were set or computed once.
    pub stored: Vec<Option<Vec<u8>>>,
    /// How deep variables are nested in the evaluation under way.
    pub nested: u8,
    /// The user of Basic authentication, looked for on first use: `Some(None)` is "none".
    pub user: Option<Option<BString>>,
    /// The real address of the client, when a trusted proxy told it.
    pub real_address: Option<net::address::Address>,

    /// The request's body.
    pub body: Body,
    /// The answer's head.
    pub response: Response,
    /// Whom the request is passed to, as the configuration names it.
    pub passed_to: Option<Arc<Named>>,
    /// The peers that were asked.
    pub attempts: Vec<Attempted>,
    /// The head of the upstream's answer, for `$upstream_http_*`.
    pub upstream_fields: Fields,
    /// Trailers of the upstream's answer.
    pub upstream_trailers: Fields,

    /// When the head's first byte was read, monotonic milliseconds.
    pub started_ms: u64,
    /// Bytes of head and body that came.
    pub received_bytes: u64,
    /// Bytes of head and body that went out.
    pub sent_bytes: u64,
    /// Bytes of the head that went out.
    pub sent_head_bytes: u64,
    /// May the connection be used again?
    pub keep_alive: bool,
    /// Bytes a second, 0 is no limit.
    pub limit_rate: Option<u64>,
    /// Is it a subrequest?
    pub subrequest: bool,
    /// What came of the last subrequest, once there was one.
    pub subresponse: Option<Box<Subresponse>>,
    /// Did everything go out?
    pub completed: bool,
    /// Did the client take too long? Decides whether the connection ends with a reset.
    pub timed_out: bool,
    /// Must more be read before the connection ends, because the client is still sending?
    pub linger: bool,
    /// Is the client gone, so that there is nobody to answer?
    pub client_gone: bool,
    /// The request's identifier, made on first use.
    pub id: Option<[u8; 16]>,
    /// Notes that modules keep from one of their functions to another, by the module's own type.
    pub notes: Vec<(std::any::TypeId, Box<dyn std::any::Any>)>,
    /// Notes that internal redirects leave alone, and that a request shares with its subrequests.
    pub lasting: Vec<(std::any::TypeId, Box<dyn std::any::Any>)>,
    /// What the request is doing, for the tail of error messages (`while connecting to upstream`).
    pub action: &'static str,
    /// What the last upstream message should name, e.g. `http://127.0.0.1:3000/x`.
    pub upstream_uri: Vec<u8>,
}

/// The answer's head until it is sent.
#[derive(Default)]
pub struct Response {
    /// The status, once known.
    pub status: Status,
    /// The status line's text as an upstream sent it, without the version; empty: our own.
    pub status_line: Vec<u8>,
    /// `Content-Type`; empty: none.
    pub content_type: Vec<u8>,
    /// `; charset=`, added when the type is sent; empty: none.
    pub charset: Vec<u8>,
    /// `Content-Length`, when known.
    pub content_length: Option<u64>,
    /// `Last-Modified`, seconds since 1970.
    pub last_modified: Option<i64>,
    /// `Location`; empty: none. Relative ones are completed when they are sent.
    pub location: Vec<u8>,
    /// May ranges be served?
    pub ranges_allowed: bool,
    /// Everything else, in order.
    pub fields: Fields,
    /// Trailers.
    pub trailers: Fields,
    /// `Server` and `Date` come from an upstream (`proxy_pass_header`).
    pub server_given: bool,
    /// As [`Response::server_given`], for `Date`.
    pub date_given: bool,
    /// A filter will add trailers, so that the body must be chunked.
    pub expects_trailers: bool,
    /// Was the head sent?
    pub sent: bool,
    /// An upgraded connection: no framing, bytes both ways.
    pub upgraded: bool,
}

impl Response {
    /// Makes it as new, keeping buffers.
    pub fn clear(&mut self) {
        let Response {
            status,
            status_line,
            content_type,
            charset,
            content_length,
            last_modified,
            location,
            ranges_allowed,
            fields,
            trailers,
            server_given,
            date_given,
            expects_trailers,
            sent,
            upgraded,
        } = self;
        for buffer in [status_line, content_type, charset, location] {
            buffer.clear();
        }
        fields.clear();
        trailers.clear();
        (*status, *content_length, *last_modified) = (Status::default(), None, None);
        (*ranges_allowed, *server_given, *date_given) = (false, false, false);
        (*expects_trailers, *sent, *upgraded) = (false, false, false);
    }
}

/// Groups of the last match.
#[derive(Default)]
pub struct Captures {
    /// What was matched against.
    pub subject: Vec<u8>,
    /// The groups in it, the whole match first.
    pub groups: template::Captures,
}

impl Captures {
    /// The text of a group that took part in the match.
    pub fn group(&self, n: usize) -> Option<&[u8]> {
        self.subject.get(self.groups.get(n)?)
    }
}

/// The request's body.
#[derive(Default)]
pub struct Body {
    /// Its length as announced; none for a chunked one not yet read.
    pub length: Option<u64>,
    /// Was it read whole?
    pub read: bool,
    /// What is in memory.
    pub memory: Vec<u8>,
    /// The rest, or all.
    pub file: Option<Rc<net::file::temporary::TemporaryFile>>,
    /// How much of it is in the file.
    pub stored_bytes: u64,
    /// How many bytes have been read.
    pub received: u64,
}

/// What came of a subrequest.
#[derive(Default)]
pub struct Subresponse {
    /// The head of its answer.
    pub response: Response,
    /// The peers that were asked.
    pub attempts: Vec<Attempted>,
    /// The head of the upstream's answer.
    pub upstream_fields: Fields,
    /// Trailers of the upstream's answer.
    pub upstream_trailers: Fields,
    /// Its path in the end.
    pub uri: Vec<u8>,
    /// Its arguments.
    pub args: Vec<u8>,
}

impl<'s> Request<'s> {
    /// May the connection be used again, as far as the head and the location's settings say?
    pub fn settle_keep_alive(&mut self) {
        let core = &self.plan.core;
        let old_enough =
            net::clock::now_ms().saturating_sub(self.connection.started_ms) > core.keepalive_time.0;
        self.keep_alive = self.head.keep_alive()
            && core.keepalive_timeout.milliseconds > 0
            && self.connection.requests.get() < core.keepalive_requests.0 as u64
            && !old_enough
            && !self.is_of_a_browser_without_keep_alive()
            && (!self.thread.is_stopping() || core.keepalive_min_timeout.0 > 0);
    }

    /// `keepalive_disable`: old MSIE waits after a POST, old Safari sends to connections that are closed.
    fn is_of_a_browser_without_keep_alive(&self) -> bool {
        let disabled = *self.plan.core.keepalive_disable;
        let cares_of_msie6 = disabled.has(KeepaliveDisable::MSIE6) && self.method == http::Method::Post;
        let cares_of_safari = disabled.has(KeepaliveDisable::SAFARI);
        if !cares_of_msie6 && !cares_of_safari {
            return false;
        }
        let browser = crate::browser::of(&self.head.fields);
        cares_of_msie6 && browser.msie6 || cares_of_safari && browser.safari
    }

    /// Switches to another plan of the same snapshot; its settings may end keep-alive, never begin it.
    pub fn switch(&mut self, plan: PlanId) {
        self.plan = self.snapshot.plan(plan);
        if self.keep_alive {
            self.settle_keep_alive();
        }
    }

    /// A template's value.
    pub fn render(&mut self, template: &Template) -> Vec<u8> {
        let mut out = Vec::new();
        template.render(self, &mut out);
        out
    }

    /// A template's value in a buffer of the thread's, to be [`crate::Source::Bytes`]: the pump gives it back.
    pub fn render_body(&mut self, template: &Template) -> Vec<u8> {
        let mut out = self.thread.spare.buffer();
        template.render(self, &mut out);
        out
    }

    /// A template's value, appended.
    pub fn render_into(&mut self, template: &Template, out: &mut Vec<u8>) {
        template.render(self, out);
    }

    /// Is the template's value neither empty nor `0` (nginx's predicates)?
    pub fn is_true(&mut self, template: &Template) -> bool {
        let value = self.render(template);
        !value.is_empty() && value != b"0"
    }

    /// Matches a subject and keeps the groups for `$1` and named variables.
    pub fn matches(&mut self, expression: &crate::module::CompiledRegex, subject: &[u8]) -> bool {
        if !expression.regex.captures(subject, &mut self.captures.groups) {
            return false;
        }
        self.captures.subject.clear();
        self.captures.subject.extend_from_slice(subject);
        for (group, variable) in expression.named.iter() {
            let value = self.captures.group(*group).map(<[u8]>::to_vec);
            self.store(*variable, value.unwrap_or_default());
        }
        true
    }

    /// Sets a variable for the rest of the request.
    pub fn store(&mut self, variable: VariableId, value: Vec<u8>) {
        let index = variable.0 as usize;
        if self.stored.len() <= index {
            self.stored.resize_with(index + 1, || None);
        }
        self.stored[index] = Some(value);
    }

    /// A module's note, made on first use.
    pub fn note<T: Default + 'static>(&mut self) -> &mut T {
        let id = std::any::TypeId::of::<T>();
        let at = self.notes.iter().position(|(kept, _)| *kept == id).unwrap_or_else(|| {
            self.notes.push((id, Box::<T>::default()));
            self.notes.len() - 1
        });
        schema::directive::own_mut(&mut *self.notes[at].1)
    }

    /// As [`Request::note`], but kept over internal redirects and shared with subrequests.
    pub fn lasting_note<T: Default + 'static>(&mut self) -> &mut T {
        let id = std::any::TypeId::of::<T>();
        let at = self.lasting.iter().position(|(kept, _)| *kept == id).unwrap_or_else(|| {
            self.lasting.push((id, Box::<T>::default()));
            self.lasting.len() - 1
        });
        schema::directive::own_mut(&mut *self.lasting[at].1)
    }

    /// Does something with variables reading as in the last subrequest.
    pub fn as_subrequest<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        self.exchange_subresponse();
        let result = what(self);
        self.exchange_subresponse();
        result
    }

    fn exchange_subresponse(&mut self) {
        use std::mem::swap;
        let mut inner = self.subresponse.take().unwrap_or_default();
        swap(&mut self.response, &mut inner.response);
        swap(&mut self.attempts, &mut inner.attempts);
        swap(&mut self.upstream_fields, &mut inner.upstream_fields);
        swap(&mut self.upstream_trailers, &mut inner.upstream_trailers);
        swap(&mut self.uri, &mut inner.uri);
        swap(&mut self.args, &mut inner.args);
        self.subresponse = Some(inner);
    }

    /// The client's address: the real one when a trusted proxy told it.
    pub fn client_address(&self) -> &net::address::Address {
        self.real_address.as_ref().unwrap_or(&self.connection.peer)
    }

    /// The scheme the client uses.
    pub fn scheme(&self) -> &'static str {
        if self.connection.tls { "https" } else { "http" }
    }
}

/// The user name of Basic authentication, decoded once.
pub fn remote_user<'r>(request: &'r mut Request) -> Option<&'r BString> {
    let Request { user, head, .. } = request;
    user.get_or_insert_with(|| http::authorization::basic(&head.fields).map(|basic| basic.user)).as_ref()
}

impl Scope for Request<'_> {
    fn variable(&mut self, id: VariableId, out: &mut Vec<u8>) -> bool {
        if let Some(Some(value)) = self.stored.get(id.0 as usize) {
            out.extend_from_slice(value);
            return true;
        }
        match self.snapshot.variables.definition(id) {
            Definition::Builtin(variable) => match variable.read {
                Read::Plain(read) | Read::Printable(read) => read(self, out),
                Read::Prefix(_) => false,
            },
            Definition::Prefix(variable, rest) => match variable.read {
                Read::Prefix(read) => read(self, rest, out),
                Read::Plain(_) | Read::Printable(_) => false,
            },
            Definition::Stored => false,
            Definition::Computed(computed) => {
                if self.nested >= NESTED_MAX {
                    let name = self.snapshot.variables.name(id);
                    self.log_error(
                        conf::Level::Error,
                        format_args!("cycle while evaluating variable \"{name}\""),
                    );
                    return false;
                }
                self.nested += 1;
                let start = out.len();
                let found = computed.compute(self, out);
                self.nested -= 1;
                if found && !computed.volatile() {
                    let value = out[start..].to_vec();
                    self.store(id, value);
                }
                found
            }
        }
    }

    fn capture(&mut self, group: u8, out: &mut Vec<u8>) {
        if let Some(text) = self.captures.group(group as usize) {
            out.extend_from_slice(text);
        }
    }
}
