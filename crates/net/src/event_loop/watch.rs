//! What the kernel has reported of descriptors, and who waits for it.
//!
//! A descriptor is watched for everything at once and edge-triggered: each report says what is new, and is remembered until
//! an operation finds that there is nothing left ([`Watch::clear`]).

use super::tasks::poll_budget;
use crate::errno::Errno;
use rustix::event::epoll::{self, EventData, EventFlags};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

/// What the kernel says when another thread calls; no watch has this key.
pub(super) const BELL: u64 = u64::MAX;
/// For what is only read.
pub(super) const ON_READ: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);
const ON_BOTH: EventFlags = ON_READ.union(EventFlags::OUT);

thread_local! {
    /// Never dropped, so that no look at it has to ask whether it is there still; the last watch after the loop empties it.
    static TABLE: ManuallyDrop<RefCell<Table>> =
        const { ManuallyDrop::new(RefCell::new(Table { epoll: None, slots: Vec::new(), free: Vec::new() })) };
}

fn with_table<T>(work: impl FnOnce(&mut Table) -> T) -> T {
    TABLE.with(|table| work(&mut table.borrow_mut()))
}

/// What is watched on a thread.
struct Table {
    epoll: Option<Rc<OwnedFd>>,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

struct Slot {
    /// Which watch of this number it is: the kernel may still report what has been closed since.
    generation: u32,
    news: News,
    sides: [Side; 2],
}

/// Those who wait to read, or to write.
#[derive(Default)]
struct Side {
    /// Kept for the next wait, which is mostly the same task's.
    waker: Option<Waker>,
    waits: bool,
}

/// What was reported.
#[derive(Clone, Copy, Default)]
struct News {
    ready: [bool; 2],
    /// The end was seen: there is always something to read, or nothing to wait for before writing.
    closed: [bool; 2],
}

/// To read or to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read = 0,
    Write = 1,
}

impl Table {
    /// The slot of a watch; none where another has its number by now.
    fn slot(&mut self, number: u32, generation: u32) -> Option<&mut Slot> {
        self.slots.get_mut(number as usize).filter(|slot| slot.generation == generation)
    }

    /// Keeps nothing once the loop has ended and nothing is watched any more.
    fn forget_after_the_loop(&mut self) {
        if self.epoll.is_none() && self.free.len() == self.slots.len() {
            (self.slots, self.free) = Default::default();
        }
    }
}

impl News {
    fn of(flags: EventFlags) -> News {
        let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        let over = flags.contains(EventFlags::HUP);
        let ended = flags.contains(EventFlags::RDHUP) || over;
        News {
            ready: [
                flags.contains(EventFlags::IN) || ended || broken,
                flags.contains(EventFlags::OUT) || broken,
            ],
            closed: [ended, over],
        }
    }

    fn any(self, direction: Direction) -> bool {
        self.ready[direction as usize] || self.closed[direction as usize]
    }
}

/// A watch over one descriptor. When it is dropped the kernel is not told: the descriptor is closed then, which ends it
/// there, too. Whoever leaves the descriptor open calls [`Watch::end`] before.
#[derive(Debug)]
pub(crate) struct Watch {
    number: u32,
    generation: u32,
    /// It belongs to its thread.
    thread: PhantomData<*const ()>,
}

impl Watch {
    /// Watches a descriptor for reading and writing. What there is already is reported with the next turn of the loop.
    ///
    /// # Errors
    /// The system's; `EBADF` on a thread without an event loop.
    pub(crate) fn begin(descriptor: impl AsFd) -> Result<Watch, Errno> {
        Watch::add(descriptor, ON_BOTH)
    }

    /// As [`Watch::begin`] for what is only read.
    pub(crate) fn begin_reading(descriptor: impl AsFd) -> Result<Watch, Errno> {
        Watch::add(descriptor, ON_READ)
    }

    fn add(descriptor: impl AsFd, flags: EventFlags) -> Result<Watch, Errno> {
        with_table(|table| {
            let epoll = table.epoll.clone().ok_or(Errno::BADF)?;
            let number = match table.free.pop() {
                Some(number) => number,
                None => {
                    let number = u32::try_from(table.slots.len()).map_err(|_| Errno::NOMEM)?;
                    table.slots.push(Slot {
                        generation: 0,
                        news: News::default(),
                        sides: Default::default(),
                    });
                    number
                }
            };
            let slot = &mut table.slots[number as usize];
            slot.news = News::default();
            let generation = slot.generation;
            let key = EventData::new_u64(u64::from(generation) << 32 | u64::from(number));
            match epoll::add(&*epoll, descriptor, key, flags) {
                Ok(()) => Ok(Watch { number, generation, thread: PhantomData }),
                Err(errno) => {
                    table.free.push(number);
                    Err(errno)
                }
            }
        })
    }

    /// Ends the watch in the kernel, over a descriptor that stays open.
    pub(crate) fn end(&self, descriptor: impl AsFd) {
        if let Some(epoll) = with_table(|table| table.epoll.clone()) {
            // It fails where the loop that watched has ended, and its watches with it.
            let _ = epoll::delete(&*epoll, descriptor);
        }
    }

    /// Ready when a read or a write is worth trying; true: the end was reported as well.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>, direction: Direction) -> Poll<bool> {
        let mut old = None;
        let closed = with_table(|table| {
            let slot = self.slot(table)?;
            if slot.news.any(direction) {
                return Some(slot.news.closed[direction as usize]);
            }
            let side = &mut slot.sides[direction as usize];
            side.waits = true;
            if !side.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                old = side.waker.replace(cx.waker().clone());
            }
            None
        });
        // Nothing of the table is held while somebody else's waker is dropped.
        drop(old);
        match closed {
            Some(closed) => {
                ready!(poll_budget(cx));
                Poll::Ready(closed)
            }
            None => Poll::Pending,
        }
    }

    /// Has the kernel reported that a read or a write is worth trying?
    pub(crate) fn is_ready(&self, direction: Direction) -> bool {
        with_table(|table| self.slot(table).is_some_and(|slot| slot.news.any(direction)))
    }

    /// Forgets what was reported, but for the end. Right after an operation that found nothing, or not enough: the thread
    /// has not asked the kernel since.
    pub(crate) fn clear(&self, direction: Direction) {
        with_table(|table| {
            if let Some(slot) = self.slot(table) {
                slot.news.ready[direction as usize] = false;
            }
        });
    }

    fn slot<'t>(&self, table: &'t mut Table) -> Option<&'t mut Slot> {
        table.slot(self.number, self.generation)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Nothing of the table is held while wakers are dropped.
        let _left = with_table(|table| {
            let slot = self.slot(table)?;
            slot.generation = slot.generation.wrapping_add(1);
            let sides = std::mem::take(&mut slot.sides);
            table.free.push(self.number);
            table.forget_after_the_loop();
            Some(sides)
        });
    }
}

/// The watches of this thread, from the beginning of its loop to the end.
pub(super) struct Watching;

impl Watching {
    pub(super) fn begin(epoll: Rc<OwnedFd>) -> Watching {
        with_table(|table| table.epoll = Some(epoll));
        Watching
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        with_table(|table| {
            table.epoll = None;
            table.forget_after_the_loop();
        });
    }
}

/// The kernel has news of a descriptor: remembered, and told to those who wait.
pub(super) fn report(key: u64, flags: EventFlags) {
    let news = News::of(flags);
    for direction in [Direction::Read, Direction::Write] {
        if news.any(direction) {
            report_to(key, news, direction);
        }
    }
}

fn report_to(key: u64, news: News, direction: Direction) {
    let at = direction as usize;
    let (number, generation) = (key as u32, (key >> 32) as u32);
    let waiting = with_table(|table| {
        let slot = table.slot(number, generation)?;
        slot.news.ready[at] |= news.ready[at];
        slot.news.closed[at] |= news.closed[at];
        let side = &mut slot.sides[at];
        if std::mem::take(&mut side.waits) { side.waker.take() } else { None }
    });
    let Some(waker) = waiting else { return };
    // Called while nothing of the table is held, and put back for the next wait.
    waker.wake_by_ref();
    let _left =
        with_table(|table| match table.slot(number, generation).map(|slot| &mut slot.sides[at].waker) {
            Some(place @ None) => place.replace(waker),
            _ => Some(waker),
        });
}
