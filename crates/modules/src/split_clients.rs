//! `split_clients`: a variable that has one of several values, each for a share of all clients (nginx's manual,
//! ngx_http_split_clients_module).

use bstr::BString;
use conf::Node;
use engine::module::{Install, cells, finish_nothing};
use engine::variables::Computed;
use engine::{Build, Declare, Module, Request};
use schema::value::argument;
use schema::{Directive, Problem, Services};
use std::sync::Arc;
use template::{SplitBuilder, SplitTable, Template};

struct Split {
    source: Template,
    table: SplitTable<BString>,
}

impl Computed for Split {
    fn compute(&self, request: &mut Request, out: &mut Vec<u8>) -> bool {
        let source = request.render(&self.source);
        out.extend_from_slice(self.table.find(&source).map(|value| &value[..]).unwrap_or_default());
        true
    }
}

fn read(_conf: &mut (), node: &Node, build: &mut Build) -> Result<(), Problem> {
    let (source, target) = (argument(node, 0)?, argument(node, 1)?);
    let source = build.template(source.text.as_ref()).map_err(|problem| problem.on(source))?;
    let name = crate::computed::variable_name(target)?;
    let mut builder = SplitBuilder::new();
    for line in crate::computed::lines(node, build) {
        let [value] = &line.args[..] else {
            let text = format!("invalid number of arguments in \"{}\" directive", node.name.text);
            build.refuse(Problem::new(text), line);
            continue;
        };
        if let Err(error) = builder.insert(line.name.text.as_ref(), value.text.clone()) {
            build.refuse(Problem::new(error.to_string()).on(&line.name), line);
        }
    }
    let closed = node.block.as_ref().map_or(node.end, |block| block.close);
    let table = builder.build().map_err(|error| Problem::new(error.to_string()).at(closed))?;
    build.define(name, Arc::new(Split { source, table })).map_err(|problem| problem.on(target))?;
    Ok(())
}

/// The module.
pub static MODULE: Module = Module {
    name: "split_clients",
    directives: &[Directive {
        name: "split_clients",
        default: "",
        set: &Declare::<()>::new(read),
        doc: "A variable whose values are shared out among clients.",
    }],
    families: &[],
    variables: &[],
    cells: cells::<()>,
    install: Install::Never,
    finish: finish_nothing,
};
