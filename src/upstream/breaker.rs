//! How many requests a server gets at a time, and how many may wait for their turn.

use super::Server;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// The limits of an upstream. Who is counted, and who waits, is known to its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// Requests in flight to one server at most.
    pub max_connections: usize,
    /// Requests that wait for a server at most.
    pub max_pending: usize,
}

/// A request at a server; counted until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Server>);

/// A counter on cache lines of its own. Every worker writes it with every request: what lies beside it would have to
/// be fetched anew as often, and most of a server is only read.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counter(AtomicUsize);

// === impl Breaker ===

impl Breaker {
    /// A place at the server, if one is free and nobody waits for any server of its upstream. Takes no lock.
    ///
    /// # Errors
    /// The server, if there is none.
    pub(super) fn try_enter(self, server: Arc<Server>) -> Result<InFlight, Arc<Server>> {
        if !server.queue.is_empty() {
            return Err(server);
        }
        // Counted first and looked at afterwards: that is one step, and mostly the last.
        if server.in_flight.fetch_add(1, SeqCst) < self.max_connections {
            return Ok(InFlight(server));
        }
        // Whoever looked in between has seen one too many, and may wait now for what is free.
        leave(&server);
        Err(server)
    }
}

/// Uncounts one, and tells who waits.
fn leave(server: &Arc<Server>) {
    // In this order, and one who waits says so before looking for a place: one of the two sees the other.
    server.in_flight.fetch_sub(1, SeqCst);
    server.queue.hand_on(server);
}

// === impl InFlight ===

impl InFlight {
    /// A place at a server with fewer requests than `most`.
    pub(super) fn below(most: usize, server: &Arc<Server>) -> Option<Self> {
        let more = |in_flight| (in_flight < most).then_some(in_flight + 1);
        let taken = server.in_flight.fetch_update(SeqCst, SeqCst, more);
        taken.is_ok().then(|| Self(Arc::clone(server)))
    }

    /// Where it is.
    pub(super) fn server(&self) -> &Arc<Server> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        leave(&self.0);
    }
}

// === impl Counter ===

impl Deref for Counter {
    type Target = AtomicUsize;

    fn deref(&self) -> &AtomicUsize {
        &self.0
    }
}
