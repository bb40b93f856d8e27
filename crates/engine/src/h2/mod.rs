//! HTTP/2 connections: one task reads and writes for all streams of a connection, and each stream's request runs the
//! same [`crate::exchange`] as any other, in a task of its own on the same thread.
//!
//! ```text
//! socket -> Task -> codec -> request tasks (Driver::H2) -> codec -> Task -> socket
//! ```
//!
//! The codec ([`http::h2`]) stands between them in a cell. Request tasks put frames into its output; the connection's
//! task runs behind all of them in a turn of the event loop and writes everything at once.

mod head;
mod request;
mod stream;
pub(crate) mod websocket;

pub use stream::H2;

use crate::connection::Facts;
use crate::core::Core;
use crate::plan::Snapshot;
use crate::race::{First, race};
use crate::thread::Thread;
use conf::Level;
use http::HeadOptions;
use http::h2::frame::PAYLOAD_BYTES_MAX;
use http::h2::{Connection, ErrorCode, Event, Heads, Limits, PREFACE};
use net::errno::Errno;
use net::stream::{Stream, StreamError};
use net::timer::{Deadline, Timer};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

/// How much is read at once, bytes.
const READ_BYTES: usize = 16 * 1024 + 512;
/// What may wait to be written on a connection, bytes: a first window of bodies, and their heads.
const OUTPUT_BYTES_MAX: usize = 72 * 1024;
/// What the streams of a connection may hold of bodies that nobody reads, bytes.
const CONNECTION_WINDOW_BYTES_MAX: u32 = 4 << 20;

/// What the connection's task and those of its requests share.
pub struct Shared {
    codec: RefCell<Connection>,
    /// Requests that wait for something on their streams.
    waiting: RefCell<Vec<(u32, Waker)>>,
    /// The connection's task, while it waits.
    task: RefCell<Option<Waker>>,
    /// How many requests are worked on.
    requests: Cell<usize>,
    /// The connection is gone.
    gone: Cell<bool>,
}

impl Shared {
    /// There is something for the connection's task to do.
    fn nudge(&self) {
        if let Some(task) = self.task.borrow_mut().take() {
            task.wake();
        }
    }

    /// Has this request woken when something happens on its stream.
    fn watch(&self, stream: u32, cx: &Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        match waiting.iter_mut().find(|(id, _)| *id == stream) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => waiting.push((stream, cx.waker().clone())),
        }
    }

    fn wake(&self, stream: u32) {
        let mut waiting = self.waiting.borrow_mut();
        if let Some(place) = waiting.iter().position(|(id, _)| *id == stream) {
            waiting.swap_remove(place).1.wake();
        }
    }

    fn wake_all(&self) {
        // A task may watch again as soon as it is woken, but none runs before this one waits.
        self.waiting.borrow_mut().drain(..).for_each(|(_, waker)| waker.wake());
    }
}

/// Reads on until it is clear whether the client speaks HTTP/2, as one does that knows the server beforehand.
///
/// # Errors
/// Nothing more came.
pub async fn is_spoken(
    stream: &mut Stream,
    ahead: &mut Vec<u8>,
    deadline: Deadline,
) -> Result<bool, StreamError> {
    loop {
        let length = ahead.len().min(PREFACE.len());
        if length > 0 && ahead.get(..length) != PREFACE.get(..length) {
            return Ok(false);
        }
        if length == PREFACE.len() {
            return Ok(true);
        }
        // The end of the client's data is for HTTP/1 to explain.
        if stream.read_into(ahead, READ_BYTES, deadline).await? == 0 {
            return Ok(false);
        }
    }
}

/// Serves a connection that speaks HTTP/2 until it ends. `ahead` is what was read of it already.
pub async fn serve(thread: &Rc<Thread>, facts: Rc<Facts>, mut stream: Stream, ahead: Vec<u8>) {
    let snapshot = thread.snapshot();
    let Some(listener) = snapshot.listen_for(facts.local_address(), &facts.listen) else { return };
    let site = snapshot.site(listener.default_site);
    let core = snapshot.plan(site.plan).core.clone();
    if core.tcp_nodelay.0 {
        stream.be_prompt();
    }
    let (limits, options) = settings(&site.core);
    let header_timeout = Duration::from_millis(site.core.client_header_timeout.0);
    let shared = Rc::new(Shared {
        codec: RefCell::new(Connection::server(limits, options)),
        waiting: RefCell::default(),
        task: RefCell::default(),
        requests: Cell::new(0),
        gone: Cell::new(false),
    });
    let mut task = Task {
        thread,
        facts,
        stream,
        input: ahead,
        fresh: true,
        written_bytes: 0,
        shared,
        heads: Heads::default(),
        core,
        header_timeout,
        read_end: Deadline::after(header_timeout),
        write_end: Deadline::NONE,
        idle_end: Deadline::NONE,
        undisturbed: Deadline::PASSED,
        was_busy: false,
        given_up: false,
        failed: false,
    };
    let end = task.run(snapshot).await;
    task.end(&end).await;
}

fn settings(core: &crate::core::ServerCore) -> (Limits, HeadOptions) {
    let buffers = *core.large_client_header_buffers;
    let streams_max = u32::try_from(core.http2_max_concurrent_streams.0).unwrap_or(u32::MAX);
    let window = core.http2_body_preread_size.0;
    let limits = Limits {
        streams_max,
        frame_bytes_max: PAYLOAD_BYTES_MAX,
        stream_window_bytes: window,
        connection_window_bytes: window.saturating_mul(streams_max).min(CONNECTION_WINDOW_BYTES_MAX),
        header_string_bytes_max: buffers.size_bytes,
        header_list_bytes_max: buffers.size_bytes.saturating_mul(buffers.count),
        output_bytes_max: OUTPUT_BYTES_MAX,
    };
    (limits, HeadOptions { allow_extended_connect: true, ..crate::connection::head_options(core) })
}

/// What a wait of the connection's task ended with.
enum Turn {
    /// Requests have begun where there were none, or the last one has ended.
    Changed,
    /// The connection is over.
    Ended(End),
}

/// How a connection ends.
enum End {
    /// The client closed it.
    Closed,
    /// It broke.
    Broken(Errno),
    /// All is written that there was to say.
    Finished,
    /// Nothing came, or nothing was taken, for too long.
    TimedOut,
}

/// The task of a connection.
struct Task<'t> {
    thread: &'t Rc<Thread>,
    facts: Rc<Facts>,
    stream: Stream,
    /// What was read and is no whole frame yet.
    input: Vec<u8>,
    /// The input holds bytes that were not looked at.
    fresh: bool,
    /// How much of the output was written.
    written_bytes: usize,
    shared: Rc<Shared>,
    heads: Heads,
    /// Settings of the default server, for what happens between requests.
    core: Arc<Core>,
    header_timeout: Duration,
    /// Until when what was begun must come: the first SETTINGS, the rest of a frame.
    read_end: Deadline,
    /// Until when the client must take something of what waits to be written.
    write_end: Deadline,
    /// Until when another request must come.
    idle_end: Deadline,
    /// Until then also when the server stops or runs out of connections: `keepalive_min_timeout`.
    undisturbed: Deadline,
    was_busy: bool,
    /// The rest of the frame under way is not waited for any more.
    given_up: bool,
    /// The client broke a rule; nothing more is read.
    failed: bool,
}

impl Task<'_> {
    async fn run(&mut self, mut snapshot: Arc<Snapshot>) -> End {
        loop {
            let patient = self.core.keepalive_min_timeout.0 > 0;
            if self.thread.is_stopping() && (!patient || !self.was_busy && self.undisturbed.has_passed()) {
                self.shared.codec.borrow_mut().go_away();
            }
            let thread = self.thread;
            let turn = if self.was_busy {
                let stopped = async {
                    if patient || thread.is_stopping() {
                        std::future::pending().await
                    } else {
                        thread.stopped().await
                    }
                };
                race(poll_fn(|cx| self.poll_turn(cx, &mut snapshot)), stopped).await
            } else {
                let _idle = thread.count_idle();
                let undisturbed = self.undisturbed;
                let dismissed = async {
                    if patient && !undisturbed.has_passed() {
                        Timer::new().sleep(undisturbed).await;
                    }
                    if !thread.is_stopping() {
                        let mut dismissed = thread.dismissed();
                        poll_fn(|cx| dismissed.poll(cx)).await;
                    }
                };
                race(poll_fn(|cx| self.poll_turn(cx, &mut snapshot)), dismissed).await
            };
            match turn {
                First::Left(Turn::Changed) => {}
                First::Left(Turn::Ended(end)) => return end,
                First::Right(()) => self.shared.codec.borrow_mut().go_away(),
            }
        }
    }

    /// The connection is over: so are its requests.
    async fn end(self, end: &End) {
        let shared = self.shared.clone();
        shared.gone.set(true);
        let busy = shared.requests.get() > 0;
        match end {
            End::Closed if busy => self.log(format_args!("client prematurely closed connection")),
            End::TimedOut => self.log(format_args!("client timed out (110: Connection timed out)")),
            End::Broken(errno) => match self.stream.read_failure(*errno) {
                Some(failure) => self.log(format_args!("{failure}")),
                None if busy => self.log(format_args!("client prematurely closed connection")),
                None => {}
            },
            _ => {}
        }
        shared.wake_all();
        // Requests hold the connection's place among the thread's until they have seen that it is gone.
        poll_fn(|cx| {
            if shared.requests.get() == 0 {
                return Poll::Ready(());
            }
            shared.task.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        net::log::turn_ended();
        if matches!(end, End::Finished) {
            // The client may still be sending; a reset would cost it what it was sent.
            let pause = Duration::from_millis(self.core.lingering_timeout.0);
            let time = Duration::from_millis(self.core.lingering_time.0);
            self.stream.linger(pause, time).await;
        }
    }

    fn has_output(&self) -> bool {
        !self.shared.codec.borrow().output.is_empty()
    }

    /// Reads, works on what came, writes, until there is nothing to do but to wait.
    fn poll_turn(&mut self, cx: &mut Context<'_>, snapshot: &mut Arc<Snapshot>) -> Poll<Turn> {
        let shared = self.shared.clone();
        shared.task.replace(Some(cx.waker().clone()));
        loop {
            if let Poll::Ready(Err(errno)) = self.poll_write(cx) {
                return Poll::Ready(Turn::Ended(End::Broken(errno)));
            }
            if self.failed && !self.has_output() {
                return Poll::Ready(Turn::Ended(End::Finished));
            }
            if self.fresh && shared.codec.borrow().has_output_room() {
                let requests_before = shared.requests.get();
                self.work(snapshot);
                if shared.requests.get() > requests_before {
                    // The new requests run first; what they have to say leaves in one write.
                    cx.waker().wake_by_ref();
                    break;
                }
                continue;
            }
            if self.failed || !shared.codec.borrow().has_output_room() {
                break;
            }
            match self.poll_read(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Poll::Ready(Turn::Ended(End::Closed)),
                Poll::Ready(Ok(_)) => {
                    self.fresh = true;
                    self.given_up = false;
                    self.read_end = Deadline::after(self.header_timeout);
                }
                Poll::Ready(Err(errno)) => return Poll::Ready(Turn::Ended(End::Broken(errno))),
            }
        }
        self.poll_change(cx)
    }

    /// What a turn that has nothing to do leads to.
    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        let busy = self.shared.requests.get() > 0;
        let has_output = self.has_output();
        if !busy && !has_output && !self.fresh && self.shared.codec.borrow().is_going_away() {
            return Poll::Ready(Turn::Ended(End::Finished));
        }
        if busy != self.was_busy {
            self.was_busy = busy;
            if !busy {
                self.rest();
            }
            cx.waker().wake_by_ref();
            return Poll::Ready(Turn::Changed);
        }
        let awaited = !self.input.is_empty() || self.shared.codec.borrow().awaits_continuation();
        let partial = awaited && !self.given_up;
        let reading = partial || !self.shared.codec.borrow().has_settings();
        if !busy && !reading && self.idle_end == Deadline::NONE {
            // The first request is awaited for as long as its head would be.
            self.idle_end = Deadline::after(self.header_timeout);
        }
        let deadline = if has_output {
            self.write_end
        } else if reading {
            self.read_end
        } else if busy {
            Deadline::NONE
        } else {
            self.idle_end
        };
        ready!(self.stream.poll_expired(cx, deadline));
        if partial && !has_output && self.shared.codec.borrow_mut().give_up_frame(&self.input) {
            self.given_up = true;
            self.log(format_args!("client timed out (110: Connection timed out)"));
            if !busy {
                // Another request may come, as behind one that was answered.
                self.rest();
            }
            return Poll::Ready(Turn::Changed);
        }
        let amid_frame = reading || self.shared.codec.borrow().is_amid_frame();
        if amid_frame && !has_output && !self.failed {
            // Half a frame, or no SETTINGS: the client is told why, and that ends the connection.
            self.fail(ErrorCode::PROTOCOL_ERROR, "client timed out (110: Connection timed out)");
            return Poll::Ready(Turn::Changed);
        }
        if has_output {
            return Poll::Ready(Turn::Ended(End::TimedOut));
        }
        // No request has come for too long: the client is told, and that ends the connection.
        self.shared.codec.borrow_mut().go_away();
        Poll::Ready(Turn::Changed)
    }

    /// The last request has ended: from now on another is waited for, without the buffers that it took.
    fn rest(&mut self) {
        let least_ms = self.core.keepalive_min_timeout.0;
        let after = |ms| Deadline::after(Duration::from_millis(ms));
        self.idle_end = after(self.core.keepalive_timeout.milliseconds.max(least_ms));
        self.undisturbed = if least_ms > 0 { after(least_ms) } else { Deadline::PASSED };
        if self.input.is_empty() {
            self.thread.spare.keep_buffer(std::mem::take(&mut self.input));
        }
        let mut codec = self.shared.codec.borrow_mut();
        if codec.output.is_empty() {
            self.thread.spare.keep_buffer(std::mem::take(&mut codec.output));
        }
    }

    /// Reads more; a connection at rest takes a buffer when there is something to read.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Errno>> {
        if self.input.capacity() == 0 {
            if let Err(error) = ready!(self.stream.poll_stirred(cx, Deadline::NONE)) {
                return Poll::Ready(Err(error.errno()));
            }
            self.input = self.thread.spare.buffer();
        }
        self.stream.poll_read_into(cx, &mut self.input, READ_BYTES)
    }

    /// Writes what waits; pending while something is left.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Errno>> {
        let mut codec = self.shared.codec.borrow_mut();
        let was_full = !codec.has_output_room();
        codec.output_offered();
        while let Some(rest) = codec.output.get(self.written_bytes..).filter(|rest| !rest.is_empty()) {
            let pause = Duration::from_millis(self.core.send_timeout.0);
            match self.stream.poll_writev(cx, &[IoSlice::new(rest)]) {
                Poll::Ready(Ok(count)) => {
                    self.written_bytes += count;
                    self.write_end = Deadline::after(pause);
                }
                Poll::Ready(Err(errno)) => return Poll::Ready(Err(errno)),
                Poll::Pending => {
                    if self.write_end == Deadline::NONE {
                        self.write_end = Deadline::after(pause);
                    }
                    return Poll::Pending;
                }
            }
        }
        if self.written_bytes > 0 {
            self.written_bytes = 0;
            self.write_end = Deadline::NONE;
            codec.output_written();
            drop(codec);
            if was_full {
                self.shared.wake_all();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Looks at what was read.
    fn work(&mut self, snapshot: &mut Arc<Snapshot>) {
        let now_ms = net::clock::now_ms();
        let mut at = 0;
        loop {
            let mut codec = self.shared.codec.borrow_mut();
            if !codec.has_output_room() {
                break;
            }
            let rest = self.input.get(at..).unwrap_or_default();
            let received = codec.receive(rest, now_ms, &mut self.heads);
            drop(codec);
            match received {
                Ok(Some((consumed, event))) => {
                    at += consumed;
                    self.event(event, snapshot);
                }
                Ok(None) => {
                    self.fresh = false;
                    break;
                }
                Err(error) => {
                    self.fail(error.code, &error.message);
                    break;
                }
            }
        }
        self.input.drain(..at);
    }

    /// Ends the connection because of the client; what waits is still written.
    fn fail(&mut self, code: ErrorCode, message: &str) {
        self.fresh = false;
        self.failed = true;
        self.shared.gone.set(true);
        self.shared.codec.borrow_mut().abort(code);
        self.log(format_args!("{message}"));
        self.shared.wake_all();
    }

    fn event(&mut self, event: Event, snapshot: &mut Arc<Snapshot>) {
        match event {
            Event::Nothing | Event::GoAway { .. } => {}
            Event::Data { stream } | Event::Trailers { stream } => self.shared.wake(stream),
            Event::Window { stream: 0 } => self.shared.wake_all(),
            Event::Window { stream } => self.shared.wake(stream),
            Event::Refused { message } => self.log(format_args!("{message}")),
            Event::Reset { stream, code, fault } => {
                match fault {
                    Some(message) => self.log(format_args!("{message}")),
                    None => self.tell_reset(stream, code),
                }
                self.shared.wake(stream);
            }
            Event::Head { stream, refusal, .. } => {
                self.facts.requests.set(self.facts.requests.get() + 1);
                if !self.thread.serves(snapshot) {
                    // The newest configuration serves each request, on connections of any age.
                    *snapshot = self.thread.snapshot();
                }
                if snapshot.variables.wants_tcp_info {
                    self.facts.tcp_info.set(self.stream.tcp_info().map(Box::new));
                }
                request::begin(
                    self.thread,
                    snapshot,
                    &self.facts,
                    &self.shared,
                    stream,
                    &mut self.heads,
                    refusal,
                );
                if self.is_enough(snapshot) {
                    self.shared.codec.borrow_mut().go_away();
                }
            }
        }
    }

    /// Was this the last request that the connection may bring?
    fn is_enough(&self, snapshot: &Snapshot) -> bool {
        let Some(listener) = snapshot.listen_for(self.facts.local_address(), &self.facts.listen) else {
            return true;
        };
        let core = &snapshot.plan(snapshot.site(listener.default_site).plan).core;
        let age_ms = net::clock::now_ms().saturating_sub(self.facts.started_ms);
        core.keepalive_timeout.milliseconds == 0
            || self.facts.requests.get() >= core.keepalive_requests.0 as u64
            || age_ms > core.keepalive_time.0
    }

    fn tell_reset(&self, stream: u32, code: ErrorCode) {
        match code {
            ErrorCode::CANCEL => self.log(format_args!("client canceled stream {stream}")),
            ErrorCode::INTERNAL_ERROR => {
                self.log(format_args!("client terminated stream {stream} due to internal error"));
            }
            ErrorCode(code) => {
                self.log(format_args!("client terminated stream {stream} with status {code}"));
            }
        }
    }

    fn log(&self, message: std::fmt::Arguments<'_>) {
        let (peer, listen) = (self.facts.peer.host(), &self.facts.listen);
        let text =
            format_args!("{message} while processing HTTP/2 connection, client: {peer}, server: {listen}");
        self.thread.log(&self.thread.snapshot(), Level::Info, Some(self.facts.number), text);
    }
}
