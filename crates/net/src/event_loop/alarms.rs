//! Moments at which somebody is woken, in their order.
//!
//! Few are ever reached and fewer are moved: a connection sets its own once and lets it stand ([`crate::timer`]).

use crate::clock;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::task::Waker;

thread_local! {
    /// Never dropped, so that no look at it has to ask whether it is there still; a loop that ends leaves nothing in it.
    static ALARMS: ManuallyDrop<RefCell<Alarms>> =
        const { ManuallyDrop::new(RefCell::new(Alarms { wakers: BTreeMap::new(), next_number: 0 })) };
}

fn with_alarms<T>(work: impl FnOnce(&mut Alarms) -> T) -> T {
    ALARMS.with(|alarms| work(&mut alarms.borrow_mut()))
}

/// The alarms of a thread.
struct Alarms {
    /// By the moment, monotonic milliseconds, and a number that tells those of one moment apart.
    wakers: BTreeMap<(u64, u32), Waker>,
    next_number: u32,
}

/// Has somebody woken at a moment of the monotonic clock, milliseconds. Returns the number of the alarm.
pub(crate) fn set(at_ms: u64, waker: Waker) -> u32 {
    with_alarms(|alarms| {
        loop {
            let number = alarms.next_number;
            alarms.next_number = number.wrapping_add(1);
            if let std::collections::btree_map::Entry::Vacant(entry) = alarms.wakers.entry((at_ms, number)) {
                entry.insert(waker);
                return number;
            }
        }
    })
}

/// Has somebody else woken by an alarm that was set.
pub(crate) fn redirect(at_ms: u64, number: u32, waker: &Waker) {
    let waker = waker.clone();
    let _old = with_alarms(|alarms| {
        alarms.wakers.get_mut(&(at_ms, number)).map(|current| std::mem::replace(current, waker))
    });
}

/// Takes an alarm back. One that has rung is gone.
pub(crate) fn remove(at_ms: u64, number: u32) {
    // Nothing is held any more when the waker is dropped.
    let _old = with_alarms(|alarms| alarms.wakers.remove(&(at_ms, number)));
}

/// The moment of the next one.
pub(super) fn next_ms() -> Option<u64> {
    with_alarms(|alarms| alarms.wakers.first_key_value().map(|((at_ms, _), _)| *at_ms))
}

/// Wakes all whose moment has come.
pub(super) fn ring() {
    let Some(first_ms) = next_ms() else { return };
    let now_ms = clock::now_ms();
    if first_ms > now_ms {
        return;
    }
    let due = with_alarms(|alarms| {
        let later = alarms.wakers.split_off(&(now_ms + 1, 0));
        std::mem::replace(&mut alarms.wakers, later)
    });
    due.into_values().for_each(Waker::wake);
}
