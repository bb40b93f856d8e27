//! `root` and `alias`: the folder of a location's files.
//!
//! They have cells of their own. Many locations of a large configuration set nothing else of nginx's core module, and
//! would have a copy each of all its other settings.

use super::matcher::Matcher;
use crate::module::{Build, Install, Module, cells, finish_nothing};
use crate::own;
use bstr::ByteSlice;
use conf::Node;
use schema::value::argument;
use schema::{Directive, Inherit, Problem};
use template::Template;

/// Where the files of a location are.
#[derive(Default)]
pub struct Folder {
    /// `root` or `alias`.
    pub root: Inherit<Option<Root>>,
}

/// `root` or `alias`.
#[derive(Clone)]
pub struct Root {
    /// The path, made absolute when it is constant.
    pub path: Template,
    /// `alias`: the location's prefix is cut from the URI.
    pub alias: bool,
}

fn root(folder: &mut Folder, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let alias = node.name.text == "alias";
    let word = argument(node, 0)?;
    if let Some(Some(before)) = folder.root.value() {
        if before.alias == alias {
            return Err(Problem::duplicate(&node.name, folder.root.span));
        }
        let other = if before.alias { "alias" } else { "root" };
        return Err(Problem::new(format!(
            "\"{}\" directive is duplicate, \"{other}\" directive was specified earlier",
            node.name.text
        )));
    }
    let around = build.matcher_around();
    if alias && matches!(around, Some(Matcher::Named(_))) {
        return Err(Problem::new("the \"alias\" directive cannot be used inside the named location"));
    }
    let variables = word.text.contains(&b'$');
    for forbidden in ["$document_root", "${document_root}", "$realpath_root", "${realpath_root}"] {
        if variables && word.text.contains_str(forbidden) {
            let name = if forbidden.contains("document") { "$document_root" } else { "$realpath_root" };
            let text = format!("the {name} variable cannot be used in the \"{}\" directive", node.name.text);
            return Err(Problem::new(text).on(word));
        }
    }
    let mut path = word.text.clone();
    if !alias && path.len() > 1 && path.ends_with(b"/") {
        path.pop();
    }
    if !path.contains(&b'$') {
        path = build.full_path(path.as_ref());
    }
    let path = build.template(path.as_ref()).map_err(|problem| problem.on(word))?;
    folder.root.put(Some(Root { path, alias }), Some(node.name.span));
    Ok(())
}

pub(super) static MODULE: Module = Module {
    name: "core_root",
    directives: &[
        Directive {
            name: "root",
            default: "html",
            set: own!(Folder, root, root),
            doc: "The folder that files are served from.",
        },
        Directive {
            name: "alias",
            default: "html",
            set: own!(Folder, root, root),
            doc: "The folder that stands for the location's prefix.",
        },
    ],
    families: &[],
    variables: &[],
    cells: cells::<Folder>,
    install: Install::Never,
    finish: finish_nothing,
};
