//! The request fields that nginx knows by name while it reads a head.

/// A field with a meaning of its own, or one that may come once only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Known {
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    Expect,
    IfModifiedSince,
    IfUnmodifiedSince,
    IfMatch,
    IfNoneMatch,
    IfRange,
    ContentRange,
    Authorization,
    ProxyAuthorization,
}

/// How many there are.
const KNOWN: usize = Known::ProxyAuthorization as usize + 1;

impl Known {
    /// The field called `name`, in any case.
    pub fn of(name: &[u8]) -> Option<Known> {
        // The length and one letter tell almost every name apart before a comparison is made.
        let candidates: &[(&[u8], Known)] = match (name.len(), name.first()?.to_ascii_lowercase()) {
            (4, b'h') => &[(b"host", Known::Host)],
            (6, b'e') => &[(b"expect", Known::Expect)],
            (8, b'i') => &[(b"if-match", Known::IfMatch), (b"if-range", Known::IfRange)],
            (10, b'c') => &[(b"connection", Known::Connection)],
            (13, b'i') => &[(b"if-none-match", Known::IfNoneMatch)],
            (13, b'c') => &[(b"content-range", Known::ContentRange)],
            (13, b'a') => &[(b"authorization", Known::Authorization)],
            (14, b'c') => &[(b"content-length", Known::ContentLength)],
            (17, b'i') => &[(b"if-modified-since", Known::IfModifiedSince)],
            (17, b't') => &[(b"transfer-encoding", Known::TransferEncoding)],
            (19, b'i') => &[(b"if-unmodified-since", Known::IfUnmodifiedSince)],
            (19, b'p') => &[(b"proxy-authorization", Known::ProxyAuthorization)],
            _ => return None,
        };
        candidates.iter().find(|(text, _)| name.eq_ignore_ascii_case(text)).map(|&(_, known)| known)
    }

    fn may_repeat(self) -> bool {
        self == Known::Connection
    }
}

/// Which known fields a head has had so far, and where.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// One more than the index of the field; 0: not seen.
    places: [u32; KNOWN],
    /// What is to be said of a transfer encoding other than `chunked`, once the head is whole.
    pub encoding_message: Option<Vec<u8>>,
}

impl Seen {
    /// Notes that the field at `index` is `known`; the index of an earlier one that forbids it.
    pub fn mark(&mut self, known: Known, index: usize) -> Option<usize> {
        let place = &mut self.places[known as usize];
        if *place > 0 && !known.may_repeat() {
            return Some(*place as usize - 1);
        }
        *place = u32::try_from(index + 1).unwrap_or(u32::MAX);
        None
    }

    /// Was there one?
    pub fn has(&self, known: Known) -> bool {
        self.places[known as usize] > 0
    }
}
