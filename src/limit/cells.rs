//! What this process has counted, in bounded memory: a number for each caller of each rule.
//!
//! A caller who has everything again is forgotten, which changes nothing. If there are more of the
//! others than fit, those who ask least often are forgotten first, and have everything again at
//! once: who rotates through addresses or accounts has a full burst with each of them anyway, and
//! cannot push out the counts of those who ask more often than that.

use super::Spec;
use super::caller::Caller;
use crate::store::Taken;
use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use moka::Expiry;
use moka::sync::Cache;
use std::fmt;
use std::hash::{BuildHasher, Hasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Callers that are remembered at one time, over all rules. Each takes about 450 bytes, so that it
/// is 60 MB at most.
pub const MAX_CELLS: u64 = 1 << 17;

/// The counts of all rules. Counting is one atomic; finding the cell may take, for a moment, the lock of the small
/// part of the map that it is in.
#[derive(Clone)]
pub(super) struct Cells(Arc<Shared>);

struct Shared {
    cells: Cache<CellKey, Arc<Cell>>,
    /// Random for this process, so that nobody can choose a name that hits another's.
    names: RandomState,
    /// Rules so far.
    rules: AtomicU64,
}

/// Which cell: the number of its rule, and the hash of its caller's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct CellKey {
    rule: u64,
    caller: u64,
}

#[derive(Debug)]
struct Cell {
    state: InMemoryState,
    /// After this time without use its state says nothing any more.
    whole: Duration,
}

struct Forget;

/// The cells of one rule. Its number is its own for ever: states count from the start of a limiter,
/// so that one must not find those of another.
#[derive(Clone)]
struct RuleCells {
    all: Cells,
    rule: u64,
    whole: Duration,
}

/// A rule at work in this process.
pub(super) struct Limiter<C: Clock> {
    limiter: RateLimiter<u64, RuleCells, C, StateInformationMiddleware>,
    names: RandomState,
}

// === impl Cells ===

impl Default for Cells {
    fn default() -> Self {
        Self::with_capacity(MAX_CELLS)
    }
}

impl fmt::Debug for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cells")
            .field("count", &self.0.cells.entry_count())
            .finish_non_exhaustive()
    }
}

impl Cells {
    pub(super) fn with_capacity(cells: u64) -> Self {
        Self(Arc::new(Shared {
            cells: Cache::builder()
                .max_capacity(cells)
                .expire_after(Forget)
                .build(),
            names: RandomState::new(),
            rules: AtomicU64::new(0),
        }))
    }

    /// How many there are, once what was put off has been done.
    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.0.cells.run_pending_tasks();
        self.0.cells.entry_count()
    }
}

// === impl Forget ===

impl Expiry<CellKey, Arc<Cell>> for Forget {
    fn expire_after_create(&self, _: &CellKey, cell: &Arc<Cell>, _: Instant) -> Option<Duration> {
        Some(cell.whole)
    }

    fn expire_after_read(
        &self,
        _: &CellKey,
        cell: &Arc<Cell>,
        _: Instant,
        _: Option<Duration>,
        _: Instant,
    ) -> Option<Duration> {
        Some(cell.whole)
    }
}

// === impl RuleCells ===

impl StateStore for RuleCells {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, caller: &u64, step: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let key = CellKey {
            rule: self.rule,
            caller: *caller,
        };
        let cells = &self.all.0.cells;
        // `get_with` would allocate even where the cell is there.
        let cell = cells.get(&key).unwrap_or_else(|| {
            cells.get_with(key, || {
                Arc::new(Cell {
                    state: InMemoryState::default(),
                    whole: self.whole,
                })
            })
        });
        cell.state.measure_and_replace(&NotKeyed::NonKey, step)
    }
}

// === impl Limiter ===

impl<C: Clock> Limiter<C> {
    pub(super) fn new(spec: &Spec, cells: &Cells, clock: C) -> Self {
        let state = RuleCells {
            all: cells.clone(),
            rule: cells.0.rules.fetch_add(1, Relaxed),
            // A moment more than needed: the two clocks are read one after the other.
            whole: spec.whole() + Duration::from_secs(1),
        };
        // A period is never zero; if it were, the rule would not hold anybody up.
        let quota = Quota::with_period(spec.period)
            .unwrap_or_else(|| Quota::per_second(spec.burst))
            .allow_burst(spec.burst);
        Self {
            limiter: RateLimiter::new(quota, state, clock),
            names: cells.0.names.clone(),
        }
    }

    /// Counts a request of this caller.
    pub(super) fn take(&self, caller: &Caller) -> Taken {
        let mut hasher = self.names.build_hasher();
        caller.name(|part| {
            hasher.write_usize(part.len());
            hasher.write(part);
        });
        match self.limiter.check_key(&hasher.finish()) {
            Ok(state) => Taken::Admitted {
                left: state.remaining_burst_capacity(),
            },
            Err(until) => Taken::Refused {
                wait: until.wait_time_from(self.limiter.clock().now()),
            },
        }
    }
}
