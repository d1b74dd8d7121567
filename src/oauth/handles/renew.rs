//! The gateway renews a token by itself: `lifetime` of `[oauth.*.handles]`. Handles stay as they are.

use super::Handles;
use super::family::{Family, Renewal};
use crate::identity::UnixSeconds;
use crate::oauth::client::TokenIssuer;
use crate::oauth::errors::OAuthError;
use crate::oauth::form::Params;
use crate::oauth::grant::Grant;
use crate::oauth::token::ask;
use crate::store::sealed::{RecordId, Version};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use std::time::Duration;

/// Between two tries to renew one token, of one gateway.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Of its life, the part that a token may have left when it is renewed.
const LEFT: UnixSeconds = 5;

/// Seconds until the next try at least.
const LATER: UnixSeconds = 5;

/// Between two looks whether somebody else is done.
const POLL: Duration = Duration::from_millis(50);

/// From when on a token is renewed; `None`: never.
pub(super) fn from(family: &Family) -> Option<UnixSeconds> {
    let renewal = family.renewal.as_ref()?;
    let granted = &family.granted;
    let life = granted.until.saturating_sub(granted.since).max(0);
    let from = granted.until.saturating_sub(life / LEFT);
    Some(from.max(renewal.not_before))
}

/// What a try to renew has come to.
enum Tried {
    /// There is nothing to do, or not any more.
    Done,
    /// Somebody else is doing something with the family.
    Busy,
}

// === impl Handles ===

impl Handles {
    /// Renews in the background. Does nothing if that was tried a moment ago.
    pub(super) fn renew_soon(&self, id: RecordId, issuer: TokenIssuer) {
        let entry = self.state.renewing.entry(id).or_insert(());
        if entry.is_fresh() {
            let handles = self.clone();
            tokio::spawn(async move { handles.try_to_renew(id, &issuer).await });
        }
    }

    /// Renews, and returns when that is done, or nothing can be done.
    pub(super) async fn renew_now(&self, id: RecordId, issuer: TokenIssuer) {
        let patience = issuer.outbound.timeout();
        let renewing = async {
            loop {
                let (handles, issuer) = (self.clone(), issuer.clone());
                // It goes on if the request ends: what is sent cannot be taken back. Who only waits does not.
                let trying = async move { handles.try_to_renew(id, &issuer).await };
                match tokio::spawn(trying).await {
                    Ok(Tried::Busy) => tokio::time::sleep(POLL).await,
                    Ok(Tried::Done) | Err(_) => break,
                }
            }
        };
        let _ = tokio::time::timeout(patience, renewing).await;
        self.state.recent.invalidate(&id);
    }

    async fn try_to_renew(&self, id: RecordId, issuer: &TokenIssuer) -> Tried {
        let now = self.clock.now();
        let Ok(Some((mut family, version))) = self.load(id).await else {
            return Tried::Done;
        };
        let is_due = from(&family).is_some_and(|from| now >= from) && now < family.good_until;
        if !is_due {
            return Tried::Done;
        }
        if family.claim(now).is_some() {
            return Tried::Busy;
        }
        if family.claim.take().is_some() {
            // Whose it was is gone, and may have sent the refresh token.
            self.give_up(&mut family);
            let _ = self.settle(id, &family, version).await;
            return Tried::Done;
        }
        match self.claim(id, (family, version), issuer, true).await {
            Ok(Some((family, version))) => {
                self.renew(id, *family, version, issuer).await;
                Tried::Done
            }
            Ok(None) => Tried::Busy,
            Err(_) => Tried::Done,
        }
    }

    async fn renew(
        &self,
        id: RecordId,
        mut family: Family,
        version: Version,
        issuer: &TokenIssuer,
    ) {
        let since = self.clock.now();
        let Some((headers, form)) = request(&family) else {
            return;
        };
        let answer = ask(&self.surface, Grant::RefreshToken, issuer, headers, form).await;
        family.claim = None;
        let granted = match &answer {
            Ok((response, _)) if response.status().is_success() => {
                self.granted(response, since).ok()
            }
            Ok(_) | Err(_) => None,
        };
        match granted {
            Some(granted) => family.granted = granted.or(&family.granted),
            None if may_try_again(&answer) => {}
            None => self.give_up(&mut family),
        }
        // After a token too that has ended already by our clock.
        if let Some(renewal) = &mut family.renewal {
            renewal.not_before = since.saturating_add(LATER);
        }
        if let Err(trouble) = self.settle(id, &family, version).await {
            let surface = &self.surface;
            tracing::warn!(%surface, ?trouble, "the outcome of a renewal could not be written down");
        }
    }

    /// The refresh token may be spent, so it is not sent again on our own account. The client can
    /// still ask for a refresh itself.
    pub(super) fn give_up(&self, family: &mut Family) {
        if family.renewal.take().is_some() {
            family.good_until = family.granted.until;
            let surface = &self.surface;
            tracing::warn!(%surface, "a token cannot be renewed ahead any more; its handle ends with it");
        }
    }
}

/// Whether the issuer may have used the refresh token and what it gave for it is lost. A refusal is none of
/// that: it says what the client did wrong.
pub(super) fn may_be_spent(answer: &Result<(Response<Bytes>, super::Outcome), OAuthError>) -> bool {
    let refused = matches!(answer, Ok((response, _)) if response.status().is_client_error());
    !refused && !may_try_again(answer)
}

/// Whether the issuer has certainly not used the refresh token.
fn may_try_again(answer: &Result<(Response<Bytes>, super::Outcome), OAuthError>) -> bool {
    match answer {
        Ok((response, _)) => matches!(
            response.status(),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ),
        Err(error) => matches!(error, OAuthError::IssuerUnreachable),
    }
}

/// The request as the client would make it.
fn request(family: &Family) -> Option<(HeaderMap, Bytes)> {
    let token = family.granted.refresh_token.as_deref()?;
    let Renewal {
        authorization,
        params,
        ..
    } = family.renewal.as_ref()?;
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(authorization) = authorization {
        let mut value = HeaderValue::from_str(authorization).ok()?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let own = [("grant_type", "refresh_token"), ("refresh_token", token)];
    let kept = params.iter().map(|(name, value)| (&**name, &**value));
    let form = Params::of_pairs(own.into_iter().chain(kept)).to_form();
    Some((headers, form))
}
