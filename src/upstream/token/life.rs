//! From when to when a token is sent, and when another one takes its place. Decided on values.

use crate::identity::UnixSeconds;
use std::time::Duration;

/// A token with less left than these seconds is not sent: it may be on its way for a while, and the
/// upstream's clock may be ahead. A short-lived one keeps a quarter of its life for that.
const MARGIN: u64 = 5;

/// Of a life, what passes before another token is asked for …
const RENEWED_AT: f64 = 0.8;

/// … less up to this part of it, at random: gateways that started together do not all come back together.
const JITTER: f64 = 0.1;

/// By how many seconds a clock may be set back before a token is taken for one of another time.
const SET_BACK: i64 = 60;

/// When a token may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    /// When it was asked for.
    since: UnixSeconds,
    /// From then on another one is asked for.
    due: UnixSeconds,
    /// From then on it is not sent.
    until: UnixSeconds,
}

// === impl Life ===

impl Life {
    /// The life of a token of so many seconds that was asked for at `asked`; `chance` is from 0 to 1.
    /// `None` if there is no second in which it can be sent.
    pub(super) fn of(lifetime: u64, asked: UnixSeconds, chance: f64) -> Option<Self> {
        let margin = (lifetime / 4).clamp(1, MARGIN);
        let good = lifetime.checked_sub(margin).filter(|good| *good > 0)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "lifetimes are below 2^53, fractions of a second do not matter, nothing is negative"
        )]
        let due = (lifetime as f64 * RENEWED_AT * (1.0 - JITTER * chance)) as u64;
        let after = |seconds: u64| asked.saturating_add_unsigned(seconds);
        Some(Self {
            since: asked,
            due: after(due.min(good)),
            until: after(good),
        })
    }

    /// Whether it may be sent now.
    pub(super) fn is_good(&self, now: UnixSeconds) -> bool {
        // A clock that is set back by more does not make it last.
        (self.since.saturating_sub(SET_BACK)..self.until).contains(&now)
    }

    /// Whether it is time to ask for another one.
    pub(super) fn is_due(&self, now: UnixSeconds) -> bool {
        now >= self.due
    }

    /// How long until then; `None` if it is time.
    pub(super) fn until_due(&self, now: UnixSeconds) -> Option<Duration> {
        let left = self.due.saturating_sub(now);
        u64::try_from(left)
            .ok()
            .filter(|left| *left > 0)
            .map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::Life;

    #[test]
    fn when_it_is_sent_and_renewed() {
        // lifetime, chance: due and until, in seconds after it was asked for
        for (lifetime, chance, expected) in [
            (86400, 0.0, Some((69120, 86395))),
            (86400, 1.0, Some((62208, 86395))),
            (100, 0.0, Some((80, 95))),
            (12, 0.0, Some((9, 9))),
            (4, 0.0, Some((3, 3))),
            (2, 0.0, Some((1, 1))),
            (1, 0.0, None),
            (0, 0.0, None),
        ] {
            let life = Life::of(lifetime, 1000, chance);
            let found = life.map(|life| (life.due - 1000, life.until - 1000));
            assert_eq!(found, expected, "{lifetime} {chance}");
        }
    }

    #[test]
    fn what_the_clock_says() {
        let life = Life::of(100, 1000, 0.0).expect("a life");
        for (now, good, due) in [
            (939, false, false),
            (940, true, false),
            (1000, true, false),
            (1079, true, false),
            (1080, true, true),
            (1094, true, true),
            (1095, false, true),
        ] {
            assert_eq!((life.is_good(now), life.is_due(now)), (good, due), "{now}");
            assert_eq!(life.until_due(now).is_none(), due, "{now}");
        }
    }
}
