//! `userid`: cookies that tell clients apart (nginx's manual, ngx_http_userid_module).

use bstr::{BStr, BString};
use conf::{Level, Node};
use engine::module::{Install, Read, Variable, cells, finish_nothing};
use engine::{Build, Filter, Installer, Module, Request, Transform};
use http::authorization::{Base64, decode_base64, encode_base64};
use net::address::Address;
use schema::value::{Bits, argument, seconds};
use schema::{Bitmask, Directive, Inherit, Number, Problem, Services, Value, field, words};
use std::io::Write;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use template::VariableId;

/// The base64 of an identifier without its padding, bytes.
const COOKIE_BYTES: usize = 22;
/// The end of a cookie that is to last.
const LAST_DATE: &[u8] = b"; expires=Thu, 31-Dec-37 23:55:55 GMT";
/// Where numbers of the two versions begin, and how far they are apart (the lowest byte is the version's).
const FIRST_NUMBERS: (u32, u32) = (1, 0x0303_0302);
const NUMBER_STEP: u32 = 0x100;

#[derive(Default)]
struct Conf {
    enable: Inherit<Enable>,
    service: Inherit<Option<Number>>,
    name: Inherit<BString>,
    domain: Inherit<BString>,
    path: Inherit<BString>,
    expires: Inherit<Lifetime>,
    flags: Inherit<Bitmask<Flags>>,
    p3p: Inherit<BString>,
    mark: Inherit<Mark>,
}

words!(Enable { "off" => Off, "log" => Log, "v1" => V1, "on" => On });
/// Whether cookies are read, and set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Enable {
    Off,
    Log,
    V1,
    On,
}

/// How long a cookie lasts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    Session,
    Max,
    Seconds(i64),
}

/// A letter in place of the padding; cookies without it are set anew.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark(Option<u8>);

/// The words of `userid_flags`.
#[derive(Debug)]
struct Flags;

/// What each flag adds to the cookie, in this order.
const FLAG_TEXTS: [(u32, &[u8]); 5] = [
    (1 << 1, b"; secure"),
    (1 << 2, b"; httponly"),
    (1 << 3, b"; samesite=strict"),
    (1 << 4, b"; samesite=lax"),
    (1 << 5, b"; samesite=none"),
];

impl Bits for Flags {
    const BITS: &'static [(&'static str, u32)] = &[
        ("off", 1),
        ("secure", 1 << 1),
        ("httponly", 1 << 2),
        ("samesite=strict", 1 << 3),
        ("samesite=lax", 1 << 4),
        ("samesite=none", 1 << 5),
    ];
}

pub static MODULE: Module = Module {
    name: "userid",
    directives: &[
        Directive {
            name: "userid",
            default: "off",
            set: field!(Conf.enable),
            doc: "Whether cookies that tell clients apart are read, and set.",
        },
        Directive {
            name: "userid_service",
            default: "",
            set: field!(Conf.service),
            doc: "The number of this server in identifiers, instead of its address.",
        },
        Directive { name: "userid_name", default: "uid", set: field!(Conf.name), doc: "The cookie's name." },
        Directive {
            name: "userid_domain",
            default: "none",
            set: field!(Conf.domain),
            doc: "The cookie's domain.",
        },
        Directive { name: "userid_path", default: "/", set: field!(Conf.path), doc: "The cookie's path." },
        Directive {
            name: "userid_expires",
            default: "off",
            set: field!(Conf.expires),
            doc: "How long browsers keep the cookie.",
        },
        Directive {
            name: "userid_flags",
            default: "off",
            set: field!(Conf.flags),
            doc: "Attributes of the cookie.",
        },
        Directive {
            name: "userid_p3p",
            default: "none",
            set: field!(Conf.p3p),
            doc: "The P3P header sent with the cookie.",
        },
        Directive {
            name: "userid_mark",
            default: "off",
            set: field!(Conf.mark),
            doc: "A letter that cookies must carry, else they are sent anew.",
        },
    ],
    families: &[],
    variables: &[
        Variable {
            name: "uid_got",
            read: Read::Plain(|request, out| {
                let plan = request.plan;
                let Some(userid) = plan.kept::<UserId>() else { return false };
                let got = userid.read(request).got;
                got.is_some_and(|identifier| userid.print(&identifier, out))
            }),
            write: None,
            doc: "The name of the cookie and the identifier that came.",
        },
        Variable {
            name: "uid_set",
            read: Read::Plain(|request, out| {
                let plan = request.plan;
                let Some(userid) = plan.kept::<UserId>().filter(|userid| userid.enable >= Enable::V1) else {
                    return false;
                };
                userid.make(request);
                let set = request.note::<State>().set;
                set.is_some_and(|identifier| userid.print(&identifier, out))
            }),
            write: None,
            doc: "The name of the cookie and the identifier that is sent.",
        },
        Variable {
            name: "uid_reset",
            read: Read::Plain(|request, out| {
                let value = request.note::<Reset>().0.clone();
                out.extend_from_slice(&value);
                true
            }),
            write: Some(|request, value| request.note::<Reset>().0 = value.to_vec()),
            doc: "Not empty and not 0: the client gets another identifier.",
        },
    ],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};

/// An identifier, its four numbers as they are sent.
type Identifier = [u8; 16];

/// What is known of the client of a request.
#[derive(Clone, Default)]
struct State {
    is_read: bool,
    cookie: Vec<u8>,
    got: Option<Identifier>,
    set: Option<Identifier>,
    reset: bool,
}

/// `$uid_reset`.
#[derive(Default)]
struct Reset(Vec<u8>);

impl Value for Lifetime {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        match &word.text[..] {
            b"off" => Ok(Lifetime::Session),
            b"max" => Ok(Lifetime::Max),
            text => match seconds(text).and_then(|seconds| i64::try_from(seconds).ok()) {
                Some(0) => Ok(Lifetime::Session),
                Some(seconds) => Ok(Lifetime::Seconds(seconds)),
                None => Err(Problem::directive(&node.name, "invalid value").on(word)),
            },
        }
    }
}

impl Value for Mark {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        match word.text[..] {
            [letter] if letter.is_ascii_alphanumeric() || letter == b'=' => Ok(Mark(Some(letter))),
            _ if word.text == "off" => Ok(Mark(None)),
            _ => {
                let what = "value must be \"off\" or a single letter, digit or \"=\"";
                Err(Problem::directive(&node.name, what).on(word))
            }
        }
    }
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let conf = installer.conf::<Conf>();
    if *conf.enable == Enable::Off {
        return Ok(());
    }
    let text = |cell: &Inherit<BString>| if **cell == "none" { BString::default() } else { (**cell).clone() };
    let domain = text(&conf.domain);
    let mut tail = Vec::new();
    if !domain.is_empty() {
        tail.extend_from_slice(&[b"; domain=", &domain[..]].concat());
    }
    tail.extend_from_slice(&[b"; path=", &conf.path[..]].concat());
    let flags = FLAG_TEXTS.iter().filter(|(bit, _)| conf.flags.has(*bit));
    flags.for_each(|(_, text)| tail.extend_from_slice(text));
    let make = |reset| UserId {
        enable: *conf.enable,
        service: conf.service.map(|service| service.0 as u32),
        name: (*conf.name).clone(),
        expires: *conf.expires,
        tail: tail.clone(),
        p3p: text(&conf.p3p),
        mark: conf.mark.0,
        reset,
    };
    let reset = reset_variable(installer.build)?;
    installer.keep(make(reset));
    if *conf.enable >= Enable::V1 {
        installer.filter(make(reset));
    }
    Ok(())
}

fn reset_variable(build: &mut Build) -> Result<VariableId, Problem> {
    build.variables.set(b"uid_reset")
}

/// The settings of one location.
struct UserId {
    enable: Enable,
    service: Option<u32>,
    name: BString,
    expires: Lifetime,
    /// Domain, path and flags.
    tail: Vec<u8>,
    p3p: BString,
    mark: Option<u8>,
    reset: VariableId,
}

impl Filter for UserId {
    fn head(&self, request: &mut Request) -> Option<Box<dyn Transform>> {
        if request.subrequest {
            return None;
        }
        self.make(request);
        let state = request.note::<State>().clone();
        let set = state.set?;
        let mut cookie = [&self.name[..], b"="].concat();
        match self.mark {
            Some(mark) if state.got.is_some() && !state.reset => {
                cookie.extend_from_slice(&state.cookie[..COOKIE_BYTES]);
                cookie.extend_from_slice(&[mark, b'=']);
            }
            mark => {
                encode_base64(&set, &mut cookie);
                if let Some(mark) = mark {
                    // The first of the two signs of padding.
                    let place = cookie.len() - 2;
                    cookie[place] = mark;
                }
            }
        }
        match self.expires {
            Lifetime::Session => {}
            Lifetime::Max => cookie.extend_from_slice(LAST_DATE),
            Lifetime::Seconds(seconds) => {
                cookie.extend_from_slice(b"; expires=");
                http::date::append_cookie(net::clock::wall().seconds.saturating_add(seconds), &mut cookie);
            }
        }
        cookie.extend_from_slice(&self.tail);
        request.response.fields.push(b"Set-Cookie", &cookie);
        if !self.p3p.is_empty() {
            request.response.fields.push(b"P3P", &self.p3p);
        }
        None
    }
}

impl UserId {
    /// Reads the cookie, once.
    fn read(&self, request: &mut Request) -> State {
        if request.note::<State>().is_read {
            return request.note::<State>().clone();
        }
        let mut state = State { is_read: true, ..State::default() };
        if let Some(cookie) = http::cookie::find(&request.head.fields, &self.name) {
            state.cookie = cookie.to_vec();
            let line = request.head.fields.get(b"Cookie").unwrap_or_default();
            let decoded = cookie.get(..COOKIE_BYTES).map(|text| decode_base64(text, Base64::Plain));
            match decoded {
                None => {
                    let message = format_args!("client sent too short userid cookie \"{}\"", BStr::new(line));
                    request.log_error(Level::Error, message);
                }
                Some(decoded) => {
                    let got = decoded.and_then(|bytes| Identifier::try_from(&bytes[..]).ok());
                    if got.is_none() {
                        let message =
                            format_args!("client sent invalid userid cookie \"{}\"", BStr::new(line));
                        request.log_error(Level::Error, message);
                    }
                    // An identifier whose last number is 0 is none.
                    state.got = got.filter(|identifier| identifier[12..] != [0; 4]);
                }
            }
        }
        *request.note::<State>() = state.clone();
        state
    }

    /// Makes an identifier, once, unless the client's is good.
    fn make(&self, request: &mut Request) {
        let mut state = self.read(request);
        if state.set.is_some() {
            return;
        }
        if let Some(got) = state.got {
            let mut reset = Vec::new();
            template::Scope::variable(request, self.reset, &mut reset);
            if reset.is_empty() || reset == b"0" {
                let is_marked =
                    |mark| state.cookie.get(COOKIE_BYTES..COOKIE_BYTES + 2) == Some(&[mark, b'='][..]);
                if self.mark.is_some_and(|mark| !is_marked(mark)) {
                    request.note::<State>().set = Some(got);
                }
                return;
            }
            state.reset = true;
            if reset == b"log" {
                let mut text = Vec::new();
                self.print(&got, &mut text);
                request.log_error(
                    Level::Notice,
                    format_args!("userid cookie \"{}\" was reset", BStr::new(&text)),
                );
            }
        }
        state.set = Some(self.new_identifier(request.connection.local_address()));
        *request.note::<State>() = state;
    }

    fn new_identifier(&self, local: &Address) -> Identifier {
        static NUMBERS: (AtomicU32, AtomicU32) =
            (AtomicU32::new(FIRST_NUMBERS.0), AtomicU32::new(FIRST_NUMBERS.1));
        let now = net::clock::wall();
        // What tells this process from others: chance, and its number.
        let start = net::random::next_u32() << 16 | std::process::id() & 0xffff;
        let address = match local.ip() {
            Some(IpAddr::V4(ip)) => ip.octets(),
            Some(IpAddr::V6(ip)) => u32::to_be_bytes((u128::from(ip) & u128::from(u32::MAX)) as u32),
            None => [0; 4],
        };
        let time = now.seconds as u32;
        if self.enable == Enable::V1 {
            let number = NUMBERS.0.fetch_add(NUMBER_STEP, Ordering::Relaxed);
            return join([self.service.unwrap_or(0), time, start, number].map(u32::to_ne_bytes));
        }
        let mut number = NUMBERS.1.fetch_add(NUMBER_STEP, Ordering::Relaxed);
        if number < FIRST_NUMBERS.1 {
            number |= FIRST_NUMBERS.1;
        }
        let first = self.service.map_or(address, u32::to_be_bytes);
        join([first, time.to_be_bytes(), start.to_be_bytes(), number.to_be_bytes()])
    }

    /// `uid=` and the four numbers in hexadecimal, as the machine sees them.
    fn print(&self, identifier: &Identifier, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(&self.name);
        out.push(b'=');
        for number in identifier.chunks_exact(4) {
            let number = number.try_into().map_or(0, u32::from_ne_bytes);
            // Writing into a Vec cannot fail.
            let _ = write!(out, "{number:08X}");
        }
        true
    }
}

fn join(numbers: [[u8; 4]; 4]) -> Identifier {
    let mut all = [0; 16];
    for (place, number) in all.chunks_exact_mut(4).zip(numbers) {
        place.copy_from_slice(&number);
    }
    all
}
