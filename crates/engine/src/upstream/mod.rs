//! Calls to upstreams: choosing a peer, connecting, sending, reading the answer, asking the next peer.
//!
//! A protocol module (`proxy`, later `fastcgi` and others) says what to send ([`Protocol`]); everything that
//! takes time is here, once for all of them.

mod attempt;
mod body;
mod converse;
mod duplex;
mod groups;
mod hold;
pub mod http2;
mod incoming;
pub mod keepalive;
mod names;
mod patience;
mod reply;
pub mod settings;
mod spare;
pub mod tls;
pub mod url;
pub mod variables;

pub use attempt::call;
pub use body::{UpstreamBody, deliver};
pub use groups::Upstreams;
pub use names::resolve_in_background;
pub use settings::Settings;
pub use spare::Spare;

use crate::Request;
use balance::Group;
use bstr::BString;
use conf::Level;
use http::{Fields, Status};
use keepalive::Keepalive;
use net::address::Address;
use net::resolver::ResolverSettings;
use std::sync::{Arc, PoisonError, RwLock};
use template::Template;

/// A group of peers: an `upstream` block, or the one peer of a `proxy_pass` without one.
pub struct Upstream {
    /// Its name.
    pub name: BString,
    /// How idle connections are kept.
    pub keepalive: Keepalive,
    /// What `hash` hashes.
    pub hash_key: Option<Template>,
    /// How a peer is chosen.
    pub method: balance::Method,
    /// Who is asked for the names of its servers; none: as the configuration says for all.
    pub resolver: Option<ResolverSettings>,
    /// Made for a `proxy_pass` that names no `upstream` block.
    pub implicit: bool,
    /// The `server` lines with what their names stand for now.
    servers: RwLock<Vec<Server>>,
    /// The peers as of the last resolution.
    peers: RwLock<Arc<Peers>>,
}

/// The peers of an upstream at one moment.
pub struct Peers {
    /// The state and the method.
    pub group: Arc<Group>,
    /// Where each peer of the group is.
    pub addresses: Vec<Address>,
    /// The addresses as text, for `$upstream_addr`.
    pub names: Vec<Arc<[u8]>>,
}

/// One `server` line.
#[derive(Clone, Debug)]
pub struct Server {
    /// As written, for messages: `app:3000`.
    pub text: BString,
    /// A name to look up, and the port; none when the addresses are literal.
    pub name: Option<(String, u16)>,
    /// What it stands for now.
    pub addresses: Vec<Address>,
    /// `weight`, `max_fails` and the like, without the address.
    pub peer: balance::Peer,
    /// Look the name up again while running.
    pub resolve: bool,
}

impl Upstream {
    /// A group with the peers its servers stand for now.
    pub fn new(
        name: BString,
        servers: Vec<Server>,
        method: balance::Method,
        keepalive: Keepalive,
        hash_key: Option<Template>,
        implicit: bool,
    ) -> Upstream {
        let peers = Peers::of(&servers, method, None);
        let (servers, peers) = (RwLock::new(servers), RwLock::new(Arc::new(peers)));
        Upstream { name, keepalive, hash_key, method, resolver: None, implicit, servers, peers }
    }

    /// The peers as of now.
    pub fn peers(&self) -> Arc<Peers> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The `server` lines with what their names stand for now.
    pub fn servers(&self) -> Vec<Server> {
        self.servers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does any line hold a name, so that its addresses may change?
    pub fn has_names(&self) -> bool {
        self.servers.read().unwrap_or_else(PoisonError::into_inner).iter().any(|server| server.name.is_some())
    }

    /// Puts newly resolved servers in force; peers that stay keep their state.
    pub fn replace_servers(&self, servers: Vec<Server>) {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        *peers = Arc::new(Peers::of(&servers, self.method, Some(&peers.group)));
        *self.servers.write().unwrap_or_else(PoisonError::into_inner) = servers;
    }

    /// Puts the addresses in force that a line's name stands for now.
    pub fn put_addresses(&self, line: usize, addresses: Vec<Address>) {
        let mut servers = self.servers();
        if let Some(server) = servers.get_mut(line) {
            server.addresses = addresses;
            self.replace_servers(servers);
        }
    }

    /// Takes over the state of the same upstream of an earlier configuration.
    pub fn carry_from(&self, earlier: &Upstream) {
        let known = earlier.servers();
        let mut servers = self.servers();
        // A name server that is silent for the moment does not take away what was known.
        for server in servers.iter_mut().filter(|server| server.name.is_some() && server.addresses.is_empty())
        {
            let Some((name, port)) = &server.name else { continue };
            let same = |before: &&Server| before.name.as_ref().is_some_and(|(known, _)| known == name);
            if let Some(before) = known.iter().find(same) {
                server.addresses = before.addresses.iter().map(|address| at_port(address, *port)).collect();
            }
        }
        let old = earlier.peers();
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        *peers = Arc::new(Peers::of(&servers, self.method, Some(&old.group)));
        *self.servers.write().unwrap_or_else(PoisonError::into_inner) = servers;
    }
}

/// The same host at another port.
fn at_port(address: &Address, port: u16) -> Address {
    match address {
        Address::Inet(address) => Address::Inet(std::net::SocketAddr::new(address.ip(), port)),
        other => other.clone(),
    }
}

impl Peers {
    fn of(servers: &[Server], method: balance::Method, old: Option<&Group>) -> Peers {
        let mut made = Vec::new();
        let mut addresses = Vec::new();
        // Primary peers come first, as nginx numbers them and as the group sorts them.
        for backup in [false, true] {
            for server in servers.iter().filter(|server| server.peer.backup == backup) {
                for address in &server.addresses {
                    let mut peer = server.peer.clone();
                    peer.address = address.to_string().into();
                    peer.server = server.text.clone();
                    made.push(peer);
                    addresses.push(address.clone());
                }
            }
        }
        let names = addresses.iter().map(|address| Arc::from(address.to_string().into_bytes())).collect();
        let group = match old {
            None => Group::new(made, method),
            Some(old) => Group::carry_from(made, method, old),
        };
        Peers { group, addresses, names }
    }
}

/// A request to pass on.
pub struct Call {
    /// To whom.
    pub destination: Destination,
    /// How.
    pub settings: Arc<Settings>,
    /// What is said.
    pub protocol: Arc<dyn Protocol>,
    /// The request target for the upstream.
    pub target: Vec<u8>,
    /// What messages put before the upstream's address: `http://`.
    pub scheme: &'static str,
    /// Over TLS, and how.
    pub tls: Option<Arc<tls::UpstreamTls>>,
}

/// Host and port as the configuration names them, for `$proxy_host` and `$proxy_port`.
#[derive(Debug, Default)]
pub struct Named {
    /// With its port, where one was written.
    pub host: Vec<u8>,
    /// The port alone; empty for unix sockets.
    pub port: Vec<u8>,
}

/// Whom a request is passed to.
#[derive(Clone)]
pub enum Destination {
    /// A group of the configuration.
    Group(Arc<Upstream>),
    /// A host that variables named: its name is looked up when it is needed.
    Host {
        /// The name or address.
        host: BString,
        /// The port.
        port: u16,
    },
}

/// How a request body goes to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is none.
    None,
    /// As it is; the head told its length.
    Length,
    /// In chunks.
    Chunked,
}

/// What a protocol module knows: the words, not the waiting.
pub trait Protocol: Send + Sync {
    /// Writes the request's head for a peer and says how the body follows.
    ///
    /// # Errors
    /// The status to end with when no head can be made.
    fn request(&self, request: &mut Request, call: &Call, out: &mut Vec<u8>) -> Result<BodyFraming, Status>;

    /// Is HTTP/2 spoken? The head is then made by [`Protocol::request_fields`].
    fn http2(&self) -> bool {
        false
    }

    /// As [`Protocol::request`], as a list of fields, the pseudo-header fields first.
    ///
    /// # Errors
    /// The status to end with when no head can be made.
    fn request_fields(
        &self,
        _request: &mut Request,
        _call: &Call,
        _out: &mut Fields,
    ) -> Result<BodyFraming, Status> {
        Err(Status::INTERNAL_SERVER_ERROR)
    }

    /// How large the head of an answer in HTTP/2 may be, bytes.
    fn header_bytes_max(&self, call: &Call) -> usize {
        call.settings.buffer_size.0
    }

    /// A body to send instead of the client's; none: the client's.
    fn body(&self, _request: &mut Request) -> Option<Vec<u8>> {
        None
    }

    /// Changes a header of the response on its way; true: it was dealt with and is not passed on as it is.
    fn response_header(&self, _request: &mut Request, _name: &[u8], _value: &[u8]) -> bool {
        false
    }

    /// The folder for temporary files under the prefix, where the configuration names none.
    fn temporary_folder(&self) -> &'static str;

    /// Headers of the response that are not passed on, in lower case.
    fn hides(&self, name: &[u8]) -> bool;
}

/// Logs that nobody waits for the upstream's answer any more, as nginx does on Linux.
fn client_is_gone(request: &mut Request<'_>) {
    request.log_error(
        Level::Info,
        format_args!(
            "epoll_wait() reported that client prematurely closed connection, so upstream connection is closed too"
        ),
    );
    request.action = "";
}

/// What became of one peer that was asked, for `$upstream_*`.
#[derive(Clone, Debug, Default)]
pub struct Attempted {
    /// The peer's address, or the group's name where no peer was to be had.
    pub address: Option<Arc<[u8]>>,
    /// Its status, 0 before there is one.
    pub status: u16,
    /// Milliseconds until connected.
    pub connect_ms: Option<u64>,
    /// Milliseconds until its head was there.
    pub header_ms: Option<u64>,
    /// Milliseconds until its last byte was there.
    pub response_ms: Option<u64>,
    /// Bytes of its body.
    pub response_bytes: u64,
    /// Bytes received from it.
    pub received_bytes: u64,
    /// Bytes sent to it.
    pub sent_bytes: u64,
    /// The first attempt after an internal redirect: shown behind a colon.
    pub new_call: bool,
}
