//! Who is out: servers that failed too often, for a while. Also where changes of health are noted.
//!
//! All of this is rare, so it is behind a lock. Requests only read the outcome, from the server itself.

use super::queue::Queue;
use super::server::{Server, whole_millis};
use prometheus::IntGaugeVec;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// A server is out for at most so many times the configured time.
const LONGEST: u32 = 10;

/// When a server is taken out, and for how long: `[upstream.*.eject]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EjectRules {
    /// Failures in a row.
    pub after: u32,
    /// How long the first time.
    pub time: Duration,
    /// The share of the servers that may be out at once, from 0 to 1.
    pub max_ejected: f64,
}

/// What is known of an upstream's servers together. It outlives snapshots.
#[derive(Debug)]
pub struct Group {
    /// Tells groups apart.
    pub(super) id: u64,
    upstream: Arc<str>,
    /// `upstream_server_healthy`
    gauge: IntGaugeVec,
    /// Who waits for a place at one of the servers.
    pub(super) queue: Arc<Queue>,
    state: Mutex<State>,
    /// Wakes who lets servers in again.
    ejected: Notify,
}

#[derive(Debug, Default)]
struct State {
    rules: Option<EjectRules>,
    /// Which of the upstreams of that name decides; higher is newer.
    serial: u64,
    seats: Vec<Seat>,
}

/// A server in use, and what became of it so far.
#[derive(Debug)]
struct Seat {
    server: Arc<Server>,
    /// Times it was out, without having stayed in for as long in between.
    times: u32,
    /// When it is let in again, or was last.
    until: u64,
    /// How long that time was, in milliseconds.
    term: u64,
}

// === impl EjectRules ===

impl EjectRules {
    /// How many of so many servers may be out at once.
    fn most(&self, servers: usize) -> usize {
        if servers < 2 || self.max_ejected <= 0.0 {
            return 0;
        }
        // No list of servers is too long for a float.
        let share = (servers as f64 * self.max_ejected) as usize;
        share.clamp(1, servers)
    }

    /// How many milliseconds a server is out that is for the so-manieth time.
    fn term(&self, times: u32) -> u64 {
        whole_millis(self.time.saturating_mul(times.min(LONGEST)))
    }
}

// === impl Group ===

impl Group {
    /// The servers of an upstream, none so far.
    pub fn new(upstream: Arc<str>, gauge: IntGaugeVec) -> Arc<Self> {
        use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Relaxed),
            upstream,
            gauge,
            queue: Arc::default(),
            state: Mutex::default(),
            ejected: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked here left no half-written seat.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are the servers in use from now on, and the rules for them. An upstream that has been replaced has no
    /// say any more.
    pub(super) fn adopt(
        &self,
        serial: u64,
        rules: Option<EjectRules>,
        servers: &[Arc<Server>],
        now: u64,
    ) {
        let mut state = self.state();
        if serial < state.serial {
            return;
        }
        let mut before = std::mem::take(&mut state.seats);
        state.serial = serial;
        state.rules = rules;
        for server in servers {
            let known = before.iter().position(|seat| seat.server.id == server.id);
            let mut seat = match known {
                Some(at) => before.swap_remove(at),
                None => Seat::new(server),
            };
            server.eject_after(rules.map_or(0, |rules| rules.after));
            if rules.is_none() && server.is_ejected() {
                seat.release(now);
            }
            state.seats.push(seat);
        }
        for gone in &before {
            // Its series may be gone already.
            let _ = self
                .gauge
                .remove_label_values(&[&*self.upstream, &*gone.server.label]);
        }
        for seat in &state.seats {
            self.show(&seat.server);
        }
        // There may be servers of before that are out.
        self.ejected.notify_one();
        self.offer(state);
    }

    /// Others may get requests now than did before: so those who wait may have a place that nobody could take.
    fn offer(&self, state: MutexGuard<'_, State>) {
        if self.queue.is_empty() {
            return;
        }
        let seats = state.seats.iter();
        let servers: Vec<_> = seats.map(|seat| Arc::clone(&seat.server)).collect();
        drop(state);
        for server in &servers {
            self.queue.hand_out(server);
        }
    }

    /// A server has failed too often.
    pub(super) fn eject(&self, id: u64, now: u64) {
        let mut state = self.state();
        let Some(rules) = state.rules else { return };
        let out = state.seats.iter().filter(|seat| seat.server.is_ejected());
        let room = out.count() < rules.most(state.seats.len());
        let Some(seat) = state.seats.iter_mut().find(|seat| seat.server.id == id) else {
            return;
        };
        if seat.server.is_ejected() {
            return;
        }
        if !room {
            tracing::debug!(upstream = %self.upstream, server = %seat.server.label, "fails, and stays in: max_ejected are out");
            return;
        }
        let term = seat.eject(&rules, now);
        tracing::warn!(upstream = %self.upstream, server = %seat.server.label, milliseconds = term, times = seat.times, "failed too often, gets no requests for a while");
        self.show(&seat.server);
        self.ejected.notify_one();
        self.offer(state);
    }

    /// Lets in again whose time is over. Returns when the next one's will be.
    pub(super) fn release(&self, now: u64) -> Option<u64> {
        let mut state = self.state();
        let mut next = None;
        for seat in &mut state.seats {
            if !seat.server.is_ejected() {
                continue;
            }
            if seat.until <= now {
                seat.release(now);
                tracing::info!(upstream = %self.upstream, server = %seat.server.label, "gets requests again");
                self.show(&seat.server);
            } else {
                next = Some(next.map_or(seat.until, |next: u64| next.min(seat.until)));
            }
        }
        self.offer(state);
        next
    }

    /// Comes back when a server has been taken out.
    pub(super) async fn ejected(&self) {
        self.ejected.notified().await;
    }

    /// What health checks say of a server has changed.
    pub(super) fn set_well(&self, server: &Server, well: bool, now: u64) {
        let mut state = self.state();
        server.set_well(well);
        let Some(seat) = state
            .seats
            .iter_mut()
            .find(|seat| seat.server.id == server.id)
        else {
            return;
        };
        if well {
            server.came_back(now);
            // The checks have seen it down and up again: what it failed before is over.
            if server.is_ejected() {
                seat.release(now);
            }
        }
        self.show(server);
        self.offer(state);
    }

    fn show(&self, server: &Server) {
        self.gauge
            .with_label_values(&[&*self.upstream, &*server.label])
            .set(i64::from(server.is_in()));
    }
}

// === impl Seat ===

impl Seat {
    fn new(server: &Arc<Server>) -> Self {
        Self {
            server: Arc::clone(server),
            times: 0,
            until: 0,
            term: 0,
        }
    }

    /// Returns how many milliseconds it is out.
    fn eject(&mut self, rules: &EjectRules, now: u64) -> u64 {
        let proven = self.times > 0 && now.saturating_sub(self.until) >= self.term;
        self.times = if proven {
            1
        } else {
            self.times.saturating_add(1)
        };
        self.term = rules.term(self.times);
        self.until = now.saturating_add(self.term);
        self.server.set_ejected(true);
        self.term
    }

    fn release(&mut self, now: u64) {
        self.until = self.until.min(now);
        self.server.set_ejected(false);
        self.server.came_back(now);
    }
}
