//! `gzip`: compresses answers on their way (nginx's manual, ngx_http_gzip_module).

pub mod accept;
mod stream;

use crate::addition::weaken_etag;
use crate::mime::MimeTypes;
use conf::Node;
use engine::module::{Install, cells, finish_nothing};
use engine::{Filter, Installer, Module, Request, Transform, Variable};
use http::Status;
use schema::directive::{Idle, IdleOwn};
use schema::value::{argument, number};
use schema::{Directive, Flag, Inherit, Problem, Services, Size, Value, field};
use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use stream::Gzip;

#[derive(Default)]
struct Conf {
    on: Inherit<Flag>,
    types: Inherit<MimeTypes>,
    level: Inherit<Level>,
    min_length: Inherit<Size>,
}

/// How hard to try, from 1 to 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Level(u32);

impl Value for Level {
    fn parse(node: &conf::Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        let level =
            number(&word.text).ok_or_else(|| Problem::directive(&node.name, "invalid number").on(word))?;
        match u32::try_from(level) {
            Ok(level @ 1..=9) => Ok(Level(level)),
            _ => Err(Problem::new("value must be between 1 and 9").on(word)),
        }
    }
}

struct Compression {
    types: MimeTypes,
    level: u32,
    bytes_min: u64,
}

/// How many bytes went in and came out, for `$gzip_ratio`.
#[derive(Clone, Default)]
pub struct Counts(Rc<Cell<(u64, u64)>>);

impl Counts {
    fn add(&self, taken: u64, given: u64) {
        let (before, after) = self.0.get();
        self.0.set((before + taken, after + given));
    }
}

impl Filter for Compression {
    fn head(&self, request: &mut Request) -> Option<Box<dyn Transform>> {
        let response = &request.response;
        if !matches!(response.status, Status::OK | Status::FORBIDDEN | Status::NOT_FOUND)
            || response.fields.get(b"Content-Encoding").is_some_and(|coding| !coding.is_empty())
            || response.content_length.is_some_and(|length| length < self.bytes_min)
            || response.content_type.is_empty()
            || !self.types.contain(&response.content_type)
        {
            return None;
        }
        accept::vary(request);
        if !accept::is_accepted(request) {
            return None;
        }
        request.response.fields.push(b"Content-Encoding", b"gzip");
        request.response.fields.remove(b"Accept-Ranges");
        weaken_etag(request);
        let counts = request.note::<Counts>().clone();
        Some(Box::new(Gzip::new(self.level, counts)))
    }
}

fn ratio(request: &mut Request, out: &mut Vec<u8>) -> bool {
    let (before, after) = request.note::<Counts>().0.get();
    if after == 0 {
        return false;
    }
    let hundredths = (before * 1000 / after + 5) / 10;
    write!(out, "{}.{:02}", hundredths / 100, hundredths % 100).is_ok()
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let conf = installer.conf::<Conf>();
    if conf.on.0 {
        let compression = installer.once(|conf: &Conf, _| Compression {
            types: (*conf.types).clone(),
            level: conf.level.0,
            bytes_min: conf.min_length.0 as u64,
        });
        installer.shared_filter(compression);
    }
    Ok(())
}

/// `gzip_window`: a power of two up to 32k.
fn window(node: &Node) -> Result<(), Problem> {
    power_of_two(node, 32 << 10, "512, 1k, 2k, 4k, 8k, 16k, or 32k")
}

/// `gzip_hash`: a power of two up to 128k.
fn hash(node: &Node) -> Result<(), Problem> {
    power_of_two(node, 128 << 10, "512, 1k, 2k, 4k, 8k, 16k, 32k, 64k, or 128k")
}

fn power_of_two(node: &Node, bytes_max: usize, listed: &str) -> Result<(), Problem> {
    let word = argument(node, 0)?;
    match schema::value::size(&word.text) {
        Some(bytes) if (512..=bytes_max).contains(&bytes) && bytes.is_power_of_two() => Ok(()),
        _ => Err(Problem::directive(&node.name, &format!("must be {listed}")).on(word)),
    }
}

/// The module.
pub static MODULE: Module = Module {
    name: "gzip",
    directives: &[
        Directive {
            name: "gzip",
            default: "off",
            set: field!(Conf.on),
            doc: "Whether answers are compressed.",
        },
        Directive {
            name: "gzip_types",
            default: "",
            set: field!(Conf.types),
            doc: "Types of answers that are compressed, besides text/html.",
        },
        Directive {
            name: "gzip_comp_level",
            default: "1",
            set: field!(Conf.level),
            doc: "How hard to try, from 1 to 9.",
        },
        Directive {
            name: "gzip_min_length",
            default: "20",
            set: field!(Conf.min_length),
            doc: "The shortest answer that is compressed, by its Content-Length.",
        },
        Directive { name: "gzip_buffers", default: "", set: &Idle, doc: "Accepted; buffers grow as needed." },
        Directive {
            name: "gzip_window",
            default: "",
            set: &IdleOwn { single: true, check: window },
            doc: "Accepted; the window is the largest.",
        },
        Directive {
            name: "gzip_hash",
            default: "",
            set: &IdleOwn { single: true, check: hash },
            doc: "Accepted; memory is shared by requests.",
        },
        Directive {
            name: "gzip_no_buffer",
            default: "",
            set: &Idle,
            doc: "Accepted; output is never held back.",
        },
        Directive {
            name: "postpone_gzipping",
            default: "",
            set: &Idle,
            doc: "Accepted; input is taken as it comes.",
        },
    ],
    families: &[],
    variables: &[Variable::plain("gzip_ratio", ratio, "How many times smaller compression made the answer.")],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};
