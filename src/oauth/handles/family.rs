//! What is kept behind the handles of one grant.

use super::granted::Granted;
use super::handle::{Digest, Handle, Kind};
use crate::identity::UnixSeconds;
use crate::oauth::client_auth::ClientAuth;
use crate::oauth::token::Forward;
use serde::{Deserialize, Serialize};

/// A grant: the issuer's tokens, the handles that stand for them now, and what is going on with them.
/// Has no `Debug`: it is made of secrets.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Family {
    /// `client_id` of whom it was granted to.
    pub(super) client: Box<str>,
    /// The issuer's tokens.
    pub(super) granted: Granted,
    /// Until when the access handle is good.
    pub(super) good_until: UnixSeconds,
    /// Until when the refresh handle is good, whatever is done with the family meanwhile.
    pub(super) refresh_until: UnixSeconds,
    /// Other families may have the same token: the gateway gives it again.
    pub(super) is_shared: bool,
    /// The access handle.
    pub(super) access: Digest,
    /// The refresh handle, if the issuer gave a refresh token.
    pub(super) refresh: Option<Digest>,
    /// Somebody is exchanging the issuer's refresh token.
    pub(super) claim: Option<Claim>,
    /// How the gateway renews the token by itself, if it does.
    pub(super) renewal: Option<Renewal>,
}

/// The right to send the issuer's refresh token: never two at a time, lest the issuer takes the second
/// for a thief's.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Claim {
    /// From then on whoever made it is gone.
    pub(super) until: UnixSeconds,
    /// Whether handles stay as they are.
    pub(super) is_renewal: bool,
}

/// What a client has proved itself with, so that the gateway can do so for it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Renewal {
    /// The `Authorization` header, if that was the way.
    pub(super) authorization: Option<Box<str>>,
    /// Parameters of client authentication.
    pub(super) params: Vec<(Box<str>, Box<str>)>,
    /// Not before then: the last try failed.
    pub(super) not_before: UnixSeconds,
}

/// An answer to a refresh that is given once more to who sent the same at the same time.
#[derive(Serialize, Deserialize)]
pub(super) struct Repeatable {
    /// The refresh handle that was exchanged.
    pub(super) of: Digest,
    /// What the client proved itself with.
    pub(super) proof: Digest,
    /// The body of the answer.
    pub(super) body: Box<str>,
}

// === impl Family ===

impl Family {
    /// Whether this is its present handle of that kind.
    pub(super) fn has(&self, handle: &Handle) -> bool {
        match handle.kind {
            Kind::Access => self.access.is(&handle.digest),
            Kind::Refresh => self.refresh.is_some_and(|own| own.is(&handle.digest)),
        }
    }

    /// The claim that is in force.
    pub(super) fn claim(&self, now: UnixSeconds) -> Option<Claim> {
        self.claim.filter(|claim| now < claim.until)
    }

    /// As JSON.
    pub(super) fn write(&self) -> Vec<u8> {
        // Strings and numbers alone: this cannot fail, and nothing at all would not be read again.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(super) fn read(content: &[u8]) -> Option<Self> {
        serde_json::from_slice(content).ok()
    }
}

// === impl Renewal ===

impl Renewal {
    /// What to keep of a request. `None` for an assertion, which is good once.
    pub(super) fn of(forward: &Forward) -> Option<Self> {
        let (authorization, names): (Option<Box<str>>, &[&str]) = match &forward.auth {
            ClientAuth::Basic(header) => (Some(header.to_str().ok()?.into()), &[]),
            ClientAuth::Post => (None, &["client_id", "client_secret"]),
            ClientAuth::Public => (None, &["client_id"]),
            ClientAuth::Assertion => return None,
        };
        let param = |name: &&str| Some(((*name).into(), forward.params.get(name)?.expose().into()));
        Some(Self {
            authorization,
            params: names.iter().filter_map(param).collect(),
            not_before: 0,
        })
    }
}
