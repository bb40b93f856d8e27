//! Rewriting of response headers: `proxy_redirect`, `proxy_cookie_domain`, `_path`, `_flags`.

use bstr::{BString, ByteSlice};
use conf::{Node, Word};
use engine::Request;
use engine::module::{Build, CompiledRegex};
use schema::Problem;
use schema::value::argument;
use template::Template;

/// What is replaced by what.
#[derive(Clone)]
pub struct Rewrite {
    pattern: Pattern,
    replacement: Template,
}

#[derive(Clone)]
enum Pattern {
    /// A prefix.
    Text(Template),
    /// A regular expression.
    Regex(CompiledRegex),
}

impl Rewrite {
    /// Reads pattern and replacement; a pattern that starts with `~` is a regular expression.
    ///
    /// # Errors
    /// As nginx.
    pub fn parse(pattern: &Word, replacement: &Word, build: &mut Build) -> Result<Rewrite, Problem> {
        let text = &pattern.text;
        let pattern = if let Some(regex) = text.strip_prefix(b"~*") {
            Pattern::Regex(build.regex(regex.as_bstr(), true).map_err(|problem| problem.on(pattern))?)
        } else if let Some(regex) = text.strip_prefix(b"~") {
            Pattern::Regex(build.regex(regex.as_bstr(), false).map_err(|problem| problem.on(pattern))?)
        } else {
            Pattern::Text(build.template(text.as_ref()).map_err(|problem| problem.on(pattern))?)
        };
        let replacement =
            build.template(replacement.text.as_ref()).map_err(|problem| problem.on(replacement))?;
        Ok(Rewrite { pattern, replacement })
    }

    /// As [`Rewrite::parse`], for domains: without regard to case, and without the dot they may begin with.
    ///
    /// # Errors
    /// As nginx.
    pub fn parse_domain(pattern: &Word, replacement: &Word, build: &mut Build) -> Result<Rewrite, Problem> {
        let bare = |text: &BString| BString::from(text.strip_prefix(b".").unwrap_or(text));
        let (pattern, to) = match pattern.text.strip_prefix(b"~") {
            Some(regex) => {
                let regex = build.regex(regex.as_bstr(), true).map_err(|problem| problem.on(pattern))?;
                (Pattern::Regex(regex), replacement.text.clone())
            }
            None => {
                let text = bare(&pattern.text);
                let domain = build.template(text.as_ref()).map_err(|problem| problem.on(pattern))?;
                (Pattern::Text(domain), bare(&replacement.text))
            }
        };
        let replacement = build.template(to.as_ref()).map_err(|problem| problem.on(replacement))?;
        Ok(Rewrite { pattern, replacement })
    }

    /// A plain prefix and what stands for it.
    pub fn prefix(from: &[u8], to: &[u8]) -> Rewrite {
        Rewrite { pattern: Pattern::Text(Template::constant(from)), replacement: Template::constant(to) }
    }

    /// The value with its prefix (or its match) replaced; none when it does not match.
    pub fn apply_to_prefix(&self, request: &mut Request, value: &[u8]) -> Option<Vec<u8>> {
        match &self.pattern {
            Pattern::Text(prefix) => {
                let prefix = request.render(prefix);
                let rest = value.strip_prefix(&prefix[..])?;
                let mut out = request.render(&self.replacement);
                out.extend_from_slice(rest);
                Some(out)
            }
            Pattern::Regex(regex) => self.apply_regex(request, regex, value),
        }
    }

    /// As [`Rewrite::apply_to_prefix`], for a domain: equal without regard to case, and its leading dot stays.
    fn apply_to_domain(&self, request: &mut Request, value: &[u8]) -> Option<Vec<u8>> {
        match &self.pattern {
            Pattern::Text(domain) => {
                let domain = request.render(domain);
                let (dot, bare) = value.split_at(usize::from(value.starts_with(b".")));
                if !domain.eq_ignore_ascii_case(bare) {
                    return None;
                }
                let mut out = dot.to_vec();
                request.render_into(&self.replacement, &mut out);
                Some(out)
            }
            Pattern::Regex(regex) => self.apply_regex(request, regex, value),
        }
    }

    fn apply_regex(&self, request: &mut Request, regex: &CompiledRegex, value: &[u8]) -> Option<Vec<u8>> {
        request.matches(regex, value).then(|| request.render(&self.replacement))
    }
}

/// How a line's two arguments are read.
type Reader = fn(&Word, &Word, &mut Build) -> Result<Rewrite, Problem>;

/// One line of `proxy_cookie_domain` or `_path`; none is `off`.
pub fn cookie_line(node: &Node, build: &mut Build, read: Reader) -> Result<Option<Rewrite>, Problem> {
    let word = argument(node, 0)?;
    match node.args.get(1) {
        None if word.text == "off" => Ok(None),
        None => Err(Problem::new(format!("invalid parameter \"{}\"", word.text)).on(word)),
        Some(to) => read(word, to, build).map(Some),
    }
}

/// One line of `proxy_cookie_flags cookie flag...`.
#[derive(Clone)]
pub struct CookieFlags {
    /// Which cookies; none is `off`.
    cookie: Option<Pattern>,
    /// The flags; words that are none are passed over when they are used, as variables may hold anything.
    flags: Vec<Template>,
}

impl CookieFlags {
    /// Reads one line.
    ///
    /// # Errors
    /// As nginx.
    pub fn parse(node: &Node, build: &mut Build) -> Result<CookieFlags, Problem> {
        let word = argument(node, 0)?;
        if node.args.len() == 1 {
            if word.text == "off" {
                return Ok(CookieFlags { cookie: None, flags: Vec::new() });
            }
            return Err(Problem::new(format!("invalid parameter \"{}\"", word.text)).on(word));
        }
        let cookie = match word.text.strip_prefix(b"~") {
            Some(regex) => {
                Pattern::Regex(build.regex(regex.as_bstr(), true).map_err(|problem| problem.on(word))?)
            }
            None => Pattern::Text(build.template(word.text.as_ref()).map_err(|problem| problem.on(word))?),
        };
        let flags =
            node.args[1..].iter().map(|word| build.template(word.text.as_ref()).map_err(|p| p.on(word)));
        Ok(CookieFlags { cookie: Some(cookie), flags: flags.collect::<Result<_, _>>()? })
    }

    fn applies(&self, request: &mut Request, name: &[u8]) -> bool {
        match &self.cookie {
            None => false,
            Some(Pattern::Text(cookie)) => request.render(cookie).eq_ignore_ascii_case(name),
            Some(Pattern::Regex(regex)) => request.matches(regex, name),
        }
    }
}

/// An attribute of a cookie, the first being the cookie itself.
struct Attribute {
    name: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Attribute {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

fn attributes(value: &[u8]) -> Vec<Attribute> {
    let spaces = |text: &[u8]| text.trim_with(|byte| byte == ' ').to_vec();
    let parts = value.split(|byte| *byte == b';').map(|part| match part.split_once_str("=") {
        Some((name, value)) => Attribute { name: spaces(name), value: Some(spaces(value)) },
        None => Attribute { name: spaces(part), value: None },
    });
    parts.collect()
}

/// A `Set-Cookie` value after all three directives; none when nothing was to be changed.
pub fn cookie(
    request: &mut Request,
    value: &[u8],
    domains: &[Option<Rewrite>],
    paths: &[Option<Rewrite>],
    flags: &[CookieFlags],
) -> Option<Vec<u8>> {
    let mut parts = attributes(value);
    parts.first()?.value.as_ref()?;
    let mut changed = false;
    for part in parts.iter_mut().skip(1) {
        let Some(text) = part.value.clone() else { continue };
        let replaced = if part.is("domain") {
            domains.iter().flatten().find_map(|rewrite| rewrite.apply_to_domain(request, &text))
        } else if part.is("path") {
            paths.iter().flatten().find_map(|rewrite| rewrite.apply_to_prefix(request, &text))
        } else {
            None
        };
        if replaced.is_some() {
            part.value = replaced;
            changed = true;
        }
    }
    let name = parts.first().map(|part| part.name.clone()).unwrap_or_default();
    if let Some(line) = flags.iter().find(|line| line.applies(request, &name)) {
        for flag in &line.flags {
            let word = request.render(flag).to_ascii_lowercase();
            changed |= set_flag(&mut parts, &word);
        }
    }
    changed.then(|| joined(&parts))
}

/// Adds, changes or removes one flag; false for a word that is none.
fn set_flag(parts: &mut Vec<Attribute>, word: &[u8]) -> bool {
    let (name, value, on): (&str, Option<&str>, bool) = match word {
        b"secure" => ("Secure", None, true),
        b"nosecure" => ("Secure", None, false),
        b"httponly" => ("HttpOnly", None, true),
        b"nohttponly" => ("HttpOnly", None, false),
        b"samesite=strict" => ("SameSite", Some("Strict"), true),
        b"samesite=lax" => ("SameSite", Some("Lax"), true),
        b"samesite=none" => ("SameSite", Some("None"), true),
        b"nosamesite" => ("SameSite", None, false),
        _ => return false,
    };
    let at = parts.iter().skip(1).position(|part| part.is(name)).map(|at| at + 1);
    let value = value.map(|value| value.as_bytes().to_vec());
    match (at.and_then(|at| parts.get_mut(at)), on) {
        (None, true) => parts.push(Attribute { name: name.as_bytes().to_vec(), value }),
        (None, false) => {}
        (Some(part), true) => {
            let same = value.as_deref().is_none_or(|value| {
                part.value.as_deref().is_some_and(|known| known.eq_ignore_ascii_case(value))
            });
            if !same {
                *part = Attribute { name: name.as_bytes().to_vec(), value };
            }
        }
        (Some(_), false) => {
            let mut first = true;
            parts.retain(|part| std::mem::take(&mut first) || !part.is(name));
        }
    }
    true
}

fn joined(parts: &[Attribute]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(&part.name);
        if let Some(value) = &part.value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
    out
}
