//! `map`: a variable whose value depends on that of a string (nginx's manual, ngx_http_map_module).

use bstr::BString;
use conf::Node;
use engine::module::{Install, cells, finish_nothing};
use engine::variables::Computed;
use engine::{Build, Declare, Module, Request};
use schema::directive::Idle;
use schema::value::argument;
use schema::{Directive, Problem, Services};
use std::sync::Arc;
use template::{MapBuilder, MapTable, Template, VariableId};

struct Map {
    source: Template,
    table: MapTable<Template>,
    /// The variables of named groups.
    groups: Vec<(BString, VariableId)>,
    volatile: bool,
}

impl Computed for Map {
    fn compute(&self, request: &mut Request, out: &mut Vec<u8>) -> bool {
        let source = request.render(&self.source);
        // The table writes groups only when a pattern matches, so that those of an earlier one stay otherwise.
        let mut groups = std::mem::take(&mut request.captures.groups);
        let found = self.table.find(&source, &mut groups);
        request.captures.groups = groups;
        let Some(found) = found else { return true };
        if let Some(regex) = found.regex {
            request.captures.subject = self.table.subject(&source).to_vec();
            for (name, group) in regex.names() {
                let variable = self.groups.iter().find(|(known, _)| known == name);
                let value = request.captures.group(*group).unwrap_or_default().to_vec();
                if let Some((_, variable)) = variable {
                    request.store(*variable, value);
                }
            }
        }
        request.render_into(found.value, out);
        true
    }

    fn volatile(&self) -> bool {
        self.volatile
    }
}

fn read(_conf: &mut (), node: &Node, build: &mut Build) -> Result<(), Problem> {
    let (source, target) = (argument(node, 0)?, argument(node, 1)?);
    let source = build.template(source.text.as_ref()).map_err(|problem| problem.on(source))?;
    let name = crate::computed::variable_name(target)?;
    let mut builder = MapBuilder::new();
    let mut groups: Vec<(BString, VariableId)> = Vec::new();
    let mut volatile = false;
    for line in crate::computed::lines(node, build) {
        match (&line.name.text[..], &line.args[..]) {
            (b"hostnames", []) => builder.hostnames(),
            (b"volatile", []) => volatile = true,
            (key, [value]) => {
                if let Err(problem) = add(&mut builder, &mut groups, key, value, build) {
                    build.refuse(problem.on(&line.name), line);
                }
            }
            _ => build.refuse(Problem::new("invalid number of the map parameters"), line),
        }
    }
    let map = Map { source, table: builder.build(), groups, volatile };
    build.define(name, Arc::new(map)).map_err(|problem| problem.on(target))?;
    Ok(())
}

/// Adds a line; the named groups of its pattern become variables.
fn add(
    builder: &mut MapBuilder<Template>,
    groups: &mut Vec<(BString, VariableId)>,
    key: &[u8],
    value: &conf::Word,
    build: &mut Build,
) -> Result<(), Problem> {
    let value = build.template(value.text.as_ref())?;
    for name in builder.insert(key, value).map_err(|error| Problem::new(error.to_string()))? {
        let variable = build.variables.capture(&name)?;
        if !groups.iter().any(|(known, _)| *known == name) {
            groups.push((name, variable));
        }
    }
    Ok(())
}

/// The module.
pub static MODULE: Module = Module {
    name: "map",
    directives: &[
        Directive {
            name: "map",
            default: "",
            set: &Declare::<()>::new(read),
            doc: "A variable whose value depends on a string.",
        },
        Directive {
            name: "map_hash_max_size",
            default: "2048",
            set: &Idle,
            doc: "Accepted; tables grow by themselves.",
        },
        Directive {
            name: "map_hash_bucket_size",
            default: "64",
            set: &Idle,
            doc: "Accepted; tables grow by themselves.",
        },
    ],
    families: &[],
    variables: &[],
    cells: cells::<()>,
    install: Install::Never,
    finish: finish_nothing,
};
