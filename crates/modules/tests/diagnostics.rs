//! What people read about broken configurations: the page `diagnostics.md` beside this file, checked.

mod support;

#[test]
fn broken_configurations() {
    let page = include_str!("diagnostics.md");
    let mut count = 0;
    for section in page.split("\n## ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        let fenced = |kind: &str| {
            let (_, rest) = section.split_once(&format!("```{kind}\n")).expect("a section has both blocks");
            rest.split_once("```").expect("a block has an end").0
        };
        assert_eq!(said(fenced("nginx")), fenced("text"), "{title}");
        count += 1;
    }
    assert!(count >= 40, "only {count} configurations");
}

/// Everything that is said about a configuration, as on a terminal without colours.
fn said(text: &str) -> String {
    let compiled = support::compiled("nginx.conf", text);
    let mut all = String::new();
    for found in &compiled.diagnostics {
        all.push_str(&conf::render_nginx(found, &compiled.sources).to_string());
        all.push('\n');
        all.push_str(&conf::render_snippet(found, &compiled.sources, false));
    }
    all
}
