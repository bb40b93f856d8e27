//! When the machine does not give what is asked for: files that cannot be read, descriptors and connections that are
//! used up, full disks. Who is concerned is told, the log says why in nginx's words, and all is well as soon as there is
//! room again. `GATEWAY=/usr/sbin/nginx` asks a real nginx.

mod support;

use rustix::net;
use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use support::gateway::{is_gapura, send};
use support::origin::{End, Origin};
use support::raw::{Before, ask, body, get, open_files, status};
use support::server::{PATIENCE, Server};
use support::{hosts, text_of, wait_for};

#[test]
fn files_that_cannot_be_read() {
    let conf = "error_log error.log info; pid nginx.pid; worker_processes 1; events {}\n\
                http { access_log access.log; server { listen %HOST%:8080; root html; location = / { return 200 a; }\n\
                location /auth/ { auth_basic x; auth_basic_user_file html/secret; alias html/; } } }\n";
    let server = Server::new("nginx", conf);
    let html = server.path("html");
    let mode =
        |name: &str, mode| fs::set_permissions(html.join(name), fs::Permissions::from_mode(mode)).unwrap();
    for folder in ["", "dir", "closed", "index"] {
        fs::create_dir(html.join(folder)).unwrap();
    }
    for file in ["secret", "closed/index.html", "index/index.html", "a.txt"] {
        fs::write(html.join(file), "x").unwrap();
    }
    for name in ["fifo", "dir/index.html"] {
        assert!(Command::new("mkfifo").arg(html.join(name)).status().unwrap().success());
        mode(name, 0o666);
    }
    for (name, target) in
        [("dangling", "nowhere"), ("loop", "loop"), ("proc", "/proc/self/mem"), ("zero", "/dev/zero")]
    {
        symlink(target, html.join(name)).unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(html.join("socket")).unwrap();
    mode("socket", 0o666);
    for name in ["secret", "index/index.html", "closed"] {
        mode(name, 0);
    }
    server.start();
    let before = Before::of(&server);
    let path = html.display().to_string();
    for (uri, expected, words) in [
        ("/secret", 403, "[error] open() \"%/secret\" failed (13: Permission denied)"),
        ("/closed/", 403, "[error] \"%/closed/index.html\" is forbidden (13: Permission denied)"),
        ("/index/", 403, "[error] open() \"%/index/index.html\" failed (13: Permission denied)"),
        ("/fifo", 404, "[crit] \"%/fifo\" is not a regular file"),
        ("/dir/", 404, "[crit] \"%/dir/index.html\" is not a regular file"),
        ("/zero", 404, "[crit] \"%/zero\" is not a regular file"),
        ("/socket", 500, "[crit] open() \"%/socket\" failed (6: No such device or address)"),
        ("/dangling", 404, "[error] open() \"%/dangling\" failed (2: No such file or directory)"),
        ("/loop", 403, "[error] open() \"%/loop\" failed (40: Too many levels of symbolic links)"),
        ("/a.txt/", 404, "[error] \"%/a.txt/index.html\" is not found (20: Not a directory)"),
        ("/a.txt/b", 404, "[error] open() \"%/a.txt/b\" failed (20: Not a directory)"),
        ("/auth/a.txt", 401, ""),
        ("/proc", 200, ""),
    ] {
        let answer = get(&server, uri);
        assert_eq!(status(&answer), expected, "{uri}: {answer}");
        let (level, message) = words.split_once(' ').unwrap_or_default();
        let message = message.replace('%', &path);
        let found =
            || server.log().lines().any(|line| line.contains(level) && line.contains(&message)).then_some(());
        wait_for(&format!("{words} of {uri}\n{}", server.log()), PATIENCE, found);
    }
    let credentials =
        "GET /auth/a.txt HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAuthorization: Basic YTpi\r\n\r\n";
    assert_eq!(status(&ask(&server, credentials.as_bytes(), End::Silence)), 500);
    server.wait_for_log(&format!("[crit] {0}#{0}: *", before.worker), 1);
    server.wait_for_log(&format!("open() \"{path}/secret\" failed (13: Permission denied), client"), 2);
    before.is_after(&server);
    mode("closed", 0o755);
}

#[test]
fn no_descriptors_left() {
    let origin = Origin::start();
    let conf = format!(
        "error_log error.log info; pid nginx.pid; worker_processes 1; worker_rlimit_nofile 50; events {{}}\n\
         http {{ access_log access.log; keepalive_timeout 5s; server {{ listen %HOST%:8080; root html;\n\
         location = / {{ return 200 a; }} location /p/ {{ proxy_pass http://{}; }} }} }}\n",
        origin.address
    );
    let server = Server::new("nginx", &conf);
    fs::create_dir(server.path("html")).unwrap();
    fs::write(server.path("html/file"), "x").unwrap();
    server.start();
    assert_eq!(server.body(8080), "a");
    let (worker, files) = (server.worker(), open_files(server.worker()));
    let number = origin.reply("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", End::Close);
    // Idle connections take what there is.
    let idle: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(server.address(8080)).unwrap()).collect();
    server.wait_for_log(&format!("[crit] {worker}#{worker}: accept4() failed (24: Too many open files)"), 1);
    // Those that are in are told what is the matter.
    for (round, (path, words)) in [
        ("/file".to_owned(), "file\" failed (24: Too many open files)"),
        (format!("/p/{number}"), "socket() failed (24: Too many open files) while connecting to upstream"),
    ]
    .into_iter()
    .enumerate()
    {
        // A place that became free, by the end of one before, is taken by one that waits. It fails to take more half a
        // second after it last failed to: the second failure from now on is one after all of that.
        let failures = server.log().matches("accept4() failed").count();
        server.wait_for_log("accept4() failed", failures + 2);
        let mut stream = &idle[round];
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        // To its end: before that its descriptor is among those that are taken.
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(status(&answer), 500, "{path}: {answer}");
        server.wait_for_log(words, 1);
    }
    // And all is well as soon as there is room.
    drop(idle);
    assert_eq!(server.body(8080), "a");
    assert_eq!(body(&get(&server, "/file")), "x");
    assert_eq!(body(&get(&server, &format!("/p/{number}"))), "hello");
    wait_for("all is closed", PATIENCE, || (open_files(worker) <= files + 1).then_some(()));
    assert_eq!(server.worker(), worker);
}

#[test]
fn no_connections_left() {
    let origin = Origin::start();
    let conf = format!(
        "error_log error.log info; pid nginx.pid; worker_processes 1; events {{ worker_connections 20; }}\n\
         http {{ access_log off; server {{ listen %HOST%:8080; location = / {{ return 200 a; }}\n\
         location /p/ {{ proxy_pass http://{}; }} }} }}\n",
        origin.address
    );
    let server = Server::started("nginx", &conf);
    let silent = origin.reply("", End::Silence);
    let busy: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address(8080)).unwrap();
            // Those that find no room are closed at once.
            let _ = write!(stream, "GET /p/{silent} HTTP/1.1\r\nHost: test\r\n\r\n");
            stream
        })
        .collect();
    server.wait_for_log("20 worker_connections are not enough", 1);
    drop(busy);
    server.wait_for_body(8080, "a");
    // Connections that only wait give way to new ones.
    let mut waiting = Vec::new();
    for _ in 0..40 {
        let mut connection = server.connect(8080);
        assert_eq!(connection.get("test", "/").unwrap().text(), "a");
        waiting.push(connection);
    }
}

#[test]
fn no_more_at_a_time_than_allowed() {
    let origin = Origin::start();
    let conf = format!(
        "error_log error.log info; pid nginx.pid; worker_processes 1; events {{}}\n\
         http {{ access_log off; limit_conn_zone $arg_key zone=by-key:1m;\n\
         server {{ listen %HOST%:8080; location = / {{ return 200 a; }}\n\
         location /p/ {{ limit_conn by-key 1; proxy_pass http://{}; }} }} }}\n",
        origin.address
    );
    let server = Server::started("nginx", &conf);
    let silent = origin.reply("", End::Silence);
    let number = origin.reply("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", End::Close);
    let mut busy = TcpStream::connect(server.address(8080)).unwrap();
    write!(busy, "GET /p/{silent}?key=a HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    // It may take a moment until that one counts.
    let path = |number: usize, key: &str| format!("/p/{number}?key={key}");
    let refused = || (status(&get(&server, &path(number, "a"))) == 503).then_some(());
    wait_for("one more is refused", PATIENCE, refused);
    server.wait_for_log("limiting connections by zone \"by-key\", client: ", 1);
    for key in ["b", ""] {
        assert_eq!(body(&get(&server, &path(number, key))), "hello", "{key:?}");
    }
    drop(busy);
    let served = || (status(&get(&server, &path(number, "a"))) == 200).then_some(());
    wait_for("there is room again", PATIENCE, served);
}

#[test]
fn full_disks() {
    hosts::isolated("full_disks", Duration::from_secs(60), on_full_disks);
}

#[test]
fn full_disk_under_all_logs() {
    hosts::isolated("full_disk_under_all_logs", Duration::from_secs(60), on_a_full_disk_for_logs);
}

/// Mounts a disk of some kilobytes where this is run in a namespace of its own.
fn small_disk(folder: &Path, size: &str) -> PathBuf {
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    let disk = folder.join("disk");
    fs::create_dir(&disk).unwrap();
    let options = format!("size={size},mode=0777");
    let mount = ["-t", "tmpfs", "-o", &options, "none"];
    assert!(Command::new("mount").args(mount).arg(&disk).status().unwrap().success());
    disk
}

/// A connection that takes little while nobody reads from it.
fn tight(address: SocketAddr) -> TcpStream {
    let socket = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None).unwrap();
    net::sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
    net::connect(&socket, &address).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn on_full_disks(folder: &Path) {
    let disk = small_disk(folder, "128k");
    let origin = Origin::start();
    let disk_path = disk.display();
    let conf = format!(
        "error_log error.log info; pid nginx.pid; worker_processes 1; events {{}}\n\
         http {{ access_log access.log; access_log {disk_path}/access.log; client_body_temp_path {disk_path}/body;\n\
         proxy_temp_path {disk_path}/proxy; client_body_buffer_size 8k; client_max_body_size 10m;\n\
         server {{ listen %HOST%:8080; error_log error.log info; location = / {{ return 200 a; }}\n\
         location /lost/ {{ error_log {disk_path}/error.log; return 403; }}\n\
         location /p/ {{ proxy_pass http://{}; proxy_buffers 4 4k; proxy_busy_buffers_size 8k; }} }} }}\n",
        origin.address
    );
    let server = Server::started("nginx", &conf);
    assert_eq!(server.body(8080), "a");
    let (worker, files) = (server.worker(), open_files(server.worker()));
    let number = origin.reply("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", End::Close);
    let long = "a".repeat(1_000_000);
    let head = format!("POST /p/{number} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    for request in [
        format!("{head}Content-Length: 1000000\r\n\r\n{long}"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\nf4240\r\n{long}\r\n0\r\n\r\n"),
    ] {
        let answer = ask(&server, request.as_bytes(), End::Silence);
        assert!(answer.is_empty() || status(&answer) == 500, "{answer}");
    }
    server.wait_for_log("a client request body is buffered to a temporary file", 2);
    server.wait_for_log("failed (28: No space left on device), client", 2);
    assert!(server.log().contains(&format!(" \"{disk_path}/body/")), "{}", server.log());
    // An answer that finds no room waits for the client where it came from, or is cut; it is never called whole.
    let bytes = 8_000_000;
    let big = origin.reply(
        format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n{}", "a".repeat(bytes)),
        End::Close,
    );
    let mut stream = tight(server.address(8080));
    write!(stream, "GET /p/{big} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    // nginx gives up at once, and the room is free again.
    let words = "failed (28: No space left on device) while reading upstream";
    let is_full = || rustix::fs::statvfs(&disk).unwrap().f_bavail == 0;
    let full = || (is_full() || server.log().contains(words)).then_some(());
    wait_for("the disk is full", PATIENCE, full);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert_eq!(status(&answer), 200);
    server.wait_for_log(words, 1);
    assert!(!is_gapura() || body(&answer).len() == bytes, "{} bytes came", body(&answer).len());
    // Logs: what does not fit is lost, and nothing else is.
    let fill = disk.join("fill");
    let _ = fs::write(&fill, &long);
    let lines = text_of(&disk.join("access.log")).lines().count();
    for _ in 0..6 {
        // Longer than what is left of the last page.
        assert_eq!(status(&get(&server, &format!("/?{}", &long[..3_000]))), 200);
        assert_eq!(status(&get(&server, "/lost/")), 403);
    }
    if is_gapura() {
        server.wait_for_log(&format!("write() to \"{disk_path}/access.log\""), 1);
    }
    // Rotated and reloaded with no room either.
    server.signal(Signal::USR1);
    server.wait_for_log("reopening logs", 2);
    server.says(&["-s", "reload"], 0);
    server.wait_for_body(8080, "a");
    fs::remove_file(&fill).unwrap();
    let written = || {
        server.body(8080);
        (text_of(&disk.join("access.log")).lines().count() > lines).then_some(())
    };
    wait_for("lines come again", PATIENCE, written);
    if is_gapura() {
        assert_eq!(server.worker(), worker);
        wait_for("all is closed", PATIENCE, || (open_files(worker) <= files + 4).then_some(()));
    }
    for kind in ["body", "proxy"] {
        assert_eq!(fs::read_dir(disk.join(kind)).unwrap().count(), 0, "files left in {kind}");
    }
    assert!(!server.log().contains("panicked"));
}

/// The main error log, from the first line of the start on, and all kinds of access logs, with nowhere else to tell
/// anything: what is served does not depend on them.
fn on_a_full_disk_for_logs(folder: &Path) {
    let disk = small_disk(folder, "256k");
    let disk_path = disk.display();
    let conf = format!(
        "error_log error.log info; pid nginx.pid; worker_processes 1; events {{}}\n\
         http {{ access_log {disk_path}/plain.log; access_log {disk_path}/$server_port.log;\n\
         access_log {disk_path}/buffered.log combined buffer=4k flush=100ms;\n\
         access_log {disk_path}/compressed.log combined gzip flush=100ms;\n\
         server {{ listen %HOST%:8080; root html; location = / {{ return 200 a; }}\n\
         location /refused/ {{ proxy_pass http://127.0.0.1:1; }} }} }}\n"
    );
    let server = Server::new("nginx", &conf);
    symlink(disk.join("error.log"), server.path("error.log")).unwrap();
    fs::create_dir(server.path("html")).unwrap();
    server.start();
    let logs = ["error", "plain", "8080", "buffered", "compressed"];
    let text = |name: &str| text_of(&disk.join(format!("{name}.log")));
    let bytes = |name: &str| fs::metadata(disk.join(format!("{name}.log"))).map_or(0, |found| found.len());
    let ask_for = |word: &str| {
        for (uri, expected) in [("/", 200), ("/missing", 404), ("/refused/", 502)] {
            assert_eq!(status(&get(&server, &format!("{uri}?{word}"))), expected, "{uri}");
        }
    };
    let all_written = |word: &str| {
        let before = bytes("compressed");
        let written = || {
            ask_for(word);
            let plain = logs[..4].iter().all(|name| text(name).contains(word));
            (plain && bytes("compressed") > before).then_some(())
        };
        wait_for(&format!("{word} in all logs"), PATIENCE, written);
    };
    all_written("before");
    let (worker, files) = (server.worker(), open_files(server.worker()));

    let fill = disk.join("fill");
    let _ = fs::write(&fill, "a".repeat(1_000_000));
    assert_eq!(rustix::fs::statvfs(&disk).unwrap().f_bavail, 0);
    // Longer than what is left of the last pages; and long enough for logs to be tried again in another second.
    let word = format!("full-{}", "a".repeat(3_000));
    let (mut rounds, start) = (0, Instant::now());
    while rounds < 10 || start.elapsed() < Duration::from_secs(2) {
        ask_for(&word);
        rounds += 1;
    }
    let sizes = logs.map(bytes);
    ask_for(&word);
    // All that has to do with logs: a reload, a rotation, a new worker.
    server.says(&["-t"], 0);
    server.says(&["-s", "reload"], 0);
    ask_for(&word);
    if is_gapura() {
        assert_eq!(server.worker(), worker);
    }
    server.says(&["-s", "reopen"], 0);
    ask_for(&word);
    assert_eq!(logs.map(bytes), sizes, "nothing has room");

    fs::remove_file(&fill).unwrap();
    all_written("after");
    assert!(!text("error").contains("panicked"), "{}", text("error"));
    if is_gapura() {
        assert_eq!(server.worker(), worker);
        wait_for("all is closed", PATIENCE, || (open_files(worker) <= files + 4).then_some(()));
    }
    // A worker that ends while there is no room is replaced all the same.
    let _ = fs::write(&fill, "a".repeat(1_000_000));
    ask_for(&word);
    let worker = server.worker();
    send(worker, Signal::KILL).unwrap();
    wait_for("another worker", PATIENCE, || (server.worker() != worker).then_some(()));
    server.wait_for_body(8080, "a");
    ask_for(&word);
    fs::remove_file(&fill).unwrap();
    all_written("at-last");
}
