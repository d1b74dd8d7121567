//! The streams of a connection: how many there are, and an end to those whose client takes nothing.
//! HTTP/2 has a window for each stream, so that a client can stop one and keep the connection busy.

use crate::proxy::ResponseBody;
use crate::server::client::Client;
use crate::server::service::Tracked;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

tokio::task_local! {
    /// When the stream that runs was last handed something that it has not got rid of.
    static HANDED: Cell<Option<Instant>>;
}

/// Runs the streams of a connection.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    /// How long a client may take nothing of an answer.
    pub patience: Duration,
}

/// A stream that is open; counted until it is dropped.
#[derive(Debug)]
pub(super) struct Open(Arc<Client>);

/// A response on a stream.
#[derive(Debug)]
pub(super) struct StreamBody {
    body: Tracked,
    /// What has been read and not been handed on.
    rest: Bytes,
    /// Whether the head is all that the client gets.
    left_out: bool,
    _open: Open,
}

/// A response is handed on in pieces of this size at most: a piece that has been handed on waits for
/// the client's window where nobody watches it, and the time in which a client has to take something
/// is the time for one piece.
const PIECE: usize = 16 << 10;

// === impl Open ===

impl Open {
    pub(super) fn new(client: &Arc<Client>) -> Self {
        client.stream_begins();
        Self(Arc::clone(client))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.stream_ends();
    }
}

// === impl Streams ===

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let patience = self.patience;
        tokio::spawn(HANDED.scope(Cell::new(None), until_stalled(stream, patience)));
    }
}

/// Drives a stream. Dropping it resets it.
async fn until_stalled(stream: impl Future<Output = ()>, patience: Duration) {
    let mut stream = pin!(stream);
    let mut timer: Pin<&mut Option<Sleep>> = pin!(None);
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = HANDED.with(Cell::get) else {
            timer.set(None);
            return Poll::Pending;
        };
        let due = tokio::time::Instant::from_std(since + patience);
        match timer.as_mut().as_pin_mut() {
            Some(running) if running.deadline() == due => {}
            _ => timer.set(Some(tokio::time::sleep_until(due))),
        }
        timer
            .as_mut()
            .as_pin_mut()
            .map_or(Poll::Pending, |timer| timer.poll(cx))
    })
    .await;
}

// === impl StreamBody ===

impl StreamBody {
    pub(super) fn new(body: Tracked, open: Open) -> Self {
        let rest = Bytes::new();
        Self {
            body,
            rest,
            left_out: false,
            _open: open,
        }
    }

    /// Ends the response with its head.
    pub(super) fn leave_out(&mut self) {
        self.left_out = true;
    }

    /// Keeps what is more than a piece.
    fn cut(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        match frame.into_data() {
            Ok(mut data) => {
                if data.len() > PIECE {
                    self.rest = data.split_off(PIECE);
                }
                Frame::data(data)
            }
            Err(frame) => frame,
        }
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = <ResponseBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = if self.rest.is_empty() {
            Pin::new(&mut self.body).poll_frame(cx)
        } else {
            Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest)))))
        };
        let polled = polled.map_ok(|frame| self.cut(frame));
        // It asks for more when it has got rid of what it had.
        let handed = matches!(polled, Poll::Ready(Some(_))).then(Instant::now);
        let _ = HANDED.try_with(|cell| cell.set(handed));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.left_out || (self.rest.is_empty() && self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, coming) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(coming.lower().saturating_add(rest));
        if let Some(upper) = coming.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}
