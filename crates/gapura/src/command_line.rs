//! The command line, in nginx's grammar: short options that may be glued together and to their values.

use bstr::BStr;
use std::fmt;

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-v`, `-V`, `-h`: print the version first.
    pub show_version: bool,
    /// `-V`.
    pub show_build: bool,
    /// `-h`, `-?`.
    pub show_help: bool,
    /// `-t`, `-T`: test the configuration instead of running it.
    pub test: bool,
    /// `-T`: print the configuration that was tested.
    pub dump: bool,
    /// `-q`: no word about a test that succeeds.
    pub quiet: bool,
    /// `-p`.
    pub prefix: Option<Vec<u8>>,
    /// `-c`.
    pub conf: Option<Vec<u8>>,
    /// `-e`; empty for `stderr`.
    pub error_log: Option<Vec<u8>>,
    /// `-g`.
    pub directives: Option<Vec<u8>>,
    /// `-s`.
    pub signal: Option<MasterSignal>,
}

/// What `-s` can tell a running master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasterSignal {
    /// End at once.
    Stop,
    /// Finish what is being served, then end.
    Quit,
    /// Open the log files anew.
    Reopen,
    /// Take the new configuration.
    Reload,
}

impl MasterSignal {
    /// Its word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            MasterSignal::Stop => "stop",
            MasterSignal::Quit => "quit",
            MasterSignal::Reopen => "reopen",
            MasterSignal::Reload => "reload",
        }
    }

    fn of_word(word: &[u8]) -> Option<MasterSignal> {
        use MasterSignal::*;
        [Stop, Quit, Reopen, Reload].into_iter().find(|signal| signal.word().as_bytes() == word)
    }
}

/// Why a command line was not understood; prints as nginx words it, without the program's name in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionError {
    /// A word that is not an option where one must stand, an unknown letter, or an unknown signal.
    Invalid(Vec<u8>),
    /// An option without the value it needs: the letter and what it wants.
    Missing(char, &'static str),
}

impl fmt::Display for OptionError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionError::Invalid(word) => write!(out, "invalid option: \"{}\"", BStr::new(word)),
            OptionError::Missing(letter, what) => write!(out, "option \"-{letter}\" requires {what}"),
        }
    }
}

/// Reads the words after the program's name.
pub fn parse(words: &[Vec<u8>]) -> Result<Options, OptionError> {
    let mut options = Options::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some((b'-', letters)) = word.split_first().map(|(first, rest)| (*first, rest)) else {
            return Err(OptionError::Invalid(word.clone()));
        };
        let mut rest = letters;
        while let Some((&letter, after)) = rest.split_first() {
            rest = after;
            // A value is what is glued to the letter, else the next word, which may be empty.
            let mut value = |what| {
                let value = if after.is_empty() { words.next().map(Vec::as_slice) } else { Some(after) };
                rest = b"";
                value.ok_or(OptionError::Missing(char::from(letter), what)).map(<[u8]>::to_vec)
            };
            match letter {
                b'?' | b'h' => {
                    options.show_version = true;
                    options.show_help = true;
                }
                b'v' => options.show_version = true,
                b'V' => {
                    options.show_version = true;
                    options.show_build = true;
                }
                b't' => options.test = true,
                b'T' => {
                    options.test = true;
                    options.dump = true;
                }
                b'q' => options.quiet = true,
                b'p' => options.prefix = Some(value("directory name")?),
                b'c' => options.conf = Some(value("file name")?),
                b'g' => options.directives = Some(value("parameter")?),
                b'e' => {
                    let path = value("file name")?;
                    options.error_log = Some(if path == b"stderr" { Vec::new() } else { path });
                }
                b's' => {
                    let word = value("parameter")?;
                    let signal = MasterSignal::of_word(&word);
                    let invalid = || OptionError::Invalid([b"-s ", &word[..]].concat());
                    options.signal = Some(signal.ok_or_else(invalid)?);
                }
                _ => return Err(OptionError::Invalid(vec![letter])),
            }
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[&str]) -> Result<Options, String> {
        let words: Vec<Vec<u8>> = line.iter().map(|word| word.as_bytes().to_vec()).collect();
        parse(&words).map_err(|error| error.to_string())
    }

    #[test]
    fn options_stand_alone_or_glued() {
        let path = |path: &str| Some(path.as_bytes().to_vec());
        let test = Options { test: true, ..Options::default() };
        for (line, expected) in [
            (&["-t"][..], test.clone()),
            (&["-tq"], Options { quiet: true, ..test.clone() }),
            (&["-q", "-t"], Options { quiet: true, ..test.clone() }),
            (&["-T"], Options { dump: true, ..test.clone() }),
            (&["-tc", "/etc/x"], Options { conf: path("/etc/x"), ..test.clone() }),
            (&["-tc/etc/x"], Options { conf: path("/etc/x"), ..test.clone() }),
            (&["-c", "-t"], Options { conf: path("-t"), ..Options::default() }),
            (&["-c", ""], Options { conf: path(""), ..Options::default() }),
            (&["-"], Options::default()),
            (&["-estderr"], Options { error_log: path(""), ..Options::default() }),
            (&["-e", "err"], Options { error_log: path("err"), ..Options::default() }),
            (&["-p/x", "-p", "/y"], Options { prefix: path("/y"), ..Options::default() }),
            (&["-g", "daemon off;"], Options { directives: path("daemon off;"), ..Options::default() }),
            (&["-sreload"], Options { signal: Some(MasterSignal::Reload), ..Options::default() }),
            (&["-s", "stop"], Options { signal: Some(MasterSignal::Stop), ..Options::default() }),
            (&["-h"], Options { show_version: true, show_help: true, ..Options::default() }),
            (&["-V"], Options { show_version: true, show_build: true, ..Options::default() }),
            (&["-vt"], Options { show_version: true, ..test.clone() }),
        ] {
            assert_eq!(read(line), Ok(expected), "{line:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said_in_nginx_words() {
        for (line, expected) in [
            (&["x"][..], "invalid option: \"x\""),
            (&["-tx"], "invalid option: \"x\""),
            (&[""], "invalid option: \"\""),
            (&["--help"], "invalid option: \"-\""),
            (&["-sfoo"], "invalid option: \"-s foo\""),
            (&["-s", "foo"], "invalid option: \"-s foo\""),
            (&["-s", ""], "invalid option: \"-s \""),
            (&["-s"], "option \"-s\" requires parameter"),
            (&["-tc"], "option \"-c\" requires file name"),
            (&["-e"], "option \"-e\" requires file name"),
            (&["-p"], "option \"-p\" requires directory name"),
            (&["-g"], "option \"-g\" requires parameter"),
        ] {
            assert_eq!(read(line), Err(expected.to_owned()), "{line:?}");
        }
    }
}
