//! The body of a request as it comes from the client.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

/// A client's body. While it lives, bytes from the client belong to it and not to a next head:
/// an upstream may answer before a request has ended. Behind a body that breaks off they do for good:
/// nobody knows where it would have ended.
#[derive(Debug)]
pub struct Received {
    body: Incoming,
    /// The connection's flag; absent behind the end of the body.
    arriving: Option<Arc<AtomicBool>>,
}

impl Received {
    /// A body of the connection that has this flag, if there is one.
    pub fn new(body: Incoming, arriving: &Arc<AtomicBool>) -> Option<Self> {
        if body.is_end_stream() {
            return None;
        }
        arriving.store(true, Relaxed);
        let arriving = Some(Arc::clone(arriving));
        Some(Self { body, arriving })
    }

    fn ended(&mut self) {
        if let Some(arriving) = self.arriving.take() {
            arriving.store(false, Relaxed);
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.ended();
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(Err(_)))) {
            self.arriving = None;
        } else if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.ended();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
