//! What goes through the gateway, read from its access log as it grows.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

const READ_BYTES_MAX: usize = 256 * 1024;
const LINE_BYTES_MAX: usize = 16 * 1024;

/// One request, as the log tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Hours, minutes, seconds.
    pub time: String,
    /// The name asked for.
    pub host: String,
    /// The status code, as written.
    pub status: String,
    /// Seconds, as written.
    pub took: String,
    /// The servers that were tried, in order; the last one answered.
    pub tried: Vec<String>,
    /// The request line.
    pub request: String,
}

/// The log and how far it has been read.
pub struct Log {
    path: PathBuf,
    file: Option<File>,
    rest: Vec<u8>,
}

impl Log {
    /// Follows the log from its end.
    pub fn follow(path: &Path) -> Log {
        let mut log = Log { path: path.to_owned(), file: None, rest: Vec::new() };
        log.file = File::open(path).ok();
        if let Some(file) = &mut log.file {
            let _ = file.seek(SeekFrom::End(0));
        }
        log
    }

    /// The requests written since the last call, at most a few thousand; the next call gives more.
    pub fn news(&mut self) -> Vec<Seen> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return Vec::new() };
        // Somebody emptied it: begin again.
        if file.stream_position().ok() > file.metadata().ok().map(|found| found.len()) {
            let _ = file.rewind();
        }
        let before = self.rest.len();
        self.rest.resize(before + READ_BYTES_MAX, 0);
        let count = file.read(&mut self.rest[before..]).unwrap_or(0);
        self.rest.truncate(before + count);
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else {
            if self.rest.len() > LINE_BYTES_MAX {
                self.rest.clear();
            }
            return Vec::new();
        };
        let text = String::from_utf8_lossy(&self.rest[..end]).into_owned();
        self.rest.drain(..=end);
        text.lines().filter_map(seen).collect()
    }
}

/// A line of the demo's `log_format`. A line of another format is passed over.
fn seen(line: &str) -> Option<Seen> {
    let (head, rest) = line.split_once(" \"")?;
    let (tried, request) = rest.split_once("\" ")?;
    let mut words = head.split(' ');
    let time = words.next()?.get(11..19)?;
    let [host, status, took] = [words.next()?, words.next()?, words.next()?];
    // A comma goes between the tries in one group, a colon between groups; "-" stands for none.
    let tried = tried.split([' ', ',']).filter(|word| !matches!(*word, "" | ":" | "-"));
    Some(Seen {
        time: time.to_owned(),
        host: host.to_owned(),
        status: status.to_owned(),
        took: took.to_owned(),
        tried: tried.map(str::to_owned).collect(),
        request: request.to_owned(),
    })
}

impl Seen {
    /// Whether the visitor got what was asked for, as far as the servers are concerned.
    pub fn is_good(&self) -> bool {
        !self.status.starts_with('5')
    }

    /// Whether the server at this address gave the answer.
    pub fn is_from(&self, address: SocketAddr) -> bool {
        self.tried.last().is_some_and(|last| *last == address.to_string())
    }

    /// Path and method alone, in at most `columns` characters.
    pub fn short_request(&self, columns: usize) -> String {
        let shown = self.request.rsplit_once(" HTTP/").map_or(self.request.as_str(), |(line, _)| line);
        shown.chars().filter(|character| !character.is_control()).take(columns).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let time = "2026-11-23T10:00:01+00:00";
        let line = format!(
            "{time} loadbalance.localhost 200 0.002 \"127.0.0.2:3000, 127.0.0.3:3000\" GET /a HTTP/1.1"
        );
        let request = seen(&line).unwrap();
        assert_eq!(request.time, "10:00:01");
        assert_eq!(request.host, "loadbalance.localhost");
        assert_eq!(request.tried, ["127.0.0.2:3000", "127.0.0.3:3000"]);
        assert!(request.is_from("127.0.0.3:3000".parse().unwrap()));
        assert!(!request.is_from("127.0.0.2:3000".parse().unwrap()));
        assert_eq!(request.short_request(80), "GET /a");
        assert_eq!(request.short_request(3), "GET");
        assert!(request.is_good());
        assert!(!seen(&line.replace(" 200 ", " 502 ")).unwrap().is_good());
        assert_eq!(seen(&format!("{time} a 404 0.000 \"-\" GET / HTTP/1.1")).unwrap().tried, [""; 0]);
    }

    #[test]
    fn other_formats_are_passed_over() {
        for line in
            ["", "x", "127.0.0.1 - - [x] \"GET / HTTP/1.1\" 200 1 \"-\" \"curl\"", "short h 200 1 \"-\" GET"]
        {
            assert_eq!(seen(line), None, "{line}");
        }
    }

    #[test]
    fn follows_a_growing_file_line_by_line() {
        use std::io::Write;
        let path = std::env::temp_dir().join(format!("gapura-demo-log-{}", std::process::id()));
        std::fs::write(&path, "old\n").unwrap();
        let mut log = Log::follow(&path);
        let mut file = File::options().append(true).open(&path).unwrap();
        let line = "2026-11-23T10:00:01+00:00 a 200 0.0 \"-\" GET / HTTP/1.1";
        for (written, count) in [("", 0), (&line[..20], 0), (&line[20..], 0), ("\n", 1), ("junk\n", 0)] {
            file.write_all(written.as_bytes()).unwrap();
            assert_eq!(log.news().len(), count, "{written}");
        }
        file.set_len(0).unwrap();
        writeln!(file, "{line}").unwrap();
        assert_eq!(log.news().len(), 1, "emptied");
        std::fs::remove_file(&path).unwrap();
    }
}
