//! Names of the configuration, looked up once before anything runs, by the system's own resolver (whatever
//! `nsswitch.conf` has it do), as nginx does. Bounded in time: a dead name server must not keep the program from
//! starting.

use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How many names are looked up at the same time.
const THREADS_MAX: usize = 16;

/// Why a name has no address at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartupError {
    /// The system knows no address (nginx: `host not found in upstream "NAME"`).
    HostNotFound,
    /// The system had no answer in time; it may have one later.
    TimedOut,
}

/// Looks up all names, several at a time, and waits for at most `timeout` in all. Answers come in the order of
/// the names; addresses in the order of the system, each once. Blocks the thread.
pub fn lookup_all(names: &[String], timeout: Duration) -> Vec<Result<Vec<IpAddr>, StartupError>> {
    lookup_all_with(names, timeout, system_lookup)
}

fn lookup_all_with(
    names: &[String],
    timeout: Duration,
    lookup: fn(&str) -> Result<Vec<IpAddr>, StartupError>,
) -> Vec<Result<Vec<IpAddr>, StartupError>> {
    let end = Instant::now() + timeout;
    let mut results = vec![Err(StartupError::TimedOut); names.len()];
    let queue: Vec<(usize, String)> = names.iter().cloned().enumerate().rev().collect();
    let queue = Arc::new(Mutex::new(queue));
    let (sender, receiver) = mpsc::channel();
    for _ in 0..names.len().min(THREADS_MAX) {
        let (queue, sender) = (queue.clone(), sender.clone());
        // A thread whose answer comes too late ends by itself: nobody can call the system's lookup off.
        let thread = std::thread::Builder::new().name("lookup".to_owned()).spawn(move || {
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some((index, name)) = next else { return };
                if sender.send((index, lookup(&name))).is_err() {
                    return;
                }
            }
        });
        if thread.is_err() {
            break;
        }
    }
    drop(sender);
    let mut left = names.len();
    while left > 0 {
        let wait = end.saturating_duration_since(Instant::now());
        match receiver.recv_timeout(wait) {
            Ok((index, result)) => {
                if let Some(slot) = results.get_mut(index) {
                    *slot = result;
                }
                left -= 1;
            }
            Err(_) => break,
        }
    }
    queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
    results
}

fn system_lookup(name: &str) -> Result<Vec<IpAddr>, StartupError> {
    let found = (name, 0).to_socket_addrs().map_err(|_| StartupError::HostNotFound)?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    match addresses.is_empty() {
        true => Err(StartupError::HostNotFound),
        false => Ok(addresses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_order_and_a_silent_one_does_not_hold_up_the_others() {
        fn lookup(name: &str) -> Result<Vec<IpAddr>, StartupError> {
            match name {
                "silent" => {
                    // Longer than the test: it is never waited for.
                    std::thread::sleep(Duration::from_secs(30));
                    Err(StartupError::HostNotFound)
                }
                "missing" => Err(StartupError::HostNotFound),
                _ => Ok(vec![IpAddr::from([127, 0, 0, name.len() as u8])]),
            }
        }
        let names: Vec<String> = ["a", "silent", "missing", "abcd"].map(str::to_owned).to_vec();
        let results = lookup_all_with(&names, Duration::from_millis(300), lookup);
        let expected = vec![
            Ok(vec![IpAddr::from([127, 0, 0, 1])]),
            Err(StartupError::TimedOut),
            Err(StartupError::HostNotFound),
            Ok(vec![IpAddr::from([127, 0, 0, 4])]),
        ];
        assert_eq!(results, expected);
        assert!(lookup_all(&[], Duration::from_secs(1)).is_empty());
    }

    #[test]
    fn the_system_knows_itself() {
        let results = lookup_all(&["127.0.0.1".to_owned(), "::1".to_owned()], Duration::from_secs(5));
        assert_eq!(results[0], Ok(vec![IpAddr::from([127, 0, 0, 1])]));
        assert_eq!(results[1], Ok(vec![IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]));
    }
}
