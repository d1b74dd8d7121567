//! From the handle that a client shows to the token inside: what the decision, and the userinfo endpoint,
//! have looked up.

use super::decision::Counting;
use super::oauth;
use crate::oauth::handles::{self, Exchanged, Handle, Trouble};
use crate::oauth::{OAuthError, TokenIssuer};
use crate::rejection::{Reason, Rejection};
use crate::snapshot::{Mount, Snapshot};
use crate::telemetry::trace::Trace;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::borrow::Cow;
use std::sync::Arc;

/// Looks up what a handle stands for, for a route. Renews it if it is time, for a request that counts.
pub(super) async fn exchange(
    snapshot: &Snapshot,
    mount: &Mount,
    handle: &Handle,
    counting: Counting,
) -> Result<Arc<Exchanged>, Rejection> {
    // Who only asks about a request may end before a renewal does, and what the issuer gave would be lost.
    let issuer = || match counting {
        Counting::On => issuer(snapshot, mount),
        Counting::Off => None,
    };
    let found = match &mount.handles {
        Some(own) => own.exchange(handle, issuer).await,
        None => Err(Trouble::Unknown),
    };
    let trouble = match found {
        Ok(exchanged) => return Ok(exchanged),
        Err(trouble) => trouble,
    };
    let (reason, note) = match trouble {
        Trouble::Unknown => (
            Reason::InactiveToken,
            "the handle stands for nothing: revoked, replaced, or lost with the store; without [store] only the gateway that gave it out knows it",
        ),
        Trouble::Expired => (Reason::Expired, "the handle's lifetime is over"),
        Trouble::Away => (
            Reason::StoreUnavailable,
            "what handles are kept in does not answer",
        ),
    };
    mount.provider.issuer.metrics.refused(&reason);
    Err(Rejection::noted(reason, note))
}

/// Puts the token in place of a handle, for the issuer's userinfo endpoint. A handle goes nowhere, not
/// even to the issuer.
pub(super) async fn swap(
    snapshot: &Snapshot,
    mount: &Mount,
    credential: &mut HeaderMap,
) -> Result<(), OAuthError> {
    let value = credential.get(AUTHORIZATION);
    let text = value.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let Some(text) = text.filter(|text| !snapshot.opaque.is_empty() && handles::is_meant(text))
    else {
        return Ok(());
    };
    let own = mount.handles.as_ref();
    let handle = own.and_then(|own| own.read(text));
    let handle = handle.ok_or(OAuthError::InvalidToken)?;
    let exchanged = look_up(snapshot, mount, &handle)
        .await
        .map_err(|trouble| match trouble {
            Trouble::Unknown | Trouble::Expired => OAuthError::InvalidToken,
            Trouble::Away => OAuthError::StoreUnavailable,
        })?;
    credential.insert(AUTHORIZATION, exchanged.authorization().clone());
    Ok(())
}

/// What an introspection is to be about: the token inside, where some text is an access handle of this
/// surface; the text itself where it is none; nothing where it is a handle that stands for nothing here.
pub(super) async fn inside<'t>(
    snapshot: &Snapshot,
    mount: &Mount,
    text: &'t str,
) -> Result<Option<Cow<'t, str>>, OAuthError> {
    if snapshot.opaque.is_empty() || !handles::is_meant(text) {
        return Ok(Some(Cow::Borrowed(text)));
    }
    let own = mount.handles.as_ref();
    let Some(handle) = own.and_then(|own| own.read(text)) else {
        return Ok(None);
    };
    match look_up(snapshot, mount, &handle).await {
        Ok(exchanged) => Ok(Some(Cow::Owned(exchanged.token().to_owned()))),
        Err(Trouble::Unknown | Trouble::Expired) => Ok(None),
        Err(Trouble::Away) => Err(OAuthError::NotJudged),
    }
}

async fn look_up(
    snapshot: &Snapshot,
    mount: &Mount,
    handle: &Handle,
) -> Result<Arc<Exchanged>, Trouble> {
    let own = mount.handles.as_ref().ok_or(Trouble::Unknown)?;
    own.exchange(handle, || issuer(snapshot, mount)).await
}

/// Whom the gateway asks on its own account.
fn issuer(snapshot: &Snapshot, mount: &Mount) -> Option<TokenIssuer> {
    let trace = Trace::of(&HeaderMap::new(), false, 0.0);
    oauth::issuer(mount, snapshot, trace, None)
}
