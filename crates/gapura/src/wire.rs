//! What master and worker say to each other, as bytes in the frames of [`net::process::channel`].
//!
//! Both ends are the same build of the same program, so the form needs no versions; it is still read with care.

use crate::files::Record;
use crate::identity::{ConfSource, Identity, Layout};
use bstr::BString;
use conf::FileError;
use engine::acme::vault;
use net::address::Address;
use net::listen::Transport;
use net::process::user::User;
use net::resolver::startup::StartupError;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// From the master.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Serve this configuration. The frame carries the sockets, then the logs.
    Serve(Box<Assignment>),
    /// Write the logs of these paths to the descriptors of the frame.
    Reopen(Vec<Vec<u8>>),
    /// What came of the request of that number.
    Kept(u32, vault::Answer),
}

/// A configuration for a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// The name the program goes by.
    pub identity: Identity,
    /// Where things are.
    pub layout: Layout,
    /// `-g`.
    pub command_line: Option<Vec<u8>>,
    /// Everything that was read for it.
    pub record: Record,
    /// Who to become, when starting.
    pub user: Option<User>,
    /// Where the sockets listen, in the order of their descriptors.
    pub listeners: Vec<(Address, Transport)>,
    /// The paths of the log files, in the order of their descriptors.
    pub logs: Vec<Vec<u8>>,
}

/// How much of a refusal is told; what is left out is in the error log.
const REFUSAL_BYTES_MAX: usize = 256 << 10;

/// From a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The configuration is in force.
    Serving,
    /// It is not, and why: lines like `[emerg] ...`.
    Refused(String),
    /// Told to finish, it accepts nothing more.
    Draining,
    /// A request, with a number, for something to be done with files that it may not touch.
    Keep(u32, vault::Request),
}

impl Order {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Order::Serve(assignment) => {
                out.number(0);
                out.assignment(assignment);
            }
            Order::Reopen(paths) => {
                out.number(1);
                out.list(paths, |out, path| out.bytes(path));
            }
            Order::Kept(number, answer) => {
                out.number(2);
                out.number(*number);
                out.vault_answer(answer);
            }
        }
        out.0
    }

    /// From bytes; `None` where they are not an order.
    pub fn decode(bytes: &[u8]) -> Option<Order> {
        let mut input = Reader(bytes);
        let order = match input.number()? {
            0 => Order::Serve(Box::new(input.assignment()?)),
            1 => Order::Reopen(input.list(|input| input.vec())?),
            2 => Order::Kept(input.number()?, input.vault_answer()?),
            _ => return None,
        };
        input.0.is_empty().then_some(order)
    }
}

impl Verdict {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Verdict::Serving => out.number(0),
            Verdict::Refused(why) => {
                out.number(1);
                out.bytes(&why.as_bytes()[..why.len().min(REFUSAL_BYTES_MAX)]);
            }
            Verdict::Draining => out.number(2),
            Verdict::Keep(number, request) => {
                out.number(3);
                out.number(*number);
                out.vault_request(request);
            }
        }
        out.0
    }

    /// From bytes; `None` where they are not a verdict.
    pub fn decode(bytes: &[u8]) -> Option<Verdict> {
        let mut input = Reader(bytes);
        let verdict = match input.number()? {
            0 => Verdict::Serving,
            1 => Verdict::Refused(String::from_utf8_lossy(input.bytes()?).into_owned()),
            2 => Verdict::Draining,
            3 => Verdict::Keep(input.number()?, input.vault_request()?),
            _ => return None,
        };
        input.0.is_empty().then_some(verdict)
    }
}

/// Numbers are four bytes, byte strings and lists begin with their length.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        // Frames are bounded far below this.
        self.number(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(bytes);
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Writer, T)) {
        self.number(u32::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn list<T>(
        &mut self,
        values: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
        write: impl Fn(&mut Writer, T),
    ) {
        let values = values.into_iter();
        self.number(u32::try_from(values.len()).unwrap_or(u32::MAX));
        for value in values {
            write(self, value);
        }
    }

    fn file_error(&mut self, error: &FileError) {
        self.number(error.errno.cast_unsigned());
        self.bytes(error.message.as_bytes());
    }

    fn address(&mut self, address: &Address) {
        match address {
            Address::Inet(address) => {
                self.number(0);
                self.bytes(address.to_string().as_bytes());
            }
            Address::Unix(path) => {
                self.number(1);
                self.bytes(path);
            }
        }
    }

    fn vault_request(&mut self, vault::Request { folder, action }: &vault::Request) {
        self.bytes(folder);
        match action {
            vault::Action::Read(name) => {
                self.number(0);
                self.bytes(name.as_bytes());
            }
            vault::Action::Write(files) => {
                self.number(1);
                self.list(files, |out, (name, content)| {
                    out.bytes(name.as_bytes());
                    out.bytes(content);
                });
            }
            vault::Action::Lock(owner) => {
                self.number(2);
                self.bytes(owner.as_bytes());
            }
            vault::Action::Unlock(owner) => {
                self.number(3);
                self.bytes(owner.as_bytes());
            }
        }
    }

    fn vault_answer(&mut self, answer: &vault::Answer) {
        match answer {
            vault::Answer::Done(content) => {
                self.number(0);
                self.option(content.as_ref(), |out, content| out.bytes(content));
            }
            vault::Answer::Held(owner, seconds) => {
                self.number(1);
                self.bytes(owner.as_bytes());
                self.number(*seconds);
            }
            vault::Answer::Failed(why) => {
                self.number(2);
                self.bytes(why.as_bytes());
            }
        }
    }

    fn assignment(&mut self, assignment: &Assignment) {
        let Assignment { identity, layout, command_line, record, user, listeners, logs } = assignment;
        self.number(u32::from(*identity == Identity::Nginx));
        let conf = match &layout.conf {
            ConfSource::File(path) => Some(path),
            ConfSource::BuiltIn => None,
        };
        for path in [&layout.prefix, &layout.conf_prefix, &layout.error_log, &layout.access_log, &layout.pid]
        {
            self.bytes(path);
        }
        self.option(conf, |out, path| out.bytes(path));
        self.option(command_line.as_ref(), |out, text| out.bytes(text));
        self.list(&record.reads, |out, (path, answer)| {
            out.bytes(path);
            match answer {
                Ok(text) => {
                    out.number(0);
                    out.bytes(text);
                }
                Err(error) => {
                    out.number(1);
                    out.file_error(error);
                }
            }
        });
        self.list(&record.names, |out, (name, answer)| {
            out.bytes(name.as_bytes());
            match answer {
                Ok(addresses) => {
                    out.number(0);
                    out.list(addresses, |out, address| out.bytes(address.to_string().as_bytes()));
                }
                Err(StartupError::HostNotFound) => out.number(1),
                Err(StartupError::TimedOut) => out.number(2),
            }
        });
        self.list(&record.globs, |out, (pattern, answer)| {
            out.bytes(pattern);
            match answer {
                Ok(paths) => {
                    out.number(0);
                    out.list(paths, |out, path| out.bytes(path));
                }
                Err(error) => {
                    out.number(1);
                    out.file_error(error);
                }
            }
        });
        self.option(user.as_ref(), |out, user| {
            out.bytes(&user.name);
            out.number(user.uid);
            out.number(user.gid);
        });
        self.list(listeners, |out, (address, transport)| {
            out.address(address);
            out.number(u32::from(*transport == Transport::Datagram));
        });
        self.list(logs, |out, path| out.bytes(path));
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*number))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn vec(&mut self) -> Option<Vec<u8>> {
        self.bytes().map(<[u8]>::to_vec)
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.number()? {
            0 => Some(None),
            _ => read(self).map(Some),
        }
    }

    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.number()?;
        (0..length).map(|_| read(self)).collect()
    }

    fn file_error(&mut self) -> Option<FileError> {
        let errno = self.number()?.cast_signed();
        Some(FileError { errno, message: String::from_utf8_lossy(self.bytes()?).into_owned() })
    }

    fn address(&mut self) -> Option<Address> {
        match self.number()? {
            0 => Some(Address::Inet(std::str::from_utf8(self.bytes()?).ok()?.parse().ok()?)),
            1 => Some(Address::unix(self.bytes()?)),
            _ => None,
        }
    }

    fn answer<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Result<T, FileError>> {
        match self.number()? {
            0 => read(self).map(Ok),
            _ => self.file_error().map(Err),
        }
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.vec()?).ok()
    }

    /// The answer to a name.
    fn addresses(&mut self) -> Option<Result<Vec<IpAddr>, StartupError>> {
        Some(match self.number()? {
            0 => Ok(self.list(|input| input.text()?.parse().ok())?),
            1 => Err(StartupError::HostNotFound),
            _ => Err(StartupError::TimedOut),
        })
    }

    fn vault_request(&mut self) -> Option<vault::Request> {
        let folder = self.vec()?;
        let action = match self.number()? {
            0 => vault::Action::Read(self.text()?),
            1 => vault::Action::Write(self.list(|input| Some((input.text()?, input.vec()?)))?),
            2 => vault::Action::Lock(self.text()?),
            3 => vault::Action::Unlock(self.text()?),
            _ => return None,
        };
        Some(vault::Request { folder, action })
    }

    fn vault_answer(&mut self) -> Option<vault::Answer> {
        Some(match self.number()? {
            0 => vault::Answer::Done(self.option(Self::vec)?),
            1 => vault::Answer::Held(self.text()?, self.number()?),
            2 => vault::Answer::Failed(self.text()?),
            _ => return None,
        })
    }

    fn assignment(&mut self) -> Option<Assignment> {
        let identity = if self.number()? == 1 { Identity::Nginx } else { Identity::Gapura };
        let prefix = self.vec()?;
        let conf_prefix = self.vec()?;
        let error_log = self.vec()?;
        let access_log = self.vec()?;
        let pid = self.vec()?;
        let conf = self.option(Self::vec)?.map_or(ConfSource::BuiltIn, ConfSource::File);
        let command_line = self.option(Self::vec)?;
        let reads = self.list(|input| {
            Some((BString::from(input.vec()?), input.answer(|input| input.bytes().map(Into::into))?))
        })?;
        let names = self.list(|input| Some((input.text()?, input.addresses()?)))?;
        let globs = self.list(|input| {
            let pattern = BString::from(input.vec()?);
            let answer = input.answer(|input| input.list(|input| input.vec().map(BString::from)))?;
            Some((pattern, answer))
        })?;
        let record = Record {
            reads: BTreeMap::from_iter(reads),
            globs: BTreeMap::from_iter(globs),
            names: BTreeMap::from_iter(names),
        };
        let user = self
            .option(|input| Some(User { name: input.vec()?, uid: input.number()?, gid: input.number()? }))?;
        let listeners = self.list(|input| {
            let address = input.address()?;
            let transport = if input.number()? == 1 { Transport::Datagram } else { Transport::Stream };
            Some((address, transport))
        })?;
        let logs = self.list(Self::vec)?;
        let layout = Layout { prefix, conf_prefix, conf, error_log, access_log, pid };
        Some(Assignment { identity, layout, command_line, record, user, listeners, logs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> Vec<Order> {
        let record = Record {
            reads: BTreeMap::from([
                ("/a".into(), Ok((*b"text \0\xff").into())),
                ("/b".into(), Err(FileError { errno: 13, message: "Permission denied".into() })),
            ]),
            globs: BTreeMap::from([
                ("/c/*".into(), Ok(vec!["/c/1".into(), "/c/2".into()])),
                ("/d/*".into(), Err(FileError::missing())),
            ]),
            names: BTreeMap::from([
                ("app".into(), Ok(vec![[10, 0, 0, 1].into(), "::1".parse().expect("an address")])),
                ("gone".into(), Err(StartupError::HostNotFound)),
                ("slow".into(), Err(StartupError::TimedOut)),
            ]),
        };
        let layout = Layout {
            prefix: b"/p/".to_vec(),
            conf_prefix: b"/c/".to_vec(),
            conf: ConfSource::File(b"/c/nginx.conf".to_vec()),
            error_log: Vec::new(),
            access_log: b"/l".to_vec(),
            pid: b"/pid".to_vec(),
        };
        let full = Assignment {
            identity: Identity::Nginx,
            layout: layout.clone(),
            command_line: Some(b"daemon off;".to_vec()),
            record,
            user: Some(User { name: b"www".to_vec(), uid: 33, gid: u32::MAX }),
            listeners: vec![
                (Address::Inet(([127, 0, 0, 1], 80).into()), Transport::Stream),
                (Address::Inet("[::1]:443".parse().expect("an address")), Transport::Datagram),
                (Address::unix(b"/run/a"), Transport::Stream),
            ],
            logs: vec![b"/l".to_vec(), b"/e".to_vec()],
        };
        let bare = Assignment {
            identity: Identity::Gapura,
            layout: Layout { conf: ConfSource::BuiltIn, ..layout },
            command_line: None,
            record: Record::default(),
            user: None,
            listeners: Vec::new(),
            logs: Vec::new(),
        };
        vec![
            Order::Serve(Box::new(full)),
            Order::Serve(Box::new(bare)),
            Order::Reopen(Vec::new()),
            Order::Reopen(vec![b"/x".to_vec()]),
            Order::Kept(7, vault::Answer::Done(Some(b"\0".to_vec()))),
            Order::Kept(8, vault::Answer::Held("host:1".to_owned(), 2)),
            Order::Kept(9, vault::Answer::Failed("why".to_owned())),
        ]
    }

    #[test]
    fn what_is_written_is_read_and_nothing_less() {
        for order in orders() {
            let bytes = order.encode();
            assert_eq!(Order::decode(&bytes), Some(order));
            for cut in 0..bytes.len() {
                assert_eq!(Order::decode(&bytes[..cut]), None, "{cut}");
            }
            assert_eq!(Order::decode(&[&bytes[..], b"x"].concat()), None);
        }
        let keep = |action| Verdict::Keep(1, vault::Request { folder: b"/s".to_vec(), action });
        for verdict in [
            Verdict::Serving,
            Verdict::Draining,
            Verdict::Refused("[emerg] no\n".into()),
            keep(vault::Action::Read("a".to_owned())),
            keep(vault::Action::Write(vec![("a".to_owned(), b"\xff".to_vec())])),
            keep(vault::Action::Lock("me".to_owned())),
            keep(vault::Action::Unlock("me".to_owned())),
        ] {
            assert_eq!(Verdict::decode(&verdict.encode()), Some(verdict));
        }
        assert_eq!(Verdict::decode(b""), None);
        assert_eq!(Order::decode(&[9; 64]), None);
    }
}
