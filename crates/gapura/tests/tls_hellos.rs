//! What comes to a TLS port that is no right hello, or goes wrong behind one: what the client is told and what the log
//! says, in OpenSSL's words, byte by byte. `GATEWAY` with an nginx of 1.31 passes it, too.

mod support;

use rustix::net::sockopt;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use support::server::{PATIENCE, Server};
use support::{clients_are_missing, run, wait_for};

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Nothing: the connection ends.
    Nothing,
    /// A fatal alert by its number.
    Alert(u8),
    /// The server's hello.
    Hello,
    /// An answer in plain HTTP, with this status.
    Plain(u16),
}

/// Kinds of records and messages (RFC 8446 sections 5.1 and 4).
const CHANGE: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const CLIENT_HELLO: u8 = 1;

/// Extensions (RFC 8446 section 4.2).
const SERVER_NAME: u16 = 0;
const GROUPS: u16 = 10;
const SIGNATURES: u16 = 13;
const PROTOCOLS: u16 = 16;
const VERSIONS: u16 = 43;
const KEY_SHARES: u16 = 51;

/// The parts of a hello.
struct Hello {
    version: u16,
    session: Vec<u8>,
    ciphers: Vec<u16>,
    compressions: Vec<u8>,
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    /// One of TLS 1.3 that any server takes.
    fn new() -> Hello {
        let share = [&[0, 36, 0, 29, 0, 32, 9][..], &[0; 31]].concat();
        let extensions = vec![
            (GROUPS, vec![0, 4, 0, 29, 0, 23]),
            (SIGNATURES, vec![0, 4, 4, 3, 8, 4]),
            (VERSIONS, vec![2, 3, 4]),
            (KEY_SHARES, share),
        ];
        let ciphers = vec![0x1301, 0xc02b];
        Hello { version: 0x303, session: vec![7; 32], ciphers, compressions: vec![0], extensions }
    }

    /// One of TLS 1.2.
    fn tls12() -> Hello {
        Hello::new().without(VERSIONS).without(KEY_SHARES)
    }

    fn with(self, kind: u16, value: &[u8]) -> Hello {
        let mut hello = self.without(kind);
        hello.extensions.push((kind, value.to_vec()));
        hello
    }

    fn without(mut self, kind: u16) -> Hello {
        self.extensions.retain(|(known, _)| *known != kind);
        self
    }

    fn body(&self) -> Vec<u8> {
        let pieces = self.extensions.iter();
        let extensions: Vec<u8> =
            pieces.flat_map(|(kind, value)| [&kind.to_be_bytes()[..], &long(value)].concat()).collect();
        let ciphers: Vec<u8> = self.ciphers.iter().flat_map(|suite| suite.to_be_bytes()).collect();
        [
            &self.version.to_be_bytes()[..],
            &[3; 32],
            &[u8::try_from(self.session.len()).unwrap()],
            &self.session,
            &long(&ciphers),
            &[u8::try_from(self.compressions.len()).unwrap()],
            &self.compressions,
            &long(&extensions),
        ]
        .concat()
    }

    fn message(&self) -> Vec<u8> {
        message(CLIENT_HELLO, &self.body())
    }

    fn record(&self) -> Vec<u8> {
        record(HANDSHAKE, 0x301, &self.message())
    }
}

/// Bytes behind two that tell how many they are.
fn long(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind][..], &length[1..], body].concat()
}

fn record(kind: u8, version: u16, payload: &[u8]) -> Vec<u8> {
    [&[kind][..], &version.to_be_bytes(), &long(payload)].concat()
}

/// The same record with another beginning.
fn beginning(bytes: &[u8], record: &[u8]) -> Vec<u8> {
    [bytes, &record[bytes.len()..]].concat()
}

const CLOSED: &str = "peer closed connection in SSL handshake while SSL handshaking";

type Row = (&'static str, Vec<u8>, Told, &'static str);

/// Bytes that are no hello, or only a part of one.
fn no_hellos() -> Vec<Row> {
    let whole = Hello::new().record();
    let cut = |count: usize| whole[..count].to_vec();
    let plain = |text: &str| text.as_bytes().to_vec();
    vec![
        ("one byte", cut(1), Told::Nothing, CLOSED),
        ("a record's head", cut(5), Told::Nothing, CLOSED),
        ("half a message's head", cut(7), Told::Nothing, CLOSED),
        ("all but a byte", cut(whole.len() - 1), Told::Nothing, CLOSED),
        (
            "plain HTTP",
            plain("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            Told::Plain(400),
            "client sent plain HTTP request to HTTPS port while reading client request headers, client: ",
        ),
        (
            "another protocol",
            plain("SSH-2.0-OpenSSH_9\r\n"),
            Told::Plain(400),
            "client sent invalid method while reading client request line, client: ",
        ),
        (
            "plain HTTP/2",
            plain("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            Told::Plain(400),
            "client sent invalid request while reading client request line, client: ",
        ),
        (
            "an alert",
            record(ALERT, 0x301, &[2, 40]),
            Told::Plain(400),
            "client sent invalid method while reading client request line, client: ",
        ),
        ("bytes of one kind", vec![0xff; 64], Told::Nothing, "0A00010B:SSL routines::wrong version number"),
        (
            "a version nobody knows",
            beginning(&[HANDSHAKE, 0x7f, 0], &whole),
            Told::Nothing,
            "0A00010B:SSL routines::wrong version number",
        ),
        (
            "a huge record",
            [&[HANDSHAKE, 3, 1, 0xff, 0xff][..], &[0; 64]].concat(),
            Told::Alert(22),
            "0A0000C6:SSL routines::packet length too long",
        ),
        (
            "a huge message",
            record(HANDSHAKE, 0x301, &beginning(&[CLIENT_HELLO, 0xff, 0xff, 0xff], &Hello::new().message())),
            Told::Alert(47),
            "0A000098:SSL routines::excessive message size",
        ),
        (
            "another message",
            record(HANDSHAKE, 0x301, &message(20, &[1; 32])),
            Told::Alert(10),
            "0A0000F4:SSL routines::unexpected message",
        ),
    ]
}

/// Hellos with something wrong inside.
fn wrong_hellos() -> Vec<Row> {
    let row = |what, hello: Hello, alert, words| (what, hello.record(), Told::Alert(alert), words);
    let (unsupported, no_cipher) =
        ("0A000102:SSL routines::unsupported protocol", "0A0000C1:SSL routines::no shared cipher");
    let old = |version| Hello { version, ..Hello::tls12() };
    let mut short = Hello::new().message();
    short[3] -= 1;
    vec![
        row("TLS 1.0", old(0x301).without(SIGNATURES), 70, unsupported),
        row("TLS 1.1", old(0x302).without(SIGNATURES), 70, unsupported),
        row("TLS 1.1 with signatures", old(0x302), 70, unsupported),
        row("TLS 1.1 in the new way", Hello::new().with(VERSIONS, &[2, 3, 2]), 70, unsupported),
        row("TLS 1.4 alone", Hello::new().with(VERSIONS, &[2, 3, 5]), 70, unsupported),
        row(
            "a fallback",
            Hello { ciphers: vec![0xc02b, 0x5600], ..Hello::tls12() },
            86,
            "0A000175:SSL routines::inappropriate fallback",
        ),
        row("no cipher we know", Hello { ciphers: vec![0x1234], ..Hello::new() }, 40, no_cipher),
        row("no cipher of TLS 1.2", Hello { ciphers: vec![0x1234], ..Hello::tls12() }, 40, no_cipher),
        row(
            "no compression",
            Hello { compressions: Vec::new(), ..Hello::new() },
            50,
            "0A0000BB:SSL routines::no compression specified",
        ),
        row(
            "a key that is too short",
            Hello::new().with(KEY_SHARES, &[0, 9, 0, 29, 0, 9, 1]),
            50,
            "0A00009F:SSL routines::length mismatch",
        ),
        (
            "a message shorter than it says",
            record(HANDSHAKE, 0x301, &short),
            Told::Alert(50),
            "0A00009F:SSL routines::length mismatch",
        ),
    ]
}

/// Right hellos, some oddly written, and what may come behind one.
fn right_hellos() -> Vec<Row> {
    let whole = Hello::new().record();
    let payload = Hello::new().message();
    let bytes = |hello: Hello| hello.record();
    let then = |more: &[u8]| [&whole[..], more].concat();
    let one_by_one = payload.iter().flat_map(|byte| record(HANDSHAKE, 0x301, &[*byte])).collect();
    let alert = |level, number| then(&record(ALERT, 0x303, &[level, number]));
    vec![
        ("TLS 1.3", whole.clone(), Told::Hello, CLOSED),
        ("TLS 1.2", bytes(Hello::tls12()), Told::Hello, CLOSED),
        ("TLS 1.2 of the future", bytes(Hello { version: 0x305, ..Hello::tls12() }), Told::Hello, CLOSED),
        ("a record of SSL 3", beginning(&[HANDSHAKE, 3, 0], &whole), Told::Hello, CLOSED),
        ("a byte in each record", one_by_one, Told::Hello, CLOSED),
        (
            "versions nobody knows",
            bytes(Hello::new().with(VERSIONS, &[4, 10, 10, 3, 4])),
            Told::Hello,
            CLOSED,
        ),
        ("an unknown extension", bytes(Hello::new().with(0xabcd, b"?")), Told::Hello, CLOSED),
        (
            "an address as a name",
            bytes(Hello::new().with(SERVER_NAME, b"\0\x0c\0\0\x09127.0.0.1")),
            Told::Hello,
            CLOSED,
        ),
        (
            "a name nobody has",
            bytes(Hello::new().with(SERVER_NAME, b"\0\x06\0\0\x03a_b")),
            Told::Hello,
            CLOSED,
        ),
        ("HTTP/1.0 alone", bytes(Hello::new().with(PROTOCOLS, b"\0\x09\x08http/1.0")), Told::Hello, CLOSED),
        ("a change of ciphers", then(&record(CHANGE, 0x303, &[1])), Told::Hello, CLOSED),
        ("a goodbye", alert(1, 0), Told::Hello, CLOSED),
        (
            "a failure",
            alert(2, 40),
            Told::Hello,
            "0A000410:SSL routines::sslv3 alert handshake failure:SSL alert number 40",
        ),
        (
            "no trust",
            alert(2, 48),
            Told::Hello,
            "0A000418:SSL routines::tlsv1 alert unknown ca:SSL alert number 48",
        ),
        (
            "data that nobody can read",
            then(&record(DATA, 0x303, &[7; 40])),
            Told::Hello,
            "0A000119:SSL routines::decryption failed or bad record mac",
        ),
        (
            "plain HTTP behind it",
            then(b"GET / HTTP/1.1\r\n\r\n"),
            Told::Hello,
            "0A00010B:SSL routines::wrong version number",
        ),
    ]
}

/// A server that speaks TLS on port 8443 and plainly on 8080; none where the clients are missing.
fn server() -> Option<Server> {
    if clients_are_missing() {
        return None;
    }
    let server = Server::new(
        "nginx",
        "error_log error.log info; pid nginx.pid; worker_processes 1; events {}\n\
         http { access_log off; ssl_certificate one.crt; ssl_certificate_key one.key;\n\
         server { listen %HOST%:8443 ssl; return 200 a; } server { listen %HOST%:8080; return 200 a; } }\n",
    );
    let key = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let files = ["-keyout", "one.key", "-out", "one.crt", "-days", "2", "-subj", "/CN=one.example"];
    let names =
        ["-addext", "subjectAltName=DNS:one.example", "-addext", "basicConstraints=critical,CA:FALSE"];
    let made = run(server.folder.path(), "openssl", &[&key[..], &files, &names].concat());
    assert!(server.path("one.crt").exists(), "{made}");
    server.start();
    Some(server)
}

fn connect(server: &Server, port: u16) -> TcpStream {
    let stream = TcpStream::connect(server.address(port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends bytes and the end of ours, and reads all that comes.
fn tell(server: &Server, bytes: &[u8]) -> Told {
    let mut stream = connect(server, 8443);
    // The server may refuse before it has read all.
    let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    assert!(end.is_ok() || !answer.is_empty(), "{end:?}");
    match answer[..] {
        [] => Told::Nothing,
        [ALERT, 3, _, 0, 2, 2, number] => Told::Alert(number),
        [HANDSHAKE, 3, 3, _, _, 2, ..] => Told::Hello,
        _ => {
            let text = String::from_utf8_lossy(&answer);
            Told::Plain(support::raw::status(&text))
        }
    }
}

/// Waits for the line that says it, behind so many bytes of the log, at the level that such things have.
fn wait_for_line(server: &Server, from: usize, what: &str, words: &str) {
    let said = || {
        let log = server.log();
        log.get(from..)?.lines().find(|line| line.contains(words) && line.contains("[info]")).map(drop)
    };
    wait_for(&format!("{what}: {words:?}\n{}", server.log().get(from..).unwrap_or_default()), PATIENCE, said);
}

#[test]
fn hellos_of_all_kinds() {
    let Some(server) = server() else { return };
    for (what, bytes, told, words) in [no_hellos(), wrong_hellos(), right_hellos()].concat() {
        let from = server.log().len();
        assert_eq!(tell(&server, &bytes), told, "{what}");
        wait_for_line(&server, from, what, words);
    }
    assert_eq!(server.body(8080), "a");
    for word in ["panicked", "[alert]", "[crit]", "[error]"] {
        assert!(!server.log().contains(word), "{}", server.log());
    }
}

#[test]
fn clients_of_other_makers() {
    let Some(server) = server() else { return };
    let folder = server.folder.path();
    let url = format!("https://{}:8443/", server.host);
    let to = format!("{}:8443", server.host);
    let openssl = ["s_client", "-connect", &to];
    for (program, options, words) in [
        (
            "curl",
            vec!["-s", "--max-time", "60", &url],
            "SSL_do_handshake() failed (SSL: error:0A000418:SSL routines::tlsv1 alert unknown ca:SSL alert number 48) \
             while SSL handshaking, client: ",
        ),
        (
            "openssl",
            [&openssl[..], &["-tls1_2", "-fallback_scsv"]].concat(),
            "SSL_do_handshake() failed (SSL: error:0A000175:SSL routines::inappropriate fallback) \
             while SSL handshaking, client: ",
        ),
        (
            "openssl",
            [&openssl[..], &["-tls1", "-cipher", "ALL@SECLEVEL=0"]].concat(),
            "SSL_do_handshake() failed (SSL: error:0A000102:SSL routines::unsupported protocol) \
             while SSL handshaking, client: ",
        ),
    ] {
        let from = server.log().len();
        let said = run(folder, program, &options);
        wait_for_line(&server, from, &said, words);
    }
}

/// A connection whose handshake is done.
fn greeted(server: &Server) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(server.path("one.crt")).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let client = ClientConnection::new(Arc::new(config), "one.example".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(client, connect(server, 8443));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    // Its tickets: the server has read all that we sent.
    stream.conn.read_tls(&mut stream.sock).unwrap();
    stream.conn.process_new_packets().unwrap();
    stream
}

#[test]
fn what_comes_behind_the_handshake() {
    let Some(server) = server() else { return };
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let wrong_version = "SSL_read() failed (SSL: error:0A00010B:SSL routines::wrong version number)";
    let bad_mac = "SSL_read() failed (SSL: error:0A000119:SSL routines::decryption failed or bad record mac)";
    for (what, before, bytes, words) in [
        (
            "plain HTTP",
            &b""[..],
            get.to_vec(),
            format!("{wrong_version} while waiting for request, client: "),
        ),
        (
            "a broken record",
            b"",
            record(DATA, 0x303, &[7; 40]),
            format!("{bad_mac} while waiting for request, client: "),
        ),
        (
            "a broken record after a request",
            get,
            record(DATA, 0x303, &[7; 40]),
            format!("{bad_mac} while keepalive, client: "),
        ),
    ] {
        let from = server.log().len();
        let mut stream = greeted(&server);
        if !before.is_empty() {
            stream.write_all(before).unwrap();
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
        }
        stream.sock.write_all(&bytes).unwrap();
        wait_for_line(&server, from, what, &words);
        // It is told why, and the connection ends.
        assert!(stream.read_to_end(&mut Vec::new()).is_err(), "{what}");
    }
    // What comes behind the end of what we say is not looked at any more.
    let mut stream = greeted(&server);
    stream.write_all(b"nonsense\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(support::raw::status(&answer), 400);
    let _ = stream.sock.write_all(&record(DATA, 0x303, &[7; 40]));
    drop(stream);
    assert_eq!(server.body(8080), "a");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn connections_that_break() {
    let Some(server) = server() else { return };
    let host = server.host.clone();
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let reset = "(104: Connection reset by peer)";
    for (what, port, bytes, words) in [
        ("at once", 8080, &b""[..], format!("recv() failed {reset} while waiting for request, client: ")),
        (
            "in a head",
            8080,
            &get[..20],
            format!("recv() failed {reset} while reading client request headers, client: "),
        ),
        ("after a request", 8080, &get[..], format!("closed keepalive connection {reset}")),
        ("in a handshake", 8443, b"", format!("recv() failed {reset} while SSL handshaking, client: ")),
    ] {
        let from = server.log().len();
        let mut stream = connect(&server, port);
        stream.write_all(bytes).unwrap();
        if bytes.len() == get.len() {
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
        }
        // The server has taken it, and read what was sent, before it breaks.
        let again = connect(&server, 8080);
        (&again).write_all(get).unwrap();
        assert!((&again).read(&mut [0; 1024]).unwrap() > 0);
        drop(again);
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        drop(stream);
        wait_for_line(&server, from, &format!("{what} on {host}"), &words);
    }
}
