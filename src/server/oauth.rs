//! The rim of the OAuth surface: collects a body under its limit and deadline, asks
//! [`crate::oauth`], and counts the outcome.

use super::{fresh, service};
use crate::oauth::{self, OAuthError, Outcome, TokenIssuer, TokenReply};
use crate::proxy::ResponseBody;
use crate::request::Peer;
use crate::snapshot::{Mount, Snapshot};
use crate::telemetry::exchange::Exchange;
use crate::telemetry::trace::Trace;
use crate::upstream::Received;
use bytes::Bytes;
use http::Response;
use http::request::Parts;
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// Serves `POST {prefix}/token`.
pub(super) async fn token(
    mount: &Mount,
    snapshot: &Arc<Snapshot>,
    head: &Parts,
    peer: Peer,
    body: Option<Received>,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let started = Instant::now();
    let reply = match collect(body, mount, snapshot).await {
        Ok(body) => {
            let told = mount.surface.forward_client_address;
            let client = told.then(|| snapshot.trusted.client(peer, &head.headers));
            let trace = *exchange.trace();
            ask(mount, snapshot, (head, body), trace, client.flatten()).await
        }
        Err(error) => refused(error, &mount.surface.realm),
    };
    let TokenReply {
        response,
        grant,
        outcome,
    } = reply;
    count(&exchange, mount, ["token", grant, outcome], started);
    if outcome == Outcome::Issued.as_str() {
        fresh::follow(snapshot, mount, response.body().clone());
    }
    let response = mount.surface.errors.of_token(response);
    exchange.status(response.status());
    let id = exchange.request_id().clone();
    service::own(response, id.to_str().unwrap_or_default(), Some(exchange))
}

/// Counts a request: its endpoint, its grant, and how it ended.
pub(super) fn count(
    exchange: &Exchange,
    mount: &Mount,
    [endpoint, grant, outcome]: [&str; 3],
    started: Instant,
) {
    let metrics = exchange.metrics();
    let surface = &*mount.surface.name;
    metrics
        .oauth_requests_total
        .with_label_values(&[surface, endpoint, grant, outcome])
        .inc();
    metrics
        .oauth_request_duration_seconds
        .with_label_values(&[surface, endpoint])
        .observe(started.elapsed().as_secs_f64());
}

async fn ask(
    mount: &Mount,
    snapshot: &Snapshot,
    (head, body): (&Parts, Bytes),
    trace: Trace,
    client: Option<IpAddr>,
) -> TokenReply {
    let Some(issuer) = issuer(mount, snapshot, trace, client) else {
        let realm = &mount.surface.realm;
        tracing::warn!(surface = %mount.surface.name, "the issuer's token endpoint is not known yet");
        return refused(OAuthError::IssuerUnknown, realm);
    };
    oauth::token(&mount.surface, &issuer, head, body).await
}

/// Whom a surface asks for tokens. `None` before the issuer's token endpoint is known.
pub(super) fn issuer(
    mount: &Mount,
    snapshot: &Snapshot,
    trace: Trace,
    client: Option<IpAddr>,
) -> Option<TokenIssuer> {
    let endpoints = mount.provider.issuer.keys.endpoints();
    Some(TokenIssuer {
        outbound: mount.provider.outbound().clone(),
        token_endpoint: endpoints?.token.clone()?,
        trace,
        client,
        quotas: mount.quotas.clone(),
        store: Arc::clone(snapshot.tokens.store()),
        keys: Arc::clone(&mount.provider.issuer.keys),
        reuse: mount.reuse.clone(),
        refresh: mount.refresh.clone(),
        handles: mount.handles.clone(),
    })
}

/// A refusal from before the grant is known.
fn refused(error: OAuthError, realm: &str) -> TokenReply {
    TokenReply {
        response: error.response(realm),
        grant: oauth::grant::UNKNOWN_GRANT,
        outcome: error.outcome().as_str(),
    }
}

/// Reads the body of a request under the surface's limit.
///
/// # Errors
///
/// Why it could not be read.
pub(super) async fn collect(
    body: Option<Received>,
    mount: &Mount,
    snapshot: &Snapshot,
) -> Result<Bytes, OAuthError> {
    let Some(body) = body else {
        return Ok(Bytes::new());
    };
    let max = mount.surface.max_body;
    // What is announced to be too large need not come.
    if body.size_hint().lower() > max {
        return Err(OAuthError::BodyTooLarge);
    }
    let patience = snapshot.limits.body_timeout;
    let limit = usize::try_from(max).unwrap_or(usize::MAX);
    match pingora_timeout::timeout(patience, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(OAuthError::BodyTooLarge),
        Ok(Err(_)) => Err(OAuthError::BodyBroken),
        Err(_) => Err(OAuthError::BodyTooSlow),
    }
}
