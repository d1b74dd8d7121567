//! The body of a request that may have to be sent again: kept as it is read, up to a limit.

use super::Upload;
use super::upload::Stream;
use super::upload_state::UploadFault;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

/// A body of more bytes is sent once and no more.
const MOST: usize = 64 << 10;

/// What it takes to send a request's body again.
#[derive(Debug)]
pub(super) enum Replay {
    /// There is no body.
    Empty,
    /// There is one.
    Kept(Arc<Mutex<Original>>),
}

/// A body in one of its attempts: first what is kept, then what comes from the client.
#[derive(Debug)]
pub struct Kept {
    original: Arc<Mutex<Original>>,
    attempt: u32,
    /// How much of what is kept this attempt has sent.
    sent: usize,
}

/// The client's body with what has been read of it.
pub(super) struct Original {
    stream: Box<Stream>,
    /// `None` once there was too much.
    kept: Option<Vec<u8>>,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// The attempt that may read. One before it may still hang on a connection that is about to end.
    attempt: u32,
}

// === impl Replay ===

impl Replay {
    /// Begins to keep a body; `None` if it is announced to be too large.
    pub(super) fn of(upload: &mut Upload) -> Option<Self> {
        let announced = upload.size_hint().lower();
        if usize::try_from(announced).is_ok_and(|announced| announced > MOST) {
            return None;
        }
        match std::mem::replace(upload, Upload::Empty) {
            Upload::Empty => Some(Self::Empty),
            Upload::Streaming(stream) => {
                let original = Arc::new(Mutex::new(Original {
                    ended: stream.is_end_stream(),
                    stream,
                    kept: Some(Vec::new()),
                    trailers: None,
                    attempt: 1,
                }));
                *upload = Upload::Kept(Kept::new(&original, 1));
                Some(Self::Kept(original))
            }
            kept @ Upload::Kept(_) => {
                *upload = kept;
                None
            }
        }
    }

    /// Whether all that was read of the body is still there.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Kept(original) => {
                let original = locked(original);
                original.kept.is_some() && original.stream.fault().is_none()
            }
        }
    }

    /// The body from its beginning, for another attempt. The one before gets no more of it.
    pub(super) fn again(&self) -> Option<Upload> {
        match self {
            Self::Empty => Some(Upload::Empty),
            Self::Kept(original) => {
                if !self.is_whole() {
                    return None;
                }
                let mut kept = locked(original);
                kept.attempt += 1;
                kept.stream.restarts();
                Some(Upload::Kept(Kept::new(original, kept.attempt)))
            }
        }
    }
}

fn locked(original: &Mutex<Original>) -> MutexGuard<'_, Original> {
    original.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Original ===

impl Original {
    /// The next piece from the client, kept if there is room.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let frame = ready!(self.stream.poll(cx));
        if let Some(Ok(frame)) = &frame {
            match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => self.keep(data),
                (None, trailers) => self.trailers = trailers.cloned(),
            }
        }
        self.ended = frame.is_none() || self.stream.is_end_stream();
        Poll::Ready(frame)
    }

    fn keep(&mut self, data: &[u8]) {
        if let Some(kept) = &mut self.kept {
            if kept.len().saturating_add(data.len()) <= MOST {
                kept.extend_from_slice(data);
            } else {
                self.kept = None;
            }
        }
    }

    /// Bytes that are kept and that an attempt has not sent yet.
    fn unsent(&self, sent: usize) -> u64 {
        let kept = self.kept.as_ref().map_or(0, Vec::len);
        kept.saturating_sub(sent) as u64
    }
}

impl fmt::Debug for Original {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Original")
            .field("kept", &self.kept.as_ref().map(Vec::len))
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

// === impl Kept ===

impl Kept {
    fn new(original: &Arc<Mutex<Original>>, attempt: u32) -> Self {
        Self {
            original: Arc::clone(original),
            attempt,
            sent: 0,
        }
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let mut original = locked(&self.original);
        if original.attempt != self.attempt {
            return Poll::Ready(Some(Err(UploadFault::Broken)));
        }
        let unsent = original
            .kept
            .as_ref()
            .and_then(|kept| kept.get(self.sent..));
        if let Some(unsent) = unsent.filter(|unsent| !unsent.is_empty()) {
            let data = Bytes::copy_from_slice(unsent);
            self.sent += data.len();
            original
                .stream
                .resent(original.ended && original.trailers.is_none());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if original.ended {
            original.stream.resent(true);
            let trailers = original
                .trailers
                .clone()
                .filter(|_| self.sent != usize::MAX);
            // No piece is at this place, and the trailers are sent once.
            self.sent = usize::MAX;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let polled = original.poll(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            match frame.data_ref() {
                Some(data) => self.sent += data.len(),
                None => self.sent = usize::MAX,
            }
        }
        polled
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let original = locked(&self.original);
        let rest = original.trailers.is_some() && self.sent != usize::MAX;
        original.ended && original.unsent(self.sent) == 0 && !rest
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let original = locked(&self.original);
        let unsent = original.unsent(self.sent);
        if original.ended {
            return SizeHint::with_exact(unsent);
        }
        let coming = original.stream.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(coming.lower().saturating_add(unsent));
        if let Some(upper) = coming.upper() {
            hint.set_upper(upper.saturating_add(unsent));
        }
        hint
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let original = locked(&self.original);
        // Another attempt may go on with it.
        if original.attempt == self.attempt {
            original.stream.over();
        }
    }
}
