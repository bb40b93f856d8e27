//! The shape of the tree, where its spans point, and what includes make of it.

use bstr::{BStr, ByteSlice};
use conf::{
    Block, Diagnostic, MemoryFiles, Origin, in_reading_order, parse, parse_text, print, render_nginx,
};

/// The tree on one line: words in angle brackets where they were quoted, otherwise as they are.
fn shape(block: &Block) -> String {
    let word = |word: &conf::Word| match word.quoted {
        true => format!("<{}>", word.text.escape_ascii()),
        false => word.text.escape_ascii().to_string(),
    };
    let node = |node: &conf::Node| {
        let words: Vec<_> = [&node.name].into_iter().chain(&node.args).map(word).collect();
        let block = node.block.as_ref().map_or(String::new(), |block| format!("{{{}}}", shape(block)));
        format!("{}{block}{}", words.join("|"), if node.broken { "!" } else { "" })
    };
    block.nodes.iter().map(node).collect::<Vec<_>>().join(" ")
}

#[test]
fn words_are_cut_as_nginx_cuts_them() {
    let table: &[(&[u8], &str)] = &[
        (b"a b\tc\r\nd;", "a|b|c|d"),
        (b"a;b;", "a b"),
        (b"a{b;}c;", "a{b} c"),
        (b"a \"b c\" 'd;{}' \"\" '';", "a|<b c>|<d;{}>|<>|<>"),
        (b"a b\"c d\"e;", "a|b\\\"c|d\\\"e"),
        (b"a \"b'c\" 'd\"e';", "a|<b\\'c>|<d\\\"e>"),
        (
            b"a \\\"b \\'c \\\\d \\te \\rf \\ng \\h \\;i \\{j;",
            "a|\\\"b|\\'c|\\\\d|\\te|\\rf|\\ng|\\\\h|\\\\;i|\\\\{j",
        ),
        (b"a \"\\\"\\'\\\\\\t\\x\";", "a|<\\\"\\'\\\\\\t\\\\x>"),
        (b"a b\\ c;", "a|b\\\\ c"),
        (b"a ${b}c d${e} $f{ g; }", "a|${b}c|d${e}|$f{g}"),
        (b"a ${{b;", "a|${{b"),
        (b"a \"$\"{b;}", "a|<$>{b}"),
        (b"a #b;\nc# d;", "a|c#|d"),
        (b"# a\n#b\n  #c", ""),
        (b"if (\"$a\" = \"b\"){c;}", "if|(\\\"$a\\\"|=|<b>|){c}"),
        (b"if ($a = \"b\") {c;}", "if|($a|=|<b>|){c}"),
        (b"a}b;", "a}b"),
        (b"a \x00\xff;", "a|\\x00\\xff"),
        (b"\xef\xbb\xbfuser a;", "\\xef\\xbb\\xbfuser|a"),
        (b"location ~ \\.(gif|png)$ {}", "location|~|\\\\.(gif|png)${}"),
        (b"location ~ ^/\\d{2}$ {}", "location|~|^/\\\\d{2}${}}"),
        (b"a \"b\"c d; e;", "a|<b>|c|d! e"),
        (b"a { b c } d;", "a{b|c} d"),
    ];
    for (text, expected) in table {
        assert_eq!(shape(&parse_text("t".into(), text).tree.root), *expected, "{}", text.as_bstr());
    }
}

#[test]
fn spans_point_at_words_braces_and_semicolons() {
    let text = b"a  'b c'\n ; d { e ${x}; } # f";
    let parsed = parse_text("t".into(), text);
    let slice = |span| parsed.tree.sources.slice(span).as_bstr();
    let root = &parsed.tree.root;
    assert_eq!(slice(root.nodes[0].name.span), "a");
    assert_eq!(slice(root.nodes[0].args[0].span), "'b c'");
    assert_eq!(slice(root.nodes[0].end), ";");
    assert_eq!(slice(root.nodes[0].span()), "a  'b c'\n ;");
    assert_eq!(slice(root.nodes[1].end), "{");
    let block = root.nodes[1].block.as_ref().unwrap();
    assert_eq!(slice(block.nodes[0].args[0].span), "${x}");
    assert_eq!(slice(block.close), "}");
    assert_eq!((root.close.start, root.close.end), (text.len() as u32, text.len() as u32));
    assert_eq!(parsed.tree.sources.location(root.nodes[0].end), (BStr::new("t"), 2, 2));
}

fn site() -> MemoryFiles {
    let mut files = MemoryFiles::new();
    files.insert(
        "/etc/n/nginx.conf",
        &b"a;\nhttp {\n include conf.d/*.conf;\n include /opt/x;\n b;\n}\ninclude none/*;\nz;"[..],
    );
    files.insert("/etc/n/conf.d/2.conf", &b"two; # last"[..]);
    files.insert("/etc/n/conf.d/1.conf", &b"one { include x; }"[..]);
    files.insert("/etc/n/conf.d/.3.conf", &b"three;"[..]);
    files.insert("/etc/n/x", &b"ex;"[..]);
    files.insert("/opt/x", &b"opt { include conf.d/2.conf; }"[..]);
    files
}

#[test]
fn includes_are_replaced_in_place() {
    let parsed = parse("/etc/n/nginx.conf".into(), Some("g;".into()), &site());
    assert_eq!(parsed.diagnostics, []);
    assert_eq!(shape(&parsed.tree.root), "g a http{one{ex} two opt{two} b} z");
    let sources = &parsed.tree.sources;
    let names: Vec<_> = sources.files.iter().map(|file| file.name.to_str_lossy()).collect();
    let expected = "command line,/etc/n/nginx.conf,/etc/n/conf.d/1.conf,/etc/n/x,/etc/n/conf.d/2.conf,/opt/x,/etc/n/conf.d/2.conf";
    assert_eq!(names.join(","), expected);
    let http = parsed.tree.root.nodes[2].block.as_ref().unwrap();
    assert_eq!(sources.location(http.nodes[1].name.span), (BStr::new("/etc/n/conf.d/2.conf"), 1, 1));
    assert!(
        matches!(sources.file(http.nodes[1].name.span.file).unwrap().origin, Origin::Included(by) if sources.slice(by) == b"include conf.d/*.conf;")
    );
    let includes: Vec<_> = parsed
        .tree
        .includes
        .iter()
        .map(|include| format!("{} {}", include.path, include.files.len()))
        .collect();
    let expected = "/etc/n/conf.d/*.conf 2,/etc/n/x 1,/opt/x 1,/etc/n/conf.d/2.conf 1,/etc/n/none/* 0";
    assert_eq!(includes.join(","), expected);
}

#[test]
fn an_include_that_is_none_stays() {
    let mut files = MemoryFiles::new();
    files.insert("/n", &b"include; include a b; include c {} 'include' d; include \"e\""[..]);
    files.insert("/d", &b"D;"[..]);
    files.insert("/e", &b"E;"[..]);
    let parsed = parse("/n".into(), None, &files);
    assert_eq!(shape(&parsed.tree.root), "include include|a|b include|c{} D E");
}

#[test]
fn memory_made_from_a_tree_gives_the_same_tree() {
    let first = parse("/etc/n/nginx.conf".into(), None, &site());
    let second = parse("/etc/n/nginx.conf".into(), None, &MemoryFiles::from_tree(&first.tree));
    assert_eq!(second.diagnostics, []);
    assert!(first.tree.root.same(&second.tree.root));
    assert_eq!(print(&first.tree), print(&second.tree));
}

#[test]
fn dump_shows_each_file_once() {
    let parsed = parse("/etc/n/nginx.conf".into(), Some("g;".into()), &site());
    let text = conf::dump(&parsed.tree.sources);
    let heads: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with(b"# configuration file "))
        .map(|line| line.to_str_lossy())
        .collect();
    assert_eq!(heads.len(), 5);
    assert_eq!(heads[0], "# configuration file /etc/n/nginx.conf:");
    assert!(text.ends_with(b"# configuration file /opt/x:\nopt { include conf.d/2.conf; }\n"));
}

#[test]
fn diagnostics_are_put_in_reading_order() {
    let parsed = parse("/etc/n/nginx.conf".into(), Some("g;".into()), &site());
    let mut all = vec![Diagnostic::emerg("t", "no place")];
    fn visit(block: &Block, all: &mut Vec<Diagnostic>) {
        for node in block.nodes.iter().rev() {
            all.push(Diagnostic::emerg("t", node.name.text.clone()).at(node.name.span).line(node.end));
            if let Some(block) = &node.block {
                visit(block, all);
                all.push(Diagnostic::warn("t", "close").at(block.close));
            }
        }
    }
    visit(&parsed.tree.root, &mut all);
    let said: Vec<_> = in_reading_order(all, &parsed.tree.sources)
        .iter()
        .map(|diagnostic| {
            render_nginx(diagnostic, &parsed.tree.sources).to_str_lossy().replace("/etc/n/", "")
        })
        .collect();
    let expected = [
        "[emerg] g in command line",
        "[emerg] a in nginx.conf:1",
        "[emerg] http in nginx.conf:2",
        "[emerg] one in conf.d/1.conf:1",
        "[emerg] ex in x:1",
        "[warn] close in conf.d/1.conf:1",
        "[emerg] two in conf.d/2.conf:1",
        "[emerg] opt in /opt/x:1",
        // The second `two` is the same line of the same file.
        "[warn] close in /opt/x:1",
        "[emerg] b in nginx.conf:5",
        "[warn] close in nginx.conf:6",
        "[emerg] z in nginx.conf:8",
        "[emerg] no place",
    ];
    assert_eq!(said, expected);
}

#[test]
fn formatting() {
    let table = [
        ("a  b;c\n{d;}", "a b;\nc {\n    d;\n}\n"),
        (
            "\n\n# x  \r\n\r\n\r\na; # y\r\nb {# z\r\n\r\nc;} #w\n# end",
            "# x\n\na;  # y\nb {  # z\n    c;\n}  #w\n# end\n",
        ),
        ("a # 1\n b # 2\n ;", "# 1\n# 2\na b;\n"),
        ("a { # only\n}", "a {  # only\n}\n"),
        ("a {\n # only\n}", "a {\n    # only\n}\n"),
        ("a {\n\n}", "a {}\n"),
        ("a 'b'  \"c\\\"\" \\.d '';", "a 'b' \"c\\\"\" \\.d '';\n"),
        ("include   x;", "include x;\n"),
        ("", ""),
    ];
    for (text, expected) in table {
        let once = print(&parse_text("t".into(), text.as_bytes()).tree);
        assert_eq!(once.as_bstr(), expected.as_bytes().as_bstr(), "{text}");
        assert_eq!(print(&parse_text("t".into(), &once).tree).as_bstr(), once.as_bstr());
    }
}

#[test]
fn quoting() {
    let table: &[(&[u8], bool, &[u8])] = &[
        (b"a", false, b"a"),
        (b"a", true, b"\"a\""),
        (b"", false, b"\"\""),
        (b"a b", false, b"\"a b\""),
        (b"\"", false, b"'\"'"),
        (b"it's", false, b"it's"),
        (b"\"it's\"", false, b"\"\\\"it's\\\"\""),
        (b"${a}", false, b"${a}"),
        (b"a{2}", false, b"\"a{2}\""),
        (b"#a", false, b"\"#a\""),
        (b"a#", false, b"a#"),
        (b"a;", false, b"\"a;\""),
        (b"}", false, b"\"}\""),
        (b"\\.", false, b"\\."),
        (b"\\n", false, b"\\\\n"),
        (b"a\\", false, b"a\\\\"),
        (b"\n", false, b"\"\n\""),
    ];
    for (text, quoted, expected) in table {
        assert_eq!(conf::quote(text, *quoted).as_bstr(), expected.as_bstr());
    }
}
