//! Settings of a server: what holds before its location is known.

use super::listen::ListenLine;
use super::values::PrereadSize;
use crate::module::{Build, CompiledRegex, Declare, Install, Module, cells, finish_nothing};
use bstr::{BString, ByteSlice};
use conf::{Node, Span, Word};
use schema::value::{argument, invalid_value, number, size};
use schema::{
    Directive, Flag, Inherit, Milliseconds, Nested, Number, Places, Problem, Services, Size, Value, field,
};

/// Settings of a server.
#[derive(Default, Clone)]
pub struct ServerCore {
    /// Addresses to listen on.
    pub listen: Vec<ListenLine>,
    /// Names.
    pub server_name: Vec<ServerName>,
    /// How long a head may take.
    pub client_header_timeout: Inherit<Milliseconds>,
    /// How much of a head is read before large buffers are taken.
    pub client_header_buffer_size: Inherit<Size>,
    /// How large a head may be: one line fits one buffer.
    pub large_client_header_buffers: Inherit<HeaderBuffers>,
    /// How many header lines a head may have.
    pub max_headers: Inherit<Number>,
    /// Drop header lines with names that are not tokens.
    pub ignore_invalid_headers: Inherit<Flag>,
    /// Take `_` in header names.
    pub underscores_in_headers: Inherit<Flag>,
    /// Make one slash of several.
    pub merge_slashes: Inherit<Flag>,
    /// Speak HTTP/2.
    pub http2: Inherit<Flag>,
    /// How many streams a connection of HTTP/2 may have at a time.
    pub http2_max_concurrent_streams: Inherit<Number>,
    /// How much of a body a stream may send before it is read.
    pub http2_body_preread_size: Inherit<PrereadSize>,
}

/// `large_client_header_buffers number size`.
#[derive(Clone, Copy, Debug)]
pub struct HeaderBuffers {
    /// How many buffers.
    pub count: usize,
    /// Bytes in one; no line may be longer.
    pub size_bytes: usize,
}

impl Value for HeaderBuffers {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let (count, bytes) = (argument(node, 0)?, argument(node, 1)?);
        Ok(HeaderBuffers {
            count: number(&count.text).filter(|n| *n > 0).ok_or_else(|| invalid_value(node, count))?,
            size_bytes: size(&bytes.text).filter(|n| *n > 0).ok_or_else(|| invalid_value(node, bytes))?,
        })
    }
}

/// One word of `server_name`.
#[derive(Clone)]
pub struct ServerName {
    /// As written, lower-cased unless a regex.
    pub text: BString,
    /// Compiled, when it starts with `~`.
    pub regex: Option<CompiledRegex>,
    /// Where it stands.
    pub span: Span,
}

fn server_names(cells: &mut ServerCore, node: &Node, build: &mut Build) -> Result<(), Problem> {
    cells.server_name.reserve_exact(node.args.len());
    for word in &node.args {
        let name = server_name(word, node, build)?;
        cells.server_name.push(name);
    }
    Ok(())
}

fn server_name(word: &Word, node: &Node, build: &mut Build) -> Result<ServerName, Problem> {
    let text = &word.text;
    if (text.starts_with(b"*") && (text.len() < 3 || text[1] != b'.')) || text == "." {
        return Err(Problem::new(format!("server name \"{text}\" is invalid")).on(word));
    }
    if text.contains(&b'/') {
        build.warn(Problem::new(format!("server name \"{text}\" has suspicious symbols")).on(word), node);
    }
    if text.eq_ignore_ascii_case(b"$hostname") {
        return Ok(ServerName {
            text: build.hostname.to_ascii_lowercase().into(),
            regex: None,
            span: word.span,
        });
    }
    let Some(pattern) = text.strip_prefix(b"~") else {
        return Ok(ServerName { text: text.to_ascii_lowercase().into(), regex: None, span: word.span });
    };
    if pattern.is_empty() {
        return Err(Problem::new(format!("empty regex in server name \"{text}\"")).on(word));
    }
    // Names are compared in lower case; a pattern with capitals is meant without regard to case.
    let caseless = pattern.iter().any(u8::is_ascii_uppercase);
    let regex = build.regex(pattern.as_bstr(), caseless).map_err(|problem| problem.on(word))?;
    Ok(ServerName { text: text.clone(), regex: Some(regex), span: word.span })
}

fn listen(cells: &mut ServerCore, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let line = ListenLine::parse(node, build)?;
    // Nearly always the only one, and not a small one.
    cells.listen.reserve_exact(1);
    cells.listen.push(line);
    Ok(())
}

const fn obsolete(name: &'static str, set: &'static Declare<ServerCore>) -> Directive {
    Directive { name, default: "", set, doc: "Obsolete: accepted with a warning, without effect." }
}

type Obsolete = Result<(), Problem>;

fn replaced_by_keepalive_requests(_: &mut ServerCore, node: &Node, build: &mut Build) -> Obsolete {
    replaced(node, build, "keepalive_requests")
}

fn replaced_by_keepalive_timeout(_: &mut ServerCore, node: &Node, build: &mut Build) -> Obsolete {
    replaced(node, build, "keepalive_timeout")
}

fn replaced_by_header_timeout(_: &mut ServerCore, node: &Node, build: &mut Build) -> Obsolete {
    replaced(node, build, "client_header_timeout")
}

fn replaced_by_header_buffers(_: &mut ServerCore, node: &Node, build: &mut Build) -> Obsolete {
    replaced(node, build, "large_client_header_buffers")
}

fn replaced(node: &Node, build: &mut Build, by: &str) -> Obsolete {
    let name = &node.name.text;
    let text = format!("the \"{name}\" directive is obsolete, use the \"{by}\" directive instead");
    build.warn(Problem::new(text), node);
    Ok(())
}

fn gone(_: &mut ServerCore, node: &Node, build: &mut Build) -> Obsolete {
    build.warn(Problem::new(format!("the \"{}\" directive is obsolete, ignored", node.name.text)), node);
    Ok(())
}

pub(super) static MODULE: Module = Module {
    name: "core",
    directives: &[
        Directive {
            name: "server",
            default: "",
            set: &Nested(Places::SERVER),
            doc: "Opens the block of a virtual server.",
        },
        Directive {
            name: "listen",
            default: "",
            set: &Declare::new(listen),
            doc: "An address to listen on, with socket options.",
        },
        Directive {
            name: "server_name",
            default: "",
            // Locations ask for the names of their server (`valid_referers server_names`).
            set: &Declare {
                inherit: Some(|outer: &ServerCore, inner: &mut ServerCore| {
                    if inner.server_name.is_empty() {
                        inner.server_name.clone_from(&outer.server_name);
                    }
                }),
                ..Declare::new(server_names)
            },
            doc: "Names of the server: exact, with a wildcard, or a regular expression.",
        },
        Directive {
            name: "client_header_timeout",
            default: "60s",
            set: field!(ServerCore.client_header_timeout),
            doc: "How long a client may take to send a head.",
        },
        Directive {
            name: "client_header_buffer_size",
            default: "1k",
            set: field!(ServerCore.client_header_buffer_size),
            doc: "How much of a head is read before large buffers are taken.",
        },
        Directive {
            name: "large_client_header_buffers",
            default: "4 8k",
            set: field!(ServerCore.large_client_header_buffers),
            doc: "How large a head and its lines may be.",
        },
        Directive {
            name: "max_headers",
            default: "1000",
            set: field!(ServerCore.max_headers),
            doc: "How many header lines a head may have.",
        },
        Directive {
            name: "ignore_invalid_headers",
            default: "on",
            set: field!(ServerCore.ignore_invalid_headers),
            doc: "Whether header lines with invalid names are dropped.",
        },
        Directive {
            name: "underscores_in_headers",
            default: "off",
            set: field!(ServerCore.underscores_in_headers),
            doc: "Whether header names may hold underscores.",
        },
        Directive {
            name: "merge_slashes",
            default: "on",
            set: field!(ServerCore.merge_slashes),
            doc: "Whether several slashes in a path become one.",
        },
        Directive {
            name: "http2",
            default: "off",
            set: field!(ServerCore.http2),
            doc: "Whether the server speaks HTTP/2.",
        },
        Directive {
            name: "http2_max_concurrent_streams",
            default: "128",
            set: field!(ServerCore.http2_max_concurrent_streams),
            doc: "How many streams a connection of HTTP/2 may have at a time.",
        },
        Directive {
            name: "http2_body_preread_size",
            default: "64k",
            set: field!(ServerCore.http2_body_preread_size),
            doc: "How much of a body a stream of HTTP/2 may send before it is read.",
        },
        obsolete("http2_max_requests", &Declare::new(replaced_by_keepalive_requests)),
        obsolete("http2_idle_timeout", &Declare::new(replaced_by_keepalive_timeout)),
        obsolete("http2_recv_timeout", &Declare::new(replaced_by_header_timeout)),
        obsolete("http2_max_field_size", &Declare::new(replaced_by_header_buffers)),
        obsolete("http2_max_header_size", &Declare::new(replaced_by_header_buffers)),
        obsolete("http2_max_concurrent_pushes", &Declare::new(gone)),
        obsolete("http2_push_preload", &Declare::new(gone)),
        obsolete("http2_push", &Declare::new(gone)),
    ],
    families: &[],
    variables: &[],
    cells: cells::<ServerCore>,
    install: Install::Never,
    finish: finish_nothing,
};
