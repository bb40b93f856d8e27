//! Where connections are served: the few places of a thread that hold all that serving takes.
//!
//! A connection that waits for a request keeps next to nothing. When one comes it takes the desk that was left last, with
//! the request's buffers, the future that drives it and the configuration in force laid out on it and still in the cache,
//! and leaves it when it has been answered. There are as many desks as connections are served at the same time.

use super::{End, Facts, Keep, sit};
use crate::Request;
use crate::thread::Thread;
use net::stream::Stream;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

/// The most desks that a thread keeps for those who come next.
const KEPT_MAX: usize = 32;

/// The desks of a thread that are free, the one that was left last on top.
#[derive(Default)]
pub struct Desks(RefCell<Vec<Desk>>);

struct Desk {
    seat: Rc<Seat>,
    work: Pin<Box<dyn Future<Output = ()>>>,
}

/// Between a connection and the future that serves it.
#[derive(Default)]
struct Seat {
    taken: Cell<Option<Sitting>>,
    left: Cell<Option<Option<(Stream, Keep)>>>,
}

/// A connection that is to be served.
pub(super) struct Sitting {
    pub(super) facts: Rc<Facts>,
    pub(super) stream: Stream,
    /// What was read of it already.
    pub(super) ahead: Option<Vec<u8>>,
    pub(super) keep: Keep,
}

impl Desks {
    /// Serves the requests of a connection that have come. It comes back to wait for the next; none: it has ended. (No
    /// asynchronous function: it would hold its arguments twice, in every connection.)
    pub(super) fn serve(
        thread: &Rc<Thread>,
        sitting: Sitting,
    ) -> impl Future<Output = Option<(Stream, Keep)>> {
        let free = thread.desks.0.borrow_mut().pop();
        let mut desk = Some(free.unwrap_or_else(|| Desk::new(thread)));
        if let Some(desk) = &desk {
            desk.seat.taken.set(Some(sitting));
        }
        poll_fn(move |cx| {
            // Polled once more than it is ready, nobody sits there.
            let Some(at) = &mut desk else { return Poll::Ready(None) };
            if at.work.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            let Some(left) = at.seat.left.take() else { return Poll::Pending };
            if let Some(free) = desk.take() {
                thread.desks.keep(free, thread.is_stopping());
            }
            Poll::Ready(left)
        })
    }

    /// Keeps a free desk for those who come next, unless nobody does.
    fn keep(&self, free: Desk, is_stopping: bool) {
        let mut desks = self.0.borrow_mut();
        if desks.len() < KEPT_MAX && !is_stopping {
            desks.push(free);
        }
    }

    /// Takes the free desks away: what lies on them is of an earlier configuration, or nobody comes any more.
    pub fn clear(&self) {
        // Once they are nobody's: what is dropped with them may come back here.
        let desks = self.0.take();
        drop(desks);
    }
}

impl Desk {
    fn new(thread: &Rc<Thread>) -> Desk {
        let seat = Rc::<Seat>::default();
        // Made where it stays: three kilobytes that are not moved.
        let work = Box::write(Box::new_uninit(), work(thread.clone(), seat.clone()));
        Desk { seat, work: Box::into_pin(work) }
    }
}

impl Seat {
    /// The next connection.
    async fn next(&self) -> Sitting {
        poll_fn(|_| self.taken.take().map_or(Poll::Pending, Poll::Ready)).await
    }
}

/// Serves one connection after the other. Nothing of an earlier configuration lies on a free desk.
async fn work(thread: Rc<Thread>, seat: Rc<Seat>) {
    let mut same = None;
    loop {
        let mut sitting = match same.take() {
            Some(sitting) => sitting,
            None => seat.next().await,
        };
        let snapshot = thread.snapshot();
        // A listener that a new configuration lacks: its connections end after the request under way.
        let Some(listener) = snapshot.listen_for(sitting.facts.local_address(), &sitting.facts.listen) else {
            seat.left.set(Some(None));
            continue;
        };
        let site = snapshot.site(listener.default_site);
        let mut parts = thread.parts.take();
        let mut request = Request::new(&thread, &snapshot, sitting.facts.clone(), site, &mut parts);
        loop {
            match sit(&mut request, sitting).await {
                // The newest configuration serves each request, on connections of any age.
                End::Reloaded(sitting) => same = Some(sitting),
                End::Left(left) => seat.left.set(Some(left)),
            }
            if !thread.serves(&snapshot) {
                break;
            }
            sitting = seat.next().await;
            request.connection = sitting.facts.clone();
        }
        thread.parts.keep(&mut request, parts);
    }
}
