//! Words that may not stand somewhere, each with what to write instead.

use super::Finding;
use super::dependencies::{L0, MAY_AWAIT};
use super::source::Source;

/// Where a ban holds.
enum Where {
    /// In these crates.
    In(&'static [&'static str]),
    /// In all but these.
    NotIn(&'static [&'static str]),
}

/// A banned word.
struct Ban {
    rule: &'static str,
    words: &'static [&'static str],
    place: Where,
    /// Whether a comment on the line or above it, which gives the proof, lifts the ban.
    proof_lifts: bool,
    instead: &'static str,
}

/// Crates that talk to peers or read what others wrote.
const HOSTILE: &[&str] =
    &["conf", "template", "http", "balance", "zone", "acme", "net", "engine", "stream", "modules"];

const PRINTS: &[&str] = &["gapura", "xtask", "testkit"];

const BANS: &[Ban] = &[
    Ban {
        rule: "io",
        words: &[
            "std::fs",
            "std::process",
            "std::thread",
            "std::env",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "tokio::",
        ],
        place: Where::In(L0),
        proof_lifts: false,
        instead: "a pure crate does no I/O: take bytes, or a trait the caller implements in net",
    },
    Ban {
        rule: "clock",
        words: &["SystemTime::now", "Instant::now"],
        place: Where::In(L0),
        proof_lifts: false,
        instead: "a pure crate reads no clock: take `now` as an argument",
    },
    Ban {
        rule: "random",
        words: &["RandomState", "rand::", "getrandom", "fastrand"],
        place: Where::In(L0),
        proof_lifts: false,
        instead: "a pure crate has no randomness: take the random number as an argument",
    },
    Ban {
        rule: "async",
        words: &["async fn", "async move", "async {", ".await"],
        place: Where::NotIn(MAY_AWAIT),
        proof_lifts: false,
        instead: "only net, engine, stream and gapura wait; a module returns an Ask",
    },
    Ban {
        rule: "unsafe",
        words: &["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"],
        place: Where::NotIn(&["net"]),
        proof_lifts: false,
        instead: "unsafe code lives in net alone, behind a safe function with its proof",
    },
    Ban {
        rule: "print",
        words: &["println!", "eprintln!", " print!(", "eprint!("],
        place: Where::NotIn(PRINTS),
        proof_lifts: false,
        instead: "only the program prints: return a diagnostic, or write to the error log",
    },
    Ban {
        rule: "unwrap",
        words: &[".unwrap()", ".expect(\"", ".expect(&", "unreachable!(", "panic!("],
        place: Where::In(HOSTILE),
        proof_lifts: true,
        instead: "a peer must not panic us: use `?`, `let ... else` or a default; where it is impossible, write the proof above it",
    },
    Ban {
        rule: "unfinished",
        words: &["todo!(", "unimplemented!(", "dbg!("],
        place: Where::NotIn(&[]),
        proof_lifts: false,
        instead: "refuse what is not built with a clear message",
    },
    Ban {
        rule: "name",
        words: &["fn get_", "mod util", "mod helper", "mod common;", "mod misc"],
        place: Where::NotIn(&[]),
        proof_lifts: false,
        instead: "say what it is: a getter is named after its value, a module after its subject",
    },
    Ban {
        rule: "doc",
        words: &["doc: \"\""],
        place: Where::In(&["modules", "engine", "stream", "schema"]),
        proof_lifts: false,
        instead: "every directive has a line for its manual",
    },
];

/// Looks at a Rust file.
pub fn check_source(source: &Source, findings: &mut Vec<Finding>) {
    let mut found = |line: usize, rule: &str, message: String| {
        findings.push(Finding { path: source.path.clone(), line, rule: rule.to_owned(), amount: 1, message });
    };
    if !source.text.starts_with("//!") && !source.text.trim().is_empty() {
        found(1, "opening", "a file opens with a //! paragraph that says what lives here".to_owned());
    }
    let name = source.crate_name();
    let bans: Vec<&Ban> = BANS.iter().filter(|ban| ban.place.holds(name)).collect();
    for (number, line) in source.lines() {
        for ban in &bans {
            let Some(word) = ban.words.iter().find(|word| has_word(line, word)) else { continue };
            let proven = || is_proven(source.written(number - 1), source.written(number));
            if !(ban.proof_lifts && proven()) {
                found(number, ban.rule, format!("`{}`: {}", word.trim(), ban.instead));
            }
        }
    }
}

/// Whether a line that may panic says why it does not: a comment on it or above it, or the words of an `expect`.
fn is_proven(above: &str, line: &str) -> bool {
    let above = above.trim_start();
    let comment = above.starts_with("//") && !above.starts_with("///") && !above.starts_with("//!");
    let words = line.split_once(".expect(\"").map_or(0, |(_, rest)| rest.split(' ').count());
    comment || line.contains("//") || words > 3
}

/// Looks at any text file: what only one machine knows does not belong in a repository.
pub fn check_text(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let paths =
        [concat!("/wo", "rk/"), concat!("/tmp/", "ref"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(found) = paths.iter().find(|p| names_path(line, p)) {
            findings.push(Finding {
                path: path.to_owned(),
                line: number,
                rule: "machine".to_owned(),
                amount: 1,
                message: format!("{found} is a path of one machine"),
            });
        }
    }
}

/// Whether a line names a path that begins like this, and not only one that has it inside.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back().unwrap_or(' ');
        !(before.is_alphanumeric() || matches!(before, '.' | '_' | '-' | '/' | '}' | '%' | '$' | '~'))
    })
}

/// Whether the word stands in the line and is not the end of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let begins_word = word.starts_with(|c: char| c.is_alphanumeric());
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().unwrap_or(' ');
        !begins_word || !(before.is_alphanumeric() || before == '_')
    })
}

impl Where {
    fn holds(&self, name: &str) -> bool {
        match self {
            Self::In(crates) => crates.contains(&name),
            Self::NotIn(crates) => !crates.contains(&name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        let text = format!("//! x\n{text}");
        check_source(&Source::new(path.to_owned(), text.clone()), &mut findings);
        check_text(path, &text, &mut findings);
        findings.into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn banned_words_are_found_where_they_are_banned() {
        for (path, text, found) in [
            ("crates/http/src/a.rs", "use std::fs;", vec!["io"]),
            ("crates/net/src/a.rs", "use std::fs;", vec![]),
            ("crates/http/src/a.rs", "// std::fs\n\"std::fs\";", vec![]),
            ("crates/balance/src/a.rs", "Instant::now()", vec!["clock"]),
            ("crates/modules/src/a.rs", "async fn a() {}", vec!["async"]),
            ("crates/engine/src/a.rs", "async fn a() { b.await }", vec![]),
            ("crates/engine/src/a.rs", "a.unwrap();", vec!["unwrap"]),
            ("crates/engine/src/a.rs", "// There is one: a was just filled.\na.unwrap();", vec![]),
            ("crates/engine/src/a.rs", "a.expect(\"the list was filled above\");", vec![]),
            ("crates/engine/src/a.rs", "a.expect(\"works\");", vec!["unwrap"]),
            ("crates/engine/src/a.rs", "#[cfg(test)]\nmod tests { a.unwrap(); }", vec![]),
            ("crates/engine/src/a.rs", "a.unwrap_or(0); my_panic!(x)", vec![]),
            ("crates/gapura/src/a.rs", "println!()", vec![]),
            ("crates/http/src/a.rs", "println!()", vec!["print"]),
            ("crates/http/src/a.rs", "fn get_x() {}", vec!["name"]),
            ("crates/http/src/a.rs", concat!("// see /wo", "rk/x"), vec!["machine"]),
            ("crates/http/src/a.rs", concat!("// see a/ho", "me/x"), vec![]),
        ] {
            assert_eq!(rules(path, text), found, "{path}: {text}");
        }
    }

    #[test]
    fn files_open_with_what_lives_there() {
        let mut findings = Vec::new();
        check_source(&Source::new("xtask/src/a.rs".into(), "fn a() {}".into()), &mut findings);
        assert_eq!(findings[0].rule, "opening");
    }
}
