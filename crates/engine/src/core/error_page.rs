//! The `error_page` directive.

use crate::module::Build;
use bstr::ByteSlice;
use conf::Node;
use schema::Problem;
use schema::value::number;
use template::Template;

/// One status of one `error_page` line.
#[derive(Clone)]
pub struct ErrorPage {
    /// The status it is for.
    pub status: u16,
    /// The status to answer with.
    pub overwrite: Overwrite,
    /// A URI of this server, a URL elsewhere, or `@name`.
    pub uri: Template,
    /// What followed a `?` in a constant URI.
    pub args: Vec<u8>,
}

/// What becomes of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// It stays (`error_page 404 /x`).
    Keep,
    /// The page's own (`error_page 404 = /x`).
    Page,
    /// This one (`error_page 404 =200 /x`).
    Status(u16),
}

/// Reads one line, `error_page CODE... [=[CODE]] URI`.
///
/// # Errors
/// As nginx.
pub fn parse(node: &Node, build: &mut Build) -> Result<Vec<ErrorPage>, Problem> {
    let invalid = |word: &conf::Word| Problem::new(format!("invalid value \"{}\"", word.text)).on(word);
    let Some((uri, rest)) = node.args.split_last() else { return Ok(Vec::new()) };
    let Some((last, before)) = rest.split_last() else { return Ok(Vec::new()) };
    let (overwrite, codes) = match last.text.strip_prefix(b"=") {
        None => (Overwrite::Keep, rest),
        Some(_) if before.is_empty() => return Err(invalid(last)),
        Some(b"") => (Overwrite::Page, before),
        Some(code) => {
            let code = number(code).and_then(|n| u16::try_from(n).ok()).ok_or_else(|| invalid(last))?;
            (if code == 0 { Overwrite::Page } else { Overwrite::Status(code) }, before)
        }
    };
    let constant = uri.text.starts_with(b"/") && !uri.text.contains(&b'$');
    let (path, args) = match uri.text.split_once_str("?") {
        Some((path, args)) if constant => (path, args),
        _ => (&uri.text[..], &b""[..]),
    };
    let template = build.template(path.as_bstr()).map_err(|problem| problem.on(uri))?;
    let mut pages = Vec::with_capacity(codes.len());
    for word in codes {
        let code = number(&word.text).filter(|n| *n != 499).ok_or_else(|| invalid(word))?;
        if !(300..=599).contains(&code) {
            return Err(Problem::new(format!("value \"{}\" must be between 300 and 599", word.text)).on(word));
        }
        let overwrite = match (overwrite, code) {
            (Overwrite::Keep, 494..=497) => Overwrite::Status(400),
            (overwrite, _) => overwrite,
        };
        pages.push(ErrorPage { status: code as u16, overwrite, uri: template.clone(), args: args.to_vec() });
    }
    Ok(pages)
}
