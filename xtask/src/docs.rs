//! `cargo xtask docs`: writes the pages that are made from the program itself. The test that compares them with what
//! they are made from writes them when it is told to, so that this program need not be built with the engine.

use crate::spec::root;
use std::process::Command;

/// Tells the test to write.
const WRITE_VARIABLE: &str = "GAPURA_WRITE_DOCS";

/// Writes `docs/directives.md`.
pub fn main(arguments: &[String]) -> Result<(), String> {
    if !arguments.is_empty() {
        return Err("usage: cargo xtask docs".to_owned());
    }
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program)
        .current_dir(root())
        .args(["test", "--quiet", "--package", "modules", "--test", "manual"])
        .env(WRITE_VARIABLE, "1")
        .status()
        .map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err("docs/directives.md was not written".to_owned()) }
}
