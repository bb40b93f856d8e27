//! The life of a request.
//!
//! Modules decide; the engine does. A module is synchronous code that looks at a [`Request`] and returns a
//! [`Flow`]; everything that takes time (reading, writing, sleeping, files, upstreams, subrequests) is an effect
//! from a closed list, carried out here. A location compiles at load to a [`Plan`] that holds only what is on.
//!
//! A newcomer starts with [`exchange`]: the page that takes one request from its head to its log line.
//! Then [`flow`] (the vocabulary), [`module`] (what a module is), [`plan`] and [`compile`] (a configuration's
//! life), [`connection`] (keep-alive and pipelining) and [`upstream`] (calls to peers).

pub mod acme;
pub mod background;
pub mod body;
pub mod browser;
pub mod compile;
pub mod connection;
pub mod core;
pub mod driver;
pub mod effects;
pub mod error_page;
pub mod exchange;
pub mod flow;
pub mod h2;
pub mod head;
pub mod locate;
pub mod log;
pub mod mapping;
pub mod module;
pub mod plan;
pub mod pump;
pub mod race;
pub mod request;
pub mod respond;
pub mod thread;
pub mod tls;
pub mod upgrade;
pub mod upstream;
pub mod variables;

pub use flow::{
    Answer, Ask, Call, Chunk, Chunks, Filter, Flow, Logger, Phase, Reply, Source, Step, Target, Transform,
};
pub use module::{Build, Declare, Family, Installer, Module, Variable};
pub use plan::{Plan, PlanId, Site, SiteId, Snapshot};
pub use request::Request;

/// Our version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The version of nginx whose behaviour and configuration this follows.
pub const COMPATIBLE_VERSION: &str = "1.31.5";
