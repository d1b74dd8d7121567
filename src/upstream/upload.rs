//! The body of a request on its way to an upstream: counted, limited, and timed.

use super::Received;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// The body that is sent upstream.
#[derive(Debug)]
pub enum Upload {
    /// There is none.
    Empty,
    /// The client's body, as it arrives.
    Streaming(Box<Stream>),
}

/// A client's body with its limits.
pub struct Stream {
    body: Received,
    left: u64,
    patience: Duration,
    timer: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    state: Arc<UploadState>,
}

/// What the proxy can see of an upload while hyper sends it.
#[derive(Debug)]
pub struct UploadState {
    /// Bytes passed on so far.
    pub bytes: Arc<AtomicU64>,
    stage: AtomicU8,
    started: Instant,
    /// When something was last passed on, in microseconds since `started`.
    moved: AtomicU64,
    starved: AtomicBool,
}

/// Why an upload was broken off on this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadFault {
    /// Over `max_body`.
    TooLarge,
    /// Nothing came for `body_timeout`.
    Stalled,
    /// The client broke off.
    Broken,
}

// The stages of an upload; it starts at 0, running.
const DONE: u8 = 1;
const TOO_LARGE: u8 = 2;
const STALLED: u8 = 3;
const BROKEN: u8 = 4;

// === impl UploadState ===

impl UploadState {
    fn new() -> Self {
        Self {
            bytes: Arc::default(),
            stage: AtomicU8::new(0),
            started: Instant::now(),
            moved: AtomicU64::new(0),
            starved: AtomicBool::new(false),
        }
    }

    /// When the upstream last took something of the body, its end included.
    pub fn last_moved(&self) -> Instant {
        self.started + Duration::from_micros(self.moved.load(Relaxed))
    }

    /// Whether the upstream wants more than the client has sent.
    pub fn waits_for_client(&self) -> bool {
        self.starved.load(Relaxed)
    }

    fn moves(&self) {
        let now = self.started.elapsed().as_micros();
        self.moved
            .store(u64::try_from(now).unwrap_or(u64::MAX), Relaxed);
        self.starved.store(false, Relaxed);
    }

    /// Whether the whole body has been passed on.
    pub fn done(&self) -> bool {
        self.stage.load(Relaxed) == DONE
    }

    /// Why the upload was broken off, if it was.
    pub fn fault(&self) -> Option<UploadFault> {
        match self.stage.load(Relaxed) {
            TOO_LARGE => Some(UploadFault::TooLarge),
            STALLED => Some(UploadFault::Stalled),
            BROKEN => Some(UploadFault::Broken),
            _ => None,
        }
    }
}

// === impl UploadFault ===

impl fmt::Display for UploadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the request body is over max_body",
            Self::Stalled => "the request body stalled",
            Self::Broken => "the client broke off its request body",
        })
    }
}

impl std::error::Error for UploadFault {}

// === impl Upload ===

impl Upload {
    /// Wraps a client's body. `limit` in bytes; `patience` is the time between two reads.
    pub fn new(body: Received, limit: u64, patience: Duration) -> (Self, Option<Arc<UploadState>>) {
        if body.is_end_stream() {
            return (Self::Empty, None);
        }
        let state = Arc::new(UploadState::new());
        let stream = Stream {
            body,
            left: limit,
            patience,
            timer: None,
            state: Arc::clone(&state),
        };
        (Self::Streaming(Box::new(stream)), Some(state))
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl Stream {
    fn stop(
        &self,
        stage: u8,
        fault: UploadFault,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        self.state.stage.store(stage, Relaxed);
        Poll::Ready(Some(Err(fault)))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            self.state.starved.store(true, Relaxed);
            let patience = self.patience;
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(pingora_timeout::sleep(patience)));
            ready!(timer.as_mut().poll(cx));
            return self.stop(STALLED, UploadFault::Stalled);
        };
        self.timer = None;
        self.state.moves();
        match frame {
            None => {
                self.state.stage.store(DONE, Relaxed);
                Poll::Ready(None)
            }
            Some(Err(_)) => self.stop(BROKEN, UploadFault::Broken),
            Some(Ok(frame)) => self.pass(frame),
        }
    }

    fn pass(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        // Trailers are not forwarded: they could carry what the identity guard has stripped.
        let Ok(data) = frame.into_data() else {
            self.state.stage.store(DONE, Relaxed);
            return Poll::Ready(None);
        };
        let size = data.len() as u64;
        if size > self.left {
            return self.stop(TOO_LARGE, UploadFault::TooLarge);
        }
        self.left -= size;
        self.state.bytes.fetch_add(size, Relaxed);
        if self.body.is_end_stream() {
            self.state.stage.store(DONE, Relaxed);
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Streaming(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming(stream) => stream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming(stream) => stream.body.size_hint(),
        }
    }
}
