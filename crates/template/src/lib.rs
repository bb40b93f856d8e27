//! Strings with `$variables`, compiled; the one regular-expression type; and the tables behind `map`, `geo`,
//! `split_clients` and virtual-host names.
//!
//! Everything here is built once, while a configuration loads, and only read afterwards. The crate knows neither
//! which variables exist nor what they hold: names are turned into numbers by [`Names`], numbers into text by
//! [`Scope`], and both belong to the engine.

mod geo;
mod hash;
mod host_names;
mod map;
mod regex;
mod split;
mod text;

pub use geo::{GeoBuilder, GeoTable, RangeOutcome, RangeOverlap};
pub use hash::{ConfigHasher, ConfigTable};
pub use host_names::{HostMatch, HostNameError, HostTable, HostTableBuilder};
pub use map::{MapBuilder, MapError, MapTable};

pub use regex::{Captures, LocationSet, Regex, RegexError, TooMuchBacktracking};
pub use split::{SplitBuilder, SplitError, SplitTable, murmur_hash2};
pub use text::{Names, Part, Scope, Template, TemplateError, UnknownVariable, VariableId};

/// Hands `text` to `run` with ASCII letters in lower case, without allocating where it is short or is so already.
pub fn lower<R>(text: &[u8], run: impl FnOnce(&[u8]) -> R) -> R {
    const STACK_BYTES_MAX: usize = 256;
    if !text.iter().any(u8::is_ascii_uppercase) {
        return run(text);
    }
    let mut stack = [0; STACK_BYTES_MAX];
    match stack.get_mut(..text.len()) {
        Some(copy) => {
            copy.copy_from_slice(text);
            copy.make_ascii_lowercase();
            run(copy)
        }
        None => run(&text.to_ascii_lowercase()),
    }
}
