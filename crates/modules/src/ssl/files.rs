//! Files that TLS is made of: certificates and keys, passwords, authorities, revocation lists. They are read by whoever
//! may read them; failures are worded as nginx words them, and say what to do.

use super::Conf;
use super::settings::{Maker, Reported};
use bstr::{BStr, BString, ByteSlice};
use conf::{Diagnostic, FileError, Span};
use engine::tls::{ServerTls, VerifyClient};
use net::tls::{Identity, IdentityError, Oddity, ServerOptions, Trust};
use schema::Inherit;
use std::sync::Arc;

/// The number of "no such file" (`ENOENT`).
const NO_ENTRY: i32 = 2;
/// The number of "permission denied" (`EACCES`).
const PERMISSION_DENIED: i32 = 13;
/// The number of "is a directory" (`EISDIR`).
const IS_A_DIRECTORY: i32 = 21;

/// A kind of file.
struct Kind {
    name: &'static str,
    /// What OpenSSL says of a file with nothing of the kind in it; it takes a folder for one.
    empty: &'static str,
}

const CERTIFICATE: Kind = Kind {
    name: "certificate",
    empty: "PEM_read_bio_X509_AUX() failed (SSL: error:0480006C:PEM routines::no start line:Expecting: \
            TRUSTED CERTIFICATE)",
};
const KEY: Kind = Kind {
    name: "key",
    empty: "PEM_read_bio_PrivateKey() failed (SSL: error:1E08010C:DECODER routines::unsupported:No supported data to \
            decode. Input type: PEM)",
};
const REVOCATION_LIST: Kind = Kind {
    name: "revocation list",
    empty: "PEM_read_bio_X509_CRL() failed (SSL: error:0480006C:PEM routines::no start line:Expecting: X509 CRL)",
};

impl Maker<'_> {
    /// The lines of a file with passwords; none where no file is named.
    pub(super) fn passwords(&mut self, file: &Inherit<BString>) -> Result<Vec<Vec<u8>>, Reported> {
        if file.is_empty() && file.span.is_none() {
            return Ok(Vec::new());
        }
        let path = self.build.conf_path(file.as_ref());
        match self.build.files.read(path.as_ref()) {
            // An empty file has one empty line: there is a password, and it is wrong.
            Ok(text) if text.is_empty() => Ok(vec![Vec::new()]),
            Ok(text) => Ok(text.lines().map(<[u8]>::to_vec).collect()),
            Err(error) => {
                let call = if error.errno == IS_A_DIRECTORY { "read" } else { "open" };
                let text = format!("{call}() \"{path}\" failed ({}: {})", error.errno, error.message);
                self.refuse_at(text, file.span, None)
            }
        }
    }

    /// Refuses what a directive names, with its place.
    pub(super) fn refuse_at<T>(
        &mut self,
        text: String,
        span: Option<Span>,
        help: Option<String>,
    ) -> Result<T, Reported> {
        let mut made = Diagnostic::emerg("tls", text);
        if let Some(span) = span {
            made = made.at(span);
        }
        if let Some(help) = help {
            made = made.help(help);
        }
        self.build.diagnostics.push(made);
        Err(Reported)
    }

    /// As [`Maker::text`], for a key, which OpenSSL's stores and engines may hold besides.
    fn key_text(&mut self, name: &BString) -> Result<(BString, Result<Vec<u8>, FileError>), Reported> {
        let failed = |what: &str| format!("cannot load certificate key \"{name}\": {what}");
        if let Some(engine) = name.strip_prefix(b"engine:") {
            if !engine.contains(&b':') {
                return self.refuse(failed("invalid syntax"), None);
            }
            let what = "ENGINE_by_id() failed (SSL: error:12800067:DSO support routines::could not load the shared \
                        library)";
            let help = "engines of OpenSSL are not available; keys come from files".to_owned();
            return self.refuse(failed(what), Some(help));
        }
        let Some(place) = name.strip_prefix(b"store:") else { return Ok(self.text(name)) };
        // The one kind of store there is here; a path without a scheme is one, too.
        let path = place.strip_prefix(b"file:").unwrap_or(place);
        if !path.starts_with(b"/") {
            let what = "OSSL_STORE_open() failed (SSL: error:16000069:STORE routines::unregistered scheme)";
            let help = "keys come from files: \"store:file:/path/of/the.key\", or the path alone".to_owned();
            return self.refuse(failed(what), Some(help));
        }
        let path = BString::from(path);
        let read = self.build.files.read(path.as_ref());
        Ok((path, read.map(|text| text.to_vec())))
    }

    /// A file's text, or what stands behind `data:`; with the name that messages use.
    pub(super) fn text(&mut self, name: &BString) -> (BString, Result<Vec<u8>, FileError>) {
        if let Some(data) = name.strip_prefix(b"data:") {
            return (name.clone(), Ok(data.to_vec()));
        }
        let path = self.build.conf_path(name.as_ref());
        let read = self.build.files.read(path.as_ref());
        (path, read.map(|text| text.to_vec()))
    }

    /// Reads a certificate and its key; none, with a warning: the key is of a kind that has nothing to do with it.
    pub(super) fn identity(
        &mut self,
        certificate: &BString,
        key: &BString,
        passwords: &[Vec<u8>],
    ) -> Result<Option<Identity>, Reported> {
        let (certificate, certificate_text) = self.text(certificate);
        let certificate_text = match certificate_text {
            Ok(text) => text,
            Err(error) => {
                let (what, help) = unreadable(&certificate, &error, &CERTIFICATE);
                return self.refuse(format!("cannot load certificate \"{certificate}\": {what}"), help);
            }
        };
        let (key, key_text) = self.key_text(key)?;
        let key_text = match key_text {
            Ok(text) => text,
            Err(error) => {
                let (what, help) = unreadable(&key, &error, &KEY);
                return self.refuse(format!("cannot load certificate key \"{key}\": {what}"), help);
            }
        };
        match Identity::read(&certificate_text, &key_text, passwords) {
            Ok(identity) => {
                self.oddities(&certificate, &identity);
                Ok(Some(identity))
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
            Err(IdentityError::OtherKind) => {
                let text =
                    format!("the key \"{key}\" is of another kind than that of \"{certificate}\", ignored");
                let help = "handshakes cannot use this certificate; name its own key".to_owned();
                self.warn_once(text, Some(help));
                Ok(None)
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

    /// Whom client certificates must be known to. All files are read, whether clients are asked or not, as in nginx.
    pub(super) fn clients(
        &mut self,
        conf: &Conf,
        options: &mut ServerOptions,
        tls: &mut ServerTls,
    ) -> Result<(), Reported> {
        let (told, further) = (&*conf.client_certificate, &*conf.trusted_certificate);
        let is_asked = tls.verify != VerifyClient::Off;
        if is_asked && told.is_empty() && further.is_empty() && tls.verify != VerifyClient::OptionalNoCa {
            let text = "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client";
            return self.refuse(text.to_owned(), None);
        }
        let mut trust = Trust::in_nobody(conf.verify_depth.0);
        let mut authorities = Vec::new();
        if is_asked && !told.is_empty() {
            let text = self.authorities(told, &mut trust)?;
            authorities = Trust::subjects(&text);
        }
        if !further.is_empty() {
            self.authorities(further, &mut trust)?;
        }
        if !conf.crl.is_empty() {
            self.revocations(&conf.crl, &mut trust)?;
        }
        if is_asked {
            options.client_authorities = Some(authorities);
            tls.trust = Some(Arc::new(trust));
        }
        Ok(())
    }

    /// Adds the authorities of a file to those that are trusted; returns its text.
    pub(super) fn authorities(&mut self, name: &BString, trust: &mut Trust) -> Result<Vec<u8>, Reported> {
        let (path, text) = self.text(name);
        let added = match text {
            Ok(text) => trust.add(&text).map(|()| text).map_err(|what| (what, None)),
            Err(error) => Err(unreadable(&path, &error, &CERTIFICATE)),
        };
        added.or_else(|(what, help)| self.refuse(format!("cannot load certificate \"{path}\": {what}"), help))
    }

    /// Takes back what the revocation lists of a file take back.
    pub(super) fn revocations(&mut self, name: &BString, trust: &mut Trust) -> Result<(), Reported> {
        let (path, text) = self.text(name);
        let revoked = match text {
            Ok(text) => trust.revoke(&text).map_err(|what| (what, None)),
            Err(error) => Err(unreadable(&path, &error, &REVOCATION_LIST)),
        };
        revoked.or_else(|(what, help)| self.refuse(format!("cannot load CRL \"{path}\": {what}"), help))
    }
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
fn unreadable(path: &BString, error: &FileError, kind: &Kind) -> (String, Option<String>) {
    let number = error.errno;
    let text = match number {
        IS_A_DIRECTORY => kind.empty.to_owned(),
        _ => net::tls::open_failed(path, number, &error.message),
    };
    let what = kind.name;
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
