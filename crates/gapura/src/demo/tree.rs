//! The configuration that the demo runs and the user edits: an `nginx.conf` that includes a folder, and in the folder
//! the tutorial's `proxy.conf`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The first words of our `nginx.conf`, by which a folder is known as the demo's.
const MARK: &str = "# Written by `gapura demo`.";

const WELCOME: &str = include_str!("welcome.html");

/// Where the gateway listens.
#[derive(Clone, Copy, Debug)]
pub struct Doors {
    /// For plain HTTP.
    pub plain: SocketAddr,
    /// For HTTPS, when that was asked for.
    pub https: Option<SocketAddr>,
}

impl Doors {
    /// What comes before and after a name in the addresses that people are to open: `https://` and `:8443`, say.
    pub fn around_a_name(&self) -> (&'static str, String) {
        match self.https {
            Some(https) => ("https://", format!(":{}", https.port())),
            None => ("http://", format!(":{}", self.plain.port())),
        }
    }

    /// The `listen` lines of a server.
    fn listen(&self, more: &str) -> String {
        let mut lines = format!("    listen {}{more};\n", self.plain);
        if let Some(https) = self.https {
            let _ = writeln!(lines, "    listen {https} ssl{more};");
        }
        lines
    }
}

/// The folder and what is in it.
pub struct Tree {
    /// Where it is, absolute.
    pub folder: PathBuf,
    /// Removed at the end: there was no place to keep it.
    pub temporary: bool,
}

impl Tree {
    /// Makes the folder. Without a wish of the user's it is `./gapura-demo`, or a temporary one where that cannot be
    /// written. A folder with something else in it is refused.
    pub fn make(wish: Option<&Path>) -> Result<Tree, String> {
        let folder = wish.unwrap_or(Path::new("gapura-demo"));
        let failed = |error| format!("cannot make the folder {}: {error}", folder.display());
        let made = fs::create_dir_all(folder.join("logs")).and_then(|()| folder.canonicalize());
        let (folder, temporary) = match made {
            Ok(folder) => (folder, false),
            Err(_) if wish.is_none() => {
                let folder = std::env::temp_dir().join(format!("gapura-demo-{}", std::process::id()));
                fs::create_dir_all(folder.join("logs")).map_err(failed)?;
                (folder, true)
            }
            Err(error) => return Err(failed(error)),
        };
        let stranger =
            fs::read_to_string(folder.join("nginx.conf")).is_ok_and(|text| !text.starts_with(MARK));
        if stranger {
            return Err(format!(
                "{} holds an nginx.conf that is not the demo's; take another folder with --dir",
                folder.display()
            ));
        }
        Ok(Tree { folder, temporary })
    }

    /// Writes the files. One that was edited since is kept beside as `NAME.old`; their names are returned.
    pub fn write(&self, doors: Doors, apps: &[SocketAddr]) -> Result<Vec<String>, String> {
        let (scheme, port) = doors.around_a_name();
        let files = [
            ("nginx.conf", main_text(doors)),
            ("sites/proxy.conf", proxy_text(doors, apps)),
            ("html/index.html", WELCOME.replace("{{scheme}}", scheme).replace("{{port}}", &port)),
        ];
        let mut kept = Vec::new();
        for (name, text) in files {
            let path = self.folder.join(name);
            if fs::read_to_string(&path).is_ok_and(|old| old != text) && name != "html/index.html" {
                let old = format!("{name}.old");
                fs::rename(&path, self.folder.join(&old))
                    .map_err(|error| format!("cannot keep {}: {error}", path.display()))?;
                kept.push(old);
            }
            fs::create_dir_all(path.parent().unwrap_or(&self.folder))
                .and_then(|()| fs::write(&path, text))
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        Ok(kept)
    }

    /// The tutorial's file, which people are to edit.
    pub fn proxy_file(&self) -> PathBuf {
        self.folder.join("sites/proxy.conf")
    }

    /// Adds a server to the group in `proxy.conf`. False when the group is not found there any more.
    pub fn add_server(&self, app: SocketAddr) -> io::Result<bool> {
        let text = fs::read_to_string(self.proxy_file())?;
        match with_server(&text, app) {
            Some(text) => fs::write(self.proxy_file(), text).map(|()| true),
            None => Ok(false),
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.temporary {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn main_text(doors: Doors) -> String {
    // Root's folder may be closed to the user a worker would become.
    let user = if crate::site::is_root() { "user root;\n" } else { "" };
    let https = match doors.https {
        None => "",
        Some(_) => {
            "    # Signed by the authority in tls/authority.crt, which was made for this demo.
    ssl_certificate tls/gateway.crt;
    ssl_certificate_key tls/gateway.key;
    http2 on;

"
        }
    };
    let listen = doors.listen(" default_server").replace("    listen", "        listen");
    format!(
        "{MARK} Change what you like, then press r in the demo.
{user}worker_processes 2;
pid logs/gapura.pid;
error_log logs/error.log;

events {{
    worker_connections 1024;
}}

http {{
    # From this log the demo knows which server answered.
    log_format demo '$time_iso8601 $host $status $request_time \"$upstream_addr\" $request';
    access_log logs/access.log demo;

{https}    # The tutorial's proxy.conf is in this folder. Any other file in it counts too.
    include sites/*.conf;

    # For every other name: a page that watches the servers.
    server {{
{listen}        root html;
        access_log off;
    }}
}}
"
    )
}

fn proxy_text(doors: Doors, apps: &[SocketAddr]) -> String {
    let first = apps.first().map(SocketAddr::to_string).unwrap_or_default();
    let listen = doors.listen("");
    let mut servers = String::new();
    for app in apps {
        let _ = writeln!(servers, "    server {app};");
    }
    format!(
        "# A reverse proxy: one name, one app server.
server {{
{listen}    server_name mydomain.localhost;

    location / {{
        proxy_pass http://{first};
    }}
}}

# Load balancing: one name, a group of app servers.
upstream wayshub {{
{servers}}}
server {{
{listen}    server_name loadbalance.localhost;

    location / {{
        proxy_pass http://wayshub;
    }}
}}
"
    )
}

/// The text with one more line at the end of the group, unless the server is in it already.
fn with_server(text: &str, app: SocketAddr) -> Option<String> {
    let start = text.find("upstream wayshub")?;
    let end = start + text[start..].find('}')?;
    let line = format!("server {app};");
    if text[start..end].contains(&line) {
        return Some(text.to_owned());
    }
    Some(format!("{}    {line}\n{}", &text[..end], &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_server_is_added_once() {
        let doors = Doors { plain: address("127.0.0.1:8080"), https: None };
        let apps = [address("127.0.0.2:3000"), address("127.0.0.3:3000")];
        let one = proxy_text(doors, &apps[..1]);
        let two = with_server(&one, apps[1]).unwrap();
        assert_eq!(two, proxy_text(doors, &apps));
        assert_eq!(with_server(&two, apps[1]).unwrap(), two);
        assert_eq!(with_server("server { }", apps[1]), None);
        assert_eq!(with_server("upstream wayshub {", apps[1]), None);
    }

    #[test]
    fn edits_are_kept_and_strangers_refused() {
        let folder = std::env::temp_dir().join(format!("gapura-demo-tree-{}", std::process::id()));
        let tree = Tree::make(Some(&folder)).unwrap();
        let doors = Doors { plain: address("127.0.0.1:8080"), https: Some(address("127.0.0.1:8443")) };
        let apps = [address("127.0.0.2:3000")];
        assert_eq!(tree.write(doors, &apps), Ok(vec![]));
        assert_eq!(tree.write(doors, &apps), Ok(vec![]), "nothing was edited");
        fs::write(tree.proxy_file(), "# mine\n").unwrap();
        assert_eq!(tree.write(doors, &apps), Ok(vec!["sites/proxy.conf.old".to_owned()]));
        assert_eq!(fs::read_to_string(folder.join("sites/proxy.conf.old")).unwrap(), "# mine\n");
        assert!(tree.add_server(address("127.0.0.3:3000")).unwrap());

        fs::write(folder.join("nginx.conf"), "events {}\n").unwrap();
        assert!(Tree::make(Some(&folder)).is_err_and(|message| message.contains("--dir")));
        fs::remove_dir_all(&folder).unwrap();
    }
}
