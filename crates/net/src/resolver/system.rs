//! The system's resolver files, read again when they change.

use super::RESEND;
use super::client::{Client, Manner};
use crate::clock;
use bstr::ByteSlice;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::cell::Cell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the files are believed not to have changed, in milliseconds.
const BELIEVED_MS: u64 = 2000;

/// How many servers, domains to search and rounds the C library takes from resolv.conf(5).
const SERVERS_MAX: usize = 3;
const DOMAINS_MAX: usize = 6;
const ROUNDS_MAX: u32 = 5;
/// As many dots make a name that is tried as it is first.
const DOTS_MAX: usize = 15;

/// Where the files are and how they were last seen.
pub(super) struct Files {
    pub(super) resolv_conf: PathBuf,
    pub(super) hosts: PathBuf,
    seen: Cell<Option<[Stamp; 2]>>,
    asked_ms: Cell<u64>,
}

/// Changes whenever a file is written or replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: i64,
    modified: (i64, u64),
}

impl Default for Files {
    fn default() -> Files {
        Files::at("/etc/resolv.conf".into(), "/etc/hosts".into())
    }
}

impl Files {
    pub(super) fn at(resolv_conf: PathBuf, hosts: PathBuf) -> Files {
        Files { resolv_conf, hosts, seen: Cell::new(None), asked_ms: Cell::new(0) }
    }

    /// True when they were written since the last call that said so; always at first.
    pub(super) fn have_changed(&self) -> bool {
        let now_ms = clock::now_ms();
        if self.seen.get().is_some() && now_ms.saturating_sub(self.asked_ms.get()) < BELIEVED_MS {
            return false;
        }
        self.asked_ms.set(now_ms);
        let stamps = [stamp(&self.resolv_conf), stamp(&self.hosts)];
        self.seen.replace(Some(stamps)) != Some(stamps)
    }

    #[cfg(test)]
    pub(super) fn forget_when_asked(&self) {
        self.asked_ms.set(0);
    }

    /// A client as the files want it. What cannot be read is as if it were empty.
    pub(super) fn client(&self) -> Client {
        let conf = self.resolv_conf();
        Client::new(conf.servers, conf.patience.min(RESEND), Manner::System { rounds_max: conf.rounds })
    }

    /// What a name may be short for, in the order of trying.
    pub(super) fn full_names(&self, name: &[u8]) -> Vec<Vec<u8>> {
        let as_it_is = name.to_vec();
        if name.ends_with(b".") {
            return vec![as_it_is];
        }
        let conf = self.resolv_conf();
        let longer = conf.search.iter().map(|domain| [name, b".", domain].concat());
        match name.iter().filter(|byte| **byte == b'.').count() >= conf.dots {
            true => std::iter::once(as_it_is).chain(longer).collect(),
            false => longer.chain([as_it_is]).collect(),
        }
    }

    fn resolv_conf(&self) -> ResolvConf {
        ResolvConf::read(&std::fs::read(&self.resolv_conf).unwrap_or_default())
    }

    /// The names of the hosts file.
    pub(super) fn hosts(&self) -> Hosts {
        Hosts::read(&std::fs::read(&self.hosts).unwrap_or_default())
    }
}

/// `/etc/resolv.conf`, read (resolv.conf(5)).
#[derive(Debug, PartialEq, Eq)]
struct ResolvConf {
    servers: Vec<SocketAddr>,
    search: Vec<Vec<u8>>,
    /// With so many dots a name is tried as it is first.
    dots: usize,
    /// How long a server has to answer.
    patience: Duration,
    /// How often all are asked.
    rounds: u32,
}

impl ResolvConf {
    /// Lines that make no sense are skipped.
    fn read(text: &[u8]) -> ResolvConf {
        let mut conf = ResolvConf {
            servers: Vec::new(),
            search: Vec::new(),
            dots: 1,
            patience: Duration::from_secs(5),
            rounds: 2,
        };
        for line in text.lines().filter(|line| !line.starts_with(b"#") && !line.starts_with(b";")) {
            let mut words = line.fields();
            match words.next() {
                Some(b"nameserver") if conf.servers.len() < SERVERS_MAX => {
                    let server = words.next().and_then(|word| word.to_str().ok()?.parse::<IpAddr>().ok());
                    conf.servers.extend(server.map(|server| SocketAddr::new(server, 53)));
                }
                // The last of them counts.
                Some(b"search" | b"domain") => {
                    let domains = words.map(|domain| domain.strip_suffix(b".").unwrap_or(domain));
                    let domains = domains.filter(|domain| !domain.is_empty());
                    conf.search = domains.take(DOMAINS_MAX).map(<[u8]>::to_vec).collect();
                }
                Some(b"options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        if conf.servers.is_empty() {
            // As the C library does.
            conf.servers.push(SocketAddr::from(([127, 0, 0, 1], 53)));
        }
        conf
    }

    fn option(&mut self, word: &[u8]) {
        let value = |name: &[u8]| word.strip_prefix(name)?.to_str().ok()?.parse::<u32>().ok();
        if let Some(dots) = value(b"ndots:") {
            self.dots = (dots as usize).min(DOTS_MAX);
        } else if let Some(seconds) = value(b"timeout:") {
            self.patience = Duration::from_secs(u64::from(seconds.max(1)));
        } else if let Some(rounds) = value(b"attempts:") {
            self.rounds = rounds.clamp(1, ROUNDS_MAX);
        }
    }
}

/// A hosts file, read (hosts(5)): an address, then its names, in any case of letters.
#[derive(Default)]
pub(super) struct Hosts {
    by_name: HashMap<Box<[u8]>, Vec<IpAddr>>,
}

impl Hosts {
    /// Lines that make no sense are skipped.
    pub(super) fn read(text: &[u8]) -> Hosts {
        let mut hosts = Hosts::default();
        for line in text.lines() {
            let entry = line.split(|byte| *byte == b'#').next().unwrap_or_default();
            let mut words = entry.fields();
            let address = words.next().and_then(|word| word.to_str().ok()).and_then(|word| word.parse().ok());
            let Some(address) = address else { continue };
            for name in words {
                let addresses = hosts.by_name.entry(name.to_ascii_lowercase().into()).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        hosts
    }

    /// The addresses of a name; none where the file does not know it.
    pub(super) fn lookup(&self, name: &[u8]) -> &[IpAddr] {
        self.by_name.get(&name.to_ascii_lowercase()[..]).map_or(&[], |addresses| addresses)
    }
}

fn stamp(path: &Path) -> Stamp {
    match rustix::fs::stat(path) {
        Ok(stat) => {
            Stamp { inode: stat.st_ino, size: stat.st_size, modified: (stat.st_mtime, stat.st_mtime_nsec) }
        }
        Err(_) => Stamp { inode: 0, size: -1, modified: (0, 0) },
    }
}

/// Addresses that cannot be reached are not worth asking for (nginx's `AI_ADDRCONFIG`). Connecting a datagram
/// socket sends nothing: the kernel only looks for a route.
pub(super) fn has_route_to_ipv6() -> bool {
    // An address of the range for documentation (RFC 3849), which is in nobody's network.
    let target = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9));
    let socket =
        rustix::net::socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    socket.and_then(|socket| rustix::net::connect(&socket, &target)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_c_library_does() {
        let text = b"# ours\nnameserver 10.0.0.1\nnameserver fd00::1\nnameserver nonsense\nsearch old\n\
            search a.example b.example.\noptions ndots:2 timeout:1 attempts:99 rotate\n";
        let conf = ResolvConf {
            servers: vec!["10.0.0.1:53".parse().expect("one"), "[fd00::1]:53".parse().expect("one")],
            search: vec![b"a.example".to_vec(), b"b.example".to_vec()],
            dots: 2,
            patience: Duration::from_secs(1),
            rounds: ROUNDS_MAX,
        };
        assert_eq!(ResolvConf::read(text), conf);
        let empty = ResolvConf::read(b"");
        assert_eq!(empty.servers, ["127.0.0.1:53".parse().expect("one")]);
        assert_eq!((empty.search.len(), empty.dots, empty.rounds), (0, 1, 2));
    }
}
