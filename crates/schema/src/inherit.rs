//! A value that a block may set itself or take from the block around it.

use conf::Span;
use std::ops::Deref;

/// A directive's value in one block: set here, inherited, the default, or (before binding ends) not yet any.
///
/// After [`crate::bind`] every cell that the registry knows has a value, so reading one through `Deref` is
/// always possible; configuration code that runs before that asks [`Inherit::is_set`].
#[derive(Clone, Debug)]
pub struct Inherit<T> {
    value: Option<T>,
    /// Where the value was written; none for a default.
    pub span: Option<Span>,
}

impl<T> Default for Inherit<T> {
    fn default() -> Self {
        Inherit { value: None, span: None }
    }
}

impl<T> Inherit<T> {
    /// Was it written in this block, inherited or defaulted already?
    pub fn is_set(&self) -> bool {
        self.value.is_some()
    }

    /// The value if there is one already.
    pub fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// Stores a value and where it was written.
    pub fn put(&mut self, value: T, span: Option<Span>) {
        self.value = Some(value);
        self.span = span;
    }

    /// The value for adding to, made with `make` when there is none.
    pub fn fill(&mut self, span: Span, make: impl FnOnce() -> T) -> &mut T {
        self.span.get_or_insert(span);
        self.value.get_or_insert_with(make)
    }

    /// Puts the type's default where there is no value.
    pub fn settle(&mut self)
    where
        T: Default,
    {
        self.value.get_or_insert_with(T::default);
    }

    /// Takes the outer block's value when this block has none.
    pub fn inherit_from(&mut self, outer: &Inherit<T>)
    where
        T: Clone,
    {
        if self.value.is_none() {
            self.value = outer.value.clone();
            self.span = outer.span;
        }
    }
}

impl<T> Deref for Inherit<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // Binding fills every registered cell from its row's default, so an empty one is a missing row:
        // a mistake in the program that every configuration load would show, never something a peer can cause.
        self.value.as_ref().expect("a cell is read after binding and has a row")
    }
}
