//! Completing the configuration of a document: what the author left out around it, and paths that stay inside the
//! folder of the scenario. Everything is added on the first line or behind the last, so that line numbers in error
//! messages are those of the block.

use crate::text::Places;

/// The complete configuration text for a block; placeholders are filled. `oracle` adds the temporary folders that a
/// packaged nginx has compiled in as absolute paths. `raw` fills the placeholders and adds nothing.
pub fn complete(text: &str, places: &Places, oracle: bool, raw: bool) -> String {
    let text = places.fill(text);
    if raw {
        return text;
    }
    let items = items(&text);
    let has = |name: &str| items.iter().any(|item| item.name == name);
    let whole = ["http", "events", "stream", "mail"].iter().any(|name| has(name));
    let mut main = String::new();
    for (name, line) in
        [("daemon", "daemon off;"), ("pid", "pid nginx.pid;"), ("error_log", "error_log error.log info;")]
    {
        if !(whole && has(name)) {
            main.push_str(line);
            main.push(' ');
        }
    }
    if !has("events") {
        main.push_str("events {} ");
    }
    if whole {
        let http = items.iter().find(|item| item.name == "http").and_then(|item| item.inside.clone());
        let Some(inside) = http else { return main + &text };
        let added = http_additions(&text[inside.clone()], oracle);
        return format!("{main}{} {added}{}", &text[..inside.start], &text[inside.start..]);
    }
    let added = http_additions(&text, oracle);
    if has("server") {
        return format!("{main}http {{ {added}{text}\n}}\n");
    }
    let split = items.iter().find(|item| !only_in_http(&item.name)).map_or(text.len(), |item| item.start);
    let (http, server) = text.split_at(split);
    let listen = if has("listen") { String::new() } else { places.fill("listen 127.0.0.1:%PORT%; ") };
    let access_log = if has("access_log") { "" } else { added.as_str() };
    let added = if has("access_log") { temporary_folders(oracle) } else { String::new() } + access_log;
    format!("{main}http {{ {added}{http}server {{ {listen}{server}\n}} }}\n")
}

/// Directives that only an `http` block takes: they may stand above bare locations.
fn only_in_http(name: &str) -> bool {
    [
        "upstream",
        "map",
        "geo",
        "split_clients",
        "log_format",
        "server_names_hash_bucket_size",
        "map_hash_bucket_size",
    ]
    .contains(&name)
        || name.ends_with("_zone") && name.starts_with("limit_")
        || name.ends_with("_cache_path")
}

/// What goes to the top of `http`, given what the author wrote inside it.
fn http_additions(inside: &str, oracle: bool) -> String {
    let items = items(inside);
    let has = |name: &str| items.iter().any(|item| item.name == name);
    let log = if has("access_log") { "" } else { "access_log access.log; " };
    format!("{log}{}", temporary_folders(oracle && !has("client_body_temp_path") && !has("proxy_temp_path")))
}

fn temporary_folders(wanted: bool) -> String {
    let names = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    names.iter().filter(|_| wanted).map(|name| format!("{name}_temp_path {name}_temp; ")).collect()
}

/// A directive at the top level of a text.
struct Item {
    name: String,
    start: usize,
    /// Between its braces.
    inside: Option<std::ops::Range<usize>>,
}

/// The directives at the top level; a broken text gives those up to where it breaks.
fn items(text: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut depth = 0;
    let mut open: Option<Item> = None;
    for (start, token) in (Tokens { text, at: 0 }) {
        match token {
            ";" if depth == 0 => items.extend(open.take()),
            "{" => {
                depth += 1;
                if let (1, Some(item)) = (depth, &mut open) {
                    item.inside = Some(start + 1..text.len());
                }
            }
            "}" => {
                depth -= 1;
                if depth == 0 {
                    if let Some(inside) = open.as_mut().and_then(|item| item.inside.as_mut()) {
                        inside.end = start;
                    }
                    items.extend(open.take());
                }
                if depth < 0 {
                    break;
                }
            }
            word if depth == 0 && open.is_none() => {
                open = Some(Item { name: word.to_owned(), start, inside: None })
            }
            _ => {}
        }
    }
    items.extend(open);
    items
}

/// The words, `;`, `{` and `}` of a configuration with their places.
struct Tokens<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Iterator for Tokens<'t> {
    type Item = (usize, &'t str);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.at)? {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'#' => self.at += self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at),
                _ => break,
            }
        }
        let start = self.at;
        let first = bytes[start];
        self.at += 1;
        if matches!(first, b'"' | b'\'') {
            while let Some(byte) = bytes.get(self.at) {
                self.at += if *byte == b'\\' { 2 } else { 1 };
                if *byte == first {
                    break;
                }
            }
        } else if !matches!(first, b';' | b'{' | b'}') {
            let mut before = first;
            while let Some(byte) = bytes.get(self.at) {
                let ends =
                    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b';') || *byte == b'{' && before != b'$';
                if ends && before != b'\\' {
                    break;
                }
                before = if before == b'\\' { 0 } else { *byte };
                self.at += 1;
            }
        }
        self.at = self.at.min(bytes.len());
        Some((start, self.text.get(start..self.at)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(text: &str) -> String {
        let mut places = Places::default();
        places.set("PORT", "8080");
        complete(text, &places, false, false)
    }

    #[test]
    fn bare_parts_are_wrapped_on_the_first_line() {
        let main = "daemon off; pid nginx.pid; error_log error.log info; events {} ";
        for (text, expected) in [
            (
                "return 200;",
                "http { access_log access.log; server { listen 127.0.0.1:8080; return 200;\n} }\n",
            ),
            ("listen %PORT%;", "http { access_log access.log; server { listen 8080;\n} }\n"),
            ("access_log x;", "http { server { listen 127.0.0.1:8080; access_log x;\n} }\n"),
            ("server { }\naccess_log x;", "http { server { }\naccess_log x;\n}\n"),
            (
                "map $a $b {\n x y;\n}\nroot /x;",
                "http { access_log access.log; map $a $b {\n x y;\n}\nserver { listen 127.0.0.1:8080; root /x;\n} }\n",
            ),
        ] {
            assert_eq!(completed(text), format!("{main}{expected}"));
        }
    }

    #[test]
    fn a_whole_file_gets_what_it_does_not_say() {
        for (text, expected) in [
            (
                "pid x;\nevents {}\nhttp {\n}",
                "daemon off; error_log error.log info; pid x;\nevents {}\nhttp { access_log access.log; \n}",
            ),
            (
                "daemon off; pid x; error_log x; http { access_log off; }",
                "events {} daemon off; pid x; error_log x; http {  access_log off; }",
            ),
        ] {
            assert_eq!(completed(text), expected);
        }
    }

    #[test]
    fn quotes_comments_and_variables_hide_braces() {
        let names = |text: &str| items(text).into_iter().map(|item| item.name).collect::<Vec<_>>();
        assert_eq!(names("a '}' \"{\"; # {\nb ${x} { c; } d \\;;"), ["a", "b", "d"]);
        assert_eq!(names("a { b"), ["a"]);
        assert_eq!(names("} a;"), Vec::<String>::new());
    }
}
