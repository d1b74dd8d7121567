//! Who sent a request: the outcome of verification, and nothing that was not verified.

mod certificate;
mod digest;

pub use certificate::Thumbprint;
pub use digest::{DigestHasher, FirstBytes, TokenDigest};

use compact_str::CompactString;
use http::{HeaderName, HeaderValue};
use serde_json::Value;
use std::cmp::Ordering;
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

/// The members of a JSON object by name. A sorted list of names that mostly fit in place: a dozen
/// claims take less room in the cache of verified tokens than a map of them, and less time to make
/// and to look through.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Members(Box<[(CompactString, Value)]>);

/// The claims of a token whose signature, issuer, audience and times have been checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claims(Members);

/// Which claim a header carries: the right-hand side of `[issuer.*.headers]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimRef {
    /// The claim of this literal name, dots and colons included.
    Name(Box<str>),
    /// A value inside a claim, by JSON pointer (RFC 6901).
    Pointer {
        /// The claim that the pointer's first part names, its escapes undone.
        claim: Box<str>,
        /// The rest of the pointer: empty, or from its second `/` on.
        rest: Box<str>,
    },
}

/// The scopes that a token grants, from `scope`, `scp` and `permissions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(Box<[Box<str>]>);

/// A caller who has been identified: what `authn` makes of a token that it has verified.
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
    /// The client certificate without which the token is worth nothing (RFC 8705 §3).
    pub bound_to: Option<Thumbprint>,
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

    /// Sets this clock and its clones back, by whole seconds. For simulations.
    pub fn set_back(&self, time: Duration) {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        self.ahead.fetch_sub(seconds, Relaxed);
    }
}

// === impl Members ===

impl Members {
    /// The members of an object, or `None` if one of them is there twice.
    pub fn new(mut list: Vec<(CompactString, Value)>) -> Option<Self> {
        list.sort_unstable_by(|(a, _), (b, _)| by_length(a, b));
        let distinct = list
            .iter()
            .zip(list.iter().skip(1))
            .all(|((a, _), (b, _))| a != b);
        distinct.then(|| Self(list.into_boxed_slice()))
    }

    /// The member of that literal name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let at = self
            .0
            .binary_search_by(|(own, _)| by_length(own, name))
            .ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// Names and values, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The names of all members, in no order that means anything.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Whether there is a member of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// An order that is quick to find out: names of a token mostly differ in length.
fn by_length(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
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

    /// Names and values, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter()
    }

    /// Bytes that these claims hold in memory, roughly; for the bound of the cache.
    pub fn weight(&self) -> usize {
        let member = size_of::<(CompactString, Value)>();
        let beside = |name: &CompactString| match name.is_heap_allocated() {
            true => heap(name.capacity()),
            false => 0,
        };
        let members = self.0.0.iter();
        members
            .map(|(name, value)| member + beside(name) + weigh(value))
            .sum()
    }
}

/// What a value holds besides itself.
fn weigh(value: &Value) -> usize {
    match value {
        Value::String(text) => heap(text.capacity()),
        Value::Array(items) => {
            let inner: usize = items.iter().map(weigh).sum();
            heap(items.capacity() * size_of::<Value>()) + inner
        }
        Value::Object(map) => map
            .iter()
            // A map keeps the hash and the place of each member as well.
            .map(|(name, item)| {
                size_of::<(String, Value)>() + 32 + heap(name.capacity()) + weigh(item)
            })
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// What an allocator takes for so many bytes: whole sixteens.
const fn heap(bytes: usize) -> usize {
    bytes.next_multiple_of(16)
}

// === impl ClaimRef ===

impl ClaimRef {
    /// Reads a mapping: a JSON pointer if it begins with `/`, a literal name otherwise.
    ///
    /// # Errors
    /// A sentence that says what is wrong, if it is empty or no JSON pointer.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(pointer) = text.strip_prefix('/') else {
            return match text {
                "" => Err("a claim has a name"),
                name => Ok(Self::Name(name.into())),
            };
        };
        // RFC 6901 §3: a tilde escapes itself or a slash, and nothing else.
        if text
            .split('~')
            .skip(1)
            .any(|rest| !rest.starts_with(['0', '1']))
        {
            return Err("in a JSON pointer `~` is followed by 0 or 1");
        }
        let end = pointer.find('/').unwrap_or(pointer.len());
        let (claim, rest) = pointer.split_at(end);
        Ok(Self::Pointer {
            claim: claim.replace("~1", "/").replace("~0", "~").into(),
            rest: rest.into(),
        })
    }

    /// The value that it refers to in these claims.
    pub fn of<'c>(&self, claims: &'c Claims) -> Option<&'c Value> {
        match self {
            Self::Name(name) => claims.get(name),
            Self::Pointer { claim, rest } => claims.get(claim)?.pointer(rest),
        }
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

    /// All of them, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|scope| &**scope)
    }

    /// Whether the token grants this scope.
    pub fn contains(&self, scope: &str) -> bool {
        self.0.binary_search_by(|own| (**own).cmp(scope)).is_ok()
    }

    /// Bytes that these scopes hold in memory, roughly.
    pub fn weight(&self) -> usize {
        let scope = size_of::<Box<str>>();
        self.0.iter().map(|own| scope + heap(own.len())).sum()
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
        let header = size_of::<(HeaderName, HeaderValue)>();
        let headers: usize = self
            .headers
            .iter()
            .map(|(_, value)| header + heap(value.len()))
            .sum();
        let all = size_of::<Self>() + self.claims.weight() + self.scopes.weight() + headers;
        u32::try_from(all).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_found_by_name_or_pointer() {
        let claims = Claims::verified(
            Members::new(vec![
                ("sub".into(), "u".into()),
                ("a.b".into(), 1.into()),
                ("a/b~c".into(), serde_json::json!({"d/e": [10, {"": true}]})),
            ])
            .expect("distinct"),
        );
        for (text, expected) in [
            ("sub", Some(serde_json::json!("u"))),
            ("a.b", Some(1.into())),
            ("/sub", Some("u".into())),
            ("/sub/0", None),
            ("/a~1b~0c/d~1e/0", Some(10.into())),
            ("/a~1b~0c/d~1e/1/", Some(true.into())),
            ("/a~1b~0c/d~1e/01", None),
            ("/a~1b~0c/d~1e/-", None),
            ("/absent/x", None),
            ("/", None),
        ] {
            let found = ClaimRef::parse(text)
                .expect("a mapping")
                .of(&claims)
                .cloned();
            assert_eq!(found, expected, "{text}");
        }
        for bad in ["", "/a~", "/a~2/b", "/~"] {
            assert!(ClaimRef::parse(bad).is_err(), "{bad}");
        }
    }

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
