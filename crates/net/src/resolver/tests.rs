//! The resolver against a scripted name server.

use super::*;
use crate::thread::{run, spawn_local};
use hickory_resolver::proto::op::{Message, MessageType};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use std::cell::Cell;
use tokio::net::UdpSocket;

/// Starts a name server on this thread's event loop; `respond` fills in the answer or says to be silent.
async fn server(respond: impl Fn(&str, RecordType, &mut Message) -> bool + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback exists");
    let address = socket.local_addr().expect("it is bound");
    spawn_local(async move {
        let mut buffer = [0; 1500];
        loop {
            let Ok((count, client)) = socket.recv_from(&mut buffer).await else { return };
            let Ok(question) = Message::from_vec(&buffer[..count]) else { continue };
            let Some(query) = question.queries().first().cloned() else { continue };
            let mut answer = Message::new();
            answer.set_id(question.id()).set_message_type(MessageType::Response).add_query(query.clone());
            let name = query.name().to_ascii();
            if respond(&name, query.query_type(), &mut answer) {
                let bytes = answer.to_vec().expect("it is small");
                socket.send_to(&bytes, client).await.expect("the client is there");
            }
        }
    });
    address
}

fn add(answer: &mut Message, name: &str, ttl: u32, data: RData) {
    answer.add_answer(Record::from_rdata(Name::from_ascii(name).expect("a name"), ttl, data));
}

fn listed(address: SocketAddr) -> ResolverSettings {
    ResolverSettings { servers: Servers::Listed(vec![address]), ..ResolverSettings::system() }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

/// Two IPv4 addresses and one of IPv6 for every name.
fn dual(name: &str, kind: RecordType, answer: &mut Message) -> bool {
    match kind {
        RecordType::A => {
            add(answer, name, 60, RData::A(A::new(10, 0, 0, 1)));
            add(answer, name, 60, RData::A(A::new(10, 0, 0, 2)));
        }
        RecordType::AAAA => add(answer, name, 60, RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, 1))),
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
            answer.set_response_code(match name {
                "missing.example." => ResponseCode::NXDomain,
                "broken.example." => ResponseCode::ServFail,
                "refused.example." => ResponseCode::Refused,
                "unknown.example." => ResponseCode::NotImp,
                "bad.example." => ResponseCode::FormErr,
                "silent.example." => return false,
                _ => ResponseCode::NoError,
            });
            true
        })
        .await;
        let timeout = Duration::from_millis(300);
        let resolver = Resolver::new(ResolverSettings { timeout, ..listed(server) });
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
            let error = resolver.lookup(name.as_bytes()).await.expect_err(name);
            assert_eq!(error.to_string(), expected, "{name}");
        }
        assert_eq!(resolver.lookup(b"\xff").await, Err(ResolveError::HostNotFound));
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
            if kind == RecordType::A {
                add(answer, name, ttl, RData::A(A::new(10, 0, 0, 1)));
            }
            true
        })
        .await;
        let settings = ResolverSettings { ipv6: false, ..listed(server) };
        let resolver = Resolver::new(settings.clone());
        let first = resolver.lookup(b"kept.example");
        let second = resolver.lookup(b"kept.example");
        let (first, second) = tokio::join!(first, second);
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
        let server = server(move |name, _, answer| {
            count.set(count.get() + 1);
            add(answer, name, 60, RData::A(A::new(10, 0, 0, 1)));
            count.get() > 1
        })
        .await;
        let resolver = Resolver::new(ResolverSettings { ipv6: false, ..listed(server) });
        let waiting = resolver.clone();
        let abandoned = spawn_local(async move {
            let _ = waiting.lookup(b"a.example").await;
        });
        while asked.get() == 0 {
            tokio::task::yield_now().await;
        }
        let second = resolver.clone();
        let result = Rc::new(RefCell::new(None));
        let slot = result.clone();
        let joined = spawn_local(async move {
            let answer = second.lookup(b"a.example").await;
            slot.replace(Some(answer));
        });
        tokio::task::yield_now().await;
        abandoned.abort();
        joined.await.expect("it ends");
        assert!(result.borrow().as_ref().is_some_and(|answer| answer.is_ok()));
    });
}

#[test]
fn services_come_with_ports_weights_and_addresses() {
    run(async {
        let server = server(|name, kind, answer| {
            let target = |name: &str| Name::from_ascii(name).expect("a name");
            match (name, kind) {
                ("_http._tcp.app.example.", RecordType::SRV) => {
                    add(answer, name, 60, RData::SRV(SRV::new(2, 0, 81, target("b.example."))));
                    add(answer, name, 60, RData::SRV(SRV::new(1, 5, 80, target("a.example."))));
                    add(answer, name, 60, RData::SRV(SRV::new(3, 5, 82, target("gone.example."))));
                }
                ("a.example.", RecordType::A) => add(answer, name, 30, RData::A(A::new(10, 0, 0, 1))),
                ("b.example.", RecordType::A) => add(answer, name, 30, RData::A(A::new(10, 0, 0, 2))),
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
