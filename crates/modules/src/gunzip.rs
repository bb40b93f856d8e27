//! `gunzip`: unpacks answers that came compressed, for clients that do not take gzip (nginx's manual,
//! ngx_http_gunzip_module).

use crate::addition::weaken_etag;
use crate::gzip::accept;
use engine::flow::{Chunk, Chunks};
use engine::module::{Install, cells, finish_nothing};
use engine::{Filter, Installer, Module, Request, Transform};
use flate2::write::MultiGzDecoder;
use schema::directive::Idle;
use schema::{Directive, Flag, Inherit, Problem, field};
use std::io::Write;

#[derive(Default)]
struct Conf {
    on: Inherit<Flag>,
}

struct Gunzip;

impl Filter for Gunzip {
    fn head(&self, request: &mut Request) -> Option<Box<dyn Transform>> {
        let coding = request.response.fields.get(b"Content-Encoding")?;
        if !coding.eq_ignore_ascii_case(b"gzip") {
            return None;
        }
        accept::vary(request);
        if accept::is_accepted(request) {
            return None;
        }
        request.response.fields.remove(b"Content-Encoding");
        request.response.fields.remove(b"Accept-Ranges");
        weaken_etag(request);
        Some(Box::new(Unpacking { decoder: MultiGzDecoder::new(Vec::new()), failure: None }))
    }
}

/// The unpacking of one body.
struct Unpacking {
    decoder: MultiGzDecoder<Vec<u8>>,
    failure: Option<&'static str>,
}

impl Unpacking {
    fn give(&mut self, out: &mut Chunks) {
        let made = std::mem::take(self.decoder.get_mut());
        if !made.is_empty() {
            out.push(Chunk::Bytes(made));
        }
    }
}

impl Transform for Unpacking {
    fn push(&mut self, chunk: Chunk, out: &mut Chunks) {
        match chunk {
            Chunk::Bytes(bytes) if self.failure.is_none() => {
                if self.decoder.write_all(&bytes).is_err() {
                    self.failure = Some("inflate() failed: the response is not gzip");
                }
                self.give(out);
            }
            Chunk::Bytes(_) => {}
            other => out.push(other),
        }
    }

    fn finish(&mut self, out: &mut Chunks) {
        if self.failure.is_none() && self.decoder.try_finish().is_err() {
            self.failure = Some("inflate() failed: the response ended early");
        }
        self.give(out);
    }

    fn failure(&self) -> Option<&'static str> {
        self.failure
    }
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    if installer.conf::<Conf>().on.0 {
        installer.filter(Gunzip);
    }
    Ok(())
}

/// The module.
pub static MODULE: Module = Module {
    name: "gunzip",
    directives: &[
        Directive {
            name: "gunzip",
            default: "off",
            set: field!(Conf.on),
            doc: "Whether compressed answers are unpacked for clients that do not take gzip.",
        },
        Directive {
            name: "gunzip_buffers",
            default: "",
            set: &Idle,
            doc: "Accepted; buffers grow as needed.",
        },
    ],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(packed: &[u8], piece_bytes: usize) -> (Vec<u8>, bool) {
        let mut transform = Unpacking { decoder: MultiGzDecoder::new(Vec::new()), failure: None };
        let mut out = Chunks::new();
        for piece in packed.chunks(piece_bytes) {
            transform.push(Chunk::Bytes(piece.to_vec()), &mut out);
        }
        transform.finish(&mut out);
        let bytes = out.into_iter().flat_map(|chunk| match chunk {
            Chunk::Bytes(bytes) => bytes,
            _ => Vec::new(),
        });
        (bytes.collect(), transform.failure().is_some())
    }

    #[test]
    fn any_split_gives_the_same_and_damage_is_told() {
        let text: Vec<u8> = (0..5000u32).flat_map(|n| (n / 9).to_be_bytes()).collect();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&text).expect("a vector takes all");
        let packed = encoder.finish().expect("a vector takes all");
        for piece_bytes in [1, 7, 1000, packed.len()] {
            assert!(unpack(&packed, piece_bytes) == (text.clone(), false), "{piece_bytes}");
        }
        assert!(unpack(&[packed.clone(), packed.clone()].concat(), 50).0 == text.repeat(2));
        assert!(unpack(&packed[..packed.len() - 9], 100).1);
        assert!(unpack(b"this is no gzip at all", 5).1);
    }
}
