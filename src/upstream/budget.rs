//! How many retries an upstream may get: a share of its requests.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Parts of a retry that the bucket counts in: a hundredth of a percent of a request is one.
const RETRY: u32 = 10_000;

/// Retries that quiet times may save up. A server of many that goes away fails as many requests
/// at once as it had in flight.
const SAVED: u32 = 10 * RETRY;

/// Requests whose shares are there from the beginning.
const LENT: u32 = 20;

/// A bucket that every request puts a share of a retry into, and every retry takes one from.
///
/// However many requests fail, the upstream gets no more than they and that share of them, and saves
/// up ten retries at most. It begins with what its first requests will put in, lent in advance: a server
/// may close a kept connection before much else has happened. Behind those requests all is as if
/// nothing had been lent.
#[derive(Debug)]
pub struct RetryBudget {
    /// Hundredths of a percent that a request puts in.
    share: u32,
    level: AtomicU32,
    /// What was lent and is not paid back yet.
    owed: AtomicU32,
}

// === impl RetryBudget ===

impl RetryBudget {
    /// A budget of `percent` retries for a hundred requests, between 0 and 100.
    pub fn new(percent: f64) -> Self {
        // From 0 to RETRY: nothing is lost.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped"
        )]
        let share = (percent.clamp(0.0, 100.0) * 100.0).round() as u32;
        // One request short of a retry: the first one that fails can have one, whatever the share.
        let least = if share == 0 { 0 } else { RETRY - share };
        let begin = (share * LENT).min(SAVED).max(least);
        Self {
            share,
            level: AtomicU32::new(begin),
            owed: AtomicU32::new(begin - least),
        }
    }

    /// A request begins. While the bucket is full, which it mostly is, this writes nothing.
    pub fn request(&self) {
        if self.owed.load(Relaxed) > 0 {
            let paid = |owed: u32| (owed > 0).then(|| owed.saturating_sub(self.share));
            if self.owed.fetch_update(Relaxed, Relaxed, paid).is_ok() {
                return;
            }
        }
        let _ = self.level.fetch_update(Relaxed, Relaxed, |level| {
            (level < SAVED && self.share > 0).then(|| (level + self.share).min(SAVED))
        });
    }

    /// Takes a retry; whether there was one.
    pub fn retry(&self) -> bool {
        let taken = self
            .level
            .fetch_update(Relaxed, Relaxed, |level| level.checked_sub(RETRY));
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::RetryBudget;

    /// How many of these requests, all of which fail, are retried.
    fn retried(budget: &RetryBudget, requests: usize) -> usize {
        (0..requests)
            .filter(|_| {
                budget.request();
                budget.retry()
            })
            .count()
    }

    #[test]
    fn a_full_outage_gets_no_more_than_the_share() {
        for (percent, requests, retries) in [
            (20.0, 1, 1),
            (20.0, 5, 4),
            (20.0, 20, 4),
            (20.0, 25, 5),
            (20.0, 100, 20),
            (20.0, 10_000, 2000),
            (100.0, 50, 50),
            (50.0, 100, 50),
            (12.5, 80, 10),
            (0.01, 10_000, 1),
            (0.0, 1000, 0),
        ] {
            let budget = RetryBudget::new(percent);
            assert_eq!(retried(&budget, requests), retries, "{percent} {requests}");
        }
    }

    #[test]
    fn good_times_save_up_ten() {
        let budget = RetryBudget::new(20.0);
        for _ in 0..100_000 {
            budget.request();
        }
        let at_once = std::iter::repeat_with(|| budget.retry());
        assert_eq!(at_once.take(100).filter(|taken| *taken).count(), 10);
        assert_eq!(retried(&budget, 100), 20, "and then it is as ever");
    }
}
