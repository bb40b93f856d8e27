//! From a URI to a location, in nginx's order: exact, longest prefix (its nested ones too), then regexes.

use crate::Request;
use crate::core::Matcher;
use crate::module::CompiledRegex;
use crate::plan::PlanId;
use std::collections::HashMap;
use std::sync::Arc;
use template::{ConfigTable, LocationSet, Regex};

/// The locations directly inside a server or a location; most blocks have none.
#[derive(Default)]
pub struct Locations(Option<Box<Tables>>);

#[derive(Default)]
struct Tables {
    exact: ConfigTable<Vec<u8>, PlanId>,
    /// Sorted by path; looked up from the longest match down.
    prefixes: Vec<Prefix>,
    /// Prefixes that end in a slash: `/dir` may have to be redirected to them.
    redirecting: Vec<(Vec<u8>, PlanId)>,
    regexes: Vec<(CompiledRegex, PlanId)>,
    /// Tells quickly which of the regexes can match at all.
    set: Option<Arc<LocationSet>>,
}

/// The sets of a configuration by their regexes: servers of a large one have lists in common.
#[derive(Default)]
pub struct Sets(HashMap<Vec<*const Regex>, Arc<LocationSet>>);

impl Sets {
    fn of(&mut self, regexes: &[(CompiledRegex, PlanId)]) -> Arc<LocationSet> {
        // Sets keep their regexes, so that no address can stand for another one later.
        let key = regexes.iter().map(|(compiled, _)| Arc::as_ptr(&compiled.regex)).collect();
        let make = || Arc::new(LocationSet::new(regexes.iter().map(|(one, _)| one.regex.clone()).collect()));
        self.0.entry(key).or_insert_with(make).clone()
    }
}

struct Prefix {
    path: Vec<u8>,
    plan: PlanId,
    /// `^~`: regexes are not asked.
    last: bool,
    /// The longest other prefix that this one starts with.
    shorter: Option<usize>,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Located {
    /// This location.
    Found(PlanId),
    /// `/dir` where only a passing `/dir/` exists: redirect there.
    AddSlash(PlanId),
    /// None: the block around holds.
    None,
}

impl Locations {
    /// Adds a location in the file's order; false when the same one was there before.
    pub fn add(&mut self, matcher: &Matcher, plan: PlanId) -> bool {
        self.0.get_or_insert_default().add(matcher, plan)
    }

    /// Completes the tables; `redirects` tells the plans that `/dir` is redirected to.
    pub fn finish(&mut self, redirects: impl Fn(PlanId) -> bool, sets: &mut Sets) {
        if let Some(tables) = &mut self.0 {
            tables.finish(redirects, sets);
        }
    }
}

impl Tables {
    fn add(&mut self, matcher: &Matcher, plan: PlanId) -> bool {
        match matcher {
            Matcher::Exact(path) => self.exact.insert(path.to_vec(), plan).is_none(),
            Matcher::Prefix { path, final_ } => {
                if self.prefixes.iter().any(|known| known.path == **path) {
                    return false;
                }
                self.prefixes.push(Prefix { path: path.to_vec(), plan, last: *final_, shorter: None });
                true
            }
            Matcher::Regex { regex, .. } => {
                self.regexes.push((regex.clone(), plan));
                true
            }
            Matcher::Named(_) => true,
        }
    }

    fn sort(&mut self) {
        self.prefixes.sort_by(|a, b| a.path.cmp(&b.path));
    }

    fn finish(&mut self, redirects: impl Fn(PlanId) -> bool, sets: &mut Sets) {
        let ending =
            self.prefixes.iter().filter(|prefix| prefix.path.ends_with(b"/") && redirects(prefix.plan));
        self.redirecting = ending.map(|prefix| (prefix.path.clone(), prefix.plan)).collect();
        self.sort();
        for at in 0..self.prefixes.len() {
            let longest =
                (0..at).rev().find(|other| self.prefixes[at].path.starts_with(&self.prefixes[*other].path));
            self.prefixes[at].shorter = longest;
        }
        if self.regexes.len() > 1 {
            self.set = Some(sets.of(&self.regexes));
        }
        self.prefixes.shrink_to_fit();
        self.regexes.shrink_to_fit();
    }

    /// The longest prefix of `uri`.
    fn prefix(&self, uri: &[u8]) -> Option<&Prefix> {
        let after = self.prefixes.partition_point(|prefix| prefix.path.as_slice() <= uri);
        let mut at = after.checked_sub(1)?;
        loop {
            let prefix = &self.prefixes[at];
            if uri.starts_with(&prefix.path) {
                return Some(prefix);
            }
            at = prefix.shorter?;
        }
    }

    /// `location /dir/` that passes requests on, for the URI `/dir`.
    fn slash_added(&self, uri: &[u8]) -> Option<PlanId> {
        let found =
            self.redirecting.iter().find(|(path, _)| path.len() == uri.len() + 1 && path.starts_with(uri));
        found.map(|(_, plan)| *plan)
    }

    /// The first regex in the file's order that matches; its groups are kept.
    fn first_regex(&self, request: &mut Request, uri: &[u8]) -> Option<PlanId> {
        let Some(set) = &self.set else {
            let (regex, plan) = self.regexes.first()?;
            return request.matches(regex, uri).then_some(*plan);
        };
        let at = set.first(uri, |index| request.matches(&self.regexes[index].0, uri))?;
        Some(self.regexes[at].1)
    }
}

/// Finds the location for the request's URI below the plan in force, and switches to it.
pub fn locate(request: &mut Request) -> Located {
    let uri = std::mem::take(&mut request.uri);
    let found = search(request, request.plan.id, &uri);
    request.uri = uri;
    let located = match found {
        Search::Ended(located) => located,
        Search::Prefix(plan) => Located::Found(plan),
        Search::None => Located::None,
    };
    if let Located::Found(plan) = located {
        request.switch(plan);
    }
    located
}

/// What one level says to the level around it.
enum Search {
    /// Nothing can be better.
    Ended(Located),
    /// The longest prefix; a regex of an outer level is better.
    Prefix(PlanId),
    /// Nothing matched.
    None,
}

/// One level: exact, longest prefix with what is nested in it, then regexes with what is nested in them.
fn search(request: &mut Request, within: PlanId, uri: &[u8]) -> Search {
    let snapshot = request.snapshot;
    let Some(locations) = &snapshot.plan(within).locations.0 else { return Search::None };
    if let Some(plan) = locations.exact.get(uri) {
        return Search::Ended(Located::Found(*plan));
    }
    if let Some(plan) = locations.slash_added(uri) {
        return Search::Ended(Located::AddSlash(plan));
    }
    let mut best = Search::None;
    if let Some(prefix) = locations.prefix(uri) {
        best = match search(request, prefix.plan, uri) {
            Search::Ended(located) => return Search::Ended(located),
            Search::Prefix(plan) => Search::Prefix(plan),
            Search::None => Search::Prefix(prefix.plan),
        };
        if prefix.last {
            return best;
        }
    }
    let Some(plan) = locations.first_regex(request, uri) else { return best };
    match search(request, plan, uri) {
        Search::Ended(located) => Search::Ended(located),
        Search::Prefix(inner) => Search::Ended(Located::Found(inner)),
        Search::None => Search::Ended(Located::Found(plan)),
    }
}
