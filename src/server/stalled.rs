//! An end to waiting for a client that takes nothing of what it is sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Watches what is sent to one client.
///
/// TLS takes bytes before the client does. So a write that finds room proves nothing: only one does
/// that had found none before, and a flush that is done.
#[derive(Debug)]
pub(super) struct Stalled {
    patience: Duration,
    /// When the patience ends; absent unless something waits for the client.
    due: Option<Instant>,
    /// Whether the last write found no room.
    full: bool,
    /// Armed for `due` or earlier, and moved only when it fires: a client that is slow now and then
    /// rarely touches it.
    timer: Option<Pin<Box<Sleep>>>,
}

// === impl Stalled ===

impl Stalled {
    /// For a client that may take nothing for this long.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            due: None,
            full: false,
            timer: None,
        }
    }

    /// Passes the outcome of a write on.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] if the client has taken nothing for too long.
    pub(super) fn unless_written<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_pending() {
            self.full = true;
            return self.poll_due(cx);
        }
        if std::mem::take(&mut self.full) {
            self.due = None;
        }
        written
    }

    /// Passes the outcome of a flush on, or of a shutdown, which flushes too.
    ///
    /// # Errors
    /// As for [`Self::unless_written`].
    pub(super) fn unless_flushed(
        &mut self,
        cx: &mut Context<'_>,
        flushed: Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        if flushed.is_pending() {
            return self.poll_due(cx);
        }
        (self.due, self.full) = (None, false);
        flushed
    }

    fn poll_due<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let patience = self.patience;
        let due = *self.due.get_or_insert_with(|| Instant::now() + patience);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            timer.as_mut().reset(due);
        }
    }
}
