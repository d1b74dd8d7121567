//! Stopping without losing a request: who is still connected, and who has to be told.

use super::Shared;
use std::future::poll_fn;
use std::ops::DerefMut;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::task::Context;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Sleep;

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
    /// For workers beyond those that were announced: there are none.
    spare: Notify,
    empty: Notify,
}

/// An open connection; counted until it is dropped.
#[derive(Debug)]
pub(super) struct Open(Arc<Shared>);

/// A listener that may still bring connections; counted until it is dropped.
#[derive(Debug)]
pub(super) struct Listening<'d>(&'d Drain);

/// Work on a connection that can be told to come to its end.
pub(super) trait Winding: Future {
    /// What is being done is the last.
    fn wind_down(self: Pin<&mut Self>);
}

/// What a client gets to send one more request while the gateway drains: it may be under way.
const LAST_REQUEST: Duration = Duration::from_millis(500);

/// Drives the work on a connection of this worker. When the gateway drains, the request in flight is
/// the last (`has_asked`); a client that is idle gets a moment to send its last.
pub(super) async fn until_drained<W: Winding>(
    mut work: Pin<impl DerefMut<Target = W>>,
    has_asked: impl Fn() -> bool,
    worker: usize,
    shared: &Shared,
) -> W::Output {
    let bell = shared.drain.bell(worker);
    let mut rung = pin!(bell.notified());
    rung.as_mut().enable();
    let mut registered = false;
    let mut grace = pin!(None::<Sleep>);
    let mut told = false;
    poll_fn(|cx| {
        let stage = shared.drain.stage();
        // The bell has this task's waker from the first poll on, so that after it only the stage is
        // looked at. It rings once for each stage.
        if !told && (!registered || stage != Stage::Serving) {
            registered = true;
            if rung.as_mut().poll(cx).is_ready() && stage < Stage::Draining {
                rung.set(bell.notified());
                rung.as_mut().enable();
                let _ = rung.as_mut().poll(cx);
            }
        }
        if !told && stage == Stage::Draining {
            if grace.is_none() {
                grace.set(Some(tokio::time::sleep(LAST_REQUEST)));
            }
            let over = |timer: Pin<&mut Sleep>, cx: &mut Context<'_>| timer.poll(cx).is_ready();
            told = has_asked()
                || grace
                    .as_mut()
                    .as_pin_mut()
                    .is_none_or(|timer| over(timer, cx));
            if told {
                work.as_mut().wind_down();
            }
        }
        work.as_mut().poll(cx)
    })
    .await
}

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
            spare: Notify::new(),
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
        for bell in self.bells.iter().chain([&self.spare]) {
            bell.notify_waiters();
        }
    }

    /// Rung when the stage changes; for connections and listeners of one worker.
    pub(super) fn bell(&self, worker: usize) -> &Notify {
        self.bells.get(worker).unwrap_or(&self.spare)
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

// === impl Open ===

impl Open {
    /// Counts a connection, unless there are `max` already.
    pub(super) fn count(shared: &Arc<Shared>, max: usize) -> Option<Self> {
        let place = Self(Arc::clone(shared));
        (shared.drain.open.fetch_add(1, Relaxed) < max).then_some(place)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let drain = &self.0.drain;
        if drain.open.fetch_sub(1, SeqCst) == 1 {
            drain.empty.notify_one();
        }
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.listening.fetch_sub(1, SeqCst);
        self.0.empty.notify_one();
    }
}
