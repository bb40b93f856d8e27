//! `auth_basic`: user names and passwords from a file (nginx's manual, ngx_http_auth_basic_module).

mod des;
mod password;

use bstr::{BStr, BString};
use conf::{Level, Node};
use engine::flow::SmallFile;
use engine::module::{Declare, Install, cells, finish_nothing};
use engine::{Answer, Ask, Build, Flow, Installer, Module, Phase, Request, Step};
use http::Status;
use http::authorization::Basic;
use net::errno::{Errno, ErrnoMessage};
use schema::value::argument;
use schema::{Directive, Inherit, Problem, field};
use template::Template;

/// A password file is read up to this length, bytes.
const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Default)]
struct Conf {
    realm: Inherit<Option<Template>>,
    user_file: Inherit<Option<Template>>,
}

pub static MODULE: Module = Module {
    name: "auth_basic",
    directives: &[
        Directive {
            name: "auth_basic",
            default: "",
            set: field!(Conf.realm),
            doc: "Asks for a user and a password, under this name; off asks for none.",
        },
        Directive {
            name: "auth_basic_user_file",
            default: "",
            set: &Declare {
                inherit: Some(|outer: &Conf, inner: &mut Conf| {
                    inner.user_file.inherit_from(&outer.user_file)
                }),
                settle: Some(|conf: &mut Conf| conf.user_file.settle()),
                ..Declare::new(user_file)
            },
            doc: "The file of users and passwords.",
        },
    ],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};

fn user_file(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    if conf.user_file.is_set() {
        return Err(Problem::directive(&node.name, "is duplicate"));
    }
    let word = argument(node, 0)?;
    let starts_with_variable = word.text.starts_with(b"$");
    let path = if starts_with_variable { word.text.clone() } else { build.conf_path(word.text.as_ref()) };
    let template = build.template(path.as_ref()).map_err(|problem| problem.on(word))?;
    conf.user_file.put(Some(template), Some(node.name.span));
    Ok(())
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let conf = installer.conf::<Conf>();
    let (Some(realm), Some(user_file)) = (&*conf.realm, &*conf.user_file) else { return Ok(()) };
    if realm.is_constant() == Some(b"off") {
        return Ok(());
    }
    let step = installer.once(|_: &Conf, build| AuthBasic {
        realm: realm.clone(),
        user_file: user_file.clone(),
        relative: build.conf_prefix.clone(),
    });
    installer.shared_step(Phase::Access, step);
    Ok(())
}

struct AuthBasic {
    realm: Template,
    user_file: Template,
    /// Where paths that come out of variables hang from.
    relative: BString,
}

impl AuthBasic {
    fn path(&self, request: &mut Request) -> Vec<u8> {
        let path = request.render(&self.user_file);
        if path.starts_with(b"/") { path } else { [&self.relative[..], &path].concat() }
    }

    /// Asks the client for credentials.
    fn demand(&self, request: &mut Request) -> Flow {
        let realm = request.render(&self.realm);
        let value = [b"Basic realm=\"", &realm[..], b"\""].concat();
        request.response.fields.push(b"WWW-Authenticate", &value);
        Flow::Deny(Status::UNAUTHORIZED)
    }
}

impl Step for AuthBasic {
    fn run(&self, request: &mut Request) -> Flow {
        if request.render(&self.realm) == b"off" {
            return Flow::Next;
        }
        if http::authorization::basic(&request.head.fields).is_none() {
            let message = format_args!("no user/password was provided for basic authentication");
            request.log_error(Level::Info, message);
            return self.demand(request);
        }
        let path = self.path(request);
        Flow::Ask(Ask::Read(SmallFile { path, bytes_max: FILE_BYTES_MAX }))
    }

    fn resume(&self, request: &mut Request, answer: Answer) -> Flow {
        let Answer::Read(read) = answer else { return Flow::Next };
        let Some(basic) = http::authorization::basic(&request.head.fields) else {
            return self.demand(request);
        };
        match read {
            Ok(text) => self.judge(request, &basic, &text),
            Err(error) => {
                let path = self.path(request);
                let (path, call, errno) = (BStr::new(&path), error.call, ErrnoMessage(error.errno));
                let is_missing = error.errno == Errno::NOENT;
                let level = if is_missing { Level::Error } else { Level::Crit };
                request.log_error(level, format_args!("{call} \"{path}\" failed ({errno})"));
                Flow::Deny(if is_missing { Status::FORBIDDEN } else { Status::INTERNAL_SERVER_ERROR })
            }
        }
    }
}

impl AuthBasic {
    fn judge(&self, request: &mut Request, basic: &Basic, text: &[u8]) -> Flow {
        match stored_password(text, &basic.user) {
            Some(stored) if password::matches(&basic.password, stored) => Flow::Allow,
            Some(_) => {
                request.log_error(Level::Error, format_args!("user \"{}\": password mismatch", basic.user));
                self.demand(request)
            }
            None => {
                let path = self.path(request);
                let message =
                    format_args!("user \"{}\" was not found in \"{}\"", basic.user, BStr::new(&path));
                request.log_error(Level::Error, message);
                self.demand(request)
            }
        }
    }
}

/// What stands behind the user's name in the file, up to the next colon.
fn stored_password<'t>(text: &'t [u8], user: &[u8]) -> Option<&'t [u8]> {
    let line = text.split(|byte| *byte == b'\n').filter(|line| !matches!(line.first(), Some(b'#' | b'\r')));
    let mut found = line.filter_map(|line| line.strip_prefix(user)?.strip_prefix(b":"));
    found.next().map(|rest| rest.split(|byte| matches!(byte, b':' | b'\r')).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_password_file() {
        let text = b"# comment:x\nuser:one\nother:two:a comment\r\nuser:three\n:nobody\nlast:four";
        for (user, expected) in [
            ("user", Some("one")),
            ("other", Some("two")),
            ("last", Some("four")),
            ("use", None),
            ("users", None),
            ("# comment", None),
        ] {
            let found = stored_password(text, user.as_bytes());
            assert_eq!(found.map(BStr::new), expected.map(BStr::new), "{user}");
        }
    }
}
