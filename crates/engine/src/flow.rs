//! The vocabulary between modules and the engine. Adding a word needs a decision record (`docs/decisions/`).

use crate::Request;
pub use crate::upstream::Call;
use crate::upstream::UpstreamBody;
use http::Status;
use net::file::{DirectoryEntry, FileError, Opened};
use std::rc::Rc;

/// The steps of a request in the order they run (nginx's phases, its development guide, "HTTP phases").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Phase {
    /// Right after the head is read: the client's real address.
    PostRead,
    /// `rewrite` directives; on the server's plan before the location is found, on the location's after.
    Rewrite,
    /// Limits.
    Preaccess,
    /// Who may. `satisfy` combines the verdicts.
    Access,
    /// `try_files`, `mirror`.
    Precontent,
    /// What answers when the location has no handler of its own: index, listing, files.
    Content,
}

/// How many phases there are.
pub const PHASES: usize = 6;

/// What a step says.
pub enum Flow {
    /// Nothing to say; go on with the next step.
    Next,
    /// Access phase: this module grants the request.
    Allow,
    /// End with this status: an error page, configured or built in. In the access phase: a refusal.
    Deny(Status),
    /// Go on elsewhere inside the server.
    Redirect(Target),
    /// Pass the request to an upstream.
    Forward(Box<Call>),
    /// Answer with this; the head is `request.response`.
    Reply(Reply),
    /// Something that takes time; the answer comes to [`Step::resume`].
    Ask(Ask),
}

/// Where an internal redirect goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A URI of this server, not decoded again, with its arguments (none keeps none).
    Uri {
        /// The decoded path.
        uri: Vec<u8>,
        /// The arguments.
        args: Vec<u8>,
    },
    /// A named location, `@name`.
    Named(Vec<u8>),
}

/// An answer.
pub struct Reply {
    /// Its status.
    pub status: Status,
    /// Its body.
    pub source: Source,
}

/// Where a body comes from.
pub enum Source {
    /// There is none.
    Empty,
    /// Bytes at hand.
    Bytes(Vec<u8>),
    /// Part of a file.
    File(FileRange),
    /// Several pieces one after the other (multipart ranges).
    Pieces(Vec<Chunk>),
    /// The response of an upstream, read as it comes.
    Upstream(Box<UpstreamBody>),
}

/// A run of bytes of an open file.
#[derive(Clone)]
pub struct FileRange {
    /// The file.
    pub file: Rc<Opened>,
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// A piece of a body on its way through transforms.
pub enum Chunk {
    /// Bytes.
    Bytes(Vec<u8>),
    /// A run of a file.
    File(FileRange),
    /// The response of a subrequest, put in here.
    Include(Target),
    /// Send what has come so far.
    Flush,
}

/// Pieces in order.
pub type Chunks = Vec<Chunk>;

/// The effects: everything a step may ask for that takes time.
pub enum Ask {
    /// Wait this many milliseconds.
    Sleep(u64),
    /// Open or test a file.
    File(FileQuery),
    /// List a directory, by its path.
    Directory(Vec<u8>),
    /// Have the whole request body read, to memory or a temporary file.
    Body,
    /// Run a subrequest and report its status and head.
    Subrequest(Target),
    /// Run a subrequest with the request's own method and body, and do not wait for it.
    Background(Target),
    /// Read a whole small file as it is now, past every cache.
    Read(SmallFile),
}

/// A file that is read whole.
#[derive(Debug, Clone)]
pub struct SmallFile {
    /// Its path.
    pub path: Vec<u8>,
    /// What is longer is cut here.
    pub bytes_max: usize,
}

/// What is asked about a file.
#[derive(Debug, Clone)]
pub struct FileQuery {
    /// Its path.
    pub path: Vec<u8>,
    /// Only whether it is there and what it is; `Opened::file` may then be absent.
    pub test_only: bool,
}

/// What came of an [`Ask`].
pub enum Answer {
    /// The time is over.
    Slept,
    /// The file or why not.
    File(Result<Rc<Opened>, FileError>),
    /// What lies in the directory, hidden names left out, or why it cannot be read.
    Directory(Result<Vec<DirectoryEntry>, FileError>),
    /// The body was read, or the status that ends the request.
    Body(Result<(), Status>),
    /// The subrequest's status; more of it is in `request.subresponse`.
    Subrequest(Status),
    /// The subrequest was begun.
    Begun,
    /// The contents of a small file or why there are none.
    Read(Result<Vec<u8>, FileError>),
}

/// A module's work in one phase of one location.
pub trait Step: Send + Sync {
    /// Looks at the request and decides.
    fn run(&self, request: &mut Request) -> Flow;

    /// Goes on after an [`Ask`].
    fn resume(&self, _request: &mut Request, _answer: Answer) -> Flow {
        Flow::Next
    }
}

/// A module that looks at the response's head and may join the body's way.
pub trait Filter: Send + Sync {
    /// Changes the head; a transform if the body is to change too.
    fn head(&self, request: &mut Request) -> Option<Box<dyn Transform>>;

    /// The body went out: adds trailers to `request.response.trailers`. Asked only where
    /// `request.response.expects_trailers` was set, so that the body is chunked.
    fn trailers(&self, _request: &mut Request) {}
}

/// A change of the body on its way.
pub trait Transform {
    /// Takes a piece and puts out what is ready.
    fn push(&mut self, chunk: Chunk, out: &mut Chunks);
    /// The body is over; puts out the rest.
    fn finish(&mut self, out: &mut Chunks);
    /// Does every byte come out where it went in, so that the body's length and parts of it stay true?
    fn keeps_positions(&self) -> bool {
        false
    }
    /// Why the body cannot be changed: what went out is not whole, and the connection ends.
    fn failure(&self) -> Option<&'static str> {
        None
    }
}

/// A module that writes down what happened.
pub trait Logger: Send + Sync {
    /// The request is over.
    fn log(&self, request: &mut Request);
}
