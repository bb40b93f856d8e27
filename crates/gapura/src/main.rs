//! The program: reads its command line and does what it says.

mod balance;
mod build_arguments;
mod built_in;
mod certificates;
mod command_line;
mod control;
mod demo;
mod files;
mod identity;
mod journal;
mod master;
mod pid_file;
mod service;
mod single;
mod site;
mod start;
mod vault;
mod wire;
mod worker;

use command_line::Options;
use identity::Identity;
use journal::say;
use net::process::spawn::WORKER_VARIABLE;
use net::process::title::Title;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: net::memory::Allocator = net::memory::Allocator;

fn main() -> ExitCode {
    let (arguments, mut title) = Title::take();
    if std::env::var_os(WORKER_VARIABLE).is_some() {
        return worker::run(&mut title);
    }
    let mut words = arguments.iter().map(|word| word.as_bytes().to_vec());
    let identity = Identity::of_program(&words.next().unwrap_or_default());
    let words: Vec<Vec<u8>> = words.collect();
    if let Some((first, rest)) = words.split_first()
        && first == b"demo"
        && identity == Identity::Gapura
    {
        return demo::run(rest);
    }
    let options = match command_line::parse(&words) {
        Ok(options) => options,
        Err(error) => {
            say(&format!("{}: {error}\n", identity.name()));
            return ExitCode::FAILURE;
        }
    };
    command(identity, options, arguments, title)
}

fn command(identity: Identity, options: Options, arguments: Vec<OsString>, title: Title) -> ExitCode {
    if options.show_version {
        say(&identity.version_text());
    }
    if options.show_help {
        say(&identity.help_text());
    }
    if options.show_build {
        say(&identity.build_text());
    }
    if options.show_version && !options.test {
        return ExitCode::SUCCESS;
    }
    start::run(identity, options, arguments, title)
}
