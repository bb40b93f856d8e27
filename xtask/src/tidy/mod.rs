//! `cargo xtask tidy`: the rules of the house that a program can check. What breaks a rule today and cannot be put
//! right at once stands in `xtask/ratchet.tsv` with a number that may only shrink.

mod bans;
mod dependencies;
mod lengths;
mod ratchet;
mod source;

use crate::spec::root;
use ratchet::Ratchet;
use source::Source;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files larger than this are not read: they are data.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// What breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, from the root of the workspace.
    path: String,
    /// The line, from 1.
    line: usize,
    /// The rule, or `fn name` for a long function.
    rule: String,
    /// How much it breaks the rule: the lines of a function or file, 1 for each banned word.
    amount: usize,
    /// What to do instead.
    message: String,
}

/// Reads the command line and checks; `--update` lowers the numbers of the ratchet.
pub fn main(arguments: &[String]) -> Result<(), String> {
    let update = match arguments {
        [] => false,
        [flag] if flag == "--update" => true,
        _ => return Err("usage: cargo xtask tidy [--update]".to_owned()),
    };
    let findings = findings()?;
    let mut sums: BTreeMap<(String, String), usize> = BTreeMap::new();
    for finding in &findings {
        *sums.entry((finding.path.clone(), finding.rule.clone())).or_default() += finding.amount;
    }
    let file = root().join("xtask/ratchet.tsv");
    let mut ratchet = Ratchet::read(&file)?;
    let mut broken = 0;
    for finding in &findings {
        let key = (finding.path.clone(), finding.rule.clone());
        let allowed = ratchet.allowed(&key);
        if sums[&key] > allowed {
            let Finding { path, line, rule, message, .. } = finding;
            let before = if allowed > 0 { format!(" (the ratchet allows {allowed})") } else { String::new() };
            println!("{path}:{line}: {rule}: {message}{before}");
            broken += 1;
        }
    }
    if update {
        let count = ratchet.lower(&sums);
        ratchet.write(&file)?;
        println!("{count} lines of xtask/ratchet.tsv lowered");
    } else if ratchet.can_shrink(&sums) {
        println!("xtask/ratchet.tsv can shrink: cargo xtask tidy --update");
    }
    println!("tidy: {} findings, {broken} of them new", findings.len());
    if broken > 0 { Err("not tidy".to_owned()) } else { Ok(()) }
}

fn findings() -> Result<Vec<Finding>, String> {
    let mut files = Vec::new();
    walk(root(), &mut files).map_err(|e| format!("cannot read the workspace: {e}"))?;
    files.sort();
    let mut findings = dependencies::check(root())?;
    for file in &files {
        let path = file.strip_prefix(root()).unwrap_or(file).to_string_lossy().into_owned();
        // Binary files have no style.
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        bans::check_text(&path, &text, &mut findings);
        if path.ends_with(".rs") {
            let source = Source::new(path, text);
            bans::check_source(&source, &mut findings);
            lengths::check(&source, &mut findings);
        }
    }
    findings.sort();
    Ok(findings)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let kind = entry.file_type()?;
        if name == ".git" || name == "target" || name == "node_modules" {
            continue;
        }
        if kind.is_dir() {
            walk(&entry.path(), files)?;
        } else if kind.is_file() && entry.metadata()?.len() <= TEXT_BYTES_MAX {
            files.push(entry.path());
        }
    }
    Ok(())
}
