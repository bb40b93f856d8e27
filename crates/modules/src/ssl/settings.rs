//! The TLS of a server out of its directives. Files are read here, by whoever may read them; failures are worded as
//! nginx words them, and say what to do.

use super::{Cache, CertificateCache, Command, Conf, TLS12, TLS13};
use crate::zones::{self, NamedZone};
use bstr::{BStr, BString, ByteSlice};
use conf::{Diagnostic, FileError, Level, Span};
use engine::tls::named::{Certificate, NamedCertificates, Pair, Reader};
use engine::tls::{ServerTls, VerifyClient};
use engine::{Build, Installer};
use net::tls::{
    CipherSuite, Identity, IdentityError, Issued, Oddity, ServerOptions, ServerSettings, SessionCache,
    TicketKeys, Trust, names,
};
use schema::{Places, Problem, Services};
use std::sync::Arc;
use template::Template;

/// What one session of `ssl_session_cache builtin` is reckoned at, bytes.
const SESSION_BYTES: usize = 256;
/// The variables that stand for a certificate from an issuer (`acme_certificate`) and for its key.
pub(super) const ACME_CERTIFICATE: &str = "$acme_certificate";
const ACME_CERTIFICATE_KEY: &str = "$acme_certificate_key";
/// The number of "no such file" (`ENOENT`).
const NO_ENTRY: i32 = 2;
/// The number of "permission denied" (`EACCES`).
const PERMISSION_DENIED: i32 = 13;
/// The number of "is a directory" (`EISDIR`).
const IS_A_DIRECTORY: i32 = 21;

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
        if certificates.is_empty() {
            return Ok(tls);
        }
        let mut options = ServerOptions::default();
        self.certificates(conf, issued, &mut options, &mut tls)?;
        options.compress_certificates = self.compression(conf, &tls)?;
        options.prefer_server_ciphers = conf.prefer_server_ciphers.0;
        self.protocols(conf, &mut options)?;
        self.sessions(conf, &mut options)?;
        self.commands(conf, &mut options)?;
        self.clients(conf, &mut options, &mut tls)?;
        self.vouching(conf, &mut tls)?;
        options.record_bytes_max = conf.buffer_size.0;
        options.alpn = vec![b"http/1.1".to_vec()];
        match ServerSettings::new(&options) {
            Ok(settings) => {
                tls.settings_http2 = Some(settings.with_protocols(&[b"h2", b"http/1.1"]));
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
                None => Certificate::Known(self.identity(certificate, key, &passwords)?),
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

    pub(super) fn passwords(&mut self, file: &BString) -> Result<Vec<Vec<u8>>, Reported> {
        if file.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.build.conf_path(file.as_ref());
        match self.build.files.read(path.as_ref()) {
            Ok(text) => Ok(text.lines().map(<[u8]>::to_vec).collect()),
            Err(error) => {
                let message = format!("open() \"{path}\" failed ({}: {})", error.errno, error.message);
                self.refuse(message, None)
            }
        }
    }

    /// A file's text, or what stands behind `data:`; with the name that messages use.
    pub(super) fn text(&mut self, name: &BString) -> (BString, Result<Vec<u8>, FileError>) {
        if let Some(data) = name.strip_prefix(b"data:") {
            return (name.clone(), Ok(data.to_vec()));
        }
        // The one kind of store there is here.
        let name = name.strip_prefix(b"store:file:").unwrap_or(name);
        let path = self.build.conf_path(name.into());
        let read = self.build.files.read(path.as_ref());
        (path, read)
    }

    pub(super) fn identity(
        &mut self,
        certificate: &BString,
        key: &BString,
        passwords: &[Vec<u8>],
    ) -> Result<Identity, Reported> {
        let (certificate, certificate_text) = self.text(certificate);
        let certificate_text = match certificate_text {
            Ok(text) => text,
            Err(error) => {
                let (what, help) = unreadable(&certificate, &error, "certificate");
                return self.refuse(format!("cannot load certificate \"{certificate}\": {what}"), help);
            }
        };
        let (key, key_text) = self.text(key);
        let key_text = match key_text {
            Ok(text) => text,
            Err(error) => {
                let (what, help) = unreadable(&key, &error, "key");
                return self.refuse(format!("cannot load certificate key \"{key}\": {what}"), help);
            }
        };
        match Identity::read(&certificate_text, &key_text, passwords) {
            Ok(identity) => {
                self.oddities(&certificate, &identity);
                Ok(identity)
            }
            Err(IdentityError::Certificate(what)) => {
                let help = match certificate_text.contains_str("PRIVATE KEY-----") {
                    true => "the file holds a key; has it changed places with the certificate's?",
                    false => {
                        "the file should begin with a certificate in PEM form: -----BEGIN CERTIFICATE-----"
                    }
                };
                let text = format!("cannot load certificate \"{certificate}\": {what}");
                self.refuse(text, Some(help.to_owned()))
            }
            Err(IdentityError::Key(what, help)) => {
                self.refuse(format!("cannot load certificate key \"{key}\": {what}"), help)
            }
            Err(IdentityError::Mismatch(owner)) => {
                let text = format!(
                    "SSL_CTX_use_PrivateKey(\"{key}\") failed (SSL: error:05800074:x509 certificate routines::key \
                     values mismatch)"
                );
                self.refuse(text, Some(mismatch(&certificate, owner)))
            }
        }
    }

    fn oddities(&mut self, certificate: &BString, identity: &Identity) {
        for oddity in identity.oddities(net::clock::wall().seconds) {
            let (text, help) = told(certificate, &oddity);
            self.warn_once(text, Some(help));
        }
    }

    fn protocols(&mut self, conf: &Conf, options: &mut ServerOptions) -> Result<(), Reported> {
        (options.tls12, options.tls13) = self.versions(conf.protocols.bits, "ssl_protocols")?;
        let list = conf.ciphers.to_str_lossy();
        self.ciphers(&list, "ssl_ciphers", options)?;
        self.curves(&conf.curves.to_str_lossy(), options)
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

    fn ciphers(&mut self, list: &str, directive: &str, options: &mut ServerOptions) -> Result<(), Reported> {
        options.ciphers = Some(self.cipher_list(list, directive, options.tls12)?);
        Ok(())
    }

    /// The ciphers of a list; one that leaves nothing is refused where TLS 1.2 is spoken.
    pub(super) fn cipher_list(
        &mut self,
        list: &str,
        directive: &str,
        tls12: bool,
    ) -> Result<Vec<CipherSuite>, Reported> {
        let selected = names::select_ciphers(list);
        for name in &selected.missing {
            self.warn_once(format!("the cipher {name} of \"{directive}\" is not available, ignored"), None);
        }
        if selected.found.is_empty() && tls12 {
            let text = format!(
                "SSL_CTX_set_cipher_list(\"{list}\") failed (SSL: error:0A0000B9:SSL routines::no cipher match)"
            );
            let help = "ciphers of TLS 1.2 that are available: ECDHE-ECDSA and ECDHE-RSA with AES128-GCM-SHA256, \
                        AES256-GCM-SHA384 or CHACHA20-POLY1305";
            return self.refuse(text, Some(help.to_owned()));
        }
        Ok(selected.found)
    }

    fn curves(&mut self, list: &str, options: &mut ServerOptions) -> Result<(), Reported> {
        if list == "auto" {
            return Ok(());
        }
        let failed = |list: &str| {
            format!(
                "SSL_CTX_set1_curves_list(\"{list}\") failed (SSL: error:0A080106:SSL routines::passed invalid argument)"
            )
        };
        let Some(selected) = names::select_groups(list) else { return self.refuse(failed(list), None) };
        for name in &selected.missing {
            self.warn_once(format!("the curve {name} is not available, ignored"), None);
        }
        if selected.found.is_empty() {
            let help = "available: X25519MLKEM768, X25519, prime256v1, secp384r1".to_owned();
            return self.refuse(failed(list), Some(help));
        }
        options.groups = Some(selected.found);
        Ok(())
    }

    fn commands(&mut self, conf: &Conf, options: &mut ServerOptions) -> Result<(), Reported> {
        for command in conf.commands.iter() {
            let (name, value) = (command.name.to_str_lossy(), command.value.to_str_lossy());
            match &*name.to_ascii_lowercase() {
                "ciphersuites" => {
                    options.tls13_ciphers = Some(self.tls13_ciphers(&value, options.tls13)?);
                }
                "certificate" | "privatekey" => {}
                "cipherstring" => self.ciphers(&value, "ssl_conf_command", options)?,
                "curves" | "groups" => self.curves(&value, options)?,
                "options" => self.options(&value, options),
                "minprotocol" => options.tls12 &= value != "TLSv1.3",
                "maxprotocol" => options.tls13 &= value == "TLSv1.3" || value == "None",
                _ => return self.refuse(failed_command(&name, &value), None),
            }
        }
        if let Some(identity) = self.commanded_identity(&conf.commands)? {
            // It takes the place of one with a key of the same kind, as in OpenSSL.
            options.identities.retain(|known| !known.has_key_like(&identity));
            options.identities.insert(0, identity);
        }
        Ok(())
    }

    /// The certificate that `Certificate` and `PrivateKey` among the commands name.
    pub(super) fn commanded_identity(&mut self, commands: &[Command]) -> Result<Option<Identity>, Reported> {
        let last = |name: &str| {
            let named = |command: &&Command| command.name.eq_ignore_ascii_case(name.as_bytes());
            commands.iter().rfind(named)
        };
        let Some(certificate) = last("Certificate") else { return Ok(None) };
        // Without a key of its own the certificate's file holds it.
        let key = last("PrivateKey").unwrap_or(certificate);
        self.identity(&certificate.value, &key.value, &[]).map(Some)
    }

    /// The ciphers of TLS 1.3 that a command names.
    fn tls13_ciphers(&mut self, list: &str, tls13: bool) -> Result<Vec<CipherSuite>, Reported> {
        let selected = names::select_tls13_ciphers(list);
        for missing in &selected.missing {
            self.warn_once(
                format!("the cipher {missing} of \"ssl_conf_command\" is not available, ignored"),
                None,
            );
        }
        if selected.found.is_empty() && tls13 {
            return self.refuse(failed_command("Ciphersuites", list), None);
        }
        Ok(selected.found)
    }

    /// `ssl_conf_command Options`: a list of switches, on or, with a minus, off.
    fn options(&mut self, list: &str, options: &mut ServerOptions) {
        for word in list.split(',').map(str::trim) {
            let (on, name) = word.strip_prefix('-').map_or((true, word), |name| (false, name));
            match name {
                "ServerPreference" => options.prefer_server_ciphers = on,
                "SessionTicket" if on => {
                    options.tickets.get_or_insert_with(|| TicketKeys::own(options.session_seconds));
                }
                "SessionTicket" => options.tickets = None,
                _ => self.warn_once(format!("the option {name} of \"ssl_conf_command\" has no effect"), None),
            }
        }
    }

    fn sessions(&mut self, conf: &Conf, options: &mut ServerOptions) -> Result<(), Reported> {
        let seconds = u32::try_from(conf.session_timeout.0).unwrap_or(u32::MAX);
        options.session_seconds = seconds;
        let Cache { off, own, shared } = &*conf.session_cache;
        if let Some(zone) = shared {
            self.declare("ssl_session_cache", zone, conf.session_cache.span)?;
        }
        options.cache = match (shared, own) {
            _ if *off => None,
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
            match self.build.files.read(path.as_ref()) {
                Ok(text) if matches!(text.len(), 48 | 80) => files.push(text),
                Ok(_) => {
                    let help = "make one with \"openssl rand 80\"".to_owned();
                    return self.refuse(format!("\"{path}\" must be 48 or 80 bytes"), Some(help));
                }
                Err(error) => {
                    let text = format!("open() \"{path}\" failed ({}: {})", error.errno, error.message);
                    return self.refuse(text, None);
                }
            }
        }
        options.tickets = match files.is_empty() {
            true => Some(TicketKeys::own(seconds)),
            false => TicketKeys::given(&files),
        };
        Ok(())
    }

    fn clients(
        &mut self,
        conf: &Conf,
        options: &mut ServerOptions,
        tls: &mut ServerTls,
    ) -> Result<(), Reported> {
        if tls.verify == VerifyClient::Off {
            return Ok(());
        }
        let (told, further) = (&*conf.client_certificate, &*conf.trusted_certificate);
        if told.is_empty() && further.is_empty() && tls.verify != VerifyClient::OptionalNoCa {
            let text = "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client";
            return self.refuse(text.to_owned(), None);
        }
        let depth = conf.verify_depth.0;
        let lists = match conf.crl.is_empty() {
            true => None,
            false => Some(self.trusted(&conf.crl)?),
        };
        let mut trust = Trust::in_nobody(depth);
        let mut authorities = Vec::new();
        for (name, is_told) in
            [(told, true), (further, false)].into_iter().filter(|(name, _)| !name.is_empty())
        {
            let text = self.trusted(name)?;
            if is_told {
                authorities = Trust::subjects(&text);
            }
            if let Err(what) = trust.add(&text) {
                let path = self.build.conf_path(name.as_ref());
                return self
                    .refuse(format!("SSL_CTX_load_verify_locations(\"{path}\") failed: {what}"), None);
            }
        }
        if let Some(lists) = lists
            && let Err(what) = trust.revoke(&lists)
        {
            let path = self.build.conf_path(conf.crl.as_ref());
            return self.refuse(format!("SSL_CTX_load_verify_locations(\"{path}\") failed: {what}"), None);
        }
        options.client_authorities = Some(authorities);
        tls.trust = Some(Arc::new(trust));
        Ok(())
    }

    /// A file with authorities or revocation lists.
    pub(super) fn trusted(&mut self, name: &BString) -> Result<Vec<u8>, Reported> {
        let (path, text) = self.text(name);
        match text {
            Ok(text) => Ok(text),
            Err(error) => {
                let (what, help) = unreadable(&path, &error, "certificates");
                self.refuse(format!("SSL_CTX_load_verify_locations(\"{path}\") failed: {what}"), help)
            }
        }
    }
}

fn failed_command(name: &str, value: &str) -> String {
    format!("SSL_CONF_cmd(\"{name}\", \"{value}\") failed")
}

/// What is odd about a certificate, and what to do about it.
fn told(certificate: &BString, odd: &Oddity) -> (String, String) {
    match odd {
        Oddity::Expired(when) => (
            format!("certificate \"{certificate}\" expired on {when}"),
            "clients refuse it: have it renewed, put the new one in its place, and reload".to_owned(),
        ),
        Oddity::NotYetValid(when) => (
            format!("certificate \"{certificate}\" is not valid before {when}"),
            "clients refuse it until then; if that time has come, the clock of this machine is wrong"
                .to_owned(),
        ),
        Oddity::WrongOrder(number) => (
            format!(
                "certificates in \"{certificate}\" are not in order: each should be followed by that of \
                 its issuer"
            ),
            format!("number {number} in the file is not that of the issuer of number {}", number - 1),
        ),
        Oddity::Incomplete(issuer, place) => (
            format!("certificate \"{certificate}\" comes without that of its issuer, \"{issuer}\""),
            format!(
                "most clients refuse it: name the file with the whole chain (often \"fullchain.pem\"), or add \
                 the issuer's certificate behind this one (it is at {place}, perhaps in DER form)"
            ),
        ),
    }
}

/// What to do about a key that is not that of the first certificate in a file.
fn mismatch(certificate: &BString, owner: Option<usize>) -> String {
    match owner {
        Some(number) => format!(
            "the key is that of certificate {number} in \"{certificate}\", which must be the first: the server's own, \
             then that of its issuer, and so on"
        ),
        None => format!(
            "the key is not that of the certificate in \"{certificate}\"; the two are made together: do both files have \
             the same name, and are they of the same day?"
        ),
    }
}

/// A file that cannot be read, in OpenSSL's words, and what to do.
fn unreadable(path: &BString, error: &FileError, what: &str) -> (String, Option<String>) {
    let number = error.errno;
    let text = net::tls::open_failed(path, number, &error.message);
    let path = BStr::new(path);
    let help = match number {
        PERMISSION_DENIED => format!(
            "whoever starts the server must be able to read the {what}: start it as root, whose master process reads it \
             (workers need not), or let this user read \"{path}\" and enter its folders"
        ),
        IS_A_DIRECTORY => format!("\"{path}\" is a folder; the {what} is a file in it"),
        NO_ENTRY => {
            format!("there is no \"{path}\"; relative names begin at the folder of the configuration")
        }
        _ => return (text, None),
    };
    (text, Some(help))
}
