//! `limit_req`: requests a second by key, with bursts and delays (nginx's manual, ngx_http_limit_req_module).

use crate::cidr::invalid_parameter;
use crate::zones::{self, KeyedZone, Kind, NamedZone};
use bstr::BString;
use conf::{Level, Node};
use engine::module::{Declare, Install, Read, Variable, cells};
use engine::{Answer, Ask, Build, Flow, Installer, Module, Phase, Request, Step};
use http::Status;
use schema::value::{argument, number};
use schema::{Directive, Flag, Inherit, Problem, Services, Value, field};
use std::sync::{Arc, MutexGuard};
use zone::{Asked, LeakyBuckets, Zones};

/// An excess nobody reaches, thousandths: `nodelay`.
const NO_DELAY: u64 = u64::MAX;

/// All zones of the process.
static KIND: Kind<LeakyBuckets> = Kind {
    module: "limit_req",
    bound: "limit_req_zone",
    used: "limit_req",
    key_bytes_max: 65535,
    zones: Zones::new(),
    make: LeakyBuckets::new,
};

/// Thousandths of a request a second, at least 1.
struct Rate(u64);

type Zone = KeyedZone<LeakyBuckets, Rate>;

#[derive(Default)]
struct Conf {
    limits: Inherit<Vec<Limit>>,
    log_level: Inherit<LogLevel>,
    status: Inherit<RefusalStatus>,
    dry_run: Inherit<Flag>,
}

/// `limit_req zone=name [burst=N] [nodelay | delay=N]`; numbers in thousandths of a request.
#[derive(Clone)]
struct Limit {
    zone: BString,
    burst: u64,
    delay: u64,
}

pub static MODULE: Module = Module {
    name: "limit_req",
    directives: &[
        Directive {
            name: "limit_req_zone",
            default: "",
            set: &Declare::new(declare_zone),
            doc: "A zone of request rates by key.",
        },
        Directive {
            name: "limit_req",
            default: "",
            set: &Declare {
                inherit: Some(|outer: &Conf, inner: &mut Conf| inner.limits.inherit_from(&outer.limits)),
                ..Declare::new(add_limit)
            },
            doc: "Limits requests by a zone.",
        },
        Directive {
            name: "limit_req_log_level",
            default: "error",
            set: field!(Conf.log_level),
            doc: "The level refusals are logged at; delays are one lower.",
        },
        Directive {
            name: "limit_req_status",
            default: "503",
            set: field!(Conf.status),
            doc: "The status of refused requests.",
        },
        Directive {
            name: "limit_req_dry_run",
            default: "off",
            set: field!(Conf.dry_run),
            doc: "Only log what would be limited.",
        },
    ],
    families: &[],
    variables: &[Variable {
        name: "limit_req_status",
        read: Read::Plain(|request, out| {
            let outcome = request.lasting_note::<Outcome>().0;
            out.extend_from_slice(outcome.unwrap_or_default().as_bytes());
            outcome.is_some()
        }),
        write: None,
        doc: "What limits on the rate said: PASSED, DELAYED, REJECTED, DELAYED_DRY_RUN or REJECTED_DRY_RUN.",
    }],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish,
};

/// What was said of a request, once for all its locations.
#[derive(Default)]
struct Outcome(Option<&'static str>);

/// `info`, `notice`, `warn` or `error`.
#[derive(Clone, Copy)]
pub struct LogLevel(pub Level);

impl Value for LogLevel {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        let known = engine::log::LEVELS.iter().find(|(name, _)| *name == word.text).map(|(_, level)| *level);
        let known =
            known.filter(|level| matches!(level, Level::Info | Level::Notice | Level::Warn | Level::Error));
        known.map(LogLevel).ok_or_else(|| Problem::new(format!("invalid value \"{}\"", word.text)).on(word))
    }
}

/// A status to refuse with.
#[derive(Clone, Copy)]
pub struct RefusalStatus(pub Status);

impl Value for RefusalStatus {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        let value =
            number(&word.text).ok_or_else(|| Problem::directive(&node.name, "invalid number").on(word))?;
        if !(400..=599).contains(&value) {
            return Err(Problem::new("value must be between 400 and 599").on(word));
        }
        Ok(RefusalStatus(Status(value as u16)))
    }
}

/// `limit_req_zone key zone=name:size rate=N r/s|r/m`
fn declare_zone(_none: &mut (), node: &Node, build: &mut Build) -> Result<(), Problem> {
    let (mut zone, mut rate) = (None, 1000);
    for word in node.args.iter().skip(1) {
        if let Some(text) = word.text.strip_prefix(b"zone=") {
            zone = Some(NamedZone::parse(word, text)?);
        } else if let Some(text) = word.text.strip_prefix(b"rate=") {
            let (digits, seconds) = match text {
                [digits @ .., b'r', b'/', b's'] => (digits, 1),
                [digits @ .., b'r', b'/', b'm'] => (digits, 60),
                digits => (digits, 1),
            };
            let value = number(digits).filter(|n| *n > 0);
            let value =
                value.ok_or_else(|| Problem::new(format!("invalid rate \"{}\"", word.text)).on(word))?;
            rate = (value as u64).saturating_mul(1000) / seconds;
        } else {
            return Err(invalid_parameter(word));
        }
    }
    KIND.declare(node, zone, Rate(rate.max(1)), build)
}

fn add_limit(conf: &mut Conf, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let (mut zone, mut burst, mut delay) = (None, 0, 0);
    for word in &node.args {
        let amount = |text: &[u8], what: &str| {
            let value = number(text).filter(|n| *n > 0).map(|n| (n as u64).saturating_mul(1000));
            value.ok_or_else(|| Problem::new(format!("invalid {what} value \"{}\"", word.text)).on(word))
        };
        if let Some(name) = word.text.strip_prefix(b"zone=") {
            zones::refer(build, MODULE.name, name).map_err(|problem| problem.on(word))?;
            zone = Some(BString::from(name));
        } else if let Some(text) = word.text.strip_prefix(b"burst=") {
            burst = amount(text, "burst")?;
        } else if let Some(text) = word.text.strip_prefix(b"delay=") {
            delay = amount(text, "delay")?;
        } else if word.text == "nodelay" {
            delay = NO_DELAY;
        } else {
            return Err(invalid_parameter(word));
        }
    }
    let zone = zone.ok_or_else(|| zones::missing(node))?;
    let limits = conf.limits.fill(node.name.span, Vec::new);
    if limits.iter().any(|limit| limit.zone == zone) {
        return Err(Problem::directive(&node.name, "is duplicate"));
    }
    limits.push(Limit { zone, burst, delay });
    Ok(())
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let conf = installer.conf::<Conf>();
    let Some(limits) = conf.limits.value() else { return Ok(()) };
    let step = installer.once(|conf: &Conf, build| limits_of(conf, limits, build));
    installer.shared_step(Phase::Preaccess, step);
    Ok(())
}

fn limits_of(conf: &Conf, limits: &[Limit], build: &mut Build) -> Limits {
    // A zone that is missing is reported at the end.
    let bound = limits.iter().filter_map(|limit| {
        Some(Bound { zone: KIND.find(build, &limit.zone)?, burst: limit.burst, delay: limit.delay })
    });
    let level = conf.log_level.0;
    let delay_level = match level {
        Level::Error => Level::Warn,
        Level::Warn => Level::Notice,
        _ => Level::Info,
    };
    let limits = bound.collect();
    Limits { limits, level, delay_level, status: conf.status.0, dry_run: conf.dry_run.0 }
}

fn finish(build: &mut Build) -> Result<(), Problem> {
    zones::finish(build, MODULE.name);
    Ok(())
}

/// The limits of one location.
struct Limits {
    limits: Vec<Bound>,
    level: Level,
    delay_level: Level,
    status: Status,
    dry_run: bool,
}

struct Bound {
    zone: Arc<Zone>,
    burst: u64,
    delay: u64,
}

impl Bound {
    fn buckets(&self) -> MutexGuard<'_, LeakyBuckets> {
        self.zone.state().lock()
    }

    /// How long an excess is to be waited for, milliseconds.
    fn wait_ms(&self, excess: u64) -> u64 {
        excess.saturating_sub(self.delay).saturating_mul(1000) / self.zone.extra.0
    }
}

/// The limits that hold a request, with its keys there.
type Held<'a> = Vec<(&'a Bound, Vec<u8>)>;

impl Step for Limits {
    fn run(&self, request: &mut Request) -> Flow {
        if request.lasting_note::<Outcome>().0.is_some() {
            return Flow::Next;
        }
        let now_ms = net::clock::now_ms();
        let mut held: Held = Vec::new();
        let mut counted = None;
        for (n, limit) in self.limits.iter().enumerate() {
            let Some(key) = KIND.key(&limit.zone, request) else { continue };
            let last = n + 1 == self.limits.len();
            let asked = limit.buckets().ask(&key, now_ms, limit.zone.extra.0, limit.burst, last);
            match asked {
                Asked::Held => held.push((limit, key)),
                Asked::Passed(excess) => counted = Some((limit, excess)),
                Asked::Refused(_) | Asked::Full => return self.refuse(request, limit, asked, held),
            }
        }
        if held.is_empty() && counted.is_none() {
            return Flow::Next;
        }
        self.pass(request, counted, held, now_ms)
    }

    fn resume(&self, _request: &mut Request, _answer: Answer) -> Flow {
        Flow::Next
    }
}

impl Limits {
    fn refuse(&self, request: &mut Request, limit: &Bound, asked: Asked, held: Held<'_>) -> Flow {
        for (limit, key) in held {
            limit.buckets().release(&key);
        }
        let name = &limit.zone.name;
        match asked {
            Asked::Refused(excess) => {
                let dry = if self.dry_run { ", dry run" } else { "" };
                let (whole, part) = (excess / 1000, excess % 1000);
                let message =
                    format_args!("limiting requests{dry}, excess: {whole}.{part:03} by zone \"{name}\"");
                request.log_error(self.level, message);
            }
            _ => {
                let message = format_args!("could not allocate node in limit_req zone \"{name}\"");
                request.log_error(Level::Alert, message);
            }
        }
        if self.dry_run {
            request.lasting_note::<Outcome>().0 = Some("REJECTED_DRY_RUN");
            return Flow::Next;
        }
        request.lasting_note::<Outcome>().0 = Some("REJECTED");
        Flow::Deny(self.status)
    }

    /// Every zone agreed: the longest wait counts.
    fn pass(
        &self,
        request: &mut Request,
        counted: Option<(&Bound, u64)>,
        held: Held<'_>,
        now_ms: u64,
    ) -> Flow {
        let mut longest = counted.map(|(limit, excess)| (limit.wait_ms(excess), limit, excess));
        for (limit, key) in held.into_iter().rev() {
            let excess = limit.buckets().settle(&key, now_ms, limit.zone.extra.0);
            let wait_ms = limit.wait_ms(excess);
            if longest.is_none_or(|(longest_ms, ..)| wait_ms > longest_ms) {
                longest = Some((wait_ms, limit, excess));
            }
        }
        let Some((wait_ms, limit, excess)) = longest.filter(|(wait_ms, ..)| *wait_ms > 0) else {
            request.lasting_note::<Outcome>().0 = Some("PASSED");
            return Flow::Next;
        };
        let dry = if self.dry_run { ", dry run" } else { "" };
        let (whole, part, name) = (excess / 1000, excess % 1000, &limit.zone.name);
        let message = format_args!("delaying request{dry}, excess: {whole}.{part:03}, by zone \"{name}\"");
        request.log_error(self.delay_level, message);
        if self.dry_run {
            request.lasting_note::<Outcome>().0 = Some("DELAYED_DRY_RUN");
            return Flow::Next;
        }
        request.lasting_note::<Outcome>().0 = Some("DELAYED");
        Flow::Ask(Ask::Sleep(wait_ms))
    }
}
