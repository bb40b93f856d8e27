//! The system's resolver files, read again when they change.

use super::{add_server, build};
use crate::clock;
use bstr::ByteSlice;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig, ResolverOpts};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::cell::Cell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// How long the files are believed not to have changed, in milliseconds.
const BELIEVED_MS: u64 = 2000;

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
    pub(super) fn client(&self, base: &ResolverOpts) -> TokioResolver {
        let text = std::fs::read(&self.resolv_conf).unwrap_or_default();
        let (mut config, options) =
            hickory_resolver::system_conf::parse_resolv_conf(&text).unwrap_or_default();
        if config.name_servers().is_empty() {
            // As the C library does.
            let mut local =
                ResolverConfig::from_parts(config.domain().cloned(), config.search().to_vec(), vec![]);
            add_server(&mut local, SocketAddr::from(([127, 0, 0, 1], 53)));
            config = local;
        }
        let mut combined = base.clone();
        combined.ndots = options.ndots;
        combined.timeout = options.timeout.min(base.timeout);
        combined.attempts = options.attempts;
        if combined.ip_strategy == LookupIpStrategy::Ipv4AndIpv6 && !has_route_to_ipv6() {
            combined.ip_strategy = LookupIpStrategy::Ipv4Only;
        }
        build(config, combined)
    }

    /// The names of the hosts file.
    pub(super) fn hosts(&self) -> Hosts {
        Hosts::read(&std::fs::read(&self.hosts).unwrap_or_default())
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
fn has_route_to_ipv6() -> bool {
    // An address of the range for documentation (RFC 3849), which is in nobody's network.
    let target = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9));
    let socket =
        rustix::net::socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    socket.and_then(|socket| rustix::net::connect(&socket, &target)).is_ok()
}
