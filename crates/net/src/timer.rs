//! One timer per connection, moved as rarely as possible.
//!
//! A server sets a time limit before nearly every wait and almost never reaches it. Registering and removing an
//! alarm for each would cost more than the wait itself. So a connection owns one timer: a limit that lies later than the
//! armed moment leaves it armed, and when it fires early it is armed again for what is left. Only a limit that lies
//! earlier touches the event loop's alarms.

use crate::clock;
use crate::event_loop::alarms;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::ptr;
use std::task::{Context, Poll};
use std::time::Duration;

/// The moment a wait ends without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    at_ms: u64,
    /// For limits "between two successive operations": every progress moves the moment by this much; 0: it stays.
    renew_ms: u64,
}

impl Deadline {
    /// No limit.
    pub const NONE: Deadline = Deadline { at_ms: u64::MAX, renew_ms: 0 };

    /// A moment that has passed already.
    pub const PASSED: Deadline = Deadline { at_ms: 0, renew_ms: 0 };

    /// A fixed moment, that far from now.
    pub fn after(duration: Duration) -> Deadline {
        Deadline { at_ms: clock::now_ms().saturating_add(millis(duration)), renew_ms: 0 }
    }

    /// A limit between two successive operations, as nginx's `send_timeout` and `proxy_read_timeout` are meant:
    /// whenever an operation that takes several steps makes progress, the limit starts anew.
    pub fn between(duration: Duration) -> Deadline {
        let millis = millis(duration);
        Deadline { at_ms: clock::now_ms().saturating_add(millis), renew_ms: millis }
    }

    /// A fixed moment on the clock of [`clock::now_ms`].
    pub fn at_ms(at_ms: u64) -> Deadline {
        Deadline { at_ms, renew_ms: 0 }
    }

    /// The earlier of two; it renews as that one does.
    pub fn min(self, other: Deadline) -> Deadline {
        if other.at_ms < self.at_ms { other } else { self }
    }

    /// True when the moment has passed.
    pub fn has_passed(&self) -> bool {
        self.at_ms != u64::MAX && clock::now_ms() >= self.at_ms
    }

    /// Tells that progress was made: a limit made by [`Deadline::between`] starts anew, others stay.
    pub fn progressed(&mut self) {
        if self.renew_ms > 0 {
            self.at_ms = clock::now_ms().saturating_add(self.renew_ms);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A wait reached its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

/// See the module's text. Costs nothing until it is first needed; wakes on a thread with an event loop only.
#[derive(Debug)]
pub struct Timer {
    /// When the event loop will wake us; [`UNARMED`] when it will not.
    armed_ms: u64,
    /// The number of the alarm.
    number: u32,
    /// Whom it wakes: what that waker points to. The alarm holds the waker, so that nobody else's points there.
    owner: *const (),
}

/// Later than every moment there is.
const UNARMED: u64 = u64::MAX;

impl Default for Timer {
    fn default() -> Timer {
        Timer { armed_ms: UNARMED, number: 0, owner: ptr::null() }
    }
}

impl Timer {
    /// A timer that is not armed.
    pub fn new() -> Timer {
        Timer::default()
    }

    /// Ready once the deadline has passed. Call it after the real work said `Pending`, with the same context.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>, deadline: Deadline) -> Poll<()> {
        if deadline.at_ms == u64::MAX {
            return Poll::Pending;
        }
        let now_ms = clock::now_ms();
        if now_ms >= deadline.at_ms {
            return Poll::Ready(());
        }
        // An alarm whose moment has come has rung, or will in this turn; the clock of the turn tells.
        if self.armed_ms > deadline.at_ms || self.armed_ms <= now_ms {
            self.disarm();
            self.number = alarms::set(deadline.at_ms, cx.waker().clone());
            self.armed_ms = deadline.at_ms;
            self.owner = cx.waker().data();
        } else if self.owner != cx.waker().data() {
            alarms::redirect(self.armed_ms, self.number, cx.waker());
            self.owner = cx.waker().data();
        }
        Poll::Pending
    }

    /// Runs a future until it ends or the deadline passes.
    pub async fn with_deadline<T>(
        &mut self,
        deadline: Deadline,
        future: impl Future<Output = T>,
    ) -> Result<T, TimedOut> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            self.poll_expired(cx, deadline).map(|()| Err(TimedOut))
        })
        .await
    }

    /// Sleeps until the deadline.
    pub async fn sleep(&mut self, deadline: Deadline) {
        poll_fn(|cx| self.poll_expired(cx, deadline)).await;
    }

    fn disarm(&mut self) {
        if self.armed_ms != UNARMED {
            alarms::remove(self.armed_ms, self.number);
            self.armed_ms = UNARMED;
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.disarm();
    }
}

/// Sleeps so long, to the millisecond.
pub async fn sleep(duration: Duration) {
    Timer::new().sleep(Deadline::after(duration)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_end_waits_and_a_later_limit_does_not_end_early() {
        crate::thread::run(async {
            let mut timer = Timer::new();
            let started = clock::refresh();
            let short = Deadline::after(Duration::from_millis(20));
            assert_eq!(timer.with_deadline(short, std::future::pending::<()>()).await, Err(TimedOut));
            assert!(clock::refresh() >= started + 20);

            // Armed for 10 ms by a wait that ends at once, then waited on for 60 ms: it must fire early inside,
            // be armed again and report only the second limit.
            let early = Deadline::after(Duration::from_millis(10));
            let mut polled = false;
            let once = poll_fn(|cx| {
                if std::mem::replace(&mut polled, true) {
                    return Poll::Ready(7);
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            });
            assert_eq!(timer.with_deadline(early, once).await, Ok(7));
            let late = Deadline::after(Duration::from_millis(60));
            let at = clock::refresh();
            timer.sleep(late).await;
            assert!(clock::refresh() >= at + 59);

            // And a limit that moves nearer is honoured.
            let far = Deadline::after(Duration::from_secs(3600));
            assert_eq!(timer.with_deadline(far, std::future::ready(1)).await, Ok(1));
            timer.sleep(Deadline::after(Duration::from_millis(5))).await;
            assert!(!far.has_passed());
        });
    }

    #[test]
    fn between_renews_and_after_does_not() {
        let mut between = Deadline::between(Duration::from_secs(1));
        let mut after = Deadline::after(Duration::from_secs(1));
        let (before_between, before_after) = (between, after);
        between.at_ms -= 500;
        after.at_ms -= 500;
        between.progressed();
        after.progressed();
        assert!(between.at_ms >= before_between.at_ms);
        assert_eq!(after.at_ms, before_after.at_ms - 500);
        assert_eq!(Deadline::NONE.min(between), between);
    }
}
