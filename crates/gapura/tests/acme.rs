//! Certificates from an issuer that is not ours (Pebble, the small ACME server that Let's Encrypt tests with), and from
//! one that follows a script. Left out, with a word, where Pebble, curl or OpenSSL are missing.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::server::{Server, is_root};
use support::{Folder, is_installed, nothing_may_be_skipped, text_of, wait_for};

/// How long an order may take: Pebble takes a few seconds on a busy machine.
const ORDER_PATIENCE: Duration = Duration::from_secs(60);

/// Is all there that is needed? Where nothing may be left out, it must be.
fn is_missing() -> bool {
    let missing: Vec<&str> = ["pebble", "pebble-challtestsrv", "curl", "openssl"]
        .into_iter()
        .filter(|program| !is_installed(program))
        .collect();
    assert!(missing.is_empty() || !nothing_may_be_skipped(), "needed: {missing:?}");
    if !missing.is_empty() {
        println!("LEFT OUT: install {}", missing.join(", "));
    }
    !missing.is_empty()
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    let output = command.args(arguments).current_dir(folder).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// A Pebble of its own, with a name server that gives all names one address.
struct Pebble {
    folder: Folder,
    host: String,
    children: Vec<Child>,
}

/// What differs between tests.
struct Options {
    /// How long certificates live, seconds.
    life_seconds: u32,
    /// The external account that must be named: its identifier and key.
    external: Option<(&'static str, &'static str)>,
}

const USUAL: Options = Options { life_seconds: 90 * 24 * 3600, external: None };

impl Pebble {
    /// Prepared, not started. Names are at `host`, pages on its port 8080, handshakes on 8443.
    fn new(host: &str, options: &Options) -> Pebble {
        let folder = Folder::new("pebble");
        let subject = format!("subjectAltName=IP:{host}");
        let made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let files = ["-keyout", "pebble.key", "-out", "pebble.crt", "-days", "2", "-subj", "/CN=pebble"];
        run(folder.path(), "openssl", &[&made[..], &files, &["-addext", &subject]].concat());
        let external = match options.external {
            None => "\"externalAccountBindingRequired\": false".to_owned(),
            Some((name, key)) => format!(
                "\"externalAccountBindingRequired\": true, \"externalAccountMACKeys\": {{ \"{name}\": \"{key}\" }}"
            ),
        };
        let configuration = format!(
            r#"{{ "pebble": {{ "listenAddress": "{host}:14000", "managementListenAddress": "{host}:15000",
            "certificate": "pebble.crt", "privateKey": "pebble.key", "httpPort": 8080, "tlsPort": 8443,
            "ocspResponderURL": "", "certificateValidityPeriod": {}, "retryAfter": {{ "authz": 1, "order": 1 }},
            {external} }} }}"#,
            options.life_seconds
        );
        std::fs::write(folder.path().join("pebble.json"), configuration).expect("the folder is ours");
        let mut pebble = Pebble { folder, host: host.to_owned(), children: Vec::new() };
        let (dns, management) = (format!("{host}:15353"), format!("{host}:15055"));
        let nothing = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""];
        let names = ["-dns01", &dns, "-management", &management, "-defaultIPv4", host];
        pebble.spawn("pebble-challtestsrv", &[&names[..], &nothing].concat());
        pebble
    }

    fn started(host: &str, options: &Options) -> Pebble {
        let mut pebble = Pebble::new(host, options);
        pebble.start();
        pebble
    }

    fn start(&mut self) {
        let dns = format!("{}:15353", self.host);
        self.spawn("pebble", &["-config", "pebble.json", "-dnsserver", &dns, "-strict"]);
        let address = format!("{}:14000", self.host);
        wait_for("Pebble listens", ORDER_PATIENCE, || TcpStream::connect(&address).ok());
    }

    fn spawn(&mut self, program: &str, arguments: &[&str]) {
        let output = std::fs::File::create(self.path(&format!("{program}.out"))).expect("the folder is ours");
        let child = Command::new(program)
            .args(arguments)
            .current_dir(self.folder.path())
            // No pauses but those of the protocol; half of all nonces are refused; no name stays proved.
            .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "30"), ("PEBBLE_AUTHZREUSE", "0")])
            .stdout(output.try_clone().expect("descriptors can be copied"))
            .stderr(output)
            .spawn();
        self.children.push(child.unwrap_or_else(|error| panic!("{program}: {error}")));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How many orders there were.
    fn orders(&self) -> usize {
        text_of(&self.path("pebble.out")).matches("Added order").count()
    }

    /// Sends all names elsewhere.
    fn move_names(&self, address: &str) {
        let url = format!("http://{}:15055/set-default-ipv4", self.host);
        run(self.folder.path(), "curl", &["-sS", "-d", &format!("{{\"ip\":\"{address}\"}}"), &url]);
    }

    /// The block of a configuration that names it.
    fn issuer(&self, more: &str) -> String {
        let (host, certificate) = (&self.host, self.path("pebble.crt"));
        format!(
            "acme_issuer pebble {{ uri https://{host}:14000/dir; ssl_trusted_certificate {};
             accept_terms_of_service; state_path state; {more} }}",
            certificate.display()
        )
    }

    /// What a client says that trusts it and asks for a name on port 8443.
    fn visit(&self, server: &Server, name: &str) -> String {
        let root = self.path("root.pem");
        if !root.exists() {
            let url = format!("https://{}:15000/roots/0", self.host);
            run(self.folder.path(), "curl", &["-skf", "-o", "root.pem", &url]);
        }
        let to = format!("::{}:8443", server.host);
        let (root, url) = (root.to_string_lossy().into_owned(), format!("https://{name}/"));
        run(self.folder.path(), "curl", &["-sS", "--cacert", &root, "--connect-to", &to, &url])
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A configuration around the lines of its `http` block. The plain server answers nothing of what issuers look for.
fn configuration(http: &str) -> String {
    format!(
        "error_log error.log info; pid nginx.pid; events {{}}
        http {{ access_log access.log; server {{ listen %HOST%:8080; return 301 https://$host$request_uri; }}
        {http} }}"
    )
}

/// A server with a certificate from an issuer.
fn secure(names: &str, parameters: &str, body: &str) -> String {
    format!(
        "server {{ listen %HOST%:8443 ssl; server_name {names}; acme_certificate pebble {parameters};
        ssl_certificate $acme_certificate; ssl_certificate_key $acme_certificate_key; return 200 {body}; }}"
    )
}

/// A server with a Pebble beside it; not started.
fn server(options: &Options) -> (Server, Pebble) {
    let server = Server::new("gapura", "");
    let pebble = Pebble::started(&server.host, options);
    (server, pebble)
}

fn wait_for_issue(server: &Server, times: usize) {
    let enough = || (server.log().matches("certificate issued").count() >= times).then_some(());
    wait_for(&format!("{times} certificates\n{}", server.log()), ORDER_PATIENCE, enough);
}

/// The only file with that ending below the state path.
fn kept(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect()
}

#[test]
fn names_are_proved_by_a_page_and_a_restart_asks_for_nothing() {
    if is_missing() {
        return;
    }
    let (server, pebble) = server(&USUAL);
    server.write(&configuration(&format!(
        "{} {}",
        pebble.issuer("contact admin@example.test;"),
        secure(".one.test two.test", "", "hello")
    )));
    server.start();
    wait_for_issue(&server, 1);
    for name in ["one.test", "www.one.test", "two.test"] {
        assert_eq!(pebble.visit(&server, name), "hello", "{name}\n{}", server.log());
    }
    // Nobody but the master's user may read what is kept, or see what there is.
    let state = server.path("state");
    let is_private = |path: &Path, mode: u32| {
        let metadata = std::fs::metadata(path).expect("it is there");
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{}", path.display());
        assert_eq!(metadata.uid(), rustix::process::geteuid().as_raw());
    };
    is_private(&state, 0o700);
    for entry in std::fs::read_dir(&state).expect("it is there").flatten() {
        is_private(&entry.path(), 0o600);
    }
    if is_root() {
        let uid = support::server::status_line(server.worker(), "Uid");
        assert!(!uid.starts_with("0 "), "the worker is not root: {uid}");
    }
    // A worker that follows another one is told what there is, and so is one after a restart.
    let worker = server.worker();
    support::gateway::send(worker, rustix::process::Signal::KILL).expect("it is ours");
    server.wait_for_end(worker);
    let visited = || (pebble.visit(&server, "two.test") == "hello").then_some(());
    wait_for("the next worker serves", ORDER_PATIENCE, visited);
    let master = server.master();
    server.signal(rustix::process::Signal::QUIT);
    server.wait_for_end(master);
    server.start();
    wait_for("the server is back", ORDER_PATIENCE, visited);
    assert_eq!(pebble.orders(), 1, "{}", server.log());
    // The page is gone with the order: the server's own answer is back.
    let answer = server.connect(8080).get("one.test", "/.well-known/acme-challenge/x");
    assert_eq!(answer.expect("it answers").status, 301);
}

#[test]
fn names_are_proved_by_a_handshake_with_keys_of_every_kind() {
    if is_missing() {
        return;
    }
    let (server, pebble) = server(&USUAL);
    let kinds = [
        ("a.test", "key=rsa:2048", "rsaEncryption"),
        ("b.test", "key=ecdsa:384", "P-384"),
        ("c.test", "key=ecdsa:256", "P-256"),
    ];
    let servers: Vec<String> = kinds.iter().map(|(name, key, _)| secure(name, key, name)).collect();
    let issuer = pebble.issuer("challenge tls-alpn-01; account_key rsa:2048;");
    server.write(&configuration(&format!("{issuer} {}", servers.concat())));
    server.start();
    wait_for_issue(&server, kinds.len());
    for (name, _, kind) in kinds {
        assert_eq!(pebble.visit(&server, name), name, "{}", server.log());
        let files = kept(&server.path("state"), ".crt");
        let file = files.iter().find(|path| path.to_string_lossy().contains(name)).expect("it is kept");
        let text = run(
            server.folder.path(),
            "openssl",
            &["x509", "-text", "-noout", "-in", &file.to_string_lossy()],
        );
        assert!(text.contains(kind), "{text}");
    }
    // Whoever asks for the proof at another time gets none.
    let to = format!("{}:8443", server.host);
    let arguments = ["s_client", "-connect", &to, "-servername", "a.test", "-alpn", "acme-tls/1"];
    let text = run(server.folder.path(), "openssl", &arguments);
    assert!(text.contains("alert"), "{text}");
}

#[test]
fn a_certificate_is_renewed_and_the_old_one_serves_while_that_fails() {
    if is_missing() {
        return;
    }
    let (server, pebble) = server(&Options { life_seconds: 16, ..USUAL });
    server.write(&configuration(&format!("{} {}", pebble.issuer(""), secure("one.test", "", "hello"))));
    server.start();
    wait_for_issue(&server, 1);
    let serial = || {
        let to = format!("{}:8443", server.host);
        let shown =
            run(server.folder.path(), "openssl", &["s_client", "-connect", &to, "-servername", "one.test"]);
        let start =
            shown.find("-----BEGIN CERTIFICATE-----").unwrap_or_else(|| panic!("{shown}\n{}", server.log()));
        shown[start..].lines().take(20).collect::<String>()
    };
    let first = serial();
    wait_for_issue(&server, 2);
    let second = serial();
    assert_ne!(first, second);
    // Names lead elsewhere: the proof fails, which is said, and what is there is shown on.
    pebble.move_names("127.0.0.2");
    let words = "while obtaining it; next attempt in 6";
    let failed = || server.log().contains(words).then_some(());
    wait_for(&format!("{words}\n{}", server.log()), ORDER_PATIENCE, failed);
    assert!(server.log().contains("http-01 for one.test"), "{}", server.log());
    assert!(server.log().contains("the one that is there goes on"), "{}", server.log());
    serial();
    // It is not tried again before its time, neither over a reload nor over a restart.
    let orders = pebble.orders();
    server.says(&["-s", "reload"], 0);
    serial();
    let master = server.master();
    server.signal(rustix::process::Signal::QUIT);
    server.wait_for_end(master);
    server.start();
    wait_for("the server is back", ORDER_PATIENCE, || TcpStream::connect(server.address(8443)).ok());
    serial();
    assert_eq!(pebble.orders(), orders, "{}", server.log());
}

#[test]
fn gateways_that_share_a_state_path_ask_once() {
    if is_missing() {
        return;
    }
    let (first, pebble) = server(&USUAL);
    let second = Server::new("gapura", "");
    let state = first.path("state");
    for server in [&first, &second] {
        let issuer =
            pebble.issuer("").replace("state_path state", &format!("state_path {}", state.display()));
        server.write(&configuration(&format!("{issuer} {}", secure("one.test", "", "hello"))));
    }
    first.start();
    wait_for("an order", ORDER_PATIENCE, || (pebble.orders() > 0).then_some(()));
    second.start();
    for server in [&first, &second] {
        let visited = || (pebble.visit(server, "one.test") == "hello").then_some(());
        wait_for(&format!("both serve\n{}{}", first.log(), second.log()), ORDER_PATIENCE, visited);
    }
    assert_eq!(pebble.orders(), 1, "{}{}", first.log(), second.log());
}

#[test]
fn a_proof_of_one_gateway_is_shown_by_the_others() {
    if is_missing() {
        return;
    }
    // All names lead to the first one.
    let (first, pebble) = server(&USUAL);
    let second = Server::new("gapura", "");
    let state = first.path("state");
    for (server, name) in [(&first, "one.test"), (&second, "two.test")] {
        let issuer =
            pebble.issuer("").replace("state_path state", &format!("state_path {}", state.display()));
        server.write(&configuration(&format!("{issuer} {}", secure(name, "", "hello"))));
        server.start();
        wait_for_issue(server, 1);
    }
    assert_eq!(pebble.visit(&second, "two.test"), "hello");
    // The first one was asked for what the second one had to prove.
    let asked = text_of(&first.path("access.log"));
    let proofs = |text: &str| text.lines().filter(|line| line.contains("acme-challenge")).count();
    assert!(proofs(&asked) > proofs(&text_of(&second.path("access.log"))), "{asked}");
    assert!(asked.lines().all(|line| line.contains("\" 200 ")), "{asked}");
    assert_eq!(kept(&state, "").iter().filter(|path| path.to_string_lossy().contains("proof.")).count(), 0);
    // What nobody has is not waited for.
    let answer = first.connect(8080).get("one.test", "/.well-known/acme-challenge/x");
    assert_eq!(answer.expect("it answers").status, 301);
}

#[test]
fn an_issuer_that_is_down_holds_up_nothing() {
    if is_missing() {
        return;
    }
    let server = Server::new("gapura", "");
    let mut pebble = Pebble::new(&server.host, &USUAL);
    let text = configuration(&format!("{} {}", pebble.issuer(""), secure("one.test", "", "hello")));
    // In one process, which keeps the files itself.
    server.write(&format!("master_process off; {text}"));
    server.start();
    server.wait_for_log("next attempt in 5 s, handshakes for it fail until then", 1);
    assert!(server.log().contains("connect() failed"), "{}", server.log());
    let answer = server.connect(8080).get("one.test", "/").expect("it answers");
    assert_eq!(answer.status, 301);
    let to = format!("{}:8443", server.host);
    let shown =
        run(server.folder.path(), "openssl", &["s_client", "-connect", &to, "-servername", "one.test"]);
    assert!(shown.contains("alert"), "{shown}\n{}", server.log());
    server.wait_for_log("cert cb error", 1);
    pebble.start();
    wait_for_issue(&server, 1);
    assert_eq!(pebble.visit(&server, "one.test"), "hello");
}

#[test]
fn external_accounts_are_bound() {
    if is_missing() {
        return;
    }
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let (server, pebble) = server(&Options { external: Some(("kid-1", KEY)), ..USUAL });
    let with = |issuer: &str| {
        server.write(&configuration(&format!(
            "{} {}",
            pebble.issuer(issuer),
            secure("one.test", "", "hello")
        )));
    };
    with("");
    server.start();
    server.wait_for_log("\"external_account_key\" is missing", 1);
    assert_eq!(pebble.orders(), 0);
    with(&format!("external_account_key kid-1 data:{KEY};"));
    // It is another issuer now, so that what failed before does not hold it up.
    std::fs::remove_file(&kept(&server.path("state"), ".wait")[0]).expect("the pause is there");
    server.says(&["-s", "reload"], 0);
    wait_for_issue(&server, 1);
    assert_eq!(pebble.visit(&server, "one.test"), "hello");
}

/// An issuer that follows a script: what it was asked, and what it answers by path.
fn scripted(
    listener: TcpListener,
    answers: impl Fn(&str) -> String + Send + 'static,
) -> Arc<Mutex<Vec<String>>> {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().expect("descriptors can be copied"));
            let mut line = String::new();
            let _ = reader.read_line(&mut line);
            let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
            let mut length = 0;
            loop {
                let mut field = String::new();
                if reader.read_line(&mut field).is_err() || field.trim().is_empty() {
                    break;
                }
                if let Some(value) = field.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
            }
            let mut body = vec![0; length];
            let _ = reader.read_exact(&mut body);
            let _ = stream.write_all(answers(&target).as_bytes());
            seen.lock().expect("nobody panics with it").push(target);
        }
    });
    asked
}

fn answer(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{fields}\r\n{body}", body.len())
}

#[test]
fn the_issuer_says_when_to_renew_and_when_to_ask_again() {
    if is_missing() {
        return;
    }
    let server = Server::new("gapura", "");
    let base = format!("http://{}:14000", server.host);
    let directory = format!(
        r#"{{"newNonce":"{base}/nonce","newAccount":"{base}/account","newOrder":"{base}/order","renewalInfo":"{base}/renewal"}}"#
    );
    let listener = TcpListener::bind(format!("{}:14000", server.host)).expect("the address is ours");
    let asked = scripted(listener, move |target| match target {
        "/dir" => answer("200 OK", "", &directory),
        // The window is over: the certificate is to be replaced now.
        _ if target.starts_with("/renewal/") => {
            let window =
                r#"{"suggestedWindow":{"start":"2020-01-01T00:00:00Z","end":"2020-01-02T00:00:00Z"}}"#;
            answer("200 OK", "Retry-After: 21600\r\n", window)
        }
        _ => {
            let problem = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many"}"#;
            answer("429 Too Many Requests", "Retry-After: 7200\r\n", problem)
        }
    });
    // A certificate that has long to live is there already.
    let name =
        acme::order_name(&acme::Identifier::parse("one.test").expect("a name"), acme::KeyKind::default());
    let state = server.path("state");
    std::fs::create_dir(&state).expect("the folder is ours");
    let (key, certificate) = (format!("state/{name}.key"), format!("state/{name}.crt"));
    let made = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "99",
    ];
    let extensions = [
        "-set_serial",
        "0x0087654321",
        "-addext",
        "subjectKeyIdentifier=69885b6b87464041e1b37b847ba0ae2cde01c8d4",
        "-addext",
        "authorityKeyIdentifier=keyid:always",
    ];
    let files = ["-subj", "/CN=one.test", "-keyout", &key, "-out", &certificate];
    run(server.folder.path(), "openssl", &[&made[..], &extensions, &files].concat());
    server.write(&configuration(&format!(
        "acme_issuer pebble {{ uri {base}/dir; state_path state; }} {}",
        secure("one.test", "", "hello")
    )));
    server.start();
    server.wait_for_log(
        "rateLimited: too many while obtaining it; next attempt in 7200 s, the one that is there goes on",
        1,
    );
    let times = |path: &str| {
        let asked = asked.lock().expect("nobody panics with it");
        asked.iter().filter(|target| *target == path).count()
    };
    // The identifier of the key and the serial number in base64url (RFC 9773 section 4.1).
    assert_eq!(times("/renewal/aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"), 1, "{asked:?}");
    assert_eq!(times("/nonce"), 1, "{asked:?}");
    // Reloads and restarts do not make it ask again.
    for _ in 0..3 {
        server.says(&["-s", "reload"], 0);
    }
    let master = server.master();
    server.signal(rustix::process::Signal::QUIT);
    server.wait_for_end(master);
    server.start();
    wait_for("the issuer is asked when to renew", ORDER_PATIENCE, || (times("/dir") > 1).then_some(()));
    wait_for("and says it", ORDER_PATIENCE, || {
        (server.log().matches("suggests to renew it").count() > 1).then_some(())
    });
    let to = format!("::{}:8443", server.host);
    let visit = ["-sSk", "--connect-to", &to, "https://one.test/"];
    assert_eq!(run(server.folder.path(), "curl", &visit), "hello");
    assert_eq!(times("/nonce"), 1, "{asked:?}");
}
