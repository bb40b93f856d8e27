//! The event loop of a thread: tasks, what they wait for, and the one call in which the thread itself waits.
//!
//! A turn polls the tasks that are ready, asks the kernel what has happened since, and so makes others ready. Everything
//! is the thread's own, without locks; only a waker may reach it from elsewhere, through a list behind a lock and a bell
//! ([`tasks`]). Sockets are watched edge-triggered and say what is known of them ([`watch`]); time limits are kept in
//! order and ring when the first of them has passed ([`alarms`]).
//!
//! Nothing here is made for other systems, other threads or other kinds of waiting: that is what it is small and quick by.

pub(crate) mod alarms;
pub(crate) mod tasks;
pub(crate) mod watch;

use crate::errno::Errno;
use crate::{clock, log};
use rustix::event::epoll;
use rustix::time::Timespec;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tasks::Tasks;

/// After so many tasks in a turn the kernel is asked what has happened meanwhile.
const TASKS_PER_TURN_MAX: usize = 61;
/// So many events are taken from the kernel at once (nginx's default `epoll_events`).
const EVENTS_PER_TURN_MAX: usize = 512;
/// No wait is longer: the kernel's own bound does not matter then.
const WAIT_MS_MAX: u64 = 3_600_000;

/// Runs a future on this thread, and the tasks it starts, until it ends; those that are still there then are dropped.
///
/// # Errors
/// The system gives no event descriptor.
///
/// # Panics
/// Where an event loop runs on this thread already.
pub(crate) fn run<T>(main: impl Future<Output = T>) -> Result<T, Errno> {
    let epoll = Rc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
    let tasks = Tasks::begin()?;
    epoll::add(&epoll, tasks.bell(), epoll::EventData::new_u64(watch::BELL), watch::ON_READ)?;
    let watching = watch::Watching::begin(epoll.clone());
    let waker = tasks.main_waker();
    let mut main = pin!(main);
    let mut events = Vec::with_capacity(EVENTS_PER_TURN_MAX);
    let value = loop {
        if tasks::take_main() {
            tasks::allow_full_budget();
            if let Poll::Ready(value) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                break value;
            }
        }
        for _ in 0..TASKS_PER_TURN_MAX {
            if !tasks::poll_next() {
                break;
            }
        }
        wait(&epoll, &mut events, &tasks);
    };
    // While tasks are dropped sockets may still be watched, and tasks be woken.
    drop(tasks);
    drop(watching);
    Ok(value)
}

/// Waits until something happens, or just looks where tasks are ready; and makes those ready that wait for it.
fn wait(epoll: &Rc<std::os::fd::OwnedFd>, events: &mut Vec<epoll::Event>, tasks: &Tasks) {
    log::turn_ended();
    let timeout = if tasks::any_ready() {
        Some(Timespec { tv_sec: 0, tv_nsec: 0 })
    } else {
        alarms::next_ms().map(|at_ms| {
            let wait_ms = at_ms.saturating_sub(clock::now_ms()).min(WAIT_MS_MAX);
            Timespec { tv_sec: (wait_ms / 1000) as i64, tv_nsec: (wait_ms % 1000 * 1_000_000) as i64 }
        })
    };
    events.clear();
    // It fails where a signal interrupts it, and then nothing has happened.
    let _ = epoll::wait(epoll, rustix::buffer::spare_capacity(events), timeout.as_ref());
    clock::turn_began();
    tasks::resume_deferred();
    for event in events.iter() {
        let data = event.data.u64();
        if data == watch::BELL {
            tasks.answer_bell();
        } else {
            watch::report(data, event.flags);
        }
    }
    alarms::ring();
}

#[cfg(test)]
mod tests {
    use super::tasks::{spawn, yield_now};
    use super::watch::{Direction, Watch};
    use crate::thread::{run, spawn_local};
    use crate::timer::{Deadline, Timer, sleep};
    use std::cell::{Cell, RefCell};
    use std::future::{pending, poll_fn};
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Poll, Wake, Waker};
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Waits until it is so.
    async fn until(is_so: impl Fn() -> bool) {
        let deadline = Deadline::after(PATIENCE);
        while !is_so() {
            assert!(!deadline.has_passed(), "it never happens");
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Sets its mark when it is dropped.
    struct Dropped(Rc<Cell<usize>>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn other_threads_wake_tasks_as_often_as_they_like() {
        run(async {
            let rounds = Arc::new(AtomicUsize::new(0));
            for _ in 0..3 {
                let (waker_out, waker_in) = std::sync::mpsc::channel::<Waker>();
                let seen = rounds.clone();
                let caller = std::thread::spawn(move || {
                    let waker = waker_in.recv().expect("the task sends it");
                    for round in 0..1000 {
                        seen.fetch_add(1, Ordering::SeqCst);
                        waker.wake_by_ref();
                        if round % 100 == 0 {
                            std::thread::yield_now();
                        }
                    }
                    waker
                });
                let before = rounds.load(Ordering::SeqCst);
                let done = Rc::new(Cell::new(false));
                let (mark, count) = (done.clone(), rounds.clone());
                let mut first = Some(waker_out);
                spawn_local(async move {
                    poll_fn(|cx| {
                        if let Some(out) = first.take() {
                            out.send(cx.waker().clone()).expect("the thread waits for it");
                        }
                        // The last call comes after the last count.
                        if count.load(Ordering::SeqCst) == before + 1000 {
                            Poll::Ready(())
                        } else {
                            Poll::Pending
                        }
                    })
                    .await;
                    mark.set(true);
                });
                // Nothing but those calls ends this wait.
                until(|| done.get()).await;
                let late = caller.join().expect("no panic");
                // One that wakes a task which has ended, or another that has its number, does no harm.
                let other = Rc::new(Cell::new(false));
                let ran = other.clone();
                spawn_local(async move { ran.set(true) });
                late.wake();
                until(|| other.get()).await;
            }
        });
    }

    #[test]
    fn a_task_that_never_waits_lets_others_and_the_kernel_have_their_turn() {
        run(async {
            let (mut one, other) = UnixStream::pair().expect("the system gives a pair");
            let is_over = Rc::new(Cell::new(false));
            for way in 0..2 {
                let stop = is_over.clone();
                spawn_local(async move {
                    while !stop.get() {
                        if way == 0 { yield_now().await } else { super::tasks::consume_budget().await }
                    }
                });
            }
            let watch = Watch::begin(&other).expect("it can be watched");
            one.write_all(b"a").expect("there is room");
            poll_fn(|cx| watch.poll_ready(cx, Direction::Read)).await;
            sleep(Duration::from_millis(2)).await;
            is_over.set(true);
            drop(watch);
        });
    }

    #[test]
    fn a_watch_tells_what_is_new_and_remembers_the_end() {
        run(async {
            let (mut one, other) = UnixStream::pair().expect("the system gives a pair");
            other.set_nonblocking(true).expect("any socket can");
            let watch = Watch::begin(&other).expect("it can be watched");
            assert!(!watch.is_ready(Direction::Write), "nothing was reported yet");
            poll_fn(|cx| watch.poll_ready(cx, Direction::Write)).await;
            assert!(!watch.is_ready(Direction::Read));
            one.write_all(b"a").expect("there is room");
            assert!(!poll_fn(|cx| watch.poll_ready(cx, Direction::Read)).await, "not the end");
            watch.clear(Direction::Read);
            assert!(!watch.is_ready(Direction::Read));
            assert!(watch.is_ready(Direction::Write), "each side for itself");
            drop(one);
            assert!(poll_fn(|cx| watch.poll_ready(cx, Direction::Read)).await, "the end");
            watch.clear(Direction::Read);
            assert!(watch.is_ready(Direction::Read), "an end stays");
        });
    }

    #[test]
    fn news_of_what_was_closed_reach_nobody_else() {
        run(async {
            for _ in 0..100 {
                let (mut one, other) = UnixStream::pair().expect("the system gives a pair");
                let watch = Watch::begin_reading(&other).expect("it can be watched");
                one.write_all(b"a").expect("there is room");
                // A copy keeps the socket open, and the kernel goes on reporting it.
                let copy = other.try_clone().expect("there are descriptors");
                drop((watch, other));
                let (_silent, next) = UnixStream::pair().expect("the system gives a pair");
                let watch = Watch::begin_reading(&next).expect("it can be watched");
                yield_now().await;
                yield_now().await;
                assert!(!watch.is_ready(Direction::Read));
                drop(copy);
            }
        });
    }

    #[test]
    fn a_task_is_ended_wherever_it_is() {
        run(async {
            let dropped = Rc::new(Cell::new(0));
            let guard = |dropped: &Rc<Cell<usize>>| Dropped(dropped.clone());
            // Before its first turn, and while it waits.
            for turns in [0, 3] {
                let kept = guard(&dropped);
                let task = spawn_local(async move {
                    let _kept = kept;
                    pending::<()>().await;
                });
                for _ in 0..turns {
                    yield_now().await;
                }
                let before = dropped.get();
                task.abort();
                assert_eq!(dropped.get(), before + 1);
                task.abort();
                // Its number goes to another, which a second call leaves alone.
                let other = guard(&dropped);
                spawn_local(async move {
                    yield_now().await;
                    drop(other);
                });
                task.abort();
                until(|| dropped.get() == before + 2).await;
            }
            // By itself: it ends when it waits next.
            let own = Rc::new(RefCell::new(None));
            let (kept, handle) = (guard(&dropped), own.clone());
            let before = dropped.get();
            let task = spawn_local(async move {
                let _kept = kept;
                let handle: super::tasks::Task = handle.take().expect("it is there before the first turn");
                handle.abort();
                pending::<()>().await;
            });
            own.replace(Some(task));
            until(|| dropped.get() == before + 1).await;
        });
    }

    #[test]
    fn the_end_of_the_loop_drops_tasks_and_what_they_start_then() {
        struct Starts(Rc<Cell<usize>>);
        impl Drop for Starts {
            fn drop(&mut self) {
                let last = Dropped(self.0.clone());
                spawn_local(async move {
                    let _last = last;
                    pending::<()>().await;
                });
            }
        }
        let dropped = Rc::new(Cell::new(0));
        let starts = Starts(dropped.clone());
        run(async move {
            spawn_local(async move {
                let _starts = starts;
                pending::<()>().await;
            });
            yield_now().await;
        });
        assert_eq!(dropped.get(), 1);
        assert!(spawn(async {}).is_none(), "there is no loop any more");
        // And another one may run on the same thread.
        run(async { sleep(Duration::from_millis(1)).await });
    }

    #[test]
    fn wakers_of_others_are_told_as_well() {
        #[derive(Default)]
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        run(async {
            let count = Arc::new(Count::default());
            let waker = Waker::from(count.clone());
            let mut cx = std::task::Context::from_waker(&waker);
            let (mut one, other) = UnixStream::pair().expect("the system gives a pair");
            let watch = Watch::begin_reading(&other).expect("it can be watched");
            assert!(watch.poll_ready(&mut cx, Direction::Read).is_pending());
            one.write_all(b"a").expect("there is room");
            let mut timer = Timer::new();
            assert!(timer.poll_expired(&mut cx, Deadline::after(Duration::from_millis(5))).is_pending());
            until(|| count.0.load(Ordering::SeqCst) == 2).await;
            assert!(watch.poll_ready(&mut cx, Direction::Read).is_ready());
        });
    }

    #[test]
    fn alarms_ring_in_their_order_and_not_before_their_time() {
        run(async {
            let order = Rc::new(RefCell::new(Vec::new()));
            let started = crate::clock::refresh();
            for millis in [40, 5, 20, 5, 30, 10] {
                let order = order.clone();
                spawn_local(async move {
                    sleep(Duration::from_millis(millis)).await;
                    assert!(crate::clock::refresh() >= started + millis);
                    order.borrow_mut().push(millis);
                });
            }
            // One that is taken back does not ring.
            let mut timer = Timer::new();
            poll_fn(|cx| {
                assert!(timer.poll_expired(cx, Deadline::after(Duration::from_millis(1))).is_pending());
                Poll::Ready(())
            })
            .await;
            drop(timer);
            until(|| order.borrow().len() == 6).await;
            assert_eq!(*order.borrow(), [5, 5, 10, 20, 30, 40]);
        });
    }
}
