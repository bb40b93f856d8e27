//! Handshakes: a client's hello is read first, so that the name in it can choose the server, and then answered.

use super::notes::Notes;
use super::server::ServerSettings;
use super::session::{Session, Wire, take_early_data};
use crate::errno::{Errno, ErrnoMessage, errno_of};
use crate::stream::{Layer, Stream, StreamError};
use crate::timer::Deadline;
use rustls::server::{Accepted, Acceptor, ClientHello};
use rustls::{
    AlertDescription, CipherSuite, Connection, Error, HandshakeKind, NamedGroup, PeerIncompatible,
    ProtocolVersion, SignatureScheme,
};
use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// The most of a hello that is read at once, bytes; those with post-quantum keys fit.
const HELLO_READ_BYTES: usize = 4096;

/// Why there was no handshake.
#[derive(Clone, Debug, PartialEq)]
pub enum HandshakeError {
    /// The deadline passed.
    TimedOut,
    /// The peer went away.
    Closed,
    /// The connection broke.
    Os(Errno),
    /// One side did not like what the other said.
    Failed(Box<Error>),
}

impl HandshakeError {
    /// The error number where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            HandshakeError::TimedOut => Some(Errno::TIMEDOUT),
            HandshakeError::Os(errno) => Some(*errno),
            _ => None,
        }
    }
}

impl From<StreamError> for HandshakeError {
    fn from(error: StreamError) -> HandshakeError {
        match error {
            StreamError::TimedOut => HandshakeError::TimedOut,
            StreamError::Os(errno) => HandshakeError::Os(errno),
        }
    }
}

impl fmt::Display for HandshakeError {
    /// As nginx logs it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::TimedOut => write!(out, "timed out ({})", ErrnoMessage(Errno::TIMEDOUT)),
            HandshakeError::Closed => out.write_str("peer closed connection in SSL handshake"),
            HandshakeError::Os(errno @ (Errno::CONNRESET | Errno::PIPE)) => {
                write!(out, "peer closed connection in SSL handshake ({})", ErrnoMessage(*errno))
            }
            HandshakeError::Os(errno) => write!(out, "SSL_do_handshake() failed ({})", ErrnoMessage(*errno)),
            HandshakeError::Failed(error) => {
                out.write_str("SSL_do_handshake() failed (SSL: ")?;
                match openssl_words(error) {
                    Some(words) => write!(out, "error:{words})"),
                    None => write!(out, "{error})"),
                }
            }
        }
    }
}

/// What OpenSSL would have said, where it has words for it.
fn openssl_words(error: &Error) -> Option<String> {
    let known = match error {
        Error::AlertReceived(alert) => {
            let number = u8::from(*alert);
            let name = alert_name(*alert);
            let code = 0x0a00_03e8 + u32::from(number);
            return Some(format!("{code:08X}:SSL routines::{name}:SSL alert number {number}"));
        }
        Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            "0A00010B:SSL routines::wrong version number"
        }
        Error::InvalidMessage(_) => "0A000126:SSL routines::unexpected eof while reading",
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
            "0A0000C1:SSL routines::no shared cipher"
        }
        Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon) => {
            "0A000065:SSL routines::no suitable key share"
        }
        Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon) => {
            "0A000076:SSL routines::no suitable signature algorithm"
        }
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "0A000102:SSL routines::unsupported protocol",
        // A certificate that is still to come ([`super::Issued`]); nginx's variables fail in the same way.
        Error::General(why) if why == "no server certificate chain resolved" => {
            "0A000179:SSL routines::cert cb error"
        }
        Error::NoApplicationProtocol => "0A0000EB:SSL routines::no application protocol",
        Error::InvalidCertificate(_) => "0A000086:SSL routines::certificate verify failed",
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "0A0000F4:SSL routines::unexpected message"
        }
        Error::DecryptError => "0A000119:SSL routines::decryption failed or bad record mac",
        _ => return None,
    };
    Some(known.to_owned())
}

fn alert_name(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::UnexpectedMessage => "sslv3 alert unexpected message",
        AlertDescription::BadRecordMac => "sslv3 alert bad record mac",
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
        AlertDescription::ProtocolVersion => "tlsv1 alert protocol version",
        AlertDescription::InsufficientSecurity => "tlsv1 alert insufficient security",
        AlertDescription::InternalError => "tlsv1 alert internal error",
        AlertDescription::UserCanceled => "tlsv1 alert user cancelled",
        AlertDescription::NoRenegotiation => "tlsv1 alert no renegotiation",
        AlertDescription::UnrecognisedName => "tlsv1 unrecognized name",
        AlertDescription::CertificateRequired => "tlsv13 alert certificate required",
        AlertDescription::NoApplicationProtocol => "tlsv1 alert no application protocol",
        _ => "reason(0)",
    }
}

/// A client's hello, read and not answered.
pub struct Hello(Accepted);

impl Hello {
    /// What the client says.
    pub fn client(&self) -> ClientHello<'_> {
        self.0.client_hello()
    }

    /// The name of the server the client wants (SNI), in lower case.
    pub fn server_name(&self) -> Option<String> {
        self.client().server_name().map(str::to_ascii_lowercase)
    }
}

impl Hello {
    /// Does the client offer this application protocol, and no other?
    pub fn speaks_only(&self, protocol: &[u8]) -> bool {
        let client = self.client();
        let mut offered = client.alpn().into_iter().flatten();
        offered.next() == Some(protocol) && offered.next().is_none()
    }
}

/// What a handshake agreed on.
#[derive(Clone, Debug)]
pub struct Established {
    /// The protocol's version.
    pub protocol: ProtocolVersion,
    /// The cipher.
    pub cipher: CipherSuite,
    /// The key exchange.
    pub group: Option<NamedGroup>,
    /// Did it go on with an earlier session?
    pub resumed: bool,
    /// The session's identifier.
    pub session_id: Option<[u8; 32]>,
    /// What we signed with; none where an earlier session went on.
    pub signature: Option<SignatureScheme>,
    /// What the peer signed with; none where it showed no certificate.
    pub peer_signature: Option<SignatureScheme>,
    /// The application protocol.
    pub alpn: Option<Vec<u8>>,
    /// The certificates the peer showed, its own first, as DER.
    pub peer_certificates: Vec<Vec<u8>>,
    /// Is the handshake still to be finished, while data that the client sent ahead is served? None: it was done before
    /// anything was served.
    pub unfinished: Option<Rc<Cell<bool>>>,
}

impl Established {
    /// What is known while the certificate is chosen: nothing yet.
    pub fn nothing() -> Established {
        Established {
            protocol: ProtocolVersion::Unknown(0),
            cipher: CipherSuite::TLS_NULL_WITH_NULL_NULL,
            group: None,
            resumed: false,
            session_id: None,
            signature: None,
            peer_signature: None,
            alpn: None,
            peer_certificates: Vec::new(),
            unfinished: None,
        }
    }

    pub(crate) fn of(connection: &Connection, notes: &Notes) -> Option<Established> {
        let suite = connection.negotiated_cipher_suite()?;
        let certificates = connection.peer_certificates().unwrap_or_default();
        Some(Established {
            protocol: connection.protocol_version()?,
            cipher: suite.suite(),
            group: connection.negotiated_key_exchange_group().map(|group| group.name()),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            session_id: notes.session,
            signature: notes.signature,
            peer_signature: notes.peer_signature,
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            peer_certificates: certificates.iter().map(|der| der.to_vec()).collect(),
            unfinished: None,
        })
    }
}

impl Stream {
    /// Reads a client's hello. `ahead` is what was read of it already.
    ///
    /// # Errors
    /// None came in time, or it is none.
    pub async fn read_hello(&mut self, ahead: &[u8], deadline: Deadline) -> Result<Hello, HandshakeError> {
        let mut acceptor = Acceptor::default();
        let mut more = Vec::new();
        let mut rest = ahead;
        loop {
            while !rest.is_empty() {
                acceptor.read_tls(&mut rest).map_err(|error| HandshakeError::Os(errno_of(&error)))?;
                match acceptor.accept() {
                    Ok(None) => {}
                    // What stands behind a hello in the same read belongs to its handshake.
                    Ok(Some(accepted)) if rest.is_empty() => return Ok(Hello(accepted)),
                    Ok(Some(_)) => return Err(HandshakeError::Os(Errno::PROTO)),
                    Err((error, mut alert)) => {
                        let _ = alert.write_all(&mut Wire(&mut self.socket));
                        return Err(HandshakeError::Failed(Box::new(error)));
                    }
                }
            }
            more.clear();
            if self.read_into(&mut more, HELLO_READ_BYTES, deadline).await? == 0 {
                return Err(HandshakeError::Closed);
            }
            rest = &more;
        }
    }

    /// Answers a hello; from then on the stream's bytes travel encrypted.
    ///
    /// # Errors
    /// No agreement, or the client went away.
    pub async fn accept_tls(
        &mut self,
        hello: Hello,
        settings: &ServerSettings,
        deadline: Deadline,
    ) -> Result<Established, HandshakeError> {
        Notes::default().take();
        let accepted = hello.0.into_connection(settings.config.clone());
        let connection = accepted.map_err(|(error, mut alert)| {
            let _ = alert.write_all(&mut Wire(&mut self.socket));
            HandshakeError::Failed(Box::new(error))
        })?;
        self.shake_hands(Connection::Server(connection), deadline).await
    }

    /// Refuses a hello as nginx's `ssl_reject_handshake` does: nobody of that name is here.
    pub fn reject_hello(&mut self, hello: Hello) {
        self.end_hello(hello, AlertDescription::UnrecognisedName);
    }

    /// Refuses a hello because we cannot do our part.
    pub fn fail_hello(&mut self, hello: Hello) {
        self.end_hello(hello, AlertDescription::InternalError);
    }

    fn end_hello(&mut self, hello: Hello, alert: AlertDescription) {
        drop(hello);
        // A fatal alert (RFC 8446 section 6).
        let record = [0x15, 3, 3, 0, 2, 2, alert.into()];
        let _ = self.socket.writev_once(&[io::IoSlice::new(&record)]);
    }

    pub(crate) async fn shake_hands(
        &mut self,
        mut connection: Connection,
        deadline: Deadline,
    ) -> Result<Established, HandshakeError> {
        let mut notes = Notes::default();
        let mut early = Vec::new();
        poll_fn(|cx| match self.poll_handshake(cx, &mut connection, &mut notes, &mut early) {
            Poll::Pending => self.timer().poll_expired(cx, deadline).map(|()| Err(HandshakeError::TimedOut)),
            ready => ready,
        })
        .await?;
        let established = Established::of(&connection, &notes);
        let mut established =
            established.ok_or(HandshakeError::Failed(Box::new(Error::HandshakeNotComplete)))?;
        let is_unfinished = connection.is_handshaking();
        let mut session = Box::new(Session::new(connection, early));
        established.unfinished = session.unfinished();
        // What we still owe (our last message, tickets) leaves with the answer where a request is there already; a
        // client that has not finished waits for it.
        if !session.has_data() || is_unfinished {
            session.write_records(&mut self.socket).map_err(HandshakeError::Os)?;
        }
        self.layer = Layer::Tls(session);
        Ok(established)
    }

    /// Ready when the handshake is done, or when the client sent data ahead of its last message, which is put into
    /// `early`.
    fn poll_handshake(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
        notes: &mut Notes,
        early: &mut Vec<u8>,
    ) -> Poll<Result<(), HandshakeError>> {
        loop {
            // Data may stand right behind a hello that was read already.
            if let Err(error) = connection.process_new_packets() {
                // The alert that says why.
                let _ = connection.write_tls(&mut Wire(&mut self.socket));
                return Poll::Ready(Err(HandshakeError::Failed(Box::new(error))));
            }
            notes.take();
            take_early_data(connection, early);
            if !connection.is_handshaking() || !early.is_empty() {
                return Poll::Ready(Ok(()));
            }
            while connection.wants_write() {
                ready!(self.socket.poll_room(cx)).map_err(HandshakeError::Os)?;
                match connection.write_tls(&mut Wire(&mut self.socket)) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                        return Poll::Ready(Err(HandshakeError::Os(errno_of(&error))));
                    }
                    _ => {}
                }
            }
            ready!(self.socket.poll_readable_maybe(cx)).map_err(HandshakeError::Os)?;
            match connection.read_tls(&mut Wire(&mut self.socket)) {
                Ok(0) => return Poll::Ready(Err(HandshakeError::Closed)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(HandshakeError::Os(errno_of(&error)))),
            }
        }
    }
}
