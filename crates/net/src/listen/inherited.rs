//! Listening sockets that another program left open for this one, as nginx's binary upgrade does.

use super::{ListenOptions, Listener, Report, Transport};
use crate::address::Address;
use crate::errno::{Errno, ErrnoMessage};
use crate::log::syslog::Severity;
use rustix::net::{SocketType, sockopt};
use std::os::fd::RawFd;
use std::sync::Arc;

/// The listening sockets that another program left open under these numbers, as nginx's variable `NGINX` lists
/// them: `6;7;`. What is no socket is reported and left alone.
pub fn inherit(list: &str, report: Report<'_>) -> Vec<Listener> {
    let mut listeners = Vec::new();
    let (numbers, rest) = list.rsplit_once([';', ':']).unwrap_or(("", list));
    for number in numbers.split([';', ':']).filter(|_| !list.is_empty() && rest.len() < list.len()) {
        let Ok(number) = number.parse::<RawFd>() else {
            let message = format!(
                "invalid socket number \"{number}\" in NGINX environment variable, ignoring the rest of the variable"
            );
            report(Severity::Emerg, &message);
            return listeners;
        };
        match inherited_listener(number) {
            Ok(listener) => listeners.push(listener),
            Err(errno) => {
                let call = "getsockname() of the inherited socket";
                report(Severity::Crit, &format!("{call} #{number} failed ({})", ErrnoMessage(errno)));
            }
        }
    }
    if !rest.is_empty() {
        let message = format!("invalid socket number \"{rest}\" in NGINX environment variable, ignoring");
        report(Severity::Emerg, &message);
    }
    listeners
}

fn inherited_listener(number: RawFd) -> Result<Listener, Errno> {
    let socket = crate::process::spawn::inherited_descriptor(number)?;
    let address = Address::from_any(rustix::net::getsockname(&socket)?);
    let transport = match sockopt::socket_type(&socket)? {
        SocketType::STREAM => Transport::Stream,
        _ => Transport::Datagram,
    };
    let options = ListenOptions {
        transport,
        reuseport: sockopt::socket_reuseport(&socket).unwrap_or(false),
        ipv6only: address.ip().is_none_or(|ip| ip.is_ipv4()) || sockopt::ipv6_v6only(&socket).unwrap_or(true),
        ..ListenOptions::new(address)
    };
    Ok(Listener { options, socket: Arc::new(socket), is_inherited: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inherited_numbers_are_read_as_nginx_writes_them() {
        for (list, complaint) in [
            ("", None),
            (
                "x;",
                Some(
                    "invalid socket number \"x\" in NGINX environment variable, ignoring the rest of the variable",
                ),
            ),
            ("12", Some("invalid socket number \"12\" in NGINX environment variable, ignoring")),
            (
                "1000000;",
                Some("getsockname() of the inherited socket #1000000 failed (9: Bad file descriptor)"),
            ),
        ] {
            let mut reports = Vec::new();
            let found = inherit(list, &mut |_, text| reports.push(text.to_owned()));
            assert!(found.is_empty());
            assert_eq!(reports.first().map(String::as_str), complaint, "{list:?}");
        }
    }
}
