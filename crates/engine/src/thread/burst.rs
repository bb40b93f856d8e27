//! What many busy connections at a time have taken goes back to the system when most of them rest again.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Fewer busy connections leave nothing behind that is worth looking for.
const BURST_MIN: usize = 64;
/// Of so many at the height of a burst one at most may be busy still when it counts as over.
const DECLINE: usize = 4;
/// For how long it must be over, so that one wave after another finds the memory of the last.
const CALM: Duration = Duration::from_secs(1);

/// How many connections of a thread are busy, and were.
#[derive(Default)]
pub struct Burst {
    busy: Cell<usize>,
    /// The most since memory was last given back.
    height: Cell<usize>,
    /// Does a task wait for calm?
    watched: Cell<bool>,
}

/// A busy connection, until dropped.
pub struct Busy(Rc<Burst>);

impl Burst {
    /// Counts a connection.
    pub fn join(self: &Rc<Self>) -> Busy {
        let busy = self.busy.get() + 1;
        self.busy.set(busy);
        self.height.set(self.height.get().max(busy));
        Busy(self.clone())
    }

    fn is_over(&self) -> bool {
        self.height.get() >= BURST_MIN && self.busy.get() <= self.height.get() / DECLINE
    }
}

impl Busy {
    /// The connection rests or has ended.
    pub fn rest(self) {
        let burst = self.0.clone();
        drop(self);
        if burst.is_over() && !burst.watched.replace(true) {
            net::thread::spawn_local(async move {
                net::timer::sleep(CALM).await;
                burst.watched.set(false);
                if burst.is_over() {
                    net::memory::give_back();
                    burst.height.set(burst.busy.get());
                }
            });
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
    }
}
