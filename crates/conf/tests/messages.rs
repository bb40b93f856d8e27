//! The parser's messages and the lines they name. Every expectation in the first two tables is what nginx 1.31.5 printed
//! for the same bytes.

use bstr::{BStr, BString, ByteSlice};
use conf::{MemoryFiles, parse, render_nginx};

const INCLUDED: &[(&str, &str)] = &[
    ("/conf/sub/stray.conf", "sendfile on;\n}\n"),
    ("/conf/sub/open.conf", "server {\n"),
    ("/conf/sub/words.conf", "\nuser root"),
    ("/conf/sub/a.conf", "user root;\n}\n"),
    ("/conf/sub/b.conf", "{"),
    ("/conf/sub/loop.conf", "\n\ninclude sub/loop2.conf;\n"),
    ("/conf/sub/loop2.conf", "include sub/loop.conf;\n"),
];

/// Everything the parser says about `/conf/case.conf`, a line each.
fn messages(text: &[u8], command_line: Option<&[u8]>) -> Vec<BString> {
    let mut files = MemoryFiles::new();
    for (name, text) in INCLUDED {
        files.insert(*name, text.as_bytes());
    }
    files.insert("/conf/case.conf", text);
    let parsed = parse(BStr::new("/conf/case.conf"), command_line.map(BStr::new), &files);
    parsed.diagnostics.iter().map(|diagnostic| render_nginx(diagnostic, &parsed.tree.sources)).collect()
}

fn first(text: &[u8], command_line: Option<&[u8]>) -> BString {
    messages(text, command_line).into_iter().next().unwrap_or_default()
}

fn long(before: &[u8], unit: &[u8], count: usize, after: &[u8]) -> Vec<u8> {
    [before, &unit.repeat(count), after].concat()
}

#[test]
fn files_are_refused_as_nginx_refuses_them() {
    let table: &[(&str, Vec<u8>, &[u8])] = &[
        ("unexpected }", b"events {}\n}\n".to_vec(), b"[emerg] unexpected \"}\" in /conf/case.conf:2"),
        ("missing semicolon", b"events {}\nhttp {\n    server {\n        listen 8080\n    }\n}\n".to_vec(), b"[emerg] unexpected \"}\" in /conf/case.conf:5"),
        ("missing semicolon swallows", b"events {}\nworker_rlimit_nofile 10\n}".to_vec(), b"[emerg] unexpected \"}\" in /conf/case.conf:3"),
        ("empty directive", b"events {}\n;\n".to_vec(), b"[emerg] unexpected \";\" in /conf/case.conf:2"),
        ("double semicolon", b"user root;;\n".to_vec(), b"[emerg] unexpected \";\" in /conf/case.conf:1"),
        ("nameless block", b"events {}\n{ }\n".to_vec(), b"[emerg] unexpected \"{\" in /conf/case.conf:2"),
        ("nameless block after line", b"events {}\n\n\n  {".to_vec(), b"[emerg] unexpected \"{\" in /conf/case.conf:4"),
        ("end in block", b"events {}\nhttp {\n".to_vec(), b"[emerg] unexpected end of file, expecting \"}\" in /conf/case.conf:3"),
        ("end in block no newline", b"events {}\nhttp {".to_vec(), b"[emerg] unexpected end of file, expecting \"}\" in /conf/case.conf:2"),
        ("end in inner block", b"events {}\nhttp {\n  server {\n\n  }\n".to_vec(), b"[emerg] unexpected end of file, expecting \"}\" in /conf/case.conf:6"),
        ("end in words", b"events {}\nuser root\n".to_vec(), b"[emerg] unexpected end of file, expecting \";\" or \"}\" in /conf/case.conf:3"),
        ("end in word", b"events {}\nuser root".to_vec(), b"[emerg] unexpected end of file, expecting \";\" or \"}\" in /conf/case.conf:2"),
        ("end in name", b"events {}\nuser".to_vec(), b"[emerg] unexpected end of file, expecting \";\" or \"}\" in /conf/case.conf:2"),
        ("end in double quote", b"events {}\nuser \"root;\n\n".to_vec(), b"[emerg] unexpected end of file, expecting \";\" or \"}\" in /conf/case.conf:4"),
        ("end in single quote", b"events {}\nuser 'root;\n}\n".to_vec(), b"[emerg] unexpected end of file, expecting \";\" or \"}\" in /conf/case.conf:4"),
        ("end after quote", b"events {}\nuser \"root\"".to_vec(), b"[emerg] unexpected end of file, expecting \";\" or \"}\" in /conf/case.conf:2"),
        ("end after escape", b"events {}\nuser a\\".to_vec(), b"[emerg] unexpected end of file, expecting \";\" or \"}\" in /conf/case.conf:2"),
        ("end in block words", b"events {\n worker_connections 10".to_vec(), b"[emerg] unexpected end of file, expecting \";\" or \"}\" in /conf/case.conf:2"),
        ("comment at end", b"events {\n # no newline".to_vec(), b"[emerg] unexpected end of file, expecting \"}\" in /conf/case.conf:2"),
        ("text after double quote", b"user \"root\"x;\n".to_vec(), b"[emerg] unexpected \"x\" in /conf/case.conf:1"),
        ("text after single quote", b"user\n'root'\\x;\n".to_vec(), b"[emerg] unexpected \"\\\" in /conf/case.conf:2"),
        ("quote after quote", b"user \"a\"\"b\";\n".to_vec(), b"[emerg] unexpected \"\"\" in /conf/case.conf:1"),
        ("hash after quote", b"user \"a\"# c\n;\n".to_vec(), b"[emerg] unexpected \"#\" in /conf/case.conf:1"),
        ("brace after quote", b"user \"a\"}\n".to_vec(), b"[emerg] unexpected \"}\" in /conf/case.conf:1"),
        ("nul after quote", b"user \"a\"\0;\n".to_vec(), b"[emerg] unexpected \"\0\" in /conf/case.conf:1"),
        ("byte after quote", b"user \"a\"\xff;\n".to_vec(), b"[emerg] unexpected \"\xff\" in /conf/case.conf:1"),
        ("crlf counts once", b"user root;\r\nevents {\r\n}\r\n}\r\n".to_vec(), b"[emerg] unexpected \"}\" in /conf/case.conf:4"),
        ("escaped lf counts", b"events {}\nhttp { log_format a b\\\nc; }\n}\n".to_vec(), b"[emerg] unexpected \"}\" in /conf/case.conf:4"),
        ("bare cr is no line", b"events {}\r\r}\n".to_vec(), b"[emerg] unexpected \"}\" in /conf/case.conf:1"),
        ("4095 bytes", long(b"env A=", b"x", 4093, b";\n}"), b"[emerg] unexpected \"}\" in /conf/case.conf:2"),
        ("4096 bytes", long(b"env \nA=", b"x", 4094, b";\n}"), b"[emerg] too long parameter \"A=xxxxxxxx...\" started in /conf/case.conf:2"),
        ("long at end of file", long(b"env \nA=", b"x", 4094, b""), b"[emerg] unexpected end of file, expecting \";\" or \"}\" in /conf/case.conf:2"),
        ("4095 in quotes", long(b"env \n\"A=", b"x", 4093, b"\";\n}"), b"[emerg] too long parameter \"A=xxxxxxxx...\" started in /conf/case.conf:2"),
        ("4094 in quotes", long(b"env \n\"A=", b"x", 4092, b"\";\n}"), b"[emerg] unexpected \"}\" in /conf/case.conf:3"),
        ("4096 in double quotes", long(b"env\n\n\"A=", b"x", 4094, b"\n\";\n}"), b"[emerg] too long parameter, probably missing terminating \"\"\" character in /conf/case.conf:3"),
        ("4096 in single quotes", long(b"env\n\n'A=", b"x", 4094, b"\n';\n}"), b"[emerg] too long parameter, probably missing terminating \"'\" character in /conf/case.conf:3"),
        ("missing quote", long(b"env \"A;\n", b"env B;\n", 600, b""), b"[emerg] too long parameter, probably missing terminating \"\"\" character in /conf/case.conf:1"),
        ("comment of 4095", long(b"#", b"-", 4094, b"\n}"), b"[emerg] unexpected \"}\" in /conf/case.conf:2"),
        ("comment of 4096", long(b"\n#", b"-", 4095, b"\n}"), b"[emerg] too long parameter \"#---------...\" started in /conf/case.conf:2"),
        ("comment of 4096 at end", long(b"\n}#", b"-", 4095, b""), b"[emerg] unexpected \"}\" in /conf/case.conf:2"),
        ("missing include", b"events {}\ninclude none.conf;\n".to_vec(), b"[emerg] open() \"/conf/none.conf\" failed (2: No such file or directory) in /conf/case.conf:2"),
        ("missing include absolute", b"events {}\ninclude\n /nowhere/none.conf\n\n;\n".to_vec(), b"[emerg] open() \"/nowhere/none.conf\" failed (2: No such file or directory) in /conf/case.conf:5"),
        ("missing include in quotes", b"events {}\nhttp { include \"a b.conf\"; }\n".to_vec(), b"[emerg] open() \"/conf/a b.conf\" failed (2: No such file or directory) in /conf/case.conf:2"),
        ("missing include in types", b"events {}\nhttp { types {\n include types.none; } }\n".to_vec(), b"[emerg] open() \"/conf/types.none\" failed (2: No such file or directory) in /conf/case.conf:3"),
        ("missing include in map", b"events {}\nhttp { map $uri $x {\n\n include map.none; } }\n".to_vec(), b"[emerg] open() \"/conf/map.none\" failed (2: No such file or directory) in /conf/case.conf:4"),
        ("missing include in upstream", b"events {}\nhttp { upstream u {\n include u.none; } }\n".to_vec(), b"[emerg] open() \"/conf/u.none\" failed (2: No such file or directory) in /conf/case.conf:3"),
        ("empty pattern", b"events {}\ninclude none/*.conf;\n}".to_vec(), b"[emerg] unexpected \"}\" in /conf/case.conf:3"),
        ("stray brace in include", b"events {}\nhttp { include sub/stray.conf; }\n".to_vec(), b"[emerg] unexpected \"}\" in /conf/sub/stray.conf:2"),
        ("open block in include", b"events {}\nhttp {\n include sub/open.conf;\n}\n".to_vec(), b"[emerg] unexpected end of file, expecting \"}\" in /conf/sub/open.conf:2"),
        ("end of words in include", b"events {}\ninclude sub/words.conf;\n".to_vec(), b"[emerg] unexpected end of file, expecting \";\" or \"}\" in /conf/sub/words.conf:2"),
        ("pattern in order", b"events {}\ninclude sub/[ab].conf;\n".to_vec(), b"[emerg] unexpected \"}\" in /conf/sub/a.conf:2"),
        ("include a folder", b"events {}\ninclude sub;\n".to_vec(), b"[crit] pread() \"/conf/sub\" failed (21: Is a directory)"),
        ("include with nul", b"include sub/none\0x;\n".to_vec(), b"[emerg] open() \"/conf/sub/none\" failed (2: No such file or directory) in /conf/case.conf:1"),
    ];
    for (name, text, expected) in table {
        assert_eq!(first(text, None), expected.as_bstr(), "{name}");
    }
}

#[test]
fn command_lines_are_refused_as_nginx_refuses_them() {
    let table: &[(&str, Vec<u8>, &[u8])] = &[
        (
            "unfinished",
            b"daemon off".to_vec(),
            b"[emerg] unexpected end of parameter, expecting \";\" in command line",
        ),
        (
            "unfinished word",
            b"user \"a".to_vec(),
            b"[emerg] unexpected end of parameter, expecting \";\" in command line",
        ),
        ("empty directive", b"daemon off;;".to_vec(), b"[emerg] unexpected \";\" in command line"),
        (
            "block",
            b"events {}".to_vec(),
            b"[emerg] block directives are not supported in -g option in command line",
        ),
        ("close", b"}".to_vec(), b"[emerg] unexpected \"}\" in command line"),
        ("nameless", b"{".to_vec(), b"[emerg] unexpected \"{\" in command line"),
        ("after quote", b"user \"root\"x;".to_vec(), b"[emerg] unexpected \"x\" in command line"),
        ("long", long(b"env \"A=", b"x", 5000, b"\";}"), b"[emerg] unexpected \"}\" in command line"),
        ("comment", b"user root; # off".to_vec(), b""),
        (
            "include",
            b"include none.conf;".to_vec(),
            b"[emerg] open() \"/conf/none.conf\" failed (2: No such file or directory) in command line",
        ),
        ("newline", b"user root;\n\n}".to_vec(), b"[emerg] unexpected \"}\" in command line"),
        ("missing semicolon", b"user a }".to_vec(), b"[emerg] unexpected \"}\" in command line"),
    ];
    for (name, text, expected) in table {
        assert_eq!(first(b"", Some(text)), expected.as_bstr(), "{name}");
    }
}

/// nginx says the same once it runs out of descriptors, or crashes before that.
#[test]
fn includes_that_never_end_are_refused() {
    let table = [
        (
            "\ninclude case.conf;",
            "[emerg] open() \"/conf/case.conf\" failed (24: Too many open files) in /conf/case.conf:2",
        ),
        (
            "include sub/loop.conf;",
            "[emerg] open() \"/conf/sub/loop.conf\" failed (24: Too many open files) in /conf/sub/loop2.conf:1",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(messages(text.as_bytes(), None), [expected], "{text}");
    }
}

#[test]
fn the_main_file_cannot_be_read() {
    let table = [
        ("/conf/none.conf", "[emerg] open() \"/conf/none.conf\" failed (2: No such file or directory)"),
        ("/conf", "[crit] pread() \"/conf\" failed (21: Is a directory)"),
    ];
    for (path, expected) in table {
        let mut files = MemoryFiles::new();
        files.insert("/conf/nginx.conf", &b""[..]);
        let parsed = parse(path.into(), None, &files);
        let said: Vec<_> = parsed.diagnostics.iter().map(|d| render_nginx(d, &parsed.tree.sources)).collect();
        assert_eq!(said, [expected]);
    }
}

/// All errors of a file in one run, and no echoes of the first.
#[test]
fn reading_goes_on_after_an_error() {
    let table: &[(&str, &[&str])] = &[
        ("a;\n;\nb {\n;\n}\n", &["unexpected \";\" :2", "unexpected \";\" :4"]),
        (
            "a {\n b {\n c d\n }\n ;\n",
            &["unexpected \"}\" :4", "unexpected \";\" :5", "unexpected end of file, expecting \"}\" :6"],
        ),
        ("a { b {", &["unexpected end of file, expecting \"}\" :1"]),
        ("a { b { c", &["unexpected end of file, expecting \";\" or \"}\" :1"]),
        ("}\n}\na \"b\"c;\n", &["unexpected \"}\" :1", "unexpected \"c\" :3"]),
        ("{ a; }\n{ ; }\n", &["unexpected \"{\" :1", "unexpected \"{\" :2", "unexpected \";\" :2"]),
        ("a { b \"c\n d; }\n e;", &["unexpected end of file, expecting \";\" or \"}\" :3"]),
        (
            "include none1; include none2;",
            &[
                "open() \"/conf/none1\" failed (2: No such file or directory) :1",
                "open() \"/conf/none2\" failed (2: No such file or directory) :1",
            ],
        ),
        (
            "include sub/stray.conf; ;\ninclude sub/stray.conf;\n;",
            &["unexpected \"}\" sub/stray.conf:2", "unexpected \";\" :1", "unexpected \";\" :3"],
        ),
    ];
    for (text, expected) in table {
        let said: Vec<String> = messages(text.as_bytes(), None)
            .iter()
            .map(|line| {
                let line = line.to_str_lossy().replace("[emerg] ", "");
                line.replace(" in /conf/case.conf:", " :").replace(" in /conf/", " ")
            })
            .collect();
        assert_eq!(&said, expected, "{text}");
    }
}

#[test]
fn bounds_are_reported_not_hit() {
    let deep = "a {".repeat(conf::BLOCK_DEPTH_MAX + 1);
    assert_eq!(
        first(deep.as_bytes(), None),
        "[emerg] blocks are nested deeper than 128 in /conf/case.conf:1"
    );
    let many = ";\n".repeat(conf::SYNTAX_ERRORS_MAX * 2);
    assert_eq!(messages(many.as_bytes(), None).len(), conf::SYNTAX_ERRORS_MAX);
    // Two includes of the next file in each of sixty would be a quintillion files.
    let mut files = MemoryFiles::new();
    for number in 0..60 {
        let next = number + 1;
        files.insert(format!("/conf/{number}"), format!("include {next}; include {next};").into_bytes());
    }
    files.insert("/conf/60", &b""[..]);
    let parsed = parse("/conf/0".into(), None, &files);
    assert_eq!(parsed.tree.sources.files.len(), conf::INCLUDED_FILES_MAX);
    assert_eq!(parsed.diagnostics.len(), 1);
}
