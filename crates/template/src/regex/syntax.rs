//! The tree a regular expression is parsed into. Byte classes are explicit sets with letter case already folded in
//! and option letters already applied, so that nothing in a tree depends on context.

/// A set of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ByteSet([u64; 4]);

impl ByteSet {
    pub const EMPTY: ByteSet = ByteSet([0; 4]);
    pub const ANY: ByteSet = ByteSet([u64::MAX; 4]);

    pub fn of(bytes: &[u8]) -> ByteSet {
        let mut set = ByteSet::EMPTY;
        bytes.iter().for_each(|byte| set.insert(*byte));
        set
    }

    pub fn range(first: u8, last: u8) -> ByteSet {
        let mut set = ByteSet::EMPTY;
        (first..=last).for_each(|byte| set.insert(byte));
        set
    }

    pub fn matching(accepts: impl Fn(u8) -> bool) -> ByteSet {
        let mut set = ByteSet::EMPTY;
        (0..=255).filter(|byte| accepts(*byte)).for_each(|byte| set.insert(byte));
        set
    }

    pub fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    pub fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
    }

    pub fn union(&self, other: &ByteSet) -> ByteSet {
        ByteSet(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    pub fn complement(&self) -> ByteSet {
        ByteSet(self.0.map(|word| !word))
    }

    /// With the other case of every ASCII letter. PCRE folds no more than these without UTF mode.
    pub fn folded(&self) -> ByteSet {
        ByteSet::matching(|byte| {
            self.contains(byte) || byte.is_ascii_alphabetic() && self.contains(byte ^ (b'a' ^ b'A'))
        })
    }

    /// The only member, where there is exactly one.
    pub fn single(&self) -> Option<u8> {
        let count: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        if count == 1 { (0..=255).find(|byte| self.contains(*byte)) } else { None }
    }

    /// The members as ranges, ascending.
    pub fn ranges(&self) -> Vec<(u8, u8)> {
        let mut ranges: Vec<(u8, u8)> = Vec::new();
        for byte in (0..=255u8).filter(|byte| self.contains(*byte)) {
            match ranges.last_mut() {
                Some((_, last)) if *last == byte.wrapping_sub(1) && byte > 0 => *last = byte,
                _ => ranges.push((byte, byte)),
            }
        }
        ranges
    }
}

/// How a repetition gives bytes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greed {
    Greedy,
    Lazy,
    Possessive,
}

/// What a conditional group asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Has this group taken part?
    Group(u32),
    /// A look-around.
    Look(Box<Node>),
}

/// One piece of a regular expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Empty,
    Set(ByteSet),
    /// `\A`, and `^` outside multi-line mode.
    Start,
    /// `^` in multi-line mode.
    LineStart,
    /// `\z`.
    End,
    /// `\Z`, and `$` outside multi-line mode: the end, or before a newline that is the last byte.
    EndOrFinalNewline,
    /// `$` in multi-line mode.
    LineEnd,
    WordBoundary,
    NotWordBoundary,
    Concat(Vec<Node>),
    Alternate(Vec<Node>),
    Repeat {
        node: Box<Node>,
        min: u32,
        max: Option<u32>,
        greed: Greed,
    },
    Group(u32, Box<Node>),
    Look {
        behind: bool,
        negative: bool,
        node: Box<Node>,
    },
    Atomic(Box<Node>),
    BackReference {
        group: u32,
        caseless: bool,
    },
    Conditional {
        condition: Condition,
        yes: Box<Node>,
        no: Box<Node>,
    },
}

impl Node {
    /// Calls `visit` for this node and all below it.
    pub fn walk(&self, visit: &mut impl FnMut(&Node)) {
        visit(self);
        match self {
            Node::Concat(nodes) | Node::Alternate(nodes) => nodes.iter().for_each(|node| node.walk(visit)),
            Node::Repeat { node, .. }
            | Node::Group(_, node)
            | Node::Look { node, .. }
            | Node::Atomic(node) => node.walk(visit),
            Node::Conditional { condition, yes, no } => {
                if let Condition::Look(look) = condition {
                    look.walk(visit);
                }
                yes.walk(visit);
                no.walk(visit);
            }
            _ => {}
        }
    }

    /// Whether a finite automaton can decide it: no look-around, back-reference, condition or possessive part.
    pub fn is_regular(&self) -> bool {
        let mut regular = true;
        self.walk(&mut |node| {
            regular &= !matches!(
                node,
                Node::Look { .. }
                    | Node::Atomic(_)
                    | Node::BackReference { .. }
                    | Node::Conditional { .. }
                    | Node::Repeat { greed: Greed::Possessive, .. }
            )
        });
        regular
    }

    /// About how many states an automaton has that decides it: counted repetitions are copies.
    pub fn states(&self) -> usize {
        let sum = |nodes: &[Node]| nodes.iter().fold(1usize, |sum, node| sum.saturating_add(node.states()));
        match self {
            Node::Set(set) => set.ranges().len(),
            Node::Concat(nodes) | Node::Alternate(nodes) => sum(nodes),
            Node::Repeat { node, min, max, .. } => {
                let copies = max.unwrap_or(*min).max(1) as usize;
                node.states().saturating_add(1).saturating_mul(copies)
            }
            Node::Group(_, node) | Node::Atomic(node) | Node::Look { node, .. } => {
                node.states().saturating_add(2)
            }
            Node::Conditional { yes, no, .. } => yes.states().saturating_add(no.states()).saturating_add(2),
            _ => 1,
        }
    }

    /// Whether a final newline can make a difference to where it ends.
    pub fn has_newline_end(&self) -> bool {
        let mut found = false;
        self.walk(&mut |node| found |= matches!(node, Node::EndOrFinalNewline));
        found
    }

    /// The number of bytes every match takes, where all take the same.
    pub fn fixed_bytes(&self) -> Option<u32> {
        match self {
            Node::Set(_) => Some(1),
            Node::Concat(nodes) => {
                nodes.iter().try_fold(0u32, |sum, node| sum.checked_add(node.fixed_bytes()?))
            }
            Node::Alternate(nodes) => {
                let first = nodes.first()?.fixed_bytes()?;
                nodes.iter().all(|node| node.fixed_bytes() == Some(first)).then_some(first)
            }
            Node::Repeat { node, min, max, .. } if *max == Some(*min) => {
                node.fixed_bytes()?.checked_mul(*min)
            }
            Node::Group(_, node) | Node::Atomic(node) => node.fixed_bytes(),
            Node::Repeat { node, .. } if node.fixed_bytes() == Some(0) => Some(0),
            Node::Repeat { .. } | Node::BackReference { .. } | Node::Conditional { .. } => None,
            _ => Some(0),
        }
    }
}
