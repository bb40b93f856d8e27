//! Processes of the real binary: what is started, what signals do, what a reload keeps. With
//! `GATEWAY=/usr/sbin/nginx` a real nginx is asked, but for what is promised here alone.

mod support;

use rustix::process::Signal;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};
use support::client::Connection;
use support::gateway::{is_gapura, send};
use support::server::{
    PATIENCE, Server, answering, children, is_alive, is_root, log_text, status_line, title,
};
use support::{free_port, text_of, try_for, wait_for};

#[test]
fn a_start_leaves_a_daemon_with_titles_and_a_pid_file() {
    for name in ["nginx", "gapura"] {
        if name == "gapura" && !is_gapura() {
            continue;
        }
        let server = Server::started(name, &answering("a"));
        let (master, worker) = (server.master(), server.worker());
        assert_eq!(text_of(&server.path("nginx.pid")), format!("{master}\n"));
        assert_eq!(fs::metadata(server.path("nginx.pid")).unwrap().permissions().mode() & 0o777, 0o644);
        let words = format!(
            "{} -p {} -c nginx.conf -e error.log",
            server.program.display(),
            server.folder.path().display()
        );
        assert_eq!(title(master), format!("{name}: master process {words}"));
        let worker_title = format!("{name}: worker process");
        wait_for("the worker's title", PATIENCE, || (title(worker) == worker_title).then_some(()));
        for pid in [master, worker] {
            assert_eq!(status_line(pid, "Name"), name, "the name in `ps -o comm` and in the journal");
        }
        // A session of its own, and nothing held of the terminal but for the standard error, which is the log.
        let session = rustix::process::getsid(rustix::process::Pid::from_raw(master as i32)).unwrap();
        assert_eq!(session.as_raw_nonzero().get(), master as i32);
        for (number, target) in
            [(0, "/dev/null".into()), (1, "/dev/null".into()), (2, server.path("error.log"))]
        {
            for pid in [master, worker] {
                assert_eq!(fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap(), target);
            }
        }
        assert_eq!(server.body(8080), "a");
        for line in [
            "using the \"epoll\" event method",
            "OS: Linux ",
            "getrlimit(RLIMIT_NOFILE): ",
            "start worker processes",
        ] {
            assert!(server.log().contains(&format!(": {line}")), "{line}\n{}", server.log());
        }
        server.wait_for_log(&format!("[notice] {master}#{master}: start worker process {worker}"), 1);
        assert_eq!(server.says(&["-s", "stop"], 0), "");
        server.wait_for_end(master);
        assert!(!is_alive(worker));
        assert!(!server.path("nginx.pid").exists());
        assert!(!server.path("nginx.pid.sock").exists());
        for line in
            ["signal 15 (SIGTERM) received from ", ", exiting", ": exiting", "received from", ": exit\n"]
        {
            assert!(server.log().contains(line), "{line}\n{}", server.log());
        }
        server.wait_for_log(&format!("worker process {worker} exited with code 0"), 1);
    }
}

#[test]
fn a_reload_happens_inside_the_worker() {
    let server = Server::started("nginx", &answering("a"));
    let worker = server.worker();
    let mut connection = server.connect(8080);
    assert_eq!(connection.get("test", "/").unwrap().text(), "a");
    for body in ["b", "c"] {
        server.write(&answering(body));
        assert_eq!(server.says(&["-s", "reload"], 0), "");
        // The answer to `-s reload` came after the new configuration took over: nothing to wait for.
        if is_gapura() {
            assert_eq!(server.body(8080), body);
            assert_eq!(connection.get("test", "/").unwrap().text(), body, "on the connection from before");
            assert_eq!(server.worker(), worker);
        }
        server.wait_for_body(8080, body);
    }
    server.wait_for_log("signal 1 (SIGHUP) received from ", 2);
    server.wait_for_log(", reconfiguring\n", 2);
    server.wait_for_log(": reconfiguring\n", 2);
}

#[test]
fn a_refused_configuration_changes_nothing_and_is_explained() {
    if !is_gapura() {
        return;
    }
    let server = Server::started("nginx", &answering("a"));
    let worker = server.worker();
    let files = || fs::read_dir(format!("/proc/{}/fd", server.master())).unwrap().count();
    let before = files();
    let holder = std::net::TcpListener::bind(server.address(8081)).unwrap();
    let conflict = answering("b").replace("server {", "server { listen %HOST%:8082; listen %HOST%:8081;");
    let in_use = format!("bind() to {} failed (98: Address already in use)", server.address(8081));
    let missing =
        format!("open() \"{}\" failed (2: No such file or directory)", server.path("nowhere/x").display());
    for (text, reasons) in [
        (conflict, vec![in_use.as_str(), "still could not bind()"]),
        (answering("b").replace("access.log", "nowhere/x"), vec![missing.as_str()]),
    ] {
        server.write(&text);
        let told = server.says(&["-s", "reload"], 1);
        for reason in reasons {
            assert!(told.contains(&format!("nginx: [emerg] {reason}\n")), "{told}");
            assert!(server.log().contains(&format!(": {reason}\n")), "{}", server.log());
        }
        assert!(
            told.ends_with("the new configuration was refused, the one before it goes on serving\n"),
            "{told}"
        );
        assert_eq!(server.body(8080), "a");
        assert_eq!(server.worker(), worker);
        wait_for("what was opened is closed", PATIENCE, || (files() <= before).then_some(()));
        assert!(Connection::open(server.address(8082), Duration::from_millis(300)).is_err());
    }
    // Nobody waits after a plain signal; the error log tells. What is wrong in the text never gets that far with -s.
    server.write("events {}\n}\n");
    server.signal(Signal::HUP);
    server.wait_for_log("unexpected \"}\" in ", 1);
    server.wait_for_log("the new configuration was refused", 3);
    assert!(server.says(&["-s", "reload"], 1).starts_with("nginx: [emerg] unexpected \"}\" in "));
    drop(holder);
    server.write(&answering("c"));
    assert_eq!(server.says(&["-s", "reload"], 0), "");
    assert_eq!(server.body(8080), "c");
}

#[test]
fn without_its_socket_a_reload_is_only_a_signal() {
    let server = Server::started("nginx", &answering("a"));
    let _ = fs::remove_file(server.path("nginx.pid.sock"));
    server.write(&answering("b"));
    assert_eq!(server.says(&["-s", "reload"], 0), "");
    server.wait_for_body(8080, "b");
}

#[test]
fn addresses_come_and_go_with_a_reload() {
    let listening = |lines: &str| answering("a").replace("listen %HOST%:8080;", lines);
    let server = Server::started("nginx", &listening("listen %HOST%:8080; listen unix:%DIR%a.sock;"));
    assert!(server.path("a.sock").exists());
    assert_eq!(fs::metadata(server.path("a.sock")).unwrap().permissions().mode() & 0o777, 0o666);
    server.write(&listening("listen %HOST%:8081; listen unix:%DIR%b.sock;"));
    server.says(&["-s", "reload"], 0);
    server.wait_for_body(8081, "a");
    let closed = || Connection::open(server.address(8080), PATIENCE).is_err().then_some(());
    wait_for("the old port is closed", PATIENCE, closed);
    assert!(!server.path("a.sock").exists());
    assert!(server.path("b.sock").exists());
    let path = server.path("a.sock").display().to_string();
    server.wait_for_log(&format!("[warn] {0}#{0}: deleting socket {path}\n", server.master()), 1);
    // A wildcard address takes the port over from a special one, which nginx cannot do without a restart.
    if is_gapura() {
        let port = free_port();
        server.write(&listening(&format!("listen %HOST%:{port};")));
        assert_eq!(server.says(&["-s", "reload"], 0), "");
        server.write(&listening(&format!("listen {port};")));
        assert_eq!(server.says(&["-s", "reload"], 0), "");
        assert_eq!(server.body(port), "a");
        server.write(&listening("listen %HOST%:8081; listen unix:%DIR%b.sock;"));
        assert_eq!(server.says(&["-s", "reload"], 0), "");
    }
    let master = server.master();
    server.says(&["-s", "quit"], 0);
    server.wait_for_end(master);
    assert!(!server.path("b.sock").exists(), "{}", server.log());
}

#[test]
fn a_worker_that_dies_is_replaced_and_nobody_is_refused() {
    let server = Server::started("nginx", &answering("a"));
    let worker = server.worker();
    std::thread::sleep(Duration::from_millis(1100));
    send(worker, Signal::ABORT).unwrap();
    server.wait_for_end(worker);
    // The kernel takes the connection; the next worker serves it.
    let started = Instant::now();
    assert_eq!(server.body(8080), "a");
    assert!(started.elapsed() < Duration::from_secs(20));
    let master = server.master();
    server.wait_for_log(&format!("[alert] {master}#{master}: worker process {worker} exited on signal 6"), 1);
    let next = server.worker();
    assert_ne!(next, worker);
    server.wait_for_log(&format!("start worker process {next}"), 1);
    // Also one that got a new configuration since it was started.
    server.write(&answering("b"));
    server.says(&["-s", "reload"], 0);
    server.wait_for_body(8080, "b");
    send(next, Signal::KILL).unwrap();
    server.wait_for_end(next);
    assert_eq!(server.body(8080), "b");
}

#[test]
fn what_only_a_new_process_can_honour_starts_one() {
    if !is_gapura() {
        return;
    }
    let server = Server::started("nginx", &answering("a"));
    let first = server.worker();
    let mut waiting = server.connect(8080);
    waiting.send(b"GET / HTTP/1.1\r\nHost: test\r\n").unwrap();
    assert_eq!(server.body(8080), "a");
    for (setting, body) in [
        ("worker_processes 3;", "b"),
        ("worker_rlimit_nofile 2000;", "c"),
        ("env SOME=thing;", "d"),
        ("working_directory %DIR%;", "e"),
    ] {
        let before = server.master();
        let old: Vec<u32> = children(before);
        server.write(&format!("{setting}\n{}", answering(body)));
        assert_eq!(server.says(&["-s", "reload"], 0), "", "{setting}");
        assert_eq!(server.body(8080), body);
        assert_eq!(children(before).iter().filter(|pid| !old.contains(pid)).count(), 1, "{setting}");
    }
    // What the first worker had begun to read it finishes.
    wait_for("the title of an old worker", PATIENCE, || {
        (title(first) == "nginx: worker process is shutting down").then_some(())
    });
    waiting.send(b"\r\n").unwrap();
    assert_eq!(waiting.answer().unwrap().status, 200);
    server.wait_for_end(first);
    server.wait_for_log(&format!("[notice] {first}#{first}: gracefully shutting down"), 1);
    server.wait_for_log(&format!("[notice] {first}#{first}: exiting"), 1);
    let worker = server.worker();
    assert_eq!(
        fs::read_link(format!("/proc/{worker}/cwd")).unwrap(),
        fs::canonicalize(server.path("")).unwrap()
    );
    // One that cannot start is refused, and the one before goes on.
    server.write(&format!("working_directory /nowhere-at-all;\n{}", answering("f")));
    let told = server.says(&["-s", "reload"], 1);
    let reason = "nginx: [alert] chdir(\"/nowhere-at-all\") failed (2: No such file or directory)\n";
    assert!(told.contains(reason), "{told}");
    assert_eq!(server.body(8080), "e");
    assert_eq!(server.worker(), worker);
}

#[test]
fn a_start_that_fails_in_the_worker_fails() {
    if !is_gapura() {
        return;
    }
    let server = Server::new("nginx", &format!("working_directory /nowhere-at-all;\n{}", answering("a")));
    let told = server.says(&[], 1);
    assert!(told.contains("chdir(\"/nowhere-at-all\") failed (2: No such file or directory)"), "{told}");
    assert!(!server.path("nginx.pid").exists());
}

#[test]
fn quit_waits_for_what_is_being_served() {
    let server = Server::started("nginx", &answering("a"));
    let (master, worker) = (server.master(), server.worker());
    let mut busy = server.connect(8080);
    busy.send(b"GET / HTTP/1.1\r\nHost: test\r\n").unwrap();
    let mut idle = server.connect(8080);
    assert_eq!(idle.get("test", "/").unwrap().text(), "a");
    assert_eq!(server.says(&["-s", "quit"], 0), "");
    wait_for("the title", PATIENCE, || {
        (title(worker) == "nginx: worker process is shutting down").then_some(())
    });
    // Asked on it, it might still be answered: its thread hears of the end a moment after the title has changed.
    let end = idle.exactly(1).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::UnexpectedEof), "an idle connection is closed");
    let refused = || Connection::open(server.address(8080), PATIENCE).is_err().then_some(());
    wait_for("new connections are refused", PATIENCE, refused);
    assert!(is_alive(master));
    busy.send(b"\r\n").unwrap();
    let answer = busy.answer().unwrap();
    assert_eq!((answer.text().as_str(), answer.keeps_alive), ("a", false));
    server.wait_for_end(master);
    assert!(!server.path("nginx.pid").exists());
    for line in [", shutting down\n", ": gracefully shutting down\n", ": exiting\n", ": exit\n"] {
        assert!(server.log().contains(line), "{line}\n{}", server.log());
    }
}

#[test]
fn shutting_down_takes_no_longer_than_it_may() {
    // nginx would still wait for the rest of a head.
    if !is_gapura() {
        return;
    }
    let server = Server::started("nginx", &format!("worker_shutdown_timeout 300ms;\n{}", answering("a")));
    let master = server.master();
    let mut busy = server.connect(8080);
    busy.send(b"GET / HTTP/1.1\r\nHost: test\r\n").unwrap();
    // The connection must have been taken before.
    assert_eq!(server.body(8080), "a");
    let started = Instant::now();
    server.says(&["-s", "quit"], 0);
    server.wait_for_end(master);
    assert!(started.elapsed() >= Duration::from_millis(250), "{:?}", started.elapsed());
    // The rest of a head is waited for a minute otherwise.
    assert!(started.elapsed() < Duration::from_secs(30));
}

/// A worker that is stopped keeps the master waiting for its answer to a configuration.
#[test]
fn signals_that_come_during_a_reload_are_not_forgotten() {
    if !is_gapura() {
        return;
    }
    let server = Server::started("nginx", &answering("a"));
    let (master, worker) = (server.master(), server.worker());
    send(worker, Signal::STOP).unwrap();
    server.write(&answering("b"));
    server.signal(Signal::HUP);
    server.wait_for_log(": reconfiguring\n", 1);
    server.write(&answering("c"));
    server.signal(Signal::HUP);
    server.wait_for("the master has taken the signal", || {
        let waiting = status_line(master, "ShdPnd");
        waiting.bytes().all(|byte| byte == b'0').then_some(())
    });
    send(worker, Signal::CONT).unwrap();
    server.wait_for_log(": reconfigured\n", 2);
    assert_eq!(server.body(8080), "c");
    // One that tells it to end is heard at once, and ends the worker, too.
    send(worker, Signal::STOP).unwrap();
    server.signal(Signal::HUP);
    server.wait_for_log(": reconfiguring\n", 3);
    server.signal(Signal::TERM);
    server.wait_for_end(master);
    assert!(!is_alive(worker));
    server.wait_for_log("told to end while the configuration was being taken", 1);
}

#[test]
fn logs_are_opened_anew_and_given_to_the_worker() {
    let server = Server::started("nginx", &answering("a"));
    let (master, worker) = (server.master(), server.worker());
    for (round, ask) in ["-s reopen", "USR1"].into_iter().enumerate() {
        let moved = server.path(&format!("error.log.{round}"));
        fs::rename(server.path("error.log"), &moved).unwrap();
        fs::rename(server.path("access.log"), server.path("access.log.1")).unwrap();
        match ask {
            "USR1" => server.signal(Signal::USR1),
            // Its own line goes to a new file at once.
            _ => assert_eq!(server.says(&["-s", "reopen"], 0), ""),
        }
        wait_for("a new log", PATIENCE, || server.path("access.log").exists().then_some(()));
        assert!(
            log_text(&moved).contains(&format!("[notice] {master}#{master}: reopening logs")),
            "{}",
            text_of(&moved)
        );
        let of_worker = format!("[notice] {worker}#{worker}: reopening logs");
        let anywhere = || (log_text(&moved) + &server.log()).contains(&of_worker).then_some(());
        wait_for("the worker opens its logs", PATIENCE, anywhere);
        let holds = |pid: u32, path| {
            let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
            entries.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| target == path)
        };
        for pid in [master, worker] {
            for name in ["error.log", "access.log"] {
                let held = || holds(pid, server.path(name)).then_some(());
                wait_for(&format!("{pid} holds the new {name}"), PATIENCE, held);
            }
            wait_for("nobody holds the old one", PATIENCE, || (!holds(pid, moved.clone())).then_some(()));
        }
        if is_root() {
            let uid = status_line(worker, "Uid").split(' ').next().unwrap().parse::<u32>().unwrap();
            assert_eq!(fs::metadata(server.path("access.log")).unwrap().uid(), uid);
        }
    }
}

#[test]
fn the_worker_is_nobody_special() {
    if !is_root() {
        return;
    }
    let server = Server::started("nginx", &answering("a"));
    assert_ne!(status_line(server.worker(), "Uid").split(' ').next(), Some("0"));
    assert_ne!(status_line(server.worker(), "Gid").split(' ').next(), Some("0"));
    server.write(&format!("user nobody daemon;\n{}", answering("b")));
    server.says(&["-s", "reload"], 0);
    server.wait_for_body(8080, "b");
    let ids = |name: &str| {
        let line =
            text_of("/etc/passwd".as_ref()).lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.unwrap().split(':').nth(2).unwrap().to_owned()
    };
    let (uid, gid) = (ids("nobody:"), ids("daemon:"));
    let worker = server.worker();
    assert_eq!(status_line(worker, "Uid"), [&uid[..]; 4].join(" "));
    assert_eq!(status_line(worker, "Gid"), [&gid[..]; 4].join(" "));
    assert_eq!(status_line(server.master(), "Uid"), "0 0 0 0");
}

#[test]
fn it_runs_without_being_root() {
    if !is_root() {
        return;
    }
    const NOBODY: u32 = 65534;
    let server = Server::new("nginx", &answering("a"));
    std::os::unix::fs::chown(server.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
    let output = fs::File::create(server.path("output")).unwrap();
    let mut command = server.command(&[]);
    command.uid(NOBODY).gid(NOBODY).stdout(output.try_clone().unwrap()).stderr(output);
    let Ok(status) = command.status() else {
        eprintln!("skipped: others may not run the program here");
        return;
    };
    assert!(status.success(), "{}", text_of(&server.path("output")));
    wait_for("a pid file", PATIENCE, || server.pid());
    let ids = [NOBODY; 4].map(|id| id.to_string()).join(" ");
    assert_eq!(status_line(server.worker(), "Uid"), ids);
    server.wait_for_body(8080, "a");
    server.write(&format!("user root;\n{}", answering("b")));
    let mut reload = server.command(&["-s", "reload"]);
    assert!(reload.uid(NOBODY).gid(NOBODY).status().unwrap().success());
    server.wait_for_body(8080, "b");
    assert_eq!(status_line(server.worker(), "Uid"), ids);
    server.wait_for_log(
        "the \"user\" directive makes sense only if the master process runs with super-user privileges",
        1,
    );
}

#[test]
fn limits_and_environment_are_those_of_the_configuration() {
    let lines =
        "worker_rlimit_nofile 1234; worker_rlimit_core 5000; env FROM_OUTSIDE; env SET=to this; env ABSENT;";
    let lines = lines.replace("SET=to this", "'SET=to this'");
    let server = Server::new("nginx", &format!("{lines}\n{}", answering("a")));
    let output = fs::File::create(server.path("output")).unwrap();
    let mut command = server.command(&[]);
    command.env("FROM_OUTSIDE", "kept").env("OTHER", "dropped").env("TZ", "Asia/Makassar");
    command.stdout(output.try_clone().unwrap()).stderr(output);
    assert!(command.status().unwrap().success(), "{}", text_of(&server.path("output")));
    let worker =
        wait_for("a worker", PATIENCE, || server.pid().and_then(|pid| children(pid).first().copied()));
    assert_eq!(server.body(8080), "a");
    let limits = text_of(format!("/proc/{worker}/limits").as_ref());
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(limit("Max open files"), ["1234", "1234"]);
    assert_eq!(limit("Max core file size"), ["5000", "5000"]);
    // nginx overwrites its environment with its title, so only ours can be looked at.
    if is_gapura() {
        let environment = text_of(format!("/proc/{worker}/environ").as_ref());
        let mut entries: Vec<&str> = environment.split('\0').filter(|entry| !entry.is_empty()).collect();
        entries.retain(|entry| !entry.starts_with("GAPURA_WORKER="));
        entries.sort_unstable();
        assert_eq!(entries, ["FROM_OUTSIDE=kept", "SET=to this", "TZ=Asia/Makassar"]);
    }
}

#[test]
fn nothing_piles_up_over_reloads() {
    let server = Server::started("nginx", &answering("a"));
    let (master, worker) = (server.master(), server.worker());
    let open = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    server.says(&["-s", "reload"], 0);
    if !is_gapura() {
        return;
    }
    let before = (open(master), open(worker));
    for round in 0..20 {
        // Addresses and logs come and go.
        let text = match round % 2 {
            0 => answering("b").replace("server {", "server { listen %HOST%:8081; access_log b.log;"),
            _ => answering("a"),
        };
        server.write(&text);
        assert_eq!(server.says(&["-s", "reload"], 0), "");
        assert_eq!(server.body(8080), if round % 2 == 0 { "b" } else { "a" });
    }
    // What the first reload replaced may still have been open when it was counted.
    let no_more = || {
        let is_so = open(master) <= before.0 && open(worker) <= before.1;
        if !is_so {
            // A thread lets go of a log that has left the configuration when it writes its next lines.
            server.body(8080);
        }
        is_so.then_some(())
    };
    if try_for(PATIENCE, no_more).is_none() {
        let shown = |pid: u32| {
            let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
            entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect::<Vec<_>>()
        };
        panic!("{before:?}, and now {:?}\n{:?}\n{}", shown(master), shown(worker), server.log());
    }
}

#[test]
fn without_a_master_process_one_does_everything() {
    let conf = |body: &str| format!("master_process off;\n{}", answering(body));
    let server = Server::started("nginx", &conf("a"));
    let pid = server.master();
    assert_eq!(children(pid), [0; 0]);
    assert_eq!(server.body(8080), "a");
    // nginx's single process stops answering for a while after a reload.
    if !is_gapura() {
        return;
    }
    server.write(&conf("b"));
    server.says(&["-s", "reload"], 0);
    server.wait_for_body(8080, "b");
    server.write("}\n");
    server.signal(Signal::HUP);
    server.wait_for_log("unexpected \"}\"", 1);
    assert_eq!(server.body(8080), "b");
    server.write(&conf("b"));
    fs::rename(server.path("error.log"), server.path("error.log.1")).unwrap();
    server.signal(Signal::USR1);
    wait_for("a new log", PATIENCE, || server.path("error.log").exists().then_some(()));
    server.signal(Signal::QUIT);
    server.wait_for_end(pid);
    assert!(!server.path("nginx.pid").exists());
}

#[test]
fn in_the_foreground_it_stays_a_child() {
    let server = Server::new("nginx", &format!("daemon off;\n{}", answering("a")));
    let output = fs::File::create(server.path("output")).unwrap();
    let mut child = server.command(&[]).stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
    wait_for("a pid file", PATIENCE, || server.pid());
    assert_eq!(server.master(), child.id());
    server.wait_for_body(8080, "a");
    // Its parent is the one that started it, which rules a binary upgrade and WINCH out, as in nginx.
    server.signal(Signal::USR2);
    server.wait_for_log("signal 12 (SIGUSR2) received from ", 1);
    server.wait_for_log(", ignoring\n", 1);
    server.wait_for_log("the changing binary signal is ignored", 1);
    let worker = server.worker();
    server.signal(Signal::WINCH);
    server.wait_for_log("signal 28 (SIGWINCH) received from ", 1);
    assert_eq!(server.body(8080), "a");
    assert_eq!(server.worker(), worker);
    server.signal(Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn workers_outlive_a_master_that_is_killed() {
    let server = Server::started("nginx", &answering("a"));
    let (master, worker) = (server.master(), server.worker());
    send(master, Signal::KILL).unwrap();
    server.wait_for_end(master);
    assert_eq!(server.body(8080), "a");
    send(worker, Signal::TERM).unwrap();
    server.wait_for_end(worker);
    fs::remove_file(server.path("nginx.pid")).unwrap();
}
