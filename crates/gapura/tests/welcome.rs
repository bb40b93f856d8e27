//! The first start on a machine without any configuration. The test hides what the machine has in namespaces of its
//! own, which only root may make.

mod support;

use std::process::Command;
use support::gateway::{binary, is_gapura};
use support::server::is_root;
use support::{Folder, nothing_may_be_skipped};

/// Empties the folders in which configurations are looked for, starts the program, and asks for the page.
const SCRIPT: &str = r#"
ip link set lo up
for folder in /etc/gapura /etc/nginx; do
    if [ -d "$folder" ]; then mount -t tmpfs none "$folder"; fi
done
mount -t tmpfs none /run
"$1" -t 2>"$2/test"; echo "$?" >>"$2/test"
"$1" >"$2/output" 2>&1 &
pid=$!
for try in $(seq 1000); do
    curl -s -o "$2/page" -D "$2/head" http://localhost/ && break
    sleep 0.05
done
kill -QUIT "$pid"
wait "$pid"
echo "$?" >"$2/code"
"#;

#[test]
fn without_any_configuration_a_page_says_what_to_do() {
    if !is_gapura() || !is_root() {
        return;
    }
    let folder = Folder::new("welcome");
    let run = Command::new("unshare")
        .args(["--mount", "--net", "sh", "-c", SCRIPT, "sh"])
        .arg(binary())
        .arg(folder.path())
        .output()
        .unwrap();
    let text = |name: &str| support::text_of(&folder.path().join(name));
    if text("test").is_empty() && !nothing_may_be_skipped() {
        eprintln!("skipped: no namespaces here: {}", String::from_utf8_lossy(&run.stderr));
        return;
    }
    let expected = "gapura: the configuration file (built in) syntax is ok\n\
                    gapura: configuration file (built in) test is successful\n0\n";
    assert_eq!(text("test"), expected);
    assert!(text("head").starts_with("HTTP/1.1 200 OK\r\n"), "{}\n{}", text("head"), text("output"));
    assert!(text("head").contains("Content-Type: text/html\r\n"), "{}", text("head"));
    for words in ["<h1>Gapura is running</h1>", "gapura demo", "proxy_pass http://app;"] {
        assert!(text("page").contains(words), "{words}");
    }
    let first = text("output").lines().next().unwrap_or_default().to_owned();
    let expected = "gapura: there is no configuration file; http://localhost/ says what to do next (Ctrl-C ends the program)";
    assert!(text("output").contains(expected), "{first}");
    assert_eq!(text("code"), "0\n");
}
