//! From the `Authorization` header to an [`Identity`], or to the reason why not.
//!
//! [`credential`] finds the token, [`token`] reads it without believing it, [`verify`] believes it,
//! and [`cache`] remembers what was verified. Nothing here does I/O: when keys have to be fetched
//! first, that is an answer ([`Outcome::NeedKeys`]) which the caller acts on.

pub mod cache;
pub mod credential;
pub mod token;
pub mod verify;

use crate::identity::{Identity, UnixSeconds};
use crate::keys::{KeySet, KeyStore};
use crate::rejection::{Reason, Rejection};
use crate::telemetry::metrics::IssuerMetrics;
use cache::{Digest, Entry, VerifiedTokens};
use jsonwebtoken::Algorithm;
use std::sync::Arc;
use token::UnverifiedToken;
use verify::IssuerRules;

/// An issuer whose tokens are accepted: what its tokens must look like, and its keys.
#[derive(Debug)]
pub struct Issuer {
    /// What a token must look like.
    pub rules: IssuerRules,
    /// The keys, kept fresh in the background.
    pub keys: Arc<KeyStore>,
    /// The metrics of this issuer.
    pub metrics: IssuerMetrics,
}

/// All issuers of a snapshot. There are few, so a list is the fastest map.
#[derive(Debug)]
pub struct Issuers {
    list: Vec<Arc<Issuer>>,
    /// The largest `max_token_bytes` of all: nothing longer is even hashed.
    max_token_bytes: usize,
    /// Counts what is refused before its issuer is known.
    unknown: IssuerMetrics,
}

/// What authentication comes to.
#[derive(Debug)]
pub enum Outcome {
    /// The token is good; this is whose it is.
    Known(Arc<Identity>),
    /// The token names a key that is not at hand: fetch this issuer's keys and ask again.
    NeedKeys(Arc<Issuer>),
}

// === impl Issuers ===

impl Issuers {
    /// The issuers of a configuration.
    pub fn new(list: Vec<Arc<Issuer>>, unknown: IssuerMetrics) -> Self {
        let max_token_bytes = list
            .iter()
            .map(|issuer| issuer.rules.max_token_bytes)
            .max()
            .unwrap_or(0);
        Self {
            list,
            max_token_bytes,
            unknown,
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.list.iter()
    }

    /// The issuer of that exact `iss`.
    fn of(&self, iss: &str) -> Option<&Arc<Issuer>> {
        self.list.iter().find(|issuer| *issuer.rules.issuer == *iss)
    }

    fn holds(&self, issuer: &Arc<Issuer>) -> bool {
        self.list.iter().any(|own| Arc::ptr_eq(own, issuer))
    }
}

/// Authenticates a token against the issuers and the keys at hand.
///
/// `now` is the present. A token that was verified before is recognised by its digest; `exp`,
/// `nbf` and the presence of its key are checked all the same.
///
/// # Errors
/// The reason why the token is refused. [`Reason::KeysUnavailable`] if it cannot be checked.
pub fn authenticate(
    issuers: &Issuers,
    cache: &VerifiedTokens,
    text: &str,
    now: UnixSeconds,
) -> Result<Outcome, Rejection> {
    let mut metrics = &issuers.unknown;
    let outcome = if text.len() > issuers.max_token_bytes {
        Err(Reason::TokenTooLarge.into())
    } else {
        let digest = Digest::of(text);
        let entry = cache.get(&digest);
        match entry
            .as_ref()
            .and_then(|entry| Some((entry, recall(issuers, entry, now)?)))
        {
            Some((entry, recalled)) => {
                cache.hit();
                return judged(
                    &entry.issuer.metrics,
                    recalled.map(|()| Outcome::Known(Arc::clone(&entry.identity))),
                );
            }
            None => {
                cache.miss();
                establish(issuers, cache, digest, text, now, &mut metrics)
            }
        }
    };
    judged(metrics, outcome)
}

/// Counts a decision.
fn judged(
    metrics: &IssuerMetrics,
    outcome: Result<Outcome, Rejection>,
) -> Result<Outcome, Rejection> {
    match &outcome {
        Ok(Outcome::Known(_)) => metrics.accepted.inc(),
        Ok(Outcome::NeedKeys(_)) => {}
        Err(rejection) => metrics.refused(&rejection.reason),
    }
    outcome
}

/// Verifies a token that is not known yet, and remembers it.
fn establish<'i>(
    issuers: &'i Issuers,
    cache: &VerifiedTokens,
    digest: Digest,
    text: &str,
    now: UnixSeconds,
    metrics: &mut &'i IssuerMetrics,
) -> Result<Outcome, Rejection> {
    let token = UnverifiedToken::parse(text)?;
    let issuer = issuers.of(token.issuer()).ok_or_else(|| {
        Rejection::noted(
            Reason::WrongIssuer,
            "the token's iss is none of the configured issuers' url",
        )
    })?;
    *metrics = &issuer.metrics;
    let Some(entry) = check(issuer, token, text.len(), now)? else {
        return Ok(Outcome::NeedKeys(Arc::clone(issuer)));
    };
    let identity = Arc::clone(&entry.identity);
    cache.insert(digest, entry);
    Ok(Outcome::Known(identity))
}

/// Whether a cached fact still holds. `None`: it has to be established anew.
fn recall(issuers: &Issuers, entry: &Entry, now: UnixSeconds) -> Option<Result<(), Rejection>> {
    if !issuers.holds(&entry.issuer) {
        return None;
    }
    let Some(set) = entry.issuer.keys.current(now) else {
        return Some(Err(Reason::KeysUnavailable.into()));
    };
    if !set.as_ref().is_some_and(|set| set.holds(&entry.key)) {
        return None;
    }
    let leeway = entry.issuer.rules.leeway;
    Some(verify::times(
        entry.identity.expires_at,
        entry.identity.not_before,
        leeway,
        now,
    ))
}

/// Verifies a token that is not in the cache. `None` if its key is not at hand.
fn check(
    issuer: &Arc<Issuer>,
    token: UnverifiedToken<'_>,
    length: usize,
    now: UnixSeconds,
) -> Result<Option<Entry>, Rejection> {
    if length > issuer.rules.max_token_bytes {
        return Err(Reason::TokenTooLarge.into());
    }
    let algorithm = verify::header(&issuer.rules, &token)?;
    let guard = issuer.keys.current(now).ok_or(Reason::KeysUnavailable)?;
    let set = guard.as_ref().ok_or(Reason::KeysUnavailable)?;
    let Some(key) = signing_key(set, &token, algorithm)? else {
        return Ok(None);
    };
    let identity = Arc::new(verify::claims(&issuer.rules, token, now)?);
    Ok(Some(Entry {
        identity,
        issuer: Arc::clone(issuer),
        key,
    }))
}

/// The key whose signature the token carries. `None` if the key it names is not at hand.
fn signing_key(
    set: &KeySet,
    token: &UnverifiedToken<'_>,
    algorithm: Algorithm,
) -> Result<Option<Arc<crate::keys::VerificationKey>>, Rejection> {
    if let Some(kid) = token.key_id() {
        let Some(key) = set.find(kid) else {
            return Ok(None);
        };
        verify::signature(token, key, algorithm)?;
        return Ok(Some(Arc::clone(key)));
    }
    let mut outcome = Err(Rejection::noted(
        Reason::UnknownKey,
        "the token names no key and none fits its algorithm",
    ));
    for key in set.candidates(algorithm) {
        outcome = verify::signature(token, key, algorithm).map(|()| Some(Arc::clone(key)));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}
