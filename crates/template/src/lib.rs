//! Strings with `$variables`, compiled; the one regular-expression type; and the tables behind `map`, `geo`,
//! `split_clients` and virtual-host names.
//!
//! Everything here is built once, while a configuration loads, and only read afterwards. The crate knows neither
//! which variables exist nor what they hold: names are turned into numbers by [`Names`], numbers into text by
//! [`Scope`], and both belong to the engine.

mod regex;
mod text;

pub use regex::{Captures, LocationSet, Regex, RegexError, TooMuchBacktracking};
pub use text::{Names, Part, Scope, Template, TemplateError, UnknownVariable, VariableId};
