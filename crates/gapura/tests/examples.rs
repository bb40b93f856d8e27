//! The walk-through in `examples/three-servers` stays true: the files that its cloud-init texts carry are those of the
//! folder, and the configuration is the tutorial's.

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

/// The text as a YAML block six columns in; empty lines stay empty.
fn indented(text: &str) -> String {
    text.lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("      {line}\n") })
        .collect()
}
