//! What people see below nginx's line.

use conf::{Diagnostic, MemoryFiles, parse, parse_text, render_nginx, render_snippet};

fn check(text: &[u8], expected: &str) {
    let parsed = parse_text("/n.conf".into(), text);
    let sources = &parsed.tree.sources;
    let said: String =
        parsed.diagnostics.iter().map(|diagnostic| render_snippet(diagnostic, sources, false)).collect();
    assert_eq!(said.trim_end(), expected.trim_matches('\n'), "\n{said}");
}

#[test]
fn a_missing_semicolon() {
    check(
        b"\tserver {\r\n\t\tlisten 80\r\n\t}\r\n",
        r#"
 --> /n.conf:3:2
  |
2 |         listen 80
  |                  - a ";" is missing here
3 |     }
  |     ^
"#,
    );
}

#[test]
fn a_missing_brace_is_looked_for_by_indentation() {
    check(
        b"http {\n    server {\n        location / {\n            root x;\n    }\n}\n",
        r#"
 --> /n.conf:6:2
  |
3 |         location / {
  |                    - this block ...
4 |             root x;
5 |     }
  |     - ... ends here, at a "}" that is indented less
6 | }
  |  ^
"#,
    );
}

#[test]
fn a_brace_too_many_is_looked_for_by_indentation() {
    check(
        b"http {\n    server {\n        location / {\n        }\n        }\n    }\n}\n",
        r#"
 --> /n.conf:7:1
  |
2 |     server {
  |            - this block ...
...
5 |         }
  |         - ... ends here, at a "}" that is indented deeper
6 |     }
7 | }
  | ^
  |
  = help: no block is open here any more
"#,
    );
}

#[test]
fn without_indentation_the_innermost_block_is_shown() {
    check(
        b"http {\nserver {\n}\n",
        r#"
 --> /n.conf:3:2
  |
1 | http {
  |      - this block is never closed
2 | server {
3 | }
  |  ^
"#,
    );
}

#[test]
fn bytes_that_are_no_text() {
    check(
        b"a \xff\xc3\xa9\"\0\";\r\nb\0 \"\xff\"\xffd;\r\n",
        r#"
 --> /n.conf:2:7
  |
2 | b␀ "�"�d;
  |    ---^
  |    |
  |    this word ends at its closing quote
  |
  = help: a closing quote is followed by a space, ";", "{" or ")"; is a quote missing further up?
"#,
    );
}

#[test]
fn a_quote_that_is_never_closed() {
    check(
        b"a {\n  b \"c;\n}\n",
        r#"
 --> /n.conf:3:2
  |
2 |   b "c;
  |     - this quote is never closed
3 | }
  |  ^
"#,
    );
}

#[test]
fn a_line_too_long_for_any_terminal() {
    check(
        &[&[b'x'; 1000][..], b"; ; ", &[b'x'; 1000]].concat(),
        r#"
 --> /n.conf:1:1003
  |
1 | ...xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; ; xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...
  |                                                                    ^
  |
  = help: no directive ends here: remove it
 --> /n.conf:1:2005
  |
1 | ...xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
  |                                                         ^ a ";" is missing here
"#,
    );
}

#[test]
fn places_in_several_files_help_and_level() {
    let mut files = MemoryFiles::new();
    files.insert("/n.conf", &b"a b;\ninclude x;\n"[..]);
    files.insert("/x", &b"# note\na c;\n"[..]);
    let parsed = parse("/n.conf".into(), Some("g h;".into()), &files);
    let nodes = &parsed.tree.root.nodes;
    let diagnostic = Diagnostic::warn("twice", "\"a\" directive is duplicate")
        .at(nodes[2].args[0].span)
        .line(nodes[2].end)
        .label(nodes[1].span(), "first here")
        .label(nodes[0].name.span, "and this")
        .label(nodes[2].args[0].span, "again")
        .help("remove one")
        .help("or both");
    let sources = &parsed.tree.sources;
    assert_eq!(render_nginx(&diagnostic, sources), "[warn] \"a\" directive is duplicate in /x:2");
    let expected = r#"
 --> /x:2:3
  |
2 | a c;
  |   ^ again
  |
 ::: command line:1:1
  |
1 | g h;
  | - and this
  |
 ::: /n.conf:1:1
  |
1 | a b;
  | ---- first here
  |
  = help: remove one
  = help: or both
"#;
    let said = render_snippet(&diagnostic, sources, false);
    assert_eq!(said.trim_end(), expected.trim_matches('\n'), "\n{said}");
    assert!(render_snippet(&diagnostic, sources, true).contains("\u{1b}["));
}

#[test]
fn no_place_no_snippet() {
    let parsed = parse_text("/n.conf".into(), b"");
    let bare = Diagnostic::emerg("no-events", "no \"events\" section in configuration");
    assert_eq!(render_nginx(&bare, &parsed.tree.sources), "[emerg] no \"events\" section in configuration");
    assert_eq!(render_snippet(&bare, &parsed.tree.sources, false), "");
    let helped = render_snippet(&bare.help("add events { }"), &parsed.tree.sources, false);
    assert!(helped.contains("add events { }"), "{helped}");
}
