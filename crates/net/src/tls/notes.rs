//! What the library tells nobody but those it calls within a step of a handshake: the session's identifier goes to the
//! cache and the maker of tickets, signature algorithms to keys and judges. They note it down here, and whoever drives
//! the handshake takes it after each step, before a step of another connection comes on the same thread.

use rustls::SignatureScheme;
use std::cell::Cell;

/// What was noted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Notes {
    /// The identifier of the session that was made or found last.
    pub(crate) session: Option<[u8; 32]>,
    /// What we signed with.
    pub(crate) signature: Option<SignatureScheme>,
    /// What the peer signed with.
    pub(crate) peer_signature: Option<SignatureScheme>,
}

impl Notes {
    /// Takes what was noted since it was taken last; what is older and not noted anew stays.
    pub(crate) fn take(&mut self) {
        let new = NOTES.take();
        self.session = new.session.or(self.session);
        self.signature = new.signature.or(self.signature);
        self.peer_signature = new.peer_signature.or(self.peer_signature);
    }
}

thread_local! {
    static NOTES: Cell<Notes> = const { Cell::new(Notes { session: None, signature: None, peer_signature: None }) };
}

/// Notes a session's identifier.
pub(crate) fn session(identifier: [u8; 32]) {
    NOTES.set(Notes { session: Some(identifier), ..NOTES.get() });
}

/// Notes what we sign with.
pub(crate) fn signature(scheme: SignatureScheme) {
    NOTES.set(Notes { signature: Some(scheme), ..NOTES.get() });
}

/// Notes what the peer signed with.
pub(crate) fn peer_signature(scheme: SignatureScheme) {
    NOTES.set(Notes { peer_signature: Some(scheme), ..NOTES.get() });
}
