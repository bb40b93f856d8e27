//! `ssl_ocsp`: whether, whom and how issuers of client certificates are asked about them.

use super::settings::{Maker, Reported};
use super::{Conf, shared_cache};
use bstr::BString;
use conf::Node;
use engine::tls::responder::Responder;
use engine::tls::vouching::{AnswerCache, Vouching};
use engine::tls::{ServerTls, VerifyClient};
use schema::value::argument;
use schema::{Problem, Services, Value};

/// `ssl_ocsp`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ocsp {
    /// Nobody is asked.
    #[default]
    Off,
    /// About the whole chain.
    On,
    /// About the client's own certificate alone.
    Leaf,
}

schema::words!(Ocsp {
    "off" => Off,
    "on" => On,
    "leaf" => Leaf,
});

/// `ssl_ocsp_cache off | shared:name:size`, bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct AnswersKept(pub(super) Option<(BString, usize)>);

impl Value for AnswersKept {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        if word.text == "off" {
            return Ok(AnswersKept(None));
        }
        let invalid = || Problem::new(format!("invalid OCSP cache \"{}\"", word.text)).on(word);
        let text = word.text.strip_prefix(b"shared:").ok_or_else(invalid)?;
        Ok(AnswersKept(Some(shared_cache(text, word, "OCSP cache").ok_or_else(invalid)??)))
    }
}

impl Maker<'_> {
    /// Makes what is to be asked about client certificates.
    pub(super) fn vouching(&mut self, conf: &Conf, tls: &mut ServerTls) -> Result<(), Reported> {
        if *conf.ocsp == Ocsp::Off {
            return Ok(());
        }
        self.span = conf.ocsp.span;
        if tls.verify == VerifyClient::OptionalNoCa {
            let text = "\"ssl_ocsp\" is incompatible with \"ssl_verify_client optional_no_ca\"";
            return self.refuse(text.to_owned(), None);
        }
        let mut responder = None;
        if !conf.ocsp_responder.is_empty() {
            self.span = conf.ocsp_responder.span;
            match Responder::parse(&conf.ocsp_responder) {
                Ok(parsed) => responder = Some(parsed),
                Err(why) => return self.refuse(format!("{why} in \"ssl_ocsp_responder\""), None),
            }
        }
        let kept = conf.ocsp_cache.0.as_ref();
        tls.vouching = Some(Vouching {
            whole_chain: *conf.ocsp == Ocsp::On,
            responder,
            cache: kept.map(|(name, bytes_max)| AnswerCache::shared(name, *bytes_max)),
        });
        Ok(())
    }
}
