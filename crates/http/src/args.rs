//! `$arg_name`.

/// The value of the first argument called `name`, whatever its case, as it came; `None` also for one without `=`.
pub fn find<'a>(args: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    if name.is_empty() {
        return None;
    }
    args.split(|&byte| byte == b'&').find_map(|pair| {
        let (start, rest) = pair.split_at_checked(name.len())?;
        start.eq_ignore_ascii_case(name).then_some(rest)?.strip_prefix(b"=")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_as_nginx_finds_them() {
        let args = b"a=1&ab=2&A=3&c&d=&e=f=g&h%20=4";
        let cases: &[(&str, Option<&str>)] = &[
            ("a", Some("1")),
            ("AB", Some("2")),
            ("b", None),
            ("c", None),
            ("d", Some("")),
            ("e", Some("f=g")),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(find(args, name.as_bytes()), expected.map(str::as_bytes), "{name}");
        }
    }
}
