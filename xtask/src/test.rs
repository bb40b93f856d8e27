//! `cargo xtask test`: everything a commit must pass, in the order in which a failure is cheapest.

use crate::spec::{self, find_nginx, root};
use crate::{tidy, tools};
use std::process::Command;
use std::time::Instant;

/// A step by its name.
type Step = (&'static str, fn() -> Result<(), String>);

const STEPS: &[Step] = &[
    ("tools", tools::install),
    ("tidy", || tidy::main(&[])),
    ("format", || cargo(&["fmt", "--all", "--check"])),
    ("lint", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
    ("unit", unit),
    ("spec", || spec::run(&spec::Options::default())),
    ("oracle", oracle),
    ("end-to-end", || cargo(&["test", "--package", "gapura"])),
];

/// Runs the steps that are named, or all.
pub fn main(arguments: &[String]) -> Result<(), String> {
    if let Some(unknown) = arguments.iter().find(|name| !STEPS.iter().any(|(step, _)| step == name)) {
        let names: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
        return Err(format!("no step \"{unknown}\"; there are {}", names.join(", ")));
    }
    let begin = Instant::now();
    let mut times = Vec::new();
    for (name, step) in
        STEPS.iter().filter(|(name, _)| arguments.is_empty() || arguments.iter().any(|a| a == name))
    {
        println!("== {name}");
        let step_begin = Instant::now();
        step().map_err(|message| format!("{name}: {message}"))?;
        times.push(format!("{name} {} s", step_begin.elapsed().as_secs()));
    }
    println!("== all good in {} s: {}", begin.elapsed().as_secs(), times.join(", "));
    Ok(())
}

/// Whether nobody watches, so that nothing may be left out.
pub fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1")
}

/// Runs cargo in the workspace and shows what it runs.
fn cargo(arguments: &[&str]) -> Result<(), String> {
    println!("   cargo {}", arguments.join(" "));
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status =
        Command::new(program).current_dir(root()).args(arguments).status().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("cargo {} failed", arguments.join(" "))) }
}

/// All tests but those of the program, which come last because they take longest.
fn unit() -> Result<(), String> {
    let nextest =
        Command::new("cargo").args(["nextest", "--version"]).output().is_ok_and(|o| o.status.success());
    if !nextest {
        return cargo(&["test", "--workspace", "--exclude", "gapura"]);
    }
    let some = ["--workspace", "--exclude", "gapura"];
    cargo(&[&["nextest", "run", "--no-tests", "pass"][..], &some].concat())?;
    cargo(&[&["test", "--doc"][..], &some].concat())
}

fn oracle() -> Result<(), String> {
    match find_nginx() {
        Some(_) => spec::run(&spec::Options { oracle: true, ..spec::Options::default() }),
        None if is_ci() => Err("there is no nginx to prove the specs on".to_owned()),
        None => {
            println!("   LEFT OUT: there is no nginx to prove the specs on");
            Ok(())
        }
    }
}
