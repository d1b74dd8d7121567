//! Whether a request that failed may be sent once more. A decision on values, without a socket.

use super::budget::RetryBudget;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use http::{Method, StatusCode};
use prometheus::IntCounter;
use std::sync::Arc;
use std::time::Duration;

/// Before the same server is asked again, for the first time and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(250));

/// When an upstream's requests are sent again: `[upstream.*.retry]`.
#[derive(Debug)]
pub struct Retry {
    /// Attempts in all; 1: nothing is sent again.
    pub attempts: u32,
    /// What is worth another attempt.
    pub on: RetryOn,
    /// How many there may be. A reload keeps it while the rule stays the same.
    pub budget: Arc<RetryBudget>,
    /// What came of them.
    pub counts: RetryCounts,
}

/// The faults after which a request may be sent again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// No connection could be made.
    pub connect: bool,
    /// The connection ended before the head of a response.
    pub reset: bool,
    /// The response has one of these statuses.
    pub statuses: Vec<StatusCode>,
}

/// `upstream_retries_total` of an upstream.
#[derive(Debug, Clone)]
pub struct RetryCounts {
    /// Retries that brought a response worth passing on.
    pub success: IntCounter,
    /// Retries that failed too.
    pub failure: IntCounter,
    /// Retries that the budget did not allow.
    pub budget: IntCounter,
}

/// What went wrong with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No connection could be made.
    Connect,
    /// The connection ended before the head of a response.
    Reset,
    /// The response has this status.
    Status(StatusCode),
}

/// A failed attempt, as far as it matters for another.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// Which one it was, from 1.
    pub number: u32,
    /// What went wrong.
    pub fault: Fault,
    /// Whether the upstream has seen nothing of the request, or says that it has not worked on it.
    pub untouched: bool,
    /// Whether the request's method is idempotent.
    pub idempotent: bool,
    /// Whether the whole request, its body included, can be sent again.
    pub replayable: bool,
}

/// Whether a request of this method means the same when it arrives twice (RFC 9110 §9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
}

/// How long to wait before the same server is asked for the `number`th time again, from 1. Varied, so
/// that those who failed together do not come back together.
pub fn pause(number: u32) -> Duration {
    let (least, most) = PAUSES;
    ExponentialBuilder::new()
        .with_min_delay(least)
        .with_max_delay(most)
        .without_max_times()
        .with_jitter()
        .with_jitter_seed(fastrand::u64(..))
        .build()
        .nth(number.saturating_sub(1) as usize)
        .unwrap_or(most)
}

// === impl Retry ===

impl Retry {
    /// Whether a request can become one to be sent again after the upstream has got it. What is
    /// needed for that has to be kept from the beginning.
    pub fn may_repeat(&self, method: &Method) -> bool {
        let worth = self.on.reset || !self.on.statuses.is_empty();
        self.attempts > 1 && worth && is_idempotent(method)
    }

    /// Whether the rules allow another attempt; the budget is not asked.
    pub fn allows(&self, attempt: &Attempt) -> bool {
        let worth = match attempt.fault {
            Fault::Connect => self.on.connect,
            // What nobody has worked on is as good as never sent.
            Fault::Reset => self.on.reset || (attempt.untouched && self.on.connect),
            Fault::Status(status) => self.on.statuses.contains(&status),
        };
        let harmless = attempt.untouched || attempt.idempotent;
        worth && harmless && attempt.replayable && attempt.number < self.attempts
    }
}

#[cfg(test)]
mod tests {
    use super::{Attempt, Fault, PAUSES, Retry, RetryBudget, RetryCounts, RetryOn, pause};
    use http::{Method, StatusCode};
    use prometheus::IntCounter;
    use std::time::Duration;

    fn retry(attempts: u32, connect: bool, reset: bool, statuses: &[u16]) -> Retry {
        let counter = || IntCounter::new("x", "x").expect("a counter");
        let statuses = statuses.iter().copied();
        Retry {
            attempts,
            on: RetryOn {
                connect,
                reset,
                statuses: statuses
                    .map(|status| StatusCode::from_u16(status).expect("a status"))
                    .collect(),
            },
            budget: std::sync::Arc::new(RetryBudget::new(20.0)),
            counts: RetryCounts {
                success: counter(),
                failure: counter(),
                budget: counter(),
            },
        }
    }

    const UNAVAILABLE: Fault = Fault::Status(StatusCode::SERVICE_UNAVAILABLE);

    #[test]
    fn what_may_be_sent_again() {
        let usual = retry(2, true, true, &[]);
        let all = retry(3, true, true, &[502, 503, 504]);
        let connect = retry(2, true, false, &[]);
        let reset = retry(2, false, true, &[]);
        let off = retry(1, true, true, &[503]);
        // fault, number, untouched, idempotent, replayable
        for (rules, fault, number, untouched, idempotent, replayable, allowed) in [
            // Nothing was sent: any method.
            (&usual, Fault::Connect, 1, true, false, true, true),
            (&usual, Fault::Connect, 2, true, false, true, false),
            (&all, Fault::Connect, 2, true, true, true, true),
            (&all, Fault::Connect, 3, true, true, true, false),
            (&reset, Fault::Connect, 1, true, true, true, false),
            (&off, Fault::Connect, 1, true, true, true, false),
            // It may have arrived.
            (&usual, Fault::Reset, 1, false, true, true, true),
            (&usual, Fault::Reset, 1, false, false, true, false),
            (&usual, Fault::Reset, 1, false, true, false, false),
            (&connect, Fault::Reset, 1, false, true, true, false),
            (&off, Fault::Reset, 1, false, true, true, false),
            // It has arrived and was not worked on.
            (&usual, Fault::Reset, 1, true, false, true, true),
            (&usual, Fault::Reset, 1, true, false, false, false),
            (&connect, Fault::Reset, 1, true, false, true, true),
            // It was answered.
            (&usual, UNAVAILABLE, 1, false, true, true, false),
            (&all, UNAVAILABLE, 1, false, true, true, true),
            (&all, UNAVAILABLE, 1, false, false, true, false),
            (&all, UNAVAILABLE, 1, false, true, false, false),
            (
                &all,
                Fault::Status(StatusCode::OK),
                1,
                false,
                true,
                true,
                false,
            ),
        ] {
            let attempt = Attempt {
                number,
                fault,
                untouched,
                idempotent,
                replayable,
            };
            assert_eq!(
                rules.allows(&attempt),
                allowed,
                "{:?} {attempt:?}",
                rules.on
            );
        }
    }

    #[test]
    fn what_is_kept_for_another_attempt() {
        for (rules, method, kept) in [
            (retry(2, true, true, &[]), Method::GET, true),
            (retry(2, true, true, &[]), Method::HEAD, true),
            (retry(2, true, true, &[]), Method::OPTIONS, true),
            (retry(2, true, true, &[]), Method::TRACE, true),
            (retry(2, true, true, &[]), Method::PUT, true),
            (retry(2, true, true, &[]), Method::DELETE, true),
            (retry(2, true, true, &[]), Method::POST, false),
            (retry(2, true, true, &[]), Method::PATCH, false),
            (retry(2, true, true, &[]), Method::CONNECT, false),
            (retry(2, true, false, &[]), Method::PUT, false),
            (retry(2, false, false, &[503]), Method::PUT, true),
            (retry(1, true, true, &[503]), Method::PUT, false),
        ] {
            assert_eq!(rules.may_repeat(&method), kept, "{method} {:?}", rules.on);
        }
    }

    #[test]
    fn pauses_grow_and_vary() {
        let (least, most) = PAUSES;
        for number in 1..40 {
            let pause = pause(number);
            assert!(pause >= least && pause <= most * 2, "{number}: {pause:?}");
        }
        let first: Vec<Duration> = (0..20).map(|_| pause(1)).collect();
        assert!(first.iter().any(|other| *other != first[0]), "{first:?}");
    }
}
