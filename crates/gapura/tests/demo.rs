//! `gapura demo` as people start it: it serves what it says it serves, and it leaves nothing behind, even when it is killed.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use support::client::Connection;
use support::gateway::{Running, send};
use support::{Folder, is_installed, nothing_may_be_skipped, text_of, wait_for};

const PATIENCE: Duration = Duration::from_secs(10);

struct Demo {
    process: Running,
    port: u16,
    folder: Folder,
}

impl Demo {
    fn start(options: &[&str]) -> Demo {
        let folder = Folder::new("gapura-demo");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gapura"));
        command.arg("demo").args(["--port", &port.to_string()]).args(options);
        command.arg("--dir").arg(folder.path().join("tree"));
        let process = Running::start(&mut command, &folder.path().join("output"));
        let demo = Demo { process, port, folder };
        wait_for("the demo says where it is", PATIENCE, || {
            demo.said().contains(&format!("http://loadbalance.localhost:{port}/")).then_some(())
        });
        demo
    }

    fn said(&self) -> String {
        text_of(&self.folder.path().join("output"))
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
        let text = fs::read_to_string(self.folder.path().join("tree/sites/proxy.conf")).unwrap();
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
        assert!(demo.folder.path().join("tree/nginx.conf").exists(), "the files stay");
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
    let command = format!("{} demo --port 18080 --dir {}", env!("CARGO_BIN_EXE_gapura"), tree.display());
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
