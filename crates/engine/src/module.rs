//! What a module is: rows, variables, and a function that installs it into a location's plan.

use crate::Request;
use crate::core::{Core, Matcher};
use crate::flow::{Filter, Logger, Phase, Step};
use crate::plan::{Plan, PlanId};
use crate::upstream::{Upstream, Upstreams};
use crate::variables::{Computed, Definition, Registry as VariableRegistry};
use bstr::{BStr, BString};
use conf::{Diagnostic, Level, Node, Span};
use schema::bind::{Cells, ModuleCells, diagnostic};
use schema::hash::QuickMap;
use schema::{Directive, Places, Problem, Services, Set};
use std::any::{Any, TypeId};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use template::{Template, VariableId};

/// One module. The list of them, in order of execution, is `modules/src/lib.rs`.
pub struct Module {
    /// Its name as nginx's manual has it, without `ngx_http_` and `_module`.
    pub name: &'static str,
    /// Its directives.
    pub directives: &'static [Directive],
    /// Rows it shares with other modules under a prefix of its own.
    pub families: &'static [Family],
    /// Its variables.
    pub variables: &'static [Variable],
    /// Makes its cells: [`cells::<Conf>`].
    pub cells: fn() -> ModuleCells,
    /// Puts it into plans.
    pub install: Install,
    /// Runs once when everything is installed; for checks over the whole file.
    pub finish: fn(&mut Build) -> Result<(), Problem>,
}

/// How a module comes into the plans of servers, locations, `if`s and `limit_except`s, after inheritance. Installing
/// nothing costs nothing per request.
#[derive(Clone, Copy)]
pub enum Install {
    /// Not at all.
    Never,
    /// Into every plan.
    Always(fn(&mut Installer) -> Result<(), Problem>),
    /// Where one of its directives, or of its families', stands in the block or in one around it. With nothing but
    /// defaults it would install nothing; large configurations are spared the asking.
    WhereSet(fn(&mut Installer) -> Result<(), Problem>),
}

/// Rows shared by several modules: each has them under its own prefix (`proxy_`, `fastcgi_` ...).
pub struct Family {
    /// The prefix with its underscore.
    pub prefix: &'static str,
    /// Rows whose names lack the prefix.
    pub rows: &'static [Directive],
    /// Makes the shared cells.
    pub cells: fn() -> ModuleCells,
}

/// Makes the empty cells of a module.
pub fn cells<C: Default + Any + Send + Sync>() -> ModuleCells {
    Arc::new(C::default())
}

/// For modules with nothing to check in the end.
pub fn finish_nothing(_build: &mut Build) -> Result<(), Problem> {
    Ok(())
}

/// A family's whole directive name. Names live as long as the program, as rows do: each is made once.
pub fn joined(prefix: &'static str, name: &'static str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let whole = format!("{prefix}{name}");
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(whole.as_str()) {
        return known;
    }
    let made: &'static str = Box::leak(whole.into_boxed_str());
    names.insert(made);
    made
}

/// A variable of a module.
pub struct Variable {
    /// Its name without the dollar; a prefix such as `arg_` for [`Read::Prefix`].
    pub name: &'static str,
    /// How it is read.
    pub read: Read,
    /// How `set` changes it, for the few that can be.
    pub write: Option<fn(&mut Request, &[u8])>,
    /// One sentence for the manual.
    pub doc: &'static str,
}

impl Variable {
    /// A variable that is only read.
    pub const fn plain(
        name: &'static str,
        read: fn(&mut Request, &mut Vec<u8>) -> bool,
        doc: &'static str,
    ) -> Variable {
        Variable { name, read: Read::Plain(read), write: None, doc }
    }

    /// As [`Variable::plain`], for [`Read::Printable`].
    pub const fn printable(
        name: &'static str,
        read: fn(&mut Request, &mut Vec<u8>) -> bool,
        doc: &'static str,
    ) -> Variable {
        Variable { name, read: Read::Printable(read), write: None, doc }
    }

    /// A family of variables with names that begin alike.
    pub const fn prefix(
        name: &'static str,
        read: fn(&mut Request, &[u8], &mut Vec<u8>) -> bool,
        doc: &'static str,
    ) -> Variable {
        Variable { name, read: Read::Prefix(read), write: None, doc }
    }
}

/// How a variable is read. The function appends the value and says whether there is one.
#[derive(Clone, Copy)]
pub enum Read {
    /// One name.
    Plain(fn(&mut Request, &mut Vec<u8>) -> bool),
    /// The same; the value is made of visible ASCII letters and spaces, and has neither quotes nor backslashes: logs need
    /// not look for what they would have to escape.
    Printable(fn(&mut Request, &mut Vec<u8>) -> bool),
    /// Every name with that prefix; the function gets the rest of the name.
    Prefix(fn(&mut Request, &[u8], &mut Vec<u8>) -> bool),
}

/// A setter that gets the engine's builder: for directives that declare something (`upstream`, `map`, zones)
/// or read their arguments in a way of their own. `C` is the module's cell type, or `()` where the builder alone keeps
/// what is read: a block then has no cells because of it.
pub struct Declare<C: 'static> {
    /// Reads the directive.
    pub read: fn(&mut C, &Node, &mut Build) -> Result<(), Problem>,
    /// The place of the block inside, when the block is to be bound like its parent.
    pub nested: Option<fn(Places) -> Places>,
    /// Inheritance, where a cell is concerned: fills the inner cells from the outer ones.
    pub inherit: Option<fn(&C, &mut C)>,
    /// Fills a cell that nothing set with its type's own "none".
    pub settle: Option<fn(&mut C)>,
}

impl<C: 'static> Declare<C> {
    /// A declaration that needs no inheritance and opens no bound block.
    pub const fn new(read: fn(&mut C, &Node, &mut Build) -> Result<(), Problem>) -> Self {
        Declare { read, nested: None, inherit: None, settle: None }
    }
}

/// A [`Declare`] that reads with `$read` and inherits one cell of `$cells` as a whole.
#[macro_export]
macro_rules! own {
    ($cells:ty, $read:ident, $cell:ident) => {
        &$crate::module::Declare::<$cells> {
            read: $read,
            nested: None,
            inherit: Some(|outer, inner| inner.$cell.inherit_from(&outer.$cell)),
            settle: Some(|cells| cells.$cell.settle()),
        }
    };
}

impl<C: 'static> Set for Declare<C> {
    fn set(&self, cells: &mut dyn Any, node: &Node, services: &mut dyn Services) -> Result<(), Problem> {
        match services.any().downcast_mut::<Build>() {
            Some(build) => (self.read)(schema::directive::own_mut(cells), node, build),
            None => Err(Problem::new("directives are bound without the engine's builder")),
        }
    }

    fn inherit(&self, outer: &dyn Any, inner: &mut dyn Any) {
        if let Some(inherit) = self.inherit {
            inherit(schema::directive::own(outer), schema::directive::own_mut(inner));
        }
    }

    fn default(&self, cells: &mut dyn Any, _text: &str, _services: &mut dyn Services) -> Result<(), Problem> {
        if let Some(settle) = self.settle {
            settle(schema::directive::own_mut(cells));
        }
        Ok(())
    }

    fn keeps(&self) -> bool {
        TypeId::of::<C>() != TypeId::of::<()>()
    }

    fn nested(&self, outer: Places) -> Option<Places> {
        self.nested.map(|nested| nested(outer))
    }
}

/// What a configuration is built into while it is read; becomes the parts of a `Snapshot`.
pub struct Build {
    /// Variables known so far.
    pub variables: VariableRegistry,
    /// Upstream groups by name, in the file's order.
    pub upstreams: Upstreams,
    /// Issuers of certificates.
    pub issuers: Vec<Arc<crate::acme::Issuer>>,
    /// The machine's name, for `$hostname`.
    pub hostname: BString,
    /// Relative paths hang from here.
    pub prefix: BString,
    /// Relative includes, certificates and password files hang from here.
    pub conf_prefix: BString,
    /// The access log where the configuration names none, absolute.
    pub access_log: BString,
    /// Who is asked for names while the configuration is read.
    pub names: Arc<dyn crate::compile::Names>,
    /// What was found wrong or noteworthy.
    pub diagnostics: Vec<Diagnostic>,
    /// Log files by path, opened once the configuration is known to be good.
    pub logs: crate::log::Logs,
    /// Files that directives other than `include` read, for `-T`.
    pub files: Arc<dyn conf::Files + Send + Sync>,
    /// Folders for temporary files, and whether the configuration names them itself.
    pub folders: Vec<(crate::core::values::TempPath, bool)>,
    /// Directives accepted without effect, by name.
    pub idle: Vec<BString>,
    /// The blocks around the directive that is read now, by where they open, the innermost last.
    pub blocks: Vec<Span>,
    /// Regular expressions by pattern, those without regard to case second: the servers of a large configuration
    /// have many in common.
    regexes: [QuickMap<BString, CompiledRegex>; 2],
    /// How locations are found.
    matchers: Vec<Matcher>,
    /// Which of them is whose, by where the location's block opens.
    matcher_of: QuickMap<Span, u32>,
    /// What modules made of cells: see [`Installer::once`].
    made: QuickMap<(usize, TypeId), Arc<dyn Any + Send + Sync>>,
    /// State of modules that lives across blocks, by the module's own type.
    pub shared: QuickMap<TypeId, Box<dyn Any>>,
}

impl Build {
    /// A builder with nothing built.
    pub fn new(
        variables: VariableRegistry,
        surroundings: &crate::compile::Surroundings,
        files: Arc<dyn conf::Files + Send + Sync>,
    ) -> Build {
        Build {
            variables,
            upstreams: Upstreams::default(),
            issuers: Vec::new(),
            hostname: surroundings.hostname.clone(),
            prefix: surroundings.prefix.clone(),
            conf_prefix: surroundings.conf_prefix.clone(),
            access_log: surroundings.access_log.clone(),
            names: surroundings.names.clone(),
            diagnostics: Vec::new(),
            logs: crate::log::Logs::default(),
            files,
            idle: Vec::new(),
            blocks: Vec::new(),
            folders: Vec::new(),
            regexes: Default::default(),
            matchers: Vec::new(),
            matcher_of: QuickMap::default(),
            made: QuickMap::default(),
            shared: QuickMap::default(),
        }
    }

    /// How the location is found whose block opens there.
    pub fn matcher(&self, open: Span) -> Option<&Matcher> {
        self.matchers.get(*self.matcher_of.get(&open)? as usize)
    }

    /// As [`Build::matcher`], for when nobody will ask again.
    pub(crate) fn take_matcher(&mut self, open: Span) -> Option<Matcher> {
        let known = self.matchers.get_mut(self.matcher_of.remove(&open)? as usize)?;
        Some(std::mem::replace(known, Matcher::Named(BString::default())))
    }

    /// As [`Build::matcher`], for the block around the directive that is read now.
    pub fn matcher_around(&self) -> Option<&Matcher> {
        self.matcher(*self.blocks.last()?)
    }

    /// Keeps how a location is found.
    pub fn add_matcher(&mut self, open: Span, matcher: Matcher) {
        self.matcher_of.insert(open, self.matchers.len() as u32);
        self.matchers.push(matcher);
    }

    /// Compiles text with variables.
    ///
    /// # Errors
    /// Unknown variables and bad syntax in nginx's words.
    pub fn template(&mut self, text: &BStr) -> Result<Template, Problem> {
        Template::compile(text, &mut self.variables).map_err(|error| Problem::new(error.to_string()))
    }

    /// Compiles a regular expression; its named groups become variables.
    ///
    /// # Errors
    /// The pattern is wrong, in nginx's words.
    pub fn regex(&mut self, pattern: &BStr, caseless: bool) -> Result<CompiledRegex, Problem> {
        if let Some(known) = self.regexes[usize::from(caseless)].get(pattern) {
            return Ok(known.clone());
        }
        let regex =
            template::Regex::new(pattern, caseless).map_err(|error| Problem::new(error.to_string()))?;
        let named = regex.names().iter().map(|(name, group)| Ok((*group, self.variables.capture(name)?)));
        let named = named.collect::<Result<Vec<_>, Problem>>()?;
        let made = CompiledRegex { regex: Arc::new(regex), named: named.into() };
        self.regexes[usize::from(caseless)].insert(pattern.to_owned(), made.clone());
        Ok(made)
    }

    /// Defines a variable that configuration computes (`map`, `geo` ...).
    ///
    /// # Errors
    /// The name belongs to a variable that cannot be changed.
    pub fn define(&mut self, name: &[u8], computed: Arc<dyn Computed>) -> Result<VariableId, Problem> {
        self.variables.define(name, Definition::Computed(computed))
    }

    /// Notes a folder for temporary files, to be made before anything is served.
    pub fn keep_folder(&mut self, folder: &crate::core::values::TempPath, is_named: bool) {
        match self.folders.iter_mut().find(|(known, _)| known.path == folder.path) {
            Some((_, named)) => *named |= is_named,
            None => self.folders.push((folder.clone(), is_named)),
        }
    }

    /// The group of this name.
    pub fn upstream(&self, name: &[u8]) -> Option<Arc<Upstream>> {
        self.upstreams.named(name).cloned()
    }

    /// A path relative to the prefix, made absolute.
    pub fn full_path(&self, path: &BStr) -> BString {
        full_path(self.prefix.as_ref(), path)
    }

    /// A path relative to the configuration's folder, made absolute.
    pub fn conf_path(&self, path: &BStr) -> BString {
        full_path(self.conf_prefix.as_ref(), path)
    }

    /// State that a module keeps while the configuration is read, made on first use.
    pub fn shared<T: Default + 'static>(&mut self) -> &mut T {
        let slot = self.shared.entry(TypeId::of::<T>()).or_insert_with(|| Box::<T>::default());
        schema::directive::own_mut(&mut **slot)
    }

    /// Adds a diagnostic of this level for a directive.
    pub fn report(&mut self, level: Level, problem: &Problem, node: &Node) {
        let mut made = diagnostic(problem, node, "directive");
        made.level = level;
        self.diagnostics.push(made);
    }
}

/// A regular expression of the configuration and the variables its named groups set.
#[derive(Clone)]
pub struct CompiledRegex {
    /// The expression.
    pub regex: Arc<template::Regex>,
    /// Group number and variable of every named group.
    pub named: Arc<[(usize, VariableId)]>,
}

pub(crate) fn full_path(prefix: &BStr, path: &BStr) -> BString {
    if path.starts_with(b"/") {
        return path.to_owned();
    }
    let mut full = prefix.to_owned();
    full.extend_from_slice(path);
    full
}

impl template::Names for Build {
    fn variable(&mut self, name: &[u8]) -> Result<VariableId, template::UnknownVariable> {
        self.variables.variable(name)
    }
}

impl Services for Build {
    fn names(&mut self) -> &mut dyn template::Names {
        &mut self.variables
    }

    fn prefix(&self) -> &BStr {
        self.prefix.as_ref()
    }

    fn conf_prefix(&self) -> &BStr {
        self.conf_prefix.as_ref()
    }

    fn warn(&mut self, problem: Problem, node: &Node) {
        self.report(Level::Warn, &problem, node);
    }

    fn refuse(&mut self, problem: Problem, node: &Node) {
        self.report(Level::Emerg, &problem, node);
    }

    fn reads(&mut self, node: &Node) {
        self.variables.place = Some((node.name.span, node.end));
    }

    fn enters(&mut self, node: &Node) {
        self.blocks.push(node.end);
    }

    fn leaves(&mut self) {
        self.blocks.pop();
    }

    fn unbuilt(&mut self, node: &Node) {
        // Such a directive may well have been the one that defines a variable.
        let names = node.args.iter().filter_map(|word| word.text.strip_prefix(b"$"));
        names.for_each(|name| self.variables.excuse(name));
    }

    fn idle(&mut self, node: &Node) {
        if !self.idle.contains(&node.name.text) {
            self.idle.push(node.name.text.clone());
        }
    }

    fn any(&mut self) -> &mut dyn Any {
        self
    }
}

/// What a module's `install` works on: one block's cells and the plan they become.
pub struct Installer<'a> {
    /// What kind of block it is.
    pub place: Places,
    /// The block.
    pub cells: &'a Cells,
    /// The block around it.
    pub outer: Option<&'a Cells>,
    /// The builder.
    pub build: &'a mut Build,
    /// The plan being made.
    pub plan: &'a mut Plan,
    /// Plans of the blocks inside this one, by where the block opens (`if`, `limit_except`).
    pub inner: &'a HashMap<Span, PlanId>,
    /// Index of the module's cells, then of its families' cells.
    pub index: usize,
}

impl<'a> Installer<'a> {
    /// The module's own cells, if the block itself holds directives of the module: for what is not inherited.
    ///
    /// # Panics
    /// When `C` is not the module's cell type.
    pub fn own<C: 'static>(&self) -> Option<&'a C> {
        let conf = self.conf::<C>();
        let outer = self.outer.and_then(|outer| outer.module::<C>(self.index));
        (!outer.is_some_and(|outer| std::ptr::eq(outer, conf))).then_some(conf)
    }

    /// Keeps something that variables or filters look up by [`Plan::kept`] while a request is served.
    pub fn keep<T: Any + Send + Sync>(&mut self, kept: T) {
        self.keep_shared(Arc::new(kept));
    }

    /// As [`Installer::keep`], for what other blocks have too: see [`Installer::once`].
    pub fn keep_shared<T: Any + Send + Sync>(&mut self, kept: Arc<T>) {
        let kept: Arc<dyn Any + Send + Sync> = kept;
        push(&mut self.plan.kept, (TypeId::of::<T>(), kept));
    }

    /// What is made of the module's own cells alone: once for all blocks that share them.
    ///
    /// # Panics
    /// When `C` is not the module's cell type.
    pub fn once<C: 'static, T: Any + Send + Sync>(
        &mut self,
        make: impl FnOnce(&'a C, &mut Build) -> T,
    ) -> Arc<T> {
        let conf = self.conf::<C>();
        // The cells outlive the builder, so that no address can stand for others later.
        let key = (std::ptr::from_ref(conf).addr(), TypeId::of::<T>());
        if let Some(known) = self.build.made.get(&key).and_then(|made| made.clone().downcast().ok()) {
            return known;
        }
        let made = Arc::new(make(conf, self.build));
        self.build.made.insert(key, made.clone());
        made
    }

    /// The module's own cells of this block.
    ///
    /// # Panics
    /// When `C` is not the module's cell type.
    pub fn conf<C: 'static>(&self) -> &'a C {
        self.cells_at(self.index)
    }

    /// The cells of the module's `n`th family.
    ///
    /// # Panics
    /// When `C` is not that family's cell type.
    pub fn family<C: 'static>(&self, n: usize) -> &'a C {
        self.cells_at(self.index + 1 + n)
    }

    /// As [`Installer::family`], to keep beyond the installation.
    ///
    /// # Panics
    /// As [`Installer::family`].
    pub fn family_shared<C: Any + Send + Sync>(&self, n: usize) -> Arc<C> {
        let cells = self.cells.shared(self.index + 1 + n).cloned();
        cells.and_then(|cells| cells.downcast().ok()).expect("a family's cells have its own type")
    }

    fn cells_at<C: 'static>(&self, index: usize) -> &'a C {
        self.cells.module(index).expect("a module's cells have its own type")
    }

    /// The settings every location has.
    pub fn core(&self) -> &Core {
        &self.plan.core
    }

    /// Adds a step to a phase, behind those of earlier modules.
    pub fn step(&mut self, phase: Phase, step: impl Step + 'static) {
        self.shared_step(phase, Arc::new(step));
    }

    /// As [`Installer::step`], for one that other blocks have too: see [`Installer::once`].
    pub fn shared_step(&mut self, phase: Phase, step: Arc<impl Step + 'static>) {
        self.plan.steps.push(phase, step);
    }

    /// Makes a step the location's one handler of content; the first module to do so wins.
    pub fn handler(&mut self, step: impl Step + 'static) {
        self.plan.handler.get_or_insert_with(|| Arc::new(step));
    }

    /// Adds a filter behind those of earlier modules.
    pub fn filter(&mut self, filter: impl Filter + 'static) {
        self.shared_filter(Arc::new(filter));
    }

    /// As [`Installer::filter`], for one that other blocks have too: see [`Installer::once`].
    pub fn shared_filter(&mut self, filter: Arc<impl Filter + 'static>) {
        push(&mut self.plan.filters, filter);
    }

    /// Adds a logger that other blocks may have too: see [`Installer::once`].
    pub fn shared_logger(&mut self, logger: Arc<impl Logger + 'static>) {
        push(&mut self.plan.loggers, logger);
    }
}

/// Adds to a list that stays short, of which a large configuration has many.
fn push<T>(list: &mut Vec<T>, item: T) {
    list.reserve_exact(1);
    list.push(item);
}
