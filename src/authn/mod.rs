//! From the `Authorization` header to an [`Identity`], or to the reason why not.
//!
//! [`credential`] finds the token, [`token`] reads it without believing it, [`verify`] believes it,
//! and [`known`] remembers what came of it. Nothing here does I/O: when something has to be fetched
//! first, that is an answer ([`Outcome::Needs`]) which the caller acts on.

pub mod credential;
pub mod known;
pub mod token;
pub mod verify;

use crate::identity::{Identity, TokenDigest, UnixSeconds};
use crate::keys::{KeySet, KeyStore, VerificationKey};
use crate::rejection::{Reason, Rejection};
use crate::steps::{self, Steps};
use crate::telemetry::metrics::IssuerMetrics;
use jsonwebtoken::Algorithm;
use known::{KnownTokens, Refused, Verified};
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
    /// Something has to be fetched first; then ask again.
    Needs(Need),
}

/// What has to be fetched before a token can be judged.
#[derive(Debug, Clone)]
pub enum Need {
    /// The token names a key that is not at hand: this issuer's keys.
    Keys(Arc<Issuer>),
}

/// A token as it came, with what it is judged by.
struct Case<'a> {
    issuers: &'a Issuers,
    known: &'a KnownTokens,
    text: &'a str,
    digest: TokenDigest,
    now: UnixSeconds,
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
/// `now` is the present. A token that was judged before is recognised by its digest; `exp`, `nbf`,
/// the presence of its key and revocation are checked all the same.
///
/// # Errors
/// The reason why the token is refused. [`Reason::KeysUnavailable`] if it cannot be checked.
pub fn authenticate(
    issuers: &Issuers,
    known: &KnownTokens,
    text: &str,
    now: UnixSeconds,
    steps: &mut impl Steps,
) -> Result<Outcome, Rejection> {
    steps.checking("size", || {
        size(text, issuers.max_token_bytes, "the largest of all")
    });
    if text.len() > issuers.max_token_bytes {
        return judged(&issuers.unknown, Err(Reason::TokenTooLarge.into()));
    }
    let case = Case {
        issuers,
        known,
        text,
        digest: TokenDigest::of(text),
        now,
    };
    if let Some((entry, outcome)) = case.recall() {
        known.metrics.hit.inc();
        steps.passed("known", || {
            format!(
                "verified before by {:?}; its times are checked anew",
                entry.key
            )
        });
        steps.checking("validity", || {
            let identity = &entry.identity;
            let expires = steps::moment(identity.expires_at, now);
            format!("exp is {expires}; neither token nor subject may be revoked")
        });
        let outcome = outcome.and_then(|()| case.unless_revoked(&entry.identity));
        return judged(&entry.issuer.metrics, outcome);
    }
    if let Some(refused) = case.recall_refusal() {
        known.metrics.refused.inc();
        steps.checking("known", || {
            "refused before, under the same rules and keys".to_owned()
        });
        return judged(&refused.issuer.metrics, Err(refused.rejection.clone()));
    }
    known.metrics.miss.inc();
    let mut metrics = &issuers.unknown;
    let outcome = case.establish(&mut metrics, steps);
    judged(metrics, outcome)
}

/// Counts a decision.
fn judged(
    metrics: &IssuerMetrics,
    outcome: Result<Outcome, Rejection>,
) -> Result<Outcome, Rejection> {
    match &outcome {
        Ok(Outcome::Known(_)) => metrics.accepted.inc(),
        Ok(Outcome::Needs(_)) => {}
        Err(rejection) => metrics.refused(&rejection.reason),
    }
    outcome
}

// === impl Case ===

impl<'a> Case<'a> {
    /// A fact that was established before, and whether its times still hold. `None` if there is
    /// none, or if rules or keys have changed since: then it has to be established anew.
    fn recall(&self) -> Option<(Arc<Verified>, Result<(), Rejection>)> {
        let entry = self.known.verified(&self.digest)?;
        if !self.issuers.holds(&entry.issuer) {
            return None;
        }
        let Some(set) = entry.issuer.keys.current(self.now) else {
            return Some((entry, Err(Reason::KeysUnavailable.into())));
        };
        if !set.as_ref().is_some_and(|set| set.holds(&entry.key)) {
            return None;
        }
        let (identity, leeway) = (&entry.identity, entry.issuer.rules.leeway);
        let times = verify::times(identity.expires_at, identity.not_before, leeway, self.now);
        Some((entry, times))
    }

    /// A refusal under the very rules and with the very keys of now.
    fn recall_refusal(&self) -> Option<Arc<Refused>> {
        let entry = self.known.refused(&self.digest)?;
        let set = entry.issuer.keys.current(self.now)?;
        let same_keys = set
            .as_ref()
            .is_some_and(|set| Arc::ptr_eq(set, &entry.keys));
        (same_keys && self.issuers.holds(&entry.issuer)).then_some(entry)
    }

    fn unless_revoked(&self, identity: &Arc<Identity>) -> Result<Outcome, Rejection> {
        if self.known.is_revoked(&self.digest, identity) {
            return Err(Reason::Revoked.into());
        }
        Ok(Outcome::Known(Arc::clone(identity)))
    }

    /// Judges a token that is not known yet, and remembers what comes of it.
    fn establish(
        &self,
        metrics: &mut &'a IssuerMetrics,
        steps: &mut impl Steps,
    ) -> Result<Outcome, Rejection> {
        steps.checking("form", || {
            "three segments of strict base64url, no JSON member twice; alg, kid and iss are strings"
                .to_owned()
        });
        let token = UnverifiedToken::parse(self.text)?;
        steps.passed("form", || {
            "three segments of strict base64url, no JSON member twice".to_owned()
        });
        steps.checking("issuer", || {
            let configured = self.issuers.iter().map(|issuer| &issuer.rules.issuer);
            let configured = steps::listed(configured);
            format!("iss is `{}`; configured: {configured}", token.issuer())
        });
        let issuer = self.issuers.of(token.issuer()).ok_or_else(|| {
            Rejection::noted(
                Reason::WrongIssuer,
                "the token's iss is none of the configured issuers' url",
            )
        })?;
        *metrics = &issuer.metrics;
        steps.passed("issuer", || {
            let rules = &issuer.rules;
            format!("iss is `{}`: [issuer.{}]", rules.issuer, rules.name)
        });
        self.verify(issuer, token, steps)
    }

    /// Checks header, signature and claims, in this order.
    fn verify(
        &self,
        issuer: &Arc<Issuer>,
        token: UnverifiedToken<'_>,
        steps: &mut impl Steps,
    ) -> Result<Outcome, Rejection> {
        steps.checking("size", || {
            size(self.text, issuer.rules.max_token_bytes, &issuer.rules.name)
        });
        if self.text.len() > issuer.rules.max_token_bytes {
            return Err(Reason::TokenTooLarge.into());
        }
        let algorithm = verify::header(&issuer.rules, &token, steps)?;
        steps.checking("keys", || {
            format!("no keys of [issuer.{}] at hand", issuer.rules.name)
        });
        let guard = issuer.keys.current(self.now);
        let guard = guard.ok_or(Reason::KeysUnavailable)?;
        let set = guard.as_ref().ok_or(Reason::KeysUnavailable)?;
        // What it took a signature check to find out is worth remembering.
        let dear = |rejection| {
            let entry = Refused {
                rejection: Rejection::clone(&rejection),
                issuer: Arc::clone(issuer),
                keys: Arc::clone(set),
            };
            self.known.remember_refusal(self.digest, entry);
            rejection
        };
        steps.passed("keys", || {
            format!("[issuer.{}] publishes {}", issuer.rules.name, set.len())
        });
        let Some(key) = signing_key(set, &token, algorithm, steps).map_err(dear)? else {
            return Ok(Outcome::Needs(Need::Keys(Arc::clone(issuer))));
        };
        steps.passed("signature", || {
            format!("{algorithm:?}, verified by {key:?}")
        });
        let identity = verify::claims(&issuer.rules, token.claims, self.now, steps);
        let entry = Verified {
            identity: Arc::new(identity.map_err(dear)?),
            issuer: Arc::clone(issuer),
            key,
        };
        let identity = Arc::clone(&entry.identity);
        self.known.remember(self.digest, entry);
        steps.checking("revocation", || {
            let subject = identity.subject().unwrap_or("absent");
            format!("by digest, jti and sub; sub is `{subject}`")
        });
        let outcome = self.unless_revoked(&identity)?;
        steps.passed("revocation", || {
            "neither the token nor its subject is revoked".to_owned()
        });
        Ok(outcome)
    }
}

/// For who listens: how long a token is, and whose `max_token_bytes` it is measured by.
fn size(text: &str, limit: usize, whose: &str) -> String {
    format!("{} bytes; max_token_bytes ({whose}) is {limit}", text.len())
}

/// The key whose signature the token carries. `None` if the key it names is not at hand.
fn signing_key(
    set: &KeySet,
    token: &UnverifiedToken<'_>,
    algorithm: Algorithm,
    steps: &mut impl Steps,
) -> Result<Option<Arc<VerificationKey>>, Rejection> {
    steps.checking("key", || match token.key_id() {
        Some(kid) => format!("kid is `{kid}`"),
        None => format!("the token names none; those that fit {algorithm:?} are tried"),
    });
    if let Some(kid) = token.key_id() {
        let Some(key) = set.find(kid) else {
            return Ok(None);
        };
        steps.checking("signature", || format!("{algorithm:?} by {key:?}"));
        verify::signature(token, key, algorithm)?;
        return Ok(Some(Arc::clone(key)));
    }
    let mut outcome = Err(Rejection::noted(
        Reason::UnknownKey,
        "the token names no key and none fits its algorithm",
    ));
    for key in set.candidates(algorithm) {
        steps.checking("signature", || {
            format!("{algorithm:?}; the token names no key, and no published key verifies it")
        });
        outcome = verify::signature(token, key, algorithm).map(|()| Some(Arc::clone(key)));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}
