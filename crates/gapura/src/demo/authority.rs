//! A certificate authority for `gapura demo --https`, made on the spot, and the certificate of the demo's gateway.
//!
//! The authority stays in the demo's folder, so that whoever trusts it once does so for the next start too. It may
//! speak for names under `localhost` and for addresses of the loopback alone (name constraints, RFC 5280 section
//! 4.2.1.10): a stolen key of it opens nothing elsewhere.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};

/// The names that the gateway's certificate is good for.
const NAMES: [&str; 3] = ["localhost", "mydomain.localhost", "loadbalance.localhost"];
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_DAYS: u32 = 3650;
const GATEWAY_DAYS: u32 = 90;

/// Makes the folder `tls` with what the gateway needs, or renews what is in it, and gives the authority's certificate.
///
/// # Errors
/// In words: a file cannot be read or written, or a key in it is none.
pub fn prepare(folder: &Path) -> Result<PathBuf, String> {
    let folder = folder.join("tls");
    let failed = |error: io::Error| format!("cannot keep keys in {}: {error}", folder.display());
    fs::create_dir_all(&folder).map_err(failed)?;
    let certificate = folder.join("authority.crt");
    let authority = authority(&folder, &certificate)
        .map_err(|error| format!("cannot make an authority in {}: {error}", folder.display()))?;
    let (chain, key) = gateway(&authority).map_err(|error| format!("cannot make a certificate: {error}"))?;
    write_secret(&folder.join("gateway.key"), &key).map_err(failed)?;
    fs::write(folder.join("gateway.crt"), chain).map_err(failed)?;
    Ok(certificate)
}

/// The authority of the last time, or a new one.
fn authority(folder: &Path, certificate: &Path) -> io::Result<Issuer<'static, KeyPair>> {
    let key_file = folder.join("authority.key");
    let parameters = authority_parameters()?;
    if certificate.exists()
        && let Ok(text) = fs::read_to_string(&key_file)
    {
        let key = KeyPair::from_pem(&text)
            .map_err(|error| io::Error::other(format!("{} holds no key: {error}", key_file.display())))?;
        return Ok(Issuer::new(parameters, key));
    }
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let text = parameters.self_signed(&key).map_err(io::Error::other)?.pem();
    write_secret(&key_file, &key.serialize_pem())?;
    fs::write(certificate, text)?;
    Ok(Issuer::new(parameters, key))
}

fn authority_parameters() -> io::Result<CertificateParams> {
    let mut parameters = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
    parameters.distinguished_name = named("Gapura demo authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::V4([127, 0, 0, 0], [255, 0, 0, 0])),
        ],
        excluded_subtrees: Vec::new(),
    });
    last(&mut parameters, AUTHORITY_DAYS);
    Ok(parameters)
}

/// The gateway's certificate and its key.
fn gateway(authority: &Issuer<'_, KeyPair>) -> Result<(String, String), rcgen::Error> {
    let mut parameters = CertificateParams::new(NAMES.map(str::to_owned))?;
    parameters.distinguished_name = named("Gapura demo");
    parameters.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    last(&mut parameters, GATEWAY_DAYS);
    let key = KeyPair::generate()?;
    Ok((parameters.signed_by(&key, authority)?.pem(), key.serialize_pem()))
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// Valid from yesterday on, for the sake of clocks that are behind.
fn last(parameters: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    parameters.not_before = (now - DAY).into();
    parameters.not_after = (now + DAY * days).into();
}

/// Writes a file that only its owner can read, from its first byte on.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let _ = fs::remove_file(path); // an older one may be open to others
    let mut file: File = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
