//! The threads of a worker: each has an event loop, accepts from every listening socket, and serves.

use crate::balance::{Balance, HANDED_OVER_MAX, HandedOver, Mine};
use crate::identity::{Identity, Layout};
use crate::site::Loaded;
use conf::Level;
use engine::Snapshot;
use engine::race::{First, race};
use engine::thread::Process;
use net::accept::Acceptor;
use net::errno::{Errno, ErrnoMessage};
use net::listen::Listener;
use net::log::file::LogFile;
use net::thread::{Mailbox, Sender, mailbox, spawn_local};
use net::timer::{Deadline, Timer};
use rustix::event::{EventfdFlags, eventfd};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// More than the main thread ever sends before a thread looks.
const COMMANDS_MAX: usize = 64;
/// How long all threads may take to follow a command.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take until a configuration is dropped that nobody uses any more.
const OLD_PAUSE: Duration = Duration::from_millis(500);
/// How long a thread may take to stop accepting.
const QUIT_PATIENCE: Duration = Duration::from_secs(1);

/// What is served. Immutable.
pub struct Generation {
    /// The configuration.
    pub loaded: Loaded,
    /// What it compiled to.
    pub snapshot: Arc<Snapshot>,
    /// Its log files, kept open.
    #[expect(dead_code, reason = "only held")]
    pub log_files: Vec<Arc<LogFile>>,
}

/// The running threads.
pub struct Service {
    threads: Vec<Thread>,
    /// Readable once a thread has ended.
    ended: Arc<OwnedFd>,
    /// What is in force.
    snapshot: Arc<Snapshot>,
    /// What was in force before, and is still used by requests. The last hold on each is here: a large one takes a
    /// while to take apart, which is not to keep a thread from serving.
    old: Vec<Arc<Snapshot>>,
}

struct Thread {
    commands: Sender<Command>,
    handle: JoinHandle<()>,
    has_ended: Arc<AtomicBool>,
}

enum Command {
    /// Serve this from now on, on these sockets alone, and say when.
    Serve(Arc<Generation>, Vec<Arc<OwnedFd>>, mpsc::Sender<Result<(), Errno>>),
    /// Accept nothing more, say so, and end with the last connection.
    Quit(mpsc::Sender<()>),
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
    pub fn start(
        generation: Arc<Generation>,
        listeners: &[Listener],
        layout: &Layout,
        identity: Identity,
    ) -> Result<Service, String> {
        let ended = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let ended = Arc::new(ended.map_err(|errno| format!("eventfd() failed ({})", ErrnoMessage(errno)))?);
        let count = generation.loaded.essentials.threads;
        let (doors, mailboxes): (Vec<_>, Vec<_>) = (0..count).map(|_| mailbox(HANDED_OVER_MAX)).unzip();
        let balance = Arc::new(Balance::new(doors));
        let process = Arc::new(Process::new(
            &layout.prefix,
            rustix::system::uname().nodename().to_bytes(),
            identity.product(),
        ));
        let essentials = &generation.loaded.essentials;
        // As nginx's, a process without a master runs where it likes.
        let affinity = essentials.affinity.as_ref().filter(|_| essentials.master_process);
        let machine = std::thread::available_parallelism().map_or(1, usize::from);
        let snapshot = generation.snapshot.clone();
        let mut service = Service { threads: Vec::new(), ended, snapshot, old: Vec::new() };
        for (number, handed_over) in mailboxes.into_iter().enumerate() {
            let balance = balance.clone();
            let (commands, orders) = mailbox(COMMANDS_MAX);
            let has_ended = Arc::new(AtomicBool::new(false));
            let (process, first) = (process.clone(), generation.snapshot.clone());
            let ended = Ended { has_ended: has_ended.clone(), event: service.ended.clone() };
            let processors = affinity.as_ref().map(|affinity| affinity.of_thread(number, machine));
            let handle = net::thread::spawn(&format!("worker-{number}"), move || async move {
                let _ended = ended;
                let serving = engine::thread::Thread::new(process, first);
                if let Some(processors) = processors {
                    stay_on(&processors, &serving);
                }
                let mine = Mine { balance, number };
                spawn_local(take_over(serving.clone(), handed_over));
                thread(serving, mine, orders).await;
            });
            let handle = handle.map_err(|error| format!("could not start a thread: {error}"))?;
            service.threads.push(Thread { commands, handle, has_ended });
        }
        service.serve(generation, listeners)?;
        Ok(service)
    }

    /// Makes all threads serve another generation on these sockets alone, and waits until they do. On an error, in
    /// words, some may.
    pub fn serve(&mut self, generation: Arc<Generation>, listeners: &[Listener]) -> Result<(), String> {
        let sockets: Vec<Arc<OwnedFd>> = listeners.iter().map(|listener| listener.socket.clone()).collect();
        // Peers of upstreams that stay keep what is known of them.
        if !Arc::ptr_eq(&self.snapshot, &generation.snapshot) {
            generation.snapshot.carry_from(&self.snapshot);
        }
        let (answer, answers) = mpsc::channel();
        self.tell_all(|| Command::Serve(generation.clone(), sockets.clone(), answer.clone()));
        drop(answer);
        for _ in &self.threads {
            match answers.recv_timeout(PATIENCE) {
                Ok(Ok(())) => {}
                Ok(Err(errno)) => return Err(format!("could not watch a socket ({})", ErrnoMessage(errno))),
                Err(_) => return Err("a thread does not answer".to_owned()),
            }
        }
        let before = std::mem::replace(&mut self.snapshot, generation.snapshot.clone());
        if !Arc::ptr_eq(&before, &self.snapshot) {
            self.old.push(before);
        }
        Ok(())
    }

    /// Lets the threads finish what they serve. When it returns they accept nothing more.
    pub fn quit(&self) {
        let (answer, answers) = mpsc::channel();
        self.tell_all(|| Command::Quit(answer.clone()));
        drop(answer);
        for _ in &self.threads {
            // One that has ended does not answer, and accepts nothing either.
            let _ = answers.recv_timeout(QUIT_PATIENCE);
        }
    }

    /// Ends the threads now, and waits for them.
    pub fn stop(&mut self) {
        self.tell_all(|| Command::Stop);
        for thread in std::mem::take(&mut self.threads) {
            // A panic was reported by the thread itself.
            let _ = thread.handle.join();
        }
    }

    /// Drops the configurations before that nobody uses any more. When to look again, while there are others.
    pub fn forget_old(&mut self) -> Option<Duration> {
        self.old.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        (!self.old.is_empty()).then_some(OLD_PAUSE)
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

/// One thread: follows commands until it is told to end.
/// Keeps this thread on some processors; none leaves it where it is.
fn stay_on(processors: &[usize], serving: &engine::thread::Thread) {
    let snapshot = serving.snapshot();
    let mut set = CpuSet::new();
    for processor in processors {
        set.set(*processor);
        let text = format_args!("sched_setaffinity(): using cpu #{processor}");
        serving.log(&snapshot, Level::Notice, None, text);
    }
    if !processors.is_empty()
        && let Err(errno) = sched_setaffinity(None, &set)
    {
        let text = format_args!("sched_setaffinity() failed ({})", ErrnoMessage(errno));
        serving.log(&snapshot, Level::Alert, None, text);
    }
}

async fn thread(serving: Rc<engine::thread::Thread>, mine: Mine, mut orders: Mailbox<Command>) {
    let mut acceptors: Vec<(Arc<OwnedFd>, tokio::task::JoinHandle<()>)> = Vec::new();
    let logging = Rc::downgrade(&serving);
    net::log::on_failure(move |failure| {
        if let Some(serving) = logging.upgrade() {
            let message = format_args!("{failure} while logging request");
            serving.log(&serving.snapshot(), Level::Alert, None, message);
        }
    });
    loop {
        let command = match race(orders.recv(), drained(&serving, &mine)).await {
            First::Left(command) => command,
            First::Right(()) => return,
        };
        match command {
            Some(Command::Serve(generation, sockets, answer)) => {
                let result = follow(&serving, &mine, &mut acceptors, &generation, &sockets);
                // Where nobody waits any more nobody needs the answer.
                let _ = answer.send(result);
            }
            Some(Command::Quit(answer)) => {
                for (_, task) in acceptors.drain(..) {
                    task.abort();
                }
                serving.begin_stopping();
                // Where nobody waits any more nobody needs the answer.
                let _ = answer.send(());
            }
            Some(Command::Stop) | None => return,
        }
    }
}

/// Ready once the server is about to stop and neither here nor on the way here there is a connection.
async fn drained(serving: &engine::thread::Thread, mine: &Mine) {
    loop {
        serving.drained().await;
        if mine.load() == 0 {
            return;
        }
        // One is in the mailbox: it is taken in the next turn.
        Timer::new().sleep(Deadline::after(Duration::from_millis(1))).await;
    }
}

fn follow(
    serving: &Rc<engine::thread::Thread>,
    mine: &Mine,
    acceptors: &mut Vec<(Arc<OwnedFd>, tokio::task::JoinHandle<()>)>,
    generation: &Generation,
    sockets: &[Arc<OwnedFd>],
) -> Result<(), Errno> {
    let wanted = |socket: &Arc<OwnedFd>| sockets.iter().any(|one| Arc::ptr_eq(one, socket));
    let mut added = Vec::new();
    for socket in sockets {
        if !acceptors.iter().any(|(known, _)| Arc::ptr_eq(known, socket)) {
            added.push((socket.clone(), Acceptor::new(socket.clone())?));
        }
    }
    acceptors.retain(|(socket, task)| {
        if !wanted(socket) {
            task.abort();
        }
        wanted(socket)
    });
    serving.put_in_force(generation.snapshot.clone());
    for (socket, acceptor) in added {
        acceptors.push((socket, spawn_local(accept(serving.clone(), mine.clone(), acceptor))));
    }
    Ok(())
}

async fn accept(serving: Rc<engine::thread::Thread>, mine: Mine, mut acceptor: Acceptor) {
    let listen = Arc::new(acceptor.address().clone());
    loop {
        match acceptor.accept().await {
            Ok(accepted) => {
                let listen = listen.clone();
                let handed_over = HandedOver { accepted, listen, load: mine.balance.place(mine.number) };
                if let Some(kept) = mine.balance.hand_over(mine.number, handed_over) {
                    serve(&serving, kept);
                }
            }
            Err(errno) => accept_failed(&serving, errno),
        }
    }
}

fn accept_failed(serving: &engine::thread::Thread, errno: Errno) {
    let snapshot = serving.snapshot();
    let message = format_args!("accept4() failed ({})", ErrnoMessage(errno));
    let level = match errno {
        Errno::CONNABORTED => Level::Error,
        Errno::MFILE | Errno::NFILE => Level::Crit,
        _ => Level::Alert,
    };
    serving.log(&snapshot, level, None, message);
}

/// Serves the connections that other threads accepted.
async fn take_over(serving: Rc<engine::thread::Thread>, mut mailbox: Mailbox<HandedOver>) {
    while let Some(handed_over) = mailbox.recv().await {
        serve(&serving, handed_over);
    }
}

fn serve(serving: &Rc<engine::thread::Thread>, handed_over: HandedOver) {
    let HandedOver { accepted, listen, load } = handed_over;
    if !serving.has_room() {
        return;
    }
    match accepted.into_stream() {
        Ok((stream, ends)) => {
            spawn_local(engine::connection::serve(serving.clone(), stream, ends, listen, load));
        }
        Err(errno) => accept_failed(serving, errno),
    }
}
