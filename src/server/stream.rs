//! A client's socket: deadlines on heads and on idleness, and a voice for what hyper would refuse
//! with a bare status line.

use super::client::{Client, FINISHING, HEAD, IDLE, SWITCHED};
use super::head::Watch;
use super::stalled::Stalled;
use super::transport::Transport;
use super::{Shared, unparsed};
use crate::rejection::{Reason, Rejection};
use crate::snapshot::Limits;
use bytes::Bytes;
use http::StatusCode;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Before a connection is closed that may have unread bytes, this much more is read and thrown away, and no
/// longer than [`LINGER`]: a close at once would be a reset, which takes back the answer that the
/// client has not read yet (RFC 9112 §9.6).
const MAX_LINGER: usize = 16 << 20;
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// The client's socket, with the deadlines that hyper does not tell apart: one for a whole head,
/// counted from its first byte on every request, and one for the time between requests.
pub(super) struct Socket {
    stream: Transport,
    watch: Watch,
    client: Arc<Client>,
    shared: Arc<Shared>,
    header_timeout: Duration,
    idle_timeout: Duration,
    /// Holds while the phase is `IDLE` or `HEAD`.
    deadline: Instant,
    /// Armed for some deadline at or before the present one, and moved only when it fires: most
    /// requests never touch it.
    timer: Option<Pin<Box<Sleep>>>,
    stalled: Stalled,
    /// Whether a byte has come of the head that is due.
    heard: bool,
    /// Our own words, in place of hyper's, on their way out.
    substitute: Bytes,
    /// Interim responses on their way out.
    interim: Bytes,
    /// Whether there were any words of ours.
    refused: bool,
    /// While the connection closes: the bytes that may still be thrown away.
    linger: Option<usize>,
}

// === impl Socket ===

impl Socket {
    /// The socket of a client that connected at `since`: its first head is due from then.
    pub(super) fn new(
        stream: Transport,
        client: &Arc<Client>,
        shared: &Arc<Shared>,
        limits: &Limits,
        since: Instant,
    ) -> Self {
        Self {
            stream,
            watch: Watch::new(),
            client: Arc::clone(client),
            shared: Arc::clone(shared),
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            deadline: since + limits.header_timeout,
            timer: None,
            stalled: Stalled::new(limits.body_timeout),
            heard: false,
            substitute: Bytes::new(),
            interim: Bytes::new(),
            refused: false,
            linger: None,
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Makes sure that the present deadline wakes the connection: hyper reads again only when
    /// something does. A timer that runs for an earlier deadline will, and is left alone.
    fn rearm(&mut self, cx: &mut Context<'_>) {
        let runs =
            |timer: &Pin<Box<Sleep>>| !timer.is_elapsed() && timer.deadline() <= self.deadline;
        if !self.timer.as_ref().is_some_and(runs) {
            // If it has passed already, the next read says so.
            let _ = self.poll_deadline(cx);
        }
    }

    /// Looks at what has just come, before hyper does.
    ///
    /// Several requests may come in one read, so a flaw is kept with the number of its request: the
    /// ones before it are served, and it is refused when hyper hands it over. Only where that has
    /// happened already, and the flaw is in a body that is being read, does the read fail.
    fn look_at(&mut self, bytes: &[u8]) -> io::Result<()> {
        let looked = self.watch.feed(bytes);
        self.client.heads.store(self.watch.heads(), Relaxed);
        let Err((request, flaw)) = looked else {
            return Ok(());
        };
        let _ = self.client.flaw.set((request, flaw));
        if request <= self.client.asked.load(Relaxed) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, flaw));
        }
        Ok(())
    }

    fn timed_out(&mut self, cx: &mut Context<'_>) -> io::Error {
        // Who has connected and said nothing is not told off for it.
        if self.heard {
            let rejection =
                Rejection::noted(Reason::RequestTimeout, "no whole head in header_timeout");
            let reply = unparsed::refusal(&self.shared, self.client.address, &rejection);
            // Nothing else has been written since the last flush, so this fits or nobody listens.
            let _ = Pin::new(&mut self.stream).poll_write(cx, &reply);
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
        }
        io::ErrorKind::TimedOut.into()
    }

    /// What to say in place of hyper's bare status line. Only hyper itself writes while no request
    /// is being answered, and only to refuse what it could not parse.
    fn instead_of(&self, refusal: &[u8]) -> Bytes {
        let status = refusal
            .get(9..12)
            .and_then(|code| StatusCode::from_bytes(code).ok());
        let reason = match status {
            Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG) => {
                Reason::HeadersTooLarge
            }
            _ => Reason::BadRequest,
        };
        let rejection = match self.client.flaw_ahead() {
            Some(flaw) => Rejection::noted(Reason::BadRequest, flaw.to_string()),
            None => Rejection::noted(reason, "the request head cannot be parsed"),
        };
        unparsed::refusal(&self.shared, self.client.address, &rejection)
    }

    fn poll_substitute(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.refused = true;
        while !self.substitute.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.substitute);
            let written = ready!(self.stalled.unless_written(cx, written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let _ = self.substitute.split_to(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what an upstream has to say before its answer. hyper flushes whenever it has nothing to
    /// write, so that it does not wait for the answer.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim.is_empty() {
            self.interim = self.client.take_interim();
        }
        while !self.interim.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.interim);
            let written = ready!(self.stalled.unless_written(cx, written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let _ = self.interim.split_to(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and throws away until the client has closed too, or has had its time.
    fn poll_linger(&mut self, mut left: usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [MaybeUninit::uninit(); 8 << 10];
        while left > 0 {
            let mut buffer = ReadBuf::uninit(&mut space);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    left = left.saturating_sub(buffer.filled().len());
                    self.linger = Some(left);
                }
                Poll::Ready(_) => break,
                Poll::Pending => return self.poll_deadline(cx).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
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
        if self.client.phase.load(Relaxed) == SWITCHED {
            return polled;
        }
        self.look_at(buffer.filled().get(before..).unwrap_or_default())?;
        let phase = self.client.phase.load(Relaxed);
        if phase != IDLE && phase != HEAD {
            return polled;
        }
        if polled.is_pending() {
            ready!(self.poll_deadline(cx));
            return Poll::Ready(Err(self.timed_out(cx)));
        }
        if buffer.filled().len() > before {
            self.heard = true;
            if phase == IDLE {
                self.client.phase.store(HEAD, Relaxed);
                self.deadline = Instant::now() + self.header_timeout;
            }
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
        if self.client.phase.load(Relaxed) <= HEAD {
            if self.substitute.is_empty() {
                self.substitute = self.instead_of(bytes);
            }
            ready!(self.poll_substitute(cx))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_interim(cx))?;
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.stalled.unless_written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.client.phase.load(Relaxed) <= HEAD {
            let first = parts
                .iter()
                .find(|part| !part.is_empty())
                .map_or(&[][..], |part| part);
            return self.poll_write(cx, first);
        }
        ready!(self.poll_interim(cx))?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.stalled.unless_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        ready!(self.stalled.unless_flushed(cx, flushed))?;
        if self.client.phase.load(Relaxed) != FINISHING {
            return Poll::Ready(Ok(()));
        }
        if self.client.arriving.load(Relaxed) {
            // An upstream may answer before the request has ended: what comes then is no next head.
            // Who reads the end of the body wakes nobody here, so this looks again by itself.
            self.deadline = Instant::now() + self.idle_timeout;
        } else {
            // The next head may have begun to come with the last request.
            self.heard = self.watch.in_head();
            let (phase, patience) = if self.heard {
                (HEAD, self.header_timeout)
            } else {
                (IDLE, self.idle_timeout)
            };
            self.client.phase.store(phase, Relaxed);
            self.deadline = Instant::now() + patience;
        }
        self.rearm(cx);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let left = match self.linger {
            Some(left) => left,
            None => {
                let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
                ready!(self.stalled.unless_flushed(cx, shut))?;
                self.deadline = Instant::now() + LINGER;
                let unread = self.refused || self.client.body.load(Relaxed);
                let left = if unread { MAX_LINGER } else { 0 };
                self.linger = Some(left);
                left
            }
        };
        self.poll_linger(left, cx)
    }
}
