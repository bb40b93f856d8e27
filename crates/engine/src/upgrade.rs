//! Connections that leave HTTP behind: bytes both ways until one side ends.

use crate::Request;
use crate::driver::Driver;
use crate::pump::Broken;
use net::errno::Errno;
use net::stream::Stream;
use net::timer::Deadline;
use std::future::poll_fn;
use std::io::IoSlice;
use std::task::{Context, Poll};
use std::time::Duration;

/// How much is moved at once in one direction, bytes.
const TUNNEL_BYTES: usize = 16 * 1024;

/// One direction of a tunnel.
struct Direction {
    buffer: Vec<u8>,
    sent: usize,
    ended: bool,
    total: u64,
}

impl Direction {
    fn new(first: Vec<u8>) -> Direction {
        Direction { buffer: first, sent: 0, ended: false, total: 0 }
    }

    /// Moves what can be moved now from one side to the other. Ready at the end, pending otherwise.
    fn poll<Ends>(
        &mut self,
        cx: &mut Context<'_>,
        ends: &mut Ends,
        read: impl Fn(&mut Ends, &mut Context<'_>, &mut Vec<u8>) -> Poll<Result<usize, Errno>>,
        write: impl Fn(&mut Ends, &mut Context<'_>, &[u8]) -> Poll<Result<usize, Errno>>,
    ) -> Poll<Result<(), Errno>> {
        loop {
            while self.sent < self.buffer.len() {
                match write(ends, cx, &self.buffer[self.sent..]) {
                    Poll::Ready(Ok(count)) => {
                        self.sent += count;
                        self.total += count as u64;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            self.buffer.clear();
            self.sent = 0;
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            match read(ends, cx, &mut self.buffer) {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Both ends of a tunnel.
struct Ends<'t> {
    client: &'t mut Driver,
    upstream: Stream,
}

impl Ends<'_> {
    fn read_client(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<usize, Errno>> {
        match &mut *self.client {
            Driver::H1(h1) => h1.stream.poll_read_into(cx, out, TUNNEL_BYTES),
            other => other.poll_read_body(cx, out).map_err(|_| Errno::CONNRESET),
        }
    }

    fn write_client(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Errno>> {
        match &mut *self.client {
            Driver::H1(h1) => h1.stream.poll_writev(cx, &[IoSlice::new(bytes)]),
            other => other.poll_send(cx, bytes).map_ok(|(count, _)| count),
        }
    }
}

/// Joins the client and an upstream until either side ends or both are silent for too long.
/// `first` is what the upstream sent behind its head.
pub async fn tunnel(
    request: &mut Request<'_>,
    driver: &mut Driver,
    upstream: Stream,
    first: Vec<u8>,
    silence: Duration,
) -> Result<(), Broken> {
    driver.flush(crate::pump::send_deadline(request)).await.map_err(Broken::Client)?;
    if request.plan.core.tcp_nodelay.0 {
        driver.be_prompt();
    }
    let mut ahead = Vec::new();
    match driver {
        Driver::H1(client) => {
            ahead.extend_from_slice(client.pending());
            client.consumed = client.input.len();
        }
        Driver::H2(_) => {}
        // Nobody is behind a subrequest.
        Driver::Memory(_) => return Ok(()),
    }
    let mut down = Direction::new(first);
    let mut up = Direction::new(ahead);
    let mut deadline = Deadline::after(silence);
    let mut moved = 0;
    let mut ends = Ends { client: driver, upstream };
    poll_fn(|cx| {
        let client_side = up.poll(cx, &mut ends, Ends::read_client, |ends, cx, bytes| {
            ends.upstream.poll_writev(cx, &[IoSlice::new(bytes)])
        });
        let read = |ends: &mut Ends<'_>, cx: &mut Context<'_>, out: &mut Vec<u8>| {
            ends.upstream.poll_read_into(cx, out, TUNNEL_BYTES)
        };
        let upstream_side = down.poll(cx, &mut ends, read, Ends::write_client);
        if client_side.is_ready() || upstream_side.is_ready() {
            return Poll::Ready(());
        }
        if up.total + down.total != moved {
            moved = up.total + down.total;
            deadline = Deadline::after(silence);
        }
        ends.client.poll_expired(cx, deadline)
    })
    .await;
    request.sent_bytes += down.total;
    request.received_bytes += up.total;
    Ok(())
}

/// Notes that an upgraded connection ended.
pub fn ended(request: &mut Request<'_>) {
    request.keep_alive = false;
}
