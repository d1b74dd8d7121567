//! `POST {prefix}/introspect` (RFC 7662): who may ask, about which token, and what is told of it. All
//! of it decided on values.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::{Map, Value};

use super::client_auth;
use super::endpoint::Answer;
use super::errors::{OAuthError, forbid_storing};
use super::form::{Params, Secret};
use super::reply::Outcome;
use super::revoke::CLIENT_CLAIMS;
use crate::identity::Identity;
use crate::rejection::Rejection;

/// All that is told of a token that is not active, whatever the reason (RFC 7662 §2.2).
const INACTIVE: &[u8] = br#"{"active":false}"#;

/// Who may ask: `introspect_clients` of a surface.
#[derive(Clone, Default)]
pub struct Clients(Vec<Pair>);

/// SHA-256 of an id and its secret.
type Pair = [u8; 32];

// === impl Clients ===

impl Clients {
    /// Those with these ids and secrets.
    pub fn new<'s>(clients: impl IntoIterator<Item = (&'s str, &'s str)>) -> Self {
        let pairs = clients.into_iter().map(|(id, secret)| pair(id, secret));
        Self(pairs.collect())
    }

    /// Whether nobody may ask.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is one of them. Takes the same time for a known id with a wrong secret as for an
    /// unknown one, wherever the difference is: digests are compared, with all of them, to the end.
    fn know(&self, id: &str, secret: &str) -> bool {
        let given = pair(id, secret);
        let equal = |own: &Pair| verify_slices_are_equal(own, &given).is_ok();
        self.0.iter().fold(false, |known, own| known | equal(own))
    }

    /// The one way in which somebody authenticates who may ask.
    fn admit(&self, headers: &HeaderMap, params: &Params) -> Result<(), OAuthError> {
        let auth = match client_auth::find(headers, params) {
            Ok(auth) => auth,
            // Who says nothing of himself is told what who says something wrong is told.
            Err(OAuthError::MissingParameter(_)) => return Err(OAuthError::UnknownClient),
            Err(error) => return Err(error),
        };
        match auth.password(params) {
            Some((id, secret)) if self.know(&id, &secret) => Ok(()),
            Some(_) | None => Err(OAuthError::UnknownClient),
        }
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clients({})", self.0.len())
    }
}

/// The digest of a pair. The length is part of it, so that no other pair has the same text.
fn pair(id: &str, secret: &str) -> Pair {
    let mut digest = Context::new(&SHA256);
    digest.update(&(id.len() as u64).to_be_bytes());
    digest.update(id.as_bytes());
    digest.update(secret.as_bytes());
    let mut pair = Pair::default();
    pair.copy_from_slice(digest.finish().as_ref());
    pair
}

/// The token that a request asks about. `token_type_hint` and whatever else comes says nothing.
///
/// # Errors
///
/// What is wrong with the request, and [`OAuthError::UnknownClient`] before anything is said of the
/// token.
pub fn read(clients: &Clients, head: &Parts, body: &[u8]) -> Result<Secret, OAuthError> {
    let params = Params::read(&head.headers, body)?;
    clients.admit(&head.headers, &params)?;
    let token = params.get("token").cloned();
    token.ok_or(OAuthError::MissingParameter("token"))
}

/// What is told of a token, by the verdict on it.
///
/// # Errors
///
/// [`OAuthError::NotJudged`] if nobody can tell at the moment: that is no reason to call a token
/// inactive.
pub fn answer(verdict: Result<Arc<Identity>, Rejection>) -> Result<Answer, OAuthError> {
    let body = match verdict {
        Ok(identity) => active(&identity),
        Err(rejection) if rejection.reason.status() == StatusCode::UNAUTHORIZED => {
            return Ok(inactive());
        }
        Err(_) => return Err(OAuthError::NotJudged),
    };
    Ok(told(body))
}

/// What is told of a token that is not active.
#[must_use]
pub fn inactive() -> Answer {
    told(Bytes::from_static(INACTIVE))
}

fn told(body: Bytes) -> Answer {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    forbid_storing(headers);
    Answer {
        response,
        outcome: Outcome::Answered,
    }
}

/// The claims of an active token as they are, and what RFC 7662 §2.2 has other names or forms for.
fn active(identity: &Identity) -> Bytes {
    let claims = &identity.claims;
    let mut members = Map::new();
    members.insert("active".to_owned(), true.into());
    // What a token says of itself under a name that is ours does not count.
    let others = claims.iter().filter(|(name, _)| *name != "active");
    members.extend(others.map(|(name, value)| (name.to_owned(), value.clone())));
    members.insert("token_type".to_owned(), "Bearer".into());
    let client = CLIENT_CLAIMS.iter().find_map(|name| claims.get(name));
    if let Some(client) = client {
        members.insert("client_id".to_owned(), client.clone());
    }
    if !claims.get("scope").is_some_and(Value::is_string) {
        let scopes: Vec<&str> = identity.scopes.iter().collect();
        if !scopes.is_empty() {
            members.insert("scope".to_owned(), scopes.join(" ").into());
        }
    }
    Value::Object(members).to_string().into()
}

#[cfg(test)]
#[path = "introspect_tests.rs"]
mod tests;
