//! Who waits for a place at a server of an upstream, whichever frees one: first come, first served.
//!
//! Requests that find a place while nobody waits take no lock. Behind the lock a place is handed to one who waits and
//! not offered: nobody can be faster, and where the one has left meanwhile, the place frees itself when it is dropped.

use super::breaker::{Breaker, InFlight};
use super::{SendError, Server};
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Those who wait for a place at any server of one upstream. It outlives snapshots, as the servers do.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// How many wait: for those who do not.
    waiting: AtomicUsize,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    /// The number of who comes next; so those in line are in order.
    next: u64,
    waiters: VecDeque<Waiter>,
}

/// One who waits, as those see it who have a place to give.
struct Waiter {
    number: u64,
    /// Requests in flight to one server at most, as the snapshot of this one has it.
    most: usize,
    wish: Wish,
    give: oneshot::Sender<InFlight>,
}

/// Whether a place at this server would do at this moment.
pub(super) type Wish = Box<dyn Fn(&Server) -> bool + Send + Sync>;

/// One who waits, on its own side. Dropped, it is taken out of the line.
struct Waiting<'a> {
    queue: &'a Queue,
    number: u64,
    given: oneshot::Receiver<InFlight>,
}

// === impl Queue ===

impl Queue {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.load(SeqCst) == 0
    }

    /// A place at one of `servers` or at one that joins them later, waited for as long as `patience`.
    ///
    /// # Errors
    /// [`SendError::Overloaded`] if too many wait already, or it took too long.
    pub async fn enter(
        &self,
        limits: Breaker,
        servers: &[Arc<Server>],
        wish: Wish,
        patience: Duration,
    ) -> Result<InFlight, SendError> {
        let mut waiting = self.join(limits, wish).ok_or(SendError::Overloaded)?;
        // Behind the joining: who frees a place from here on sees that somebody waits.
        for server in servers {
            self.hand_out(server);
        }
        match pingora_timeout::timeout(patience, &mut waiting.given).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(SendError::Overloaded),
        }
    }

    /// Gives the free places of a server to those who wait: it may have become one that they may have, or have come
    /// with more places than one.
    pub fn hand_out(&self, server: &Arc<Server>) {
        while self.hand_on(server) {}
    }

    /// Gives one place that a server has free to the first of those who wait and may have it; whether there were
    /// both.
    pub fn hand_on(&self, server: &Arc<Server>) -> bool {
        if self.is_empty() {
            return false;
        }
        let Some((give, place)) = self.next_at(server) else {
            return false;
        };
        // Not behind the lock: a place that comes back, because its taker leaves just now, is handed on in its drop.
        let _ = give.send(place);
        true
    }

    fn next_at(&self, server: &Arc<Server>) -> Option<(oneshot::Sender<InFlight>, InFlight)> {
        let mut line = self.line();
        let busy = server.in_flight.load(SeqCst);
        let may_have = |waiter: &Waiter| busy < waiter.most && (waiter.wish)(server);
        let at = line.waiters.iter().position(may_have)?;
        let place = InFlight::below(line.waiters.get(at)?.most, server)?;
        let waiter = line.waiters.remove(at)?;
        self.waiting.store(line.waiters.len(), SeqCst);
        Some((waiter.give, place))
    }

    fn join(&self, limits: Breaker, wish: Wish) -> Option<Waiting<'_>> {
        // With a full line nobody needs the lock to be told so.
        if self.waiting.load(SeqCst) >= limits.max_pending {
            return None;
        }
        let (give, given) = oneshot::channel();
        let mut line = self.line();
        if line.waiters.len() >= limits.max_pending {
            return None;
        }
        let number = line.next;
        line.next += 1;
        line.waiters.push_back(Waiter {
            number,
            most: limits.max_connections,
            wish,
            give,
        });
        self.waiting.store(line.waiters.len(), SeqCst);
        Some(Waiting {
            queue: self,
            number,
            given,
        })
    }

    fn leave(&self, number: u64) {
        let mut line = self.line();
        let found = line
            .waiters
            .binary_search_by_key(&number, |waiter| waiter.number);
        let left = found.ok().and_then(|at| line.waiters.remove(at));
        self.waiting.store(line.waiters.len(), SeqCst);
        drop(line);
        // What a wish holds need not be let go of behind the lock.
        drop(left);
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Whoever panicked here left the line as it was.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // Who got a place is out of the line already.
        if !self.given.is_terminated() {
            self.queue.leave(self.number);
        }
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter")
            .field("number", &self.number)
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
