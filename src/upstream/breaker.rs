//! How many requests a server gets at a time, and how many may wait for their turn.

use super::{SendError, Server};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::Notify;

/// The limits of an upstream, and who waits.
#[derive(Debug)]
pub struct Breaker {
    /// Requests in flight to one server at most.
    pub max_connections: usize,
    /// Requests that wait for a server at most.
    pub max_pending: usize,
    pending: AtomicUsize,
}

/// Those who wait for a place at one server, first come, first served.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: AtomicUsize,
    freed: Notify,
}

/// A request at a server; counted until it is dropped.
#[derive(Debug)]
pub struct InFlight(pub(super) Arc<Server>);

/// One that waits; counted until it is dropped, so one whose client leaves is taken out.
struct Waiting<'a>(&'a Breaker, &'a Queue);

// === impl Breaker ===

impl Breaker {
    /// Limits with nobody waiting.
    pub fn new(max_connections: usize, max_pending: usize) -> Self {
        Self {
            max_connections,
            max_pending,
            pending: AtomicUsize::new(0),
        }
    }

    /// A place at the server, if one is free and nobody waits for it. Takes no lock.
    pub(super) fn try_enter(&self, server: &Arc<Server>) -> Option<InFlight> {
        if server.queue.waiting.load(SeqCst) > 0 {
            return None;
        }
        self.take(server)
    }

    /// A place at the server, waited for as long as `patience`.
    ///
    /// # Errors
    /// [`SendError::Overloaded`] if too many wait already, or it took too long.
    pub(super) async fn enter(
        &self,
        server: &Arc<Server>,
        patience: Duration,
    ) -> Result<InFlight, SendError> {
        let waiting = self.wait(&server.queue).ok_or(SendError::Overloaded)?;
        let entered = async {
            loop {
                // Listening begins before the look, so that no place is freed in between unnoticed.
                let mut freed = pin!(server.queue.freed.notified());
                freed.as_mut().enable();
                if let Some(place) = self.take(server) {
                    return place;
                }
                freed.await;
            }
        };
        let entered = pingora_timeout::timeout(patience, entered).await;
        drop(waiting);
        entered.map_err(|_| SendError::Overloaded)
    }

    fn take(&self, server: &Arc<Server>) -> Option<InFlight> {
        let more = |in_flight| (in_flight < self.max_connections).then_some(in_flight + 1);
        let taken = server.in_flight.fetch_update(SeqCst, SeqCst, more);
        taken.is_ok().then(|| InFlight(Arc::clone(server)))
    }

    fn wait<'a>(&'a self, queue: &'a Queue) -> Option<Waiting<'a>> {
        let more = |pending| (pending < self.max_pending).then_some(pending + 1);
        self.pending.fetch_update(SeqCst, SeqCst, more).ok()?;
        queue.waiting.fetch_add(1, SeqCst);
        Some(Waiting(self, queue))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Self(breaker, queue) = self;
        breaker.pending.fetch_sub(1, SeqCst);
        queue.waiting.fetch_sub(1, SeqCst);
    }
}

// === impl InFlight ===

impl Drop for InFlight {
    fn drop(&mut self) {
        // In this order, and one who waits says so before looking for a place: one of the two sees the other.
        self.0.in_flight.fetch_sub(1, SeqCst);
        if self.0.queue.waiting.load(SeqCst) > 0 {
            self.0.queue.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Breaker, InFlight};
    use crate::upstream::{SendError, Server};
    use futures_util::FutureExt as _;
    use std::sync::Arc;
    use std::sync::atomic::Ordering::SeqCst;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(20);

    fn server() -> Arc<Server> {
        Arc::new(Server::alone(([127, 0, 0, 1], 1).into()))
    }

    #[tokio::test]
    async fn places_are_given_and_given_back() {
        let (breaker, server) = (Breaker::new(2, 1), server());
        let first = breaker.try_enter(&server).expect("a place");
        let second = breaker.try_enter(&server).expect("a place");
        assert!(breaker.try_enter(&server).is_none());
        let mut third = Box::pin(breaker.enter(&server, LONG));
        assert!(third.as_mut().now_or_never().is_none(), "waits");
        let surplus = breaker.enter(&server, LONG).now_or_never();
        assert!(
            matches!(surplus, Some(Err(SendError::Overloaded))),
            "at once"
        );
        drop(first);
        assert!(
            breaker.try_enter(&server).is_none(),
            "not past the one who waits"
        );
        let third = third.await.expect("a place");
        drop((second, third));
        assert_eq!(server.in_flight.load(SeqCst), 0);
        assert!(breaker.try_enter(&server).is_some());
    }

    #[tokio::test]
    async fn who_leaves_is_taken_out_and_passes_the_word_on() {
        let (breaker, server) = (Breaker::new(1, 2), server());
        let only: InFlight = breaker.try_enter(&server).expect("a place");
        let mut first = Box::pin(breaker.enter(&server, LONG));
        let mut second = Box::pin(breaker.enter(&server, LONG));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        drop(only);
        // It has been told of the place, and goes without having taken it.
        drop(first);
        let place = second.await.expect("the place of the one who left");
        drop(place);
        assert_eq!(breaker.pending.load(SeqCst), 0);
        assert_eq!(server.queue.waiting.load(SeqCst), 0);
    }

    #[tokio::test]
    async fn waiting_ends() {
        let (breaker, server) = (Breaker::new(1, 1), server());
        let _only = breaker.try_enter(&server).expect("a place");
        let waited = breaker.enter(&server, Duration::from_millis(20)).await;
        assert!(matches!(waited, Err(SendError::Overloaded)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_place_is_lost_between_threads() {
        let (breaker, server) = (Arc::new(Breaker::new(3, 1000)), server());
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let (breaker, server) = (Arc::clone(&breaker), Arc::clone(&server));
                tokio::spawn(async move {
                    for _ in 0..200 {
                        let place = match breaker.try_enter(&server) {
                            Some(place) => place,
                            None => breaker.enter(&server, LONG).await.expect("a place"),
                        };
                        assert!(server.in_flight.load(SeqCst) <= 3);
                        tokio::task::yield_now().await;
                        drop(place);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no one is forgotten");
        }
        assert_eq!(server.in_flight.load(SeqCst), 0);
    }
}
