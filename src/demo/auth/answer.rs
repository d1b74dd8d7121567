//! From a request to its endpoint, and what replies are made of.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::super::body::Body;
use super::super::host::{Closed, Service};
use super::claims::since_1970;
use super::fault::{Endpoint, Fault};
use super::management::Problem;
use super::seen::RecordedRequest;
use super::state::Issuer;

const MAX_BODY: usize = 1024 * 1024;

/// A request with its body.
pub(super) struct Received {
    parts: Parts,
    body: Bytes,
}

/// Parameters of a query, form or JSON object.
pub(super) struct Params(Vec<(String, String)>);

/// An error reply of the OAuth endpoints.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) error: &'static str,
    pub(super) description: String,
    pub(super) uri: Option<&'static str>,
    /// `WWW-Authenticate`
    pub(super) challenge: Option<&'static str>,
    /// What else there is to tell; boxed, because few refusals have any.
    pub(super) headers: Box<HeaderMap>,
}

// === impl Issuer ===

impl Service for Issuer {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY)
            .collect()
            .await
            .map_err(|_| Closed)?
            .to_bytes();
        let request = Received { parts, body };
        let Some(endpoint) = Endpoint::of(&request.parts.method, request.path()) else {
            return Ok(match (request.parts.method.as_str(), request.path()) {
                ("POST", "/login") => self.login(&request),
                _ => not_found(),
            });
        };
        let fault = self.arrived(endpoint, &request);
        let lost = matches!(fault, Some(Fault::LoseReply));
        if let Some(fault) = fault
            && let Some(failure) = fault.befall().await?
        {
            return Ok(failure);
        }
        let limited = self.state().meter.request(endpoint, since_1970());
        let reply = match limited {
            None => self.reply(endpoint, &request),
            Some(told) => {
                let mut reply = match told.exceeded {
                    true => too_many_requests(endpoint),
                    false => self.reply(endpoint, &request),
                };
                reply.headers_mut().extend(told.headers);
                reply
            }
        };
        if lost { Err(Closed) } else { Ok(reply) }
    }
}

impl Issuer {
    fn reply(self: &Arc<Self>, endpoint: Endpoint, request: &Received) -> Response<Body> {
        match endpoint {
            Endpoint::Discovery => self.discovery(),
            Endpoint::Jwks => self.jwks(),
            Endpoint::Authorize => self.authorize(request),
            Endpoint::Token => self.token(request),
            Endpoint::Revoke => self.revoke(request),
            Endpoint::Introspect => self.introspect(request),
            Endpoint::Userinfo => self.userinfo(request),
            Endpoint::Users => self.users(request),
            Endpoint::User => self.one_user(request),
            Endpoint::UpdateUser => self.update_user(request),
            Endpoint::Events => self.events(request),
        }
    }

    /// Counts and records; returns the fault that is set.
    fn arrived(&self, endpoint: Endpoint, request: &Received) -> Option<Fault> {
        let client = self.asker(endpoint, request);
        let record = RecordedRequest {
            target: request.parts.uri.to_string(),
            headers: request.parts.headers.clone(),
            body: request.body.clone(),
        };
        let mut state = self.state();
        state.seen.add(endpoint, client, record);
        state.faults.next(endpoint)
    }
}

// === impl Received ===

impl Received {
    pub(super) fn path(&self) -> &str {
        self.parts.uri.path()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// A header as text.
    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    /// The token of `Authorization: Bearer`.
    pub(super) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header(AUTHORIZATION)?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    pub(super) fn query(&self) -> Params {
        Params::form(self.parts.uri.query().unwrap_or_default().as_bytes())
    }

    /// The body's parameters by its content type; none if it is neither a form nor JSON.
    pub(super) fn params(&self) -> Result<Params, Refusal> {
        let content_type = self.header(CONTENT_TYPE).unwrap_or_default();
        let essence = content_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        let params = match essence.as_str() {
            "application/x-www-form-urlencoded" => Params::form(&self.body),
            "application/json" => Params::json(&self.body)?,
            _ => Params(Vec::new()),
        };
        match params.repeated() {
            Some(name) => Err(Refusal::invalid_request(format!(
                "Parameter sent more than once: {name}"
            ))),
            None => Ok(params),
        }
    }
}

// === impl Params ===

impl Params {
    fn form(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    fn json(body: &[u8]) -> Result<Self, Refusal> {
        let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
            return Err(Refusal::invalid_request(
                "The body is not a JSON object".to_owned(),
            ));
        };
        let text = |value| match value {
            Value::String(text) => text,
            Value::Null => String::new(),
            other => other.to_string(),
        };
        Ok(Self(
            fields
                .into_iter()
                .map(|(name, value)| (name, text(value)))
                .collect(),
        ))
    }

    /// An empty parameter counts as absent (RFC 6749 §3.1).
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn require(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| Refusal::missing(name))
    }

    /// The first parameter that is none of `known`.
    pub(super) fn other_than(&self, known: &[&str]) -> Option<&str> {
        let mut names = self.0.iter().map(|(name, _)| name.as_str());
        names.find(|name| !known.contains(name))
    }

    fn repeated(&self) -> Option<&str> {
        let mut names: Vec<_> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.windows(2).find_map(|pair| match pair {
            [one, other] if one == other => Some(*one),
            _ => None,
        })
    }
}

// === impl Refusal ===

impl Refusal {
    pub(super) fn new(
        status: StatusCode,
        error: &'static str,
        description: impl Into<String>,
    ) -> Self {
        Self {
            status,
            error,
            description: description.into(),
            uri: None,
            challenge: None,
            headers: Box::default(),
        }
    }

    pub(super) fn invalid_request(description: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    pub(super) fn missing(name: &str) -> Self {
        Self::invalid_request(format!("Missing required parameter: {name}"))
    }

    pub(super) fn invalid_grant(description: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "invalid_grant", description)
    }

    pub(super) fn unknown_audience(audience: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "access_denied",
            format!("Service not found: {audience}"),
        )
    }

    pub(super) fn no_client_grant(audience: &str) -> Self {
        let description = format!(
            "Client is not authorized to access \"{audience}\". You need to create a \"client-grant\" associated to this API."
        );
        Self::new(StatusCode::FORBIDDEN, "access_denied", description)
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut body = json!({ "error": self.error, "error_description": self.description });
        if let (Some(uri), Some(fields)) = (self.uri, body.as_object_mut()) {
            fields.insert("error_uri".to_owned(), uri.into());
        }
        let mut response = private_json(self.status, &body);
        response.headers_mut().extend(*self.headers);
        if let Some(challenge) = self.challenge {
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            error.to_string(),
        )
    }
}

// === replies ===

/// JSON that may be cached as `cache_control` says.
pub(super) fn public_json(body: &Value, cache_control: &str) -> Response<Body> {
    let mut response = with_type(StatusCode::OK, "application/json", body.to_string());
    if let (false, Ok(value)) = (
        cache_control.is_empty(),
        HeaderValue::from_str(cache_control),
    ) {
        response.headers_mut().insert(CACHE_CONTROL, value);
    }
    response
}

/// JSON that must not be cached (RFC 6749 §5.1).
pub(super) fn private_json(status: StatusCode, body: &Value) -> Response<Body> {
    private(with_type(status, "application/json", body.to_string()))
}

pub(super) fn private(mut response: Response<Body>) -> Response<Body> {
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
        .headers_mut()
        .insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

pub(super) fn with_type(
    status: StatusCode,
    content_type: &'static str,
    body: String,
) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A limit is met: in the manner of the API that is asked.
fn too_many_requests(endpoint: Endpoint) -> Response<Body> {
    match endpoint {
        Endpoint::Users | Endpoint::User | Endpoint::UpdateUser | Endpoint::Events => {
            Problem::too_many_requests().into_response()
        }
        _ => {
            let description = "Global limit has been reached";
            let status = StatusCode::TOO_MANY_REQUESTS;
            Refusal::new(status, "too_many_requests", description).into_response()
        }
    }
}

fn not_found() -> Response<Body> {
    let body = json!({ "statusCode": 404, "error": "Not Found", "message": "Not Found" });
    with_type(StatusCode::NOT_FOUND, "application/json", body.to_string())
}
