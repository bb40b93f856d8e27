//! Layers: imports point down only, and every dependency that is not ours has its sentence in `deny.toml`.

use super::Finding;
use std::path::Path;

/// The crates from the bottom up; a crate may use those of lower layers, and in the lowest each other.
const LAYERS: &[&[&str]] = &[L0, &["acme", "net"], &["engine", "stream"], &["modules"], &["gapura"]];

/// The pure crates.
pub const L0: &[&str] = &["conf", "schema", "template", "http", "balance", "zone"];

/// The crates where code may wait.
pub const MAY_AWAIT: &[&str] = &["net", "engine", "stream", "gapura"];

/// What reaches the world outside, and the layer from which on it may be used.
const WORLD: &[(&str, usize)] = &[("tokio", 1), ("rustix", 1), ("socket2", 1), ("rustls", 1), ("libc", 1)];

/// A line `name ... = ...` of a table of dependencies.
#[derive(Debug, PartialEq)]
struct Dependency<'t> {
    name: &'t str,
    line: usize,
    /// For tests alone.
    dev: bool,
}

/// Looks at all manifests.
pub fn check(root: &Path) -> Result<Vec<Finding>, String> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).map_err(|e| format!("{path}: {e}"));
    let mut findings = Vec::new();
    check_sentences(&read("Cargo.toml")?, &read("deny.toml")?, &mut findings);
    let mut crates: Vec<String> = std::fs::read_dir(root.join("crates"))
        .map_err(|e| e.to_string())?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    crates.sort();
    for name in crates {
        let path = format!("crates/{name}/Cargo.toml");
        check_manifest(&name, &path, &read(&path)?, &mut findings);
    }
    Ok(findings)
}

fn check_manifest(name: &str, path: &str, text: &str, findings: &mut Vec<Finding>) {
    let mut found = |line: usize, rule: &str, message: String| {
        findings.push(Finding { path: path.to_owned(), line, rule: rule.to_owned(), amount: 1, message });
    };
    if name != "net" && !text.contains("[lints]\nworkspace = true") {
        found(1, "lints", "a crate takes the lints of the workspace, which forbid unsafe code".to_owned());
    }
    if name == "testkit" {
        return;
    }
    let layer_of = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let Some(own) = layer_of(name) else {
        found(1, "layer", format!("{name} has no layer: give it one in xtask/src/tidy/dependencies.rs"));
        return;
    };
    for Dependency { name: other, line, dev } in dependencies(text) {
        if other == "testkit" && !dev {
            found(line, "layer", "testkit is for tests alone: [dev-dependencies]".to_owned());
        }
        if let Some(layer) = layer_of(other)
            && (layer > own || layer == own && own > 0)
        {
            found(line, "layer", format!("{name} may not use {other}: imports point down only"));
        }
        let world = WORLD.iter().find(|(word, _)| *word == other).filter(|(_, from)| own < *from && !dev);
        if world.is_some() || other == "tokio" && name == "modules" {
            found(line, "layer", format!("{name} may not use {other}: the world is reached through net"));
        }
    }
}

/// Every dependency of the workspace that is not ours has `# name: sentence.` in `deny.toml`.
fn check_sentences(manifest: &str, deny: &str, findings: &mut Vec<Finding>) {
    let sentence = |name: &str| {
        deny.lines().any(|line| {
            let rest = line.strip_prefix("# ").and_then(|l| l.strip_prefix(name)?.strip_prefix(": "));
            rest.is_some_and(|sentence| sentence.contains(' ') && sentence.ends_with('.'))
        })
    };
    let lines: Vec<&str> = manifest.lines().collect();
    for Dependency { name, line, .. } in dependencies(manifest) {
        if !lines[line - 1].contains("path = ") && !sentence(name) {
            let message = format!("{name} has no sentence in deny.toml: write \"# {name}: why we need it.\"");
            let path = "Cargo.toml".to_owned();
            findings.push(Finding { path, line, rule: "sentence".to_owned(), amount: 1, message });
        }
    }
}

/// The dependencies a manifest names.
fn dependencies(manifest: &str) -> Vec<Dependency<'_>> {
    let mut table = None;
    let mut found = Vec::new();
    for (line, text) in (1..).zip(manifest.lines()) {
        if let Some(name) = text.strip_prefix('[') {
            let name = name.trim_end_matches(']');
            table = name.ends_with("dependencies").then_some(name);
        } else if let (Some(table), Some((name, _))) = (table, text.split_once('='))
            && !name.starts_with('#')
        {
            let name = name.trim().split('.').next().unwrap_or_default();
            found.push(Dependency { name, line, dev: table.contains("dev-dependencies") });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(name: &str, dependencies: &str) -> usize {
        let mut findings = Vec::new();
        let text = format!("[lints]\nworkspace = true\n\n{dependencies}\n");
        check_manifest(name, "x", &text, &mut findings);
        findings.len()
    }

    #[test]
    fn imports_point_down_only() {
        for (name, dependencies, count) in [
            (
                "engine",
                "[dependencies]\nnet.workspace = true\nhttp.workspace = true\ntokio.workspace = true",
                0,
            ),
            ("net", "[dependencies]\nengine.workspace = true", 1),
            ("engine", "[dependencies]\nstream.workspace = true", 1),
            ("template", "[dependencies]\nconf.workspace = true", 0),
            ("http", "[dependencies]\ntokio.workspace = true", 1),
            ("modules", "[dependencies]\ntokio = { version = \"1\" }", 1),
            ("http", "[dev-dependencies]\ntestkit.workspace = true", 0),
            ("http", "[dependencies]\ntestkit.workspace = true", 1),
            ("mystery", "", 1),
        ] {
            assert_eq!(rules(name, dependencies), count, "{name} {dependencies}");
        }
    }

    #[test]
    fn dependencies_need_their_sentence() {
        let manifest = "[workspace.dependencies]\nconf = { path = \"c\" }\nregex = \"1\"\n# note\nbstr.version = \"1\"\n";
        for (deny, count) in [
            ("# regex: linear time.\n# bstr: byte strings.", 0),
            ("# regex: linear time.", 1),
            ("# regex: fast\n# bstr: x.", 2),
        ] {
            let mut findings = Vec::new();
            check_sentences(manifest, deny, &mut findings);
            assert_eq!(findings.len(), count, "{deny}");
        }
    }
}
