//! `gapura demo`: the tutorial on one machine. A gateway and small app servers, each a process of its own on a loopback
//! address of its own, a configuration to edit, and a live view of which server answers.
//!
//! The demo itself only starts processes, reads keys, and follows the access log. Whatever happens to it, its
//! processes end with it: see [`lifeline`].

mod app;
mod arguments;
mod authority;
mod lifeline;
mod screen;
mod server;
mod traffic;
mod tree;
mod view;
mod websocket;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;
use std::{env, thread};

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use arguments::{APPS_MAX, Options, Request};
use screen::{Keyboard, Screen, say};
use server::{Server, State, app_address};
use traffic::{Log, Seen};
use tree::{Doors, Tree};
use view::{MESSAGE_LINES_MAX, RECENT_MAX, View, addresses};

const GATEWAY_PORT: u16 = 8080;
const HTTPS_PORT: u16 = 8443;
const APP_PORT: u16 = 3000;
/// How many ports after the wished one are tried.
const PORTS_TRIED_MAX: u16 = 100;
const TICK: Duration = Duration::from_millis(100);
const START_MAX: Duration = Duration::from_secs(10);
const EVENTS_MAX: usize = 256;
const ASKED_AT_ONCE: usize = 10;

/// Runs `gapura demo` with the words after `demo`, until it is told to end.
pub fn run(words: &[Vec<u8>]) -> ExitCode {
    // Two words that are not for people: the demo's own processes.
    match words.split_first() {
        Some((first, [])) if first == b"app" => return run_app(),
        Some((first, program)) if first == b"keep" => {
            let program: Vec<OsString> = program.iter().cloned().map(OsString::from_vec).collect();
            return lifeline::keep(&program);
        }
        _ => {}
    }
    let outcome = match arguments::parse(words) {
        Ok(Request::Help) => say(arguments::HELP).map_err(|error| error.to_string()),
        Ok(Request::Run(options)) => Demo::start(options).and_then(Demo::watch),
        Err(message) => Err(format!("{message}; see gapura demo --help")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

/// The process of one built-in app server.
fn run_app() -> ExitCode {
    let variable = |name| env::var(name).unwrap_or_default();
    let (host, port) = (variable("HOST").parse::<IpAddr>(), variable("PORT").parse::<u16>());
    let (Ok(host), Ok(port)) = (host, port) else {
        complain("HOST and PORT must be an address and a port");
        return ExitCode::FAILURE;
    };
    match TcpListener::bind((host, port)) {
        Ok(listener) => {
            let app = app::App { name: variable("NAME"), count: AtomicU64::new(0) };
            thread::spawn(move || app::serve(&listener, app));
            lifeline::wait_for_end();
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format!("cannot listen on {host}:{port}: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "gapura demo: {message}");
}

/// What the main loop hears of.
enum Event {
    Key(u8),
    /// Ctrl-C, a signal to end, or the terminal is gone.
    End,
    /// `fg` after Ctrl-Z.
    Continued,
    /// A reload is done: whether it went well, and what was said.
    Reloaded(bool, String),
    /// The requests asked for by key are through.
    Asked,
}

struct Demo {
    // Dropped in this order: first the gateway, then what it talks to, last the files.
    gateway: Server,
    doors: Doors,
    apps: Vec<(Server, u64)>,
    tree: Tree,
    /// The tutorial's file, which people are to edit.
    file: PathBuf,
    options: Options,
    app_port: u16,
    log: Log,
    recent: VecDeque<Seen>,
    total: u64,
    failed: u64,
    asking: bool,
    message: Vec<String>,
}

impl Demo {
    /// Starts all servers and waits until the gateway listens.
    fn start(options: Options) -> Result<Demo, String> {
        let mut notes = Vec::new();
        let wished = options.port.unwrap_or(GATEWAY_PORT);
        let tree = Tree::make(options.dir.as_deref())?;
        let mut door = |wished| -> Result<SocketAddr, String> {
            let port = free_port(wished, |port| vec![(Ipv4Addr::LOCALHOST, port).into()])?;
            if port != wished {
                notes.push(format!("Port {wished} is taken; the gateway listens on {port}."));
            }
            Ok((Ipv4Addr::LOCALHOST, port).into())
        };
        let mut doors = Doors { plain: door(wished)?, https: None };
        if options.https {
            doors.https = Some(door(HTTPS_PORT)?);
            let certificate = authority::prepare(&tree.folder)?;
            notes.extend(how_to_trust(&certificate));
        }
        let (apps, app_port) = start_apps(&options, &tree.folder.join("logs"))?;
        if app_port != APP_PORT {
            notes.push(format!("Port {APP_PORT} is taken; the servers listen on {app_port}."));
        }
        let addresses: Vec<SocketAddr> = apps.iter().map(|(app, _)| app.address).collect();
        for kept in tree.write(doors, &addresses)? {
            notes.push(format!("The file of the last time is kept as {kept}."));
        }
        let mut demo = Demo {
            gateway: Server::new("gateway".to_owned(), doors.plain),
            doors,
            apps,
            log: Log::follow(&tree.folder.join("logs/access.log")),
            file: tree.proxy_file(),
            tree,
            options,
            app_port,
            recent: VecDeque::new(),
            total: 0,
            failed: 0,
            asking: false,
            message: notes,
        };
        demo.start_gateway()?;
        Ok(demo)
    }

    fn start_gateway(&mut self) -> Result<(), String> {
        let failed = |error| format!("cannot start the gateway: {error}");
        self.gateway.start_gateway(&self.tree.folder).map_err(failed)?;
        self.gateway.wait(START_MAX);
        if self.gateway.state == State::Running {
            return Ok(());
        }
        self.gateway.finish();
        // What was wrong with the configuration is said on its standard error, what happened later in its log.
        let said = ["gateway.log", "error.log"].map(|name| std::fs::read(self.logs().join(name)));
        let said = said.into_iter().flatten().find(|said| !said.is_empty()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        Err(format!("the gateway did not start:\n{}", lines[lines.len().saturating_sub(12)..].join("\n")))
    }

    fn logs(&self) -> PathBuf {
        self.tree.folder.join("logs")
    }

    /// Shows what happens and does what the keys say, until the end.
    fn watch(mut self) -> Result<(), String> {
        let (sender, events) = sync_channel(EVENTS_MAX);
        listen_for_signals(sender.clone())?;
        let keyboard = Keyboard::take();
        if keyboard.is_some() {
            let sender = sender.clone();
            thread::spawn(move || read_keys(&sender));
        }
        let mut screen = Screen::take();
        if screen.is_none() && self.introduce().is_err() {
            return Ok(());
        }
        while let Some(event) = next(&events) {
            let wanted = match event {
                Some(Event::End | Event::Key(b'q')) => false,
                Some(Event::Continued) => {
                    if let Some(keyboard) = &keyboard {
                        keyboard.again();
                    }
                    if let Some(screen) = &mut screen {
                        screen.forget();
                    }
                    true
                }
                Some(event) => {
                    self.react(event, &sender);
                    screen.is_some() || self.say_message().is_ok()
                }
                None => true,
            };
            if !wanted || self.show(&mut screen).is_err() {
                break; // nobody reads what we write: as good as the end
            }
        }
        drop(screen);
        drop(keyboard);
        self.end();
        Ok(())
    }

    fn react(&mut self, event: Event, sender: &SyncSender<Event>) {
        match event {
            Event::Key(digit @ b'1'..=b'9') => self.toggle(usize::from(digit - b'1')),
            Event::Key(b'+' | b'a') => self.add(sender),
            Event::Key(b'r') => self.reload(sender),
            Event::Key(b' ') => self.ask(sender),
            Event::Reloaded(good, said) => {
                self.message = said.lines().take(MESSAGE_LINES_MAX).map(str::to_owned).collect();
                self.message.insert(
                    0,
                    match good {
                        true => "Reloaded. Nobody was disconnected.".to_owned(),
                        false => "Refused; the configuration before it stays in force.".to_owned(),
                    },
                );
            }
            Event::Asked => self.asking = false,
            Event::Key(_) | Event::Continued | Event::End => {}
        }
    }

    /// Looks at the servers and the log, and shows what is new.
    fn show(&mut self, screen: &mut Option<Screen>) -> io::Result<()> {
        self.gateway.look();
        for (app, _) in &mut self.apps {
            if app.look() && screen.is_none() {
                say(&format!("{} {}: {:?}\n", app.name, app.address, app.state))?;
            }
        }
        let news = self.log.news();
        for seen in &news {
            self.total += 1;
            self.failed += u64::from(!seen.is_good());
            for (app, count) in &mut self.apps {
                *count += u64::from(seen.is_good() && seen.is_from(app.address));
            }
        }
        self.recent.extend(news.iter().cloned());
        self.recent.drain(..self.recent.len().saturating_sub(RECENT_MAX));
        match screen {
            Some(screen) => {
                let (columns, rows) = screen.size();
                screen.draw(&self.view().picture(columns, rows))
            }
            None => news.iter().try_for_each(|seen| say(&self.view().plain(seen))),
        }
    }

    fn view(&self) -> View<'_> {
        View {
            gateway: &self.gateway,
            doors: self.doors,
            apps: &self.apps,
            recent: &self.recent,
            total: self.total,
            failed: self.failed,
            message: &self.message,
            file: &self.file,
        }
    }
}

/// What the keys do.
impl Demo {
    /// Stops a server, or starts it again.
    fn toggle(&mut self, index: usize) {
        let logs = self.logs();
        let Some((app, _)) = self.apps.get_mut(index) else { return };
        let (name, key) = (app.name.clone(), index + 1);
        self.message = vec![match app.state {
            State::Starting | State::Running => {
                app.finish();
                format!("{name} is stopped. The others take over; press {key} to start it again.")
            }
            State::Stopped | State::Ended(_) => match app.start_app(self.options.command.as_deref(), &logs) {
                Ok(()) => format!("{name} is back. The gateway finds out by itself, within ten seconds."),
                Err(error) => format!("{name} cannot be started: {error}"),
            },
        }];
    }

    /// Starts one more server and adds it to the group in the configuration.
    fn add(&mut self, sender: &SyncSender<Event>) {
        let index = self.apps.len();
        if index >= APPS_MAX {
            self.message = vec![format!("{APPS_MAX} servers are as many as there are keys.")];
            return;
        }
        let address = app_address(index, self.app_port, self.options.command.is_some());
        match start_app(index, address, &self.options, &self.logs()) {
            Ok(app) => self.apps.push((app, 0)),
            Err(message) => {
                self.message = vec![message];
                return;
            }
        }
        match self.tree.add_server(address) {
            Ok(true) => self.reload(sender),
            Ok(false) => {
                self.message = vec![
                    format!("app{} runs, but proxy.conf has no group called wayshub any more.", index + 1),
                    format!("Add \"server {address};\" where you want it, and press r."),
                ];
            }
            Err(error) => self.message = vec![format!("proxy.conf cannot be changed: {error}")],
        }
    }

    /// Has the gateway read its configuration again; starts it where it has ended.
    fn reload(&mut self, sender: &SyncSender<Event>) {
        if matches!(self.gateway.state, State::Stopped | State::Ended(_)) {
            self.message = match self.start_gateway() {
                Ok(()) => vec!["The gateway runs again.".to_owned()],
                Err(message) => message.lines().map(str::to_owned).collect(),
            };
            return;
        }
        let (folder, sender) = (self.tree.folder.clone(), sender.clone());
        thread::spawn(move || {
            let program = env::current_exe().unwrap_or_else(|_| "gapura".into());
            let mut command = Command::new(program);
            command.arg("-p").arg(&folder).arg("-c").arg(folder.join("nginx.conf")).args(["-s", "reload"]);
            command.env(crate::start::SNIPPETS_VARIABLE, "1");
            let event = match command.stdin(Stdio::null()).output() {
                Ok(output) => Event::Reloaded(
                    output.status.success(),
                    String::from_utf8_lossy(&output.stderr).into_owned(),
                ),
                Err(error) => Event::Reloaded(false, error.to_string()),
            };
            let _ = sender.send(event);
        });
    }

    /// A few requests for the load-balanced name, for those without a browser at hand.
    fn ask(&mut self, sender: &SyncSender<Event>) {
        if std::mem::replace(&mut self.asking, true) {
            return;
        }
        let (gateway, sender) = (self.gateway.address, sender.clone());
        thread::spawn(move || {
            for _ in 0..ASKED_AT_ONCE {
                let _ = request(gateway); // whatever comes of it is in the log
            }
            let _ = sender.send(Event::Asked);
        });
    }

    /// Ends all servers, the gateway first, so that nobody sees a gateway without servers.
    fn end(mut self) {
        self.gateway.finish();
        self.apps.iter_mut().for_each(|(app, _)| app.let_go());
        self.apps.iter_mut().for_each(|(app, _)| app.finish());
        if !self.tree.temporary {
            let _ = say(&format!("The configuration and the logs stay in {}\n", self.tree.folder.display()));
        }
    }
}

/// Plain output, where the standard output is no terminal.
impl Demo {
    fn introduce(&self) -> io::Result<()> {
        let mut text = String::from("Gapura demo\n");
        for (address, what) in addresses(self.doors) {
            text += &format!("  {address:<40} {what}\n");
        }
        text += &format!("  edit {}\n", self.file.display());
        text += "  keys on a terminal: 1-9 stop or start a server, + add one, r reload, q quit\n";
        say(&text)?;
        self.say_message()
    }

    fn say_message(&self) -> io::Result<()> {
        self.message.iter().try_for_each(|line| say(&format!("{line}\n")))
    }
}

fn request(gateway: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&gateway, START_MAX)?;
    stream.set_read_timeout(Some(START_MAX))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: loadbalance.localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(1 << 20).read_to_end(&mut answer)?;
    Ok(())
}

/// Starts the app servers on the first port from [`APP_PORT`] on that is free for all of them.
fn start_apps(options: &Options, logs: &Path) -> Result<(Vec<(Server, u64)>, u16), String> {
    let own_port = options.command.is_some();
    let mut first = APP_PORT;
    loop {
        first = free_port(first, |first| {
            (0..options.apps).map(|index| app_address(index, first, own_port)).collect()
        })?;
        let mut apps = Vec::new();
        for index in 0..options.apps {
            apps.push((start_app(index, app_address(index, first, own_port), options, logs)?, 0));
        }
        if own_port {
            return Ok((apps, first)); // the user's programs may take their time
        }
        apps.iter_mut().for_each(|(app, _)| app.wait(START_MAX));
        if apps.iter().all(|(app, _)| app.state == State::Running) {
            return Ok((apps, first));
        }
        // Somebody else took the port meanwhile.
        first = first.saturating_add(1);
        if first > APP_PORT + PORTS_TRIED_MAX {
            return Err(format!("the servers do not start; see {}", logs.display()));
        }
    }
}

/// What to say about the authority of the demo.
fn how_to_trust(certificate: &Path) -> [String; 3] {
    let certificate = certificate.display();
    [
        "An authority made for this demo, good for names under localhost alone, signs for the gateway."
            .to_owned(),
        "To trust it, import this file among your browser's authorities, or hand it to curl with --cacert:"
            .to_owned(),
        format!("{certificate}"),
    ]
}

fn start_app(index: usize, address: SocketAddr, options: &Options, logs: &Path) -> Result<Server, String> {
    let mut app = Server::new(format!("app{}", index + 1), address);
    match app.start_app(options.command.as_deref(), logs) {
        Ok(()) => Ok(app),
        Err(error) => Err(format!("cannot start {}: {error}", app.name)),
    }
}

/// The first port from `wished` on at which all `addresses` can be listened on.
fn free_port(wished: u16, addresses: impl Fn(u16) -> Vec<SocketAddr>) -> Result<u16, String> {
    let last = wished.saturating_add(PORTS_TRIED_MAX);
    for port in wished..=last {
        let listeners: io::Result<Vec<TcpListener>> =
            addresses(port).into_iter().map(TcpListener::bind).collect();
        match listeners {
            Ok(_) => return Ok(port),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(format!("cannot listen on port {port}: {error}")),
        }
    }
    Err(format!("the ports {wished} to {last} are all taken"))
}

fn read_keys(sender: &SyncSender<Event>) {
    let mut key = [0];
    while matches!(io::stdin().lock().read(&mut key), Ok(1)) {
        if sender.send(Event::Key(key[0])).is_err() {
            return;
        }
    }
}

/// Turns signals into events, on a thread of its own.
fn listen_for_signals(sender: SyncSender<Event>) -> Result<(), String> {
    // SIGCONT: `fg` after Ctrl-Z.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCONT])
        .map_err(|error| format!("cannot watch for signals: {error}"))?;
    thread::spawn(move || {
        for signal in signals.forever() {
            let event = if signal == SIGCONT { Event::Continued } else { Event::End };
            let _ = sender.try_send(event);
        }
    });
    Ok(())
}

/// The next event, or none within a tick; the end when no event can come any more.
fn next(events: &Receiver<Event>) -> Option<Option<Event>> {
    match events.recv_timeout(TICK) {
        Ok(event) => Some(Some(event)),
        Err(RecvTimeoutError::Timeout) => Some(None),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}
