//! `ssl_conf_command`: OpenSSL's own commands (SSL_CONF_cmd(3)), as far as there is something here that they command.

use super::settings::{Maker, Reported};
use super::{Command, Conf};
use bstr::ByteSlice;
use net::tls::{CipherSuite, Identity, NamedGroup, ServerOptions, TicketKeys, names};

/// Commands that OpenSSL knows.
const KNOWN: [&str; 25] = [
    "SignatureAlgorithms",
    "ClientSignatureAlgorithms",
    "Curves",
    "Groups",
    "ECDHParameters",
    "CipherString",
    "Ciphersuites",
    "Protocol",
    "MinProtocol",
    "MaxProtocol",
    "Options",
    "VerifyMode",
    "Certificate",
    "PrivateKey",
    "ServerInfoFile",
    "ChainCAPath",
    "ChainCAFile",
    "VerifyCAPath",
    "VerifyCAFile",
    "RequestCAFile",
    "ClientCAFile",
    "RequestCAPath",
    "ClientCAPath",
    "DHParameters",
    "RecordPadding",
];
/// What OpenSSL's `Options` may be.
const OPTIONS: [&str; 25] = [
    "SessionTicket",
    "ServerPreference",
    "EmptyFragments",
    "Bugs",
    "Compression",
    "NoResumptionOnRenegotiation",
    "DHSingle",
    "ECDHSingle",
    "UnsafeLegacyRenegotiation",
    "UnsafeLegacyServerConnect",
    "ClientRenegotiation",
    "EncryptThenMac",
    "NoRenegotiation",
    "AllowNoDHEKEX",
    "PreferNoDHEKEX",
    "PrioritizeChaCha",
    "MiddleboxCompat",
    "AntiReplay",
    "ExtendedMasterSecret",
    "CANames",
    "KTLS",
    "StrictCertCheck",
    "TxCertificateCompression",
    "RxCertificateCompression",
    "KTLSTxZerocopySendfile",
];
/// Protocols by OpenSSL's names, older first.
const PROTOCOLS: [&str; 6] = ["SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
const TLS12: usize = 4;
const TLS13: usize = 5;
/// The most tickets of one handshake (OpenSSL has no bound; these are given out whether clients want them or not).
const TICKETS_MAX: usize = 16;

/// A command that a value was not right for, in OpenSSL's words; `before` is what went wrong first.
fn bad_value(command: &Command, before: &str) -> String {
    let Command { name, value } = command;
    format!(
        "SSL_CONF_cmd(\"{name}\", \"{value}\") failed (SSL: {before}error:0A000180:SSL routines::bad value:cmd={name}, \
         value={value})"
    )
}

const NO_CIPHER_MATCH: &str = "error:0A0000B9:SSL routines::no cipher match ";

impl Maker<'_> {
    /// Carries the commands of a server out.
    pub(super) fn commands(&mut self, conf: &Conf, options: &mut ServerOptions) -> Result<(), Reported> {
        for command in conf.commands.iter() {
            let value = command.value.to_str_lossy();
            match &*command.name.to_str_lossy().to_ascii_lowercase() {
                "ciphersuites" => {
                    options.tls13_ciphers = Some(self.tls13_ciphers(command, options.tls13)?);
                }
                "certificate" | "privatekey" => {}
                "cipherstring" => options.ciphers = Some(self.commanded_ciphers(command, options.tls12)?),
                "curves" | "groups" => options.groups = Some(self.commanded_groups(command)?),
                "options" => self.options(command, options)?,
                "numtickets" => match value.parse() {
                    Ok(count) if count <= TICKETS_MAX => options.tickets_each = Some(count),
                    _ => return self.refuse(bad_value(command, ""), None),
                },
                _ => self.protocol_command(command, (&mut options.tls12, &mut options.tls13))?,
            }
        }
        if let Some(identity) = self.commanded_identity(&conf.commands)? {
            // It takes the place of one with a key of the same kind, as in OpenSSL.
            options.identities.retain(|known| !known.has_key_like(&identity));
            options.identities.insert(0, identity);
        }
        Ok(())
    }

    /// Carries a command about protocols out; others are not there.
    pub(super) fn protocol_command(
        &mut self,
        command: &Command,
        (tls12, tls13): (&mut bool, &mut bool),
    ) -> Result<(), Reported> {
        let (name, value) = (&command.name, command.value.to_str_lossy());
        let place = |value: &str| PROTOCOLS.iter().position(|known| known.eq_ignore_ascii_case(value));
        match &*name.to_str_lossy().to_ascii_lowercase() {
            "protocol" => {
                for word in value.split(',').map(str::trim) {
                    let (on, word) = match word.strip_prefix('-') {
                        Some(word) => (false, word),
                        None => (true, word.strip_prefix('+').unwrap_or(word)),
                    };
                    let all = word.eq_ignore_ascii_case("ALL");
                    let Some(place) = place(word).or(all.then_some(0)) else {
                        return self.refuse(bad_value(command, ""), None);
                    };
                    for (protocol, flag) in [(TLS12, &mut *tls12), (TLS13, &mut *tls13)] {
                        if all || place == protocol {
                            *flag = on;
                        }
                    }
                }
            }
            "minprotocol" | "maxprotocol" => {
                let is_least = name.to_ascii_lowercase().starts_with(b"min");
                let bound = match place(&value) {
                    Some(place) if place > 0 => place,
                    None if value.eq_ignore_ascii_case("None") => return Ok(()),
                    _ => return self.refuse(bad_value(command, ""), None),
                };
                for (protocol, flag) in [(TLS12, tls12), (TLS13, tls13)] {
                    *flag &= if is_least { protocol >= bound } else { protocol <= bound };
                }
            }
            lower if KNOWN.iter().any(|known| known.eq_ignore_ascii_case(lower)) => {
                let text = format!("SSL_CONF_cmd(\"{name}\", \"{value}\") failed");
                let help = "OpenSSL has this command; here there is nothing that could do it".to_owned();
                return self.refuse(text, Some(help));
            }
            _ => {
                let text = format!(
                    "SSL_CONF_cmd(\"{name}\", \"{value}\") failed (SSL: error:0A000182:SSL routines::unknown cmd \
                     name:cmd={name})"
                );
                return self.refuse(text, None);
            }
        }
        Ok(())
    }

    /// The certificate that `Certificate` and `PrivateKey` among the commands name.
    pub(super) fn commanded_identity(&mut self, commands: &[Command]) -> Result<Option<Identity>, Reported> {
        let last = |name: &str| {
            let named = |command: &&Command| command.name.eq_ignore_ascii_case(name.as_bytes());
            commands.iter().rfind(named)
        };
        let Some(certificate) = last("Certificate") else { return Ok(None) };
        // Without a key of its own the certificate's file holds it.
        let key = last("PrivateKey").unwrap_or(certificate);
        self.identity(&certificate.value, &key.value, &[])
    }

    /// The ciphers of TLS 1.2 that a command names.
    pub(super) fn commanded_ciphers(
        &mut self,
        command: &Command,
        tls12: bool,
    ) -> Result<Vec<CipherSuite>, Reported> {
        let selected = names::select_ciphers(&command.value.to_str_lossy());
        if selected.found.is_empty() && tls12 {
            return self.refuse(bad_value(command, NO_CIPHER_MATCH), None);
        }
        self.missing_ciphers(&selected.missing, "ssl_conf_command");
        Ok(selected.found)
    }

    /// The ciphers of TLS 1.3 that a command names.
    pub(super) fn tls13_ciphers(
        &mut self,
        command: &Command,
        tls13: bool,
    ) -> Result<Vec<CipherSuite>, Reported> {
        let selected = names::select_tls13_ciphers(&command.value.to_str_lossy());
        if selected.found.is_empty() && tls13 {
            return self.refuse(bad_value(command, NO_CIPHER_MATCH), None);
        }
        self.missing_ciphers(&selected.missing, "ssl_conf_command");
        Ok(selected.found)
    }

    /// The key exchanges that a command names.
    pub(super) fn commanded_groups(&mut self, command: &Command) -> Result<Vec<NamedGroup>, Reported> {
        let before =
            |why: &str| bad_value(command, &if why.is_empty() { String::new() } else { format!("{why} ") });
        self.groups(&command.value.to_str_lossy(), before)
    }

    /// `ssl_conf_command Options`: a list of switches, on or, with a minus, off.
    fn options(&mut self, command: &Command, options: &mut ServerOptions) -> Result<(), Reported> {
        for (on, name) in self.switches(command)? {
            match &*name.to_ascii_lowercase() {
                "serverpreference" => options.prefer_server_ciphers = on,
                "sessionticket" if on => {
                    options.tickets.get_or_insert_with(|| TicketKeys::own(options.session_seconds));
                }
                "sessionticket" => options.tickets = None,
                _ => self.idle_option(&name),
            }
        }
        Ok(())
    }

    /// The switches of an `Options` command; all are OpenSSL's.
    pub(super) fn switches(&mut self, command: &Command) -> Result<Vec<(bool, String)>, Reported> {
        let mut switches = Vec::new();
        for word in command.value.to_str_lossy().split(',').map(str::trim) {
            let (on, name) = match word.strip_prefix('-') {
                Some(name) => (false, name),
                None => (true, word.strip_prefix('+').unwrap_or(word)),
            };
            if !OPTIONS.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                return self.refuse(bad_value(command, ""), None);
            }
            switches.push((on, name.to_owned()));
        }
        Ok(switches)
    }

    pub(super) fn idle_option(&mut self, name: &str) {
        self.warn_once(format!("the option {name} of \"ssl_conf_command\" has no effect"), None);
    }
}
