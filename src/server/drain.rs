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

/// What a connection is at, as far as its end goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// It has had its chance: what is being done is the last.
    Now,
    /// Nothing is being done: a request may be under way.
    AfterGrace,
    /// What has begun has a deadline of its own, and winding down would cut it.
    NotYet,
}

impl From<bool> for Moment {
    /// Whether it has had its chance is all there is to say of most work.
    fn from(has_asked: bool) -> Self {
        if has_asked {
            Self::Now
        } else {
            Self::AfterGrace
        }
    }
}

/// Drives the work on a connection of this worker, and winds it down when the gateway drains, at the
/// `moment` that it finds fit.
pub(super) async fn until_drained<W: Winding, M: Into<Moment>>(
    mut work: Pin<impl DerefMut<Target = W>>,
    moment: impl Fn() -> M,
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
        let mut stage = shared.drain.stage();
        // The bell has this task's waker from the first poll on, so that after it only the stage is
        // looked at. It rings once for each stage.
        if !told && (!registered || stage != Stage::Serving) {
            registered = true;
            while rung.as_mut().poll(cx).is_ready() && stage < Stage::Draining {
                rung.set(bell.notified());
                rung.as_mut().enable();
                // What was rung before the bell was heard again is not rung for this task.
                stage = shared.drain.stage();
            }
        }
        let draining = stage == Stage::Draining;
        loop {
            if !told && draining && is_due(moment().into(), grace.as_mut(), cx) {
                told = true;
                work.as_mut().wind_down();
            }
            let polled = work.as_mut().poll(cx);
            // The work may have come to another moment, of which nobody tells this task.
            if polled.is_ready()
                || told
                || !draining
                || !is_due(moment().into(), grace.as_mut(), cx)
            {
                return polled;
            }
        }
    })
    .await
}

/// Whether a connection of a gateway that drains has to be told now.
fn is_due(moment: Moment, mut grace: Pin<&mut Option<Sleep>>, cx: &mut Context<'_>) -> bool {
    if grace.is_none() {
        grace.set(Some(tokio::time::sleep(LAST_REQUEST)));
    }
    match moment {
        Moment::Now => true,
        Moment::NotYet => false,
        Moment::AfterGrace => grace.as_pin_mut().is_none_or(|it| it.poll(cx).is_ready()),
    }
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
