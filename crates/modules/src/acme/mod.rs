//! `acme_*`: certificates that are obtained and renewed by the server itself, in the words of nginx-acme (its manual,
//! ngx_http_acme_module). The rows, and the page that proves names; what becomes of a configuration is in [`settings`],
//! who asks issuers is `engine::acme`.

mod settings;

use crate::zones;
use acme::{Identifier, KeyKind};
use bstr::{BString, ByteSlice};
use conf::{Node, Word};
use engine::acme::{ChallengeKind, Profile, board};
use engine::flow::{Answer, Ask, Phase};
use engine::module::{Install, cells};
use engine::{Build, Declare, Flow, Installer, Module, Reply, Request, Source, Step};
use http::Status;
use schema::value::argument;
use schema::{Directive, Flag, Inherit, Places, Problem, Services, Set, Value, field, list};
use std::any::Any;
use std::sync::Arc;

/// Where issuers look for the proof of a name (RFC 8555 section 8.3).
const PAGE_PREFIX: &[u8] = b"/.well-known/acme-challenge/";

#[derive(Default)]
struct Conf {
    certificate: Inherit<Option<Certificate>>,
    uri: Inherit<BString>,
    account_key: Inherit<BString>,
    challenge: Inherit<Option<Challenge>>,
    common_name_in_csr: Inherit<Flag>,
    contacts: Inherit<Vec<Contact>>,
    external_account_key: Inherit<Option<ExternalKey>>,
    preferred_chain: Inherit<BString>,
    profile: Inherit<Option<Wanted>>,
    trusted_certificate: Inherit<BString>,
    verify: Inherit<Flag>,
    state_path: Inherit<BString>,
    accepts_terms: Inherit<Option<Agreed>>,
}

/// `acme_certificate issuer [identifier ...] [key=algorithm[:size]]`
#[derive(Clone)]
struct Certificate {
    issuer: BString,
    identifiers: Vec<Identifier>,
    key: KeyKind,
}

impl Value for Certificate {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let issuer = argument(node, 0)?;
        if issuer.text.is_empty() {
            return Err(Problem::directive(&node.name, "\"issuer\" is missing").on(issuer));
        }
        let mut made =
            Certificate { issuer: issuer.text.clone(), identifiers: Vec::new(), key: KeyKind::default() };
        for word in &node.args[1..] {
            if let Some(kind) = word.text.strip_prefix(b"key=") {
                made.key = match KeyKind::parse(kind) {
                    Ok(Some(kind)) => kind,
                    Ok(None) => return Err(Problem::directive(&node.name, "invalid \"key\" value").on(word)),
                    Err(why) => return Err(named(node, why).on(word)),
                };
                continue;
            }
            made.identifiers.extend(identifiers(node, word)?);
        }
        Ok(made)
    }
}

/// The identifiers of a word; of one with a leading dot there are two.
fn identifiers(node: &Node, word: &Word) -> Result<Vec<Identifier>, Problem> {
    let text = word.text.to_str().ok().filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| Problem::directive(&node.name, "invalid value").on(word))?;
    Identifier::parse(text).map_err(|why| named(node, format!("invalid server name: {why}")).on(word))
}

/// A problem as nginx-acme words those of its own.
fn named(node: &Node, why: impl std::fmt::Display) -> Problem {
    Problem::new(format!("{}: {why}", node.name.text))
}

/// `challenge`
#[derive(Clone, Copy)]
struct Challenge(ChallengeKind);

impl Value for Challenge {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        Ok(Challenge(match word.text.as_slice() {
            b"http" | b"http-01" => ChallengeKind::Http01,
            b"tls-alpn" | b"tls-alpn-01" => ChallengeKind::TlsAlpn01,
            _ => {
                let help = "it is one of: http-01, tls-alpn-01";
                return Err(Problem::new(format!("unsupported challenge: {}", word.text))
                    .on(word)
                    .help(help));
            }
        }))
    }
}

/// `contact`: an address with its scheme, `mailto:` where there is none.
#[derive(Clone)]
struct Contact(String);

impl Value for Contact {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        let text = word.text.to_str().ok().filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| Problem::directive(&node.name, "invalid value").on(word))?;
        let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        Ok(Contact(if is_scheme { text.to_owned() } else { format!("mailto:{text}") }))
    }
}

/// `external_account_key kid file`
#[derive(Clone)]
struct ExternalKey {
    identifier: String,
    /// A file, or `data:` and the key.
    key: BString,
}

impl Value for ExternalKey {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let (identifier, key) = (argument(node, 0)?, argument(node, 1)?);
        let invalid = |word| Problem::directive(&node.name, "invalid value").on(word);
        let text = identifier.text.to_str().ok().filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| invalid(identifier))?;
        if key.text.is_empty() {
            return Err(invalid(key));
        }
        Ok(ExternalKey { identifier: text.to_owned(), key: key.text.clone() })
    }
}

/// `profile name [require]`
#[derive(Clone)]
struct Wanted(Profile);

impl Value for Wanted {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let invalid = |word| Problem::directive(&node.name, "invalid value").on(word);
        let word = argument(node, 0)?;
        let name = word.text.to_str().map_err(|_| invalid(word))?.to_owned();
        let is_required = match node.args.get(1) {
            None => false,
            Some(word) if word.text == "require" => true,
            Some(word) => return Err(invalid(word)),
        };
        Ok(Wanted(Profile { name, is_required }))
    }
}

/// `accept_terms_of_service`
#[derive(Clone)]
struct Agreed;

impl Value for Agreed {
    fn parse(_node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        Ok(Agreed)
    }
}

/// Names of issuers so far, and the zone.
#[derive(Default)]
struct Seen {
    issuers: Vec<BString>,
    has_zone: bool,
}

/// The setter of `acme_issuer name {}`.
struct IssuerBlock;

impl Set for IssuerBlock {
    fn set(&self, _cells: &mut dyn Any, node: &Node, services: &mut dyn Services) -> Result<(), Problem> {
        let Some(build) = services.any().downcast_mut::<Build>() else { return Ok(()) };
        let word = argument(node, 0)?;
        let seen = build.shared::<Seen>();
        if seen.issuers.contains(&word.text) {
            return Err(Problem::directive(&node.name, "is duplicate").on(word));
        }
        seen.issuers.push(word.text.clone());
        Ok(())
    }

    fn keeps(&self) -> bool {
        false
    }

    fn nested(&self, _outer: Places) -> Option<Places> {
        Some(Places::ACME_ISSUER)
    }
}

/// `acme_shared_zone zone=name:size`: what it would hold is in memory anyway, and as small.
fn shared_zone(_cells: &mut (), node: &Node, build: &mut Build) -> Result<(), Problem> {
    if std::mem::replace(&mut build.shared::<Seen>().has_zone, true) {
        return Err(Problem::directive(&node.name, "is duplicate"));
    }
    let word = argument(node, 0)?;
    let text = word.text.strip_prefix(b"zone=").ok_or_else(|| zones::missing(node).on(word))?;
    let size = text.split_once_str(":").and_then(|(name, bytes)| Some((name, schema::value::size(bytes)?)));
    let Some((name, bytes)) = size else {
        return Err(named(node, format!("invalid zone size \"{}\"", text.as_bstr())).on(word));
    };
    if bytes < zones::BYTES_MIN {
        return Err(named(node, format!("zone {} is too small", name.as_bstr())).on(word));
    }
    build.idle(node);
    Ok(())
}

/// The module.
pub static MODULE: Module = Module {
    name: "acme",
    directives: &[
        Directive {
            name: "acme_issuer",
            default: "",
            set: &IssuerBlock,
            doc: "Somebody who gives certificates over ACME.",
        },
        Directive {
            name: "acme_shared_zone",
            default: "",
            set: &Declare::new(shared_zone),
            doc: "How large the memory for certificates is, which takes what it needs.",
        },
        Directive {
            name: "acme_certificate",
            default: "",
            set: field!(Conf.certificate),
            doc: "A certificate that is obtained from an issuer, for these names or those of the server.",
        },
        Directive {
            name: "uri",
            default: "",
            set: field!(Conf.uri),
            doc: "Where the issuer's directory is.",
        },
        Directive {
            name: "account_key",
            default: "",
            set: field!(Conf.account_key),
            doc: "The kind of the account's key, or a file with it.",
        },
        Directive {
            name: "challenge",
            default: "",
            set: field!(Conf.challenge),
            doc: "How names are proved: http-01 or tls-alpn-01.",
        },
        Directive {
            name: "common_name_in_csr",
            default: "off",
            set: field!(Conf.common_name_in_csr),
            doc: "Whether the first name is asked for as common name, too.",
        },
        Directive {
            name: "contact",
            default: "",
            set: list!(Conf.contacts),
            doc: "Where the issuer can write to about the account.",
        },
        Directive {
            name: "external_account_key",
            default: "",
            set: field!(Conf.external_account_key),
            doc: "The account elsewhere that the new one is bound to, and its key.",
        },
        Directive {
            name: "preferred_chain",
            default: "",
            set: field!(Conf.preferred_chain),
            doc: "The common name of the root under which the chain should end.",
        },
        Directive {
            name: "profile",
            default: "",
            set: field!(Conf.profile),
            doc: "The issuer's profile of certificates that is wanted.",
        },
        Directive {
            name: "ssl_trusted_certificate",
            default: "",
            set: field!(Conf.trusted_certificate),
            doc: "Authorities for the issuer's own certificate; the system's where none are named.",
        },
        Directive {
            name: "ssl_verify",
            default: "on",
            set: field!(Conf.verify),
            doc: "Whether the issuer's own certificate is judged.",
        },
        Directive {
            name: "state_path",
            default: "",
            set: field!(Conf.state_path),
            doc: "The folder for the account, keys and certificates, or off.",
        },
        Directive {
            name: "accept_terms_of_service",
            default: "",
            set: field!(Conf.accepts_terms),
            doc: "Agrees to the issuer's terms of service.",
        },
    ],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::Always(install),
    finish: settings::finish,
};

fn install(installer: &mut Installer) -> Result<(), Problem> {
    match installer.place {
        Places::ACME_ISSUER => settings::issuer(installer),
        Places::SERVER => {
            settings::server(installer)?;
            if settings::proves_by_page(installer.build) {
                let page = installer.once::<Conf, Page>(|_, _| Page);
                installer.shared_step(Phase::PostRead, page);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Answers issuers, before any other directive of the server is asked. Only while an order is under way is there an
/// answer; all other requests for such pages go their way.
struct Page;

/// How often a page was looked for that another gateway may have.
#[derive(Default)]
struct Looks(u32);

/// How long is waited between two looks, milliseconds.
const LOOK_MS: u64 = 20;
/// How many looks a request is worth.
const LOOKS_MAX: u32 = 50;

impl Step for Page {
    fn run(&self, request: &mut Request) -> Flow {
        if request.method != http::Method::Get || request.subrequest {
            return Flow::Next;
        }
        let Some(token) = request.uri.strip_prefix(PAGE_PREFIX) else { return Flow::Next };
        let text = match board::page(token) {
            board::Page::Shown(text) => text,
            board::Page::None => return Flow::Next,
            board::Page::Sought => {
                let looks = request.note::<Looks>();
                looks.0 += 1;
                return if looks.0 > LOOKS_MAX { Flow::Next } else { Flow::Ask(Ask::Sleep(LOOK_MS)) };
            }
        };
        request.response.content_type = b"text/plain".to_vec();
        request.response.content_length = Some(text.len() as u64);
        Flow::Reply(Reply { status: Status::OK, source: Source::Bytes(text.into_bytes()) })
    }

    fn resume(&self, request: &mut Request, _answer: Answer) -> Flow {
        self.run(request)
    }
}

/// A server's certificate for `$acme_certificate`, where it has one.
pub fn certificate_of(installer: &Installer) -> Option<Arc<net::tls::Issued>> {
    installer.plan.kept::<engine::acme::ServerCertificate>().map(|certificate| certificate.0.clone())
}
