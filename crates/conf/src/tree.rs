//! The tree: words, directives, blocks, and the comments between them.

use crate::source::{FileId, SourceMap, Span};
use bstr::BString;

/// One word of a directive.
#[derive(Clone, Debug)]
pub struct Word {
    /// The bytes after quotes and escapes were taken away.
    pub text: BString,
    /// The word in its file, quotes included.
    pub span: Span,
    /// Whether it was written in quotes.
    pub quoted: bool,
}

/// One directive.
#[derive(Clone, Debug)]
pub struct Node {
    /// The first word.
    pub name: Word,
    /// The words after it.
    pub args: Vec<Word>,
    /// What stands between its braces, if it has them.
    pub block: Option<Block>,
    /// The `;` or the `{`: nginx reports whatever is wrong with a directive at the line of this.
    /// Where the `;` is missing, the place at which it was missed.
    pub end: Span,
    /// A syntax error inside this directive was reported already; saying more about its words would mislead.
    pub broken: bool,
    /// An empty line stands directly before its name.
    pub blank_before: bool,
    /// The comments around it; most directives have none.
    pub comments: Option<Box<Comments>>,
}

/// The directives between two braces, or of a whole file.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// The directives in order, those of included files in place.
    pub nodes: Vec<Node>,
    /// The `}`, or the end of the file.
    pub close: Span,
    /// The comments that belong to the block and to none of its directives; most blocks have none.
    pub comments: Option<Box<BlockComments>>,
}

/// The comments that belong to a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockComments {
    /// On the line of its `{`.
    pub after_open: Option<BString>,
    /// After the last directive.
    pub at_end: Vec<Comment>,
}

/// The comments that belong to one directive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comments {
    /// On the lines above, and those found between its words.
    pub before: Vec<Comment>,
    /// On the line of its `;` or `}`.
    pub after: Option<BString>,
}

/// One comment.
#[derive(Clone, Debug)]
pub struct Comment {
    /// From the `#` to the end of the line, white space at the end left out.
    pub text: BString,
    /// An empty line stands directly before it.
    pub blank_before: bool,
}

impl PartialEq for Comment {
    fn eq(&self, other: &Comment) -> bool {
        self.text == other.text
    }
}
impl Eq for Comment {}

/// An `include` directive that was followed.
#[derive(Clone, Debug)]
pub struct Include {
    /// The directive itself; it is not among the nodes of the tree.
    pub node: Node,
    /// The path or pattern it asked for, made absolute.
    pub path: BString,
    /// The paths that match: just the one if it is no pattern.
    pub paths: Vec<BString>,
    /// What was read, in order; a path that cannot be read has nothing here.
    pub files: Vec<FileId>,
}

/// A whole configuration.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// All texts.
    pub sources: SourceMap,
    /// The directives of the `-g` text, then those of the main file; those of included files in place.
    pub root: Block,
    /// The includes that were followed, in the order of reading.
    pub includes: Vec<Include>,
}

impl Word {
    /// Whether the two say the same, wherever and however they are written.
    pub fn same(&self, other: &Word) -> bool {
        self.text == other.text
    }
}

impl Node {
    /// Whether the two have the same words, directives and comments; spans, quotes and empty lines do not count.
    pub fn same(&self, other: &Node) -> bool {
        let blocks = match (&self.block, &other.block) {
            (Some(a), Some(b)) => a.same(b),
            (a, b) => a.is_none() && b.is_none(),
        };
        blocks
            && self.name.same(&other.name)
            && self.args.len() == other.args.len()
            && self.args.iter().zip(&other.args).all(|(a, b)| a.same(b))
            && self.comments == other.comments
    }

    /// The comments, made if there are none yet.
    pub(crate) fn comments_mut(&mut self) -> &mut Comments {
        self.comments.get_or_insert_default()
    }

    /// From the first letter of the name to the `;` or `{`.
    pub fn span(&self) -> Span {
        self.name.span.to(self.end)
    }
}

impl Block {
    /// Whether the two hold the same directives and comments; see [`Node::same`].
    pub fn same(&self, other: &Block) -> bool {
        self.nodes.len() == other.nodes.len()
            && self.nodes.iter().zip(&other.nodes).all(|(a, b)| a.same(b))
            && self.comments == other.comments
    }
}
