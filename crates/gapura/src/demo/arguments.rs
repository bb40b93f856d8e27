//! The command line of `gapura demo`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The keys `1` to `9` name the servers.
pub const APPS_MAX: usize = 9;

/// What `gapura demo --help` prints.
pub const HELP: &str = "\
The tutorial on one machine: a gateway and small app servers behind it, each a process of its own.
Needs no root and installs nothing. Ctrl-C ends it and leaves no process behind.

Usage: gapura demo [OPTIONS]

Options:
      --apps N        app servers to start with, 1 to 9 [default: 2]
      --port P        port of the gateway on 127.0.0.1 [default: 8080, or the next free one]
      --https         HTTPS too, on port 8443 or the next free one, with an authority of the demo's own
      --command CMD   run CMD, say 'npm start', in place of each built-in app server; it is to listen on the
                      address in the environment variables HOST and PORT
      --dir DIR       folder for the configuration and the logs [default: ./gapura-demo]
  -h, --help          show this text
";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// `--help`.
    Help,
    /// The demo itself.
    Run(Options),
}

/// How the demo is to run.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// App servers to start with, 1 to `APPS_MAX`.
    pub apps: usize,
    /// Port of the gateway, when one was named.
    pub port: Option<u16>,
    /// Whether the gateway speaks HTTPS too.
    pub https: bool,
    /// What to run in place of the built-in app server.
    pub command: Option<OsString>,
    /// Folder for the configuration and the logs, when one was named.
    pub dir: Option<PathBuf>,
}

/// Reads the words after `demo`. An option's value is the next word, or follows `=`.
pub fn parse(words: &[Vec<u8>]) -> Result<Request, String> {
    let mut options = Options { apps: 2, port: None, https: false, command: None, dir: None };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (name, glued) = match word.iter().position(|&byte| byte == b'=') {
            Some(at) if word.starts_with(b"--") => (&word[..at], Some(word[at + 1..].to_vec())),
            _ => (&word[..], None),
        };
        let shown = String::from_utf8_lossy(name).into_owned();
        let mut value = || {
            let value = glued.clone().or_else(|| words.next().cloned());
            value.filter(|value| !value.is_empty()).ok_or(format!("option \"{shown}\" needs a value"))
        };
        if glued.is_some() && matches!(name, b"--help" | b"--https") {
            return Err(format!("option \"{shown}\" takes no value"));
        }
        match name {
            b"-h" | b"--help" => return Ok(Request::Help),
            b"--apps" => options.apps = number(&shown, &value()?, 1, APPS_MAX)?,
            b"--port" => options.port = Some(number(&shown, &value()?, 1, u16::MAX)?),
            b"--https" => options.https = true,
            b"--command" => options.command = Some(OsString::from_vec(value()?)),
            b"--dir" => options.dir = Some(OsString::from_vec(value()?).into()),
            _ => return Err(format!("unknown option \"{shown}\"")),
        }
    }
    Ok(Request::Run(options))
}

fn number<N>(name: &str, value: &[u8], least: N, most: N) -> Result<N, String>
where
    N: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<N>().ok());
    number.filter(|number| *number >= least && *number <= most).ok_or_else(|| {
        let value = String::from_utf8_lossy(value);
        format!("option \"{name}\" takes a number from {least} to {most}, not \"{value}\"")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<Request, String> {
        parse(&line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>())
    }

    #[test]
    fn options() {
        let defaults = Options { apps: 2, port: None, https: false, command: None, dir: None };
        assert_eq!(check(""), Ok(Request::Run(defaults)));
        let all = Options {
            apps: 3,
            port: Some(9000),
            https: true,
            command: Some("start".into()),
            dir: Some("here".into()),
        };
        assert_eq!(check("--apps 3 --port=9000 --https --command start --dir=here"), Ok(Request::Run(all)));
        assert_eq!(check("--apps 3 -h"), Ok(Request::Help));
    }

    #[test]
    fn mistakes() {
        for (line, message) in [
            ("--apps", "option \"--apps\" needs a value"),
            ("--dir=", "option \"--dir\" needs a value"),
            ("--apps 0", "option \"--apps\" takes a number from 1 to 9, not \"0\""),
            ("--port 65536", "option \"--port\" takes a number from 1 to 65535, not \"65536\""),
            ("--https=no", "option \"--https\" takes no value"),
            ("--fast", "unknown option \"--fast\""),
            ("start", "unknown option \"start\""),
        ] {
            assert_eq!(check(line), Err(message.to_owned()), "{line}");
        }
    }
}
