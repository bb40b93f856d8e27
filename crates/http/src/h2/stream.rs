//! One stream: its windows, what was received and not read yet, and how far either side has come
//! (RFC 9113, section 5.1).
//!
//! ```text
//!              remote ended            remote open
//! local open   answering               receiving and answering
//! local ended  closed                  closed with RST_STREAM(NO_ERROR): the rest is not wanted
//! ```

use super::frame::ErrorCode;
use crate::Fields;

/// Who ended a stream, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClosedBy {
    /// Both sides sent all they had to say.
    End,
    /// The peer's RST_STREAM.
    Peer,
    /// Ours: frames that were on their way are ignored.
    Us,
}

/// What is wrong with a stream's message; its stream ends with PROTOCOL_ERROR after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The head.
    Head,
    /// The body is longer than its `content-length`.
    TooLong,
    /// The body is shorter than its `content-length`.
    TooShort {
        /// What came, bytes.
        received: u64,
        /// What was announced, bytes.
        announced: u64,
    },
    /// The fields behind the body.
    Trailers,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub id: u32,
    pub send_window: i64,
    /// What the peer may still send, bytes.
    pub receive_window: i64,
    pub inbox: Vec<u8>,
    /// How much of the inbox was read, bytes.
    pub read_bytes: usize,
    pub remote_ended: bool,
    pub local_ended: bool,
    /// The stream is over for the peer; what works on it does not know yet.
    pub closed: Option<(ClosedBy, ErrorCode)>,
    /// `content-length`.
    pub announced: Option<u64>,
    pub received: u64,
    pub malformed: Option<Malformed>,
    /// The fields behind a request's body, where there are any.
    pub trailers: Option<Box<Fields>>,
    /// The head of the message, not an interim one, has come.
    pub has_head: bool,
    /// The answer to HEAD has no body, whatever its `content-length` says.
    pub bodiless: bool,
    /// The END_STREAM flag can still be set on the frame there, counted from the first byte ever written.
    pub last_frame: Option<u64>,
}

impl Stream {
    pub fn new(id: u32, send_window: i64, receive_window: i64) -> Stream {
        Stream {
            id,
            send_window,
            receive_window,
            inbox: Vec::new(),
            read_bytes: 0,
            remote_ended: false,
            trailers: None,
            local_ended: false,
            closed: None,
            announced: None,
            received: 0,
            malformed: None,
            has_head: false,
            bodiless: false,
            last_frame: None,
        }
    }

    /// What was received and not read, bytes.
    pub fn unread(&self) -> usize {
        self.inbox.len() - self.read_bytes
    }

    /// So many body bytes will come; where they are too many, none of them counts.
    pub fn expect(&mut self, length: usize) {
        let received = self.received + length as u64;
        if self.announced.is_some_and(|announced| received > announced) {
            self.malformed.get_or_insert(Malformed::TooLong);
        }
    }

    /// Takes body bytes that were expected, and the end; what is wrong with the length stays in [`Stream::malformed`].
    pub fn receive(&mut self, data: &[u8], ended: bool) {
        self.received += data.len() as u64;
        if self.malformed.is_none() {
            self.inbox.extend_from_slice(data);
        }
        self.remote_ended |= ended;
        if let Some(announced) = self.announced.filter(|length| ended && self.received < *length) {
            self.malformed.get_or_insert(Malformed::TooShort { received: self.received, announced });
        }
    }
}
