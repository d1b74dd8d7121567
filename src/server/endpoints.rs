//! The rim of the OAuth surface's other endpoints: finds what they need in the snapshot, and counts
//! the outcome.

use super::{examine, handles, oauth, revoke, service};
use crate::identity::UnixSeconds;
use crate::oauth::endpoint::NO_GRANT;
use crate::oauth::revoke::Request;
use crate::oauth::userinfo::UserinfoIssuer;
use crate::oauth::{Answer, Endpoint, OAuthError, authorize, introspect, userinfo};
use crate::proxy::ResponseBody;
use crate::snapshot::{Mount, Snapshot};
use crate::telemetry::exchange::Exchange;
use crate::telemetry::trace::Trace;
use crate::upstream::Received;
use http::Response;
use http::request::Parts;
use std::time::Instant;

/// Seconds for which clients may keep a discovery document: as long as our own metadata.
const DISCOVERY_FRESH: u64 = 300;

/// Seconds for which clients may keep keys at most, however long we do: that long they refuse what a
/// new key has signed.
const KEYS_FRESH: i64 = 600;

/// Serves an endpoint, whole: it answers every method. `arrived` is head and body of the request.
pub(super) async fn serve(
    mount: &Mount,
    endpoint: Endpoint,
    snapshot: &Snapshot,
    arrived: (&Parts, Option<Received>),
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let started = Instant::now();
    let answer = match endpoint.check(&arrived.0.method) {
        Ok(()) => answer(mount, endpoint, snapshot, arrived, exchange.trace()).await,
        Err(error) => Err(error),
    };
    let Answer { response, outcome } = answer.unwrap_or_else(|error| {
        let (surface, endpoint) = (&mount.surface.name, endpoint.as_str());
        let status = error.status().as_u16();
        tracing::debug!(%surface, endpoint, status, cause = %error, "request refused");
        Answer {
            response: error.response(&mount.surface.realm),
            outcome: error.outcome(),
        }
    });
    let labels = [endpoint.as_str(), NO_GRANT, outcome.as_str()];
    oauth::count(&exchange, mount, labels, started);
    let response = mount.surface.errors.of(response);
    exchange.status(response.status());
    let id = exchange.request_id().clone();
    service::own(response, id.to_str().unwrap_or_default(), Some(exchange))
}

async fn answer(
    mount: &Mount,
    endpoint: Endpoint,
    snapshot: &Snapshot,
    (head, body): (&Parts, Option<Received>),
    trace: &Trace,
) -> Result<Answer, OAuthError> {
    let endpoints = || {
        let known = mount.provider.issuer.keys.endpoints();
        known.ok_or(OAuthError::IssuerUnknown)
    };
    // What can be refused without the issuer is, whether it is known or not.
    match endpoint {
        Endpoint::Authorize => {
            let request = authorize::Request::read(&mount.surface, head.uri.query())?;
            let known = endpoints()?;
            let at = known.authorization.as_ref();
            request.redirect(at.ok_or(OAuthError::NoSuchEndpoint)?)
        }
        Endpoint::Userinfo => {
            let mut credential = userinfo::credential(head)?;
            handles::swap(snapshot, mount, &mut credential).await?;
            examine::check_revocation(snapshot, mount, userinfo::token(&credential))?;
            let known = endpoints()?;
            let at = known.userinfo.as_ref();
            let issuer = UserinfoIssuer {
                outbound: mount.provider.outbound(),
                endpoint: at.ok_or(OAuthError::NoSuchEndpoint)?,
                trace,
            };
            userinfo::ask(issuer, credential).await
        }
        Endpoint::Revoke => {
            let body = oauth::collect(body, mount, snapshot).await?;
            let request = Request::read(head, &body)?;
            revoke::serve(mount, snapshot, request, trace).await
        }
        Endpoint::Introspect => {
            let body = oauth::collect(body, mount, snapshot).await?;
            let token = introspect::read(&mount.introspect_clients, head, &body)?;
            match handles::inside(snapshot, mount, token.expose()).await? {
                Some(token) => introspect::answer(examine::examine(snapshot, mount, &token).await),
                None => Ok(introspect::inactive()),
            }
        }
        Endpoint::Discovery => {
            let document = endpoints()?.document.clone();
            let document = document.ok_or(OAuthError::NoSuchEndpoint)?;
            Ok(Answer::document(document, DISCOVERY_FRESH))
        }
        Endpoint::Jwks => keys(mount, snapshot.clock.now()),
    }
}

/// The issuer's keys as they are known here: who asks for them in a hurry costs the issuer nothing.
fn keys(mount: &Mount, now: UnixSeconds) -> Result<Answer, OAuthError> {
    let provider = &mount.provider;
    if provider.source.opaque {
        return Err(OAuthError::NoSuchEndpoint);
    }
    let store = &provider.issuer.keys;
    let current = store.current(now);
    let Some(set) = current.as_ref().and_then(|set| set.as_ref()) else {
        store.demand();
        return Err(OAuthError::IssuerUnknown);
    };
    let fresh = set.fresh_until.saturating_sub(now).clamp(0, KEYS_FRESH);
    Ok(Answer::document(set.document(), fresh.unsigned_abs()))
}
