//! What holds for any bytes: no panic, spans within their files, and printing that reads back as the same tree.

use bstr::ByteSlice;
use conf::{
    Block, MemoryFiles, Parsed, Span, parse, parse_text, print, print_block, render_nginx, render_snippet,
};
use proptest::prelude::*;

/// Text made of what matters to the grammar.
fn grammar() -> impl Strategy<Value = Vec<u8>> {
    let atom = prop::sample::select(vec![
        " ",
        "\n",
        "\r\n",
        "\t",
        ";",
        "{",
        "}",
        "\"",
        "'",
        "\\",
        "$",
        "#",
        "a",
        "b9",
        "n",
        ")",
        "(",
        "${x}",
        "\0",
        "é",
        "\u{7f}",
        "x;",
        "y {",
        "\"q\"",
        "'s'",
        "include a;",
        "include *.c;",
        "include /b ;",
        "# note\n",
        "\\\"",
        "\n\n",
    ]);
    let byte = any::<u8>().prop_map(|byte| vec![byte]);
    prop::collection::vec(prop_oneof![9 => atom.prop_map(|atom| atom.as_bytes().to_vec()), 1 => byte], 0..60)
        .prop_map(|atoms| atoms.concat())
}

fn check_spans(parsed: &Parsed) {
    let check = |span: Span| {
        let file = parsed.tree.sources.file(span.file).expect("a span names a file of its map");
        assert!(span.start <= span.end && span.end as usize <= file.text.len(), "{span:?}");
    };
    fn visit(block: &Block, check: &dyn Fn(Span)) {
        check(block.close);
        for node in &block.nodes {
            check(node.end);
            [&node.name].into_iter().chain(&node.args).for_each(|word| check(word.span));
            node.block.iter().for_each(|block| visit(block, check));
        }
    }
    visit(&parsed.tree.root, &check);
    for diagnostic in &parsed.diagnostics {
        diagnostic.span.into_iter().chain(diagnostic.line_span).for_each(check);
        diagnostic.labels.iter().for_each(|(span, _)| check(*span));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_files_give_a_tree_and_messages(main in grammar(), a in grammar(), b in grammar(), command_line in grammar()) {
        let mut files = MemoryFiles::new();
        files.insert("/f/main", main);
        files.insert("/f/a", a.clone());
        files.insert("/f/x.c", a);
        files.insert("/f/y.c", b.clone());
        files.insert("/b", b);
        let parsed = parse("/f/main".into(), Some(command_line.as_bstr()), &files);
        check_spans(&parsed);
        for diagnostic in &parsed.diagnostics {
            let line = render_nginx(diagnostic, &parsed.tree.sources);
            prop_assert!(line.starts_with(b"["));
            let snippet = render_snippet(diagnostic, &parsed.tree.sources, false);
            prop_assert!(diagnostic.span.is_none() || snippet.contains(" | "), "{snippet}");
        }
        let again = parse("/f/main".into(), Some(command_line.as_bstr()), &MemoryFiles::from_tree(&parsed.tree));
        prop_assert_eq!(&parsed.diagnostics, &again.diagnostics);
        prop_assert!(parsed.tree.root.same(&again.tree.root));
    }

    #[test]
    fn any_bytes_are_read(text in prop::collection::vec(any::<u8>(), 0..300)) {
        check_spans(&parse_text("t".into(), &text));
    }

    #[test]
    fn print_reads_back(text in grammar()) {
        let parsed = parse_text("t".into(), &text);
        for printed in [print(&parsed.tree), print_block(&parsed.tree.root)] {
            let again = parse_text("t".into(), &printed);
            prop_assert_eq!(&again.diagnostics, &[]);
            prop_assert!(parsed.tree.root.same(&again.tree.root), "{}", printed.as_bstr());
        }
        let once = print(&parsed.tree);
        prop_assert_eq!(print(&parse_text("t".into(), &once).tree), once);
    }

    #[test]
    fn quote_reads_back(text in prop::collection::vec(any::<u8>(), 0..20), quoted in any::<bool>()) {
        let line = [b"a ", &conf::quote(&text, quoted)[..], b";"].concat();
        let parsed = parse_text("t".into(), &line);
        prop_assert_eq!(parsed.tree.root.nodes.len(), 1);
        prop_assert_eq!(&parsed.tree.root.nodes[0].args[0].text, &text);
    }
}
