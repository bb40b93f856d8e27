//! Directives that people find in configurations though nginx does not have them: those of NGINX Plus and of the
//! modules that others publish. Who meets one is told where it comes from.

use std::collections::HashMap;
use std::sync::OnceLock;

/// Where a directive comes from, and what to do instead (empty: nothing comes near).
struct Origin {
    place: &'static str,
    instead: &'static str,
}

/// One sentence on where a directive comes from, if it is one of those.
pub fn sentence(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let Origin { place, instead } = origin(name)?;
    let instead = if instead.is_empty() { String::new() } else { format!("; {instead}") };
    Some(format!("\"{name}\" is a directive of {place}, not of nginx as it is now{instead}"))
}

fn origin(name: &str) -> Option<&'static Origin> {
    let table = table();
    table.names.get(name).or_else(|| {
        let (_, origin) = table.prefixes.iter().find(|(prefix, _)| name.starts_with(prefix))?;
        Some(origin)
    })
}

struct Table {
    names: HashMap<&'static str, Origin>,
    prefixes: Vec<(&'static str, Origin)>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = Table { names: HashMap::new(), prefixes: Vec::new() };
        for line in include_str!("elsewhere.tsv").lines().filter(|line| !line.starts_with('#')) {
            let mut columns = line.split('\t');
            let (Some(names), Some(place)) = (columns.next(), columns.next()) else { continue };
            let instead = columns.next().unwrap_or_default();
            for name in names.split(' ') {
                let origin = Origin { place, instead };
                match name.strip_suffix('*') {
                    Some(prefix) => table.prefixes.push((prefix, origin)),
                    None => drop(table.names.insert(name, origin)),
                }
            }
        }
        table
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_a_directive_comes_from() {
        let jwt = "\"auth_jwt_key_file\" is a directive of NGINX Plus, not of nginx as it is now";
        assert_eq!(sentence(b"auth_jwt_key_file").as_deref(), Some(jwt));
        let ssl = "\"ssl\" is a directive of nginx up to 1.25.0, not of nginx as it is now; \
                   write \"listen 443 ssl\" instead";
        assert_eq!(sentence(b"ssl").as_deref(), Some(ssl));
        assert_eq!(sentence(b"proxy_passs"), None);
    }

    #[test]
    fn names_nothing_that_nginx_has() {
        for name in crate::known::names() {
            assert_eq!(sentence(name.as_bytes()), None, "{name}");
        }
    }
}
