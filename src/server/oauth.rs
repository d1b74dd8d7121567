//! The rim of the OAuth surface: collects a body under its limit and deadline, asks
//! [`crate::oauth`], and counts the outcome.

use super::service;
use crate::oauth::{self, OAuthError, Surface, TokenIssuer, TokenReply};
use crate::proxy::ResponseBody;
use crate::request::Peer;
use crate::snapshot::{Mount, Snapshot};
use crate::telemetry::exchange::Exchange;
use crate::telemetry::trace::Trace;
use crate::upstream::Received;
use bytes::Bytes;
use http::Response;
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Serves `POST {prefix}/token`.
pub(super) async fn token(
    mount: &Mount,
    snapshot: &Snapshot,
    head: &Parts,
    peer: Peer,
    body: Option<Received>,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let started = Instant::now();
    let reply = match collect(body, &mount.surface, snapshot.limits.body_timeout).await {
        Ok(body) => {
            let told = mount.surface.forward_client_address;
            let client = told.then(|| snapshot.trusted.client(peer, &head.headers));
            ask(mount, head, body, *exchange.trace(), client.flatten()).await
        }
        Err(Unread::TooLarge) => refused(OAuthError::BodyTooLarge, &mount.surface.realm),
        Err(Unread::TooSlow) => refused(OAuthError::BodyTooSlow, &mount.surface.realm),
        Err(Unread::Broken) => refused(OAuthError::BodyBroken, &mount.surface.realm),
    };
    let TokenReply {
        response,
        grant,
        outcome,
    } = reply;
    count(&exchange, mount, ["token", grant, outcome], started);
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
    head: &Parts,
    body: Bytes,
    trace: Trace,
    client: Option<IpAddr>,
) -> TokenReply {
    let Some(issuer) = issuer(mount, trace, client) else {
        let realm = &mount.surface.realm;
        tracing::warn!(surface = %mount.surface.name, "the issuer's token endpoint is not known yet");
        return refused(OAuthError::IssuerUnknown, realm);
    };
    oauth::token(&mount.surface, &issuer, head, body).await
}

/// Whom a surface asks for tokens. `None` before the issuer's token endpoint is known.
pub(super) fn issuer(mount: &Mount, trace: Trace, client: Option<IpAddr>) -> Option<TokenIssuer> {
    let endpoints = mount.provider.issuer.keys.endpoints();
    Some(TokenIssuer {
        outbound: mount.provider.outbound().clone(),
        token_endpoint: endpoints?.token.clone()?,
        trace,
        client,
        quotas: mount.quotas.clone(),
        keys: Arc::clone(&mount.provider.issuer.keys),
        reuse: mount.reuse.clone(),
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

/// Why a body could not be read.
enum Unread {
    TooLarge,
    TooSlow,
    Broken,
}

async fn collect(
    body: Option<Received>,
    surface: &Surface,
    patience: Duration,
) -> Result<Bytes, Unread> {
    let Some(body) = body else {
        return Ok(Bytes::new());
    };
    let limit = usize::try_from(surface.max_body).unwrap_or(usize::MAX);
    match pingora_timeout::timeout(patience, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Unread::TooLarge),
        Ok(Err(_)) => Err(Unread::Broken),
        Err(_) => Err(Unread::TooSlow),
    }
}
