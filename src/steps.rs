//! A decision told step by step: what `explain` shows, said by the very code that decides.

use std::time::{Duration, UNIX_EPOCH};

/// Hears of each check on a request's way. Whoever listens changes nothing, and what is told is only
/// composed if somebody listens; but for checks of an issuer's answer, which many may wait for.
pub trait Steps {
    /// A check begins. `what` is what came and what is asked for: what to look at if it fails.
    fn checking(&mut self, check: &'static str, what: impl FnOnce() -> String);

    /// A check has been passed. `what` is what it found.
    fn passed(&mut self, check: &'static str, what: impl FnOnce() -> String);
}

/// Nobody listens. Compiles to nothing, which is what requests pay for `explain`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Untold;

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What was checked, in one word: `signature`.
    pub check: &'static str,
    /// What was found. Names keys and claims; never holds a token or a signature.
    pub found: String,
}

/// Everything that was passed, in its order, and the check that was last begun.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The checks that were passed.
    pub passed: Vec<Step>,
    /// The check that was begun after them. When a request is refused, it is the one that failed.
    pub open: Option<Step>,
}

// === impl Untold ===

impl Steps for Untold {
    fn checking(&mut self, _: &'static str, _: impl FnOnce() -> String) {}

    fn passed(&mut self, _: &'static str, _: impl FnOnce() -> String) {}
}

// === impl Told ===

impl Steps for Told {
    fn checking(&mut self, check: &'static str, what: impl FnOnce() -> String) {
        self.open = Some(Step {
            check,
            found: what(),
        });
    }

    fn passed(&mut self, check: &'static str, what: impl FnOnce() -> String) {
        self.open = None;
        let step = Step {
            check,
            found: what(),
        };
        // A decision begins anew when something had to be fetched; it is not told twice for that.
        if !self.passed.contains(&step) {
            self.passed.push(step);
        }
    }
}

/// Names as a list for people: `` `a`, `b` ``; `none` if there are none.
pub fn listed<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<String> = names
        .into_iter()
        .map(|name| format!("`{}`", name.as_ref()))
        .collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}

/// A time in words, in seconds since 1970: `2026-11-21 20:31:02 UTC, in 12 minutes`.
pub fn moment(at: i64, now: i64) -> String {
    /// The last second that RFC 3339 can write.
    const END: i64 = 253_402_300_799;
    let date = match u64::try_from(at) {
        Ok(seconds) if at <= END => {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            let text = humantime::format_rfc3339_seconds(time).to_string();
            text.replace('T', " ").replace('Z', " UTC")
        }
        Ok(_) => "after the year 9999".to_owned(),
        Err(_) => "before 1970".to_owned(),
    };
    let distance = at.saturating_sub(now);
    match distance {
        0 => format!("{date}, now"),
        1.. => format!("{date}, in {}", span(distance)),
        _ => format!("{date}, {} ago", span(distance)),
    }
}

/// Seconds in words, by the two largest units: `2 hours 5 minutes`. The sign is left out.
pub fn span(seconds: i64) -> String {
    const UNITS: [(u64, &str); 5] = [
        (365 * 86_400, "year"),
        (86_400, "day"),
        (3_600, "hour"),
        (60, "minute"),
        (1, "second"),
    ];
    let mut rest = seconds.unsigned_abs();
    let mut words = Vec::new();
    for (length, unit) in UNITS {
        let count = rest / length;
        rest %= length;
        if count > 0 {
            words.push(format!(
                "{count} {unit}{}",
                if count == 1 { "" } else { "s" }
            ));
        } else if !words.is_empty() {
            break;
        }
        if words.len() == 2 {
            break;
        }
    }
    if words.is_empty() {
        return "0 seconds".to_owned();
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_told_twice_and_the_open_check_is_the_last_one_begun() {
        let mut told = Told::default();
        for _ in 0..2 {
            told.checking("route", || "asked".to_owned());
            told.passed("route", || "found".to_owned());
            told.checking("key", || "kid `k`".to_owned());
        }
        let checks: Vec<_> = told.passed.iter().map(|step| step.check).collect();
        assert_eq!(checks, ["route"]);
        assert_eq!(told.open.map(|step| step.check), Some("key"));
    }

    #[test]
    fn times_in_words() {
        let at = 1_795_293_062;
        for (now, expected) in [
            (at - 720, "2026-11-21 20:31:02 UTC, in 12 minutes"),
            (at, "2026-11-21 20:31:02 UTC, now"),
            (at + 1, "2026-11-21 20:31:02 UTC, 1 second ago"),
        ] {
            assert_eq!(moment(at, now), expected);
        }
        assert!(moment(i64::MAX, -5).starts_with("after the year 9999, in "));
        assert!(moment(i64::MIN, 5).starts_with("before 1970, "));
        for (seconds, expected) in [
            (0, "0 seconds"),
            (-59, "59 seconds"),
            (3_600, "1 hour"),
            (3_605, "1 hour"),
            (7_500, "2 hours 5 minutes"),
            (90_061, "1 day 1 hour"),
            (400 * 86_400, "1 year 35 days"),
        ] {
            assert_eq!(span(seconds), expected, "{seconds}");
        }
    }
}
