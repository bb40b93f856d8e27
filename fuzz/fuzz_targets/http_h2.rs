//! Any bytes as a client of HTTP/2, whole and cut in two: both must come to the same, and nothing may panic:
//! `cargo +nightly fuzz run http_h2`.
#![no_main]

use http::h2::frame::{FrameHeader, kind, write_settings};
use http::h2::{BodyState, Connection, Event, Heads, Limits, PREFACE};
use http::{Fields, HeadOptions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&cut, rest)) = data.split_first() else { return };
    let mut input = PREFACE.to_vec();
    write_settings(&[], &mut input);
    input.extend_from_slice(rest);
    let cut = usize::from(cut) % (input.len() + 1);
    assert_eq!(run(&[&input]), run(&[&input[..cut], &input[cut..]]));
});

fn run(pieces: &[&[u8]]) -> Vec<u8> {
    let limits = Limits { streams_max: 4, ..Limits::default() };
    let options = HeadOptions { allow_extended_connect: true, ..HeadOptions::default() };
    let mut connection = Connection::server(limits, options);
    let mut heads = Heads::default();
    let (mut pending, mut written) = (Vec::new(), Vec::new());
    for piece in pieces {
        pending.extend_from_slice(piece);
        while let Ok(Some((consumed, event))) = connection.receive(&pending, 0, &mut heads) {
            pending.drain(..consumed);
            match event {
                Event::Head { stream, ended, refusal } => {
                    heads.request.clear();
                    if ended || refusal.is_some() {
                        answer(&mut connection, stream);
                    }
                }
                Event::Data { stream } | Event::Trailers { stream } => {
                    let mut body = Vec::new();
                    while let BodyState::Read(_) = connection.read_body(stream, &mut body) {}
                    if connection.body_is_read(stream) {
                        answer(&mut connection, stream);
                    }
                }
                Event::Reset { stream, .. } => connection.release(stream),
                _ => {}
            }
        }
        written.extend_from_slice(&connection.output);
        connection.output_written();
    }
    without_window_updates(&written)
}

/// Windows are opened by what was read, and that is not the same for whole frames and for pieces of them.
fn without_window_updates(mut written: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(header) = FrameHeader::parse(written) {
        let (frame, rest) = written.split_at(9 + header.length);
        if header.kind != kind::WINDOW_UPDATE {
            out.extend_from_slice(frame);
        }
        written = rest;
    }
    out
}

fn answer(connection: &mut Connection, stream: u32) {
    let mut head = connection.begin_head(stream);
    head.status(200);
    head.finish(true);
    connection.finish(stream, &Fields::new());
    connection.release(stream);
}
