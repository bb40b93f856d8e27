//! What an issuer says when it refuses (RFC 8555 section 6.7, RFC 9457).

use serde_json::Value;
use std::fmt;

/// How much of an issuer's words goes into a log, bytes.
const DETAIL_BYTES_MAX: usize = 1024;
/// How many of the problems with single identifiers are told.
const SUBPROBLEMS_MAX: usize = 4;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its kind without `urn:ietf:params:acme:error:`, e.g. `rateLimited`.
    pub kind: String,
    /// What the issuer says to people.
    pub detail: String,
}

impl Problem {
    /// Reads a problem document, or the `error` of an object.
    pub fn of(value: &Value) -> Option<Problem> {
        let kind = value.get("type")?.as_str()?;
        let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind);
        let mut detail = value.get("detail").and_then(Value::as_str).unwrap_or_default().to_owned();
        let parts = value.get("subproblems").and_then(Value::as_array).into_iter().flatten();
        for part in parts.take(SUBPROBLEMS_MAX) {
            let text = |name: &str| part.get(name).and_then(Value::as_str).unwrap_or_default();
            let whose = part.pointer("/identifier/value").and_then(Value::as_str).unwrap_or_default();
            detail.push_str(&format!("; {whose}: {}", text("detail")));
        }
        // A page to read stands in `instance` where somebody must agree to new terms (section 7.3.3).
        if kind == "userActionRequired"
            && let Some(page) = value.get("instance").and_then(Value::as_str)
        {
            detail.push_str(&format!(" ({page})"));
        }
        Some(Problem { kind: printable(kind), detail: printable(&detail) })
    }

    /// May it be refused because nobody has agreed to the terms of service? Issuers call that differently.
    pub fn may_be_about_terms(&self) -> bool {
        matches!(&*self.kind, "agreementRequired" | "malformed" | "unauthorized" | "userActionRequired")
    }

    /// Is the request at fault, so that it would be refused again whenever it is made?
    pub fn is_lasting(&self) -> bool {
        matches!(
            &*self.kind,
            "badCSR"
                | "caa"
                | "invalidProfile"
                | "malformed"
                | "rejectedIdentifier"
                | "unsupportedIdentifier"
                | "accountDoesNotExist"
                | "badPublicKey"
                | "badSignatureAlgorithm"
                | "externalAccountRequired"
                | "invalidContact"
                | "unsupportedContact"
                | "userActionRequired"
        )
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.kind, self.detail)
    }
}

/// An issuer's words as a line of a log can carry them.
fn printable(text: &str) -> String {
    let mut out: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut end = out.len().min(DETAIL_BYTES_MAX);
    while !out.is_char_boundary(end) {
        end -= 1;
    }
    out.truncate(end);
    out
}
