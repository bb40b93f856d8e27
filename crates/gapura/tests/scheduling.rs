//! How urgently workers run and on which processors. With `GATEWAY=/usr/sbin/nginx` a real nginx is asked.

mod support;

use std::fs;
use support::gateway::is_gapura;
use support::server::{PATIENCE, Server, answering, children};
use support::{text_of, wait_for};

/// What serves: threads of the one worker here, workers in nginx. Folders of `/proc`.
fn serving(server: &Server) -> Vec<String> {
    let workers = children(server.master());
    if !is_gapura() {
        return workers.iter().map(|worker| format!("/proc/{worker}")).collect();
    }
    let tasks = fs::read_dir(format!("/proc/{}/task", server.worker())).unwrap();
    tasks.map(|task| task.unwrap().path().display().to_string()).collect()
}

fn processors(task: &str) -> String {
    let status = text_of(format!("{task}/status").as_ref());
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap_or_default().trim().to_owned()
}

/// The 19th field of `/proc/PID/stat`; the second may hold spaces, and ends in a parenthesis.
fn nice(task: &str) -> String {
    let stat = text_of(format!("{task}/stat").as_ref());
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    rest.split_whitespace().nth(16).unwrap_or_default().to_owned()
}

#[test]
fn workers_get_the_priority_and_the_processors_they_are_told() {
    let settings = "worker_processes 2; worker_priority 15; worker_cpu_affinity auto 01;\n";
    let server = Server::started("nginx", &format!("{settings}{}", answering("a")));
    assert_eq!(server.body(8080), "a");
    let is_so = || {
        let tasks = serving(&server);
        let all = tasks.iter().all(|task| processors(task) == "0" && nice(task) == "15");
        (tasks.len() == 2 && all).then_some(())
    };
    wait_for("two on processor 0 at 15", PATIENCE, is_so);
    server.wait_for_log("sched_setaffinity(): using cpu #0", 2);
    let before = nice(&format!("/proc/{}", server.master()));
    // A worker that runs already cannot change: another one takes over.
    server.write(&answering("b"));
    server.says(&["-s", "reload"], 0);
    server.wait_for_body(8080, "b");
    wait_for("one that is as urgent as the master", PATIENCE, || {
        let tasks = serving(&server);
        (tasks.len() == 1 && nice(&tasks[0]) == before).then_some(())
    });
}

#[test]
fn what_cannot_be_is_refused() {
    let server = Server::new("nginx", "");
    for (line, message) in [
        ("worker_priority x;", "[emerg] \"worker_priority\" directive invalid number in "),
        ("worker_cpu_affinity 012;", "[emerg] invalid character \"2\" in \"worker_cpu_affinity\" in "),
        (
            "worker_cpu_affinity auto 1 1;",
            "[emerg] invalid number of arguments in \"worker_cpu_affinity\" directive in ",
        ),
        (
            "worker_cpu_affinity 1; worker_cpu_affinity 1;",
            "\"worker_cpu_affinity\" directive is duplicate in ",
        ),
    ] {
        server.write(&format!("{line}\n{}", answering("a")));
        let told = server.says(&["-t"], 1);
        assert!(told.contains(message), "{line}: {told}");
    }
    server.write(&format!("worker_processes 3; worker_cpu_affinity 1 \"0 1\";\n{}", answering("a")));
    let told = server.says(&["-t"], 0);
    let uneven = "[warn] the number of \"worker_processes\" is not equal to the number of \"worker_cpu_affinity\" masks, using last mask for remaining worker processes";
    assert!(told.contains(uneven), "{told}");
}
