//! Log lines: when they are written, what becomes of files that move, fill up or are named by variables.

use net::address::Address;
use net::log::file::{LogFile, LogFiles};
use net::log::syslog::{Parameters, Severity, Syslog};
use net::log::variable::{VariableLogOptions, VariableLogs};
use net::log::{Buffering, Log, Sink, flush_thread, on_failure};
use net::thread::{run, spawn_local};
use net::timer::{Deadline, Timer};
use std::cell::RefCell;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("gapura-net-logs-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the temporary folder is writable");
        Folder(path)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

/// A log whose every write arrives as one datagram, so that writes can be counted.
fn counted(buffering: Option<Buffering>) -> (Log, UnixDatagram) {
    let (sender, receiver) = UnixDatagram::pair().expect("sockets can be made");
    receiver.set_nonblocking(true).expect("it is ours");
    let file = LogFile::from_fd(b"counted", OwnedFd::from(sender));
    (Log::new(Sink::File(Arc::new(file)), buffering), receiver)
}

fn append(log: &Log, text: &[u8]) {
    log.append(|line| line.extend_from_slice(text));
}

fn next(receiver: &UnixDatagram) -> Option<String> {
    let mut buffer = vec![0; 100_000];
    let count = receiver.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

/// Lets the event loop wait once, so that its turn ends.
async fn end_of_turn() {
    Timer::new().sleep(Deadline::after(Duration::from_millis(2))).await;
}

#[test]
fn lines_of_one_turn_are_one_write() {
    let (log, receiver) = counted(None);
    run(async {
        for number in 0..5 {
            let log = log.clone();
            spawn_local(async move { append(&log, format!("line {number}").as_bytes()) });
        }
        assert_eq!(next(&receiver), None);
        end_of_turn().await;
        assert_eq!(next(&receiver).as_deref(), Some("line 0\nline 1\nline 2\nline 3\nline 4\n"));
        end_of_turn().await;
        assert_eq!(next(&receiver), None);
        append(&log, b"last words");
    });
    assert_eq!(next(&receiver).as_deref(), Some("last words\n"), "the end of the loop loses nothing");
}

#[test]
fn a_long_turn_writes_whole_lines_on_the_way() {
    let (log, receiver) = counted(None);
    let line = vec![b'x'; 999];
    for _ in 0..100 {
        append(&log, &line);
    }
    assert_eq!(next(&receiver).map(|text| text.len()), Some(65_000));
    flush_thread();
    assert_eq!(next(&receiver).map(|text| text.len()), Some(35_000));
}

#[test]
fn a_line_that_is_never_finished_leaves_the_others_whole() {
    let (log, receiver) = counted(None);
    append(&log, b"before");
    let unfinished = std::panic::AssertUnwindSafe(|| {
        log.append(|line| {
            line.extend_from_slice(b"half a l");
            append(&log, b"meanwhile");
            panic!("in the middle of a line");
        })
    });
    assert!(std::panic::catch_unwind(unfinished).is_err());
    append(&log, b"behind");
    flush_thread();
    assert_eq!(next(&receiver).as_deref(), Some("before\nmeanwhile\nbehind\n"));
}

#[test]
fn a_thread_that_ends_leaves_nothing_behind() {
    let (log, receiver) = counted(Some(Buffering { bytes_max: 4096, flush: None, gzip_level: None }));
    std::thread::spawn(move || append(&log, b"short life")).join().expect("it does not panic");
    assert_eq!(next(&receiver).as_deref(), Some("short life\n"));
}

#[test]
fn buffers_hold_lines_until_they_are_full_or_their_time_is_over() {
    let kept_for = |flush| counted(Some(Buffering { bytes_max: 10, flush: Some(flush), gzip_level: None }));
    run(async {
        let (log, receiver) = kept_for(Duration::from_secs(3600));
        append(&log, b"four");
        end_of_turn().await;
        assert_eq!(next(&receiver), None);
        append(&log, b"9");
        append(&log, b"fifth");
        assert_eq!(next(&receiver).as_deref(), Some("four\n9\n"), "the next would not have fitted");
        append(&log, b"longer than it all");
        assert_eq!(next(&receiver).as_deref(), Some("fifth\n"));
        assert_eq!(next(&receiver).as_deref(), Some("longer than it all\n"));
        let (log, receiver) = kept_for(Duration::from_millis(20));
        append(&log, b"late");
        let written = Deadline::after(Duration::from_secs(60));
        let mut timer = Timer::new();
        loop {
            if let Some(text) = next(&receiver) {
                assert_eq!(text, "late\n");
                break;
            }
            assert!(!written.has_passed(), "the flush time writes it");
            timer.sleep(Deadline::after(Duration::from_millis(1))).await;
        }
    });
}

#[test]
fn compressed_logs_can_be_read_from_any_write_on() {
    let folder = Folder::new("gzip");
    let path = folder.0.join("a.gz");
    let file = Arc::new(LogFile::open(bytes(&path)).expect("it can be made"));
    let buffering = Buffering { bytes_max: 100, flush: None, gzip_level: Some(6) };
    let log = Log::new(Sink::File(file), Some(buffering));
    let lines: Vec<String> = (0..50).map(|number| format!("GET /{number} 200")).collect();
    lines.iter().for_each(|line| append(&log, line.as_bytes()));
    flush_thread();
    let compressed = std::fs::read(&path).expect("it was written");
    assert!(compressed.windows(3).filter(|bytes| *bytes == b"\x1f\x8b\x08").count() > 1, "several members");
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(&compressed[..]).read_to_string(&mut text).expect("it is gzip");
    assert_eq!(text, lines.join("\n") + "\n");
}

#[test]
fn a_moved_file_is_followed_until_it_is_opened_anew() {
    let folder = Folder::new("rotate");
    let path = folder.0.join("a.log");
    let files = LogFiles::default();
    let file = files.open(bytes(&path)).expect("it can be made");
    assert!(Arc::ptr_eq(&file, &files.open(bytes(&path)).expect("open already")), "one file per path");
    let log = Log::to_file(file);
    let line = |text: &str| {
        append(&log, text.as_bytes());
        flush_thread();
    };
    line("one");
    std::fs::rename(&path, folder.0.join("a.log.1")).expect("it is ours");
    line("two");
    assert!(files.reopen().is_empty());
    line("three");
    assert_eq!((folder.text("a.log.1"), folder.text("a.log")), ("one\ntwo\n".into(), "three\n".into()));

    let other = LogFile::open(bytes(&folder.0.join("b.log"))).expect("it can be made");
    files.adopt(bytes(&path), other.duplicate().expect("descriptors are left"));
    line("four");
    assert_eq!(folder.text("b.log"), "four\n");

    std::fs::remove_dir_all(&folder.0).expect("it is ours");
    let failures = files.reopen();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].1.to_string(), "open() failed (2: No such file or directory)");
}

#[test]
fn a_full_disk_is_reported_once_and_stops_nothing() {
    let full = Log::to_file(Arc::new(LogFile::open(b"/dev/full").expect("Linux has it")));
    let (error_log, receiver) = counted(None);
    let reports = Rc::new(RefCell::new(0));
    let count = reports.clone();
    on_failure(move |failure| {
        *count.borrow_mut() += 1;
        append(&error_log, failure.to_string().as_bytes());
    });
    run(async {
        for _ in 0..3 {
            append(&full, b"lost");
            end_of_turn().await;
        }
    });
    let expected = "write() to \"/dev/full\" failed (28: No space left on device) while logging request\n";
    assert_eq!(next(&receiver).as_deref(), Some(expected), "written in the turn in which it failed");
    assert_eq!(*reports.borrow(), 1);
}

#[test]
fn syslog_gets_one_datagram_per_line() {
    let server = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback exists");
    server.set_read_timeout(Some(Duration::from_secs(5))).expect("it is ours");
    let address: Address = server.local_addr().expect("bound").into();
    let parameters = Parameters::parse(b"server=x,facility=user,tag=app,nohostname").expect("complete");
    let log = Log::new(Sink::Syslog(Syslog::new(address, parameters.clone())), None);
    let receive = || {
        let mut buffer = [0; 256];
        let count = server.recv(&mut buffer).expect("it was sent");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    append(&log, b"GET / 200");
    let message = receive();
    assert!(message.starts_with("<14>") && message.ends_with(" app: GET / 200"), "{message}");
    log.append_with_severity(b"oh no", Severity::Crit);
    assert!(receive().starts_with("<10>"));

    let folder = Folder::new("syslog");
    let path = folder.0.join("log");
    let log = Log::new(Sink::Syslog(Syslog::new(Address::unix(bytes(&path)), parameters)), None);
    let failures = Rc::new(RefCell::new(Vec::new()));
    let told = failures.clone();
    on_failure(move |failure| told.borrow_mut().push((failure.severity, failure.to_string())));
    let tail = format!("while logging to syslog, server: unix:{}", path.display());
    append(&log, b"nobody listens");
    let missing = format!("connect() failed (2: No such file or directory) {tail}");
    assert_eq!(*failures.borrow(), [(Severity::Alert, missing)]);
    let server = UnixDatagram::bind(&path).expect("the folder is writable");
    append(&log, b"now it does");
    assert!(next(&server).expect("it was sent").ends_with("now it does"));
    drop(server);
    append(&log, b"no more");
    let gone = format!("send() failed (111: Connection refused) {tail}");
    assert_eq!(failures.borrow()[1..], [(Severity::Error, gone)]);
}

#[test]
fn paths_with_variables_share_openings_for_the_turn_or_by_the_cache() {
    let folder = Folder::new("variable");
    let path = folder.0.join("a.log");
    run(async {
        let mut logs = VariableLogs::new(None);
        for text in ["one", "two"] {
            append(&logs.open(bytes(&path)).expect("it can be made"), text.as_bytes());
        }
        assert_eq!(logs.len(), 1);
        end_of_turn().await;
        std::fs::rename(&path, folder.0.join("old")).expect("it is ours");
        append(&logs.open(bytes(&path)).expect("it can be made"), b"three");
        end_of_turn().await;
        assert_eq!((folder.text("old"), folder.text("a.log")), ("one\ntwo\n".into(), "three\n".into()));
        logs.expire();
        assert!(logs.is_empty());

        let options = VariableLogOptions {
            entries_max: 2,
            inactive: Duration::from_secs(60),
            valid: Duration::ZERO,
            uses_min: 1,
        };
        let mut logs = VariableLogs::new(Some(options));
        append(&logs.open(bytes(&path)).expect("it can be made"), b"four");
        end_of_turn().await;
        append(&logs.open(bytes(&path)).expect("unchanged"), b"five");
        end_of_turn().await;
        std::fs::remove_file(&path).expect("it is ours");
        append(&logs.open(bytes(&path)).expect("made again"), b"six");
        end_of_turn().await;
        assert_eq!(folder.text("a.log"), "six\n");
        for name in ["b.log", "c.log"] {
            append(&logs.open(bytes(&folder.0.join(name))).expect("it can be made"), name.as_bytes());
        }
        assert_eq!(logs.len(), 2);
        let missing = logs.open(bytes(&folder.0.join("none/a.log"))).err().expect("no such folder");
        assert_eq!(missing.to_string(), "open() failed (2: No such file or directory)");
    });
}
