//! Changing the binary, nginx's way: USR2, then WINCH or QUIT to the old master. With `GATEWAY=/usr/sbin/nginx` a real
//! nginx is asked.

mod support;

use rustix::process::Signal;
use std::fs;
use support::gateway::{is_gapura, send};
use support::server::{PATIENCE, Server, answering, children, status_line, title};
use support::{text_of, wait_for};

fn old_pid(server: &Server) -> Option<u32> {
    text_of(&server.path("nginx.pid.oldbin")).trim_end().parse().ok()
}

/// Sends USR2 and waits for both masters; returns the old one and the new one.
fn begin(server: &Server) -> (u32, u32) {
    let old = server.master();
    server.signal(Signal::USR2);
    let new = wait_for(&format!("a new master\n{}", server.log()), PATIENCE, || {
        let new = server.pid().filter(|pid| *pid != old)?;
        (old_pid(server) == Some(old) && !children(new).is_empty()).then_some(new)
    });
    (old, new)
}

#[test]
fn the_new_binary_takes_over() {
    let server = Server::started("nginx", &answering("a"));
    let mut connection = server.connect(8080);
    assert_eq!(connection.get("test", "/").unwrap().text(), "a");
    server.write(&answering("b"));
    let (old, new) = begin(&server);
    server.wait_for_log("signal 12 (SIGUSR2) received from ", 1);
    server.wait_for_log(": changing binary\n", 1);
    server.wait_for_log(&format!(": start new binary process {new}"), 1);
    server.wait_for_log(": using inherited sockets from \"", 1);
    assert!(title(new).starts_with("nginx: master process "), "{}", title(new));
    assert_eq!(status_line(new, "Name"), "nginx");
    assert_eq!(connection.get("test", "/").unwrap().text(), "a", "the old one finishes what it has");
    // Neither of the two can be changed meanwhile.
    send(old, Signal::USR2).unwrap();
    server.wait_for_log("the changing binary signal is ignored", 1);
    send(new, Signal::USR2).unwrap();
    server.wait_for_log("the changing binary signal is ignored", 2);
    send(old, Signal::QUIT).unwrap();
    server.wait_for_end(old);
    assert!(!server.path("nginx.pid.oldbin").exists());
    assert_eq!(server.master(), new);
    assert_eq!(server.body(8080), "b");
    server.write(&answering("c"));
    assert_eq!(server.says(&["-s", "reload"], 0), "");
    server.wait_for_body(8080, "c");
    // And again, now that the parent is another one.
    let (_, third) = begin(&server);
    send(new, Signal::QUIT).unwrap();
    server.wait_for_end(new);
    assert_eq!(server.master(), third);
    assert_eq!(server.body(8080), "c");
}

#[test]
fn the_old_one_can_come_back() {
    let server = Server::started("nginx", &answering("a"));
    server.write(&answering("b"));
    let (old, new) = begin(&server);
    send(old, Signal::WINCH).unwrap();
    server.wait_for_log("signal 28 (SIGWINCH) received from ", 1);
    let without_workers = || (children(old) == [new]).then_some(());
    wait_for(&format!("the old workers end\n{}", server.log()), PATIENCE, without_workers);
    assert_eq!(server.body(8080), "b");
    // HUP starts them again, without reading the configuration.
    send(old, Signal::HUP).unwrap();
    wait_for("old workers", PATIENCE, || (children(old).len() == 2).then_some(()));
    send(new, Signal::QUIT).unwrap();
    server.wait_for_end(new);
    wait_for("the pid file is back", PATIENCE, || (server.pid() == Some(old)).then_some(()));
    assert!(!server.path("nginx.pid.oldbin").exists());
    server.wait_for_log(&format!("new binary process {new} exited with code 0"), 1);
    server.wait_for_body(8080, "a");
    assert_eq!(server.says(&["-s", "reload"], 0), "");
    server.wait_for_body(8080, "b");
}

#[test]
fn without_workers_the_old_one_starts_some_when_the_new_one_ends() {
    let server = Server::started("nginx", &answering("a"));
    let (old, new) = begin(&server);
    send(old, Signal::WINCH).unwrap();
    wait_for("the old workers end", PATIENCE, || (children(old) == [new]).then_some(()));
    send(new, Signal::TERM).unwrap();
    server.wait_for_end(new);
    wait_for("old workers", PATIENCE, || (children(old).len() == 1).then_some(()));
    assert_eq!(server.body(8080), "a");
}

#[test]
fn a_new_binary_that_fails_leaves_no_trace() {
    let server = Server::started("nginx", &answering("a"));
    let (master, worker) = (server.master(), server.worker());
    server.write("}\n");
    server.signal(Signal::USR2);
    server.wait_for_log("exited with code 1", 1);
    wait_for("the pid file is back", PATIENCE, || (server.pid() == Some(master)).then_some(()));
    assert!(!server.path("nginx.pid.oldbin").exists());
    assert_eq!(server.worker(), worker);
    assert_eq!(server.body(8080), "a");
    // A file that is no program.
    fs::remove_file(&server.program).unwrap();
    fs::write(&server.program, "").unwrap();
    server.signal(Signal::USR2);
    server.wait_for_log("while executing new binary process \"", 1);
    wait_for("the pid file is back", PATIENCE, || (server.pid() == Some(master)).then_some(()));
    assert_eq!(server.body(8080), "a");
}

#[test]
fn unix_sockets_survive() {
    let conf = answering("a").replace("listen ", "listen unix:%DIR%a.sock; listen ");
    let server = Server::started("nginx", &conf);
    let (old, new) = begin(&server);
    send(old, Signal::QUIT).unwrap();
    server.wait_for_end(old);
    assert!(server.path("a.sock").exists());
    std::os::unix::net::UnixStream::connect(server.path("a.sock")).unwrap();
    send(new, Signal::QUIT).unwrap();
    server.wait_for_end(new);
    assert!(!server.path("a.sock").exists());
}

/// From a real nginx to this program and nobody notices: the sockets are handed over in nginx's own way.
#[test]
fn it_takes_over_from_a_real_nginx() {
    let nginx = std::path::Path::new("/usr/sbin/nginx");
    if !is_gapura() || !nginx.exists() {
        return;
    }
    let server = Server::new("nginx", &answering("a"));
    fs::remove_file(&server.program).unwrap();
    std::os::unix::fs::symlink(nginx, &server.program).unwrap();
    server.start();
    fs::remove_file(&server.program).unwrap();
    std::os::unix::fs::symlink(support::gateway::binary(), &server.program).unwrap();
    server.write(&answering("b"));
    let (old, new) = begin(&server);
    send(old, Signal::QUIT).unwrap();
    server.wait_for_end(old);
    assert_eq!(server.body(8080), "b");
    assert_eq!(server.says(&["-s", "reload"], 0), "");
    assert_eq!(server.master(), new);
}

#[test]
fn a_real_nginx_takes_over() {
    let nginx = std::path::Path::new("/usr/sbin/nginx");
    if !is_gapura() || !nginx.exists() {
        return;
    }
    let server = Server::started("nginx", &answering("a"));
    fs::remove_file(&server.program).unwrap();
    std::os::unix::fs::symlink(nginx, &server.program).unwrap();
    server.write(&answering("b"));
    let (old, new) = begin(&server);
    send(old, Signal::QUIT).unwrap();
    server.wait_for_end(old);
    assert_eq!(server.body(8080), "b");
    assert_eq!(server.master(), new);
}
