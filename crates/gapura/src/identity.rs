//! Who the program says it is, and where it looks for things.
//!
//! Called by its own name it answers as Gapura. Called `nginx` (a link of that name is enough) it answers in
//! nginx's words, with the version it is compatible with, because certbot, nginx-ui and many scripts read them.
//!
//! Where files are, when neither an option nor a directive says so:
//!
//! | | `-p DIR` given | called `nginx` | called `gapura` |
//! |---|---|---|---|
//! | prefix | `DIR` | `/etc/nginx` | folder of the configuration file |
//! | configuration | `DIR/conf/nginx.conf` | `/etc/nginx/nginx.conf` | `/etc/gapura/nginx.conf`, else `/etc/nginx/nginx.conf`, else a built-in one |
//! | error log | `DIR/logs/error.log` | `/var/log/nginx/error.log` | `/var/log/gapura/error.log` if that folder exists, else stderr |
//! | access log | `DIR/logs/access.log` | `/var/log/nginx/access.log` | `/var/log/gapura/access.log` |
//! | pid | `DIR/logs/nginx.pid` | `/run/nginx.pid` | `/run/gapura.pid` |
//!
//! The first column is how nginx behaves when built from source, the second how nginx.org's packages do.

use crate::build_arguments;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The nginx whose behaviour, messages and defaults are followed.
pub const NGINX_VERSION: &str = "1.31.5";

/// The name the program was called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Under its own name, or any other than `nginx`.
    Gapura,
    /// Under the name `nginx`.
    Nginx,
}

impl Identity {
    /// Reads it off the last part of `argv[0]`.
    pub fn of_program(argument: &[u8]) -> Identity {
        let name = argument.rsplit(|&byte| byte == b'/').next().unwrap_or(argument);
        if name == b"nginx" { Identity::Nginx } else { Identity::Gapura }
    }

    /// `gapura` or `nginx`: before messages, in process titles, as the name of the process.
    pub fn name(self) -> &'static str {
        match self {
            Identity::Gapura => "gapura",
            Identity::Nginx => "nginx",
        }
    }

    /// `gapura/0.1.0` or `nginx/1.31.5`.
    pub fn product(self) -> &'static str {
        match self {
            Identity::Gapura => concat!("gapura/", env!("CARGO_PKG_VERSION")),
            Identity::Nginx => "nginx/1.31.5",
        }
    }

    /// The answer to `-v`, with its line feed.
    pub fn version_text(self) -> String {
        format!("{} version: {}\n", self.name(), self.product())
    }

    /// The answer to `-h`, after the version. nginx's text, with this program's name and defaults.
    pub fn help_text(self) -> String {
        let name = self.name();
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "Usage: {name} [-?hvVtTq] [-s signal] [-p prefix]\n\
             {blank:width$}[-e filename] [-c filename] [-g directives]\n\
             \n\
             Options:\n\
             \x20 -?,-h         : this help\n\
             \x20 -v            : show version and exit\n\
             \x20 -V            : show version and configure options then exit\n\
             \x20 -t            : test configuration and exit\n\
             \x20 -T            : test configuration, dump it and exit\n\
             \x20 -q            : suppress non-error messages during configuration testing\n\
             \x20 -s signal     : send signal to a master process: stop, quit, reopen, reload\n\
             \x20 -p prefix     : set prefix path (default: {prefix}/)\n\
             \x20 -e filename   : set error log file (default: {error_log})\n\
             \x20 -c filename   : set configuration file (default: {conf})\n\
             \x20 -g directives : set global directives out of configuration file\n\
             \n",
            blank = "",
            width = "Usage:  ".len() + name.len(),
            prefix = self.installed_prefix(),
            error_log = self.installed_error_log(),
            conf = self.installed_conf(),
        );
        if self == Identity::Gapura {
            text.push_str(
                "More:\n\
                 \x20 gapura demo   : three servers on this machine to try things with\n\
                 \n",
            );
        }
        text
    }

    /// What `-V` adds to the version.
    pub fn build_text(self) -> String {
        let mut text = format!("built by {}\n", env!("GAPURA_COMPILER"));
        if self == Identity::Gapura {
            let _ = writeln!(text, "compatible with nginx/{NGINX_VERSION}");
        }
        if build_arguments::has_tls() {
            text.push_str("TLS SNI support enabled\n");
        }
        let _ = write!(
            text,
            "configure arguments: --prefix={} --conf-path={} --error-log-path={} --http-log-path={} --pid-path={}",
            self.installed_prefix(),
            self.installed_conf(),
            self.installed_error_log(),
            self.installed_access_log(),
            self.installed_pid(),
        );
        for argument in build_arguments::arguments() {
            let _ = write!(text, " {argument}");
        }
        text.push('\n');
        text
    }

    fn installed_prefix(self) -> &'static str {
        match self {
            Identity::Gapura => "/etc/gapura",
            Identity::Nginx => "/etc/nginx",
        }
    }

    fn installed_conf(self) -> &'static str {
        match self {
            Identity::Gapura => "/etc/gapura/nginx.conf",
            Identity::Nginx => "/etc/nginx/nginx.conf",
        }
    }

    fn installed_error_log(self) -> &'static str {
        match self {
            Identity::Gapura => "/var/log/gapura/error.log",
            Identity::Nginx => "/var/log/nginx/error.log",
        }
    }

    fn installed_access_log(self) -> &'static str {
        match self {
            Identity::Gapura => "/var/log/gapura/access.log",
            Identity::Nginx => "/var/log/nginx/access.log",
        }
    }

    fn installed_pid(self) -> &'static str {
        match self {
            Identity::Gapura => "/run/gapura.pid",
            Identity::Nginx => "/run/nginx.pid",
        }
    }
}

/// Where everything is for this run, once the options are known. All of it is bytes, as paths are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Relative paths of logs, the pid file and documents start here. Ends with `/` unless empty.
    pub prefix: Vec<u8>,
    /// Relative paths of included files, certificates and passwords start here. Ends with `/` unless empty.
    pub conf_prefix: Vec<u8>,
    /// The main configuration file.
    pub conf: ConfSource,
    /// The error log until the configuration names one, and where it names none; empty for stderr.
    pub error_log: Vec<u8>,
    /// The access log where the configuration names none.
    pub access_log: Vec<u8>,
    /// The pid file where the configuration names none.
    pub pid: Vec<u8>,
}

/// Where the main configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfSource {
    /// A file, by its full name.
    File(Vec<u8>),
    /// Nothing was named and nothing was found.
    BuiltIn,
}

/// The options that decide where things are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Places<'a> {
    /// `-p`.
    pub prefix: Option<&'a [u8]>,
    /// `-c`.
    pub conf: Option<&'a [u8]>,
    /// `-e`; empty for stderr.
    pub error_log: Option<&'a [u8]>,
}

impl Layout {
    /// Applies the table above. `exists` says whether a path is there.
    pub fn new(identity: Identity, places: Places<'_>, exists: impl Fn(&Path) -> bool) -> Layout {
        let present = |path: &str| exists(Path::new(path));
        let found = match places.conf {
            Some(_) => None,
            None if places.prefix.is_some() => None,
            None => match identity {
                Identity::Nginx => Some(identity.installed_conf()),
                Identity::Gapura => [identity.installed_conf(), Identity::Nginx.installed_conf()]
                    .into_iter()
                    .find(|path| present(path)),
            },
        };
        let prefix = match (places.prefix, found) {
            (Some(given), _) => given,
            (None, Some(conf)) => parent(conf.as_bytes()),
            (None, None) => identity.installed_prefix().as_bytes(),
        };
        let prefix = with_slash(prefix);
        let conf = match (places.conf, places.prefix, found) {
            (Some(given), _, _) => ConfSource::File(full_name(&prefix, given)),
            (None, Some(_), _) => ConfSource::File(full_name(&prefix, b"conf/nginx.conf")),
            (None, None, Some(found)) => ConfSource::File(found.into()),
            (None, None, None) => ConfSource::BuiltIn,
        };
        let conf_prefix = match &conf {
            ConfSource::File(path) if path.iter().skip(1).any(|&byte| byte == b'/') => {
                with_slash(parent(path))
            }
            _ => prefix.clone(),
        };
        let relative = places.prefix.is_some();
        let log_folder_exists = present(match identity {
            Identity::Gapura => "/var/log/gapura",
            Identity::Nginx => "/var/log/nginx",
        });
        let error_log = match places.error_log {
            Some([]) => Vec::new(),
            Some(given) => full_name(&prefix, given),
            None if relative => full_name(&prefix, b"logs/error.log"),
            None if identity == Identity::Gapura && !log_folder_exists => Vec::new(),
            None => identity.installed_error_log().into(),
        };
        let pick = |of_source: &[u8], installed: &str| {
            if relative { full_name(&prefix, of_source) } else { installed.into() }
        };
        Layout {
            access_log: pick(b"logs/access.log", identity.installed_access_log()),
            pid: pick(b"logs/nginx.pid", identity.installed_pid()),
            prefix,
            conf_prefix,
            conf,
            error_log,
        }
    }

    /// The name that messages use for the main configuration.
    pub fn conf_name(&self) -> &[u8] {
        match &self.conf {
            ConfSource::File(path) => path,
            ConfSource::BuiltIn => b"(built in)",
        }
    }

    /// The full name of a path from the configuration that is relative to the prefix (logs, `pid`).
    pub fn full_name(&self, path: &[u8]) -> Vec<u8> {
        full_name(&self.prefix, path)
    }
}

/// True where something is at `path`, whatever it is.
pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The path of a byte string.
pub fn path_of(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

fn full_name(prefix: &[u8], path: &[u8]) -> Vec<u8> {
    if path.first() == Some(&b'/') { path.to_vec() } else { [prefix, path].concat() }
}

fn with_slash(path: &[u8]) -> Vec<u8> {
    let mut path = path.to_vec();
    if path.last().is_some_and(|&byte| byte != b'/') {
        path.push(b'/');
    }
    path
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&byte| byte == b'/').map_or(b"", |slash| &path[..slash.max(1)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use bstr::BStr;

    #[test]
    fn the_name_is_the_last_part_of_the_first_argument() {
        for (argument, name) in [
            ("nginx", "nginx"),
            ("/usr/sbin/nginx", "nginx"),
            ("./nginx", "nginx"),
            ("gapura", "gapura"),
            ("/usr/bin/gapura", "gapura"),
            ("/opt/nginx/gapura", "gapura"),
            ("nginx-debug", "gapura"),
            ("", "gapura"),
        ] {
            assert_eq!(Identity::of_program(argument.as_bytes()).name(), name, "{argument}");
        }
    }

    #[test]
    fn the_compatible_version_is_written_once() {
        assert_eq!(Identity::Nginx.product(), format!("nginx/{NGINX_VERSION}"));
    }

    /// Conf, conf prefix, error log and pid, for each way to call the program.
    #[test]
    fn places_follow_the_table() {
        type Case = (Identity, Places<'static>, &'static [&'static str], [&'static str; 4]);
        let none = Places::default();
        let cases: [Case; 7] = [
            (
                Identity::Nginx,
                none,
                &[],
                ["/etc/nginx/nginx.conf", "/etc/nginx/", "/var/log/nginx/error.log", "/run/nginx.pid"],
            ),
            (Identity::Gapura, none, &[], ["(built in)", "/etc/gapura/", "", "/run/gapura.pid"]),
            (
                Identity::Gapura,
                none,
                &["/etc/nginx/nginx.conf", "/var/log/gapura"],
                ["/etc/nginx/nginx.conf", "/etc/nginx/", "/var/log/gapura/error.log", "/run/gapura.pid"],
            ),
            (
                Identity::Gapura,
                none,
                &["/etc/gapura/nginx.conf", "/etc/nginx/nginx.conf"],
                ["/etc/gapura/nginx.conf", "/etc/gapura/", "", "/run/gapura.pid"],
            ),
            (
                Identity::Gapura,
                Places { prefix: Some(b"/tmp/t"), conf: Some(b"nginx.conf"), error_log: Some(b"error.log") },
                &[],
                ["/tmp/t/nginx.conf", "/tmp/t/", "/tmp/t/error.log", "/tmp/t/logs/nginx.pid"],
            ),
            (
                Identity::Nginx,
                Places { prefix: Some(b"dir/"), conf: None, error_log: None },
                &[],
                ["dir/conf/nginx.conf", "dir/conf/", "dir/logs/error.log", "dir/logs/nginx.pid"],
            ),
            (
                Identity::Nginx,
                Places { prefix: Some(b""), conf: Some(b"x.conf"), error_log: Some(b"") },
                &[],
                ["x.conf", "", "", "logs/nginx.pid"],
            ),
        ];
        for (identity, places, present, expected) in cases {
            let layout =
                Layout::new(identity, places, |path| present.iter().any(|known| Path::new(known) == path));
            let got = [layout.conf_name(), &layout.conf_prefix, &layout.error_log, &layout.pid];
            assert_eq!(got.map(BStr::new), expected.map(BStr::new), "{identity:?} {places:?}");
        }
    }
}
