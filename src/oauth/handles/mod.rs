//! Handles in place of tokens: `tokens = "opaque"` of a surface. Clients hold random text; the issuer's
//! tokens stay inside, sealed, in the memory of the gateway or in Redis.
//!
//! ```text
//! token request ─► issuer ─► family: tokens, digests of handles ─► sealed store
//!                               │                                     ▲
//! client ◄── handles ◄──────────┘       request with a handle ────────┴─► the token inside, judged as ever
//! ```
//!
//! All that descends from one grant is one record, a *family*: it is renewed and revoked in one step.
//! Each handle carries the family's name, so that one look-up finds it, and the record says which handle
//! of each kind is good now. See [`handle`] for what a handle is made of, `refresh` for how one grant
//! follows another, `renew` for how the gateway renews a token by itself.

mod family;
mod granted;
pub mod handle;
mod lookup;
mod refresh;
mod renew;
mod state;

pub use handle::{Handle, Kind, is_meant, is_within};
pub use lookup::{Exchanged, Revoked, Trouble};
pub use state::Home;

use self::family::{Family, Renewal};
use self::granted::{Granted, Pair};
use self::handle::{FamilyName, NewHandle};
use self::state::State;
use super::client::TokenIssuer;
use super::errors::{OAuthError, forbid_storing};
use super::grant::Grant;
use super::reply::Outcome;
use super::reuse::is_plain;
use super::token::{Answer, Forward, ask};
use crate::identity::{Clock, UnixSeconds};
use crate::store::sealed::{Life, RecordId, SealedError};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde_json::Value;
use std::fmt;
use std::io;
use std::sync::Arc;

/// A record outlives its handle by so many seconds: its holder reads that it has expired, not that
/// nobody knows it.
const REMEMBERED: UnixSeconds = 60;

/// A proof of possession is for the token that the client holds, and it holds none.
const DPOP: HeaderName = HeaderName::from_static("dpop");

/// How long handles are good and how many there are: `[oauth.*.handles]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Seconds for which an access handle is good, if that is longer than its token is.
    pub lifetime: UnixSeconds,
    /// Seconds for which a refresh handle is good.
    pub refresh_lifetime: UnixSeconds,
    /// Grants in memory at most.
    pub max_entries: usize,
}

/// The handles of one surface.
#[derive(Clone)]
pub struct Handles {
    surface: Arc<str>,
    settings: Settings,
    clock: Clock,
    state: Arc<State>,
}

impl From<SealedError> for OAuthError {
    fn from(error: SealedError) -> Self {
        match error {
            SealedError::Away | SealedError::Unreadable => Self::StoreUnavailable,
            SealedError::Full => Self::StoreFull,
        }
    }
}

// === impl Handles ===

impl fmt::Debug for Handles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handles")
            .field("surface", &self.surface)
            .field("settings", &self.settings)
            .field("store", &self.state.store)
            .finish_non_exhaustive()
    }
}

impl Handles {
    /// The surface that gives them out.
    #[must_use]
    pub fn surface(&self) -> &str {
        &self.surface
    }

    /// Reads a handle. `None` if this surface has not given it out.
    #[must_use]
    pub fn read(&self, text: &str) -> Option<Handle> {
        Handle::read(text, &self.state.tags)
    }

    /// Answers a token request: as the issuer does, with handles in place of its tokens.
    pub(super) async fn answer(&self, issuer: &TokenIssuer, forward: &Forward) -> Answer {
        let mut forward = forward.clone();
        forward.headers.remove(DPOP);
        let client = forward.auth.client_id(&forward.params);
        let client = client.ok_or(OAuthError::MissingParameter("client_id"))?;
        if forward.grant == Grant::RefreshToken {
            return self.refresh(issuer, forward, client.into()).await;
        }
        // A code is good once: better not sent at all than exchanged for what cannot be kept.
        let (limit, since) = (self.settings.max_entries, self.clock.now());
        self.state.store.ready(limit, since)?;
        let answer = match &issuer.reuse {
            Some(reuse) => reuse.answer(issuer, &forward).await,
            None => {
                let form = forward.params.to_form();
                let headers = forward.headers.clone();
                ask(&self.surface, forward.grant, issuer, headers, form).await
            }
        };
        let (response, outcome) = answer?;
        if !response.status().is_success() {
            return Ok((response, outcome));
        }
        let granted = self.granted(&response, since)?;
        let is_shared = issuer.reuse.is_some() && is_plain(&forward);
        let client = client.into();
        let body = self.begin(granted, &forward, client, is_shared).await?;
        Ok((with_body(response, body), outcome))
    }

    /// Begins a family. Returns the body of the reply.
    async fn begin(
        &self,
        granted: Granted,
        forward: &Forward,
        client: Box<str>,
        is_shared: bool,
    ) -> Result<String, OAuthError> {
        let no_random = |_| OAuthError::StoreUnavailable;
        let name = FamilyName::new().map_err(no_random)?;
        let pair = self.pair(name, &granted).map_err(no_random)?;
        let renewal = Renewal::of(forward).filter(|_| self.outlives(&granted));
        let family = Family {
            is_shared,
            ..self.family(client, granted, &pair, renewal)
        };
        let now = self.clock.now();
        let body = family
            .granted
            .reply(&pair, family.good_until.saturating_sub(now));
        let (limit, life) = (self.settings.max_entries, self.life(&family, now));
        self.state
            .store
            .put(id_of(name), &family.write(), life, limit)
            .await?;
        Ok(body)
    }

    fn granted(
        &self,
        response: &Response<Bytes>,
        since: UnixSeconds,
    ) -> Result<Granted, OAuthError> {
        Granted::read(response.body(), since).ok_or_else(|| {
            let surface = &self.surface;
            tracing::warn!(%surface, "the issuer's reply is no bearer token with an end; no handle stands for it");
            OAuthError::IssuerReplyUnusable
        })
    }

    fn pair(&self, name: FamilyName, granted: &Granted) -> io::Result<Pair> {
        let new = |kind| NewHandle::new(kind, name, &self.state.tags);
        let refresh = granted.refresh_token.as_ref();
        Ok(Pair {
            access: new(Kind::Access)?,
            refresh: refresh.map(|_| new(Kind::Refresh)).transpose()?,
        })
    }

    fn family(
        &self,
        client: Box<str>,
        granted: Granted,
        pair: &Pair,
        renewal: Option<Renewal>,
    ) -> Family {
        let good_until = match renewal {
            Some(_) => granted.since.saturating_add(self.settings.lifetime),
            None => granted.until,
        };
        Family {
            client,
            good_until,
            refresh_until: granted.since.saturating_add(self.settings.refresh_lifetime),
            is_shared: false,
            access: pair.access.digest,
            refresh: pair.refresh.as_ref().map(|refresh| refresh.digest),
            claim: None,
            renewal,
            granted,
        }
    }

    /// Whether the handle is to outlive its token, and can.
    fn outlives(&self, granted: &Granted) -> bool {
        granted.refresh_token.is_some()
            && granted.since.saturating_add(self.settings.lifetime) > granted.until
    }

    /// How long a family is kept.
    fn life(&self, family: &Family, now: UnixSeconds) -> Life {
        let access = family
            .good_until
            .saturating_sub(now)
            .saturating_add(REMEMBERED);
        let left = family.refresh_until.saturating_sub(now);
        let refresh = family.refresh.map(|_| left);
        let seconds = access.max(refresh.unwrap_or(0));
        Life { now, seconds }
    }
}

fn id_of(name: FamilyName) -> RecordId {
    RecordId::of("family", name.bytes())
}

/// The issuer's answer with another body.
fn with_body(mut response: Response<Bytes>, body: String) -> Response<Bytes> {
    *response.body_mut() = body.into();
    response
}

/// The issuer's refusal, unless it quotes the refresh token, which its client is never to see.
fn unquoted(answer: Answer, token: Option<&str>) -> Answer {
    let (Ok((response, _)), Some(token)) = (&answer, token) else {
        return answer;
    };
    let quotes = |text: &[u8]| memchr::memmem::find(text, token.as_bytes()).is_some();
    let body = response.body();
    // The same with its escapes undone.
    let plain = serde_json::from_slice::<Value>(body).map(|body| body.to_string());
    let mut headers = response.headers().values();
    if quotes(body)
        || plain.is_ok_and(|plain| quotes(plain.as_bytes()))
        || headers.any(|value| quotes(value.as_bytes()))
    {
        return Err(OAuthError::InvalidGrant);
    }
    answer
}

/// A reply of our own, for who is given once more what somebody else was given.
fn given_again(body: &str) -> (Response<Bytes>, Outcome) {
    let mut response = Response::new(Bytes::copy_from_slice(body.as_bytes()));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    forbid_storing(headers);
    (response, Outcome::Reused)
}
