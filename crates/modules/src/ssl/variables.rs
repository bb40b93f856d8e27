//! What requests see of their connection's TLS: `$ssl_*`.

use engine::tls::Session;
use engine::{Request, Variable};
use net::tls::{Shown, Verified, names};
use std::rc::Rc;

type Write = fn(&Session, &mut Vec<u8>);

/// Shows something of the session; what shows nothing is "not found", as in nginx.
fn of_session(request: &Request, out: &mut Vec<u8>, write: Write) -> bool {
    let Some(session) = request.connection.session.as_ref().map(Rc::clone) else { return false };
    let before = out.len();
    write(&session, out);
    out.len() > before
}

fn of_certificate(request: &Request, out: &mut Vec<u8>, show: fn(&Shown<'_>) -> String) -> bool {
    let Some(session) = request.connection.session.as_ref().map(Rc::clone) else { return false };
    let shown = session.established.peer_certificates.first().and_then(|der| Shown::read(der));
    let Some(shown) = shown else { return false };
    out.extend_from_slice(show(&shown).as_bytes());
    true
}

/// Joins names with colons.
fn list(names: impl Iterator<Item = String>, out: &mut Vec<u8>) {
    let names: Vec<String> = names.collect();
    out.extend_from_slice(names.join(":").as_bytes());
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn hexadecimal(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        put(out, &format!("{byte:02x}"));
    }
}

/// A signature or cipher that has no name is shown by number.
fn cipher(suite: net::tls::CipherSuite) -> String {
    match (u16::from(suite), names::cipher_name(suite)) {
        // Two that clients offer to say something else (RFC 5746, RFC 7507).
        (0x00ff, _) => "TLS_EMPTY_RENEGOTIATION_INFO_SCSV".to_owned(),
        (0x5600, _) => "TLS_FALLBACK_SCSV".to_owned(),
        (_, Some(name)) => name.to_owned(),
        (number, None) => format!("0x{number:04x}"),
    }
}

fn signature(scheme: Option<net::tls::SignatureScheme>, out: &mut Vec<u8>) {
    put(out, &scheme.map(names::signature_name).unwrap_or_default());
}

/// Every line but the first begins with a tab, so that the text can stand in a header field.
fn folded(pem: &str) -> String {
    pem.trim_end_matches('\n').replace('\n', "\n\t")
}

fn escaped(text: &str) -> String {
    let mut escaped = Vec::new();
    http::escape::escape_uri(http::escape::Escape::UriComponent, text.as_bytes(), &mut escaped);
    String::from_utf8_lossy(&escaped).into_owned()
}

pub(super) static VARIABLES: &[Variable] = &[
    Variable::plain(
        "ssl_protocol",
        |r, o| of_session(r, o, |s, o| put(o, names::protocol_name(s.established.protocol))),
        "The protocol's version.",
    ),
    Variable::plain(
        "ssl_cipher",
        |r, o| of_session(r, o, |s, o| put(o, &cipher(s.established.cipher))),
        "The cipher in use.",
    ),
    Variable::plain(
        "ssl_ciphers",
        |r, o| {
            of_session(r, o, |s, o| {
                let offer = s.offer.as_ref();
                list(offer.into_iter().flat_map(|offer| &offer.ciphers).map(|suite| cipher(*suite)), o);
            })
        },
        "Ciphers that the client offered.",
    ),
    Variable::plain(
        "ssl_curve",
        |r, o| {
            of_session(r, o, |s, o| put(o, &s.established.group.map(names::group_name).unwrap_or_default()))
        },
        "The key exchange in use.",
    ),
    Variable::plain(
        "ssl_curves",
        |r, o| {
            of_session(r, o, |s, o| {
                let offer = s.offer.as_ref();
                list(
                    offer.into_iter().flat_map(|offer| &offer.groups).map(|group| names::group_name(*group)),
                    o,
                );
            })
        },
        "Key exchanges that the client offered.",
    ),
    Variable::plain(
        "ssl_sigalgs",
        |r, o| {
            of_session(r, o, |s, o| {
                let offer = s.offer.as_ref();
                list(
                    offer.into_iter().flat_map(|offer| &offer.signatures).map(|s| names::signature_name(*s)),
                    o,
                );
            })
        },
        "Signature algorithms that the client offered.",
    ),
    Variable::plain(
        "ssl_sigalg",
        |r, o| of_session(r, o, |s, o| signature(s.established.signature, o)),
        "The signature algorithm of the server's certificate.",
    ),
    Variable::plain(
        "ssl_client_sigalg",
        |r, o| of_session(r, o, |s, o| signature(s.established.peer_signature, o)),
        "The signature algorithm of the client's certificate.",
    ),
    Variable::plain(
        "ssl_ech_status",
        |_, _| false,
        "What came of an encrypted hello; nothing, as none is spoken here.",
    ),
    Variable::plain("ssl_ech_outer_server_name", |_, _| false, "The name outside of an encrypted hello."),
    Variable::plain(
        "ssl_session_id",
        |r, o| of_session(r, o, |s, o| hexadecimal(&s.established.session_id.unwrap_or_default(), o)),
        "The session's identifier.",
    ),
    Variable::plain(
        "ssl_session_reused",
        |r, o| of_session(r, o, |s, o| put(o, if s.established.resumed { "r" } else { "." })),
        "r where an earlier session went on, a dot where not.",
    ),
    Variable::plain(
        "ssl_early_data",
        |r, o| {
            of_session(r, o, |s, o| {
                let is_unfinished =
                    s.established.unfinished.as_ref().is_some_and(|unfinished| unfinished.get());
                put(o, if is_unfinished { "1" } else { "" });
            })
        },
        "1 where the request came ahead of the end of the handshake, which is still not done.",
    ),
    Variable::plain(
        "ssl_server_name",
        |r, o| of_session(r, o, |s, o| put(o, s.server_name.as_deref().unwrap_or_default())),
        "The name of the server that the client asked for (SNI).",
    ),
    Variable::plain(
        "ssl_alpn_protocol",
        |r, o| {
            of_session(r, o, |s, o| o.extend_from_slice(s.established.alpn.as_deref().unwrap_or_default()))
        },
        "The application protocol that was agreed on.",
    ),
    Variable::plain(
        "ssl_client_cert",
        |r, o| of_certificate(r, o, |shown| folded(&shown.pem())),
        "The client's certificate in PEM form, for a header field.",
    ),
    Variable::plain(
        "ssl_client_raw_cert",
        |r, o| of_certificate(r, o, |shown| shown.pem()),
        "The client's certificate in PEM form.",
    ),
    Variable::plain(
        "ssl_client_escaped_cert",
        |r, o| of_certificate(r, o, |shown| escaped(&shown.pem())),
        "The client's certificate in PEM form, escaped.",
    ),
    Variable::plain(
        "ssl_client_s_dn",
        |r, o| of_certificate(r, o, |shown| shown.subject()),
        "The subject of the client's certificate.",
    ),
    Variable::plain(
        "ssl_client_i_dn",
        |r, o| of_certificate(r, o, |shown| shown.issuer()),
        "The issuer of the client's certificate.",
    ),
    Variable::plain(
        "ssl_client_s_dn_legacy",
        |r, o| of_certificate(r, o, |shown| shown.subject_legacy()),
        "The subject of the client's certificate, with slashes.",
    ),
    Variable::plain(
        "ssl_client_i_dn_legacy",
        |r, o| of_certificate(r, o, |shown| shown.issuer_legacy()),
        "The issuer of the client's certificate, with slashes.",
    ),
    Variable::plain(
        "ssl_client_serial",
        |r, o| of_certificate(r, o, |shown| shown.serial()),
        "The serial number of the client's certificate.",
    ),
    Variable::plain(
        "ssl_client_fingerprint",
        |r, o| of_certificate(r, o, |shown| shown.fingerprint()),
        "SHA-1 of the client's certificate.",
    ),
    Variable::plain(
        "ssl_client_verify",
        |r, o| {
            of_session(r, o, |s, o| match &s.verified {
                _ if s.established.peer_certificates.is_empty() => put(o, "NONE"),
                Verified::NoCertificate => put(o, "NONE"),
                Verified::Trusted => put(o, "SUCCESS"),
                Verified::Failed(failure) => put(o, &format!("FAILED:{}", failure.words)),
                Verified::NotVouchedFor(words) => put(o, &format!("FAILED:{words}")),
            })
        },
        "What is thought of the client's certificate: SUCCESS, FAILED:reason or NONE.",
    ),
    Variable::plain(
        "ssl_client_v_start",
        |r, o| of_certificate(r, o, |shown| shown.starts()),
        "When the client's certificate begins.",
    ),
    Variable::plain(
        "ssl_client_v_end",
        |r, o| of_certificate(r, o, |shown| shown.ends()),
        "When the client's certificate ends.",
    ),
    Variable::plain(
        "ssl_client_v_remain",
        |r, o| of_certificate(r, o, |shown| shown.days_left(net::clock::wall().seconds).to_string()),
        "How many days the client's certificate has left.",
    ),
];
