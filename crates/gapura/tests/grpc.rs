//! gRPC between a client and a server that are not ours, the library of Python: every kind of call, over HTTP/2 as it is
//! and over TLS on both sides. `cargo xtask test tools` installs the library below `target`.

mod support;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::nothing_may_be_skipped;
use support::server::Server;

/// How long all calls may take together.
const CALLS_MAX: Duration = Duration::from_secs(120);

const CONFIGURATION: &str = "
error_log error.log info;
pid nginx.pid;
events { }
http {
    access_log off;
    client_max_body_size 0;
    upstream kept {
        server %PLAIN%;
        keepalive 4;
    }
    server {
        listen %HOST%:8080;
        http2 on;
        location / { grpc_pass kept; }
    }
    server {
        listen %HOST%:8443 ssl;
        http2 on;
        ssl_certificate c.pem;
        ssl_certificate_key k.pem;
        location / {
            grpc_pass grpcs://%SECURE%;
            grpc_ssl_verify on;
            grpc_ssl_trusted_certificate c.pem;
            grpc_ssl_name localhost;
        }
    }
    server {
        listen %HOST%:8081;
        http2 on;
        location / { grpc_pass %HOST%:1; }
    }
}
";

/// The Python that has the library.
fn python() -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/grpc/bin/python");
    let has_library =
        Command::new(&found).args(["-c", "import grpc"]).output().is_ok_and(|o| o.status.success());
    assert!(has_library || !nothing_may_be_skipped(), "`cargo xtask test tools` installs the gRPC library");
    if !has_library {
        println!("LEFT OUT: `cargo xtask test tools` installs the gRPC library");
    }
    has_library.then_some(found)
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grpc/peer.py")
}

/// The server behind the gateway; it ends with its standard input.
struct Backend(Child);

impl Backend {
    fn start(python: &Path, server: &Server, plain: &str, secure: &str) -> Backend {
        let mut child = Command::new(python)
            .arg(script())
            .args(["serve", plain, secure, "c.pem", "k.pem"])
            .current_dir(server.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        Backend(child)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Makes all calls and gives what became of them.
fn call(python: &Path, server: &Server, arguments: &[&str]) -> String {
    let seconds = CALLS_MAX.as_secs().to_string();
    let output = Command::new("timeout")
        .arg(seconds)
        .arg(python)
        .arg(script())
        .arg("call")
        .args(arguments)
        .current_dir(server.folder.path())
        .output()
        .expect("Python starts");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{text}\n{}", server.log());
    text
}

/// Two addresses nobody has.
fn free(host: &str) -> [String; 2] {
    // Both held at a time: else the second may be the first again.
    let listeners = [(); 2].map(|()| TcpListener::bind((host, 0)).expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("its address").to_string())
}

#[test]
fn every_kind_of_call_gets_through() {
    let Some(python) = python() else { return };
    let server = Server::new("nginx", "");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-keyout", "k.pem", "-out", "c.pem", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .current_dir(server.folder.path())
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let [plain, secure] = free(&server.host);
    server.write(&CONFIGURATION.replace("%PLAIN%", &plain).replace("%SECURE%", &secure));
    let _backend = Backend::start(&python, &server, &plain, &secure);
    server.start();
    let host = &server.host;
    let over_plain = call(&python, &server, &[&format!("{host}:8080")]);
    let over_tls = call(&python, &server, &[&format!("{host}:8443"), "c.pem"]);
    assert_eq!(over_plain, over_tls);
    assert!(over_plain.lines().filter(|line| line.starts_with("ok ")).count() >= 13, "{over_plain}");
    let refused = Command::new(&python)
        .arg(script())
        .args(["call", &format!("{host}:8081")])
        .output()
        .expect("Python starts");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("StatusCode.UNAVAILABLE") && text.contains("502"), "{text}");
}
