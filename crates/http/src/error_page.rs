//! The pages a server answers with when it has nothing better: nginx's, to the byte, with our name at the foot.

use crate::escape::{Escape, escape_uri};
use crate::status::Status;

/// Appends the built-in page for `status`; `server` stands at its foot (`gapura/1.2.3`, or `gapura` with
/// `server_tokens off`). `padding` lengthens pages of errors so that old browsers show them: nginx does that for MSIE
/// and Chrome when `msie_padding` is on. `false`: there is no page for this status, the body is empty.
pub fn body(status: Status, server: &str, padding: bool, out: &mut Vec<u8>) -> bool {
    let Some((title, heading, detail)) = texts(status) else { return false };
    let mut line = |pieces: &[&str]| {
        for piece in pieces {
            out.extend_from_slice(piece.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    };
    line(&["<html>"]);
    line(&["<head><title>", title, "</title></head>"]);
    line(&["<body>"]);
    line(&["<center><h1>", heading, "</h1></center>"]);
    if !detail.is_empty() {
        line(&["<center>", detail, "</center>"]);
    }
    line(&["<hr><center>", server, "</center>"]);
    line(&["</body>"]);
    line(&["</html>"]);
    if padding && status.0 >= 400 {
        for _ in 0..6 {
            line(&["<!-- a padding to disable MSIE and Chrome friendly error page -->"]);
        }
    }
    true
}

/// Appends the page that sends an old MSIE to `location` (`msie_refresh`); the answer's status is 200.
pub fn refresh(location: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"<html><head><meta http-equiv=\"Refresh\" content=\"0; URL=");
    escape_uri(Escape::Refresh, location, out);
    out.extend_from_slice(b"\"></head><body></body></html>\r\n");
}

/// Title, heading and second line of a page.
fn texts(status: Status) -> Option<(&'static str, &'static str, &'static str)> {
    let page = match status.0 {
        301 => "301 Moved Permanently",
        302 => "302 Found",
        303 => "303 See Other",
        307 => "307 Temporary Redirect",
        308 => "308 Permanent Redirect",
        400 => "400 Bad Request",
        401 => "401 Authorization Required",
        402 => "402 Payment Required",
        403 => "403 Forbidden",
        404 | 498 => "404 Not Found",
        405 => "405 Not Allowed",
        406 => "406 Not Acceptable",
        407 => "407 Proxy Authentication Required",
        408 => "408 Request Time-out",
        409 => "409 Conflict",
        410 => "410 Gone",
        411 => "411 Length Required",
        412 => "412 Precondition Failed",
        413 => "413 Request Entity Too Large",
        414 => "414 Request-URI Too Large",
        415 => "415 Unsupported Media Type",
        416 => "416 Requested Range Not Satisfiable",
        421 => "421 Misdirected Request",
        429 => "429 Too Many Requests",
        494 => return Some(bad_request("400 Request Header Or Cookie Too Large")),
        495 => return Some(bad_request("400 The SSL certificate error")),
        496 => return Some(bad_request("400 No required SSL certificate was sent")),
        497 => return Some(bad_request("400 The plain HTTP request was sent to HTTPS port")),
        500 => "500 Internal Server Error",
        501 => "501 Not Implemented",
        502 => "502 Bad Gateway",
        503 => "503 Service Temporarily Unavailable",
        504 => "504 Gateway Time-out",
        505 => "505 HTTP Version Not Supported",
        507 => "507 Insufficient Storage",
        _ => return None,
    };
    Some((page, page, ""))
}

/// nginx's own codes: the title tells why, the heading is that of 400.
fn bad_request(title: &'static str) -> (&'static str, &'static str, &'static str) {
    (title, "400 Bad Request", title.get(4..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(status: u16, padding: bool) -> Option<String> {
        let mut out = Vec::new();
        body(Status(status), "gapura/1", padding, &mut out)
            .then(|| String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn pages_are_those_of_nginx() {
        assert_eq!(
            page(302, true).as_deref(),
            Some(
                "<html>\r\n<head><title>302 Found</title></head>\r\n<body>\r\n\
                 <center><h1>302 Found</h1></center>\r\n<hr><center>gapura/1</center>\r\n</body>\r\n</html>\r\n"
            )
        );
        assert_eq!(
            page(497, false).as_deref(),
            Some(
                "<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>\r\n\
                 <body>\r\n<center><h1>400 Bad Request</h1></center>\r\n\
                 <center>The plain HTTP request was sent to HTTPS port</center>\r\n\
                 <hr><center>gapura/1</center>\r\n</body>\r\n</html>\r\n"
            )
        );
        let padded = page(404, true).unwrap_or_default();
        assert_eq!(padded.matches("<!-- a padding").count(), 6);
        assert!(padded.ends_with("page -->\r\n"));
        for none in [200, 201, 204, 304, 417, 444, 499, 506, 599] {
            assert_eq!(page(none, true), None, "{none}");
        }
        let mut out = Vec::new();
        refresh(b"/a'b", &mut out);
        assert!(String::from_utf8_lossy(&out).contains("URL=/a%27b\">"));
    }
}
