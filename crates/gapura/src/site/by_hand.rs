//! Reads what the processes need straight off the tree. The engine's compiler takes this over; until then a server
//! answers with the first `return` it finds.

use super::{ErrorLog, Essentials, LogTarget};
use crate::identity::Layout;
use bstr::ByteSlice;
use conf::{Block, Diagnostic, Node, Tree};
use net::address::Address;
use net::listen::ListenOptions;
use net::log::syslog::Severity;
use std::time::Duration;

/// What is answered, by address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Status and body.
    pub answers: Vec<(Address, u16, Vec<u8>)>,
}

pub(super) fn read(tree: &Tree, layout: &Layout, diagnostics: &mut Vec<Diagnostic>) -> (Essentials, Plan) {
    let mut essentials = Essentials {
        daemon: true,
        master_process: true,
        pid: layout.pid.clone(),
        user: None,
        threads: 1,
        open_files_max: None,
        core_bytes_max: None,
        shutdown_timeout: None,
        working_directory: None,
        environment: Vec::new(),
        error_logs: Vec::new(),
        listens: Vec::new(),
        log_files: Vec::new(),
    };
    let mut plan = Plan::default();
    let mut seen = Vec::new();
    for node in &tree.root.nodes {
        main_directive(node, layout, &mut essentials, diagnostics);
        let repeatable = ["env", "error_log", "include", "load_module", "http", "events"];
        if seen.contains(&&node.name.text) && !repeatable.contains(&node.name.text.to_str_lossy().as_ref()) {
            let text = format!("\"{}\" directive is duplicate", node.name.text);
            diagnostics.push(Diagnostic::emerg("duplicate", text).at(node.span()).line(node.end));
        }
        seen.push(&node.name.text);
        if let Some(http) = node.block.as_ref().filter(|_| node.name.text == "http") {
            servers(http, &mut essentials, &mut plan);
        }
    }
    let has_errors = diagnostics.iter().any(|diagnostic| diagnostic.level.is_error());
    if !has_errors && !tree.root.nodes.iter().any(|node| node.name.text == "events") {
        diagnostics.push(Diagnostic::emerg("no-events", "no \"events\" section in configuration"));
    }
    if essentials.error_logs.is_empty() {
        let target = match &layout.error_log[..] {
            b"" => LogTarget::Stderr,
            path => LogTarget::File(path.to_vec()),
        };
        essentials.error_logs.push(ErrorLog { target, least: Severity::Error });
    }
    let targets = essentials.error_logs.iter().filter_map(|log| match &log.target {
        LogTarget::File(path) => Some(path.clone()),
        _ => None,
    });
    let mut log_files: Vec<Vec<u8>> = targets.collect();
    access_logs(&tree.root, layout, &mut log_files);
    essentials.log_files = log_files;
    (essentials, plan)
}

fn main_directive(
    node: &Node,
    layout: &Layout,
    essentials: &mut Essentials,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let Some(word) = node.args.first().map(|word| word.text.as_slice()) else { return };
    let number = || word.to_str().ok()?.parse::<u64>().ok();
    match node.name.text.as_slice() {
        b"daemon" => essentials.daemon = word != b"off",
        b"master_process" => essentials.master_process = word != b"off",
        b"pid" => essentials.pid = layout.full_name(word),
        b"worker_processes" if word == b"auto" => {
            essentials.threads = std::thread::available_parallelism().map_or(1, usize::from);
        }
        b"worker_processes" => match number() {
            Some(threads) if threads > 0 => essentials.threads = threads as usize,
            _ => {
                let diagnostic =
                    Diagnostic::emerg("invalid-value", "\"worker_processes\" directive invalid value");
                diagnostics.push(diagnostic.at(node.span()).line(node.end));
            }
        },
        b"worker_rlimit_nofile" => essentials.open_files_max = number(),
        b"worker_rlimit_core" => essentials.core_bytes_max = number(),
        b"worker_shutdown_timeout" => {
            let text = word.to_str_lossy();
            let (digits, unit) =
                text.strip_suffix("ms").map_or((text.trim_end_matches('s'), 1000), |ms| (ms, 1));
            essentials.shutdown_timeout =
                digits.parse().ok().map(|amount: u64| Duration::from_millis(amount * unit));
        }
        b"working_directory" => essentials.working_directory = Some(word.to_vec()),
        b"env" => essentials.environment.push(word.to_vec()),
        b"error_log" => {
            let target = match word {
                b"stderr" => LogTarget::Stderr,
                _ => match word.strip_prefix(b"syslog:") {
                    Some(server) => LogTarget::Syslog(server.to_vec()),
                    None => LogTarget::File(layout.full_name(word)),
                },
            };
            let level = node.args.get(1).map(|word| word.text.to_string());
            let named =
                |severity: &Severity| Some(crate::journal::severity_name(*severity)) == level.as_deref();
            let least = SEVERITIES.into_iter().find(named).unwrap_or(Severity::Error);
            essentials.error_logs.push(ErrorLog { target, least });
        }
        _ => {}
    }
}

const SEVERITIES: [Severity; 8] = [
    Severity::Emerg,
    Severity::Alert,
    Severity::Crit,
    Severity::Error,
    Severity::Warn,
    Severity::Notice,
    Severity::Info,
    Severity::Debug,
];

fn servers(http: &Block, essentials: &mut Essentials, plan: &mut Plan) {
    for server in
        http.nodes.iter().filter(|node| node.name.text == "server").filter_map(|node| node.block.as_ref())
    {
        let (status, body) = first_return(server).unwrap_or((503, Vec::new()));
        for listen in server.nodes.iter().filter(|node| node.name.text == "listen") {
            let Some(address) = listen.args.first().and_then(|word| address(&word.text)) else { continue };
            let bind = listen.args.len() > 1;
            let reuseport = listen.args.iter().any(|word| word.text == "reuseport");
            let options = ListenOptions { bind, reuseport, ..ListenOptions::new(address.clone()) };
            if !essentials.listens.iter().any(|known| known.address == address) {
                essentials.listens.push(options);
                plan.answers.push((address, status, body.clone()));
            }
        }
    }
}

fn address(text: &[u8]) -> Option<Address> {
    if let Some(path) = text.strip_prefix(b"unix:") {
        return Some(Address::unix(path));
    }
    let text = text.to_str().ok()?;
    let text = text.strip_prefix("*:").map_or(text.to_owned(), |port| format!("0.0.0.0:{port}"));
    let parsed = match text.parse::<u16>() {
        Ok(port) => Some(([0, 0, 0, 0], port).into()),
        Err(_) => text.parse().ok(),
    };
    parsed.map(Address::Inet)
}

fn first_return(block: &Block) -> Option<(u16, Vec<u8>)> {
    block.nodes.iter().find_map(|node| match (&node.block, &node.args[..]) {
        (Some(inner), _) => first_return(inner),
        (None, [status, body]) if node.name.text == "return" => {
            Some((status.text.to_str().ok()?.parse().ok()?, body.text.to_vec()))
        }
        _ => None,
    })
}

fn access_logs(block: &Block, layout: &Layout, files: &mut Vec<Vec<u8>>) {
    for node in &block.nodes {
        if let Some(inner) = &node.block {
            access_logs(inner, layout, files);
        }
        let Some(word) = node.args.first().filter(|_| node.name.text == "access_log") else { continue };
        let path = layout.full_name(&word.text);
        if word.text != "off" && !word.text.starts_with(b"syslog:") && !files.contains(&path) {
            files.push(path);
        }
    }
}
