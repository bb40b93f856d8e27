//! What every server and location has: nginx's core module. Rows, cells, and the values they need.

pub mod error_page;
mod idle;
pub mod listen;
pub mod location;
pub mod main;
pub mod matcher;
pub mod root;
pub mod server;
pub mod types;
pub mod values;
pub mod worker;

pub use error_page::ErrorPage;
pub use location::Core;
pub use main::MainCore;
pub use matcher::Matcher;
pub use root::Folder;
pub use server::ServerCore;

use crate::module::Module;

/// The engine's own modules, ahead of all others.
pub static MODULES: [&Module; 4] = [&main::MODULE, &server::MODULE, &location::MODULE, &root::MODULE];

/// Where the engine's own cells are in every block.
pub const MAIN_INDEX: usize = 0;
/// As [`MAIN_INDEX`], for [`ServerCore`].
pub const SERVER_INDEX: usize = 1;
/// As [`MAIN_INDEX`], for [`Core`].
pub const LOCATION_INDEX: usize = 2;
/// As [`MAIN_INDEX`], for [`Folder`].
pub const ROOT_INDEX: usize = 3;
