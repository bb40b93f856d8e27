//! Response statuses and the words nginx puts beside them.

/// A response status, 100 to 599 from a peer, any number up to 999 from a configuration.
///
/// 444 and 494 to 499 are nginx's own: they say why a request failed and never reach a client under that number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(pub u16);

#[allow(missing_docs)] // the names are the reasons
impl Status {
    pub const CONTINUE: Status = Status(100);
    pub const SWITCHING_PROTOCOLS: Status = Status(101);
    pub const PROCESSING: Status = Status(102);
    pub const EARLY_HINTS: Status = Status(103);
    pub const OK: Status = Status(200);
    pub const CREATED: Status = Status(201);
    pub const ACCEPTED: Status = Status(202);
    pub const NO_CONTENT: Status = Status(204);
    pub const PARTIAL_CONTENT: Status = Status(206);
    pub const MULTI_STATUS: Status = Status(207);
    pub const SPECIAL_RESPONSE: Status = Status(300);
    pub const MOVED_PERMANENTLY: Status = Status(301);
    pub const MOVED_TEMPORARILY: Status = Status(302);
    pub const SEE_OTHER: Status = Status(303);
    pub const NOT_MODIFIED: Status = Status(304);
    pub const TEMPORARY_REDIRECT: Status = Status(307);
    pub const PERMANENT_REDIRECT: Status = Status(308);
    pub const BAD_REQUEST: Status = Status(400);
    pub const UNAUTHORIZED: Status = Status(401);
    pub const PAYMENT_REQUIRED: Status = Status(402);
    pub const FORBIDDEN: Status = Status(403);
    pub const NOT_FOUND: Status = Status(404);
    pub const NOT_ALLOWED: Status = Status(405);
    pub const METHOD_NOT_ALLOWED: Status = Status(405);
    pub const NOT_ACCEPTABLE: Status = Status(406);
    pub const PROXY_AUTHENTICATION_REQUIRED: Status = Status(407);
    pub const REQUEST_TIME_OUT: Status = Status(408);
    pub const CONFLICT: Status = Status(409);
    pub const GONE: Status = Status(410);
    pub const LENGTH_REQUIRED: Status = Status(411);
    pub const PRECONDITION_FAILED: Status = Status(412);
    pub const REQUEST_ENTITY_TOO_LARGE: Status = Status(413);
    pub const REQUEST_URI_TOO_LARGE: Status = Status(414);
    pub const UNSUPPORTED_MEDIA_TYPE: Status = Status(415);
    pub const RANGE_NOT_SATISFIABLE: Status = Status(416);
    pub const MISDIRECTED_REQUEST: Status = Status(421);
    pub const TOO_MANY_REQUESTS: Status = Status(429);
    /// nginx's own: close the connection without an answer.
    pub const CLOSE: Status = Status(444);
    /// nginx's own: the head is larger than the buffers; answered as 400.
    pub const REQUEST_HEADER_TOO_LARGE: Status = Status(494);
    /// nginx's own: the client's certificate does not verify; answered as 400.
    pub const CERTIFICATE_ERROR: Status = Status(495);
    /// nginx's own: the client sent no certificate; answered as 400.
    pub const NO_CERTIFICATE: Status = Status(496);
    /// nginx's own: plain HTTP on a TLS port; answered as 400.
    pub const TO_HTTPS: Status = Status(497);
    /// nginx's own: the request was cancelled.
    pub const CANCELLED: Status = Status(498);
    /// nginx's own: the client went away, only logged.
    pub const CLIENT_CLOSED_REQUEST: Status = Status(499);
    pub const INTERNAL_SERVER_ERROR: Status = Status(500);
    pub const NOT_IMPLEMENTED: Status = Status(501);
    pub const BAD_GATEWAY: Status = Status(502);
    pub const SERVICE_UNAVAILABLE: Status = Status(503);
    pub const GATEWAY_TIME_OUT: Status = Status(504);
    pub const VERSION_NOT_SUPPORTED: Status = Status(505);
    pub const INSUFFICIENT_STORAGE: Status = Status(507);
}

impl Status {
    /// The words nginx prints after the number in a status line; `None` where it prints the number and a space
    /// only (`HTTP/1.1 418 `).
    pub fn reason(self) -> Option<&'static str> {
        Some(match self.0 {
            200 => "OK",
            201 => "Created",
            202 => "Accepted",
            204 => "No Content",
            206 => "Partial Content",
            301 => "Moved Permanently",
            302 => "Moved Temporarily",
            303 => "See Other",
            304 => "Not Modified",
            307 => "Temporary Redirect",
            308 => "Permanent Redirect",
            400 => "Bad Request",
            401 => "Unauthorized",
            402 => "Payment Required",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Not Allowed",
            406 => "Not Acceptable",
            407 => "Proxy Authentication Required",
            408 => "Request Time-out",
            409 => "Conflict",
            410 => "Gone",
            411 => "Length Required",
            412 => "Precondition Failed",
            413 => "Request Entity Too Large",
            414 => "Request-URI Too Large",
            415 => "Unsupported Media Type",
            416 => "Requested Range Not Satisfiable",
            421 => "Misdirected Request",
            429 => "Too Many Requests",
            500 => "Internal Server Error",
            501 => "Not Implemented",
            502 => "Bad Gateway",
            503 => "Service Temporarily Unavailable",
            504 => "Gateway Time-out",
            505 => "HTTP Version Not Supported",
            507 => "Insufficient Storage",
            _ => return None,
        })
    }

    /// The status a client sees: nginx's own 494 to 497 are answered as 400.
    pub fn as_sent(self) -> Status {
        if matches!(self.0, 494..=497) { Status::BAD_REQUEST } else { self }
    }

    /// 1xx: another head follows (101 apart, which ends HTTP on the connection).
    pub fn is_interim(self) -> bool {
        matches!(self.0, 100 | 102..=199)
    }

    /// A response with this status never has a body (RFC 9112, section 6.3).
    pub fn is_bodiless(self) -> bool {
        matches!(self.0, 100..=199 | 204 | 304)
    }

    /// Does nginx close the connection after answering with this status itself
    /// (`ngx_http_special_response_handler`)?
    pub fn ends_keep_alive(self) -> bool {
        matches!(self.0, 400 | 413 | 414 | 495 | 496 | 497 | 500 | 501)
    }

    /// 300 and above: may be replaced by an error page.
    pub fn is_special(self) -> bool {
        self.0 >= 300
    }
}

impl std::fmt::Display for Status {
    /// The number as `$status` prints it, three digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:03}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_see() {
        assert_eq!(Status(494).as_sent(), Status(400));
        assert_eq!(Status(498).as_sent(), Status(498));
        assert_eq!(Status(302).reason(), Some("Moved Temporarily"));
        assert_eq!(Status(418).reason(), None);
        assert_eq!(Status(9).to_string(), "009");
        assert!(Status(103).is_interim() && !Status(101).is_interim() && Status(304).is_bodiless());
    }
}
