//! Both directions at once: while a request's body still goes out, the answer comes in and goes on to the client, so
//! that either side may wait for the other, as in a conversation. What the answer's client does not take yet is held by
//! the stream's window; what it does not send yet keeps nobody.

use super::UpstreamBody;
use super::body::{End, unreadable};
use super::incoming::{Cut, Late};
use crate::Request;
use crate::driver::{BodyError, Driver};
use crate::flow::Transform;
use crate::pump::{self, Broken};
use net::stream::StreamError;
use net::timer::Deadline;
use std::future::poll_fn;
use std::task::{Context, Poll};

/// How much of an answer is read at once, bytes.
const READ_BYTES: usize = 16 * 1024;

/// A piece of the answer on its way to the client.
#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    sent: usize,
    /// Is it to go through transforms, or at a rate, and not as it is?
    detour: bool,
}

impl UpstreamBody {
    /// Delivers the answer until the request has gone out whole, or the answer is over.
    pub(super) async fn duplex(
        &mut self,
        request: &mut Request<'_>,
        driver: &mut Driver,
        transforms: &mut [Box<dyn Transform>],
    ) -> Result<(), Broken> {
        let detour = !transforms.is_empty() || pump::has_rate(request) || self.window.is_some();
        let mut piece = Piece { detour, ..Piece::default() };
        let mut deadlines = Deadlines { upstream: self.silence(), client: pump::send_deadline(request) };
        self.hold.take(&mut piece.bytes).map_err(|error| unreadable(request, &error))?;
        loop {
            if piece.detour && !piece.bytes.is_empty() {
                self.cut_out(&mut piece.bytes);
                self.send(request, driver, transforms, &mut piece.bytes).await?;
                piece.bytes.clear();
                deadlines.client = pump::send_deadline(request);
            }
            let idle = piece.bytes.is_empty();
            if idle && (self.cut.is_some() || self.incoming.is_over() || !self.incoming.is_uploading()) {
                return Ok(());
            }
            let moved = poll_fn(|cx| self.poll_duplex(cx, request, driver, &mut piece, &mut deadlines)).await;
            match moved {
                Ok(()) => {}
                Err(End::Upstream(cut)) => self.cut = Some(cut),
                Err(End::Client(error)) => return Err(Broken::Client(error)),
                Err(End::BadBody(error)) => return Err(self.spoilt(request, error)),
                Err(End::ClientGone) => {
                    request.action = "reading upstream";
                    super::client_is_gone(request);
                    return Err(Broken::Gone);
                }
            }
        }
    }

    /// Ready when something has moved that the loop has to look at.
    fn poll_duplex(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Request<'_>,
        driver: &mut Driver,
        piece: &mut Piece,
        deadlines: &mut Deadlines,
    ) -> Poll<Result<(), End>> {
        let mut moved = false;
        if self.incoming.is_uploading() {
            match self.incoming.poll_upload(cx, request, driver, &self.asking.call) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(End::BadBody(error))),
                Poll::Ready(Ok(())) => {
                    deadlines.upstream = self.silence();
                    moved = true;
                }
                Poll::Pending => {}
            }
        }
        if piece.bytes.is_empty() && self.cut.is_none() && !self.incoming.is_over() {
            let read = self.incoming.poll_read(cx, &mut piece.bytes, READ_BYTES);
            if let Poll::Ready(read) = read {
                deadlines.upstream = self.silence();
                deadlines.client = pump::send_deadline(request);
                moved = true;
                if let Err(cut) = read {
                    self.cut = Some(cut);
                }
            }
        } else if let Poll::Ready(Err(cut)) = self.incoming.poll_listen(cx) {
            self.cut.get_or_insert(cut);
        }
        if !piece.bytes.is_empty() && !piece.detour {
            match driver.poll_send(cx, piece.bytes.get(piece.sent..).unwrap_or_default()) {
                Poll::Ready(Ok((count, wire_bytes))) => {
                    piece.sent += count;
                    request.sent_bytes += wire_bytes;
                    deadlines.client.progressed();
                    moved = true;
                }
                Poll::Ready(Err(errno)) => return Poll::Ready(Err(End::Client(StreamError::Os(errno)))),
                Poll::Pending => {}
            }
            if piece.sent == piece.bytes.len() {
                piece.bytes.clear();
                piece.sent = 0;
            }
        }
        if moved {
            return Poll::Ready(Ok(()));
        }
        self.poll_idle(cx, driver, piece, deadlines)
    }

    /// Nothing moves: does anybody take too long, or is the client gone?
    fn poll_idle(
        &mut self,
        cx: &mut Context<'_>,
        driver: &mut Driver,
        piece: &Piece,
        deadlines: &Deadlines,
    ) -> Poll<Result<(), End>> {
        let flushed = driver.poll_flush(cx);
        if let Poll::Ready(Err(errno)) = flushed {
            return Poll::Ready(Err(End::Client(StreamError::Os(errno))));
        }
        let busy = flushed.is_pending() || !piece.bytes.is_empty();
        if busy && driver.poll_expired(cx, deadlines.client).is_ready() {
            return Poll::Ready(Err(End::Client(StreamError::TimedOut)));
        }
        let watched = !self.settings().ignore_client_abort.0 && !self.incoming.is_starved();
        if watched && !busy && driver.poll_closed(cx).is_ready() {
            return Poll::Ready(Err(End::ClientGone));
        }
        match self.incoming.poll_upload_expired(cx, driver) {
            Poll::Ready(Late::Client) => return Poll::Ready(Err(End::BadBody(BodyError::TimedOut))),
            Poll::Ready(Late::Upstream) => return Poll::Ready(Err(End::Upstream(Cut::TimedOut))),
            Poll::Pending => {}
        }
        if busy {
            return Poll::Pending;
        }
        self.incoming.poll_expired(cx, deadlines.upstream).map(|()| Err(End::Upstream(Cut::TimedOut)))
    }

    /// The client's body cannot be read on: what went out of the answer is not whole.
    fn spoilt(&mut self, request: &mut Request<'_>, error: BodyError) -> Broken {
        crate::body::explain(request, error);
        request.keep_alive = false;
        Broken::Gone
    }
}

/// Until when either side may do nothing.
struct Deadlines {
    upstream: Deadline,
    client: Deadline,
}
