//! A client's socket under HTTP/2: deadlines on what has begun, and an end to floods.

use super::allowance::Allowance;
use super::frames::Frames;
use crate::server::client::Client;
use crate::server::sniff::PREFACE;
use crate::server::stalled::Stalled;
use crate::server::transport::Transport;
use crate::snapshot::Limits;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// GOAWAY, `ENHANCE_YOUR_CALM` (RFC 9113 §6.8). What was begun is lost, which is the client's doing;
/// any of it may have been acted upon, so that nothing may be sent again without a thought.
const CALM_DOWN: [u8; 17] = [
    0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 11,
];

/// The socket of an HTTP/2 connection.
pub(super) struct Socket {
    stream: Transport,
    client: Arc<Client>,
    incoming: Frames,
    outgoing: Frames,
    allowance: Allowance,
    header_timeout: Duration,
    /// Runs while a head, or any frame but one of data, has begun and not ended; with its number.
    unfinished: Option<(u64, Pin<Box<Sleep>>)>,
    stalled: Stalled,
}

// === impl Socket ===

impl Socket {
    pub(super) fn new(stream: Transport, client: &Arc<Client>, limits: &Limits) -> Self {
        Self {
            stream,
            client: Arc::clone(client),
            incoming: Frames::behind(PREFACE.len()),
            outgoing: Frames::behind(0),
            allowance: Allowance::new(Instant::now()),
            header_timeout: limits.header_timeout,
            unfinished: None,
            stalled: Stalled::new(limits.body_timeout),
        }
    }

    /// Looks at what has just come, before hyper does.
    fn look_at(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.client.heard.store(true, Relaxed);
        let (mut fine, mut now) = (true, None);
        let allowance = &mut self.allowance;
        self.incoming.feed(bytes, |frame| {
            let now = *now.get_or_insert_with(Instant::now);
            fine &= allowance.spend(frame, now);
        });
        if fine {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "a flood of frames that carry nothing",
        ))
    }

    /// Says why the connection ends, if that does not fall into the middle of a frame.
    fn say_goodbye(&mut self, cx: &mut Context<'_>) {
        if self.outgoing.at_boundary() {
            // It fits, or nobody listens.
            let _ = Pin::new(&mut self.stream).poll_write(cx, &CALM_DOWN);
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
        }
    }

    fn poll_unfinished(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(number) = self.incoming.unfinished() else {
            self.unfinished = None;
            return Poll::Pending;
        };
        let patience = self.header_timeout;
        // What is new on a busy connection has its own time.
        self.unfinished.take_if(|(other, _)| *other != number);
        let (_, timer) = self
            .unfinished
            .get_or_insert_with(|| (number, Box::pin(tokio::time::sleep(patience))));
        ready!(timer.as_mut().poll(cx));
        self.say_goodbye(cx);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn wrote(&mut self, parts: &[io::IoSlice<'_>], mut count: usize) {
        let (bytes, mut frames) = (count, 0);
        for part in parts {
            let here = count.min(part.len());
            let written = part.get(..here).unwrap_or_default();
            self.outgoing
                .feed(written, |frame| frames += u32::from(frame.answers()));
            count -= here;
        }
        self.allowance.earn(bytes, frames);
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Err(flood) = self.look_at(buffer.filled().get(before..).unwrap_or_default()) {
            self.say_goodbye(cx);
            return Poll::Ready(Err(flood));
        }
        if polled.is_pending() {
            return self.poll_unfinished(cx);
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.as_mut()
            .poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        if let Poll::Ready(Ok(count)) = &written {
            self.wrote(parts, *count);
        }
        self.stalled.unless_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.stalled.unless_flushed(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.stalled.unless_flushed(cx, shut)
    }
}
