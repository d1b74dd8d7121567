//! Tokens that are refused although everything about them is right.
//!
//! Read on every request, written hardly ever: the maps are read without a lock, and while nothing
//! is revoked a request pays for one relaxed load.

use crate::identity::{Identity, TokenDigest, UnixSeconds};
use papaya::HashMap;
use serde_json::Value;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Revocations that are kept at one time.
const MAX_ENTRIES: usize = 1 << 20;

/// How long an entry is kept beyond its end, in seconds: the clock may be set back, and the leeway
/// may be more than it was when the order came.
const KEPT_LONGER: UnixSeconds = 3600;

/// What is revoked, and until when that has to be remembered: the last `exp` of what it hits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// One token, by its content.
    Token {
        /// The digest of what a JWT's signature covers, or of the whole text of another token.
        content: TokenDigest,
        /// Its `exp`.
        until: UnixSeconds,
    },
    /// One token, by its `jti` (RFC 7519 §4.1.7).
    Id {
        /// The `iss` of the issuer: only there is the id unique.
        issuer: Box<str>,
        /// The `jti`.
        id: Box<str>,
        /// Its `exp`.
        until: UnixSeconds,
    },
    /// All tokens of a subject that were issued up to some moment.
    Subject {
        /// The `iss` of the issuer.
        issuer: Box<str>,
        /// The `sub`.
        subject: Box<str>,
        /// Tokens with this `iat` or an earlier one are refused, and those without `iat`.
        issued_until: UnixSeconds,
        /// When the last of them has expired.
        until: UnixSeconds,
    },
}

/// What a token says of itself that it can be revoked by, verified or not.
#[derive(Debug, Clone, Copy)]
pub struct Names<'t> {
    /// The `iss` of whose token it is.
    pub issuer: &'t str,
    /// Its `jti`.
    pub id: Option<&'t str>,
    /// Its `sub`.
    pub subject: Option<&'t str>,
    /// Its `iat`.
    pub issued_at: Option<UnixSeconds>,
}

/// There are more revocations than are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// A name that means something only together with its issuer, hashed: lookups compare eight bytes
/// and allocate nothing.
type NameHash = u64;

/// All revocations that have not run out.
pub struct Denylist {
    /// Entries at most.
    limit: usize,
    tokens: HashMap<TokenDigest, UnixSeconds>,
    ids: HashMap<NameHash, UnixSeconds>,
    subjects: HashMap<NameHash, Cutoff>,
    /// Random for this process, so that nobody can choose a name that hits another's.
    names: RandomState,
    /// Whether there is any entry: what all but a few requests look at.
    any: AtomicBool,
    /// Held by writers alone.
    writing: Mutex<()>,
}

#[derive(Debug, Clone, Copy)]
struct Cutoff {
    issued_until: UnixSeconds,
    until: UnixSeconds,
}

// === impl Full ===

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{MAX_ENTRIES} revocations are in force, and none is dropped to make room for another"
        )
    }
}

impl std::error::Error for Full {}

// === impl Denylist ===

impl Default for Denylist {
    fn default() -> Self {
        Self::with_limit(MAX_ENTRIES)
    }
}

impl fmt::Debug for Denylist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Denylist")
            .field("entries", &self.len())
            .finish_non_exhaustive()
    }
}

impl Denylist {
    fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            tokens: HashMap::new(),
            ids: HashMap::new(),
            subjects: HashMap::new(),
            names: RandomState::new(),
            any: AtomicBool::new(false),
            writing: Mutex::new(()),
        }
    }

    /// Whether a token is revoked: this very one, its id, or all of its subject's up to its `iat`.
    /// `content` is as in [`Revocation::Token`], `issuer` the `iss` of whose token it is.
    pub fn holds(&self, content: &TokenDigest, issuer: &str, identity: &Identity) -> bool {
        let names = || Names {
            issuer,
            id: identity.claims.get("jti").and_then(Value::as_str),
            subject: identity.subject(),
            issued_at: identity.claims.get("iat").and_then(Value::as_i64),
        };
        self.any.load(Ordering::Acquire) && self.holds_named(content, &names())
    }

    /// [`Self::holds`] of a token that need not be verified: to keep it, not to accept it.
    pub fn holds_named(&self, content: &TokenDigest, names: &Names<'_>) -> bool {
        self.any.load(Ordering::Acquire)
            && (self.tokens.pin().contains_key(content)
                || self.holds_id(names)
                || self.holds_subject(names))
    }

    fn holds_id(&self, names: &Names<'_>) -> bool {
        names.id.is_some_and(|id| {
            let name = self.name(names.issuer, id);
            self.ids.pin().contains_key(&name)
        })
    }

    fn holds_subject(&self, names: &Names<'_>) -> bool {
        let Some(subject) = names.subject else {
            return false;
        };
        let name = self.name(names.issuer, subject);
        let subjects = self.subjects.pin();
        subjects.get(&name).is_some_and(|cutoff| {
            let issued_at = names.issued_at;
            issued_at.is_none_or(|at| at <= cutoff.issued_until)
        })
    }

    /// Adds a revocation; it holds as soon as this returns. What has run out by `now` is dropped.
    ///
    /// # Errors
    /// [`Full`].
    pub fn add(&self, revocation: Revocation, now: UnixSeconds) -> Result<(), Full> {
        let _writing = self
            .writing
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.len() >= self.limit {
            self.drop_expired(now);
            if self.len() >= self.limit {
                return Err(Full);
            }
        }
        match revocation {
            Revocation::Token { content, until } => later(&self.tokens, content, until),
            Revocation::Id { issuer, id, until } => {
                later(&self.ids, self.name(&issuer, &id), until);
            }
            Revocation::Subject {
                issuer,
                subject,
                issued_until,
                until,
            } => self.add_subject(
                self.name(&issuer, &subject),
                Cutoff {
                    issued_until,
                    until,
                },
            ),
        }
        self.any.store(true, Ordering::Release);
        Ok(())
    }

    /// A later word on a subject never takes back an earlier one.
    fn add_subject(&self, name: NameHash, new: Cutoff) {
        self.subjects.pin().update_or_insert(
            name,
            |old| Cutoff {
                issued_until: old.issued_until.max(new.issued_until),
                until: old.until.max(new.until),
            },
            new,
        );
    }

    /// Forgets what has run out: tokens that nobody would accept any more.
    pub fn sweep(&self, now: UnixSeconds) {
        let _writing = self
            .writing
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        self.drop_expired(now);
        self.any.store(!self.is_empty(), Ordering::Release);
    }

    /// How many revocations are in force.
    pub fn len(&self) -> usize {
        self.tokens.len() + self.ids.len() + self.subjects.len()
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn drop_expired(&self, now: UnixSeconds) {
        let now = now.saturating_sub(KEPT_LONGER);
        self.tokens.pin().retain(|_, until| *until > now);
        self.ids.pin().retain(|_, until| *until > now);
        self.subjects.pin().retain(|_, cutoff| cutoff.until > now);
    }

    fn name(&self, issuer: &str, name: &str) -> NameHash {
        self.names.hash_one((issuer, name))
    }
}

/// Puts an entry in; one that is there already never ends sooner for it.
fn later<K: Hash + Eq>(map: &HashMap<K, UnixSeconds>, key: K, until: UnixSeconds) {
    map.pin()
        .update_or_insert(key, |old| (*old).max(until), until);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Claims, Members, Scopes};
    use serde_json::json;

    fn identity(claims: Value) -> Identity {
        let Value::Object(map) = claims else {
            panic!("claims are an object")
        };
        let members = map.into_iter().map(|(name, value)| (name.into(), value));
        let claims = Claims::verified(Members::new(members.collect()).expect("distinct names"));
        Identity {
            issuer: "name".into(),
            scopes: Scopes::of(&claims),
            claims,
            expires_at: 1000,
            not_before: None,
            bound_to: None,
            headers: Box::default(),
        }
    }

    fn subject(issued_until: UnixSeconds, until: UnixSeconds) -> Revocation {
        Revocation::Subject {
            issuer: "a".into(),
            subject: "u".into(),
            issued_until,
            until,
        }
    }

    #[test]
    fn hits_what_is_named_and_nothing_else() {
        let (one, other) = (TokenDigest::of("one"), TokenDigest::of("other"));
        let token = || Revocation::Token {
            content: one,
            until: 100,
        };
        let id = || Revocation::Id {
            issuer: "a".into(),
            id: "x".into(),
            until: 100,
        };
        let all = json!({"jti": "x", "sub": "u", "iat": 50});
        for (revocation, digest, issuer, claims, hit) in [
            (token(), one, "a", json!({}), true),
            (token(), one, "b", json!({}), true),
            (token(), other, "a", all.clone(), false),
            (id(), other, "a", all.clone(), true),
            (id(), other, "b", all.clone(), false),
            (id(), other, "a", json!({"jti": "y"}), false),
            (id(), other, "a", json!({"jti": ["x"]}), false),
            (id(), other, "a", json!({"sub": "x"}), false),
            (subject(50, 100), other, "a", all.clone(), true),
            (subject(49, 100), other, "a", all.clone(), false),
            (subject(50, 100), other, "b", all.clone(), false),
            (subject(50, 100), other, "a", json!({"sub": "u"}), true),
            (
                subject(50, 100),
                other,
                "a",
                json!({"sub": "v", "iat": 1}),
                false,
            ),
            (subject(50, 100), other, "a", json!({"iat": 1}), false),
        ] {
            let denylist = Denylist::default();
            let identity = identity(claims);
            assert!(
                !denylist.holds(&digest, issuer, &identity),
                "before {revocation:?}"
            );
            denylist.add(revocation.clone(), 0).expect("room");
            let held = denylist.holds(&digest, issuer, &identity);
            assert_eq!(
                held, hit,
                "{revocation:?} {digest:?} {issuer} {:?}",
                identity.claims
            );
        }
    }

    #[test]
    fn a_later_word_takes_nothing_back() {
        let digest = TokenDigest::of("x");
        let token = |until| Revocation::Token {
            content: digest,
            until,
        };
        let id = |until| Revocation::Id {
            issuer: "a".into(),
            id: "x".into(),
            until,
        };
        let caller = identity(json!({"sub": "u", "iat": 50, "jti": "x"}));
        for (long, short) in [
            (subject(50, 200), subject(40, 100)),
            (token(200), token(100)),
            (id(200), id(100)),
        ] {
            let denylist = Denylist::default();
            denylist.add(long.clone(), 0).expect("room");
            denylist.add(short, 0).expect("room");
            denylist.sweep(199 + KEPT_LONGER);
            assert!(denylist.holds(&digest, "a", &caller), "{long:?}");
            denylist.sweep(200 + KEPT_LONGER);
            assert!(denylist.is_empty(), "{long:?}");
        }
    }

    #[test]
    fn forgets_what_has_run_out_and_nothing_sooner() {
        let denylist = Denylist::default();
        let digest = TokenDigest::of("x");
        let caller = identity(json!({}));
        let revocation = Revocation::Token {
            content: digest,
            until: 100,
        };
        denylist.add(revocation, 0).expect("room");
        denylist.sweep(99 + KEPT_LONGER);
        assert!(denylist.holds(&digest, "a", &caller));
        denylist.sweep(100 + KEPT_LONGER);
        assert!(!denylist.holds(&digest, "a", &caller));
        assert!(denylist.is_empty());
    }

    #[test]
    fn keeps_everything_and_says_so_when_it_is_full() {
        let denylist = Denylist::with_limit(3);
        let entry = |n: usize, until| Revocation::Token {
            content: TokenDigest::of(&n.to_string()),
            until,
        };
        for n in 0..3 {
            denylist.add(entry(n, 100), 0).expect("room");
        }
        assert_eq!(denylist.add(entry(3, 100), 99 + KEPT_LONGER), Err(Full));
        assert!(denylist.holds(&TokenDigest::of("0"), "a", &identity(json!({}))));
        assert_eq!(denylist.add(entry(3, 200), 100 + KEPT_LONGER), Ok(()));
        assert_eq!(denylist.len(), 1);
    }
}
