//! How a request begins and what is left of it for the next one on its connection.

use super::{Body, Captures, REDIRECTS_MAX, Request, Response, Subresponse};
use crate::connection::Facts;
use crate::plan::{Site, Snapshot};
use crate::thread::Thread;
use crate::upstream::Attempted;
use http::{Fields, RequestHead};

/// What a connection keeps from one request for the next, so that buffers are made once.
#[derive(Default)]
pub struct Parts {
    /// The head, being read before there is a request.
    pub head: RequestHead,
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

impl Parts {
    /// The same buffers without what the last request left in them.
    fn cleared(mut self) -> Parts {
        self.uri.clear();
        self.args.clear();
        self.stored.clear();
        self.memory.clear();
        self.response.clear();
        self.attempts.clear();
        self.upstream_fields.clear();
        self.upstream_trailers.clear();
        self.upstream_uri.clear();
        self
    }
}

/// A body buffer larger than this is given back between requests, bytes.
const KEPT_BODY_BYTES_MAX: usize = 16 * 1024;

impl<'s> Request<'s> {
    /// A request whose head was read, before anything was decided.
    pub fn new(
        thread: &'s Thread,
        snapshot: &'s Snapshot,
        connection: &'s Facts,
        site: &'s Site,
        head: RequestHead,
        parts: Parts,
    ) -> Request<'s> {
        let length = announced_length(&head);
        let parts = parts.cleared();
        Request {
            snapshot,
            thread,
            connection,
            site,
            plan: snapshot.plan(site.plan),
            method: head.method,
            head,
            uri: parts.uri,
            args: parts.args,
            uri_as_sent: true,
            prefix_valid: true,
            uri_below_alias: false,
            uri_changed: false,
            redirects_left: REDIRECTS_MAX + 1,
            internal: false,
            error_status: None,
            status_override: None,
            captures: parts.captures,
            stored: parts.stored,
            nested: 0,
            user: None,
            real_address: None,
            body: Body { length, memory: parts.memory, ..Body::default() },
            response: parts.response,
            attempts: parts.attempts,
            upstream_fields: parts.upstream_fields,
            upstream_trailers: parts.upstream_trailers,
            started_ms: net::clock::now_ms(),
            received_bytes: 0,
            sent_bytes: 0,
            sent_head_bytes: 0,
            keep_alive: false,
            limit_rate: None,
            subrequest: false,
            subresponse: Subresponse::default(),
            completed: false,
            timed_out: false,
            client_gone: false,
            linger: false,
            id: None,
            notes: Vec::new(),
            lasting: Vec::new(),
            action: "",
            upstream_uri: parts.upstream_uri,
            passed_to: None,
        }
    }

    /// Gives the buffers back.
    pub fn into_parts(self) -> Parts {
        let mut memory = self.body.memory;
        if memory.capacity() > KEPT_BODY_BYTES_MAX {
            memory = Vec::new();
        }
        Parts {
            head: self.head,
            uri: self.uri,
            args: self.args,
            captures: self.captures,
            stored: self.stored,
            memory,
            response: self.response,
            attempts: self.attempts,
            upstream_fields: self.upstream_fields,
            upstream_trailers: self.upstream_trailers,
            upstream_uri: self.upstream_uri,
        }
    }

    /// A request for another URI of the same server, on behalf of this one.
    pub fn subrequest_for(&self, uri: Vec<u8>, args: Vec<u8>) -> Request<'s> {
        let mut inner = Request::new(
            self.thread,
            self.snapshot,
            self.connection,
            self.site,
            self.head.clone(),
            Parts::default(),
        );
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

/// The length of a request's body as its head tells it; none when it comes in chunks.
fn announced_length(head: &RequestHead) -> Option<u64> {
    match head.framing() {
        http::Framing::Length(length) => Some(length),
        http::Framing::None => Some(0),
        http::Framing::Chunked => None,
    }
}
