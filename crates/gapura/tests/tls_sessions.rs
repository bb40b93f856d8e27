//! Sessions of TLS 1.3 that go on, over a reload too, and requests that come ahead of the end of the handshake, as
//! OpenSSL sends them; what somebody recorded and sends again is not served. Left out, with a word, where the programs
//! are missing.

mod support;

use rcgen::{CertificateParams, KeyPair};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use support::clients_are_missing;
use support::server::{PATIENCE, Server};

const CONFIGURATION: &str = "
error_log error.log info;
pid nginx.pid;
worker_processes 2;
events { }
http {
    log_format early '$server_port $request_uri early=$ssl_early_data resumed=$ssl_session_reused';
    access_log access.log early;
    ssl_certificate own.crt;
    ssl_certificate_key own.key;
    server { listen %HOST%:8443 ssl; return 200 \"$ssl_session_reused\\n\"; }
    server {
        listen %HOST%:8444 ssl;
        ssl_session_tickets off;
        ssl_session_cache shared:sessions:1m;
        return 200 \"$ssl_session_reused\\n\";
    }
    server { listen %HOST%:8445 ssl; ssl_early_data on; return 200 \"$ssl_session_reused\\n\"; }
}
";

/// A server that serves; none where the clients are missing.
fn server(name: &str) -> Option<Server> {
    if clients_are_missing() {
        return None;
    }
    let server = Server::new(name, CONFIGURATION);
    let key = KeyPair::generate().expect("a key");
    let parameters = CertificateParams::new(vec!["own.example".to_owned()]).expect("it is a name");
    let certificate = parameters.self_signed(&key).expect("a certificate");
    fs::write(server.path("own.crt"), certificate.pem()).expect("the folder is ours");
    fs::write(server.path("own.key"), key.serialize_pem()).expect("the folder is ours");
    fs::write(server.path("request"), request("/early")).expect("the folder is ours");
    server.start();
    Some(server)
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.0\r\n\r\n")
}

/// Asks for a path once the handshake is done, and gives what OpenSSL tells.
fn ask(server: &Server, to: &str, path: &str, options: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", to, "-tls1_3", "-ign_eof"]).args(options);
    let command = command.current_dir(server.folder.path()).stdin(Stdio::piped());
    let mut client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("openssl is there");
    let mut input = client.stdin.take().expect("it is a pipe");
    // It may have its answer already.
    let _ = input.write_all(request(path).as_bytes());
    let output = client.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn address(server: &Server, port: u16) -> String {
    format!("{}:{port}", server.host)
}

#[test]
fn sessions_go_on_over_a_reload() {
    let Some(server) = server("tls13-sessions") else { return };
    for port in [8443, 8444, 8445] {
        let to = address(&server, port);
        let first = ask(&server, &to, "/", &["-sess_out", "session"]);
        assert!(first.contains("New, TLSv1.3"), "{port}: {first}");
        let again = ask(&server, &to, "/", &["-sess_in", "session", "-sess_out", "next"]);
        assert!(again.contains("Reused, TLSv1.3") && again.contains("\nr\n"), "{port}: {again}");
        server.says(&["-s", "reload"], 0);
        let reloaded = ask(&server, &to, "/", &["-sess_in", "next"]);
        assert!(reloaded.contains("Reused, TLSv1.3"), "{port}, reloaded: {reloaded}");
    }
}

#[test]
fn requests_ahead_of_the_end_of_the_handshake() {
    let Some(server) = server("tls13-early") else { return };
    let to = address(&server, 8445);
    let refused = ask(&server, &address(&server, 8443), "/", &["-sess_out", "session"]);
    assert!(refused.contains("Max Early Data: 0"), "it is off there: {refused}");
    let first = ask(&server, &to, "/first", &["-sess_out", "session"]);
    assert!(first.contains("Max Early Data: 16384"), "{first}");
    // Over a reload, the client is as welcome.
    server.says(&["-s", "reload"], 0);
    let early = ["-sess_in", "session", "-early_data", "request"];
    let accepted = ask(&server, &to, "/behind", &early);
    assert!(accepted.contains("Early data was accepted"), "{accepted}");
    // Each session is for one use.
    let rejected = ask(&server, &to, "/behind", &early);
    assert!(rejected.contains("Early data was rejected"), "{rejected}");
    let log = fs::read_to_string(server.path("access.log")).expect("it is there");
    assert!(log.contains("8445 /early early=1 resumed=r\n"), "{log}");
    assert_eq!(log.matches("early=1").count(), 1, "{log}");
}

/// Passes one connection on, and gives what its client sent in one piece at first.
fn record(listener: &TcpListener, to: &str) -> Vec<u8> {
    let (mut client, _) = listener.accept().expect("a client");
    let mut server = TcpStream::connect(to).expect("the server is there");
    let mut first = vec![0; 1 << 16];
    let count = client.read(&mut first).expect("it sends");
    first.truncate(count);
    server.write_all(&first).expect("it takes it");
    let mut back = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
    let backwards = std::thread::spawn(move || std::io::copy(&mut back.0, &mut back.1));
    // Either side may go away first.
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(std::net::Shutdown::Both);
    let _ = backwards.join();
    first
}

#[test]
fn what_was_recorded_is_not_served_again() {
    let Some(server) = server("tls13-replay") else { return };
    let to = address(&server, 8445);
    let first = ask(&server, &to, "/first", &["-sess_out", "session"]);
    assert!(first.contains("Max Early Data: 16384"), "{first}");
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let between = listener.local_addr().expect("it has one").to_string();
    let recorded = std::thread::scope(|scope| {
        let recorded = scope.spawn(|| record(&listener, &to));
        let said = ask(&server, &between, "/behind", &["-sess_in", "session", "-early_data", "request"]);
        assert!(said.contains("Early data was accepted"), "{said}");
        recorded.join().expect("it ends")
    });
    let served = || {
        let log = fs::read_to_string(server.path("access.log")).expect("it is there");
        log.matches("/early").count()
    };
    assert_eq!(served(), 1);
    for _ in 0..4 {
        let mut again = TcpStream::connect(&to).expect("the server is there");
        again.set_read_timeout(Some(PATIENCE)).expect("a socket");
        again.write_all(&recorded).expect("it takes it");
        // It begins a handshake, as with anybody who comes for the first time.
        assert_ne!(again.read(&mut [0; 16]).expect("it answers"), 0);
    }
    // Others are served, and with that all that came before has been looked at.
    let other = ask(&server, &to, "/other", &[]);
    assert!(other.contains("New, TLSv1.3"), "{other}");
    assert_eq!(served(), 1, "what was recorded was served again");
}
