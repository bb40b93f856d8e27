//! The row of a directive and the setters rows are made of.

use crate::value::Value;
use crate::{Inherit, Places, Problem, Services};
use conf::Node;
use std::any::Any;

/// What users see of a directive that is built. Places and arguments come from the table in [`crate::known`],
/// under `name` and the module of the row, so that neither is stated twice.
pub struct Directive {
    /// Its name, e.g. `keepalive_timeout`.
    pub name: &'static str,
    /// The default as one would write it, without the name; empty when the value type has an unset state.
    pub default: &'static str,
    /// Where the value goes.
    pub set: &'static dyn Set,
    /// One sentence for the manual.
    pub doc: &'static str,
}

/// How a row stores what it reads. Rows hold one as `&'static dyn Set`.
pub trait Set: Sync {
    /// Reads a directive into the module's cells of one block.
    ///
    /// # Errors
    /// A [`Problem`] in nginx's words.
    fn set(&self, cells: &mut dyn Any, node: &Node, services: &mut dyn Services) -> Result<(), Problem>;

    /// Fills what the block left unset from the block around it.
    fn inherit(&self, _outer: &dyn Any, _inner: &mut dyn Any) {}

    /// Fills what is still unset with the row's default text.
    ///
    /// # Errors
    /// The default does not parse: a mistake in the row, found by a test.
    fn default(
        &self,
        _cells: &mut dyn Any,
        _text: &str,
        _services: &mut dyn Services,
    ) -> Result<(), Problem> {
        Ok(())
    }

    /// Is there nothing to tune behind this directive? Its value is checked and dropped.
    fn is_idle(&self) -> bool {
        false
    }

    /// Does it store anything in the cells of its block? Where it does not, it is given none: `()`.
    fn keeps(&self) -> bool {
        true
    }

    /// Must an idle directive stand only once in a block, whatever its kind?
    fn is_single(&self) -> bool {
        false
    }

    /// Looks at the block that the row opened, when it ends: the module's cells of that block, if it holds any.
    ///
    /// # Errors
    /// A [`Problem`] in nginx's words, reported where the block ends.
    fn closes(&self, _cells: Option<&dyn Any>) -> Result<(), Problem> {
        Ok(())
    }

    /// The place of the directives inside, when the row opens a block that is bound like its parent.
    fn nested(&self, _outer: Places) -> Option<Places> {
        None
    }
}

/// A setter for one value in a cell: `field!(Conf.name)`. A second one in the same block is a duplicate.
pub struct Field<C: 'static, T: 'static> {
    /// The cell, for reading.
    pub cell: fn(&C) -> &Inherit<T>,
    /// The cell, for writing.
    pub cell_mut: fn(&mut C) -> &mut Inherit<T>,
}

/// A setter for a directive that may be repeated, every line adding one value: `list!(Conf.name)`.
pub struct List<C: 'static, T: 'static> {
    /// The cell, for reading.
    pub cell: fn(&C) -> &Inherit<Vec<T>>,
    /// The cell, for writing.
    pub cell_mut: fn(&mut C) -> &mut Inherit<Vec<T>>,
}

/// A setter that opens a block of the given place; what it holds is bound into child cells.
pub struct Nested(pub Places);

/// A setter for a directive with nothing to tune here: its value is checked as its kind says, and dropped.
pub struct Idle;

/// As [`Idle`], for values with rules of their own.
pub struct IdleOwn {
    /// Must it stand only once in a block?
    pub single: bool,
    /// Checks the arguments, in nginx's words.
    pub check: fn(&Node) -> Result<(), Problem>,
}

/// Makes the setter of a row from a cell: `field!(Conf.cell)`.
#[macro_export]
macro_rules! field {
    ($conf:ident . $cell:ident) => {
        &$crate::Field::<$conf, _> { cell: |cells| &cells.$cell, cell_mut: |cells| &mut cells.$cell }
    };
}

/// Makes the setter of a repeatable row from a cell: `list!(Conf.cell)`.
#[macro_export]
macro_rules! list {
    ($conf:ident . $cell:ident) => {
        &$crate::List::<$conf, _> { cell: |cells| &cells.$cell, cell_mut: |cells| &mut cells.$cell }
    };
}

/// The module's own cell type behind the erased one.
///
/// # Panics
/// When a row of one module is given the cells of another, which only a mistake in a module table can do.
pub fn own<C: 'static>(cells: &dyn Any) -> &C {
    cells.downcast_ref().expect("rows and cells belong to one module")
}

/// As [`own`], for writing.
///
/// # Panics
/// As [`own`].
pub fn own_mut<C: 'static>(cells: &mut dyn Any) -> &mut C {
    cells.downcast_mut().expect("rows and cells belong to one module")
}

impl<C: 'static, T: Value> Set for Field<C, T> {
    fn set(&self, cells: &mut dyn Any, node: &Node, services: &mut dyn Services) -> Result<(), Problem> {
        let cell = (self.cell_mut)(own_mut(cells));
        if cell.is_set() && !T::takes_more() {
            return Err(Problem::duplicate(&node.name, cell.span));
        }
        let mut value = T::parse(node, services)?;
        if let Some(before) = cell.value() {
            value.add(before.clone());
        }
        cell.put(value, Some(node.name.span));
        Ok(())
    }

    fn inherit(&self, outer: &dyn Any, inner: &mut dyn Any) {
        (self.cell_mut)(own_mut(inner)).inherit_from((self.cell)(own(outer)));
    }

    fn default(&self, cells: &mut dyn Any, text: &str, services: &mut dyn Services) -> Result<(), Problem> {
        let cell = (self.cell_mut)(own_mut(cells));
        if !cell.is_set() {
            let value = match T::unset().filter(|_| text.is_empty()) {
                Some(value) => value,
                None => T::parse(&default_node(text), services)?,
            };
            cell.put(value, None);
        }
        Ok(())
    }
}

impl<C: 'static, T: Value> Set for List<C, T> {
    fn set(&self, cells: &mut dyn Any, node: &Node, services: &mut dyn Services) -> Result<(), Problem> {
        let value = T::parse(node, services)?;
        (self.cell_mut)(own_mut(cells)).fill(node.name.span, Vec::new).push(value);
        Ok(())
    }

    fn inherit(&self, outer: &dyn Any, inner: &mut dyn Any) {
        (self.cell_mut)(own_mut(inner)).inherit_from((self.cell)(own(outer)));
    }

    fn default(&self, cells: &mut dyn Any, text: &str, services: &mut dyn Services) -> Result<(), Problem> {
        let cell = (self.cell_mut)(own_mut(cells));
        if !cell.is_set() {
            let values =
                if text.is_empty() { Vec::new() } else { vec![T::parse(&default_node(text), services)?] };
            cell.put(values, None);
        }
        Ok(())
    }
}

impl Set for Nested {
    fn set(&self, _cells: &mut dyn Any, _node: &Node, _services: &mut dyn Services) -> Result<(), Problem> {
        Ok(())
    }

    fn keeps(&self) -> bool {
        false
    }

    fn nested(&self, _outer: Places) -> Option<Places> {
        Some(self.0)
    }
}

impl Set for Idle {
    fn set(&self, _cells: &mut dyn Any, node: &Node, services: &mut dyn Services) -> Result<(), Problem> {
        services.idle(node);
        Ok(())
    }

    fn is_idle(&self) -> bool {
        true
    }

    fn keeps(&self) -> bool {
        false
    }
}

impl Set for IdleOwn {
    fn set(&self, _cells: &mut dyn Any, node: &Node, services: &mut dyn Services) -> Result<(), Problem> {
        (self.check)(node)?;
        services.idle(node);
        Ok(())
    }

    fn is_idle(&self) -> bool {
        true
    }

    fn keeps(&self) -> bool {
        false
    }

    fn is_single(&self) -> bool {
        self.single
    }
}

/// The node a default text stands for, parsed with the grammar of the file itself.
fn default_node(text: &str) -> Node {
    let line = format!("default {text};");
    let files = conf::MemoryFiles::default();
    let parsed = conf::parse(b"default".into(), Some(line.as_bytes().into()), &files);
    let mut nodes = parsed.tree.root.nodes;
    nodes.swap_remove(0)
}
