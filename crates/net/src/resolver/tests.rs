//! The resolver against a scripted name server.

use super::datagrams::Datagrams;
use super::*;
use crate::thread::{run, spawn_local};
use std::cell::Cell;

const NAME_ERROR: u8 = 3;

/// An answer in the making.
#[derive(Default)]
struct Script {
    code: u8,
    records: Vec<(u16, u32, Vec<u8>)>,
}

impl Script {
    fn add_a(&mut self, ttl: u32, octets: [u8; 4]) {
        self.records.push((1, ttl, octets.to_vec()));
    }

    fn add_aaaa(&mut self, ttl: u32, address: &str) {
        let address: Ipv6Addr = address.parse().expect("an address");
        self.records.push((28, ttl, address.octets().to_vec()));
    }

    fn add_srv(&mut self, ttl: u32, numbers: [u16; 3], target: &str) {
        let numbers = numbers.iter().flat_map(|number| number.to_be_bytes());
        self.records.push((33, ttl, numbers.chain(wire_name(target)).collect()));
    }

    fn add_alias(&mut self, ttl: u32, target: &str) {
        self.records.push((5, ttl, wire_name(target)));
    }

    fn bytes(&self, question: &[u8]) -> Vec<u8> {
        let mut out =
            [&question[..2], &[0x81, 0x80 | self.code, 0, 1, 0, self.records.len() as u8, 0, 0, 0, 0]]
                .concat();
        out.extend_from_slice(&question[12..]);
        for (number, ttl, data) in &self.records {
            out.extend_from_slice(&[0xc0, 12]);
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(&[0, 1]);
            out.extend_from_slice(&ttl.to_be_bytes());
            out.extend_from_slice(&(data.len() as u16).to_be_bytes());
            out.extend_from_slice(data);
        }
        out
    }
}

fn wire_name(name: &str) -> Vec<u8> {
    let label = |label: &str| [&[label.len() as u8], label.as_bytes()].concat();
    name.split('.').flat_map(label).chain([0]).collect()
}

/// The name and the kind that are asked for.
fn asked_for(question: &[u8]) -> (String, Kind) {
    let (mut at, mut name) = (12, String::new());
    while question[at] > 0 {
        let end = at + 1 + usize::from(question[at]);
        name = format!("{name}{}.", String::from_utf8_lossy(&question[at + 1..end]));
        at = end;
    }
    let kind = match question[at + 2] {
        1 => Kind::A,
        28 => Kind::Aaaa,
        _ => Kind::Srv,
    };
    (name, kind)
}

/// Starts a name server on this thread's event loop; `respond` fills in the answer or says to be silent.
async fn server(respond: impl Fn(&str, Kind, &mut Script) -> bool + 'static) -> SocketAddr {
    let socket = Datagrams::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback exists");
    let address = socket.local_address().expect("it is bound");
    spawn_local(async move {
        let mut buffer = [0; 1500];
        loop {
            let Ok((count, client)) = socket.receive(&mut buffer).await else { return };
            let question = &buffer[..count];
            let (name, kind) = asked_for(question);
            let mut script = Script::default();
            if respond(&name, kind, &mut script) {
                socket.send_to(&script.bytes(question), client).expect("the client is there");
            }
        }
    });
    address
}

fn listed(address: SocketAddr) -> ResolverSettings {
    ResolverSettings { servers: Servers::Listed(vec![address]), ..ResolverSettings::system() }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

/// Two IPv4 addresses and one of IPv6 for every name.
fn dual(_name: &str, kind: Kind, answer: &mut Script) -> bool {
    match kind {
        Kind::A => {
            answer.add_a(60, [10, 0, 0, 1]);
            answer.add_a(60, [10, 0, 0, 2]);
        }
        Kind::Aaaa => answer.add_aaaa(60, "fd00::1"),
        _ => {}
    }
    true
}

#[test]
fn addresses_of_the_wanted_families_come_back() {
    run(async {
        let server = server(dual).await;
        for (ipv4, ipv6, expected) in [
            (true, true, &["10.0.0.1", "10.0.0.2", "fd00::1"][..]),
            (true, false, &["10.0.0.1", "10.0.0.2"][..]),
            (false, true, &["fd00::1"][..]),
        ] {
            let resolver = Resolver::new(ResolverSettings { ipv4, ipv6, ..listed(server) });
            let answer = resolver.lookup(b"app.example").await.expect("it answers");
            let mut addresses = answer.addresses.to_vec();
            addresses.sort();
            assert_eq!(addresses, ips(expected));
        }
        let literal = Resolver::new(listed(server)).lookup(b"::1").await.expect("it is an address");
        assert_eq!(&literal.addresses[..], &ips(&["::1"])[..]);
    });
}

#[test]
fn failures_speak_nginx() {
    run(async {
        let server = server(|name, _, answer| {
            answer.code = match name {
                "missing.example." => NAME_ERROR,
                "broken.example." => 2,
                "refused.example." => 5,
                "unknown.example." => 4,
                "bad.example." => 1,
                "silent.example." => return false,
                _ => 0,
            };
            true
        })
        .await;
        let patient = Resolver::new(listed(server));
        let timeout = Duration::from_millis(300);
        let hasty = Resolver::new(ResolverSettings { timeout, ..listed(server) });
        for (name, expected) in [
            ("missing.example", "3: Host not found"),
            ("empty.example", "3: Host not found"),
            ("broken.example", "2: Server failure"),
            ("refused.example", "5: Operation refused"),
            ("unknown.example", "4: Unimplemented"),
            ("bad.example", "1: Format error"),
            ("silent.example", "110: Operation timed out"),
            ("not..a.name", "3: Host not found"),
        ] {
            let resolver = if name == "silent.example" { &hasty } else { &patient };
            let error = resolver.lookup(name.as_bytes()).await.expect_err(name);
            assert_eq!(error.to_string(), expected, "{name}");
        }
        assert_eq!(patient.lookup(b"\xff").await, Err(ResolveError::HostNotFound));
    });
}

#[test]
fn questions_are_shared_and_answers_kept_as_long_as_they_say() {
    run(async {
        let asked = Rc::new(Cell::new(0));
        let count = asked.clone();
        let server = server(move |name, kind, answer| {
            count.set(count.get() + 1);
            let ttl = if name.starts_with("zero") { 0 } else { 60 };
            if kind == Kind::A {
                answer.add_a(ttl, [10, 0, 0, 1]);
            }
            true
        })
        .await;
        let settings = ResolverSettings { ipv6: false, ..listed(server) };
        let resolver = Resolver::new(settings.clone());
        let first = resolver.lookup(b"kept.example");
        let second = resolver.lookup(b"kept.example");
        let (first, second) = both(first, second).await;
        assert_eq!((first.is_ok(), second.is_ok(), asked.get()), (true, true, 1));
        let answer = resolver.lookup(b"kept.example").await.expect("it is known");
        assert_eq!(asked.get(), 1);
        let left_ms = answer.valid_until_ms - clock::refresh();
        assert!((50_000..=60_000).contains(&left_ms), "{left_ms}");
        for _ in 0..2 {
            resolver.lookup(b"zero.example").await.expect("it answers");
        }
        assert_eq!(asked.get(), 3, "a time to live of zero is not kept");

        let valid = Some(Duration::from_secs(3600));
        let resolver = Resolver::new(ResolverSettings { valid, ..settings });
        for _ in 0..2 {
            resolver.lookup(b"zero.example").await.expect("it answers");
        }
        assert_eq!(asked.get(), 4, "valid= counts instead");
    });
}

#[test]
fn an_abandoned_question_is_asked_by_the_next() {
    run(async {
        let asked = Rc::new(Cell::new(0));
        let count = asked.clone();
        let server = server(move |_, _, answer| {
            count.set(count.get() + 1);
            answer.add_a(60, [10, 0, 0, 1]);
            count.get() > 1
        })
        .await;
        let resolver = Resolver::new(ResolverSettings { ipv6: false, ..listed(server) });
        let waiting = resolver.clone();
        let abandoned = spawn_local(async move {
            let _ = waiting.lookup(b"a.example").await;
        });
        while asked.get() == 0 {
            crate::thread::yield_now().await;
        }
        let second = resolver.clone();
        let result = Rc::new(RefCell::new(None));
        let slot = result.clone();
        spawn_local(async move {
            let answer = second.lookup(b"a.example").await;
            slot.replace(Some(answer));
        });
        crate::thread::yield_now().await;
        abandoned.abort();
        while result.borrow().is_none() {
            crate::thread::yield_now().await;
        }
        assert!(result.borrow().as_ref().is_some_and(|answer| answer.is_ok()));
    });
}

#[test]
fn services_come_with_ports_weights_and_addresses() {
    run(async {
        let server = server(|name, kind, answer| {
            match (name, kind) {
                ("_http._tcp.app.example.", Kind::Srv) => {
                    answer.add_srv(60, [2, 0, 81], "b.example");
                    answer.add_srv(60, [1, 5, 80], "a.example");
                    answer.add_srv(60, [3, 5, 82], "gone.example");
                }
                ("a.example.", Kind::A) => answer.add_a(30, [10, 0, 0, 1]),
                ("b.example.", Kind::A) => answer.add_a(30, [10, 0, 0, 2]),
                _ => {}
            }
            true
        })
        .await;
        let resolver = Resolver::new(ResolverSettings { ipv6: false, ..listed(server) });
        let by_word = resolver.lookup_service(b"http", b"app.example").await.expect("it answers");
        let summary: Vec<_> = by_word
            .peers
            .iter()
            .map(|peer| (peer.port, peer.priority, peer.weight, peer.addresses[0]))
            .collect();
        let addresses = ips(&["10.0.0.1", "10.0.0.2"]);
        assert_eq!(summary, vec![(80, 1, 5, addresses[0]), (81, 2, 0, addresses[1])]);
        assert!(by_word.valid_until_ms <= clock::refresh() + 30_000);
        let in_full = resolver.lookup_service(b"_http._tcp", b"app.example").await.expect("it answers");
        assert_eq!(in_full.peers, by_word.peers);
        let none = resolver.lookup_service(b"https", b"app.example").await;
        assert_eq!(none, Err(ResolveError::HostNotFound));
    });
}

#[test]
fn the_system_files_are_read_and_read_again() {
    let folder = std::env::temp_dir().join(format!("gapura-net-resolver-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
    let (resolv_conf, hosts) = (folder.join("resolv.conf"), folder.join("hosts"));
    std::fs::write(&resolv_conf, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").expect("writable");
    std::fs::write(&hosts, "# ours\n10.1.1.1 app app.local\nnonsense\n").expect("writable");
    run(async {
        let files = system::Files::at(resolv_conf.clone(), hosts.clone());
        let resolver = Resolver::with_files(ResolverSettings::system(), files);
        for name in ["app", "app.local"] {
            let answer = resolver.lookup(name.as_bytes()).await.expect("it is in the file");
            assert_eq!(&answer.addresses[..], &ips(&["10.1.1.1"])[..]);
        }
        std::fs::write(&hosts, "10.2.2.22 app\n").expect("writable");
        resolver.inner.system.forget_when_asked();
        let answer = resolver.lookup(b"app").await.expect("it is in the file");
        assert_eq!(&answer.addresses[..], &ips(&["10.2.2.22"])[..]);
    });
    std::fs::remove_dir_all(&folder).expect("it is ours");
}

#[test]
fn what_two_families_say_together_is_as_in_nginx() {
    // The first word is what is said of IPv4, the second of IPv6: nothing, an address, another name, an error.
    fn respond(name: &str, kind: Kind, answer: &mut Script) -> bool {
        let mut words = name.split(['.', '-']);
        let said = if kind == Kind::A { words.next() } else { words.nth(1) };
        match (said, kind) {
            (Some("n"), Kind::A) => answer.add_a(60, [10, 0, 0, 1]),
            (Some("n"), _) => answer.add_aaaa(60, "fd00::1"),
            (Some("c"), Kind::A) => answer.add_alias(60, "n-z.example"),
            (Some("c"), _) => answer.add_alias(60, "z-n.example"),
            (Some("e"), _) => answer.code = 2,
            _ => {}
        }
        true
    }
    run(async {
        let resolver = Resolver::new(listed(server(respond).await));
        for (name, expected) in [
            ("n-n", Ok(&["10.0.0.1", "fd00::1"][..])),
            ("n-z", Ok(&["10.0.0.1"])),
            ("z-n", Ok(&["fd00::1"])),
            ("n-c", Ok(&["10.0.0.1"])),
            ("z-c", Ok(&["fd00::1"])),
            ("c-c", Ok(&["fd00::1"])),
            ("z-z", Err(ResolveError::HostNotFound)),
            ("c-z", Err(ResolveError::HostNotFound)),
            ("n-e", Err(ResolveError::ServerFailure)),
            ("e-n", Err(ResolveError::ServerFailure)),
            ("c-e", Err(ResolveError::ServerFailure)),
        ] {
            let answer = resolver.lookup(format!("{name}.example").as_bytes()).await;
            let found = answer.map(|answer| answer.addresses.to_vec());
            assert_eq!(found, expected.map(ips), "{name}");
        }
    });
}

#[test]
fn a_circle_of_names_ends() {
    run(async {
        let around = server(|_, _, answer| {
            answer.add_alias(60, "a.example");
            true
        });
        let resolver = Resolver::new(listed(around.await));
        assert_eq!(resolver.lookup(b"a.example").await, Err(ResolveError::HostNotFound));
    });
}

#[test]
fn who_does_not_understand_is_passed_over() {
    run(async {
        let confused = server(|_, _, answer| {
            answer.code = 1;
            true
        });
        let (confused, able) = (confused.await, server(dual).await);
        let servers = Servers::Listed(vec![confused, able]);
        let resolver = Resolver::new(ResolverSettings { servers, ..ResolverSettings::system() });
        for name in ["a.example", "b.example"] {
            assert!(resolver.lookup(name.as_bytes()).await.is_ok(), "{name}");
        }
    });
}

#[test]
fn servers_of_the_system_that_fail_are_passed_over() {
    run(async {
        let failing = server(|_, _, answer| {
            answer.code = 2;
            true
        })
        .await;
        let good = server(dual).await;
        let ask = async |servers: &[SocketAddr]| {
            let manner = Manner::System { rounds_max: 2 };
            let client = Client::new(servers.to_vec(), Duration::from_secs(5), manner);
            client.ask(b"app.example", Kind::A, 0).await
        };
        let response = ask(&[failing, good]).await.expect("the second answers");
        assert_eq!(response.addresses, ips(&["10.0.0.1", "10.0.0.2"]));
        assert_eq!(ask(&[failing, failing]).await.map(|response| response.code), Ok(2));
    });
    let response =
        |code, addresses: &[&str]| Response { code, addresses: ips(addresses), ..Response::default() };
    let system = Manner::System { rounds_max: 1 };
    for (first, second, addresses, code) in [
        (response(0, &["10.0.0.1"]), response(2, &[]), &["10.0.0.1"][..], 0),
        (response(3, &[]), response(0, &["fd00::1"]), &["fd00::1"], 0),
        (response(0, &["10.0.0.1"]), response(0, &["fd00::1"]), &["10.0.0.1", "fd00::1"], 0),
        (response(0, &[]), response(2, &[]), &[], 2),
    ] {
        let both = joined(first, second, system);
        assert_eq!((both.addresses, both.code), (ips(addresses), code));
    }
}
