//! The body of a request on its way to an upstream: counted, limited, and timed; and, where the
//! caller has shown a token already, searched for another.

use super::Received;
use super::form_scan::FormScan;
use super::replay::Kept;
use super::upload_state::{UploadFault, UploadState};
use crate::headers::{HeaderRules, IdentityGuard, trailers};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// As much of a form is searched before the upstream sees anything of the request. One good token
/// is enough to have this much held on every connection at a time, so it is little; a form that
/// carries a token for people to see is shorter by far, and behind this the search goes on.
const HELD_BACK: usize = 8 << 10;

/// The body that is sent upstream.
#[derive(Debug)]
pub enum Upload {
    /// There is none.
    Empty,
    /// The client's body, as it arrives.
    Streaming(Box<Stream>),
    /// The same, kept for another attempt.
    Kept(Kept),
}

/// What a client's body has to keep to.
#[derive(Debug)]
pub struct UploadLimits<'a> {
    /// Bytes in all.
    pub bytes: u64,
    /// Between two reads.
    pub patience: Duration,
    /// What may not come as a trailer either.
    pub guard: &'a Arc<IdentityGuard>,
    /// The route's `request_headers`, which hold for trailers too.
    pub rules: &'a Arc<HeaderRules>,
}

/// A client's body with its limits.
pub struct Stream {
    body: Received,
    left: u64,
    patience: Duration,
    guard: Arc<IdentityGuard>,
    rules: Option<Arc<HeaderRules>>,
    /// What came behind the body and may go on.
    trailers: Option<HeaderMap>,
    timer: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    state: Arc<UploadState>,
    /// Where there must be no token in the body.
    scan: Option<FormScan>,
    /// What was read before the request was sent: [`HELD_BACK`] at most.
    held: Bytes,
    /// The piece that was too much for it, as it came. It goes out with it and waits for nothing.
    behind: Bytes,
    /// Whether that was all.
    ended: bool,
}

// === impl Upload ===

impl Upload {
    /// Wraps a client's body.
    pub fn new(
        body: Option<Received>,
        limits: UploadLimits<'_>,
    ) -> (Self, Option<Arc<UploadState>>) {
        let Some(body) = body else {
            return (Self::Empty, None);
        };
        let state = Arc::new(UploadState::new(limits.patience));
        let stream = Stream {
            body,
            left: limits.bytes,
            patience: limits.patience,
            guard: Arc::clone(limits.guard),
            rules: limits.rules.kept(),
            trailers: None,
            timer: None,
            state: Arc::clone(&state),
            scan: None,
            held: Bytes::new(),
            behind: Bytes::new(),
            ended: false,
        };
        (Self::Streaming(Box::new(stream)), Some(state))
    }

    /// For a form from a caller that has shown a token: breaks off with
    /// [`UploadFault::SecondToken`] if there is another one in it.
    pub fn expect_no_token(&mut self) {
        if let Self::Streaming(stream) = self {
            stream.scan = Some(FormScan::new());
        }
    }

    /// Whether [`Self::hold_back`] would wait for the client.
    pub fn is_searched(&self) -> bool {
        matches!(self, Self::Streaming(stream) if stream.scan.is_some())
    }

    /// Reads the beginning of a body that is searched, so that nothing is sent of one with a token
    /// in it. A token that comes later than 8 KiB breaks off what the upstream is reading already:
    /// it sees a request that has no end, and must not act on it.
    ///
    /// # Errors
    /// What breaks off any upload, and [`UploadFault::SecondToken`].
    pub async fn hold_back(&mut self) -> Result<(), UploadFault> {
        match self {
            Self::Streaming(stream) if stream.scan.is_some() => stream.hold_back().await,
            Self::Empty | Self::Streaming(_) | Self::Kept(_) => Ok(()),
        }
    }

    /// Reads all of it, as far as the limits allow, so that it can be judged before anything is sent.
    ///
    /// # Errors
    /// What breaks off any upload.
    pub async fn hold_all(&mut self) -> Result<(), UploadFault> {
        match self {
            Self::Streaming(stream) => stream.hold_all().await,
            Self::Empty | Self::Kept(_) => Ok(()),
        }
    }

    /// What was read before anything is sent: all of it after [`Self::hold_all`].
    pub fn held(&self) -> &[u8] {
        match self {
            Self::Streaming(stream) => &stream.held,
            Self::Empty | Self::Kept(_) => &[],
        }
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
    fn stop(&self, fault: UploadFault) -> UploadFault {
        self.state.stopped(fault);
        fault
    }

    async fn hold_back(&mut self) -> Result<(), UploadFault> {
        let announced = self.body.size_hint().upper();
        let most = announced.and_then(|length| usize::try_from(length).ok());
        let most = most.map_or(HELD_BACK, |length| length.min(HELD_BACK));
        let mut held = BytesMut::new();
        while held.len() < most && !self.is_end_stream() {
            let Some(data) = poll_fn(|cx| self.poll_client(cx)).await.transpose()? else {
                self.ended = true;
                break;
            };
            // Nothing more is waited for.
            if held.len() + data.len() > most || self.body.is_end_stream() {
                self.behind = data;
                break;
            }
            // Copied: many small pieces would each keep the whole buffer that they came in.
            if held.is_empty() {
                held.reserve(most);
            }
            held.extend_from_slice(&data);
        }
        self.held = held.freeze();
        if self.is_end_stream() {
            self.state.ends();
        }
        Ok(())
    }

    async fn hold_all(&mut self) -> Result<(), UploadFault> {
        let mut held = BytesMut::from(&*self.held);
        held.extend_from_slice(&std::mem::take(&mut self.behind));
        while !self.ended && !self.body.is_end_stream() {
            match poll_fn(|cx| self.poll_client(cx)).await.transpose()? {
                Some(data) => held.extend_from_slice(&data),
                None => self.ended = true,
            }
        }
        self.ended = true;
        self.held = held.freeze();
        if self.is_end_stream() {
            self.state.ends();
        }
        Ok(())
    }

    /// Another attempt begins: the upload is not done yet.
    pub(super) fn restarts(&self) {
        self.state.restarts();
    }

    /// The upstream took something of what had been read before; `done` if that was all.
    pub(super) fn resent(&self, done: bool) {
        self.state.moves();
        if done {
            self.state.ends();
        }
    }

    /// Nobody sends it any more.
    pub(super) fn over(&self) {
        self.state.over();
    }

    /// Why the upload was broken off, if it was.
    pub(super) fn fault(&self) -> Option<UploadFault> {
        self.state.fault()
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let held = [&mut self.held, &mut self.behind]
            .into_iter()
            .find(|held| !held.is_empty());
        let data = if let Some(held) = held {
            let held = std::mem::take(held);
            self.state.moves();
            Some(Ok(held))
        } else if self.ended {
            None
        } else {
            ready!(self.poll_client(cx))
        };
        Poll::Ready(match data {
            None => {
                self.state.ends();
                self.ended = true;
                self.trailers
                    .take()
                    .map(|trailers| Ok(Frame::trailers(trailers)))
            }
            Some(Err(fault)) => Some(Err(fault)),
            Some(Ok(data)) => {
                self.state.passed(data.len());
                if self.is_end_stream() {
                    self.state.ends();
                }
                Some(Ok(Frame::data(data)))
            }
        })
    }

    /// What comes from the client, within the limits.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UploadFault>>> {
        if let Some(fault) = self.state.fault() {
            return Poll::Ready(Some(Err(fault)));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            self.state.starves(cx);
            let patience = self.patience;
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(pingora_timeout::sleep(patience)));
            ready!(timer.as_mut().poll(cx));
            return Poll::Ready(Some(Err(self.stop(UploadFault::Stalled))));
        };
        self.timer = None;
        self.state.moves();
        let data = match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Err(_)) => return Poll::Ready(Some(Err(self.stop(UploadFault::Broken)))),
            Some(Ok(Ok(data))) => data,
            rest => {
                if let Some(Ok(Err(frame))) = rest {
                    self.trailers = self.allowed(frame);
                }
                let named = self.scan.as_ref().is_some_and(FormScan::ends);
                let fault = named.then(|| Err(self.stop(UploadFault::SecondToken)));
                return Poll::Ready(fault);
            }
        };
        Poll::Ready(Some(self.check(&data).map(|()| data)))
    }

    /// Trailers that may go on. They are no way around the guard and the rules of the head.
    fn allowed(&self, frame: Frame<Bytes>) -> Option<HeaderMap> {
        let mut trailers = frame.into_trailers().ok()?;
        trailers::towards_upstream(&mut trailers, &self.guard, self.rules.as_deref());
        Some(trailers).filter(|trailers| !trailers.is_empty())
    }

    fn check(&mut self, data: &[u8]) -> Result<(), UploadFault> {
        let Some(left) = self.left.checked_sub(data.len() as u64) else {
            return Err(self.stop(UploadFault::TooLarge));
        };
        self.left = left;
        // A body of known length is not polled again behind its last byte.
        let last = self.body.is_end_stream();
        let has_token = |scan: &mut FormScan| scan.feed(data) || (last && scan.ends());
        if self.scan.as_mut().is_some_and(has_token) {
            return Err(self.stop(UploadFault::SecondToken));
        }
        Ok(())
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.holds() == 0 && self.trailers.is_none() && (self.ended || self.body.is_end_stream())
    }

    /// Bytes that have been read and not sent.
    fn holds(&self) -> u64 {
        self.held.len().saturating_add(self.behind.len()) as u64
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let held = self.holds();
        if self.ended {
            return SizeHint::with_exact(held);
        }
        let coming = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(coming.lower().saturating_add(held));
        if let Some(upper) = coming.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.over();
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
            Self::Kept(kept) => kept.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming(stream) => stream.is_end_stream(),
            Self::Kept(kept) => kept.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming(stream) => stream.size_hint(),
            Self::Kept(kept) => kept.size_hint(),
        }
    }
}
