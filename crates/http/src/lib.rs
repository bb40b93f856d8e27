//! HTTP vocabulary and sans-I/O codecs: bytes in, facts out.
//!
//! Nothing here reads a socket, a clock or the environment. What comes from a peer may hold any bytes in any
//! pieces: every parser goes on where it stopped, gives the same result for every split of its input, and answers
//! hostile input with an error in nginx's words.

pub mod args;
pub mod authorization;
pub mod chunked;
pub mod conditional;
pub mod cookie;
pub mod date;
pub mod error_page;
pub mod escape;
mod fields;
pub mod h2;
mod header_line;
mod host;
mod known;
mod method;
pub mod network;
pub mod proxy_protocol;
pub mod range;
pub mod request;
mod request_line;
pub mod response;
mod status;
pub mod uri;

pub use chunked::{Chunk, ChunkError, Decoder as ChunkedDecoder};
pub use fields::{Fields, Span};
pub use host::{InvalidHost, normalise_host};
pub use method::Method;
pub use request::{Connection, Framing, HeadOptions, Parse, Refusal, RequestHead, parse_request_head};
pub use request_line::Version;
pub use response::{ResponseFraming, ResponseHead, ResponseOptions, ResponseParse, parse_response_head};
pub use status::Status;
