//! `limit_conn`: requests under way at a time by key (nginx's manual, ngx_http_limit_conn_module).

use crate::cidr::invalid_parameter;
use crate::limit_req::{LogLevel, RefusalStatus};
use crate::zones::{self, KeyedState, KeyedZone, Kind, NamedZone};
use bstr::BString;
use conf::{Level, Node};
use engine::module::{Declare, Install, Read, Variable, cells};
use engine::{Build, Flow, Installer, Module, Phase, Request, Step};
use http::Status;
use schema::value::{argument, number};
use schema::{Directive, Flag, Inherit, Problem, field};
use std::sync::Arc;
use zone::{Counters, Refused, Zones};

/// All zones of the process.
static KIND: Kind<Counters> = Kind {
    module: "limit_conn",
    bound: "limit_conn_zone",
    used: "limit_conn_zone",
    key_bytes_max: 255,
    zones: Zones::new(),
    make: Counters::new,
};

type Zone = KeyedZone<Counters, ()>;

#[derive(Default)]
struct Conf {
    limits: Inherit<Vec<Limit>>,
    log_level: Inherit<LogLevel>,
    status: Inherit<RefusalStatus>,
    dry_run: Inherit<Flag>,
}

/// `limit_conn zone number`
#[derive(Clone)]
struct Limit {
    zone: BString,
    count_max: u32,
}

pub static MODULE: Module = Module {
    name: "limit_conn",
    directives: &[
        Directive {
            name: "limit_conn_zone",
            default: "",
            set: &Declare::new(declare_zone),
            doc: "A zone of requests under way by key.",
        },
        Directive {
            name: "limit_conn",
            default: "",
            set: &Declare {
                inherit: Some(|outer: &Conf, inner: &mut Conf| inner.limits.inherit_from(&outer.limits)),
                ..Declare::new(add_limit)
            },
            doc: "Limits requests under way by a zone.",
        },
        Directive {
            name: "limit_conn_log_level",
            default: "error",
            set: field!(Conf.log_level),
            doc: "The level refusals are logged at.",
        },
        Directive {
            name: "limit_conn_status",
            default: "503",
            set: field!(Conf.status),
            doc: "The status of refused requests.",
        },
        Directive {
            name: "limit_conn_dry_run",
            default: "off",
            set: field!(Conf.dry_run),
            doc: "Only log what would be limited.",
        },
    ],
    families: &[],
    variables: &[Variable {
        name: "limit_conn_status",
        read: Read::Plain(|request, out| {
            let outcome = request.lasting_note::<Counted>().outcome;
            out.extend_from_slice(outcome.unwrap_or_default().as_bytes());
            outcome.is_some()
        }),
        write: None,
        doc: "What limits on connections said: PASSED, REJECTED or REJECTED_DRY_RUN.",
    }],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish,
};

/// What was said of a request, and what it counts for until it ends.
#[derive(Default)]
struct Counted {
    outcome: Option<&'static str>,
    held: Vec<Held>,
}

/// One request counted in one zone; given back when dropped.
struct Held {
    state: Arc<KeyedState<Counters>>,
    key: Vec<u8>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.state.lock().give_back(&self.key);
    }
}

/// `limit_conn_zone key zone=name:size`
fn declare_zone(_none: &mut (), node: &Node, build: &mut Build) -> Result<(), Problem> {
    let mut zone = None;
    for word in node.args.iter().skip(1) {
        match word.text.strip_prefix(b"zone=") {
            Some(text) => zone = Some(NamedZone::parse(word, text)?),
            None => return Err(invalid_parameter(word)),
        }
    }
    KIND.declare(node, zone, (), build)
}

fn add_limit(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let zone = argument(node, 0)?;
    zones::refer(build, MODULE.name, &zone.text).map_err(|problem| problem.on(zone))?;
    let limits = conf.limits.fill(node.name.span, Vec::new);
    if limits.iter().any(|limit| limit.zone == zone.text) {
        return Err(Problem::directive(&node.name, "is duplicate"));
    }
    let word = argument(node, 1)?;
    let count = number(&word.text).filter(|n| *n > 0);
    let count = count
        .ok_or_else(|| Problem::new(format!("invalid number of connections \"{}\"", word.text)).on(word))?;
    if count > 65535 {
        return Err(Problem::new("connection limit must be less 65536").on(word));
    }
    limits.push(Limit { zone: zone.text.clone(), count_max: count as u32 });
    Ok(())
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let conf = installer.conf::<Conf>();
    let Some(limits) = conf.limits.value() else { return Ok(()) };
    let step = installer.once(|conf: &Conf, build| {
        // A zone that is missing is reported at the end.
        let bound = limits.iter().filter_map(|limit| Some((KIND.find(build, &limit.zone)?, limit.count_max)));
        let limits = bound.collect();
        Limits { limits, level: conf.log_level.0, status: conf.status.0, dry_run: conf.dry_run.0 }
    });
    installer.shared_step(Phase::Preaccess, step);
    Ok(())
}

fn finish(build: &mut Build) -> Result<(), Problem> {
    zones::finish(build, MODULE.name);
    Ok(())
}

/// The limits of one location.
struct Limits {
    limits: Vec<(Arc<Zone>, u32)>,
    level: Level,
    status: Status,
    dry_run: bool,
}

impl Step for Limits {
    fn run(&self, request: &mut Request) -> Flow {
        if request.lasting_note::<Counted>().outcome.is_some() {
            return Flow::Next;
        }
        for (zone, count_max) in &self.limits {
            let Some(key) = KIND.key(zone, request) else { continue };
            let taken = zone.state().lock().take(&key, *count_max);
            match taken {
                Ok(()) => {
                    let counted = request.lasting_note::<Counted>();
                    counted.outcome = Some("PASSED");
                    counted.held.push(Held { state: zone.state().clone(), key });
                }
                Err(refused) => return self.refuse(request, zone, refused),
            }
        }
        Flow::Next
    }
}

impl Limits {
    fn refuse(&self, request: &mut Request, zone: &Zone, refused: Refused) -> Flow {
        if refused == Refused::Limit {
            let dry = if self.dry_run { ", dry run," } else { "" };
            request
                .log_error(self.level, format_args!("limiting connections{dry} by zone \"{}\"", zone.name));
        }
        let counted = request.lasting_note::<Counted>();
        counted.held.clear();
        counted.outcome = Some(if self.dry_run { "REJECTED_DRY_RUN" } else { "REJECTED" });
        if self.dry_run { Flow::Next } else { Flow::Deny(self.status) }
    }
}
