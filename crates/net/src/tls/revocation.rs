//! Lists of certificates that their issuers took back (RFC 5280 section 5.1).

use super::der::{Der, tag, time, whole_bits};
use super::pem;
use super::verify::signature_fits;
use super::x509::Certificate;

/// A revocation list: whose, when the next one is due, and the serial numbers on it.
#[derive(Debug)]
pub(crate) struct RevocationList {
    issuer: Vec<u8>,
    der: Vec<u8>,
    /// Seconds since 1970.
    pub(crate) next_update: Option<i64>,
    serials: Vec<Vec<u8>>,
}

impl RevocationList {
    /// All lists of a text, at least one.
    ///
    /// # Errors
    /// In OpenSSL's words.
    pub(crate) fn read_all(text: &[u8]) -> Result<Vec<RevocationList>, String> {
        let none = "PEM_read_bio_X509_CRL() failed (SSL: error:0480006C:PEM routines::no start line:Expecting: X509 CRL)";
        let sections = pem::sections(text);
        let lists = sections.into_iter().filter(|section| section.label == "X509 CRL");
        let lists: Option<Vec<RevocationList>> = lists.map(|section| Self::read(section.der?)).collect();
        match lists {
            Some(lists) if !lists.is_empty() => Ok(lists),
            _ => Err(none.to_owned()),
        }
    }

    fn read(der: Vec<u8>) -> Option<RevocationList> {
        let mut outer = Der(&der).inside(tag::SEQUENCE)?;
        let mut parts = outer.inside(tag::SEQUENCE)?;
        let _version = parts.optional(tag::INTEGER);
        parts.expect(tag::SEQUENCE)?;
        let issuer = parts.expect(tag::SEQUENCE)?.to_vec();
        let _this_update = parts.any()?;
        let is_time = matches!(parts.0.first(), Some(&(tag::UTC_TIME | tag::GENERALIZED_TIME)));
        let next_update = if is_time { time(parts.any()?) } else { None };
        let revoked = parts.inside(tag::SEQUENCE).into_iter().flatten();
        let serials = revoked.filter_map(|entry| Some(Der(entry.content).expect(tag::INTEGER)?.to_vec()));
        let serials = serials.collect();
        Some(RevocationList { issuer, next_update, serials, der })
    }

    /// Is the list signed by this issuer?
    pub(crate) fn is_of(&self, issuer: &Certificate<'_>) -> bool {
        let parts = || {
            let mut outer = Der(&self.der).inside(tag::SEQUENCE)?;
            let signed = outer.optional(tag::SEQUENCE)?.whole;
            Some((signed, outer.expect(tag::SEQUENCE)?, whole_bits(outer.expect(tag::BIT_STRING)?)?))
        };
        self.issuer == issuer.subject
            && parts().is_some_and(|(signed, algorithm, signature)| {
                signature_fits(signed, algorithm, signature, issuer)
            })
    }

    /// Is the certificate on it?
    pub(crate) fn names(&self, certificate: &Certificate<'_>) -> bool {
        self.serials.iter().any(|serial| serial == certificate.serial)
    }
}
