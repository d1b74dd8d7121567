//! A token that has just been issued, judged before it is used.

use super::binding::Bringer;
use super::case::Case;
use super::known::KnownTokens;
use super::token::UnverifiedToken;
use super::{Issuer, Issuers, Need, Outcome};
use crate::identity::{TokenDigest, UnixSeconds};
use crate::steps::Untold;
use std::sync::Arc;

/// Judges a token that `issuer` itself has just issued, like any other, and remembers it if it is
/// good. Nobody asks to be let in: no decision and no miss is counted, and no refusal remembered,
/// because clients also fetch tokens that are meant for others.
///
/// Returns whether the key that it is signed with is not at hand.
pub fn foresee(
    issuers: &Issuers,
    known: &KnownTokens,
    issuer: &Arc<Issuer>,
    text: &str,
    now: UnixSeconds,
) -> bool {
    if text.len() > issuer.rules.max_token_bytes || issuer.introspection.is_some() {
        return false;
    }
    let Ok(token) = UnverifiedToken::parse(text) else {
        return false;
    };
    if *token.issuer() != *issuer.rules.issuer {
        return false;
    }
    let case = Case {
        issuers,
        known,
        text,
        opaque: None,
        bringer: Bringer::Nobody,
        digest: TokenDigest::of(text),
        now,
        keeps_refusals: false,
    };
    if case.recall().is_some() {
        return false;
    }
    let outcome = case.verify(issuer, token, &mut Untold);
    matches!(outcome, Ok(Outcome::Needs(Need::Keys(_))))
}
