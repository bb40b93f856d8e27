//! Answers about our certificates (OCSP), asked for in the background and stapled to handshakes. One thread asks for
//! all, a few at a time, so that a responder that does not answer keeps nobody else waiting; handshakes never wait.

use super::responder::Responder;
use super::server_tls;
use crate::plan::Snapshot;
use crate::thread::Thread;
use bstr::BString;
use conf::Level;
use net::resolver::Resolver;
use net::timer::{Deadline, Timer};
use net::tls::ocsp::{Question, Signers, Status};
use net::tls::{Identity, Staple, Trust};
use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

/// How many responders are asked at the same time.
const ASKED_AT_ONCE_MAX: usize = 8;
/// How long one question may take, whatever number of addresses the responder has.
const PATIENCE: Duration = Duration::from_secs(20);
/// An answer is renewed this long before it ends, and a question repeated this long after a failure, seconds (nginx's).
const MARGIN_SECONDS: i64 = 300;
/// An answer is renewed after this at the latest, seconds (nginx's).
const AGAIN_SECONDS_MAX: i64 = 3600;
/// How long those who have nothing to ask sleep at most: a configuration that was replaced is let go of then.
const NAP_SECONDS_MAX: i64 = 60;

/// A certificate and who answers for it.
pub struct Stapling {
    /// The certificate.
    pub identity: Identity,
    /// Where the answer goes.
    pub staple: Arc<Staple>,
    /// What is asked.
    pub question: Question,
    /// Who is asked.
    pub responder: Responder,
    /// Whom the answer must come from; none: from anybody (`ssl_stapling_verify`).
    pub verify: Option<Trust>,
    /// The certificate's file, for the log.
    pub name: BString,
}

/// Keeps the answers for a snapshot's certificates fresh until another snapshot takes its place.
pub fn keep_fresh_in_background(thread: &Rc<Thread>, snapshot: &Arc<Snapshot>) {
    let all = snapshot.sites.iter().filter_map(|site| server_tls(snapshot, site));
    let all: Vec<Arc<Stapling>> = all.flat_map(|tls| tls.staplings.iter().cloned()).collect();
    let count = all.len().min(ASKED_AT_ONCE_MAX);
    let keeper = Rc::new(Keeper {
        thread: Rc::downgrade(thread),
        generation: snapshot.generation,
        resolver: Resolver::new(snapshot.resolver.clone()),
        waiting: RefCell::new(all.into_iter().map(|stapling| (0, stapling)).collect()),
    });
    for _ in 0..count {
        net::thread::spawn_local(keeper.clone().keep_on());
    }
}

/// Asks again and again; several tasks share it, and each has one certificate in hand.
struct Keeper {
    thread: Weak<Thread>,
    generation: u64,
    resolver: Resolver,
    /// Those nobody has in hand, and when each is due, seconds since 1970.
    waiting: RefCell<Vec<(i64, Arc<Stapling>)>>,
}

impl Keeper {
    async fn keep_on(self: Rc<Keeper>) {
        let mut timer = Timer::new();
        while let Some((due, stapling)) = self.take_first() {
            loop {
                let left = due - net::clock::wall().seconds;
                if left <= 0 {
                    break;
                }
                let nap = u64::try_from(left.min(NAP_SECONDS_MAX)).unwrap_or(1);
                timer.sleep(Deadline::after(Duration::from_secs(nap))).await;
                if !self.is_in_force() {
                    return;
                }
            }
            let due = self.renew(&stapling).await;
            self.waiting.borrow_mut().push((due, stapling));
            if !self.is_in_force() {
                return;
            }
        }
    }

    fn take_first(&self) -> Option<(i64, Arc<Stapling>)> {
        let mut waiting = self.waiting.borrow_mut();
        let (first, _) = waiting.iter().enumerate().min_by_key(|(_, (due, _))| *due)?;
        Some(waiting.swap_remove(first))
    }

    fn is_in_force(&self) -> bool {
        self.thread.upgrade().is_some_and(|thread| thread.snapshot().generation == self.generation)
    }

    /// Asks once; returns when to ask again, seconds since 1970.
    async fn renew(&self, stapling: &Stapling) -> i64 {
        let report = |problem: std::fmt::Arguments<'_>, peer: Option<&net::address::Address>| {
            let Some(thread) = self.thread.upgrade() else { return };
            let (host, name) = (&stapling.responder.host, &stapling.name);
            let peer = peer.map(|peer| format!(", peer: {peer}")).unwrap_or_default();
            let text = format_args!(
                "{problem} while requesting certificate status, responder: {host}{peer}, certificate: \"{name}\""
            );
            thread.log(&thread.snapshot(), Level::Error, None, text);
        };
        let asked =
            stapling.responder.ask(&stapling.question, &self.resolver, Deadline::after(PATIENCE), report);
        let answer = asked.await;
        let now_seconds = net::clock::wall().seconds;
        let signers = stapling.verify.as_ref().map_or(Signers::Anybody, Signers::Issuer);
        let Some((answer, address)) = answer else { return now_seconds + MARGIN_SECONDS };
        match stapling.question.read(&answer, signers, now_seconds) {
            Ok(found) if found.status == Status::Good => {
                let until_seconds = found.next_update.unwrap_or(i64::MAX);
                stapling.staple.put(&stapling.identity, answer, until_seconds);
                let early = until_seconds.saturating_sub(MARGIN_SECONDS);
                return early.min(now_seconds + AGAIN_SECONDS_MAX).max(now_seconds + MARGIN_SECONDS);
            }
            Ok(found) => {
                let word = found.status.word();
                report(format_args!("certificate status \"{word}\" in the OCSP response"), Some(&address));
            }
            Err(problem) => report(format_args!("{problem}"), Some(&address)),
        }
        now_seconds + MARGIN_SECONDS
    }
}
