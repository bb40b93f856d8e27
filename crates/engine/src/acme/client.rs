//! One conversation with an issuer (RFC 8555): directory, account, order, proofs, certificate.

use super::board::{self, Proof};
use super::transport::{Response, Transport};
use super::vault::{PROOF_PREFIX, Vault};
use super::{ChallengeKind, Issuer, Order, Profile, read_identity};
use acme::answer::{self, Authorization, Challenge, Directory, Status, Window, alternates};
use acme::request::{self, Signer};
use acme::{Identifier, Key, Problem, Url};
use net::thread::aside;
use net::timer::{Deadline, Timer};
use net::tls::Identity;
use std::fmt;
use std::time::Duration;

/// How often a request is made again whose nonce the issuer did not take (RFC 8555 section 6.5).
const NONCES_MAX: usize = 8;
/// How often a request is made again that did not get through.
const REPEATS_MAX: usize = 3;
/// How long is waited before.
const REPEAT_PAUSE: Duration = Duration::from_secs(1);
/// How long a proof, or a certificate, may take to be done.
const OUTCOME_TIME_MAX: Duration = Duration::from_secs(120);
/// How long is waited between two looks at it: at first, and at most where the issuer does not say.
const LOOK_PAUSE_SECONDS: std::ops::RangeInclusive<u64> = 1..=8;
/// At most where it does.
const LOOK_PAUSE_SECONDS_MAX: u64 = 60;
/// How many nonces are kept.
const NONCES_KEPT_MAX: usize = 16;
/// How many redirections of the directory are followed, and how many chains looked at.
const HOPS_MAX: usize = 8;

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The issuer cannot be spoken to.
    Unreachable(String),
    /// It refuses for now, until so many seconds have passed where it says so.
    RateLimited(Problem, Option<u64>),
    /// It refuses.
    Refused(Problem),
    /// What it says makes no sense, or cannot be done here.
    Other(String),
    /// This machine is at fault; the issuer has nothing to do for it.
    Local(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unreachable(why) | Failure::Other(why) | Failure::Local(why) => out.write_str(why),
            Failure::RateLimited(problem, _) | Failure::Refused(problem) => problem.fmt(out),
        }
    }
}

/// What came of an order, as PEM.
pub(super) struct Obtained {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// A conversation.
pub(super) struct Client<'a> {
    issuer: &'a Issuer,
    transport: &'a Transport,
    vault: &'a Vault,
    key: &'a Key,
    directory: Directory,
    account: Option<String>,
    nonces: Vec<String>,
}

/// Asks for the directory.
pub(super) async fn directory(issuer: &Issuer, transport: &Transport) -> Result<Directory, Failure> {
    let mut url = issuer.settings.url.clone();
    for _ in 0..HOPS_MAX {
        let response = transport.ask(issuer, &url, None).await.map_err(Failure::Unreachable)?;
        if response.status / 100 == 3
            && let Some(next) = response.field(b"Location").and_then(|location| url.resolve(location))
        {
            url = next;
            continue;
        }
        if !response.is_success() {
            return Err(refusal(&response, &url));
        }
        let unreadable = || Failure::Other(format!("{url} is no directory of an ACME server"));
        return Directory::read(&response.body, &url).ok_or_else(unreadable);
    }
    Err(Failure::Other(format!("{} leads from one address to the next", issuer.settings.url)))
}

/// Asks when a certificate should be renewed (RFC 9773); with the seconds after which to ask again, where the issuer
/// says them.
pub(super) async fn renewal_window(
    issuer: &Issuer,
    transport: &Transport,
    directory: &Directory,
    certificate: &str,
) -> Result<Option<(Window, Option<u64>)>, Failure> {
    let Some(base) = &directory.renewal_info else { return Ok(None) };
    let unreadable = || Failure::Other("the renewal information cannot be read".to_owned());
    let url = Url::parse(&format!("{}/{certificate}", base.to_string().trim_end_matches('/')));
    let url = url.ok_or_else(unreadable)?;
    let response = transport.ask(issuer, &url, None).await.map_err(Failure::Unreachable)?;
    if !response.is_success() {
        return Err(refusal(&response, &url));
    }
    let window = Window::read(&response.body).ok_or_else(unreadable)?;
    Ok(Some((window, response.retry_after_seconds())))
}

fn refusal(response: &Response, url: &Url) -> Failure {
    let problem = answer::json(&response.body).and_then(|body| Problem::of(&body));
    match problem {
        Some(problem) if problem.kind == "rateLimited" => {
            Failure::RateLimited(problem, response.retry_after_seconds())
        }
        Some(problem) if problem.kind == "serverInternal" => Failure::Unreachable(problem.to_string()),
        Some(problem) => Failure::Refused(problem),
        None if matches!(response.status, 429 | 503) => {
            let detail = format!("{url} answered with status {}", response.status);
            let problem = Problem { kind: "rateLimited".to_owned(), detail };
            Failure::RateLimited(problem, response.retry_after_seconds())
        }
        None => Failure::Unreachable(format!("{url} answered with status {}", response.status)),
    }
}

async fn pause(seconds: u64) {
    Timer::new().sleep(Deadline::after(Duration::from_secs(seconds))).await;
}

impl<'a> Client<'a> {
    /// A conversation with an issuer whose directory is known.
    pub(super) fn new(
        issuer: &'a Issuer,
        transport: &'a Transport,
        vault: &'a Vault,
        key: &'a Key,
        directory: Directory,
    ) -> Client<'a> {
        Client { issuer, transport, vault, key, directory, account: None, nonces: Vec::new() }
    }

    /// Makes the account, or finds it. Returns its address.
    pub(super) async fn log_in(&mut self) -> Result<String, Failure> {
        let settings = &self.issuer.settings;
        if self.directory.needs_external_account && settings.external.is_none() {
            let why =
                "the issuer wants accounts to be bound to external ones: \"external_account_key\" is missing";
            return Err(Failure::Other(why.to_owned()));
        }
        let url = self.directory.new_account.clone();
        let (agrees, external) = (settings.agrees_to_terms, settings.external.as_ref());
        let payload = request::account(self.key, &settings.contacts, agrees, external, &url);
        let response = self.post(&url, &payload).await.map_err(|failure| match (failure, agrees) {
            (Failure::Refused(mut problem), false) if problem.may_be_about_terms() => {
                let terms = self.directory.terms_of_service.as_deref().unwrap_or("the issuer's pages");
                problem.detail.push_str(&format!(
                    "; perhaps because \"accept_terms_of_service\" is missing (the terms: {terms})"
                ));
                Failure::Refused(problem)
            }
            (failure, _) => failure,
        })?;
        let status = answer::json(&response.body);
        let status = status.as_ref().and_then(|body| body.get("status")?.as_str()).unwrap_or("valid");
        if status != "valid" {
            return Err(Failure::Other(format!("the account is {status}")));
        }
        let account = response.field(b"Location").and_then(|location| url.resolve(location));
        let account = account.ok_or_else(|| Failure::Other("the account has no address".to_owned()))?;
        let account = account.to_string();
        self.account = Some(account.clone());
        Ok(account)
    }

    /// Obtains a certificate, in place of the one of that name in renewal information where there is one.
    pub(super) async fn obtain(
        &mut self,
        order: &Order,
        replaces: Option<&str>,
    ) -> Result<Obtained, Failure> {
        let (url, mut placed) = self.place(order, replaces).await?;
        if matches!(placed.status, Status::Pending) {
            for authorization in std::mem::take(&mut placed.authorizations) {
                self.authorize(&authorization).await?;
            }
            placed = self.order_at(&url).await?.0;
        }
        if placed.status != Status::Ready {
            return Err(unexpected(&placed));
        }
        let has_common_name = self.issuer.settings.has_common_name;
        let (identifiers, kind) = (order.identifiers.clone(), order.key);
        // Keys of RSA take a while to make.
        let made =
            aside("keys", move || acme::certificate_request(&identifiers, kind, has_common_name)).await;
        let made = made.unwrap_or_else(|| Err("a panic".to_owned()));
        let (key, certificate_request) =
            made.map_err(|why| Failure::Other(format!("the certificate request failed ({why})")))?;
        let response = self.post(&placed.finalize.clone(), &request::finalize(&certificate_request)).await?;
        let mut wait = Wait::new();
        let mut retry_after = response.retry_after_seconds();
        placed = answer::Order::read(&response.body, &placed.finalize).ok_or_else(unreadable_order)?;
        while placed.status == Status::Processing && wait.goes_on(retry_after).await {
            (placed, retry_after) = self.order_at(&url).await?;
        }
        let Some(certificate) = placed.certificate.clone().filter(|_| placed.status == Status::Valid) else {
            return Err(unexpected(&placed));
        };
        Ok(Obtained { certificate: self.chain(&certificate, order, &key).await?, key })
    }

    /// Places an order: its address, and itself.
    async fn place(
        &mut self,
        order: &Order,
        replaces: Option<&str>,
    ) -> Result<(Url, answer::Order), Failure> {
        let profile = self.profile()?;
        let url = self.directory.new_order.clone();
        let payload = request::order(&order.identifiers, profile.as_deref(), replaces);
        let response = match self.post(&url, &payload).await {
            // It may be the certificate to be replaced that it does not like (RFC 9773 section 5).
            Err(Failure::Refused(problem))
                if replaces.is_some()
                    && matches!(&*problem.kind, "alreadyReplaced" | "malformed" | "unauthorized") =>
            {
                self.post(&url, &request::order(&order.identifiers, profile.as_deref(), None)).await?
            }
            other => other?,
        };
        let placed = answer::Order::read(&response.body, &url).ok_or_else(unreadable_order)?;
        let address = response.field(b"Location").and_then(|location| url.resolve(location));
        Ok((address.ok_or_else(|| Failure::Other("the order has no address".to_owned()))?, placed))
    }

    /// The profile to ask for.
    fn profile(&self) -> Result<Option<String>, Failure> {
        let Some(Profile { name, is_required }) = &self.issuer.settings.profile else { return Ok(None) };
        match self.directory.profiles.iter().any(|known| known == name) || *is_required {
            true if !self.directory.profiles.iter().any(|known| known == name) => {
                Err(Failure::Other(format!("the issuer has no profile \"{name}\"")))
            }
            true => Ok(Some(name.clone())),
            false => Ok(None),
        }
    }

    async fn order_at(&mut self, url: &Url) -> Result<(answer::Order, Option<u64>), Failure> {
        let response = self.post(url, "").await?;
        let order = answer::Order::read(&response.body, url).ok_or_else(unreadable_order)?;
        Ok((order, response.retry_after_seconds()))
    }

    async fn authorization_at(&mut self, url: &Url) -> Result<(Authorization, Option<u64>), Failure> {
        let response = self.post(url, "").await?;
        let unreadable = || Failure::Other("the authorization cannot be read".to_owned());
        let authorization = Authorization::read(&response.body, url).ok_or_else(unreadable)?;
        Ok((authorization, response.retry_after_seconds()))
    }

    /// Proves one name.
    async fn authorize(&mut self, url: &Url) -> Result<(), Failure> {
        let (authorization, _) = self.authorization_at(url).await?;
        let name = authorization.identifier.clone();
        match authorization.status {
            Status::Valid => return Ok(()),
            Status::Pending => {}
            _ => return Err(Failure::Other(format!("the authorization of {name} is over"))),
        }
        let kind = self.issuer.settings.challenge;
        let challenge = authorization.challenges.iter().find(|challenge| challenge.kind == kind.name());
        let Some(challenge) = challenge else {
            return Err(Failure::Other(format!("the issuer takes no {} for {name}", kind.name())));
        };
        let _proof = self.show(kind, &name, challenge)?;
        let file = format!("{PROOF_PREFIX}{}", challenge.token);
        let folder = self.issuer.state_path.as_deref().filter(|_| kind == ChallengeKind::Http01);
        if let Some(folder) = folder {
            let text = self.key.authorization(&challenge.token).into_bytes();
            // It is for the others who share the folder; here the proof is shown already.
            let _ = self.vault.write(folder, vec![(file.clone(), text)]).await;
        }
        let outcome = self.prove(url, &authorization, challenge).await;
        if let Some(folder) = folder {
            // One that stays behind proves nothing any more.
            let _ = self.vault.write(folder, vec![(file, Vec::new())]).await;
        }
        outcome
    }

    /// Has the issuer look at a proof that is shown, and waits for what it says.
    async fn prove(
        &mut self,
        url: &Url,
        authorization: &Authorization,
        challenge: &Challenge,
    ) -> Result<(), Failure> {
        let (kind, name) = (self.issuer.settings.challenge, &authorization.identifier);
        self.post(&challenge.url.clone(), "{}").await?;
        let mut wait = Wait::new();
        let mut retry_after = None;
        let mut latest = authorization.clone();
        while latest.status == Status::Pending && wait.goes_on(retry_after).await {
            (latest, retry_after) = self.authorization_at(url).await?;
        }
        if latest.status == Status::Valid {
            return Ok(());
        }
        let failed = latest.challenges.iter().find(|challenge| challenge.kind == kind.name());
        match failed.and_then(|challenge| challenge.error.clone()) {
            Some(Problem { kind: of, detail }) => {
                let detail = format!("{} for {name}: {detail}", kind.name());
                Err(Failure::Refused(Problem { kind: of, detail }))
            }
            None => Err(Failure::Other(format!("{} for {name} did not come to an end", kind.name()))),
        }
    }

    /// Shows what the issuer will look for.
    fn show(&self, kind: ChallengeKind, name: &str, challenge: &Challenge) -> Result<Proof, Failure> {
        let text = self.key.authorization(&challenge.token);
        match kind {
            ChallengeKind::Http01 => {
                let shown = board::show_page(&challenge.token, text);
                shown.ok_or_else(|| Failure::Other("too many challenges are under way".to_owned()))
            }
            ChallengeKind::TlsAlpn01 => {
                let identifier = Identifier::parse(name).ok().and_then(|mut parsed| parsed.pop());
                let identifier = identifier.unwrap_or_else(|| Identifier::Dns(name.to_owned()));
                let made = acme::challenge_certificate(&identifier, &text);
                let shown = made.and_then(|(certificate, key)| {
                    board::show_handshake(&identifier.tls_name(), &certificate, &key)
                });
                shown.map_err(Failure::Other)
            }
        }
    }

    /// The certificate with its chain: the issuer's first one, or the one under the root that is wanted.
    async fn chain(&mut self, url: &Url, order: &Order, key: &str) -> Result<String, Failure> {
        let response = self.post(url, "").await?;
        let first = pem_of(&response)?;
        let identity = usable(order, &first, key)?;
        let Some(wanted) = self.issuer.settings.preferred_chain.clone() else { return Ok(first) };
        if identity.is_rooted_in(wanted.as_bytes()) {
            return Ok(first);
        }
        let links: Vec<Url> = response
            .fields
            .all(b"Link")
            .filter_map(|link| std::str::from_utf8(link).ok())
            .flat_map(|link| alternates(link, url))
            .take(HOPS_MAX)
            .collect();
        for link in links {
            let other = pem_of(&self.post(&link, "").await?)?;
            if usable(order, &other, key)?.is_rooted_in(wanted.as_bytes()) {
                return Ok(other);
            }
        }
        Ok(first)
    }

    /// Sends a signed request.
    async fn post(&mut self, url: &Url, payload: &str) -> Result<Response, Failure> {
        let mut repeats = 0;
        let mut nonces = 0;
        loop {
            let nonce = match self.nonces.pop() {
                Some(nonce) => nonce,
                None => self.nonce().await?,
            };
            let account = self.account.clone();
            let signer = account.as_deref().map_or(Signer::Key, Signer::Account);
            let body = request::signed(self.key, signer, &nonce, url, payload).map_err(Failure::Other)?;
            let response = match self.transport.ask(self.issuer, url, Some(&body)).await {
                Ok(response) => response,
                Err(_) if repeats < REPEATS_MAX => {
                    repeats += 1;
                    Timer::new().sleep(Deadline::after(REPEAT_PAUSE)).await;
                    continue;
                }
                Err(why) => return Err(Failure::Unreachable(why)),
            };
            self.keep_nonce(&response);
            if response.is_success() {
                return Ok(response);
            }
            match refusal(&response, url) {
                Failure::Refused(problem) if problem.kind == "badNonce" && nonces < NONCES_MAX => nonces += 1,
                failure => return Err(failure),
            }
        }
    }

    async fn nonce(&mut self) -> Result<String, Failure> {
        let url = self.directory.new_nonce.clone();
        let response = self.transport.ask(self.issuer, &url, None).await.map_err(Failure::Unreachable)?;
        if !response.is_success() {
            return Err(refusal(&response, &url));
        }
        let nonce = response.field(b"Replay-Nonce").map(str::to_owned);
        nonce.ok_or_else(|| Failure::Other("the issuer gives no nonce".to_owned()))
    }

    fn keep_nonce(&mut self, response: &Response) {
        if self.nonces.len() < NONCES_KEPT_MAX {
            self.nonces.extend(response.field(b"Replay-Nonce").map(str::to_owned));
        }
    }
}

fn pem_of(response: &Response) -> Result<String, Failure> {
    let text = String::from_utf8(response.body.clone());
    text.map_err(|_| Failure::Other("the issuer's certificate cannot be used (it is no text)".to_owned()))
}

/// The certificate, where it can be shown: with this key, for all that was asked for, not over yet.
fn usable(order: &Order, text: &str, key: &str) -> Result<Identity, Failure> {
    let unusable = |why: String| Failure::Other(format!("the issuer's certificate cannot be used ({why})"));
    let identity = read_identity(text.as_bytes(), key.as_bytes()).map_err(unusable)?;
    if let Some(other) = order.identifiers.iter().find(|wanted| !identity.is_for(wanted.value())) {
        return Err(unusable(format!("it is not for {other}")));
    }
    match identity.validity() {
        Some((_, end)) if end < net::clock::wall().seconds => Err(unusable("it is over already".to_owned())),
        _ => Ok(identity),
    }
}

fn unreadable_order() -> Failure {
    Failure::Other("the order cannot be read".to_owned())
}

/// An order that is not what it should be by now.
fn unexpected(order: &answer::Order) -> Failure {
    match &order.error {
        Some(problem) => Failure::Refused(problem.clone()),
        None => Failure::Other(format!("the order is {:?}", order.status).to_lowercase()),
    }
}

/// Looking at something again and again, at growing distances.
struct Wait {
    seconds: u64,
    end: Deadline,
}

impl Wait {
    fn new() -> Wait {
        Wait { seconds: *LOOK_PAUSE_SECONDS.start(), end: Deadline::after(OUTCOME_TIME_MAX) }
    }

    /// Waits, as long as the issuer says or longer each time. False where it takes too long by now.
    async fn goes_on(&mut self, retry_after: Option<u64>) -> bool {
        if self.end.has_passed() {
            return false;
        }
        pause(retry_after.unwrap_or(self.seconds).clamp(1, LOOK_PAUSE_SECONDS_MAX)).await;
        self.seconds = (self.seconds * 2).min(*LOOK_PAUSE_SECONDS.end());
        true
    }
}
