//! A token judged by itself: not for a request that brings it, but for who asks what it is worth or
//! wants it ended.

use super::binding::Bringer;
use super::case::Case;
use super::known::KnownTokens;
use super::opaque::Finding;
use super::{Issuer, Issuers, Outcome};
use crate::identity::{TokenDigest, UnixSeconds};
use crate::rejection::{Reason, Rejection};
use crate::steps::Untold;
use std::sync::Arc;

/// Judges a token as [`authenticate`](super::authenticate) does, with three differences: only tokens
/// of this one issuer are good; one that is bound to a client certificate is, without it; and nothing
/// is counted, because nobody is let in or turned away.
///
/// # Errors
/// The reason why a request with the token would be refused. Not 401 if it cannot be judged.
pub fn examine(
    issuer: &Arc<Issuer>,
    known: &KnownTokens,
    text: &str,
    finding: Option<&Finding>,
    now: UnixSeconds,
) -> Result<Outcome, Rejection> {
    let issuers = Issuers::new(vec![Arc::clone(issuer)], issuer.metrics.clone());
    if text.len() > issuers.max_token_bytes {
        return Err(Reason::TokenTooLarge.into());
    }
    let case = Case {
        issuers: &issuers,
        known,
        text,
        opaque: issuer.introspection.is_some().then_some(issuer),
        bringer: Bringer::Nobody,
        digest: TokenDigest::of(text),
        now,
    };
    if let Some(finding) = finding.filter(|finding| finding.is_about(&case.digest, case.opaque)) {
        return case.accept(finding, &mut Untold);
    }
    if let Some((entry, times)) = case.recall() {
        times?;
        return case.admit(&entry.content, &entry.issuer, &entry.identity, &mut Untold);
    }
    if let Some(refused) = case.recall_refusal() {
        return Err(refused.rejection.clone());
    }
    case.establish(&mut &issuers.unknown, &mut Untold)
}
