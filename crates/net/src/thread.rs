//! Threads with an event loop of their own, and the mailboxes between them.
//!
//! Everything on such a thread stays on it: tasks may hold `Rc` and `RefCell`. The loop tells [`crate::clock`] when a
//! turn begins, and the logs when it ends.

use crate::{clock, event_loop, log, memory};
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

pub use crate::event_loop::tasks::{Task, consume_budget, yield_now};

/// Starts a named thread and runs the future that `make` returns on it. The name is cut at 15 bytes by the
/// kernel.
pub fn spawn<F, T>(
    name: &str,
    make: impl FnOnce() -> F + Send + 'static,
) -> io::Result<std::thread::JoinHandle<T>>
where
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    std::thread::Builder::new().name(name.to_owned()).spawn(move || run(async move { make().await }))
}

/// Runs a future on this thread with an event loop, and returns its value; tasks that are still there then are
/// dropped, and logs are flushed.
///
/// # Panics
/// Where the system gives no event descriptor, and where the thread already runs an event loop.
pub fn run<T>(main: impl Future<Output = T>) -> T {
    let _ending = Ending;
    let _keeping = memory::Keeping::begin();
    clock::set_hooked(true);
    event_loop::run(main).expect("the system gives event descriptors to a thread that starts")
}

/// Leaves the thread as it was, also when the future panics.
struct Ending;

impl Drop for Ending {
    fn drop(&mut self) {
        clock::set_hooked(false);
        log::flush_thread();
    }
}

/// Does work that takes a while on a thread of its own, which ends with it, so that this thread can serve meanwhile.
/// Where the system gives no thread it is done here, before this returns. The future tells what came of it; none where
/// the work panicked.
pub fn aside<T, W>(name: &str, work: W) -> impl Future<Output = Option<T>> + use<T, W>
where
    T: Send + 'static,
    W: FnOnce() -> T + Send + 'static,
{
    let (outcome, coming) = tokio::sync::oneshot::channel();
    let work = move || {
        // Where nobody waits any more nobody needs the outcome.
        let _ = outcome.send(work());
    };
    // A thread that cannot be started takes its work along; this one can still be taken back.
    let work = Arc::new(Mutex::new(Some(work)));
    let take = |work: &Mutex<Option<_>>| work.lock().unwrap_or_else(PoisonError::into_inner).take();
    let there = work.clone();
    let thread = std::thread::Builder::new().name(name.to_owned());
    if thread.spawn(move || take(&there).map(|work| work())).is_err()
        && let Some(work) = take(&work)
    {
        work();
    }
    async { coming.await.ok() }
}

/// Starts a task on this thread. A panic in it ends the task alone.
///
/// # Panics
/// On a thread that is not inside [`run`].
pub fn spawn_local(task: impl Future<Output = ()> + 'static) -> Task {
    event_loop::tasks::spawn(task).expect("spawn_local is called on a thread with an event loop of ours")
}

/// As [`spawn_local`] where the thread has an event loop; false where it has none.
pub(crate) fn try_spawn_local(task: impl Future<Output = ()> + 'static) -> bool {
    event_loop::tasks::spawn(task).is_some()
}

/// The sending side of a mailbox; any thread may hold copies.
pub type Sender<C> = mpsc::Sender<C>;
/// The receiving side: `recv().await` on the thread it belongs to.
pub type Mailbox<C> = mpsc::Receiver<C>;

/// A mailbox for commands to a thread, at most `commands_max` waiting; `try_send` refuses beyond.
pub fn mailbox<C>(commands_max: usize) -> (Sender<C>, Mailbox<C>) {
    mpsc::channel(commands_max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn tasks_share_the_thread_and_commands_come_from_others() {
        let (sender, mut mailbox) = mailbox::<u32>(4);
        let worker = spawn("worker-test", move || async move {
            let sum = Rc::new(std::cell::Cell::new(0));
            let shared = sum.clone();
            spawn_local(async move {
                while let Some(number) = mailbox.recv().await {
                    shared.set(shared.get() + number);
                }
            });
            // An ended task holds nothing.
            while Rc::strong_count(&sum) > 1 {
                yield_now().await;
            }
            (sum.get(), std::thread::current().name().map(str::to_owned))
        });
        for number in [1, 2, 3] {
            sender.blocking_send(number).expect("the thread lives");
        }
        drop(sender);
        let (sum, name) = worker.expect("threads can be started").join().expect("it does not panic");
        assert_eq!((sum, name.as_deref()), (6, Some("worker-test")));
    }

    #[test]
    fn work_is_done_aside_and_its_panic_is_no_outcome() {
        run(async {
            let done = aside("work", || std::thread::current().name().map(str::to_owned));
            assert_eq!(done.await, Some(Some("work".to_owned())));
            let broken = aside("work", || panic!("on purpose"));
            assert_eq!(broken.await, None::<()>);
        });
    }

    #[test]
    fn a_panic_ends_only_its_task_and_the_end_drops_the_rest() {
        struct Dropped(Rc<std::cell::Cell<bool>>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let dropped = Rc::new(std::cell::Cell::new(false));
        let guard = Dropped(dropped.clone());
        run(async move {
            spawn_local(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            });
            let bystander = Rc::new(std::cell::Cell::new(false));
            let lost = bystander.clone();
            spawn_local(async move {
                lost.set(true);
                panic!("on purpose");
            });
            while Rc::strong_count(&bystander) > 1 {
                yield_now().await;
            }
            assert!(bystander.get());
        });
        assert!(dropped.get());
    }
}
