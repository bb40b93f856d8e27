//! What `-V` says is built in, in the words of nginx's `configure`.
//!
//! certbot looks for `--with-http_ssl_module`, nginx-ui lists modules by these words, and nginx's own tests choose what
//! to run by them. Hence they follow from what really is there: a module counts as built in when the directive that
//! makes it useful is implemented.

/// Modules that nginx has only when asked for, and the directive that tells.
const OPTIONAL: &[(&str, &str)] = &[
    ("--with-http_ssl_module", "ssl_certificate"),
    ("--with-http_v2_module", "http2"),
    ("--with-http_v3_module", "http3"),
    ("--with-http_realip_module", "set_real_ip_from"),
    ("--with-http_addition_module", "add_before_body"),
    ("--with-http_xslt_module", "xslt_stylesheet"),
    ("--with-http_image_filter_module", "image_filter"),
    ("--with-http_geoip_module", "geoip_country"),
    ("--with-http_sub_module", "sub_filter"),
    ("--with-http_dav_module", "dav_methods"),
    ("--with-http_flv_module", "flv"),
    ("--with-http_mp4_module", "mp4"),
    ("--with-http_gunzip_module", "gunzip"),
    ("--with-http_gzip_static_module", "gzip_static"),
    ("--with-http_auth_request_module", "auth_request"),
    ("--with-http_random_index_module", "random_index"),
    ("--with-http_secure_link_module", "secure_link"),
    ("--with-http_slice_module", "slice"),
    ("--with-http_stub_status_module", "stub_status"),
    ("--with-mail", "mail"),
    ("--with-stream", "stream"),
];

/// Modules that nginx has unless told otherwise, and the directive that tells.
const STANDARD: &[(&str, &str)] = &[
    ("--without-http_charset_module", "charset"),
    ("--without-http_gzip_module", "gzip"),
    ("--without-http_ssi_module", "ssi"),
    ("--without-http_userid_module", "userid"),
    ("--without-http_access_module", "allow"),
    ("--without-http_auth_basic_module", "auth_basic"),
    ("--without-http_mirror_module", "mirror"),
    ("--without-http_autoindex_module", "autoindex"),
    ("--without-http_geo_module", "geo"),
    ("--without-http_map_module", "map"),
    ("--without-http_split_clients_module", "split_clients"),
    ("--without-http_referer_module", "valid_referers"),
    ("--without-http_rewrite_module", "rewrite"),
    ("--without-http_proxy_module", "proxy_pass"),
    ("--without-http_fastcgi_module", "fastcgi_pass"),
    ("--without-http_uwsgi_module", "uwsgi_pass"),
    ("--without-http_scgi_module", "scgi_pass"),
    ("--without-http_grpc_module", "grpc_pass"),
    ("--without-http_tunnel_module", "tunnel_pass"),
    ("--without-http_memcached_module", "memcached_pass"),
    ("--without-http_limit_conn_module", "limit_conn"),
    ("--without-http_limit_req_module", "limit_req"),
    ("--without-http_empty_gif_module", "empty_gif"),
    ("--without-http_browser_module", "modern_browser"),
    ("--without-http_upstream_hash_module", "hash"),
    ("--without-http_upstream_ip_hash_module", "ip_hash"),
    ("--without-http_upstream_least_conn_module", "least_conn"),
    ("--without-http_upstream_least_time_module", "least_time"),
    ("--without-http_upstream_random_module", "random"),
    ("--without-http_upstream_keepalive_module", "keepalive"),
    ("--without-http_upstream_zone_module", "zone"),
    ("--without-http_upstream_sticky_module", "sticky"),
    ("--without-http-cache", "proxy_cache"),
];

/// The arguments, in nginx's order of modules.
pub fn arguments() -> Vec<&'static str> {
    arguments_of(is_built_in)
}

/// True where TLS can be served.
pub fn has_tls() -> bool {
    is_built_in("ssl_certificate")
}

fn arguments_of(is_built_in: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let present = OPTIONAL.iter().filter(|(_, directive)| is_built_in(directive));
    let absent = STANDARD.iter().filter(|(_, directive)| !is_built_in(directive));
    present.chain(absent).map(|(argument, _)| *argument).collect()
}

/// Some module implements the directive.
fn is_built_in(directive: &str) -> bool {
    let core = engine::core::MODULES.iter();
    core.chain(modules::MODULES).any(|module| {
        let own = module.directives.iter().any(|row| row.name == directive);
        let shared = module.families.iter().any(|family| {
            let rest = directive.strip_prefix(family.prefix);
            rest.is_some_and(|rest| family.rows.iter().any(|row| row.name == rest))
        });
        own || shared
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_of_the_usual_and_what_is_there_beyond_it_is_named() {
        assert_eq!(arguments_of(|_| false).len(), STANDARD.len());
        assert_eq!(arguments_of(|_| true).len(), OPTIONAL.len());
        let some =
            arguments_of(|directive| !matches!(directive, "gzip" | "mail" | "stream" | "ssl_certificate"));
        assert!(some.contains(&"--without-http_gzip_module") && some.contains(&"--with-http_v2_module"));
        assert!(!some.contains(&"--with-http_ssl_module"));
    }

    #[test]
    fn rows_that_families_share_count() {
        assert!(is_built_in("proxy_pass"));
        assert!(is_built_in("proxy_connect_timeout"));
        assert!(!is_built_in("no_such_directive"));
        assert!(!is_built_in("proxy_"));
    }
}
