//! The TLS of a server out of its directives: certificates, protocols and ciphers, sessions. What is wrong is worded as
//! nginx words it, and what to do is said.

use super::{Cache, CertificateCache, Conf, TLS12, TLS13};
use crate::zones::{self, NamedZone};
use bstr::{BString, ByteSlice};
use conf::{Diagnostic, Level, Span};
use engine::tls::ServerTls;
use engine::tls::named::{Certificate, NamedCertificates, Pair, Reader};
use engine::{Build, Installer};
use net::tls::{
    CipherSuite, Issued, NamedGroup, ServerOptions, ServerSettings, SessionCache, TicketKeys, names,
};
use schema::{Places, Problem, Services};
use std::sync::Arc;
use template::Template;

/// The number of "is a directory" (`EISDIR`).
const IS_A_DIRECTORY: i32 = 21;
/// What HTTP/1 is called in the choice of a protocol (ALPN), as nginx has it.
const HTTP1_PROTOCOLS: &[&[u8]] = &[b"http/1.1", b"http/1.0", b"http/0.9"];
/// What one session of `ssl_session_cache builtin` is reckoned at, bytes.
const SESSION_BYTES: usize = 256;
/// The variables that stand for a certificate from an issuer (`acme_certificate`) and for its key.
pub(super) const ACME_CERTIFICATE: &str = "$acme_certificate";
const ACME_CERTIFICATE_KEY: &str = "$acme_certificate_key";

/// Names that were warned of, so that each is named once.
#[derive(Default)]
struct Warned(Vec<String>);

/// Something wrong that has been reported already.
pub(super) struct Reported;

pub(super) fn install(installer: &mut Installer) -> Result<(), Problem> {
    if installer.place != Places::SERVER {
        return Ok(());
    }
    let conf = installer.conf::<Conf>();
    let span = conf.certificates.span;
    let issued = crate::acme::certificate_of(installer);
    let mut maker = Maker { build: &mut *installer.build, span };
    // What is wrong is reported where it is found.
    let made = maker.server(conf, issued);
    installer.keep(made.unwrap_or_else(|Reported| ServerTls { is_refused: true, ..ServerTls::default() }));
    Ok(())
}

/// Makes settings and reports on them.
pub(super) struct Maker<'a> {
    pub(super) build: &'a mut Build,
    /// What reports point at.
    pub(super) span: Option<Span>,
}

impl Maker<'_> {
    pub(super) fn report(&mut self, level: Level, text: String, help: Option<String>) {
        let mut made = Diagnostic::new("tls", level, text).bare();
        if let Some(span) = self.span {
            made = made.at(span);
        }
        if let Some(help) = help {
            made = made.help(help);
        }
        self.build.diagnostics.push(made);
    }

    /// Declares a shared zone where it is named, for a `purpose` of its own.
    pub(super) fn declare(
        &mut self,
        purpose: &'static str,
        (name, bytes_max): &(BString, usize),
        span: Option<Span>,
    ) -> Result<(), Reported> {
        let zone = NamedZone { name: name.clone(), bytes_max: *bytes_max };
        let Err(problem) = zones::declare(self.build, purpose, &zone) else { return Ok(()) };
        let mut made = Diagnostic::emerg("zone", problem.message);
        if let Some(span) = span {
            made = made.at(span);
        }
        self.build.diagnostics.push(made);
        Err(Reported)
    }

    pub(super) fn refuse<T>(&mut self, text: String, help: Option<String>) -> Result<T, Reported> {
        self.report(Level::Emerg, text, help);
        Err(Reported)
    }

    /// Warns of a name once for the whole configuration.
    pub(super) fn warn_once(&mut self, text: String, help: Option<String>) {
        if !self.build.shared::<Warned>().0.contains(&text) {
            self.build.shared::<Warned>().0.push(text.clone());
            self.report(Level::Warn, text, help);
        }
    }

    /// `issued` is the certificate that the server has from an issuer.
    fn server(&mut self, conf: &Conf, issued: Option<Arc<Issued>>) -> Result<ServerTls, Reported> {
        let reject_handshake = conf.reject_handshake.0;
        let verify = *conf.verify_client;
        let mut tls = ServerTls { reject_handshake, verify, ..ServerTls::default() };
        let (certificates, keys) = (&*conf.certificates, &*conf.keys);
        if let Some(last) = certificates.last().filter(|_| keys.len() < certificates.len()) {
            return self
                .refuse(format!("no \"ssl_certificate_key\" is defined for certificate \"{last}\""), None);
        }
        let sessions = Cache::of(&conf.session_caches);
        for cache in conf.session_caches.iter() {
            if let Some(zone) = &cache.shared {
                self.declare("ssl_session_cache", zone, cache.span)?;
            }
        }
        if let Some(zone) = &conf.ocsp_cache.0 {
            self.declare("ssl_ocsp_cache", zone, conf.ocsp_cache.span)?;
        }
        // One that refuses handshakes must be right all the same.
        if certificates.is_empty() && !reject_handshake {
            return Ok(tls);
        }
        let mut options = ServerOptions::default();
        self.certificates(conf, issued, &mut options, &mut tls)?;
        options.compress_certificates = self.compression(conf, &tls)?;
        options.prefer_server_ciphers = conf.prefer_server_ciphers.0;
        self.protocols(conf, &mut options)?;
        self.dhparam(conf)?;
        self.sessions(conf, &sessions, &mut options)?;
        self.commands(conf, &mut options)?;
        self.clients(conf, &mut options, &mut tls)?;
        self.vouching(conf, &mut tls)?;
        if certificates.is_empty() {
            return Ok(tls);
        }
        options.record_bytes_max = conf.buffer_size.0;
        options.alpn = HTTP1_PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        match ServerSettings::new(&options) {
            Ok(settings) => {
                tls.settings_http2 =
                    Some(settings.with_protocols(&[&[&b"h2"[..]], HTTP1_PROTOCOLS].concat()));
                tls.settings = Some(settings);
            }
            Err(why) => return self.refuse(format!("SSL_CTX_new() failed (SSL: {why})"), None),
        }
        Ok(tls)
    }

    /// Reads certificates and keys; those that variables name are read when connections come.
    fn certificates(
        &mut self,
        conf: &Conf,
        issued: Option<Arc<Issued>>,
        options: &mut ServerOptions,
        tls: &mut ServerTls,
    ) -> Result<(), Reported> {
        let passwords = self.passwords(&conf.password_file)?;
        let mut certificates = Vec::new();
        for (certificate, key) in conf.certificates.iter().zip(conf.keys.iter()) {
            if certificate == ACME_CERTIFICATE && key == ACME_CERTIFICATE_KEY {
                // Without an order the variables are empty, as in nginx, and handshakes fail.
                let issued = issued.clone().unwrap_or_else(|| Arc::new(Issued::new(b"")));
                certificates.push(Certificate::Issued(issued));
                continue;
            }
            certificates.push(match self.pair(certificate, key)? {
                Some(pair) => {
                    options.names.extend([certificate.to_vec(), key.to_vec()]);
                    Certificate::Named(pair)
                }
                None => match self.identity(certificate, key, &passwords)? {
                    Some(identity) => Certificate::Known(identity),
                    None => continue,
                },
            });
        }
        if options.names.is_empty() {
            for certificate in certificates {
                match certificate {
                    Certificate::Known(identity) => options.identities.push(identity),
                    Certificate::Issued(issued) => options.issued.push(issued),
                    Certificate::Named(_) => {}
                }
            }
            self.staple(conf, options, tls)?;
        } else {
            let reader = self.reader(passwords, &conf.certificate_cache);
            tls.named = Some(NamedCertificates { certificates, reader });
        }
        Ok(())
    }

    /// Do certificates go out compressed? Those that variables name do not, as in nginx: they are others each time.
    fn compression(&mut self, conf: &Conf, tls: &ServerTls) -> Result<bool, Reported> {
        if conf.stapling.0 && conf.certificate_compression.0 {
            let text = "\"ssl_stapling\" is incompatible with \"ssl_certificate_compression\"";
            return self.refuse(text.to_owned(), None);
        }
        Ok(conf.certificate_compression.0 && tls.named.is_none())
    }

    /// The names of a certificate and its key where variables are in them.
    pub(super) fn pair(&mut self, certificate: &BString, key: &BString) -> Result<Option<Pair>, Reported> {
        if !certificate.contains(&b'$') && !key.contains(&b'$') {
            return Ok(None);
        }
        let mut compile = |text: &BString| {
            let compiled = Template::compile(text.as_ref(), self.build.names());
            compiled.or_else(|error| self.refuse(error.to_string(), None))
        };
        Ok(Some(Pair { certificate: compile(certificate)?, key: compile(key)? }))
    }

    /// Reads what variables name.
    pub(super) fn reader(&self, passwords: Vec<Vec<u8>>, cache: &CertificateCache) -> Reader {
        let conf_prefix = self.build.conf_prefix.clone();
        Reader { passwords, cache: cache.0.clone(), conf_prefix }
    }

    fn protocols(&mut self, conf: &Conf, options: &mut ServerOptions) -> Result<(), Reported> {
        (options.tls12, options.tls13) = self.versions(conf.protocols.bits, "ssl_protocols")?;
        let list = conf.ciphers.to_str_lossy();
        options.ciphers = Some(self.cipher_list(&list, "ssl_ciphers", options.tls12)?);
        let list = conf.curves.to_str_lossy();
        if list != "auto" {
            let failed = |why: &str| match why {
                "" => format!("SSL_CTX_set1_curves_list(\"{list}\") failed"),
                why => format!("SSL_CTX_set1_curves_list(\"{list}\") failed (SSL: {why})"),
            };
            options.groups = Some(self.groups(&list, failed)?);
        }
        if !conf.ech_files.is_empty() {
            self.warn_once("\"ssl_ech_file\" is not supported on this platform, ignored".to_owned(), None);
        }
        Ok(())
    }

    /// Which of TLS 1.2 and 1.3 are wanted; the others are not to be had.
    pub(super) fn versions(&mut self, bits: u32, directive: &str) -> Result<(bool, bool), Reported> {
        for (bit, name) in [(1, "SSLv2"), (2, "SSLv3"), (4, "TLSv1"), (8, "TLSv1.1")] {
            if bits & bit != 0 {
                self.warn_once(
                    format!("the protocol {name} of \"{directive}\" is not available, ignored"),
                    None,
                );
            }
        }
        if bits & (TLS12 | TLS13) == 0 {
            let text = format!("\"{directive}\" names no protocol that is available");
            return self.refuse(text, Some("TLSv1.2 and TLSv1.3 are".to_owned()));
        }
        Ok((bits & TLS12 != 0, bits & TLS13 != 0))
    }

    /// The ciphers of a list; one that leaves nothing is refused where TLS 1.2 is spoken.
    pub(super) fn cipher_list(
        &mut self,
        list: &str,
        directive: &str,
        tls12: bool,
    ) -> Result<Vec<CipherSuite>, Reported> {
        let selected = names::select_ciphers(list);
        if selected.found.is_empty() && tls12 {
            let text = format!(
                "SSL_CTX_set_cipher_list(\"{list}\") failed (SSL: error:0A0000B9:SSL routines::no cipher match)"
            );
            let help = "ciphers of TLS 1.2 that are available: ECDHE-ECDSA and ECDHE-RSA with AES128-GCM-SHA256, \
                        AES256-GCM-SHA384 or CHACHA20-POLY1305";
            return self.refuse(text, Some(help.to_owned()));
        }
        self.missing_ciphers(&selected.missing, directive);
        Ok(selected.found)
    }

    pub(super) fn missing_ciphers(&mut self, missing: &[String], directive: &str) {
        for name in missing {
            self.warn_once(format!("the cipher {name} of \"{directive}\" is not available, ignored"), None);
        }
    }

    /// The key exchanges of a list; what `failed` makes of OpenSSL's reason is told where it leaves nothing.
    pub(super) fn groups(
        &mut self,
        list: &str,
        failed: impl Fn(&str) -> String,
    ) -> Result<Vec<NamedGroup>, Reported> {
        let cannot_be_set = |name: &str| {
            failed(&format!(
                "error:0A080106:SSL routines::passed invalid argument:group '{name}' cannot be set"
            ))
        };
        if list.is_empty() {
            return self.refuse(failed(""), None);
        }
        let selected = match names::select_groups(list) {
            Ok(selected) => selected,
            Err(name) => return self.refuse(cannot_be_set(name), None),
        };
        for name in &selected.missing {
            self.warn_once(format!("the curve {name} is not available, ignored"), None);
        }
        if selected.found.is_empty() {
            let help = "available: X25519MLKEM768, X25519, prime256v1, secp384r1".to_owned();
            return self.refuse(cannot_be_set(list), Some(help));
        }
        Ok(selected.found)
    }

    /// Looks at a file with parameters of key exchanges that are not spoken: it must be one.
    fn dhparam(&mut self, conf: &Conf) -> Result<(), Reported> {
        let file = &*conf.dhparam;
        if file.is_empty() {
            return Ok(());
        }
        let path = self.build.conf_path(file.as_ref());
        match self.build.files.read(path.as_ref()) {
            Ok(text) if text.contains_str("DH PARAMETERS-----") => {
                let name = BString::from("ssl_dhparam");
                if !self.build.idle.contains(&name) {
                    self.build.idle.push(name);
                }
                Ok(())
            }
            Err(error) if error.errno != IS_A_DIRECTORY => {
                let what = net::tls::open_failed(&path, error.errno, &error.message);
                self.refuse(what.replacen("BIO_new_file()", &format!("BIO_new_file(\"{path}\")"), 1), None)
            }
            _ => self.refuse(
                format!(
                    "PEM_read_bio_DHparams(\"{path}\") failed (SSL: error:0480006C:PEM routines::no start \
                     line:Expecting: DH PARAMETERS)"
                ),
                None,
            ),
        }
    }

    fn sessions(&mut self, conf: &Conf, cache: &Cache, options: &mut ServerOptions) -> Result<(), Reported> {
        let seconds = u32::try_from(conf.session_timeout.0).unwrap_or(u32::MAX);
        options.session_seconds = seconds;
        let Cache { off, own, shared, span: _ } = cache;
        options.cache = match (shared, own) {
            _ if *off == Some(true) => None,
            (Some((name, bytes)), _) => Some(SessionCache::shared(name, *bytes)),
            (None, Some(count)) => Some(Arc::new(SessionCache::new(count.saturating_mul(SESSION_BYTES)))),
            (None, None) => None,
        };
        options.early_data = conf.early_data.0;
        if !conf.session_tickets.0 {
            return Ok(());
        }
        if options.early_data {
            options.cache.get_or_insert_with(SessionCache::of_process);
            if !conf.ticket_keys.is_empty() {
                self.warn_once(
                    "\"ssl_session_ticket_key\" has no effect with \"ssl_early_data\": sessions are kept here, each \
                     for one use"
                        .to_owned(),
                    None,
                );
            }
        }
        let mut files = Vec::new();
        for name in conf.ticket_keys.iter() {
            let path = self.build.conf_path(name.as_ref());
            let span = conf.ticket_keys.span;
            match self.build.files.read(path.as_ref()) {
                Ok(text) if matches!(text.len(), 48 | 80) => files.push(text.to_vec()),
                Err(error) if error.errno != IS_A_DIRECTORY => {
                    let text = format!("open() \"{path}\" failed ({}: {})", error.errno, error.message);
                    return self.refuse_at(text, span, None);
                }
                _ => {
                    let help = "make one with \"openssl rand 80\"".to_owned();
                    return self.refuse_at(format!("\"{path}\" must be 48 or 80 bytes"), span, Some(help));
                }
            }
        }
        options.tickets = match files.is_empty() {
            true => Some(TicketKeys::own(seconds)),
            false => TicketKeys::given(&files),
        };
        Ok(())
    }
}
