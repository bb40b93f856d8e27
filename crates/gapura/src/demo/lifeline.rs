//! Nothing the demo started may outlive it, however it ends. Every process it starts holds the read end of a pipe as its
//! standard input; the write end is the demo's. When the demo is gone, the kernel closes it, and whoever reads the
//! pipe sees its end.
//!
//! The built-in app server reads the pipe itself. Other programs know nothing of it, so they get a keeper: a small
//! process of ours that starts the program in a process group of its own and ends the group when the pipe ends.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// How long a program may take to end when it is asked to.
pub const FAREWELL: Duration = Duration::from_millis(1500);

/// Returns when the process that started this one is gone, or wants this one gone.
pub fn wait_for_end() {
    let mut bytes = [0; 64];
    while !matches!(std::io::stdin().lock().read(&mut bytes), Ok(0) | Err(_)) {}
}

/// Runs the program in `words` until it ends or the lifeline does; its exit code.
pub fn keep(words: &[OsString]) -> ExitCode {
    let Some((program, arguments)) = words.split_first() else { return ExitCode::FAILURE };
    let started = Command::new(program).args(arguments).stdin(Stdio::null()).process_group(0).spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            eprintln!("cannot start {}: {error}", program.display());
            return ExitCode::from(127);
        }
    };
    let Some(group) = group_of(&child) else { return ExitCode::FAILURE };
    thread::spawn(move || {
        wait_for_end();
        let _ = rustix::process::kill_process_group(group, Signal::TERM);
        thread::sleep(FAREWELL);
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    });
    // The group outlives its first process where that one has started others (npm starts a shell, which starts node). As
    // long as the first is not reaped, the group's number cannot be anybody else's.
    let _ = rustix::process::waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    let _ = rustix::process::kill_process_group(group, Signal::TERM);
    let code = child.wait().ok().and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(1))
}

fn group_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}
