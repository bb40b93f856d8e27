//! Tasks: futures that are polled when something they wait for has happened.
//!
//! A task has a number, and its waker says nothing but the number: the waker is made once for each number and serves all
//! tasks that have it, one after another. So a late call may wake the wrong task, which looks and goes on waiting, as every
//! future has to; and nothing is counted for each task but its memory.

use crate::errno::Errno;
use rustix::event::{EventfdFlags, eventfd};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A task may do so many things without waiting before others have their turn.
const BUDGET: u32 = 128;

/// The number of the future that the loop runs for.
const MAIN: u32 = u32::MAX;

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    /// The home of this thread's tasks, while its loop runs; for comparing alone.
    static HOME: Cell<*const Home> = const { Cell::new(ptr::null()) };
    static BUDGET_LEFT: Cell<u32> = const { Cell::new(BUDGET) };
    /// Never dropped, so that no look at it has to ask whether it is there still; a loop that ends empties it.
    static TABLE: ManuallyDrop<RefCell<Table>> = const {
        ManuallyDrop::new(RefCell::new(Table {
            slots: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            deferred: Vec::new(),
            main_is_ready: false,
            home: None,
        }))
    };
}

fn with_table<T>(work: impl FnOnce(&mut Table) -> T) -> T {
    TABLE.with(|table| work(&mut table.borrow_mut()))
}

/// All tasks of a thread.
struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Those to be polled, in turn.
    ready: VecDeque<u32>,
    /// Those that became ready while they were polled: the kernel is asked first.
    deferred: Vec<u32>,
    main_is_ready: bool,
    home: Option<Arc<Home>>,
}

struct Slot {
    /// None while it is polled, and where there is no task.
    future: Option<LocalFuture>,
    /// None while it is lent to the task.
    waker: Option<Waker>,
    /// Which task of this number it is, for those who may end it.
    generation: u32,
    phase: Phase,
    /// It is in one of the lists.
    is_listed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Free,
    Waiting,
    Running,
    /// Running, and to be dropped after it.
    Aborted,
}

/// What wakers of other threads reach.
struct Home {
    posted: Mutex<Vec<Arc<Call>>>,
    bell: OwnedFd,
}

/// What a waker is: the call for one number.
struct Call {
    home: Arc<Home>,
    number: u32,
    /// It is among those posted from other threads.
    is_posted: AtomicBool,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if ptr::eq(HOME.get(), Arc::as_ptr(&self.home)) {
            with_table(|table| table.make_ready(self.number));
        } else if !self.is_posted.swap(true, Ordering::AcqRel) {
            self.home.post(self.clone());
        }
    }
}

impl Home {
    fn posted(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Call>>> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, call: Arc<Call>) {
        let mut posted = self.posted();
        posted.push(call);
        // Whoever found it empty rings; the list is taken whole.
        if posted.len() == 1 {
            drop(posted);
            // The counter of the bell never comes near its end, where this would fail.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    fn waker(self: &Arc<Self>, number: u32) -> Waker {
        Waker::from(Arc::new(Call { home: self.clone(), number, is_posted: AtomicBool::new(false) }))
    }
}

impl Table {
    fn make_ready(&mut self, number: u32) {
        if number == MAIN {
            self.main_is_ready = true;
            return;
        }
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        if slot.is_listed || slot.phase == Phase::Free {
            return;
        }
        slot.is_listed = true;
        if slot.phase == Phase::Waiting { self.ready.push_back(number) } else { self.deferred.push(number) }
    }

    fn add(&mut self, future: LocalFuture) -> Option<Task> {
        let home = self.home.as_ref()?;
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                let number = u32::try_from(self.slots.len()).ok().filter(|number| *number < MAIN)?;
                let waker = Some(home.waker(number));
                self.slots.push(Slot {
                    future: None,
                    waker,
                    generation: 0,
                    phase: Phase::Free,
                    is_listed: false,
                });
                number
            }
        };
        let slot = &mut self.slots[number as usize];
        slot.future = Some(future);
        slot.phase = Phase::Waiting;
        let generation = slot.generation;
        self.make_ready(number);
        Some(Task { number, generation })
    }

    /// The next one to poll, with its waker.
    fn take_next(&mut self) -> Option<(u32, LocalFuture, Waker)> {
        while let Some(number) = self.ready.pop_front() {
            let slot = &mut self.slots[number as usize];
            slot.is_listed = false;
            // One that was ended while it was listed has no future.
            let Some(future) = slot.future.take() else { continue };
            if let Some(waker) = slot.waker.take() {
                slot.phase = Phase::Running;
                return Some((number, future, waker));
            }
        }
        None
    }

    /// Takes back what was polled; the future where nobody wants it any more.
    fn put_back(
        &mut self,
        number: u32,
        waker: Waker,
        future: LocalFuture,
        is_over: bool,
    ) -> Option<LocalFuture> {
        let slot = &mut self.slots[number as usize];
        slot.waker = Some(waker);
        if is_over || slot.phase == Phase::Aborted {
            self.leave(number);
            return Some(future);
        }
        slot.phase = Phase::Waiting;
        slot.future = Some(future);
        None
    }

    fn leave(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        slot.phase = Phase::Free;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(number);
    }
}

/// The tasks of this thread, from the beginning of its loop to the end.
pub(super) struct Tasks(Arc<Home>);

impl Tasks {
    pub(super) fn begin() -> Result<Tasks, Errno> {
        assert!(HOME.get().is_null(), "one event loop per thread");
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let home = Arc::new(Home { posted: Mutex::default(), bell });
        HOME.set(Arc::as_ptr(&home));
        with_table(|table| {
            table.home = Some(home.clone());
            table.main_is_ready = true;
        });
        Ok(Tasks(home))
    }

    /// Readable when another thread has woken a task.
    pub(super) fn bell(&self) -> &OwnedFd {
        &self.0.bell
    }

    pub(super) fn main_waker(&self) -> Waker {
        self.0.waker(MAIN)
    }

    /// Makes those ready that other threads have woken.
    pub(super) fn answer_bell(&self) {
        let posted = std::mem::take(&mut *self.0.posted());
        with_table(|table| {
            for call in posted {
                // Who called before this is seen by the task (a plain write would not be ordered with what the task reads);
                // who calls after it posts anew.
                call.is_posted.swap(false, Ordering::AcqRel);
                table.make_ready(call.number);
            }
        });
    }
}

impl Drop for Tasks {
    /// Drops all tasks, and those that they start meanwhile.
    fn drop(&mut self) {
        loop {
            let futures: Vec<LocalFuture> = with_table(|table| {
                let numbers = 0..table.slots.len();
                numbers
                    .filter_map(|number| {
                        let future = table.slots[number].future.take()?;
                        table.leave(number as u32);
                        Some(future)
                    })
                    .collect()
            });
            if futures.is_empty() {
                break;
            }
            futures.into_iter().for_each(drop_task);
        }
        HOME.set(ptr::null());
        let slots = with_table(|table| {
            table.home = None;
            table.free = Vec::new();
            table.ready = VecDeque::new();
            table.deferred = Vec::new();
            std::mem::take(&mut table.slots)
        });
        drop(slots);
        self.0.posted().clear();
    }
}

/// Is it the main future's turn? Asked once for each time it was woken.
pub(super) fn take_main() -> bool {
    with_table(|table| std::mem::take(&mut table.main_is_ready))
}

/// Is anybody to be polled at once?
pub(super) fn any_ready() -> bool {
    with_table(|table| table.main_is_ready || !table.ready.is_empty() || !table.deferred.is_empty())
}

/// Those who let the kernel be asked first have their turn now.
pub(super) fn resume_deferred() {
    with_table(|table| {
        let deferred = std::mem::take(&mut table.deferred);
        table.ready.extend(&deferred);
        table.deferred = deferred;
        table.deferred.clear();
    });
}

/// Polls the next task that is ready; false where none is.
pub(super) fn poll_next() -> bool {
    let Some((number, mut future, waker)) = with_table(Table::take_next) else { return false };
    allow_full_budget();
    let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
    let is_over = !matches!(polled, Ok(Poll::Pending));
    let spent = with_table(|table| table.put_back(number, waker, future, is_over));
    if let Some(future) = spent {
        drop_task(future);
    }
    true
}

/// A panic in what is dropped ends nothing else.
fn drop_task(future: LocalFuture) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
}

/// Starts a task; none on a thread whose loop does not run.
pub(crate) fn spawn(future: impl Future<Output = ()> + 'static) -> Option<Task> {
    if HOME.get().is_null() {
        return None;
    }
    let future: LocalFuture = Box::pin(future);
    with_table(|table| table.add(future))
}

/// A task that was started. It goes on where this is dropped.
#[derive(Debug)]
pub struct Task {
    number: u32,
    generation: u32,
}

impl Task {
    /// Ends the task now, on the thread that it belongs to; where it is being polled, after that.
    pub fn abort(&self) {
        let future = with_table(|table| {
            let slot = table.slots.get_mut(self.number as usize)?;
            if slot.generation != self.generation {
                return None;
            }
            match slot.phase {
                Phase::Free | Phase::Aborted => None,
                Phase::Running => {
                    slot.phase = Phase::Aborted;
                    None
                }
                Phase::Waiting => {
                    let future = slot.future.take();
                    table.leave(self.number);
                    future
                }
            }
        });
        if let Some(future) = future {
            drop_task(future);
        }
    }
}

/// A task that is polled may do as much as any other.
pub(super) fn allow_full_budget() {
    BUDGET_LEFT.set(BUDGET);
}

/// Ready where the task may go on; where it has done enough it is made ready for its next turn.
pub(crate) fn poll_budget(cx: &mut Context<'_>) -> Poll<()> {
    match BUDGET_LEFT.get().checked_sub(1) {
        Some(left) => {
            BUDGET_LEFT.set(left);
            Poll::Ready(())
        }
        None => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }
}

/// Waits for the task's next turn where it has done much without waiting for anything.
pub async fn consume_budget() {
    poll_fn(poll_budget).await;
}

/// Lets others have their turn, and the kernel say what has happened.
pub async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
