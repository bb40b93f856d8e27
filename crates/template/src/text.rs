//! A string of the configuration that may hold `$variables`: parsed once at load, rendered for every request.

use std::fmt;

use bstr::{BStr, BString, ByteSlice};

/// The number the engine's registry gave to a variable's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VariableId(pub u32);

/// No variable has that name. nginx finds this out only when the whole file is read, so a registry that wants
/// nginx's order of messages hands out a number for every name and complains at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownVariable;

/// Where names become numbers: the engine's registry of variables.
pub trait Names {
    /// The number of the variable called `name`, without the dollar sign, as written (nginx lower-cases it itself).
    fn variable(&mut self, name: &[u8]) -> Result<VariableId, UnknownVariable>;
}

/// Where numbers become text: a request.
pub trait Scope {
    /// Appends the value of variable `id` to `out`; false, and nothing appended, where it has none.
    fn variable(&mut self, id: VariableId, out: &mut Vec<u8>) -> bool;
    /// Appends what group `group` (1 to 9) of the regular expression matched last; nothing where it took no part.
    fn capture(&mut self, group: u8, out: &mut Vec<u8>);
}

/// Why a string is no template. The text is nginx's, without the place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// A dollar sign that no name follows.
    InvalidVariableName,
    /// `${name` without its closing bracket, or with a byte in it that no name may hold.
    MissingBracket(BString),
    /// The registry knows no such name.
    UnknownVariable(BString),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TemplateError::InvalidVariableName => out.write_str("invalid variable name"),
            TemplateError::MissingBracket(name) => {
                write!(out, "the closing bracket in \"{name}\" variable is missing")
            }
            TemplateError::UnknownVariable(name) => write!(out, "unknown \"{name}\" variable"),
        }
    }
}

impl std::error::Error for TemplateError {}

/// One piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Bytes that stand for themselves.
    Text(BString),
    /// `$name` or `${name}`.
    Variable(VariableId),
    /// `$1` to `$9`.
    Capture(u8),
}

/// A compiled string. `Text` parts are never empty and never neighbours, so an empty string has no part at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    parts: Parts,
}

/// Most templates have one part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Parts {
    #[default]
    None,
    One(Part),
    Several(Box<[Part]>),
}

impl Template {
    /// Compiles `text` by the grammar of nginx's script strings: `$name`, `${name}`, `$1` to `$9`. A digit ends
    /// `$1` at once (`$10` is the first group and a zero), whereas `${1}` asks for a variable called "1".
    pub fn compile(text: &BStr, names: &mut dyn Names) -> Result<Template, TemplateError> {
        if memchr::memchr(b'$', text).is_none() {
            return Ok(Template::constant(text));
        }
        let mut parts = Vec::new();
        let mut rest: &[u8] = text.as_bytes();
        while !rest.is_empty() {
            let Some(dollar) = memchr::memchr(b'$', rest) else {
                parts.push(Part::Text(rest.into()));
                break;
            };
            if dollar > 0 {
                parts.push(Part::Text(rest[..dollar].into()));
            }
            let (part, length) = reference(&rest[dollar + 1..], names)?;
            parts.push(part);
            rest = &rest[dollar + 1 + length..];
        }
        Ok(Template::of(parts))
    }

    /// A template that is `text`, dollar signs and all.
    pub fn constant(text: &[u8]) -> Template {
        let parts = if text.is_empty() { Parts::None } else { Parts::One(Part::Text(text.into())) };
        Template { parts }
    }

    fn of(mut parts: Vec<Part>) -> Template {
        let parts = match parts.len() {
            0 => Parts::None,
            1 => parts.pop().map_or(Parts::None, Parts::One),
            _ => Parts::Several(parts.into()),
        };
        Template { parts }
    }

    /// The whole value, where it depends on nothing.
    pub fn is_constant(&self) -> Option<&[u8]> {
        match &self.parts {
            Parts::None => Some(b""),
            Parts::One(Part::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The pieces, in order.
    pub fn parts(&self) -> &[Part] {
        match &self.parts {
            Parts::None => &[],
            Parts::One(part) => std::slice::from_ref(part),
            Parts::Several(parts) => parts,
        }
    }

    /// The variables asked for, in order, repetitions included.
    pub fn variables(&self) -> impl Iterator<Item = VariableId> + '_ {
        self.parts().iter().filter_map(|part| if let Part::Variable(id) = part { Some(*id) } else { None })
    }

    /// Whether `$1` to `$9` occur.
    pub fn has_captures(&self) -> bool {
        self.parts().iter().any(|part| matches!(part, Part::Capture(_)))
    }

    /// Appends the value to `out`.
    pub fn render<S: Scope + ?Sized>(&self, scope: &mut S, out: &mut Vec<u8>) {
        for part in self.parts() {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                // A variable without a value is the empty string here, as everywhere in nginx.
                Part::Variable(id) => _ = scope.variable(*id, out),
                Part::Capture(group) => scope.capture(*group, out),
            }
        }
    }

    /// The value, borrowed where it is constant; otherwise `scratch` is emptied and rendered into.
    pub fn value<'a, S: Scope + ?Sized>(&'a self, scope: &mut S, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        match self.is_constant() {
            Some(text) => text,
            None => {
                scratch.clear();
                self.render(scope, scratch);
                scratch
            }
        }
    }
}

/// Reads what follows a dollar sign: the part, and how many bytes it took.
fn reference(after: &[u8], names: &mut dyn Names) -> Result<(Part, usize), TemplateError> {
    let first = *after.first().ok_or(TemplateError::InvalidVariableName)?;
    if (b'1'..=b'9').contains(&first) {
        return Ok((Part::Capture(first - b'0'), 1));
    }
    let opening = usize::from(first == b'{');
    let body = &after[opening..];
    let length = body.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    let name = &body[..length];
    if opening == 1 {
        match body.get(length) {
            // nginx gives "${" at the very end the other message.
            None if length == 0 => return Err(TemplateError::InvalidVariableName),
            Some(b'}') => {}
            _ => return Err(TemplateError::MissingBracket(name.into())),
        }
    }
    if name.is_empty() {
        return Err(TemplateError::InvalidVariableName);
    }
    let id = names.variable(name).map_err(|UnknownVariable| TemplateError::UnknownVariable(name.into()))?;
    Ok((Part::Variable(id), length + 2 * opening))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers names in the order they are first seen; "unknown" is unknown.
    #[derive(Default)]
    struct Registry(Vec<BString>);

    impl Names for Registry {
        fn variable(&mut self, name: &[u8]) -> Result<VariableId, UnknownVariable> {
            if name == b"unknown" {
                return Err(UnknownVariable);
            }
            let at = self.0.iter().position(|known| known == name).unwrap_or_else(|| {
                self.0.push(name.into());
                self.0.len() - 1
            });
            Ok(VariableId(at as u32))
        }
    }

    /// Every variable is `<name>`, every group `<n>`; "absent" has no value.
    impl Scope for Registry {
        fn variable(&mut self, id: VariableId, out: &mut Vec<u8>) -> bool {
            let name = &self.0[id.0 as usize];
            if name == "absent" {
                return false;
            }
            out.push(b'<');
            out.extend_from_slice(name);
            out.push(b'>');
            true
        }

        fn capture(&mut self, group: u8, out: &mut Vec<u8>) {
            out.extend_from_slice(format!("<{group}>").as_bytes());
        }
    }

    fn check(text: &str, expected: &str) {
        let mut registry = Registry::default();
        let got = match Template::compile(text.into(), &mut registry) {
            Ok(template) => {
                let mut out = Vec::new();
                template.render(&mut registry, &mut out);
                let mut scratch = b"left over".to_vec();
                assert_eq!(template.value(&mut registry, &mut scratch), out, "{text}");
                assert_eq!(template.is_constant().is_some(), !text.contains('$'), "{text}");
                String::from_utf8(out).unwrap()
            }
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn strings_render_as_nginx_renders_them() {
        check("", "");
        check("plain", "plain");
        check("$host", "<host>");
        check("a$host.b", "a<host>.b");
        check("${host}name$host", "<host>name<host>");
        check("$a$b${c}", "<a><b><c>");
        check("$1$2", "<1><2>");
        check("$10", "<1>0");
        check("/x$9/y", "/x<9>/y");
        check("${1}", "<1>");
        check("$0", "<0>");
        check("$arg_a-b", "<arg_a>-b");
        check("a?b=$c&$1", "a?b=<c>&<1>");
        check("[$absent]", "[]");
        check("x}$a}", "x}<a>}");
    }

    #[test]
    fn what_is_no_template_gets_nginx_words() {
        check("$", "error: invalid variable name");
        check("a$", "error: invalid variable name");
        check("$$a", "error: invalid variable name");
        check("$-", "error: invalid variable name");
        check("${", "error: invalid variable name");
        check("${}", "error: invalid variable name");
        check("${a", "error: the closing bracket in \"a\" variable is missing");
        check("${a-b}", "error: the closing bracket in \"a\" variable is missing");
        check("${-", "error: the closing bracket in \"\" variable is missing");
        check("$unknown", "error: unknown \"unknown\" variable");
    }

    #[test]
    fn a_constant_keeps_its_dollar_signs() {
        let template = Template::constant(b"$a${");
        assert_eq!(template.is_constant(), Some(&b"$a${"[..]));
        assert!(!template.has_captures());
        assert_eq!(template.variables().count(), 0);
    }

    proptest! {
        #[test]
        fn any_text_compiles_or_is_refused(text in "[a$1{}_?\\-]{0,12}") {
            let mut registry = Registry::default();
            if let Ok(template) = Template::compile(text.as_str().into(), &mut registry) {
                // Nothing but references is changed by compiling.
                let literal = template.parts().iter().map(|part| match part {
                    Part::Text(text) => text.to_string(),
                    Part::Variable(_) | Part::Capture(_) => "$".into(),
                });
                prop_assert_eq!(literal.collect::<String>().matches('$').count(), text.matches('$').count());
            }
        }
    }
}
