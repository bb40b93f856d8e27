//! OCSP (RFC 6960): asking whether a certificate was taken back, and reading the answer. Nothing here talks to anybody.

use super::der::{Der, small_number, tag, time, whole_bits};
use super::verify::{Trust, is_signed_by, public_key, signature_fits};
use super::x509::Certificate;
use sha1::{Digest, Sha1};

const ENUMERATED: u8 = 0x0a;
/// SHA-1 without parameters, as names and keys are digested in questions (RFC 5019 section 2.1.1).
const SHA1_ALGORITHM: &[u8] = &[tag::SEQUENCE, 9, tag::OID, 5, 0x2b, 14, 3, 2, 26, 5, 0];
const ID_PKIX_OCSP_BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
/// The purpose of certificates that an issuer lets answer in its place.
const OCSP_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 9];
/// How many certificates of an answer are looked at.
const SHOWN_MAX: usize = 4;
/// Clocks may differ by this much, seconds (nginx's).
const CLOCKS_DIFFER_SECONDS: i64 = 300;

/// A question about one certificate.
#[derive(Clone, Debug)]
pub struct Question {
    leaf: Vec<u8>,
    issuer: Vec<u8>,
}

/// What an answer says of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What its issuer thinks of it.
    pub status: Status,
    /// Until when that holds, seconds since 1970; none: there is something newer at any time.
    pub next_update: Option<i64>,
}

/// What an issuer thinks of a certificate (RFC 6960 section 2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// It was not taken back.
    Good,
    /// It was.
    Revoked,
    /// Whoever answers does not know it.
    #[default]
    Unknown,
}

impl Status {
    /// OpenSSL's word.
    pub fn word(self) -> &'static str {
        match self {
            Status::Good => "good",
            Status::Revoked => "revoked",
            Status::Unknown => "unknown",
        }
    }
}

/// Whose answers count.
#[derive(Clone, Copy)]
pub enum Signers<'a> {
    /// Anybody's whose certificate is in the answer: `ssl_stapling_verify off`, where clients judge for themselves.
    Anybody,
    /// The issuer's, and those whom it has appointed, unless one of these lists takes their appointment back.
    Issuer(&'a Trust),
}

impl Question {
    /// A question about the first of these certificates (DER), whose issuer is among the others.
    pub fn about<'a>(leaf: &[u8], others: impl Iterator<Item = &'a [u8]>) -> Option<Question> {
        let parsed = Certificate::parse(leaf)?;
        let mut issuers = others.filter(|der| {
            Certificate::parse(der)
                .is_some_and(|other| other.subject == parsed.issuer && is_signed_by(&parsed, &other))
        });
        Some(Question { leaf: leaf.to_vec(), issuer: issuers.next()?.to_vec() })
    }

    /// A question about a certificate (DER) and its issuer.
    pub fn of(leaf: &[u8], issuer: &[u8]) -> Question {
        Question { leaf: leaf.to_vec(), issuer: issuer.to_vec() }
    }

    /// Where the certificate says that answers are given.
    pub fn responders(leaf: &[u8]) -> Vec<String> {
        let found =
            Certificate::parse(leaf).map(|parsed| parsed.extensions.ocsp_responders).unwrap_or_default();
        found.into_iter().map(|url| String::from_utf8_lossy(url).into_owned()).collect()
    }

    /// The question as it is sent.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let id = self.certificate_id()?;
        // A CertID in a Request, in the list of requests, in a TBSRequest, in an OCSPRequest.
        Some((0..4).fold(id, |inner, _| wrap(tag::SEQUENCE, &inner)))
    }

    /// What names the certificate to whoever answers: its issuer's name and key, digested, and its number.
    pub fn certificate_id(&self) -> Option<Vec<u8>> {
        let (leaf, issuer) = (Certificate::parse(&self.leaf)?, Certificate::parse(&self.issuer)?);
        let (_, key) = public_key(issuer.public_key)?;
        let content = [
            SHA1_ALGORITHM.to_vec(),
            wrap(tag::OCTET_STRING, &Sha1::digest(issuer.subject_whole)),
            wrap(tag::OCTET_STRING, &Sha1::digest(key)),
            wrap(tag::INTEGER, leaf.serial),
        ];
        Some(wrap(tag::SEQUENCE, &content.concat()))
    }

    /// Reads an answer: it must be signed by somebody who counts, be of now, and speak of the certificate.
    ///
    /// # Errors
    /// As nginx logs them.
    pub fn read(&self, answer: &[u8], signers: Signers<'_>, now_seconds: i64) -> Result<Answer, String> {
        let malformed = || failed("d2i_OCSP_RESPONSE", "0688010A:asn1 encoding routines::nested asn1 error");
        let mut outer = Der(answer).inside(tag::SEQUENCE).ok_or_else(malformed)?;
        let status = outer.expect(ENUMERATED).and_then(small_number).ok_or_else(malformed)?;
        if status != 0 {
            return Err(format!("OCSP response not successful ({status}: {})", status_words(status)));
        }
        let mut read_basic = || {
            let mut bytes = outer.inside(tag::context(0))?.inside(tag::SEQUENCE)?;
            let kind = bytes.expect(tag::OID)?;
            let content = bytes.expect(tag::OCTET_STRING)?;
            (kind == ID_PKIX_OCSP_BASIC).then(|| Der(content).inside(tag::SEQUENCE)).flatten()
        };
        let not_basic = || failed("OCSP_response_get1_basic", "13800068:OCSP routines::not basic response");
        let mut basic = read_basic().ok_or_else(not_basic)?;
        let data = basic.optional(tag::SEQUENCE).ok_or_else(malformed)?;
        let algorithm = basic.expect(tag::SEQUENCE).ok_or_else(malformed)?;
        let signature = basic.expect(tag::BIT_STRING).and_then(whole_bits).ok_or_else(malformed)?;
        let shown: Vec<&[u8]> =
            match basic.inside(tag::context(0)).and_then(|mut list| list.inside(tag::SEQUENCE)) {
                Some(list) => list.map(|value| value.whole).take(SHOWN_MAX).collect(),
                None => Vec::new(),
            };
        let fits = |signer: &Certificate<'_>| signature_fits(data.whole, algorithm, signature, signer);
        if !self.is_signed(fits, &shown, signers, now_seconds) {
            return Err(failed("OCSP_basic_verify", "13800065:OCSP routines::certificate verify error"));
        }
        self.find(data.content, now_seconds)
    }

    /// Is there somebody who counts and whose key fits (RFC 6960 section 4.2.2.2)?
    fn is_signed(
        &self,
        fits: impl Fn(&Certificate<'_>) -> bool,
        shown: &[&[u8]],
        signers: Signers<'_>,
        now_seconds: i64,
    ) -> bool {
        let Some(issuer) = Certificate::parse(&self.issuer) else { return false };
        if fits(&issuer) {
            return true;
        }
        shown.iter().filter_map(|der| Certificate::parse(der)).any(|signer| match signers {
            Signers::Anybody => fits(&signer),
            Signers::Issuer(trust) => {
                let mut purposes = signer.extensions.purposes.iter().flatten();
                signer.issuer == issuer.subject
                    && purposes.any(|purpose| *purpose == OCSP_SIGNING)
                    && (signer.not_before..=signer.not_after).contains(&now_seconds)
                    && !signer.extensions.has_unknown_critical
                    && !trust.takes_back(&signer, &issuer)
                    && is_signed_by(&signer, &issuer)
                    && fits(&signer)
            }
        })
    }

    /// Looks for the certificate among those that the answer is about.
    fn find(&self, data: &[u8], now_seconds: i64) -> Result<Answer, String> {
        let not_found = || "certificate status not found in the OCSP response".to_owned();
        let own = self.certificate_id().ok_or_else(not_found)?;
        let own = Der(&own).inside(tag::SEQUENCE).and_then(id_parts).ok_or_else(not_found)?;
        let single = || {
            let mut parts = Der(data);
            let _version = parts.optional(tag::context(0));
            let _responder = parts.any()?;
            let _produced = parts.any()?;
            parts.inside(tag::SEQUENCE)?.map(|value| Der(value.content)).find_map(|mut single| {
                let id = single.inside(tag::SEQUENCE).and_then(id_parts)?;
                (id == own).then_some(single)
            })
        };
        let mut single = single().ok_or_else(not_found)?;
        let status = match single.any().ok_or_else(not_found)?.tag & 0x1f {
            0 => Status::Good,
            1 => Status::Revoked,
            _ => Status::Unknown,
        };
        let this_update = single.any().and_then(time).ok_or_else(not_found)?;
        // One that cannot be read is not the same as none.
        let next_update = match single.inside(tag::context(0)) {
            Some(mut next) => Some(next.any().and_then(time).ok_or_else(not_found)?),
            None => None,
        };
        let wrong = if this_update - CLOCKS_DIFFER_SECONDS > now_seconds {
            Some("1380007E:OCSP routines::status not yet valid")
        } else if next_update.is_some_and(|next| next + CLOCKS_DIFFER_SECONDS < now_seconds) {
            Some("1380007D:OCSP routines::status expired")
        } else if next_update.is_some_and(|next| next < this_update) {
            Some("1380007C:OCSP routines::nextupdate before thisupdate")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return Err(failed("OCSP_check_validity", wrong));
        }
        Ok(Answer { status, next_update })
    }
}

/// Is this the outer form of an answer, whatever it says?
pub fn is_response(answer: &[u8]) -> bool {
    let mut whole = Der(answer);
    let status = whole.inside(tag::SEQUENCE).and_then(|mut outer| outer.expect(ENUMERATED));
    status.is_some() && whole.is_empty()
}

/// That a function of OpenSSL's would have failed, and with which error.
fn failed(function: &str, error: &str) -> String {
    format!("{function}() failed (SSL: error:{error})")
}

/// What must be the same in two CertIDs; the algorithm may be written with or without parameters.
fn id_parts(mut id: Der<'_>) -> Option<[&[u8]; 4]> {
    let algorithm = id.inside(tag::SEQUENCE)?.expect(tag::OID)?;
    Some([algorithm, id.expect(tag::OCTET_STRING)?, id.expect(tag::OCTET_STRING)?, id.expect(tag::INTEGER)?])
}

fn status_words(status: u64) -> &'static str {
    match status {
        1 => "malformedrequest",
        2 => "internalerror",
        3 => "trylater",
        5 => "sigrequired",
        6 => "unauthorized",
        _ => "(UNKNOWN)",
    }
}

/// A value of this tag.
fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short @ 0..=0x7f) => out.push(short),
        Ok(byte) => out.extend([0x81, byte]),
        // Questions are a few hundred bytes long.
        Err(_) => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(content);
    out
}
