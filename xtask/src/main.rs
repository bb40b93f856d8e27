//! Chores of the project: `cargo xtask <command>`.

mod bench;
mod compat;
mod docs;
mod spec;
mod test;
mod tidy;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  bench [WORKLOAD...] [--peer nginx|haproxy|gapura[=PATH]]... [--binary PATH] [--rounds N] [--seconds S]
        [--json FILE] [--svg FILE] [--syscalls] [--perf]
        measures Gapura beside other servers; --help lists the workloads, bench/README.md tells more
  spec [--oracle[=NGINX]] [--binary PATH] [--only NAME] [FILE...]
        runs the specification documents on Gapura, or on a real nginx
  compat --suite DIR [--binary PATH] [--only TEXT] [--update]
        runs nginx's own tests (a checkout of nginx/nginx-tests) and compares with compat/nginx-tests.txt
  tidy [--update]
        checks the rules of the house; --update lowers xtask/ratchet.tsv
  docs
        writes docs/directives.md from the table of directives and the modules' rows
  test [STEP...]
        everything a commit must pass: tools, tidy, format, lint, unit, spec, oracle, end-to-end
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let result = match command.as_str() {
        "bench" => bench::main(&rest),
        "docs" => docs::main(&rest),
        "spec" => spec::main(&rest),
        "compat" => compat::main(&rest),
        "tidy" => tidy::main(&rest),
        "test" => test::main(&rest),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
