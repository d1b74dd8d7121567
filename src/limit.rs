//! Rate limits: how often each caller of a route may ask. GCRA, which is a leaking bucket that needs
//! one number a caller: the moment until which it has used up what it may have.
//!
//! Nothing here waits. [`Rule::ask`] says who would be counted; the count is taken in this process
//! ([`Ask::take`]) or, by whoever may wait, in the shared store; [`Ask::settle`] makes of either an
//! [`Allowance`] or a refusal. A request cannot go upstream through a limited route without one.

mod caller;
mod cells;
mod fields;

pub use caller::By;
pub use cells::MAX_CELLS;

use crate::identity::Identity;
use crate::rejection::{Excess, Reason, Rejection};
use crate::store::{RateKey, Taken};
use caller::Caller;
use cells::{Cells, Limiter};
use governor::clock::{Clock, DefaultClock};
use http::HeaderValue;
use prometheus::IntCounter;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// What a rule says: `rate_limit` of a route. Rules that say the same share their counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Spec {
    /// The route.
    pub route: Arc<str>,
    /// What counts as one caller.
    pub by: By,
    /// From one request to the next, on average.
    pub period: Duration,
    /// How many at once after a pause.
    pub burst: NonZeroU32,
    /// How people write it: `100/s`.
    pub rate: Box<str>,
}

/// A rule with what it has counted in this process.
pub struct Rule<C: Clock = DefaultClock> {
    spec: Spec,
    limiter: Limiter<C>,
    /// The name by which clients know the rule, as a string of RFC 9651.
    name: Box<str>,
    /// `RateLimit-Policy`.
    policy: HeaderValue,
    /// Requests refused.
    refused: IntCounter,
}

/// The rules of all snapshots, and the counts of all callers: it outlives reloads. A rule that a
/// reload does not change is found here again.
#[derive(Debug, Default)]
pub struct RateLimits {
    cells: Cells,
    rules: Mutex<HashMap<Spec, Weak<Rule>>>,
}

/// A request that wants to be counted.
#[derive(Debug)]
pub struct Ask<C: Clock = DefaultClock> {
    rule: Arc<Rule<C>>,
    caller: Caller,
}

/// Proof that a request was counted, and what its caller has left. Made by [`Ask::settle`]; for
/// `explain`, which is no request, by [`Ask::untouched`].
#[derive(Debug, Clone)]
pub struct Allowance {
    rule: Arc<Rule>,
    /// How many more may come at once; `None` if nothing was counted.
    left: Option<u32>,
}

// === impl Spec ===

impl Spec {
    /// The time after which a caller who has used up everything has all of it again.
    pub fn whole(&self) -> Duration {
        self.period.saturating_mul(self.burst.get())
    }
}

// === impl Rule ===

impl<C: Clock> fmt::Debug for Rule<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule")
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

impl<C: Clock> Rule<C> {
    fn new(spec: Spec, cells: &Cells, clock: C, refused: IntCounter) -> Self {
        let name = fields::name(&spec.route);
        Self {
            limiter: Limiter::new(&spec, cells, clock),
            policy: fields::policy(&name, &spec),
            name,
            refused,
            spec,
        }
    }

    /// What counts as one caller.
    pub fn by(&self) -> By {
        self.spec.by
    }

    /// Who is counted for a request: by the caller if it is known and the rule goes by that, by the
    /// address otherwise.
    pub fn ask(self: &Arc<Self>, identity: Option<&Arc<Identity>>, address: IpAddr) -> Ask<C> {
        Ask {
            rule: Arc::clone(self),
            caller: Caller::of(self.spec.by, identity, address),
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} with bursts of {}, by {}",
            self.rate, self.burst, self.by
        )
    }
}

// === impl RateLimits ===

impl RateLimits {
    /// The rule that says this: the one that there is, with its counts, or a new one. `refused`
    /// counts its refusals.
    pub fn rule(&self, spec: Spec, refused: IntCounter) -> Arc<Rule> {
        // Nothing that is done under the lock can leave the map half changed.
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = rules.get(&spec).and_then(Weak::upgrade) {
            return known;
        }
        if rules.len() == rules.capacity() {
            // Before it grows: rules that no snapshot has any more.
            rules.retain(|_, rule| rule.strong_count() > 0);
        }
        let rule = Arc::new(Rule::new(
            spec.clone(),
            &self.cells,
            DefaultClock::default(),
            refused,
        ));
        rules.insert(spec, Arc::downgrade(&rule));
        rule
    }
}

// === impl Ask ===

impl<C: Clock> Ask<C> {
    /// What the rule says and whom it counts, for people.
    pub fn describe(&self) -> String {
        format!("{}; here that is {}", self.rule.spec, self.caller)
    }

    /// Counts the request in this process.
    pub fn take(&self) -> Taken {
        self.rule.limiter.take(&self.caller)
    }

    /// What to count in a store that gateways share. Tells nobody who the caller is.
    pub fn shared(&self) -> RateKey {
        let spec = &self.rule.spec;
        let mut key = RateKey::new(spec.period, spec.burst);
        key.add(spec.route.as_bytes());
        key.add(spec.rate.as_bytes());
        key.add(&spec.burst.get().to_be_bytes());
        self.caller.name(|part| key.add(part));
        key
    }
}

impl Ask {
    /// What comes of the count.
    ///
    /// # Errors
    /// [`Reason::RateLimited`].
    pub fn settle(self, taken: Taken) -> Result<Allowance, Rejection> {
        match taken {
            Taken::Admitted { left } => Ok(Allowance {
                rule: self.rule,
                left: Some(left),
            }),
            Taken::Refused { wait } => {
                self.rule.refused.inc();
                let wait = fields::seconds(wait).max(1);
                let excess = Excess {
                    wait,
                    limit: fields::limit(&self.rule.name, 0, wait),
                    policy: self.rule.policy.clone(),
                };
                let note = format!("over {}", self.rule.spec);
                Err(Rejection::noted(
                    Reason::RateLimited(Box::new(excess)),
                    note,
                ))
            }
        }
    }

    /// Lets the request through without counting it: for questions about a request, which are none.
    pub fn untouched(self) -> Allowance {
        Allowance {
            rule: self.rule,
            left: None,
        }
    }
}

// === impl Allowance ===

impl Allowance {
    /// Whether this is of that rule.
    pub fn is_of(&self, rule: &Arc<Rule>) -> bool {
        Arc::ptr_eq(&self.rule, rule)
    }

    /// `RateLimit` and `RateLimit-Policy` for the response; none if nothing was counted.
    pub fn headers(&self) -> Option<(HeaderValue, HeaderValue)> {
        let left = self.left?;
        let spec = &self.rule.spec;
        let used = spec.burst.get().saturating_sub(left);
        let whole = fields::seconds(spec.period.saturating_mul(used));
        let limit = fields::limit(&self.rule.name, left, whole);
        Some((limit, self.rule.policy.clone()))
    }

    /// What there is to tell of it.
    pub fn describe(&self) -> String {
        match self.left {
            Some(left) => format!("{}; {left} left", self.rule.spec),
            None => format!("{}; not counted here", self.rule.spec),
        }
    }
}

#[cfg(test)]
#[path = "limit/tests.rs"]
mod tests;
