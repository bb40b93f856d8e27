//! Names to addresses, while running: by the servers of a `resolver` directive, or as the system does.
//!
//! Answers are kept for their time to live, or for `valid=`; failures are not kept. Several tasks that ask for
//! the same name at once share one question. A [`Resolver`] belongs to one thread.
//!
//! Names of the configuration that are needed before anything runs go through the system's own resolver, see
//! [`startup`].

pub mod startup;
mod system;

use crate::clock;
use bstr::ByteSlice;
use hickory_resolver::config::{
    LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::name_server::TokioConnectionProvider;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::xfer::Protocol;
use hickory_resolver::proto::{ProtoError, ProtoErrorKind};
use hickory_resolver::{Name, TokioResolver};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// How many names are kept; the ones whose time is over go first.
const NAMES_MAX: usize = 4096;

/// How soon to ask again for a name of the hosts file, in milliseconds.
const HOSTS_FILE_MS: u64 = 5000;

/// How many targets of one SRV answer are looked up.
const SERVICE_PEERS_MAX: usize = 256;

/// What to ask, and how long to believe it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResolverSettings {
    /// Whom to ask.
    pub servers: Servers,
    /// In place of the answers' own time to live (`valid=`).
    pub valid: Option<Duration>,
    /// IPv4 addresses are wanted (`ipv4=off` when not).
    pub ipv4: bool,
    /// IPv6 addresses are wanted (`ipv6=off` when not).
    pub ipv6: bool,
    /// How long a lookup may take in all (`resolver_timeout`, 30 s by default).
    pub timeout: Duration,
}

/// Whom a resolver asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Servers {
    /// What `/etc/resolv.conf` and `/etc/hosts` say at the time of asking.
    System,
    /// These, and only these; names are complete as they are and `/etc/hosts` is not read.
    Listed(Vec<SocketAddr>),
}

impl ResolverSettings {
    /// The system's resolver with nginx's default time limit.
    pub fn system() -> ResolverSettings {
        ResolverSettings {
            servers: Servers::System,
            valid: None,
            ipv4: true,
            ipv6: true,
            timeout: Duration::from_secs(30),
        }
    }
}

/// Why a name has no address now. Displayed as in nginx's messages, `3: Host not found`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolveError {
    /// The server could not read the question.
    FormatError,
    /// The server, or every one of them, failed.
    ServerFailure,
    /// There is no such name, or it has no address of a wanted family.
    HostNotFound,
    /// The server does not do such questions.
    Unimplemented,
    /// The server does not answer us.
    OperationRefused,
    /// No answer in time.
    TimedOut,
}

impl fmt::Display for ResolveError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            ResolveError::FormatError => "1: Format error",
            ResolveError::ServerFailure => "2: Server failure",
            ResolveError::HostNotFound => "3: Host not found",
            ResolveError::Unimplemented => "4: Unimplemented",
            ResolveError::OperationRefused => "5: Operation refused",
            ResolveError::TimedOut => "110: Operation timed out",
        })
    }
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// At least one, in the order of the server's answer; IPv4 first.
    pub addresses: Rc<[IpAddr]>,
    /// When to ask again, on the clock of [`clock::now_ms`].
    pub valid_until_ms: u64,
}

/// One server of a service (an SRV record), with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePeer {
    /// At least one address.
    pub addresses: Rc<[IpAddr]>,
    /// Where it listens.
    pub port: u16,
    /// Lower is tried first.
    pub priority: u16,
    /// Its share among those of its priority; 0 means the least.
    pub weight: u16,
}

/// The servers of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAnswer {
    /// At least one, ordered by priority.
    pub peers: Rc<[ServicePeer]>,
    /// When to ask again, on the clock of [`clock::now_ms`].
    pub valid_until_ms: u64,
}

/// See the module's text. Copies share servers and answers.
#[derive(Clone)]
pub struct Resolver {
    inner: Rc<Inner>,
}

struct Inner {
    settings: ResolverSettings,
    system: system::Files,
    client: RefCell<Option<TokioResolver>>,
    hosts_file: RefCell<system::Hosts>,
    hosts: RefCell<Kept<Answer>>,
    services: RefCell<Kept<ServiceAnswer>>,
}

/// Answers by name, and the questions under way.
struct Kept<A> {
    known: HashMap<Box<[u8]>, (A, u64)>,
    asked: HashMap<Box<[u8]>, Rc<Question<A>>>,
}

/// Answered once, for all who wait for it.
type Question<A> = OnceCell<Result<A, ResolveError>>;

impl<A> Default for Kept<A> {
    fn default() -> Kept<A> {
        Kept { known: HashMap::new(), asked: HashMap::new() }
    }
}

impl Resolver {
    /// Asks nothing yet.
    pub fn new(settings: ResolverSettings) -> Resolver {
        Resolver::with_files(settings, system::Files::default())
    }

    fn with_files(settings: ResolverSettings, system: system::Files) -> Resolver {
        let inner = Inner {
            settings,
            system,
            client: RefCell::new(None),
            hosts_file: RefCell::default(),
            hosts: RefCell::default(),
            services: RefCell::default(),
        };
        Resolver { inner: Rc::new(inner) }
    }

    /// How long an answer may take.
    pub fn timeout(&self) -> Duration {
        self.inner.settings.timeout
    }

    /// The addresses of a name; an address in text form is its own answer.
    pub async fn lookup(&self, name: &[u8]) -> Result<Answer, ResolveError> {
        if let Some(address) = name.to_str().ok().and_then(|name| name.parse::<IpAddr>().ok()) {
            return Ok(Answer { addresses: [address].into(), valid_until_ms: u64::MAX });
        }
        let inner = &self.inner;
        inner.notice_changes();
        let listed = inner.wanted(inner.hosts_file.borrow().lookup(name).iter().copied());
        if !listed.is_empty() {
            // The file is looked at again when it changes; until then this costs nothing to ask.
            return Ok(Answer { addresses: listed.into(), valid_until_ms: clock::now_ms() + HOSTS_FILE_MS });
        }
        let name = &name.to_ascii_lowercase()[..];
        ask_once(&inner.hosts, name, || inner.ask_addresses(name), |answer| answer.valid_until_ms).await
    }

    /// The servers of a service: `service` as in nginx's `service=` (a word becomes `_WORD._tcp.`, what has a
    /// dot stands as it is) at `name`. Targets without an address are left out.
    pub async fn lookup_service(&self, service: &[u8], name: &[u8]) -> Result<ServiceAnswer, ResolveError> {
        let inner = &self.inner;
        let full = match service.contains(&b'.') {
            true => [service, b".", name].concat(),
            false => [b"_", service, b"._tcp.", name].concat(),
        };
        inner.notice_changes();
        ask_once(&inner.services, &full, || self.ask_service(&full), |answer| answer.valid_until_ms).await
    }

    async fn ask_service(&self, name: &[u8]) -> Result<ServiceAnswer, ResolveError> {
        let inner = &self.inner;
        let lookup = inner.in_time(inner.client().srv_lookup(inner.name_of(name)?)).await?;
        let mut valid_until_ms = inner.valid_until_ms(lookup.as_lookup().valid_until());
        let mut peers = Vec::new();
        for record in lookup.iter().take(SERVICE_PEERS_MAX) {
            let target = record.target().to_ascii();
            let target = target.trim_end_matches('.');
            // RFC 2782: a target of "." says that the service is not there.
            if target.is_empty() {
                continue;
            }
            let Ok(answer) = self.lookup(target.as_bytes()).await else { continue };
            valid_until_ms = valid_until_ms.min(answer.valid_until_ms);
            peers.push(ServicePeer {
                addresses: answer.addresses,
                port: record.port(),
                priority: record.priority(),
                weight: record.weight(),
            });
        }
        if peers.is_empty() {
            return Err(ResolveError::HostNotFound);
        }
        peers.sort_by_key(|peer| peer.priority);
        Ok(ServiceAnswer { peers: peers.into(), valid_until_ms })
    }
}

impl Inner {
    async fn ask_addresses(&self, name: &[u8]) -> Result<Answer, ResolveError> {
        let lookup = self.in_time(self.client().lookup_ip(self.name_of(name)?)).await?;
        let addresses = self.wanted(lookup.iter());
        if addresses.is_empty() {
            return Err(ResolveError::HostNotFound);
        }
        let valid_until_ms = self.valid_until_ms(lookup.valid_until());
        Ok(Answer { addresses: addresses.into(), valid_until_ms })
    }

    /// The addresses of wanted families, IPv4 first. One that is named twice has two turns, as in nginx.
    fn wanted(&self, found: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
        let is_wanted =
            |address: &IpAddr| if address.is_ipv4() { self.settings.ipv4 } else { self.settings.ipv6 };
        let mut addresses: Vec<IpAddr> = found.filter(is_wanted).collect();
        addresses.sort_by_key(IpAddr::is_ipv6);
        addresses
    }

    async fn in_time<T>(
        &self,
        lookup: impl Future<Output = Result<T, hickory_resolver::ResolveError>>,
    ) -> Result<T, ResolveError> {
        match tokio::time::timeout(self.settings.timeout, lookup).await {
            Err(_) => Err(ResolveError::TimedOut),
            Ok(result) => result.map_err(|error| error_of(error.proto())),
        }
    }

    fn name_of(&self, name: &[u8]) -> Result<Name, ResolveError> {
        let text = name.to_str().map_err(|_| ResolveError::HostNotFound)?;
        let mut name = Name::from_utf8(text).map_err(|_| ResolveError::HostNotFound)?;
        if matches!(self.settings.servers, Servers::Listed(_)) {
            // nginx adds no search domains.
            name.set_fqdn(true);
        }
        Ok(name)
    }

    fn valid_until_ms(&self, valid_until: Instant) -> u64 {
        let own = valid_until.saturating_duration_since(Instant::now());
        let valid = self.settings.valid.unwrap_or(own);
        clock::refresh().saturating_add(valid.as_millis() as u64)
    }

    /// Forgets what came from the system's files when they have changed.
    fn notice_changes(&self) {
        if self.settings.servers == Servers::System && self.system.have_changed() {
            self.client.replace(None);
            self.hosts_file.replace(self.system.hosts());
            self.hosts.borrow_mut().known.clear();
            self.services.borrow_mut().known.clear();
        }
    }

    /// The client, made when first needed.
    fn client(&self) -> TokioResolver {
        if let Some(client) = &*self.client.borrow() {
            return client.clone();
        }
        let made = match &self.settings.servers {
            Servers::System => self.system.client(&self.options()),
            Servers::Listed(servers) => {
                let mut config = ResolverConfig::new();
                for server in servers {
                    add_server(&mut config, *server);
                }
                build(config, self.options())
            }
        };
        self.client.replace(Some(made.clone()));
        made
    }

    fn options(&self) -> ResolverOpts {
        let mut options = ResolverOpts::default();
        options.ip_strategy = match (self.settings.ipv4, self.settings.ipv6) {
            (_, false) => LookupIpStrategy::Ipv4Only,
            (false, true) => LookupIpStrategy::Ipv6Only,
            (true, true) => LookupIpStrategy::Ipv4AndIpv6,
        };
        // The answers are kept here.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        // nginx asks the next server after five seconds, until the time limit is over.
        options.timeout = Duration::from_secs(5).min(self.settings.timeout);
        options.attempts = 2;
        // The quicker server first; a dead one is soon the last.
        options.server_ordering_strategy = ServerOrderingStrategy::QueryStatistics;
        options
    }
}

fn add_server(config: &mut ResolverConfig, server: SocketAddr) {
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let mut server = NameServerConfig::new(server, protocol);
        server.trust_negative_responses = true;
        config.add_name_server(server);
    }
}

fn build(config: ResolverConfig, options: ResolverOpts) -> TokioResolver {
    let builder = TokioResolver::builder_with_config(config, TokioConnectionProvider::default());
    builder.with_options(options).build()
}

/// Answers from what is known, or joins the question under way, or asks. Where the task that asks is given up,
/// the next of those that wait asks in its place.
async fn ask_once<A, F>(
    kept: &RefCell<Kept<A>>,
    name: &[u8],
    ask: impl FnOnce() -> F,
    valid_until_ms: impl Fn(&A) -> u64,
) -> Result<A, ResolveError>
where
    A: Clone,
    F: Future<Output = Result<A, ResolveError>>,
{
    let now_ms = clock::now_ms();
    let question = {
        let mut kept = kept.borrow_mut();
        if let Some((answer, until_ms)) = kept.known.get(name)
            && now_ms < *until_ms
        {
            return Ok(answer.clone());
        }
        kept.asked.entry(name.into()).or_default().clone()
    };
    let result = question.get_or_init(ask).await.clone();
    let mut kept = kept.borrow_mut();
    let is_current = kept.asked.get(name).is_some_and(|asked| Rc::ptr_eq(asked, &question));
    if is_current {
        kept.asked.remove(name);
        if let Ok(answer) = &result {
            if kept.known.len() >= NAMES_MAX {
                kept.known.retain(|_, (_, until_ms)| now_ms < *until_ms);
            }
            if kept.known.len() < NAMES_MAX {
                kept.known.insert(name.into(), (answer.clone(), valid_until_ms(answer)));
            }
        }
    }
    result
}

fn error_of(error: Option<&ProtoError>) -> ResolveError {
    let Some(error) = error else { return ResolveError::HostNotFound };
    match error.kind() {
        ProtoErrorKind::Timeout => ResolveError::TimedOut,
        ProtoErrorKind::FormError { .. } => ResolveError::FormatError,
        ProtoErrorKind::NoRecordsFound { response_code, .. } => match response_code {
            ResponseCode::FormErr => ResolveError::FormatError,
            ResponseCode::ServFail => ResolveError::ServerFailure,
            ResponseCode::NotImp => ResolveError::Unimplemented,
            ResponseCode::Refused => ResolveError::OperationRefused,
            _ => ResolveError::HostNotFound,
        },
        ProtoErrorKind::Io(_) | ProtoErrorKind::NoConnections | ProtoErrorKind::Busy => {
            // nginx does not tell a server that refuses packets from a silent one.
            ResolveError::TimedOut
        }
        _ => ResolveError::ServerFailure,
    }
}

#[cfg(test)]
mod tests;
