//! `valid_referers` and `$invalid_referer` (nginx's manual, ngx_http_referer_module).

use bstr::{BStr, BString};
use conf::{Diagnostic, Node, Word};
use engine::core::{SERVER_INDEX, ServerCore};
use engine::module::{CompiledRegex, Declare, Install, Read, Variable, cells, finish_nothing};
use engine::{Build, Installer, Module, Request};
use schema::value::argument;
use schema::{Directive, Idle, Inherit, Problem};
use template::{HostNameError, HostTable, HostTableBuilder};

/// A host longer than this is no valid referer, bytes.
const HOST_BYTES_MAX: usize = 256;
/// A referer shorter than `http://i.ru` names no host, bytes.
const REFERER_BYTES_MIN: usize = 11;

#[derive(Default)]
struct Conf {
    lines: Inherit<Lines>,
}

/// What the `valid_referers` of one block say.
#[derive(Clone, Default)]
struct Lines {
    none: bool,
    blocked: bool,
    server_names: bool,
    names: Vec<Word>,
    regexes: Vec<CompiledRegex>,
}

pub static MODULE: Module = Module {
    name: "referer",
    directives: &[
        Directive {
            name: "valid_referers",
            default: "",
            set: &Declare {
                inherit: Some(|outer: &Conf, inner: &mut Conf| inner.lines.inherit_from(&outer.lines)),
                ..Declare::new(add)
            },
            doc: "Where links to this place may be.",
        },
        Directive { name: "referer_hash_max_size", default: "", set: &Idle, doc: "Tables size themselves." },
        Directive {
            name: "referer_hash_bucket_size",
            default: "",
            set: &Idle,
            doc: "Tables size themselves.",
        },
    ],
    families: &[],
    variables: &[Variable {
        name: "invalid_referer",
        read: Read::Plain(|request, out| {
            if is_invalid(request) {
                out.push(b'1');
            }
            true
        }),
        write: None,
        doc: "1 if the Referer is none of valid_referers.",
    }],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};

fn add(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let lines = conf.lines.fill(node.name.span, Lines::default);
    argument(node, 0)?;
    for word in &node.args {
        match &word.text[..] {
            b"" => return Err(Problem::new("invalid referer \"\"").on(word)),
            b"none" => lines.none = true,
            b"blocked" => lines.blocked = true,
            b"server_names" => lines.server_names = true,
            b"~" => return Err(Problem::new("empty regex in \"~\"").on(word)),
            [b'~', pattern @ ..] => {
                lines
                    .regexes
                    .push(build.regex(BStr::new(pattern), true).map_err(|problem| problem.on(word))?);
            }
            _ => lines.names.push(word.clone()),
        }
    }
    Ok(())
}

/// What is looked up while a request is served.
struct Referers {
    none: bool,
    blocked: bool,
    /// Hosts with the beginning of the path they ask for, if they do.
    hosts: HostTable<Option<BString>>,
    /// Matched against the host.
    server_names: Vec<CompiledRegex>,
    /// Matched against everything behind the scheme.
    regexes: Vec<CompiledRegex>,
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let Some(lines) = installer.conf::<Conf>().lines.value() else { return Ok(()) };
    let mut hosts = HostTableBuilder::new();
    let mut count = 0;
    for word in &lines.names {
        let slash = word.text.iter().position(|byte| *byte == b'/');
        let (host, path) = word.text.split_at(slash.unwrap_or(word.text.len()));
        let path = (!path.is_empty()).then(|| BString::from(path));
        insert(&mut hosts, host, path).map_err(|problem| problem.on(word))?;
        count += 1;
    }
    let mut server_names = Vec::new();
    if lines.server_names
        && let Some(core) = installer.cells.module::<ServerCore>(SERVER_INDEX)
    {
        for name in core.server_name.iter() {
            match &name.regex {
                Some(regex) => server_names.push(regex.clone()),
                None => {
                    insert(&mut hosts, &name.text, None)?;
                    count += 1;
                }
            }
        }
    }
    if (lines.none || lines.blocked) && count == 0 {
        let text = "the \"none\" or \"blocked\" referers are specified in the \"valid_referers\" directive \
            without any valid referer";
        installer.build.diagnostics.push(Diagnostic::emerg("valid-referers", text));
        return Ok(());
    }
    let (none, blocked, regexes) = (lines.none, lines.blocked, lines.regexes.clone());
    installer.keep(Referers { none, blocked, hosts: hosts.build(), server_names, regexes });
    Ok(())
}

fn insert(
    hosts: &mut HostTableBuilder<Option<BString>>,
    host: &[u8],
    path: Option<BString>,
) -> Result<(), Problem> {
    hosts.insert(host, path).map_err(|error| {
        let host = BStr::new(host);
        Problem::new(match error {
            HostNameError::Invalid => format!("invalid hostname or wildcard \"{host}\""),
            HostNameError::Conflict(_) => format!("conflicting parameter \"{host}\""),
        })
    })
}

fn is_invalid(request: &mut Request) -> bool {
    let plan = request.plan;
    let Some(referers) = plan.kept::<Referers>() else { return false };
    match request.head.fields.get(b"Referer") {
        None => !referers.none,
        Some(referer) => !referers.allow(referer),
    }
}

impl Referers {
    fn allow(&self, referer: &[u8]) -> bool {
        let behind = |scheme: &[u8]| {
            let (start, rest) = referer.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then_some(rest)
        };
        let long_enough = referer.len() >= REFERER_BYTES_MIN;
        let Some(rest) = behind(b"http://").or_else(|| behind(b"https://")).filter(|_| long_enough) else {
            return self.blocked;
        };
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b':')).unwrap_or(rest.len());
        if end > HOST_BYTES_MAX {
            return false;
        }
        let host = rest[..end].to_ascii_lowercase();
        match self.hosts.find_name(&host) {
            Some(None) => return true,
            Some(Some(wanted)) => {
                let path =
                    rest.iter().position(|byte| *byte == b'/').map_or(&b""[..], |slash| &rest[slash..]);
                return path.starts_with(wanted);
            }
            None => {}
        }
        self.server_names.iter().any(|name| name.regex.is_match(&host))
            || self.regexes.iter().any(|name| name.regex.is_match(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_paths() {
        let mut hosts = HostTableBuilder::new();
        for (host, path) in
            [("example.org", None), ("*.example.org", None), ("www.example.*", Some("/galleries/"))]
        {
            insert(&mut hosts, host.as_bytes(), path.map(BString::from)).expect(host);
        }
        let referers = Referers {
            none: true,
            blocked: true,
            hosts: hosts.build(),
            server_names: Vec::new(),
            regexes: Vec::new(),
        };
        for (referer, expected) in [
            ("http://example.org/x", true),
            ("HTTPS://EXAMPLE.ORG:8080/", true),
            ("http://example.org", true),
            ("http://a.example.org/", true),
            ("http://www.example.com/galleries/1", true),
            ("http://www.example.com/other", false),
            ("http://www.example.com", false),
            ("http://evil.example/", false),
            ("XXXXXXXX", true),
            ("http://a", true),
            ("ftp://example.org/", true),
        ] {
            assert_eq!(referers.allow(referer.as_bytes()), expected, "{referer}");
        }
    }
}
