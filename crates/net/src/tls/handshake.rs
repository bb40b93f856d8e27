//! Handshakes: a client's hello is read first, so that the name in it can choose the server, and then answered.

use super::notes::Notes;
use super::server::ServerSettings;
use super::session::{Session, Wire, take_early_data};
use super::words;
use crate::errno::{Errno, ErrnoMessage, errno_of};
use crate::stream::{Layer, Stream, StreamError};
use crate::timer::Deadline;
use rustls::server::{Accepted, Acceptor, ClientHello};
use rustls::{
    AlertDescription, CipherSuite, Connection, Error, HandshakeKind, InvalidMessage, NamedGroup,
    PeerIncompatible, PeerMisbehaved, ProtocolVersion, SignatureScheme,
};
use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// The most of a hello that is read at once, bytes; those with post-quantum keys fit.
const HELLO_READ_BYTES: usize = 4096;

/// Among the ciphers: the client would have liked a later version (RFC 7507).
const FALLBACK_SCSV: CipherSuite = CipherSuite::Unknown(0x5600);
/// Where a hello names its version: behind the record's head, the message's type and its length.
const VERSION_AT: std::ops::Range<usize> = 9..11;

/// Error numbers that peers and networks cause every day (nginx's list), and that of more than a handshake may hold.
const OF_THE_NETWORK: [Errno; 11] = [
    Errno::CONNRESET,
    Errno::PIPE,
    Errno::NOTCONN,
    Errno::TIMEDOUT,
    Errno::CONNREFUSED,
    Errno::NETDOWN,
    Errno::NETUNREACH,
    Errno::HOSTDOWN,
    Errno::HOSTUNREACH,
    Errno::CONNABORTED,
    Errno::PROTO,
];

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

    /// Is it nothing that peers cause every day? nginx logs it as critical then.
    pub fn is_critical(&self) -> bool {
        match self {
            HandshakeError::TimedOut | HandshakeError::Closed => false,
            HandshakeError::Os(errno) => !OF_THE_NETWORK.contains(errno),
            HandshakeError::Failed(error) => words::is_ours(error),
        }
    }
}

impl From<Error> for HandshakeError {
    /// A goodbye in the middle is no fault.
    fn from(error: Error) -> HandshakeError {
        match error {
            Error::AlertReceived(AlertDescription::CloseNotify) => HandshakeError::Closed,
            error => HandshakeError::Failed(Box::new(error)),
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
                write!(out, "SSL_do_handshake() failed (SSL: error:{})", words::of(error))
            }
        }
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

/// What a client is told whose hello is refused.
enum Alert {
    /// What the library says.
    OfLibrary,
    /// This.
    Other(AlertDescription),
    /// Nothing: it speaks something else.
    Nothing,
}

/// What is wrong with a hello as OpenSSL sees it, and what it says, where the library differs. `ahead` is the hello's
/// beginning.
fn as_openssl(error: Error, ahead: &[u8]) -> (Error, Alert) {
    let alert = match &error {
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => Alert::Nothing,
        Error::InvalidMessage(InvalidMessage::MessageTooLarge) => {
            Alert::Other(AlertDescription::RecordOverflow)
        }
        Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => {
            Alert::Other(AlertDescription::IllegalParameter)
        }
        Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(PeerMisbehaved::MessageInterleavedWithHandshakeMessage) => {
            Alert::Other(AlertDescription::UnexpectedMessage)
        }
        // A client of TLS 1.1 or before cannot send what the library misses first.
        Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired)
            if ahead.get(VERSION_AT).is_some_and(|version| version < &[3, 3][..]) =>
        {
            let error = Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled);
            return (error, Alert::Other(AlertDescription::ProtocolVersion));
        }
        _ => Alert::OfLibrary,
    };
    (error, alert)
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
                        let (error, own_alert) = as_openssl(error, ahead);
                        match own_alert {
                            Alert::OfLibrary => _ = alert.write_all(&mut Wire(&mut self.socket)),
                            Alert::Other(alert) => self.send_alert(alert),
                            Alert::Nothing => {}
                        }
                        return Err(error.into());
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
        // RFC 7507: the client could not do better the last time; somebody may have seen to that.
        let is_fallback = hello.client().cipher_suites().contains(&FALLBACK_SCSV);
        let accepted = hello.0.into_connection(settings.config.clone());
        let connection = accepted.map_err(|(error, mut alert)| {
            let _ = alert.write_all(&mut Wire(&mut self.socket));
            HandshakeError::from(error)
        })?;
        if is_fallback
            && settings.has_tls13
            && connection.protocol_version() == Some(ProtocolVersion::TLSv1_2)
        {
            self.send_alert(AlertDescription::InappropriateFallback);
            let why = PeerMisbehaved::AttemptedDowngradeToTls12WhenTls13IsSupported;
            return Err(HandshakeError::Failed(Box::new(why.into())));
        }
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
        self.send_alert(alert);
    }

    /// Sends a fatal alert (RFC 8446 section 6) where nothing is encrypted yet.
    fn send_alert(&mut self, alert: AlertDescription) {
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
                return Poll::Ready(Err(error.into()));
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
