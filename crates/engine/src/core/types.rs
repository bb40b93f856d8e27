//! The `types` block: MIME types by file name extension.

use crate::module::Build;
use bstr::BString;
use conf::Node;
use schema::Problem;
use std::sync::Arc;
use template::ConfigTable;

/// Types by lower-cased extension.
#[derive(Clone, Debug)]
pub struct Types(pub Arc<ConfigTable<Vec<u8>, BString>>);

/// What holds when no `types` block is given.
const DEFAULT: [(&str, &str); 3] = [("html", "text/html"), ("gif", "image/gif"), ("jpg", "image/jpeg")];

impl Types {
    /// nginx's built-in three.
    pub fn built_in() -> Types {
        let pairs =
            DEFAULT.iter().map(|(extension, kind)| (extension.as_bytes().to_vec(), BString::from(*kind)));
        Types(Arc::new(pairs.collect()))
    }

    /// The type of an extension, whatever its case.
    pub fn of(&self, extension: &[u8]) -> Option<&BString> {
        if extension.is_empty() {
            return None;
        }
        if let Some(found) = self.0.get(extension) {
            return Some(found);
        }
        if !extension.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        self.0.get(&extension.to_ascii_lowercase())
    }

    /// Reads a block; a second one in the same place adds to the first.
    ///
    /// # Errors
    /// As nginx.
    pub fn parse(node: &Node, before: Option<&Types>, build: &mut Build) -> Result<Types, Problem> {
        use schema::Services;
        let mut table = before.map(|types| (*types.0).clone()).unwrap_or_default();
        for line in node.block.iter().flat_map(|block| &block.nodes) {
            if line.block.is_some() {
                let problem = Problem::new("unexpected \"{\"").on(&line.name).at(line.end);
                build.refuse(problem, line);
                continue;
            }
            for word in &line.args {
                let extension = word.text.to_ascii_lowercase();
                if let Some(old) = table.get(&extension) {
                    let text = format!(
                        "duplicate extension \"{}\", content type: \"{}\", previous content type: \"{}\"",
                        word.text, line.name.text, old
                    );
                    build.warn(Problem::new(text).on(word), line);
                }
                table.insert(extension, line.name.text.clone());
            }
        }
        Ok(Types(Arc::new(table)))
    }
}
