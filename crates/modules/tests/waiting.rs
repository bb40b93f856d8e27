//! What a connection costs while it waits for a request: a budget in bytes. Ten thousand of them are usual.

mod support;

use engine::thread::{Process, Thread};
use net::accept::Acceptor;
use net::connect::{ConnectOptions, connect};
use net::timer::Deadline;
use std::sync::Arc;
use std::time::Duration;

/// The most that a connection's task may hold, bytes.
const TASK_BYTES_MAX: usize = 232;

#[test]
fn the_task_of_a_connection_is_small() {
    let compiled = support::compiled("nginx.conf", "events {} http { server { listen 127.0.0.1:80; } }");
    let snapshot: Arc<engine::Snapshot> = compiled.snapshot.expect("the configuration is good").into();
    net::thread::run(async move {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback exists");
        let address = listener.local_addr().expect("it is bound").into();
        let mut acceptor = Acceptor::new(Arc::new(listener.into())).expect("it is watched");
        let soon = Deadline::after(Duration::from_secs(10));
        let _client = connect(&address, &ConnectOptions::default(), soon).await.expect("someone listens");
        let accepted = acceptor.accept().await.expect("a connection waits");
        let (stream, ends) = accepted.into_stream();
        let thread = Thread::new(Arc::new(Process::new(b"/", b"host", "gapura")), snapshot);
        let serving = engine::connection::serve(thread, stream, ends, Arc::new(address), 0_u64);
        let bytes = size_of_val(&serving);
        assert!(bytes <= TASK_BYTES_MAX, "{bytes} bytes");
    });
}
