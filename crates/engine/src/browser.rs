//! What a `User-Agent` tells of old browsers that need special care, as nginx reads it.

use http::Fields;
use memchr::memmem::find;

/// A browser, as far as the server cares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Browser {
    /// Microsoft Internet Explorer up to 10.
    pub msie: bool,
    /// Its versions 4 and 5, and 6 before Windows XP SP2.
    pub msie6: bool,
    /// Chrome, and what calls itself so.
    pub chrome: bool,
    /// Safari on a Mac.
    pub safari: bool,
}

/// Looks at the `User-Agent` of a request.
pub fn of(fields: &Fields) -> Browser {
    fields.get(b"User-Agent").map(of_agent).unwrap_or_default()
}

fn of_agent(agent: &[u8]) -> Browser {
    let has = |name: &[u8]| find(agent, name).is_some();
    if has(b"Opera") {
        return Browser::default();
    }
    // The version has three bytes, and something follows it.
    let version = find(agent, b"MSIE ").map(|at| &agent[at + 5..]).filter(|version| version.len() > 2);
    if let Some(version) = version {
        let msie6 = match version {
            [b'4' | b'5', b'.', ..] => true,
            [b'6', b'.', _, rest @ ..] => find(rest, b"SV1").is_none(),
            _ => false,
        };
        return Browser { msie: true, msie6, ..Browser::default() };
    }
    if has(b"Gecko/") {
        return Browser::default();
    }
    let chrome = has(b"Chrome/");
    Browser { chrome, safari: !chrome && has(b"Safari/") && has(b"Mac OS X"), ..Browser::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_told_apart() {
        let msie = Browser { msie: true, ..Browser::default() };
        let msie6 = Browser { msie6: true, ..msie };
        let cases: [(&str, Browser); 9] = [
            ("Mozilla/4.0 (compatible; MSIE 5.01; Windows NT)", msie6),
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.0)", msie6),
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)", msie),
            ("Mozilla/5.0 (compatible; MSIE 10.0; Windows NT 6.2)", msie),
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows) Opera 8.0", Browser::default()),
            ("Mozilla/5.0 (X11) Gecko/20100101 Chrome/1", Browser::default()),
            ("Mozilla/5.0 Chrome/120.0 Safari/537", Browser { chrome: true, ..Browser::default() }),
            ("Mozilla/5.0 (Mac OS X) Safari/412", Browser { safari: true, ..Browser::default() }),
            ("MSIE 6", Browser::default()),
        ];
        for (agent, expected) in cases {
            assert_eq!(of_agent(agent.as_bytes()), expected, "{agent}");
        }
    }
}
