//! A configuration's life: text to tree (`conf`), tree to cells (`schema`), cells to a [`Snapshot`] here.
//!
//! Failure anywhere leaves nothing behind: the caller keeps the snapshot it has.

use crate::core::Matcher;
use crate::core::listen::ListenLine;
use crate::core::{Core, Folder, LOCATION_INDEX, MAIN_INDEX, MainCore, ROOT_INDEX, SERVER_INDEX, ServerCore};
use crate::locate::{Locations, Sets};
use crate::log::Logs;
use crate::module::{Build, Install, Installer, Module};
use crate::plan::{Alias, Plan, PlanId, Site, SiteId, Snapshot};
use crate::variables::{Registry as VariableRegistry, Unknown};
use bstr::BString;
use conf::{Diagnostic, Parsed, SourceMap, Span};
use net::resolver::startup::{StartupError, lookup_all};
use schema::bind::{Cells, ModuleSet, Rows};
use schema::{Places, Problem, Registry};
use std::any::Any;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long the names of a configuration may take to be looked up.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(5);

/// Looks names up while a configuration is read.
pub trait Names: std::fmt::Debug + Send + Sync {
    /// The addresses of each name, in the names' order.
    fn look_up(&self, names: &[String]) -> Vec<Result<Vec<IpAddr>, StartupError>>;
}

/// Asks the system.
#[derive(Clone, Copy, Debug)]
pub struct SystemNames;

impl Names for SystemNames {
    fn look_up(&self, names: &[String]) -> Vec<Result<Vec<IpAddr>, StartupError>> {
        lookup_all(names, LOOKUP_TIME_MAX)
    }
}

/// Where a configuration hangs in the file system, and who knows the addresses of its names.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Relative paths hang from here; ends in a slash.
    pub prefix: BString,
    /// The folder of the main file; ends in a slash.
    pub conf_prefix: BString,
    /// The machine's name.
    pub hostname: BString,
    /// May it listen on port 80? Decides the port of a server without `listen`.
    pub default_port: u16,
    /// The error log where the configuration names none.
    pub error_log: crate::log::Target,
    /// The access log where the configuration names none, absolute.
    pub access_log: BString,
    /// Who is asked for names.
    pub names: Arc<dyn Names>,
}

/// What came of a configuration.
pub struct Compiled {
    /// The snapshot, if nothing was wrong.
    pub snapshot: Option<Box<Snapshot>>,
    /// Settings of the process; defaults where the file was wrong.
    pub main: MainCore,
    /// The file's own `error_log` lines at the top level.
    pub error_log: Vec<crate::log::ErrorLog>,
    /// Log targets, for opening them.
    pub logs: Logs,
    /// What was found, in the order nginx would find it.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts, for rendering the diagnostics and for `-T`.
    pub sources: SourceMap,
    /// Folders for temporary files, and whether the configuration names them itself.
    pub folders: Vec<(crate::core::values::TempPath, bool)>,
    /// Directives accepted though there is nothing to tune here.
    pub idle: Vec<BString>,
    /// What it was made of.
    pub spent: Spent,
}

/// What a configuration was made of and nobody asks any more. To be dropped when there is time: taking a large one
/// apart takes nearly as long as reading it.
#[expect(dead_code, reason = "only dropped")]
pub struct Spent(conf::Block, Cells);

impl Compiled {
    /// Opens the logs: the snapshot can serve then.
    ///
    /// # Errors
    /// The configuration was wrong, or a log cannot be opened; the message is nginx's.
    pub fn activate(&mut self, files: &net::log::file::LogFiles) -> Result<Arc<Snapshot>, String> {
        let mut snapshot = self.snapshot.take().ok_or("the configuration has errors")?;
        let opened = self.logs.open(files);
        snapshot.logs = opened.map_err(|(path, error)| {
            format!("{} \"{path}\" failed ({})", error.call, net::errno::ErrnoMessage(error.errno))
        })?;
        Ok(Arc::from(snapshot))
    }

    /// Was everything right?
    pub fn is_good(&self) -> bool {
        self.snapshot.is_some()
    }
}

/// Compiles what was parsed, with these modules in order of execution.
pub fn compile(
    parsed: Parsed,
    modules: &[&'static Module],
    surroundings: &Surroundings,
    files: Arc<dyn conf::Files + Send + Sync>,
) -> Compiled {
    let modules: Vec<&'static Module> =
        crate::core::MODULES.into_iter().chain(modules.iter().copied()).collect();
    let registry = registry(&modules);
    let variables = VariableRegistry::new(modules.iter().flat_map(|module| module.variables));
    let mut build = Build::new(variables, surroundings, files);
    let mut report = Vec::new();
    let cells = schema::bind(&parsed.tree, &registry, &mut build, &mut report);
    // At one place, what the parser found comes before what follows from it.
    let found = parsed.diagnostics.into_iter().chain(std::mem::take(&mut build.diagnostics)).chain(report);
    let mut diagnostics = conf::in_reading_order(found.collect(), &parsed.tree.sources);

    let main = cells.module::<MainCore>(MAIN_INDEX).cloned().unwrap_or_default();
    if !nginx_refuses(&diagnostics) && !main.events_seen {
        diagnostics.push(Diagnostic::emerg("events", "no \"events\" section in configuration"));
    }
    let error_log = cells.module::<Core>(LOCATION_INDEX).map(|core| core.error_log.clone());
    let mut error_log = error_log.map(|logs| logs.to_vec()).unwrap_or_default();
    if error_log.is_empty() {
        let log = build.logs.add(surroundings.error_log.clone(), None);
        error_log.push(crate::log::ErrorLog { log, level: conf::Level::Error });
    }
    let mut snapshot = None;
    // What is not built yet does not hide what is wrong with the whole.
    if !nginx_refuses(&diagnostics) {
        let mut compiler = Compiler {
            modules: &modules,
            installs: installs(&modules),
            build,
            plans: Vec::new(),
            sites: Vec::new(),
            ifs: HashMap::new(),
            surroundings,
        };
        let made = compiler.snapshot(&cells, error_log.clone());
        build = compiler.build;
        diagnostics.append(&mut build.diagnostics);
        if let Some(made) = &made {
            crate::tls::check(made, &parsed.tree.sources, &mut diagnostics);
        }
        snapshot = made.filter(|_| !has_errors(&diagnostics)).map(Box::new);
    }
    Compiled {
        snapshot,
        main,
        error_log,
        logs: build.logs,
        diagnostics,
        sources: parsed.tree.sources,
        folders: build.folders,
        idle: build.idle,
        spent: Spent(parsed.tree.root, cells),
    }
}

fn http_resolver(root: &Cells) -> net::resolver::ResolverSettings {
    let http = root.inside(Places::HTTP).next().and_then(|http| http.module::<Core>(LOCATION_INDEX));
    http.map_or_else(net::resolver::ResolverSettings::system, Core::resolver_settings)
}

/// `worker_connections` of the `events` block.
fn connections_max(root: &Cells) -> usize {
    let events = root.inside(Places::EVENTS).next().unwrap_or(root);
    events.module::<MainCore>(MAIN_INDEX).map_or(usize::MAX, |main| main.worker_connections.0)
}

fn next_generation() -> u64 {
    static GENERATION: AtomicU64 = AtomicU64::new(1);
    GENERATION.fetch_add(1, Ordering::Relaxed)
}

/// nginx names no place for such a variable; people are shown the directive that uses it.
fn unknown_variable(unknown: Unknown) -> Diagnostic {
    let Unknown { name, place } = unknown;
    let mut made = match schema::known::is_variable(&name) {
        true => Diagnostic::emerg("unbuilt", format!("the \"{name}\" variable is not supported yet")).ours(),
        false => Diagnostic::emerg("unknown-variable", format!("unknown \"{name}\" variable")).bare(),
    };
    if let Some((span, end)) = place {
        made = made.at(span).line(end);
    }
    made
}

/// Would nginx refuse it? Limits of ours do not count.
fn nginx_refuses(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|diagnostic| diagnostic.level.is_error() && !diagnostic.ours)
}

/// Is any of these an error?
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|diagnostic| diagnostic.level.is_error())
}

/// The rows of modules, for binding and for whoever writes about directives.
pub fn registry(modules: &[&'static Module]) -> Registry {
    Registry::new(modules.iter().flat_map(|module| rows(module)).collect())
}

/// A module's rows, then those of its families, as the registry wants them.
fn rows(module: &'static Module) -> Vec<Rows> {
    let own = module.directives.iter().map(|row| (row.name, row)).collect();
    let mut all = vec![Rows { module: module.name, rows: own, cells: module.cells }];
    for family in module.families {
        let rows =
            family.rows.iter().map(|row| (crate::module::joined(family.prefix, row.name), row)).collect();
        all.push(Rows { module: module.name, rows, cells: family.cells });
    }
    all
}

/// What is installed, in order of execution.
struct Installs {
    /// Index of the module's cells.
    index: usize,
    /// The module with its families.
    set: ModuleSet,
    install: fn(&mut Installer) -> Result<(), Problem>,
    always: bool,
}

fn installs(modules: &[&'static Module]) -> Vec<Installs> {
    let mut end = 0;
    let of = |module: &&'static Module| {
        let index = end;
        end += 1 + module.families.len();
        let (install, always) = match module.install {
            Install::Never => return None,
            Install::Always(install) => (install, true),
            Install::WhereSet(install) => (install, false),
        };
        Some(Installs { index, set: ModuleSet::range(index..end), install, always })
    };
    modules.iter().filter_map(of).collect()
}

struct Compiler<'a> {
    modules: &'a [&'static Module],
    installs: Vec<Installs>,
    build: Build,
    plans: Vec<Plan>,
    sites: Vec<Site>,
    /// The plans of the `if`s in a location.
    ifs: HashMap<PlanId, Vec<PlanId>>,
    surroundings: &'a Surroundings,
}

impl Compiler<'_> {
    /// The whole configuration; none when a variable is unknown. Other problems go to the builder's diagnostics.
    fn snapshot(&mut self, cells: &Cells, error_log: Vec<crate::log::ErrorLog>) -> Option<Snapshot> {
        self.plans.reserve_exact(cells.count());
        let listens = self.servers(cells);
        let variables = match std::mem::take(&mut self.build.variables).finish() {
            Ok(variables) => variables,
            Err(unknown) => {
                self.build.diagnostics.extend(unknown.into_iter().map(unknown_variable));
                return None;
            }
        };
        Some(Snapshot {
            sites: std::mem::take(&mut self.sites),
            plans: std::mem::take(&mut self.plans),
            listens,
            variables,
            connections_max: connections_max(cells),
            upstreams: self.build.upstreams.clone(),
            issuers: std::mem::take(&mut self.build.issuers),
            logs: Vec::new(),
            error_log,
            generation: next_generation(),
            resolver: http_resolver(cells),
            names_claimed: Default::default(),
        })
    }

    fn servers(&mut self, root: &Cells) -> Vec<crate::plan::Listen> {
        let mut listens = crate::core::listen::Table::default();
        for http in root.inside(Places::HTTP) {
            for group in http.inside(Places::UPSTREAM.and(Places::ACME_ISSUER)) {
                self.group(group, http);
            }
            for server in http.inside(Places::SERVER) {
                self.server(server, http, &mut listens);
            }
        }
        for module in self.modules {
            if let Err(problem) = (module.finish)(&mut self.build) {
                self.problem(&problem, root.close);
            }
        }
        let redirecting: Vec<bool> = self.plans.iter().map(|plan| plan.auto_redirect).collect();
        let mut sets = Sets::default();
        for plan in &mut self.plans {
            let redirects = |id: PlanId| redirecting.get(id.0 as usize).copied().unwrap_or(false);
            plan.locations.finish(redirects, &mut sets);
        }
        listens.finish(&mut self.build.diagnostics)
    }

    /// Lets modules look at an `upstream` or `acme_issuer` block. They get a plan as for any block; nothing serves it.
    fn group(&mut self, cells: &Cells, http: &Cells) {
        self.plan(cells, Some(http), PlanKind::default(), &mut HashMap::new());
        self.plans.pop();
    }

    fn server(&mut self, cells: &Cells, http: &Cells, listens: &mut crate::core::listen::Table) {
        let id = SiteId(self.sites.len() as u32);
        let core = cells.shared(SERVER_INDEX).cloned().and_then(|core| core.downcast::<ServerCore>().ok());
        let Some(core) = core else { return };
        let mut named = HashMap::new();
        let plan = self.plan(cells, Some(http), PlanKind::default(), &mut named);
        let name = core.server_name.first().map(|name| name.text.clone()).unwrap_or_default();
        if core.listen.is_empty() {
            let line = ListenLine::default_line(cells.open, self.surroundings.default_port);
            listens.add(&line, id, &core);
        }
        for line in &core.listen {
            listens.add(line, id, &core);
        }
        let name = name.strip_prefix(b".").map_or(name.clone(), BString::from);
        self.sites.push(Site { id, name, plan, named, place: cells.open, core });
    }

    /// Compiles a block and what is inside: its locations, `if`s and `limit_except`s.
    fn plan(
        &mut self,
        cells: &Cells,
        outer: Option<&Cells>,
        kind: PlanKind,
        named: &mut HashMap<Vec<u8>, PlanId>,
    ) -> PlanId {
        let id = PlanId(self.plans.len() as u32);
        let core: Arc<Core> = shared(cells, LOCATION_INDEX);
        let folder: Arc<Folder> = shared(cells, ROOT_INDEX);
        let alias = alias(&folder, outer, &kind);
        let plan = Plan {
            id,
            name: kind.name,
            error_pages: Arc::clone(&core.error_page),
            core,
            folder,
            steps: Default::default(),
            handler: None,
            filters: Vec::new(),
            loggers: Vec::new(),
            locations: Locations::default(),
            limit_except: None,
            nameless: kind.nameless,
            exact: kind.exact,
            alias,
            kept: Vec::new(),
            auto_redirect: false,
        };
        // The place is taken first, so that a plan's number is lower than those of the plans inside.
        self.plans.push(plan);
        let mut locations = Locations::default();
        let mut inner = HashMap::new();
        let mut limit_except = None;
        let mut ifs = Vec::new();
        for child in &cells.children {
            match child.place {
                Places::LOCATION => self.location(child, cells, id, &mut locations, named),
                Places::SERVER_IF | Places::LOCATION_IF => {
                    let name = self.plans[id.0 as usize].name.clone();
                    let kind = PlanKind { name, nameless: true, exact: false, alias };
                    let plan = self.plan(child, Some(cells), kind, named);
                    inner.insert(child.open, plan);
                    ifs.push(plan);
                }
                Places::LIMIT_EXCEPT => {
                    let name = self.plans[id.0 as usize].name.clone();
                    let kind = PlanKind { name, nameless: true, exact: false, alias };
                    let plan = self.plan(child, Some(cells), kind, named);
                    let bits = child.args.iter().filter_map(|word| http::Method::limit_bit(&word.text));
                    let mut bits = bits.fold(0, |all, bit| all | bit);
                    if bits & http::Method::Get.bit() != 0 {
                        bits |= http::Method::Head.bit();
                    }
                    limit_except = Some((bits, plan));
                    inner.insert(child.open, plan);
                }
                _ => {}
            }
        }
        self.install(cells, outer, id, &inner);
        if !ifs.is_empty() {
            self.ifs.insert(id, ifs);
            self.hand_down(id);
        }
        let plan = &mut self.plans[id.0 as usize];
        plan.locations = locations;
        plan.limit_except = limit_except;
        id
    }

    /// An `if` without a handler of its own has that of its location.
    fn hand_down(&mut self, id: PlanId) {
        let Some(handler) = self.plans[id.0 as usize].handler.clone() else { return };
        for inner in self.ifs.get(&id).into_iter().flatten() {
            self.plans[inner.0 as usize].handler.get_or_insert_with(|| handler.clone());
        }
    }

    fn install(&mut self, cells: &Cells, outer: Option<&Cells>, id: PlanId, inner: &HashMap<Span, PlanId>) {
        let plan = &mut self.plans[id.0 as usize];
        let set = cells.set();
        for one in &self.installs {
            let is_set = one.always || one.set.meets(set);
            // Tests hold modules to what they say of their defaults.
            if !is_set && !cfg!(debug_assertions) {
                continue;
            }
            let before = cfg!(debug_assertions).then(|| plan.parts());
            let (place, build, index) = (cells.place, &mut self.build, one.index);
            let installed = (one.install)(&mut Installer { place, cells, outer, build, plan, inner, index });
            debug_assert!(
                is_set || installed.is_ok() && Some(plan.parts()) == before,
                "installed though not set"
            );
            if let Err(problem) = installed {
                let line = problem.at.unwrap_or(cells.open);
                report(&mut self.build.diagnostics, &problem, line);
            }
        }
    }

    fn location(
        &mut self,
        cells: &Cells,
        outer: &Cells,
        outer_plan: PlanId,
        into: &mut Locations,
        named: &mut HashMap<Vec<u8>, PlanId>,
    ) {
        // Nobody asks for it again.
        let Some(matcher) = self.build.take_matcher(cells.open) else { return };
        let Plan { alias, .. } = &self.plans[outer_plan.0 as usize];
        let kind = PlanKind {
            name: matcher.name().to_owned(),
            nameless: matcher.is_nameless(),
            exact: matches!(matcher, Matcher::Exact(_)),
            alias: *alias,
        };
        let plan = self.plan(cells, Some(outer), kind, named);
        let added = match &matcher {
            Matcher::Named(name) => named.insert(name.to_vec(), plan).is_none(),
            _ => into.add(&matcher, plan),
        };
        if !added {
            let text = format!("duplicate location \"{}\"", matcher.name());
            self.problem(&Problem::new(text), cells.open);
        }
    }

    fn problem(&mut self, problem: &Problem, line: Span) {
        report(&mut self.build.diagnostics, problem, line);
    }
}

fn report(diagnostics: &mut Vec<Diagnostic>, problem: &Problem, line: Span) {
    let mut made = Diagnostic::emerg("semantics", problem.message.clone())
        .at(problem.span.unwrap_or(line))
        .line(problem.at.unwrap_or(line));
    for sentence in &problem.help {
        made = made.help(sentence.clone());
    }
    made.labels.extend(problem.labels.iter().cloned());
    made.ours = problem.unbuilt;
    diagnostics.push(made);
}

fn shared<C: Default + Any + Send + Sync>(cells: &Cells, index: usize) -> Arc<C> {
    cells.shared(index).cloned().and_then(|cells| cells.downcast().ok()).unwrap_or_default()
}

/// What is known of a plan before it is compiled.
#[derive(Default)]
struct PlanKind {
    name: BString,
    nameless: bool,
    exact: bool,
    /// What an `alias` of the block around cuts off.
    alias: Alias,
}

/// What `alias` cuts off: a name's length belongs to the location that the directive stands in.
fn alias(folder: &Folder, outer: Option<&Cells>, kind: &PlanKind) -> Alias {
    let outer = outer.and_then(|outer| outer.module::<Folder>(ROOT_INDEX));
    match folder.root.value() {
        Some(Some(root)) if root.alias => match outer {
            Some(outer) if outer.root.span == folder.root.span => kind.alias,
            _ if kind.nameless => Alias::Whole,
            _ => Alias::Prefix(kind.name.len()),
        },
        _ => Alias::None,
    }
}
