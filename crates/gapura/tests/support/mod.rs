//! What the end-to-end tests share: the server under test as a process, real applications behind it, an HTTP client
//! that counts, and hosts in network namespaces.
//!
//! The server is the `gapura` that cargo built; `GATEWAY=/usr/sbin/nginx` runs the same test on another server that
//! reads the same configuration, which is how the tests themselves are proved.

#![allow(dead_code)] // every test file uses a part of it

pub mod client;
pub mod gateway;
pub mod hosts;
pub mod issuers;
pub mod load;
pub mod origin;
pub mod pebble;
pub mod raw;
pub mod server;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

/// A folder of this test run's own, removed when dropped, kept when the test fails.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes a new folder whose name starts with `name`.
    pub fn new(name: &str) -> Folder {
        let nanoseconds =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        let path = std::env::temp_dir().join(format!("{name}-{}-{nanoseconds}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the files of this run are kept in {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// The folder of the example whose application and configuration the tests run.
pub fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/three-servers")
}

/// Asks `ready` every 20 ms until it gives a value; panics with `what` after `patience`.
pub fn wait_for<T>(what: &str, patience: Duration, ready: impl FnMut() -> Option<T>) -> T {
    try_for(patience, ready).unwrap_or_else(|| panic!("waited {patience:?} in vain: {what}"))
}

/// Asks `ready` every 20 ms until it gives a value; none after `patience`.
pub fn try_for<T>(patience: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        // Looked at once more behind the end: this may have slept for longer than it wished to.
        let is_over = Instant::now() > deadline;
        if let Some(value) = ready() {
            return Some(value);
        }
        if is_over {
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The first three numbers of loopback addresses that no other process of tests uses; `kind`, a multiple of 64, keeps
/// those of one process apart.
pub fn own_network(kind: u32) -> String {
    let process = std::process::id();
    format!("127.{}.{}", kind + process % 64, process / 64 % 256)
}

/// A port on which nothing listens, below the range that the system hands out by itself: nobody gets it meanwhile who
/// does not ask for it.
pub fn free_port() -> u16 {
    let first = 20_000 + std::process::id() % 10_000;
    let free = (first..first + 1_000).find_map(|port| {
        let port = u16::try_from(port).ok()?;
        std::net::TcpListener::bind(("0.0.0.0", port)).is_ok().then_some(port)
    });
    free.expect("one of a thousand ports is free")
}

/// The text of a file, or nothing when it cannot be read.
pub fn text_of(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// True in continuous integration, where nothing may be skipped.
pub fn nothing_may_be_skipped() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// Are curl and OpenSSL missing, which ask over TLS here? Where nothing may be left out, they must be there.
pub fn clients_are_missing() -> bool {
    let missing = !is_installed("curl") || !is_installed("openssl");
    assert!(!missing || !nothing_may_be_skipped(), "curl and openssl are needed");
    if missing {
        println!("LEFT OUT: install curl and openssl");
    }
    missing
}

/// Runs a program in a folder, for a minute at most, and gives what it wrote, both streams.
pub fn run(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new("timeout");
    let command = command.args(["60", program]).args(arguments).current_dir(folder);
    let output = command.stdin(std::process::Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Whether a program can be started at all.
pub fn is_installed(program: &str) -> bool {
    let probe = std::process::Command::new(program)
        .arg("--version")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    !matches!(probe, Err(error) if error.kind() == io::ErrorKind::NotFound)
}
