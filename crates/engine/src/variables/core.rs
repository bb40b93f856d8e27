//! The variables of nginx's core module (its manual, "Embedded Variables" of ngx_http_core_module).

use crate::Request;
use crate::module::Read;
use crate::module::Variable;
use crate::variables::text::{hexadecimal, number, seconds};

/// Appends a text and says "found".
fn put(out: &mut Vec<u8>, text: &[u8]) -> bool {
    out.extend_from_slice(text);
    true
}

/// Appends the port of an address; those of the file system have none.
fn port(out: &mut Vec<u8>, address: &net::address::Address) -> bool {
    port_number(out, address.port())
}

fn port_number(out: &mut Vec<u8>, port: u16) -> bool {
    port == 0 || number(out, u64::from(port), 1)
}

/// Appends a text if there is one.
fn some(out: &mut Vec<u8>, text: Option<&[u8]>) -> bool {
    text.is_some_and(|text| put(out, text))
}

fn write_args(request: &mut Request, value: &[u8]) {
    request.args.clear();
    request.args.extend_from_slice(value);
    request.uri_as_sent = false;
}

fn write_limit_rate(request: &mut Request, value: &[u8]) {
    request.limit_rate = schema::value::size(value).map(|rate| rate as u64);
}

/// Values of all header fields of a name (a variable's: underscores stand for hyphens), joined as nginx joins them.
pub(crate) fn joined(fields: &http::Fields, rest: &[u8], separator: &[u8], out: &mut Vec<u8>) -> bool {
    let mut found = false;
    for value in fields.all_as_variable(rest) {
        if found {
            out.extend_from_slice(separator);
        }
        out.extend_from_slice(value);
        found = true;
    }
    found
}

fn http_header(request: &mut Request, rest: &[u8], out: &mut Vec<u8>) -> bool {
    let separator: &[u8] = if rest == b"cookie" { b"; " } else { b", " };
    joined(&request.head.fields, rest, separator, out)
}

fn sent_http_header(request: &mut Request, rest: &[u8], out: &mut Vec<u8>) -> bool {
    let response = &request.response;
    match rest {
        b"content_type" => !response.content_type.is_empty() && content_type(response, out),
        b"content_length" => response.content_length.is_some_and(|length| number(out, length, 1)),
        b"last_modified" => {
            response.last_modified.is_some_and(|seconds| put(out, &net::clock::http_date_of(seconds)))
        }
        b"location" => !response.location.is_empty() && put(out, &response.location),
        b"connection" => put(
            out,
            if response.upgraded {
                b"upgrade"
            } else if request.keep_alive {
                b"keep-alive"
            } else {
                b"close"
            },
        ),
        b"keep_alive" => {
            let seconds = request.plan.core.keepalive_timeout.header_seconds;
            request.keep_alive && seconds > 0 && put(out, b"timeout=") && number(out, seconds, 1)
        }
        b"transfer_encoding" => {
            response.content_length.is_none() && response.sent && !response.upgraded && put(out, b"chunked")
        }
        _ => joined(&response.fields, rest, b", ", out),
    }
}

/// The value of `Content-Type` with its charset.
pub fn content_type(response: &crate::request::Response, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(&response.content_type);
    if !response.charset.is_empty() {
        out.extend_from_slice(b"; charset=");
        out.extend_from_slice(&response.charset);
    }
    true
}

/// The server's name for redirects and `$host`: the request's, else the server's first.
pub fn host(request: &Request, out: &mut Vec<u8>) -> bool {
    match request.head.host() {
        Some(host) if !host.is_empty() => put(out, host),
        _ => put(out, &request.site.name),
    }
}

fn proxy_protocol_address(request: &mut Request, out: &mut Vec<u8>) -> bool {
    let Some(header) = &request.connection.proxy_protocol else { return false };
    header.source.write_host(out);
    true
}

fn binary_address(request: &mut Request, out: &mut Vec<u8>) -> bool {
    match request.client_address().ip() {
        Some(std::net::IpAddr::V4(ip)) => put(out, &ip.octets()),
        Some(std::net::IpAddr::V6(ip)) => put(out, &ip.octets()),
        None => put(out, b"unix:"),
    }
}

/// What the kernel said of the connection when the request began.
fn tcp_info(request: &mut Request, out: &mut Vec<u8>, read: fn(&net::sockopt::TcpInfo) -> u32) -> bool {
    let Some(info) = request.connection.tcp_info.take() else { return false };
    let value = read(&info);
    request.connection.tcp_info.set(Some(info));
    number(out, u64::from(value), 1)
}

fn request_id(request: &mut Request, out: &mut Vec<u8>) -> bool {
    let id = *request.id.get_or_insert_with(net::random::request_id);
    hexadecimal(out, &id)
}

fn request_body(request: &mut Request, out: &mut Vec<u8>) -> bool {
    let body = &request.body;
    body.read && body.file.is_none() && !body.memory.is_empty() && put(out, &body.memory)
}

fn real_path(path: &[u8], out: &mut Vec<u8>) -> bool {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
    std::fs::canonicalize(path).is_ok_and(|real| put(out, &real.into_os_string().into_vec()))
}

fn document_root(request: &mut Request, out: &mut Vec<u8>) -> bool {
    let plan = request.plan;
    match &*plan.folder.root {
        None => put(out, &request.thread.default_root),
        Some(root) => {
            let path = request.render(&root.path);
            if !path.starts_with(b"/") {
                out.extend_from_slice(&request.thread.prefix);
            }
            put(out, &path)
        }
    }
}

/// Variables of nginx's core module (its manual, "Embedded Variables" of ngx_http_core_module).
pub static CORE: &[Variable] = &[
    Variable::prefix("http_", http_header, "A header of the request."),
    Variable::prefix("sent_http_", sent_http_header, "A header of the response."),
    Variable::prefix(
        "sent_trailer_",
        |r, n, o| joined(&r.response.trailers, n, b", ", o),
        "A trailer of the response.",
    ),
    Variable::prefix("cookie_", |r, n, o| some(o, http::cookie::find(&r.head.fields, n)), "A cookie."),
    Variable::prefix(
        "arg_",
        |r, n, o| some(o, http::args::find(&r.args, n)),
        "An argument of the request line.",
    ),
    Variable::plain("host", |r, o| host(r, o), "The host of the request, or the server's name."),
    Variable::plain("uri", |r, o| put(o, &r.uri), "The path in force, decoded."),
    Variable::plain("document_uri", |r, o| put(o, &r.uri), "The same as $uri."),
    Variable::plain("request_uri", |r, o| put(o, r.head.target()), "The path and arguments as they came."),
    Variable::plain("request", |r, o| put(o, r.head.request_line()), "The request line."),
    Variable::plain("request_method", |r, o| put(o, r.method.name(&r.head)), "The method."),
    Variable {
        name: "args",
        read: Read::Plain(|r, o| !r.args.is_empty() && put(o, &r.args)),
        write: Some(write_args),
        doc: "The arguments.",
    },
    Variable::plain("query_string", |r, o| !r.args.is_empty() && put(o, &r.args), "The same as $args."),
    Variable::plain(
        "is_args",
        |r, o| put(o, if r.args.is_empty() { b"" } else { b"?" }),
        "A question mark if there are arguments.",
    ),
    Variable {
        name: "limit_rate",
        read: Read::Plain(|r, o| number(o, r.limit_rate.unwrap_or(0), 1)),
        write: Some(write_limit_rate),
        doc: "The limit of the answer's rate.",
    },
    Variable::plain("document_root", document_root, "The root in force."),
    Variable::plain(
        "realpath_root",
        |r, o| {
            let mut path = Vec::new();
            document_root(r, &mut path);
            real_path(&path, o)
        },
        "The root in force without symbolic links.",
    ),
    Variable::plain(
        "request_filename",
        |r, o| {
            let path = r.file_path();
            put(o, &path)
        },
        "The file for the request.",
    ),
    Variable::plain("server_name", |r, o| put(o, &r.site.name), "The server's first name."),
    Variable::plain(
        "server_addr",
        |r, o| {
            r.connection.local_address().write_host(o);
            true
        },
        "The address the request came to.",
    ),
    Variable::printable(
        "server_port",
        |r, o| port(o, r.connection.local_address()),
        "The port the request came to.",
    ),
    Variable::plain("server_protocol", |r, o| put(o, r.head.version.name()), "The protocol of the request."),
    Variable::plain(
        "http2",
        |r, o| {
            let is_http2 = r.head.version == http::Version::HTTP_2;
            is_http2 && put(o, if r.connection.tls { b"h2" } else { b"h2c" })
        },
        "h2 or h2c for requests of HTTP/2.",
    ),
    Variable::printable("scheme", |r, o| put(o, r.scheme().as_bytes()), "http or https."),
    Variable::plain("https", |r, o| r.connection.tls && put(o, b"on"), "on for HTTPS."),
    Variable::plain(
        "request_port",
        |r, o| r.head.port().is_some_and(|port| number(o, u64::from(port), 1)),
        "The port of the request's host.",
    ),
    Variable::plain(
        "is_request_port",
        |r, o| put(o, if r.head.port().is_some() { b":" } else { b"" }),
        "A colon if the host has a port.",
    ),
    Variable::plain(
        "remote_addr",
        |r, o| {
            r.client_address().write_host(o);
            true
        },
        "The client's address.",
    ),
    Variable::printable("remote_port", |r, o| port(o, r.client_address()), "The client's port."),
    Variable::plain("binary_remote_addr", binary_address, "The client's address in binary."),
    Variable::plain(
        "remote_user",
        |r, o| crate::request::remote_user(r).is_some_and(|user| put(o, user)),
        "The user of Basic authentication.",
    ),
    Variable::plain(
        "proxy_protocol_addr",
        proxy_protocol_address,
        "The client's address from the PROXY protocol.",
    ),
    Variable::plain(
        "proxy_protocol_port",
        |r, o| r.connection.proxy_protocol.as_ref().is_some_and(|h| port_number(o, h.source.port())),
        "The client's port from the PROXY protocol.",
    ),
    Variable::plain(
        "proxy_protocol_server_addr",
        |r, o| {
            r.connection.proxy_protocol.as_ref().is_some_and(|h| {
                h.destination.write_host(o);
                true
            })
        },
        "The server's address from the PROXY protocol.",
    ),
    Variable::plain(
        "proxy_protocol_server_port",
        |r, o| r.connection.proxy_protocol.as_ref().is_some_and(|h| port_number(o, h.destination.port())),
        "The server's port from the PROXY protocol.",
    ),
    Variable::prefix(
        "proxy_protocol_tlv_",
        |r, n, o| r.connection.proxy_protocol.as_ref().is_some_and(|h| some(o, h.tlv(n).as_deref())),
        "A TLV of the PROXY protocol.",
    ),
    Variable::plain(
        "content_type",
        |r, o| joined(&r.head.fields, b"content_type", b", ", o),
        "The request's Content-Type.",
    ),
    Variable::plain(
        "content_length",
        |r, o| match r.head.fields.get(b"Content-Length") {
            Some(text) => put(o, text),
            None => r.body.read && r.body.received > 0 && number(o, r.body.received, 1),
        },
        "The request's Content-Length.",
    ),
    Variable::plain("request_body", request_body, "The request's body, when it is in memory."),
    Variable::plain(
        "request_body_file",
        |r, o| some(o, r.body.file.as_ref().map(|file| file.path())),
        "The file with the request's body.",
    ),
    Variable::printable(
        "request_length",
        |r, o| number(o, r.received_bytes, 1),
        "The length of the request.",
    ),
    Variable::printable(
        "request_time",
        |r, o| seconds(o, net::clock::now_ms().saturating_sub(r.started_ms)),
        "Seconds since the request's first byte.",
    ),
    Variable::printable("request_id", request_id, "Sixteen random bytes in hexadecimal."),
    Variable::plain(
        "request_completion",
        |r, o| r.completed && put(o, b"OK"),
        "OK if the request was completed.",
    ),
    Variable::printable("status", |r, o| number(o, u64::from(r.shown_status().0), 3), "The answer's status."),
    Variable::printable("bytes_sent", |r, o| number(o, r.sent_bytes, 1), "Bytes sent to the client."),
    Variable::printable(
        "body_bytes_sent",
        |r, o| number(o, r.sent_bytes.saturating_sub(r.sent_head_bytes), 1),
        "Bytes sent without the head.",
    ),
    Variable::printable(
        "pipe",
        |r, o| put(o, if r.connection.pipelined.get() { b"p" } else { b"." }),
        "p if the request was pipelined.",
    ),
    Variable::printable("connection", |r, o| number(o, r.connection.number, 1), "The connection's number."),
    Variable::printable(
        "connection_requests",
        |r, o| number(o, r.connection.requests.get(), 1),
        "Requests on this connection.",
    ),
    Variable::printable(
        "connection_time",
        |r, o| seconds(o, net::clock::now_ms().saturating_sub(r.connection.started_ms)),
        "Seconds since the connection began.",
    ),
    Variable::printable(
        "tcpinfo_rtt",
        |r, o| tcp_info(r, o, |info| info.rtt_us),
        "The connection's smoothed round-trip time, microseconds.",
    ),
    Variable::printable(
        "tcpinfo_rttvar",
        |r, o| tcp_info(r, o, |info| info.rttvar_us),
        "The variation of that, microseconds.",
    ),
    Variable::printable(
        "tcpinfo_snd_cwnd",
        |r, o| tcp_info(r, o, |info| info.snd_cwnd),
        "The connection's congestion window, segments.",
    ),
    Variable::printable(
        "tcpinfo_rcv_space",
        |r, o| tcp_info(r, o, |info| info.rcv_space_bytes),
        "The connection's receive window, bytes.",
    ),
    Variable::printable(
        "msec",
        |_, o| {
            let now = net::clock::wall();
            seconds(o, now.seconds.unsigned_abs() * 1000 + u64::from(now.millis))
        },
        "Seconds since 1970.",
    ),
    Variable::printable("time_iso8601", |_, o| put(o, &net::clock::time_iso8601()), "The time in ISO 8601."),
    Variable::printable(
        "time_local",
        |_, o| put(o, &net::clock::time_local()),
        "The time in the common log format.",
    ),
    Variable::plain("hostname", |r, o| put(o, &r.thread.hostname), "The machine's name."),
    Variable::plain(
        "nginx_version",
        |_, o| put(o, crate::COMPATIBLE_VERSION.as_bytes()),
        "The version of nginx that this is compatible with.",
    ),
    Variable::printable(
        "pid",
        |_, o| number(o, u64::from(std::process::id()), 1),
        "The worker's process id.",
    ),
];
