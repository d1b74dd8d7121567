//! What becomes of a request, fetching included: the one way to a verdict, for the live gateway and
//! for `explain` alike.

use super::handles;
use crate::authn::Need;
use crate::authn::opaque::{self, Finding, Question};
use crate::gateway::{self, Admission, Decision, Found};
use crate::limit::{Allowance, Ask};
use crate::oauth::Endpoint;
use crate::rejection::{Reason, Rejection};
use crate::request::RequestView;
use crate::snapshot::{Mount, Route, Snapshot};
use crate::steps::Steps;
use std::sync::Arc;

/// What becomes of a request, once everything has been fetched that the decision needed.
#[derive(Debug)]
pub enum Verdict {
    /// It goes upstream.
    Proxy(Admission),
    /// An OAuth surface answers it.
    Token(Arc<Mount>),
    /// Another endpoint of an OAuth surface answers it.
    Endpoint(Arc<Mount>, Endpoint),
    /// It is told where tokens come from (RFC 9728).
    Metadata,
    /// It gets the public keys of the gateway's own tokens.
    InternalKeys,
    /// It may go no further and asks what may be asked here; the value is the `Allow` header.
    Options(Box<str>),
    /// A browser asks whether a page may use this route; it may.
    Preflight(Arc<Route>),
    /// It is refused, by this route if one was found.
    Refused(Option<Arc<Route>>, Rejection),
}

/// Whether a request takes from what its caller may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// It does.
    On,
    /// It does not, because it is a question about a request.
    Off,
}

/// Decides. In between fetches keys or asks an issuer, once, if that is what the decision needs, and
/// has the request counted.
pub async fn decide(
    snapshot: &Snapshot,
    view: &RequestView<'_>,
    counting: Counting,
    steps: &mut impl Steps,
) -> Verdict {
    let (mut refreshed, mut finding, mut allowance, mut exchanged) = (None, None, None, None);
    loop {
        let now = snapshot.clock.now();
        let found = Found {
            finding: finding.as_ref(),
            allowance: allowance.as_ref(),
            exchanged: exchanged.as_ref(),
        };
        match gateway::admit_with(snapshot, view, found, now, steps) {
            Decision::Admitted(admission) => return Verdict::Proxy(admission),
            Decision::OAuth(mount) => return Verdict::Token(mount),
            Decision::Endpoint(mount, endpoint) => return Verdict::Endpoint(mount, endpoint),
            Decision::Metadata => return Verdict::Metadata,
            Decision::InternalKeys => return Verdict::InternalKeys,
            Decision::Options(allow) => return Verdict::Options(allow),
            Decision::Preflight(route) => return Verdict::Preflight(route),
            Decision::CountAddress(route, ask) => {
                match Box::pin(count(snapshot, ask, counting, steps)).await {
                    Ok(left) => allowance = Some(left),
                    Err(rejection) => return Verdict::Refused(Some(route), rejection),
                }
            }
            Decision::CountCaller(uncounted, ask) => {
                return match Box::pin(count(snapshot, ask, counting, steps)).await {
                    Ok(left) => Verdict::Proxy(uncounted.counted(left)),
                    Err(rejection) => {
                        Verdict::Refused(Some(Arc::clone(uncounted.route())), rejection)
                    }
                };
            }
            Decision::Needs(route, Need::Keys(unverified)) => {
                if refreshed.is_none() {
                    let keys = &unverified.issuer.keys;
                    refreshed = Some(Box::pin(keys.refresh_for_unknown_key()).await);
                    if !unverified.has_been_tried(snapshot.clock.now()) {
                        continue;
                    }
                }
                snapshot.tokens.missed();
                let rejection = unverified.refuse(refreshed == Some(true), &snapshot.tokens);
                return Verdict::Refused(Some(route), rejection);
            }
            Decision::Needs(route, Need::Introspection(question)) if finding.is_none() => {
                let issuer = Arc::clone(&question.issuer);
                match Box::pin(introspect(snapshot, question)).await {
                    Ok(found) => finding = Some(found),
                    Err(rejection) => {
                        issuer.metrics.refused(&rejection.reason);
                        return Verdict::Refused(Some(route), rejection);
                    }
                }
            }
            Decision::Needs(route, Need::Introspection(_)) => {
                // What was found is about this very token and issuer, so this cannot be.
                let rejection = Rejection::noted(Reason::Internal, "asked, and none the wiser");
                return Verdict::Refused(Some(route), rejection);
            }
            Decision::Exchange(route, mount, handle) => {
                match Box::pin(handles::exchange(snapshot, &mount, &handle, counting)).await {
                    Ok(found) => exchanged = Some(found),
                    Err(rejection) => return Verdict::Refused(Some(route), rejection),
                }
            }
            Decision::Refused(route, rejection) => return Verdict::Refused(route, rejection),
        }
    }
}

/// Has a request counted: by the store that gateways share, or by this process if there is none or
/// it is away.
async fn count(
    snapshot: &Snapshot,
    ask: Ask,
    counting: Counting,
    steps: &mut impl Steps,
) -> Result<Allowance, Rejection> {
    steps.checking("limit", || ask.describe());
    let allowance = match (counting, &snapshot.shared) {
        (Counting::Off, _) => ask.untouched(),
        (Counting::On, None) => {
            let taken = ask.take();
            ask.settle(taken)?
        }
        (Counting::On, Some(redis)) => {
            let shared = redis.take(ask.shared()).await;
            let taken = shared.unwrap_or_else(|_| ask.take());
            ask.settle(taken)?
        }
    };
    steps.passed("limit", || allowance.describe());
    Ok(allowance)
}

/// Has an issuer asked about a token, and its answer judged. A decision that is given what came of
/// it does not need it again.
pub(super) async fn introspect(
    snapshot: &Snapshot,
    question: Question,
) -> Result<Finding, Rejection> {
    let (known, clock) = (Arc::clone(&snapshot.tokens), snapshot.clock.clone());
    let Question {
        issuer,
        introspection,
        token,
        digests,
        caller,
    } = question;
    let judge = move |reply| opaque::judge(&issuer, digests, reply, &known, clock.now());
    introspection.ask(token, digests.text, caller, judge).await
}
