//! Connections that wait for a request and may be told to end, the one that has waited longest first.
//!
//! Every request ends in such a wait, so joining and leaving the line cost a few stores: places are numbers in one
//! table, linked to their neighbours. There are no more places than connections, which `worker_connections` bounds.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

/// Those that wait.
#[derive(Default)]
pub struct Line {
    places: RefCell<Places>,
    waiting: Cell<usize>,
}

struct Places {
    /// The first place is nobody's and makes the line a ring: the first in the line comes after it, the last before.
    table: Vec<Place>,
    /// The first of the places that nobody has; the others come after it. [`RING`]: there are none.
    free: u32,
}

/// The number of the place that closes the ring.
const RING: u32 = 0;

struct Place {
    /// Who has it; none: it was dismissed.
    waker: Option<Waker>,
    before: u32,
    after: u32,
}

impl Default for Places {
    fn default() -> Places {
        Places { table: vec![Place { waker: None, before: RING, after: RING }], free: RING }
    }
}

/// A wait that ends when the connection is to end. Leaves the line when dropped.
pub struct Dismissal<'l> {
    line: &'l Line,
    place: Option<u32>,
}

impl Line {
    /// A place at the end, taken when it is first polled.
    pub fn join(&self) -> Dismissal<'_> {
        Dismissal { line: self, place: None }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// Dismisses the one that has waited longest; false: nobody waits.
    pub fn dismiss_first(&self) -> bool {
        let mut places = self.places.borrow_mut();
        let first = places.at(RING).after;
        if first == RING {
            return false;
        }
        places.unlink(first);
        let waker = places.at(first).waker.take();
        self.waiting.set(self.waiting.get() - 1);
        drop(places);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Dismisses all.
    pub fn dismiss_all(&self) {
        while self.dismiss_first() {}
    }
}

impl Places {
    fn at(&mut self, number: u32) -> &mut Place {
        &mut self.table[number as usize]
    }

    /// Takes a place at the end.
    fn take(&mut self, waker: Waker) -> u32 {
        let last = self.at(RING).before;
        let place = Place { waker: Some(waker), before: last, after: RING };
        let mut number = self.free;
        if number == RING {
            // Not doubled: as many places again would be idle memory of connections that may never come.
            if self.table.len() == self.table.capacity() {
                self.table.reserve_exact(self.table.len() / 4 + 16);
            }
            number = self.table.len() as u32;
            self.table.push(place);
        } else {
            self.free = self.at(number).after;
            *self.at(number) = place;
        }
        self.at(last).after = number;
        self.at(RING).before = number;
        number
    }

    fn unlink(&mut self, number: u32) {
        let Place { before, after, .. } = *self.at(number);
        self.at(before).after = after;
        self.at(after).before = before;
    }

    fn give_back(&mut self, number: u32) {
        self.at(number).after = std::mem::replace(&mut self.free, number);
    }
}

impl Dismissal<'_> {
    /// Ready once the connection is to end.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut places = self.line.places.borrow_mut();
        let Some(number) = self.place else {
            self.place = Some(places.take(cx.waker().clone()));
            self.line.waiting.set(self.line.waiting.get() + 1);
            return Poll::Pending;
        };
        match &mut places.at(number).waker {
            None => Poll::Ready(()),
            Some(waker) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
        }
    }
}

impl Drop for Dismissal<'_> {
    fn drop(&mut self) {
        let Some(number) = self.place else { return };
        let mut places = self.line.places.borrow_mut();
        let waker = places.at(number).waker.take();
        if waker.is_some() {
            places.unlink(number);
            self.line.waiting.set(self.line.waiting.get() - 1);
        }
        places.give_back(number);
        // The last hold on a task may be here, and what it holds may have a place of its own.
        drop(places);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_longest_wait_ends_first_and_those_who_leave_are_forgotten() {
        let line = Line::default();
        let counters: Vec<Arc<Counter>> = (0..5).map(|_| Arc::default()).collect();
        let wakers: Vec<Waker> = counters.iter().map(|counter| counter.clone().into()).collect();
        let poll = |wait: &mut Dismissal<'_>, at: usize| wait.poll(&mut Context::from_waker(&wakers[at]));
        let woken =
            || -> Vec<usize> { counters.iter().map(|counter| counter.0.load(Ordering::Relaxed)).collect() };
        assert!(!line.dismiss_first());
        let mut waits: Vec<Dismissal<'_>> = (0..4).map(|_| line.join()).collect();
        for (at, wait) in waits.iter_mut().enumerate() {
            assert_eq!(poll(wait, at), Poll::Pending);
        }
        assert_eq!(line.waiting(), 4);
        // One in the middle leaves, and another takes its place in the table, at the end of the line.
        drop(waits.remove(1));
        let mut late = line.join();
        assert_eq!(poll(&mut late, 4), Poll::Pending);
        assert!(line.dismiss_first() && line.dismiss_first());
        assert_eq!((woken(), line.waiting()), (vec![1, 0, 1, 0, 0], 2));
        assert_eq!(poll(&mut waits[0], 0), Poll::Ready(()));
        assert_eq!(poll(&mut waits[2], 3), Poll::Pending);
        // Whoever was dismissed and did not look leaves nothing behind either.
        waits.truncate(1);
        assert_eq!(line.waiting(), 1);
        drop(waits);
        line.dismiss_all();
        assert_eq!((woken(), line.waiting()), (vec![1, 0, 1, 0, 1], 0));
        assert_eq!(poll(&mut late, 4), Poll::Ready(()));
        drop(late);
        assert!(!line.dismiss_first());
        let mut again = line.join();
        assert_eq!(poll(&mut again, 0), Poll::Pending);
        assert!(line.dismiss_first());
        // With the one that closes the ring.
        assert_eq!(line.places.borrow().table.len(), 5);
    }
}
