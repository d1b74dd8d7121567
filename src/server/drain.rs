//! Stopping without losing a request: who is still connected, and who has to be told.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::Notify;

/// How far the gateway is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Serving.
    Serving,
    /// `/readyz` says 503 so that nobody sends more; connections are still accepted.
    Announced,
    /// No new connections; requests in flight may finish.
    Draining,
}

/// The stage, the open connections, and those to wake when either changes.
#[derive(Debug)]
pub struct Drain {
    stage: AtomicU8,
    open: AtomicUsize,
    /// Listeners that may still bring connections.
    listening: AtomicUsize,
    /// One bell a worker, so that connections of different workers share no lock.
    bells: Vec<Notify>,
    empty: Notify,
}

/// An open connection; counted until it is dropped.
#[derive(Debug)]
pub struct Open<'d>(&'d Drain);

/// A listener that may still bring connections; counted until it is dropped.
#[derive(Debug)]
pub(super) struct Listening<'d>(&'d Drain);

// === impl Drain ===

impl Drain {
    /// Serving, with nothing open.
    pub fn new(workers: usize) -> Self {
        let bells = std::iter::repeat_with(Notify::new).take(workers).collect();
        Self {
            stage: AtomicU8::new(Stage::Serving as u8),
            open: AtomicUsize::new(0),
            listening: AtomicUsize::new(0),
            bells,
            empty: Notify::new(),
        }
    }

    /// The present stage.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Relaxed) {
            0 => Stage::Serving,
            1 => Stage::Announced,
            _ => Stage::Draining,
        }
    }

    /// Goes on to a later stage and wakes every connection.
    pub fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, SeqCst);
        for bell in &self.bells {
            bell.notify_waiters();
        }
    }

    /// Rung when the stage changes; for connections and listeners of one worker.
    pub(super) fn bell(&self, worker: usize) -> Option<&Notify> {
        self.bells.get(worker)
    }

    /// Counts a connection, unless there are `max` already.
    pub(super) fn open(&self, max: usize) -> Option<Open<'_>> {
        let place = Open(self);
        (self.open.fetch_add(1, Relaxed) < max).then_some(place)
    }

    /// Counts a listener: nothing is empty while one may still accept.
    pub(super) fn listening(&self) -> Listening<'_> {
        self.listening.fetch_add(1, SeqCst);
        Listening(self)
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Waits until nothing is open any more and nobody listens, or for `patience`. Returns what is still open.
    pub async fn emptied(&self, patience: Duration) -> usize {
        let empty = async {
            loop {
                let notified = self.empty.notified();
                // In this order: a listener counts its connections before it goes.
                if self.listening.load(SeqCst) == 0 && self.connections() == 0 {
                    return;
                }
                notified.await;
            }
        };
        let _ = tokio::time::timeout(patience, empty).await;
        self.connections()
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, SeqCst) == 1 {
            self.0.empty.notify_one();
        }
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.listening.fetch_sub(1, SeqCst);
        self.0.empty.notify_one();
    }
}
