//! Issuers that follow a script: they do what a good one does, but for what a test says otherwise.

use super::pebble::secure;
use super::server::Server;
use super::{run, text_of};
use http::authorization::{Base64, decode_base64};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// How much is sent by an issuer that never ends, bytes: more than any answer may have.
const ENDLESS_BYTES: usize = 2 << 20;

/// What an issuer was asked.
pub struct Asked {
    /// Which issuer: the first part of the path.
    pub issuer: String,
    /// What for: the second one.
    pub step: String,
    pub target: String,
    /// What was signed.
    pub payload: String,
}

/// How an issuer answers.
pub enum Answer {
    /// As one that works.
    Good,
    /// As one that works, but the certificate is for nobody.
    Nameless,
    /// With this head and body, then the connection is closed.
    Text(String),
    /// With bytes that do not end, in the head or behind it.
    Endless(&'static str),
}

/// Issuers that follow a script, by the first part of the path; each is asked for the certificate of `NAME.test`.
pub struct Issuers {
    pub base: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Issuers {
    /// Listens on a server's address. `answer` says what a request gets that a good issuer does not say.
    pub fn new(server: &Server, answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Issuers {
        let listener = TcpListener::bind(format!("{}:14000", server.host)).expect("the address is ours");
        let base = format!("http://{}:14000", server.host);
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let work =
            Arc::new(Work { base: base.clone(), folder: server.path("issuer"), nonces: Mutex::new(0) });
        std::fs::create_dir(&work.folder).expect("the folder is ours");
        let made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=Script"];
        run(&work.folder, "openssl", &[&made[..], &["-keyout", "ca.key", "-out", "ca.crt"]].concat());
        let (seen, answer) = (asked.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer, work) = (seen.clone(), answer.clone(), work.clone());
                std::thread::spawn(move || {
                    let Some(asked) = receive(&stream) else { return };
                    let said = answer(&asked);
                    let text = match said {
                        Answer::Good => work.good(&asked, &["-copy_extensions", "copyall"]),
                        Answer::Nameless => work.good(&asked, &[]),
                        Answer::Text(text) => text,
                        Answer::Endless(head) => format!("{head}{}", "x".repeat(ENDLESS_BYTES)),
                    };
                    seen.lock().expect("nobody panics with it").push(asked);
                    let _ = (&stream).write_all(text.as_bytes());
                });
            }
        });
        Issuers { base, asked }
    }

    /// The block of one of them, with a server that has its certificate.
    pub fn block(&self, name: &str, more: &str) -> String {
        let base = &self.base;
        let issuer = format!("acme_issuer {name} {{ uri {base}/{name}/dir; state_path {name}; {more} }}");
        let server = secure(&format!("{name}.test"), "", name);
        format!(
            "{issuer} {}\n",
            server.replace("acme_certificate pebble", &format!("acme_certificate {name}"))
        )
    }

    /// How often an issuer was asked for something.
    pub fn times(&self, issuer: &str, step: &str) -> usize {
        let asked = self.asked.lock().expect("nobody panics with it");
        asked.iter().filter(|one| one.issuer == issuer && one.step == step).count()
    }

    /// Where such requests went.
    pub fn targets(&self, issuer: &str, step: &str) -> Vec<String> {
        let asked = self.asked.lock().expect("nobody panics with it");
        let those = asked.iter().filter(|one| one.issuer == issuer && one.step == step);
        those.map(|one| one.target.clone()).collect()
    }

    /// What was signed in the last such request.
    pub fn payload(&self, issuer: &str, step: &str) -> String {
        let asked = self.asked.lock().expect("nobody panics with it");
        let last = asked.iter().rfind(|one| one.issuer == issuer && one.step == step);
        last.map(|one| one.payload.clone()).unwrap_or_default()
    }
}

/// What a good issuer needs to work.
struct Work {
    base: String,
    folder: PathBuf,
    nonces: Mutex<usize>,
}

impl Work {
    /// A nonce that was never given before.
    fn nonce(&self) -> String {
        let mut nonces = self.nonces.lock().expect("nobody panics with it");
        *nonces += 1;
        format!("Replay-Nonce: n{nonces}\r\n")
    }

    /// What a good issuer says. It believes everything at once.
    fn good(&self, asked: &Asked, extensions: &[&str]) -> String {
        let base = format!("{}/{}", self.base, asked.issuer);
        let name = format!("{}.test", asked.issuer);
        let order = |status: &str, more: &str| {
            format!(
                r#"{{"status":"{status}","identifiers":[{{"type":"dns","value":"{name}"}}],"authorizations":["{base}/authorization"],"finalize":"{base}/finalize"{more}}}"#
            )
        };
        let location = |step: &str| format!("{}Location: {base}/{step}\r\n", self.nonce());
        match &*asked.step {
            "dir" => answer(
                "200 OK",
                "",
                &format!(
                    r#"{{"newNonce":"{base}/nonce","newAccount":"{base}/account","newOrder":"{base}/new-order","meta":{{"profiles":{{"short":"x"}}}}}}"#
                ),
            ),
            "nonce" => answer("204 No Content", &self.nonce(), ""),
            "account" => answer("201 Created", &location("me"), r#"{"status":"valid"}"#),
            "new-order" => answer("201 Created", &location("order"), &order("pending", "")),
            "order" => answer("200 OK", &self.nonce(), &order("ready", "")),
            "authorization" => answer(
                "200 OK",
                &self.nonce(),
                &format!(
                    r#"{{"status":"valid","identifier":{{"type":"dns","value":"{name}"}},"challenges":[]}}"#
                ),
            ),
            "finalize" => {
                let certificate = self.certificate(&asked.issuer, &asked.payload, extensions);
                std::fs::write(self.folder.join(&name), certificate).expect("the folder is ours");
                let link = format!(r#","certificate":"{base}/certificate""#);
                answer("200 OK", &self.nonce(), &order("valid", &link))
            }
            "certificate" => answer("200 OK", &self.nonce(), &text_of(&self.folder.join(&name))),
            other => answer("404 Not Found", &self.nonce(), other),
        }
    }

    /// Signs a certificate request out of a payload.
    fn certificate(&self, issuer: &str, payload: &str, extensions: &[&str]) -> String {
        let request = payload.split('"').nth(3).unwrap_or_default();
        let request = decode_base64(request.as_bytes(), Base64::Url);
        let file = format!("{issuer}.csr");
        std::fs::write(self.folder.join(&file), request.expect("base64url")).expect("the folder is ours");
        let arguments = ["x509", "-req", "-inform", "DER", "-in", &file, "-CA", "ca.crt", "-CAkey", "ca.key"];
        let more = ["-days", "8", "-CAcreateserial"];
        let text = run(&self.folder, "openssl", &[&arguments[..], &more, extensions].concat());
        text[text.find("-----BEGIN").unwrap_or_else(|| panic!("{text}"))..].to_owned()
    }
}

/// Reads one request.
fn receive(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let target = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut field = String::new();
        reader.read_line(&mut field).ok()?;
        if field.trim().is_empty() {
            break;
        }
        if let Some(value) = field.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let payload = body.split_once(r#""payload":""#).and_then(|(_, rest)| rest.split('"').next());
    let payload = payload.and_then(|text| decode_base64(text.as_bytes(), Base64::Url));
    let mut parts = target.split('/').skip(1).map(str::to_owned);
    let (issuer, step) = (parts.next()?, parts.next().unwrap_or_default());
    let payload = String::from_utf8_lossy(&payload.unwrap_or_default()).into_owned();
    Some(Asked { issuer, step, target, payload })
}

/// An answer with a body.
pub fn answer(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{fields}\r\n{body}", body.len())
}

/// A problem (RFC 9457) of a kind that ACME knows.
pub fn problem(status: &str, fields: &str, kind: &str, detail: &str) -> Answer {
    let body = format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"{detail}"}}"#);
    Answer::Text(answer(status, fields, &body))
}
