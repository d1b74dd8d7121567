//! Which HTTP a client speaks, seen from its first bytes.

use super::drain::Winding;
use super::transport::Transport;
use bytes::{Bytes, BytesMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep};

/// With this every HTTP/2 connection begins (RFC 9113 §3.4). No HTTP/1.1 request can.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first bytes of a plain request are mostly all of its head.
const FIRST: usize = 1024;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1, or something that HTTP/1.1 will refuse.
    Http1,
    /// HTTP/2, by prior knowledge or ALPN.
    Http2,
}

/// Waits for as many of a client's first bytes as it takes to know. They are read again later.
///
/// `None` if nobody spoke until the deadline, the gateway stopped, or the client left.
pub(super) struct Sniff {
    stream: Option<Transport>,
    seen: BytesMut,
    timer: Pin<Box<Sleep>>,
    over: bool,
}

// === impl Sniff ===

impl Sniff {
    pub(super) fn new(stream: Transport, deadline: Instant) -> Self {
        Self {
            stream: Some(stream),
            seen: BytesMut::new(),
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            over: false,
        }
    }

    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Option<Protocol>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(None);
        };
        loop {
            if !PREFACE.starts_with(&self.seen) {
                let same = self.seen.starts_with(PREFACE);
                return Poll::Ready(Some(if same {
                    Protocol::Http2
                } else {
                    Protocol::Http1
                }));
            }
            if self.seen.len() == PREFACE.len() {
                return Poll::Ready(Some(Protocol::Http2));
            }
            let mut space = [0; FIRST];
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.seen.extend_from_slice(buffer.filled());
                }
                // The rest of what was said is HTTP/1.1's to judge.
                Poll::Ready(_) if !self.seen.is_empty() => {
                    return Poll::Ready(Some(Protocol::Http1));
                }
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending if self.over => return Poll::Ready(None),
                Poll::Pending => {
                    ready!(self.timer.as_mut().poll(cx));
                    return Poll::Ready((!self.seen.is_empty()).then_some(Protocol::Http1));
                }
            }
        }
    }
}

impl Future for Sniff {
    type Output = Option<(Protocol, Transport)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let protocol = ready!(self.poll_first(cx));
        let seen: Bytes = std::mem::take(&mut self.seen).freeze();
        let stream = self.stream.take();
        Poll::Ready(protocol.zip(stream).map(|(protocol, mut stream)| {
            stream.unread(seen);
            (protocol, stream)
        }))
    }
}

impl Winding for Sniff {
    fn wind_down(mut self: Pin<&mut Self>) {
        self.over = true;
    }
}
