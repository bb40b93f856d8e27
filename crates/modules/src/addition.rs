//! `add_before_body` and `add_after_body`: answers of subrequests around the body (nginx's manual,
//! ngx_http_addition_module).

use crate::mime::MimeTypes;
use bstr::BString;
use engine::flow::{Chunk, Chunks};
use engine::module::{Install, cells, finish_nothing};
use engine::{Filter, Installer, Module, Request, Target, Transform};
use http::Status;
use schema::{Directive, Inherit, Problem, field};

#[derive(Default)]
struct Conf {
    before: Inherit<BString>,
    after: Inherit<BString>,
    types: Inherit<MimeTypes>,
}

pub static MODULE: Module = Module {
    name: "addition",
    directives: &[
        Directive {
            name: "add_before_body",
            default: "",
            set: field!(Conf.before),
            doc: "The URI whose answer stands before the body.",
        },
        Directive {
            name: "add_after_body",
            default: "",
            set: field!(Conf.after),
            doc: "The URI whose answer stands behind the body.",
        },
        Directive {
            name: "addition_types",
            default: "",
            set: field!(Conf.types),
            doc: "Types of answers that get additions, besides text/html.",
        },
    ],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};

fn install(installer: &mut Installer) -> Result<(), Problem> {
    let conf = installer.conf::<Conf>();
    if !conf.before.is_empty() || !conf.after.is_empty() {
        let addition = installer.once(|conf: &Conf, _| Addition {
            before: (*conf.before).clone(),
            after: (*conf.after).clone(),
            types: (*conf.types).clone(),
        });
        installer.shared_filter(addition);
    }
    Ok(())
}

struct Addition {
    before: BString,
    after: BString,
    types: MimeTypes,
}

impl Filter for Addition {
    fn head(&self, request: &mut Request) -> Option<Box<dyn Transform>> {
        let response = &mut request.response;
        if response.status != Status::OK || request.subrequest || !self.types.contain(&response.content_type)
        {
            return None;
        }
        weaken_etag(request);
        let include = |uri: &BString| {
            (!uri.is_empty()).then(|| Chunk::Include(Target::Uri { uri: uri.to_vec(), args: Vec::new() }))
        };
        Some(Box::new(Additions { before: include(&self.before), after: include(&self.after) }))
    }
}

/// Another body under the same tag: a weak one says no more than that they mean the same (RFC 9110 section 8.8.1).
pub fn weaken_etag(request: &mut Request) {
    let fields = &mut request.response.fields;
    let Some(tag) = fields.get(b"ETag") else { return };
    if tag.starts_with(b"W/") {
        return;
    }
    if tag.starts_with(b"\"") {
        let weak = [b"W/", tag].concat();
        fields.replace(b"ETag", &weak);
    } else {
        fields.remove(b"ETag");
    }
}

struct Additions {
    before: Option<Chunk>,
    after: Option<Chunk>,
}

impl Transform for Additions {
    fn push(&mut self, chunk: Chunk, out: &mut Chunks) {
        out.extend(self.before.take());
        out.push(chunk);
    }

    fn finish(&mut self, out: &mut Chunks) {
        out.extend(self.before.take());
        out.extend(self.after.take());
    }
}
