//! Asking the issuers of a client's certificate whether they still vouch for it (`ssl_ocsp`), behind the handshake and
//! before the first request; the thread serves others meanwhile. What cannot be asked, or whose answer cannot be
//! trusted, is not vouched for.

use super::responder::Responder;
use crate::connection::Facts;
use crate::plan::{Site, Snapshot};
use crate::thread::Thread;
use conf::Level;
use net::address::Address;
use net::timer::Deadline;
use net::tls::ocsp::{Answer, Question, Signers, Status};
use net::tls::{HandshakeError, Trust, Verified};
use std::fmt::Arguments;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zone::{Lru, Zones};

/// What one answer costs in a cache besides its key, bytes: some 4,000 fit in a megabyte, as in nginx.
const ANSWER_FIXED_BYTES: usize = 64;
/// How long an answer without an end is kept, seconds (nginx's).
const ENDLESS_SECONDS: i64 = 3600;

/// All caches of the process.
static CACHES: Zones<AnswerCache> = Zones::new();

/// What a server wants to know.
pub struct Vouching {
    /// Ask about every certificate of the chain, not the client's own alone.
    pub whole_chain: bool,
    /// Whom to ask instead of those whom the certificates name.
    pub responder: Option<Responder>,
    /// Where answers are kept.
    pub cache: Option<Arc<AnswerCache>>,
}

/// Answers by certificate, shared by all threads and kept over reloads (`ssl_ocsp_cache`).
pub struct AnswerCache {
    bytes_max: usize,
    answers: Mutex<Lru<Kept>>,
}

/// One answer.
#[derive(Default)]
struct Kept {
    status: Status,
    until_seconds: i64,
}

impl AnswerCache {
    /// The cache of that name and size.
    pub fn shared(name: &[u8], bytes_max: usize) -> Arc<AnswerCache> {
        let make = || AnswerCache { bytes_max, answers: Mutex::new(Lru::new(bytes_max, ANSWER_FIXED_BYTES)) };
        CACHES.open(name, |known| known.bytes_max == bytes_max, make)
    }

    fn answers(&self) -> MutexGuard<'_, Lru<Kept>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a certificate and still holds.
    fn look_up(&self, key: &[u8], now_seconds: i64) -> Option<Status> {
        let mut answers = self.answers();
        let kept = answers.touch(key)?;
        let (status, holds) = (kept.status, kept.until_seconds > now_seconds);
        if !holds {
            answers.remove(key);
        }
        holds.then_some(status)
    }

    fn store(&self, key: &[u8], answer: Answer, now_seconds: i64) {
        let until_seconds = answer.next_update.unwrap_or(now_seconds + ENDLESS_SECONDS);
        if until_seconds <= now_seconds {
            return;
        }
        let mut answers = self.answers();
        answers.remove(key);
        while answers.insert(key, Kept::default()).is_err() {
            if answers.is_empty() {
                return;
            }
            answers.remove_oldest();
        }
        if let Some(kept) = answers.peek_mut(key) {
            *kept = Kept { status: answer.status, until_seconds };
        }
    }
}

/// No answer that can be trusted; why was logged.
struct Unanswered;

/// One connection that waits for answers.
pub(super) struct Asking<'a> {
    pub(super) thread: &'a Thread,
    pub(super) facts: &'a Facts,
    pub(super) snapshot: &'a Snapshot,
    pub(super) site: &'a Site,
    pub(super) deadline: Deadline,
}

impl Asking<'_> {
    /// Asks about a chain that is believed otherwise, the leaf first.
    ///
    /// # Errors
    /// The deadline passed.
    pub(super) async fn judge(
        &self,
        vouching: &Vouching,
        trust: &Trust,
        chain: &[&[u8]],
    ) -> Result<Verified, HandshakeError> {
        let count = if vouching.whole_chain { usize::MAX } else { 1 };
        // The authority at the end has no issuer but itself.
        for pair in chain.windows(2).take(count) {
            let status = self.status(vouching, trust, (pair[0], pair[1])).await;
            if self.deadline.has_passed() {
                return Err(HandshakeError::TimedOut);
            }
            let words = match status {
                Ok(Status::Good) => continue,
                Ok(Status::Revoked) => "certificate revoked",
                Ok(Status::Unknown) => "certificate status unknown",
                Err(Unanswered) => "certificate status request failed",
            };
            return Ok(Verified::NotVouchedFor(words));
        }
        Ok(Verified::Trusted)
    }

    async fn status(
        &self,
        vouching: &Vouching,
        trust: &Trust,
        (certificate, issuer): (&[u8], &[u8]),
    ) -> Result<Status, Unanswered> {
        let own = match &vouching.responder {
            Some(_) => None,
            None => Some(self.responder_of(certificate)?),
        };
        let Some(responder) = vouching.responder.as_ref().or(own.as_ref()) else { return Err(Unanswered) };
        let question = Question::of(certificate, issuer);
        let key = question.certificate_id().ok_or(Unanswered)?;
        let cache = vouching.cache.as_ref();
        let known = cache.and_then(|cache| cache.look_up(&key, net::clock::wall().seconds));
        if let Some(status) = known {
            return Ok(status);
        }
        let report = |problem: Arguments<'_>, peer: Option<&Address>| {
            let host = &responder.host;
            let peer = peer.map(|peer| format!(", peer: {peer}")).unwrap_or_default();
            self.log(format_args!("{problem} while requesting certificate status, responder: {host}{peer}"));
        };
        let resolver = self.thread.named(self.snapshot.plan(self.site.plan));
        let asked = responder.ask(&question, &resolver.resolver, self.deadline, report);
        let (answer, address) = asked.await.ok_or(Unanswered)?;
        let now_seconds = net::clock::wall().seconds;
        let answer = question.read(&answer, Signers::Issuer(trust), now_seconds);
        let answer = answer.map_err(|problem| {
            report(format_args!("{problem}"), Some(&address));
            Unanswered
        })?;
        if let Some(cache) = cache {
            cache.store(&key, answer, now_seconds);
        }
        Ok(answer.status)
    }

    /// Whom a certificate names.
    fn responder_of(&self, certificate: &[u8]) -> Result<Responder, Unanswered> {
        let named = Question::responders(certificate).into_iter().next();
        let parsed = match &named {
            Some(url) => Responder::parse(url.as_bytes()).map_err(|why| format!("{why} in certificate")),
            None => Err("no OCSP responder URL in certificate".to_owned()),
        };
        parsed.map_err(|problem| {
            let (peer, listen) = (self.facts.peer.host(), &self.facts.listen);
            self.log(format_args!("{problem} while SSL handshaking, client: {peer}, server: {listen}"));
            Unanswered
        })
    }

    fn log(&self, text: Arguments<'_>) {
        self.thread.log(self.snapshot, Level::Error, Some(self.facts.number), text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_as_long_as_they_hold() {
        let cache = AnswerCache::shared(b"answers", 32 * 1024);
        let answer = |status, next_update| Answer { status, next_update };
        cache.store(b"good", answer(Status::Good, Some(100)), 50);
        cache.store(b"revoked", answer(Status::Revoked, None), 50);
        cache.store(b"late", answer(Status::Good, Some(50)), 50);
        for (key, now, expected) in [
            (&b"good"[..], 99, Some(Status::Good)),
            (b"good", 100, None),
            (b"good", 99, None),
            (b"revoked", 50 + ENDLESS_SECONDS - 1, Some(Status::Revoked)),
            (b"revoked", 50 + ENDLESS_SECONDS, None),
            (b"late", 50, None),
        ] {
            assert_eq!(cache.look_up(key, now), expected, "{key:?} at {now}");
        }
        // The oldest gives way.
        for number in 0..10_000_u32 {
            cache.store(&number.to_be_bytes(), answer(Status::Good, None), 0);
        }
        assert_eq!(cache.look_up(&0_u32.to_be_bytes(), 1), None);
        assert_eq!(cache.look_up(&9_999_u32.to_be_bytes(), 1), Some(Status::Good));
    }
}
