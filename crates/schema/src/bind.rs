//! Binds a tree to typed cells: finds each directive's row, checks place and arity, calls the setter, opens
//! nested blocks, and afterwards lets every block inherit from the one around it.

use crate::known::{self, Known};
use crate::{Directive, Places, Problem, elsewhere};
use conf::{Diagnostic, Node, SourceMap, Span, Word};
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

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
    /// This directive is read from here on.
    fn reads(&mut self, node: &Node);
    /// What is read from here on stands in the block of this directive.
    fn enters(&mut self, node: &Node);
    /// The innermost block ends.
    fn leaves(&mut self);
    /// A directive that is known but not built; it was reported.
    fn unbuilt(&mut self, node: &Node);
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

/// All modules' rows with an index by table entry.
pub struct Registry {
    modules: Vec<Arc<Rows>>,
    /// By [`Known::number`].
    by_entry: Vec<Option<(usize, &'static Directive)>>,
}

/// More modules than there are, each family counted.
const MODULES_MAX: usize = 128;

/// Some of the modules, by index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModuleSet(u128);

impl ModuleSet {
    /// These, one after the other.
    ///
    /// # Panics
    /// Where there are not that many modules: a mistake in the program.
    pub fn range(indexes: std::ops::Range<usize>) -> ModuleSet {
        indexes.map(ModuleSet::one).fold(ModuleSet::default(), ModuleSet::and)
    }

    fn one(index: usize) -> ModuleSet {
        assert!(index < MODULES_MAX, "there are at most {MODULES_MAX} modules");
        ModuleSet(1 << index)
    }

    fn of(cells: &[(usize, ModuleCells)]) -> ModuleSet {
        cells.iter().map(|(index, _)| ModuleSet::one(*index)).fold(ModuleSet::default(), ModuleSet::and)
    }

    /// Those of both.
    pub fn and(self, other: ModuleSet) -> ModuleSet {
        ModuleSet(self.0 | other.0)
    }

    /// Is any module in both?
    pub fn meets(self, other: ModuleSet) -> bool {
        self.0 & other.0 != 0
    }
}

/// One bound block.
pub struct Cells {
    /// What kind of block it is.
    pub place: Places,
    /// The words after the name of the directive that opened it; not those of locations, of which there are many and
    /// whose setter keeps what they say.
    pub args: Vec<Word>,
    /// Where the opening `{` stands: the line nginx reports for problems with the block's arguments.
    pub open: Span,
    /// Where the block ends: the line nginx reports for problems with its contents.
    pub close: Span,
    /// Cells of the modules of which the block itself sets something, by module index.
    own: Vec<(usize, ModuleCells)>,
    /// Those of all others; none before inheritance.
    inherited: Option<Arc<Inherited>>,
    /// Blocks inside, in the file's order.
    pub children: Vec<Cells>,
}

/// What the blocks inside one block have of it when they set nothing themselves.
struct Inherited {
    /// The modules of which a block around them sets something.
    set: ModuleSet,
    /// Of modules of which a block around them sets something: what is inherited from there, by module index.
    heirs: Vec<(usize, Arc<Heir>)>,
    /// The defaults, by module index.
    defaults: Arc<[ModuleCells]>,
}

/// What is inherited from a block's own cells: made when it is asked for, which it often is not.
struct Heir {
    outer: ModuleCells,
    module: Arc<Rows>,
    made: OnceLock<ModuleCells>,
}

/// More heirs than this are put into a table of all modules.
const LISTED_HEIRS_MAX: usize = 8;

impl Registry {
    /// Collects the rows of all modules, in their order of execution.
    pub fn new(modules: Vec<Rows>) -> Registry {
        let mut by_name: HashMap<&'static str, Vec<(usize, &'static Directive)>> = HashMap::new();
        for (index, module) in modules.iter().enumerate() {
            for (name, row) in &module.rows {
                by_name.entry(name).or_default().push((index, row));
            }
        }
        let mut by_entry = vec![None; known::count()];
        for (name, rows) in &by_name {
            for known in known::known(name.as_bytes()) {
                by_entry[known.number] = row(&modules, rows, known);
            }
        }
        Registry { modules: modules.into_iter().map(Arc::new).collect(), by_entry }
    }

    /// The rows of all modules.
    pub fn modules(&self) -> &[Arc<Rows>] {
        &self.modules
    }

    /// The row of a table entry.
    pub fn row(&self, known: &Known) -> Option<(usize, &'static Directive)> {
        self.by_entry.get(known.number).copied().flatten()
    }
}

/// Which of the rows with an entry's name is the entry's. Several modules may own a name (`server`,
/// `keepalive_timeout`): the row is that of the module which stands for the entry's; a name that is ours once may be in
/// any module of ours.
fn row(
    modules: &[Rows],
    rows: &[(usize, &'static Directive)],
    known: &Known,
) -> Option<(usize, &'static Directive)> {
    let nginx = bare(known.module);
    let module = |index: usize| modules[index].module;
    rows.iter()
        .find(|(index, _)| belongs(module(*index), nginx))
        .or_else(|| {
            rows.first().filter(|(index, _)| rows.len() == 1 && protocol(module(*index)) == protocol(nginx))
        })
        .copied()
}

/// nginx's module without what all of them have, e.g. `proxy` for `ngx_http_proxy_module`.
fn bare(nginx: &str) -> &str {
    let bare = nginx.split('(').next().unwrap_or(nginx);
    let bare =
        bare.strip_prefix("ngx_").unwrap_or(bare).trim_end_matches("_module").trim_end_matches("_filter");
    bare.strip_prefix("http_").unwrap_or(bare)
}

/// Does our module hold the rows of this one? nginx has small modules of which ours has the rows together, e.g.
/// `upstream` those of `upstream_keepalive`.
fn belongs(ours: &str, nginx: &str) -> bool {
    nginx.strip_prefix(ours).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// Modules of other protocols share names with those of HTTP, and nothing else.
fn protocol(module: &str) -> &'static str {
    ["stream", "mail"].into_iter().find(|protocol| module.starts_with(protocol)).unwrap_or("")
}

impl Cells {
    /// An empty block.
    fn new(place: Places, node: Option<&Node>, close: Span) -> Cells {
        let open = node.map_or(close, |node| node.end);
        let args = node.filter(|_| place != Places::LOCATION).map(|node| node.args.clone());
        let args = args.unwrap_or_default();
        Cells { place, args, open, close, own: Vec::new(), inherited: None, children: Vec::new() }
    }

    /// The cells of the module with this index, after binding.
    pub fn module<C: 'static>(&self, index: usize) -> Option<&C> {
        self.shared(index)?.downcast_ref()
    }

    /// As [`Cells::module`], to keep.
    pub fn shared(&self, index: usize) -> Option<&ModuleCells> {
        self.own_cells(index).or_else(|| self.inherited.as_ref()?.cells(index))
    }

    fn own_cells(&self, index: usize) -> Option<&ModuleCells> {
        self.own.iter().find(|(own, _)| *own == index).map(|(_, cells)| cells)
    }

    /// The block's own cells of a module, made when it has none yet. Nothing shares them before inheritance.
    fn own_mut(&mut self, index: usize, make: fn() -> ModuleCells) -> Option<&mut (dyn Any + Send + Sync)> {
        let at = self.own.iter().position(|(own, _)| *own == index).unwrap_or_else(|| {
            self.own.push((index, make()));
            self.own.len() - 1
        });
        Arc::get_mut(&mut self.own[at].1)
    }

    /// The modules of which this block or one around it sets something. All others have their defaults here.
    pub fn set(&self) -> ModuleSet {
        let around = self.inherited.as_ref().map(|inherited| inherited.set).unwrap_or_default();
        around.and(ModuleSet::of(&self.own))
    }

    /// The blocks inside that are of one of these places.
    pub fn inside(&self, places: Places) -> impl Iterator<Item = &Cells> {
        self.children.iter().filter(move |child| child.place.meets(places))
    }

    /// How many blocks there are, this one and all inside.
    pub fn count(&self) -> usize {
        1 + self.children.iter().map(Cells::count).sum::<usize>()
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
    let mut root = Cells::new(Places::MAIN, None, tree.root.close);
    bind_nodes(&tree.root.nodes, &mut root, registry, services, report);
    if !report.is_empty() {
        hint_semicolons(&tree.root.nodes, &tree.sources, report);
    }
    let set = ModuleSet::of(&root.own);
    fill_defaults(&mut root, registry, services, report);
    // The outermost block has every module's defaults; what it says itself is for the program.
    let defaults = (0..registry.modules.len()).filter_map(|index| root.own_cells(index).cloned()).collect();
    inherit(&mut root, &Arc::new(Inherited { set, heirs: Vec::new(), defaults }), registry);
    root
}

/// Where diagnostics are collected.
pub type Report = Vec<Diagnostic>;

/// The commonest slip: a `;` is forgotten, and the next line becomes part of the directive. Where a directive was
/// refused and one of its words is a directive's name at the start of a line, the place before it is marked.
fn hint_semicolons(nodes: &[Node], sources: &SourceMap, report: &mut Report) {
    for node in nodes {
        for diagnostic in report.iter_mut().filter(|found| found.line_span == Some(node.end)) {
            if let Some(place) = missing_semicolon(node, sources) {
                diagnostic.labels.push((place, "is a \";\" missing here?".to_owned()));
            }
        }
        if let Some(block) = &node.block {
            hint_semicolons(&block.nodes, sources, report);
        }
    }
}

fn missing_semicolon(node: &Node, sources: &SourceMap) -> Option<Span> {
    let mut before = node.name.span;
    for word in &node.args {
        let line = |offset| sources.line_of(before.file, offset);
        if line(before.end) < line(word.span.start) && !known::known(&word.text).is_empty() {
            return Some(Span { start: before.end, ..before });
        }
        before = word.span;
    }
    None
}

fn bind_nodes(
    nodes: &[Node],
    into: &mut Cells,
    registry: &Registry,
    services: &mut dyn Services,
    report: &mut Report,
) {
    // Directives without a cell that may stand only once in a block; the others' cells know.
    let mut seen = HashMap::new();
    // What the parser could not read whole was reported by it.
    for node in nodes.iter().filter(|node| !node.broken) {
        if let Err(problem) = bind_node(node, into, registry, &mut seen, services, report) {
            report.push(diagnostic(&problem, node, "directive"));
        }
    }
}

fn bind_node(
    node: &Node,
    into: &mut Cells,
    registry: &Registry,
    seen: &mut HashMap<&'static str, Span>,
    services: &mut dyn Services,
    report: &mut Report,
) -> Result<(), Problem> {
    services.reads(node);
    let known = find(node, into.place)?;
    let row = registry.row(known);
    if row.is_none_or(|(_, row)| row.set.is_idle()) {
        let is_single = known.kind.is_single() || row.is_some_and(|(_, row)| row.set.is_single());
        if is_single && let Some(first) = seen.insert(known.name, node.name.span) {
            return Err(Problem::duplicate(&node.name, Some(first)));
        }
        known.kind.check(node, services)?;
    }
    let Some((index, row)) = row else {
        report.push(diagnostic(
            &Problem::unbuilt(format_args!("\"{}\" directive", known.name)),
            node,
            "unbuilt",
        ));
        services.unbuilt(node);
        // What stands inside is looked at all the same, for people who want to know everything at once.
        if let (Some(place), Some(block)) = (known.opens(into.place), &node.block) {
            let mut inner = Cells::new(place, Some(node), block.close);
            services.enters(node);
            bind_nodes(&block.nodes, &mut inner, registry, services, report);
            services.leaves();
        }
        return Ok(());
    };
    if row.set.keeps() {
        let make = registry.modules[index].cells;
        if let Some(cells) = into.own_mut(index, make) {
            row.set.set(cells, node, services)?;
        }
    } else {
        row.set.set(&mut (), node, services)?;
    }
    if let Some(place) = row.set.nested(into.place)
        && let Some(block) = &node.block
    {
        let mut inner = Cells::new(place, Some(node), block.close);
        let found = report.len();
        services.enters(node);
        bind_nodes(&block.nodes, &mut inner, registry, services, report);
        services.leaves();
        let inside = inner.own_cells(index).map(|cells| &**cells as &dyn Any);
        // What is missing may be what was wrong.
        if let (true, Err(problem)) = (found == report.len(), row.set.closes(inside)) {
            report.push(diagnostic(&problem.at(block.close), node, "block"));
        }
        into.children.push(inner);
    }
    Ok(())
}

/// The table entry for a directive in a place, checked in the order of nginx's `ngx_conf_handler`.
fn find(node: &Node, place: Places) -> Result<&'static Known, Problem> {
    let entries = known::known(&node.name.text);
    let name = &node.name.text;
    // nginx-acme reads the directives of its block by itself, and knows no others there.
    let is_own = place == Places::ACME_ISSUER;
    let Some(known) = entries.iter().find(|entry| entry.places.meets(place)) else {
        let is_unknown = entries.is_empty() || is_own;
        return Err(if is_unknown { unknown(node, place) } else { misplaced(node, entries, place) });
    };
    if !known.block && node.block.is_some() {
        return Err(Problem::new(format!("directive \"{name}\" is not terminated by \";\"")));
    }
    if known.block && node.block.is_none() {
        return Err(Problem::new(format!("directive \"{name}\" has no opening \"{{\"")));
    }
    if !known.arguments.accepts(node.args.len()) {
        let word = if is_own { "" } else { " directive" };
        return Err(Problem::new(format!("invalid number of arguments in \"{name}\"{word}"))
            .help(format!("\"{name}\" takes {}", known.arguments.described())));
    }
    Ok(known)
}

/// A directive that nginx does not have: perhaps it is misspelt, perhaps it belongs to something else.
fn unknown(node: &Node, place: Places) -> Problem {
    let name = &node.name.text;
    let problem = Problem::new(format!("unknown directive \"{name}\""));
    if let Some(sentence) = elsewhere::sentence(name) {
        return problem.help(sentence);
    }
    // What may stand here is meant rather than what may not.
    let here =
        known::names().filter(|name| known::known(name.as_bytes()).iter().any(|k| k.places.meets(place)));
    match conf::nearest(name, here).or_else(|| conf::nearest(name, known::names())) {
        Some(nearest) => problem.help(format!("did you mean \"{nearest}\"?")),
        None => problem,
    }
}

/// A directive in a block where nginx does not take it.
fn misplaced(node: &Node, entries: &[Known], place: Places) -> Problem {
    let places = entries.iter().fold(Places(0), |all, entry| all.and(entry.places));
    Problem::directive(&node.name, "is not allowed here").help(format!(
        "this is {}; it is allowed in: {}",
        place.described(),
        places.names()
    ))
}

/// Turns a setter's problem into a diagnostic: nginx's line is the one where the directive ends.
pub fn diagnostic(problem: &Problem, node: &Node, id: &'static str) -> Diagnostic {
    let mut diagnostic = Diagnostic::new(id, conf::Level::Emerg, problem.message.clone())
        .at(problem.span.unwrap_or(node.name.span))
        .line(problem.at.unwrap_or(node.end));
    for sentence in &problem.help {
        diagnostic = diagnostic.help(sentence.clone());
    }
    diagnostic.labels.extend(problem.labels.iter().cloned());
    diagnostic.ours = problem.unbuilt;
    diagnostic
}

/// The outermost block gets every module's cells, filled from the rows' defaults.
fn fill_defaults(root: &mut Cells, registry: &Registry, services: &mut dyn Services, report: &mut Report) {
    let close = root.close;
    for (index, module) in registry.modules.iter().enumerate() {
        let Some(cells) = root.own_mut(index, module.cells) else { continue };
        for (name, row) in &module.rows {
            if let Err(problem) = row.set.default(cells, row.default, services) {
                let message = format!("the default of \"{name}\" is wrong: {}", problem.message);
                report.push(Diagnostic::new("default", conf::Level::Emerg, message).at(close));
            }
        }
    }
}

/// Every block takes from the one around it what it left unset. What belongs to a block alone (a `proxy_pass`) has no
/// inheritance in its row, so cells are shared only with a block that set nothing itself; the blocks inside one that
/// did, and set nothing themselves, share theirs with each other. `heirs` is what the blocks inside inherit.
fn inherit(outer: &mut Cells, heirs: &Arc<Inherited>, registry: &Registry) {
    let mut children = std::mem::take(&mut outer.children);
    for inner in &mut children {
        for (index, cells) in &mut inner.own {
            if let Some(outer_cells) = outer.shared(*index) {
                take_over(outer_cells, cells, &registry.modules[*index]);
            }
        }
        inner.inherited = Some(heirs.clone());
        if inner.children.is_empty() {
            continue;
        }
        match inner.own.is_empty() {
            true => inherit(inner, heirs, registry),
            false => inherit(inner, &Arc::new(heirs.below(&inner.own, registry)), registry),
        }
    }
    outer.children = children;
}

impl Inherited {
    fn cells(&self, index: usize) -> Option<&ModuleCells> {
        match self.heirs.iter().find(|(heir, _)| *heir == index) {
            Some((_, heir)) => Some(heir.cells()),
            None => self.defaults.get(index),
        }
    }

    /// What blocks inherit that stand in one with these cells of its own.
    fn below(&self, own: &[(usize, ModuleCells)], registry: &Registry) -> Inherited {
        let heir = |(index, outer): &(usize, ModuleCells)| {
            let (outer, module) = (outer.clone(), registry.modules[*index].clone());
            (*index, Arc::new(Heir { outer, module, made: OnceLock::new() }))
        };
        let further = self.heirs.iter().filter(|(index, _)| own.iter().all(|(own, _)| own != index));
        let heirs = own.iter().map(heir).chain(further.cloned()).collect();
        let set = self.set.and(ModuleSet::of(own));
        let made = Inherited { set, heirs, defaults: self.defaults.clone() };
        if made.heirs.len() <= LISTED_HEIRS_MAX {
            return made;
        }
        let defaults = (0..made.defaults.len()).filter_map(|index| made.cells(index).cloned()).collect();
        Inherited { set, heirs: Vec::new(), defaults }
    }
}

impl Heir {
    fn cells(&self) -> &ModuleCells {
        self.made.get_or_init(|| {
            let mut made = (self.module.cells)();
            take_over(&self.outer, &mut made, &self.module);
            made
        })
    }
}

/// Fills what the inner cells left unset.
fn take_over(outer: &ModuleCells, inner: &mut ModuleCells, module: &Rows) {
    // Nothing shares cells that were not inherited yet.
    if let Some(inner) = Arc::get_mut(inner) {
        for (_, row) in &module.rows {
            row.set.inherit(&**outer, inner);
        }
    }
}
