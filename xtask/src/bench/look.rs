//! A closer look at a server under load: system calls with strace, functions with perf.

use super::Station;
use super::workload::Figure;
use crate::spec::root;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a tool may need to attach itself.
const ATTACH: Duration = Duration::from_secs(5);

/// How long perf, which leaves no trace in the process it looks at, is given for it.
const SETTLE: Duration = Duration::from_millis(500);

/// Lines of a profile that are shown.
const SYMBOLS_MAX: usize = 40;

/// System calls per request, by name.
pub fn syscalls(station: &mut Station<'_>, seconds: u32) -> Result<String, String> {
    let pids = station.running()?.processes();
    let out = station.places.run.join("strace.out");
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-U", "name,calls", "-o"]).arg(&out);
    for pid in &pids {
        command.args(["-p", &pid.to_string()]);
    }
    let requests = under(&mut command, station, seconds)?;
    let text = fs::read_to_string(&out).map_err(|e| format!("strace: {e}"))?;
    Ok(format!("system calls per request\n{}", per_request(&text, requests)))
}

/// The functions that take the most time.
pub fn perf(station: &mut Station<'_>, seconds: u32, label: &str) -> Result<String, String> {
    let pids: Vec<String> = station.running()?.processes().iter().map(u32::to_string).collect();
    let folder = root().join("target/bench");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let name: String = label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let data = folder.join(format!("{}-{name}.perf", station.workload.name));
    let mut command = Command::new("perf");
    command.args(["record", "-q", "-F", "1999", "-g", "-o"]).arg(&data).args(["-p", &pids.join(",")]);
    under(&mut command, station, seconds)?;
    Ok(format!("profile (kept in {})\n{}", data.display(), symbols(&data)?))
}

fn symbols(data: &Path) -> Result<String, String> {
    let mut command = Command::new("perf");
    command.args(["report", "--stdio", "--no-children", "-g", "none", "-s", "symbol", "-i"]).arg(data);
    let output = command.output().map_err(|e| format!("perf: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    Ok(lines.take(SYMBOLS_MAX).map(|line| format!("{}\n", line.trim_end())).collect())
}

/// Runs a tool beside one round of load; the requests of the round.
fn under(command: &mut Command, station: &mut Station<'_>, seconds: u32) -> Result<f64, String> {
    let mut tool: Child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{}: {e}", command.get_program().to_string_lossy()))?;
    let pids = station.running()?.processes();
    let deadline = Instant::now() + ATTACH;
    let is_tracer = command.get_program() == "strace";
    while is_tracer && Instant::now() < deadline && !pids.iter().all(|pid| is_traced(*pid)) {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(SETTLE);
    let sample = station.round(seconds);
    // It may have ended by itself, because it was not allowed to look.
    let _ = kill_process(Pid::from_child(&tool), Signal::INT);
    tool.wait().map_err(|e| e.to_string())?;
    Ok(sample?.get(&Figure::Requests).copied().unwrap_or(1.0))
}

fn is_traced(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
}

/// Turns strace's table of names and calls into calls per request.
fn per_request(text: &str, requests: f64) -> String {
    let mut calls: Vec<(f64, &str)> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (one, other) = (words.next()?, words.next()?);
            let (name, count) = if one.parse::<f64>().is_ok() { (other, one) } else { (one, other) };
            Some((count.parse::<f64>().ok()? / requests, name))
        })
        .collect();
    calls.sort_by(|a, b| b.0.total_cmp(&a.0));
    let shown = calls.iter().filter(|(count, _)| *count >= 0.005);
    shown.map(|(count, name)| format!("{count:9.2}  {name}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_per_request() {
        let text = "syscall               calls\n---------------- ---------\nread                   200\n\
                    writev                 100\nbrk                      0\n---------------- ---------\n\
                    total                  300\n";
        assert_eq!(per_request(text, 100.0), "     3.00  total\n     2.00  read\n     1.00  writev\n");
    }
}
