//! The rim of `POST {prefix}/revoke`: what this gateway keeps ends first, then the issuer is asked.
//!
//! ```text
//! request ─► examine ─► another client's: refused
//!               │ good here         │ unknown, or denied before
//!               ▼                   │
//!        denylist (all gateways)    │
//!               └───────┬───────────┘        a handle: its grant, the token inside, the issuer's
//!                 forget what is kept of it ─► the issuer, once ─► answer
//! ```

use super::examine::examine;
use crate::authn::token::{self, UnverifiedToken};
use crate::identity::UnixSeconds;
use crate::oauth::handles;
use crate::oauth::revoke::{self, Request, Standing};
use crate::oauth::{Answer, OAuthError};
use crate::outbound::Reply;
use crate::snapshot::{Mount, Snapshot};
use crate::store::Revocation;
use crate::telemetry::trace::Trace;
use http::{HeaderMap, StatusCode};

/// Largest answer of the issuer that is read, in bytes.
const MAX_REPLY: usize = 64 * 1024;

/// How long the end of a token is remembered that does not say when it expires, in seconds: longer
/// than anybody remembers that it was good.
const KEPT: UnixSeconds = 30 * 24 * 3600;

/// Ends a token: here, then at the issuer.
///
/// # Errors
///
/// What refuses the request before the issuer is asked.
pub(super) async fn serve(
    mount: &Mount,
    snapshot: &Snapshot,
    request: Request,
    trace: &Trace,
) -> Result<Answer, OAuthError> {
    if !snapshot.opaque.is_empty() && handles::is_meant(request.token()) {
        return end_grant(mount, snapshot, request, trace).await;
    }
    let verdict = examine(snapshot, mount, request.token()).await;
    let standing = request.standing(verdict)?;
    let denied = match standing {
        Standing::Over => return Ok(revoke::done(&HeaderMap::new())),
        Standing::Good(expires_at) => {
            let kept = deny(mount, snapshot, request.token(), expires_at).await;
            // It holds here whether others have heard of it or not.
            forget(snapshot, request.token());
            kept?;
            true
        }
        Standing::Denied => true,
        Standing::Unknown => false,
    };
    forget(snapshot, request.token());
    // Others may ask an issuer of opaque tokens about this one, so it has to know as well.
    let ended = denied && !mount.provider.source.opaque;
    let asked = ask(mount, request, trace).await;
    Ok(revoke::answer(ended, asked, &mount.surface.realm))
}

/// Ends what a handle stands for: both handles of its grant, the token inside, and at the issuer the
/// refresh token. A handle itself goes nowhere, and that of another client or surface is none here.
async fn end_grant(
    mount: &Mount,
    snapshot: &Snapshot,
    request: Request,
    trace: &Trace,
) -> Result<Answer, OAuthError> {
    let nothing = || Ok(revoke::done(&HeaderMap::new()));
    let Some(own) = &mount.handles else {
        return nothing();
    };
    let ended = own.revoke(request.token(), request.client()).await;
    let Some(ended) = ended.map_err(|_| OAuthError::StoreUnavailable)? else {
        return nothing();
    };
    let denied = match ended.is_shared {
        true => Ok(()),
        false => deny_inside(mount, snapshot, &ended.token).await,
    };
    let Some(refresh_token) = ended.refresh_token else {
        return denied.and_then(|()| nothing());
    };
    // Whatever came of that: nobody knows the issuer's refresh token any more who could end it later.
    let asked = ask(mount, request.about(&refresh_token), trace).await;
    denied?;
    Ok(revoke::answer(true, asked, &mount.surface.realm))
}

/// Denies the token that a handle stood for, unless nobody gets in with it anyway.
async fn deny_inside(mount: &Mount, snapshot: &Snapshot, token: &str) -> Result<(), OAuthError> {
    let refused = examine(snapshot, mount, token).await.err();
    match refused.map(|rejection| rejection.reason.status()) {
        Some(StatusCode::UNAUTHORIZED) => Ok(()),
        // One that cannot be judged at the moment may be good in the next.
        Some(_) | None => deny(mount, snapshot, token, None).await,
    }
}

/// Has every gateway refuse the token from now on, until nobody would accept it any more.
async fn deny(
    mount: &Mount,
    snapshot: &Snapshot,
    token: &str,
    expires_at: Option<UnixSeconds>,
) -> Result<(), OAuthError> {
    let now = snapshot.clock.now();
    // What a JWT says of its end is true if it is not good yet: its signature was.
    let written = || UnverifiedToken::parse(token).ok()?.expires_at();
    let leeway = mount.provider.issuer.rules.leeway;
    let end = |at: UnixSeconds| at.saturating_add(leeway).saturating_add(1);
    let until = expires_at.or_else(written).map(end);
    let revocation = Revocation::Token {
        content: token::content(token),
        until: until.unwrap_or(now.saturating_add(KEPT)),
    };
    let kept = snapshot.tokens.store().revoke(revocation, now).await;
    kept.map(drop).map_err(|cause| {
        tracing::error!(surface = %mount.surface.name, %cause, "a token could not be revoked");
        OAuthError::NotKept
    })
}

/// Takes a token that has ended out of everything that this gateway would give somebody again. Called
/// with each token that is to end, of any kind, before its issuer is asked and its end acknowledged.
fn forget(snapshot: &Snapshot, token: &str) {
    let content = token::content(token);
    for reuse in &snapshot.reuse {
        reuse.forget(&content);
    }
    for refresh in &snapshot.refresh {
        refresh.forget(&content);
    }
}

/// Asks the issuer, once: it is the client's to ask again. Logs if it fails: the client may be told
/// that all is well.
async fn ask(mount: &Mount, request: Request, trace: &Trace) -> Result<Reply, OAuthError> {
    let surface = &mount.surface.name;
    let known = mount.provider.issuer.keys.endpoints();
    let known = known.ok_or(OAuthError::IssuerUnknown)?;
    let endpoint = known.revocation.as_ref();
    let endpoint = endpoint.ok_or(OAuthError::UnsupportedTokenType)?;
    let (mut headers, form) = request.into_form();
    trace.tell(&mut headers);
    let outbound = mount.provider.outbound();
    let asked = outbound.post_form(endpoint, headers, form, MAX_REPLY).await;
    match &asked {
        Ok(reply) if reply.status.is_success() || reply.status.is_client_error() => {}
        Ok(reply) => {
            let status = reply.status.as_u16();
            tracing::warn!(%surface, status, "the revocation endpoint failed");
        }
        Err(cause) => tracing::warn!(%surface, %cause, "the revocation endpoint failed"),
    }
    asked.map_err(|cause| OAuthError::from(&cause))
}
