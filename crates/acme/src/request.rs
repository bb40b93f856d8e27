//! What issuers are told: payloads, and the signed form in which they travel (RFC 8555 section 6.2, RFC 7515).

use crate::{Identifier, Key, Url, base64url};
use aws_lc_rs::hmac;
use serde_json::{Map, Value, json};

/// Who signs: by the whole key until there is an account, by its address from then on.
#[derive(Clone, Copy, Debug)]
pub enum Signer<'a> {
    /// Nobody yet.
    Key,
    /// The account at this address.
    Account(&'a str),
}

/// The external account that a new one is bound to (RFC 8555 section 7.3.4).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ExternalAccount {
    /// The identifier that the issuer gave.
    pub identifier: String,
    /// The key that it gave.
    pub key: Vec<u8>,
}

/// A request, signed. An empty payload asks for what is there (POST-as-GET, section 6.3).
///
/// # Errors
/// The key does not sign.
pub fn signed(
    key: &Key,
    signer: Signer<'_>,
    nonce: &str,
    url: &Url,
    payload: &str,
) -> Result<String, String> {
    let url = url.to_string();
    let who = match signer {
        Signer::Key => format!(r#""jwk":{}"#, key.public()),
        Signer::Account(account) => format!(r#""kid":{}"#, Value::from(account)),
    };
    let (nonce, url) = (Value::from(nonce), Value::from(url));
    let protected = format!(r#"{{"alg":"{}",{who},"nonce":{nonce},"url":{url}}}"#, key.algorithm());
    let (protected, payload) = (base64url(protected.as_bytes()), base64url(payload.as_bytes()));
    let signature = key.sign(format!("{protected}.{payload}").as_bytes())?;
    Ok(flattened(&protected, &payload, &signature))
}

/// The form of RFC 7515 section 7.2.2.
fn flattened(protected: &str, payload: &str, signature: &[u8]) -> String {
    let signature = base64url(signature);
    format!(r#"{{"protected":"{protected}","payload":"{payload}","signature":"{signature}"}}"#)
}

/// The payload for a new account, or for the one that the key has already (section 7.3).
pub fn account(
    key: &Key,
    contacts: &[String],
    agrees_to_terms: bool,
    external: Option<&ExternalAccount>,
    new_account: &Url,
) -> String {
    let mut payload = Map::new();
    if !contacts.is_empty() {
        payload.insert("contact".to_owned(), json!(contacts));
    }
    if agrees_to_terms {
        payload.insert("termsOfServiceAgreed".to_owned(), json!(true));
    }
    let mut text = Value::Object(payload).to_string();
    if let Some(external) = external {
        text.pop();
        let separator = if text.len() > 1 { "," } else { "" };
        let bound = binding(key, external, new_account);
        text.push_str(&format!(r#"{separator}"externalAccountBinding":{bound}}}"#));
    }
    text
}

fn binding(key: &Key, external: &ExternalAccount, new_account: &Url) -> String {
    let protected =
        json!({ "alg": "HS256", "kid": external.identifier, "url": new_account.to_string() }).to_string();
    let (protected, payload) = (base64url(protected.as_bytes()), base64url(key.public().as_bytes()));
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &external.key);
    let signature = hmac::sign(&secret, format!("{protected}.{payload}").as_bytes());
    flattened(&protected, &payload, signature.as_ref())
}

/// The payload for a new order (section 7.4), under a profile, in place of an earlier certificate (RFC 9773 section 5).
pub fn order(identifiers: &[Identifier], profile: Option<&str>, replaces: Option<&str>) -> String {
    let list: Vec<Value> =
        identifiers.iter().map(|one| json!({ "type": one.kind(), "value": one.value() })).collect();
    let mut payload = Map::new();
    payload.insert("identifiers".to_owned(), Value::Array(list));
    if let Some(profile) = profile {
        payload.insert("profile".to_owned(), json!(profile));
    }
    if let Some(replaces) = replaces {
        payload.insert("replaces".to_owned(), json!(replaces));
    }
    Value::Object(payload).to_string()
}

/// The payload that asks for the certificate of an order that is ready.
pub fn finalize(certificate_request: &[u8]) -> String {
    format!(r#"{{"csr":"{}"}}"#, base64url(certificate_request))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyKind;

    fn key() -> Key {
        let pem = KeyKind::Ecdsa(256).make().expect("such keys are made");
        Key::read(pem.serialized_der()).expect("and read")
    }

    fn decoded(text: &Value) -> Value {
        let text = text.as_str().expect("a text");
        let bytes = http::authorization::decode_base64(text.as_bytes(), http::authorization::Base64::Url);
        serde_json::from_slice(&bytes.expect("base64url")).expect("JSON")
    }

    #[test]
    fn requests_say_who_asks_for_what() {
        let url = Url::parse("https://acme.test/order").expect("an address");
        for (signer, member) in [(Signer::Key, "jwk"), (Signer::Account("https://acme.test/\"1"), "kid")] {
            let text = signed(&key(), signer, "no\"nce", &url, "{}").expect("it is signed");
            let text: Value = serde_json::from_str(&text).expect("JSON");
            let protected = decoded(&text["protected"]);
            assert_eq!(protected["alg"], "ES256");
            assert_eq!(protected["nonce"], "no\"nce");
            assert_eq!(protected["url"], "https://acme.test/order");
            assert!(protected.get(member).is_some());
            assert_eq!(decoded(&text["payload"]), json!({}));
        }
    }

    #[test]
    fn accounts() {
        let url = Url::parse("https://acme.test/new").expect("an address");
        let bare: Value = serde_json::from_str(&account(&key(), &[], false, None, &url)).expect("JSON");
        assert_eq!(bare, json!({}));
        let external = ExternalAccount { identifier: "me".to_owned(), key: b"secret".to_vec() };
        for agrees in [false, true] {
            let text = account(&key(), &["mailto:a@b".to_owned()], agrees, Some(&external), &url);
            let value: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(value["contact"], json!(["mailto:a@b"]));
            assert_eq!(value.get("termsOfServiceAgreed").is_some(), agrees);
            let bound = &value["externalAccountBinding"];
            assert_eq!(decoded(&bound["protected"])["kid"], "me");
            assert_eq!(decoded(&bound["payload"])["kty"], "EC");
        }
        let text = account(&key(), &[], false, Some(&external), &url);
        assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
    }

    #[test]
    fn orders() {
        let identifiers = Identifier::parse(".a.test").expect("names");
        let value: Value =
            serde_json::from_str(&order(&identifiers, Some("short"), Some("x.y"))).expect("JSON");
        let list = json!([{ "type": "dns", "value": "www.a.test" }, { "type": "dns", "value": "a.test" }]);
        assert_eq!(value, json!({ "identifiers": list, "profile": "short", "replaces": "x.y" }));
    }
}
