//! What happens to visitors while the server is reloaded, while applications come and go, and when a worker dies.
//! 64 keep-alive connections ask all the time; every answer that does not come is counted.

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::client::{Connection, get};
use support::gateway::{Gateway, Running, application, send};
use support::load::{Load, Plan};
use support::server::PATIENCE;
use support::{Folder, is_installed, nothing_may_be_skipped, own_network, wait_for};

const CONNECTIONS: usize = 64;

/// One gateway on a loopback address of its own with two applications behind it.
struct Site {
    gateway: Gateway,
    master: Running,
    applications: Vec<Option<Running>>,
    /// The addresses of the gateway and the applications.
    hosts: [String; 3],
    address: SocketAddr,
    // Dropped last: the files go when nothing writes to them any more.
    folder: Folder,
}

/// Each test has an address of its own in 127.0.0.0/8, so that they run side by side.
static SITES: AtomicU8 = AtomicU8::new(0);

impl Site {
    fn start(name: &str) -> Site {
        let (network, first) = (own_network(64), 1 + 3 * SITES.fetch_add(1, Ordering::Relaxed));
        let hosts = [0, 1, 2].map(|index| format!("{network}.{}", first + index));
        let folder = Folder::new(name);
        let gateway = Gateway::new(folder.path().join("gateway"), Vec::new());
        let mut site = Site {
            master: {
                gateway.write("nginx.conf", &configuration(&hosts, 0));
                gateway.start()
            },
            gateway,
            applications: Vec::new(),
            address: format!("{}:8080", hosts[0]).parse().unwrap(),
            hosts,
            folder,
        };
        for index in 0..2 {
            site.applications.push(None);
            site.start_application(index);
        }
        wait_for(&format!("the gateway answers\n{}", site.gateway.logs()), PATIENCE, || {
            Connection::open(site.address, PATIENCE).ok()
        });
        site
    }

    fn start_application(&mut self, index: usize) {
        let host = &self.hosts[index + 1];
        let output = self.folder.path().join(format!("app{}.log", index + 1));
        self.applications[index] = Some(application(&format!("app{}", index + 1), host, 3000, &[], &output));
        wait_for("an application answers", PATIENCE, || get(host, 3000, "/health", PATIENCE).ok());
    }

    fn kill_application(&mut self, index: usize) {
        self.applications[index].take().expect("it runs").kill();
    }

    /// Writes a configuration that answers `/generation` with this number.
    fn write(&self, generation: u32) {
        self.gateway.write("nginx.conf", &configuration(&self.hosts, generation));
    }

    /// Writes such a configuration, and tells the master to take it.
    fn reload(&self, generation: u32) {
        self.write(generation);
        send(self.master.id(), Signal::HUP).unwrap();
    }

    /// The number of the configuration that answers new connections.
    fn generation(&self) -> Option<u32> {
        let answer = Connection::open(self.address, PATIENCE).ok()?.get("site", "/generation").ok()?;
        answer.text().trim().parse().ok()
    }

    fn load(&self, path: &'static str, pause_milliseconds: u64) -> Load {
        Load::start(&Plan {
            address: self.address,
            host: "site",
            path,
            connections: CONNECTIONS,
            pause: Duration::from_millis(pause_milliseconds),
            patience: Duration::from_secs(20),
            time_max: Duration::from_secs(120),
        })
    }
}

fn configuration([gateway, app1, app2]: &[String; 3], generation: u32) -> String {
    format!(
        "worker_processes 2;
         pid logs/gapura.pid;
         error_log logs/error.log info;
         events {{ worker_connections 1024; }}
         http {{
             access_log off;
             keepalive_requests 1000000;
             upstream both {{
                 server {app1}:3000 fail_timeout=3s;
                 server {app2}:3000 fail_timeout=3s;
             }}
             server {{
                 listen {gateway}:8080;
                 location / {{ proxy_pass http://both; }}
                 location = /generation {{ return 200 \"{generation}\\n\"; }}
             }}
         }}\n"
    )
}

/// Whether the applications can run; says so where not.
fn ready() -> bool {
    if is_installed("node") {
        return true;
    }
    assert!(!nothing_may_be_skipped(), "this must run under CI=true, but there is no node on this machine");
    eprintln!("skipped: there is no node on this machine");
    false
}

#[test]
fn sixty_reloads_in_six_seconds_lose_nothing() {
    if !ready() {
        return;
    }
    let site = Site::start("gapura-reloads");
    let load = site.load("/", 5);
    let started = Instant::now();
    for generation in 1..=60 {
        site.reload(generation);
        let next = started + generation * Duration::from_millis(100);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    wait_for("the last configuration is in force", PATIENCE, || {
        (site.generation() == Some(60)).then_some(())
    });
    let outcome = load.stop();
    println!("60 reloads in 6 s: {outcome}");
    assert_eq!(outcome.lost(), 0, "{outcome}\n{}", site.gateway.logs());
    assert_eq!(outcome.closed, 0, "{outcome}");
    assert!(outcome.answered > 2_000, "{outcome}");
}

#[test]
fn one_connection_is_answered_across_ten_reloads() {
    if !ready() {
        return;
    }
    let site = Site::start("gapura-one-connection");
    let mut connection = Connection::open(site.address, PATIENCE).unwrap();
    let mut silent: Vec<Connection> =
        (0..10).map(|_| Connection::open(site.address, PATIENCE).unwrap()).collect();
    assert_eq!(connection.get("site", "/generation").unwrap().text(), "0\n");
    let (mut answered, mut first_answers) = (Vec::new(), Vec::new());
    for generation in 1..=10 {
        site.write(generation);
        // Returns when every thread serves the new one. nginx takes its time afterwards.
        assert!(site.gateway.reload().status.success(), "{}", site.gateway.logs());
        wait_for("the new configuration is in force", PATIENCE, || {
            (site.generation() == Some(generation)).then_some(())
        });
        let ask = |connection: &mut Connection| {
            let answer = connection.get("site", "/generation");
            answer.map(|answer| answer.text().trim().to_owned()).unwrap_or_default()
        };
        answered.push(ask(&mut connection));
        // Also a connection made long before, whose first request comes only now.
        first_answers.extend(silent.pop().as_mut().map(ask));
    }
    let expected: Vec<String> = (1..=10).map(|generation: u32| generation.to_string()).collect();
    assert_eq!(answered, expected);
    assert_eq!(first_answers, expected);
}

#[test]
fn killing_and_restarting_an_application_loses_nothing() {
    if !ready() {
        return;
    }
    let mut site = Site::start("gapura-applications");
    let load = site.load("/", 20);
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(1000));
        site.kill_application(0);
        thread::sleep(Duration::from_millis(1000));
        site.start_application(0);
        wait_for("the application that came back has its share again", PATIENCE, || {
            let answer = Connection::open(site.address, PATIENCE).ok()?.get("site", "/").ok()?;
            (answer.served_by() == "app1").then_some(())
        });
    }
    let outcome = load.stop();
    println!("an application killed and restarted, twice: {outcome}");
    assert_eq!(outcome.lost(), 0, "{outcome}\n{}", site.gateway.logs());
}

#[test]
fn killing_the_worker_breaks_at_most_its_connections() {
    if !ready() {
        return;
    }
    let site = Site::start("gapura-worker");
    let before: BTreeSet<u32> = site.gateway.workers(&site.master).into_iter().collect();
    assert!(!before.is_empty(), "the master has no worker");
    let load = site.load("/", 5);
    thread::sleep(Duration::from_millis(1000));
    let victim = *before.first().expect("checked above");
    send(victim, Signal::KILL).unwrap();
    wait_for("another worker is there", PATIENCE, || {
        site.gateway.workers(&site.master).into_iter().find(|id| !before.contains(id))
    });
    thread::sleep(Duration::from_millis(1000));
    let outcome = load.stop();
    println!("a worker killed: {outcome}");
    let logs = site.gateway.logs();
    assert!(outcome.broken <= CONNECTIONS as u64, "{outcome}\n{logs}");
    assert_eq!(outcome.lost() - outcome.broken, 0, "{outcome}\n{logs}");
    assert_eq!(site.generation(), Some(0));
    assert!(outcome.answered > 500, "{outcome}");
}
