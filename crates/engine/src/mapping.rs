//! From a URI to a file: its path by `root` or `alias`, its extension and type.

use crate::Request;
use crate::plan::Alias;
use http::Status;

/// The path of a file and how much of it does not come from the URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedPath {
    /// The path.
    pub path: Vec<u8>,
    /// How many bytes of it `root` or `alias` gave.
    pub root_bytes: usize,
}

impl Request<'_> {
    /// The URI's file name extension, in the case it was sent.
    pub fn extension(&self) -> &[u8] {
        // The dot of a hidden file is no extension's, nor are the first two bytes of a URI looked at.
        match memchr::memrchr2(b'.', b'/', &self.uri) {
            Some(dot @ 2..) if self.uri[dot] == b'.' && self.uri[dot - 1] != b'/' => &self.uri[dot + 1..],
            _ => b"",
        }
    }

    /// Sets `Content-Type` from the URI's extension and the location's types, unless it is known already.
    pub fn content_type_by_extension(&mut self) {
        // One that an upstream gave before it sent the request here stays.
        if !self.response.content_type.is_empty() {
            return;
        }
        let core = &self.plan.core;
        let extension = self.extension();
        let found = match &*core.types {
            Some(types) => types.of(extension).map(|kind| &kind[..]),
            None => None,
        };
        let kind = found.unwrap_or(&core.default_type);
        self.response.content_type.extend_from_slice(kind);
    }

    /// The path of a file for the URI; empty where there is none (see [`Request::map_uri`]).
    pub fn file_path(&mut self) -> Vec<u8> {
        self.map_uri().map(|mapped| mapped.path).unwrap_or_default()
    }

    /// The path of a file for the URI: `root` and the URI, or `alias` and what follows the location's name.
    ///
    /// # Errors
    /// 500 for an `alias` in a location where the URI was rewritten; that is logged.
    pub fn map_uri(&mut self) -> Result<MappedPath, Status> {
        let plan = self.plan;
        if plan.alias != Alias::None && !self.prefix_valid {
            let message = format_args!(
                "\"alias\" cannot be used in location \"{}\" where URI was rewritten",
                plan.name
            );
            self.log_error(conf::Level::Alert, message);
            return Err(Status::INTERNAL_SERVER_ERROR);
        }
        // Whoever is done with it may give it back.
        let mut path = self.thread.spare.buffer();
        path.reserve(64 + self.uri.len());
        match &*plan.folder.root {
            None => path.extend_from_slice(&self.thread.default_root),
            Some(root) => {
                self.render_into(&root.path, &mut path);
                // A path that came out of variables hangs from the prefix when it is relative.
                if root.path.is_constant().is_none() && !path.starts_with(b"/") {
                    path.splice(0..0, self.thread.prefix.iter().copied());
                }
            }
        }
        let root_bytes = path.len();
        let skip = match plan.alias {
            Alias::None => 0,
            Alias::Prefix(name_bytes) => name_bytes.min(self.uri.len()),
            Alias::Whole if self.uri_below_alias => 0,
            Alias::Whole => self.uri.len(),
        };
        path.extend_from_slice(&self.uri[skip..]);
        Ok(MappedPath { path, root_bytes })
    }

    /// The status as variables show it: before the answer leaves, the one an error page will keep.
    pub fn shown_status(&self) -> Status {
        match self.status_override {
            Some(kept) => kept,
            None if self.response.status.0 == 0 && self.head.is_http_09() => Status(9),
            None => self.response.status,
        }
    }
}
