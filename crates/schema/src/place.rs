//! Where a directive may stand. nginx's manual calls it the context; a set of them is a [`Places`].

/// A set of places (nginx's contexts), one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Places(pub u32);

/// Every single place with the name nginx's manual gives it.
const NAMES: [(Places, &str); 15] = [
    (Places::MAIN, "main"),
    (Places::EVENTS, "events"),
    (Places::HTTP, "http"),
    (Places::SERVER, "server"),
    (Places::LOCATION, "location"),
    (Places::SERVER_IF, "if in server"),
    (Places::LOCATION_IF, "if in location"),
    (Places::LIMIT_EXCEPT, "limit_except"),
    (Places::UPSTREAM, "upstream"),
    (Places::STREAM, "stream"),
    (Places::STREAM_SERVER, "stream server"),
    (Places::STREAM_UPSTREAM, "stream upstream"),
    (Places::MAIL, "mail"),
    (Places::MAIL_SERVER, "mail server"),
    (Places::ACME_ISSUER, "acme_issuer"),
];

impl Places {
    /// The top level of the file.
    pub const MAIN: Places = Places(1);
    /// `events {}`.
    pub const EVENTS: Places = Places(1 << 1);
    /// `http {}`.
    pub const HTTP: Places = Places(1 << 2);
    /// `http { server {} }`.
    pub const SERVER: Places = Places(1 << 3);
    /// `location {}`, nested ones too.
    pub const LOCATION: Places = Places(1 << 4);
    /// `if () {}` inside a server.
    pub const SERVER_IF: Places = Places(1 << 5);
    /// `if () {}` inside a location.
    pub const LOCATION_IF: Places = Places(1 << 6);
    /// `limit_except {}`.
    pub const LIMIT_EXCEPT: Places = Places(1 << 7);
    /// `http { upstream {} }`.
    pub const UPSTREAM: Places = Places(1 << 8);
    /// `stream {}`.
    pub const STREAM: Places = Places(1 << 9);
    /// `stream { server {} }`.
    pub const STREAM_SERVER: Places = Places(1 << 10);
    /// `stream { upstream {} }`.
    pub const STREAM_UPSTREAM: Places = Places(1 << 11);
    /// `mail {}`.
    pub const MAIL: Places = Places(1 << 12);
    /// `mail { server {} }`.
    pub const MAIL_SERVER: Places = Places(1 << 13);
    /// `http { acme_issuer {} }`.
    pub const ACME_ISSUER: Places = Places(1 << 14);
    /// Everywhere (`include`).
    pub const ANY: Places = Places(u32::MAX);

    /// Is any place of `other` in this set?
    pub const fn meets(self, other: Places) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets together.
    pub const fn and(self, other: Places) -> Places {
        Places(self.0 | other.0)
    }

    /// Reads the comma-separated list of the table, e.g. `http, server, if in location`.
    pub fn parse(text: &str) -> Option<Places> {
        if text == "any" {
            return Some(Places::ANY);
        }
        text.split(", ").try_fold(Places(0), |all, name| {
            NAMES.iter().find(|(_, known)| *known == name).map(|(place, _)| all.and(*place))
        })
    }

    /// One place as a sentence says it, e.g. `a "location" block`.
    pub fn described(self) -> String {
        let names = self.names();
        match names.split_once(" in ") {
            Some((block, outer)) => format!("an \"{block}\" block in a \"{outer}\" block"),
            None if self == Places::MAIN => "the top level".to_owned(),
            None => match names.rsplit_once(' ') {
                Some((outer, block)) => format!("a \"{block}\" block inside \"{outer}\""),
                None if names.starts_with(['e', 'u', 'a']) => format!("an \"{names}\" block"),
                None => format!("a \"{names}\" block"),
            },
        }
    }

    /// The names of the set in the manual's order, e.g. `http, server, location`.
    pub fn names(self) -> String {
        let named: Vec<&str> = NAMES.iter().filter(|(p, _)| self.meets(*p)).map(|(_, n)| *n).collect();
        named.join(", ")
    }
}
