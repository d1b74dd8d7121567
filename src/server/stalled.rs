//! An end to waiting for a client that takes nothing of what it is sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// Watches the writes to one client.
#[derive(Debug)]
pub(super) struct Stalled {
    patience: Duration,
    /// Runs while the client takes nothing.
    timer: Option<Pin<Box<Sleep>>>,
}

// === impl Stalled ===

impl Stalled {
    /// For a client that may take nothing for this long.
    pub(super) fn new(patience: Duration) -> Self {
        let timer = None;
        Self { patience, timer }
    }

    /// Passes the outcome of a write on, unless too much time has gone without one.
    pub(super) fn unless<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.timer = None;
            return written;
        }
        let patience = self.patience;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}
