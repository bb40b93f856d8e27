//! Any bytes as an upstream of HTTP/2, whole and cut in two: both must come to the same, and nothing may panic:
//! `cargo +nightly fuzz run http_h2_client`.
#![no_main]

use http::Fields;
use http::h2::frame::write_settings;
use http::h2::{BodyState, Connection, Event, Heads, Limits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&cut, rest)) = data.split_first() else { return };
    let mut input = Vec::new();
    write_settings(&[], &mut input);
    input.extend_from_slice(rest);
    let pieces = usize::from(cut) % (input.len() + 1);
    let head_request = cut & 1 == 1;
    assert_eq!(run(head_request, &[&input]), run(head_request, &[&input[..pieces], &input[pieces..]]));
});

/// What is received on the one stream, and how it ends.
fn run(head_request: bool, pieces: &[&[u8]]) -> (Vec<u8>, Vec<String>) {
    let mut connection = Connection::client(Limits::default());
    let mut heads = Heads::default();
    let Some(stream) = connection.open(head_request) else { return Default::default() };
    let mut head = connection.begin_head(stream);
    head.field(b":method", b"POST");
    head.finish(true);
    let (mut pending, mut body, mut log) = (Vec::new(), Vec::new(), Vec::new());
    for piece in pieces {
        pending.extend_from_slice(piece);
        loop {
            match connection.receive(&pending, 0, &mut heads) {
                Ok(None) => break,
                Err(error) => {
                    log.push(error.message.into_owned());
                    return (body, log);
                }
                Ok(Some((consumed, event))) => {
                    pending.drain(..consumed);
                    match event {
                        Event::Head { .. } => {
                            log.push(heads.response.status.0.to_string());
                            heads.response.clear();
                        }
                        Event::Window { .. } => {
                            connection.send(stream, &[7; 100], 16);
                        }
                        Event::Reset { .. } => {
                            connection.release(stream);
                            return (body, log);
                        }
                        _ => {}
                    }
                    while let BodyState::Read(_) = connection.read_body(stream, &mut body) {}
                    if connection.has_ended(stream) {
                        connection.finish(stream, &Fields::new());
                        connection.release(stream);
                        log.push("end".to_owned());
                        return (body, log);
                    }
                }
            }
        }
        connection.output_written();
    }
    (body, log)
}
