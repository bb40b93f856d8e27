//! Client certificates whose issuer is asked about them (`ssl_ocsp`): a real responder, OpenSSL's, behind the server,
//! and curl before it; and responders that are silent, gone or talk nonsense. Left out, with a word, where the programs
//! are missing.

mod support;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SerialNumber,
};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use support::clients_are_missing;
use support::server::Server;

const CONFIGURATION: &str = "
error_log error.log info;
pid nginx.pid;
worker_processes 1;
events { }
http {
    access_log off;
    client_header_timeout 5s;
    ssl_certificate server.crt;
    ssl_certificate_key server.key;
    ssl_client_certificate root.crt;
    ssl_verify_client on;
    ssl_ocsp on;
    ssl_ocsp_responder http://127.0.0.1:%ANSWERS%;
    error_page 495 = /why;
    server {
        listen %HOST%:8443 ssl;
        location / { return 200 \"served $ssl_client_verify\\n\"; }
        location = /why { return 200 \"refused $ssl_client_verify\\n\"; }
    }
    server {
        listen %HOST%:8444 ssl;
        ssl_ocsp_cache shared:answers:1m;
        location / { return 200 \"served $ssl_client_verify\\n\"; }
        location = /why { return 200 \"refused $ssl_client_verify\\n\"; }
    }
    server {
        listen %HOST%:8445 ssl;
        ssl_ocsp_responder \"\";
        location / { return 200 \"served $ssl_client_verify\\n\"; }
        location = /why { return 200 \"refused $ssl_client_verify\\n\"; }
    }
    server {
        listen %HOST%:8446 ssl;
        ssl_ocsp_responder http://127.0.0.1:%SILENT%;
        location / { return 200 \"served $ssl_client_verify\\n\"; }
    }
    server {
        listen %HOST%:8447 ssl;
        ssl_ocsp_responder http://127.0.0.1:%GONE%/;
        location / { return 200 \"served $ssl_client_verify\\n\"; }
        location = /why { return 200 \"refused $ssl_client_verify\\n\"; }
    }
    server {
        listen %HOST%:8448 ssl;
        ssl_verify_client off;
        location / { return 200 \"plainly served\\n\"; }
    }
    server {
        listen %HOST%:8449;
        location / { return 404; }
    }
    server {
        listen %HOST%:8450 ssl;
        ssl_ocsp_responder http://%HOST%:8449/;
        location / { return 200 \"served $ssl_client_verify\\n\"; }
        location = /why { return 200 \"refused $ssl_client_verify\\n\"; }
    }
}
";

/// Makes `NAME.crt` and `NAME.key`.
struct Maker<'a> {
    folder: &'a Path,
    serial: u64,
}

impl Maker<'_> {
    fn make(
        &mut self,
        name: &str,
        by: Option<&(CertificateParams, KeyPair)>,
        change: impl Fn(&mut CertificateParams),
    ) -> (CertificateParams, KeyPair) {
        self.serial += 1;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(self.serial));
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = match by {
            Some((params_of_issuer, key_of_issuer)) => {
                params.signed_by(&key, &Issuer::from_params(params_of_issuer, key_of_issuer))
            }
            None => params.self_signed(&key),
        };
        let pem = certificate.expect("a certificate").pem();
        fs::write(self.folder.join(format!("{name}.crt")), pem).expect("the folder is ours");
        fs::write(self.folder.join(format!("{name}.key")), key.serialize_pem()).expect("the folder is ours");
        (params, key)
    }
}

/// Names a responder in a certificate (AuthorityInfoAccess, RFC 5280 section 4.2.2.1).
fn names_responder(params: &mut CertificateParams, url: &str) {
    let value = |tag: u8, content: &[u8]| {
        [&[tag, u8::try_from(content.len()).expect("it is short")], content].concat()
    };
    let ocsp = value(6, &[0x2b, 6, 1, 5, 5, 7, 0x30, 1]);
    let access = value(0x30, &[ocsp, value(0x86, url.as_bytes())].concat());
    let id = [1, 3, 6, 1, 5, 5, 7, 1, 1];
    let extension = CustomExtension::from_oid_content(&id, value(0x30, &access));
    params.custom_extensions.push(extension);
}

/// What the issuer thinks: serial numbers and whether they were taken back.
fn write_index(folder: &Path, certificates: &[(u64, bool)]) {
    let line = |(serial, is_revoked): &(u64, bool)| match is_revoked {
        false => format!("V\t491231235959Z\t\t{serial:02X}\tunknown\t/CN=client{serial}\n"),
        true => format!("R\t491231235959Z\t250101000000Z\t{serial:02X}\tunknown\t/CN=client{serial}\n"),
    };
    let text: String = certificates.iter().map(line).collect();
    fs::write(folder.join("index"), text).expect("the folder is ours");
}

/// OpenSSL's responder; ended when dropped.
struct Answers {
    process: Child,
    port: u16,
    /// It ends when nobody hears it.
    _output: BufReader<ChildStdout>,
}

impl Answers {
    /// `signer` is whose name stands under the answers.
    fn start(folder: &Path, signer: &str) -> Answers {
        let (certificate, key) = (format!("{signer}.crt"), format!("{signer}.key"));
        let mut command = Command::new("openssl");
        command.args(["ocsp", "-port", "0", "-index", "index", "-CA", "root.crt"]);
        command.args(["-rsigner", &certificate, "-rkey", &key, "-nmin", "5"]);
        let command = command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.stderr(Stdio::null()).spawn().expect("openssl is there");
        let output = process.stdout.take().expect("it is a pipe");
        // It says `ACCEPT [::]:37623 PID=9436` once it listens.
        let mut output = BufReader::new(output);
        let told = output.by_ref().lines().map_while(Result::ok).find_map(|line| {
            let (_, port) = line.strip_prefix("ACCEPT ")?.split_whitespace().next()?.rsplit_once(':')?;
            port.parse().ok()
        });
        Answers { process, port: told.expect("it says where it listens"), _output: output }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn curl(server: &Server, port: u16, client: Option<&str>) -> String {
    let url = format!("https://{}:{port}/", server.host);
    let mut command = Command::new("curl");
    command.args(["-sk", "--max-time", "60", &url]).current_dir(server.folder.path());
    if let Some(client) = client {
        command.args(["--cert", &format!("{client}.crt"), "--key", &format!("{client}.key")]);
    }
    let output = command.output().expect("curl is there");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn issuers_are_asked_about_clients() {
    if clients_are_missing() {
        return;
    }
    let server = Server::new("tls-ocsp", CONFIGURATION);
    let folder = server.folder.path();
    let mut maker = Maker { folder, serial: 0 };
    let root = maker.make("root", None, |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    maker.make("server", None, |_| {});
    maker.make("appointed", Some(&root), |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
    });
    maker.make("stranger", None, |_| {});
    // Numbers of the clients below, in their order.
    let first = maker.serial + 1;
    write_index(folder, &[(first, false), (first + 1, true), (first + 3, false), (first + 4, false)]);
    let answers = Answers::start(folder, "appointed");
    let of_stranger = Answers::start(folder, "stranger");
    let at = |answers: &Answers| format!("http://127.0.0.1:{}", answers.port);
    for (name, url) in [
        ("good", at(&answers)),
        ("revoked", at(&answers)),
        ("unknown", at(&answers)),
        ("misled", at(&of_stranger)),
        ("secretive", String::new()),
        ("odd", "ldap://127.0.0.1/".to_owned()),
    ] {
        maker.make(name, Some(&root), |params| {
            if !url.is_empty() {
                names_responder(params, &url);
            }
        });
    }
    let silent = TcpListener::bind("127.0.0.1:0").expect("an address");
    let gone = TcpListener::bind("127.0.0.1:0").expect("an address").local_addr().expect("it has one").port();
    let silent_port = silent.local_addr().expect("it has one").port();
    let text = CONFIGURATION.replace("%ANSWERS%", &answers.port.to_string());
    let text = text.replace("%SILENT%", &silent_port.to_string());
    server.write(&text.replace("%GONE%", &gone.to_string()));
    server.start();

    let failed = "refused FAILED:certificate status request failed\n";
    for (port, client, expected) in [
        (8443, "good", "served SUCCESS\n"),
        (8443, "revoked", "refused FAILED:certificate revoked\n"),
        (8443, "unknown", "refused FAILED:certificate status unknown\n"),
        // Whom the certificate names is asked.
        (8445, "good", "served SUCCESS\n"),
        (8445, "misled", failed),
        (8445, "secretive", failed),
        (8445, "odd", failed),
        (8447, "good", failed),
        (8450, "good", failed),
        // Kept from here on.
        (8444, "good", "served SUCCESS\n"),
        (8444, "revoked", "refused FAILED:certificate revoked\n"),
    ] {
        assert_eq!(curl(&server, port, Some(client)), expected, "{port} {client}\n{}", server.log());
    }
    assert!(curl(&server, 8443, Some("stranger")).starts_with("refused FAILED:self-signed"));
    for told in [
        "client SSL certificate verify error: certificate revoked while reading client request headers",
        "OCSP_basic_verify() failed (SSL: error:13800065:OCSP routines::certificate verify error",
        "no OCSP responder URL in certificate while SSL handshaking, client: ",
        "invalid URL prefix in OCSP responder \"ldap://127.0.0.1/\" in certificate while SSL handshaking",
        &format!(
            "(111: Connection refused) while requesting certificate status, responder: 127.0.0.1, \
             peer: 127.0.0.1:{gone}"
        ),
        &format!(" while requesting certificate status, responder: {0}, peer: {0}:8449", server.host),
    ] {
        server.wait_for_log(told, 1);
    }

    // What is kept holds when nobody answers any more, and over a reload.
    drop(answers);
    server.says(&["-s", "reload"], 0);
    assert_eq!(curl(&server, 8443, Some("good")), failed);
    assert_eq!(curl(&server, 8444, Some("good")), "served SUCCESS\n");
    assert_eq!(curl(&server, 8444, Some("revoked")), "refused FAILED:certificate revoked\n");

    // A responder that is silent keeps nobody else waiting, and its client as long as the head of a request may take.
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| curl(&server, 8446, Some("good")));
        let (asked, _) = silent.accept().expect("it is asked");
        assert_eq!(curl(&server, 8448, None), "plainly served\n");
        assert_eq!(waits.join().expect("it ends"), "", "it is let go");
        drop(asked);
    });
    server.wait_for_log("client timed out (110: Connection timed out) while SSL handshaking", 1);
}
