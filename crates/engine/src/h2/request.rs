//! One request of an HTTP/2 connection, from its head to its end, in a task of its own.

use super::{H2, Shared, websocket};
use crate::Request;
use crate::connection::{Facts, prepare, site_for};
use crate::driver::Driver;
use crate::exchange;
use crate::flow::Flow;
use crate::plan::Snapshot;
use crate::request::Parts;
use crate::thread::Thread;
use conf::Level;
use http::h2::{ErrorCode, Heads};
use http::{Refusal, Status};
use std::rc::Rc;
use std::sync::Arc;

/// What a request's task owns.
struct Begun {
    thread: Rc<Thread>,
    snapshot: Arc<Snapshot>,
    facts: Rc<Facts>,
    parts: Box<Parts>,
    refusal: Option<Refusal>,
    running: Running,
}

/// A request under way; its stream is released and its place given back however its task ends.
struct Running {
    shared: Rc<Shared>,
    stream: u32,
}

impl Drop for Running {
    fn drop(&mut self) {
        let Running { shared, stream } = self;
        shared.codec.borrow_mut().release(*stream);
        shared.waiting.borrow_mut().retain(|(id, _)| id != stream);
        shared.requests.set(shared.requests.get() - 1);
        shared.nudge();
    }
}

/// Starts a request whose head is in `heads`.
pub(super) fn begin(
    thread: &Rc<Thread>,
    snapshot: &Arc<Snapshot>,
    facts: &Facts,
    shared: &Rc<Shared>,
    stream: u32,
    heads: &mut Heads,
    refusal: Option<Refusal>,
) {
    let mut parts = thread.parts.take();
    parts.swap_head(&mut heads.request);
    shared.requests.set(shared.requests.get() + 1);
    net::thread::spawn_local(run(Begun {
        thread: thread.clone(),
        snapshot: snapshot.clone(),
        facts: Rc::new(facts.clone()),
        parts,
        refusal,
        running: Running { shared: shared.clone(), stream },
    }));
}

async fn run(begun: Begun) {
    let Begun { thread, snapshot, facts, mut parts, refusal, running } = begun;
    let Some(listener) = snapshot.listen_for(facts.local_address(), &facts.listen) else { return };
    let site = snapshot.site(listener.default_site);
    let mut request = Request::new(&thread, &snapshot, facts.clone(), site, &mut parts);
    request.begin(site_for(&snapshot, listener, &facts, &request.head));
    request.started_ms = net::clock::now_ms();
    request.received_bytes = request.head.length as u64;
    thread.count_request();
    let enabled = request.site.core.http2.0 || listener.http2;
    let first = match refusal {
        Some(refusal) => {
            request.action = "reading client request headers";
            request.log_error(Level::Info, format_args!("{}", refusal.message));
            request.action = "";
            Some(Flow::Deny(refusal.status))
        }
        None if !enabled => {
            let text =
                "client attempted to request the server name for which the negotiated protocol is disabled";
            request.log_error(Level::Info, format_args!("{text}"));
            Some(Flow::Deny(Status::MISDIRECTED_REQUEST))
        }
        None => {
            prepare(&mut request, listener);
            crate::tls::refusal(&mut request, listener).or_else(|| websocket::begin(&mut request))
        }
    };
    let mut driver = Driver::H2(Box::new(H2::new(running.shared.clone(), running.stream)));
    exchange::exchange(&mut request, &mut driver, first).await;
    drop(driver);
    if request.timed_out && !request.completed {
        running.shared.codec.borrow_mut().reset(running.stream, ErrorCode::PROTOCOL_ERROR);
    }
    drop(running);
    thread.parts.keep(&mut request, parts);
}
