//! What PCRE2 10.42 says about patterns and subjects, recorded from the library itself.

use proptest::prelude::*;
use std::sync::Arc;

use super::*;

/// Where the groups are, `-` for one that took no part.
fn groups(found: &Captures) -> String {
    let one = |group: &Option<(u32, u32)>| group.map_or("-".into(), |(start, end)| format!("{start}..{end}"));
    found.groups.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn patterns_match_as_in_pcre() {
    let table: &[(&[u8], bool, &[u8], &str)] = &[
        (b"/\\.(?!well-known).*", false, b"/.well-known/acme", "no"),
        (b"/\\.(?!well-known).*", false, b"/a/.well-known/.b", "14..17"),
        (b"\\.php$", false, b"/a.php", "2..6"),
        (b"\\.php$", false, b"/a.php\n", "2..6"),
        (b"\\.php$", false, b"/a.php\n\n", "no"),
        (b"\\.php\\z", false, b"/a.php\n", "no"),
        (b"^(.*)$", false, b"foo\n", "0..3 0..3"),
        (b"^([^/]+)$", false, b"foo\n", "0..4 0..4"),
        (b"^([^/]+?)$", false, b"foo\n", "0..3 0..3"),
        (b"(foo$)", false, b"foo\n", "0..3 0..3"),
        (b"(o+)($)", false, b"foo\n", "1..3 1..3 3..3"),
        (b"^/(?!admin)(.+)$", false, b"/x\n", "0..2 1..2"),
        (b"^(?<script>.+\\.php)(?<path_info>.*)$", false, b"/a.php/b/c.php", "0..14 0..14 14..14"),
        (b"^(.+?\\.php)(/.*)?$", false, b"/a.php/b.php", "0..12 0..6 6..12"),
        (b"^(.+?\\.php)(/.*)?$", false, b"/a.php", "0..6 0..6 -"),
        (b"(?i)ABC", false, b"xabcx", "1..4"),
        (b"\\.(JPG|png)$", true, b"/A.jPg", "2..6 3..6"),
        (b"[a-c]+", true, b"xABCx", "1..4"),
        (b"[^a]", true, b"A", "no"),
        (b"\xc3\xa9", true, b"\xc3\x89", "no"),
        (b".", false, b"\xc3\xa9", "0..1"),
        (b"^.{2}$", false, b"\xc3\xa9", "0..2"),
        (b"[^a]+", false, b"\n\n", "0..2"),
        (b"\\w+", false, b"\xc3\xa99_\xc3\xa9", "2..4"),
        (b"\\p{N}+", false, b"x12\xb3", "1..4"),
        (b"[\\pL-]+", false, b"1a-\xe9.", "1..4"),
        (b"\\P{^Lu}\\p{^Lu}", false, b"aAb", "1..3"),
        (b"\\bfoo\\b", false, b"\xc3\xa9foo\xc3\xa9", "2..5"),
        (b"a\\Bb", false, b"ab", "0..2"),
        (b"(?<=/)(\\d+)(?=/)", false, b"/x/12/", "3..5 3..5"),
        (b"(?<!ext/)phpbb(?!\\w+)", false, b"/phpbb/", "1..6"),
        (b"(?<!ext/)phpbb(?!\\w+)", false, b"/ext/phpbb/", "no"),
        (b"(?<=a|bcd)x", false, b"bcdx", "3..4"),
        (b"(?<!a|bcd)x", false, b"bcdxzx", "5..6"),
        (b"(\\w)\\1", false, b"abccd", "2..4 2..3"),
        (b"(\\w)\\1", true, b"abCcd", "2..4 2..3"),
        (b"(?<n>ab)\\k<n>", false, b"xabab", "1..5 1..3"),
        (b"(ab)\\g{-1}", false, b"xabab", "1..5 1..3"),
        (b"(?>a+)b", false, b"aaab", "0..4"),
        (b"(?>a+)ab", false, b"aaab", "no"),
        (b"a++b", false, b"aaab", "0..4"),
        (b"a++ab", false, b"aaab", "no"),
        (b"[^/]++/", false, b"abc/def", "0..4"),
        (b"(a)?(?(1)b|c)", false, b"ab", "0..2 0..1"),
        (b"(a)?(?(1)b|c)", false, b"xc", "1..2 -"),
        (b"(?(?=a)ab|cd)", false, b"xcd", "1..3"),
        (b"(?(?=(a))ab|cd)", false, b"xab", "1..3 1..2"),
        (b"\\Qa.b\\E+", false, b"a.bbb", "0..5"),
        (b"(?x) a b # c\n c", false, b"abc", "0..3"),
        (b"[[:alpha:]_-]+", false, b"9a_-b9", "1..5"),
        (b"[[:^digit:]]+", false, b"12ab", "2..4"),
        (b"[]a]+", false, b"x]a]", "1..4"),
        (b"[\\]a-]+", false, b"x]-a", "1..4"),
        (b"\\x41\\x{42}\\103", false, b"xABC", "1..4"),
        (b"a{2,3}?", false, b"aaaa", "0..2"),
        (b"a{,3}", false, b"a{,3}", "0..5"),
        (b"a{", false, b"a{", "0..2"),
        (b"(?U)a+", false, b"aaa", "0..1"),
        (b"(?U)a+?", false, b"aaa", "0..3"),
        (b"(?s)a.b", false, b"a\nb", "0..3"),
        (b"a.b", false, b"a\nb", "no"),
        (b"(?m)^b$", false, b"a\nb\nc", "2..3"),
        (b"(?m)a$", false, b"a\nb", "0..1"),
        (b"^b", false, b"a\nb", "no"),
        (b"(a|ab)(c|bcd)(d*)", false, b"abcd", "0..4 0..1 1..4 4..4"),
        (b"(a)|(b)", false, b"b", "0..1 - 0..1"),
        (b"((a)|b)*", false, b"ab", "0..2 1..2 0..1"),
        (b"(?:(a)|b)*", false, b"ab", "0..2 0..1"),
        (b"(a*)*", false, b"b", "0..0 0..0"),
        (b"\\R+", false, b"x\n", "1..2"),
        (b"\\h+x", false, b"a \x09x", "1..4"),
        (b"^$", false, b"", "0..0"),
        (b"^$", false, b"\n", "0..0"),
        (b"\\A\\Z", false, b"\n", "0..0"),
        (b"$", false, b"a\n", "1..1"),
        (b"\\/api\\/v1\\-\\_\\:", false, b"/api/v1-_:", "0..10"),
        (b"(?#comment)a", false, b"ba", "1..2"),
        (b"a(?i)b|c", false, b"AB", "no"),
        (b"a(?i)b|c", false, b"C", "0..1"),
        (b"(a(?i)b|c)d", false, b"Cd", "0..2 0..1"),
        (b"(?i:a)b", false, b"Ab", "0..2"),
        (b"(?i:a)b", false, b"AB", "no"),
        (b"(?-i)a", false, b"A", "no"),
        (b"(?-i)a", true, b"A", "no"),
        (b"\\\xc3\xa9", false, b"\xc3\xa9", "0..2"),
        (b"[\\w.-]+@[\\w.-]+", false, b"me@a-b.c", "0..8"),
        (b"(?:^|,)\\s*x", false, b"a, x", "1..4"),
        (b"^/(?=.*b)(?=.*c)(.*)$", false, b"/cab", "0..4 1..4"),
        (b"(?=a)*b", false, b"ab", "1..2"),
        (b"(?!)", false, b"a", "no"),
        (b"(?:)", false, b"a", "0..0"),
        (b"^(?!.*\\.(js|css)$).*$", false, b"/a.js", "no"),
        (b"^(?!.*\\.(js|css)$).*$", false, b"/a.html", "0..7 -"),
        (b"(?<y>\\d{4})-(?<m>\\d\\d)", false, b"on 2024-05-06", "3..10 3..7 8..10"),
        (b"^(?:(?!/b).)*$", false, b"/a/c", "0..4"),
        (b"^(?:(?!/b).)*$", false, b"/a/b", "no"),
        (b"(.)(?<=\xc3\xa9)x", false, b"\xc3\xa9x", "1..3 1..2"),
    ];
    let mut found = Captures::new();
    for (pattern, caseless, subject, expected) in table {
        let regex = Regex::new(pattern, *caseless).expect("compiles");
        let matched = regex.captures(subject, &mut found);
        let got = if matched { groups(&found) } else { "no".into() };
        let trailing = |text: &str| text.trim_end_matches(" -").to_string();
        assert_eq!(
            trailing(&got),
            trailing(expected),
            "{:?} on {:?}",
            BStr::new(pattern),
            BStr::new(subject)
        );
        assert_eq!(regex.is_match(subject), matched, "{:?} on {:?}", BStr::new(pattern), BStr::new(subject));
        // As one of many, in front of and behind others that do not match.
        let others = |count| (0..count).map(|_| Regex::new(b"(?!x)x", false).expect("compiles"));
        let this = std::iter::once(Regex::new(pattern, *caseless).expect("compiles"));
        let set = LocationSet::new(others(7).chain(this).chain(others(3)).map(Arc::new).collect());
        assert_eq!(
            set.find(subject),
            matched.then_some(7),
            "{:?} on {:?}",
            BStr::new(pattern),
            BStr::new(subject)
        );
        assert_eq!(set.captures(subject, &mut found), matched.then_some(7));
    }
}

#[test]
fn faults_have_the_words_and_places_of_pcre() {
    let table: &[(&str, &str)] = &[
        ("(", "missing closing parenthesis in \"(\""),
        ("a)", "unmatched closing parenthesis in \"a)\" at \")\""),
        ("[a", "missing terminating ] for character class in \"[a\""),
        ("[^]", "missing terminating ] for character class in \"[^]\""),
        ("[z-a]", "range out of order in character class in \"[z-a]\" at \"a]\""),
        ("[\\d-z]", "invalid range in character class in \"[\\d-z]\" at \"-z]\""),
        ("[a-\\d]", "invalid range in character class in \"[a-\\d]\" at \"]\""),
        ("[\\w-a]", "invalid range in character class in \"[\\w-a]\" at \"-a]\""),
        ("[[:foo:]]", "unknown POSIX class name in \"[[:foo:]]\" at \"foo:]]\""),
        (
            "[:alpha:]",
            "POSIX named classes are supported only within a class in \"[:alpha:]\" at \"[:alpha:]\"",
        ),
        ("[[.a.]]", "POSIX collating elements are not supported in \"[[.a.]]\" at \"[.a.]]\""),
        ("*a", "quantifier does not follow a repeatable item in \"*a\" at \"*a\""),
        ("a**", "quantifier does not follow a repeatable item in \"a**\" at \"*\""),
        ("a*?+", "quantifier does not follow a repeatable item in \"a*?+\" at \"+\""),
        ("a{2,1}", "numbers out of order in {} quantifier in \"a{2,1}\" at \"}\""),
        ("a{65536}", "number too big in {} quantifier in \"a{65536}\" at \"}\""),
        ("a{655360}", "number too big in {} quantifier in \"a{655360}\" at \"0}\""),
        ("{3}", "quantifier does not follow a repeatable item in \"{3}\" at \"}\""),
        ("^*", "quantifier does not follow a repeatable item in \"^*\" at \"*\""),
        ("\\b{2}", "quantifier does not follow a repeatable item in \"\\b{2}\" at \"}\""),
        ("|*", "quantifier does not follow a repeatable item in \"|*\" at \"*\""),
        ("(?i)*", "quantifier does not follow a repeatable item in \"(?i)*\" at \"*\""),
        ("\\Q\\E*", "quantifier does not follow a repeatable item in \"\\Q\\E*\" at \"*\""),
        ("a\\", "\\ at end of pattern in \"a\\\""),
        ("\\y", "unrecognized character follows \\ in \"\\y\" at \"y\""),
        ("\\L", "PCRE2 does not support \\F, \\L, \\l, \\N{name}, \\U, or \\u in \"\\L\""),
        ("\\x{", "digits missing in \\x{} or \\o{} or \\N{U+} in \"\\x{\""),
        ("\\x{g}", "non-hex character in \\x{} (closing brace missing?) in \"\\x{g}\" at \"g}\""),
        ("\\x{141}", "character code point value in \\x{} or \\o{} is too large in \"\\x{141}\" at \"}\""),
        ("\\400", "octal value is greater than \\377 in 8-bit non-UTF-8 mode in \"\\400\""),
        ("\\o", "missing opening brace after \\o in \"\\o\" at \"o\""),
        ("\\o{9}", "non-octal character in \\o{} (closing brace missing?) in \"\\o{9}\" at \"9}\""),
        ("\\c", "\\c at end of pattern in \"\\c\""),
        ("\\8", "reference to non-existent subpattern in \"\\8\" at \"8\""),
        ("(a)\\2", "reference to non-existent subpattern in \"(a)\\2\" at \"2\""),
        ("\\k", "\\k is not followed by a braced, angle-bracketed, or quoted name in \"\\k\""),
        ("\\k<n>", "reference to non-existent subpattern in \"\\k<n>\" at \"n>\""),
        (
            "\\g",
            "\\g is not followed by a braced, angle-bracketed, or quoted name/number or by a plain number in \"\\g\"",
        ),
        ("\\g{1}", "reference to non-existent subpattern in \"\\g{1}\" at \"}\""),
        ("(a)\\g-2", "reference to non-existent subpattern in \"(a)\\g-2\""),
        ("(?P=n)", "reference to non-existent subpattern in \"(?P=n)\" at \"n)\""),
        ("(?P<n", "syntax error in subpattern name (missing terminator?) in \"(?P<n\""),
        ("(?P<>a)", "subpattern name expected in \"(?P<>a)\" at \">a)\""),
        ("(?P<1a>a)", "subpattern name must start with a non-digit in \"(?P<1a>a)\" at \"1a>a)\""),
        (
            "(?P<a-b>a)",
            "syntax error in subpattern name (missing terminator?) in \"(?P<a-b>a)\" at \"-b>a)\"",
        ),
        (
            "(?<n>a)(?<n>b)",
            "two named subpatterns have the same name (PCRE2_DUPNAMES not set) in \"(?<n>a)(?<n>b)\" at \"b)\"",
        ),
        ("(?'n", "syntax error in subpattern name (missing terminator?) in \"(?'n\""),
        ("(?", "missing closing parenthesis in \"(?\""),
        ("(?a)", "unrecognized character after (? or (?- in \"(?a)\" at \"a)\""),
        ("(?i", "missing closing parenthesis in \"(?i\""),
        ("(?i-Z)", "unrecognized character after (? or (?- in \"(?i-Z)\" at \"Z)\""),
        ("(?#", "missing ) after (?# comment in \"(?#\""),
        ("(?(1)a)", "reference to non-existent subpattern in \"(?(1)a)\" at \"(1)a)\""),
        (
            "(a)(?(1)a|b|c)",
            "conditional subpattern contains more than two branches in \"(a)(?(1)a|b|c)\" at \"(?(1)a|b|c)\"",
        ),
        ("(?(<n>)a)", "reference to non-existent subpattern in \"(?(<n>)a)\" at \"n>)a)\""),
        ("(?<=a*)", "lookbehind assertion is not fixed length in \"(?<=a*)\" at \"(?<=a*)\""),
        ("(?<=(a|bc))", "lookbehind assertion is not fixed length in \"(?<=(a|bc))\" at \"(?<=(a|bc))\""),
        ("(?!", "missing closing parenthesis in \"(?!\""),
        ("(?Pa)", "unrecognized character after (?P in \"(?Pa)\" at \"a)\""),
        ("((a)", "missing closing parenthesis in \"((a)\""),
        ("[\\B]", "escape sequence is invalid in character class in \"[\\B]\" at \"B]\""),
        ("[\\N]", "\\N is not supported in a class in \"[\\N]\" at \"]\""),
        ("[\\E]", "missing terminating ] for character class in \"[\\E]\""),
        ("[a\\]", "missing terminating ] for character class in \"[a\\]\""),
        ("(?(1", "missing closing parenthesis for condition in \"(?(1\""),
        ("(*a)", "(*alpha_assertion) not recognized in \"(*a)\" at \")\""),
    ];
    for (pattern, expected) in table {
        let error = Regex::new(pattern.as_bytes(), false).expect_err(pattern);
        assert_eq!(error.to_string(), format!("pcre2_compile() failed: {expected}"));
    }
}

#[test]
fn what_is_not_built_is_refused() {
    for pattern in
        ["(a)(?1)", "(?R)", "(?|a|b)", "(*SKIP)a", "a(*UTF)", "\\X", "(?C)", "[[:<:]]a", "(*UTF)[é]"]
    {
        let error = Regex::new(pattern.as_bytes(), false).expect_err(pattern).to_string();
        assert!(error.contains("not supported here in"), "{error}");
    }
}

#[test]
fn groups_are_found_by_name() {
    let regex = Regex::new(b"^(?<user>\\w+)(-)(?P<host>.*)(?'x'y)?", false).unwrap();
    assert_eq!(regex.group_count(), 4);
    assert_eq!(regex.names(), [("user".into(), 1), ("host".into(), 3), ("x".into(), 4)]);
    let mut found = Captures::new();
    let subject = b"me-there";
    assert!(regex.captures(subject, &mut found));
    assert_eq!((found.bytes(1, subject), found.bytes(3, subject)), (&b"me"[..], &b"there"[..]));
    assert_eq!((found.bytes(4, subject), found.get(4), found.get(9)), (&b""[..], None, None));
    // No match leaves what was found before.
    assert!(!regex.captures(b"-", &mut found));
    assert_eq!(found.bytes(1, subject), b"me");
}

#[test]
fn backtracking_is_bounded_and_mostly_avoided() {
    let subject = [vec![b'a'; 60], vec![b'b']].concat();
    let mut found = Captures::new();
    // The linear filter sees that there is no "c" in it.
    assert_eq!(Regex::new(b"^(?=a)(a+)+c$", false).unwrap().search(&subject, &mut found), Ok(false));
    // Here only backtracking can tell.
    let hostile = Regex::new(b"^(?:(?!c)a+)+(?!b).$", false).unwrap();
    assert_eq!(hostile.search(&subject, &mut found), Err(TooMuchBacktracking));
    assert!(!hostile.is_match(&subject));
}

#[test]
fn the_first_pattern_in_order_wins() {
    let patterns = ["\\.php$", "^/a(?!b)", "^/a", "x{3}", "^/(.)b", "(?<!/)z", "^/", "z"];
    let set = LocationSet::new(
        patterns.iter().map(|p| Arc::new(Regex::new(p.as_bytes(), false).unwrap())).collect(),
    );
    let table: &[(&[u8], Option<usize>)] = &[
        (b"/a.php", Some(0)),
        (b"/ac", Some(1)),
        (b"/ab", Some(2)),
        (b"/xxx", Some(3)),
        (b"/cb", Some(4)),
        (b"/zz", Some(5)),
        (b"/z", Some(6)),
        (b"az", Some(5)),
        (b"z", Some(5)),
        (b"q", None),
        (b"", None),
    ];
    for (subject, expected) in table {
        assert_eq!(set.find(subject), *expected, "{:?}", BStr::new(subject));
    }
    assert_eq!((set.len(), set.is_empty(), set.regexes()[3].pattern()), (8, false, "x{3}".into()));
}

#[test]
fn long_lists_find_the_first_too() {
    let patterns = (0..300).map(|number| format!("^/c{number}/(.)$|^/every{}$", number % 150));
    let set =
        LocationSet::new(patterns.map(|p| Arc::new(Regex::new(p.as_bytes(), false).unwrap())).collect());
    let mut found = Captures::new();
    for number in [0, 1, 127, 128, 129, 149, 150, 255, 256, 299] {
        let subject = format!("/c{number}/x");
        assert_eq!(set.captures(subject.as_bytes(), &mut found), Some(number), "{subject}");
        assert_eq!(found.bytes(1, subject.as_bytes()), b"x");
        let subject = format!("/every{}", number % 150);
        assert_eq!(set.find(subject.as_bytes()), Some(number % 150), "{subject}");
    }
    assert_eq!(set.find(b"/c300/x"), None);
}

/// The largest that are built when they are needed, and larger ones, which are built at once.
#[test]
fn large_patterns_work_or_are_refused_at_once() {
    for (pattern, is_taken) in [
        ("^a{1,1000}$", true),
        ("^(?:[a-z0-9]{9}x?){900}a+$", true),
        ("^(?:a[a-z]{0,99}){99}$", true),
        ("^(?:(?:a{1,100}){1,100}){1,100}$", false),
    ] {
        match Regex::new(pattern.as_bytes(), false) {
            Ok(regex) => {
                assert!(is_taken, "{pattern}");
                let mut found = Captures::new();
                let subject = [b'a'; 9001];
                assert_eq!(regex.search(&subject[..999], &mut found).is_ok(), is_taken, "{pattern}");
            }
            Err(error) => {
                assert!(!is_taken, "{pattern}");
                assert_eq!(error.reason, "regular expression is too large");
            }
        }
    }
}

#[test]
fn groups_may_be_nested_as_deep_as_in_pcre() {
    let nested = |depth: usize, inner: &str| format!("{}{inner}{}", "(".repeat(depth), ")*".repeat(depth));
    let regex = Regex::new(nested(250, "a|b").as_bytes(), false).unwrap();
    assert!(regex.is_match(b"ab"));
    let error = Regex::new(nested(251, "a|b").as_bytes(), false).unwrap_err();
    assert_eq!(error.reason, "parentheses are too deeply nested");
    assert!(Regex::new(nested(50, "(?=a)a|b").as_bytes(), false).unwrap().is_match(b"ab"));
}

proptest! {
    #[test]
    fn any_pattern_compiles_or_is_refused(pattern: Vec<u8>, subject: Vec<u8>) {
        if let Ok(regex) = Regex::new(&pattern, false) {
            let mut found = Captures::new();
            // What was taken is built when it is needed.
            prop_assert_eq!(regex.search(&subject, &mut found), Ok(regex.is_match(&subject)));
        }
    }

    #[test]
    fn likely_patterns_compile_or_are_refused(
        pattern in r"([a/.$^|()\[\]*+?{}1,\\wdbZzKQE-]|\(\?[:=!>#imsx<|]|\[\[:alpha:|\\x[0-9a-f]{0,2}){0,12}",
        subject in r"[ab/.1\n]{0,8}",
    ) {
        if let Ok(regex) = Regex::new(pattern.as_bytes(), true) {
            let mut found = Captures::new();
            let matched = regex.search(subject.as_bytes(), &mut found);
            prop_assert_eq!(matched, Ok(regex.is_match(subject.as_bytes())));
            for group in (0..found.len()).filter_map(|group| found.get(group)) {
                prop_assert!(group.start <= group.end && group.end <= subject.len());
            }
        }
    }

    #[test]
    fn quoted_bytes_are_found_where_they_are(before: Vec<u8>, middle: Vec<u8>, after: Vec<u8>) {
        prop_assume!(!middle.windows(2).any(|pair| pair == b"\\E") && middle.last() != Some(&b'\\'));
        let pattern = [b"\\Q", &middle[..], b"\\E"].concat();
        let subject = [&before[..], &middle, &after].concat();
        let mut found = Captures::new();
        prop_assert!(Regex::new(&pattern, false).unwrap().captures(&subject, &mut found));
        prop_assert_eq!(found.bytes(0, &subject), &middle[..]);
        // The same behind a look-behind, which takes the other engine.
        let fancy = [b"(?<=)", &pattern[..]].concat();
        let mut other = Captures::new();
        prop_assert!(Regex::new(&fancy, false).unwrap().captures(&subject, &mut other));
        prop_assert_eq!(found, other);
    }
}
