//! Subrequests that nobody waits for (`mirror`): a request of its own on the same thread, answered to nobody.

use crate::connection::Facts;
use crate::driver::Driver;
use crate::flow::Target;
use crate::plan::{SiteId, Snapshot};
use crate::request::{Body, Parts};
use crate::thread::Thread;
use crate::{Request, exchange};
use http::RequestHead;
use std::rc::Rc;
use std::sync::Arc;

/// What a background request takes along.
struct Copied {
    facts: Rc<Facts>,
    site: SiteId,
    head: RequestHead,
    method: http::Method,
    uri: Vec<u8>,
    args: Vec<u8>,
    body: Body,
    stored: Vec<Option<Vec<u8>>>,
    real_address: Option<net::address::Address>,
    received_bytes: u64,
}

/// Begins a request for another URI, with the method and body of this one.
pub fn begin(request: &Request<'_>, target: Target) {
    let Target::Uri { uri, args } = target else { return };
    let (Some(thread), snapshot) = (request.thread.handle(), request.thread.snapshot()) else { return };
    // Between two configurations there is no telling what the site's number means.
    if snapshot.generation != request.snapshot.generation {
        return;
    }
    let body = &request.body;
    let copied = Copied {
        facts: Rc::new(Facts::clone(&request.connection)),
        site: request.site.id,
        head: request.head.clone(),
        method: request.method,
        uri,
        args,
        body: Body {
            length: body.length,
            read: body.read,
            memory: body.memory.clone(),
            file: body.file.clone(),
            stored_bytes: body.stored_bytes,
            received: body.received,
        },
        stored: request.stored.clone(),
        real_address: request.real_address.clone(),
        received_bytes: request.received_bytes,
    };
    net::thread::spawn_local(serve(thread, snapshot, copied));
}

async fn serve(thread: Rc<Thread>, snapshot: Arc<Snapshot>, copied: Copied) {
    let site = snapshot.site(copied.site);
    let mut parts = Parts::with_head(copied.head);
    let mut request = Request::new(&thread, &snapshot, copied.facts, site, &mut parts);
    request.method = copied.method;
    request.uri = copied.uri;
    request.args = copied.args;
    request.uri_as_sent = false;
    request.internal = true;
    request.subrequest = true;
    request.body = copied.body;
    request.stored = copied.stored;
    request.real_address = copied.real_address;
    request.received_bytes = copied.received_bytes;
    let mut driver = Driver::discarding();
    exchange::exchange(&mut request, &mut driver, None).await;
}
