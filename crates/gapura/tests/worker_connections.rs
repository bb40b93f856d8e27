//! Connections to upstreams take places of `worker_connections`, too.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use support::gateway::is_gapura;
use support::server::{PATIENCE, Server};
use support::wait_for;

/// The next connection to the origin, its request's head read.
fn accept(origin: &TcpListener, server: &Server) -> TcpStream {
    let accepted = || origin.accept().ok();
    let (mut stream, _) = wait_for(&format!("a request\n{}", server.log()), PATIENCE, accepted);
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    stream
}

#[test]
fn a_request_for_which_there_is_no_place_gets_500() {
    // nginx counts listening sockets and its channel among them, so the number would be another.
    if !is_gapura() {
        return;
    }
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    origin.set_nonblocking(true).unwrap();
    let address = origin.local_addr().unwrap();
    let server = Server::started(
        "nginx",
        &format!(
            "error_log error.log info; pid nginx.pid; events {{ worker_connections 9; }}
             http {{ access_log off; server {{ listen %HOST%:8080;
                 location / {{ proxy_pass http://{address}; }}
                 location /other {{ proxy_pass http://{address}; }} }} }}\n"
        ),
    );
    let mut clients: Vec<_> = (0..4).map(|_| server.connect(8080)).collect();
    let mut upstreams = Vec::new();
    for client in &mut clients {
        client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        upstreams.push(accept(&origin, &server));
    }
    // An answer of this kind ends its connection.
    assert_eq!(server.connect(8080).get("test", "/").unwrap().status, 500);
    server.wait_for_log(" 9 worker_connections are not enough while connecting to upstream, client: ", 1);
    // One that is kept for later makes room for one that is wanted now.
    upstreams[0].write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    assert_eq!(clients[0].answer().unwrap().text(), "ok");
    let mut last = server.connect(8080);
    last.send(b"GET /other HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut upstream = accept(&origin, &server);
    upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    assert_eq!(last.answer().unwrap().text(), "ok");
}

#[test]
fn there_must_be_a_place_for_each_listening_socket() {
    let configuration = |count: usize| {
        format!(
            "error_log error.log info; pid nginx.pid; events {{ worker_connections {count}; }}
             http {{ access_log off; server {{ listen %HOST%:8080; listen %HOST%:8081; listen 127.0.0.1:8080;
             return 204; }} server {{ listen %HOST%:8080; server_name other; return 204; }} }}\n"
        )
    };
    let server = Server::new("nginx", &configuration(3));
    let said = server.says(&["-t"], 1);
    let conf = server.path("nginx.conf");
    let (conf, words) =
        (conf.display(), "[emerg] 3 worker_connections are not enough for 3 listening sockets");
    let expected = format!(
        "nginx: the configuration file {conf} syntax is ok\nnginx: {words}\nnginx: configuration file {conf} test failed\n"
    );
    assert_eq!(said, expected);
    server.write(&configuration(4));
    server.says(&["-t"], 0);
}
