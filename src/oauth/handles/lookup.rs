//! From a handle to the token inside, and the end of a grant.

use super::family::Family;
use super::handle::{Digest, Handle, Kind};
use super::{Handles, id_of, renew};
use crate::identity::UnixSeconds;
use crate::oauth::client::TokenIssuer;
use crate::store::sealed::{RecordId, SealedError, Version};
use http::header::HeaderValue;
use std::fmt;
use std::sync::Arc;

/// The token that a handle stands for.
pub struct Exchanged {
    handle: Digest,
    token: Box<str>,
    authorization: HeaderValue,
    granted_until: UnixSeconds,
    good_until: UnixSeconds,
    /// From then on the gateway renews the token by itself, if it does.
    renew_from: Option<UnixSeconds>,
}

/// What a revocation has ended.
pub struct Revoked {
    /// The issuer's refresh token, to be revoked there as well.
    pub refresh_token: Option<Box<str>>,
    /// The token that was inside.
    pub token: Box<str>,
    /// It may be inside of other handles of the same client, which were not ended.
    pub is_shared: bool,
}

/// Why there is no token for a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It stands for nothing: revoked, replaced, forgotten, or lost with the store.
    Unknown,
    /// Its time is over.
    Expired,
    /// The store does not answer: nothing is known of it.
    Away,
}

// === impl Exchanged ===

impl Exchanged {
    /// Whether this is about that handle.
    #[must_use]
    pub fn is_for(&self, text: &str) -> bool {
        self.handle.is(&Digest::of(text))
    }

    /// The issuer's token. Goes to the issuer and to upstreams, never to a client.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// `Bearer` and the token; sensitive.
    #[must_use]
    pub fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    fn of(family: &Family, handle: &Handle) -> Option<Self> {
        let token = &family.granted.token;
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        authorization.set_sensitive(true);
        Some(Self {
            handle: handle.digest,
            token: token.clone(),
            authorization,
            granted_until: family.granted.until,
            good_until: family.good_until,
            renew_from: renew::from(family),
        })
    }
}

impl fmt::Debug for Exchanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchanged").finish_non_exhaustive()
    }
}

impl fmt::Debug for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revoked")
            .field("refresh_token", &self.refresh_token.is_some())
            .finish_non_exhaustive()
    }
}

// === impl Trouble ===

impl From<SealedError> for Trouble {
    fn from(error: SealedError) -> Self {
        match error {
            SealedError::Away | SealedError::Full => Self::Away,
            SealedError::Unreadable => Self::Unknown,
        }
    }
}

// === impl Handles ===

impl Handles {
    /// The token that a handle stands for. Renews it if it is time: in the background, or if it has
    /// run out, before this returns. `issuer` is whom to ask then.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub async fn exchange(
        &self,
        handle: &Handle,
        issuer: impl FnOnce() -> Option<TokenIssuer>,
    ) -> Result<Arc<Exchanged>, Trouble> {
        let found = self.find(handle).await?;
        let now = self.clock.now();
        let Some(from) = found.renew_from else {
            return Ok(found);
        };
        if now >= found.good_until {
            return Err(Trouble::Expired);
        }
        if now < from {
            return Ok(found);
        }
        let id = id_of(handle.family);
        let Some(issuer) = issuer() else {
            return Ok(found);
        };
        if now < found.granted_until {
            self.renew_soon(id, issuer);
            return Ok(found);
        }
        self.renew_now(id, issuer).await;
        self.find(handle).await
    }

    /// The token that an access handle stands for, as it is.
    async fn find(&self, handle: &Handle) -> Result<Arc<Exchanged>, Trouble> {
        if handle.kind != Kind::Access {
            return Err(Trouble::Unknown);
        }
        let id = id_of(handle.family);
        let recent = self.state.recent.get(&id);
        if let Some(recent) = recent.filter(|recent| recent.handle.is(&handle.digest)) {
            return Ok(recent);
        }
        let (family, _) = self.load(id).await?.ok_or(Trouble::Unknown)?;
        let exchanged = Exchanged::of(&family, handle).filter(|_| family.has(handle));
        let exchanged = Arc::new(exchanged.ok_or(Trouble::Unknown)?);
        self.state.recent.insert(id, Arc::clone(&exchanged));
        Ok(exchanged)
    }

    /// Ends a grant, if some text is one of its present handles and it is that client's: both handles
    /// are worth nothing from then on. `None` if there was nothing to end.
    ///
    /// # Errors
    /// [`Trouble::Away`]: it may have been ended or not.
    pub async fn revoke(&self, text: &str, client: &str) -> Result<Option<Revoked>, Trouble> {
        let Some(handle) = self.read(text) else {
            return Ok(None);
        };
        let id = id_of(handle.family);
        let found = self.load(id).await?;
        let Some((family, _)) = found.filter(|(it, _)| it.has(&handle) && *it.client == *client)
        else {
            return Ok(None);
        };
        self.end(id).await?;
        Ok(Some(Revoked {
            refresh_token: family.granted.refresh_token,
            token: family.granted.token,
            is_shared: family.is_shared,
        }))
    }

    pub(super) async fn end(&self, id: RecordId) -> Result<(), SealedError> {
        let ended = self.state.store.remove(id).await;
        self.state.recent.invalidate(&id);
        ended.map(|_| ())
    }

    /// The family as it is kept. One that cannot be read is none: told in the log, because only who
    /// has another key or has been at the store can have brought that about.
    pub(super) async fn load(&self, id: RecordId) -> Result<Option<(Family, Version)>, Trouble> {
        let surface = &self.surface;
        let record = match self.state.store.get(id, self.clock.now()).await {
            Err(SealedError::Unreadable) => {
                tracing::warn!(%surface, "a record of a handle cannot be opened: it was sealed with another [store] encryption_key_file, or somebody has changed it");
                None
            }
            record => record?,
        };
        Ok(record.and_then(|record| {
            let family = Family::read(&record.content);
            if family.is_none() {
                tracing::warn!(%surface, "a record of a handle was written by another version of the gateway and cannot be read");
            }
            Some((family?, record.version))
        }))
    }
}
