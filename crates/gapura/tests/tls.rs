//! HTTPS as real clients see it: curl and OpenSSL against the program, with certificates made on the spot. Left out,
//! with a word, where those programs are missing.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use support::server::{Server, is_root};
use support::{clients_are_missing, run, text_of};

/// A self-signed certificate with its key: `NAME.crt` and `NAME.key`.
fn make_certificate(folder: &Path, name: &str, kind: &[&str], subject: &str) {
    let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
    let files = ["-nodes", "-keyout", &key, "-out", &certificate, "-days", "2", "-subj", subject];
    let made = run(folder, "openssl", &[&["req", "-x509", "-newkey"], kind, &files].concat());
    assert!(folder.join(&certificate).exists(), "{made}");
}

const RSA: &[&str] = &["rsa:2048"];
const ECDSA: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];

const CONFIGURATION: &str = "
error_log error.log info;
pid nginx.pid;
events { }
http {
    access_log off;
    ssl_certificate rsa.crt;
    ssl_certificate_key rsa.key;
    ssl_certificate ec.crt;
    ssl_certificate_key ec.key;
    ssl_session_cache shared:tls:1m;
    server {
        listen %HOST%:8443 ssl;
        root .;
        location = /seen { return 200 \"$https $ssl_protocol $ssl_cipher $ssl_session_reused\\n\"; }
        location = /moved { return 302 /there; }
    }
    server {
        listen %HOST%:8443 ssl;
        server_name clients.example;
        ssl_verify_client on;
        ssl_client_certificate authority.crt;
        return 200 \"$ssl_client_verify $ssl_client_s_dn\\n\";
    }
    server {
        listen %HOST%:8446 ssl;
        http2 on;
        ssl_certificate rsa.crt;
        ssl_certificate_key rsa.key;
        return 200 \"$server_protocol $ssl_server_name $connection\\n\";
    }
    server {
        listen %HOST%:8447;
        location / {
            proxy_pass https://%HOST%:8446;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate rsa.crt;
            proxy_ssl_server_name on;
            proxy_ssl_name $arg_name;
        }
    }
    server {
        listen %HOST%:8448 ssl;
        ssl_certificate $ssl_server_name.crt;
        ssl_certificate_key $ssl_server_name.key;
        ssl_certificate_cache max=10 valid=1h;
        return 200 \"$ssl_sigalg\\n\";
    }
    server {
        listen %HOST%:8444 ssl;
        ssl_reject_handshake on;
    }
    server {
        listen %HOST%:8445 ssl;
        ssl_session_cache shared:tls:1m;
        ssl_session_tickets off;
        return 200 \"$ssl_session_reused\\n\";
    }
}
";

/// A server with its certificates; none where the clients are missing.
fn server(name: &str) -> Option<Server> {
    if clients_are_missing() {
        return None;
    }
    let server = Server::new(name, CONFIGURATION);
    let folder = server.folder.path();
    make_certificate(folder, "rsa", RSA, "/CN=rsa.example");
    make_certificate(folder, "ec", ECDSA, "/CN=ec.example");
    make_certificate(folder, "authority", RSA, "/CN=authority");
    make_certificate(folder, "stranger", ECDSA, "/CN=stranger");
    run(
        folder,
        "openssl",
        &[
            "req",
            "-new",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "client.key",
            "-out",
            "client.csr",
            "-subj",
            "/O=Org, Inc/CN=client",
        ],
    );
    run(
        folder,
        "openssl",
        &[
            "x509",
            "-req",
            "-in",
            "client.csr",
            "-CA",
            "authority.crt",
            "-CAkey",
            "authority.key",
            "-CAcreateserial",
            "-out",
            "client.crt",
        ],
    );
    std::fs::write(folder.join("large"), vec![b'x'; 1 << 20]).expect("the folder is ours");
    server.start();
    Some(server)
}

impl Visitor<'_> {
    fn curl(&self, url: &str, options: &[&str]) -> String {
        let url = url.replace("HOST", &self.0.host);
        let named = format!("clients.example:8443:{}:8443", self.0.host);
        let usual = ["-sk", "--max-time", "60", "--connect-to", &named, &url];
        run(self.0.folder.path(), "curl", &[&usual[..], options].concat())
    }

    fn openssl(&self, port: u16, options: &[&str]) -> String {
        let to = format!("{}:{port}", self.0.host);
        run(self.0.folder.path(), "openssl", &[&["s_client", "-connect", &to], options].concat())
    }
}

/// Somebody who looks at a server.
struct Visitor<'a>(&'a Server);

#[test]
fn requests_over_tls() {
    let Some(server) = server("tls-requests") else { return };
    let visitor = Visitor(&server);
    let seen = visitor.curl("https://HOST:8443/seen", &[]);
    assert_eq!(seen, "on TLSv1.3 TLS_AES_256_GCM_SHA384 .\n");
    let seen = visitor
        .curl("https://HOST:8443/seen", &["--tls-max", "1.2", "--ciphers", "ECDHE-RSA-AES128-GCM-SHA256"]);
    assert_eq!(seen, "on TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256 .\n");
    let moved = visitor.curl("https://HOST:8443/moved", &["-o", "/dev/null", "-w", "%{redirect_url}"]);
    assert_eq!(moved, format!("https://{}:8443/there", server.host));
    let plain = visitor.curl("http://HOST:8443/", &[]);
    assert!(plain.contains("400 The plain HTTP request was sent to HTTPS port"), "{plain}");
    let length = visitor.curl("https://HOST:8443/large", &["-o", "large.read", "-w", "%{size_download}"]);
    assert_eq!(length, (1 << 20).to_string());
    assert!(
        std::fs::read(server.path("large.read")).expect("curl wrote it").iter().all(|byte| *byte == b'x')
    );
}

#[test]
fn http2_is_agreed_on() {
    let Some(server) = server("tls-http2") else { return };
    let visitor = Visitor(&server);
    for (option, protocol) in [("--http2", "HTTP/2.0"), ("--http1.1", "HTTP/1.1")] {
        let said = visitor.curl("https://HOST:8446/", &[option]);
        assert!(said.starts_with(protocol), "{option}: {said}");
    }
    let version =
        visitor.curl("https://HOST:8443/seen", &["--http2", "-o", "/dev/null", "-w", "%{http_version}"]);
    assert_eq!(version, "1.1", "where HTTP/2 is off it is not offered");
}

#[test]
fn upstreams_are_judged_by_the_name_that_each_request_wants() {
    let Some(server) = server("tls-upstream") else { return };
    let visitor = Visitor(&server);
    let right = visitor.curl("http://HOST:8447/?name=rsa.example", &[]);
    assert!(right.starts_with("HTTP/1.1 rsa.example "), "{right}");
    assert_eq!(
        visitor.curl("http://HOST:8447/?name=rsa.example", &[]),
        right,
        "the connection is used again"
    );
    // The connection that is kept was judged under another name.
    let wrong = visitor.curl("http://HOST:8447/?name=other.example", &[]);
    assert!(wrong.contains("502 Bad Gateway"), "{wrong}");
    let told = "upstream SSL certificate does not match \"other.example\" while SSL handshaking to upstream";
    server.wait_for_log(told, 1);
}

#[test]
fn certificates_by_what_clients_can_check() {
    let Some(server) = server("tls-certificates") else { return };
    let visitor = Visitor(&server);
    for (options, subject) in [
        (&["-sigalgs", "RSA-PSS+SHA256"][..], "CN = rsa.example"),
        (&["-sigalgs", "ECDSA+SHA256"], "CN = ec.example"),
        (&["-tls1_2", "-cipher", "aRSA"], "CN = rsa.example"),
        (&["-tls1_2", "-cipher", "aECDSA"], "CN = ec.example"),
    ] {
        let said = visitor.openssl(8443, options);
        assert!(said.replace("CN=", "CN = ").contains(subject), "{options:?}: {said}");
    }
    let refused = visitor.openssl(8444, &[]);
    assert!(refused.contains("alert number 112"), "{refused}");
}

#[test]
fn certificates_that_variables_name() {
    let Some(server) = server("tls-named") else { return };
    let visitor = Visitor(&server);
    let subject = |name: &str| visitor.openssl(8448, &["-servername", name]).replace("CN=", "CN = ");
    for name in ["rsa", "ec"] {
        // It is the worker who reads them, as in nginx.
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(server.path(&format!("{name}.key")), readable).expect("the folder is ours");
        let said = subject(name);
        assert!(said.contains(&format!("CN = {name}.example")), "{said}");
    }
    // A renewed pair is not mixed with the one that is kept; what is kept is used while it is valid.
    std::fs::copy(server.path("stranger.crt"), server.path("ec.crt")).expect("the folder is ours");
    assert!(subject("ec").contains("CN = ec.example"), "it is in the cache");
    let missing = subject("nobody");
    assert!(missing.contains("alert number 80"), "{missing}");
    let path = server.path("nobody.crt");
    server.wait_for_log(&format!("cannot load certificate \"{}\": BIO_new_file() failed", path.display()), 1);
    server.wait_for_log("cert cb error", 1);
}

/// Answers every request with these bytes as an OCSP response, until the process ends.
fn answer_in_background(listener: TcpListener, answer: Vec<u8>) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = Vec::new();
            let mut piece = [0; 1024];
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(count @ 1..) => request.extend_from_slice(&piece[..count]),
                    _ => break,
                }
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\nContent-Length: {}\r\n\r\n",
                answer.len()
            );
            // A client that is gone is no matter of ours.
            let _ = stream.write_all(&[head.as_bytes(), &answer].concat());
        }
    });
}

#[test]
fn answers_about_certificates_are_stapled() {
    let Some(server) = server("tls-stapling") else { return };
    let visitor = Visitor(&server);
    let folder = server.folder.path();
    let serial = run(folder, "openssl", &["x509", "-in", "client.crt", "-noout", "-serial"]);
    let serial = serial.trim().trim_start_matches("serial=");
    let make_answer = |status: &str, name: &str| {
        let index = format!("{status}\t{serial}\tunknown\t/CN=client\n");
        std::fs::write(folder.join("index"), index).expect("the folder is ours");
        let question =
            ["ocsp", "-issuer", "authority.crt", "-cert", "client.crt", "-no_nonce", "-reqout", "question"];
        run(folder, "openssl", &question);
        let signer = ["-CA", "authority.crt", "-rsigner", "authority.crt", "-rkey", "authority.key"];
        let files = ["ocsp", "-index", "index", "-reqin", "question", "-ndays", "1", "-respout", name];
        let said = run(folder, "openssl", &[&files[..], &signer].concat());
        std::fs::read(folder.join(name)).unwrap_or_else(|_| panic!("{said}"))
    };
    let good = make_answer("V\t491231235959Z\t", "good.der");
    let revoked = make_answer("R\t491231235959Z\t250101000000Z", "revoked.der");
    for (port, answer) in [(8460, good), (8461, revoked)] {
        let listener = TcpListener::bind((server.host.as_str(), port)).expect("the address is ours");
        answer_in_background(listener, answer);
    }
    let host = &server.host;
    let one = |port: u16, stapling: &str| {
        format!(
            "server {{ listen {host}:{port} ssl; ssl_certificate client.crt; ssl_certificate_key client.key; \
             ssl_trusted_certificate authority.crt; ssl_stapling on; ssl_stapling_verify on; {stapling} }}"
        )
    };
    let asked = |port: u16| format!("ssl_stapling_responder http://{host}:{port}/;");
    // One that is silent keeps the others waiting no longer than their own do.
    let _silent = TcpListener::bind((host.as_str(), 8462)).expect("the address is ours");
    let servers = [
        one(8450, &asked(8462)),
        one(8451, "ssl_stapling_file good.der;"),
        one(8452, &asked(8460)),
        one(8453, &asked(8461)),
    ];
    let text = CONFIGURATION.trim_end().strip_suffix('}').expect("a block ends it").to_owned();
    server.write(&format!("{text}{}}}", servers.concat()));
    server.says(&["-s", "reload"], 0);
    let status = |port: u16| visitor.openssl(port, &["-status"]);
    let said = status(8451);
    assert!(said.contains("Cert Status: good"), "{said}");
    // It is asked for in the background.
    let told = "certificate status \"revoked\" in the OCSP response while requesting certificate status";
    server.wait_for_log(told, 1);
    server.wait_for("an answer that was asked for", || {
        status(8452).contains("Cert Status: good").then_some(())
    });
    let said = status(8453);
    assert!(said.contains("no response sent"), "what is revoked is not said: {said}");
}

#[test]
fn client_certificates() {
    let Some(server) = server("tls-clients") else { return };
    let visitor = Visitor(&server);
    let url = "https://clients.example:8443/";
    let known = visitor.curl(url, &["--cert", "client.crt", "--key", "client.key"]);
    assert_eq!(known, "SUCCESS CN=client,O=Org\\, Inc\n");
    let none = visitor.curl(url, &[]);
    assert!(none.contains("400 No required SSL certificate was sent"), "{none}");
    let stranger = visitor.curl(url, &["--cert", "stranger.crt", "--key", "stranger.key"]);
    assert!(stranger.contains("400 The SSL certificate error"), "{stranger}");
    server.wait_for_log("client SSL certificate verify error: (18:self-signed certificate)", 1);
    let other = visitor.curl(url, &["-H", "Host: other.example"]);
    assert!(!other.contains("421 Misdirected"), "the default server asks for nothing: {other}");
}

#[test]
fn sessions_resume_also_over_a_reload() {
    let Some(server) = server("tls-sessions") else { return };
    let visitor = Visitor(&server);
    for port in [8443, 8445] {
        let first = visitor.openssl(port, &["-tls1_2", "-sess_out", "session"]);
        assert!(first.contains("New, TLSv1.2"), "{first}");
        let again = visitor.openssl(port, &["-tls1_2", "-sess_in", "session"]);
        assert!(again.contains("Reused, TLSv1.2"), "{port}: {again}");
        server.says(&["-s", "reload"], 0);
        let reloaded = visitor.openssl(port, &["-tls1_2", "-sess_in", "session"]);
        assert!(reloaded.contains("Reused, TLSv1.2"), "{port}, reloaded: {reloaded}");
    }
    // Tickets of one server are worth nothing at another with other certificates.
    let text = CONFIGURATION.replace("ssl_certificate rsa", "ssl_certificate stranger");
    server.write(&text.replace("ssl_certificate_key rsa", "ssl_certificate_key stranger"));
    server.says(&["-s", "reload"], 0);
    let changed = visitor.openssl(8443, &["-tls1_2", "-sess_in", "session"]);
    assert!(changed.contains("New, TLSv1.2"), "{changed}");
}

#[test]
fn what_is_wrong_with_files() {
    let Some(server) = server("tls-files") else { return };
    let test = |changes: &[(&str, &str)]| {
        let mut text = CONFIGURATION.to_owned();
        for (from, to) in changes {
            text = text.replace(from, to);
        }
        server.write(&text);
        server.says(&["-t"], 1)
    };
    let said = test(&[("ssl_certificate rsa.crt", "ssl_certificate missing.crt")]);
    let path = server.path("missing.crt");
    let expected = format!(
        "cannot load certificate \"{0}\": BIO_new_file() failed (SSL: error:80000002:system library::No such file or \
         directory:calling fopen({0}, r) error:10000080:BIO routines::no such file)",
        path.display()
    );
    assert!(said.contains(&expected), "{said}");
    let said = test(&[("ssl_certificate_key rsa.key", "ssl_certificate_key authority.key")]);
    assert!(
        said.contains("failed (SSL: error:05800074:x509 certificate routines::key values mismatch)"),
        "{said}"
    );
    let said = test(&[("    ssl_certificate", "    #")]);
    assert!(
        said.contains("no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive in "),
        "{said}"
    );
    let said =
        test(&[("ssl_session_cache shared:tls:1m;\n    server", "ssl_ciphers AES128-SHA;\n    server")]);
    assert!(said.contains("SSL_CTX_set_cipher_list(\"AES128-SHA\") failed"), "{said}");
}

/// Makes a certificate of one authority of its own below another: `NAME.crt` and `NAME.key`.
fn issue(folder: &Path, name: &str, issuer: &str, days: &str, extensions: &str) {
    std::fs::write(folder.join("extensions"), extensions).expect("the folder is ours");
    let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
    let subject = format!("/CN={name}");
    let made = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-keyout", &key, "-out", &request];
    run(folder, "openssl", &made);
    let (ca, ca_key) = (format!("{issuer}.crt"), format!("{issuer}.key"));
    let signed = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial"];
    let more = ["-days", days, "-extfile", "extensions", "-out", &certificate];
    let text = run(folder, "openssl", &[&signed[..], &more].concat());
    assert!(folder.join(&certificate).exists(), "{text}");
}

#[test]
fn what_is_often_wrong_with_certificates_is_told_with_what_to_do() {
    let Some(server) = server("tls-advice") else { return };
    let folder = server.folder.path();
    let names = "subjectAltName=DNS:test\nauthorityInfoAccess=caIssuers;URI:http://ca.test/middle.crt";
    issue(folder, "middle", "rsa", "2", "basicConstraints=critical,CA:true");
    issue(folder, "leaf", "middle", "2", names);
    issue(folder, "private", "middle", "2", "subjectAltName=DNS:test");
    issue(folder, "over", "rsa", "-1", "subjectAltName=DNS:test");
    let text = |name: &str| text_of(&server.path(name));
    for (name, parts) in [
        ("full.crt", ["leaf.crt", "middle.crt", ""]),
        ("reversed.crt", ["middle.crt", "leaf.crt", ""]),
        ("shuffled.crt", ["leaf.crt", "rsa.crt", "middle.crt"]),
        ("garbage", ["words", "", ""]),
    ] {
        let joined: String = parts.iter().filter(|part| !part.is_empty()).map(|part| text(part)).collect();
        std::fs::write(server.path(name), joined).expect("the folder is ours");
    }
    let configure = |certificate: &str, key: &str| {
        let names = format!("ssl_certificate {certificate}; ssl_certificate_key {key};");
        server.write(
            &CONFIGURATION.replace("ssl_certificate rsa.crt;\n    ssl_certificate_key rsa.key;", &names),
        );
    };
    let test = |certificate: &str, key: &str, program: &[&str]| {
        configure(certificate, key);
        let called = server.command(&["-t"]);
        let mut command = Command::new(program.first().map_or(called.get_program(), |first| first.as_ref()));
        command.args(program.iter().skip(1));
        if !program.is_empty() {
            command.arg(called.get_program());
        }
        let output = command.args(called.get_args()).env("GAPURA_SNIPPETS", "1").output().expect("it starts");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let cases = [
        ("full.crt", "leaf.key", "", ""),
        // An authority of one's own issues without anything between.
        ("private.crt", "private.key", "", ""),
        (
            "leaf.crt",
            "leaf.key",
            "[warn] certificate \"%/leaf.crt\" comes without that of its issuer, \"CN=middle\"",
            "most clients refuse it: name the file with the whole chain (often \"fullchain.pem\")",
        ),
        (
            "reversed.crt",
            "leaf.key",
            "[emerg] SSL_CTX_use_PrivateKey(\"%/leaf.key\") failed",
            "the key is that of certificate 2 in \"%/reversed.crt\", which must be the first",
        ),
        (
            "shuffled.crt",
            "leaf.key",
            "[warn] certificates in \"%/shuffled.crt\" are not in order",
            "number 2 in the file is not that of the issuer of number 1",
        ),
        (
            "full.crt",
            "rsa.key",
            "[emerg] SSL_CTX_use_PrivateKey(\"%/rsa.key\") failed",
            "the key is not that of the certificate in \"%/full.crt\"",
        ),
        (
            "over.crt",
            "over.key",
            "[warn] certificate \"%/over.crt\" expired on ",
            "clients refuse it: have it renewed, put the new one in its place, and reload",
        ),
        (
            "leaf.key",
            "leaf.key",
            "[emerg] cannot load certificate \"%/leaf.key\": PEM_read_bio_X509_AUX() failed",
            "the file holds a key; has it changed places with the certificate's?",
        ),
        (
            "garbage",
            "leaf.key",
            "[emerg] cannot load certificate \"%/garbage\": PEM_read_bio_X509_AUX() failed",
            "the file should begin with a certificate in PEM form",
        ),
        (
            "full.crt",
            "full.crt",
            "[emerg] cannot load certificate key \"%/full.crt\": PEM_read_bio_PrivateKey() failed",
            "the file holds no private key; is it the certificate's file?",
        ),
        (
            "full.crt",
            "none.key",
            "[emerg] cannot load certificate key \"%/none.key\": BIO_new_file() failed",
            "there is no \"%/none.key\"",
        ),
        (
            "full.crt",
            "logs",
            "[emerg] cannot load certificate key \"%/logs\": PEM_read_bio_PrivateKey() failed",
            "\"%/logs\" is a folder; the key is a file in it",
        ),
    ];
    let inside = |words: &str| words.replace('%', folder.to_str().expect("a path of letters"));
    for (certificate, key, line, help) in cases {
        let said = test(certificate, key, &[]);
        // Nothing else is told, and what nginx says comes first.
        let first = said.lines().next().unwrap_or_default();
        let told = said.matches("[emerg]").count() + said.matches("[warn]").count();
        assert_eq!(told, usize::from(!line.is_empty()), "{certificate} {key}: {said}");
        if told > 0 {
            assert!(first.contains(&inside(line)), "{certificate} {key}: {said}");
            assert!(said.replace("\n    ", " ").contains(&inside(help)), "{certificate} {key}: {said}");
        }
    }
    if is_root() {
        let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        let said = test("full.crt", "leaf.key", &nobody);
        assert!(said.contains("Permission denied:calling fopen("), "{said}");
        assert!(
            said.contains("whoever starts the server must be able to read the key: start it as root"),
            "{said}"
        );
    }
    // So does the log when a reload fails.
    configure("middle.crt", "rsa.key");
    server.signal(rustix::process::Signal::HUP);
    server.wait_for_log(&inside("help: the key is not that of the certificate in \"%/middle.crt\""), 1);
}

#[test]
fn encrypted_keys() {
    let Some(server) = server("tls-keys") else { return };
    let folder = server.folder.path();
    std::fs::write(folder.join("words"), "wrong\nright\n").expect("the folder is ours");
    let older =
        ["rsa", "-in", "rsa.key", "-traditional", "-aes256", "-passout", "pass:right", "-out", "older.key"];
    let newer =
        ["pkcs8", "-topk8", "-in", "ec.key", "-v2", "aes256", "-passout", "pass:right", "-out", "newer.key"];
    for arguments in [&older[..], &newer, &["ec", "-in", "ec.key", "-out", "sec1.key"]] {
        run(folder, "openssl", arguments);
    }
    let keys =
        CONFIGURATION.replace("_key rsa.key", "_key older.key").replace("_key ec.key", "_key newer.key");
    server.write(&keys);
    let said = server.says(&["-t"], 1);
    assert!(said.contains("problems getting password"), "{said}");
    let words =
        keys.replace("ssl_session_cache shared:tls:1m;\n    server", "ssl_password_file words;\n    server");
    server.write(&words);
    server.says(&["-t"], 0);
    server.write(&words.replace("newer.key", "sec1.key"));
    server.says(&["-t"], 0);
}
