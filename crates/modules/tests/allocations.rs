//! The budget of heap allocations for a request on a connection that is kept alive: passed on it takes two; files and
//! texts of the configuration take none. The engine runs here, in one thread, with all modules; the client and the back
//! end below allocate nothing while requests are counted.

mod support;

use engine::thread::{Process, Thread};
use net::accept::Acceptor;
use net::log::file::LogFiles;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Requests before counting begins: buffers grow to their size, connections to the back end are made.
const WARM_UP_REQUESTS: usize = 200;
/// Requests that are counted together.
const COUNTED_REQUESTS: usize = 100;
/// What may come of timers and the like in all of them, allocations.
const STRAY_ALLOCATIONS_MAX: usize = 2;
/// How often they are counted, until it is within the budget: a client that is kept from running for a moment is served as
/// one that rests, which takes more. What a request takes by itself shows each time.
const COUNTS_MAX: usize = 200;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_request_allocates_no_more_than_its_budget() {
    let folder = std::env::temp_dir().join(format!("allocations-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("html")).unwrap();
    std::fs::write(folder.join("html/file.txt"), "x".repeat(1_000)).unwrap();
    let origin = origin();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    serve(listener, &configuration(&folder, address, origin));
    let mut figures = String::new();
    let mut is_kept = true;
    for (path, budget) in [("/return", 0), ("/file.txt", 0), ("/app", 2)] {
        let allowed = budget * COUNTED_REQUESTS + STRAY_ALLOCATIONS_MAX;
        let count = allocations(address, path, allowed);
        is_kept &= count <= allowed;
        figures +=
            &format!("{path}: {count} in {COUNTED_REQUESTS} requests, {budget} a request are allowed\n");
    }
    println!("{figures}");
    assert!(is_kept, "allocations:\n{figures}");
    std::fs::remove_dir_all(folder).unwrap();
}

fn configuration(folder: &Path, address: SocketAddr, origin: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "events {{}}\nhttp {{\n access_log {folder}/access.log;\n keepalive_requests 1000000;\n\
         upstream app {{ server {origin}; keepalive 4; keepalive_requests 1000000; }}\n\
         server {{ listen {address}; root {folder}/html;\n  location / {{ }}\n\
         location = /return {{ return 200 hello; }}\n\
         location = /app {{ proxy_pass http://app; proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }}\n }}\n}}\n"
    )
}

/// Serves a configuration on a thread of its own, until the test ends.
fn serve(listener: TcpListener, text: &str) {
    let mut compiled = support::compiled("/etc/nginx.conf", text);
    let words: Vec<String> =
        compiled.diagnostics.iter().map(|diagnostic| format!("{diagnostic:?}")).collect();
    assert!(compiled.is_good(), "{words:?}");
    let snapshot = compiled.activate(&LogFiles::default()).unwrap();
    let process = Arc::new(Process::new(b"/etc/", b"host", "test"));
    let socket = Arc::new(OwnedFd::from(listener));
    let running = net::thread::spawn("worker", move || async move {
        let thread = Thread::new(process, snapshot.clone());
        thread.put_in_force(snapshot);
        let mut acceptor = Acceptor::new(socket).unwrap();
        let listen = Arc::new(acceptor.address().clone());
        while let Ok(accepted) = acceptor.accept().await {
            let (stream, ends) = accepted.into_stream();
            net::thread::spawn_local(engine::connection::serve(
                thread.clone(),
                stream,
                ends,
                listen.clone(),
                (),
            ));
        }
    });
    running.unwrap();
}

/// A back end that answers every request with the same bytes.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    let mut request = [0; 4096];
    // One request comes in one piece here: the gateway writes its head at once.
    while matches!(stream.read(&mut request), Ok(1..)) {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

/// How many allocations the counted requests took, all threads of this process together: the fewest of several counts, or
/// the first that are no more than `allowed`.
fn allocations(address: SocketAddr, path: &str, allowed: usize) -> usize {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n");
    let mut buffer = [0; 8192];
    let mut exchange = |count: usize| {
        for _ in 0..count {
            stream.write_all(request.as_bytes()).unwrap();
            read_answer(&mut stream, &mut buffer);
        }
    };
    exchange(WARM_UP_REQUESTS);
    let mut fewest = usize::MAX;
    for _ in 0..COUNTS_MAX {
        let region = Region::new(ALLOCATOR);
        exchange(COUNTED_REQUESTS);
        let change = region.change();
        fewest = fewest.min(change.allocations + change.reallocations);
        if fewest <= allowed {
            break;
        }
    }
    fewest
}

/// Reads one answer with a length, without allocating.
fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut length = 0;
    loop {
        let count = stream.read(&mut buffer[length..]).unwrap();
        assert!(count > 0, "the connection ended");
        length += count;
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let (_, after) = head.split_once("Content-Length: ").unwrap();
        let expected: usize = after.lines().next().unwrap().parse().unwrap();
        if body.len() == expected {
            return;
        }
    }
}
