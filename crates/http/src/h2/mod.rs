//! HTTP/2 (RFC 9113) without input or output: bytes in, events out; calls in, bytes out.
//!
//! [`Connection`] is one side of a connection, server or client. It reads frames, keeps the rules, the windows and the
//! bounds ([`Limits`] and the constants beside it), and writes frames into [`Connection::output`]. Header fields go
//! straight into a [`crate::RequestHead`] or [`crate::ResponseHead`].

pub mod connection;
pub mod frame;
pub mod hpack;
pub mod huffman;
mod limits;
mod stream;

pub use connection::{BodyState, Connection, ConnectionError, Event, HeadWriter, Heads};
pub use frame::{ErrorCode, PREFACE};
pub use limits::*;
pub use stream::Malformed;
