//! The directives that every family of upstream modules has under its own prefix: `proxy_read_timeout`,
//! `fastcgi_read_timeout` ... One table for all of them.

use crate::core::values::TempPath;
use crate::module::{Family, cells};
use bstr::BString;
use conf::Node;
use net::connect::ConnectOptions;
use schema::value::{Bits, argument};
use schema::{
    Bitmask, Buffers, Directive, Flag, Idle, Inherit, Milliseconds, Number, Problem, Services, Size,
    SizeTemplate, Value, field, list,
};
use template::Template;

/// How a location calls its upstream.
#[derive(Default, Clone)]
pub struct Settings {
    /// Take the response off the upstream as fast as it comes.
    pub buffering: Inherit<Flag>,
    /// Read the request's body whole before calling.
    pub request_buffering: Inherit<Flag>,
    /// Go on when the client is gone.
    pub ignore_client_abort: Inherit<Flag>,
    /// The local address to connect from.
    pub bind: Inherit<Option<Bind>>,
    /// `SO_KEEPALIVE`.
    pub socket_keepalive: Inherit<Flag>,
    /// `SO_SNDBUF`, 0 leaves it.
    pub socket_sndbuf: Inherit<Size>,
    /// `SO_RCVBUF`, 0 leaves it.
    pub socket_rcvbuf: Inherit<Size>,
    /// How long connecting may take.
    pub connect_timeout: Inherit<Milliseconds>,
    /// How long a pause while sending may be.
    pub send_timeout: Inherit<Milliseconds>,
    /// How long a pause while reading may be.
    pub read_timeout: Inherit<Milliseconds>,
    /// Statuses are shown by `error_page`.
    pub intercept_errors: Inherit<Flag>,
    /// The largest response head.
    pub buffer_size: Inherit<Size>,
    /// How much of a response is held in memory for a slow client.
    pub buffers: Inherit<Buffers>,
    /// How much of it may be on its way to the client.
    pub busy_buffers_size: Inherit<Option<Size>>,
    /// How much of a response may go to a temporary file.
    pub max_temp_file_size: Inherit<Option<Size>>,
    /// How much is written to it at once.
    pub temp_file_write_size: Inherit<Option<Size>>,
    /// Where it is.
    pub temp_path: Inherit<Option<TempPath>>,
    /// When another peer is asked.
    pub next_upstream: Inherit<Bitmask<NextUpstream>>,
    /// How many peers are asked, 0 is all.
    pub next_upstream_tries: Inherit<Number>,
    /// For how long, 0 is for ever.
    pub next_upstream_timeout: Inherit<Milliseconds>,
    /// Headers passed on though they usually are not.
    pub pass_header: Inherit<Vec<BString>>,
    /// Headers not passed on.
    pub hide_header: Inherit<Vec<BString>>,
    /// Headers without effect here.
    pub ignore_headers: Inherit<Bitmask<IgnoreHeaders>>,
    /// Bytes a second from the upstream.
    pub limit_rate: Inherit<Option<SizeTemplate>>,
    /// Serve ranges whatever the upstream says.
    pub force_ranges: Inherit<Flag>,
    /// Pass the trailers of the response.
    pub pass_trailers: Inherit<Flag>,
    /// Pass the client's headers.
    pub pass_request_headers: Inherit<Flag>,
    /// Pass the client's body.
    pub pass_request_body: Inherit<Flag>,
}

/// The words of `next_upstream`.
#[derive(Debug)]
pub struct NextUpstream;

impl NextUpstream {
    /// Connecting, sending or reading failed.
    pub const ERROR: u32 = 1;
    /// It took too long.
    pub const TIMEOUT: u32 = 1 << 1;
    /// The answer is no answer.
    pub const INVALID_HEADER: u32 = 1 << 2;
    /// Requests that may not be repeated, too.
    pub const NON_IDEMPOTENT: u32 = 1 << 3;
    /// Never.
    pub const OFF: u32 = 1 << 11;

    /// The bit for a status, if it can be asked for.
    pub fn of_status(status: u16) -> u32 {
        match status {
            500 => 1 << 4,
            502 => 1 << 5,
            503 => 1 << 6,
            504 => 1 << 7,
            403 => 1 << 8,
            404 => 1 << 9,
            429 => 1 << 10,
            _ => 0,
        }
    }
}

impl Bits for NextUpstream {
    const BITS: &'static [(&'static str, u32)] = &[
        ("error", NextUpstream::ERROR),
        ("timeout", NextUpstream::TIMEOUT),
        ("invalid_header", NextUpstream::INVALID_HEADER),
        ("non_idempotent", NextUpstream::NON_IDEMPOTENT),
        ("http_500", 1 << 4),
        ("http_502", 1 << 5),
        ("http_503", 1 << 6),
        ("http_504", 1 << 7),
        ("http_403", 1 << 8),
        ("http_404", 1 << 9),
        ("http_429", 1 << 10),
        ("off", NextUpstream::OFF),
    ];
}

/// The words of `ignore_headers`.
#[derive(Debug)]
pub struct IgnoreHeaders;

impl IgnoreHeaders {
    /// `X-Accel-Redirect`.
    pub const REDIRECT: u32 = 1;
    /// `X-Accel-Limit-Rate`.
    pub const LIMIT_RATE: u32 = 1 << 2;
    /// `X-Accel-Buffering`.
    pub const BUFFERING: u32 = 1 << 3;
    /// `X-Accel-Charset`.
    pub const CHARSET: u32 = 1 << 4;
}

impl Bits for IgnoreHeaders {
    const BITS: &'static [(&'static str, u32)] = &[
        ("X-Accel-Redirect", IgnoreHeaders::REDIRECT),
        ("X-Accel-Expires", 1 << 1),
        ("X-Accel-Limit-Rate", IgnoreHeaders::LIMIT_RATE),
        ("X-Accel-Buffering", IgnoreHeaders::BUFFERING),
        ("X-Accel-Charset", IgnoreHeaders::CHARSET),
        ("Expires", 1 << 5),
        ("Cache-Control", 1 << 6),
        ("Set-Cookie", 1 << 7),
        ("Vary", 1 << 8),
    ];
}

/// `bind address [transparent]` or `bind off`.
#[derive(Clone)]
pub struct Bind {
    /// The address; none is `off`.
    pub address: Option<Template>,
    /// The address need not be ours.
    pub transparent: bool,
}

impl Value for Bind {
    fn parse(node: &Node, services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        if word.text == "off" {
            return Ok(Bind { address: None, transparent: false });
        }
        let address = Template::parse(node, services)?;
        if let Some(text) = address.is_constant()
            && local_address(text).is_none()
        {
            return Err(Problem::new(format!("invalid address \"{}\"", word.text)).on(word));
        }
        let transparent = match node.args.get(1) {
            None => false,
            Some(word) if word.text == "transparent" => true,
            Some(word) => return Err(Problem::new(format!("invalid parameter \"{}\"", word.text)).on(word)),
        };
        Ok(Bind { address: Some(address), transparent })
    }
}

/// An address to connect from, with or without a port.
pub fn local_address(text: &[u8]) -> Option<std::net::SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    text.parse().ok().or_else(|| bare.parse().ok().map(|ip| std::net::SocketAddr::new(ip, 0)))
}

impl Settings {
    /// How much of a response is held in memory for a client that does not keep up, bytes.
    pub fn held_bytes_max(&self) -> usize {
        self.buffer_size.0 + self.buffers.count.saturating_mul(self.buffers.size_bytes)
    }

    /// How much may go to a temporary file, bytes.
    pub fn file_bytes_max(&self) -> u64 {
        self.max_temp_file_size.map_or(1 << 30, |size| size.0 as u64)
    }

    /// Socket options, but for the address to bind.
    pub fn connect_options(&self) -> ConnectOptions {
        ConnectOptions {
            bind: None,
            transparent: false,
            probes: None,
            user_timeout: None,
            keepalive: self.socket_keepalive.0,
            nodelay: true,
            receive_buffer_bytes: Some(self.socket_rcvbuf.0).filter(|bytes| *bytes > 0),
            send_buffer_bytes: Some(self.socket_sndbuf.0).filter(|bytes| *bytes > 0),
        }
    }

    /// nginx's checks of the buffer sizes against each other.
    ///
    /// # Errors
    /// As nginx, with the family's prefix.
    pub fn check(&self, prefix: &str) -> Result<(), Problem> {
        let one = self.buffer_size.0.max(self.buffers.size_bytes);
        if self.buffers.count < 2 {
            return Err(Problem::new(format!("there must be at least 2 \"{prefix}buffers\"")));
        }
        let busy = self.busy_buffers_size.map_or(2 * one, |size| size.0);
        let largest = || {
            format!("the maximum of the value of \"{prefix}buffer_size\" and one of the \"{prefix}buffers\"")
        };
        if busy < one {
            return Err(Problem::new(format!(
                "\"{prefix}busy_buffers_size\" must be equal to or greater than {}",
                largest()
            )));
        }
        if busy > (self.buffers.count - 1).saturating_mul(self.buffers.size_bytes) {
            return Err(Problem::new(format!(
                "\"{prefix}busy_buffers_size\" must be less than the size of all \"{prefix}buffers\" minus one buffer"
            )));
        }
        if self.temp_file_write_size.is_some_and(|size| size.0 < one) {
            return Err(Problem::new(format!(
                "\"{prefix}temp_file_write_size\" must be equal to or greater than {}",
                largest()
            )));
        }
        if self.max_temp_file_size.is_some_and(|size| size.0 != 0 && size.0 < one) {
            return Err(Problem::new(format!(
                "\"{prefix}max_temp_file_size\" must be equal to zero to disable temporary files usage or must be equal to or greater than {}",
                largest()
            )));
        }
        Ok(())
    }
}

/// The rows, without the prefix.
pub static ROWS: &[Directive] = &[
    Directive {
        name: "buffering",
        default: "on",
        set: field!(Settings.buffering),
        doc: "Whether responses are taken off the upstream as fast as they come.",
    },
    Directive {
        name: "request_buffering",
        default: "on",
        set: field!(Settings.request_buffering),
        doc: "Whether a request body is read whole before the upstream is called.",
    },
    Directive {
        name: "ignore_client_abort",
        default: "off",
        set: field!(Settings.ignore_client_abort),
        doc: "Whether the call goes on when the client is gone.",
    },
    Directive {
        name: "bind",
        default: "",
        set: field!(Settings.bind),
        doc: "The local address to connect from.",
    },
    Directive {
        name: "socket_keepalive",
        default: "off",
        set: field!(Settings.socket_keepalive),
        doc: "TCP keep-alive towards the upstream.",
    },
    Directive {
        name: "socket_sndbuf",
        default: "0",
        set: field!(Settings.socket_sndbuf),
        doc: "The send buffer of the socket.",
    },
    Directive {
        name: "socket_rcvbuf",
        default: "0",
        set: field!(Settings.socket_rcvbuf),
        doc: "The receive buffer of the socket.",
    },
    Directive {
        name: "connect_timeout",
        default: "60s",
        set: field!(Settings.connect_timeout),
        doc: "How long connecting may take.",
    },
    Directive {
        name: "send_timeout",
        default: "60s",
        set: field!(Settings.send_timeout),
        doc: "How long the upstream may pause while it reads.",
    },
    Directive {
        name: "read_timeout",
        default: "60s",
        set: field!(Settings.read_timeout),
        doc: "How long the upstream may pause while it answers.",
    },
    Directive { name: "send_lowat", default: "", set: &Idle, doc: "The kernel decides." },
    Directive {
        name: "intercept_errors",
        default: "off",
        set: field!(Settings.intercept_errors),
        doc: "Whether error_page shows the upstream's errors.",
    },
    Directive {
        name: "buffer_size",
        default: "4k",
        set: field!(Settings.buffer_size),
        doc: "The largest response head.",
    },
    Directive {
        name: "buffers",
        default: "8 4k",
        set: field!(Settings.buffers),
        doc: "How much of a response is held in memory.",
    },
    Directive {
        name: "busy_buffers_size",
        default: "",
        set: field!(Settings.busy_buffers_size),
        doc: "How much of it may be on its way to the client.",
    },
    Directive {
        name: "max_temp_file_size",
        default: "",
        set: field!(Settings.max_temp_file_size),
        doc: "How much of a response may go to a temporary file.",
    },
    Directive {
        name: "temp_file_write_size",
        default: "",
        set: field!(Settings.temp_file_write_size),
        doc: "How much is written to it at once.",
    },
    Directive {
        name: "temp_path",
        default: "",
        set: field!(Settings.temp_path),
        doc: "The folder for responses that memory does not hold.",
    },
    Directive {
        name: "next_upstream",
        default: "error timeout",
        set: field!(Settings.next_upstream),
        doc: "When another peer is asked.",
    },
    Directive {
        name: "next_upstream_tries",
        default: "0",
        set: field!(Settings.next_upstream_tries),
        doc: "How many peers are asked.",
    },
    Directive {
        name: "next_upstream_timeout",
        default: "0",
        set: field!(Settings.next_upstream_timeout),
        doc: "For how long other peers are asked.",
    },
    Directive {
        name: "pass_header",
        default: "",
        set: list!(Settings.pass_header),
        doc: "A header that is passed on though it usually is not.",
    },
    Directive {
        name: "hide_header",
        default: "",
        set: list!(Settings.hide_header),
        doc: "A header that is not passed on.",
    },
    Directive {
        name: "ignore_headers",
        default: "",
        set: field!(Settings.ignore_headers),
        doc: "Headers of the response without effect here.",
    },
    Directive {
        name: "limit_rate",
        default: "",
        set: field!(Settings.limit_rate),
        doc: "Bytes a second read from the upstream.",
    },
    Directive {
        name: "force_ranges",
        default: "off",
        set: field!(Settings.force_ranges),
        doc: "Whether ranges are served whatever the upstream says.",
    },
    Directive {
        name: "pass_trailers",
        default: "off",
        set: field!(Settings.pass_trailers),
        doc: "Whether trailers of the response are passed on.",
    },
    Directive {
        name: "pass_request_headers",
        default: "on",
        set: field!(Settings.pass_request_headers),
        doc: "Whether the client's headers are passed on.",
    },
    Directive {
        name: "pass_request_body",
        default: "on",
        set: field!(Settings.pass_request_body),
        doc: "Whether the client's body is passed on.",
    },
];

/// The family under a prefix such as `proxy_`.
pub const fn family(prefix: &'static str) -> Family {
    Family { prefix, rows: ROWS, cells: cells::<Settings> }
}
