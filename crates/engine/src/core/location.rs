//! Settings of a location: most of nginx's core module.

use super::error_page::{self, ErrorPage};
use super::matcher::Matcher;
use super::types::Types;
use super::values::*;
use crate::log::ErrorLog;
use crate::module::{Build, Declare, Install, Module, cells, finish_nothing};
use crate::{own, variables};
use bstr::{BString, ByteSlice};
use conf::Node;
use schema::{
    Bitmask, Directive, Flag, Inherit, Milliseconds, Number, Offset, Places, Problem, Size, SizeTemplate,
    Value, field,
};
use std::sync::Arc;
use template::Template;

/// Settings of a location, and of the server and `http` blocks around it.
#[derive(Default, Clone)]
pub struct Core {
    /// Types by extension.
    pub types: Inherit<Option<Types>>,
    /// The type of files without a known extension.
    pub default_type: Inherit<BString>,
    /// Pages instead of statuses.
    pub error_page: Inherit<Arc<Vec<ErrorPage>>>,
    /// Where messages about requests go.
    pub error_log: Inherit<Vec<ErrorLog>>,
    /// What is requested once the answer is out; empty: nothing.
    pub post_action: Inherit<BString>,
    /// Log files that are not there.
    pub log_not_found: Inherit<Flag>,
    /// Log subrequests to the access log.
    pub log_subrequest: Inherit<Flag>,
    /// Only for internal redirects.
    pub internal: Inherit<Flag>,
    /// How verdicts of the access phase combine.
    pub satisfy: Inherit<Satisfy>,
    /// Delay of refusals.
    pub auth_delay: Inherit<Milliseconds>,
    /// The largest request body; 0 is any.
    pub client_max_body_size: Inherit<Offset>,
    /// How much of a body is kept in memory.
    pub client_body_buffer_size: Inherit<Size>,
    /// How long a pause in a body may be.
    pub client_body_timeout: Inherit<Milliseconds>,
    /// Where bodies too large for memory go.
    pub client_body_temp_path: Inherit<TempPath>,
    /// Keep every body in a file.
    pub client_body_in_file_only: Inherit<BodyInFile>,
    /// How long a pause of a client that reads may be.
    pub send_timeout: Inherit<Milliseconds>,
    /// How long an idle connection is kept, and what the client is told.
    pub keepalive_timeout: Inherit<KeepaliveTimeout>,
    /// How long an idle connection is kept at least when the server stops.
    pub keepalive_min_timeout: Inherit<Milliseconds>,
    /// How many requests one connection may send.
    pub keepalive_requests: Inherit<Number>,
    /// How long one connection may be used.
    pub keepalive_time: Inherit<Milliseconds>,
    /// Browsers without keep-alive.
    pub keepalive_disable: Inherit<Bitmask<KeepaliveDisable>>,
    /// Read what a client still sends before closing.
    pub lingering_close: Inherit<LingeringClose>,
    /// For how long at most.
    pub lingering_time: Inherit<Milliseconds>,
    /// How long a pause at most.
    pub lingering_timeout: Inherit<Milliseconds>,
    /// Close timed-out connections with a reset.
    pub reset_timedout_connection: Inherit<Flag>,
    /// Bytes a second to the client.
    pub limit_rate: Inherit<Option<SizeTemplate>>,
    /// Bytes before the limit starts.
    pub limit_rate_after: Inherit<Option<SizeTemplate>>,
    /// Send files by the kernel.
    pub sendfile: Inherit<Flag>,
    /// Bytes in one such call.
    pub sendfile_max_chunk: Inherit<Size>,
    /// Bytes in one frame of an HTTP/2 body.
    pub http2_chunk_size: Inherit<ChunkSize>,
    /// Fill packets while sending a file.
    pub tcp_nopush: Inherit<Flag>,
    /// Send small packets at once.
    pub tcp_nodelay: Inherit<Flag>,
    /// Redirects carry scheme and host.
    pub absolute_redirect: Inherit<Flag>,
    /// Redirects carry the server's first name.
    pub server_name_in_redirect: Inherit<Flag>,
    /// Redirects carry the port.
    pub port_in_redirect: Inherit<Flag>,
    /// Pad error pages for MSIE and Chrome.
    pub msie_padding: Inherit<Flag>,
    /// Refresh instead of redirects for MSIE.
    pub msie_refresh: Inherit<Flag>,
    /// `error_page` inside `error_page`.
    pub recursive_error_pages: Inherit<Flag>,
    /// Chunked transfer coding.
    pub chunked_transfer_encoding: Inherit<Flag>,
    /// `ETag` of files.
    pub etag: Inherit<Flag>,
    /// What `Server` says.
    pub server_tokens: Inherit<ServerTokens>,
    /// `If-Modified-Since`.
    pub if_modified_since: Inherit<IfModifiedSince>,
    /// How many ranges a request may ask for.
    pub max_ranges: Inherit<Option<Number>>,
    /// Symbolic links.
    pub disable_symlinks: Inherit<DisableSymlinks>,
    /// Open files kept open.
    pub open_file_cache: Inherit<OpenFileCache>,
    /// How long before they are looked at again.
    pub open_file_cache_valid: Inherit<schema::Seconds>,
    /// How often a file must be used.
    pub open_file_cache_min_uses: Inherit<Number>,
    /// Errors are kept too.
    pub open_file_cache_errors: Inherit<Flag>,
    /// Name servers.
    pub resolver: Inherit<Option<ResolverLine>>,
    /// How long a name may take.
    pub resolver_timeout: Inherit<Milliseconds>,
    /// Pass 103 on when any is true.
    pub early_hints: Inherit<Vec<Template>>,
}

fn location(_none: &mut (), node: &Node, build: &mut Build) -> Result<(), Problem> {
    // The matcher belongs to the block this directive opens; the compiler asks for it by the block's place.
    let matcher = Matcher::parse(&node.args, build)?;
    let outer = build.matcher_around();
    if let Some(Err(problem)) = outer.map(|outer| may_be_inside(&matcher, outer)) {
        schema::Services::refuse(build, problem, node);
    }
    build.add_matcher(node.end, matcher);
    Ok(())
}

/// nginx's rules for locations inside locations.
fn may_be_inside(inner: &Matcher, outer: &Matcher) -> Result<(), Problem> {
    let (name, outer_name) = (inner.name(), outer.name());
    let message = match (inner, outer) {
        (_, Matcher::Exact(_)) => {
            format!("location \"{name}\" cannot be inside the exact location \"{outer_name}\"")
        }
        (_, Matcher::Named(_)) => {
            format!("location \"{name}\" cannot be inside the named location \"{outer_name}\"")
        }
        (Matcher::Named(_), _) => format!("named location \"{name}\" can be on the server level only"),
        (Matcher::Regex { .. }, _) => return Ok(()),
        _ if name.starts_with(outer_name.as_bytes()) => return Ok(()),
        _ => format!("location \"{name}\" is outside location \"{outer_name}\""),
    };
    Err(Problem::new(message))
}

fn limit_except(_none: &mut (), node: &Node, _build: &mut Build) -> Result<(), Problem> {
    for word in &node.args {
        if http::Method::limit_bit(&word.text).is_none() {
            return Err(Problem::new(format!("invalid method \"{}\"", word.text)).on(word));
        }
    }
    Ok(())
}

fn internal(core: &mut Core, node: &Node, _build: &mut Build) -> Result<(), Problem> {
    if core.internal.is_set() {
        return Err(Problem::directive(&node.name, "is duplicate"));
    }
    core.internal.put(Flag(true), Some(node.name.span));
    Ok(())
}

fn types(core: &mut Core, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let before = core.types.value().cloned().flatten();
    let made = Types::parse(node, before.as_ref(), build)?;
    core.types.put(Some(made), Some(node.name.span));
    Ok(())
}

fn error_page(core: &mut Core, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let pages = error_page::parse(node, build)?;
    Arc::make_mut(core.error_page.fill(node.name.span, Arc::default)).extend(pages);
    Ok(())
}

fn error_log(core: &mut Core, node: &Node, build: &mut Build) -> Result<(), Problem> {
    let log = ErrorLog::parse(node, build)?;
    core.error_log.fill(node.name.span, Vec::new).push(log);
    Ok(())
}

fn early_hints(core: &mut Core, node: &Node, build: &mut Build) -> Result<(), Problem> {
    if core.early_hints.is_set() {
        return Err(Problem::directive(&node.name, "is duplicate"));
    }
    core.early_hints.put(Templates::parse(node, build)?.0, Some(node.name.span));
    Ok(())
}

pub(super) static MODULE: Module = Module {
    name: "core",
    directives: &[
        Directive {
            name: "location",
            default: "",
            set: &Declare { nested: Some(|_| Places::LOCATION), ..Declare::new(location) },
            doc: "Opens the block for requests whose URI matches.",
        },
        Directive {
            name: "limit_except",
            default: "",
            set: &Declare { nested: Some(|_| Places::LIMIT_EXCEPT), ..Declare::new(limit_except) },
            doc: "Opens a block for all methods but those named.",
        },
        Directive {
            name: "types",
            default: "",
            set: &Declare::<Core> {
                read: types,
                nested: None,
                inherit: Some(|outer, inner| inner.types.inherit_from(&outer.types)),
                settle: Some(|core| {
                    if !core.types.is_set() {
                        core.types.put(Some(Types::built_in()), None);
                    }
                }),
            },
            doc: "MIME types by file name extension.",
        },
        Directive {
            name: "default_type",
            default: "text/plain",
            set: field!(Core.default_type),
            doc: "The MIME type of files with an unknown extension.",
        },
        Directive {
            name: "error_page",
            default: "",
            set: own!(Core, error_page, error_page),
            doc: "A page shown instead of a status.",
        },
        Directive {
            name: "post_action",
            default: "",
            set: field!(Core.post_action),
            doc: "A URI or named location to request once the answer is out, unseen by the client.",
        },
        Directive {
            name: "error_log",
            default: "",
            set: own!(Core, error_log, error_log),
            doc: "Where messages go, and from which level on.",
        },
        Directive {
            name: "log_not_found",
            default: "on",
            set: field!(Core.log_not_found),
            doc: "Whether files that are not there are logged.",
        },
        Directive {
            name: "log_subrequest",
            default: "off",
            set: field!(Core.log_subrequest),
            doc: "Whether subrequests are logged.",
        },
        Directive {
            name: "internal",
            default: "off",
            set: own!(Core, internal, internal),
            doc: "The location is only for internal redirects.",
        },
        Directive {
            name: "satisfy",
            default: "all",
            set: field!(Core.satisfy),
            doc: "Whether all access modules must agree or any.",
        },
        Directive {
            name: "auth_delay",
            default: "0",
            set: field!(Core.auth_delay),
            doc: "How long an unauthorized request is held.",
        },
        Directive {
            name: "client_max_body_size",
            default: "1m",
            set: field!(Core.client_max_body_size),
            doc: "The largest request body.",
        },
        Directive {
            name: "client_body_buffer_size",
            default: "16k",
            set: field!(Core.client_body_buffer_size),
            doc: "How much of a request body is kept in memory.",
        },
        Directive {
            name: "client_body_timeout",
            default: "60s",
            set: field!(Core.client_body_timeout),
            doc: "How long a pause in a request body may be.",
        },
        Directive {
            name: "client_body_temp_path",
            default: "client_body_temp",
            set: field!(Core.client_body_temp_path),
            doc: "The folder for request bodies too large for memory.",
        },
        Directive {
            name: "client_body_in_file_only",
            default: "off",
            set: field!(Core.client_body_in_file_only),
            doc: "Whether every request body goes to a file.",
        },
        Directive {
            name: "send_timeout",
            default: "60s",
            set: field!(Core.send_timeout),
            doc: "How long a client may pause while it reads.",
        },
        Directive {
            name: "keepalive_timeout",
            default: "75s",
            set: field!(Core.keepalive_timeout),
            doc: "How long an idle connection is kept.",
        },
        Directive {
            name: "keepalive_min_timeout",
            default: "0",
            set: field!(Core.keepalive_min_timeout),
            doc: "How long an idle connection is kept at least when the server stops.",
        },
        Directive {
            name: "keepalive_requests",
            default: "1000",
            set: field!(Core.keepalive_requests),
            doc: "How many requests a connection may send.",
        },
        Directive {
            name: "keepalive_time",
            default: "1h",
            set: field!(Core.keepalive_time),
            doc: "How long a connection may be used.",
        },
        Directive {
            name: "keepalive_disable",
            default: "msie6",
            set: field!(Core.keepalive_disable),
            doc: "Browsers whose connections are not kept.",
        },
        Directive {
            name: "lingering_close",
            default: "on",
            set: field!(Core.lingering_close),
            doc: "Whether to read on before closing.",
        },
        Directive {
            name: "lingering_time",
            default: "30s",
            set: field!(Core.lingering_time),
            doc: "How long to read on before closing.",
        },
        Directive {
            name: "lingering_timeout",
            default: "5s",
            set: field!(Core.lingering_timeout),
            doc: "How long to wait for more before closing.",
        },
        Directive {
            name: "reset_timedout_connection",
            default: "off",
            set: field!(Core.reset_timedout_connection),
            doc: "Whether timed-out connections are reset.",
        },
        Directive {
            name: "limit_rate",
            default: "",
            set: field!(Core.limit_rate),
            doc: "Bytes a second to one client.",
        },
        Directive {
            name: "limit_rate_after",
            default: "",
            set: field!(Core.limit_rate_after),
            doc: "Bytes sent before the rate is limited.",
        },
        Directive {
            name: "sendfile",
            default: "off",
            set: field!(Core.sendfile),
            doc: "Whether the kernel sends files.",
        },
        Directive {
            name: "sendfile_max_chunk",
            default: "2m",
            set: field!(Core.sendfile_max_chunk),
            doc: "How much the kernel sends in one call.",
        },
        Directive {
            name: "http2_chunk_size",
            default: "8k",
            set: field!(Core.http2_chunk_size),
            doc: "How much of a body one frame of HTTP/2 carries.",
        },
        Directive {
            name: "tcp_nopush",
            default: "off",
            set: field!(Core.tcp_nopush),
            doc: "Whether packets are filled while a file is sent.",
        },
        Directive {
            name: "tcp_nodelay",
            default: "on",
            set: field!(Core.tcp_nodelay),
            doc: "Whether small packets are sent at once.",
        },
        Directive {
            name: "absolute_redirect",
            default: "on",
            set: field!(Core.absolute_redirect),
            doc: "Whether redirects carry scheme and host.",
        },
        Directive {
            name: "server_name_in_redirect",
            default: "off",
            set: field!(Core.server_name_in_redirect),
            doc: "Whether redirects carry the server's name.",
        },
        Directive {
            name: "port_in_redirect",
            default: "on",
            set: field!(Core.port_in_redirect),
            doc: "Whether redirects carry the port.",
        },
        Directive {
            name: "msie_padding",
            default: "on",
            set: field!(Core.msie_padding),
            doc: "Whether error pages are padded for old browsers.",
        },
        Directive {
            name: "msie_refresh",
            default: "off",
            set: field!(Core.msie_refresh),
            doc: "Whether old browsers get a refresh instead of a redirect.",
        },
        Directive {
            name: "recursive_error_pages",
            default: "off",
            set: field!(Core.recursive_error_pages),
            doc: "Whether error pages may lead to error pages.",
        },
        Directive {
            name: "chunked_transfer_encoding",
            default: "on",
            set: field!(Core.chunked_transfer_encoding),
            doc: "Whether bodies of unknown length are chunked.",
        },
        Directive { name: "etag", default: "on", set: field!(Core.etag), doc: "Whether files get an ETag." },
        Directive {
            name: "server_tokens",
            default: "on",
            set: field!(Core.server_tokens),
            doc: "What the Server header says.",
        },
        Directive {
            name: "if_modified_since",
            default: "exact",
            set: field!(Core.if_modified_since),
            doc: "How If-Modified-Since is compared.",
        },
        Directive {
            name: "max_ranges",
            default: "",
            set: field!(Core.max_ranges),
            doc: "How many ranges a request may ask for.",
        },
        Directive {
            name: "disable_symlinks",
            default: "off",
            set: field!(Core.disable_symlinks),
            doc: "Which symbolic links are refused.",
        },
        Directive {
            name: "open_file_cache",
            default: "off",
            set: field!(Core.open_file_cache),
            doc: "How many files are kept open.",
        },
        Directive {
            name: "open_file_cache_valid",
            default: "60s",
            set: field!(Core.open_file_cache_valid),
            doc: "After how long a kept file is looked at again.",
        },
        Directive {
            name: "open_file_cache_min_uses",
            default: "1",
            set: field!(Core.open_file_cache_min_uses),
            doc: "How often a file must be used to be kept.",
        },
        Directive {
            name: "open_file_cache_errors",
            default: "off",
            set: field!(Core.open_file_cache_errors),
            doc: "Whether errors are kept too.",
        },
        Directive {
            name: "resolver",
            default: "",
            set: field!(Core.resolver),
            doc: "Name servers to ask instead of the system's.",
        },
        Directive {
            name: "resolver_timeout",
            default: "30s",
            set: field!(Core.resolver_timeout),
            doc: "How long a name may take to resolve.",
        },
        Directive {
            name: "early_hints",
            default: "",
            set: own!(Core, early_hints, early_hints),
            doc: "When responses with status 103 are passed on.",
        },
    ],
    families: &[],
    variables: variables::CORE,
    cells: cells::<Core>,
    install: Install::Never,
    finish: finish_nothing,
};
