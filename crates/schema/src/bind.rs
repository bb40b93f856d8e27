//! Binds a tree to typed cells: finds each directive's row, checks place and arity, calls the setter, opens
//! nested blocks, and afterwards lets every block inherit from the one around it.

use crate::known::{self, Known};
use crate::{Directive, Places, Problem};
use conf::{Diagnostic, Node, Span, Word};
use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

/// What setters may use of the world around them. The engine implements it; this crate knows no more.
pub trait Services {
    /// The registry of variables, for compiling templates.
    fn names(&mut self) -> &mut dyn template::Names;
    /// The prefix that relative paths hang from (logs, roots), ending in a slash.
    fn prefix(&self) -> &bstr::BStr;
    /// The folder of the main configuration file, ending in a slash (includes, certificates, password files).
    fn conf_prefix(&self) -> &bstr::BStr;
    /// Something to warn of without refusing.
    fn warn(&mut self, problem: Problem, node: &Node);
    /// Something to refuse without stopping: the error is reported where `node` ends, and binding goes on.
    fn refuse(&mut self, problem: Problem, node: &Node);
    /// A directive that was accepted though there is nothing to tune here.
    fn idle(&mut self, node: &Node);
    /// The engine's own builder, for setters that declare zones, variables, upstreams.
    fn any(&mut self) -> &mut dyn Any;
}

/// Cells of one module in one block, shared with inner blocks that change nothing.
pub type ModuleCells = Arc<dyn Any + Send + Sync>;

/// A module as the binder sees it.
pub struct Rows {
    /// The module as users know it, e.g. `limit_conn`.
    pub module: &'static str,
    /// Its rows. Families (`proxy_*`) are expanded: the name is the whole directive.
    pub rows: Vec<(&'static str, &'static Directive)>,
    /// Makes empty cells.
    pub cells: fn() -> ModuleCells,
}

/// All modules' rows with an index by name.
pub struct Registry {
    modules: Vec<Rows>,
    by_name: HashMap<&'static str, Vec<(usize, &'static Directive)>>,
}

/// One bound block.
pub struct Cells {
    /// What kind of block it is.
    pub place: Places,
    /// The directive that opened it; none for the file itself.
    pub name: Option<Word>,
    /// The words after the name, e.g. a location's modifier and URI.
    pub args: Vec<Word>,
    /// Where the opening `{` stands: the line nginx reports for problems with the block's arguments.
    pub open: Span,
    /// Where the block ends: the line nginx reports for problems with its contents.
    pub close: Span,
    /// Cells by module index; none where the block (before inheritance) set nothing.
    pub modules: Vec<Option<ModuleCells>>,
    /// Blocks inside, in the file's order.
    pub children: Vec<Cells>,
}

impl Registry {
    /// Collects the rows of all modules, in their order of execution.
    pub fn new(modules: Vec<Rows>) -> Registry {
        let mut by_name: HashMap<&'static str, Vec<(usize, &'static Directive)>> = HashMap::new();
        for (index, module) in modules.iter().enumerate() {
            for (name, row) in &module.rows {
                by_name.entry(name).or_default().push((index, row));
            }
        }
        Registry { modules, by_name }
    }

    /// The rows of all modules.
    pub fn modules(&self) -> &[Rows] {
        &self.modules
    }

    /// Names that stand in this place, for "did you mean".
    fn candidates(&self, place: Places) -> impl Iterator<Item = &'static str> {
        known::names().filter(move |name| known::known(name.as_bytes()).iter().any(|k| k.places.meets(place)))
    }

    /// The row of a directive in a place. Several modules may own a name (`server`, `keepalive_timeout`):
    /// the one whose setter belongs there is told by the place its table entry and its module share.
    fn row(&self, name: &str, known: &Known) -> Option<(usize, &'static Directive)> {
        let rows = self.by_name.get(name)?;
        let of_module = |index: usize| nginx_module(self.modules[index].module, known.module);
        rows.iter()
            .find(|(index, _)| of_module(*index))
            .or_else(|| rows.first().filter(|_| rows.len() == 1))
            .copied()
    }
}

/// Does our module name stand for nginx's, e.g. `proxy` for `ngx_http_proxy_module`?
fn nginx_module(ours: &str, nginx: &str) -> bool {
    let bare = nginx.strip_prefix("ngx_").unwrap_or(nginx);
    let bare = bare.split('(').next().unwrap_or(bare).trim_end_matches("_module");
    let bare = bare.strip_prefix("http_").unwrap_or(bare);
    // Our `upstream` has the rows of nginx's `upstream_keepalive`, `upstream_hash` and so on.
    bare == ours || bare.strip_prefix(ours).is_some_and(|rest| rest.starts_with('_'))
}

impl Cells {
    /// An empty block around everything.
    fn new(registry: &Registry, place: Places, node: Option<&Node>, close: Span) -> Cells {
        Cells {
            place,
            name: node.map(|node| node.name.clone()),
            args: node.map(|node| node.args.clone()).unwrap_or_default(),
            open: node.map_or(close, |node| node.end),
            close,
            modules: registry.modules.iter().map(|_| None).collect(),
            children: Vec::new(),
        }
    }

    /// The cells of the module with this index, after binding.
    pub fn module<C: 'static>(&self, index: usize) -> Option<&C> {
        self.modules.get(index)?.as_ref()?.downcast_ref()
    }

    /// The blocks inside that are of this place.
    pub fn inside(&self, place: Places) -> impl Iterator<Item = &Cells> {
        self.children.iter().filter(move |child| child.place == place)
    }
}

/// Binds the whole file and lets every block inherit. Problems go to `services` and to `diagnostics` in the
/// order nginx would meet them.
pub fn bind(
    tree: &conf::Tree,
    registry: &Registry,
    services: &mut dyn Services,
    report: &mut Report,
) -> Cells {
    let mut root = Cells::new(registry, Places::MAIN, None, tree.root.close);
    bind_nodes(&tree.root.nodes, &mut root, registry, services, report);
    fill_defaults(&mut root, registry, services, report);
    inherit(&mut root, registry);
    root
}

/// Where diagnostics are collected.
pub type Report = Vec<Diagnostic>;

fn bind_nodes(
    nodes: &[Node],
    into: &mut Cells,
    registry: &Registry,
    services: &mut dyn Services,
    report: &mut Report,
) {
    // What the parser could not read whole was reported by it.
    for node in nodes.iter().filter(|node| !node.broken) {
        if let Err(problem) = bind_node(node, into, registry, services, report) {
            report.push(diagnostic(&problem, node, "directive"));
        }
    }
}

fn bind_node(
    node: &Node,
    into: &mut Cells,
    registry: &Registry,
    services: &mut dyn Services,
    report: &mut Report,
) -> Result<(), Problem> {
    let known = find(node, into.place, registry)?;
    let Some((index, row)) = registry.row(known.name, known) else {
        return Err(Problem::new(format!("\"{}\" directive is not supported yet", node.name.text))
            .help("Gapura knows this directive of nginx but does not do it yet, so it is refused rather than ignored"));
    };
    let make = registry.modules[index].cells;
    let cells = into.modules[index].get_or_insert_with(make);
    // Nothing shares the cells before inheritance, so this is always the only holder.
    if let Some(cells) = Arc::get_mut(cells) {
        row.set.set(cells, node, services)?;
    }
    if let Some(place) = row.set.nested(into.place)
        && let Some(block) = &node.block
    {
        let mut inner = Cells::new(registry, place, Some(node), block.close);
        bind_nodes(&block.nodes, &mut inner, registry, services, report);
        into.children.push(inner);
    }
    Ok(())
}

/// The table entry for a directive in a place, checked in the order of nginx's `ngx_conf_handler`.
fn find(node: &Node, place: Places, registry: &Registry) -> Result<&'static Known, Problem> {
    let entries = known::known(&node.name.text);
    let name = &node.name.text;
    let Some(known) = entries.iter().find(|entry| entry.places.meets(place)) else {
        if let Some(entry) = entries.first() {
            let places = entries.iter().fold(entry.places, |all, entry| all.and(entry.places));
            return Err(Problem::directive(&node.name, "is not allowed here")
                .help(format!("it is allowed in: {}", places.names())));
        }
        let problem = Problem::new(format!("unknown directive \"{name}\""));
        return Err(match conf::nearest(name, registry.candidates(place)) {
            Some(nearest) => problem.help(format!("did you mean \"{nearest}\"?")),
            None => problem,
        });
    };
    if !known.block && node.block.is_some() {
        return Err(Problem::new(format!("directive \"{name}\" is not terminated by \";\"")));
    }
    if known.block && node.block.is_none() {
        return Err(Problem::new(format!("directive \"{name}\" has no opening \"{{\"")));
    }
    if !known.arguments.accepts(node.args.len()) {
        return Err(Problem::new(format!("invalid number of arguments in \"{name}\" directive")));
    }
    Ok(known)
}

/// Turns a setter's problem into a diagnostic: nginx's line is the one where the directive ends.
pub fn diagnostic(problem: &Problem, node: &Node, id: &'static str) -> Diagnostic {
    let mut diagnostic = Diagnostic::new(id, conf::Level::Emerg, problem.message.clone())
        .at(problem.span.unwrap_or(node.name.span))
        .line(problem.at.unwrap_or(node.end));
    for sentence in &problem.help {
        diagnostic = diagnostic.help(sentence.clone());
    }
    diagnostic
}

/// The outermost block gets every module's cells, filled from the rows' defaults.
fn fill_defaults(root: &mut Cells, registry: &Registry, services: &mut dyn Services, report: &mut Report) {
    for (index, module) in registry.modules.iter().enumerate() {
        let cells = root.modules[index].get_or_insert_with(module.cells);
        fill_module(cells, module, services, report, root.close);
    }
}

fn fill_module(
    cells: &mut ModuleCells,
    module: &Rows,
    services: &mut dyn Services,
    report: &mut Report,
    close: Span,
) {
    let Some(cells) = Arc::get_mut(cells) else { return };
    for (name, row) in &module.rows {
        if let Err(problem) = row.set.default(cells, row.default, services) {
            let message = format!("the default of \"{name}\" is wrong: {}", problem.message);
            report.push(Diagnostic::new("default", conf::Level::Emerg, message).at(close));
        }
    }
}

/// Every block takes from the one around it what it left unset; blocks that set nothing share the outer cells.
fn inherit(outer: &mut Cells, registry: &Registry) {
    for inner in &mut outer.children {
        for (index, module) in registry.modules.iter().enumerate() {
            let Some(outer_cells) = &outer.modules[index] else { continue };
            match inner.modules[index].as_mut().and_then(Arc::get_mut) {
                None => inner.modules[index] = Some(outer_cells.clone()),
                Some(cells) => {
                    for (_, row) in &module.rows {
                        row.set.inherit(&**outer_cells, cells);
                    }
                }
            }
        }
        inherit(inner, registry);
    }
}
