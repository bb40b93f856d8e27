//! TLS: who we are, whom we trust, handshakes, and sessions that resume. On `rustls` with `aws-lc-rs`.
//!
//! A stream speaks TLS once its handshake is done ([`crate::stream::Stream::accept_tls`]); reads, writes and files then
//! travel in records and nobody above notices.

mod client;
mod der;
mod handshake;
mod identity;
mod issued;
mod key;
pub mod names;
mod notes;
pub mod ocsp;
mod peer;
mod pem;
mod revocation;
mod server;
pub(crate) mod session;
mod sessions;
mod store;
mod subjects;
mod verify;
mod words;
mod x509;

pub use client::{ClientOptions, ClientSettings};
pub use handshake::{Established, HandshakeError, Hello};
pub use identity::{Identity, IdentityError, Oddity, Staple, open_failed, private_key_der};
pub use issued::Issued;
pub use peer::Shown;
pub use rustls::{CipherSuite, NamedGroup, ProtocolVersion, SignatureScheme};
pub use server::{ServerOptions, ServerSettings};
pub use sessions::{SessionCache, TicketKeys};
pub use store::IdentityCache;
pub use verify::{Failure, Trust, Verified};
