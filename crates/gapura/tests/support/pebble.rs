//! Pebble, the small ACME server that Let's Encrypt tests with, as a process beside the server under test.

use super::server::{PATIENCE, Server};
use super::{Folder, is_installed, nothing_may_be_skipped, run, text_of, wait_for};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// How long an order may take: Pebble takes a few seconds on a busy machine.
pub const ORDER_PATIENCE: Duration = PATIENCE;

/// Is all there that is needed? Where nothing may be left out, it must be.
pub fn is_missing() -> bool {
    let missing: Vec<&str> = ["pebble", "pebble-challtestsrv", "curl", "openssl"]
        .into_iter()
        .filter(|program| !is_installed(program))
        .collect();
    assert!(missing.is_empty() || !nothing_may_be_skipped(), "needed: {missing:?}");
    if !missing.is_empty() {
        println!("LEFT OUT: install {}", missing.join(", "));
    }
    !missing.is_empty()
}

/// A Pebble of its own, with a name server that gives all names one address.
pub struct Pebble {
    pub folder: Folder,
    pub host: String,
    alternate_roots: usize,
    children: Vec<Child>,
}

/// What differs between tests.
pub struct Options {
    /// How long certificates live, seconds.
    pub life_seconds: u32,
    /// The external account that must be named: its identifier and key.
    pub external: Option<(&'static str, &'static str)>,
    /// How many roots there are beside the first one.
    pub alternate_roots: usize,
}

pub const USUAL: Options = Options { life_seconds: 90 * 24 * 3600, external: None, alternate_roots: 0 };

impl Pebble {
    /// Prepared, not started. Names are at `host`, pages on its port 8080, handshakes on 8443.
    pub fn new(host: &str, options: &Options) -> Pebble {
        let folder = Folder::new("pebble");
        let subject = format!("subjectAltName=IP:{host}");
        let made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let files = ["-keyout", "pebble.key", "-out", "pebble.crt", "-days", "2", "-subj", "/CN=pebble"];
        run(folder.path(), "openssl", &[&made[..], &files, &["-addext", &subject]].concat());
        let external = match options.external {
            None => "\"externalAccountBindingRequired\": false".to_owned(),
            Some((name, key)) => format!(
                "\"externalAccountBindingRequired\": true, \"externalAccountMACKeys\": {{ \"{name}\": \"{key}\" }}"
            ),
        };
        let configuration = format!(
            r#"{{ "pebble": {{ "listenAddress": "{host}:14000", "managementListenAddress": "{host}:15000",
            "certificate": "pebble.crt", "privateKey": "pebble.key", "httpPort": 8080, "tlsPort": 8443,
            "ocspResponderURL": "", "certificateValidityPeriod": {}, "retryAfter": {{ "authz": 1, "order": 1 }},
            {external} }} }}"#,
            options.life_seconds
        );
        std::fs::write(folder.path().join("pebble.json"), configuration).expect("the folder is ours");
        let alternate_roots = options.alternate_roots;
        let mut pebble = Pebble { folder, host: host.to_owned(), alternate_roots, children: Vec::new() };
        let (dns, management) = (format!("{host}:15353"), format!("{host}:15055"));
        let nothing = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""];
        let names = ["-dns01", &dns, "-management", &management, "-defaultIPv4", host];
        pebble.spawn("pebble-challtestsrv", &[&names[..], &nothing].concat());
        pebble
    }

    pub fn started(host: &str, options: &Options) -> Pebble {
        let mut pebble = Pebble::new(host, options);
        pebble.start();
        pebble
    }

    pub fn start(&mut self) {
        let dns = format!("{}:15353", self.host);
        self.spawn("pebble", &["-config", "pebble.json", "-dnsserver", &dns, "-strict"]);
        let address = format!("{}:14000", self.host);
        wait_for("Pebble listens", ORDER_PATIENCE, || TcpStream::connect(&address).ok());
    }

    fn spawn(&mut self, program: &str, arguments: &[&str]) {
        let output = std::fs::File::create(self.path(&format!("{program}.out"))).expect("the folder is ours");
        let child = Command::new(program)
            .args(arguments)
            .current_dir(self.folder.path())
            // No pauses but those of the protocol; half of all nonces are refused; no name stays proved.
            .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "30"), ("PEBBLE_AUTHZREUSE", "0")])
            .env("PEBBLE_ALTERNATE_ROOTS", self.alternate_roots.to_string())
            .stdout(output.try_clone().expect("descriptors can be copied"))
            .stderr(output)
            .spawn();
        self.children.push(child.unwrap_or_else(|error| panic!("{program}: {error}")));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How many orders there were.
    pub fn orders(&self) -> usize {
        text_of(&self.path("pebble.out")).matches("Added order").count()
    }

    /// Sends all names elsewhere.
    pub fn move_names(&self, address: &str) {
        let url = format!("http://{}:15055/set-default-ipv4", self.host);
        run(self.folder.path(), "curl", &["-sS", "-d", &format!("{{\"ip\":\"{address}\"}}"), &url]);
    }

    /// The block of a configuration that names it.
    pub fn issuer(&self, more: &str) -> String {
        let (host, certificate) = (&self.host, self.path("pebble.crt"));
        format!(
            "acme_issuer pebble {{ uri https://{host}:14000/dir; ssl_trusted_certificate {};
             accept_terms_of_service; state_path state; {more} }}",
            certificate.display()
        )
    }

    /// The file of one of its roots.
    pub fn root(&self, number: usize) -> PathBuf {
        let name = format!("root-{number}.pem");
        let root = self.path(&name);
        if !root.exists() {
            let url = format!("https://{}:15000/roots/{number}", self.host);
            run(self.folder.path(), "curl", &["-skf", "-o", &name, &url]);
        }
        root
    }

    /// What a client says that trusts it and asks for a name on port 8443.
    pub fn visit(&self, server: &Server, name: &str) -> String {
        self.visit_trusting(server, name, 0)
    }

    /// What a client says that trusts one of its roots alone.
    pub fn visit_trusting(&self, server: &Server, name: &str, root: usize) -> String {
        let to = format!("::{}:8443", server.host);
        let (root, url) = (self.root(root).to_string_lossy().into_owned(), format!("https://{name}/"));
        run(self.folder.path(), "curl", &["-sS", "--cacert", &root, "--connect-to", &to, &url])
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A configuration around the lines of its `http` block. The plain server answers nothing of what issuers look for.
pub fn configuration(http: &str) -> String {
    format!(
        "error_log error.log info; pid nginx.pid; events {{}}
        http {{ access_log access.log; server {{ listen %HOST%:8080; return 301 https://$host$request_uri; }}
        {http} }}"
    )
}

/// A server with a certificate from an issuer.
pub fn secure(names: &str, parameters: &str, body: &str) -> String {
    format!(
        "server {{ listen %HOST%:8443 ssl; server_name {names}; acme_certificate pebble {parameters};
        ssl_certificate $acme_certificate; ssl_certificate_key $acme_certificate_key; return 200 {body}; }}"
    )
}

/// A server with a Pebble beside it; not started.
pub fn server(options: &Options) -> (Server, Pebble) {
    let server = Server::new("gapura", "");
    let pebble = Pebble::started(&server.host, options);
    (server, pebble)
}

pub fn wait_for_issue(server: &Server, times: usize) {
    server.wait_for_log("certificate issued", times);
}

/// The only file with that ending below the state path.
pub fn kept(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect()
}
