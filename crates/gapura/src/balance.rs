//! The balance of client connections over the threads of a worker.
//!
//! Every thread watches every socket, and the kernel wakes whichever it likes. A thread that already holds clearly
//! more connections than another hands the one it accepted over to that thread.

use net::accept::Accepted;
use net::address::Address;
use net::thread::Sender;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most connections that wait for one thread to take them over.
pub const HANDED_OVER_MAX: usize = 256;
/// A thread may hold this part of the least loaded one's connections more, and one.
const UNEVENNESS: usize = 16;

/// How many connections each thread holds, and the way to it.
pub struct Balance {
    loads: Vec<Arc<AtomicUsize>>,
    doors: Vec<Sender<HandedOver>>,
}

/// A thread's own view of the balance.
#[derive(Clone)]
pub struct Mine {
    /// What all threads share.
    pub balance: Arc<Balance>,
    /// The thread's number.
    pub number: usize,
}

/// A connection on its way to the thread that will serve it.
pub struct HandedOver {
    /// The connection.
    pub accepted: Accepted,
    /// Where the socket listens that took it.
    pub listen: Arc<Address>,
    /// Its place in the count of that thread.
    pub load: Load,
}

/// One connection in a thread's count, until it drops.
pub struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Mine {
    /// How many connections the thread holds, those on the way included.
    pub fn load(&self) -> usize {
        self.balance.loads[self.number].load(Ordering::Relaxed)
    }
}

impl Balance {
    /// A balance over the threads behind these doors.
    pub fn new(doors: Vec<Sender<HandedOver>>) -> Balance {
        Balance { loads: doors.iter().map(|_| Arc::default()).collect(), doors }
    }

    /// Counts a connection for a thread.
    pub fn place(&self, number: usize) -> Load {
        let load = self.loads[number].clone();
        load.fetch_add(1, Ordering::Relaxed);
        Load(load)
    }

    /// Hands a connection that a thread accepted to the one that has the fewest. Some: it stays where it is.
    pub fn hand_over(&self, own: usize, mut handed_over: HandedOver) -> Option<HandedOver> {
        let Some(least) = self.lighter_than(own) else { return Some(handed_over) };
        handed_over.load = self.place(least);
        match self.doors[least].try_send(handed_over) {
            Ok(()) => None,
            Err(refused) => {
                let mut kept = refused.into_inner();
                kept.load = self.place(own);
                Some(kept)
            }
        }
    }

    /// The thread with the fewest connections, if this one has clearly more.
    fn lighter_than(&self, own: usize) -> Option<usize> {
        let load = |number: usize| self.loads[number].load(Ordering::Relaxed);
        let least = (0..self.loads.len()).min_by_key(|number| load(*number))?;
        let most = load(least) + 1 + load(least) / UNEVENNESS;
        (load(own) > most).then_some(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_accepts_everything_shares_it_evenly() {
        for threads in [1, 2, 4] {
            let balance = Balance::new((0..threads).map(|_| net::thread::mailbox(1).0).collect());
            let mut held = Vec::new();
            for _ in 0..256 {
                let own = balance.place(0);
                held.push(match balance.lighter_than(0) {
                    Some(least) => balance.place(least),
                    None => own,
                });
            }
            let fullest = balance.loads.iter().map(|load| load.load(Ordering::Relaxed)).max().unwrap_or(0);
            assert!(fullest * threads * 100 <= 256 * 115, "{fullest} of 256 on one of {threads}");
            drop(held);
            assert!(balance.loads.iter().all(|load| load.load(Ordering::Relaxed) == 0));
        }
    }
}
