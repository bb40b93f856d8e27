//! Names to addresses, while running: by the servers of a `resolver` directive, or as the system does.
//!
//! Answers are kept for their time to live, or for `valid=`; failures are not kept. Several tasks that ask for
//! the same name at once share one question. A [`Resolver`] belongs to one thread.
//!
//! Names of the configuration that are needed before anything runs go through the system's own resolver, see
//! [`startup`].

mod client;
mod datagrams;
pub mod message;
pub mod startup;
mod system;

use crate::clock;
use crate::timer::{Deadline, Timer};
use bstr::ByteSlice;
use client::{Client, Manner};
use message::{Kind, Response, Service};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::OnceCell;

/// How many names are kept; the ones whose time is over go first.
const NAMES_MAX: usize = 4096;

/// How soon to ask again for a name of the hosts file, in milliseconds.
const HOSTS_FILE_MS: u64 = 5000;

/// How often a name may stand for another (nginx's `NGX_RESOLVER_MAX_RECURSION`).
const ALIASES_MAX: usize = 50;

/// How long a name server has to answer before the next is asked (nginx's `resend_timeout`).
const RESEND: Duration = Duration::from_secs(5);

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
    client: RefCell<Option<Rc<Client>>>,
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
        if inner.settings.servers == Servers::System && is_localhost(name) {
            let here = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            let addresses = inner.wanted(here.into_iter()).into();
            return Ok(Answer { addresses, valid_until_ms: u64::MAX });
        }
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
        let (found, mut valid_until_ms) = inner.in_time(inner.services_of(name)).await?;
        let mut peers = Vec::new();
        for record in found.into_iter().take(SERVICE_PEERS_MAX) {
            // RFC 2782: a target of "." says that the service is not there.
            if record.target.is_empty() {
                continue;
            }
            let Ok(answer) = self.lookup(&record.target).await else { continue };
            valid_until_ms = valid_until_ms.min(answer.valid_until_ms);
            peers.push(ServicePeer {
                addresses: answer.addresses,
                port: record.port,
                priority: record.priority,
                weight: record.weight,
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
        let (addresses, valid_until_ms) = self.in_time(self.addresses_of(name)).await?;
        Ok(Answer { addresses: self.wanted(addresses.into_iter()).into(), valid_until_ms })
    }

    /// The addresses of a name, or of the first of the names it may be short for.
    async fn addresses_of(&self, name: &[u8]) -> Result<(Vec<IpAddr>, u64), ResolveError> {
        let mut outcome = Err(ResolveError::HostNotFound);
        for full in self.full_names(name) {
            outcome = self.follow(full, |name| self.families_of(name), |response| response.addresses).await;
            if !matches!(outcome, Err(ResolveError::HostNotFound)) {
                break;
            }
        }
        outcome
    }

    async fn services_of(&self, name: &[u8]) -> Result<(Vec<Service>, u64), ResolveError> {
        let ask = |name: Vec<u8>| async move {
            let client = self.client();
            let turn = client.turn();
            settled(client.ask(&name, Kind::Srv, turn).await?)
        };
        self.follow(name.to_vec(), ask, |response| response.services).await
    }

    /// Asks for a name, and for the one it stands for, until there is something; how long all of that may be believed.
    async fn follow<T, F: Future<Output = Result<Response, ResolveError>>>(
        &self,
        name: Vec<u8>,
        ask: impl Fn(Vec<u8>) -> F,
        take: impl Fn(Response) -> Vec<T>,
    ) -> Result<(Vec<T>, u64), ResolveError> {
        let (mut name, mut ttl_seconds) = (name, u32::MAX);
        for _ in 0..ALIASES_MAX {
            let mut response = ask(name).await?;
            ttl_seconds = ttl_seconds.min(response.ttl_seconds);
            let alias = response.alias.take();
            let found = take(response);
            if !found.is_empty() {
                return Ok((found, self.valid_until_ms(ttl_seconds)));
            }
            name = alias.ok_or(ResolveError::HostNotFound)?;
        }
        Err(ResolveError::HostNotFound)
    }

    /// Asks one server for the addresses of all wanted families at once.
    async fn families_of(&self, name: Vec<u8>) -> Result<Response, ResolveError> {
        let client = self.client();
        let (ipv4, mut ipv6) = (self.settings.ipv4, self.settings.ipv6);
        if ipv4 && self.settings.servers == Servers::System {
            ipv6 &= system::has_route_to_ipv6();
        }
        let turn = client.turn();
        let first = client.ask(&name, if ipv4 { Kind::A } else { Kind::Aaaa }, turn);
        if !(ipv4 && ipv6) {
            return settled(first.await?);
        }
        let second = client.ask(&name, Kind::Aaaa, turn);
        let (first, second) = both(first, second).await;
        settled(joined(first?, second?, client.manner))
    }

    /// What a name may be short for, in the order of trying.
    fn full_names(&self, name: &[u8]) -> Vec<Vec<u8>> {
        match self.settings.servers {
            Servers::System => self.system.full_names(name),
            // nginx adds no search domains.
            Servers::Listed(_) => vec![name.to_vec()],
        }
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
        lookup: impl Future<Output = Result<T, ResolveError>>,
    ) -> Result<T, ResolveError> {
        let in_time = Timer::new().with_deadline(Deadline::after(self.settings.timeout), lookup).await;
        in_time.unwrap_or(Err(ResolveError::TimedOut))
    }

    fn valid_until_ms(&self, ttl_seconds: u32) -> u64 {
        let valid = self.settings.valid.unwrap_or(Duration::from_secs(u64::from(ttl_seconds)));
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
    fn client(&self) -> Rc<Client> {
        let make = || match &self.settings.servers {
            Servers::System => self.system.client(),
            Servers::Listed(servers) => Client::new(servers.clone(), RESEND, Manner::Listed),
        };
        self.client.borrow_mut().get_or_insert_with(|| Rc::new(make())).clone()
    }
}

/// This machine, whatever name servers say (RFC 6761 section 6.3).
fn is_localhost(name: &[u8]) -> bool {
    name.strip_suffix(b".").unwrap_or(name).eq_ignore_ascii_case(b"localhost")
}

/// What the answers for two families say together. In nginx an error for either is one for both, and where neither has an
/// address, the last one says what the name stands for. The C library takes what there is: many a small router knows one
/// family alone.
fn joined(first: Response, second: Response, manner: Manner) -> Response {
    if matches!(manner, Manner::System { .. }) {
        match (first.addresses.is_empty(), second.addresses.is_empty()) {
            (false, true) if second.code != 0 => return first,
            (true, false) if first.code != 0 => return second,
            _ => {}
        }
    }
    Response {
        code: if second.code == 0 { first.code } else { second.code },
        addresses: [first.addresses, second.addresses].concat(),
        ttl_seconds: first.ttl_seconds.min(second.ttl_seconds),
        ..second
    }
}

/// An answer, or why it is none.
fn settled(mut response: Response) -> Result<Response, ResolveError> {
    if !response.addresses.is_empty() {
        response.alias = None;
    }
    match response.code {
        0 => Ok(response),
        2 => Err(ResolveError::ServerFailure),
        3 => Err(ResolveError::HostNotFound),
        4 => Err(ResolveError::Unimplemented),
        5 => Err(ResolveError::OperationRefused),
        _ => Err(ResolveError::ServerFailure),
    }
}

/// Waits for both.
async fn both<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut one, mut other) = (None, None);
    poll_fn(|cx| {
        if one.is_none()
            && let Poll::Ready(value) = first.as_mut().poll(cx)
        {
            one = Some(value);
        }
        if other.is_none()
            && let Poll::Ready(value) = second.as_mut().poll(cx)
        {
            other = Some(value);
        }
        match (one.take(), other.take()) {
            (Some(one), Some(other)) => Poll::Ready((one, other)),
            (left, right) => {
                (one, other) = (left, right);
                Poll::Pending
            }
        }
    })
    .await
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

#[cfg(test)]
mod tests;
