//! The threads of a worker: each has an event loop, accepts from every listening socket, and serves.
//!
//! The first of them is the one that started the others. With one thread the process has no other, unless for work that
//! takes a while: the kernel counts each use of a descriptor where threads share them, which costs a small request a
//! fiftieth of its time.

use crate::balance::{Balance, HANDED_OVER_MAX, HandedOver, Mine};
use crate::certificates::Certificates;
use crate::identity::{Identity, Layout};
use crate::site::Loaded;
use conf::Level;
use engine::Snapshot;
use engine::acme::vault::Call;
use engine::race::{First, race};
use engine::thread::Process;
use net::accept::Acceptor;
use net::errno::{Errno, ErrnoMessage};
use net::listen::Listener;
use net::log::file::LogFile;
use net::log::syslog::Severity;
use net::thread::{Mailbox, Sender, Task, aside, mailbox, spawn_local};
use net::timer::{Deadline, Timer};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// More than the main thread ever sends before a thread looks.
const COMMANDS_MAX: usize = 64;
/// How long all threads may take to follow a command.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take until a configuration is dropped that nobody uses any more.
const OLD_PAUSE: Duration = Duration::from_millis(500);
/// How long all threads may take to stop accepting.
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

/// The running threads. Dropping it stops none.
pub struct Service {
    /// The way to each that was started.
    commands: Vec<Sender<Command>>,
    /// Those besides this one.
    others: Vec<JoinHandle<()>>,
    /// Each tells once that it has ended: in order, or in a panic.
    ended: Mailbox<Progress>,
    running: usize,
    /// Where the process may run when its threads are not bound to processors.
    processors: Option<CpuSet>,
    /// Looks after certificates, where there are issuers.
    certificates: Certificates,
    /// What is in force.
    snapshot: Arc<Snapshot>,
    /// What was in force before, and is still used by requests. The last hold on each is here: a large one takes a
    /// while to take apart, which is not to keep a thread from serving.
    old: Vec<Arc<Snapshot>>,
}

enum Command {
    /// Serve this from now on, on these sockets alone, and say when.
    Serve(Arc<Generation>, Vec<Arc<OwnedFd>>, Sender<Result<(), Errno>>),
    /// Accept nothing more, say so, and end with the last connection.
    Quit(Sender<()>),
    /// End now.
    Stop,
}

/// How threads ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// In order.
    Ended,
    /// In a panic.
    Broken,
}

/// What the threads say.
pub enum News {
    /// All have ended, or one in a panic.
    Ended(Progress),
    /// Something is to be done with files.
    Call(Call),
}

impl Service {
    /// Starts the threads; on this one, which has an event loop, what serves is a task. On an error, in words, nothing
    /// is served.
    pub async fn start(
        generation: Arc<Generation>,
        listeners: &[Listener],
        layout: &Layout,
        identity: Identity,
    ) -> Result<Service, String> {
        let essentials = &generation.loaded.essentials;
        let count = essentials.threads.max(1);
        let (doors, mailboxes): (Vec<_>, Vec<_>) = (0..count).map(|_| mailbox(HANDED_OVER_MAX)).unzip();
        let balance = Arc::new(Balance::new(doors));
        let process = Arc::new(Process::new(
            &layout.prefix,
            rustix::system::uname().nodename().to_bytes(),
            identity.product(),
        ));
        // As nginx's, a process without a master runs where it likes.
        let affinity = essentials.affinity.as_ref().filter(|_| essentials.master_process);
        let machine = std::thread::available_parallelism().map_or(1, usize::from);
        let (end, ended) = mailbox(count);
        let mut service = Service {
            commands: Vec::new(),
            others: Vec::new(),
            ended,
            running: 0,
            processors: affinity.and_then(|_| sched_getaffinity(None).ok()),
            certificates: Certificates::new(process.clone()),
            snapshot: generation.snapshot.clone(),
            old: Vec::new(),
        };
        for (number, handed_over) in mailboxes.into_iter().enumerate() {
            let (commands, orders) = mailbox(COMMANDS_MAX);
            let beginning = Beginning {
                process: process.clone(),
                first: generation.snapshot.clone(),
                mine: Mine { balance: balance.clone(), number },
                handed_over,
                orders,
                processors: affinity.map(|affinity| affinity.of_thread(number, machine)),
                ended: Ended(end.clone()),
            };
            if number == 0 {
                spawn_local(beginning.serve());
            } else {
                let handle = net::thread::spawn(&format!("worker-{number}"), move || beginning.serve());
                let handle = handle.map_err(|error| format!("could not start a thread: {error}"))?;
                service.others.push(handle);
            }
            service.commands.push(commands);
            service.running += 1;
        }
        service.serve(generation, listeners).await?;
        Ok(service)
    }

    /// Makes all threads serve another generation on these sockets alone, and waits until they do. On an error, in
    /// words, some may.
    pub async fn serve(&mut self, generation: Arc<Generation>, listeners: &[Listener]) -> Result<(), String> {
        let sockets: Vec<Arc<OwnedFd>> = listeners.iter().map(|listener| listener.socket.clone()).collect();
        // Peers of upstreams that stay keep what is known of them.
        if !Arc::ptr_eq(&self.snapshot, &generation.snapshot) {
            generation.snapshot.carry_from(&self.snapshot);
        }
        let (answer, mut answers) = mailbox(self.commands.len());
        self.tell_all(|| Command::Serve(generation.clone(), sockets.clone(), answer.clone()));
        drop(answer);
        let end = Deadline::after(PATIENCE);
        for _ in &self.commands {
            match Timer::new().with_deadline(end, answers.recv()).await {
                Ok(Some(Ok(()))) => {}
                Ok(Some(Err(errno))) => {
                    return Err(format!("could not watch a socket ({})", ErrnoMessage(errno)));
                }
                Ok(None) | Err(_) => return Err("a thread does not answer".to_owned()),
            }
        }
        self.certificates.follow(&generation.snapshot);
        let before = std::mem::replace(&mut self.snapshot, generation.snapshot.clone());
        if !Arc::ptr_eq(&before, &self.snapshot) {
            self.old.push(before);
        }
        Ok(())
    }

    /// Lets the threads finish what they serve. When it returns they accept nothing more.
    pub async fn quit(&self) {
        self.certificates.stop();
        let (answer, mut answers) = mailbox(self.commands.len());
        self.tell_all(|| Command::Quit(answer.clone()));
        drop(answer);
        // One that has ended does not answer, and accepts nothing either.
        let all = async { while answers.recv().await.is_some() {} };
        let _ = Timer::new().with_deadline(Deadline::after(QUIT_PATIENCE), all).await;
    }

    /// Ends the threads now, and waits for them.
    pub async fn stop(&mut self) {
        self.certificates.stop();
        self.tell_all(|| Command::Stop);
        while self.running > 0 && self.ended.recv().await.is_some() {
            self.running -= 1;
        }
        for thread in std::mem::take(&mut self.others) {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
        // Lines of this thread are written by the time it says that it ends.
        net::log::flush_thread();
    }

    /// Drops the configurations before that nobody uses any more. When to look again, while there are others.
    pub fn forget_old(&mut self) -> Deadline {
        let is_used = |snapshot: &mut Arc<Snapshot>| Arc::strong_count(snapshot) > 1;
        let unused: Vec<_> = self.old.extract_if(.., |snapshot| !is_used(snapshot)).collect();
        if !unused.is_empty() {
            self.drop_aside(unused);
        }
        if self.old.is_empty() { Deadline::NONE } else { Deadline::after(OLD_PAUSE) }
    }

    /// Drops something large while this thread serves on.
    pub fn drop_aside(&self, large: impl Send + 'static) {
        // Nobody needs to know when.
        drop(self.aside(move || {
            drop(large);
            net::memory::give_back();
        }));
    }

    /// Does work beside serving, on any processor.
    pub fn aside<T, W>(&self, work: W) -> impl Future<Output = Option<T>> + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let processors = self.processors;
        aside("aside", move || {
            if let Some(processors) = processors {
                // Where it may not run elsewhere it runs here.
                let _ = sched_setaffinity(None, &processors);
            }
            work()
        })
    }

    /// Waits until all threads have ended, or one in a panic, or until something is to be done with files that only the
    /// master may touch.
    pub async fn news(&mut self) -> News {
        let ended = async {
            while self.running > 0 {
                if self.ended.recv().await != Some(Progress::Ended) {
                    return Progress::Broken;
                }
                self.running -= 1;
            }
            Progress::Ended
        };
        match race(ended, self.certificates.call()).await {
            First::Left(progress) => News::Ended(progress),
            First::Right(call) => News::Call(call),
        }
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for commands in &self.commands {
            // A thread that has ended needs no telling; one whose mailbox is full will be missed by `serve`.
            let _ = commands.try_send(command());
        }
    }
}

/// Tells how a thread ended, when it drops.
struct Ended(Sender<Progress>);

impl Drop for Ended {
    fn drop(&mut self) {
        let progress = if std::thread::panicking() { Progress::Broken } else { Progress::Ended };
        // There is room for a word of each thread; where nobody listens nobody needs it.
        let _ = self.0.try_send(progress);
    }
}

/// What a thread begins with.
struct Beginning {
    process: Arc<Process>,
    first: Arc<Snapshot>,
    mine: Mine,
    handed_over: Mailbox<HandedOver>,
    orders: Mailbox<Command>,
    /// The processors it stays on.
    processors: Option<Vec<usize>>,
    ended: Ended,
}

impl Beginning {
    async fn serve(self) {
        let _ended = self.ended;
        let serving = engine::thread::Thread::new(self.process, self.first);
        if let Some(processors) = self.processors {
            stay_on(&processors, &serving);
        }
        spawn_local(take_over(serving.clone(), self.handed_over));
        thread(serving, self.mine, self.orders).await;
    }
}

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

/// One thread: follows commands until it is told to end.
async fn thread(serving: Rc<engine::thread::Thread>, mine: Mine, mut orders: Mailbox<Command>) {
    let mut acceptors: Vec<(Arc<OwnedFd>, Task)> = Vec::new();
    let logging = Rc::downgrade(&serving);
    net::log::on_failure(move |failure| {
        if let Some(serving) = logging.upgrade() {
            let level = if failure.severity == Severity::Error { Level::Error } else { Level::Alert };
            serving.log(&serving.snapshot(), level, None, format_args!("{failure}"));
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
                let _ = answer.try_send(result);
            }
            Some(Command::Quit(answer)) => {
                for (_, task) in acceptors.drain(..) {
                    task.abort();
                }
                serving.begin_stopping();
                // Where nobody waits any more nobody needs the answer.
                let _ = answer.try_send(());
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
    acceptors: &mut Vec<(Arc<OwnedFd>, Task)>,
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
    let (stream, ends) = accepted.into_stream();
    spawn_local(engine::connection::serve(serving.clone(), stream, ends, listen, load));
}
