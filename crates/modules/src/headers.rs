//! `add_header`, `add_trailer` and `expires` (nginx's manual, ngx_http_headers_module).

use crate::cidr::invalid_parameter;
use bstr::{BStr, BString};
use conf::Node;
use engine::module::{Declare, Install, cells, finish_nothing};
use engine::{Filter, Installer, Module, Request, Transform};
use http::Status;
use schema::value::{argument, seconds};
use schema::{Directive, Inherit, Problem, Services, Value, field, words};
use template::Template;

#[derive(Default)]
struct Conf {
    expires: Inherit<Option<Expires>>,
    headers_inherit: Inherit<Inheritance>,
    headers: Inherit<Vec<Added>>,
    trailers_inherit: Inherit<Inheritance>,
    trailers: Inherit<Vec<Added>>,
}

words!(Inheritance { "off" => Off, "on" => On, "merge" => Merge });
/// What a block does with the lines of the block around it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inheritance {
    Off,
    On,
    Merge,
}

/// One `add_header` or `add_trailer`.
#[derive(Clone)]
struct Added {
    name: BString,
    value: Template,
    always: bool,
    how: How,
}

/// How a header is put in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Add,
    /// `Last-Modified`, `ETag`: there can only be one; an empty value removes it.
    Replace,
}

#[derive(Clone)]
enum Expires {
    Fixed(Moment),
    /// Read for each request; true for `modified`.
    Variable(Template, bool),
}

/// When an answer expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Off,
    Epoch,
    Max,
    /// Seconds after the request.
    Access(i64),
    /// Seconds after the last modification.
    Modified(i64),
    /// When it is this many seconds after midnight.
    Daily(i64),
}

pub static MODULE: Module = Module {
    name: "headers",
    directives: &[
        Directive {
            name: "expires",
            default: "off",
            set: field!(Conf.expires),
            doc: "When an answer expires.",
        },
        // Ahead of the lines they are about, so that inheritance knows them.
        Directive {
            name: "add_header_inherit",
            default: "on",
            set: field!(Conf.headers_inherit),
            doc: "What becomes of the headers added by the outer block.",
        },
        Directive {
            name: "add_trailer_inherit",
            default: "on",
            set: field!(Conf.trailers_inherit),
            doc: "What becomes of the trailers added by the outer block.",
        },
        Directive {
            name: "add_header",
            default: "",
            set: &Declare {
                inherit: Some(|outer: &Conf, inner: &mut Conf| {
                    take(*inner.headers_inherit, &outer.headers, &mut inner.headers)
                }),
                ..Declare::new(|conf: &mut Conf, node, build| add(&mut conf.headers, node, build))
            },
            doc: "Adds a header to an answer.",
        },
        Directive {
            name: "add_trailer",
            default: "",
            set: &Declare {
                inherit: Some(|outer: &Conf, inner: &mut Conf| {
                    take(*inner.trailers_inherit, &outer.trailers, &mut inner.trailers)
                }),
                ..Declare::new(|conf: &mut Conf, node, build| add(&mut conf.trailers, node, build))
            },
            doc: "Adds a trailer to an answer.",
        },
    ],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};

fn take(inheritance: Inheritance, outer: &Inherit<Vec<Added>>, inner: &mut Inherit<Vec<Added>>) {
    match inheritance {
        Inheritance::Off => {}
        Inheritance::On => inner.inherit_from(outer),
        Inheritance::Merge => {
            let mut all = inner.value().cloned().unwrap_or_default();
            all.extend(outer.value().into_iter().flatten().cloned());
            inner.put(all, inner.span.or(outer.span));
        }
    }
}

fn add(lines: &mut Inherit<Vec<Added>>, node: &Node, build: &mut engine::Build) -> Result<(), Problem> {
    let name = argument(node, 0)?.text.clone();
    let word = argument(node, 1)?;
    let value = build.template(word.text.as_ref()).map_err(|problem| problem.on(word))?;
    let always = match node.args.get(2) {
        None => false,
        Some(word) if word.text == "always" => true,
        Some(word) => return Err(invalid_parameter(word)),
    };
    let single = ["Last-Modified", "ETag"].iter().any(|single| name.eq_ignore_ascii_case(single.as_bytes()));
    let how = if single { How::Replace } else { How::Add };
    lines.fill(node.name.span, Vec::new).push(Added { name, value, always, how });
    Ok(())
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let made = installer.once(|conf: &Conf, _| Headers {
        expires: (*conf.expires).clone().filter(|expires| !matches!(expires, Expires::Fixed(Moment::Off))),
        headers: conf.headers.value().cloned().unwrap_or_default(),
        trailers: conf.trailers.value().cloned().unwrap_or_default(),
    });
    if made.expires.is_some() || !made.headers.is_empty() || !made.trailers.is_empty() {
        installer.shared_filter(made);
    }
    Ok(())
}

struct Headers {
    expires: Option<Expires>,
    headers: Vec<Added>,
    trailers: Vec<Added>,
}

impl Filter for Headers {
    fn head(&self, request: &mut Request) -> Option<Box<dyn Transform>> {
        if request.subrequest {
            return None;
        }
        let safe = is_safe(request.response.status);
        if safe && let Some(expires) = &self.expires {
            set_expires(request, expires);
        }
        for added in self.headers.iter().filter(|added| safe || added.always) {
            let value = request.render(&added.value);
            match added.how {
                How::Add if value.is_empty() => {}
                How::Add => request.response.fields.push(&added.name, &value),
                How::Replace => replace(request, &added.name, &value),
            }
        }
        if self.trailers.iter().any(|added| safe || added.always) {
            request.response.expects_trailers = true;
        }
        None
    }

    fn trailers(&self, request: &mut Request) {
        let safe = is_safe(request.response.status);
        for added in self.trailers.iter().filter(|added| safe || added.always) {
            let value = request.render(&added.value);
            if !value.is_empty() {
                request.response.trailers.push(&added.name, &value);
            }
        }
    }
}

/// Statuses whose answers get headers without `always`.
fn is_safe(status: Status) -> bool {
    matches!(status.0, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308)
}

fn replace(request: &mut Request, name: &[u8], value: &[u8]) {
    let response = &mut request.response;
    if name.eq_ignore_ascii_case(b"Last-Modified") {
        // A date is kept as one; whatever else somebody wants to send goes out as it is.
        let date = http::date::parse_http(value);
        let is_usual = date.is_some_and(|seconds| net::clock::http_date_of(seconds) == *value);
        response.last_modified = date.filter(|_| is_usual);
        response.fields.remove(name);
        if !is_usual && !value.is_empty() {
            response.fields.push(name, value);
        }
    } else if value.is_empty() {
        response.fields.remove(name);
    } else {
        response.fields.replace(name, value);
    }
}

fn set_expires(request: &mut Request, expires: &Expires) {
    let moment = match expires {
        Expires::Fixed(moment) => *moment,
        Expires::Variable(template, modified) => {
            let text = request.render(template);
            match Moment::parse(&text, *modified) {
                Ok(moment) => moment,
                Err(_) => return,
            }
        }
    };
    let now = net::clock::wall().seconds;
    let found = moment.at(now, request.response.last_modified, net::clock::local_offset_seconds(now));
    let Some((date, age)) = found else { return };
    let fields = &mut request.response.fields;
    fields.replace(b"Expires", &net::clock::http_date_of(date));
    match age {
        Some(age) => fields.replace(b"Cache-Control", format!("max-age={age}").as_bytes()),
        None => fields.replace(b"Cache-Control", b"no-cache"),
    }
}

impl Moment {
    /// Reads what stands behind `expires` or `expires modified`.
    fn parse(text: &[u8], modified: bool) -> Result<Moment, &'static str> {
        match text {
            b"epoch" if !modified => return Ok(Moment::Epoch),
            b"max" if !modified => return Ok(Moment::Max),
            b"off" if !modified => return Ok(Moment::Off),
            _ => {}
        }
        let (sign, rest) = match text.split_first() {
            Some((sign @ (b'@' | b'+' | b'-'), rest)) => (*sign, rest),
            _ => (b'+', text),
        };
        if sign == b'@' && modified {
            return Err("daily time cannot be used with \"modified\" parameter");
        }
        let time = seconds(rest).and_then(|time| i64::try_from(time).ok()).ok_or("invalid value")?;
        let time = if sign == b'-' { -time } else { time };
        match (sign, modified) {
            (b'@', _) if time > 24 * 60 * 60 => Err("daily time value must be less than 24 hours"),
            (b'@', _) => Ok(Moment::Daily(time)),
            (_, true) => Ok(Moment::Modified(time)),
            (_, false) => Ok(Moment::Access(time)),
        }
    }

    /// The date, and for how many seconds the answer may be kept; not at all when there is none.
    fn at(self, now: i64, last_modified: Option<i64>, local_offset: i32) -> Option<(i64, Option<i64>)> {
        /// 31 December 2037, 23:55:55.
        const MAX: i64 = 2_145_916_555;
        const TEN_YEARS: i64 = 315_360_000;
        let given = |date: i64, age: i64, time: i64| Some((date, (time >= 0 && age >= 0).then_some(age)));
        match self {
            Moment::Off => None,
            Moment::Epoch => Some((1, None)),
            Moment::Max => Some((MAX, Some(TEN_YEARS))),
            Moment::Access(0) | Moment::Modified(0) => Some((now, Some(0))),
            Moment::Daily(time) => {
                let local = now + i64::from(local_offset);
                let today = now - local.rem_euclid(86_400) + time;
                let next = if today > now { today } else { today + 86_400 };
                given(next, next - now, 0)
            }
            Moment::Modified(time) if last_modified.is_some() => {
                let date = last_modified.unwrap_or(now).saturating_add(time);
                given(date, date.saturating_sub(now), time)
            }
            Moment::Access(time) | Moment::Modified(time) => given(now.saturating_add(time), time, time),
        }
    }
}

impl Value for Expires {
    fn parse(node: &Node, services: &mut dyn Services) -> Result<Self, Problem> {
        let first = argument(node, 0)?;
        let (word, modified) = match node.args.get(1) {
            None => (first, false),
            Some(second) if first.text == "modified" => (second, true),
            Some(_) => return Err(Problem::directive(&node.name, "invalid value").on(first)),
        };
        let compiled = Template::compile(BStr::new(&word.text), services.names());
        let template = compiled.map_err(|error| Problem::new(error.to_string()).on(word))?;
        if template.is_constant().is_none() {
            return Ok(Expires::Variable(template, modified));
        }
        let moment = Moment::parse(&word.text, modified);
        moment.map(Expires::Fixed).map_err(|what| Problem::directive(&node.name, what).on(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expires_as_nginx_reads_it() {
        for (text, modified, expected) in [
            ("epoch", false, Ok(Moment::Epoch)),
            ("max", false, Ok(Moment::Max)),
            ("off", false, Ok(Moment::Off)),
            ("off", true, Err("invalid value")),
            ("1h 30m", false, Ok(Moment::Access(5400))),
            ("+24h", true, Ok(Moment::Modified(86_400))),
            ("-1", false, Ok(Moment::Access(-1))),
            ("@15h30m", false, Ok(Moment::Daily(55_800))),
            ("@25h", false, Err("daily time value must be less than 24 hours")),
            ("@15h", true, Err("daily time cannot be used with \"modified\" parameter")),
            ("", false, Err("invalid value")),
            ("no", false, Err("invalid value")),
        ] {
            assert_eq!(Moment::parse(text.as_bytes(), modified), expected, "{text}");
        }
    }

    #[test]
    fn moments_become_dates_and_ages() {
        // 100 days and an hour after 1970, in a place an hour ahead: two in the morning.
        let now = 100 * 86_400 + 3600;
        for (moment, modified, expected) in [
            (Moment::Off, None, None),
            (Moment::Epoch, None, Some((1, None))),
            (Moment::Max, None, Some((2_145_916_555, Some(315_360_000)))),
            (Moment::Access(0), None, Some((now, Some(0)))),
            (Moment::Access(60), Some(5), Some((now + 60, Some(60)))),
            (Moment::Access(-1), None, Some((now - 1, None))),
            (Moment::Modified(60), Some(now - 10), Some((now + 50, Some(50)))),
            (Moment::Modified(60), Some(5), Some((65, None))),
            (Moment::Modified(60), None, Some((now + 60, Some(60)))),
            (Moment::Daily(3 * 3600), None, Some((now + 3600, Some(3600)))),
            (Moment::Daily(3600), None, Some((now + 23 * 3600, Some(23 * 3600)))),
        ] {
            assert_eq!(moment.at(now, modified, 3600), expected, "{moment:?}");
        }
    }
}
