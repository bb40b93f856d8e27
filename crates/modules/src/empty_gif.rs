//! `empty_gif`: a transparent picture of one pixel, from memory (nginx's manual, ngx_http_empty_gif_module).

use crate::files;
use conf::Node;
use engine::module::{Install, cells, finish_nothing};
use engine::{Build, Declare, Flow, Installer, Module, Reply, Request, Source, Step};
use http::Status;
use schema::{Directive, Problem};

/// GIF89a: a screen of 1 by 1, two colours of which the second is transparent, and that one pixel.
const PICTURE: &[u8; 43] = b"GIF89a\x01\0\x01\0\x80\x01\0\0\0\0\xff\xff\xff\x21\xf9\x04\x01\0\0\x01\0\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x4c\x01\0\x3b";

/// When nginx says that it was made: 28 September 1970.
const MODIFIED: i64 = 23_349_600;

#[derive(Default)]
struct Conf {
    on: bool,
}

struct EmptyGif;

impl Step for EmptyGif {
    fn run(&self, request: &mut Request) -> Flow {
        if !files::reads(request.method) {
            return Flow::Deny(Status::NOT_ALLOWED);
        }
        request.response.last_modified = Some(MODIFIED);
        request.response.content_length = Some(PICTURE.len() as u64);
        request.response.content_type = b"image/gif".to_vec();
        Flow::Reply(Reply { status: Status::OK, source: Source::Bytes(PICTURE.to_vec()) })
    }
}

fn read(conf: &mut Conf, _node: &Node, _build: &mut Build) -> Result<(), Problem> {
    conf.on = true;
    Ok(())
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    if installer.own::<Conf>().is_some_and(|conf| conf.on) {
        installer.handler(EmptyGif);
    }
    Ok(())
}

/// The module.
pub static MODULE: Module = Module {
    name: "empty_gif",
    directives: &[Directive {
        name: "empty_gif",
        default: "",
        set: &Declare::new(read),
        doc: "Answers with a transparent picture of one pixel.",
    }],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};
