//! Issuers and orders out of their directives. What the state path holds is read here, by whoever may read it: the master
//! reads files, and the worker is told what was in them.

use super::Conf;
use acme::request::ExternalAccount;
use acme::{Identifier, Key, KeyKind, Url, order_name};
use bstr::{BStr, BString, ByteSlice};
use conf::{Diagnostic, Level};
use engine::acme::{AccountKey, ChallengeKind, Issuer, IssuerSettings, Order, ServerCertificate};
use engine::core::{SERVER_INDEX, ServerCore};
use engine::{Build, Installer};
use http::authorization::{Base64, decode_base64};
use net::tls::{ClientOptions, ClientSettings, Trust};
use schema::Problem;
use std::sync::Arc;

/// How long the chain of an issuer's own certificate may be.
const VERIFY_DEPTH: usize = 10;
/// The number of "no such file" (`ENOENT`).
const NO_ENTRY: i32 = 2;

/// What was declared so far.
#[derive(Default)]
struct Declared(Vec<Declaration>);

struct Declaration {
    name: BString,
    settings: IssuerSettings,
    tls: ClientSettings,
    state_path: Option<Vec<u8>>,
    orders: Vec<Arc<Order>>,
}

/// Is any name proved by a page?
pub(super) fn proves_by_page(build: &mut Build) -> bool {
    let declared = &build.shared::<Declared>().0;
    declared.iter().any(|issuer| issuer.settings.challenge == ChallengeKind::Http01)
}

/// Makes an issuer of its block.
pub(super) fn issuer(installer: &mut Installer) -> Result<(), Problem> {
    let conf = installer.conf::<Conf>();
    let failed = |why: String| Problem::new(format!("acme_issuer: {why}"));
    let name = installer.cells.args.first().map(|word| word.text.clone()).unwrap_or_default();
    let url = conf.uri.to_str().ok().and_then(Url::parse);
    let Some(url) = url else {
        let (why, span) = match conf.uri.is_empty() {
            true => (failed("\"uri\" is missing".to_owned()), None),
            false => (Problem::new(format!("invalid value \"{}\"", *conf.uri)), conf.uri.span),
        };
        let help = "it is the address of the issuer's directory, e.g. https://acme-v02.api.letsencrypt.org/directory";
        return Err(Problem { span, ..why.help(help) });
    };
    let at = |problem: Problem, span: Option<conf::Span>| match span {
        Some(span) => Problem { span: Some(span), ..problem },
        None => problem,
    };
    let build = &mut *installer.build;
    let account_key = account_key(build, &conf.account_key).map_err(|why| at(why, conf.account_key.span))?;
    let external = external(build, conf).map_err(|why| at(why, conf.external_account_key.span))?;
    let trusted = match conf.trusted_certificate.is_empty() {
        true => None,
        false => Some(read(build, &conf.trusted_certificate).map_err(|why| {
            at(failed(format!("cannot load certificates: {why}")), conf.trusted_certificate.span)
        })?),
    };
    let (tls, trusted) =
        tls(conf.verify.0, trusted).map_err(|why| at(failed(why), conf.trusted_certificate.span))?;
    let state_path = match conf.state_path.as_slice() {
        b"off" => None,
        b"" => Some(build.full_path(format!("acme_{name}").as_bytes().as_bstr()).into()),
        path => Some(build.full_path(path.as_bstr()).into()),
    };
    let text = |text: &BString| text.to_str_lossy().into_owned();
    let settings = IssuerSettings {
        url,
        account_key,
        challenge: (*conf.challenge).map(|challenge| challenge.0).unwrap_or_default(),
        has_common_name: conf.common_name_in_csr.0,
        contacts: conf.contacts.iter().map(|contact| contact.0.clone()).collect(),
        external,
        preferred_chain: (!conf.preferred_chain.is_empty()).then(|| text(&conf.preferred_chain)),
        profile: (*conf.profile).clone().map(|wanted| wanted.0),
        agrees_to_terms: conf.accepts_terms.is_some(),
        trusted,
    };
    build.shared::<Declared>().0.push(Declaration { name, settings, tls, state_path, orders: Vec::new() });
    Ok(())
}

/// `account_key`: a kind of key, or a file with one.
fn account_key(build: &Build, text: &BString) -> Result<AccountKey, Problem> {
    if text.is_empty() {
        return Ok(AccountKey::Made(KeyKind::default()));
    }
    if let Some(kind) = KeyKind::parse(text).map_err(|why| Problem::new(format!("account_key: {why}")))? {
        return Ok(AccountKey::Made(kind));
    }
    let failed = |why: String| Problem::new(format!("acme_issuer: cannot load account key: {why}"));
    let text = match text.strip_prefix(b"data:") {
        Some(data) => data.to_vec(),
        None => read(build, text).map_err(failed)?,
    };
    let der = net::tls::private_key_der(&text).map_err(failed)?;
    Key::read(&der).map_err(failed)?;
    Ok(AccountKey::Given(der))
}

fn external(build: &Build, conf: &Conf) -> Result<Option<ExternalAccount>, Problem> {
    let Some(external) = &*conf.external_account_key else { return Ok(None) };
    let failed = |why: String| Problem::new(format!("external_account_key: {why}"));
    let text = match external.key.strip_prefix(b"data:") {
        Some(data) => data.to_vec(),
        None => read(build, &external.key).map_err(failed)?,
    };
    let key = decode_base64(text.trim_ascii(), Base64::Url);
    let invalid = || Problem::new("\"external_account_key\" directive invalid base64url encoded value");
    let key = key.filter(|key| !key.is_empty()).ok_or_else(invalid)?;
    Ok(Some(ExternalAccount { identifier: external.identifier.clone(), key }))
}

/// How the issuer's server is spoken to, and the text of the authorities it is judged by: empty for the system's, none
/// where it is not judged.
fn tls(verify: bool, trusted: Option<Vec<u8>>) -> Result<(ClientSettings, Option<Vec<u8>>), String> {
    let mut options = ClientOptions {
        tls12: true,
        tls13: true,
        server_name: true,
        session_reuse: true,
        ..Default::default()
    };
    let mut judged_by = None;
    if verify {
        let mut trust = match &trusted {
            Some(_) => Trust::in_nobody(VERIFY_DEPTH),
            None => Trust::of_system(VERIFY_DEPTH),
        };
        if let Some(text) = &trusted {
            trust.add(text)?;
        }
        options.trust = Some(Arc::new(trust));
        judged_by = Some(trusted.unwrap_or_default());
    }
    Ok((ClientSettings::new(&options)?, judged_by))
}

fn read(build: &Build, name: &BString) -> Result<Vec<u8>, String> {
    let path = build.conf_path(name.as_ref());
    let failed =
        |error: conf::FileError| format!("open() \"{path}\" failed ({}: {})", error.errno, error.message);
    build.files.read(path.as_ref()).map(|text| text.to_vec()).map_err(failed)
}

/// Makes the order of a server that has an `acme_certificate` of its own.
pub(super) fn server(installer: &mut Installer) -> Result<(), Problem> {
    let conf = installer.conf::<Conf>();
    let Some(certificate) = &*conf.certificate else { return Ok(()) };
    let mut identifiers = certificate.identifiers.clone();
    if identifiers.is_empty() {
        match of_server(installer) {
            Ok(named) => identifiers = named,
            Err(why) => {
                installer.build.diagnostics.push(settle(why, conf));
                return Ok(());
            }
        }
    }
    let declared = &installer.build.shared::<Declared>().0;
    let position = declared.iter().position(|issuer| issuer.name == certificate.issuer);
    let Some(position) = position else {
        let why = Problem::new(format!("issuer \"{}\" is missing", certificate.issuer));
        let why = why.help("it is declared by an \"acme_issuer\" block");
        installer.build.diagnostics.push(settle(why, conf));
        return Ok(());
    };
    let name = order_name(&identifiers, certificate.key);
    let issuer = &declared[position];
    if let Some(known) = issuer.orders.iter().find(|order| order.name == name) {
        let issued = known.known.issued.clone();
        installer.keep(ServerCertificate(issued));
        return Ok(());
    }
    let known = issuer.settings.known_order(issuer.state_path.as_deref(), &name);
    let order = Arc::new(Order { name, identifiers, key: certificate.key, known });
    let (path, url) = (issuer.state_path.clone(), issuer.settings.url.clone());
    if let Some(path) = path {
        restore(installer.build, &path, &order, &url);
    }
    installer.build.shared::<Declared>().0[position].orders.push(order.clone());
    installer.keep(ServerCertificate(order.known.issued.clone()));
    Ok(())
}

/// What is found once all is read: it is the directive's, and nginx-acme names no place.
fn settle(problem: Problem, conf: &Conf) -> Diagnostic {
    let mut why = Diagnostic::emerg("acme", problem.message).bare();
    (why.span, why.help) = (conf.certificate.span, problem.help);
    why
}

/// The names of the server as identifiers.
fn of_server(installer: &mut Installer) -> Result<Vec<Identifier>, Problem> {
    let core = installer.cells.module::<ServerCore>(SERVER_INDEX);
    let mut identifiers = Vec::new();
    for name in core.into_iter().flat_map(|core| &core.server_name) {
        if name.regex.is_some() {
            let text =
                format!("\"acme_certificate\": unsupported regular expression in server_name: {}", name.text);
            installer.build.diagnostics.push(Diagnostic::warn("acme", text).at(name.span).bare());
            continue;
        }
        // A valid name that stands for no name at all.
        if name.text.is_empty() {
            continue;
        }
        let text = name.text.to_str_lossy();
        let parsed = Identifier::parse(&text);
        let parsed = parsed.map_err(|why| {
            let help = "name the identifiers in \"acme_certificate\" itself, behind the issuer";
            Problem::new(format!("\"acme_certificate\": invalid server name: {why}")).help(help)
        })?;
        identifiers.extend(parsed);
    }
    match identifiers.is_empty() {
        true => Err(Problem::new("\"acme_certificate\": no identifiers found in \"server_name\"")),
        false => Ok(identifiers),
    }
}

/// Takes what an earlier run, or another gateway, has left on disk.
fn restore(build: &mut Build, folder: &[u8], order: &Order, url: &Url) {
    let read = |ending: &str| {
        let path = [folder, b"/", order.name.as_bytes(), ending.as_bytes()].concat();
        match build.files.read(path.as_bstr()) {
            Ok(text) => Ok(Some(text.to_vec())),
            Err(error) if error.errno == NO_ENTRY => Ok(None),
            Err(error) => {
                Err(format!("open() \"{}\" failed ({}: {})", path.as_bstr(), error.errno, error.message))
            }
        }
    };
    if let Ok(Some(text)) = read(".wait") {
        order.known.restore_pause(&text, url);
    }
    let both = read(".crt").and_then(|certificate| Ok((certificate, read(".key")?)));
    let why = match both {
        Ok((Some(certificate), Some(key))) => match order.known.restore(&certificate, &key) {
            Ok(_) => return,
            Err(why) => why,
        },
        Ok(_) => return,
        Err(why) => why,
    };
    // It is obtained anew: a start does not depend on what is found there.
    let (name, folder) = (&order.name, BStr::new(folder));
    let text = format!("cannot load the certificate \"{name}\" of \"{folder}\": {why}");
    build.diagnostics.push(Diagnostic::new("acme", Level::Warn, text));
}

/// Hands the issuers over, each with its orders.
pub(super) fn finish(build: &mut Build) -> Result<(), Problem> {
    let declared = std::mem::take(&mut build.shared::<Declared>().0);
    build.issuers = declared
        .into_iter()
        .filter(|issuer| !issuer.orders.is_empty())
        .map(|Declaration { name, settings, tls, state_path, orders }| {
            let known = settings.known(state_path.as_deref());
            Arc::new(Issuer { name: name.to_string(), settings, tls, state_path, orders, known })
        })
        .collect();
    Ok(())
}
