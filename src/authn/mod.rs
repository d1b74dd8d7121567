//! From the `Authorization` header to an [`Identity`], or to the reason why not.
//!
//! [`credential`] finds the token, [`token`] reads it without believing it, [`verify`] believes it,
//! [`opaque`] has its issuer asked if it tells nothing by itself, and [`known`] remembers what came
//! of it. Nothing here does I/O: when something has to be fetched first, that is an answer
//! ([`Outcome::Needs`]) which the caller acts on.

mod binding;
mod case;
pub mod credential;
mod examine;
pub mod known;
pub mod opaque;
pub mod token;
pub mod verify;

pub use examine::examine;

use crate::identity::{Identity, Thumbprint, TokenDigest, UnixSeconds};
use crate::introspection::Introspection;
use crate::keys::{KeyStatus, KeyStore};
use crate::rejection::{Reason, Rejection};
use crate::steps::{self, Steps};
use crate::telemetry::metrics::IssuerMetrics;
use binding::Bringer;
use case::Case;
use known::{KnownTokens, Refused};
use opaque::{Finding, Question};
use std::fmt;
use std::sync::Arc;
use verify::IssuerRules;

/// An issuer whose tokens are accepted: what its tokens must look like, and its keys.
#[derive(Debug)]
pub struct Issuer {
    /// What a token must look like.
    pub rules: IssuerRules,
    /// The keys, kept fresh in the background.
    pub keys: Arc<KeyStore>,
    /// Asks about its tokens if they are opaque; then there are no keys.
    pub introspection: Option<Arc<Introspection<Finding>>>,
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
    /// No key at hand may be the one that the token is signed with: the keys of its issuer.
    Keys(Unverified),
    /// The token tells nothing by itself: what its issuer says of it.
    Introspection(Question),
}

/// A token that the keys at hand do not verify, and later ones might.
#[derive(Debug, Clone)]
pub struct Unverified {
    /// The issuer that it names.
    pub issuer: Arc<Issuer>,
    /// If it names no key: what it is refused for if later keys do not verify it either. Not yet
    /// remembered, because the same token may come again before they are here.
    refusal: Option<Box<(TokenDigest, Refused)>>,
}

/// A bearer token as it came to a route.
#[derive(Clone, Copy)]
pub struct Bearer<'a> {
    /// The token.
    pub text: &'a str,
    /// The issuer that the route has asked about tokens that tell nothing by themselves.
    pub opaque: Option<&'a Arc<Issuer>>,
    /// What came of asking, if that has been done.
    pub finding: Option<&'a Finding>,
    /// The client certificate of the connection that it came by.
    pub certificate: Option<Thumbprint>,
}

// === impl Bearer ===

impl fmt::Debug for Bearer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is a secret; its length is not.
        f.debug_struct("Bearer")
            .field("bytes", &self.text.len())
            .field("opaque", &self.opaque.map(|issuer| &issuer.rules.name))
            .field("asked", &self.finding.is_some())
            .finish()
    }
}

// === impl Issuer ===

impl Issuer {
    /// Whether there is what it takes to check its tokens, for `/readyz`.
    pub fn status(&self, now: UnixSeconds) -> KeyStatus {
        match &self.introspection {
            None => self.keys.status(now),
            Some(introspection) if introspection.endpoint().is_some() => KeyStatus::NotNeeded,
            Some(_) => KeyStatus::Missing,
        }
    }
}

// === impl Unverified ===

impl Unverified {
    /// Whether the keys are still those that have been tried, so that trying again is a waste.
    pub fn has_been_tried(&self, now: UnixSeconds) -> bool {
        let refusal = self.refusal.as_ref();
        refusal.is_some_and(|refusal| refusal.1.ground.has_these_keys(&self.issuer, now))
    }

    /// Refuses a request for good that brings the token, and counts it: see [`Self::give_up`].
    pub fn refuse(self, refreshed: bool, known: &KnownTokens) -> Rejection {
        let issuer = Arc::clone(&self.issuer);
        let rejection = self.give_up(refreshed, known);
        issuer.metrics.refused(&rejection.reason);
        rejection
    }

    /// What the token is refused for: its issuer's keys have been asked for. `refreshed` says whether
    /// they are now as fresh as they can be had.
    pub fn give_up(self, refreshed: bool, known: &KnownTokens) -> Rejection {
        match self.refusal {
            Some(refusal) => {
                let (digest, refused) = *refusal;
                let rejection = refused.rejection.clone();
                known.remember_refusal(digest, refused);
                rejection
            }
            None if refreshed => {
                Rejection::noted(Reason::UnknownKey, "no published key has the token's kid")
            }
            None => {
                let note = "the token's kid is unknown and the keys could not be refreshed";
                Rejection::noted(Reason::KeysUnavailable, note)
            }
        }
    }
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
/// the presence of its key or the age of what its issuer said, the certificate that it is bound to,
/// and revocation are checked all the same.
///
/// # Errors
/// The reason why the token is refused. [`Reason::KeysUnavailable`] if it cannot be checked.
pub fn authenticate(
    issuers: &Issuers,
    known: &KnownTokens,
    bearer: Bearer<'_>,
    now: UnixSeconds,
    steps: &mut impl Steps,
) -> Result<Outcome, Rejection> {
    let text = bearer.text;
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
        opaque: bearer.opaque,
        bringer: Bringer::Request(bearer.certificate),
        digest: TokenDigest::of(text),
        now,
    };
    let about_this = |finding: &&Finding| finding.is_about(&case.digest, bearer.opaque);
    if let Some(finding) = bearer.finding.filter(about_this) {
        return judged(&finding.issuer().metrics, case.accept(finding, steps));
    }
    if let Some((entry, outcome)) = case.recall() {
        known.metrics.hit.inc();
        steps.passed("known", || {
            format!(
                "good before, {}; its times are checked anew",
                entry.evidence
            )
        });
        steps.checking("validity", || {
            let identity = &entry.identity;
            let expires = steps::moment(identity.expires_at, now);
            format!("exp is {expires}; neither token nor subject may be revoked")
        });
        let (content, issuer, identity) = (&entry.content, &entry.issuer, &entry.identity);
        let passed = |()| case.admit(content, issuer, identity, steps);
        let outcome = outcome.and_then(passed);
        return judged(&entry.issuer.metrics, outcome);
    }
    if let Some(refused) = case.recall_refusal() {
        known.metrics.refused.inc();
        steps.checking("known", || {
            "refused before, under the same rules and on the same ground".to_owned()
        });
        return judged(&refused.issuer.metrics, Err(refused.rejection.clone()));
    }
    let mut metrics = &issuers.unknown;
    let outcome = case.establish(&mut metrics, steps);
    // A request that waits for keys comes here once more, or is refused by who fetched them.
    if !matches!(outcome, Ok(Outcome::Needs(Need::Keys(_)))) {
        known.missed();
    }
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

/// For who listens: how long a token is, and whose `max_token_bytes` it is measured by.
fn size(text: &str, limit: usize, whose: &str) -> String {
    format!("{} bytes; max_token_bytes ({whose}) is {limit}", text.len())
}
