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

    /// Moves what can be moved now; ready with an error, pending otherwise. Sets `ended` at the end.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Stream, to: &mut Stream) -> Poll<Result<(), Errno>> {
        loop {
            while self.sent < self.buffer.len() {
                match to.poll_writev(cx, &[IoSlice::new(&self.buffer[self.sent..])]) {
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
            match from.poll_read_into(cx, &mut self.buffer, TUNNEL_BYTES) {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Joins the client and an upstream until either side ends or both are silent for too long.
/// `first` is what the upstream sent behind its head.
pub async fn tunnel(
    request: &mut Request<'_>,
    driver: &mut Driver,
    mut upstream: Stream,
    first: Vec<u8>,
    silence: Duration,
) -> Result<(), Broken> {
    driver.flush(crate::pump::send_deadline(request)).await.map_err(Broken::Client)?;
    if request.plan.core.tcp_nodelay.0 {
        driver.be_prompt();
    }
    let Driver::H1(client) = driver else { return Ok(()) };
    let ahead = client.pending().to_vec();
    client.consumed = client.input.len();
    let mut down = Direction::new(first);
    let mut up = Direction::new(ahead);
    let mut deadline = Deadline::after(silence);
    let mut moved = 0;
    poll_fn(|cx| {
        let client_side = up.poll(cx, &mut client.stream, &mut upstream);
        let upstream_side = down.poll(cx, &mut upstream, &mut client.stream);
        if client_side.is_ready() || upstream_side.is_ready() {
            return Poll::Ready(());
        }
        if up.total + down.total != moved {
            moved = up.total + down.total;
            deadline = Deadline::after(silence);
        }
        client.stream.poll_expired(cx, deadline)
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
