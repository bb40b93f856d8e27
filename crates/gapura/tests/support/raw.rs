//! Bytes as they are, both ways, and what must be true of the server after whatever was sent to it.

use super::origin::End;
use super::server::{PATIENCE, Server};
use super::wait_for;
use rustix::net;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Most of an answer that is read, bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// What is open and who serves, before anything bad happened.
pub struct Before {
    /// The worker.
    pub worker: u32,
    files: usize,
}

/// How many descriptors a process holds.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

impl Before {
    /// Looks.
    pub fn of(server: &Server) -> Before {
        let worker = server.worker();
        Before { worker, files: open_files(worker) }
    }

    /// The same worker still serves and holds nothing more; nothing alarming was logged, no file is left.
    pub fn is_after(&self, server: &Server) {
        assert_eq!(server.body(8080), "a");
        assert_eq!(server.worker(), self.worker, "{}", server.log());
        // Connections to back ends are kept for a while, at most a few of them.
        let kept_max = 4;
        let no_more = || (open_files(self.worker) <= self.files + kept_max).then_some(());
        wait_for("what was open is closed", PATIENCE, no_more);
        for word in ["panicked", "[alert]", "[emerg]"] {
            assert!(!server.log().contains(word), "{}", server.log());
        }
        for folder in ["body", "proxy"] {
            let files = fs::read_dir(server.path(folder)).map_or(0, Iterator::count);
            assert_eq!(files, 0, "files left in {folder}");
        }
    }
}

/// Sends bytes and reads all that comes until the server closes, as text.
pub fn ask(server: &Server, bytes: &[u8], more: End) -> String {
    let mut stream = TcpStream::connect_timeout(&server.address(8080), PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // The server may refuse before it has read all.
    let _ = stream.write_all(bytes);
    match more {
        End::Close => drop(stream.shutdown(Shutdown::Write)),
        End::Reset => {
            net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            return String::new();
        }
        End::Silence | End::KeepAlive => {}
    }
    let mut answer = Vec::new();
    if let Err(error) = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer) {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]);
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "no end within {PATIENCE:?}: {shown:?}"
        );
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of an answer, 0 where there is none.
pub fn status(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
}

/// The body of an answer.
pub fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// Asks with GET, once.
pub fn get(server: &Server, path: &str) -> String {
    ask(
        server,
        format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").as_bytes(),
        End::Silence,
    )
}
