//! The table of directives and the rows of the modules agree, and no directive of nginx is taken without being done,
//! idle or refused.

mod support;

use engine::compile::{Compiled, registry};
use schema::known::{self, Kind, Known};
use schema::{Directive, Places};

#[test]
fn every_row_has_an_entry_in_the_table_and_a_sentence() {
    let modules: Vec<_> = engine::core::MODULES.iter().chain(modules::MODULES).copied().collect();
    let registry = registry(&modules);
    let rows = || registry.modules().iter().flat_map(|module| &module.rows);
    let is_found = |name: &str, row: &Directive| {
        let mut entries = known::known(name.as_bytes()).iter();
        entries.any(|known| registry.row(known).is_some_and(|(_, of)| std::ptr::eq(of, row)))
    };
    for (name, row) in rows() {
        // Modules that share rows need not have all of them: there is no "grpc_buffering".
        let same = |other: &Directive| (other.name, other.doc) == (row.name, row.doc);
        let found = rows().any(|(name, other)| same(other) && is_found(name, other));
        assert!(found, "the row \"{name}\" is never found by an entry of the table");
        assert!(row.doc.ends_with('.') && row.doc.len() > 10, "\"{name}\" says nothing: {:?}", row.doc);
    }
}

#[test]
fn every_default_is_understood() {
    let compiled = compiled("events {}\nhttp { server {} }\n");
    let said: Vec<_> = compiled.diagnostics.iter().map(|found| found.message.to_string()).collect();
    assert_eq!(said, [""; 0]);
    assert!(compiled.is_good());
}

#[test]
fn every_directive_is_done_idle_or_refused() {
    let modules: Vec<_> = engine::core::MODULES.iter().chain(modules::MODULES).copied().collect();
    let registry = registry(&modules);
    let mut counted = 0;
    for known in known::all() {
        counted += 1;
        let text = use_of(known);
        let compiled = compiled(&text);
        let refusal = format!("\"{}\" directive is not supported yet", known.name);
        let is_refused =
            compiled.diagnostics.iter().any(|found| found.message == refusal && found.level.is_error());
        let is_idle = compiled.idle.iter().any(|name| name == known.name);
        match registry.row(known) {
            None if known.name == "include" => assert!(!is_refused, "{text}"),
            None => assert!(is_refused, "neither done nor refused:\n{text}"),
            Some((_, row)) if row.set.is_idle() => {
                assert!(!is_refused && is_idle, "{:?} for an idle directive:\n{text}", compiled.diagnostics);
            }
            Some(_) => assert!(!is_refused && !is_idle, "done and refused or idle:\n{text}"),
        }
    }
    assert!(counted > 780, "only {counted} directives in the table");
}

/// A configuration with this directive in a place where it may stand.
fn use_of(known: &Known) -> String {
    let count = known.arguments.least();
    let word = match (known.kind, known.name) {
        (Kind::Flag, _) | (_, "aio") => "on",
        (_, "use") => "epoll",
        (_, "thread_pool") => "default",
        (_, "debug_points") => "stop",
        (_, "gzip_hash" | "gzip_window") => "1k",
        (_, "connection_pool_size" | "request_pool_size" | "http2_pool_size" | "http2_recv_buffer_size") => {
            "256"
        }
        _ => "1",
    };
    let words = format!(" {word}").repeat(count);
    let end = if known.block { " {}" } else { ";" };
    let line = format!("{}{words}{end}", known.name);
    let around = [
        (Places::MAIN, "", ""),
        (Places::EVENTS, "events {", "}"),
        (Places::HTTP, "http {", "}"),
        (Places::SERVER, "http { server {", "}}"),
        (Places::LOCATION, "http { server { location / {", "}}}"),
        (Places::UPSTREAM, "http { upstream u {", "}}"),
        (Places::ACME_ISSUER, "http { acme_issuer i {", "}}"),
        (Places::STREAM, "stream {", "}"),
        (Places::STREAM_SERVER, "stream { server {", "}}"),
        (Places::STREAM_UPSTREAM, "stream { upstream u {", "}}"),
        (Places::MAIL, "mail {", "}"),
        (Places::MAIL_SERVER, "mail { server {", "}}"),
    ];
    let (_, before, behind) =
        around.iter().find(|(place, ..)| known.places.meets(*place)).expect("every directive has a place");
    format!("{before}\n{line}\n{behind}\n")
}

fn compiled(text: &str) -> Compiled {
    support::compiled("/etc/nginx.conf", text)
}
