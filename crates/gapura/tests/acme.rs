//! Certificates from an issuer that is not ours: Pebble, the small ACME server that Let's Encrypt tests with. Left out, with
//! a word, where Pebble, curl or OpenSSL are missing.

mod support;

use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use support::pebble::{
    ORDER_PATIENCE, Options, Pebble, USUAL, configuration, is_missing, kept, secure, server, wait_for_issue,
};
use support::server::{Server, is_root};
use support::{run, text_of, wait_for};

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
        ("a.test", "key=rsa:2048", "Public-Key: (2048 bit)"),
        ("b.test", "key=rsa:3072", "Public-Key: (3072 bit)"),
        ("c.test", "key=rsa:4096", "Public-Key: (4096 bit)"),
        ("d.test", "key=rsa", "Public-Key: (2048 bit)"),
        ("e.test", "key=ecdsa:256", "P-256"),
        ("f.test", "key=ecdsa:384", "P-384"),
        ("g.test", "key=ecdsa:521", "P-521"),
        ("h.test", "", "P-256"),
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

#[test]
fn accounts_have_keys_of_every_kind() {
    if is_missing() {
        return;
    }
    let (server, pebble) = server(&USUAL);
    let made: [(&str, &[&str]); 2] = [
        // As a PKCS#8 and a SEC1 file.
        ("rsa.key", &["genrsa", "-out", "rsa.key", "2048"]),
        ("ec.key", &["ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", "ec.key"]),
    ];
    for (_, arguments) in made {
        run(server.folder.path(), "openssl", arguments);
    }
    let keys =
        ["ecdsa:256", "ecdsa:384", "ecdsa:521", "rsa:2048", "rsa:3072", "rsa:4096", "rsa.key", "ec.key"];
    let blocks: Vec<String> = keys
        .iter()
        .enumerate()
        .map(|(number, key)| {
            let issuer = pebble.issuer(&format!("account_key {key};"));
            let issuer = issuer.replace("acme_issuer pebble", &format!("acme_issuer issuer{number}"));
            let issuer = issuer.replace("state_path state", &format!("state_path state{number}"));
            let server = secure(&format!("a{number}.test"), "", key);
            format!(
                "{issuer} {}",
                server.replace("acme_certificate pebble", &format!("acme_certificate issuer{number}"))
            )
        })
        .collect();
    server.write(&configuration(&blocks.concat()));
    server.start();
    wait_for_issue(&server, keys.len());
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(pebble.visit(&server, &format!("a{number}.test")), *key, "{}", server.log());
    }
    // Whose key is given has none made.
    assert!(!server.path("state6/account.key").exists());
    let text = run(&server.path("state2"), "openssl", &["pkey", "-in", "account.key", "-text", "-noout"]);
    assert!(text.contains("P-521"), "{text}");
}

#[test]
fn the_chain_that_is_preferred_is_served() {
    if is_missing() {
        return;
    }
    let (server, pebble) = server(&Options { alternate_roots: 2, ..USUAL });
    let root_name = |number: usize| {
        let root = pebble.root(number).to_string_lossy().into_owned();
        let arguments = ["x509", "-noout", "-subject", "-nameopt", "multiline", "-in", &root];
        let text = run(server.folder.path(), "openssl", &arguments);
        let name = text.lines().find_map(|line| line.split_once("commonName")?.1.split_once("= "));
        name.unwrap_or_else(|| panic!("{text}")).1.to_owned()
    };
    // The issuer's first one where there is none of that name.
    let wanted =
        [("one.test", root_name(1), 1), ("two.test", root_name(2), 2), ("other.test", "Other".to_owned(), 0)];
    let blocks: Vec<String> = wanted
        .iter()
        .map(|(name, root, _)| {
            let issuer = pebble.issuer(&format!("preferred_chain \"{root}\";"));
            let issuer = issuer.replace("acme_issuer pebble", &format!("acme_issuer {name}"));
            let server = secure(name, "", name);
            format!(
                "{issuer} {}",
                server.replace("acme_certificate pebble", &format!("acme_certificate {name}"))
            )
        })
        .collect();
    server.write(&configuration(&blocks.concat()));
    server.start();
    wait_for_issue(&server, wanted.len());
    for (name, _, served) in &wanted {
        for root in 0..3 {
            let is_trusted = pebble.visit_trusting(&server, name, root) == *name;
            assert_eq!(is_trusted, root == *served, "{name} {root}\n{}", server.log());
        }
    }
}

#[test]
fn addresses_get_certificates_by_either_proof() {
    if is_missing() {
        return;
    }
    let (server, pebble) = server(&USUAL);
    let by_page = pebble.issuer("common_name_in_csr on;");
    let by_handshake = pebble.issuer("challenge tls-alpn-01;");
    let by_handshake = by_handshake.replace("acme_issuer pebble", "acme_issuer handshake");
    let other = by_handshake.replace("state_path state", "state_path other");
    // One server takes it from its name, which no handshake says for an address: it is the default one.
    let one = secure("%HOST%", "", "hello");
    let two = secure("two.test", "two.test %HOST%", "two")
        .replace("acme_certificate pebble", "acme_certificate handshake");
    server.write(&configuration(&format!("{by_page} {other} {one} {two}")));
    server.start();
    wait_for_issue(&server, 2);
    assert_eq!(pebble.visit(&server, &server.host.clone()), "hello", "{}", server.log());
    assert_eq!(pebble.visit(&server, "two.test"), "two", "{}", server.log());
    for folder in ["state", "other"] {
        let file = kept(&server.path(folder), ".crt").pop().expect("it is kept");
        let arguments = ["x509", "-text", "-noout", "-in", &file.to_string_lossy()];
        let text = run(server.folder.path(), "openssl", &arguments);
        assert!(text.contains(&format!("IP Address:{}", server.host)), "{text}");
    }
}

#[test]
fn a_server_has_certificates_of_its_own_beside_those_of_an_issuer() {
    if is_missing() {
        return;
    }
    let (server, pebble) = server(&USUAL);
    for name in ["one.test", "other.test"] {
        let (key, certificate, subject) =
            (format!("{name}.key"), format!("{name}.crt"), format!("/CN=own {name}"));
        let made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", &subject];
        run(server.folder.path(), "openssl", &[&made[..], &["-keyout", &key, "-out", &certificate]].concat());
        // Who serves reads what variables name.
        let readable = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(server.path(&key), readable).expect("it was made");
    }
    let own = "acme_certificate pebble one.test; ssl_certificate %DIR%/$ssl_server_name.crt;
        ssl_certificate_key %DIR%/$ssl_server_name.key;";
    let both = secure("one.test other.test", "", "hello").replace("acme_certificate pebble ;", own);
    server.write(&configuration(&format!("{} {both}", pebble.issuer(""))));
    server.start();
    wait_for_issue(&server, 1);
    // RSA is what the file has, ECDSA what the issuer gave.
    let to = format!("{}:8443", server.host);
    let shown = |name: &str, signature: &str| {
        let arguments = ["s_client", "-connect", &to, "-servername", name, "-tls1_2", "-cipher", signature];
        run(server.folder.path(), "openssl", &arguments)
    };
    let own = shown("one.test", "aRSA");
    assert!(own.contains("CN = own one.test"), "{own}\n{}", server.log());
    let issued = shown("one.test", "aECDSA");
    assert!(issued.contains("Pebble Intermediate"), "{issued}\n{}", server.log());
    let own = shown("other.test", "aRSA");
    assert!(own.contains("CN = own other.test"), "{own}\n{}", server.log());
    assert_eq!(pebble.visit(&server, "one.test"), "hello", "{}", server.log());
}

#[test]
fn an_issuer_is_judged_by_its_own_certificate() {
    if is_missing() {
        return;
    }
    let (server, pebble) = server(&USUAL);
    let made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=else"];
    run(server.folder.path(), "openssl", &[&made[..], &["-keyout", "else.key", "-out", "else.crt"]].concat());
    let trusted = format!("ssl_trusted_certificate {};", pebble.path("pebble.crt").display());
    let address = format!("https://{}:14000", pebble.host);
    // Whose name leads there, and is not in its certificate.
    let resolver = format!("resolver {}:15353 ipv6=off;", pebble.host);
    let cases = [
        ("strangers", trusted.as_str(), "ssl_trusted_certificate else.crt;", ""),
        // The system's authorities.
        ("system", trusted.as_str(), "", ""),
        ("name", address.as_str(), "https://issuer.test:14000", ""),
        ("unjudged", trusted.as_str(), "ssl_verify off;", "hello"),
        ("unjudged2", trusted.as_str(), "ssl_trusted_certificate else.crt; ssl_verify off;", "hello"),
    ];
    let blocks: Vec<String> = cases
        .iter()
        .map(|(name, from, to, _)| {
            let issuer = pebble.issuer("").replace(from, to);
            let issuer = issuer.replace("acme_issuer pebble", &format!("acme_issuer {name}"));
            let issuer = issuer.replace("state_path state", &format!("state_path {name}"));
            let server = secure(&format!("{name}.test"), "", "hello");
            format!(
                "{issuer} {}",
                server.replace("acme_certificate pebble", &format!("acme_certificate {name}"))
            )
        })
        .collect();
    server.write(&configuration(&format!("{resolver} {}", blocks.concat())));
    server.start();
    wait_for_issue(&server, 2);
    server.wait_for_log("while obtaining it; next attempt in", 3);
    for (name, _, _, expected) in cases {
        let visited = pebble.visit(&server, &format!("{name}.test"));
        assert_eq!(visited == "hello", expected == "hello", "{name}: {visited}\n{}", server.log());
    }
    for (name, words) in [
        ("strangers", "upstream SSL certificate verify error: (18:self-signed certificate)"),
        ("system", "upstream SSL certificate verify error: (18:self-signed certificate)"),
        ("name", "upstream SSL certificate does not match \"issuer.test\""),
    ] {
        let ending = format!("acme issuer \"{name}\"");
        let log = server.log();
        let line = log.lines().find(|line| line.contains("next attempt") && line.contains(&ending));
        assert!(line.is_some_and(|line| line.contains(words)), "{name}: {log}");
    }
}
