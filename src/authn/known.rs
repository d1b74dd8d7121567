//! What is known of tokens that were seen before, by digest: verified ones, so that the same token
//! costs no second signature check and no second question, and refused ones, so that a flood of one
//! bad token costs none either. What is kept is a fact about a token, never a permission.
//!
//! The two are apart, so that bad tokens, however many and different, never push out good ones.

use super::Issuer;
use crate::identity::{DigestHasher, Identity, TokenDigest, UnixSeconds};
use crate::keys::{KeySet, VerificationKey};
use crate::rejection::{Reason, Rejection};
use crate::store::{SharedStore, Word};
use crate::telemetry::metrics::TokenCacheMetrics;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How much may be known: `[token_cache]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes that all verified tokens may hold together.
    pub max_bytes: u64,
    /// Verified tokens in all.
    pub max_entries: u64,
    /// Refused tokens in all.
    pub refused_entries: u64,
    /// How long a refusal is remembered.
    pub refused_for: Duration,
}

/// A verified token: whose it is, by which issuer, and how that is known.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The identity it proves.
    pub identity: Arc<Identity>,
    /// The issuer under whose rules it was verified.
    pub issuer: Arc<Issuer>,
    /// What it is revoked by, see [`content`](super::token::content).
    pub content: TokenDigest,
    /// What it was verified by.
    pub evidence: Evidence,
}

/// What a token was verified by. Once that is gone, it has to be verified anew.
#[derive(Clone, Debug)]
pub enum Evidence {
    /// The key that its signature was checked with; holds as long as it is published.
    Key(Arc<VerificationKey>),
    /// What its issuer said when asked; holds for a while.
    Answer(Fresh),
}

/// A stretch of time in which an answer may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// When it was given: a clock that is set back does not make it last.
    pub since: UnixSeconds,
    /// From then on it is of no use.
    pub until: UnixSeconds,
}

/// A refused token: why, under whose rules, and on what ground. With other rules or on another
/// ground it has to be judged anew.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The refusal.
    pub rejection: Rejection,
    /// The issuer whose rules it broke.
    pub issuer: Arc<Issuer>,
    /// What there was to judge it by.
    pub ground: Ground,
}

/// What a refusal stands on.
#[derive(Clone, Debug)]
pub enum Ground {
    /// The keys that there were.
    Keys(Arc<KeySet>),
    /// What its issuer said when asked.
    Answer(Fresh),
}

/// Everything that is known of tokens. Shared by all snapshots with the same bounds.
pub struct KnownTokens {
    bounds: Bounds,
    verified: Cache<TokenDigest, Arc<Verified>, DigestHasher>,
    refused: Cache<TokenDigest, Arc<Refused>, DigestHasher>,
    /// What has been revoked since.
    store: Arc<SharedStore>,
    pub(super) metrics: TokenCacheMetrics,
}

// === impl Ground ===

impl Ground {
    /// Whether this is the very key set that the issuer has now.
    pub(super) fn has_these_keys(&self, issuer: &Issuer, now: UnixSeconds) -> bool {
        let Self::Keys(keys) = self else {
            return false;
        };
        let current = issuer.keys.current(now);
        let set = current.as_ref().and_then(|set| set.as_ref());
        set.is_some_and(|set| Arc::ptr_eq(set, keys))
    }
}

// === impl Evidence ===

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "verified by {key:?}"),
            Self::Answer(_) => f.write_str("by what its issuer said"),
        }
    }
}

// === impl KnownTokens ===

impl fmt::Debug for KnownTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownTokens")
            .field("bounds", &self.bounds)
            .field("verified", &self.verified.entry_count())
            .field("refused", &self.refused.entry_count())
            .finish_non_exhaustive()
    }
}

impl KnownTokens {
    /// Nothing is known yet.
    pub fn new(bounds: Bounds, store: Arc<SharedStore>, metrics: TokenCacheMetrics) -> Self {
        // A share of the bytes that no entry falls below bounds their number as well.
        let least = share(bounds.max_bytes, bounds.max_entries);
        let verified = Cache::builder()
            .max_capacity(bounds.max_bytes)
            // What was used most may have expired long ago. Only verified tokens get in here, so
            // that nobody can push out the others with tokens of his own making.
            .eviction_policy(EvictionPolicy::lru())
            .weigher(move |_, entry: &Arc<Verified>| entry.weight().max(least))
            .build_with_hasher(DigestHasher::default());
        let refused = Cache::builder()
            .max_capacity(bounds.refused_entries)
            // Anybody fills this one: by how often a token comes, the one that is sent again and
            // again stays among many that are sent once. Nothing stays longer than `refused_for`.
            .eviction_policy(EvictionPolicy::tiny_lfu())
            .time_to_live(bounds.refused_for)
            .build_with_hasher(DigestHasher::default());
        Self {
            bounds,
            verified,
            refused,
            store,
            metrics,
        }
    }

    /// The bounds that it was made with.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// A verified token. The caller checks that the fact still holds.
    pub fn verified(&self, digest: &TokenDigest) -> Option<Arc<Verified>> {
        self.verified.get(digest)
    }

    /// A refused token. The caller checks that the rules and the ground are still the same.
    pub fn refused(&self, digest: &TokenDigest) -> Option<Arc<Refused>> {
        self.refused.get(digest)
    }

    /// Whether this token may still be used. `issuer` is the one whose token it is.
    ///
    /// # Errors
    /// [`Reason::Revoked`], or [`Reason::StoreUnavailable`] if that cannot be told.
    pub fn unrevoked(
        &self,
        content: &TokenDigest,
        issuer: &Issuer,
        identity: &Identity,
    ) -> Result<(), Reason> {
        let denylist = self.store.denylist();
        match denylist.judge(content, &issuer.rules.issuer, identity) {
            Word::Clear => Ok(()),
            Word::Revoked => Err(Reason::Revoked),
            Word::Unknown => Err(Reason::StoreUnavailable),
        }
    }

    /// Remembers a verified token.
    pub fn remember(&self, digest: TokenDigest, entry: Verified) {
        self.verified.insert(digest, Arc::new(entry));
    }

    /// Remembers a refused token, unless nothing but time may make it good. An answer is used for a
    /// moment in any case.
    pub fn remember_refusal(&self, digest: TokenDigest, entry: Refused) {
        let early = entry.rejection.reason == Reason::NotYetValid;
        if !(early && matches!(entry.ground, Ground::Keys(_))) {
            self.refused.insert(digest, Arc::new(entry));
        }
    }

    /// Forgets that a token was verified by this issuer, which has just said otherwise.
    pub fn forget(&self, digest: &TokenDigest, issuer: &Arc<Issuer>) {
        let entry = self.verified.get(digest);
        if entry.is_some_and(|entry| Arc::ptr_eq(&entry.issuer, issuer)) {
            self.verified.invalidate(digest);
        }
    }

    /// Counts a token that nothing was known of.
    pub fn missed(&self) {
        self.metrics.miss.inc();
    }

    /// Where revocations are.
    pub fn store(&self) -> &Arc<SharedStore> {
        &self.store
    }

    /// Entries in both caches, after what is over the bounds has been dropped; for tests and benches.
    pub fn counts(&self) -> (u64, u64) {
        self.verified.run_pending_tasks();
        self.refused.run_pending_tasks();
        (self.verified.entry_count(), self.refused.entry_count())
    }
}

/// What one of `entries` has of `bytes`, at least.
fn share(bytes: u64, entries: u64) -> u32 {
    u32::try_from(bytes / entries.max(1)).unwrap_or(u32::MAX)
}

// === impl Fresh ===

impl Fresh {
    /// Whether the answer may be used now.
    pub fn holds(&self, now: UnixSeconds) -> bool {
        (self.since..self.until).contains(&now)
    }
}

// === impl Verified ===

impl Verified {
    /// Bytes that the cache itself spends on an entry: its nodes, links and counters, measured with
    /// `benches/memory.rs`.
    const OVERHEAD: u32 = 928;

    fn weight(&self) -> u32 {
        self.identity.weight().saturating_add(Self::OVERHEAD)
    }
}

#[cfg(test)]
#[path = "known_tests.rs"]
mod tests;
