//! `POST {prefix}/revoke` (RFC 7009): which token is to end, what it is worth here, and what the
//! client is told once the issuer has been asked. All of it decided on values.
//!
//! The gateway ends an access token before it asks the issuer, which alone knows whether the client's
//! credential is right. So a token ends here even if the issuer refuses the client then: who holds a
//! token may end it. That it was issued to the client that is named is checked, lest somebody ends
//! another's token by mistake.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::{Map, Value};

use super::client_auth;
use super::endpoint::Answer;
use super::errors::{OAuthError, SOON, forbid_storing};
use super::form::{Params, Secret};
use super::reply::{Outcome, pass_headers};
use super::token::headers_for_issuer;
use crate::identity::{Claims, Identity, UnixSeconds};
use crate::outbound::Reply;
use crate::rejection::{Reason, Rejection};

/// Claims that say which client a token was issued to: RFC 9068 §2.2, and as Auth0 has it.
pub(super) const CLIENT_CLAIMS: [&str; 2] = ["client_id", "azp"];

/// A request to end a token. Has no telling `Debug`: it holds the token and a credential.
pub struct Request {
    token: Secret,
    client: String,
    params: Params,
    headers: HeaderMap,
}

/// What a token that is to end is worth to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is accepted here, now or soon: it has to be denied. Its `exp`, if the gateway has verified
    /// one.
    Good(Option<UnixSeconds>),
    /// It is denied here already.
    Denied,
    /// Its time has passed for everybody.
    Over,
    /// Nobody gets in with it here. It may be a refresh token, or nothing.
    Unknown,
}

// === impl Request ===

impl Request {
    /// Reads a request. It names its client in one way only; `token_type_hint` is a hint that nothing
    /// here depends on (RFC 7009 §2.1).
    ///
    /// # Errors
    ///
    /// The first mistake found. What is missing is told as the issuer's endpoint tells it.
    pub fn read(head: &Parts, body: &[u8]) -> Result<Self, OAuthError> {
        let params = Params::read(&head.headers, body)?;
        let auth = client_auth::find(&head.headers, &params).map_err(|error| match error {
            OAuthError::MissingParameter(name) => OAuthError::MissingRequired(name),
            other => other,
        })?;
        let unnamed = match params.get("client_id") {
            // Beside an assertion that names another one.
            Some(_) => OAuthError::OtherClientId,
            None => OAuthError::MissingRequired("client_id"),
        };
        let client = auth.client_id(&params);
        let token = params.get("token");
        Ok(Self {
            client: client.ok_or(unnamed)?,
            token: token.ok_or(OAuthError::MissingRequired("token"))?.clone(),
            headers: headers_for_issuer(&head.headers, &auth),
            params,
        })
    }

    /// The token that is to end.
    #[must_use]
    pub fn token(&self) -> &str {
        self.token.expose()
    }

    /// The client that it says it comes from, unproven.
    #[must_use]
    pub fn client(&self) -> &str {
        &self.client
    }

    /// The same for another token: the one behind a handle.
    #[must_use]
    pub fn about(self, token: &str) -> Self {
        // The hint was about the handle.
        let kept = self
            .params
            .iter()
            .filter(|(name, _)| *name != "token_type_hint");
        let params = Params::of_pairs(kept.map(|(name, value)| match name {
            "token" => (name, token),
            _ => (name, value.expose()),
        }));
        Self {
            token: params.get("token").cloned().unwrap_or(self.token),
            params,
            ..self
        }
    }

    /// What the token is worth here, by the verdict on it.
    ///
    /// # Errors
    ///
    /// [`OAuthError::ForeignToken`] if it was issued to another client, or names another issuer: that
    /// one's tokens are not shown to this one. [`OAuthError::NotJudged`] if nobody can tell at the
    /// moment.
    pub fn standing(
        &self,
        verdict: Result<Arc<Identity>, Rejection>,
    ) -> Result<Standing, OAuthError> {
        match verdict {
            Ok(identity) if self.owns(&identity.claims) => {
                let expires_at = identity.claims.get("exp").and_then(Value::as_i64);
                Ok(Standing::Good(expires_at))
            }
            Ok(_) => Err(OAuthError::ForeignToken),
            Err(rejection) => match rejection.reason {
                Reason::Revoked => Ok(Standing::Denied),
                Reason::WrongIssuer => Err(OAuthError::ForeignToken),
                // Of these two its signature was good: time alone makes it good, or has ended it.
                Reason::NotYetValid => Ok(Standing::Good(None)),
                Reason::Expired => Ok(Standing::Over),
                reason if reason.status() == StatusCode::UNAUTHORIZED => Ok(Standing::Unknown),
                _ => Err(OAuthError::NotJudged),
            },
        }
    }

    /// Whether a token was issued to the client of this request, as far as it says to whom.
    fn owns(&self, claims: &Claims) -> bool {
        let named = CLIENT_CLAIMS.map(|name| claims.get(name));
        let mut named = named.into_iter().flatten().peekable();
        named.peek().is_none() || named.any(|client| client.as_str() == Some(&self.client))
    }

    /// What the issuer is sent: header fields and form. The client's credential goes as it came.
    #[must_use]
    pub fn into_form(self) -> (HeaderMap, Bytes) {
        (self.headers, self.params.to_form())
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

/// What the client is told of what came of asking the issuer. `ended` says that the token has ended
/// for everybody who would accept it: then nothing depends on the issuer any more but whether the
/// client is one.
#[must_use]
pub fn answer(ended: bool, asked: Result<Reply, OAuthError>, realm: &str) -> Answer {
    match asked {
        Ok(reply) if reply.status.is_success() => done(&reply.headers),
        Ok(reply) if reply.status.is_client_error() => {
            if ended && is_unsupported(&reply) {
                done(&reply.headers)
            } else {
                passed(reply, Outcome::RefusedByIssuer)
            }
        }
        // Auth0 has never heard of access tokens; it need not be well for one to end.
        Ok(_) | Err(_) if ended => done(&HeaderMap::new()),
        Ok(reply) if reply.status.is_server_error() => passed(reply, Outcome::IssuerError),
        Ok(_) => failed(OAuthError::IssuerReplyUnusable, realm),
        Err(error) => failed(error, realm),
    }
}

/// A token that has ended, or never was one: nobody is told which (RFC 7009 §2.2).
#[must_use]
pub fn done(from_issuer: &HeaderMap) -> Answer {
    let mut response = Response::new(Bytes::new());
    pass_headers(from_issuer, response.headers_mut());
    forbid_storing(response.headers_mut());
    Answer {
        response,
        outcome: Outcome::Revoked,
    }
}

/// What the issuer answers, as it is.
fn passed(reply: Reply, outcome: Outcome) -> Answer {
    let mut response = Response::new(reply.body);
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    pass_headers(&reply.headers, headers);
    if let Some(content_type) = reply.headers.get(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, content_type.clone());
    }
    forbid_storing(headers);
    Answer { response, outcome }
}

/// The client has to assume that the token is good still. To end it twice does no harm, so it is told
/// to try again (RFC 7009 §2.2.1), whether the issuer has heard of it or not.
fn failed(error: OAuthError, realm: &str) -> Answer {
    let mut response = error.response(realm);
    if matches!(
        error,
        OAuthError::IssuerUnreachable | OAuthError::IssuerTimeout | OAuthError::IssuerCut
    ) {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert(RETRY_AFTER, SOON);
    }
    Answer {
        response,
        outcome: error.outcome(),
    }
}

/// Whether the issuer says that it revokes no tokens of this kind (RFC 7009 §2.2.1).
fn is_unsupported(reply: &Reply) -> bool {
    let members = serde_json::from_slice::<Map<String, Value>>(&reply.body);
    members.is_ok_and(|members| {
        members.get("error").and_then(Value::as_str) == Some("unsupported_token_type")
    })
}

#[cfg(test)]
#[path = "revoke_tests.rs"]
mod tests;
