//! Log lines as syslog datagrams in the form of RFC 3164, the one nginx sends:
//! `<190>Sep 28 12:00:00 host nginx: line`.

use super::LogFailure;
use crate::address::Address;
use crate::clock;
use crate::errno::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

/// How grave a message is; the numbers are syslog's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // the names are the documentation
pub enum Severity {
    Emerg = 0,
    Alert = 1,
    Crit = 2,
    Error = 3,
    Warn = 4,
    Notice = 5,
    Info = 6,
    Debug = 7,
}

/// nginx's names, which are those of its `error_log` levels.
static SEVERITIES: [(&[u8], Severity); 8] = [
    (b"emerg", Severity::Emerg),
    (b"alert", Severity::Alert),
    (b"crit", Severity::Crit),
    (b"error", Severity::Error),
    (b"warn", Severity::Warn),
    (b"notice", Severity::Notice),
    (b"info", Severity::Info),
    (b"debug", Severity::Debug),
];

/// Indexed by syslog's number of the facility.
static FACILITIES: [&[u8]; 24] = [
    b"kern",
    b"user",
    b"mail",
    b"daemon",
    b"auth",
    b"intern",
    b"lpr",
    b"news",
    b"uucp",
    b"clock",
    b"authpriv",
    b"ftp",
    b"ntp",
    b"audit",
    b"alert",
    b"cron",
    b"local0",
    b"local1",
    b"local2",
    b"local3",
    b"local4",
    b"local5",
    b"local6",
    b"local7",
];

/// The part of `syslog:server=...,tag=...` behind the colon, read but for the server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// The server as written; without a port it is 514, and `unix:PATH` is a socket.
    pub server: Vec<u8>,
    /// Syslog's number of the facility.
    pub facility: u8,
    /// The severity of lines that have none of their own.
    pub severity: Severity,
    /// The name of the program in each message.
    pub tag: Vec<u8>,
    /// Each message names the host.
    pub with_hostname: bool,
}

impl Parameters {
    /// Reads the parameters; the error is nginx's message.
    pub fn parse(text: &[u8]) -> Result<Parameters, String> {
        let (mut server, mut facility, mut severity, mut tag) = (None, None, None, None);
        let mut with_hostname = true;
        for part in text.split(|byte| *byte == b',') {
            let shown = bstr::BStr::new(part);
            if let Some(value) = part.strip_prefix(b"server=") {
                once(&mut server, value.to_vec(), "server")?;
            } else if let Some(value) = part.strip_prefix(b"facility=") {
                let number = FACILITIES.iter().position(|name| *name == value);
                let unknown = || format!("unknown syslog facility \"{}\"", bstr::BStr::new(value));
                refuse_second(&facility, "facility")?;
                facility = Some(number.ok_or_else(unknown)? as u8);
            } else if let Some(value) = part.strip_prefix(b"severity=") {
                let found = SEVERITIES.iter().find(|(name, _)| *name == value);
                let unknown = || format!("unknown syslog severity \"{}\"", bstr::BStr::new(value));
                refuse_second(&severity, "severity")?;
                severity = Some(found.ok_or_else(unknown)?.1);
            } else if let Some(value) = part.strip_prefix(b"tag=") {
                refuse_second(&tag, "tag")?;
                // RFC 3164 section 4.1.3.
                if value.len() > 32 {
                    return Err("syslog tag length exceeds 32".to_owned());
                }
                if !value.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
                    let text = "syslog \"tag\" only allows alphanumeric characters and underscore";
                    return Err(text.to_owned());
                }
                tag = Some(value.to_vec());
            } else if part == b"nohostname" {
                with_hostname = false;
            } else {
                return Err(format!("unknown syslog parameter \"{shown}\""));
            }
        }
        Ok(Parameters {
            server: server.ok_or("no syslog server specified")?,
            facility: facility.unwrap_or(23),
            severity: severity.unwrap_or(Severity::Info),
            tag: tag.unwrap_or_else(|| b"nginx".to_vec()),
            with_hostname,
        })
    }
}

fn refuse_second<T>(slot: &Option<T>, name: &str) -> Result<(), String> {
    match slot {
        Some(_) => Err(format!("duplicate syslog \"{name}\"")),
        None => Ok(()),
    }
}

fn once<T>(slot: &mut Option<T>, value: T, name: &str) -> Result<(), String> {
    refuse_second(slot, name)?;
    *slot = Some(value);
    Ok(())
}

/// A syslog server. The socket is opened by the first message, and again after a failure.
pub struct Syslog {
    address: Address,
    parameters: Parameters,
    hostname: Vec<u8>,
    socket: Mutex<Option<OwnedFd>>,
}

impl Syslog {
    /// A server at a resolved address.
    pub fn new(address: Address, parameters: Parameters) -> Syslog {
        let hostname = rustix::system::uname().nodename().to_bytes().to_vec();
        Syslog { address, parameters, hostname, socket: Mutex::new(None) }
    }

    /// Sends one message, and does not wait: where the system's buffer is full the message is lost.
    pub(super) fn send(&self, line: &[u8], severity: Option<Severity>) -> Result<(), LogFailure> {
        let message = self.message(line, severity, &clock::syslog_time());
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let connected = match &mut *socket {
            Some(connected) => connected,
            empty => empty.insert(self.open().map_err(|(call, errno)| self.failure(call, errno))?),
        };
        match rustix::net::send(connected, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => {
                *socket = None;
                Err(self.failure("send()", errno))
            }
        }
    }

    fn failure(&self, call: &'static str, errno: Errno) -> LogFailure {
        LogFailure {
            what: call.to_owned(),
            errno,
            during: format!("while logging to syslog, server: {}", self.address),
            // A server that is not there right now is none of this machine's faults.
            severity: if call == "send()" { Severity::Error } else { Severity::Alert },
        }
    }

    fn open(&self) -> Result<OwnedFd, (&'static str, Errno)> {
        let family = match self.address {
            Address::Inet(SocketAddr::V4(_)) => AddressFamily::INET,
            Address::Inet(SocketAddr::V6(_)) => AddressFamily::INET6,
            Address::Unix(_) => AddressFamily::UNIX,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)
            .map_err(|errno| ("socket()", errno))?;
        let target = self.address.to_any().map_err(|errno| ("connect()", errno))?;
        rustix::net::connect(&fd, &target).map_err(|errno| ("connect()", errno))?;
        Ok(fd)
    }

    fn message(&self, line: &[u8], severity: Option<Severity>, time: &[u8]) -> Vec<u8> {
        let parameters = &self.parameters;
        let severity = severity.unwrap_or(parameters.severity);
        let priority = u32::from(parameters.facility) * 8 + severity as u32;
        let mut message = Vec::with_capacity(line.len() + 128);
        message.extend_from_slice(format!("<{priority}>").as_bytes());
        message.extend_from_slice(time);
        message.push(b' ');
        if parameters.with_hostname {
            message.extend_from_slice(&self.hostname);
            message.push(b' ');
        }
        message.extend_from_slice(&parameters.tag);
        message.extend_from_slice(b": ");
        message.extend_from_slice(line);
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_refused_in_nginx_words() {
        let full = b"server=unix:/dev/log,facility=local3,severity=warn,tag=my_app1,nohostname";
        let expected = Parameters {
            server: b"unix:/dev/log".to_vec(),
            facility: 19,
            severity: Severity::Warn,
            tag: b"my_app1".to_vec(),
            with_hostname: false,
        };
        assert_eq!(Parameters::parse(full), Ok(expected));
        let bare = Parameters::parse(b"server=10.0.0.1").expect("a server is enough");
        assert_eq!((bare.facility, bare.severity, bare.with_hostname), (23, Severity::Info, true));
        assert_eq!(bare.tag, b"nginx");
        for (text, message) in [
            ("tag=a", "no syslog server specified"),
            ("server=a,server=b", "duplicate syslog \"server\""),
            ("server=a,facility=kern,facility=kern", "duplicate syslog \"facility\""),
            ("server=a,facility=none", "unknown syslog facility \"none\""),
            ("server=a,severity=warning", "unknown syslog severity \"warning\""),
            ("server=a,tag=a-b", "syslog \"tag\" only allows alphanumeric characters and underscore"),
            ("server=a,tag=123456789012345678901234567890123", "syslog tag length exceeds 32"),
            ("server=a,", "unknown syslog parameter \"\""),
            ("server=a,color=red", "unknown syslog parameter \"color=red\""),
        ] {
            assert_eq!(Parameters::parse(text.as_bytes()), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn messages_have_the_old_form() {
        let parameters = Parameters::parse(b"server=x,tag=app").expect("complete");
        let address = Address::unix(b"/nowhere");
        let mut syslog = Syslog { hostname: b"host".to_vec(), ..Syslog::new(address, parameters) };
        let time = b"Sep  8 12:00:00";
        assert_eq!(syslog.message(b"GET /", None, time), b"<190>Sep  8 12:00:00 host app: GET /");
        syslog.parameters.with_hostname = false;
        let message = syslog.message(b"bad", Some(Severity::Error), time);
        assert_eq!(message, b"<187>Sep  8 12:00:00 app: bad");
    }
}
