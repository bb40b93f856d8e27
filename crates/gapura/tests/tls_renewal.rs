//! Certificates and keys over time, and who may read them: renewed under load, kept from the worker's user, and what is
//! said of those that have ended, stand in the wrong order or cannot be read. Real clients ask: curl and OpenSSL.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use support::clients_are_missing;
use support::server::{Server, is_root, status_line};

const CONFIGURATION: &str = "
error_log error.log info;
pid nginx.pid;
events { }
http {
    access_log off;
    keepalive_requests 1000000;
    server {
        listen %HOST%:8443 ssl;
        ssl_certificate own.crt;
        ssl_certificate_key own.key;
        location = / { return 200 \"ok\\n\"; }
        location = /close { keepalive_timeout 0; return 200 \"ok\\n\"; }
    }
}
";

const DAY: Duration = Duration::from_secs(24 * 3600);
/// What each client asks for while certificates are renewed.
const REQUESTS: usize = 10_000;
const HANDSHAKES: usize = 400;

fn parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::new(vec![format!("{name}.example")]).expect("it is a name");
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.not_before = (SystemTime::now() - 2 * DAY).into();
    parameters.not_after = (SystemTime::now() + DAY).into();
    parameters
}

/// Writes a certificate that signs itself, and its key, which is its owner's alone.
fn write_own(folder: &Path, name: &str) {
    let key = KeyPair::generate().expect("a key");
    let certificate = parameters(name).self_signed(&key).expect("a certificate").pem();
    write_pair(folder, &certificate, &key);
}

fn write_pair(folder: &Path, certificate: &str, key: &KeyPair) {
    fs::write(folder.join("own.crt"), certificate).expect("the folder is ours");
    fs::write(folder.join("own.key"), key.serialize_pem()).expect("the folder is ours");
    fs::set_permissions(folder.join("own.key"), fs::Permissions::from_mode(0o600)).expect("the file is ours");
}

/// A server that serves; none where the clients are missing.
fn server(name: &str) -> Option<Server> {
    if clients_are_missing() {
        return None;
    }
    let server = Server::new(name, CONFIGURATION);
    write_own(server.folder.path(), "first");
    server.start();
    Some(server)
}

/// The name on the certificate that a new handshake shows.
fn shown(server: &Server) -> String {
    let address = format!("{}:8443", server.host);
    let asked =
        Command::new("openssl").args(["s_client", "-connect", &address]).stdin(Stdio::null()).output();
    let said = String::from_utf8_lossy(&asked.expect("openssl").stdout).replace("CN=", "CN = ");
    let from = said.find("subject=CN = ").unwrap_or_else(|| panic!("{said}\n{}", server.log()));
    said[from..].lines().next().unwrap_or_default().trim_start_matches("subject=CN = ").to_owned()
}

/// A client that asks again and again; for each answer it writes its status and how many connections it took.
fn load(server: &Server, path: &str, requests: usize) -> std::process::Child {
    let url = format!("https://{}:8443{path}?[1-{requests}]", server.host);
    Command::new("curl")
        .args([
            "-sk",
            "--max-time",
            "60",
            "-o",
            "/dev/null",
            "-w",
            "%{response_code} %{num_connects}\n",
            &url,
        ])
        .stdout(fs::File::create(server.path(&format!("answers{}", path.len()))).expect("the folder is ours"))
        .spawn()
        .expect("curl starts")
}

fn answers(server: &Server, path: &str) -> Vec<String> {
    let text = fs::read_to_string(server.path(&format!("answers{}", path.len()))).expect("curl wrote it");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_renewed_certificate_is_shown_at_once_and_nobody_is_disturbed() {
    let Some(server) = server("tls-renewal") else { return };
    assert_eq!(shown(&server), "first");
    let mut clients = [load(&server, "/", REQUESTS), load(&server, "/close", HANDSHAKES)];
    let mut renewals = 0;
    // Until the load is through, and once at least.
    while clients.iter_mut().any(|client| matches!(client.try_wait(), Ok(None))) || renewals == 0 {
        renewals += 1;
        let name = format!("number{renewals}");
        write_own(server.folder.path(), &name);
        assert_eq!(server.says(&["-s", "reload"], 0), "");
        assert_eq!(shown(&server), name, "the reload has answered");
    }
    let kept = answers(&server, "/");
    assert_eq!(kept.len(), REQUESTS);
    // One connection served all of them, over every reload.
    assert_eq!(kept[0], "200 1");
    assert!(kept[1..].iter().all(|answer| answer == "200 0"), "{renewals} renewals");
    let fresh = answers(&server, "/close");
    assert!(fresh.len() == HANDSHAKES && fresh.iter().all(|answer| answer == "200 1"), "{fresh:?}");
}

#[test]
fn a_pair_that_does_not_match_leaves_the_old_one() {
    let Some(server) = server("tls-half-renewed") else { return };
    let key = fs::read_to_string(server.path("own.key")).expect("it is there");
    write_own(server.folder.path(), "second");
    fs::write(server.path("own.key"), key).expect("the folder is ours");
    let told = server.says(&["-s", "reload"], 1);
    assert!(told.contains("key values mismatch"), "{told}");
    assert_eq!(shown(&server), "first");
}

#[test]
fn keys_are_for_the_master_alone() {
    if !is_root() {
        return eprintln!("skipped: without root the worker is the same user");
    }
    let Some(server) = server("tls-keys-of-root") else { return };
    for round in ["started", "reloaded"] {
        let worker = server.worker();
        let user: u32 =
            status_line(worker, "Uid").split(' ').next().unwrap_or_default().parse().expect("a number");
        assert_ne!(user, 0, "{round}");
        assert_eq!(shown(&server), "first", "{round}: it serves");
        for entry in fs::read_dir(format!("/proc/{worker}/fd")).expect("it runs").flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            assert!(!target.ends_with("own.key"), "{round}: the worker holds {}", target.display());
        }
        let tried = Command::new("cat").arg(server.path("own.key")).uid(user).output().expect("cat");
        assert!(!tried.status.success(), "{round}: the worker's user reads the key");
        assert_eq!(server.says(&["-s", "reload"], 0), "");
    }
}

#[test]
fn what_is_odd_about_certificates_is_said() {
    let Some(server) = server("tls-odd") else { return };
    let folder = server.folder.path();
    let key = KeyPair::generate().expect("a key");
    let mut ended = parameters("ended");
    ended.not_after = (SystemTime::now() - DAY).into();
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = parameters("authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (above, stranger) = (
        authority.self_signed(&authority_key).expect("a certificate").pem(),
        parameters("stranger").self_signed(&authority_key).expect("a certificate").pem(),
    );
    let issuer = Issuer::new(authority, authority_key);
    let below = parameters("below").signed_by(&key, &issuer).expect("a certificate").pem();
    let own = server.path("own.crt");
    let own = own.display();
    for (certificate, told) in [
        (ended.self_signed(&key).expect("a certificate").pem(), format!("certificate \"{own}\" expired on ")),
        (
            format!("{below}{stranger}{above}"),
            format!(
                "certificates in \"{own}\" are not in order: each should be followed by that of its issuer"
            ),
        ),
    ] {
        write_pair(folder, &certificate, &key);
        let said = server.says(&["-t"], 0);
        assert!(said.contains("[warn]") && said.contains(&told), "{said}");
        // It is a warning: who knows what is done serves it all the same.
        server.says(&["-s", "reload"], 0);
    }
    // The authority first: then the key is not that of the first certificate.
    write_pair(folder, &format!("{above}{below}"), &key);
    let said = server.says(&["-t"], 1);
    assert!(said.contains("key values mismatch"), "{said}");
    write_pair(folder, &format!("{below}{above}"), &key);
    let said = server.says(&["-t"], 0);
    assert!(!said.contains("[warn]"), "{said}");
    fs::remove_file(server.path("own.key")).expect("it is ours");
    fs::create_dir(server.path("own.key")).expect("the folder is ours");
    let said = server.says(&["-t"], 1);
    assert!(said.contains("cannot load certificate key"), "{said}");
}
