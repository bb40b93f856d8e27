//! The tutorial on three hosts with its own addresses: a gateway and two Node.js applications, its two configurations
//! word for word, requests by name, and a cable pulled while people use the site.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::thread;
use std::time::Duration;

use support::client::{Connection, get};
use support::gateway::{Gateway, application, is_gapura};
use support::hosts::{Network, isolated};
use support::load::{Load, Plan};
use support::server::PATIENCE;
use support::{example, text_of, wait_for};

const GATEWAY: &str = "10.68.49.10";
const APP1: &str = "10.68.49.174";
const APP2: &str = "10.68.49.101";

/// The tutorial's `proxy.conf`, with the address of the first application in it as it tells the reader to do.
const REVERSE_PROXY: &str = "server { \n    server_name mydomain.xyz; \n  \n    location / { \n             \
    proxy_pass http://10.68.49.174:3000;\n    }\n}\n";

/// What the tutorial adds to the file for load balancing.
const LOAD_BALANCING: &str = "upstream wayshub {\n    server 10.68.49.174:3000;\n    server 10.68.49.101:3000;\n}\n\
    server {\n    server_name loadbalance.dumbways.xyz;\n\n    location / {\n             \
    proxy_pass http://wayshub;\n    }\n} \n";

#[test]
fn the_tutorial_on_three_hosts() {
    isolated("the_tutorial_on_three_hosts", Duration::from_secs(120), tutorial);
}

fn tutorial(folder: &Path) {
    let names = format!("{GATEWAY} mydomain.xyz loadbalance.dumbways.xyz");
    let network = Network::new(folder, &names);
    let gateway_host = network.host("gateway", GATEWAY);
    let app1_host = network.host("app1", APP1);
    let app2_host = network.host("app2", APP2);
    let _app1 = application("app1", APP1, 3000, &app1_host.wrapper(), &folder.join("app1.log"));
    let _app2 = application("app2", APP2, 3000, &app2_host.wrapper(), &folder.join("app2.log"));
    for host in [APP1, APP2] {
        wait_for("an application answers", PATIENCE, || get(host, 3000, "/health", PATIENCE).ok());
    }

    // The reverse proxy: one name, one application.
    let gateway = Gateway::new(folder.join("gateway"), gateway_host.wrapper());
    gateway.write("nginx.conf", &main_configuration(&gateway.folder));
    gateway.write("sites/proxy.conf", REVERSE_PROXY);
    assert_good(&gateway.test());
    let _master = gateway.start();
    wait_for(&format!("the gateway answers\n{}", gateway.logs()), PATIENCE, || {
        get("mydomain.xyz", 80, "/health", PATIENCE).ok()
    });
    assert_eq!(served_by("mydomain.xyz", 10), [("app1".to_owned(), 10)].into());

    // A broken file is refused, by the check and by the reload, and the old one goes on.
    gateway.write("sites/proxy.conf", &REVERSE_PROXY.replace(":3000;", ":3000"));
    for refused in [gateway.test(), gateway.reload()] {
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        let place = format!("{}/sites/proxy.conf:6", gateway.folder.display());
        let name = if is_gapura() { "gapura" } else { "nginx" };
        let first = format!("{name}: [emerg] unexpected \"}}\" in {place}");
        assert_eq!(said.lines().find(|line| line.contains("[emerg]")), Some(first.as_str()), "{said}");
        assert_eq!(refused.status.code(), Some(1), "{said}");
    }
    assert_eq!(served_by("mydomain.xyz", 4), [("app1".to_owned(), 4)].into());

    // Load balancing: another name, both applications.
    gateway.write("sites/proxy.conf", &format!("{REVERSE_PROXY}\n{LOAD_BALANCING}"));
    assert_good(&gateway.test());
    let reload = gateway.reload();
    assert!(reload.status.success(), "{}", String::from_utf8_lossy(&reload.stderr));
    wait_for("the new name is served by both", PATIENCE, || {
        (served_by("loadbalance.dumbways.xyz", 4).len() == 2).then_some(())
    });
    if !is_gapura() {
        // nginx reloads after the command has returned: for a moment old processes still answer.
        thread::sleep(Duration::from_millis(500));
    }
    let split = served_by("loadbalance.dumbways.xyz", 100);
    let shares = [split["app1"], split["app2"]];
    // nginx takes turns in each worker by itself, so its split may be off by one for each.
    let uneven_max = if is_gapura() { 0 } else { 2 * workers_max() };
    assert!(shares[0].abs_diff(shares[1]) <= uneven_max, "{split:?}");
    assert_eq!(served_by("mydomain.xyz", 4), [("app1".to_owned(), 4)].into());

    // A WebSocket goes through although the configuration has not a word about it. (nginx would want three lines.)
    if is_gapura() {
        assert_eq!(echoed("loadbalance.dumbways.xyz", b"hello"), b"hello");
    }

    // One host cut off and back while people use the site: those who were there before, and those who come meanwhile.
    let visitors = Plan {
        address: format!("{GATEWAY}:80").parse().unwrap(),
        host: "loadbalance.dumbways.xyz",
        path: "/",
        connections: 8,
        pause: Duration::from_millis(10),
        patience: patience_during_outage(),
        time_max: Duration::from_secs(90),
    };
    let before = Load::start(&visitors);
    thread::sleep(Duration::from_secs(1));
    app1_host.cut_off();
    thread::sleep(Duration::from_secs(1));
    let meanwhile = Load::start(&visitors);
    // For longer than anybody may wait: nobody is served just because it is back.
    thread::sleep(Duration::from_secs(9));
    let meanwhile = meanwhile.stop_asking();
    app1_host.bring_back();
    wait_for("the host that came back has its share again", Duration::from_secs(30), || {
        let answer = get("loadbalance.dumbways.xyz", 80, "/", patience_during_outage()).unwrap();
        (answer.served_by() == "app1").then_some(())
    });
    let [before, meanwhile] = [before.stop(), meanwhile.stop()];
    println!("one host cut off and back, those there before: {before}");
    println!("those who came meanwhile: {meanwhile}");
    let logs = gateway.logs();
    assert_eq!(before.lost(), 0, "{before}\n{logs}");
    assert_eq!(meanwhile.lost(), 0, "{meanwhile}\n{logs}");
    for outcome in [before, meanwhile] {
        let slowest = outcome.slowest.first().copied().unwrap_or_default();
        assert!(slowest < wait_max(), "somebody waited {slowest:?}\n{logs}");
    }
}

/// How many of `count` requests each application answered; anything but a 200 ends the test.
fn served_by(host: &str, count: usize) -> BTreeMap<String, usize> {
    let mut servers = BTreeMap::new();
    for _ in 0..count {
        let answer = get(host, 80, "/", patience_during_outage()).unwrap();
        assert_eq!(answer.status, 200, "{host}: {answer:?}");
        *servers.entry(answer.served_by().to_owned()).or_default() += 1;
    }
    servers
}

/// What comes back from the application when this is sent over a WebSocket in one frame.
fn echoed(host: &str, text: &[u8; 5]) -> Vec<u8> {
    let mut connection = Connection::open(format!("{GATEWAY}:80").parse().unwrap(), PATIENCE).unwrap();
    let request = format!(
        "GET /echo HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    connection.send(request.as_bytes()).unwrap();
    let answer = connection.answer().unwrap();
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer:?}");
    // A final text frame of five bytes, masked with zeros (RFC 6455 section 5.2).
    connection.send(&[&[0x81, 0x85, 0, 0, 0, 0], &text[..]].concat()).unwrap();
    assert_eq!(connection.exactly(2).unwrap(), [0x81, 5]);
    connection.exactly(5).unwrap()
}

/// The example's `nginx.conf`, with its files in this run's folder instead of `/run` and `/var/log`.
fn main_configuration(folder: &Path) -> String {
    let mut text = fs::read_to_string(example().join("gateway/nginx.conf")).unwrap();
    let user = if may_change_user() { "user www-data;" } else { "user root;" };
    let logs = format!("{}/logs/", folder.display());
    for (old, new) in [("user www-data;", user), ("/run/", &logs), ("/var/log/gapura/", &logs)] {
        assert!(text.contains(old), "{old} in the example's nginx.conf");
        text = text.replace(old, new);
    }
    text
}

/// Whether there is a www-data to become: not so where the only user of the namespace is its own root.
fn may_change_user() -> bool {
    let all_users = text_of(Path::new("/proc/self/uid_map")).split_whitespace().nth(2) == Some("4294967295");
    all_users && text_of(Path::new("/etc/passwd")).contains("www-data:")
}

fn assert_good(checked: &Output) {
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
    assert!(said.ends_with("test is successful\n"), "{said}");
}

fn workers_max() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

/// How long a visitor waits. nginx waits a minute before it turns to the other server.
fn patience_during_outage() -> Duration {
    Duration::from_secs(if is_gapura() { 20 } else { 70 })
}

/// The longest that anybody may wait for a page while a host is cut off: two or three seconds, and more on a busy machine.
fn wait_max() -> Duration {
    if is_gapura() { Duration::from_secs(8) } else { patience_during_outage() }
}
