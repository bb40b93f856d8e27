//! Whole groups: sequences that a real nginx 1.31 was seen to choose, and properties that hold for any group.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;

use super::*;

/// Peers on `127.9.9.2:9001` and so on, each with what the words say.
fn peers(lines: &[&str]) -> Vec<Peer> {
    let peer = |(index, line): (usize, &&str)| {
        let mut peer = Peer::new(format!("127.9.9.2:{}", 9001 + index));
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some(("weight", number)) => peer.weight = number.parse().unwrap(),
                Some(("max_fails", number)) => peer.max_fails = number.parse().unwrap(),
                Some(("max_conns", number)) => peer.max_conns = number.parse().unwrap(),
                Some(("fail_timeout", number)) => peer.fail_timeout_ms = number.parse().unwrap(),
                Some(("slow_start", number)) => peer.slow_start_ms = number.parse().unwrap(),
                Some(("server", name)) => peer.server = name.into(),
                None if word == "down" => peer.down = true,
                None if word == "drain" => peer.drain = true,
                None if word == "backup" => peer.backup = true,
                _ => panic!("{word}"),
            }
        }
        peer
    };
    lines.iter().enumerate().map(peer).collect()
}

fn group(method: Method, lines: &[&str]) -> Arc<Group> {
    Group::new(peers(lines), method)
}

/// The last digit of the address: 1 for the first line.
fn digit(group: &Group, index: PeerIndex) -> char {
    char::from(group.peers()[index.index()].address.last().copied().unwrap())
}

fn no_random() -> u32 {
    panic!("no dice in this method")
}

const QUICK: Timings = Timings { header_ms: Some(0), response_ms: 0 };

#[test]
fn another_peer_is_known_of_while_there_is_one() {
    for (lines, chosen, failed, has_alternative) in [
        (&["", ""][..], 1, "", true),
        (&["", ""], 2, "", false),
        (&["", ""], 1, "2", false),
        (&["", "down"], 1, "", false),
        (&["", "backup"], 1, "", true),
        (&["", "backup"], 2, "", false),
        (&[""], 1, "", false),
        (&["", "", ""], 2, "", true),
    ] {
        let group = group(Method::RoundRobin, lines);
        for _ in failed.chars() {
            // The second fails, so that it is out for its `fail_timeout`.
            let mut attempt = group.begin(Key::None);
            attempt.choose(0, &mut no_random);
            attempt.choose(0, &mut no_random);
            attempt.release(Outcome::Failure, 0, QUICK);
        }
        let mut attempt = group.begin(Key::None);
        for _ in 0..chosen {
            attempt.choose(0, &mut no_random);
        }
        assert_eq!(attempt.has_alternative(0), has_alternative, "{lines:?} {chosen} {failed}");
        attempt.limit_tries(0);
        assert!(!attempt.has_alternative(0), "no tries left");
    }
}

/// One request; peers in `broken` fail. The digit of the peer that answered, or `-`.
fn request(group: &Arc<Group>, key: Key<'_>, now_ms: u64, broken: &str) -> char {
    let mut attempt = group.begin(key);
    while let Some(index) = attempt.choose(now_ms, &mut no_random) {
        let digit = digit(group, index);
        if !broken.contains(digit) {
            attempt.release(Outcome::Success, now_ms, QUICK);
            return digit;
        }
        attempt.release(Outcome::Failure, now_ms, QUICK);
        if attempt.tries_left() == 0 {
            break;
        }
    }
    '-'
}

const NOW: u64 = 1_000_000;

fn sequence(group: &Arc<Group>, count: usize, broken: &str) -> String {
    (0..count).map(|_| request(group, Key::None, NOW, broken)).collect()
}

#[test]
fn round_robin_goes_as_in_nginx() {
    let check = |lines: &[&str], broken: &str, expected: &str| {
        assert_eq!(
            sequence(&group(Method::RoundRobin, lines), expected.len(), broken),
            expected,
            "{lines:?}"
        );
    };
    check(&["weight=5", "", ""], "", "112131111213111121311");
    check(&["weight=2", "weight=3", "", "weight=4"], "", "42142341244214234124");
    check(&["", ""], "", "121212");
    check(&["max_fails=0", "down", "backup", "backup weight=2"], "1", "434434434");
    check(&["weight=4 max_fails=2", "", ""], "1", "232232323232");
    check(&["down", "down"], "", "--");
}

#[test]
fn the_least_busy_goes_as_in_nginx() {
    let check = |method, lines: &[&str], expected: &str| {
        assert_eq!(sequence(&group(method, lines), expected.len(), ""), expected);
    };
    check(Method::LeastConn, &["weight=2", "", ""], "123112311231");
    check(Method::LeastTime { last_byte: false, inflight: false }, &["weight=2", "", ""], "111111111111");
}

#[test]
fn addresses_are_hashed_as_in_nginx() {
    let addresses4 =
        |number: u32| format!("{}.{}.{}.9", number * 6 + 1, number * 37 % 256, number * 11 % 256);
    let addresses6 = |number: u32| format!("2001:db8::{number}:1");
    let check = |lines: &[&str], address: &dyn Fn(u32) -> String, expected: &str| {
        let group = group(Method::IpHash, lines);
        let got: String = (0..expected.len() as u32)
            .map(|number| {
                let address: IpAddr = address(number).parse().unwrap();
                request(&group, Key::Client(Some(address)), NOW, "")
            })
            .collect();
        assert_eq!(got, expected);
    };
    check(&["", "weight=2", ""], &addresses4, "2132213213221221321321322132132232232213");
    check(&["", "weight=2 down", ""], &addresses4, "1131113313111311331331331133131331133313");
    check(&["", "weight=2", ""], &addresses6, "13221322131132213221");
    check(&["", "weight=2 down", ""], &addresses6, "13111331131131113111");
    // A client on a unix socket is 0.0.0.
    let group = group(Method::IpHash, &["", ""]);
    let zero = request(&group, Key::Client(Some("0.0.0.7".parse().unwrap())), NOW, "");
    assert_eq!(request(&group, Key::Client(None), NOW, ""), zero);
}

#[test]
fn keys_are_hashed_as_in_nginx() {
    let check = |method, lines: &[&str], expected: &str| {
        let group = group(method, lines);
        let key = |number: usize| format!("key{number}");
        let got: String = (0..expected.len())
            .map(|number| request(&group, Key::Text(key(number).as_bytes()), NOW, ""))
            .collect();
        assert_eq!(got, expected, "{method:?}");
    };
    check(Method::Hash, &["", "weight=2", ""], "3122221313132222313122311322222213312222");
    check(Method::Hash, &["", "weight=2 down", ""], "3133331313133113313113311331313113311313");
    check(
        Method::ConsistentHash,
        &["", "weight=2", "", ""],
        "313222322122324114223424133312324414114221124142112234421223",
    );
    check(
        Method::ConsistentHash,
        &["", "weight=2 down", "", ""],
        "313311331114334114143434133311344414114411134143114334411413",
    );
    // Without a key, round robin decides.
    for method in [Method::Hash, Method::ConsistentHash] {
        let group = group(method, &["", "weight=2", ""]);
        let got: String = (0..4).map(|_| request(&group, Key::Text(b""), NOW, "")).collect();
        assert_eq!(got, "2132");
    }
}

#[test]
fn addresses_of_one_name_share_its_points() {
    let group = group(Method::ConsistentHash, &["server=a:80", "server=a:80", "server=b:80"]);
    let of_a = (0..100)
        .map(|number| format!("k{number}"))
        .find(|key| request(&group, Key::Text(key.as_bytes()), NOW, "") != '3');
    let key = of_a.unwrap();
    let got: String = (0..6).map(|_| request(&group, Key::Text(key.as_bytes()), NOW, "")).collect();
    assert!(got == "121212" || got == "212121", "{got}");
}

#[test]
fn failures_make_a_peer_unavailable_for_a_while() {
    let group = group(Method::RoundRobin, &["max_fails=2 fail_timeout=5000", "fail_timeout=5000"]);
    let mut attempt = group.begin(Key::None);
    let first = attempt.choose(NOW, &mut no_random).unwrap();
    assert_eq!(attempt.release(Outcome::Failure, NOW, QUICK), Released { disabled: false });
    assert_eq!(attempt.tries_left(), 1);
    drop(attempt);
    let mut attempt = group.begin(Key::None);
    attempt.choose(NOW, &mut no_random);
    attempt.choose(NOW, &mut no_random);
    assert_eq!(attempt.current(), Some(first));
    assert_eq!(attempt.release(Outcome::Failure, NOW + 1, QUICK), Released { disabled: true });
    assert_eq!(attempt.choose(NOW + 1, &mut no_random), None);
    drop(attempt);
    let at = |now_ms| (0..4).map(|_| request(&group, Key::None, now_ms, "")).collect::<String>();
    assert_eq!(at(NOW + 1), "2222");
    assert_eq!(at(NOW + 5001), "2222");
    // One request may try; it succeeds, so that all is forgotten.
    assert!(at(NOW + 5002).contains('1'));
    assert_eq!(group.states()[0].fails(), 0);
    assert_eq!(group.states()[0].counters.fails.load(Relaxed), 2);
    assert_eq!(group.states()[0].counters.unavailable.load(Relaxed), 1);
}

#[test]
fn a_failed_chance_waits_again() {
    let group = group(Method::RoundRobin, &["fail_timeout=1000", "weight=3"]);
    assert_eq!((0..8).map(|_| request(&group, Key::None, NOW, "1")).collect::<String>(), "22222222");
    assert_eq!(group.states()[0].fails(), 1);
    for _ in 0..8 {
        request(&group, Key::None, NOW + 1001, "1");
    }
    assert_eq!(group.states()[0].fails(), 2);
    for _ in 0..8 {
        request(&group, Key::None, NOW + 2001, "1");
    }
    assert_eq!(group.states()[0].fails(), 2);
}

#[test]
fn the_only_peer_is_never_unavailable() {
    let group = group(Method::RoundRobin, &[""]);
    assert_eq!(sequence(&group, 5, "1"), "-----");
    assert_eq!(sequence(&group, 2, ""), "11");
    let mut attempt = group.begin(Key::None);
    assert!(attempt.choose(NOW, &mut no_random).is_some());
    assert_eq!(attempt.tries_left(), 0);
    assert_eq!(attempt.choose(NOW, &mut no_random), None);
    // A kept connection that was closed meanwhile is no try.
    attempt.pardon();
    assert!(attempt.choose(NOW, &mut no_random).is_some());
    // With a backup it is not the only one.
    let group = self::group(Method::RoundRobin, &["", "backup"]);
    assert_eq!(sequence(&group, 3, "1"), "222");
    assert_eq!(group.states()[0].counters.requests.load(Relaxed), 1);
}

#[test]
fn no_more_requests_than_max_conns() {
    for method in
        [Method::RoundRobin, Method::LeastConn, Method::IpHash, Method::Hash, Method::ConsistentHash]
    {
        let group = group(method, &["max_conns=2", "max_conns=1"]);
        let key = if method == Method::IpHash { Key::Client(None) } else { Key::Text(b"k") };
        let begin = || {
            let mut attempt = group.begin(key);
            attempt.choose(NOW, &mut no_random).map(|_| attempt)
        };
        let mut running: Vec<_> = (0..3).map_while(|_| begin()).collect();
        assert_eq!((running.len(), group.active()), (3, 3), "{method:?}");
        assert!(begin().is_none());
        running.pop();
        assert_eq!(group.active(), 2);
        assert!(begin().is_some());
        drop(running);
        assert_eq!(group.active(), 0);
    }
    let group = group(Method::RoundRobin, &["max_conns=1"]);
    let mut first = group.begin(Key::None);
    assert!(first.choose(NOW, &mut no_random).is_some());
    assert_eq!(sequence(&group, 1, ""), "-");
}

#[test]
fn slow_start_brings_the_weight_back() {
    let group = group(Method::RoundRobin, &["slow_start=1000 fail_timeout=100 weight=4", "weight=4"]);
    let share = |now_ms| (0..100).filter(|_| request(&group, Key::None, now_ms, "") == '1').count();
    assert_eq!(share(NOW), 50);
    for _ in 0..4 {
        request(&group, Key::None, NOW, "1");
    }
    let back = NOW + 101;
    assert!((0..8).any(|_| request(&group, Key::None, back, "") == '1'));
    let shares: Vec<usize> = [0, 250, 500, 999, 1000].map(|elapsed| share(back + elapsed)).into();
    assert!(shares.is_sorted(), "{shares:?}");
    assert!(shares[0] <= 2 && (15..=25).contains(&shares[1]) && (28..=38).contains(&shares[2]), "{shares:?}");
    assert_eq!(shares[4], 50);
}

#[test]
fn health_decides_too() {
    let group = group(Method::RoundRobin, &["slow_start=1000", ""]);
    group.set_unhealthy(PeerIndex(0), true, NOW);
    assert_eq!(sequence(&group, 4, ""), "2222");
    group.set_unhealthy(PeerIndex(0), false, NOW);
    assert_eq!(sequence(&group, 4, ""), "2222");
    let later: String = (0..4).map(|_| request(&group, Key::None, NOW + 2000, "")).collect();
    assert_eq!(later.matches('1').count(), 2);
    let group = self::group(Method::RoundRobin, &[""]);
    group.set_unhealthy(PeerIndex(0), true, NOW);
    assert_eq!(sequence(&group, 1, ""), "-");
}

#[test]
fn a_bound_request_goes_where_it_belongs() {
    for method in [Method::RoundRobin, Method::LeastConn, Method::Hash] {
        let group = group(method, &["", "drain", "", "down"]);
        let bound = |index: u32, broken: &str| {
            let mut attempt = group.begin(Key::Text(b"k"));
            attempt.bind(PeerIndex(index));
            loop {
                let chosen = attempt.choose(NOW, &mut no_random).map(|index| digit(&group, index))?;
                if !broken.contains(chosen) {
                    return Some(chosen);
                }
            }
        };
        assert_eq!(bound(2, ""), Some('3'));
        assert_eq!(bound(1, ""), Some('2'));
        assert!(matches!(bound(3, ""), Some('1' | '3')));
        assert!(matches!(bound(1, "2"), Some('1' | '3')));
        assert!(!sequence(&group, 20, "").contains('2'));
    }
    // Others get their share back, but not more than a round of it.
    let group = group(Method::RoundRobin, &["", ""]);
    for _ in 0..10 {
        let mut attempt = group.begin(Key::None);
        attempt.bind(PeerIndex(0));
        attempt.choose(NOW, &mut no_random);
    }
    assert_eq!(sequence(&group, 4, ""), "2121");
}

#[test]
fn state_goes_on_with_the_address() {
    let old = group(Method::RoundRobin, &["max_fails=1", "", "weight=2"]);
    sequence(&old, 3, "1");
    let mut held = old.begin(Key::None);
    let held_index = held.choose(NOW, &mut no_random).unwrap();
    let mut changed = peers(&["", "", "weight=2", ""]);
    changed.reverse();
    let new = Group::carry_from(changed, Method::LeastConn, &old);
    let address = |group: &Group, index: usize| group.peers()[index].address.clone();
    for (index, state) in new.states().iter().enumerate() {
        let earlier = (0..3).find(|earlier| address(&old, *earlier) == address(&new, index));
        assert!(earlier.is_none_or(|earlier| Arc::ptr_eq(state, &old.states()[earlier])));
        assert_eq!(earlier.is_none(), state.counters.requests.load(Relaxed) == 0);
    }
    // The failed one is still unavailable, the request that is still running still counts, and ends in both.
    assert!(!sequence(&new, 12, "").contains('1'));
    assert_eq!((new.active(), old.active()), (1, 1));
    assert_eq!(old.peers()[held_index.index()].address, address(&old, held_index.index()));
    held.release(Outcome::Success, NOW, QUICK);
    assert_eq!((new.active(), old.active()), (0, 0));
}

#[test]
fn the_same_address_twice_keeps_two_states() {
    let twice = || vec![Peer::new("10.0.0.1:80"), Peer::new("10.0.0.1:80")];
    let old = Group::new(twice(), Method::RoundRobin);
    let new = Group::carry_from(twice(), Method::RoundRobin, &old);
    assert!(Arc::ptr_eq(&new.states()[0], &old.states()[0]));
    assert!(Arc::ptr_eq(&new.states()[1], &old.states()[1]));
}

#[test]
fn the_fastest_gets_most() {
    for (last_byte, inflight) in [(false, false), (true, false), (false, true), (true, true)] {
        let group = group(Method::LeastTime { last_byte, inflight }, &["", "", ""]);
        let speed = [30, 200, 900];
        let mut counts = [0; 3];
        let mut now_ms = NOW;
        for _ in 0..300 {
            let mut attempt = group.begin(Key::None);
            let index = attempt.choose(now_ms, &mut no_random).unwrap().index();
            counts[index] += 1;
            now_ms += speed[index];
            attempt.header(speed[index], now_ms);
            let timings = Timings { header_ms: Some(speed[index]), response_ms: speed[index] };
            attempt.release(Outcome::Success, now_ms, timings);
        }
        assert!(counts[0] > counts[1] && counts[1] >= counts[2], "{last_byte} {inflight} {counts:?}");
        assert!(counts[0] > 250, "{counts:?}");
        assert_eq!(group.states()[0].inflight.load(Relaxed), 0);
        assert!((25..=30).contains(&group.states()[0].header_ms()), "{}", group.states()[0].header_ms());
    }
}

#[test]
fn responses_are_counted_by_class() {
    let counters = Counters::default();
    [100, 200, 204, 301, 404, 502, 599, 600, 99, 0].iter().for_each(|status| counters.response(*status));
    assert_eq!(counters.responses.each_ref().map(|counter| counter.load(Relaxed)), [1, 2, 1, 1, 2]);
}

#[test]
fn many_peers_need_more_than_a_word() {
    let group = group(Method::RoundRobin, &[""; 130]);
    let mut attempt = group.begin(Key::None);
    let mut seen = [false; 130];
    for _ in 0..130 {
        let index = attempt.choose(NOW, &mut no_random).unwrap().index();
        assert!(!std::mem::replace(&mut seen[index], true));
    }
    assert_eq!(attempt.choose(NOW, &mut no_random), None);
    assert_eq!((attempt.tries_left(), group.active()), (0, 0));
}

#[test]
fn huge_weights_do_not_make_a_huge_ring() {
    let group = group(Method::ConsistentHash, &["weight=4000000000", "weight=4000000000"]);
    let got: String =
        (0..100).map(|number: u32| request(&group, Key::Text(&number.to_le_bytes()), NOW, "")).collect();
    assert!(got.matches('1').count() > 30 && got.matches('2').count() > 30, "{got}");
}

#[test]
fn threads_share_one_round() {
    let group = group(Method::RoundRobin, &["weight=5", "weight=2", ""]);
    let choose = || (0..800).for_each(|_| _ = group.begin(Key::None).choose(NOW, &mut no_random));
    std::thread::scope(|scope| (0..4).for_each(|_| _ = scope.spawn(choose)));
    let counts: Vec<u64> = group.states().iter().map(|state| state.counters.requests.load(Relaxed)).collect();
    assert_eq!((counts, group.active()), (vec![2000, 800, 400], 0));
}

fn methods() -> impl Strategy<Value = Method> {
    prop::sample::select(vec![
        Method::RoundRobin,
        Method::LeastConn,
        Method::IpHash,
        Method::Hash,
        Method::ConsistentHash,
        Method::Random,
        Method::RandomTwo,
        Method::LeastTime { last_byte: true, inflight: true },
    ])
}

proptest! {
    #[test]
    fn a_cycle_of_round_robin_is_exactly_the_weights(weights in prop::collection::vec(1u32..20, 2..8)) {
        let lines: Vec<String> = weights.iter().map(|weight| format!("weight={weight}")).collect();
        let group = group(Method::RoundRobin, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        for _ in 0..2 {
            let mut counts = vec![0; weights.len()];
            for _ in 0..weights.iter().sum::<u32>() {
                let mut attempt = group.begin(Key::None);
                counts[attempt.choose(NOW, &mut no_random).unwrap().index()] += 1;
            }
            prop_assert_eq!(&counts, &weights);
        }
    }

    #[test]
    fn a_peer_is_never_chosen_twice_nor_while_down(
        method in methods(),
        peers in prop::collection::vec((1u32..5, 0u8..5), 1..12),
        key: Vec<u8>,
        seed: u32,
    ) {
        let takes_backup = method.takes_backup();
        let lines: Vec<String> = peers.iter().map(|(weight, kind)| {
            let kind = match kind {
                0 => "down",
                1 => "drain",
                2 if takes_backup => "backup",
                3 => "max_conns=1",
                _ => "",
            };
            format!("weight={weight} {kind}")
        }).collect();
        let group = group(method, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        let key = if method == Method::IpHash { Key::Client(None) } else { Key::Text(&key) };
        let mut state = seed;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        let mut attempt = group.begin(key);
        let mut seen = Vec::new();
        while let Some(index) = attempt.choose(NOW, &mut random) {
            let peer = &group.peers()[index.index()];
            prop_assert!(!peer.down && !peer.drain);
            prop_assert!(!seen.contains(&index));
            if peer.backup {
                let left = (0..group.primary_count()).any(|index| {
                    let peer = &group.peers()[index];
                    !peer.down && !peer.drain && !seen.contains(&PeerIndex(index as u32))
                });
                prop_assert!(!left);
            }
            seen.push(index);
        }
        // All that can be chosen were, and nothing is left behind.
        prop_assert_eq!(seen.len() as u32, group.tries());
        drop(attempt);
        prop_assert_eq!(group.active(), 0);
    }

    #[test]
    fn a_leaving_peer_takes_only_its_own_keys(count in 3usize..10, leaving in 0usize..10, salt: u32) {
        let leaving = leaving % count;
        let all = vec![""; count];
        let mut fewer = all.clone();
        fewer[leaving] = "down";
        let before = group(Method::ConsistentHash, &all);
        // Not a single point of the others moves, so that the ring may as well be built without it.
        let after = Group::new(
            peers(&all).into_iter().enumerate().filter(|(index, _)| *index != leaving).map(|(_, peer)| peer).collect(),
            Method::ConsistentHash,
        );
        let down = group(Method::ConsistentHash, &fewer);
        let mut moved = 0;
        for number in 0..200u32 {
            let key = format!("{salt}-{number}");
            let place = |group: &Arc<Group>| {
                let mut attempt = group.begin(Key::Text(key.as_bytes()));
                let index = attempt.choose(NOW, &mut no_random).unwrap();
                group.peers()[index.index()].address.clone()
            };
            let (was, is, while_down) = (place(&before), place(&after), place(&down));
            let own = was == before.peers()[leaving].address;
            prop_assert!(own || was == is);
            prop_assert!(own || was == while_down);
            moved += usize::from(own);
        }
        prop_assert!(moved < 200 * 3 / count);
    }

    #[test]
    fn chance_follows_the_weights(weights in prop::collection::vec(1u32..6, 2..5)) {
        let lines: Vec<String> = weights.iter().map(|weight| format!("weight={weight}")).collect();
        let group = group(Method::Random, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        let mut next = 0u32;
        let mut counts: HashMap<usize, u32> = HashMap::new();
        for _ in 0..weights.iter().sum::<u32>() {
            let mut attempt = group.begin(Key::None);
            let index = attempt.choose(NOW, &mut || { next += 1; next - 1 }).unwrap().index();
            *counts.entry(index).or_default() += 1;
        }
        for (index, weight) in weights.iter().enumerate() {
            prop_assert_eq!(counts.get(&index), Some(weight));
        }
    }
}
