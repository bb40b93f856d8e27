//! Directives of the file's top level and of `events {}`: what the program itself needs.

use super::worker::{Affinity, Priority};
use crate::module::{Declare, Install, Module, cells, finish_nothing};
use bstr::BString;
use conf::Node;
use schema::value::{argument, number};
use schema::{
    Directive, Flag, Idle, IdleOwn, Inherit, Milliseconds, Number, Places, Problem, Services, Value, field,
    list,
};

/// Settings of the process.
#[derive(Default, Clone)]
pub struct MainCore {
    /// Go into the background.
    pub daemon: Inherit<Flag>,
    /// Keep a master process above the worker.
    pub master_process: Inherit<Flag>,
    /// Where the master's process id is written.
    pub pid: Inherit<BString>,
    /// The worker's user and group.
    pub user: Inherit<Option<User>>,
    /// How many worker threads.
    pub worker_processes: Inherit<WorkerProcesses>,
    /// The limit of open files.
    pub worker_rlimit_nofile: Inherit<Option<Number>>,
    /// The limit of a core file's size, bytes.
    pub worker_rlimit_core: Inherit<Option<schema::Offset>>,
    /// The worker's nice value.
    pub worker_priority: Inherit<Option<Priority>>,
    /// On which processors its threads run.
    pub worker_cpu_affinity: Inherit<Option<Affinity>>,
    /// How long old connections may last after a stop was asked for.
    pub worker_shutdown_timeout: Inherit<Option<Milliseconds>>,
    /// The folder the worker works in.
    pub working_directory: Inherit<Option<BString>>,
    /// Environment variables kept for the worker: `NAME` or `NAME=value`.
    pub env: Inherit<Vec<BString>>,
    /// Connections one worker thread may hold.
    pub worker_connections: Inherit<WorkerConnections>,
    /// Was there an `events` block?
    pub events_seen: bool,
    /// Was there an `http` block?
    pub http_seen: bool,
}

/// `user name [group]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub name: BString,
    /// The group; the user's name when not given.
    pub group: BString,
}

impl Value for User {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let name = argument(node, 0)?.text.clone();
        let group = node.args.get(1).map_or_else(|| name.clone(), |word| word.text.clone());
        Ok(User { name, group })
    }
}

/// `worker_processes N | auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerProcesses {
    /// As many as there are processors.
    Auto,
    /// This many.
    Count(usize),
}

impl Value for WorkerProcesses {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        if word.text == "auto" {
            return Ok(WorkerProcesses::Auto);
        }
        let count =
            number(&word.text).ok_or_else(|| Problem::directive(&node.name, "invalid value").on(word))?;
        Ok(WorkerProcesses::Count(count))
    }
}

/// `worker_connections N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerConnections(pub usize);

impl Value for WorkerConnections {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        let invalid = || Problem::new(format!("invalid number \"{}\"", word.text)).on(word);
        number(&word.text).map(WorkerConnections).ok_or_else(invalid)
    }
}

fn events(main: &mut MainCore, node: &Node, _build: &mut crate::Build) -> Result<(), Problem> {
    if std::mem::replace(&mut main.events_seen, true) {
        return Err(Problem::directive(&node.name, "is duplicate"));
    }
    Ok(())
}

fn http(main: &mut MainCore, node: &Node, _build: &mut crate::Build) -> Result<(), Problem> {
    if std::mem::replace(&mut main.http_seen, true) {
        return Err(Problem::directive(&node.name, "is duplicate"));
    }
    Ok(())
}

/// Directives whose subject does not exist here: buckets of hash tables, nginx's event machinery, memory pools.
const fn idle(name: &'static str, doc: &'static str) -> Directive {
    Directive { name, default: "", set: &Idle, doc }
}

/// As [`idle`], for values with rules of their own.
const fn idle_own(name: &'static str, set: &'static IdleOwn, doc: &'static str) -> Directive {
    Directive { name, default: "", set, doc }
}

const fn once(check: fn(&Node) -> Result<(), Problem>) -> IdleOwn {
    IdleOwn { single: true, check }
}

const fn often(check: fn(&Node) -> Result<(), Problem>) -> IdleOwn {
    IdleOwn { single: false, check }
}

pub(super) static MODULE: Module = Module {
    name: "core",
    directives: &[
        Directive {
            name: "events",
            default: "",
            set: &Declare { nested: Some(|_| Places::EVENTS), ..Declare::new(events) },
            doc: "Opens the block of connection settings.",
        },
        Directive {
            name: "http",
            default: "",
            set: &Declare { nested: Some(|_| Places::HTTP), ..Declare::new(http) },
            doc: "Opens the block of the web server.",
        },
        Directive {
            name: "daemon",
            default: "on",
            set: field!(MainCore.daemon),
            doc: "Whether to go into the background.",
        },
        Directive {
            name: "master_process",
            default: "on",
            set: field!(MainCore.master_process),
            doc: "Whether a master process watches over the worker.",
        },
        Directive {
            name: "pid",
            default: "",
            set: field!(MainCore.pid),
            doc: "The file with the master's process id.",
        },
        Directive {
            name: "user",
            default: "",
            set: field!(MainCore.user),
            doc: "The user and group the worker runs as.",
        },
        Directive {
            name: "worker_processes",
            default: "1",
            set: field!(MainCore.worker_processes),
            doc: "How many threads serve; auto takes one for each processor.",
        },
        Directive {
            name: "worker_rlimit_nofile",
            default: "",
            set: field!(MainCore.worker_rlimit_nofile),
            doc: "The limit of open files of the worker.",
        },
        Directive {
            name: "worker_rlimit_core",
            default: "",
            set: field!(MainCore.worker_rlimit_core),
            doc: "The limit of the worker's core file, in bytes.",
        },
        Directive {
            name: "worker_priority",
            default: "",
            set: field!(MainCore.worker_priority),
            doc: "The worker's nice value: below 0 it goes before others, above 0 behind them.",
        },
        Directive {
            name: "worker_cpu_affinity",
            default: "",
            set: field!(MainCore.worker_cpu_affinity),
            doc: "The processors of each thread, as masks, or auto for one a thread.",
        },
        Directive {
            name: "worker_shutdown_timeout",
            default: "",
            set: field!(MainCore.worker_shutdown_timeout),
            doc: "How long connections may last after a stop was asked for.",
        },
        Directive {
            name: "working_directory",
            default: "",
            set: field!(MainCore.working_directory),
            doc: "The folder the worker works in.",
        },
        Directive {
            name: "env",
            default: "",
            set: list!(MainCore.env),
            doc: "An environment variable the worker keeps or gets.",
        },
        Directive {
            name: "worker_connections",
            default: "512",
            set: field!(MainCore.worker_connections),
            doc: "How many connections one worker thread may hold.",
        },
        idle("ssl_object_cache_inheritable", "A reload reads all certificates anew."),
        idle("timer_resolution", "The clock is read once a turn of the event loop."),
        idle("lock_file", "There is no accept mutex."),
        idle_own("debug_points", &once(super::idle::debug_points), "There are no debug points."),
        idle("pcre_jit", "Regular expressions are compiled by another engine."),
        idle_own("use", &once(super::idle::event_method), "The event method is the platform's best."),
        idle("multi_accept", "Accepting is balanced over threads."),
        idle("accept_mutex", "Accepting is balanced over threads."),
        idle("accept_mutex_delay", "Accepting is balanced over threads."),
        idle("epoll_events", "A turn takes 512 events, nginx's default."),
        idle("quic_bpf", "Packets find their thread without a filter in the kernel."),
        idle("worker_aio_requests", "Files are read without asynchronous I/O."),
        idle_own(
            "debug_connection",
            &often(super::idle::debug_connection),
            "Debug logging is not by address.",
        ),
        idle_own("thread_pool", &often(super::idle::thread_pool), "Files are read without a thread pool."),
        idle_own(
            "http2_recv_buffer_size",
            &once(super::idle::receive_buffer_size),
            "Each connection has a buffer of its own.",
        ),
        idle_own("http2_pool_size", &once(super::idle::pool_size), "There are no memory pools."),
        idle_own("http2_streams_index_size", &once(super::idle::index_size), "Streams need no index."),
        idle("server_names_hash_max_size", "Tables size themselves."),
        idle("server_names_hash_bucket_size", "Tables size themselves."),
        idle("variables_hash_max_size", "Tables size themselves."),
        idle("variables_hash_bucket_size", "Tables size themselves."),
        idle("types_hash_max_size", "Tables size themselves."),
        idle("types_hash_bucket_size", "Tables size themselves."),
        idle_own("connection_pool_size", &once(super::idle::pool_size), "There are no memory pools."),
        idle_own("request_pool_size", &once(super::idle::pool_size), "There are no memory pools."),
        idle("output_buffers", "Files are sent without buffers of that kind."),
        idle("postpone_output", "Small outputs are joined by themselves."),
        idle_own("aio", &once(super::idle::aio), "Files are read without asynchronous I/O."),
        idle("aio_write", "Files are written without asynchronous I/O."),
        idle_own("directio", &once(super::idle::directio), "Files are read through the page cache."),
        idle("directio_alignment", "Files are read through the page cache."),
        idle("read_ahead", "The kernel reads ahead."),
        idle("send_lowat", "The kernel decides."),
        idle("subrequest_output_buffer_size", "Subrequests need no buffer of that kind."),
        idle("client_body_in_single_buffer", "A body in memory is in one buffer."),
        idle("client_body_early_read", "Bodies are read when they are needed."),
    ],
    families: &[],
    variables: &[],
    cells: cells::<MainCore>,
    install: Install::Never,
    finish: finish_nothing,
};
