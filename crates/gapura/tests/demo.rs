//! `gapura demo` as people start it: it serves what it says it serves, and it leaves nothing behind, even when it is killed.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;
use support::client::Connection;
use support::gateway::{Running, send};
use support::server::PATIENCE;
use support::{Folder, free_port, is_installed, nothing_may_be_skipped, text_of, wait_for};

struct Demo {
    process: Running,
    port: u16,
    place: PathBuf,
    /// Held for its removal.
    folder: Option<Folder>,
}

impl Demo {
    fn start(options: &[&str]) -> Demo {
        let folder = Folder::new("gapura-demo");
        let mut demo = Demo::started_in(folder.path(), options, "http://loadbalance.localhost:");
        demo.folder = Some(folder);
        demo
    }

    /// A demo in this folder that shows an address which begins with these words.
    fn started_in(folder: &Path, options: &[&str], shown: &str) -> Demo {
        let port = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gapura"));
        command.arg("demo").args(["--port", &port.to_string()]).args(options);
        command.arg("--dir").arg(folder.join("tree"));
        let _ = fs::remove_file(folder.join("output")); // of an earlier demo in the same folder
        let process = Running::start(&mut command, &folder.join("output"));
        let demo = Demo { process, port, place: folder.to_owned(), folder: None };
        wait_for("the demo says where it is", PATIENCE, || demo.said().contains(shown).then_some(()));
        demo
    }

    fn said(&self) -> String {
        text_of(&self.place.join("output"))
    }

    fn tree(&self) -> PathBuf {
        self.place.join("tree")
    }

    fn gateway(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    fn served_by(&self, host: &str) -> String {
        let answer = Connection::open(self.gateway(), PATIENCE).unwrap().get(host, "/").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.text().contains(&format!("<h1>{}</h1>", answer.served_by())), "{answer:?}");
        answer.served_by().to_owned()
    }

    /// The addresses of the gateway and of the app servers, as the configuration has them.
    fn addresses(&self) -> BTreeSet<SocketAddr> {
        let text = fs::read_to_string(self.tree().join("sites/proxy.conf")).unwrap();
        text.split([' ', ';', '/', '\n']).filter_map(|word| word.parse().ok()).collect()
    }
}

#[test]
fn serves_both_names_and_says_who_answered() {
    let _alone = alone();
    let demo = Demo::start(&["--apps", "3"]);
    assert_eq!(
        [demo.served_by("mydomain.localhost"), demo.served_by("mydomain.localhost")],
        ["app1", "app1"]
    );
    let servers: BTreeSet<String> = (0..12).map(|_| demo.served_by("loadbalance.localhost")).collect();
    assert_eq!(servers.into_iter().collect::<Vec<_>>(), ["app1", "app2", "app3"]);
    for line in ["mydomain.localhost GET / 200 app1 ", "loadbalance.localhost GET / 200 app3 "] {
        wait_for("the answers are shown", PATIENCE, || demo.said().contains(line).then_some(()));
    }
    let page = Connection::open(demo.gateway(), PATIENCE).unwrap().get("localhost", "/").unwrap();
    assert_eq!(page.status, 200);
    assert!(page.text().contains(&format!("loadbalance.localhost:{}", demo.port)), "{page:?}");
}

#[test]
fn speaks_https_with_an_authority_of_its_own() {
    let _alone = alone();
    let mut trusted = None;
    let folder = Folder::new("gapura-demo-https");
    // The second start keeps the authority that was trusted at the first one.
    for _ in 0..2 {
        let demo = Demo::started_in(folder.path(), &["--https"], "https://loadbalance.localhost:");
        let tls = demo.tree().join("tls");
        let authority = fs::read_to_string(tls.join("authority.crt")).unwrap();
        assert_eq!(trusted.get_or_insert_with(|| authority.clone()), &authority);
        for key in ["authority.key", "gateway.key"] {
            assert_eq!(fs::metadata(tls.join(key)).unwrap().permissions().mode() & 0o777, 0o600, "{key}");
        }
        let said = demo.said();
        assert!(said.contains(&format!("--cacert:\n{}\n", tls.join("authority.crt").display())), "{said}");
        let address = |name: &str| {
            let from = said.find(&format!("https://{name}:")).unwrap();
            said[from..].split_whitespace().next().unwrap().to_owned()
        };
        let certificate = tls.join("authority.crt").display().to_string();
        let shown = "%{http_version} %{response_code}";
        for (name, page) in
            [("loadbalance.localhost", "came from"), ("localhost", "https://loadbalance.localhost:")]
        {
            let answer = curl(&["--cacert", &certificate, "-w", shown, &address(name)]);
            assert!(answer.contains(page) && answer.ends_with("2 200"), "{answer}");
        }
        let refused = curl(&[&address("localhost")]);
        assert!(refused.contains("SSL certificate problem"), "{refused}");
        assert_eq!(demo.served_by("mydomain.localhost"), "app1", "plain HTTP goes on");
    }
    // The authority's key is good for nothing but the demo.
    let text = output(
        "openssl",
        &["x509", "-noout", "-text", "-in", &format!("{}/tree/tls/authority.crt", folder.path().display())],
    );
    assert!(text.contains("DNS:localhost") && text.contains("IP:127.0.0.0/255.0.0.0"), "{text}");
}

fn curl(arguments: &[&str]) -> String {
    output("curl", &[&["-sS", "--noproxy", "*", "--max-time", "60"], arguments].concat())
}

/// What a program writes, errors included.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn leaves_nothing_behind() {
    let _alone = alone();
    for signal in [Signal::INT, Signal::HUP, Signal::KILL] {
        let demo = Demo::start(&[]);
        let addresses = demo.addresses();
        assert_eq!(addresses.len(), 3, "{addresses:?}");
        assert!(addresses.iter().all(|address| TcpStream::connect(address).is_ok()));
        send(demo.process.id(), signal).unwrap();
        for address in addresses {
            wait_for(&format!("{signal:?}: nobody listens on {address}"), PATIENCE, || {
                TcpStream::connect(address).is_err().then_some(())
            });
        }
        assert!(demo.tree().join("nginx.conf").exists(), "the files stay");
    }
}

#[test]
fn runs_commands_and_ends_all_they_started() {
    let _alone = alone();
    // A shell that starts two programs: the built-in server by hand, and one that would stay for long.
    let unique = format!("{}.{}", 500, std::process::id());
    let command = format!("sleep {unique} | {} demo app", env!("CARGO_BIN_EXE_gapura"));
    let demo = Demo::start(&["--apps", "2", "--command", &command]);
    wait_for("the commands are there", PATIENCE, || (sleepers(&unique) == 2).then_some(()));
    wait_for("both answer", PATIENCE, || {
        let servers = (0..4).filter_map(|_| {
            let answer =
                Connection::open(demo.gateway(), PATIENCE).ok()?.get("loadbalance.localhost", "/").ok()?;
            Some(answer.served_by().to_owned())
        });
        (servers.collect::<BTreeSet<_>>() == ["app1".to_owned(), "app2".to_owned()].into()).then_some(())
    });
    send(demo.process.id(), Signal::KILL).unwrap();
    wait_for("the commands are gone", PATIENCE, || (sleepers(&unique) == 0).then_some(()));
}

#[test]
fn keys_stop_start_add_and_reload() {
    let _alone = alone();
    if !is_installed("script") {
        assert!(!nothing_may_be_skipped(), "this must run under CI=true, but there is no script(1) here");
        return eprintln!("skipped: there is no script(1) on this machine, which lends a terminal");
    }
    let folder = Folder::new("gapura-demo-keys");
    let tree = folder.path().join("tree");
    let (program, port) = (env!("CARGO_BIN_EXE_gapura"), free_port());
    let command = format!("{program} demo --port {port} --dir {}", tree.display());
    let terminal = Command::new("script")
        .args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(fs::File::create(folder.path().join("screen")).unwrap())
        .spawn()
        .unwrap();
    let mut terminal = Terminal(terminal);
    let mut keys = terminal.0.stdin.take().unwrap();
    let shown = |text: &str| {
        wait_for(&format!("the screen shows {text}"), PATIENCE, || {
            text_of(&folder.path().join("screen")).contains(text).then_some(())
        });
    };
    shown("press r; break it and press r:");
    for (key, text) in [
        ("1", "app1 is stopped."),
        (" ", "10 requests, \x1b[2m0 failed"), // although one of them found the first server gone
        ("1", "app1 is back."),
        ("+", "Reloaded."),
        ("3", "app3 is stopped."),
    ] {
        keys.write_all(key.as_bytes()).unwrap();
        shown(text);
    }
    let proxy = tree.join("sites/proxy.conf");
    let text = fs::read_to_string(&proxy).unwrap();
    assert!(text.contains("server 127.0.0.4:"), "{text}");
    fs::write(&proxy, text.replace("server_name mydomain.localhost;", "server_nam mydomain.localhost;"))
        .unwrap();
    keys.write_all(b"r").unwrap();
    shown("unknown directive \"server_nam\"");
    keys.write_all(b"q").unwrap();
    let status = wait_for("the demo has ended", PATIENCE, || terminal.0.try_wait().unwrap());
    assert!(status.success(), "{status}");
    shown("The configuration and the logs stay in");
}

/// Demos take the first free ports they find, and two that look at the same moment may find the same: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes with its owner.
struct Terminal(Child);

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How many processes `sleep {argument}` there are.
fn sleepers(argument: &str) -> usize {
    let wanted = format!("sleep\0{argument}\0");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter(|process| text_of(&process.path().join("cmdline")) == wanted).count()
}
