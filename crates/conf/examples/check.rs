//! Says what the parser alone thinks of configuration files, in nginx's words: `check FILE...`. With `--print` it
//! formats one file instead, with `--dump` it prints what `-T` would.

use bstr::{BStr, BString, ByteSlice};
use std::io::Write;

struct Disk;

fn system(error: std::io::Error) -> conf::FileError {
    let errno = error.raw_os_error().unwrap_or(5);
    let message = error.to_string();
    conf::FileError { errno, message: message.split(" (os error").next().unwrap_or_default().to_owned() }
}

impl conf::Files for Disk {
    fn read(&self, path: &BStr) -> Result<std::sync::Arc<[u8]>, conf::FileError> {
        std::fs::read(path.to_path_lossy()).map(Into::into).map_err(system)
    }

    fn glob(&self, pattern: &BStr) -> Result<Vec<BString>, conf::FileError> {
        Ok(conf::expand_glob(pattern, self))
    }
}

impl conf::Folders for Disk {
    fn names(&self, folder: &BStr) -> Vec<BString> {
        let folder = if folder.is_empty() { BStr::new(".") } else { folder };
        let Ok(entries) = std::fs::read_dir(folder.to_path_lossy()) else { return Vec::new() };
        entries.flatten().map(|entry| BString::from(entry.file_name().as_encoded_bytes())).collect()
    }

    fn exists(&self, path: &BStr) -> bool {
        std::fs::symlink_metadata(path.to_path_lossy()).is_ok()
    }
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut mode = String::new();
    let mut command_line = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "-g" {
            command_line = words.next();
            continue;
        }
        if word.starts_with("--") {
            mode = word;
            continue;
        }
        let parsed = conf::parse(word.as_str().into(), command_line.as_deref().map(BStr::new), &Disk);
        for diagnostic in &parsed.diagnostics {
            writeln!(out, "{}", conf::render_nginx(diagnostic, &parsed.tree.sources))?;
            if mode == "--snippets" {
                write!(out, "{}", conf::render_snippet(diagnostic, &parsed.tree.sources, false))?;
            }
        }
        match mode.as_str() {
            "--print" => {
                let alone = conf::parse_text(word.as_str().into(), &std::fs::read(&word)?);
                out.write_all(&conf::print(&alone.tree))?;
            }
            "--dump" => out.write_all(&conf::dump(&parsed.tree.sources))?,
            _ => {}
        }
    }
    Ok(())
}
