//! A diagnostic is data: what is wrong, where, and what might help. `render` turns it into text.

use crate::files::FileError;
use crate::source::{SourceMap, Span};
use bstr::BString;
use std::cmp::Ordering;
use std::collections::HashSet;

/// How bad it is, in nginx's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The configuration cannot be used.
    Emerg,
    /// Used by nginx for failures of the system while it reads.
    Alert,
    /// A file could not be read to its end.
    Crit,
    /// An error that does not stop the start.
    Error,
    /// Something is probably not meant.
    Warn,
    /// Worth knowing.
    Notice,
    /// For the curious.
    Info,
    /// For developers.
    Debug,
}

impl Level {
    /// nginx's name of the level, as it stands in brackets.
    pub fn name(self) -> &'static str {
        match self {
            Level::Emerg => "emerg",
            Level::Alert => "alert",
            Level::Crit => "crit",
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Notice => "notice",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }

    /// Whether a configuration with such a diagnostic is refused.
    pub fn is_error(self) -> bool {
        self <= Level::Error
    }
}

/// One thing to tell the user about a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// A stable name for tools, such as `unknown-directive`.
    pub id: &'static str,
    /// How bad it is.
    pub level: Level,
    /// nginx's exact words, without the error number and without ` in FILE:LINE`.
    pub message: BString,
    /// The failure of the system behind it: rendered as ` (2: No such file or directory)`.
    pub os_error: Option<FileError>,
    /// What to mark in the text. Without it there is no ` in FILE:LINE` either.
    pub span: Option<Span>,
    /// The place whose line nginx names, where that is not the start of `span`: most often [`crate::Node::end`].
    pub line_span: Option<Span>,
    /// nginx names neither file nor line for this one, although we know the place.
    pub bare: bool,
    /// A limit of ours that nginx does not have. What nginx would say is told first, because tools and people who
    /// know nginx look for that.
    pub ours: bool,
    /// Further places, each with a remark.
    pub labels: Vec<(Span, String)>,
    /// Sentences that help, such as `did you mean "proxy_pass"?`.
    pub help: Vec<String>,
}

impl Diagnostic {
    /// A diagnostic without a place.
    pub fn new(id: &'static str, level: Level, message: impl Into<BString>) -> Diagnostic {
        Diagnostic {
            id,
            level,
            message: message.into(),
            os_error: None,
            span: None,
            line_span: None,
            bare: false,
            ours: false,
            labels: Vec::new(),
            help: Vec::new(),
        }
    }

    /// An error that refuses the configuration.
    pub fn emerg(id: &'static str, message: impl Into<BString>) -> Diagnostic {
        Diagnostic::new(id, Level::Emerg, message)
    }

    /// A warning.
    pub fn warn(id: &'static str, message: impl Into<BString>) -> Diagnostic {
        Diagnostic::new(id, Level::Warn, message)
    }

    /// Marks a place, whose line is also the one named.
    pub fn at(mut self, span: Span) -> Diagnostic {
        self.span = Some(span);
        self
    }

    /// Names the line of another place than the marked one.
    pub fn line(mut self, span: Span) -> Diagnostic {
        self.line_span = Some(span);
        self
    }

    /// Leaves ` in FILE:LINE` away.
    pub fn bare(mut self) -> Diagnostic {
        self.bare = true;
        self
    }

    /// Marks it as a limit of ours.
    pub fn ours(mut self) -> Diagnostic {
        self.ours = true;
        self
    }

    /// Adds the failure of the system that caused it.
    pub fn os_error(mut self, error: FileError) -> Diagnostic {
        self.os_error = Some(error);
        self
    }

    /// Adds a remark at another place.
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Diagnostic {
        self.labels.push((span, text.into()));
        self
    }

    /// Adds a sentence that helps.
    pub fn help(mut self, text: impl Into<String>) -> Diagnostic {
        self.help.push(text.into());
        self
    }

    /// The place at which nginx would have noticed.
    pub fn reported_at(&self) -> Option<Span> {
        self.line_span.or(self.span)
    }
}

/// Puts diagnostics of several stages into the order in which nginx would come across them, and drops repetitions
/// (a file that is included ten times has its errors once). What has no place keeps its position relative to the end:
/// it goes last, but for the limits of ours, which follow everything that nginx would say. Equal places keep the order
/// they came in.
pub fn in_reading_order(mut diagnostics: Vec<Diagnostic>, sources: &SourceMap) -> Vec<Diagnostic> {
    diagnostics.sort_by(|a, b| {
        a.ours.cmp(&b.ours).then_with(|| match (a.reported_at(), b.reported_at()) {
            (Some(a), Some(b)) => sources.reading_order(a, b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        })
    });
    let mut seen = HashSet::new();
    diagnostics.retain(|diagnostic| {
        let place = diagnostic.reported_at().map(|span| {
            (
                sources.file(span.file).map(|file| file.name.clone()),
                span.start,
                diagnostic.span.map(|span| span.start),
            )
        });
        seen.insert((place, diagnostic.level, diagnostic.message.clone()))
    });
    diagnostics
}
