//! Any bytes as a configuration that includes itself, as `-g` text and as a file to format:
//! `cargo +nightly fuzz run conf`.
#![no_main]

use conf::{MemoryFiles, parse, parse_text, print, print_block, render_nginx, render_snippet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let mut files = MemoryFiles::new();
    files.insert("/f/a", text);
    files.insert("/f/b", &text[text.len() / 2..]);
    let parsed = parse("/f/a".into(), Some(text.into()), &files);
    for diagnostic in &parsed.diagnostics {
        render_nginx(diagnostic, &parsed.tree.sources);
        render_snippet(diagnostic, &parsed.tree.sources, true);
    }
    let parsed = parse_text("/f/a".into(), text);
    for printed in [print(&parsed.tree), print_block(&parsed.tree.root)] {
        // Words near the limit may cross it when they are spelled anew.
        if text.len() < conf::WORD_BYTES_MAX {
            let again = parse_text("/f/a".into(), &printed);
            assert!(again.diagnostics.is_empty() && again.tree.root.same(&parsed.tree.root));
        }
    }
});
