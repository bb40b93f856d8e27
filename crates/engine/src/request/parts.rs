//! How a request begins and what is left of it for the next one on its connection.

use super::{Body, Captures, REDIRECTS_MAX, Request, Response};
use crate::connection::Facts;
use crate::plan::{Site, Snapshot};
use crate::thread::Thread;
use crate::upstream::Attempted;
use http::{Fields, RequestHead};
use std::cell::RefCell;
use std::mem::{swap, take};
use std::rc::Rc;

/// The buffers of a request that has ended, for the next one.
#[derive(Default)]
pub struct Parts {
    head: RequestHead,
    uri: Vec<u8>,
    args: Vec<u8>,
    captures: Captures,
    stored: Vec<Option<Vec<u8>>>,
    memory: Vec<u8>,
    response: Response,
    attempts: Vec<Attempted>,
    upstream_fields: Fields,
    upstream_trailers: Fields,
    upstream_uri: Vec<u8>,
}

/// The most of them that a thread keeps.
const PARTS_MAX: usize = 64;
/// A body buffer larger than this is given back between requests, bytes.
const KEPT_BODY_BYTES_MAX: usize = 16 * 1024;

/// Buffers that wait for a request, lent by their thread.
#[derive(Default)]
// Lent in their boxes, so that eight bytes move and not six hundred.
#[expect(clippy::vec_box)]
pub struct SpareParts(RefCell<Vec<Box<Parts>>>);

impl SpareParts {
    /// Some buffers, often with room.
    pub fn take(&self) -> Box<Parts> {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes the buffers of a request back, into the box they came from.
    pub fn keep(&self, request: &mut Request<'_>, mut parts: Box<Parts>) {
        let mut spare = self.0.borrow_mut();
        if spare.len() >= PARTS_MAX {
            return;
        }
        request.renew();
        let Parts {
            head,
            uri,
            args,
            captures,
            stored,
            memory,
            response,
            attempts,
            upstream_fields,
            upstream_trailers,
            upstream_uri,
        } = &mut *parts;
        swap(head, &mut request.head);
        swap(uri, &mut request.uri);
        swap(args, &mut request.args);
        swap(captures, &mut request.captures);
        swap(stored, &mut request.stored);
        swap(memory, &mut request.body.memory);
        swap(response, &mut request.response);
        swap(attempts, &mut request.attempts);
        swap(upstream_fields, &mut request.upstream_fields);
        swap(upstream_trailers, &mut request.upstream_trailers);
        swap(upstream_uri, &mut request.upstream_uri);
        spare.push(parts);
    }
}

impl<'s> Request<'s> {
    /// A request of which nothing is known yet; its head is to be read, then [`Request::begin`] is called.
    pub fn new(
        thread: &'s Thread,
        snapshot: &'s Snapshot,
        connection: Rc<Facts>,
        site: &'s Site,
        parts: &mut Parts,
    ) -> Request<'s> {
        Request {
            snapshot,
            thread,
            connection,
            site,
            plan: snapshot.plan(site.plan),
            method: parts.head.method,
            head: take(&mut parts.head),
            uri: take(&mut parts.uri),
            args: take(&mut parts.args),
            uri_as_sent: true,
            prefix_valid: true,
            uri_below_alias: false,
            uri_changed: false,
            redirects_left: REDIRECTS_MAX + 1,
            internal: false,
            error_status: None,
            status_override: None,
            captures: take(&mut parts.captures),
            stored: take(&mut parts.stored),
            nested: 0,
            user: None,
            real_address: None,
            body: Body { memory: take(&mut parts.memory), ..Body::default() },
            response: take(&mut parts.response),
            attempts: take(&mut parts.attempts),
            upstream_fields: take(&mut parts.upstream_fields),
            upstream_trailers: take(&mut parts.upstream_trailers),
            started_ms: net::clock::now_ms(),
            received_bytes: 0,
            sent_bytes: 0,
            sent_head_bytes: 0,
            keep_alive: false,
            limit_rate: None,
            subrequest: false,
            subresponse: None,
            completed: false,
            timed_out: false,
            client_gone: false,
            linger: false,
            id: None,
            notes: Vec::new(),
            lasting: Vec::new(),
            action: "",
            upstream_uri: take(&mut parts.upstream_uri),
            passed_to: None,
        }
    }

    /// The head was read: the request belongs to this server until a location is found.
    pub fn begin(&mut self, site: &'s Site) {
        self.site = site;
        self.plan = self.snapshot.plan(site.plan);
        self.method = self.head.method;
        self.body.length = announced_length(&self.head);
    }

    /// Makes it as new for the next request on its connection; buffers stay. Every field is named here, so that
    /// none can be forgotten.
    pub fn renew(&mut self) {
        let Request {
            snapshot: _,
            thread: _,
            connection: _,
            site: _,
            plan: _,
            head,
            method: _,
            uri,
            args,
            uri_as_sent,
            prefix_valid,
            uri_below_alias,
            uri_changed,
            redirects_left,
            internal,
            error_status,
            status_override,
            captures: _,
            stored,
            nested,
            user,
            real_address,
            body,
            response,
            passed_to,
            attempts,
            upstream_fields,
            upstream_trailers,
            started_ms,
            received_bytes,
            sent_bytes,
            sent_head_bytes,
            keep_alive,
            limit_rate,
            subrequest,
            subresponse,
            completed,
            timed_out,
            linger,
            client_gone,
            id,
            notes,
            lasting,
            action,
            upstream_uri,
        } = self;
        head.clear();
        for buffer in [uri, args, upstream_uri] {
            buffer.clear();
        }
        (*uri_as_sent, *prefix_valid, *uri_below_alias, *uri_changed) = (true, true, false, false);
        (*redirects_left, *internal, *error_status, *status_override) =
            (REDIRECTS_MAX + 1, false, None, None);
        stored.clear();
        (*nested, *user, *real_address, *passed_to) = (0, None, None, None);
        body.renew();
        response.clear();
        attempts.clear();
        upstream_fields.clear();
        upstream_trailers.clear();
        (*received_bytes, *sent_bytes, *sent_head_bytes) = (0, 0, 0);
        *started_ms = 0;
        (*keep_alive, *limit_rate, *subrequest, *subresponse) = (false, None, false, None);
        (*completed, *timed_out, *linger, *client_gone, *id) = (false, false, false, false, None);
        notes.clear();
        lasting.clear();
        *action = "";
    }

    /// A request for another URI of the same server, on behalf of this one.
    pub fn subrequest_for(&self, uri: Vec<u8>, args: Vec<u8>) -> Request<'s> {
        let mut parts = Parts::with_head(self.head.clone());
        let mut inner =
            Request::new(self.thread, self.snapshot, self.connection.clone(), self.site, &mut parts);
        inner.uri = uri;
        inner.args = args;
        inner.uri_as_sent = false;
        inner.internal = true;
        inner.subrequest = true;
        inner.method = http::Method::Get;
        inner.body = Body { length: Some(0), read: true, ..Body::default() };
        inner.real_address = self.real_address.clone();
        inner.started_ms = self.started_ms;
        inner.redirects_left = self.redirects_left.saturating_sub(1);
        inner
    }
}

impl Parts {
    /// Exchanges the head, which is clear, for one that was read elsewhere.
    pub fn swap_head(&mut self, head: &mut RequestHead) {
        std::mem::swap(&mut self.head, head);
    }

    /// Buffers for a request whose head is known.
    pub fn with_head(head: RequestHead) -> Parts {
        Parts { head, ..Parts::default() }
    }
}

impl Body {
    fn renew(&mut self) {
        let Body { length, read, memory, file, stored_bytes, received } = self;
        memory.clear();
        if memory.capacity() > KEPT_BODY_BYTES_MAX {
            *memory = Vec::new();
        }
        (*length, *read, *stored_bytes, *received) = (None, false, 0, 0);
        *file = None;
    }
}

/// The length of a request's body as its head tells it; none when it comes in chunks.
fn announced_length(head: &RequestHead) -> Option<u64> {
    match head.framing() {
        http::Framing::Length(length) => Some(length),
        http::Framing::None => Some(0),
        http::Framing::Chunked => None,
    }
}
