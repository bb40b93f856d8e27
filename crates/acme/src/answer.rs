//! What issuers answer (RFC 8555 section 7.1, RFC 9773 section 4.2). Whatever is missing or of another type than it should
//! be makes the answer unreadable; nothing in it can do more.

use crate::{Problem, Url};
use serde_json::Value;

/// How many authorizations of an order, challenges of an authorization and profiles are looked at.
const LIST_MAX: usize = 512;
/// No token is longer, bytes.
const TOKEN_BYTES_MAX: usize = 256;

/// The addresses of an issuer's resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Gives nonces.
    pub new_nonce: Url,
    /// Makes accounts.
    pub new_account: Url,
    /// Takes orders.
    pub new_order: Url,
    /// Says when certificates are to be renewed (RFC 9773).
    pub renewal_info: Option<Url>,
    /// Where the terms of service are.
    pub terms_of_service: Option<String>,
    /// Are accounts bound to external ones?
    pub needs_external_account: bool,
    /// Names of the profiles.
    pub profiles: Vec<String>,
}

/// How far an order, an authorization or a challenge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Something is to be done by us.
    Pending,
    /// The order can be finalized.
    Ready,
    /// The issuer is at work.
    Processing,
    /// Done.
    Valid,
    /// It will not come to anything: invalid, deactivated, expired, revoked.
    Over,
}

/// An order.
#[derive(Clone, Debug)]
pub struct Order {
    /// How far it is.
    pub status: Status,
    /// Where its authorizations are.
    pub authorizations: Vec<Url>,
    /// Where it is finalized.
    pub finalize: Url,
    /// Where its certificate is, once there is one.
    pub certificate: Option<Url>,
    /// Why it is over.
    pub error: Option<Problem>,
}

/// An authorization.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// How far it is.
    pub status: Status,
    /// The name or address.
    pub identifier: String,
    /// The ways to prove it.
    pub challenges: Vec<Challenge>,
}

/// A way to prove a name.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// `http-01` and the like.
    pub kind: String,
    /// Where to say that it is there to be looked at.
    pub url: Url,
    /// What is to be shown; letters, digits, `-` and `_` alone.
    pub token: String,
    /// Why it failed.
    pub error: Option<Problem>,
}

/// When a certificate should be renewed, seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// From then on.
    pub start: i64,
    /// Until then.
    pub end: i64,
}

/// Reads JSON; `None` where it is none.
pub fn json(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok()
}

impl Directory {
    /// Reads the directory that was found at `from`.
    pub fn read(body: &[u8], from: &Url) -> Option<Directory> {
        let value = json(body)?;
        let meta = value.get("meta");
        let meta = |name: &str| meta.and_then(|meta| meta.get(name));
        let profiles = meta("profiles").and_then(Value::as_object);
        Some(Directory {
            new_nonce: url(value.get("newNonce"), from)?,
            new_account: url(value.get("newAccount"), from)?,
            new_order: url(value.get("newOrder"), from)?,
            renewal_info: url(value.get("renewalInfo"), from),
            terms_of_service: meta("termsOfService").and_then(Value::as_str).map(str::to_owned),
            needs_external_account: meta("externalAccountRequired").and_then(Value::as_bool) == Some(true),
            profiles: profiles.into_iter().flatten().take(LIST_MAX).map(|(name, _)| name.clone()).collect(),
        })
    }
}

impl Status {
    fn read(value: &Value) -> Option<Status> {
        Some(match value.get("status")?.as_str()? {
            "pending" => Status::Pending,
            "ready" => Status::Ready,
            "processing" => Status::Processing,
            "valid" => Status::Valid,
            "invalid" | "deactivated" | "expired" | "revoked" => Status::Over,
            _ => return None,
        })
    }
}

impl Order {
    /// Reads an order that came from `from`.
    pub fn read(body: &[u8], from: &Url) -> Option<Order> {
        let value = json(body)?;
        let authorizations = value.get("authorizations")?.as_array()?.iter().take(LIST_MAX);
        Some(Order {
            status: Status::read(&value)?,
            authorizations: authorizations.map(|one| url(Some(one), from)).collect::<Option<_>>()?,
            finalize: url(value.get("finalize"), from)?,
            certificate: url(value.get("certificate"), from),
            error: value.get("error").and_then(Problem::of),
        })
    }
}

impl Authorization {
    /// Reads an authorization that came from `from`.
    pub fn read(body: &[u8], from: &Url) -> Option<Authorization> {
        let value = json(body)?;
        let challenges = value.get("challenges")?.as_array()?.iter().take(LIST_MAX);
        Some(Authorization {
            status: Status::read(&value)?,
            identifier: value.pointer("/identifier/value")?.as_str()?.to_owned(),
            // One that cannot be read is of a kind that is not known.
            challenges: challenges.filter_map(|one| Challenge::read(one, from)).collect(),
        })
    }
}

impl Challenge {
    fn read(value: &Value, from: &Url) -> Option<Challenge> {
        let token = value.get("token")?.as_str()?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(is_plain) {
            return None;
        }
        Some(Challenge {
            kind: value.get("type")?.as_str()?.to_owned(),
            url: url(value.get("url"), from)?,
            token: token.to_owned(),
            error: value.get("error").and_then(Problem::of),
        })
    }
}

impl Window {
    /// Reads renewal information; a window that ends before it begins is none (RFC 9773 section 4.2).
    pub fn read(body: &[u8]) -> Option<Window> {
        let value = json(body)?;
        let time = |name: &str| time(value.pointer(&format!("/suggestedWindow/{name}"))?.as_str()?);
        let window = Window { start: time("start")?, end: time("end")? };
        (window.start < window.end).then_some(window)
    }
}

fn url(value: Option<&Value>, from: &Url) -> Option<Url> {
    from.resolve(value?.as_str()?)
}

/// How long to wait as a `Retry-After` field says it: seconds, or a date (RFC 9110 section 10.2.3).
pub fn retry_after_seconds(value: &[u8], now: i64) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(seconds),
        Err(_) => u64::try_from(http::date::parse_http(text.as_bytes())? - now).ok(),
    }
}

/// The addresses of a `Link` field whose relation is `alternate` (RFC 8288): further chains of a certificate.
pub fn alternates(value: &str, from: &Url) -> Vec<Url> {
    let is_alternate = |parameters: &str| {
        parameters.trim_end_matches([',', ' ']).split(';').any(|parameter| {
            let (name, value) = parameter.trim().split_once('=').unwrap_or((parameter, ""));
            let value = value.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel")
                && value.split(' ').any(|word| word.eq_ignore_ascii_case("alternate"))
        })
    };
    let links = value.split('<').skip(1).filter_map(|link| link.split_once('>'));
    links.filter(|(_, rest)| is_alternate(rest)).filter_map(|(target, _)| from.resolve(target)).collect()
}

/// Seconds since 1970 of a time in RFC 3339's form.
fn time(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let marks = |places: &[(usize, &[u8])]| {
        places.iter().all(|(at, any)| text.as_bytes().get(*at).is_some_and(|byte| any.contains(byte)))
    };
    if !marks(&[(4, b"-"), (7, b"-"), (10, b"Tt "), (13, b":"), (16, b":")]) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    let offset = match zone.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), a, b, b':', c, d] if [a, b, c, d].iter().all(|byte| byte.is_ascii_digit()) => {
            let two = |tens: &u8, ones: &u8| i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
            let seconds = two(a, b) * 3600 + two(c, d) * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    // Days since 1970 by Howard Hinnant's "days_from_civil".
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Url {
        Url::parse("https://acme.test/dir").expect("an address")
    }

    #[test]
    fn directories() {
        let body = br#"{"newNonce":"https://acme.test/n","newAccount":"/a","newOrder":"https://acme.test/o",
            "meta":{"termsOfService":"https://acme.test/terms","profiles":{"short":"x"}}}"#;
        let directory = Directory::read(body, &base()).expect("it is whole");
        assert_eq!(directory.new_account.to_string(), "https://acme.test/a");
        assert_eq!((directory.renewal_info, directory.needs_external_account), (None, false));
        assert_eq!(directory.profiles, ["short"]);
        for body in [&b"{}"[..], b"", b"[]", b"null", b"{\"newNonce\":1}", b"\xff"] {
            assert_eq!(Directory::read(body, &base()), None);
        }
    }

    #[test]
    fn authorizations_keep_the_challenges_that_can_be_read() {
        let body = br#"{"status":"pending","identifier":{"type":"dns","value":"a.test"},"challenges":[
            {"type":"http-01","url":"https://acme.test/c","token":"abc-_1"},
            {"type":"http-01","url":"https://acme.test/c","token":"../../x"},
            {"type":"dns-account-01","url":"https://acme.test/d"},
            {"type":"tls-alpn-01","url":"https://acme.test/e","token":"t","error":{"type":"urn:ietf:params:acme:error:tls","detail":"no\n way"}}]}"#;
        let authorization = Authorization::read(body, &base()).expect("it is whole");
        let kinds: Vec<&str> = authorization.challenges.iter().map(|one| &*one.kind).collect();
        assert_eq!(kinds, ["http-01", "tls-alpn-01"]);
        let error = authorization.challenges[1].error.as_ref().map(ToString::to_string);
        assert_eq!(error.as_deref(), Some("tls: no  way"));
    }

    #[test]
    fn windows() {
        let of = |start: &str, end: &str| {
            Window::read(format!(r#"{{"suggestedWindow":{{"start":"{start}","end":"{end}"}}}}"#).as_bytes())
        };
        for (start, end, expected) in [
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z", Some((0, 1))),
            ("2025-01-02T04:00:00Z", "2025-01-03T04:00:00.5Z", Some((1_735_790_400, 1_735_876_800))),
            ("2024-02-29T23:59:59+01:00", "2024-03-01T00:00:00Z", Some((1_709_247_599, 1_709_251_200))),
            ("2025-01-03T04:00:00Z", "2025-01-02T04:00:00Z", None),
            ("2025-01-03T04:00:00Z", "2025-01-03T04:00:00Z", None),
            ("2025-13-03T04:00:00Z", "2026-01-03T04:00:00Z", None),
            ("2025-01-03", "2026-01-03T04:00:00Z", None),
            ("+025-01-03T04:00:00Z", "2026-01-03T04:00:00Z", None),
        ] {
            assert_eq!(of(start, end).map(|window| (window.start, window.end)), expected, "{start} {end}");
        }
    }

    #[test]
    fn pauses() {
        let now = 784_111_777;
        for (text, expected) in [
            ("120", Some(120)),
            (" 3 ", Some(3)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", None),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after_seconds(text.as_bytes(), now), expected, "{text}");
        }
    }

    #[test]
    fn links() {
        for (text, expected) in [
            ("<https://acme.test/1>;rel=\"alternate\"", vec!["https://acme.test/1"]),
            ("</1>; title=x; rel=alternate, </2>;rel=\"index\"", vec!["https://acme.test/1"]),
            ("<https://acme.test/dir>;rel=\"index\"", vec![]),
            ("nothing", vec![]),
        ] {
            let found: Vec<String> = alternates(text, &base()).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
