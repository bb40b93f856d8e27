//! Streams, connecting and accepting, over loopback.

use net::accept::{Acceptor, Ends};
use net::address::Address;
use net::connect::{ConnectOptions, ConnectStep, Probes, connect};
use net::errno::Errno;
use net::splice::Pipe;
use net::stream::{Closed, Stream, StreamError};
use net::thread::{run, spawn_local};
use net::timer::Deadline;
use std::future::{Future, poll_fn};
use std::io::{IoSlice, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Starts a task; the receiver hears of its end, and of a panic in it.
fn joinable(task: impl Future<Output = ()> + 'static) -> oneshot::Receiver<()> {
    let (over, joined) = oneshot::channel();
    spawn_local(async move {
        task.await;
        let _ = over.send(());
    });
    joined
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

fn listener() -> (Arc<OwnedFd>, Address) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback exists");
    let address = listener.local_addr().expect("it is bound");
    (Arc::new(listener.into()), address.into())
}

async fn pair() -> (Stream, Stream) {
    let (client, server, _) = pair_with_ends().await;
    (client, server)
}

async fn pair_with_ends() -> (Stream, Stream, Ends) {
    let (fd, address) = listener();
    let mut acceptor = Acceptor::new(fd).expect("the runtime watches it");
    let client = connect(&address, &ConnectOptions::default(), soon()).await.expect("someone listens");
    let accepted = acceptor.accept().await.expect("a connection waits");
    let (server, ends) = accepted.into_stream();
    (client, server, ends)
}

#[test]
fn bytes_go_both_ways_and_addresses_agree() {
    run(async {
        let (mut client, mut server, ends) = pair_with_ends().await;
        assert_eq!(ends.local, server.local_address());
        assert_eq!(ends.peer, client.local_address());

        let mut parts = [IoSlice::new(b""), IoSlice::new(b"GET / "), IoSlice::new(b"HTTP/1.1\r\n\r\n")];
        client.write_all(&mut parts, soon()).await.expect("it is written");
        let mut head = Vec::new();
        assert_eq!(server.read_into(&mut head, 1024, soon()).await, Ok(18));
        assert_eq!(head, b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(server.try_read(&mut [0; 8]), Ok(None));

        server.write_all(&mut [IoSlice::new(b"hello")], soon()).await.expect("it is written");
        drop(server);
        let mut buffer = [0; 3];
        assert_eq!(client.read(&mut buffer, soon()).await, Ok(3));
        assert_eq!(client.read(&mut buffer, soon()).await, Ok(2));
        assert_eq!(client.read(&mut buffer, soon()).await, Ok(0));
        assert_eq!(client.read(&mut buffer, soon()).await, Ok(0));
        assert!(client.tcp_info().is_some_and(|info| info.snd_cwnd > 0));
    });
}

#[test]
fn more_than_the_socket_holds_is_written_while_the_peer_reads() {
    run(async {
        let (mut client, mut server) = pair().await;
        let bytes: Vec<u8> = (0..6_000_000_u32).map(|index| (index % 251) as u8).collect();
        let expected = bytes.clone();
        let reader = joinable(async move {
            let mut got = Vec::new();
            while server.read_into(&mut got, 60_000, soon()).await != Ok(0) {}
            assert!(got == expected);
        });
        let (first, second) = bytes.split_at(1_000_001);
        client.write_all(&mut [IoSlice::new(first), IoSlice::new(second)], soon()).await.expect("all goes");
        drop(client);
        reader.await.expect("the reader got all");
    });
}

#[test]
fn a_full_socket_says_so_and_a_write_limit_ends_the_wait() {
    run(async {
        let (mut client, _server) = pair().await;
        let block = [0; 65536];
        while client.try_writev(&[IoSlice::new(&block)]).expect("the peer is there").is_some() {}
        assert_eq!(client.try_writev(&[IoSlice::new(&block)]), Ok(None));
        let limit = Deadline::between(Duration::from_millis(30));
        let result = client.write_all(&mut [IoSlice::new(&block)], limit).await;
        assert_eq!(result, Err(StreamError::TimedOut));
        assert_eq!(StreamError::TimedOut.to_string(), "110: Connection timed out");
    });
}

#[test]
fn a_file_is_sent_from_any_offset_and_its_early_end_is_noticed() {
    run(async {
        let (mut client, mut server) = pair().await;
        let path = std::env::temp_dir().join(format!("gapura-net-sendfile-{}", std::process::id()));
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 241) as u8).collect();
        std::fs::write(&path, &bytes).expect("the temporary folder is writable");
        let file = std::fs::File::open(&path).expect("it was just written");
        std::fs::remove_file(&path).expect("it is ours");
        let expected = bytes[5..].to_vec();
        let reader = joinable(async move {
            let mut got = Vec::new();
            while server.read_into(&mut got, 30_000, soon()).await != Ok(0) {}
            assert!(got == expected);
        });
        assert_eq!(client.sendfile(&file, 5, 1_000_000, 65536, soon()).await, Ok(1_000_000));
        let rest = bytes.len() as u64 - 1_000_005;
        assert_eq!(client.sendfile(&file, 1_000_005, rest + 99, 2 << 20, soon()).await, Ok(rest));
        drop(client);
        reader.await.expect("the reader got all");
    });
}

#[test]
fn bytes_go_through_a_pipe_from_one_connection_to_another() {
    run(async {
        let (mut source, mut from) = pair().await;
        let (mut to, mut sink) = pair().await;
        let bytes: Vec<u8> = (0..2_000_000_u32).map(|index| (index % 239) as u8).collect();
        let sent = bytes.clone();
        let writer = joinable(async move {
            source.write_all(&mut [IoSlice::new(&sent)], soon()).await.expect("all goes");
        });
        let reader = joinable(async move {
            let mut got = Vec::new();
            while sink.read_into(&mut got, 50_000, soon()).await != Ok(0) {}
            assert!(got == [b"head: lead, ", &bytes[..]].concat());
        });
        let mut pipe = Pipe::new().expect("pipes can be made");
        let (mut moved, mut rest) = (0, Vec::new());
        let mut lead: [&[u8]; 2] = [b"head: ", b"lead, "];
        loop {
            poll_fn(|cx| from.poll_stirred(cx, soon())).await.expect("it is there");
            let turn = pipe.move_at_hand(&mut from, &mut to, 2_000_000, lead, &mut rest);
            let Some(turn) = turn.expect("both are there") else { continue };
            assert_eq!(turn.taken, turn.passed + rest.len(), "nothing stays in the pipe");
            assert_eq!(turn.led, if turn.taken == 0 { 0 } else { lead[0].len() + lead[1].len() });
            lead = [b"", b""];
            if turn.taken == 0 {
                break;
            }
            moved += turn.taken;
            to.write_all(&mut [IoSlice::new(&rest)], soon()).await.expect("the rest goes");
            rest.clear();
        }
        assert_eq!(moved, 2_000_000);
        drop(to);
        writer.await.expect("it wrote all");
        reader.await.expect("it got all");

        let (_source, mut from) = pair().await;
        let (mut to, _sink) = pair().await;
        assert_eq!(
            pipe.move_at_hand(&mut from, &mut to, 1, [b"", b""], &mut rest),
            Ok(None),
            "nothing is there"
        );
    });
}

#[test]
fn early_closes_are_seen_behind_unread_bytes() {
    run(async {
        let (client, mut server) = pair().await;
        drop(client);
        assert_eq!(server.closed().await, Closed::Ended);

        let (mut client, mut server) = pair().await;
        client.write_all(&mut [IoSlice::new(b"pipelined")], soon()).await.expect("it is written");
        let mut limit = net::timer::Timer::new();
        let while_open =
            limit.with_deadline(Deadline::after(Duration::from_millis(20)), server.closed()).await;
        assert!(while_open.is_err(), "bytes alone are not a close");
        drop(client);
        assert_eq!(server.closed().await, Closed::Ended);
        let mut buffer = [0; 64];
        assert_eq!(server.read(&mut buffer, soon()).await, Ok(9), "the bytes are still there");
        assert_eq!(server.read(&mut buffer, soon()).await, Ok(0));

        let (client, mut server) = pair().await;
        client.reset();
        assert_eq!(server.closed().await, Closed::Broken(Errno::CONNRESET));
    });
}

#[test]
fn idle_connections_are_told_from_dead_and_from_talking_ones() {
    run(async {
        let (mut client, mut server) = pair().await;
        assert!(server.is_idle_and_open());
        client.write_all(&mut [IoSlice::new(b"x")], soon()).await.expect("it is written");
        assert!(!server.is_idle_and_open());
        let (client, mut server) = pair().await;
        drop(client);
        assert_eq!(server.closed().await, Closed::Ended);
        assert!(!server.is_idle_and_open());
    });
}

#[test]
fn lingering_keeps_the_response_alive_for_a_client_that_still_sends() {
    run(async {
        let (mut client, mut server) = pair().await;
        server.write_all(&mut [IoSlice::new(b"413 too large")], soon()).await.expect("it is written");
        let lingering = joinable(server.linger(Duration::from_secs(5), Duration::from_secs(30)));
        for _ in 0..20 {
            client.write_all(&mut [IoSlice::new(&[b'x'; 9000])], soon()).await.expect("no reset comes back");
        }
        let mut got = Vec::new();
        assert_eq!(client.read_into(&mut got, 1024, soon()).await, Ok(13));
        assert_eq!(client.read_into(&mut got, 1024, soon()).await, Ok(0));
        drop(client);
        lingering.await.expect("it ends with the client");

        // A client that never closes is cut off.
        let (client, server) = pair().await;
        server.linger(Duration::from_millis(20), Duration::from_secs(30)).await;
        drop(client);
    });
}

#[test]
fn connecting_fails_in_the_words_of_the_system() {
    run(async {
        let free = {
            let (_fd, address) = listener();
            address
        };
        let error = connect(&free, &ConnectOptions::default(), soon()).await.expect_err("nobody listens");
        assert_eq!(error.to_string(), "connect() failed (111: Connection refused)");
        assert!(error.is_peer_fault());

        let missing = Address::unix(b"/nonexistent/app.sock");
        let error = connect(&missing, &ConnectOptions::default(), soon()).await.expect_err("no such path");
        assert_eq!(error.to_string(), "connect() failed (2: No such file or directory)");

        let (_fd, address) = listener();
        let foreign = ConnectOptions { bind: "192.0.2.1:0".parse().ok(), ..ConnectOptions::default() };
        let error = connect(&address, &foreign, soon()).await.expect_err("not our address");
        assert_eq!((error.step, error.errno), (ConnectStep::Bind, Errno::ADDRNOTAVAIL));

        let local = ConnectOptions {
            bind: "127.0.0.9:0".parse().ok(),
            keepalive: true,
            probes: Some(Probes { idle: Duration::from_secs(2), interval: Duration::from_secs(1), count: 3 }),
            user_timeout: Some(Duration::from_secs(2)),
            nodelay: true,
            receive_buffer_bytes: Some(65536),
            send_buffer_bytes: Some(65536),
            ..ConnectOptions::default()
        };
        let stream = connect(&address, &local, soon()).await.expect("all of 127/8 is ours");
        assert_eq!(stream.local_address().ip(), "127.0.0.9".parse().ok());
    });
}

#[test]
fn a_peer_that_does_not_answer_runs_into_the_limit() {
    run(async {
        // A full accept queue makes the kernel drop further attempts.
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
        socket.bind(&any.into()).expect("loopback exists");
        socket.listen(0).expect("it is bound");
        let address: Address = socket.local_addr().expect("bound").as_socket().expect("IPv4").into();
        let mut held = Vec::new();
        let error = loop {
            assert!(held.len() < 8, "the queue holds one or two");
            let limit = Deadline::after(Duration::from_millis(100));
            match connect(&address, &ConnectOptions::default(), limit).await {
                Ok(stream) => held.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.to_string(), "upstream timed out (110: Connection timed out)");
    });
}

#[test]
fn a_stream_that_is_prompt_holds_nothing_back() {
    run(async {
        let (_client, mut server) = pair().await;
        let held_back = |stream: &Stream| !rustix::net::sockopt::tcp_nodelay(stream).expect("it is TCP");
        assert!(held_back(&server), "small answers leave in one piece and need no option");
        server.be_prompt();
        assert!(!held_back(&server));
    });
}

#[test]
fn unix_sockets_carry_streams_too() {
    let path = std::env::temp_dir().join(format!("gapura-net-unix-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("the folder is writable");
    let address = Address::unix(path.as_os_str().as_encoded_bytes());
    run(async {
        let mut acceptor = Acceptor::new(Arc::new(listener.into())).expect("it is watched");
        assert_eq!(acceptor.address(), &address);
        let mut client = connect(&address, &ConnectOptions::default(), soon()).await.expect("it listens");
        let accepted = acceptor.accept().await.expect("one waits");
        assert_eq!(accepted.peer_address().to_string(), "unix:");
        let (mut server, _) = accepted.into_stream();
        client.set_nodelay(true).expect("no effect");
        client.write_all(&mut [IoSlice::new(b"ping")], soon()).await.expect("it is written");
        let mut buffer = [0; 16];
        assert_eq!(server.read(&mut buffer, soon()).await, Ok(4));
        assert_eq!(server.tcp_info(), None);
    });
    std::fs::remove_file(&path).expect("it is ours");
}

#[test]
fn closing_an_acceptor_leaves_those_of_other_threads() {
    let (fd, address) = listener();
    let (sender, mut mailbox) = net::thread::mailbox::<()>(1);
    let other = fd.clone();
    let worker = net::thread::spawn("acceptor", move || async move {
        let mut acceptor = Acceptor::new(other).expect("it is watched");
        mailbox.recv().await;
        let accepted = acceptor.accept().await.expect("the socket still listens");
        let (mut stream, _) = accepted.into_stream();
        stream.write_all(&mut [IoSlice::new(b"served")], soon()).await.expect("it is written");
    })
    .expect("threads can be started");
    run(async move {
        drop(Acceptor::new(fd).expect("it is watched"));
    });
    sender.blocking_send(()).expect("the thread lives");
    let mut client = std::net::TcpStream::connect(address.inet().expect("IPv4")).expect("it listens");
    client.write_all(b"x").expect("it is written");
    let mut got = [0; 6];
    client.read_exact(&mut got).expect("it is served");
    assert_eq!(&got, b"served");
    worker.join().expect("it does not panic");
}
