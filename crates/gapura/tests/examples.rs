//! What is shown to people stays true. `examples/three-servers`: the files that its cloud-init texts carry are those of
//! the folder, and the configuration is the tutorial's. `docs/`: configurations there are accepted.

mod support;

use std::path::Path;
use support::server::Server;

const APP: &str = include_str!("../../../examples/three-servers/app.yaml");
const GATEWAY: &str = include_str!("../../../examples/three-servers/gateway.yaml");

#[test]
fn cloud_init_carries_the_files_of_the_folder() {
    let copies = [
        (APP, "/srv/app/server.js", include_str!("../../../examples/three-servers/app/server.js")),
        (APP, "/srv/app/page.html", include_str!("../../../examples/three-servers/app/page.html")),
        (
            APP,
            "/etc/systemd/system/app.service",
            include_str!("../../../examples/three-servers/app/app.service"),
        ),
        (
            GATEWAY,
            "/etc/nginx/nginx.conf",
            include_str!("../../../examples/three-servers/gateway/nginx.conf"),
        ),
        (
            GATEWAY,
            "/etc/nginx/sites/proxy.conf",
            include_str!("../../../examples/three-servers/gateway/sites/proxy.conf"),
        ),
        (
            GATEWAY,
            "/etc/systemd/system/gapura.service",
            include_str!("../../../examples/three-servers/gateway/gapura.service"),
        ),
    ];
    for (yaml, path, file) in copies {
        let entry = format!("  - path: {path}\n    content: |\n{}", indented(file));
        assert!(yaml.contains(&entry), "{path} in the cloud-init text is not the file of the folder");
    }
}

/// The configurations of a page.
fn configurations(page: &str) -> Vec<&str> {
    let blocks = page.split("```nginx\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default()).collect()
}

#[test]
fn configurations_in_the_manual_are_accepted() {
    let server = Server::new("gapura", "");
    let made = rcgen::generate_simple_self_signed(vec!["example.org".to_owned()]).expect("a certificate");
    for name in ["example.org.crt", "authority.crt"] {
        std::fs::write(server.path(name), made.cert.pem()).expect("the folder is ours");
    }
    std::fs::write(server.path("example.org.key"), made.signing_key.serialize_pem())
        .expect("the folder is ours");
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let mut count = 0;
    for page in std::fs::read_dir(pages).expect("the folder is there").flatten().map(|entry| entry.path()) {
        for text in configurations(&support::text_of(&page)) {
            let is_location = text.starts_with("location");
            let text = if is_location { format!("server {{ listen 80; {text} }}") } else { text.to_owned() };
            // Its files are in the folder, its addresses are ours and need no rights.
            let text = ["/etc/ssl/", "/var/lib/gapura/"]
                .iter()
                .fold(text, |text, path| text.replace(path, "%DIR%/"));
            let text =
                text.replace("listen 80", "listen %HOST%:8080").replace("listen 443", "listen %HOST%:8443");
            server.write(&format!("error_log error.log; pid nginx.pid; events {{}} http {{ {text} }}"));
            let said = server.says(&["-t"], 0);
            assert!(!said.contains("[warn]") && !said.contains("[emerg]"), "{}: {said}", page.display());
            count += 1;
        }
    }
    assert!(count > 6, "{count} configurations were found");
}

/// The text as a YAML block six columns in; empty lines stay empty.
fn indented(text: &str) -> String {
    text.lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("      {line}\n") })
        .collect()
}
