//! The budget of system calls: what a request on a connection that is kept alive may cost the worker, counted by
//! strace. Waiting (`epoll_wait`) is not counted: under load one serves many requests.

mod support;

use rustix::process::Signal;
use std::fs;
use std::process::{Command, Stdio};
use support::gateway::send;
use support::origin::{End, Origin};
use support::server::{PATIENCE, Server};
use support::{is_installed, nothing_may_be_skipped, text_of, wait_for};

/// Requests that are counted.
const COUNTED_REQUESTS: u64 = 500;
/// Calls that come of timers and of the tracer, in all of them.
const STRAY_CALLS_MAX: u64 = 50;

#[test]
fn a_request_makes_no_more_calls_than_its_budget() {
    if !can_trace() {
        assert!(!nothing_may_be_skipped(), "this must run under CI=true, but strace may not look here");
        return eprintln!("skipped: strace is not here or may not look");
    }
    let origin = Origin::start();
    let number = origin.reply("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", End::KeepAlive);
    let conf = format!(
        "error_log error.log info; pid nginx.pid; worker_processes 1; events {{}}\n\
         http {{ access_log off; keepalive_requests 100000; upstream app {{ server {}; keepalive 4; }}\n\
         server {{ listen %HOST%:8080; root html; location / {{ }}\n\
         location /cached/ {{ alias html/; open_file_cache max=10; }} location = /return {{ return 200 a; }}\n\
         location /app/ {{ proxy_pass http://app; }} }} }}\n",
        origin.address
    );
    let server = Server::new("nginx", &conf);
    fs::create_dir(server.path("html")).unwrap();
    fs::write(server.path("html/file.txt"), "x".repeat(1_000)).unwrap();
    fs::write(server.path("html/large.txt"), "x".repeat(100_000)).unwrap();
    server.start();
    // Reading and writing; a file is read besides, and where it is not kept open, opened, asked for its size and closed.
    // One too large to leave with its head takes as many.
    let app = format!("/app/{number}");
    for (path, budget) in
        [("/return", 2), ("/cached/file.txt", 3), ("/file.txt", 6), ("/large.txt", 6), (&app, 4)]
    {
        let calls = calls(&server, path);
        let total: u64 = calls.iter().map(|(_, count)| count).sum();
        assert!(
            total <= budget * COUNTED_REQUESTS + STRAY_CALLS_MAX,
            "{path}: {total} calls in {COUNTED_REQUESTS} requests, {budget} a request are allowed: {calls:?}"
        );
        // Nothing was missed either: each request is read and answered at least. The last answer may be here before its
        // call has ended, which is when strace counts it.
        assert!(total + 1 >= 2 * COUNTED_REQUESTS, "{path}: {calls:?}");
    }
}

fn can_trace() -> bool {
    is_installed("strace")
        && Command::new("strace")
            .args(["-c", "-o", "/dev/null", "true"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

/// The worker's calls by name while it serves the counted requests.
fn calls(server: &Server, path: &str) -> Vec<(String, u64)> {
    let mut client = server.connect(8080);
    let mut ask = |count| {
        for _ in 0..count {
            assert_eq!(client.get("test", path).unwrap().status, 200, "{path}");
        }
    };
    ask(20);
    let worker = server.worker();
    let table = server.path("calls");
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&table)
        .args(["-p", &worker.to_string()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let threads =
        || fs::read_dir(format!("/proc/{worker}/task")).unwrap().flatten().map(|entry| entry.path());
    let is_traced = || {
        let all = threads().all(|thread| {
            let status = text_of(&thread.join("status"));
            status.lines().any(|line| line == format!("TracerPid:\t{}", strace.id()))
        });
        all.then_some(())
    };
    wait_for("strace looks at all threads", PATIENCE, is_traced);
    ask(COUNTED_REQUESTS);
    send(strace.id(), Signal::INT).unwrap();
    strace.wait().unwrap();
    let lines = text_of(&table);
    let calls = lines.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // Builds for tests ask before they close a file whether it is open, with fcntl. With write, which no connection
        // uses, the runtime wakes itself when it sets a timer: as often as milliseconds pass, not requests.
        let is_counted =
            |name: &&&str| !matches!(**name, "total" | "epoll_wait" | "epoll_pwait" | "fcntl" | "write");
        let name = words.last().filter(is_counted)?;
        Some(((*name).to_owned(), words.get(3)?.parse().ok()?))
    });
    calls.collect()
}
