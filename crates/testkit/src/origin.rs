//! Origins: the servers behind the proxy, played from an `origin` block. Each listens on an address of its own and
//! answers from a script, with a fixed text, or with what it received.

use crate::client::Connection;
use crate::document::Block;
use crate::message::{Composer, Expected, Message};
use crate::ports::free_port;
use crate::text::{Places, show, unescape};
use socket2::{Domain, SockAddr, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The connections an origin may have been given in one scenario; more is a loop in the server under test.
const CONNECTIONS_MAX: usize = 4_096;

/// An origin that listens.
#[derive(Debug)]
pub struct Origin {
    shared: Arc<Shared>,
    address: SockAddr,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    behaviour: Behaviour,
    line: usize,
    stopped: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Exchanges that have been begun.
    begun: usize,
    failures: Vec<(usize, String)>,
    /// Second descriptors of the connections that are open, to end them with the scenario.
    connections: HashMap<usize, Socket>,
    accepted: usize,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
enum Behaviour {
    /// Plays the exchanges in order; from the first again when it repeats.
    Script { exchanges: Vec<Exchange>, repeats: bool },
    /// Answers every request with this body.
    Text(Vec<u8>),
    /// Answers with the request: all of it, or what is named.
    Echo(Vec<String>),
    /// Accepts, reads and never answers.
    Silent,
}

#[derive(Debug)]
struct Exchange {
    expected: Option<Expected>,
    actions: Vec<Action>,
}

#[derive(Debug)]
enum Action {
    Send(Vec<u8>),
    Wait(Duration),
    Read(Vec<u8>),
    Close,
    Reset,
}

/// The address of an origin, decided before it listens because the configuration and other origins name it.
pub fn reserve(block: &Block, number: usize, directory: &str, places: &mut Places) {
    let name = if number == 1 { "ORIGIN".to_owned() } else { format!("ORIGIN{number}") };
    if block.has("unix") {
        places.set(name.clone(), format!("unix:{directory}/{}.sock", name.to_lowercase()));
        return;
    }
    let port = free_port();
    places.set(name.clone(), format!("{}:{port}", block.value("at").unwrap_or("127.0.0.1")));
    places.set(format!("{name}_PORT"), port.to_string());
}

impl Origin {
    /// Starts the origin of a block, the `number`th of its scenario.
    ///
    /// # Errors
    /// With the line: the block cannot be read, or its address is taken.
    pub fn start(block: &Block, number: usize, places: &Places) -> Result<Self, (usize, String)> {
        let behaviour = Behaviour::parse(block, places)?;
        let name = if number == 1 { "%ORIGIN%".to_owned() } else { format!("%ORIGIN{number}%") };
        let place = places.fill(&name);
        let (socket, address) =
            listen(&place).map_err(|e| (block.line, format!("cannot listen on {place}: {e}")))?;
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared { behaviour, line: block.line, stopped: AtomicBool::new(false), state });
        let accepting = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&socket, &shared)
        });
        Ok(Self { shared, address, accepting: Some(accepting) })
    }

    /// Ends the origin and tells what was not as scripted: line of the document and words.
    pub fn stop(mut self) -> Vec<(usize, String)> {
        self.end();
        let mut state = self.shared.state();
        let mut failures = std::mem::take(&mut state.failures);
        if let Behaviour::Script { exchanges, repeats: false } = &self.shared.behaviour
            && state.begun < exchanges.len()
        {
            let message = format!("the origin got {} of {} requests", state.begun, exchanges.len());
            failures.push((self.shared.line, message));
        }
        failures
    }

    fn end(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.shared.stopped.store(true, Ordering::SeqCst);
        // A connection of our own wakes the thread that accepts.
        if let Ok(socket) = Socket::new(Domain::from(i32::from(self.address.family())), Type::STREAM, None) {
            let _ = socket.connect(&self.address);
        }
        let _ = accepting.join();
        let (connections, threads) = {
            let mut state = self.shared.state();
            (std::mem::take(&mut state.connections), std::mem::take(&mut state.threads))
        };
        for connection in connections.into_values() {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.end();
    }
}

fn listen(place: &str) -> io::Result<(Socket, SockAddr)> {
    let (domain, address) = match place.strip_prefix("unix:") {
        Some(path) => (Domain::UNIX, SockAddr::unix(path)?),
        None => {
            let address: SocketAddr = place.parse().map_err(io::Error::other)?;
            (Domain::for_address(address), address.into())
        }
    };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    if domain != Domain::UNIX {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address)?;
    if let Some(path) = place.strip_prefix("unix:") {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    }
    socket.listen(128)?;
    Ok((socket, address))
}

fn accept(socket: &Socket, shared: &Arc<Shared>) {
    while let Ok((connection, _)) = socket.accept() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let mut state = shared.state();
        let number = state.accepted;
        state.accepted += 1;
        if number >= CONNECTIONS_MAX {
            state
                .failures
                .push((shared.line, format!("more than {CONNECTIONS_MAX} connections to the origin")));
            return;
        }
        state.connections.extend(connection.try_clone().map(|twin| (number, twin)));
        let shared = Arc::clone(shared);
        state.threads.push(std::thread::spawn(move || {
            let ended = shared.serve(Connection::accepted(connection), number + 1);
            // The twin goes first: a connection is closed, or reset, when its last descriptor is.
            shared.state().connections.remove(&number);
            drop(ended);
        }));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, line: usize, message: String) {
        self.state().failures.push((line, message));
    }

    /// Answers until the connection is to end, and gives it back for that.
    fn serve(&self, mut connection: Connection, number: usize) -> Connection {
        // What arrives broken is told by the server under test; the origin just hangs up.
        while let Ok(Some(request)) = connection.request() {
            let last = request.lists("connection", "close")
                || request.start.ends_with(b"/1.0") && !request.lists("connection", "keep-alive");
            let stays = match &self.behaviour {
                Behaviour::Script { exchanges, repeats } => {
                    self.play(exchanges, *repeats, &request, &mut connection).is_some()
                }
                Behaviour::Text(body) => connection.send(&reply(&request, body), false).is_ok(),
                Behaviour::Echo(names) => {
                    let told = [("client", connection.peer()), ("connection", number.to_string())];
                    connection.send(&reply(&request, &echo(&request, names, &told)), false).is_ok()
                }
                Behaviour::Silent => continue,
            };
            if !stays || last {
                break;
            }
        }
        connection
    }

    /// Plays the next exchange; none when the connection is to end.
    fn play(
        &self,
        exchanges: &[Exchange],
        repeats: bool,
        request: &Message,
        connection: &mut Connection,
    ) -> Option<()> {
        let begun = {
            let mut state = self.state();
            state.begun += 1;
            state.begun - 1
        };
        let exchange =
            if repeats { exchanges.get(begun % exchanges.len().max(1)) } else { exchanges.get(begun) };
        let Some(exchange) = exchange else {
            self.fail(self.line, format!("a request the origin has no exchange for:\n{}", request.shown()));
            return None;
        };
        for (line, message) in exchange.expected.iter().flat_map(|e| e.compare(request)) {
            self.fail(
                line,
                format!("the origin received something else: {message}\nin\n{}", request.shown()),
            );
        }
        for action in &exchange.actions {
            match action {
                Action::Send(bytes) => connection.send(bytes, false).ok()?,
                Action::Wait(time) => std::thread::sleep(*time),
                Action::Read(bytes) => match connection.bytes(bytes.len()) {
                    Ok(got) if got == *bytes => {}
                    Ok(got) => {
                        self.fail(self.line, format!("expected \"{}\", got \"{}\"", show(bytes), show(&got)))
                    }
                    Err(error) => self.fail(self.line, error),
                },
                Action::Close => return None,
                Action::Reset => {
                    connection.reset();
                    return None;
                }
            }
        }
        Some(())
    }
}

fn reply(request: &Message, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
    let body = if request.start.starts_with(b"HEAD ") { &[] } else { body };
    [head.as_bytes(), body].concat()
}

/// The request, or of it `line`, `uri`, `body` and fields by name, one a line; `!Name` for a field it has not. `told`
/// is what is known of the connection, by name.
fn echo(request: &Message, names: &[String], told: &[(&str, String)]) -> Vec<u8> {
    if names.is_empty() {
        return request.shown().into_bytes();
    }
    let mut lines = Vec::new();
    for name in names {
        if let Some((_, value)) = told.iter().find(|(told, _)| told == name) {
            lines.push(format!("{name}: {value}"));
            continue;
        }
        match name.as_str() {
            "line" => lines.push(show(&request.start)),
            "uri" => lines.push(show(&request.start).split(' ').nth(1).unwrap_or_default().to_owned()),
            "body" => lines.push(show(&request.body)),
            _ => {
                let before = lines.len();
                lines.extend(request.values(name.as_bytes()).map(|value| format!("{name}: {}", show(value))));
                if lines.len() == before {
                    lines.push(format!("!{name}"));
                }
            }
        }
    }
    lines.join("\n").into_bytes()
}

impl Behaviour {
    fn parse(block: &Block, places: &Places) -> Result<Self, (usize, String)> {
        if block.has("silent") {
            return Ok(Self::Silent);
        }
        if block.has("echo") {
            return Ok(Self::Echo(block.lines().map(|(_, name)| name.trim().to_owned()).collect()));
        }
        if block.has("text") {
            let text = unescape(&places.fill(&block.text)).map_err(|e| (block.line, e))?;
            return Ok(Self::Text(text));
        }
        Ok(Self::Script { exchanges: parse_script(block, places)?, repeats: block.has("repeat") })
    }
}

/// Reads `> expected`, `< sent` and `= done` lines; an exchange begins where `>` follows something else.
fn parse_script(block: &Block, places: &Places) -> Result<Vec<Exchange>, (usize, String)> {
    let mut exchanges = Vec::new();
    let mut expected: Vec<(usize, &str)> = Vec::new();
    let mut done: Vec<(usize, char, &str)> = Vec::new();
    for (line, text) in block.lines() {
        let mark = text.chars().next().unwrap_or(' ');
        let rest = text.get(1..).map_or("", |rest| rest.strip_prefix(' ').unwrap_or(rest));
        match mark {
            '>' => {
                if !done.is_empty() {
                    exchanges.push(exchange(&expected, &done, places)?);
                    expected.clear();
                    done.clear();
                }
                expected.push((line, rest));
            }
            '<' | '=' => done.push((line, mark, rest)),
            ' ' | '#' => {}
            _ => return Err((line, "lines of a script begin with >, <, = or #".to_owned())),
        }
    }
    if done.is_empty() {
        return Err((block.line, "the script does not say what to answer".to_owned()));
    }
    exchanges.push(exchange(&expected, &done, places)?);
    Ok(exchanges)
}

fn exchange(
    expected: &[(usize, &str)],
    done: &[(usize, char, &str)],
    places: &Places,
) -> Result<Exchange, (usize, String)> {
    let expected = match expected {
        [] => None,
        lines => Some(Expected::parse(lines.iter().copied(), places, false, false)?),
    };
    let mut composer = Composer::new(places, false, false);
    let mut actions = Vec::new();
    let mut sends = false;
    for (line, mark, text) in done {
        if *mark == '<' {
            composer.push(text).map_err(|e| (*line, e))?;
            sends = true;
            continue;
        }
        actions.push(Action::Send(composer.cut()));
        actions.push(Action::parse(text, places).map_err(|e| (*line, e))?);
    }
    let rest = if matches!(actions.last(), Some(Action::Close | Action::Reset)) || !sends {
        composer.cut()
    } else {
        composer.finish()
    };
    actions.push(Action::Send(rest));
    actions.retain(|action| !matches!(action, Action::Send(bytes) if bytes.is_empty()));
    Ok(Exchange { expected, actions })
}

impl Action {
    fn parse(text: &str, places: &Places) -> Result<Self, String> {
        match text.split_once(' ').unwrap_or((text, "")) {
            ("close", "") => Ok(Self::Close),
            ("reset", "") => Ok(Self::Reset),
            ("read", bytes) => Ok(Self::Read(unescape(&places.fill(bytes))?)),
            ("wait", time) => {
                let ms = time.strip_suffix("ms").and_then(|t| t.parse().ok()).filter(|ms| *ms <= 10_000);
                ms.map(|ms| Self::Wait(Duration::from_millis(ms)))
                    .ok_or_else(|| "write wait 200ms".to_owned())
            }
            _ => Err(format!("\"= {text}\" is none of close, reset, wait, read")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(words: &str, text: &str) -> Block {
        let words = words.split_whitespace().map(str::to_owned).collect();
        Block { kind: "origin".to_owned(), words, line: 1, text: text.to_owned(), empty: text.is_empty() }
    }

    /// What one request after another over one connection gets, and what the origin says at the end.
    fn played(words: &str, script: &str, requests: &[&str]) -> (Vec<String>, usize) {
        let block = block(words, script);
        let mut places = Places::default();
        reserve(&block, 1, "/nowhere", &mut places);
        let origin = Origin::start(&block, 1, &places).unwrap();
        let mut connection = Connection::open(&places.fill("%ORIGIN%"), None).unwrap();
        let mut answers = Vec::new();
        for request in requests {
            connection.send(request.as_bytes(), false).unwrap();
            answers.push(match connection.response(false, false) {
                Ok(crate::client::Answer::Message(message)) => show(&message.body),
                Ok(crate::client::Answer::Closed) => "closed".to_owned(),
                Err(error) => error.split(';').next().unwrap().to_owned(),
            });
        }
        (answers, origin.stop().len())
    }

    #[test]
    fn origins_answer_as_their_block_says() {
        let get = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
        let script = "> GET /a\n> Host: x\n< HTTP/1.1 200 OK\n< Content-Length: 2\n<\n= wait 1ms\n< hi";
        for (words, text, requests, answers, failures) in [
            ("text", "one", vec![get, get], vec!["one", "one"], 0),
            ("echo", "uri\nHost\nX-A", vec![get], vec!["/a\nHost: x\n!X-A"], 0),
            ("echo", "client\nconnection", vec![get], vec!["client: 127.0.0.1\nconnection: 1"], 0),
            ("", script, vec![get], vec!["hi"], 0),
            ("", script, vec![], vec![], 1),
            ("", script, vec![get, get], vec!["hi", "closed"], 1),
            ("repeat", script, vec![get, get], vec!["hi", "hi"], 0),
            ("", "> GET /b\n= close", vec![get], vec!["closed"], 1),
            ("", "= reset", vec![get], vec!["closed"], 0),
            (
                "",
                "< HTTP/1.1 200 OK\n< Content-Length: 9\n<\n< hi\n= close",
                vec![get],
                vec!["the connection ended after 2 of 9 bytes of the body"],
                0,
            ),
        ] {
            assert_eq!(
                played(words, text, &requests),
                (answers.iter().map(ToString::to_string).collect(), failures),
                "{text}"
            );
        }
    }

    #[test]
    fn wrong_scripts_are_refused() {
        for text in ["", "> GET /", "x", "= sleep", "= wait 1s", "< \\q"] {
            assert!(Behaviour::parse(&block("", text), &Places::default()).is_err(), "{text}");
        }
    }
}
