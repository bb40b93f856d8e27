//! What belongs to one worker thread: the configuration in force, counters, pools of upstream connections.

mod burst;
mod idle;

use crate::core::values::ServerTokens;
use crate::log::{self, ErrorLog};
use crate::plan::{Plan, Snapshot};
use crate::upstream::Upstream;
use crate::upstream::keepalive::Pools;
use bstr::BString;
use burst::Burst;
use conf::Level;
use idle::{Dismissal, Line};
use net::file::cache::FileCache;
use net::resolver::{Resolver, ResolverSettings};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Arguments;
use std::io::Write;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use tokio::sync::Notify;

/// How many hosts named by variables are remembered before old ones are forgotten.
const DYNAMIC_UPSTREAMS_MAX: usize = 1024;

/// How many idle connections are dismissed at once.
const DISMISSED_MAX: usize = 32;

/// Counters of the process, for `stub_status` and the connection numbers.
#[derive(Default)]
pub struct Statistics {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections handled.
    pub handled: AtomicU64,
    /// Requests.
    pub requests: AtomicU64,
    /// Connections open now.
    pub active: AtomicI64,
    /// Connections waiting for a request now.
    pub waiting: AtomicI64,
    /// Connections whose head is being read now.
    pub reading: AtomicI64,
    next_connection: AtomicU64,
}

/// What is the same for all threads and generations of one process.
pub struct Process {
    /// Counters.
    pub statistics: Statistics,
    /// Where files are served from without `root`.
    pub default_root: Vec<u8>,
    /// Relative paths out of variables hang from here; ends in a slash.
    pub prefix: Vec<u8>,
    /// The machine's name.
    pub hostname: Vec<u8>,
    /// What `Server` and error pages say, with the version: `gapura/0.1.0`.
    pub product: &'static str,
}

impl Process {
    /// A process whose relative paths hang from `prefix`, on a machine of that name; `product` is what clients are told.
    pub fn new(prefix: &[u8], hostname: &[u8], product: &'static str) -> Process {
        Process {
            statistics: Statistics::default(),
            default_root: [prefix, b"html"].concat(),
            prefix: prefix.to_vec(),
            hostname: hostname.to_vec(),
            product,
        }
    }

    /// What `Server` and error pages say.
    pub fn server_name(&self, tokens: ServerTokens) -> &'static str {
        match tokens {
            ServerTokens::On | ServerTokens::Build => self.product,
            ServerTokens::Off => self.product.split('/').next().unwrap_or(self.product),
        }
    }
}

/// An upstream and the moment its addresses end, monotonic milliseconds.
type Dynamic = (Arc<Upstream>, u64);

/// One worker thread.
pub struct Thread {
    /// What all threads share.
    pub process: Arc<Process>,
    /// Idle connections to upstreams.
    pub pools: Pools,
    this: Weak<Thread>,
    /// Buffers and heads that calls to upstreams borrow.
    pub spare: crate::upstream::Spare,
    /// What heads of the second have in common.
    pub(crate) stamp: crate::head::Stamp,
    /// Buffers that requests borrow.
    pub parts: crate::request::SpareParts,
    /// Where connections are served.
    pub desks: crate::connection::Desks,
    snapshot: RefCell<Arc<Snapshot>>,
    connections: Cell<usize>,
    /// Connections to upstreams, idle ones too.
    upstream_connections: Rc<Cell<usize>>,
    stopping: Cell<bool>,
    stop: Notify,
    /// Idle connections, which may be told to end.
    idle: Line,
    /// Connections that are not idle.
    pub burst: Rc<Burst>,
    /// When idle connections were last dismissed for want of room, monotonic milliseconds.
    room_made_ms: Cell<u64>,
    /// A connection has ended.
    changed: Notify,
    open_files: RefCell<HashMap<(usize, u64), Rc<FileCache>>>,
    /// Who is asked for names, and what variables named.
    resolvers: RefCell<HashMap<ResolverSettings, Rc<Named>>>,
}

/// A resolver, with the upstreams made for hosts that variables named where it is in force.
pub struct Named {
    /// Who is asked.
    pub resolver: Resolver,
    /// With the moment their addresses end.
    upstreams: RefCell<HashMap<(BString, u16), Dynamic>>,
}

impl Named {
    /// The upstream made for a host, while its addresses hold.
    pub fn upstream(&self, host: &BString, port: u16) -> Option<Arc<Upstream>> {
        let upstreams = self.upstreams.borrow();
        let (upstream, until_ms) = upstreams.get(&(host.clone(), port))?;
        (net::clock::now_ms() < *until_ms).then(|| upstream.clone())
    }

    /// Keeps an upstream made for a host.
    pub fn keep(&self, host: &BString, port: u16, upstream: Arc<Upstream>, until_ms: u64) {
        let mut upstreams = self.upstreams.borrow_mut();
        if upstreams.len() >= DYNAMIC_UPSTREAMS_MAX {
            let now_ms = net::clock::now_ms();
            upstreams.retain(|_, (_, until_ms)| now_ms < *until_ms && *until_ms < u64::MAX);
        }
        upstreams.insert((host.clone(), port), (upstream, until_ms));
    }
}

impl std::ops::Deref for Thread {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Thread {
    /// A thread that serves this configuration.
    pub fn new(process: Arc<Process>, snapshot: Arc<Snapshot>) -> Rc<Thread> {
        Rc::new_cyclic(|this| Thread {
            process,
            pools: Pools::default(),
            spare: crate::upstream::Spare::default(),
            stamp: crate::head::Stamp::default(),
            parts: crate::request::SpareParts::default(),
            desks: crate::connection::Desks::default(),
            this: this.clone(),
            snapshot: RefCell::new(snapshot),
            connections: Cell::new(0),
            upstream_connections: Rc::default(),
            stopping: Cell::new(false),
            stop: Notify::new(),
            idle: Line::default(),
            burst: Rc::default(),
            room_made_ms: Cell::new(0),
            changed: Notify::new(),
            open_files: RefCell::default(),
            resolvers: RefCell::default(),
        })
    }

    /// For tasks that outlive the one that holds this reference.
    pub fn handle(&self) -> Option<Rc<Thread>> {
        self.this.upgrade()
    }

    /// The configuration in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Is this the configuration in force?
    pub fn serves(&self, snapshot: &Snapshot) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.snapshot.borrow()), snapshot)
    }

    /// Puts a configuration in force; requests under way end with theirs.
    pub fn put_in_force(self: &Rc<Self>, snapshot: Arc<Snapshot>) {
        self.open_files.borrow_mut().clear();
        self.resolvers.borrow_mut().clear();
        self.snapshot.replace(snapshot.clone());
        self.desks.clear();
        // One thread of the process keeps the names of upstreams fresh for all.
        if snapshot.claim_names() {
            crate::upstream::resolve_in_background(self, &snapshot);
            crate::tls::stapling::keep_fresh_in_background(self, &snapshot);
        }
    }

    /// As [`Thread::put_in_force`], on a thread that serves nobody: it only goes by another configuration.
    pub(crate) fn follow(&self, snapshot: Arc<Snapshot>) {
        self.snapshot.replace(snapshot);
    }

    /// Ready once the server is about to stop and the last connection has ended.
    pub async fn drained(&self) {
        self.stopped().await;
        while self.connections.get() > 0 {
            self.changed.notified().await;
        }
    }

    /// How many client connections this thread holds.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Lets idle connections end, and the others after their request.
    pub fn begin_stopping(&self) {
        self.stopping.set(true);
        self.stop.notify_waiters();
        self.idle.dismiss_all();
        self.desks.clear();
    }

    /// Ready once an idle connection is to end: the server stops, or others need its place.
    pub fn dismissed(&self) -> Dismissal<'_> {
        self.idle.join()
    }

    /// Is there room for another client connection under `worker_connections`? Logged where there is none.
    pub fn has_room(&self) -> bool {
        let has_room = self.make_room();
        if !has_room {
            let snapshot = self.snapshot.borrow();
            let text = format_args!("{} worker_connections are not enough", snapshot.connections_max);
            self.log(&snapshot, Level::Alert, None, text);
        }
        has_room
    }

    /// A place for a connection to an upstream; none where `worker_connections` are all taken. The error is how many
    /// that is.
    pub fn place_upstream(&self) -> Result<Place, usize> {
        if !self.make_room() {
            return Err(self.snapshot.borrow().connections_max);
        }
        self.upstream_connections.set(self.upstream_connections.get() + 1);
        Ok(Place(self.upstream_connections.clone()))
    }

    /// Is there a place under `worker_connections`? When they get scarce, the connections that have idled longest are
    /// dismissed, as nginx does.
    fn make_room(&self) -> bool {
        let snapshot = self.snapshot.borrow();
        let most = snapshot.connections_max;
        let free = || most.saturating_sub(self.connections.get() + self.upstream_connections.get());
        if free() > most / 16 {
            return true;
        }
        if free() == 0 {
            // Nobody waits for those that are kept for later.
            self.pools.expire(0);
        }
        let idle = self.idle.waiting();
        if idle > 0 {
            let now_ms = net::clock::now_ms();
            if now_ms >= self.room_made_ms.get() + 1000 || self.room_made_ms.get() == 0 {
                self.room_made_ms.set(now_ms);
                let text = format_args!("{most} worker_connections are not enough, reusing connections");
                self.log(&snapshot, Level::Warn, None, text);
            }
            for _ in 0..(idle / 8).clamp(1, DISMISSED_MAX) {
                self.idle.dismiss_first();
            }
        }
        free() > 0 || idle > 0
    }

    /// Is the server about to stop?
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Ready once the server is about to stop.
    pub async fn stopped(&self) {
        let notified = self.stop.notified();
        if !self.stopping.get() {
            notified.await;
        }
    }

    /// Counts a client connection until the guard drops.
    pub fn count_connection(self: &Rc<Self>) -> impl Drop + use<> {
        self.connections.set(self.connections.get() + 1);
        self.statistics.active.fetch_add(1, Ordering::Relaxed);
        self.statistics.accepted.fetch_add(1, Ordering::Relaxed);
        self.statistics.handled.fetch_add(1, Ordering::Relaxed);
        let thread = self.clone();
        Counted(Some(move || {
            thread.connections.set(thread.connections.get() - 1);
            thread.changed.notify_one();
            thread.statistics.active.fetch_sub(1, Ordering::Relaxed);
        }))
    }

    /// Counts a connection as waiting for a request until the guard drops.
    pub fn count_idle(&self) -> impl Drop {
        self.statistics.waiting.fetch_add(1, Ordering::Relaxed);
        Counted(Some(|| _ = self.statistics.waiting.fetch_sub(1, Ordering::Relaxed)))
    }

    /// Counts a connection as reading a head until the guard drops.
    pub fn count_reading(&self) -> impl Drop {
        self.statistics.reading.fetch_add(1, Ordering::Relaxed);
        Counted(Some(|| _ = self.statistics.reading.fetch_sub(1, Ordering::Relaxed)))
    }

    /// Counts a request.
    pub fn count_request(&self) {
        self.statistics.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// A number for a new connection.
    pub fn next_connection(&self) -> u64 {
        self.statistics.next_connection.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The cache of open files for locations with these limits.
    pub fn open_files(&self, files_max: usize, inactive_seconds: u64) -> Rc<FileCache> {
        let mut caches = self.open_files.borrow_mut();
        let make = || Rc::new(FileCache::new(files_max, std::time::Duration::from_secs(inactive_seconds)));
        caches.entry((files_max, inactive_seconds)).or_insert_with(make).clone()
    }

    /// The resolver of a location: `resolver`'s name servers, or the system's.
    pub fn named(&self, plan: &Plan) -> Rc<Named> {
        let settings = plan.core.resolver_settings();
        let mut resolvers = self.resolvers.borrow_mut();
        if let Some(known) = resolvers.get(&settings) {
            return known.clone();
        }
        let made = Named { resolver: Resolver::new(settings.clone()), upstreams: RefCell::default() };
        resolvers.entry(settings).or_insert(Rc::new(made)).clone()
    }

    /// Writes a message that belongs to no request, to the main error log.
    #[cold]
    pub fn log(&self, snapshot: &Snapshot, level: Level, connection: Option<u64>, message: Arguments<'_>) {
        if !wanted(&snapshot.error_log, level) {
            return;
        }
        let mut line = Vec::with_capacity(128);
        log::start_line(&mut line, level, connection);
        // Writing into a Vec cannot fail.
        let _ = line.write_fmt(message);
        write(snapshot, &snapshot.error_log, level, &mut line);
    }
}

/// A connection to an upstream counts under `worker_connections` as long as this is held.
pub struct Place(Rc<Cell<usize>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Runs a function when it goes out of scope.
struct Counted<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Counted<F> {
    fn drop(&mut self) {
        if let Some(undo) = self.0.take() {
            undo();
        }
    }
}

/// Would any of these logs take a message of this level?
pub fn wanted(logs: &[ErrorLog], level: Level) -> bool {
    logs.iter().any(|log| level <= log.level)
}

/// Writes a finished line to those of the logs that take its level.
pub fn write(snapshot: &Snapshot, logs: &[ErrorLog], level: Level, line: &mut Vec<u8>) {
    log::cut_line(line);
    for log in logs.iter().filter(|log| level <= log.level) {
        if let Some(sink) = snapshot.log(log.log) {
            sink.append_with_severity(line, log::severity(level));
        }
    }
}
