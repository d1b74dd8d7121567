//! The body of a response on its way to the client: our own text, or an upstream's stream.

use crate::headers::{HeaderRules, trailers};
use crate::telemetry::exchange::Exchange;
use crate::upstream::{Connection, UploadState};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// The body of every response. It owns the [`Exchange`], so the record is written when the last
/// byte has gone or the client has.
#[derive(Debug)]
pub struct ResponseBody {
    source: BodySource,
    exchange: Option<Box<Exchange>>,
}

#[derive(Debug)]
enum BodySource {
    Own(Option<Bytes>),
    Upstream(Carried),
}

/// An upstream's body with the connection it comes by.
pub struct Carried {
    body: Incoming,
    connection: Option<Connection>,
    upload: Option<Arc<UploadState>>,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    /// Whether something has been read already: most bodies come in one piece.
    begun: bool,
    /// The route's `response_headers`, which hold for trailers too.
    rules: Option<Arc<HeaderRules>>,
}

/// Why a response breaks off.
#[derive(Debug)]
pub enum BodyError {
    /// The upstream broke off.
    Upstream(hyper::Error),
    /// The route's `timeout` has passed.
    Deadline,
}

// === impl BodyError ===

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(error) => write!(f, "the upstream broke off: {error}"),
            Self::Deadline => f.write_str("the route's timeout has passed"),
        }
    }
}

impl std::error::Error for BodyError {}

// === impl ResponseBody ===

impl ResponseBody {
    /// A body of our own.
    pub fn own(bytes: Bytes, exchange: Option<Box<Exchange>>) -> Self {
        Self {
            source: BodySource::Own(Some(bytes).filter(|bytes| !bytes.is_empty())),
            exchange,
        }
        .ended_if_empty()
    }

    pub(super) fn carried(carried: Carried, exchange: Box<Exchange>) -> Self {
        Self {
            source: BodySource::Upstream(carried),
            exchange: Some(exchange),
        }
        .ended_if_empty()
    }

    /// A response without a body, or to HEAD, is complete at once: hyper does not poll it.
    fn ended_if_empty(mut self) -> Self {
        let unasked = self
            .exchange
            .as_ref()
            .is_some_and(|exchange| exchange.is_head());
        if unasked || self.is_end_stream() {
            self.end();
        }
        self
    }

    fn end(&mut self) {
        if let BodySource::Upstream(carried) = &mut self.source {
            carried.release();
        }
        if let Some(exchange) = &mut self.exchange {
            exchange.completed();
        }
    }

    fn count(&mut self, frame: &Frame<Bytes>) {
        if let (Some(exchange), Some(data)) = (&mut self.exchange, frame.data_ref()) {
            exchange.wrote(data.len());
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = match &mut self.source {
            BodySource::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            BodySource::Upstream(carried) => carried.poll(cx),
        };
        match &polled {
            Poll::Pending | Poll::Ready(Some(Err(_))) => {}
            Poll::Ready(None) => self.end(),
            // Nothing is asked for behind trailers.
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => self.end(),
            Poll::Ready(Some(Ok(frame))) => {
                self.count(frame);
                // A body of known length is not polled again after its last byte.
                if self.is_end_stream() {
                    self.end();
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            BodySource::Own(bytes) => bytes.is_none(),
            BodySource::Upstream(carried) => carried.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            BodySource::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            BodySource::Upstream(carried) => carried.body.size_hint(),
        }
    }
}

// === impl Carried ===

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carried")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Carried {
    pub(super) fn new(
        body: Incoming,
        connection: Connection,
        upload: Option<Arc<UploadState>>,
        deadline: Option<Instant>,
        rules: Option<Arc<HeaderRules>>,
    ) -> Self {
        Self {
            body,
            connection: Some(connection),
            upload,
            deadline,
            timer: None,
            begun: false,
            rules,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // A client that reads slowly, but reads, must not outlast the deadline either.
        if self.begun
            && self
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Poll::Ready(Some(Err(BodyError::Deadline)));
        }
        self.begun = true;
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| {
                frame
                    .map(|frame| self.without_forbidden_trailers(frame))
                    .map_err(BodyError::Upstream)
            })),
            Poll::Pending => self.poll_deadline(cx),
        }
    }

    fn without_forbidden_trailers(&self, mut frame: Frame<Bytes>) -> Frame<Bytes> {
        if let Some(trailers) = frame.trailers_mut() {
            trailers::towards_client(trailers, self.rules.as_deref());
        }
        frame
    }

    /// Only a body that keeps the client waiting needs a timer.
    fn poll_deadline(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| {
            Box::pin(pingora_timeout::sleep(
                deadline.saturating_duration_since(Instant::now()),
            ))
        });
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(BodyError::Deadline))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Gives the connection back once the response has ended; if the request has not, when that is over.
    fn release(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        match self.unfinished() {
            None => connection.reuse(),
            Some(upload) => connection.outlived_by(upload, self.deadline),
        }
    }

    /// The upload, if it goes on.
    fn unfinished(&self) -> Option<&Arc<UploadState>> {
        self.upload.as_ref().filter(|upload| !upload.done())
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && let Some(upload) = self.unfinished()
        {
            connection.give_up(upload);
        }
    }
}
