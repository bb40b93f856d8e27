//! A peer's certificate as variables show it.

use super::pem;
use super::x509::{Certificate, name_legacy, name_rfc2253, time_text};
use sha1::{Digest, Sha1};
use std::fmt::Write;

/// One certificate to be shown.
pub struct Shown<'a>(Certificate<'a>);

impl<'a> Shown<'a> {
    /// Reads a certificate; `None` where it is none.
    pub fn read(der: &'a [u8]) -> Option<Shown<'a>> {
        Certificate::parse(der).map(Shown)
    }

    /// PEM.
    pub fn pem(&self) -> String {
        pem::encode("CERTIFICATE", self.0.der)
    }

    /// The subject's name as RFC 2253 has it.
    pub fn subject(&self) -> String {
        name_rfc2253(self.0.subject)
    }

    /// The issuer's name as RFC 2253 has it.
    pub fn issuer(&self) -> String {
        name_rfc2253(self.0.issuer)
    }

    /// The subject's name with slashes.
    pub fn subject_legacy(&self) -> String {
        name_legacy(self.0.subject)
    }

    /// The issuer's name with slashes.
    pub fn issuer_legacy(&self) -> String {
        name_legacy(self.0.issuer)
    }

    /// The serial number in hexadecimal.
    pub fn serial(&self) -> String {
        let mut text = String::new();
        let number = match self.0.serial {
            [0, rest @ ..] if !rest.is_empty() => rest,
            whole => whole,
        };
        for byte in number {
            let _ = write!(text, "{byte:02X}");
        }
        text
    }

    /// SHA-1 of the certificate in hexadecimal.
    pub fn fingerprint(&self) -> String {
        let mut text = String::new();
        for byte in Sha1::digest(self.0.der) {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// When it begins, as OpenSSL prints it.
    pub fn starts(&self) -> String {
        time_text(self.0.validity[0]).unwrap_or_default()
    }

    /// When it ends, as OpenSSL prints it.
    pub fn ends(&self) -> String {
        time_text(self.0.validity[1]).unwrap_or_default()
    }

    /// How many whole days are left; 0 once it has ended.
    pub fn days_left(&self, now_seconds: i64) -> i64 {
        ((self.0.not_after - now_seconds) / 86_400).max(0)
    }
}
