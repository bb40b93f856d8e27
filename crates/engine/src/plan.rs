//! The compiled configuration: a [`Snapshot`] of sites and plans, immutable once made.

use crate::core::{Core, ErrorPage, Folder, ServerCore};
use crate::flow::{Filter, Logger, PHASES, Phase, Step};
use crate::locate::Locations;
use crate::module::CompiledRegex;
use crate::upstream::Upstreams;
use crate::variables::Definitions;
use bstr::BString;
use net::address::Address;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use template::HostTable;

/// Which plan of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlanId(pub u32);

/// Which server of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SiteId(pub u32);

/// One configuration, whole. Worker threads share it; a reload swaps it.
pub struct Snapshot {
    /// Servers in the file's order.
    pub sites: Vec<Site>,
    /// Plans of servers, locations, `if`s and `limit_except`s.
    pub plans: Vec<Plan>,
    /// Addresses listened on.
    pub listens: Vec<Listen>,
    /// How every variable is read.
    pub variables: Definitions,
    /// How many client connections a thread may hold, `worker_connections`.
    pub connections_max: usize,
    /// Upstream groups.
    pub upstreams: Upstreams,
    /// Issuers of certificates, with what is asked of them.
    pub issuers: Vec<Arc<crate::acme::Issuer>>,
    /// Logs, opened.
    pub logs: Vec<net::log::Log>,
    /// `error_log` of the file's top level.
    pub error_log: Vec<crate::log::ErrorLog>,
    /// How names of upstreams are looked up: `resolver` of the `http` block, or the system's.
    pub resolver: net::resolver::ResolverSettings,
    /// A number that grows with every snapshot of the process; tells generations apart.
    pub generation: u64,
    /// Does a thread look after the names of upstreams already?
    pub names_claimed: AtomicBool,
}

/// One `server {}`.
pub struct Site {
    /// Its number.
    pub id: SiteId,
    /// The first name, `$server_name`.
    pub name: BString,
    /// What holds before a location is found, and where `rewrite` of the server level runs.
    pub plan: PlanId,
    /// Named locations.
    pub named: HashMap<Vec<u8>, PlanId>,
    /// Where its block opens.
    pub place: conf::Span,
    /// Settings only a server has.
    pub core: Arc<ServerCore>,
}

/// What one location (or server, `if`, `limit_except`) compiled to.
pub struct Plan {
    /// Its number.
    pub id: PlanId,
    /// The location's name as written, `/` for a server.
    pub name: BString,
    /// Settings every location has.
    pub core: Arc<Core>,
    /// Where its files are.
    pub folder: Arc<Folder>,
    /// `error_page` of this location.
    pub error_pages: Arc<Vec<ErrorPage>>,
    /// Steps by phase.
    pub steps: Steps,
    /// The location's one handler of content; an `if` without one has that of its location.
    pub handler: Option<Arc<dyn Step>>,
    /// Filters of the response.
    pub filters: Vec<Arc<dyn Filter>>,
    /// Loggers.
    pub loggers: Vec<Arc<dyn Logger>>,
    /// Locations inside.
    pub locations: Locations,
    /// `limit_except`: the methods that are not limited (bits of `http::Method`) and the plan for the others.
    pub limit_except: Option<(u32, PlanId)>,
    /// A regex location, an `if`, a `limit_except` or a named one: no prefix for `proxy_pass` to replace.
    pub nameless: bool,
    /// `location = /x`.
    pub exact: bool,
    /// What `alias` cuts from a URI before the rest is looked up below its folder.
    pub alias: Alias,
    /// What modules keep for this plan, by the module's own type.
    pub kept: Vec<(TypeId, Arc<dyn Any + Send + Sync>)>,
    /// `/dir` is redirected to `/dir/` because `location /dir/` passes requests on.
    pub auto_redirect: bool,
}

/// Steps by phase: `steps[phase as usize]` are those of one, in order.
#[derive(Default)]
pub struct Steps {
    steps: Vec<Arc<dyn Step>>,
    /// How many steps there are up to the end of each phase.
    ends: [u16; PHASES],
}

impl Steps {
    /// Adds a step behind the others of its phase.
    ///
    /// # Panics
    /// When a location has more than 65,535 steps: every module adds a few at most.
    pub fn push(&mut self, phase: Phase, step: Arc<dyn Step>) {
        // Nearly every location has two: a folder's index, and files.
        self.steps.reserve_exact(if self.steps.is_empty() { 2 } else { 1 });
        self.steps.insert(usize::from(self.ends[phase as usize]), step);
        for end in &mut self.ends[phase as usize..] {
            *end = end.checked_add(1).expect("modules add a few steps at most");
        }
    }
}

impl std::ops::Index<usize> for Steps {
    type Output = [Arc<dyn Step>];

    fn index(&self, phase: usize) -> &Self::Output {
        let first = phase.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.steps[usize::from(first)..usize::from(self.ends[phase])]
    }
}

/// How `alias` maps a URI. It belongs to the location that the directive stands in, also for the blocks inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alias {
    /// There is none: `root`.
    #[default]
    None,
    /// The location's name, this many bytes, is cut off.
    Prefix(usize),
    /// In a location of a regular expression, nothing of the URI is added.
    Whole,
}

impl Plan {
    /// How many steps, handlers, filters, loggers and other things modules have put into it.
    pub(crate) fn parts(&self) -> [usize; 5] {
        let handlers = usize::from(self.handler.is_some());
        [self.steps.steps.len(), handlers, self.filters.len(), self.loggers.len(), self.kept.len()]
    }

    /// What a module keeps for this plan.
    pub fn kept<T: Any>(&self) -> Option<&T> {
        let (_, kept) = self.kept.iter().find(|(id, _)| *id == TypeId::of::<T>())?;
        kept.downcast_ref()
    }
}

/// One address listened on and the servers behind it.
pub struct Listen {
    /// The key that a listening socket and a snapshot agree on.
    pub address: Address,
    /// Socket options.
    pub options: net::listen::ListenOptions,
    /// Takes a PROXY protocol header first.
    pub proxy_protocol: bool,
    /// Speaks TLS.
    pub ssl: bool,
    /// Takes HTTP/2 whatever its servers say (`listen ... http2`).
    pub http2: bool,
    /// All servers on it, in the file's order.
    pub sites: Vec<SiteId>,
    /// The server for names that no server has.
    pub default_site: SiteId,
    /// Servers by name, exact and with wildcards.
    pub names: HostTable<SiteId>,
    /// Servers by regular expression, in the file's order.
    pub regexes: Vec<(CompiledRegex, SiteId)>,
}

impl Snapshot {
    /// A plan by number.
    pub fn plan(&self, id: PlanId) -> &Plan {
        &self.plans[id.0 as usize]
    }

    /// A server by number.
    pub fn site(&self, id: SiteId) -> &Site {
        &self.sites[id.0 as usize]
    }

    /// Takes over what was known of the upstreams that an earlier configuration had too.
    pub fn carry_from(&self, earlier: &Snapshot) {
        for upstream in self.upstreams.iter() {
            if let Some(known) = earlier.upstreams.named(&upstream.name) {
                upstream.carry_from(known);
            }
        }
    }

    /// True for the one thread that is to keep the names of upstreams fresh.
    pub fn claim_names(&self) -> bool {
        !self.names_claimed.swap(true, Ordering::Relaxed)
    }

    /// An open log by number.
    pub fn log(&self, id: crate::log::LogId) -> Option<&net::log::Log> {
        self.logs.get(id.0 as usize)
    }

    /// The listener for a connection: the one of its own address where a wildcard's socket took it for several.
    pub fn listen_for(&self, local: &Address, socket: &Address) -> Option<&Listen> {
        self.listen(local).or_else(|| self.listen(socket))
    }

    /// The listener with this address.
    pub fn listen(&self, address: &Address) -> Option<&Listen> {
        self.listens.iter().find(|listen| listen.address == *address)
    }
}
