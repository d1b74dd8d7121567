//! Who sent a request: the outcome of verification, and nothing that was not verified.

use http::{HeaderName, HeaderValue};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01T00:00:00Z, the `NumericDate` of RFC 7519 §2.
pub type UnixSeconds = i64;

/// The present, as tokens count it. A clock before 1970 reads as the end of time: every token has
/// expired then, and keys are too old to use, which fails closed.
pub fn unix_now() -> UnixSeconds {
    seconds_at(SystemTime::now())
}

fn seconds_at(time: SystemTime) -> UnixSeconds {
    time.duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or(i64::MAX)
}

/// The clock that tokens and keys are judged by: the system's, which a simulation can set ahead.
/// Clones tell the same time. Deadlines and pauses go by the monotonic clock, never by this one.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Seconds ahead of the system's clock; 0 outside simulations.
    ahead: Arc<AtomicI64>,
}

/// The members of a JSON object by name. A sorted list: a dozen claims take less room in the cache
/// of verified tokens than a map of them, and less time to look through.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Members(Box<[(Box<str>, Value)]>);

/// The claims of a token whose signature, issuer, audience and times have been checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claims(Members);

/// The scopes that a token grants, from `scope`, `scp` and `permissions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(Box<[Box<str>]>);

/// A caller who has been identified. Only `authn` makes one.
#[derive(Debug)]
pub struct Identity {
    /// The configured name of the issuer (`[issuer.NAME]`).
    pub issuer: Arc<str>,
    /// All verified claims.
    pub claims: Claims,
    /// The scopes in a form that is quick to compare.
    pub scopes: Scopes,
    /// `exp` as it stands; leeway is added where it is compared.
    pub expires_at: UnixSeconds,
    /// `nbf`, when the token has one.
    pub not_before: Option<UnixSeconds>,
    /// The claim headers, encoded once, that every request of this caller carries upstream.
    pub headers: Box<[(HeaderName, HeaderValue)]>,
}

// === impl Clock ===

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// The present.
    pub fn now(&self) -> UnixSeconds {
        unix_now().saturating_add(self.ahead.load(Relaxed))
    }

    /// Sets this clock and its clones ahead, by whole seconds. For simulations.
    pub fn advance(&self, time: Duration) {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        self.ahead.fetch_add(seconds, Relaxed);
    }
}

// === impl Members ===

impl Members {
    /// The members of an object, or `None` if one of them is there twice.
    pub fn new(mut list: Vec<(Box<str>, Value)>) -> Option<Self> {
        list.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let distinct = list
            .iter()
            .zip(list.iter().skip(1))
            .all(|((a, _), (b, _))| a != b);
        distinct.then(|| Self(list.into_boxed_slice()))
    }

    /// The member of that literal name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let at = self.0.binary_search_by(|(own, _)| (**own).cmp(name)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// Whether there is a member of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

// === impl Claims ===

impl Claims {
    /// Wraps claims that have been verified. Callers outside `authn` only do so in tests.
    pub(crate) fn verified(claims: Members) -> Self {
        Self(claims)
    }

    /// The claim of that literal name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Bytes that these claims hold in memory, roughly; for the bound of the cache.
    pub fn weight(&self) -> usize {
        let members = self.0.0.iter();
        members
            .map(|(name, value)| name.len() + 64 + weigh(value))
            .sum()
    }
}

fn weigh(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| 32 + weigh(item)).sum(),
        Value::Object(map) => map
            .iter()
            .map(|(name, item)| name.len() + 64 + weigh(item))
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

// === impl Scopes ===

impl Scopes {
    /// Reads the scopes of a token: `scope` (RFC 8693 §4.2), `scp` and `permissions`, each either a
    /// string of words or an array of strings.
    pub fn of(claims: &Claims) -> Self {
        let mut found: Vec<Box<str>> = Vec::new();
        for name in ["scope", "scp", "permissions"] {
            match claims.get(name) {
                Some(Value::String(text)) => {
                    found.extend(text.split_ascii_whitespace().map(Into::into))
                }
                Some(Value::Array(items)) => {
                    found.extend(items.iter().filter_map(Value::as_str).map(Into::into));
                }
                _ => {}
            }
        }
        found.sort_unstable();
        found.dedup();
        Self(found.into_boxed_slice())
    }

    /// Whether the token grants this scope.
    pub fn contains(&self, scope: &str) -> bool {
        self.0.binary_search_by(|own| (**own).cmp(scope)).is_ok()
    }

    /// Bytes that these scopes hold in memory, roughly.
    pub fn weight(&self) -> usize {
        self.0.iter().map(|scope| scope.len() + 16).sum()
    }
}

// === impl Identity ===

impl Identity {
    /// The `sub` claim.
    pub fn subject(&self) -> Option<&str> {
        self.claims.get("sub").and_then(Value::as_str)
    }

    /// Bytes that this identity holds in memory, roughly; what the cache is bounded by.
    pub fn weight(&self) -> u32 {
        let headers: usize = self
            .headers
            .iter()
            .map(|(n, v)| n.as_str().len() + v.len() + 64)
            .sum();
        u32::try_from(256 + self.claims.weight() + self.scopes.weight() + headers)
            .unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_makes_no_token_valid() {
        let second = Duration::from_secs(1);
        assert_eq!(seconds_at(UNIX_EPOCH + second), 1);
        assert_eq!(seconds_at(UNIX_EPOCH - second), i64::MAX);
    }

    #[test]
    fn clones_of_a_clock_go_ahead_together() {
        let clock = Clock::system();
        let (other, before) = (clock.clone(), clock.now());
        assert!((before - unix_now()).abs() <= 1);
        clock.advance(Duration::from_secs(86_400));
        assert!((86_400..86_410).contains(&(other.now() - before)));
        assert!(Clock::system().now() - before < 10, "others stay");
    }
}
