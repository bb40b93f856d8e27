//! The groups of a configuration: in the file's order, and by name.

use super::Upstream;
use bstr::{BStr, BString};
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

/// Upstream groups; those with an `upstream` block come first.
#[derive(Clone, Default)]
pub struct Upstreams {
    groups: Vec<Arc<Upstream>>,
    by_name: HashMap<BString, usize>,
}

impl Upstreams {
    /// Adds a group; of two with one name, the first is found by it.
    pub fn push(&mut self, upstream: Arc<Upstream>) {
        self.by_name.entry(upstream.name.clone()).or_insert(self.groups.len());
        self.groups.push(upstream);
    }

    /// The group of this name.
    pub fn named(&self, name: &[u8]) -> Option<&Arc<Upstream>> {
        self.groups.get(*self.by_name.get(BStr::new(name))?)
    }
}

impl Deref for Upstreams {
    type Target = [Arc<Upstream>];

    fn deref(&self) -> &[Arc<Upstream>] {
        &self.groups
    }
}
