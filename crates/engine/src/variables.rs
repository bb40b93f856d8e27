//! The registry of variables and those of nginx's core module.

pub(crate) mod core;
pub(crate) mod text;

pub use self::core::{CORE, content_type, host};

use crate::Request;
use crate::module::{Read, Variable};
use bstr::{BStr, BString, ByteSlice};
use conf::Span;
use schema::Problem;
use schema::hash::QuickMap;
use std::sync::Arc;
use template::{UnknownVariable, VariableId};

/// How deep variables may depend on each other.
pub const NESTED_MAX: u8 = 100;

/// A variable that configuration computes: `map`, `geo`, `split_clients`.
pub trait Computed: Send + Sync {
    /// Appends the value; false when there is none.
    fn compute(&self, request: &mut Request, out: &mut Vec<u8>) -> bool;
    /// Is it computed anew on each use?
    fn volatile(&self) -> bool {
        false
    }
}

/// How a variable is read.
#[derive(Clone)]
pub enum Definition {
    /// One of a module's.
    Builtin(&'static Variable),
    /// One of a module's families, with the rest of the name.
    Prefix(&'static Variable, Vec<u8>),
    /// Set while the request runs (`set`, named groups).
    Stored,
    /// Computed by configuration.
    Computed(Arc<dyn Computed>),
}

/// A variable looked up ahead, for texts that are written with every request.
pub enum Reader {
    /// One that nothing can set: its function.
    Plain(fn(&mut Request, &mut Vec<u8>) -> bool),
    /// The same for [`Read::Printable`].
    Printable(fn(&mut Request, &mut Vec<u8>) -> bool),
    /// One of a family that nothing has set, with the rest of the name.
    Prefix(fn(&mut Request, &[u8], &mut Vec<u8>) -> bool, Box<[u8]>),
    /// One that may be set or is computed: by its number.
    Numbered(VariableId),
}

impl Reader {
    /// Appends the value; false, and nothing appended, where there is none.
    pub fn read(&self, request: &mut Request, out: &mut Vec<u8>) -> bool {
        match self {
            Reader::Plain(read) | Reader::Printable(read) => read(request, out),
            Reader::Prefix(read, rest) => read(request, rest, out),
            Reader::Numbered(id) => template::Scope::variable(request, *id, out),
        }
    }
}

/// Variables while a configuration is read: any name gets a number at once, and has a definition in the end.
#[derive(Default)]
pub struct Registry {
    numbers: QuickMap<Vec<u8>, VariableId>,
    names: Vec<BString>,
    definitions: Vec<Option<Definition>>,
    builtins: QuickMap<&'static str, &'static Variable>,
    prefixes: Vec<&'static Variable>,
    /// The directive that is read now: its name and its end.
    pub place: Option<(Span, Span)>,
    /// Where each name was met first.
    places: Vec<Option<(Span, Span)>>,
}

/// A name that nothing defines.
pub struct Unknown {
    /// The name as it was used.
    pub name: BString,
    /// The directive that used it first: its name and its end.
    pub place: Option<(Span, Span)>,
}

/// Variables of a finished configuration.
#[derive(Default)]
pub struct Definitions {
    names: Vec<BString>,
    definitions: Vec<Definition>,
    /// Does anything use `$tcpinfo_*`, so that the kernel is to be asked?
    pub wants_tcp_info: bool,
    /// Does anything show what TLS clients offer?
    pub wants_tls_offer: bool,
    /// Does any of them read the head of an upstream's answer while that is being taken over?
    pub wants_upstream_fields: bool,
}

impl Definitions {
    /// How a variable is read.
    pub fn definition(&self, id: VariableId) -> &Definition {
        self.definitions.get(id.0 as usize).unwrap_or(&Definition::Stored)
    }

    /// The variable, looked up.
    pub fn reader(&self, id: VariableId) -> Reader {
        match self.definition(id) {
            // What can be written may have been stored.
            Definition::Builtin(Variable { read: Read::Plain(read), write: None, .. }) => {
                Reader::Plain(*read)
            }
            Definition::Builtin(Variable { read: Read::Printable(read), write: None, .. }) => {
                Reader::Printable(*read)
            }
            Definition::Prefix(Variable { read: Read::Prefix(read), .. }, rest) => {
                Reader::Prefix(*read, rest.as_slice().into())
            }
            _ => Reader::Numbered(id),
        }
    }

    /// Its name.
    pub fn name(&self, id: VariableId) -> &BStr {
        self.names.get(id.0 as usize).map_or(BStr::new(b""), |name| name.as_ref())
    }
}

impl Registry {
    /// A registry with the variables of these modules.
    pub fn new(variables: impl Iterator<Item = &'static Variable>) -> Registry {
        let mut made = Registry::default();
        for variable in variables {
            match variable.read {
                Read::Plain(_) | Read::Printable(_) => drop(made.builtins.insert(variable.name, variable)),
                Read::Prefix(_) => made.prefixes.push(variable),
            }
        }
        // `upstream_http_` must be found before a shorter prefix could be.
        made.prefixes.sort_by_key(|variable| std::cmp::Reverse(variable.name.len()));
        made
    }

    fn number(&mut self, name: &[u8]) -> VariableId {
        if let Some(id) = self.numbers.get(name) {
            return *id;
        }
        let name = name.to_ascii_lowercase();
        if let Some(id) = self.numbers.get(&name) {
            return *id;
        }
        let id = VariableId(self.names.len() as u32);
        self.names.push(name.clone().into());
        self.definitions.push(None);
        self.places.push(self.place);
        self.numbers.insert(name, id);
        id
    }

    /// A variable that is set while the request runs.
    ///
    /// # Errors
    /// The name belongs to a variable that cannot be changed.
    pub fn set(&mut self, name: &[u8]) -> Result<VariableId, Problem> {
        let id = self.number(name);
        let slot = &mut self.definitions[id.0 as usize];
        if slot.is_none() {
            *slot = match builtin(&self.builtins, name) {
                Some(variable) if variable.write.is_none() => {
                    return Err(Problem::new(format!("the duplicate \"{}\" variable", name.as_bstr())));
                }
                Some(variable) => Some(Definition::Builtin(variable)),
                None => Some(Definition::Stored),
            };
        }
        Ok(id)
    }

    /// What a variable is worth that is set while requests run, as long as nothing has set it.
    pub fn when_unset(&mut self, id: VariableId, computed: Arc<dyn Computed>) {
        if let Some(slot @ Some(Definition::Stored)) = self.definitions.get_mut(id.0 as usize) {
            *slot = Some(Definition::Computed(computed));
        }
    }

    /// A variable that a regex's named group sets.
    ///
    /// # Errors
    /// As [`Registry::set`].
    pub fn capture(&mut self, name: &[u8]) -> Result<VariableId, Problem> {
        self.set(name)
    }

    /// Gives a name its definition.
    ///
    /// # Errors
    /// As [`Registry::set`].
    pub fn define(&mut self, name: &[u8], definition: Definition) -> Result<VariableId, Problem> {
        if builtin(&self.builtins, name).is_some_and(|variable| variable.write.is_none()) {
            return Err(Problem::new(format!("the duplicate \"{}\" variable", name.as_bstr())));
        }
        let id = self.number(name);
        self.definitions[id.0 as usize] = Some(definition);
        Ok(id)
    }

    /// How `set` changes a variable that is not simply stored.
    pub fn writer(&self, id: VariableId) -> Option<fn(&mut Request, &[u8])> {
        match self.definitions.get(id.0 as usize)? {
            Some(Definition::Builtin(variable)) => variable.write,
            _ => None,
        }
    }

    /// A directive that is not built would perhaps have defined this name.
    pub fn excuse(&mut self, name: &[u8]) {
        let id = self.number(name);
        self.definitions[id.0 as usize].get_or_insert(Definition::Stored);
    }

    /// The table of a finished configuration; names that nothing defines are reported.
    ///
    /// # Errors
    /// The unknown names, in order of first use.
    pub fn finish(mut self) -> Result<Definitions, Vec<Unknown>> {
        let mut unknown = Vec::new();
        let mut definitions = Vec::with_capacity(self.names.len());
        let given = std::mem::take(&mut self.definitions);
        for ((name, definition), place) in self.names.iter().zip(given).zip(self.places) {
            let found =
                definition.or_else(|| builtin(&self.builtins, name).map(Definition::Builtin)).or_else(|| {
                    let family =
                        self.prefixes.iter().find(|variable| name.starts_with(variable.name.as_bytes()))?;
                    Some(Definition::Prefix(family, name[family.name.len()..].to_vec()))
                });
            match found {
                Some(definition) => definitions.push(definition),
                None => unknown.push(Unknown { name: name.clone(), place }),
            }
        }
        let any = |prefix: &[u8]| self.names.iter().any(|name| name.starts_with(prefix));
        let wants_tcp_info = any(b"tcpinfo_");
        let wants_upstream_fields = any(b"upstream_http_") || any(b"upstream_cookie_");
        let offers: [&[u8]; 3] = [b"ssl_ciphers", b"ssl_curves", b"ssl_sigalgs"];
        let wants_tls_offer = self.names.iter().any(|name| offers.contains(&&name[..]));
        if unknown.is_empty() {
            let names = self.names;
            Ok(Definitions { names, definitions, wants_tcp_info, wants_tls_offer, wants_upstream_fields })
        } else {
            Err(unknown)
        }
    }
}

impl template::Names for Registry {
    fn variable(&mut self, name: &[u8]) -> Result<VariableId, UnknownVariable> {
        Ok(self.number(name))
    }
}

fn builtin(builtins: &QuickMap<&'static str, &'static Variable>, name: &[u8]) -> Option<&'static Variable> {
    let name = name.to_ascii_lowercase();
    std::str::from_utf8(&name).ok().and_then(|name| builtins.get(name)).copied()
}
