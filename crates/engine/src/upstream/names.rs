//! Names of upstream servers, looked up again while the server runs: an upstream whose name does not resolve is
//! down, and comes back by itself.

use super::keepalive::Keepalive;
use super::{Call, Destination, Server, Upstream};
use crate::Request;
use crate::plan::Snapshot;
use crate::thread::Thread;
use bstr::BString;
use conf::Level;
use http::Status;
use net::address::Address;
use net::resolver::Resolver;
use net::timer::{Deadline, Timer};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

/// How long after a failure a name is looked up again.
const RETRY_SECONDS: u64 = 5;
/// A name is not looked up more often than this, whatever its TTL.
const AGAIN_SECONDS_MIN: u64 = 1;

/// The group a call goes to; a host that variables named gets one of its own, kept by the thread.
pub(super) async fn upstream_of(request: &mut Request<'_>, call: &Call) -> Result<Arc<Upstream>, Status> {
    let (host, port) = match &call.destination {
        Destination::Group(upstream) => return Ok(upstream.clone()),
        Destination::Host { host, port } => (host, *port),
    };
    if let Some(known) = request.thread.dynamic_upstream(host, port) {
        return Ok(known);
    }
    if let Some(path) = host.strip_prefix(b"unix:") {
        let upstream = Arc::new(group_of(host, vec![Address::unix(path)]));
        request.thread.keep_dynamic_upstream(host, port, upstream.clone(), u64::MAX);
        return Ok(upstream);
    }
    let addresses = match std::str::from_utf8(host).ok().and_then(super::url::literal) {
        Some(ip) => vec![(ip, u64::MAX)],
        None => {
            let resolver = request.thread.resolver(request.plan);
            match resolver.lookup(host).await {
                Ok(answer) => answer.addresses.iter().map(|ip| (*ip, answer.valid_until_ms)).collect(),
                Err(error) => {
                    request.log_error(Level::Error, format_args!("{host} could not be resolved ({error})"));
                    return Err(Status::BAD_GATEWAY);
                }
            }
        }
    };
    let valid_until_ms = addresses.iter().map(|(_, until)| *until).min().unwrap_or(0);
    let addresses = addresses.iter().map(|(ip, _)| Address::Inet(SocketAddr::new(*ip, port)));
    let made = Arc::new(group_of(host, addresses.collect()));
    request.thread.keep_dynamic_upstream(host, port, made.clone(), valid_until_ms);
    Ok(made)
}

/// A group for one host.
fn group_of(host: &BString, addresses: Vec<Address>) -> Upstream {
    let peer = balance::Peer::new(host.clone());
    let server = Server { text: host.clone(), name: None, addresses, peer, resolve: false };
    Upstream::new(host.clone(), vec![server], Default::default(), Keepalive::default(), None, true)
}

/// Looks up the names of a snapshot's upstreams until another snapshot takes its place.
pub fn resolve_in_background(thread: &Rc<Thread>, snapshot: &Arc<Snapshot>) {
    if !snapshot.upstreams.iter().any(|upstream| upstream.has_names()) {
        return;
    }
    let resolver = Rc::new(Resolver::new(snapshot.resolver.clone()));
    for upstream in snapshot.upstreams.iter().filter(|upstream| upstream.has_names()) {
        let task =
            keep_resolving(Rc::downgrade(thread), snapshot.clone(), upstream.clone(), resolver.clone());
        net::thread::spawn_local(task);
    }
}

async fn keep_resolving(
    thread: Weak<Thread>,
    snapshot: Arc<Snapshot>,
    upstream: Arc<Upstream>,
    resolver: Rc<Resolver>,
) {
    let mut servers = upstream.servers();
    let mut timer = Timer::new();
    // What was found while the configuration was read is looked at again soon: its TTL is not known.
    loop {
        let mut again = u64::MAX;
        let mut changed = false;
        for server in servers.iter_mut() {
            let Some((name, port)) = server.name.clone() else { continue };
            let Some(thread) = thread.upgrade() else { return };
            let seconds = look_up(&thread, &snapshot, &resolver, server, &name, port, &mut changed).await;
            again = again.min(seconds);
        }
        if changed {
            upstream.replace_servers(servers.clone());
        }
        timer.sleep(Deadline::after(Duration::from_secs(again.clamp(AGAIN_SECONDS_MIN, 3600)))).await;
        match thread.upgrade() {
            Some(thread) if thread.snapshot().generation == snapshot.generation => {}
            _ => return,
        }
    }
}

/// Looks one name up; returns after how many seconds it is to be done again.
async fn look_up(
    thread: &Thread,
    snapshot: &Snapshot,
    resolver: &Resolver,
    server: &mut Server,
    name: &str,
    port: u16,
    changed: &mut bool,
) -> u64 {
    match resolver.lookup(name.as_bytes()).await {
        Ok(answer) => {
            let found = answer.addresses.iter().map(|ip| Address::Inet(SocketAddr::new(*ip, port)));
            let mut found: Vec<Address> = found.collect();
            found.sort();
            let mut known = server.addresses.clone();
            known.sort();
            if found != known && !found.is_empty() {
                server.addresses = found;
                *changed = true;
            }
            answer.valid_until_ms.saturating_sub(net::clock::now_ms()) / 1000
        }
        Err(error) => {
            let level = if server.addresses.is_empty() { Level::Error } else { Level::Warn };
            thread.log(snapshot, level, None, format_args!("{name} could not be resolved ({error})"));
            RETRY_SECONDS
        }
    }
}
