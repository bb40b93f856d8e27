//! The threads of a worker: each has an event loop, accepts from every listening socket, and serves.

use crate::site::Loaded;
use net::accept::Acceptor;
use net::errno::{Errno, ErrnoMessage};
use net::listen::Listener;
use net::log::file::LogFile;
use net::thread::{Mailbox, Sender, mailbox, spawn_local};
use rustix::event::{EventfdFlags, eventfd};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

/// More than the main thread ever sends before a thread looks.
const COMMANDS_MAX: usize = 64;
/// How long all threads may take to follow a command.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is served: a configuration with its sockets. Immutable.
pub struct Generation {
    /// The configuration.
    pub loaded: Loaded,
    /// Its sockets; one for every address that needs one.
    pub listeners: Vec<Listener>,
    /// Its log files, kept open.
    #[expect(dead_code, reason = "only held")]
    pub log_files: Vec<Arc<LogFile>>,
}

/// The running threads.
pub struct Service {
    threads: Vec<Thread>,
    /// Readable once a thread has ended.
    ended: Arc<OwnedFd>,
}

struct Thread {
    commands: Sender<Command>,
    handle: JoinHandle<()>,
    has_ended: Arc<AtomicBool>,
}

enum Command {
    /// Serve this from now on, and say when.
    Serve(Arc<Generation>, mpsc::Sender<Result<(), Errno>>),
    /// Accept nothing more, and end with the last connection.
    Quit,
    /// End now.
    Stop,
}

/// How the threads are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Some run.
    Running,
    /// All have ended in order.
    Ended,
    /// One has panicked.
    Broken,
}

impl Service {
    /// Starts the threads. On an error, in words, nothing runs.
    pub fn start(generation: Arc<Generation>) -> Result<Service, String> {
        let ended = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let ended = Arc::new(ended.map_err(|errno| format!("eventfd() failed ({})", ErrnoMessage(errno)))?);
        let mut service = Service { threads: Vec::new(), ended };
        for number in 0..generation.loaded.essentials.threads {
            let (commands, orders) = mailbox(COMMANDS_MAX);
            let has_ended = Arc::new(AtomicBool::new(false));
            let ended = Ended { has_ended: has_ended.clone(), event: service.ended.clone() };
            let handle = net::thread::spawn(&format!("worker-{number}"), move || async move {
                let _ended = ended;
                thread(orders).await;
            });
            let handle = handle.map_err(|error| format!("could not start a thread: {error}"))?;
            service.threads.push(Thread { commands, handle, has_ended });
        }
        service.serve(generation)?;
        Ok(service)
    }

    /// Makes all threads serve another generation, and waits until they do. On an error, in words, some may.
    pub fn serve(&self, generation: Arc<Generation>) -> Result<(), String> {
        let (answer, answers) = mpsc::channel();
        self.tell_all(|| Command::Serve(generation.clone(), answer.clone()));
        drop(answer);
        for _ in &self.threads {
            match answers.recv_timeout(PATIENCE) {
                Ok(Ok(())) => {}
                Ok(Err(errno)) => return Err(format!("could not watch a socket ({})", ErrnoMessage(errno))),
                Err(_) => return Err("a thread does not answer".to_owned()),
            }
        }
        Ok(())
    }

    /// Lets the threads finish what they serve.
    pub fn quit(&self) {
        self.tell_all(|| Command::Quit);
    }

    /// Ends the threads now, and waits for them.
    pub fn stop(&mut self) {
        self.tell_all(|| Command::Stop);
        for thread in std::mem::take(&mut self.threads) {
            // A panic was reported by the thread itself.
            let _ = thread.handle.join();
        }
    }

    /// How far the threads are.
    pub fn progress(&mut self) -> Progress {
        let mut count = [0; 8];
        // Nothing to read where none has ended since.
        let _ = rustix::io::read(&*self.ended, &mut count);
        let (ended, running): (Vec<Thread>, Vec<Thread>) = std::mem::take(&mut self.threads)
            .into_iter()
            .partition(|thread| thread.has_ended.load(Ordering::Acquire));
        self.threads = running;
        let broken = ended.into_iter().any(|thread| thread.handle.join().is_err());
        match (broken, self.threads.is_empty()) {
            (true, _) => Progress::Broken,
            (false, true) => Progress::Ended,
            (false, false) => Progress::Running,
        }
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for thread in &self.threads {
            // A thread that has ended needs no telling; one whose mailbox is full will be missed by `serve`.
            let _ = thread.commands.try_send(command());
        }
    }
}

impl AsFd for Service {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}

/// Tells the main thread, also when the thread panics.
struct Ended {
    has_ended: Arc<AtomicBool>,
    event: Arc<OwnedFd>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Release);
        // The counter cannot overflow with so few threads.
        let _ = rustix::io::write(&*self.event, &1u64.to_ne_bytes());
    }
}

/// What the tasks of one thread share.
struct Shared {
    generation: RefCell<Option<Arc<Generation>>>,
    connections: std::cell::Cell<usize>,
    /// A connection has ended.
    changed: tokio::sync::Notify,
    /// Idle connections are to end.
    quit: tokio::sync::Notify,
    is_quitting: std::cell::Cell<bool>,
}

/// One thread: follows commands until it is told to end.
async fn thread(mut orders: Mailbox<Command>) {
    let shared = Rc::new(Shared {
        generation: RefCell::default(),
        connections: Default::default(),
        changed: tokio::sync::Notify::new(),
        quit: tokio::sync::Notify::new(),
        is_quitting: Default::default(),
    });
    let mut acceptors: Vec<(Arc<OwnedFd>, tokio::task::JoinHandle<()>)> = Vec::new();
    loop {
        let quitting = shared.is_quitting.get();
        let drained = async {
            match quitting {
                true => shared.changed.notified().await,
                false => std::future::pending().await,
            }
        };
        let command = match first(orders.recv(), drained).await {
            First::One(command) => command,
            First::Other(()) if shared.connections.get() == 0 => return,
            First::Other(()) => continue,
        };
        match command {
            Some(Command::Serve(generation, answer)) => {
                let result = follow(&shared, &mut acceptors, generation);
                // Where nobody waits any more nobody needs the answer.
                let _ = answer.send(result);
            }
            Some(Command::Quit) => {
                for (_, task) in acceptors.drain(..) {
                    task.abort();
                }
                shared.is_quitting.set(true);
                shared.quit.notify_waiters();
                shared.changed.notify_one();
            }
            Some(Command::Stop) | None => return,
        }
    }
}

fn follow(
    shared: &Rc<Shared>,
    acceptors: &mut Vec<(Arc<OwnedFd>, tokio::task::JoinHandle<()>)>,
    generation: Arc<Generation>,
) -> Result<(), Errno> {
    let wanted =
        |socket: &Arc<OwnedFd>| generation.listeners.iter().any(|one| Arc::ptr_eq(&one.socket, socket));
    let mut added = Vec::new();
    for listener in &generation.listeners {
        if !acceptors.iter().any(|(socket, _)| Arc::ptr_eq(socket, &listener.socket)) {
            added.push((listener.socket.clone(), Acceptor::new(listener.socket.clone())?));
        }
    }
    acceptors.retain(|(socket, task)| {
        if !wanted(socket) {
            task.abort();
        }
        wanted(socket)
    });
    shared.generation.replace(Some(generation));
    for (socket, acceptor) in added {
        acceptors.push((socket, spawn_local(accept(shared.clone(), acceptor))));
    }
    Ok(())
}

async fn accept(shared: Rc<Shared>, mut acceptor: Acceptor) {
    loop {
        // Failures belong to the engine's error log.
        let Ok(accepted) = acceptor.accept().await else { continue };
        let address = acceptor.address().clone();
        let Ok(stream) = accepted.into_stream() else { continue };
        let shared = shared.clone();
        shared.connections.set(shared.connections.get() + 1);
        spawn_local(async move {
            placeholder::serve(&shared, stream, address).await;
            shared.connections.set(shared.connections.get() - 1);
            shared.changed.notify_one();
        });
    }
}

/// Which of two futures was ready.
enum First<A, B> {
    One(A),
    Other(B),
}

/// Waits for either; the first one is asked first.
async fn first<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> First<A, B> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| {
        if let Poll::Ready(value) = one.as_mut().poll(cx) {
            return Poll::Ready(First::One(value));
        }
        other.as_mut().poll(cx).map(First::Other)
    })
    .await
}

/// Stands in for the engine: one fixed answer to every head.
mod placeholder {
    use super::{First, Shared, first};
    use net::address::Address;
    use net::stream::Stream;
    use net::timer::Deadline;
    use std::io::IoSlice;
    use std::time::Duration;

    pub(super) async fn serve(shared: &Shared, mut stream: Stream, address: Address) {
        let mut head = Vec::new();
        loop {
            while !head.windows(4).any(|four| four == b"\r\n\r\n") {
                let idle = head.is_empty();
                let mut buffer = [0; 4096];
                let quit = async {
                    match idle {
                        true => shared.quit.notified().await,
                        false => std::future::pending().await,
                    }
                };
                let read = stream.read(&mut buffer, Deadline::after(Duration::from_secs(60)));
                let First::One(count) = first(read, quit).await else { return };
                match count {
                    Ok(count) if count > 0 => head.extend_from_slice(&buffer[..count]),
                    _ => return,
                }
            }
            head.clear();
            let Some(generation) = shared.generation.borrow().clone() else { return };
            let answers = &generation.loaded.plan.answers;
            let found = answers.iter().find(|(known, _, _)| *known == address);
            let (status, body) = found.map_or((503, &b""[..]), |(_, status, body)| (*status, body));
            let keep = if shared.is_quitting.get() { "close" } else { "keep-alive" };
            let length = body.len();
            let mut answer = format!(
                "HTTP/1.1 {status} Placeholder\r\nContent-Length: {length}\r\nConnection: {keep}\r\n\r\n"
            )
            .into_bytes();
            answer.extend_from_slice(body);
            if stream
                .write_all(&mut [IoSlice::new(&answer)], Deadline::after(Duration::from_secs(5)))
                .await
                .is_err()
                || keep == "close"
            {
                return;
            }
        }
    }
}
