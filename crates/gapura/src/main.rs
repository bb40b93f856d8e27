//! The program: reads its command line and does what it says.

mod command_line;
mod demo;
mod identity;

use command_line::Options;
use identity::Identity;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os().map(OsStringExt::into_vec);
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
    show(identity, &options);
    ExitCode::SUCCESS
}

/// `-v`, `-V` and `-h`.
fn show(identity: Identity, options: &Options) {
    if options.show_version {
        say(&identity.version_text());
    }
    if options.show_help {
        say(&identity.help_text());
    }
    if options.show_build {
        say(&identity.build_text());
    }
}

/// Writes to the standard error, where nginx says everything. A closed one is nobody's loss.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
