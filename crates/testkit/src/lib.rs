//! Spec runner, scripted origins, oracle runs against a real nginx.
//!
//! A specification document (`spec/*.md`, the format is told in `spec/README.md`) is read by [`document`], its
//! configuration is completed by [`config`], [`origin`] plays the servers behind the proxy, [`server`] runs the
//! program under test, [`client`] talks to it, [`message`] compares what came with what was written, and [`run`]
//! puts it together. This crate is used by tests and by `cargo xtask`, never by the program itself.

pub mod certificates;
pub mod client;
pub mod config;
pub mod document;
pub mod http2;
pub mod log;
pub mod message;
pub mod origin;
pub mod ports;
pub mod run;
pub mod server;
pub mod text;
pub mod tls;

pub use document::Document;
pub use run::{Outcome, run_document};
pub use server::Binary;
