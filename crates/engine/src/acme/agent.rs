//! Looks after the certificates of all issuers: asks for those that are missing, renews those that end, waits longer and
//! longer where asking fails. Keys are made beside the thread, which serves as well.
//!
//! ```text
//! nothing there --> ask --> shown --> the issuer says when to renew, or its life does --> ask --> shown ...
//!                    |
//!                    `- failed: what is there stays; again after a pause that grows, also over reloads and restarts
//! ```

use super::board::{self, Seeker};
use super::client::{self, Client, Failure, Obtained};
use super::transport::Transport;
use super::vault::{ACCOUNT_KEY, ACCOUNT_URL, LOCK_SECONDS_MAX, PROOF_PREFIX, Vault, write_pause};
use super::{AccountKey, ChallengeKind, Issuer, Order, read_identity};
use crate::plan::Snapshot;
use crate::race::{First, race};
use crate::thread::{Process, Thread};
use acme::answer::Directory;
use acme::{Key, renewal_name};
use conf::Level;
use net::resolver::Resolver;
use net::thread::{Mailbox, aside, spawn_local};
use net::timer::{Deadline, Timer};
use net::tls::Identity;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long is waited where the issuer is not spoken to: at first, and at most.
const UNREACHABLE_PAUSE_SECONDS: (u64, u64) = (5, 3600);
/// How long is waited where it refuses. Issuers count failures by the hour.
const REFUSED_PAUSE_SECONDS: (u64, u64) = (60, 24 * 3600);
/// How long is waited where it says that it was asked too often, but not for how long.
const RATE_LIMITED_PAUSE_SECONDS: u64 = 3600;
/// No issuer's word holds longer.
const PAUSE_SECONDS_MAX: u64 = 7 * 24 * 3600;
/// How often the issuer is asked when to renew, where it does not say: RFC 9773 section 4.3.3.
const WINDOW_SECONDS: u64 = 6 * 3600;
/// At least, and at most, whatever it says.
const WINDOW_SECONDS_RANGE: std::ops::RangeInclusive<u64> = 60..=24 * 3600;
/// How long a proof is shown that another gateway has left, seconds: issuers ask from several places.
const FOUND_SECONDS: u64 = 30;
/// How long is waited between two looks for such, milliseconds.
const SEEK_PAUSE_MS: u64 = 10;
/// How long a directory is believed, milliseconds.
const DIRECTORY_MS: u64 = 300_000;
/// How often things are looked at when nothing is due.
const LOOK_SECONDS_MAX: i64 = 24 * 3600;
/// How often a lock that another gateway holds is tried.
const LOCK_PAUSE_SECONDS: u64 = 2;
/// How often a lock is renewed that we hold.
const LOCK_RENEWAL_SECONDS: u64 = LOCK_SECONDS_MAX as u64 / 4;
/// Certificates that live longer are renewed after two thirds of their life, others after half of it.
const SHORT_LIFE_SECONDS: i64 = 10 * 24 * 3600;

/// What the agent is told.
pub enum Command {
    /// This is the configuration from now on.
    Follow(Arc<Snapshot>),
    /// Begin nothing more.
    Stop,
}

/// The task of one issuer.
struct Charge {
    /// The issuer as the configuration has it now; none: it has it no more.
    issuer: RefCell<Option<Arc<Issuer>>>,
    changed: Notify,
}

/// Looks after the issuers of the configurations that it is told of, until told to stop.
pub async fn run(process: Arc<Process>, mut commands: Mailbox<Command>, vault: Vault) {
    let Some(Command::Follow(first)) = commands.recv().await else { return };
    let thread = Thread::new(process, first.clone());
    let mut charges: BTreeMap<Vec<u8>, Rc<Charge>> = BTreeMap::new();
    let mut snapshot = first;
    let folders = Rc::new(RefCell::new(Vec::new()));
    let seeking = spawn_local(seek(vault.clone(), folders.clone()));
    loop {
        let by_page =
            snapshot.issuers.iter().filter(|issuer| issuer.settings.challenge == ChallengeKind::Http01);
        let mut shared: Vec<Vec<u8>> = by_page.filter_map(|issuer| issuer.state_path.clone()).collect();
        shared.sort();
        shared.dedup();
        folders.replace(shared);
        let mut gone = std::mem::take(&mut charges);
        for issuer in &snapshot.issuers {
            let key = issuer.settings.key(issuer.state_path.as_deref(), &issuer.name);
            let charge = match gone.remove(&key) {
                Some(charge) => charge,
                None => begin(&thread, &vault),
            };
            charge.issuer.replace(Some(issuer.clone()));
            charge.changed.notify_one();
            charges.insert(key, charge);
        }
        gone.values().for_each(|charge| charge.end());
        drop(snapshot);
        snapshot = match commands.recv().await {
            Some(Command::Follow(next)) => next,
            Some(Command::Stop) | None => {
                seeking.abort();
                return charges.values().for_each(|charge| charge.end());
            }
        };
        thread.follow(snapshot.clone());
    }
}

/// Shows proofs here that another gateway has left in a shared folder, when they are asked for.
async fn seek(vault: Vault, folders: Rc<RefCell<Vec<Vec<u8>>>>) {
    let seeker = Seeker::new();
    loop {
        for token in seeker.wanted().await {
            let mut found = None;
            let folders = folders.borrow().clone();
            for folder in &folders {
                let text = vault.read(folder, &format!("{PROOF_PREFIX}{token}")).await.ok().flatten();
                found = found.or(text.and_then(|text| String::from_utf8(text).ok()));
            }
            let shown = found.and_then(|text| board::show_page(&token, text));
            seeker.answer(&token, shown.is_some());
            if let Some(shown) = shown {
                spawn_local(async move {
                    pause(FOUND_SECONDS).await;
                    drop(shown);
                });
            }
        }
        // However many are asked for.
        pause_ms(SEEK_PAUSE_MS).await;
    }
}

impl Charge {
    /// Its task ends once it is done with what is under way.
    fn end(&self) {
        self.issuer.replace(None);
        self.changed.notify_one();
    }
}

fn begin(thread: &Rc<Thread>, vault: &Vault) -> Rc<Charge> {
    let charge = Rc::new(Charge { issuer: RefCell::default(), changed: Notify::new() });
    let agent = Agent { thread: thread.clone(), vault: vault.clone(), directory: RefCell::default() };
    spawn_local(agent.look_after(charge.clone()));
    charge
}

/// Looks after one issuer.
struct Agent {
    thread: Rc<Thread>,
    vault: Vault,
    /// The issuer's directory, and until when it is believed, monotonic milliseconds.
    directory: RefCell<Option<(Directory, u64)>>,
}

impl Agent {
    async fn look_after(self, charge: Rc<Charge>) {
        loop {
            let Some(issuer) = charge.issuer.borrow().clone() else { return };
            let mut next = now() + LOOK_SECONDS_MAX;
            for order in &issuer.orders {
                next = next.min(self.attend(&issuer, order).await);
            }
            drop(issuer);
            let seconds = u64::try_from(next - now()).unwrap_or(0).max(1);
            race(pause(seconds), charge.changed.notified()).await;
        }
    }

    /// Does what is due for one order; when to look at it again.
    async fn attend(&self, issuer: &Issuer, order: &Order) -> i64 {
        let current = order.known.issued.current();
        if let Some(identity) = &current {
            self.learn_window(issuer, order, identity).await;
        }
        let (due, not_before) = {
            let mut schedule = order.known.schedule();
            let due = match &current {
                Some(identity) => *schedule.renewal.get_or_insert_with(|| renewal_of(identity)),
                None => 0,
            };
            (due, schedule.not_before)
        };
        if due.max(not_before) <= now() {
            self.renew(issuer, order).await;
        }
        let has_certificate = order.known.issued.current().is_some();
        let schedule = order.known.schedule();
        let next = schedule.renewal.unwrap_or(0).max(schedule.not_before);
        match schedule.window_again {
            Some(again) => next.min(again),
            // The issuer has not been asked about a new certificate.
            None if has_certificate => now(),
            None => next,
        }
    }

    /// Asks the issuer when to renew, where it is time to ask.
    async fn learn_window(&self, issuer: &Issuer, order: &Order, identity: &Identity) {
        let again = order.known.schedule().window_again;
        if again.is_some_and(|again| again > now()) {
            return;
        }
        let name = identity.issuer_key_and_serial().map(|(key, serial)| renewal_name(&key, &serial));
        let Some(name) = name else {
            order.known.schedule().window_again = Some(i64::MAX);
            return;
        };
        let transport = self.transport();
        let found = match self.directory(issuer, &transport).await {
            Ok(directory) => client::renewal_window(issuer, &transport, &directory, &name).await,
            Err(failure) => Err(failure),
        };
        let mut schedule = order.known.schedule();
        match found {
            Ok(Some((window, retry_after))) => {
                if schedule.window != Some(window) {
                    schedule.window = Some(window);
                    let (_, until) = identity.validity().unwrap_or((0, i64::MAX));
                    let chosen = within(window.start, window.end).min(until);
                    schedule.renewal = Some(chosen);
                    let when = date(chosen);
                    let text = format!("the issuer suggests to renew it at {when}");
                    drop(schedule);
                    self.log(Level::Info, issuer, order, &text);
                    schedule = order.known.schedule();
                }
                let (least, most) = (*WINDOW_SECONDS_RANGE.start(), *WINDOW_SECONDS_RANGE.end());
                schedule.window_again = Some(after(retry_after.unwrap_or(WINDOW_SECONDS).clamp(least, most)));
            }
            // The issuer has no such information: the certificate's life decides.
            Ok(None) => schedule.window_again = Some(after(*WINDOW_SECONDS_RANGE.end())),
            Err(failure) => {
                schedule.window_again = Some(after(WINDOW_SECONDS));
                drop(schedule);
                self.log(Level::Warn, issuer, order, &format!("{failure} while asking when to renew it"));
            }
        }
    }

    /// Has the certificate renewed, by us or by another gateway.
    async fn renew(&self, issuer: &Issuer, order: &Order) {
        let outcome = match &issuer.state_path {
            None => self.obtain(issuer, order).await,
            Some(folder) => match self.lock(issuer, order, folder).await {
                Ok(true) => {
                    let outcome = self.obtain_locked(issuer, order, folder).await;
                    self.vault.unlock(folder).await;
                    outcome
                }
                Ok(false) => return,
                Err(why) => Err(Failure::Local(why)),
            },
        };
        let Err(failure) = outcome else { return };
        let failures = order.known.schedule().failures + 1;
        let pause = pause_after(&failure, failures);
        let not_before = after(pause);
        {
            let mut schedule = order.known.schedule();
            (schedule.failures, schedule.not_before) = (failures, not_before);
        }
        if let Some(folder) = &issuer.state_path {
            let text = write_pause(not_before, failures, &issuer.settings.url, &failure.to_string());
            let file = (format!("{}.wait", order.name), text.into_bytes());
            // It is a courtesy to the issuer; without it the pause holds until a restart.
            let _ = self.vault.write(folder, vec![file]).await;
        }
        let kept = match order.known.issued.current() {
            Some(_) => "the one that is there goes on",
            None => "handshakes for it fail until then",
        };
        let text = format!("{failure} while obtaining it; next attempt in {pause} s, {kept}");
        self.log(Level::Error, issuer, order, &text);
    }

    /// Waits for the lock, and looks whether another gateway has done the work meanwhile. False: it has.
    async fn lock(&self, issuer: &Issuer, order: &Order, folder: &[u8]) -> Result<bool, String> {
        let mut was_told = false;
        loop {
            let held = self.vault.lock(folder).await?;
            if self.look_on_disk(issuer, order, folder).await? {
                if held.is_none() {
                    self.vault.unlock(folder).await;
                }
                return Ok(false);
            }
            let Some((owner, seconds)) = held else { return Ok(true) };
            if !std::mem::replace(&mut was_told, true) {
                let text = format!("{owner} asks for it, since {seconds} s");
                self.log(Level::Notice, issuer, order, &text);
            }
            pause(LOCK_PAUSE_SECONDS).await;
        }
    }

    /// Takes what another gateway has left. True where that settles what was due.
    async fn look_on_disk(&self, issuer: &Issuer, order: &Order, folder: &[u8]) -> Result<bool, String> {
        let read = async |ending: &str| self.vault.read(folder, &format!("{}.{ending}", order.name)).await;
        if let Some(text) = read("wait").await? {
            order.known.restore_pause(&text, &issuer.settings.url);
            if order.known.schedule().not_before > now() {
                return Ok(true);
            }
        }
        let (Some(certificate), Some(key)) = (read("crt").await?, read("key").await?) else {
            return Ok(false);
        };
        // What cannot be read is written anew.
        if order.known.restore(&certificate, &key) != Ok(true) {
            return Ok(false);
        }
        let is_due = order.known.issued.current().is_none_or(|identity| renewal_of(&identity) <= now());
        if !is_due {
            self.log(Level::Notice, issuer, order, "a newer certificate was found on disk");
            self.settle(order, true);
        }
        Ok(!is_due)
    }

    /// Asks the issuer while we hold the lock, which is renewed meanwhile.
    async fn obtain_locked(&self, issuer: &Issuer, order: &Order, folder: &[u8]) -> Result<(), Failure> {
        let renewing = async {
            loop {
                pause(LOCK_RENEWAL_SECONDS).await;
                if let Ok(Some((owner, _))) = self.vault.lock(folder).await {
                    return owner;
                }
            }
        };
        match race(self.obtain(issuer, order), renewing).await {
            First::Left(outcome) => outcome,
            First::Right(owner) => Err(Failure::Other(format!("{owner} has taken the lock"))),
        }
    }

    async fn obtain(&self, issuer: &Issuer, order: &Order) -> Result<(), Failure> {
        let unsaved = order.known.schedule().unsaved.take();
        let obtained = match unsaved {
            Some((certificate, key)) => Obtained { certificate, key },
            None => self.ask(issuer, order).await?,
        };
        let Obtained { certificate, key } = obtained;
        let identity = read_identity(certificate.as_bytes(), key.as_bytes()).map_err(Failure::Other)?;
        // On disk first: what is shown is there after a restart.
        if let Some(folder) = &issuer.state_path {
            let name = &order.name;
            let files = vec![
                (format!("{name}.key"), key.clone().into_bytes()),
                (format!("{name}.crt"), certificate.clone().into_bytes()),
                (format!("{name}.wait"), Vec::new()),
            ];
            if let Err(why) = self.vault.write(folder, files).await {
                order.known.schedule().unsaved = Some((certificate, key));
                return Err(Failure::Local(format!("the certificate was issued and cannot be kept ({why})")));
            }
        }
        order.known.issued.put(identity);
        self.settle(order, false);
        let when = order.known.schedule().renewal.map(date).unwrap_or_default();
        let names: Vec<&str> = order.identifiers.iter().map(|identifier| identifier.value()).collect();
        let text = format!("certificate issued for {}, renewal at {when}", names.join(", "));
        self.log(Level::Notice, issuer, order, &text);
        Ok(())
    }

    /// Asks the issuer.
    async fn ask(&self, issuer: &Issuer, order: &Order) -> Result<Obtained, Failure> {
        let key = self.account_key(issuer).await?;
        let transport = self.transport();
        let directory = self.directory(issuer, &transport).await?;
        let replaces = match (&directory.renewal_info, order.known.issued.current()) {
            (Some(_), Some(identity)) => identity.issuer_key_and_serial(),
            _ => None,
        };
        let replaces = replaces.map(|(key, serial)| renewal_name(&key, &serial));
        let mut client = Client::new(issuer, &transport, &self.vault, &key, directory);
        let account = client.log_in().await?;
        if let Some(folder) = &issuer.state_path {
            // It tells people which account it is; nothing depends on it.
            let file = (ACCOUNT_URL.to_owned(), account.into_bytes());
            let _ = self.vault.write(folder, vec![file]).await;
        }
        client.obtain(order, replaces.as_deref()).await
    }

    /// The issuer's directory, which changes seldom.
    async fn directory(&self, issuer: &Issuer, transport: &Transport) -> Result<Directory, Failure> {
        let now_ms = net::clock::now_ms();
        if let Some((known, until_ms)) = &*self.directory.borrow()
            && now_ms < *until_ms
        {
            return Ok(known.clone());
        }
        let found = client::directory(issuer, transport).await?;
        self.directory.replace(Some((found.clone(), now_ms + DIRECTORY_MS)));
        Ok(found)
    }

    /// The account's key: the one that is given, or kept, or a new one.
    async fn account_key(&self, issuer: &Issuer) -> Result<Key, Failure> {
        let kind = match &issuer.settings.account_key {
            AccountKey::Given(der) => return Key::read(der).map_err(Failure::Other),
            AccountKey::Made(kind) => *kind,
        };
        let read = |text: &[u8]| net::tls::private_key_der(text).and_then(|der| Key::read(&der));
        let kept = match &issuer.state_path {
            Some(folder) => self.vault.read(folder, ACCOUNT_KEY).await.map_err(Failure::Local)?,
            None => issuer.known.account_key().clone().map(String::into_bytes),
        };
        if let Some(text) = kept {
            let unreadable = |why| Failure::Other(format!("the file {ACCOUNT_KEY} cannot be used: {why}"));
            return read(&text).map_err(unreadable);
        }
        let made = aside("keys", move || kind.make_pem()).await;
        let made =
            made.unwrap_or_else(|| Err("making a key has panicked".to_owned())).map_err(Failure::Other)?;
        match &issuer.state_path {
            Some(folder) => {
                let file = (ACCOUNT_KEY.to_owned(), made.clone().into_bytes());
                self.vault.write(folder, vec![file]).await.map_err(Failure::Local)?;
            }
            None => *issuer.known.account_key() = Some(made.clone()),
        }
        read(made.as_bytes()).map_err(Failure::Other)
    }

    /// Begins the time of a certificate that was put in place.
    fn settle(&self, order: &Order, keeps_window: bool) {
        let renewal = order.known.issued.current().map(|identity| renewal_of(&identity));
        let mut schedule = order.known.schedule();
        if !keeps_window {
            (schedule.window, schedule.window_again) = (None, None);
        }
        (schedule.renewal, schedule.failures, schedule.not_before) = (renewal, 0, 0);
    }

    fn transport(&self) -> Transport {
        let resolver = Resolver::new(self.thread.snapshot().resolver.clone());
        Transport { resolver, product: self.thread.process.product }
    }

    fn log(&self, level: Level, issuer: &Issuer, order: &Order, text: &str) {
        let (issuer, order) = (&issuer.name, &order.name);
        let text = format_args!("{text}, acme issuer \"{issuer}\", order \"{order}\"");
        self.thread.log(&self.thread.snapshot(), level, None, text);
    }
}

fn now() -> i64 {
    net::clock::wall().seconds
}

fn after(seconds: u64) -> i64 {
    now().saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX))
}

async fn pause(seconds: u64) {
    pause_ms(seconds.saturating_mul(1000)).await;
}

async fn pause_ms(milliseconds: u64) {
    Timer::new().sleep(Deadline::after(Duration::from_millis(milliseconds))).await;
}

/// A moment as logs show it.
fn date(seconds: i64) -> String {
    String::from_utf8_lossy(&net::clock::http_date_of(seconds)).into_owned()
}

/// Some moment of a window, each as likely as any other.
fn within(start: i64, end: i64) -> i64 {
    let length = u32::try_from(end.saturating_sub(start)).unwrap_or(u32::MAX).max(1);
    start.saturating_add(i64::from(net::random::below(length)))
}

/// When a certificate is to be renewed by its life alone; gateways that began together do not ask together.
fn renewal_of(identity: &Identity) -> i64 {
    let Some((start, end)) = identity.validity() else { return 0 };
    let life = (end - start).max(0);
    let share = if life > SHORT_LIFE_SECONDS { life / 3 * 2 } else { life / 2 };
    let spread = life / 50;
    start + share - if spread > 0 { within(0, spread) } else { 0 }
}

/// How long nothing is asked after a failure, seconds.
fn pause_after(failure: &Failure, failures: u32) -> u64 {
    let growing = |(first, most): (u64, u64), factor: u64| {
        let grown = (1..failures).fold(first, |pause, _| pause.saturating_mul(factor).min(most));
        grown + u64::from(net::random::below(u32::try_from(grown / 10).unwrap_or(u32::MAX).max(1)))
    };
    match failure {
        Failure::Unreachable(_) | Failure::Local(_) => growing(UNREACHABLE_PAUSE_SECONDS, 2),
        Failure::Refused(problem) if problem.is_lasting() => growing((3600, REFUSED_PAUSE_SECONDS.1), 4),
        Failure::Refused(_) | Failure::Other(_) => growing(REFUSED_PAUSE_SECONDS, 4),
        Failure::RateLimited(_, said) => {
            said.unwrap_or(RATE_LIMITED_PAUSE_SECONDS).clamp(1, PAUSE_SECONDS_MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_issuers_are_listened_to() {
        let problem = |kind: &str| acme::Problem { kind: kind.to_owned(), detail: String::new() };
        let unreachable = Failure::Unreachable(String::new());
        let cases = [
            (unreachable.clone(), 1, 5..=5),
            (unreachable.clone(), 4, 40..=44),
            (unreachable, 1000, 3600..=3960),
            (Failure::Local(String::new()), 1, 5..=5),
            (Failure::Refused(problem("unauthorized")), 1, 60..=66),
            (Failure::Refused(problem("unauthorized")), 3, 960..=1056),
            (Failure::Refused(problem("unauthorized")), 99, 86_400..=95_040),
            (Failure::Refused(problem("rejectedIdentifier")), 1, 3600..=3960),
            (Failure::RateLimited(problem("rateLimited"), Some(7)), 50, 7..=7),
            (Failure::RateLimited(problem("rateLimited"), Some(u64::MAX)), 1, 604_800..=604_800),
            (Failure::RateLimited(problem("rateLimited"), None), 1, 3600..=3600),
        ];
        for (failure, failures, expected) in cases {
            let pause = pause_after(&failure, failures);
            assert!(expected.contains(&pause), "{failure:?} {failures}: {pause}");
        }
    }

    #[test]
    fn a_moment_of_a_window_is_in_it() {
        for (start, end) in [(10, 11), (10, 20), (0, i64::MAX)] {
            let moment = within(start, end);
            assert!(start <= moment && moment < end, "{moment}");
        }
    }
}
