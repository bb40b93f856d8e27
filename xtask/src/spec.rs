//! `cargo xtask spec`: the specification documents on Gapura or on a real nginx.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use testkit::{Binary, Document, Outcome, run_document};

/// Documents that run at the same time.
const PARALLEL: usize = 2;

/// What to run on what.
#[derive(Debug, Default)]
pub struct Options {
    /// The program; without one, Gapura is built, or an nginx is looked for.
    pub binary: Option<PathBuf>,
    /// Whether the program is a real nginx.
    pub oracle: bool,
    /// Only documents with this in their name.
    pub only: Option<String>,
    /// Only these documents.
    pub files: Vec<PathBuf>,
}

/// Reads the command line and runs.
pub fn main(arguments: &[String]) -> Result<(), String> {
    let mut options = Options::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().cloned().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--oracle" => options.oracle = true,
            "--binary" => options.binary = Some(value()?.into()),
            "--only" => options.only = Some(value()?),
            _ if argument.starts_with("--oracle=") => {
                options.oracle = true;
                options.binary = argument.split_once('=').map(|(_, path)| path.into());
            }
            _ if argument.starts_with('-') => return Err(format!("unknown option {argument}")),
            file => options.files.push(file.into()),
        }
    }
    run(&options)
}

/// Runs the documents; an error when one failed.
pub fn run(options: &Options) -> Result<(), String> {
    let path = match (&options.binary, options.oracle) {
        (Some(path), _) => path.clone(),
        (None, true) => find_nginx().ok_or("no nginx found: name one with --oracle=PATH or in NGINX")?,
        (None, false) => build_gapura()?,
    };
    let path = path.canonicalize().map_err(|e| format!("{}: {e}", path.display()))?;
    let binary = Binary::inspect(&path, options.oracle)?;
    let files = documents(options)?;
    println!("specs on {} {} ({}), {} documents", binary.name, binary.version, path.display(), files.len());
    let queue: Mutex<VecDeque<PathBuf>> = Mutex::new(files.into());
    let total = Mutex::new(Total::default());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(file) = next else { return };
                    let result = Document::read(&file).map(|document| run_document(&document, &binary));
                    total.lock().unwrap_or_else(PoisonError::into_inner).add(&file, result);
                }
            });
        }
    });
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.finish()
}

#[derive(Default)]
struct Total {
    passed: usize,
    failed: usize,
    skipped: usize,
    documents: usize,
    bad_documents: Vec<String>,
}

impl Total {
    fn add(&mut self, file: &Path, result: Result<Outcome, String>) {
        let name = file.strip_prefix(root()).unwrap_or(file).display().to_string();
        self.documents += 1;
        let outcome = result.unwrap_or_else(|message| Outcome {
            failed: 1,
            failures: vec![(1, message)],
            ..Outcome::default()
        });
        let Outcome { passed, failed, skipped, failures, kept } = outcome;
        self.passed += passed;
        let left_out = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
        if failures.is_empty() {
            println!("ok   {name} ({passed} checks{left_out})");
            self.skipped += skipped;
            return;
        }
        println!("FAIL {name} ({passed} passed, {failed} failed{left_out})");
        self.skipped += skipped;
        self.failed += failed;
        for (line, message) in failures {
            println!("  {name}:{line}: {}", message.replace('\n', "\n      "));
        }
        for folder in kept {
            println!("  kept for a look: {}", folder.display());
        }
        self.bad_documents.push(name);
    }

    fn finish(self) -> Result<(), String> {
        if !self.bad_documents.is_empty() {
            println!("documents that failed: {}", self.bad_documents.join(" "));
        }
        let hold = self.documents - self.bad_documents.len();
        println!("{hold} of {} documents hold", self.documents);
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        if self.failed > 0 { Err("the specs do not hold".to_owned()) } else { Ok(()) }
    }
}

/// The documents to run, in order of their names.
fn documents(options: &Options) -> Result<Vec<PathBuf>, String> {
    if !options.files.is_empty() {
        return Ok(options.files.clone());
    }
    let folder = root().join("spec");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))? {
        let path = entry.map_err(|e| e.to_string())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let wanted = options.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
        if name.ends_with(".md") && name != "README.md" && wanted {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() { Err("no such document in spec/".to_owned()) } else { Ok(files) }
}

/// The nginx of `$NGINX`, of the path, or where packages put it.
pub fn find_nginx() -> Option<PathBuf> {
    let named = std::env::var_os("NGINX").map(PathBuf::from);
    named.filter(|path| path.is_file()).or_else(|| find_in_path("nginx"))
}

/// A program of the path, or where packages put servers.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Builds Gapura and tells where it is.
pub fn build_gapura() -> Result<PathBuf, String> {
    build(&[])?;
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    Ok(own.with_file_name("gapura"))
}

/// Builds Gapura as it is shipped and tells where it is.
pub fn build_gapura_release() -> Result<PathBuf, String> {
    build(&["--release"])?;
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let target = own.ancestors().nth(2).ok_or("this program is not in a target folder")?;
    Ok(target.join("release/gapura"))
}

fn build(more: &[&str]) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(["build", "--quiet", "--package", "gapura"]).args(more);
    let status = command.status().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err("gapura does not build".to_owned()) }
}

/// The folder of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}
