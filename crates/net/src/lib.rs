//! The world: listeners, streams, timers, resolver, files, processes. The only crate with unsafe code.

pub mod accept;
pub mod address;
pub mod clock;
pub mod connect;
pub mod errno;
mod event_loop;
pub mod file;
pub mod listen;
pub mod log;
pub mod memory;
pub mod process;
pub mod random;
pub mod resolver;
pub mod sockopt;
pub mod splice;
pub mod stream;
pub mod thread;
pub mod timer;
pub mod tls;

pub use address::Address;
pub use errno::{Errno, ErrnoMessage};
pub use stream::{Stream, StreamError};
pub use timer::{Deadline, Timer};
