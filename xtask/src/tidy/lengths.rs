//! A function may not cross 70 lines, a file 600. Tests are tables and may be longer.

use super::Finding;
use super::source::Source;

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;

/// Looks at one file.
pub fn check(source: &Source, findings: &mut Vec<Finding>) {
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        findings.push(Finding {
            path: source.path.clone(),
            line: 1,
            rule: "file".to_owned(),
            amount: lines,
            message: format!("{lines} lines, more than {FILE_LINES_MAX}: split it by subject"),
        });
    }
    for (name, first, last) in functions(&source.code) {
        let lines = last - first + 1;
        if lines > FUNCTION_LINES_MAX && first < source.tests_from {
            findings.push(Finding {
                path: source.path.clone(),
                line: first,
                rule: format!("fn {name}"),
                amount: lines,
                message: format!("{lines} lines, more than {FUNCTION_LINES_MAX}: split it"),
            });
        }
    }
}

/// Name, first and last line of each function with a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    let mut offset = 0;
    for (index, line) in code.split('\n').enumerate() {
        for (column, _) in line.match_indices("fn ") {
            let before = line[..column].chars().next_back().unwrap_or(' ');
            let name: String =
                line[column + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if before == ' ' || before == '(' {
                let body = body_end(&code[offset + column..]).filter(|_| !name.is_empty());
                found.extend(body.map(|lines| (name, index + 1, index + 1 + lines)));
            }
        }
        offset += line.len() + 1;
    }
    found
}

/// How many lines further the body of the function that begins here ends; none for one without a body.
fn body_end(code: &str) -> Option<usize> {
    let mut braces = 0;
    let mut brackets = 0;
    let mut lines = 0;
    for c in code.chars() {
        match c {
            '\n' => lines += 1,
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if braces == 0 && brackets == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 {
                    return Some(lines);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_measured() {
        let code = "trait A {\n  fn a(&self, x: [u8; 2]);\n  fn b() {\n    x\n  }\n}\nconst fn c() -> u8 { 1 }\nlet f: fn (u8);";
        let expected = [("b".to_owned(), 3, 5), ("c".to_owned(), 7, 7)];
        assert_eq!(functions(code), expected);
    }

    #[test]
    fn long_ones_are_found_outside_tests() {
        let body = "    x;\n".repeat(69);
        for (text, count) in [
            (format!("fn a() {{\n{body}}}\n"), 1),
            (format!("fn a() {{\n{}}}\n", &body[7..]), 0),
            (format!("#[cfg(test)]\nfn a() {{\n{body}}}\n"), 0),
            ("\n".repeat(601), 1),
        ] {
            let mut findings = Vec::new();
            check(&Source::new("crates/http/src/a.rs".into(), text), &mut findings);
            assert_eq!(findings.len(), count);
        }
    }
}
