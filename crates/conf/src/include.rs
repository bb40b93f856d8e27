//! Following `include`: paths, patterns, loops and bounds.

use crate::glob::is_glob;
use crate::parser::{INCLUDE_DEPTH_MAX, INCLUDED_FILES_MAX, Parser, Reader, TEXT_BYTES_MAX};
use crate::source::{FileId, Origin};
use crate::syntax;
use crate::tree::{Include, Node};
use bstr::{BStr, BString, ByteSlice};

impl Parser<'_> {
    /// Whether a directive is an `include` to follow. One with a block or a wrong number of arguments stays in the
    /// tree, for whoever checks directives to refuse.
    pub(crate) fn follows(&self, node: &Node) -> bool {
        self.folder.is_some()
            && node.name.text == "include"
            && node.args.len() == 1
            && node.block.is_none()
            && !node.broken
    }

    /// Reads everything an `include` asks for; its directives follow those read so far.
    pub(crate) fn include(&mut self, reader: &Reader, node: Node) {
        let path = self.absolute(node.args.first().map_or(BStr::new(""), |word| word.text.as_bstr()));
        let mut read = Vec::new();
        let paths = if is_glob(path.as_bstr()) {
            self.files.glob(path.as_bstr()).unwrap_or_else(|error| {
                self.report(reader, syntax::cannot_glob(path.as_bstr(), &node, error));
                Vec::new()
            })
        } else {
            vec![path.clone()]
        };
        // The place in the list is taken before the included files take theirs.
        let place = self.tree.includes.len();
        self.tree.includes.push(Include {
            node: node.clone(),
            path,
            paths: paths.clone(),
            files: Vec::new(),
        });
        for name in &paths {
            if self.full {
                break;
            }
            if let Some(id) = self.open_included(reader, &node, name.as_bstr()) {
                read.push(id);
                let block = self.file(id);
                self.nodes.extend(block.nodes);
            }
        }
        if let Some(include) = self.tree.includes.get_mut(place) {
            include.files = read;
        }
    }

    fn open_included(&mut self, reader: &Reader, node: &Node, name: &BStr) -> Option<FileId> {
        if self.open.len() >= INCLUDE_DEPTH_MAX || self.is_open(name) {
            self.report(reader, syntax::include_loop(name, node, self.is_open(name)));
            return None;
        }
        if self.tree.sources.files.len() >= INCLUDED_FILES_MAX || self.text_bytes >= TEXT_BYTES_MAX {
            self.full = true;
            // Said even where the file that goes too far was read before without harm.
            self.diagnostics.push(syntax::too_many_files(node, INCLUDED_FILES_MAX, TEXT_BYTES_MAX));
            return None;
        }
        match self.read(name) {
            Ok(text) => Some(self.add(name.into(), text, Origin::Included(node.span()))),
            Err(error) => {
                self.report(reader, syntax::cannot_include(name, node, error));
                None
            }
        }
    }

    fn is_open(&self, name: &BStr) -> bool {
        self.open.iter().filter_map(|id| self.tree.sources.file(*id)).any(|file| file.name == name)
    }

    /// The path as nginx hands it to the system: relative ones start at the folder of the main file, and a NUL ends it.
    fn absolute(&self, path: &BStr) -> BString {
        let mut full = BString::default();
        if !path.starts_with(b"/") {
            full.extend_from_slice(self.folder.as_ref().map_or(&b""[..], |folder| folder));
        }
        full.extend_from_slice(path.split(|byte| *byte == 0).next().unwrap_or_default());
        full
    }
}
