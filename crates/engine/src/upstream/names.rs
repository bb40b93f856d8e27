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
use net::resolver::{ResolveError, Resolver};
use net::timer::{Deadline, Timer};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

/// How long after a failure a name is looked up again.
const RETRY_SECONDS: u64 = 5;
/// A name is not looked up more often than this, whatever its TTL.
const AGAIN_SECONDS_MIN: u64 = 1;
/// Nor more seldom.
const AGAIN_SECONDS_MAX: u64 = 3600;

/// The group a call goes to, where nothing has to be looked up for it; a host that variables named gets one of its
/// own, kept by the thread.
pub(super) fn known_upstream(request: &Request<'_>, call: &Call) -> Option<Arc<Upstream>> {
    match &call.destination {
        Destination::Group(upstream) => Some(upstream.clone()),
        Destination::Host { host, port } => request.thread.named(request.plan).upstream(host, *port),
    }
}

/// Makes the group for a host that variables named, and looks its name up.
pub(super) async fn make_upstream(
    request: &mut Request<'_>,
    host: &BString,
    port: u16,
) -> Result<Arc<Upstream>, Status> {
    let named = request.thread.named(request.plan);
    if let Some(path) = host.strip_prefix(b"unix:") {
        let upstream = Arc::new(group_of(host, vec![Address::unix(path)]));
        named.keep(host, port, upstream.clone(), u64::MAX);
        return Ok(upstream);
    }
    let addresses = match std::str::from_utf8(host).ok().and_then(super::url::literal) {
        Some(ip) => vec![(ip, u64::MAX)],
        None => match named.resolver.lookup(host).await {
            Ok(answer) => answer.addresses.iter().map(|ip| (*ip, answer.valid_until_ms)).collect(),
            Err(error) => {
                request.log_error(Level::Error, format_args!("{host} could not be resolved ({error})"));
                return Err(Status::BAD_GATEWAY);
            }
        },
    };
    let valid_until_ms = addresses.iter().map(|(_, until)| *until).min().unwrap_or(0);
    let addresses = addresses.iter().map(|(ip, _)| Address::Inet(SocketAddr::new(*ip, port)));
    let made = Arc::new(group_of(host, addresses.collect()));
    named.keep(host, port, made.clone(), valid_until_ms);
    Ok(made)
}

/// A group for one host. As in nginx, one request's failure does not keep the next from an address.
fn group_of(host: &BString, addresses: Vec<Address>) -> Upstream {
    let mut peer = balance::Peer::new(host.clone());
    peer.max_fails = 0;
    let server = Server { text: host.clone(), name: None, addresses, peer, resolve: false };
    Upstream::new(host.clone(), vec![server], Default::default(), Keepalive::default(), None, true)
}

/// Looks up the names of a snapshot's upstreams until another snapshot takes its place; one task a name, so that one
/// that takes long keeps nobody waiting.
pub fn resolve_in_background(thread: &Rc<Thread>, snapshot: &Arc<Snapshot>) {
    let mut common = None;
    for upstream in snapshot.upstreams.iter().filter(|upstream| upstream.has_names()) {
        let resolver = match &upstream.resolver {
            Some(own) => Rc::new(Resolver::new(own.clone())),
            None => common.get_or_insert_with(|| Rc::new(Resolver::new(snapshot.resolver.clone()))).clone(),
        };
        for (line, server) in upstream.servers().into_iter().enumerate() {
            let Some((name, port)) = server.name else { continue };
            let lookup = Lookup {
                thread: Rc::downgrade(thread),
                generation: snapshot.generation,
                upstream: upstream.clone(),
                resolver: resolver.clone(),
                line,
                name,
                port,
                resolve: server.resolve,
            };
            net::thread::spawn_local(lookup.keep_on());
        }
    }
}

/// A name that is looked up again and again.
struct Lookup {
    thread: Weak<Thread>,
    /// The snapshot's, which is not held: it may be large, and its place is taken long before this wakes up.
    generation: u64,
    upstream: Arc<Upstream>,
    resolver: Rc<Resolver>,
    /// Which of the group's lines it stands in.
    line: usize,
    name: String,
    port: u16,
    /// The configuration says `resolve`: a name that is gone takes its servers away.
    resolve: bool,
}

impl Lookup {
    async fn keep_on(self) {
        let mut timer = Timer::new();
        // What was found while the configuration was read is looked at again soon: its TTL is not known.
        loop {
            let again = self.once().await.clamp(AGAIN_SECONDS_MIN, AGAIN_SECONDS_MAX);
            timer.sleep(Deadline::after(Duration::from_secs(again))).await;
            match self.thread.upgrade() {
                Some(thread) if thread.snapshot().generation == self.generation => {}
                _ => return,
            }
        }
    }

    /// Looks the name up; returns after how many seconds it is to be done again.
    async fn once(&self) -> u64 {
        let answer = self.resolver.lookup(self.name.as_bytes()).await;
        let Some(known) = self.upstream.servers().get(self.line).map(|server| server.addresses.clone())
        else {
            return AGAIN_SECONDS_MAX;
        };
        match answer {
            Ok(answer) => {
                let found = answer.addresses.iter().map(|ip| Address::Inet(SocketAddr::new(*ip, self.port)));
                self.put(known, found.collect());
                answer.valid_until_ms.saturating_sub(net::clock::now_ms()) / 1000
            }
            Err(error) => {
                let level = if known.is_empty() { Level::Error } else { Level::Warn };
                if let Some(thread) = self.thread.upgrade() {
                    let name = &self.name;
                    thread.log(
                        &thread.snapshot(),
                        level,
                        None,
                        format_args!("{name} could not be resolved ({error})"),
                    );
                }
                if error == ResolveError::HostNotFound && self.resolve {
                    self.put(known, Vec::new());
                }
                RETRY_SECONDS.min(self.resolver.timeout().as_secs())
            }
        }
    }

    fn put(&self, mut known: Vec<Address>, mut found: Vec<Address>) {
        known.sort();
        found.sort();
        found.dedup();
        if known != found {
            self.upstream.put_addresses(self.line, found);
        }
    }
}
