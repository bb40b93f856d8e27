//! `zone=name:size`, and which zones a configuration has declared for what.

use bstr::{BStr, BString, ByteSlice};
use conf::{Diagnostic, Node, Word};
use engine::Build;
use schema::Problem;
use schema::value::size;

/// What nginx asks of a zone at least: eight pages.
const BYTES_MIN: usize = 8 * 4096;

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
