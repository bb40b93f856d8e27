//! The directives of the rewrite module, read into rules.

use super::{Condition, Conf, FileTest, Return, Rewrite, Rule, Set, Then, Uninitialized};
use bstr::ByteSlice;
use conf::{Node, Word};
use engine::Build;
use http::Status;
use schema::Problem;
use schema::value::argument;
use std::sync::Arc;
use template::{Names, VariableId};

/// Reads `rewrite`.
///
/// # Errors
/// As nginx.
pub fn rewrite(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let (pattern, replacement) = (argument(node, 0)?, argument(node, 1)?);
    if replacement.text.is_empty() {
        return Err(Problem::new("empty replacement").on(replacement));
    }
    let regex = build.regex(pattern.text.as_ref(), false).map_err(|problem| problem.on(pattern))?;
    let (text, add_args) = match replacement.text.strip_suffix(b"?") {
        Some(text) => (text, false),
        None => (&replacement.text[..], true),
    };
    let redirect = |status| Then::Redirect { status, has_args: text.contains(&b'?') };
    let mut then = match is_absolute(text) {
        true => redirect(Status::MOVED_TEMPORARILY),
        false => Then::GoOn,
    };
    if let Some(flag) = node.args.get(2) {
        // "last" and "break" change nothing about a redirect that the replacement asks for by itself.
        then = match (&flag.text[..], then) {
            (b"redirect", _) => redirect(Status::MOVED_TEMPORARILY),
            (b"permanent", _) => redirect(Status::MOVED_PERMANENTLY),
            (b"last" | b"break", Then::Redirect { .. }) => then,
            (b"last", _) => Then::Last,
            (b"break", _) => Then::Break,
            _ => return Err(Problem::new(format!("invalid parameter \"{}\"", flag.text)).on(flag)),
        };
    }
    let (path, args) = match (then, memchr::memchr(b'?', text)) {
        (Then::Redirect { .. }, _) | (_, None) => (text, None),
        (_, Some(mark)) => (&text[..mark], Some(&text[mark + 1..])),
    };
    let mut compile = |text: &[u8]| build.template(text.as_bstr()).map_err(|problem| problem.on(replacement));
    let path = compile(path)?;
    let args = args.map(compile).transpose()?;
    conf.rules.push(Rule::Rewrite(Arc::new(Rewrite { regex, path, args, add_args, then })));
    Ok(())
}

fn is_absolute(text: &[u8]) -> bool {
    [&b"http://"[..], b"https://", b"$scheme"].iter().any(|start| text.starts_with(start))
}

/// Reads `return`.
///
/// # Errors
/// As nginx.
pub fn answer(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let word = argument(node, 0)?;
    let invalid = || Problem::new(format!("invalid return code \"{}\"", word.text)).on(word);
    let (status, text) = match schema::value::number(&word.text) {
        Some(status @ ..=999) => (status as u16, node.args.get(1)),
        None if node.args.len() == 1 && is_absolute(&word.text) => (302, Some(word)),
        _ => return Err(invalid()),
    };
    let compile = |word: &Word| build.template(word.text.as_ref()).map_err(|problem| problem.on(word));
    let text = text.map(compile).transpose()?;
    conf.rules.push(Rule::Return(Arc::new(Return { status: Status(status), text })));
    Ok(())
}

/// Reads `set`.
///
/// # Errors
/// As nginx.
pub fn set(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let (name, value) = (argument(node, 0)?, argument(node, 1)?);
    let Some(bare) = name.text.strip_prefix(b"$").filter(|bare| !bare.is_empty()) else {
        return Err(Problem::new(format!("invalid variable name \"{}\"", name.text)).on(name));
    };
    let variable = build.variables.set(bare).map_err(|problem| problem.on(name))?;
    build.variables.when_unset(variable, Arc::new(Uninitialized(bare.to_ascii_lowercase().into())));
    let write = build.variables.writer(variable);
    let value = build.template(value.text.as_ref()).map_err(|problem| problem.on(value))?;
    conf.rules.push(Rule::Set(Arc::new(Set { variable, write, value })));
    Ok(())
}

/// Reads `break`.
///
/// # Errors
/// As nginx.
pub fn stop(conf: &mut Conf, _node: &Node, _build: &mut Build) -> Result<(), Problem> {
    conf.rules.push(Rule::Break);
    Ok(())
}

/// Reads `if`.
///
/// # Errors
/// As nginx.
pub fn test(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let condition = condition(&node.args, build)?;
    conf.rules.push(Rule::If(Arc::new(condition), node.end));
    Ok(())
}

/// Reads `($a = b)` and its like, the parentheses glued to words or standing alone.
fn condition(args: &[Word], build: &mut Build) -> Result<Condition, Problem> {
    let invalid = |word: &Word| Problem::new(format!("invalid condition \"{}\"", word.text)).on(word);
    let mut words = args.to_vec();
    match words.first_mut() {
        Some(first) if first.text == "(" => drop(words.remove(0)),
        Some(first) if first.text.starts_with(b"(") => drop(first.text.remove(0)),
        Some(first) => return Err(invalid(first)),
        None => return Err(Problem::new("invalid number of arguments in \"if\" directive")),
    }
    match words.last_mut() {
        Some(last) if last.text == ")" => drop(words.pop()),
        Some(last) if last.text.ends_with(b")") => drop(last.text.pop()),
        Some(last) => return Err(invalid(last)),
        None => return Err(Problem::new("invalid condition \"(\"")),
    }
    let Some(first) = words.first() else { return Err(Problem::new("invalid condition \")\"")) };
    if first.text.len() > 1 && first.text.starts_with(b"$") {
        let unknown =
            |_| Problem::new(format!("unknown \"{}\" variable", first.text[1..].as_bstr())).on(first);
        return match &words[..] {
            [_] => build.variable(&first.text[1..]).map(Condition::True).map_err(unknown),
            [_, operator, operand] => {
                let variable = build.variable(&first.text[1..]).map_err(unknown)?;
                comparison(variable, operator, operand, build)
            }
            _ => Err(invalid(first)),
        };
    }
    let (test, negated) = match first.text.strip_prefix(b"!") {
        Some(rest) => (rest, true),
        None => (&first.text[..], false),
    };
    let ([_, path], [b'-', letter]) = (&words[..], test) else { return Err(invalid(first)) };
    let test = match letter {
        b'f' => FileTest::Plain,
        b'd' => FileTest::Directory,
        b'e' => FileTest::Exists,
        b'x' => FileTest::Executable,
        _ => return Err(invalid(first)),
    };
    let path = build.template(path.text.as_ref()).map_err(|problem| problem.on(path))?;
    Ok(Condition::File { path, test, negated })
}

fn comparison(
    variable: VariableId,
    operator: &Word,
    operand: &Word,
    build: &mut Build,
) -> Result<Condition, Problem> {
    let negated = operator.text.starts_with(b"!");
    match &operator.text[..] {
        b"=" | b"!=" => {
            let value = build.template(operand.text.as_ref()).map_err(|problem| problem.on(operand))?;
            Ok(Condition::Equal { variable, value, negated })
        }
        b"~" | b"~*" | b"!~" | b"!~*" => {
            let caseless = operator.text.ends_with(b"*");
            let regex =
                build.regex(operand.text.as_ref(), caseless).map_err(|problem| problem.on(operand))?;
            Ok(Condition::Matches { variable, regex, negated })
        }
        _ => Err(Problem::new(format!("unexpected \"{}\" in condition", operator.text)).on(operator)),
    }
}
