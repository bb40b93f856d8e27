//! `charset`: says in which encoding an answer is, and recodes it (nginx's manual, ngx_http_charset_module).

mod recode;

use crate::mime::{MimeTypes, split_charset};
use bstr::{BStr, BString, ByteSlice};
use conf::{Diagnostic, Level, Node};
use engine::module::{Declare, Install, cells, finish_nothing};
use engine::{Build, Filter, Installer, Module, Request, Transform};
use recode::{Direction, Recode, Table};
use schema::value::argument;
use schema::{Directive, Flag, Inherit, Problem, Services, Value, field};
use std::sync::Arc;
use template::Template;

/// Types whose charset is told unless `charset_types` says otherwise, besides `text/html`.
const TYPES: [&str; 5] =
    ["text/xml", "text/plain", "text/vnd.wap.wml", "application/javascript", "application/rss+xml"];

#[derive(Default)]
struct Conf {
    charset: Inherit<Choice>,
    source: Inherit<Choice>,
    overrides: Inherit<Flag>,
    types: Inherit<Option<MimeTypes>>,
}

/// A charset as a directive names it.
#[derive(Clone)]
enum Choice {
    Off,
    Named(BString),
    Variable(Template),
}

pub static MODULE: Module = Module {
    name: "charset",
    directives: &[
        Directive {
            name: "charset",
            default: "off",
            set: field!(Conf.charset),
            doc: "The charset that answers are to be in, told in Content-Type.",
        },
        Directive {
            name: "source_charset",
            default: "off",
            set: field!(Conf.source),
            doc: "The charset that answers are in before they are recoded.",
        },
        Directive {
            name: "override_charset",
            default: "off",
            set: field!(Conf.overrides),
            doc: "Whether answers that tell their charset are recoded.",
        },
        Directive {
            name: "charset_types",
            default: "",
            set: field!(Conf.types),
            doc: "Types of answers whose charset is told, besides text/html.",
        },
        Directive {
            name: "charset_map",
            default: "",
            set: &Declare::new(add_map),
            doc: "How characters of one charset are written in another.",
        },
    ],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};

impl Value for Choice {
    fn parse(node: &Node, services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        if word.text == "off" && (node.name.text == "charset" || node.name.text == "default") {
            return Ok(Choice::Off);
        }
        if !word.text.starts_with(b"$") {
            return Ok(Choice::Named(word.text.clone()));
        }
        let template = Template::compile(word.text.as_bstr(), services.names());
        template.map(Choice::Variable).map_err(|error| Problem::new(error.to_string()).on(word))
    }
}

impl Choice {
    fn is(&self, charset: &[u8]) -> bool {
        matches!(self, Choice::Named(name) if name.eq_ignore_ascii_case(charset))
    }
}

/// The tables of a configuration, and the pairs that were found to lack one.
#[derive(Default)]
struct Declared {
    tables: Vec<Arc<Table>>,
    missing: Vec<(BString, BString)>,
}

fn add_map(_none: &mut (), node: &Node, build: &mut Build) -> Result<(), Problem> {
    let (from, to) = (argument(node, 0)?, argument(node, 1)?);
    let (one, other) = (&from.text, &to.text);
    if one.eq_ignore_ascii_case(other) {
        let text = format!("\"charset_map\" between the same charsets \"{one}\" and \"{other}\"");
        return Err(Problem::new(text));
    }
    if one.eq_ignore_ascii_case(b"utf-8") {
        let text = "\"charset_map\" with \"utf-8\" charset should be given in the second column";
        return Err(Problem::new(text));
    }
    if build.shared::<Declared>().tables.iter().any(|table| table.direction(one, other).is_some()) {
        return Err(Problem::new(format!("duplicate \"charset_map\" between \"{one}\" and \"{other}\"")));
    }
    let mut table = Table::new(one.clone(), other.clone());
    for line in node.block.iter().flat_map(|block| &block.nodes) {
        if let Err(problem) = table.add_line(line) {
            build.refuse(problem.at(line.end), line);
        }
    }
    build.shared::<Declared>().tables.push(Arc::new(table));
    Ok(())
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let conf = installer.conf::<Conf>();
    if matches!(*conf.charset, Choice::Off) {
        return Ok(());
    }
    let declared = installer.build.shared::<Declared>();
    if let (Choice::Named(to), Choice::Named(from)) = (&*conf.charset, &*conf.source)
        && !to.eq_ignore_ascii_case(from)
        && declared.tables.iter().all(|table| table.direction(from, to).is_none())
        && !declared.missing.contains(&(from.clone(), to.clone()))
    {
        declared.missing.push((from.clone(), to.clone()));
        let text = format!("no \"charset_map\" between the charsets \"{from}\" and \"{to}\"");
        installer.build.diagnostics.push(Diagnostic::emerg("charset-map", text));
        return Ok(());
    }
    let told = installer.once(|conf: &Conf, _| Told((*conf.charset).clone()));
    installer.keep_shared(told);
    let filter = installer.once(|conf: &Conf, build| Charset {
        charset: (*conf.charset).clone(),
        source: (*conf.source).clone(),
        overrides: conf.overrides.0,
        types: (*conf.types).clone().unwrap_or_else(|| MimeTypes::of(&TYPES)),
        tables: build.shared::<Declared>().tables.clone(),
    });
    installer.shared_filter(filter);
    Ok(())
}

struct Charset {
    charset: Choice,
    source: Choice,
    overrides: bool,
    types: MimeTypes,
    tables: Vec<Arc<Table>>,
}

/// What `charset` says, kept for the plan.
struct Told(Choice);

/// The charset that an HTML page made here will be told to be in.
pub fn of_html(request: &mut Request) -> Option<BString> {
    let told = request.plan.kept::<Told>()?;
    choose(&told.0, request)
}

impl Filter for Charset {
    fn head(&self, request: &mut Request) -> Option<Box<dyn Transform>> {
        let response = &request.response;
        if request.subrequest || response.content_type.is_empty() {
            return None;
        }
        let (_, told) = split_charset(&response.content_type);
        let told: Option<BString> = told.map(BString::from).filter(|told| !told.is_empty());
        let demanded = BString::from(std::mem::take(&mut request.response.charset));
        let to = if demanded.is_empty() {
            let content_type = &request.response.content_type;
            let speaks = if told.is_some() { self.overrides } else { self.types.contain(content_type) };
            choose(&self.charset, request).filter(|_| speaks)?
        } else {
            // By the upstream, in X-Accel-Charset.
            let named = [&self.charset, &self.source].into_iter().any(|choice| choice.is(&demanded));
            if !named && !self.tables.iter().any(|table| table.is_of(&demanded)) {
                request.log_error(Level::Error, format_args!("unknown charset \"{demanded}\" to override"));
                return None;
            }
            demanded
        };
        let Some(from) = told.or_else(|| choose(&self.source, request)) else {
            tell(request, &to, false);
            return None;
        };
        let known = |name: &[u8]| self.tables.iter().any(|table| table.is_of(name));
        if from.eq_ignore_ascii_case(&to) {
            tell(request, &to, known(&to));
            return None;
        }
        // What is packed cannot be recoded.
        let packed =
            request.response.fields.get(b"Content-Encoding").is_some_and(|coding| !coding.is_empty());
        let table = self.tables.iter().find_map(|table| Some((table.clone(), table.direction(&from, &to)?)));
        match table {
            Some(_) if packed => None,
            Some((table, direction)) => {
                tell(request, &to, true);
                Some(recode(table, direction))
            }
            None => {
                let (from, to) = (BStr::new(&from), BStr::new(&to));
                let message = format_args!("no \"charset_map\" between the charsets \"{from}\" and \"{to}\"");
                request.log_error(Level::Error, message);
                None
            }
        }
    }
}

fn recode(table: Arc<Table>, direction: Direction) -> Box<dyn Transform> {
    Box::new(Recode::new(table, direction))
}

/// The charset meant; none for `off`.
fn choose(choice: &Choice, request: &mut Request) -> Option<BString> {
    match choice {
        Choice::Off => None,
        Choice::Named(name) => Some(name.clone()),
        Choice::Variable(template) => Some(request.render(template).into()),
    }
}

/// Tells the charset; in place of the one that is told already only where `instead`.
fn tell(request: &mut Request, charset: &[u8], instead: bool) {
    let response = &mut request.response;
    let (kind, told) = split_charset(&response.content_type);
    let (kind_bytes, is_told) = (kind.len(), told.is_some());
    if is_told && instead {
        response.content_type.truncate(kind_bytes);
    }
    response.charset.clear();
    // nginx tells none with a redirect: a browser of old took it for the next page's.
    if !matches!(response.status.0, 301 | 302) && (instead || !is_told) {
        response.charset.extend_from_slice(charset);
    }
}
