//! An upstream's answer delivered to the client: two sides that run at their own speed.
//!
//! Buffered, the answer is taken off the upstream while the client is busy ([`super::hold`]), and the peer and its
//! connection are free as soon as the last byte has come, however slow the client is. Otherwise each piece goes on
//! before the next is read.

use super::attempt::Asking;
use super::hold::{Hold, HoldEvent};
use super::incoming::{Cut, Incoming};
use super::keepalive::Owner;
use super::{Call, Protocol, Settings};
use crate::Request;
use crate::driver::{BodyError, Driver};
use crate::flow::{Chunk, Transform};
use crate::pump::{self, Broken};
use crate::thread::Thread;
use balance::{Attempt, Outcome, Timings};
use bstr::ByteSlice;
use conf::Level;
use net::errno::ErrnoMessage;
use net::file::FileError;
use net::file::temporary::TemporaryFolder;
use net::splice::SpliceError;
use net::stream::StreamError;
use net::timer::{Deadline, Timer};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// What goes on while an answer's head comes, in the log's words.
const READING_HEAD: &str = "reading response header from upstream";
/// The same for its body.
const READING_BODY: &str = "reading upstream";

/// How much is read at once where nothing is known of what comes, bytes.
const READ_BYTES: usize = 16 * 1024;
/// How much that is there already is gathered before it is sent, at first and at most, bytes. It grows while the client
/// keeps up.
const GATHERED_BYTES_MIN: usize = 80 * 1024;
/// See [`GATHERED_BYTES_MIN`].
const GATHERED_BYTES_MAX: usize = 256 * 1024;

/// After so many fillings of a pipe in a row others have their turn.
const MOVES_MAX: usize = 4;

/// The rest of an upstream's answer.
pub struct UpstreamBody {
    pub(super) incoming: Incoming,
    pub(super) hold: Hold,
    /// What was asked, and of whom.
    pub(super) asking: Asking,
    /// In whose pool the connection is kept when the body is over.
    owner: Owner,
    /// Gives the peer back when the body is over or dropped.
    attempt: Option<Attempt>,
    /// Take it off the upstream as fast as it comes.
    pub buffering: bool,
    /// What ended the body before its end; told when what came before it has been sent.
    pub(super) cut: Option<Cut>,
    /// Only this part of it is for the client: how many bytes to leave out, and how many to send then.
    pub window: Option<(u64, u64)>,
    /// Bytes a second from the upstream, 0 is no limit.
    rate: u64,
    pace: Timer,
    asked_ms: u64,
    header_ms: u64,
    response_ms: Option<u64>,
}

impl UpstreamBody {
    /// The body behind a head; `first` is what was read beyond it.
    pub(super) fn new(
        mut incoming: Incoming,
        mut first: Vec<u8>,
        asking: Asking,
        owner: Owner,
        attempt: Attempt,
        asked_ms: u64,
    ) -> Box<UpstreamBody> {
        let cut = incoming.decode(&mut first, 0).err();
        let header_ms = net::clock::now_ms().saturating_sub(asked_ms);
        Box::new(UpstreamBody {
            incoming,
            hold: Hold::new(first, &asking.call.settings),
            buffering: asking.call.settings.buffering.0,
            asking,
            owner,
            attempt: Some(attempt),
            cut,
            window: None,
            rate: 0,
            pace: Timer::new(),
            asked_ms,
            header_ms,
            response_ms: None,
        })
    }

    /// The call that it answers.
    pub fn call(&self) -> &Call {
        &self.asking.call
    }

    /// Lets go of a body that nobody gets to see; if all of it is here, its connection is kept.
    pub fn abandon(mut self, request: &mut Request<'_>) {
        self.finish_quickly(request);
    }

    /// As [`UpstreamBody::abandon`], for one that is dropped later.
    pub fn finish_quickly(&mut self, request: &mut Request<'_>) {
        self.retire(request.thread);
        self.settle(request);
    }

    /// Gives peer and connection back once the body is over.
    fn retire(&mut self, thread: &Thread) {
        if !self.incoming.is_over() || self.response_ms.is_some() {
            return;
        }
        self.give_back();
        // As in nginx, HTTP/2 to an address without an `upstream` block is for one request.
        let alone = self.asking.upstream.implicit && self.asking.call.protocol.http2();
        let kept = self.incoming.take_kept().filter(|_| !alone);
        if let (Some(connection), Some(address)) = (kept, self.asking.address()) {
            thread.pools.put(self.owner, address, connection, &self.asking.upstream.keepalive);
        }
    }

    /// Gives the peer back. As in nginx, a peer that answered has not failed, however its body ended.
    fn give_back(&mut self) {
        let now_ms = net::clock::now_ms();
        let response_ms = *self.response_ms.get_or_insert(now_ms.saturating_sub(self.asked_ms));
        if let Some(mut attempt) = self.attempt.take() {
            let timings = Timings { header_ms: Some(self.header_ms), response_ms };
            attempt.release(Outcome::Success, now_ms, timings);
        }
    }

    /// The end, one way or the other: what variables show is written down.
    fn settle(&mut self, request: &mut Request<'_>) {
        self.give_back();
        request.thread.spare.keep_buffer(self.hold.take_buffer());
        request.thread.spare.keep_buffer(std::mem::take(&mut self.asking.call.target));
        if let Some(attempted) = request.attempts.last_mut() {
            attempted.response_ms = self.response_ms;
            attempted.response_bytes += self.incoming.body_bytes;
            attempted.received_bytes += self.incoming.received_bytes;
            attempted.sent_bytes += self.incoming.sent_bytes;
        }
        // What follows the head of an answer to HEAD is not looked at.
        if self.incoming.surplus && request.method != http::Method::Head {
            let what = match self.incoming.is_chunked {
                true => "data after final chunk",
                false => "more data than specified in \"Content-Length\" header",
            };
            request.action = if self.is_at_head() { READING_HEAD } else { READING_BODY };
            request.log_error(Level::Warn, format_args!("upstream sent {what}"));
            request.action = "";
        }
        if !self.incoming.trailers.is_empty() {
            self.pass_trailers(request);
        }
    }

    fn pass_trailers(&mut self, request: &mut Request<'_>) {
        let trailers = std::mem::take(&mut self.incoming.trailers);
        for (name, value) in trailers.iter().filter(|_| self.settings().pass_trailers.0) {
            if !self.call().protocol.hides(&name.to_ascii_lowercase()) {
                request.response.trailers.push(name, value);
            }
        }
        request.upstream_trailers = trailers;
    }

    /// Leaves of a piece what lies in the window.
    pub(super) fn cut_out(&mut self, piece: &mut Vec<u8>) {
        let Some((skip, left)) = &mut self.window else { return };
        let skipped = usize::try_from(*skip).unwrap_or(usize::MAX).min(piece.len());
        piece.drain(..skipped);
        *skip -= skipped as u64;
        piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= piece.len() as u64;
    }

    /// How much may be read now under the rate; pending until some may.
    fn poll_allowance(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.rate == 0 {
            return Poll::Ready(usize::MAX);
        }
        // The budget of a second is there at its beginning, as in nginx.
        let begun_ms = self.asked_ms + self.header_ms;
        let came = self.incoming.body_bytes;
        let enough_ms = begun_ms.saturating_add((came / self.rate).saturating_mul(1000));
        if net::clock::now_ms() < enough_ms {
            ready!(self.pace.poll_expired(cx, Deadline::at_ms(enough_ms)));
        }
        let seconds = net::clock::now_ms().saturating_sub(begun_ms) / 1000 + 1;
        let left = self.rate.saturating_mul(seconds).saturating_sub(came).max(1);
        Poll::Ready(usize::try_from(left).unwrap_or(usize::MAX))
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.asking.call.settings
    }

    pub(super) fn silence(&self) -> Deadline {
        Deadline::after(Duration::from_millis(self.settings().read_timeout.0))
    }
}

/// Sends the body to the client, through transforms.
///
/// # Errors
/// Either side ended early.
pub async fn deliver(
    request: &mut Request<'_>,
    driver: &mut Driver,
    mut body: Box<UpstreamBody>,
    mut transforms: Vec<Box<dyn Transform>>,
) -> Result<(), Broken> {
    if request.response.upgraded {
        return Box::pin(tunnel(request, driver, &mut body)).await;
    }
    if body.buffering
        && let Some(template) = &*body.settings().limit_rate
    {
        let rate = request.render(template);
        body.rate = schema::value::size(&rate).unwrap_or(0) as u64;
    }
    if !body.incoming.is_over() {
        pump::be_prompt(request, driver);
    }
    let result = body.flow(request, driver, &mut transforms).await;
    body.settle(request);
    result
}

async fn tunnel(
    request: &mut Request<'_>,
    driver: &mut Driver,
    body: &mut UpstreamBody,
) -> Result<(), Broken> {
    let silence = Duration::from_millis(body.settings().read_timeout.0);
    let mut first = Vec::new();
    let _ = body.hold.take(&mut first);
    let Some(connection) = body.incoming.take_connection() else { return Ok(()) };
    let result = crate::upgrade::tunnel(request, driver, connection.stream, first, silence).await;
    body.settle(request);
    result
}

impl UpstreamBody {
    async fn flow(
        &mut self,
        request: &mut Request<'_>,
        driver: &mut Driver,
        transforms: &mut [Box<dyn Transform>],
    ) -> Result<(), Broken> {
        if self.incoming.is_uploading() {
            Box::pin(self.duplex(request, driver, transforms)).await?;
        }
        let mut piece = Vec::new();
        let mut gathered_bytes_max = GATHERED_BYTES_MIN;
        let mut kept_up = true;
        loop {
            self.retire(request.thread);
            self.tell(request);
            let held = self.hold.take(&mut piece).map_err(|error| unreadable(request, &error))?;
            if !held {
                if let Some(cut) = self.cut.take() {
                    return Err(cut_off(request, cut, self.buffering, self.is_at_head()));
                }
                if self.incoming.is_over() {
                    break;
                }
            }
            let moving = kept_up && transforms.is_empty() && self.is_movable(request, driver);
            let moved = moving && self.move_on(request, driver, &mut piece).await?;
            if !moved && !held {
                self.wait(request, driver, &mut piece, gathered_bytes_max, moving).await?;
            }
            if piece.is_empty() {
                continue;
            }
            let filled = self.gather(request.thread, &mut piece, gathered_bytes_max);
            self.retire(request.thread);
            self.cut_out(&mut piece);
            kept_up = if transforms.is_empty() && pump::send_at_once(request, driver, &piece) {
                true
            } else {
                self.send(request, driver, transforms, &mut piece).await?
            };
            gathered_bytes_max = match (kept_up, filled) {
                (true, true) => (gathered_bytes_max * 2).min(GATHERED_BYTES_MAX),
                (true, false) => gathered_bytes_max,
                (false, _) => GATHERED_BYTES_MIN,
            };
        }
        request.thread.spare.keep_buffer(piece);
        if transforms.is_empty() {
            return Ok(());
        }
        Box::pin(pump::transform(request, driver, transforms, None)).await
    }

    /// May what comes go to the client in a pipe, past us?
    fn is_movable(&self, request: &mut Request<'_>, driver: &mut Driver) -> bool {
        self.incoming.movable_bytes() > 0
            && self.rate == 0
            && self.window.is_none()
            && self.cut.is_none()
            // What is held is older than what comes.
            && self.hold.is_empty()
            && pump::is_unlimited(request)
            && driver.bare_stream().is_some()
            && request.thread.spare.has_pipe()
    }

    /// Moves to the client what is there, past us, behind the piece and what else waits; what the client does not take at
    /// once is the next piece. False where nothing was there.
    async fn move_on(
        &mut self,
        request: &mut Request<'_>,
        driver: &mut Driver,
        piece: &mut Vec<u8>,
    ) -> Result<bool, Broken> {
        for turn in 0..MOVES_MAX {
            if !self.incoming.may_have_more() {
                return Ok(turn > 0);
            }
            let (Some((output, client)), Some(mut pipe)) =
                (driver.bare_stream(), request.thread.spare.pipe())
            else {
                return Ok(turn > 0);
            };
            let mut rest = Vec::new();
            let moved = match self.incoming.move_at_hand(&mut pipe, client, [output, piece], &mut rest) {
                Ok(moved) => moved,
                Err(SpliceError::Write(error)) => return Err(Broken::Client(error)),
                Err(SpliceError::Read(error)) => {
                    self.cut = Some(Cut::Failed(error.errno()));
                    return Ok(true);
                }
                Err(SpliceError::Pipe(errno)) => {
                    request
                        .log_error(Level::Alert, format_args!("splice() failed ({})", ErrnoMessage(errno)));
                    return Err(Broken::Source);
                }
            };
            request.thread.spare.keep_pipe(pipe);
            let Some(moved) = moved else { return Ok(turn > 0) };
            let of_output = moved.led.min(output.len());
            output.drain(..of_output);
            piece.drain(..moved.led - of_output);
            piece.append(&mut rest);
            request.sent_bytes += (moved.led - of_output + moved.passed) as u64;
            if moved.taken == 0 {
                self.cut = Some(Cut::Closed);
            }
            if moved.taken == 0 || !piece.is_empty() || self.incoming.movable_bytes() == 0 {
                return Ok(true);
            }
        }
        // Others have their turn.
        net::thread::yield_now().await;
        Ok(true)
    }

    /// Takes what more is there already, so that all of it leaves in one write. True where there may be still more.
    fn gather(&mut self, thread: &Thread, piece: &mut Vec<u8>, bytes_max: usize) -> bool {
        // What is held is older than what comes now, and what is limited comes piece by piece.
        if self.rate > 0 || self.cut.is_some() || !self.hold.is_empty() {
            return piece.len() >= bytes_max;
        }
        while piece.len() < bytes_max && !self.incoming.is_over() {
            let wanted = self.incoming.expected_bytes(bytes_max - piece.len());
            // A look costs nothing where the last read has shown that nothing is there.
            if !self.incoming.may_have_more() {
                return false;
            }
            thread.spare.make_room(piece, wanted);
            match self.incoming.read_at_hand(piece, wanted) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(cut) => {
                    self.cut = Some(cut);
                    return false;
                }
            }
        }
        piece.len() >= bytes_max
    }

    /// Waits for bytes from the upstream, which are not read where they are to be moved, while what the client has not
    /// got yet leaves and the client is watched.
    async fn wait(
        &mut self,
        request: &mut Request<'_>,
        driver: &mut Driver,
        piece: &mut Vec<u8>,
        bytes_max: usize,
        moving: bool,
    ) -> Result<(), Broken> {
        // Where nothing is known of what comes, more is gathered later, when it is known that there is much.
        let bytes_max =
            self.incoming.expected_bytes(bytes_max).min(self.incoming.known_bytes().max(READ_BYTES));
        let thread = request.thread;
        let silence = self.silence();
        let client_silence = pump::send_deadline(request);
        let watched = !self.settings().ignore_client_abort.0;
        let end = poll_fn(|cx| {
            let allowed = match self.poll_allowance(cx) {
                Poll::Ready(allowed) => allowed.min(bytes_max),
                Poll::Pending => 0,
            };
            if moving {
                if let Poll::Ready(stirred) = self.incoming.poll_stirred(cx) {
                    return Poll::Ready(stirred.map_err(End::Upstream));
                }
            } else if allowed > 0 {
                if self.incoming.may_have_more() {
                    thread.spare.make_room(piece, allowed);
                }
                if let Poll::Ready(read) = self.incoming.poll_read(cx, piece, allowed) {
                    return Poll::Ready(read.map_err(End::Upstream));
                }
            }
            // Many wait; those who read have a few buffers in turn.
            thread.spare.keep_buffer(std::mem::take(piece));
            match driver.poll_flush(cx) {
                Poll::Ready(Err(errno)) => return Poll::Ready(Err(End::Client(StreamError::Os(errno)))),
                Poll::Ready(Ok(())) if watched && driver.poll_closed(cx).is_ready() => {
                    return Poll::Ready(Err(End::ClientGone));
                }
                Poll::Pending if driver.poll_expired(cx, client_silence).is_ready() => {
                    return Poll::Ready(Err(End::Client(StreamError::TimedOut)));
                }
                _ => {}
            }
            if allowed == 0 {
                return Poll::Pending;
            }
            self.incoming.poll_expired(cx, silence).map(|()| Err(End::Upstream(Cut::TimedOut)))
        });
        match end.await {
            Ok(()) => Ok(()),
            Err(End::Upstream(cut)) => {
                self.cut = Some(cut);
                Ok(())
            }
            Err(End::Client(error)) => Err(Broken::Client(error)),
            Err(End::ClientGone | End::BadBody(_)) => {
                request.action = READING_BODY;
                super::client_is_gone(request);
                Err(Broken::Gone)
            }
        }
    }

    /// Sends a piece; meanwhile, when buffering, takes more off the upstream. True when the client took it at once.
    pub(super) async fn send(
        &mut self,
        request: &mut Request<'_>,
        driver: &mut Driver,
        transforms: &mut [Box<dyn Transform>],
        piece: &mut Vec<u8>,
    ) -> Result<bool, Broken> {
        if piece.is_empty() {
            return Ok(true);
        }
        let thread = request.thread;
        let busy_bytes = piece.len();
        let mut silence = self.silence();
        let mut kept_up = true;
        let mut sending = pin!(send_piece(request, driver, transforms, piece));
        let sent = poll_fn(|cx| {
            if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
                return Poll::Ready(sent);
            }
            kept_up = false;
            if self.buffering && self.cut.is_none() && !self.incoming.is_over() {
                self.fill(cx, thread, busy_bytes, &mut silence);
            }
            Poll::Pending
        });
        sent.await.map(|()| kept_up)
    }

    /// Takes off the upstream what there is room for.
    fn fill(&mut self, cx: &mut Context<'_>, thread: &Thread, busy_bytes: usize, silence: &mut Deadline) {
        let Poll::Ready(allowed) = self.poll_allowance(cx) else { return };
        let before = self.incoming.received_bytes;
        let (settings, protocol) = (&self.asking.call.settings, &self.asking.call.protocol);
        let folder = || temporary_folder(thread, settings, &**protocol);
        match self.hold.poll_fill(cx, &mut self.incoming, busy_bytes, allowed, &folder) {
            Poll::Ready(Ok(())) => self.retire(thread),
            Poll::Ready(Err(cut)) => self.cut = Some(cut),
            Poll::Pending => {
                let full = self.hold.is_full(busy_bytes);
                if full || self.incoming.received_bytes != before {
                    *silence = self.silence();
                }
                if !full && self.incoming.poll_expired(cx, *silence).is_ready() {
                    self.cut = Some(Cut::TimedOut);
                }
            }
        }
    }

    /// Has nothing come but what came with the head of an unbuffered answer?
    fn is_at_head(&self) -> bool {
        !self.buffering && self.incoming.received_bytes == 0
    }

    /// Logs what became of the temporary file.
    fn tell(&mut self, request: &mut Request<'_>) {
        let Some(event) = self.hold.event.take() else { return };
        request.action = READING_BODY;
        match event {
            HoldEvent::Spilled(path) => request.log_error(
                Level::Warn,
                format_args!("an upstream response is buffered to a temporary file {}", path.as_bstr()),
            ),
            HoldEvent::Failed(path, error) => {
                let (call, errno, path) = (error.call, ErrnoMessage(error.errno), path.as_bstr());
                request.log_error(Level::Crit, format_args!("{call} \"{path}\" failed ({errno})"));
            }
        }
        request.action = "";
    }
}

/// Where what memory does not hold of a response goes.
fn temporary_folder(thread: &Thread, settings: &Settings, protocol: &dyn Protocol) -> TemporaryFolder {
    match &*settings.temp_path {
        Some(place) => place.folder(),
        None => {
            let path = [&thread.prefix[..], protocol.temporary_folder().as_bytes()].concat();
            TemporaryFolder { path, levels: [1, 2, 0] }
        }
    }
}

/// What ends a wait without bytes.
pub(super) enum End {
    Upstream(Cut),
    Client(StreamError),
    ClientGone,
    /// The client's body cannot be read on.
    BadBody(BodyError),
}

async fn send_piece(
    request: &mut Request<'_>,
    driver: &mut Driver,
    transforms: &mut [Box<dyn Transform>],
    piece: &mut Vec<u8>,
) -> Result<(), Broken> {
    if transforms.is_empty() {
        let sent = pump::send_bytes(request, driver, piece).await;
        piece.clear();
        return sent;
    }
    let piece = Chunk::Bytes(std::mem::take(piece));
    Box::pin(pump::transform(request, driver, transforms, Some(piece))).await
}

pub(super) fn unreadable(request: &Request<'_>, error: &FileError) -> Broken {
    request.log_error(Level::Crit, format_args!("{error}"));
    Broken::Source
}

/// Logs why the body ended before its end. The calls are those by which nginx reads; what is wrong with bytes that came
/// with the head of an unbuffered answer it sees while it is still at the head (`is_at_head`).
fn cut_off(request: &mut Request<'_>, cut: Cut, is_buffered: bool, is_at_head: bool) -> Broken {
    request.action = match cut {
        Cut::Malformed | Cut::Said(_) if is_at_head => READING_HEAD,
        _ => READING_BODY,
    };
    match cut {
        Cut::Closed => {
            request.log_error(Level::Error, format_args!("upstream prematurely closed connection"));
        }
        Cut::TimedOut => {
            request.log_error(Level::Error, format_args!("upstream timed out (110: Connection timed out)"));
        }
        Cut::Malformed => {
            request.log_error(Level::Error, format_args!("upstream sent invalid chunked response"));
        }
        Cut::Said(message) => request.log_error(Level::Error, format_args!("{message}")),
        Cut::Failed(errno) => {
            let call = if is_buffered { "readv" } else { "recv" };
            request.log_error(Level::Error, format_args!("{call}() failed ({})", ErrnoMessage(errno)));
        }
    }
    request.action = "";
    Broken::Source
}
