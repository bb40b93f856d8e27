//! `cargo xtask compat`: nginx's own test suite on Gapura.
//!
//! The suite is a checkout of the public repository `nginx/nginx-tests`; it needs Perl and the modules its files ask for,
//! which are installed where that is possible, and skips what it lacks. `compat/nginx-tests.txt` holds the state of each
//! of its files. It is a ratchet: a file that passed there must pass; `--update` writes down what has got better, never
//! what got worse. Which files differ on purpose, and why, says `compat/README.md`.

use crate::spec::{build_gapura, root};
use crate::tools;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The state of every file of the suite.
const STATES: &str = "compat/nginx-tests.txt";
/// A file that takes longer has failed.
const FILE_SECONDS_MAX: u64 = 90;
/// How often a running file is looked at.
const PAUSE: Duration = Duration::from_millis(50);
/// Files that leave themselves out unless told to run: they listen on all addresses, take long on nginx, or leave
/// processes behind where they fail.
const ASKED_FOR: [&str; 3] = ["binary_upgrade.t", "geo_binary.t", "http_listen_wildcard.t"];
/// What our TLS compares with, as `nginx -V` would say it.
const COMPARES_WITH: &str = "OpenSSL 3.5.0";
/// How often a file that is to pass may fail: a busy machine makes some of them late.
const ATTEMPTS_MAX: usize = 3;

/// What came of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Pass,
    Fail,
    Skip,
    /// It fails, and is meant to: see `compat/README.md`. Written by hand.
    Differs,
}

impl State {
    const ALL: [(State, &'static str); 4] =
        [(State::Pass, "pass"), (State::Fail, "fail"), (State::Skip, "skip"), (State::Differs, "differs")];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, name)| name)
    }

    fn of_name(name: &str) -> Option<State> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(state, _)| *state)
    }
}

#[derive(Debug, Default)]
struct Options {
    suite: PathBuf,
    binary: Option<PathBuf>,
    only: Option<String>,
    update: bool,
}

/// Reads the command line and runs.
pub fn main(arguments: &[String]) -> Result<(), String> {
    let mut options = Options::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().cloned().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--suite" => options.suite = value()?.into(),
            "--binary" => options.binary = Some(value()?.into()),
            "--only" => options.only = Some(value()?),
            "--update" => options.update = true,
            _ => return Err(format!("unknown option {argument}")),
        }
    }
    if !options.suite.join("lib/Test/Nginx.pm").is_file() {
        return Err("--suite names a checkout of https://github.com/nginx/nginx-tests".to_owned());
    }
    run(&options)
}

fn run(options: &Options) -> Result<(), String> {
    tools::install_for_compat()?;
    let binary = match &options.binary {
        Some(path) => path.clone(),
        None => build_gapura()?,
    };
    let binary = binary.canonicalize().map_err(|e| format!("{}: {e}", binary.display()))?;
    let alias = Alias::make(&binary)?;
    let mut states = read_states()?;
    let mut worse = Vec::new();
    let mut counts = BTreeMap::new();
    for name in files(options)? {
        let before = states.get(&name).copied();
        let (mut state, mut why) = run_file(&options.suite, &name, &alias.path)?;
        for _ in 1..ATTEMPTS_MAX {
            if before != Some(State::Pass) || state != State::Fail {
                break;
            }
            (state, why) = run_file(&options.suite, &name, &alias.path)?;
        }
        if before == Some(State::Differs) && state == State::Fail {
            state = State::Differs;
        }
        *counts.entry(state.name()).or_insert(0) += 1;
        let fell_back = before == Some(State::Pass) && state == State::Fail;
        if fell_back {
            println!("FELL BACK {name}: {why}");
            worse.push(name.clone());
        } else if before != Some(state) {
            println!("{} {name} {why}", state.name());
        }
        if !fell_back && before != Some(State::Pass) {
            states.insert(name, state);
        }
    }
    println!("{counts:?}");
    if options.update {
        write_states(&states)?;
    }
    if worse.is_empty() {
        Ok(())
    } else {
        Err(format!("{} files fell back: {}", worse.len(), worse.join(" ")))
    }
}

/// The binary under the name `nginx`: the suite reads version and features of what is called so. Some files ask for an
/// age of OpenSSL where they mean what it brought, so that the alias says besides which age ours compares with.
struct Alias {
    folder: PathBuf,
    path: PathBuf,
}

impl Alias {
    fn make(binary: &Path) -> Result<Alias, String> {
        let folder = std::env::temp_dir().join(format!("gapura-compat-{}", std::process::id()));
        let path = folder.join("nginx");
        let own = folder.join("own");
        let called = own.join("nginx");
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in *\" -V \"*) echo 'with {COMPARES_WITH}' >&2 ;; esac\nexec {} \"$@\"\n",
            called.display()
        );
        std::fs::create_dir_all(&own)
            .and_then(|()| std::os::unix::fs::symlink(binary, &called))
            .and_then(|()| std::fs::write(&path, script))
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)))
            .map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Alias { folder, path })
    }
}

impl Drop for Alias {
    fn drop(&mut self) {
        // A folder that stays is no reason to fail.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn files(options: &Options) -> Result<Vec<String>, String> {
    let entries =
        std::fs::read_dir(&options.suite).map_err(|e| format!("{}: {e}", options.suite.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".t"))
        .filter(|name| options.only.as_ref().is_none_or(|only| name.contains(only.as_str())))
        .collect();
    names.sort();
    Ok(names)
}

/// Runs one file; its state, and the first thing that was wrong.
fn run_file(suite: &Path, name: &str, nginx: &Path) -> Result<(State, String), String> {
    let log = std::env::temp_dir().join(format!("gapura-compat-{}.log", std::process::id()));
    let out = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let both = out.try_clone().map_err(|e| format!("{}: {e}", log.display()))?;
    let mut command = Command::new("perl");
    if ASKED_FOR.contains(&name) {
        command.env("TEST_NGINX_UNSAFE", "1");
    }
    if speaks_http2(&suite.join(name)) {
        command.arg(format!("-I{}", root().join("compat/perl").display())).args(["-Ilib", "-MKeepsRules"]);
    }
    let mut child = command
        .args(["-Ilib", name])
        .current_dir(suite)
        .env("TEST_NGINX_BINARY", nginx)
        .env("TEST_NGINX_GLOBALS", "user root;")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(both)
        .process_group(0)
        .spawn()
        .map_err(|e| format!("perl: {e}"))?;
    let end = Instant::now() + Duration::from_secs(FILE_SECONDS_MAX);
    let status = loop {
        match child.try_wait().map_err(|e| format!("perl: {e}"))? {
            Some(status) => break Some(status),
            None if Instant::now() > end => break None,
            None => std::thread::sleep(PAUSE),
        }
    };
    // What the file has started ends with it.
    let group = child.id().to_string();
    let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).stderr(Stdio::null()).status();
    let _ = child.wait();
    let mut text = Vec::new();
    File::open(&log).and_then(|mut file| file.read_to_end(&mut text)).map_err(|e| e.to_string())?;
    let _ = std::fs::remove_file(&log);
    Ok(judge(&String::from_utf8_lossy(&text), status.is_some_and(|status| status.success())))
}

/// Does the file use the suite's own HTTP/2? Its padding is corrected then: see `compat/perl`.
fn speaks_http2(file: &Path) -> bool {
    std::fs::read(file).is_ok_and(|text| String::from_utf8_lossy(&text).contains("use Test::Nginx::HTTP2"))
}

/// Reads the Test Anything Protocol: all that was planned must hold, but for what is marked as still to do.
fn judge(text: &str, ended_well: bool) -> (State, String) {
    let plan = text.lines().find_map(|line| line.strip_prefix("1.."));
    if let Some(reason) = plan.and_then(|plan| plan.strip_prefix("0 # SKIP")) {
        return (State::Skip, reason.trim().to_owned());
    }
    let planned = plan.and_then(|plan| plan.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    let holds =
        |line: &&str| line.starts_with("ok ") || line.starts_with("not ok ") && line.contains("# TODO");
    let held = text.lines().filter(holds).count();
    if ended_well && planned > 0 && held == planned {
        return (State::Pass, String::new());
    }
    let wrong =
        |line: &&str| line.contains("[emerg]") || line.starts_with("not ok") && !line.contains("# TODO");
    let why = text.lines().find(wrong).unwrap_or("did not end in time or in order");
    (State::Fail, why.to_owned())
}

fn read_states() -> Result<BTreeMap<String, State>, String> {
    let path = root().join(STATES);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(format!("{STATES}: {e}")),
    };
    let read = |line: &str| {
        let (name, state) = line.split_once('\t')?;
        Some((name.to_owned(), State::of_name(state)?))
    };
    text.lines().map(|line| read(line).ok_or_else(|| format!("{STATES}: not a state: {line}"))).collect()
}

fn write_states(states: &BTreeMap<String, State>) -> Result<(), String> {
    let text: String = states.iter().map(|(name, state)| format!("{name}\t{}\n", state.name())).collect();
    let path = root().join(STATES);
    path.parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|e| format!("{STATES}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_of_the_suite_are_judged() {
        let cases = [
            ("1..2\nok 1 - a\nok 2 - b\n", true, State::Pass),
            ("ok 1 - a\nnot ok 2 - b # TODO not yet\n1..2\n", true, State::Pass),
            ("1..2\nok 1 - a\nok 2 - b\n", false, State::Fail),
            ("1..2\nok 1 - a\n", true, State::Fail),
            ("1..2\nok 1 - a\nnot ok 2 - b\n", true, State::Fail),
            ("1..0 # SKIP no http_v2\n", true, State::Skip),
            ("", false, State::Fail),
        ];
        for (text, ended_well, expected) in cases {
            assert_eq!(judge(text, ended_well).0, expected, "{text}");
        }
    }
}
