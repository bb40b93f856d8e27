//! `ssl_*`: HTTPS (nginx's manual, ngx_http_ssl_module). The rows; what is made of them is in [`settings`], what
//! requests see of it in [`variables`], and TLS to
//! upstreams in [`upstream`].

mod commands;
mod files;
mod ocsp;
mod settings;
mod stapling;
pub mod upstream;
mod variables;

use bstr::{BString, ByteSlice};
use conf::{Node, Span, Word};
use engine::Module;
use engine::module::{Install, cells, finish_nothing};
use engine::tls::VerifyClient;
use net::tls::IdentityCache;
use schema::value::{Bitmask, Bits, argument, number, seconds, size};
use schema::{Directive, Flag, Inherit, Number, Problem, Seconds, Services, Size, Value, field, list};
use std::sync::Arc;

/// The least a shared cache may hold, bytes: eight pages, as nginx has it.
const CACHE_BYTES_MIN: usize = 8 * 4096;

#[derive(Default)]
struct Conf {
    certificates: Inherit<Vec<BString>>,
    keys: Inherit<Vec<BString>>,
    password_file: Inherit<BString>,
    certificate_cache: Inherit<CertificateCache>,
    certificate_compression: Inherit<Flag>,
    protocols: Inherit<Bitmask<Protocols>>,
    ciphers: Inherit<BString>,
    curves: Inherit<BString>,
    dhparam: Inherit<BString>,
    ech_files: Inherit<Vec<BString>>,
    commands: Inherit<Vec<Command>>,
    prefer_server_ciphers: Inherit<Flag>,
    buffer_size: Inherit<Size>,
    session_caches: Inherit<Vec<Cache>>,
    session_timeout: Inherit<Seconds>,
    session_tickets: Inherit<Flag>,
    ticket_keys: Inherit<Vec<BString>>,
    early_data: Inherit<Flag>,
    reject_handshake: Inherit<Flag>,
    verify_client: Inherit<VerifyClient>,
    verify_depth: Inherit<Number>,
    client_certificate: Inherit<BString>,
    trusted_certificate: Inherit<BString>,
    crl: Inherit<BString>,
    stapling: Inherit<Flag>,
    stapling_file: Inherit<BString>,
    stapling_responder: Inherit<BString>,
    stapling_verify: Inherit<Flag>,
    ocsp: Inherit<ocsp::Ocsp>,
    ocsp_responder: Inherit<BString>,
    ocsp_cache: Inherit<ocsp::AnswersKept>,
}

/// `ssl_certificate_cache off | max=N [inactive=time] [valid=time]`
#[derive(Clone, Debug, Default)]
struct CertificateCache(Option<Arc<IdentityCache>>);

impl Value for CertificateCache {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let (mut entries_max, mut inactive_seconds, mut valid_seconds) = (None, 10, 60);
        for word in &node.args {
            let invalid = || Problem::new(format!("invalid parameter \"{}\"", word.text)).on(word);
            match word.text.split_once_str("=") {
                Some((b"max", text)) => {
                    entries_max = Some(number(text).filter(|n| *n > 0).ok_or_else(invalid)?);
                }
                Some((b"inactive", text)) => inactive_seconds = seconds(text).ok_or_else(invalid)?,
                Some((b"valid", text)) => valid_seconds = seconds(text).ok_or_else(invalid)?,
                None if word.text == "off" => return Ok(CertificateCache(None)),
                _ => return Err(invalid()),
            }
        }
        let Some(entries_max) = entries_max else {
            return Err(Problem::new(format!("\"{}\" must have the \"max\" parameter", node.name.text)));
        };
        let cache = IdentityCache::new(entries_max, inactive_seconds * 1000, valid_seconds * 1000);
        Ok(CertificateCache(Some(Arc::new(cache))))
    }
}

/// The words of `ssl_protocols`.
struct Protocols;

const TLS12: u32 = 16;
const TLS13: u32 = 32;

impl Bits for Protocols {
    const BITS: &'static [(&'static str, u32)] =
        &[("SSLv2", 1), ("SSLv3", 2), ("TLSv1", 4), ("TLSv1.1", 8), ("TLSv1.2", TLS12), ("TLSv1.3", TLS13)];
}

/// `ssl_conf_command name value`
#[derive(Clone)]
struct Command {
    name: BString,
    value: BString,
}

impl Value for Command {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        Ok(Command { name: argument(node, 0)?.text.clone(), value: argument(node, 1)?.text.clone() })
    }
}

/// `ssl_session_cache`
#[derive(Clone, Debug, Default)]
struct Cache {
    /// `off`, or `none`: clients are told that sessions are not resumed, or are not.
    off: Option<bool>,
    /// `builtin`: a cache of its own for this many sessions.
    own: Option<usize>,
    /// `shared:name:size`, bytes.
    shared: Option<(BString, usize)>,
    /// Where it stands.
    span: Option<Span>,
}

/// How many sessions `builtin` holds without a number (OpenSSL's `SSL_SESSION_CACHE_MAX_SIZE_DEFAULT`).
const BUILTIN_SESSIONS: usize = 1024 * 20;

impl Value for Cache {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let mut cache = Cache { span: Some(node.name.span), ..Cache::default() };
        for word in &node.args {
            let invalid = || Problem::new(format!("invalid session cache \"{}\"", word.text)).on(word);
            match word.text.as_slice() {
                // The last of these counts.
                b"off" => (cache.off, cache.own) = (Some(true), None),
                b"none" => (cache.off, cache.own) = (Some(false), None),
                b"builtin" => (cache.off, cache.own) = (None, Some(BUILTIN_SESSIONS)),
                text => match (text.strip_prefix(b"builtin:"), text.strip_prefix(b"shared:")) {
                    (Some(count), _) => {
                        (cache.off, cache.own) = (None, Some(number(count).ok_or_else(invalid)?));
                    }
                    (_, Some(text)) => {
                        cache.shared = Some(shared_cache(text, word, "session cache").ok_or_else(invalid)??);
                    }
                    _ => return Err(invalid()),
                },
            }
        }
        Ok(cache)
    }
}

impl Cache {
    /// What several directives say together.
    fn of(caches: &[Cache]) -> Cache {
        let mut all = Cache::default();
        for cache in caches {
            if cache.off.is_some() || cache.own.is_some() {
                (all.off, all.own) = (cache.off, cache.own);
            }
            all.shared = cache.shared.clone().or(all.shared);
        }
        all
    }
}

/// `name:size` of a `what`; none: it is neither.
fn shared_cache(text: &[u8], word: &Word, what: &str) -> Option<Result<(BString, usize), Problem>> {
    let (name, bytes) = text.split_once_str(":").filter(|(name, _)| !name.is_empty())?;
    let bytes = size(bytes)?;
    if bytes < CACHE_BYTES_MIN {
        return Some(Err(Problem::new(format!("{what} \"{}\" is too small", word.text)).on(word)));
    }
    Some(Ok((name.into(), bytes)))
}

pub static MODULE: Module = Module {
    name: "ssl",
    directives: &[
        Directive {
            name: "ssl_certificate",
            default: "",
            set: list!(Conf.certificates),
            doc: "A file with the server's certificate and, behind it, its intermediates.",
        },
        Directive {
            name: "ssl_certificate_key",
            default: "",
            set: list!(Conf.keys),
            doc: "The file with the certificate's key.",
        },
        Directive {
            name: "ssl_password_file",
            default: "",
            set: field!(Conf.password_file),
            doc: "A file with passwords of encrypted keys, one a line.",
        },
        Directive {
            name: "ssl_certificate_cache",
            default: "off",
            set: field!(Conf.certificate_cache),
            doc: "How many certificates and keys that variables name are kept once read.",
        },
        Directive {
            name: "ssl_certificate_compression",
            default: "off",
            set: field!(Conf.certificate_compression),
            doc: "Whether certificates go out compressed (zlib) to clients that can undo it.",
        },
        Directive {
            name: "ssl_protocols",
            default: "TLSv1.2 TLSv1.3",
            set: field!(Conf.protocols),
            doc: "Protocols that are spoken; those before TLS 1.2 are not.",
        },
        Directive {
            name: "ssl_ciphers",
            default: "HIGH:!aNULL:!MD5",
            set: field!(Conf.ciphers),
            doc: "Ciphers of TLS 1.2, in OpenSSL's form.",
        },
        Directive {
            name: "ssl_prefer_server_ciphers",
            default: "off",
            set: field!(Conf.prefer_server_ciphers),
            doc: "Whether the server's order of ciphers counts.",
        },
        Directive {
            name: "ssl_ecdh_curve",
            default: "auto",
            set: field!(Conf.curves),
            doc: "Curves and other key exchanges, in order.",
        },
        Directive {
            name: "ssl_conf_command",
            default: "",
            set: list!(Conf.commands),
            doc: "A setting in OpenSSL's words.",
        },
        Directive {
            name: "ssl_dhparam",
            default: "",
            set: field!(Conf.dhparam),
            doc: "Parameters of key exchanges that are not spoken.",
        },
        Directive {
            name: "ssl_ech_file",
            default: "",
            set: list!(Conf.ech_files),
            doc: "A key for encrypted hellos, which are not spoken.",
        },
        Directive {
            name: "ssl_buffer_size",
            default: "16k",
            set: field!(Conf.buffer_size),
            doc: "How much goes into one record.",
        },
        Directive {
            name: "ssl_session_cache",
            default: "none",
            set: list!(Conf.session_caches),
            doc: "Where sessions are kept for clients that come again.",
        },
        Directive {
            name: "ssl_session_timeout",
            default: "5m",
            set: field!(Conf.session_timeout),
            doc: "How long a client may go on with a session.",
        },
        Directive {
            name: "ssl_session_tickets",
            default: "on",
            set: field!(Conf.session_tickets),
            doc: "Whether clients keep sessions themselves, in tickets.",
        },
        Directive {
            name: "ssl_session_ticket_key",
            default: "",
            set: list!(Conf.ticket_keys),
            doc: "A file with a key for tickets; the first makes them, all open them.",
        },
        Directive {
            name: "ssl_early_data",
            default: "off",
            set: field!(Conf.early_data),
            doc: "Whether requests are taken before the handshake is done, from clients that come again.",
        },
        Directive {
            name: "ssl_reject_handshake",
            default: "off",
            set: field!(Conf.reject_handshake),
            doc: "Whether handshakes are refused.",
        },
        Directive {
            name: "ssl_verify_client",
            default: "off",
            set: field!(Conf.verify_client),
            doc: "Whether clients must show a certificate.",
        },
        Directive {
            name: "ssl_verify_depth",
            default: "1",
            set: field!(Conf.verify_depth),
            doc: "How long a client's chain may be.",
        },
        Directive {
            name: "ssl_client_certificate",
            default: "",
            set: field!(Conf.client_certificate),
            doc: "Authorities that issue client certificates, which clients are told.",
        },
        Directive {
            name: "ssl_trusted_certificate",
            default: "",
            set: field!(Conf.trusted_certificate),
            doc: "Further authorities, which clients are not told.",
        },
        Directive {
            name: "ssl_crl",
            default: "",
            set: field!(Conf.crl),
            doc: "Lists of revoked certificates.",
        },
        Directive {
            name: "ssl_stapling",
            default: "off",
            set: field!(Conf.stapling),
            doc: "Whether an answer about the certificate (OCSP) goes out with it.",
        },
        Directive {
            name: "ssl_stapling_file",
            default: "",
            set: field!(Conf.stapling_file),
            doc: "A file with the answer, which is not asked for then.",
        },
        Directive {
            name: "ssl_stapling_responder",
            default: "",
            set: field!(Conf.stapling_responder),
            doc: "Who is asked, instead of whom the certificate names.",
        },
        Directive {
            name: "ssl_stapling_verify",
            default: "off",
            set: field!(Conf.stapling_verify),
            doc: "Whether the answer must come from the certificate's issuer or whom that has appointed.",
        },
        Directive {
            name: "ssl_ocsp",
            default: "off",
            set: field!(Conf.ocsp),
            doc: "Whether issuers are asked about client certificates: the whole chain, or the leaf alone.",
        },
        Directive {
            name: "ssl_ocsp_responder",
            default: "",
            set: field!(Conf.ocsp_responder),
            doc: "Who is asked about client certificates, instead of whom they name.",
        },
        Directive {
            name: "ssl_ocsp_cache",
            default: "off",
            set: field!(Conf.ocsp_cache),
            doc: "Where answers about client certificates are kept.",
        },
    ],
    families: &[],
    variables: variables::VARIABLES,
    cells: cells::<Conf>,
    install: Install::Always(settings::install),
    finish: finish_nothing,
};
