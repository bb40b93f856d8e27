//! The configuration in force when there is none: a page that says what to do next.

use std::io::Write;

/// The port nginx itself would choose: 80 where that is allowed, 8000 otherwise.
pub fn port(is_root: bool) -> u16 {
    if is_root { 80 } else { 8000 }
}

/// The text of the configuration, with the pid file at `pid`.
pub fn text(is_root: bool, pid: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    // Writing into a Vec cannot fail.
    let _ = write!(
        text,
        "# Built into the program: in force because no configuration file was named and none was found.\n\
         daemon off;\n\
         pid {};\n\
         error_log stderr notice;\n\
         events {{}}\n\
         http {{\n\
         \x20   access_log off;\n\
         \x20   server {{\n\
         \x20       listen {};\n\
         \x20       location / {{\n\
         \x20           default_type text/html;\n\
         \x20           return 200 '{PAGE}';\n\
         \x20       }}\n\
         \x20   }}\n\
         }}\n",
        String::from_utf8_lossy(&conf::quote(pid, false)),
        port(is_root),
    );
    text
}

/// The welcome page. It stands between single quotes in the configuration and must hold neither those nor a dollar
/// sign.
const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Gapura is running</title>
<style>
body { max-width: 40rem; margin: 3rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; color-scheme: light dark }
pre { padding: 1rem; overflow: auto; background: color-mix(in srgb, currentColor 8%, transparent); border-radius: .4rem }
</style>
<h1>Gapura is running</h1>
<p>It found no configuration file, so it shows this page. Two ways on:</p>
<h2>Try it</h2>
<pre>gapura demo</pre>
<p>starts a gateway and two small applications on this machine, with a configuration to play with.</p>
<h2>Use it</h2>
<p>Write <code>/etc/gapura/nginx.conf</code>, or bring the <code>nginx.conf</code> you have:</p>
<pre>events {}
http {
    upstream app {
        server 10.0.0.1:3000;
        server 10.0.0.2:3000;
    }
    server {
        listen 80;
        location / {
            proxy_pass http://app;
        }
    }
}</pre>
<p>Test it with <code>gapura -t</code>, start it with <code>gapura</code>, and after a change say
<code>gapura -s reload</code>.</p>
</html>
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_parses_and_the_page_arrives_whole() {
        for is_root in [true, false] {
            let text = text(is_root, b"/run/user/1 000/gapura.pid");
            let parsed = conf::parse_text("built in".into(), &text);
            assert_eq!(parsed.diagnostics, []);
            let words: Vec<_> =
                parsed.tree.root.nodes.iter().map(|node| node.name.text.to_string()).collect();
            assert_eq!(words, ["daemon", "pid", "error_log", "events", "http"]);
            assert_eq!(parsed.tree.root.nodes[1].args[0].text, "/run/user/1 000/gapura.pid");
            assert!(!PAGE.contains(['\'', '$']));
        }
    }
}
