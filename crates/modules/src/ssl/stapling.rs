//! `ssl_stapling`: which answers go out with certificates, and who is asked for them.

use super::Conf;
use super::settings::{ACME_CERTIFICATE, Maker, Reported};
use bstr::BString;
use conf::Level;
use engine::tls::ServerTls;
use engine::tls::responder::Responder;
use engine::tls::stapling::Stapling;
use net::tls::ocsp::Question;
use net::tls::{Identity, ServerOptions, Trust};
use std::sync::Arc;

impl Maker<'_> {
    /// Makes places for answers, and fills them where a file holds one.
    pub(super) fn staple(
        &mut self,
        conf: &Conf,
        options: &mut ServerOptions,
        tls: &mut ServerTls,
    ) -> Result<(), Reported> {
        if !conf.stapling.0 {
            return Ok(());
        }
        let file = self.stapling_file(conf)?;
        let trusted = match conf.trusted_certificate.is_empty() {
            true => Vec::new(),
            false => {
                let text = self.authorities(&conf.trusted_certificate, &mut Trust::default())?;
                Trust::certificates(&text)
            }
        };
        let names = conf.certificates.iter().filter(|name| *name != ACME_CERTIFICATE);
        for (identity, name) in options.identities.iter_mut().zip(names) {
            let (own, staple) = identity.clone().with_staple();
            *identity = own.clone();
            if let Some(answer) = &file {
                staple.put(&own, answer.clone(), i64::MAX);
                continue;
            }
            let name = self.build.conf_path(name.as_ref());
            let Some(question) = question(&own, &trusted) else {
                self.ignored(format!("issuer certificate not found for certificate \"{name}\""));
                continue;
            };
            let Some(responder) = self.responder(conf, &own, &name) else { continue };
            let verify = conf.stapling_verify.0.then(Trust::default);
            tls.staplings.push(Arc::new(Stapling {
                identity: own,
                staple,
                question,
                responder,
                verify,
                name,
            }));
        }
        Ok(())
    }

    fn stapling_file(&mut self, conf: &Conf) -> Result<Option<Vec<u8>>, Reported> {
        if conf.stapling_file.is_empty() {
            return Ok(None);
        }
        let path = self.build.conf_path(conf.stapling_file.as_ref());
        match self.build.files.read(path.as_ref()) {
            Ok(answer) if net::tls::ocsp::is_response(&answer) => Ok(Some(answer.to_vec())),
            Ok(answer) => {
                let why = match answer.is_empty() {
                    true => "",
                    false => " (SSL: error:0680008E:asn1 encoding routines::not enough data)",
                };
                self.refuse(format!("d2i_OCSP_RESPONSE_bio(\"{path}\") failed{why}"), None)
            }
            Err(error) => {
                let what = net::tls::open_failed(&path, error.errno, &error.message);
                let what = what.replacen(", r)", ", rb)", 1);
                self.refuse(what.replacen("BIO_new_file()", &format!("BIO_new_file(\"{path}\")"), 1), None)
            }
        }
    }

    /// Who is asked about a certificate; none, with a word about it: nobody can be.
    fn responder(&mut self, conf: &Conf, identity: &Identity, name: &BString) -> Option<Responder> {
        let given = (!conf.stapling_responder.is_empty()).then(|| conf.stapling_responder.to_string());
        let own =
            || identity.certificates().next().and_then(|leaf| Question::responders(leaf).into_iter().next());
        let Some(url) = given.or_else(own) else {
            self.ignored(format!("no OCSP responder URL in the certificate \"{name}\""));
            return None;
        };
        let parsed = Responder::parse(url.as_bytes());
        parsed.map_err(|why| self.ignored(format!("{why} in the certificate \"{name}\""))).ok()
    }

    fn ignored(&mut self, why: String) {
        self.report(Level::Warn, format!("\"ssl_stapling\" ignored, {why}"), None);
    }
}

fn question(identity: &Identity, trusted: &[Vec<u8>]) -> Option<Question> {
    let mut certificates = identity.certificates();
    let leaf = certificates.next()?;
    Question::about(leaf, certificates.chain(trusted.iter().map(|der| &der[..])))
}
