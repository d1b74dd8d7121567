//! `POST {prefix}/token`: check, forward, pass the answer on.

use std::fmt;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::Surface;
use super::client::TokenIssuer;
use super::client_auth::{self, ClientAuth};
use super::errors::OAuthError;
use super::form::Params;
use super::grant::{self, Grant, UNKNOWN_GRANT};
use super::handles::is_meant;
use super::reply;

/// The answer to a token request, and what metrics and the access log say of it.
///
/// `Debug` shows neither headers nor body.
pub struct TokenReply {
    /// What the client gets.
    pub response: Response<Bytes>,
    /// A [`Grant`]'s name, or [`UNKNOWN_GRANT`].
    pub grant: &'static str,
    /// The name of one of [`reply::Outcome::ALL`].
    pub outcome: &'static str,
}

/// What the issuer made of a request: the client's answer, or why there is none.
pub(super) type Answer = Result<(Response<Bytes>, reply::Outcome), OAuthError>;

/// A token request that may go to the issuer. `Debug` shows no credential.
#[derive(Debug, Clone)]
pub struct Forward {
    /// The grant asked for.
    pub grant: Grant,
    /// How the client authenticates.
    pub auth: ClientAuth,
    /// Its parameters.
    pub params: Params,
    /// Headers for the issuer, `Content-Type` aside.
    pub headers: HeaderMap,
}

/// A token request that is refused here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub error: OAuthError,
    /// The grant asked for, where the request could be read that far.
    pub grant: Option<Grant>,
}

/// Headers of the client that mean something to a token endpoint. All others stay here, above all
/// [`CLIENT_ADDRESS`]: the issuer believes it, so it is not the client's to send.
const FORWARDED: [HeaderName; 2] = [USER_AGENT, HeaderName::from_static("dpop")];

/// Whom the issuer counts attempts of, instead of the gateway.
const CLIENT_ADDRESS: HeaderName = HeaderName::from_static("auth0-forwarded-for");

// === impl Forward ===

impl Forward {
    /// Whether a handle came where the issuer would see it. `is_known_here` is whether the surface itself reads the
    /// refresh token.
    fn shows_handle(&self, is_known_here: bool) -> bool {
        let is_read = |name: &str| {
            is_known_here && self.grant == Grant::RefreshToken && name == "refresh_token"
        };
        // What a client or a user has made up may look like anything.
        let is_made_up = |name: &str| {
            matches!(
                name,
                "client_id" | "client_secret" | "username" | "password"
            )
        };
        self.params
            .iter()
            .any(|(name, value)| is_meant(value.expose()) && !is_read(name) && !is_made_up(name))
    }

    /// The same, telling the issuer the address of the client. It believes that only of a client that
    /// proves who it is.
    #[must_use]
    pub fn on_behalf_of(mut self, client: Option<IpAddr>) -> Self {
        if let Some(address) = client
            && self.auth.is_confidential()
            && let Ok(address) = HeaderValue::from_str(&address.to_string())
        {
            self.headers.insert(CLIENT_ADDRESS, address);
        }
        self
    }
}

/// Serves one request at the token endpoint of `surface`, whole: it answers every method and body.
///
/// `body` is what the client sent, collected by the caller under `surface.max_body`. Nothing is
/// sent to the issuer twice; see [`crate::outbound::Outbound::post_form`].
pub async fn token(
    surface: &Surface,
    issuer: &TokenIssuer,
    head: &Parts,
    body: Bytes,
) -> TokenReply {
    let forward = match decide(surface, head, &body) {
        Ok(forward) => forward.on_behalf_of(issuer.client),
        Err(Refusal { error, grant }) => {
            let grant = grant.map_or(UNKNOWN_GRANT, Grant::as_str);
            let (name, status) = (&surface.name, error.status().as_u16());
            tracing::debug!(surface = %name, grant, status, cause = %error, "token request refused");
            return failed(surface, grant, error);
        }
    };
    let grant = forward.grant.as_str();
    match answer(surface, issuer, forward).await {
        Ok((response, outcome)) => TokenReply {
            response,
            grant,
            outcome: outcome.as_str(),
        },
        Err(error) => failed(surface, grant, error),
    }
}

/// Answers in the way of the grant: with what is known already, or by asking the issuer.
async fn answer(surface: &Surface, issuer: &TokenIssuer, forward: Forward) -> Answer {
    if forward.shows_handle(issuer.handles.is_some()) {
        // Whosever it is, the issuer is no more to see it than anybody else.
        return Err(OAuthError::InvalidGrant);
    }
    if let Some(handles) = &issuer.handles {
        return handles.answer(issuer, &forward).await;
    }
    if let (Grant::RefreshToken, Some(refresh)) = (forward.grant, &issuer.refresh) {
        return refresh.answer(issuer, &forward).await;
    }
    match &issuer.reuse {
        Some(reuse) => reuse.answer(issuer, &forward).await,
        None => {
            let form = forward.params.to_form();
            ask(&surface.name, forward.grant, issuer, forward.headers, form).await
        }
    }
}

/// Asks the issuer, once, and logs what came of it if that is no token.
pub(super) async fn ask(
    surface: &str,
    grant: Grant,
    issuer: &TokenIssuer,
    headers: HeaderMap,
    form: Bytes,
) -> Answer {
    let grant = grant.as_str();
    let reply = issuer.post(headers, form).await.map_err(|cause| {
        let error = OAuthError::from(&cause);
        let status = error.status().as_u16();
        tracing::warn!(%surface, grant, status, %cause, "token request failed");
        error
    })?;
    let came = reply.status;
    let answer = reply::answer(reply);
    match &answer {
        Ok(_) => report(surface, grant, came),
        Err(error) => {
            let (status, came) = (error.status().as_u16(), came.as_u16());
            tracing::warn!(%surface, grant, status, issuer_status = came, cause = %error, "token request failed");
        }
    }
    answer
}

/// Whether and how a token request goes to the issuer. Decided on values; asks nobody.
///
/// # Errors
///
/// A [`Refusal`] with the first thing found wrong.
pub fn decide(surface: &Surface, head: &Parts, body: &[u8]) -> Result<Forward, Refusal> {
    let unread = |error| Refusal { error, grant: None };
    if head.method != Method::POST {
        return Err(unread(OAuthError::MethodNotAllowed));
    }
    if body.len() as u64 > surface.max_body {
        return Err(unread(OAuthError::BodyTooLarge));
    }
    let params = Params::read(&head.headers, body).map_err(unread)?;
    let refused = |error| Refusal {
        error,
        grant: grant::named(&params),
    };
    let grant = grant::find(&params, &surface.grants).map_err(refused)?;
    let auth = client_auth::find(&head.headers, &params).map_err(refused)?;
    if auth == ClientAuth::Public && !grant.open_to_public_clients() {
        return Err(refused(OAuthError::NoClientAuthentication));
    }
    Ok(Forward {
        grant,
        headers: headers_for_issuer(&head.headers, &auth),
        auth,
        params,
    })
}

/// Header fields for an endpoint of the issuer's that takes a form from clients; the type of the form
/// aside.
pub(super) fn headers_for_issuer(given: &HeaderMap, auth: &ClientAuth) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    for name in &FORWARDED {
        for value in given.get_all(name) {
            let mut value = value.clone();
            value.set_sensitive(true);
            headers.append(name.clone(), value);
        }
    }
    match auth {
        ClientAuth::Basic(header) => {
            headers.insert(AUTHORIZATION, header.clone());
        }
        ClientAuth::Post | ClientAuth::Assertion | ClientAuth::Public => {}
    }
    headers
}

fn failed(surface: &Surface, grant: &'static str, error: OAuthError) -> TokenReply {
    TokenReply {
        response: error.response(&surface.realm),
        grant,
        outcome: error.outcome().as_str(),
    }
}

/// One line for an error of the issuer, without its body: that may quote what the client sent.
fn report(surface: &str, grant: &'static str, status: StatusCode) {
    let code = status.as_u16();
    if status.is_server_error() {
        tracing::warn!(%surface, grant, status = code, "the token endpoint failed");
    } else if status.is_client_error() {
        tracing::debug!(%surface, grant, status = code, "the token endpoint refused");
    }
}

impl fmt::Debug for TokenReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReply")
            .field("status", &self.response.status())
            .field("grant", &self.grant)
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
