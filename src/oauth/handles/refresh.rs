//! The refresh grant: one handle of each kind for another, and one token of the issuer for another, in
//! one step.
//!
//! ```text
//! present handle? ─► claim ─► issuer, once ─► answer kept for a moment ─► family replaced
//!      │ no               └ somebody else has it ─► wait for what comes of that
//!      ▼
//! exchanged a moment ago by the same client? ─► the same answer, else the grant is ended
//! ```
//!
//! The claim is written to the store before anything is sent: of all gateways one sends the issuer's
//! refresh token, because an issuer that sees it twice ends the whole grant (RFC 9700 §4.14.2).

use super::family::{Claim, Family, Renewal, Repeatable};
use super::granted::Granted;
use super::handle::{Digest, Handle, Kind};
use super::{Handles, Trouble, given_again, id_of, renew, unquoted, with_body};
use crate::identity::UnixSeconds;
use crate::oauth::client::TokenIssuer;
use crate::oauth::client_auth::ClientAuth;
use crate::oauth::errors::OAuthError;
use crate::oauth::reply::Outcome;
use crate::oauth::token::{Answer, Forward, ask};
use crate::store::sealed::{Life, RecordId, SealedError, Version};
use bytes::Bytes;
use http::Response;
use std::time::Duration;

/// How long equal requests get one answer, in whole seconds of the clock.
const REPEATED_FOR: UnixSeconds = 2;

/// Between two looks whether somebody else is done.
const POLL: Duration = Duration::from_millis(50);

/// What a claim lasts beyond the time that the issuer has for its answer: for writing that down.
const WRITING: UnixSeconds = 6;

/// How often it is tried to write down what the issuer has granted, and the time between. Nothing else
/// brings it back.
const ATTEMPTS: u32 = 6;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(300);

/// A refresh on its way. It goes on if its client leaves: what is sent cannot be taken back.
struct Errand {
    handles: Handles,
    issuer: TokenIssuer,
    forward: Forward,
    client: Box<str>,
    handle: Handle,
    id: RecordId,
}

/// What a request for a refresh comes to before the issuer is asked.
enum Turn {
    /// It is its turn: the family as it was claimed.
    Own(Box<Family>, Version),
    /// It is answered already.
    Answered(Response<Bytes>),
}

impl From<Trouble> for OAuthError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Away => Self::StoreUnavailable,
            Trouble::Unknown | Trouble::Expired => Self::InvalidGrant,
        }
    }
}

// === impl Handles ===

impl Handles {
    /// Answers a refresh.
    pub(super) async fn refresh(
        &self,
        issuer: &TokenIssuer,
        forward: Forward,
        client: Box<str>,
    ) -> Answer {
        let given = forward.params.get("refresh_token");
        let handle = given
            .and_then(|given| self.read(given.expose()))
            .filter(|handle| handle.kind == Kind::Refresh)
            .ok_or(OAuthError::InvalidGrant)?;
        let errand = Errand {
            handles: self.clone(),
            issuer: issuer.clone(),
            forward,
            client,
            id: id_of(handle.family),
            handle,
        };
        // Only if its worker ends, or it panics, has it no outcome.
        let done = tokio::spawn(errand.run()).await;
        done.unwrap_or(Err(OAuthError::IssuerCut))
    }

    /// Takes the right to send the issuer's refresh token. `None` if somebody was faster. Whose claim is there still
    /// is gone and may have sent it, so the gateway does not do so by itself any more.
    pub(super) async fn claim(
        &self,
        id: RecordId,
        (mut family, version): (Family, Version),
        issuer: &TokenIssuer,
        is_renewal: bool,
    ) -> Result<Option<(Box<Family>, Version)>, Trouble> {
        let now = self.clock.now();
        let patience = i64::try_from(issuer.outbound.timeout().as_secs()).unwrap_or(i64::MAX);
        let until = now.saturating_add(patience).saturating_add(WRITING);
        if family.claim.is_some() {
            self.give_up(&mut family);
        }
        family.claim = Some(Claim { until, is_renewal });
        let (content, life) = (family.write(), self.life(&family, now));
        let replaced = self.state.store.replace(id, version, &content, life).await;
        Ok(replaced?.map(|version| (Box::new(family), version)))
    }

    /// Gives it back.
    pub(super) async fn release(&self, id: RecordId, mut family: Box<Family>, version: Version) {
        family.claim = None;
        let (content, life) = (family.write(), self.life(&family, self.clock.now()));
        // If it cannot be written, the claim ends by itself.
        let _ = self.state.store.replace(id, version, &content, life).await;
    }

    /// Writes down what the issuer has granted, however often it takes. Whether the family was still
    /// there.
    pub(super) async fn settle(
        &self,
        id: RecordId,
        family: &Family,
        version: Version,
    ) -> Result<bool, Trouble> {
        let content = family.write();
        let life = self.life(family, self.clock.now());
        for attempt in 1.. {
            let written = self.state.store.replace(id, version, &content, life).await;
            match written {
                Ok(done) => {
                    self.state.recent.invalidate(&id);
                    if done.is_some() || attempt == 1 {
                        return Ok(done.is_some());
                    }
                    // The attempt before may have come through all the same.
                    let found = self.state.store.get(id, life.now).await?;
                    return Ok(found.is_some_and(|record| record.content == content));
                }
                Err(_) if attempt < ATTEMPTS => tokio::time::sleep(ATTEMPT_PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Trouble::Away)
    }

    /// What a client has proved itself with. `None` for an assertion, which proves who made it and not
    /// who sends another one.
    fn proof(&self, client: &str, forward: &Forward) -> Option<Digest> {
        let (way, credential) = match &forward.auth {
            ClientAuth::Basic(header) => ("basic", header.as_bytes()),
            ClientAuth::Post => (
                "post",
                forward.params.get("client_secret")?.expose().as_bytes(),
            ),
            ClientAuth::Public => ("public", &b""[..]),
            ClientAuth::Assertion => return None,
        };
        let parts = [way.as_bytes(), client.as_bytes(), credential];
        Some(Digest(self.state.proofs.mac(&parts)))
    }

    fn warn_lost(&self) {
        let surface = &self.surface;
        tracing::warn!(%surface, "the store went away while a refresh was under way: the issuer's new tokens are lost, and its client has to authorize anew");
    }
}

// === impl Errand ===

impl Errand {
    async fn run(self) -> Answer {
        let (mut family, version) = match self.turn().await? {
            Turn::Own(family, version) => (family, version),
            Turn::Answered(response) => return Ok((response, Outcome::Reused)),
        };
        let since = self.handles.clock.now();
        let asked = match &family.granted.refresh_token {
            Some(token) => self.ask(token).await,
            None => Err(OAuthError::InvalidGrant),
        };
        let may_be_spent = renew::may_be_spent(&asked);
        let failed = match asked {
            Ok((response, outcome)) if response.status().is_success() => {
                match self.handles.granted(&response, since) {
                    Ok(granted) => {
                        let body = self.succeed(granted, &family, version).await?;
                        return Ok((with_body(response, body), outcome));
                    }
                    Err(error) => Err(error),
                }
            }
            other => other,
        };
        let failed = unquoted(failed, family.granted.refresh_token.as_deref());
        if may_be_spent {
            self.handles.give_up(&mut family);
        }
        self.handles.release(self.id, family, version).await;
        failed
    }

    /// Waits until nobody else is exchanging the same refresh token, and sees what is left to do.
    async fn turn(&self) -> Result<Turn, OAuthError> {
        let handles = &self.handles;
        let mut waited_for_another = false;
        loop {
            let found = handles.load(self.id).await?;
            let (family, version) = found
                .filter(|(family, _)| *family.client == *self.client)
                .ok_or(OAuthError::InvalidGrant)?;
            if !family.has(&self.handle) {
                return self.exchanged_before().await;
            }
            if handles.clock.now() >= family.refresh_until {
                return Err(OAuthError::InvalidGrant);
            }
            match family.claim(handles.clock.now()) {
                // What became of that request, this one could only ask the issuer for again.
                None if waited_for_another => return Err(OAuthError::RefreshFailed),
                None => {
                    let family = (family, version);
                    let claimed = handles.claim(self.id, family, &self.issuer, false).await?;
                    if let Some((family, version)) = claimed {
                        return Ok(Turn::Own(family, version));
                    }
                }
                Some(claim) => {
                    waited_for_another |= !claim.is_renewal;
                    tokio::time::sleep(POLL).await;
                }
            }
        }
    }

    /// A handle came that stands for nothing any more: from somebody who sent it at the same time as
    /// the one who got the answer, or from a thief, or after one.
    async fn exchanged_before(&self) -> Result<Turn, OAuthError> {
        let handles = &self.handles;
        let now = handles.clock.now();
        let kept = handles.state.store.get(self.answer_id(), now).await;
        let kept = match kept {
            Err(SealedError::Away | SealedError::Full) => return Err(OAuthError::StoreUnavailable),
            Err(SealedError::Unreadable) | Ok(None) => None,
            Ok(Some(record)) => serde_json::from_slice::<Repeatable>(&record.content).ok(),
        };
        if let Some(kept) = kept.filter(|kept| kept.of.is(&self.handle.digest)) {
            match handles.proof(&self.client, &self.forward) {
                Some(proof) if proof.is(&kept.proof) => {
                    let (response, _) = given_again(&kept.body);
                    return Ok(Turn::Answered(response));
                }
                // It may be who it says; only the issuer could tell, and has nothing to be asked.
                None => return Err(OAuthError::InvalidGrant),
                Some(_) => {}
            }
        }
        handles.end(self.id).await?;
        let surface = &handles.surface;
        tracing::warn!(%surface, "a refresh handle was used again: all handles of its grant are revoked");
        Err(OAuthError::InvalidGrant)
    }

    /// Asks the issuer as the client asks, with its own refresh token in place of the handle.
    async fn ask(&self, token: &str) -> Answer {
        let form = self.forward.params.with("refresh_token", token).to_form();
        ask(
            &self.handles.surface,
            self.forward.grant,
            &self.issuer,
            self.forward.headers.clone(),
            form,
        )
        .await
    }

    /// Puts the new tokens and handles in place of the old ones. Returns the body of the reply.
    async fn succeed(
        &self,
        granted: Granted,
        before: &Family,
        version: Version,
    ) -> Result<String, OAuthError> {
        let handles = &self.handles;
        let granted = granted.or(&before.granted);
        let pair = handles
            .pair(self.handle.family, &granted)
            .map_err(|_| OAuthError::StoreUnavailable)?;
        let renewal = Renewal::of(&self.forward).filter(|_| handles.outlives(&granted));
        let family = handles.family(self.client.clone(), granted, &pair, renewal);
        let now = handles.clock.now();
        let body = family
            .granted
            .reply(&pair, family.good_until.saturating_sub(now));
        // Before the handle stops being good: who brings it then finds this.
        let kept = self.keep_answer(&body, now).await;
        match handles.settle(self.id, &family, version).await {
            Ok(true) => {
                // It is to be found for its whole moment, however long the writing took.
                if kept.is_err() || handles.clock.now() != now {
                    let now = handles.clock.now();
                    let _ = self.keep_answer(&body, now).await;
                }
                Ok(body)
            }
            // It was revoked meanwhile, and stays so.
            Ok(false) => Err(OAuthError::InvalidGrant),
            Err(_) => {
                handles.warn_lost();
                Err(OAuthError::StoreUnavailable)
            }
        }
    }

    /// Keeps the answer for a moment, apart from the family: handles are not kept longer than they
    /// must be.
    async fn keep_answer(&self, body: &str, now: UnixSeconds) -> Result<(), SealedError> {
        let Some(proof) = self.handles.proof(&self.client, &self.forward) else {
            // Still to be found: it says that the handle was good a moment ago.
            return self.keep(Digest::of(""), "", now).await;
        };
        self.keep(proof, body, now).await
    }

    async fn keep(&self, proof: Digest, body: &str, now: UnixSeconds) -> Result<(), SealedError> {
        let kept = Repeatable {
            of: self.handle.digest,
            proof,
            body: body.into(),
        };
        let content = serde_json::to_vec(&kept).unwrap_or_default();
        let seconds = REPEATED_FOR;
        let life = Life { now, seconds };
        // Few at a time, and gone at once: they are not counted as grants.
        let store = &self.handles.state.store;
        store
            .put(self.answer_id(), &content, life, usize::MAX)
            .await
    }

    fn answer_id(&self) -> RecordId {
        RecordId::of("answer", self.handle.family.bytes())
    }
}
