//! Hosts of their own on one machine: network namespaces joined by a bridge, as virtual machines are joined by the
//! bridge of their hypervisor.
//!
//! The test runs itself again under `unshare` with its own network, mounts and process ids, and builds the hosts in
//! there. Nothing outside is touched, and when the inner process ends, however it ends, the kernel takes the hosts, the
//! bridge, the mounts and every process along.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use super::{Folder, is_installed, nothing_may_be_skipped};

const INSIDE: &str = "GAPURA_TEST_HOSTS";
const ISOLATED: [&str; 6] = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
const AS_ROOT_OF_ITS_OWN: [&str; 2] = ["--user", "--map-root-user"];

/// Runs `scenario` where hosts can be made, with a folder for its files. `test` is the path of the calling test, which
/// must do nothing else. Says so and returns where this machine does not allow it; panics instead under `CI=true`.
pub fn isolated(test: &str, time_max: Duration, scenario: fn(&Path)) {
    if let Some(folder) = env::var_os(INSIDE) {
        return scenario(Path::new(&folder));
    }
    let flags = match isolation() {
        Ok(flags) => flags,
        Err(reason) if nothing_may_be_skipped() => panic!("this must run under CI=true, but {reason}"),
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let folder = Folder::new("gapura-hosts");
    let output = folder.path().join("output");
    let file = fs::File::create(&output).unwrap();
    let mut inner = Command::new("unshare")
        .args(flags)
        .arg(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, folder.path())
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + time_max;
    let status = loop {
        if let Some(status) = inner.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            inner.kill().unwrap();
            inner.wait().unwrap();
            break None;
        }
        thread::sleep(Duration::from_millis(50));
    };
    let text = super::text_of(&output);
    match status {
        Some(status) if status.success() && text.contains("1 passed") => println!("{text}"),
        Some(status) => panic!("among the hosts, {status}:\n{text}"),
        None => panic!("among the hosts, not done after {time_max:?}:\n{text}"),
    }
}

/// The `unshare` flags that work here, or why none does.
fn isolation() -> Result<Vec<&'static str>, String> {
    for program in ["unshare", "nsenter", "ip", "mount", "node"] {
        if !is_installed(program) {
            return Err(format!("there is no {program} on this machine"));
        }
    }
    let probe =
        "ip link add probe type bridge && mount -t tmpfs none /run && mkdir /run/netns && ip netns add probe";
    let mut reason = String::new();
    for flags in [ISOLATED.to_vec(), [&AS_ROOT_OF_ITS_OWN[..], &ISOLATED[..]].concat()] {
        let output = Command::new("unshare").args(&flags).args(["sh", "-c", probe]).output();
        let output = output.map_err(|error| format!("unshare cannot be started: {error}"))?;
        if output.status.success() {
            return Ok(flags);
        }
        reason = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    }
    Err(format!("network namespaces are not allowed here ({reason})"))
}

/// The network between the hosts. The test itself is on the bridge, at `.1`, as the user's computer is.
pub struct Network;

impl Network {
    /// Makes the bridge; `names` is what goes into this network's `/etc/hosts`.
    pub fn new(folder: &Path, names: &str) -> Network {
        run("mount --make-rprivate /");
        run("mount -t tmpfs none /run");
        fs::create_dir("/run/netns").unwrap();
        let hosts = folder.join("etc-hosts");
        fs::write(&hosts, format!("127.0.0.1 localhost\n{names}\n")).unwrap();
        run(&format!("mount --bind {} /etc/hosts", hosts.display()));
        run("ip link set lo up");
        run("ip link add bridge type bridge");
        run("ip addr add 10.68.49.1/24 dev bridge");
        run("ip link set bridge up");
        Network
    }

    /// Adds a host with one network card.
    pub fn host(&self, name: &'static str, address: &str) -> Host {
        run(&format!("ip netns add {name}"));
        run(&format!("ip link add {name} type veth peer name eth0 netns {name}"));
        run(&format!("ip link set {name} master bridge up"));
        run(&format!("ip -n {name} link set lo up"));
        run(&format!("ip -n {name} addr add {address}/24 dev eth0"));
        run(&format!("ip -n {name} link set eth0 up"));
        Host { name }
    }
}

/// One host.
pub struct Host {
    name: &'static str,
}

impl Host {
    /// The start of a command line that runs a program on it.
    pub fn wrapper(&self) -> Vec<String> {
        vec!["nsenter".into(), format!("--net=/run/netns/{}", self.name)]
    }

    /// Pulls its cable: nothing answers any more, and nothing says so.
    pub fn cut_off(&self) {
        run(&format!("ip link set {} down", self.name));
    }

    /// Puts the cable back.
    pub fn bring_back(&self) {
        run(&format!("ip link set {} up", self.name));
    }
}

fn run(line: &str) {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}
