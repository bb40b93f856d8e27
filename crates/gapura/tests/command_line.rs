//! The command line of the real binary: what it prints, where, and how it exits. The texts are nginx's; with
//! `GATEWAY=/usr/sbin/nginx` a real one is asked instead.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use support::gateway::{binary, is_gapura};
use support::server::{Server, is_root};
use support::text_of;

const PLAIN: &str = "error_log error.log info; pid nginx.pid; events {}\nhttp { server { listen %HOST%:8080; return 200 a; } }\n";

/// The text a program prints to its standard error without any configuration, and its exit code.
fn bare(name: &str, options: &[&str]) -> (String, i32) {
    let server = Server::new(name, "");
    let output = Command::new(&server.program).args(options).output().unwrap();
    assert_eq!(output.stdout, b"", "{options:?}");
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code().unwrap())
}

#[test]
fn versions_and_help_go_to_the_standard_error() {
    let (version, code) = bare("nginx", &["-v"]);
    assert_eq!(code, 0);
    let number = version.strip_prefix("nginx version: nginx/").and_then(|rest| rest.strip_suffix('\n'));
    assert!(
        number.is_some_and(|number| number.split('.').all(|part| part.parse::<u32>().is_ok())),
        "{version}"
    );

    let (help, code) = bare("nginx", &["-h"]);
    assert_eq!(code, 0);
    assert_eq!(bare("nginx", &["-?"]), (help.clone(), 0));
    let usage = "Usage: nginx [-?hvVtTq] [-s signal] [-p prefix]\n             [-e filename] [-c filename] [-g directives]\n\nOptions:\n  -?,-h         : this help\n";
    assert!(help.starts_with(&format!("{version}{usage}")), "{help}");
    assert!(
        help.ends_with("  -g directives : set global directives out of configuration file\n\n"),
        "{help}"
    );

    let (build, code) = bare("nginx", &["-V"]);
    assert_eq!(code, 0);
    assert!(build.starts_with(&version), "{build}");
    let arguments = build.lines().last().unwrap();
    for option in ["--prefix=", "--conf-path=", "--pid-path=", "--error-log-path="] {
        assert!(!is_gapura() || arguments.contains(option), "{option} in {arguments}");
    }
    assert!(arguments.starts_with("configure arguments: --"), "{arguments}");
    // A test of the configuration may follow.
    let (text, code) = bare("nginx", &["-vt", "-c", "/nowhere.conf", "-e", "stderr"]);
    assert!(text.starts_with(&version) && text.ends_with("test failed\n") && code == 1, "{text}");
}

#[test]
fn under_its_own_name_it_says_so() {
    let number = env!("CARGO_PKG_VERSION");
    if is_gapura() {
        assert_eq!(bare("gapura", &["-v"]), (format!("gapura version: gapura/{number}\n"), 0));
        assert_eq!(bare("gapura", &["x"]), ("gapura: invalid option: \"x\"\n".to_owned(), 1));
    }
}

#[test]
fn options_that_are_not_understood_are_named() {
    for (options, message) in [
        (&["x"][..], "invalid option: \"x\""),
        (&["-x"], "invalid option: \"x\""),
        (&["-tx"], "invalid option: \"x\""),
        (&["--help"], "invalid option: \"-\""),
        (&["-s", "foo"], "invalid option: \"-s foo\""),
        (&["-sfoo"], "invalid option: \"-s foo\""),
        (&["-c"], "option \"-c\" requires file name"),
        (&["-p"], "option \"-p\" requires directory name"),
        (&["-e"], "option \"-e\" requires file name"),
        (&["-g"], "option \"-g\" requires parameter"),
        (&["-s"], "option \"-s\" requires parameter"),
    ] {
        assert_eq!(bare("nginx", options), (format!("nginx: {message}\n"), 1), "{options:?}");
    }
}

#[test]
fn a_good_configuration_is_tested_in_two_lines() {
    let server = Server::new("nginx", PLAIN);
    let conf = server.path("nginx.conf").display().to_string();
    let expected = format!(
        "nginx: the configuration file {conf} syntax is ok\nnginx: configuration file {conf} test is successful\n"
    );
    assert_eq!(server.says(&["-t"], 0), expected);
    assert_eq!(server.says(&["-tq"], 0), "");
    assert_eq!(server.says(&["-t", "-q"], 0), "");
    assert_eq!(server.says(&["-T"], 0), expected);
    // What a start would open has been opened: the pid file, empty, and the log.
    assert_eq!(fs::read(server.path("nginx.pid")).unwrap(), b"");
    assert!(server.path("error.log").exists());
    // Glued options, and everything relative to the prefix.
    let glued = format!("-tp{}", server.path("").display());
    let output =
        Command::new(&server.program).args([&glued, "-cnginx.conf", "-eerror.log"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
}

#[test]
fn the_whole_configuration_is_printed_once_per_file() {
    let conf = "error_log error.log; pid nginx.pid; events {}\ninclude a.conf; include a*.conf;\nhttp {}\n";
    let server = Server::new("nginx", conf);
    fs::write(server.path("a.conf"), "# ä\n").unwrap();
    fs::write(server.path("a2.conf"), "worker_processes 1; # no line feed").unwrap();
    let output = server.call(&["-T"]);
    let dir = server.path("").display().to_string();
    let expected = format!(
        "# configuration file {dir}nginx.conf:\n{conf}\n# configuration file {dir}a.conf:\n# ä\n\n\
         # configuration file {dir}a2.conf:\nworker_processes 1; # no line feed\n"
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert_eq!(output.status.code(), Some(0));
    // Nothing of a configuration that is wrong.
    fs::write(server.path("a2.conf"), "}").unwrap();
    let output = server.call(&["-T"]);
    assert_eq!((output.stdout, output.status.code()), (Vec::new(), Some(1)));
}

#[test]
fn a_wrong_configuration_is_refused_on_the_terminal_and_in_the_log() {
    for (text, options, message) in [
        ("events {}\n}\n", &[][..], "unexpected \"}\" in %DIR%nginx.conf:2"),
        ("events {}", &["-g", "daemon off"], "unexpected end of parameter, expecting \";\" in command line"),
        (
            "events {}",
            &["-g", "events {}"],
            "block directives are not supported in -g option in command line",
        ),
        (
            "daemon off; events {}",
            &["-g", "daemon off;"],
            "\"daemon\" directive is duplicate in %DIR%nginx.conf:1",
        ),
        (
            "include none.conf;",
            &[],
            "open() \"%DIR%none.conf\" failed (2: No such file or directory) in %DIR%nginx.conf:1",
        ),
    ] {
        let server = Server::new("nginx", text);
        let dir = server.path("").display().to_string();
        let message = message.replace("%DIR%", &dir);
        let first = format!("nginx: [emerg] {message}\n");
        let last = format!("nginx: configuration file {dir}nginx.conf test failed\n");
        let options: Vec<&str> = ["-t"].iter().chain(options).copied().collect();
        assert_eq!(server.says(&options, 1), format!("{first}{last}"), "{text}");
        let log = server.log();
        let logged =
            log.lines().any(|line| line.contains(" [emerg] ") && line.ends_with(&format!(": {message}")));
        assert!(logged, "{text}: {log}");
        // A start, and a signal to a running server, fail in the same way, without the last line.
        assert_eq!(server.says(&options[1..], 1), first, "{text}");
        assert_eq!(server.says(&[&["-s", "reload"], &options[1..]].concat(), 1), first, "{text}");
    }
    // What is checked after the reading.
    let server = Server::new("nginx", "http {}\n");
    let conf = server.path("nginx.conf").display().to_string();
    let expected = format!(
        "nginx: the configuration file {conf} syntax is ok\nnginx: [emerg] no \"events\" section in configuration\n\
         nginx: configuration file {conf} test failed\n"
    );
    assert_eq!(server.says(&["-t"], 1), expected);
    let server = Server::new("nginx", "");
    fs::remove_file(server.path("nginx.conf")).unwrap();
    let conf = server.path("nginx.conf").display().to_string();
    let expected = format!(
        "nginx: [emerg] open() \"{conf}\" failed (2: No such file or directory)\nnginx: configuration file {conf} test failed\n"
    );
    assert_eq!(server.says(&["-t"], 1), expected);
}

#[test]
fn the_error_log_may_be_the_terminal_or_missing() {
    let server = Server::new("nginx", "error_log stderr; events {}\n");
    let conf = server.path("nginx.conf").display().to_string();
    let pid = format!("pid {};", server.path("nginx.pid").display());
    // Said once, in the form of the log.
    server.write("}\n");
    let text = server.says(&["-t", "-e", "stderr"], 1);
    let (line, rest) = text.split_once('\n').unwrap();
    assert!(
        line.ends_with(&format!(": unexpected \"}}\" in {conf}:1")) && line.contains(" [emerg] "),
        "{text}"
    );
    assert_eq!(rest, format!("nginx: configuration file {conf} test failed\n"));
    // A folder that is not there is no reason not to go on.
    server.write(&format!("{pid} error_log error.log; events {{}}\n"));
    let text = server.says(&["-t", "-e", "nowhere/error.log"], 0);
    let missing = server.path("nowhere/error.log").display().to_string();
    let alert = "nginx: [alert] could not open error log file: open()";
    assert!(
        text.starts_with(&format!("{alert} \"{missing}\" failed (2: No such file or directory)\n")),
        "{text}"
    );
}

#[test]
fn what_cannot_be_opened_fails_the_test() {
    for (text, message) in [
        ("pid nowhere/x; events {}", "open() \"%DIR%nowhere/x\" failed (2: No such file or directory)"),
        (
            "pid nginx.pid; error_log nowhere/x; events {}",
            "open() \"%DIR%nowhere/x\" failed (2: No such file or directory)",
        ),
        (
            "pid nginx.pid; events {} http { access_log nowhere/y; server { listen %HOST%:8080; } }",
            "open() \"%DIR%nowhere/y\" failed (2: No such file or directory)",
        ),
        (
            "pid nginx.pid; events {} http { server { listen 192.0.2.1:80; } }",
            "bind() to 192.0.2.1:80 failed (99: Cannot assign requested address)",
        ),
    ] {
        let server = Server::new("nginx", &format!("{text}\n"));
        let dir = server.path("").display().to_string();
        let conf = format!("{dir}nginx.conf");
        let expected = format!(
            "nginx: the configuration file {conf} syntax is ok\nnginx: [emerg] {}\nnginx: configuration file {conf} test failed\n",
            message.replace("%DIR%", &dir)
        );
        assert_eq!(server.says(&["-t"], 1), expected, "{text}");
    }
    // An address in use is none of the test's business.
    let server = Server::new("nginx", PLAIN);
    let _holder = std::net::TcpListener::bind(server.address(8080)).unwrap();
    server.says(&["-t"], 0);
}

#[test]
fn an_unknown_user_is_refused_where_users_can_be_changed() {
    if !is_root() {
        return;
    }
    for (text, call) in [
        ("user no-such-name;", "getpwnam(\"no-such-name\")"),
        ("user root no-such-group;", "getgrnam(\"no-such-group\")"),
    ] {
        let server = Server::new("nginx", &format!("{text} events {{}}\n"));
        let conf = server.path("nginx.conf").display().to_string();
        let expected = format!(
            "nginx: [emerg] {call} failed in {conf}:1\nnginx: configuration file {conf} test failed\n"
        );
        assert_eq!(server.says(&["-t"], 1), expected);
    }
}

#[test]
fn warnings_are_said_and_do_no_harm() {
    let conf = "pid nginx.pid; error_log error.log; events {}\nhttp {\n server { listen %HOST%:8080; server_name a; }\n \
                server { listen %HOST%:8080; server_name a; }\n}\n";
    let server = Server::new("nginx", conf);
    let warning =
        format!("nginx: [warn] conflicting server name \"a\" on {}, ignored\n", server.address(8080));
    assert_eq!(server.says(&["-tq"], 0), warning);
    let told = server.says(&["-t"], 0);
    assert!(told.starts_with(&warning) && told.ends_with(" test is successful\n"), "{told}");
    assert!(server.log().contains(" [warn] "), "{}", server.log());
}

#[test]
fn knobs_without_anything_to_tune_are_named_once() {
    let conf = "pid nginx.pid; error_log error.log; events { use epoll; multi_accept on; }\n\
                http { server { listen %HOST%:8080; connection_pool_size 512; } server { listen %HOST%:8081; connection_pool_size 512; } }\n";
    if !is_gapura() {
        return;
    }
    let told = "accepted, with nothing to tune here: \"connection_pool_size\", \"multi_accept\", \"use\"\n";
    let server = Server::new("gapura", conf);
    assert!(server.says(&["-t"], 0).ends_with(&format!(" test is successful\ngapura: {told}")));
    assert_eq!(server.says(&["-tq"], 0), "");
    // Whoever calls it nginx gets nginx's two lines, unless it is a person.
    let server = Server::new("nginx", conf);
    assert!(server.says(&["-t"], 0).ends_with(" test is successful\n"));
}

/// As somebody who may not write into the folder.
#[test]
fn a_test_fails_where_a_start_would() {
    if !is_root() {
        return;
    }
    let server = Server::new("nginx", PLAIN);
    fs::set_permissions(server.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(server.path("nginx.pid"), "").unwrap();
    let pid = server.path("nginx.pid").display().to_string();
    let mut command = server.command(&["-t", "-e", "stderr", "-g", "user nobody;"]);
    let Ok(output) = command.uid(65534).gid(65534).output() else {
        eprintln!("skipped: others may not run the program here");
        return;
    };
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let denied = format!(": open() \"{pid}\" failed (13: Permission denied)\n");
    assert!(told.contains(&denied), "{told}");
    let ignored = ": the \"user\" directive makes sense only if the master process runs with super-user privileges, \
                   ignored in command line\n";
    assert!(told.contains(ignored), "{told}");
    assert!(told.ends_with(" test failed\n"), "{told}");
}

#[test]
fn a_signal_needs_a_running_master() {
    let server = Server::new("nginx", PLAIN);
    let pid = server.path("nginx.pid");
    let name = pid.display().to_string();
    for signal in ["stop", "quit", "reopen", "reload"] {
        let missing = format!("nginx: [error] open() \"{name}\" failed (2: No such file or directory)\n");
        assert_eq!(server.says(&["-s", signal], 1), missing);
    }
    for (text, shown) in [("", ""), ("x\n", "x"), ("12 \n", "12 ")] {
        fs::write(&pid, text).unwrap();
        let invalid = format!("nginx: [error] invalid PID number \"{shown}\" in \"{name}\"\n");
        assert_eq!(server.says(&["-s", "reload"], 1), invalid);
    }
    // The number of a process that has ended, and cannot come back while this one has not been waited for.
    let mut ended = Command::new("true").spawn().unwrap();
    let number = ended.id();
    ended.wait().unwrap();
    fs::write(&pid, format!("{number}\n")).unwrap();
    for (signal, code) in [("stop", 15), ("quit", 3), ("reopen", 10), ("reload", 1)] {
        let dead = format!("nginx: [alert] kill({number}, {code}) failed (3: No such process)\n");
        assert_eq!(server.says(&["-s", signal], 1), dead);
    }
    assert!(text_of(&server.path("error.log")).contains(": signal process started\n"));
}

#[test]
fn addresses_in_use_are_tried_five_times() {
    let server = Server::new("nginx", PLAIN);
    let address = server.address(8080);
    let _holder = std::net::TcpListener::bind(address).unwrap();
    let failed =
        format!("nginx: [emerg] bind() to {address} failed (98: Address already in use)\n").repeat(5);
    assert_eq!(server.says(&[], 1), format!("{failed}nginx: [emerg] still could not bind()\n"));
    let log = server.log();
    assert_eq!(log.matches(" [notice] ").count(), 5, "{log}");
    assert_eq!(log.matches(": try again to bind() after 500ms\n").count(), 5, "{log}");
    assert_eq!(server.pid(), None);
}

#[test]
fn the_binary_under_test_is_there() {
    assert!(binary().exists());
}

#[test]
fn a_person_at_a_terminal_sees_the_line_and_a_suggestion() {
    if !is_gapura() || !support::is_installed("script") {
        return;
    }
    let conf = "events {}\nhttp { server { listen %HOST%:8080;\n  location / { proxi_pass http://x; }\n} }\n";
    let server = Server::new("nginx", conf);
    let line = format!(
        "NO_COLOR=1 {} -t -p {} -c nginx.conf -e error.log",
        server.program.display(),
        server.folder.path().display()
    );
    let output = Command::new("script").args(["-qec", &line, "/dev/null"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let conf = server.path("nginx.conf").display().to_string();
    let first = format!("nginx: [emerg] unknown directive \"proxi_pass\" in {conf}:3\n");
    assert!(told.starts_with(&first), "{told}");
    for part in ["  location / { proxi_pass http://x; }\n", "^^^^^^^^^^", "did you mean \"proxy_pass\"?"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(told.ends_with(&format!("nginx: configuration file {conf} test failed\n")), "{told}");
    assert_eq!(output.status.code(), Some(1));
}
