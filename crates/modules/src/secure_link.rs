//! `secure_link`: links with a checksum and an end (nginx's manual, ngx_http_secure_link_module).

use bstr::BString;
use conf::Diagnostic;
use engine::module::{Install, Read, Variable, cells, finish_nothing};
use engine::{Installer, Module, Request};
use http::authorization::{Base64, decode_base64};
use md5::{Digest, Md5};
use schema::value::number;
use schema::{Directive, Inherit, Problem, field};
use template::Template;

/// No checksum is longer in base64, bytes.
const SUM_TEXT_BYTES_MAX: usize = 24;
/// A checksum in hexadecimal, bytes.
const HEX_BYTES: usize = 32;

#[derive(Default)]
struct Conf {
    link: Inherit<Option<Template>>,
    md5: Inherit<Option<Template>>,
    secret: Inherit<BString>,
}

pub static MODULE: Module = Module {
    name: "secure_link",
    directives: &[
        Directive {
            name: "secure_link",
            default: "",
            set: field!(Conf.link),
            doc: "Where the checksum and the end of a link are.",
        },
        Directive {
            name: "secure_link_md5",
            default: "",
            set: field!(Conf.md5),
            doc: "What the checksum is of.",
        },
        Directive {
            name: "secure_link_secret",
            default: "",
            set: field!(Conf.secret),
            doc: "The secret of links of the form /prefix/checksum/link.",
        },
    ],
    families: &[],
    variables: &[
        Variable {
            name: "secure_link",
            read: Read::Plain(secure_link),
            write: None,
            doc: "1 for a link that holds, 0 for one whose time is over, nothing for a wrong one.",
        },
        Variable {
            name: "secure_link_expires",
            read: Read::Plain(|request, out| {
                let expires = request.note::<Expires>().0.clone();
                out.extend_from_slice(expires.as_deref().unwrap_or_default());
                expires.is_some()
            }),
            write: None,
            doc: "When the link ends, seconds since 1970.",
        },
    ],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};

/// The end of a link as it stands there, once `$secure_link` was asked for.
#[derive(Default)]
struct Expires(Option<Vec<u8>>);

/// How links are made in a location.
enum Links {
    /// Checksum and end are in the first, the checksum is of the second.
    Checksum(Template, Template),
    Secret(BString),
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let conf = installer.conf::<Conf>();
    let new = conf.link.is_some() || conf.md5.is_some();
    let own_secret = !conf.secret.is_empty() && is_own(installer, &conf.secret);
    if own_secret && (is_own(installer, &conf.link) || is_own(installer, &conf.md5)) {
        let text = "\"secure_link_secret\" cannot be mixed with \"secure_link\" and \"secure_link_md5\"";
        installer.build.diagnostics.push(Diagnostic::emerg("secure-link", text));
        return Ok(());
    }
    if !conf.secret.is_empty() && (own_secret || !new) {
        installer.keep(Links::Secret((*conf.secret).clone()));
    } else if let (Some(link), Some(md5)) = (&*conf.link, &*conf.md5) {
        installer.keep(Links::Checksum(link.clone(), md5.clone()));
    }
    Ok(())
}

/// Was it written in this very block?
fn is_own<T>(installer: &Installer, cell: &Inherit<T>) -> bool {
    let (open, close) = (installer.cells.open, installer.cells.close);
    cell.span.is_some_and(|span| span.file != open.file || span.start >= open.start && span.end <= close.end)
}

fn secure_link(request: &mut Request, out: &mut Vec<u8>) -> bool {
    let plan = request.plan;
    let (link, md5) = match plan.kept::<Links>() {
        None => return false,
        Some(Links::Secret(secret)) => {
            let found = link_of_secret(request.head.target(), secret);
            out.extend_from_slice(found.unwrap_or_default());
            return found.is_some();
        }
        Some(Links::Checksum(link, md5)) => (link, md5),
    };
    let value = request.render(link);
    let (sum, expires) = match value.iter().position(|byte| *byte == b',') {
        None => (&value[..], None),
        Some(comma) => (&value[..comma], Some(&value[comma + 1..])),
    };
    let mut end = None;
    if let Some(text) = expires {
        end = number(text).filter(|seconds| *seconds > 0);
        if end.is_none() {
            return false;
        }
        request.note::<Expires>().0 = Some(text.to_vec());
    }
    let decoded = decode_base64(sum, Base64::Url).filter(|_| sum.len() <= SUM_TEXT_BYTES_MAX);
    let is_right = decoded.is_some_and(|decoded| equal(&decoded, &Md5::digest(request.render(md5))));
    if is_right {
        let is_over = end.is_some_and(|end| (end as i64) < net::clock::wall().seconds);
        out.push(if is_over { b'0' } else { b'1' });
    }
    is_right
}

/// The link behind the checksum of `/prefix/checksum/link`.
fn link_of_secret<'t>(target: &'t [u8], secret: &[u8]) -> Option<&'t [u8]> {
    let mut parts = target.get(1..)?.splitn(3, |byte| *byte == b'/').skip(1);
    let (sum, link) = (parts.next()?, parts.next().filter(|link| !link.is_empty())?);
    if sum.len() != HEX_BYTES {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let bytes = sum
        .chunks(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect::<Option<Vec<u8>>>()?;
    let right = Md5::new().chain_update(link).chain_update(secret).finalize();
    equal(&bytes, &right).then_some(link)
}

/// Compares in a time that does not tell where the first difference is.
fn equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use bstr::BStr;

    #[test]
    fn links_of_a_secret() {
        // echo -n 'top_secret_file.htmlsecret' | md5sum
        let sum = "3c26d087a2f3969ec0b263ece5cfdf3c";
        for (target, expected) in [
            (format!("/p/{sum}/top_secret_file.html"), Some("top_secret_file.html")),
            (format!("/p/{}/top_secret_file.html", sum.to_uppercase()), Some("top_secret_file.html")),
            (format!("/p/{sum}/other.html"), None),
            (format!("/p/{sum}/"), None),
            (format!("/p/{sum}"), None),
            (format!("/p/x{}/top_secret_file.html", &sum[1..]), None),
            ("/p/short/top_secret_file.html".to_owned(), None),
            ("/".to_owned(), None),
            (String::new(), None),
        ] {
            let found = link_of_secret(target.as_bytes(), b"secret");
            assert_eq!(found.map(BStr::new), expected.map(BStr::new), "{target}");
        }
    }
}
