//! Choosing a peer: weights, failures, every balancing method, the health state machine.
//!
//! A [`Group`] is what an `upstream` block says about its servers, one [`Peer`] per address, and never changes; when
//! a reload or a name server brings other addresses, a new group is made that takes over the [`PeerState`] of every
//! address that stays. A request opens an [`Attempt`], which chooses a peer, learns how that went and, where asked
//! again, chooses another one.
//!
//! Nothing here waits, reads a clock or rolls dice: the time (milliseconds from any start) and random numbers are
//! arguments. Sequences of choices are nginx's own; the tests hold what nginx was seen to choose.

mod attempt;
mod crc32;
mod group;
mod hash;
mod health;
mod least;
mod peer;
mod random;
mod round_robin;

pub use attempt::{Attempt, Outcome, Released, Timings};
pub use crc32::crc32;
pub use group::{Group, Key, Method, PeerIndex};
pub use health::{Health, HealthLimits, HealthState};
pub use peer::{Counters, Peer, PeerState};

#[cfg(test)]
mod tests;
