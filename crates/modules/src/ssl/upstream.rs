//! `proxy_ssl_*` and its kin: TLS to upstreams. One table for all modules that call upstreams.

use super::settings::{Maker, Reported};
use super::{CertificateCache, Command, Protocols, TLS12, TLS13};
use bstr::{BString, ByteSlice};
use engine::Build;
use engine::module::{Family, cells};
use engine::tls::named::{Pair, Reader};
use engine::upstream::tls::UpstreamTls;
use net::tls::{ClientOptions, ClientSettings, Trust};
use schema::hash::QuickMap;
use schema::{Bitmask, Directive, Flag, Inherit, Number, field, list};
use std::sync::Arc;
use template::Template;

/// What a location says about TLS to its upstream.
#[derive(Default, Clone)]
pub struct UpstreamConf {
    session_reuse: Inherit<Flag>,
    protocols: Inherit<Bitmask<Protocols>>,
    ciphers: Inherit<BString>,
    commands: Inherit<Vec<Command>>,
    name: Inherit<Option<Template>>,
    server_name: Inherit<Flag>,
    verify: Inherit<Flag>,
    verify_depth: Inherit<Number>,
    trusted_certificate: Inherit<BString>,
    crl: Inherit<BString>,
    certificate: Inherit<BString>,
    certificate_key: Inherit<BString>,
    password_file: Inherit<BString>,
    certificate_cache: Inherit<CertificateCache>,
}

static ROWS: &[Directive] = &[
    Directive {
        name: "session_reuse",
        default: "on",
        set: field!(UpstreamConf.session_reuse),
        doc: "Whether upstreams may go on with earlier sessions.",
    },
    Directive {
        name: "protocols",
        default: "TLSv1.2 TLSv1.3",
        set: field!(UpstreamConf.protocols),
        doc: "Protocols that are spoken with upstreams.",
    },
    Directive {
        name: "ciphers",
        default: "DEFAULT",
        set: field!(UpstreamConf.ciphers),
        doc: "Ciphers of TLS 1.2 for upstreams, in OpenSSL's form.",
    },
    Directive {
        name: "conf_command",
        default: "",
        set: list!(UpstreamConf.commands),
        doc: "A setting for upstreams in OpenSSL's words.",
    },
    Directive {
        name: "name",
        default: "",
        set: field!(UpstreamConf.name),
        doc: "The name that an upstream's certificate must have, and that it is told.",
    },
    Directive {
        name: "server_name",
        default: "off",
        set: field!(UpstreamConf.server_name),
        doc: "Whether upstreams are told the name that is meant (SNI).",
    },
    Directive {
        name: "verify",
        default: "off",
        set: field!(UpstreamConf.verify),
        doc: "Whether upstreams' certificates are judged.",
    },
    Directive {
        name: "verify_depth",
        default: "1",
        set: field!(UpstreamConf.verify_depth),
        doc: "How long an upstream's chain may be.",
    },
    Directive {
        name: "trusted_certificate",
        default: "",
        set: field!(UpstreamConf.trusted_certificate),
        doc: "Authorities for upstreams; the system's where none are named.",
    },
    Directive {
        name: "crl",
        default: "",
        set: field!(UpstreamConf.crl),
        doc: "Lists of revoked certificates of upstreams.",
    },
    Directive {
        name: "certificate",
        default: "",
        set: field!(UpstreamConf.certificate),
        doc: "The certificate that upstreams are shown.",
    },
    Directive {
        name: "certificate_key",
        default: "",
        set: field!(UpstreamConf.certificate_key),
        doc: "The key of the certificate that upstreams are shown.",
    },
    Directive {
        name: "certificate_cache",
        default: "off",
        set: field!(UpstreamConf.certificate_cache),
        doc: "How many certificates and keys for upstreams that variables name are kept once read.",
    },
    Directive {
        name: "password_file",
        default: "",
        set: field!(UpstreamConf.password_file),
        doc: "A file with passwords of encrypted keys for upstreams.",
    },
];

/// The family under a prefix such as `proxy_ssl_`.
pub const fn family(prefix: &'static str) -> Family {
    Family { prefix, rows: ROWS, cells: cells::<UpstreamConf> }
}

/// What was made already, by what it was made of: many locations say the same.
#[derive(Default)]
struct Made(QuickMap<String, Option<ClientSettings>>);

/// TLS as a location wants it; none where something is wrong with it, which has been reported then.
/// `prefix` is the family's; HTTP/2 is proposed where that is spoken.
pub fn make(
    conf: &UpstreamConf,
    prefix: &'static str,
    http2: bool,
    build: &mut Build,
) -> Option<Arc<UpstreamTls>> {
    let key = format!("{}{http2}", conf.key());
    let settings = match build.shared::<Made>().0.get(&key) {
        Some(known) => known.clone(),
        None => {
            let span = conf.certificate.span.or(conf.trusted_certificate.span);
            let made = Maker { build: &mut *build, span }.upstream(conf, prefix, http2).ok();
            build.shared::<Made>().0.insert(key, made.clone());
            made
        }
    };
    let mut tls = UpstreamTls::new(settings?, (*conf.name).clone());
    if conf.has_named_certificate() {
        let span = conf.certificate.span;
        let mut maker = Maker { build: &mut *build, span };
        tls.certificate = Some(maker.named_certificate(conf).ok()?);
    }
    Some(Arc::new(tls))
}

impl UpstreamConf {
    /// Do variables name the certificate?
    fn has_named_certificate(&self) -> bool {
        !self.certificate.is_empty()
            && (self.certificate.contains(&b'$') || self.certificate_key.contains(&b'$'))
    }

    /// All that settings are made of, as text.
    fn key(&self) -> String {
        let commands: Vec<String> =
            self.commands.iter().map(|command| format!("{} {}", command.name, command.value)).collect();
        format!(
            "{:?}",
            (
                (self.session_reuse.0, self.protocols.bits, &*self.ciphers, commands),
                (self.server_name.0, self.verify.0, self.verify_depth.0),
                (&*self.trusted_certificate, &*self.crl),
                (&*self.certificate, &*self.certificate_key, &*self.password_file),
            )
        )
    }
}

impl Maker<'_> {
    fn upstream(
        &mut self,
        conf: &UpstreamConf,
        prefix: &str,
        http2: bool,
    ) -> Result<ClientSettings, Reported> {
        let (tls12, tls13) =
            self.versions(conf.protocols.bits & (TLS12 | TLS13 | 15), &format!("{prefix}protocols"))?;
        let mut options = ClientOptions { tls12, tls13, ..ClientOptions::default() };
        options.http2 = http2;
        options.session_reuse = conf.session_reuse.0;
        options.server_name = conf.server_name.0;
        options.ciphers =
            Some(self.cipher_list(&conf.ciphers.to_str_lossy(), &format!("{prefix}ciphers"), tls12)?);
        for command in conf.commands.iter() {
            match &*command.name.to_str_lossy().to_ascii_lowercase() {
                "ciphersuites" => options.tls13_ciphers = Some(self.tls13_ciphers(command, tls13)?),
                "cipherstring" => options.ciphers = Some(self.commanded_ciphers(command, tls12)?),
                "certificate" | "privatekey" => {}
                "curves" | "groups" => options.groups = Some(self.commanded_groups(command)?),
                "options" => {
                    for (_, name) in self.switches(command)? {
                        self.idle_option(&name);
                    }
                }
                _ => self.protocol_command(command, (&mut options.tls12, &mut options.tls13))?,
            }
        }
        let passwords = self.passwords(&conf.password_file)?;
        if !conf.certificate.is_empty() {
            if conf.certificate_key.is_empty() && conf.certificate_key.span.is_none() {
                let text = format!(
                    "no \"{prefix}certificate_key\" is defined for certificate \"{}\"",
                    *conf.certificate
                );
                return self.refuse(text, None);
            }
            if !conf.has_named_certificate() {
                options.identity = self.identity(&conf.certificate, &conf.certificate_key, &passwords)?;
            }
        }
        if let Some(identity) = self.commanded_identity(&conf.commands)? {
            options.identity = Some(identity);
        }
        if conf.verify.0 {
            options.trust = Some(Arc::new(self.upstream_trust(conf)?));
        }
        match ClientSettings::new(&options) {
            Ok(settings) => Ok(settings),
            Err(why) => self.refuse(format!("SSL_CTX_new() failed (SSL: {why})"), None),
        }
    }

    fn named_certificate(&mut self, conf: &UpstreamConf) -> Result<(Pair, Reader), Reported> {
        let passwords = self.passwords(&conf.password_file)?;
        let Some(pair) = self.pair(&conf.certificate, &conf.certificate_key)? else { return Err(Reported) };
        Ok((pair, self.reader(passwords, &conf.certificate_cache)))
    }

    /// Whom upstreams' certificates must be known to.
    fn upstream_trust(&mut self, conf: &UpstreamConf) -> Result<Trust, Reported> {
        let depth = conf.verify_depth.0;
        let mut trust = match conf.trusted_certificate.is_empty() {
            true => Trust::of_system(depth),
            false => {
                let mut trust = Trust::in_nobody(depth);
                self.authorities(&conf.trusted_certificate, &mut trust)?;
                trust
            }
        };
        if !conf.crl.is_empty() {
            self.revocations(&conf.crl, &mut trust)?;
        }
        Ok(trust)
    }
}
