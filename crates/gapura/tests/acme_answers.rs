//! What issuers may answer that is not as it should be: whatever comes, the log says why there is no certificate, nothing
//! else is held up, and the certificate that is there is shown until a new one works. Left out, with a word, where curl or
//! OpenSSL are missing.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;
use support::issuers::{Answer, Issuers, answer, problem};
use support::pebble::{ORDER_PATIENCE, configuration};
use support::server::Server;
use support::{clients_are_missing, hosts, run, wait_for};

/// Puts a certificate into a state path that is to be renewed by now and is good for years.
fn keep_old(server: &Server, issuer: &str) {
    let day = 24 * 3600;
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time after 1970");
    let year = 1970 + i32::try_from(since.as_secs() / (365 * day)).expect("a year");
    let name = format!("{issuer}.test");
    let mut parameters = rcgen::CertificateParams::new(vec![name.clone()]).expect("a name");
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "the old one");
    parameters.not_before = rcgen::date_time_ymd(year - 30, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(year + 3, 1, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = parameters.self_signed(&key).expect("a certificate");
    let identifiers = acme::Identifier::parse(&name).expect("a name");
    let order = acme::order_name(&identifiers, acme::KeyKind::default());
    std::fs::create_dir(server.path(issuer)).expect("the folder is ours");
    for (ending, text) in [("crt", certificate.pem()), ("key", key.serialize_pem())] {
        std::fs::write(server.path(&format!("{issuer}/{order}.{ending}")), text).expect("the folder is ours");
    }
}

/// Who the certificate of a name is for, and who issued it.
fn shown(server: &Server, issuer: &str) -> String {
    let (to, name) = (format!("{}:8443", server.host), format!("{issuer}.test"));
    let text = run(server.folder.path(), "openssl", &["s_client", "-connect", &to, "-servername", &name]);
    let lines = text.lines().filter(|line| line.starts_with("subject=") || line.starts_with("issuer="));
    lines.collect::<Vec<_>>().join(" ")
}

/// The step that is broken, what is answered there, and what the log says.
type Case = (&'static str, &'static str, fn(usize) -> Answer, &'static str);

/// The name of the issuer is that of the case.
const CASES: &[Case] = &[
    (
        "page",
        "dir",
        |_| Answer::Text(answer("200 OK", "", "<html>hello")),
        "/page/dir is no directory of an ACME server while obtaining it; next attempt in 6",
    ),
    (
        "list",
        "dir",
        |_| Answer::Text(answer("200 OK", "", "[[[[")),
        "/list/dir is no directory of an ACME server",
    ),
    (
        "missing",
        "dir",
        |_| Answer::Text(answer("404 Not Found", "", "")),
        "/missing/dir answered with status 404 while obtaining it; next attempt in 5 s",
    ),
    (
        "circle",
        "dir",
        |_| Answer::Text(answer("301 Moved", "Location: /circle/dir\r\n", "")),
        "/circle/dir leads from one address to the next",
    ),
    (
        "garbage",
        "dir",
        |_| Answer::Text("\u{1}\u{2}\r\n\r\n".to_owned()),
        "a malformed head was found while reading the response of",
    ),
    (
        "head",
        "dir",
        |_| Answer::Endless("HTTP/1.1 200 OK\r\nX: "),
        "a malformed head was found while reading the response of",
    ),
    (
        "endless",
        "dir",
        |_| Answer::Endless("HTTP/1.1 200 OK\r\n\r\n"),
        "too much came while reading the response of",
    ),
    (
        "chunks",
        "dir",
        |_| Answer::Text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned()),
        "malformed chunks were found while reading the response of",
    ),
    (
        "cut",
        "account",
        |_| Answer::Text(String::new()),
        "the connection was closed while reading the response of",
    ),
    (
        "midway",
        "account",
        |_| Answer::Text("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{".to_owned()),
        "the connection was closed while reading the response of",
    ),
    ("nonceless", "nonce", |_| Answer::Text(answer("200 OK", "", "")), "the issuer gives no nonce"),
    (
        "nonces",
        "account",
        |time| {
            problem("400 Bad Request", &format!("Replay-Nonce: again{time}\r\n"), "badNonce", "not this one")
        },
        "badNonce: not this one while obtaining it",
    ),
    (
        "limited",
        "new-order",
        |_| problem("429 Too Many Requests", "Retry-After: 7200\r\n", "rateLimited", "too many"),
        "rateLimited: too many while obtaining it; next attempt in 7200 s",
    ),
    (
        "busy",
        "new-order",
        |_| Answer::Text(answer("503 Service Unavailable", "", "later")),
        "/busy/new-order answered with status 503 while obtaining it; next attempt in 3600 s",
    ),
    (
        "forever",
        "new-order",
        |_| Answer::Text(answer("429 Too Many", "Retry-After: 99999999999\r\n", "")),
        "answered with status 429 while obtaining it; next attempt in 604800 s",
    ),
    (
        "deactivated",
        "account",
        |_| Answer::Text(answer("200 OK", "Location: /deactivated/me\r\n", r#"{"status":"deactivated"}"#)),
        "the account is deactivated",
    ),
    (
        "homeless",
        "account",
        |_| Answer::Text(answer("200 OK", "", r#"{"status":"valid"}"#)),
        "the account has no address",
    ),
    (
        "unread",
        "new-order",
        |_| Answer::Text(answer("201 Created", "Location: /x/y\r\n", r#"{"status":7}"#)),
        "the order cannot be read",
    ),
    (
        "lost",
        "new-order",
        |_| {
            Answer::Text(answer(
                "201 Created",
                "",
                r#"{"status":"pending","authorizations":[],"finalize":"/lost/f"}"#,
            ))
        },
        "the order has no address",
    ),
    (
        "denied",
        "authorization",
        |_| {
            Answer::Text(answer(
                "200 OK",
                "",
                r#"{"status":"invalid","identifier":{"type":"dns","value":"denied.test"},"challenges":[]}"#,
            ))
        },
        "the authorization of denied.test is over",
    ),
    (
        "stranger",
        "authorization",
        |_| {
            Answer::Text(answer(
                "200 OK",
                "",
                r#"{"status":"pending","identifier":{"type":"dns","value":"stranger.test"},"challenges":[{"type":"dns-01","url":"/x","token":"t"}]}"#,
            ))
        },
        "the issuer takes no http-01 for stranger.test",
    ),
    (
        "refused",
        "finalize",
        |_| problem("403 Forbidden", "", "badCSR", "the key is weak\\u0000\\r\\n[emerg] not a line"),
        "badCSR: the key is weak   [emerg] not a line while obtaining it; next attempt in 3",
    ),
    (
        "invalid",
        "finalize",
        |_| {
            Answer::Text(answer(
                "200 OK",
                "",
                r#"{"status":"invalid","authorizations":[],"finalize":"/f","error":{"type":"urn:ietf:params:acme:error:caa","detail":"not allowed"}}"#,
            ))
        },
        "caa: not allowed while obtaining it",
    ),
    (
        "empty",
        "certificate",
        |_| Answer::Text(answer("200 OK", "", "")),
        "the issuer's certificate cannot be used",
    ),
    (
        "noise",
        "certificate",
        |_| {
            Answer::Text(answer(
                "200 OK",
                "",
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            ))
        },
        "the issuer's certificate cannot be used",
    ),
    (
        "binary",
        "certificate",
        |_| Answer::Endless("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        "the issuer's certificate cannot be used",
    ),
];

#[test]
fn whatever_an_issuer_says_the_log_says_it_and_the_old_certificate_serves() {
    if clients_are_missing() {
        return;
    }
    let server = Server::new("gapura", "");
    let counts: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let issuers = Issuers::new(&server, move |asked| {
        let Some((name, _, answer, _)) =
            CASES.iter().find(|(name, step, ..)| *name == asked.issuer && *step == asked.step)
        else {
            return Answer::Good;
        };
        let mut counts = counts.lock().expect("nobody panics with it");
        let count = counts.entry((*name).to_owned()).or_default();
        *count += 1;
        answer(*count)
    });
    let mut blocks = String::new();
    for (name, ..) in CASES {
        keep_old(&server, name);
        blocks.push_str(&issuers.block(name, ""));
    }
    server.write(&configuration(&blocks));
    server.start();
    // How its attempts ended so far.
    let ends = |name: &str| -> Vec<String> {
        let ending = format!("acme issuer \"{name}\", order \"{name}.test-");
        let log = server.log();
        let lines = log.lines().filter(|line| line.contains("while obtaining it") && line.contains(&ending));
        lines.map(str::to_owned).collect()
    };
    // A nonce is asked for once, and eight more that the issuer gave are tried; the next attempt is a minute away.
    server.wait_for("the end of the nonces", || ends("nonces").pop());
    assert_eq!((issuers.times("nonces", "nonce"), issuers.times("nonces", "account")), (1, 9));
    for (name, step, _, words) in CASES {
        let line = server.wait_for(&format!("{name}: {words}"), || ends(name).into_iter().next());
        assert!(line.contains(words), "{name}: {line}");
        assert!(line.contains("[error]") && line.contains("the one that is there goes on"), "{name}: {line}");
        // Counted first: another attempt may end meanwhile, and one more may be under way.
        let (asked, attempts) = (issuers.times(name, step), ends(name).len() + 1);
        assert!(asked <= 9 * attempts, "{name} was asked {asked} times");
        assert_eq!(shown(&server, name), "subject=CN = the old one issuer=CN = the old one", "{name}");
    }
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn the_old_certificate_serves_until_a_new_one_works() {
    if clients_are_missing() {
        return;
    }
    let server = Server::new("gapura", "");
    let other =
        rcgen::generate_simple_self_signed(vec!["other.test".to_owned()]).expect("a certificate").cert.pem();
    let orders = Mutex::new(0);
    let issuers = Issuers::new(&server, move |asked| match (&*asked.issuer, &*asked.step) {
        // It does not answer the first few times.
        ("recovers", "new-order") => {
            let mut orders = orders.lock().expect("nobody panics with it");
            *orders += 1;
            if *orders <= 4 { Answer::Text(String::new()) } else { Answer::Good }
        }
        ("nameless", "finalize") => Answer::Nameless,
        ("mismatch", "certificate") => Answer::Text(answer("200 OK", "", &other)),
        _ => Answer::Good,
    });
    let names = ["recovers", "mismatch", "nameless", "profile", "required", "fallback"];
    names.iter().for_each(|name| keep_old(&server, name));
    let blocks = [
        issuers.block("recovers", ""),
        issuers.block("mismatch", ""),
        issuers.block("nameless", ""),
        issuers.block("profile", "profile short require;"),
        issuers.block("required", "profile long require;"),
        issuers.block("fallback", "profile long;"),
    ];
    server.write(&configuration(&blocks.concat()));
    server.start();
    server.wait_for_log("the issuer has no profile \"long\" while obtaining it", 1);
    server.wait_for_log("certificate issued for profile.test", 1);
    server.wait_for_log("certificate issued for fallback.test", 1);
    server
        .wait_for_log("the issuer's certificate cannot be used (the key is not that of the certificate)", 1);
    server.wait_for_log("the issuer's certificate cannot be used (it is not for nameless.test)", 1);
    assert!(issuers.payload("profile", "new-order").contains(r#""profile":"short""#));
    assert!(!issuers.payload("fallback", "new-order").contains("profile\":"));
    assert_eq!(issuers.times("required", "new-order"), 0);
    for (name, expected) in [
        ("profile", "subject= issuer=CN = Script"),
        ("fallback", "subject= issuer=CN = Script"),
        ("required", "subject=CN = the old one issuer=CN = the old one"),
        ("mismatch", "subject=CN = the old one issuer=CN = the old one"),
        ("nameless", "subject=CN = the old one issuer=CN = the old one"),
    ] {
        assert_eq!(shown(&server, name), expected, "{name}\n{}", server.log());
    }
    let issued = || server.log().contains("certificate issued for recovers.test").then_some(());
    wait_for(&format!("a certificate\n{}", server.log()), ORDER_PATIENCE, issued);
    assert!(server.log().contains("the connection was closed"), "{}", server.log());
    assert_eq!(shown(&server, "recovers"), "subject= issuer=CN = Script");
}

#[test]
fn the_issuer_says_when_to_renew_and_when_to_ask_again() {
    if clients_are_missing() {
        return;
    }
    let server = Server::new("gapura", "");
    let base = format!("http://{}:14000/ari", server.host);
    let directory = format!(
        r#"{{"newNonce":"{base}/nonce","newAccount":"{base}/account","newOrder":"{base}/new-order","renewalInfo":"{base}/renewal"}}"#
    );
    let issuers = Issuers::new(&server, move |asked| match &*asked.step {
        "dir" => Answer::Text(answer("200 OK", "", &directory)),
        // The window is over: the certificate is to be replaced now.
        "renewal" => {
            let window =
                r#"{"suggestedWindow":{"start":"2020-01-01T00:00:00Z","end":"2020-01-02T00:00:00Z"}}"#;
            Answer::Text(answer("200 OK", "Retry-After: 21600\r\n", window))
        }
        _ => problem("429 Too Many Requests", "Retry-After: 7200\r\n", "rateLimited", "too many"),
    });
    // A certificate that has long to live is there already.
    let identifiers = acme::Identifier::parse("ari.test").expect("a name");
    let name = acme::order_name(&identifiers, acme::KeyKind::default());
    std::fs::create_dir(server.path("ari")).expect("the folder is ours");
    let (key, certificate) = (format!("ari/{name}.key"), format!("ari/{name}.crt"));
    let made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let extensions = [
        "-set_serial",
        "0x0087654321",
        "-addext",
        "subjectKeyIdentifier=69885b6b87464041e1b37b847ba0ae2cde01c8d4",
        "-addext",
        "authorityKeyIdentifier=keyid:always",
    ];
    let files = ["-days", "99", "-subj", "/CN=ari.test", "-keyout", &key, "-out", &certificate];
    run(server.folder.path(), "openssl", &[&made[..], &extensions, &files].concat());
    server.write(&configuration(&issuers.block("ari", "")));
    server.start();
    server.wait_for_log(
        "rateLimited: too many while obtaining it; next attempt in 7200 s, the one that is there goes on",
        1,
    );
    // The identifier of the key and the serial number in base64url (RFC 9773 section 4.1).
    assert_eq!(issuers.targets("ari", "renewal"), ["/ari/renewal/aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"]);
    assert_eq!(issuers.times("ari", "nonce"), 1);
    // Reloads and restarts do not make it ask again.
    for _ in 0..3 {
        server.says(&["-s", "reload"], 0);
    }
    let master = server.master();
    server.signal(rustix::process::Signal::QUIT);
    server.wait_for_end(master);
    server.start();
    let asked = || (issuers.times("ari", "dir") > 1).then_some(());
    wait_for("the issuer is asked when to renew", ORDER_PATIENCE, asked);
    server.wait_for_log("suggests to renew it", 2);
    assert_eq!(shown(&server, "ari"), "subject=CN = ari.test issuer=CN = ari.test");
    assert_eq!(issuers.times("ari", "nonce"), 1);
}

#[test]
fn a_full_disk_holds_certificates_up_no_longer_than_it_is_full() {
    if clients_are_missing() {
        return;
    }
    let test = "a_full_disk_holds_certificates_up_no_longer_than_it_is_full";
    hosts::isolated(test, Duration::from_secs(90), on_a_full_disk);
}

fn on_a_full_disk(folder: &Path) {
    let call = |program: &str, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).status().expect("it is installed");
        assert!(status.success(), "{program} {arguments:?}");
    };
    call("ip", &["link", "set", "lo", "up"]);
    let disk = folder.join("disk");
    std::fs::create_dir(&disk).expect("the folder is ours");
    call("mount", &["-t", "tmpfs", "-o", "size=64k", "none", &disk.to_string_lossy()]);
    let fill = disk.join("fill");
    let fill_up = move || _ = std::fs::write(&fill, vec![0; 1 << 20]);
    let server = Server::new("gapura", "");
    // It fills again while the certificate is made.
    let (fill_again, times) = (fill_up.clone(), Mutex::new(0));
    let issuers = Issuers::new(&server, move |asked| {
        let mut times = times.lock().expect("nobody panics with it");
        *times += usize::from(asked.step == "finalize");
        if asked.step == "finalize" && *times == 1 {
            fill_again();
        }
        Answer::Good
    });
    let state = format!("{}/state", disk.display());
    let block = issuers.block("disk", "").replace("state_path disk;", &format!("state_path {state};"));
    server.write(&configuration(&block));
    std::fs::create_dir(&state).expect("there is room");
    fill_up();
    server.start();
    let full = "failed (28: No space left on device)";
    server.wait_for_log(full, 1);
    server.wait_for_log("while obtaining it; next attempt in 5 s", 1);
    assert_eq!(issuers.times("disk", "new-order"), 0, "{}", server.log());
    std::fs::remove_file(disk.join("fill")).expect("it is there");
    let kept = format!("the certificate was issued and cannot be kept (write() \"{state}/disk.test-");
    let said = || server.log().contains(&kept).then_some(());
    wait_for(&format!("{kept}\n{}", server.log()), ORDER_PATIENCE, said);
    // Nothing half written stays behind, and the issuer is not asked again.
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(&state).expect("it is there").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    assert!(names().iter().all(|name| !name.starts_with('.') && !name.ends_with(".crt")), "{:?}", names());
    std::fs::remove_file(disk.join("fill")).expect("it is there");
    let issued = || server.log().contains("certificate issued for disk.test").then_some(());
    wait_for(&format!("a certificate\n{}", server.log()), ORDER_PATIENCE, issued);
    assert_eq!(issuers.times("disk", "new-order"), 1, "{}", server.log());
    assert_eq!(shown(&server, "disk"), "subject= issuer=CN = Script");
    assert!(names().iter().any(|name| name.ends_with(".crt")), "{:?}", names());
    assert!(!names().iter().any(|name| name.ends_with(".wait")), "{:?}", names());
    assert!(!server.log().contains("panicked"));
}
