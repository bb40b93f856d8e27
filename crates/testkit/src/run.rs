//! Running a document: each scenario in a fresh folder, on a server of its own, step by step.

use crate::certificates;
use crate::client::{Answer, Connection, PATIENCE};
use crate::config;
use crate::document::{Block, Checked, Document, Exchange, Guard, Scenario, Step, for_program};
use crate::log::{LogRule, compare, lines, without_program};
use crate::message::{Expected, Message, compose_block};
use crate::origin::{Origin, reserve};
use crate::ports::free_port;
use crate::server::{Binary, Server};
use crate::text::{Places, difference, show};
use crate::tls;
use bstr::ByteSlice;
use std::collections::{HashMap, VecDeque};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How often a server whose port was taken meanwhile is started on other ports.
const STARTS_MAX: usize = 3;

/// The ports a scenario may name: `%PORT%` to `%PORT9%`.
const PORTS: usize = 9;

/// What may stand on the fence of a request.
const REQUEST_WORDS: [&str; 18] = [
    "continue",
    "raw",
    "part",
    "split",
    "shutdown",
    "abort",
    "http2",
    "to=",
    "from=",
    "tls",
    "tls=",
    "tls1.2",
    "cert=",
    "resume",
    "sees=",
    "compress",
    "compress=no",
    "early",
];

/// A line of a document and what is wrong there.
type Failure = (usize, String);

/// What came of a document.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Checks that held.
    pub passed: usize,
    /// Checks that did not hold; one may have several things wrong.
    pub failed: usize,
    /// Checks that were left out: not for this program, or not for this version.
    pub skipped: usize,
    /// What was wrong: line of the document and words.
    pub failures: Vec<Failure>,
    /// The folders of scenarios that failed, kept for a look at their logs.
    pub kept: Vec<PathBuf>,
}

/// Runs all scenarios of a document on a program.
pub fn run_document(document: &Document, binary: &Binary) -> Outcome {
    let mut outcome = Outcome::default();
    for scenario in &document.scenarios {
        if is_left_out(&scenario.guard, binary, scenario.config.has("nginx")) {
            outcome.skipped += scenario.steps.iter().filter(|step| is_check(step)).count();
            continue;
        }
        let before = outcome.failures.len();
        let folder = match Folder::create() {
            Ok(folder) => folder,
            Err(error) => {
                outcome.failures.push((scenario.config.line, format!("cannot make a folder: {error}")));
                outcome.failed += 1;
                continue;
            }
        };
        let runner = Runner::new(binary, scenario, &document.shared, folder.path.clone());
        runner.run(&mut outcome);
        if outcome.failures.len() > before {
            outcome.kept.push(folder.keep());
        }
    }
    outcome
}

fn is_check(step: &Step) -> bool {
    matches!(step, Step::Exchange(_) | Step::Log(_) | Step::Verdict(_))
}

/// Whether the next request goes over the connection of the last.
fn is_continued(rest: &[Step]) -> bool {
    let next =
        rest.iter().find_map(|step| if let Step::Exchange(exchange) = step { Some(exchange) } else { None });
    next.is_some_and(|exchange| exchange.request.has("continue"))
}

/// `has_twin`: the document says what nginx does instead.
fn is_left_out(guard: &Guard, binary: &Binary, has_twin: bool) -> bool {
    binary.oracle
        && (guard.differs.is_some() && !has_twin
            || guard.since.as_ref().is_some_and(|version| !binary.is_since(version))
            || guard.needs.as_ref().is_some_and(|needs| !binary.built.contains(needs.as_str())))
}

/// A folder that goes away with this value.
struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Everybody may go in: nginx's workers are somebody else when the tests run as root.
    fn create() -> std::io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("gapura-spec-{}-{number}", std::process::id()));
        std::fs::create_dir(&path)?;
        open_to_all(&path)?;
        Ok(Self { path })
    }

    fn keep(self) -> PathBuf {
        let path = self.path.clone();
        std::mem::forget(self);
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn open_to_all(path: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))
}

/// One scenario while it runs.
struct Runner<'d> {
    binary: &'d Binary,
    scenario: &'d Scenario,
    shared: &'d [Step],
    directory: PathBuf,
    places: Places,
    origins: Vec<Origin>,
    server: Option<Server>,
    connection: Option<Open>,
    /// What the last client said in its handshake, and the sessions it knows.
    tls: tls::Clients,
    /// How far each log has been compared, in lines.
    log_lines: HashMap<String, usize>,
    failures: Vec<Failure>,
}

/// The connection of the last exchange.
struct Open {
    connection: Connection,
    methods: VecDeque<Vec<u8>>,
    line: usize,
}

impl<'d> Runner<'d> {
    fn new(binary: &'d Binary, scenario: &'d Scenario, shared: &'d [Step], directory: PathBuf) -> Self {
        Self {
            binary,
            scenario,
            shared,
            directory,
            places: Places::default(),
            origins: Vec::new(),
            server: None,
            connection: None,
            tls: tls::Clients::default(),
            log_lines: HashMap::new(),
            failures: Vec::new(),
        }
    }

    fn run(mut self, outcome: &mut Outcome) {
        let mut ready = self.prepare();
        for _ in 1..STARTS_MAX {
            if !ready.as_ref().is_err_and(|(_, error)| error.contains("Address already in use")) {
                break;
            }
            self.origins.clear();
            ready = self.prepare();
        }
        let ready = ready.and_then(|()| self.write_files());
        if let Err(failure) = ready {
            outcome.failures.push(failure);
            outcome.failed += 1;
            return;
        }
        let first_check = self.scenario.steps.iter().position(is_check).unwrap_or(self.scenario.steps.len());
        for (index, step) in self.scenario.steps.iter().enumerate() {
            if !is_check(step) && (index < first_check || matches!(step, Step::Origin(_))) {
                continue;
            }
            let done = self.step(step);
            if !is_continued(&self.scenario.steps[index + 1..]) {
                // Some lines reach a log only when the client has gone.
                let before = self.failures.len();
                self.close_connection();
                outcome.failed += self.failures.len() - before;
            }
            match done {
                Ok(true) if is_check(step) => outcome.passed += 1,
                Ok(true) => {}
                Ok(false) => outcome.skipped += 1,
                Err(failures) => {
                    outcome.failed += 1;
                    let fatal = self.server.is_none() && !matches!(step, Step::Verdict(_));
                    self.failures.extend(failures);
                    if fatal {
                        break;
                    }
                }
            }
        }
        let before = self.failures.len();
        self.end();
        outcome.failed += self.failures.len() - before;
        outcome.failures.append(&mut self.failures);
    }

    /// Ports, origins and the configuration.
    fn prepare(&mut self) -> Result<(), Failure> {
        let directory = self.directory.display().to_string();
        self.places.set("DIR", directory.clone());
        self.places.set("NAME", self.binary.name.clone());
        self.places.set("VERSION", self.binary.version.clone());
        self.places.set("SERVER", format!("{}/{}", self.binary.name, self.binary.version));
        self.places.set("DEAD", format!("127.0.0.1:{}", free_port()));
        self.places.set("PORT", free_port().to_string());
        for name in (2..=PORTS).map(|number| format!("PORT{number}")) {
            if self.scenario.config.text.contains(&name) {
                self.places.set(name, free_port().to_string());
            }
        }
        let all = self.shared.iter().chain(&self.scenario.steps);
        let origins: Vec<&Block> =
            all.filter_map(|s| if let Step::Origin(b) = s { Some(b) } else { None }).collect();
        for (number, block) in (1..).zip(&origins) {
            known_words(block, &["echo", "text", "repeat", "silent", "unix", "at="])?;
            reserve(block, number, &directory, &mut self.places);
        }
        for (number, block) in (1..).zip(&origins) {
            self.origins.push(Origin::start(block, number, &self.places)?);
        }
        let block = &self.scenario.config;
        known_words(block, &["raw"])?;
        let text = config::complete(&block.text, &self.places, self.binary.oracle, block.has("raw"));
        std::fs::write(self.directory.join("nginx.conf"), text).map_err(|e| (block.line, e.to_string()))
    }

    /// The files that are there from the start: all up to the first check.
    fn write_files(&mut self) -> Result<(), Failure> {
        let html = self.directory.join("html");
        std::fs::create_dir_all(&html).and_then(|()| open_to_all(&html)).map_err(|e| (0, e.to_string()))?;
        let own = self.scenario.steps.iter().take_while(|step| !is_check(step));
        let all: Vec<&Step> = self.shared.iter().chain(own).collect();
        for step in all {
            if let Step::File(block) = step {
                self.write_file(block)?;
            }
        }
        Ok(())
    }

    fn write_file(&self, block: &Block) -> Result<(), Failure> {
        if block.kind == "certificates" {
            known_words(block, &[])?;
            return certificates::make(block, &self.directory);
        }
        let fail = |e: std::io::Error| (block.line, e.to_string());
        let name = block.words.first().ok_or((block.line, "a file block needs a name".to_owned()))?;
        let path = self.directory.join(name);
        for folder in
            path.ancestors().skip(1).take_while(|a| *a != self.directory).collect::<Vec<_>>().iter().rev()
        {
            if !folder.exists() {
                std::fs::create_dir(folder).and_then(|()| open_to_all(folder)).map_err(fail)?;
            }
        }
        known_words(block, &[name.as_str(), "bytes", "mode=", "modified=", "size=", "link="])?;
        if let Some(target) = block.value("link") {
            return std::os::unix::fs::symlink(self.places.fill(target), &path).map_err(fail);
        }
        let text = self.places.fill(&block.text);
        let mut content = match block.has("bytes") {
            true => crate::text::unescape(&text).map_err(|e| (block.line, e))?,
            false => text.into_bytes(),
        };
        if let Some(size) = block.value("size") {
            let size = size.parse().map_err(|_| (block.line, "size= takes a number of bytes".to_owned()))?;
            content = content.iter().copied().cycle().take(size).collect();
        }
        std::fs::write(&path, content).map_err(fail)?;
        if let Some(time) = block.value("modified") {
            let seconds =
                time.parse().map_err(|_| (block.line, "modified= takes seconds since 1970".to_owned()))?;
            let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
            std::fs::File::options()
                .write(true)
                .open(&path)
                .and_then(|f| f.set_modified(time))
                .map_err(fail)?;
        }
        if let Some(mode) = block.value("mode") {
            let mode = u32::from_str_radix(mode, 8)
                .map_err(|_| (block.line, "mode= takes an octal number".to_owned()))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).map_err(fail)?;
        }
        Ok(())
    }

    /// One step: true when it was done, false when it was left out.
    fn step(&mut self, step: &Step) -> Result<bool, Vec<Failure>> {
        match step {
            Step::File(block) => self.write_file(block).map(|()| true).map_err(|f| vec![f]),
            Step::Origin(_) => Ok(true),
            Step::Signal(block) => {
                self.started()?;
                let server = self.server.as_ref().ok_or_else(Vec::new)?;
                server.signal(block.text.trim()).map(|()| true).map_err(|e| vec![(block.line, e)])
            }
            Step::Exchange(exchange) => self.exchange(exchange),
            Step::Log(checked) => self.log(checked),
            Step::Verdict(checked) => self.verdict(checked),
        }
    }

    /// Starts the server when this is the first step that needs it.
    fn started(&mut self) -> Result<(), Vec<Failure>> {
        if self.server.is_some() {
            return Ok(());
        }
        let line = self.scenario.config.line;
        for attempt in 1.. {
            match Server::start(self.binary, &self.directory) {
                Ok(server) => {
                    self.server = Some(server);
                    break;
                }
                Err(error) if attempt < STARTS_MAX && error.contains("Address already in use") => {
                    self.origins.clear();
                    self.prepare().map_err(|f| vec![f])?;
                }
                Err(error) => return Err(vec![(line, error)]),
            }
        }
        Ok(())
    }

    fn exchange(&mut self, exchange: &Exchange) -> Result<bool, Vec<Failure>> {
        let request = &exchange.request;
        let responses = for_program(&exchange.responses, self.binary.oracle);
        let has_twin = exchange.responses.iter().any(|r| r.has("nginx"));
        if is_left_out(&exchange.guard, self.binary, has_twin) {
            return Ok(false);
        }
        let one = |message: &str| vec![(request.line, message.to_owned())];
        if has_twin && exchange.guard.differs.is_none() {
            return Err(one("a response marked nginx needs a differs: line above the request"));
        }
        known_words(request, &REQUEST_WORDS).map_err(|f| vec![f])?;
        if responses.is_empty() && !request.has("abort") && !request.has("part") {
            return Err(one(
                "no response block; write http abort for a client that goes away, http part for one that pauses",
            ));
        }
        self.started()?;
        let composed = compose_block(request, &self.places).map_err(|f| vec![f])?;
        let mut open = self.open(request, &composed.bytes)?;
        open.methods.extend(composed.methods);
        open.line = request.line;
        if open.connection.alert().is_some() || request.has("early") {
            // The response says which alert; what goes ahead is sent already.
        } else if request.has("http2") {
            open.connection.exchange_http2(&composed.bytes).map_err(|e| one(&e))?;
        } else {
            open.connection.send(&composed.bytes, request.has("split")).map_err(|e| one(&e))?;
        }
        if request.has("abort") {
            return Ok(true);
        }
        if request.has("shutdown") {
            open.connection.shutdown();
        }
        for block in responses {
            self.response(&mut open, block)?;
        }
        self.connection = Some(open);
        Ok(true)
    }

    /// `bytes` is what the request sends.
    fn open(&mut self, request: &Block, bytes: &[u8]) -> Result<Open, Vec<Failure>> {
        if request.has("continue") {
            return self
                .connection
                .take()
                .ok_or_else(|| vec![(request.line, "no connection to continue".to_owned())]);
        }
        self.close_connection();
        let to = self.places.fill(request.value("to").unwrap_or("127.0.0.1:%PORT%"));
        let one = |error| vec![(request.line, error)];
        let mut connection = Connection::open(&to, request.value("from")).map_err(one)?;
        if tls::is_wanted(request) {
            self.tls.secure(request, bytes, &self.directory, &mut connection).map_err(one)?;
        }
        Ok(Open { connection, methods: VecDeque::new(), line: request.line })
    }

    fn close_connection(&mut self) {
        if let Some(mut open) = self.connection.take()
            && let Some(surplus) = open.connection.surplus()
        {
            self.failures.push((open.line, format!("more came than the response blocks say:\n{surplus}")));
        }
    }

    fn response(&self, open: &mut Open, block: &Block) -> Result<(), Vec<Failure>> {
        let one = |message: String| vec![(block.line, message)];
        known_words(block, &["nginx", "close", "crlf", "bare", "bytes", "alert"]).map_err(|f| vec![f])?;
        if block.has("alert") || open.connection.alert().is_some() {
            let said = open.connection.alert().map_or("none".to_owned(), |number| number.to_string());
            let expected = if block.has("alert") { block.text.trim() } else { "none" };
            let failed = || one(format!("expected the alert {expected} in the handshake, got {said}"));
            return if said == expected { Ok(()) } else { Err(failed()) };
        }
        let bare = block.has("bare") || block.has("bytes");
        if block.has("bytes") {
            let expected = crate::text::unescape(&self.places.fill(&block.text)).map_err(one)?;
            let got = open.connection.bytes(expected.len()).map_err(one)?;
            return if got == expected { Ok(()) } else { Err(one(difference(&expected, &got))) };
        }
        let head_only = open.methods.front().is_some_and(|method| method == b"HEAD");
        let message = match open.connection.response(head_only, bare).map_err(one)? {
            Answer::Closed if block.empty => return Ok(()),
            Answer::Closed => return Err(one("the connection was closed without a response".to_owned())),
            Answer::Message(message) => message,
        };
        if block.empty {
            return Err(one(format!("expected the connection to be closed, got\n{}", message.shown())));
        }
        if !is_interim(&message) {
            open.methods.pop_front();
        }
        let expected = Expected::parse(block.lines(), &self.places, bare, block.has("crlf"))
            .map_err(|failure| vec![failure])?;
        let mut failures = expected.compare(&message);
        if let Some((_, last)) = failures.last_mut() {
            let shown: String = message.shown().chars().take(4_000).collect();
            *last += &format!("\nthe whole response:\n  {}", shown.replace('\n', "\n  "));
        }
        if block.has("close")
            && let Err(error) = open.connection.expect_end()
        {
            failures.push((block.line, error));
        }
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    fn log(&mut self, checked: &Checked) -> Result<bool, Vec<Failure>> {
        let has_twin = checked.blocks.len() > 1;
        if is_left_out(&checked.guard, self.binary, has_twin) {
            return Ok(false);
        }
        self.started()?;
        for block in for_program(&checked.blocks, self.binary.oracle) {
            known_words(block, &["nginx", block.words.first().map_or("", String::as_str)])
                .map_err(|f| vec![f])?;
            self.log_block(block)?;
        }
        Ok(true)
    }

    fn log_block(&mut self, block: &Block) -> Result<(), Vec<Failure>> {
        let name =
            block.words.first().filter(|w| *w != "nginx").map_or("error.log", String::as_str).to_owned();
        let rules: Result<Vec<_>, _> =
            block.lines().map(|(line, text)| LogRule::parse(line, text, &self.places)).collect();
        let rules = rules.map_err(|f| vec![f])?;
        let from = self.log_lines.get(&name).copied().unwrap_or(0);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let all = lines(&std::fs::read(self.directory.join(&name)).unwrap_or_default());
            let new = all.get(from..).unwrap_or_default();
            match compare(&rules, new) {
                Ok(count) => {
                    self.log_lines.insert(name, from + count);
                    return Ok(());
                }
                Err(rule) if Instant::now() > deadline || rule.absent => {
                    let what = if rule.absent {
                        "a line that must not be"
                    } else {
                        "no such line, or not in this order,"
                    };
                    let held = show(&bstr::join("\n", new));
                    return Err(vec![(rule.line, format!("{what} in {name}, which holds\n{held}"))]);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn verdict(&mut self, checked: &Checked) -> Result<bool, Vec<Failure>> {
        let has_twin = checked.blocks.len() > 1;
        if is_left_out(&checked.guard, self.binary, has_twin) {
            return Ok(false);
        }
        for block in for_program(&checked.blocks, self.binary.oracle) {
            known_words(block, &["nginx"]).map_err(|f| vec![f])?;
            let one = |message: String| vec![(block.line, message)];
            let (status, said) = self.binary.verdict(&self.directory).map_err(one)?;
            let wanted = if block.kind == "config-error" { 1 } else { 0 };
            if status.code() != Some(wanted) {
                return Err(one(format!(
                    "-t ended with {status}, expected {wanted}; it said\n{}",
                    show(&said)
                )));
            }
            let rules: Result<Vec<_>, _> =
                block.lines().map(|(line, text)| LogRule::parse(line, text, &self.places)).collect();
            let lines: Vec<Vec<u8>> = said.lines().map(|line| without_program(line).to_vec()).collect();
            compare(&rules.map_err(|f| vec![f])?, &lines)
                .map_err(|rule| vec![(rule.line, format!("-t did not say this, but\n{}", show(&said)))])?;
        }
        Ok(true)
    }

    /// Ends everything and looks for what nobody asked about.
    fn end(&mut self) {
        self.close_connection();
        let line = self.scenario.config.line;
        if let Some(mut server) = self.server.take() {
            if let Err(error) = server.stop() {
                self.failures.push((line, error));
            }
            if server.said().contains("panicked at") {
                self.failures.push((line, format!("the server panicked:\n{}", server.said())));
            }
            let log = lines(&std::fs::read(self.directory.join("error.log")).unwrap_or_default());
            for bad in log.iter().filter(|l| l.starts_with(b"[alert]") || l.starts_with(b"[emerg]")) {
                // nginx tries again by itself when a port was taken for a moment.
                let taken = bad.contains_str("Address already in use");
                if !taken && !self.expects(bad) {
                    self.failures.push((line, format!("error.log holds an unexpected line: {}", show(bad))));
                }
            }
        }
        for origin in std::mem::take(&mut self.origins) {
            self.failures.extend(origin.stop());
        }
    }

    /// Whether a `log` block of the scenario speaks of this kind of line.
    fn expects(&self, line: &[u8]) -> bool {
        let level = line.split_str("]").next().unwrap_or_default();
        self.scenario.steps.iter().any(|step| match step {
            Step::Log(checked) => {
                checked.blocks.iter().any(|block| block.text.contains(&*level.to_str_lossy()))
            }
            _ => false,
        })
    }
}

fn is_interim(message: &Message) -> bool {
    message.start.split_str(" ").nth(1).is_some_and(|status| status.starts_with(b"1") && status != b"101")
}

/// Refuses words behind a fence that mean nothing: a typing error must not switch a check off.
fn known_words(block: &Block, known: &[&str]) -> Result<(), Failure> {
    let is_known =
        |word: &String| known.iter().any(|k| if k.ends_with('=') { word.starts_with(k) } else { word == k });
    match block.words.iter().find(|word| !is_known(word)) {
        Some(word) => Err((block.line, format!("\"{word}\" means nothing on a {} block", block.kind))),
        None => Ok(()),
    }
}
