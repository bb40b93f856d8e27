//! Writes a parsed tree in the dialect of the engine that will run it.
//!
//! The `regex` crate gets bytes and everything a finite automaton can do. `fancy-regex` works on text, so it gets
//! one character per byte (Latin-1); neither is handed any flag, because the tree has them applied already.

use super::syntax::{ByteSet, Condition, Greed, Node};

/// What `$` is written as. Both engines end strictly at the end, so the newline PCRE allows there is added by hand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Newline {
    /// The subject does not end in a newline.
    Absent,
    /// The newline may be swallowed, in a group of its own that tells of it.
    Captured,
    /// The newline may be swallowed; nobody asks where the match ends.
    Swallowed,
    /// Look-ahead, where the engine has it.
    Looked,
}

/// Which engine is written for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `regex::bytes` without Unicode.
    Bytes,
    /// The same, but matching more than asked where it cannot do what is asked: good for saying no quickly.
    BytesLoose,
    /// `fancy_regex` over Latin-1.
    Characters,
}

/// A pattern in an engine's own words.
pub struct Emitted {
    pub text: String,
    /// For each of the engine's groups from 1 on: the pattern's group; 0 for one that tells of a swallowed newline.
    pub groups: Vec<u32>,
}

/// Writes `node`.
pub fn emit(node: &Node, dialect: Dialect, newline: Newline) -> Emitted {
    let mut emitter = Emitter { dialect, newline, out: Emitted { text: String::new(), groups: Vec::new() } };
    emitter.node(node);
    emitter.out
}

struct Emitter {
    dialect: Dialect,
    newline: Newline,
    out: Emitted,
}

impl Emitter {
    fn push(&mut self, text: &str) {
        self.out.text.push_str(text);
    }

    /// `node` in parentheses, within which alternatives need none of their own.
    fn enclosed(&mut self, opening: &str, node: &Node) {
        self.push(opening);
        let branches = match node {
            Node::Alternate(branches) => branches.as_slice(),
            node => std::slice::from_ref(node),
        };
        for (index, branch) in branches.iter().enumerate() {
            if index > 0 {
                self.push("|");
            }
            self.node(branch);
        }
        self.push(")");
    }

    fn node(&mut self, node: &Node) {
        let loose = self.dialect == Dialect::BytesLoose;
        match node {
            Node::Empty => self.push("(?:)"),
            Node::Set(set) => self.set(set),
            Node::Start => self.push("\\A"),
            Node::LineStart => self.push("(?m:^)"),
            Node::LineEnd => self.push("(?m:$)"),
            Node::End => self.push("\\z"),
            Node::EndOrFinalNewline => self.end(),
            Node::WordBoundary => self.boundary("\\b", "(?:(?<=W)(?!W)|(?<!W)(?=W))"),
            Node::NotWordBoundary => self.boundary("\\B", "(?:(?<=W)(?=W)|(?<!W)(?!W))"),
            Node::Concat(nodes) => nodes.iter().for_each(|node| self.node(node)),
            Node::Alternate(_) => self.enclosed("(?:", node),
            Node::Repeat { node, min, max, greed } => self.repeat(node, *min, *max, *greed),
            Node::Group(number, node) => {
                self.out.groups.push(*number);
                self.enclosed("(", node);
            }
            Node::Look { .. } if loose => self.push("(?:)"),
            Node::Look { behind: false, negative, node } => {
                self.enclosed(if *negative { "(?!" } else { "(?=" }, node);
            }
            Node::Look { behind: true, negative, node } => self.look_behind(*negative, node),
            Node::Atomic(node) if loose => self.enclosed("(?:", node),
            Node::Atomic(node) => self.enclosed("(?>", node),
            Node::BackReference { .. } if loose => self.push("(?s:.)*"),
            // A group of its own, or a digit behind it would be read as part of the number.
            Node::BackReference { group, caseless } => {
                let opening = if *caseless { "(?i:" } else { "(?:" };
                self.push(&format!("{opening}\\{group})"));
            }
            Node::Conditional { condition, yes, no } => self.conditional(condition, yes, no),
        }
    }

    fn set(&mut self, set: &ByteSet) {
        if let Some(byte) = set.single() {
            return self.byte(byte);
        }
        if *set == ByteSet::EMPTY {
            return self.push("[a&&b]");
        }
        self.push("[");
        for (first, last) in set.ranges() {
            self.byte(first);
            if last > first {
                self.push("-");
                self.byte(last);
            }
        }
        self.push("]");
    }

    fn byte(&mut self, byte: u8) {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'/' | b'_' => self.out.text.push(char::from(byte)),
            _ => self.push(&format!("\\x{byte:02X}")),
        }
    }

    fn end(&mut self) {
        match self.newline {
            Newline::Absent => self.push("\\z"),
            Newline::Swallowed => self.push("(?:\\n?\\z)"),
            Newline::Looked => self.push("(?=\\n?\\z)"),
            Newline::Captured => {
                self.out.groups.push(0);
                self.push("(?:\\z|(\\n)\\z)");
            }
        }
    }

    /// `fancy-regex` would take accented Latin-1 letters for parts of words.
    fn boundary(&mut self, bytes: &str, characters: &str) {
        match self.dialect {
            Dialect::Characters => self.push(&characters.replace('W', "[0-9A-Za-z_]")),
            _ => self.push(bytes),
        }
    }

    fn repeat(&mut self, node: &Node, min: u32, max: Option<u32>, greed: Greed) {
        if node.fixed_bytes() == Some(0) {
            // Asking twice gives the same answer; `fancy-regex` refuses to.
            let (opening, closing) = match (min, max, greed) {
                (_, Some(0), _) => return self.push("(?:)"),
                (0, _, Greed::Lazy) => ("(?:|", ")"),
                (0, _, _) => ("(?:", "|)"),
                _ => ("(?:", ")"),
            };
            self.push(opening);
            self.node(node);
            return self.push(closing);
        }
        let possessive = greed == Greed::Possessive && self.dialect == Dialect::Characters;
        if possessive {
            self.push("(?>");
        }
        match node {
            // Depth is bounded in both engines, so that only what needs it is enclosed.
            Node::Set(_) | Node::Group(..) | Node::Alternate(_) | Node::Atomic(_) => self.node(node),
            node => self.enclosed("(?:", node),
        }
        match (min, max) {
            (0, None) => self.push("*"),
            (1, None) => self.push("+"),
            (0, Some(1)) => self.push("?"),
            (min, None) => self.push(&format!("{{{min},}}")),
            (min, Some(max)) => self.push(&format!("{{{min},{max}}}")),
        }
        if greed == Greed::Lazy {
            self.push("?");
        }
        if possessive {
            self.push(")");
        }
    }

    /// One look-behind per alternative, because each has its own length.
    fn look_behind(&mut self, negative: bool, node: &Node) {
        let branches = match node {
            Node::Alternate(branches) => branches.as_slice(),
            node => std::slice::from_ref(node),
        };
        self.push("(?:");
        for (index, branch) in branches.iter().enumerate() {
            if index > 0 && !negative {
                self.push("|");
            }
            self.enclosed(if negative { "(?<!" } else { "(?<=" }, branch);
        }
        self.push(")");
    }

    fn conditional(&mut self, condition: &Condition, yes: &Node, no: &Node) {
        if self.dialect == Dialect::BytesLoose {
            self.enclosed("(?:(?:", yes);
            self.push("|");
            self.node(no);
            return self.push(")");
        }
        match condition {
            Condition::Group(group) => {
                self.push(&format!("(?({group})"));
                self.node(yes);
                self.push("|");
                self.node(no);
                self.push(")");
            }
            Condition::Look(look) => {
                self.push("(?:");
                self.node(look);
                self.node(yes);
                self.push("|");
                if let Node::Look { behind, negative, node } = &**look {
                    // The groups in the copy would be counted twice, so it is written without any.
                    let node = Box::new(without_groups(node));
                    self.node(&Node::Look { behind: *behind, negative: !negative, node });
                }
                self.node(no);
                self.push(")");
            }
        }
    }
}

fn without_groups(node: &Node) -> Node {
    let all = |nodes: &[Node]| nodes.iter().map(without_groups).collect();
    match node {
        Node::Concat(nodes) => Node::Concat(all(nodes)),
        Node::Alternate(nodes) => Node::Alternate(all(nodes)),
        Node::Repeat { node, min, max, greed } => {
            Node::Repeat { node: Box::new(without_groups(node)), min: *min, max: *max, greed: *greed }
        }
        Node::Group(_, node) => Node::Concat(vec![without_groups(node)]),
        Node::Atomic(node) => Node::Atomic(Box::new(without_groups(node))),
        node => node.clone(),
    }
}
