//! Where log lines go.
//!
//! nginx makes one `write` for every line. Here each thread collects the lines of one turn of its event loop
//! per log and writes them with one call when the turn ends, or when 64 KB have come together; the
//! file is opened with `O_APPEND`, so that lines of several threads and processes stay whole. `buffer=`,
//! `flush=` and `gzip=` keep lines longer, as in nginx; messages of error logs are written at once. What a thread
//! still holds is written when its event loop ends, when the thread ends, and by [`flush_thread`].
//!
//! A log that cannot be written never stops anything: the lines are lost, a full disk is left alone for the
//! rest of the second, and the failure is told to [`on_failure`]'s receiver, once a minute per log.

pub mod file;
pub mod syslog;
pub mod variable;

use crate::clock;
use crate::errno::{Errno, ErrnoMessage};
use crate::thread;
use crate::timer::{Deadline, Timer};
use file::LogFile;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use syslog::{Severity, Syslog};

/// At how many bytes the lines of one turn are written before its end.
const TURN_BYTES_MAX: usize = 64 * 1024;

/// Most lines have no more than this.
const LINE_BYTES_USUAL: usize = 512;

/// Seconds between two reports of failure for one log.
const REPORT_SECONDS: i64 = 60;

/// One log of the configuration. Copies share it; any thread may write.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

struct Shared {
    sink: Sink,
    buffering: Option<Buffering>,
}

/// Where the lines of a log end.
pub enum Sink {
    /// A file, or something that looks like one.
    File(Arc<LogFile>),
    /// The process's standard error, whatever that is at the time of writing.
    Stderr,
    /// Datagrams to a syslog server; lines are sent at once.
    Syslog(Syslog),
}

/// nginx's `buffer=`, `flush=` and `gzip=`; for files only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffering {
    /// Lines are kept until the next would not fit.
    pub bytes_max: usize,
    /// Lines are kept no longer than this.
    pub flush: Option<Duration>,
    /// What is written is compressed first, 1 to 9; each write is a gzip member of its own.
    pub gzip_level: Option<u32>,
}

/// A log that could not be written. Displayed in nginx's words, with the error number:
/// `write() to "/var/log/a.log" failed (28: No space left on device) while logging request`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFailure {
    /// The call and its object, `write() to "/var/log/a.log"`.
    pub what: String,
    /// What failed.
    pub errno: Errno,
    /// When: `while logging request`.
    pub during: String,
    /// How grave nginx takes it.
    pub severity: Severity,
}

impl fmt::Display for LogFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} failed ({}) {}", self.what, ErrnoMessage(self.errno), self.during)
    }
}

impl Log {
    /// A log that writes as described above; with buffering, lines wait longer.
    pub fn new(sink: Sink, buffering: Option<Buffering>) -> Log {
        Log(Arc::new(Shared { sink, buffering }))
    }

    /// A log into a file, without buffering beyond the turn.
    pub fn to_file(file: Arc<LogFile>) -> Log {
        Log::new(Sink::File(file), None)
    }

    /// Adds a line: `write` appends it to the lines of this turn, without the line feed at its end. Syslog gets it with the
    /// severity of the configuration.
    pub fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        if let Sink::Syslog(syslog) = &self.0.sink {
            let mut line = Vec::with_capacity(LINE_BYTES_USUAL);
            write(&mut line);
            if let Err(failure) = syslog.send(&line, None) {
                report(vec![failure]);
            }
            return;
        }
        let mut lent = Lent::of(&self.0);
        write(&mut lent.lines);
        lent.lines.push(b'\n');
        lent.whole_bytes = lent.lines.len();
    }

    /// Writes a line that carries a severity of its own, as error-log messages do. It goes out at once: it may be
    /// the last one, and whoever got an error as an answer looks for its reason now.
    pub fn append_with_severity(&self, line: &[u8], severity: Severity) {
        let written = match &self.0.sink {
            Sink::Syslog(syslog) => syslog.send(line, Some(severity)),
            Sink::File(_) | Sink::Stderr => self.0.write(&[line, b"\n"].concat()),
        };
        if let Err(failure) = written {
            report(vec![failure]);
        }
    }

    /// The file behind it, if it is one.
    pub fn file(&self) -> Option<&Arc<LogFile>> {
        match &self.0.sink {
            Sink::File(file) => Some(file),
            _ => None,
        }
    }
}

impl Shared {
    /// Writes what was there before the last line, and the line as well where it does not fit alone.
    #[cold]
    fn make_room(&self, lines: &mut Vec<u8>, earlier_bytes: usize, bytes_max: usize) {
        let mut failures = Vec::new();
        if earlier_bytes > 0 {
            failures.extend(self.write(&lines[..earlier_bytes]).err());
            lines.drain(..earlier_bytes);
        }
        if lines.len() > bytes_max {
            failures.extend(self.write(lines).err());
            lines.clear();
        }
        lines.shrink_to(TURN_BYTES_MAX);
        report(failures);
    }

    fn write(&self, bytes: &[u8]) -> Result<(), LogFailure> {
        match (&self.sink, self.buffering.and_then(|buffering| buffering.gzip_level)) {
            (Sink::File(file), None) => file.write(bytes),
            (Sink::File(file), Some(level)) => file.write(&gzip(bytes, level)),
            (Sink::Stderr, _) => {
                // There is nowhere left to tell that it failed.
                let _ = file::write_all(rustix::stdio::stderr(), bytes);
                Ok(())
            }
            // Sent line by line when appended.
            (Sink::Syslog(_), _) => Ok(()),
        }
    }
}

fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let compressed = Vec::with_capacity(bytes.len() / 4 + 64);
    let mut encoder = flate2::write::GzEncoder::new(compressed, flate2::Compression::new(level));
    // Writing into a Vec cannot fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

/// Writes everything this thread holds, buffered or not.
pub fn flush_thread() {
    let _ = BUFFERS.try_with(|buffers| {
        let failures = buffers.borrow_mut().flush(Which::All);
        report(failures);
    });
}

/// Calls the receiver on this thread whenever a log could not be written; it may log. One receiver per thread,
/// the last one counts.
pub fn on_failure(receiver: impl Fn(&LogFailure) + 'static) {
    RECEIVER.set(Some(Rc::new(receiver)));
}

/// A turn of the event loop ends: its lines go out. Also called before a connection is closed, so that
/// who sees its end finds its lines in the logs.
pub fn turn_ended() {
    if !IS_DIRTY.get() {
        return;
    }
    IS_DIRTY.set(false);
    let _ = BUFFERS.try_with(|buffers| {
        let failures = buffers.borrow_mut().flush(Which::OfTurn);
        if !failures.is_empty() {
            report(failures);
            // What the receiver logged goes out in this turn as well; its own failures are not reported.
            buffers.borrow_mut().flush(Which::OfTurn);
        }
    });
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = const { RefCell::new(Buffers { buffers: Vec::new() }) };
    static IS_DIRTY: Cell<bool> = const { Cell::new(false) };
    static RECEIVER: RefCell<Option<Receiver>> = const { RefCell::new(None) };
    static IS_REPORTING: Cell<bool> = const { Cell::new(false) };
}

type Receiver = Rc<dyn Fn(&LogFailure)>;

/// Tells the receiver, who may log in turn; what fails then is not told, or it would never end.
fn report(failures: Vec<LogFailure>) {
    if failures.is_empty() || IS_REPORTING.replace(true) {
        return;
    }
    let receiver = RECEIVER.try_with(|receiver| receiver.borrow().clone()).ok().flatten();
    if let Some(receiver) = receiver {
        failures.iter().for_each(|failure| receiver(failure));
    }
    IS_REPORTING.set(false);
}

/// What one thread holds of all logs.
struct Buffers {
    buffers: Vec<Buffer>,
}

struct Buffer {
    log: Arc<Shared>,
    lines: Vec<u8>,
    /// A task will write the buffer in time.
    has_flusher: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    OfTurn,
    All,
}

/// The lines that this thread holds of a log, while another is added: nothing that happens meanwhile finds them in use, and
/// they are kept without it if its writer panics.
struct Lent<'a> {
    log: &'a Arc<Shared>,
    lines: Vec<u8>,
    /// What was there before.
    earlier_bytes: usize,
    /// What is there of whole lines.
    whole_bytes: usize,
}

impl Lent<'_> {
    fn of(log: &Arc<Shared>) -> Lent<'_> {
        let lines = BUFFERS.try_with(|buffers| std::mem::take(&mut buffers.borrow_mut().of(log).lines));
        // Without its buffers the thread is ending.
        let lines = lines.unwrap_or_default();
        Lent { log, earlier_bytes: lines.len(), whole_bytes: lines.len(), lines }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.truncate(self.whole_bytes);
        let bytes_max = self.log.buffering.map_or(TURN_BYTES_MAX, |buffering| buffering.bytes_max);
        if lines.len() > bytes_max {
            self.log.make_room(&mut lines, self.earlier_bytes, bytes_max);
        }
        let log = self.log;
        let kept = BUFFERS.try_with(|buffers| buffers.borrow_mut().of(log).take_back(log, &mut lines));
        if kept.is_err() {
            // The thread is ending and its buffers are gone.
            let _ = log.write(&lines);
        }
    }
}

impl Buffers {
    fn of(&mut self, log: &Arc<Shared>) -> &mut Buffer {
        let at = self.buffers.iter().position(|buffer| Arc::ptr_eq(&buffer.log, log));
        let at = at.unwrap_or_else(|| {
            self.buffers.push(Buffer { log: log.clone(), lines: Vec::new(), has_flusher: false });
            self.buffers.len() - 1
        });
        &mut self.buffers[at]
    }

    fn flush(&mut self, which: Which) -> Vec<LogFailure> {
        let mut failures = Vec::new();
        self.buffers.retain_mut(|buffer| {
            // A log that only this still holds has left the configuration.
            let is_last = Arc::strong_count(&buffer.log) == 1;
            if buffer.log.buffering.is_none() || which == Which::All || is_last {
                failures.extend(buffer.write());
            }
            !is_last
        });
        failures
    }
}

impl Buffer {
    fn take_back(&mut self, log: &Arc<Shared>, lines: &mut Vec<u8>) {
        lines.append(&mut self.lines);
        self.lines = std::mem::take(lines);
        IS_DIRTY.set(true);
        if let Some(Buffering { flush: Some(after), .. }) = log.buffering
            && !self.has_flusher
            && !self.lines.is_empty()
        {
            self.has_flusher = begin_flusher(log, after);
        }
    }

    fn write(&mut self) -> Option<LogFailure> {
        if self.lines.is_empty() {
            return None;
        }
        let result = self.log.write(&self.lines);
        self.lines.clear();
        self.lines.shrink_to(TURN_BYTES_MAX);
        result.err()
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        let failures = self.flush(Which::All);
        report(failures);
    }
}

#[cold]
fn begin_flusher(log: &Arc<Shared>, after: Duration) -> bool {
    thread::try_spawn_local(flush_later(log.clone(), after))
}

/// Writes one log's buffer of this thread after a while. It holds the log meanwhile: that is no longer than the
/// lines were to be kept anyway.
async fn flush_later(log: Arc<Shared>, after: Duration) {
    Timer::new().sleep(Deadline::after(after)).await;
    let _ = BUFFERS.try_with(|buffers| {
        let mut failures = Vec::new();
        for buffer in &mut buffers.borrow_mut().buffers {
            if Arc::ptr_eq(&buffer.log, &log) {
                buffer.has_flusher = false;
                failures.extend(buffer.write());
            }
        }
        report(failures);
    });
}

/// Seconds since 1970, for the bounds on trying and reporting.
fn now_seconds() -> i64 {
    clock::wall().seconds
}
