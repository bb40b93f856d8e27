//! How long to wait for a host that may be gone.
//!
//! A machine that loses its power or its cable says nothing, and nginx's limits are a minute each: every visitor who was
//! given that machine waits a minute for the page that another one could have made at once. But a machine that is
//! there answers at the level of TCP in milliseconds, however slow its application is. So, while another peer could
//! take the request, two signs count before nginx's limits do: no answer at all to the attempt to connect, and no
//! acknowledgement of anything, not even of the kernel's own probes, while an answer is awaited. A slow application is
//! never taken for a dead host. Without another peer, or where the request may not be sent twice, nginx's limits
//! hold alone.

use super::attempt::{Asking, is_repeatable};
use super::settings::NextUpstream;
use crate::Request;
use balance::Attempt;
use net::connect::Probes;
use net::sockopt::set_probes;
use net::stream::Stream;
use net::timer::Deadline;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// A SYN that is lost is sent again after one second; this leaves time for an answer to the second.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Most answers come sooner, and cost nothing here.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const NEXT_LOOK: Duration = Duration::from_millis(500);
/// No acknowledgement for so long: three retransmissions, or two probes, went unanswered.
const SILENCE_MAX_MS: u64 = 2500;
/// The count is beyond what we wait for: silence is judged here, and not by the kernel.
const PROBES: Probes = Probes { idle: Duration::from_secs(1), interval: Duration::from_secs(1), count: 9 };

/// The patience of one attempt with its peer.
pub(super) struct Patience<'a> {
    attempt: &'a Attempt,
    /// The configuration lets a peer that does not answer be passed over.
    may_pass_on: bool,
    /// So is it once the request was sent.
    may_send_again: bool,
    /// `proxy_socket_keepalive`: probes are sent anyway.
    keepalive: bool,
    probing: bool,
    /// Since when an answer is awaited, where silence counts.
    asked_ms: Option<u64>,
    /// When to look at the host next.
    look: Deadline,
}

impl<'a> Patience<'a> {
    pub(super) fn of(request: &Request<'_>, asking: &Asking, attempt: &'a Attempt) -> Patience<'a> {
        let settings = &asking.call.settings;
        let next = &settings.next_upstream;
        let may_pass_on = next.has(NextUpstream::TIMEOUT) && !next.has(NextUpstream::OFF);
        let repeatable = is_repeatable(request.method) || next.has(NextUpstream::NON_IDEMPOTENT);
        Patience {
            attempt,
            may_pass_on,
            may_send_again: may_pass_on && repeatable && !asking.streaming,
            keepalive: settings.socket_keepalive.0,
            probing: false,
            asked_ms: None,
            look: Deadline::NONE,
        }
    }

    /// When to stop waiting for a connection.
    pub(super) fn to_connect(&self, limit: Duration) -> Deadline {
        let limit = Deadline::after(limit);
        let elsewhere = self.may_pass_on && self.attempt.has_alternative(net::clock::now_ms());
        if elsewhere { limit.min(Deadline::after(CONNECT_MAX)) } else { limit }
    }

    /// The whole request was sent: from here on an answer is awaited.
    pub(super) fn begin_waiting(&mut self) {
        if self.may_send_again && self.asked_ms.is_none() {
            self.asked_ms = Some(net::clock::now_ms());
            self.look = Deadline::after(FIRST_LOOK);
        }
    }

    /// Ready after `limit`, or when the host is found silent.
    pub(super) fn poll_exhausted(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        limit: Deadline,
    ) -> Poll<()> {
        let Some(asked_ms) = self.asked_ms else { return stream.poll_expired(cx, limit) };
        loop {
            ready!(stream.poll_expired(cx, limit.min(self.look)));
            if limit.has_passed() || self.is_gone(stream, asked_ms) {
                return Poll::Ready(());
            }
            self.look = Deadline::after(NEXT_LOOK);
        }
    }

    /// Whether the host has been silent for too long since it was asked at `asked_ms`.
    fn is_gone(&mut self, stream: &Stream, asked_ms: u64) -> bool {
        if !self.probing {
            // Where the option cannot be set, nobody is found silent who has something to acknowledge.
            self.probing = set_probes(stream.as_fd(), true, Some(PROBES)).is_ok();
        }
        let Some(info) = stream.tcp_info().filter(|_| self.probing) else { return false };
        let now_ms = net::clock::now_ms();
        let silent_ms = now_ms.saturating_sub(asked_ms).min(info.last_acknowledged_ms.into());
        silent_ms >= SILENCE_MAX_MS && self.attempt.has_alternative(now_ms)
    }

    /// The wait is over.
    pub(super) fn stop_probing(&mut self, stream: &Stream) {
        if std::mem::replace(&mut self.probing, false) && !self.keepalive {
            // A connection on which the option stays on is only watched a little better.
            let _ = set_probes(stream.as_fd(), false, None);
        }
    }
}
