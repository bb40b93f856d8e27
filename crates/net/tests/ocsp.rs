//! Which answers about certificates (OCSP) are believed. Every answer is made here, signed by a key made here, so that
//! each can be wrong in one way.

use net::tls::Trust;
use net::tls::ocsp::{Answer, Question, Signers, Status};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, SigningKey, date_time_ymd,
};

/// 15 June 2026, noon.
const NOW_SECONDS: i64 = 1_781_524_800;
const EARLIER: &str = "20260615100000Z";
const LATER: &str = "20260616120000Z";
const NOON: &str = "20260615120000Z";
const NOON_AND_A_BIT: &str = "20260615120100Z";

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).expect("answers are short").to_be_bytes();
    [&[tag, 0x82], &length[..], &content].concat()
}

/// A certificate with its key.
struct Party {
    params: CertificateParams,
    key: KeyPair,
    certificate: Certificate,
}

impl Party {
    fn new(name: &str, serial: u64, by: Option<&Party>, change: impl Fn(&mut CertificateParams)) -> Party {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = match by {
            Some(by) => params.signed_by(&key, &Issuer::from_params(&by.params, &by.key)),
            None => params.self_signed(&key),
        };
        Party { certificate: certificate.expect("a certificate"), params, key }
    }

    fn authority(name: &str) -> Party {
        Party::new(name, 1, None, |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        })
    }

    fn der(&self) -> &[u8] {
        self.certificate.der()
    }
}

/// An answer that is whole and right until a test changes it.
struct Response<'a> {
    outcome: u8,
    about: Vec<u8>,
    status: &'a [u8],
    this_update: &'a str,
    next_update: Option<&'a str>,
    signer: &'a Party,
    shown: Vec<&'a Party>,
    signs_it: bool,
}

const GOOD: &[u8] = &[0x80, 0];
const UNKNOWN: &[u8] = &[0x82, 0];

impl<'a> Response<'a> {
    fn good(question: &Question, signer: &'a Party) -> Response<'a> {
        Response {
            outcome: 0,
            about: question.certificate_id().expect("a certificate"),
            status: GOOD,
            this_update: EARLIER,
            next_update: Some(LATER),
            signer,
            shown: Vec::new(),
            signs_it: true,
        }
    }

    fn make(&self) -> Vec<u8> {
        const GENERALIZED_TIME: u8 = 0x18;
        const SEQUENCE: u8 = 0x30;
        let time = |text: &str| der(GENERALIZED_TIME, &[text.as_bytes()]);
        let next_update = self.next_update.map(|text| der(0xa0, &[&time(text)])).unwrap_or_default();
        let single = der(SEQUENCE, &[&self.about, self.status, &time(self.this_update), &next_update]);
        let responder = der(0xa2, &[&der(4, &[&[0; 20]])]);
        let data = der(SEQUENCE, &[&responder, &time(EARLIER), &der(SEQUENCE, &[&single])]);
        let ecdsa_with_sha256 = der(SEQUENCE, &[&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]]);
        let signed: &[u8] = if self.signs_it { &data } else { b"something else" };
        let signature = self.signer.key.sign(signed).expect("a signature");
        let shown: Vec<&[u8]> = self.shown.iter().map(|party| party.der()).collect();
        let shown = der(0xa0, &[&der(SEQUENCE, &shown)]);
        let basic = der(SEQUENCE, &[&data, &ecdsa_with_sha256, &der(3, &[&[0], &signature]), &shown]);
        let kind = [6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
        let bytes = der(0xa0, &[&der(SEQUENCE, &[&kind, &der(4, &[&basic])])]);
        der(SEQUENCE, &[&[0x0a, 1, self.outcome], &bytes])
    }
}

fn answers_for_it(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
}

const BAD_SIGNATURE: Result<Status, &str> =
    Err("OCSP_basic_verify() failed (SSL: error:13800065:OCSP routines::certificate verify error)");
const TOO_EARLY: Result<Status, &str> =
    Err("OCSP_check_validity() failed (SSL: error:1380007E:OCSP routines::status not yet valid)");
const TOO_LATE: Result<Status, &str> =
    Err("OCSP_check_validity() failed (SSL: error:1380007D:OCSP routines::status expired)");
const MIXED_UP: Result<Status, &str> =
    Err("OCSP_check_validity() failed (SSL: error:1380007C:OCSP routines::nextupdate before thisupdate)");
const NOT_FOUND: Result<Status, &str> = Err("certificate status not found in the OCSP response");

#[test]
fn what_is_believed() {
    let issuer = Party::authority("issuer");
    let leaf = Party::new("leaf", 7, Some(&issuer), |_| {});
    let other = Party::new("other", 8, Some(&issuer), |_| {});
    let question = Question::of(leaf.der(), issuer.der());
    let revoked = der(0xa1, &[&der(0x18, &[EARLIER.as_bytes()])]);
    let good = || Response::good(&question, &issuer);
    let about_other = Question::of(other.der(), issuer.der()).certificate_id().expect("a certificate");
    let unsuccessful = Err("OCSP response not successful (3: trylater)");
    for (what, response, expected) in [
        ("good", good(), Ok(Status::Good)),
        ("revoked", Response { status: &revoked, ..good() }, Ok(Status::Revoked)),
        ("unknown", Response { status: UNKNOWN, ..good() }, Ok(Status::Unknown)),
        ("without an end", Response { next_update: None, ..good() }, Ok(Status::Good)),
        ("try later", Response { outcome: 3, ..good() }, unsuccessful),
        ("another's", Response { about: about_other, ..good() }, NOT_FOUND),
        ("signed wrongly", Response { signs_it: false, ..good() }, BAD_SIGNATURE),
        ("of tomorrow", Response { this_update: LATER, ..good() }, TOO_EARLY),
        ("of the past", Response { next_update: Some("20260615115000Z"), ..good() }, TOO_LATE),
        (
            "within five minutes",
            Response { next_update: Some("20260615115600Z"), ..good() },
            Ok(Status::Good),
        ),
        (
            "ends before it begins",
            Response { this_update: NOON_AND_A_BIT, next_update: Some(NOON), ..good() },
            MIXED_UP,
        ),
        ("an end that is no time", Response { next_update: Some("soon"), ..good() }, NOT_FOUND),
    ] {
        let answer = question.read(&response.make(), Signers::Issuer(&Trust::default()), NOW_SECONDS);
        let status = answer.as_ref().map(|answer| answer.status).map_err(String::as_str);
        assert_eq!(status, expected, "{what}");
    }
    let answer = question.read(&good().make(), Signers::Issuer(&Trust::default()), NOW_SECONDS);
    assert_eq!(answer, Ok(Answer { status: Status::Good, next_update: Some(NOW_SECONDS + 86_400) }));
}

#[test]
fn who_may_answer() {
    let issuer = Party::authority("issuer");
    let stranger = Party::authority("stranger");
    let namesake = Party::authority("issuer");
    let leaf = Party::new("leaf", 7, Some(&issuer), |_| {});
    let appointed = Party::new("appointed", 8, Some(&issuer), answers_for_it);
    let not_appointed = Party::new("other", 9, Some(&issuer), |_| {});
    let of_stranger = Party::new("appointed", 8, Some(&stranger), answers_for_it);
    let of_namesake = Party::new("appointed", 8, Some(&namesake), answers_for_it);
    let ended = Party::new("appointed", 10, Some(&issuer), |params| {
        answers_for_it(params);
        params.not_after = date_time_ymd(2026, 6, 14);
    });
    let dismissed = Party::new("appointed", 11, Some(&issuer), answers_for_it);
    let lists = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2027, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(11_u64),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let lists = lists.signed_by(&Issuer::from_params(&issuer.params, &issuer.key)).expect("a list");
    let mut trust = Trust::default();
    trust.revoke(lists.pem().expect("a list").as_bytes()).expect("a list");
    let question = Question::of(leaf.der(), issuer.der());
    for (what, signer, shown, expected) in [
        ("the issuer", &issuer, None, Ok(Status::Good)),
        ("whom it appointed", &appointed, Some(&appointed), Ok(Status::Good)),
        ("whose certificate is not there", &appointed, None, BAD_SIGNATURE),
        ("whose certificate is another's", &appointed, Some(&dismissed), BAD_SIGNATURE),
        ("whom it did not appoint", &not_appointed, Some(&not_appointed), BAD_SIGNATURE),
        ("the leaf itself", &leaf, Some(&leaf), BAD_SIGNATURE),
        ("another authority", &stranger, Some(&stranger), BAD_SIGNATURE),
        ("whom another appointed", &of_stranger, Some(&of_stranger), BAD_SIGNATURE),
        ("whom a namesake appointed", &of_namesake, Some(&of_namesake), BAD_SIGNATURE),
        ("whose time has passed", &ended, Some(&ended), BAD_SIGNATURE),
        ("who is on a list", &dismissed, Some(&dismissed), BAD_SIGNATURE),
    ] {
        let response = Response { shown: shown.into_iter().collect(), ..Response::good(&question, signer) };
        let answer = question.read(&response.make(), Signers::Issuer(&trust), NOW_SECONDS);
        let status = answer.as_ref().map(|answer| answer.status).map_err(String::as_str);
        assert_eq!(status, expected, "{what}");
        // Where nobody is asked who it is, the signature must fit all the same.
        let anybody = question.read(&response.make(), Signers::Anybody, NOW_SECONDS);
        let is_there =
            shown.is_some_and(|shown| std::ptr::eq(shown, signer)) || std::ptr::eq(signer, &issuer);
        assert_eq!(anybody.is_ok(), is_there, "{what}, signed by anybody");
    }
}

#[test]
fn broken_answers_are_refused() {
    let issuer = Party::authority("issuer");
    let leaf = Party::new("leaf", 7, Some(&issuer), |_| {});
    let question = Question::of(leaf.der(), issuer.der());
    let whole = Response::good(&question, &issuer).make();
    let trust = Trust::default();
    let read = |bytes: &[u8]| question.read(bytes, Signers::Issuer(&trust), NOW_SECONDS);
    assert!(read(&whole).is_ok());
    for length in 0..whole.len() {
        assert!(read(&whole[..length]).is_err(), "{length} bytes of it");
    }
    // The last bytes list certificates, none here; what stands before them is signed or says what it is.
    for place in 0..whole.len() - 8 {
        let mut changed = whole.clone();
        changed[place] ^= 0x41;
        assert!(read(&changed).is_err(), "byte {place} of it changed");
    }
}
