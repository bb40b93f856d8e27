//! The library's errors in OpenSSL's numbers and words, as nginx logs them: people look these up, and programs read
//! them from logs. A table for each group; what a later version of the library adds falls to the words of its group.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved};

/// Where OpenSSL's errors of its TLS begin (`ERR_LIB_SSL`).
const OF_TLS: u32 = 0x0a00_0000;
/// Where among them those begin that stand for alerts of the peer (`SSL_AD_REASON_OFFSET`).
const OF_ALERTS: u32 = 1000;

/// A reason: OpenSSL's number and words.
type Reason = (u32, &'static str);

const BAD_CHANGE_CIPHER_SPEC: Reason = (103, "bad change cipher spec");
const INCONSISTENT_EXTMS: Reason = (104, "inconsistent extms");
const BAD_KEY_SHARE: Reason = (108, "bad key share");
const BAD_EXTENSION: Reason = (110, "bad extension");
const MISSING_SIGALGS: Reason = (112, "missing sigalgs extension");
const NO_SIGNATURE_ALGORITHM: Reason = (118, "no suitable signature algorithm");
const BAD_KEY_UPDATE: Reason = (122, "bad key update");
const BAD_SIGNATURE: Reason = (123, "bad signature");
const TOO_MANY_KEY_UPDATES: Reason = (132, "too many key updates");
const CERTIFICATE_VERIFY_FAILED: Reason = (134, "certificate verify failed");
const ENCRYPTED_LENGTH_TOO_LONG: Reason = (150, "encrypted length too long");
const EXCESSIVE_MESSAGE_SIZE: Reason = (152, "excessive message size");
const LENGTH_MISMATCH: Reason = (159, "length mismatch");
const TOO_MUCH_EARLY_DATA: Reason = (164, "too much early data");
const NOT_ON_RECORD_BOUNDARY: Reason = (182, "not on record boundary");
const NO_CIPHERS_SPECIFIED: Reason = (183, "no ciphers specified");
const NO_COMPRESSION_SPECIFIED: Reason = (187, "no compression specified");
const NO_SHARED_CIPHER: Reason = (193, "no shared cipher");
const PACKET_LENGTH_TOO_LONG: Reason = (198, "packet length too long");
const NO_CHANGE_FOLLOWING_HRR: Reason = (214, "no change following hrr");
const UNSOLICITED_EXTENSION: Reason = (217, "unsolicited extension");
const CIPHERSUITE_HAS_CHANGED: Reason = (218, "ciphersuite digest has changed");
const BAD_PSK: Reason = (219, "bad psk");
const NO_APPLICATION_PROTOCOL: Reason = (235, "no application protocol");
const UNEXPECTED_MESSAGE: Reason = (244, "unexpected message");
const BINDER_DOES_NOT_VERIFY: Reason = (253, "binder does not verify");
const UNSUPPORTED_COMPRESSION: Reason = (257, "unsupported compression algorithm");
const UNSUPPORTED_PROTOCOL: Reason = (258, "unsupported protocol");
const WRONG_VERSION_NUMBER: Reason = (267, "wrong version number");
const BAD_RECORD_MAC: Reason = (281, "decryption failed or bad record mac");
const RECORD_TOO_SMALL: Reason = (298, "record too small");
const MISSING_PSK_MODES: Reason = (310, "missing psk kex modes extension");
const INVALID_COMPRESSION: Reason = (341, "invalid compression algorithm");
const WRONG_SIGNATURE_TYPE: Reason = (370, "wrong signature type");
const INAPPROPRIATE_FALLBACK: Reason = (373, "inappropriate fallback");
const CERT_CB_ERROR: Reason = (377, "cert cb error");
const WRONG_CURVE: Reason = (378, "wrong curve");
const TOO_MANY_WARN_ALERTS: Reason = (409, "too many warn alerts");
const NO_SUITABLE_KEY_SHARE: Reason = (101, "no suitable key share");
const NO_SHARED_GROUPS: Reason = (410, "no shared groups");
/// OpenSSL's word for what should not happen (`ERR_R_INTERNAL_ERROR`).
const INTERNAL_ERROR: Reason = (0xc_0103, "internal error");

/// An error in OpenSSL's words, from its number on.
pub(super) fn of(error: &Error) -> String {
    if let Error::AlertReceived(alert) = error {
        let number = u8::from(*alert);
        let code = OF_TLS + OF_ALERTS + u32::from(number);
        let name = alert_name(*alert).map_or_else(|| format!("reason({})", code - OF_TLS), str::to_owned);
        return format!("{code:08X}:SSL routines::{name}:SSL alert number {number}");
    }
    let (number, words) = reason(error);
    format!("{:08X}:SSL routines::{words}", OF_TLS + number)
}

/// Is it we who are at fault, not the peer? nginx makes much of those.
pub(super) fn is_ours(error: &Error) -> bool {
    reason(error) == INTERNAL_ERROR && !matches!(error, Error::AlertReceived(_))
}

fn reason(error: &Error) -> Reason {
    match error {
        Error::InvalidMessage(why) => of_message(why),
        Error::PeerIncompatible(why) => of_incompatible(why),
        Error::PeerMisbehaved(why) => of_misbehaved(why),
        Error::InvalidCertificate(CertificateError::BadSignature) => BAD_SIGNATURE,
        Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_) => CERTIFICATE_VERIFY_FAILED,
        Error::NoCertificatesPresented => (199, "peer did not return a certificate"),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            UNEXPECTED_MESSAGE
        }
        Error::NoApplicationProtocol => NO_APPLICATION_PROTOCOL,
        Error::DecryptError => BAD_RECORD_MAC,
        Error::PeerSentOversizedRecord => ENCRYPTED_LENGTH_TOO_LONG,
        Error::InvalidEncryptedClientHello(_) | Error::UnsupportedNameType => BAD_EXTENSION,
        // A certificate that is still to come ([`super::Issued`]); nginx's variables fail in the same way.
        Error::General(why) if why == "no server certificate chain resolved" => CERT_CB_ERROR,
        _ => INTERNAL_ERROR,
    }
}

fn of_message(why: &InvalidMessage) -> Reason {
    use InvalidMessage as Why;
    match why {
        Why::InvalidContentType | Why::UnknownProtocolVersion => WRONG_VERSION_NUMBER,
        Why::CertificatePayloadTooLarge | Why::HandshakePayloadTooLarge => EXCESSIVE_MESSAGE_SIZE,
        Why::MessageTooLarge => PACKET_LENGTH_TOO_LONG,
        Why::IllegalEmptyList("CipherSuites") => NO_CIPHERS_SPECIFIED,
        Why::IllegalEmptyList("Compressions") => NO_COMPRESSION_SPECIFIED,
        Why::InvalidEmptyPayload => RECORD_TOO_SMALL,
        Why::InvalidCcs => BAD_CHANGE_CIPHER_SPEC,
        Why::InvalidKeyUpdate => BAD_KEY_UPDATE,
        Why::NoSignatureSchemes => MISSING_SIGALGS,
        Why::UnsupportedCompression => UNSUPPORTED_COMPRESSION,
        Why::UnsupportedCurveType => WRONG_CURVE,
        Why::UnexpectedMessage(_) => UNEXPECTED_MESSAGE,
        Why::MissingKeyExchange => BAD_KEY_SHARE,
        Why::InvalidServerName
        | Why::DuplicateExtension(_)
        | Why::PreSharedKeyIsNotFinalExtension
        | Why::UnknownHelloRetryRequestExtension
        | Why::UnknownCertificateExtension
        | Why::IllegalEmptyList(_)
        | Why::IllegalEmptyValue
        | Why::EmptyTicketValue => BAD_EXTENSION,
        // Lengths that do not fit what they stand before, and values nobody knows.
        _ => LENGTH_MISMATCH,
    }
}

fn of_incompatible(why: &PeerIncompatible) -> Reason {
    use PeerIncompatible as Why;
    match why {
        Why::NoCipherSuitesInCommon => NO_SHARED_CIPHER,
        Why::NoKxGroupsInCommon => NO_SUITABLE_KEY_SHARE,
        Why::NoSignatureSchemesInCommon | Why::NoCertificateRequestSignatureSchemesInCommon => {
            NO_SIGNATURE_ALGORITHM
        }
        Why::SignatureAlgorithmsExtensionRequired => MISSING_SIGALGS,
        Why::KeyShareExtensionRequired => NO_SUITABLE_KEY_SHARE,
        Why::NamedGroupsExtensionRequired => NO_SHARED_GROUPS,
        Why::NullCompressionRequired => NO_COMPRESSION_SPECIFIED,
        Why::ExtendedMasterSecretExtensionRequired => INCONSISTENT_EXTMS,
        Why::EcPointsExtensionRequired
        | Why::NoEcPointFormatsInCommon
        | Why::UncompressedEcPointsRequired
        | Why::IncorrectCertificateTypeExtension
        | Why::UnsolicitedCertificateTypeExtension
        | Why::ServerSentHelloRetryRequestWithUnknownExtension
        | Why::ServerRejectedEncryptedClientHello(_) => BAD_EXTENSION,
        // All that is left is about versions.
        _ => UNSUPPORTED_PROTOCOL,
    }
}

fn of_misbehaved(why: &PeerMisbehaved) -> Reason {
    use PeerMisbehaved as Why;
    match why {
        Why::AttemptedDowngradeToTls12WhenTls13IsSupported => INAPPROPRIATE_FALLBACK,
        Why::CipherSuiteDifferedOnRetry
        | Why::SelectedDifferentCipherSuiteAfterRetry
        | Why::EarlyDataOfferedWithVariedCipherSuite
        | Why::ResumptionOfferedWithVariedCipherSuite
        | Why::ResumptionOfferedWithIncompatibleCipherSuite => CIPHERSUITE_HAS_CHANGED,
        Why::SelectedUnofferedCipherSuite | Why::SelectedUnusableCipherSuiteForVersion => NO_SHARED_CIPHER,
        Why::HandshakeHashVariedAfterRetry
        | Why::IllegalHelloRetryRequestWithNoChanges
        | Why::RefusedToFollowHelloRetryRequest
        | Why::ServerNameDifferedOnRetry => NO_CHANGE_FOLLOWING_HRR,
        Why::IllegalMiddleboxChangeCipherSpec => BAD_CHANGE_CIPHER_SPEC,
        Why::IllegalTlsInnerPlaintext | Why::TooManyEmptyFragments => RECORD_TOO_SMALL,
        Why::IncorrectBinder => BINDER_DOES_NOT_VERIFY,
        Why::MissingBinderInPskExtension
        | Why::PskExtensionWithMismatchedIdsAndBinders
        | Why::SelectedInvalidPsk
        | Why::SelectedUnofferedPsk => BAD_PSK,
        Why::MissingPskModesExtension => MISSING_PSK_MODES,
        Why::InvalidKeyShare
        | Why::MissingKeyShare
        | Why::OfferedDuplicateKeyShares
        | Why::SelectedUnofferedKxGroup
        | Why::WrongGroupForKeyShare => BAD_KEY_SHARE,
        Why::InvalidCertCompression | Why::SelectedUnofferedCertCompression => INVALID_COMPRESSION,
        Why::OfferedIncorrectCompressions | Why::SelectedUnofferedCompression => UNSUPPORTED_COMPRESSION,
        Why::KeyEpochWithPendingFragment
        | Why::MessageInterleavedWithHandshakeMessage
        | Why::RejectedEarlyDataInterleavedWithHandshakeMessage => NOT_ON_RECORD_BOUNDARY,
        Why::ResumptionAttemptedWithVariedEms | Why::ResumptionOfferedWithVariedEms => INCONSISTENT_EXTMS,
        Why::SelectedTls12UsingTls13VersionExtension
        | Why::OfferedEarlyDataWithOldProtocolVersion
        | Why::IllegalHelloRetryRequestWithUnsupportedVersion => UNSUPPORTED_PROTOCOL,
        Why::SelectedUnofferedApplicationProtocol => NO_APPLICATION_PROTOCOL,
        Why::SignedKxWithWrongAlgorithm | Why::SignedHandshakeWithUnadvertisedSigScheme => {
            WRONG_SIGNATURE_TYPE
        }
        Why::TooManyKeyUpdateRequests => TOO_MANY_KEY_UPDATES,
        Why::TooManyRenegotiationRequests => UNEXPECTED_MESSAGE,
        Why::TooManyWarningAlertsReceived => TOO_MANY_WARN_ALERTS,
        Why::TooMuchEarlyDataReceived => TOO_MUCH_EARLY_DATA,
        Why::UnexpectedCleartextExtension
        | Why::UnsolicitedCertExtension
        | Why::UnsolicitedEncryptedExtension
        | Why::UnsolicitedSctList
        | Why::UnsolicitedServerHelloExtension
        | Why::UnsolicitedEchExtension => UNSOLICITED_EXTENSION,
        // Nearly all that can be done wrong is done in an extension.
        _ => BAD_EXTENSION,
    }
}

fn alert_name(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::UnexpectedMessage => "sslv3 alert unexpected message",
        AlertDescription::BadRecordMac => "sslv3 alert bad record mac",
        AlertDescription::DecryptionFailed => "tlsv1 alert decryption failed",
        AlertDescription::RecordOverflow => "tlsv1 alert record overflow",
        AlertDescription::DecompressionFailure => "sslv3 alert decompression failure",
        AlertDescription::HandshakeFailure => "sslv3 alert handshake failure",
        AlertDescription::NoCertificate => "sslv3 alert no certificate",
        AlertDescription::BadCertificate => "sslv3 alert bad certificate",
        AlertDescription::UnsupportedCertificate => "sslv3 alert unsupported certificate",
        AlertDescription::CertificateRevoked => "sslv3 alert certificate revoked",
        AlertDescription::CertificateExpired => "sslv3 alert certificate expired",
        AlertDescription::CertificateUnknown => "sslv3 alert certificate unknown",
        AlertDescription::IllegalParameter => "sslv3 alert illegal parameter",
        AlertDescription::UnknownCA => "tlsv1 alert unknown ca",
        AlertDescription::AccessDenied => "tlsv1 alert access denied",
        AlertDescription::DecodeError => "tlsv1 alert decode error",
        AlertDescription::DecryptError => "tlsv1 alert decrypt error",
        AlertDescription::ExportRestriction => "tlsv1 alert export restriction",
        AlertDescription::ProtocolVersion => "tlsv1 alert protocol version",
        AlertDescription::InsufficientSecurity => "tlsv1 alert insufficient security",
        AlertDescription::InternalError => "tlsv1 alert internal error",
        AlertDescription::InappropriateFallback => "tlsv1 alert inappropriate fallback",
        AlertDescription::UserCanceled => "tlsv1 alert user cancelled",
        AlertDescription::NoRenegotiation => "tlsv1 alert no renegotiation",
        AlertDescription::MissingExtension => "tlsv13 alert missing extension",
        AlertDescription::UnsupportedExtension => "tlsv1 unsupported extension",
        AlertDescription::CertificateUnobtainable => "tlsv1 certificate unobtainable",
        AlertDescription::UnrecognisedName => "tlsv1 unrecognized name",
        AlertDescription::BadCertificateStatusResponse => "tlsv1 bad certificate status response",
        AlertDescription::BadCertificateHashValue => "tlsv1 bad certificate hash value",
        AlertDescription::UnknownPSKIdentity => "tlsv1 alert unknown psk identity",
        AlertDescription::CertificateRequired => "tlsv13 alert certificate required",
        AlertDescription::NoApplicationProtocol => "tlsv1 alert no application protocol",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_words() {
        for (error, expected, is_our_fault) in [
            (
                Error::PeerMisbehaved(PeerMisbehaved::ServerNameMustContainOneHostName),
                "0A00006E:SSL routines::bad extension",
                false,
            ),
            (
                Error::PeerMisbehaved(PeerMisbehaved::IncorrectBinder),
                "0A0000FD:SSL routines::binder does not verify",
                false,
            ),
            (
                Error::PeerMisbehaved(PeerMisbehaved::TooMuchEarlyDataReceived),
                "0A0000A4:SSL routines::too much early data",
                false,
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "0A0000C1:SSL routines::no shared cipher",
                false,
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled),
                "0A000102:SSL routines::unsupported protocol",
                false,
            ),
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "0A00010B:SSL routines::wrong version number",
                false,
            ),
            (
                Error::InvalidMessage(InvalidMessage::MissingData("ClientHello")),
                "0A00009F:SSL routines::length mismatch",
                false,
            ),
            (Error::DecryptError, "0A000119:SSL routines::decryption failed or bad record mac", false),
            (
                Error::InvalidCertificate(CertificateError::BadSignature),
                "0A00007B:SSL routines::bad signature",
                false,
            ),
            (
                Error::InvalidCertificate(CertificateError::BadEncoding),
                "0A000086:SSL routines::certificate verify failed",
                false,
            ),
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                "0A000418:SSL routines::tlsv1 alert unknown ca:SSL alert number 48",
                false,
            ),
            (
                Error::AlertReceived(AlertDescription::Unknown(200)),
                "0A0004B0:SSL routines::reason(1200):SSL alert number 200",
                false,
            ),
            (
                Error::General("no server certificate chain resolved".to_owned()),
                "0A000179:SSL routines::cert cb error",
                false,
            ),
            (Error::FailedToGetRandomBytes, "0A0C0103:SSL routines::internal error", true),
            (Error::General("whatever".to_owned()), "0A0C0103:SSL routines::internal error", true),
        ] {
            assert_eq!(of(&error), expected, "{error:?}");
            assert_eq!(is_ours(&error), is_our_fault, "{error:?}");
        }
    }

    #[test]
    fn alerts_have_names() {
        let named = (0..=u8::MAX).filter(|number| alert_name(AlertDescription::from(*number)).is_some());
        let expected = [
            10, 20, 21, 22, 30, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 60, 70, 71, 80, 86, 90, 100,
            109, 110, 111, 112, 113, 114, 115, 116, 120,
        ];
        assert!(named.eq(expected), "those that RFC 8446 and its elders name");
    }
}
