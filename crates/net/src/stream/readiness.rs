//! What the event loop knows of a socket, from when something is first waited for.
//!
//! A connection for one request is often served without any wait on its socket: the request is there when the connection
//! is accepted, and the answer fits into the socket's buffer. So a socket is watched when a read or a write has to wait,
//! not before: a system call less for such a connection, and what the event loop keeps for each socket it watches.
//!
//! That a client has gone is not worth watching for while an answer comes soon. [`Readiness::poll_patient`] therefore
//! begins to watch one or two [`PATIENCE`]s after it was first asked; one task for each thread, which is there while
//! anybody is patient, tells those whose time has come.

use crate::errno::Errno;
use crate::event_loop::watch::Watch;
use crate::timer;
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// For how long at least a client may go unnoticed while an answer to it is waited for.
const PATIENCE: Duration = Duration::from_millis(10);

/// The watch over one socket.
#[derive(Default)]
pub(crate) struct Readiness {
    watch: Option<Watch>,
    patient: Option<Place>,
}

impl Readiness {
    /// The watch, where there is one.
    pub(crate) fn watch(&self) -> Option<&Watch> {
        self.watch.as_ref()
    }

    /// The watch, which begins where there is none. What waits to be read already, the event loop reports with its next
    /// turn. The socket must be the one this readiness belongs to, and be closed with it.
    ///
    /// Fails where the kernel cannot watch the descriptor (the system is out of memory or watches).
    pub(crate) fn begin(&mut self, socket: &OwnedFd) -> Result<&Watch, Errno> {
        if self.watch.is_none() {
            self.watch = Some(Watch::begin(socket)?);
            self.patient = None;
        }
        // The line above leaves a value in every case.
        self.watch.as_ref().ok_or(Errno::NOMEM)
    }

    /// Ready at once where the socket is watched, else when it is time to begin.
    pub(crate) fn poll_patient(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.watch.is_some() {
            return Poll::Ready(());
        }
        match &self.patient {
            Some(place) => place.poll(cx),
            None => {
                self.patient = Place::take(cx.waker().clone());
                // On a thread without an event loop nobody would tell.
                if self.patient.is_some() { Poll::Pending } else { Poll::Ready(()) }
            }
        }
    }
}

thread_local! {
    static LINE: RefCell<Line> = const { RefCell::new(Line { places: Vec::new(), free: Vec::new(), swept: false }) };
}

/// Those of one thread that are patient; no more than its connections.
struct Line {
    places: Vec<Patience>,
    /// Places nobody has.
    free: Vec<u32>,
    /// Is there a task that looks after them?
    swept: bool,
}

/// What became of one's patience.
enum Patience {
    /// It began since the last look.
    Fresh(Waker),
    /// It began before.
    Waning(Waker),
    /// It has ended, or the place is nobody's.
    Ended,
}

/// One's place, left when dropped.
struct Place(u32);

impl Place {
    /// None where the thread has no event loop.
    fn take(waker: Waker) -> Option<Place> {
        let begin = LINE.with_borrow_mut(|line| !std::mem::replace(&mut line.swept, true));
        if begin && !crate::thread::try_spawn_local(sweep(Sweep)) {
            LINE.with_borrow_mut(|line| line.swept = false);
            return None;
        }
        LINE.with_borrow_mut(|line| {
            let patience = Patience::Fresh(waker);
            match line.free.pop() {
                Some(number) => {
                    line.places[number as usize] = patience;
                    Some(Place(number))
                }
                None => {
                    let number = u32::try_from(line.places.len()).ok()?;
                    line.places.push(patience);
                    Some(Place(number))
                }
            }
        })
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        LINE.with_borrow_mut(|line| match &mut line.places[self.0 as usize] {
            Patience::Fresh(waker) | Patience::Waning(waker) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            Patience::Ended => Poll::Ready(()),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Gone where the thread itself ends.
        let _left = LINE.try_with(|line| {
            let line = &mut *line.borrow_mut();
            line.free.push(self.0);
            // The last hold on a task may be in it, which may have a place of its own: dropped once the line is free.
            std::mem::replace(&mut line.places[self.0 as usize], Patience::Ended)
        });
    }
}

/// The task's mark, which goes with it however it ends.
struct Sweep;

impl Drop for Sweep {
    fn drop(&mut self) {
        let _ = LINE.try_with(|line| line.borrow_mut().swept = false);
    }
}

/// Tells those whose patience has ended, until nobody is left.
async fn sweep(_mark: Sweep) {
    loop {
        timer::sleep(PATIENCE).await;
        let mut ended = Vec::new();
        let anybody = LINE.with_borrow_mut(|line| {
            for patience in &mut line.places {
                *patience = match std::mem::replace(patience, Patience::Ended) {
                    Patience::Fresh(waker) => Patience::Waning(waker),
                    Patience::Waning(waker) => {
                        ended.push(waker);
                        Patience::Ended
                    }
                    Patience::Ended => Patience::Ended,
                }
            }
            line.free.len() < line.places.len()
        });
        ended.into_iter().for_each(Waker::wake);
        if !anybody {
            return;
        }
    }
}
