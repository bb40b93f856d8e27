//! `zone=name:size`, which zones a configuration has declared for what, and zones whose state is kept by a key.

use bstr::{BStr, BString, ByteSlice};
use conf::{Diagnostic, Level, Node, Word};
use engine::{Build, Request};
use schema::Problem;
use schema::value::{argument, size};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use template::Template;
use zone::Zones;

/// What nginx asks of a zone at least: eight pages.
pub const BYTES_MIN: usize = 8 * 4096;

/// `zone=name:size` of one directive.
pub struct NamedZone {
    /// Its name.
    pub name: BString,
    /// Its size.
    pub bytes_max: usize,
}

/// The zones of a configuration.
#[derive(Default)]
struct Declared(Vec<Zone>);

struct Zone {
    name: BString,
    /// What for.
    module: &'static str,
    /// Not yet declared, only named: 0.
    bytes_max: usize,
}

impl NamedZone {
    /// Reads a word without its `zone=`.
    ///
    /// # Errors
    /// As nginx.
    pub fn parse(word: &Word, text: &[u8]) -> Result<NamedZone, Problem> {
        let invalid = || Problem::new(format!("invalid zone size \"{}\"", word.text)).on(word);
        let (name, bytes) = text.split_once_str(":").ok_or_else(invalid)?;
        let bytes_max = size(bytes).ok_or_else(invalid)?;
        if bytes_max < BYTES_MIN {
            return Err(Problem::new(format!("zone \"{}\" is too small", word.text)).on(word));
        }
        Ok(NamedZone { name: name.into(), bytes_max })
    }
}

/// The problem of a directive that names no zone.
pub fn missing(node: &Node) -> Problem {
    Problem::new(format!("\"{}\" must have \"zone\" parameter", node.name.text))
}

/// Names a zone of this module, declared already or to be declared.
///
/// # Errors
/// The name belongs to another module.
pub fn refer(build: &mut Build, module: &'static str, name: &[u8]) -> Result<(), Problem> {
    add(build, module, name, 0)
}

/// Declares a zone of this module.
///
/// # Errors
/// As [`refer`], or it has another size already.
pub fn declare(build: &mut Build, module: &'static str, zone: &NamedZone) -> Result<(), Problem> {
    add(build, module, &zone.name, zone.bytes_max)
}

fn add(build: &mut Build, module: &'static str, name: &[u8], bytes_max: usize) -> Result<(), Problem> {
    let zones = &mut build.shared::<Declared>().0;
    let Some(known) = zones.iter_mut().find(|zone| zone.name == name) else {
        zones.push(Zone { name: name.into(), module, bytes_max });
        return Ok(());
    };
    let name = BStr::new(name);
    if known.module != module {
        return Err(Problem::new(format!(
            "the shared memory zone \"{name}\" is already declared for a different use"
        )));
    }
    if known.bytes_max == 0 {
        known.bytes_max = bytes_max;
    }
    if bytes_max > 0 && bytes_max != known.bytes_max {
        let text = format!(
            "the size {bytes_max} of shared memory zone \"{name}\" conflicts with already declared size {}",
            known.bytes_max
        );
        return Err(Problem::new(text));
    }
    Ok(())
}

/// Reports the zones of a module that were named but never declared.
pub fn finish(build: &mut Build, module: &'static str) {
    let zones = &build.shared::<Declared>().0;
    let unknown = zones.iter().filter(|zone| zone.module == module && zone.bytes_max == 0);
    let texts: Vec<String> =
        unknown.map(|zone| format!("zero size shared memory zone \"{}\"", zone.name)).collect();
    build.diagnostics.extend(texts.into_iter().map(|text| Diagnostic::emerg("zone", text)));
}

/// A zone that a directive like `limit_conn_zone key zone=name:size` declares.
pub struct KeyedZone<S, E> {
    /// Its name.
    pub name: BString,
    /// What else the directive says of it.
    pub extra: E,
    key: Template,
    key_text: BString,
    state: Arc<KeyedState<S>>,
}

/// What outlives a reload of a [`KeyedZone`].
pub struct KeyedState<S> {
    key_text: BString,
    bytes_max: usize,
    state: Mutex<S>,
}

impl<S> KeyedState<S> {
    /// The state, held.
    pub fn lock(&self) -> MutexGuard<'_, S> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keyed zones of one module in a configuration.
struct Keyed<S, E>(Vec<Arc<KeyedZone<S, E>>>);

impl<S, E> Default for Keyed<S, E> {
    fn default() -> Self {
        Keyed(Vec::new())
    }
}

/// One module's keyed zones: all of the process, and the module's words for them.
pub struct Kind<S> {
    /// The module.
    pub module: &'static str,
    /// What messages call a zone that has two keys in one configuration.
    pub bound: &'static str,
    /// What they call one that had another key before the reload.
    pub used: &'static str,
    /// A longer key is logged and left alone, bytes.
    pub key_bytes_max: usize,
    /// The states by name.
    pub zones: Zones<KeyedState<S>>,
    /// A state of so many bytes.
    pub make: fn(usize) -> S,
}

impl<S: Send + 'static> Kind<S> {
    /// Declares the zone of a directive whose first word is the key.
    ///
    /// # Errors
    /// As [`declare`], or the name has another key, here or before the reload.
    pub fn declare<E: Send + Sync + 'static>(
        &self,
        node: &Node,
        zone: Option<NamedZone>,
        extra: E,
        build: &mut Build,
    ) -> Result<(), Problem> {
        let word = argument(node, 0)?;
        let key = build.template(word.text.as_ref()).map_err(|problem| problem.on(word))?;
        let key_text = word.text.clone();
        let zone = zone.filter(|zone| !zone.name.is_empty()).ok_or_else(|| missing(node))?;
        declare(build, self.module, &zone)?;
        let NamedZone { name, bytes_max } = zone;
        let (bound, used) = (self.bound, self.used);
        if let Some(known) = self.find::<E>(build, &name) {
            let text = format!("{bound} \"{name}\" is already bound to key \"{}\"", known.key_text);
            return Err(Problem::new(text));
        }
        let make = || KeyedState {
            key_text: key_text.clone(),
            bytes_max,
            state: Mutex::new((self.make)(bytes_max)),
        };
        let state = self.zones.open(&name, |known| known.bytes_max == bytes_max, make);
        if state.key_text != key_text {
            let before = &state.key_text;
            return Err(Problem::new(format!(
                "{used} \"{name}\" uses the \"{key_text}\" key while previously it used the \"{before}\" key"
            )));
        }
        let declared = Arc::new(KeyedZone { name, extra, key, key_text, state });
        build.shared::<Keyed<S, E>>().0.push(declared);
        Ok(())
    }

    /// The zone of that name.
    pub fn find<E: Send + Sync + 'static>(
        &self,
        build: &mut Build,
        name: &[u8],
    ) -> Option<Arc<KeyedZone<S, E>>> {
        build.shared::<Keyed<S, E>>().0.iter().find(|zone| zone.name == name).cloned()
    }

    /// The request's key in a zone; none where it is empty or too long to be counted.
    pub fn key<E>(&self, zone: &KeyedZone<S, E>, request: &mut Request) -> Option<Vec<u8>> {
        let key = request.render(&zone.key);
        if key.len() > self.key_bytes_max {
            let (text, max, key) = (&zone.key_text, self.key_bytes_max, BStr::new(&key));
            let message = format_args!("the value of the \"{text}\" key is more than {max} bytes: \"{key}\"");
            request.log_error(Level::Error, message);
            return None;
        }
        (!key.is_empty()).then_some(key)
    }
}

impl<S, E> KeyedZone<S, E> {
    /// What is counted, for as long as anything of it is.
    pub fn state(&self) -> &Arc<KeyedState<S>> {
        &self.state
    }
}
