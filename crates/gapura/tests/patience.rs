//! A slow application is not a dead host: its request is neither taken away from it nor sent a second time, as long as
//! its machine answers. (That a dead host is passed over soon is shown in `three_servers.rs`.)

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::client::Connection;
use support::gateway::Gateway;
use support::server::PATIENCE;
use support::{Folder, free_port, wait_for};

/// Longer than a dead host is waited for.
const SLOW: Duration = Duration::from_secs(4);
const UPLOAD_BYTES: usize = 8 << 20;

/// An application that does nothing at all for a while, then reads a request and answers.
fn slow_application(requests: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let requests = requests.clone();
            thread::spawn(move || {
                requests.fetch_add(1, Ordering::Relaxed);
                thread::sleep(SLOW);
                let mut reader = BufReader::new(stream);
                let (mut line, mut length) = (String::new(), 0);
                while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                if reader.read_exact(&mut body).is_err() {
                    return; // the gateway has not waited; the count tells
                }
                let text = format!("{length}");
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
                let _ = reader.into_inner().write_all((head + &text).as_bytes());
            });
        }
    });
    address
}

#[test]
fn a_slow_application_keeps_its_request() {
    let folder = Folder::new("gapura-patience");
    let gateway = Gateway::new(folder.path().join("gateway"), Vec::new());
    let requests = Arc::new(AtomicUsize::new(0));
    let applications = [slow_application(requests.clone()), slow_application(requests.clone())];
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    gateway.write(
        "nginx.conf",
        &format!(
            "pid logs/gapura.pid; error_log logs/error.log info; events {{ }}
             http {{
                 upstream both {{ server {}; server {}; }}
                 server {{
                     listen {address};
                     client_max_body_size 16m;
                     location / {{ proxy_pass http://both; }}
                 }}
             }}\n",
            applications[0], applications[1]
        ),
    );
    let _master = gateway.start();
    wait_for("the gateway listens", PATIENCE, || Connection::open(address, PATIENCE).ok());

    let ask = |method: &'static str, length: usize| {
        thread::spawn(move || {
            let mut connection = Connection::open(address, PATIENCE).unwrap();
            let asked = Instant::now();
            let head = format!("{method} / HTTP/1.1\r\nHost: site\r\nContent-Length: {length}\r\n\r\n");
            connection.send(head.as_bytes()).unwrap();
            connection.send(&vec![b'x'; length]).unwrap();
            (connection.answer().unwrap(), asked.elapsed())
        })
    };
    for asked in [ask("GET", 0), ask("PUT", UPLOAD_BYTES)] {
        let (answer, took) = asked.join().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}\n{}", gateway.logs());
        assert!(took >= SLOW, "{took:?}");
    }
    assert_eq!(requests.load(Ordering::Relaxed), 2, "each was sent once\n{}", gateway.logs());
}
