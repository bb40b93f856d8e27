//! What a setter says when it refuses a directive. The binder turns it into a diagnostic at the right place.

use conf::Span;

/// Why a directive cannot be accepted, in nginx's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The whole first line without ` in FILE:LINE`.
    pub message: String,
    /// The word to point at; none points at the directive's name.
    pub span: Option<Span>,
    /// Other places that matter, each with a remark.
    pub labels: Vec<(Span, String)>,
    /// Advice for people, one sentence each.
    pub help: Vec<String>,
    /// Report this line instead of the directive's end (nginx reports some errors where a block closes).
    pub at: Option<Span>,
    /// nginx would accept this: Gapura knows it but does not do it yet. Told after what nginx would say.
    pub unbuilt: bool,
}

impl Problem {
    /// A problem with the message as it stands.
    pub fn new(message: impl Into<String>) -> Problem {
        Problem {
            message: message.into(),
            span: None,
            labels: Vec::new(),
            help: Vec::new(),
            at: None,
            unbuilt: false,
        }
    }

    /// Something of nginx that is not built yet: `what` is the subject of the sentence, e.g. `"x" directive`.
    pub fn unbuilt(what: impl std::fmt::Display) -> Problem {
        let help = "Gapura knows this of nginx but does not do it yet, so it is refused rather than ignored";
        Problem { unbuilt: true, ..Problem::new(format!("{what} is not supported yet")) }.help(help)
    }

    /// nginx's form `"NAME" directive WHAT`, e.g. `"root" directive is duplicate`.
    pub fn directive(name: &conf::Word, what: &str) -> Problem {
        Problem::new(format!("\"{}\" directive {}", name.text, what))
    }

    /// Points at a word.
    pub fn on(mut self, word: &conf::Word) -> Problem {
        self.span = Some(word.span);
        self
    }

    /// nginx's `"NAME" directive is duplicate`, with the place of the first one.
    pub fn duplicate(name: &conf::Word, first: Option<Span>) -> Problem {
        let mut problem = Problem::directive(name, "is duplicate");
        problem.labels.extend(first.map(|first| (first, "it was given here already".to_owned())));
        problem
    }

    /// Adds a sentence of advice.
    pub fn help(mut self, sentence: impl Into<String>) -> Problem {
        self.help.push(sentence.into());
        self
    }

    /// Reports the line of this span.
    pub fn at(mut self, span: Span) -> Problem {
        self.at = Some(span);
        self
    }
}
