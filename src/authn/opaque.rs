//! Tokens that only their issuer can judge: what has to be asked, and what comes of the answer.

use super::Issuer;
use super::known::{Evidence, Fresh, Ground, KnownTokens, Refused, Verified};
use super::verify;
use crate::identity::{Identity, TokenDigest, UnixSeconds};
use crate::introspection::{Caller, Introspection, Reply};
use crate::rejection::{Reason, Rejection};
use crate::steps::{Steps, Told};
use std::fmt;
use std::sync::Arc;

/// A good answer is used this many seconds at most: for so long a token outlives its revocation at
/// the issuer.
const GOOD_FOR: i64 = 60;

/// A bad answer is used this many seconds at most.
const BAD_FOR: i64 = 5;

/// What an issuer has to be asked.
#[derive(Clone)]
pub struct Question {
    /// Whose token it is, or would be.
    pub issuer: Arc<Issuer>,
    /// Who asks.
    pub introspection: Arc<Introspection<Finding>>,
    /// The token; goes to this issuer and to nobody else.
    pub token: Box<str>,
    /// Its digests.
    pub digests: Digests,
    /// Whether it was good when its issuer was last asked.
    pub caller: Caller,
}

/// What stands for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// Of its text: what it is recognised by.
    pub text: TokenDigest,
    /// What it is revoked by, see [`content`](super::token::content).
    pub content: TokenDigest,
}

/// What came of a question: the issuer's answer, judged by the rules for its tokens. A fact about a
/// token, like a verified signature; route rules and revocation come after it.
#[derive(Debug, Clone)]
pub struct Finding {
    issuer: Arc<Issuer>,
    digests: Digests,
    pub(super) outcome: Result<Arc<Identity>, Rejection>,
    /// The checks that were passed. Who shares the question may listen, so they are always told;
    /// next to a question put to an issuer that costs nothing.
    steps: Arc<Told>,
}

// === impl Question ===

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("issuer", &self.issuer.rules.name)
            .field("digests", &self.digests)
            .finish_non_exhaustive()
    }
}

/// Judges an answer, and remembers what comes of it as far as there is room.
pub fn judge(
    issuer: &Arc<Issuer>,
    digests: Digests,
    reply: Reply,
    known: &KnownTokens,
    now: UnixSeconds,
) -> Finding {
    let mut steps = Told::default();
    steps.checking("introspection", || {
        format!("[issuer.{}] has been asked about it", issuer.rules.name)
    });
    let outcome = match reply {
        Reply::Inactive => Err(Rejection::noted(
            Reason::InactiveToken,
            "the issuer says that the token is not active",
        )),
        Reply::Active(members) => {
            steps.passed("introspection", || {
                format!("[issuer.{}] says that it is active", issuer.rules.name)
            });
            verify::introspected(&issuer.rules, members, now, &mut steps).map(Arc::new)
        }
    };
    match &outcome {
        Ok(identity) => {
            let until = identity.expires_at.min(now.saturating_add(GOOD_FOR));
            let entry = Verified {
                identity: Arc::clone(identity),
                issuer: Arc::clone(issuer),
                content: digests.content,
                evidence: Evidence::Answer(Fresh { since: now, until }),
            };
            known.remember(digests.text, entry);
        }
        Err(rejection) => {
            let until = now.saturating_add(BAD_FOR);
            let entry = Refused {
                rejection: rejection.clone(),
                issuer: Arc::clone(issuer),
                ground: Ground::Answer(Fresh { since: now, until }),
            };
            // An older word may not come into force again when the clock is set.
            known.forget(&digests.text, issuer);
            known.remember_refusal(digests.text, entry);
        }
    }
    Finding {
        issuer: Arc::clone(issuer),
        digests,
        outcome,
        steps: Arc::new(steps),
    }
}

// === impl Finding ===

impl Finding {
    /// Whether it is about this token, and of the issuer that is to be asked.
    pub(super) fn is_about(&self, digest: &TokenDigest, asked: Option<&Arc<Issuer>>) -> bool {
        self.digests.text == *digest && asked.is_some_and(|asked| Arc::ptr_eq(asked, &self.issuer))
    }

    /// The issuer whose rules it was judged by.
    pub(super) fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    /// What the token is revoked by.
    pub(super) fn content(&self) -> &TokenDigest {
        &self.digests.content
    }

    /// Tells what was checked, as if it were checked now.
    pub(super) fn tell(&self, steps: &mut impl Steps) {
        for step in &self.steps.passed {
            steps.passed(step.check, || step.found.clone());
        }
        if let Some(open) = &self.steps.open {
            steps.checking(open.check, || open.found.clone());
        }
    }
}

#[cfg(test)]
#[path = "opaque_tests.rs"]
mod tests;
