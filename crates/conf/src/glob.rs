//! Patterns of `include`, as glob(3) without flags understands them; whoever owns a file system lists its folders.

use bstr::{BStr, BString, ByteSlice};

/// Most paths one pattern may give.
pub const GLOB_PATHS_MAX: usize = 65_536;

/// Whether `include` treats a path as a pattern.
pub fn is_glob(path: &BStr) -> bool {
    path.find_byteset(b"*?[").is_some()
}

/// Whether a path matches a pattern of glob(3) without flags: `*`, `?` and `[...]` match neither `/` nor a dot at
/// the start of a component, and a backslash takes the meaning from what follows.
pub fn glob_matches(pattern: &BStr, path: &BStr) -> bool {
    let mut patterns = pattern.split_str("/");
    let mut names = path.split_str("/");
    loop {
        match (patterns.next(), names.next()) {
            (None, None) => return true,
            (Some(pattern), Some(name)) if component_matches(pattern, name) => {}
            _ => return false,
        }
    }
}

/// One component. Going back to the last `*` only keeps this linear in the product of the lengths.
fn component_matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') && !pattern.starts_with(b"\\.") {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, n));
            p += 1;
            continue;
        }
        if let Some(length) = unit_matches(&pattern[p..], name[n]) {
            p += length;
            n += 1;
            continue;
        }
        let Some((after, from)) = star else { return false };
        p = after;
        n = from + 1;
        star = Some((after, n));
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Whether the first unit of a pattern (not `*`) matches a byte, and how long that unit is.
fn unit_matches(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', rest @ ..] => match set_matches(rest, byte) {
            Some((length, true)) => Some(1 + length),
            Some((_, false)) => None,
            // Without a closing bracket the opening one stands for itself.
            None => (byte == b'[').then_some(1),
        },
        [literal, ..] => (*literal == byte).then_some(1),
    }
}

/// The part of `[...]` behind the opening bracket: its length with the closing bracket, and whether it matches.
fn set_matches(set: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(set.first(), Some(b'!' | b'^'));
    let first = usize::from(negated);
    let mut at = first;
    let mut found = false;
    loop {
        let mut low = *set.get(at)?;
        if low == b']' && at > first {
            return Some((at + 1, found != negated));
        }
        if low == b'\\' {
            at += 1;
            low = *set.get(at)?;
        }
        at += 1;
        let mut high = low;
        if set.get(at) == Some(&b'-') && set.get(at + 1).is_some_and(|end| *end != b']') {
            at += 1;
            if set.get(at) == Some(&b'\\') {
                at += 1;
            }
            high = *set.get(at)?;
            at += 1;
        }
        found |= (low..=high).contains(&byte);
    }
}

/// What [`expand_glob`] asks of a file system.
pub trait Folders {
    /// The names in a folder, in any order, without `.` and `..`. Nothing if it cannot be read. The empty path stands for
    /// the current folder.
    fn names(&self, folder: &BStr) -> Vec<BString>;

    /// Whether there is something under this path, links not followed.
    fn exists(&self, path: &BStr) -> bool;
}

/// The existing paths that match a pattern, sorted by their bytes: what [`crate::Files::glob`] has to answer.
pub fn expand_glob(pattern: &BStr, folders: &dyn Folders) -> Vec<BString> {
    let mut paths = vec![BString::default()];
    let mut listed = false;
    for (number, component) in pattern.split_str("/").enumerate() {
        if number > 0 {
            paths.iter_mut().for_each(|path| path.push(b'/'));
        }
        listed = is_glob(component.as_bstr());
        if !listed {
            let literal = without_backslashes(component);
            paths.iter_mut().for_each(|path| path.extend_from_slice(&literal));
            continue;
        }
        let mut longer = Vec::new();
        for path in &paths {
            for name in folders.names(path.as_bstr()) {
                if longer.len() < GLOB_PATHS_MAX && component_matches(component, &name) {
                    longer.push(BString::from([&path[..], &name[..]].concat()));
                }
            }
        }
        paths = longer;
    }
    if !listed {
        paths.retain(|path| folders.exists(path.as_bstr()));
    }
    paths.sort();
    paths
}

fn without_backslashes(component: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(component.len());
    let mut rest = component;
    loop {
        match rest {
            [b'\\', byte, after @ ..] | [byte, after @ ..] => {
                out.push(*byte);
                rest = after;
            }
            [] => return out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn patterns_match_as_in_glob() {
        let table = [
            ("/etc/nginx/conf.d/*.conf", "/etc/nginx/conf.d/a.conf", true),
            ("/etc/nginx/conf.d/*.conf", "/etc/nginx/conf.d/.conf", false),
            ("/etc/nginx/conf.d/*.conf", "/etc/nginx/conf.d/a/b.conf", false),
            ("/etc/*/a", "/etc/x/a", true),
            ("/etc/*/a", "/etc//a", true),
            ("/a/*", "/a/.hidden", false),
            ("/a/.*", "/a/.hidden", true),
            ("/a/?", "/a/b", true),
            ("/a/?", "/a/bc", false),
            ("/a/[a-c]x", "/a/bx", true),
            ("/a/[!a-c]x", "/a/bx", false),
            ("/a/[^a-c]x", "/a/dx", true),
            ("/a/[]]x", "/a/]x", true),
            ("/a/[ax", "/a/[ax", true),
            ("/a/\\*", "/a/*", true),
            ("/a/\\*", "/a/b", false),
            ("/a/*b*c", "/a/xbybc", true),
            ("/a/*b*c", "/a/xbyb", false),
            ("/a/[a\\-c]", "/a/-", true),
            ("/a/[a\\-c]", "/a/b", false),
        ];
        for (pattern, path, expected) in table {
            assert_eq!(glob_matches(pattern.into(), path.into()), expected, "{pattern} {path}");
        }
    }

    struct Listing(BTreeSet<&'static str>);

    impl Folders for Listing {
        fn names(&self, folder: &BStr) -> Vec<BString> {
            let inside = self.0.iter().filter_map(|path| path.as_bytes().strip_prefix(folder.as_bytes()));
            let names: BTreeSet<&[u8]> = inside.filter_map(|rest| rest.split_str("/").next()).collect();
            names.into_iter().filter(|name| !name.is_empty()).map(BString::from).collect()
        }

        fn exists(&self, path: &BStr) -> bool {
            self.0
                .iter()
                .any(|held| *path == *held || held.as_bytes().starts_with(&[path.as_bytes(), b"/"].concat()))
        }
    }

    #[test]
    fn patterns_are_expanded_over_folders() {
        let listing = Listing(BTreeSet::from([
            "/n/b.conf",
            "/n/a.conf",
            "/n/.c.conf",
            "/n/x/d.conf",
            "/n/y/d.conf",
            "/n/y/e.conf",
            "/n/z*/f",
            "rel/g",
        ]));
        let table = [
            ("/n/*.conf", "/n/a.conf /n/b.conf"),
            ("/n/*/d.conf", "/n/x/d.conf /n/y/d.conf"),
            ("/n/*/*.conf", "/n/x/d.conf /n/y/d.conf /n/y/e.conf"),
            ("/n/[xy]/e.conf", "/n/y/e.conf"),
            ("/n/z\\*/?", "/n/z*/f"),
            ("/none/*", ""),
            ("rel/*", "rel/g"),
            ("*/g", "rel/g"),
        ];
        for (pattern, expected) in table {
            let paths: Vec<_> =
                expand_glob(pattern.into(), &listing).iter().map(|path| path.to_string()).collect();
            assert_eq!(paths.join(" "), expected, "{pattern}");
        }
    }
}
