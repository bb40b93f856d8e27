//! HTTP/2 with clients that are not ours: `h2load` of nghttp2, and Chromium over HTTPS. `cargo xtask test tools` installs
//! them.

mod support;

use std::process::Command;
use support::server::Server;
use support::{is_installed, nothing_may_be_skipped, run};

const CONFIGURATION: &str = "
error_log error.log info;
pid nginx.pid;
events { }
http {
    access_log access.log;
    types { text/html html; application/javascript js; }
    ssl_certificate c.pem;
    ssl_certificate_key k.pem;
    http2 on;
    upstream kept { server %HOST%:8082; keepalive 8; }
    server {
        listen %HOST%:8080;
        listen %HOST%:8443 ssl;
        root %DIR%;
        location /small { return 200 \"0123456789\"; }
        location /passed { proxy_pass http://kept/small; proxy_http_version 2; }
        location /echo { proxy_pass http://kept; }
    }
    server {
        listen %HOST%:8082;
        location /small { return 200 \"0123456789\"; }
        location /echo { return 200 \"$request_method $content_length\"; }
    }
}
";

/// Asks for its own parts, and shows how each of them came.
const PAGE: &str = "<!doctype html><title>waiting</title><body>waiting<script>
const ask = async () => {
    const answers = await Promise.all([...Array(40).keys()].map(n => fetch(`/large.bin?${n}`)));
    const sizes = await Promise.all(answers.map(async answer => (await answer.arrayBuffer()).byteLength));
    const sent = await fetch('/echo', { method: 'POST', body: 'x'.repeat(100000) });
    const echo = await sent.text();
    // Chromium notes them a moment after their answers, and asks for an icon whenever it likes.
    const all = () => ['navigation', 'resource'].flatMap(type => performance.getEntriesByType(type))
        .filter(entry => !entry.name.includes('favicon'));
    while (all().length < 42) await new Promise(done => setTimeout(done, 20));
    const entries = all();
    const protocols = [...new Set(entries.map(entry => entry.nextHopProtocol))];
    document.body.textContent =
        `protocols=${protocols} count=${entries.length} bytes=${sizes.reduce((a, b) => a + b)} echo=${echo}`;
};
ask().catch(error => { document.body.textContent = `failed: ${error}`; });
</script>";

fn is_missing(program: &str) -> bool {
    let missing = !is_installed(program);
    assert!(!missing || !nothing_may_be_skipped(), "{program} is needed");
    if missing {
        println!("LEFT OUT: install {program}");
    }
    missing
}

fn server() -> Server {
    let server = Server::new("nginx", CONFIGURATION);
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-keyout", "k.pem", "-out", "c.pem", "-days", "2", "-subj", "/CN=localhost"])
        .current_dir(server.folder.path())
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::write(server.path("large.bin"), vec![7; 50_000]).expect("a file");
    std::fs::write(server.path("page.html"), PAGE).expect("a page");
    server.start();
    server
}

#[test]
fn h2load_gets_every_answer() {
    if is_missing("h2load") {
        return;
    }
    let server = server();
    let (host, folder) = (&server.host, server.folder.path());
    for (scheme, port) in [("http", 8080), ("https", 8443)] {
        for (path, count) in [("small", 2000), ("large.bin", 300), ("passed", 500)] {
            let url = format!("{scheme}://{host}:{port}/{path}");
            let told = run(folder, "h2load", &["-n", &count.to_string(), "-c", "5", "-m", "10", &url]);
            let all = format!(
                "requests: {count} total, {count} started, {count} done, {count} succeeded, 0 failed"
            );
            assert!(told.contains(&all), "{url}: {told}\n{}", server.log());
            assert!(told.contains("Application protocol: h2"), "{url}: {told}");
        }
    }
}

#[test]
fn chromium_speaks_http2_over_https() {
    if is_missing("chromium") {
        return;
    }
    let server = server();
    let url = format!("https://{}:8443/page.html", server.host);
    let profile = format!("--user-data-dir={}", server.path("profile").display());
    let told = run(
        server.folder.path(),
        "chromium",
        &[
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--ignore-certificate-errors",
            "--virtual-time-budget=20000",
            &profile,
            "--dump-dom",
            &url,
        ],
    );
    let expected = "protocols=h2 count=42 bytes=2000000 echo=POST 100000";
    assert!(told.contains(expected), "{told}\n{}", server.log());
}
