//! Who looks after certificates, and the way from there to whoever may touch their files.

use engine::Snapshot;
use engine::acme::agent::{self, Command};
use engine::acme::vault::{Call, Vault};
use engine::thread::Process;
use net::thread::{Mailbox, Sender, mailbox, spawn_local};
use std::cell::OnceCell;
use std::sync::Arc;

/// More than is ever said before the task looks.
const COMMANDS_MAX: usize = 64;
/// How many requests may wait; each issuer makes one at a time.
const CALLS_MAX: usize = 1024;

/// The task that looks after certificates, begun with the first configuration that has issuers.
pub struct Certificates {
    process: Arc<Process>,
    calls: Mailbox<Call>,
    caller: Sender<Call>,
    commands: OnceCell<Sender<Command>>,
}

impl Certificates {
    /// Nothing to look after yet.
    pub fn new(process: Arc<Process>) -> Certificates {
        let (caller, calls) = mailbox(CALLS_MAX);
        Certificates { process, calls, caller, commands: OnceCell::new() }
    }

    /// Looks after the certificates of this configuration from now on.
    pub fn follow(&self, snapshot: &Arc<Snapshot>) {
        if self.commands.get().is_none() && snapshot.issuers.is_empty() {
            return;
        }
        // One that has ended was told to, or has panicked: what is there goes on being served.
        let _ = self.commands.get_or_init(|| self.begin()).try_send(Command::Follow(snapshot.clone()));
    }

    fn begin(&self) -> Sender<Command> {
        let (commands, orders) = mailbox(COMMANDS_MAX);
        let caller = self.caller.clone();
        // A call that finds no place is answered by being dropped.
        let send = move |call: Call| drop(caller.try_send(call));
        let vault = Vault::new(owner(), Arc::new(send));
        spawn_local(agent::run(self.process.clone(), orders, vault));
        commands
    }

    /// Begins nothing more.
    pub fn stop(&self) {
        if let Some(commands) = self.commands.get() {
            // One that has ended needs no telling.
            let _ = commands.try_send(Command::Stop);
        }
    }

    /// Waits until something is to be done with files.
    pub async fn call(&mut self) -> Call {
        match self.calls.recv().await {
            Some(call) => call,
            // The sending end is here as well.
            None => std::future::pending().await,
        }
    }
}

/// Who this process is to gateways that share a folder with it: two may have the same name and number on different
/// machines, but not begin with the same random number.
fn owner() -> String {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    let host: String = host.chars().filter(char::is_ascii_graphic).take(64).collect();
    format!("{host}:{}:{:08x}", std::process::id(), net::random::next_u32())
}
