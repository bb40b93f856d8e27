//! The manual's list of directives says what the rows say. `cargo xtask docs` writes it anew.

use engine::compile::registry;
use std::path::Path;

/// Set by `cargo xtask docs`: write the page instead of comparing it.
const WRITE_VARIABLE: &str = "GAPURA_WRITE_DOCS";

#[test]
fn the_list_of_directives_is_up_to_date() {
    let modules: Vec<_> = engine::core::MODULES.iter().chain(modules::MODULES).copied().collect();
    let page = schema::manual::page(&registry(&modules));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/directives.md");
    if std::env::var_os(WRITE_VARIABLE).is_some() {
        std::fs::write(&path, page).expect("the page can be written");
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/directives.md is out of date: cargo xtask docs");
}
