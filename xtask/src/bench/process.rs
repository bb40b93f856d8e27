//! What the kernel knows about the processes of a server (time, memory, event queues), and what it does for us when we
//! end before them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::process::Command;

/// A program that gets a signal, named as `setpriv` does, when the thread that starts it ends, however that comes: a
/// Ctrl-C does not reach a process that is halted, and a server in the background would never hear of it.
pub fn bound_to_us(program: impl AsRef<OsStr>, signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal]).arg(program);
    command
}

/// CPU time of some processes.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuTime {
    /// All of it, in nanoseconds, as the scheduler counts it.
    pub total_ns: u64,
    /// Ticks outside the kernel and inside it, whose relation splits the total.
    pub user_ticks: u64,
    /// See above.
    pub system_ticks: u64,
}

impl CpuTime {
    /// What was spent since `earlier`.
    pub fn since(self, earlier: CpuTime) -> CpuTime {
        CpuTime {
            total_ns: self.total_ns.saturating_sub(earlier.total_ns),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
        }
    }

    /// The share that was not the kernel's.
    pub fn user_share(self) -> f64 {
        let ticks = self.user_ticks + self.system_ticks;
        if ticks == 0 { 0.0 } else { self.user_ticks as f64 / ticks as f64 }
    }
}

/// A process and everything it started.
pub fn tree(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = numbers("/proc")
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, stat_field(&stat, 4)?.try_into().ok()?))
        })
        .collect();
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&parent) = tree.get(next) {
        tree.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    tree
}

/// CPU time of the threads of these processes.
pub fn cpu_time(pids: &[u32]) -> CpuTime {
    let mut sum = CpuTime::default();
    for pid in pids {
        for thread in numbers(&format!("/proc/{pid}/task")) {
            let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).unwrap_or_default();
            sum.total_ns += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        sum.user_ticks += stat_field(&stat, 14).unwrap_or(0);
        sum.system_ticks += stat_field(&stat, 15).unwrap_or(0);
    }
    sum
}

/// Proportional memory in KiB: what is shared counts once.
pub fn memory_kib(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix("Pss:"))?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    };
    pids.iter().filter_map(of).sum()
}

/// How many descriptors each event queue (epoll) of these processes watches.
pub fn watched(pids: &[u32]) -> BTreeMap<(u32, u32), usize> {
    let mut queues = BTreeMap::new();
    for &pid in pids {
        for fd in numbers(&format!("/proc/{pid}/fd")) {
            let target = fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap_or_default();
            if target.to_string_lossy() == "anon_inode:[eventpoll]" {
                let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
                queues.insert((pid, fd), info.lines().filter(|line| line.starts_with("tfd:")).count());
            }
        }
    }
    queues
}

/// The entries of a folder that are numbers.
fn numbers(folder: &str) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A field of `/proc/PID/stat`, numbered from 1 as in proc(5); the second, a name in brackets, may hold blanks.
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(number.checked_sub(3)?)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    #[test]
    fn fields_come_after_the_name() {
        let stat = "42 (a (bad) name) S 7 42 42 0 -1 4194560 1 2 3 4 15 16 0 0 20";
        for (number, value) in [(4, Some(7)), (14, Some(15)), (15, Some(16)), (2, None), (99, None)] {
            assert_eq!(stat_field(stat, number), value, "{number}");
        }
    }

    #[test]
    fn a_program_that_is_bound_to_us_does_not_outlive_us() {
        let begin = || {
            let mut command = bound_to_us("sh", "KILL");
            let mut child =
                command.args(["-c", "echo; kill -STOP $$"]).stdout(Stdio::piped()).spawn().expect("a shell");
            // It is bound as soon as it says something.
            child.stdout.take().expect("its output").read_exact(&mut [0]).expect("a line");
            child
        };
        let mut child = std::thread::spawn(begin).join().expect("a program");
        assert_eq!(child.wait().expect("its end").signal(), Some(9));
    }

    #[test]
    fn this_process_is_in_its_own_tree_and_has_memory() {
        let tree = tree(std::process::id());
        assert_eq!(tree.first(), Some(&std::process::id()));
        assert!(memory_kib(&tree) > 100);
    }
}
