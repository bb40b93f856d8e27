//! Certificates for scenarios, made anew each time: a `certificates` block has a line for each. `spec/README.md` tells
//! the words.

use crate::document::Block;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_RSA_SHA256,
    RevokedCertParams, RsaKeySize, SanType, SerialNumber, date_time_ymd,
};
use std::net::IpAddr;
use std::path::Path;

/// One that was made.
struct Made {
    name: String,
    issuer: Option<usize>,
    params: CertificateParams,
    key: KeyPair,
    pem: String,
    revoked: bool,
}

/// Makes the certificates of a block in a folder: `NAME.crt`, `NAME.key`, and `NAME.crl` of each authority.
///
/// # Errors
/// The line of the document, and what is wrong there.
pub fn make(block: &Block, folder: &Path) -> Result<(), (usize, String)> {
    let mut made: Vec<Made> = Vec::new();
    for (line, text) in block.lines().filter(|(_, text)| !text.trim().is_empty()) {
        let serial = made.len() as u64 + 1;
        made.push(make_one(text, serial, &made).map_err(|error| (line, error))?);
    }
    for (index, one) in made.iter().enumerate() {
        let write = |ending: &str, text: &str| {
            let path = folder.join(format!("{}.{ending}", one.name));
            std::fs::write(&path, text).map_err(|error| (block.line, format!("{}: {error}", path.display())))
        };
        write("crt", &one.pem)?;
        write("key", &one.key.serialize_pem())?;
        if one.params.is_ca != IsCa::NoCa {
            let revoked = made.iter().filter(|other| other.issuer == Some(index) && other.revoked);
            write("crl", &revocation_list(one, revoked).map_err(|error| (block.line, error.to_string()))?)?;
        }
    }
    Ok(())
}

fn make_one(text: &str, serial: u64, made: &[Made]) -> Result<Made, String> {
    let mut words = text.split_whitespace();
    let name = words.next().unwrap_or_default().to_owned();
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(serial));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name.as_str());
    let (mut issuer, mut rsa, mut chain, mut revoked) = (None, false, false, false);
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("authority", "") => {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            }
            ("by", by) => {
                let found = made.iter().position(|known| known.name == by);
                issuer = Some(found.ok_or_else(|| format!("\"{by}\" is not made above"))?);
            }
            ("cn", common) => params.distinguished_name.push(DnType::CommonName, common),
            ("org", name) => params.distinguished_name.push(DnType::OrganizationName, name),
            ("dns", name) => {
                let name = name.try_into().map_err(|_| format!("\"{name}\" is no name"))?;
                params.subject_alt_names.push(SanType::DnsName(name));
            }
            ("ip", address) => {
                let address: IpAddr = address.parse().map_err(|_| format!("\"{address}\" is no address"))?;
                params.subject_alt_names.push(SanType::IpAddress(address));
            }
            ("for", "clients") => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
            ("for", "servers") => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
            ("permits", name) => {
                let permitted_subtrees = vec![GeneralSubtree::DnsName(name.to_owned())];
                let constraints = NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() };
                params.name_constraints = Some(constraints);
            }
            ("rsa", "") => rsa = true,
            ("chain", "") => chain = true,
            ("expired", "") => params.not_after = date_time_ymd(2020, 1, 2),
            ("future", "") => params.not_before = date_time_ymd(2400, 1, 1),
            ("revoked", "") => revoked = true,
            _ => return Err(format!("\"{word}\" means nothing here")),
        }
    }
    let key = match rsa {
        true => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        false => KeyPair::generate(),
    };
    let key = key.map_err(|error| error.to_string())?;
    let certificate = match issuer.map(|index| &made[index]) {
        Some(by) => params.signed_by(&key, &Issuer::from_params(&by.params, &by.key)),
        None => params.self_signed(&key),
    };
    let mut pem = certificate.map_err(|error| error.to_string())?.pem();
    if chain && let Some(by) = issuer.map(|index| &made[index]) {
        pem.push_str(&by.pem);
    }
    Ok(Made { name, issuer, params, key, pem, revoked })
}

fn revocation_list<'a>(
    issuer: &Made,
    revoked: impl Iterator<Item = &'a Made>,
) -> Result<String, rcgen::Error> {
    let entry = |one: &Made| {
        Some(RevokedCertParams {
            serial_number: one.params.serial_number.clone()?,
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        })
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2400, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.filter_map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(&Issuer::from_params(&issuer.params, &issuer.key))?.pem()
}
