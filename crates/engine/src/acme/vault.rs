//! Where accounts, keys and certificates are kept. The files belong to root, so whoever serves asks for them: the requests
//! and answers are here, the program carries them out (in its master, where there is one).
//!
//! One folder may be shared by several gateways. The file [`LOCK`] says who asks the issuer now, and since when; whoever
//! holds it does, and the others find the result beside it.

use acme::Url;
use std::fmt;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The file that says who asks.
pub const LOCK: &str = "lock";
/// The file of the account's key.
pub const ACCOUNT_KEY: &str = "account.key";
/// The file of the account's address.
pub const ACCOUNT_URL: &str = "account.url";
/// What the name of a file begins with that holds a proof, for gateways that are asked for another's; the token follows.
pub(super) const PROOF_PREFIX: &str = "proof.";
/// How long a lock holds that its owner does not renew, seconds.
pub const LOCK_SECONDS_MAX: i64 = 180;
/// How large a file may be, bytes. Chains and keys are far smaller.
pub const FILE_BYTES_MAX: usize = 256 << 10;
/// How many files are written at once.
pub const FILES_MAX: usize = 4;
/// How long a name may be, bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Something to be done in a folder.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The folder; it must be one that the configuration names.
    pub folder: Vec<u8>,
    /// What.
    pub action: Action,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq)]
pub enum Action {
    /// Read a file.
    Read(String),
    /// Write files, whole, so that none is seen half written. One without content is removed.
    Write(Vec<(String, Vec<u8>)>),
    /// Take the lock for this owner, or renew it.
    Lock(String),
    /// Give the lock back if this owner has it.
    Unlock(String),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done; the file's content, where one was to be read and is there.
    Done(Option<Vec<u8>>),
    /// Somebody else has the lock, for so many seconds.
    Held(String, u32),
    /// It could not be done, in words.
    Failed(String),
}

/// A request that waits for its answer.
pub struct Call {
    /// The request.
    pub request: Request,
    /// Where the answer goes. One that is dropped says that nobody carries requests out.
    pub answer: oneshot::Sender<Answer>,
}

impl fmt::Debug for Request {
    /// Without what is to be written: it is secret.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = bstr::BStr::new(&self.folder);
        match &self.action {
            Action::Read(name) => write!(out, "read {folder}/{name}"),
            Action::Write(files) => {
                let names: Vec<&str> = files.iter().map(|(name, _)| &**name).collect();
                write!(out, "write {folder}/{{{}}}", names.join(","))
            }
            Action::Lock(owner) => write!(out, "lock {folder} for {owner}"),
            Action::Unlock(owner) => write!(out, "unlock {folder} of {owner}"),
        }
    }
}

/// May a file have this name? Nothing that leads out of the folder or hides in it.
pub fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| (0x21..0x7f).contains(&byte) && byte != b'/';
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && name != LOCK
        && name.bytes().all(is_plain)
}

/// The way to whoever carries requests out.
#[derive(Clone)]
pub struct Vault {
    send: Arc<dyn Fn(Call) + Send + Sync>,
    /// Who we are to other gateways.
    owner: String,
}

impl Vault {
    /// A way that `send` leads; `owner` tells this process from all others that share a folder.
    pub fn new(owner: String, send: Arc<dyn Fn(Call) + Send + Sync>) -> Vault {
        Vault { send, owner }
    }

    async fn ask(&self, folder: &[u8], action: Action) -> Answer {
        let (answer, answered) = oneshot::channel();
        (self.send)(Call { request: Request { folder: folder.to_vec(), action }, answer });
        answered.await.unwrap_or_else(|_| Answer::Failed("the master process is gone".to_owned()))
    }

    /// A file's content; none where there is no such file.
    pub(super) async fn read(&self, folder: &[u8], name: &str) -> Result<Option<Vec<u8>>, String> {
        match self.ask(folder, Action::Read(name.to_owned())).await {
            Answer::Done(content) => Ok(content),
            Answer::Held(..) => Ok(None),
            Answer::Failed(why) => Err(why),
        }
    }

    /// Writes files.
    pub(super) async fn write(&self, folder: &[u8], files: Vec<(String, Vec<u8>)>) -> Result<(), String> {
        match self.ask(folder, Action::Write(files)).await {
            Answer::Failed(why) => Err(why),
            Answer::Done(_) | Answer::Held(..) => Ok(()),
        }
    }

    /// Takes the lock. Who holds it, and for how many seconds, where it cannot be had.
    pub(super) async fn lock(&self, folder: &[u8]) -> Result<Option<(String, u32)>, String> {
        match self.ask(folder, Action::Lock(self.owner.clone())).await {
            Answer::Done(_) => Ok(None),
            Answer::Held(owner, seconds) => Ok(Some((owner, seconds))),
            Answer::Failed(why) => Err(why),
        }
    }

    /// Gives the lock back. Where that fails, it ends by itself.
    pub(super) async fn unlock(&self, folder: &[u8]) {
        self.ask(folder, Action::Unlock(self.owner.clone())).await;
    }
}

/// What the file of a lock says: the owner and when it was last renewed, seconds since 1970.
pub fn read_lock(text: &[u8]) -> Option<(String, i64)> {
    let text = std::str::from_utf8(text).ok()?;
    let (owner, since) = text.trim_end().rsplit_once(' ')?;
    Some((owner.to_owned(), since.parse().ok()?))
}

/// The text of such a file.
pub fn write_lock(owner: &str, now: i64) -> String {
    format!("{owner} {now}\n")
}

/// What the file of a pause says about the issuer at this address: until when nothing is to be asked, and how often asking
/// has failed.
pub(super) fn read_pause(text: &[u8], url: &Url) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text.split_ascii_whitespace();
    let (not_before, failures) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (words.next()? == url.to_string()).then_some((not_before, failures))
}

/// The text of such a file. The reason is for people.
pub(super) fn write_pause(not_before: i64, failures: u32, url: &Url, why: &str) -> String {
    format!("{not_before} {failures} {url} {why}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        for (name, is_good) in [
            ("account.key", true),
            ("*.example.test-0123abc.crt", true),
            ("192.0.2.1-1.key", true),
            ("", false),
            (".", false),
            ("..", false),
            (".hidden", false),
            ("a/b", false),
            ("../x", false),
            ("a\0b", false),
            ("a b", false),
            ("lock", false),
        ] {
            assert_eq!(is_name(name), is_good, "{name}");
        }
        assert!(!is_name(&"x".repeat(256)));
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read_lock(write_lock("host:12", 34).as_bytes()), Some(("host:12".to_owned(), 34)));
        let [url, other] =
            ["https://a.test/x", "https://b.test/x"].map(|text| Url::parse(text).expect("one"));
        let pause = write_pause(5, 2, &url, "why not");
        assert_eq!(read_pause(pause.as_bytes(), &url), Some((5, 2)));
        assert_eq!(read_pause(pause.as_bytes(), &other), None);
        for text in ["", "x", "x y", " "] {
            let found = (read_lock(text.as_bytes()), read_pause(text.as_bytes(), &url));
            assert_eq!(found, (None, None), "{text}");
        }
    }
}
