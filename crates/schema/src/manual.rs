//! The manual's list of directives, written from the table and the rows: `docs/directives.md`.

use crate::known::{self, Known};
use crate::{Places, Registry};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What there is of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does what nginx's does.
    Done,
    /// It is accepted and checked, and there is nothing to tune.
    Idle,
    /// It is known and refused.
    Refused,
}

/// What there is of an entry of the table.
pub fn state(known: &Known, registry: &Registry) -> State {
    // `include` is the parser's.
    let is_include = known.name == "include";
    match registry.row(known) {
        Some((_, row)) if row.set.is_idle() => State::Idle,
        Some(_) => State::Done,
        None if is_include => State::Done,
        None => State::Refused,
    }
}

/// The whole page, in Markdown: a table for each of nginx's modules.
pub fn page(registry: &Registry) -> String {
    let mut modules: BTreeMap<(u8, &str), Vec<&'static Known>> = BTreeMap::new();
    for known in known::all() {
        modules.entry((rank(known.module), known.module)).or_default().push(known);
    }
    let count = |wanted: State| known::all().filter(|known| state(known, registry) == wanted).count();
    let mut out = format!(
        "# Directives\n\nWritten by `cargo xtask docs` from `crates/schema/src/directives.tsv` and the rows of the \
         modules; do not edit.\n\nGapura knows {} directives: {} are done, {} are accepted though there is nothing to \
         tune here, and {} are refused with `\"x\" directive is not supported yet`. Each means what nginx's manual says.\n",
        known::all().count(),
        count(State::Done),
        count(State::Idle),
        count(State::Refused),
    );
    for ((_, module), entries) in modules {
        let title = module.split('(').next().unwrap_or(module);
        let _ = writeln!(
            out,
            "\n## {title}\n\n| directive | arguments | where | default | |\n|---|---|---|---|---|"
        );
        for known in entries {
            out.push_str(&line(known, registry));
        }
    }
    out
}

fn line(known: &Known, registry: &Registry) -> String {
    let row = registry.row(known).map(|(_, row)| row);
    let default = match row.map(|row| row.default) {
        None | Some("") => String::new(),
        Some(text) => format!("`{text}`"),
    };
    let words = match (state(known, registry), row) {
        (State::Done, Some(row)) => row.doc.to_owned(),
        (State::Done, None) => "Reads other files in its place.".to_owned(),
        (State::Idle, row) => format!("*Nothing to tune.* {}", row.map_or("", |row| row.doc)),
        (State::Refused, _) => "*Not yet.*".to_owned(),
    };
    let block = if known.block { " { }" } else { "" };
    let places = if known.places == Places::ANY { "anywhere".to_owned() } else { known.places.names() };
    format!(
        "| `{}{block}` | {} | {places} | {default} | {} |\n",
        known.name,
        known.arguments.described().replace(" arguments", "").replace(" argument", ""),
        words.replace('|', "\\|"),
    )
}

/// The top level first, then HTTP, then the other protocols.
fn rank(module: &str) -> u8 {
    match module {
        _ if module.starts_with("ngx_http") => 1,
        _ if module.starts_with("ngx_stream") => 2,
        _ if module.starts_with("ngx_mail") => 3,
        _ => 0,
    }
}
