//! What the gateway makes of a token that nobody comes in with: the way to a verdict, fetching
//! included, for the endpoints that are asked about tokens.

use super::decision;
use crate::authn::{self, Need, Outcome, token};
use crate::identity::Identity;
use crate::oauth::OAuthError;
use crate::rejection::{Reason, Rejection};
use crate::snapshot::{Mount, Snapshot};
use std::sync::Arc;

/// Judges a token of the surface's issuer. In between fetches keys or asks that issuer, once, if that
/// is what it takes.
pub(super) async fn examine(
    snapshot: &Snapshot,
    mount: &Mount,
    token: &str,
) -> Result<Arc<Identity>, Rejection> {
    let (issuer, known) = (&mount.provider.issuer, &snapshot.tokens);
    let (mut refreshed, mut finding) = (None, None);
    loop {
        let now = snapshot.clock.now();
        match authn::examine(issuer, known, token, finding.as_ref(), now)? {
            Outcome::Known(identity) => return Ok(identity),
            Outcome::Needs(Need::Keys(unverified)) => {
                if refreshed.is_none() {
                    refreshed = Some(issuer.keys.refresh_for_unknown_key().await);
                    if !unverified.has_been_tried(snapshot.clock.now()) {
                        continue;
                    }
                }
                return Err(unverified.give_up(refreshed == Some(true), known));
            }
            Outcome::Needs(Need::Introspection(question)) if finding.is_none() => {
                finding = Some(decision::introspect(snapshot, question).await?);
            }
            Outcome::Needs(Need::Introspection(_)) => {
                // What was found is about this very token and issuer, so this cannot be.
                return Err(Rejection::noted(
                    Reason::Internal,
                    "asked, and none the wiser",
                ));
            }
        }
    }
}

/// Refuses a token that is on its way to the issuer and has been revoked here. One that cannot be
/// judged goes on: the issuer knows its own.
///
/// # Errors
///
/// [`OAuthError::RevokedToken`], or [`OAuthError::NotJudged`] if that cannot be told without the store.
pub(super) fn check_revocation(
    snapshot: &Snapshot,
    mount: &Mount,
    token: &str,
) -> Result<(), OAuthError> {
    let (issuer, known) = (&mount.provider.issuer, &snapshot.tokens);
    let denylist = known.store().denylist();
    // A token for another API than ours is not judged here, and can be revoked all the same.
    if !denylist.is_empty() && denylist.holds_token(&token::content(token)) {
        return Err(OAuthError::RevokedToken);
    }
    let verdict = authn::examine(issuer, known, token, None, snapshot.clock.now());
    match verdict.map_err(|rejection| rejection.reason) {
        Err(Reason::Revoked) => Err(OAuthError::RevokedToken),
        Err(Reason::StoreUnavailable) => Err(OAuthError::NotJudged),
        // Nor is it known here whether one that is not judged has been revoked elsewhere.
        _ if known.store().standing().refuses() => Err(OAuthError::NotJudged),
        Ok(_) | Err(_) => Ok(()),
    }
}
