//! `rewrite`, `return`, `set`, `if`, `break`: rules that run one after the other in the file's order (nginx's manual,
//! ngx_http_rewrite_module).
//!
//! All rules of a block, those inside its `if`s too, become one list. An `if` that does not hold jumps behind its
//! block; one that holds puts the block's plan in force and goes on, so that of several the last one wins.

mod read;

use bstr::{BStr, BString, ByteSlice};
use conf::{Level, Span};
use engine::flow::FileQuery;
use engine::module::{CompiledRegex, Install, cells, finish_nothing};
use engine::variables::Computed;
use engine::{Answer, Ask, Declare, Flow, Installer, Module, Phase, PlanId, Reply, Request, Source, Step};
use http::Status;
use http::escape::{Escape, Unescape, escape_uri, unescape};
use net::errno::Errno;
use net::file::{FileError, Opened};
use schema::bind::Cells;
use schema::{Directive, Flag, Inherit, Places, Problem, field};
use std::rc::Rc;
use std::sync::Arc;
use template::{Part, Scope, Template, VariableId};

#[derive(Default)]
struct Conf {
    rules: Vec<Rule>,
    rewrite_log: Inherit<Flag>,
    uninitialized_variable_warn: Inherit<Flag>,
}

/// One directive of a block.
#[derive(Clone)]
enum Rule {
    Rewrite(Arc<Rewrite>),
    Return(Arc<Return>),
    Set(Arc<Set>),
    Break,
    /// The condition, and where the block opens.
    If(Arc<Condition>, Span),
}

struct Rewrite {
    regex: CompiledRegex,
    /// The new path; of a redirect, the whole target.
    path: Template,
    /// What follows the `?` of the new path.
    args: Option<Template>,
    /// The request's arguments are added.
    add_args: bool,
    then: Then,
}

/// What follows a rewriting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The next rule.
    GoOn,
    /// The search for a location.
    Last,
    /// The next phase, in the same location.
    Break,
    /// An answer with this status; the target has a `?` of its own.
    Redirect { status: Status, has_args: bool },
}

struct Return {
    status: Status,
    text: Option<Template>,
}

struct Set {
    variable: VariableId,
    write: Option<fn(&mut Request, &[u8])>,
    value: Template,
}

enum Condition {
    /// The variable is neither empty nor `0`.
    True(VariableId),
    Equal {
        variable: VariableId,
        value: Template,
        negated: bool,
    },
    Matches {
        variable: VariableId,
        regex: CompiledRegex,
        negated: bool,
    },
    File {
        path: Template,
        test: FileTest,
        negated: bool,
    },
}

#[derive(Clone, Copy)]
enum FileTest {
    Plain,
    Directory,
    Exists,
    Executable,
}

/// The rules of a block, ready to run.
struct Rules {
    operations: Vec<Operation>,
    log: bool,
}

enum Operation {
    Rewrite(Arc<Rewrite>),
    Return(Arc<Return>),
    Set(Arc<Set>),
    Break,
    If {
        condition: Arc<Condition>,
        /// In force from here on, if the condition holds; none on the server level.
        plan: Option<PlanId>,
        /// Where to go on if it does not.
        otherwise: usize,
    },
}

/// Where the rules are.
#[derive(Clone, Copy)]
struct Position {
    at: usize,
    /// Groups are escaped where they are put into a value. nginx does so until a rewriting has happened.
    escapes: bool,
}

/// What is remembered while a file is looked at.
#[derive(Default)]
struct Waiting {
    position: Option<Position>,
    path: Vec<u8>,
}

/// What one operation says.
enum Outcome {
    To(usize),
    End,
    Flow(Flow),
}

impl Step for Rules {
    fn run(&self, request: &mut Request) -> Flow {
        self.go_on(request, Position { at: 0, escapes: true })
    }

    fn resume(&self, request: &mut Request, answer: Answer) -> Flow {
        let waiting = std::mem::take(request.note::<Waiting>());
        let (Some(mut position), Answer::File(found)) = (waiting.position, answer) else { return Flow::Next };
        if let Some(Operation::If { condition, plan, otherwise }) = self.operations.get(position.at)
            && let Condition::File { test, negated, .. } = **condition
        {
            let holds = file_holds(request, test, &waiting.path, found) != negated;
            position.at = decide(request, holds, position.at, *plan, *otherwise);
        }
        self.go_on(request, position)
    }
}

impl Rules {
    fn go_on(&self, request: &mut Request, mut position: Position) -> Flow {
        while let Some(operation) = self.operations.get(position.at) {
            match self.operate(request, operation, &mut position) {
                Outcome::To(at) => position.at = at,
                Outcome::End => return Flow::Next,
                Outcome::Flow(flow) => return flow,
            }
        }
        Flow::Next
    }

    fn operate(&self, request: &mut Request, operation: &Operation, position: &mut Position) -> Outcome {
        let next = position.at + 1;
        match operation {
            Operation::Rewrite(rewrite) => self.rewrite(request, rewrite, position),
            Operation::Return(answer) => Outcome::Flow(answer.flow(request)),
            Operation::Set(set) => {
                let value = render(request, &set.value, position.escapes);
                match set.write {
                    Some(write) => write(request, &value),
                    None => request.store(set.variable, value),
                }
                Outcome::To(next)
            }
            Operation::Break => {
                if std::mem::take(&mut request.uri_changed) {
                    request.prefix_valid = false;
                }
                Outcome::End
            }
            Operation::If { condition, plan, otherwise } => {
                let holds = match &**condition {
                    Condition::True(variable) => {
                        let value = value(request, *variable);
                        !value.is_empty() && value != b"0"
                    }
                    Condition::Equal { variable, value: other, negated } => {
                        let value = value(request, *variable);
                        (value == render(request, other, position.escapes)) != *negated
                    }
                    Condition::Matches { variable, regex, negated } => {
                        let value = value(request, *variable);
                        self.matches(request, regex, &value) != *negated
                    }
                    Condition::File { path, .. } => {
                        let path = render(request, path, position.escapes);
                        let waiting = Waiting { position: Some(*position), path: path.clone() };
                        *request.note() = waiting;
                        return Outcome::Flow(Flow::Ask(Ask::File(FileQuery { path, test_only: true })));
                    }
                };
                Outcome::To(decide(request, holds, position.at, *plan, *otherwise))
            }
        }
    }

    fn rewrite(&self, request: &mut Request, rewrite: &Rewrite, position: &mut Position) -> Outcome {
        let uri = request.uri.clone();
        if !self.matches(request, &rewrite.regex, &uri) {
            return Outcome::To(position.at + 1);
        }
        request.internal = true;
        request.uri_as_sent = false;
        request.uri_changed = rewrite.then != Then::Break;
        if rewrite.then == Then::Break {
            request.prefix_valid = false;
        }
        position.escapes = false;
        if let Then::Redirect { status, has_args } = rewrite.then {
            let location = redirect_target(request, rewrite, has_args);
            self.log(request, format_args!("rewritten redirect: \"{}\"", location.as_bstr()));
            request.response.location = location;
            return Outcome::Flow(Flow::Deny(status));
        }
        let uri = render(request, &rewrite.path, false);
        match &rewrite.args {
            Some(args) => {
                let mut args = render(request, args, true);
                if rewrite.add_args && !request.args.is_empty() {
                    args.push(b'&');
                    args.extend_from_slice(&request.args);
                }
                request.args = args;
            }
            None if !rewrite.add_args => request.args.clear(),
            None => {}
        }
        let (new, args) = (uri.as_bstr(), request.args.as_bstr());
        self.log(request, format_args!("rewritten data: \"{new}\", args: \"{args}\""));
        if uri.is_empty() {
            request.log_error(Level::Error, format_args!("the rewritten URI has a zero length"));
            return Outcome::Flow(Flow::Deny(Status::INTERNAL_SERVER_ERROR));
        }
        request.uri = uri;
        if rewrite.then == Then::GoOn { Outcome::To(position.at + 1) } else { Outcome::End }
    }

    /// Matches a subject; without a match `$1` and its like are empty from now on.
    fn matches(&self, request: &mut Request, regex: &CompiledRegex, subject: &[u8]) -> bool {
        let matched = request.matches(regex, subject);
        if !matched {
            request.captures.groups.clear();
        }
        let (pattern, subject) = (regex.regex.pattern(), subject.as_bstr());
        let verb = if matched { "matches" } else { "does not match" };
        self.log(request, format_args!("\"{pattern}\" {verb} \"{subject}\""));
        matched
    }

    fn log(&self, request: &Request, message: std::fmt::Arguments<'_>) {
        if self.log {
            request.log_error(Level::Notice, message);
        }
    }
}

fn decide(request: &mut Request, holds: bool, at: usize, plan: Option<PlanId>, otherwise: usize) -> usize {
    if !holds {
        return otherwise;
    }
    if let Some(plan) = plan {
        request.switch(plan);
    }
    at + 1
}

fn file_holds(request: &Request, test: FileTest, path: &[u8], found: Result<Rc<Opened>, FileError>) -> bool {
    match found {
        Ok(opened) => match test {
            FileTest::Plain => opened.info.is_file,
            FileTest::Directory => opened.info.is_directory,
            FileTest::Exists => opened.info.is_file || opened.info.is_directory,
            FileTest::Executable => opened.info.is_executable,
        },
        Err(error) => {
            if !matches!(error.errno, Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) {
                crate::files::log_failure(request, Level::Crit, path, &error);
            }
            false
        }
    }
}

/// A redirect's target: decoded as far as that is safe, with the request's arguments.
fn redirect_target(request: &mut Request, rewrite: &Rewrite, has_args: bool) -> Vec<u8> {
    let target = render(request, &rewrite.path, true);
    let mut location = Vec::with_capacity(target.len());
    let decoded = unescape(Unescape::Redirect, &target, &mut location);
    location.extend_from_slice(&target[decoded..]);
    if rewrite.add_args && !request.args.is_empty() {
        location.push(if has_args { b'&' } else { b'?' });
        location.extend_from_slice(&request.args);
    }
    location
}

fn value(request: &mut Request, variable: VariableId) -> Vec<u8> {
    let mut value = Vec::new();
    request.variable(variable, &mut value);
    value
}

/// A template's value. Groups of a URI that came with escapes are escaped again if `escapes` is set.
fn render(request: &mut Request, template: &Template, escapes: bool) -> Vec<u8> {
    let parts = request.head.parts;
    if !escapes || !(parts.quoted || parts.plus) {
        return request.render(template);
    }
    let mut out = Vec::new();
    for part in template.parts() {
        match part {
            Part::Text(text) => out.extend_from_slice(text),
            Part::Variable(id) => _ = request.variable(*id, &mut out),
            Part::Capture(group) => {
                let text = request.captures.group(usize::from(*group)).unwrap_or_default();
                escape_uri(Escape::Args, text, &mut out);
            }
        }
    }
    out
}

impl Return {
    fn flow(&self, request: &mut Request) -> Flow {
        let Some(text) = self.text.as_ref().filter(|text| !text.parts().is_empty()) else {
            return if self.status.0 < 400 {
                self.reply(request, Vec::new())
            } else {
                Flow::Deny(self.status)
            };
        };
        // `$status` in the text is the one to be sent.
        request.response.status = self.status;
        // The target of a redirect stays with the request; a body goes out and is given back.
        let text = if self.is_redirect() { request.render(text) } else { request.render_body(text) };
        self.reply(request, text)
    }

    fn is_redirect(&self) -> bool {
        matches!(self.status.0, 301 | 302 | 303 | 307 | 308)
    }

    fn reply(&self, request: &mut Request, text: Vec<u8>) -> Flow {
        if self.is_redirect() {
            if text.is_empty() {
                request.response.fields.push(b"Location", b"");
            }
            request.response.location = text;
            return Flow::Deny(self.status);
        }
        request.content_type_by_extension();
        request.response.content_length = Some(text.len() as u64);
        Flow::Reply(Reply { status: self.status, source: Source::Bytes(text) })
    }
}

/// A variable of `set` that is read before anything has set it.
struct Uninitialized(BString);

/// Kept for plans that do not warn of such variables.
struct Silent;

impl Computed for Uninitialized {
    fn compute(&self, request: &mut Request, _out: &mut Vec<u8>) -> bool {
        if request.plan.kept::<Silent>().is_none() {
            let name: &BStr = self.0.as_ref();
            request.log_error(Level::Warn, format_args!("using uninitialized \"{name}\" variable"));
        }
        // It counts as empty from now on, so that the warning comes once.
        true
    }
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let conf = installer.conf::<Conf>();
    if !conf.uninitialized_variable_warn.0 {
        installer.keep(Silent);
    }
    // The rules inside an `if` run as part of the list around it.
    let rules = installer.own::<Conf>().map(|own| &own.rules[..]).unwrap_or_default();
    if rules.is_empty() || !installer.place.meets(Places::SERVER.and(Places::LOCATION)) {
        return Ok(());
    }
    let mut operations = Vec::new();
    for rule in rules {
        let Rule::If(condition, span) = rule else {
            operations.push(operation(rule));
            continue;
        };
        let inside = installer.cells.children.iter().find(|child| child.open == *span);
        let inside = inside.and_then(|child| inner_rules(child, conf, installer.index)).unwrap_or_default();
        let plan = installer.inner.get(span).copied().filter(|_| installer.place == Places::LOCATION);
        let otherwise = operations.len() + 1 + inside.len();
        operations.push(Operation::If { condition: condition.clone(), plan, otherwise });
        operations.extend(inside.iter().map(operation));
    }
    installer.step(Phase::Rewrite, Rules { operations, log: conf.rewrite_log.0 });
    Ok(())
}

/// The rules inside an `if`, unless it has none and shares the cells of the block around.
fn inner_rules<'a>(inside: &'a Cells, outer: &Conf, index: usize) -> Option<&'a [Rule]> {
    let conf = inside.module::<Conf>(index).filter(|conf| !std::ptr::eq(*conf, outer))?;
    Some(&conf.rules)
}

fn operation(rule: &Rule) -> Operation {
    match rule {
        Rule::Rewrite(rewrite) => Operation::Rewrite(rewrite.clone()),
        Rule::Return(answer) => Operation::Return(answer.clone()),
        Rule::Set(set) => Operation::Set(set.clone()),
        // An `if` inside an `if` is refused when it is read.
        Rule::Break | Rule::If(..) => Operation::Break,
    }
}

fn inside_if(outer: Places) -> Places {
    if outer.meets(Places::SERVER) { Places::SERVER_IF } else { Places::LOCATION_IF }
}

/// The module.
pub static MODULE: Module = Module {
    name: "rewrite",
    directives: &[
        Directive {
            name: "rewrite",
            default: "",
            set: &Declare::new(read::rewrite),
            doc: "Changes the URI where it matches a regular expression.",
        },
        Directive {
            name: "return",
            default: "",
            set: &Declare::new(read::answer),
            doc: "Ends the request with a status, a text or a redirect.",
        },
        Directive {
            name: "break",
            default: "",
            set: &Declare::new(read::stop),
            doc: "Ends the rules of this module.",
        },
        Directive {
            name: "if",
            default: "",
            set: &Declare { nested: Some(inside_if), ..Declare::new(read::test) },
            doc: "Opens a block for requests that fulfil a condition.",
        },
        Directive {
            name: "set",
            default: "",
            set: &Declare::new(read::set),
            doc: "Gives a variable a value.",
        },
        Directive {
            name: "rewrite_log",
            default: "off",
            set: field!(Conf.rewrite_log),
            doc: "Whether what the rules do is logged.",
        },
        Directive {
            name: "uninitialized_variable_warn",
            default: "on",
            set: field!(Conf.uninitialized_variable_warn),
            doc: "Whether the use of variables that nothing has set is logged.",
        },
    ],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};
