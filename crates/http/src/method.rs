//! Request methods: the ones nginx knows by name, and any other.

use crate::request::RequestHead;

/// A request method. The text of one that is not known stays with the request's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // the names are the methods
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    MkCol,
    Copy,
    Move,
    Options,
    PropFind,
    PropPatch,
    Lock,
    Unlock,
    Patch,
    Trace,
    Connect,
    /// Any other word of `A-Z`, `_` and `-`.
    Other,
}

/// Every known method with its name, in the order of the enum.
const NAMES: [&[u8]; 16] = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"OPTIONS",
    b"PROPFIND",
    b"PROPPATCH",
    b"LOCK",
    b"UNLOCK",
    b"PATCH",
    b"TRACE",
    b"CONNECT",
];

impl Method {
    /// The method called `text`; case matters. [`Method::Other`] for a word nginx has no name for.
    pub fn parse(text: &[u8]) -> Method {
        match text {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"MKCOL" => Method::MkCol,
            b"COPY" => Method::Copy,
            b"MOVE" => Method::Move,
            b"OPTIONS" => Method::Options,
            b"PROPFIND" => Method::PropFind,
            b"PROPPATCH" => Method::PropPatch,
            b"LOCK" => Method::Lock,
            b"UNLOCK" => Method::Unlock,
            b"PATCH" => Method::Patch,
            b"TRACE" => Method::Trace,
            b"CONNECT" => Method::Connect,
            _ => Method::Other,
        }
    }

    /// The name of a known method.
    pub fn known_name(self) -> Option<&'static [u8]> {
        NAMES.get(self as usize).copied()
    }

    /// The method's name, which for [`Method::Other`] is what `head` says.
    pub fn name(self, head: &RequestHead) -> &[u8] {
        self.known_name().unwrap_or_else(|| head.method_text())
    }

    /// One bit a method, for sets of them: `limit_except`, `dav_methods`, `proxy_cache_methods`.
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The bit of a method that `limit_except` takes by this name, in any case (nginx's manual,
    /// `ngx_http_core_module`, `limit_except`). `GET` stands for `HEAD` too, which the caller adds.
    pub fn limit_bit(text: &[u8]) -> Option<u32> {
        let known = NAMES.iter().position(|name| name.eq_ignore_ascii_case(text))?;
        (known < Method::Trace as usize).then(|| 1 << known)
    }

    /// May a request with this method be sent twice? `proxy_next_upstream` asks (nginx's manual,
    /// `non_idempotent`: `POST`, `LOCK` and `PATCH` may not).
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Method::Post | Method::Lock | Method::Patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_methods_agree() {
        for name in NAMES {
            assert_eq!(Method::parse(name).known_name(), Some(name));
        }
        for unknown in ["get", "GETS", "", "PURGE", "M-SEARCH"] {
            assert_eq!(Method::parse(unknown.as_bytes()), Method::Other);
        }
        assert_eq!(Method::Other.known_name(), None);
    }

    #[test]
    fn limit_except_takes_fourteen_methods() {
        assert_eq!(Method::limit_bit(b"get"), Some(Method::Get.bit()));
        assert_eq!(Method::limit_bit(b"Patch"), Some(Method::Patch.bit()));
        for no in ["TRACE", "CONNECT", "X", ""] {
            assert_eq!(Method::limit_bit(no.as_bytes()), None);
        }
    }
}
