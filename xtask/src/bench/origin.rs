//! The back ends: an nginx for what must be fast and small, and threads of ours for what nginx cannot do:
//! swallowing uploads, echoing, being slow.

use super::peer::{Places, fill};
use super::process::bound_to_us;
use crate::spec::{find_nginx, root};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Connections of all our own back ends at a time.
const CONNECTIONS_MAX: usize = 1024;

/// The head of a request.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long the slow back end thinks.
const SLOW: Duration = Duration::from_millis(50);

/// The nginx behind the servers; it is ended when this is dropped.
pub struct Origins {
    child: Child,
}

impl Origins {
    /// Starts the back ends at their places.
    pub fn start(places: &Places) -> Result<Self, String> {
        for (address, delay) in [(&places.sink, Duration::ZERO), (&places.slow, SLOW)] {
            let listener = TcpListener::bind(address).map_err(|e| format!("{address}: {e}"))?;
            std::thread::spawn(move || serve(&listener, delay));
        }
        let nginx = find_nginx().ok_or("the back ends need an nginx (apt-get install nginx-light)")?;
        let frame = root().join("bench/origin.conf");
        let text = std::fs::read_to_string(&frame).map_err(|e| format!("{}: {e}", frame.display()))?;
        let conf = places.run.join("origin.conf");
        std::fs::write(&conf, fill(&text, places, &[])).map_err(|e| e.to_string())?;
        let said = File::create(places.run.join("origin.out")).map_err(|e| e.to_string())?;
        let mut command = bound_to_us(&nginx, "TERM");
        command.arg("-p").arg(&places.run).arg("-c").arg(&conf).stdin(Stdio::null());
        command.stdout(said.try_clone().map_err(|e| e.to_string())?).stderr(said);
        let child = command.spawn().map_err(|e| format!("{}: {e}", nginx.display()))?;
        super::peer::wait_for(&places.origin, places.run.join("origin.out"))?;
        Ok(Self { child })
    }
}

impl Drop for Origins {
    fn drop(&mut self) {
        super::peer::end(&mut self.child);
    }
}

fn serve(listener: &TcpListener, delay: Duration) {
    static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
    for stream in listener.incoming().flatten() {
        if CONNECTIONS.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            CONNECTIONS.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        std::thread::spawn(move || {
            // A connection that breaks is the other side's affair: it counts what failed.
            let _ = connection(stream, delay);
            CONNECTIONS.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Answers requests on a connection; an Upgrade turns it into an echo.
fn connection(mut stream: TcpStream, delay: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut filled = 0;
    loop {
        let head_end = loop {
            if let Some(at) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            let read = stream.read(&mut buffer[filled..HEAD_BYTES_MAX])?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
        };
        let head = String::from_utf8_lossy(&buffer[..head_end]).to_ascii_lowercase();
        if head.contains("\r\nupgrade:") {
            // The key of RFC 6455 section 1.3, which our client sends, and its answer.
            stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            )?;
            return echo(stream, &mut buffer);
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let mut missing = length.unwrap_or(0_usize).saturating_sub(filled - head_end);
        while missing > 0 {
            let room = missing.min(buffer.len());
            let read = stream.read(&mut buffer[..room])?;
            if read == 0 {
                return Ok(());
            }
            missing -= read;
        }
        filled = 0;
        std::thread::sleep(delay);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\ndone\n")?;
    }
}

fn echo(mut stream: TcpStream, buffer: &mut [u8]) -> std::io::Result<()> {
    loop {
        let read = stream.read(buffer)?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read])?;
    }
}
