//! What a test can ask the simulated issuer to do wrong, and what it can look at afterwards.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use super::super::body::Body;
use super::super::host::Closed;

/// An endpoint that is counted and can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// `GET /.well-known/openid-configuration`
    Discovery,
    /// `GET /.well-known/jwks.json`
    Jwks,
    /// `GET /authorize`
    Authorize,
    /// `POST /oauth/token`
    Token,
    /// `POST /oauth/revoke`
    Revoke,
    /// `POST /oauth/introspect`
    Introspect,
    /// `GET /userinfo`
    Userinfo,
}

/// A failure of an endpoint, until it is taken away again. The request is read, counted and recorded before it.
#[derive(Clone)]
pub enum Fault {
    /// This status, content type and body.
    Status(u16, String, String),
    /// This status with any headers and body: redirects, quota replies.
    Reply(u16, Vec<(String, String)>, Bytes),
    /// The right answer, this much late.
    Slow(Duration),
    /// No answer, and the connection stays open.
    Hang,
    /// 200 with a page of HTML.
    Garbage,
    /// 200 with nothing in it.
    EmptyOk,
    /// Half of a declared body, then the connection closes.
    CutBody,
    /// The connection closes without an answer.
    CutAfterRequest,
    /// 200 with a JSON content type and blanks that never end.
    Endless,
}

/// Requests received so far, those that met a fault included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests for the discovery document.
    pub discovery: u64,
    /// Requests for the JWKS.
    pub jwks: u64,
    /// Requests to authorize; posts of the login form are not counted.
    pub authorize: u64,
    /// Token requests.
    pub token: u64,
    /// Revocations.
    pub revoke: u64,
    /// Introspections.
    pub introspect: u64,
    /// Requests for user information.
    pub userinfo: u64,
}

/// A request as the issuer saw it. `Debug` shows neither values nor body: they hold secrets.
#[derive(Clone)]
pub struct RecordedRequest {
    /// All header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

// === impl Endpoint ===

impl Endpoint {
    /// The endpoint of a request, if it is one that is counted.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        match (method.as_str(), path) {
            ("GET", "/.well-known/openid-configuration") => Some(Self::Discovery),
            ("GET", "/.well-known/jwks.json") => Some(Self::Jwks),
            ("GET", "/authorize") => Some(Self::Authorize),
            ("POST", "/oauth/token") => Some(Self::Token),
            ("POST", "/oauth/revoke") => Some(Self::Revoke),
            ("POST", "/oauth/introspect") => Some(Self::Introspect),
            ("GET", "/userinfo") => Some(Self::Userinfo),
            _ => None,
        }
    }
}

// === impl Fault ===

impl Fault {
    /// A redirect (302) to `location`.
    pub fn redirect(location: &str) -> Self {
        Self::Reply(
            302,
            vec![(LOCATION.to_string(), location.to_owned())],
            Bytes::new(),
        )
    }

    /// Fails; `Ok(None)` if the endpoint may answer after all.
    pub(super) async fn befall(self) -> Result<Option<Response<Body>>, Closed> {
        let json = "application/json";
        Ok(Some(match self {
            Self::Status(status, content_type, body) => {
                reply(status, &content_type, Body::from(body))
            }
            Self::Reply(status, headers, body) => with_headers(status, headers, body),
            Self::Slow(delay) => {
                tokio::time::sleep(delay).await;
                return Ok(None);
            }
            Self::Hang => std::future::pending().await,
            Self::Garbage => reply(
                200,
                "text/html",
                Body::from("<!doctype html><title>Welcome</title><p>It works!"),
            ),
            Self::EmptyOk => reply(200, json, Body::empty()),
            Self::CutBody => reply(200, json, Body::cut(1024)),
            Self::CutAfterRequest => return Err(Closed),
            Self::Endless => reply(200, json, Body::Endless),
        }))
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status, ..) | Self::Reply(status, ..) => write!(f, "Status({status})"),
            Self::Slow(delay) => write!(f, "Slow({delay:?})"),
            Self::Hang => f.write_str("Hang"),
            Self::Garbage => f.write_str("Garbage"),
            Self::EmptyOk => f.write_str("EmptyOk"),
            Self::CutBody => f.write_str("CutBody"),
            Self::CutAfterRequest => f.write_str("CutAfterRequest"),
            Self::Endless => f.write_str("Endless"),
        }
    }
}

fn reply(status: u16, content_type: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

/// A header that is none is left out.
fn with_headers(status: u16, headers: Vec<(String, String)>, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

// === impl Counts ===

impl Counts {
    pub(super) fn add(&mut self, endpoint: Endpoint) {
        let count = match endpoint {
            Endpoint::Discovery => &mut self.discovery,
            Endpoint::Jwks => &mut self.jwks,
            Endpoint::Authorize => &mut self.authorize,
            Endpoint::Token => &mut self.token,
            Endpoint::Revoke => &mut self.revoke,
            Endpoint::Introspect => &mut self.introspect,
            Endpoint::Userinfo => &mut self.userinfo,
        };
        *count += 1;
    }
}

// === impl RecordedRequest ===

impl RecordedRequest {
    /// The body read as a form, in its order.
    pub fn form(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(&self.body).into_owned().collect()
    }

    /// The first value of a header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl fmt::Debug for RecordedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("RecordedRequest")
            .field("headers", &names)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}
