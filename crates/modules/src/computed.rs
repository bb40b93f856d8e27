//! What `map`, `geo` and `split_clients` have in common: a variable's name, and a block of lines that are no directives.

use bstr::ByteSlice;
use conf::{Node, Word};
use engine::Build;
use schema::{Problem, Services};

/// The name behind the dollar sign of the variable that a block defines.
///
/// # Errors
/// It has no dollar sign, in nginx's words.
pub fn variable_name(word: &Word) -> Result<&[u8], Problem> {
    let name = word.text.strip_prefix(b"$").filter(|name| !name.is_empty());
    name.ok_or_else(|| Problem::new(format!("invalid variable name \"{}\"", word.text.as_bstr())).on(word))
}

/// The lines of a block. Blocks inside are refused, and lines that the parser could not read left out.
pub fn lines<'n>(node: &'n Node, build: &mut Build) -> Vec<&'n Node> {
    let mut lines = Vec::new();
    for line in node.block.iter().flat_map(|block| &block.nodes).filter(|line| !line.broken) {
        if line.block.is_some() {
            build.refuse(Problem::new("unexpected \"{\"").on(&line.name), line);
        } else {
            lines.push(line);
        }
    }
    lines
}
