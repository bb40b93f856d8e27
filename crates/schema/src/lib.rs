//! What a directive is.
//!
//! nginx's 784 directives are listed once, in `directives.tsv` (name, module, places, arguments). A module
//! adds a [`Directive`] row for each one it builds: where its value is kept, its default, one line of
//! documentation. Everything else follows from the row: arity and place checks, the typed value, duplicate
//! checks, inheritance, defaults, error texts. Nobody writes a merge function.
//!
//! Read in this order: [`directive`] (the row), [`inherit`] (a value that may come from outside),
//! [`value`] (text to typed value), [`bind`] (tree to cells), [`known`] (the table).

#![forbid(unsafe_code)]

pub mod bind;
pub mod directive;
pub mod elsewhere;
pub mod hash;
pub mod inherit;
pub mod known;
pub mod manual;
pub mod place;
pub mod problem;
pub mod value;

pub use bind::{Cells, Registry, Services, bind};
pub use directive::{Directive, Field, Idle, IdleOwn, List, Nested, Set};
pub use inherit::Inherit;
pub use place::Places;
pub use problem::Problem;
pub use value::{Bitmask, Buffers, Flag, Milliseconds, Number, Offset, Seconds, Size, SizeTemplate, Value};
