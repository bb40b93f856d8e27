//! The workloads: what is served, what load is put on it, and which figure counts.

/// A figure that a run yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// CPU time of the server's processes, in microseconds per request.
    Cpu,
    /// The part of it that was not the kernel's.
    User,
    /// Requests per second.
    Rate,
    /// The median time of a request, in microseconds.
    Half,
    /// The 99th percentile of it.
    Tail,
    /// The longest time of a request, in microseconds.
    Longest,
    /// Proportional memory of the server's processes, in KiB.
    Memory,
    /// Requests that were answered.
    Requests,
    /// Requests that failed.
    Failed,
    /// Bytes per idle connection.
    Idle,
    /// Milliseconds from the signal to the first answer of the new configuration.
    Reload,
    /// Milliseconds from the start of the process to the first answer.
    Start,
    /// Connections of the fullest worker over their mean.
    Balance,
}

impl Workload {
    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if matches!(self.conf, Conf::File("tls")) { "https" } else { "http" }
    }

    /// Whether several servers are measured in turns: their load goes on without a pause, and what counts is CPU time,
    /// not the time of an answer, which turns would falsify.
    pub fn has_turns(&self) -> bool {
        let is_steady = matches!(self.load, Load::Wrk { .. } | Load::H2 { .. } | Load::WebSocket { .. });
        is_steady && self.figure == Figure::Cpu
    }
}

impl Figure {
    /// Its name in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Cpu => "cpu_us",
            Figure::User => "user_us",
            Figure::Rate => "requests_per_second",
            Figure::Half => "p50_us",
            Figure::Tail => "p99_us",
            Figure::Longest => "longest_us",
            Figure::Memory => "memory_kib",
            Figure::Requests => "requests",
            Figure::Failed => "failed",
            Figure::Idle => "idle_connection_bytes",
            Figure::Reload => "reload_ms",
            Figure::Start => "start_ms",
            Figure::Balance => "fullest_to_mean",
        }
    }

    /// What the figure that counts is called in the table.
    pub fn title(self) -> &'static str {
        match self {
            Figure::Cpu => "CPU us/request",
            Figure::Tail => "p99 us",
            Figure::Idle => "bytes/connection",
            Figure::Reload => "reload ms",
            Figure::Start => "start ms",
            Figure::Balance => "fullest/mean",
            other => other.name(),
        }
    }
}

/// Where the configuration inside `http {}` comes from.
#[derive(Debug, Clone, Copy)]
pub enum Conf {
    /// `bench/workloads/NAME.conf`, and `NAME.cfg` where HAProxy takes part.
    File(&'static str),
    /// 200 hosts with 100 regex locations each.
    Locations,
    /// 5,000 servers.
    Servers,
}

/// What is done to the server.
#[derive(Debug, Clone, Copy)]
pub enum Load {
    /// wrk on one thread.
    Wrk {
        /// Connections kept open at a time.
        connections: u32,
        /// What is asked for.
        path: &'static str,
        /// Whether each request has its own connection.
        close: bool,
        /// A script in `bench/load/`, when requests are not all the same GET.
        script: Option<&'static str>,
    },
    /// h2load on one thread.
    H2 {
        /// Connections kept open.
        connections: u32,
        /// Requests at a time on each.
        streams: u32,
        /// What is asked for.
        path: &'static str,
    },
    /// Messages that are sent and come back, one at a time on each connection.
    WebSocket {
        /// Connections that do so.
        connections: u32,
    },
    /// Connections that had one answer each and then wait.
    Idle {
        /// How many, if the limit of descriptors allows.
        connections: u32,
    },
    /// A changed configuration and SIGHUP.
    Reload,
    /// Nothing but the first request.
    Start,
    /// Connections that are opened at once.
    Balance {
        /// How many.
        connections: u32,
    },
}

/// A workload.
#[derive(Debug)]
pub struct Workload {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is, for the table.
    pub about: &'static str,
    /// What is served.
    pub conf: Conf,
    /// What is asked for.
    pub load: Load,
    /// The figure that counts; less is better.
    pub figure: Figure,
    /// `worker_processes`.
    pub workers: u32,
}

const fn get(path: &'static str, connections: u32) -> Load {
    Load::Wrk { connections, path, close: false, script: None }
}

const fn cpu(name: &'static str, about: &'static str, conf: &'static str, load: Load) -> Workload {
    Workload { name, about, conf: Conf::File(conf), load, figure: Figure::Cpu, workers: 1 }
}

/// All workloads, in the order of the report.
pub static WORKLOADS: &[Workload] = &[
    cpu("proxy", "small proxied answer, keep-alive", "proxy", get("/small", 64)),
    cpu("proxy-log", "the same with an access log", "proxy-log", get("/small", 64)),
    cpu(
        "proxy-close",
        "the same, clients close each connection",
        "proxy",
        Load::Wrk { connections: 64, path: "/small", close: true, script: None },
    ),
    cpu("proxy-64k", "64 KB proxied", "proxy", get("/64k", 32)),
    cpu("proxy-1m", "1 MB proxied", "proxy", get("/1m", 16)),
    cpu(
        "upload-1m",
        "1 MB uploaded through the proxy",
        "upload",
        Load::Wrk { connections: 8, path: "/upload", close: false, script: Some("upload-1m.lua") },
    ),
    cpu(
        "h2-proxy",
        "small proxied answer over HTTP/2",
        "h2-proxy",
        Load::H2 { connections: 16, streams: 10, path: "/small" },
    ),
    cpu(
        "tls-handshake",
        "full TLS handshake and one small answer",
        "tls",
        Load::Wrk { connections: 16, path: "/ok", close: true, script: None },
    ),
    cpu("tls-proxy", "small proxied answer over TLS, keep-alive", "tls", get("/small", 64)),
    cpu("tls-64k", "file of 64 KB over TLS", "tls", get("/files/64k", 32)),
    cpu("static-1k", "file of 1 KB", "static", get("/1k", 64)),
    cpu("static-100k", "file of 100 KB", "static", get("/100k", 32)),
    cpu("return", "answer from the configuration", "return", get("/", 64)),
    Workload {
        conf: Conf::Locations,
        ..cpu(
            "locations",
            "200 hosts with 100 regex locations each",
            "",
            Load::Wrk { connections: 64, path: "/", close: false, script: Some("locations.lua") },
        )
    },
    cpu("websocket", "echo of 64 byte messages", "websocket", Load::WebSocket { connections: 16 }),
    Workload {
        figure: Figure::Idle,
        ..cpu("idle", "connections that wait", "proxy", Load::Idle { connections: 10_000 })
    },
    Workload {
        figure: Figure::Reload,
        conf: Conf::Servers,
        ..cpu("reload", "reload of 5,000 servers", "", Load::Reload)
    },
    Workload {
        figure: Figure::Start,
        ..cpu("start", "from the start to the first answer", "proxy", Load::Start)
    },
    Workload {
        figure: Figure::Balance,
        workers: 4,
        // Without a back end: idle connections to one would be counted, too.
        ..cpu("balance", "256 connections over 4 workers", "return", Load::Balance { connections: 256 })
    },
    Workload {
        figure: Figure::Tail,
        ..cpu("slow", "one of two back ends needs 50 ms", "slow", get("/", 32))
    },
];

/// The configuration of 200 hosts with 100 regex locations each; `load/locations.lua` asks for them.
pub fn locations(listen: &str) -> String {
    let mut text = String::from("server_names_hash_max_size 4096;\n");
    for host in 0..200 {
        text += &format!("server {{\n    listen {listen};\n    server_name host{host}.bench;\n");
        for location in 0..100 {
            text += &format!(
                "    location ~ ^/api/v[0-9]+/collection{location}/item/([0-9]+)$ {{ return 200 \"item\\n\"; }}\n"
            );
        }
        text += "}\n";
    }
    text
}

/// The configuration of 5,000 servers; `/generation` tells which one answers.
pub fn servers(listen: &str, origin: &str, generation: u32) -> String {
    let mut text = format!(
        "server_names_hash_max_size 32768;\nserver_names_hash_bucket_size 128;\n\
         upstream app {{\n    server {origin};\n    keepalive 64;\n}}\n\
         server {{\n    listen {listen} default_server;\n    location / {{ return 404; }}\n    \
         location = /generation {{ return 200 \"{generation}\"; }}\n}}\n"
    );
    for number in 0..5000 {
        text += &format!(
            "server {{\n    listen {listen};\n    server_name tenant{number}.bench www.tenant{number}.bench;\n    \
             location / {{\n        proxy_pass http://app;\n        proxy_set_header Host $host;\n        \
             proxy_set_header X-Tenant {number};\n    }}\n    \
             location /assets/ {{ root /var/www/tenant{number}; expires 1h; }}\n    \
             location ~ ^/api/v[12]/ {{ proxy_pass http://app; proxy_read_timeout 5s; }}\n}}\n"
        );
    }
    text
}
