//! "Did you mean": the candidate that differs from a word by the fewest slips of the hand.

/// Longest word for which a neighbour is looked for, in bytes.
const WORD_BYTES_MAX: usize = 64;

/// The candidate nearest to a word by Damerau-Levenshtein distance (insert, delete, replace, swap neighbours), if it is
/// near enough to be meant: a third of the length, at most 3. Among equals the first one wins. Letter case is ignored.
pub fn nearest<'a>(word: &[u8], candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > WORD_BYTES_MAX {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let mut limit = (word.len().div_ceil(3)).min(3);
    let mut best = None;
    for candidate in candidates {
        if candidate.len() > WORD_BYTES_MAX || candidate.len().abs_diff(word.len()) > limit {
            continue;
        }
        let distance = distance(&word, &candidate.as_bytes().to_ascii_lowercase());
        if distance < limit || (distance == limit && best.is_none()) {
            limit = distance;
            best = Some(candidate);
        }
    }
    best
}

/// The optimal-string-alignment form: a pair is swapped at most once.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut row = last.clone();
    for i in 1..=a.len() {
        row[0] = i;
        for j in 1..=b.len() {
            let same = a[i - 1] == b[j - 1];
            let mut best = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + usize::from(!same));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row[j] = best;
        }
        std::mem::swap(&mut before_last, &mut last);
        std::mem::swap(&mut last, &mut row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let known = [
            "proxy_pass",
            "proxy_bind",
            "listen",
            "location",
            "root",
            "server_name",
            "server",
            "return",
            "if",
        ];
        let table = [
            ("proxy_pas", Some("proxy_pass")),
            ("porxy_pass", Some("proxy_pass")),
            ("Listen", Some("listen")),
            ("lsiten", Some("listen")),
            ("server_nmae", Some("server_name")),
            ("servers", Some("server")),
            ("retrun", Some("return")),
            ("fi", Some("if")),
            ("more_set_headers", None),
            ("", None),
            ("x", None),
        ];
        for (word, expected) in table {
            assert_eq!(nearest(word.as_bytes(), known.into_iter()), expected, "{word}");
        }
    }

    #[test]
    fn distances() {
        let table = [
            ("", "", 0),
            ("a", "", 1),
            ("ab", "ba", 1),
            ("kitten", "sitting", 3),
            ("abc", "abc", 0),
            ("ca", "abc", 3),
        ];
        for (a, b, expected) in table {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
        }
    }
}
