//! One token before its judges: recalled if it is known, read and verified if it is not, or referred
//! to its issuer.

use super::binding::{self, Bringer};
use super::known::{Evidence, Ground, KnownTokens, Refused, Verified};
use super::opaque::{Digests, Finding, Question};
use super::token::{Form, UnverifiedToken};
use super::{Issuer, Issuers, Need, Outcome, Unverified, verify};
use crate::identity::{Identity, TokenDigest, UnixSeconds};
use crate::introspection::Caller;
use crate::keys::{KeySet, Message, VerificationKey};
use crate::rejection::{Reason, Rejection};
use crate::steps::{self, Steps};
use crate::telemetry::metrics::IssuerMetrics;
use jsonwebtoken::Algorithm;
use std::sync::Arc;

/// A token as it came, with what it is judged by.
pub(super) struct Case<'a> {
    pub(super) issuers: &'a Issuers,
    pub(super) known: &'a KnownTokens,
    pub(super) text: &'a str,
    pub(super) opaque: Option<&'a Arc<Issuer>>,
    pub(super) bringer: Bringer,
    pub(super) digest: TokenDigest,
    pub(super) now: UnixSeconds,
}

// === impl Case ===

impl<'a> Case<'a> {
    /// A fact that was established before, and whether its times still hold. `None` if there is
    /// none, or if rules or keys have changed since: then it has to be established anew.
    pub(super) fn recall(&self) -> Option<(Arc<Verified>, Result<(), Rejection>)> {
        let entry = self.known.verified(&self.digest)?;
        if !self.issuers.holds(&entry.issuer) {
            return None;
        }
        match &entry.evidence {
            Evidence::Key(key) => {
                let Some(set) = entry.issuer.keys.current(self.now) else {
                    entry.issuer.keys.demand();
                    return Some((entry, Err(Reason::KeysUnavailable.into())));
                };
                if !set.as_ref().is_some_and(|set| set.holds(key)) {
                    return None;
                }
            }
            // Another issuer may say something else of it.
            Evidence::Answer(fresh) if fresh.holds(self.now) && self.asks(&entry.issuer) => {}
            Evidence::Answer(_) => return None,
        }
        let (identity, leeway) = (&entry.identity, entry.issuer.rules.leeway);
        let times = verify::times(identity.expires_at, identity.not_before, leeway, self.now);
        Some((entry, times))
    }

    /// A refusal under the very rules and on the very ground of now.
    pub(super) fn recall_refusal(&self) -> Option<Arc<Refused>> {
        let entry = self.known.refused(&self.digest)?;
        let stands = match &entry.ground {
            ground @ Ground::Keys(_) => ground.has_these_keys(&entry.issuer, self.now),
            Ground::Answer(fresh) => fresh.holds(self.now) && self.asks(&entry.issuer),
        };
        (stands && self.issuers.holds(&entry.issuer)).then_some(entry)
    }

    /// Whether this is the issuer that the route has asked about opaque tokens.
    fn asks(&self, issuer: &Arc<Issuer>) -> bool {
        self.opaque.is_some_and(|own| Arc::ptr_eq(own, issuer))
    }

    /// Takes a finding for what it is worth now.
    pub(super) fn accept(
        &self,
        finding: &Finding,
        steps: &mut impl Steps,
    ) -> Result<Outcome, Rejection> {
        finding.tell(steps);
        let identity = finding.outcome.as_ref().map_err(Rejection::clone)?;
        self.admit(finding.content(), finding.issuer(), identity, steps)
    }

    /// The outcome for a token that is good, unless a request brings it that does not have the
    /// certificate which it is bound to, or it has been revoked. `content` is what it is revoked by.
    pub(super) fn admit(
        &self,
        content: &TokenDigest,
        issuer: &Issuer,
        identity: &Arc<Identity>,
        steps: &mut impl Steps,
    ) -> Result<Outcome, Rejection> {
        if let Bringer::Request(certificate) = &self.bringer {
            binding::held(identity, certificate.as_ref(), steps)?;
        }
        steps.checking("revocation", || {
            let subject = identity.subject().unwrap_or("absent");
            format!("by digest, jti and sub; sub is `{subject}`")
        });
        self.known.unrevoked(content, issuer, identity)?;
        steps.passed("revocation", || {
            "neither the token nor its subject is revoked".to_owned()
        });
        Ok(Outcome::Known(Arc::clone(identity)))
    }

    /// Judges a token that is not known yet, and remembers what comes of it.
    pub(super) fn establish(
        &self,
        metrics: &mut &'a IssuerMetrics,
        steps: &mut impl Steps,
    ) -> Result<Outcome, Rejection> {
        steps.checking("form", || {
            "three segments of strict base64url, no JSON member twice; alg, kid and iss are strings"
                .to_owned()
        });
        let Some(opaque) = self.opaque else {
            return self.signed(UnverifiedToken::parse(self.text)?, metrics, steps);
        };
        let issuer = match Form::of(self.text)? {
            Form::Signed(token) => return self.signed(token, metrics, steps),
            Form::Encrypted(Some(iss)) => self.issuer(&iss)?,
            Form::Encrypted(None) | Form::Opaque => opaque,
        };
        *metrics = &issuer.metrics;
        steps.passed("form", || "it tells nothing by itself".to_owned());
        self.question(issuer, self.digest, steps)
    }

    /// Judges a signed JWT by the rules of the issuer that it names.
    fn signed(
        &self,
        token: UnverifiedToken<'_>,
        metrics: &mut &'a IssuerMetrics,
        steps: &mut impl Steps,
    ) -> Result<Outcome, Rejection> {
        steps.passed("form", || {
            "three segments of strict base64url, no JSON member twice".to_owned()
        });
        steps.checking("issuer", || {
            let configured = self.issuers.iter().map(|issuer| &issuer.rules.issuer);
            let configured = steps::listed(configured);
            format!("iss is `{}`; configured: {configured}", token.issuer())
        });
        let issuer = self.issuer(token.issuer())?;
        *metrics = &issuer.metrics;
        steps.passed("issuer", || {
            let rules = &issuer.rules;
            format!("iss is `{}`: [issuer.{}]", rules.issuer, rules.name)
        });
        if issuer.introspection.is_some() {
            return self.question(issuer, token.content(), steps);
        }
        self.verify(issuer, token, steps)
    }

    fn issuer(&self, iss: &str) -> Result<&'a Arc<Issuer>, Rejection> {
        self.issuers.of(iss).ok_or_else(|| {
            Rejection::noted(
                Reason::WrongIssuer,
                "the token's iss is none of the configured issuers' url",
            )
        })
    }

    /// Has an issuer asked, if it is the one that the route has asked: no other is shown the token.
    fn question(
        &self,
        issuer: &Arc<Issuer>,
        content: TokenDigest,
        steps: &mut impl Steps,
    ) -> Result<Outcome, Rejection> {
        steps.checking("introspection", || {
            let own = self.opaque.map(|own| &own.rules.name);
            let (of, asked) = (&issuer.rules.name, steps::listed(own));
            format!("the token is one of [issuer.{of}]; the route has asked about tokens: {asked}")
        });
        let introspection = issuer.introspection.as_ref();
        let introspection = introspection.filter(|_| self.asks(issuer)).ok_or_else(|| {
            Rejection::noted(
                Reason::WrongIssuer,
                "the token's iss is none whose opaque tokens the route accepts",
            )
        })?;
        steps.checking("size", || {
            super::size(self.text, issuer.rules.max_token_bytes, &issuer.rules.name)
        });
        if self.text.len() > issuer.rules.max_token_bytes {
            return Err(Reason::TokenTooLarge.into());
        }
        // What was said of it may be too old to be used; that it was good says who is asking.
        let before = self.known.verified(&self.digest);
        let caller = match before.is_some_and(|entry| Arc::ptr_eq(&entry.issuer, issuer)) {
            true => Caller::Known,
            false => Caller::Stranger,
        };
        Ok(Outcome::Needs(Need::Introspection(Question {
            issuer: Arc::clone(issuer),
            introspection: Arc::clone(introspection),
            token: self.text.into(),
            digests: Digests {
                text: self.digest,
                content,
            },
            caller,
        })))
    }

    /// Checks header, signature and claims, in this order.
    fn verify(
        &self,
        issuer: &Arc<Issuer>,
        token: UnverifiedToken<'_>,
        steps: &mut impl Steps,
    ) -> Result<Outcome, Rejection> {
        steps.checking("size", || {
            super::size(self.text, issuer.rules.max_token_bytes, &issuer.rules.name)
        });
        if self.text.len() > issuer.rules.max_token_bytes {
            return Err(Reason::TokenTooLarge.into());
        }
        let algorithm = verify::header(&issuer.rules, &token, steps)?;
        steps.checking("keys", || {
            format!("no keys of [issuer.{}] at hand", issuer.rules.name)
        });
        let guard = issuer.keys.current(self.now);
        let guard = guard.ok_or_else(|| {
            issuer.keys.demand();
            Reason::KeysUnavailable
        })?;
        let set = guard.as_ref().ok_or(Reason::KeysUnavailable)?;
        let refused = |rejection| Refused {
            rejection,
            issuer: Arc::clone(issuer),
            ground: Ground::Keys(Arc::clone(set)),
        };
        // What it took a signature check to find out is worth remembering.
        let dear = |rejection: Rejection| {
            let entry = refused(rejection.clone());
            self.known.remember_refusal(self.digest, entry);
            rejection
        };
        let needs_keys = |refusal: Option<Refused>| {
            Ok(Outcome::Needs(Need::Keys(Unverified {
                issuer: Arc::clone(issuer),
                refusal: refusal.map(|refused| Box::new((self.digest, refused))),
            })))
        };
        steps.passed("keys", || {
            format!("[issuer.{}] publishes {}", issuer.rules.name, set.len())
        });
        // Hashed once, for the signature and to be known by if it is revoked.
        let message = Message::of(token.signed);
        let content = message.digest();
        let key = match signing_key(set, &token, &message, algorithm, steps) {
            Ok(Some(key)) => key,
            Ok(None) => return needs_keys(None),
            Err(rejection) if token.key_id().is_none() => {
                return needs_keys(Some(refused(rejection)));
            }
            Err(rejection) => return Err(dear(rejection)),
        };
        steps.passed("signature", || {
            format!("{algorithm:?}, verified by {key:?}")
        });
        let identity = verify::claims(&issuer.rules, token.claims, self.now, steps);
        let entry = Verified {
            identity: Arc::new(identity.map_err(dear)?),
            issuer: Arc::clone(issuer),
            content,
            evidence: Evidence::Key(key),
        };
        let identity = Arc::clone(&entry.identity);
        self.known.remember(self.digest, entry);
        self.admit(&content, issuer, &identity, steps)
    }
}

/// The key whose signature the token carries. `None` if the key it names is not at hand.
fn signing_key(
    set: &KeySet,
    token: &UnverifiedToken<'_>,
    message: &Message<'_>,
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
        verify::signature(token, message, key, algorithm)?;
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
        outcome = verify::signature(token, message, key, algorithm).map(|()| Some(Arc::clone(key)));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}
