//! What the tests of configurations share.

use conf::MemoryFiles;
use engine::compile::{Compiled, Surroundings, compile};
use std::sync::Arc;

/// Compiles a text as the file of this name, with all modules.
pub fn compiled(name: &str, text: &str) -> Compiled {
    let mut files = MemoryFiles::new();
    files.insert(name, text.as_bytes());
    let parsed = conf::parse(name.into(), None, &files);
    let surroundings = Surroundings {
        prefix: "/etc/".into(),
        conf_prefix: "/etc/".into(),
        hostname: "host".into(),
        default_port: 80,
        error_log: engine::log::Target::Stderr,
        access_log: "/var/log/access.log".into(),
        names: Arc::new(engine::compile::SystemNames),
    };
    compile(parsed, modules::MODULES, &surroundings, Arc::new(files))
}
