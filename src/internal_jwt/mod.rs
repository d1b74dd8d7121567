//! The gateway's own tokens for upstreams: `internal_jwt` of a route. An upstream that gets one learns
//! who calls from a JWT that is short-lived, meant for it alone, and signed by the gateway; the
//! caller's own token, good for more than this one request, stays outside.

mod key;

pub use key::{NoSigningKey, PublicKey, PublishedKeys, SigningKey};

use crate::identity::{Identity, UnixSeconds};
use crate::rejection::{Reason, Rejection};
use crate::steps;
use http::HeaderValue;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde_json::{Map, Value, json};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use uuid::Uuid;

/// The claims that the gateway sets itself (RFC 7519 §4.1), so that none of the caller's takes their
/// place.
pub const OWN_CLAIMS: [&str; 5] = ["iss", "aud", "iat", "exp", "jti"];

/// What is in a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// `iss`: the gateway's name.
    pub issuer: Box<str>,
    /// `aud`: the upstream's.
    pub audience: Box<str>,
    /// Seconds that it lives at most; at least one.
    pub ttl: UnixSeconds,
    /// Claims of the caller that are copied, by their literal names; none of [`OWN_CLAIMS`].
    pub claims: Box<[Box<str>]>,
}

/// Makes the tokens of one set of rules, by one key.
#[derive(Debug)]
pub struct Minter {
    /// Tells it from all others of this process.
    number: u64,
    rules: Rules,
    key: SigningKey,
    minted: Arc<MintedTokens>,
}

/// How much may be kept: as much as of verified tokens (`[token_cache]`), because a token is of use as
/// long as the caller's is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes in all.
    pub max_bytes: u64,
    /// Tokens in all.
    pub max_entries: u64,
}

/// The tokens of all minters that are still good. Shared by all snapshots with the same bounds.
pub struct MintedTokens {
    bounds: Bounds,
    cache: Cache<Place, Arc<Minted>>,
}

/// A minter by its number, and an identity by its address.
type Place = (u64, usize);

/// A token for one identity.
struct Minted {
    /// Keeps the address from being another's as long as this is here.
    identity: Weak<Identity>,
    /// `Bearer` and the token.
    authorization: HeaderValue,
    life: Life,
}

/// When a token is good, and when another one takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    /// When it was made, by the gateway's clock.
    since: UnixSeconds,
    /// `iat`.
    issued_at: UnixSeconds,
    /// `exp`.
    expires_at: UnixSeconds,
    /// From then on another one is made.
    renewed_at: UnixSeconds,
}

// === impl Minter ===

impl Minter {
    /// A minter with nothing minted yet.
    pub fn new(rules: Rules, key: SigningKey, minted: Arc<MintedTokens>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NEXT.fetch_add(1, Relaxed),
            rules,
            key,
            minted,
        }
    }

    /// Whether one of these would make the very same tokens and keep them in the same place.
    pub fn is_as(&self, rules: &Rules, key: &PublicKey, minted: &Arc<MintedTokens>) -> bool {
        self.rules == *rules && self.key.public() == key && Arc::ptr_eq(&self.minted, minted)
    }

    /// The key that it signs with.
    pub fn key(&self) -> &PublicKey {
        self.key.public()
    }

    /// `Authorization` for a request of this caller: a token that was made before, or a new one if
    /// there is none with a fifth of its life left. One that ends with the caller's own token is used
    /// to its end, because another would not last longer.
    ///
    /// # Errors
    /// [`Reason::Internal`] if it cannot be signed.
    pub fn authorization(
        &self,
        identity: &Arc<Identity>,
        now: UnixSeconds,
    ) -> Result<HeaderValue, Rejection> {
        let place = (self.number, Arc::as_ptr(identity).addr());
        if let Some(minted) = self.minted.cache.get(&place)
            && minted.is_of(identity)
            && minted.life.is_fresh(now)
        {
            return Ok(minted.authorization.clone());
        }
        let minted = self.mint(identity, now)?;
        let authorization = minted.authorization.clone();
        // Two workers may come here at a time: each then has a good token, and one is kept.
        self.minted.cache.insert(place, Arc::new(minted));
        Ok(authorization)
    }

    fn mint(&self, identity: &Arc<Identity>, now: UnixSeconds) -> Result<Minted, Rejection> {
        let failed = || Rejection::noted(Reason::Internal, "the internal JWT cannot be signed");
        let life = self.life(identity, now);
        let claims = self.rules.claims(identity, life, Uuid::new_v4());
        let token = self.key.sign(&claims).ok_or_else(failed)?;
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| failed())?;
        authorization.set_sensitive(true);
        Ok(Minted {
            identity: Arc::downgrade(identity),
            authorization,
            life,
        })
    }

    fn life(&self, identity: &Identity, now: UnixSeconds) -> Life {
        Life::of(self.rules.ttl, identity.expires_at, now)
    }

    /// For people: what takes the place of the caller's token.
    pub fn describe(&self, identity: Option<&Identity>, now: UnixSeconds) -> String {
        let Some(identity) = identity else {
            return "no token goes upstream: nobody was identified".to_owned();
        };
        let Rules {
            issuer, audience, ..
        } = &self.rules;
        let copied = self.rules.copied(identity).map(|(name, _)| name);
        let (copied, key) = (steps::listed(copied), self.key.public());
        let ends = steps::moment(self.life(identity, now).expires_at, now);
        format!(
            "the gateway's own token in place of the caller's: iss {issuer}, aud {audience}, claims {copied}, exp {ends}; {} by kid {}",
            key.algorithm(),
            key.kid()
        )
    }
}

// === impl Rules ===

impl Rules {
    /// The caller's claims that are copied. One that is `null` is absent, here as elsewhere.
    fn copied<'a>(&'a self, identity: &'a Identity) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let found = self.claims.iter().filter_map(|name| {
            let value = identity.claims.get(name)?;
            Some((&**name, value))
        });
        found.filter(|(_, value)| !value.is_null())
    }

    /// The claims of a token, JSON.
    fn claims(&self, identity: &Identity, life: Life, id: Uuid) -> String {
        let mut claims = Map::new();
        claims.insert("iss".to_owned(), json!(self.issuer));
        claims.insert("aud".to_owned(), json!(self.audience));
        claims.insert("iat".to_owned(), json!(life.issued_at));
        claims.insert("exp".to_owned(), json!(life.expires_at));
        claims.insert("jti".to_owned(), json!(id.to_string()));
        for (name, value) in self.copied(identity) {
            claims.insert(name.to_owned(), value.clone());
        }
        Value::Object(claims).to_string()
    }
}

// === impl MintedTokens ===

impl MintedTokens {
    /// None yet.
    pub fn new(bounds: Bounds) -> Self {
        // A share of the bytes that no entry falls below bounds their number as well.
        let least = bounds.max_bytes / bounds.max_entries.max(1);
        let least = u32::try_from(least).unwrap_or(u32::MAX);
        let cache = Cache::builder()
            .max_capacity(bounds.max_bytes)
            // Those of callers that come no more go first.
            .eviction_policy(EvictionPolicy::lru())
            .weigher(move |_, minted: &Arc<Minted>| minted.weight().max(least))
            .build();
        Self { bounds, cache }
    }

    /// The bounds that it was made with.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// How many there are, after what is over the bounds has been dropped; for tests.
    pub fn count(&self) -> u64 {
        self.cache.run_pending_tasks();
        self.cache.entry_count()
    }
}

impl fmt::Debug for MintedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MintedTokens")
            .field("bounds", &self.bounds)
            .field("entries", &self.cache.entry_count())
            .finish_non_exhaustive()
    }
}

// === impl Minted ===

impl Minted {
    /// Bytes that an entry holds beside the token: those of the cache itself, as with verified
    /// tokens, and the memory of an identity that has gone.
    const OVERHEAD: usize = 928 + size_of::<Self>() + size_of::<Identity>();

    fn is_of(&self, identity: &Arc<Identity>) -> bool {
        std::ptr::eq(self.identity.as_ptr(), Arc::as_ptr(identity))
    }

    fn weight(&self) -> u32 {
        u32::try_from(Self::OVERHEAD + self.authorization.len()).unwrap_or(u32::MAX)
    }
}

// === impl Life ===

impl Life {
    /// The life of a token that is made now, for a caller whose own token ends at `callers_end`: never
    /// longer than that. A caller who is let in for the sake of `leeway` has a token that ended just
    /// now, and gets one that ended with it.
    fn of(ttl: UnixSeconds, callers_end: UnixSeconds, now: UnixSeconds) -> Self {
        let full = now.saturating_add(ttl);
        let (expires_at, renewed_at) = match callers_end <= full {
            true => (callers_end, UnixSeconds::MAX),
            false => (full, full.saturating_sub(ttl / 5)),
        };
        Self {
            since: now,
            issued_at: now.min(expires_at),
            expires_at,
            renewed_at,
        }
    }

    /// Whether the token is to be used now. A clock that is set back does not make it last.
    fn is_fresh(&self, now: UnixSeconds) -> bool {
        (self.since..self.renewed_at).contains(&now)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
