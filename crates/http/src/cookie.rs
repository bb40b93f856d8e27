//! `$cookie_name`, and values inside headers that are lists of `name=value`.

use crate::fields::Fields;

/// The value of the cookie called `name`, whatever its case, as nginx 1.29.6 and later look for it: only `;` parts
/// cookies, a comma belongs to the value.
pub fn find<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    fields.all(b"Cookie").find_map(|value| find_in_list(value, name, b';'))
}

/// The value of `name` in one header value whose elements are parted by `separator`.
pub fn find_in_list<'a>(list: &'a [u8], name: &[u8], separator: u8) -> Option<&'a [u8]> {
    list.split(|&byte| byte == separator).find_map(|element| value_of(skip_spaces(element), name))
}

/// The value a `Set-Cookie` line gives to the cookie called `name`: of the first pair only, for the rest are
/// attributes.
pub fn find_set<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    fields.all(b"Set-Cookie").find_map(|value| value_of(value.split(|&byte| byte == b';').next()?, name))
}

/// `name = value`: the value, with the spaces behind it.
fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = pair.split_at_checked(name.len())?;
    if !start.eq_ignore_ascii_case(name) {
        return None;
    }
    Some(skip_spaces(skip_spaces(rest).strip_prefix(b"=")?))
}

fn skip_spaces(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|&&byte| byte == b' ').count();
    text.get(spaces..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_as_nginx_finds_them() {
        let fields: Fields =
            [(&b"Cookie"[..], &b"a=1; bb = 2 ;c=3,d=4; e; f=;a=9"[..]), (b"cookie", b"g=h=i")]
                .into_iter()
                .collect();
        let cases: &[(&str, Option<&str>)] = &[
            ("a", Some("1")),
            ("A", Some("1")),
            ("bb", Some("2 ")),
            ("b", None),
            ("c", Some("3,d=4")),
            ("d", None),
            ("e", None),
            ("f", Some("")),
            ("g", Some("h=i")),
        ];
        for (name, expected) in cases {
            assert_eq!(find(&fields, name.as_bytes()), expected.map(str::as_bytes), "{name}");
        }
    }

    #[test]
    fn a_set_cookie_has_one_pair() {
        let fields: Fields =
            [(&b"Set-Cookie"[..], &b"a=1; Path=/"[..]), (b"Set-Cookie", b"b=2")].into_iter().collect();
        assert_eq!(find_set(&fields, b"b"), Some(&b"2"[..]));
        assert_eq!(find_set(&fields, b"Path"), None);
    }
}
