//! Every shape of response body that the simulators send.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::Sleep;

const CHUNK: usize = 64 * 1024;
static FILLER: [u8; CHUNK] = [b'x'; CHUNK];
/// White space: what an endless JSON document can go on with for ever.
static BLANK: [u8; 4096] = [b' '; 4096];

/// A response body of the simulators.
pub(super) enum Body {
    /// All of it at once.
    Whole(Option<Bytes>),
    /// This many more bytes of filler.
    Filler(u64),
    /// Blanks without an end.
    Endless,
    /// The beginning of a longer declared body; then the connection breaks.
    Cut(Cut),
    /// Frame by frame, without a declared length.
    Frames(VecDeque<Frame<Bytes>>),
    /// The request's own body.
    Passed(Incoming),
    /// What is sent into the other end, as it comes, until that is dropped.
    Live(mpsc::Receiver<Bytes>),
}

/// See [`Body::Cut`].
pub(super) struct Cut {
    first: Option<Bytes>,
    left: u64,
    /// Time for the first part to reach the socket: hyper drops what is buffered when a body fails.
    pause: Pin<Box<Sleep>>,
}

// === impl Body ===

impl Body {
    /// A body without content.
    pub(super) fn empty() -> Self {
        Self::Whole(None)
    }

    /// A body that declares `declared` bytes, sends half of them and breaks.
    pub(super) fn cut(declared: u64) -> Self {
        let half = usize::try_from(declared / 2).map_or(CHUNK, |half| half.min(CHUNK));
        Self::Cut(Cut {
            first: FILLER.get(..half).map(Bytes::from_static),
            left: declared,
            pause: Box::pin(tokio::time::sleep(Duration::from_millis(20))),
        })
    }

    /// Three chunks and a trailer `x-checksum`.
    pub(super) fn chunks_with_trailer() -> Self {
        let mut trailers = HeaderMap::new();
        trailers.insert(
            HeaderName::from_static("x-checksum"),
            HeaderValue::from_static("3-chunks"),
        );
        let mut frames: VecDeque<_> = ["one\n", "two\n", "three\n"]
            .map(|text| Frame::data(Bytes::from_static(text.as_bytes())))
            .into();
        frames.push_back(Frame::trailers(trailers));
        Self::Frames(frames)
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(content: T) -> Self {
        let content = content.into();
        Self::Whole((!content.is_empty()).then_some(content))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let data = match self.get_mut() {
            Self::Whole(content) => content.take(),
            Self::Filler(left) => filler(left),
            Self::Endless => Some(Bytes::from_static(&BLANK)),
            Self::Cut(cut) => return cut.poll(cx),
            Self::Frames(frames) => return Poll::Ready(frames.pop_front().map(Ok)),
            Self::Passed(incoming) => {
                return Pin::new(incoming).poll_frame(cx).map_err(io::Error::other);
            }
            Self::Live(blocks) => {
                return blocks
                    .poll_recv(cx)
                    .map(|block| Some(Ok(Frame::data(block?))));
            }
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(content) => content.is_none(),
            Self::Filler(left) => *left == 0,
            Self::Endless | Self::Cut(_) | Self::Live(_) => false,
            Self::Frames(frames) => frames.is_empty(),
            Self::Passed(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(content) => {
                SizeHint::with_exact(content.as_ref().map_or(0, |content| content.len() as u64))
            }
            Self::Filler(left) => SizeHint::with_exact(*left),
            Self::Cut(cut) => SizeHint::with_exact(cut.left),
            Self::Endless | Self::Frames(_) | Self::Live(_) => SizeHint::default(),
            Self::Passed(incoming) => incoming.size_hint(),
        }
    }
}

// === impl Cut ===

impl Cut {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            self.left = self.left.saturating_sub(first.len() as u64);
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.pause
            .as_mut()
            .poll(cx)
            .map(|()| Some(Err(io::Error::other("cut on purpose"))))
    }
}

fn filler(left: &mut u64) -> Option<Bytes> {
    let take = usize::try_from(*left).map_or(CHUNK, |left| left.min(CHUNK));
    *left -= take as u64;
    FILLER
        .get(..take)
        .filter(|part| !part.is_empty())
        .map(Bytes::from_static)
}
