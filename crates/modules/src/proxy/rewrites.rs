//! Rewriting of response headers: `proxy_redirect`, `proxy_cookie_domain`, `_path`, `_flags`.

use bstr::{BStr, BString, ByteSlice};
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

    /// As [`Rewrite::apply_to_prefix`], for a value that must be equal without regard to case (domains).
    fn apply_to_whole(&self, request: &mut Request, value: &[u8]) -> Option<Vec<u8>> {
        match &self.pattern {
            Pattern::Text(domain) => {
                let domain = request.render(domain);
                let bare = domain.strip_prefix(b".").unwrap_or(&domain);
                bare.eq_ignore_ascii_case(value).then(|| request.render(&self.replacement))
            }
            Pattern::Regex(regex) => self.apply_regex(request, regex, value),
        }
    }

    fn apply_regex(&self, request: &mut Request, regex: &CompiledRegex, value: &[u8]) -> Option<Vec<u8>> {
        request.matches(regex, value).then(|| request.render(&self.replacement))
    }
}

/// One line of `proxy_cookie_domain` or `_path`; none is `off`.
pub fn cookie_line(node: &Node, build: &mut Build) -> Result<Option<Rewrite>, Problem> {
    let word = argument(node, 0)?;
    match node.args.get(1) {
        None if word.text == "off" => Ok(None),
        None => Err(Problem::new(format!("invalid parameter \"{}\"", word.text)).on(word)),
        Some(to) => Rewrite::parse(word, to, build).map(Some),
    }
}

/// One line of `proxy_cookie_flags cookie flag...`.
#[derive(Clone)]
pub struct CookieFlags {
    /// Which cookies; none is `off`.
    cookie: Option<Pattern>,
    /// Flags as they are to be, by name: added, changed or taken away.
    flags: Vec<Flag>,
}

#[derive(Clone)]
enum Flag {
    Fixed(&'static str, bool),
    Variable(Template),
}

/// Flags by their words: the attribute's text, and whether it is set.
const FLAGS: [(&str, (&str, bool)); 9] = [
    ("secure", ("Secure", true)),
    ("nosecure", ("Secure", false)),
    ("httponly", ("HttpOnly", true)),
    ("nohttponly", ("HttpOnly", false)),
    ("samesite=strict", ("SameSite=Strict", true)),
    ("samesite=lax", ("SameSite=Lax", true)),
    ("samesite=none", ("SameSite=None", true)),
    ("nosamesite", ("SameSite", false)),
    ("", ("", false)),
];

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
        let mut flags = Vec::new();
        for word in &node.args[1..] {
            if word.text.contains(&b'$') {
                flags.push(Flag::Variable(
                    build.template(word.text.as_ref()).map_err(|problem| problem.on(word))?,
                ));
                continue;
            }
            flags.extend(flag(word.text.as_ref()).map_err(|problem| problem.on(word))?);
        }
        Ok(CookieFlags { cookie: Some(cookie), flags })
    }

    fn applies(&self, request: &mut Request, name: &[u8]) -> bool {
        match &self.cookie {
            None => false,
            Some(Pattern::Text(cookie)) => request.render(cookie).eq_ignore_ascii_case(name),
            Some(Pattern::Regex(regex)) => request.matches(regex, name),
        }
    }
}

fn flag(text: &BStr) -> Result<Option<Flag>, Problem> {
    let known = FLAGS.iter().find(|(word, _)| word.as_bytes().eq_ignore_ascii_case(text));
    match known {
        Some(("", _)) => Ok(None),
        Some((_, (attribute, on))) => Ok(Some(Flag::Fixed(attribute, *on))),
        None => Err(Problem::new(format!("invalid parameter \"{text}\""))),
    }
}

/// A `Set-Cookie` value after all three directives.
pub fn cookie(
    request: &mut Request,
    value: &[u8],
    domains: &[Option<Rewrite>],
    paths: &[Option<Rewrite>],
    flags: &[CookieFlags],
) -> Vec<u8> {
    let mut parts: Vec<BString> = value.split(|byte| *byte == b';').map(|part| part.trim().into()).collect();
    for part in parts.iter_mut().skip(1) {
        let Some((name, text)) = part.split_once_str("=") else { continue };
        let replaced = if name.eq_ignore_ascii_case(b"domain") {
            let bare = text.strip_prefix(b".").unwrap_or(text).to_vec();
            domains.iter().flatten().find_map(|rewrite| rewrite.apply_to_whole(request, &bare))
        } else if name.eq_ignore_ascii_case(b"path") {
            let text = text.to_vec();
            paths.iter().flatten().find_map(|rewrite| rewrite.apply_to_prefix(request, &text))
        } else {
            None
        };
        if let Some(replaced) = replaced {
            let mut made = BString::from(name);
            made.push(b'=');
            made.extend_from_slice(&replaced);
            *part = made;
        }
    }
    let name = parts.first().and_then(|part| part.split_str("=").next()).unwrap_or_default().to_vec();
    if let Some(line) = flags.iter().find(|line| line.applies(request, &name)) {
        set_flags(request, &mut parts, &line.flags);
    }
    bstr::join("; ", parts)
}

fn set_flags(request: &mut Request, parts: &mut Vec<BString>, flags: &[Flag]) {
    for wanted in flags {
        let (attribute, on) = match wanted {
            Flag::Fixed(attribute, on) => (*attribute, *on),
            Flag::Variable(template) => match flag(request.render(template).as_bstr()) {
                Ok(Some(Flag::Fixed(attribute, on))) => (attribute, on),
                _ => continue,
            },
        };
        let bare = attribute.split('=').next().unwrap_or(attribute).as_bytes();
        let is_it =
            |part: &BString| part.split_str("=").next().is_some_and(|name| name.eq_ignore_ascii_case(bare));
        let at = parts.iter().skip(1).position(is_it).map(|at| at + 1);
        match (at, on) {
            (Some(at), true) => parts[at] = attribute.into(),
            (Some(at), false) => drop(parts.remove(at)),
            (None, true) => parts.push(attribute.into()),
            (None, false) => {}
        }
    }
}
