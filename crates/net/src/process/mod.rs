//! Processes: how the master starts, feeds and hears its workers.
//!
//! | | |
//! |---|---|
//! | [`title`] | what `ps` shows |
//! | [`signals`] | signals as something to poll for |
//! | [`channel`] | frames with descriptors between two processes |
//! | [`watch`] | waiting for either on an event loop |
//! | [`spawn`] | starting a worker, and another binary |
//! | [`daemon`] | leaving the terminal |
//! | [`user`] | users and groups by name, and becoming one |
//!
//! No process forks without executing something else, but for the daemon, which does it while it has one thread.

pub mod channel;
pub mod daemon;
pub mod signals;
pub mod spawn;
pub mod title;
pub mod user;
pub mod watch;
